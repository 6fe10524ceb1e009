"""Stripe's webhooks: signed events, which prove what they say.

200 once what it proves is recorded, and for a genuine event about nothing of ours. 400 for everything that does not
verify, in the same words whoever asks. 503 when our own database is away: Stripe sends it again, for three days.
"""

from __future__ import annotations

import asyncio
from uuid import UUID

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service import accounts
from payments_service.context import Context
from payments_service.errors import NotConfigured, Unavailable, Unreadable, Untrusted
from payments_service.gateways.base import Callback, Message
from payments_service.gateways.stripe_events import callback_of, tenant_of
from payments_service.gateways.stripe_wire import Event, signature_parts, signed_event
from payments_service.money import Currency
from payments_service.proofs import take
from payments_service.public.callbacks import MAX_BODY, uuid_of
from payments_service.web import json_response, problem, read_body

log = structlog.get_logger(__name__)

PATIENCE = 10.0
_REFUSED = (
    "This is no event that Stripe signed with the secret of this endpoint, less than five minutes ago. "
    "If it was: save the endpoint's signing secret as stripe_webhook_secret in payment-settings."
)


async def stripe_callback(request: Request) -> Response:
    """`POST /callbacks/stripe/{client_id}`: an event of the tenant's own account."""
    context: Context = request.app.state.context
    message = await _message(request)
    try:
        client_id = uuid_of(request.path_params["client_id"], "the tenant in the URL")
        structlog.contextvars.bind_contextvars(client_id=client_id)
        # What no Stripe would send is refused without a look into the database.
        signature_parts(message.headers.get("stripe-signature"), message.received_at)
        callback, _ = await request.app.state.keyrings["stripe"].verify(client_id, message)
        return await _taken(context, client_id, callback)
    except (Untrusted, NotConfigured) as error:
        return _refused(context, error)
    except Unavailable:
        context.metrics.callback("stripe", "failed")
        raise


async def platform_callback(request: Request) -> Response:
    """`POST /callbacks/stripe`: an event of the platform's own endpoint. Its object names the tenant."""
    context: Context = request.app.state.context
    message = await _message(request)
    header = message.headers.get("stripe-signature")
    try:
        event = signed_event(message.body, header, context.stripe_webhook_secrets, message.received_at)
        client_id = await _tenant(context, event)
        if client_id is None:
            return _ignored(context, "no tenant of ours")
        structlog.contextvars.bind_contextvars(client_id=client_id)
        credentials = await accounts.credentials(context, client_id, "stripe", Currency.USD)
        callback = callback_of(event, live=credentials.live)
        # A connected account is somebody else's, who writes into metadata what he likes: the look-up with the tenant's
        # own key is the proof.
        return await _taken(context, client_id, callback, believed=event.account is None)
    except NotConfigured:
        return _ignored(context, "the tenant has no Stripe account")
    except Unreadable as error:
        # The event is genuine: it must come again once the key is back.
        context.metrics.callback("stripe", "failed")
        raise Unavailable("The tenant's credentials cannot be opened now.") from error
    except Untrusted as error:
        return _refused(context, error)
    except Unavailable:
        context.metrics.callback("stripe", "failed")
        raise


ROUTES = [
    Route("/callbacks/stripe", platform_callback, methods=["POST"]),
    Route("/callbacks/stripe/{client_id}", stripe_callback, methods=["POST"]),
]


async def _message(request: Request) -> Message:
    context: Context = request.app.state.context
    return Message(await read_body(request, MAX_BODY), request.headers, context.clock())


async def _taken(context: Context, client_id: UUID, callback: Callback | None, *, believed: bool = True) -> Response:
    if callback is None:
        return _ignored(context, "not a kind that is read here, or of the other mode")
    try:
        async with asyncio.timeout(PATIENCE):
            ours = await take(context, client_id, "stripe", callback, believed=believed)
    except TimeoutError as error:
        raise Unavailable("This took too long; send it again.") from error
    if not ours:
        return _ignored(context, "no attempt of ours")
    context.metrics.callback("stripe", "taken")
    return json_response({"received": True})


_OWNERS = """
SELECT DISTINCT client_id FROM attempts
WHERE gateway_reference = %(intent)s AND gateway = 'stripe' AND state = 'paid' LIMIT 2"""


async def _tenant(context: Context, event: Event) -> UUID | None:
    """Whose it is. Refunds and disputes carry no name of ours, but Stripe's of the payment, unique in the world."""
    client_id, intent = tenant_of(event)
    if client_id is not None or intent is None:
        return client_id
    rows = await context.db.run(_OWNERS, {"intent": intent})
    # Of two that claim the same payment one is wrong.
    return rows[0]["client_id"] if len(rows) == 1 else None


def _ignored(context: Context, reason: str) -> Response:
    context.metrics.callback("stripe", "ignored")
    log.info("callback_ignored", gateway="stripe", reason=reason)
    return json_response({"received": True})


def _refused(context: Context, error: Untrusted | NotConfigured) -> Response:
    context.metrics.callback("stripe", "refused")
    log.warning("callback_refused", gateway="stripe", reason=type(error).__name__.lower(), detail=error.detail)
    return problem(400, "callback_refused", _REFUSED)
