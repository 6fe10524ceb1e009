"""The simulator's pages for people: the list of transactions, and the one where a customer pays or does not."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote_plus

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import wire
from payments_service.sandbox.faults import KINDS
from payments_service.sandbox.paynow_ledger import Ledger, Transaction, WrongMove

_LISTED = 100
_SHOWN_DELIVERIES = 12

_LABELS = {
    "Paid": "Release to merchant",  # from an open transaction it is the big button instead
    "Awaiting Delivery": "Pay, await delivery",
    "Cancelled": "Cancel",
    "Failed": "Fail",
    "Delivered": "Delivered",
    "Disputed": "Dispute",
    "Refunded": "Refund",
}
_TONES = {
    "Paid": "good",
    "Delivered": "good",
    "Awaiting Delivery": "good",
    "Cancelled": "bad",
    "Failed": "bad",
    "Disputed": "bad",
    "Refunded": "bad",
}
_HEADERS = {
    # No form-action here: after paying, the browser is sent on to the merchant's own address.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals["tone"] = lambda status: _TONES.get(status, "warn")


def routes(ledger: Ledger) -> list[BaseRoute]:
    """`/` and `/Payment/ConfirmPayment/<n>[/<authemail>//]`, with the forms that stand on them."""

    async def index(request: Request) -> Response:
        newest = ledger.transactions[::-1]
        return _page(
            request,
            "list.html",
            transactions=newest[:_LISTED],
            hidden=max(0, len(newest) - _LISTED),
            faults=[fault for fault in ledger.faults if not fault.spent],
        )

    async def show(request: Request) -> Response:
        transaction = ledger.by_number(request.path_params["number"])
        return _missing(request) if transaction is None else _transaction_page(request, ledger, transaction)

    async def act(request: Request) -> Response:
        transaction = ledger.by_number(request.path_params["number"])
        if transaction is None:
            return _missing(request)
        visiting = transaction.open
        try:
            ledger.move(transaction, (await _form(request)).get("status", ""))
        except WrongMove as problem:
            return _transaction_page(request, ledger, transaction, str(problem), 409)
        # What ends the customer's visit sends the browser back to the merchant.
        return _go(transaction.returnurl if visiting else _address(request, transaction))

    async def add_fault(request: Request) -> Response:
        fields = await _form(request)
        number = fields.get("number", "")
        transaction = ledger.by_number(int(number)) if number.isdecimal() else None
        if (number and transaction is None) or fields.get("fault") not in KINDS:
            return _missing(request)
        fault = ledger.add_fault(fields["fault"], next=transaction is None)
        if transaction is None:
            return _go(f"{_root(request)}/")
        fault.number = transaction.number
        return _go(_address(request, transaction))

    async def forget(request: Request) -> Response:
        ledger.clear_faults()
        return _go(f"{_root(request)}/")

    return [
        Route("/", index),
        Route("/Payment/ConfirmPayment/{number:int}", show, methods=["GET"]),
        Route("/Payment/ConfirmPayment/{number:int}", act, methods=["POST"]),
        Route("/Payment/ConfirmPayment/{number:int}/{authemail:path}", show, methods=["GET"]),
        Route("/sandbox/page/faults", add_fault, methods=["POST"]),
        Route("/sandbox/page/forget", forget, methods=["POST"]),
    ]


def _transaction_page(
    request: Request, ledger: Ledger, transaction: Transaction, problem: str = "", status: int = 200
) -> Response:
    deliveries = [one for one in ledger.deliveries if one.reference == transaction.reference]
    return _page(
        request,
        "transaction.html",
        status,
        transaction=transaction,
        info=unquote_plus(transaction.additionalinfo),
        problem=problem,
        buttons=[(move, _LABELS[move]) for move in transaction.moves if not (transaction.open and move == "Paid")],
        deliveries=[
            {
                "accepted": one.accepted,
                "status": one.status,
                "error": one.error,
                "url": one.url,
                "told": dict(wire.decode(one.body)).get("status", ""),
            }
            for one in deliveries[: -_SHOWN_DELIVERIES - 1 : -1]
        ],
        faults=ledger.faults_of(transaction),
    )


def _page(request: Request, template: str, status: int = 200, **values: object) -> Response:
    text = _templates.get_template(template).render(root=_root(request), kinds=KINDS, **values)
    return HTMLResponse(text, status, _HEADERS)


def _missing(request: Request) -> Response:
    return HTMLResponse("<p>There is no such thing in this simulator.</p>", 404, _HEADERS)


def _go(address: str) -> Response:
    return RedirectResponse(address, 303, _HEADERS)


def _root(request: Request) -> str:
    """The path under which the simulator is mounted, empty when it has a port of its own."""
    return str(request.scope.get("root_path", ""))


def _address(request: Request, transaction: Transaction) -> str:
    return f"{_root(request)}/Payment/ConfirmPayment/{transaction.number}"


async def _form(request: Request) -> dict[str, str]:
    return dict(wire.decode(await request.body()))
