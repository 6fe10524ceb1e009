"""Calls of InnBucks' API: signing in, the tokens that come of it, and what is sent with them.

A token lives for 15 minutes [A]. One is kept for each set of credentials, in memory only: another process signs in by
itself. Nothing is locked between tenants, and however many calls wait for a token, one sign-in brings it.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from payments_service.errors import Because, GatewayError, Refused, Unreachable
from payments_service.gateways.innbucks_wire import Answer, read
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import Outcome

SIGN_IN = "/auth/third-party"
# Given up a minute early, counted from before it was asked for: none ends on the way.
TOKEN_LIFE = 14 * 60.0
MOST_TOKENS = 4096
SIGN_IN_SECONDS = 4.0
# So long nobody asks again with credentials that were refused: many open attempts must not lock the account.
REFUSED_LIFE = 30.0

# Turned away on the way: nothing follows for the credentials.
_ASIDE = frozenset({404, 405, 408, 429})
_TRACE_ID = re.compile(r"[A-Za-z0-9._:/=+-]{1,100}", re.ASCII)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class InnbucksCredentials:
    """One merchant account. The username is no secret."""

    username: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `what` names it in the log, `seconds` is the deadline of each try."""

    what: str
    path: str
    body: Mapping[str, str | int] = field(repr=False)
    seconds: float


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back whole: `answer` None where it is no JSON object. `said` is the code's status in InnBucks' word,
    `words` what it says for people; neither holds a secret of the call."""

    status: int
    answer: Answer | None
    said: str = ""
    words: str = ""

    @classmethod
    def of(cls, reply: Reply, secrets: Sequence[str]) -> Answered:
        answer = read(reply.body)
        if answer is None:
            return cls(reply.status, None)
        all_secrets = (*secrets, answer.token or "")
        return cls(reply.status, answer, answer.said(all_secrets), answer.words(all_secrets))

    @property
    def outcome(self) -> Outcome | None:
        return self.answer.outcome if self.answer else None


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    asked_at: float


class Tokens:
    """The tokens of all tenants, the least recently used ones out first. Passwords are not kept with them."""

    def __init__(self, sign_in: Callable[[InnbucksCredentials], Awaitable[str]], now: Callable[[], float]) -> None:
        self._sign_in = sign_in
        self._now = now
        self._kept: dict[bytes, _Token] = {}  # in the order of their last use
        self._coming: dict[bytes, asyncio.Task[str]] = {}
        self._refused: dict[bytes, tuple[Refused, float]] = {}
        self._pepper = secrets.token_bytes(32)

    async def of(self, credentials: InnbucksCredentials, within: float) -> str:
        """A token that should be good, waited for at most `within` seconds.

        The sign-in is a task of its own: who stops waiting, or is cancelled, ends it for nobody else. When it fails, it
        fails for all that wait; the next call tries anew, after a refusal only REFUSED_LIFE later. Raises Refused and
        Unreachable.
        """
        key = self._key(credentials)
        if token := self._fresh(key):
            return token
        if (refused := self._refused.get(key)) and self._now() - refused[1] < REFUSED_LIFE:
            raise copy.copy(refused[0])
        task = self._coming.get(key)
        if task is None or task.done():
            task = self._coming[key] = asyncio.create_task(self._fetch(key, credentials))
            task.add_done_callback(lambda ended: self._over(key, ended))
        await asyncio.wait([task], timeout=within)
        if not task.done() or task.cancelled():
            raise Unreachable("innbucks.auth: signing in takes too long")
        try:
            return task.result()
        except GatewayError as error:
            # Each gets an error of its own: it will be told which payment it is about.
            raise copy.copy(error) from error

    def forget(self, credentials: InnbucksCredentials, token: str | None = None) -> None:
        """Use the token no more, if it is still this one (or whichever it is)."""
        key = self._key(credentials)
        if token is None:
            self._refused.pop(key, None)
        kept = self._kept.get(key)
        if kept and token in (None, kept.value):
            del self._kept[key]

    def _key(self, credentials: InnbucksCredentials) -> bytes:
        text = msgspec.json.encode([credentials.username, credentials.password, credentials.api_key])
        return hashlib.blake2b(text, key=self._pepper).digest()

    def _fresh(self, key: bytes) -> str | None:
        kept = self._kept.pop(key, None)
        if kept is None or not self._is_fresh(kept):
            return None
        self._kept[key] = kept
        return kept.value

    def _is_fresh(self, token: _Token) -> bool:
        return self._now() - token.asked_at < TOKEN_LIFE

    async def _fetch(self, key: bytes, credentials: InnbucksCredentials) -> str:
        asked_at = self._now()
        try:
            token = await self._sign_in(credentials)
        except Refused as error:
            self._refused = {k: kept for k, kept in self._refused.items() if asked_at - kept[1] < REFUSED_LIFE}
            self._refused[key] = (error, asked_at)
            raise
        self._kept = {each: kept for each, kept in self._kept.items() if each != key and self._is_fresh(kept)}
        self._kept[key] = _Token(token, asked_at)
        while len(self._kept) > MOST_TOKENS:
            del self._kept[next(iter(self._kept))]
        return token

    def _over(self, key: bytes, task: asyncio.Task[str]) -> None:
        if self._coming.get(key) is task:
            del self._coming[key]
        if not task.cancelled():
            task.exception()  # taken note of, where nobody waits any more


class InnbucksApi:
    """InnBucks under one base URL."""

    def __init__(self, transport: Transport, base_url: str, now: Callable[[], float]) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")
        self._tokens = Tokens(self._sign_in, now)

    async def send(self, credentials: InnbucksCredentials, call: Call) -> Answered:
        """Make the call with a token, and once more with a new one where InnBucks did not take it: a 401 is a sure no,
        after which nothing was done. All within SIGN_IN_SECONDS and the call's seconds together.

        Raises Refused for credentials that are not accepted, Unreachable when the call itself did not leave, Ambiguous
        and Untrusted. A second 401 is returned as any other answer.
        """
        clock = asyncio.get_running_loop().time
        ends = clock() + SIGN_IN_SECONDS + call.seconds
        token = await self._tokens.of(credentials, SIGN_IN_SECONDS)
        answered = await self._post(credentials, call, call.seconds, token)
        if answered.status != 401:
            return answered
        self._tokens.forget(credentials, token)
        token = await self._tokens.of(credentials, max(0.0, min(SIGN_IN_SECONDS, ends - clock())))
        if (left := ends - clock()) <= 0:
            raise Unreachable(f"innbucks.{call.what}: the token was not taken, and there is no time for another try")
        return await self._post(credentials, call, min(call.seconds, left), token)

    async def sign_in(self, credentials: InnbucksCredentials) -> None:
        """Sign in now, whether or not there is a token. Raises Refused and Unreachable."""
        self._tokens.forget(credentials)
        await self._tokens.of(credentials, SIGN_IN_SECONDS)

    async def _sign_in(self, credentials: InnbucksCredentials) -> str:
        """A new token. Nothing was begun, whatever else happens here: all that is no refusal is Unreachable."""
        body = {"username": credentials.username, "password": credentials.password}
        try:
            answered = await self._post(credentials, Call("auth", SIGN_IN, body, SIGN_IN_SECONDS), SIGN_IN_SECONDS)
        except GatewayError as error:
            raise Unreachable(error.detail) from error
        answer = answered.answer
        if 200 <= answered.status < 300 and answer and answer.approves and answer.token:
            return answer.token
        if _is_refusal(answered):
            raise not_accepted(answered)
        raise Unreachable(f"innbucks.auth: answered with HTTP {answered.status}, and with no token")

    async def _post(
        self, credentials: InnbucksCredentials, call: Call, deadline: float, token: str | None = None
    ) -> Answered:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "X-Api-Key": credentials.api_key}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        what, body = f"innbucks.{call.what}", msgspec.json.encode(call.body)
        reply = await self._transport.post(what, self._base + call.path, body, headers=headers, deadline=deadline)
        secret = (credentials.password, credentials.api_key, *([token] if token else []))
        trace_id = reply.headers.get("X-Trace-Id", "")
        if _TRACE_ID.fullmatch(trace_id) and not any(each in trace_id for each in secret):
            # What InnBucks' support asks for.
            log.info("gateway_trace", gateway="innbucks", call=what, trace_id=trace_id)
        return Answered.of(reply, secret)


def _is_refusal(answered: Answered) -> bool:
    """Whether InnBucks itself says no to a sign-in."""
    status, answer = answered.status, answered.answer
    if status in (401, 403):
        return True
    if 200 <= status < 300:
        return answer is not None and answer.declines
    return 400 <= status < 500 and status not in _ASIDE and answer is not None


def not_accepted(answered: Answered) -> Refused:
    """In words for the person who saved the credentials, with InnBucks' own after them."""
    return Refused(
        "InnBucks does not accept these credentials: compare innbucks_username, innbucks_password and innbucks_api_key "
        "in payment-settings with what InnBucks has issued."
        + (f" (InnBucks says: {answered.words})" if answered.words else ""),
        Because.METHOD,
    )
