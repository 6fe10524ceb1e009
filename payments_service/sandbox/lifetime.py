"""From when to when a simulator lives: as an `async with`, or as long as an ASGI app does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self


class Lifetime:
    """Something that is started and closed. A simulator says here what ends in time, and what may be under way."""

    def start(self) -> None:
        """From now on what ends in time does so even while nobody asks."""

    async def close(self) -> None:
        """Drop whatever is under way, and the connections."""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        """For an ASGI app, which starts it, and closes it at its own end."""
        async with self:
            yield
