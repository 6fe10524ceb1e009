"""What only some gateways can do besides, run over each of them that can: the second half of test_contract.py."""

from __future__ import annotations

import asyncio
import inspect
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payments_service.accounts import SECRETS
from payments_service.errors import Ambiguous, Refused, Untrusted
from payments_service.gateways import registry
from payments_service.gateways.base import (
    CallsBack,
    Opened,
    Provisions,
    RefundOrder,
    Refunds,
    Sweeps,
    TakesOtp,
    TracesRefunds,
    Withdraws,
)
from payments_service.ids import new_id
from payments_service.lifecycle import Outcome, RefundReport, RefundState, Report
from payments_service.money import Money
from tests.gateways import contract_stage
from tests.gateways.contract_stage import HOOK, JUNK, PHONE, SIMULATORS, Scene, gateway_of
from tests.house import settings_for

stage, scene = contract_stage.stage, contract_stage.scene  # fixtures

CAPABILITIES: tuple[Any, ...] = (CallsBack, TakesOtp, Withdraws, Refunds, TracesRefunds, Sweeps, Provisions)
ADAPTERS = registry.build(None, settings_for())  # type: ignore[arg-type]


def every(capability: Any) -> pytest.MarkDecorator:
    """The test runs over every gateway that has the capability."""
    names = [entry for entry in SIMULATORS if isinstance(ADAPTERS[gateway_of(entry)], capability)]
    return pytest.mark.parametrize("scene", names, indirect=True)


def itemising() -> pytest.MarkDecorator:
    """The test runs over every gateway whose look-ups tell of each refund."""
    able = {name for name, adapter in ADAPTERS.items() if isinstance(adapter, Refunds)}
    names = [entry for entry in SIMULATORS if gateway_of(entry) in able]
    return pytest.mark.parametrize(
        "scene", [name for name in names if not isinstance(ADAPTERS[gateway_of(name)], TracesRefunds)], indirect=True
    )


def without(attempt: Opened) -> Opened:
    """The attempt as it is known when the answer to its start was lost."""
    return replace(attempt, poll_url=None)


@pytest.mark.parametrize("capability", CAPABILITIES, ids=lambda each: each.__name__)
def test_a_capability_has_the_methods_that_it_promises(capability: Any) -> None:
    """The contract's own parameters, asynchronous; and at least one gateway has it."""
    able = [adapter for adapter in ADAPTERS.values() if isinstance(adapter, capability)]
    assert able
    for name, method in inspect.getmembers(capability, inspect.isfunction):
        if name.startswith("_"):
            continue
        for adapter in able:
            own = getattr(type(adapter), name)
            assert list(inspect.signature(own).parameters) == list(inspect.signature(method).parameters)
            assert inspect.iscoroutinefunction(own) is (name != "read_callback")


def test_the_fields_that_capabilities_name_are_the_gateways_own() -> None:
    for adapter in ADAPTERS.values():
        if isinstance(adapter, Sweeps):
            assert adapter.swept_with in adapter.settings
        if isinstance(adapter, Provisions):
            assert adapter.secret_field in adapter.settings
            assert adapter.secret_field in SECRETS


# --- ending what is still open


@every(Withdraws)
async def test_an_open_attempt_that_is_withdrawn_can_be_paid_no_more(scene: Scene) -> None:
    """It lapses, a look-up says the same, and asking twice is harmless."""
    attempt, _ = await scene.begin()
    for _ in range(2):
        report = await scene.gateway.withdraw(scene.credentials(), attempt)
        assert (report.outcome, report.reference) == (Outcome.LAPSED, attempt.reference)
    assert await scene.conclude(attempt) is Outcome.LAPSED
    with pytest.raises(ValueError, match="open"):
        await scene.paid(attempt)


@every(Withdraws)
async def test_an_attempt_of_which_the_start_had_no_answer_is_withdrawn_too(scene: Scene) -> None:
    """Nobody knows its name here: it is searched for, and no money can come from it any more."""
    attempt, _ = await scene.begin()
    assert (await scene.gateway.withdraw(scene.credentials(), without(attempt))).outcome is Outcome.LAPSED
    assert await scene.conclude(attempt) is Outcome.LAPSED


@every(Withdraws)
async def test_money_that_was_faster_is_reported(scene: Scene) -> None:
    """Withdrawing takes nothing back: what is paid is paid."""
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
    for known in (attempt, without(attempt)):
        report = await scene.gateway.withdraw(scene.credentials(), known)
        assert (report.outcome, report.amount) == (Outcome.PAID, attempt.amount)


@every(Withdraws)
@pytest.mark.parametrize("fault", JUNK)
async def test_a_withdrawal_with_an_odd_answer_concludes_nothing_wrong(scene: Scene, fault: str) -> None:
    """LAPSED is only said of what is; else it is an error, and a look-up tells."""
    attempt, _ = await scene.begin()
    await scene.begin()
    done = scene.simulator.fault(fault, "withdraw")
    try:
        report = await scene.gateway.withdraw(scene.credentials(), attempt)
    except (Ambiguous, Untrusted):
        pass
    else:
        assert report.outcome is Outcome.LAPSED
    assert await scene.conclude(attempt) is (Outcome.LAPSED if done else Outcome.PENDING)


@every(Withdraws)
async def test_foreign_credentials_withdraw_nothing(scene: Scene) -> None:
    attempt, _ = await scene.begin()
    foreign = scene.gateway.credentials(scene.simulator.foreign, attempt.amount.currency)
    with pytest.raises(Untrusted):
        await scene.gateway.withdraw(foreign, attempt)
    assert await scene.conclude(attempt) is Outcome.PENDING


# --- giving money back


async def paid(scene: Scene) -> tuple[Opened, str]:
    """A paid attempt, and the gateway's own name of its money."""
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
    report = await scene.gateway.check(scene.credentials(), attempt)
    assert report.gateway_reference
    return attempt, report.gateway_reference


def order(name: str, cents: int, attempt: Opened) -> RefundOrder:
    return RefundOrder(
        new_id(), name, Money(cents, attempt.amount.currency), "one bag was torn", attempt.attempt_id, PHONE
    )


async def refunds_of(scene: Scene, attempt: Opened) -> list[RefundReport]:
    """All refunds that a look-up tells of."""
    report: Report = await scene.gateway.check(scene.credentials(), attempt)
    assert report.outcome is Outcome.PAID
    assert report.settlement
    assert report.settlement.complete
    return list(report.settlement.refunds)


@itemising()
async def test_a_refund_is_done_once_however_often_it_is_sent(scene: Scene) -> None:
    """One after the other and at once; a look-up names it by our id, with its amount."""
    attempt, name = await paid(scene)
    asked = order(name, 300, attempt)
    first = await scene.gateway.refund(scene.credentials(), asked)
    again = [await scene.gateway.refund(scene.credentials(), asked)]
    again += await asyncio.gather(*(scene.gateway.refund(scene.credentials(), asked) for _ in range(5)))
    assert again == [first] * 6
    assert (first.refund_id, first.amount, first.state) == (asked.refund_id, asked.amount, RefundState.SUCCEEDED)
    assert await refunds_of(scene, attempt) == [first]


@itemising()
async def test_parts_are_given_back_until_nothing_remains(scene: Scene) -> None:
    """Then the gateway refuses, as it does one that is more than what is left; no refund comes of that."""
    attempt, name = await paid(scene)
    done = [await scene.gateway.refund(scene.credentials(), order(name, cents, attempt)) for cents in (50, 1000)]
    for cents in (201, 1250, 10_000_000):
        with pytest.raises(Refused):
            await scene.gateway.refund(scene.credentials(), order(name, cents, attempt))
    done.append(await scene.gateway.refund(scene.credentials(), order(name, 200, attempt)))
    with pytest.raises(Refused) as refused:
        await scene.gateway.refund(scene.credentials(), order(name, 1, attempt))
    assert refused.value.detail
    found = await refunds_of(scene, attempt)
    assert sorted(found, key=lambda each: each.amount.minor) == sorted(done, key=lambda each: each.amount.minor)


@itemising()
@pytest.mark.parametrize("fault", [name for name in JUNK if name != "wrong_hash"])
async def test_a_refund_with_an_odd_answer_is_found_by_a_look_up(scene: Scene, fault: str) -> None:
    """Neither refused nor done as far as we know; the look-up knows it by our id, or knows of none."""
    attempt, name = await paid(scene)
    asked = order(name, 300, attempt)
    done = scene.simulator.fault(fault, "refund")
    with pytest.raises((Ambiguous, Untrusted)):
        await scene.gateway.refund(scene.credentials(), asked)
    found = [(each.refund_id, each.amount) for each in await refunds_of(scene, attempt)]
    assert found == ([(asked.refund_id, asked.amount)] if done else [])
    scene.simulator.heal()


@itemising()
async def test_an_answer_about_another_refund_is_untrusted(scene: Scene) -> None:
    attempt, name = await paid(scene)
    await scene.gateway.refund(scene.credentials(), order(name, 300, attempt))
    scene.simulator.fault("wrong_hash", "refund")
    with pytest.raises(Untrusted):
        await scene.gateway.refund(scene.credentials(), order(name, 300, attempt))


@itemising()
async def test_foreign_credentials_and_unknown_money_are_refused(scene: Scene) -> None:
    attempt, name = await paid(scene)
    foreign = scene.gateway.credentials(scene.simulator.foreign, attempt.amount.currency)
    with pytest.raises(Refused):
        await scene.gateway.refund(foreign, order(name, 300, attempt))
    with pytest.raises(Refused):
        await scene.gateway.refund(scene.credentials(), order(f"{name}0", 300, attempt))
    assert await refunds_of(scene, attempt) == []


# --- giving money back where only a look-up of the refund itself tells of it


@every(TracesRefunds)
async def test_a_refund_is_done_once_and_can_be_found(scene: Scene) -> None:
    """Sent again under our id it is neither done again nor refused; a trace names it by our id, with its amount."""
    attempt, name = await paid(scene)
    asked = order(name, 300, attempt)
    done = await scene.gateway.refund(scene.credentials(), asked)
    assert (done.refund_id, done.amount, done.state) == (asked.refund_id, asked.amount, RefundState.SUCCEEDED)
    assert done.gateway_reference
    with pytest.raises((Ambiguous, Untrusted)):
        await scene.gateway.refund(scene.credentials(), asked)
    for _ in range(2):
        found = await scene.gateway.trace_refund(scene.credentials(), asked)
        assert found
        assert (found.refund_id, found.amount, found.state) == (done.refund_id, done.amount, done.state)
    with pytest.raises(Refused):
        await scene.gateway.refund(scene.credentials(), order(name, 951, attempt))
    await scene.gateway.refund(scene.credentials(), order(name, 950, attempt))


@every(TracesRefunds)
@pytest.mark.parametrize("fault", JUNK)
async def test_a_refund_with_an_odd_answer_is_traced(scene: Scene, fault: str) -> None:
    """Neither refused nor done as far as we know; a trace finds it, or says nothing: it never says that it failed."""
    attempt, name = await paid(scene)
    asked = order(name, 300, attempt)
    done = scene.simulator.fault(fault, "refund")
    with pytest.raises((Ambiguous, Untrusted)):
        await scene.gateway.refund(scene.credentials(), asked)
    found = await scene.gateway.trace_refund(scene.credentials(), asked)
    assert (found.refund_id, found.state) == (asked.refund_id, RefundState.SUCCEEDED) if done and found else not found


@every(TracesRefunds)
async def test_foreign_credentials_give_nothing_back(scene: Scene) -> None:
    attempt, name = await paid(scene)
    foreign = scene.gateway.credentials(scene.simulator.foreign, attempt.amount.currency)
    with pytest.raises(Refused):
        await scene.gateway.refund(foreign, order(name, 300, attempt))
    assert await scene.gateway.trace_refund(scene.credentials(), order(name, 300, attempt)) is None


# --- what could not be delivered


@every(Sweeps)
async def test_what_was_never_delivered_is_told_in_order(scene: Scene) -> None:
    """Oldest first, each a proof that names our attempt, of the time that was asked about and no other."""
    attempts = [(await scene.begin())[0] for _ in range(3)]
    for attempt in attempts:
        await scene.paid(attempt)
    now = datetime.now(UTC)
    since, until = now - timedelta(minutes=5), now + timedelta(minutes=5)
    told = await scene.gateway.missed(scene.credentials(), HOOK, since, until)
    assert [each.reference for each in told] == [attempt.reference for attempt in attempts]
    for callback in told:
        assert callback.report
        assert callback.report.outcome is Outcome.PAID
        assert callback.key
    assert len({callback.key for callback in told}) == len(told)
    assert await scene.gateway.missed(scene.credentials(), HOOK, since - timedelta(days=1), since) == []
    assert await scene.gateway.missed(scene.credentials(), HOOK, until, until + timedelta(days=1)) == []


@every(Sweeps)
@pytest.mark.parametrize("fault", [name for name in JUNK if name != "wrong_hash"])
async def test_a_sweep_with_an_odd_answer_is_no_empty_one(scene: Scene, fault: str) -> None:
    """Who took it for one would never ask about that time again."""
    scene.simulator.fault(fault, "sweep")
    now = datetime.now(UTC)
    with pytest.raises((Ambiguous, Untrusted)):
        await scene.gateway.missed(scene.credentials(), HOOK, now - timedelta(minutes=5), now)


@every(Sweeps)
async def test_foreign_credentials_sweep_nothing(scene: Scene) -> None:
    foreign = scene.gateway.credentials(scene.simulator.foreign, scene.currencies[0])
    now = datetime.now(UTC)
    with pytest.raises(Refused):
        await scene.gateway.missed(foreign, HOOK, now - timedelta(minutes=5), now)


# --- setting the callback address up


def with_secret(scene: Scene, secret: str) -> Any:
    values = {**scene.simulator.values, scene.gateway.secret_field: secret}
    return scene.gateway.credentials(values, scene.currencies[0])


@every(Provisions)
async def test_what_is_set_up_reports_with_its_secret(scene: Scene) -> None:
    """Beside the one that is there, until that is retired; afterwards only the new one's secret verifies."""
    endpoint = await scene.gateway.provision(scene.credentials(), HOOK)
    assert endpoint.url == HOOK
    assert endpoint.secret not in repr(endpoint)
    assert len(endpoint.former) == 1
    await scene.gateway.retire(scene.credentials(), endpoint.former)
    attempt, _ = await scene.begin()
    await scene.paid(attempt)
    message = await scene.posted(attempt)
    assert scene.gateway.read_callback(with_secret(scene, endpoint.secret), message)
    with pytest.raises(Untrusted):
        scene.gateway.read_callback(scene.credentials(), message)


@every(Provisions)
async def test_the_former_are_those_that_led_to_the_same_address(scene: Scene) -> None:
    """Made before, by whomever, and no others; who retires them twice, or one that never was, does no harm."""
    elsewhere = await scene.gateway.provision(scene.credentials(), f"{HOOK}/elsewhere")
    one, two = [await scene.gateway.provision(scene.credentials(), HOOK) for _ in range(2)]
    assert elsewhere.former == []
    assert one.id not in one.former
    assert sorted(two.former) == sorted([*one.former, one.id])
    before = scene.simulator.kept()
    await scene.gateway.retire(scene.credentials(), [])
    await scene.gateway.retire(scene.credentials(), [f"{one.id}0"])
    assert scene.simulator.kept() == before
    for _ in range(2):
        await scene.gateway.retire(scene.credentials(), two.former)
    assert (await scene.gateway.provision(scene.credentials(), HOOK)).former == [two.id]
    assert (await scene.gateway.provision(scene.credentials(), f"{HOOK}/elsewhere")).former == [elsewhere.id]


@every(Provisions)
@pytest.mark.parametrize("fault", [name for name in JUNK if name != "wrong_hash"])
async def test_a_set_up_with_an_odd_answer_brings_no_secret(scene: Scene, fault: str) -> None:
    scene.simulator.fault(fault, "provision")
    with pytest.raises((Ambiguous, Untrusted)):
        await scene.gateway.provision(scene.credentials(), HOOK)


@every(Provisions)
async def test_foreign_credentials_set_nothing_up(scene: Scene) -> None:
    foreign = scene.gateway.credentials(scene.simulator.foreign, scene.currencies[0])
    before = scene.simulator.kept()
    with pytest.raises(Refused):
        await scene.gateway.provision(foreign, HOOK)
    with pytest.raises(Refused):
        await scene.gateway.retire(foreign, ["x"])
    assert scene.simulator.kept() == before
