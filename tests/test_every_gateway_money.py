"""Money that does not come as it should, at every gateway: late, too much, too little, in another currency, twice.

It is recorded as what it is, a person is asked where it does not fit, the evidence is kept, and the backend is told.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from payments_service import payments
from tests.every_gateway import (
    CARD,
    ECOCASH,
    INNBUCKS,
    LANES,
    ONEMONEY,
    WEB,
    Begun,
    Desk,
    Lane,
    one_clock,
    without_callbacks,
)
from tests.house import House
from tests.support import afresh, open_house

# Stripe's pages are ended with their link; a code of InnBucks' holds it open, as long as it lives.
AFTER_THE_END = [*ECOCASH, WEB, ONEMONEY]
PAID_WORD = {"ecocash open_api": "SUCCESS", "ecocash eip": "COMPLETED", "ecocash eip_portal": "SUCCESS"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        one_clock(house.world)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desks(service: House) -> dict[str, Desk]:
    return {lane.dialect: await Desk.open(service, lane.dialect) for lane in ECOCASH}


Opens = Callable[[Lane], Desk]


@pytest.fixture
def desk_of(service: House, desks: dict[str, Desk]) -> Opens:
    """Of a tenant whose payments before are not looked at any more, and whom no callback reaches."""
    afresh(service)
    without_callbacks(service.world)
    service.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    return lambda lane: desks[lane.dialect]


def evidence(begun: Begun, said: str, cents: int | None, currency: str | None = "USD") -> dict[str, Any]:
    """All that is kept for a person: no phone number, no secret, nothing else."""
    attempt = begun.attempt
    return {
        "gateway": begun.lane.gateway,
        "said": said,
        "amount_cents": cents,
        "currency": currency,
        "reference": attempt["reference"] if begun.lane.gateway in ("ecocash", "paynow", "stripe") else None,
        "gateway_reference": attempt["gateway_reference"],
        "expected_cents": begun.payment["amount_cents"],
        "expected_currency": begun.payment["currency"],
        "expected_reference": attempt["reference"],
    }


def word_of_money(lane: Lane) -> str:
    return PAID_WORD.get(str(lane), "complete, paid" if lane == CARD else "Paid")


def check_review(begun: Begun, reason: str, kept: dict[str, Any]) -> None:
    (review,) = begun.reviews
    assert (review["reason"], review["evidence"]) == (reason, kept)
    assert review["attempt_id"] == begun.attempt["id"]
    row = begun.row
    assert row["status"] == "review"
    assert row["paid_at"] is None
    # What does not fit claims no reference.
    assert row["gateway_reference"] is None
    assert kept["gateway_reference"] or reason == "unknown_status"


# --- late


@pytest.mark.parametrize("lane", AFTER_THE_END, ids=str)
async def test_money_after_the_link_is_over_is_late(desk_of: Opens, lane: Lane) -> None:
    """The prompt or the code was still open, and nothing had come by the link's end."""
    begun = await desk_of(lane).begin(lane, expires_in=300)
    await begun.hang()
    await begun.look(seconds=301)
    await payments.expire_due(begun.world.context)
    assert begun.row["status"] == "expired"
    await begun.pay()
    await begun.look()
    assert (begun.row["status"], begun.row["late"], begun.row["gateway"]) == ("paid", True, lane.gateway)
    assert begun.told == ["link_created", "expired", "paid"]
    assert begun.reviews == []


async def test_a_code_that_outlives_its_link_is_paid_in_time(desk_of: Opens) -> None:
    """The customer was asked to pay before the end."""
    begun = await desk_of(INNBUCKS).begin(INNBUCKS, expires_in=300)
    await begun.look(seconds=301)
    await payments.expire_due(begun.world.context)
    await begun.pay()
    await begun.look()
    assert (begun.row["status"], begun.row["late"]) == ("paid", False)
    assert begun.told == ["link_created", "paid"]


@pytest.mark.parametrize("lane", LANES, ids=str)
async def test_money_after_the_link_was_withdrawn_is_late(desk_of: Opens, lane: Lane) -> None:
    begun = await desk_of(lane).begin(lane)
    path = begun.desk.house.path(f"/payments/{begun.id}/cancel")
    assert (await begun.desk.house.call("POST", path)).status == 200
    await begun.pay()
    await begun.look()
    assert (begun.row["status"], begun.row["late"]) == ("paid", True)
    assert begun.told == ["link_created", "cancelled", "paid"]


@pytest.mark.parametrize("days", [0, 2])
@pytest.mark.parametrize("lane", ECOCASH, ids=str)
async def test_a_prompt_that_had_failed_and_is_paid_all_the_same(desk_of: Opens, lane: Lane, days: int) -> None:
    """Nobody tells of it: it is asked about again ten minutes after the start, and for a week."""
    begun = await desk_of(lane).begin(lane)
    await begun.turn_down()
    await begun.look()
    assert begun.row["status"] == "failed"
    begun.world.clock.forward(days=days, minutes=1)
    await begun.desk.look()
    await begun.pay_after_all()
    begun.world.clock.forward(days=bool(days), minutes=10)
    await begun.desk.look()
    assert (begun.row["status"], begun.row["late"]) == ("paid", True)
    assert begun.told == ["link_created", "failed", "paid"]


@pytest.mark.parametrize("lane", [WEB, ONEMONEY], ids=str)
async def test_a_cancelled_try_at_paynow_that_is_paid_all_the_same(desk_of: Opens, lane: Lane) -> None:
    """Paynow itself tells of it: its word makes us look."""
    begun = await desk_of(lane).begin(lane)
    await begun.turn_down()
    await begun.look()
    begun.world.sandbox.clear_faults()
    await begun.pay_after_all()
    await begun.world.sandbox.settled()
    begun.world.clock.forward(seconds=1)
    await begun.desk.look()
    assert (begun.row["status"], begun.row["late"]) == ("paid", True)
    assert begun.told == ["link_created", "failed", "paid"]


@pytest.mark.parametrize("over", [False, True], ids=["link open", "link over"])
async def test_a_code_that_is_claimed_after_it_had_expired(desk_of: Opens, over: bool) -> None:
    """We saw it expire; the looks after its end find the money, which is late if the link was over by then."""
    begun = await desk_of(INNBUCKS).begin(INNBUCKS, expires_in=1800 if over else 86_400)
    begun.world.clock.forward(minutes=10, seconds=1)
    await begun.desk.look()
    assert (begun.attempt["state"], begun.attempt["said"]) == ("failed", "Expired")
    begun.world.clock.forward(minutes=25)
    await begun.desk.look()
    await payments.expire_due(begun.world.context)
    await begun.say("Claimed")
    begun.world.clock.forward(minutes=25)
    await begun.desk.look()
    assert (begun.row["status"], begun.row["late"]) == ("paid", over)
    assert begun.row["gateway_reference"].startswith(begun.world.innbucks.find(begun.name).code)
    assert begun.told == ["link_created", *(["expired"] if over else []), "paid"]


# --- other amounts


@pytest.mark.parametrize("cents", [1249, 1251])
@pytest.mark.parametrize("lane", LANES, ids=str)
async def test_one_cent_off_is_for_a_person(desk_of: Opens, lane: Lane, cents: int) -> None:
    """Neither paid nor failed; asked again it opens nothing more."""
    begun = await desk_of(lane).begin(lane)
    await begun.pay(cents)
    await begun.look(times=2)
    check_review(begun, "amount_mismatch", evidence(begun, word_of_money(lane), cents))
    assert begun.told == ["link_created", "review"]


@pytest.mark.parametrize(("asked", "came"), [("USD", "ZIG"), ("ZIG", "USD")])
@pytest.mark.parametrize("lane", ECOCASH, ids=str)
async def test_the_other_currency_is_for_a_person(desk_of: Opens, lane: Lane, asked: str, came: str) -> None:
    begun = await desk_of(lane).begin(lane, currency=asked)
    await begun.pay(currency={"ZIG": "ZiG" if lane.dialect == "open_api" else "924"}.get(came, came))
    await begun.look(times=2)
    check_review(begun, "currency_mismatch", evidence(begun, word_of_money(lane), 1250, came))
    assert begun.told == ["link_created", "review"]


@pytest.mark.parametrize("lane", ECOCASH, ids=str)
async def test_an_answer_that_tells_another_currency_once_is_for_a_person(desk_of: Opens, lane: Lane) -> None:
    begun = await desk_of(lane).begin(lane)
    begun.world.ecocash.add_fault("wrong_currency", times=1)
    await begun.pay()
    await begun.look(times=2)
    check_review(begun, "currency_mismatch", evidence(begun, word_of_money(lane), 1250, "ZIG"))


async def test_a_card_that_paid_in_another_currency_is_for_a_person(desk_of: Opens) -> None:
    begun = await desk_of(CARD).begin(CARD)
    await begun.pay(currency="eur")
    await begun.look(times=2)
    assert begun.row["status"] == "review"
    assert begun.told == ["link_created", "review"]


# --- twice

PAIRS = [
    (ECOCASH[1], WEB),
    (ECOCASH[2], CARD),
    (ECOCASH[0], ONEMONEY),
    (ONEMONEY, ECOCASH[1]),
    (INNBUCKS, CARD),
    (INNBUCKS, ECOCASH[2]),
    (WEB, INNBUCKS),
    (ONEMONEY, WEB),
]


@pytest.mark.parametrize("newest_first", [True, False], ids=["newest first", "oldest first"])
@pytest.mark.parametrize(("first", "second"), PAIRS, ids=lambda lane: str(lane))
async def test_money_by_two_ways_is_for_a_person(desk_of: Opens, first: Lane, second: Lane, newest_first: bool) -> None:
    """What is found first counts; the other opens a review, with what came by it, whichever was begun first."""
    desk = desk_of(second if second in ECOCASH else first)
    payment = await desk.link()
    tries = []
    for after, lane in enumerate((first, second)):
        answer = await desk.tap(payment, lane.way, phone="0771234567", after=str(after))
        assert answer.status == 303, answer.body
        tries.append(Begun(desk, lane, payment, "0771234567"))
        desk.world.clock.forward(seconds=10)
    for one in tries:
        await one.pay()
    looked = tries[::-1] if newest_first else tries
    for one in looked:
        await look_at(one)
    await tries[0].look()
    counted, other = looked
    row = other.row
    assert (row["status"], row["gateway"]) == ("review", counted.lane.gateway)
    assert row["gateway_reference"] == counted.attempt["gateway_reference"]
    (review,) = other.reviews
    assert (review["reason"], review["attempt_id"]) == ("second_payment", other.attempt["id"])
    assert review["evidence"]["gateway_reference"] == other.attempt["gateway_reference"]
    assert review["evidence"]["amount_cents"] == 1250
    assert other.told == ["link_created", "paid", "review"]


async def look_at(begun: Begun) -> None:
    """Only this try is due."""
    world, at = begun.world, begun.world.clock()
    world.rows_do("UPDATE attempts SET next_check_at = %s + interval '1 day' WHERE next_check_at IS NOT NULL", at)
    world.rows_do("UPDATE attempts SET next_check_at = %s WHERE id = %s", at, begun.attempt["id"])
    await begun.desk.look()


@pytest.mark.parametrize("lane", ECOCASH, ids=str)
async def test_a_reference_of_ecocash_that_another_payment_has(desk_of: Opens, lane: Lane) -> None:
    """The second claim of one transfer is no second transfer."""
    desk = desk_of(lane)
    one, other = await desk.begin(lane), await desk.begin(lane)
    await desk.world.ecocash.reuse_reference(other.name, one.name)
    for begun in (one, other):
        await begun.pay()
        await begun.look()
    assert one.row["status"] == "paid"
    assert one.told == ["link_created", "paid"]
    check_review(other, "gateway_reference_reused", evidence(other, word_of_money(lane), 1250))
    assert other.told == ["link_created", "review"]


# --- words that nobody knows


@pytest.mark.parametrize("lane", [*AFTER_THE_END, INNBUCKS], ids=str)
async def test_an_unknown_word_fails_nothing_and_is_for_a_person_in_the_end(desk_of: Opens, lane: Lane) -> None:
    """Pending until the link ends, then a review, once; however often it is said."""
    begun = await desk_of(lane).begin(lane, expires_in=86_400)
    await begun.say("HALF_DONE")
    for hours in (0, 1, 20):
        await begun.look(hours=hours, minutes=15)
        await payments.expire_due(begun.world.context)
        assert begun.row["status"] == "pending"
    await begun.look(hours=4)
    await payments.expire_due(begun.world.context)
    # The classic gateway tells besides what was charged, which is nothing.
    kept = evidence(begun, "HALF_DONE", 0 if lane.dialect == "eip" else 1250)
    check_review(begun, "unknown_status", kept)
    await begun.look(times=2, hours=12)
    assert begun.told == ["link_created", "review"]
    assert len(begun.reviews) == 1
