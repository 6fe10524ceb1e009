"""What became of refunds whose answer was lost, at gateways whose look-ups of a payment do not tell of them."""

from __future__ import annotations

import structlog

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError
from payments_service.gateways.base import RefundOrder, TracesRefunds
from payments_service.lifecycle import RefundReport
from payments_service.money import Currency, Money

log = structlog.get_logger(__name__)

_OPEN = """
SELECT id, amount_cents, reason FROM refunds
WHERE attempt_id = %(attempt_id)s AND state IN ('requested', 'pending') AND evidence IS NULL AND reason IS NOT NULL"""


async def trace(context: Context, attempt: Row, credentials: object) -> tuple[RefundReport, ...]:
    """What the gateway says of the refunds of a claimed attempt that are on their way, asked with the credentials that
    proved the attempt. A refund that it does not know stays open: it may have been done all the same."""
    gateway = context.gateways[attempt["gateway"]]
    if attempt["refunding"] is None or credentials is None or not isinstance(gateway, TracesRefunds):
        return ()
    found = []
    for row in await context.db.run(_OPEN, {"attempt_id": attempt["id"]}):
        try:
            report = await gateway.trace_refund(credentials, _order(attempt, row))
        except GatewayError as error:
            log.warning("refund_without_answer", gateway=gateway.name, refund_id=row["id"], detail=str(error))
            continue
        if report is not None:
            found.append(report)
    return tuple(found)


def _order(attempt: Row, row: Row) -> RefundOrder:
    return RefundOrder(
        refund_id=row["id"],
        gateway_reference=attempt["gateway_reference"] or "",
        amount=Money(row["amount_cents"], Currency(attempt["currency"])),
        reason=row["reason"],
        attempt_id=attempt["id"],
        payer_phone=attempt["phone"],
        poll_url=attempt["poll_url"],
    )
