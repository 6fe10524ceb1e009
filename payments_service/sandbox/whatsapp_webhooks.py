"""Webhooks of the simulated WhatsApp: subscribed, signed, put together like the real ones; to this machine only."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import itertools
import json
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from yarl import URL

from payments_service.sandbox.hands import WrongMove
from payments_service.sandbox.outbound import KEPT, Outbound, Posted
from payments_service.sandbox.whatsapp_errors import Object
from payments_service.sandbox.whatsapp_messages import Sender

# The real one resends for days, ever more slowly; these suit a test.
RESEND_AFTER = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5)

_MOST_OF_AN_ANSWER = 1_000  # bytes: what is echoed is short

# The value of the header for these bytes, or None for no header.
Sign = Callable[[bytes, str], str | None]


@dataclass(frozen=True, slots=True)
class Event:
    """One status, one message of a customer (`part` is `statuses` or `messages`), or with another `field` anything.

    `said` is what the overview tells of it.
    """

    sender: Sender
    part: str
    content: Object
    said: str
    field: str = "messages"
    contacts: tuple[Object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Posted):
    """One try; `said` is what the overview tells of it."""

    said: str
    headers: dict[str, str]

    @property
    def accepted(self) -> bool:
        return self.status == 200


def encode(content: Object) -> bytes:
    """JSON as Meta writes it: `\\u00e9` for é and `\\/` for a slash. The signature is over these very bytes."""
    return json.dumps(content, separators=(",", ":")).replace("/", "\\/").encode("ascii")


def signed(body: bytes, secret: str) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def badly_signed(body: bytes, secret: str) -> str:
    """Right in form, made with another secret."""
    return signed(body, f"not {secret}")


def unsigned(_body: bytes, _secret: str) -> None:
    return None


def bundled(events: Iterable[Event]) -> Object:
    """One body: an entry for each business account, in it a change for each run of events of one kind."""
    entries: dict[str, list[Object]] = {}
    for (account, _, _, _), run in itertools.groupby(events, _place):
        entries.setdefault(account, []).append(_change(list(run)))
    told = [{"id": account, "changes": changes} for account, changes in entries.items()]
    return {"object": "whatsapp_business_account", "entry": told}


def _place(event: Event) -> tuple[str, str, str, int]:
    apart = id(event) if event.part != "statuses" else 0  # only statuses come several in one change
    return event.sender.account, event.sender.phone_number_id, event.field, apart


def _change(run: list[Event]) -> Object:
    event = run[0]
    if event.field != "messages":
        return {"value": event.content, "field": event.field}
    metadata = {
        "display_phone_number": event.sender.phone.removeprefix("+"),
        "phone_number_id": event.sender.phone_number_id,
    }
    value: Object = {"messaging_product": "whatsapp", "metadata": metadata}
    if event.contacts:
        value["contacts"] = list(event.contacts)
    return {"value": value | {event.part: [one.content for one in run]}, "field": event.field}


@dataclass(kw_only=True)
class Webhooks(Outbound):
    """Posts events to the address that the app subscribed, `batch_size` of them in one body.

    `hold`: events only gather, until `release`.
    """

    secret: str
    verify_token: str
    url: str = ""
    batch_size: int = 1
    hold: bool = False
    resend_after: Sequence[float] = RESEND_AFTER
    held: list[Event] = field(default_factory=list)
    deliveries: deque[Delivery] = field(default_factory=lambda: deque(maxlen=KEPT))

    async def subscribe(self, url: str) -> None:
        """Have this address say the challenge back, as Meta does, and post there from now on. WrongMove: it fails."""
        target = URL(url)
        if refusal := self.refusal(target):
            raise WrongMove(refusal)
        challenge = str(secrets.randbelow(10**10))
        asked = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": self.verify_token}
        answer = await self.fetch(str(target.update_query(asked)), {"Accept": "*/*"}, _MOST_OF_AN_ANSWER)
        if answer is None or answer.body.decode("utf-8", "replace") != challenge:
            raise WrongMove("The URL couldn't be validated: it did not answer 200 with the challenge.")
        self.url = url

    def tell(
        self, events: Sequence[Event], turn: asyncio.Lock | None = None, *, after: float = 0.0, sign: Sign = signed
    ) -> None:
        """Post them one after the other in the background, when it is their turn and `after` seconds; or hold them."""
        if self.hold:
            self.held.extend(events)
        elif events:
            self.background(self._post_in_turn(events, turn or asyncio.Lock(), after, sign))

    def release(self, seed: int | None = None) -> None:
        """Post what was held, shuffled by the seed if there is one, and hold nothing any more."""
        self.hold, events, self.held = False, self.held, []
        if seed is not None:
            random.Random(seed).shuffle(events)  # noqa: S311 - to be repeated, not to be secret
        self.tell(events)

    async def _post_in_turn(self, events: Sequence[Event], turn: asyncio.Lock, after: float, sign: Sign) -> None:
        await asyncio.sleep(after)
        async with turn:
            for batch in _batches(events, self.batch_size):
                await self._post_until_accepted(batch, sign)

    async def _post_until_accepted(self, events: Sequence[Event], sign: Sign) -> None:
        body = encode(bundled(events))
        headers = {"Content-Type": "application/json", "User-Agent": "facebookexternalua"}
        if mark := sign(body, self.secret):
            headers["X-Hub-Signature-256"] = mark
        said = ", ".join(event.said for event in events)
        for wait in (0.0, *self.resend_after):
            await asyncio.sleep(wait)
            if not self.url:
                return  # nobody subscribed, or nobody does any more
            status, error = await self.post(URL(self.url), body, headers)
            delivery = Delivery(said=said, url=self.url, body=body, headers=headers, status=status, error=error)
            self.deliveries.append(delivery)
            if delivery.accepted:
                return


def _batches(events: Sequence[Event], size: int) -> Iterator[Sequence[Event]]:
    return (events[start : start + size] for start in range(0, len(events), size))
