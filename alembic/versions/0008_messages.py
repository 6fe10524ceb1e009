"""The pay link goes to the customer by WhatsApp: messages, numbers that were turned down, and a tenant's own text.

Only adds: tables, columns that may be null, and indexes without locking writers out. Events of messages stand beside
those of the payment's steps, so the one rule that held for all of them becomes one for each kind. Every step can be
repeated: building an index outside a transaction may be cut off half-way.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TENANT_ROLE = "conva_payments_tenant"
WORKER_ROLE = "conva_payments_worker"

TABLES = {
    "messages": """
        id uuid NOT NULL CONSTRAINT pk_messages PRIMARY KEY,
        client_id uuid NOT NULL,
        payment_id uuid NOT NULL CONSTRAINT fk_messages_payment_id_payments REFERENCES payments (id),
        kind text NOT NULL DEFAULT 'link' CONSTRAINT ck_messages_kind CHECK (kind IN ('link', 'reminder')),
        form text NOT NULL DEFAULT 'template' CONSTRAINT ck_messages_form CHECK (form IN ('template', 'text')),
        recipient text NOT NULL,
        state text NOT NULL DEFAULT 'queued' CONSTRAINT ck_messages_state CHECK (state IN (
            'queued', 'sending', 'unknown', 'accepted', 'sent', 'delivered', 'read', 'failed', 'withdrawn')),
        wamid text,
        dead text[] NOT NULL DEFAULT '{}',
        tries smallint NOT NULL DEFAULT 0,
        resent boolean NOT NULL DEFAULT false,
        code integer,
        detail text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        next_try_at timestamptz,
        CONSTRAINT ck_messages_open_is_due CHECK (state NOT IN ('queued', 'sending') OR next_try_at IS NOT NULL)
    """,
    "stopped_senders": """
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_stopped_senders PRIMARY KEY,
        client_id uuid NOT NULL,
        digest bytea NOT NULL,
        code integer NOT NULL,
        detail text NOT NULL,
        at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_stopped_senders_client_id_digest UNIQUE (client_id, digest)
    """,
}
# Behind a long transaction a change of a busy table would hold all writers up: give up instead, and be run again.
_PATIENCE = "SET lock_timeout = '5s'"
TENANT_WRITES = {"messages": "SELECT, INSERT", "stopped_senders": "SELECT, DELETE"}


def upgrade() -> None:
    op.execute(_PATIENCE)
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        _wall_between_tenants(table)
    op.execute("CREATE INDEX IF NOT EXISTS ix_messages_payment_id ON messages (payment_id)")
    op.execute("CREATE INDEX IF NOT EXISTS ix_messages_due ON messages (next_try_at) WHERE next_try_at IS NOT NULL")
    op.execute("CREATE INDEX IF NOT EXISTS ix_messages_wamid ON messages (wamid) WHERE wamid IS NOT NULL")
    op.execute("ALTER TABLE payment_settings ADD COLUMN IF NOT EXISTS whatsapp_text text")
    op.execute(
        "ALTER TABLE events ADD COLUMN IF NOT EXISTS message_id uuid "
        "CONSTRAINT fk_events_message_id_messages REFERENCES messages (id)"
    )
    op.execute("RESET lock_timeout")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_events_step")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY uq_events_step ON events (payment_id, sequence, type) "
            "WHERE message_id IS NULL"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS uq_events_message")
        op.execute(
            "CREATE UNIQUE INDEX CONCURRENTLY uq_events_message ON events (message_id, type) "
            "WHERE message_id IS NOT NULL"
        )
    op.execute(_PATIENCE)
    op.execute("ALTER TABLE events DROP CONSTRAINT IF EXISTS uq_events_payment_id_sequence_type")
    op.execute("RESET lock_timeout")


def _wall_between_tenants(table: str) -> None:
    """As on every table (see 0001)."""
    scope = "client_id = NULLIF(current_setting('conva.client_id', true), '')::uuid"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"GRANT {TENANT_WRITES[table]} ON {table} TO {TENANT_ROLE}")
    op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {WORKER_ROLE}")
    op.execute(f"DROP POLICY IF EXISTS worker ON {table}")
    op.execute(f"DROP POLICY IF EXISTS tenant ON {table}")
    op.execute(f"CREATE POLICY worker ON {table} TO {WORKER_ROLE} USING (true) WITH CHECK (true)")
    op.execute(f"CREATE POLICY tenant ON {table} TO {TENANT_ROLE} USING ({scope}) WITH CHECK ({scope})")


def downgrade() -> None:
    op.execute("DELETE FROM event_tries WHERE event_id IN (SELECT id FROM events WHERE message_id IS NOT NULL)")
    op.execute("DELETE FROM events WHERE message_id IS NOT NULL")
    op.execute("DROP INDEX IF EXISTS uq_events_message")
    op.execute("DROP INDEX IF EXISTS uq_events_step")
    op.execute(
        "ALTER TABLE events ADD CONSTRAINT uq_events_payment_id_sequence_type UNIQUE (payment_id, sequence, type)"
    )
    op.execute("ALTER TABLE events DROP COLUMN message_id")
    op.execute("ALTER TABLE payment_settings DROP COLUMN whatsapp_text")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
