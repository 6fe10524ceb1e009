"""The simulator's phones: pages on which the prompt appears, the OTP arrives, and the InnBucks app takes a code."""

from __future__ import annotations

from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.paynow_express import (
    HARARE,
    MOBILE,
    PROMPTED,
    ExpressLedger,
    NoSuchCode,
    WrongPin,
    is_local_number,
    pin_tries_left,
    rehearsal_of,
)
from payments_service.sandbox.paynow_transactions import Transaction, WrongMove
from payments_service.sandbox.rendering import form, go, missing, page, root

_SHOWN = 8  # of a phone's past payments

# What the customer is told of a payment that is over: `{0}` is the amount, `{1}` the merchant.
_OUTCOMES = {
    "Paid": "You paid {0} to {1}.",
    "Awaiting Delivery": "You paid {0} to {1}. The money is held until delivery.",
    "Delivered": "You paid {0} to {1}. It was delivered.",
    "Cancelled": "The payment of {0} to {1} was cancelled. No money was taken.",
    "Failed": "The payment of {0} to {1} failed. No money was taken.",
    "Disputed": "Your payment of {0} to {1} is disputed.",
    "Refunded": "{1} gave you {0} back.",
}

_PROBLEMS = {
    "unknown": "No payment has this code. Check the digits.",
    "used": "This code is used up: its payment is over.",
    "expired": "This code has expired. Ask the merchant for a new one.",
}


def routes(ledger: ExpressLedger) -> list[BaseRoute]:
    """`/phone`, `/phone/innbucks` and `/phone/<07XXXXXXXX>`, with the forms that stand on them."""

    async def index(request: Request) -> Response:
        phones: dict[str, list[Transaction]] = {}
        for transaction in reversed(ledger.transactions):
            if transaction.method in MOBILE:
                phones.setdefault(transaction.phone, []).append(transaction)
        waiting = {number: sum(one.open for one in theirs) for number, theirs in phones.items()}
        return _screen(request, "phones.html", refresh=True, waiting=waiting)

    async def show(request: Request) -> Response:
        number = request.path_params["number"]
        return _phone_page(request, ledger, number) if is_local_number(number) else missing()

    async def answer(request: Request) -> Response:
        number, fields = request.path_params["number"], await form(request)
        transaction = _asked(ledger, number, fields.get("number", ""))
        if transaction is None:
            return missing()
        try:
            if fields.get("answer") == "decline":
                ledger.turn_down(transaction)
            else:
                ledger.enter_pin(transaction, fields.get("pin", "").strip())
        except (WrongPin, WrongMove):
            pass  # the page tells what the transaction has come to, also after a reload
        return go(f"{root(request)}/phone/{number}")

    async def show_app(request: Request) -> Response:
        paid = [one for one in reversed(ledger.transactions) if one.method == "innbucks" and not one.open]
        problem = _PROBLEMS.get(request.query_params.get("wrong", ""), "")
        return _screen(request, "innbucks.html", notes=_notes(paid), problem=problem)

    async def pay_code(request: Request) -> Response:
        code = "".join((await form(request)).get("code", "").split())  # people type it in groups
        address = f"{root(request)}/phone/innbucks"
        try:
            await ledger.pay_code(code)
        except NoSuchCode as problem:
            return go(f"{address}?wrong={problem.why}")
        return go(address)

    return [
        Route("/phone", index),
        Route("/phone/innbucks", show_app, methods=["GET"]),
        Route("/phone/innbucks", pay_code, methods=["POST"]),
        Route("/phone/{number}", show, methods=["GET"]),
        Route("/phone/{number}", answer, methods=["POST"]),
    ]


def _phone_page(request: Request, ledger: ExpressLedger, number: str) -> Response:
    theirs = [one for one in reversed(ledger.transactions) if one.phone == number and one.method in MOBILE]
    waiting = [one for one in theirs if one.open]
    prompts = [one for one in waiting if one.method in PROMPTED and not rehearsal_of(one.method, number)]
    return _screen(
        request,
        "phone.html",
        refresh=not prompts,  # a refresh would wipe out the PIN that is being typed
        number=number,
        prompts=[(one, pin_tries_left(one)) for one in prompts],
        messages=[one for one in waiting if one.method == "omari"],
        rehearsals=[one for one in waiting if rehearsal_of(one.method, number)],
        notes=_notes([one for one in theirs if not one.open]),
    )


def _asked(ledger: ExpressLedger, phone: str, number: str) -> Transaction | None:
    """The transaction whose prompt is answered, if it is one of this phone's."""
    prompted = (one for one in ledger.transactions if one.phone == phone and one.method in PROMPTED)
    return next((one for one in prompted if str(one.number) == number), None)


def _notes(over: list[Transaction]) -> list[tuple[Transaction, str]]:
    """The newest payments that are over, each with what its customer is told."""
    return [(one, _told(one)) for one in over[:_SHOWN]]


def _told(transaction: Transaction) -> str:
    amount, merchant = transaction.amount.shown(), transaction.integration.owner_email
    if transaction.status not in _OUTCOMES:
        return f"The payment of {amount} to {merchant} is {transaction.status} now."
    text = _OUTCOMES[transaction.status].format(amount, merchant)
    return text if pin_tries_left(transaction) else f"Wrong PIN, three times. {text}"


def _screen(request: Request, template: str, *, refresh: bool = False, **values: object) -> Response:
    return page(request, template, 200, clock=f"{datetime.now(HARARE):%H:%M}", refresh=refresh, **values)
