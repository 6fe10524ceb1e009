"""`/metrics`: what is counted, how long the queues are, and what is never told."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from payments_service import queues, sending
from payments_service.app import internal_app
from payments_service.db import Database
from payments_service.internal.routes import ROUTES
from payments_service.lifecycle import Outcome, Report
from payments_service.metrics import Metrics
from payments_service.money import Currency, Money
from payments_service.public.routes import routes
from tests.house import House, World
from tests.servers import serve
from tests.till import Till

README = (Path(__file__).parent.parent / "README.md").read_text()


@pytest.fixture
async def idle(world: World) -> AsyncIterator[House]:
    """The service without workers."""
    async with House.open(world, work=False) as house:
        yield house


async def scraped(house: House) -> str:
    answer = await house.call("GET", "/metrics", token=None)
    assert answer.status == 200
    return answer.body.decode()


def figures(text: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Name -> the values of its labels, in the order of their names -> the figure."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


async def paid(house: House) -> Any:
    """A payment by Paynow whose link went by WhatsApp, each step made by hand."""
    await house.save_paynow()
    payment = await house.create_link(contact_phone="077 123 4567", send="whatsapp")
    await sending.run_once(house.world.context)
    await house.world.sandbox.pay(house.reference_of(payment))
    await house.world.sandbox.settled()
    house.world.clock.forward(minutes=1)
    await house.world.look_up("paynow")
    await house.world.deliver()
    return payment


async def test_the_story_of_a_payment_is_counted(idle: House) -> None:
    """Requests, calls, the callback, the steps, the tries to tell of them, and how long each took."""
    await paid(idle)
    found = figures(await scraped(idle))
    assert found["payments_requests_total"]["internal", "create_link", "2xx"] == 1
    assert found["payments_request_seconds_count"]["internal", "create_link"] == 1
    # call, outcome, to
    assert found["payments_outside_calls_total"]["initiate", "2xx", "paynow"] == 1
    assert found["payments_outside_calls_total"]["poll", "2xx", "paynow"] >= 1
    assert found["payments_outside_call_seconds_count"]["event", "backend"] == 2
    assert found["payments_callbacks_total"]["paynow", "taken"] == 1
    assert found["payments_messages_total"]["accepted",] == 1
    assert found["payments_moves_total"] == {("paynow", "pending"): 1, ("paynow", "paid"): 1}
    assert found["payments_event_tries_total"] == {("delivered",): 2}
    assert found["payments_event_first_try_seconds_count"][()] == 2
    assert found["payments_database_up"][()] == 1
    assert {"process_resident_memory_bytes", "payments_pool_connections"} <= found.keys()
    assert not [name for name in found if name.endswith("_created")]


async def test_nothing_of_a_tenant_or_a_person_is_told(idle: House) -> None:
    """Not in any label, whatever was asked for; and strangers cannot make up labels."""
    payment = await paid(idle)
    for path in (f"/pay/{'A' * 27}", "/no/such/page", f"/callbacks/paynow/{idle.client_id}/x", "/%00"):
        await idle.get_public(path)
        await idle.call("GET", path, token=None)
    text = await scraped(idle)
    for secret in (payment["id"], payment["client_id"], payment["reference"], payment["page_url"][-27:], "such"):
        assert secret not in text
    known = {route.endpoint.__name__ for route in (*ROUTES, *routes(idle.world.context.gateways))} | {"none"}
    assert {operation for _, operation, _ in figures(text)["payments_requests_total"]} <= known


async def test_what_waits_is_told_with_its_age(idle: House) -> None:
    """Due look-ups by gateway, due and failed events, open reviews; what is not due yet does not wait."""
    till = Till(idle.world)
    late = Till(idle.world, reference="INV-2", intent="pi_2")
    await till.absorb(Report(Outcome.PAID, "Paid", Money(1251, Currency.USD), till.reference, "pi_1"))
    idle.world.rows_do("UPDATE attempts SET next_check_at = now() - interval '90 s' WHERE id = %s", late.attempt_id)
    idle.world.rows_do("UPDATE events SET next_try_at = now() - interval '70 s' WHERE state = 'due'")
    idle.world.rows_do("UPDATE events SET state = 'failed', delivered_at = NULL WHERE payment_id = %s", late.payment_id)
    found = figures(await scraped(idle))
    assert found["payments_checks_due"] == {("ecocash",): 0, ("innbucks",): 0, ("paynow",): 0, ("stripe",): 1}
    assert 90 <= found["payments_checks_oldest_seconds"]["stripe",] < 150
    assert found["payments_checks_oldest_seconds"]["paynow",] == 0
    assert found["payments_events_due"][()] == 1
    assert 70 <= found["payments_events_oldest_seconds"][()] < 130
    assert (found["payments_events_failed"][()], found["payments_reviews_open"][()]) == (1, 1)


async def test_the_database_is_asked_once_in_a_while(idle: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks often gets the same figures again."""
    before = figures(await scraped(idle))["payments_checks_due"]
    Till(idle.world)
    idle.world.rows_do("UPDATE attempts SET next_check_at = now() - interval '1 minute'")
    assert figures(await scraped(idle))["payments_checks_due"] == before
    monkeypatch.setattr(queues, "KEPT_SECONDS", 0.0)
    assert figures(await scraped(idle))["payments_checks_due"]["stripe",] == 1


async def test_without_the_database_the_rest_is_told(world: World, http: aiohttp.ClientSession) -> None:
    """`payments_database_up 0`, none of the queues, and all that was counted here."""
    away = Database("postgresql://postgres@127.0.0.1:1/nothing", wait_seconds=0.3)
    await away.open()
    context = replace(world.context, db=away)
    context.metrics.moved("paynow", "paid")
    try:
        async with (
            serve(internal_app(context, world.settings), lifespan="off") as url,
            http.get(f"{url}/metrics") as answer,
        ):
            found = figures(await answer.text())
    finally:
        await away.close()
    assert found["payments_database_up"][()] == 0
    assert "payments_checks_due" not in found
    assert found["payments_moves_total"]["paynow", "paid"] == 1


async def test_a_database_without_tables_hides_nothing(empty_database: str, idle: House) -> None:
    """As long as it is not migrated, the rest is told all the same."""
    bare = Database(empty_database)
    await bare.open()
    try:
        figures_of = queues.Queues(replace(idle.world.context, db=bare))
        await figures_of.read()
        found = figures(generate_latest(figures_of.registry).decode())
    finally:
        await bare.close()
    assert found["payments_database_up"][()] == 0


def test_two_services_in_a_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.tried("delivered")
    assert first.registry.get_sample_value("payments_event_tries_total", {"outcome": "delivered"}) == 1
    assert second.registry.get_sample_value("payments_event_tries_total", {"outcome": "delivered"}) is None


def test_what_is_no_status_has_a_name_too() -> None:
    """A customer who went away before the answer, a gateway that answers 999."""
    metrics = Metrics()
    metrics.request("public", "show", 0, 0.1)
    metrics.call("paynow.poll", "999", 0.1)
    metrics.call("paynow.poll", "ambiguous", 0.1)
    value = metrics.registry.get_sample_value
    assert value("payments_requests_total", {"listener": "public", "operation": "show", "status": "none"}) == 1
    for outcome in ("none", "ambiguous"):
        labels = {"to": "paynow", "call": "poll", "outcome": outcome}
        assert value("payments_outside_calls_total", labels) == 1


def test_what_the_doctor_found_is_told() -> None:
    """By check, with when it looked; a check that finds nothing any more goes back to 0."""
    metrics = Metrics()
    metrics.examined({"money_not_counted": 2, "history_gap": 0}, datetime(2026, 11, 28, tzinfo=UTC))
    metrics.examined({"money_not_counted": 0, "history_gap": 0}, datetime(2026, 11, 29, tzinfo=UTC))
    assert metrics.registry.get_sample_value("payments_doctor_faults", {"check": "money_not_counted"}) == 0
    assert metrics.registry.get_sample_value("payments_doctor_looked_timestamp_seconds") == 1795910400


async def test_the_readme_names_all_figures(idle: House) -> None:
    """With their labels, and nothing else."""
    await paid(idle)
    idle.world.context.metrics.examined({"history_gap": 0}, idle.world.clock())
    told: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(await scraped(idle)):
        if family.name.startswith("payments_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            told[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    rows = re.findall(r"^\| (`payments_.*?`) \| (.*?) \| .* \|$", README, re.MULTILINE)
    documented = {
        name: set(re.findall(r"`(\w+)`", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)
    }
    assert documented == told
