"""What every gateway adapter is: values in, values out. No database, no web framework, no untyped dictionaries.

An adapter raises the errors of `payments_service.errors` by what the caller may conclude: `Refused`, `Unreachable`,
`Ambiguous`, `Untrusted`. It never turns a lost or odd answer into a failed payment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import ClassVar, Protocol, TypeVar
from uuid import UUID

from payments_service.lifecycle import Report
from payments_service.money import Currency, Money


@dataclass(frozen=True, slots=True)
class StartRequest:
    """One try to pay, recorded by us before the gateway hears of it."""

    attempt_id: UUID
    reference: str  # ours, unique for this attempt
    amount: Money
    description: str
    return_url: str  # where the customer's browser comes back to
    callback_url: str  # where the gateway reports
    payer_email: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Redirect:
    """The customer goes on at the gateway's own page."""

    url: str


# The pay page matches on the next step, not on the gateway. Prompts, codes and one-time passwords join here.
NextStep = Redirect


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
    settings: ClassVar[tuple[str, ...]]  # the fields of payment-settings that it reads
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
