"""JSON over HTTP, as the simulators' remote controls speak it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service.sandbox.hands import UnknownReference, WrongMove, WrongPin

Body = TypeVar("Body", bound=msgspec.Struct)

_REFUSALS: dict[type[Exception], int] = {WrongPin: 403, UnknownReference: 404, WrongMove: 409}
_encoder = msgspec.json.Encoder(decimal_format="number")


def get(path: str, read: Callable[[], object]) -> Route:
    """Tell what `read` gives."""

    async def endpoint(_request: Request) -> Response:
        return answer(read())

    return Route(path, endpoint)


def post(path: str, shape: type[Body], work: Callable[[Body], Awaitable[object]]) -> Route:
    """Work with a body of this shape and tell the result.

    A wrong PIN is told with HTTP 403, an unknown reference with 404, a wrong move with 409, any other ValueError
    with 400: {"error": text}. A Decimal is written as a number.
    """

    async def endpoint(request: Request) -> Response:
        try:
            return answer(await work(msgspec.json.decode(await request.body(), type=shape)))
        except tuple(_REFUSALS) as error:
            status = next(status for kind, status in _REFUSALS.items() if isinstance(error, kind))
            return answer({"error": str(error)}, status)
        except ValueError as error:  # msgspec's own errors among them
            return answer({"error": str(error)}, 400)

    return Route(path, endpoint, methods=["POST"])


def answer(content: object, status: int = 200) -> Response:
    return Response(_encoder.encode(content), status, media_type="application/json")


def settle(target: object, settings: msgspec.Struct) -> dict[str, object]:
    """Set the attributes of `target` that are named by settings other than None; gives what each is now."""
    names = settings.__struct_fields__
    for name in names:
        if (value := getattr(settings, name)) is not None:
            setattr(target, name, value)
    return {name: getattr(target, name) for name in names}
