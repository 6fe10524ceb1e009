"""Messages that prove what they say: signed events, whether they were delivered or had to be asked for.

Each may come many times, in any order, and before the answer to our own call that it is about. What it proves is
absorbed, which alone decides whether anything changes; then it is kept as evidence, so that its copies cost one
statement.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from psycopg.errors import ForeignKeyViolation
from psycopg.types.json import Jsonb

from payments_service.context import Context
from payments_service.errors import NotFound
from payments_service.gateways.base import Callback
from payments_service.lifecycle import Outcome, Report
from payments_service.payments import absorb

log = structlog.get_logger(__name__)

# After news of money the gateway is asked once more: it also tells what came in the wrong order, or not at all, such
# as a refund whose message came before we knew the payment by the gateway's name.
CONFIRM = timedelta(seconds=15)

# By our own names first; the gateway's is known once the money came.
_FIND = """
SELECT a.id, a.next_check_at, EXISTS (
    SELECT FROM callbacks c WHERE c.client_id = %(client_id)s AND c.gateway = %(gateway)s AND c.digest = %(digest)s
) AS seen
FROM attempts a WHERE a.client_id = %(client_id)s AND a.gateway = %(gateway)s AND a.id = COALESCE(
    (SELECT id FROM attempts WHERE id = %(attempt_id)s::uuid AND client_id = %(client_id)s AND gateway = %(gateway)s),
    (SELECT id FROM attempts
     WHERE client_id = %(client_id)s AND gateway = %(gateway)s AND reference = %(reference)s::text),
    (SELECT id FROM attempts
     WHERE gateway_reference = %(gateway_reference)s::text AND client_id = %(client_id)s AND gateway = %(gateway)s
     ORDER BY state = 'paid' DESC, started_at DESC LIMIT 1))"""

_LOOK = """
UPDATE attempts SET next_check_at = %(at)s WHERE id = %(id)s AND client_id = %(client_id)s AND state <> 'starting'"""

_KEEP = """
INSERT INTO callbacks (client_id, gateway, attempt_id, digest, said, fields, received_at)
VALUES (%(client_id)s, %(gateway)s, %(id)s, %(digest)s, %(said)s, %(fields)s, %(at)s) ON CONFLICT DO NOTHING"""


async def take(context: Context, client_id: UUID, gateway: str, callback: Callback, *, believed: bool = True) -> bool:
    """Let the message change what it proves; False when it is about no attempt of this tenant.

    Not `believed`, it is but a hint to look the attempt up at once. Raises Unavailable: then nothing is lost if it
    comes again.
    """
    try:
        return await _take(context, client_id, gateway, callback, believed)
    except (NotFound, ForeignKeyViolation):
        # The tenant was deleted meanwhile: there is nothing left that it could change.
        return False


async def _take(context: Context, client_id: UUID, gateway: str, callback: Callback, believed: bool) -> bool:
    assert callback.key is not None, "what proves has a name of its own"
    known = {"client_id": client_id, "gateway": gateway, "digest": hashlib.sha256(callback.key.encode()).digest()}
    names = {
        "attempt_id": callback.attempt_id,
        "reference": callback.reference,
        "gateway_reference": callback.gateway_reference,
    }
    rows = await context.db.run(_FIND, {**known, **names})
    if not rows:
        return False
    if rows[0]["seen"]:
        return True
    if not believed:
        await context.db.run(_LOOK, {"id": rows[0]["id"], "client_id": client_id, "at": context.clock()})
        context.checks_due.ring()
    elif (report := callback.report) is not None:
        await absorb(context, rows[0]["id"], report, next_check_at=_next_check(context, gateway, report))
        context.checks_due.ring()
    log.info("callback_taken", gateway=gateway, client_id=client_id, attempt_id=rows[0]["id"], type=callback.said)
    kept = {"id": rows[0]["id"], "said": callback.said[:100], "fields": Jsonb(dict(callback.fields))}
    await context.db.run(_KEEP, {**known, **kept, "at": context.clock()})
    return True


def _next_check(context: Context, gateway: str, report: Report) -> datetime | None:
    if report.outcome in (Outcome.FAILED, Outcome.LAPSED):
        return None
    if report.outcome is Outcome.PENDING:
        return context.clock() + timedelta(seconds=context.schedule(gateway)[0])
    return context.clock() + CONFIRM
