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
from typing import Literal

import msgspec
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.innbucks_codes import Code, Merchant
from payments_service.sandbox.innbucks_ledger import InnbucksLedger, InquiryPath
from payments_service.sandbox.innbucks_replies import Finalised
from payments_service.sandbox.remote import Body, Control, Named, PlanFault, View, fault_view


class _Pay(Named):
    amount: int | None = None


class _Put(Named):
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


class _Fault(PlanFault):
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


_control = Control("/sandbox/innbucks", "InnBucks")


def routes(ledger: InnbucksLedger) -> list[BaseRoute]:
    """The addresses above, over this ledger."""
    return [
        _control.get("codes", lambda: [_code_view(code) for code in ledger.codes]),
        _control.get("calls", lambda: dict(ledger.calls)),
        _control.get("merchants", lambda: [_merchant_view(one) for one in ledger.merchants.values()]),
        *_moving(ledger),
        *_planning(ledger),
        *_control.faults(_Fault, ledger, fault_view, of="reference"),
        _control.settings("settings", _Settings, ledger),
    ]


def _moving(ledger: InnbucksLedger) -> list[BaseRoute]:
    def move(name: str, shape: type[Body], act: Callable[[Body], Awaitable[Code]]) -> Route:
        return _control.post(name, shape, act, _code_view)

    return [
        move("expire", Named, lambda body: ledger.expire(body.reference)),
        move("claim", Named, lambda body: ledger.claim(body.reference)),
        move("pay_code", _PayCode, lambda body: ledger.pay_code(body.code, body.amount)),
        move("pay", _Pay, lambda body: ledger.pay(body.reference, body.amount)),
        move("pay_late", _Pay, lambda body: ledger.pay_late(body.reference, body.amount)),
        move("status", _Put, lambda body: ledger.set_status(body.reference, body.status)),
    ]


def _planning(ledger: InnbucksLedger) -> list[BaseRoute]:
    async def add_merchant(body: _Merchant) -> Merchant:
        return ledger.add_merchant(**msgspec.structs.asdict(body))

    async def plan_code(body: _Code) -> View:
        ledger.plan_code(body.code)
        return {"code": body.code}

    async def expire_tokens(body: _Username) -> View:
        ledger.expire_tokens(body.username)
        return {}

    return [
        _control.post("merchants", _Merchant, add_merchant, _merchant_view),
        _control.post("plan_code", _Code, plan_code),
        _control.post("expire_tokens", _Username, expire_tokens),
    ]


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
