"""What Stripe sends: its objects, as far as they are read here, and its signed events.

Sources: Stripe's API reference for the version in `stripe_client`, the SDK's generated types, Stripe's own signature
code. Amounts are integers in the currency's minor unit.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

import msgspec

from payments_service.errors import Untrusted
from payments_service.lifecycle import (
    DisputeReport,
    DisputeState,
    Outcome,
    RefundReport,
    RefundState,
    Report,
    Settlement,
)
from payments_service.money import Currency, Money

# Of the timestamp in a signature, to both sides: a captured message is worth nothing after that.
TOLERANCE_SECONDS = 300
_TIMESTAMP = re.compile(r"[0-9]{1,15}", re.ASCII)
_SIGNATURES = 20

# Section 4 of the protocol notes. `requires_action` waits for the customer, `canceled` left the money with the tenant.
REFUND_STATES = {
    "pending": RefundState.PENDING,
    "requires_action": RefundState.PENDING,
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}
# An inquiry (`warning_…`) is a dispute that has withdrawn no money yet. While a lost one is appealed against, its money
# stays away. `prevented` is left out: who bears it is the card network's to say.
DISPUTE_STATES = {
    "needs_response": DisputeState.OPEN,
    "under_review": DisputeState.OPEN,
    "warning_needs_response": DisputeState.OPEN,
    "warning_under_review": DisputeState.OPEN,
    "warning_closed": DisputeState.WON,
    "won": DisputeState.WON,
    "lost": DisputeState.LOST,
    "appeal_needs_response": DisputeState.LOST,
    "appeal_under_review": DisputeState.LOST,
}
PAID = frozenset({"paid", "no_payment_required"})

T = TypeVar("T")

# Far above any amount of Stripe's, in any currency, and within what a clock and a database can hold.
Minor = Annotated[int, msgspec.Meta(ge=0, le=10**15)]
# Of anything at Stripe. What is longer is none, and no index holds it.
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[!-~]+\Z")]
UnixTime = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]


class Named(msgspec.Struct, frozen=True):
    """Any object, of which only the id matters."""

    id: Id


class Refund(msgspec.Struct, frozen=True):
    id: Id
    amount: Minor
    currency: str
    status: str | None = None
    payment_intent: Id | Named | None = None
    metadata: dict[str, str] | None = None


class Refunds(msgspec.Struct, frozen=True):
    data: tuple[Refund, ...]
    has_more: bool = False


class Charge(msgspec.Struct, frozen=True):
    id: Id
    amount_refunded: Minor
    currency: str
    payment_intent: Id | Named | None = None
    metadata: dict[str, str] | None = None
    disputed: bool = False
    refunds: Refunds | None = None


class Dispute(msgspec.Struct, frozen=True):
    id: Id
    amount: Minor
    currency: str
    status: str
    payment_intent: Id | Named | None = None


class Disputes(msgspec.Struct, frozen=True):
    data: tuple[Dispute, ...]


class Intent(msgspec.Struct, frozen=True):
    id: Id
    status: str
    latest_charge: Id | Charge | None = None
    metadata: dict[str, str] | None = None
    last_payment_error: dict[str, Any] | None = None


class Session(msgspec.Struct, frozen=True):
    """A Checkout session. `payment_intent` is null until the customer has confirmed, whole where it was expanded."""

    id: Id
    payment_status: str = "unpaid"
    status: str | None = None
    amount_total: Minor | None = None
    currency: str | None = None
    client_reference_id: str | None = None
    metadata: dict[str, str] | None = None
    payment_intent: Id | Intent | None = None
    url: str | None = None
    expires_at: UnixTime | None = None
    livemode: bool | None = None


class Sessions(msgspec.Struct, frozen=True):
    data: tuple[Session, ...]
    has_more: bool = False


class Contents(msgspec.Struct, frozen=True):
    object: msgspec.Raw


class Event(msgspec.Struct, frozen=True):
    """`account` names the connected account that it is about, where it is not that of the endpoint."""

    id: Id
    type: str
    data: Contents
    livemode: bool | None = None
    account: str | None = None


class Events(msgspec.Struct, frozen=True):
    data: tuple[Event, ...]
    has_more: bool = False


def read(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    """JSON as one of the types above. Raises Untrusted."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Untrusted("the message is not what Stripe sends") from error


def signed_event(body: bytes, header: str | None, secrets: Sequence[str], at: datetime) -> Event:
    """The event of a webhook, its signature verified over the raw body with any of the secrets. Raises Untrusted."""
    verify(body, header, secrets, at)
    # No database takes a NUL. (An escaped backslash before `u0000` is none.)
    if b"\\u0000" in body.replace(b"\\\\", b""):
        raise Untrusted("the message is not what Stripe sends")
    return read(body, Event)


def verify(body: bytes, header: str | None, secrets: Sequence[str], at: datetime) -> None:
    """HMAC-SHA256 of `{t}.{body}` under the whole `whsec_…` string must equal one of the header's `v1`. While a secret
    is rolled there is one for each. Raises Untrusted."""
    moment, signatures = signature_parts(header, at)
    text = moment.encode() + b"." + body
    for secret in secrets:
        expected = hmac.new(secret.encode(), text, hashlib.sha256).hexdigest().encode()
        if any(hmac.compare_digest(expected, signature) for signature in signatures):
            return
    raise Untrusted("the signature was not made with a secret of this endpoint")


def signature_parts(header: str | None, at: datetime) -> tuple[str, list[bytes]]:
    """The timestamp of a Stripe-Signature, which is near this moment, and every `v1`. Raises Untrusted."""
    pairs = [part.strip().partition("=") for part in (header or "").split(",")[: _SIGNATURES + 2]]
    moments = [value for name, _, value in pairs if name == "t"]
    # A header is latin-1 at most; what is not ASCII is no signature.
    signatures = [value.encode("latin-1", "replace") for name, _, value in pairs if name == "v1"]
    if len(moments) != 1 or not _TIMESTAMP.fullmatch(moments[0]) or not signatures:
        raise Untrusted("there is no Stripe-Signature with one timestamp and a v1 signature")
    if abs(at.timestamp() - int(moments[0])) > TOLERANCE_SECONDS:
        raise Untrusted("the signature is too old, or from the future")
    return moments[0], signatures[:_SIGNATURES]


def name_of(value: str | Named | Intent | Charge | None) -> str | None:
    """The id of what may be expanded."""
    return value if value is None or isinstance(value, str) else value.id


def id_in(metadata: dict[str, str] | None, name: str) -> UUID | None:
    """One of our ids in an object's metadata."""
    with suppress(ValueError):
        return UUID((metadata or {}).get(name, ""))
    return None


def money(amount: int | None, currency: str | None) -> Money | None:
    """The amount, if its currency is one that Stripe takes for us."""
    return Money(amount, Currency.USD) if amount is not None and currency == "usd" else None


def session_report(session: Session) -> Report:
    """What a session proves of its attempt."""
    said = f"{session.status}, {session.payment_status}"
    amount = money(session.amount_total, session.currency)
    if amount is None and session.payment_status in PAID:
        said += f" ({session.amount_total} {session.currency})"[:40]
    return Report(
        outcome=_outcome(session),
        said=said[:100],
        under_way=_outcome(session) is Outcome.PENDING and session.status == "complete",
        amount=amount,
        # Missing is as wrong as different.
        reference=(session.client_reference_id or "")[:200],
        gateway_reference=name_of(session.payment_intent),
        settlement=_settlement(session.payment_intent),
    )


def _outcome(session: Session) -> Outcome:
    if session.payment_status in PAID:
        return Outcome.PAID
    if session.status == "expired":
        return Outcome.LAPSED
    if session.status == "complete":
        # A payment that is confirmed later, by a bank; when it failed, its intent says so.
        intent = session.payment_intent
        over = isinstance(intent, Intent) and intent.status in ("requires_payment_method", "canceled")
        return Outcome.FAILED if over else Outcome.PENDING
    return Outcome.PENDING if session.status == "open" else Outcome.UNKNOWN


def _settlement(intent: str | Intent | None) -> Settlement | None:
    """What became of the money, where the charge was expanded."""
    charge = intent.latest_charge if isinstance(intent, Intent) else None
    return charge_settlement(charge) if isinstance(charge, Charge) else None


def charge_settlement(charge: Charge) -> Settlement:
    """A charge names the sum of its refunds so far, and the refunds themselves only where they were expanded."""
    if charge.refunds is None:
        return Settlement(refunded_total=charge.amount_refunded)
    refunds = refund_reports(charge.refunds.data)
    # One in a state that is not known here is there all the same.
    whole = not charge.refunds.has_more and len(refunds) == len(charge.refunds.data)
    return Settlement(refunds, complete=whole, refunded_total=None if whole else charge.amount_refunded)


def refund_reports(refunds: Sequence[Refund]) -> tuple[RefundReport, ...]:
    """The refunds whose state is known."""
    found = []
    for refund in refunds:
        state, amount = REFUND_STATES.get(refund.status or ""), money(refund.amount, refund.currency)
        if state and amount and amount.minor:
            found.append(RefundReport(refund.id, amount, state, id_in(refund.metadata, "refund_id")))
    return tuple(found)


def dispute_reports(disputes: Sequence[Dispute]) -> tuple[DisputeReport, ...]:
    """The disputes whose state is known."""
    found = []
    for dispute in disputes:
        state, amount = DISPUTE_STATES.get(dispute.status), money(dispute.amount, dispute.currency)
        if state and amount and amount.minor:
            found.append(DisputeReport(dispute.id, amount, state))
    return tuple(found)
