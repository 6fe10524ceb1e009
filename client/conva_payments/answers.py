"""What the API answers: frozen dataclasses, so that FastAPI and everything else can show them as they are.

Amounts are whole minor units (cents), times are in UTC. What a newer service says besides is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from conva_payments.words import Currency, Gateway, MessageState, RefundStatus, Status

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as it stands. `sequence` counts its changes: the higher one is the newer state."""

    id: UUID
    client_id: UUID
    gateway: Gateway | None
    amount_cents: int
    currency: Currency
    status: Status
    reference: str
    gateway_reference: str | None
    description: str | None
    contact_id: UUID | None
    invoice_id: UUID | None
    payment_url: str
    page_url: str
    whatsapp_url: str
    late: bool
    refunded_cents: int
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    sequence: int

    @property
    def net_cents(self) -> int:
        """What was paid and not given back, as the service's own sums have it. A disputed payment still counts; one of
        which a person found that no money came does not."""
        return self.amount_cents - self.refunded_cents if self.paid_at and self.status != "failed" else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageNews:
    """A message that carries a pay link, as an event told of it. It says nothing of money. `kind`: link or reminder;
    `form`: template or text; `code`: WhatsApp's error, and `detail` what it means."""

    id: UUID
    channel: str
    kind: str
    form: str
    state: MessageState
    code: int | None
    detail: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(MessageNews):
    """The same as the payment shows it. `to`: the customer's number, with `+` and the country code."""

    to: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentWithMessages(Payment):
    """A payment with the messages that carry its link, the oldest first."""

    messages: list[Message] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentChange(Payment):
    """The payment as one change left it, told by an event. `previous_status` is None for a new link."""

    previous_status: Status | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of a list. `next_cursor` leads on: for payments None on the last page; for events always there."""

    data: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundEvidence:
    gateway_reference: str
    amount_cents: int
    state: RefundStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeEvidence:
    """`state`: open, lost or won."""

    gateway_reference: str
    amount_cents: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the gateway reported beside what was asked for, or what a person decided; None where it was not told."""

    gateway: Gateway | None = None
    said: str | None = None
    amount_cents: int | None = None
    currency: str | None = None
    reference: str | None = None
    gateway_reference: str | None = None
    expected_cents: int | None = None
    expected_currency: Currency | None = None
    expected_reference: str | None = None
    refunds: list[RefundEvidence] = field(default_factory=list)
    disputes: list[DisputeEvidence] = field(default_factory=list)
    refunded_total: int | None = None
    resolution: str | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One change of a payment. `cause`: link, gateway, tenant, clock or person."""

    sequence: int
    from_status: Status | None
    to_status: Status
    cause: str
    actor: str | None
    evidence: Evidence
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Money that goes back. `reason` and `actor` are None when it was made in the gateway's dashboard."""

    id: UUID
    payment_id: UUID
    gateway: Gateway
    gateway_reference: str | None
    amount_cents: int
    currency: Currency
    status: RefundStatus
    reason: str | None
    actor: str | None
    manual: bool
    evidence: str | None
    detail: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundMade(Refund):
    """A refund, and its payment as it stands with it."""

    payment: Payment


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Why a person must look at a payment, and what came of it."""

    reason: str
    attempt_id: UUID
    evidence: Evidence
    opened_at: datetime
    resolved_at: datetime | None
    resolution: Status | None
    note: str | None
    actor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """The payments of one gateway (None: none was chosen yet), currency and status: how many, and their sums."""

    gateway: Gateway | None
    currency: Currency
    status: Status
    count: int
    amount_cents: int
    refunded_cents: int
    net_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The sums of the payments that were made from `since` on and before `until`."""

    since: datetime
    until: datetime
    data: list[Total]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A tenant's settings without the secrets, which no call ever shows. `…_configured`: what is needed is saved."""

    paynow_integration_id: str | None
    paynow_zig_integration_id: str | None
    paynow_auth_email: str | None
    paynow_express_methods: str | None
    stripe_publishable_key: str | None
    ecocash_merchant_code: str | None
    ecocash_dialect: str | None
    ecocash_username: str | None
    ecocash_merchant_number: str | None
    ecocash_currencies: str | None
    innbucks_username: str | None
    display_name: str | None
    whatsapp_phone_number_id: str | None
    whatsapp_template: str | None
    whatsapp_template_language: str | None
    whatsapp_text: str | None
    whatsapp_number: str | None
    paynow_configured: bool
    paynow_zig_configured: bool
    stripe_configured: bool
    ecocash_configured: bool
    innbucks_configured: bool
    whatsapp_configured: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What a gateway says of the saved credentials: `messages` are for a person. `mode`: live, test or None."""

    gateway: Gateway
    ok: bool
    mode: str | None
    account: str | None
    currencies: list[Currency]
    messages: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpoint:
    """The endpoint that was made in the tenant's Stripe account; `replaced` are the ids of those removed for it."""

    gateway: Gateway
    endpoint_id: str
    url: str
    api_version: str | None
    enabled_events: list[str]
    replaced: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One row of a tenant's audit log. Each carries a hash over itself and the row before, in hexadecimal."""

    position: int
    actor: str
    action: str
    detail: dict[str, Any]
    at: datetime
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainVerdict:
    """Whether an audit log is whole. `rows`: how many were found good; `first_bad`: the position where it breaks."""

    whole: bool
    rows: int
    first_bad: int | None
    reason: str | None
