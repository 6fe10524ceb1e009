"""Asking the gateways what became of the attempts: the proof after a callback, and the way back when none came.

An attempt is due when its `next_check_at` is past. Taking it moves that on by a lease, in the same statement, so that
several workers share the work and a crash costs one lease. How often is asked stands in the gateway's schedule; a
callback, or somebody who looks, makes it due at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog

from payments_service import accounts, refund_traces
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError, NotConfigured, NotFound, PaymentsError, Unreadable, Untrusted
from payments_service.gateways.base import Opened, Withdraws
from payments_service.lifecycle import PAYABLE, Outcome, RefundState, Report, Settlement
from payments_service.money import Currency, Money
from payments_service.payments import absorb
from payments_service.settlements import REFUNDING, REFUNDING_SINCE

log = structlog.get_logger(__name__)

# Longer than any look-up takes; after a crash the attempt is due again by then.
LEASE = timedelta(seconds=30)
# Late money is looked for this long after the attempt's last sign of life.
WATCH = timedelta(days=31)
# Paid is not the end: it may be disputed or refunded, and that callback can be lost too.
AFTER_PAID = tuple(timedelta(days=days) for days in (1, 3, 7, 14, 31))
# The gateway's clock may be another than ours.
STEP_GRACE = timedelta(minutes=2)
# A refund of which the gateway's answer was lost only lately, and one that is on its way.
WHILE_REQUESTED = timedelta(minutes=1)
LATELY = timedelta(minutes=15)
WHILE_REFUNDING = timedelta(hours=1)
# A start may have read the credentials that were replaced while it was written down.
CHANGING = timedelta(minutes=1)
# Nobody's looking makes us ask more often than this.
LOOK_GAP = timedelta(seconds=5)
REPLACED_GAP = timedelta(seconds=30)

# What an account says of another account's attempts, or of one that never came.
_NOT_OURS = frozenset({Outcome.NOT_FOUND, Outcome.UNKNOWN})

_CLAIMED = f"""a.id, a.payment_id, a.client_id, a.gateway, a.reference, a.amount_cents, a.currency, a.state, a.poll_url,
    a.phone, a.gateway_reference, a.started_at, a.watched_from, a.checks, a.next_check_at,
    (a.next_step ->> 'expires_at')::timestamptz AS step_expires_at,
    {REFUNDING} AS refunding, {REFUNDING_SINCE} AS refunding_since,
    (SELECT p.status FROM payments p WHERE p.id = a.payment_id) AS payment_status,
    (SELECT p.expires_at FROM payments p WHERE p.id = a.payment_id) AS payment_expires_at"""

# By an array, as delivery does: each of the few is looked up, whatever PostgreSQL believes of their number.
_CLAIM = f"""
UPDATE attempts a SET next_check_at = %(lease)s, last_checked_at = %(at)s
WHERE id = ANY(ARRAY(
    SELECT id FROM attempts WHERE gateway = %(gateway)s AND next_check_at <= %(at)s
    ORDER BY next_check_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
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
    report = _last_word(context, attempt, report, at)
    if report.outcome is Outcome.PENDING and (withdraw or _is_left(attempt, at)):
        report = await _withdrawn(context, attempt, report, credentials)
    traced = await refund_traces.trace(context, attempt, credentials)
    due = next_check(context, attempt, report, at)
    # The tenant may have been deleted since the attempt was claimed, when no money could come from it any more.
    with suppress(NotFound):
        if traced or (report.outcome is Outcome.UNKNOWN and attempt["state"] == "paid"):
            # What a person gave back by hand counts without the gateway's word.
            news, lease = Report(Outcome.SETTLED, "", settlement=Settlement(traced)), attempt["next_check_at"]
            await absorb(context, attempt["id"], news, next_check_at=lease, lease=lease)
        await absorb(context, attempt["id"], report, next_check_at=due, lease=attempt["next_check_at"])


def _last_word(context: Context, attempt: Row, report: Report, at: datetime) -> Report:
    """What the report comes to by its age: an attempt that nobody knows of by now never began; news under a name that
    may be another's by now, or a word that we do not know, are for a person once nobody can pay any more."""
    gateway, age = context.gateways[attempt["gateway"]], at - attempt["started_at"]
    if age <= gateway.settles:
        return report
    if report.outcome is Outcome.NOT_FOUND:
        return Report(Outcome.NEVER_STARTED, report.said)
    if gateway.recognises and age > gateway.recognises and attempt["state"] != "paid":
        report = replace(report, outcome=Outcome.UNKNOWN)
    ends = [attempt["payment_expires_at"]]
    if attempt["step_expires_at"]:
        ends.append(attempt["step_expires_at"] + STEP_GRACE)
    if report.outcome is Outcome.UNKNOWN and report.said and max(ends) <= at:
        return replace(report, outcome=Outcome.UNCLEAR)
    return report


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
        payer_phone=attempt["phone"],
    )


async def _ask(context: Context, attempt: Row) -> tuple[Report, object]:
    """What the gateway says, and the credentials that proved it; of no answer UNKNOWN."""
    opened, gateway = _opened(attempt), attempt["gateway"]
    currency = opened.amount.currency
    try:
        credentials = await accounts.credentials(context, attempt["client_id"], gateway, currency, preferences=False)
        report = await context.gateways[gateway].check(credentials, opened)
    except (GatewayError, NotConfigured, Unreadable) as error:
        # The tenant may have changed to another account since: then only the former one's credentials prove this.
        changed = isinstance(error, Untrusted | NotConfigured | Unreadable)
        found, _ = await _ask_as_before(context, attempt, opened) if changed else (None, None)
        return found or _without_answer(attempt, error)
    if report.outcome not in _NOT_OURS:
        return report, credentials
    found, silent = await _ask_as_before(context, attempt, opened)
    if silent and report.outcome is Outcome.NOT_FOUND:
        # The account that does not answer may be the one that knows of it.
        return found or _without_answer(attempt, silent)
    return found or (report, credentials)


def _without_answer(attempt: Row, error: PaymentsError) -> tuple[Report, None]:
    """Nothing is concluded from an answer that is missing or odd, but somebody should know."""
    log.warning(
        "look_up_without_answer",
        gateway=attempt["gateway"],
        client_id=attempt["client_id"],
        payment_id=attempt["payment_id"],
        attempt_id=attempt["id"],
        error=type(error).__name__,
        detail=str(error),
    )
    return Report(Outcome.UNKNOWN, ""), None


async def _ask_as_before(
    context: Context, attempt: Row, opened: Opened
) -> tuple[tuple[Report, object] | None, GatewayError | None]:
    """The report that credentials which were replaced since the start can still prove, and these; besides, the error of
    those that gave no answer."""
    silent = None
    since = opened.started_at - CHANGING
    for credentials in await accounts.former_credentials(
        context, attempt["client_id"], attempt["gateway"], opened.amount.currency, since=since
    ):
        try:
            report = await context.gateways[attempt["gateway"]].check(credentials, opened)
        except GatewayError as error:
            silent = error
            continue
        if report.outcome not in _NOT_OURS:
            return (report, credentials), None
    return None, silent


def next_check(context: Context, attempt: Row, report: Report, at: datetime) -> datetime | None:
    """When to ask again; None when nothing more can come. A refund that is on its way is never left alone."""
    usual = _usual_check(context, attempt, report.outcome, at)
    if (refunding := _refunding(attempt, report)) is None:
        return usual
    lately = attempt["refunding_since"] is not None and attempt["refunding_since"] > at - LATELY
    sooner = at + (WHILE_REQUESTED if refunding is RefundState.REQUESTED and lately else WHILE_REFUNDING)
    return min(usual or sooner, sooner)


def _usual_check(context: Context, attempt: Row, outcome: Outcome, at: datetime) -> datetime | None:
    if outcome is Outcome.REFUNDED:
        return None
    if outcome in (Outcome.PAID, Outcome.DISPUTED):
        return _next_age(attempt, AFTER_PAID, at)
    if outcome in (Outcome.FAILED, Outcome.NEVER_STARTED, Outcome.LAPSED):
        return _next_age(attempt, context.gateways[attempt["gateway"]].looks_after_end, at)
    if at - attempt["watched_from"] > WATCH and attempt["state"] != "starting":
        return None
    delays = context.schedule(attempt["gateway"])
    return at + timedelta(seconds=delays[min(attempt["checks"], len(delays) - 1)])


def _next_age(attempt: Row, ages: Sequence[timedelta], at: datetime) -> datetime | None:
    return next((moment for moment in (attempt["started_at"] + age for age in ages) if moment > at), None)


def _refunding(attempt: Row, report: Report) -> RefundState | None:
    """How far the refund is that is on its way, if there is one: as we knew before, or as the gateway has just said."""
    if attempt["refunding"] is not None:
        return RefundState(attempt["refunding"])
    refunds = report.settlement.refunds if report.settlement else ()
    return next((refund.state for refund in refunds if refund.state is RefundState.PENDING), None)


async def look_soon(context: Context, payment_id: UUID, *, gap: timedelta = LOOK_GAP) -> None:
    """Somebody waits for this payment: ask at once, unless it was asked within the `gap` before, and often again from
    now on."""
    at = context.clock()
    values = {"payment_id": payment_id, "at": at, "before": at - gap, "long_before": at - REPLACED_GAP}
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


_CLAIM_LEFT = f"""
UPDATE attempts a SET next_check_at = %(lease)s, last_checked_at = %(at)s
WHERE id IN (
    SELECT id FROM attempts WHERE payment_id = %(payment_id)s AND next_check_at IS NOT NULL AND state = 'replaced'
    AND started_at > %(since)s AND (last_checked_at IS NULL OR last_checked_at <= %(before)s)
    ORDER BY started_at DESC LIMIT 4 FOR UPDATE SKIP LOCKED)
RETURNING {_CLAIMED}"""


async def look_at_left(context: Context, payment_id: UUID, patience: float, *, gap: timedelta, since: datetime) -> None:
    """Ask about the payment's tries that others took the place of and that began after `since`: one of them may have
    brought the money meanwhile. All at once, waited for at most `patience` seconds."""
    at = context.clock()
    values = {"payment_id": payment_id, "at": at, "before": at - gap, "lease": at + LEASE, "since": since}
    if claimed := await context.db.run(_CLAIM_LEFT, values):
        looks = {asyncio.create_task(check(context, attempt)) for attempt in claimed}
        for look in looks:
            _keep(look)
        await asyncio.wait(looks, timeout=patience)


async def look_within(
    context: Context, payment_id: UUID, patience: float, *, gap: timedelta = LOOK_GAP, withdraw: bool = False
) -> bool:
    """`look_now`, waited for at most `patience` seconds: whether it was asked, and something may have come of it. What
    takes longer goes on by itself."""
    look = asyncio.create_task(look_now(context, payment_id, gap=gap, withdraw=withdraw))
    _keep(look)
    done, _ = await asyncio.wait({look}, timeout=patience)
    return bool(done) and (look.exception() is not None or look.result())


# The loop itself holds tasks but weakly.
_looks: set[asyncio.Task[Any]] = set()


def _keep(look: asyncio.Task[Any]) -> None:
    _looks.add(look)
    look.add_done_callback(_looks.discard)
    look.add_done_callback(_note_failure)


def _note_failure(look: asyncio.Task[Any]) -> None:
    if not look.cancelled() and (error := look.exception()) is not None:
        log.error("look_up_failed", exc_info=error)
