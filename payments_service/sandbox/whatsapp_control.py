"""The WhatsApp simulator's remote control: JSON over HTTP for tests, demos and tools in other processes.

    GET    /sandbox/whatsapp/messages         every message that was accepted, oldest first
    GET    /sandbox/whatsapp/written          what customers wrote
    GET    /sandbox/whatsapp/deliveries       every try of a webhook
    GET    /sandbox/whatsapp/calls            requests, and the codes that were answered
    GET    /sandbox/whatsapp/senders          the business's numbers, without their tokens
    POST   /sandbox/whatsapp/senders          {phone_number_id, token, phone, account, name}: with the demo's templates
    POST   /sandbox/whatsapp/templates        {phone_number_id, name, language, body, button?, url?}
    POST   /sandbox/whatsapp/subscribe        {url}    verified with hub.challenge, then webhooks go there
    POST   /sandbox/whatsapp/deliver          {name}   also read, repeat (the status once more)
    POST   /sandbox/whatsapp/fail             {name, code?}
    POST   /sandbox/whatsapp/write            {number, text, phone_number_id}    a customer writes
    POST   /sandbox/whatsapp/announce         {field, value?, phone_number_id}   a change of another field
    POST   /sandbox/whatsapp/release          {seed?}  post the webhooks that are held
    POST   /sandbox/whatsapp/faults           {fault, on?, times?, seconds?, to?, share?, seed?}
    GET    /sandbox/whatsapp/faults           DELETE forgets them, those of ?to= or all
    POST   /sandbox/whatsapp/settings         {button_url?, delay_seconds?, pair_seconds?, window_refusal?, delivers?,
                                               receipts?}
    POST   /sandbox/whatsapp/webhooks         {hold?, batch_size?}

`name` is a message's id, its callback data, the leading part of that, or the customer's number. 400: the request makes
no sense; 404: no such message or number; 409: the message's status does not lead there, or the address to subscribe
does not answer as it should; each with {"error": text}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

import msgspec
from starlette.routing import BaseRoute

from payments_service.sandbox.remote import Control, PlanFault, fault_view, posted_view
from payments_service.sandbox.whatsapp_errors import Object
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.sandbox.whatsapp_messages import Message, Sender, Template, Written


class _Named(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class _Fail(_Named):
    code: int = 131026


class _Sender(msgspec.Struct, forbid_unknown_fields=True):
    phone_number_id: str
    token: str
    phone: str
    account: str
    name: str


class _Template(msgspec.Struct, forbid_unknown_fields=True):
    phone_number_id: str
    name: str
    language: str
    body: str
    button: str = ""
    url: str = ""


class _Url(msgspec.Struct, forbid_unknown_fields=True):
    url: str


class _Write(msgspec.Struct, forbid_unknown_fields=True):
    number: str
    text: str
    phone_number_id: str


class _Announce(msgspec.Struct, forbid_unknown_fields=True):
    field: str
    phone_number_id: str
    value: Object = {}


class _Release(msgspec.Struct, forbid_unknown_fields=True):
    seed: int | None = None


class _Fault(PlanFault):
    to: str = ""
    share: float | None = None
    seed: int = 0


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    button_url: str | None = None
    delay_seconds: float | None = None
    pair_seconds: float | None = None
    window_refusal: Literal["status", "http"] | None = None
    delivers: bool | None = None
    receipts: bool | None = None


class _Webhooks(msgspec.Struct, forbid_unknown_fields=True):
    hold: bool | None = None
    batch_size: Annotated[int, msgspec.Meta(ge=1)] | None = None


_control = Control("/sandbox/whatsapp", "Meta")


def routes(ledger: WhatsappLedger) -> list[BaseRoute]:
    """The addresses above, over this ledger."""
    return [
        *_reading(ledger),
        *_preparing(ledger),
        *_moving(ledger),
        *_control.faults(_Fault, ledger, lambda fault: fault_view(fault, "to"), of="to"),
        _control.settings("settings", _Settings, ledger),
        _control.settings("webhooks", _Webhooks, ledger.webhooks),
    ]


def _reading(ledger: WhatsappLedger) -> list[BaseRoute]:
    def calls() -> Object:
        return {**ledger.calls, "refusals": {str(code): count for code, count in ledger.refusals.items()}}

    return [
        _control.get("messages", lambda: [_message_view(one) for one in ledger.messages]),
        _control.get("written", lambda: [_written_view(one) for one in ledger.written]),
        _control.get(
            "deliveries", lambda: [{"said": one.said} | posted_view(one) for one in ledger.webhooks.deliveries]
        ),
        _control.get("calls", calls),
        _control.get("senders", lambda: [_sender_view(one) for one in ledger.senders.values()]),
    ]


def _preparing(ledger: WhatsappLedger) -> list[BaseRoute]:
    async def add_sender(body: _Sender) -> Object:
        known = next(iter(ledger.senders.values()), None)
        sender = ledger.add_sender(**msgspec.structs.asdict(body))
        for template in known.templates.values() if known else ():
            sender.add_template(template)
        return _sender_view(sender)

    async def add_template(body: _Template) -> Object:
        sender = ledger.sender(body.phone_number_id)
        sender.add_template(Template(body.name, body.language, body.body, body.button, body.url))
        return _sender_view(sender)

    async def subscribe(body: _Url) -> Object:
        await ledger.subscribe(body.url)
        return {"url": ledger.webhooks.url}

    return [
        _control.post("senders", _Sender, add_sender),
        _control.post("templates", _Template, add_template),
        _control.post("subscribe", _Url, subscribe),
    ]


def _moving(ledger: WhatsappLedger) -> list[BaseRoute]:
    async def fail(body: _Fail) -> Object:
        return _message_view(ledger.fail(body.name, body.code))

    async def write(body: _Write) -> Object:
        return _written_view(ledger.write(body.number, body.phone_number_id, body.text))

    async def announce(body: _Announce) -> Object:
        ledger.announce(body.field, body.value, body.phone_number_id)
        return {}

    async def release(body: _Release) -> Object:
        ledger.webhooks.release(body.seed)
        return {}

    moves = {"deliver": ledger.deliver, "read": ledger.read, "repeat": ledger.repeat}
    return [
        *(_control.post(name, _Named, _by_name(move)) for name, move in moves.items()),
        _control.post("fail", _Fail, fail),
        _control.post("write", _Write, write),
        _control.post("announce", _Announce, announce),
        _control.post("release", _Release, release),
    ]


def _by_name(move: Callable[[str], Message]) -> Callable[[_Named], Awaitable[Object]]:
    async def work(body: _Named) -> Object:
        return _message_view(move(body.name))

    return work


def _message_view(message: Message) -> Object:
    draft = message.draft
    return {
        "id": message.id,
        "phone_number_id": message.sender.phone_number_id,
        "to": draft.to,
        "type": draft.kind,
        "text": draft.text,
        "link": draft.link,
        "template": draft.template,
        "language": draft.language,
        "callback_data": draft.callback_data,
        "status": message.status,
        "error": message.trouble.code if message.trouble else None,
        "at": message.at,
    }


def _written_view(written: Written) -> Object:
    return {
        "id": written.id,
        "phone_number_id": written.sender.phone_number_id,
        "from": f"+{written.wa_id}",
        "text": written.text,
        "at": written.at,
    }


def _sender_view(sender: Sender) -> Object:
    templates = [{"name": one.name, "language": one.language, "body": one.body} for one in sender.templates.values()]
    return {
        "phone_number_id": sender.phone_number_id,
        "phone": sender.phone,
        "account": sender.account,
        "name": sender.name,
        "templates": templates,
    }
