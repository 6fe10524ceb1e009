"""A merchant and a code at the simulated InnBucks: what they are, and where a code's status may lead."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from payments_service.sandbox.faults import names
from payments_service.sandbox.local import HARARE

# The words of the page for a code's status.
NEW = "New"
PAID = ("Paid", "Claimed")
ENDED = ("Expired", "Timed Out", "TimedOut")


@dataclass(frozen=True, slots=True)
class Merchant:
    """A merchant: `api_key` is sent with every request, `account_id` stands in the address of its statement."""

    username: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)
    account_id: str
    name: str


@dataclass(slots=True, eq=False)
class Code:
    """One code, 6 to 9 digits in `code`, made for `amount` cents under the `reference` sent with generate.

    Times are Unix seconds by `clock`. A code is `New` until somebody acts (`put`, at `closed_at`) or its life ends.
    `paid_amount` is what the customer paid, in cents, if anything.
    """

    merchant: Merchant
    reference: str
    narration: str
    amount: int
    code: str
    made_at: float
    ends_at: float
    clock: Callable[[], float] = field(repr=False)
    put: str = ""
    closed_at: float | None = None
    paid_amount: int | None = None

    @property
    def status(self) -> str:
        return self.put or (NEW if self.clock() < self.ends_at else ENDED[0])

    @property
    def live(self) -> bool:
        """Whether the customer may still pay."""
        return self.status == NEW

    @property
    def final(self) -> bool:
        """Whether it is over, as far as a merchant can tell. A word that the page does not know says nothing."""
        return self.status in PAID + ENDED

    @property
    def told_amount(self) -> int:
        """Cents as the inquiry tells them: what was paid, else what was asked."""
        return self.amount if self.paid_amount is None else self.paid_amount

    @property
    def seconds_left(self) -> int:
        return max(0, int(self.ends_at - self.clock())) if self.live else 0

    @property
    def ended_at(self) -> float | None:
        """When it was paid, put to another status, or expired; None while it lives."""
        if self.live:
            return None
        return self.ends_at if self.closed_at is None else self.closed_at

    def is_named(self, name: str) -> bool:
        """Whether these are its digits, its reference, or the reference's leading part."""
        return name == self.code or names(name, self.reference)


def wire_time(moment: float, timespec: str = "seconds") -> str:
    """Unix seconds as the gateway writes them, `2022-07-05 12:11:23`; in Harare's time, as is to be expected [C]."""
    return datetime.fromtimestamp(moment, HARARE).replace(tzinfo=None).isoformat(" ", timespec)
