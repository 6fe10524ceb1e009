"""Calls that can be repeated: what is sent again under its `Idempotency-Key` is done once, and answered as before.

A key is claimed before anything happens, and the payment or refund that a call makes is written beside it in the very
statement that makes it. So whoever was cut off anywhere has left either nothing, and the call runs again, or a key that
leads to what was made, and the answer is read from there. An outcome that nobody knows yet is never stored: the workers
settle the payment, and the key's answer follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import KeyBusy, KeyReused

KEPT_FOR = timedelta(days=31)
# Longer than any call takes. Whoever took longer finds that the key is his no more before he writes anything.
LEASE = timedelta(seconds=60)
# The tenant of calls that name none.
NOBODY = UUID(int=0)
_BATCH = 1000


@dataclass(frozen=True, slots=True)
class Call:
    """What is not done twice. The same key of another tenant, caller or operation is another key."""

    client_id: UUID
    caller: str
    operation: str
    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do the call, as long as `lease` stands in the key's row."""

    id: int
    lease: datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """What the call was answered with."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """A call that was cut off, or whose end was unknown, after it had put `made` on record."""

    claim: Claim
    made: UUID


_CLAIM = """
INSERT INTO idempotency_keys AS k (client_id, caller, operation, key, digest, lease, created_at)
VALUES (%(client_id)s, %(caller)s, %(operation)s, %(key)s, %(digest)s, %(lease)s, %(at)s)
ON CONFLICT (client_id, caller, operation, key) DO UPDATE
SET digest = excluded.digest, lease = excluded.lease, made = NULL, status = NULL, body = NULL,
    created_at = excluded.created_at
WHERE k.created_at <= %(forgotten)s
   OR (k.digest = excluded.digest AND k.status IS NULL AND k.made IS NULL AND k.lease <= %(at)s)
RETURNING id"""
_FOUND = """
SELECT id, digest, lease, made, status, body FROM idempotency_keys
WHERE client_id = %(client_id)s AND caller = %(caller)s AND operation = %(operation)s AND key = %(key)s"""


async def claim(context: Context, call: Call) -> Claim | Answer | Left:
    """The right to do the call, or its answer, or what an earlier try left.

    Raises KeyReused for a key that was sent with another request, KeyBusy while the call is being done.
    """
    at = context.clock()
    values: dict[str, Any] = {name: getattr(call, name) for name in Call.__slots__}
    values |= {"at": at, "lease": at + LEASE, "forgotten": at - KEPT_FOR}
    for sql in (_CLAIM, _FOUND, _CLAIM):
        # Between the two looks its holder may have given it back.
        if rows := await context.db.run(sql, values, tenant=call.client_id):
            return Claim(rows[0]["id"], values["lease"]) if sql is _CLAIM else _known(rows[0], call, at)
    raise KeyBusy


def _known(row: Row, call: Call, at: datetime) -> Answer | Left:
    if row["digest"] != call.digest:
        raise KeyReused
    if row["status"] is not None:
        return Answer(row["status"], row["body"])
    if row["lease"] > at or row["made"] is None:
        raise KeyBusy
    return Left(Claim(row["id"], row["lease"]), row["made"])


# A part of the statement that makes something, which takes what it makes from here, by `RETURNING id`: nothing, if the
# claim is lost.
MARK = """
UPDATE idempotency_keys SET made = %(made)s::uuid
WHERE id = %(key_id)s::bigint AND client_id = %(client_id)s::uuid AND lease = %(key_lease)s::timestamptz
  AND made IS NULL AND status IS NULL"""


def mark_values(claim: Claim | None, made: UUID) -> dict[str, Any]:
    """The parameters of MARK beside the tenant; of a call without a key they match no row."""
    return {"key_id": claim and claim.id, "key_lease": claim and claim.lease, "made": made}


async def mark(connection: AsyncConnection, client_id: UUID, claim: Claim, made: UUID) -> bool:
    """MARK as a part of the caller's transaction, which must be undone when this is False: the claim is lost."""
    values = {"client_id": client_id, **mark_values(claim, made)}
    return (await connection.exec_driver_sql(f"{MARK} RETURNING id", values)).first() is not None


async def begin(context: Context, client_id: UUID, claim: Claim, made: UUID) -> None:
    """MARK before something is done of which can be seen later whether it was. Raises KeyBusy: the claim is lost."""
    values = {"client_id": client_id, **mark_values(claim, made)}
    if not await context.db.run(f"{MARK} RETURNING id", values, tenant=client_id):
        raise KeyBusy


_HELD = "id = %(id)s AND client_id = %(client_id)s AND lease = %(lease)s AND status IS NULL"
_STORE = f"UPDATE idempotency_keys SET status = %(status)s, body = %(body)s WHERE {_HELD} RETURNING id"
_FORGET = f"DELETE FROM idempotency_keys WHERE {_HELD}"
_LEAVE = f"""
WITH nothing_made AS (DELETE FROM idempotency_keys WHERE {_HELD} AND made IS NULL)
UPDATE idempotency_keys SET lease = %(at)s WHERE {_HELD} AND made IS NOT NULL"""
_TAKE_OVER = f"UPDATE idempotency_keys SET lease = %(taken)s, made = NULL WHERE {_HELD} RETURNING id"


async def is_held(context: Context, client_id: UUID, claim: Claim) -> bool:
    """Whether the right to do the call is still there."""
    sql = f"SELECT id FROM idempotency_keys WHERE {_HELD}"
    return bool(await context.db.run(sql, _held(client_id, claim), tenant=client_id))


async def store(context: Context, client_id: UUID, claim: Claim, answer: Answer) -> bool:
    """Keep the answer; False if somebody else has answered meanwhile."""
    values = {**_held(client_id, claim), "status": answer.status, "body": answer.body}
    return bool(await context.db.run(_STORE, values, tenant=client_id))


async def forget(context: Context, client_id: UUID, claim: Claim) -> None:
    """Give the key back: it can be sent anew as if it had never been."""
    await context.db.run(_FORGET, _held(client_id, claim), tenant=client_id)


async def leave(context: Context, client_id: UUID, claim: Claim) -> None:
    """End without an answer: what was made can be asked for by the key at once; was nothing made, it is given back."""
    await context.db.run(_LEAVE, {**_held(client_id, claim), "at": context.clock()}, tenant=client_id)


async def take_over(context: Context, client_id: UUID, left: Left) -> Claim:
    """The right to do a call anew of which it is known that nothing came. Raises KeyBusy when others were faster."""
    taken = Claim(left.claim.id, context.clock() + LEASE)
    if not await context.db.run(_TAKE_OVER, {**_held(client_id, left.claim), "taken": taken.lease}, tenant=client_id):
        raise KeyBusy
    return taken


def _held(client_id: UUID, claim: Claim) -> dict[str, Any]:
    return {"id": claim.id, "client_id": client_id, "lease": claim.lease}


_FORGET_OLD = f"""
DELETE FROM idempotency_keys WHERE id IN (
    SELECT id FROM idempotency_keys WHERE created_at <= %(before)s ORDER BY created_at LIMIT {_BATCH}
)"""


async def forget_old(context: Context) -> None:
    """Remove some of those that are no longer kept; a worker calls it every few seconds."""
    await context.db.run(_FORGET_OLD, {"before": context.clock() - KEPT_FOR})
