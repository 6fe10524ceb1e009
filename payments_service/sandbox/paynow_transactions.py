"""A transaction at the simulated Paynow: what it is, where its status may lead, what a request for one must hold."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote_plus

from payments_service.money import MAX_MINOR, Currency, Money, parse_major
from payments_service.sandbox import faults, wire

# Which statuses of section 5 lead on to which. What is absent is final.
_OUTCOMES = ("Paid", "Awaiting Delivery", "Cancelled", "Failed")
MOVES: dict[str, tuple[str, ...]] = {
    "Created": _OUTCOMES,
    "Sent": _OUTCOMES,
    "Paid": ("Disputed", "Refunded"),
    "Awaiting Delivery": ("Delivered", "Disputed", "Refunded"),
    "Delivered": ("Paid", "Disputed", "Refunded"),
    "Disputed": ("Paid", "Refunded"),
}
OPEN = ("Created", "Sent")

# The express methods of section 3 that are simulated, with their names for people.
METHODS = {"ecocash": "EcoCash", "onemoney": "OneMoney", "innbucks": "InnBucks", "omari": "O'mari"}


class Refusal(Exception):
    """The request is answered `status=Error` with this text (sections 1 and 6)."""


@dataclass
class Integration:
    """A merchant's integration: its id and key belong to one currency (section 2), `methods` are its active ones."""

    id: str
    key: str = field(repr=False)
    currency: Currency
    test_mode: bool = False
    owner_email: str = "merchant@example.com"
    active: bool = True
    methods: set[str] = field(default_factory=lambda: set(METHODS))


@dataclass
class Transaction:
    """One transaction. The texts are as they were transmitted, which may be URL-encoded once more (section 8).

    `method` is one of METHODS, or empty for web. `phone` is as it was sent. Of the rest (section 3)
    InnBucks has `code` and `code_expires`, O'mari has `otp` and `otp_reference`; others have them empty.
    """

    number: int
    integration: Integration
    reference: str
    amount: Money
    returnurl: str
    resulturl: str
    additionalinfo: str = ""
    authemail: str = ""
    merchanttrace: str = ""
    status: str = "Created"
    guid: str = field(default_factory=lambda: str(uuid.uuid4()))
    history: list[str] = field(default_factory=lambda: ["Created"])
    method: str = ""
    phone: str = ""
    pin_failures: int = 0
    code: str = ""
    code_expires: datetime | None = None
    otp: str = ""
    otp_failures: int = 0
    otp_reference: str = ""
    created_at: float = field(default_factory=time.time)  # epoch seconds

    @property
    def shown_reference(self) -> str:
        """The reference as a person wrote it: `Order #100`, also when it came as `Order+%23100`."""
        return unquote_plus(self.reference)

    @property
    def shown_method(self) -> str:
        """The express method's name for people, empty for web."""
        return METHODS.get(self.method, "")

    @property
    def open(self) -> bool:
        """Whether the customer may still pay."""
        return self.status in OPEN

    @property
    def moves(self) -> tuple[str, ...]:
        return MOVES.get(self.status, ())

    def is_named(self, name: str) -> bool:
        return faults.names(name, self.reference) or faults.names(name, self.shown_reference)


def draft(number: int, integration: Integration, fields: dict[str, str]) -> Transaction:
    """A transaction made of a request's trimmed fields, or Refusal (section 2). Nobody knows of it yet."""
    amount = _amount(fields.get("amount", ""), integration.currency)
    _check_addresses(fields)
    if not fields.get("reference"):
        raise Refusal("Invalid reference field")
    return Transaction(
        number=number,
        integration=integration,
        reference=fields["reference"],
        amount=amount,
        returnurl=fields["returnurl"],
        resulturl=fields["resulturl"],
        additionalinfo=fields.get("additionalinfo", ""),
        authemail=unquote_plus(fields.get("authemail", "")),
        merchanttrace=fields.get("merchanttrace", ""),
    )


def _amount(text: str, currency: Currency) -> Money:
    try:
        amount = parse_major(text, currency)
    except ValueError:
        raise Refusal("Invalid amount field") from None
    if not 0 < amount.minor <= MAX_MINOR:
        raise Refusal("Invalid amount field")
    return amount


def _check_addresses(fields: dict[str, str]) -> None:
    for name, word in (("returnurl", "return"), ("resulturl", "result")):
        if not wire.is_web_address(fields.get(name, "")):
            raise Refusal(f"Enter valid {word} url")


def check_owner_email(integration: Integration, fields: dict[str, str]) -> None:
    """Section 6, web: in test mode an authemail must be the merchant's own, else Refusal."""
    email = unquote_plus(fields.get("authemail", "")).strip().lower()
    if integration.test_mode and email and email != integration.owner_email.lower():
        raise Refusal(
            "The ID specified is currently in test mode. "
            "Authemail must be the merchant's own login e-mail while testing, or be left out"
        )
