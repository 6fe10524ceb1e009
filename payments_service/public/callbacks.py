"""What gateways report. A callback that verifies makes its attempt due for a look-up now; it never moves money by
itself. Whatever is wrong with one is answered as that gateway needs, changes nothing, and leaves one log line."""

from __future__ import annotations

import asyncio
import hashlib
from uuid import UUID

import structlog
from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from payments_service.context import Context
from payments_service.errors import PaymentsError, TooLarge, Untrusted
from payments_service.gateways.base import Message
from payments_service.web import read_body

log = structlog.get_logger(__name__)

MAX_BODY = 64 * 1024
PATIENCE = 10.0

# The message is kept once, however often it comes. The attempt is looked up now, unless this is nothing new of one
# that is settled: a captured message can be replayed for ever.
_RECEIVE = """
WITH known AS (
    SELECT id FROM attempts
    WHERE client_id = %(client_id)s AND gateway = %(gateway)s AND reference = %(reference)s
      AND currency = %(currency)s AND (%(attempt_id)s::uuid IS NULL OR id = %(attempt_id)s)
), hinted AS (
    UPDATE attempts a SET next_check_at = %(at)s, watched_from = %(at)s, checks = 0
    FROM known WHERE a.id = known.id AND (a.state NOT IN ('paid', 'failed') OR a.said IS DISTINCT FROM %(said)s::text)
    RETURNING a.id
), kept AS (
    INSERT INTO callbacks (client_id, gateway, attempt_id, digest, said, fields, received_at)
    SELECT %(client_id)s, %(gateway)s, id, %(digest)s, %(said)s, %(fields)s, %(at)s FROM known
    ON CONFLICT DO NOTHING
)
SELECT EXISTS (SELECT FROM known) AS known, EXISTS (SELECT FROM hinted) AS hinted"""


async def paynow_callback(request: Request) -> Response:
    """A status update of Paynow: 200 on every path, or Paynow sends it again up to ten times."""
    try:
        # A database that hangs must not keep Paynow waiting: the schedule asks later all the same.
        async with asyncio.timeout(PATIENCE):
            await _receive(request, "paynow")
    except TooLarge:
        raise
    except PaymentsError as error:
        log.warning("callback_refused", gateway="paynow", reason=type(error).__name__.lower(), detail=error.detail)
    except Exception as error:
        log.error("callback_failed", gateway="paynow", exc_info=error)
    return PlainTextResponse("OK")


async def _receive(request: Request, gateway: str) -> None:
    context: Context = request.app.state.context
    body = await read_body(request, MAX_BODY)
    client_id = uuid_of(request.path_params["client_id"], "the tenant in the URL")
    attempt = request.path_params.get("attempt")
    structlog.contextvars.bind_contextvars(client_id=client_id)
    message = Message(body, request.headers, context.clock())
    callback, currency = await request.app.state.keyrings[gateway].verify(client_id, message)
    if callback is None:
        raise Untrusted("the message is genuine, but about nothing of ours")
    values = {
        "client_id": client_id,
        "gateway": gateway,
        "attempt_id": uuid_of(attempt, "the attempt in the URL") if attempt else None,
        "reference": callback.reference,
        "currency": currency,
        "said": callback.said[:100],
        "digest": hashlib.sha256(body).digest(),
        "fields": Jsonb(dict(callback.fields)),
        "at": context.clock(),
    }
    found = await context.db.run(_RECEIVE, values)
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


ROUTES = [
    Route("/callbacks/paynow/{client_id}", paynow_callback, methods=["POST"]),
    Route("/callbacks/paynow/{client_id}/{attempt}", paynow_callback, methods=["POST"]),
]
