"""`…/payments/{id}/resolve` and `…/reviews`: what a person decides."""

from __future__ import annotations

from uuid import UUID

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from payments_service import payments, refunds, reviews
from payments_service.context import Context
from payments_service.internal.accounts import MAX_BODY, actor_of
from payments_service.internal.once import claim_of
from payments_service.internal.payments import where
from payments_service.internal.schemas import ResolveReview, SettleRefund
from payments_service.records import Payment
from payments_service.refunds import Refund
from payments_service.web import decode, json_response, read_body


async def list_reviews(request: Request) -> Response:
    return json_response({"data": await reviews.of_payment(*where(request)), "next_cursor": None})


async def resolve_review(request: Request) -> Response:
    resolution = decode(await read_body(request, MAX_BODY), ResolveReview).resolved()
    return json_response(
        await reviews.resolve(*where(request), resolution, actor=actor_of(request), claim=claim_of(request))
    )


async def recall_resolved(context: Context, client_id: UUID, payment_id: UUID) -> Response:
    """What the payment became since stands in it too."""
    return json_response(await payments.get(context, client_id, payment_id))


async def settle_refund(request: Request) -> Response:
    wish = decode(await read_body(request, MAX_BODY), SettleRefund)
    refund, payment = await reviews.settle_refund(
        *where(request),
        request.path_params["refund_id"],
        done=wish.resolution == "succeeded",
        note=wish.words(),
        actor=actor_of(request),
        claim=claim_of(request),
    )
    return _settled(refund, payment)


async def recall_settled(context: Context, client_id: UUID, refund_id: UUID) -> Response:
    return _settled(*await refunds.both(context, client_id, refund_id))


def _settled(refund: Refund, payment: Payment) -> Response:
    return json_response({**msgspec.structs.asdict(refund), "payment": payment})
