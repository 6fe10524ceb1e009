"""Serving the simulators: for the demo, and for a tenant's developers by `payments-service sandbox`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from starlette.applications import Starlette

from payments_service.config import Bind
from payments_service.sandbox import paynow, stripe
from payments_service.serve import listen, serve_app


class Simulators:
    """Every simulator behind one address: `app` serves them all. Close them, or use it as `async with`.

    `public_url` is where browsers find it; setting it later sets it for each.
    """

    def __init__(self, public_url: str = "") -> None:
        self.paynow = paynow.build(public_url)
        self.stripe = stripe.build(public_url)
        self.paynow.neighbours = [("Stripe", "/sandbox/stripe")]

    @property
    def public_url(self) -> str:
        return self.paynow.public_url

    @public_url.setter
    def public_url(self, public_url: str) -> None:
        self.paynow.public_url = self.stripe.public_url = public_url

    @functools.cached_property
    def app(self) -> Starlette:
        return Starlette(routes=[*self.stripe.routes(), *self.paynow.routes()], lifespan=self._lifespan)

    async def __aenter__(self) -> Self:
        self.stripe.start()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop whatever each has under way, and the connections."""
        await self.paynow.close()
        await self.stripe.close()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        self.stripe.start()
        yield
        await self.close()


async def serve(bind: Bind, stop: asyncio.Event) -> None:
    """Run the simulators until `stop` is set; everything they know is gone then."""
    async with Simulators(f"http://{bind}") as simulators:
        await serve_app(simulators.app, listen("sandbox", bind), stop)
