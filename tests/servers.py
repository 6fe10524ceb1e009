"""Any ASGI app as a real HTTP server on loopback, inside the test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers (Ctrl-C belongs to pytest) and without its `sys.exit`."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stopping = asyncio.Event()
        self._up = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._stopping.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._up.set()

    async def is_up(self, running: asyncio.Task[None]) -> bool:
        """Wait until it serves, or is over before it does."""
        up = asyncio.create_task(self._up.wait())
        await asyncio.wait([up, running], return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        return self.started

    async def main_loop(self) -> None:
        """uvicorn's own looks ten times a second whether to stop. A thousand servers are stopped here in a run."""
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.1):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own waits a tenth of a second for clients; where there are none any more, nobody has to."""
        await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for server in self.servers:
            server.close()
        await self.lifespan.shutdown()

    async def run_on(self, listener: socket.socket) -> None:
        try:
            await self.serve(sockets=[listener])
        except SystemExit:
            raise RuntimeError("the app's lifespan failed at its start: its traceback is in the log") from None


def listen(port: int = 0, host: str = "127.0.0.1") -> socket.socket:
    """A listening loopback socket; port 0 takes a free one. Connections queue from here on: nothing races."""
    listener = socket.create_server((host, port), backlog=2048)
    listener.setblocking(False)
    return listener


@contextlib.asynccontextmanager
async def serve(
    app: Any, *, port: int = 0, lifespan: str = "auto", grace: int = 1, **options: Any
) -> AsyncIterator[str]:
    """Serve an ASGI app while the block runs; yields its base URL, such as `http://127.0.0.1:40123`.

    `port` 0 takes a free one; give the former port to bring a stopped server back. When the block ends,
    requests that still run get `grace` seconds and are then cancelled. `options` are uvicorn's own.
    RuntimeError: the app did not start.
    """
    listener = listen(port)
    host, bound_port = listener.getsockname()[:2]
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan=lifespan, timeout_graceful_shutdown=grace, **options
    )
    server = _Server(config)
    running = asyncio.create_task(server.run_on(listener))
    try:
        if await server.is_up(running):
            yield f"http://{host}:{bound_port}"
    finally:
        server.stop()
        await asyncio.wait([running])
        listener.close()
    running.result()


class Stage:
    """An ASGI app that is whichever app stands on it now: one server serves a module, each test its own app."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
