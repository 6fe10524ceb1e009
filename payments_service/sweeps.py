"""Asking the gateways, now and then, for the messages that they could not deliver.

Look-ups find what became of an attempt while it is watched. This finds the rest: what happens to money long after, and
whatever a callback address that was wrong or away has missed. A tenant's turn is claimed by moving it on, so that
several workers share the work; what was swept is remembered only when all of it was absorbed.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog

from payments_service import accounts
from payments_service.accounts import COLUMNS
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError, NotConfigured, Unavailable, Unreadable
from payments_service.gateways.base import Callback, Sweeps, TooMuch
from payments_service.proofs import take

log = structlog.get_logger(__name__)

EVERY = timedelta(minutes=15)
# So much at once; who is further behind comes again at once.
SPAN = timedelta(hours=6)
# The gateway's clock may be another than ours.
OVERLAP = timedelta(minutes=5)
SHORTEST = timedelta(minutes=1)
# Gateways forget their messages (Stripe after 30 days).
REMEMBERED = timedelta(days=29)

_CLAIM = """
UPDATE sweeps SET next_at = %(later)s
WHERE id IN (SELECT id FROM sweeps WHERE next_at <= %(at)s ORDER BY next_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
RETURNING id, client_id, gateway, swept_to"""

_DONE = "UPDATE sweeps SET swept_to = %(until)s, next_at = %(next_at)s WHERE id = %(id)s"


async def enlist(context: Context) -> None:
    """Give every tenant a turn who has credentials of a gateway that keeps its messages."""
    for name, gateway in context.gateways.items():
        if isinstance(gateway, Sweeps):
            await context.db.run(
                f"""
                INSERT INTO sweeps (client_id, gateway, swept_to, next_at)
                SELECT s.client_id, %(gateway)s, %(at)s, %(at)s FROM payment_settings s
                WHERE s.{COLUMNS[gateway.swept_with]} IS NOT NULL
                  AND NOT EXISTS (SELECT FROM sweeps w WHERE w.client_id = s.client_id AND w.gateway = %(gateway)s)
                ON CONFLICT DO NOTHING""",
                {"gateway": name, "at": context.clock()},
            )


async def claim(context: Context, limit: int) -> list[Row]:
    """Take up to `limit` tenants whose turn it is."""
    at = context.clock()
    return await context.db.run(_CLAIM, {"at": at, "later": at + EVERY, "limit": limit})


async def sweep(context: Context, turn: Row) -> int:
    """Absorb what the tenant's gateway could not deliver; how many messages were ours. Never raises for the gateway's
    faults: the same time is asked about again at the next turn."""
    client_id, name = turn["client_id"], turn["gateway"]
    gateway = context.gateways.get(name)
    if not isinstance(gateway, Sweeps):
        return 0
    start = max(turn["swept_to"], context.clock() - REMEMBERED)
    try:
        (currency,) = gateway.currencies
        credentials = await accounts.credentials(context, client_id, name, currency)
        missed, until = await _missed(context, gateway, credentials, client_id, start)
    except NotConfigured:
        # Where the key was cleared it may come back, and what was swept is known then.
        return 0
    except (GatewayError, Unreadable) as error:
        log.warning("sweep_without_answer", gateway=name, client_id=client_id, detail=str(error))
        return 0
    ours = sum([await _taken(context, client_id, name, callback) for callback in missed])
    at = context.clock()
    # Who is still behind has the next turn.
    next_at = at if at - until > EVERY else at + EVERY
    await context.db.run(_DONE, {"id": turn["id"], "until": until, "next_at": next_at})
    if ours:
        log.info("sweep_found", gateway=name, client_id=client_id, count=ours)
    return ours


async def _missed(
    context: Context, gateway: Sweeps, credentials: object, client_id: UUID, start: datetime
) -> tuple[list[Callback], datetime]:
    """The messages from `start` on, and until when they are all: less of the time where there are too many, but always
    some of it."""
    since, until = start - OVERLAP, min(start + SPAN, context.clock())
    url = context.callback_url(gateway.name, client_id)
    while True:
        try:
            return await gateway.missed(credentials, url, since, until), until
        except TooMuch:
            if until - start > SHORTEST:
                until = start + (until - start) / 2
            elif since < start:
                since = start
            else:
                # Look-ups find what of it matters; what comes after it must not wait for ever.
                log.error("sweep_skipped", gateway=gateway.name, client_id=client_id)
                return [], until


async def _taken(context: Context, client_id: UUID, gateway: str, callback: Callback) -> bool:
    """Whether the message was ours. One that fails for its own reason must not hold up those after it."""
    try:
        return await take(context, client_id, gateway, callback)
    except Unavailable:
        raise
    except Exception as error:
        log.error("sweep_failed_for_one", gateway=gateway, client_id=client_id, exc_info=error)
        return False
