"""What happens to a connection of the public listener before an app is called and after it has answered.

uvicorn 0.54 over httptools limits one thing: how long a connection may idle after an answer. One that sends nothing,
or its headers byte by byte, or a blank line after an answer, or that never reads, stays for ever; headers, trailers
and pipelined requests grow without end. `uvicorn.Config(http=Connection)` drops such connections. A request pays for
it with a few comparisons; the clock is looked at by one timer per connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from payments_service.public.guard import MAX_BODY, security_headers


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection, and all together, may take. Seconds, bytes, counts."""

    header_seconds: float = 10.0
    # Answers are a few kilobytes and fit into the system's own buffer: what stays in ours is not being read.
    unread_seconds: float = 15.0
    headers: int = 32 * 1024
    # As it comes over the line: every byte of the body may be a chunk of its own.
    request: int = 32 * 1024 + 6 * MAX_BODY
    # The same while a client that sends too much is being told so.
    refused_request: int = 4 * 1024 * 1024
    pipelined: int = 8
    # Below the usual 1,024 open files, with room for the database and the gateways.
    connections: int = 800


_MALFORMED = {
    "type": "about:blank",
    "title": "Bad request",
    "status": 400,
    "detail": "This is not a valid HTTP request.",
    "code": "malformed_request",
}


def _malformed() -> bytes:
    """The answer to what is no HTTP at all: it never reaches the guard, and has its headers all the same."""
    body = msgspec.json.encode(_MALFORMED)
    headers = [
        *security_headers(),
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return b"HTTP/1.1 400 Bad Request\r\n" + lines + b"\r\n" + body


_ANSWER_400 = _malformed()


class Connection(HttpToolsProtocol):
    """A connection with limits; tests subclass it with shorter ones."""

    limits: ClassVar[Limits] = Limits()

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # Its lines name the path, and a pay link's token stands in it; `web.Observe` writes the line instead.
        self.access_log = False
        # When the headers of the next request must be complete; 0 while none are awaited.
        self._headers_due = 0.0
        self._unread_since = 0.0
        # Bytes since the request began, without the piece that it began in.
        self._received = 0
        self._pace = min(self.limits.header_seconds, self.limits.unread_seconds) / 4
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            transport.abort()
            return
        self._headers_due = self.loop.time() + self.limits.header_seconds
        self._watch = self.loop.call_later(self._pace, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self._headers_due and (self.cycle is None or self.cycle.response_complete):
            # uvicorn has just stopped its idle timer, and a blank line would not start it again.
            self._headers_due = self.loop.time() + self.limits.header_seconds
        self._received += len(data)
        super().data_received(data)
        if self._received > self._most():
            self.transport.abort()

    def _most(self) -> int:
        if self._headers_due:
            return self.limits.headers
        refused = self.cycle is not None and self.cycle.response_started
        return self.limits.refused_request if refused else self.limits.request

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= self.limits.pipelined:
            raise ValueError("too many requests at once on one connection")  # httptools makes it a parser error
        self._received = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._headers_due = 0.0
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # An answer may be half written: another in the middle of it would be taken for its content.
            self.transport.abort()
            return
        self.transport.write(_ANSWER_400)
        self.transport.close()

    def _look(self) -> None:
        """Every now and then: drop the connection if its client is too slow, else look again later."""
        now = self.loop.time()
        if not self.transport.get_write_buffer_size():
            self._unread_since = 0.0
        elif not self._unread_since:
            self._unread_since = now
        too_slow = 0 < self._headers_due <= now
        unread = self._unread_since and now - self._unread_since >= self.limits.unread_seconds
        if too_slow or unread:
            self.transport.abort()
            return
        self._watch = self.loop.call_later(self._pace, self._look)
