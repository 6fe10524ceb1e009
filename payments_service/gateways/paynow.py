"""Paynow (Zimbabwe): web checkout, express checkout without its page, status updates, polling and trace.

Sources: Paynow's published developer pages, its official SDKs and their test vectors. Facts that only practice
shows are marked where they are used. Statuses: `STATUSES`. Nothing here is believed without a valid hash, and a
valid hash alone moves nothing: the poll of the stored URL is the proof.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from urllib.parse import urlencode, urlsplit
from uuid import UUID, uuid4

from payments_service.errors import Ambiguous, Because, NotAccepted, NotConfigured, Refused, Untrusted
from payments_service.gateways.base import (
    ApproveOnPhone,
    Callback,
    EnterOtp,
    FieldSets,
    Kind,
    Message,
    Method,
    NextStep,
    Opened,
    Redirect,
    ShowCode,
    Started,
    StartRequest,
    Verification,
)
from payments_service.gateways.paynow_wire import Fields, digest, hash_is_valid, parse_message, parse_moment, refusal
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money, parse_major

INITIATE = "/interface/initiatetransaction"
EXPRESS = "/interface/remotetransaction"
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

# Kept of a callback as evidence; tokens, card and phone details are not.
_KEPT = frozenset({"reference", "paynowreference", "amount", "status", "paymentchannel"})
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
# InnBucks' codes have six to nine digits; more are none of them.
_CODE = re.compile(r"[0-9]{4,20}", re.ASCII)

# Known: "Invalid OTP".
_OF_OTP = re.compile(r"\b(otp|one.?time|pin|password)\b", re.IGNORECASE)

WEB = Method("web", "Paynow", Redirect, kind=Kind.PAGE)
# Section 3 of the protocol notes. All are sent the payer's phone number; the wallets are known under these names.
EXPRESS_METHODS = (
    Method("ecocash", "EcoCash", ApproveOnPhone, needs_phone=True),
    Method("onemoney", "OneMoney", ApproveOnPhone, needs_phone=True),
    Method("innbucks", "InnBucks", ShowCode, needs_phone=True),
    Method("omari", "O'mari", EnterOtp, needs_phone=True),
)


_ALL_EXPRESS = frozenset(method.name for method in EXPRESS_METHODS)


@dataclass(frozen=True, slots=True)
class PaynowCredentials:
    """One Paynow integration: it belongs to one currency.

    `auth_email` is the tenant's own, for express payments of customers of whom none is known; `express` are the
    methods that the tenant wants to offer.
    """

    integration_id: str
    integration_key: str = field(repr=False)
    currency: Currency
    auth_email: str | None = field(default=None, repr=False)
    express: frozenset[str] = _ALL_EXPRESS


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
    preferences: ClassVar[tuple[str, ...]] = ("paynow_auth_email", "paynow_express_methods")
    configured_by: ClassVar[Mapping[str, FieldSets]] = {
        "paynow_configured": (("paynow_integration_id", "paynow_integration_key"),),
        "paynow_zig_configured": (("paynow_zig_integration_id", "paynow_zig_integration_key"),),
    }
    methods: ClassVar[tuple[Method, ...]] = (*EXPRESS_METHODS, WEB)
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

    settles: ClassVar[timedelta] = timedelta(minutes=2)
    recognises: ClassVar[timedelta | None] = None
    looks_after_end: ClassVar[tuple[timedelta, ...]] = ()

    start_seconds: ClassVar[float] = 20.0  # the deadline of a start; the customer waits for the link
    check_seconds: ClassVar[float] = 10.0

    def __init__(self, transport: Transport, base_url: str, innbucks_app_link: str | None = None) -> None:
        self._transport = transport
        self._base = base_url.rstrip("/")
        self._innbucks_app_link = innbucks_app_link

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> PaynowCredentials:
        """The integration of this currency; NotConfigured names the fields that are missing."""
        prefix = "paynow_zig" if currency is Currency.ZIG else "paynow"
        identifier, key = values.get(f"{prefix}_integration_id"), values.get(f"{prefix}_integration_key")
        if not identifier or not key:
            raise NotConfigured(
                f"Paynow is not set up for {currency}: save {prefix}_integration_id and {prefix}_integration_key "
                "in payment-settings (a Paynow integration belongs to one currency)."
            )
        chosen = values.get("paynow_express_methods")
        express = frozenset(each.strip() for each in chosen.split(",")) if chosen else _ALL_EXPRESS
        return PaynowCredentials(identifier, key, currency, values.get("paynow_auth_email") or None, express)

    def page_origins(self) -> tuple[str, ...]:
        """Where Paynow's own pages live."""
        return (self._origin(),)

    def offered(self, credentials: PaynowCredentials, payer_email: str | None, amount: Money) -> tuple[Method, ...]:
        """Express methods want an e-mail address, the customer's or else the tenant's; the page wants none."""
        if not (payer_email or credentials.auth_email):
            return (WEB,)
        return tuple(method for method in self.methods if method is WEB or method.name in credentials.express)

    async def start(self, credentials: PaynowCredentials, request: StartRequest) -> Started:
        """Initiate a web transaction (the customer goes on at `next_step.url`) or an express one."""
        express = request.method != WEB.name
        what, path = ("express", EXPRESS) if express else ("initiate", INITIATE)
        fields = self._express(credentials, request) if express else self._fields(credentials, request)
        reply = await self._call(what, self._base + path, fields, credentials, self.start_seconds)
        answer = _proved(what, reply, credentials)
        if answer.get("status", "").strip().lower() != "ok":
            raise Untrusted(f"paynow.{what}: answered neither Ok nor Error")
        return Started(
            next_step=self._next_step(request.method, answer),
            poll_url=self._own_url(answer.get("pollurl"), "pollurl"),
            gateway_reference=answer.get("paynowreference", "").strip()[:200] or None,
        )

    def _fields(
        self, credentials: PaynowCredentials, request: StartRequest, payer_email: str | None = None
    ) -> list[tuple[str, str]]:
        email = payer_email or request.payer_email
        return [
            ("id", credentials.integration_id),
            ("reference", request.reference),
            ("amount", request.amount.major()),
            ("additionalinfo", request.description),
            ("returnurl", request.return_url),
            ("resulturl", request.callback_url),
            *([("authemail", email)] if email else []),
            # 32 characters are the limit, which is what a UUID has. It makes the transaction traceable.
            ("merchanttrace", request.attempt_id.hex),
            ("status", "Message"),
        ]

    def _express(self, credentials: PaynowCredentials, request: StartRequest) -> list[tuple[str, str]]:
        email = request.payer_email or credentials.auth_email
        if email is None or request.payer_phone is None:
            raise Refused("Paynow's express methods need an e-mail address and a phone number.", Because.METHOD)
        fields = self._fields(credentials, request, email)
        return [*fields, ("method", request.method), ("phone", _local(request.payer_phone))]

    def _next_step(self, method: str, answer: Mapping[str, str]) -> NextStep:
        """What the customer does next, of an Ok reply. What has no valid answer in it is looked up later: Untrusted."""
        if method == "innbucks":
            return self._code(answer)
        if method == "omari":
            reference = answer.get("otpreference", "").strip()[:100]
            return EnterOtp(self._own_url(answer.get("remoteotpurl"), "remoteotpurl"), reference)
        if method == WEB.name:
            return Redirect(self._own_url(answer.get("browserurl"), "browserurl"))
        return ApproveOnPhone(" ".join(answer.get("instructions", "").split())[:500])

    def _code(self, answer: Mapping[str, str]) -> ShowCode:
        code = answer.get("authorizationcode", "").strip()
        if not _CODE.fullmatch(code):
            raise Untrusted("paynow.express: the answer has no InnBucks code")
        app_url = self._innbucks_app_link.replace("{code}", code) if self._innbucks_app_link else None
        return ShowCode(code, parse_moment(answer.get("authorizationexpires", "")), app_url)

    async def confirm(self, credentials: PaynowCredentials, attempt: Opened, url: str, otp: str) -> None:
        """Pass O'mari's one-time password on. Taken: a status message that proves itself; only a poll moves money."""
        own = self._own_url(url, "remoteotpurl")
        fields = [("id", credentials.integration_id), ("otp", otp), ("status", "Message")]
        reply = await self._call("otp", own, fields, credentials, self.start_seconds)
        try:
            answer = _proved("otp", reply, credentials)
        except Refused as error:
            # Of any other error nothing follows for the password.
            kind = NotAccepted if _OF_OTP.search(error.detail) else Untrusted
            raise kind(error.detail) from error
        if answer.get("reference", "").strip() != attempt.reference:
            raise Untrusted("paynow.otp: the answer is about another transaction")

    async def check(self, credentials: PaynowCredentials, attempt: Opened) -> Report:
        """Poll the stored URL; without one (its answer was lost), trace the attempt by our own id."""
        if attempt.poll_url is None:
            return await self._trace(credentials, attempt)
        url = self._own_url(attempt.poll_url, "pollurl")
        reply = await self._transport.post("paynow.poll", url, b"", headers=_FORM, deadline=self.check_seconds)
        answer = _proved("poll", reply, credentials, of_payment=True)
        return _about(attempt, _report(answer, credentials.currency))

    def read_callback(self, credentials: PaynowCredentials, message: Message) -> Callback:
        """Verify a status update. The poll URL in it is not used: only the stored one is."""
        attempt_id, fields = _attempt_in(message.address), parse_message(message.body)
        if not hash_is_valid(fields, credentials.integration_key):
            raise Untrusted("the hash does not match the tenant's integration key")
        values = {name.lower(): value.strip() for name, value in fields}
        if not values.get("reference") or not values.get("status"):
            raise Untrusted("the message names no reference or no status")
        kept = {name: value for name, value in values.items() if name in _KEPT}
        return Callback(values["reference"], values["status"], kept, attempt_id=attempt_id)

    async def verify(self, credentials: PaynowCredentials, callback_url: str) -> Verification:
        """Trace a transaction that does not exist: only the right key gets an answer that proves itself."""
        field = "paynow_zig_integration_key" if credentials.currency is Currency.ZIG else "paynow_integration_key"
        unknown = Opened(uuid4(), "", Money(1, credentials.currency), None, datetime.now(UTC))
        try:
            await self._trace(credentials, unknown)
        except Untrusted as error:
            # An error carries no hash, and an answer that does not fit the key is not for it.
            reason = error.detail.removeprefix("paynow.trace: ")
            return Verification(False, None, [], [f"{credentials.currency}: {reason} Check {field} and its id."])
        messages = [
            f"{credentials.currency}: Paynow accepts integration {credentials.integration_id} and its key.",
            "Paynow does not tell whether an integration is in test mode: its page says so when a link is opened.",
        ]
        return Verification(True, None, [credentials.currency], messages, credentials.integration_id)

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


def _attempt_in(address: str) -> UUID | None:
    """The attempt that we named in the callback's address."""
    try:
        return UUID(address) if address else None
    except ValueError:
        raise Untrusted("the attempt in the URL is not an id") from None


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
        refused = refusal(text)
        if of_payment:
            raise Untrusted(f"paynow.{what}: {refused.detail}")
        raise refused
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


def _local(phone: str) -> str:
    """`+263771234567` the way Paynow wants it: `0771234567`."""
    return "0" + phone.removeprefix("+263")
