"""How many links a tenant may make: exact in any window, over all replicas, and told to whoever must wait."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from payments_service import rates
from payments_service.app import parts
from payments_service.context import Context
from payments_service.db import Database, Row
from payments_service.errors import TooMany
from payments_service.parsers import Rate
from tests.house import Answer, House
from tests.support import afresh, open_house

CREATE = "/payments/create-link"


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres, create_link_rate="10/minute") as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    await house.save_paynow()
    return house


async def create(house: House, key: str | None = None, **changes: object) -> Answer:
    headers = {"Idempotency-Key": key} if key else {}
    order = house.order(gateway=None, contact_id=str(house.client_id), **changes)
    return await house.call("POST", house.path(CREATE), order, headers=headers)


async def test_the_eleventh_link_within_a_minute_must_wait(house: House) -> None:
    """Each answer tells what is left; 429 says when to come back, nothing is made, and then there is room again."""
    for number in range(10):
        answer = await create(house)
        assert answer.status == 201, answer.body
        assert answer.headers["RateLimit-Policy"] == '"create-link";q=10;w=60'
        assert answer.headers["RateLimit"].startswith(f'"create-link";r={9 - number};t=')
    refused = await create(house)
    assert (refused.status, refused.json["code"]) == (429, "too_many_requests")
    wait = int(refused.headers["Retry-After"])
    assert 50 < wait <= 60
    assert refused.headers["RateLimit"] == f'"create-link";r=0;t={wait}'
    assert str(wait) in refused.json["detail"]
    house.world.clock.forward(seconds=wait)
    assert (await create(house)).status == 201
    found = house.world.one("SELECT count(*) AS made FROM payments WHERE client_id = %s", house.client_id)
    assert found["made"] == 11


async def test_one_tenant_does_not_slow_another_down(house: House) -> None:
    other = afresh(house)
    await other.save_paynow()
    for _ in range(10):
        await create(house)
    assert ((await create(house)).status, (await create(other)).status) == (429, 201)


async def test_replays_and_faults_do_not_count(house: House) -> None:
    """Neither an answer of before nor a body that is not understood takes any of the rate; a refusal is not kept."""
    for number in range(10):
        assert (await create(house, f"key-{number}")).status == 201
        assert (await create(house, f"key-{number}")).status == 201
        assert (await create(house, amount_cents=0)).status == 422
    assert (await create(house, "key-10")).status == 429
    assert (await create(house, "key-9")).status == 201
    house.world.clock.forward(seconds=60)
    assert (await create(house, "key-10")).status == 201


async def test_many_at_once_over_two_replicas(house: House) -> None:
    """Exactly as many as the rate allows, whichever process counts."""
    async with parts(house.world.settings, house.world.database) as twin:
        one = house.world.context
        other = replace(twin.context, clock=one.clock)
        taken = await asyncio.gather(
            *(rates.take(each, house.client_id) for each in (one, other) * 30), return_exceptions=True
        )
    assert sorted(each.remaining for each in taken if isinstance(each, rates.Allowance)) == list(range(10))
    assert sum(isinstance(each, TooMany) for each in taken) == 50


class Late:
    """A database on which somebody else does something between two statements of ours."""

    def __init__(self, database: Database, between: Callable[[], Awaitable[object]]) -> None:
        self._database = database
        self._between: Callable[[], Awaitable[object]] | None = between

    async def run(self, *args: Any, **named: Any) -> list[Row]:
        rows = await self._database.run(*args, **named)
        between, self._between = self._between, None
        if between:
            await between()
        return rows


async def test_who_was_refused_is_refused_also_when_room_comes_just_then(house: House) -> None:
    """Another replica's link, a moment later, has already forgotten what was in the way: nothing passes uncounted."""
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def at(seconds: float) -> Context:
        moment = start + timedelta(seconds=seconds)
        return replace(house.world.context, clock=partial(_same, moment), link_rate=Rate(2, 20))

    for _ in range(2):
        await rates.take(at(0), house.client_id)
    late: Any = Late(house.world.context.db, partial(rates.take, at(20.001), house.client_id))
    with pytest.raises(TooMany) as caught:
        await rates.take(replace(at(19.999), db=late), house.client_id)
    assert caught.value.retry_after == 1


async def test_a_rate_that_was_lowered_counts_what_was_made_before(house: House) -> None:
    for _ in range(10):
        await rates.take(house.world.context, house.client_id)
    house.world.clock.forward(seconds=30)
    lower = replace(house.world.context, link_rate=Rate(3, 60))
    with pytest.raises(TooMany) as caught:
        await rates.take(lower, house.client_id)
    assert 25 < caught.value.retry_after <= 30


@pytest.mark.parametrize("seed", range(10))
async def test_as_a_list_of_moments_would_have_it(house: House, seed: int) -> None:
    """Links at random moments: allowed, counted, refused and told to wait as by a plain list of the last window."""
    chance, window, moment = random.Random(seed), timedelta(seconds=20), datetime(2026, 1, 1, tzinfo=UTC)
    most, kept = chance.randint(1, 4), list[datetime]()
    for _ in range(25):
        moment += timedelta(seconds=chance.choice([0, 1, 5, 10, 30]))
        kept = [each for each in kept if each > moment - window]
        context = replace(house.world.context, clock=partial(_same, moment), link_rate=Rate(most, 20))
        if len(kept) == most:
            with pytest.raises(TooMany) as caught:
                await rates.take(context, house.client_id)
            assert caught.value.retry_after == (kept[0] + window - moment).total_seconds()
        else:
            kept.append(moment)
            assert (await rates.take(context, house.client_id)).remaining == most - len(kept)


def _same(moment: datetime) -> datetime:
    return moment
