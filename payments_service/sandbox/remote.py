"""JSON over HTTP, as the simulators' remote controls speak it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.faults import Fault, Faults
from payments_service.sandbox.hands import UnknownReference, WrongMove, WrongPin
from payments_service.sandbox.outbound import Posted

View = dict[str, Any]
Body = TypeVar("Body", bound=msgspec.Struct)
Result = TypeVar("Result")
F = TypeVar("F", bound=Fault[Any])

_REFUSALS: dict[type[Exception], int] = {WrongPin: 403, UnknownReference: 404, WrongMove: 409}
_encoder = msgspec.json.Encoder(decimal_format="number")


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """Whatever is called that."""

    reference: str


class PlanFault(msgspec.Struct, forbid_unknown_fields=True):
    """A fault to plan; a simulator adds whom it strikes, in its own words."""

    fault: str
    on: list[str] = []
    times: int | None = None
    seconds: float | None = None


class Faulty(Protocol[F]):
    """A ledger: the faults that are planned there, and how often what was called."""

    faults: Faults[..., F]
    calls: Counter[str]


def _as_it_is(result: object) -> object:
    return result


@dataclass(frozen=True, slots=True)
class Control:
    """Makes the routes of one simulator's remote control, all below `base`, such as `/sandbox/stripe`.

    `gateway` is whose simulator it is, as people call it.
    """

    base: str
    gateway: str

    def get(self, name: str, read: Callable[[], object]) -> Route:
        """Tell what `read` gives."""

        async def endpoint(_request: Request) -> Response:
            return answer(read())

        return Route(f"{self.base}/{name}", endpoint)

    def post(
        self,
        name: str,
        shape: type[Body],
        work: Callable[[Body], Awaitable[Result]],
        view: Callable[[Result], object] = _as_it_is,
    ) -> Route:
        """Work with a body of this shape and tell the result, seen by `view`.

        A wrong PIN is told with HTTP 403, an unknown reference with 404, a wrong move with 409, any other ValueError
        with 400: {"error": text}. A Decimal is written as a number.
        """

        async def endpoint(request: Request) -> Response:
            try:
                return answer(view(await work(msgspec.json.decode(await request.body(), type=shape))))
            except tuple(_REFUSALS) as error:
                status = next(status for kind, status in _REFUSALS.items() if isinstance(error, kind))
                return answer({"error": str(error)}, status)
            except ValueError as error:  # msgspec's own errors among them
                return answer({"error": str(error)}, 400)

        return Route(f"{self.base}/{name}", endpoint, methods=["POST"])

    def settings(self, name: str, shape: type[Body], target: object) -> Route:
        """Set the attributes of `target` that the body names other than null, and tell what each is now."""

        async def settle(body: Body) -> View:
            names = body.__struct_fields__
            for name in names:
                if (value := getattr(body, name)) is not None:
                    setattr(target, name, value)
            return {name: getattr(target, name) for name in names}

        return self.post(name, shape, settle)

    def faults(
        self,
        shape: type[msgspec.Struct],
        ledger: Faulty[F],
        view: Callable[[F], View],
        *,
        add: Callable[..., F] | None = None,
        of: str = "",
    ) -> list[BaseRoute]:
        """`faults`: GET tells what is planned, POST plans one, DELETE forgets them. `redirected` counts who follows
        the redirect fault.

        `add`, usually that of the ledger's faults, takes the body's `fault`, then its other members by name. Only with
        `of`, the name of a query parameter, may DELETE forget some and leave the others.
        """
        faults = ledger.faults

        async def plan(body: msgspec.Struct) -> F:
            values = msgspec.structs.asdict(body)
            return (add or faults.add)(values.pop("fault"), **values)

        async def forget(request: Request) -> Response:
            faults.forget(request.query_params.get(of, "") if of else "")
            return answer([view(fault) for fault in faults])

        async def redirected(_request: Request) -> Response:
            ledger.calls["redirected"] += 1
            return PlainTextResponse(f"You followed a redirect that {self.gateway} never sends.")

        return [
            self.get("faults", lambda: [view(fault) for fault in faults]),
            self.post("faults", shape, plan, view),
            Route(f"{self.base}/faults", forget, methods=["DELETE"]),
            Route(f"{self.base}/redirected", redirected, methods=["GET", "POST"]),
        ]


def answer(content: object, status: int = 200) -> Response:
    return Response(_encoder.encode(content), status, media_type="application/json")


def fault_view(fault: Fault[Any], reference: str = "reference") -> View:
    """A planned fault, its reference under the name that the control knows it by."""
    return {
        "fault": fault.name,
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        reference: fault.reference,
        "share": fault.share,
        "used": fault.used,
    }


def posted_view(posted: Posted) -> View:
    return {"url": posted.url, "body": posted.body.decode(), "status": posted.status, "error": posted.error}
