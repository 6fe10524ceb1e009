"""Stripe's events: what each kind proves, what is not ours, and which secrets verify."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
import stripe as sdk
from stripe.params import WebhookEndpointCreateParams

from payments_service.errors import Untrusted
from payments_service.gateways import stripe_events
from payments_service.gateways.base import Callback, Message, Opened, RefundOrder
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.stripe_client import API_VERSION
from payments_service.gateways.stripe_events import TYPES
from payments_service.gateways.stripe_wire import Event
from payments_service.ids import new_id
from payments_service.lifecycle import DisputeReport, DisputeState, Outcome, RefundReport, RefundState, Settlement
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import (
    CREDENTIALS,
    HOOK,
    WHSEC,
    account_of,
    begin,
    event_of,
    posted,
    session,
)
from tests.stripe_types import literals_of

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, liar, quick = stripe_stage.stripe, stripe_stage.liar, stripe_stage.quick

USD = Currency.USD
ADAPTER = Stripe(None, "https://api.stripe.com")  # type: ignore[arg-type]


def told(event: object, credentials: StripeCredentials = CREDENTIALS) -> Callback | None:
    return ADAPTER.read_callback(credentials, posted(event))


def told_by(sandbox: StripeSandbox, kind: str, number: int = -1) -> Callback:
    """What the simulator's newest event of this kind says."""
    events = [each.shown() for each in account_of(sandbox).events.values() if each.object["type"] == kind]
    found = told(events[number])
    assert found
    assert found.key == events[number]["id"]
    assert found.said == kind
    return found


async def paid(stripe: Stripe, sandbox: StripeSandbox) -> tuple[Opened, str]:
    attempt = await begin(stripe)
    return attempt, (await sandbox.pay(attempt.reference))["payment_intent"]


# --- the kinds


def test_every_kind_is_one_of_stripes_in_the_version_of_the_sdk() -> None:
    """An endpoint for a name that Stripe does not know could not be set up."""
    assert len(set(TYPES)) == len(TYPES)
    assert set(TYPES) <= set(literals_of(WebhookEndpointCreateParams, "enabled_events"))
    assert API_VERSION in literals_of(WebhookEndpointCreateParams, "api_version")
    assert sdk.api_version == API_VERSION


async def test_a_completed_session_is_paid(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The proof names our attempt, the sum, the money and the session, for the event may be faster than our start."""
    attempt, intent = await paid(stripe, sandbox)
    found = told_by(sandbox, "checkout.session.completed")
    assert (found.reference, found.attempt_id, found.gateway_reference) == (
        attempt.reference,
        attempt.attempt_id,
        intent,
    )
    assert found.report
    assert (found.report.outcome, found.report.amount) == (Outcome.PAID, attempt.amount)
    assert (found.report.reference, found.report.poll_url) == (attempt.reference, attempt.poll_url)
    assert found.report.settlement is None
    assert found.fields["session"] == attempt.poll_url
    assert "tmoyo" not in repr(found)


async def test_a_completed_session_of_a_bank_payment_is_pending_until_its_money_came_or_never_will(
    stripe: Stripe, sandbox: StripeSandbox
) -> None:
    for act, kind, outcome in (
        (sandbox.settle, "async_payment_succeeded", Outcome.PAID),
        (sandbox.bounce, "async_payment_failed", Outcome.FAILED),
    ):
        attempt = await begin(stripe)
        await sandbox.pay_later(attempt.reference)
        pending = told_by(sandbox, "checkout.session.completed").report
        assert pending
        assert pending.outcome is Outcome.PENDING
        await act(attempt.reference)
        report = told_by(sandbox, f"checkout.session.{kind}").report
        assert report
        assert (report.outcome, report.reference) == (outcome, attempt.reference)


async def test_an_expired_session_has_lapsed(stripe: Stripe, sandbox: StripeSandbox) -> None:
    attempt = await begin(stripe)
    await sandbox.expire(attempt.reference)
    report = told_by(sandbox, "checkout.session.expired").report
    assert report
    assert (report.outcome, report.reference) == (Outcome.LAPSED, attempt.reference)


def test_money_is_stronger_than_the_name_of_the_event() -> None:
    """What the session itself says counts: paid is neither failed nor lapsed, and unpaid is not paid."""
    for kind in ("completed", "expired", "async_payment_failed", "async_payment_succeeded"):
        thing = session(status="complete", payment_status="paid", payment_intent="pi_1")
        found = told(event_of(f"checkout.session.{kind}", thing))
        assert found
        assert found.report
        assert found.report.outcome is Outcome.PAID
        found = told(event_of(f"checkout.session.{kind}", session(status="complete", payment_intent="pi_1")))
        assert found
        assert found.report
        assert found.report.outcome is (Outcome.FAILED if kind == "async_payment_failed" else Outcome.PENDING)


async def test_a_declined_try_is_a_hint_and_no_proof(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The customer takes another card."""
    attempt = await begin(stripe)
    await sandbox.decline(attempt.reference)
    found = told_by(sandbox, "payment_intent.payment_failed")
    assert (found.reference, found.attempt_id, found.report) == (None, attempt.attempt_id, None)
    assert found.fields["code"] == "card_declined"


async def test_a_refund_is_told_by_its_own_events_in_every_state(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """By Stripe's name of it and by ours, never as the complete list; failed may follow succeeded."""
    attempt, intent = await paid(stripe, sandbox)
    order = RefundOrder(new_id(), intent, Money(300, USD), "torn", new_id())
    sandbox.refund_status = "pending"
    made = await stripe.refund(CREDENTIALS, order)
    steps = [("refund.created", RefundState.PENDING)]
    await sandbox.move_refund(made.gateway_reference, "succeeded")
    steps.append(("refund.updated", RefundState.SUCCEEDED))
    for kind, state in steps:
        found = told_by(sandbox, kind)
        assert found.gateway_reference == intent
        assert found.report
        assert found.report.outcome is Outcome.SETTLED
        refund = RefundReport(made.gateway_reference, order.amount, state, order.refund_id)
        assert found.report.settlement == Settlement((refund,))
    await sandbox.move_refund(made.gateway_reference, "failed")
    for kind in ("refund.failed", "refund.updated"):
        report = told_by(sandbox, kind).report
        assert report
        assert report.settlement
        assert [each.state for each in report.settlement.refunds] == [RefundState.FAILED]
    assert (await stripe.check(CREDENTIALS, attempt)).outcome is Outcome.PAID


async def test_the_sum_of_refunds_is_told_as_a_sum(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """`charge.refunded` is cumulative, and names our attempt."""
    attempt, intent = await paid(stripe, sandbox)
    for total, part in ((300, 300), (700, 400), (1250, 550)):
        await sandbox.refund(attempt.reference, part)
        found = told_by(sandbox, "charge.refunded")
        assert (found.attempt_id, found.gateway_reference) == (attempt.attempt_id, intent)
        assert found.report
        assert found.report.outcome is Outcome.SETTLED
        assert found.report.settlement == Settlement(refunded_total=total)


def test_an_event_never_tells_all_refunds() -> None:
    """Older versions of the API show them in the charge: as old as the event, so that later ones are not denied."""
    refund = {"id": "re_1", "amount": 300, "currency": "usd", "status": "succeeded"}
    charge = {"id": "ch_1", "amount_refunded": 300, "currency": "usd", "payment_intent": "pi_1"}
    for has_more in (False, True):
        refunds = {"object": "list", "data": [refund], "has_more": has_more}
        found = told(event_of("charge.refunded", {**charge, "refunds": refunds}))
        assert found
        assert found.report
        assert found.report.settlement
        assert not found.report.settlement.complete
        assert [each.gateway_reference for each in found.report.settlement.refunds] == ["re_1"]


async def test_a_dispute_is_told_from_its_beginning_to_its_end(stripe: Stripe, sandbox: StripeSandbox) -> None:
    for outcome, state in (("won", DisputeState.WON), ("lost", DisputeState.LOST)):
        attempt, intent = await paid(stripe, sandbox)
        made = await sandbox.dispute(attempt.reference, 1000)
        await sandbox.close_dispute(made["id"], outcome)
        for kind, now in (("created", DisputeState.OPEN), ("closed", state)):
            found = told_by(sandbox, f"charge.dispute.{kind}")
            assert found.gateway_reference == intent
            assert found.report
            assert found.report.settlement == Settlement(disputes=(DisputeReport(made["id"], Money(1000, USD), now),))


def test_an_inquiry_is_an_open_dispute_and_what_only_the_network_knows_is_none() -> None:
    thing = {"id": "du_1", "amount": 5, "currency": "usd", "payment_intent": "pi_1"}
    for status, states in (("warning_needs_response", [DisputeState.OPEN]), ("prevented", []), ("new", [])):
        found = told(event_of("charge.dispute.updated", {**thing, "status": status}))
        assert found
        assert found.report
        assert found.report.settlement
        assert [each.state for each in found.report.settlement.disputes] == states


# --- what is not ours


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("checkout.session.completed", session(client_reference_id=None, metadata={})),
        ("checkout.session.completed", session(client_reference_id="", metadata=None)),
        ("checkout.session.completed", session(client_reference_id=None, metadata={"attempt_id": "7"})),
        ("payment_intent.payment_failed", {"id": "pi_1", "status": "requires_payment_method", "metadata": {}}),
        ("refund.created", {"id": "re_1", "amount": 5, "currency": "usd", "status": "succeeded"}),
        ("charge.refunded", {"id": "ch_1", "amount_refunded": 5, "currency": "usd"}),
        ("charge.dispute.created", {"id": "du_1", "amount": 5, "currency": "usd", "status": "won"}),
        ("customer.created", {"id": "cus_1"}),
        ("payment_intent.succeeded", {"id": "pi_1"}),
        ("checkout.session.new", session()),
        ("", {}),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_a_genuine_event_about_nothing_of_ours_is_ignored(kind: str, thing: dict[str, Any]) -> None:
    assert told(event_of(kind, thing)) is None


@pytest.mark.parametrize("kind", TYPES)
def test_events_of_the_other_mode_are_ignored(kind: str) -> None:
    """A live endpoint can be sent test events: their money is none."""
    live = StripeCredentials("sk_live_1", (WHSEC,))
    thing = session(status="complete", payment_status="paid", payment_intent="pi_1")
    assert told(event_of(kind, thing, livemode=True)) is None
    assert told(event_of(kind, thing, livemode=False), live) is None


def test_an_event_names_its_tenant_for_the_platforms_endpoint() -> None:
    """By the metadata of its object, else by the money it is about; of other kinds nothing is read."""
    client_id = new_id()

    def tenant(kind: str, thing: object) -> tuple[UUID | None, str | None]:
        return stripe_events.tenant_of(msgspec.json.decode(msgspec.json.encode(event_of(kind, thing)), type=Event))

    ours = {"client_id": str(client_id)}
    assert tenant("checkout.session.completed", session(metadata=ours)) == (client_id, None)
    assert tenant("payment_intent.payment_failed", {"id": "pi_1", "metadata": ours}) == (client_id, "pi_1")
    assert tenant("charge.refunded", {"id": "ch", "payment_intent": "pi_1"}) == (None, "pi_1")
    assert tenant("charge.dispute.created", {"id": "du", "payment_intent": {"id": "pi_1"}}) == (None, "pi_1")
    assert tenant("customer.created", {"id": 7}) == (None, None)
    with pytest.raises(Untrusted):
        tenant("refund.created", {"id": 7})


# --- as they are delivered


async def test_a_delivered_event_verifies_with_either_secret_while_one_is_rolled(
    stripe: Stripe, sandbox: StripeSandbox
) -> None:
    endpoint = sandbox.add_endpoint(account_of(sandbox), HOOK, TYPES)
    old, new = endpoint.secret, sandbox.roll_secret(endpoint)
    await paid(stripe, sandbox)
    await sandbox.settled()
    for delivery in sandbox.deliveries:
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        message = Message(delivery.body, headers, datetime.now(UTC))
        for secrets in ((old,), (new,), (new, old)):
            found = ADAPTER.read_callback(replace(CREDENTIALS, webhook_secrets=secrets), message)
            assert found
            assert found.report
            assert found.report.outcome is Outcome.PAID
    assert len(sandbox.deliveries) == 1
