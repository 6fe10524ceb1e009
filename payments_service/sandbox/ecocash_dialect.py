"""What the three dialects of the simulated EcoCash have in common: how a body is read, and what can be switched."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, Protocol

import msgspec

from payments_service.sandbox.answers import Answer
from payments_service.sandbox.ecocash_charges import (
    EIP,
    EIP_PORTAL,
    OPEN_API,
    USD,
    ZWG,
    Merchant,
    Order,
    Refused,
    Shown,
)

JSON = {"Content-Type": "application/json"}
MOST = Decimal("999999999.99")

_MSISDN = re.compile(r"2637[0-9]{8}", re.ASCII)
_encoder = msgspec.json.Encoder(decimal_format="number")


class Switches:
    """What the protocol page leaves open, so that both ways can be tried.

    `open_api_answer` to a charge: `empty`, `json` or `text`. `open_api_expired`, `open_api_declined`: words that are
    unpublished. `spellings`: of each currency, in requests. `numeric_currency`: answers say 840 and 924.
    `refund_type`: tranType of a refund by eip. `portal_status`, `portal_reference`: the fields' names. `lingers`: after
    the PIN, two look-ups of eip still say `Processing Charge` and `CHARGED`.
    """

    open_api_answer = "empty"
    open_api_expired = "EXPIRED"
    open_api_declined = "REJECTED"
    numeric_currency = False
    refund_type = "REF"
    portal_status = "status"
    portal_reference = "transactionId"
    lingers = False

    def __init__(self) -> None:
        self.spellings = {
            OPEN_API: {"USD": USD, "ZiG": ZWG},
            EIP: {"USD": USD, "ZWG": ZWG},
            EIP_PORTAL: {"USD": USD, "ZWG": ZWG},
        }


@dataclass(frozen=True, slots=True)
class Sent:
    """A request: what its path names, its headers by lower-case name, its body."""

    path: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Dialect(Protocol):
    """One way to speak to EcoCash. What it reads raises Refused."""

    name: str

    def who(self, sent: Sent, merchant: Callable[[str], Merchant | None]) -> Merchant:
        """Who asks, by the secrets of the request; `merchant` finds one by its login."""
        ...

    def read_charge(self, merchant: Merchant, sent: Sent) -> Order: ...

    def read_lookup(self, merchant: Merchant, sent: Sent) -> Order: ...

    def read_refund(self, merchant: Merchant, sent: Sent) -> Order: ...

    def tell_charge(self, shown: Shown) -> Answer: ...

    def tell_lookup(self, shown: Shown) -> Answer: ...

    def tell_refund(self, shown: Shown) -> Answer: ...

    def tell_unknown(self) -> Answer:
        """Nothing has the correlator that is looked up."""
        ...

    def tell_nulls(self) -> Answer:
        """The shape of a look-up's answer without any content."""
        ...

    def tell_refusal(self, refused: Refused) -> Answer: ...

    def callback(self, shown: Shown) -> bytes: ...


class Body:
    """A JSON object as it was sent, its numbers exact. What is missing or wrong raises Refused."""

    def __init__(self, content: object) -> None:
        if not isinstance(content, dict):
            raise Refused("E001", "The request body is not a JSON object")
        self._content: dict[str, Any] = content

    @classmethod
    def of(cls, raw: bytes) -> Body:
        try:
            return cls(json.loads(raw, parse_float=Decimal, parse_constant=_no_number))
        except ValueError:
            raise Refused("E001", "The request body is not JSON") from None

    def text(self, name: str, *, optional: bool = False) -> str:
        value = self._content.get(name)
        if value is None and optional:
            return ""
        if not isinstance(value, str) or not (value.strip() or optional):
            raise Refused("E001", f"{name} is required")
        return value

    def part(self, name: str) -> Body:
        return Body(self._content.get(name))

    def must_be(self, name: str, value: str) -> None:
        if self.text(name) != value:
            raise Refused("E001", f"{name} must be {value}")

    def matching(self, name: str, pattern: re.Pattern[str]) -> str:
        value = self.text(name)
        if not pattern.fullmatch(value):
            raise Refused("E001", f"{name} is invalid")
        return value

    def msisdn(self, name: str) -> str:
        value = self.text(name)
        if not _MSISDN.fullmatch(value):
            raise Refused("E002", f"{name} is not a valid EcoCash number")
        return value

    def amount(self, name: str) -> Decimal:
        """A JSON number in major units, above 0, of whole cents."""
        value = self._content.get(name)
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise Refused("E004", f"{name} must be a number")
        amount = Decimal(value)
        if not 0 < amount <= MOST or amount != amount.quantize(Decimal("0.01")):
            raise Refused("E004", f"{name} is invalid")
        return amount


def _no_number(_text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no JSON")


def same_secret(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def written(content: object) -> bytes:
    return _encoder.encode(content)


def told(content: object, status: int = 200) -> Answer:
    """The content as JSON."""
    return Answer(status, written(content), JSON)
