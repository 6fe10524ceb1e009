"""The answer that never comes: a simulator's way to leave its caller in doubt."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class NoReply(Response):
    """Holds the connection, then drops it without a byte. Ends early when the caller hangs up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(status_code=504)
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._seconds):
                while (await receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            # ASGI has no word for "hang up": uvicorn's `receive` is a method of the object that holds the transport.
            transport = getattr(getattr(receive, "__self__", None), "transport", None)
            if transport is not None:
                transport.abort()
                await asyncio.sleep(0)  # let the loop tell uvicorn that the connection is lost
        await super().__call__(scope, receive, send)  # goes nowhere, unless the server is not uvicorn
