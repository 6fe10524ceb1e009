"""The EcoCash simulator's remote control: JSON over HTTP for tests, demos and tools in other processes.

    GET    /sandbox/ecocash/charges                  every charge with its refunds, oldest first
    GET    /sandbox/ecocash/merchants                the merchants, without their secrets
    GET    /sandbox/ecocash/deliveries               every try of a callback, oldest first
    GET    /sandbox/ecocash/calls                    requests per operation
    POST   /sandbox/ecocash/approve                  {reference, pin?}: the customer types a PIN
    POST   /sandbox/ecocash/decline                  {reference}; also ignore, fail, complete_late
    POST   /sandbox/ecocash/pay                      {reference, amount?, currency?}
    POST   /sandbox/ecocash/status                   {reference, status}: any status
    POST   /sandbox/ecocash/reuse_reference          {reference, other}
    POST   /sandbox/ecocash/callback_url             {merchant, url}: open_api's, kept by the portal
    POST   /sandbox/ecocash/merchants                {dialect, name?, code?, api_key?, username?, password?, pin?, …}
    POST   /sandbox/ecocash/faults                   {fault, on?, times?, seconds?, reference?, share?, seed?}
    GET    /sandbox/ecocash/faults                   DELETE forgets them all
    POST   /sandbox/ecocash/settings                 {delay_seconds?, prompt_seconds?, open_api_answer?, …}

`reference` is a charge's correlator, EcoCash's reference, or what stands in its reference or reason. Amounts are
numbers in major units; texts are understood, too. 400: the request makes no sense; 403: a wrong PIN; 404: no such
charge or merchant; 409: the charge's state does not lead there; each with {"error": text}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Literal

import msgspec
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.ecocash_charges import OPEN_API, Charge, Merchant, Record
from payments_service.sandbox.ecocash_customers import EcocashCustomers
from payments_service.sandbox.hands import UnknownReference
from payments_service.sandbox.remote import Body, Control, Named, PlanFault, View, fault_view, posted_view


class _Approve(Named):
    pin: str = "1234"


class _Pay(Named):
    amount: Decimal | None = None
    currency: str | None = None


class _Put(Named):
    status: str


class _Reuse(Named):
    other: str


class _Address(msgspec.Struct, forbid_unknown_fields=True):
    merchant: str
    url: str


class _Merchant(msgspec.Struct, forbid_unknown_fields=True):
    dialect: str
    name: str = "Merchant"
    code: str = ""
    api_key: str = ""
    username: str = ""
    password: str = ""
    pin: str = ""
    number: str = ""
    currencies: tuple[str, ...] = ("USD", "ZWG")
    callback_url: str = ""


class _Fault(PlanFault):
    reference: str = ""
    share: float = 1.0
    seed: int | None = None


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    delay_seconds: float | None = None
    prompt_seconds: float | None = None
    auto_approve_after: float | None = None
    refund_outcome: Literal["paid", "pending", "failed"] | None = None
    open_api_answer: Literal["empty", "json", "text"] | None = None
    open_api_expired: str | None = None
    open_api_declined: str | None = None
    numeric_currency: bool | None = None
    refund_type: str | None = None
    portal_status: str | None = None
    portal_reference: str | None = None
    lingers: bool | None = None


_control = Control("/sandbox/ecocash", "EcoCash")


def routes(ledger: EcocashCustomers) -> list[BaseRoute]:
    """The addresses above, over this ledger."""
    return [
        _control.get("charges", lambda: [_record_view(one) for one in ledger.charges]),
        _control.get("merchants", lambda: [_merchant_view(one) for one in ledger.merchants]),
        _control.get(
            "deliveries", lambda: [{"reference": one.reference} | posted_view(one) for one in ledger.deliveries]
        ),
        _control.get("calls", lambda: dict(ledger.calls)),
        *_moving(ledger),
        *_planning(ledger),
        *_control.faults(_Fault, ledger, fault_view),
        _control.settings("settings", _Settings, ledger),
    ]


def _moving(ledger: EcocashCustomers) -> list[BaseRoute]:
    def move(name: str, shape: type[Body], act: Callable[[Body], Awaitable[Record]]) -> Route:
        return _control.post(name, shape, act, _record_view)

    return [
        move("decline", Named, lambda body: ledger.decline(body.reference)),
        move("ignore", Named, lambda body: ledger.ignore(body.reference)),
        move("fail", Named, lambda body: ledger.fail(body.reference)),
        move("complete_late", Named, lambda body: ledger.complete_late(body.reference)),
        move("approve", _Approve, lambda body: ledger.approve(body.reference, body.pin)),
        move("pay", _Pay, lambda body: ledger.pay(body.reference, body.amount, body.currency)),
        move("status", _Put, lambda body: ledger.set_status(body.reference, body.status)),
        move("reuse_reference", _Reuse, lambda body: ledger.reuse_reference(body.reference, body.other)),
    ]


def _planning(ledger: EcocashCustomers) -> list[BaseRoute]:
    async def add_merchant(body: _Merchant) -> Merchant:
        return ledger.add_merchant(**msgspec.structs.asdict(body))

    async def set_callback_url(body: _Address) -> Merchant:
        """The merchant is named by code: nobody has to repeat the key."""
        found = [one for one in ledger.merchants if one.dialect == OPEN_API and one.code == body.merchant]
        if not found:
            raise UnknownReference(f"no merchant of open_api has the code {body.merchant!r}")
        found[-1].callback_url = body.url
        return found[-1]

    return [
        _control.post("merchants", _Merchant, add_merchant, _merchant_view),
        _control.post("callback_url", _Address, set_callback_url, _merchant_view),
    ]


def _record_view(record: Record) -> View:
    view = {
        "dialect": record.dialect,
        "merchant": record.merchant.code,
        "correlator": record.correlator,
        "msisdn": record.msisdn,
        "amount": record.amount,
        "currency": record.currency,
        "reference_code": record.reference_code,
        "remarks": record.remarks,
        "status": record.status,
        "ecocash_reference": record.ecocash_reference,
        "at": record.at,
    }
    if not isinstance(record, Charge):
        return view
    return view | {
        "ending": record.ending,
        "history": record.history,
        "notify_url": record.notify_url,
        "refunds": [_record_view(one) for one in record.refunds],
    }


def _merchant_view(merchant: Merchant) -> View:
    return {
        "dialect": merchant.dialect,
        "name": merchant.name,
        "code": merchant.code,
        "number": merchant.number,
        "currencies": sorted(merchant.currencies),
        "callback_url": merchant.callback_url,
        "active": merchant.active,
    }
