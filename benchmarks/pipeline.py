"""2b. The whole way: callback received, attempt claimed, gateway asked, payment recorded, event delivered."""

from __future__ import annotations

import json
import time
from uuid import UUID, uuid4

import psycopg

from benchmarks import seeds
from benchmarks.load import drive
from benchmarks.processes import cpu_seconds
from benchmarks.report import Figure
from benchmarks.stage import TENANT, TOKEN, Neighbour, Service, Stage

PAYMENTS = 1600
CALLERS = 32
PATIENCE = 60.0

_TOOK = """
SELECT count(*), (extract(epoch FROM max(t.at) - (SELECT min(received_at) FROM callbacks)))::float
FROM transitions t WHERE t.to_status = 'paid'"""
_TOLD = """
SELECT (extract(epoch FROM max(delivered_at) - (SELECT min(received_at) FROM callbacks)))::float
FROM events WHERE type = 'payment.paid'"""


def link_request(reference: str) -> bytes:
    """The backend's request for a link."""
    order = {
        "gateway": "paynow",
        "amount_cents": seeds.CENTS,
        "currency": "USD",
        "reference": reference,
        "contact_id": str(uuid4()),
        "description": "Two bags of cement",
    }
    path, bearer = f"/v1/clients/{TENANT}/payments/create-link", f"Authorization: Bearer {TOKEN}"
    return seeds.request("POST", path, json.dumps(order).encode(), bearer, kind="application/json")


def measure(stage: Stage) -> tuple[list[Figure], list[str]]:
    """Every payment is paid at the simulator first, in silence; then all callbacks come at once."""
    database, count = stage.database(), stage.amount(PAYMENTS)
    with (
        stage.simulator() as simulator,
        stage.neighbour("backend") as backend,
        stage.service(database, paynow=simulator.port, backend=backend.port) as service,
    ):
        attempts = _paid_in_silence(database, service, simulator, count)
        stage.settle(database)
        pids = {"service": service.process.pid, "simulator": simulator.process.pid, "PostgreSQL": stage.postmaster}
        before = {name: cpu_seconds([pid]) for name, pid in pids.items()}
        messages = [seeds.callback(reference, attempt, 77_000_000) for attempt, reference in attempts]
        acknowledged = drive(service.public, messages, connections=CALLERS, seconds=PATIENCE, warm=0)
        _wait(database, "SELECT count(*) FROM payments WHERE status = 'paid'", count)
        _wait(database, "SELECT count(*) FROM events WHERE type = 'payment.paid' AND state = 'delivered'", count)
        used = ", ".join(f"{n} {(cpu_seconds([pid]) - before[n]) / count * 1e6:,.0f}" for n, pid in pids.items())
    with psycopg.connect(database) as connection:
        recorded = connection.execute(_TOOK).fetchone()
        told = connection.execute(_TOLD).fetchone()
    assert recorded is not None
    assert told is not None
    figures = [Figure(f"whole pipeline, {count} callbacks at once: recorded", count / recorded[1], "/s")]
    notes = [
        f"pipeline: callbacks acknowledged at {acknowledged.rate:,.0f} /s, events told at {count / told[0]:,.0f} /s",
        f"pipeline: microseconds of processor per payment, callback to event: {used}",
    ]
    return figures, notes


def _paid_in_silence(database: str, service: Service, simulator: Neighbour, count: int) -> list[tuple[UUID, str]]:
    """Links that were paid at the gateway while the service has not heard of it; attempts and their references."""
    service.save_paynow()
    links = [link_request(f"INV-{number}") for number in range(count)]
    drive(service.internal, links, connections=16, seconds=PATIENCE, warm=0, expect=201)
    simulator.post("/sandbox/faults", {"fault": "never", "every": True})
    with psycopg.connect(database) as connection:
        attempts = connection.execute("SELECT id, reference FROM attempts WHERE state = 'live'").fetchall()
    bodies = [json.dumps({"reference": reference}).encode() for _, reference in attempts]
    payings = [seeds.request("POST", "/sandbox/pay", body, kind="application/json") for body in bodies]
    drive(simulator.port, payings, connections=8, seconds=PATIENCE, warm=0)
    _wait(database, "SELECT count(*) FROM events WHERE state = 'delivered'", count)
    return attempts


def _wait(database: str, sql: str, count: int) -> None:
    """Look now and then, seldom enough not to be a load."""
    deadline = time.monotonic() + PATIENCE
    with psycopg.connect(database, autocommit=True) as connection:
        while (row := connection.execute(sql).fetchone()) != (count,):
            if time.monotonic() > deadline:
                raise RuntimeError(f"after {PATIENCE:.0f} s: {row}, expected {count} of: {sql}")
            time.sleep(0.1)
