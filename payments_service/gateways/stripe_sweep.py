"""The events of an account that its webhook endpoint was not told of, or may not have been."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import structlog

from payments_service.errors import Untrusted
from payments_service.gateways.base import Callback, TooMuch
from payments_service.gateways.stripe_client import Call, StripeApi
from payments_service.gateways.stripe_events import TYPES, callback_of
from payments_service.gateways.stripe_wire import Event, Events

if TYPE_CHECKING:
    from stripe.params import EventListParams

log = structlog.get_logger(__name__)

SECONDS = 10.0
PAGES = 100
# Events of disputes can be so large that only a few fit into one answer.
AT_ONCE = (100, 5)


async def missed(
    api: StripeApi, key: str, since: datetime, until: datetime, *, live: bool, undelivered: bool
) -> list[Callback]:
    """What the account's events of that time say, oldest first; of all, or of those that were not delivered everywhere.

    Raises TooMuch, StripeRefused, Unreachable, Ambiguous and Untrusted.
    """
    params: EventListParams = {
        "types": list(TYPES),
        "created": {"gte": int(since.timestamp()), "lt": int(until.timestamp())},
    }
    if undelivered:
        params["delivery_success"] = False
    many, few = AT_ONCE
    try:
        events = await _listed(api, key, {**params, "limit": many})
    except Untrusted:
        events = await _listed(api, key, {**params, "limit": few})
    said = [_readable(event, live=live) for event in events]
    return [callback for callback in reversed(said) if callback]


async def _listed(api: StripeApi, key: str, params: EventListParams) -> list[Event]:
    found: list[Event] = []
    for _ in range(PAGES):
        page = await api.send(key, Call("list_events", "get", "/v1/events", SECONDS, params), Events)
        found += page.data
        if not page.has_more or not page.data:
            return found
        params["starting_after"] = page.data[-1].id
    raise TooMuch("stripe.list_events: there are more events than can be read at once")


def _readable(event: Event, *, live: bool) -> Callback | None:
    """What a listed event says. One that cannot be read must not hold up those after it for ever."""
    try:
        return callback_of(event, live=live)
    except Untrusted as error:
        log.warning("event_unreadable", gateway="stripe", event_id=event.id, type=event.type, detail=error.detail)
        return None
