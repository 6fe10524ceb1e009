"""A small server that speaks Paynow's wire protocol, with a page to pay by hand and faults on demand.

It stands on the protocol page alone and shares nothing with the service's own Paynow adapter.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Awaitable, Callable
from typing import ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import innbucks_app, paynow_control, paynow_pages, phone, wire
from payments_service.sandbox.hands import WrongMove
from payments_service.sandbox.paynow_express import ExpressLedger
from payments_service.sandbox.paynow_ledger import seal
from payments_service.sandbox.paynow_phone import PaynowLine
from payments_service.sandbox.paynow_transactions import Integration, Refusal, Transaction
from payments_service.sandbox.wire import Pairs

# For the demo and for people who try things out: (id, key, currency). No secret, and worth nothing at Paynow.
DEMO_INTEGRATIONS = (
    ("1201", "3e9fed89-60e1-4ce5-ab6e-6b1eb2d4f977", "USD"),
    ("1202", "7c2d8f14-0b53-4e6a-9d1f-5a83c0e4b672", "ZIG"),
)


class PaynowSandbox(ExpressLedger):
    """The ledger behind Paynow's addresses. `app` is the whole of it; `routes()` mounts it beside others.

    `calls` counts the requests per operation: `initiate`, `express`, `poll`, `trace`, `otp`, and `redirected`
    for whoever followed the redirect fault. `delay_seconds` holds every reply back, as a slow gateway would.
    """

    title: ClassVar[str] = "Paynow"
    overview: ClassVar[str] = "/"

    @functools.cached_property
    def app(self) -> Starlette:
        """The simulator as an ASGI app with phones of its own, which closes the simulator at its own end."""
        routes = [*self.routes(), *innbucks_app.routes([self]), *phone.routes([self.line])]
        return Starlette(routes=routes, lifespan=self.lifespan)

    @functools.cached_property
    def line(self) -> PaynowLine:
        """How it reaches phones."""
        return PaynowLine(self)

    def settings(self) -> dict[str, str]:
        """The environment variables that point the service at it."""
        return {"PAYNOW_URL": self.public_url}

    def routes(self) -> list[BaseRoute]:
        """Everything but the phones, which belong to all simulators together."""
        return [
            _AnyCaseRoute("/interface/initiatetransaction", self._initiate, methods=["POST"]),
            _AnyCaseRoute("/interface/remotetransaction", self._express, methods=["POST"]),
            _AnyCaseRoute("/interface/remoteotp", self._otp, methods=["POST"]),
            _AnyCaseRoute("/interface/trace", self._trace, methods=["POST"]),
            _AnyCaseRoute("/interface/checkpayment", self._poll, methods=["GET", "POST"]),
            *paynow_control.routes(self),
            *paynow_pages.routes(self),
        ]

    # --- the wire

    async def _initiate(self, request: Request) -> Response:
        self.calls["initiate"] += 1
        try:
            integration, fields = self._authenticate(wire.decode(await request.body()))
            transaction = self.create(integration, fields)
        except Refusal as refusal:
            return await self._refuse(refusal)
        return await self._answer("initiate", transaction, self.opening(transaction))

    async def _express(self, request: Request) -> Response:
        self.calls["express"] += 1
        try:
            integration, fields = self._authenticate(wire.decode(await request.body()))
            transaction = self.create_express(integration, fields)
        except Refusal as refusal:
            return await self._refuse(refusal)
        return await self._answer("express", transaction, self.express_opening(transaction))

    async def _otp(self, request: Request) -> Response:
        self.calls["otp"] += 1
        try:
            integration, fields = self._authenticate(wire.decode(await request.body()))
            transaction = self.by_guid(request.query_params.get("guid", ""))
            if transaction is None or transaction.integration is not integration:
                raise Refusal("Transaction not found")
            is_right = self.enter_otp(transaction, fields.get("otp", ""))
        except (Refusal, WrongMove) as refusal:
            return await self._refuse(refusal)
        message = self.message(transaction) if is_right else [("status", "Error"), ("error", "Invalid OTP")]
        return await self._answer("otp", transaction, message)

    async def _trace(self, request: Request) -> Response:
        self.calls["trace"] += 1
        try:
            integration, fields = self._authenticate(wire.decode(await request.body()))
        except Refusal as refusal:
            return await self._refuse(refusal)
        transaction = self.by_trace(integration, fields.get("merchanttrace", ""))
        if transaction is None:
            return await self._reply(wire.encode(wire.sign([("status", "NotFound")], integration.key)))
        return await self._answer("trace", transaction, self.message(transaction))

    async def _poll(self, request: Request) -> Response:
        self.calls["poll"] += 1
        transaction = self.by_guid(request.query_params.get("guid", ""))
        if transaction is None:
            return await self._refuse(Refusal("Transaction not found"))
        return await self._answer("poll", transaction, self.message(transaction))

    def _authenticate(self, pairs: Pairs) -> tuple[Integration, dict[str, str]]:
        """The caller's integration and its trimmed fields by lower-case name, or Refusal (sections 1 and 6)."""
        fields = {name.lower(): value.strip() for name, value in pairs}
        integration = self.integrations.get(fields.get("id", ""))
        if integration is None:
            raise Refusal("Invalid id.")
        if not wire.is_signed(pairs, integration.key):
            start = wire.digest(pairs, integration.key)[:6]
            raise Refusal(f"Invalid Hash.  Hash should start with: {start}")
        if not integration.active:
            raise Refusal("The integration specified is currently inactive")
        if fields.get("status") != "Message":
            raise Refusal("Invalid status field")
        return integration, fields

    async def _answer(self, operation: str, transaction: Transaction, message: Pairs) -> Response:
        planned = self.use_faults(transaction, operation)
        body = seal(message, transaction.integration.key, planned)
        response = await self._reply(body)
        for fault in planned:
            if fault.kind.reply is not None:
                return fault.kind.reply(fault, body, self.public_url)
        return response

    async def _refuse(self, refusal: Refusal | WrongMove) -> Response:
        return await self._reply(wire.encode([("status", "Error"), ("error", str(refusal))]))

    async def _reply(self, body: bytes) -> Response:
        """HTTP 200 whatever the body says (section 0)."""
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        return PlainTextResponse(body, media_type="text/html")


class _AnyCaseRoute(Route):
    """Paynow's server is IIS: `/Interface/CheckPayment/` and `/interface/checkpayment` are one page."""

    def __init__(self, path: str, endpoint: Callable[[Request], Awaitable[Response]], *, methods: list[str]) -> None:
        super().__init__(path, endpoint, methods=methods)
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + "/?$", re.IGNORECASE)


def build(public_url: str) -> PaynowSandbox:
    """A simulator with the demo integrations, reachable at `public_url`."""
    sandbox = PaynowSandbox(public_url)
    for integration_id, key, currency in DEMO_INTEGRATIONS:
        sandbox.add_integration(integration_id, key, currency)
    return sandbox
