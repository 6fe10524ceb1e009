"""What Stripe's events prove: the table of the protocol notes (section 3), in any order and many times over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, get_args
from uuid import UUID

import msgspec

from payments_service.gateways.base import Callback
from payments_service.gateways.stripe_wire import (
    Charge,
    Dispute,
    Event,
    Id,
    Intent,
    Named,
    Refund,
    Session,
    charge_settlement,
    dispute_reports,
    id_in,
    name_of,
    read,
    refund_reports,
    session_report,
)
from payments_service.lifecycle import Outcome, Report, Settlement

Reader = Callable[[Event], Callback | None]


def callback_of(event: Event, *, live: bool) -> Callback | None:
    """What a genuine event says; None for a kind that is not read here, an object that is not ours, and the other mode
    (a live endpoint can be sent test events). Raises Untrusted for one that is not what Stripe sends."""
    reader = _READERS.get(event.type)
    if reader is None or event.livemode is (not live):
        return None
    callback = reader(event)
    return replace(callback, key=event.id) if callback else None


def tenant_of(event: Event) -> tuple[UUID | None, str | None]:
    """The tenant that the event's object names in its metadata, and the payment intent by which one can be found."""
    if event.type not in TYPES:
        return None, None
    found = read(event.data.object, _Owned)
    intent = found.id if event.type.startswith("payment_intent.") else name_of(found.payment_intent)
    return id_in(found.metadata, "client_id"), intent


class _Owned(msgspec.Struct, frozen=True):
    """What every object has that is read here."""

    id: Id
    metadata: dict[str, str] | None = None
    payment_intent: Id | Named | None = None


def _session(event: Event) -> Callback | None:
    session = read(event.data.object, Session)
    if not session.client_reference_id and id_in(session.metadata, "attempt_id") is None:
        return None
    # The event may be faster than the answer to our own call that made the session.
    report = replace(session_report(session), poll_url=session.id[:200])
    if event.type == "checkout.session.async_payment_failed" and report.outcome is Outcome.PENDING:
        report = replace(report, outcome=Outcome.FAILED, said="asynchronous payment failed")
    fields = {
        "session": session.id,
        "status": session.status or "",
        "payment_status": session.payment_status,
        "amount_total": str(session.amount_total),
        "currency": session.currency or "",
    }
    return Callback(
        session.client_reference_id,
        event.type,
        fields,
        attempt_id=id_in(session.metadata, "attempt_id"),
        gateway_reference=report.gateway_reference,
        report=report,
    )


def _declined(event: Event) -> Callback | None:
    """A declined try is not the end: the session stays open, and the customer tries another card."""
    intent = read(event.data.object, Intent)
    if (attempt_id := id_in(intent.metadata, "attempt_id")) is None:
        return None
    why = (intent.last_payment_error or {}).get("code")
    fields = {"payment_intent": intent.id, "code": str(why)[:100]}
    return Callback(None, event.type, fields, attempt_id=attempt_id, gateway_reference=intent.id)


def _refund(event: Event) -> Callback | None:
    refund = read(event.data.object, Refund)
    fields = {"refund": refund.id, "amount": str(refund.amount), "status": refund.status or ""}
    return _settled(event, fields, name_of(refund.payment_intent), Settlement(refund_reports([refund])))


def _refunded(event: Event) -> Callback | None:
    charge = read(event.data.object, Charge)
    fields = {"charge": charge.id, "amount_refunded": str(charge.amount_refunded)}
    attempt_id = id_in(charge.metadata, "attempt_id")
    return _settled(event, fields, name_of(charge.payment_intent), charge_settlement(charge), attempt_id)


def _dispute(event: Event) -> Callback | None:
    dispute = read(event.data.object, Dispute)
    fields = {"dispute": dispute.id, "amount": str(dispute.amount), "status": dispute.status}
    settlement = Settlement(disputes=dispute_reports([dispute]))
    return _settled(event, fields, name_of(dispute.payment_intent), settlement)


def _settled(
    event: Event, fields: Mapping[str, str], intent: str | None, settlement: Settlement, attempt_id: UUID | None = None
) -> Callback | None:
    if intent is None and attempt_id is None:
        return None
    # What the object says is as old as the event: the complete list of refunds is for a look-up to tell.
    report = Report(Outcome.SETTLED, event.type, settlement=replace(settlement, complete=False))
    return Callback(None, event.type, fields, attempt_id=attempt_id, gateway_reference=intent, report=report)


# What an endpoint in a tenant's account is told of.
EventType = Literal[
    "checkout.session.completed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.async_payment_failed",
    "checkout.session.expired",
    "payment_intent.payment_failed",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.refunded",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
]
TYPES: tuple[EventType, ...] = get_args(EventType)

_READER_OF: dict[str, Reader] = {
    "checkout.session": _session,
    "payment_intent": _declined,
    "refund": _refund,
    "charge": _refunded,
    "charge.dispute": _dispute,
}
_READERS: dict[str, Reader] = {kind: _READER_OF[kind.rpartition(".")[0]] for kind in TYPES}
