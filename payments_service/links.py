"""How a payment begins: the backend asks for a link."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payments_service import accounts
from payments_service.attempts import INSERT_ATTEMPT, new_attempt, start
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Invalid
from payments_service.gateways.base import Method, Redirect
from payments_service.ids import new_id, new_page_token
from payments_service.lifecycle import Status
from payments_service.money import Money
from payments_service.outbox import LINK_CREATED, event_body
from payments_service.records import Payment, payment_from
from payments_service.ways import not_configured, ways_to_pay


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

# The payment of a link that begins with the customer: there is nothing to ask a gateway yet, so the link exists at
# once.
_INSERT_LINK = f"""{_INSERT}, step AS (
    INSERT INTO transitions (payment_id, client_id, sequence, to_status, cause, at)
    SELECT id, client_id, sequence, 'pending', 'link', %(created_at)s FROM made
)
INSERT INTO events (id, client_id, payment_id, type, sequence, body, created_at, next_try_at)
SELECT %(event_id)s, client_id, id, %(event)s, sequence, %(body)s, %(created_at)s, %(created_at)s FROM made"""

# A payment together with its first attempt: nothing is asked of a gateway that is not on record here.
_INSERT_BOTH = f"{_INSERT}, first AS ({INSERT_ATTEMPT} FROM made) SELECT 1"


async def create_link(context: Context, client_id: UUID, order: LinkOrder) -> Payment:
    """Make a payment with its link. Tells the backend by `payment.link_created`.

    Raises Invalid and NotConfigured before anything is recorded; Refused and Unreachable after the payment was
    recorded as failed; Ambiguous and Untrusted with the payment pending until a look-up settles it. Those four carry
    the payment's id as `payment_id`.
    """
    if order.gateway is None:
        if not await ways_to_pay(context, client_id, order.amount, tenant=client_id):
            raise not_configured(order.amount.currency)
        return await _create_open_link(context, client_id, order)
    adapter = context.gateways.get(order.gateway)
    if adapter and order.amount.currency not in adapter.currencies:
        taken = ", ".join(sorted(adapter.currencies))
        raise Invalid([("currency", f"{adapter.title} does not take {order.amount.currency}, only {taken}")])
    credentials = await accounts.credentials(context, client_id, order.gateway, order.amount.currency, tenant=client_id)
    page = _page_of(context, order.gateway)
    if page is None:
        if not context.gateways[order.gateway].offered(credentials, order.contact_email, order.amount):
            raise not_configured(order.amount.currency)
        return await _create_open_link(context, client_id, order)
    at = context.clock()
    row = _new_row(client_id, order, at, sequence=0)
    attempt = new_attempt(row, order.gateway, page, at)
    await context.db.run(_INSERT_BOTH, {**row, **attempt}, tenant=client_id)
    return await start(context, row, attempt, credentials, tenant=client_id)


def _page_of(context: Context, gateway: str) -> Method | None:
    """The gateway's own page, if it has one: what a link leads to from the start. The other ways begin with the
    customer."""
    return next((method for method in context.gateways[gateway].methods if method.step is Redirect), None)


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
