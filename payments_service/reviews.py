"""What a person decides: about money that does not fit, and about a refund of which no gateway tells."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service import audit
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import KeyBusy, NotFound, Unavailable, WrongState
from payments_service.gateways.base import TracesRefunds
from payments_service.idempotency import Claim, mark
from payments_service.lifecycle import Outcome, RefundState, Report, ReviewReason, Settlement, Status, standing_of
from payments_service.outbox import EVENT_OF
from payments_service.payments import absorb, get
from payments_service.records import PAYMENT_COLUMNS, Change, Payment, Resolution, write_within
from payments_service.refunds import GRACE, WATCH, Refund, listed
from payments_service.settlements import CONTESTED, RETURNED

log = structlog.get_logger(__name__)


class Review(msgspec.Struct, frozen=True):
    """Why a person must look, what was reported beside what was asked for, and what the person decided."""

    reason: ReviewReason
    attempt_id: UUID
    evidence: dict[str, Any]
    opened_at: datetime
    resolved_at: datetime | None
    resolution: str | None
    note: str | None
    actor: str | None


_REVIEWS = """
SELECT reason, attempt_id, evidence, opened_at, resolved_at, resolution, note, actor FROM reviews
WHERE client_id = %(client_id)s AND payment_id = %(id)s ORDER BY id"""


async def of_payment(context: Context, client_id: UUID, payment_id: UUID) -> list[Review]:
    """The payment's reviews, oldest first. Raises NotFound."""
    await get(context, client_id, payment_id)
    rows = await context.db.run(_REVIEWS, {"client_id": client_id, "id": payment_id}, tenant=client_id)
    return [msgspec.convert(row, Review) for row in rows]


# Refunds and looks that come meanwhile wait for it, or are waited for: the sums are read after it, in a statement of
# their own.
_LOCK = "SELECT FROM payments WHERE client_id = %(client_id)s AND id = %(id)s FOR UPDATE"

# Whose money it is about: that which counted before the review, else that of the newest attempt which a review was
# opened for and which brought some. Of what went back whole there is nothing left to take: then it is another's, if
# that has a name of its own. Its reference is the payment's from now on, if no other payment has it: refunds and
# disputes name it. `ours`: they find the payment by it.
_MONEY = f"""
SELECT {PAYMENT_COLUMNS}, m.attempt_id, m.returned, m.contested,
    m.attempt_id IS NOT NULL AND (
        m.counted OR m.named OR COALESCE(p.gateway_reference, m.gateway_reference) IS NULL) AS ours,
    m.gateway AS attempt_gateway, CASE WHEN m.named THEN m.gateway_reference END AS attempt_gateway_reference
FROM payments p LEFT JOIN LATERAL (
    SELECT a.id AS attempt_id, a.gateway, a.gateway_reference, k.*, {RETURNED} AS returned, {CONTESTED} AS contested
    FROM attempts a LEFT JOIN reviews r ON r.attempt_id = a.id AND r.payment_id = p.id
    CROSS JOIN LATERAL (
        SELECT p.paid_at IS NOT NULL AND a.gateway IS NOT DISTINCT FROM p.gateway
                AND a.gateway_reference IS NOT DISTINCT FROM p.gateway_reference AS counted,
            a.gateway_reference IS NOT NULL AND NOT EXISTS (
                SELECT FROM payments o WHERE o.client_id = p.client_id AND o.gateway = a.gateway
                AND o.gateway_reference = a.gateway_reference AND o.id <> p.id) AS named
    ) AS k
    WHERE a.payment_id = p.id AND a.state = 'paid'
    ORDER BY (k.counted AND p.refunded_cents = p.amount_cents) OR {RETURNED} >= p.amount_cents
            OR NOT (k.counted OR k.named OR p.gateway_reference IS NULL),
        k.counted DESC, r.id DESC NULLS LAST LIMIT 1
) AS m ON true
WHERE p.client_id = %(client_id)s AND p.id = %(id)s"""


async def resolve(
    context: Context,
    client_id: UUID,
    payment_id: UUID,
    resolution: Resolution,
    *,
    actor: str,
    claim: Claim | None = None,
) -> Payment:
    """Lead a payment out of its review, with an audit row in the same transaction; the payment as it is now.

    `claim`: that of the call's idempotency key, which leads to the payment from now on. Raises NotFound, WrongState for
    a payment that is not in review, and KeyBusy when somebody else has the key meanwhile.
    """
    at = context.clock()
    names = {"client_id": client_id, "id": payment_id}
    try:
        row, payment = await _decide(context, names, resolution, at, actor, claim)
    except IntegrityError:
        # Another payment has taken the money's name at this moment: by now that can be seen.
        row, payment = await _decide(context, names, resolution, at, actor, claim)
    context.events_due.ring()
    context.metrics.moved(payment.gateway, payment.status)
    log.info("payment_moved", payment_id=payment_id, client_id=client_id, to_status=payment.status)
    if resolution.status is Status.PAID and row["ours"]:
        payment = await _looked_at(context, payment, row["attempt_id"], at)
    return payment


async def _decide(
    context: Context, names: dict[str, UUID], resolution: Resolution, at: datetime, actor: str, claim: Claim | None
) -> tuple[Row, Payment]:
    """Write the decision; the payment as it was, with whose money it is about, and as it is now."""
    client_id, payment_id = names["client_id"], names["id"]
    async with context.db.as_tenant(client_id) as connection:
        row = await _locked(connection, names)
        payment = await write_within(context, connection, _change(row, resolution, at, actor))
        assert payment, "nobody else can have moved a row that is locked"
        if claim and not await mark(connection, client_id, claim, payment_id):
            raise KeyBusy
        detail = {"payment_id": str(payment_id), "resolution": resolution.status, "note": resolution.note}
        await audit.record(connection, client_id, actor=actor, action="review.resolved", detail=detail, at=at)
    return row, payment


async def _looked_at(context: Context, payment: Payment, attempt_id: UUID, at: datetime) -> Payment:
    """The payment after a look at its money. What was told while the decision was written found the payment in review
    still, and changed nothing; so did what a gateway that itemises nothing has said since: it is asked once more."""
    news = Report(Outcome.SETTLED, "", settlement=Settlement())
    with suppress(Unavailable, NotFound):  # the decision stands; the next look comes by its schedule
        await absorb(context, attempt_id, news, next_check_at=at)
        context.checks_due.ring()
        return await get(context, payment.client_id, payment.id)
    return payment


async def _locked(connection: AsyncConnection, names: dict[str, UUID]) -> Row:
    await connection.exec_driver_sql(_LOCK, names)
    row = (await connection.exec_driver_sql(_MONEY, names)).mappings().one_or_none()
    if row is None:
        raise NotFound("This tenant has no payment with this id.")
    if row["status"] != Status.REVIEW:
        raise WrongState(f"The payment is {row['status']}; only one in review can be resolved.")
    return dict(row)


def _change(row: Row, resolution: Resolution, at: datetime, actor: str) -> Change:
    taken = resolution.status is not Status.FAILED and (row["gateway_reference"] is None or row["ours"])
    status, refunded = _outcome(row, resolution.status)
    return Change(
        row,
        status,
        cause="person",
        at=at,
        event=EVENT_OF[status],
        actor=actor,
        gateway=row["attempt_gateway"] if taken else None,
        gateway_reference=row["attempt_gateway_reference"] if taken else None,
        refunded_cents=refunded,
        evidence={"resolution": resolution.status, "note": resolution.note},
        resolution=resolution,
    )


def _outcome(row: Row, decided: Status) -> tuple[Status, int | None]:
    """Where the payment stands after the decision, and the minor units given back; None: as before. Of money that was
    taken a part may have gone back meanwhile, or be contested."""
    if decided is Status.PAID:
        # Of what is another payment's nobody would tell how it goes on.
        returned, contested = (row["returned"], row["contested"]) if row["ours"] else (0, False)
        return standing_of(row["amount_cents"], returned, Outcome.PAID, contested=contested)
    return decided, row["amount_cents"] if decided is Status.REFUNDED else None


# A refund that was only just asked for may still be answered. What a person says of it is the proof that it has; not
# where look-ups of the payment tell of each refund: one that they name later would count twice.
_SETTLE = """
UPDATE refunds SET state = :state, detail = :detail, evidence = :evidence, updated_at = :at
WHERE id = :refund_id AND client_id = :client_id AND payment_id = :id AND state = 'requested' AND created_at <= :before
  AND gateway = ANY(:untold)
RETURNING attempt_id"""


async def settle_refund(
    context: Context,
    client_id: UUID,
    payment_id: UUID,
    refund_id: UUID,
    *,
    done: bool,
    note: str,
    actor: str,
    claim: Claim | None = None,
) -> tuple[Refund, Payment]:
    """Record what a person has found out about a refund whose answer was lost: `done`, or not, so that its sum can be
    given back anew. The refund and the payment as they are now.

    `claim`: that of the call's idempotency key, which leads to the refund from now on. Raises NotFound, WrongState for
    a refund whose end is known, or that was asked for only just now, and KeyBusy when somebody else has the key
    meanwhile.
    """
    at = context.clock()
    state = RefundState.SUCCEEDED if done else RefundState.FAILED
    values = {"refund_id": refund_id, "client_id": client_id, "id": payment_id, "state": state, "at": at}
    async with context.db.as_tenant(client_id) as connection:
        told = {"detail": None if done else note, "evidence": note if done else None, "before": at - GRACE}
        untold = [name for name, gateway in context.gateways.items() if isinstance(gateway, TracesRefunds)]
        settled = (await connection.execute(text(_SETTLE), {**values, **told, "untold": untold})).first()
        if settled is not None:
            # Whoever is cut off before the payment has moved leaves that to the next look.
            watched = {"attempt_id": settled[0], "client_id": client_id, "soon": at + GRACE}
            await connection.execute(text(WATCH), watched)
            if claim and not await mark(connection, client_id, claim, refund_id):
                raise KeyBusy
            detail = {"payment_id": str(payment_id), "refund_id": str(refund_id), "state": state, "note": note}
            await audit.record(connection, client_id, actor=actor, action="refund.settled", detail=detail, at=at)
    refund = next((each for each in await listed(context, client_id, payment_id) if each.id == refund_id), None)
    if refund is None:
        raise NotFound("This payment has no refund with this id.")
    if settled is None:
        raise WrongState(
            f"The refund is {refund.status}; only one whose answer was lost a while ago can be "
            "settled, and only where the gateway does not tell of it by itself."
        )
    news = Report(Outcome.SETTLED, "", settlement=Settlement())
    await absorb(context, settled[0], news, next_check_at=at, lease=None, actor=actor)
    return refund, await get(context, client_id, payment_id)
