"""Finding payments: filters, pages by key, totals, and all of it as CSV in constant memory.

A page goes on where the one before ended by the key (created_at, id) and not by a count, so that it costs the same
however far one has come, and nothing is skipped or shown twice while new payments arrive.
"""

from __future__ import annotations

import csv
import io
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Invalid
from payments_service.lifecycle import Status
from payments_service.money import Currency
from payments_service.records import PAYMENT_COLUMNS, Payment, payment_from

PAGE = 50
MOST = 200
# Rows of a CSV that are read at once.
CSV_PAGE = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which payments; what is None matters not. `created_from` is in, `created_to` out."""

    status: Status | None = None
    gateway: str | None = None
    currency: Currency | None = None
    reference: str | None = None
    contact_id: UUID | None = None
    invoice_id: UUID | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


class Total(msgspec.Struct, frozen=True):
    """Payments of one gateway (null: none was chosen yet), currency and status: how many, and their sums in minor
    units; `net_cents` is what was paid and not given back."""

    gateway: str | None
    currency: Currency
    status: Status
    count: int
    amount_cents: int
    refunded_cents: int
    net_cents: int


_CONDITIONS = {
    "status": "p.status = %(status)s",
    "gateway": "p.gateway = %(gateway)s",
    "currency": "p.currency = %(currency)s",
    "reference": "p.reference = %(reference)s",
    "contact_id": "p.contact_id = %(contact_id)s",
    "invoice_id": "p.invoice_id = %(invoice_id)s",
    "created_from": "p.created_at >= %(created_from)s",
    "created_to": "p.created_at < %(created_to)s",
}
_AFTER = "(p.created_at, p.id) < (%(last_at)s, %(last_id)s)"


def _where(filters: Filters, *more: str) -> tuple[str, dict[str, Any]]:
    """The condition in SQL, of constants only, and its parameters."""
    given = {name: getattr(filters, name) for name in _CONDITIONS if getattr(filters, name) is not None}
    conditions = ["p.client_id = %(client_id)s", *(_CONDITIONS[name] for name in given), *more]
    return " AND ".join(conditions), given


async def page(
    context: Context, client_id: UUID, filters: Filters, *, limit: int = PAGE, cursor: str | None = None
) -> tuple[list[Payment], str | None]:
    """The newest payments that fit, and the cursor of the page after; None when there is none. Raises Invalid for a
    cursor that is not one of ours."""
    after = _opened(cursor) if cursor else None
    rows = await _rows(context, client_id, filters, after, limit + 1)
    shown = [payment_from(context, row) for row in rows[:limit]]
    return shown, _cursor(rows[limit - 1]) if len(rows) > limit else None


async def _rows(
    context: Context, client_id: UUID, filters: Filters, after: tuple[datetime, UUID] | None, limit: int
) -> list[Row]:
    where, values = _where(filters, *([_AFTER] if after else []))
    last_at, last_id = after or (None, None)
    return await context.db.run(
        f"SELECT {PAYMENT_COLUMNS} FROM payments p WHERE {where} ORDER BY p.created_at DESC, p.id DESC LIMIT %(limit)s",
        {**values, "client_id": client_id, "last_at": last_at, "last_id": last_id, "limit": limit},
        tenant=client_id,
    )


def _cursor(row: Row) -> str:
    """Where a page ended: opaque to whoever uses it."""
    microseconds = (row["created_at"] - _EPOCH) // _MICROSECOND
    return urlsafe_b64encode(microseconds.to_bytes(8) + row["id"].bytes).decode()


def _opened(cursor: str) -> tuple[datetime, UUID]:
    try:
        raw = b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        if len(raw) != 24:
            raise ValueError("another length")
        return _EPOCH + int.from_bytes(raw[:8]) * _MICROSECOND, UUID(bytes=raw[8:])
    except (ValueError, OverflowError):
        raise Invalid([("cursor", "is not one that this service gave: leave it out to begin anew")]) from None


async def summary(context: Context, client_id: UUID, filters: Filters) -> list[Total]:
    """The sums of the payments that fit, by gateway, currency and status."""
    where, values = _where(filters)
    rows = await context.db.run(
        f"""
        SELECT p.gateway, p.currency, p.status, count(*) AS count, sum(p.amount_cents)::bigint AS amount_cents,
            sum(p.refunded_cents)::bigint AS refunded_cents,
            COALESCE(sum(p.amount_cents - p.refunded_cents)
                     FILTER (WHERE p.paid_at IS NOT NULL AND p.status <> 'failed'), 0)::bigint AS net_cents
        FROM payments p WHERE {where}
        GROUP BY p.gateway, p.currency, p.status ORDER BY p.gateway NULLS LAST, p.currency, p.status""",
        {**values, "client_id": client_id},
        tenant=client_id,
    )
    return [msgspec.convert(row, Total) for row in rows]


CSV_COLUMNS = (
    "id",
    "created_at",
    "status",
    "gateway",
    "currency",
    "amount_cents",
    "refunded_cents",
    "reference",
    "gateway_reference",
    "description",
    "contact_id",
    "invoice_id",
    "late",
    "paid_at",
    "expires_at",
    "page_url",
)
# A spreadsheet takes a cell that begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def csv_of(context: Context, client_id: UUID, filters: Filters) -> AsyncIterator[str]:
    """The payments that fit, newest first, as CSV (RFC 4180) with a line of names; a part of it at a time, the first
    with the names."""
    lines: list[Sequence[str]] = [CSV_COLUMNS]
    after: tuple[datetime, UUID] | None = None
    while True:
        rows = await _rows(context, client_id, filters, after, CSV_PAGE)
        yield _text([*lines, *(_cells(payment_from(context, row)) for row in rows)])
        if len(rows) < CSV_PAGE:
            return
        lines, after = [], (rows[-1]["created_at"], rows[-1]["id"])


def _text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _cells(payment: Payment) -> list[str]:
    return [_cell(getattr(payment, name)) for name in CSV_COLUMNS]


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text
