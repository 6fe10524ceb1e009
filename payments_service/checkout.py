"""What a customer does on the hosted page: chooses a way to pay, and starts it."""

from __future__ import annotations

from uuid import UUID

from psycopg.errors import UniqueViolation

from payments_service import accounts
from payments_service.attempts import INSERT_ATTEMPT, new_attempt, start
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import NotConfigured, NotFound
from payments_service.gateways.base import Redirect
from payments_service.lifecycle import Status
from payments_service.money import Currency
from payments_service.reconcile import look_soon
from payments_service.records import PAYMENT_COLUMNS


async def first_way(context: Context, client_id: UUID, currency: Currency, *, tenant: UUID | None = None) -> str:
    for way in await ways_to_pay(context, client_id, currency, tenant=tenant):
        return way
    raise NotConfigured(f"No gateway is set up for {currency}: save the credentials of one in payment-settings first.")


async def ways_to_pay(
    context: Context, client_id: UUID, currency: Currency, *, tenant: UUID | None = None
) -> list[str]:
    """The gateways that the tenant has configured for the currency, in the registry's order."""
    ways = []
    for name, gateway in context.gateways.items():
        if currency not in gateway.currencies:
            continue
        try:
            await accounts.credentials(context, client_id, name, currency, tenant=tenant)
        except NotConfigured:
            continue
        ways.append(name)
    return ways


async def pay(context: Context, page_token: str) -> Redirect | None:
    """The customer wants to pay on the hosted page: where to go on, or None when there is nothing to start now
    (over already, or another request is just starting it).

    An attempt that can still be paid is used again: a double tap or a reload starts only one. Raises NotFound, and
    what `create_link` raises.
    """
    row = await _payable(context, page_token)
    if row is None:
        return None
    if row["redirect_url"] is not None:
        await look_soon(context, row["id"])
        return Redirect(row["redirect_url"])
    if row["attempt_state"] == "starting":
        return None
    currency = Currency(row["currency"])
    gateway = row["gateway"] or await first_way(context, row["client_id"], currency)
    credentials = await accounts.credentials(context, row["client_id"], gateway, currency)
    attempt = new_attempt(row, gateway, context.clock())
    try:
        await context.db.run(_REPLACE, {**row, **attempt, "replaced": row["attempt_id"]})
    except UniqueViolation:
        return None
    await start(context, row, attempt, credentials)
    found = await _payable(context, page_token)
    return Redirect(found["redirect_url"]) if found and found["redirect_url"] else None


# An attempt that a trace found has no address to send the customer to. Money may still come by it, so it stays watched.
_REPLACE = f"""
WITH old AS (UPDATE attempts SET state = 'replaced' WHERE id = %(replaced)s::uuid AND state = 'live' RETURNING 1)
{INSERT_ATTEMPT} FROM (SELECT count(*) FROM old) AS first"""

_PAYABLE = f"""
SELECT {PAYMENT_COLUMNS}, a.id AS attempt_id, a.state AS attempt_state, a.redirect_url
FROM payments p LEFT JOIN attempts a ON a.payment_id = p.id AND a.state IN ('starting', 'live')
WHERE p.page_token = %(token)s"""


async def _payable(context: Context, page_token: str) -> Row | None:
    """The payment of the page with its open attempt; None when it can no longer be paid there."""
    rows = await context.db.run(_PAYABLE, {"token": page_token})
    if not rows:
        raise NotFound("There is no such payment page.")
    row = rows[0]
    # A refused or cancelled try is not the end of the link: the customer may try again until it expires.
    open_for_pay = Status(row["status"]) in (Status.PENDING, Status.FAILED) and context.clock() < row["expires_at"]
    return row if open_for_pay else None
