"""`/v1/events`: events that the backend asks for, those that could not be delivered, and sending them once more."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from payments_service import replay
from payments_service.context import Context
from payments_service.errors import Invalid
from payments_service.internal.accounts import MAX_BODY
from payments_service.internal.listing import check_span
from payments_service.outbox import KINDS
from payments_service.replay import MOST, PAGE, Wanted
from payments_service.web import json_response, query, read_body

_Kind = Annotated[str, Meta(max_length=50)]


class EventsQuery(msgspec.Struct, frozen=True):
    """What may stand behind the `?` of the list."""

    after: Annotated[str, Meta(max_length=30)] | None = None
    type: _Kind | None = None
    state: Literal["due", "delivered", "failed"] | None = None
    client_id: UUID | None = None
    limit: Annotated[int, Meta(ge=1, le=MOST)] = PAGE


class ReplayQuery(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """Which events are sent once more: of this time, and perhaps of one kind, state or tenant only."""

    since: datetime
    until: datetime
    type: _Kind | None = None
    state: Literal["due", "delivered", "failed"] | None = None
    client_id: UUID | None = None


async def list_events(request: Request) -> Response:
    context: Context = request.app.state.context
    wanted = query(request, EventsQuery)
    which = Wanted(_kind(wanted.type), wanted.state, wanted.client_id)
    found, cursor = await replay.pull(context, which, after=wanted.after, limit=wanted.limit)
    return json_response({"data": found, "next_cursor": cursor})


async def redeliver_event(request: Request) -> Response:
    context: Context = request.app.state.context
    await read_body(request, MAX_BODY)
    return json_response(await replay.redeliver(context, request.path_params["event_id"]), 202)


async def redeliver_events(request: Request) -> Response:
    context: Context = request.app.state.context
    await read_body(request, MAX_BODY)
    wanted = query(request, ReplayQuery)
    check_span(wanted.since, wanted.until, "to")
    which = Wanted(_kind(wanted.type), wanted.state, wanted.client_id, wanted.since, wanted.until)
    return json_response({"redelivered": await replay.redeliver_all(context, which)}, 202)


def _kind(kind: str | None) -> str | None:
    if kind not in (None, *KINDS):
        raise Invalid([("type", f"is no type of event; there are {', '.join(KINDS)}")])
    return kind
