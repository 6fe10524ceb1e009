"""Server-to-server messages of a simulator: posted to this machine only, resent when refused, all on record."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from yarl import URL

from payments_service.sandbox.wire import is_loopback

# Paynow resends up to ten times at intervals it does not publish (section 4); these suit a test.
RESEND_AFTER = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 3.0, 3.0, 3.0, 3.0)

_KEPT = 20_000  # tries on record; older ones fall off
_HEADERS = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass(frozen=True, slots=True)
class Delivery:
    """One try: what was posted where, and the HTTP status that came back, or why none did."""

    reference: str
    url: str
    body: bytes
    status: int | None = None
    error: str = ""

    @property
    def accepted(self) -> bool:
        """Answered with anything but an HTTP error: Paynow is content with that."""
        return self.status is not None and self.status < 400


@dataclass(frozen=True, slots=True)
class Batch:
    """Bodies posted at the same time, `after` seconds from the end of the batch before."""

    bodies: list[bytes]
    after: float = 0.0


@dataclass
class Callbacks:
    """Posts messages in background tasks that `close` ends. It refuses every host but loopback ones."""

    resend_after: Sequence[float] = RESEND_AFTER
    timeout_seconds: float = 10.0
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _session: aiohttp.ClientSession | None = None

    def start(self, reference: str, url: str, batches: list[Batch]) -> None:
        """Post the batches one after the other, in the background of the running loop."""
        self.background(self._post_batches(reference, url, batches))

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

    async def _post_batches(self, reference: str, url: str, batches: list[Batch]) -> None:
        for batch in batches:
            await asyncio.sleep(batch.after)
            await asyncio.gather(*(self._post_until_accepted(reference, url, body) for body in batch.bodies))

    async def _post_until_accepted(self, reference: str, url: str, body: bytes) -> None:
        target = URL(url)
        if not is_loopback(target):
            error = f"refused: this simulator posts to loopback hosts only, never to {target.host}"
            self.deliveries.append(Delivery(reference, url, body, error=error))
            return
        for wait in (0.0, *self.resend_after):
            await asyncio.sleep(wait)
            status, error = await self._post(target, body)
            self.deliveries.append(Delivery(reference, url, body, status, error))
            if self.deliveries[-1].accepted:
                return

    async def _post(self, target: URL, body: bytes) -> tuple[int | None, str]:
        try:
            async with self._open_session().post(target, data=body, headers=_HEADERS, allow_redirects=False) as reply:
                return reply.status, ""
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, f"no answer ({type(error).__name__})"

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self.timeout_seconds),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session
