"""A crash, or a lost answer, after every durable step of an EcoCash prompt, of Paynow standing in for it, of a code of
InnBucks' and of a refund by EcoCash: the rest follows, and nobody is prompted twice.

A crash before a step is the crash after the one before it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID

import pytest
import pytest_asyncio

from payments_service import checkout, refunds
from payments_service.checkout import Choice
from payments_service.context import Context
from payments_service.db import Database
from payments_service.errors import Ambiguous, PaymentsError
from payments_service.gateways import registry
from payments_service.gateways.transport import Reply, Transport
from payments_service.refunds import RefundWish
from tests.every_gateway import ECOCASH, INNBUCKS, Begun, Desk, Lane, money_at, one_clock, without_callbacks
from tests.house import House, World
from tests.scale import ways_to_break_off
from tests.support import afresh, open_house
from tests.test_crash_points import MOST_STEPS, Crash, Steps
from tests.test_stripe_crash_points import CutDatabase

PHONE = "077 412 3456"
NUMBER = "0774123456"
OPEN_API, EIP, PORTAL = ECOCASH
LOST = Ambiguous("no answer came")


@dataclass
class CutTransport:
    """Every call to a gateway is a durable step: it may have done its work."""

    real: Transport
    steps: Steps

    async def request(self, *arguments: Any, **more: Any) -> Reply:
        return await self.steps.take(arguments[0], lambda: self.real.request(*arguments, **more), LOST)

    async def post(self, *arguments: Any, **more: Any) -> Reply:
        return await self.steps.take(arguments[0], lambda: self.real.post(*arguments, **more), LOST)


def cut(world: World, steps: Steps) -> Context:
    """The service's parts, interrupted at a step."""
    transport = cast(Transport, CutTransport(world.courier.transport, steps))
    database = cast(Database, CutDatabase(world.context.db, steps))
    return replace(world.context, db=database, gateways=registry.build(transport, world.settings))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        one_clock(house.world)
        house.world.ecocash.prompt_seconds = 86_400
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def desks(service: House) -> dict[str, Desk]:
    return {lane.dialect: await Desk.open(service, lane.dialect) for lane in ECOCASH}


async def stage(service: House) -> None:
    """Nothing of what was before is looked at any more, and no phone has a prompt."""
    afresh(service)
    without_callbacks(service.world)
    service.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years' WHERE state <> 'starting'")
    service.world.rows_do("UPDATE attempts SET state = 'failed', next_check_at = NULL WHERE state = 'starting'")
    for merchant in service.world.ecocash.merchants:
        merchant.active = True


def prompts(world: World) -> int:
    """How often the customer's phone was asked, by whichever gateway."""
    return world.ecocash.prompts[f"263{NUMBER[1:]}"] + world.sandbox.prompts[NUMBER]


async def tap(context: Context, begun: Begun) -> None:
    """A fresh page's form, some seconds after the last look."""
    begun.world.clock.forward(seconds=5)
    token = begun.payment["page_url"].rpartition("/")[2]
    with suppress(Crash, PaymentsError):
        await checkout.pay(context, token, Choice(begun.lane.way, PHONE))


async def recover(begun: Begun, seconds: float) -> None:
    """Another process takes over after so long."""
    begun.world.clock.forward(seconds=seconds)
    await begun.desk.look()


# --- to pay


async def pay_what_is_there(begun: Begun) -> None:
    """The customer answers the prompt, or types the code that the page shows."""
    world = begun.world
    for charge in world.ecocash.charges:
        if charge.prompting and charge.msisdn.endswith(NUMBER[1:]):
            await world.ecocash.pay(charge.correlator)
    for transaction in world.sandbox.transactions:
        if transaction.open and transaction.phone == NUMBER:
            await world.sandbox.approve(transaction.reference)
    for row in begun.attempts:
        if row["gateway"] == "innbucks" and row["state"] == "live":
            await world.innbucks.pay_code(row["next_step"]["code"])


async def check_begun(begun: Begun) -> None:
    """What was cut off comes to its end: who has a prompt gets no other, who has none gets one; the money counts."""
    await recover(begun, 31)
    before = prompts(begun.world)
    assert before <= 1
    await tap(begun.world.context, begun)
    assert not before or prompts(begun.world) == before
    if begun.lane != INNBUCKS and not prompts(begun.world):
        # No gateway tells what became of the try: after ten minutes nothing of it can be on a phone.
        await recover(begun, 660)
        await tap(begun.world.context, begun)
    assert prompts(begun.world) == (begun.lane != INNBUCKS)
    await recover(begun, 31)
    await pay_what_is_there(begun)
    await recover(begun, 31)
    assert begun.row["status"] == "paid"
    assert begun.told == ["link_created", "paid"]
    names = [str(row["id"]) if row["gateway"] == "ecocash" else row["reference"] for row in begun.attempts]
    assert sum(name in money_at(begun.world) for name in names) == 1
    made = [code for code in begun.world.innbucks.codes if code.reference in names]
    assert len({code.reference for code in made}) == len(made)


async def refused(begun: Begun) -> None:
    """EcoCash takes nothing from this merchant."""
    dialect = begun.lane.dialect
    for merchant in begun.world.ecocash.merchants:
        merchant.active = merchant.dialect != dialect


async def nothing(_begun: Begun) -> None:
    pass


Prepare = Callable[[Begun], Awaitable[None]]
WAYS: dict[str, tuple[Lane, Prepare]] = {
    "prompt, open_api": (OPEN_API, nothing),
    "prompt, eip": (EIP, nothing),
    "prompt, eip_portal": (PORTAL, nothing),
    "Paynow stands in": (OPEN_API, refused),
    "code": (INNBUCKS, nothing),
}


@pytest.mark.parametrize("way", WAYS)
async def test_whatever_step_of_a_start_is_cut_off_the_rest_follows(
    service: House, desks: dict[str, Desk], way: str
) -> None:
    lane, prepare = WAYS[way]

    async def start(steps: Steps) -> None:
        payment = await desks[lane.dialect].link(gateway=None if prepare is refused else lane.gateway)
        begun = Begun(desks[lane.dialect], lane, payment, PHONE)
        await prepare(begun)
        await tap(cut(service.world, steps), begun)
        await check_begun(begun)

    await cut_off_everywhere(service, start)


async def cut_off_everywhere(service: House, act: Callable[[Steps], Awaitable[None]]) -> None:
    """Whatever is done, cut off at its first step, its second and so on, until it passes through."""
    for way in ways_to_break_off():
        for number in range(1, MOST_STEPS):
            await stage(service)
            steps = Steps.cut(number, way)
            try:
                await act(steps)
            except AssertionError as error:
                error.add_note(str(steps))
                raise
            if steps.passed:
                break
        assert steps.passed
        assert len(steps.taken) > 5


# --- to give back


@pytest.mark.parametrize("lane", ECOCASH, ids=str)
async def test_whatever_step_of_a_refund_is_cut_off_the_rest_follows(
    service: House, desks: dict[str, Desk], lane: Lane
) -> None:
    """It was done once or not at all, and what was done counts. What never got there stays open: EcoCash gives no
    proof of that."""

    async def give_back(steps: Steps) -> None:
        begun = await desks[lane.dialect].begin(lane)
        await begun.pay()
        await recover(begun, 31)
        with suppress(Crash, PaymentsError):
            await refunds.refund(
                cut(service.world, steps),
                begun.desk.house.client_id,
                UUID(begun.payment["id"]),
                RefundWish("torn", 250),
                actor="test",
            )
        await recover(begun, 31)
        await recover(begun, 61)
        check_refund(begun)

    await cut_off_everywhere(service, give_back)


def check_refund(begun: Begun) -> None:
    given = begun.world.ecocash.find(begun.name).refunds
    assert len(given) == begun.world.ecocash.calls["refund"] <= 1
    cents = sum(int(one.amount * 100) for one in given)
    assert (begun.row["status"], begun.row["refunded_cents"]) == ("partially_refunded" if given else "paid", cents)
    states = begun.world.rows("SELECT state FROM refunds WHERE payment_id = %s", begun.id)
    assert {row["state"] for row in states} <= ({"succeeded"} if given else {"requested"})
    assert begun.told == ["link_created", "paid", *(["partially_refunded"] if given else [])]
