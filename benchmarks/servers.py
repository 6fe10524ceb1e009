"""The other ends, each a process of its own: `python -m benchmarks.servers bare|backend|stripe|floor PORT`.

bare     Starlette under the service's own uvicorn options, which takes a callback, checks a webhook of Stripe's, and
         shows a page of any size: what the framework alone costs
backend  takes the service's events and remembers when each came first
stripe   answers every request at once with the same session
floor    an HTTP server that does not even parse: how much load the generator can make at all
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import msgspec
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.processes import HOST
from benchmarks.stage import STRIPE_SECRET
from payments_service.gateways.stripe_wire import signed_event
from payments_service.parsers import Bind
from payments_service.serve import listen, serve_app, stop_on_signals

# What the sessions of the stub are about.
SESSION_REFERENCE = "INV-4711-7XK2M9QD"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: text/plain; charset=utf-8\r\n\r\nOK"


async def _ready(_request: Request) -> Response:
    return PlainTextResponse("OK")


async def _bare(port: int, stop: asyncio.Event) -> None:
    async def take(request: Request) -> Response:
        await request.body()
        return PlainTextResponse("OK")

    async def check(request: Request) -> Response:
        event = signed_event(
            await request.body(), request.headers["stripe-signature"], [STRIPE_SECRET], datetime.now(UTC)
        )
        return Response(msgspec.json.encode({"received": bool(event.id)}), media_type="application/json")

    async def page(request: Request) -> Response:
        return HTMLResponse(b"x" * request.path_params["size"])

    routes = [
        Route("/callbacks/paynow/{client_id}/{attempt}", take, methods=["POST"]),
        Route("/callbacks/stripe/{client_id}", check, methods=["POST"]),
        Route("/page/{size:int}", page),
        Route("/ready", _ready),
    ]
    await serve_app(Starlette(routes=routes), listen("bare", Bind(HOST, port)), stop)


async def _backend(port: int, stop: asyncio.Event) -> None:
    arrived: dict[str, float] = {}

    async def take(request: Request) -> Response:
        arrived.setdefault(request.headers["webhook-id"], time.time())
        await request.body()
        return Response(status_code=204)

    async def tell(_request: Request) -> Response:
        return Response(msgspec.json.encode(arrived))

    routes = [Route("/events", take, methods=["POST"]), Route("/arrived", tell), Route("/ready", _ready)]
    await serve_app(Starlette(routes=routes), listen("backend", Bind(HOST, port)), stop)


class _Floor(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.write(_ANSWER)


class _Canned(asyncio.Protocol):
    """One answer to every whole request."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head = self.data.find(b"\r\n\r\n")
        length = _LENGTH.search(self.data, 0, max(head, 0))
        if head >= 0 and len(self.data) >= head + 4 + (int(length[1]) if length else 0):
            self.data = b""
            self.transport.write(self.answer)


async def _stripe(port: int, stop: asyncio.Event) -> None:
    from benchmarks.cards import session

    body = await asyncio.to_thread(session, SESSION_REFERENCE)
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    server = await asyncio.get_running_loop().create_server(lambda: _Canned(head.encode() + body), HOST, port)
    await stop.wait()
    server.close()


async def _floor(port: int, stop: asyncio.Event) -> None:
    server = await asyncio.get_running_loop().create_server(_Floor, HOST, port)
    await stop.wait()
    server.close()


KINDS: dict[str, Callable[[int, asyncio.Event], Awaitable[None]]] = {
    "bare": _bare,
    "backend": _backend,
    "stripe": _stripe,
    "floor": _floor,
}


async def _main(kind: str, port: str) -> None:
    stop = asyncio.Event()
    stop_on_signals(stop)
    await KINDS[kind](int(port), stop)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(*sys.argv[1:]))
