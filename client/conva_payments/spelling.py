"""How ids, keys, filters and bodies are written in a request."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime

import msgspec

from conva_payments.requests import Id


def id_of(value: Id) -> uuid.UUID:
    """Only ids get into an address: whatever else a caller was given raises ValueError."""
    return value if isinstance(value, uuid.UUID) else uuid.UUID(value)


def client_path(client_id: Id) -> str:
    return f"/v1/clients/{id_of(client_id)}"


def payment_path(client_id: Id, payment_id: Id) -> str:
    return f"{client_path(client_id)}/payments/{id_of(payment_id)}"


def key_of(chosen: str | None) -> str:
    """The idempotency key of a call: the caller's, else a new one. Raises ValueError."""
    if chosen is None:
        return str(uuid.uuid4())
    if not 0 < len(chosen) <= 255 or not chosen.isascii() or not chosen.isprintable():
        raise ValueError("An idempotency key has 1 to 255 printable ASCII characters.")
    return chosen


def given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def query_of(filters: Mapping[str, object]) -> dict[str, str]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value).lower() if value is True else str(value)
        for name, value in given(filters).items()
    }


def json_of(body: Mapping[str, object]) -> bytes:
    return msgspec.json.encode(body)
