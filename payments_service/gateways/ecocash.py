"""EcoCash (Zimbabwe), directly: a prompt comes up on the customer's phone, who approves it with a PIN.

The same product is spoken to in three dialects, of which a merchant has one: `ecocash_open_api`, `ecocash_eip`. What
is common to them, with the sources and the meaning of all words, is in `ecocash_wire`. A charge is sent once. Nothing
but the authenticated look-up says what became of it: callbacks are signed by nobody.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar
from uuid import uuid4

from payments_service.errors import Because, NotConfigured, Refused, Untrusted
from payments_service.gateways.base import (
    ApproveOnPhone,
    Callback,
    FieldSets,
    Message,
    Method,
    Opened,
    RefundOrder,
    Started,
    StartRequest,
    Verification,
)
from payments_service.gateways.ecocash_answers import (
    accepted,
    attempt_called,
    refunded,
    report_of,
    taken,
    traced,
)
from payments_service.gateways.ecocash_credentials import (
    EcocashCredentials,
    EipCredentials,
    OpenApiCredentials,
    credentials_of,
)
from payments_service.gateways.ecocash_eip import Eip, EipPortal
from payments_service.gateways.ecocash_errors import denied
from payments_service.gateways.ecocash_open_api import OpenApi, OpenApiSite
from payments_service.gateways.ecocash_wire import Call, Dialect, msisdn_of
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import RefundReport, Report
from payments_service.money import Currency, Money

ECOCASH = Method("ecocash", "EcoCash", ApproveOnPhone, needs_phone=True)

# A number that nobody has, to ask about a payment that never was.
NOBODY = "263770000000"


class Ecocash:
    """The adapter. Holds the base URLs and the transport, and no tenant's data."""

    name: ClassVar[str] = "ecocash"
    title: ClassVar[str] = "EcoCash"
    settings: ClassVar[tuple[str, ...]] = (
        "ecocash_merchant_code",
        "ecocash_api_key",
        "ecocash_dialect",
        "ecocash_username",
        "ecocash_password",
        "ecocash_merchant_pin",
        "ecocash_merchant_number",
    )
    preferences: ClassVar[tuple[str, ...]] = ("ecocash_currencies", "display_name")
    configured_by: ClassVar[Mapping[str, FieldSets]] = {
        "ecocash_configured": (
            ("ecocash_api_key",),
            ("ecocash_username", "ecocash_password", "ecocash_merchant_pin", "ecocash_merchant_code"),
        )
    }
    methods: ClassVar[tuple[Method, ...]] = (ECOCASH,)
    currencies: ClassVar[frozenset[Currency]] = frozenset(Currency)
    callback_is_proof: ClassVar[bool] = False
    # A customer has the phone in hand: after 3 s, every 4 s for 90 s, every 20 s to ten minutes, every minute to the
    # hour; then as rarely as the others, for what completes late.
    schedule: ClassVar[tuple[int, ...]] = (
        3,
        *(4,) * 22,
        *(20,) * 25,
        *(60,) * 50,
        *(300,) * 60,
        *(1800,) * 36,
        *(10800,) * 48,
        43200,
    )

    # A prompt's life and a grace; neither is published [?]: two minutes and five are assumed.
    settles: ClassVar[timedelta] = timedelta(minutes=7)
    recognises: ClassVar[timedelta | None] = None
    # What was said to be over, or was not to be found, may complete late.
    looks_after_end: ClassVar[tuple[timedelta, ...]] = (
        timedelta(minutes=10),
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=3),
        timedelta(days=7),
    )

    start_seconds: ClassVar[float] = 25.0  # some charges are answered only when the prompt is out
    check_seconds: ClassVar[float] = 10.0

    def __init__(
        self,
        transport: Transport,
        open_api_url: str,
        mode: str,
        eip_url: str,
        portal_url: str,
        *,
        refund_by: str = "source",
        refund_type: str = "REF",
        zig_code: str = "ZiG",
    ) -> None:
        self._transport = transport
        self._open_api = OpenApiSite(open_api_url.rstrip("/"), mode, refund_by, zig_code)
        self._eip_url = eip_url.rstrip("/")
        self._portal_url = portal_url.rstrip("/")
        self._refund_type = refund_type

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> EcocashCredentials:
        """Those of the tenant's dialect; NotConfigured names what is missing or odd."""
        return credentials_of(values, currency)

    def page_origins(self) -> tuple[str, ...]:
        """None: everything happens on the phone."""
        return ()

    def offered(self, credentials: EcocashCredentials, payer_email: str | None, amount: Money) -> tuple[Method, ...]:
        return self.methods if amount.currency in credentials.takes else ()

    async def start(self, credentials: EcocashCredentials, request: StartRequest) -> Started:
        """Send the prompt. That it was taken is all that the answer says, whatever it says."""
        dialect = self._dialect(credentials)
        msisdn = msisdn_of(request.payer_phone)
        if msisdn is None:
            raise Refused("EcoCash needs a mobile number of Zimbabwe.", Because.PHONE)
        reply = await self._send("charge", dialect.charge(request, msisdn), self.start_seconds)
        taken(dialect, request.attempt_id, reply)
        return Started(ApproveOnPhone(), poll_url=dialect.merchant)

    async def check(self, credentials: EcocashCredentials, attempt: Opened) -> Report:
        """Look the attempt up by our own id and the customer's number: the only authority.

        Another merchant's account knows nothing of it, which must not look as if it had never been: Untrusted.
        """
        dialect = self._dialect(credentials)
        if attempt.poll_url and _is_of_another(attempt.poll_url, dialect.merchant):
            raise Untrusted("ecocash.look_up: the attempt was started with the credentials of another merchant")
        msisdn = msisdn_of(attempt.payer_phone)
        if msisdn is None:
            raise Untrusted("ecocash.look_up: the attempt has no phone number that EcoCash could be asked about")
        call = dialect.look_up(dialect.correlator(attempt.attempt_id), msisdn)
        return report_of(dialect, attempt, await self._send("look_up", call, self.check_seconds))

    def read_callback(self, credentials: EcocashCredentials, message: Message) -> Callback:
        """Nobody signs callbacks: who knows the address may ask us to look, and nothing else is taken from them."""
        attempt_id = attempt_called(self._dialect(credentials), message.address, message.body)
        return Callback(None, "callback", {}, attempt_id=attempt_id)

    async def refund(self, credentials: EcocashCredentials, order: RefundOrder) -> RefundReport:
        """Sent once. EcoCash knows it by our id, so that a lost answer can be traced."""
        dialect = self._dialect(credentials)
        msisdn = msisdn_of(order.payer_phone)
        if order.poll_url and _is_of_another(order.poll_url, dialect.merchant):
            raise NotConfigured(
                "This payment was taken by another merchant's EcoCash account, which is not set up now."
            )
        if msisdn is None:
            raise Refused("The phone number of this payment is not known: refund it at EcoCash.", Because.PHONE)
        reply = await self._send("refund", dialect.refund(order, msisdn), self.start_seconds)
        return refunded(dialect, order, reply)

    async def trace_refund(self, credentials: EcocashCredentials, order: RefundOrder) -> RefundReport | None:
        """Look the refund up by its own id. That EcoCash does not know it is no proof that it was not done."""
        dialect = self._dialect(credentials)
        msisdn = msisdn_of(order.payer_phone)
        if msisdn is None:
            return None
        call = dialect.look_up(dialect.correlator(order.refund_id), msisdn)
        return traced(dialect, order, await self._send("trace_refund", call, self.check_seconds))

    async def verify(self, credentials: EcocashCredentials, callback_url: str) -> Verification:
        """Ask about a payment that never was: whoever may not ask is told so first."""
        dialect = self._dialect(credentials)
        call = dialect.look_up(dialect.correlator(uuid4()), NOBODY)
        reply = await self._send("verify", call, self.check_seconds)
        if not accepted(dialect, reply):
            return Verification(False, dialect.mode, [], [denied(dialect, reply.status)], dialect.account)
        messages = _messages(dialect, callback_url)
        taken = [credentials.currency] if credentials.currency in credentials.takes else []
        return Verification(True, dialect.mode, taken, messages, dialect.account)

    def _dialect(self, credentials: EcocashCredentials) -> Dialect:
        match credentials:
            case OpenApiCredentials():
                return OpenApi(self._open_api, credentials)
            case EipCredentials(portal=True):
                return EipPortal(self._portal_url, credentials, self._refund_type)
            case EipCredentials():
                return Eip(self._eip_url, credentials, self._refund_type)

    async def _send(self, what: str, call: Call, deadline: float) -> Reply:
        return await self._transport.request(
            f"ecocash.{what}", call.method, call.url, call.body, headers=call.headers, deadline=deadline
        )


def _is_of_another(merchant: str, own: str) -> bool:
    """Whether both are known, and are not the same: the merchant's code may be saved later, or never."""
    (dialect, _, code), (own_dialect, _, own_code) = merchant.partition(" "), own.partition(" ")
    return dialect != own_dialect or bool(code and own_code and code != own_code)


def _messages(dialect: Dialect, callback_url: str) -> list[str]:
    path = dialect.callback_path()
    if path is None:
        return [
            "EcoCash accepts the user name and the password.",
            "Whether the merchant's PIN, code and number are right only a payment tells.",
        ]
    return [
        "EcoCash accepts the API key.",
        f"The callback URL to set in EcoCash's portal: {callback_url}/{path}",
        "Without it nothing is lost: every payment is looked up at EcoCash, only some seconds later.",
    ]
