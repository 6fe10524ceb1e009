"""What the backend is told: the tables of the outbox, a part of `tables`."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)

from payments_service.columns import metadata, moment, one_of, row_id

EVENT_STATES = ("due", "delivered", "failed")

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("client_id", Uuid, nullable=False),
    Column("payment_id", Uuid, ForeignKey("payments.id"), nullable=False),
    Column("type", Text, nullable=False),
    Column("sequence", Integer, nullable=False),
    # The exact bytes of every try: written once, in the transaction of the change.
    Column("body", Text, nullable=False),
    moment("created_at"),
    Column("state", Text, nullable=False, server_default="due"),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    moment("next_try_at", nullable=True),
    moment("delivered_at", nullable=True),
    # How often somebody asked for it to be sent once more.
    Column("replays", SmallInteger, nullable=False, server_default=text("0")),
    # Its place among those that are pulled, given when it is first asked for.
    Column("position", BigInteger),
    CheckConstraint(one_of("state", EVENT_STATES), "state"),
    CheckConstraint("(state = 'due') = (next_try_at IS NOT NULL)", "due_has_a_next_try"),
    # What happened to a message; null: a step of the payment.
    Column("message_id", Uuid, ForeignKey("messages.id")),
)
Index(
    "uq_events_step",
    events.c.payment_id,
    events.c.sequence,
    events.c.type,
    unique=True,
    postgresql_where=text("message_id IS NULL"),
)
Index(
    "uq_events_message",
    events.c.message_id,
    events.c.type,
    unique=True,
    postgresql_where=text("message_id IS NOT NULL"),
)
Index("uq_events_position", events.c.position, unique=True, postgresql_where=text("position IS NOT NULL"))
Index("ix_events_waiting", events.c.created_at, events.c.id, postgresql_where=text("position IS NULL"))
Index("ix_events_created", events.c.created_at, events.c.id)
# Of the pulled ones, those of one tenant, and those that could not be delivered: few among very many.
Index("ix_events_of_tenant", events.c.client_id, events.c.position, postgresql_where=text("position IS NOT NULL"))
Index("ix_events_failed", events.c.position, postgresql_where=text("state = 'failed'"))
Index("ix_events_due", events.c.next_try_at, postgresql_where=text("next_try_at IS NOT NULL"))

event_tries = Table(
    "event_tries",
    metadata,
    row_id(),
    Column("event_id", Uuid, ForeignKey("events.id"), nullable=False, index=True),
    Column("client_id", Uuid, nullable=False),
    moment("at"),
    Column("milliseconds", Integer, nullable=False),
    Column("http_status", SmallInteger),
    Column("error", Text),
    # The first bytes of the backend's answer, for whoever looks for the cause.
    Column("answer", Text),
)
