"""Running the service: the two listeners and the workers in one process, or one of them; a clean end on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from typing import Literal

import structlog
import uvicorn
from starlette.types import ASGIApp

from payments_service import workers
from payments_service.app import Parts, internal_app, metrics_app, parts, public_app
from payments_service.config import Settings
from payments_service.errors import PaymentsError
from payments_service.parsers import Bind
from payments_service.public.connections import Connection

log = structlog.get_logger(__name__)

Part = Literal["internal", "public", "worker"]
ALL: tuple[Part, ...] = ("internal", "public", "worker")
# Orchestrators kill after 30 s.
DRAIN_SECONDS = 25


class _Server(uvicorn.Server):
    """A listener among others in the process: the signals are handled once, for all of them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(app: ASGIApp, *, public: bool) -> _Server:
    options = uvicorn.Config(
        app,
        # Strangers may be slow on purpose; the backend is not.
        http=Connection if public else "httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=5 if public else 75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ws="none",
    )
    return _Server(options)


async def serve(
    settings: Settings, database_url: str, only: Part | None = None, stop: asyncio.Event | None = None
) -> None:
    """Run until `stop` is set or SIGTERM or SIGINT comes; then answer what was begun and end."""
    stop = stop or asyncio.Event()
    stop_on_signals(stop)
    wanted = (only,) if only else ALL
    async with parts(settings, database_url) as built:
        listeners = _listeners(settings, built, wanted)
        jobs = [asyncio.create_task(server.serve(sockets=[listener])) for server, listener in listeners]
        if "worker" in wanted:
            jobs.append(asyncio.create_task(workers.run(built.context, built.courier, stop)))
        log.info("serving", settings=", ".join(wanted))
        await _until(stop, jobs)
        log.info("draining")
        for server, _ in listeners:
            server.should_exit = True
        await asyncio.wait(jobs, timeout=DRAIN_SECONDS)
    log.info("stopped")
    _raise_failure(jobs)


def _listeners(settings: Settings, built: Parts, wanted: tuple[Part, ...]) -> list[tuple[_Server, socket.socket]]:
    listeners = []
    if "internal" in wanted:
        app = internal_app(built.context, settings)
        listeners.append((_server(app, public=False), listen("INTERNAL_BIND", settings.internal_bind)))
    if "public" in wanted:
        app = public_app(built.context)
        listeners.append((_server(app, public=True), listen("PUBLIC_BIND", settings.public_bind)))
    if settings.metrics_bind is not None:
        app = metrics_app(built.context)
        listeners.append((_server(app, public=False), listen("METRICS_BIND", settings.metrics_bind)))
    return listeners


def listen(setting: str, bind: Bind) -> socket.socket:
    """A listening socket; PaymentsError in plain words when the address cannot be had."""
    family = socket.AF_INET6 if ":" in bind.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((bind.host, bind.port))
    except OSError as error:
        listener.close()
        raise PaymentsError(f"{setting}: cannot listen on {bind} ({error.strerror}). Is it in use?") from error
    listener.setblocking(False)
    return listener


async def _until(stop: asyncio.Event, jobs: list[asyncio.Task[None]]) -> None:
    """Wait for the stop; a part that ends by itself (its port is taken, say) ends all."""
    waiting = asyncio.create_task(stop.wait())
    await asyncio.wait([waiting, *jobs], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    stop.set()


def _raise_failure(jobs: list[asyncio.Task[None]]) -> None:
    for job in jobs:
        if job.done() and not job.cancelled() and (error := job.exception()) is not None:
            raise error


async def serve_app(app: ASGIApp, listener: socket.socket, stop: asyncio.Event) -> None:
    """One more listener beside the service's own (a simulator, the demo's backend), until `stop`."""
    server = _server(app, public=False)
    job = asyncio.create_task(server.serve(sockets=[listener]))
    await _until(stop, [job])
    server.should_exit = True
    await asyncio.wait([job], timeout=DRAIN_SECONDS)
    _raise_failure([job])


def stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
