"""A payment as the backend sees it, and the one statement that changes a payment.

The statement writes the new status, the attempt's state, the transition, the evidence of a review and the event
together or not at all, guarded by the status and sequence that the decision was made on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service.context import Context
from payments_service.db import Row
from payments_service.gateways.base import NextStep, Redirect
from payments_service.ids import new_id
from payments_service.lifecycle import RECEIVED, ReviewReason, Status
from payments_service.money import Currency, Money
from payments_service.outbox import LINK_CREATED, event_body
from payments_service.phones import parse_phone
from payments_service.wording import link_text

PAYMENT_COLUMNS = """p.id, p.client_id, p.gateway, p.amount_cents, p.currency, p.status, p.reference,
    p.gateway_reference, p.description, p.contact_id, p.invoice_id, p.contact_email, p.contact_phone, p.page_token,
    p.payment_url, p.late, p.refunded_cents, p.created_at, p.expires_at, p.paid_at, p.sequence,
    (SELECT s.display_name FROM payment_settings s WHERE s.client_id = p.client_id) AS payee,
    (SELECT s.whatsapp_text FROM payment_settings s WHERE s.client_id = p.client_id) AS wording"""


class Payment(msgspec.Struct, frozen=True):
    """A payment in the internal API and in events. Amounts in minor units, times in UTC."""

    id: UUID
    client_id: UUID
    gateway: str | None
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


@dataclass(frozen=True, slots=True)
class Change:
    """One step in a payment's life, to be written by `write`. What is None stays as it is."""

    row: Row  # the payment as it was read: what the decision stands on
    status: Status
    cause: str
    at: datetime
    event: str
    actor: str | None = None
    late: bool = False
    gateway: str | None = None
    gateway_reference: str | None = None
    payment_url: str | None = None
    refunded_cents: int | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    review: ReviewReason | None = None
    attempt: AttemptChange | None = None
    # How what was to be reviewed is settled.
    resolution: Resolution | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """What became of a review: the status that the payment has from now on, and why."""

    status: Status
    note: str


@dataclass(frozen=True, slots=True)
class AttemptChange:
    """What becomes of the attempt. `lease` is the due time that the caller's claim set: when it stands there no more,
    a callback asked for another look in the meantime, and that wish is kept."""

    id: UUID
    state: str | None = None
    said: str | None = None
    gateway_reference: str | None = None
    poll_url: str | None = None
    next_step: NextStep | None = None
    checked_at: datetime | None = None
    answered_at: datetime | None = None
    next_check_at: datetime | None = None
    lease: datetime | None = None


# An attempt's update, alone and inside `_WRITE`.
SET_ATTEMPT = """
    UPDATE attempts SET
        -- Money that came by an attempt stays that attempt's, whatever the gateway says of it later.
        state = CASE WHEN state = 'paid' THEN state ELSE COALESCE(%(a_state)s::text, state) END,
        said = COALESCE(%(a_said)s::text, said),
        gateway_reference = COALESCE(gateway_reference, %(a_gateway_reference)s::text),
        poll_url = COALESCE(poll_url, %(a_poll_url)s::text),
        redirect_url = COALESCE(redirect_url, %(a_redirect_url)s::text),
        next_step = COALESCE(%(a_next_step)s::jsonb, next_step),
        last_checked_at = COALESCE(%(a_checked_at)s::timestamptz, last_checked_at),
        answered_at = COALESCE(%(a_answered_at)s::timestamptz, answered_at),
        checks = CASE WHEN %(a_checked_at)s::timestamptz IS NULL THEN checks ELSE least(checks + 1, 32000) END,
        next_check_at = CASE WHEN %(a_lease)s::timestamptz IS NULL OR next_check_at = %(a_lease)s::timestamptz
                             THEN %(a_next_check_at)s::timestamptz ELSE next_check_at END
    WHERE id = %(a_id)s::uuid"""

# Refunds and disputes find the payment by the name of its money, so that both rows get it at once.
SET_ATTEMPT_AND_NAME = f"""
WITH named AS (
    UPDATE payments SET gateway_reference = %(a_gateway_reference)s::text
    WHERE id = %(id)s AND client_id = %(client_id)s AND sequence = %(sequence)s AND gateway_reference IS NULL
)
{SET_ATTEMPT}"""

# Whoever resolves the review meanwhile waits, or is waited for: no question is added to a payment that is not in review
# any more.
KEEP_EVIDENCE = f"""
WITH known AS (
    SELECT id, client_id FROM payments
    WHERE id = %(id)s AND client_id = %(client_id)s AND sequence = %(sequence)s AND status = 'review' FOR SHARE
), attempt AS (
    {SET_ATTEMPT} AND EXISTS (SELECT FROM known)
), kept AS (
    INSERT INTO reviews (payment_id, client_id, attempt_id, reason, evidence, opened_at)
    SELECT id, client_id, %(a_id)s::uuid, %(reason)s::text, %(evidence)s::jsonb, %(at)s::timestamptz FROM known
    ON CONFLICT DO NOTHING
)
SELECT 1 FROM known"""

_WRITE = f"""
WITH moved AS (
    UPDATE payments p SET
        status = %(status)s::text,
        sequence = p.sequence + 1,
        late = p.late OR %(late)s::boolean,
        paid_at = COALESCE(p.paid_at, %(paid_at)s::timestamptz),
        gateway = COALESCE(%(gateway)s::text, p.gateway),
        gateway_reference = COALESCE(%(gateway_reference)s::text, p.gateway_reference),
        payment_url = COALESCE(%(payment_url)s::text, p.payment_url),
        refunded_cents = COALESCE(%(refunded_cents)s::bigint, p.refunded_cents)
    WHERE p.id = %(id)s::uuid AND p.client_id = %(client_id)s::uuid
      AND p.sequence = %(sequence)s::integer AND p.status = %(from_status)s::text
    RETURNING p.id, p.client_id, p.sequence
), attempt AS (
    {SET_ATTEMPT} AND EXISTS (SELECT FROM moved)
), step AS (
    INSERT INTO transitions (payment_id, client_id, attempt_id, sequence, from_status, to_status, cause, actor,
                             evidence, at)
    SELECT id, client_id, %(a_id)s::uuid, sequence, %(from_shown)s::text, %(status)s::text, %(cause)s::text,
           %(actor)s::text, %(evidence)s::jsonb, %(at)s::timestamptz
    FROM moved
), review AS (
    INSERT INTO reviews (payment_id, client_id, attempt_id, reason, evidence, opened_at)
    SELECT id, client_id, %(a_id)s::uuid, %(review)s::text, %(evidence)s::jsonb, %(at)s::timestamptz
    FROM moved WHERE %(review)s::text IS NOT NULL
    ON CONFLICT DO NOTHING
), resolved AS (
    UPDATE reviews r SET resolved_at = %(at)s::timestamptz, resolution = %(resolution)s::text, note = %(note)s::text,
                         actor = %(actor)s::text
    FROM moved WHERE r.payment_id = moved.id AND r.resolved_at IS NULL AND %(resolution)s::text IS NOT NULL
), told AS (
    INSERT INTO events (id, client_id, payment_id, type, sequence, body, created_at, next_try_at)
    SELECT %(event_id)s::uuid, client_id, id, %(event)s::text, sequence, %(body)s::text, %(at)s::timestamptz,
           %(at)s::timestamptz
    FROM moved
)
SELECT sequence FROM moved"""


async def write(context: Context, change: Change, *, tenant: UUID | None = None) -> Payment | None:
    """Write the step; the payment as it is now, or None when the row has moved on since it was read.

    Raises psycopg's UniqueViolation when another payment already holds the gateway reference.
    """
    after = payment_from(context, _after(change))
    if not await context.db.run(_WRITE, _values(change, after), tenant=tenant):
        return None
    context.events_due.ring()
    context.metrics.moved(after.gateway, after.status)
    return after


async def write_within(context: Context, connection: AsyncConnection, change: Change) -> Payment | None:
    """`write` as a part of the caller's transaction, who rings for the event and counts it once committed."""
    after = payment_from(context, _after(change))
    written = await connection.exec_driver_sql(_WRITE, _values(change, after))
    return after if written.first() else None


def _values(change: Change, after: Payment) -> dict[str, Any]:
    row = change.row
    first = row["sequence"] == 0 and change.event == LINK_CREATED
    previous = None if first else Status(row["status"])
    return {
        "id": row["id"],
        "client_id": row["client_id"],
        "sequence": row["sequence"],
        "from_status": row["status"],
        "from_shown": previous,
        "status": change.status,
        "late": change.late,
        "paid_at": after.paid_at,
        "gateway": change.gateway,
        "gateway_reference": change.gateway_reference,
        "payment_url": change.payment_url,
        "refunded_cents": change.refunded_cents,
        "cause": change.cause,
        "actor": change.actor,
        "evidence": Jsonb(change.evidence),
        "review": change.review,
        "resolution": change.resolution.status if change.resolution else None,
        "note": change.resolution.note if change.resolution else None,
        "at": change.at,
        "event_id": new_id(),
        "event": change.event,
        "body": event_body(change.event, change.at, after, previous),
        **attempt_values(change.attempt),
    }


def attempt_values(change: AttemptChange | None) -> dict[str, Any]:
    """The parameters of SET_ATTEMPT; without an attempt they match no row."""
    step = change.next_step if change else None
    url = step.url if isinstance(step, Redirect) else None
    # A page without an end is whole in its URL.
    more = step is not None and (url is None or step != Redirect(url))
    return {
        "a_id": change.id if change else None,
        "a_state": change.state if change else None,
        "a_said": change.said if change else None,
        "a_gateway_reference": change.gateway_reference if change else None,
        "a_poll_url": change.poll_url if change else None,
        "a_redirect_url": url,
        "a_next_step": msgspec.json.encode(step).decode() if more else None,
        "a_checked_at": change.checked_at if change else None,
        "a_answered_at": change.answered_at if change else None,
        "a_next_check_at": change.next_check_at if change else None,
        "a_lease": change.lease if change else None,
    }


def _after(change: Change) -> Row:
    """The payment's row as the step will leave it: what the event tells."""
    row = change.row
    received = change.status in RECEIVED
    return {
        **row,
        "status": change.status,
        "sequence": row["sequence"] + 1,
        "late": row["late"] or change.late,
        "paid_at": row["paid_at"] or (change.at if received else None),
        "gateway": change.gateway or row["gateway"],
        "gateway_reference": change.gateway_reference or row["gateway_reference"],
        "payment_url": change.payment_url or row["payment_url"],
        "refunded_cents": row["refunded_cents"] if change.refunded_cents is None else change.refunded_cents,
    }


def payment_from(context: Context, row: Row) -> Payment:
    """The payment as the backend sees it, of a row with PAYMENT_COLUMNS."""
    page_url = context.page_url(row["page_token"])
    return Payment(
        id=row["id"],
        client_id=row["client_id"],
        gateway=row["gateway"],
        amount_cents=row["amount_cents"],
        currency=Currency(row["currency"]),
        status=Status(row["status"]),
        reference=row["reference"],
        gateway_reference=row["gateway_reference"],
        description=row["description"],
        contact_id=row["contact_id"],
        invoice_id=row["invoice_id"],
        payment_url=row["payment_url"] or page_url,
        page_url=page_url,
        whatsapp_url=_whatsapp_url(row, page_url),
        late=row["late"],
        refunded_cents=row["refunded_cents"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        paid_at=row["paid_at"],
        sequence=row["sequence"],
    )


def money_of(row: Row) -> Money:
    """The amount asked for."""
    return Money(row["amount_cents"], Currency(row["currency"]))


@lru_cache(maxsize=4096)
def _international(phone: str) -> str:
    """The digits that wa.me takes, country code first; nothing for what is no number."""
    try:
        return parse_phone(phone).lstrip("+")
    except ValueError:
        return ""


def _whatsapp_url(row: Row, page_url: str) -> str:
    """A link that opens a WhatsApp chat with the text ready; with no international number, WhatsApp asks whom to."""
    digits = _international(row["contact_phone"]) if row["contact_phone"] else ""
    text = link_text(row["wording"], row["payee"], money_of(row), row["reference"], page_url)
    return f"https://wa.me/{digits}?text={quote(text)}"


_WORDS = """
SELECT s.display_name AS payee, s.whatsapp_text AS wording FROM payment_settings s WHERE s.client_id = %(client_id)s"""


async def words_of(context: Context, client_id: UUID) -> Row:
    """What of the tenant's settings a new payment's row must have besides its own: `payee`, `wording`."""
    rows = await context.db.run(_WORDS, {"client_id": client_id}, tenant=client_id)
    return rows[0] if rows else {"payee": None, "wording": None}
