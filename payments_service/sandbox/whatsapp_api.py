"""The simulated Cloud API on the wire: the address, the token, the answers, faults."""

from __future__ import annotations

import asyncio
import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import whatsapp_checks, whatsapp_errors
from payments_service.sandbox.answers import Answer, spoilt
from payments_service.sandbox.faults import Fault
from payments_service.sandbox.whatsapp_errors import Object, Refusal
from payments_service.sandbox.whatsapp_faults import SEND, Kind
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.sandbox.whatsapp_messages import Draft, Message, Sender

MOUNT = "/whatsapp"
_EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]
_VERSION = re.compile(r"v[0-9]{1,2}\.[0-9]", re.ASCII)
_JSON = {"Content-Type": "application/json; charset=UTF-8"}


def routes(ledger: WhatsappLedger) -> list[BaseRoute]:
    """The one operation below `/whatsapp`, and Graph's own error for what there is not."""

    async def send(request: Request) -> Response:
        ledger.calls["send"] += 1
        response = _respond(ledger, request, await request.body())
        await asyncio.sleep(ledger.delay_seconds)
        return response

    async def absent(request: Request) -> Response:
        ledger.calls["absent"] += 1
        return whatsapp_errors.unknown_path(request.path_params["rest"]).answer().response()

    return [
        Route(f"{MOUNT}/{{version}}/{{phone_number_id}}/messages", send, methods=["POST"]),
        Route(f"{MOUNT}/{{rest:path}}", absent, methods=_EVERY_METHOD),
    ]


def _respond(ledger: WhatsappLedger, request: Request, body: bytes) -> Response:
    try:
        sender = _caller(ledger, request)
        draft = whatsapp_checks.read(body, sender, ledger.button_url)
    except Refusal as refusal:
        return _refused(ledger, refusal).response()
    fault = ledger.use_fault(SEND, draft)
    if fault is None:
        return _send(ledger, sender, draft).response()
    answer = _faulty(ledger, sender, draft, fault)
    return spoilt(answer, fault.kind.lose, fault.seconds, f"{ledger.public_url}/sandbox/whatsapp/redirected")


def _caller(ledger: WhatsappLedger, request: Request) -> Sender:
    """The number from which is to be sent, if the token that came may do that."""
    version, identifier = request.path_params["version"], request.path_params["phone_number_id"]
    if not _VERSION.fullmatch(version):
        raise Refusal(whatsapp_errors.unknown_path(f"{version}/{identifier}/messages"))
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not ledger.has_token(token.strip()):
        raise Refusal(whatsapp_errors.unknown_token())
    sender = ledger.senders.get(identifier)
    if sender is None or sender.token != token.strip():
        raise Refusal(whatsapp_errors.unknown_object(identifier))
    return sender


def _send(ledger: WhatsappLedger, sender: Sender, draft: Draft) -> Answer:
    try:
        return Answer(200, msgspec.json.encode(_accepted(ledger.accept(sender, draft))), _JSON)
    except Refusal as refusal:
        return _refused(ledger, refusal)


def _faulty(ledger: WhatsappLedger, sender: Sender, draft: Draft, fault: Fault[Kind]) -> Answer:
    """What is said under this fault, before it is lost on the way."""
    answer = _send(ledger, sender, draft) if fault.kind.works else Answer(200, b"{}", _JSON)
    return _refused(ledger, Refusal(fault.kind.trouble)) if fault.kind.trouble else answer


def _refused(ledger: WhatsappLedger, refusal: Refusal) -> Answer:
    ledger.refusals[refusal.trouble.code] += 1
    return refusal.trouble.answer()


def _accepted(message: Message) -> Object:
    return {
        "messaging_product": "whatsapp",
        "contacts": [{"input": message.draft.to, "wa_id": message.wa_id}],
        "messages": [{"id": message.id, "message_status": "accepted"}],
    }
