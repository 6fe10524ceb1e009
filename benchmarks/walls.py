"""4. What row-level security by tenant would cost the statements that run without it: callbacks and workers."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from benchmarks import seeds
from benchmarks.report import Figure, Section
from benchmarks.stage import TENANT, Stage, run, settings
from payments_service import payments, reconcile, records
from payments_service.app import parts
from payments_service.context import Context
from payments_service.db import TENANT_ROLE
from payments_service.lifecycle import Status
from payments_service.public.callbacks import _BY_REFERENCE

TASKS = 16
TURNS = 5
CALLS = 800  # in one turn
LIMIT = 1.20  # a statement that costs more than a fifth more stays outside

Scope = UUID | None
Call = Callable[[int, Scope], Awaitable[Any]]


def measure(stage: Stage) -> Section:
    """Each statement through `Database.run`, in turns with and without `tenant=`; medians."""
    database, calls = stage.database(), stage.amount(CALLS)
    numbers = seeds.plant(database, 1, 2 * TURNS * calls + 1)
    with psycopg.connect(database) as connection:
        # What it does for callbacks today needs no such right.
        connection.execute(f"GRANT INSERT ON callbacks TO {TENANT_ROLE}")
    stage.settle(database)
    rates = run(_all(database, numbers, calls))
    figures = [
        Figure(
            f"{name}: time with tenant scope / without", plain / scoped, "x", more=f"{plain:,.0f} -> {scoped:,.0f} /s"
        )
        for name, (plain, scoped) in rates.items()
    ]
    over = [name for name, (plain, scoped) in rates.items() if plain / scoped > LIMIT]
    verdict = f"more than a fifth for: {', '.join(over)}" if over else "at most a fifth for each"
    return Section("4. Row-level security by tenant on the hot statements", figures, [verdict])


async def _all(database: str, numbers: range, calls: int) -> dict[str, tuple[float, float]]:
    async with parts(settings(database), database) as built:
        await built.context.db.pool.wait()
        steps = {
            "callback received": _receive(built.context, numbers),
            "attempts claimed": _claim(built.context),
            "payment recorded": await _write(built.context, numbers),
        }
        return {name: await _compare(call, calls) for name, call in steps.items()}


async def _compare(call: Call, calls: int) -> tuple[float, float]:
    """Calls per second without and with the scope."""
    rates: dict[Scope, list[float]] = {None: [], TENANT: []}
    counter = itertools.count()
    for _ in range(TURNS):
        for scope, found in rates.items():
            found.append(await _rate(call, scope, calls, counter))
    return statistics.median(rates[None]), statistics.median(rates[TENANT])


async def _rate(call: Call, scope: Scope, calls: int, counter: Iterator[int]) -> float:
    shared = iter(list(itertools.islice(counter, calls)))

    async def work() -> None:
        for number in shared:
            await call(number, scope)

    begun = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(TASKS)))
    return calls / (time.perf_counter() - begun)


def _receive(context: Context, numbers: range) -> Call:
    async def call(turn: int, scope: Scope) -> None:
        number = numbers[turn % len(numbers)]
        values = {
            "client_id": TENANT,
            "gateway": "paynow",
            "attempt_id": seeds.attempt_id(number),
            "reference": f"INV-{number}",
            "currency": "USD",
            "said": "Paid",
            "digest": turn.to_bytes(32, "little"),
            "fields": Jsonb({"reference": f"INV-{number}", "amount": "12.50", "status": "Paid"}),
            "at": context.clock(),
        }
        (found,) = await context.db.run(_BY_REFERENCE, values, tenant=scope)
        assert found["known"]

    return call


async def _write(context: Context, numbers: range) -> Call:
    """`records.write` as a paid report calls it."""
    rows = {
        row["attempt_id"]: row
        for row in await context.db.run(
            payments._STANDING.replace("WHERE a.id = %(attempt_id)s", "WHERE a.client_id = %(client_id)s"),
            {"client_id": TENANT, "gateway_reference": None},
        )
    }
    at = datetime.now(UTC)
    model = records.Change({}, Status.PAID, "gateway", at, "payment.paid", gateway="paynow")

    async def call(turn: int, scope: Scope) -> None:
        attempt = seeds.attempt_id(numbers[turn])
        change = records.AttemptChange(attempt, state="paid", said="Paid", checked_at=at, answered_at=at)
        step = replace(model, row=rows[attempt], attempt=change, gateway_reference=str(turn), evidence={"said": "Paid"})
        assert await records.write(context, step, tenant=scope)

    return call


def _claim(context: Context) -> Call:
    """Eight due attempts at a time. The clock of each call is ahead of the last one's lease: they are due again."""
    start = datetime.now(UTC) + timedelta(days=2)

    async def call(turn: int, scope: Scope) -> None:
        at = start + timedelta(seconds=turn)
        values = {"gateway": "paynow", "at": at, "lease": at + timedelta(milliseconds=1), "limit": 8}
        await context.db.run(reconcile._CLAIM, values, tenant=scope)

    return call
