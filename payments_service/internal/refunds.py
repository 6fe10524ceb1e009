"""`…/payments/{id}/refunds`: giving money back."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from payments_service import refunds
from payments_service.internal.accounts import MAX_BODY, actor_of
from payments_service.internal.payments import where
from payments_service.internal.schemas import CreateRefund
from payments_service.web import decode, json_response, read_body


async def create_refund(request: Request) -> Response:
    context, client_id, payment_id = where(request)
    wish = decode(await read_body(request, MAX_BODY), CreateRefund).wish()
    made, payment = await refunds.refund(context, client_id, payment_id, wish, actor=actor_of(request))
    return json_response({**msgspec.structs.asdict(made), "payment": payment}, 201)


async def list_refunds(request: Request) -> Response:
    return json_response({"data": await refunds.listed(*where(request)), "next_cursor": None})
