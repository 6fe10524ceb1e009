"""The hand of a simulator's clock: what has to happen in time happens though nobody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_TICK_SECONDS = 1.0


class Ticker:
    """Calls `work` once a second, from `start` in a running loop until `stop`; both may be repeated."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._tick())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._work()
