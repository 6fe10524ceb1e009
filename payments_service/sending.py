"""Sending what is due: claimed by one worker, sent, and its outcome recorded.

There is no idempotency key at WhatsApp's. So a message is `sending` before anything leaves; whoever was cut off there,
or lost the answer, has left it `unknown`, and it is sent once more at most, when no word of it came for a minute.
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import structlog

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Ambiguous, ChannelNotConfigured, Unreachable, Unreadable, Untrusted
from payments_service.lifecycle import PAYABLE
from payments_service.messages import COLUMNS, Step, move
from payments_service.money import Currency, Money
from payments_service.outbox import MESSAGE_FAILED
from payments_service.senders import sender_of, stop
from payments_service.whatsapp import SECONDS, Act, Form, Letter, Rejected
from payments_service.wording import SOMEBODY, link_text

log = structlog.get_logger(__name__)

# Longer than a call takes. Who comes to it so late that the call might outlast the lease does not begin it.
LEASE = timedelta(seconds=60)
_CALL = timedelta(seconds=SECONDS)
# So long a word of the message is waited for before it is sent once more, and then before it is given up.
UNHEARD, GIVEN_UP = timedelta(seconds=60), timedelta(minutes=10)
# Tries that WhatsApp itself asked to repeat; the first waits ten seconds, the last ones ten minutes.
MOST_TRIES = 12
_FIRST_WAIT, _LONGEST_WAIT = 10.0, 600.0
# One message in six seconds to one number.
_PAIR_WAIT = 7.0
_DAY = timedelta(hours=24)
# Who has got the link within this time is not reminded of it. The shortest link's last quarter.
LATELY = timedelta(minutes=15)

# A worker that died at it may have sent it.
_LAPSED = """
UPDATE messages SET state = 'unknown', next_try_at = %(heard_by)s, updated_at = %(at)s
WHERE id IN (
    SELECT id FROM messages WHERE state = 'sending' AND next_try_at <= %(at)s LIMIT 100 FOR UPDATE SKIP LOCKED)"""

# The gateway would have none of it, and whoever asked for the link was told so: what was to go out with it does not.
_REFUSED = """m.created_at = p.created_at AND EXISTS (
    SELECT FROM transitions s WHERE s.payment_id = p.id AND s.sequence = 1 AND s.to_status = 'failed')"""

# A reminder comes to nobody who waits for the link, or has just got or read it: after a pause of ours both are due.
_NEEDLESS = """m.kind = 'reminder' AND EXISTS (
    SELECT FROM messages o WHERE o.payment_id = m.payment_id AND o.recipient = m.recipient AND o.kind = 'link'
      AND o.state NOT IN ('failed', 'withdrawn')
      AND (o.next_try_at IS NOT NULL OR o.updated_at > %(lately)s::timestamptz))"""

# A payment whose own start is not answered yet may turn out to have no link.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT m.id, m.state, m.resent FROM messages m
    WHERE m.next_try_at <= %(at)s AND m.state IN ('queued', 'unknown')
      AND NOT EXISTS (SELECT FROM attempts a WHERE a.payment_id = m.payment_id AND a.state = 'starting')
    ORDER BY m.next_try_at LIMIT %(limit)s FOR UPDATE OF m SKIP LOCKED
), taken AS (
    UPDATE messages m SET state = 'sending', next_try_at = %(lease)s, tries = m.tries + 1,
        resent = m.resent OR m.state = 'unknown'
    FROM due WHERE m.id = due.id RETURNING m.*, due.state AS state_before, due.resent AS resent_before
)
SELECT {COLUMNS}, m.state_before, m.resent_before, {_REFUSED} AS refused, {_NEEDLESS} AS needless
FROM taken m JOIN payments p ON p.id = m.payment_id"""


async def claim(context: Context, limit: int) -> list[Row]:
    """Take up to `limit` due messages; nobody else gets them until the lease ends."""
    at = context.clock()
    await context.db.run(_LAPSED, {"at": at, "heard_by": at + UNHEARD})
    return await context.db.run(_CLAIM, {"at": at, "lease": at + LEASE, "lately": at - LATELY, "limit": limit})


async def run_once(context: Context, *, limit: int = 16) -> int:
    """Send what is due, one after another; how many were claimed."""
    due = await claim(context, limit)
    for row in due:
        await deliver(context, row)
    return len(due)


async def deliver(context: Context, row: Row) -> None:
    """Send a claimed message, or say why not; record what is known of it then."""
    step = await _sent(context, row)
    await move(context, row, step)
    context.metrics.message(step.state)
    say = log.warning if step.state == "failed" else log.info
    say(
        "message_tried",
        message_id=row["message_id"],
        payment_id=row["id"],
        client_id=row["client_id"],
        outcome=step.state,
        error_code=step.code,
        tries=row["tries"],
        next_try_at=step.next_try_at,
    )


async def _sent(context: Context, row: Row) -> Step:
    at = context.clock()
    if row["state_before"] == "unknown" and row["resent_before"]:
        return _failed(at, row["code"], "WhatsApp gave no clear answer, twice, and no word of the message since.")
    if row["status"] not in PAYABLE or row["expires_at"] <= at or row["refused"]:
        # What may have been sent already stays so: nobody knows.
        return Step("unknown" if row["resent"] else "withdrawn", at, detail="The link was over before this was sent.")
    if row["needless"] and not row["resent"]:
        return Step("withdrawn", at, detail="The link itself was on its way, or had just come.")
    try:
        sender = await sender_of(context, row["client_id"])
        if context.clock() > row["lease"] - _CALL:
            return _again(row, context.clock(), row["code"], "This worker was held up.", timedelta())
        wamid = await context.cloud.send(sender, _letter(context, row), row["form"])
    except (ChannelNotConfigured, Unreadable) as error:
        return _failed(at, None, error.detail)
    except Rejected as error:
        if error.act is Act.STOP:
            await stop(context, row["client_id"], sender, error)
        if error.act is Act.UNSURE:
            return _unheard(row, context.clock(), error.code, error.detail)
        return after(row, error, context.clock())
    except Unreachable:
        return _again(row, context.clock(), None, "WhatsApp could not be reached.", _backed_off(row["tries"]))
    except (Ambiguous, Untrusted) as error:
        return _unheard(row, context.clock(), None, error.detail)
    return Step("accepted", context.clock(), wamid=wamid)


def _unheard(row: Row, at: datetime, code: int | None, detail: str) -> Step:
    """It may have been taken: a word of it is waited for."""
    wait = GIVEN_UP if row["resent"] else UNHEARD
    return Step("unknown", at, next_try_at=at + wait, code=code, detail=detail)


def _letter(context: Context, row: Row) -> Letter:
    amount = Money(row["amount_cents"], Currency(row["currency"]))
    link = context.page_url(row["page_token"])
    return Letter(
        id=row["message_id"],
        to=row["recipient"],
        payee=row["payee"] or SOMEBODY,
        amount=amount.shown(),
        reference=row["reference"],
        page_token=row["page_token"],
        text=link_text(row["wording"], row["payee"], amount, row["reference"], link),
    )


def after(row: Row, error: Rejected, at: datetime) -> Step:
    """What becomes of a message that was not delivered, as the answer or a status says."""
    match error.act:
        case Act.TEMPLATE if row["form"] == "text":
            return _again(row, at, error.code, error.detail, timedelta(), form="template")
        case Act.BACK_OFF | Act.RETRY | Act.UNSURE if row["tries"] < MOST_TRIES:
            return _again(row, at, error.code, error.detail, _backed_off(row["tries"]))
        case Act.PAIR if row["tries"] < MOST_TRIES:
            wait = timedelta(seconds=_PAIR_WAIT * random.uniform(1, 2))  # noqa: S311 (spreads load)
            return _again(row, at, error.code, error.detail, wait)
        case Act.DAY if row["expires_at"] > at + _DAY and row["tries"] < MOST_TRIES:
            return _again(row, at, error.code, error.detail, _DAY)
        case _:
            return _failed(at, error.code, error.detail, buried=row["wamid"])


def _again(row: Row, at: datetime, code: int | None, detail: str, wait: timedelta, form: Form | None = None) -> Step:
    return Step("queued", at, next_try_at=at + wait, code=code, detail=detail, form=form, buried=row["wamid"])


def _failed(at: datetime, code: int | None, detail: str, buried: str | None = None) -> Step:
    return Step("failed", at, MESSAGE_FAILED, code=code, detail=detail, buried=buried)


def _backed_off(tries: int) -> timedelta:
    # Capped before it is raised: a month out of reach is thousands of tries.
    wait = min(_FIRST_WAIT * 2 ** (min(tries, MOST_TRIES) - 1), _LONGEST_WAIT)
    return timedelta(seconds=wait * random.uniform(0.5, 1.5))  # noqa: S311 (spreads load)
