"""1. Callbacks acknowledged per second by one process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg

from benchmarks import pgbench, seeds
from benchmarks.load import Outcome, drive
from benchmarks.report import Figure, Section
from benchmarks.stage import TENANT, Neighbour, Service, Stage
from payments_service.public.callbacks import _BY_REFERENCE

CALLERS = (16, 32, 64)
PAYMENTS = 5000
MOST = 7000  # more callbacks a second than this are not prepared for the service
AIM = 0.20

CONSTANTS = {
    "tenant": str(TENANT),
    "gateway": "paynow",
    "currency": "USD",
    "said": "Paid",
    "payments": str(PAYMENTS),
    "fields": '{"reference": "INV-4711", "paynowreference": "30004711", "amount": "12.50", "status": "Paid"}',
}
_VALUES = {
    "client_id": ":tenant::uuid",
    "gateway": ":gateway",
    "reference": seeds.REFERENCE_SQL,
    "currency": ":currency",
    "attempt_id": seeds.ATTEMPT_SQL,
    "at": "now()",
    "said": ":said",
    "digest": "sha256(int8send(:n::bigint))",
    "fields": ":fields::jsonb",
}
SCRIPT = "\\set i random(1, :payments)\n\\set n random(1, 9000000000000000)\n" + pgbench.statement(
    _BY_REFERENCE, _VALUES
)


@dataclass(frozen=True, slots=True)
class Round:
    callers: int
    served: Outcome
    pgbench: float
    bare: Outcome


def measure(stage: Stage) -> Section:
    """Service, pgbench and bare endpoint take turns on the same rows, at each number of callers."""
    database = stage.database()
    numbers = seeds.plant(database, 1, PAYMENTS)
    seeds.save_credentials(database)
    stage.settle(database)
    seconds = stage.seconds(2.5)
    rounds = []
    with stage.service(database, only="public") as service, stage.neighbour("bare") as bare:
        for turn, callers in enumerate(CALLERS[:2] if stage.quick else CALLERS, 1):
            served = _load(stage, service, database, numbers, callers, seconds, turn)
            alone = _by_pgbench(database, seconds)
            rounds.append(Round(callers, served, alone, _bare_load(bare, numbers, callers, seconds)))
    with stage.neighbour("floor") as floor:
        ceiling = _bare_load(floor, numbers, 32, seconds)
    return Section("1. Callbacks acknowledged per second", list(_figures(rounds)), _notes(rounds, ceiling))


def _load(
    stage: Stage, service: Service, database: str, numbers: range, callers: int, seconds: float, turn: int
) -> Outcome:
    count = int(MOST * (seconds + 1))
    watch = {"service": [service.process.pid], "PostgreSQL": [stage.postmaster]}
    messages = list(seeds.callbacks(numbers, count, turn * 1_000_000))
    before = _kept(database)
    outcome = drive(service.public, messages, connections=callers, seconds=seconds, watch=watch)
    # Paynow is answered 200 whatever happens: only what was kept was really received.
    if (kept := _kept(database) - before) != outcome.statuses["200"]:
        raise RuntimeError(f"of {outcome.statuses['200']} callbacks acknowledged, {kept} were recorded")
    return outcome


def _by_pgbench(database: str, seconds: float) -> float:
    before = _kept(database)
    rate = pgbench.per_second(database, SCRIPT, CONSTANTS, seconds=seconds)
    if (kept := _kept(database) - before) < rate * seconds / 2:
        raise RuntimeError(f"pgbench ran {rate:.0f} statements a second but kept {kept} callbacks in all")
    return rate


def _kept(database: str) -> int:
    with psycopg.connect(database) as connection:
        return len(connection.execute("SELECT FROM callbacks").fetchall())


def _bare_load(bare: Neighbour, numbers: range, callers: int, seconds: float) -> Outcome:
    some = list(seeds.callbacks(numbers, 2000, 0))
    watch = {"server": [bare.process.pid]}
    return drive(bare.port, some * int(25 * (seconds + 1)), connections=callers, seconds=seconds, watch=watch)


def _figures(rounds: list[Round]) -> Iterator[Figure]:
    database = statistics.median(each.pgbench for each in rounds)
    middle = statistics.median(each.served.rate for each in rounds)
    for each in rounds:
        of = {"pgbench": each.served.rate / database, "bare Starlette": each.served.rate / each.bare.rate}
        p99 = f"p99 {each.served.ms(99):.0f} ms"
        yield Figure(f"service, {each.callers} callers ({p99})", each.served.rate, "/s", of)
    ratio = middle / database
    aim = f">= {AIM * 100:.0f} % of pgbench"
    yield Figure("service, median of these", middle, "/s", {"pgbench": ratio}, aim=aim, met=ratio >= AIM)
    yield Figure("pgbench, the same statement, 16 clients (median)", database, "/s")
    for each in rounds:
        yield Figure(f"bare Starlette POST endpoint, {each.callers} callers", each.bare.rate, "/s")


def _notes(rounds: list[Round], ceiling: Outcome) -> list[str]:
    """Who was busy: the load is no bottleneck if the generator is not."""
    told = rounds[1]
    busy = told.served.busy.items()
    used = ", ".join(f"{name} {share:.0%}" for name, share in busy)
    each = ", ".join(f"{name} {share / told.served.rate * 1e6:.0f}" for name, share in busy)
    return [
        f"at {told.callers} callers, of one core: {used}; microseconds per callback: {each}",
        f"the generator alone, against a server that does not parse: {ceiling.rate:,.0f} /s",
    ]
