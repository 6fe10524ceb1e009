"""What the story's functions work with, put together once in `app`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from payments_service.db import Database
from payments_service.gateways.registry import Gateways
from payments_service.metrics import Metrics
from payments_service.parsers import Rate
from payments_service.vault import Vault
from payments_service.whatsapp import Cloud, Sender


def now() -> datetime:
    """The present moment, in UTC."""
    return datetime.now(UTC)


class Bell:
    """Wakes the workers of this process that listen. A lost ring costs one poll interval and nothing else: what is
    due stands in the database."""

    def __init__(self) -> None:
        self._listeners: list[asyncio.Event] = []

    def listen(self) -> asyncio.Event:
        """An event of the listener's own, set at every ring; the listener clears it."""
        listener = asyncio.Event()
        self._listeners.append(listener)
        return listener

    def ring(self) -> None:
        for listener in self._listeners:
            listener.set()


@dataclass(frozen=True, slots=True)
class Context:
    """The service's parts. `checks_due`, `events_due` and `messages_due` wake this process's workers at once."""

    db: Database
    vault: Vault
    gateways: Gateways
    public_url: str
    # How many links a tenant may make.
    link_rate: Rate
    # WhatsApp, and the platform's own number there.
    cloud: Cloud
    platform_sender: Sender | None = field(default=None, repr=False)
    whatsapp_app_secret: str | None = field(default=None, repr=False)
    whatsapp_verify_token: str | None = field(default=None, repr=False)
    check_schedule: tuple[int, ...] | None = None
    # Of the platform's own Stripe endpoint; none: it believes nobody.
    stripe_webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    # Whether events are posted to the backend; else they wait to be pulled.
    pushes_events: bool = False
    clock: Callable[[], datetime] = now
    checks_due: Bell = field(default_factory=Bell)
    events_due: Bell = field(default_factory=Bell)
    messages_due: Bell = field(default_factory=Bell)
    metrics: Metrics = field(default_factory=Metrics, repr=False)

    def schedule(self, gateway: str) -> tuple[int, ...]:
        """Seconds between look-ups: CHECK_SCHEDULE, else the gateway's own. The last one repeats."""
        return self.check_schedule or self.gateways[gateway].schedule

    def page_url(self, token: str) -> str:
        """The hosted page of a payment."""
        return f"{self.public_url}/pay/{token}"

    def callback_url(self, gateway: str, client_id: UUID, attempt_id: UUID | None = None) -> str:
        """Where the gateway reports, to the tenant or of one attempt. The tenant is in the path: a reference alone
        never names one."""
        rest = f"/{attempt_id}" if attempt_id else ""
        return f"{self.public_url}/callbacks/{gateway}/{client_id}{rest}"
