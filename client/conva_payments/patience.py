"""How often and how long a call is tried, and which failures are worth another try.

A try that failed may have been carried out: only because every POST carries an `Idempotency-Key`, the same on each try,
and everything else is the same when done twice, may it be repeated at all.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from conva_payments.problems import (
    GatewayUnreachable,
    NoAnswer,
    PaymentsError,
    StillRunning,
    TooManyRequests,
    Unavailable,
    UnexpectedAnswer,
)


@dataclass(frozen=True, slots=True)
class Patience:
    """`tries` in all, each of at most `try_seconds`; between them a random wait of up to `wait_seconds`, doubled each
    time, and at least what `Retry-After` asks for. After `deadline_seconds` the call has failed whatever is left."""

    tries: int = 4
    try_seconds: float = 25.0  # a gateway may need fifteen
    connect_seconds: float = 3.0
    wait_seconds: float = 0.5
    deadline_seconds: float = 60.0

    def wait(self, failure: PaymentsError, tried: int) -> float | None:
        """How many seconds to wait before the next try; None when there is none to be made."""
        if tried >= self.tries or not worth_another(failure):
            return None
        # Full jitter: whoever failed together does not come back together.
        return (failure.retry_after or 0.0) + random.uniform(0, self.wait_seconds * 2 ** (tried - 1))  # noqa: S311


def worth_another(failure: PaymentsError) -> bool:
    """Whether the same call may end otherwise in a moment, and can do no harm.

    `gateway_timeout` is never repeated: a look-up will tell what became of the link or refund. Nor is an unreachable
    gateway once that is on record: it has failed, and whether to make another is for the caller to decide.
    """
    if isinstance(failure, GatewayUnreachable):
        return failure.payment_id is None
    if isinstance(failure, UnexpectedAnswer):
        return failure.status in (429, 502, 503, 504)  # of a proxy
    return isinstance(failure, NoAnswer | StillRunning | TooManyRequests | Unavailable)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a `Retry-After` header asks for, as a number or as a date (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max((until - datetime.now(UTC)).total_seconds(), 0.0)
