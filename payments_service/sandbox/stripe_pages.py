"""The Stripe simulator's pages: the hosted checkout for customers, and a small dashboard for who tries things out."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.overviews import fault_routes, newest
from payments_service.sandbox.rendering import form, go, missing, page, root
from payments_service.sandbox.stripe_accounts import Account, Object
from payments_service.sandbox.stripe_catalog import minor, money
from payments_service.sandbox.stripe_faults import KINDS
from payments_service.sandbox.stripe_moves import CARD, DECLINED_CARD
from payments_service.sandbox.stripe_requests import OPERATIONS
from payments_service.sandbox.stripe_returns import REFUND_MOVES, StripeReturns

_BASE = "/sandbox/stripe"
_SHOWN_DELIVERIES = 20
_REFUND_ENDS = ("succeeded", "failed", "canceled")
_OPEN_DISPUTES = ("needs_response", "under_review", "warning_needs_response", "warning_under_review")


def routes(ledger: StripeReturns) -> list[BaseRoute]:
    """`/c/pay/{session}`, and the dashboard below `/sandbox/stripe`, each with the forms that stand on it."""
    return [*_checkout_routes(ledger), *_dashboard_routes(ledger), *fault_routes(_BASE, ledger.faults)]


# --- for customers


def _checkout_routes(ledger: StripeReturns) -> list[BaseRoute]:
    async def show(request: Request, account: Account, checkout: Object) -> Response:
        return _checkout_page(request, ledger, account, checkout)

    async def pay(request: Request, account: Account, checkout: Object) -> Response:
        if checkout["status"] != "open":
            return _checkout_page(request, ledger, account, checkout, "", 409)
        fields = await form(request)
        card = fields.get("card", "").replace(" ", "")
        if problem := await _paid(ledger, checkout, fields.get("method", "card"), card):
            return _checkout_page(request, ledger, account, checkout, problem, 402)
        return go(checkout["success_url"].replace("{CHECKOUT_SESSION_ID}", checkout["id"]))

    return [
        Route("/c/pay/{session}", _about(ledger, show), methods=["GET"]),
        Route("/c/pay/{session}", _about(ledger, pay), methods=["POST"]),
    ]


async def _paid(ledger: StripeReturns, checkout: Object, method: str, card: str) -> str:
    """Pay as the customer chose; what to tell when nothing was paid, else an empty text."""
    if method == "bank":
        await ledger.pay_later(checkout["id"])
        return ""
    if card == DECLINED_CARD:
        await ledger.decline(checkout["id"])
        return "Your card was declined. Try another card."
    if card != CARD:
        return "This simulator knows the two test cards only. Never type a real card number here."
    await ledger.pay(checkout["id"])
    return ""


def _checkout_page(
    request: Request, ledger: StripeReturns, account: Account, checkout: Object, problem: str = "", status: int = 200
) -> Response:
    return page(
        request,
        "stripe_checkout.html",
        status,
        checkout=checkout,
        payee=checkout["branding_settings"]["display_name"],
        amount=money(checkout["amount_total"], checkout["currency"]),
        lines=[
            (line["description"], line["quantity"], money(line["amount_total"], line["currency"]))
            for line in account.line_items[checkout["id"]]
        ],
        problem=problem,
    )


# --- for who tries things out


def _dashboard_routes(ledger: StripeReturns) -> list[BaseRoute]:
    async def overview(request: Request) -> Response:
        return page(
            request,
            "stripe_list.html",
            **newest(ledger.sessions(), lambda one: _row(*one)),
            accounts=list(ledger.accounts.values()),
            faults=ledger.faults.unspent,
            kinds=KINDS,
            operations=OPERATIONS,
        )

    async def show(request: Request, account: Account, checkout: Object) -> Response:
        return _payment_page(request, ledger, account, checkout)

    async def act(request: Request, account: Account, checkout: Object) -> Response:
        try:
            await _act(ledger, checkout, await form(request))
        except (WrongMove, ValueError, LookupError) as problem:
            return _payment_page(request, ledger, account, checkout, str(problem), 409)
        return go(f"{root(request)}{_BASE}/payments/{checkout['id']}")

    return [
        Route(_BASE, overview),
        Route(f"{_BASE}/payments/{{session}}", _about(ledger, show), methods=["GET"]),
        Route(f"{_BASE}/payments/{{session}}", _about(ledger, act), methods=["POST"]),
    ]


async def _act(ledger: StripeReturns, checkout: Object, fields: dict[str, str]) -> None:
    """One button of the payment's page. Raises what the move raises, or ValueError."""
    name, target = checkout["id"], fields.get("target", "")
    text = fields.get("amount", "").strip()
    amount = minor(text, checkout["currency"]) if text else None
    moves: dict[str, Callable[[], Awaitable[object]]] = {
        "refund": lambda: ledger.refund(name, amount),
        "refund_pending": lambda: ledger.refund(name, amount, "pending"),
        "dispute": lambda: ledger.dispute(name),
        "won": lambda: ledger.close_dispute(target, "won"),
        "lost": lambda: ledger.close_dispute(target, "lost"),
        "settle": lambda: ledger.settle(name),
        "bounce": lambda: ledger.bounce(name),
        "expire": lambda: ledger.expire(name),
        "resend": lambda: ledger.resend_events(name),
        **{f"refund_{end}": functools.partial(ledger.move_refund, target, end) for end in _REFUND_ENDS},
    }
    move = moves.get(fields.get("act", ""))
    if move is None:
        raise ValueError("there is no such button")
    await move()


def _payment_page(
    request: Request, ledger: StripeReturns, account: Account, checkout: Object, problem: str = "", status: int = 200
) -> Response:
    things = ledger.belongings(account, checkout)
    names = {thing["id"] for thing in (checkout, *things)}
    about = {name for name, event in account.events.items() if event.object["data"]["object"]["id"] in names}
    deliveries = [one for one in reversed(ledger.deliveries) if one.event in about]
    intent = next((one for one in things if one["object"] == "payment_intent"), None)
    charges = [one for one in things if one["object"] == "charge" and one["status"] == "succeeded"]
    return page(
        request,
        "stripe_payment.html",
        status,
        account=account,
        checkout=checkout,
        row=_row(account, checkout),
        intent=intent,
        refundable=bool(charges) and not charges[-1]["refunded"],
        disputable=bool(charges) and not charges[-1]["disputed"],
        awaited=intent is not None and intent["status"] == "processing",
        refunds=[one for one in things if one["object"] == "refund"],
        disputes=[one for one in things if one["object"] == "dispute"],
        refund_moves=REFUND_MOVES,
        open_disputes=_OPEN_DISPUTES,
        deliveries=deliveries[:_SHOWN_DELIVERIES],
        told=len(about),
        money=money,
        problem=problem,
    )


def _row(account: Account, checkout: Object) -> dict[str, str]:
    return {
        "id": checkout["id"],
        "reference": checkout["client_reference_id"] or checkout["id"],
        "amount": money(checkout["amount_total"], checkout["currency"]),
        "payee": account.display_name,
        "status": checkout["payment_status"] if checkout["status"] == "complete" else checkout["status"],
    }


def _about(
    ledger: StripeReturns, work: Callable[[Request, Account, Object], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint for the session whose very id the path names, with its account."""

    async def endpoint(request: Request) -> Response:
        identifier = request.path_params["session"]
        try:
            account, checkout = ledger.find(identifier)
        except UnknownReference:
            return missing()
        return await work(request, account, checkout) if checkout["id"] == identifier else missing()

    return endpoint
