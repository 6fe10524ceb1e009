"""Paynow (Zimbabwe): web checkout, status updates, polling and trace.

Sources: Paynow's published developer pages, its official SDKs and their test vectors. Facts that only practice
shows are marked where they are used. Statuses: `STATUSES`. Nothing here is believed without a valid hash, and a
valid hash alone moves nothing: the poll of the stored URL is the proof.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import parse_qsl, urlencode, urlsplit

from payments_service.errors import Ambiguous, NotConfigured, Refused, Untrusted
from payments_service.gateways.base import Callback, Opened, Redirect, Started, StartRequest
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money, parse_major

INITIATE = "/interface/initiatetransaction"
TRACE = "/interface/trace"

# Section 5 of the protocol notes; compared trimmed and in lower case. Anything else is unknown, never failed.
STATUSES: dict[str, Outcome] = {
    "created": Outcome.PENDING,
    "sent": Outcome.PENDING,
    "awaiting redirect": Outcome.PENDING,
    "created but not paid": Outcome.PENDING,
    "paid": Outcome.PAID,
    "awaiting delivery": Outcome.PAID,  # the customer's money is in, held until delivery is confirmed
    "delivered": Outcome.PAID,
    "cancelled": Outcome.FAILED,
    "failed": Outcome.FAILED,
    "disputed": Outcome.DISPUTED,
    "refunded": Outcome.REFUNDED,
}

_MONEY = frozenset({Outcome.PAID, Outcome.DISPUTED, Outcome.REFUNDED})

# What a free-text refusal means to the person who set Paynow up: (a part of Paynow's text, plain words).
ADVICE: tuple[tuple[str, str], ...] = (
    (
        "invalid hash",
        "Paynow does not accept the integration key. It is mistyped, belongs to another integration ID, or was "
        "replaced at Paynow: copy ID and key once more from Paynow's dashboard.",
    ),
    ("invalid id", "Paynow does not know this integration ID: compare it with Paynow's dashboard."),
    (
        "test mode",
        "This Paynow integration is still in test mode: it only takes payments of the merchant's own Paynow login. "
        "Leave contact_email out or use that login's e-mail, or ask Paynow to set the integration live.",
    ),
    (
        "authemail",
        "Paynow refuses the customer's e-mail address. An integration in test mode accepts only the merchant's own "
        "login e-mail: leave contact_email out, or ask Paynow to set the integration live.",
    ),
    ("invalid amount", "Paynow refuses this amount."),
    ("currently inactive", "This Paynow integration is inactive: activate it in Paynow's dashboard."),
    (
        "not a site integration",
        "This Paynow integration ID is not of the kind '3rd Party Shopping Cart or Site'.",
    ),
    (
        "valid return url",
        "Paynow refuses the return address: PUBLIC_URL must be reachable from the internet.",
    ),
)

# Kept of a callback as evidence; tokens, card and phone details are not.
_KEPT = frozenset({"reference", "paynowreference", "amount", "status", "paymentchannel"})
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class PaynowCredentials:
    """One Paynow integration: it belongs to one currency."""

    integration_id: str
    integration_key: str = field(repr=False)
    currency: Currency


def digest(fields: Iterable[tuple[str, str]], integration_key: str) -> str:
    """Paynow's hash of a message: upper-case hex of SHA-512 over all values but `hash`, in the order given,
    followed by the lower-case key."""
    text = "".join(value for name, value in fields if name.lower() != "hash") + integration_key.lower()
    return hashlib.sha512(text.encode("utf-8", "surrogatepass")).hexdigest().upper()


def hash_is_valid(fields: Fields, integration_key: str) -> bool:
    """Whether the message carries its own hash, over the values as they came or trimmed (Paynow trims)."""
    received = [value for name, value in fields if name.lower() == "hash"]
    if len(received) != 1 or not received[0].isascii():
        return False
    claimed = received[0].strip().upper()
    exact = digest(fields, integration_key)
    trimmed = digest([(name, value.strip()) for name, value in fields], integration_key)
    # Both are always computed and compared, each in constant time.
    return hmac.compare_digest(claimed, exact) | hmac.compare_digest(claimed, trimmed)


def parse_message(body: bytes) -> Fields:
    """The fields of a form-encoded message in the order they came.

    Raises Untrusted when it is not UTF-8, not a form, holds a NUL, or names a field twice: two readers could take
    different values of it.
    """
    try:
        fields = parse_qsl(
            body.decode("utf-8").strip(),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=64,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise Untrusted("the message is not a form in UTF-8") from error
    names = [name.lower() for name, _ in fields]
    if len(set(names)) != len(names):
        raise Untrusted("the message names a field twice")
    if any("\0" in text for field in fields for text in field):
        raise Untrusted("the message holds a NUL, which no database keeps")
    return fields


class Paynow:
    """The adapter. Holds the base URL and the transport, and no tenant's data."""

    name: ClassVar[str] = "paynow"
    title: ClassVar[str] = "Paynow"
    settings: ClassVar[tuple[str, ...]] = (
        "paynow_integration_id",
        "paynow_integration_key",
        "paynow_zig_integration_id",
        "paynow_zig_integration_key",
    )
    currencies: ClassVar[frozenset[Currency]] = frozenset(Currency)
    callback_is_proof: ClassVar[bool] = False
    # Official plugins poll every 5 s while the customer waits. Then, from the last sign of life: every 15 s to ten
    # minutes, every minute to the hour, every 5 minutes to six hours, half an hour to the day, 3 h to the week, 12 h.
    schedule: ClassVar[tuple[int, ...]] = (
        *(5,) * 12,
        *(15,) * 36,
        *(60,) * 50,
        *(300,) * 60,
        *(1800,) * 36,
        *(10800,) * 48,
        43200,
    )

    start_seconds: ClassVar[float] = 20.0  # the deadline of a start; the customer waits for the link
    check_seconds: ClassVar[float] = 10.0

    def __init__(self, transport: Transport, base_url: str) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> PaynowCredentials:
        """The integration of this currency; NotConfigured names the fields that are missing."""
        prefix = "paynow_zig" if currency is Currency.ZIG else "paynow"
        identifier, key = values.get(f"{prefix}_integration_id"), values.get(f"{prefix}_integration_key")
        if not identifier or not key:
            raise NotConfigured(
                f"Paynow is not set up for {currency}: save {prefix}_integration_id and {prefix}_integration_key "
                "in payment-settings (a Paynow integration belongs to one currency)."
            )
        return PaynowCredentials(identifier, key, currency)

    def page_origin(self) -> str | None:
        """Where Paynow's own pages live."""
        return self._origin()

    async def start(self, credentials: PaynowCredentials, request: StartRequest) -> Started:
        """Initiate a web transaction: the customer goes on at `next_step.url`."""
        fields = [
            ("id", credentials.integration_id),
            ("reference", request.reference),
            ("amount", request.amount.major()),
            ("additionalinfo", request.description),
            ("returnurl", request.return_url),
            ("resulturl", request.callback_url),
            *([("authemail", request.payer_email)] if request.payer_email else []),
            # 32 characters are the limit, which is what a UUID has. It makes the transaction traceable.
            ("merchanttrace", request.attempt_id.hex),
            ("status", "Message"),
        ]
        reply = await self._call("initiate", self._base + INITIATE, fields, credentials, self.start_seconds)
        answer = _proved("initiate", reply, credentials)
        if answer.get("status", "").strip().lower() != "ok":
            raise Untrusted("paynow.initiate: answered neither Ok nor Error")
        return Started(
            next_step=Redirect(self._own_url(answer.get("browserurl"), "browserurl")),
            poll_url=self._own_url(answer.get("pollurl"), "pollurl"),
            gateway_reference=answer.get("paynowreference") or None,
        )

    async def check(self, credentials: PaynowCredentials, attempt: Opened) -> Report:
        """Poll the stored URL; without one (its answer was lost), trace the attempt by our own id."""
        if attempt.poll_url is None:
            return await self._trace(credentials, attempt)
        url = self._own_url(attempt.poll_url, "pollurl")
        reply = await self._transport.post("paynow.poll", url, b"", headers=_FORM, deadline=self.check_seconds)
        answer = _proved("poll", reply, credentials, of_payment=True)
        return _about(attempt, _report(answer, credentials.currency))

    def read_callback(self, credentials: PaynowCredentials, body: bytes) -> Callback:
        """Verify a status update. The poll URL in it is not used: only the stored one is."""
        fields = parse_message(body)
        if not hash_is_valid(fields, credentials.integration_key):
            raise Untrusted("the hash does not match the tenant's integration key")
        values = {name.lower(): value.strip() for name, value in fields}
        if not values.get("reference") or not values.get("status"):
            raise Untrusted("the message names no reference or no status")
        kept = {name: value for name, value in values.items() if name in _KEPT}
        return Callback(values["reference"], values["status"], kept)

    async def _trace(self, credentials: PaynowCredentials, attempt: Opened) -> Report:
        fields = [
            ("id", credentials.integration_id),
            ("merchanttrace", attempt.attempt_id.hex),
            ("status", "Message"),
        ]
        reply = await self._call("trace", self._base + TRACE, fields, credentials, self.check_seconds)
        answer = _proved("trace", reply, credentials, of_payment=True)
        if answer.get("status", "").strip().lower() == "notfound":
            return Report(Outcome.NOT_FOUND, "NotFound")
        poll_url = self._own_url(answer.get("pollurl"), "pollurl")
        return _about(attempt, _report(answer, credentials.currency, poll_url))

    async def _call(
        self, what: str, url: str, fields: Fields, credentials: PaynowCredentials, deadline: float
    ) -> Reply:
        # Paynow trims values before it hashes them, so none may begin or end with a blank.
        trimmed = [(name, value.strip()) for name, value in fields]
        trimmed.append(("hash", digest(trimmed, credentials.integration_key)))
        body = urlencode(trimmed).encode("ascii")
        return await self._transport.post(f"paynow.{what}", url, body, headers=_FORM, deadline=deadline)

    def _origin(self) -> str:
        parts = urlsplit(self._base)
        return f"{parts.scheme}://{parts.netloc}".lower()

    def _own_url(self, url: str | None, name: str) -> str:
        """A URL that Paynow sent, if it is on Paynow's own scheme, host and port; else Untrusted.

        A plain prefix test that ends in the path's slash leaves no room for user info, other ports, or two URL
        parsers that disagree.
        """
        text = (url or "").strip()
        if not text.lower().startswith(self._origin() + "/") or _UNPRINTABLE.search(text) or "\\" in text:
            raise Untrusted(f"paynow: the {name} is not on Paynow's own host")
        return text


def _proved(what: str, reply: Reply, credentials: PaynowCredentials, *, of_payment: bool = False) -> Mapping[str, str]:
    """The answer's fields by lower-case name, its hash verified.

    `status=Error` carries no hash: of a request it is a refusal in free text, of a look-up it proves nothing.
    """
    if not 200 <= reply.status < 300:
        raise Ambiguous(f"paynow.{what}: answered with HTTP {reply.status}")
    fields = parse_message(reply.body)
    answer = {name.lower(): value for name, value in fields}
    if answer.get("status", "").strip().lower() == "error":
        text = answer.get("error", "")
        if of_payment:
            raise Untrusted(f"paynow.{what}: {explain(text)}")
        raise Refused(explain(text))
    if not hash_is_valid(fields, credentials.integration_key):
        raise Untrusted(f"paynow.{what}: the answer's hash does not match the integration key")
    return answer


def _report(answer: Mapping[str, str], currency: Currency, poll_url: str | None = None) -> Report:
    said = answer.get("status", "").strip()[:100]
    word = said.lower()
    outcome = Outcome.PENDING if word.startswith("pending") else STATUSES.get(word, Outcome.UNKNOWN)
    return Report(
        outcome=outcome,
        said=said,
        amount=_amount(answer.get("amount"), currency),
        # Missing is as wrong as different: the report must name our attempt.
        reference=answer.get("reference", "").strip()[:200],
        gateway_reference=answer.get("paynowreference", "").strip()[:200] or None,
        poll_url=poll_url,
    )


def _about(attempt: Opened, report: Report) -> Report:
    """The report, if it speaks of this attempt. Money under another reference goes on, as evidence for a person;
    nothing else is concluded from an answer about another transaction."""
    if report.outcome not in _MONEY and report.reference != attempt.reference:
        raise Untrusted("paynow: the answer is about another transaction")
    return report


def _amount(text: str | None, currency: Currency) -> Money | None:
    try:
        return parse_major(text or "", currency)
    except ValueError:
        return None


def explain(error: str) -> str:
    """Paynow's free-text error in words for the person who set it up, with Paynow's own words after them."""
    text = " ".join(error.split())[:200] or "no reason given"
    lowered = text.lower()
    for part, words in ADVICE:
        if part in lowered:
            return f"{words} (Paynow says: {text})"
    return f"Paynow says: {text}"
