"""The first tables: settings, payments with their attempts and history, callbacks, events, audit log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TENANT_ROLE = "conva_payments_tenant"
WORKER_ROLE = "conva_payments_worker"
TENANT_TABLES = (
    "payment_settings",
    "retired_settings",
    "payments",
    "attempts",
    "transitions",
    "reviews",
    "callbacks",
    "events",
    "event_tries",
    "audit_logs",
)
# What the internal API does for a tenant. Only replaced credentials can be deleted; history is only added to.
TENANT_WRITES = {
    "payment_settings": "SELECT, INSERT, UPDATE",
    "retired_settings": "SELECT, INSERT, DELETE",
    "payments": "SELECT, INSERT, UPDATE",
    "attempts": "SELECT, INSERT, UPDATE",
    "transitions": "SELECT, INSERT",
    "reviews": "SELECT, INSERT, UPDATE",
    "callbacks": "SELECT",
    "events": "SELECT, INSERT, UPDATE",
    "event_tries": "SELECT",
    "audit_logs": "SELECT, INSERT",
}
APPEND_ONLY = ("transitions", "audit_logs")


def upgrade() -> None:
    _create_tables()
    _create_roles()
    _wall_between_tenants()
    _append_only()


def _create_roles() -> None:
    """Two roles that cannot log in and own nothing; the login role becomes a member of both.

    Roles belong to the whole cluster: another database of it may have made them already, or be making them now.
    """
    for role in (TENANT_ROLE, WORKER_ROLE):
        op.execute(
            f"""
            DO $$ BEGIN
                IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
                    CREATE ROLE {role} NOLOGIN NOINHERIT;
                END IF;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END $$
            """
        )
        op.execute(
            f"""
            DO $$ BEGIN
                IF NOT pg_has_role(current_user, '{role}', 'USAGE') THEN
                    EXECUTE format('GRANT {role} TO %I', current_user);
                END IF;
            END $$
            """
        )


def _wall_between_tenants() -> None:
    """Row-level security, forced on the owner too: the worker role sees all, the tenant role one tenant.

    The tenant is the transaction's own setting `conva.client_id`; without it nothing is seen.
    """
    op.execute(f"GRANT USAGE ON SCHEMA public TO {TENANT_ROLE}, {WORKER_ROLE}")
    for table in TENANT_TABLES:
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"GRANT {TENANT_WRITES[table]} ON {table} TO {TENANT_ROLE}")
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {WORKER_ROLE}")
        op.execute(f"CREATE POLICY worker ON {table} TO {WORKER_ROLE} USING (true) WITH CHECK (true)")
        op.execute(
            f"""
            CREATE POLICY tenant ON {table} TO {TENANT_ROLE}
            USING (client_id = NULLIF(current_setting('conva.client_id', true), '')::uuid)
            WITH CHECK (client_id = NULLIF(current_setting('conva.client_id', true), '')::uuid)
            """
        )


def _append_only() -> None:
    """What was written stays: the database itself refuses UPDATE, DELETE and TRUNCATE."""
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'rows of % are only added, never changed or removed', TG_TABLE_NAME
                USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _create_tables() -> None:
    op.create_table(
        "audit_logs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("previous_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_logs")),
        sa.UniqueConstraint("client_id", "position", name=op.f("uq_audit_logs_client_id_position")),
    )
    op.create_table(
        "payment_settings",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("paynow_integration_id", sa.Text(), nullable=True),
        sa.Column("paynow_integration_key_enc", sa.Text(), nullable=True),
        sa.Column("paynow_zig_integration_id", sa.Text(), nullable=True),
        sa.Column("paynow_zig_integration_key_enc", sa.Text(), nullable=True),
        sa.Column("stripe_publishable_key", sa.Text(), nullable=True),
        sa.Column("stripe_secret_key_enc", sa.Text(), nullable=True),
        sa.Column("stripe_webhook_secret_enc", sa.Text(), nullable=True),
        sa.Column("ecocash_merchant_code", sa.Text(), nullable=True),
        sa.Column("ecocash_api_key_enc", sa.Text(), nullable=True),
        sa.Column("ecocash_dialect", sa.Text(), nullable=True),
        sa.Column("ecocash_username", sa.Text(), nullable=True),
        sa.Column("ecocash_password_enc", sa.Text(), nullable=True),
        sa.Column("ecocash_merchant_pin_enc", sa.Text(), nullable=True),
        sa.Column("ecocash_merchant_number", sa.Text(), nullable=True),
        sa.Column("innbucks_username", sa.Text(), nullable=True),
        sa.Column("innbucks_password_enc", sa.Text(), nullable=True),
        sa.Column("innbucks_api_key_enc", sa.Text(), nullable=True),
        sa.Column("display_name", sa.Text(), nullable=True),
        sa.Column("whatsapp_phone_number_id", sa.Text(), nullable=True),
        sa.Column("whatsapp_access_token_enc", sa.Text(), nullable=True),
        sa.Column("whatsapp_template", sa.Text(), nullable=True),
        sa.Column("whatsapp_template_language", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment_settings")),
        sa.UniqueConstraint("client_id", name=op.f("uq_payment_settings_client_id")),
    )
    op.create_table(
        "retired_settings",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("stored", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "gateway IN ('paynow', 'ecocash', 'innbucks', 'stripe')", name=op.f("ck_retired_settings_gateway")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retired_settings")),
    )
    op.create_index(op.f("ix_retired_settings_client_id"), "retired_settings", ["client_id"], unique=False)
    op.create_table(
        "payments",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("gateway_reference", sa.Text(), nullable=True),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), server_default="USD", nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("contact_id", sa.Uuid(), nullable=True),
        sa.Column("invoice_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("contact_email", sa.Text(), nullable=True),
        sa.Column("contact_phone", sa.Text(), nullable=True),
        sa.Column(
            "page_token",
            sa.Text(),
            server_default=sa.text(
                "replace(((gen_random_uuid())::text || (gen_random_uuid())::text), '-'::text, ''::text)"
            ),
            nullable=False,
        ),
        sa.Column("payment_url", sa.Text(), nullable=True),
        sa.Column("late", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("refunded_cents", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now() + interval '7 days'"),
            nullable=False,
        ),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("sequence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.CheckConstraint("currency IN ('USD', 'ZIG')", name=op.f("ck_payments_currency")),
        sa.CheckConstraint("gateway IN ('paynow', 'ecocash', 'innbucks', 'stripe')", name=op.f("ck_payments_gateway")),
        sa.CheckConstraint(
            "status IN ('pending', 'paid', 'failed', 'expired', 'cancelled', 'partially_refunded', 'refunded', 'disputed', 'review')",
            name=op.f("ck_payments_status"),
        ),
        sa.CheckConstraint("amount_cents > 0", name=op.f("ck_payments_amount")),
        sa.CheckConstraint("length(page_token) >= 22", name=op.f("ck_payments_page_token")),
        sa.CheckConstraint("refunded_cents BETWEEN 0 AND amount_cents", name=op.f("ck_payments_refunded")),
        sa.CheckConstraint("sequence >= 0", name=op.f("ck_payments_sequence")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments")),
        sa.UniqueConstraint("page_token", name=op.f("uq_payments_page_token")),
    )
    op.create_index(
        "ix_payments_expiring", "payments", ["expires_at"], unique=False, postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index(
        "ix_payments_newest",
        "payments",
        ["client_id", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "uq_payments_gateway_reference",
        "payments",
        ["client_id", "gateway", "gateway_reference"],
        unique=True,
        postgresql_where=sa.text("gateway_reference <> ''"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="starting", nullable=False),
        sa.Column("poll_url", sa.Text(), nullable=True),
        sa.Column("redirect_url", sa.Text(), nullable=True),
        sa.Column("gateway_reference", sa.Text(), nullable=True),
        sa.Column("said", sa.Text(), nullable=True),
        sa.Column("last_checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("answered_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("watched_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("checks", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_check_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("currency IN ('USD', 'ZIG')", name=op.f("ck_attempts_currency")),
        sa.CheckConstraint("gateway IN ('paynow', 'ecocash', 'innbucks', 'stripe')", name=op.f("ck_attempts_gateway")),
        sa.CheckConstraint(
            "state <> 'starting' OR next_check_at IS NOT NULL", name=op.f("ck_attempts_starting_is_watched")
        ),
        sa.CheckConstraint(
            "state IN ('starting', 'live', 'paid', 'failed', 'replaced')", name=op.f("ck_attempts_state")
        ),
        sa.CheckConstraint("amount_cents > 0", name=op.f("ck_attempts_amount")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_attempts_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("client_id", "gateway", "reference", name=op.f("uq_attempts_client_id_gateway_reference")),
    )
    op.create_index(
        "ix_attempts_due",
        "attempts",
        ["gateway", "next_check_at"],
        unique=False,
        postgresql_where=sa.text("next_check_at IS NOT NULL"),
    )
    op.create_index(op.f("ix_attempts_payment_id"), "attempts", ["payment_id"], unique=False)
    op.create_index(
        "uq_attempts_one_live",
        "attempts",
        ["payment_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('starting', 'live')"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("state", sa.Text(), server_default="due", nullable=False),
        sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'due') = (next_try_at IS NOT NULL)", name=op.f("ck_events_due_has_a_next_try")),
        sa.CheckConstraint("state IN ('due', 'delivered', 'failed')", name=op.f("ck_events_state")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_events_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("payment_id", "sequence", "type", name=op.f("uq_events_payment_id_sequence_type")),
    )
    op.create_index(
        "ix_events_due", "events", ["next_try_at"], unique=False, postgresql_where=sa.text("next_try_at IS NOT NULL")
    )
    op.create_table(
        "callbacks",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("gateway", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("fields", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_callbacks_attempt_id_attempts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_callbacks")),
        sa.UniqueConstraint("client_id", "gateway", "digest", name=op.f("uq_callbacks_client_id_gateway_digest")),
    )
    op.create_table(
        "event_tries",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("milliseconds", sa.Integer(), nullable=False),
        sa.Column("http_status", sa.SmallInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["event_id"], ["events.id"], name=op.f("fk_event_tries_event_id_events")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event_tries")),
    )
    op.create_index(op.f("ix_event_tries_event_id"), "event_tries", ["event_id"], unique=False)
    op.create_table(
        "reviews",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("resolved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "reason IN ('amount_mismatch', 'currency_mismatch', 'reference_mismatch', 'second_payment', 'gateway_reference_reused')",
            name=op.f("ck_reviews_reason"),
        ),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_reviews_attempt_id_attempts")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_reviews_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
        sa.UniqueConstraint("payment_id", "attempt_id", "reason", name=op.f("uq_reviews_payment_id_attempt_id_reason")),
    )
    op.create_table(
        "transitions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("client_id", sa.Uuid(), nullable=False),
        sa.Column("attempt_id", sa.Uuid(), nullable=True),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("evidence", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'"), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name=op.f("fk_transitions_attempt_id_attempts")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_transitions_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
        sa.UniqueConstraint("payment_id", "sequence", name=op.f("uq_transitions_payment_id_sequence")),
    )


def downgrade() -> None:
    """Drop everything of this service but the roles, which other databases of the cluster may use."""
    for table in reversed(TENANT_TABLES):
        op.execute(f"DROP TABLE IF EXISTS {table} CASCADE")
    op.execute("DROP FUNCTION IF EXISTS refuse_change()")
