"""What EcoCash's three dialects have in common: what a call and an answer are, and what the words in answers mean.

Sources: EcoCash's developer portal [A], its published EIP specifications and what integrators measured [B], single
clients [C]; [?] is unpublished or contradictory. Answers are read field by field: one that is missing, or of another
type than it should be, is one that says nothing. What is not read can neither be logged nor kept: `merchantPin` is
echoed back.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import ClassVar, Protocol, TypeVar
from uuid import UUID

import msgspec

from payments_service.gateways.base import RefundOrder, StartRequest
from payments_service.lifecycle import Outcome
from payments_service.money import MAX_MINOR, Currency, Money

T = TypeVar("T", bound=msgspec.Struct)

ABSENT = msgspec.Raw(b"")

# Each dialect has a paid value of its own, which counts exactly as it is spelt. `Charged` is a constant of the request
# [B] that an answer may only echo.
_FAILED = frozenset({"FAILED", "REJECTED", "CANCELLED", "CANCELED", "EXPIRED"})
_PENDING = frozenset({"PROCESSING CHARGE", "CHARGED"})  # and whatever begins with PENDING: the set is open

# Sent alphabetic, answered in either way [B]; ISO 4217 has ZWG and 924, EcoCash's refund sample `ZiG` [?].
_CURRENCIES = {
    "USD": Currency.USD,
    "840": Currency.USD,
    "ZWG": Currency.ZIG,
    "ZIG": Currency.ZIG,
    "924": Currency.ZIG,
}

# So many digits as a Decimal holds exactly; large amounts come as 1.25E7 from Java.
_AMOUNT = re.compile(rb'"?([0-9]{1,12}(?:\.[0-9]{1,12})?(?:[eE][+-]?[0-9]{1,2})?)"?', re.ASCII)
_WHOLE = re.compile(rb"-?[0-9]{1,40}", re.ASCII)
_MSISDN = re.compile(r"\+(2637[0-9]{8})", re.ASCII)
_UNPLAIN = re.compile(r"[^A-Za-z0-9 .,:/()_-]+", re.ASCII)


def text_of(raw: msgspec.Raw) -> str | None:
    """A JSON string as it is, or the digits of a whole number; None for anything else and for blanks."""
    value = bytes(raw)
    if _WHOLE.fullmatch(value):
        return value.decode()
    try:
        text = msgspec.json.decode(value, type=str)
    except ValueError:  # msgspec's own errors and UnicodeDecodeError
        return None
    return text if text.strip() else None


def first_of(*raws: msgspec.Raw) -> str | None:
    """The first of them that says something."""
    return next((text for text in map(text_of, raws) if text is not None), None)


class _Amount(msgspec.Struct, frozen=True):
    amount: msgspec.Raw = ABSENT
    currency: msgspec.Raw = ABSENT


def money_of(amount: msgspec.Raw, currency: msgspec.Raw) -> Money | None:
    """A number in major units with its currency, or an object that holds both. None unless whole minor units of one of
    our currencies equal it: nothing is rounded, no float is made."""
    inner = fields_of(bytes(amount), _Amount) if bytes(amount)[:1] == b"{" else None
    if inner is not None:
        amount, currency = inner.amount, inner.currency
    found = _AMOUNT.fullmatch(bytes(amount))
    known = _CURRENCIES.get((text_of(currency) or "").strip().upper())
    if found is None or known is None:
        return None
    minor = Decimal(found[1].decode()).scaleb(2)
    return Money(int(minor), known) if minor <= MAX_MINOR and minor == minor.to_integral_value() else None


def number(amount: Money) -> msgspec.Raw:
    """The amount as a JSON number in major units, digit for digit: `12.50`."""
    return msgspec.Raw(amount.major().encode())


def fields_of(body: bytes, kind: type[T]) -> T | None:
    """The JSON object's fields; None where the body is none."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError):
        return None


def msisdn_of(phone: str | None) -> str | None:
    """`+263771234567` as EcoCash wants it: `263771234567`; None for what is no mobile number of Zimbabwe."""
    found = _MSISDN.fullmatch(phone or "")
    return found[1] if found else None


def plain(text: str, longest: int) -> str:
    """A text of ours that no firewall stumbles over: its block page would leave the outcome unknown."""
    spelt = text.replace("&", " and ").replace("'", "")
    ascii_only = unicodedata.normalize("NFKD", spelt).encode("ascii", "ignore").decode()
    return " ".join(_UNPLAIN.sub(" ", ascii_only).split())[:longest].strip()


def shown(text: str, secrets: Sequence[str], longest: int) -> str:
    """A text of EcoCash's, fit for people, logs and the database: printable, short, without the tenant's secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[removed]")
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())[:longest]


def outcome_of(word: str | None, paid: str) -> Outcome:
    """What a status word means where `paid` is the paid value. A word that we do not know is unknown, never failed."""
    if word == paid:
        return Outcome.PAID
    known = " ".join((word or "").split()).upper()
    if known in _FAILED:
        return Outcome.FAILED
    return Outcome.PENDING if known in _PENDING or known.startswith("PENDING") else Outcome.UNKNOWN


@dataclass(frozen=True, slots=True)
class Call:
    """One request. It never prints: the tenant's secrets and the customer's phone number are in it."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says of one transaction. `status` is the word as it came, `correlator` whose it is. `amount` is
    what was asked for, `charged` what was charged in all; None where that is missing or odd. `lasting` names it at
    EcoCash for ever, `reference` is that, or else the name that the gateway gives while there is no other. `known` is
    False for an envelope of nothing but nulls."""

    status: str | None
    correlator: str | None
    amount: Money | None
    charged: Money | None
    lasting: str | None
    reference: str | None
    known: bool


_NOTHING = frozenset({b"null", b'""'})


def answer_of(
    *,
    whose: msgspec.Raw,
    how: Sequence[msgspec.Raw],
    lasting: Sequence[msgspec.Raw],
    passing: Sequence[msgspec.Raw],
    amount: Money | None,
    charged: Money | None,
) -> Answer | None:
    """The answer, of the fields that may tell whose it is, how it stands, and its names; None where it has none."""
    present = [each for each in map(bytes, (whose, *how, *lasting, *passing)) if each]
    if not present:
        return None
    return Answer(
        status=first_of(*how),
        correlator=text_of(whose),
        amount=amount,
        charged=charged,
        lasting=first_of(*lasting),
        reference=first_of(*lasting, *passing),
        known=not bytes(whose) or any(each not in _NOTHING for each in present),
    )


class Dialect(Protocol):
    """One tenant's credentials in the words of one dialect."""

    paid: ClassVar[str]  # the paid value of a look-up
    refunded: ClassVar[str]  # that of a refund's own answer
    fields: ClassVar[str]  # the payment-settings that the gateway checks, for people
    accepts_silence: ClassVar[bool]  # a charge that is taken may be answered by no JSON

    @property
    def secrets(self) -> tuple[str, ...]: ...

    @property
    def mode(self) -> str: ...

    @property
    def account(self) -> str | None: ...

    @property
    def merchant(self) -> str:
        """Whose account it is, in which dialect: kept with each attempt."""
        ...

    def correlator(self, our_id: UUID) -> str:
        """How an attempt or a refund of ours is called there."""
        ...

    def charge(self, request: StartRequest, msisdn: str) -> Call: ...

    def look_up(self, correlator: str, msisdn: str) -> Call: ...

    def refund(self, order: RefundOrder, msisdn: str) -> Call:
        """Raises Refused where it can name no payment."""
        ...

    def read(self, body: bytes) -> Answer | None:
        """The answer to a charge or a look-up; None where it is no JSON object, or has nothing of such an answer."""
        ...

    def read_refund(self, body: bytes) -> Answer | None: ...

    def callback_path(self) -> str | None:
        """What follows the tenant's callback address in the one that is set at EcoCash; None where every charge names
        an address of its own."""
        ...
