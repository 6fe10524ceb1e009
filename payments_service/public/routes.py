"""Everything that the internet can reach, on one screen."""

from __future__ import annotations

from starlette.routing import Route

from payments_service.gateways.registry import Gateways
from payments_service.health import livez, public_readyz
from payments_service.public import callbacks, pay, webhooks, whatsapp


def routes(gateways: Gateways) -> list[Route]:
    """Callbacks of these gateways, and what does not depend on them."""
    return [
        *callbacks.routes(gateways),
        *webhooks.ROUTES,
        *whatsapp.ROUTES,
        *pay.ROUTES,
        Route("/livez", livez, methods=["GET"]),
        Route("/readyz", public_readyz, methods=["GET"]),
    ]
