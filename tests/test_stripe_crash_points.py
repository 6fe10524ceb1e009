"""A crash before and after every durable step of a refund, a webhook, a sweep and a withdrawal: the rest follows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from payments_service import proofs, reconcile, refunds, sweeps
from payments_service.context import Context
from payments_service.db import Database
from payments_service.errors import Ambiguous, PaymentsError, Unavailable
from payments_service.gateways import registry
from payments_service.gateways.base import Callback, Message
from payments_service.gateways.transport import Reply, Transport
from payments_service.refunds import RefundWish
from tests.house import House
from tests.scale import FULL
from tests.stripe_shop import Shop, open_service
from tests.test_crash_points import MOST_STEPS, Crash, FaultyDatabase, Steps


@dataclass
class CutDatabase(FaultyDatabase):
    """Transactions are durable steps too."""

    @asynccontextmanager
    async def as_tenant(self, client_id: UUID) -> AsyncIterator[AsyncConnection]:
        async def begin() -> None:
            """Nothing is durable before the end."""

        if self.steps.after:
            async with self.real.as_tenant(client_id) as connection:
                yield connection
            await self.steps.take("transaction", begin, Unavailable("the connection broke"))
            return
        await self.steps.take("transaction", begin, Unavailable("the connection broke"))
        async with self.real.as_tenant(client_id) as connection:
            yield connection


@dataclass
class CutTransport:
    real: Transport
    steps: Steps

    async def request(self, what: str, *arguments: Any, **more: Any) -> Reply:
        return await self.steps.take(
            what, lambda: self.real.request(what, *arguments, **more), Ambiguous("no answer came")
        )


def cut(shop: Shop, steps: Steps) -> Context:
    transport = cast(Transport, CutTransport(shop.world.courier.transport, steps))
    database = cast(Database, CutDatabase(shop.world.context.db, steps))
    return replace(shop.world.context, db=database, gateways=registry.build(transport, shop.world.settings))


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


async def recover(shop: Shop) -> None:
    """Another process takes over, after the leases and the graces."""
    for seconds in (0, 31, 61, 61):
        shop.forward(seconds=seconds)
        await shop.look()


def check(shop: Shop, payment: Any) -> None:
    """What Stripe has given back stands in the payment; no refund is left in between; the books balance."""
    given = shop.given_back(payment)
    assert shop.now(payment) == ("partially_refunded" if given else "paid", given)
    states = shop.world.rows("SELECT state FROM refunds WHERE payment_id = %s", payment["id"])
    assert {row["state"] for row in states} <= {"succeeded", "failed"}
    told = shop.told(payment)
    assert told == ["link_created", "paid", *(["partially_refunded"] if given else [])]


# --- what is interrupted: whatever is there before, the act, and what comes by itself after it

Act = Callable[[Shop, Context, Any], Awaitable[object]]


async def give_back(shop: Shop, context: Context, payment: Any) -> None:
    await refunds.refund(context, shop.client_id, UUID(payment["id"]), RefundWish("torn", 250), actor="test")


async def told_of_a_refund(shop: Shop, context: Context, payment: Any) -> None:
    if not shop.given_back(payment):
        await shop.stripe.refund(shop.reference(payment), 250, send=False)
    for kind in ("charge.refunded", "refund.created"):
        await proofs.take(context, shop.client_id, "stripe", genuine(shop, payment, kind))


async def swept(shop: Shop, context: Context, payment: Any) -> None:
    if not shop.given_back(payment):
        await shop.stripe.refund(shop.reference(payment), 250, send=False)
    turn = {"id": 0, "client_id": shop.client_id, "gateway": "stripe", "swept_to": shop.world.clock()}
    shop.forward(seconds=2)
    await sweeps.sweep(context, turn)


def genuine(shop: Shop, payment: Any, kind: str) -> Callback:
    body, header = shop.stripe.signed(shop.event(payment, kind), shop.secret)
    gateway = shop.world.context.gateways["stripe"]
    credentials = gateway.credentials(
        {"stripe_secret_key": shop.account.key, "stripe_webhook_secret": shop.secret}, next(iter(gateway.currencies))
    )
    callback = gateway.read_callback(credentials, Message(body, {"stripe-signature": header}, shop.world.clock()))
    assert callback is not None
    return callback


# Whether the act comes again by itself: Stripe sends a webhook until it is taken, and a sweep asks again.
ACTS: dict[str, tuple[Act, bool]] = {
    "refund": (give_back, False),
    "webhooks": (told_of_a_refund, True),
    "sweep": (swept, True),
}


@pytest.mark.parametrize("act", ACTS)
async def test_whatever_step_is_cut_off_the_rest_follows(service: House, act: str) -> None:
    """Each act is cut off after its first step, its second and so on, until it passes through; whole, also before."""
    begin, again = ACTS[act]
    for after in (False, True) if FULL else (True,):
        for number in range(1, MOST_STEPS):
            shop = await Shop.open(service)
            shop.stripe.drop_webhooks = True
            payment = await shop.link()
            await shop.stripe.pay(shop.reference(payment))
            shop.forward(seconds=11)
            await shop.look()
            steps = Steps(number, after, dies=True)
            with suppress(Crash, PaymentsError):
                await begin(shop, cut(shop, steps), payment)
            if again:
                await begin(shop, shop.world.context, payment)
            await recover(shop)
            check(shop, payment)
            if steps.passed:
                break
        assert steps.passed
        assert len(steps.taken) > 4


async def test_a_withdrawal_that_is_cut_off(service: House) -> None:
    """Before and after each step: in the end the session is over and nothing of it was told."""
    for number in range(1, MOST_STEPS):
        shop = await Shop.open(service)
        payment = await shop.link()
        answer = await shop.house.call("POST", shop.house.path(f"/payments/{payment['id']}/cancel"))
        assert answer.status == 200
        steps = Steps(number, after=bool(number % 2), dies=True)
        with suppress(Crash, PaymentsError):
            await reconcile.run_once(cut(shop, steps), "stripe")
        await recover(shop)
        assert [each["status"] for each in shop.account.all("checkout.session")] == ["expired"], steps
        assert shop.told(payment) == ["link_created", "cancelled"], steps
        if steps.passed:
            break
    assert len(steps.taken) > 4
