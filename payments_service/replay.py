"""Events for a backend that asks for them instead of being told, and events that are told once more.

Pulled events are numbered in the order in which they are first seen here, under a lock, after they were committed: an
order by id or time would miss those whose transaction ends later than their neighbours'. Who has read up to a number
has seen everything below it, and will be given everything above it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Invalid, NotFound

PAGE = 100
MOST = 500
# So many are numbered at once: who never asked before has all of them waiting.
_BATCH = 1000
# So many are made due at once by a replay.
_REPLAY_BATCH = 1000


class Try(msgspec.Struct, frozen=True):
    """One try to deliver an event, and the first words of what the backend answered."""

    at: datetime
    milliseconds: int
    http_status: int | None
    error: str | None
    answer: str | None


class Told(msgspec.Struct, frozen=True):
    """An event as it was or will be sent, and how its delivery stands. `state`: due, delivered or failed."""

    id: UUID
    client_id: UUID
    payment_id: UUID
    type: str
    sequence: int
    timestamp: datetime
    data: msgspec.Raw
    state: str
    tries: list[Try]
    replays: int
    next_try_at: datetime | None
    delivered_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events; what is None matters not. `created_from` is in, `created_to` out."""

    type: str | None = None
    state: str | None = None
    client_id: UUID | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


_CONDITIONS = {
    "type": "e.type = %(type)s",
    "client_id": "e.client_id = %(client_id)s",
    "created_from": "e.created_at >= %(created_from)s",
    "created_to": "e.created_at < %(created_to)s",
}
# Without a parameter: the few that are due or have failed have indexes of their own, which only such words match.
_STATES = {
    "due": "e.next_try_at IS NOT NULL",
    "failed": "e.state = 'failed'",
    "delivered": "e.state = 'delivered'",
}


def _where(wanted: Wanted, *more: str) -> tuple[str, dict[str, Any]]:
    """The condition in SQL, of constants only, and its parameters."""
    given = {name: getattr(wanted, name) for name in _CONDITIONS if getattr(wanted, name) is not None}
    states = [] if wanted.state is None else [_STATES[wanted.state]]
    return " AND ".join([*(_CONDITIONS[name] for name in given), *states, *more]), given


# One at a time, each after the one before is committed: whoever sees a number sees every lower one. A statement that
# waited for its turn looks with older eyes: what was numbered meanwhile is passed over.
_NUMBER = """
WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtextextended('events.position', 0))),
waiting AS MATERIALIZED (
    SELECT e.id FROM events e, locked WHERE e.position IS NULL AND {which} ORDER BY e.created_at, e.id LIMIT %(limit)s
), numbered AS MATERIALIZED (
    SELECT id, nextval('events_position') AS position FROM waiting
), given AS (
    UPDATE events e SET position = n.position FROM numbered n WHERE e.id = n.id AND e.position IS NULL
)
SELECT count(*) AS waiting FROM waiting"""


async def pull(
    context: Context, wanted: Wanted, *, after: str | None = None, limit: int = PAGE
) -> tuple[list[Told], str]:
    """The events after the cursor in the order of their numbers, and the cursor to go on with, now or later: beyond all
    that was looked at. Raises Invalid for a cursor that is not one of ours."""
    last, found, waiting = _opened(after), list[Row](), True
    while True:
        seen = await _newest(context, wanted)
        found += await _after(context, wanted, last, limit - len(found))
        if found:
            last = max(last, found[-1]["position"])
        if len(found) == limit:
            break
        last = max(last, seen)
        if not waiting:
            break
        waiting = await _numbered(context, wanted.state)
    return await _told(context, found), str(last)


async def _newest(context: Context, wanted: Wanted) -> int:
    """The number up to which a look that comes after this sees all that can ever be wanted; 0 where that is what it
    finds. An event changes its state, and nothing else that it can be wanted by."""
    if wanted.state is not None or wanted == Wanted():
        return 0
    (row,) = await context.db.run("SELECT COALESCE(max(position), 0) AS newest FROM events", {})
    return int(row["newest"])


def _opened(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise Invalid([("after", "is not a cursor that this service gave: leave it out to begin anew")])
    return int(cursor)


async def _numbered(context: Context, state: str | None) -> bool:
    """Give numbers to some in this state that have none; whether there may be more of them. Not whether there were any:
    new ones come all the time. Somebody else, for whom we have waited, may have been at them: who asks looks once more.
    Who asks for the failed ones of a backend that never pulls does not wait for all others."""
    which = "true" if state is None else _STATES[state]
    (row,) = await context.db.run(_NUMBER.format(which=which), {"limit": _BATCH})
    return bool(row["waiting"] == _BATCH)


async def _after(context: Context, wanted: Wanted, last: int, limit: int) -> list[Row]:
    where, given = _where(wanted, "e.position > %(last)s")
    return await context.db.run(
        f"""
        SELECT e.id, e.client_id, e.payment_id, e.type, e.sequence, e.body, e.state, e.replays, e.next_try_at,
            e.delivered_at, e.position
        FROM events e WHERE {where} ORDER BY e.position LIMIT %(limit)s""",
        {**given, "last": last, "limit": limit},
    )


class _Body(msgspec.Struct):
    timestamp: datetime
    data: msgspec.Raw


_TRIES = """
SELECT event_id, at, milliseconds, http_status, error, answer FROM event_tries
WHERE event_id = ANY(%(ids)s) ORDER BY event_id, id"""


async def _told(context: Context, rows: list[Row]) -> list[Told]:
    tries: defaultdict[UUID, list[Try]] = defaultdict(list)
    for row in await context.db.run(_TRIES, {"ids": [row["id"] for row in rows]}) if rows else []:
        tries[row.pop("event_id")].append(msgspec.convert(row, Try))
    told = []
    for row in rows:
        body = msgspec.json.decode(row["body"], type=_Body)
        shown = {name: row[name] for name in Told.__struct_fields__ if name in row}
        told.append(Told(**shown, timestamp=body.timestamp, data=body.data, tries=tries[row["id"]]))
    return told


# The schedule begins anew, under another name: who knows the event already must not take it for one more try. One that
# is on its way just now is sent again afterwards: that try may never have been taken.
_AGAIN = "state = 'due', tries = 0, replays = replays + 1, next_try_at = %(at)s, delivered_at = NULL"
_ONE = f"""
UPDATE events SET {_AGAIN} WHERE id = %(id)s
RETURNING id, client_id, payment_id, type, sequence, body, state, replays, next_try_at, delivered_at"""
_MANY = f"""
UPDATE events SET {_AGAIN} WHERE id IN (
    SELECT e.id FROM events e WHERE {{where}} ORDER BY e.created_at, e.id LIMIT %(limit)s)
RETURNING id, created_at"""


async def redeliver(context: Context, event_id: UUID) -> Told:
    """Send the event once more, whatever became of it before. Raises NotFound."""
    rows = await context.db.run(_ONE, {"at": context.clock(), "id": event_id})
    if not rows:
        raise NotFound("There is no event with this id.")
    context.events_due.ring()
    return (await _told(context, rows))[0]


async def redeliver_all(context: Context, wanted: Wanted) -> int:
    """Send all events that fit once more, oldest first; how many."""
    where, given = _where(wanted, "(e.created_at, e.id) > (%(last_at)s, %(last_id)s)")
    last, count = {"last_at": datetime.min.replace(tzinfo=UTC), "last_id": UUID(int=0)}, 0
    while True:
        values: dict[str, Any] = {**given, **last, "at": context.clock(), "limit": _REPLAY_BATCH}
        some = await context.db.run(_MANY.format(where=where), values)
        context.events_due.ring()
        count += len(some)
        if len(some) < _REPLAY_BATCH:
            return count
        newest = max(some, key=lambda row: (row["created_at"], row["id"]))
        last = {"last_at": newest["created_at"], "last_id": newest["id"]}
