"""`…/payments`, `…/payments.csv` and `…/payments/summary`: finding payments."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from payments_service import listing
from payments_service.context import Context
from payments_service.errors import Invalid
from payments_service.internal.schemas import TEXT
from payments_service.lifecycle import Status
from payments_service.listing import MOST, PAGE, Filters
from payments_service.money import CURRENCY_ALIASES, Currency
from payments_service.web import json_response, query

# Unless a time is named, a summary is of the last 31 days: of all time it would cost more every year.
SUMMARY_SPAN = timedelta(days=31)

# As a link's reference may be: no database takes a NUL.
_Reference = Annotated[str, Meta(min_length=1, max_length=100, pattern=TEXT)]
_Gateway = Literal["paynow", "stripe", "ecocash", "innbucks"]


class ListQuery(msgspec.Struct, frozen=True):
    """What may stand behind the `?`."""

    status: Status | None = None
    gateway: _Gateway | None = None
    currency: Literal["USD", "ZIG", "ZWG"] | None = None
    reference: _Reference | None = None
    contact_id: UUID | None = None
    invoice_id: UUID | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None

    def filters(self) -> Filters:
        given = msgspec.structs.asdict(self)
        given["currency"] = _currency(self.currency)
        given = {name: given[name] for name in Filters.__slots__}
        check_span(self.created_from, self.created_to, "created_to")
        return Filters(**given)


class PageQuery(ListQuery, frozen=True):
    limit: Annotated[int, Meta(ge=1, le=MOST)] = PAGE
    cursor: Annotated[str, Meta(max_length=100)] | None = None


class SummaryQuery(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    since: datetime | None = None
    until: datetime | None = None


def _currency(name: str | None) -> Currency | None:
    return None if name is None else CURRENCY_ALIASES.get(name) or Currency(name)


def check_span(since: datetime | None, until: datetime | None, field: str) -> None:
    """Raises Invalid, naming the end, unless both moments are in a time zone and in order."""
    naive = [moment for moment in (since, until) if moment is not None and moment.tzinfo is None]
    if naive:
        raise Invalid([(field, "needs a time zone, such as Z at its end (and so does the other)")])
    if since and until and since >= until:
        raise Invalid([(field, "must be later than the beginning")])


async def list_payments(request: Request) -> Response:
    context: Context = request.app.state.context
    wanted = query(request, PageQuery)
    found, cursor = await listing.page(
        context, request.path_params["client_id"], wanted.filters(), limit=wanted.limit, cursor=wanted.cursor
    )
    return json_response({"data": found, "next_cursor": cursor})


async def payments_csv(request: Request) -> Response:
    context: Context = request.app.state.context
    filters = query(request, ListQuery).filters()
    parts = listing.csv_of(context, request.path_params["client_id"], filters)
    # What fails at once is still told as a problem.
    first = await anext(parts)
    kept = {"Content-Disposition": 'attachment; filename="payments.csv"'}
    return StreamingResponse(_together(first, parts), media_type="text/csv; charset=utf-8", headers=kept)


async def _together(first: str, parts: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for part in parts:
        yield part


async def summary(request: Request) -> Response:
    context: Context = request.app.state.context
    wanted = query(request, SummaryQuery)
    check_span(wanted.since, wanted.until, "to")
    until = wanted.until or context.clock()
    since = wanted.since or _span_before(until)
    totals = await listing.summary(
        context, request.path_params["client_id"], Filters(created_from=since, created_to=until)
    )
    return json_response({"from": since, "to": until, "data": totals})


def _span_before(until: datetime) -> datetime:
    try:
        return until - SUMMARY_SPAN
    except OverflowError:  # in the first month of all
        return datetime.min.replace(tzinfo=until.tzinfo)
