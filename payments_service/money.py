"""Money as integer minor units with its currency. No float ever holds an amount."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

# 999,999,999.99: above any real sale here, below 2^53 so that every JSON reader keeps it exact.
MAX_MINOR = 99_999_999_999

_DECIMAL = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?", re.ASCII)


class Currency(StrEnum):
    """The currencies a link may ask for; both have two decimals. ISO 4217 calls ZIG `ZWG`."""

    USD = "USD"
    ZIG = "ZIG"


CURRENCY_ALIASES = {"ZWG": Currency.ZIG}


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units (cents), never negative, with its currency."""

    minor: int
    currency: Currency

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise TypeError("minor units are a whole number, and no float")
        if self.minor < 0:
            raise ValueError("an amount of money is never negative")

    def major(self) -> str:
        """The amount in major units with two decimals, as the gateways want it: `12.50`."""
        return f"{self.minor // 100}.{self.minor % 100:02d}"

    def __str__(self) -> str:
        return f"{self.currency} {self.major()}"

    def shown(self) -> str:
        """The amount for people, thousands grouped: `USD 1,250.00`."""
        return f"{self.currency} {self.minor // 100:,}.{self.minor % 100:02d}"


def parse_major(text: str, currency: Currency) -> Money:
    """Read a decimal amount in major units, such as `12.5`, exactly.

    Raises ValueError for anything but plain digits with an optional fraction, and for an amount
    that no whole number of minor units equals (`0.005`): such a text is never rounded.
    """
    cleaned = text.strip()
    if not _DECIMAL.fullmatch(cleaned):
        raise ValueError("not a plain decimal amount")
    scaled = Decimal(cleaned).scaleb(2)
    if scaled != scaled.to_integral_value():
        raise ValueError("the amount has a fraction of a minor unit")
    return Money(int(scaled), currency)
