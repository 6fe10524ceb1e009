"""What the tests of the WhatsApp simulator stand on: the simulator, a business's server, an HTTP client, a clock."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from payments_service.sandbox.whatsapp import DEMO_APP_SECRET, DEMO_SENDERS, DEMO_VERIFY_TOKEN, WhatsappSandbox, build
from payments_service.sandbox.whatsapp_messages import Message, Sender
from tests.servers import Stage, serve

NOON = 1_796_983_200.0  # 2026-12-11 10:00:00 UTC, noon in Harare
CUSTOMER = "+263771234567"
PICTURE = b"\x89PNG\r\n\x1a\nno more than a name"
PAGE = """<!doctype html><html><head><title>Pay</title><meta property="og:title" content="Pay USD 12.50 to Acme">
<meta property="og:description" content="For Order 1001"><meta property="og:image" content="/picture.png">
<meta property="og:title" content="Another"></head><body>Pay page</body></html>"""


@dataclass
class Business:
    """The server of whoever sends: its webhook and its pay page. Answers webhooks with `answers` first, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[tuple[bytes, Mapping[str, str]]] = field(default_factory=list)
    looked: list[Mapping[str, str]] = field(default_factory=list)
    page: str = PAGE
    picture: bytes = PICTURE

    @property
    def hook(self) -> str:
        return f"{self.url}/callbacks/whatsapp"

    @property
    def bodies(self) -> list[Any]:
        return [msgspec.json.decode(body) for body, _ in self.posts]

    @property
    def values(self) -> list[Any]:
        return [change["value"] for body in self.bodies for entry in body["entry"] for change in entry["changes"]]

    @property
    def statuses(self) -> list[Any]:
        return [status for value in self.values for status in value.get("statuses", ())]

    @property
    def words(self) -> list[str]:
        return [status["status"] for status in self.statuses]

    def signed(self) -> list[bool]:
        """Which posts were signed with the app's secret, over the very bytes that came."""
        marks = [
            "sha256=" + hmac.new(DEMO_APP_SECRET.encode(), body, hashlib.sha256).hexdigest() for body, _ in self.posts
        ]
        return [
            headers.get("x-hub-signature-256") == mark for mark, (_, headers) in zip(marks, self.posts, strict=True)
        ]

    def app(self) -> Starlette:
        async def verify(request: Request) -> Response:
            asked = request.query_params
            known = (asked["hub.mode"], asked["hub.verify_token"]) == ("subscribe", DEMO_VERIFY_TOKEN)
            return PlainTextResponse(asked["hub.challenge"] if known else "", 200 if known else 403)

        async def take(request: Request) -> Response:
            self.posts.append((await request.body(), request.headers))
            return Response(status_code=self.answers.pop(0) if self.answers else 200)

        async def pay(request: Request) -> Response:
            self.looked.append(request.headers)
            return HTMLResponse(self.page)

        async def picture(_request: Request) -> Response:
            return Response(self.picture, media_type="image/png")

        return Starlette(
            routes=[
                Route("/callbacks/whatsapp", verify, methods=["GET"]),
                Route("/callbacks/whatsapp", take, methods=["POST"]),
                Route("/pay/{token}", pay),
                Route("/picture.png", picture),
            ]
        )


@dataclass
class Reply:
    status: int
    raw: bytes
    headers: Mapping[str, str]

    @property
    def content(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def code(self) -> int:
        return int(self.content["error"]["code"])

    @property
    def id(self) -> str:
        return str(self.content["messages"][0]["id"])


@dataclass
class World:
    """The simulator, the business and an HTTP client; `now` is the simulator's time."""

    sandbox: WhatsappSandbox
    business: Business
    http: aiohttp.ClientSession
    now: float = NOON

    @property
    def url(self) -> str:
        return self.sandbox.public_url

    @property
    def sender(self) -> Sender:
        return self.sandbox.senders[DEMO_SENDERS[0][0]]

    @property
    def other(self) -> Sender:
        return self.sandbox.senders[DEMO_SENDERS[1][0]]

    async def post(self, body: object, path: str = "", token: str | None = None) -> Reply:
        sender = self.sender
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token or sender.token}"}
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        url = f"{self.sandbox.url}/{path or f'v26.0/{sender.phone_number_id}/messages'}"
        async with self.http.post(url, data=data, headers=headers, allow_redirects=False) as reply:
            return Reply(reply.status, await reply.read(), reply.headers)

    async def template(self, data: str = "msg-1", *, to: str = CUSTOMER, **changes: Any) -> Reply:
        return await self.post(template(to=to, biz_opaque_callback_data=data, **changes))

    async def text(self, body: str = "Pay here", data: str = "msg-1", *, to: str = CUSTOMER, **more: Any) -> Reply:
        return await self.post(text(body, to=to, biz_opaque_callback_data=data, **more))

    async def sent(self, data: str = "msg-1", *, to: str = CUSTOMER) -> Message:
        """A template that was accepted, and all its webhooks."""
        assert (await self.template(data, to=to)).status == 200
        await self.sandbox.settled()
        return self.sandbox.find(data)

    async def control(self, path: str, **content: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/sandbox/whatsapp/{path}", json=content) as reply:
            return reply.status, await reply.json()

    async def told(self, path: str) -> Any:
        async with self.http.get(f"{self.url}/sandbox/whatsapp/{path}") as reply:
            return await reply.json()

    async def page(self, path: str, data: dict[str, str] | None = None) -> tuple[int, str, str]:
        method = "GET" if data is None else "POST"
        async with self.http.request(method, f"{self.url}{path}", data=data, allow_redirects=False) as reply:
            return reply.status, await reply.text(), reply.headers.get("Location", "")


def parameters(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": one} for one in texts]


def components(*texts: str, suffix: str = "AbC123") -> list[dict[str, Any]]:
    button = {"type": "button", "sub_type": "url", "index": "0", "parameters": parameters(suffix)}
    return [{"type": "body", "parameters": parameters(*texts)}, button]


def template(**changes: Any) -> dict[str, Any]:
    """The body of the protocol page's example; a member that is None is left out."""
    filled = components("Acme", "USD 12.50", "Order 1001")
    body = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": CUSTOMER,
        "type": "template",
        "template": {"name": "payment_request", "language": {"code": "en"}, "components": filled},
    }
    return {name: value for name, value in (body | changes).items() if value is not None}


def text(body: str = "Pay here", **changes: Any) -> dict[str, Any]:
    plain = template(type="text", template=None) | {"text": {"preview_url": False, "body": body}}
    return {name: value for name, value in (plain | changes).items() if value is not None}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stages() -> AsyncIterator[tuple[Stage, str, Stage, str]]:
    simulator, business = Stage(), Stage()
    async with serve(simulator, lifespan="off") as url, serve(business, lifespan="off") as business_url:
        yield simulator, url, business, business_url


@pytest.fixture
async def world(stages: tuple[Stage, str, Stage, str]) -> AsyncIterator[World]:
    simulator, url, stage, business_url = stages
    sandbox, business = build(url), Business(business_url)
    sandbox.webhooks.resend_after = (0.0, 0.0)
    sandbox.pair_seconds = 0.0
    sandbox.button_url = f"{business_url}/pay/{{{{1}}}}"
    simulator.app, stage.app = sandbox.app, business.app()
    async with sandbox, aiohttp.ClientSession() as http:
        world = World(sandbox, business, http)
        sandbox.clock = lambda: world.now
        await sandbox.subscribe(business.hook)
        yield world
