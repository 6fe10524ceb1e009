"""The customer's WhatsApp, as pages on the phone: the list of chats, and a chat in which links are tapped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.hands import UnknownReference
from payments_service.sandbox.local import HARARE, is_local_number
from payments_service.sandbox.phone_line import Call
from payments_service.sandbox.rendering import form, go, missing, picture_page, root
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.sandbox.whatsapp_messages import Message, Sender, Written, local_number, wa_id_of
from payments_service.sandbox.whatsapp_preview import Card

_LIST = "/phone/{number}/whatsapp"
_CHAT = _LIST + "/{phone_number_id}"
_REFRESH = 3  # seconds
_SHOWN = 50  # of a chat's messages, the newest
_LONGEST = 1000  # characters that may be written

_LINK = re.compile(r"(https?://\S+)")
_FOREIGN = re.compile(r"[1-9][0-9]{6,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Bubble:
    """A message as it is drawn. `parts`: texts and links in turn. `ticks` is what the business was told of its own."""

    mine: bool
    day: str
    time: str
    parts: list[str]
    ticks: str
    button: str = ""
    link: str = ""
    card: Card | None = None


@dataclass(frozen=True, slots=True)
class Chat:
    """A line of the list of chats."""

    sender: Sender
    last: str
    when: str
    unread: int


class WhatsappApp:
    """WhatsApp among the apps of a phone."""

    title = "WhatsApp"

    def __init__(self, ledger: WhatsappLedger) -> None:
        self._ledger = ledger

    def path(self, number: str) -> str:
        return _LIST.format(number=number)

    def unread(self, number: str) -> int:
        return sum(message.status == "delivered" for message in self._ledger.arrived(number))

    def calls(self) -> Iterator[Call]:
        for message in self._ledger.messages:
            number = local_number(message.wa_id)
            if message.arrived and is_local_number(number):
                yield Call(number, message.status == "delivered", message.at)


def routes(ledger: WhatsappLedger) -> list[BaseRoute]:
    """`/phone/<number>/whatsapp` and the chats below it; the number local, or foreign without its `+`."""

    async def index(request: Request) -> Response:
        number = request.path_params["number"]
        if not _is_number(number):
            return missing()
        chats = [_chat(ledger, number, sender) for sender in ledger.senders.values()]
        return _screen(request, ledger, "whatsapp_chats.html", number=number, chats=chats, refresh=_REFRESH)

    async def show(request: Request) -> Response:
        number, phone_number_id = request.path_params["number"], request.path_params["phone_number_id"]
        sender = ledger.senders.get(phone_number_id)
        if sender is None or not _is_number(number):
            return missing()
        bubbles = await _bubbles(ledger, number, sender)
        # A refresh would wipe out what is being written.
        writing = "write" in request.query_params
        refresh = 0 if writing else _REFRESH
        given = {"number": number, "sender": sender, "bubbles": bubbles, "writing": writing, "refresh": refresh}
        return _screen(request, ledger, "whatsapp_chat.html", **given)

    async def write(request: Request) -> Response:
        number, phone_number_id = request.path_params["number"], request.path_params["phone_number_id"]
        text = (await form(request)).get("text", "")[:_LONGEST]
        if not _is_number(number):
            return missing()
        try:
            if text.strip():
                ledger.write(number, phone_number_id, text)
        except UnknownReference:
            return missing()
        return go(root(request) + _CHAT.format(number=number, phone_number_id=phone_number_id))

    return [
        Route(_LIST, index, methods=["GET"]),
        Route(_CHAT, show, methods=["GET"]),
        Route(_CHAT, write, methods=["POST"]),
    ]


def _is_number(number: str) -> bool:
    return is_local_number(number) or bool(_FOREIGN.fullmatch(number))


def _chat(ledger: WhatsappLedger, number: str, sender: Sender) -> Chat:
    arrived = [one for one in ledger.arrived(number) if one.sender is sender]
    written = [one for one in ledger.written_by(number) if one.sender is sender]
    chat: list[Message | Written] = [*arrived, *written]
    newest = max(chat, key=lambda one: one.at, default=None)
    unread = sum(message.status == "delivered" for message in arrived)
    if newest is None:
        return Chat(sender, "", "", 0)
    return Chat(sender, _text(newest), _time(newest.at), unread)


async def _bubbles(ledger: WhatsappLedger, number: str, sender: Sender) -> list[Bubble]:
    """What stands in the chat, which is read by that."""
    chat = ledger.open_chat(number, sender.phone_number_id)[-_SHOWN:]
    for one in chat:
        if isinstance(one, Message):
            await ledger.draw_card(one)
    return [_bubble(one, ledger.clock()) for one in chat]


def _bubble(one: Message | Written, now: float) -> Bubble:
    day, time, parts = _day(one.at, now), _time(one.at), _LINK.split(_text(one))
    if isinstance(one, Written):
        return Bubble(True, day, time, parts, "delivered")
    return Bubble(False, day, time, parts, one.status, one.draft.button, one.draft.link, one.card)


def _text(one: Message | Written) -> str:
    return one.text if isinstance(one, Written) else one.draft.text


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, HARARE):%H:%M}"


def _day(at: float, now: float) -> str:
    then, today = datetime.fromtimestamp(at, HARARE).date(), datetime.fromtimestamp(now, HARARE).date()
    names = {today: "Today", today - timedelta(days=1): "Yesterday"}
    return names.get(then, f"{then.day} {then:%B %Y}")


def _screen(request: Request, ledger: WhatsappLedger, template: str, *, number: str, **values: object) -> Response:
    shown = local_number(wa_id_of(number))
    clock = _time(ledger.clock())
    return picture_page(request, template, clock=clock, number=number, shown_number=shown, **values)
