"""8. Stripe's webhooks acknowledged per second by one process.

A callback of Paynow is answered when it is kept; a look-up comes later. A webhook of Stripe is the proof, so it is
answered only when the payment, its history and its event to the backend are written. Stripe sends many of them more
than once; a repeated one costs a single statement.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from benchmarks import cards, seeds
from benchmarks.load import Outcome, drive
from benchmarks.report import Figure, Section
from benchmarks.stage import STRIPE_SECRET, Neighbour, Service, Stage
from payments_service.gateways.stripe_wire import signed_event

CALLERS = 32
TURNS = 3
MOST = 1500  # more first deliveries a second than this are not prepared
PAYNOW = 2000  # payments that Paynow's callbacks are about
CHECKS = 3000


@dataclass(frozen=True, slots=True)
class _Turn:
    recorded: Outcome
    repeated: Outcome
    paynow: Outcome
    checked: Outcome


def measure(stage: Stage) -> Section:
    """First deliveries, repeated ones, Paynow's callbacks and a bare check of the signature take turns."""
    database, seconds = stage.database(), stage.seconds(2.5)
    turns = 2 if stage.quick else TURNS
    each = int(MOST * (seconds + 1))
    paynow = seeds.plant(database, 1, PAYNOW)
    waiting = seeds.plant(database, PAYNOW + 1, turns * each, gateway="stripe")
    seeds.save_credentials(database)
    stage.settle(database)
    with stage.service(database, only="public") as service, stage.neighbour("bare") as bare:
        done = [
            _turn(stage, service, bare, database, paynow, waiting[turn * each : (turn + 1) * each], turn)
            for turn in range(turns)
        ]
    return Section("8. Stripe's webhooks acknowledged per second", list(_figures(done)), _notes(done))


def _turn(
    stage: Stage, service: Service, bare: Neighbour, database: str, paynow: range, waiting: range, turn: int
) -> _Turn:
    seconds = stage.seconds(2.5)
    watch = {"service": [service.process.pid], "PostgreSQL": [stage.postmaster]}

    def load(port: int, messages: list[bytes]) -> Outcome:
        return drive(port, messages, connections=CALLERS, seconds=seconds, watch=watch)

    before, fresh = _paid(database), cards.webhooks(waiting)
    recorded = load(service.public, fresh)
    # What is ignored is answered 200 too: only what was recorded was really received.
    if (paid := _paid(database) - before) != recorded.statuses["200"]:
        raise RuntimeError(f"of {recorded.statuses['200']} webhooks acknowledged, {paid} were recorded")
    known = fresh[: recorded.statuses["200"]]
    repeated = load(service.public, known * int(8000 * (seconds + 1) / len(known) + 1))
    if (paid := _paid(database) - before) != len(known):
        raise RuntimeError(f"{paid} payments were recorded of {len(known)}, each told many times")
    callbacks = list(seeds.callbacks(paynow, int(7000 * (seconds + 1)), turn * 1_000_000))
    told = load(service.public, callbacks)
    checked = load(bare.port, known * int(20_000 * (seconds + 1) / len(known) + 1))
    return _Turn(recorded, repeated, told, checked)


def _paid(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute("SELECT count(*) FROM payments WHERE status = 'paid' AND sequence = 2").fetchone()
    assert row is not None
    return int(row[0])


def _figures(done: list[_Turn]) -> Iterator[Figure]:
    paynow = statistics.median(turn.paynow.rate for turn in done)
    checked = statistics.median(turn.checked.rate for turn in done)
    for what, outcomes in (
        ("first delivery: verified, recorded, told", [turn.recorded for turn in done]),
        ("repeated delivery: verified, known", [turn.repeated for turn in done]),
    ):
        rate = statistics.median(outcome.rate for outcome in outcomes)
        p99 = statistics.median(outcome.ms(99) for outcome in outcomes)
        of = {"Paynow's callback": rate / paynow, "the bare check": rate / checked}
        yield Figure(f"{what} (p99 {p99:.0f} ms)", rate, "/s", of)
    yield Figure(f"Paynow's callback, {CALLERS} callers too", paynow, "/s")
    yield Figure("bare Starlette that checks and reads the event only", checked, "/s")


def _notes(done: list[_Turn]) -> list[str]:
    spent = {
        "first": [turn.recorded for turn in done],
        "repeated": [turn.repeated for turn in done],
        "Paynow's": [turn.paynow for turn in done],
    }
    used = "; ".join(
        f"{what} {', '.join(f'{name} {_each(outcomes, name):,.0f}' for name in ('service', 'PostgreSQL'))}"
        for what, outcomes in spent.items()
    )
    size = len(cards.event(1))
    return [
        f"medians of {len(done)} turns, {CALLERS} callers; microseconds of processor each: {used}",
        f"the check alone, in process: {_check():.0f} microseconds of processor for an event of {size:,} bytes",
    ]


def _each(outcomes: list[Outcome], name: str) -> float:
    return statistics.median(outcome.busy[name] / outcome.rate * 1e6 for outcome in outcomes)


def _check() -> float:
    """Microseconds of processor to verify one event and read it."""
    body = cards.event(1)
    header, at = cards.signed(body), datetime.now(UTC)
    begun = time.process_time()
    for _ in range(CHECKS):
        signed_event(body, header, [STRIPE_SECRET], at)
    return (time.process_time() - begun) / CHECKS * 1e6
