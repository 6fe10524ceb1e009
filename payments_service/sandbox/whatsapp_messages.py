"""The nouns of the simulated WhatsApp: a business's number, an approved template, messages of both sides."""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from dataclasses import dataclass, field
from typing import Literal

from payments_service.sandbox.faults import names
from payments_service.sandbox.local import is_local_number
from payments_service.sandbox.whatsapp_errors import Trouble
from payments_service.sandbox.whatsapp_preview import Card

Status = Literal["accepted", "sent", "delivered", "read", "failed"]

_COUNTRY = "263"
_VARIABLE = re.compile(r"\{\{([0-9]+)\}\}")


@dataclass(frozen=True, slots=True)
class Template:
    """An approved template: `body` with `{{1}}`, `{{2}}`, …, and a button whose URL ends with the one variable `{{1}}`.

    An empty `url` means the simulator's own `button_url`.
    """

    name: str
    language: str
    body: str
    button: str = ""
    url: str = ""
    category: str = "utility"

    @property
    def variables(self) -> int:
        """How many parameters the body takes."""
        return len(set(_VARIABLE.findall(self.body)))

    def filled(self, parameters: list[str]) -> str:
        return _VARIABLE.sub(lambda match: parameters[int(match[1]) - 1], self.body)


@dataclass(slots=True)
class Sender:
    """A business's number: `phone` in E.164, `account` the id of its WhatsApp Business Account."""

    phone_number_id: str
    token: str = field(repr=False)
    phone: str
    account: str
    name: str
    templates: dict[tuple[str, str], Template] = field(default_factory=dict)

    def add_template(self, template: Template) -> None:
        self.templates[template.name, template.language] = template


@dataclass(frozen=True, slots=True)
class Draft:
    """What a request asks to be sent. `link` is the button's, or the first in the text; `preview`: draw its card."""

    to: str
    kind: Literal["template", "text"]
    text: str
    link: str = ""
    button: str = ""
    preview: bool = False
    template: str = ""
    language: str = ""
    category: str = "service"
    callback_data: str = ""

    def is_named(self, name: str) -> bool:
        """By its callback data, exact or leading (see `faults.names`), or by the number, as anybody writes it."""
        return names(name, self.callback_data) or name in (self.to, self.to[1:], local_number(self.to[1:]))


@dataclass(slots=True)
class Message:
    """A message of the business that was accepted. `at` is Unix seconds; `turn` keeps its webhooks in order."""

    id: str
    sender: Sender
    draft: Draft
    at: float
    status: Status = "accepted"
    trouble: Trouble | None = None
    card: Card | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock, repr=False)

    @property
    def wa_id(self) -> str:
        """The customer's number as WhatsApp writes it: digits only."""
        return self.draft.to[1:]

    @property
    def arrived(self) -> bool:
        """Whether the customer's phone shows it."""
        return self.status in ("delivered", "read")


@dataclass(frozen=True, slots=True)
class Written:
    """A text that the customer wrote to the business."""

    id: str
    sender: Sender
    wa_id: str
    text: str
    at: float


def new_id(wa_id: str) -> str:
    """A message's id as the real ones are: base64 that has the customer's number in it, a trap for whoever logs it.

    Taken apart from the example at developers.facebook.com/documentation/business-messaging/whatsapp/webhooks.
    """
    digits = wa_id.encode()
    inside = bytes([0x1C, 0x18, len(digits)]) + digits + b"\x15\x02\x00\x12\x18\x14"
    return "wamid." + base64.b64encode(inside + secrets.token_hex(10).upper().encode() + b"\x00").decode()


def local_number(wa_id: str) -> str:
    """`263771234567` as people in Zimbabwe write it: `0771234567`; a foreign number as it is."""
    local = f"0{wa_id.removeprefix(_COUNTRY)}"
    return local if wa_id.startswith(_COUNTRY) and is_local_number(local) else wa_id


def wa_id_of(number: str) -> str:
    """`0771234567`, `263771234567` or `+263771234567` as WhatsApp writes it: `263771234567`."""
    return _COUNTRY + number[1:] if is_local_number(number) else number.removeprefix("+")
