"""A small server that speaks InnBucks' merchant API, with a page to pay by hand and faults on demand.

It stands on the protocol page alone and shares nothing with the service's own InnBucks adapter.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from payments_service.sandbox import innbucks_api, innbucks_control, innbucks_pages
from payments_service.sandbox.innbucks_ledger import InnbucksLedger

# For the demo and for people who try things out: (username, password, API key, account id, name). No secrets.
DEMO_MERCHANTS = (
    ("alpha-hardware", "alpha-sandbox-password", "5d0c1f0e-7a5b-4f7e-9c1d-alpha", "500100200301", "Alpha Hardware"),
    ("bravo-books", "bravo-sandbox-password", "9b7e6a1c-3d2f-4e8a-8f60-bravo", "500100200302", "Bravo Books"),
)


class InnbucksSandbox(InnbucksLedger):
    """The ledger behind InnBucks' addresses. `app` is the whole of it; `routes()` mounts it beside others.

    The customer's app, which takes Paynow's codes as well, is a page of its own: `innbucks_app`.
    """

    title: ClassVar[str] = "InnBucks"
    overview: ClassVar[str] = "/sandbox/innbucks"

    @functools.cached_property
    def app(self) -> Starlette:
        """The simulator as an ASGI app, which closes the simulator at its own end."""
        return Starlette(routes=self.routes(), lifespan=self.lifespan)

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at it."""
        return {"INNBUCKS_URL": self.url}

    def routes(self) -> list[BaseRoute]:
        return [*innbucks_api.routes(self), *innbucks_control.routes(self), *innbucks_pages.routes(self)]


def build(public_url: str) -> InnbucksSandbox:
    """A simulator with the demo merchants, whose API is at `{public_url}/innbucks`."""
    sandbox = InnbucksSandbox(public_url)
    for merchant in DEMO_MERCHANTS:
        sandbox.add_merchant(*merchant)
    return sandbox
