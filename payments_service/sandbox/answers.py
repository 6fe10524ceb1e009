"""What a simulator's API answers, and what may become of the answer on its way: faults that know no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from payments_service.sandbox.noreply import NoReply

HUGE_BYTES = 50_000_000
_DRIPS = 40
_BLOCK_PAGE = (
    "<!DOCTYPE html><html><head><title>Sign in</title></head><body><h1>Guest network: sign in</h1></body></html>"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API would say: HTTP status, body, headers."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def response(self, body: bytes | None = None) -> Response:
        return Response(self.body if body is None else body, self.status, dict(self.headers))


# Of the true answer, the fault's seconds, and the address of a page that counts who follows a redirect.
Spoil = Callable[[Answer, float, str], Response]


def spoilt(answer: Answer, spoil: Spoil | None, seconds: float, elsewhere: str) -> Response:
    """The answer, or what becomes of it."""
    return answer.response() if spoil is None else spoil(answer, seconds, elsewhere)


def html(_answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return HTMLResponse(_BLOCK_PAGE)


def unavailable(_answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return HTMLResponse("<html><body><h1>503 Service Temporarily Unavailable</h1></body></html>", 503)


def empty(_answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return Response(b"", 200, media_type="application/json")


def truncated(answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return answer.response(answer.body[: len(answer.body) // 2])


def redirect(_answer: Answer, _seconds: float, elsewhere: str) -> Response:
    return RedirectResponse(elsewhere, status_code=302)


def huge(answer: Answer, _seconds: float, _elsewhere: str, *, filler: bytes = b" ") -> Response:
    """Blanks behind JSON leave it valid: only the size is wrong. The `filler` is one byte."""

    async def chunks() -> AsyncIterator[bytes]:
        yield answer.body
        chunk = filler * 65_536
        for _ in range(HUGE_BYTES // len(chunk) + 1):
            yield chunk

    return StreamingResponse(chunks(), answer.status, dict(answer.headers))


def slow(answer: Answer, seconds: float, _elsewhere: str) -> Response:
    """Headers at once, then the body in drips."""

    async def drips() -> AsyncIterator[bytes]:
        size = len(answer.body) // _DRIPS + 1
        for start in range(0, len(answer.body), size):
            yield answer.body[start : start + size]
            await asyncio.sleep(seconds / _DRIPS)

    return StreamingResponse(drips(), answer.status, dict(answer.headers))


def no_reply(_answer: Answer, seconds: float, _elsewhere: str) -> Response:
    """Silence for so long, then the connection is cut."""
    return NoReply(seconds)
