"""Events that are pulled, and events that are sent once more."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio
from starlette.responses import Response

from payments_service import delivery, replay
from payments_service.context import Context
from payments_service.replay import Wanted
from tests.house import House, World, eventually
from tests.support import afresh, open_house


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    house.world.backend.answers.clear()
    house.world.rows_do("UPDATE events SET state = 'failed', next_try_at = NULL WHERE state = 'due'")
    await house.save_paynow()
    return house


async def pull(house: House, **query: object) -> tuple[list[dict[str, Any]], str]:
    rest = "&".join(f"{name}={value}" for name, value in {"client_id": house.client_id, **query}.items())
    answer = await house.call("GET", f"/v1/events?{rest}")
    assert answer.status == 200, answer.body
    return answer.json["data"], answer.json["next_cursor"]


async def deliver(house: House) -> None:
    await house.world.deliver()


async def test_pulled_events_are_those_that_are_pushed(house: House) -> None:
    """The same id, type, time and data; then nothing new, and the cursor stays good."""
    payment = await house.create_link(gateway=None)
    await deliver(house)
    (pushed,) = house.world.backend.of(payment["id"])
    (event,), cursor = await pull(house)
    assert {name: event[name] for name in ("id", "type", "timestamp", "data")} == pushed
    assert (event["client_id"], event["payment_id"]) == (str(house.client_id), payment["id"])
    assert (event["state"], event["replays"], event["next_try_at"]) == ("delivered", 0, None)
    assert [tried["http_status"] for tried in event["tries"]] == [204]
    assert await pull(house, after=cursor) == ([], cursor)
    other = await house.create_link(gateway=None)
    (newer,), _ = await pull(house, after=cursor)
    assert newer["payment_id"] == other["id"]


@pytest.mark.parametrize("batch", [1, 1000])
async def test_a_filter_that_nothing_fits_is_not_looked_for_twice(
    house: House, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """The cursor goes beyond all that was looked at, and what comes later is found."""
    monkeypatch.setattr(replay, "_BATCH", batch)
    payments = [await house.create_link(gateway=None) for _ in range(3)]
    nothing, cursor = await pull(house, type="payment.cancelled")
    assert nothing == []
    assert int(cursor) == house.world.one("SELECT max(position) AS newest FROM events")["newest"] >= 3
    assert await pull(house, type="payment.cancelled", after=cursor) == ([], cursor)
    assert (await house.call("POST", house.path(f"/payments/{payments[1]['id']}/cancel"))).status == 200
    await house.create_link(gateway=None)
    (event,), beyond = await pull(house, type="payment.cancelled", after=cursor)
    assert event["payment_id"] == payments[1]["id"]
    assert int(beyond) == int(cursor) + 2
    # In another state it may be tomorrow: who asks for one begins where the last was found.
    assert await pull(house, state="failed", after=cursor) == ([], cursor)


async def test_who_pulls_while_events_are_made_comes_to_an_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing fits: what is made meanwhile is left to the next one."""
    number, asked = replay._numbered, 0

    async def numbered(context: Context, state: str | None) -> bool:
        nonlocal asked
        asked += 1
        more = await number(context, state)
        if asked < 5:
            await house.create_link(gateway=None)
        return more

    monkeypatch.setattr(replay, "_numbered", numbered)
    await house.create_link(gateway=None)
    assert (await pull(house, type="payment.cancelled"))[0] == []
    assert asked == 1


async def test_who_waited_for_another_goes_on_to_the_end(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page means that there is nothing new: not that somebody else has just numbered what was next."""
    await pull(house)
    monkeypatch.setattr(replay, "_BATCH", 1)
    await house.create_link(gateway=None)
    payment = await house.create_link(gateway=None)
    assert (await house.call("POST", house.path(f"/payments/{payment['id']}/cancel"))).status == 200
    with psycopg.connect(house.world.database) as other:
        other.execute(replay._NUMBER.format(which="true"), {"limit": 1})
        pulling = asyncio.create_task(pull(house, type="payment.cancelled"))
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await eventually(lambda: house.world.rows(waiting))
    (event,), _ = await pulling
    assert event["payment_id"] == payment["id"]


async def test_pages_are_whole(house: House) -> None:
    made = [(await house.create_link(gateway=None))["id"] for _ in range(5)]
    seen, cursor = [], "0"
    while True:
        page, cursor = await pull(house, after=cursor, limit=2)
        seen += [event["payment_id"] for event in page]
        if not page:
            break
    assert seen == made


@pytest.mark.parametrize(
    "query", ["after=x", "after=-1", "limit=0", "limit=501", "type=payment.lost", "state=gone", "x=1"]
)
async def test_what_cannot_be_asked_is_told(house: House, query: str) -> None:
    answer = await house.call("GET", f"/v1/events?{query}")
    assert answer.status == 422
    assert answer.json["errors"][0]["field"] == query.partition("=")[0]


async def test_failed_events_are_listed_with_what_the_backend_said(house: House) -> None:
    """Status and first words of each try; and sent once more by id, under another name, they arrive."""
    world = house.world
    payment = await house.create_link(gateway=None)
    world.backend.answers.append(Response("go away, please", 410))
    await deliver(house)
    (event,), _ = await pull(house, state="failed")
    assert [(tried["http_status"], tried["answer"]) for tried in event["tries"]] == [(410, "go away, please")]
    answer = await house.call("POST", f"/v1/events/{event['id']}/redeliver")
    assert (answer.status, answer.json["state"], answer.json["replays"]) == (202, "due", 1)
    await deliver(house)
    first, second = world.backend.of(payment["id"])
    assert (first["id"], second["id"]) == (event["id"], f"{event['id']}.1")
    assert {**first, "id": ""} == {**second, "id": ""}
    assert await pull(house, state="failed") == ([], "0")


async def test_an_event_that_is_not_there_is_not_sent(house: House) -> None:
    answer = await house.call("POST", f"/v1/events/{uuid4()}/redeliver")
    assert (answer.status, answer.json["code"]) == (404, "not_found")


async def test_a_time_is_told_once_more(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it, or of one kind or tenant; in batches; an event that is being sent just then is sent again after."""
    monkeypatch.setattr(replay, "_REPLAY_BATCH", 2)
    before = house.world.clock()
    made = [(await house.create_link(gateway=None))["id"] for _ in range(5)]
    after = house.world.clock()
    await deliver(house)
    (taken,) = house.world.rows("SELECT id, next_try_at FROM events WHERE payment_id = %s", made[0])
    assert taken["next_try_at"] is None
    span = f"from={stamp(before)}&to={stamp(after)}&client_id={house.client_id}"
    for kind, count in (("payment.paid", 0), ("payment.link_created", 5)):
        answer = await house.call("POST", f"/v1/events/redeliver?{span}&type={kind}")
        assert (answer.status, answer.json) == (202, {"redelivered": count})
    await deliver(house)
    for payment_id in made:
        assert [event["type"] for event in house.world.backend.of(payment_id)] == ["payment.link_created"] * 2
    wrong = await house.call("POST", f"/v1/events/redeliver?from={stamp(after)}")
    assert [fault["field"] for fault in wrong.json["errors"]] == ["to"]


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


async def test_what_is_on_its_way_is_sent_again_after_a_replay(house: House) -> None:
    """The answer to the try that was under way settles nothing of the replay."""
    world = house.world
    payment = await house.create_link(gateway=None)
    (event,) = [row for row in await delivery.claim(world.context, 100) if str(row["payment_id"]) == payment["id"]]
    await replay.redeliver(world.context, event["id"])
    await delivery.deliver(world.context, world.courier, event)
    await deliver(house)
    assert [each["id"] for each in world.backend.of(payment["id"])] == [str(event["id"]), f"{event['id']}.1"]


WRITERS, EACH = 16, 60
# One in so many events is of the kind that is seldom.
SELDOM, RARITY = "payment.refunded", 7


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_no_event_is_missed_whoever_writes_at_the_same_time(world: World) -> None:
    """Sixteen writers whose transactions end at random, two readers who follow them: each sees all events once, in the
    same order. So do two who want one kind only, and whose cursors go beyond the others."""
    stop = asyncio.Event()
    writers = asyncio.gather(*(write(world.database, number) for number in range(WRITERS)))
    wishes = (Wanted(), Wanted(), Wanted(type=SELDOM), Wanted(type=SELDOM))
    readers = [asyncio.create_task(follow(world, wanted, stop)) for wanted in wishes]
    made = {event: kind for events in await writers for event, kind in events.items()}
    stop.set()
    seen = await asyncio.gather(*readers)
    assert seen[0] == seen[1]
    assert len(seen[0]) == len(made) == WRITERS * EACH
    assert set(seen[0]) == made.keys()
    assert seen[2] == seen[3] == [event for event in seen[0] if made[event] == SELDOM]
    assert len(seen[2]) == WRITERS * len(range(0, EACH, RARITY))


async def write(database: str, number: int) -> dict[UUID, str]:
    """Events with their kinds, in transactions that stay open for a random while."""
    chance, made = random.Random(number), {}
    async with await psycopg.AsyncConnection.connect(database) as connection:
        payment = uuid4()
        await connection.execute(
            "INSERT INTO payments (id, client_id, reference, amount_cents) VALUES (%s, %s, 'R', 1)", (payment, uuid4())
        )
        await connection.commit()
        for sequence in range(EACH):
            event, kind = uuid4(), "payment.paid" if sequence % RARITY else SELDOM
            await connection.execute(
                "INSERT INTO events (id, client_id, payment_id, type, sequence, body, next_try_at) "
                "VALUES (%s, %s, %s, %s, %s, %s, now())",
                (event, uuid4(), payment, kind, sequence, '{"timestamp":"2026-11-01T00:00:00Z","data":{}}'),
            )
            await asyncio.sleep(chance.random() / 100)
            await connection.commit()
            made[event] = kind
    return made


async def follow(world: World, wanted: Wanted, stop: asyncio.Event) -> list[UUID]:
    seen: list[UUID] = []
    cursor: str | None = None
    while True:
        last = stop.is_set()
        found, cursor = await replay.pull(world.context, wanted, after=cursor, limit=7)
        seen += [event.id for event in found]
        if last and not found:
            return seen
        await asyncio.sleep(0)


async def test_the_failed_ones_do_not_wait_for_the_others(house: House) -> None:
    """Of a backend that never pulls nothing is numbered: who asks for what failed has that numbered, and no more."""
    for number in range(3):
        await house.create_link(gateway=None, reference=f"F-{number}")
    ids = [
        row["id"] for row in house.world.rows("SELECT id FROM events WHERE client_id = %s ORDER BY id", house.client_id)
    ]
    house.world.rows_do("UPDATE events SET state = 'failed', next_try_at = NULL WHERE id = %s", ids[1])
    answer = await house.call("GET", "/v1/events", params={"state": "failed", "client_id": str(house.client_id)})
    assert [each["id"] for each in answer.json["data"]] == [str(ids[1])]
    numbered = house.world.rows("SELECT id FROM events WHERE client_id = %s AND position IS NOT NULL", house.client_id)
    assert [row["id"] for row in numbered] == [ids[1]]
    rest = await house.call("GET", "/v1/events", params={"client_id": str(house.client_id)})
    assert {each["id"] for each in rest.json["data"]} == {str(each) for each in ids}
