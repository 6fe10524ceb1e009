"""Messages that carry a pay link to the customer: a part of `tables`."""

from __future__ import annotations

from sqlalchemy import (
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
from sqlalchemy.dialects.postgresql import ARRAY

from payments_service.columns import metadata, moment, one_of, row_id

# queued: to be sent when due; sending: somebody is at it, or was when his process died; unknown: it may have been
# taken; accepted: WhatsApp has it; sent, delivered, read: as far as it came; failed: it did not arrive; withdrawn: the
# link was over before it could be sent.
MESSAGE_STATES = ("queued", "sending", "unknown", "accepted", "sent", "delivered", "read", "failed", "withdrawn")
MESSAGE_KINDS = ("link", "reminder")
MESSAGE_FORMS = ("template", "text")

messages = Table(
    "messages",
    metadata,
    # Travels with the message and comes back with every word about it.
    Column("id", Uuid, primary_key=True),
    Column("client_id", Uuid, nullable=False),
    Column("payment_id", Uuid, ForeignKey("payments.id"), nullable=False, index=True),
    Column("kind", Text, nullable=False, server_default="link"),
    Column("form", Text, nullable=False, server_default="template"),
    # E.164.
    Column("recipient", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="queued"),
    # WhatsApp's own name of it, and of those before that surely did not arrive: what is said of them comes late.
    Column("wamid", Text),
    Column("dead", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("tries", SmallInteger, nullable=False, server_default=text("0")),
    # Sent once more after an answer was lost: that is done once.
    Column("resent", Boolean, nullable=False, server_default=text("false")),
    # WhatsApp's last error, and what it means, in words for people.
    Column("code", Integer),
    Column("detail", Text),
    moment("created_at"),
    moment("updated_at"),
    # Due when in the past; while `sending`, the end of the lease.
    moment("next_try_at", nullable=True),
    CheckConstraint(one_of("state", MESSAGE_STATES), "state"),
    CheckConstraint(one_of("kind", MESSAGE_KINDS), "kind"),
    CheckConstraint(one_of("form", MESSAGE_FORMS), "form"),
    CheckConstraint("state NOT IN ('queued', 'sending') OR next_try_at IS NOT NULL", "open_is_due"),
)
Index("ix_messages_due", messages.c.next_try_at, postgresql_where=text("next_try_at IS NOT NULL"))
Index("ix_messages_wamid", messages.c.wamid, postgresql_where=text("wamid IS NOT NULL"))

# Numbers from which nothing leaves until a person has acted. One with another token is another number.
stopped_senders = Table(
    "stopped_senders",
    metadata,
    row_id(),
    # All zeros: the platform's own number.
    Column("client_id", Uuid, nullable=False),
    # SHA-256 of the number's id and its token.
    Column("digest", LargeBinary, nullable=False),
    Column("code", Integer, nullable=False),
    Column("detail", Text, nullable=False),
    moment("at"),
    UniqueConstraint("client_id", "digest"),
)
