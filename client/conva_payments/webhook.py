"""Events as they are posted: believed only with a signature after Standard Webhooks 1.0.

Signed is `webhook-id.webhook-timestamp.body` by HMAC-SHA256; `webhook-signature` holds one `v1,<base64>`, or several
with blanks between while a secret is being replaced. (https://github.com/standard-webhooks/standard-webhooks, spec 1.0)
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

import msgspec

from conva_payments.events import Event, posted

TOLERANCE_SECONDS = 300
_PREFIX = "whsec_"
# The specification's bounds of a secret, in bytes; ours has 24 or more.
_SHORTEST, _LONGEST = 24, 64


class NotGenuine(Exception):
    """This did not come from the service, or not just now: answer 401 and change nothing. The text says why."""


class Webhook:
    """Verifies what is posted to EVENTS_URL, with the service's `EVENTS_SECRET`: two while it is being replaced."""

    def __init__(self, *secrets: str, tolerance_seconds: float = TOLERANCE_SECONDS) -> None:
        if not secrets:
            raise ValueError("A secret is needed: without one nothing can be believed.")
        self._keys = tuple(_key(secret.strip()) for secret in secrets)
        self._tolerance = tolerance_seconds

    def __repr__(self) -> str:
        return f"Webhook({len(self._keys)} secrets)"

    def verify(self, headers: Mapping[str, str], body: bytes, *, now: float | None = None) -> Event:
        """The event of a request, from its headers and its body as it came, byte for byte: parsed and written anew it
        is not what was signed. `now` is a Unix time. Raises NotGenuine."""
        given = {name.lower(): value for name, value in headers.items()}
        try:
            webhook_id, timestamp = given["webhook-id"], given["webhook-timestamp"]
            signatures = given["webhook-signature"].split(" ")
        except KeyError as missing:
            raise NotGenuine(f"the header {missing} is missing") from None
        self._check_time(timestamp, time.time() if now is None else now)
        if not self._is_signed(_bytes(f"{webhook_id}.{timestamp}.") + body, signatures):
            raise NotGenuine("no signature fits")
        try:
            return posted(body, webhook_id)
        except msgspec.DecodeError as error:
            raise NotGenuine(f"it is signed, but is no event: {error}") from None

    def _check_time(self, timestamp: str, now: float) -> None:
        """A request that somebody kept must not be good for ever; sequences would not stop one that never arrived."""
        if not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 16):
            raise NotGenuine("webhook-timestamp is no Unix time")
        if abs(now - int(timestamp)) > self._tolerance:
            raise NotGenuine("webhook-timestamp is too far from now")

    def _is_signed(self, message: bytes, signatures: list[str]) -> bool:
        """Every signature is compared with every key's, each in constant time. Versions but `v1` are passed over."""
        expected = [b"v1," + base64.b64encode(hmac.digest(key, message, hashlib.sha256)) for key in self._keys]
        fits = [hmac.compare_digest(one, _bytes(given)) for given in signatures for one in expected]
        return any(fits)


def _bytes(header: str) -> bytes:
    """Servers make text of bytes that are none in different ways; a stranger's must not be an error of ours."""
    return header.encode(errors="surrogatepass")


def _key(secret: str) -> bytes:
    """The key in a `whsec_…` secret. The ValueError does not show it."""
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(_PREFIX) or not _SHORTEST <= len(key) <= _LONGEST:
        raise ValueError("A secret is whsec_ and the base64 of 24 to 64 bytes.")
    return key
