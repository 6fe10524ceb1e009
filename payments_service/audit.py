"""A tenant's audit log: who did what, in a chain whose every row carries a hash over itself and the one before.

A changed, moved or missing row breaks the chain behind it. Two things no chain can tell by itself: that its last rows
are gone, and that somebody who can write to the database has made all of it anew. Who wants to notice these too keeps
the newest hash elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service.context import Context
from payments_service.db import Database, Row
from payments_service.errors import Invalid
from payments_service.tables import TENANT_DELETED, audit_logs

FIRST_HASH = bytes(32)

PAGE = 50
MOST = 200
# Rows that are verified at once.
_BATCH = 500
_LAST_POSITION = 2**63 - 1


class Entry(msgspec.Struct, frozen=True):
    """One row of the log. Hashes in hexadecimal; `detail` names what was done, never a secret."""

    position: int
    actor: str
    action: str
    detail: dict[str, Any]
    at: datetime
    previous_hash: str
    hash: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether a chain is whole. `rows`: how many were found good; `first_bad`: the position at which it breaks."""

    whole: bool
    rows: int
    first_bad: int | None = None
    reason: str | None = None


async def record(
    connection: AsyncConnection, client_id: UUID, *, actor: str, action: str, detail: dict[str, Any], at: datetime
) -> None:
    """Add a row to the tenant's chain, in the caller's transaction."""
    # One writer per tenant at a time: two rows must not follow the same one.
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"audit:{client_id}"}
    )
    last = await connection.execute(
        select(audit_logs.c.position, audit_logs.c.hash)
        .where(audit_logs.c.client_id == client_id)
        .order_by(audit_logs.c.position.desc())
        .limit(1)
    )
    position, previous = last.one_or_none() or (0, FIRST_HASH)
    row = {
        "client_id": client_id,
        "position": position + 1,
        "actor": actor,
        "action": action,
        "detail": detail,
        "at": at,
    }
    await connection.execute(insert(audit_logs).values(**row, previous_hash=previous, hash=chain_hash(previous, row)))


def chain_hash(previous: bytes, row: Mapping[str, Any]) -> bytes:
    """SHA-256 over the hash before and the row's contents: JSON with sorted keys, times in UTC to the microsecond."""
    contents = {
        "client_id": str(row["client_id"]),
        "position": row["position"],
        "actor": row["actor"],
        "action": row["action"],
        "detail": row["detail"],
        "at": row["at"].astimezone(UTC).isoformat(timespec="microseconds"),
    }
    return hashlib.sha256(previous + msgspec.json.encode(contents, order="deterministic")).digest()


_PAGE = """
SELECT position, actor, action, detail, at, encode(previous_hash, 'hex') AS previous_hash, encode(hash, 'hex') AS hash
FROM audit_logs WHERE client_id = %(client_id)s AND position < %(before)s ORDER BY position DESC LIMIT %(limit)s"""


async def page(
    context: Context, client_id: UUID, *, limit: int = PAGE, cursor: str | None = None
) -> tuple[list[Entry], str | None]:
    """The newest rows, and the cursor of the page after; None when there is none. Raises Invalid for a cursor that is
    not one of ours."""
    values = {"client_id": client_id, "before": _opened(cursor), "limit": limit + 1}
    rows = await context.db.run(_PAGE, values, tenant=client_id)
    shown = [msgspec.convert(row, Entry) for row in rows[:limit]]
    return shown, str(shown[-1].position) if len(rows) > limit else None


def _opened(cursor: str | None) -> int:
    if cursor is None:
        return _LAST_POSITION
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise Invalid([("cursor", "is not one that this service gave: leave it out to begin anew")])
    return int(cursor)


async def verify_chain(db: Database, client_id: UUID) -> Verdict:
    """Go through the tenant's chain from its first row on, in constant memory. A tenant without rows: whole."""
    began = await _beginning(db, client_id)
    verdict = await _walk(db, client_id)
    if not verdict.whole and await _beginning(db, client_id) != began:
        # The tenant was deleted meanwhile: what was gone through is there no more.
        verdict = await _walk(db, client_id)
    return verdict


_BEGINNING = "SELECT min(position) AS position FROM audit_logs WHERE client_id = %(client_id)s"


async def _beginning(db: Database, client_id: UUID) -> int | None:
    (row,) = await db.run(_BEGINNING, {"client_id": client_id}, tenant=client_id)
    position: int | None = row["position"]
    return position


async def _walk(db: Database, client_id: UUID) -> Verdict:
    before: Row | None = None
    count = 0
    async for row in _oldest_first(db, client_id):
        if reason := break_at(before, row):
            return Verdict(False, count, row["position"], reason)
        before, count = row, count + 1
    return Verdict(True, count)


_AFTER = """
SELECT client_id, position, actor, action, detail, at, previous_hash, hash FROM audit_logs
WHERE client_id = %(client_id)s AND position > %(after)s ORDER BY position LIMIT %(limit)s"""


async def _oldest_first(db: Database, client_id: UUID) -> AsyncIterator[Row]:
    # Positions begin at 1; one below that is a break too.
    after = -_LAST_POSITION
    while True:
        values = {"client_id": client_id, "after": after, "limit": _BATCH}
        rows = await db.run(_AFTER, values, tenant=client_id)
        for row in rows:
            yield row
        if len(rows) < _BATCH:
            return
        after = rows[-1]["position"]


def break_at(before: Row | None, row: Row) -> str | None:
    """Why the row is not what was written after the one before of its tenant; None when it is."""
    if before is None:
        reason = _no_beginning(row)
    elif row["position"] != before["position"] + 1:
        reason = f"Rows before it are missing: it follows position {before['position']}."
    elif row["previous_hash"] != before["hash"]:
        reason = "It does not carry the hash of the row before: one of them was replaced, or they were swapped."
    else:
        reason = None
    if reason is None and row["hash"] != chain_hash(row["previous_hash"], row):
        reason = "Its contents are not those that its hash was made of."
    return reason


def _no_beginning(row: Row) -> str | None:
    """A chain begins with its first row, or goes on after a deletion of the tenant took the rows before."""
    if row["position"] == 1:
        return None if row["previous_hash"] == FIRST_HASH else "It does not carry the hash that a first row carries."
    if row["position"] > 1 and row["action"] == TENANT_DELETED:
        return None
    return "The rows before it are missing, and no deletion of the tenant explains that."
