"""`…/payments`: making links, looking at payments, withdrawing them."""

from __future__ import annotations

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from payments_service import links, messages, payments, rates
from payments_service.context import Context
from payments_service.internal.accounts import MAX_BODY, actor_of
from payments_service.internal.once import claim_of
from payments_service.internal.schemas import CreateLink
from payments_service.lifecycle import PAYABLE, Status
from payments_service.reconcile import look_within
from payments_service.records import Payment
from payments_service.web import decode, json_response, read_body

# How long a reader waits for the gateway's answer; a look-up that takes longer goes on by itself.
READ_PATIENCE = 2.5
REFRESH_PATIENCE = 12.0


def where(request: Request) -> tuple[Context, UUID, UUID]:
    """The context, the tenant and the payment of the address."""
    return request.app.state.context, request.path_params["client_id"], request.path_params["payment_id"]


async def create_link(request: Request) -> Response:
    context: Context = request.app.state.context
    client_id = request.path_params["client_id"]
    order = decode(await read_body(request, MAX_BODY), CreateLink).order(context.clock())
    left = await rates.take(context, client_id)
    payment = await links.create_link(context, client_id, order, claim_of(request))
    return json_response(payment, 201, headers=left.headers)


async def recall_link(context: Context, client_id: UUID, payment_id: UUID) -> Response | None:
    payment = await links.recall(context, client_id, payment_id)
    return json_response(payment, 201) if payment else None


async def show_payment(request: Request) -> Response:
    context, client_id, payment_id = where(request)
    payment = await _looked_at(context, client_id, payment_id, READ_PATIENCE)
    sent = await messages.of_payment(context, client_id, payment_id)
    return json_response({**msgspec.structs.asdict(payment), "messages": sent})


async def refresh(request: Request) -> Response:
    return json_response(await _looked_at(*where(request), REFRESH_PATIENCE))


async def cancel(request: Request) -> Response:
    context, client_id, payment_id = where(request)
    actor = actor_of(request)
    # A customer who has just paid should not see the link cancelled.
    await _looked_at(context, client_id, payment_id, READ_PATIENCE)
    return json_response(await payments.cancel(context, client_id, payment_id, actor=actor, claim=claim_of(request)))


async def recall_cancel(context: Context, client_id: UUID, payment_id: UUID) -> Response | None:
    payment = await payments.get(context, client_id, payment_id)
    return json_response(payment) if payment.status is Status.CANCELLED else None


async def history(request: Request) -> Response:
    return json_response({"data": await payments.history(*where(request)), "next_cursor": None})


async def _looked_at(context: Context, client_id: UUID, payment_id: UUID, patience: float) -> Payment:
    """The payment, after asking the gateway about a pending one, or one that may be tried again, for at most `patience`
    seconds."""
    payment = await payments.get(context, client_id, payment_id)
    if payment.status not in PAYABLE:
        return payment
    asked = await look_within(context, payment_id, patience)
    return await payments.get(context, client_id, payment_id) if asked else payment
