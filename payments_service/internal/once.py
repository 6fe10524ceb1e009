"""`Idempotency-Key`: a POST that is sent again is answered as before, whatever became of its first answer.

After the IETF's draft 7 (draft-ietf-httpapi-idempotency-key-header): another request under the same key is 422, one
that comes while the first is at work 409. What a call was refused for before anything was on record is not kept: mend
it and send the same key again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from uuid import UUID

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service import idempotency
from payments_service.context import Context
from payments_service.errors import Ambiguous, Invalid, KeyBusy, PaymentsError, Refused, Unavailable, Untrusted
from payments_service.idempotency import NOBODY, Answer, Call, Claim, Left
from payments_service.internal.accounts import MAX_BODY
from payments_service.web import PROBLEM_JSON, on_payments_error, read_body

log = structlog.get_logger(__name__)

_KEY = re.compile(r"[\x20-\x7e]{1,255}")

Endpoint = Callable[[Request], Awaitable[Response]]
# The answer of a call that was cut off, from what it had put on record; None when nothing came of it, so that it can be
# done anew. Raises Ambiguous while that is not known.
Recall = Callable[[Context, UUID, UUID], Awaitable[Response | None]]


def post(path: str, endpoint: Endpoint, recall: Recall | None = None) -> Route:
    """The route of an operation that changes something, which can be repeated under a key."""
    return Route(path, _once(endpoint, f"POST {path}", recall), methods=["POST"])


def claim_of(request: Request) -> Claim | None:
    """What the endpoint marks with what it makes; None for a call without a key."""
    found: Claim | None = request.scope.get("idempotency")
    return found


def _once(endpoint: Endpoint, operation: str, recall: Recall | None) -> Endpoint:
    @wraps(endpoint)
    async def kept(request: Request) -> Response:
        key = _key_of(request)
        if key is None:
            return await endpoint(request)
        context: Context = request.app.state.context
        client_id = request.path_params.get("client_id", NOBODY)
        digest = _digest(request, await read_body(request, MAX_BODY))
        call = Call(client_id, request.scope["state"]["caller"], operation, key, digest)
        found = await idempotency.claim(context, call)
        if isinstance(found, Left):
            found = await _recalled(request, client_id, found, recall)
        if isinstance(found, Answer):
            return _as_before(found)
        return await _done(request, endpoint, client_id, found)

    return kept


def _key_of(request: Request) -> str | None:
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _KEY.fullmatch(given[0]):
        raise Invalid([("Idempotency-Key", "must be one text of 1 to 255 printable ASCII characters, such as a UUID")])
    return given[0]


def _digest(request: Request, body: bytes) -> bytes:
    """Of what is asked for: the order of a body's fields and the blanks between them say nothing."""
    try:
        said = msgspec.json.encode(msgspec.json.decode(body), order="deterministic")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = body
    asked = f"{request.url.path}?{request.url.query}\n".encode()
    return hashlib.sha256(asked + said).digest()


def _as_before(answer: Answer) -> Response:
    kind = PROBLEM_JSON if answer.status >= 400 else "application/json"
    return Response(answer.body, answer.status, headers={"Idempotent-Replayed": "true"}, media_type=kind)


async def _recalled(request: Request, client_id: UUID, left: Left, recall: Recall | None) -> Answer | Claim:
    """The answer of a call that was cut off, kept from now on; or the right to do it anew."""
    assert recall, "what puts something on record can be recalled"
    context: Context = request.app.state.context
    try:
        response = await recall(context, client_id, left.made)
    except Refused as error:
        response = await on_payments_error(request, error)
    if response is None:
        return await idempotency.take_over(context, client_id, left)
    answer = Answer(response.status_code, bytes(response.body))
    if not await idempotency.store(context, client_id, left.claim, answer):
        raise KeyBusy
    return answer


async def _done(request: Request, endpoint: Endpoint, client_id: UUID, claim: Claim) -> Response:
    """Do the call, and keep what stands: success, and a gateway's no to what is on record."""
    context: Context = request.app.state.context
    request.scope["idempotency"] = claim
    try:
        response = await endpoint(request)
    except Refused as error:
        if error.payment_id is None:
            await _quietly(idempotency.forget(context, client_id, claim))
            raise
        response = await on_payments_error(request, error)
    except (Ambiguous, Untrusted, Unavailable):
        await _quietly(idempotency.leave(context, client_id, claim))
        raise
    except PaymentsError:
        await _quietly(idempotency.forget(context, client_id, claim))
        raise
    except BaseException:
        await _quietly(idempotency.leave(context, client_id, claim))
        raise
    await _quietly(idempotency.store(context, client_id, claim, Answer(response.status_code, bytes(response.body))))
    return response


async def _quietly(writing: Awaitable[object]) -> None:
    """What was done is answered, also when the database went away meanwhile: the key leads to what is on record."""
    try:
        await writing
    except Unavailable as error:
        log.warning("idempotency_key_not_kept", reason=error.detail)
