"""Events, as they are posted to the backend and as it pulls them: both are handled alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from conva_payments.answers import MessageNews, PaymentChange
from conva_payments.words import EventState, EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened at `timestamp`. One that is neither a `PaymentEvent` nor a `MessageEvent` is of a kind that
    this version does not know: answer 2xx and pass it by."""

    type: EventType
    timestamp: datetime
    webhook_id: str

    @property
    def event_id(self) -> str:
        """The same for an event and its replays, whose `webhook_id` has a dot and a number behind it."""
        return self.webhook_id.partition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentEvent(Event):
    """A payment changed: `data` is the payment as this change left it."""

    data: PaymentChange


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageEvent(Event):
    """A message that carries a pay link was sent, was delivered, or failed. No step of the payment and no evidence of
    money: it has no `data` and so no sequence to apply, and leaves the marks alone. Of two about one message that
    differ, the later `timestamp` is the newer state."""

    client_id: UUID
    payment_id: UUID
    invoice_id: UUID | None
    message: MessageNews


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try to deliver an event. `http_status` None: no answer, `error` tells why; `answer`: its first words."""

    at: datetime
    milliseconds: int
    http_status: int | None
    error: str | None
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledEvent(PaymentEvent):
    """A payment's event that was asked for, and how its delivery stands."""

    id: UUID
    client_id: UUID
    payment_id: UUID
    sequence: int
    state: EventState
    tries: list[Try]
    replays: int
    next_try_at: datetime | None
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PulledMessageEvent(MessageEvent):
    """A message's event that was asked for, and how its delivery stands. `state` is the delivery's: the message's own
    is `message.state`."""

    id: UUID
    state: EventState
    tries: list[Try]
    replays: int
    next_try_at: datetime | None
    delivered_at: datetime | None


class _Head(msgspec.Struct):
    """What every event has."""

    type: EventType
    timestamp: datetime


class _PulledHead(_Head):
    id: str
    replays: int = 0


class _MessageData(msgspec.Struct):
    """What of a message's event is taken: whose, of which payment, and the message."""

    id: UUID
    client_id: UUID
    invoice_id: UUID | None
    message: MessageNews


class _MessageBody(msgspec.Struct):
    data: _MessageData


def posted(body: bytes, webhook_id: str) -> Event:
    """The event of a body that was posted. Raises msgspec.DecodeError for one that is none."""
    head = msgspec.json.decode(body, type=_Head)
    match _noun(head.type):
        case "payment":
            return msgspec.convert({**msgspec.json.decode(body), "webhook_id": webhook_id}, PaymentEvent)
        case "message":
            return msgspec.convert({**_told(head, body), "webhook_id": webhook_id}, MessageEvent)
        case _:
            return Event(type=head.type, timestamp=head.timestamp, webhook_id=webhook_id)


def pulled(raw: bytes | msgspec.Raw) -> Event:
    """The event of an entry of the list. Raises msgspec.DecodeError for one that is none."""
    head = msgspec.json.decode(raw, type=_PulledHead)
    webhook_id = f"{head.id}.{head.replays}" if head.replays else head.id
    entry: dict[str, Any] = {**msgspec.json.decode(raw), "webhook_id": webhook_id}
    match _noun(head.type):
        case "payment":
            return msgspec.convert(entry, PulledEvent)
        case "message":
            return msgspec.convert({**entry, **_told(head, raw)}, PulledMessageEvent)
        case _:
            return Event(type=head.type, timestamp=head.timestamp, webhook_id=webhook_id)


def _told(head: _Head, body: bytes | msgspec.Raw) -> dict[str, Any]:
    """A message's event without the payment: whoever has that by mistake would move an invoice by it."""
    data = msgspec.json.decode(body, type=_MessageBody).data
    named = {"client_id": data.client_id, "payment_id": data.id, "invoice_id": data.invoice_id}
    return {"type": head.type, "timestamp": head.timestamp, **named, "message": data.message}


def _noun(kind: EventType) -> str:
    """What it is about: `payment` of `payment.paid`."""
    return kind.partition(".")[0]
