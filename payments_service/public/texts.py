"""Every word that the pay page says. Another language is another `Language` here.

In braces: {payee}, {gateway}, {amount}, {refunded}, {expires}. What is filled in is escaped by the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What the page shows: the payment's status as a customer meets it, and how the last try went."""

    READY = "ready"
    STARTING = "starting"  # another request is asking the gateway, or its answer was lost and is being looked up
    WAITING = "waiting"  # back from the gateway, no proof of the money yet
    STILL_WAITING = "still_waiting"  # the same after the page has refreshed itself for long enough
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    REVIEW = "review"
    # A try that did not start.
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    NOT_SET_UP = "not_set_up"
    # No payment to show.
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"


class Tone(StrEnum):
    """The colour of a state; the words say the same without it."""

    CALM = "calm"
    BUSY = "busy"
    GOOD = "good"
    CARE = "care"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Words:
    """A state in one line, and what it means for the customer."""

    tone: Tone
    title: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Language:
    """One language's texts. `code` is the page's `lang`."""

    code: str
    states: Mapping[State, Words]
    labels: Mapping[str, str]
    months: tuple[str, ...]


ENGLISH = Language(
    code="en",
    states={
        State.READY: Words(Tone.CALM, "Not paid yet", "You can pay until {expires}."),
        State.STARTING: Words(
            Tone.BUSY,
            "One moment, please",
            "We are asking {gateway} about this payment. Please do not pay a second time. This page looks again by "
            "itself.",
        ),
        State.WAITING: Words(
            Tone.BUSY,
            "Waiting for confirmation",
            "If you have paid, {gateway} will confirm it to us soon. Please do not pay a second time. This page "
            "looks again by itself.",
        ),
        State.STILL_WAITING: Words(
            Tone.CARE,
            "Not confirmed yet",
            "{gateway} has not confirmed a payment so far. If you have paid, please do not pay again: we keep asking, "
            "also when this page is closed.",
        ),
        State.PAID: Words(Tone.GOOD, "Paid", "Thank you. {payee} has been told. This is your receipt."),
        State.FAILED: Words(
            Tone.BAD, "The payment did not go through", "{gateway} reported this. You can try again until {expires}."
        ),
        State.EXPIRED: Words(
            Tone.CARE, "This link has expired", "It can no longer be paid. Ask {payee} for a new link."
        ),
        State.CANCELLED: Words(
            Tone.CARE, "This payment was cancelled", "{payee} withdrew it. There is nothing for you to pay here."
        ),
        State.PARTIALLY_REFUNDED: Words(Tone.GOOD, "Paid, partly refunded", "{refunded} was given back to you."),
        State.REFUNDED: Words(Tone.CALM, "Refunded", "The money of this payment was given back to you."),
        State.DISPUTED: Words(
            Tone.CARE,
            "Payment in dispute",
            "This payment was contested. {gateway} holds the money until that is settled.",
        ),
        State.REVIEW: Words(
            Tone.CARE,
            "A person is checking this payment",
            "Something about it needs a closer look. Please do not pay again; {payee} knows about it.",
        ),
        State.REFUSED: Words(
            Tone.BAD,
            "The payment could not be started",
            "{gateway} did not accept it. You have not been charged. Try again later, or tell {payee}.",
        ),
        State.UNREACHABLE: Words(
            Tone.BAD,
            "{gateway} cannot be reached right now",
            "You have not been charged. Wait a minute and try again.",
        ),
        State.NOT_SET_UP: Words(
            Tone.BAD,
            "Payment is not possible here at the moment",
            "You have not been charged. Please tell {payee}: the way to pay has to be set up again.",
        ),
        State.NOT_FOUND: Words(
            Tone.CARE,
            "There is no payment at this address",
            "Check that the link is complete, or ask for a new one where you got it. You cannot pay anything here.",
        ),
        State.UNAVAILABLE: Words(
            Tone.CARE,
            "We cannot show this payment right now",
            "The fault is on our side and usually short. Wait a minute, then open the link again. If you have just "
            "paid, please do not pay again.",
        ),
    },
    labels={
        "pay_to": "Payment to",
        "paid_to": "Paid to",
        "nobody": "Payment request",
        "the_payee": "whoever sent you the link",
        "the_gateway": "the payment provider",
        "amount": "Amount",
        "reference": "Reference",
        "description": "For",
        "pay_with": "Pay with {gateway}",
        "pay_now": "Pay now",
        "try_with": "Try again with {gateway}",
        "try_now": "Try again",
        "go_back_to": "Not paid yet? Go on to {gateway}",
        "go_back": "Not paid yet? Go on to pay",
        "next_step": "You go on to the secure page of {gateway}. Check the name and the amount before you pay.",
        "already_paid": "I have already paid",
        "check_again": "Check again",
        "look_again": "Look again now",
        "paid_at": "Paid on",
        "paid_through": "Paid through",
        "gateway_reference": "{gateway} reference",
        "refunded": "Refunded",
        "payment_id": "Payment number",
        "clock": "{day} {month} {year}, {time} (Harare, UTC+2)",
        "footer": "Payment page by Conva. We never ask for a PIN or a password on this page.",
    },
    months=(
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ),
)
