"""The EcoCash simulator's faults, each seen from outside."""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import pytest

from payments_service.sandbox import answers, ecocash_faults
from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API
from payments_service.sandbox.ecocash_faults import KINDS
from tests import ecocash_world
from tests.ecocash_world import DIALECTS, MSISDN, PENDING, World, amount_of, new_correlator, status_of

stages, world = ecocash_world.stages, ecocash_world.world  # fixtures


# --- answers that are no answers


@pytest.mark.parametrize(
    ("fault", "status", "body", "works"),
    [
        ("html", 200, b"<html><head><title>Request Rejected", True),
        ("empty", 200, b"", True),
        ("error500", 500, b"<html>", True),
        ("redirect", 302, b"", False),
        ("rate_limited", 429, b'{"', False),
        ("unavailable", 503, b'{"', False),
    ],
)
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_kind_says_whether_the_phone_prompts(
    world: World, dialect: str, fault: str, status: int, body: bytes, works: bool
) -> None:
    """All the same, or not at all."""
    world.sandbox.add_fault(fault, on=["charge"], times=1)
    correlator = new_correlator(dialect)
    reply = await world.charge(dialect, correlator)
    assert (reply.status, reply.raw[: len(body)]) == (status, body)
    assert KINDS[fault].works is works
    assert world.sandbox.prompts[MSISDN] == int(works)
    assert len(world.sandbox.charges) == int(works)


async def test_a_cut_answer(world: World) -> None:
    charge = await world.paid(EIP)
    whole = (await world.lookup(EIP, charge.correlator)).raw
    world.sandbox.add_fault("truncated", on=["lookup"])
    assert (await world.lookup(EIP, charge.correlator)).raw == whole[: len(whole) // 2]


async def test_a_huge_answer_is_right_but_for_its_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "HUGE_BYTES", 1_000_000)
    charge = await world.charged(EIP_PORTAL)
    world.sandbox.add_fault("huge", on=["lookup"])
    reply = await world.lookup(EIP_PORTAL, charge.correlator)
    assert (len(reply.raw) > 1_000_000, reply.json["status"]) == (True, "PENDING")


@pytest.mark.parametrize(("fault", "seconds"), [("timeout_after_accepting", 0.03), ("reset", None)])
async def test_the_answer_may_be_lost(world: World, fault: str, seconds: float | None) -> None:
    """By default a charge's; a look-up finds it."""
    world.sandbox.add_fault(fault, seconds=seconds)
    correlator = new_correlator(EIP)
    begun = time.perf_counter()
    with pytest.raises(aiohttp.ClientError):
        await world.charge(EIP, correlator)
    assert time.perf_counter() - begun >= (seconds or 0)
    assert status_of(EIP, (await world.lookup(EIP, correlator)).json) == PENDING[EIP]


async def test_an_answer_may_drip(world: World) -> None:
    charge = await world.charged(EIP)
    world.sandbox.add_fault("slow", on=["lookup"], seconds=0.05)
    begun = time.perf_counter()
    assert status_of(EIP, (await world.lookup(EIP, charge.correlator)).json) == PENDING[EIP]
    assert time.perf_counter() - begun >= 0.03


async def test_a_redirect_leads_to_a_page_that_counts(world: World) -> None:
    charge = await world.charged(EIP)
    world.sandbox.add_fault("redirect", on=["lookup"])
    address = f"{world.url}/ecocash/eip/{MSISDN}/transactions/amount/{charge.correlator}"
    login = {"Authorization": aiohttp.encode_basic_auth(charge.merchant.username, charge.merchant.password)}
    async with world.http.get(address, headers=login) as followed:
        assert followed.url.path == "/sandbox/ecocash/redirected"
    assert world.sandbox.calls["redirected"] == 1


# --- answers that mislead


@pytest.mark.parametrize(("dialect", "status"), [(OPEN_API, 409), (EIP, 409), (EIP_PORTAL, 400)])
async def test_a_new_charge_may_be_called_a_duplicate(world: World, dialect: str, status: int) -> None:
    """As after somebody between sent it twice: the phone prompts."""
    world.sandbox.add_fault("duplicate", times=1)
    reply = await world.charge(dialect)
    assert reply.status == status
    assert dialect != EIP_PORTAL or reply.json["statusCode"] == "E005"
    assert world.sandbox.charges[0].prompting


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_look_up_may_be_about_another(world: World, dialect: str) -> None:
    """The merchant's newest other, with all that belongs to it; an invented one if there is none."""
    other = world.sandbox.add_merchant(dialect)
    await world.charge(other)
    first = await world.charged(dialect)
    world.sandbox.add_fault("wrong_object")
    names = "reference" if dialect == OPEN_API else "clientCorrelator"
    invented = (await world.lookup(dialect, first.correlator)).json
    assert invented[names] not in [one.correlator for one in world.sandbox.charges]
    second = await world.paid(dialect)
    answer = (await world.lookup(dialect, first.correlator)).json
    assert answer[names] == second.correlator
    assert status_of(dialect, answer) == ecocash_world.PAID[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("fault", "amount", "currency"),
    [("wrong_amount", "12.51", "USD"), ("wrong_currency", "12.5", None), ("numeric_currency", "12.5", "840")],
)
async def test_a_look_up_may_tell_other_money(
    world: World, dialect: str, fault: str, amount: str, currency: str | None
) -> None:
    charge = await world.paid(dialect)
    world.sandbox.add_fault(fault)
    told = amount_of(dialect, (await world.lookup(dialect, charge.correlator)).json)
    assert told == (Decimal(amount), currency or ecocash_world.ZIG[dialect])
    assert (charge.amount, charge.currency) == (Decimal("12.5"), "USD")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_look_up_may_say_nothing_in_the_right_shape(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    shape = list((await world.lookup(dialect, charge.correlator)).json)
    world.sandbox.add_fault("all_null")
    answer = (await world.lookup(dialect, charge.correlator)).json
    assert (list(answer), set(answer.values())) == (shape, {None})


# --- callbacks


async def told_with(world: World, fault: str, **options: Any) -> list[str]:
    """What the shop is told of a charge that is paid."""
    world.sandbox.add_fault(fault, **options)
    await world.paid(EIP)
    await world.sandbox.settled()
    return [message["transactionOperationStatus"] for message in world.shop.messages]


async def test_a_callback_may_never_come(world: World) -> None:
    assert await told_with(world, "never") == []
    assert world.sandbox.deliveries == []


async def test_a_callback_may_come_twice(world: World) -> None:
    assert await told_with(world, "twice") == ["COMPLETED", "COMPLETED"]


async def test_a_callback_may_come_late(world: World) -> None:
    assert await told_with(world, "late", seconds=0.01) == ["COMPLETED"]


async def test_an_old_callback_may_come_last(world: World) -> None:
    assert await told_with(world, "out_of_order", seconds=0) == ["COMPLETED", "PENDING SUBSCRIBER VALIDATION"]


async def test_faults_of_callbacks_add_up(world: World) -> None:
    world.sandbox.add_fault("twice")
    assert await told_with(world, "never") == []


# --- planning


async def test_faults_are_for_operations_times_and_names(world: World) -> None:
    """A reference is whatever `find` understands, and may name what does not exist yet."""
    world.sandbox.add_fault("empty", on=["charge", "lookup"], times=1, reference="INV-2")
    first = await world.charged(EIP)
    assert world.sandbox.faults[0].used == {}
    reply = await world.charge(EIP, "charge0002", referenceCode="INV-2-X")
    assert reply.raw == b""
    assert (await world.lookup(EIP, first.correlator)).raw
    assert [bool((await world.lookup(EIP, "charge0002")).raw) for _ in range(2)] == [False, True]
    assert world.sandbox.faults[0].spent
    world.sandbox.clear_faults()
    assert world.sandbox.faults == []


async def test_a_refund_is_named_by_its_original_too(world: World) -> None:
    charge = await world.paid(EIP)
    world.sandbox.add_fault("empty", on=["refund"], reference=charge.ecocash_reference)
    assert (await world.refund(charge)).raw == b""
    assert charge.refunded == charge.amount


async def test_a_fault_may_strike_only_now_and_then(world: World) -> None:
    """A fifth of the answers, the same ones whenever the dice are loaded so; the work is always done."""

    async def run() -> list[bool]:
        world.sandbox.clear_faults()
        world.sandbox.add_fault("empty", on=["charge"], share=0.2, seed=7)
        return [not (await world.charge(EIP)).raw for _ in range(40)]

    lost = await run()
    assert 2 <= sum(lost) <= 16
    assert lost == await run()
    assert len(world.sandbox.charges) == 80


async def test_no_fault_is_wasted_on_what_is_no_request(world: World) -> None:
    world.sandbox.add_fault("empty", times=1)
    assert (await world.charge(EIP, amount="much")).status == 400
    assert (await world.charge(EIP)).raw == b""


async def test_a_refusal_is_spoilt_like_any_answer(world: World) -> None:
    charge = await world.charged(EIP)
    world.sandbox.add_fault("truncated", on=["charge"])
    reply = await world.charge(EIP, charge.correlator)
    assert reply.status == 409
    with pytest.raises(msgspec.DecodeError):
        assert reply.json


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("hiccup", {}, "there is no fault 'hiccup'"),
        ("html", {"on": ["callback"]}, "html cannot happen on callback"),
        ("never", {"on": ["charge"]}, "only on callback"),
        ("html", {"times": 0}, "times is 1 or more"),
        ("slow", {"seconds": -1.0}, "never negative"),
        ("html", {"share": 0.0}, "share is above 0"),
        ("html", {"share": 1.5}, "share is above 0"),
    ],
)
def test_what_cannot_be_planned(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ecocash_faults.plan(name, **options)
