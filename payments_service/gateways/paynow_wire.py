"""Paynow's messages: how they are hashed and read, and what its free-text errors mean.

Sources: Paynow's published developer pages, its official SDKs and their test vectors.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import parse_qsl

from payments_service.errors import Because, Refused, Untrusted

Fields = Sequence[tuple[str, str]]

# InnBucks' codes end at a moment of Zimbabwe's clock: two hours ahead of UTC, without summer time.
_HARARE = timezone(timedelta(hours=2))
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MOMENT = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d{1,2}):(\d{2})(?::\d{2})?", re.ASCII)

# What a free-text refusal means to the person who set Paynow up: a part of Paynow's text, plain words, and what the
# customer may make of it. The first that fits counts.
ADVICE: tuple[tuple[str, str, Because], ...] = (
    (
        "invalid hash",
        "Paynow does not accept the integration key. It is mistyped, belongs to another integration ID, or was "
        "replaced at Paynow: copy ID and key once more from Paynow's dashboard.",
        Because.OTHER,
    ),
    (
        "invalid id",
        "Paynow does not know this integration ID: compare it with Paynow's dashboard.",
        Because.OTHER,
    ),
    (
        "remote innbucks",
        "InnBucks cannot be tried out while this Paynow integration is in test mode: ask Paynow to set it live.",
        Because.METHOD,
    ),
    (
        "test mode",
        "This Paynow integration is still in test mode: on its page it only takes payments of the merchant's own "
        "Paynow login (leave contact_email out or use that login's e-mail), by phone only those of the numbers that "
        "Paynow publishes for tests. Or ask Paynow to set the integration live.",
        Because.OTHER,
    ),
    (
        "authemail",
        "Paynow refuses the payer's e-mail address. An integration in test mode accepts only the merchant's own "
        "login e-mail: leave contact_email out and use that login as paynow_auth_email, or ask Paynow to set the "
        "integration live.",
        Because.OTHER,
    ),
    ("insufficient balance", "There is not enough money in the customer's wallet.", Because.FUNDS),
    (
        "no active",
        "This way to pay is not switched on for the Paynow integration: switch it on in Paynow's dashboard, or leave "
        "it out of paynow_express_methods.",
        Because.METHOD,
    ),
    ("phone", "Paynow does not accept this phone number for this way to pay.", Because.PHONE),
    ("invalid amount", "Paynow refuses this amount.", Because.OTHER),
    (
        "currently inactive",
        "This Paynow integration is inactive: activate it in Paynow's dashboard.",
        Because.OTHER,
    ),
    (
        "not a site integration",
        "This Paynow integration ID is not of the kind '3rd Party Shopping Cart or Site'.",
        Because.OTHER,
    ),
    (
        "valid return url",
        "Paynow refuses the return address: PUBLIC_URL must be reachable from the internet.",
        Because.OTHER,
    ),
)


def digest(fields: Iterable[tuple[str, str]], integration_key: str) -> str:
    """Paynow's hash of a message: upper-case hex of SHA-512 over all values but `hash`, in the order given,
    followed by the lower-case key."""
    text = "".join(value for name, value in fields if name.lower() != "hash") + integration_key.lower()
    return hashlib.sha512(text.encode("utf-8", "surrogatepass")).hexdigest().upper()


def hash_is_valid(fields: Fields, integration_key: str) -> bool:
    """Whether the message carries its own hash, over the values as they came or trimmed (Paynow trims)."""
    received = [value for name, value in fields if name.lower() == "hash"]
    if len(received) != 1 or not received[0].isascii():
        return False
    claimed = received[0].strip().upper()
    exact = digest(fields, integration_key)
    trimmed = digest([(name, value.strip()) for name, value in fields], integration_key)
    # Both are always computed and compared, each in constant time.
    return hmac.compare_digest(claimed, exact) | hmac.compare_digest(claimed, trimmed)


def parse_message(body: bytes) -> Fields:
    """The fields of a form-encoded message in the order they came.

    Raises Untrusted when it is not UTF-8, not a form, holds a NUL, or names a field twice: two readers could take
    different values of it.
    """
    try:
        fields = parse_qsl(
            body.decode("utf-8").strip(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=64,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise Untrusted("the message is not a form in UTF-8") from error
    names = [name.lower() for name, _ in fields]
    if len(set(names)) != len(names):
        raise Untrusted("the message names a field twice")
    if any("\0" in text for field in fields for text in field):
        raise Untrusted("the message holds a NUL, which no database keeps")
    return fields


def refusal(error: str) -> Refused:
    """Paynow's free-text error in words for the person who set it up, with Paynow's own words after them."""
    text = " ".join(error.split())[:200] or "no reason given"
    lowered = text.lower()
    for part, words, because in ADVICE:
        if part in lowered:
            return Refused(f"{words} (Paynow says: {text})", because)
    return Refused(f"Paynow says: {text}")


def parse_moment(text: str) -> datetime | None:
    """When an InnBucks code ends, of `28-Nov-2026 14:05` (the zone is not stated: Harare's); None for anything else.

    English month names whatever the machine's language, which is why this is not `strptime`.
    """
    found = _MOMENT.fullmatch(text.strip())
    if found is None or found[2].lower() not in _MONTHS:
        return None
    month = _MONTHS.index(found[2].lower()) + 1
    try:
        local = datetime(int(found[3]), month, int(found[1]), int(found[4]), int(found[5]), tzinfo=_HARARE)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter: two hours before the year 1
        return None
