"""5. How much memory the service takes, and how soon it is ready."""

from __future__ import annotations

import statistics
import time

from benchmarks import seeds
from benchmarks.load import drive
from benchmarks.pipeline import link_request
from benchmarks.processes import memory
from benchmarks.report import Figure, Section
from benchmarks.stage import Stage

STARTS = 5
REST = 1.5  # seconds
AIM_MB = 110.0
AIM_SECONDS = 2.0


def measure(stage: Stage) -> Section:
    """Start it several times; then let it rest, load it, and let it rest again."""
    database = stage.database()
    numbers = seeds.plant(database, 1, 2000)
    starts = [_start(stage, database) for _ in range(2 if stage.quick else STARTS)]
    ready = statistics.median(starts)
    idle, loaded, after = _memory(stage, database, numbers)
    figures = [
        Figure("memory, idle", idle, "MB", aim=f"< {AIM_MB:.0f} MB", met=idle < AIM_MB),
        Figure("memory, peak under callbacks and links", loaded, "MB"),
        Figure("memory, a moment after the load", after, "MB"),
        Figure(
            f"start to /readyz 200, median of {len(starts)}",
            ready,
            "s",
            more=f"slowest {max(starts):.2f} s",
            aim=f"< {AIM_SECONDS:.0f} s",
            met=ready < AIM_SECONDS,
        ),
    ]
    return Section("5. Footprint of the service's process (listeners and worker; no database)", figures)


def _start(stage: Stage, database: str) -> float:
    begun = time.perf_counter()
    with stage.service(database):
        return time.perf_counter() - begun


def _memory(stage: Stage, database: str, numbers: range) -> tuple[float, float, float]:
    with (
        stage.simulator() as simulator,
        stage.neighbour("backend") as backend,
        stage.service(database, paynow=simulator.port, backend=backend.port) as service,
    ):
        service.save_paynow()
        time.sleep(REST)
        idle, _ = memory(service.process.pid)
        links = [link_request("INV-1")] * 10_000
        drive(service.internal, links, connections=128, seconds=stage.seconds(3), expect=201)
        # Their attempts are unknown to the simulator: the worker asks, is refused, and goes on.
        messages = list(seeds.callbacks(numbers, 10_000, 0))
        drive(service.public, messages, connections=64, seconds=stage.seconds(3))
        _, peak = memory(service.process.pid)
        time.sleep(REST)
        after, _ = memory(service.process.pid)
    return idle, peak, after
