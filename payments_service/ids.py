"""Identifiers: time-ordered for rows (index locality), unguessable for whatever is a capability."""

from __future__ import annotations

import re
import secrets
import time
import uuid
from datetime import datetime

# Readable in a gateway's dashboard and on a receipt: no vowels, no look-alikes.
_ALPHABET = "23456789BCDFGHJKMNPQRSTVWXZ"
_UNSAFE = re.compile(r"[^A-Za-z0-9._/-]+")


def new_id() -> uuid.UUID:
    """A version 7 UUID (RFC 9562): 48 bits of milliseconds, 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def first_id(at: datetime) -> uuid.UUID:
    """The lowest id that `new_id` could give at that time: for ranges of ids."""
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80)


def new_page_token() -> str:
    """The secret part of a pay link: 160 random bits, URL-safe, 27 characters."""
    return secrets.token_urlsafe(20)


def new_attempt_reference(reference: str) -> str:
    """A reference that no other attempt has, led by the tenant's own so that people recognise it.

    At most 49 characters of plain ASCII: gateways publish no limit, so we stay far below the usual ones.
    """
    readable = _UNSAFE.sub("-", reference).strip("-")[:40] or "payment"
    return f"{readable}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"
