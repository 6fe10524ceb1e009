"""What every gateway adapter is: values in, values out. No database, no web framework, no untyped dictionaries.

An adapter raises the errors of `payments_service.errors` by what the caller may conclude: `Refused`, `Unreachable`,
`Ambiguous`, `Untrusted`. It never turns a lost or odd answer into a failed payment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable
from uuid import UUID

import msgspec

from payments_service.lifecycle import Report
from payments_service.money import Currency, Money

# What the customer does next. The pay page matches on it, not on the gateway; it is kept with the attempt as JSON.


class Redirect(msgspec.Struct, frozen=True, tag="redirect"):
    """The customer goes on at the gateway's own page."""

    url: str


class ApproveOnPhone(msgspec.Struct, frozen=True, tag="approve_on_phone"):
    """A prompt has come up on the customer's phone. `instructions` are the gateway's own words, perhaps none."""

    instructions: str = ""


class ShowCode(msgspec.Struct, frozen=True, tag="show_code"):
    """The customer types or scans `code` in the wallet's app, until `expires_at`. `app_url` opens the app with it."""

    code: str
    expires_at: datetime | None = None
    app_url: str | None = None


class EnterOtp(msgspec.Struct, frozen=True, tag="enter_otp"):
    """The customer types the one-time password that the gateway has sent by SMS; it is passed on to `url`.

    `reference` is shown beside it. `tries` counts the passwords that were passed on; of the last one, passed on at
    `awaiting_since`, no answer is known, or that it was taken.
    """

    url: str
    reference: str = ""
    tries: int = 0
    awaiting_since: datetime | None = None


NextStep = Redirect | ApproveOnPhone | ShowCode | EnterOtp


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay at a gateway. `name` stays with the attempt, `title` is how customers know it, `step` is what
    they will do."""

    name: str
    title: str
    step: type[NextStep]
    needs_phone: bool = False


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
    payer_email: str | None = field(default=None, repr=False)
    payer_phone: str | None = field(default=None, repr=False)  # E.164


@dataclass(frozen=True, slots=True)
class Started:
    """The gateway accepted the attempt. `poll_url` is stored before anybody sees the next step."""

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


@dataclass(frozen=True, slots=True)
class Callback:
    """A callback that verified: a hint that something happened to the attempt with this reference.

    `fields` is what may be kept as evidence: secrets and personal data are left out by the adapter.
    """

    reference: str
    said: str
    fields: Mapping[str, str]


class Credentials(Protocol):
    """A tenant's credentials for one gateway and currency. They never print."""


C = TypeVar("C", bound=Credentials)


class Gateway(Protocol[C]):
    """The contract of an adapter; the registry-wide suite runs over every one of them."""

    name: ClassVar[str]
    title: ClassVar[str]  # how customers know it
    settings: ClassVar[tuple[str, ...]]  # the fields of payment-settings that say whose account it is, and prove it
    preferences: ClassVar[tuple[str, ...]]  # the other fields of payment-settings that it reads
    methods: ClassVar[tuple[Method, ...]]  # in the order in which customers are offered them
    currencies: ClassVar[frozenset[Currency]]
    callback_is_proof: ClassVar[bool]
    # Seconds between one look-up and the next; the last one repeats until day 31.
    schedule: ClassVar[tuple[int, ...]]

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> C:
        """The credentials for this currency, or NotConfigured in plain words."""
        ...

    def page_origin(self) -> str | None:
        """Scheme and host of the gateway's own pages that a customer may be sent to."""
        ...

    def offered(self, credentials: C, payer_email: str | None) -> tuple[Method, ...]:
        """Those of `methods` that are open to this tenant and a customer of whom this e-mail is known."""
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

    def read_callback(self, credentials: C, body: bytes) -> Callback:
        """Verify a callback. Raises Untrusted, saying why in words without secrets."""
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
