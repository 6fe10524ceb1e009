"""3. What the service adds to the gateway's own time when a link is made."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import seeds
from benchmarks.load import Outcome, drive
from benchmarks.pipeline import link_request
from benchmarks.report import Figure, Section
from benchmarks.stage import PAYNOW_ID, PAYNOW_KEY, Neighbour, Service, Stage
from payments_service.sandbox import wire

CALLERS = (1, 32, 128)
DELAYS = (0.0, 0.2)
AIM = 5.0  # ms at p50, one caller
_HOME = "https://payments.conva.example"


def initiate_request() -> bytes:
    """What the service asks of Paynow to make one link."""
    pairs = [
        ("id", PAYNOW_ID),
        ("reference", "INV-4711-7XK2M9QD"),
        ("amount", "12.50"),
        ("additionalinfo", "Two bags of cement"),
        ("returnurl", f"{_HOME}/pay/xkq3J9vPz0aLw8mT4bYc1HsD6fG?returned=1"),
        ("resulturl", f"{_HOME}/callbacks/paynow/c0000000-0000-4000-8000-000000000001"),
        ("status", "Message"),
    ]
    return seeds.request("POST", "/interface/initiatetransaction", wire.encode(wire.sign(pairs, PAYNOW_KEY)))


def measure(stage: Stage) -> Section:
    """At each delay and number of callers: the simulator asked directly, then through the service."""
    database = stage.database()
    cells: list[tuple[float, int, Outcome, Outcome]] = []
    with stage.simulator() as simulator, stage.service(database, paynow=simulator.port) as service:
        service.save_paynow()
        drive(service.internal, [link_request("INV-0")] * 300, connections=16, seconds=10, warm=0, expect=201)
        for delay in DELAYS:
            simulator.post("/sandbox/settings", {"delay_seconds": delay})
            for callers in CALLERS:
                # One caller of a slow gateway makes few calls a second.
                seconds = stage.seconds(6 if callers == 1 and delay else 3.5)
                cells.append((delay, callers, *_cell(simulator, service, callers, seconds)))
    return Section("3. Creating a link: milliseconds added to the gateway's own", list(_figures(cells)))


def _cell(simulator: Neighbour, service: Service, callers: int, seconds: float) -> tuple[Outcome, Outcome]:
    direct = drive(
        simulator.port, [initiate_request()] * int(12_000 * (seconds + 1)), connections=callers, seconds=seconds
    )
    links = [link_request("INV-4711")] * int(3_000 * (seconds + 1))
    through = drive(service.internal, links, connections=callers, seconds=seconds, expect=201)
    return direct, through


def _figures(cells: list[tuple[float, int, Outcome, Outcome]]) -> Iterator[Figure]:
    for delay, callers, direct, through in cells:
        own, whole = direct.ms(50), through.ms(50)
        added = whole - own
        first = callers == 1
        yield Figure(
            f"gateway at {delay * 1000:.0f} ms, {callers} caller{'s' if callers > 1 else ''}: added at p50",
            added,
            "ms",
            more=f"p50 {_ms(direct, 50, through)}, p95 {_ms(direct, 95, through)}, p99 {_ms(direct, 99, through)};"
            f" {through.rate:,.0f} links/s",
            aim=f"< {AIM:.0f} ms" if first else "",
            met=added < AIM if first else None,
        )


def _ms(direct: Outcome, percent: float, through: Outcome) -> str:
    return f"{direct.ms(percent):.1f} -> {through.ms(percent):.1f}"
