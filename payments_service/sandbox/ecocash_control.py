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
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import remote
from payments_service.sandbox.callbacks import Delivery
from payments_service.sandbox.ecocash_charges import OPEN_API, Charge, Merchant, Record
from payments_service.sandbox.ecocash_customers import EcocashCustomers
from payments_service.sandbox.ecocash_faults import Fault
from payments_service.sandbox.hands import UnknownReference
from payments_service.sandbox.remote import Body

View = dict[str, Any]

_BASE = "/sandbox/ecocash"


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    reference: str


class _Approve(_Named):
    pin: str = "1234"


class _Pay(_Named):
    amount: Decimal | None = None
    currency: str | None = None


class _Put(_Named):
    status: str


class _Reuse(_Named):
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


class _Fault(msgspec.Struct, forbid_unknown_fields=True):
    fault: str
    on: list[str] = []
    times: int | None = None
    seconds: float | None = None
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


def routes(ledger: EcocashCustomers) -> list[BaseRoute]:
    """The addresses above, over this ledger."""
    return [*_reading(ledger), *_moving(ledger), *_planning(ledger)]


def _reading(ledger: EcocashCustomers) -> list[BaseRoute]:
    return [
        remote.get(f"{_BASE}/charges", lambda: [_record_view(one) for one in ledger.charges]),
        remote.get(f"{_BASE}/merchants", lambda: [_merchant_view(one) for one in ledger.merchants]),
        remote.get(f"{_BASE}/deliveries", lambda: [_delivery_view(one) for one in ledger.deliveries]),
        remote.get(f"{_BASE}/calls", lambda: dict(ledger.calls)),
        remote.get(f"{_BASE}/faults", lambda: [_fault_view(fault) for fault in ledger.faults]),
    ]


def _moving(ledger: EcocashCustomers) -> list[BaseRoute]:
    async def approve(body: _Approve) -> View:
        return _record_view(await ledger.approve(body.reference, body.pin))

    async def pay(body: _Pay) -> View:
        return _record_view(await ledger.pay(body.reference, body.amount, body.currency))

    async def put(body: _Put) -> View:
        return _record_view(await ledger.set_status(body.reference, body.status))

    async def reuse(body: _Reuse) -> View:
        return _record_view(await ledger.reuse_reference(body.reference, body.other))

    plain = {name: getattr(ledger, name) for name in ("decline", "ignore", "fail", "complete_late")}
    return [
        _post("approve", _Approve, approve),
        *(_post(name, _Named, _by_name(act)) for name, act in plain.items()),
        _post("pay", _Pay, pay),
        _post("status", _Put, put),
        _post("reuse_reference", _Reuse, reuse),
    ]


def _by_name(act: Callable[[str], Awaitable[Charge]]) -> Callable[[_Named], Awaitable[View]]:
    async def work(body: _Named) -> View:
        return _record_view(await act(body.reference))

    return work


def _planning(ledger: EcocashCustomers) -> list[BaseRoute]:
    async def settings(body: _Settings) -> View:
        return remote.settle(ledger, body)

    async def add_merchant(body: _Merchant) -> View:
        values = msgspec.structs.asdict(body)
        return _merchant_view(ledger.add_merchant(values.pop("dialect"), **values))

    async def set_callback_url(body: _Address) -> View:
        """The merchant is named by code: nobody has to repeat the key."""
        found = [one for one in ledger.merchants if one.dialect == OPEN_API and one.code == body.merchant]
        if not found:
            raise UnknownReference(f"no merchant of open_api has the code {body.merchant!r}")
        found[-1].callback_url = body.url
        return _merchant_view(found[-1])

    async def add_fault(body: _Fault) -> View:
        values = msgspec.structs.asdict(body)
        return _fault_view(ledger.add_fault(values.pop("fault"), **values))

    async def forget(_request: Request) -> Response:
        ledger.clear_faults()
        return remote.answer([])

    async def redirected(_request: Request) -> Response:
        ledger.calls["redirected"] += 1
        return PlainTextResponse("You followed a redirect that EcoCash never sends.")

    return [
        _post("settings", _Settings, settings),
        _post("merchants", _Merchant, add_merchant),
        _post("callback_url", _Address, set_callback_url),
        _post("faults", _Fault, add_fault),
        Route(f"{_BASE}/faults", forget, methods=["DELETE"]),
        Route(f"{_BASE}/redirected", redirected, methods=["GET", "POST"]),
    ]


def _post(name: str, shape: type[Body], work: Callable[[Body], Awaitable[View]]) -> Route:
    return remote.post(f"{_BASE}/{name}", shape, work)


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


def _delivery_view(delivery: Delivery) -> View:
    return {
        "reference": delivery.reference,
        "url": delivery.url,
        "body": delivery.body.decode(),
        "status": delivery.status,
        "error": delivery.error,
    }


def _fault_view(fault: Fault) -> View:
    return {
        "fault": fault.name,
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        "reference": fault.reference,
        "share": fault.share,
        "used": dict(fault.used),
    }
