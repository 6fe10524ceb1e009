"""7. How soon a customer sees the pay page, and how many bytes it takes."""

from __future__ import annotations

import gzip
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import seeds
from benchmarks.load import Outcome, drive
from benchmarks.processes import HOST
from benchmarks.report import Figure, Section
from benchmarks.stage import Neighbour, Service, Stage

LINKS = 500  # of each kind: no row is always the same
CALLERS = (1, 16)
SECONDS = 5.0
AIM_MS = 15.0  # at p50, one caller
AIM_BYTES = 15_000  # in all: the page loads nothing else
# As browsers and chat previews ask.
_PACKED = "Accept-Encoding: gzip, deflate, br"


@dataclass(frozen=True, slots=True)
class _Kind:
    what: str
    tokens: list[str]
    sign: str  # what must stand on the page


def measure(stage: Stage) -> Section:
    """A link with all five ways to pay, and one that is paid; then a bare page of as many bytes."""
    database = stage.database()
    waiting, paid = seeds.plant(database, 1, LINKS), seeds.plant(database, LINKS + 1, LINKS)
    seeds.pay(database, paid)
    stage.settle(database)
    kinds = [
        _Kind("five ways to pay", seeds.page_tokens(database, waiting), "paynow.omari"),
        _Kind("paid, the receipt", seeds.page_tokens(database, paid), "Paynow reference"),
    ]
    figures: list[Figure] = []
    with stage.service(database) as service, stage.neighbour("bare") as bare:
        service.save_paynow(paynow_auth_email="pay@acme.example", display_name="Acme Hardware")
        for kind in kinds:
            figures += _figures(stage, service, bare, kind)
    return Section("7. The pay page: GET /pay/{token}, gzipped, beside a bare Starlette page of as many bytes", figures)


def _figures(stage: Stage, service: Service, bare: Neighbour, kind: _Kind) -> Iterator[Figure]:
    raw, packed = _sizes(service, kind)
    seconds = stage.seconds(SECONDS)
    requests = [seeds.request("GET", f"/pay/{token}", b"", _PACKED) for token in kind.tokens]
    same = seeds.request("GET", f"/page/{packed}", b"")
    for callers in CALLERS:
        count = int(3_000 * (seconds + 1))
        watch = {"service": [service.process.pid]}
        shown = drive(service.public, _turns(requests, count), connections=callers, seconds=seconds, watch=watch)
        floor = drive(bare.port, [same] * count * 4, connections=callers, seconds=seconds)
        yield _figure(kind, callers, shown, floor)
    met = packed < AIM_BYTES
    yield Figure(f"{kind.what}: sent", packed, "B", more=f"{raw:,} B raw", aim=f"< {AIM_BYTES:,} B", met=met)


def _figure(kind: _Kind, callers: int, shown: Outcome, floor: Outcome) -> Figure:
    alone = callers == 1
    half = shown.ms(50)
    return Figure(
        f"{kind.what}, {callers} caller{'' if alone else 's'}: whole answer, p50",
        half,
        "ms",
        more=f"p95 {shown.ms(95):.1f}; first byte {shown.first_ms(50):.1f}, p95 {shown.first_ms(95):.1f};"
        f" {half / floor.ms(50):.0f} times bare's {floor.ms(50):.2f}, p95 {floor.ms(95):.2f};"
        f" {shown.busy['service'] / shown.rate * 1000:.1f} ms of processor a page, {shown.rate:,.0f} pages/s",
        aim=f"< {AIM_MS:.0f} ms" if alone else "",
        met=half < AIM_MS if alone else None,
    )


def _turns(requests: list[bytes], count: int) -> list[bytes]:
    return (requests * (count // len(requests) + 1))[:count]


def _sizes(service: Service, kind: _Kind) -> tuple[int, int]:
    """Bytes of the page, raw and as it is sent; RuntimeError when it is not the page that was meant."""
    name, _, value = _PACKED.partition(": ")
    request = urllib.request.Request(f"http://{HOST}:{service.public}/pay/{kind.tokens[0]}", headers={name: value})
    with urllib.request.urlopen(request, timeout=30) as answer:
        packed = answer.read()
    raw = gzip.decompress(packed)
    if kind.sign not in raw.decode():
        raise RuntimeError(f"this is not the page with {kind.what}")
    return len(raw), len(packed)
