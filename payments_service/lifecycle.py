"""The life of a payment: its statuses, the moves between them, and what a gateway's report makes of it.

Pure: no clock, no database, no network. `payments.absorb` is the only caller that writes what comes out.

    pending ──> paid ──> partially_refunded ──> refunded
       │  │      │ └──> disputed ──> paid | refunded
       │  └────> failed | expired | cancelled ──> paid (late: money that arrives is never lost)
       └───────> review  (from nearly everywhere: a person decides, nothing is guessed)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from payments_service.money import Money


class Status(StrEnum):
    PENDING = "pending"  # a link exists; no proof of money yet
    PAID = "paid"  # proved: the amount asked for arrived
    FAILED = "failed"  # the gateway said that no money will come from this attempt
    EXPIRED = "expired"  # the link's time is over
    CANCELLED = "cancelled"  # the tenant withdrew the link
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"  # the customer contests it; the gateway holds the funds
    REVIEW = "review"  # evidence that does not fit: a person must look


class Outcome(StrEnum):
    """What a gateway's report says of one attempt."""

    PENDING = "pending"
    PAID = "paid"
    FAILED = "failed"
    DISPUTED = "disputed"
    REFUNDED = "refunded"
    NOT_FOUND = "not_found"  # the gateway knows no such attempt; it may still be on its way
    NEVER_STARTED = "never_started"  # sure: the gateway never took the attempt, so no money can come from it
    UNKNOWN = "unknown"  # no answer, an unproved answer, or a status we do not know: conclude nothing


class ReviewReason(StrEnum):
    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    REFERENCE_MISMATCH = "reference_mismatch"
    SECOND_PAYMENT = "second_payment"  # two attempts of one payment were both paid
    REFERENCE_REUSED = "gateway_reference_reused"  # another payment already holds the gateway's reference


# Which status may follow which. Everything else is refused, in `move` and by the guarded UPDATE.
MOVES: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset(
        {
            Status.PAID,
            Status.FAILED,
            Status.EXPIRED,
            Status.CANCELLED,
            Status.REVIEW,
            # We may first hear of a payment when its money is already held or given back.
            Status.DISPUTED,
            Status.REFUNDED,
        }
    ),
    Status.FAILED: frozenset({Status.PAID, Status.DISPUTED, Status.REFUNDED, Status.REVIEW}),
    Status.EXPIRED: frozenset({Status.PAID, Status.DISPUTED, Status.REFUNDED, Status.REVIEW}),
    Status.CANCELLED: frozenset({Status.PAID, Status.DISPUTED, Status.REFUNDED, Status.REVIEW}),
    Status.PAID: frozenset({Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.DISPUTED, Status.REVIEW}),
    Status.PARTIALLY_REFUNDED: frozenset({Status.REFUNDED, Status.DISPUTED, Status.REVIEW}),
    Status.DISPUTED: frozenset({Status.PAID, Status.REFUNDED, Status.REVIEW}),
    # A second payment of the same link can still arrive after the first was given back.
    Status.REFUNDED: frozenset({Status.REVIEW}),
    # Only a person leads out of a review.
    Status.REVIEW: frozenset({Status.PAID, Status.FAILED, Status.REFUNDED}),
}

# The customer was told that it is over; money that comes after that is late.
OVER_UNPAID = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED})

# A refused or cancelled try is not the end of a link: while its time lasts, the customer may try again.
PAYABLE = frozenset({Status.PENDING, Status.FAILED})

_TARGET = {
    Outcome.PAID: Status.PAID,
    Outcome.DISPUTED: Status.DISPUTED,
    Outcome.REFUNDED: Status.REFUNDED,
}


@dataclass(frozen=True, slots=True)
class Report:
    """What a proved answer of a gateway says of one attempt.

    `said` is the gateway's own word. `amount` is None when the report names none or one that no whole number of
    minor units equals. `poll_url` is set when a look-up by trace brought it.
    """

    outcome: Outcome
    said: str
    amount: Money | None = None
    reference: str | None = None
    gateway_reference: str | None = None
    poll_url: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What our own rows say at the moment of the decision."""

    status: Status
    expected: Money
    reference: str  # the attempt's, which the gateway must echo
    live: bool  # this attempt is the payment's current one
    linked: bool = True  # the backend was given a link
    paid_elsewhere: bool = False  # another attempt of the same payment brought the money
    reference_reused: bool = False  # another payment holds the reported gateway reference
    reviewed: frozenset[ReviewReason] = frozenset()  # what a person was already asked about this attempt


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report changes: the new status (perhaps the same, with new evidence), and why a person must look."""

    status: Status
    late: bool = False
    review: ReviewReason | None = None


def allowed(current: Status, target: Status) -> bool:
    """Whether a payment may move from `current` to `target`."""
    return target in MOVES[current]


def next_status(now: Standing, report: Report) -> Verdict | None:
    """What the report makes of the payment; None when it changes nothing.

    A verdict with a review reason asks for evidence to be kept; its status is `review` unless the payment is
    there already.
    """
    if report.outcome in (Outcome.PENDING, Outcome.NOT_FOUND, Outcome.UNKNOWN):
        return None
    if report.outcome is Outcome.FAILED:
        over = now.status is Status.PENDING and now.live
        return Verdict(Status.FAILED) if over else None
    if report.outcome is Outcome.NEVER_STARTED:
        # A link that exists stays payable by another attempt; one that never came to be is over.
        over = now.status is Status.PENDING and now.live and not now.linked
        return Verdict(Status.FAILED) if over else None
    if reason := _mismatch(now, report):
        # What a person has been asked once is not asked again by every later look at the same attempt.
        return None if reason in now.reviewed else Verdict(Status.REVIEW, review=reason)
    target = _TARGET[report.outcome]
    if now.status is target or not allowed(now.status, target) or now.status is Status.REVIEW:
        return None
    return Verdict(target, late=now.status in OVER_UNPAID)


def _mismatch(now: Standing, report: Report) -> ReviewReason | None:
    """Why money that was reported cannot simply be taken as this payment's."""
    if report.reference is not None and report.reference != now.reference:
        return ReviewReason.REFERENCE_MISMATCH
    if report.amount is None or report.amount.minor != now.expected.minor:
        return ReviewReason.AMOUNT_MISMATCH
    if report.amount.currency is not now.expected.currency:
        return ReviewReason.CURRENCY_MISMATCH
    if now.reference_reused:
        return ReviewReason.REFERENCE_REUSED
    if now.paid_elsewhere:
        return ReviewReason.SECOND_PAYMENT
    return None
