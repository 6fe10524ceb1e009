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
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import remote
from payments_service.sandbox.remote import Body
from payments_service.sandbox.stripe_accounts import Account, Object
from payments_service.sandbox.stripe_faults import Fault
from payments_service.sandbox.stripe_returns import StripeReturns
from payments_service.sandbox.stripe_webhooks import Delivery

_RefundStatus = Literal["pending", "succeeded", "failed"]


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    reference: str


class _Sent(_Named):
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


_BASE = "/sandbox/stripe"


def routes(ledger: StripeReturns) -> list[BaseRoute]:
    """The addresses above, over this ledger."""
    return [*_reading(ledger), *_moving(ledger), *_planning(ledger)]


def _reading(ledger: StripeReturns) -> list[BaseRoute]:
    def events() -> list[Object]:
        shared = {id(account.events): account for account in ledger.accounts.values()}
        return [event.shown() for account in shared.values() for event in account.events.values()]

    return [
        remote.get(f"{_BASE}/sessions", lambda: [_session_view(ledger, *one) for one in ledger.sessions()]),
        remote.get(f"{_BASE}/events", events),
        remote.get(f"{_BASE}/deliveries", lambda: [_delivery_view(one) for one in ledger.deliveries]),
        remote.get(f"{_BASE}/calls", lambda: dict(ledger.calls)),
        remote.get(f"{_BASE}/accounts", lambda: [_account_view(one) for one in ledger.accounts.values()]),
        remote.get(f"{_BASE}/faults", lambda: [_fault_view(fault) for fault in ledger.faults]),
    ]


def _moving(ledger: StripeReturns) -> list[BaseRoute]:
    async def pay(body: _Pay) -> Object:
        return await ledger.pay(body.reference, body.amount, body.currency, send=body.send)

    async def resend(body: _Named) -> Object:
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
        _post("pay", _Pay, pay),
        *(_post(name, _Sent, _sent(act)) for name, act in plain.items()),
        _post("resend", _Named, resend),
        _post("refund", _Refund, refund),
        _post("move_refund", _MoveRefund, move_refund),
        _post("dispute", _Dispute, dispute),
        _post("close_dispute", _CloseDispute, close_dispute),
    ]


def _sent(act: Callable[..., Awaitable[Object]]) -> Callable[[_Sent], Awaitable[Object]]:
    async def work(body: _Sent) -> Object:
        return await act(body.reference, send=body.send)

    return work


def _planning(ledger: StripeReturns) -> list[BaseRoute]:
    async def settings(body: _Settings) -> Object:
        return remote.settle(ledger, body)

    async def add_fault(body: _Fault) -> Object:
        return _fault_view(ledger.add_fault(body.fault, body.on, body.times, body.seconds, body.account))

    async def add_account(body: _Account) -> Object:
        values = msgspec.structs.asdict(body)
        return _account_view(ledger.add_account(values.pop("key"), **values))

    async def forget(_request: Request) -> Response:
        ledger.clear_faults()
        return remote.answer([])

    async def redirected(_request: Request) -> Response:
        ledger.calls["redirected"] += 1
        return PlainTextResponse("You followed a redirect that Stripe never sends.")

    return [
        _post("settings", _Settings, settings),
        _post("faults", _Fault, add_fault),
        _post("accounts", _Account, add_account),
        Route(f"{_BASE}/faults", forget, methods=["DELETE"]),
        Route(f"{_BASE}/redirected", redirected, methods=["GET", "POST"]),
    ]


def _post(name: str, shape: type[Body], work: Callable[[Body], Awaitable[Object]]) -> Route:
    return remote.post(f"{_BASE}/{name}", shape, work)


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


def _fault_view(fault: Fault) -> Object:
    return {
        "fault": fault.name,
        "on": fault.on,
        "times": fault.times,
        "seconds": fault.seconds,
        "used": fault.used,
    }
