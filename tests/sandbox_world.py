"""What the tests of the Paynow simulator stand on: the simulator, a merchant, an HTTP client, as one fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service.sandbox import wire
from payments_service.sandbox.paynow import DEMO_INTEGRATIONS, PaynowSandbox, build
from payments_service.sandbox.wire import Pairs
from tests.servers import Stage, serve

(_, USD_KEY, _), (_, ZIG_KEY, _) = DEMO_INTEGRATIONS
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
SOON = (0.0,) * 10
PHONE = "0771234567"


@dataclass
class Merchant:
    """A merchant's server: keeps the raw bodies posted to it, answers the given statuses first, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def messages(self) -> list[dict[str, str]]:
        return [dict(wire.decode(body)) for body in self.bodies]

    @property
    def statuses(self) -> list[str]:
        return [message["status"] for message in self.messages]

    def app(self) -> Starlette:
        async def take(request: Request) -> Response:
            self.bodies.append(await request.body())
            self.paths.append(request.url.path)
            status = self.answers.pop(0) if self.answers else 200
            return Response(status_code=status, headers={"Location": f"{self.url}/elsewhere"})

        return Starlette(routes=[Route("/{rest:path}", take, methods=["POST"])])


@dataclass
class Reply:
    status: int
    raw: bytes
    content_type: str

    @property
    def pairs(self) -> Pairs:
        return wire.decode(self.raw)

    @property
    def keys(self) -> list[str]:
        return [key for key, _ in self.pairs]

    def __getitem__(self, key: str) -> str:
        return dict(self.pairs)[key]


@dataclass
class World:
    """The simulator, a merchant, and an HTTP client between them."""

    sandbox: PaynowSandbox
    merchant: Merchant
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.sandbox.public_url

    def request(self, **changes: str | None) -> Pairs:
        fields = {
            "id": "1201",
            "reference": "INV-1",
            "amount": "10.00",
            "additionalinfo": "Shoes",
            "returnurl": f"{self.merchant.url}/return",
            "resulturl": f"{self.merchant.url}/result",
            "status": "Message",
        }
        fields |= {key: value for key, value in changes.items() if value is not None}
        return [(key, value) for key, value in fields.items() if changes.get(key, "") is not None]

    async def send(self, path: str, pairs: Pairs) -> Reply:
        async with self.http.post(f"{self.url}{path}", data=wire.encode(pairs), headers=FORM) as reply:
            return Reply(reply.status, await reply.read(), reply.content_type)

    async def initiate(self, key: str = USD_KEY, **changes: str | None) -> Reply:
        return await self.send("/interface/initiatetransaction", wire.sign(self.request(**changes), key))

    async def express(self, method: str = "ecocash", key: str = USD_KEY, **changes: str | None) -> Reply:
        fields: dict[str, str | None] = {"method": method, "phone": PHONE, "authemail": "customer@example.com"}
        pairs = wire.sign(self.request(**fields | changes), key)
        return await self.send("/interface/remotetransaction", pairs)

    async def otp(self, otp: str, reference: str = "INV-1", key: str = USD_KEY, **changes: str) -> Reply:
        fields = {"id": "1201", "otp": otp, "status": "Message"} | changes
        path = f"/Interface/RemoteOtp/?guid={self.sandbox.find(reference).guid}"
        return await self.send(path, wire.sign(list(fields.items()), key))

    async def trace(self, trace: str, key: str = USD_KEY, **changes: str) -> Reply:
        fields = {"id": "1201", "merchanttrace": trace, "status": "Message"} | changes
        return await self.send("/interface/trace", wire.sign(list(fields.items()), key))

    async def poll(self, reference: str = "INV-1") -> Reply:
        pollurl = self.sandbox.pollurl(self.sandbox.find(reference))
        async with self.http.post(pollurl, allow_redirects=False) as reply:
            return Reply(reply.status, await reply.read(), reply.content_type)

    async def control(self, path: str, **content: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/sandbox/{path}", json=content) as reply:
            return reply.status, await reply.json()

    async def page(self, path: str, data: dict[str, str] | None = None) -> tuple[int, str, str]:
        method = "GET" if data is None else "POST"
        async with self.http.request(method, f"{self.url}{path}", data=data, allow_redirects=False) as reply:
            return reply.status, await reply.text(), reply.headers.get("Location", "")

    def pay_page(self, reference: str = "INV-1") -> str:
        return f"/Payment/ConfirmPayment/{self.sandbox.find(reference).number}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stages() -> AsyncIterator[tuple[Stage, str, Stage, str]]:
    simulator, merchant = Stage(), Stage()
    async with (
        serve(simulator, lifespan="off") as simulator_url,
        serve(merchant, lifespan="off") as merchant_url,
    ):
        yield simulator, simulator_url, merchant, merchant_url


@pytest.fixture
async def world(stages: tuple[Stage, str, Stage, str]) -> AsyncIterator[World]:
    simulator, simulator_url, merchant_stage, merchant_url = stages
    sandbox, merchant = build(simulator_url), Merchant(merchant_url)
    sandbox.callbacks.resend_after = SOON
    simulator.app, merchant_stage.app = sandbox.app, merchant.app()
    async with sandbox, aiohttp.ClientSession() as http:
        yield World(sandbox, merchant, http)


def signed(pairs: Pairs, key: str = USD_KEY) -> bool:
    return wire.is_signed(pairs, key)
