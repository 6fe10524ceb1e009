"""The WhatsApp simulator's overview for people: messages as the business sees them, numbers, webhooks, faults."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.rendering import form, go, missing, page, root
from payments_service.sandbox.whatsapp_faults import KINDS, OPERATIONS
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.sandbox.whatsapp_messages import Message, local_number

_PATH = "/sandbox/whatsapp"
_LISTED = 100
_SHOWN_DELIVERIES = 12

# The buttons of a message, by its status: the move and its label.
_BUTTONS = {
    "sent": (("deliver", "Deliver"), ("fail", "Fail")),
    "delivered": (("read", "Read it"), ("repeat", "Tell it again")),
    "read": (("repeat", "Tell it again"),),
    "failed": (("repeat", "Tell it again"),),
}


def routes(ledger: WhatsappLedger) -> list[BaseRoute]:
    """`/sandbox/whatsapp`, and the forms that stand on it."""

    async def index(request: Request) -> Response:
        return _overview(request, ledger)

    async def act(request: Request) -> Response:
        fields = await form(request)
        move = _move(ledger, fields.get("act", ""))
        if move is None:
            return missing()
        try:
            move(fields.get("message", ""))
        except UnknownReference:
            return missing()
        except WrongMove as problem:
            return _overview(request, ledger, str(problem), 409)
        return go(f"{root(request)}{_PATH}")

    async def subscribe(request: Request) -> Response:
        try:
            await ledger.subscribe((await form(request)).get("url", ""))
        except (WrongMove, ValueError) as problem:
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
        Route(f"{_PATH}/page/subscribe", subscribe, methods=["POST"]),
        Route(f"{_PATH}/page/faults", add_fault, methods=["POST"]),
        Route(f"{_PATH}/page/forget", forget, methods=["POST"]),
    ]


def _move(ledger: WhatsappLedger, name: str) -> Callable[[str], Message] | None:
    moves: dict[str, Callable[[str], Message]] = {
        "deliver": ledger.deliver,
        "read": ledger.read,
        "fail": ledger.fail,
        "repeat": ledger.repeat,
    }
    return moves.get(name)


def _overview(request: Request, ledger: WhatsappLedger, problem: str = "", status: int = 200) -> Response:
    newest = ledger.messages[::-1]
    return page(
        request,
        "whatsapp_list.html",
        status,
        messages=[(one, local_number(one.wa_id), _BUTTONS.get(one.status, ())) for one in newest[:_LISTED]],
        hidden=max(0, len(newest) - _LISTED),
        senders=ledger.senders.values(),
        webhooks=ledger.webhooks,
        deliveries=list(ledger.webhooks.deliveries)[: -_SHOWN_DELIVERIES - 1 : -1],
        faults=[fault for fault in ledger.faults if not fault.spent],
        kinds=KINDS,
        operations=OPERATIONS,
        problem=problem,
    )
