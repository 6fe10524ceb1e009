"""The InnBucks simulator's overview for people: codes, what may become of them, faults."""

from __future__ import annotations

import functools

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from payments_service.money import Currency, Money
from payments_service.sandbox.innbucks_codes import ENDED, NEW, PAID, Code
from payments_service.sandbox.innbucks_faults import KINDS, OPERATIONS
from payments_service.sandbox.innbucks_ledger import InnbucksLedger
from payments_service.sandbox.overviews import button_routes, fault_routes, newest
from payments_service.sandbox.rendering import page

_PATH = "/sandbox/innbucks"

# The buttons of a code, by its status: the move and its label.
_BUTTONS = {
    NEW: (("pay", "Pay"), ("expire", "Let it expire")),
    PAID[0]: (("claim", "Claim"),),
} | dict.fromkeys(ENDED, (("pay_late", "Pay all the same"),))


def routes(ledger: InnbucksLedger) -> list[BaseRoute]:
    """`/sandbox/innbucks`, and the forms that stand on it."""
    overview = functools.partial(_overview, ledger)
    moves = {"pay": ledger.pay, "claim": ledger.claim, "expire": ledger.expire, "pay_late": ledger.pay_late}
    return [
        *button_routes(_PATH, "code", moves, overview),
        *fault_routes(_PATH, ledger.faults, overview),
    ]


def _overview(ledger: InnbucksLedger, request: Request, problem: str, status: int) -> Response:
    return page(
        request,
        "innbucks_list.html",
        status,
        **newest(ledger.codes, lambda code: (code, _shown(code), _BUTTONS.get(code.status, ()))),
        merchants=ledger.merchants.values(),
        faults=ledger.faults.unspent,
        kinds=KINDS,
        operations=OPERATIONS,
        problem=problem,
    )


def _shown(code: Code) -> str:
    return Money(code.told_amount, Currency.USD).shown()
