"""Requests that a simulator sends of its own accord: in the background, to this machine only."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from payments_service.sandbox.wire import is_loopback

KEPT = 20_000  # tries, or requests, on record; older ones fall off


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """One try: what was posted where, and the HTTP status that came back, or why none did."""

    url: str
    body: bytes
    status: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a GET brought: its status is 200. `content_type` has no parameters; `cut`: there was more of the body."""

    body: bytes
    content_type: str
    cut: bool


@dataclass(kw_only=True)
class Outbound:
    """Background tasks that `close` ends, and HTTP requests from them. It refuses every host but loopback ones."""

    timeout_seconds: float = 10.0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _session: aiohttp.ClientSession | None = None

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Wait until nothing is under way, resends included."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Drop whatever is under way. The object may be used again afterwards."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    def refusal(self, target: URL) -> str:
        """Why nothing is ever posted there; empty for this machine."""
        if is_loopback(target):
            return ""
        return f"refused: this simulator posts to loopback hosts only, never to {target.host}"

    async def post(self, target: URL, body: bytes, headers: Mapping[str, str]) -> tuple[int | None, str]:
        """The HTTP status that came back, or None and why none did."""
        try:
            async with self._open_session().post(target, data=body, headers=headers, allow_redirects=False) as reply:
                return reply.status, ""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, f"no answer ({type(error).__name__})"

    async def fetch(self, address: str, headers: Mapping[str, str], most: int) -> Fetched | None:
        """GET this page, at most so many bytes of it; None for any answer but 200, and for every other host."""
        try:
            target = URL(address)
            if target.scheme != "http" or self.refusal(target):
                return None
            async with self._open_session().get(target, headers=headers, allow_redirects=False) as reply:
                if reply.status != 200:
                    return None
                body = await _read(reply, most + 1)
                return Fetched(body[:most], reply.content_type, len(body) > most)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.timeout_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session


async def _read(reply: aiohttp.ClientResponse, most: int) -> bytes:
    body = b""
    async for piece in reply.content.iter_any():
        body += piece
        if len(body) >= most:
            break
    return body[:most]
