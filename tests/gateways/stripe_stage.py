"""What the tests of Stripe's adapter stand on: one server for a module, on it the simulator or a liar."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
import stripe as sdk
from starlette.requests import Request
from starlette.responses import Response

from payments_service.errors import GatewayError
from payments_service.gateways import stripe_events
from payments_service.gateways.base import Message, Opened, StartRequest
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.transport import Transport
from payments_service.ids import new_attempt_reference, new_id
from payments_service.lifecycle import Report
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import DEMO_ACCOUNTS, StripeSandbox, build
from payments_service.sandbox.stripe_accounts import Account
from payments_service.sandbox.stripe_ledger import Seen
from payments_service.sandbox.stripe_webhooks import signature
from tests.servers import Stage, serve

(KEY, _, _, _), (OTHER_KEY, _, _, _) = DEMO_ACCOUNTS
WHSEC = "whsec_0123456789abcdefTheEndpointsOwn"
CREDENTIALS = StripeCredentials(KEY, (WHSEC,))
OTHERS = StripeCredentials(OTHER_KEY, (WHSEC,))
HOOK = "https://pay.example/callbacks/stripe/x"  # the simulator posts to this machine only, and records the rest
ATTEMPT = UUID("019ac0de-0000-7000-8000-00000000abcd")
REFERENCE = "INV-1"
SESSION = "cs_test_a1B2c3"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[tuple[Stage, str]]:
    stand = Stage()
    async with serve(stand, lifespan="off") as url:
        yield stand, url


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits half a second before it tries again: a test has no time for that."""
    monkeypatch.setattr(sdk.HTTPClient, "INITIAL_DELAY", 0)


@pytest.fixture
async def sandbox(stage: tuple[Stage, str], quick: None) -> AsyncIterator[StripeSandbox]:
    """The same simulator as everywhere, on the module's server."""
    stand, url = stage
    async with build(url) as simulator:
        stand.app = simulator.app
        yield simulator


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as opened_one:
        yield opened_one


class Hasty(Stripe):
    """Waits only as long as a test does for an answer that never comes."""

    start_seconds = check_seconds = 0.3


@pytest.fixture
def stripe(transport: Transport, stage: tuple[Stage, str]) -> Stripe:
    return Stripe(transport, stage[1])


@pytest.fixture
def hasty(transport: Transport, stage: tuple[Stage, str]) -> Stripe:
    return Hasty(transport, stage[1])


@dataclass
class Liar:
    """Answers every call with `body`, or with the next of `bodies`, and keeps what it was asked."""

    url: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def says(self, content: object, status: int = 200) -> None:
        self.body, self.status = msgspec.json.encode(content), status

    def session(self, **changes: object) -> None:
        """A session as Stripe would show the one of `opened()`, with changes."""
        self.says(session(**{"url": f"{self.url}/c/pay/{SESSION}", **changes}))


@pytest.fixture
def liar(stage: tuple[Stage, str], quick: None) -> Liar:
    stand, url = stage
    told = Liar(url)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        told.paths.append(f"{request.method} {scope['raw_path'].decode()}?{scope['query_string'].decode()}")
        told.keys.append(request.headers.get("idempotency-key", ""))
        status = told.statuses.pop(0) if told.statuses else told.status
        await Response(told.body, status, told.headers)(scope, receive, send)

    stand.app = answer
    return told


def session(**changes: object) -> dict[str, Any]:
    fields = {
        "id": SESSION,
        "object": "checkout.session",
        "status": "open",
        "payment_status": "unpaid",
        "amount_total": 1250,
        "currency": "usd",
        "client_reference_id": REFERENCE,
        "metadata": {"attempt_id": str(ATTEMPT)},
        "payment_intent": None,
        "expires_at": 1_900_000_000,
        "livemode": False,
    }
    return {**fields, **changes}


def request(**changes: Any) -> StartRequest:
    fields = {
        "attempt_id": new_id(),
        "method": "card",
        "reference": new_attempt_reference("INV-1"),
        "amount": Money(1250, Currency.USD),
        "description": "Two bags of cement",
        "return_url": "https://pay.example/pay/token?returned=1",
        "callback_url": HOOK,
        "page_url": "https://pay.example/pay/token",
        "payment_id": new_id(),
        "client_id": new_id(),
        "expires_at": datetime.now(UTC) + timedelta(hours=2),
    }
    return StartRequest(**{**fields, **changes})


def opened(poll_url: str | None = SESSION, **changes: Any) -> Opened:
    fields = {
        "attempt_id": ATTEMPT,
        "reference": REFERENCE,
        "amount": Money(1250, Currency.USD),
        "poll_url": poll_url,
        "started_at": datetime.now(UTC),
    }
    return Opened(**{**fields, **changes})


async def begin(stripe: Stripe, credentials: StripeCredentials = CREDENTIALS, **changes: Any) -> Opened:
    """An attempt that the simulator accepted, as a look-up needs it."""
    asked = request(**changes)
    started = await stripe.start(credentials, asked)
    return opened(started.poll_url, attempt_id=asked.attempt_id, reference=asked.reference, amount=asked.amount)


async def concluded(look_up: Any) -> Report | type[GatewayError]:
    """What a look-up says, or the kind of error it raises."""
    try:
        report: Report = await look_up
    except GatewayError as error:
        return type(error)
    return report


def account_of(sandbox: StripeSandbox, key: str = KEY) -> Account:
    return sandbox.accounts[key]


def asked_for(sandbox: StripeSandbox, operation: str) -> list[Seen]:
    """The requests of that kind, as they came."""
    return [seen for seen in sandbox.requests if seen.operation == operation]


# --- events


def posted(event: object, *secrets: str, at: datetime | None = None) -> Message:
    """A webhook with this event (or these bytes), signed now as Stripe signs."""
    moment = at or datetime.now(UTC)
    body = event if isinstance(event, bytes) else msgspec.json.encode(event)
    header = signature(body, secrets or (WHSEC,), int(moment.timestamp()))
    return Message(body, {"stripe-signature": header}, moment)


def event_of(kind: str, thing: object, **changes: object) -> dict[str, Any]:
    fields = {"id": "evt_1", "object": "event", "type": kind, "livemode": False, "data": {"object": thing}}
    return {**fields, **changes}


def listen(sandbox: StripeSandbox, *types: str) -> None:
    """An endpoint of the first account; what would be posted to it is on the simulator's record."""
    sandbox.add_endpoint(account_of(sandbox), HOOK, types or stripe_events.TYPES)
