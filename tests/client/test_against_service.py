"""The client and the running service: what the description cannot show."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from conva_payments import (
    Currency,
    Event,
    EventType,
    Invalid,
    KeyReused,
    MessageEvent,
    MessageState,
    NotConfigured,
    NotFound,
    PaymentEvent,
    Payments,
    PulledEvent,
    PulledMessageEvent,
    TooManyRequests,
    Unauthorized,
    Webhook,
    WrongState,
)
from payments_service import delivery, sending
from tests.house import EVENTS_SECRET, TOKEN, House
from tests.support import afresh, open_house


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    await house.save_paynow()
    return house


@pytest.fixture
async def payments(house: House) -> AsyncIterator[Payments]:
    async with Payments(house.internal, TOKEN) as client:
        yield client


def order(**changes: object) -> dict[str, Any]:
    wish = {"gateway": None, "amount_cents": 1250, "currency": "USD", "reference": "INV-1", "contact_id": uuid4()}
    return {**wish, **changes}


async def test_lists_are_read_page_by_page_and_filtered(house: House, payments: Payments) -> None:
    """Newest first, none twice, none missing; the same as CSV and as a sum; times go there and back."""
    made = [await payments.create_link(house.client_id, **order(reference=f"INV-{n}")) for n in range(5)]
    first = await payments.payments_page(house.client_id, limit=2)
    assert first.data == made[:-3:-1]
    rest = await payments.payments_page(house.client_id, limit=200, cursor=first.next_cursor)
    assert (rest.data, rest.next_cursor) == (made[2::-1], None)
    found = [each async for each in payments.payments(house.client_id)]
    assert found == made[::-1]
    since = made[3].created_at
    assert [each async for each in payments.payments(house.client_id, created_from=since)] == made[:2:-1]
    text = b"".join([chunk async for chunk in payments.payments_csv(house.client_id, created_to=since)]).decode()
    assert [row["reference"] for row in csv.DictReader(io.StringIO(text))] == ["INV-2", "INV-1", "INV-0"]
    summary = await payments.summary(house.client_id, since=since, until=since + timedelta(hours=1))
    assert [(total.currency, total.count, total.amount_cents) for total in summary.data] == [(Currency.USD, 2, 2500)]
    assert (summary.since, summary.until) == (since, since + timedelta(hours=1))


async def test_a_list_of_more_than_a_page_is_whole(
    house: House, payments: Payments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The iterator follows the cursor: of payments to the last page, of events until there is nothing new."""
    made = [(await payments.create_link(house.client_id, **order())).id for _ in range(5)]
    one_page, one_of_events = payments.payments_page, payments.events_page

    async def small(client_id: Any, **query: Any) -> Any:
        return await one_page(client_id, **{**query, "limit": 2})

    async def few(**query: Any) -> Any:
        return await one_of_events(**{**query, "limit": 2})

    monkeypatch.setattr(payments, "payments_page", small)
    monkeypatch.setattr(payments, "events_page", few)
    assert [each.id async for each in payments.payments(house.client_id)] == made[::-1]
    told = [each async for each in payments.events(client_id=house.client_id)]
    assert [each.data.id for each in told if isinstance(each, PulledEvent)] == made


async def test_an_event_is_the_same_pulled_and_pushed_and_its_replay_another(house: House, payments: Payments) -> None:
    """`Webhook` makes of a delivery what `events` gives; a replay's `webhook_id` is new, its `event_id` is not."""
    payment = await payments.create_link(house.client_id, **order())
    pages = [page async for page in payments.event_pages(client_id=house.client_id, type="payment.link_created")]
    ((event,),) = [page.data for page in pages]
    assert isinstance(event, PulledEvent)
    assert (event.type, event.data.id, event.state) == (EventType.LINK_CREATED, payment.id, "due")
    (claimed,) = [row for row in await delivery.claim(house.world.context, 500) if row["id"] == event.id]
    pushed = _as_posted(claimed)
    assert (pushed.type, pushed.timestamp, pushed.data, pushed.webhook_id) == (
        event.type,
        event.timestamp,
        event.data,
        event.webhook_id,
    )
    again = await payments.redeliver_event(event.id)
    assert isinstance(again, PulledEvent)
    assert (again.webhook_id, again.event_id, again.replays) == (f"{event.id}.1", str(event.id), 1)
    span = (event.timestamp, event.timestamp + timedelta(seconds=60))
    assert await payments.redeliver_events(*span, client_id=house.client_id) == 1
    assert [page async for page in payments.event_pages(after=pages[-1].next_cursor, client_id=house.client_id)] == []


async def test_a_filter_that_nothing_fits_still_brings_the_cursor_on(house: House, payments: Payments) -> None:
    """One page without events, whose cursor is kept as any other; from there on nothing, until something fits."""
    payment = await payments.create_link(house.client_id, **order(gateway=None))
    wanted = {"client_id": house.client_id, "type": "payment.cancelled"}
    (page,) = [page async for page in payments.event_pages(**wanted)]
    assert (page.data, int(page.next_cursor or 0) > 0) == ([], True)
    assert [page async for page in payments.event_pages(after=page.next_cursor, **wanted)] == []
    await payments.cancel(house.client_id, payment.id)
    (event,) = [each async for each in payments.events(after=page.next_cursor, **wanted)]
    assert (event.type, event.payment_id) == (EventType.CANCELLED, payment.id)


async def test_a_link_is_sent_and_what_became_of_it_is_told(house: House, payments: Payments) -> None:
    """With the link, and once more within the limits; the payment has its messages, an event tells of each, pushed as
    it is pulled."""
    whatsapp = house.world.whatsapp
    await whatsapp.subscribe(f"{house.public}/callbacks/whatsapp")
    wish = order(contact_phone="077 123 4567", send="whatsapp", reminders=True, expires_in=7200)
    payment = await payments.create_link(house.client_id, **wish)
    with pytest.raises(Invalid):
        await payments.send_link(house.client_id, payment.id, to="12", actor="Rudo")
    with pytest.raises(TooManyRequests) as refused:
        await payments.send_link(house.client_id, payment.id)
    assert 0 < (refused.value.retry_after or 0) <= 61
    assert await sending.run_once(house.world.context) == 1
    await whatsapp.settled()
    sent, reminder = (await payments.payment(house.client_id, payment.id)).messages
    assert (sent.state, sent.to, reminder.state) == (MessageState.DELIVERED, "+263771234567", MessageState.QUEUED)
    told = [each async for each in payments.events(client_id=house.client_id, type="message.delivered")]
    (event,) = [each for each in told if isinstance(each, PulledMessageEvent)]
    assert (event.payment_id, event.message.id, event.message.state) == (payment.id, sent.id, "delivered")
    (claimed,) = [row for row in await delivery.claim(house.world.context, 500) if row["id"] == event.id]
    posted = _posted(claimed)
    assert isinstance(posted, MessageEvent)
    assert (posted.message, posted.payment_id, posted.client_id) == (event.message, payment.id, house.client_id)


def _as_posted(row: Any) -> PaymentEvent:
    event = _posted(row)
    assert isinstance(event, PaymentEvent)
    return event


def _posted(row: Any) -> Event:
    """The event of a claimed row, signed as the service signs it."""
    body = row["body"].encode()
    headers = {"webhook-id": str(row["id"]), "webhook-timestamp": "1700000000"}
    headers["webhook-signature"] = delivery.sign(str(row["id"]), 1700000000, body, (EVENTS_SECRET,))
    return Webhook(EVENTS_SECRET).verify(headers, body, now=1700000000)


async def test_what_the_service_refuses_has_its_class(house: House, payments: Payments) -> None:
    """By the code, with what it tells besides; the request's id is the one in the service's log."""
    payment = await payments.create_link(house.client_id, **order())
    with pytest.raises(NotFound) as raised:
        await payments.payment(uuid4(), payment.id)
    assert (raised.value.status, len(raised.value.request_id or "")) == (404, 32)
    with pytest.raises(Invalid) as faulty:
        await payments.create_link(house.client_id, **order(amount_cents=0, currency="EUR"))
    assert {fault.field for fault in faulty.value.errors} == {"amount_cents", "currency"}
    with pytest.raises(NotConfigured):
        await payments.create_link(uuid4(), **order())
    with pytest.raises(WrongState):
        await payments.refund(house.client_id, payment.id, reason="torn")
    assert (await payments.cancel(house.client_id, payment.id, actor="Žaneta")).status == "cancelled"
    assert (await payments.history(house.client_id, payment.id))[-1].actor == "Žaneta"
    async with Payments(house.internal, "of-another-service-0123456789abcdef") as stranger:
        with pytest.raises(Unauthorized):
            await stranger.settings(house.client_id)


async def test_the_same_wish_is_done_once(house: House, payments: Payments) -> None:
    """The service keeps the client's key: uttered again, it is the same payment; another one is refused."""
    wish = order()
    first = await payments.create_link(house.client_id, **wish, idempotency_key="invoice 17, link 1")
    again = await payments.create_link(house.client_id, **wish, idempotency_key="invoice 17, link 1")
    assert again == first
    with pytest.raises(KeyReused):
        await payments.create_link(house.client_id, **order(), idempotency_key="invoice 17, link 1")


async def test_a_tenant_is_looked_at_and_leaves(house: House, payments: Payments) -> None:
    """Its log is whole, also after it has left; what is in the way is told in numbers."""
    payment = await payments.create_link(house.client_id, **order())
    with pytest.raises(WrongState) as refused:
        await payments.delete_tenant(house.client_id, actor="Rudo")
    assert refused.value.in_the_way["pending_payments"] == 1
    await payments.cancel(house.client_id, payment.id)
    async for page in payments.event_pages(client_id=house.client_id):
        assert page.data
    house.world.rows_do(
        "UPDATE events SET state = 'delivered', next_try_at = NULL WHERE client_id = %s", house.client_id
    )
    await payments.delete_tenant(house.client_id, actor="Rudo")
    entries = [entry async for entry in payments.audit_logs(house.client_id)]
    assert [(entry.action, entry.actor) for entry in entries] == [("tenant.deleted", "Rudo")]
    assert (await payments.verify_audit_logs(house.client_id)).whole
    with pytest.raises(NotFound):
        await payments.delete_tenant(house.client_id)
