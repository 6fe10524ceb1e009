"""The EcoCash simulator's customers and what becomes of charges: PINs, time, names, callbacks, what may be forced."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, Ending, Order, is_called
from payments_service.sandbox.hands import UnknownReference, WrongMove, WrongPin
from tests import ecocash_world
from tests.ecocash_world import DIALECTS, MSISDN, PAID, PENDING, START, World, amount_of, status_of

stages, world = ecocash_world.stages, ecocash_world.world  # fixtures

FAILED = "FAILED"
UUID = "581af738-f459-4629-a72e-8388e0acdb5e"


async def status(world: World, dialect: str, correlator: str) -> str:
    """What a look-up says."""
    return status_of(dialect, (await world.lookup(dialect, correlator)).json)


# --- the PIN


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("pin", "ending"),
    [
        ("0000", Ending.PAID),
        ("1234", Ending.PAID),
        ("1111", Ending.NO_FUNDS),
        ("9999", Ending.LIMIT),
    ],
)
async def test_a_pin_ends_the_charge(world: World, dialect: str, pin: str, ending: Ending) -> None:
    charge = await world.charged(dialect)
    assert await status(world, dialect, charge.correlator) == PENDING[dialect]
    await world.sandbox.approve(charge.correlator, pin)
    assert charge.ending is ending
    expected = PAID[dialect] if ending is Ending.PAID else FAILED
    assert await status(world, dialect, charge.correlator) == expected
    with pytest.raises(WrongMove, match="no PIN is asked for any more"):
        await world.sandbox.approve(charge.correlator)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("pin", ["2222", "4711", "12345", ""])
async def test_the_third_wrong_pin_ends_it(world: World, dialect: str, pin: str) -> None:
    charge = await world.charged(dialect)
    for left in ("2 more", "1 more"):
        with pytest.raises(WrongPin, match=left):
            await world.sandbox.approve(charge.correlator, pin)
        assert await status(world, dialect, charge.correlator) == PENDING[dialect]
    with pytest.raises(WrongPin, match="third time"):
        await world.sandbox.approve(charge.correlator, pin)
    assert (charge.ending, await status(world, dialect, charge.correlator)) == (Ending.WRONG_PIN, FAILED)


@pytest.mark.parametrize(("pin", "code"), [("1111", "E010"), ("9999", "E013")])
async def test_the_portal_tells_why(world: World, pin: str, code: str) -> None:
    charge = await world.charged(EIP_PORTAL)
    await world.sandbox.approve(charge.correlator, pin)
    assert (await world.lookup(EIP_PORTAL, charge.correlator)).json["statusCode"] == code


@pytest.mark.parametrize(
    ("dialect", "move", "word"),
    [
        (OPEN_API, "decline", "REJECTED"),
        (OPEN_API, "ignore", "EXPIRED"),
        (OPEN_API, "fail", FAILED),
        (EIP, "decline", FAILED),
        (EIP, "ignore", FAILED),
        (EIP_PORTAL, "decline", FAILED),
        (EIP_PORTAL, "ignore", FAILED),
    ],
)
async def test_a_charge_can_end_unpaid_in_other_ways(world: World, dialect: str, move: str, word: str) -> None:
    charge = await world.charged(dialect)
    await getattr(world.sandbox, move)(charge.correlator)
    assert await status(world, dialect, charge.correlator) == word
    assert charge.history == [PENDING[dialect], word]
    with pytest.raises(WrongMove):
        await getattr(world.sandbox, move)(charge.correlator)


async def test_open_apis_unpublished_words_can_be_chosen(world: World) -> None:
    world.sandbox.open_api_expired, world.sandbox.open_api_declined = "TIMED_OUT", "CANCELLED"
    for move, word in (("ignore", "TIMED_OUT"), ("decline", "CANCELLED")):
        charge = await world.charged(OPEN_API)
        await getattr(world.sandbox, move)(charge.correlator)
        assert await status(world, OPEN_API, charge.correlator) == word


# --- time


@pytest.mark.parametrize(("dialect", "word"), [(OPEN_API, "EXPIRED"), (EIP, FAILED), (EIP_PORTAL, FAILED)])
async def test_a_prompt_lives_for_a_minute(world: World, dialect: str, word: str) -> None:
    charge = await world.charged(dialect)
    world.time = START + 59.9
    assert await status(world, dialect, charge.correlator) == PENDING[dialect]
    world.time = START + 60
    assert await status(world, dialect, charge.correlator) == word
    with pytest.raises(WrongMove):
        await world.sandbox.approve(charge.correlator)


async def test_the_clock_may_tell_a_datetime_and_a_prompt_live_longer(world: World) -> None:
    world.sandbox.prompt_seconds = 120
    charge = await world.charged(EIP)
    world.sandbox.clock = lambda: datetime.fromtimestamp(START + 119, UTC)
    assert world.sandbox.find(charge.correlator).open
    world.sandbox.clock = lambda: datetime.fromtimestamp(START + 120, UTC)
    assert not world.sandbox.find(charge.correlator).open


async def test_prompts_may_answer_by_themselves(world: World) -> None:
    world.sandbox.auto_approve_after = 0.01
    first, second = await world.charged(EIP), await world.charged(OPEN_API)
    await world.sandbox.decline(second.correlator)
    await world.sandbox.settled()
    assert (first.ending, second.ending) == (Ending.PAID, Ending.DECLINED)


async def test_eip_has_words_between(world: World) -> None:
    """Look-ups may lag behind the customer, with words that are no outcome yet."""
    world.sandbox.lingers = True
    charge = await world.paid(EIP)
    said = [(await world.lookup(EIP, charge.correlator)).json for _ in range(3)]
    assert [one["transactionOperationStatus"] for one in said] == ["Processing Charge", "CHARGED", "COMPLETED"]
    assert [one["ecocashReference"] for one in said] == [None, None, charge.ecocash_reference]
    assert [one["paymentAmount"]["totalAmountCharged"] for one in said] == [0, 0, 12.5]


# --- what a test may force


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_another_amount_or_currency_may_be_paid(world: World, dialect: str) -> None:
    cent, currency = await world.charged(dialect), await world.charged(dialect)
    await world.sandbox.pay(cent.correlator, "12.49")
    await world.sandbox.pay(currency.correlator, currency="ZWG")
    answers = [(await world.lookup(dialect, one.correlator)).json for one in (cent, currency)]
    assert [amount_of(dialect, one) for one in answers] == [(Decimal("12.49"), "USD"), (Decimal("12.5"), "ZWG")]
    assert {status_of(dialect, one) for one in answers} == {PAID[dialect]}
    with pytest.raises(WrongMove):
        await world.sandbox.pay(cent.correlator)


@pytest.mark.parametrize(
    "what", [{"amount": "0"}, {"amount": "much"}, {"amount": "NaN"}, {"amount": "-1"}, {"currency": "EUR"}]
)
async def test_what_cannot_be_paid(world: World, what: dict[str, Any]) -> None:
    charge = await world.charged(EIP)
    with pytest.raises(ValueError, match=r"no (amount|currency)"):
        await world.sandbox.pay(charge.correlator, **what)
    assert charge.open


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_money_may_come_late(world: World, dialect: str) -> None:
    charge = await world.charged(dialect)
    with pytest.raises(WrongMove):
        await world.sandbox.complete_late(charge.correlator)
    await world.sandbox.ignore(charge.correlator)
    await world.sandbox.complete_late(charge.correlator)
    assert await status(world, dialect, charge.correlator) == PAID[dialect]
    with pytest.raises(WrongMove):
        await world.sandbox.complete_late(charge.correlator)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("word", ["REVERSED", "Something {New}", ""])
async def test_any_word_may_be_put(world: World, dialect: str, word: str) -> None:
    charge = await world.charged(dialect)
    await world.sandbox.set_status(charge.correlator, word)
    assert await status(world, dialect, charge.correlator) == word


async def test_a_pending_word_opens_a_charge_again(world: World) -> None:
    """And no time ends it then."""
    charge = await world.charged(EIP)
    await world.sandbox.ignore(charge.correlator)
    await world.sandbox.set_status(charge.correlator, "CHARGED")
    world.time += 3600
    assert await status(world, EIP, charge.correlator) == "CHARGED"
    with pytest.raises(WrongMove, match="no PIN"):
        await world.sandbox.approve(charge.correlator)
    await world.sandbox.pay(charge.correlator)
    assert charge.paid


async def test_a_second_charge_may_claim_the_firsts_reference(world: World) -> None:
    first, second = await world.paid(EIP), await world.charged(OPEN_API)
    await world.sandbox.reuse_reference(second.correlator, first.correlator)
    await world.sandbox.approve(second.correlator)
    claimed = (await world.lookup(OPEN_API, second.correlator)).json["ecocashReference"]
    assert claimed == first.ecocash_reference


# --- names


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_charge_has_many_names(world: World, dialect: str) -> None:
    charge = await world.charged(dialect)
    for name in (charge.correlator, charge.correlator.upper(), charge.ecocash_reference, "INV-1-K7M2", "INV-1"):
        assert world.sandbox.find(name) is charge
    assert world.sandbox.find(charge.correlator.replace("-", "")) is charge


async def test_the_newest_of_that_name_is_found(world: World) -> None:
    """A reference that is the name goes before one that only begins with it."""
    await world.charged(EIP)
    second = await world.charged(EIP)
    assert world.sandbox.find("INV-1") is second
    whole = await world.charged(EIP, referenceCode="INV-1")
    await world.charged(EIP)
    assert world.sandbox.find("INV-1") is whole
    assert [one.correlator for one in world.sandbox.charges][1] == second.correlator


@pytest.mark.parametrize("name", ["INV", "NV-1", "INV-", "INV-1-K7", "K7M2", "", "cement"])
async def test_a_name_is_no_part_of_a_word(world: World, name: str) -> None:
    await world.charged(EIP, remarks="INV-12")
    await world.charged(OPEN_API, reason="INV-12")
    if name == "INV":  # what goes on after it with a hyphen is meant, too
        assert world.sandbox.find(name)
        return
    with pytest.raises(UnknownReference, match="no charge is called"):
        world.sandbox.find(name)


@pytest.mark.parametrize(
    ("name", "text", "means"),
    [
        ("Order #100", "Payment of Order #100, thanks", True),
        ("INV-1", "(INV-1)", True),
        ("INV-1", "INV-10", False),
        ("INV-1", "X-INV-1", False),
    ],
)
def test_names_stand_in_a_reason(name: str, text: str, means: bool) -> None:
    assert is_called(name, UUID, text) is means


# --- callbacks


async def test_open_api_calls_back_at_the_address_that_the_portal_keeps(world: World) -> None:
    """Only when there is one; no amount and no signature."""
    await world.paid(OPEN_API)
    world.merchant(OPEN_API).callback_url = f"{world.shop.url}/portal"
    charge = await world.paid(OPEN_API, sourceReference=UUID)
    await world.sandbox.settled()
    ((path, kind, _),) = world.shop.posts
    assert (path, kind) == ("/portal", "application/json")
    assert world.shop.messages == [
        {
            "transactionOperationStatus": "SUCCESS",
            "clientReference": UUID,
            "ecocashReference": charge.ecocash_reference,
        }
    ]


@pytest.mark.parametrize("dialect", [EIP, EIP_PORTAL])
@pytest.mark.parametrize("move", ["approve", "decline", "ignore"])
async def test_the_others_call_back_at_notify_url(world: World, dialect: str, move: str) -> None:
    """With the very shape of a look-up's answer, eip's PIN in it."""
    charge = await world.charged(dialect)
    await getattr(world.sandbox, move)(charge.correlator)
    await world.sandbox.settled()
    assert [path for path, _, _ in world.shop.posts] == [f"/told/{charge.correlator}"]
    assert world.shop.messages == [(await world.lookup(dialect, charge.correlator)).json]
    assert (b'"merchantPin":"4711"' in world.shop.posts[0][2]) == (dialect == EIP)


async def test_a_refused_callback_does_not_come_again(world: World) -> None:
    """Unpublished: this is the worse case. Every try is on record."""
    world.shop.answers = [500]
    charge = await world.paid(EIP)
    await world.sandbox.settled()
    (tried,) = world.sandbox.deliveries
    assert (tried.reference, tried.status, tried.accepted) == (charge.correlator, 500, False)


async def test_callbacks_go_to_this_machine_only(world: World) -> None:
    await world.paid(EIP, notifyUrl="https://shop.example/told")
    await world.sandbox.settled()
    (refused,) = world.sandbox.deliveries
    assert (refused.status, "loopback" in refused.error) == (None, True)


async def test_a_prompt_that_times_out_is_told_though_nobody_asks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock's hand does it."""
    monkeypatch.setattr("payments_service.sandbox.ticker._TICK_SECONDS", 0.01)
    sandbox = ecocash_world.build("")
    async with sandbox:
        merchant = sandbox.merchants[1]
        order = Order(correlator=UUID, msisdn=MSISDN, amount=Decimal(1), currency="USD", notify_url=world.shop.url)
        sandbox.prompt_seconds = 0
        charge = sandbox.charge(merchant, order)
        while charge.open:  # noqa: ASYNC110 - nothing tells when it ends
            await asyncio.sleep(0.005)
        await sandbox.settled()
    assert [message["transactionOperationStatus"] for message in world.shop.messages] == [FAILED]
