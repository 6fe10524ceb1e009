"""Calls of Stripe's API: the official SDK over our own transport.

The SDK signs, encodes, retries and names the errors; the network is the transport's: bounded, never redirected, without
cookies. There is no global key: every call has a client of its own with the key of its tenant, over the one shared
transport (with a global key and awaits, most calls of concurrent tenants go out with somebody else's).

Answers are read by our own small types (`stripe_wire`) instead of the SDK's: its typed calls cost two to three times as
much processor time (benchmarks/stripe.py). What is sent is typed by the SDK's generated parameters.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec
import stripe

from payments_service.errors import Ambiguous, GatewayError, Refused, Unreachable, Untrusted
from payments_service.gateways.transport import Reply, Transport

# What the answers are read by, and webhooks made by this service are sent in.
API_VERSION: Final = "2026-10-28.endive"
# One try; the caller's deadline covers all of them.
TRY_SECONDS = 8.0
RETRIES = 2
_LONGEST = 300

# It would put one tenant's last request id on another's request, and a file in the home directory.
stripe.enable_telemetry = False

T = TypeVar("T")


class StripeRefused(Refused):
    """Stripe's no, with its own `reason` for programs (such as `amount_too_small`) and the HTTP status."""

    def __init__(self, detail: str, reason: str | None, status: int | None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status


@dataclass(frozen=True, slots=True)
class Call:
    """One call: `what` names it in the log, `path` begins with `/v1/`, `seconds` is the deadline of all its tries."""

    what: str
    method: str
    path: str
    seconds: float
    params: Mapping[str, Any]
    idempotency_key: str | None = None


class _Error(msgspec.Struct, frozen=True):
    type: str
    code: str | None = None
    message: str | None = None
    param: str | None = None


class _Problem(msgspec.Struct, frozen=True):
    """Stripe's no: any other answer with such a status is somebody else's, such as a proxy's."""

    error: _Error


def _readable(reply: Reply) -> bytes:
    """The body, or nothing where it is not one of Stripe's: the SDK stumbles over those."""
    try:
        if reply.status >= 400:
            msgspec.json.decode(reply.body, type=_Problem)
        reply.body.decode()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return b""
    return reply.body


class _Exchange(stripe.HTTPClient):
    """The SDK's way out for one call. Remembers what became of its tries: after one that may have arrived, only an
    answer can tell."""

    name = "conva-payments"

    def __init__(self, transport: Transport, call: Call) -> None:
        super().__init__()
        self._transport = transport
        self._call = call
        self._ends = asyncio.get_running_loop().time() + call.seconds
        self.failure: GatewayError | None = None

    @property
    def _left(self) -> float:
        return self._ends - asyncio.get_running_loop().time()

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        body = post_data.encode() if isinstance(post_data, str) else post_data
        deadline = max(0.1, min(TRY_SECONDS, self._left))
        try:
            reply = await self._transport.request(
                f"stripe.{self._call.what}", method.upper(), url, body, headers=headers, deadline=deadline
            )
        except GatewayError as error:
            if not isinstance(self.failure, Ambiguous):
                self.failure = error
            again = not isinstance(error, Untrusted) and self._left > 1
            raise stripe.APIConnectionError(error.detail, should_retry=again) from error  # type: ignore[no-untyped-call]
        if reply.status == 409 or reply.status >= 500:
            # It may be under way, or done; the next try need not arrive any more.
            self.failure = Ambiguous(f"stripe.{self._call.what}: answered with HTTP {reply.status}")
        return _readable(reply), reply.status, reply.headers

    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(max(0.0, min(secs, self._left - 0.5)))


class StripeApi:
    """Stripe under one base URL. Holds no key."""

    def __init__(self, transport: Transport, base_url: str) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")

    async def send(self, secret_key: str, call: Call, answer: type[T]) -> T:
        """Make the call; its answer as `answer`.

        Raises StripeRefused, Unreachable, Ambiguous and Untrusted. What is sent with an idempotency key is done once,
        however often it is tried.
        """
        exchange = _Exchange(self._transport, call)
        client = stripe.StripeClient(
            secret_key,
            http_client=exchange,
            base_addresses={"api": self._base},
            max_network_retries=RETRIES,
            stripe_version=API_VERSION,
        )
        options = {"idempotency_key": call.idempotency_key} if call.idempotency_key else {}
        try:
            response = await client.raw_request_async(call.method, call.path, **call.params, **options)
            return msgspec.json.decode(response.body, type=answer)
        except stripe.StripeError as error:
            raise _told(call.what, error, exchange.failure) from error
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Untrusted(f"stripe.{call.what}: the answer is not what Stripe answers") from error


def _told(what: str, error: stripe.StripeError, failure: GatewayError | None) -> GatewayError:
    """What the SDK's error allows to conclude. Its own texts can hold the key's ends and whole answers: of them only
    what Stripe says of a request's fields is passed on."""
    status = error.http_status
    # Turned away at the door: of an earlier try that may have come in, it says nothing.
    outside = (stripe.APIConnectionError, stripe.RateLimitError, stripe.AuthenticationError, stripe.PermissionError)
    if isinstance(failure, Ambiguous) and isinstance(error, outside):
        return failure
    match error:
        case stripe.APIConnectionError():
            return failure or Ambiguous(f"stripe.{what}: no answer came")
        case stripe.RateLimitError():
            return Unreachable("Stripe takes no more requests at the moment; try again in a few seconds.")
        case stripe.AuthenticationError():
            text = "Stripe does not accept the secret key: save a valid stripe_secret_key in payment-settings."
            return StripeRefused(text, "unauthorized", status)
        case stripe.PermissionError():
            text = f"Stripe does not allow this key to do it ({what}): give the restricted key the permission."
            return StripeRefused(text, "forbidden", status)
        case stripe.InvalidRequestError() | stripe.CardError():
            return StripeRefused(_words(error), error.code, status)
    if status is not None and 200 <= status < 300:
        return Untrusted(f"stripe.{what}: the answer is not what Stripe answers")
    return Ambiguous(f"stripe.{what}: answered with HTTP {status}")


def _words(error: stripe.StripeError) -> str:
    text = " ".join(str(error.user_message or "").split())
    param = getattr(error, "param", None)
    return f"Stripe: {text or 'the request was refused'}"[:_LONGEST] + (f" (field {param})"[:100] if param else "")
