"""The pay link on its way to the customer: what is to be sent, and what became of it.

A message is on record before anything is sent, and a worker sends it (`sending`). A 200 of WhatsApp's is no delivery:
that is told by webhooks (`message_news`). A message never moves a payment, and a payment does not wait for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service import audit
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Invalid, KeyBusy, NotFound, TooMany, WrongState
from payments_service.idempotency import Claim, mark
from payments_service.ids import new_id
from payments_service.lifecycle import PAYABLE
from payments_service.outbox import event_body
from payments_service.phones import parse_phone
from payments_service.records import PAYMENT_COLUMNS, payment_from
from payments_service.senders import sender_of
from payments_service.whatsapp import Form

# A customer who gets the same link again and again blocks the number it comes from.
GAP = timedelta(minutes=1)
MOST, MOST_WITHIN = 5, timedelta(days=1)
# The one reminder comes so long before the link's end, but never in the first three quarters of its life.
REMIND_BEFORE = timedelta(hours=24)
SHORTEST_REMINDED = timedelta(hours=1)

Kind = Literal["link", "reminder"]


class Message(msgspec.Struct, frozen=True):
    """A message in the internal API. `state` as in `message_tables`; `code` is WhatsApp's last error."""

    id: UUID
    kind: Kind
    form: Form
    to: str
    state: str
    code: int | None
    detail: str | None
    created_at: datetime
    updated_at: datetime
    channel: Literal["whatsapp"] = "whatsapp"


@dataclass(frozen=True, slots=True)
class Posting:
    """What a new payment's link is to be sent as: to whom, and when it is due."""

    kind: Kind
    due: datetime


# A part of the statement that makes a payment (`made`): its messages, or none.
WRITE = """
INSERT INTO messages (id, client_id, payment_id, kind, recipient, created_at, updated_at, next_try_at)
SELECT m.id, made.client_id, made.id, m.kind, %(recipient)s::text, %(created_at)s::timestamptz,
       %(created_at)s::timestamptz, m.due
FROM made, unnest(%(message_ids)s::uuid[], %(message_kinds)s::text[], %(message_dues)s::timestamptz[])
    AS m(id, kind, due)"""


def write_values(recipient: str | None, postings: Sequence[Posting]) -> dict[str, Any]:
    """The parameters of WRITE that are not the payment's."""
    return {
        "recipient": recipient,
        "message_ids": [new_id() for _ in postings],
        "message_kinds": [posting.kind for posting in postings],
        "message_dues": [posting.due for posting in postings],
    }


def postings(at: datetime, expires_at: datetime, *, reminder: bool) -> tuple[Posting, ...]:
    """The link now, and with `reminder` once more before it ends. Raises Invalid for a link too short for that."""
    if not reminder:
        return (Posting("link", at),)
    life = expires_at - at
    if life < SHORTEST_REMINDED:
        raise Invalid([("reminders", "needs a link that lasts an hour or more (expires_in)")])
    return Posting("link", at), Posting("reminder", expires_at - min(REMIND_BEFORE, life / 4))


def recipient_of(to: str | None, known: str | None, field: str) -> str:
    """E.164 of the number that was named, else of the customer's that is known. Raises Invalid."""
    try:
        return parse_phone(to or known or "")
    except ValueError as error:
        raise Invalid(
            [(field, str(error) if to or known else "is needed: no number of the customer is known")]
        ) from None


_LOCK = f"SELECT {PAYMENT_COLUMNS} FROM payments p WHERE p.client_id = %(client_id)s AND p.id = %(id)s FOR UPDATE"
_LAST = """
SELECT created_at, next_try_at, recipient FROM messages
WHERE client_id = %(client_id)s AND payment_id = %(id)s AND kind = 'link' AND state <> 'withdrawn'
  AND (created_at > %(since)s OR next_try_at IS NOT NULL)
ORDER BY created_at DESC"""
_ADD = """
INSERT INTO messages (id, client_id, payment_id, form, recipient, created_at, updated_at, next_try_at)
VALUES (%(message_id)s, %(client_id)s, %(id)s, %(form)s, %(recipient)s, %(at)s, %(at)s, %(at)s)"""


async def send(
    context: Context,
    client_id: UUID,
    payment_id: UUID,
    to: str | None,
    form: Form,
    *,
    actor: str,
    claim: Claim | None = None,
) -> None:
    """Send the payment's link, once more if it was sent before. `to`: else the payment's own number.

    `claim`: that of the call's idempotency key, which leads to the message from now on. Raises KeyBusy, with nothing
    recorded, when somebody else has it meanwhile; NotFound, WrongState for a link that is over, Invalid for a number
    that is none, ChannelNotConfigured, Unreadable, and TooMany within a minute of the last one, after five in a day, or
    while the last one to this number is still on its way.
    """
    await sender_of(context, client_id)
    at = context.clock()
    names = {"client_id": client_id, "id": payment_id}
    async with context.db.as_tenant(client_id) as connection:
        row = await _payable(connection, names, at)
        recipient = recipient_of(to, row["contact_phone"], "to")
        await _within_limits(connection, names, recipient, at)
        message_id = new_id()
        values = {**names, "message_id": message_id, "form": form, "recipient": recipient, "at": at}
        await connection.exec_driver_sql(_ADD, values)
        # Before the audit log is locked, in the order of whoever deletes the tenant.
        if claim and not await mark(connection, client_id, claim, message_id):
            raise KeyBusy
        detail = {"payment_id": str(payment_id), "message_id": str(message_id), "channel": "whatsapp"}
        await audit.record(connection, client_id, actor=actor, action="message.requested", detail=detail, at=at)
    context.messages_due.ring()


async def _payable(connection: AsyncConnection, names: dict[str, UUID], at: datetime) -> Row:
    row = (await connection.exec_driver_sql(_LOCK, names)).mappings().one_or_none()
    if row is None:
        raise NotFound("This tenant has no payment with this id.")
    if row["status"] not in PAYABLE or row["expires_at"] <= at:
        over = "its link has expired" if row["status"] in PAYABLE else f"it is {row['status']}"
        raise WrongState(f"Only the link of a payment that can still be paid is sent; {over}.")
    return dict(row)


async def _within_limits(connection: AsyncConnection, names: dict[str, UUID], recipient: str, at: datetime) -> None:
    """The payment's row is locked: of two at the same time the second sees the first."""
    since = at - MOST_WITHIN
    found = (await connection.exec_driver_sql(_LAST, {**names, "since": since})).all()
    # Those that wait while WhatsApp is out of reach would all arrive together.
    if waiting := [row.next_try_at for row in found if row.next_try_at and row.recipient == recipient]:
        raise TooMany("The last message to this number is still on its way.", max(1, _seconds(min(waiting) - at)))
    sent = [row.created_at for row in found if row.created_at > since]
    if len(sent) >= MOST:
        raise TooMany(f"This link was sent {MOST} times within a day.", _seconds(sent[MOST - 1] + MOST_WITHIN - at))
    if sent and sent[0] > at - GAP:
        raise TooMany("This link was sent a moment ago.", _seconds(sent[0] + GAP - at))


def _seconds(wait: timedelta) -> int:
    return int(wait.total_seconds()) + 1


_MESSAGES = """
SELECT id, kind, form, recipient AS "to", state, code, detail, created_at, updated_at FROM messages
WHERE client_id = %(client_id)s AND payment_id = %(id)s ORDER BY created_at, kind, id"""


async def of_payment(context: Context, client_id: UUID, payment_id: UUID) -> list[Message]:
    """The payment's messages, oldest first."""
    rows = await context.db.run(_MESSAGES, {"client_id": client_id, "id": payment_id}, tenant=client_id)
    return [msgspec.convert(row, Message) for row in rows]


_OWNER = "SELECT payment_id FROM messages WHERE client_id = %(client_id)s AND id = %(id)s"


async def payment_of(context: Context, client_id: UUID, message_id: UUID) -> UUID | None:
    """The payment whose link the message carries; None: it was removed, with its payment."""
    rows = await context.db.run(_OWNER, {"client_id": client_id, "id": message_id}, tenant=client_id)
    return rows[0]["payment_id"] if rows else None


# --- what becomes of one

# The message with its payment, and what of the tenant's settings its words are made of.
COLUMNS = f"""{PAYMENT_COLUMNS}, m.id AS message_id, m.kind, m.form, m.recipient, m.state AS message_state, m.wamid,
    m.dead, m.tries, m.resent, m.code, m.detail, m.next_try_at AS lease"""
READ = f"SELECT {COLUMNS} FROM messages m JOIN payments p ON p.id = m.payment_id"


@dataclass(frozen=True, slots=True)
class Step:
    """What a message becomes. `event`: the backend is told, once of each kind. What is None stays as it is."""

    state: str
    at: datetime
    event: str | None = None
    form: Form | None = None
    next_try_at: datetime | None = None
    wamid: str | None = None
    # WhatsApp's name of the one that did not arrive: nothing that is said of it counts any more.
    buried: str | None = None
    code: int | None = None
    detail: str | None = None


_MOVE = """
WITH moved AS (
    UPDATE messages SET
        state = %(state)s::text, form = COALESCE(%(form)s::text, form), next_try_at = %(next_try_at)s::timestamptz,
        wamid = CASE WHEN %(buried)s::text IS NULL OR wamid <> %(buried)s::text
                     THEN COALESCE(%(wamid)s::text, wamid) END,
        dead = CASE WHEN %(buried)s::text IS NULL THEN dead ELSE dead || %(buried)s::text END,
        code = %(code)s::integer, detail = %(detail)s::text, updated_at = %(at)s::timestamptz
    WHERE id = %(message_id)s::uuid AND client_id = %(client_id)s::uuid AND state = %(from_state)s::text
      AND wamid IS NOT DISTINCT FROM %(from_wamid)s::text AND next_try_at IS NOT DISTINCT FROM %(lease)s::timestamptz
    RETURNING id, client_id, payment_id
), told AS (
    INSERT INTO events (id, client_id, payment_id, message_id, type, sequence, body, created_at, next_try_at)
    SELECT %(event_id)s::uuid, client_id, payment_id, id, %(event)s::text, %(sequence)s::integer, %(body)s::text,
           %(at)s::timestamptz, %(at)s::timestamptz
    FROM moved WHERE %(event)s::text IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT id FROM moved"""


async def move(context: Context, row: Row, step: Step) -> bool:
    """Write the step of a message as READ gave it, with its event; False when the message has moved on since."""
    values = {name: getattr(step, name) for name in Step.__slots__}
    moved = await context.db.run(
        _MOVE,
        {
            **values,
            "message_id": row["message_id"],
            "client_id": row["client_id"],
            "from_state": row["message_state"],
            "from_wamid": row["wamid"],
            "lease": row["lease"],
            "event_id": new_id(),
            "sequence": row["sequence"],
            "body": _body(context, row, step) if step.event else None,
        },
    )
    if moved and step.event:
        context.events_due.ring()
    return bool(moved)


def _body(context: Context, row: Row, step: Step) -> str:
    """The event: the payment as it is, and the message without the number it goes to."""
    told = {
        "id": row["message_id"],
        "channel": "whatsapp",
        "kind": row["kind"],
        "form": step.form or row["form"],
        "state": step.state,
        "code": step.code,
        "detail": step.detail,
    }
    assert step.event
    return event_body(step.event, step.at, payment_from(context, row), row["status"], message=told)
