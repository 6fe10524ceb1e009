"""One call over HTTP: sent, tried again while that may help, its answer told from its problems."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from conva_payments.patience import Patience, retry_after
from conva_payments.problems import CLASSES, Fault, NoAnswer, PaymentsError, Problem, Told, UnexpectedAnswer
from conva_payments.version import __version__

T = TypeVar("T")
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request. `key` is its idempotency key; `request_id` names it in the service's log, the same on each try."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = field(default=None, repr=False)  # settings are secret
    actor: str | None = None
    key: str | None = None
    request_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def failed(self, code: str, detail: str) -> Told:
        """What is known of the failure from our side."""
        return Told(code=code, detail=detail, request_id=self.request_id, idempotency_key=self.key)


class Wire:
    """A connection pool to the service, with the token. One for the whole process: making one is dear."""

    def __init__(self, base_url: str, token: str, patience: Patience) -> None:
        self._base = _checked(base_url)
        self._token = _printable(token)
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    def __repr__(self) -> str:
        return f"Wire({self._base!r})"

    @property
    def base_url(self) -> str:
        return self._base

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())

    async def close(self) -> None:
        if self._session:
            await self._session.close()
        self._session = None

    async def fetch(self, call: Call, read: Callable[[bytes], T]) -> T:
        """What `read` makes of the answer, for which it may raise msgspec.DecodeError. Raises PaymentsError."""
        answer = await self._patiently(call, _whole, self._for_all)
        try:
            return read(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            wrong = call.failed("unexpected_answer", f"The answer is not what this version knows: {error}.")
        raise UnexpectedAnswer(wrong)

    async def stream(self, call: Call) -> AsyncIterator[bytes]:
        """The answer's body as it comes. Raises PaymentsError, also in the middle: then what came is not the whole."""
        response = await self._patiently(call, _as_it_comes, self._for_each_chunk)
        async with response:
            try:
                async for chunk in response.content.iter_chunked(_CHUNK):
                    yield chunk
                return
            except (aiohttp.ClientError, TimeoutError) as error:
                cut = call.failed("no_answer", f"The answer broke off ({type(error).__name__}).")
        raise NoAnswer(cut)

    async def _patiently(
        self,
        call: Call,
        take: Callable[[aiohttp.ClientResponse], Awaitable[T]],
        timeout: Callable[[float], aiohttp.ClientTimeout],
    ) -> T:
        now = asyncio.get_running_loop().time
        end = now() + self._patience.deadline_seconds
        tried = 0
        while True:
            tried += 1
            seconds = max(min(self._patience.try_seconds, end - now()), 0.01)  # to aiohttp 0 is no limit
            outcome = await self._once(call, take, timeout(seconds))
            if not isinstance(outcome, PaymentsError):
                return outcome
            wait = self._patience.wait(outcome, tried)
            if wait is None or now() + wait >= end:
                raise outcome
            await asyncio.sleep(wait)

    async def _once(
        self, call: Call, take: Callable[[aiohttp.ClientResponse], Awaitable[T]], timeout: aiohttp.ClientTimeout
    ) -> T | PaymentsError:
        """What was taken of the answer, or why there is nothing. An exception of aiohttp's is not chained: its request
        has the token in its headers."""
        if self._session is None:
            raise RuntimeError("The client is not open: use it in `async with`.")
        try:
            response = await self._session.request(
                call.method,
                self._base + call.path,
                params=call.query,
                data=call.body,
                headers=self._headers(call),
                allow_redirects=False,  # the token is for this service alone
                timeout=timeout,
            )
            if 200 <= response.status < 300:
                return await take(response)
            return _refusal(call, response, await _whole(response))
        except (aiohttp.ClientError, TimeoutError) as error:
            return NoAnswer(call.failed("no_answer", f"No answer from {self._base} ({type(error).__name__})."))

    def _for_all(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds, sock_connect=self._patience.connect_seconds)

    def _for_each_chunk(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=None, sock_connect=self._patience.connect_seconds, sock_read=seconds)

    def _headers(self, call: Call) -> dict[str, str]:
        given = {
            "Authorization": f"Bearer {self._token}",
            "Accept": "application/json, text/csv",
            "User-Agent": f"conva-payments-client/{__version__}",
            "X-Request-Id": call.request_id,
            "Content-Type": "application/json" if call.body else None,
            "X-Actor": call.actor,
            "Idempotency-Key": call.key,
        }
        return {name: value for name, value in given.items() if value is not None}


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    async with response:
        return await response.read()


async def _as_it_comes(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
    return response


class _Details(msgspec.Struct):
    """RFC 9457 problem details, with what the service adds."""

    code: str
    detail: str
    payment_id: uuid.UUID | None = None
    errors: list[Fault] = []
    in_the_way: dict[str, int] = {}


def _refusal(call: Call, response: aiohttp.ClientResponse, body: bytes) -> PaymentsError:
    known = replace(
        call.failed("unexpected_answer", f"Answered with {response.status}, but not by Conva Payments."),
        status=response.status,
        retry_after=retry_after(response.headers),
    )
    if response.content_type != "application/problem+json":
        return UnexpectedAnswer(known)
    try:
        details = msgspec.json.decode(body, type=_Details)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return UnexpectedAnswer(known)
    told = replace(
        known,
        code=details.code,
        detail=details.detail,
        payment_id=details.payment_id,
        errors=details.errors,
        in_the_way=details.in_the_way,
    )
    return CLASSES.get(details.code, Problem)(told)


def _checked(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError("The address must be http(s)://host[:port], without a user or password.")
    return base_url.rstrip("/")


def _printable(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("The token must be printable ASCII without blanks: one of the service's SERVICE_TOKENS.")
    return token
