"""Everything that the internet can reach, on one screen."""

from __future__ import annotations

from starlette.routing import Route

from payments_service.health import livez, public_readyz
from payments_service.public import callbacks, pay, webhooks

ROUTES = [
    *callbacks.ROUTES,
    *webhooks.ROUTES,
    *pay.ROUTES,
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", public_readyz, methods=["GET"]),
]
