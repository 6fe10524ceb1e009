"""What gateways report. A callback that verifies makes its attempt due for a look-up now; it never moves money by
itself. Whatever is wrong with one is answered as that gateway needs, changes nothing, and leaves one log line."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog
from psycopg.errors import ForeignKeyViolation
from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from payments_service.context import Context
from payments_service.errors import PaymentsError, TooLarge, Unavailable, Untrusted
from payments_service.gateways.base import CallsBack, Message
from payments_service.gateways.registry import Gateways
from payments_service.web import read_body

log = structlog.get_logger(__name__)

MAX_BODY = 64 * 1024
PATIENCE = 10.0

# The message is kept once, however often it comes. The attempt is looked up now, unless this is nothing new of one
# that is settled: a captured message can be replayed for ever.
_RECEIVE = """
WITH known AS (
    SELECT id FROM attempts
    WHERE client_id = %(client_id)s AND gateway = %(gateway)s AND {named}
      AND (%(attempt_id)s::uuid IS NULL OR id = %(attempt_id)s)
), hinted AS (
    UPDATE attempts a SET next_check_at = %(at)s, watched_from = %(at)s, checks = 0
    FROM known WHERE a.id = known.id AND (a.state NOT IN ('paid', 'failed') OR {news})
    RETURNING a.id
), kept AS (
    INSERT INTO callbacks (client_id, gateway, attempt_id, digest, said, fields, received_at)
    SELECT %(client_id)s, %(gateway)s, id, %(digest)s, %(said)s, %(fields)s, %(at)s FROM known
    ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM known) AS known, EXISTS (SELECT FROM hinted) AS hinted"""
# Each by its own index. What is named by its reference is signed with the key of one currency, and says something.
_BY_REFERENCE = _RECEIVE.format(
    named="reference = %(reference)s AND currency = %(currency)s", news="a.said IS DISTINCT FROM %(said)s::text"
)
# What names an id alone is not: it may be said of a settled attempt as often as somebody likes.
_BY_ID = _RECEIVE.format(
    named="id = %(attempt_id)s", news="a.last_checked_at < %(at)s::timestamptz - interval '1 minute'"
)


def hint(gateway: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a gateway whose callbacks are hints: 200 on every path, or it is sent again and again."""

    async def callback(request: Request) -> Response:
        metrics = request.app.state.context.metrics
        try:
            # A database that hangs must not keep the gateway waiting: the schedule asks later all the same.
            async with asyncio.timeout(PATIENCE):
                await _receive(request, gateway)
            metrics.callback(gateway, "taken")
        except TooLarge:
            metrics.callback(gateway, "refused")
            raise
        except PaymentsError as error:
            metrics.callback(gateway, "failed" if isinstance(error, Unavailable) else "refused")
            log.warning("callback_refused", gateway=gateway, reason=type(error).__name__.lower(), detail=error.detail)
        except Exception as error:
            metrics.callback(gateway, "failed")
            log.error("callback_failed", gateway=gateway, exc_info=error)
        return PlainTextResponse("OK")

    return callback


async def _receive(request: Request, gateway: str) -> None:
    context: Context = request.app.state.context
    body = await read_body(request, MAX_BODY)
    client_id = uuid_of(request.path_params["client_id"], "the tenant in the URL")
    attempt = request.path_params.get("attempt")
    structlog.contextvars.bind_contextvars(client_id=client_id)
    message = Message(body, request.headers, context.clock(), attempt or "")
    callback, currency = await request.app.state.keyrings[gateway].verify(client_id, message)
    if callback is None:
        raise Untrusted("the message is genuine, but about nothing of ours")
    values = {
        "client_id": client_id,
        "gateway": gateway,
        "attempt_id": callback.attempt_id,
        "reference": callback.reference,
        "currency": currency,
        "said": callback.said[:100],
        "digest": hashlib.sha256(body).digest(),
        "fields": Jsonb(dict(callback.fields)),
        "at": context.clock(),
    }
    try:
        found = await context.db.run(_BY_REFERENCE if callback.reference else _BY_ID, values)
    except ForeignKeyViolation:
        raise Untrusted("the message is genuine, but the tenant was deleted at this moment") from None
    if not found[0]["known"]:
        raise Untrusted("the message is genuine, but this tenant has no such attempt at this URL")
    if found[0]["hinted"]:
        context.checks_due.ring()


def uuid_of(text: str, what: str) -> UUID:
    """An id in a callback's address. Raises Untrusted."""
    try:
        return UUID(text)
    except ValueError:
        raise Untrusted(f"{what} is not an id") from None


def routes(gateways: Gateways) -> list[Route]:
    """Where those gateways report whose callbacks are hints. Those that prove what they say are in webhooks.py."""
    hints = [name for name, each in gateways.items() if isinstance(each, CallsBack) and not each.callback_is_proof]
    return [
        Route(f"/callbacks/{name}/{{client_id}}{rest}", hint(name), methods=["POST"])
        for name in hints
        for rest in ("", "/{attempt}")
    ]
