"""Calls that can be repeated, and how many links a tenant makes. Only adds tables."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TENANT_ROLE = "conva_payments_tenant"
WORKER_ROLE = "conva_payments_worker"

TABLES = {
    "idempotency_keys": """
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_idempotency_keys PRIMARY KEY,
        client_id uuid NOT NULL,
        caller text NOT NULL,
        operation text NOT NULL,
        key text NOT NULL CONSTRAINT ck_idempotency_keys_key CHECK (length(key) BETWEEN 1 AND 255),
        digest bytea NOT NULL,
        lease timestamptz NOT NULL,
        made uuid,
        status smallint,
        body bytea,
        created_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT ck_idempotency_keys_answered CHECK ((status IS NULL) = (body IS NULL)),
        CONSTRAINT uq_idempotency_keys_client_id_caller_operation_key UNIQUE (client_id, caller, operation, key)
    """,
    "link_rates": """
        client_id uuid NOT NULL CONSTRAINT pk_link_rates PRIMARY KEY,
        moments timestamptz[] NOT NULL DEFAULT '{}'
    """,
}
TENANT_WRITES = {"idempotency_keys": "SELECT, INSERT, UPDATE, DELETE", "link_rates": "SELECT, INSERT, UPDATE"}


def upgrade() -> None:
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        _wall_between_tenants(table)
    op.execute("CREATE INDEX IF NOT EXISTS ix_idempotency_keys_created_at ON idempotency_keys (created_at)")


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
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
