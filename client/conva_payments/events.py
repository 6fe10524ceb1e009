"""Events, as they are posted to the backend and as it pulls them: both are handled alike."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from conva_payments.answers import PaymentChange
from conva_payments.words import EventState, EventType


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something happened at `timestamp`. One that is no `PaymentEvent` is of a kind that this version does not know:
    answer 2xx and pass it by."""

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


class _Head(msgspec.Struct):
    """What every event has."""

    type: EventType
    timestamp: datetime


class _PulledHead(_Head):
    id: str
    replays: int = 0


def posted(body: bytes, webhook_id: str) -> Event:
    """The event of a body that was posted. Raises msgspec.DecodeError for one that is none."""
    head = msgspec.json.decode(body, type=_Head)
    if not _of_payment(head.type):
        return Event(type=head.type, timestamp=head.timestamp, webhook_id=webhook_id)
    return msgspec.convert({**msgspec.json.decode(body), "webhook_id": webhook_id}, PaymentEvent)


def pulled(raw: bytes | msgspec.Raw) -> Event:
    """The event of an entry of the list. Raises msgspec.DecodeError for one that is none."""
    head = msgspec.json.decode(raw, type=_PulledHead)
    webhook_id = f"{head.id}.{head.replays}" if head.replays else head.id
    if not _of_payment(head.type):
        return Event(type=head.type, timestamp=head.timestamp, webhook_id=webhook_id)
    told: dict[str, Any] = msgspec.json.decode(raw)
    return msgspec.convert({**told, "webhook_id": webhook_id}, PulledEvent)


def _of_payment(kind: EventType) -> bool:
    return kind.startswith("payment.")
