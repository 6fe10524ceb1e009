"""Refunds over HTTP of what was paid by EcoCash, in each of its dialects, and by InnBucks, which has none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from payments_service.sandbox.ecocash_charges import Charge
from tests.every_gateway import ECOCASH, INNBUCKS, Begun, Desk, Lane, one_clock, without_callbacks
from tests.house import Answer, House
from tests.support import afresh, open_house
from tests.test_ways import down

DIALECTS = pytest.mark.parametrize("lane", ECOCASH, ids=str)
LOST = ("error500", "html", "empty", "truncated", "reset")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        one_clock(house.world)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desks(service: House) -> dict[str, Desk]:
    return {lane.dialect: await Desk.open(service, lane.dialect) for lane in ECOCASH}


@pytest.fixture
def free(service: House, desks: dict[str, Desk]) -> dict[str, Desk]:
    """The tenants, whose payments before are not looked at any more."""
    afresh(service)
    without_callbacks(service.world)
    service.world.ecocash.refund_outcome = "paid"
    service.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    return desks


async def paid(free: dict[str, Desk], lane: Lane) -> Begun:
    begun = await free[lane.dialect].begin(lane)
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"
    begun.world.ecocash.calls.clear()
    begun.world.ecocash.requests.clear()
    return begun


def path(begun: Begun) -> str:
    return begun.desk.house.path(f"/payments/{begun.id}/refunds")


async def refund(begun: Begun, **fields: object) -> Answer:
    return await begun.desk.house.call("POST", path(begun), {"reason": "one bag was torn", **fields})


async def listed(begun: Begun) -> list[Any]:
    data: list[Any] = (await begun.desk.house.call("GET", path(begun))).json["data"]
    return data


def charge_of(begun: Begun) -> Charge:
    return begun.world.ecocash.find(begun.name)


def given_back(begun: Begun) -> list[Decimal]:
    """What truly went back."""
    return [one.amount for one in charge_of(begun).refunds if one.paid]


def now(begun: Begun) -> tuple[str, int]:
    return begun.row["status"], begun.row["refunded_cents"]


# --- done at once


@DIALECTS
async def test_the_whole_goes_back(free: dict[str, Desk], lane: Lane) -> None:
    """Without an amount it is all that was paid; the refund bears EcoCash's own reference of it."""
    begun = await paid(free, lane)
    answer = await refund(begun)
    assert answer.status == 201, answer.body
    (made,) = charge_of(begun).refunds
    assert (answer.json["status"], answer.json["amount_cents"]) == ("succeeded", 1250)
    assert answer.json["gateway_reference"] == made.ecocash_reference
    assert answer.json["payment"]["status"] == "refunded"
    assert given_back(begun) == [Decimal("12.50")]
    assert begun.told == ["link_created", "paid", "refunded"]
    assert (await refund(begun)).status == 409
    assert begun.world.ecocash.calls["refund"] == 1


@DIALECTS
async def test_parts_go_back_until_nothing_is_left(free: dict[str, Desk], lane: Lane) -> None:
    """One cent more than what is left is refused before EcoCash hears of it."""
    begun = await paid(free, lane)
    assert (await refund(begun, amount_cents=300)).json["payment"]["status"] == "partially_refunded"
    answer = await refund(begun, amount_cents=951)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "amount_cents")
    assert begun.world.ecocash.calls["refund"] == 1
    assert (await refund(begun, amount_cents=950)).status == 201
    assert now(begun) == ("refunded", 1250)
    assert given_back(begun) == [Decimal("3.00"), Decimal("9.50")]
    assert begun.told == ["link_created", "paid", "partially_refunded", "refunded"]


@DIALECTS
async def test_what_was_given_back_past_us_is_refused(free: dict[str, Desk], lane: Lane) -> None:
    """EcoCash knows more than we do: its no fails the refund, and the payment stands."""
    begun = await paid(free, lane)
    begun.world.ecocash.find(begun.name).amount = Decimal("2.00")
    answer = await refund(begun, amount_cents=300)
    assert (answer.status, answer.json["code"]) == (422, "gateway_refused")
    assert [each["status"] for each in await listed(begun)] == ["failed"]
    assert now(begun) == ("paid", 0)


async def test_an_ecocash_that_is_away_has_done_nothing(free: dict[str, Desk]) -> None:
    """The call never left: the refund is over, and another may be asked for."""
    begun = await paid(free, ECOCASH[0])
    async with down(begun.desk.house, "ecocash"):
        assert (await refund(begun)).status == 503
    assert [each["status"] for each in await listed(begun)] == ["failed"]
    assert (await refund(begun)).status == 201
    assert given_back(begun) == [Decimal("12.50")]


# --- the answer is lost


@DIALECTS
@pytest.mark.parametrize("fault", LOST)
async def test_a_refund_whose_answer_is_lost_is_traced(free: dict[str, Desk], lane: Lane, fault: str) -> None:
    """It stays `requested` until the look-up of its own id finds it; it is never sent a second time."""
    begun = await paid(free, lane)
    begun.world.ecocash.add_fault(fault, on=["refund"])
    answer = await refund(begun, amount_cents=300)
    assert (answer.status, answer.json["code"]) == (504, "gateway_timeout")
    assert [each["status"] for each in await listed(begun)] == ["requested"]
    assert now(begun) == ("paid", 0)
    begun.world.clock.forward(minutes=1)
    await begun.desk.look()
    (traced,) = await listed(begun)
    assert (traced["status"], now(begun)) == ("succeeded", ("partially_refunded", 300))
    assert traced["gateway_reference"] == charge_of(begun).refunds[0].ecocash_reference
    assert begun.told == ["link_created", "paid", "partially_refunded"]
    assert begun.world.ecocash.calls["refund"] == 1
    assert given_back(begun) == [Decimal("3.00")]


@DIALECTS
@pytest.mark.parametrize(("word", "status", "ends"), [("paid", "succeeded", "refunded"), ("failed", "failed", "paid")])
async def test_a_refund_that_takes_its_time(
    free: dict[str, Desk], lane: Lane, word: str, status: str, ends: str
) -> None:
    """Taken, and not yet done: what becomes of it is asked for, and told once."""
    begun = await paid(free, lane)
    begun.world.ecocash.refund_outcome = "pending"
    assert (await refund(begun)).status in (201, 504)
    assert now(begun) == ("paid", 0)
    (made,) = charge_of(begun).refunds
    begun.world.clock.forward(minutes=1)
    await begun.desk.look()
    assert now(begun) == ("paid", 0)
    await begun.world.ecocash.set_status(made.correlator, getattr(made.words, word))
    begun.world.clock.forward(hours=1)
    await begun.desk.look()
    assert [each["status"] for each in await listed(begun)] == [status]
    assert begun.row["status"] == ends
    assert begun.told == ["link_created", "paid", *(["refunded"] if ends == "refunded" else [])]
    assert begun.world.ecocash.calls["refund"] == 1


@DIALECTS
async def test_a_refund_that_never_got_there_is_asked_about_ever_more_seldom(free: dict[str, Desk], lane: Lane) -> None:
    """Every minute for a quarter of an hour, then every hour. It is no proof that EcoCash does not know it: it stays
    `requested`, is not sent again, and its money is not promised twice."""
    begun = await paid(free, lane)
    begun.world.ecocash.add_fault("unavailable", on=["refund"])
    assert (await refund(begun)).status == 504
    gaps = []
    for _ in range(20):
        due = begun.attempt["next_check_at"] - begun.world.clock()
        gaps.append(round(due / timedelta(minutes=1)))
        begun.world.clock.ahead += due
        await begun.desk.look()
    assert gaps[1:] == sorted(gaps[1:])
    assert set(gaps[1:15]) == {1}
    assert set(gaps[-4:]) == {60}
    assert [each["status"] for each in await listed(begun)] == ["requested"]
    assert begun.world.ecocash.calls["refund"] == 1
    begun.world.ecocash.clear_faults()
    assert (await refund(begun, amount_cents=1)).status == 409
    assert (now(begun), given_back(begun)) == (("paid", 0), [])


# --- by hand


async def test_what_a_merchant_gave_back_at_ecocash_is_told_by_hand(free: dict[str, Desk]) -> None:
    """EcoCash's look-ups tell of no refund that was not asked for from here: with its evidence it counts."""
    begun = await paid(free, ECOCASH[0])
    answer = await refund(begun, manual=True, evidence="Cash, receipt 17")
    assert (answer.status, answer.json["status"], answer.json["manual"]) == (201, "succeeded", True)
    assert begun.world.ecocash.find(begun.name).refunds == []
    assert now(begun) == ("refunded", 1250)


async def test_innbucks_needs_a_person_and_the_evidence(free: dict[str, Desk]) -> None:
    """InnBucks is never asked; what a person gave back counts with the evidence, and not without."""
    begun = await paid(free, INNBUCKS)
    for fields, field in (({}, "manual"), ({"manual": True}, "evidence")):
        answer = await refund(begun, **fields)
        assert (answer.status, answer.json["errors"][0]["field"]) == (422, field)
    assert await listed(begun) == []
    calls = begun.world.innbucks.calls.copy()
    answer = await refund(begun, amount_cents=250, manual=True, evidence="InnBucks transfer 4711, 28 November")
    assert (answer.status, answer.json["status"]) == (201, "succeeded")
    assert (answer.json["manual"], answer.json["evidence"]) == (True, "InnBucks transfer 4711, 28 November")
    assert begun.world.innbucks.calls == calls
    assert now(begun) == ("partially_refunded", 250)
    assert begun.told == ["link_created", "paid", "partially_refunded"]
    # What InnBucks says later of the code takes nothing back.
    await begun.look(days=1)
    assert now(begun) == ("partially_refunded", 250)
