"""The simulator's pages for people: the list of transactions, and the one where a customer pays or does not."""

from __future__ import annotations

from urllib.parse import unquote_plus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import wire
from payments_service.sandbox.hands import WrongMove
from payments_service.sandbox.overviews import forget_route, newest
from payments_service.sandbox.paynow_express import MOBILE, wire_time
from payments_service.sandbox.paynow_faults import KINDS
from payments_service.sandbox.paynow_ledger import Ledger
from payments_service.sandbox.paynow_transactions import Transaction
from payments_service.sandbox.rendering import form, go, missing, page, root

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


def routes(ledger: Ledger) -> list[BaseRoute]:
    """`/` and `/Payment/ConfirmPayment/<n>[/<authemail>//]`, with the forms that stand on them."""

    async def index(request: Request) -> Response:
        return page(
            request,
            "paynow_list.html",
            **newest(ledger.transactions),
            faults=ledger.faults.unspent,
            kinds=KINDS,
            neighbours=ledger.neighbours,
        )

    async def show(request: Request) -> Response:
        transaction = ledger.by_number(request.path_params["number"])
        return missing() if transaction is None else _transaction_page(request, ledger, transaction)

    async def act(request: Request) -> Response:
        transaction = ledger.by_number(request.path_params["number"])
        if transaction is None:
            return missing()
        visiting = transaction.open and not transaction.method
        try:
            ledger.move(transaction, (await form(request)).get("status", ""))
        except WrongMove as problem:
            return _transaction_page(request, ledger, transaction, str(problem), 409)
        # What ends the customer's visit sends the browser back to the merchant.
        return go(transaction.returnurl if visiting else _address(request, transaction))

    async def add_fault(request: Request) -> Response:
        fields = await form(request)
        number = fields.get("number", "")
        transaction = ledger.by_number(int(number)) if number.isdecimal() else None
        if (number and transaction is None) or fields.get("fault") not in KINDS:
            return missing()
        fault = ledger.add_fault(fields["fault"], next=transaction is None)
        if transaction is None:
            return go(f"{root(request)}/")
        fault.transaction = transaction
        return go(_address(request, transaction))

    return [
        Route("/", index),
        Route("/Payment/ConfirmPayment/{number:int}", show, methods=["GET"]),
        Route("/Payment/ConfirmPayment/{number:int}", act, methods=["POST"]),
        Route("/Payment/ConfirmPayment/{number:int}/{authemail:path}", show, methods=["GET"]),
        Route("/sandbox/page/faults", add_fault, methods=["POST"]),
        forget_route("/sandbox", ledger.faults, "/"),
    ]


def _transaction_page(
    request: Request, ledger: Ledger, transaction: Transaction, problem: str = "", status: int = 200
) -> Response:
    deliveries = [one for one in ledger.deliveries if one.reference == transaction.reference]
    return page(
        request,
        "paynow_transaction.html",
        status,
        transaction=transaction,
        info=unquote_plus(transaction.additionalinfo),
        phone_page=transaction.method in MOBILE,
        code_expires=wire_time(transaction.code_expires) if transaction.code_expires else "",
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
        kinds=KINDS,
    )


def _address(request: Request, transaction: Transaction) -> str:
    return f"{root(request)}/Payment/ConfirmPayment/{transaction.number}"
