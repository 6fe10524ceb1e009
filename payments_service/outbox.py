"""The events that tell the backend. An event's row is written in the transaction of the change it tells of
(`records.write`), with the exact body that every try will send."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from payments_service.lifecycle import Status

LINK_CREATED = "payment.link_created"

# The event that tells of a payment's arrival in a status. Nothing arrives in `pending`: a link begins there.
EVENT_OF: dict[Status, str] = {status: f"payment.{status.value}" for status in Status if status is not Status.PENDING}

# What is told of a message that carries a pay link. No step of the payment: `sequence` stays what it was.
MESSAGE_SENT, MESSAGE_DELIVERED, MESSAGE_FAILED = "message.sent", "message.delivered", "message.failed"
EVENT_OF_MESSAGE = {
    "sent": MESSAGE_SENT,
    "delivered": MESSAGE_DELIVERED,
    # Who has read it has got it, also where nobody told that.
    "read": MESSAGE_DELIVERED,
    "failed": MESSAGE_FAILED,
}

KINDS = (LINK_CREATED, *EVENT_OF.values(), MESSAGE_SENT, MESSAGE_DELIVERED, MESSAGE_FAILED)


def event_body(
    kind: str,
    at: datetime,
    payment: msgspec.Struct,
    previous: Status | None,
    *,
    message: Mapping[str, Any] | None = None,
) -> str:
    """`{"type", "timestamp", "data": {payment…, "previous_status"}}` as the text that is stored, signed and sent; of a
    message with `message` in `data`."""
    data = msgspec.to_builtins(payment)
    data["previous_status"] = previous
    if message is not None:
        data["message"] = msgspec.to_builtins(message)
    return msgspec.json.encode({"type": kind, "timestamp": at, "data": data}).decode()
