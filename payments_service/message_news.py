"""What WhatsApp tells of messages: statuses in any order, more than once. None of it moves a payment."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import ChannelNotConfigured, Unavailable, Unreadable
from payments_service.messages import READ, Step, move
from payments_service.outbox import EVENT_OF_MESSAGE
from payments_service.senders import sender_of, stop
from payments_service.sending import after
from payments_service.whatsapp import Act, News

# How far a message came: what is told late of an earlier step says nothing new. All other states are below these:
# what is told of one that WhatsApp has not buried is true, also where it was given up here.
_RANK = {"sent": 1, "delivered": 2, "read": 3}
# In these a message may still fail.
_OPEN = ("unknown", "accepted", "sent")
_ARRIVED = ("delivered", "read")
_TRIES = 12
# A failure may be told faster than our own call was answered.
_PAUSE = 0.25

_BY_ID = f"{READ} WHERE m.id = %(message_id)s"
_BY_WAMID = f"{READ} WHERE m.wamid = %(wamid)s"


async def take(context: Context, news: News) -> bool:
    """Let a status change the message it is about, if it says something new; False for one that is not ours.

    Raises Unavailable when it came in the middle of the sending: it must be told again.
    """
    for _ in range(_TRIES):
        row = await _read(context, news)
        if row is None:
            return False
        if news.status == "failed" and row["message_state"] == "sending" and row["wamid"] is None:
            await asyncio.sleep(_PAUSE)
            continue
        step = _step(row, news, context.clock())
        if step is None:
            return True
        # First: who is cut off between the two is told again, but only as long as the message says nothing of it.
        await _stop(context, row, news)
        if await move(context, row, step):
            if step.state == "queued":
                context.messages_due.ring()
            return True
    raise Unavailable("The message is being sent just now: tell it again.")


async def _stop(context: Context, row: Row, news: News) -> None:
    """Close the number that the message went out from, if that is what the failure asks for, and it is still the
    tenant's: it may have another by now, or the platform's."""
    if news.rejected is None or news.rejected.act is not Act.STOP:
        return
    with suppress(ChannelNotConfigured, Unreadable):
        sender = await sender_of(context, row["client_id"])
        if sender.phone_number_id == news.phone_number_id:
            await stop(context, row["client_id"], sender, news.rejected)


async def _read(context: Context, news: News) -> Row | None:
    sql = _BY_ID if news.message_id else _BY_WAMID
    rows = await context.db.run(sql, {"message_id": news.message_id, "wamid": news.wamid})
    return rows[0] if rows else None


def _step(row: Row, news: News, at: datetime) -> Step | None:
    """What the message becomes; None when that says nothing new."""
    if news.wamid in row["dead"]:
        return None
    if news.rejected is None:
        if _RANK[news.status] <= _RANK.get(row["message_state"], 0):
            return None
        return Step(news.status, at, EVENT_OF_MESSAGE[news.status], wamid=news.wamid)
    if row["message_state"] in _ARRIVED:
        return None
    if row["message_state"] in _OPEN and row["wamid"] in (None, news.wamid):
        return after({**row, "wamid": news.wamid}, news.rejected, at)
    # Of two that may be under way, after an answer was lost, it is the other one: no late word of it counts.
    unchanged = {name: row[name] for name in ("code", "detail")}
    return Step(row["message_state"], at, next_try_at=row["lease"], buried=news.wamid, **unchanged)
