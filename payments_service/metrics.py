"""The figures that this process counts, for `/metrics`. Made once in `app`, passed on: nothing here is global.

No label holds anything of a tenant's or a person's, and each has few values: names of our own routes, calls, gateways,
statuses, and classes of HTTP statuses. Whatever is new is counted under the name that its code gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

# A second figure beside each, of when it began: `process_start_time_seconds` says that once for all.
disable_created_metrics()  # type: ignore[no-untyped-call]

# Seconds. Our own answers take milliseconds, a page or a call that waits for a gateway seconds.
_OURS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_THEIRS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
# From a change to the first try to tell the backend: a second at most, while all is well.
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """What is counted, by methods in this service's own terms. Durations in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self.registry)
        registry = self.registry
        requests = Counter(
            "payments_requests", "Requests answered.", ("listener", "operation", "status"), registry=registry
        )
        request_seconds = Histogram(
            "payments_request_seconds",
            "How long an answer took.",
            ("listener", "operation"),
            buckets=_OURS,
            registry=registry,
        )
        calls = Counter("payments_outside_calls", "Calls to the outside.", ("to", "call", "outcome"), registry=registry)
        call_seconds = Histogram(
            "payments_outside_call_seconds", "How long a call took.", ("to", "call"), buckets=_THEIRS, registry=registry
        )
        self._callbacks = Counter(
            "payments_callbacks", "Messages of the gateways.", ("gateway", "verdict"), registry=registry
        )
        moves = Counter("payments_moves", "Steps that payments took.", ("gateway", "status"), registry=registry)
        self._tries = Counter("payments_event_tries", "Tries to tell the backend.", ("outcome",), registry=registry)
        self._messages = Counter("payments_messages", "Tries to send a link.", ("outcome",), registry=registry)
        self._first_try = Histogram(
            "payments_event_first_try_seconds", "From the change to the first try.", buckets=_FIRST, registry=registry
        )
        self._faults = Gauge(
            "payments_doctor_faults",
            "Rows of the last hour that break a rule of the books.",
            ("check",),
            registry=registry,
        )
        # To find a figure by its labels costs the library more than to count.
        self._requests, self._request_seconds = cache(requests.labels), cache(request_seconds.labels)
        self._calls, self._call_seconds = cache(calls.labels), cache(call_seconds.labels)
        self._moves = cache(moves.labels)
        self._looked = Gauge(
            "payments_doctor_looked_timestamp_seconds", "When they were looked at last.", registry=registry
        )

    def request(self, listener: str, operation: str, status: int, seconds: float) -> None:
        self._requests(listener, operation, _kind(status)).inc()
        self._request_seconds(listener, operation).observe(seconds)

    def call(self, what: str, outcome: str, seconds: float) -> None:
        """`what` as the transport has it, `paynow.initiate`; `outcome` an HTTP status or a word."""
        to, _, call = what.partition(".")
        self._calls(to, call, _kind(int(outcome)) if outcome.isdecimal() else outcome).inc()
        self._call_seconds(to, call).observe(seconds)

    def callback(self, gateway: str, verdict: str) -> None:
        """`taken`, `ignored` (genuine, but about nothing of ours), `refused` (not believed) or `failed`."""
        self._callbacks.labels(gateway, verdict).inc()

    def moved(self, gateway: str | None, status: str) -> None:
        """A payment took a step that led to this status; of a new link `pending`."""
        self._moves(gateway or "none", status).inc()

    def tried(self, outcome: str) -> None:
        """The event's state after a try: `delivered`, `due` (it will be tried again) or `failed`."""
        self._tries.labels(outcome).inc()

    def message(self, outcome: str) -> None:
        """The message's state after a try: `accepted`, `queued` (it will be tried again), `unknown`, `failed`, …"""
        self._messages.labels(outcome).inc()

    def first_tried(self, seconds: float) -> None:
        self._first_try.observe(max(0.0, seconds))

    def examined(self, faults: Mapping[str, int], at: datetime) -> None:
        """How many rows break each rule."""
        for check, count in faults.items():
            self._faults.labels(check).set(count)
        self._looked.set(at.timestamp())


def _kind(status: int) -> str:
    """`2xx`; what is no HTTP status `none`."""
    return f"{status // 100}xx" if 100 <= status < 600 else "none"
