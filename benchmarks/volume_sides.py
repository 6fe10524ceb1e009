"""The two databases of `volume`, and how the same work is timed in both, in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from benchmarks import seeds, volume_rows
from benchmarks.stage import TENANT, settings
from payments_service.app import parts
from payments_service.config import Settings
from payments_service.context import Context
from payments_service.db import _SCOPE, TENANT_ROLE, Database, Row

KEYS = 200  # payments of the big tenant that are asked for
PLANTED = 1200
EACH = 20  # calls of one round
EXPLAINED = 23

Call = Callable[[int], Awaitable[object]]
# The statements of one call, each with its plan.
_Plans = list[tuple[str, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the databases, and what the service needs to work on it."""

    url: str
    size: int
    moment: datetime  # when it was filled: it is always then
    context: Context
    settings: Settings
    planted: range  # open payments of the big tenant
    keys: list[Row]  # some of its payments, of all ages

    def aside(self, sql: str, **values: object) -> None:
        """Arrange something, untimed."""
        with psycopg.connect(self.url) as connection:
            connection.execute(sql, values)


@dataclass(frozen=True, slots=True)
class Step:
    """Work to be timed. `make` gives the call, which is told its number; `before` arranges things for each round."""

    name: str
    make: Callable[[Side], Call]
    before: Callable[[Side], None] | None = None
    each: int = EACH
    first: int = EACH  # calls before anything counts


@dataclass(slots=True)
class Timed:
    """Milliseconds of the first calls and of those that count, and what PostgreSQL explained of some more."""

    first: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    plans: list[_Plans] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.took)

    @property
    def inside(self) -> float:
        """In PostgreSQL, without the planning; the first ones looked at the tables' definitions as well."""
        return statistics.median(sum(plan["Execution Time"] for _, plan in call) for call in self.plans[3:])

    @property
    def pages(self) -> int:
        return statistics.median_low(
            sum(plan["Plan"][blocks] for _, plan in call for blocks in ("Shared Hit Blocks", "Shared Read Blocks"))
            for call in self.plans[3:]
        )


@dataclass(frozen=True, slots=True)
class Found:
    name: str
    few: Timed
    many: Timed


class Explaining(Database):
    """Has PostgreSQL explain each statement, and undoes that, before it is run."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.plans: _Plans = []

    async def run(self, sql: str, values: Mapping[str, Any], *, tenant: UUID | None = None) -> list[Row]:
        async with self.pool.connection() as connection, connection.transaction(force_rollback=True):
            if tenant is not None:
                await connection.execute(_SCOPE, {"role": TENANT_ROLE, "client_id": str(tenant)})
            cursor = await connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", values)
            row = await cursor.fetchone()
        assert row is not None
        self.plans.append((sql, row[0][0]))
        return await super().run(sql, values, tenant=tenant)


async def compare(urls: Sequence[str], sizes: Sequence[int], steps: Sequence[Step], *, rounds: int) -> list[Found]:
    """Each step in turns on both sides."""
    async with AsyncExitStack() as stack:
        sides = [await stack.enter_async_context(_side(*which)) for which in zip(urls, sizes, strict=True)]
        found = []
        for step in steps:
            timed = await _timed(step, sides, rounds)
            await _explain(step, sides, timed, step.first + rounds * step.each)
            found.append(Found(step.name, *timed))
        return found


@asynccontextmanager
async def _side(url: str, size: int) -> AsyncIterator[Side]:
    planted, keys, moment = _plant(url), _keys(url, size), volume_rows.moment(url)
    async with parts(settings(url), url) as built:
        await built.context.db.pool.wait()
        context = replace(built.context, clock=lambda: moment)
        yield Side(url, size, moment, context, settings(url), planted, keys)


def _plant(url: str) -> range:
    """Beside what an earlier run has left."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM payments WHERE id >= %s", (seeds.payment_id(0),)).fetchone()
    assert row is not None
    return seeds.plant(url, row[0] + 1, PLANTED)


def _keys(url: str, size: int) -> list[Row]:
    names = [f"INV-{number}" for number in volume_rows.of_big_tenant(size, KEYS)]
    with psycopg.connect(url) as connection:
        return (
            connection.cursor(row_factory=dict_row)
            .execute(
                "SELECT id, created_at, reference, contact_id, substr(reference, 5)::bigint AS number FROM payments "
                "WHERE client_id = %s AND reference = ANY(%s)",
                (TENANT, names),
            )
            .fetchall()
        )


async def _timed(step: Step, sides: Sequence[Side], rounds: int) -> list[Timed]:
    """Call by call in turns: what else goes on on the machine meets both alike."""
    timed = [Timed() for _ in sides]
    calls = [step.make(side) for side in sides]
    await _turns(step, sides, calls, range(step.first), [each.first for each in timed])
    for begin in range(step.first, step.first + rounds * step.each, step.each):
        await _turns(step, sides, calls, range(begin, begin + step.each), [each.took for each in timed])
    return timed


async def _turns(
    step: Step, sides: Sequence[Side], calls: Sequence[Call], numbers: range, told: Sequence[list[float]]
) -> None:
    _arrange(step, sides)
    for number in numbers:
        turn = list(zip(calls, told, strict=True))
        for call, took in reversed(turn) if number % 2 else turn:
            begun = time.perf_counter()
            await call(number)
            took.append((time.perf_counter() - begun) * 1000)


def _arrange(step: Step, sides: Sequence[Side]) -> None:
    for side in sides:
        if step.before:
            step.before(side)


async def _explain(step: Step, sides: Sequence[Side], timed: Sequence[Timed], begin: int) -> None:
    """Run the step a few times more and look what PostgreSQL did."""
    async with AsyncExitStack() as stack:
        databases = [Explaining(side.url) for side in sides]
        for database in databases:
            await database.open()
            stack.push_async_callback(database.close)
        watched = zip(sides, databases, strict=True)
        calls = [step.make(replace(side, context=replace(side.context, db=database))) for side, database in watched]
        for number in range(begin, begin + EXPLAINED):
            _arrange(step, sides)
            for call, database, told in zip(calls, databases, timed, strict=True):
                database.plans = []
                await call(number)
                told.plans.append(database.plans)
