"""What the tests of the EcoCash simulator stand on: the simulator, a shop, an HTTP client, as one fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service.sandbox.ecocash import EcocashSandbox, build
from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, Charge, Merchant
from payments_service.sandbox.ecocash_exchange import BASES
from tests.servers import Stage, serve

DIALECTS = (OPEN_API, EIP, EIP_PORTAL)
PHONE, MSISDN = "0771234567", "263771234567"
START = 1_795_856_400.0  # 2026-11-28, 11:00 in Harare
PAID = {OPEN_API: "SUCCESS", EIP: "COMPLETED", EIP_PORTAL: "SUCCESS"}
PENDING = {OPEN_API: "PENDING_VALIDATION", EIP: "PENDING SUBSCRIBER VALIDATION", EIP_PORTAL: "PENDING"}
ZIG = {OPEN_API: "ZiG", EIP: "ZWG", EIP_PORTAL: "ZWG"}


@dataclass
class Shop:
    """A merchant's server: keeps what is posted to it, answers the given statuses first, then 200."""

    url: str = ""
    answers: list[int] = field(default_factory=list)
    posts: list[tuple[str, str, bytes]] = field(default_factory=list)  # path, content type, body

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(body) for _, _, body in self.posts]

    def app(self) -> Starlette:
        async def take(request: Request) -> Response:
            self.posts.append((request.url.path, request.headers["content-type"], await request.body()))
            return Response(status_code=self.answers.pop(0) if self.answers else 200)

        return Starlette(routes=[Route("/{rest:path}", take, methods=["POST"])])


@dataclass
class Reply:
    status: int
    raw: bytes
    kind: str

    @property
    def json(self) -> Any:
        """The content as loosely typed JSON."""
        return msgspec.json.decode(self.raw)


@dataclass
class World:
    """The simulator, a shop, and an HTTP client between them."""

    sandbox: EcocashSandbox
    shop: Shop
    http: aiohttp.ClientSession
    time: float = START

    @property
    def url(self) -> str:
        return self.sandbox.public_url

    def merchant(self, dialect: str) -> Merchant:
        """The dialect's demo merchant."""
        return next(one for one in self.sandbox.merchants if one.dialect == dialect)

    # --- the wire

    async def send(
        self,
        merchant: Merchant,
        method: str,
        path: str,
        content: object = None,
        *,
        raw: bytes | None = None,
        **headers: str,
    ) -> Reply:
        """A request with the merchant's own secrets; `headers` replace them, an empty one is left out."""
        ours = {"X-API-KEY": merchant.api_key}
        if merchant.dialect != OPEN_API:
            ours = {"Authorization": aiohttp.encode_basic_auth(merchant.username, merchant.password)}
        ours |= {"Content-Type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        body = raw if raw is not None else msgspec.json.encode(content) if content is not None else b""
        url = self.url + BASES[merchant.dialect] + path
        given = {name: text for name, text in ours.items() if text}
        async with self.http.request(method, url, data=body, headers=given, allow_redirects=False) as reply:
            return Reply(reply.status, await reply.read(), reply.content_type)

    async def charge(self, merchant: Merchant | str, correlator: str = "", **changes: Any) -> Reply:
        """Charge 12.50; `changes` are of the request's body, None leaves a member out."""
        merchant = self.merchant(merchant) if isinstance(merchant, str) else merchant
        body = charge_body(merchant, correlator or new_correlator(merchant.dialect), self.shop.url)
        return await self.send(merchant, "POST", CHARGE[merchant.dialect], changed(body, changes))

    async def charged(self, dialect: str, **changes: Any) -> Charge:
        """A charge that was just made."""
        reply = await self.charge(dialect, **changes)
        assert reply.status == 200, reply.raw
        return self.sandbox.charges[-1]

    async def paid(self, dialect: str, **changes: Any) -> Charge:
        charge = await self.charged(dialect, **changes)
        return await self.sandbox.approve(charge.correlator)

    async def lookup(self, merchant: Merchant | str, correlator: str, msisdn: str = MSISDN, **headers: str) -> Reply:
        merchant = self.merchant(merchant) if isinstance(merchant, str) else merchant
        if merchant.dialect == OPEN_API:
            body = {"sourceMobileNumber": msisdn, "sourceReference": correlator}
            return await self.send(merchant, "POST", "/api/v1/transaction/c2b/status/sandbox", body, **headers)
        return await self.send(merchant, "GET", f"/{msisdn}/transactions/amount/{correlator}", **headers)

    async def refund(
        self,
        charge: Charge,
        amount: object = 12.5,
        correlator: str = "",
        merchant: Merchant | None = None,
        **changes: Any,
    ) -> Reply:
        """Give back; asked by the charge's own merchant, unless by another."""
        merchant = merchant or charge.merchant
        body = refund_body(merchant, charge, amount, correlator or new_correlator(merchant.dialect), self.shop.url)
        return await self.send(merchant, "POST", REFUND[merchant.dialect], changed(body, changes))

    # --- what people use

    async def control(self, path: str, **content: Any) -> tuple[int, Any]:
        async with self.http.post(f"{self.url}/sandbox/ecocash/{path}", json=content) as reply:
            return reply.status, await reply.json()

    async def page(self, path: str, data: dict[str, str] | None = None) -> tuple[int, str, str]:
        method = "GET" if data is None else "POST"
        async with self.http.request(method, f"{self.url}{path}", data=data, allow_redirects=False) as reply:
            return reply.status, await reply.text(), reply.headers.get("Location", "")


CHARGE = {
    OPEN_API: "/api/v2/payment/instant/c2b/sandbox",
    EIP: "/transactions/amount",
    EIP_PORTAL: "/transactions/amount/",
}
REFUND = {
    OPEN_API: "/api/v2/refund/instant/c2b/sandbox",
    EIP: "/transactions/refund",
    EIP_PORTAL: "/transactions/refund/",
}


def new_correlator(dialect: str) -> str:
    return str(uuid4()) if dialect == OPEN_API else uuid4().hex


def charge_body(merchant: Merchant, correlator: str, notify: str, reference: str = "INV-1-K7M2") -> dict[str, Any]:
    if merchant.dialect == OPEN_API:
        return {
            "customerMsisdn": MSISDN,
            "amount": 12.5,
            "reason": f"Order {reference}",
            "currency": "USD",
            "sourceReference": correlator,
        }
    return {
        "clientCorrelator": correlator,
        "notifyUrl": f"{notify}/told/{correlator}",
        "referenceCode": reference,
        "tranType": "MER",
        "endUserId": MSISDN,
        "remarks": "Two bags of cement",
        "transactionOperationStatus": "Charged",
        "paymentAmount": {
            "charginginformation": {"amount": 12.5, "currency": "USD", "description": "Two bags of cement"},
            "chargeMetaData": {
                "channel": "WEB",
                "purchaseCategoryCode": "Online Payment",
                "onBeHalfOf": merchant.name,
            },
        },
        "merchantCode": merchant.code,
        "merchantPin": merchant.pin,
        "merchantNumber": merchant.number,
        "currencyCode": "USD",
        "countryCode": "ZW",
        "terminalID": "TERM001",
        "location": "Harare",
        "superMerchantName": merchant.name,
        "merchantName": merchant.name,
    }


def refund_body(merchant: Merchant, charge: Charge, amount: object, correlator: str, notify: str) -> dict[str, Any]:
    if charge.dialect == OPEN_API:
        return {
            "origionalEcocashTransactionReference": charge.correlator,
            "refundCorelator": correlator,
            "sourceMobileNumber": charge.msisdn,
            "amount": amount,
            "clientName": merchant.name,
            "currency": charge.currency,
            "reasonForRefund": "one bag was torn",
        }
    body = charge_body(merchant, correlator, notify) | {
        "tranType": "REF",
        "originalEcocashReference": charge.ecocash_reference,
    }
    return changed(body, {"amount": amount, "currency": charge.currency, "notifyUrl": None})


def changed(body: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The body with other members, wherever in it they stand; eip's two currencies go together."""
    if "currency" in changes and "currencyCode" in body:
        changes = {"currencyCode": changes["currency"]} | changes
    seen: set[str] = set()

    def put(part: dict[str, Any]) -> dict[str, Any]:
        seen.update(part)
        made = {name: put(value) if isinstance(value, dict) else value for name, value in part.items()}
        made |= {name: value for name, value in changes.items() if name in part}
        return {name: value for name, value in made.items() if value is not None}

    result = put(body)
    return result | {name: value for name, value in changes.items() if name not in seen and value is not None}


def amount_of(dialect: str, answer: dict[str, Any]) -> tuple[Decimal, str]:
    """What a look-up's answer says was asked, and in which currency."""
    told = answer
    if dialect == OPEN_API:
        told = answer["amount"]
    if dialect == EIP:
        told = answer["paymentAmount"]["charginginformation"]
    return Decimal(str(told["amount"])), told["currency"]


def status_of(dialect: str, answer: dict[str, Any]) -> str:
    return str(answer["transactionOperationStatus" if dialect == EIP else "status"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stages() -> AsyncIterator[tuple[Stage, str, Stage, str]]:
    simulator, shop = Stage(), Stage()
    async with serve(simulator, lifespan="off") as simulator_url, serve(shop, lifespan="off") as shop_url:
        yield simulator, simulator_url, shop, shop_url


@pytest.fixture
async def world(stages: tuple[Stage, str, Stage, str]) -> AsyncIterator[World]:
    simulator, simulator_url, shop_stage, shop_url = stages
    sandbox, shop = build(simulator_url), Shop(shop_url)
    simulator.app, shop_stage.app = sandbox.app, shop.app()
    async with sandbox, aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        made = World(sandbox, shop, http)
        sandbox.clock = lambda: made.time
        yield made
