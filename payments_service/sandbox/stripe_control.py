"""The Stripe simulator's remote control: JSON over HTTP for tests, demos and tools in other processes.

    GET    /sandbox/stripe/sessions                 every Checkout Session with what belongs to it, oldest first
    GET    /sandbox/stripe/events                   every event of every account, oldest first
    GET    /sandbox/stripe/deliveries               every try of a webhook, oldest first
    GET    /sandbox/stripe/calls                    requests per operation
    GET    /sandbox/stripe/accounts                 the accounts, without their keys
    POST   /sandbox/stripe/pay                      {reference, amount?, currency?, send?}
    POST   /sandbox/stripe/decline                  {reference, send?}; also pay_later, settle, bounce, expire
    POST   /sandbox/stripe/resend                   {reference}: every event about it once more
    POST   /sandbox/stripe/refund                   {reference, amount?, status?, send?}
    POST   /sandbox/stripe/move_refund              {refund, status, send?}
    POST   /sandbox/stripe/dispute                  {reference, amount?, status?, send?}
    POST   /sandbox/stripe/close_dispute            {dispute or a reference, outcome, send?}
    POST   /sandbox/stripe/faults                   {fault, on?, times?, seconds?, account?}
    GET    /sandbox/stripe/faults                   DELETE forgets them all
    POST   /sandbox/stripe/settings                 {delay_seconds?, refund_status?, drop_webhooks?}
    POST   /sandbox/stripe/accounts                 {key, id?, country?, display_name?, charges_enabled?, may?}

`reference` is our client_reference_id or a session's id. Amounts are whole minor units (1250). `send: false` loses
the webhooks. 400: the request makes no sense; 404: no such reference; 409: the payment's state does not lead there;
each with {"error": text}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec
from starlette.routing import BaseRoute

from payments_service.sandbox.faults import Fault
from payments_service.sandbox.remote import Control, Named
from payments_service.sandbox.stripe_accounts import Account, Object
from payments_service.sandbox.stripe_faults import Kind
from payments_service.sandbox.stripe_returns import StripeReturns
from payments_service.sandbox.stripe_webhooks import Delivery

_RefundStatus = Literal["pending", "succeeded", "failed"]


class _Sent(Named):
    send: bool = True


class _Pay(_Sent):
    amount: int | None = None
    currency: str | None = None


class _Refund(_Sent):
    amount: int | None = None
    status: _RefundStatus = "succeeded"


class _Dispute(_Sent):
    amount: int | None = None
    status: str = "needs_response"


class _MoveRefund(msgspec.Struct, forbid_unknown_fields=True):
    refund: str
    status: str
    send: bool = True


class _CloseDispute(msgspec.Struct, forbid_unknown_fields=True):
    dispute: str
    outcome: str
    send: bool = True


class _Fault(msgspec.Struct, forbid_unknown_fields=True):
    fault: str
    on: list[str] | None = None
    times: int | None = None
    seconds: float | None = None
    account: str | None = None


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    delay_seconds: float | None = None
    refund_status: _RefundStatus | None = None
    drop_webhooks: bool | None = None


class _Account(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    id: str | None = None
    country: str = "US"
    display_name: str = "Sandbox"
    charges_enabled: bool = True
    may: list[str] | None = None


_control = Control("/sandbox/stripe", "Stripe")


def routes(ledger: StripeReturns) -> list[BaseRoute]:
    """The addresses above, over this ledger."""

    async def add_account(body: _Account) -> Account:
        return ledger.add_account(**msgspec.structs.asdict(body))

    return [
        *_reading(ledger),
        *_moving(ledger),
        _control.post("accounts", _Account, add_account, _account_view),
        *_control.faults(_Fault, ledger, _fault_view),
        _control.settings("settings", _Settings, ledger),
    ]


def _reading(ledger: StripeReturns) -> list[BaseRoute]:
    def events() -> list[Object]:
        shared = {id(account.events): account for account in ledger.accounts.values()}
        return [event.shown() for account in shared.values() for event in account.events.values()]

    return [
        _control.get("sessions", lambda: [_session_view(ledger, *one) for one in ledger.sessions()]),
        _control.get("events", events),
        _control.get("deliveries", lambda: [_delivery_view(one) for one in ledger.deliveries]),
        _control.get("calls", lambda: dict(ledger.calls)),
        _control.get("accounts", lambda: [_account_view(one) for one in ledger.accounts.values()]),
    ]


def _moving(ledger: StripeReturns) -> list[BaseRoute]:
    async def pay(body: _Pay) -> Object:
        return await ledger.pay(body.reference, body.amount, body.currency, send=body.send)

    async def resend(body: Named) -> Object:
        return {"events": await ledger.resend_events(body.reference)}

    async def refund(body: _Refund) -> Object:
        return await ledger.refund(body.reference, body.amount, body.status, send=body.send)

    async def move_refund(body: _MoveRefund) -> Object:
        return await ledger.move_refund(body.refund, body.status, send=body.send)

    async def dispute(body: _Dispute) -> Object:
        return await ledger.dispute(body.reference, body.amount, body.status, send=body.send)

    async def close_dispute(body: _CloseDispute) -> Object:
        return await ledger.close_dispute(body.dispute, body.outcome, send=body.send)

    plain = {name: getattr(ledger, name) for name in ("decline", "pay_later", "settle", "bounce", "expire")}
    return [
        _control.post("pay", _Pay, pay),
        *(_control.post(name, _Sent, _sent(act)) for name, act in plain.items()),
        _control.post("resend", Named, resend),
        _control.post("refund", _Refund, refund),
        _control.post("move_refund", _MoveRefund, move_refund),
        _control.post("dispute", _Dispute, dispute),
        _control.post("close_dispute", _CloseDispute, close_dispute),
    ]


def _sent(act: Callable[..., Awaitable[Object]]) -> Callable[[_Sent], Awaitable[Object]]:
    async def work(body: _Sent) -> Object:
        return await act(body.reference, send=body.send)

    return work


def _session_view(ledger: StripeReturns, account: Account, checkout: Object) -> Object:
    return {"account": account.id, "session": checkout, "belongings": ledger.belongings(account, checkout)}


def _account_view(account: Account) -> Object:
    return {
        "id": account.id,
        "country": account.country,
        "display_name": account.display_name,
        "livemode": account.livemode,
        "charges_enabled": account.charges_enabled,
        "may": None if account.may is None else sorted(account.may),
        "endpoints": [endpoint.object for endpoint in account.endpoints.values()],
    }


def _delivery_view(delivery: Delivery) -> Object:
    return {
        "event": delivery.event,
        "type": delivery.type,
        "endpoint": delivery.endpoint,
        "url": delivery.url,
        "body": delivery.body.decode(),
        "headers": delivery.headers,
        "status": delivery.status,
        "error": delivery.error,
    }


def _fault_view(fault: Fault[Kind]) -> Object:
    return {
        "fault": fault.name,
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        "used": fault.used,
    }
