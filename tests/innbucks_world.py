"""What the tests of the InnBucks simulator stand on: the simulator, an HTTP client and a clock, as one fixture."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from payments_service.sandbox.innbucks import DEMO_MERCHANTS, InnbucksSandbox, build
from payments_service.sandbox.innbucks_codes import Code, Merchant
from tests.servers import Stage, serve

NOON = 1_796_983_200.0  # 2026-12-11 10:00:00 UTC, noon in Harare


@dataclass
class Reply:
    status: int
    raw: bytes
    headers: Mapping[str, str]

    @property
    def content(self) -> Any:
        return msgspec.json.decode(self.raw)

    def __getitem__(self, name: str) -> Any:
        return self.content[name]


@dataclass
class World:
    """The simulator and an HTTP client; `now` is the simulator's time."""

    sandbox: InnbucksSandbox
    http: aiohttp.ClientSession
    now: float = NOON
    tokens: dict[str, str] = field(default_factory=dict)
    references: Iterator[int] = field(default_factory=itertools.count)

    @property
    def url(self) -> str:
        return self.sandbox.public_url

    @property
    def merchant(self) -> Merchant:
        return self.sandbox.merchants[DEMO_MERCHANTS[0][0]]

    @property
    def other(self) -> Merchant:
        return self.sandbox.merchants[DEMO_MERCHANTS[1][0]]

    async def send(self, path: str, body: object = None, *, method: str = "POST", **headers: str) -> Reply:
        """A request as it is: headers by name, `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named = {"Content-Type": "application/json"} | named
        data = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        url = f"{self.sandbox.url}{path}"
        async with self.http.request(method, url, data=data, headers=named, allow_redirects=False) as reply:
            return Reply(reply.status, await reply.read(), reply.headers)

    async def auth(self, merchant: Merchant | None = None, **changes: object) -> Reply:
        who = merchant or self.merchant
        body = {"username": who.username, "password": who.password} | changes
        return await self.send("/auth/third-party", body, X_Api_Key=who.api_key)

    async def call(
        self, path: str, body: object = None, *, by: Merchant | None = None, method: str = "POST", **headers: str
    ) -> Reply:
        """A request with key and token; the token is asked for once."""
        who = by or self.merchant
        if who.username not in self.tokens:
            self.tokens[who.username] = (await self.auth(who))["accessToken"]
        proof = {"X_Api_Key": who.api_key, "Authorization": f"Bearer {self.tokens[who.username]}"}
        return await self.send(path, body, method=method, **proof | headers)

    async def generate(self, reference: str = "INV-1", *, by: Merchant | None = None, **changes: object) -> Reply:
        body = {"reference": reference, "narration": "Two bags of cement", "amount": 1250, "type": "PAYMENT"}
        return await self.call("/api/code/generate", body | changes, by=by)

    async def inquire(
        self, code: str, *, by: Merchant | None = None, path: str = "inquiry", **changes: object
    ) -> Reply:
        body = {"reference": f"look-{next(self.references)}", "code": code} | changes
        return await self.call(f"/api/code/{path}", body, by=by)

    async def statement(self, account_id: str = "", **more: Any) -> Reply:
        path = f"/api/code/{account_id or self.merchant.account_id}/miniStatement"
        return await self.call(path, method="GET", **more)

    async def made(self, reference: str = "INV-1", **changes: Any) -> Code:
        """A code, asked for over HTTP."""
        reply = await self.generate(reference, **changes)
        return self.sandbox.find(reply["code"])

    async def control(self, path: str, **content: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/sandbox/innbucks/{path}", json=content) as reply:
            return reply.status, await reply.json()

    async def page(self, path: str, data: dict[str, str] | None = None) -> tuple[int, str, str]:
        method = "GET" if data is None else "POST"
        async with self.http.request(method, f"{self.url}{path}", data=data, allow_redirects=False) as reply:
            return reply.status, await reply.text(), reply.headers.get("Location", "")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[tuple[Stage, str]]:
    simulator = Stage()
    async with serve(simulator, lifespan="off") as url:
        yield simulator, url


@pytest.fixture
async def world(stage: tuple[Stage, str]) -> AsyncIterator[World]:
    simulator, url = stage
    sandbox = build(url)
    simulator.app = sandbox.app
    async with sandbox, aiohttp.ClientSession() as http:
        world = World(sandbox, http)
        sandbox.clock = lambda: world.now
        yield world
