"""Bringing the database to the newest version, from the command line and at the start of the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from payments_service import config
from payments_service.errors import PaymentsError, Unavailable

_INSTALLED = Path(__file__).parent / "_migrations"
_CHECKOUT = Path(__file__).parent.parent / "alembic"


def _settings() -> Config:
    chosen = Config()
    chosen.set_main_option("script_location", str(_INSTALLED if _INSTALLED.is_dir() else _CHECKOUT).replace("%", "%%"))
    return chosen


@contextmanager
def _connect(url: str) -> Iterator[Connection]:
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, options="-c timezone=UTC", connect_timeout=10),
        poolclass=NullPool,
        use_native_hstore=False,
    )
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise Unavailable("The database of DATABASE_URL cannot be reached, or refuses us.") from error
    finally:
        engine.dispose()


@contextmanager
def connect_for_cli() -> Iterator[Connection]:
    """For the `alembic` command: the database of DATABASE_URL."""
    url = config.from_environment().database_url
    if url is None:
        raise PaymentsError("Set DATABASE_URL for the alembic command, or use `payments-service migrate`.")
    with _connect(url) as connection:
        yield connection


@cache
def outdated() -> frozenset[str]:
    """The revisions that are too old for this version of the code. One that it does not know is newer: migrations
    keep what the version before needs, so that replicas can be replaced one by one."""
    scripts = ScriptDirectory.from_config(_settings())
    head = scripts.get_current_head()
    return frozenset(script.revision for script in scripts.walk_revisions() if script.revision != head)


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the database up to date; the revision before and after. Safe when several processes do it at once."""
    chosen = _settings()
    with _connect(url) as connection:
        before = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        chosen.attributes["connection"] = connection
        try:
            command.upgrade(chosen, "head")
        except CommandError as error:
            raise PaymentsError(f"The database is at revision {before}, which this version does not know.") from error
        after = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
    assert after is not None
    return before, after
