"""The only module that speaks HTTP to the outside: bounded, never redirected, without cookies or proxies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType

import aiohttp
import structlog

from payments_service.errors import Ambiguous, Unreachable, Untrusted

MAX_REPLY = 1024 * 1024
CONNECT_SECONDS = 5.0
_USER_AGENT = "conva-payments"

# UnicodeError: the resolver's, for a host that cannot be a name.
_NEVER_LEFT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    UnicodeError,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that arrived whole: status, at most 1 MiB of body, and the headers, their names in any case."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def retry_after(self) -> str | None:
        return self.headers.get("Retry-After")


class Transport:
    """One client session per process: connections are shared, answers are bounded in size and time."""

    def __init__(
        self,
        *,
        connections_per_host: int = 100,
        connect_seconds: float = CONNECT_SECONDS,
        told: Callable[[str, str, float], None] | None = None,
    ) -> None:
        """`told` is told of each call: what it was, how it ended (an HTTP status or a word), and the seconds."""
        self._told = told
        self._connect_seconds = connect_seconds
        self._session = aiohttp.ClientSession(
            # Counted per host: a gateway that hangs must not use up the connections of the others.
            connector=aiohttp.TCPConnector(limit=0, limit_per_host=connections_per_host, ttl_dns_cache=60),
            # A shared jar would send one tenant's cookie with another tenant's key.
            cookie_jar=aiohttp.DummyCookieJar(),
            # Compressed answers could unfold to any size before we count them: ask for none, unfold none.
            auto_decompress=False,
            headers={"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def __aenter__(self) -> Transport:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def post(self, what: str, url: str, body: bytes, *, headers: Mapping[str, str], deadline: float) -> Reply:
        """`request` with POST."""
        return await self.request(what, "POST", url, body, headers=headers, deadline=deadline)

    async def request(
        self, what: str, method: str, url: str, body: bytes | None, *, headers: Mapping[str, str], deadline: float
    ) -> Reply:
        """Send, and read the whole answer within `deadline` seconds.

        `what` names the call in the log (`paynow.initiate`). Raises Unreachable when the request cannot have left,
        Ambiguous when it may have, Untrusted for a redirect or an oversized answer.
        """
        started = time.perf_counter()
        outcome = "failed"
        try:
            reply = await self._request(what, method, url, body, headers, deadline)
            outcome = str(reply.status)
            return reply
        except (Unreachable, Ambiguous, Untrusted) as error:
            outcome = type(error).__name__.lower()
            raise
        finally:
            elapsed = time.perf_counter() - started
            log.info("outside_call", call=what, outcome=outcome, milliseconds=round(elapsed * 1000, 1))
            if self._told:
                self._told(what, outcome, elapsed)

    async def _request(
        self, what: str, method: str, url: str, body: bytes | None, headers: Mapping[str, str], deadline: float
    ) -> Reply:
        # `connect` also covers the wait for one of the host's connections: nothing has left by then.
        timeout = aiohttp.ClientTimeout(total=deadline, connect=min(self._connect_seconds, deadline))
        try:
            # Read inside the request's own block: what ends early gives its connection back.
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                return await _read(what, response)
        except _NEVER_LEFT as error:
            raise Unreachable(f"{what}: no connection could be made") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Ambiguous(f"{what}: sent, but no whole answer came") from error


async def _read(what: str, response: aiohttp.ClientResponse) -> Reply:
    if 300 <= response.status < 400:
        raise Untrusted(f"{what}: answered with a redirect, which is never followed")
    body = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        body += chunk
        if len(body) > MAX_REPLY:
            raise Untrusted(f"{what}: the answer is larger than 1 MiB")
    return Reply(response.status, bytes(body), response.headers)
