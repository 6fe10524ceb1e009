"""What is kept of the backend's calls themselves: a part of `tables`."""

from __future__ import annotations

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Index,
    LargeBinary,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

from payments_service.columns import metadata, moment, row_id

# Calls that can be repeated without being done twice.
idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    row_id(),
    # All zeros where a call names no tenant.
    Column("client_id", Uuid, nullable=False),
    # Which service called, and what: two callers may use the same key, and so may two operations.
    Column("caller", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("key", Text, nullable=False),
    # SHA-256 of what was asked for.
    Column("digest", LargeBinary, nullable=False),
    # While it is in the future, somebody is at work. He who comes later goes on from what is on record.
    moment("lease", default=None),
    # The payment or refund that the call put on record.
    Column("made", Uuid),
    # The answer, byte for byte; null while there is none that stands.
    Column("status", SmallInteger),
    Column("body", LargeBinary),
    moment("created_at"),
    UniqueConstraint("client_id", "caller", "operation", "key"),
    CheckConstraint("(status IS NULL) = (body IS NULL)", "answered"),
    CheckConstraint("length(key) BETWEEN 1 AND 255", "key"),
)
Index("ix_idempotency_keys_created_at", idempotency_keys.c.created_at)

# When a tenant made its last links: one row, so that replicas which count at the same time wait for each other.
link_rates = Table(
    "link_rates",
    metadata,
    Column("client_id", Uuid, primary_key=True),
    Column("moments", ARRAY(DateTime(timezone=True)), nullable=False, server_default=text("'{}'")),
)
