"""The WhatsApp simulator's overview for people: messages as the business sees them, numbers, webhooks, faults."""

from __future__ import annotations

import functools

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.hands import WrongMove
from payments_service.sandbox.overviews import button_routes, fault_routes, newest
from payments_service.sandbox.rendering import form, go, page, root
from payments_service.sandbox.whatsapp_faults import KINDS, OPERATIONS
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.sandbox.whatsapp_messages import local_number

_PATH = "/sandbox/whatsapp"
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
    overview = functools.partial(_overview, ledger)

    async def subscribe(request: Request) -> Response:
        try:
            await ledger.subscribe((await form(request)).get("url", ""))
        except (WrongMove, ValueError) as problem:
            return overview(request, str(problem), 409)
        return go(f"{root(request)}{_PATH}")

    moves = {"deliver": ledger.deliver, "read": ledger.read, "fail": ledger.fail, "repeat": ledger.repeat}
    return [
        Route(f"{_PATH}/page/subscribe", subscribe, methods=["POST"]),
        *button_routes(_PATH, "message", moves, overview),
        *fault_routes(_PATH, ledger.faults, overview),
    ]


def _overview(ledger: WhatsappLedger, request: Request, problem: str, status: int) -> Response:
    return page(
        request,
        "whatsapp_list.html",
        status,
        **newest(ledger.messages, lambda one: (one, local_number(one.wa_id), _BUTTONS.get(one.status, ()))),
        senders=ledger.senders.values(),
        webhooks=ledger.webhooks,
        deliveries=list(ledger.webhooks.deliveries)[: -_SHOWN_DELIVERIES - 1 : -1],
        faults=ledger.faults.unspent,
        kinds=KINDS,
        operations=OPERATIONS,
        problem=problem,
    )
