"""`Payments`: every call of the internal API, typed.

Every call may raise `PaymentsError` (see problems.py), and is tried again by itself as `Patience` says. A POST carries
an `Idempotency-Key`: its own, or the one given as `idempotency_key` (at most 255 printable ASCII characters). Give one,
and keep it beside what it is for, wherever the same wish may be uttered again after a crash: the service then answers
what it answered before. `actor` names the person behind a call, for the audit log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Literal, Self, TypeVar, Unpack

import msgspec

from conva_payments.answers import (
    AuditEntry,
    ChainVerdict,
    HistoryEntry,
    Page,
    Payment,
    PaymentWithMessages,
    Refund,
    RefundMade,
    Review,
    Settings,
    Summary,
    Total,
    Verification,
    WebhookEndpoint,
)
from conva_payments.events import Event, pulled
from conva_payments.patience import Patience
from conva_payments.requests import EventFilters, Id, PaymentFilters, SettingsChanges
from conva_payments.spelling import client_path, given, id_of, json_of, key_of, payment_path, query_of
from conva_payments.wire import Call, Wire
from conva_payments.words import CurrencyName, GatewayName, MessageForm

T = TypeVar("T")
_PATIENT = Patience()


class Payments:
    """The service at `base_url` (its internal listener), called with one of its `SERVICE_TOKENS`.

    async with Payments("http://payments.internal:8080", token) as payments:
        payment = await payments.create_link(...)

    One for the whole process: it holds the connections. It may be used by many tasks at once.
    """

    def __init__(self, base_url: str, token: str, *, patience: Patience = _PATIENT) -> None:
        self._wire = Wire(base_url, token, patience)

    def __repr__(self) -> str:
        return f"Payments({self._wire.base_url!r})"

    async def __aenter__(self) -> Self:
        await self._wire.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._wire.close()

    # --- a tenant's settings

    async def settings(self, client_id: Id) -> Settings:
        """What is saved, without the secrets; of a tenant never seen everything is None or False."""
        return await self._get(f"{client_path(client_id)}/payment-settings", Settings)

    async def save_settings(
        self, client_id: Id, *, actor: str | None = None, **changes: Unpack[SettingsChanges]
    ) -> Settings:
        """Change the fields that are given; None clears one."""
        path = f"{client_path(client_id)}/payment-settings"
        call = Call(method="PATCH", path=path, body=json_of(changes), actor=actor)
        return await self._wire.fetch(call, _reader(Settings))

    async def verify_settings(
        self, client_id: Id, gateway: GatewayName, *, idempotency_key: str | None = None
    ) -> Verification:
        """What the gateway says of the saved credentials."""
        path = f"{client_path(client_id)}/payment-settings/verify"
        return await self._post(path, Verification, {"gateway": gateway}, key=idempotency_key)

    async def set_up_stripe_webhook(
        self, client_id: Id, *, actor: str | None = None, idempotency_key: str | None = None
    ) -> WebhookEndpoint:
        """Make the webhook endpoint in the tenant's Stripe account and save its secret."""
        path = f"{client_path(client_id)}/payment-settings/stripe-webhook"
        return await self._post(path, WebhookEndpoint, actor=actor, key=idempotency_key)

    # --- payments

    async def create_link(
        self,
        client_id: Id,
        *,
        gateway: GatewayName | None,
        amount_cents: int,
        currency: CurrencyName,
        reference: str,
        contact_id: Id,
        description: str | None = None,
        invoice_id: Id | None = None,
        contact_email: str | None = None,
        contact_phone: str | None = None,
        expires_in: int | None = None,
        send: Literal["whatsapp"] | None = None,
        reminders: bool = False,
        idempotency_key: str | None = None,
    ) -> Payment:
        """Make a payment with its link; send its `page_url` to the customer. With `gateway` None the customer chooses
        the way to pay. `expires_in`: seconds, a week unless given. `send`: it goes to `contact_phone` by WhatsApp, with
        `reminders` once more before it expires; `payment` tells what became of it.

        GatewayTimeout: the payment exists all the same, `payment(client_id, error.payment_id)` shows it.
        """
        order = {
            "amount_cents": amount_cents,
            "currency": currency,
            "reference": reference,
            "contact_id": contact_id,
            "description": description,
            "invoice_id": invoice_id,
            "contact_email": contact_email,
            "contact_phone": contact_phone,
            "expires_in": expires_in,
            "send": send,
            "reminders": reminders or None,
        }
        path = f"{client_path(client_id)}/payments/create-link"
        return await self._post(path, Payment, {"gateway": gateway, **given(order)}, key=idempotency_key)

    async def send_link(
        self,
        client_id: Id,
        payment_id: Id,
        *,
        to: str | None = None,
        form: MessageForm | None = None,
        actor: str | None = None,
        idempotency_key: str | None = None,
    ) -> PaymentWithMessages:
        """Send the link by WhatsApp, to the payment's `contact_phone` unless `to` is given. `form`: `text` only where
        the customer has written within a day. TooManyRequests within a minute of the last one, or after five in a day.
        """
        wish = {"channel": "whatsapp", "to": to, "form": form}
        path = f"{payment_path(client_id, payment_id)}/send"
        return await self._post(path, PaymentWithMessages, given(wish), actor=actor, key=idempotency_key)

    async def payment(self, client_id: Id, payment_id: Id) -> PaymentWithMessages:
        """The payment as it stands, with its messages; a pending one is looked up at its gateway within 2.5 seconds."""
        return await self._get(payment_path(client_id, payment_id), PaymentWithMessages)

    async def refresh(self, client_id: Id, payment_id: Id, *, idempotency_key: str | None = None) -> Payment:
        """The same, with 12 seconds for the gateway."""
        return await self._post(f"{payment_path(client_id, payment_id)}/refresh", Payment, key=idempotency_key)

    async def cancel(
        self, client_id: Id, payment_id: Id, *, actor: str | None = None, idempotency_key: str | None = None
    ) -> Payment:
        """Withdraw the link. WrongState when money has come or may still come."""
        path = f"{payment_path(client_id, payment_id)}/cancel"
        return await self._post(path, Payment, actor=actor, key=idempotency_key)

    async def history(self, client_id: Id, payment_id: Id) -> list[HistoryEntry]:
        """Every change of the payment, the first one first."""
        return (await self._get(f"{payment_path(client_id, payment_id)}/history", Page[HistoryEntry])).data

    # --- finding payments

    async def payments_page(
        self, client_id: Id, *, limit: int | None = None, cursor: str | None = None, **filters: Unpack[PaymentFilters]
    ) -> Page[Payment]:
        """One page of the payments that fit, newest first: 50, or `limit` of at most 200."""
        query = query_of({**filters, "limit": limit, "cursor": cursor})
        return await self._get(f"{client_path(client_id)}/payments", Page[Payment], query)

    async def payments(self, client_id: Id, **filters: Unpack[PaymentFilters]) -> AsyncIterator[Payment]:
        """All payments that fit, newest first, read page by page."""
        cursor: str | None = None
        while True:
            page = await self.payments_page(client_id, limit=200, cursor=cursor, **filters)
            for payment in page.data:
                yield payment
            if (cursor := page.next_cursor) is None:
                return

    async def payments_csv(self, client_id: Id, **filters: Unpack[PaymentFilters]) -> AsyncIterator[bytes]:
        """All payments that fit as a CSV file in UTF-8, piece by piece as it comes. NoAnswer in the middle: what came
        is not the whole. Use `contextlib.aclosing` if you may stop before the end."""
        path = f"{client_path(client_id)}/payments.csv"
        async for chunk in self._wire.stream(Call(method="GET", path=path, query=query_of(filters))):
            yield chunk

    async def summary(self, client_id: Id, *, since: datetime | None = None, until: datetime | None = None) -> Summary:
        """Sums by gateway, currency and status of the payments made from `since` on and before `until`; of the last 31
        days unless given."""
        path = f"{client_path(client_id)}/payments/summary"
        told = await self._get(path, _Summary, query_of({"from": since, "to": until}))
        return Summary(since=told.since, until=told.until, data=told.data)

    # --- refunds, and what a person decides

    async def refund(
        self,
        client_id: Id,
        payment_id: Id,
        *,
        reason: str,
        amount_cents: int | None = None,
        manual: bool = False,
        evidence: str | None = None,
        actor: str | None = None,
        idempotency_key: str | None = None,
    ) -> RefundMade:
        """Give money back: `amount_cents`, or all that is left. With `manual` and `evidence` it was given back by hand
        already, which is the only way for Paynow and InnBucks."""
        wish = {"reason": reason, "amount_cents": amount_cents, "manual": manual or None, "evidence": evidence}
        path = f"{payment_path(client_id, payment_id)}/refunds"
        return await self._post(path, RefundMade, given(wish), actor=actor, key=idempotency_key)

    async def refunds(self, client_id: Id, payment_id: Id) -> list[Refund]:
        """All refunds of the payment, those made in the gateway's dashboard too."""
        return (await self._get(f"{payment_path(client_id, payment_id)}/refunds", Page[Refund])).data

    async def settle_refund(
        self,
        client_id: Id,
        payment_id: Id,
        refund_id: Id,
        *,
        resolution: Literal["succeeded", "failed"],
        note: str,
        actor: str | None = None,
        idempotency_key: str | None = None,
    ) -> RefundMade:
        """Say what became of a refund of which no gateway tells, after a look into the gateway's own books."""
        path = f"{payment_path(client_id, payment_id)}/refunds/{id_of(refund_id)}/resolve"
        decided = {"resolution": resolution, "note": note}
        return await self._post(path, RefundMade, decided, actor=actor, key=idempotency_key)

    async def reviews(self, client_id: Id, payment_id: Id) -> list[Review]:
        """Why a person must look at the payment, and what came of it."""
        return (await self._get(f"{payment_path(client_id, payment_id)}/reviews", Page[Review])).data

    async def resolve_review(
        self,
        client_id: Id,
        payment_id: Id,
        *,
        resolution: Literal["paid", "failed", "refunded"],
        note: str,
        actor: str | None = None,
        idempotency_key: str | None = None,
    ) -> Payment:
        """Lead a payment out of `review`; `note` says how you know."""
        path = f"{payment_path(client_id, payment_id)}/resolve"
        decided = {"resolution": resolution, "note": note}
        return await self._post(path, Payment, decided, actor=actor, key=idempotency_key)

    # --- a tenant's log, and its end

    async def audit_logs(self, client_id: Id) -> AsyncIterator[AuditEntry]:
        """Who did what, newest first, read page by page."""
        cursor: str | None = None
        while True:
            page = await self.audit_logs_page(client_id, limit=200, cursor=cursor)
            for entry in page.data:
                yield entry
            if (cursor := page.next_cursor) is None:
                return

    async def audit_logs_page(
        self, client_id: Id, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[AuditEntry]:
        """One page of it: 50 rows, or `limit` of at most 200."""
        query = query_of({"limit": limit, "cursor": cursor})
        return await self._get(f"{client_path(client_id)}/audit-logs", Page[AuditEntry], query)

    async def verify_audit_logs(self, client_id: Id) -> ChainVerdict:
        """Whether no row was changed or removed since it was written."""
        return await self._get(f"{client_path(client_id)}/audit-logs/verify", ChainVerdict)

    async def delete_tenant(self, client_id: Id, *, actor: str | None = None, give_up_late_money: bool = False) -> None:
        """Remove the tenant's settings and payments for good. WrongState while money is on its way: `in_the_way` says
        what; NotFound once it is done, also when an answer got lost on the first try."""
        query = query_of({"give_up_late_money": give_up_late_money or None})
        call = Call(method="DELETE", path=client_path(client_id), query=query, actor=actor)
        await self._wire.fetch(call, bytes)

    # --- events

    async def events_page(
        self, *, after: str | None = None, limit: int | None = None, **filters: Unpack[EventFilters]
    ) -> Page[Event]:
        """The events after the cursor, over all tenants, at most 100, or `limit` of at most 500. `next_cursor` is where
        to go on, now or later, with the same filters; an empty page means that there is nothing new."""
        query = query_of({**filters, "after": after, "limit": limit})
        return await self._wire.fetch(Call(method="GET", path="/v1/events", query=query), _read_events)

    async def event_pages(
        self, *, after: str | None = None, **filters: Unpack[EventFilters]
    ) -> AsyncIterator[Page[Event]]:
        """Page after page until there is nothing new. Keep `next_cursor` in the transaction that handles the page: who
        goes on from it with the same filters misses no event, however many are written meanwhile. The last page may
        hold none, and only a cursor beyond those that the filters leave out."""
        while True:
            page = await self.events_page(after=after, limit=500, **filters)
            if page.data or page.next_cursor != (after or "0"):
                yield page
            if not page.data:
                return
            after = page.next_cursor

    async def events(self, *, after: str | None = None, **filters: Unpack[EventFilters]) -> AsyncIterator[Event]:
        """The same, event by event: to look at, such as `state="failed"`."""
        async for page in self.event_pages(after=after, **filters):
            for event in page.data:
                yield event

    async def redeliver_event(self, event_id: Id, *, idempotency_key: str | None = None) -> Event:
        """Send one event once more, whatever became of it before."""
        path = f"/v1/events/{id_of(event_id)}/redeliver"
        return await self._wire.fetch(Call(method="POST", path=path, key=key_of(idempotency_key)), pulled)

    async def redeliver_events(
        self, since: datetime, until: datetime, *, idempotency_key: str | None = None, **filters: Unpack[EventFilters]
    ) -> int:
        """Send all events of this time once more, oldest first; how many."""
        query = query_of({**filters, "from": since, "to": until})
        return (await self._post("/v1/events/redeliver", _Redelivered, key=idempotency_key, query=query)).redelivered

    # --- how it is said

    async def _get(self, path: str, kind: type[T], query: Mapping[str, str] | None = None) -> T:
        return await self._wire.fetch(Call(method="GET", path=path, query=query or {}), _reader(kind))

    async def _post(
        self,
        path: str,
        kind: type[T],
        body: Mapping[str, object] | None = None,
        *,
        actor: str | None = None,
        key: str | None = None,
        query: Mapping[str, str] | None = None,
    ) -> T:
        data = None if body is None else json_of(body)
        call = Call(method="POST", path=path, query=query or {}, body=data, actor=actor, key=key_of(key))
        return await self._wire.fetch(call, _reader(kind))


class _Summary(msgspec.Struct, rename={"since": "from", "until": "to"}):
    since: datetime
    until: datetime
    data: list[Total]


def _reader(kind: type[T]) -> Callable[[bytes], T]:
    return partial(msgspec.json.decode, type=kind)


def _read_events(answer: bytes) -> Page[Event]:
    found = msgspec.json.decode(answer, type=Page[msgspec.Raw])
    return Page([pulled(raw) for raw in found.data], found.next_cursor)


class _Redelivered(msgspec.Struct):
    redelivered: int
