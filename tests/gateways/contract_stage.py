"""What the registry-wide suite stands on: every gateway's own simulator behind the same few handles.

A new gateway joins by one entry in `SIMULATORS`; the suite fails as long as it has none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
import stripe

from payments_service.config import Settings
from payments_service.errors import Ambiguous, Unreachable, Untrusted
from payments_service.gateways import registry
from payments_service.gateways.base import (
    ApproveOnPhone,
    CallsBack,
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
from tests.gateways import contract_simulators as simulators
from tests.gateways.contract_simulators import HOOK, Simulator
from tests.house import settings_for
from tests.servers import Stage, serve

PHONE = "+263771234567"

SIMULATORS: dict[str, Callable[[Stage, str], AbstractAsyncContextManager[Simulator]]] = {
    "ecocash": simulators.ecocash("open_api"),
    "ecocash eip": simulators.ecocash("eip"),
    "ecocash eip_portal": simulators.ecocash("eip_portal"),
    "innbucks": simulators.innbucks,
    "paynow": simulators.paynow,
    "stripe": simulators.stripe,
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
        """A try that the gateway accepted, by its page, if it has one, unless another method is named."""
        asked = request(Money(1250, currency), method or usual_of(self.gateway))
        started = await self.gateway.start(self.credentials(currency), asked)
        return opened(asked, started.poll_url), started

    async def pay(self, attempt: Opened, step: NextStep) -> None:
        """The customer does what the step asks for."""
        match step:
            case Redirect():
                await self.simulator.pay(self.simulator.name(attempt))
            case ApproveOnPhone():
                await self.simulator.approve(self.simulator.name(attempt))
            case ShowCode(code=code):
                await self.simulator.pay_code(code)
            case EnterOtp(url=url):
                assert isinstance(self.gateway, TakesOtp)
                credentials = self.credentials(attempt.amount.currency)
                await self.gateway.confirm(credentials, attempt, url, self.simulator.otp(attempt.reference))

    async def paid(self, attempt: Opened | StartRequest) -> None:
        """The money comes, in whatever way."""
        await self.simulator.pay(self.simulator.name(attempt))

    async def cancelled(self, attempt: Opened) -> None:
        """The customer says no."""
        await self.simulator.cancel(self.simulator.name(attempt))

    async def posted(self, attempt: Opened) -> Message:
        """What the gateway called back last; a gateway that never does ends the test."""
        if self.simulator.callback is None:
            assert not isinstance(self.gateway, CallsBack)
            pytest.skip("this gateway never calls back")
        return await self.simulator.callback(self.simulator.name(attempt))

    async def conclude(self, attempt: Opened) -> Outcome:
        """What a look-up allows to conclude: an error that says so is UNKNOWN, as the reconciler takes it."""
        try:
            report = await self.gateway.check(self.credentials(attempt.amount.currency), attempt)
        except (Unreachable, Ambiguous, Untrusted):
            return Outcome.UNKNOWN
        assert isinstance(report, Report)
        # Money of another attempt is for a person to judge.
        return report.outcome if report.reference in (None, attempt.reference) else Outcome.UNKNOWN


@pytest.fixture(params=SIMULATORS)
async def scene(
    request: pytest.FixtureRequest, stage: tuple[Stage, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Scene]:
    stand, url = stage
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)
    async with SIMULATORS[request.param](stand, url) as simulator, Transport() as transport:
        gateways = registry.build(transport, settings_at(url, simulator))
        yield Scene(gateways[gateway_of(request.param)], simulator)


def gateway_of(entry: str) -> str:
    """The gateway that an entry of SIMULATORS is of: `ecocash eip` is one dialect of it."""
    return entry.partition(" ")[0]


def settings_at(url: str, simulator: Simulator) -> Settings:
    """Settings that lead to the simulator there."""
    return settings_for(**{name: url + place for name, place in simulator.places.items()})


def usual_of(gateway: Gateway[Any]) -> Method:
    """The gateway's page, else its first method."""
    return next((method for method in gateway.methods if method.step is Redirect), gateway.methods[0])


def request(amount: Money, method: Method, **changes: Any) -> StartRequest:
    attempt_id = new_id()
    fields = {
        "attempt_id": attempt_id,
        "method": method.name,
        "reference": new_attempt_reference("INV-1001"),
        "amount": amount,
        "description": "Two bags of cement",
        "return_url": "https://pay.example/pay/token?returned=1",
        "callback_url": f"{HOOK}/{attempt_id}",
        "page_url": "https://pay.example/pay/token",
        "payment_id": new_id(),
        "client_id": new_id(),
        "payer_phone": PHONE if method.needs_phone else None,
    }
    return StartRequest(**{**fields, **changes})


def opened(asked: StartRequest, poll_url: str | None) -> Opened:
    return Opened(asked.attempt_id, asked.reference, asked.amount, poll_url, datetime.now(UTC), asked.payer_phone)
