"""A lean HTTP client in a process of its own, so that making load costs the service's process nothing.

Requests are ready-made bytes; an answer is only looked at for its status and length. Each connection is kept alive
and has one request under way: `connections` is the number of concurrent callers.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import uvloop

from benchmarks.processes import HOST, ROOT, cpu_seconds
from benchmarks.report import percentile

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one load did. `busy` is the processor time per second of the generator and of each watched group."""

    count: int
    seconds: float
    statuses: dict[str, int]
    latencies: list[float]  # ms, to the end of the answer
    firsts: list[float]  # ms, to its first byte
    busy: dict[str, float]

    @property
    def rate(self) -> float:
        return self.count / self.seconds

    def ms(self, percent: float) -> float:
        return percentile(self.latencies, percent)

    def first_ms(self, percent: float) -> float:
        return percentile(self.firsts, percent)


def drive(
    port: int,
    requests: Sequence[bytes],
    *,
    connections: int,
    seconds: float,
    warm: float = 0.3,
    watch: dict[str, list[int]] | None = None,
    expect: int = 200,
) -> Outcome:
    """Send the requests, each once, for at most `seconds`; RuntimeError if any answer is not `expect`."""
    job = (port, connections, seconds, warm, watch or {}, requests)
    with tempfile.TemporaryFile() as told:
        pickle.dump(job, told)
        told.seek(0)
        command = [sys.executable, "-m", "benchmarks.load"]
        done = subprocess.run(command, stdin=told, stdout=subprocess.PIPE, cwd=ROOT, check=True, timeout=seconds + 60)
    outcome = Outcome(**json.loads(done.stdout))
    if set(outcome.statuses) != {str(expect)}:
        raise RuntimeError(f"the load expected {expect} and was answered {outcome.statuses}")
    return outcome


class _Run:
    """What the callers share."""

    def __init__(self, requests: Sequence[bytes], connections: int) -> None:
        self.requests: Iterator[bytes] = iter(requests)
        self.statuses: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.firsts: list[float] = []
        self.until = float("inf")
        self.last = 0.0
        self.working = connections
        self.idle = asyncio.Event()

    def take(self) -> bytes | None:
        return next(self.requests, None) if time.perf_counter() < self.until else None

    def note(self, status: bytes, sent: float, first: float) -> None:
        self.last = time.perf_counter()
        self.statuses[status.decode()] += 1
        self.latencies.append((self.last - sent) * 1000)
        self.firsts.append((first - sent) * 1000)

    def begin(self, seconds: float) -> None:
        """What came until now was only to warm up."""
        self.latencies.clear()
        self.firsts.clear()
        self.last = time.perf_counter()
        self.until = self.last + seconds

    def one_done(self) -> None:
        self.working -= 1
        if not self.working:
            self.idle.set()


class _Caller(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self.run = run
        self.data = b""
        self.sent = self.first = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._next()

    def _next(self) -> None:
        request = self.run.take()
        if request is None:
            self.run.one_done()
            self.run = _Run((), 0)
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if not self.data:
            self.first = time.perf_counter()
        self.data += data
        head = self.data.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self.data, 0, head)
        if len(self.data) < head + 4 + (int(length[1]) if length else 0):
            return
        status, self.data = self.data[9:12], b""
        self.run.note(status, self.sent, self.first)
        self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        self.run.statuses["cut off"] += 1
        self.run.one_done()


async def _load(
    port: int, connections: int, seconds: float, warm: float, watch: dict[str, list[int]], requests: Sequence[bytes]
) -> dict[str, object]:
    run = _Run(requests, connections)
    loop = asyncio.get_running_loop()
    for _ in itertools.repeat(None, connections):
        await loop.create_connection(lambda: _Caller(run), HOST, port)
    await asyncio.sleep(warm)
    before = {name: cpu_seconds(pids) for name, pids in watch.items()}
    own = time.process_time()
    begun = time.perf_counter()
    run.begin(seconds)
    await run.idle.wait()
    took = max(run.last - begun, 1e-9)
    busy = {name: (cpu_seconds(pids) - before[name]) / took for name, pids in watch.items()}
    return {
        "count": len(run.latencies),
        "seconds": took,
        "statuses": run.statuses,
        "latencies": [round(value, 3) for value in run.latencies],
        "firsts": [round(value, 3) for value in run.firsts],
        "busy": {"generator": (time.process_time() - own) / took, **busy},
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_load(*pickle.load(sys.stdin.buffer)))))
