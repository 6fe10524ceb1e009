"""What every gateway of the registry must do, run over each of them against its own simulator.

A new gateway joins by one entry in `SIMULATORS` (contract_stage.py); the last test fails as long as it has none.
What only some gateways can do besides is in test_contract_besides.py.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import get_args
from urllib.parse import urlsplit

import msgspec
import pytest
import stripe
from starlette.responses import Response

from payments_service import links
from payments_service.accounts import COLUMNS, SECRETS
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
    Callback,
    CallsBack,
    EnterOtp,
    Gateway,
    NextStep,
    Opened,
    Redirect,
    TakesOtp,
)
from payments_service.gateways.transport import Transport
from payments_service.lifecycle import Outcome
from payments_service.money import Currency, Money
from payments_service.tables import GATEWAYS
from tests.gateways import contract_stage
from tests.gateways.contract_stage import JUNK, SIMULATORS, Scene, gateway_of, opened, request, settings_at, usual_of
from tests.house import settings_for
from tests.servers import Stage, listen

stage, scene = contract_stage.stage, contract_stage.scene  # fixtures


# --- what a gateway says of itself


async def test_a_gateway_describes_itself(scene: Scene) -> None:
    """A name that the database knows, a title for people, currencies of ours."""
    gateway = scene.gateway
    assert gateway.name in GATEWAYS
    assert gateway.title
    assert gateway.title == gateway.title.strip()
    assert gateway.currencies
    assert gateway.currencies <= set(Currency)
    assert gateway.settles > timedelta()
    assert list(gateway.looks_after_end) == sorted(gateway.looks_after_end)
    if isinstance(gateway, CallsBack):
        assert isinstance(gateway.callback_is_proof, bool)


async def test_the_settings_are_fields_that_can_be_saved(scene: Scene) -> None:
    """Known to payment-settings, named once, at least one of them sealed; and enough for what the backend is told."""
    settings = scene.gateway.settings
    assert settings
    assert len(set(settings)) == len(settings)
    assert set(settings) <= set(COLUMNS)
    assert set(settings) & SECRETS
    assert set(scene.simulator.values) == set(settings), "the suite's credentials cover every field"
    assert scene.gateway.configured_by
    for flag, choices in scene.gateway.configured_by.items():
        assert re.fullmatch(rf"{scene.gateway.name}(_[a-z]+)?_configured", flag)
        assert choices
        assert all(fields and set(fields) <= set(settings) for fields in choices)


async def test_the_preferences_are_fields_that_open_no_account(scene: Scene) -> None:
    """Known to payment-settings, apart from the settings, and readable: they may change without any key's change."""
    preferences = scene.gateway.preferences
    assert len(set(preferences)) == len(preferences)
    assert set(preferences) <= set(COLUMNS)
    assert not set(preferences) & set(scene.gateway.settings)
    assert not set(preferences) & SECRETS
    assert set(scene.simulator.preferences) == set(preferences), "the suite's preferences cover every field"


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
    """The first method that is a page, which asks for no phone: a link leads to it before the customer is there. Of a
    gateway without one a link begins with the customer."""
    context = SimpleNamespace(gateways={scene.gateway.name: scene.gateway})
    page = links._page_of(context, scene.gateway.name)  # type: ignore[arg-type]
    assert page is next((method for method in scene.gateway.methods if method.step is Redirect), None)
    assert page is None or not page.needs_phone
    assert bool(page) is bool(scene.gateway.page_origins())


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
    assert sum(delay <= 20 for delay in schedule) * schedule[0] >= 60
    assert 3600 <= schedule[-1] <= 86_400


async def test_a_page_origin_is_a_scheme_and_a_host(scene: Scene) -> None:
    """They go into the pay page's policy: no path, no query, no blank."""
    origins = scene.gateway.page_origins()
    assert len(set(origins)) == len(origins)
    for origin in origins:
        parts = urlsplit(origin)
        assert origin == f"{parts.scheme}://{parts.netloc}"
        assert parts.scheme in ("http", "https")
        assert not set(origin) & set(" ;,'\"")


ASKING = ("start", "check", "verify")


async def test_a_gateway_has_the_methods_of_the_contract(scene: Scene) -> None:
    """The same names and parameters as the contract, so that no misspelt one goes unnoticed."""
    for name, method in inspect.getmembers(Gateway, inspect.isfunction):
        if not name.startswith("_"):
            own = inspect.signature(getattr(type(scene.gateway), name))
            assert list(own.parameters) == list(inspect.signature(method).parameters), name
            assert inspect.iscoroutinefunction(getattr(type(scene.gateway), name)) is (name in ASKING)
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
        assert gateway.offered(scene.credentials(currency), None, Money(1250, currency)) == gateway.methods
        for kept in [(), *((field,) for field in simulator.preferences)]:
            saved = {field: simulator.preferences[field] for field in kept}
            credentials = gateway.credentials({**simulator.values, **saved}, currency)
            amount = Money(1250, currency)
            fewer = gateway.offered(credentials, None, amount)
            more = gateway.offered(credentials, "tmoyo@example.com", amount)
            for offered in (fewer, more):
                assert offered == tuple(method for method in gateway.methods if method in offered)
                assert usual_of(gateway) in offered or usual_of(gateway).step is not Redirect
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
            assert started.next_step.url.startswith(tuple(f"{own}/" for own in scene.gateway.page_origins()))


async def test_a_payment_that_the_customer_gives_up_is_over(scene: Scene) -> None:
    """Failed, or lapsed where only the gateway's page has ended."""
    for method, currency in scene.ways:
        attempt, _ = await scene.begin(currency, method)
        await scene.cancelled(attempt)
        assert await scene.conclude(attempt) is scene.simulator.unpaid


async def test_money_given_back_is_reported(scene: Scene) -> None:
    """As a status of the payment, or as an item of all that became of its money."""
    if scene.simulator.refund is None:
        pytest.skip("look-ups of this gateway tell of no refunds")
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
    await scene.simulator.refund(scene.simulator.name(attempt))
    report = await scene.gateway.check(scene.credentials(), attempt)
    if report.outcome is Outcome.PAID:
        assert report.settlement
        assert report.settlement.complete
        assert [each.amount for each in report.settlement.refunds] == [attempt.amount]
    else:
        assert report.outcome is Outcome.REFUNDED


async def test_each_look_up_says_the_same(scene: Scene) -> None:
    """Looking changes nothing at the gateway."""
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
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
    await scene.paid(attempt)
    with pytest.raises(GatewayError):
        await scene.gateway.check(foreign, attempt)


async def test_the_fate_of_another_attempt_is_not_this_ones(scene: Scene) -> None:
    """A look-up that is answered about another attempt: never failed, and money only under the other's reference."""
    if not scene.simulator.echoes:
        pytest.skip("an attempt is known there by the gateway's own name of it alone")
    one, _ = await scene.begin()
    for act, settled in ((scene.simulator.cancel, scene.simulator.unpaid), (scene.simulator.pay, Outcome.PAID)):
        other, _ = await scene.begin()
        await act(scene.simulator.name(other))
        assert await scene.conclude(other) is settled
        mixed = Opened(one.attempt_id, one.reference, one.amount, other.poll_url, one.started_at)
        try:
            report = await scene.gateway.check(scene.credentials(), mixed)
        except GatewayError:
            continue
        assert report.outcome in (Outcome.PENDING, Outcome.UNKNOWN) or report.reference == other.reference


# --- callbacks


async def test_a_genuine_callback_verifies(scene: Scene) -> None:
    """It names our reference, what is kept of it holds no secret, and only where callbacks are proof it is one."""
    for currency in scene.currencies:
        attempt, _ = await scene.begin(currency)
        await scene.paid(attempt)
        message = await scene.posted(attempt)
        callback = scene.gateway.read_callback(scene.credentials(currency), message)
        assert isinstance(callback, Callback)
        assert (callback.reference, callback.attempt_id) != (None, None)
        assert callback.reference in (None, attempt.reference)
        assert callback.said
        assert callback.attempt_id in (None, attempt.attempt_id)
        if scene.gateway.callback_is_proof:
            assert callback.report
            assert (callback.report.outcome, callback.report.amount) == (Outcome.PAID, attempt.amount)
            assert callback.report.reference == attempt.reference
        else:
            assert callback.report is None
        for field in SECRETS & set(scene.simulator.values):
            assert scene.simulator.values[field] not in repr(callback)


async def test_a_callback_under_foreign_credentials_is_refused(scene: Scene) -> None:
    """Another tenant's signature on this tenant's URL, and one currency's on the other's. Where nothing is signed, who
    has learnt no address of ours gets nothing."""
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
    message = await scene.posted(attempt)
    others = [scene.gateway.credentials(scene.simulator.foreign, currency) for currency in scene.currencies]
    for credentials in others if scene.simulator.signs else []:
        with pytest.raises(Untrusted):
            scene.gateway.read_callback(credentials, message)
    for address in ("", "x", "x' OR 1=1 --", message.address[:-1] + "!"):
        if not scene.simulator.signs:
            with pytest.raises(Untrusted):
                scene.gateway.read_callback(scene.credentials(), replace(message, address=address))


async def test_a_callback_with_any_byte_changed_never_says_something_else(scene: Scene) -> None:
    """Every byte, one after the other: refused, or (a field's name, which Paynow does not sign) without effect."""
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
    message = await scene.posted(attempt)
    credentials, body, refused = scene.credentials(), message.body, 0
    genuine = scene.gateway.read_callback(credentials, message)
    assert genuine
    for place in range(len(body)):
        for other in (body[place] ^ 1, body[place] ^ 0x80, ord("&"), 0):
            changed = body[:place] + bytes([other]) + body[place + 1 :]
            if changed == body:
                continue
            try:
                callback = scene.gateway.read_callback(credentials, replace(message, body=changed))
            except Untrusted:
                refused += 1
                continue
            assert callback
            if not scene.simulator.signs:
                # Nothing is believed but that something happened; to whom, is looked up.
                assert (callback.said, callback.report) == (genuine.said, None)
                continue
            assert (callback.reference, callback.said) == (genuine.reference, genuine.said), changed
            assert callback.fields.items() <= genuine.fields.items(), changed
    assert refused > 3 * len(body) or not scene.simulator.signs


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\xff\xfe", b"{}", b"[]", b"null", b"a=1", b"<html>", b"&" * 65_536, b"a=" * 32_768, b"{" * 65_536],
    ids=lambda body: repr(body[:8]),
)
async def test_a_strangers_bytes_are_refused(scene: Scene, body: bytes) -> None:
    """Untrusted and nothing else, with the headers of a genuine one or none: no other exception comes out."""
    for currency in scene.currencies:
        attempt, _ = await scene.begin(currency)
        await scene.paid(attempt)
        genuine = await scene.posted(attempt)
        for headers in ({}, genuine.headers):
            strange = replace(genuine, body=body, headers=headers)
            if not scene.simulator.signs:
                strange = replace(strange, address="")
            with pytest.raises(Untrusted):
                scene.gateway.read_callback(scene.credentials(currency), strange)


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
        if not scene.simulator.traces:
            assert found.outcome is scene.simulator.lost
            continue
        assert found.outcome is Outcome.PENDING
        await scene.paid(asked)
        paid = await scene.gateway.check(credentials, opened(asked, found.poll_url))
        assert (paid.outcome, paid.amount) == (Outcome.PAID, asked.amount)


@pytest.mark.parametrize("fault", JUNK)
async def test_a_start_with_an_odd_answer_is_neither_refused_nor_started(scene: Scene, fault: str) -> None:
    """The gateway may have taken it: only Ambiguous and Untrusted lead to a look-up, so it must be one of them."""
    if fault in scene.simulator.start_yes:
        pytest.skip("what the gateway says to a start proves nothing there: it is looked up in any case")
    taken = scene.simulator.fault(fault, "start")
    for count, method in enumerate(scene.gateway.methods, 1):
        asked = request(Money(1250, Currency.USD), method)
        with pytest.raises((Ambiguous, Untrusted)):
            await scene.gateway.start(scene.credentials(), asked)
        assert scene.simulator.known() == (count if taken else 0)
        found = Outcome.PENDING if taken and scene.simulator.traces else scene.simulator.lost
        assert await scene.conclude(opened(asked, None)) is found


@pytest.mark.parametrize("fault", JUNK)
async def test_a_password_with_an_odd_answer_is_neither_taken_nor_refused(scene: Scene, fault: str) -> None:
    """It went through all the same: who is told that it was wrong pays twice. A look-up tells."""
    for method in (method for method in scene.gateway.methods if method.step is EnterOtp):
        scene.simulator.fault(fault, "confirm")
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
@pytest.mark.parametrize("act", ["pay", "cancel"])
async def test_a_look_up_with_an_odd_answer_concludes_nothing(scene: Scene, fault: str, act: str) -> None:
    """Neither paid nor failed, whichever it is, with the poll URL and without; and the truth once the fault is over."""
    attempt, _ = await scene.begin()
    truth = Outcome.PAID if act == "pay" else scene.simulator.unpaid
    await getattr(scene.simulator, act)(scene.simulator.name(attempt))
    without = replace(attempt, poll_url=None) if scene.simulator.traces else attempt
    scene.simulator.fault(fault, "check")
    assert await scene.conclude(attempt) is Outcome.UNKNOWN
    assert await scene.conclude(without) is Outcome.UNKNOWN
    scene.simulator.heal()
    assert await scene.conclude(attempt) is truth
    assert await scene.conclude(without) is truth


async def test_an_attempt_that_the_gateway_never_saw_is_not_found(scene: Scene) -> None:
    """Not failed: whether it is too early to say so is for the reconciler to judge."""
    unseen = opened(request(Money(1250, Currency.USD), usual_of(scene.gateway)), None)
    assert await scene.conclude(unseen) in (scene.simulator.lost, Outcome.UNKNOWN)


@pytest.mark.parametrize("name", SIMULATORS)
async def test_a_gateway_that_is_down_is_unreachable(
    name: str, stage: tuple[Stage, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing left this machine: a start may be called failed, a look-up says nothing."""
    monkeypatch.setattr(stripe.HTTPClient, "INITIAL_DELAY", 0)
    listener = listen()
    port = listener.getsockname()[1]
    listener.close()
    async with SIMULATORS[name](*stage) as simulator, Transport() as transport:
        settings = settings_at(f"http://127.0.0.1:{port}", simulator)
        gateway = registry.build(transport, settings)[gateway_of(name)]
        credentials = gateway.credentials({**simulator.values, **simulator.preferences}, Currency.USD)
        for method in gateway.methods:
            asked = request(Money(1250, Currency.USD), method)
            with pytest.raises(Unreachable):
                await gateway.start(credentials, asked)
            if simulator.traces:
                with pytest.raises(Unreachable):
                    await gateway.check(credentials, opened(asked, None))
        with pytest.raises(Unreachable):
            await gateway.verify(credentials, contract_stage.HOOK)


# --- what the gateway says of the credentials


async def test_good_credentials_are_verified_without_changing_anything(scene: Scene) -> None:
    """In words for people, without a secret, for every currency that they are for."""
    await scene.begin()
    before = scene.simulator.kept()
    for currency in scene.currencies:
        found = await scene.gateway.verify(scene.credentials(currency), contract_stage.HOOK)
        assert found.ok
        assert currency in found.currencies
        assert found.mode in ("live", "test", None)
        assert found.messages
        assert not any(scene.simulator.values[field] in repr(found) for field in SECRETS & set(scene.simulator.values))
    assert scene.simulator.kept() == before


async def test_bad_credentials_are_told_as_such(scene: Scene) -> None:
    """A refusal is an answer, no error: in words without the secrets."""
    for currency in scene.currencies:
        foreign = scene.gateway.credentials(scene.simulator.foreign, currency)
        found = await scene.gateway.verify(foreign, contract_stage.HOOK)
        assert not found.ok
        assert found.currencies == []
        assert found.messages
        assert not any(scene.simulator.foreign[field] in repr(found) for field in SECRETS & set(scene.simulator.values))


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b""), (200, b"{}"), (200, b"[]"), (500, b""), (503, b"<html>"), (302, b"")],
)
async def test_odd_answers_verify_nothing(scene: Scene, stage: tuple[Stage, str], status: int, body: bytes) -> None:
    """Whatever stands in the gateway's place: not ok, or an error that says that nothing is known."""
    stage[0].app = Response(body, status, {"Location": stage[1]})
    try:
        found = await scene.gateway.verify(scene.credentials(), contract_stage.HOOK)
    except (Unreachable, Ambiguous, Untrusted):
        return
    assert not found.ok


# --- completeness


async def test_every_gateway_of_the_registry_is_in_this_suite() -> None:
    """And is registered under its own name."""
    async with Transport() as transport:
        gateways = registry.build(transport, settings_for())
    assert list(gateways) == list(dict.fromkeys(gateway_of(entry) for entry in SIMULATORS))
    assert all(name == gateway.name for name, gateway in gateways.items())
