"""Databases that are used again: emptied, if a test has left everything but the rows as it was."""

from __future__ import annotations

from typing import Any

import psycopg

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
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""
_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
_RESTART = (
    "SELECT setval(oid::regclass, 1, false) FROM pg_class WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace"
)


def shape(url: str) -> str:
    """What the database is but for its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        return _shape(connection)


def _shape(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(_SHAPE).fetchone()
    return str(row and row[0])


def emptied(url: str, before: str) -> bool:
    """Whether the database is as it was before, all rows and connections gone; else it is good for nothing more."""
    try:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_OTHERS)
            if _shape(connection) != before:
                return False
            # History refuses to be removed, and rows refer to each other.
            connection.execute("SET session_replication_role = replica")
            tables = [name for (name,) in connection.execute(_TABLES)]
            connection.execute(";".join(f'DELETE FROM "{name}"' for name in tables))
            connection.execute(_RESTART)
            return True
    except psycopg.Error:
        return False
