"""The composition root: settings become the service's parts, the two ASGI applications and the workers' courier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from payments_service.config import Settings
from payments_service.context import Context
from payments_service.db import Database
from payments_service.delivery import Courier
from payments_service.gateways import registry
from payments_service.gateways.base import CallsBack
from payments_service.gateways.transport import Transport
from payments_service.internal.auth import Authenticate, ServiceTokens
from payments_service.internal.routes import ROUTES as INTERNAL_ROUTES
from payments_service.internal.routes import WATCHED
from payments_service.metrics import Metrics
from payments_service.public.guard import Guard
from payments_service.public.keyring import Keyring
from payments_service.public.routes import routes as public_routes
from payments_service.queues import Queues
from payments_service.vault import Vault
from payments_service.web import ERROR_HANDLERS, Observe
from payments_service.whatsapp import TEMPLATE, Cloud, Sender


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """What a process runs on. `courier` is None when there is nowhere to send events: they wait to be pulled."""

    context: Context
    courier: Courier | None


@asynccontextmanager
async def parts(settings: Settings, database_url: str) -> AsyncIterator[Parts]:
    """Build the parts, and close them at the end. A database that is down does not hinder it."""
    db = Database(database_url)
    await db.open()
    try:
        metrics = Metrics()
        async with Transport(told=metrics.call) as transport:
            context = Context(
                db=db,
                vault=Vault(settings.encryption_secret, settings.encryption_secret_previous),
                gateways=registry.build(transport, settings),
                public_url=settings.public_url,
                check_schedule=settings.check_schedule,
                link_rate=settings.create_link_rate,
                cloud=Cloud(transport, settings.whatsapp_url, settings.whatsapp_api_version),
                platform_sender=_platform_sender(settings),
                whatsapp_app_secret=settings.whatsapp_app_secret,
                whatsapp_verify_token=settings.whatsapp_verify_token,
                stripe_webhook_secrets=settings.stripe_webhook_secrets,
                pushes_events=settings.events_url is not None,
                metrics=metrics,
            )
            yield Parts(context, _courier(settings, transport))
    finally:
        await db.close()


def _platform_sender(settings: Settings) -> Sender | None:
    if not (settings.whatsapp_phone_number_id and settings.whatsapp_access_token):
        return None
    return Sender(
        settings.whatsapp_phone_number_id,
        settings.whatsapp_access_token,
        settings.whatsapp_template or TEMPLATE,
        own=False,
    )


def _courier(settings: Settings, transport: Transport) -> Courier | None:
    if settings.events_url is None:
        return None
    return Courier(transport, settings.events_url, settings.events_secrets, settings.events_schedule)


def internal_app(context: Context, settings: Settings) -> ASGIApp:
    """What only the backend can reach."""
    app = _application(context, INTERNAL_ROUTES)
    app.state.queues = Queues(context)
    guarded = Authenticate(app, ServiceTokens(settings.service_tokens))
    return Observe(guarded, "internal", context.metrics.request)


def metrics_app(context: Context) -> ASGIApp:
    """How this process is, for whoever watches it; nothing of the API."""
    app = _application(context, WATCHED)
    app.state.queues = Queues(context)
    return Observe(app, "metrics", context.metrics.request)


def _application(context: Context, routes: Sequence[BaseRoute]) -> Starlette:
    app = Starlette(routes=routes, exception_handlers=ERROR_HANDLERS)
    app.router.redirect_slashes = False
    app.state.context = context
    return app


def public_app(context: Context) -> ASGIApp:
    """What the internet can reach."""
    app = _application(context, public_routes(context.gateways))
    app.state.keyrings = {
        name: Keyring(context, name) for name, gateway in context.gateways.items() if isinstance(gateway, CallsBack)
    }
    origins = [origin for gateway in context.gateways.values() for origin in gateway.page_origins()]
    # The customers' data is paid for by the megabyte. Nothing secret stands beside what a stranger can choose: whoever
    # can ask for a page knows its token.
    packed = GZipMiddleware(app, minimum_size=700, compresslevel=6)
    return Observe(Guard(packed, form_targets=origins), "public", context.metrics.request)
