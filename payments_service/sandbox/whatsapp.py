"""A small server that speaks WhatsApp's Business Cloud API, with the customer's chat, signed webhooks, and faults.

It stands on the protocol page and Meta's published reference alone, and shares nothing with the service's own client.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from starlette.applications import Starlette
from starlette.routing import BaseRoute

from payments_service.sandbox import phone, whatsapp_api, whatsapp_chat, whatsapp_control, whatsapp_pages
from payments_service.sandbox.whatsapp_chat import WhatsappApp
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.sandbox.whatsapp_messages import Template
from payments_service.sandbox.whatsapp_webhooks import Webhooks

# For the demo and for people who try things out: (phone number id, token, number, business account, name). No secrets.
# The first is the platform's own number, to which `settings` points; the second a tenant's.
DEMO_SENDERS = (
    ("106540352242922", "sandbox-demo-platform-token", "+263780000101", "102290129340398", "Conva"),
    ("106540352242923", "sandbox-demo-alpha-token", "+263780000102", "102290129340399", "Alpha Hardware"),
)
DEMO_APP_SECRET = "sandbox-demo-app-secret"  # noqa: S105 - opens nothing
DEMO_VERIFY_TOKEN = "sandbox-demo-verify-token"  # noqa: S105 - opens nothing
DEMO_TEMPLATE = "payment_request"

_BODY = "{{1}} asks you to pay {{2}} for {{3}}. Tap the button to see all ways to pay."
TEMPLATES = tuple(Template(DEMO_TEMPLATE, language, _BODY, "Pay now") for language in ("en", "en_GB"))


class WhatsappSandbox(WhatsappLedger):
    """The ledger behind the API's address. `app` is the whole of it; `routes()` mounts it beside others.

    `handset` is the customer's app among the apps of the phones.
    """

    title: ClassVar[str] = "WhatsApp"
    overview: ClassVar[str] = "/sandbox/whatsapp"

    @functools.cached_property
    def handset(self) -> WhatsappApp:
        return WhatsappApp(self)

    @functools.cached_property
    def app(self) -> Starlette:
        """The simulator as an ASGI app with phones of its own, which closes the simulator at its own end."""
        return Starlette(routes=[*self.routes(), *phone.routes([], [self.handset])], lifespan=self.lifespan)

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at it."""
        phone_number_id, token, *_ = DEMO_SENDERS[0]
        return {
            "WHATSAPP_URL": self.url,
            "WHATSAPP_PHONE_NUMBER_ID": phone_number_id,
            "WHATSAPP_ACCESS_TOKEN": token,
            "WHATSAPP_TEMPLATE": DEMO_TEMPLATE,
            "WHATSAPP_APP_SECRET": self.webhooks.secret,
            "WHATSAPP_VERIFY_TOKEN": self.webhooks.verify_token,
        }

    def routes(self) -> list[BaseRoute]:
        """Everything but the phones, which belong to all simulators together."""
        own = [*whatsapp_control.routes(self), *whatsapp_pages.routes(self), *whatsapp_chat.routes(self)]
        return [*own, *whatsapp_api.routes(self)]


def build(public_url: str) -> WhatsappSandbox:
    """A simulator with the demo senders, whose API is at `{public_url}/whatsapp`."""
    sandbox = WhatsappSandbox(public_url, Webhooks(secret=DEMO_APP_SECRET, verify_token=DEMO_VERIFY_TOKEN))
    for demo in DEMO_SENDERS:
        sender = sandbox.add_sender(*demo)
        for template in TEMPLATES:
            sender.add_template(template)
    return sandbox
