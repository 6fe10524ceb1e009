"""Finding payments by what the backend knows of them, and events in an order without gaps.

Only adds a column that may be null, a sequence, and indexes without locking writers out, so that replicas of the
version before go on working meanwhile. Every step can be repeated: building an index outside a transaction may be cut
off half-way.
"""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

WORKER_ROLE = "conva_payments_worker"

INDEXES = {
    "ix_payments_status": "payments (client_id, status, created_at DESC, id DESC)",
    "ix_payments_reference": "payments (client_id, reference)",
    "ix_payments_contact_id": "payments (client_id, contact_id) WHERE contact_id IS NOT NULL",
    "ix_payments_invoice_id": "payments (client_id, invoice_id) WHERE invoice_id IS NOT NULL",
    "ix_events_waiting": "events (created_at, id) WHERE position IS NULL",
    "ix_events_created": "events (created_at, id)",
}
UNIQUE = {"uq_events_position": "events (position) WHERE position IS NOT NULL"}


def upgrade() -> None:
    # Behind a long transaction a change of the table would hold all writers up: give up instead, and be run again.
    op.execute("SET lock_timeout = '5s'")
    op.execute("ALTER TABLE events ADD COLUMN IF NOT EXISTS replays smallint NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE events ADD COLUMN IF NOT EXISTS position bigint")
    op.execute("CREATE SEQUENCE IF NOT EXISTS events_position AS bigint")
    op.execute(f"GRANT USAGE ON SEQUENCE events_position TO {WORKER_ROLE}")
    op.execute("RESET lock_timeout")
    with op.get_context().autocommit_block():
        for name, place in INDEXES.items():
            op.execute(f"DROP INDEX IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {place}")
        for name, place in UNIQUE.items():
            op.execute(f"DROP INDEX IF EXISTS {name}")
            op.execute(f"CREATE UNIQUE INDEX CONCURRENTLY {name} ON {place}")


def downgrade() -> None:
    for name in (*INDEXES, *UNIQUE):
        op.execute(f"DROP INDEX IF EXISTS {name}")
    op.execute("DROP SEQUENCE IF EXISTS events_position")
    op.execute("ALTER TABLE events DROP COLUMN position, DROP COLUMN replays")
