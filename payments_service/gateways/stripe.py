"""Stripe: Checkout sessions, signed webhooks, refunds, look-ups. Every tenant has a Stripe account of its own.

Sources: Stripe's API reference and docs for the version in `stripe_client`, the SDK's generated types. A session lives
for a day at most; when it has ended unpaid, the link it was made for goes on by another one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

import msgspec
import structlog

from payments_service.errors import GatewayError, NotConfigured, Untrusted
from payments_service.gateways import stripe_account, stripe_events, stripe_sweep
from payments_service.gateways.base import (
    Callback,
    Endpoint,
    FieldSets,
    Kind,
    Message,
    Method,
    Opened,
    Redirect,
    RefundOrder,
    Started,
    StartRequest,
    Verification,
)
from payments_service.gateways.stripe_client import Call, StripeApi, StripeRefused
from payments_service.gateways.stripe_wire import (
    Charge,
    Disputes,
    Intent,
    Refund,
    Refunds,
    Session,
    Sessions,
    charge_settlement,
    dispute_reports,
    refund_reports,
    session_report,
    signed_event,
)
from payments_service.gateways.transport import Transport
from payments_service.lifecycle import DisputeReport, Outcome, RefundReport, Report, Settlement
from payments_service.money import Currency, Money

if TYPE_CHECKING:
    from stripe.params import RefundCreateParams
    from stripe.params.checkout import SessionCreateParams, SessionListParams

SESSIONS = "/v1/checkout/sessions"
CHECKOUT = "https://checkout.stripe.com"
# A session may end 30 minutes to 24 hours after it was made, by Stripe's clock.
SHORTEST = timedelta(minutes=31)
LONGEST = timedelta(hours=24) - timedelta(minutes=2)
# Our clock and Stripe's, in the search for a session whose creation was not answered.
SKEW = timedelta(minutes=5)
_PAGES = 10
_EXPAND = ["payment_intent.latest_charge.refunds"]
_ID = re.compile(r"cs_[A-Za-z0-9_]{1,200}", re.ASCII)
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")

# In US cents.
LEAST = 50

CARD = Method("card", "Card", Redirect, kind=Kind.CARD)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class StripeCredentials:
    """One account. `webhook_secrets`: the endpoint's, and while it is rolled the one before."""

    secret_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)

    @property
    def live(self) -> bool:
        return "_test_" not in self.secret_key


class Stripe:
    """The adapter. Holds the base URL and the transport, and no tenant's data."""

    name: ClassVar[str] = "stripe"
    title: ClassVar[str] = "Stripe"
    settings: ClassVar[tuple[str, ...]] = ("stripe_secret_key", "stripe_webhook_secret")
    preferences: ClassVar[tuple[str, ...]] = ()
    configured_by: ClassVar[Mapping[str, FieldSets]] = {"stripe_configured": (("stripe_secret_key",),)}
    methods: ClassVar[tuple[Method, ...]] = (CARD,)
    # Stripe takes neither ZWG nor ZIG.
    currencies: ClassVar[frozenset[Currency]] = frozenset({Currency.USD})
    callback_is_proof: ClassVar[bool] = True
    swept_with: ClassVar[str] = "stripe_secret_key"
    secret_field: ClassVar[str] = "stripe_webhook_secret"  # noqa: S105 - a field's name
    # A webhook comes within seconds, so the first look is later than at gateways without proof: every 10 s for a
    # minute, 20 s to ten minutes, then as rarely as the others. An account has 100 requests a second.
    schedule: ClassVar[tuple[int, ...]] = (
        *(10,) * 6,
        *(20,) * 27,
        *(60,) * 50,
        *(300,) * 60,
        *(1800,) * 36,
        *(10800,) * 48,
        43200,
    )

    settles: ClassVar[timedelta] = timedelta(minutes=2)
    recognises: ClassVar[timedelta | None] = None
    looks_after_end: ClassVar[tuple[timedelta, ...]] = ()

    start_seconds: ClassVar[float] = 20.0  # the deadline of a start and all its tries; the customer waits for the link
    check_seconds: ClassVar[float] = 10.0

    def __init__(self, transport: Transport, base_url: str) -> None:
        self._api = StripeApi(transport, base_url)
        parts = urlsplit(base_url)
        self._base_origin = f"{parts.scheme}://{parts.netloc}".lower()

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> StripeCredentials:
        """The account's; NotConfigured names what is missing."""
        key = values.get("stripe_secret_key")
        if currency not in self.currencies:
            raise NotConfigured(f"Stripe takes USD, not {currency}.")
        if not key:
            raise NotConfigured("Stripe is not set up: save stripe_secret_key in payment-settings.")
        if _UNPRINTABLE.search(key):
            raise NotConfigured("Stripe is not set up: the saved stripe_secret_key is no key of Stripe's.")
        return StripeCredentials(key, _secrets(values.get("stripe_webhook_secret")))

    def page_origins(self) -> tuple[str, ...]:
        """Stripe's own, and that of whatever stands in for it."""
        return (CHECKOUT,) if self._base_origin == "https://api.stripe.com" else (CHECKOUT, self._base_origin)

    def offered(self, credentials: StripeCredentials, payer_email: str | None, amount: Money) -> tuple[Method, ...]:
        """None below the least that Stripe takes; what it says of accounts in other countries counts besides."""
        return self.methods if amount.minor >= LEAST else ()

    async def start(self, credentials: StripeCredentials, request: StartRequest) -> Started:
        """Make a session. Tried again with the same idempotency key, so that there is only one."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + self.start_seconds
        try:
            session = await self._create(credentials, _order(request), str(request.attempt_id), self.start_seconds)
        except StripeRefused as error:
            if error.reason != "email_invalid":
                raise
            # The address only fills a field in: the customer can pay without.
            order = _order(replace(request, payer_email=None))
            session = await self._create(credentials, order, f"{request.attempt_id}-without-email", ends - loop.time())
        if not _ID.fullmatch(session.id) or session.client_reference_id not in (None, request.reference):
            raise Untrusted("stripe.create_session: the answer is about another session")
        _of_mode(credentials, session)
        return Started(self._page_of(session), poll_url=session.id)

    async def _create(
        self, credentials: StripeCredentials, order: SessionCreateParams, key: str, seconds: float
    ) -> Session:
        call = Call("create_session", "post", SESSIONS, seconds, order, key)
        return await self._api.send(credentials.secret_key, call, Session)

    async def check(self, credentials: StripeCredentials, attempt: Opened) -> Report:
        """Look the session up, with what became of its money; without its id (the answer was lost), search for it."""
        if attempt.poll_url is None:
            return await self._trace(credentials, attempt)
        params = {"expand": _EXPAND}
        session = await self._of_attempt("retrieve_session", "get", credentials, attempt, "", params)
        return await self._report(credentials, attempt, session)

    async def withdraw(self, credentials: StripeCredentials, attempt: Opened) -> Report:
        """Expire the session, if it is still open."""
        if attempt.poll_url is None:
            found = await self.check(credentials, attempt)
            if found.outcome is not Outcome.PENDING:
                return found
            attempt = replace(attempt, poll_url=found.poll_url)
        try:
            session = await self._of_attempt("expire_session", "post", credentials, attempt, "/expire", {})
        except StripeRefused:
            # It is open no more: paid in the meantime, being confirmed, or expired by itself.
            return await self.check(credentials, attempt)
        return await self._report(credentials, attempt, session)

    async def refund(self, credentials: StripeCredentials, order: RefundOrder) -> RefundReport:
        """Give back, to the card or account that the money came from."""
        params: RefundCreateParams = {
            "payment_intent": order.gateway_reference,
            "amount": order.amount.minor,
            "metadata": {"refund_id": str(order.refund_id), "reason": order.reason[:400]},
        }
        call = Call("create_refund", "post", "/v1/refunds", self.start_seconds, params, str(order.refund_id))
        refund = await self._api.send(credentials.secret_key, call, Refund)
        found = refund_reports([refund])
        if not found or found[0].refund_id != order.refund_id or found[0].amount != order.amount:
            raise Untrusted("stripe.create_refund: the answer is about another refund")
        return found[0]

    def read_callback(self, credentials: StripeCredentials, message: Message) -> Callback | None:
        """Verify an event over its raw body. Without a saved secret nothing is believed."""
        header = message.headers.get("stripe-signature")
        event = signed_event(message.body, header, credentials.webhook_secrets, message.received_at)
        return stripe_events.callback_of(event, live=credentials.live)

    async def missed(
        self, credentials: StripeCredentials, callback_url: str, since: datetime, until: datetime
    ) -> list[Callback]:
        """The account's events of that time that were not delivered everywhere; all, where nothing of ours is told."""
        key = credentials.secret_key
        told = bool(credentials.webhook_secrets) and await stripe_account.is_told(self._api, key, callback_url)
        return await stripe_sweep.missed(self._api, key, since, until, live=credentials.live, undelivered=told)

    async def verify(self, credentials: StripeCredentials, callback_url: str) -> Verification:
        """The account's own word: whether it can take payments, in which mode, in which currencies; and whether its
        webhook endpoint is there."""
        return await stripe_account.verify(self._api, credentials.secret_key, credentials.webhook_secrets, callback_url)

    async def provision(self, credentials: StripeCredentials, url: str) -> Endpoint:
        """A webhook endpoint for the events that are read here, in the version that they are read by."""
        return await stripe_account.create_endpoint(self._api, credentials.secret_key, url)

    async def retire(self, credentials: StripeCredentials, endpoint_ids: Sequence[str]) -> None:
        await stripe_account.delete_endpoints(self._api, credentials.secret_key, endpoint_ids)

    async def _of_attempt(
        self,
        what: str,
        method: str,
        credentials: StripeCredentials,
        attempt: Opened,
        action: str,
        params: Mapping[str, object],
    ) -> Session:
        if not _ID.fullmatch(attempt.poll_url or ""):
            raise Untrusted("stripe: the attempt's session has no id of Stripe's")
        call = Call(what, method, f"{SESSIONS}/{attempt.poll_url}{action}", self.check_seconds, params)
        try:
            session = await self._api.send(credentials.secret_key, call, Session)
        except StripeRefused as error:
            if error.status in (401, 403, 404):
                # Sessions never vanish: this key is of another account, or good for nothing any more.
                raise Untrusted(f"stripe.{what}: this key cannot see the session. {error.detail}") from error
            raise
        if session.id != attempt.poll_url:
            raise Untrusted(f"stripe.{what}: the answer is about another session")
        return session

    async def _trace(self, credentials: StripeCredentials, attempt: Opened) -> Report:
        """Stripe cannot be asked for a reference of ours: look through the sessions made at that time."""
        begun = attempt.started_at
        params: SessionListParams = {
            "created": {"gte": int((begun - SKEW).timestamp()), "lte": int((begun + SKEW).timestamp())},
            "limit": 100,
        }
        for _ in range(_PAGES):
            call = Call("list_sessions", "get", SESSIONS, self.check_seconds, params)
            sessions = await self._api.send(credentials.secret_key, call, Sessions)
            for session in sessions.data:
                if session.client_reference_id == attempt.reference:
                    return await self._found(credentials, attempt, session.id)
            if not sessions.has_more or not sessions.data:
                return Report(Outcome.NOT_FOUND, "not found")
            params["starting_after"] = sessions.data[-1].id
        raise Untrusted("stripe.list_sessions: there are more sessions than can be looked through")

    async def _found(self, credentials: StripeCredentials, attempt: Opened, session_id: str) -> Report:
        known = Opened(attempt.attempt_id, attempt.reference, attempt.amount, session_id, attempt.started_at)
        session = await self._of_attempt("retrieve_session", "get", credentials, known, "", {"expand": _EXPAND})
        report = await self._report(credentials, known, session)
        page = self._page_of(session) if session.status == "open" else None
        return replace(report, poll_url=session_id, page_url=page.url if page else None)

    async def _report(self, credentials: StripeCredentials, attempt: Opened, session: Session) -> Report:
        report = session_report(session)
        _of_mode(credentials, session)
        if report.outcome is not Outcome.PAID:
            if report.reference != attempt.reference:
                raise Untrusted("stripe: the session is about another attempt")
            return report
        return await self._settled(credentials, session, report)

    async def _settled(self, credentials: StripeCredentials, session: Session, report: Report) -> Report:
        """The report with all refunds, where they were too many for the session's answer, and with the disputes."""
        charge = session.payment_intent.latest_charge if isinstance(session.payment_intent, Intent) else None
        settlement, intent = report.settlement, report.gateway_reference
        if not isinstance(charge, Charge) or settlement is None or intent is None:
            return report
        try:
            if charge.refunds is not None and charge.refunds.has_more:
                settlement = await self._all_refunds(credentials, intent, charge)
            if charge.disputed:
                settlement = replace(settlement, disputes=await self._disputes(credentials, intent))
        except GatewayError as error:
            # That the money came is proved all the same.
            log.warning("look_up_incomplete", gateway=self.name, detail=error.detail)
        return replace(report, settlement=settlement)

    async def _all_refunds(self, credentials: StripeCredentials, intent: str, charge: Charge) -> Settlement:
        params = {"payment_intent": intent, "limit": 100}
        call = Call("list_refunds", "get", "/v1/refunds", self.check_seconds, params)
        return charge_settlement(
            msgspec.structs.replace(charge, refunds=await self._api.send(credentials.secret_key, call, Refunds))
        )

    async def _disputes(self, credentials: StripeCredentials, intent: str) -> tuple[DisputeReport, ...]:
        call = Call("list_disputes", "get", "/v1/disputes", self.check_seconds, {"payment_intent": intent})
        return dispute_reports((await self._api.send(credentials.secret_key, call, Disputes)).data)

    def _page_of(self, session: Session) -> Redirect:
        """The session's page, if it is on Stripe's own host."""
        url = session.url or ""
        own = any(url.lower().startswith(f"{origin}/") for origin in self.page_origins())
        if not own or _UNPRINTABLE.search(url) or "\\" in url:
            raise Untrusted("stripe: the session's page is not on Stripe's own host")
        return Redirect(url, datetime.fromtimestamp(session.expires_at, UTC) if session.expires_at else None)


def _of_mode(credentials: StripeCredentials, session: Session) -> None:
    if session.livemode is (not credentials.live):
        raise Untrusted("stripe: the session is of the other mode, live or test")


def _order(request: StartRequest) -> SessionCreateParams:
    """A session for one payment. Session metadata is not copied to the intent, from where charges get theirs."""
    names = {
        "client_id": str(request.client_id),
        "payment_id": str(request.payment_id),
        "attempt_id": str(request.attempt_id),
        "reference": request.reference,
    }
    params: SessionCreateParams = {
        "mode": "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": request.amount.currency.lower(),
                    "unit_amount": request.amount.minor,
                    "product_data": {"name": request.description[:250]},
                },
            }
        ],
        "client_reference_id": request.reference,
        "metadata": names,
        "payment_intent_data": {"metadata": names, "description": f"{request.reference} {request.description}"[:500]},
        "success_url": request.return_url,
        "cancel_url": request.page_url,
        "expires_at": int(_session_end(request.expires_at, datetime.now(UTC)).timestamp()),
        "locale": "auto",
        # The customer pays the amount asked for, in its currency.
        "adaptive_pricing": {"enabled": False},
    }
    if request.payer_email:
        params["customer_email"] = request.payer_email
    return params


def _session_end(link_ends: datetime | None, now: datetime) -> datetime:
    """With the link, as far as Stripe lets a session be that short or long."""
    return max(now + SHORTEST, min(link_ends or now + LONGEST, now + LONGEST))


def _secrets(text: str | None) -> tuple[str, ...]:
    """`whsec_…`, or several with commas or blanks between them."""
    return tuple(secret for secret in re.split(r"[,\s]+", text or "") if secret)
