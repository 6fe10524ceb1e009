"""The odd turns of wallets: tenants who change accounts while a prompt is out, words that nobody knows, money by a try
that was given up, and another gateway standing in meanwhile."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from payments_service import payments
from payments_service.gateways.transport import Transport
from tests.house import House
from tests.servers import serve
from tests.support import afresh, open_house
from tests.wallets import (
    PHONE,
    down,
    ecocash_says,
    eip,
    events,
    innbucks_at,
    instead,
    look,
    page,
    save_wallets,
    settle,
    status,
    tap,
    tries,
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    await save_wallets(house)
    return house


async def prompted(house: House, **order: object) -> tuple[Any, str]:
    """A payment with an EcoCash prompt on the phone, and what EcoCash calls it."""
    payment = await house.create_link(gateway=None, **order)
    await tap(house, payment, "ecocash.ecocash", phone=PHONE)
    return payment, house.world.ecocash.charges[-1].correlator


def reviews(house: House, payment: Any) -> list[tuple[str, bool]]:
    """Why a person was asked, and whether it is settled."""
    rows = house.world.rows("SELECT reason, resolved_at FROM reviews WHERE payment_id = %s", payment["id"])
    return [(row["reason"], row["resolved_at"] is not None) for row in rows]


# --- former credentials

CODES = itertools.count(7001)


async def change_merchant(house: House) -> None:
    """The tenant becomes another merchant of the classic gateway's."""
    code = str(next(CODES))
    house.world.ecocash.add_merchant("eip", code=code, username=f"shop-{code}", password="p", pin="1111")
    await settle(
        house,
        ecocash_username=f"shop-{code}",
        ecocash_password="p",
        ecocash_merchant_pin="1111",
        ecocash_merchant_code=code,
    )


async def test_a_currency_that_is_no_longer_taken_is_still_looked_up(house: House) -> None:
    """The merchant narrows the currencies while a prompt in ZiG is out: no other begins, and its money is found."""
    payment, correlator = await prompted(house, currency="ZIG")
    await settle(house, ecocash_currencies="USD")
    order = house.order(gateway="ecocash", currency="ZIG")
    assert (await house.call("POST", house.path("/payments/create-link"), order)).status == 422
    await house.world.ecocash.pay(correlator)
    await look(house, "ecocash")
    assert await status(house, payment) == "paid"


@pytest.mark.parametrize(
    "before",
    [
        {},
        {"ecocash_dialect": None},
        {"ecocash_dialect": None, "ecocash_merchant_code": None, "ecocash_merchant_number": None},
    ],
    ids=["with all its fields", "without its dialect", "by its key alone"],
)
async def test_a_former_account_proves_what_it_began(house: House, before: dict[str, str | None]) -> None:
    """Also where nothing took the place of what was saved, and only fields that were empty were filled in."""
    await settle(house, **before)
    payment, correlator = await prompted(house)
    await house.save_ecocash(dialect="eip")
    await house.world.ecocash.pay(correlator)
    await look(house)
    assert await status(house, payment) == "paid"


async def test_fields_of_another_account_beside_a_key_close_nothing(house: House) -> None:
    """Somebody has begun to save a merchant's login and named no dialect: the key goes on counting."""
    await settle(house, ecocash_dialect=None)
    payment, correlator = await prompted(house)
    await settle(house, ecocash_username="half-a-login")
    await house.world.ecocash.pay(correlator)
    await look(house)
    assert await status(house, payment) == "paid"
    await prompted(house)
    assert len(house.world.ecocash.charges) >= 2


async def test_what_began_at_a_former_account_never_was_only_once_that_says_so(house: House) -> None:
    """The charge's answer was lost, and the tenant is another merchant by now. While the former account does not
    answer, that the new one knows nothing ends no try, and nothing is charged again; then the former one proves the
    money."""
    ecocash = house.world.ecocash
    await house.save_ecocash(dialect="eip", ecocash_api_key=None)
    ecocash.add_fault("reset", on=["charge"], times=1)
    payment, correlator = await prompted(house)
    await ecocash.pay(correlator)
    await change_merchant(house)
    former = next(merchant for merchant in ecocash.merchants if merchant.username == "demo-books")
    password, former.password = former.password, "changed"
    charges = ecocash.calls["charge"]
    try:
        await look(house, "ecocash", minutes=8)
        assert tries(house, payment) == [("ecocash", "ecocash", "starting")]
        await tap(house, payment, "ecocash.ecocash", phone=PHONE, after="1")
    finally:
        former.password = password
    assert ecocash.calls["charge"] == charges
    await look(house, "ecocash", minutes=8)
    assert await status(house, payment) == "paid"


# --- words that nobody knows


@pytest.mark.parametrize("answer_is_lost", [False, True])
async def test_a_word_that_nobody_knows_is_for_a_person_until_money_comes(house: House, answer_is_lost: bool) -> None:
    """Once the link is over. When EcoCash says later that it is paid, the review is settled, and the money is late."""
    ecocash = house.world.ecocash
    if answer_is_lost:
        ecocash.add_fault("timeout_after_accepting", on=["charge"], seconds=0.0, times=1)
    payment, correlator = await prompted(house, expires_in=600)
    await ecocash.set_status(correlator, "ON_HOLD")
    await look(house, "ecocash", minutes=9)
    assert (await status(house, payment), reviews(house, payment)) == ("pending", [])
    await look(house, "ecocash", minutes=2)
    assert (await status(house, payment), reviews(house, payment)) == ("review", [("unknown_status", False)])
    await ecocash.set_status(correlator, "SUCCESS")
    await look(house, "ecocash", hours=2)
    now = await house.payment(payment)
    assert (now["status"], now["late"]) == ("paid", True)
    assert reviews(house, payment) == [("unknown_status", True)]
    assert events(house, payment) == ["payment.link_created", "payment.review", "payment.paid"]


async def test_money_by_another_try_answers_a_word_that_nobody_knows(house: House) -> None:
    """The EcoCash try was given up for an InnBucks code and its word is odd; the code, still alive, is paid."""
    world = house.world
    payment, correlator = await prompted(house, expires_in=480)
    world.clock.forward(minutes=7)
    await tap(house, payment, "innbucks.innbucks", after="1")
    await world.ecocash.set_status(correlator, "ON_HOLD")
    await look(house, "ecocash", minutes=2)
    assert await status(house, payment) == "review"
    await world.innbucks.pay(world.innbucks.codes[-1].code)
    await look(house)
    now = await house.payment(payment)
    assert (now["status"], now["gateway"]) == ("paid", "innbucks")
    assert reviews(house, payment) == [("unknown_status", True)]


async def test_a_word_is_no_last_word_while_the_code_can_be_paid(house: House) -> None:
    """The link's time is over, the code's is not: a person is asked after that, and a grace for the gateway's clock."""
    innbucks = house.world.innbucks
    payment = await house.create_link(gateway=None, expires_in=300)
    house.world.clock.forward(seconds=240)
    await tap(house, payment, "innbucks.innbucks")
    innbucks.add_fault("odd_status", on=["inquiry"])
    await look(house, seconds=70)
    assert await status(house, payment) == "pending"
    await look(house, "innbucks", minutes=13)
    assert await status(house, payment) == "review"
    innbucks.clear_faults()
    await innbucks.pay(innbucks.codes[-1].code)
    await look(house, "innbucks")
    assert await status(house, payment) == "paid"


async def test_an_odd_word_of_a_try_that_had_failed_calls_nobody(house: House) -> None:
    """Declined; the link expires unpaid; a day later EcoCash has another word for it."""
    payment, correlator = await prompted(house, expires_in=3600)
    await house.world.ecocash.decline(correlator)
    await look(house, "ecocash")
    await look(house, "ecocash", hours=2)
    await payments.expire_due(house.world.context)
    before = await status(house, payment)
    await house.world.ecocash.set_status(correlator, "ARCHIVED")
    await look(house, "ecocash", hours=24)
    assert (await status(house, payment), reviews(house, payment)) == (before, [])


# --- a code whose digits came round again


async def test_a_code_that_is_somebody_elses_by_now_brings_no_money(house: House) -> None:
    """InnBucks did not answer while ours was alive; days later its digits are another shop's, and are paid."""
    innbucks = house.world.innbucks
    payment = await house.create_link(gateway=None, expires_in=3600)
    await tap(house, payment, "innbucks.innbucks")
    ours = innbucks.codes[-1]
    innbucks.add_fault("error500", on=["inquiry"])
    for hours in (0.5, 2, 24 * 8):
        await look(house, "innbucks", hours=hours)
        await payments.expire_due(house.world.context)
    innbucks.clear_faults()
    await innbucks.expire(ours.code)
    innbucks.plan_code(ours.code)
    innbucks.mint(ours.merchant, f"TILL-{ours.code}", "a shop's till", ours.amount)
    await innbucks.claim(f"TILL-{ours.code}")
    await look(house, "innbucks", hours=13)
    assert (await status(house, payment), reviews(house, payment)) == ("review", [("unknown_status", False)])


async def test_a_code_that_was_paid_before_stays_paid(house: House) -> None:
    """What a look-up says of it days later calls nobody."""
    innbucks = house.world.innbucks
    payment = await house.create_link(gateway=None)
    await tap(house, payment, "innbucks.innbucks")
    await innbucks.pay(innbucks.codes[-1].code)
    await look(house, "innbucks")
    asked = innbucks.calls["inquiry"]
    await look(house, "innbucks", hours=25)
    assert innbucks.calls["inquiry"] > asked
    assert (await status(house, payment), reviews(house, payment)) == ("paid", [])


# --- a look before another prompt


async def test_every_try_that_may_still_be_paid_is_asked_about_first(house: House) -> None:
    """A code, then a prompt that was declined; meanwhile the code is paid: no other prompt goes out."""
    world = house.world
    payment = await house.create_link(gateway=None)
    await tap(house, payment, "innbucks.innbucks")
    await tap(house, payment, "ecocash.ecocash", phone=PHONE, after="1")
    await world.ecocash.decline(world.ecocash.charges[-1].correlator)
    await look(house, "ecocash", seconds=6)
    await world.innbucks.pay(world.innbucks.codes[-1].code)
    assert (await tap(house, payment, "ecocash.ecocash", phone=PHONE, after="2")).status == 303
    assert world.ecocash.calls["charge"] == 1
    assert await status(house, payment) == "paid"


async def test_a_prompt_that_is_pending_again_is_asked_about_first(house: House) -> None:
    """EcoCash did not know it for longer than that takes, then it did: it counts as a try that can be paid."""
    ecocash = house.world.ecocash
    payment, correlator = await prompted(house)
    ecocash.add_fault("all_null", on=["lookup"])
    await look(house, "ecocash", minutes=8)
    assert tries(house, payment) == [("ecocash", "ecocash", "failed")]
    ecocash.clear_faults()
    await look(house, "ecocash", minutes=3)
    assert tries(house, payment) == [("ecocash", "ecocash", "replaced")]
    await ecocash.pay(correlator)
    house.world.clock.forward(seconds=5)
    assert (await tap(house, payment, "ecocash.ecocash", phone=PHONE, after="1")).status == 303
    assert ecocash.calls["charge"] == 1
    assert await status(house, payment) == "paid"


async def test_a_second_prompt_warns_of_the_first(house: House) -> None:
    """Two minutes later EcoCash still says that it is pending: the page tells that it may still be on a phone."""
    payment, _ = await prompted(house)
    house.world.clock.forward(seconds=125)
    await tap(house, payment, "ecocash.ecocash", phone=PHONE, after="1")
    assert "may still be on a phone" in await page(house, payment)


@pytest.mark.parametrize("word", ["FAILED", "COMPLETED"])
async def test_a_charge_that_is_over_at_once_is_looked_up(house: House, word: str) -> None:
    """The classic gateway's answer says that it failed: the customer may have seen it, so that nobody stands in, and
    what the look-up says counts."""
    await house.save_ecocash(dialect="eip", ecocash_api_key=None)
    payment = await house.create_link(gateway=None)
    async with ecocash_says(house, lambda asked: eip(asked, "FAILED" if asked.kind == "charge" else word, "MP1.1.X1")):
        await tap(house, payment, "ecocash.ecocash", phone=PHONE)
        assert len(tries(house, payment)) == 1
        await look(house, "ecocash", minutes=11)
    (_, _, state) = tries(house, payment)[0]
    assert state == {"FAILED": "failed", "COMPLETED": "paid"}[word]
    assert not house.world.sandbox.prompts


# --- standing in


async def test_a_code_through_paynow_is_shown_again_without_a_number(house: House) -> None:
    """Paynow's InnBucks wanted the customer's number, InnBucks itself does not ask for it when it is tapped again."""
    payment = await house.create_link(gateway=None)
    async with down(house, "innbucks"):
        await tap(house, payment, "innbucks.innbucks", phone=PHONE)
        assert (await tap(house, payment, "innbucks.innbucks", after="1")).status == 303
    assert tries(house, payment) == [("innbucks", "innbucks", "failed"), ("paynow", "innbucks", "live")]


async def test_the_last_try_has_no_stand_in(house: House) -> None:
    """Who stands in is counted before it begins: there is no ninth try."""
    payment = await house.create_link(gateway=None)
    for number in range(1, 8):
        house.world.rows_do(
            "INSERT INTO attempts (id, payment_id, client_id, gateway, number, method, reference, amount_cents, "
            "currency, state) VALUES (gen_random_uuid(), %s, %s, 'stripe', %s, 'card', %s, 1250, 'USD', 'failed')",
            *(payment["id"], house.client_id, number, f"{payment['id']}-{number}"),
        )
    async with down(house, "ecocash"):
        assert (await tap(house, payment, "ecocash.ecocash", phone=PHONE)).status == 429
    assert len(tries(house, payment)) == 8


async def test_taps_at_once_send_one_prompt(house: House) -> None:
    """While EcoCash is down and Paynow stands in."""
    payment = await house.create_link(gateway=None)
    async with down(house, "ecocash"):
        taps = [{"after": "0"}, {}] * 3
        await asyncio.gather(*(tap(house, payment, "ecocash.ecocash", phone=PHONE, **fields) for fields in taps))
    assert len(house.world.sandbox.prompts) == 1
    assert [state for _, _, state in tries(house, payment) if state in ("live", "replaced")] == ["live"]


async def test_nobody_stands_in_once_the_money_came(house: House) -> None:
    """The EcoCash prompt is approved while InnBucks, chosen since, takes its time to refuse: Paynow does not begin."""
    payment, correlator = await prompted(house)

    async def refuse(request: Request) -> JSONResponse:
        if "auth" in request.url.path:
            return JSONResponse({"accessToken": "t", "responseCode": "00"})
        await house.world.ecocash.pay(correlator)
        return JSONResponse({}, 429)

    app = Starlette(routes=[Route("/{rest:path}", refuse, methods=["POST"])])
    async with serve(app) as url, Transport() as transport, instead(house, innbucks=innbucks_at(transport, url)):
        house.world.clock.forward(seconds=5)
        await tap(house, payment, "innbucks.innbucks", phone=PHONE, after="1")
    assert tries(house, payment) == [("ecocash", "ecocash", "paid"), ("innbucks", "innbucks", "failed")]
    assert await status(house, payment) == "paid"
