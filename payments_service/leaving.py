"""A tenant leaves: its settings and payments go, one audit row stays.

In two steps. The first is one transaction: it locks the settings, which whoever begins something new must hold
(`links`, `checkout`, `refunds`), looks whether money is on its way, and if none is, removes all credentials and puts
one audit row in the place of all others. From then on nothing can begin, and nothing more can be proved. The second
removes the payments in batches, each whole or not at all: a tenant with a million of them would hold its locks for
minutes, and stop whoever reads events meanwhile. Who is cut off there asks once more.

News may still come between the two, of a look-up or a signed event that was just being worked on. It is recorded, and
its payment stays until the backend has been told.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from psycopg.errors import ForeignKeyViolation, RestrictViolation
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service import audit
from payments_service.context import Context
from payments_service.endings import CODE_LIFE
from payments_service.errors import MoneyOnItsWay, NotFound, Unavailable, WrongState
from payments_service.reconcile import WATCH
from payments_service.tables import TENANT_DELETED

log = structlog.get_logger(__name__)

# Payments that are removed in one transaction, with all that belongs to them: a few tenths of a second.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One kind of what holds a deletion up: its name for programs, and words for people, of one and of several."""

    name: str
    one: str
    many: str
    advice: str


OBSTACLES = (
    Obstacle("pending_payments", "payment is pending", "payments are pending", "cancel them"),
    Obstacle(
        "tries_under_way",
        "try to pay is under way",
        "tries to pay are under way",
        "their gateways tell within the hour, a bank within days",
    ),
    Obstacle(
        "late_money_watched",
        "unpaid try of a link that is over may still bring money",
        "unpaid tries of links that are over may still bring money",
        "they are watched for 31 days at most; give_up_late_money=true lets go of them",
    ),
    Obstacle("refunds_under_way", "refund is on its way", "refunds are on their way", "wait, or settle them"),
    Obstacle("open_reviews", "payment is in review", "payments are in review", "resolve them"),
    Obstacle("open_disputes", "dispute is open", "disputes are open", "wait for its end at the gateway"),
    Obstacle(
        "events_not_told",
        "event has not reached the backend",
        "events have not reached the backend",
        "redeliver or pull those that failed",
    ),
)

# What may still bring money, in numbers. A try that is watched longer than everybody watches (its credentials are gone,
# so that nothing is ever answered) holds nobody up.
_IN_THE_WAY = """
SELECT
    (SELECT count(*) FROM payments WHERE client_id = %(client_id)s AND status = 'pending') AS pending_payments,
    count(*) FILTER (WHERE t.under_way) AS tries_under_way,
    count(*) FILTER (WHERE NOT t.under_way) AS late_money_watched,
    (SELECT count(*) FROM refunds WHERE client_id = %(client_id)s AND state IN ('requested', 'pending'))
        AS refunds_under_way,
    (SELECT count(*) FROM payments WHERE client_id = %(client_id)s AND status = 'review') AS open_reviews,
    (SELECT count(*) FROM disputes WHERE client_id = %(client_id)s AND state = 'open')
        + (SELECT count(*) FROM payments p WHERE p.client_id = %(client_id)s AND p.status = 'disputed'
           AND NOT EXISTS (SELECT FROM disputes d WHERE d.payment_id = p.id)
           AND EXISTS (SELECT FROM attempts a WHERE a.payment_id = p.id AND a.next_check_at IS NOT NULL))
        AS open_disputes,
    (SELECT count(*) FROM events e WHERE e.client_id = %(client_id)s AND {due})
        + (SELECT count(*) FROM events e WHERE e.client_id = %(client_id)s AND {failed}) AS events_not_told
FROM (
    SELECT a.state = 'starting' OR COALESCE(a.next_step ->> 'type' = 'wait', false)
        OR a.watched_from > %(lately)s::timestamptz AS under_way
    FROM attempts a JOIN payments p ON p.id = a.payment_id
    WHERE a.client_id = %(client_id)s AND a.next_check_at IS NOT NULL AND a.state <> 'paid'
      AND a.watched_from > %(since)s::timestamptz AND p.status <> 'pending'
) AS t"""

# An event is told once it was delivered; one that will not be, once it was pulled.
_FAILED = "e.state = 'failed' AND e.position IS NULL"
_DUE = "e.next_try_at IS NOT NULL"
_TO_BE_PULLED = "e.state = 'due' AND e.position IS NULL"


def _due(context: Context) -> str:
    return _DUE if context.pushes_events else _TO_BE_PULLED


async def delete_tenant(context: Context, client_id: UUID, *, actor: str, give_up_late_money: bool = False) -> None:
    """Remove everything of the tenant's but one audit row.

    `give_up_late_money`: a person takes it upon themselves that late money is looked for no more; what still comes goes
    to the tenant's own account at the gateway, and nobody is told.

    Raises NotFound for a tenant of whom nothing is on record, and MoneyOnItsWay with nothing changed; or, when news
    came at the last moment, with the settings and all other payments gone: then ask again later.
    """
    await _close(context, client_id, actor, give_up_late_money)
    removed = await _purge(context, client_id)
    log.info("tenant_deleted", client_id=client_id, count=removed)
    await _finish(context, client_id)


async def _close(context: Context, client_id: UUID, actor: str, give_up_late_money: bool) -> None:
    """Take the tenant's credentials away, if no money is on its way. Nothing to do where a deletion was cut off."""
    names = {"client_id": client_id}
    async with context.db.as_worker() as connection:
        await _one_at_a_time(connection, client_id)
        await connection.exec_driver_sql(_LOCK, names)
        known = (await connection.exec_driver_sql(_KNOWN, names)).mappings().one()
        if not (known["settings"] or known["payments"]):
            raise NotFound("There is nothing on record of this tenant.")
        if known["closed"] and not known["settings"]:
            return
        found = await _in_the_way(context, connection, client_id)
        given_up = found.pop("late_money_watched") if give_up_late_money else 0
        if any(found.values()):
            raise MoneyOnItsWay(_words(found), found)
        for sql in _FORGET:
            await connection.exec_driver_sql(sql, names)
        removed = (await connection.exec_driver_sql(_COUNTS, names)).mappings().one()
        detail = {"removed": dict(removed), "late_money_given_up": given_up}
        await audit.record(connection, client_id, actor=actor, action=TENANT_DELETED, detail=detail, at=context.clock())
        await connection.exec_driver_sql(_CUT, names)


# The transaction's own word for the door in the database (migration 0006). Two deletions of one tenant wait for each
# other, batch by batch.
_ALONE = """
SELECT set_config('conva.leaving', %(name)s::text, true),
    pg_advisory_xact_lock(hashtextextended('leaving:' || %(name)s::text, 0))"""
_LOCK = "SELECT FROM payment_settings WHERE client_id = %(client_id)s FOR UPDATE"
_KNOWN = """
SELECT EXISTS (SELECT FROM payment_settings WHERE client_id = %(client_id)s) AS settings,
    EXISTS (SELECT FROM payments WHERE client_id = %(client_id)s) AS payments,
    COALESCE((SELECT action = 'tenant.deleted' FROM audit_logs WHERE client_id = %(client_id)s
              ORDER BY position DESC LIMIT 1), false) AS closed"""
_FORGET = tuple(
    f"DELETE FROM {table} WHERE client_id = %(client_id)s"
    for table in ("payment_settings", "retired_settings", "sweeps", "idempotency_keys", "link_rates", "stopped_senders")
)
_COUNTS = """
SELECT (SELECT count(*) FROM payments WHERE client_id = %(client_id)s) AS payments,
    (SELECT count(*) FROM payments WHERE client_id = %(client_id)s AND paid_at IS NOT NULL) AS paid_payments,
    (SELECT count(*) FROM audit_logs WHERE client_id = %(client_id)s) AS audit_rows"""
_CUT = """
DELETE FROM audit_logs WHERE client_id = %(client_id)s
AND position < (SELECT max(position) FROM audit_logs WHERE client_id = %(client_id)s)"""


async def _one_at_a_time(connection: AsyncConnection, client_id: UUID) -> None:
    await connection.exec_driver_sql(_ALONE, {"name": str(client_id)})


async def _in_the_way(context: Context, connection: AsyncConnection, client_id: UUID) -> dict[str, int]:
    at = context.clock()
    values = {"client_id": client_id, "lately": at - CODE_LIFE, "since": at - WATCH}
    sql = _IN_THE_WAY.format(due=_due(context), failed=_FAILED)
    row = (await connection.exec_driver_sql(sql, values)).mappings().one()
    return {obstacle.name: row[obstacle.name] for obstacle in OBSTACLES}


def _words(found: dict[str, int]) -> str:
    """What is in the way, for people."""
    parts = [
        f"{found[each.name]} {each.one if found[each.name] == 1 else each.many} ({each.advice})"
        for each in OBSTACLES
        if found.get(each.name)
    ]
    return f"Money, or news of it, is on its way: {'; '.join(parts)}."


async def _purge(context: Context, client_id: UUID) -> int:
    """Remove the payments of a tenant without settings, newest first, but those with news that is not told; how many
    went. Stops where the tenant has come back meanwhile."""
    last, removed = (datetime.max.replace(tzinfo=UTC) - timedelta(days=1), UUID(int=2**128 - 1)), 0
    while True:
        try:
            last_of_batch, count = await _purge_batch(context, client_id, last)
        except IntegrityError as error:
            if not isinstance(error.orig, ForeignKeyViolation | RestrictViolation):
                raise
            # Somebody has just written down something more: of what was read before, or in the audit log.
            raise Unavailable("Something of this tenant is being written down just now; try again.") from error
        removed += count
        if last_of_batch is None:
            return removed
        last = last_of_batch


_BATCH = """
SELECT p.id, p.created_at FROM payments p
WHERE p.client_id = %(client_id)s AND (p.created_at, p.id) < (%(last_at)s, %(last_id)s)
  AND NOT EXISTS (SELECT FROM payment_settings s WHERE s.client_id = %(client_id)s)
ORDER BY p.created_at DESC, p.id DESC LIMIT %(limit)s FOR UPDATE OF p"""
# Nobody adds anything to what is locked; what was added before is seen by the statements after this.
_BATCH_ATTEMPTS = """
SELECT id, payment_id FROM attempts WHERE client_id = %(client_id)s AND payment_id = ANY(%(ids)s) FOR UPDATE"""
_UNTOLD = """
SELECT DISTINCT e.payment_id FROM events e
WHERE e.client_id = %(client_id)s AND e.payment_id = ANY(%(ids)s) AND (({due}) OR ({failed}))"""
# What refers to a payment, to one of its attempts, or to one of its events.
_REMOVE = (
    "DELETE FROM event_tries WHERE client_id = %(client_id)s "
    "AND event_id IN (SELECT id FROM events WHERE payment_id = ANY(%(ids)s))",
    "DELETE FROM callbacks WHERE client_id = %(client_id)s AND attempt_id = ANY(%(attempts)s)",
    *(
        f"DELETE FROM {table} WHERE client_id = %(client_id)s AND payment_id = ANY(%(ids)s)"
        for table in ("events", "messages", "reviews", "refunds", "disputes", "transitions", "attempts")
    ),
    "DELETE FROM payments WHERE client_id = %(client_id)s AND id = ANY(%(ids)s)",
)


async def _purge_batch(
    context: Context, client_id: UUID, last: tuple[datetime, UUID]
) -> tuple[tuple[datetime, UUID] | None, int]:
    """The key at which the batch ended (None: it was the last), and how many payments went."""
    values: dict[str, Any] = {"client_id": client_id, "last_at": last[0], "last_id": last[1], "limit": BATCH}
    async with context.db.as_worker() as connection:
        await _one_at_a_time(connection, client_id)
        rows = (await connection.exec_driver_sql(_BATCH, values)).all()
        values["ids"] = [row.id for row in rows]
        attempts = (await connection.exec_driver_sql(_BATCH_ATTEMPTS, values)).all()
        untold = _UNTOLD.format(due=_due(context), failed=_FAILED)
        kept = {row.payment_id for row in await connection.exec_driver_sql(untold, values)}
        values["ids"] = [each for each in values["ids"] if each not in kept]
        values["attempts"] = [row.id for row in attempts if row.payment_id not in kept]
        for sql in _REMOVE:
            await connection.exec_driver_sql(sql, values)
        end = (rows[-1].created_at, rows[-1].id) if len(rows) == BATCH else None
        return end, len(values["ids"])


_LEFT = """
SELECT EXISTS (SELECT FROM payment_settings WHERE client_id = %(client_id)s) AS settings,
    (SELECT count(*) FROM payments WHERE client_id = %(client_id)s) AS payments"""
# What was just being written down as the credentials went.
_REST = tuple(
    f"DELETE FROM {table} WHERE client_id = %(client_id)s"
    for table in ("retired_settings", "sweeps", "callbacks", "idempotency_keys", "link_rates", "stopped_senders")
)


async def _finish(context: Context, client_id: UUID) -> None:
    """Remove the rest. Raises MoneyOnItsWay where news keeps a payment, WrongState where the tenant has come back."""
    names = {"client_id": client_id}
    async with context.db.as_worker() as connection:
        await _one_at_a_time(connection, client_id)
        left = (await connection.exec_driver_sql(_LEFT, names)).mappings().one()
        if left["settings"]:
            raise WrongState("Settings of this tenant were saved while it was being removed: it has come back.")
        if left["payments"]:
            found = await _in_the_way(context, connection, client_id)
            raise MoneyOnItsWay(f"{_words(found)} The rest is removed; ask again once it is told.", found)
        for sql in _REST:
            await connection.exec_driver_sql(sql, names)
