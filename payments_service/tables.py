"""Every table and constraint. The database itself holds the invariants; Python only explains their violations.

`payment_settings` and `payments` keep the columns of the system that came before, so that its rows can be copied in
as they are: whatever is new has a default or may be null.
"""

from __future__ import annotations

from typing import Literal, get_args

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from payments_service import event_tables, message_tables, request_tables  # noqa: F401 - `metadata` is to know of all
from payments_service.columns import metadata, moment, of_attempt, one_of, row_id
from payments_service.lifecycle import DisputeState, RefundState, ReviewReason, Status
from payments_service.money import Currency

GatewayName = Literal["paynow", "ecocash", "innbucks", "stripe"]
GATEWAYS: tuple[str, ...] = get_args(GatewayName)
# starting: recorded, the gateway's answer not yet; live: can be paid; replaced: another attempt took its place, but
# money may still come; paid and failed: what its last report said.
ATTEMPT_STATES = ("starting", "live", "paid", "failed", "replaced")

payment_settings = Table(
    "payment_settings",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("client_id", Uuid, nullable=False, unique=True),
    Column("paynow_integration_id", Text),
    Column("paynow_integration_key_enc", Text),
    Column("paynow_zig_integration_id", Text),
    Column("paynow_zig_integration_key_enc", Text),
    Column("paynow_auth_email", Text),
    Column("paynow_express_methods", Text),
    Column("stripe_publishable_key", Text),
    Column("stripe_secret_key_enc", Text),
    Column("stripe_webhook_secret_enc", Text),
    Column("ecocash_merchant_code", Text),
    Column("ecocash_api_key_enc", Text),
    Column("ecocash_dialect", Text),
    Column("ecocash_username", Text),
    Column("ecocash_password_enc", Text),
    Column("ecocash_merchant_pin_enc", Text),
    Column("ecocash_merchant_number", Text),
    Column("ecocash_currencies", Text),
    Column("innbucks_username", Text),
    Column("innbucks_password_enc", Text),
    Column("innbucks_api_key_enc", Text),
    Column("display_name", Text),
    Column("whatsapp_phone_number_id", Text),
    Column("whatsapp_access_token_enc", Text),
    Column("whatsapp_template", Text),
    Column("whatsapp_template_language", Text),
    Column("whatsapp_number", Text),
    Column("whatsapp_text", Text),
    moment("updated_at"),
)

# Credentials that others took the place of. What was started with them can only be proved with them, so they are
# kept, sealed as they were, until nothing started before is watched any more.
retired_settings = Table(
    "retired_settings",
    metadata,
    row_id(),
    Column("client_id", Uuid, nullable=False, index=True),
    Column("gateway", Text, nullable=False),
    # Column of payment_settings -> what stood in it.
    Column("stored", JSONB, nullable=False),
    moment("retired_at"),
    CheckConstraint(one_of("gateway", GATEWAYS), "gateway"),
)

payments = Table(
    "payments",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    Column("client_id", Uuid, nullable=False),
    # Null until the customer has chosen a way to pay.
    Column("gateway", Text),
    Column("reference", Text, nullable=False),
    Column("gateway_reference", Text),
    Column("amount_cents", BigInteger, nullable=False),
    Column("currency", Text, nullable=False, server_default="USD"),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("contact_id", Uuid),
    Column("invoice_id", Uuid),
    moment("created_at"),
    Column("description", Text),
    Column("contact_email", Text),
    Column("contact_phone", Text),
    # 244 random bits for a row copied in; our own tokens are shorter (ids.new_page_token).
    Column(
        "page_token",
        Text,
        nullable=False,
        unique=True,
        # Spelled as PostgreSQL shows it: alembic, which cannot compare random values, compares the texts.
        server_default=text("replace(((gen_random_uuid())::text || (gen_random_uuid())::text), '-'::text, ''::text)"),
    ),
    Column("payment_url", Text),
    Column("late", Boolean, nullable=False, server_default=text("false")),
    Column("refunded_cents", BigInteger, nullable=False, server_default=text("0")),
    moment("expires_at", default="now() + interval '7 days'"),
    moment("paid_at", nullable=True),
    # Counts this payment's changes without gaps; every change has its transition and its event.
    Column("sequence", Integer, nullable=False, server_default=text("0")),
    CheckConstraint(one_of("gateway", GATEWAYS), "gateway"),
    CheckConstraint(one_of("currency", Currency), "currency"),
    CheckConstraint(one_of("status", Status), "status"),
    CheckConstraint("amount_cents > 0", "amount"),
    CheckConstraint("refunded_cents BETWEEN 0 AND amount_cents", "refunded"),
    CheckConstraint("sequence >= 0", "sequence"),
    CheckConstraint("length(page_token) >= 22", "page_token"),
)
# One gateway reference, one payment. The old system wrote '' where it knew none.
Index(
    "uq_payments_gateway_reference",
    payments.c.client_id,
    payments.c.gateway,
    payments.c.gateway_reference,
    unique=True,
    postgresql_where=text("gateway_reference <> ''"),
)
Index("ix_payments_newest", payments.c.client_id, payments.c.created_at.desc(), payments.c.id.desc())
Index("ix_payments_status", payments.c.client_id, payments.c.status, payments.c.created_at.desc(), payments.c.id.desc())
Index("ix_payments_reference", payments.c.client_id, payments.c.reference)
for _name in ("contact_id", "invoice_id"):
    Index(
        f"ix_payments_{_name}",
        payments.c.client_id,
        payments.c[_name],
        postgresql_where=text(f"{_name} IS NOT NULL"),
    )
Index("ix_payments_expiring", payments.c.expires_at, postgresql_where=text("status = 'pending'"))

attempts = Table(
    "attempts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("payment_id", Uuid, ForeignKey("payments.id"), nullable=False, index=True),
    Column("client_id", Uuid, nullable=False),
    Column("gateway", Text, nullable=False),
    # The first, second, … try of its payment: two requests that saw the same tries cannot both add one. Null in rows
    # that a version before this column wrote.
    Column("number", SmallInteger),
    Column("method", Text, nullable=False),
    # Where the prompt went, E.164.
    Column("phone", Text),
    Column("reference", Text, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="starting"),
    # What the gateway is asked by: the URL that it named for that, or its own name of the attempt.
    Column("poll_url", Text),
    # What the customer does next: the gateway's page, or one of the other steps of gateways/base.py as JSON.
    Column("redirect_url", Text),
    Column("next_step", JSONB),
    Column("gateway_reference", Text),
    # Minor units given back so far, where the gateway told the sum before each refund of it.
    Column("refunded_total", BigInteger),
    # The gateway's own last word, and when it was last asked.
    Column("said", Text),
    moment("last_checked_at", nullable=True),
    # When it last gave an answer that proves itself.
    moment("answered_at", nullable=True),
    moment("started_at"),
    # The schedule runs from here: the start, or the customer's last sign of life.
    moment("watched_from"),
    Column("checks", SmallInteger, nullable=False, server_default=text("0")),
    # Due when in the past. A worker that takes the attempt moves it on by its lease; null when nothing more is asked.
    moment("next_check_at", nullable=True),
    CheckConstraint(one_of("gateway", GATEWAYS), "gateway"),
    CheckConstraint(one_of("currency", Currency), "currency"),
    CheckConstraint(one_of("state", ATTEMPT_STATES), "state"),
    CheckConstraint("amount_cents > 0", "amount"),
    # An attempt that can still bring money is never left without a next look-up by mistake: while it starts it has one.
    CheckConstraint("state <> 'starting' OR next_check_at IS NOT NULL", "starting_is_watched"),
    UniqueConstraint("client_id", "gateway", "reference"),
)
Index(
    "uq_attempts_one_live",
    attempts.c.payment_id,
    unique=True,
    postgresql_where=text("state IN ('starting', 'live')"),
)
Index("uq_attempts_number", attempts.c.payment_id, attempts.c.number, unique=True)
Index(
    "ix_attempts_due",
    attempts.c.gateway,
    attempts.c.next_check_at,
    postgresql_where=text("next_check_at IS NOT NULL"),
)

# Refunds and disputes name the payment the way the gateway does.
Index(
    "ix_attempts_gateway_reference",
    attempts.c.gateway_reference,
    postgresql_where=text("gateway_reference IS NOT NULL"),
)

# What was given back of an attempt's money: asked for by the backend, or seen at the gateway.
refunds = Table(
    "refunds",
    metadata,
    Column("id", Uuid, primary_key=True, server_default=text("gen_random_uuid()")),
    *of_attempt(),
    Column("gateway", Text, nullable=False),
    # Null until the gateway has answered.
    Column("gateway_reference", Text),
    Column("amount_cents", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    # Of one that the backend asked for: why, and who.
    Column("reason", Text),
    Column("actor", Text),
    # Of one that a person gave back by hand: how that can be proved.
    Column("evidence", Text),
    # Why it failed, in words for people.
    Column("detail", Text),
    moment("created_at"),
    moment("updated_at"),
    CheckConstraint(one_of("gateway", GATEWAYS), "gateway"),
    CheckConstraint(one_of("state", RefundState), "state"),
    CheckConstraint("amount_cents > 0", "amount"),
    UniqueConstraint("client_id", "gateway", "gateway_reference"),
    Index("ix_refunds_attempt_id", "attempt_id"),
    Index("ix_refunds_payment_id", "payment_id"),
)

disputes = Table(
    "disputes",
    metadata,
    row_id(),
    *of_attempt(),
    Column("gateway", Text, nullable=False),
    Column("gateway_reference", Text, nullable=False),
    Column("amount_cents", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    moment("opened_at"),
    moment("updated_at"),
    CheckConstraint(one_of("gateway", GATEWAYS), "gateway"),
    CheckConstraint(one_of("state", DisputeState), "state"),
    CheckConstraint("amount_cents > 0", "amount"),
    UniqueConstraint("client_id", "gateway", "gateway_reference"),
    Index("ix_disputes_attempt_id", "attempt_id"),
    Index("ix_disputes_payment_id", "payment_id"),
)

# When the messages that a gateway could not deliver are asked for next, per tenant.
sweeps = Table(
    "sweeps",
    metadata,
    row_id(),
    Column("client_id", Uuid, nullable=False),
    Column("gateway", Text, nullable=False),
    # What happened before this moment is known.
    moment("swept_to"),
    moment("next_at"),
    CheckConstraint(one_of("gateway", GATEWAYS), "gateway"),
    UniqueConstraint("client_id", "gateway"),
)

transitions = Table(
    "transitions",
    metadata,
    row_id(),
    Column("payment_id", Uuid, ForeignKey("payments.id"), nullable=False),
    Column("client_id", Uuid, nullable=False),
    Column("attempt_id", Uuid, ForeignKey("attempts.id")),
    Column("sequence", Integer, nullable=False),
    Column("from_status", Text),
    Column("to_status", Text, nullable=False),
    # Who or what moved it: link, gateway, tenant, clock, person.
    Column("cause", Text, nullable=False),
    Column("actor", Text),
    Column("evidence", JSONB, nullable=False, server_default=text("'{}'")),
    moment("at"),
    UniqueConstraint("payment_id", "sequence"),
    # Who removes an attempt must not read every row for those that refer to it; so below too.
    Index("ix_transitions_attempt_id", "attempt_id", postgresql_where=text("attempt_id IS NOT NULL")),
)

reviews = Table(
    "reviews",
    metadata,
    row_id(),
    *of_attempt(),
    Column("reason", Text, nullable=False),
    Column("evidence", JSONB, nullable=False),
    moment("opened_at"),
    moment("resolved_at", nullable=True),
    Column("resolution", Text),
    Column("note", Text),
    Column("actor", Text),
    CheckConstraint(one_of("reason", ReviewReason), "reason"),
    UniqueConstraint("payment_id", "attempt_id", "reason"),
    Index("ix_reviews_attempt_id", "attempt_id"),
)

callbacks = Table(
    "callbacks",
    metadata,
    row_id(),
    Column("client_id", Uuid, nullable=False),
    Column("gateway", Text, nullable=False),
    Column("attempt_id", Uuid, ForeignKey("attempts.id")),
    # SHA-256 of the message's id, else of its body: a copy of a message adds no row.
    Column("digest", LargeBinary, nullable=False),
    Column("said", Text, nullable=False),
    # Scrubbed by the adapter: no secrets, no personal data.
    Column("fields", JSONB, nullable=False),
    moment("received_at"),
    UniqueConstraint("client_id", "gateway", "digest"),
    Index("ix_callbacks_attempt_id", "attempt_id", postgresql_where=text("attempt_id IS NOT NULL")),
)

audit_logs = Table(
    "audit_logs",
    metadata,
    row_id(),
    Column("client_id", Uuid, nullable=False),
    # Position in the tenant's own chain, from 1.
    Column("position", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", JSONB, nullable=False),
    moment("at"),
    Column("previous_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    UniqueConstraint("client_id", "position"),
)

# Row-level security: the internal API's queries see one tenant's rows only (see the first migration).
TENANT_TABLES = (
    "payment_settings",
    "retired_settings",
    "payments",
    "attempts",
    "refunds",
    "disputes",
    "sweeps",
    "transitions",
    "reviews",
    "callbacks",
    "messages",
    "events",
    "event_tries",
    "audit_logs",
    "idempotency_keys",
    "link_rates",
    "stopped_senders",
)
# But of a tenant that has left: what is older than the audit row with this action.
APPEND_ONLY_TABLES = ("transitions", "audit_logs")
TENANT_DELETED = "tenant.deleted"
