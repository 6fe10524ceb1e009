"""The second migration over rows that the version before it wrote."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from psycopg import errors

from payments_service import migrations
from tests import test_tenants
from tests.support import rows
from tests.test_database import INSERT_PAYMENT, OF_TABLES, catalog, step

ordinary = test_tenants.ordinary  # a fixture


@pytest.mark.parametrize("there", ["up", "down"])
def test_the_second_migration_leaves_every_row_as_it_was(
    there: str, request: pytest.FixtureRequest, database: str
) -> None:
    """From 0001, by the superuser as by an ordinary owner behind the wall, also on the way back and once more. The
    tries of the version before have no number, those after have each their own."""
    url = request.getfixturevalue("empty_database" if there == "up" else "ordinary")
    step(url, command.upgrade if there == "up" else command.downgrade, "0001")
    with psycopg.connect(url, autocommit=True) as connection:
        payments, kept = plant_tries(connection), {}
        for table in ("payments", "attempts", "payment_settings"):
            kept[table] = rows(connection, f"SELECT * FROM {table} ORDER BY id")
        for _ in range(2):
            step(url, command.upgrade, "0002")
            assert numbers(connection, payments) == [[None] * 5, [None], [], [None] * 2]
            for table, before in kept.items():
                assert unchanged(before, rows(connection, f"SELECT * FROM {table} ORDER BY id")), table
            with pytest.raises(errors.UniqueViolation, match="uq_attempts_number"):
                connection.execute("UPDATE attempts SET number = 1 WHERE payment_id = %s", [payments[3]])
            step(url, command.downgrade, "0001")
            assert rows(connection, "SELECT * FROM attempts ORDER BY id") == kept["attempts"]
        migrations.migrate(url)
        for _ in range(2):
            add_try(connection, payments[3], minute=9)
        assert numbers(connection, payments)[3] == [None] * 4
    assert catalog(url, *OF_TABLES) == catalog(database, *OF_TABLES)


def plant_tries(connection: psycopg.Connection[Any]) -> list[UUID]:
    """Four payments of two tenants, with five tries (two at one moment), one, none and two, added out of order."""
    payments = []
    for client, minutes in zip([uuid4()] * 2 + [uuid4()] * 2, [(7, 1, 3, 3, 5), (2,), (), (6, 4)], strict=True):
        (row,) = rows(connection, f"{INSERT_PAYMENT} RETURNING id", client)
        payments.append(row["id"])
        for minute in minutes:
            add_try(connection, row["id"], minute)
        connection.execute("INSERT INTO payment_settings (client_id) VALUES (%s) ON CONFLICT DO NOTHING", [client])
    return payments


def add_try(connection: psycopg.Connection[Any], payment: UUID, minute: int) -> None:
    """As the version of 0001 adds one."""
    connection.execute(
        "INSERT INTO attempts (id, payment_id, client_id, gateway, method, reference, amount_cents, currency, state, "
        "started_at) SELECT gen_random_uuid(), id, client_id, 'paynow', 'web', gen_random_uuid()::text, amount_cents, "
        "currency, 'failed', '2026-11-01 10:00Z'::timestamptz + %s * interval '1 minute' FROM payments WHERE id = %s",
        [minute, payment],
    )


def numbers(connection: psycopg.Connection[Any], payments: list[UUID]) -> list[list[int | None]]:
    """The numbers of each payment's tries, in the order in which they started."""
    ordered = "SELECT number FROM attempts WHERE payment_id = %s ORDER BY started_at, id"
    return [[row["number"] for row in rows(connection, ordered, payment)] for payment in payments]


def unchanged(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Whether these are the same rows, as far as the columns were there before."""
    return [{name: row[name] for name in before[0]} for row in after] == before
