"""Refunds at the simulated EcoCash, in all dialects: full, in parts, refused, looked up by their own correlators."""

from __future__ import annotations

from decimal import Decimal

import pytest

from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, Charge
from tests import ecocash_world
from tests.ecocash_world import DIALECTS, PAID, Reply, World, amount_of, new_correlator, status_of

stages, world = ecocash_world.stages, ecocash_world.world  # fixtures

# By dialect: HTTP status and code, where it has codes, of what the name says.
DUPLICATE = {OPEN_API: (409, None), EIP: (409, None), EIP_PORTAL: (400, "E005")}
UNKNOWN = {OPEN_API: (404, None), EIP: (404, None), EIP_PORTAL: (404, "E008")}
NOT_PAID = {OPEN_API: (402, None), EIP: (409, None), EIP_PORTAL: (409, "E009")}
TOO_MUCH = {OPEN_API: (402, None), EIP: (400, None), EIP_PORTAL: (422, "E012")}


def said(reply: Reply) -> tuple[int, str | None]:
    return reply.status, reply.json.get("statusCode")


async def test_open_apis_answer(world: World) -> None:
    """Done at once; `destinationEcocashReference` is the refund's own, `ecocashReference` only our correlator."""
    charge = await world.paid(OPEN_API)
    reply = await world.refund(charge, 10.5, "012345l61975")
    (refund,) = charge.refunds
    answer = reply.json
    assert answer["transactionStatus"] == answer["responseMessage"] == "COMPLETED"
    assert answer["destinationEcocashReference"] == answer["destinationReferenceCode"] == refund.ecocash_reference
    assert answer["ecocashReference"] == "012345l61975"
    assert answer["sourceReference"] == charge.correlator
    assert (answer["amount"], answer["paymentAmount"], answer["currency"]) == (10.5, 10.5, "USD")
    assert answer["transactionEndTime"] == "28-11-2026"
    assert refund.ecocash_reference != charge.ecocash_reference


async def test_eips_answer_has_the_shape_of_a_charges(world: World) -> None:
    charge = await world.paid(EIP)
    answer = (await world.refund(charge, 2.5, "refund0001")).json
    assert list(answer) == list((await world.lookup(EIP, charge.correlator)).json)
    assert (answer["tranType"], answer["transactionOperationStatus"]) == ("REF", "COMPLETED")
    assert answer["originalEcocashReference"] == charge.ecocash_reference
    assert answer["ecocashReference"] == charge.refunds[0].ecocash_reference
    assert answer["merchantPin"] == "4711"


async def test_the_portals_answer_has_the_shape_of_a_charges(world: World) -> None:
    charge = await world.paid(EIP_PORTAL)
    answer = (await world.refund(charge, 2.5, "refund0001")).json
    assert (answer["status"], answer["clientCorrelator"], answer["amount"]) == ("SUCCESS", "refund0001", 2.5)
    assert answer["transactionId"] == charge.refunds[0].ecocash_reference


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_parts_up_to_the_whole_and_no_cent_more(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    assert [(await world.refund(charge, part)).status for part in (2.5, 10)] == [200, 200]
    assert said(await world.refund(charge, 0.01)) == TOO_MUCH[dialect]
    assert (charge.refunded, len(charge.refunds)) == (Decimal("12.5"), 2)
    assert status_of(dialect, (await world.lookup(dialect, charge.correlator)).json) == PAID[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_refund_is_looked_up_like_a_charge(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    correlator = new_correlator(dialect)
    await world.refund(charge, 2.5, correlator)
    answer = (await world.lookup(dialect, correlator)).json
    assert status_of(dialect, answer) == PAID[dialect]
    assert amount_of(dialect, answer) == (Decimal("2.5"), "USD")
    assert charge.refunds[0].ecocash_reference in (await world.lookup(dialect, correlator)).raw.decode()
    assert correlator in (await world.lookup(dialect, correlator)).raw.decode()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_refund_may_be_pending_or_fail(world: World, dialect: str) -> None:
    """One that failed gives nothing back, and so leaves the whole to be refunded."""
    charge = await world.paid(dialect)
    world.sandbox.refund_outcome = "failed"
    await world.refund(charge)
    world.sandbox.refund_outcome = "pending"
    correlator = new_correlator(dialect)
    assert (await world.refund(charge, 12.5, correlator)).status == 200
    assert charge.refunded == Decimal("12.5")
    assert status_of(dialect, (await world.lookup(dialect, correlator)).json) != PAID[dialect]
    await world.sandbox.set_status(correlator, PAID[dialect])
    assert status_of(dialect, (await world.lookup(dialect, correlator)).json) == PAID[dialect]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_correlator_serves_one_refund_or_charge(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    correlator = new_correlator(dialect)
    await world.refund(charge, 1, correlator)
    for again in (correlator, charge.correlator):
        assert said(await world.refund(charge, 1, again)) == DUPLICATE[dialect]
    assert charge.refunded == 1


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_only_what_was_paid_is_refunded(world: World, dialect: str) -> None:
    charge = await world.charged(dialect)
    assert said(await world.refund(charge)) == NOT_PAID[dialect]
    await world.sandbox.decline(charge.correlator)
    assert said(await world.refund(charge)) == NOT_PAID[dialect]


def renamed(charge: Charge) -> dict[str, str]:
    """A reference that is nobody's, in the dialect's own field."""
    field = "origionalEcocashTransactionReference" if charge.dialect == OPEN_API else "originalEcocashReference"
    return {field: "MP251117.0952.T0527795"}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_original_must_be_the_merchants_own(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    assert said(await world.refund(charge, **renamed(charge))) == UNKNOWN[dialect]
    phone = "sourceMobileNumber" if dialect == OPEN_API else "endUserId"
    assert said(await world.refund(charge, **{phone: "263770000000"})) == UNKNOWN[dialect]
    other = world.sandbox.add_merchant(dialect, name="Other")
    assert said(await world.refund(charge, merchant=other)) == UNKNOWN[dialect]
    assert charge.refunds == []


@pytest.mark.parametrize("by", ["correlator", "ecocash_reference"])
async def test_open_api_takes_either_name_of_the_original(world: World, by: str) -> None:
    charge = await world.paid(OPEN_API)
    await world.refund(charge, origionalEcocashTransactionReference=getattr(charge, by))
    assert charge.refunded == Decimal("12.5")


@pytest.mark.parametrize("dialect", [EIP, EIP_PORTAL])
async def test_the_others_take_ecocashs_reference_only(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    assert said(await world.refund(charge, originalEcocashReference=charge.correlator)) == UNKNOWN[dialect]
    assert said(await world.refund(charge, originalEcocashReference=None))[0] == 400


async def test_the_type_of_a_refund_can_be_chosen(world: World) -> None:
    charge = await world.paid(EIP)
    assert said(await world.refund(charge, tranType="MER"))[0] == 400
    world.sandbox.refund_type = "MREF"
    assert said(await world.refund(charge))[0] == 400
    assert (await world.refund(charge, tranType="MREF")).json["transactionOperationStatus"] == "COMPLETED"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_another_currency_is_refused(world: World, dialect: str) -> None:
    charge = await world.paid(dialect)
    reply = await world.refund(charge, currency=ecocash_world.ZIG[dialect])
    assert (reply.status, charge.refunds) == (400, [])


@pytest.mark.parametrize(
    "field", ["clientName", "refundCorelator", "sourceMobileNumber", "amount", "currency", "reasonForRefund"]
)
async def test_open_apis_misspelt_fields_are_all_required(world: World, field: str) -> None:
    charge = await world.paid(OPEN_API)
    assert (await world.refund(charge, **{field: None})).status == 400
    assert charge.refunds == []
