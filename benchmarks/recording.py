"""2. Payments recorded per second: the statements alone, the step around them, and the whole way from the callback."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg

from benchmarks import pgbench, pipeline, seeds
from benchmarks.report import Figure, Section
from benchmarks.stage import TENANT, Stage, run, settings
from payments_service import payments, records
from payments_service.app import parts

TASKS = 16
EACH = 160  # payments that one pgbench client, or task, writes in one turn
TURNS = 3

_STANDING_VALUES = {"attempt_id": seeds.ATTEMPT_SQL, "gateway_reference": "('G' || :i::bigint)"}
_WRITE_VALUES = {
    "id": seeds.PAYMENT_SQL,
    "client_id": ":tenant",
    "sequence": "1",
    "from_status": ":from_status",
    "from_shown": ":from_status",
    "status": ":status",
    "late": "false",
    "paid_at": "now()",
    "gateway": ":gateway",
    "gateway_reference": "('G' || :i::bigint)",
    "payment_url": "NULL",
    "refunded_cents": "NULL",
    "cause": ":cause",
    "actor": "NULL",
    "evidence": ":evidence",
    "review": "NULL",
    "resolution": "NULL",
    "note": "NULL",
    "at": "now()",
    "event_id": seeds.EVENT_SQL,
    "event": ":event",
    "body": ":body",
    "a_id": seeds.ATTEMPT_SQL,
    "a_state": ":status",
    "a_said": ":said",
    "a_gateway_reference": "('G' || :i::bigint)",
    "a_poll_url": "NULL",
    "a_redirect_url": "NULL",
    "a_next_step": "NULL",
    "a_checked_at": "now()",
    "a_answered_at": "now()",
    "a_next_check_at": "now() + interval '1 day'",
    "a_lease": "NULL",
}
# Each client takes its own run of numbers, each once: a payment can be written only once.
_NUMBER = "\\set k :k + 1\n\\set i :first + :client_id * :each + :k\n"
WRITE = _NUMBER + pgbench.statement(records._WRITE, _WRITE_VALUES)
BOTH = (
    _NUMBER + pgbench.statement(payments._STANDING, _STANDING_VALUES) + pgbench.statement(records._WRITE, _WRITE_VALUES)
)


def measure(stage: Stage) -> Section:
    """The statements in pgbench and `payments.absorb` in turns, then the whole pipeline."""
    database = stage.database()
    batch = stage.amount(EACH) * TASKS
    numbers = seeds.plant(database, 1, TURNS * 3 * batch + 100)
    stage.settle(database)
    run(_absorb(database, numbers[-100:]))
    constants = _constants(database, batch // pgbench.CLIENTS)
    writes, boths, absorbs = [], [], []
    for turn in range(TURNS):
        first, second, third = (numbers[k * batch : (k + 1) * batch] for k in range(3 * turn, 3 * turn + 3))
        writes.append(_by_pgbench(database, WRITE, first, constants))
        boths.append(_by_pgbench(database, BOTH, second, constants))
        absorbs.append(run(_absorb(database, third)))
    _check(database, len(numbers))
    return _section(statistics.median(writes), statistics.median(boths), absorbs, pipeline.measure(stage))


def _section(
    write: float, both: float, absorbs: list[tuple[float, float]], whole: tuple[list[Figure], list[str]]
) -> Section:
    rate = statistics.median(rate for rate, _ in absorbs)
    each = statistics.median(cpu for _, cpu in absorbs)
    figures = [
        Figure(f"payments.absorb, {TASKS} tasks in process", rate, "/s", _beside(rate, write, both)),
        *(replace(figure, of=_beside(figure.value, write, both)) for figure in whole[0]),
        Figure("pgbench, the read and the write, 16 clients", both, "/s"),
        Figure("pgbench, the write alone, 16 clients", write, "/s"),
    ]
    notes = [f"payments.absorb: {each:.0f} microseconds of processor each", *whole[1]]
    return Section("2. Payments recorded per second", figures, notes)


def _beside(rate: float, write: float, both: float) -> dict[str, float]:
    return {"pgbench's read and write": rate / both, "its write": rate / write}


def _constants(database: str, each: int) -> dict[str, str]:
    """What does not differ between payments, as the service itself has just written it."""
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT e.body, t.evidence::text FROM events e JOIN transitions t USING (payment_id, sequence) LIMIT 1"
        ).fetchone()
    assert row is not None
    return {
        "tenant": str(TENANT),
        "gateway": "paynow",
        "from_status": "pending",
        "status": "paid",
        "said": "Paid",
        "cause": "gateway",
        "event": "payment.paid",
        "body": row[0],
        "evidence": row[1],
        "each": str(each),
        "k": "-1",
    }


def _by_pgbench(database: str, script: str, numbers: range, constants: dict[str, str]) -> float:
    each = len(numbers) // pgbench.CLIENTS
    return pgbench.per_second(database, script, {**constants, "first": str(numbers[0])}, each=each)


async def _absorb(database: str, numbers: range) -> tuple[float, float]:
    """Payments per second, and microseconds of processor for each."""
    next_check_at = datetime.now(UTC) + timedelta(days=1)
    async with parts(settings(database), database) as built:

        async def work(some: Iterable[int]) -> None:
            for number in some:
                report = seeds.report(number)
                await payments.absorb(built.context, seeds.attempt_id(number), report, next_check_at=next_check_at)

        await built.context.db.pool.wait()
        shared = iter(numbers)
        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work(shared) for _ in range(TASKS)))
        return len(numbers) / (time.perf_counter() - begun), (time.process_time() - cpu) / len(numbers) * 1e6


def _check(database: str, expected: int) -> None:
    """A figure counts only if the work was done."""
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM payments WHERE status = 'paid' AND sequence = 2").fetchone()
    assert row is not None
    if row[0] != expected:
        raise RuntimeError(f"{row[0]} payments were recorded instead of {expected}")
