"""`…/payments/{id}/refunds`: giving money back."""

from __future__ import annotations

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from payments_service import refunds
from payments_service.context import Context
from payments_service.internal.accounts import MAX_BODY, actor_of
from payments_service.internal.once import claim_of
from payments_service.internal.payments import where
from payments_service.internal.schemas import CreateRefund
from payments_service.records import Payment
from payments_service.refunds import Refund
from payments_service.web import decode, json_response, read_body


async def create_refund(request: Request) -> Response:
    context, client_id, payment_id = where(request)
    wish = decode(await read_body(request, MAX_BODY), CreateRefund).wish()
    actor, claim = actor_of(request), claim_of(request)
    return _made(*await refunds.refund(context, client_id, payment_id, wish, actor=actor, claim=claim))


async def recall_refund(context: Context, client_id: UUID, refund_id: UUID) -> Response:
    return _made(*await refunds.recall(context, client_id, refund_id))


def _made(refund: Refund, payment: Payment) -> Response:
    return json_response({**msgspec.structs.asdict(refund), "payment": payment}, 201)


async def list_refunds(request: Request) -> Response:
    return json_response({"data": await refunds.listed(*where(request)), "next_cursor": None})
