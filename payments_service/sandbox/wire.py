"""Form-encoded messages the way Paynow's .NET server writes them, and who may be called back.

Written from the protocol page alone, apart from the service's own adapter: a mistake on either side shows.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import string
from collections.abc import Iterable
from urllib.parse import parse_qsl

from yarl import URL

# The fields of a message in the order in which they travel: the order is part of the hash (section 1).
Pairs = list[tuple[str, str]]

# HttpUtility.UrlEncode: a blank is `+`, escapes are lower-case, `* - _ . ! ( )` stay bare (section 0).
_BARE = set(string.ascii_letters + string.digits + "-_.!*()")
_ESCAPES = [chr(byte) if chr(byte) in _BARE else f"%{byte:02x}" for byte in range(256)]
_ESCAPES[ord(" ")] = "+"


def escape(text: str) -> str:
    """One value as it stands in a message: `Order #1` becomes `Order+%231`."""
    return "".join(_ESCAPES[byte] for byte in text.encode())


def encode(pairs: Iterable[tuple[str, str]]) -> bytes:
    """A whole message: `status=Ok&pollurl=http%3a%2f%2f...`."""
    return "&".join(f"{escape(key)}={escape(value)}" for key, value in pairs).encode("ascii")


def decode(body: bytes) -> Pairs:
    """The fields of a body in the order they came, empty ones too; what is not UTF-8 becomes U+FFFD."""
    return parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)


def digest(pairs: Iterable[tuple[str, str]], key: str) -> str:
    """Section 1: upper-case SHA-512 over the trimmed values of every field but `hash`, then the lower-case key."""
    values = "".join(value.strip() for name, value in pairs if name.lower() != "hash")
    return hashlib.sha512((values + key.lower()).encode()).hexdigest().upper()


def sign(pairs: Pairs, key: str) -> Pairs:
    """The message with its hash as the last field. `status=Error` carries none (section 1)."""
    if ("status", "Error") in pairs:
        return pairs
    return [*pairs, ("hash", digest(pairs, key))]


def is_signed(pairs: Pairs, key: str) -> bool:
    """Whether the message has the right hash, wherever in it the hash stands."""
    given = next((value.strip() for name, value in pairs if name.lower() == "hash"), "")
    return hmac.compare_digest(given.encode(), digest(pairs, key).encode())


def is_web_address(text: str) -> bool:
    """Whether this is an absolute http or https URL."""
    try:
        url = URL(text)
        return url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        return False


def is_loopback(url: URL) -> bool:
    """Whether the host is this machine: `localhost` or a loopback address. Any other name is not looked up."""
    host = url.host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
