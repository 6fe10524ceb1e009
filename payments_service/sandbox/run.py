"""Serving the simulators: for the demo, and for a tenant's developers by `payments-service sandbox`."""

from __future__ import annotations

import asyncio

from payments_service.config import Bind
from payments_service.sandbox import paynow
from payments_service.serve import listen, serve_app


async def serve(bind: Bind, stop: asyncio.Event) -> None:
    """Run the Paynow simulator until `stop` is set; everything it knows is gone then."""
    public_url = f"http://{bind}"
    async with paynow.build(public_url) as simulator:
        await serve_app(simulator.app, listen("sandbox", bind), stop)
