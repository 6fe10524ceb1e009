"""`/v1/clients/{client_id}`: its audit log, and the tenant's departure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from payments_service import audit, leaving
from payments_service.context import Context
from payments_service.internal.accounts import actor_of
from payments_service.web import json_response, query


class AuditQuery(msgspec.Struct, frozen=True):
    """What may stand behind the `?` of the audit log."""

    limit: Annotated[int, Meta(ge=1, le=audit.MOST)] = audit.PAGE
    cursor: Annotated[str, Meta(max_length=100)] | None = None


class DeleteQuery(msgspec.Struct, frozen=True):
    give_up_late_money: bool = False


async def list_audit_logs(request: Request) -> Response:
    context: Context = request.app.state.context
    wanted = query(request, AuditQuery)
    found, cursor = await audit.page(
        context, request.path_params["client_id"], limit=wanted.limit, cursor=wanted.cursor
    )
    return json_response({"data": found, "next_cursor": cursor})


async def verify_audit_logs(request: Request) -> Response:
    context: Context = request.app.state.context
    return json_response(await audit.verify_chain(context.db, request.path_params["client_id"]))


async def delete_tenant(request: Request) -> Response:
    context: Context = request.app.state.context
    wanted = query(request, DeleteQuery)
    await leaving.delete_tenant(
        context,
        request.path_params["client_id"],
        actor=actor_of(request),
        give_up_late_money=wanted.give_up_late_money,
    )
    return Response(status_code=204)
