"""News of refunds that do not fit at first sight: names that are taken, and money that a person had to judge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from payments_service.lifecycle import DisputeState, RefundReport, RefundState, Settlement
from tests.house import House
from tests.support import open_house
from tests.test_settlements import ask
from tests.till import Till, dispute, refund, settled


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def paid(service: House) -> Till:
    till = Till(service.world)
    await till.absorb(till.paid())
    return till


# --- names


def known(till: Till) -> dict[Any, tuple[str | None, str]]:
    return {row["id"]: (row["gateway_reference"], row["state"]) for row in till.refunds()}


@pytest.mark.parametrize("state", ["requested", "failed"])
async def test_a_known_refund_takes_no_other_name_of_ours(paid: Till, state: str) -> None:
    """Made in the dashboard, and later somebody wrote the id of ours into its metadata: both stay what they are."""
    ours = ask(paid, 250, state=state)
    named = refund("re_1", 250, ours=ours)
    await paid.absorb(settled(refund("re_1", 250)), settled(named), paid.paid(Settlement((named,), complete=True)))
    found = known(paid)
    assert found.pop(ours) == (None, state)
    assert list(found.values()) == [("re_1", "succeeded")]
    assert paid.now == ("partially_refunded", 250)
    await paid.absorb(settled(refund("re_2", 100)))
    assert paid.now == ("partially_refunded", 350)


async def test_a_pending_refund_that_gets_another_name_is_one(service: House) -> None:
    """EcoCash names it anew once it is done: one row under the lasting name, given back once."""
    paid = Till(service.world, gateway="ecocash")
    await paid.absorb(paid.paid())
    ours = ask(paid, 250)
    passing = refund("T1", 250, RefundState.PENDING, ours)
    await paid.absorb(settled(passing), settled(refund("MP9.9.R1", 250, ours=ours)), settled(passing))
    assert known(paid)[ours] == ("MP9.9.R1", "succeeded")
    assert paid.now == ("partially_refunded", 250)


async def test_a_pending_refund_keeps_its_name_beside_another(paid: Till) -> None:
    """Of one made in the dashboard, with the id of ours in its metadata, both are on their way: both are on record."""
    ours = ask(paid, 250)
    one, other = (refund(name, 250, RefundState.PENDING, ours) for name in ("re_1", "re_2"))
    await paid.absorb(settled(one), settled(other), paid.paid(Settlement((one, other), complete=True)))
    assert known(paid)[ours] == ("re_1", "pending")
    assert sorted(row["gateway_reference"] for row in paid.refunds()) == ["re_1", "re_2"]


async def test_one_name_of_ours_for_two_refunds(paid: Till) -> None:
    """The first that comes is ours, the other one a refund of its own."""
    ours = ask(paid, 250)
    one, other = refund("re_1", 250, ours=ours), refund("re_2", 250, ours=ours)
    await paid.absorb(settled(one), settled(other), paid.paid(Settlement((one, other), complete=True)))
    assert known(paid)[ours] == ("re_1", "succeeded")
    assert paid.now == ("partially_refunded", 500)


async def test_all_of_it_at_once(service: House) -> None:
    """The answer to our call, its event and a look-up, with and without our id: one refund, whoever is first."""
    for _ in range(8):
        till = Till(service.world, intent=f"pi_{uuid4().hex}")
        await till.absorb(till.paid())
        ours, name = ask(till, 250), f"re_{uuid4().hex}"
        named, bare = refund(name, 250, ours=ours), refund(name, 250)
        reports = [settled(named), settled(bare), till.paid(Settlement((named,), complete=True))] * 2
        await asyncio.gather(*(till.absorb(report) for report in reports))
        assert till.now == ("partially_refunded", 250)
        assert [name for name, _ in known(till).values()].count(name) == 1
        till.check_books()


# --- once a person has judged


@pytest.fixture
async def twice(paid: Till) -> tuple[Till, UUID]:
    """Paid by two tries, and the person kept the first; the other's id."""
    second, reference = uuid4(), f"INV-1-{uuid4().hex[:8]}"
    paid.add_attempt(second, reference)
    await paid.absorb(paid.paid(reference=reference, gateway_reference="pi_2"), attempt_id=second)
    assert paid.now == ("review", 0)
    paid.world.rows_do("UPDATE payments SET status = 'paid' WHERE id = %s", paid.payment_id)
    return paid, second


@pytest.mark.parametrize("by_event", [False, True])
@pytest.mark.damaged("statuses and rows are set by hand")
async def test_what_becomes_of_money_that_was_judged_is_told(twice: tuple[Till, UUID], by_event: bool) -> None:
    """By look-ups as by events: a part, a dispute, its end, all."""
    till, _ = twice
    part, rest = refund("re_1", 250), refund("re_2", 600)
    steps: list[tuple[tuple[RefundReport, ...], DisputeState | None, tuple[str, int]]] = [
        ((), None, ("paid", 0)),
        ((part,), None, ("partially_refunded", 250)),
        ((part,), DisputeState.OPEN, ("disputed", 250)),
        ((part, rest), DisputeState.WON, ("partially_refunded", 850)),
        ((part, rest), DisputeState.LOST, ("partially_refunded", 850)),
    ]
    for refunds, state, after in steps:
        disputes = (dispute(400, state),) if state else ()
        told = settled(*refunds, disputes=disputes)
        await till.absorb(told if by_event else till.paid(Settlement(refunds, disputes, complete=True)))
        assert till.now == after


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_what_becomes_of_the_other_money_is_not(twice: tuple[Till, UUID]) -> None:
    """It is not the payment's; and no look-up at it asks the person again."""
    till, second = twice
    row = till.world.one("SELECT reference FROM attempts WHERE id = %s", second)
    names = {"reference": row["reference"], "gateway_reference": "pi_2"}
    news = till.paid(Settlement((refund("re_9", 1250),), complete=True), **names)
    for _ in range(2):
        await till.absorb(news, attempt_id=second)
        assert till.now == ("paid", 0)
    assert len(till.world.rows("SELECT FROM reviews WHERE payment_id = %s", till.payment_id)) == 1
