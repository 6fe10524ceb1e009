"""Webhooks of the simulated Stripe: signed like the real ones, to this machine only, resent when refused."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import msgspec
from yarl import URL

from payments_service.sandbox.outbound import KEPT, Outbound, Posted
from payments_service.sandbox.stripe_accounts import Account, Endpoint, Event, Object

# The real one resends for three days, ever more slowly (https://docs.stripe.com/webhooks#retries); these suit a test.
RESEND_AFTER = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Posted):
    """One try to tell an endpoint of an event."""

    event: str
    type: str
    endpoint: str
    headers: dict[str, str]

    @property
    def accepted(self) -> bool:
        """Stripe is content with 2xx only: a redirect is a failure."""
        return self.status is not None and 200 <= self.status < 300


def encode(content: Object) -> bytes:
    """JSON as Stripe writes it: indented by two blanks. The signature is over these very bytes."""
    return msgspec.json.format(msgspec.json.encode(content), indent=2)


def signature(body: bytes, secrets: Iterable[str], timestamp: int) -> str:
    """`t=…,v1=…`: HMAC-SHA256 over `{t}.{body}`, keyed with the whole `whsec_…` text, one `v1` per secret.

    Source: https://docs.stripe.com/webhooks#verify-manually.
    """
    payload = f"{timestamp}.".encode() + body
    marks = [hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={timestamp}", *(f"v1={mark}" for mark in marks)])


@dataclass(kw_only=True)
class Webhooks(Outbound):
    """Posts events to the endpoints of their account. `clock` gives the Unix time that is signed.

    `drop`: nothing is posted; every delivery counts as failed, and is not tried again.
    """

    clock: Callable[[], float] = time.time
    resend_after: Sequence[float] = RESEND_AFTER
    drop: bool = False
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=KEPT))

    def announce(self, account: Account, event: Event, *, send: bool = True) -> None:
        """Start the deliveries to every endpoint that wants the event; without `send` they are only owed."""
        for endpoint in account.endpoints.values():
            if endpoint.wants(event.object["type"]):
                event.waiting.add(endpoint.id)
                if send:
                    self.background(self._deliver(account, endpoint, event))

    def resend(self, account: Account, event: Event) -> None:
        """Once more to every endpoint that wants it, as by the dashboard's button."""
        for endpoint in account.endpoints.values():
            if endpoint.wants(event.object["type"]):
                self.background(self._deliver(account, endpoint, event))

    async def _deliver(self, account: Account, endpoint: Endpoint, event: Event) -> None:
        target = URL(endpoint.object["url"])
        refusal = self.refusal(target) or ("dropped: drop_webhooks is on" if self.drop else "")
        for wait in (0.0, *self.resend_after):
            await asyncio.sleep(wait)
            if account.endpoints.get(endpoint.id) is not endpoint or endpoint.object["status"] != "enabled":
                return  # deleted or disabled meanwhile
            if await self._try(account, endpoint, event, target, refusal):
                event.waiting.discard(endpoint.id)
                return
            if refusal:
                return

    async def _try(self, account: Account, endpoint: Endpoint, event: Event, target: URL, refusal: str) -> bool:
        version = endpoint.object["api_version"] or account.api_version
        body = encode(event.shown() | {"api_version": version})
        now = self.clock()
        headers = {
            "Accept": "*/*; q=0.5, application/xml",
            "Cache-Control": "no-cache",
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, endpoint.valid(now), int(now)),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        status, error = (None, refusal) if refusal else await self.post(target, body, headers)
        delivery = Delivery(
            event=event.object["id"],
            type=event.object["type"],
            endpoint=endpoint.id,
            url=str(target),
            body=body,
            headers=headers,
            status=status,
            error=error,
        )
        self.deliveries.append(delivery)
        return delivery.accepted
