"""What the simulators' overviews have in common: the newest rows, their buttons, the forms that plan faults."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.faults import Faults
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.rendering import form, go, missing, root

T = TypeVar("T")

# Shows the overview: with what is wrong, if anything, and this HTTP status.
Overview = Callable[[Request, str, int], Response]

_LISTED = 100


def _as_it_is(thing: object) -> object:
    return thing


def newest(things: Sequence[T], row: Callable[[T], object] = _as_it_is) -> dict[str, Any]:
    """For the templates' `listing`: rows of the newest things, which come last, and how many older ones there are."""
    return {"rows": [row(thing) for thing in things[: -_LISTED - 1 : -1]], "hidden": max(0, len(things) - _LISTED)}


def button_routes(
    path: str, field: str, moves: Mapping[str, Callable[[str], object]], overview: Overview
) -> list[BaseRoute]:
    """An overview with buttons: `act` moves what the field names. A move may be a coroutine function."""

    async def show(request: Request) -> Response:
        return overview(request, "", 200)

    async def act(request: Request) -> Response:
        fields = await form(request)
        move = moves.get(fields.get("act", ""))
        if move is None:
            return missing()
        try:
            done = move(fields.get(field, ""))
            if inspect.isawaitable(done):
                await done
        except UnknownReference:
            return missing()
        except WrongMove as problem:
            return overview(request, str(problem), 409)
        return go(f"{root(request)}{path}")

    return [Route(path, show, methods=["GET"]), Route(path, act, methods=["POST"])]


def fault_routes(path: str, faults: Faults[..., Any], overview: Overview | None = None) -> list[BaseRoute]:
    """The forms below an overview that plan a fault for once, and forget them all. What cannot be planned is told by
    the overview, if it can, else by a page of its own."""

    async def plan(request: Request) -> Response:
        fields = await form(request)
        operation = fields.get("operation", "")
        try:
            faults.add(fields.get("fault", ""), on=[operation] if operation else [], times=1)
        except ValueError as problem:
            return overview(request, str(problem), 400) if overview else missing()
        return go(f"{root(request)}{path}")

    return [Route(f"{path}/page/faults", plan, methods=["POST"]), forget_route(path, faults, path)]


def forget_route(path: str, faults: Faults[..., Any], after: str) -> Route:
    """The form below this path that forgets them all; the browser gets the page `after` it next."""

    async def forget(request: Request) -> Response:
        faults.forget()
        return go(f"{root(request)}{after}")

    return Route(f"{path}/page/forget", forget, methods=["POST"])
