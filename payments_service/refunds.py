"""Giving money back: by the gateway where it can, else by a person, who says how that can be proved.

The refund is on record before the gateway hears of it, and what is promised already counts: of concurrent refunds none
goes above what was paid. A lost answer is settled by a look-up, which knows every refund by our id.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service import accounts, audit
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import (
    Ambiguous,
    GatewayError,
    Invalid,
    KeyBusy,
    NotConfigured,
    NotFound,
    Refused,
    Unavailable,
    Unreachable,
    Unreadable,
    WrongState,
)
from payments_service.gateways.base import RefundOrder, Refunds, TracesRefunds
from payments_service.idempotency import Claim, mark
from payments_service.ids import new_id
from payments_service.lifecycle import RECEIVED, Outcome, RefundReport, RefundState, Report, Settlement, Status
from payments_service.money import Currency, Money
from payments_service.payments import absorb, get
from payments_service.proofs import CONFIRM
from payments_service.records import Payment
from payments_service.settlements import PROMISED

log = structlog.get_logger(__name__)

# What is disputed too: to give it back settles an inquiry, and the gateway says when it is too late for that.
REFUNDABLE = RECEIVED - {Status.REFUNDED}
# A refund that has neither answered nor failed by then was cut off. Longer than any call.
GRACE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class RefundWish:
    """What the backend asks for. `amount_cents` None: all that is left. `manual`: a person gave it back already."""

    reason: str
    amount_cents: int | None = None
    manual: bool = False
    evidence: str | None = None


class Refund(msgspec.Struct, frozen=True):
    """A refund in the internal API. `status`: requested, pending, succeeded or failed."""

    id: UUID
    payment_id: UUID
    gateway: str
    gateway_reference: str | None
    amount_cents: int
    currency: Currency
    status: RefundState
    reason: str | None
    actor: str | None
    manual: bool
    evidence: str | None
    detail: str | None
    created_at: datetime
    updated_at: datetime


_REFUND = """
SELECT r.id, r.payment_id, r.gateway, r.gateway_reference, r.amount_cents, a.currency, r.state AS status, r.reason,
    r.actor, r.evidence IS NOT NULL AS manual, r.evidence, r.detail, r.created_at, r.updated_at
FROM refunds r JOIN attempts a ON a.id = r.attempt_id WHERE r.client_id = %(client_id)s"""


async def refund(
    context: Context, client_id: UUID, payment_id: UUID, wish: RefundWish, *, actor: str, claim: Claim | None = None
) -> tuple[Refund, Payment]:
    """Give the money of a payment back, or a part of it; the refund and the payment as they are now.

    `claim`: that of the call's idempotency key, which leads to the refund from now on. Raises KeyBusy, with nothing
    recorded, when somebody else has it meanwhile.

    Raises NotFound, WrongState and Invalid before anything is recorded; Refused, Unreachable, NotConfigured and
    Unreadable after the refund was recorded as failed; Ambiguous and Untrusted with the refund `requested` until a
    look-up settles it.
    """
    row = await _reserve(context, client_id, payment_id, wish, actor, claim)
    try:
        if wish.manual:
            usual = row["next_check_at"]
            news = _settled(Settlement())
            await absorb(context, row["attempt_id"], news, next_check_at=usual, lease=row["due"], actor=actor)
        else:
            await _ask(context, row, actor)
        return await both(context, client_id, row["refund_id"])
    except Unavailable as error:
        # Something was changed: who simply tried again would refund twice.
        lost = Ambiguous(
            "The refund is on record, but what became of it cannot be read now: look at the refunds first."
        )
        lost.payment_id = payment_id
        raise lost from error


async def both(context: Context, client_id: UUID, refund_id: UUID) -> tuple[Refund, Payment]:
    """The refund and its payment as they are now."""
    names = {"client_id": client_id, "id": refund_id}
    (row,) = await context.db.run(f"{_REFUND} AND r.id = %(id)s", names, tenant=client_id)
    return _shown(row), await get(context, client_id, row["payment_id"])


async def recall(context: Context, client_id: UUID, refund_id: UUID) -> tuple[Refund, Payment]:
    """The refund of a call that was cut off, or whose gateway did not answer, and its payment.

    Raises Ambiguous while its end is not known, and Refused for one that failed.
    """
    made, payment = await both(context, client_id, refund_id)
    error: GatewayError | None = None
    if made.status is RefundState.REQUESTED:
        error = Ambiguous("What became of this refund is not known yet: look at the refunds of the payment.")
    elif made.status is RefundState.FAILED:
        error = Refused(f"This refund failed. {made.detail or ''}".strip())
    if error:
        error.payment_id = payment.id
        raise error
    return made, payment


async def listed(context: Context, client_id: UUID, payment_id: UUID) -> list[Refund]:
    """The payment's refunds, oldest first, whoever asked for them. Raises NotFound."""
    await get(context, client_id, payment_id)
    rows = await context.db.run(
        f"{_REFUND} AND r.payment_id = %(id)s ORDER BY r.created_at, r.id",
        {"client_id": client_id, "id": payment_id},
        tenant=client_id,
    )
    return [_shown(row) for row in rows]


def _shown(row: Row) -> Refund:
    return msgspec.convert(row, Refund)


# Whoever deletes the tenant (`leaving`) waits for it, and then finds the refund on its way.
_STAY = "SELECT FROM payment_settings WHERE client_id = :client_id FOR KEY SHARE"
# The lock on the payment makes refunds wait for each other; the sums are read after it, in a statement of their own.
_LOCK = "SELECT status, currency FROM payments WHERE client_id = :client_id AND id = :id FOR UPDATE"
# What a review was resolved by, that all was given back by hand, is no refund on record.
_MONEY = f"""
SELECT a.id AS attempt_id, a.gateway, a.gateway_reference, a.phone, a.poll_url, a.amount_cents, a.currency,
    a.next_check_at,
    GREATEST({PROMISED}, p.refunded_cents) AS promised
FROM attempts a JOIN payments p ON p.id = a.payment_id
WHERE a.client_id = :client_id AND a.payment_id = :id AND a.state = 'paid'
  AND a.gateway_reference IS NOT DISTINCT FROM p.gateway_reference"""
_INSERT = """
INSERT INTO refunds (id, payment_id, client_id, attempt_id, gateway, amount_cents, state, reason, actor, evidence,
                     created_at, updated_at)
VALUES (:refund_id, :id, :client_id, :attempt_id, :gateway, :cents, :state, :reason, :actor, :evidence, :at, :at)"""
# A moment that no lease ends at: whoever is looking just now must not take the wish for his own claim.
WATCH = """
UPDATE attempts
SET next_check_at = LEAST(COALESCE(next_check_at, CAST(:soon AS timestamptz)), :soon) - interval '1 millisecond'
WHERE id = :attempt_id AND client_id = :client_id RETURNING next_check_at"""


async def _reserve(
    context: Context, client_id: UUID, payment_id: UUID, wish: RefundWish, actor: str, claim: Claim | None = None
) -> Row:
    """Record the refund, if so much is left; the row of the money with `refund_id` and `cents`."""
    at = context.clock()
    names = {"client_id": client_id, "id": payment_id}
    async with context.db.as_tenant(client_id) as connection:
        await connection.execute(text(_STAY), names)
        money = await _refundable(connection, names)
        row = {**money, **names, "refund_id": new_id(), "cents": _cents(wish, money), "reason": wish.reason}
        _check_kind(context, wish, row["gateway"])
        state = RefundState.SUCCEEDED if wish.manual else RefundState.REQUESTED
        said = {"evidence": wish.evidence, "actor": actor, "state": state, "at": at}
        await connection.execute(text(_INSERT), {**row, **said})
        if claim and not await mark(connection, client_id, claim, row["refund_id"]):
            raise KeyBusy
        row["due"] = (await connection.execute(text(WATCH), {**row, "soon": at + GRACE})).scalar_one()
        detail = {
            "payment_id": str(payment_id),
            "refund_id": str(row["refund_id"]),
            "amount_cents": row["cents"],
            "reason": wish.reason,
            "manual": wish.manual,
        }
        await audit.record(connection, client_id, actor=actor, action="refund.requested", detail=detail, at=at)
    return row


async def _refundable(connection: AsyncConnection, names: dict[str, UUID]) -> dict[str, Any]:
    payment = (await connection.execute(text(_LOCK), names)).mappings().one_or_none()
    if payment is None:
        raise NotFound("This tenant has no payment with this id.")
    if Status(payment["status"]) not in REFUNDABLE:
        raise WrongState(f"The payment is {payment['status']}; only what was paid can be refunded.")
    money = (await connection.execute(text(_MONEY), names)).mappings().first()
    if money is None:
        raise WrongState("How this payment was paid is not on record here: refund it at the gateway.")
    return dict(money)


def _cents(wish: RefundWish, money: dict[str, Any]) -> int:
    left = money["amount_cents"] - money["promised"]
    if left <= 0:
        raise WrongState("All of this payment is refunded already, or on its way back.")
    if wish.amount_cents is not None and wish.amount_cents > left:
        raise Invalid([("amount_cents", f"is more than what is left to refund, which is {left}")])
    return int(wish.amount_cents or left)


def _check_kind(context: Context, wish: RefundWish, gateway: str) -> None:
    adapter = context.gateways.get(gateway)
    title = adapter.title if adapter else gateway
    if isinstance(adapter, Refunds):
        # What a merchant gives back at a gateway whose look-ups do not tell of it must be told by hand.
        if wish.manual and not isinstance(adapter, TracesRefunds):
            raise Invalid([("manual", f"{title} gives money back by itself: leave this out")])
        return
    if not wish.manual:
        raise Invalid([("manual", f"{title} has no refunds: give it back by hand, then send true, with the evidence")])


async def _ask(context: Context, row: Row, actor: str) -> None:
    """Ask the gateway, and record what it says."""
    gateway = context.gateways[row["gateway"]]
    assert isinstance(gateway, Refunds), "checked before it was recorded"
    amount = Money(row["cents"], Currency(row["currency"]))
    order = RefundOrder(
        refund_id=row["refund_id"],
        gateway_reference=row["gateway_reference"],
        amount=amount,
        reason=row["reason"],
        attempt_id=row["attempt_id"],
        payer_phone=row["phone"],
        poll_url=row["poll_url"],
    )
    try:
        report = await _refunded_by(context, gateway, row, order)
    except (Refused, Unreachable, NotConfigured, Unreadable) as error:
        await _failed(context, row, error.detail)
        if isinstance(error, GatewayError):
            error.payment_id = row["id"]
        raise
    except GatewayError as error:
        # It may have been taken: the look-up that is due knows it by our id.
        error.payment_id = row["id"]
        raise
    settlement = Settlement(refunds=(report,))
    soon = context.clock() + CONFIRM
    await absorb(context, row["attempt_id"], _settled(settlement), next_check_at=soon, actor=actor)
    log.info("refund_taken", payment_id=row["id"], client_id=row["client_id"], outcome=report.state)


async def _refunded_by(context: Context, gateway: Refunds, row: Row, order: RefundOrder) -> RefundReport:
    """Ask the account that took the money: the one of now, else one that others took the place of since."""
    client_id, name, currency = row["client_id"], row["gateway"], order.amount.currency
    now = await accounts.credentials(context, client_id, name, currency)
    try:
        return await gateway.refund(now, order)
    except NotConfigured:
        for known, credentials in await accounts.known_credentials(context, client_id, name):
            if known is currency and credentials != now:
                with suppress(NotConfigured):
                    return await gateway.refund(credentials, order)
        raise


_FAILED = """
UPDATE refunds SET state = 'failed', detail = %(detail)s, updated_at = %(at)s
WHERE id = %(refund_id)s AND client_id = %(client_id)s AND state = 'requested'"""


async def _failed(context: Context, row: Row, detail: str) -> None:
    values = {"refund_id": row["refund_id"], "client_id": row["client_id"], "detail": detail[:500]}
    await context.db.run(_FAILED, {**values, "at": context.clock()})
    log.warning("refund_failed", payment_id=row["id"], client_id=row["client_id"], detail=detail)


def _settled(settlement: Settlement) -> Report:
    return Report(Outcome.SETTLED, "", settlement=settlement)
