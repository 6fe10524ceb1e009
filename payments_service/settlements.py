"""What became of money that came: the refunds and disputes that a gateway tells of, each kept once.

Reports come in any order and many times over. A row only ever moves forward (`RefundState`, `DisputeState`), so that
the rows end the same whatever the order was; what they make of the payment is `payments.absorb`'s part.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.errors import UniqueViolation

from payments_service.context import Context
from payments_service.gateways.base import TracesRefunds
from payments_service.lifecycle import DisputeReport, DisputeState, RefundReport, RefundState, Settlement
from payments_service.money import Currency


def _rank(states: type[RefundState] | type[DisputeState], column: str) -> str:
    """How far a state is, in SQL."""
    ordered = ", ".join(f"'{state.value}'" for state in states)
    return f"array_position(ARRAY[{ordered}], {column})"


# A refund that we asked for is known by our own id until the gateway's answer, or its message, brings its name. That
# also takes back what we had concluded without it. One that is known already has our id from somebody's hand.
_NAME_REFUND = """
UPDATE refunds r SET gateway_reference = %(reference)s, state = 'requested', detail = NULL
WHERE r.id = %(refund_id)s::uuid AND r.attempt_id = %(attempt_id)s AND r.gateway_reference IS NULL
  AND r.evidence IS NULL AND r.amount_cents = %(amount_cents)s
  AND NOT EXISTS (SELECT FROM refunds o WHERE o.client_id = r.client_id AND o.gateway = r.gateway
                  AND o.gateway_reference = %(reference)s)"""


# Another name for one that is on its way: it had only a passing one. Only where each refund is looked up by our id; in
# what another gateway tells of, two refunds may carry that.
_RENAME_REFUND = """
UPDATE refunds r SET gateway_reference = %(reference)s
WHERE r.id = %(refund_id)s::uuid AND r.attempt_id = %(attempt_id)s AND r.gateway_reference IS NOT NULL
  AND r.gateway = ANY(%(traced)s) AND r.state IN ('requested', 'pending') AND r.amount_cents = %(amount_cents)s
  AND NOT EXISTS (SELECT FROM refunds o WHERE o.client_id = r.client_id AND o.gateway = r.gateway
                  AND o.gateway_reference = %(reference)s)"""


def _keep_sql(table: str, begun: str, states: type[RefundState] | type[DisputeState]) -> str:
    """Adds the row, or moves it forward."""
    return f"""
    INSERT INTO {table} AS known (payment_id, client_id, attempt_id, gateway, gateway_reference, amount_cents, state,
                                  {begun}, updated_at)
    SELECT payment_id, client_id, id, gateway, %(reference)s::text, %(amount_cents)s::bigint, %(state)s::text,
           %(at)s::timestamptz, %(at)s::timestamptz
    FROM attempts WHERE id = %(attempt_id)s
    ON CONFLICT (client_id, gateway, gateway_reference)
    DO UPDATE SET state = excluded.state, updated_at = excluded.updated_at
    WHERE known.attempt_id = excluded.attempt_id
      AND {_rank(states, "excluded.state")} > {_rank(states, "known.state")}"""


_KEEP_REFUND = _keep_sql("refunds", "created_at", RefundState)
_KEEP_DISPUTE = _keep_sql("disputes", "opened_at", DisputeState)

# Sums come in any order too, and the highest is the newest but where a refund failed in between: of that the look-up
# tells that follows. Whatever is in a sum has a name there, so that a sum is never taken back: a look-up which does not
# know a refund of it is only older.
_KEEP_TOTAL = """
UPDATE attempts SET refunded_total = GREATEST(refunded_total, %(total)s::bigint)
WHERE id = %(attempt_id)s AND %(total)s::bigint > COALESCE(refunded_total, 0)"""

# Of the refunds that we asked for and the gateway never heard of, nothing can come any more.
_CLOSE_UNHEARD = """
UPDATE refunds SET state = 'failed', updated_at = %(at)s, detail = 'The gateway never received it.'
WHERE attempt_id = %(attempt_id)s AND state = 'requested' AND gateway_reference IS NULL AND created_at < %(before)s"""


async def keep(
    context: Context, attempt_id: UUID, currency: Currency, settlement: Settlement, unheard: datetime
) -> None:
    """Record the refunds and disputes, each as far as it is. Amounts in another currency are left to a review.

    `unheard`: refunds that were asked for before this moment and are not among all there are, were never received.
    """
    for refund in settlement.refunds:
        if refund.amount.currency is currency:
            await _keep_refund(context, attempt_id, refund)
    for dispute in settlement.disputes:
        if dispute.amount.currency is currency:
            await context.db.run(_KEEP_DISPUTE, _values(context, attempt_id, dispute))
    if settlement.complete:
        await context.db.run(_CLOSE_UNHEARD, {"attempt_id": attempt_id, "at": context.clock(), "before": unheard})
    if settlement.refunded_total is not None:
        await context.db.run(_KEEP_TOTAL, {"attempt_id": attempt_id, "total": settlement.refunded_total})


async def _keep_refund(context: Context, attempt_id: UUID, refund: RefundReport) -> None:
    values = _values(context, attempt_id, refund)
    if refund.refund_id is not None:
        named = {**values, "refund_id": refund.refund_id}
        traced = [name for name, gateway in context.gateways.items() if isinstance(gateway, TracesRefunds)]
        with suppress(UniqueViolation):  # somebody else has just kept it
            await context.db.run(_NAME_REFUND, named)
            await context.db.run(_RENAME_REFUND, {**named, "traced": traced})
    await context.db.run(_KEEP_REFUND, values)


def _values(context: Context, attempt_id: UUID, item: RefundReport | DisputeReport) -> dict[str, Any]:
    return {
        "attempt_id": attempt_id,
        "reference": item.gateway_reference,
        "amount_cents": item.amount.minor,
        "state": item.state,
        "at": context.clock(),
    }


# Minor units of an attempt's money, in a statement whose `a` is the attempt. A sum may have been told before the
# refunds that are in it; those that are known, or asked for and not yet answered, are not counted twice.
_UNTOLD = """GREATEST(0, COALESCE(a.refunded_total, 0) - COALESCE((
    SELECT sum(r.amount_cents) FROM refunds r
    WHERE r.attempt_id = a.id AND (r.gateway_reference IS NOT NULL OR r.state = 'requested')), 0))"""
_LOST = """COALESCE((
    SELECT sum(d.amount_cents) FROM disputes d WHERE d.attempt_id = a.id AND d.state = 'lost'), 0)"""

# What was given back by now.
RETURNED = f"""({_UNTOLD} + {_LOST} + COALESCE((
    SELECT sum(r.amount_cents) FROM refunds r WHERE r.attempt_id = a.id AND r.state = 'succeeded'), 0))::bigint"""

# What was given back, or may be by a refund that is on its way.
PROMISED = f"""({_UNTOLD} + {_LOST} + COALESCE((
    SELECT sum(r.amount_cents) FROM refunds r WHERE r.attempt_id = a.id AND r.state <> 'failed'), 0))::bigint"""

CONTESTED = "EXISTS (SELECT FROM disputes d WHERE d.attempt_id = a.id AND d.state = 'open')"

# How far the refund is that is on its way: the one that is least far; null when none is.
REFUNDING = """(SELECT max(r.state) FROM refunds r WHERE r.attempt_id = a.id AND r.state IN ('requested', 'pending'))"""
# Since when one of them is asked for.
REFUNDING_SINCE = """(SELECT max(r.created_at) FROM refunds r WHERE r.attempt_id = a.id AND r.state = 'requested')"""
