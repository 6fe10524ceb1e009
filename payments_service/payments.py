"""The story of a payment after its start: reports are absorbed, the link is withdrawn or expires.

`absorb` is the only way by which a gateway's word changes a payment: callbacks and look-ups both end there. Each
change is written in one statement, guarded by what was read, so that of many copies of one report exactly one counts.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.types.json import Jsonb

from payments_service.context import Context
from payments_service.db import Row
from payments_service.endings import ASK_BEFORE_EXPIRY, CODE_LIFE, EXPIRED, EXPIRY_GRACE, PROMPT_LIFE
from payments_service.errors import NotFound, Unavailable, WrongState
from payments_service.evidence import evidence_of, warn_of_contradiction
from payments_service.gateways.base import Redirect, Wait
from payments_service.idempotency import Claim, begin
from payments_service.lifecycle import (
    PAYABLE,
    RECEIVED,
    Outcome,
    Report,
    ReviewReason,
    Settlement,
    Standing,
    Status,
    Verdict,
    allowed,
    next_status,
)
from payments_service.money import Currency, Money
from payments_service.outbox import EVENT_OF, LINK_CREATED
from payments_service.records import (
    KEEP_EVIDENCE,
    PAYMENT_COLUMNS,
    SET_ATTEMPT,
    SET_ATTEMPT_AND_NAME,
    AttemptChange,
    Change,
    Payment,
    Resolution,
    attempt_values,
    payment_from,
    write,
)
from payments_service.settlements import CONTESTED, RETURNED, keep

log = structlog.get_logger(__name__)

# A row that changes under our hands this often is a fault, not a race.
_TRIES = 6
_STATE_OF = {
    Outcome.PAID: "paid",
    Outcome.DISPUTED: "paid",
    Outcome.REFUNDED: "paid",
    Outcome.FAILED: "failed",
    Outcome.NEVER_STARTED: "failed",
    Outcome.LAPSED: "failed",
}
# A refund that was asked for so long ago, and that the gateway does not know of, never left.
UNHEARD = timedelta(minutes=2)

_STANDING = f"""
SELECT {PAYMENT_COLUMNS}, a.id AS attempt_id, a.gateway AS attempt_gateway, a.state AS attempt_state,
    a.gateway_reference AS attempt_gateway_reference, a.reference AS attempt_reference,
    a.amount_cents AS attempt_cents, a.currency AS attempt_currency,
    {RETURNED} AS returned, {CONTESTED} AS contested, (p.gateway_reference IS NOT DISTINCT FROM a.gateway_reference
        AND (p.gateway_reference IS NOT NULL OR a.state = 'paid')) AS counts,
    EXISTS (SELECT FROM attempts o WHERE o.payment_id = p.id AND o.id <> a.id AND o.state = 'paid') AS paid_elsewhere,
    EXISTS (SELECT FROM attempts o
            WHERE o.payment_id = p.id AND o.id <> a.id AND o.state IN ('live', 'replaced')) AS others_open,
    EXISTS (SELECT FROM payments o WHERE o.client_id = p.client_id AND o.gateway = a.gateway
            AND o.gateway_reference IN (a.gateway_reference, %(gateway_reference)s)
            AND o.gateway_reference <> '' AND o.id <> p.id) AS reused,
    p.status = 'review' AND NOT EXISTS (
        SELECT FROM reviews r WHERE r.payment_id = p.id AND r.resolved_at IS NULL AND r.reason <> 'unknown_status')
        AS unclear,
    p.status IN ('refunded', 'disputed') AND COALESCE((
        SELECT s.evidence ->> 'resolution' = 'refunded' FROM transitions s
        WHERE s.payment_id = p.id AND s.cause = 'person' ORDER BY s.sequence DESC LIMIT 1), false) AS given_back,
    ARRAY(SELECT r.reason FROM reviews r WHERE r.payment_id = p.id
          AND (r.attempt_id = a.id OR (r.reason = 'second_payment' AND a.state = 'paid'))) AS reviewed
FROM attempts a JOIN payments p ON p.id = a.payment_id
WHERE a.id = %(attempt_id)s"""


async def absorb(
    context: Context,
    attempt_id: UUID,
    report: Report,
    *,
    next_check_at: datetime | None,
    lease: datetime | None = None,
    actor: str | None = None,
) -> None:
    """Let a proved report of a gateway change the payment, as `lifecycle.next_status` decides.

    Reports that say nothing new change nothing but the attempt's last look. `next_check_at` is when to ask again
    (None: never); `lease` as in `AttemptChange`; `actor` who asked the gateway for what it reports.

    Raises NotFound, also where the tenant was deleted meanwhile, and Unavailable.
    """
    try:
        await _absorb(context, attempt_id, report, next_check_at, lease, actor)
    except ForeignKeyViolation:
        raise NotFound("There is no such attempt any more.") from None


async def _absorb(
    context: Context,
    attempt_id: UUID,
    report: Report,
    next_check_at: datetime | None,
    lease: datetime | None,
    actor: str | None,
) -> None:
    if report.settlement is not None:
        await _keep_items(context, attempt_id, report.settlement)
    judged = None
    for _ in range(_TRIES):
        rows = await context.db.run(
            _STANDING, {"attempt_id": attempt_id, "gateway_reference": report.gateway_reference}
        )
        if not rows:
            raise NotFound("There is no such attempt.")
        items = (rows[0]["returned"], rows[0]["contested"])
        if judged == items:
            return
        if judged is not None:
            # Who kept a refund or dispute after we had looked, and looked before we wrote, saw no reason to move.
            report = replace(report, settlement=report.settlement or Settlement())
        attempt = _attempt_change(context, rows[0], report, next_check_at, lease)
        try:
            moved = await _record(context, rows[0], report, attempt, actor)
        except UniqueViolation:
            # Another payment took the gateway's reference between our look and our write: look again.
            continue
        if moved is False:
            return
        judged = items if moved else judged
    raise Unavailable("The payment is being changed by too many at once; it will be looked at again.")


_CURRENCY = "SELECT currency FROM attempts WHERE id = %(attempt_id)s"


async def _keep_items(context: Context, attempt_id: UUID, settlement: Settlement) -> None:
    rows = await context.db.run(_CURRENCY, {"attempt_id": attempt_id})
    for row in rows:
        unheard = context.clock() - UNHEARD
        await keep(context, attempt_id, Currency(row["currency"]), settlement, unheard)


def _attempt_change(
    context: Context, row: Row, report: Report, next_check_at: datetime | None, lease: datetime | None
) -> AttemptChange:
    at = context.clock()
    state = _STATE_OF.get(report.outcome)
    looked = lease is not None and report.outcome is not Outcome.SETTLED
    if report.outcome is Outcome.PENDING and row["attempt_state"] == "starting":
        state = "live"
    if report.outcome is Outcome.PENDING and row["attempt_state"] == "failed":
        # It was not to be found, or was said to be over, and can be paid after all.
        state = "replaced"
    return AttemptChange(
        row["attempt_id"],
        state=state,
        said=report.said or None,
        gateway_reference=report.gateway_reference,
        poll_url=report.poll_url,
        next_step=Wait() if report.under_way else Redirect(report.page_url) if report.page_url else None,
        # Only who has claimed the attempt has looked: a message can be an old one.
        checked_at=at if looked else None,
        answered_at=at if looked and report.outcome is not Outcome.UNKNOWN else None,
        next_check_at=next_check_at,
        lease=lease,
    )


async def _record(context: Context, row: Row, report: Report, attempt: AttemptChange, actor: str | None) -> bool | None:
    """Write what the report makes of the payment; whether it moved. None: the row moved on and must be read again."""
    verdict = next_status(_standing(row), report)
    if verdict is None:
        if attempt.state == "live" and row["sequence"] == 0 and row["status"] == Status.PENDING:
            # The gateway's answer to our start was lost; its look-up settles that the link exists after all.
            return await _move(context, row, Status.PENDING, LINK_CREATED, report, attempt)
        await context.db.run(
            SET_ATTEMPT_AND_NAME if _is_named_late(row, report) else SET_ATTEMPT, _named_values(row, attempt)
        )
        warn_of_contradiction(row, report)
        return False
    if verdict.review and verdict.status is Status(row["status"]):
        return False if await _keep_evidence(context, row, report, attempt, verdict) else None
    return await _move(context, row, verdict.status, EVENT_OF[verdict.status], report, attempt, verdict, actor)


def _is_named_late(row: Row, report: Report) -> bool:
    """Whether the gateway names money now that it only told of before."""
    unnamed = row["gateway_reference"] is None and row["counts"] and Status(row["status"]) in RECEIVED
    return bool(unnamed and report.gateway_reference and not (row["reused"] or row["paid_elsewhere"]))


def _named_values(row: Row, attempt: AttemptChange) -> dict[str, Any]:
    names = {name: row[name] for name in ("id", "client_id", "sequence")}
    return {**names, **attempt_values(attempt)}


async def _move(
    context: Context,
    row: Row,
    status: Status,
    event: str,
    report: Report,
    attempt: AttemptChange,
    verdict: Verdict | None = None,
    actor: str | None = None,
) -> bool | None:
    review = verdict.review if verdict else None
    change = Change(
        row,
        status,
        cause="tenant" if actor else "gateway",
        actor=actor,
        at=context.clock(),
        event=event,
        late=verdict.late if verdict else False,
        gateway=_gateway_after(row, status),
        # A reference that does not fit stays with the evidence; the payment itself must not claim it. Nor does either
        # row take a second one: the first is what refunds and disputes are known by.
        gateway_reference=(row["attempt_gateway_reference"] or report.gateway_reference)
        if status in RECEIVED
        else None,
        payment_url=report.page_url if event == LINK_CREATED else None,
        refunded_cents=verdict.refunded if verdict else None,
        evidence=evidence_of(row, report),
        resolution=Resolution(status, "The gateway has told since.") if row["unclear"] and not review else None,
        review=review,
        attempt=attempt,
    )
    payment = await write(context, change)
    if payment is None:
        return None
    if row["others_open"] and status not in PAYABLE:
        await _look_at_left(context, payment.client_id, payment.id)
    log.info(
        "payment_moved",
        payment_id=payment.id,
        client_id=payment.client_id,
        from_status=row["status"],
        to_status=status,
        sequence=payment.sequence,
        late=payment.late,
        reason=review,
    )
    return True


def _gateway_after(row: Row, status: Status) -> str | None:
    """The gateway that has the payment from now on; None: as before. After a failed try the customer may choose
    another; and who has the money that counts has it still when more comes by another."""
    if status is Status.FAILED or (status is Status.REVIEW and Status(row["status"]) in RECEIVED):
        return None
    return str(row["attempt_gateway"])


async def _keep_evidence(context: Context, row: Row, report: Report, attempt: AttemptChange, verdict: Verdict) -> bool:
    """Something more that does not fit, of a payment that a person must look at already; False when the payment has
    moved on since it was read."""
    values = {
        "id": row["id"],
        "client_id": row["client_id"],
        "sequence": row["sequence"],
        "reason": verdict.review,
        "evidence": Jsonb(evidence_of(row, report)),
        "at": context.clock(),
        **attempt_values(attempt),
    }
    return bool(await context.db.run(KEEP_EVIDENCE, values))


def _standing(row: Row) -> Standing:
    return Standing(
        status=Status(row["status"]),
        expected=Money(row["attempt_cents"], Currency(row["attempt_currency"])),
        reference=row["attempt_reference"],
        live=row["attempt_state"] in ("starting", "live"),
        linked=row["sequence"] > 0,
        paid_elsewhere=row["paid_elsewhere"],
        reference_reused=row["reused"],
        reviewed=frozenset(ReviewReason(reason) for reason in row["reviewed"]),
        refunded=row["refunded_cents"],
        returned=row["returned"],
        contested=row["contested"],
        unclear=row["unclear"],
        counts=row["counts"],
        given_back=row["given_back"],
    )


_ONE = f"SELECT {PAYMENT_COLUMNS} FROM payments p WHERE p.client_id = %(client_id)s AND p.id = %(id)s"


async def get(context: Context, client_id: UUID, payment_id: UUID) -> Payment:
    """The payment. Raises NotFound, in the same words for one that is absent and one of another tenant."""
    return payment_from(context, await _read(context, client_id, payment_id))


async def _read(context: Context, client_id: UUID, payment_id: UUID) -> Row:
    rows = await context.db.run(_ONE, {"client_id": client_id, "id": payment_id}, tenant=client_id)
    if not rows:
        raise NotFound("This tenant has no payment with this id.")
    return rows[0]


_UNDER_WAY = """
SELECT 1 FROM attempts WHERE client_id = %(client_id)s AND payment_id = %(id)s AND state = 'live'
  AND next_step ->> 'type' = 'wait'"""

# The next look at what is still open at a gateway also ends it there, where the gateway can.
_LOOK_AT_LEFT = """
UPDATE attempts SET next_check_at = %(at)s
WHERE client_id = %(client_id)s AND payment_id = %(id)s AND state IN ('live', 'replaced')"""


async def _look_at_left(context: Context, client_id: UUID, payment_id: UUID, *, tenant: UUID | None = None) -> None:
    values = {"client_id": client_id, "id": payment_id, "at": context.clock()}
    await context.db.run(_LOOK_AT_LEFT, values, tenant=tenant)
    context.checks_due.ring()


async def cancel(
    context: Context, client_id: UUID, payment_id: UUID, *, actor: str, claim: Claim | None = None
) -> Payment:
    """Withdraw a pending link. The gateway may still let a customer pay who is on its page: such money is recorded
    as paid and late. `claim`: that of the call's idempotency key, which leads to the payment from now on.

    Raises NotFound, WrongState for a payment that is not pending, and KeyBusy when somebody else has the key meanwhile.
    """
    if claim:
        await begin(context, client_id, claim, payment_id)
    for _ in range(_TRIES):
        row = await _read(context, client_id, payment_id)
        if await context.db.run(_UNDER_WAY, {"client_id": client_id, "id": payment_id}, tenant=client_id):
            raise WrongState("The customer has paid; a bank is sending the money. It can be refunded once it has come.")
        if not allowed(Status(row["status"]), Status.CANCELLED):
            raise WrongState(f"The payment is {row['status']}; only a pending one can be cancelled.")
        change = Change(row, Status.CANCELLED, "tenant", context.clock(), EVENT_OF[Status.CANCELLED], actor=actor)
        if payment := await write(context, change, tenant=client_id):
            log.info("payment_moved", payment_id=payment.id, client_id=client_id, to_status=Status.CANCELLED)
            # It is cancelled: without the last look, that comes by its schedule.
            with suppress(Unavailable):
                await _look_at_left(context, client_id, payment_id, tenant=client_id)
            return payment
    raise Unavailable("The payment is being changed by too many at once; try again.")


_HISTORY = """
SELECT sequence, from_status, to_status, cause, actor, evidence, at FROM transitions
WHERE client_id = %(client_id)s AND payment_id = %(id)s ORDER BY sequence"""


async def history(context: Context, client_id: UUID, payment_id: UUID) -> list[Row]:
    """The payment's changes, oldest first. Raises NotFound."""
    await _read(context, client_id, payment_id)
    return await context.db.run(_HISTORY, {"client_id": client_id, "id": payment_id}, tenant=client_id)


async def expire_due(context: Context, *, limit: int = 200) -> int:
    """Close the links whose time is over, after a last question to the gateway; how many were closed."""
    at = context.clock()
    values = {"at": at, "grace": EXPIRY_GRACE, "prompt_life": PROMPT_LIFE, "code_life": CODE_LIFE, "limit": limit}
    if await context.db.run(ASK_BEFORE_EXPIRY, values):
        context.checks_due.ring()
    closed = 0
    for row in await context.db.run(EXPIRED, values):
        change = Change(row, Status.EXPIRED, "clock", at, EVENT_OF[Status.EXPIRED])
        if await write(context, change):
            closed += 1
            log.info("payment_moved", payment_id=row["id"], client_id=row["client_id"], to_status=Status.EXPIRED)
    return closed
