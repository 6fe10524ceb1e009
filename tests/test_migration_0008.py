"""The eighth migration, there and back, over rows of messages and of payments."""

from __future__ import annotations

from uuid import uuid4

import psycopg
from alembic import command

from payments_service import migrations
from tests import test_tenants
from tests.support import plant, rows
from tests.test_database import OF_TABLES, catalog, step

ordinary = test_tenants.ordinary  # a fixture

MESSAGE = (
    "INSERT INTO messages (id, client_id, payment_id, recipient, state) "
    "VALUES (%(message)s, %(client)s, %(payment)s, '+263771234567', 'sent')"
)
TOLD = (
    "INSERT INTO events (id, client_id, payment_id, message_id, type, sequence, body, next_try_at) "
    "VALUES (gen_random_uuid(), %(client)s, %(payment)s, %(message)s, 'message.sent', 1, '{}', now())"
)
TRIED = "INSERT INTO event_tries (event_id, client_id, milliseconds) SELECT id, client_id, 1 FROM events"


def test_the_way_back_takes_what_the_version_before_does_not_know(ordinary: str, database: str) -> None:
    """By an ordinary owner behind the wall: two messages of one payment told the same; the payment's own event stays
    with its tries, and the way up is open again."""
    with psycopg.connect(ordinary, autocommit=True) as connection:
        ids = plant(connection, uuid4())
        for _ in range(2):
            ids["message"] = uuid4()
            connection.execute(MESSAGE, ids)
            connection.execute(TOLD, ids)
        connection.execute(TRIED)
        step(ordinary, command.downgrade, "0007")
        assert [each["id"] for each in rows(connection, "SELECT id FROM events")] == [ids["event"]]
        assert len(rows(connection, "SELECT FROM event_tries")) == 2
        step(ordinary, command.downgrade, "0005")
        migrations.migrate(ordinary)
        assert [each["id"] for each in rows(connection, "SELECT id FROM events")] == [ids["event"]]
    assert catalog(ordinary, *OF_TABLES) == catalog(database, *OF_TABLES)
