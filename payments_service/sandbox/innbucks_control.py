"""The InnBucks simulator's remote control: JSON over HTTP for tests, demos and tools in other processes.

    GET    /sandbox/innbucks/codes            every code, oldest first
    GET    /sandbox/innbucks/calls            requests per operation
    GET    /sandbox/innbucks/merchants        the merchants, without what they prove themselves with
    POST   /sandbox/innbucks/merchants        {username, password, api_key, account_id, name}
    POST   /sandbox/innbucks/pay_code         {code, amount?}         the app's owner types a code
    POST   /sandbox/innbucks/pay              {reference, amount?}    also pay_late: a code that has ended
    POST   /sandbox/innbucks/expire           {reference}             also claim
    POST   /sandbox/innbucks/status           {reference, status}     any status
    POST   /sandbox/innbucks/plan_code        {code}                  the digits of the next code
    POST   /sandbox/innbucks/expire_tokens    {username?}             this merchant's, or all
    POST   /sandbox/innbucks/faults           {fault, on?, times?, seconds?, reference?, share?, seed?}
    GET    /sandbox/innbucks/faults           DELETE forgets them, those of ?reference= or all
    POST   /sandbox/innbucks/settings         {delay_seconds?, code_seconds?, token_seconds?, inquiry_path?,
                                               absent_status?, finalised?, statement_rows?}

`reference` is the one sent with generate, its leading part, or a code's digits. Amounts are whole cents. 400: the
request makes no sense; 404: no such reference or code; 409: the code's status does not lead there; each with
{"error": text}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import remote
from payments_service.sandbox.innbucks_codes import Code, Merchant
from payments_service.sandbox.innbucks_faults import Fault
from payments_service.sandbox.innbucks_ledger import InnbucksLedger, InquiryPath
from payments_service.sandbox.innbucks_replies import Finalised
from payments_service.sandbox.remote import Body


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    reference: str


class _Pay(_Named):
    amount: int | None = None


class _Put(_Named):
    status: str


class _Code(msgspec.Struct, forbid_unknown_fields=True):
    code: str


class _PayCode(_Code):
    amount: int | None = None


class _Merchant(msgspec.Struct, forbid_unknown_fields=True):
    username: str
    password: str
    api_key: str
    account_id: str
    name: str


class _Username(msgspec.Struct, forbid_unknown_fields=True):
    username: str = ""


class _Fault(msgspec.Struct, forbid_unknown_fields=True):
    fault: str
    on: list[str] = []
    times: int | None = None
    seconds: float | None = None
    reference: str = ""
    share: float | None = None
    seed: int = 0


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    delay_seconds: float | None = None
    code_seconds: float | None = None
    token_seconds: float | None = None
    inquiry_path: InquiryPath | None = None
    absent_status: Literal[404, 405] | None = None
    finalised: Finalised | None = None
    statement_rows: int | None = None


View = dict[str, Any]

_BASE = "/sandbox/innbucks"


def routes(ledger: InnbucksLedger) -> list[BaseRoute]:
    """The addresses above, over this ledger."""
    return [*_reading(ledger), *_moving(ledger), *_planning(ledger)]


def _reading(ledger: InnbucksLedger) -> list[BaseRoute]:
    return [
        remote.get(f"{_BASE}/codes", lambda: [_code_view(code) for code in ledger.codes]),
        remote.get(f"{_BASE}/calls", lambda: dict(ledger.calls)),
        remote.get(f"{_BASE}/merchants", lambda: [_merchant_view(one) for one in ledger.merchants.values()]),
        remote.get(f"{_BASE}/faults", lambda: [_fault_view(fault) for fault in ledger.faults]),
    ]


def _moving(ledger: InnbucksLedger) -> list[BaseRoute]:
    async def pay_code(body: _PayCode) -> View:
        return _code_view(await ledger.pay_code(body.code, body.amount))

    async def pay(body: _Pay) -> View:
        return _code_view(await ledger.pay(body.reference, body.amount))

    async def pay_late(body: _Pay) -> View:
        return _code_view(await ledger.pay_late(body.reference, body.amount))

    async def expire(body: _Named) -> View:
        return _code_view(await ledger.expire(body.reference))

    async def claim(body: _Named) -> View:
        return _code_view(await ledger.claim(body.reference))

    async def put(body: _Put) -> View:
        return _code_view(await ledger.set_status(body.reference, body.status))

    return [
        _post("pay_code", _PayCode, pay_code),
        _post("pay", _Pay, pay),
        _post("pay_late", _Pay, pay_late),
        _post("expire", _Named, expire),
        _post("claim", _Named, claim),
        _post("status", _Put, put),
    ]


def _planning(ledger: InnbucksLedger) -> list[BaseRoute]:
    async def add_merchant(body: _Merchant) -> View:
        return _merchant_view(ledger.add_merchant(**msgspec.structs.asdict(body)))

    async def plan_code(body: _Code) -> View:
        ledger.plan_code(body.code)
        return {"code": body.code}

    async def expire_tokens(body: _Username) -> View:
        ledger.expire_tokens(body.username)
        return {}

    async def add_fault(body: _Fault) -> View:
        values = msgspec.structs.asdict(body)
        return _fault_view(ledger.add_fault(values.pop("fault"), **values))

    async def settings(body: _Settings) -> View:
        return remote.settle(ledger, body)

    async def forget(request: Request) -> Response:
        ledger.clear_faults(request.query_params.get("reference", ""))
        return remote.answer([_fault_view(fault) for fault in ledger.faults])

    async def redirected(_request: Request) -> Response:
        ledger.calls["redirected"] += 1
        return PlainTextResponse("You followed a redirect that InnBucks never sends.")

    return [
        _post("merchants", _Merchant, add_merchant),
        _post("plan_code", _Code, plan_code),
        _post("expire_tokens", _Username, expire_tokens),
        _post("faults", _Fault, add_fault),
        _post("settings", _Settings, settings),
        Route(f"{_BASE}/faults", forget, methods=["DELETE"]),
        Route(f"{_BASE}/redirected", redirected, methods=["GET", "POST"]),
    ]


def _post(name: str, shape: type[Body], work: Callable[[Body], Awaitable[View]]) -> Route:
    return remote.post(f"{_BASE}/{name}", shape, work)


def _code_view(code: Code) -> View:
    return {
        "merchant": code.merchant.username,
        "reference": code.reference,
        "narration": code.narration,
        "amount": code.amount,
        "paid_amount": code.paid_amount,
        "code": code.code,
        "status": code.status,
        "seconds_left": code.seconds_left,
        "made_at": code.made_at,
        "ends_at": code.ends_at,
    }


def _merchant_view(merchant: Merchant) -> View:
    return {"username": merchant.username, "account_id": merchant.account_id, "name": merchant.name}


def _fault_view(fault: Fault) -> View:
    return {
        "fault": fault.name,
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        "reference": fault.reference,
        "share": fault.share,
        "used": fault.used,
    }
