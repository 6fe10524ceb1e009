"""What gateways report. A callback that verifies makes its attempt due for a look-up now; it never moves money by
itself. Whatever is wrong with one is answered as that gateway needs, changes nothing, and leaves one log line."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from dataclasses import dataclass
from uuid import UUID

import structlog
from psycopg.types.json import Jsonb
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from payments_service import accounts
from payments_service.context import Context
from payments_service.errors import NotConfigured, PaymentsError, TooLarge, Untrusted
from payments_service.gateways.base import Callback
from payments_service.money import Currency
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


@dataclass(frozen=True, slots=True, repr=False)
class _Keys:
    """A tenant's credentials of one gateway, each with its currency, as read a moment ago."""

    known: list[tuple[Currency, object]]
    read_at: float


class Keyring:
    """Credentials for verifying callbacks, kept for a minute so that a callback costs one statement.

    A key that was just replaced may verify a little longer; that is harmless, since a callback is only a hint and
    the look-up that follows reads the credentials anew.
    """

    LIFE = 60.0
    # A callback that does not verify may be signed with a newer key: read again, but not for every forgery.
    YOUNG = 2.0
    MOST = 10_000

    def __init__(self, context: Context, gateway: str) -> None:
        self._context = context
        self._gateway = gateway
        self._kept: OrderedDict[UUID, _Keys] = OrderedDict()

    async def verify(self, client_id: UUID, body: bytes) -> tuple[Callback, Currency]:
        """The callback and the currency whose integration signed it. Raises Untrusted, NotConfigured."""
        age = time.monotonic() - kept.read_at if (kept := self._kept.get(client_id)) else self.LIFE
        if kept is None or age >= self.LIFE:
            return self._verified(await self._read(client_id), body)
        try:
            return self._verified(kept, body)
        except (Untrusted, NotConfigured):
            if age < self.YOUNG:
                raise
            return self._verified(await self._read(client_id), body)

    def _verified(self, keys: _Keys, body: bytes) -> tuple[Callback, Currency]:
        adapter = self._context.gateways[self._gateway]
        refusal: PaymentsError = NotConfigured("this tenant has no credentials for the gateway")
        for currency, credentials in keys.known:
            try:
                return adapter.read_callback(credentials, body), currency
            except Untrusted as error:
                refusal = error
        raise refusal

    async def _read(self, client_id: UUID) -> _Keys:
        found = await accounts.known_credentials(self._context, client_id, self._gateway)
        keys = _Keys(found, time.monotonic())
        self._kept[client_id] = keys
        self._kept.move_to_end(client_id)
        if len(self._kept) > self.MOST:
            self._kept.popitem(last=False)
        return keys


async def paynow_callback(request: Request) -> Response:
    """A status update of Paynow: 200 on every path, or Paynow sends it again up to ten times."""
    try:
        # A database that hangs must not keep Paynow waiting: the schedule asks later all the same.
        async with asyncio.timeout(PATIENCE):
            await _receive(request, "paynow")
    except TooLarge:
        raise
    except PaymentsError as error:
        log.warning("callback_refused", gateway="paynow", reason=error.code, detail=error.detail)
    except Exception as error:
        log.error("callback_failed", gateway="paynow", exc_info=error)
    return PlainTextResponse("OK")


async def _receive(request: Request, gateway: str) -> None:
    context: Context = request.app.state.context
    body = await read_body(request, MAX_BODY)
    client_id = _uuid(request.path_params["client_id"], "the tenant in the URL")
    attempt = request.path_params.get("attempt")
    structlog.contextvars.bind_contextvars(client_id=client_id)
    callback, currency = await request.app.state.keyrings[gateway].verify(client_id, body)
    values = {
        "client_id": client_id,
        "gateway": gateway,
        "attempt_id": _uuid(attempt, "the attempt in the URL") if attempt else None,
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


def _uuid(text: str, what: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Untrusted(f"{what} is not an id") from None


ROUTES = [
    Route("/callbacks/paynow/{client_id}", paynow_callback, methods=["POST"]),
    Route("/callbacks/paynow/{client_id}/{attempt}", paynow_callback, methods=["POST"]),
]
