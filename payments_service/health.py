"""`/livez`: the process turns. `/readyz`: it can do its work: database, migrations and keys are there."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from payments_service.accounts import COLUMNS, SECRETS
from payments_service.context import Context
from payments_service.errors import Unavailable
from payments_service.migrations import outdated
from payments_service.vault import VERSION
from payments_service.web import json_response

PATIENCE = 3.0
_SILENT = "database: it does not answer"

_REVISION = "SELECT version_num FROM alembic_version"
_KEY_IDS = " UNION ".join(
    f"SELECT split_part({COLUMNS[field]}, '.', 2) AS key_id FROM payment_settings "
    f"WHERE {COLUMNS[field]} LIKE '{VERSION}.%%'"
    for field in sorted(SECRETS)
) + (
    " UNION SELECT split_part(value, '.', 2) FROM retired_settings, jsonb_each_text(stored) "
    f"WHERE key LIKE '%%_enc' AND value LIKE '{VERSION}.%%'"
)


async def livez(_request: Request) -> Response:
    """Never touches the database: restarting the process does not mend one."""
    return json_response({"status": "ok"})


async def readyz(request: Request) -> Response:
    """503 names what is missing."""
    faults = await missing(request.app.state.context)
    return json_response({"status": "unready", "missing": faults}, 503) if faults else json_response({"status": "ok"})


async def public_readyz(request: Request) -> Response:
    """The same for the internet, which is not told what is missing."""
    faults = await missing(request.app.state.context)
    return json_response({"status": "unready"}, 503) if faults else json_response({"status": "ok"})


async def missing(context: Context) -> list[str]:
    """What this process lacks to do its work; empty when it is ready."""
    look = asyncio.create_task(_missing(context))
    # Without waiting for its end: a database that has fallen silent is not even quick to cancel at.
    done, _ = await asyncio.wait({look}, timeout=PATIENCE)
    if not done:
        look.cancel()
        return [_SILENT]
    return look.result()


async def _missing(context: Context) -> list[str]:
    try:
        return await _found_missing(context)
    except Unavailable:
        return [_SILENT]


async def _found_missing(context: Context) -> list[str]:
    known = await context.db.run("SELECT to_regclass('alembic_version') IS NOT NULL AS there", {})
    rows = await context.db.run(_REVISION, {}) if known[0]["there"] else []
    if not rows or rows[0]["version_num"] in outdated():
        return ["migrations: run `payments-service migrate` with this version"]
    used = {row["key_id"] for row in await context.db.run(_KEY_IDS, {})}
    return [
        f"keys: key {key_id} still seals stored credentials; put its secret into ENCRYPTION_SECRET_PREVIOUS"
        for key_id in sorted(used - set(context.vault.known_key_ids))
    ]
