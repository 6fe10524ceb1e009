"""`…/payments/{id}/send`: the pay link goes to the customer."""

from __future__ import annotations

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from payments_service import messages, payments
from payments_service.context import Context
from payments_service.internal.accounts import MAX_BODY, actor_of
from payments_service.internal.once import claim_of
from payments_service.internal.payments import where
from payments_service.internal.schemas import SendLink
from payments_service.web import decode, json_response, read_body


async def send_link(request: Request) -> Response:
    context, client_id, payment_id = where(request)
    wish = decode(await read_body(request, MAX_BODY), SendLink)
    actor, claim = actor_of(request), claim_of(request)
    await messages.send(context, client_id, payment_id, wish.to, wish.form, actor=actor, claim=claim)
    return await _shown(context, client_id, payment_id)


async def recall_send(context: Context, client_id: UUID, message_id: UUID) -> Response | None:
    """The answer of a call that was cut off once its message was on record."""
    payment_id = await messages.payment_of(context, client_id, message_id)
    return await _shown(context, client_id, payment_id) if payment_id else None


async def _shown(context: Context, client_id: UUID, payment_id: UUID) -> Response:
    payment = await payments.get(context, client_id, payment_id)
    sent = await messages.of_payment(context, client_id, payment_id)
    return json_response({**msgspec.structs.asdict(payment), "messages": sent}, 202)
