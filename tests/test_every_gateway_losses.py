"""A fifth of all answers is lost after the gateway has done the work: on starts and on look-ups, at every gateway.

Nobody is asked twice for one try, whatever is lost and however often the customer taps; what was paid is found, and is
never called failed on the way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest_asyncio

from tests.every_gateway import (
    CARD,
    ECOCASH,
    INNBUCKS,
    LANES,
    WEB,
    Begun,
    Desk,
    Lane,
    known_at,
    money_at,
    one_clock,
    without_callbacks,
)
from tests.house import House, World
from tests.support import gather_limited, open_house
from tests.test_crash_points import Books

EACH = 10
SEED = 20
SHARE = 0.2
PHONE = "0773{:06d}"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as service:
        one_clock(service.world)
        # Who has a prompt answers it, however long we take to see it.
        service.world.ecocash.prompt_seconds = 3600
        yield service


def lose(world: World) -> None:
    """A fifth of the answers: by dice where the simulator has them, else of every fifth payment and call."""
    without_callbacks(world)
    for on in ("charge", "lookup"):
        world.ecocash.add_fault("reset", on=[on], share=SHARE, seed=SEED)
    for on in ("generate", "inquiry"):
        world.innbucks.add_fault("reset", on=[on], share=SHARE, seed=SEED)
    for number in range(0, len(LANES) * EACH, 5):
        on = ["initiate", "express"] if number % 2 else ["poll"]
        world.sandbox.add_fault("timeout_after_accepting", on=on, times=1, seconds=0.0, reference=f"LOSS-{number}")
    lose_stripe(world)


def lose_stripe(world: World) -> None:
    world.stripe.add_fault("reset", on=["sessions.create"], times=EACH // 5)
    world.stripe.add_fault("reset", on=["sessions.retrieve", "sessions.list"], times=EACH // 5)


class Customer:
    """Somebody who wants to pay in this way, taps more often than is needed, and pays or declines what comes up."""

    def __init__(self, desk: Desk, lane: Lane, number: int, dice: random.Random) -> None:
        self.desk, self.lane, self.number, self.dice = desk, lane, number, dice
        self.pays = dice.random() < 0.7
        self.acted = False
        self.begun: Begun | None = None

    async def come(self) -> None:
        """The link, and the first tap with its double."""
        gateway = self.lane.gateway if self.lane in (WEB, CARD) else None
        order = self.desk.house.order(gateway=gateway, reference=f"LOSS-{self.number}")
        answer = await self.desk.house.call("POST", self.desk.house.path("/payments/create-link"), order)
        # The backend is told which payment it is whose start was not answered.
        assert answer.status in (201, 504), answer.body
        payment_id = answer.json["id"] if answer.status == 201 else answer.json["payment_id"]
        shown = await self.desk.house.call("GET", self.desk.house.path(f"/payments/{payment_id}"))
        self.begun = Begun(self.desk, self.lane, shown.json, PHONE.format(self.number))
        await gather_limited(self.tap("0") for _ in range(3))

    async def tap(self, after: str | None = None) -> None:
        """The page's form: `after` as an old tab has it, else as a fresh page has."""
        assert self.begun
        if self.lane in (WEB, CARD) and after is not None:
            return
        tries = len(self.begun.attempts) if after is None else after
        answer = await self.desk.tap(self.begun.payment, self.lane.way, phone=self.begun.phone, after=str(tries))
        assert answer.status in (200, 303, 409), answer.body

    async def act(self) -> None:
        """What is there is paid or declined, once; a code that nobody was shown is asked for anew."""
        assert self.begun
        if self.acted:
            return
        await self.tap()  # where something is there, a reload that leads to the same
        if not any(row["state"] == "live" for row in self.begun.attempts):
            return
        self.acted = True
        await (self.begun.pay() if self.pays else self.begun.turn_down())

    @property
    def end(self) -> str:
        """What it comes to: a code that is left alone and a card that is declined leave the link open."""
        if self.pays:
            return "paid"
        return "pending" if self.lane in (INNBUCKS, CARD) else "failed"


async def look(world: World, dice: random.Random) -> None:
    """Half a minute of look-ups; what was paid is called failed at no moment."""
    for _ in range(3):
        world.clock.forward(seconds=10)
        for name in sorted(world.context.gateways, key=lambda _: dice.random()):
            await world.look_up(name)
        received = money_at(world)
        failed = world.rows("SELECT id, reference FROM attempts WHERE state = 'failed'")
        assert not [row for row in failed if str(row["id"]) in received or row["reference"] in received]


async def test_nobody_is_asked_twice_and_what_is_paid_is_found(house: House) -> None:
    """One charge, code, transaction or session for each try, at most; every payment ends as its customer meant it."""
    world, dice = house.world, random.Random(SEED)
    lose(world)
    desks = {lane: await Desk.open(house, lane.dialect) for lane in LANES}
    customers = [
        Customer(desks[lane], lane, place * EACH + number, dice)
        for place, lane in enumerate(LANES)
        for number in range(EACH)
    ]
    await gather_limited(customer.come() for customer in customers)
    lost = world.rows("SELECT gateway FROM attempts WHERE state = 'starting'")
    assert {row["gateway"] for row in lost} >= {"ecocash", "innbucks", "paynow"}
    for _ in range(6):
        await look(world, dice)
        lose_stripe(world)
        world.clock.forward(seconds=5)
        await gather_limited(customer.act() for customer in customers)
    await look(world, dice)
    check(world, customers)


def check(world: World, customers: list[Customer]) -> None:
    received = money_at(world)
    known = Counter(known_at(world))
    assert set(known.values()) == {1}
    for customer in customers:
        begun = customer.begun
        assert begun
        assert customer.acted
        assert begun.row["status"] == customer.end, (str(customer.lane), customer.number)
        names = [str(row["id"]) if row["gateway"] == "ecocash" else row["reference"] for row in begun.attempts]
        assert sum(name in received for name in names) == customer.pays
        # Only what nobody was shown, a code or the address of a page, is made a second time.
        assert len(names) == 1 or customer.lane in (INNBUCKS, WEB, CARD)
    prompts = world.ecocash.prompts + world.sandbox.prompts
    assert len(prompts) == (len(ECOCASH) + 1) * EACH
    assert set(prompts.values()) == {1}
    check_calls(world)
    Books.of(world.behind).check()


def check_calls(world: World) -> None:
    """Each start was sent once; Stripe's, which it knows by its key, may be sent again."""
    rows = world.rows("SELECT gateway, count(*) AS n FROM attempts GROUP BY 1")
    begun = {row["gateway"]: row["n"] for row in rows}
    assert world.ecocash.calls["charge"] == begun["ecocash"]
    assert world.innbucks.calls["generate"] == begun["innbucks"]
    assert world.sandbox.calls["initiate"] + world.sandbox.calls["express"] == begun["paynow"]
