"""The Stripe simulator's payments, refunds and disputes: what each move does, and which events tell of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import stripe

from payments_service.sandbox.hands import UnknownReference, WrongMove
from tests import stripe_world
from tests.stripe_world import OTHER_KEY, World, refused

stages, world = stripe_world.stages, stripe_world.world  # fixtures

Move = Callable[[World], Awaitable[Any]]


def told(world: World) -> list[str]:
    """The types of the first account's events, oldest first."""
    return [event.object["type"] for event in world.account.events.values()]


def newest(world: World, kind: str) -> dict[str, Any]:
    """The object that the newest event of this type tells of."""
    found = [event for event in world.account.events.values() if event.object["type"] == kind]
    thing: dict[str, Any] = found[-1].object["data"]["object"]
    return thing


# --- payments


async def test_paying_completes_the_session(world: World) -> None:
    await world.create()
    paid = await world.sandbox.pay("INV-1")
    assert (paid["status"], paid["payment_status"], paid["url"]) == ("complete", "paid", None)
    assert told(world) == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.completed",
    ]
    assert newest(world, "checkout.session.completed") == paid
    assert newest(world, "payment_intent.succeeded")["metadata"] == {"order": "7"}
    assert newest(world, "charge.succeeded")["payment_method_details"]["card"]["last4"] == "4242"
    with pytest.raises(WrongMove):
        await world.sandbox.pay("INV-1")


async def test_another_amount_and_currency_can_be_paid_than_asked(world: World) -> None:
    await world.create()
    paid = await world.sandbox.pay("INV-1", 900, "EUR")
    assert (paid["amount_total"], paid["currency"]) == (900, "eur")
    intent = await world.api.payment_intents.retrieve_async(paid["payment_intent"])
    assert (intent.amount, intent.amount_received, intent.currency) == (900, 900, "eur")


async def test_a_declined_card_leaves_the_session_open(world: World) -> None:
    """The intent of the first try is the intent of the next."""
    made = await world.create()
    await world.sandbox.decline("INV-1")
    seen = await world.api.checkout.sessions.retrieve_async(made.id, {"expand": ["payment_intent.latest_charge"]})
    assert (seen.status, seen.payment_status, seen.url) == ("open", "unpaid", made.url)
    assert seen.payment_intent.status == "requires_payment_method"
    assert seen.payment_intent.last_payment_error.decline_code == "generic_decline"
    assert seen.payment_intent.latest_charge.failure_code == "card_declined"
    assert told(world) == ["payment_intent.created", "charge.failed", "payment_intent.payment_failed"]
    paid = await world.sandbox.pay("INV-1")
    assert paid["payment_intent"] == seen.payment_intent.id
    assert (await world.api.payment_intents.retrieve_async(seen.payment_intent.id)).last_payment_error is None


async def test_an_expired_session_takes_its_declined_intent_along(world: World) -> None:
    await world.create()
    await world.sandbox.decline("INV-1")
    await world.sandbox.expire("INV-1")
    assert told(world)[-2:] == ["payment_intent.canceled", "checkout.session.expired"]
    with pytest.raises(WrongMove):
        await world.sandbox.pay("INV-1")


async def test_money_from_a_bank_comes_later(world: World) -> None:
    await world.create()
    later = await world.sandbox.pay_later("INV-1")
    assert (later["status"], later["payment_status"]) == ("complete", "unpaid")
    assert told(world)[1:] == ["charge.pending", "payment_intent.processing", "checkout.session.completed"]
    settled = await world.sandbox.settle("INV-1")
    assert settled["payment_status"] == "paid"
    assert told(world)[4:] == [
        "charge.succeeded",
        "payment_intent.succeeded",
        "checkout.session.async_payment_succeeded",
    ]
    assert newest(world, "charge.succeeded")["amount_captured"] == 1250
    with pytest.raises(WrongMove):
        await world.sandbox.settle("INV-1")


async def test_money_from_a_bank_may_never_come(world: World) -> None:
    await world.create()
    await world.sandbox.pay_later("INV-1")
    bounced = await world.sandbox.bounce("INV-1")
    assert (bounced["status"], bounced["payment_status"]) == ("complete", "unpaid")
    assert told(world)[4:] == [
        "charge.failed",
        "payment_intent.payment_failed",
        "checkout.session.async_payment_failed",
    ]


async def test_a_payment_is_named_by_reference_by_its_start_or_by_id(world: World) -> None:
    """The newest with that reference; `INV-1` means `INV-1-K7M2` too, if nothing else is called so."""
    await world.create("INV-1-K7M2")
    older, newer = await world.create("INV-2"), await world.create("INV-2")
    assert world.sandbox.session("INV-1")["client_reference_id"] == "INV-1-K7M2"
    assert world.sandbox.session("INV-2")["id"] == newer.id
    assert world.sandbox.session(older.id)["id"] == older.id
    for nobody in ("IN", "INV-3"):
        with pytest.raises(UnknownReference):
            world.sandbox.session(nobody)


# --- refunds


async def test_refunds_go_until_nothing_is_left(world: World) -> None:
    """By payment intent or charge; `amount_refunded` on the charge is cumulative."""
    await world.create()
    paid = await world.sandbox.pay("INV-1")
    first = await world.api.refunds.create_async(
        {"payment_intent": paid["payment_intent"], "amount": 250, "reason": "duplicate", "metadata": {"row": "9"}},
        {"idempotency_key": "r1"},
    )
    assert (first.amount, first.status, first.reason, first.currency) == (250, "succeeded", "duplicate", "usd")
    assert first.metadata.to_dict() == {"row": "9"}
    assert (newest(world, "charge.refunded")["amount_refunded"], newest(world, "charge.refunded")["refunded"]) == (
        250,
        False,
    )
    event = list(world.account.events.values())[-1].object
    assert event["request"] == {"id": first.last_response.headers["Request-Id"], "idempotency_key": "r1"}
    error = await refused(world.api.refunds.create_async({"charge": first.charge, "amount": 1001}))
    assert error.user_message == "Refund amount ($10.01) is greater than unrefunded amount on charge ($10.00)"
    rest = await world.api.refunds.create_async({"charge": first.charge, "expand": ["charge"]})
    assert (rest.amount, rest.charge.amount_refunded, rest.charge.refunded) == (1000, 1250, True)
    error = await refused(world.api.refunds.create_async({"charge": first.charge}))
    assert (error.code, error.http_status) == ("charge_already_refunded", 400)
    listed = await world.api.refunds.list_async({"payment_intent": paid["payment_intent"]})
    assert [refund.id for refund in listed.data] == [rest.id, first.id]
    assert (await world.api.refunds.list_async({"charge": "ch_other"})).data == []
    world.check_everything()


async def test_refunds_of_what_is_not_there_are_refused(world: World) -> None:
    await world.create()
    await world.sandbox.decline("INV-1")
    intent = world.sandbox.session("INV-1")["payment_intent"]
    create = world.api.refunds.create_async
    error = await refused(create({"payment_intent": intent}))
    assert error.user_message == f"This PaymentIntent ({intent}) does not have a successful charge to refund."
    failed = (await world.api.payment_intents.retrieve_async(intent)).latest_charge
    assert "has not succeeded" in (await refused(create({"charge": failed}))).user_message
    assert (await refused(create({"payment_intent": "pi_nobody"}))).code == "resource_missing"
    assert (await refused(create({"charge": "ch_nobody"}))).param == "charge"
    assert (await refused(create({"amount": 5}))).code == "parameter_missing"
    assert (await refused(create({"payment_intent": intent, "amount": 0}))).code == "parameter_invalid_integer"
    assert (await refused(create({"payment_intent": intent, "origin": "customer_balance"}))).param == "origin"
    other = world.client(OTHER_KEY).v1.refunds.create_async({"payment_intent": intent})
    assert (await refused(other)).code == "resource_missing"
    world.check_everything()


async def test_a_refund_in_the_dashboard_has_no_metadata_of_ours(world: World) -> None:
    await world.create()
    await world.sandbox.pay("INV-1")
    refund = await world.sandbox.refund("INV-1", 250)
    assert (refund["metadata"], refund["status"], refund["amount"]) == ({}, "succeeded", 250)
    assert told(world)[4:] == ["refund.created", "charge.refunded"]
    assert (await world.sandbox.refund("INV-1"))["amount"] == 1000
    with pytest.raises(WrongMove, match="already been refunded"):
        await world.sandbox.refund("INV-1")


@pytest.mark.parametrize(
    ("end", "events", "left"),
    [
        ("succeeded", ["refund.updated"], 250),
        ("failed", ["refund.failed", "refund.updated"], 0),
        ("canceled", ["refund.updated"], 0),
    ],
)
async def test_a_pending_refund_ends_later(world: World, end: str, events: list[str], left: int) -> None:
    """A refund that fails or is canceled is taken off the charge again."""
    world.sandbox.refund_status = "pending"
    await world.create()
    paid = await world.sandbox.pay("INV-1")
    refund = await world.api.refunds.create_async({"payment_intent": paid["payment_intent"], "amount": 250})
    assert (refund.status, refund.pending_reason) == ("pending", "processing")
    assert newest(world, "charge.refunded")["amount_refunded"] == 250
    moved = await world.sandbox.move_refund(refund.id, end)
    assert told(world)[6:] == events
    assert (moved["status"], moved["failure_reason"] is not None) == (end, end == "failed")
    charge = await world.api.charges.retrieve_async(refund.charge)
    assert charge.amount_refunded == left
    with pytest.raises(WrongMove):
        await world.sandbox.move_refund(refund.id, "pending")
    world.check_everything()


async def test_a_refund_may_fail_after_it_succeeded_or_at_once(world: World) -> None:
    await world.create()
    paid = await world.sandbox.pay("INV-1")
    refund = await world.sandbox.refund("INV-1")
    assert newest(world, "charge.refunded")["refunded"]
    await world.sandbox.move_refund(refund["id"], "failed")
    charge = await world.api.charges.retrieve_async(refund["charge"])
    assert (charge.amount_refunded, charge.refunded) == (0, False)
    world.sandbox.refund_status = "failed"
    failed = await world.api.refunds.create_async({"payment_intent": paid["payment_intent"]})
    assert (failed.status, told(world)[-1]) == ("failed", "refund.failed")
    assert (await world.api.charges.retrieve_async(refund["charge"])).amount_refunded == 0


# --- disputes


async def test_a_dispute_takes_the_money_until_it_is_won(world: World) -> None:
    await world.create()
    paid = await world.sandbox.pay("INV-1")
    dispute = await world.sandbox.dispute("INV-1")
    assert (dispute["status"], dispute["amount"]) == ("needs_response", 1250)
    assert told(world)[4:] == ["charge.dispute.created", "charge.dispute.funds_withdrawn"]
    refund = world.api.refunds.create_async({"payment_intent": paid["payment_intent"]})
    assert (await refused(refund)).code == "charge_disputed"
    won = await world.sandbox.close_dispute("INV-1", "won")
    assert (won["id"], won["status"]) == (dispute["id"], "won")
    assert told(world)[6:] == ["charge.dispute.closed", "charge.dispute.funds_reinstated"]
    assert (await world.api.refunds.create_async({"payment_intent": paid["payment_intent"]})).amount == 1250
    world.check_everything()


async def test_a_lost_dispute_keeps_the_money(world: World) -> None:
    await world.create()
    paid = await world.sandbox.pay("INV-1")
    dispute = await world.sandbox.dispute("INV-1", 500)
    await world.sandbox.close_dispute(dispute["id"], "lost")
    (listed,) = (await world.api.disputes.list_async({"payment_intent": paid["payment_intent"]})).data
    assert (listed.id, listed.status, listed.amount, listed.is_charge_refundable) == (dispute["id"], "lost", 500, False)
    refund = world.api.refunds.create_async({"payment_intent": paid["payment_intent"]})
    assert (await refused(refund)).code == "charge_disputed"
    assert (await world.api.charges.retrieve_async(listed.charge)).disputed


async def test_an_inquiry_takes_no_money(world: World) -> None:
    await world.create()
    await world.sandbox.pay("INV-1")
    await world.sandbox.dispute("INV-1", status="warning_needs_response")
    assert told(world)[4:] == ["charge.dispute.created"]
    assert (await world.sandbox.refund("INV-1", 100))["status"] == "succeeded"
    assert (await world.sandbox.close_dispute("INV-1", "warning_closed"))["status"] == "warning_closed"


# --- what cannot be

MOVES: dict[str, Move] = {
    "settle": lambda world: world.sandbox.settle("INV-1"),
    "bounce": lambda world: world.sandbox.bounce("INV-1"),
    "refund": lambda world: world.sandbox.refund("INV-1"),
    "dispute": lambda world: world.sandbox.dispute("INV-1"),
    "close": lambda world: world.sandbox.close_dispute("INV-1", "won"),
}


@pytest.mark.parametrize("move", MOVES)
async def test_what_an_open_session_cannot_do(world: World, move: str) -> None:
    await world.create()
    with pytest.raises(WrongMove):
        await MOVES[move](world)
    assert told(world) == []


async def test_what_a_disputed_payment_cannot_do(world: World) -> None:
    await world.create()
    await world.sandbox.pay("INV-1")
    with pytest.raises(WrongMove, match="no open dispute"):
        await world.sandbox.close_dispute("INV-1", "won")
    dispute = await world.sandbox.dispute("INV-1")
    with pytest.raises(WrongMove, match="disputed already"):
        await world.sandbox.dispute("INV-1")
    with pytest.raises(WrongMove, match="ends won, lost"):
        await world.sandbox.close_dispute("INV-1", "drawn")
    with pytest.raises(UnknownReference):
        await world.sandbox.close_dispute("du_nobody", "won")
    with pytest.raises(UnknownReference):
        await world.sandbox.move_refund("re_nobody", "failed")
    await world.sandbox.close_dispute("INV-1", "won")
    with pytest.raises(WrongMove, match="is won"):
        await world.sandbox.close_dispute(dispute["id"], "lost")


async def test_the_sdk_reads_a_dispute_event_as_its_own(world: World) -> None:
    await world.create()
    await world.sandbox.pay("INV-1")
    dispute = await world.sandbox.dispute("INV-1")
    body, header = world.sandbox.signed(world.sandbox.event_for("INV-1", "charge.dispute.created"), "whsec_x")
    event = stripe.Webhook.construct_event(body, header, "whsec_x")
    assert isinstance(event.data.object, stripe.Dispute)
    assert event.data.object.id == dispute["id"]
