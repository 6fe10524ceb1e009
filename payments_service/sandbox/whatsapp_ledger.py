"""What the simulated WhatsApp knows and does, without HTTP: numbers, messages of both sides, what becomes of them."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from payments_service.sandbox import whatsapp_errors, whatsapp_events, whatsapp_faults, whatsapp_preview
from payments_service.sandbox.faults import Fault, Faults
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.lifetime import Lifetime
from payments_service.sandbox.whatsapp_errors import ERRORS, Object, Refusal, Trouble
from payments_service.sandbox.whatsapp_faults import OUTCOME, STATUS, Kind
from payments_service.sandbox.whatsapp_messages import Draft, Message, Sender, Status, Written, new_id, wa_id_of
from payments_service.sandbox.whatsapp_webhooks import Event, Webhooks

WINDOW_SECONDS = 24 * 3600.0

_UNREAD: tuple[Status, ...] = ("accepted", "sent", "delivered")
_UNDELIVERED: tuple[Status, ...] = ("accepted", "sent")


class WhatsappLedger(Lifetime):
    """The state of one simulated WhatsApp and everything that a test or a person may do to it.

    `public_url` is the address of the server, such as `http://127.0.0.1:8082`; it may be set once the port is known.
    `clock` gives Unix seconds: the window of 24 hours and the pace go by it. `calls` counts requests (`send`, `absent`
    for addresses that there are not, `redirected` for whoever followed the redirect fault), `refusals` the codes that
    were answered. `messages` are those that were accepted, oldest first. `add_fault` plans one (see
    `whatsapp_faults.plan`), `clear_faults` forgets them. Actions need a running loop, for webhooks are posted in its
    background. Close it, or use it as `async with`.
    """

    def __init__(self, public_url: str, webhooks: Webhooks) -> None:
        self.public_url = public_url
        self.webhooks = webhooks
        self.clock: Callable[[], float] = time.time
        self.senders: dict[str, Sender] = {}
        self.messages: list[Message] = []
        self.written: list[Written] = []
        self.faults = Faults(whatsapp_faults.plan)
        self.add_fault, self.clear_faults = self.faults.add, self.faults.forget
        self.calls: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        # Where the button of a template leads that has no URL of its own: the service's pay page.
        self.button_url = "http://127.0.0.1:8081/pay/{{1}}"
        # Switches: what Meta does now so, now so, and what a test needs.
        self.delay_seconds = 0.0
        self.pair_seconds = 6.0
        self.window_refusal: Literal["status", "http"] = "status"
        self.delivers = True
        self.receipts = True
        self._by_id: dict[str, Message] = {}
        self._by_data: dict[str, Message] = {}
        self._last_sent: dict[tuple[str, str], float] = {}
        self._last_written: dict[tuple[str, str], float] = {}

    async def close(self) -> None:
        """Drop the webhooks that are under way, and the connections."""
        await self.webhooks.close()

    async def settled(self) -> None:
        """Wait until no webhook is under way, resends included; those that are held stay."""
        await self.webhooks.settled()

    @property
    def url(self) -> str:
        """The API's base URL: what `WHATSAPP_URL` is set to."""
        return f"{self.public_url}/whatsapp"

    # --- the business's numbers

    def add_sender(self, phone_number_id: str, token: str, phone: str, account: str, name: str) -> Sender:
        """Make a number known, or replace it. It has no templates yet; one token may send from several numbers."""
        sender = self.senders[phone_number_id] = Sender(phone_number_id, token, phone, account, name)
        return sender

    def has_token(self, token: str) -> bool:
        return any(sender.token == token for sender in self.senders.values())

    def sender(self, phone_number_id: str) -> Sender:
        """Raises UnknownReference."""
        if phone_number_id not in self.senders:
            raise UnknownReference(f"no number has the id {phone_number_id!r}")
        return self.senders[phone_number_id]

    async def subscribe(self, url: str) -> None:
        """Verify this address as Meta does, and post webhooks there. WrongMove: it does not answer as it should."""
        await self.webhooks.subscribe(url)

    # --- sending

    def accept(self, sender: Sender, draft: Draft) -> Message:
        """Send it, and tell what becomes of it. Raises Refusal: too fast, or outside the window if that is answered."""
        now, wa_id = self.clock(), wa_id_of(draft.to)
        pair = (sender.phone_number_id, wa_id)
        if now - self._last_sent.get(pair, -math.inf) < self.pair_seconds:
            raise Refusal(whatsapp_errors.too_fast())
        trouble = self._trouble(sender, draft)
        self._last_sent[pair] = now
        message = Message(new_id(wa_id), sender, draft, now)
        self.messages.append(message)
        self._by_id[message.id] = message
        if draft.callback_data:
            self._by_data[draft.callback_data] = message
        self._begin(message, trouble)
        return message

    def _trouble(self, sender: Sender, draft: Draft) -> Trouble | None:
        """Why the message is going to fail, or Refusal for what is answered at once."""
        if draft.kind == "text" and not self.in_window(sender, draft.to):
            if self.window_refusal == "http":
                raise Refusal(whatsapp_errors.outside_window())
            return whatsapp_errors.outside_window()
        if draft.to == sender.phone:
            return ERRORS[131021]
        fault = self.use_fault(OUTCOME, draft)
        return fault.kind.trouble if fault else None

    def _begin(self, message: Message, trouble: Trouble | None) -> None:
        if trouble:
            self._move(message, "failed", trouble=trouble)
        elif self.delivers:
            self._move(message, "sent", "delivered")
        else:
            self._move(message, "sent")

    def in_window(self, sender: Sender, to: str) -> bool:
        """Whether the customer wrote to this number within the last 24 hours."""
        last = self._last_written.get((sender.phone_number_id, wa_id_of(to)), -math.inf)
        return self.clock() - last < WINDOW_SECONDS

    # --- what became of it

    def find(self, name: str) -> Message:
        """The message with this id; else the newest whose callback data this is or leads, or to this number.

        Raises UnknownReference.
        """
        for known in (self._by_id, self._by_data):
            if name in known:
                return known[name]
        found = next((one for one in reversed(self.messages) if one.draft.is_named(name)), None)
        if found is None:
            raise UnknownReference(f"no message has the id, the callback data or the number {name!r}")
        return found

    def counts(self) -> Counter[tuple[str, str]]:
        """How many messages were accepted, by (number in E.164, callback data)."""
        return Counter((one.draft.to, one.draft.callback_data) for one in self.messages)

    def deliver(self, name: str) -> Message:
        """The customer's phone is there again. It and its siblings raise UnknownReference, and WrongMove."""
        return self._move(self._at(name, _UNDELIVERED), "delivered")

    def read(self, name: str) -> Message:
        """The customer reads the message; the business is told with receipts on only."""
        return self._read(self._at(name, _UNREAD))

    def fail(self, name: str, code: int = 131026) -> Message:
        """The message cannot be delivered after all. ValueError: a code that nobody knows."""
        if code not in ERRORS:
            raise ValueError(f"there is no error {code}; there are {', '.join(map(str, ERRORS))}")
        return self._move(self._at(name, _UNDELIVERED), "failed", trouble=ERRORS[code])

    def repeat(self, name: str) -> Message:
        """Tell the present status once more, as Meta now and then does."""
        message = self.find(name)
        self._announce(message, [message.status])
        return message

    def _at(self, name: str, statuses: Sequence[Status]) -> Message:
        message = self.find(name)
        if message.status not in statuses:
            raise WrongMove(f"the message is {message.status}, not {' or '.join(statuses)}")
        return message

    def _read(self, message: Message) -> Message:
        return self._move(message, "read", told=self.receipts)

    def _move(self, message: Message, *statuses: Status, trouble: Trouble | None = None, told: bool = True) -> Message:
        message.status, message.trouble = statuses[-1], trouble
        if told:
            self._announce(message, statuses)
        return message

    def _announce(self, message: Message, statuses: Iterable[Status]) -> None:
        events = [whatsapp_events.status_event(message, status, self.clock()) for status in statuses]
        fault = self.use_fault(STATUS, message.draft)
        if fault is None:
            self.webhooks.tell(events, message.turn)
        else:
            kind = fault.kind
            self.webhooks.tell(kind.arrange(events), message.turn, after=fault.seconds, sign=kind.sign)

    # --- the customer

    def write(self, number: str, phone_number_id: str, text: str) -> Written:
        """The customer writes to a business: the window opens, and the business is told. ValueError: nothing written.

        The number as anybody writes it; UnknownReference: no business has this id.
        """
        sender, wa_id = self.sender(phone_number_id), wa_id_of(number)
        if not text.strip():
            raise ValueError("there is nothing written")
        written = Written(new_id(wa_id), sender, wa_id, text.strip(), self.clock())
        self.written.append(written)
        self._last_written[phone_number_id, wa_id] = written.at
        self.webhooks.tell([whatsapp_events.written_event(written)])
        return written

    def open_chat(self, number: str, phone_number_id: str) -> list[Message | Written]:
        """The chat as the customer sees it, oldest first: what had arrived is read from now on."""
        for message in self.arrived(number):
            if message.sender.phone_number_id == phone_number_id and message.status == "delivered":
                self._read(message)
        chat: list[Message | Written] = [*self.arrived(number), *self.written_by(number)]
        return sorted((one for one in chat if one.sender.phone_number_id == phone_number_id), key=lambda one: one.at)

    def arrived(self, number: str) -> list[Message]:
        """The messages that this phone shows, oldest first."""
        wa_id = wa_id_of(number)
        return [one for one in self.messages if one.wa_id == wa_id and one.arrived]

    def written_by(self, number: str) -> list[Written]:
        wa_id = wa_id_of(number)
        return [one for one in self.written if one.wa_id == wa_id]

    async def draw_card(self, message: Message) -> None:
        """Look at the page that the message links to, once it tells something; see `Message.card`."""
        if message.draft.preview and message.draft.link and message.card is None:
            message.card = await whatsapp_preview.look(self.webhooks, message.draft.link)

    def announce(self, field: str, value: Object, phone_number_id: str) -> None:
        """Post a change of another field, of those that have nothing to do with messages."""
        sender = self.sender(phone_number_id)
        self.webhooks.tell([Event(sender, field, value, field, field)])

    def use_fault(self, operation: str, draft: Draft) -> Fault[Kind] | None:
        """The first planned fault that strikes this message here, counted as used once more."""
        return next(self.faults.striking(operation, draft.is_named), None)
