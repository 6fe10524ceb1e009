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
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.paynow_express import ExpressLedger
from payments_service.sandbox.paynow_faults import Fault
from payments_service.sandbox.paynow_transactions import Transaction
from payments_service.sandbox.remote import Body, Control, Named, PlanFault, View, posted_view


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


class _Fault(PlanFault):
    reference: str = ""
    next: bool = False
    every: bool = False
    text: str = ""


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    delay_seconds: float | None = None
    reference_in_reply: bool | None = None
    pace: float | None = None
    code_seconds: float | None = None


_control = Control("/sandbox", "Paynow")


def routes(ledger: ExpressLedger) -> list[BaseRoute]:
    """The addresses above, over this ledger."""

    def add_fault(name: str, *, every: bool, **values: Any) -> Fault:
        if [bool(values["reference"]), values["next"], every].count(True) != 1:
            raise ValueError("say whose fault it is: one of reference, next, every")
        return ledger.add_fault(name, **values)

    return [
        _control.get("transactions", lambda: [_view(ledger, one) for one in ledger.transactions]),
        _control.get(
            "deliveries", lambda: [{"reference": one.reference} | posted_view(one) for one in ledger.deliveries]
        ),
        _control.get("calls", lambda: dict(ledger.calls)),
        *_moving(ledger),
        *_control.faults(_Fault, ledger, _fault_view, add=add_fault, of="reference"),
        _control.settings("settings", _Settings, ledger),
    ]


def _moving(ledger: ExpressLedger) -> list[BaseRoute]:
    def move(name: str, shape: type[Body], act: Callable[[Body], Awaitable[Transaction]]) -> Route:
        return _control.post(name, shape, act, lambda one: _view(ledger, one))

    return [
        move("cancel", Named, lambda body: ledger.cancel(body.reference)),
        move("decline", Named, lambda body: ledger.decline(body.reference)),
        move("fail", Named, lambda body: ledger.fail(body.reference)),
        move("dispute", Named, lambda body: ledger.dispute(body.reference)),
        move("refund", Named, lambda body: ledger.refund(body.reference)),
        move("pay", _Pay, lambda body: ledger.pay(body.reference, body.amount)),
        move("approve", _Approve, lambda body: ledger.approve(body.reference, body.pin)),
        move("pay-code", _Code, lambda body: ledger.pay_code(body.code)),
        move("status", _Put, lambda body: ledger.set_status(body.reference, body.status)),
    ]


def _view(ledger: ExpressLedger, transaction: Transaction) -> View:
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


def _fault_view(fault: Fault) -> View:
    return {
        "fault": fault.name,
        "reference": fault.reference,
        "next": fault.next,
        "paynowreference": str(fault.transaction.number) if fault.transaction else "",
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        "text": fault.text,
        "used": fault.used,
    }
