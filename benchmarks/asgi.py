"""Asking an ASGI application in this process, without a listener between."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import ASGIApp, Message

from benchmarks.processes import HOST


async def ask(app: ASGIApp, method: str, path: str, body: bytes, headers: Mapping[str, str], *, expect: int) -> None:
    """Send one request. RuntimeError if it is answered by another status than expected."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": (HOST, 1),
        "server": (HOST, 80),
    }
    answer: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        answer.append(message)

    await app(scope, receive, send)
    if answer[0]["status"] != expect:
        raise RuntimeError(f"{method} {path} was answered {answer}")
