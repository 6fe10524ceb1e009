"""The bodies that the internal API takes. What it answers with stands in `records.Payment` and `accounts`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, UnsetType

from payments_service.accounts import COLUMNS
from payments_service.errors import Invalid
from payments_service.gateways.paynow import EXPRESS_METHODS
from payments_service.lifecycle import Status
from payments_service.links import LinkOrder
from payments_service.messages import postings, recipient_of
from payments_service.money import CURRENCY_ALIASES, MAX_MINOR, Currency, Money
from payments_service.phones import parse_phone
from payments_service.records import Resolution
from payments_service.refunds import RefundWish
from payments_service.tables import GatewayName
from payments_service.whatsapp import Form
from payments_service.wording import LONGEST, PATTERN, fault_of

# No control characters: they break logs, receipts and, as NUL, the database.
_LINE = r"^[^\x00-\x1f\x7f]*$"
TEXT = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$"
# At least one character that is not blank.
_SOME = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"

Word = Annotated[str, Meta(min_length=1, max_length=500, pattern=_SOME)] | None | UnsetType
Name = Annotated[str, Meta(min_length=1, max_length=80, pattern=_SOME)] | None | UnsetType

# Python and JavaScript do not agree whether U+0085 and U+FEFF are blanks, and readers of openapi.yaml may use either.
_UNBROKEN = r"[^\s\x00-\x1f\x7f-\xa0\ufeff@]+"
Email = Annotated[str, Meta(max_length=254, pattern=rf"^{_UNBROKEN}@{_UNBROKEN}\.{_UNBROKEN}$")]
_GAP = r"[ \t\n\r]*"


def _some_of(*words: str) -> str:
    """A pattern: words with commas between them."""
    word = f"({'|'.join(words)})"
    return f"{word}({_GAP},{_GAP}{word})*"


_EXPRESS = _some_of(*(method.name for method in EXPRESS_METHODS))
# `none`, or some of the methods, each with what Paynow calls it.
Methods = Annotated[str, Meta(max_length=100, pattern=f"^{_GAP}(none|{_EXPRESS}){_GAP}$")] | None | UnsetType
# Some of the currencies.
Currencies = (
    Annotated[str, Meta(max_length=30, pattern=f"^{_GAP}{_some_of('USD', 'ZIG', 'ZWG')}{_GAP}$")] | None | UnsetType
)

_BLANK = "holds nothing but blanks"

WEEK = 7 * 24 * 3600
MONTH = 31 * 24 * 3600


# The fields of payment-settings that are not just any text.
_FORMS: dict[str, Any] = {
    "paynow_auth_email": Email | UnsetType | None,
    "paynow_express_methods": Methods,
    "ecocash_dialect": Literal["open_api", "eip", "eip_portal"] | UnsetType | None,
    "ecocash_currencies": Currencies,
    "display_name": Name,
    # `fault_of` says more clearly what is wrong than a pattern would.
    "whatsapp_text": Annotated[
        str, Meta(min_length=1, max_length=LONGEST, pattern=TEXT, extra_json_schema={"pattern": PATTERN})
    ]
    | UnsetType
    | None,
    "whatsapp_number": Annotated[str, Meta(max_length=32)] | UnsetType | None,
}


class _Patch(msgspec.Struct, frozen=True):
    """What `SettingsPatch` does."""

    def __repr__(self) -> str:
        return "SettingsPatch(…)"

    def changes(self) -> dict[str, str | None]:
        """The fields that were sent, blanks around the values removed: keys are pasted with them."""
        sent = {field: getattr(self, field) for field in COLUMNS}
        changes = {
            field: value.strip() if isinstance(value, str) else None
            for field, value in sent.items()
            if value is not UNSET
        }
        # The pattern knows the blanks of ASCII only.
        if blank := [(field, _BLANK) for field, value in changes.items() if value == ""]:
            raise Invalid(sorted(blank))
        if (text := changes.get("whatsapp_text")) and (fault := fault_of(text)):
            raise Invalid([("whatsapp_text", fault)])
        if number := changes.get("whatsapp_number"):
            changes["whatsapp_number"] = _international(number)
        return changes


# `PATCH …/payment-settings`: a field for each column. Absent: unchanged; null: cleared.
SettingsPatch = cast(
    "type[_Patch]",
    msgspec.defstruct(
        "SettingsPatch",
        [(field, _FORMS.get(field, Word), UNSET) for field in COLUMNS],
        bases=(_Patch,),
        frozen=True,
    ),
)


class CreateLink(msgspec.Struct, frozen=True):
    """`POST …/payments/create-link`."""

    gateway: GatewayName | None
    amount_cents: Annotated[int, Meta(ge=1, le=MAX_MINOR)]
    currency: Literal["USD", "ZIG", "ZWG"]
    reference: Annotated[str, Meta(min_length=1, max_length=100, pattern=_SOME)]
    contact_id: UUID
    description: Annotated[str, Meta(max_length=500, pattern=TEXT)] | None = None
    invoice_id: UUID | None = None
    contact_email: Email | None = None
    contact_phone: Annotated[str, Meta(max_length=32, pattern=r"^\+?[0-9][0-9 ()./-]{4,30}$")] | None = None
    expires_in: Annotated[int, Meta(ge=60, le=MONTH)] | None = None
    send: Literal["whatsapp"] | None = None
    reminders: bool = False

    def order(self, at: datetime) -> LinkOrder:
        """What the story works with."""
        faults = []
        if not (reference := self.reference.strip()):
            faults.append(("reference", _BLANK))
        if self.reminders and not self.send:
            faults.append(("reminders", "needs send: where should they go?"))
        if faults:
            raise Invalid(faults)
        expires_at = at + timedelta(seconds=self.expires_in or WEEK)
        currency = CURRENCY_ALIASES.get(self.currency) or Currency(self.currency)
        return LinkOrder(
            gateway=self.gateway,
            amount=Money(self.amount_cents, currency),
            reference=reference,
            contact_id=self.contact_id,
            expires_at=expires_at,
            description=(self.description or "").strip() or None,
            invoice_id=self.invoice_id,
            contact_email=_stripped(self.contact_email),
            contact_phone=_stripped(self.contact_phone),
            recipient=recipient_of(None, self.contact_phone, "contact_phone") if self.send else None,
            postings=postings(at, expires_at, reminder=self.reminders) if self.send else (),
        )


class SendLink(msgspec.Struct, frozen=True):
    """`POST …/payments/{id}/send`. `to`: else the payment's `contact_phone`. `form`: `text` only where the customer has
    written within a day, else WhatsApp takes the template."""

    channel: Literal["whatsapp"]
    to: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    form: Form = "template"


class CreateRefund(msgspec.Struct, frozen=True):
    """`POST …/payments/{id}/refunds`."""

    reason: Annotated[str, Meta(min_length=1, max_length=500, pattern=_SOME)]
    amount_cents: Annotated[int, Meta(ge=1, le=MAX_MINOR)] | None = None
    manual: bool = False
    evidence: Annotated[str, Meta(min_length=1, max_length=1000, pattern=TEXT)] | None = None

    def wish(self) -> RefundWish:
        """What the story works with."""
        reason, evidence = self.reason.strip(), (self.evidence or "").strip()
        faults = [] if reason else [("reason", _BLANK)]
        if self.manual and not evidence:
            faults.append(("evidence", "is needed with manual: how can it be proved that the money was given back?"))
        if self.evidence is not None and not self.manual:
            faults.append(("evidence", "belongs to manual refunds only"))
        if faults:
            raise Invalid(faults)
        return RefundWish(reason, self.amount_cents, self.manual, evidence or None)


Note = Annotated[str, Meta(min_length=1, max_length=1000, pattern=TEXT)]


class ResolveReview(msgspec.Struct, frozen=True):
    """`POST …/payments/{id}/resolve`."""

    resolution: Literal["paid", "failed", "refunded"]
    note: Note

    def resolved(self) -> Resolution:
        """What the story works with."""
        return Resolution(Status(self.resolution), _words(self.note))


class SettleRefund(msgspec.Struct, frozen=True):
    """`POST …/payments/{id}/refunds/{refund_id}/resolve`."""

    resolution: Literal["succeeded", "failed"]
    note: Note

    def words(self) -> str:
        """The note, which says something."""
        return _words(self.note)


def _words(note: str) -> str:
    if not (words := note.strip()):
        raise Invalid([("note", _BLANK)])
    return words


class VerifySettings(msgspec.Struct, frozen=True):
    """`POST …/payment-settings/verify`."""

    gateway: GatewayName


def _stripped(text: str | None) -> str | None:
    # A pattern's `$` lets a line break at the end pass.
    return text.strip() if text else text


def _international(number: str) -> str:
    try:
        return parse_phone(number)
    except ValueError as error:
        raise Invalid([("whatsapp_number", str(error))]) from None
