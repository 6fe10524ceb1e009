"""The vault: seals a tenant's gateway credentials for storage and opens them again.

A sealed text is `v1.<key id>.<base64url of nonce + ciphertext + tag>`, AES-256-GCM under a key derived from the
secret by HKDF-SHA256. What is authenticated with it (the AAD) names the version, the key, the table, the tenant and
the column, so that a sealed text copied to another tenant's row or to another column does not open.

Rows of the old backend, plain `base64(nonce + ciphertext + tag)` under SHA-256(secret) without AAD, stay readable.
They name no tenant, so they can be moved unnoticed until `rewrap` has brought them into the present form.

    VaultError
    ├── CannotSeal   the text given is not valid Unicode
    └── CannotOpen   the stored text does not open; `reason` says why
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VERSION = "v1"
TABLE = "payment_settings"

# Bytes. 96 bits is the one nonce size that GCM uses as it is; any other is hashed first (NIST SP 800-38D, 7.1).
NONCE_SIZE = 12
TAG_SIZE = 16
KEY_SIZE = 32

# One purpose each: the key id, which is stored in the open, tells nothing about the key (RFC 5869, section 3.2).
_KEY_INFO = b"conva-payments/vault/v1/aes-256-gcm"
_KEY_ID_INFO = b"conva-payments/vault/v1/key-id"
_KEY_ID_SIZE = 6

_SEALED = re.compile(rf"{VERSION}\.([0-9a-f]{{{2 * _KEY_ID_SIZE}}})\.([A-Za-z0-9_-]+)")


class VaultError(Exception):
    """The root. Messages hold neither secrets nor anything of a sealed text but its key id."""


class CannotSeal(VaultError):
    """The plaintext is not valid Unicode (a lone surrogate)."""


class Reason(StrEnum):
    """Why a stored text does not open."""

    UNKNOWN_KEY = "unknown_key"  # sealed under a secret that is not configured
    DAMAGED_OR_MOVED = "damaged_or_moved"  # changed, or copied from another tenant or column
    MALFORMED = "malformed"  # neither the present form nor the old one


class CannotOpen(VaultError):
    """A stored text does not open: `reason` for programs, the message for people."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"a stored credential cannot be opened: {detail}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Key:
    """What one secret becomes. The cipher objects are built once: building them costs more than a call."""

    id: str
    cipher: AESGCM = field(repr=False)
    old_cipher: AESGCM = field(repr=False)


class Vault:
    """Seals under the current secret; opens what any of the known secrets sealed.

    `current` and `previous` are the secrets as text; they are not kept. Raises ValueError for an empty secret and
    for one that is not valid Unicode.
    """

    __slots__ = ("_current", "_keys")

    def __init__(self, current: str, previous: Sequence[str] = ()) -> None:
        self._current = _derive(current)
        self._keys = {self._current.id: self._current}
        for secret in previous:
            key = _derive(secret)
            self._keys.setdefault(key.id, key)

    def __repr__(self) -> str:
        return f"Vault(current={self.current_key_id!r}, known={list(self.known_key_ids)!r})"

    @property
    def current_key_id(self) -> str:
        """The id, 12 hex characters, of the key that `seal` uses."""
        return self._current.id

    @property
    def known_key_ids(self) -> tuple[str, ...]:
        """The ids of all keys that `open` knows, the current one first."""
        return tuple(self._keys)

    def seal(self, plaintext: str, *, client_id: UUID, column: str) -> str:
        """The text to store for this tenant and column; another one at every call.

        Raises CannotSeal for a text with a lone surrogate.
        """
        data = _utf8(plaintext)
        if data is None:
            # Not the codec's own error: that one carries the whole text.
            raise CannotSeal("the text to seal is not valid Unicode")
        key = self._current
        blob = _encrypt(key.cipher, os.urandom(NONCE_SIZE), data, _aad(key.id, client_id, column))
        return f"{VERSION}.{key.id}.{_base64url(blob)}"

    def open(self, sealed: str, *, client_id: UUID, column: str) -> str:
        """The plaintext of a stored text, in the present or the old form. Raises CannotOpen."""
        if "." not in sealed:  # base64 has no dot
            return self._open_old(sealed)
        match = _SEALED.fullmatch(sealed)
        blob = _from_base64url(match[2]) if match else None
        if match is None or blob is None:
            raise CannotOpen(Reason.MALFORMED, "it is not in a form that this version of the service knows")
        key = self._keys.get(match[1])
        if key is None:
            raise CannotOpen(Reason.UNKNOWN_KEY, f"the secret of its key {match[1]} is not configured")
        data = _decrypt(key.cipher, blob, _aad(key.id, client_id, column))
        if data is None:
            detail = "it was damaged, or copied from another tenant or column"
            raise CannotOpen(Reason.DAMAGED_OR_MOVED, detail)
        return _text(data)

    def is_current(self, sealed: str) -> bool:
        """Whether the text is in the present form under the current key; says nothing of whether it opens."""
        return self.key_id_of(sealed) == self.current_key_id

    def rewrap(self, sealed: str, *, client_id: UUID, column: str) -> str | None:
        """The same plaintext sealed by the current key; None when it already is. Raises CannotOpen."""
        if self.is_current(sealed):
            return None
        plaintext = self.open(sealed, client_id=client_id, column=column)
        return self.seal(plaintext, client_id=client_id, column=column)

    def key_id_of(self, sealed: str) -> str | None:
        """The id of the key that sealed the text, known to us or not; None for the old form, which names none."""
        match = _SEALED.fullmatch(sealed)
        return match[1] if match else None

    def _open_old(self, sealed: str) -> str:
        """Open a row of the old backend. It names no key, so every known one is tried, the current one first."""
        blob = _from_base64(sealed.strip())
        if blob is None or len(blob) < NONCE_SIZE + TAG_SIZE:
            raise CannotOpen(Reason.MALFORMED, "it is neither in the present form nor in the old one")
        for key in self._keys.values():
            data = _decrypt(key.old_cipher, blob, None)
            if data is not None:
                return _text(data)
        detail = "it is in the old form and was damaged, or its secret is not configured"
        raise CannotOpen(Reason.DAMAGED_OR_MOVED, detail)


def _derive(secret: str) -> _Key:
    data = _utf8(secret)
    if not data:
        raise ValueError("an encryption secret is empty or not valid Unicode")
    return _Key(
        id=_hkdf(data, _KEY_ID_INFO, _KEY_ID_SIZE).hex(),
        cipher=_cipher(_hkdf(data, _KEY_INFO, KEY_SIZE)),
        old_cipher=_cipher(hashlib.sha256(data).digest()),
    )


def _hkdf(secret: bytes, info: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=info).derive(secret)


def _aad(key_id: str, client_id: UUID, column: str) -> bytes:
    # Unambiguous: every part before the last is of a fixed alphabet without the separator.
    return "|".join((VERSION, key_id, TABLE, client_id.hex, column)).encode()


def _cipher(key: bytes) -> AESGCM:
    """The cipher for a key of 256 bits; ValueError for any other size, which the library would take."""
    if len(key) != KEY_SIZE:
        raise ValueError("the key is not 256 bits long")
    return AESGCM(key)


def _encrypt(cipher: AESGCM, nonce: bytes, plaintext: bytes, aad: bytes | None) -> bytes:
    """nonce + ciphertext + tag. ValueError for a nonce that is not 96 bits long, which the library would take."""
    if len(nonce) != NONCE_SIZE:
        raise ValueError("the nonce is not 96 bits long")
    return nonce + cipher.encrypt(nonce, plaintext, aad)


def _decrypt(cipher: AESGCM, blob: bytes, aad: bytes | None) -> bytes | None:
    """The plaintext of nonce + ciphertext + tag; None when it does not prove itself."""
    if len(blob) < NONCE_SIZE + TAG_SIZE:
        return None
    try:
        return cipher.decrypt(blob[:NONCE_SIZE], blob[NONCE_SIZE:], aad)
    except InvalidTag:
        return None


# The codecs below answer None instead of raising: a Unicode error carries the whole text, also as the `__context__`
# of the error raised in its place, and a log that prints the chain would print a credential.


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    raise CannotOpen(Reason.MALFORMED, "what was sealed is not text")


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes | None:
    """Only the one spelling that `_base64url` gives: unused bits in the last character would be a second one."""
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
    return data if _base64url(data) == text else None


def _from_base64(text: str) -> bytes | None:
    try:
        data = base64.b64decode(text)
    except (binascii.Error, ValueError):
        return None
    return data if base64.b64encode(data).decode() == text else None
