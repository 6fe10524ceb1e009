"""How the backend learns of payments: told by POST, and asking for what it may have missed."""

from __future__ import annotations

import asyncio
import logging

from conva_payments import Event, MessageEvent, PaymentEvent, Payments, PaymentsError
from invoicing.books import Books

log = logging.getLogger(__name__)

EVERY_SECONDS = 60.0


async def handle(books: Books, event: Event) -> None:
    """Apply an event, however it came and however often. One of a message moves no money: it is for people to see, and
    leaves the marks alone. Of a kind that we do not know: nothing to do."""
    if isinstance(event, PaymentEvent):
        verdict = await asyncio.to_thread(books.apply, event.data)
        log.info("%s of payment %s, #%d: %s", event.type, event.data.id, event.data.sequence, verdict.value)
    elif isinstance(event, MessageEvent):
        log.info("%s of payment %s: %s", event.type, event.payment_id, event.message.detail or event.message.state)


async def catch_up(payments: Payments, books: Books) -> None:
    """Read all events since the last time. The cursor is kept after its page: who stops in between reads it again."""
    async for page in payments.event_pages(after=await asyncio.to_thread(books.cursor)):
        for event in page.data:
            await handle(books, event)
        await asyncio.to_thread(books.keep_cursor, page.next_cursor)


async def keep_up(payments: Payments, books: Books) -> None:
    """Catch up at the start, for what came while we were down, and every minute, should an event ever get lost."""
    while True:
        try:
            await catch_up(payments, books)
        except PaymentsError as error:
            log.warning("Events cannot be pulled now: %s", error)
        except Exception:  # such as a locked database: this must outlive whatever happens
            log.exception("Events could not be applied")
        await asyncio.sleep(EVERY_SECONDS)
