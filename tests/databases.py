"""Databases that are used again: emptied, if a test has left everything but the rows as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from payments_service.invariants import EVERYTHING

# Whatever a test could have changed besides rows, as one text.
_SHAPE = """
SELECT md5(string_agg(part, '|' ORDER BY part)) FROM (
    SELECT concat('relation', relname, relkind, relnatts, relrowsecurity, relforcerowsecurity, relacl) AS part
    FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT concat('column', attrelid::regclass, attname, atttypid, attnotnull)
    FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE c.relnamespace = 'public'::regnamespace AND attnum > 0
    UNION ALL SELECT concat('default', adrelid::regclass, pg_get_expr(adbin, adrelid)) FROM pg_attrdef
    UNION ALL SELECT concat('constraint', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT concat('trigger', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT concat('policy', polrelid::regclass, polname, pg_get_expr(polqual, polrelid)) FROM pg_policy
    UNION ALL SELECT concat('function', proname, prosrc) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT concat('setting', setconfig)
    FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    UNION ALL SELECT concat('version', version_num) FROM alembic_version
) AS parts"""
_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name <> 'kept' AND pid <> pg_backend_pid()"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
_RESTART = (
    "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
)


def faults(connection: psycopg.Connection[Any]) -> list[str]:
    """The rules of `payments_service.invariants` that rows in the database break."""
    found = connection.execute(EVERYTHING, {"lately": "infinity"}, prepare=True)
    return [f"{', '.join(broken)}: {row}" for row, broken in found]


def _connect(url: str, *options: str) -> psycopg.Connection[Any]:
    """A connection that outlives the tests: to connect, and to plan what is asked after each, would cost more than the
    questions."""
    set_up = " ".join(f"-c {option}" for option in ("plan_cache_mode=force_generic_plan", *options))
    return psycopg.connect(url, autocommit=True, options=set_up, application_name="kept")


class Kept:
    """A database of one test after the other."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connect()
        self._before = _shape(self._looks)

    def _connect(self) -> None:
        self._looks = _connect(self._url)
        # History refuses to be removed, and rows refer to each other. A session that changes this forgets its plans.
        self._removes = _connect(self._url, "session_replication_role=replica")

    def close(self) -> None:
        self._looks.close()
        self._removes.close()

    def emptied(self, found: list[str]) -> bool:
        """Whether the database is as it was before, all rows and connections gone; else it is good for nothing more.

        `found` gets the rules that its rows broke, where it still has the tables that they are about."""
        try:
            if _is_cut(self._looks) or _is_cut(self._removes):
                self.close()
                self._connect()
            self._looks.execute(_OTHERS)
            if _shape(self._looks) != self._before:
                return False
            found += faults(self._looks)
            _empty(self._removes)
        except psycopg.Error:
            return False
        return True


def _is_cut(connection: psycopg.Connection[Any]) -> bool:
    """Whether a test has ended all connections, ours too."""
    try:
        connection.execute("SELECT")
    except psycopg.OperationalError:
        return True
    return False


def _empty(connection: psycopg.Connection[Any]) -> None:
    tables = [name for (name,) in connection.execute(_TABLES)]
    connection.execute(";".join(f'DELETE FROM "{name}"' for name in tables))
    connection.execute(_RESTART)


def _shape(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(_SHAPE).fetchone()
    return str(row and row[0])


@dataclass
class Shared:
    """A database that several tests share, and the damage in it that is known already."""

    connection: psycopg.Connection[Any]
    known: set[str] = field(default_factory=set)

    def new_faults(self) -> list[str]:
        found = [fault for fault in faults(self.connection) if fault not in self.known]
        self.known.update(found)
        return found


SHARED: list[Shared] = []


@contextmanager
def shared(url: str) -> Iterator[None]:
    """While it is open, the database is looked at after each test."""
    with _connect(url) as connection:
        SHARED.append(Shared(connection))
        try:
            yield
        finally:
            SHARED.pop()
