"""Charges and refunds at the simulated EcoCash: who asks whom for how much, and the words for what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum

from payments_service.sandbox.local import HARARE

OPEN_API, EIP, EIP_PORTAL = "open_api", "eip", "eip_portal"

# ISO 4217 calls Zimbabwe's ZiG `ZWG`, 924. A merchant's currencies are USD and ZWG, however a message spells them.
USD, ZWG = "USD", "ZWG"
_MEANT = {"USD": USD, "840": USD, "ZWG": ZWG, "924": ZWG, "ZiG": ZWG, "ZIG": ZWG}
NUMERIC = {USD: "840", ZWG: "924"}


@dataclass(frozen=True, slots=True)
class Words:
    """How a dialect tells of a charge (sections 1 to 3). It begins with the first of `pending`."""

    pending: tuple[str, ...]
    paid: str
    failed: str


WORDS = {
    OPEN_API: Words(("PENDING_VALIDATION",), "SUCCESS", "FAILED"),
    EIP: Words(("PENDING SUBSCRIBER VALIDATION", "Processing Charge", "CHARGED"), "COMPLETED", "FAILED"),
    EIP_PORTAL: Words(("PENDING",), "SUCCESS", "FAILED"),
}


class Ending(StrEnum):
    """Why a charge is over."""

    PAID = "paid"
    DECLINED = "declined"
    TIMED_OUT = "timed out"
    NO_FUNDS = "not enough money"
    WRONG_PIN = "wrong PIN"
    LIMIT = "above a limit"
    FAILED = "failed"


@dataclass(slots=True, eq=False, kw_only=True)
class Merchant:
    """Who may charge, in one dialect: by `api_key` (open_api), or by `username`, `password`, `pin` and `number`.

    `currencies` are ISO 4217 codes. `callback_url` is what open_api's portal keeps; the others name one per charge.
    """

    dialect: str
    name: str
    code: str
    api_key: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    pin: str = field(default="", repr=False)
    number: str = ""
    currencies: frozenset[str] = frozenset((USD, ZWG))
    callback_url: str = ""
    active: bool = True

    @property
    def login(self) -> str:
        """What a request names the merchant by: unique in its dialect."""
        return self.api_key if self.dialect == OPEN_API else self.username


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a request asks for: a charge, a refund of `original` (a reference), or a look at either of them.

    `mode` is open_api's last path segment. A look has no amount.
    """

    correlator: str
    msisdn: str
    amount: Decimal = Decimal(0)
    currency: str = ""
    original: str = ""
    reference_code: str = ""
    remarks: str = ""
    notify_url: str = ""
    mode: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.correlator, self.reference_code, self.remarks)


@dataclass(slots=True, eq=False, kw_only=True)
class Record:
    """A charge or a refund. `currency` is spelled as it came; `at` is epoch seconds."""

    id: int
    merchant: Merchant
    correlator: str
    msisdn: str
    amount: Decimal
    currency: str
    status: str
    ecocash_reference: str
    at: float
    reference_code: str = ""
    remarks: str = ""
    mode: str = ""

    @property
    def dialect(self) -> str:
        return self.merchant.dialect

    @property
    def words(self) -> Words:
        return WORDS[self.dialect]

    @property
    def paid(self) -> bool:
        return self.status == self.words.paid

    @property
    def names(self) -> tuple[str, ...]:
        """What it may be called by: the first two as a whole, the others as words of a text."""
        return (self.correlator, self.ecocash_reference, self.reference_code, self.remarks)

    @property
    def shown_amount(self) -> str:
        """For people: `USD 1,250.00`."""
        return f"{'USD' if currency_meant(self.currency) == USD else 'ZIG'} {self.amount:,.2f}"

    def shown(self) -> Shown:
        """What an answer tells of it now."""
        reference = self.ecocash_reference if self.paid else ""
        return Shown(self, self.correlator, self.amount, self.currency, self.status, reference)


@dataclass(slots=True, eq=False, kw_only=True)
class Charge(Record):
    """A prompt on a phone. `lagging` are words that look-ups say before they come to tell the status."""

    notify_url: str = ""
    pin_failures: int = 0
    ending: Ending | None = None
    held: bool = False  # its status was put by hand: no prompt of it times out any more
    lagging: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    refunds: list[Refund] = field(default_factory=list)

    @property
    def prompted_at(self) -> float:
        return self.at

    @property
    def open(self) -> bool:
        return self.ending is None

    @property
    def prompting(self) -> bool:
        """Whether the phone asks for the PIN."""
        return self.open and self.status == self.words.pending[0]

    @property
    def refunded(self) -> Decimal:
        """What went back, or is on its way."""
        return sum((one.amount for one in self.refunds if one.status != one.words.failed), Decimal(0))


@dataclass(slots=True, eq=False, kw_only=True)
class Refund(Record):
    charge: Charge


@dataclass(frozen=True, slots=True)
class Shown:
    """What an answer tells of a record; faults change it before it is written. `reference` is EcoCash's, if told."""

    record: Record
    correlator: str
    amount: Decimal
    currency: str
    status: str
    reference: str

    @property
    def paid(self) -> bool:
        return self.status == self.record.words.paid


class Refused(Exception):
    """The answer is an error: one of section 3's codes, which the other dialects tell in ways of their own."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


def currency_meant(spelling: str) -> str:
    """The ISO 4217 code behind a spelling. Raises ValueError."""
    if spelling not in _MEANT:
        raise ValueError(f"there is no currency {spelling!r}; there are {', '.join(_MEANT)}")
    return _MEANT[spelling]


def is_called(name: str, correlator: str, *texts: str) -> bool:
    """Whether a name means this correlator, or stands in one of the texts: whole, or going on after it with a `-`.

    A correlator may be named with the hyphens of a UUID or without. The merchant's own reference stands in
    `referenceCode` or somewhere in the `reason`, perhaps with a suffix: `INV-1` means `Order INV-1-K7M2` too.
    """
    if plain(name) == plain(correlator):
        return True
    word = re.compile(rf"(?<![\w-]){re.escape(name)}(?!\w)")
    return bool(name) and any(word.search(text) for text in texts)


def plain(correlator: str) -> str:
    """The correlator without what two spellings of one UUID differ in."""
    return correlator.replace("-", "").lower()


def mp_reference(at: float, number: int) -> str:
    """EcoCash's own reference of a payment, such as `MP251117.0952.T0527795`: day and time of Harare, a number."""
    return f"MP{datetime.fromtimestamp(at, UTC).astimezone(HARARE):%y%m%d.%H%M}.T{number % 10_000_000:07d}"
