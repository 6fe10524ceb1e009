"""Every word that the pay page says. Another language is another `Language` here.

In braces: {payee}, {gateway} (as customers know the way to pay: EcoCash, Paynow), {account} (who reports: Paynow),
{amount}, {refunded}, {expires}, {phone}. What is filled in is escaped by the template.
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
    UNDER_WAY = "under_way"
    PROMPTED = "prompted"  # the request is on the customer's phone
    UNANSWERED = "unanswered"  # it was there for so long that it has probably gone
    CODE = "code"  # a code to type or scan in the wallet's app
    CODE_OVER = "code_over"  # its time is up, and the gateway has not said so yet
    CODE_LAPSED = "code_lapsed"  # the gateway has
    OTP = "otp"  # a one-time password has come by SMS
    OTP_OVER = "otp_over"  # too many wrong ones
    CHOOSING = "choosing"  # another way, while one is open
    ASKING = "asking"  # the same, and the gateway does not say what became of the one before
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
    NO_FUNDS = "no_funds"
    METHOD_CLOSED = "method_closed"
    TOO_MANY = "too_many"
    UNREACHABLE = "unreachable"
    INSTEAD = "instead"  # the wallet can be had through another gateway, which wants to know the number
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
        State.UNDER_WAY: Words(
            Tone.BUSY,
            "Your bank is sending the money",
            "{gateway} has taken your payment, and confirms it to us as soon as the money has come. This can take some "
            "days. There is nothing more for you to do; please do not pay again.",
        ),
        State.PROMPTED: Words(
            Tone.BUSY,
            "Look at your phone",
            "We have asked {gateway} for {amount} on {phone}. Confirm it there with your PIN. This page shows the "
            "receipt as soon as the money has come.",
        ),
        State.UNANSWERED: Words(
            Tone.CARE,
            "No answer from your phone yet",
            "The request to {phone} has probably run out. If you did confirm it, please wait: we keep asking "
            "{gateway}. If not, try again, or choose another way.",
        ),
        State.CODE: Words(
            Tone.BUSY,
            "Pay with this code",
            "Open {gateway}, choose to pay by code, and type or scan this one. This page shows the receipt as soon as "
            "the money has come.",
        ),
        State.CODE_OVER: Words(
            Tone.CARE,
            "This code has run out",
            "If you did pay with it, please wait: we keep asking {gateway}. If not, get a new one, or choose another "
            "way.",
        ),
        State.CODE_LAPSED: Words(
            Tone.CARE,
            "This code has run out",
            "{gateway} says that it was not paid. Get a new one, or choose another way to pay.",
        ),
        State.OTP: Words(
            Tone.BUSY,
            "Type the code from your SMS",
            "{gateway} has sent a one-time code to {phone}. With it you confirm {amount}.",
        ),
        State.OTP_OVER: Words(
            Tone.BAD,
            "Too many wrong codes",
            "{gateway} takes no more codes for this try. It has not been charged. Try again, or choose another way to "
            "pay.",
        ),
        State.ASKING: Words(
            Tone.CARE,
            "One moment, please",
            "{account} has not told us yet what became of your last try, so we have started no other. Wait a moment, "
            "then try again.",
        ),
        State.CHOOSING: Words(
            Tone.CARE,
            "Another way to pay",
            "The payment with {gateway} is still open. If you choose another way, decline that one or leave it alone: "
            "then nothing is paid twice.",
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
        State.NO_FUNDS: Words(
            Tone.BAD,
            "There is not enough money in the wallet",
            "{gateway} reported this. You have not been charged. Top it up, or choose another way to pay.",
        ),
        State.METHOD_CLOSED: Words(
            Tone.BAD,
            "{gateway} is not possible here at the moment",
            "You have not been charged. Please choose another way to pay.",
        ),
        State.TOO_MANY: Words(
            Tone.CARE,
            "Too many tries",
            "This payment was tried many times just now. Wait a few minutes, then open the link again.",
        ),
        State.UNREACHABLE: Words(
            Tone.BAD,
            "{gateway} cannot be reached right now",
            "You have not been charged. Wait a minute and try again.",
        ),
        State.INSTEAD: Words(
            Tone.CARE,
            "Your mobile number is needed",
            "It did not work with {gateway} directly, and you have not been charged. Type the number of your wallet "
            "below: then we ask in another way.",
        ),
        # Whether an earlier try was paid is not known here, so nothing is said of charges.
        State.NOT_SET_UP: Words(
            Tone.BAD,
            "Payment is not possible here at the moment",
            "Please tell {payee}: the way to pay has to be set up again. If you have paid already, please do not pay a "
            "second time.",
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
        "your_phone": "your phone",
        "way_unknown": "Please choose one of these ways to pay.",
        "amount": "Amount",
        "reference": "Reference",
        "description": "For",
        "pay_with": "Pay with {gateway}",
        "try_with": "Try again with {gateway}",
        "try_now": "Try again",
        "go_back_to": "Not paid yet? Go on to {gateway}",
        "choose": "How would you like to pay?",
        "other_way": "Choose another way to pay",
        "pay_amount": "Pay {amount}",
        # Of a method by its name, else by what the customer does.
        "hint_web": "Card, bank, Paynow account",
        "hint_card": "Visa, Mastercard and others",
        "hint_redirect": "On a page of its own",
        "hint_approve_on_phone": "Confirm on your phone",
        "hint_show_code": "Get a code to pay with",
        "hint_enter_otp": "Confirm by SMS code",
        "kind_wallet": "Mobile money",
        "kind_other": "Other ways",
        "phone": "Mobile number of the wallet",
        "phone_hint": "For example 077 123 4567",
        "phone_missing": "Please type the mobile number of the wallet.",
        "phone_wrong": "This is not a mobile number of Zimbabwe. Please check it.",
        "phone_refused": "{gateway} does not accept this number. Please check it.",
        "instructions": "{account} says:",
        "code": "Code",
        "qr": "The same code as a QR code",
        "code_until": "Valid until {time} (Harare time)",
        "code_left": "Valid for {left}",
        "dial": "No app? Dial {dial} and pay by code there.",
        "open_app": "Open {gateway}",
        "otp": "Code from the SMS",
        "otp_reference": "Reference in the SMS: {reference}",
        "otp_malformed": "Please type the digits of the SMS.",
        "otp_wrong": "This code was not accepted. You have {left} more tries.",
        "otp_wrong_last": "This code was not accepted. You have one more try.",
        "otp_unsent": "We could not pass your code on. Please try it once more.",
        "confirm": "Confirm",
        "keep": "Keep this receipt",
        "kept": "As it stood when this was kept. The present state:",
        "print": "Print",
        "chat": "Back to the chat with {payee}",
        "prompt_open": "A request to pay this may still be on a phone. Decline it there, or let it run out, so that "
        "nothing is paid twice.",
        "preview_pay": "Pay {amount} to {payee}",
        "preview_paid": "Paid: {amount} to {payee}",
        "preview_over": "{amount} to {payee}",
        "preview_text": "Reference {reference}. Safe payment page by Conva.",
        "preview_picture": "A payment page",
        "through": "{method} (by {account})",
        "next_step": "You go on to the secure page of {gateway}. Check the name and the amount before you pay.",
        "already_paid": "I have already paid",
        "check_again": "Check again",
        "look_again": "Look again now",
        "paid_at": "Paid on",
        "paid_through": "Paid through",
        "gateway_reference": "{account} reference",
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
