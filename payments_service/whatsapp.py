"""WhatsApp Business Cloud API: sends a pay link from a tenant's number, or the platform's, and reads what became of it.

An answer of 200 says that Meta has taken the message, not that it arrived: that is told by webhooks, in any order and
more than once. There is no idempotency key: our message's id travels as `biz_opaque_callback_data` and comes back with
each status, and whoever lost an answer waits for one. No message of WhatsApp's is evidence of a payment.
Source: Meta's Cloud API reference, v26.0.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

import msgspec
from msgspec import Meta

from payments_service.errors import Ambiguous, Untrusted
from payments_service.gateways.transport import Reply, Transport

SECONDS = 15.0
# Where none is named.
TEMPLATE, LANGUAGE = "payment_request", "en"

Form = Literal["template", "text"]


class Act(StrEnum):
    """What an error asks for."""

    STOP = "stop"  # the token, the permissions or the account: nothing leaves this number until a person has acted
    FAULT = "fault"  # the template's set-up: it fails again until a person has acted
    BACK_OFF = "back_off"  # too many at once: later, with jitter
    PAIR = "pair"  # too soon after the last one to this number: a few seconds later
    RETRY = "retry"  # a fault of theirs that passes
    UNSURE = "unsure"  # something went wrong at theirs: as an answer, it does not say that the message was not taken
    TEMPLATE = "template"  # the customer has not written for a day: the template instead
    DAY = "day"  # not before tomorrow
    NEVER = "never"  # this number cannot or will not be reached


_ACTS: dict[int, Act] = {
    **dict.fromkeys((190, 3, 10, *range(200, 300), 131031, 131042, 368, 133010), Act.STOP),
    **dict.fromkeys(range(132000, 132017), Act.FAULT),
    **dict.fromkeys((4, 80007, 130429), Act.BACK_OFF),
    131056: Act.PAIR,
    **dict.fromkeys((131016, 2), Act.RETRY),
    **dict.fromkeys((131000, 1), Act.UNSURE),
    131047: Act.TEMPLATE,
    **dict.fromkeys((131048, 131049), Act.DAY),
    **dict.fromkeys((131026, 131021, 131050), Act.NEVER),
}


def act_on(code: int) -> Act:
    """What to do about an error code; one that nobody knows is no reason to send again."""
    return _ACTS.get(code, Act.NEVER)


@dataclass(frozen=True, slots=True, repr=False)
class Sender:
    """A number that messages go out from, and its template. `own`: the tenant's, not the platform's."""

    phone_number_id: str
    access_token: str
    template: str
    language: str = LANGUAGE
    own: bool = True

    @property
    def digest(self) -> bytes:
        """Tells this number and token from any other, without telling them."""
        return hashlib.sha256(f"{self.phone_number_id}\n{self.access_token}".encode()).digest()


@dataclass(frozen=True, slots=True, repr=False)
class Letter:
    """What is sent: the template's parameters and the same as a text. `to` is E.164 with `+`."""

    id: UUID
    to: str
    payee: str
    amount: str
    reference: str
    page_token: str
    text: str


class Rejected(Exception):
    """WhatsApp's no, in an answer or in a status: the message was not delivered. `detail` is for people."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail

    @property
    def act(self) -> Act:
        return act_on(self.code)


@dataclass(frozen=True, slots=True)
class Cloud:
    """Meta's Graph API at `url` (without a slash at the end), in this version of it."""

    transport: Transport
    url: str
    version: str

    async def send(self, sender: Sender, letter: Letter, form: Form) -> str:
        """Send the letter; WhatsApp's id of it.

        Raises Rejected; Unreachable when it never left; Ambiguous or Untrusted when it may have been taken.
        """
        reply = await self.transport.post(
            "whatsapp.send",
            f"{self.url}/{self.version}/{quote(sender.phone_number_id, safe='')}/messages",
            msgspec.json.encode(_body(sender, letter, form)),
            headers={"Authorization": f"Bearer {sender.access_token}", "Content-Type": "application/json"},
            deadline=SECONDS,
        )
        try:
            return _read(reply)
        except Rejected as error:
            # Of a token that is no good, the Graph API says which it was.
            raise Rejected(error.code, error.detail.replace(sender.access_token, "[removed]")) from None


def _body(sender: Sender, letter: Letter, form: Form) -> dict[str, Any]:
    said = {"text": {"preview_url": True, "body": letter.text}} if form == "text" else _template(sender, letter)
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": letter.to,
        "type": form,
        **said,
        "biz_opaque_callback_data": str(letter.id),
    }


def _template(sender: Sender, letter: Letter) -> dict[str, Any]:
    words = [{"type": "text", "text": _plain(each)} for each in (letter.payee, letter.amount, letter.reference)]
    # The button's address ends in one variable: Meta knows the rest of it from the approved template.
    button = [{"type": "text", "text": letter.page_token}]
    components: list[dict[str, Any]] = [
        {"type": "body", "parameters": words},
        {"type": "button", "sub_type": "url", "index": "0", "parameters": button},
    ]
    named = {"name": sender.template, "language": {"code": sender.language}, "components": components}
    return {"template": named}


def _plain(text: str) -> str:
    """A parameter holds no line break, no tab and no more than four blanks in a row."""
    return re.sub(r"\s+", " ", text).strip() or "-"


_Wamid = Annotated[str, Meta(pattern=r"^[!-~]{1,512}$")]


class _Error(msgspec.Struct):
    """Only the code counts: the rest is for people, and not always of the shape that the reference shows."""

    code: Annotated[int, Meta(ge=-(2**31), lt=2**31)]
    message: Any = None
    title: Any = None
    error_data: Any = None


class _Taken(msgspec.Struct):
    id: _Wamid


class _Answer(msgspec.Struct):
    error: _Error | None = None
    messages: list[_Taken] = []


def _read(reply: Reply) -> str:
    try:
        answer = msgspec.json.decode(reply.body, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Ambiguous("whatsapp.send: the answer cannot be read") from None
    if answer.error is not None and reply.status >= 400:
        raise _rejected(answer.error)
    if reply.status != 200 or not answer.messages:
        raise Untrusted("whatsapp.send: the answer names no message")
    return answer.messages[0].id


def _rejected(error: _Error) -> Rejected:
    details = error.error_data.get("details") if isinstance(error.error_data, dict) else None
    said = next((each for each in (details, error.title, error.message) if isinstance(each, str) and each), "")
    # What the database does not keep in a text, or would break a line.
    return Rejected(error.code, re.sub(r"[\x00-\x1f\x7f]+", " ", said)[:300])


# --- webhooks


@dataclass(frozen=True, slots=True)
class News:
    """What a webhook tells of one message. `message_id` is ours, if it came back; `rejected` comes with `failed`;
    `phone_number_id` is that of the number it was sent from, if told."""

    wamid: str
    status: Literal["sent", "delivered", "read", "failed"]
    message_id: UUID | None
    rejected: Rejected | None
    phone_number_id: str | None = None


class _Status(msgspec.Struct):
    id: _Wamid
    status: Literal["sent", "delivered", "read", "failed"]
    biz_opaque_callback_data: Any = None
    errors: Any = None


def is_signed(secret: str, body: bytes, header: str | None) -> bool:
    """Whether `X-Hub-Signature-256` is the HMAC-SHA256 of the raw body under the app secret."""
    expected = "sha256=" + hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    return header is not None and hmac.compare_digest(expected.encode(), header.encode())


def news_in(body: bytes) -> list[News]:
    """Every status in a webhook's body, in the order it stands there. Whatever else there is, or is not as it should
    be, is passed over: Meta sends a message again whose receiver complains of it."""
    return [_news(status, number) for status, number in _statuses(body)]


def _statuses(body: bytes) -> Iterator[tuple[_Status, str | None]]:
    """Each with the number that it was sent from."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    for entry in _list(said, "entry"):
        for change in _list(entry, "changes"):
            value = change.get("value") if isinstance(change, dict) else None
            for status in _list(value, "statuses"):
                with suppress(msgspec.ValidationError):
                    yield msgspec.convert(status, _Status), _number_in(value)


def _number_in(value: Any) -> str | None:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    number = metadata.get("phone_number_id") if isinstance(metadata, dict) else None
    return number if isinstance(number, str) else None


def _list(node: Any, name: str) -> list[Any]:
    found = node.get(name) if isinstance(node, dict) else None
    return found if isinstance(found, list) else []


def _news(status: _Status, phone_number_id: str | None) -> News:
    rejected = _rejected(_first(status.errors)) if status.status == "failed" else None
    return News(status.id, status.status, _ours(status.biz_opaque_callback_data), rejected, phone_number_id)


def _first(errors: Any) -> _Error:
    """That it failed is sure, whatever the errors look like."""
    try:
        return msgspec.convert(errors, list[_Error])[0]
    except (msgspec.ValidationError, IndexError):
        return _Error(0, "WhatsApp does not say why")


def _ours(data: Any) -> UUID | None:
    try:
        return UUID(data) if isinstance(data, str) else None
    except ValueError:
        return None
