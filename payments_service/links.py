"""How a payment begins: a link is made for the backend, and an attempt starts at a gateway.

No network call happens inside a transaction: the intent is recorded, the gateway is called, its answer is recorded.
A crash between two steps leaves an attempt in `starting` with a look-up due, which the reconciler picks up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from psycopg.errors import UniqueViolation

from payments_service import accounts
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import (
    GatewayError,
    NotConfigured,
    NotFound,
    Refused,
    Unreachable,
)
from payments_service.gateways.base import Redirect, Started, StartRequest
from payments_service.ids import new_attempt_reference, new_id, new_page_token
from payments_service.lifecycle import (
    Outcome,
    Report,
    Status,
)
from payments_service.money import Currency, Money
from payments_service.outbox import LINK_CREATED, event_body
from payments_service.payments import absorb, get
from payments_service.reconcile import look_soon
from payments_service.records import (
    PAYMENT_COLUMNS,
    SET_ATTEMPT,
    AttemptChange,
    Change,
    Payment,
    attempt_values,
    money_of,
    payment_from,
    write,
)

log = structlog.get_logger(__name__)

# A start that has neither answered nor failed by then was cut off: its attempt is traced. Longer than any start.
START_GRACE = timedelta(seconds=30)
# After a lost answer the first trace comes soon: the backend or a customer waits.
FIRST_TRACE = timedelta(seconds=5)
# A status that changes under our hands this often is a fault, not a race.
_TRIES = 6


@dataclass(frozen=True, slots=True)
class LinkOrder:
    """What the backend asks for. `gateway` None: the customer chooses on the page."""

    gateway: str | None
    amount: Money
    reference: str
    contact_id: UUID
    expires_at: datetime
    description: str | None = None
    invoice_id: UUID | None = None
    contact_email: str | None = None
    contact_phone: str | None = None


_INSERT = """
WITH made AS (
    INSERT INTO payments (id, client_id, gateway, reference, amount_cents, currency, contact_id, invoice_id,
                          description, contact_email, contact_phone, page_token, created_at, expires_at, sequence)
    VALUES (%(id)s, %(client_id)s, %(gateway)s, %(reference)s, %(amount_cents)s, %(currency)s, %(contact_id)s,
            %(invoice_id)s, %(description)s, %(contact_email)s, %(contact_phone)s, %(page_token)s, %(created_at)s,
            %(expires_at)s, %(sequence)s)
    RETURNING id, client_id, sequence
)"""

# The payment of a link whose customer chooses: there is no gateway to ask, so the link exists at once.
_INSERT_LINK = f"""{_INSERT}, step AS (
    INSERT INTO transitions (payment_id, client_id, sequence, to_status, cause, at)
    SELECT id, client_id, sequence, 'pending', 'link', %(created_at)s FROM made
)
INSERT INTO events (id, client_id, payment_id, type, sequence, body, created_at, next_try_at)
SELECT %(event_id)s, client_id, id, %(event)s, sequence, %(body)s, %(created_at)s, %(created_at)s FROM made"""

_ATTEMPT_COLUMNS = """id, payment_id, client_id, gateway, method, reference, amount_cents, currency, started_at,
    watched_from, next_check_at"""

_INSERT_ATTEMPT = f"""INSERT INTO attempts ({_ATTEMPT_COLUMNS})
    SELECT %(attempt_id)s::uuid, %(id)s::uuid, %(client_id)s::uuid, %(attempt_gateway)s::text, %(method)s::text,
           %(attempt_reference)s::text, %(amount_cents)s::bigint, %(currency)s::text, %(at)s::timestamptz,
           %(at)s::timestamptz, %(next_check_at)s::timestamptz"""

# A payment together with its first attempt: nothing is asked of a gateway that is not on record here.
_INSERT_BOTH = f"{_INSERT}, first AS ({_INSERT_ATTEMPT} FROM made) SELECT 1"


async def create_link(context: Context, client_id: UUID, order: LinkOrder) -> Payment:
    """Make a payment with its link. Tells the backend by `payment.link_created`.

    Raises NotConfigured before anything is recorded; Refused and Unreachable after the payment was recorded as
    failed; Ambiguous and Untrusted with the payment pending until a look-up settles it. Those four carry the
    payment's id as `payment_id`.
    """
    if order.gateway is None:
        await _first_way(context, client_id, order.amount.currency, tenant=client_id)
        return await _create_open_link(context, client_id, order)
    credentials = await accounts.credentials(context, client_id, order.gateway, order.amount.currency, tenant=client_id)
    at = context.clock()
    row = _new_row(client_id, order, at, sequence=0)
    attempt = _new_attempt(row, order.gateway, at)
    await context.db.run(_INSERT_BOTH, {**row, **attempt}, tenant=client_id)
    return await _start(context, row, attempt, credentials, tenant=client_id)


async def _first_way(context: Context, client_id: UUID, currency: Currency, *, tenant: UUID | None = None) -> str:
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


def _new_row(client_id: UUID, order: LinkOrder, at: datetime, *, sequence: int) -> Row:
    """The new payment as a row with PAYMENT_COLUMNS."""
    return {
        "id": new_id(),
        "client_id": client_id,
        "gateway": order.gateway,
        "reference": order.reference,
        "gateway_reference": None,
        "amount_cents": order.amount.minor,
        "currency": order.amount.currency,
        "status": Status.PENDING,
        "contact_id": order.contact_id,
        "invoice_id": order.invoice_id,
        "description": order.description,
        "contact_email": order.contact_email,
        "contact_phone": order.contact_phone,
        "page_token": new_page_token(),
        "payment_url": None,
        "late": False,
        "refunded_cents": 0,
        "created_at": at,
        "expires_at": order.expires_at,
        "paid_at": None,
        "sequence": sequence,
    }


async def _create_open_link(context: Context, client_id: UUID, order: LinkOrder) -> Payment:
    at = context.clock()
    row = _new_row(client_id, order, at, sequence=1)
    payment = payment_from(context, row)
    event = {"event_id": new_id(), "event": LINK_CREATED, "body": event_body(LINK_CREATED, at, payment, None)}
    await context.db.run(_INSERT_LINK, {**row, **event}, tenant=client_id)
    context.events_due.ring()
    return payment


def _new_attempt(row: Row, gateway: str, at: datetime, method: str = "web") -> Row:
    return {
        "attempt_id": new_id(),
        "attempt_gateway": gateway,
        "attempt_reference": new_attempt_reference(row["reference"]),
        "method": method,
        "at": at,
        "next_check_at": at + START_GRACE,
    }


async def _start(
    context: Context, row: Row, attempt: Row, credentials: object, *, tenant: UUID | None = None
) -> Payment:
    """Call the gateway for an attempt that is on record, and record its answer."""
    try:
        started = await context.gateways[attempt["attempt_gateway"]].start(
            credentials, _start_request(context, row, attempt)
        )
    except GatewayError as error:
        await _start_failed(context, attempt["attempt_id"], error)
        error.payment_id = row["id"]
        raise
    return await _start_answered(context, row, attempt, started, tenant)


def _start_request(context: Context, row: Row, attempt: Row) -> StartRequest:
    return StartRequest(
        attempt_id=attempt["attempt_id"],
        reference=attempt["attempt_reference"],
        amount=money_of(row),
        description=row["description"] or row["reference"],
        return_url=f"{context.page_url(row['page_token'])}?returned=1",
        callback_url=context.callback_url(attempt["attempt_gateway"], row["client_id"], attempt["attempt_id"]),
        payer_email=row["contact_email"],
    )


async def _start_failed(context: Context, attempt_id: UUID, error: GatewayError) -> None:
    """Record what a failed start allows to conclude: a sure no closes the attempt, anything else is looked up soon."""
    at = context.clock()
    if isinstance(error, Refused | Unreachable):
        await absorb(context, attempt_id, Report(Outcome.NEVER_STARTED, error.code), next_check_at=None)
        return
    soon = AttemptChange(attempt_id, next_check_at=at + FIRST_TRACE)
    await context.db.run(f"{SET_ATTEMPT} AND state = 'starting'", attempt_values(soon))


async def _start_answered(context: Context, row: Row, attempt: Row, started: Started, tenant: UUID | None) -> Payment:
    """Record the gateway's yes. News of the attempt may have been faster than our own answer."""
    at = context.clock()
    url = started.next_step.url
    change = AttemptChange(
        attempt["attempt_id"],
        state="live",
        poll_url=started.poll_url,
        redirect_url=url,
        gateway_reference=started.gateway_reference,
        next_check_at=at + timedelta(seconds=context.schedule(attempt["attempt_gateway"])[0]),
        # A callback that came first has asked for a look at once: leave that.
        lease=attempt["next_check_at"],
    )
    # A payment that was copied in may be further than its sequence says.
    if row["sequence"] == 0 and row["status"] == Status.PENDING:
        link = Change(row, Status.PENDING, "link", at, LINK_CREATED, payment_url=url, attempt=change)
        if payment := await write(context, link, tenant=tenant):
            return payment
    await context.db.run(_ANSWERED, {**attempt_values(change), "id": row["id"]}, tenant=tenant)
    return await get(context, row["client_id"], row["id"])


# When the payment has moved on already, its status stands; only what the customer needs to go on is added.
_ANSWERED = f"""
WITH attempt AS (
    {SET_ATTEMPT} AND state = 'starting'
), urls AS (
    UPDATE attempts SET poll_url = COALESCE(poll_url, %(a_poll_url)s), redirect_url = %(a_redirect_url)s
    WHERE id = %(a_id)s AND state <> 'starting'
)
UPDATE payments SET payment_url = COALESCE(payment_url, %(a_redirect_url)s) WHERE id = %(id)s"""


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
    gateway = row["gateway"] or await _first_way(context, row["client_id"], currency)
    credentials = await accounts.credentials(context, row["client_id"], gateway, currency)
    attempt = _new_attempt(row, gateway, context.clock())
    try:
        await context.db.run(_REPLACE, {**row, **attempt, "replaced": row["attempt_id"]})
    except UniqueViolation:
        return None
    await _start(context, row, attempt, credentials)
    found = await _payable(context, page_token)
    return Redirect(found["redirect_url"]) if found and found["redirect_url"] else None


# An attempt that a trace found has no address to send the customer to. Money may still come by it, so it stays watched.
_REPLACE = f"""
WITH old AS (UPDATE attempts SET state = 'replaced' WHERE id = %(replaced)s::uuid AND state = 'live' RETURNING 1)
{_INSERT_ATTEMPT} FROM (SELECT count(*) FROM old) AS first"""

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
