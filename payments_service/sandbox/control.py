"""The simulator's remote control: JSON over HTTP for tests, demos and tools in other processes.

    GET    /sandbox/transactions                     every transaction, oldest first
    GET    /sandbox/deliveries                       every try of a callback, oldest first
    GET    /sandbox/calls                            requests per operation
    POST   /sandbox/pay       {reference, amount?}   also cancel, fail, dispute, refund: {reference}
    POST   /sandbox/approve   {reference, pin?}      the phone's owner types a PIN; /sandbox/decline {reference}
    POST   /sandbox/pay-code  {code}                 the InnBucks app's owner types a code
    POST   /sandbox/status    {reference, status}    any status
    POST   /sandbox/faults    {fault, reference | next | every, on?, times?, seconds?, text?}
    GET    /sandbox/faults                           DELETE forgets them, those of ?reference= or all
    POST   /sandbox/settings  {delay_seconds?, reference_in_reply?, pace?, code_seconds?}

Amounts are texts in major units ("12.50"). 400: the request makes no sense; 403: a wrong PIN; 404: no such
reference or code; 409: the transaction's status does not lead there; each with {"error": text}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import remote
from payments_service.sandbox.callbacks import Delivery
from payments_service.sandbox.faults import Fault
from payments_service.sandbox.paynow_express import ExpressLedger
from payments_service.sandbox.paynow_transactions import Transaction
from payments_service.sandbox.remote import Body


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    reference: str


class _Pay(msgspec.Struct, forbid_unknown_fields=True):
    reference: str
    amount: str | None = None


class _Approve(msgspec.Struct, forbid_unknown_fields=True):
    reference: str
    pin: str = "1234"


class _Code(msgspec.Struct, forbid_unknown_fields=True):
    code: str


class _Put(msgspec.Struct, forbid_unknown_fields=True):
    reference: str
    status: str


class _Fault(msgspec.Struct, forbid_unknown_fields=True):
    fault: str
    reference: str = ""
    next: bool = False
    every: bool = False
    on: list[str] = []
    times: int | None = None
    seconds: float | None = None
    text: str = ""


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    delay_seconds: float | None = None
    reference_in_reply: bool | None = None
    pace: float | None = None
    code_seconds: float | None = None


def routes(ledger: ExpressLedger) -> list[BaseRoute]:
    """The addresses above, over this ledger."""

    async def pay(body: _Pay) -> Transaction:
        return await ledger.pay(body.reference, body.amount)

    async def approve(body: _Approve) -> Transaction:
        return await ledger.approve(body.reference, body.pin)

    async def pay_code(body: _Code) -> Transaction:
        return await ledger.pay_code(body.code)

    async def put(body: _Put) -> Transaction:
        return await ledger.set_status(body.reference, body.status)

    async def settings(body: _Settings) -> dict[str, Any]:
        return remote.settle(ledger, body)

    async def add_fault(body: _Fault) -> dict[str, Any]:
        if [bool(body.reference), body.next, body.every].count(True) != 1:
            raise ValueError("say whose fault it is: one of reference, next, every")
        fault = ledger.add_fault(
            body.fault,
            reference=body.reference,
            next=body.next,
            on=body.on,
            times=body.times,
            seconds=body.seconds,
            text=body.text,
        )
        return _fault_view(fault)

    async def redirected(_request: Request) -> Response:
        ledger.calls["redirected"] += 1
        return PlainTextResponse("You followed a redirect that Paynow never sends.")

    async def forget(request: Request) -> Response:
        ledger.clear_faults(request.query_params.get("reference", ""))
        return remote.answer([_fault_view(fault) for fault in ledger.faults])

    moves = {
        "cancel": ledger.cancel,
        "decline": ledger.decline,
        "fail": ledger.fail,
        "dispute": ledger.dispute,
        "refund": ledger.refund,
    }
    return [
        remote.get("/sandbox/transactions", lambda: [_view(ledger, one) for one in ledger.transactions]),
        remote.get("/sandbox/deliveries", lambda: [_delivery_view(one) for one in ledger.deliveries]),
        remote.get("/sandbox/calls", lambda: dict(ledger.calls)),
        remote.get("/sandbox/faults", lambda: [_fault_view(fault) for fault in ledger.faults]),
        _post(ledger, "faults", _Fault, add_fault),
        Route("/sandbox/faults", forget, methods=["DELETE"]),
        _post(ledger, "pay", _Pay, pay),
        *(_post(ledger, name, _Named, _by_name(act)) for name, act in moves.items()),
        _post(ledger, "approve", _Approve, approve),
        _post(ledger, "pay-code", _Code, pay_code),
        _post(ledger, "status", _Put, put),
        _post(ledger, "settings", _Settings, settings),
        Route("/sandbox/redirected", redirected, methods=["GET", "POST"]),
    ]


def _by_name(act: Callable[[str], Awaitable[Transaction]]) -> Callable[[_Named], Awaitable[Transaction]]:
    async def work(body: _Named) -> Transaction:
        return await act(body.reference)

    return work


def _post(
    ledger: ExpressLedger, name: str, shape: type[Body], work: Callable[[Body], Awaitable[Transaction | dict[str, Any]]]
) -> Route:
    async def shown(body: Body) -> dict[str, Any]:
        result = await work(body)
        return _view(ledger, result) if isinstance(result, Transaction) else result

    return remote.post(f"/sandbox/{name}", shape, shown)


def _view(ledger: ExpressLedger, transaction: Transaction) -> dict[str, Any]:
    opening = dict(ledger.opening(transaction))
    return {
        "reference": transaction.reference,
        "paynowreference": str(transaction.number),
        "integration": transaction.integration.id,
        "amount": transaction.amount.major(),
        "currency": transaction.amount.currency,
        "status": transaction.status,
        "history": transaction.history,
        "merchanttrace": transaction.merchanttrace,
        "browserurl": opening["browserurl"],
        "pollurl": opening["pollurl"],
        "resulturl": transaction.resulturl,
        "returnurl": transaction.returnurl,
        "method": transaction.method,
        "phone": transaction.phone,
        "code": transaction.code,
        "otp": transaction.otp,
    }


def _delivery_view(delivery: Delivery) -> dict[str, Any]:
    return {
        "reference": delivery.reference,
        "url": delivery.url,
        "body": delivery.body.decode("ascii"),
        "status": delivery.status,
        "error": delivery.error,
    }


def _fault_view(fault: Fault) -> dict[str, Any]:
    return {
        "fault": fault.name,
        "reference": fault.reference,
        "next": fault.next,
        "paynowreference": "" if fault.number is None else str(fault.number),
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        "text": fault.text,
        "used": dict(fault.used),
    }
