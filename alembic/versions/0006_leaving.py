"""A tenant may leave: the one door through which rows that are only added are removed, and indexes to find them by.

Adds indexes without locking writers out, and replaces the function behind the triggers by one that still refuses all
that it refused, but for a tenant that has left; so replicas of the version before go on working meanwhile. Every step
can be repeated: building an index outside a transaction may be cut off half-way.
"""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# Without them each removed attempt or payment would read the whole of the tables that refer to it.
INDEXES = {
    "ix_transitions_attempt_id": "transitions (attempt_id) WHERE attempt_id IS NOT NULL",
    "ix_callbacks_attempt_id": "callbacks (attempt_id) WHERE attempt_id IS NOT NULL",
    "ix_reviews_attempt_id": "reviews (attempt_id)",
    "ix_refunds_payment_id": "refunds (payment_id)",
    "ix_disputes_payment_id": "disputes (payment_id)",
    # The lists of failed events and of one tenant's events read the outbox until they had a page.
    "ix_events_failed": "events (position) WHERE state = 'failed'",
    "ix_events_of_tenant": "events (client_id, position) WHERE position IS NOT NULL",
}

REFUSE = """
    RAISE EXCEPTION 'rows of % are only added, never changed or removed', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';"""
# The transaction must name the tenant, the newest audit row must say that it was deleted, and no settings may have been
# saved since. So an audit row goes only by a later one that says so, and that one stays.
DOOR = """
    IF TG_OP = 'DELETE' THEN
        IF OLD.client_id::text = current_setting('conva.leaving', true)
           AND NOT EXISTS (SELECT FROM payment_settings s WHERE s.client_id = OLD.client_id)
        THEN
            SELECT l.id, l.action INTO newest FROM audit_logs l
            WHERE l.client_id = OLD.client_id ORDER BY l.position DESC LIMIT 1;
            IF newest.action = 'tenant.deleted' AND NOT (TG_TABLE_NAME = 'audit_logs' AND OLD.id = newest.id) THEN
                RETURN OLD;
            END IF;
        END IF;
    END IF;"""


def upgrade() -> None:
    _refuse_change(f"DECLARE newest record; BEGIN {DOOR}{REFUSE}")
    with op.get_context().autocommit_block():
        for name, place in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {place}")


def _refuse_change(body: str) -> None:
    op.execute(f"CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ {body} END $$")


def downgrade() -> None:
    for name in INDEXES:
        op.execute(f"DROP INDEX IF EXISTS {name}")
    _refuse_change(f"BEGIN {REFUSE}")
