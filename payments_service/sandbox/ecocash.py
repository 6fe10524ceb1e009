"""A small server that speaks EcoCash's three dialects, with phones that prompt, callbacks, and faults on demand.

It stands on the protocol page alone and shares nothing with the service's own adapter. The marks [A], [B], [C] and [?]
in its comments are that page's: how well a fact is known.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import ClassVar

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from payments_service.sandbox import ecocash_control, ecocash_exchange, ecocash_pages, phone
from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, Merchant
from payments_service.sandbox.ecocash_customers import EcocashCustomers
from payments_service.sandbox.ecocash_exchange import BASES
from payments_service.sandbox.ecocash_phone import EcocashLine

# For the demo and for people who try things out, by dialect. No secrets, and worth nothing at EcoCash.
DEMO_MERCHANTS = {
    OPEN_API: Merchant(
        dialect=OPEN_API, name="Demo Hardware", code="850236", number="771896633", api_key="sandbox-demo-open-api-key"
    ),
    EIP: Merchant(
        dialect=EIP,
        name="Demo Books",
        code="8003",
        number="789111401",
        username="demo-books",
        password="sandbox-demo-eip",  # noqa: S106 - opens nothing
        pin="4711",
    ),
    EIP_PORTAL: Merchant(
        dialect=EIP_PORTAL,
        name="Demo Pharmacy",
        code="030528",
        number="779806308",
        username="demo-pharmacy",
        password="sandbox-demo-portal",  # noqa: S106 - opens nothing
        pin="4712",
    ),
}


class EcocashSandbox(EcocashCustomers):
    """The ledger behind EcoCash's addresses. `app` is the whole of it; `routes()` mounts it beside others.

    `calls` counts requests per operation (`charge`, `lookup`, `refund`), and `redirected` for whoever followed the
    redirect fault; `requests` holds them as they came. `line` is how it reaches phones.
    """

    title: ClassVar[str] = "EcoCash"
    overview: ClassVar[str] = "/sandbox/ecocash"

    @functools.cached_property
    def line(self) -> EcocashLine:
        return EcocashLine(self)

    @functools.cached_property
    def app(self) -> Starlette:
        """The simulator as an ASGI app with phones of its own, which closes the simulator at its own end."""
        return Starlette(routes=[*self.routes(), *phone.routes([self.line])], lifespan=self.lifespan)

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at it."""
        return {
            "ECOCASH_URL": self.public_url + BASES[OPEN_API],
            "ECOCASH_EIP_URL": self.public_url + BASES[EIP],
            "ECOCASH_PORTAL_URL": self.public_url + BASES[EIP_PORTAL],
        }

    def routes(self) -> list[BaseRoute]:
        """Everything but the phones, which belong to all simulators together."""
        return [*ecocash_control.routes(self), *ecocash_pages.routes(self), *ecocash_exchange.routes(self)]


def build(public_url: str) -> EcocashSandbox:
    """A simulator with the demo merchants, reachable at `public_url`."""
    sandbox = EcocashSandbox(public_url)
    sandbox.merchants = [replace(merchant) for merchant in DEMO_MERCHANTS.values()]
    return sandbox
