"""Events to the backend: signed, at least once, the same bytes every time, patient by the schedule."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from starlette.responses import Response

from payments_service import delivery, links
from payments_service.config import load
from payments_service.delivery import retry_after, sign
from tests.house import EVENTS_SECRET, World, eventually
from tests.test_payments import CLIENT, link, order, save

OTHER_SECRET = "whsec_b3RoZXItdGVzdHMtb25seS0wMTIzNDU2Nzg5YWJjZGVm"


def events(world: World) -> list[dict[str, Any]]:
    return world.rows("SELECT * FROM events ORDER BY created_at")


async def run(world: World, **forward: float) -> int:
    world.clock.forward(**forward)
    return await delivery.run_once(world.context, world.courier)


@given(body=st.binary(max_size=2000), event_id=st.uuids())
def test_signatures_are_what_an_independent_verifier_accepts(body: bytes, event_id: UUID) -> None:
    """Standard Webhooks' own library verifies ours, for any body that is text."""
    at = datetime.now(UTC)
    text = body.decode("latin-1").encode()
    headers = {
        "webhook-id": str(event_id),
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": sign(str(event_id), int(at.timestamp()), text, (EVENTS_SECRET,)),
    }
    expected = Webhook(EVENTS_SECRET).sign(str(event_id), at, text.decode())
    assert headers["webhook-signature"] == expected


async def test_while_a_secret_is_replaced_both_sign(world: World) -> None:
    """A backend with either secret verifies the event."""
    await link(world)
    world.courier = replace(world.courier, secrets=(EVENTS_SECRET, OTHER_SECRET))
    world.backend.secret = OTHER_SECRET
    assert await run(world) == 1
    assert world.backend.refused == 0
    assert events(world)[0]["state"] == "delivered"


async def test_failed_tries_follow_the_schedule_then_are_listed(world: World) -> None:
    """Every delay is kept within a tenth, every try has its row, and after the last the event is failed."""
    await link(world)
    schedule = load(
        {"ENCRYPTION_SECRET": "x" * 8 + "abcdefgh" * 4, "SERVICE_TOKENS": "a:" + "abcdefgh" * 5}
    ).events_schedule
    assert schedule == (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)
    world.courier = replace(world.courier, schedule=schedule)
    world.backend.answers = [Response("sorry", 500) for _ in range(10)]
    for delay in schedule:
        tried_at = world.clock()
        assert await run(world) == 1
        waits = events(world)[0]["next_try_at"] - tried_at
        assert timedelta(seconds=delay * 0.9) <= waits <= timedelta(seconds=delay * 1.1 + 5)
        assert await run(world) == 0
        world.clock.forward(seconds=delay * 1.1 + 1)
    assert await run(world) == 1
    event = events(world)[0]
    assert (event["state"], event["tries"], event["next_try_at"]) == ("failed", 10, None)
    tries = world.rows("SELECT * FROM event_tries ORDER BY id")
    assert [row["http_status"] for row in tries] == [500] * 10
    assert tries[0]["answer"] == "sorry"
    assert len(world.backend.bodies[str(event["id"])]) == 1


async def test_gone_stops_the_event(world: World) -> None:
    """410 says that nobody wants it: no further try."""
    await link(world)
    world.backend.answers = [Response(status_code=410)]
    assert await run(world) == 1
    assert events(world)[0]["state"] == "failed"
    assert await run(world, days=30) == 0


@pytest.mark.parametrize(("header", "seconds"), [("120", 120), ("99999999", 24 * 3600)])
async def test_retry_after_is_honoured(world: World, header: str, seconds: int) -> None:
    """The backend asks for patience: more than the schedule has, but at most a day."""
    await link(world)
    world.backend.answers = [Response(status_code=503, headers={"Retry-After": header})]
    before = world.clock()
    await run(world)
    waits = events(world)[0]["next_try_at"] - before
    assert timedelta(seconds=seconds) <= waits < timedelta(seconds=seconds + 30)


def test_retry_after_reads_dates_and_ignores_nonsense() -> None:
    """Both forms of the header; whatever else is none."""
    at = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
    assert retry_after("Tue, 24 Nov 2026 12:00:30 GMT", at) == timedelta(seconds=30)
    assert retry_after("Tue, 24 Nov 2026 11:00:00 GMT", at) == timedelta()
    assert retry_after(" 7 ", at) == timedelta(seconds=7)
    for nonsense in (None, "", "soon", "-5", "1.5", "٣", "Tue, 99 Nov"):
        assert retry_after(nonsense, at) in (None, timedelta(seconds=3))


async def test_redirects_are_not_followed(world: World) -> None:
    """An event goes to EVENTS_URL or nowhere."""
    await link(world)
    world.backend.answers = [Response(status_code=307, headers={"Location": world.backend.url})]
    assert await run(world) == 1
    assert len(world.backend.received) == 1
    event = events(world)[0]
    assert (event["state"], event["tries"]) == ("due", 1)
    assert "redirect" in world.one("SELECT error FROM event_tries")["error"]


async def test_an_unreachable_backend_costs_a_try_and_nothing_else(world: World) -> None:
    """The event waits; when the backend is back it gets the same bytes."""
    await link(world)
    address = world.courier.url
    world.courier = replace(world.courier, url="http://127.0.0.1:1/events")
    assert await run(world) == 1
    body = events(world)[0]["body"]
    world.courier = replace(world.courier, url=address)
    assert await run(world, minutes=10) == 1
    event = events(world)[0]
    assert event["state"] == "delivered"
    assert event["body"] == body
    assert world.backend.bodies[str(event["id"])] == {body.encode()}


async def test_two_couriers_share_the_work(world: World) -> None:
    """What one has claimed the other does not get."""
    await save(world)
    for number in range(20):
        await links.create_link(world.context, CLIENT, order(world, reference=f"INV-{number}"))
    taken = await asyncio.gather(*(delivery.claim(world.context, 7) for _ in range(6)))
    ids = [row["id"] for rows in taken for row in rows]
    assert len(ids) == len(set(ids)) == 20


async def test_a_try_that_was_cut_off_is_repeated_with_the_same_id(world: World) -> None:
    """A process that dies between sending and recording sends again when its lease ends: same id, same bytes."""
    await link(world)
    (claimed,) = await delivery.claim(world.context, 5)
    await delivery._post(world.courier, claimed, world.clock())
    assert await run(world) == 0
    assert await run(world, seconds=61) == 1
    first, second = world.backend.received
    assert first["id"] == second["id"]
    assert first == second
    assert len(world.backend.bodies[first["id"]]) == 1


async def test_a_slow_event_does_not_hold_up_the_others(world: World) -> None:
    """One answer hangs; the rest are delivered meanwhile."""
    await save(world)
    from payments_service import workers

    hanging = asyncio.Event()

    class Hang(Response):
        async def __call__(self, *arguments: Any) -> None:
            await hanging.wait()
            await super().__call__(*arguments)

    world.backend.answers = [Hang(status_code=204)]
    for number in range(30):
        await links.create_link(world.context, CLIENT, order(world, reference=f"INV-{number}"))
    stop = asyncio.Event()
    work = asyncio.create_task(workers.run(world.context, world.courier, stop))
    try:
        await eventually(lambda: len(world.rows("SELECT FROM events WHERE state = 'delivered'")) == 29)
    finally:
        hanging.set()
        stop.set()
        await work
    assert len(world.rows("SELECT FROM events WHERE state = 'delivered'")) == 30


async def test_without_an_address_events_wait(world: World) -> None:
    """EVENTS_URL is not set: nothing is lost, nothing is tried."""
    from payments_service import workers

    await link(world)
    stop = asyncio.Event()
    work = asyncio.create_task(workers.run(world.context, None, stop))
    await asyncio.sleep(0)
    stop.set()
    await work
    event = events(world)[0]
    assert (event["state"], event["tries"]) == ("due", 0)
