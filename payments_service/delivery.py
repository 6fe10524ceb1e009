"""Telling the backend: due events are signed after Standard Webhooks 1.0 and posted, at least once, until 2xx.

Every try sends the same id and the same bytes. A failed try is repeated by the schedule; after the last the event is
listed as failed and can be sent again by hand.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import structlog

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError
from payments_service.gateways.transport import Reply, Transport
from payments_service.log import scrub

log = structlog.get_logger(__name__)

TRY_SECONDS = 15.0
LEASE = timedelta(seconds=30)
JITTER = 0.1
# A backend that asks for more patience than this is asked again all the same.
MOST_PATIENCE = timedelta(hours=24)
_ANSWER_KEPT = 500

# By an array, the few that are due are looked up one by one whatever PostgreSQL believes of their number: with `IN` and
# a plan made without it, every event that there is would be read.
_CLAIM = """
UPDATE events SET next_try_at = %(lease)s
WHERE id = ANY(ARRAY(
    SELECT id FROM events WHERE next_try_at <= %(at)s
    ORDER BY next_try_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
RETURNING id, client_id, payment_id, type, sequence, body, created_at, tries, replays, next_try_at"""

_FINISH = """
WITH tried AS (
    INSERT INTO event_tries (event_id, client_id, at, milliseconds, http_status, error, answer)
    VALUES (%(id)s, %(client_id)s, %(at)s, %(milliseconds)s, %(http_status)s, %(error)s, %(answer)s)
)
UPDATE events SET state = %(state)s, tries = tries + 1, next_try_at = %(next_try_at)s,
    delivered_at = CASE WHEN %(state)s::text = 'delivered' THEN %(at)s::timestamptz END
WHERE id = %(id)s AND state = 'due' AND next_try_at = %(lease)s"""


@dataclass(frozen=True, slots=True, repr=False)
class Courier:
    """Where events go and how they are signed. Several secrets while one is being replaced: each signs."""

    transport: Transport
    url: str
    secrets: tuple[str, ...]
    schedule: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Try:
    """How one try ended."""

    milliseconds: int
    http_status: int | None = None
    error: str | None = None
    answer: str | None = None
    retry_after: timedelta | None = None

    @property
    def delivered(self) -> bool:
        return self.http_status is not None and 200 <= self.http_status < 300


def sign(event_id: str, timestamp: int, body: bytes, secrets: tuple[str, ...]) -> str:
    """The `webhook-signature` header: one `v1,<base64 HMAC-SHA256 of "id.timestamp.body">` per `whsec_…` secret."""
    message = f"{event_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1,"
        + base64.b64encode(
            hmac.digest(base64.b64decode(secret.removeprefix("whsec_")), message, hashlib.sha256)
        ).decode()
        for secret in secrets
    )


async def claim(context: Context, limit: int) -> list[Row]:
    """Take up to `limit` due events; nobody else gets them until the lease ends."""
    at = context.clock()
    rows = await context.db.run(_CLAIM, {"at": at, "lease": at + LEASE, "limit": limit})
    # The statement gives them in any order; a backend likes to hear of a link before it hears of its money.
    return sorted(rows, key=lambda row: (row["created_at"], row["sequence"]))


async def run_once(context: Context, courier: Courier, *, limit: int = 16) -> int:
    """Deliver what is due, one after another; how many were tried."""
    due = await claim(context, limit)
    for event in due:
        await deliver(context, courier, event)
    return len(due)


async def deliver(context: Context, courier: Courier, event: Row) -> None:
    """Try a claimed event once and record how it went."""
    began = context.clock()
    if event["tries"] == 0 and not event["replays"]:
        context.metrics.first_tried((began - event["created_at"]).total_seconds())
    tried = await _post(courier, event, began)
    at = context.clock()
    state, next_try_at = _what_next(courier, event["tries"], tried, at)
    values = {
        "id": event["id"],
        "client_id": event["client_id"],
        "lease": event["next_try_at"],
        "at": at,
        "milliseconds": tried.milliseconds,
        "http_status": tried.http_status,
        "error": tried.error,
        "answer": tried.answer,
        "state": state,
        "next_try_at": next_try_at,
    }
    await context.db.run(_FINISH, values)
    context.metrics.tried(state)
    say = log.info if tried.delivered else log.warning if state == "due" else log.error
    say(
        "event_tried",
        event_id=event["id"],
        type=event["type"],
        payment_id=event["payment_id"],
        client_id=event["client_id"],
        sequence=event["sequence"],
        outcome=state,
        http_status=tried.http_status,
        error=tried.error,
        tries=event["tries"] + 1,
        next_try_at=next_try_at,
    )


async def _post(courier: Courier, event: Row, at: datetime) -> Try:
    body = event["body"].encode()
    # A replay has a name of its own: who remembers what came must not take it for one more try.
    event_id = f"{event['id']}.{event['replays']}" if event["replays"] else str(event["id"])
    timestamp = int(at.timestamp())
    headers = {
        "Content-Type": "application/json",
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(event_id, timestamp, body, courier.secrets),
    }
    started = time.perf_counter()
    try:
        reply = await courier.transport.post("backend.event", courier.url, body, headers=headers, deadline=TRY_SECONDS)
    except GatewayError as error:
        return Try(_since(started), error=error.detail)
    return Try(
        _since(started),
        http_status=reply.status,
        answer=_first_words(reply),
        retry_after=retry_after(reply.retry_after, at),
    )


def _since(started: float) -> int:
    return round((time.perf_counter() - started) * 1000)


def _first_words(reply: Reply) -> str | None:
    text = reply.body[:_ANSWER_KEPT].decode("utf-8", "replace").replace("\x00", "")
    return scrub(text) or None


def retry_after(value: str | None, at: datetime) -> timedelta | None:
    """The wait that a `Retry-After` header asks for, in seconds or as a date; None when there is none to be read."""
    if not value:
        return None
    if value.strip().isdecimal():
        return min(timedelta(seconds=int(value[:9])), MOST_PATIENCE)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return min(max(until - at, timedelta()), MOST_PATIENCE)


def _what_next(courier: Courier, tries_before: int, tried: Try, at: datetime) -> tuple[str, datetime | None]:
    """The event's state after this try, and when the next one is due."""
    if tried.delivered:
        return "delivered", None
    # 410 says that nobody wants this any more.
    if tried.http_status == 410 or tries_before >= len(courier.schedule):
        return "failed", None
    delay = timedelta(seconds=courier.schedule[tries_before] * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311 (spreads load)
    return "due", at + max(delay, tried.retry_after or timedelta())
