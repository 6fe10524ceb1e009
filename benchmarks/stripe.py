"""9. What Stripe's SDK costs: a Checkout session made in four ways, and the SDK in memory.

Each way sends the same request to a stub that answers it with the same session at once, over the same transport, one
call after another; what counts is the processor time of this process.

The service makes its calls by `raw_request_async` with parameters that the SDK's generated types check, and reads the
answers by types of its own: the typed call costs two to three times as much, for building an object of 61 fields, of
which eleven are read. The SDK still encodes, retries and names the errors.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import stripe

from benchmarks.processes import HOST, ROOT
from benchmarks.report import Figure, Section
from benchmarks.servers import SESSION_REFERENCE
from benchmarks.stage import STRIPE_KEY, TENANT, Stage, run
from payments_service.gateways.base import StartRequest
from payments_service.gateways.stripe import SESSIONS, Stripe, StripeCredentials, _order
from payments_service.gateways.stripe_client import API_VERSION, RETRIES, Call, _Exchange
from payments_service.gateways.transport import Reply, Transport
from payments_service.money import Currency, Money

TURNS = 7
CALLS = 300
STARTS = 7
LIMIT = 2.0  # a typed call that costs more than this many raw ones is not worth it

TYPED, RAW, WHOLE, BARE = "typed call", "raw_request_async", "our adapter's whole start", "bare transport"
Way = Callable[[], Awaitable[object]]


def measure(stage: Stage) -> Section:
    """The four ways take turns; then fresh processes load the SDK."""
    with stage.neighbour("stripe") as stub:
        spent = run(_all(f"http://{HOST}:{stub.port}", stage.amount(CALLS)))
    raw, bare = spent[RAW], spent[BARE]
    figures = [
        Figure(f"making a session, {what}", cpu, "us", {RAW: cpu / raw, BARE: cpu / bare})
        for what, cpu in spent.items()
    ]
    chosen = "as chosen: raw" if spent[TYPED] > LIMIT * raw else "the choice of raw does not pay here"
    note = f"typed / raw: {spent[TYPED] / raw:.2f} ({chosen}; microseconds of processor, medians of {TURNS} turns)"
    return Section("9. Stripe's SDK: processor time of a session, memory", [*figures, *_loading(stage)], [note])


async def _all(base_url: str, calls: int) -> dict[str, float]:
    """Microseconds of processor of one call, in each way."""
    async with Transport() as transport:
        ways = await _ways(transport, base_url)
        for way in ways.values():
            await _spent(way, calls // 4)
        turns = [{name: await _spent(way, calls) for name, way in ways.items()} for _ in range(TURNS)]
    return {name: statistics.median(turn[name] for turn in turns) for name in ways}


async def _spent(way: Way, calls: int) -> float:
    begun = time.process_time()
    for _ in range(calls):
        await way()
    return (time.process_time() - begun) / calls * 1e6


async def _ways(transport: Transport, base_url: str) -> dict[str, Way]:
    request = _request()
    params, key = _order(request), str(request.attempt_id)
    call = Call("create_session", "post", SESSIONS, 20.0, params, key)
    adapter, credentials = Stripe(transport, base_url), StripeCredentials(STRIPE_KEY)

    def client(way_out: Any) -> stripe.StripeClient:
        """One for each call, as in the service: every tenant has a key of its own."""
        return stripe.StripeClient(
            STRIPE_KEY,
            http_client=_Exchange(way_out, call),
            base_addresses={"api": base_url},
            max_network_retries=RETRIES,
            stripe_version=API_VERSION,
        )

    async def typed() -> object:
        return await client(transport).v1.checkout.sessions.create_async(params, {"idempotency_key": key})

    async def raw(way_out: Any = transport) -> object:
        return await client(way_out).raw_request_async("post", SESSIONS, **params, idempotency_key=key)

    async def whole() -> object:
        return await adapter.start(credentials, request)

    heard = _Heard(transport)
    await raw(heard)

    async def bare() -> object:
        return await transport.request("stripe.create_session", **heard.request_made)

    return {TYPED: typed, RAW: raw, WHOLE: whole, BARE: bare}


class _Heard:
    """Keeps what the SDK sends, so that the bare transport can send the very same."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.request_made: dict[str, Any] = {}

    async def request(
        self, what: str, method: str, url: str, body: bytes | None, *, headers: Mapping[str, str], deadline: float
    ) -> Reply:
        self.request_made = {"method": method, "url": url, "body": body, "headers": headers, "deadline": deadline}
        return await self._transport.request(what, method, url, body, headers=headers, deadline=deadline)


def _request() -> StartRequest:
    home = "https://payments.conva.example"
    return StartRequest(
        attempt_id=UUID("a0000000-0000-4000-8000-000000000001"),
        method="card",
        reference=SESSION_REFERENCE,
        amount=Money(1250, Currency.USD),
        description="Two bags of cement",
        return_url=f"{home}/pay/xkq3J9vPz0aLw8mT4bYc1HsD6fG?returned=1",
        callback_url=f"{home}/callbacks/stripe/{TENANT}",
        page_url=f"{home}/pay/xkq3J9vPz0aLw8mT4bYc1HsD6fG",
        payment_id=UUID("b0000000-0000-4000-8000-000000000001"),
        client_id=TENANT,
        expires_at=datetime.now(UTC) + timedelta(days=7),
    )


def _loading(stage: Stage) -> list[Figure]:
    """Medians of fresh processes, of which the first one only warms the disk."""
    found = [_loaded() for _ in range((3 if stage.quick else STARTS) + 1)][1:]
    figures = []
    for step, what in (("import", "import stripe"), ("typed", "what the first typed call loads besides (not used)")):
        milliseconds, megabytes = (statistics.median(steps[step][part] for steps in found) for part in (0, 1))
        figures.append(Figure(what, milliseconds, "ms", more=f"{megabytes:.1f} MB of memory"))
    return figures


def _loaded() -> dict[str, tuple[float, float]]:
    command = [sys.executable, "-m", "benchmarks.imports"]
    done = subprocess.run(command, stdout=subprocess.PIPE, cwd=ROOT, check=True, timeout=60)
    return dict(json.loads(done.stdout))
