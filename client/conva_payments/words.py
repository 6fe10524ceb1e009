"""The words that the API answers with.

They are open: a service that is newer than this client may say a word that is not listed here. It arrives all the same
(`Status("on_hold")` equals `"on_hold"`), so that an unknown word breaks no call and loses no event. Compare with `==`,
and give the last branch of a `match` to what you do not know.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self


class Word(StrEnum):
    """A word of the API; one that is not listed is kept as it came."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str):
            return None
        word = str.__new__(cls, value)
        word._name_ = word._value_ = value
        return word


class Status(Word):
    """What a payment is."""

    PENDING = "pending"
    PAID = "paid"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    REVIEW = "review"


class Gateway(Word):
    PAYNOW = "paynow"
    STRIPE = "stripe"
    ECOCASH = "ecocash"
    INNBUCKS = "innbucks"


class Currency(Word):
    USD = "USD"
    ZIG = "ZIG"


class RefundStatus(Word):
    """`requested`: on record, the gateway has not answered; `pending`: on its way; `failed` may follow `succeeded`."""

    REQUESTED = "requested"
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class EventType(Word):
    LINK_CREATED = "payment.link_created"
    PAID = "payment.paid"
    FAILED = "payment.failed"
    EXPIRED = "payment.expired"
    CANCELLED = "payment.cancelled"
    PARTIALLY_REFUNDED = "payment.partially_refunded"
    REFUNDED = "payment.refunded"
    DISPUTED = "payment.disputed"
    REVIEW = "payment.review"
    MESSAGE_SENT = "message.sent"
    MESSAGE_DELIVERED = "message.delivered"
    MESSAGE_FAILED = "message.failed"


class MessageState(Word):
    """How far a message came. `unknown`: WhatsApp may have it; `withdrawn`: the link was over before it was sent."""

    QUEUED = "queued"
    SENDING = "sending"
    UNKNOWN = "unknown"
    ACCEPTED = "accepted"
    SENT = "sent"
    DELIVERED = "delivered"
    READ = "read"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


class EventState(Word):
    """`due`: to be sent; `delivered`: taken with 2xx; `failed`: given up."""

    DUE = "due"
    DELIVERED = "delivered"
    FAILED = "failed"


# What a caller sends is closed: a word that the service does not know would be refused.
GatewayName = Literal["paynow", "stripe", "ecocash", "innbucks"]
CurrencyName = Literal["USD", "ZIG", "ZWG"]
StatusName = Literal[
    "pending", "paid", "failed", "expired", "cancelled", "partially_refunded", "refunded", "disputed", "review"
]
EventStateName = Literal["due", "delivered", "failed"]
MessageForm = Literal["template", "text"]
