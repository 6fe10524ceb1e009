"""What the tests of InnBucks' adapter stand on: one server for a module, on it a liar."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import Response

from payments_service.errors import GatewayError
from payments_service.gateways import innbucks_session
from payments_service.gateways.base import Opened, StartRequest
from payments_service.gateways.innbucks import INQUIRY, Innbucks
from payments_service.gateways.innbucks_session import InnbucksCredentials
from payments_service.gateways.transport import Transport
from payments_service.ids import new_attempt_reference, new_id
from payments_service.lifecycle import Report
from payments_service.money import Currency, Money
from tests.servers import Stage, serve

PASSWORD, API_KEY = "correct horse battery", "7d1f0b52-InnBucks-key"
CREDENTIALS = InnbucksCredentials("acme", PASSWORD, API_KEY)
OTHERS = InnbucksCredentials("zodwa", "another password", "another-key")
VALUES = {"innbucks_username": "acme", "innbucks_password": PASSWORD, "innbucks_api_key": API_KEY}
APP_LINK, DIAL = "com.innbucks.customer://purchase?paymentToken={code}", "*569#"
ATTEMPT = UUID("019ac0de-0000-7000-8000-00000000abcd")
REFERENCE, CODE = "INV-1", "701285660"
# What start stores and reports of the code above.
GATEWAY_REFERENCE = f"{CODE}-1616800"
KEPT = f"{GATEWAY_REFERENCE} {REFERENCE}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[tuple[Stage, str]]:
    stand = Stage()
    async with serve(stand, lifespan="off") as url:
        yield stand, url


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as opened_one:
        yield opened_one


@dataclass
class Seen:
    """A call as it came."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "")


@dataclass
class Said:
    """An answer: bytes, or what JSON is made of."""

    content: object
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"{self.status} {self.content!r:.60}"

    @property
    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else msgspec.json.encode(self.content)


@dataclass
class Liar:
    """InnBucks as the documents show it, with one code; whatever is put into `says` (for good) or `once` (the next
    ones) by path is answered instead, with the call's own token for `%token%`. Each sign-in brings a token of its own,
    which counts until `forget_tokens`."""

    says: dict[str, Said] = field(default_factory=dict)
    once: defaultdict[str, list[Said]] = field(default_factory=lambda: defaultdict(list))
    seen: list[Seen] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    held: dict[str, asyncio.Event] = field(default_factory=dict)  # paths that answer only then
    good: set[str] = field(default_factory=set)

    def asked(self, path: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.path == path]

    def forget_tokens(self) -> None:
        self.good.clear()

    def hold(self, path: str) -> asyncio.Event:
        """Answers at this path wait from now on."""
        return self.held.setdefault(path, asyncio.Event())

    def inquiry(self, status: int = 200, path: str = INQUIRY, /, **changes: object) -> None:
        """What is said of the code: what the documents show, with changes; None leaves a field out."""
        self.says[path] = Said(without_nones({**inquiry(), **changes}), status)

    def generate(self, **changes: object) -> None:
        self.says[GENERATE] = Said(without_nones({**generated(1250), **changes}))

    def answer(self, seen: Seen) -> Said:
        if self.once[seen.path]:
            return self.once[seen.path].pop(0)
        if seen.path in self.says:
            return self.says[seen.path]
        if seen.path == AUTH:
            self.tokens.append(f"token-{len(self.tokens) + 1}-of-InnBucks")
            self.good.add(f"Bearer {self.tokens[-1]}")
            good = {"accessToken": self.tokens[-1], "responseCode": "00", "responseDescription": "Auth successful"}
            return Said(good)
        if seen.token not in self.good:
            return Said({"timestamp": "2026-11-28T08:00:00", "status": 401, "error": "Unauthorized"}, 401)
        if seen.path == GENERATE:
            return Said(generated(seen.body["amount"]))
        if seen.path == INQUIRY:
            return Said(inquiry())
        return Said({"timestamp": "2026-11-28T08:00:00", "status": 404, "error": "Not Found"}, 404)


AUTH, GENERATE, QUERY = "/auth/third-party", "/api/code/generate", "/api/code/query"


def generated(cents: int) -> dict[str, object]:
    return {
        "stan": "414107",
        "authNumber": "1616800",
        "processedDateTime": "2020-07-09 13:30:53.515",
        "responseCode": 0,
        "responseMsg": "Approved or completed successfully",
        "code": CODE,
        "qrCode": "iVBORw0KGgo=",
        "amount": str(cents),
        "description": "Two bags of cement",
    }


def inquiry() -> dict[str, object]:
    return {
        "responseCode": 0,
        "responseMsg": "Approved or completed successfully",
        "code": CODE,
        "amount": "1250",
        "status": "New",
        "timeToLive": "576sec",
    }


def without_nones(fields: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


@pytest.fixture
def liar(stage: tuple[Stage, str]) -> Liar:
    told = Liar()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        assert request.method == "POST"
        seen = Seen(scope["path"], dict(request.headers), msgspec.json.decode(await request.body()))
        told.seen.append(seen)
        if seen.path in told.held:
            await told.held[seen.path].wait()
        said, token = told.answer(seen), seen.token.removeprefix("Bearer ")
        headers = {name: value.replace("%token%", token) for name, value in said.headers.items()}
        await Response(said.body.replace(b"%token%", token.encode()), said.status, headers)(scope, receive, send)

    stage[0].app = answer
    return told


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def innbucks(transport: Transport, stage: tuple[Stage, str], clock: Clock) -> Innbucks:
    return Innbucks(transport, stage[1], INQUIRY, APP_LINK, DIAL, monotonic=clock)


class Hasty(Innbucks):
    """Waits only as long as a test does for an answer that never comes."""

    start_seconds = check_seconds = life_seconds = 0.2


@pytest.fixture
def hasty(transport: Transport, stage: tuple[Stage, str], monkeypatch: pytest.MonkeyPatch) -> Innbucks:
    monkeypatch.setattr(innbucks_session, "SIGN_IN_SECONDS", 0.2)
    return Hasty(transport, stage[1], INQUIRY, APP_LINK, DIAL)


def request(**changes: Any) -> StartRequest:
    fields = {
        "attempt_id": new_id(),
        "method": "innbucks",
        "reference": new_attempt_reference("INV-1"),
        "amount": Money(1250, Currency.USD),
        "description": "Two bags of cement",
        "return_url": "https://pay.example/pay/token?returned=1",
        "callback_url": "https://pay.example/callbacks/innbucks/x",
    }
    return StartRequest(**{**fields, **changes})


def opened(poll_url: str | None = KEPT, **changes: Any) -> Opened:
    fields = {
        "attempt_id": ATTEMPT,
        "reference": REFERENCE,
        "amount": Money(1250, Currency.USD),
        "poll_url": poll_url,
        "started_at": datetime.now(UTC),
    }
    return Opened(**{**fields, **changes})


async def concluded(look_up: Any) -> Report | type[GatewayError]:
    """What a look-up says, or the kind of error it raises."""
    try:
        report: Report = await look_up
    except GatewayError as error:
        return type(error)
    return report
