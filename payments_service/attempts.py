"""How an attempt to pay starts at a gateway.

No network call happens inside a transaction: the intent is recorded, the gateway is called, its answer is recorded.
A crash between two steps leaves an attempt in `starting` with a look-up due, which the reconciler picks up.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import GatewayError, Refused, Unreachable
from payments_service.gateways.base import ApproveOnPhone, Method, NextStep, Redirect, Started, StartRequest
from payments_service.ids import new_attempt_reference, new_id
from payments_service.lifecycle import Outcome, Report, Status
from payments_service.outbox import LINK_CREATED
from payments_service.payments import absorb, get
from payments_service.records import SET_ATTEMPT, AttemptChange, Change, Payment, attempt_values, money_of, write

# A start that has neither answered nor failed by then was cut off: its attempt is traced. Longer than any start.
START_GRACE = timedelta(seconds=30)
# After a lost answer the first trace comes soon: the backend or a customer waits.
FIRST_TRACE = timedelta(seconds=5)

_ATTEMPT_COLUMNS = """id, payment_id, client_id, gateway, number, method, phone, reference, amount_cents, currency,
    started_at, watched_from, next_check_at"""

INSERT_ATTEMPT = f"""INSERT INTO attempts ({_ATTEMPT_COLUMNS})
    SELECT %(attempt_id)s::uuid, %(id)s::uuid, %(client_id)s::uuid, %(attempt_gateway)s::text, %(number)s::smallint,
           %(method)s::text, %(phone)s::text, %(attempt_reference)s::text, %(amount_cents)s::bigint,
           %(currency)s::text, %(at)s::timestamptz, %(at)s::timestamptz, %(next_check_at)s::timestamptz"""


def new_attempt(
    row: Row, gateway: str, method: Method, at: datetime, *, number: int = 1, phone: str | None = None
) -> Row:
    """The parameters of INSERT_ATTEMPT that are not the payment's. `number`: the first, second, … try to pay it."""
    return {
        "attempt_id": new_id(),
        "attempt_gateway": gateway,
        "attempt_reference": new_attempt_reference(row["reference"]),
        "number": number,
        "method": method.name,
        "phone": phone if method.needs_phone else None,
        "at": at,
        "next_check_at": at + START_GRACE,
    }


async def start(
    context: Context, row: Row, attempt: Row, credentials: object, *, tenant: UUID | None = None
) -> Payment:
    """Call the gateway for an attempt that is on record, and record its answer.

    Raises Refused, Unreachable, Ambiguous and Untrusted with the payment's id as `payment_id`.
    """
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
        method=attempt["method"],
        reference=attempt["attempt_reference"],
        amount=money_of(row),
        description=row["description"] or row["reference"],
        return_url=f"{context.page_url(row['page_token'])}?returned=1",
        callback_url=context.callback_url(attempt["attempt_gateway"], row["client_id"], attempt["attempt_id"]),
        page_url=context.page_url(row["page_token"]),
        payment_id=row["id"],
        client_id=row["client_id"],
        expires_at=row["expires_at"],
        payer_email=row["contact_email"],
        payer_phone=attempt["phone"],
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
    step = started.next_step
    change = AttemptChange(
        attempt["attempt_id"],
        state="live",
        poll_url=started.poll_url,
        next_step=step,
        gateway_reference=started.gateway_reference,
        next_check_at=at + timedelta(seconds=context.schedule(attempt["attempt_gateway"])[0]),
        # A callback that came first has asked for a look at once: leave that.
        lease=attempt["next_check_at"],
    )
    # A payment that was copied in may be further than its sequence says.
    if row["sequence"] == 0 and row["status"] == Status.PENDING:
        url = step.url if isinstance(step, Redirect) else None
        link = Change(row, Status.PENDING, "link", at, LINK_CREATED, payment_url=url, attempt=change)
        if payment := await write(context, link, tenant=tenant):
            return payment
    await context.db.run(_ANSWERED, {**attempt_values(change), "id": row["id"]}, tenant=tenant)
    return await get(context, row["client_id"], row["id"])


# When the payment has moved on already, its status stands; only what the customer needs to go on is added. The page of
# the newest try is the one that can be paid on.
_ANSWERED = f"""
WITH attempt AS (
    {SET_ATTEMPT} AND state = 'starting'
), urls AS (
    UPDATE attempts SET poll_url = COALESCE(poll_url, %(a_poll_url)s), redirect_url = %(a_redirect_url)s,
                        next_step = %(a_next_step)s::jsonb
    WHERE id = %(a_id)s AND state <> 'starting'
)
UPDATE payments SET payment_url = COALESCE(%(a_redirect_url)s, payment_url) WHERE id = %(id)s"""


def method_of(context: Context, gateway: str, name: str) -> Method | None:
    """The gateway's method of this name; None when neither is known any more."""
    adapter = context.gateways.get(gateway)
    return next((method for method in adapter.methods if method.name == name), None) if adapter else None


def step_of(context: Context, row: Row) -> NextStep | None:
    """What the customer does next, of a row with the attempt's columns, all led by `attempt_`.

    None when no try is live, or the gateway's answer was lost and with it what is needed to go on.
    """
    if row["attempt_state"] != "live":
        return None
    if row["attempt_next_step"] is not None:
        # A version after this one may know steps that we do not.
        with suppress(msgspec.ValidationError):
            step: NextStep = msgspec.convert(row["attempt_next_step"], NextStep)
            return step
    if row["attempt_redirect_url"] is not None:
        return Redirect(row["attempt_redirect_url"])
    method = method_of(context, row["attempt_gateway"], row["attempt_method"])
    # A prompt has come up on the phone all the same, and nothing else is needed.
    return ApproveOnPhone() if method and method.step is ApproveOnPhone else None
