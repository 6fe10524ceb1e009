"""WhatsApp's webhook: what became of messages. None of it is evidence of a payment, and none of it moves one.

Closed without WHATSAPP_APP_SECRET and WHATSAPP_VERIFY_TOKEN. 401 for whatever does not verify, in the same words
whoever asks; 200 for everything genuine, also what is of no interest here; 503 when our database is away, or a message
is just being sent: Meta sends it again, for days.
"""

from __future__ import annotations

import asyncio
import hmac
import re

import structlog
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from payments_service import message_news
from payments_service.context import Context
from payments_service.errors import Unavailable
from payments_service.public.callbacks import MAX_BODY, PATIENCE
from payments_service.web import json_response, problem, read_body
from payments_service.whatsapp import is_signed, news_in

log = structlog.get_logger(__name__)

_CHALLENGE = re.compile(r"[A-Za-z0-9._-]{1,200}")


async def subscribe(request: Request) -> Response:
    """`GET /callbacks/whatsapp`: Meta asks whether this is ours; the challenge comes back as text."""
    context: Context = request.app.state.context
    given = request.query_params
    token, challenge = given.get("hub.verify_token", ""), given.get("hub.challenge", "")
    expected = context.whatsapp_verify_token
    if (
        not expected
        or given.get("hub.mode") != "subscribe"
        or not _CHALLENGE.fullmatch(challenge)
        or not hmac.compare_digest(expected.encode(), token.encode())
    ):
        return _refused(context, "the subscription is not ours")
    return PlainTextResponse(challenge)


async def receive(request: Request) -> Response:
    """`POST /callbacks/whatsapp`: statuses, in batches."""
    context: Context = request.app.state.context
    body = await read_body(request, MAX_BODY)
    secret = context.whatsapp_app_secret
    if not secret or not is_signed(secret, body, request.headers.get("x-hub-signature-256")):
        return _refused(context, "the signature is missing or wrong")
    try:
        async with asyncio.timeout(PATIENCE):
            taken = [await message_news.take(context, news) for news in news_in(body)]
    except (TimeoutError, Unavailable) as error:
        context.metrics.callback("whatsapp", "failed")
        raise Unavailable("This cannot be taken now; send it again.") from error
    context.metrics.callback("whatsapp", "taken" if any(taken) else "ignored")
    return json_response({"received": True})


def _refused(context: Context, reason: str) -> Response:
    context.metrics.callback("whatsapp", "refused")
    log.warning("callback_refused", gateway="whatsapp", reason=reason)
    return problem(401, "callback_refused", "This does not come from Meta with this service's own secret.")


ROUTES = [
    Route("/callbacks/whatsapp", subscribe, methods=["GET"]),
    Route("/callbacks/whatsapp", receive, methods=["POST"]),
]
