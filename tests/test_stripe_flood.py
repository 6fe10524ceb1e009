"""Hundreds of webhooks, a thousand with PROOFS=full, each three times, shuffled and at once: one transition and one
event per change."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest

from payments_service.gateways.stripe_events import TYPES
from payments_service.sandbox.stripe_accounts import Object
from tests.house import House
from tests.scale import of
from tests.stripe_shop import Shop, open_service
from tests.till import Till

PAYMENTS = of(300, 80)
COPIES = 3


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


class Order(Till):
    """A payment whose session was made at the simulator, and what became of it there."""

    async def play(self, shop: Shop, number: int) -> tuple[str, int]:
        """Paid at once, after a declined try, or not at all; then perhaps refunded. The status and sum at its end."""
        names = {"client_id": str(self.client_id), "attempt_id": str(self.attempt_id)}
        price = {"currency": "usd", "unit_amount": 1250, "product_data": {"name": "Cement"}}
        params: Object = {
            "mode": "payment",
            "line_items": [{"price_data": price, "quantity": 1}],
            "client_reference_id": self.reference,
            "metadata": names,
            "payment_intent_data": {"metadata": names},
            "success_url": "http://127.0.0.1/",
        }
        session = shop.stripe.create_session(shop.account, params)
        if number % 3 == 0:
            await shop.stripe.decline(session["id"], send=False)
        if number % 30 == 0:
            await shop.stripe.expire(session["id"])
            return "pending", 0
        await shop.stripe.pay(session["id"], send=False)
        parts = {0: [], 1: [1250], 2: [300, 200], 3: [300, 950]}[number % 4]
        for part in parts:
            await shop.stripe.refund(session["id"], part, send=False)
        if number % 28 == 2:
            await shop.stripe.refund(session["id"], 100, send=False)
        refunded = sum(parts) + (100 if number % 28 == 2 else 0)
        part_of = {0: "paid", 1250: "refunded"}
        return part_of.get(refunded, "partially_refunded"), refunded


async def deliver(shop: Shop, bodies: list[tuple[bytes, str]]) -> Counter[int]:
    """Post them all, in this order, two dozen at once; how often each status came back."""
    statuses: Counter[int] = Counter()
    left = iter(bodies)
    url = f"{shop.house.public}/callbacks/stripe/{shop.client_id}"
    async with aiohttp.ClientSession() as http:

        async def post() -> None:
            for body, header in left:
                headers = {"Content-Type": "application/json", "Stripe-Signature": header}
                async with http.post(url, data=body, headers=headers) as answer:
                    statuses[answer.status] += 1

        await asyncio.gather(*(post() for _ in range(24)))
    return statuses


async def test_a_thousand_webhooks_three_times_in_any_order(service: House) -> None:
    """All are acknowledged, every payment ends as it truly did, and its events are exactly its changes: none twice, and
    no sum that goes back."""
    shop = await Shop.open(service)
    orders = [Order(shop.world, shop.client_id, f"INV-{number}-{uuid4().hex[:8]}") for number in range(PAYMENTS)]
    ends = [await order.play(shop, number) for number, order in enumerate(orders)]
    events = [event.shown() for event in shop.account.events.values() if event.object["type"] in TYPES]
    assert len(events) >= of(1000, 250)
    posts = [shop.stripe.signed(event, shop.secret) for event in events] * COPIES
    random.shuffle(posts)
    assert await deliver(shop, posts) == {200: len(posts)}
    told = all_told(shop)
    for order, end in zip(orders, ends, strict=True):
        check_told(told.get(order.payment_id, []), end)
    await check_look_ups_find_no_news(shop, orders)


def all_told(shop: Shop) -> dict[UUID, list[tuple[str, int]]]:
    """Each payment's events since the link as status and sum; each is that of its own step, the last one says how it
    stands."""
    told: dict[UUID, list[tuple[str, int]]] = {}
    for row in shop.world.rows(
        "SELECT e.payment_id, e.sequence, e.body, t.to_status, p.sequence AS steps, p.status, p.refunded_cents "
        "FROM events e JOIN payments p ON p.id = e.payment_id "
        "LEFT JOIN transitions t ON t.payment_id = e.payment_id AND t.sequence = e.sequence "
        "WHERE p.client_id = %s AND e.sequence > 1 ORDER BY e.payment_id, e.sequence",
        shop.client_id,
    ):
        news = told.setdefault(row["payment_id"], [])
        data = msgspec.json.decode(row["body"])["data"]
        news.append((data["status"], data["refunded_cents"]))
        assert row["sequence"] == len(news) + 1
        assert row["to_status"] == data["status"]
        if row["sequence"] == row["steps"]:
            assert news[-1] == (row["status"], row["refunded_cents"])
    kept = "SELECT sum((sequence - 1)::integer) AS changes FROM payments WHERE client_id = %s"
    changes = shop.world.one(kept, shop.client_id)["changes"]
    taken = "SELECT count(*) AS n FROM transitions WHERE client_id = %s AND sequence > 1"
    (steps,) = shop.world.one(taken, shop.client_id).values()
    assert changes == steps == sum(len(news) for news in told.values())
    return told


def check_told(told: list[tuple[str, int]], end: tuple[str, int]) -> None:
    """Each event is a change of the sum, upwards, or the payment itself; the last one is the end."""
    assert told[-1:] == ([end] if end[0] != "pending" else [])
    assert all(after[1] > before[1] for before, after in itertools.pairwise(told)), told


async def check_look_ups_find_no_news(shop: Shop, orders: list[Order]) -> None:
    """What Stripe says when it is asked, of some of them, is what its events have said."""
    before = books(shop)
    some = [order.attempt_id for order in random.sample(orders, 20)]
    shop.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years' WHERE NOT id = ANY(%s)", some)
    shop.forward(seconds=20)
    await shop.look()
    assert books(shop) == before


def books(shop: Shop) -> Any:
    rows = shop.world.rows("SELECT id, status, sequence, refunded_cents FROM payments ORDER BY id")
    return msgspec.json.encode([[str(value) for value in row.values()] for row in rows])
