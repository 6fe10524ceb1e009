"""What both listeners share: reading bodies, answering problems, request ids, one log line per request."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin
from uuid import UUID

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from payments_service import errors
from payments_service.errors import Invalid, PaymentsError, TooLarge

log = structlog.get_logger(__name__)

T = TypeVar("T", bound=msgspec.Struct)

PROBLEM_JSON = "application/problem+json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")

# What each error is over HTTP. A subclass not named here is answered as its nearest named ancestor.
STATUS_OF: dict[type[PaymentsError], int] = {
    Invalid: 422,
    errors.NotFound: 404,
    errors.WrongState: 409,
    errors.Unsettled: 409,
    errors.NotConfigured: 422,
    errors.ChannelNotConfigured: 422,
    TooLarge: 413,
    errors.Unavailable: 503,
    errors.Unreadable: 503,
    errors.Refused: 422,
    errors.Unreachable: 503,
    errors.Ambiguous: 504,
    errors.Untrusted: 504,
    errors.NotAccepted: 422,
    errors.TooMany: 429,
    errors.KeyReused: 422,
    errors.KeyBusy: 409,
    PaymentsError: 500,
}

TITLES: dict[str, str] = {
    "validation_failed": "The request has faults",
    "not_found": "Not found",
    "wrong_state": "Not possible in this state",
    "unsettled": "An earlier try is still open",
    "gateway_not_configured": "The gateway is not set up",
    "whatsapp_not_configured": "WhatsApp is not set up",
    "gateway_refused": "The gateway refused",
    "gateway_unreachable": "The gateway cannot be reached",
    "gateway_timeout": "The gateway gave no usable answer",
    "otp_not_accepted": "The one-time password was not accepted",
    "callback_refused": "The callback is not believed",
    "body_too_large": "The body is too large",
    "too_many_requests": "Too many requests",
    "idempotency_key_reused": "The idempotency key belongs to another request",
    "idempotency_in_progress": "The request is being worked on",
    "unavailable": "Temporarily unavailable",
    "credentials_unreadable": "Stored credentials cannot be opened",
    "unauthorized": "A valid service token is needed",
    "method_not_allowed": "Method not allowed",
    "request_timeout": "The request came too slowly",
    "internal_error": "Something went wrong on our side",
}

_HTTP_CODES = {401: "unauthorized", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def status_of(error: PaymentsError) -> int:
    """The HTTP status that answers this error."""
    return next(STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF)


def json_response(value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None) -> Response:
    """A msgspec-encodable value as JSON."""
    return Response(msgspec.json.encode(value), status, headers=headers, media_type="application/json")


def problem(status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any) -> Response:
    """RFC 9457 problem details: `type, title, status, detail, code, request_id` and what the code adds."""
    body = {
        "type": "about:blank",
        "title": TITLES[code],
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": structlog.contextvars.get_contextvars().get("request_id"),
        **more,
    }
    return Response(msgspec.json.encode(body), status, headers=dict(headers or {}), media_type=PROBLEM_JSON)


async def on_payments_error(_request: Request, error: Exception) -> Response:
    """Answer one of our own errors."""
    assert isinstance(error, PaymentsError)
    more: dict[str, Any] = {}
    if isinstance(error, Invalid):
        more["errors"] = [{"field": field, "message": message} for field, message in error.faults]
    if isinstance(error, errors.GatewayError) and error.payment_id is not None:
        more["payment_id"] = error.payment_id
    if isinstance(error, errors.MoneyOnItsWay):
        more["in_the_way"] = error.in_the_way
    return problem(status_of(error), error.code, error.detail, headers=_headers_of(error), **more)


def _headers_of(error: PaymentsError) -> dict[str, str]:
    if isinstance(error, errors.TooMany):
        return {"Retry-After": str(error.retry_after), **error.fields}
    if isinstance(error, errors.KeyBusy):
        return {"Retry-After": str(error.retry_after)}
    return {"Retry-After": "2"} if status_of(error) == 503 else {}


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the router refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    code = _HTTP_CODES.get(error.status_code, "not_found")
    words = {"not_found": "There is nothing at this address.", "method_not_allowed": "Use another method here."}
    headers = {"Allow": _methods_here(request)} if error.status_code == 405 else error.headers
    return problem(error.status_code, code, words.get(code, error.detail), headers=headers)


def _methods_here(request: Request) -> str:
    """What the address takes: two routes may share it, one for each method."""
    methods: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


async def on_unexpected(_request: Request, _error: Exception) -> Response:
    """Answer what nobody foresaw, with nothing of it; `Observe` logs it."""
    return problem(
        500, "internal_error", "Something went wrong on our side. Try again, or tell us the request_id of this answer."
    )


ERROR_HANDLERS: dict[Any, Any] = {
    PaymentsError: on_payments_error,
    HTTPException: on_http_exception,
    Exception: on_unexpected,
}


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; TooLarge as soon as it is over `limit` bytes. Whoever asks again is given the same."""
    known: bytes | None = request.scope.get("body")
    if known is not None:
        return known
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLarge(f"The body is over {limit} bytes.")
    request.scope["body"] = bytes(body)
    return bytes(body)


def decode(body: bytes, kind: type[T]) -> T:
    """A JSON object as `kind`. Raises Invalid with every fault, field by field: unknown, missing or wrong."""
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid([("body", "is not valid JSON")]) from None
    if not isinstance(raw, dict):
        raise Invalid([("body", "must be a JSON object")])
    faults = [(name[:100], "is not a field of this request") for name in raw.keys() - set(kind.__struct_fields__)]
    values = {}
    for field in msgspec.structs.fields(kind):
        if field.name not in raw:
            if field.required:
                faults.append((field.name, "is required"))
            continue
        try:
            values[field.name] = msgspec.convert(raw[field.name], field.type)
        except msgspec.ValidationError as error:
            faults.append((field.name, _plain_words(str(error))))
    if faults:
        raise Invalid(sorted(faults))
    return kind(**values)


def query(request: Request, kind: type[T]) -> T:
    """What stands behind the `?` as `kind`. Raises Invalid with every fault: unknown, repeated or wrong."""
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    faults = [(name[:100], "is not a parameter of this request") for name in set(names) - fields.keys()]
    faults += [(name, "must be given once") for name in fields if names.count(name) > 1]
    faults += [(name, "is required") for name, field in fields.items() if field.required and name not in names]
    values = {}
    for name, text in given:
        if name not in fields or names.count(name) > 1:
            continue
        try:
            values[fields[name].name] = msgspec.convert(
                text, fields[name].type, strict=not _is_number(fields[name].type)
            )
        except msgspec.ValidationError as error:
            faults.append((name, _plain_words(str(error))))
    if faults:
        raise Invalid(sorted(faults))
    return kind(**values)


def _is_number(kind: Any) -> bool:
    """Whether msgspec must read a number or a truth value out of the text. Of other types it would read too much that
    way: `null` as nothing, so that a filter was silently left out, and a number as Unix seconds."""
    return (get_args(kind)[0] if get_origin(kind) is Annotated else kind) in (int, bool)


def _plain_words(message: str) -> str:
    """msgspec's message without its path and back-quotes; no expression, and nothing of the value that was sent."""
    text = message.split(" - at")[0].replace("`", "")
    if text.startswith("Invalid enum value"):
        return "is none of the values that are allowed here"
    if "matching regex" in text:
        return "contains characters that are not allowed here, or is not in the expected form"
    return text[:1].lower() + text[1:]


Told = Callable[[str, str, int, float], None]


class Observe:
    """ASGI middleware around a whole application: gives each request an id and logs one line, and what failed."""

    def __init__(self, app: ASGIApp, listener: str, told: Told | None = None) -> None:
        """`told` is told of each answer too: the listener, the operation, the status and the seconds."""
        self.app = app
        self.listener = listener
        self.told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _request_id(scope)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        started = time.perf_counter()
        status = 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, observed)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:
            log.error("request_failed", exc_info=error)
            if not status:
                sorry = (
                    "Something went wrong on our side; nothing is known to be changed. Try again, or tell us the id."
                )
                await problem(500, "internal_error", sorry)(scope, receive, observed)
        finally:
            self._log(scope, status, time.perf_counter() - started)

    def _log(self, scope: Scope, status: int, seconds: float) -> None:
        # Never the path: strangers make up as many as they like.
        operation = getattr(scope.get("endpoint"), "__name__", "none")
        if self.told:
            self.told(self.listener, operation, status, seconds)
        parameters = scope.get("path_params") or {}
        # The path itself is not written: a pay link's token is in it, and strangers write what they like.
        ids = {name: value for name, value in parameters.items() if isinstance(value, UUID)}
        if caller := scope.get("state", {}).get("caller"):
            ids["caller"] = caller
        say = log.debug if operation in ("livez", "readyz", "public_readyz", "metrics") else log.info
        say(
            "request",
            listener=self.listener,
            method=scope["method"],
            operation=operation,
            status=status,
            milliseconds=round(seconds * 1000, 2),
            **ids,
        )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            if _REQUEST_ID.fullmatch(given):
                return str(given)
    return secrets.token_hex(8)
