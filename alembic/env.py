"""Runs the migrations. Replicas may start at once: an advisory lock lets one through, the others find it done."""

from __future__ import annotations

import time
from typing import cast

from alembic import context
from sqlalchemy import Connection, text

from payments_service.migrations import connect_for_cli
from payments_service.tables import metadata

# Any constant number that nobody else locks.
_LOCK = 0x434F4E5641


def _wait_for_turn(connection: Connection) -> None:
    """Asks again and again instead of waiting inside a statement: building an index concurrently waits for all
    statements to end, also for one that waits for it."""
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _LOCK}):
        connection.commit()
        time.sleep(0.1)
    connection.commit()


def _migrate(connection: Connection) -> None:
    _wait_for_turn(connection)
    try:
        context.configure(connection=connection, target_metadata=metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _LOCK})
        connection.commit()


given = cast("Connection | None", context.config.attributes.get("connection"))
if given is not None:
    _migrate(given)
else:
    with connect_for_cli() as connection:
        _migrate(connection)
