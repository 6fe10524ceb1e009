"""The life of a payment: its statuses, the moves between them, and what a gateway's report makes of it.

Pure: no clock, no database, no network. `payments.absorb` is the only caller that writes what comes out.

    pending ──> paid <──> partially_refunded <──> refunded   (back: a refund can fail after it had succeeded)
       │  │      │ └──> disputed ──> paid | partially_refunded | refunded
       │  └────> failed | expired | cancelled ──> paid (late: money that arrives is never lost)
       └───────> review  (from nearly everywhere: a person decides, nothing is guessed)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

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
    SETTLED = "settled"  # of money that came before: what was given back or is contested stands in `settlement`
    LAPSED = "lapsed"  # the gateway's page ended unpaid: no money can come from this attempt, the link stands
    NOT_FOUND = "not_found"  # the gateway knows no such attempt; it may still be on its way
    NEVER_STARTED = "never_started"  # sure: the gateway never took the attempt, so no money can come from it
    UNCLEAR = "unclear"  # the gateway's last word is none that we know, and nobody can pay any more: a person must look
    UNKNOWN = "unknown"  # no answer, an unproved answer, or a status we do not know: conclude nothing


class RefundState(StrEnum):
    """Of one refund. A report never leads back to an earlier one of these, in whatever order reports come."""

    REQUESTED = "requested"  # recorded by us; the gateway's answer not yet
    PENDING = "pending"  # the gateway took it; the money is on its way
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # refused, or given back to the merchant; may follow succeeded


class DisputeState(StrEnum):
    """Of one dispute, with the same rule. An appeal may turn a lost one into a won one."""

    OPEN = "open"
    LOST = "lost"
    WON = "won"


class ReviewReason(StrEnum):
    AMOUNT_MISMATCH = "amount_mismatch"
    CURRENCY_MISMATCH = "currency_mismatch"
    REFERENCE_MISMATCH = "reference_mismatch"
    SECOND_PAYMENT = "second_payment"  # two attempts of one payment were both paid
    REFERENCE_REUSED = "gateway_reference_reused"  # another payment already holds the gateway's reference
    UNKNOWN_STATUS = "unknown_status"  # the link's time is over, and the gateway says a word that we do not know


_LATE_MONEY = frozenset({Status.PAID, Status.DISPUTED, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.REVIEW})

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
            Status.PARTIALLY_REFUNDED,
            Status.REFUNDED,
        }
    ),
    Status.FAILED: _LATE_MONEY,
    Status.EXPIRED: _LATE_MONEY,
    Status.CANCELLED: _LATE_MONEY,
    Status.PAID: frozenset({Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.DISPUTED, Status.REVIEW}),
    # To itself: another part was given back.
    Status.PARTIALLY_REFUNDED: frozenset(
        {Status.PARTIALLY_REFUNDED, Status.PAID, Status.REFUNDED, Status.DISPUTED, Status.REVIEW}
    ),
    Status.DISPUTED: frozenset(
        {Status.DISPUTED, Status.PAID, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.REVIEW}
    ),
    # A second payment of the same link can still arrive after the first was given back, and a refund can fail late.
    Status.REFUNDED: frozenset({Status.PAID, Status.PARTIALLY_REFUNDED, Status.DISPUTED, Status.REVIEW}),
    # Only a person leads out of a review; or money, where all that was asked is whether it came. A part of it may have
    # gone back by then, or be contested.
    Status.REVIEW: frozenset({Status.PAID, Status.FAILED, Status.REFUNDED, Status.PARTIALLY_REFUNDED, Status.DISPUTED}),
}

# The customer was told that it is over; money that comes after that is late.
OVER_UNPAID = frozenset({Status.FAILED, Status.EXPIRED, Status.CANCELLED})

# A refused or cancelled try is not the end of a link: while its time lasts, the customer may try again.
PAYABLE = frozenset({Status.PENDING, Status.FAILED})

# A gateway's word that the money came, whatever became of it since.
_CAME = (Outcome.PAID, Outcome.DISPUTED, Outcome.REFUNDED)

# The money came: what follows is what became of it since.
RECEIVED = frozenset({Status.PAID, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.DISPUTED})

# Only a gateway that itemises refunds and disputes can take a word of its own back, or add to it: another's late
# "paid" is a repetition.
_BY_ITEMS = frozenset(
    {
        (Status.PARTIALLY_REFUNDED, Status.PAID),
        (Status.PARTIALLY_REFUNDED, Status.PARTIALLY_REFUNDED),
        (Status.DISPUTED, Status.DISPUTED),
        (Status.REFUNDED, Status.PAID),
        (Status.REFUNDED, Status.PARTIALLY_REFUNDED),
        (Status.REFUNDED, Status.DISPUTED),
    }
)


@dataclass(frozen=True, slots=True)
class RefundReport:
    """One refund as the gateway tells of it. `refund_id` is ours, if we asked for it."""

    gateway_reference: str
    amount: Money
    state: RefundState
    refund_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class DisputeReport:
    """One dispute as the gateway tells of it."""

    gateway_reference: str
    amount: Money
    state: DisputeState


@dataclass(frozen=True, slots=True)
class Settlement:
    """What became of money that came. `complete`: these are all refunds there are. `refunded_total` is the sum of all
    refunds so far in minor units, where a message names only that."""

    refunds: tuple[RefundReport, ...] = ()
    disputes: tuple[DisputeReport, ...] = ()
    complete: bool = False
    refunded_total: int | None = None

    def amounts(self) -> list[Money]:
        """Every amount it names."""
        return [*(refund.amount for refund in self.refunds), *(dispute.amount for dispute in self.disputes)]


@dataclass(frozen=True, slots=True)
class Report:
    """What a proved answer of a gateway says of one attempt.

    `said` is the gateway's own word. `amount` is None when the report names none or one that no whole number of
    minor units equals. `poll_url` and `page_url` are set when a look-up by trace brought them.
    `under_way`: the customer has paid, and somebody else, such as a bank, is sending the money.
    """

    outcome: Outcome
    said: str
    amount: Money | None = None
    reference: str | None = None
    gateway_reference: str | None = None
    poll_url: str | None = None
    page_url: str | None = None
    under_way: bool = False
    settlement: Settlement | None = None


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
    refunded: int = 0  # minor units, as the payment says so far
    returned: int = 0  # minor units of this attempt's money that its refunds and lost disputes took back
    contested: bool = False  # a dispute about this attempt's money is open
    unclear: bool = False  # a person was asked about nothing but a word that nobody knows
    counts: bool = True  # the payment's money is this attempt's
    given_back: bool = False  # a person has said that all of it was given back by hand


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report changes: the new status (perhaps the same, with new evidence), and why a person must look."""

    status: Status
    late: bool = False
    review: ReviewReason | None = None
    refunded: int | None = None  # minor units given back by now; None: as before


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
    if report.outcome is Outcome.UNCLEAR:
        asked = ReviewReason.UNKNOWN_STATUS in now.reviewed or now.status not in (Status.PENDING, Status.EXPIRED)
        return None if asked else Verdict(Status.REVIEW, review=ReviewReason.UNKNOWN_STATUS)
    if report.outcome is Outcome.FAILED:
        over = now.status is Status.PENDING and now.live
        return Verdict(Status.FAILED) if over else None
    if report.outcome in (Outcome.NEVER_STARTED, Outcome.LAPSED):
        # A link that exists stays payable by another attempt; one that never came to be is over.
        over = now.status is Status.PENDING and now.live and not now.linked
        return Verdict(Status.FAILED) if over else None
    if reason := _mismatch(now, report):
        if reason not in now.reviewed:
            return Verdict(Status.REVIEW, review=reason)
        # What a person has been asked once is not asked again by every later look at the same attempt. Once they have
        # said that the money counts, what becomes of it counts too.
        if not (now.status in RECEIVED and now.counts):
            return None
    return _of_money(now, report)


def _of_money(now: Standing, report: Report) -> Verdict | None:
    """Where money that came stands by now. Of money that is not known to have come, refunds alone say nothing."""
    if now.status is Status.REVIEW and not (now.unclear and report.outcome in _CAME):
        return None
    if report.outcome is Outcome.SETTLED and not (now.status in RECEIVED and now.counts):
        return None
    # What was given back by hand is in none of a gateway's lists.
    whole = now.expected.minor
    returned = whole if now.given_back else now.returned
    target, refunded = standing_of(whole, returned, report.outcome, contested=now.contested)
    if target is now.status and refunded == now.refunded:
        return None
    if not allowed(now.status, target):
        return None
    # Refunds on our own record add up, whoever looks.
    if (now.status, target) in _BY_ITEMS and report.settlement is None and refunded <= now.refunded:
        return None
    # A word is only asked about when the link's time is over.
    return Verdict(target, late=now.status in (*OVER_UNPAID, Status.REVIEW), refunded=refunded)


def standing_of(whole: int, returned: int, outcome: Outcome, *, contested: bool) -> tuple[Status, int]:
    """The status that money which came asks for, and the minor units given back. `whole` and `returned` in minor
    units: what came, and what its refunds and lost disputes took back."""
    returned = min(returned, whole)
    if outcome is Outcome.REFUNDED or returned == whole:
        return (Status.DISPUTED, whole) if contested else (Status.REFUNDED, whole)
    if outcome is Outcome.DISPUTED or contested:
        return Status.DISPUTED, returned
    return (Status.PARTIALLY_REFUNDED if returned else Status.PAID), returned


def _mismatch(now: Standing, report: Report) -> ReviewReason | None:
    """Why money that was reported cannot simply be taken as this payment's."""
    if report.settlement and any(
        amount.currency is not now.expected.currency for amount in report.settlement.amounts()
    ):
        return ReviewReason.CURRENCY_MISMATCH
    if report.outcome is Outcome.SETTLED:
        return None
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
