"""Asking the gateways what became of the attempts: the proof after a callback, and the way back when none came.

An attempt is due when its `next_check_at` is past. Taking it moves that on by a lease, in the same statement, so that
several workers share the work and a crash costs one lease. How often is asked stands in the gateway's schedule; a
callback, or somebody who looks, makes it due at once.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import structlog

from payments_service import accounts
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError, NotConfigured, Unreadable, Untrusted
from payments_service.gateways.base import Opened
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money
from payments_service.payments import absorb

log = structlog.get_logger(__name__)

# Longer than any look-up takes; after a crash the attempt is due again by then.
LEASE = timedelta(seconds=30)
# Late money is looked for this long after the attempt's last sign of life.
WATCH = timedelta(days=31)
# A trace that finds nothing this soon may only be early.
NOT_FOUND_GRACE = timedelta(minutes=2)
# Paid is not the end: it may be disputed or refunded, and that callback can be lost too.
AFTER_PAID = tuple(timedelta(days=days) for days in (1, 3, 7, 14, 31))
# Nobody's looking makes us ask more often than this.
LOOK_GAP = timedelta(seconds=5)
REPLACED_GAP = timedelta(seconds=30)

_CLAIMED = """id, payment_id, client_id, gateway, reference, amount_cents, currency, state, poll_url, started_at,
    watched_from, checks, next_check_at"""

_CLAIM = f"""
UPDATE attempts SET next_check_at = %(lease)s, last_checked_at = %(at)s
WHERE id IN (
    SELECT id FROM attempts WHERE gateway = %(gateway)s AND next_check_at <= %(at)s
    ORDER BY next_check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING {_CLAIMED}"""

_CLAIM_OF_PAYMENT = f"""
UPDATE attempts SET next_check_at = %(lease)s, last_checked_at = %(at)s
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


async def check(context: Context, attempt: Row) -> None:
    """Ask the gateway about a claimed attempt and absorb what it says. Never raises for the gateway's faults."""
    report = await _ask(context, attempt)
    at = context.clock()
    if report.outcome is Outcome.NOT_FOUND and at - attempt["started_at"] > NOT_FOUND_GRACE:
        report = Report(Outcome.NEVER_STARTED, report.said)
    await absorb(
        context,
        attempt["id"],
        report,
        next_check_at=next_check(context, attempt, report.outcome, at),
        lease=attempt["next_check_at"],
    )


async def _ask(context: Context, attempt: Row) -> Report:
    currency = Currency(attempt["currency"])
    opened = Opened(
        attempt_id=attempt["id"],
        reference=attempt["reference"],
        amount=Money(attempt["amount_cents"], currency),
        poll_url=attempt["poll_url"],
        started_at=attempt["started_at"],
    )
    gateway, client_id = attempt["gateway"], attempt["client_id"]
    try:
        credentials = await accounts.credentials(context, client_id, gateway, currency)
        return await context.gateways[gateway].check(credentials, opened)
    except (GatewayError, NotConfigured, Unreadable) as error:
        # The tenant may have changed to another account since: then only the former one's credentials prove this.
        if isinstance(error, Untrusted) and (report := await _ask_as_before(context, gateway, client_id, opened)):
            return report
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
        return Report(Outcome.UNKNOWN, "")


async def _ask_as_before(context: Context, gateway: str, client_id: UUID, opened: Opened) -> Report | None:
    """The report that credentials which were replaced since can still prove."""
    known = await accounts.known_credentials(context, client_id, gateway)
    for _, credentials in [entry for entry in known if entry[0] is opened.amount.currency][1:]:
        with suppress(GatewayError):
            return await context.gateways[gateway].check(credentials, opened)
    return None


def next_check(context: Context, attempt: Row, outcome: Outcome, at: datetime) -> datetime | None:
    """When to ask again; None when nothing more can come."""
    if outcome in (Outcome.FAILED, Outcome.NEVER_STARTED, Outcome.REFUNDED):
        return None
    if outcome in (Outcome.PAID, Outcome.DISPUTED):
        moments = (attempt["started_at"] + after for after in AFTER_PAID)
        return next((moment for moment in moments if moment > at), None)
    if at - attempt["watched_from"] > WATCH and attempt["state"] != "starting":
        return None
    delays = context.schedule(attempt["gateway"])
    return at + timedelta(seconds=delays[min(attempt["checks"], len(delays) - 1)])


async def look_soon(context: Context, payment_id: UUID) -> None:
    """Somebody waits for this payment: ask at once, and often again from now on. Bounded by LOOK_GAP."""
    at = context.clock()
    values = {"payment_id": payment_id, "at": at, "before": at - LOOK_GAP, "long_before": at - REPLACED_GAP}
    if await context.db.run(_LOOK_SOON, values):
        context.checks_due.ring()


async def look_now(context: Context, payment_id: UUID, *, gap: timedelta = LOOK_GAP) -> bool:
    """Ask the gateway about the payment's open attempt here and now; False when it was asked within the `gap` before.

    A look-up that is cancelled is due again when its lease ends.
    """
    at = context.clock()
    values = {"payment_id": payment_id, "at": at, "before": at - gap, "lease": at + LEASE}
    claimed = await context.db.run(_CLAIM_OF_PAYMENT, values)
    for attempt in claimed:
        await check(context, attempt)
    return bool(claimed)


async def look_within(context: Context, payment_id: UUID, patience: float, *, gap: timedelta = LOOK_GAP) -> bool:
    """`look_now`, waited for at most `patience` seconds: whether it was asked, and something may have come of it. What
    takes longer goes on by itself."""
    look = asyncio.create_task(look_now(context, payment_id, gap=gap))
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
