"""The story of a payment after its start: reports are absorbed, the link is withdrawn or expires.

`absorb` is the only way by which a gateway's word changes a payment: callbacks and look-ups both end there. Each
change is written in one statement, guarded by what was read, so that of many copies of one report exactly one counts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import NotFound, Unavailable, WrongState
from payments_service.lifecycle import (
    Outcome,
    Report,
    ReviewReason,
    Standing,
    Status,
    Verdict,
    allowed,
    next_status,
)
from payments_service.money import Currency, Money
from payments_service.outbox import EVENT_OF, LINK_CREATED
from payments_service.records import (
    PAYMENT_COLUMNS,
    SET_ATTEMPT,
    AttemptChange,
    Change,
    Payment,
    attempt_values,
    payment_from,
    write,
)

log = structlog.get_logger(__name__)

# A row that changes under our hands this often is a fault, not a race.
_TRIES = 6
# An expired link whose gateway gives no answer is closed after this; money that comes later is recorded as late.
EXPIRY_GRACE = timedelta(minutes=10)
# How long a prompt on a phone is waited for before it is called unanswered. Networks publish no figure; theirs end
# within two minutes.
PROMPT_LIFE = timedelta(minutes=2)
# No code of a gateway holds the end of a link for longer, whatever its clock says.
CODE_LIFE = timedelta(minutes=30)

_STATE_OF = {
    Outcome.PAID: "paid",
    Outcome.DISPUTED: "paid",
    Outcome.REFUNDED: "paid",
    Outcome.FAILED: "failed",
    Outcome.NEVER_STARTED: "failed",
}
_MONEY_MOVED = (Status.PAID, Status.DISPUTED, Status.REFUNDED)

_STANDING = f"""
SELECT {PAYMENT_COLUMNS}, a.id AS attempt_id, a.gateway AS attempt_gateway, a.state AS attempt_state,
    a.reference AS attempt_reference, a.amount_cents AS attempt_cents, a.currency AS attempt_currency,
    EXISTS (SELECT FROM attempts o WHERE o.payment_id = p.id AND o.id <> a.id AND o.state = 'paid') AS paid_elsewhere,
    EXISTS (SELECT FROM payments o WHERE o.client_id = p.client_id AND o.gateway = a.gateway
            AND o.gateway_reference = %(gateway_reference)s AND o.gateway_reference <> '' AND o.id <> p.id) AS reused,
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
) -> None:
    """Let a proved report of a gateway change the payment, as `lifecycle.next_status` decides.

    Reports that say nothing new change nothing but the attempt's last look. `next_check_at` is when to ask again
    (None: never); `lease` as in `AttemptChange`. Raises NotFound, Unavailable.
    """
    for _ in range(_TRIES):
        rows = await context.db.run(
            _STANDING, {"attempt_id": attempt_id, "gateway_reference": report.gateway_reference}
        )
        if not rows:
            raise NotFound("There is no such attempt.")
        attempt = _attempt_change(context, rows[0], report, next_check_at, lease)
        try:
            if await _record(context, rows[0], report, attempt):
                return
        except UniqueViolation:
            # Another payment took the gateway's reference between our look and our write: look again.
            continue
    raise Unavailable("The payment is being changed by too many at once; it will be looked at again.")


def _attempt_change(
    context: Context, row: Row, report: Report, next_check_at: datetime | None, lease: datetime | None
) -> AttemptChange:
    at = context.clock()
    state = _STATE_OF.get(report.outcome)
    if report.outcome is Outcome.PENDING and row["attempt_state"] == "starting":
        state = "live"
    return AttemptChange(
        row["attempt_id"],
        state=state,
        said=report.said or None,
        gateway_reference=report.gateway_reference,
        poll_url=report.poll_url,
        checked_at=at,
        answered_at=None if report.outcome is Outcome.UNKNOWN else at,
        next_check_at=next_check_at,
        lease=lease,
    )


async def _record(context: Context, row: Row, report: Report, attempt: AttemptChange) -> bool:
    """Write what the report makes of the payment; False when the row moved on and must be read again."""
    verdict = next_status(_standing(row), report)
    if verdict is None:
        if attempt.state == "live" and row["sequence"] == 0 and row["status"] == Status.PENDING:
            # The gateway's answer to our start was lost; its look-up settles that the link exists after all.
            return await _move(context, row, Status.PENDING, LINK_CREATED, report, attempt)
        await context.db.run(SET_ATTEMPT, attempt_values(attempt))
        _warn_of_contradiction(row, report)
        return True
    if verdict.status is Status(row["status"]):
        await _keep_evidence(context, row, report, attempt, verdict)
        return True
    return await _move(context, row, verdict.status, EVENT_OF[verdict.status], report, attempt, verdict)


async def _move(
    context: Context,
    row: Row,
    status: Status,
    event: str,
    report: Report,
    attempt: AttemptChange,
    verdict: Verdict | None = None,
) -> bool:
    review = verdict.review if verdict else None
    change = Change(
        row,
        status,
        cause="gateway",
        at=context.clock(),
        event=event,
        late=verdict.late if verdict else False,
        # After a failed try the customer may choose another gateway.
        gateway=row["attempt_gateway"] if status is not Status.FAILED else None,
        # A reference that does not fit stays with the evidence; the payment itself must not claim it.
        gateway_reference=report.gateway_reference if status in _MONEY_MOVED else None,
        refunded_cents=row["amount_cents"] if status is Status.REFUNDED else None,
        evidence=_evidence(row, report),
        review=review,
        attempt=attempt,
    )
    payment = await write(context, change)
    if payment is None:
        return False
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


_KEEP = f"""
WITH attempt AS ({SET_ATTEMPT})
INSERT INTO reviews (payment_id, client_id, attempt_id, reason, evidence, opened_at)
VALUES (%(id)s, %(client_id)s, %(a_id)s, %(reason)s, %(evidence)s, %(at)s) ON CONFLICT DO NOTHING"""


async def _keep_evidence(context: Context, row: Row, report: Report, attempt: AttemptChange, verdict: Verdict) -> None:
    """Something more that does not fit, of a payment that a person must look at already."""
    values = {
        "id": row["id"],
        "client_id": row["client_id"],
        "reason": verdict.review,
        "evidence": Jsonb(_evidence(row, report)),
        "at": context.clock(),
        **attempt_values(attempt),
    }
    await context.db.run(_KEEP, values)


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
    )


def _evidence(row: Row, report: Report) -> dict[str, Any]:
    """What was reported beside what was asked for: enough for a person to decide, no secret."""
    return {
        "gateway": row["attempt_gateway"],
        "said": report.said,
        "amount_cents": report.amount.minor if report.amount else None,
        "currency": report.amount.currency if report.amount else None,
        "reference": report.reference,
        "gateway_reference": report.gateway_reference,
        "expected_cents": row["attempt_cents"],
        "expected_currency": row["attempt_currency"],
        "expected_reference": row["attempt_reference"],
    }


def _warn_of_contradiction(row: Row, report: Report) -> None:
    """A gateway that takes its word back, or says one that we do not know: nothing is changed, a person is told."""
    if report.outcome is Outcome.UNKNOWN and report.said:
        log.warning("gateway_status_unknown", payment_id=row["id"], gateway=row["attempt_gateway"], said=report.said)
    if report.outcome in (Outcome.DISPUTED, Outcome.REFUNDED) and row["status"] != report.outcome.value:
        # Of money that a person has judged already, say: its state is theirs to change.
        log.warning("gateway_report_unused", payment_id=row["id"], gateway=row["attempt_gateway"], said=report.said)
    if report.outcome is Outcome.FAILED and row["attempt_state"] == "paid":
        log.warning(
            "gateway_contradicts_itself", payment_id=row["id"], gateway=row["attempt_gateway"], said=report.said
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


async def cancel(context: Context, client_id: UUID, payment_id: UUID, *, actor: str) -> Payment:
    """Withdraw a pending link. The gateway may still let a customer pay who is on its page: such money is recorded
    as paid and late. Raises NotFound, and WrongState for a payment that is not pending."""
    for _ in range(_TRIES):
        row = await _read(context, client_id, payment_id)
        if not allowed(Status(row["status"]), Status.CANCELLED):
            raise WrongState(f"The payment is {row['status']}; only a pending one can be cancelled.")
        change = Change(row, Status.CANCELLED, "tenant", context.clock(), EVENT_OF[Status.CANCELLED], actor=actor)
        if payment := await write(context, change, tenant=client_id):
            log.info("payment_moved", payment_id=payment.id, client_id=client_id, to_status=Status.CANCELLED)
            return payment
    raise Unavailable("The payment is being changed by too many at once; try again.")


_HISTORY = """
SELECT sequence, from_status, to_status, cause, actor, evidence, at FROM transitions
WHERE client_id = %(client_id)s AND payment_id = %(id)s ORDER BY sequence"""


async def history(context: Context, client_id: UUID, payment_id: UUID) -> list[Row]:
    """The payment's changes, oldest first. Raises NotFound."""
    await _read(context, client_id, payment_id)
    return await context.db.run(_HISTORY, {"client_id": client_id, "id": payment_id}, tenant=client_id)


# Only links that no attempt can be hiding money of: it was asked about since the end, or no answer came for long.
_EXPIRED = f"""
SELECT {PAYMENT_COLUMNS} FROM payments p
WHERE p.status = 'pending' AND p.expires_at <= %(at)s AND (
    p.expires_at <= %(at)s - %(grace)s OR NOT EXISTS (
        SELECT FROM attempts a WHERE a.payment_id = p.id AND a.next_check_at IS NOT NULL
        AND (a.answered_at IS NULL OR a.answered_at < p.expires_at)))
  -- A customer who has just been asked to pay is not told meanwhile that it is too late.
  AND NOT EXISTS (
    SELECT FROM attempts a WHERE a.payment_id = p.id AND a.state = 'live' AND a.phone IS NOT NULL
    AND (a.started_at > %(at)s - %(prompt_life)s::interval
         OR a.started_at > %(at)s - %(code_life)s::interval
            AND (a.next_step ->> 'expires_at')::timestamptz > %(at)s))
ORDER BY p.expires_at LIMIT %(limit)s"""

# The last question before the end: look at the open attempts of links whose time is just over.
_ASK_BEFORE_EXPIRY = """
UPDATE attempts a SET next_check_at = %(at)s
FROM payments p
WHERE p.id = a.payment_id AND p.status = 'pending' AND p.expires_at <= %(at)s
  AND p.expires_at > %(at)s - %(grace)s::interval AND a.next_check_at > %(at)s + interval '1 minute'
  AND (a.answered_at IS NULL OR a.answered_at < p.expires_at)
RETURNING 1"""


async def expire_due(context: Context, *, limit: int = 200) -> int:
    """Close the links whose time is over, after a last question to the gateway; how many were closed."""
    at = context.clock()
    values = {"at": at, "grace": EXPIRY_GRACE, "prompt_life": PROMPT_LIFE, "code_life": CODE_LIFE, "limit": limit}
    if await context.db.run(_ASK_BEFORE_EXPIRY, values):
        context.checks_due.ring()
    closed = 0
    for row in await context.db.run(_EXPIRED, values):
        change = Change(row, Status.EXPIRED, "clock", at, EVENT_OF[Status.EXPIRED])
        if await write(context, change):
            closed += 1
            log.info("payment_moved", payment_id=row["id"], client_id=row["client_id"], to_status=Status.EXPIRED)
    return closed
