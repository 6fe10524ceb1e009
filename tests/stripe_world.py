"""What the tests of the Stripe simulator stand on: the simulator, a merchant, the official SDK, as one fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
import stripe
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service.sandbox.stripe import DEMO_ACCOUNTS, StripeSandbox, build
from payments_service.sandbox.stripe_accounts import Account
from tests.servers import Stage, serve
from tests.stripe_types import check_answer, check_error

(KEY, ACCOUNT, _, _), (OTHER_KEY, *_) = DEMO_ACCOUNTS
SOON = (0.0,) * 4


class PlainClient(stripe.HTTPClient):
    """The SDK's way out: a session without cookies, no redirects; keeps every answer for the oracle."""

    name = "aiohttp"

    def __init__(self, session: aiohttp.ClientSession) -> None:
        super().__init__()
        self._session = session
        self.answers: list[tuple[int, bytes, Mapping[str, str]]] = []

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            async with self._session.request(
                method, url, headers=headers, data=post_data, allow_redirects=False
            ) as reply:
                body = await reply.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise stripe.APIConnectionError(str(error), should_retry=True) from error
        self.answers.append((reply.status, body, reply.headers))
        return body, reply.status, reply.headers

    async def sleep_async(self, secs: float) -> None:
        """A test has no time to wait before a retry."""


@dataclass
class Merchant:
    """A merchant's server: keeps what is posted to it, answers the given statuses first, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for body, _ in self.posts]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def app(self) -> Starlette:
        async def take(request: Request) -> Response:
            self.posts.append((await request.body(), request.headers["stripe-signature"]))
            status = self.answers.pop(0) if self.answers else 200
            return Response(status_code=status, headers={"Location": f"{self.url}/elsewhere"})

        return Starlette(routes=[Route("/{rest:path}", take, methods=["POST"])])


@dataclass
class World:
    """The simulator, a merchant, and the SDK between them."""

    sandbox: StripeSandbox
    merchant: Merchant
    http: aiohttp.ClientSession
    wire: PlainClient

    @property
    def url(self) -> str:
        return self.sandbox.public_url

    @property
    def account(self) -> Account:
        return self.sandbox.accounts[KEY]

    def client(self, key: str = KEY, retries: int = 0) -> stripe.StripeClient:
        return stripe.StripeClient(
            key, http_client=self.wire, base_addresses={"api": self.url}, max_network_retries=retries
        )

    @property
    def api(self) -> Any:
        """The first demo account's `client.v1`, untyped: many tests send what the types forbid."""
        return self.client().v1

    def order(self, reference: str = "INV-1", amount: int = 1250, **changes: Any) -> dict[str, Any]:
        """Parameters of sessions.create."""
        price = {"currency": "usd", "unit_amount": amount, "product_data": {"name": "Two bags of cement"}}
        fields: dict[str, Any] = {
            "mode": "payment",
            "line_items": [{"price_data": price, "quantity": 1}],
            "client_reference_id": reference,
            "success_url": f"{self.merchant.url}/thanks?session={{CHECKOUT_SESSION_ID}}",
            "cancel_url": f"{self.merchant.url}/basket",
            "metadata": {"order": "7"},
            "payment_intent_data": {"metadata": {"order": "7"}},
        }
        return {name: value for name, value in (fields | changes).items() if value is not None}

    async def create(self, reference: str = "INV-1", amount: int = 1250, **changes: Any) -> Any:
        return await self.api.checkout.sessions.create_async(self.order(reference, amount, **changes))

    async def listen(self, *types: str) -> Any:
        """A webhook endpoint of the first demo account; its `secret` signs."""
        return await self.api.webhook_endpoints.create_async(
            {"url": f"{self.merchant.url}/hook", "enabled_events": list(types or "*")}
        )

    async def control(self, path: str, **content: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/sandbox/stripe/{path}", json=content) as reply:
            return reply.status, await reply.json()

    async def page(self, path: str, data: dict[str, str] | None = None) -> tuple[int, str, str]:
        method = "GET" if data is None else "POST"
        async with self.http.request(method, f"{self.url}{path}", data=data, allow_redirects=False) as reply:
            return reply.status, await reply.text(), reply.headers.get("Location", "")

    def check_everything(self) -> None:
        """Every answer and every event of this test is what the SDK's types say."""
        for status, body, _ in self.wire.answers:
            content = msgspec.json.decode(body)
            check_answer(content) if status == 200 else check_error(content)
        for account in self.sandbox.accounts.values():
            for event in account.events.values():
                check_answer(event.shown())
        for event in self.merchant.events:
            check_answer(event)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stages() -> AsyncIterator[tuple[Stage, str, Stage, str]]:
    simulator, merchant = Stage(), Stage()
    async with (
        serve(simulator, lifespan="off") as simulator_url,
        serve(merchant, lifespan="off") as merchant_url,
    ):
        yield simulator, simulator_url, merchant, merchant_url


@pytest.fixture
async def world(stages: tuple[Stage, str, Stage, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(stripe, "enable_telemetry", False)
    simulator, simulator_url, merchant_stage, merchant_url = stages
    sandbox, merchant = build(simulator_url), Merchant(merchant_url)
    sandbox.webhooks.resend_after = SOON
    simulator.app, merchant_stage.app = sandbox.app, merchant.app()
    async with sandbox, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        yield World(sandbox, merchant, http, PlainClient(http))


async def refused(call: Any, kind: type[stripe.StripeError] = stripe.InvalidRequestError) -> Any:
    """The error that the call ends with."""
    with pytest.raises(kind) as caught:
        await call
    return caught.value
