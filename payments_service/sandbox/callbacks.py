"""Server-to-server messages of a simulator: posted to this machine only, resent when refused, all on record."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from yarl import URL

from payments_service.sandbox.outbound import KEPT, Outbound, Posted

M = TypeVar("M")

# Paynow resends up to ten times at intervals it does not publish (section 4); these suit a test.
RESEND_AFTER = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 3.0, 3.0, 3.0, 3.0)

_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Posted):
    """One try of a callback about what has this reference."""

    reference: str

    @property
    def accepted(self) -> bool:
        """Answered with anything but an HTTP error: Paynow is content with that, others most probably too."""
        return self.status is not None and self.status < 400


@dataclass(frozen=True, slots=True)
class Batch(Generic[M]):
    """Messages posted at the same time, `after` seconds from the end of the batch before."""

    messages: list[M]
    after: float = 0.0


def late(batches: list[Batch[M]], seconds: float) -> list[Batch[M]]:
    """All so much later."""
    return [replace(batches[0], after=batches[0].after + seconds), *batches[1:]] if batches else []


def twice(batches: list[Batch[M]]) -> list[Batch[M]]:
    return [replace(batch, messages=batch.messages * 2) for batch in batches]


@dataclass(kw_only=True)
class Callbacks(Outbound):
    """Posts messages in background tasks that `close` ends. It refuses every host but loopback ones."""

    resend_after: Sequence[float] = RESEND_AFTER
    content_type: str = _FORM
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=KEPT))

    def start(self, reference: str, url: str, batches: list[Batch[bytes]]) -> None:
        """Post the batches one after the other, in the background of the running loop."""
        self.background(self._post_batches(reference, url, batches))

    async def _post_batches(self, reference: str, url: str, batches: list[Batch[bytes]]) -> None:
        for batch in batches:
            await asyncio.sleep(batch.after)
            await asyncio.gather(*(self._post_until_accepted(reference, url, body) for body in batch.messages))

    async def _post_until_accepted(self, reference: str, url: str, body: bytes) -> None:
        target = URL(url)
        if error := self.refusal(target):
            self.deliveries.append(Delivery(reference=reference, url=url, body=body, error=error))
            return
        for wait in (0.0, *self.resend_after):
            await asyncio.sleep(wait)
            status, error = await self.post(target, body, {"Content-Type": self.content_type})
            delivery = Delivery(reference=reference, url=url, body=body, status=status, error=error)
            self.deliveries.append(delivery)
            if delivery.accepted:
                return
