"""What the registry-wide suite stands on: every gateway's own simulator behind the same few handles.

A new gateway joins by one entry in `SIMULATORS`; the suite fails as long as it has none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import pytest_asyncio
import stripe

from payments_service.errors import Ambiguous, Unreachable, Untrusted
from payments_service.gateways import registry, stripe_events
from payments_service.gateways.base import (
    ApproveOnPhone,
    EnterOtp,
    Gateway,
    Message,
    Method,
    NextStep,
    Opened,
    Redirect,
    ShowCode,
    Started,
    StartRequest,
    TakesOtp,
)
from payments_service.gateways.transport import Transport
from payments_service.ids import new_attempt_reference, new_id
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money
from payments_service.sandbox import paynow as paynow_sandbox
from payments_service.sandbox import stripe as stripe_sandbox
from tests.house import settings_for
from tests.servers import Stage, serve

PHONE = "+263771234567"
EVERY_EXPRESS = "ecocash, onemoney, innbucks, omari"
# Nobody listens there, and the simulators post to this machine only: what they would post is on their record.
HOOK = "https://pay.example/callbacks/x/y"
FORM = {"content-type": "application/x-www-form-urlencoded"}


# --- the simulators


@dataclass
class Simulator:
    """A gateway's simulator behind the few handles that the suite needs.

    `setting` is the name of the gateway's base URL in the settings; `values` are a tenant's saved fields for every
    currency; `foreign` are such as the gateway never gave to this tenant; `preferences` open every method. `pay`,
    `approve`, `cancel` and `refund` act as the customer (on the gateway's page, at a prompt) and the merchant, by our
    reference, and raise ValueError for what cannot be done any more; `unpaid` is what a look-up says after `cancel`.
    `pay_code` types a code in the wallet's app; `otp` is what the customer got by SMS. `callback` gives what was posted
    for the reference last. `fault` spoils every answer of the named kind from now on, and says whether the gateway does
    the work all the same; `heal` ends that. `known` counts the gateway's payments, `kept` is all that it keeps.
    """

    setting: str
    values: Mapping[str, str]
    foreign: Mapping[str, str]
    preferences: Mapping[str, str]
    pay: Callable[[str], Awaitable[Any]]
    approve: Callable[[str], Awaitable[Any]]
    pay_code: Callable[[str], Awaitable[Any]]
    otp: Callable[[str], str]
    cancel: Callable[[str], Awaitable[Any]]
    unpaid: Outcome
    refund: Callable[[str], Awaitable[Any]]
    callback: Callable[[str], Awaitable[Message]]
    fault: Callable[[str, str], bool]
    heal: Callable[[], Any]
    known: Callable[[], int]
    kept: Callable[[], str]


@asynccontextmanager
async def _paynow(stage: Stage, url: str) -> AsyncIterator[Simulator]:
    async with paynow_sandbox.build(url) as sandbox:
        stage.app = sandbox.app
        (usd_id, usd_key, _), (zig_id, zig_key, _) = paynow_sandbox.DEMO_INTEGRATIONS

        async def callback(reference: str) -> Message:
            await sandbox.settled()
            body = [each.body for each in sandbox.deliveries if each.reference == reference][-1]
            return Message(body, FORM, datetime.now(UTC))

        operations = {
            "start": ["initiate", "express"],
            "check": ["poll", "trace"],
            "confirm": ["otp"],
        }

        def fault(name: str, on: str) -> bool:
            sandbox.add_fault(name, on=operations[on], seconds=0.0)
            return True

        names = ("paynow_integration_id", "paynow_integration_key")
        zig_names = ("paynow_zig_integration_id", "paynow_zig_integration_key")
        yield Simulator(
            setting="paynow_url",
            values=dict(zip((*names, *zig_names), (usd_id, usd_key, zig_id, zig_key), strict=True)),
            foreign=dict.fromkeys((*names, *zig_names), "5f0c1d2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f"),
            preferences={"paynow_auth_email": "till@acme.example", "paynow_express_methods": EVERY_EXPRESS},
            pay=sandbox.pay,
            approve=sandbox.approve,
            pay_code=sandbox.pay_code,
            otp=sandbox.otp_of,
            cancel=sandbox.cancel,
            unpaid=Outcome.FAILED,
            refund=sandbox.refund,
            callback=callback,
            fault=fault,
            heal=sandbox.clear_faults,
            known=lambda: len(sandbox.transactions),
            kept=lambda: repr(sandbox.transactions),
        )


# What the suite calls a fault, where Stripe's simulator has another name for it.
_STRIPE_FAULTS = {"wrong_hash": "wrong_object", "error500": "error500_after_accepting"}
# A search without the thing itself is a true answer of Stripe's, which signs nothing: only looking at it can be spoilt.
_STRIPE_OPERATIONS = {
    "start": ("sessions.create",),
    "check": ("sessions.retrieve", "sessions.list"),
    "withdraw": ("sessions.expire",),
    "refund": ("refunds.create",),
    "sweep": ("events.list",),
    "provision": ("webhook_endpoints.create",),
}


@asynccontextmanager
async def _stripe(stage: Stage, url: str) -> AsyncIterator[Simulator]:
    async with stripe_sandbox.build(url) as sandbox:
        stage.app = sandbox.app
        key = stripe_sandbox.DEMO_ACCOUNTS[0][0]
        account = sandbox.accounts[key]
        endpoint = sandbox.add_endpoint(account, HOOK, stripe_events.TYPES)

        async def callback(reference: str) -> Message:
            await sandbox.settled()
            for each in reversed(sandbox.deliveries):
                event = msgspec.json.decode(each.body)
                if event["data"]["object"].get("client_reference_id") == reference:
                    headers = {name.lower(): value for name, value in each.headers.items()}
                    return Message(each.body, headers, datetime.now(UTC))
            raise AssertionError("nothing was posted for the reference")

        def fault(name: str, on: str) -> bool:
            operations = [each for each in _STRIPE_OPERATIONS[on] if name != "wrong_hash" or each != "sessions.list"]
            own = _STRIPE_FAULTS.get(name, name)
            return sandbox.add_fault(own, on=operations, seconds=0.0).kind.works

        async def nobody(_name: str) -> None:
            raise AssertionError("Stripe has no such step")

        def no_otp(_name: str) -> str:
            raise AssertionError("Stripe sends no password")

        def kept() -> str:
            return repr([account.objects, [each.object for each in account.endpoints.values()]])

        yield Simulator(
            setting="stripe_url",
            values={"stripe_secret_key": key, "stripe_webhook_secret": endpoint.secret},
            foreign={"stripe_secret_key": "sk_test_OfNobodyAtAll", "stripe_webhook_secret": "whsec_of_nobody_at_all"},
            preferences={},
            pay=sandbox.pay,
            approve=nobody,
            pay_code=nobody,
            otp=no_otp,
            cancel=sandbox.expire,
            unpaid=Outcome.LAPSED,
            refund=sandbox.refund,
            callback=callback,
            fault=fault,
            heal=sandbox.clear_faults,
            known=lambda: len(sandbox.sessions()),
            kept=kept,
        )


SIMULATORS: dict[str, Callable[[Stage, str], AbstractAsyncContextManager[Simulator]]] = {
    "paynow": _paynow,
    "stripe": _stripe,
}

# What every simulator can answer instead of the truth.
JUNK = ("html", "empty", "truncated", "huge", "wrong_hash", "redirect", "error500", "timeout_after_accepting")


# --- the stage


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[tuple[Stage, str]]:
    stand = Stage()
    async with serve(stand, lifespan="off") as url:
        yield stand, url


@dataclass
class Scene:
    """One gateway with its simulator, and the steps that most tests begin with."""

    gateway: Gateway[Any]
    simulator: Simulator

    @property
    def currencies(self) -> list[Currency]:
        return sorted(self.gateway.currencies)

    @property
    def ways(self) -> list[tuple[Method, Currency]]:
        """Every method in every currency."""
        return [(method, currency) for method in self.gateway.methods for currency in self.currencies]

    def credentials(self, currency: Currency = Currency.USD) -> Any:
        """Those with which every method is open."""
        return self.gateway.credentials({**self.simulator.values, **self.simulator.preferences}, currency)

    async def begin(self, currency: Currency = Currency.USD, method: Method | None = None) -> tuple[Opened, Started]:
        """A try that the gateway accepted, by its page unless another method is named."""
        asked = request(Money(1250, currency), method or page_of(self.gateway))
        started = await self.gateway.start(self.credentials(currency), asked)
        return opened(asked, started.poll_url), started

    async def pay(self, attempt: Opened, step: NextStep) -> None:
        """The customer does what the step asks for."""
        match step:
            case Redirect():
                await self.simulator.pay(attempt.reference)
            case ApproveOnPhone():
                await self.simulator.approve(attempt.reference)
            case ShowCode(code=code):
                await self.simulator.pay_code(code)
            case EnterOtp(url=url):
                assert isinstance(self.gateway, TakesOtp)
                credentials = self.credentials(attempt.amount.currency)
                await self.gateway.confirm(credentials, attempt, url, self.simulator.otp(attempt.reference))

    async def conclude(self, attempt: Opened) -> Outcome:
        """What a look-up allows to conclude: an error that says so is UNKNOWN, as the reconciler takes it."""
        try:
            report = await self.gateway.check(self.credentials(attempt.amount.currency), attempt)
        except (Unreachable, Ambiguous, Untrusted):
            return Outcome.UNKNOWN
        assert isinstance(report, Report)
        return report.outcome


@pytest.fixture(params=SIMULATORS)
async def scene(
    request: pytest.FixtureRequest, stage: tuple[Stage, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    stand, url = stage
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)
    async with SIMULATORS[request.param](stand, url) as simulator, Transport() as transport:
        gateways = registry.build(transport, settings_for(**{simulator.setting: url}))
        yield Scene(gateways[request.param], simulator)


def page_of(gateway: Gateway[Any]) -> Method:
    return next(method for method in gateway.methods if method.step is Redirect)


def request(amount: Money, method: Method, **changes: Any) -> StartRequest:
    fields = {
        "attempt_id": new_id(),
        "method": method.name,
        "reference": new_attempt_reference("INV-1001"),
        "amount": amount,
        "description": "Two bags of cement",
        "return_url": "https://pay.example/pay/token?returned=1",
        "callback_url": HOOK,
        "page_url": "https://pay.example/pay/token",
        "payment_id": new_id(),
        "client_id": new_id(),
        "payer_phone": PHONE if method.needs_phone else None,
    }
    return StartRequest(**{**fields, **changes})


def opened(asked: StartRequest, poll_url: str | None) -> Opened:
    return Opened(asked.attempt_id, asked.reference, asked.amount, poll_url, datetime.now(UTC))
