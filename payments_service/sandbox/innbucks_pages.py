"""The InnBucks simulator's overview for people: codes, what may become of them, faults."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.money import Currency, Money
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.innbucks_codes import ENDED, NEW, PAID, Code
from payments_service.sandbox.innbucks_faults import KINDS, OPERATIONS
from payments_service.sandbox.innbucks_ledger import InnbucksLedger
from payments_service.sandbox.rendering import form, go, missing, page, root

_PATH = "/sandbox/innbucks"
_LISTED = 100

# The buttons of a code, by its status: the move and its label.
_BUTTONS = {
    NEW: (("pay", "Pay"), ("expire", "Let it expire")),
    PAID[0]: (("claim", "Claim"),),
} | dict.fromkeys(ENDED, (("pay_late", "Pay all the same"),))


def routes(ledger: InnbucksLedger) -> list[BaseRoute]:
    """`/sandbox/innbucks`, and the forms that stand on it."""

    async def index(request: Request) -> Response:
        return _overview(request, ledger)

    async def act(request: Request) -> Response:
        fields = await form(request)
        move = _move(ledger, fields.get("act", ""))
        if move is None:
            return missing()
        try:
            await move(fields.get("code", ""))
        except UnknownReference:
            return missing()
        except WrongMove as problem:
            return _overview(request, ledger, str(problem), 409)
        return go(f"{root(request)}{_PATH}")

    async def add_fault(request: Request) -> Response:
        fields = await form(request)
        operation = fields.get("operation", "")
        try:
            ledger.add_fault(fields.get("fault", ""), on=[operation] if operation else [], times=1)
        except ValueError as problem:
            return _overview(request, ledger, str(problem), 400)
        return go(f"{root(request)}{_PATH}")

    async def forget(request: Request) -> Response:
        ledger.clear_faults()
        return go(f"{root(request)}{_PATH}")

    return [
        Route(_PATH, index, methods=["GET"]),
        Route(_PATH, act, methods=["POST"]),
        Route(f"{_PATH}/page/faults", add_fault, methods=["POST"]),
        Route(f"{_PATH}/page/forget", forget, methods=["POST"]),
    ]


def _move(ledger: InnbucksLedger, name: str) -> Callable[[str], Awaitable[object]] | None:
    moves: dict[str, Callable[[str], Awaitable[object]]] = {
        "pay": ledger.pay,
        "claim": ledger.claim,
        "expire": ledger.expire,
        "pay_late": ledger.pay_late,
    }
    return moves.get(name)


def _overview(request: Request, ledger: InnbucksLedger, problem: str = "", status: int = 200) -> Response:
    newest = ledger.codes[::-1]
    return page(
        request,
        "innbucks_list.html",
        status,
        codes=[(code, _shown(code), _BUTTONS.get(code.status, ())) for code in newest[:_LISTED]],
        hidden=max(0, len(newest) - _LISTED),
        merchants=ledger.merchants.values(),
        faults=[fault for fault in ledger.faults if not fault.spent],
        kinds=KINDS,
        operations=OPERATIONS,
        problem=problem,
    )


def _shown(code: Code) -> str:
    return Money(code.told_amount, Currency.USD).shown()
