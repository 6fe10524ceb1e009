"""The wall in front of everything that the internet can reach: body cap, deadlines, security headers.

Order: `Observe(Guard(Starlette(...)))`. Observe, outermost, gives the request its id and logs one line for it; so
what the guard answers by itself is logged too, and carries the id. What the app raises is answered here, with the
security headers and without internals, and raised on for Observe to log.

What happens before an app is called at all (slow headers, idle connections) is `connections.py`'s part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_service.public.assets import SCRIPT_SOURCE, STYLE_SOURCE

Headers = list[tuple[bytes, bytes]]

MAX_BODY = 64 * 1024
BODY_SECONDS = 15.0
# Longer than any call of ours to a gateway or the database: cutting one off would lose its answer.
ANSWER_SECONDS = 45.0

# After a 413 the rest is thrown away for a moment instead of cutting the line: a reset would reach the client before
# our answer does.
_LINGER_SECONDS = 1.0
_LINGER_BYTES = 2 * 1024 * 1024

_TITLES = {
    408: "The request came too slowly",
    413: "The body is too large",
    500: "Something went wrong on our side",
    503: "Temporarily unavailable",
}
_CLOSE = (b"connection", b"close")


class _Slow(Exception):
    """The client did not send its body in time."""


class _Large(Exception):
    """The body is over the cap."""


def security_headers(form_targets: Sequence[str] = ()) -> Headers:
    """The headers of every public answer. `form_targets`: origins that a form's answer may redirect to.

    Chromium holds a redirect after a POST against `form-action`, so the gateways' own pages must be named there.
    """
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src {STYLE_SOURCE}",
            f"script-src {SCRIPT_SOURCE}",
            "connect-src 'self'",
            " ".join(("form-action 'self'", *form_targets)),
            "frame-ancestors 'none'",
            "base-uri 'none'",
        )
    )
    named = {
        "content-security-policy": policy,
        # Without includeSubDomains: other services may live below the same name.
        "strict-transport-security": "max-age=31536000",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-robots-tag": "noindex",
        "x-frame-options": "DENY",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
    }
    return [(name.encode(), value.encode()) for name, value in named.items()]


class Guard:
    """ASGI middleware: the app behind it sees whole bodies of at most `max_body` bytes, and every answer has the
    security headers.

    A body over the cap: 413, at once if Content-Length says so, else as soon as it is. A body that does not arrive
    within `deadline` seconds: 408. Both close the connection. No answer within `answer_deadline` seconds: the app
    is cancelled, 503.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int = MAX_BODY,
        deadline: float = BODY_SECONDS,
        answer_deadline: float = ANSWER_SECONDS,
        form_targets: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._deadline = deadline
        self._answer_deadline = answer_deadline
        self._headers = security_headers(form_targets)
        self._names = frozenset(name for name, _ in self._headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        outward = _Outward(send, self._headers, self._names)
        try:
            body = await self._body(scope, receive)
        except _Large:
            words = f"The body is over {self._max_body} bytes."
            await _problem(outward, 413, "body_too_large", words, close=True, more=True)
            await _linger(receive)
            await send({"type": "http.response.body", "body": b""})
            return
        except _Slow:
            words = f"The request did not arrive within {self._deadline:g} seconds."
            await _problem(outward, 408, "request_timeout", words, close=True)
            return
        await self._answer(scope, _Replay(body, receive) if body is not None else receive, outward)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body, None when the request announces none. Raises _Large, _Slow and ClientDisconnect."""
        announced = _announced(scope)
        if announced == 0:
            return None
        if announced is not None and announced > self._max_body:
            raise _Large
        try:
            async with asyncio.timeout(self._deadline):
                return await self._read(receive)
        except TimeoutError:
            raise _Slow from None

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise _Large
            if not message.get("more_body", False):
                return bytes(body)

    async def _answer(self, scope: Scope, receive: Receive, outward: _Outward) -> None:
        """Let the app answer; what it raises is answered in general words, and raised on."""
        try:
            async with asyncio.timeout(self._answer_deadline) as limit:
                await self._app(scope, receive, outward)
        except ClientDisconnect:
            raise
        except Exception:
            if not outward.started:
                if limit.expired():
                    words = "This takes too long. Try again in a moment."
                    await _problem(outward, 503, "unavailable", words, retry_after=5)
                else:
                    words = "Something went wrong on our side; nothing is known to be changed. Try again in a moment."
                    await _problem(outward, 500, "internal_error", words)
            raise


class _Outward:
    """`send` with the security headers; the app's own headers of the same names give way."""

    __slots__ = ("_headers", "_names", "_send", "started")

    def __init__(self, send: Send, headers: Headers, names: frozenset[bytes]) -> None:
        self._send = send
        self._headers = headers
        self._names = names
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            own = [header for header in message.get("headers", ()) if header[0] not in self._names]
            message["headers"] = own + self._headers
        await self._send(message)


class _Replay:
    """`receive` for the app: the body that was read already, in one message; then whatever comes."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        message: Message = {"type": "http.request", "body": self._body, "more_body": False}
        self._body = None
        return message


def _announced(scope: Scope) -> int | None:
    """The length that the headers announce: 0 without a body, None when only reading can tell."""
    length: int | None = 0
    for name, value in scope["headers"]:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value) if value.isdigit() else None
    return length


async def _problem(
    outward: _Outward,
    status: int,
    code: str,
    detail: str,
    *,
    close: bool = False,
    more: bool = False,
    retry_after: int | None = None,
) -> None:
    """RFC 9457 problem details. With `more`, the answer is whole for the client but the exchange not yet over."""
    fields = {
        "type": "about:blank",
        "title": _TITLES[status],
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": structlog.contextvars.get_contextvars().get("request_id"),
    }
    body = msgspec.json.encode(fields)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(body)).encode())]
    if close:
        headers.append(_CLOSE)
    if retry_after is not None:
        headers.append((b"retry-after", str(retry_after).encode()))
    await outward({"type": "http.response.start", "status": status, "headers": headers})
    await outward({"type": "http.response.body", "body": body, "more_body": more})


async def _linger(receive: Receive) -> None:
    """Throw away what still comes, for a moment."""
    left = _LINGER_BYTES
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
