"""Hundreds of payments over four gateways, and not one callback: each ends as it truly ended, within a minute of it.
Five hundred with PROOFS=full (`tests/scale.py`).

The service runs as it does in production: both listeners, all workers, the gateways' own schedules. Only its clock is
another, which stands still while the workers work off what is due and is then moved by seconds: so that a minute is
a minute of the schedules, whatever the machine does meanwhile. Nothing is shortened.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from tests.every_gateway import (
    CARD,
    DIALECTS,
    ECOCASH,
    INNBUCKS,
    ONEMONEY,
    WEB,
    Begun,
    Desk,
    Lane,
    Still,
    known_at,
    money_at,
    one_clock,
    without_callbacks,
)
from tests.house import House, World, eventually
from tests.scale import of
from tests.support import gather_limited
from tests.test_crash_points import Books

PAYMENTS = of(500, 100)
MINUTE = 60
STEP = 5


@dataclass(frozen=True)
class Fate:
    """What a customer does, so many seconds after having begun, and what the payment is then."""

    what: str
    ends: str
    at: int = 10
    late: bool = False

    async def play(self, begun: Begun) -> None:
        acts: dict[str, Callable[[], Awaitable[None]]] = {
            "pays": begun.pay,
            "declines": begun.turn_down,
            "mistypes": begun.mistype,
            "pays all the same": begun.pay_after_all,
        }
        if act := acts.get(self.what):
            await act()


PAYS, NEVER = Fate("pays", "paid"), Fate("hangs", "pending")
DECLINES, MISTYPES = Fate("declines", "failed"), Fate("mistypes", "failed")
LATER = Fate("pays", "paid", at=300)
# Its prompt ends by itself after a minute.
RUNS_OUT = Fate("is away", "failed", at=60)
# Its code ends by itself after ten minutes: the link stands.
LAPSES = Fate("is away", "pending", at=600)
PROMPT = (PAYS, DECLINES, PAYS, MISTYPES, RUNS_OUT, NEVER, PAYS, Fate("pays all the same", "paid", at=570, late=True))
FATES: dict[Lane, tuple[Fate, ...]] = {
    **dict.fromkeys(ECOCASH, PROMPT),
    INNBUCKS: (PAYS, LATER, LAPSES, Fate("pays all the same", "paid", at=680)),
    WEB: (PAYS, DECLINES, LATER, NEVER),
    ONEMONEY: (PAYS, DECLINES, MISTYPES, NEVER, LATER),
    CARD: (PAYS, Fate("declines", "pending"), LATER, NEVER),
}
PARTS = dict(zip(FATES, (*[of(80, 16)] * 4, *[of(60, 12)] * 3), strict=True))


@dataclass
class One:
    begun: Begun
    fate: Fate

    @property
    def key(self) -> str:
        return f"{self.begun.lane}: {self.fate.what} at {self.fate.at} s"


@pytest.fixture
async def house(world: World) -> AsyncIterator[House]:
    """The running service by a clock that stands still, whose gateways call nobody back."""
    world.clock = world.backend.clock = Still()
    world.context = replace(world.context, clock=world.clock)
    one_clock(world)
    without_callbacks(world)
    # Nor does it tell them what they missed.
    world.stripe.add_fault("error503_html", on=["events.list"])
    async with House.open(world) as service:
        yield service


# Claimed is what is due when its lease ends, half a minute from the moment at which it was claimed.
_OPEN = """
SELECT count(*) AS n FROM attempts
WHERE next_check_at <= %(at)s OR (last_checked_at = %(at)s AND next_check_at = %(at)s + interval '30 seconds')"""


async def quiet(world: World) -> None:
    """Wait until the workers have looked up all that is due by now."""
    values = {"at": world.clock()}
    await eventually(lambda: not world.behind.execute(_OPEN, values).fetchall()[0]["n"], seconds=120)


async def all_told(world: World) -> None:
    """Wait until the backend has every event. One that it did not take at once is sent again some seconds later."""

    def told() -> bool:
        world.clock.forward(seconds=1)
        return not world.rows("SELECT FROM events WHERE state = 'due' LIMIT 1")

    await eventually(told, seconds=60)


async def move(world: World, seconds: float) -> None:
    world.clock.forward(seconds=seconds)
    world.context.checks_due.ring()
    await quiet(world)


async def jump(world: World, until: float) -> None:
    """So many seconds after the start, with every schedule as far as it would be by then."""
    passed = world.clock.ahead.total_seconds()
    for name in world.context.gateways:
        ages = list(itertools.accumulate(world.context.schedule(name)))
        checks = sum(age <= until for age in ages)
        world.rows_do("UPDATE attempts SET checks = %s WHERE gateway = %s AND state = 'live'", checks, name)
    await move(world, until - passed)


async def begin_all(house: House) -> list[One]:
    desks = {dialect: await Desk.open(house, dialect) for dialect in DIALECTS}
    numbers = itertools.count()

    async def begin(lane: Lane, fate: Fate) -> One:
        desk = desks[lane.dialect]
        begun = await desk.begin(lane, amount_cents=1000 + next(numbers))
        if fate is NEVER:
            await begun.hang()
        return One(begun, fate)

    jobs = [
        begin(lane, fate)
        for lane, part in PARTS.items()
        for fate in itertools.islice(itertools.cycle(FATES[lane]), part)
    ]
    found: list[One] = await gather_limited(jobs)
    return found


def stands(world: World) -> dict[str, tuple[str, bool]]:
    rows = world.rows("SELECT id, status, late FROM payments")
    return {str(row["id"]): (row["status"], row["late"]) for row in rows}


def unlike(world: World, ones: list[One]) -> Counter[str]:
    """Those that are not yet what they truly are."""
    now = stands(world)
    return Counter(one.key for one in ones if now[one.begun.payment["id"]] != (one.fate.ends, one.fate.late))


async def within_a_minute(world: World, ones: list[One]) -> None:
    for _ in range(MINUTE // STEP):
        if not unlike(world, ones):
            return
        await move(world, STEP)
    assert not unlike(world, ones)


async def test_hundreds_of_payments_without_a_callback(house: House) -> None:
    """Paid, declined, a wrong PIN three times, no answer, a code that ran out, money after the end: every payment is
    within a minute of it what it is at the gateway, except late money, which is found when it is looked for (ten and
    twelve minutes after the start). None counts twice, every change has its one event."""
    world = house.world
    ones = await begin_all(house)
    assert len(ones) == PAYMENTS
    await quiet(world)
    acted: list[One] = []
    for at in sorted({one.fate.at for one in ones}):
        if at > world.clock.ahead.total_seconds():
            await jump(world, at)
        now = [one for one in ones if one.fate.at == at]
        await gather_limited(one.fate.play(one.begun) for one in now)
        acted += now
        await within_a_minute(world, acted)
    assert world.rows("SELECT FROM callbacks") == []
    check_books(world, ones)
    await all_told(world)
    Books.of(world.behind).check_told(world.backend)


def check_books(world: World, ones: list[One]) -> None:
    """Every change has one event; what is paid is what the gateways have, payment by payment; each try is known once,
    and no two payments have the same gateway reference."""
    Books.of(world.behind).check()
    received = money_at(world)
    paid = {row["id"]: row for row in world.rows("SELECT * FROM payments WHERE status = 'paid'")}
    assert sum(row["amount_cents"] for row in paid.values()) == sum(received.values())
    for one in ones:
        assert (one.begun.id in paid) == (one.begun.name in received), one.key
    for one in ones:
        if one.begun.id in paid:
            assert paid[one.begun.id]["amount_cents"] == received[one.begun.name]
    names = {one.begun.name for one in ones}
    assert Counter(known_at(world)) == dict.fromkeys(names, 1)
    assert {one.begun.attempt["state"] for one in ones if one.fate is LAPSES} == {"failed"}
    references = Counter((row["gateway"], row["gateway_reference"]) for row in paid.values())
    assert set(references.values()) == {1}
    assert all(reference for _, reference in references)
