"""Currencies of an EcoCash account, and one more reason to ask a person.

Only adds a column that may be null and allows one more value, so that replicas of the version before go on working
meanwhile. Every step can be repeated.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

REASONS = ("amount_mismatch", "currency_mismatch", "reference_mismatch", "second_payment", "gateway_reference_reused")
ADDED = "unknown_status"


def upgrade() -> None:
    # Behind a long transaction a change of the table would hold all writers up: give up instead, and be run again.
    op.execute("SET lock_timeout = '5s'")
    op.execute("ALTER TABLE payment_settings ADD COLUMN IF NOT EXISTS ecocash_currencies text")
    _allow(*REASONS, ADDED)


def _allow(*reasons: str) -> None:
    listed = ", ".join(f"'{reason}'" for reason in reasons)
    op.execute("ALTER TABLE reviews DROP CONSTRAINT IF EXISTS ck_reviews_reason")
    op.execute(f"ALTER TABLE reviews ADD CONSTRAINT ck_reviews_reason CHECK (reason IN ({listed})) NOT VALID")
    # What stands there is looked through in a transaction of its own, which locks no writer out.
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE reviews VALIDATE CONSTRAINT ck_reviews_reason")


def downgrade() -> None:
    op.execute(
        f"""
        DO $$ BEGIN
            IF EXISTS (SELECT FROM reviews WHERE reason = '{ADDED}') THEN
                RAISE EXCEPTION 'There are reviews of statuses that nobody knows: the version before cannot read them.';
            END IF;
        END $$
        """
    )
    _allow(*REASONS)
    op.execute("ALTER TABLE payment_settings DROP COLUMN ecocash_currencies")
