"""Ways to pay without the gateway's own page: what the customer does next, and to which phone the prompt went.

Only adds columns that may be null, and an index without locking writers out, so that replicas of the version before go
on working meanwhile. Every step can be repeated: building an index outside a transaction may be cut off half-way.
"""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {
    "payment_settings": {"paynow_auth_email": "text", "paynow_express_methods": "text", "whatsapp_number": "text"},
    "attempts": {"number": "smallint", "phone": "text", "next_step": "jsonb"},
}


def upgrade() -> None:
    for table, columns in COLUMNS.items():
        for name, kind in columns.items():
            op.execute(f"ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} {kind}")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX IF EXISTS uq_attempts_number")
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY uq_attempts_number ON attempts (payment_id, number)")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS uq_attempts_number")
    for table, columns in COLUMNS.items():
        for name in columns:
            op.execute(f"ALTER TABLE {table} DROP COLUMN {name}")
