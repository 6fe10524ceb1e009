"""The events that tell the backend. An event's row is written in the transaction of the change it tells of
(`records.write`), with the exact body that every try will send."""

from __future__ import annotations

from datetime import datetime

import msgspec

from payments_service.lifecycle import Status

LINK_CREATED = "payment.link_created"

# The event that tells of a payment's arrival in a status. Nothing arrives in `pending`: a link begins there.
EVENT_OF: dict[Status, str] = {status: f"payment.{status.value}" for status in Status if status is not Status.PENDING}

KINDS = (LINK_CREATED, *EVENT_OF.values())


def event_body(kind: str, at: datetime, payment: msgspec.Struct, previous: Status | None) -> str:
    """`{"type", "timestamp", "data": {payment…, "previous_status"}}` as the text that is stored, signed and sent."""
    data = msgspec.to_builtins(payment)
    data["previous_status"] = previous
    return msgspec.json.encode({"type": kind, "timestamp": at, "data": data}).decode()
