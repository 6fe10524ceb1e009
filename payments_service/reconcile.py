"""Asking the gateways what became of the attempts: the proof after a callback, and the way back when none came.

An attempt is due when its `next_check_at` is past. Taking it moves that on by a lease, in the same statement, so that
several workers share the work and a crash costs one lease. How often is asked stands in the gateway's schedule; a
callback, or somebody who looks, makes it due at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from payments_service import accounts
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError, NotConfigured, Unreadable, Untrusted
from payments_service.gateways.base import Opened, Withdraws
from payments_service.lifecycle import PAYABLE, Outcome, RefundState, Report, Settlement
from payments_service.money import Currency, Money
from payments_service.payments import absorb
from payments_service.settlements import REFUNDING

log = structlog.get_logger(__name__)

# Longer than any look-up takes; after a crash the attempt is due again by then.
LEASE = timedelta(seconds=30)
# Late money is looked for this long after the attempt's last sign of life.
WATCH = timedelta(days=31)
# A trace that finds nothing this soon may only be early.
NOT_FOUND_GRACE = timedelta(minutes=2)
# Paid is not the end: it may be disputed or refunded, and that callback can be lost too.
AFTER_PAID = tuple(timedelta(days=days) for days in (1, 3, 7, 14, 31))
# A refund of which the gateway's answer was lost, and one that is on its way.
WHILE_REQUESTED = timedelta(minutes=1)
WHILE_REFUNDING = timedelta(hours=1)
# Nobody's looking makes us ask more often than this.
LOOK_GAP = timedelta(seconds=5)
REPLACED_GAP = timedelta(seconds=30)

_CLAIMED = f"""a.id, a.payment_id, a.client_id, a.gateway, a.reference, a.amount_cents, a.currency, a.state, a.poll_url,
    a.started_at, a.watched_from, a.checks, a.next_check_at,
    {REFUNDING} AS refunding, (SELECT p.status FROM payments p WHERE p.id = a.payment_id) AS payment_status,
    (SELECT p.expires_at FROM payments p WHERE p.id = a.payment_id) AS payment_expires_at"""

_CLAIM = f"""
UPDATE attempts a SET next_check_at = %(lease)s, last_checked_at = %(at)s
WHERE id IN (
    SELECT id FROM attempts WHERE gateway = %(gateway)s AND next_check_at <= %(at)s
    ORDER BY next_check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING {_CLAIMED}"""

_CLAIM_OF_PAYMENT = f"""
UPDATE attempts a SET next_check_at = %(lease)s, last_checked_at = %(at)s
WHERE id IN (
    SELECT id FROM attempts WHERE payment_id = %(payment_id)s AND next_check_at IS NOT NULL
    AND state IN ('starting', 'live', 'replaced') AND (state <> 'starting' OR next_check_at <= %(at)s)
    AND (last_checked_at IS NULL OR last_checked_at <= %(before)s)
    ORDER BY state IN ('starting', 'live') DESC, started_at DESC LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {_CLAIMED}"""

# The attempt that the customer is at is asked about often from now on, those that it took the place of only once more.
_LOOK_SOON = """
UPDATE attempts SET next_check_at = %(at)s,
    watched_from = CASE WHEN state = 'live' THEN %(at)s ELSE watched_from END,
    checks = CASE WHEN state = 'live' THEN 0 ELSE checks END
WHERE payment_id = %(payment_id)s AND state IN ('live', 'replaced')
  AND (last_checked_at IS NULL
       OR last_checked_at <= CASE WHEN state = 'live' THEN %(before)s ELSE %(long_before)s::timestamptz END)
  AND (next_check_at IS NULL OR next_check_at > %(at)s)
RETURNING 1"""


async def claim(context: Context, gateway: str, limit: int) -> list[Row]:
    """Take up to `limit` due attempts of one gateway; nobody else gets them until the lease ends."""
    at = context.clock()
    return await context.db.run(_CLAIM, {"gateway": gateway, "at": at, "lease": at + LEASE, "limit": limit})


async def run_once(context: Context, gateway: str, *, limit: int = 16) -> int:
    """Look up what is due at one gateway, one after another; how many were looked up."""
    due = await claim(context, gateway, limit)
    for attempt in due:
        await check(context, attempt)
    return len(due)


async def check(context: Context, attempt: Row, *, withdraw: bool = False) -> None:
    """Ask the gateway about a claimed attempt and absorb what it says. Never raises for the gateway's faults.

    `withdraw`: another way to pay is to take its place, so that it is ended, where the gateway can, if it is unpaid.
    """
    report, credentials = await _ask(context, attempt)
    at = context.clock()
    if report.outcome is Outcome.NOT_FOUND and at - attempt["started_at"] > NOT_FOUND_GRACE:
        report = Report(Outcome.NEVER_STARTED, report.said)
    if report.outcome is Outcome.PENDING and (withdraw or _is_left(attempt, at)):
        report = await _withdrawn(context, attempt, report, credentials)
    if report.outcome is Outcome.UNKNOWN and attempt["state"] == "paid":
        # What a person gave back by hand counts without the gateway's word.
        by_hand, due = Report(Outcome.SETTLED, "", settlement=Settlement()), attempt["next_check_at"]
        await absorb(context, attempt["id"], by_hand, next_check_at=due, lease=due)
    await absorb(
        context,
        attempt["id"],
        report,
        next_check_at=next_check(context, attempt, report, at),
        lease=attempt["next_check_at"],
    )


def _is_left(attempt: Row, at: datetime) -> bool:
    """Whether nobody should pay by this attempt any more: another took its place, or its link is over."""
    over = attempt["payment_status"] not in PAYABLE or attempt["payment_expires_at"] <= at
    return bool(attempt["state"] == "replaced" or over)


async def _withdrawn(context: Context, attempt: Row, report: Report, credentials: object) -> Report:
    """What the gateway says of the attempt once it was asked to end it, with the credentials that proved the report;
    the report as it was where it cannot."""
    gateway = context.gateways[attempt["gateway"]]
    if not isinstance(gateway, Withdraws):
        return report
    # A trace has just brought the gateway's own name of it.
    opened = replace(_opened(attempt), poll_url=attempt["poll_url"] or report.poll_url)
    try:
        return await gateway.withdraw(credentials, opened)
    except GatewayError as error:
        log.warning("withdrawal_without_answer", gateway=gateway.name, attempt_id=attempt["id"], detail=str(error))
        return report


def _opened(attempt: Row) -> Opened:
    return Opened(
        attempt_id=attempt["id"],
        reference=attempt["reference"],
        amount=Money(attempt["amount_cents"], Currency(attempt["currency"])),
        poll_url=attempt["poll_url"],
        started_at=attempt["started_at"],
    )


async def _ask(context: Context, attempt: Row) -> tuple[Report, object]:
    """What the gateway says, and the credentials that proved it; of no answer UNKNOWN."""
    opened, gateway, client_id = _opened(attempt), attempt["gateway"], attempt["client_id"]
    try:
        credentials = await accounts.credentials(context, client_id, gateway, opened.amount.currency)
        return await context.gateways[gateway].check(credentials, opened), credentials
    except (GatewayError, NotConfigured, Unreadable) as error:
        # The tenant may have changed to another account since: then only the former one's credentials prove this.
        if isinstance(error, Untrusted) and (found := await _ask_as_before(context, gateway, client_id, opened)):
            return found
        # Nothing is concluded from an answer that is missing or odd, but somebody should know.
        log.warning(
            "look_up_without_answer",
            gateway=gateway,
            client_id=client_id,
            payment_id=attempt["payment_id"],
            attempt_id=attempt["id"],
            error=type(error).__name__,
            detail=str(error),
        )
        return Report(Outcome.UNKNOWN, ""), None


async def _ask_as_before(
    context: Context, gateway: str, client_id: UUID, opened: Opened
) -> tuple[Report, object] | None:
    """The report that credentials which were replaced since can still prove, and these."""
    known = await accounts.known_credentials(context, client_id, gateway)
    for _, credentials in [entry for entry in known if entry[0] is opened.amount.currency][1:]:
        with suppress(GatewayError):
            return await context.gateways[gateway].check(credentials, opened), credentials
    return None


def next_check(context: Context, attempt: Row, report: Report, at: datetime) -> datetime | None:
    """When to ask again; None when nothing more can come. A refund that is on its way is never left alone."""
    usual = _usual_check(context, attempt, report.outcome, at)
    if (refunding := _refunding(attempt, report)) is None:
        return usual
    sooner = at + (WHILE_REQUESTED if refunding is RefundState.REQUESTED else WHILE_REFUNDING)
    return min(usual or sooner, sooner)


def _usual_check(context: Context, attempt: Row, outcome: Outcome, at: datetime) -> datetime | None:
    if outcome in (Outcome.FAILED, Outcome.NEVER_STARTED, Outcome.LAPSED, Outcome.REFUNDED):
        return None
    if outcome in (Outcome.PAID, Outcome.DISPUTED):
        moments = (attempt["started_at"] + after for after in AFTER_PAID)
        return next((moment for moment in moments if moment > at), None)
    if at - attempt["watched_from"] > WATCH and attempt["state"] != "starting":
        return None
    delays = context.schedule(attempt["gateway"])
    return at + timedelta(seconds=delays[min(attempt["checks"], len(delays) - 1)])


def _refunding(attempt: Row, report: Report) -> RefundState | None:
    """How far the refund is that is on its way, if there is one: as we knew before, or as the gateway has just said."""
    if attempt["refunding"] is not None:
        return RefundState(attempt["refunding"])
    refunds = report.settlement.refunds if report.settlement else ()
    return next((refund.state for refund in refunds if refund.state is RefundState.PENDING), None)


async def look_soon(context: Context, payment_id: UUID) -> None:
    """Somebody waits for this payment: ask at once, and often again from now on. Bounded by LOOK_GAP."""
    at = context.clock()
    values = {"payment_id": payment_id, "at": at, "before": at - LOOK_GAP, "long_before": at - REPLACED_GAP}
    if await context.db.run(_LOOK_SOON, values):
        context.checks_due.ring()


async def look_now(context: Context, payment_id: UUID, *, gap: timedelta = LOOK_GAP, withdraw: bool = False) -> bool:
    """Ask the gateway about the payment's open attempt here and now; False when it was asked within the `gap` before.

    `withdraw` as in `check`. A look-up that is cancelled is due again when its lease ends.
    """
    at = context.clock()
    values = {"payment_id": payment_id, "at": at, "before": at - gap, "lease": at + LEASE}
    claimed = await context.db.run(_CLAIM_OF_PAYMENT, values)
    for attempt in claimed:
        await check(context, attempt, withdraw=withdraw)
    return bool(claimed)


async def look_within(
    context: Context, payment_id: UUID, patience: float, *, gap: timedelta = LOOK_GAP, withdraw: bool = False
) -> bool:
    """`look_now`, waited for at most `patience` seconds: whether it was asked, and something may have come of it. What
    takes longer goes on by itself."""
    look = asyncio.create_task(look_now(context, payment_id, gap=gap, withdraw=withdraw))
    _looks.add(look)
    look.add_done_callback(_looks.discard)
    look.add_done_callback(_note_failure)
    done, _ = await asyncio.wait({look}, timeout=patience)
    return bool(done) and (look.exception() is not None or look.result())


# The loop itself holds tasks but weakly.
_looks: set[asyncio.Task[bool]] = set()


def _note_failure(look: asyncio.Task[bool]) -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        log.error("look_up_failed", exc_info=error)
