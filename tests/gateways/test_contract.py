"""What every gateway of the registry must do, run over each of them against its own simulator.

A new gateway joins by one entry in `SIMULATORS`; the last test fails as long as it has none.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, get_args
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio

from payments_service import links
from payments_service.accounts import COLUMNS, CONFIGURED_BY, SECRETS
from payments_service.errors import (
    Ambiguous,
    GatewayError,
    NotAccepted,
    NotConfigured,
    Refused,
    Unreachable,
    Untrusted,
)
from payments_service.gateways import registry
from payments_service.gateways.base import (
    ApproveOnPhone,
    Callback,
    EnterOtp,
    Gateway,
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
from payments_service.tables import GATEWAYS
from tests.house import settings_for
from tests.servers import Stage, listen, serve

PHONE = "+263771234567"
EVERY_EXPRESS = "ecocash, onemoney, innbucks, omari"


# --- the simulators


@dataclass
class Simulator:
    """A gateway's simulator behind the few handles that the suite needs.

    `setting` is the name of the gateway's base URL in the settings; `values` are a tenant's saved fields for every
    currency; `foreign` are another tenant's; `preferences` open every method. `pay`, `approve`, `cancel` and `refund`
    act as the customer (on the gateway's page, at a prompt) and the merchant, by our reference; `pay_code` types a code
    in the wallet's app; `otp` is what the customer got by SMS. `callback` gives the body that was posted for the
    reference last. `fault` spoils every answer of the named kind from now on, `heal` ends that.
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
    refund: Callable[[str], Awaitable[Any]]
    callback: Callable[[str], Awaitable[bytes]]
    fault: Callable[[str, str], Any]
    heal: Callable[[], Any]
    known: Callable[[], int]  # how many payments the gateway knows


@asynccontextmanager
async def _paynow(stage: Stage, url: str) -> AsyncIterator[Simulator]:
    async with paynow_sandbox.build(url) as sandbox:
        stage.app = sandbox.app
        (usd_id, usd_key, _), (zig_id, zig_key, _) = paynow_sandbox.DEMO_INTEGRATIONS

        async def callback(reference: str) -> bytes:
            await sandbox.settled()
            return [each.body for each in sandbox.deliveries if each.reference == reference][-1]

        def fault(name: str, on: str) -> None:
            operations = {"start": ["initiate", "express"], "check": ["poll", "trace"], "confirm": ["otp"]}[on]
            sandbox.add_fault(name, on=operations, seconds=0.0)

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
            refund=sandbox.refund,
            callback=callback,
            fault=fault,
            heal=sandbox.clear_faults,
            known=lambda: len(sandbox.transactions),
        )


SIMULATORS: dict[str, Callable[[Stage, str], AbstractAsyncContextManager[Simulator]]] = {"paynow": _paynow}

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
async def scene(request: pytest.FixtureRequest, stage: tuple[Stage, str]) -> AsyncIterator[Scene]:
    stand, url = stage
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
        "callback_url": "https://pay.example/callbacks/x/y",
        "payer_phone": PHONE if method.needs_phone else None,
    }
    return StartRequest(**{**fields, **changes})


def opened(asked: StartRequest, poll_url: str | None) -> Opened:
    return Opened(asked.attempt_id, asked.reference, asked.amount, poll_url, datetime.now(UTC))


# --- what a gateway says of itself


async def test_a_gateway_describes_itself(scene: Scene) -> None:
    """A name that the database knows, a title for people, currencies of ours."""
    gateway = scene.gateway
    assert gateway.name in GATEWAYS
    assert gateway.title
    assert gateway.title == gateway.title.strip()
    assert gateway.currencies
    assert gateway.currencies <= set(Currency)
    assert isinstance(gateway.callback_is_proof, bool)


async def test_the_settings_are_fields_that_can_be_saved(scene: Scene) -> None:
    """Known to payment-settings, named once, at least one of them sealed; and enough for what the backend is told."""
    settings = scene.gateway.settings
    assert settings
    assert len(set(settings)) == len(settings)
    assert set(settings) <= set(COLUMNS)
    assert set(settings) & SECRETS
    assert set(scene.simulator.values) == set(settings), "the suite's credentials cover every field"
    flags = [name for name in CONFIGURED_BY if name.startswith(scene.gateway.name)]
    assert flags
    for flag in flags:
        assert any(set(fields) <= set(settings) for fields in CONFIGURED_BY[flag])


async def test_the_preferences_are_fields_that_open_no_account(scene: Scene) -> None:
    """Known to payment-settings, apart from the settings, and readable: they may change without any key's change."""
    preferences = scene.gateway.preferences
    assert len(set(preferences)) == len(preferences)
    assert set(preferences) <= set(COLUMNS)
    assert not set(preferences) & set(scene.gateway.settings)
    assert not set(preferences) & SECRETS
    assert set(scene.simulator.preferences) == set(preferences), "the suite's preferences cover every field"
    for needed in (field for choices in CONFIGURED_BY.values() for fields in choices for field in fields):
        assert needed not in preferences, "a preference makes nothing configured"


async def test_the_methods_have_names_for_programs_and_for_people(scene: Scene) -> None:
    """Unique names that fit into a form, titles without blanks around them, a step that the page knows."""
    methods = scene.gateway.methods
    assert len({method.name for method in methods}) == len(methods)
    for method in methods:
        assert re.fullmatch(r"[a-z][a-z0-9_]{1,30}", method.name)
        assert method.title
        assert method.title == method.title.strip()
        assert method.step in get_args(NextStep)


async def test_a_link_finds_the_gateways_page(scene: Scene) -> None:
    """The first method that is a page, which asks for no phone: a link leads to it before the customer is there."""
    context = SimpleNamespace(gateways={scene.gateway.name: scene.gateway})
    assert links._page_of(context, scene.gateway.name) is page_of(scene.gateway)  # type: ignore[arg-type]
    assert not page_of(scene.gateway).needs_phone


async def test_whoever_asks_for_a_password_takes_it(scene: Scene) -> None:
    """With the contract's own parameters; and who never asks for one need not."""
    asks = any(method.step is EnterOtp for method in scene.gateway.methods)
    assert not asks or isinstance(scene.gateway, TakesOtp)
    if isinstance(scene.gateway, TakesOtp):
        own, agreed = inspect.signature(type(scene.gateway).confirm), inspect.signature(TakesOtp.confirm)
        assert list(own.parameters) == list(agreed.parameters)
        assert inspect.iscoroutinefunction(type(scene.gateway).confirm)


async def test_the_schedule_asks_ever_more_seldom(scene: Scene) -> None:
    """Positive, never shorter again, quick while the customer waits, and its last delay is fit to repeat to day 31."""
    schedule = scene.gateway.schedule
    assert all(isinstance(delay, int) and delay > 0 for delay in schedule)
    assert list(schedule) == sorted(schedule)
    assert sum(delay <= 15 for delay in schedule) * schedule[0] >= 60
    assert 3600 <= schedule[-1] <= 86_400


async def test_the_page_origin_is_a_scheme_and_a_host(scene: Scene) -> None:
    """It goes into the pay page's policy: no path, no query, no blank."""
    origin = scene.gateway.page_origin()
    if origin is not None:
        parts = urlsplit(origin)
        assert origin == f"{parts.scheme}://{parts.netloc}"
        assert parts.scheme in ("http", "https")
        assert not set(origin) & set(" ;,'\"")


async def test_a_gateway_has_the_methods_of_the_contract(scene: Scene) -> None:
    """The same names and parameters as the contract, so that no misspelt one goes unnoticed."""
    for name, method in inspect.getmembers(Gateway, inspect.isfunction):
        if not name.startswith("_"):
            own = inspect.signature(getattr(type(scene.gateway), name))
            assert list(own.parameters) == list(inspect.signature(method).parameters), name
            assert inspect.iscoroutinefunction(getattr(type(scene.gateway), name)) is (name in ("start", "check"))
    for name in Gateway.__annotations__:
        assert hasattr(scene.gateway, name), name


# --- credentials


async def test_credentials_never_print_a_secret(scene: Scene) -> None:
    for currency in scene.currencies:
        credentials = scene.credentials(currency)
        for field in set(scene.gateway.settings) & SECRETS:
            for text in (repr(credentials), str(credentials), f"{credentials!s}", repr([credentials])):
                assert scene.simulator.values[field] not in text


async def test_missing_credentials_are_told_in_plain_words(scene: Scene) -> None:
    """Nothing saved, or any one field missing: either it is not needed, or the message names it; no secret shows."""
    values = scene.simulator.values
    for currency in scene.currencies:
        for missing in [tuple(scene.gateway.settings), *((field,) for field in scene.gateway.settings)]:
            for nothing in ({}, dict.fromkeys(missing), dict.fromkeys(missing, "")):
                given = {field: value for field, value in values.items() if field not in missing} | nothing
                try:
                    scene.gateway.credentials(given, currency)
                except NotConfigured as error:
                    words = str(error)
                    assert scene.gateway.title in words
                    assert any(field in words for field in missing)
                    assert not any(values[field] in words for field in SECRETS & set(values))
                else:
                    assert len(missing) == 1, "without any field there are no credentials"


# --- what is offered


async def test_what_is_offered_is_some_of_the_methods_in_their_order(scene: Scene) -> None:
    """All of them when the preferences allow it, with any one or none of the preferences some; the page always; with a
    customer's e-mail never fewer."""
    simulator, gateway = scene.simulator, scene.gateway
    for currency in scene.currencies:
        assert gateway.offered(scene.credentials(currency), None) == gateway.methods
        for kept in [(), *((field,) for field in simulator.preferences)]:
            saved = {field: simulator.preferences[field] for field in kept}
            credentials = gateway.credentials({**simulator.values, **saved}, currency)
            fewer, more = gateway.offered(credentials, None), gateway.offered(credentials, "tmoyo@example.com")
            for offered in (fewer, more):
                assert offered == tuple(method for method in gateway.methods if method in offered)
                assert page_of(gateway) in offered
            assert set(fewer) <= set(more)


# --- the story


async def test_a_payment_is_started_is_pending_and_is_proved(scene: Scene) -> None:
    """By every method in every currency: the customer takes the step that was announced, and the report names our
    reference and exactly our amount."""
    for method, currency in scene.ways:
        attempt, started = await scene.begin(currency, method)
        assert type(started.next_step) is method.step
        assert msgspec.json.decode(msgspec.json.encode(started.next_step), type=NextStep) == started.next_step
        pending = await scene.gateway.check(scene.credentials(currency), attempt)
        assert pending.outcome is Outcome.PENDING
        await scene.pay(attempt, started.next_step)
        paid = await scene.gateway.check(scene.credentials(currency), attempt)
        assert (paid.outcome, paid.amount) == (Outcome.PAID, attempt.amount)
        assert paid.reference in (None, attempt.reference)
        assert paid.gateway_reference
        if isinstance(started.next_step, Redirect):
            assert started.next_step.url.startswith(f"{scene.gateway.page_origin()}/")


async def test_a_payment_that_the_customer_cancels_has_failed(scene: Scene) -> None:
    for method, currency in scene.ways:
        attempt, _ = await scene.begin(currency, method)
        await scene.simulator.cancel(attempt.reference)
        assert await scene.conclude(attempt) is Outcome.FAILED


async def test_money_given_back_is_reported_as_refunded(scene: Scene) -> None:
    attempt, _ = await scene.begin()
    await scene.simulator.pay(attempt.reference)
    await scene.simulator.refund(attempt.reference)
    assert await scene.conclude(attempt) is Outcome.REFUNDED


async def test_each_look_up_says_the_same(scene: Scene) -> None:
    """Looking changes nothing at the gateway."""
    attempt, _ = await scene.begin()
    await scene.simulator.pay(attempt.reference)
    reports = [await scene.gateway.check(scene.credentials(), attempt) for _ in range(3)]
    assert reports == [reports[0]] * 3


async def test_foreign_credentials_start_and_prove_nothing(scene: Scene) -> None:
    """Another tenant's keys: refused in words without them, and a payment that is paid is not proved by them."""
    foreign = scene.gateway.credentials(scene.simulator.foreign, Currency.USD)
    for method in scene.gateway.methods:
        asked = request(Money(1250, Currency.USD), method, payer_email="tmoyo@example.com")
        with pytest.raises(Refused) as raised:
            await scene.gateway.start(foreign, asked)
        for field in SECRETS & set(scene.simulator.values):
            assert scene.simulator.foreign[field] not in str(raised.value)
            assert scene.simulator.values[field] not in str(raised.value)
    attempt, _ = await scene.begin()
    await scene.simulator.pay(attempt.reference)
    with pytest.raises(GatewayError):
        await scene.gateway.check(foreign, attempt)


async def test_the_fate_of_another_attempt_is_not_this_ones(scene: Scene) -> None:
    """A look-up that is answered about another attempt: never failed, and money only under the other's reference."""
    one, _ = await scene.begin()
    for act, settled in ((scene.simulator.cancel, Outcome.FAILED), (scene.simulator.pay, Outcome.PAID)):
        other, _ = await scene.begin()
        await act(other.reference)
        assert await scene.conclude(other) is settled
        mixed = Opened(one.attempt_id, one.reference, one.amount, other.poll_url, one.started_at)
        try:
            report = await scene.gateway.check(scene.credentials(), mixed)
        except GatewayError:
            continue
        assert report.outcome in (Outcome.PENDING, Outcome.UNKNOWN) or report.reference == other.reference


# --- callbacks


async def test_a_genuine_callback_verifies(scene: Scene) -> None:
    """It names our reference, and what is kept of it holds no secret."""
    for currency in scene.currencies:
        attempt, _ = await scene.begin(currency)
        await scene.simulator.pay(attempt.reference)
        body = await scene.simulator.callback(attempt.reference)
        callback = scene.gateway.read_callback(scene.credentials(currency), body)
        assert isinstance(callback, Callback)
        assert callback.reference == attempt.reference
        assert callback.said
        for field in SECRETS & set(scene.simulator.values):
            assert scene.simulator.values[field] not in repr(callback)


async def test_a_callback_under_foreign_credentials_is_refused(scene: Scene) -> None:
    """Another tenant's signature on this tenant's URL, and one currency's on the other's."""
    attempt, _ = await scene.begin()
    await scene.simulator.pay(attempt.reference)
    body = await scene.simulator.callback(attempt.reference)
    others = [scene.gateway.credentials(scene.simulator.foreign, currency) for currency in scene.currencies]
    for credentials in others:
        with pytest.raises(Untrusted):
            scene.gateway.read_callback(credentials, body)


async def test_a_callback_with_any_byte_changed_never_says_something_else(scene: Scene) -> None:
    """Every byte, one after the other: refused, or (a field's name, which Paynow does not sign) without effect."""
    attempt, _ = await scene.begin()
    await scene.simulator.pay(attempt.reference)
    body = await scene.simulator.callback(attempt.reference)
    genuine = scene.gateway.read_callback(scene.credentials(), body)
    refused = 0
    for place in range(len(body)):
        for other in (body[place] ^ 1, body[place] ^ 0x80, ord("&"), 0):
            changed = body[:place] + bytes([other]) + body[place + 1 :]
            if changed == body:
                continue
            try:
                callback = scene.gateway.read_callback(scene.credentials(), changed)
            except Untrusted:
                refused += 1
                continue
            assert (callback.reference, callback.said) == (genuine.reference, genuine.said), changed
            assert callback.fields.items() <= genuine.fields.items(), changed
    assert refused > 3 * len(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\xff\xfe", b"{}", b"[]", b"null", b"a=1", b"<html>", b"&" * 65_536, b"a=" * 32_768, b"{" * 65_536],
    ids=lambda body: repr(body[:8]),
)
async def test_a_strangers_bytes_are_refused(scene: Scene, body: bytes) -> None:
    """Untrusted and nothing else: whoever sends it, no exception of ours or of a library comes out."""
    for currency in scene.currencies:
        with pytest.raises(Untrusted):
            scene.gateway.read_callback(scene.credentials(currency), body)


# --- lost and odd answers


async def test_a_lost_answer_is_ambiguous_and_a_look_up_finds_the_payment(scene: Scene) -> None:
    """Accepted, then the connection drops: not failed, sent once, and found again without the lost poll URL; by every
    method in every currency."""
    scene.simulator.fault("timeout_after_accepting", "start")
    for count, (method, currency) in enumerate(scene.ways, 1):
        asked, credentials = request(Money(1250, currency), method), scene.credentials(currency)
        with pytest.raises(Ambiguous):
            await scene.gateway.start(credentials, asked)
        assert scene.simulator.known() == count
        found = await scene.gateway.check(credentials, opened(asked, None))
        assert found.outcome is Outcome.PENDING
        await scene.simulator.pay(asked.reference)
        paid = await scene.gateway.check(credentials, opened(asked, found.poll_url))
        assert (paid.outcome, paid.amount) == (Outcome.PAID, asked.amount)


@pytest.mark.parametrize("fault", JUNK)
async def test_a_start_with_an_odd_answer_is_neither_refused_nor_started(scene: Scene, fault: str) -> None:
    """The gateway has taken it: only Ambiguous and Untrusted lead to a look-up, so it must be one of them."""
    scene.simulator.fault(fault, "start")
    for count, method in enumerate(scene.gateway.methods, 1):
        asked = request(Money(1250, Currency.USD), method)
        with pytest.raises((Ambiguous, Untrusted)):
            await scene.gateway.start(scene.credentials(), asked)
        assert scene.simulator.known() == count
        assert await scene.conclude(opened(asked, None)) is Outcome.PENDING


@pytest.mark.parametrize("fault", JUNK)
async def test_a_password_with_an_odd_answer_is_neither_taken_nor_refused(scene: Scene, fault: str) -> None:
    """It went through all the same: who is told that it was wrong pays twice. A look-up tells."""
    scene.simulator.fault(fault, "confirm")
    for method in (method for method in scene.gateway.methods if method.step is EnterOtp):
        attempt, started = await scene.begin(method=method)
        with pytest.raises((Ambiguous, Untrusted)):
            await scene.pay(attempt, started.next_step)
        assert await scene.conclude(attempt) is Outcome.PAID


async def test_a_wrong_password_is_not_accepted_and_changes_nothing(scene: Scene) -> None:
    for method in (method for method in scene.gateway.methods if method.step is EnterOtp):
        attempt, started = await scene.begin(method=method)
        otp, step = scene.simulator.otp(attempt.reference), started.next_step
        assert isinstance(step, EnterOtp)
        assert isinstance(scene.gateway, TakesOtp)
        with pytest.raises(NotAccepted):
            await scene.gateway.confirm(scene.credentials(), attempt, step.url, otp[::-1] + "0")
        assert await scene.conclude(attempt) is Outcome.PENDING
        await scene.pay(attempt, step)
        assert await scene.conclude(attempt) is Outcome.PAID


@pytest.mark.parametrize("fault", JUNK)
@pytest.mark.parametrize(("act", "truth"), [("pay", Outcome.PAID), ("cancel", Outcome.FAILED)])
async def test_a_look_up_with_an_odd_answer_concludes_nothing(
    scene: Scene, fault: str, act: str, truth: Outcome
) -> None:
    """Neither paid nor failed, whichever it is, with the poll URL and without; and the truth once the fault is over."""
    attempt, _ = await scene.begin()
    await getattr(scene.simulator, act)(attempt.reference)
    without = Opened(attempt.attempt_id, attempt.reference, attempt.amount, None, attempt.started_at)
    scene.simulator.fault(fault, "check")
    assert await scene.conclude(attempt) is Outcome.UNKNOWN
    assert await scene.conclude(without) is Outcome.UNKNOWN
    scene.simulator.heal()
    assert await scene.conclude(attempt) is truth
    assert await scene.conclude(without) is truth


async def test_an_attempt_that_the_gateway_never_saw_is_not_found(scene: Scene) -> None:
    """Not failed: whether it is too early to say so is for the reconciler to judge."""
    unseen = opened(request(Money(1250, Currency.USD), page_of(scene.gateway)), None)
    assert await scene.conclude(unseen) in (Outcome.NOT_FOUND, Outcome.UNKNOWN)


@pytest.mark.parametrize("name", SIMULATORS)
async def test_a_gateway_that_is_down_is_unreachable(name: str, stage: tuple[Stage, str]) -> None:
    """Nothing left this machine: a start may be called failed, a look-up says nothing."""
    listener = listen()
    port = listener.getsockname()[1]
    listener.close()
    async with SIMULATORS[name](*stage) as simulator, Transport() as transport:
        settings = settings_for(**{simulator.setting: f"http://127.0.0.1:{port}"})
        gateway = registry.build(transport, settings)[name]
        credentials = gateway.credentials({**simulator.values, **simulator.preferences}, Currency.USD)
        for method in gateway.methods:
            asked = request(Money(1250, Currency.USD), method)
            with pytest.raises(Unreachable):
                await gateway.start(credentials, asked)
            with pytest.raises(Unreachable):
                await gateway.check(credentials, opened(asked, None))


# --- completeness


async def test_every_gateway_of_the_registry_is_in_this_suite() -> None:
    """And is registered under its own name."""
    async with Transport() as transport:
        gateways = registry.build(transport, settings_for())
    assert gateways.keys() == SIMULATORS.keys()
    assert all(name == gateway.name for name, gateway in gateways.items())
