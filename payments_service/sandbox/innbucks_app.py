"""The customer's InnBucks app, as a page: it takes the codes of every gateway that gives such codes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.local import HARARE
from payments_service.sandbox.pay_codes import Bill, CodeSource, NoSuchCode
from payments_service.sandbox.rendering import form, go, page, root

_PATH = "/phone/innbucks"
_SHOWN = 8  # payments of the past
_LONGEST = 20  # what may be typed: nine digits in groups, and some more

_PROBLEMS = {
    "unknown": "No payment has this code. Check the digits.",
    "used": "This code is used up: its payment is over.",
    "expired": "This code has expired. Ask the merchant for a new one.",
}


def routes(sources: Sequence[CodeSource]) -> list[BaseRoute]:
    """`/phone/innbucks`, where a code is typed and paid, and `/phone/innbucks/confirm` between the two.

    A `code` in the query is in the field already: that is what the app's deep link does.
    """

    async def show(request: Request) -> Response:
        problem = _PROBLEMS.get(request.query_params.get("wrong", ""), "")
        receipts = _newest(sources)
        return _screen(request, "innbucks.html", code=_code(request.query_params), receipts=receipts, problem=problem)

    async def confirm(request: Request) -> Response:
        code = _code(request.query_params)
        try:
            _, bill = _find(sources, code)
        except NoSuchCode as problem:
            return _refused(request, code, problem)
        return _screen(request, "innbucks_confirm.html", bill=bill)

    async def pay(request: Request) -> Response:
        code = _code(await form(request))
        try:
            source, _ = _find(sources, code)
            await source.pay_code(code)
        except NoSuchCode as problem:
            return _refused(request, code, problem)
        return go(f"{root(request)}{_PATH}")

    return [
        Route(_PATH, show, methods=["GET"]),
        Route(_PATH, pay, methods=["POST"]),
        Route(f"{_PATH}/confirm", confirm, methods=["GET"]),
    ]


def _find(sources: Sequence[CodeSource], code: str) -> tuple[CodeSource, Bill]:
    """Who would be paid by the code, or NoSuchCode: of the one who knows the code, if anyone does."""
    refusal = NoSuchCode(f"no payment has the code {code}", "unknown")
    for source in sources:
        try:
            return source, source.bill(code)
        except NoSuchCode as problem:
            refusal = refusal if problem.why == "unknown" else problem
    raise refusal


def _newest(sources: Sequence[CodeSource]) -> list[Bill]:
    receipts = [bill for source in sources for bill in source.receipts()]
    return sorted(receipts, key=lambda bill: bill.ends_at, reverse=True)[:_SHOWN]


def _refused(request: Request, code: str, problem: NoSuchCode) -> Response:
    """Back to where the code is typed, with the digits to be corrected."""
    digits = "".join(one for one in code if one in "0123456789")
    return go(f"{root(request)}{_PATH}?wrong={problem.why}&code={digits}")


def _code(fields: Mapping[str, str]) -> str:
    """Without blanks: people type it in groups."""
    return "".join(fields.get("code", "").split())[:_LONGEST]


def _screen(request: Request, template: str, **values: object) -> Response:
    return page(request, template, 200, clock=f"{datetime.now(HARARE):%H:%M}", refresh=False, **values)
