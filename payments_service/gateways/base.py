"""What every gateway adapter is: values in, values out. No database, no web framework, no untyped dictionaries.

An adapter raises the errors of `payments_service.errors` by what the caller may conclude: `Refused`, `Unreachable`,
`Ambiguous`, `Untrusted`. It never turns a lost or odd answer into a failed payment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable
from uuid import UUID

import msgspec

from payments_service.lifecycle import RefundReport, Report
from payments_service.money import Currency, Money

# What the customer does next. The pay page matches on it, not on the gateway; it is kept with the attempt as JSON.


class Redirect(msgspec.Struct, frozen=True, tag="redirect"):
    """The customer goes on at the gateway's own page, which ends unpaid at `expires_at`."""

    url: str
    expires_at: datetime | None = None


class ApproveOnPhone(msgspec.Struct, frozen=True, tag="approve_on_phone"):
    """A prompt has come up on the customer's phone. `instructions` are the gateway's own words, perhaps none."""

    instructions: str = ""


class ShowCode(msgspec.Struct, frozen=True, tag="show_code"):
    """The customer types or scans `code` in the wallet's app, until `expires_at`. `app_url` opens the app with it;
    `dial` is a number at which it can be paid too, from any phone."""

    code: str
    expires_at: datetime | None = None
    app_url: str | None = None
    dial: str | None = None


class EnterOtp(msgspec.Struct, frozen=True, tag="enter_otp"):
    """The customer types the one-time password that the gateway has sent by SMS; it is passed on to `url`.

    `reference` is shown beside it. `tries` counts the passwords that were passed on; of the last one, passed on at
    `awaiting_since`, no answer is known, or that it was taken.
    """

    url: str
    reference: str = ""
    tries: int = 0
    awaiting_since: datetime | None = None


class Wait(msgspec.Struct, frozen=True, tag="wait"):
    """The customer has done all there is to do: somebody else, such as a bank, sends the money, perhaps for days."""


NextStep = Redirect | ApproveOnPhone | ShowCode | EnterOtp | Wait


class Kind(StrEnum):
    """Where the money comes from, as customers think of it. In the order in which they are offered it."""

    WALLET = "wallet"  # on the phone
    CARD = "card"
    PAGE = "page"  # whatever the gateway's own page offers


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay at a gateway. `name` stays with the attempt and is the same wherever the same wallet is behind it,
    `title` is how customers know it, `step` is what they will do."""

    name: str
    title: str
    step: type[NextStep]
    needs_phone: bool = False
    kind: Kind = Kind.WALLET


@dataclass(frozen=True, slots=True)
class StartRequest:
    """One try to pay, recorded by us before the gateway hears of it."""

    attempt_id: UUID
    method: str  # the name of one of the gateway's methods
    reference: str  # ours, unique for this attempt
    amount: Money
    description: str
    return_url: str  # where the customer's browser comes back to
    callback_url: str  # where the gateway reports
    page_url: str = ""  # our own page, where a customer goes back to who does not pay after all
    # Which payment of which tenant it is, and when its link ends.
    payment_id: UUID | None = None
    client_id: UUID | None = None
    expires_at: datetime | None = None
    payer_email: str | None = field(default=None, repr=False)
    payer_phone: str | None = field(default=None, repr=False)  # E.164


@dataclass(frozen=True, slots=True)
class Started:
    """The gateway accepted the attempt. `poll_url`, what it is asked by (a URL, or its own name of the attempt), is
    stored before anybody sees the next step."""

    next_step: NextStep
    poll_url: str | None
    gateway_reference: str | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """An attempt as a look-up needs it."""

    attempt_id: UUID
    reference: str
    amount: Money
    poll_url: str | None
    started_at: datetime
    payer_phone: str | None = field(default=None, repr=False)  # E.164


@dataclass(frozen=True, slots=True)
class Message:
    """What was posted to a callback address, as it came. `headers` by lower-case name; `address` is what the address
    had besides the tenant: of a gateway that signs nothing, all that proves who sent it."""

    body: bytes
    headers: Mapping[str, str]
    received_at: datetime
    address: str = ""


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback that verified: a hint that something happened to an attempt; with a `report`, the proof of it.

    The attempt is named by our `reference` or `attempt_id` (by both: both must fit), or by the gateway's
    `gateway_reference`. `fields` is what may be kept as evidence: secrets and personal data are left out by the
    adapter. `key` is the gateway's own name of the message; without one it is known by its bytes.
    """

    reference: str | None
    said: str
    fields: Mapping[str, str]
    key: str | None = None
    attempt_id: UUID | None = None
    gateway_reference: str | None = None
    report: Report | None = None


@dataclass(frozen=True, slots=True)
class RefundOrder:
    """A refund, recorded by us before the gateway hears of it. `gateway_reference`, `attempt_id`, `payer_phone` and
    `poll_url` are the payment's."""

    refund_id: UUID
    gateway_reference: str
    amount: Money
    reason: str
    attempt_id: UUID
    payer_phone: str | None = field(default=None, repr=False)  # E.164
    poll_url: str | None = None


class Verification(msgspec.Struct, frozen=True):
    """What a gateway says of credentials, for people: `ok` when payments can be taken with them; `mode` `live`, `test`
    or None where it does not say; `messages` what was found and what is missing."""

    ok: bool
    mode: str | None
    currencies: list[Currency]
    messages: list[str]
    account: str | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """A webhook endpoint in a tenant's own account; `former` are the ids of those that led to its URL before it was
    made. The secret never prints."""

    id: str
    url: str
    api_version: str | None
    events: list[str]
    secret: str
    former: list[str] = []

    def __repr__(self) -> str:
        return f"Endpoint({self.id})"


class TooMuch(Exception):
    """More than can be read at once: ask for a shorter time."""


class Credentials(Protocol):
    """A tenant's credentials for one gateway and currency. They never print."""


C = TypeVar("C", bound=Credentials)

# Fields of payment-settings: all of any one set.
FieldSets = tuple[tuple[str, ...], ...]


class Gateway(Protocol[C]):
    """The contract of an adapter; the registry-wide suite runs over every one of them."""

    name: ClassVar[str]
    title: ClassVar[str]  # how customers know it
    settings: ClassVar[tuple[str, ...]]  # the fields of payment-settings that say whose account it is, and prove it
    preferences: ClassVar[tuple[str, ...]]  # the other fields of payment-settings that it reads
    # `<name>_configured` of payment-settings, and what of `settings` it takes.
    configured_by: ClassVar[Mapping[str, FieldSets]]
    methods: ClassVar[tuple[Method, ...]]  # in the order in which customers are offered them
    currencies: ClassVar[frozenset[Currency]]
    # Seconds between one look-up and the next; the last one repeats until day 31.
    schedule: ClassVar[tuple[int, ...]]
    # So long after the start a look-up that finds nothing may only be early.
    settles: ClassVar[timedelta]
    # So long its name of an attempt is nobody else's; None: for ever.
    recognises: ClassVar[timedelta | None]
    # An attempt that ended unpaid is asked about once more at these ages: there the end is not always the last word.
    looks_after_end: ClassVar[tuple[timedelta, ...]]

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> C:
        """The credentials for this currency, or NotConfigured in plain words."""
        ...

    def page_origins(self) -> tuple[str, ...]:
        """Scheme and host of the gateway's own pages that a customer may be sent to."""
        ...

    def offered(self, credentials: C, payer_email: str | None, amount: Money) -> tuple[Method, ...]:
        """Those of `methods` that are open to this tenant, and a customer of whom this e-mail is known, for so much."""
        ...

    async def start(self, credentials: C, request: StartRequest) -> Started:
        """Ask the gateway to take the payment. Sent once; never retried by itself.

        Raises Refused, Unreachable, Ambiguous or Untrusted.
        """
        ...

    async def check(self, credentials: C, attempt: Opened) -> Report:
        """Ask the gateway what became of the attempt: the proof.

        An answer that is missing or odd is a report of UNKNOWN, or raises Unreachable, Ambiguous or Untrusted.
        """
        ...

    async def verify(self, credentials: C, callback_url: str) -> Verification:
        """Ask the gateway what it says of these credentials; changes nothing there. `callback_url` is where it would
        report to this tenant. Raises Unreachable, Ambiguous or Untrusted."""
        ...


@runtime_checkable
class CallsBack(Protocol):
    """What a gateway has besides that reports by itself. `callback_is_proof`: what it reports proves itself."""

    callback_is_proof: ClassVar[bool]

    def read_callback(self, credentials: Any, message: Message) -> Callback | None:
        """Verify a callback; None for one that is genuine but about nothing of ours. Raises Untrusted, saying why in
        words without secrets."""
        ...


@runtime_checkable
class TakesOtp(Protocol):
    """What a gateway has besides, one of whose methods leads to EnterOtp."""

    async def confirm(self, credentials: Any, attempt: Opened, url: str, otp: str) -> None:
        """Pass the customer's one-time password on to the address of the step. Sent once; never retried by itself.

        Returns when the gateway has taken it; only a look-up proves that money came. Raises NotAccepted when it was
        wrong or came too late, else Unreachable, Ambiguous or Untrusted.
        """
        ...


@runtime_checkable
class Withdraws(Protocol):
    """What a gateway has besides that can end an attempt which is still open there."""

    async def withdraw(self, credentials: Any, attempt: Opened) -> Report:
        """End it, so that no money can come from it any more; what became of it: LAPSED, or what it was faster with.

        Raises Unreachable, Ambiguous or Untrusted.
        """
        ...


@runtime_checkable
class Refunds(Protocol):
    """What a gateway has besides that gives money back by itself."""

    async def refund(self, credentials: Any, order: RefundOrder) -> RefundReport:
        """Ask for the refund. Done once: sent again by itself only where the gateway knows it by our id.

        Raises Refused, Unreachable, Ambiguous or Untrusted, and NotConfigured where another account took the money.
        """
        ...


@runtime_checkable
class TracesRefunds(Protocol):
    """What a gateway has besides whose look-ups of a payment do not tell of its refunds."""

    async def trace_refund(self, credentials: Any, order: RefundOrder) -> RefundReport | None:
        """Ask what became of a refund whose answer was lost, by our own id. None where nothing follows from the answer:
        it may have been done all the same.

        Raises Refused, Unreachable, Ambiguous or Untrusted.
        """
        ...


@runtime_checkable
class Sweeps(Protocol):
    """What a gateway has besides that keeps the messages which it could not deliver.

    `swept_with` is the field of payment-settings without which it cannot be asked.
    """

    name: ClassVar[str]
    swept_with: ClassVar[str]
    currencies: ClassVar[frozenset[Currency]]

    async def missed(self, credentials: Any, callback_url: str, since: datetime, until: datetime) -> list[Callback]:
        """What it has to tell of that time, oldest first: proofs, like callbacks that verified. What was delivered to
        `callback_url` may be left out.

        Raises TooMuch, Refused, Unreachable, Ambiguous or Untrusted.
        """
        ...


@runtime_checkable
class Provisions(Protocol):
    """What a gateway has besides whose callback address can be set up in the tenant's account from here.

    `secret_field` is the field of payment-settings that the endpoint's secret is saved in.
    """

    secret_field: ClassVar[str]

    async def provision(self, credentials: Any, url: str) -> Endpoint:
        """A new endpoint at `url`, beside those that are there. Raises Refused and the others."""
        ...

    async def retire(self, credentials: Any, endpoint_ids: Sequence[str]) -> None:
        """Remove these endpoints. Raises as `provision`."""
        ...
