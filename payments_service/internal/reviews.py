"""`…/payments/{id}/resolve` and `…/reviews`: what a person decides."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from payments_service import reviews
from payments_service.internal.accounts import MAX_BODY, actor_of
from payments_service.internal.payments import where
from payments_service.internal.schemas import ResolveReview, SettleRefund
from payments_service.web import decode, json_response, read_body


async def list_reviews(request: Request) -> Response:
    return json_response({"data": await reviews.of_payment(*where(request)), "next_cursor": None})


async def resolve_review(request: Request) -> Response:
    resolution = decode(await read_body(request, MAX_BODY), ResolveReview).resolved()
    return json_response(await reviews.resolve(*where(request), resolution, actor=actor_of(request)))


async def settle_refund(request: Request) -> Response:
    wish = decode(await read_body(request, MAX_BODY), SettleRefund)
    refund, payment = await reviews.settle_refund(
        *where(request),
        request.path_params["refund_id"],
        done=wish.resolution == "succeeded",
        note=wish.words(),
        actor=actor_of(request),
    )
    return json_response({**msgspec.structs.asdict(refund), "payment": payment})
