"""How a payment begins: the backend asks for a link."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from payments_service import accounts
from payments_service.attempts import INSERT_ATTEMPT, new_attempt, start
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Ambiguous, Invalid, KeyBusy
from payments_service.gateways.base import Method, Redirect
from payments_service.idempotency import MARK, Claim, is_held, mark_values
from payments_service.ids import new_id, new_page_token
from payments_service.lifecycle import Status
from payments_service.messages import WRITE, Posting, write_values
from payments_service.money import Currency, Money
from payments_service.outbox import LINK_CREATED, event_body
from payments_service.records import PAYMENT_COLUMNS, Payment, payment_from, words_of
from payments_service.senders import sender_of
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
    # What goes to the customer's number by WhatsApp, and when.
    recipient: str | None = None
    postings: tuple[Posting, ...] = ()


# Who is just being deleted (`leaving`) has settings no more once this had to wait: then nothing is made. The settings
# are locked before the key's row, as there: else each could wait for the other. An idempotency key leads to the payment
# from the moment on that there is one; if the key is lost, there is none.
_INSERT = f"""
WITH here AS (
    SELECT FROM payment_settings WHERE client_id = %(client_id)s::uuid FOR KEY SHARE
), marked AS (
    {MARK} AND EXISTS (SELECT FROM here) RETURNING id
), made AS (
    INSERT INTO payments (id, client_id, gateway, reference, amount_cents, currency, contact_id, invoice_id,
                          description, contact_email, contact_phone, page_token, created_at, expires_at, sequence)
    SELECT %(id)s::uuid, %(client_id)s::uuid, %(gateway)s::text, %(reference)s::text, %(amount_cents)s::bigint,
           %(currency)s::text, %(contact_id)s::uuid, %(invoice_id)s::uuid, %(description)s::text,
           %(contact_email)s::text, %(contact_phone)s::text, %(page_token)s::text, %(created_at)s::timestamptz,
           %(expires_at)s::timestamptz, %(sequence)s::integer
    FROM here WHERE %(key_id)s::bigint IS NULL OR EXISTS (SELECT FROM marked)
    RETURNING id, client_id, sequence
), written AS (
    {WRITE}
)"""

# The payment of a link that begins with the customer: there is nothing to ask a gateway yet, so the link exists at
# once.
_INSERT_LINK = f"""{_INSERT}, step AS (
    INSERT INTO transitions (payment_id, client_id, sequence, to_status, cause, at)
    SELECT id, client_id, sequence, 'pending', 'link', %(created_at)s FROM made
)
INSERT INTO events (id, client_id, payment_id, type, sequence, body, created_at, next_try_at)
SELECT %(event_id)s, client_id, id, %(event)s, sequence, %(body)s, %(created_at)s, %(created_at)s FROM made
RETURNING payment_id"""

# A payment together with its first attempt: nothing is asked of a gateway that is not on record here.
_INSERT_BOTH = f"{_INSERT}, first AS ({INSERT_ATTEMPT} FROM made) SELECT id FROM made"


async def create_link(context: Context, client_id: UUID, order: LinkOrder, claim: Claim | None = None) -> Payment:
    """Make a payment with its link. Tells the backend by `payment.link_created`.

    `claim`: that of the call's idempotency key, which leads to the payment from now on. Raises KeyBusy, with nothing
    recorded, when somebody else has it meanwhile.

    Raises Invalid, NotConfigured and ChannelNotConfigured before anything is recorded; Refused and Unreachable after
    the payment was recorded as failed; Ambiguous and Untrusted with the payment pending until a look-up settles it.
    Those four carry the payment's id as `payment_id`.
    """
    if order.postings:
        await sender_of(context, client_id)
    if order.gateway is None:
        if not await ways_to_pay(context, client_id, order.amount, tenant=client_id):
            raise not_configured(order.amount.currency)
        return await _create_open_link(context, client_id, order, claim)
    adapter = context.gateways.get(order.gateway)
    if adapter and order.amount.currency not in adapter.currencies:
        taken = ", ".join(sorted(adapter.currencies))
        raise Invalid([("currency", f"{adapter.title} does not take {order.amount.currency}, only {taken}")])
    credentials = await accounts.credentials(context, client_id, order.gateway, order.amount.currency, tenant=client_id)
    page = _page_of(context, order.gateway)
    if page is None:
        if not context.gateways[order.gateway].offered(credentials, order.contact_email, order.amount):
            raise not_configured(order.amount.currency)
        return await _create_open_link(context, client_id, order, claim)
    at = context.clock()
    row = {**_new_row(client_id, order, at, sequence=0), **await words_of(context, client_id)}
    attempt = new_attempt(row, order.gateway, page, at)
    posted = write_values(order.recipient, order.postings)
    await _insert(context, _INSERT_BOTH, {**row, **attempt, **posted}, claim)
    payment = await start(context, row, attempt, credentials, tenant=client_id)
    context.messages_due.ring()
    return payment


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


async def _create_open_link(context: Context, client_id: UUID, order: LinkOrder, claim: Claim | None) -> Payment:
    at = context.clock()
    row = {**_new_row(client_id, order, at, sequence=1), **await words_of(context, client_id)}
    payment = payment_from(context, row)
    event = {"event_id": new_id(), "event": LINK_CREATED, "body": event_body(LINK_CREATED, at, payment, None)}
    await _insert(context, _INSERT_LINK, {**row, **event, **write_values(order.recipient, order.postings)}, claim)
    context.events_due.ring()
    context.messages_due.ring()
    context.metrics.moved(payment.gateway, payment.status)
    return payment


async def _insert(context: Context, sql: str, row: Row, claim: Claim | None) -> None:
    client_id = row["client_id"]
    if await context.db.run(sql, {**row, **mark_values(claim, row["id"])}, tenant=client_id):
        return
    if claim and not await is_held(context, client_id, claim):
        raise KeyBusy
    raise not_configured(Currency(row["currency"]))


# Once there is a link, a try to pay it says nothing of the call that made it.
_FIRST_TRY = f"""
SELECT {PAYMENT_COLUMNS}, a.state AS first_state, EXISTS (
    SELECT FROM transitions s WHERE s.payment_id = p.id AND s.sequence = 1 AND s.to_status = 'pending') AS linked
FROM payments p
LEFT JOIN attempts a ON a.payment_id = p.id AND a.client_id = p.client_id AND a.number = 1
WHERE p.client_id = %(client_id)s AND p.id = %(id)s"""


async def recall(context: Context, client_id: UUID, payment_id: UUID) -> Payment | None:
    """The payment of a call that was cut off, or whose gateway did not answer; None when no link came of it.

    Raises Ambiguous while the gateway has not told, with the payment's id.
    """
    names = {"client_id": client_id, "id": payment_id}
    found = await context.db.run(_FIRST_TRY, names, tenant=client_id)
    if not found:
        return None
    row = found[0]
    if row["linked"]:
        return payment_from(context, row)
    if row["first_state"] == "starting":
        unknown = Ambiguous("The gateway has not told yet whether this link can be paid: look at the payment.")
        unknown.payment_id = payment_id
        raise unknown
    if row["first_state"] == "failed" and row["payment_url"] is None:
        return None
    return payment_from(context, row)
