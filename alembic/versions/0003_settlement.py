"""What becomes of money that came: refunds and disputes; and when a gateway's undelivered messages are asked for.

Only adds tables, a column that may be null, and an index without locking writers out, so that replicas of the version
before go on working meanwhile. Every step can be repeated: building an index outside a transaction may be cut off
half-way.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TENANT_ROLE = "conva_payments_tenant"
WORKER_ROLE = "conva_payments_worker"
# What the internal API does for a tenant.
TENANT_WRITES = {"refunds": "SELECT, INSERT, UPDATE", "disputes": "SELECT", "sweeps": "SELECT"}

GATEWAY = "CHECK (gateway IN ('paynow', 'ecocash', 'innbucks', 'stripe'))"
OF_ATTEMPT = (
    """
    payment_id uuid NOT NULL CONSTRAINT fk_{table}_payment_id_payments REFERENCES payments (id),
    client_id uuid NOT NULL,
    attempt_id uuid NOT NULL CONSTRAINT fk_{table}_attempt_id_attempts REFERENCES attempts (id),
    gateway text NOT NULL CONSTRAINT ck_{table}_gateway """
    + GATEWAY
)
TABLES = {
    "refunds": f"""
        id uuid NOT NULL DEFAULT gen_random_uuid() CONSTRAINT pk_refunds PRIMARY KEY,
        {OF_ATTEMPT.format(table="refunds")},
        gateway_reference text,
        amount_cents bigint NOT NULL CONSTRAINT ck_refunds_amount CHECK (amount_cents > 0),
        state text NOT NULL
            CONSTRAINT ck_refunds_state CHECK (state IN ('requested', 'pending', 'succeeded', 'failed')),
        reason text, actor text, evidence text, detail text,
        created_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_refunds_client_id_gateway_gateway_reference UNIQUE (client_id, gateway, gateway_reference)""",
    "disputes": f"""
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_disputes PRIMARY KEY,
        {OF_ATTEMPT.format(table="disputes")},
        gateway_reference text NOT NULL,
        amount_cents bigint NOT NULL CONSTRAINT ck_disputes_amount CHECK (amount_cents > 0),
        state text NOT NULL CONSTRAINT ck_disputes_state CHECK (state IN ('open', 'lost', 'won')),
        opened_at timestamptz NOT NULL DEFAULT now(),
        updated_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_disputes_client_id_gateway_gateway_reference UNIQUE (client_id, gateway, gateway_reference)""",
    "sweeps": f"""
        id bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT pk_sweeps PRIMARY KEY,
        client_id uuid NOT NULL,
        gateway text NOT NULL CONSTRAINT ck_sweeps_gateway {GATEWAY},
        swept_to timestamptz NOT NULL DEFAULT now(),
        next_at timestamptz NOT NULL DEFAULT now(),
        CONSTRAINT uq_sweeps_client_id_gateway UNIQUE (client_id, gateway)""",
}
INDEXED = ("refunds", "disputes")


def upgrade() -> None:
    # References and columns lock the busiest tables for a moment. Behind a long transaction that would hold all writers
    # up: give up instead, and be run again.
    op.execute("SET lock_timeout = '5s'")
    for table, columns in TABLES.items():
        op.execute(f"CREATE TABLE IF NOT EXISTS {table} ({columns})")
        _wall_between_tenants(table)
    for table in INDEXED:
        op.execute(f"CREATE INDEX IF NOT EXISTS ix_{table}_attempt_id ON {table} (attempt_id)")
    op.execute("ALTER TABLE attempts ADD COLUMN IF NOT EXISTS refunded_total bigint")
    op.execute("RESET lock_timeout")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX IF EXISTS ix_attempts_gateway_reference")
        op.execute(
            "CREATE INDEX CONCURRENTLY ix_attempts_gateway_reference ON attempts (gateway_reference) "
            "WHERE gateway_reference IS NOT NULL"
        )


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
    op.execute("DROP INDEX IF EXISTS ix_attempts_gateway_reference")
    op.execute("ALTER TABLE attempts DROP COLUMN refunded_total")
    for table in reversed(TABLES):
        op.execute(f"DROP TABLE {table}")
