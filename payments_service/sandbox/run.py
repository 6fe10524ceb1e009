"""Serving the simulators: for the demo, and for a tenant's developers by `payments-service sandbox`."""

from __future__ import annotations

import asyncio
import functools
from typing import ClassVar, Protocol

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from payments_service.parsers import Bind
from payments_service.sandbox import ecocash, innbucks, innbucks_app, paynow, phone, stripe, whatsapp
from payments_service.sandbox.lifetime import Lifetime
from payments_service.sandbox.phone_line import HasApp, RingsPhones
from payments_service.serve import listen, serve_app


class Simulator(Protocol):
    """What each of them is to the others: `title` and `overview` are its name and the path of its overview."""

    title: ClassVar[str]
    overview: ClassVar[str]
    public_url: str

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at it."""
        ...

    def routes(self) -> list[BaseRoute]:
        """Everything but the phones, which belong to all simulators together."""
        ...

    def start(self) -> None:
        """From now on what ends in time does so even while nobody asks."""
        ...

    async def close(self) -> None:
        """Drop whatever is under way, and the connections."""
        ...


class Simulators(Lifetime):
    """Every simulator behind one address: `app` serves them all. Close them, or use it as `async with`.

    `public_url` is where browsers find it; setting it later sets it for each.
    """

    def __init__(self, public_url: str = "") -> None:
        self.paynow = paynow.build(public_url)
        self.stripe = stripe.build(public_url)
        self.ecocash = ecocash.build(public_url)
        self.innbucks = innbucks.build(public_url)
        self.whatsapp = whatsapp.build(public_url)
        others: tuple[Simulator, ...] = (self.stripe, self.ecocash, self.innbucks, self.whatsapp)
        self.paynow.neighbours = [(one.title, one.overview) for one in others]
        self._all: tuple[Simulator, ...] = (*others, self.paynow)

    @property
    def public_url(self) -> str:
        return self.paynow.public_url

    @public_url.setter
    def public_url(self, public_url: str) -> None:
        for one in self._all:
            one.public_url = public_url

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at them."""
        return {name: value for one in self._all for name, value in one.settings().items()}

    @functools.cached_property
    def app(self) -> Starlette:
        wallet = innbucks_app.routes([self.innbucks, self.paynow])  # its path would be a number's among the phones
        lines = [one.line for one in self._all if isinstance(one, RingsPhones)]
        phones = phone.routes(lines, [one.handset for one in self._all if isinstance(one, HasApp)])
        routes = [*(route for one in self._all for route in one.routes()), *wallet, *phones]
        return Starlette(routes=routes, lifespan=self.lifespan)

    def start(self) -> None:
        """From now on what ends in time does so even while nobody asks."""
        for one in self._all:
            one.start()

    async def close(self) -> None:
        """Drop whatever each has under way, and the connections."""
        for one in self._all:
            await one.close()


def settings(public_url: str) -> dict[str, str]:
    """The environment variables that point the service at simulators which are found at this URL."""
    return Simulators(public_url).settings()


async def serve(bind: Bind, stop: asyncio.Event) -> None:
    """Run the simulators until `stop` is set; everything they know is gone then."""
    async with Simulators(f"http://{bind}") as simulators:
        await serve_app(simulators.app, listen("sandbox", bind), stop)
