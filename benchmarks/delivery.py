"""6. How soon the backend hears of what was committed."""

from __future__ import annotations

import psycopg

from benchmarks.load import drive
from benchmarks.pipeline import link_request
from benchmarks.report import Figure, Section, percentile
from benchmarks.stage import Stage

CALLERS = 16
GATEWAY_SECONDS = 0.2
AIM = 1000.0  # ms at p99


def measure(stage: Stage) -> Section:
    """Links are made at a steady pace (16 callers, a gateway of 200 ms); each one's event is awaited at the backend."""
    database = stage.database()
    with (
        stage.simulator() as simulator,
        stage.neighbour("backend") as backend,
        stage.service(database, paynow=simulator.port, backend=backend.port) as service,
    ):
        service.save_paynow()
        simulator.post("/sandbox/settings", {"delay_seconds": GATEWAY_SECONDS})
        links = [link_request("INV-1")] * 5000
        made = drive(service.internal, links, connections=CALLERS, seconds=stage.seconds(6), warm=0, expect=201)
        arrived: dict[str, float] = {}
        while len(arrived) < made.count:
            arrived = backend.get("/arrived")
    with psycopg.connect(database) as connection:
        rows = connection.execute("SELECT id::text, extract(epoch FROM created_at)::float FROM events").fetchall()
    waits = [(arrived[event] - created) * 1000 for event, created in rows]
    late = percentile(waits, 99)
    figures = [
        Figure("p50", percentile(waits, 50), "ms"),
        Figure("p99", late, "ms", aim=f"< {AIM:.0f} ms", met=late < AIM),
    ]
    note = f"{len(waits)} events at {made.rate:.0f} /s, from just before the commit to the backend's receipt"
    return Section("6. Commit to first try of an event, healthy backend", figures, [note])
