"""What the tests of Paynow's adapter stand on: one server for a module, on it the simulator or a liar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import Response

from payments_service.errors import Ambiguous, GatewayError, Untrusted
from payments_service.gateways.base import EnterOtp, Message, Opened, Started, StartRequest
from payments_service.gateways.paynow import EXPRESS_METHODS, Paynow, PaynowCredentials
from payments_service.gateways.transport import Transport
from payments_service.ids import new_attempt_reference, new_id
from payments_service.lifecycle import Report
from payments_service.money import Currency, Money
from payments_service.sandbox import wire
from payments_service.sandbox.paynow import DEMO_INTEGRATIONS, PaynowSandbox, build
from tests.servers import Stage, serve

(USD_ID, USD_KEY, _), (ZIG_ID, ZIG_KEY, _) = DEMO_INTEGRATIONS
USD = PaynowCredentials(USD_ID, USD_KEY, Currency.USD)
ZIG = PaynowCredentials(ZIG_ID, ZIG_KEY, Currency.ZIG)
REAL = "https://www.paynow.co.zw"
CALLBACK = "https://pay.example/callbacks/paynow/x"  # the simulator only records what it would post there
ATTEMPT = UUID("019ac0de-0000-7000-8000-00000000abcd")


# --- the stage: one server for the module, on it the simulator or a liar


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[tuple[Stage, str]]:
    stand = Stage()
    async with serve(stand, lifespan="off") as url:
        yield stand, url


@pytest.fixture
async def sandbox(stage: tuple[Stage, str]) -> AsyncIterator[PaynowSandbox]:
    """The same simulator as everywhere, on the module's server: 20 ms instead of 200."""
    stand, url = stage
    async with build(url) as simulator:
        stand.app = simulator.app
        yield simulator


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as opened:
        yield opened


@pytest.fixture
def paynow(transport: Transport, stage: tuple[Stage, str]) -> Paynow:
    return Paynow(transport, stage[1])


class Hasty(Paynow):
    """Waits only as long as a test does for an answer that never comes."""

    start_seconds = check_seconds = 0.3


@dataclass
class Liar:
    """Answers every call with `body`, and keeps what it was asked."""

    url: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)

    def signed(self, key: str = USD_KEY, /, **fields: str) -> None:
        """Answer with these fields and a genuine hash: Paynow itself, or whoever has its key, says odd things."""
        self.body = wire.encode(wire.sign(list(fields.items()), key))

    def ok(self, **changes: str) -> None:
        """Accept: what a real Ok reply says, with changes."""
        urls = {"browserurl": f"{self.url}/Payment/ConfirmPayment/9", "pollurl": f"{self.url}/Interface/CheckPayment/"}
        self.signed(**{"status": "Ok", **urls, **changes})

    def message(self, **changes: str) -> None:
        """A status message about `opened()`, with changes."""
        fields = {"reference": "INV-1", "paynowreference": "1,082", "amount": "12.50", "status": "Paid"}
        self.signed(**{**fields, "pollurl": f"{self.url}/Interface/CheckPayment/", **changes})


@pytest.fixture
def liar(stage: tuple[Stage, str]) -> Liar:
    stand, url = stage
    told = Liar(url)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        told.paths.append(f"{request.method} {scope['raw_path'].decode()}?{scope['query_string'].decode()}")
        told.requests.append(await request.body())
        await Response(told.body, told.status, told.headers)(scope, receive, send)

    stand.app = answer
    return told


def request(**changes: Any) -> StartRequest:
    fields = {
        "attempt_id": new_id(),
        "method": "web",
        "reference": new_attempt_reference("INV-1"),
        "amount": Money(1250, Currency.USD),
        "description": "Two bags of cement",
        "return_url": "https://pay.example/pay/token?returned=1",
        "callback_url": CALLBACK,
    }
    return StartRequest(**{**fields, **changes})


def opened(url: str | None = None, **changes: Any) -> Opened:
    fields = {
        "attempt_id": ATTEMPT,
        "reference": "INV-1",
        "amount": Money(1250, Currency.USD),
        "poll_url": url,
        "started_at": datetime(2026, 11, 3, tzinfo=UTC),
    }
    return Opened(**{**fields, **changes})


def attempt_of(asked: StartRequest, poll_url: str | None) -> Opened:
    return opened(poll_url, attempt_id=asked.attempt_id, reference=asked.reference, amount=asked.amount)


async def begin(paynow: Paynow, credentials: PaynowCredentials = USD, **changes: Any) -> Opened:
    """An attempt that the simulator accepted, as a look-up needs it."""
    asked = request(**changes)
    return attempt_of(asked, (await paynow.start(credentials, asked)).poll_url)


def posted(body: bytes) -> Message:
    """A callback with this body, as it came in."""
    return Message(body, {"content-type": "application/x-www-form-urlencoded"}, datetime.now(UTC))


async def concluded(look_up: Any) -> Report | type[GatewayError]:
    """What a look-up says, or the kind of error it raises."""
    try:
        report: Report = await look_up
    except GatewayError as error:
        return type(error)
    return report


# --- express checkout

PHONE, LOCAL = "+263771234567", "0771234567"
EMAIL, OWNER = "tmoyo@example.com", "till@acme.example"
METHODS = [method.name for method in EXPRESS_METHODS]
TRUSTING = replace(USD, auth_email=OWNER, express=frozenset(METHODS))

# Faults of the simulator, and what a call that ran into one may conclude.
ODD: dict[str, type[Exception]] = {
    "html": Untrusted,
    "empty": Untrusted,
    "truncated": Untrusted,
    "redirect": Untrusted,
    "wrong_hash": Untrusted,
    "error500": Ambiguous,
    "timeout_after_accepting": Ambiguous,
}


def ask(method: str = "ecocash", **changes: Any) -> StartRequest:
    return request(**{"method": method, "payer_email": EMAIL, "payer_phone": PHONE, **changes})


async def open_by(paynow: Paynow, method: str = "ecocash", **changes: Any) -> tuple[Opened, Started]:
    """A try that the simulator accepted, and what its customer does next."""
    asked = ask(method, **changes)
    started = await paynow.start(USD, asked)
    return attempt_of(asked, started.poll_url), started


async def open_otp(paynow: Paynow, sandbox: PaynowSandbox) -> tuple[Opened, str, str]:
    """An O'mari try: where its one-time password goes, and the right one."""
    attempt, started = await open_by(paynow, "omari")
    assert isinstance(started.next_step, EnterOtp)
    return attempt, started.next_step.url, sandbox.otp_of(attempt.reference)


def accept(liar: Liar, method: str = "ecocash", /, **changes: str) -> None:
    """The liar accepts: what a real Ok reply of the method says, with changes."""
    more = {
        "innbucks": {"authorizationcode": "123456789", "authorizationexpires": "28-Nov-2026 14:05"},
        "omari": {"otpreference": "A1B2C3", "remoteotpurl": f"{liar.url}/Interface/RemoteOtp/?guid=1"},
    }
    head = {"instructions": "Look at your phone", "paynowreference": "1,082"}
    liar.signed(
        **{"status": "Ok", **head, "pollurl": f"{liar.url}/Interface/CheckPayment/", **more.get(method, {}), **changes}
    )
