"""`rotate-keys`: bring every stored credential under the current key, online and resumable."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import structlog
from psycopg.types.json import Jsonb

from payments_service.accounts import COLUMNS, SECRETS
from payments_service.context import Context
from payments_service.db import Row
from payments_service.vault import CannotOpen

log = structlog.get_logger(__name__)

BATCH = 200
_SEALED = sorted(COLUMNS[field] for field in SECRETS)

_RETIRED = """
SELECT id, client_id, stored FROM retired_settings WHERE id > %(after)s ORDER BY id LIMIT %(limit)s"""

_NEXT = f"""
SELECT client_id, {", ".join(_SEALED)} FROM payment_settings
WHERE %(after)s::uuid IS NULL OR client_id > %(after)s ORDER BY client_id LIMIT %(limit)s"""


@dataclass(slots=True)
class Progress:
    """How far the rotation is: tenants looked at, values sealed anew, values that no known key opens."""

    tenants: int = 0
    rewrapped: int = 0
    unreadable: int = 0


async def rotate(context: Context) -> AsyncIterator[Progress]:
    """Seal anew what is not under the current key; the progress after each batch.

    Safe while the service runs: a value is replaced only if it is still the one that was read, so a save in between
    wins. Can be stopped and started again at any time. Old secrets may go when a whole run found nothing unreadable
    and `/readyz` of a process without them is content.
    """
    progress = Progress()
    after: UUID | None = None
    while rows := await context.db.run(_NEXT, {"after": after, "limit": BATCH}):
        for row in rows:
            progress.tenants += 1
            for column in _SEALED:
                await _rewrap(context, row, column, progress)
        after = rows[-1]["client_id"]
        yield progress
    last = 0
    while rows := await context.db.run(_RETIRED, {"after": last, "limit": BATCH}):
        for row in rows:
            await _rewrap_retired(context, row, progress)
        last = rows[-1]["id"]
        yield progress


async def _rewrap_retired(context: Context, row: Row, progress: Progress) -> None:
    """Nobody else writes these rows once they are made."""
    stored = dict(row["stored"])
    for column in stored.keys() & set(_SEALED):
        if sealed := _sealed_anew(context, row["client_id"], column, stored[column], progress):
            stored[column] = sealed
            progress.rewrapped += 1
    if stored != row["stored"]:
        await context.db.run(
            "UPDATE retired_settings SET stored = %(stored)s WHERE id = %(id)s AND client_id = %(client_id)s",
            {"stored": Jsonb(stored), "id": row["id"], "client_id": row["client_id"]},
        )


async def _rewrap(context: Context, row: Row, column: str, progress: Progress) -> None:
    stored, client_id = row[column], row["client_id"]
    if stored is None or not (sealed := _sealed_anew(context, client_id, column, stored, progress)):
        return
    changed = await context.db.run(
        f"UPDATE payment_settings SET {column} = %(new)s WHERE client_id = %(client_id)s AND {column} = %(old)s "
        "RETURNING 1",
        {"new": sealed, "old": stored, "client_id": client_id},
    )
    progress.rewrapped += len(changed)


def _sealed_anew(context: Context, client_id: UUID, column: str, stored: str, progress: Progress) -> str | None:
    try:
        return context.vault.rewrap(stored, client_id=client_id, column=column)
    except CannotOpen as error:
        progress.unreadable += 1
        log.error("credential_unreadable", client_id=client_id, column=column, detail=str(error))
        return None
