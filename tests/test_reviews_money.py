"""Reviews that are resolved while the money goes back, is contested, or came twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg
import pytest
import pytest_asyncio

from payments_service.errors import WrongState
from payments_service.lifecycle import DisputeState, Outcome, RefundState, Report, Settlement, Status
from payments_service.money import Currency, Money
from payments_service.records import Payment, Resolution
from payments_service.refunds import RefundWish
from payments_service.refunds import refund as give_back
from payments_service.reviews import resolve
from tests.house import House, eventually
from tests.support import afresh, open_house
from tests.till import ASKED, Till, dispute, refund, settled

WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def till(service: House) -> Till:
    return Till(afresh(service).world)


async def pay_again(till: Till) -> UUID:
    """A second payment of the link, which a person is asked about."""
    other = uuid4()
    till.add_attempt(other, "INV-1-OTHER")
    news = Report(Outcome.PAID, "paid", ASKED, reference="INV-1-OTHER", gateway_reference="pi_2")
    await till.absorb(news, attempt_id=other)
    assert till.now[0] == "review"
    return other


async def decide(till: Till, decided: Status) -> Payment:
    resolution = Resolution(decided, "seen on the statement")
    return await resolve(till.world.context, till.client_id, till.payment_id, resolution, actor="thandi")


async def test_who_got_all_back_and_paid_again_has_paid(till: Till) -> None:
    """The second money is the payment's then: it can be refunded, and news of the first change nothing."""
    await till.absorb(till.paid(), settled(refund("re_1", 1250)))
    second = await pay_again(till)
    payment = await decide(till, Status.PAID)
    assert (payment.status, payment.refunded_cents, payment.gateway_reference) == (Status.PAID, 0, "pi_2")
    await till.absorb(till.paid(Settlement((refund("re_1", 1250),), complete=True)))
    assert till.now == ("paid", 0)
    await till.absorb(settled(refund("re_2", 300)), attempt_id=second)
    assert till.now == ("partially_refunded", 300)
    till.check_books()


async def test_who_got_all_back_on_the_gateways_word_alone_and_paid_again_has_paid(till: Till) -> None:
    await till.absorb(till.paid(), Report(Outcome.REFUNDED, "Refunded", ASKED, till.reference, till.intent))
    await pay_again(till)
    payment = await decide(till, Status.PAID)
    assert (payment.status, payment.refunded_cents, payment.gateway_reference) == (Status.PAID, 0, "pi_2")


async def test_money_without_a_name_that_counted_still_counts(till: Till) -> None:
    """What came on top of it has a name, but is not the payment's money."""
    await till.absorb(Report(Outcome.PAID, "paid", ASKED, till.reference), settled(refund("re_1", 300)))
    await pay_again(till)
    payment = await decide(till, Status.PAID)
    shown = (payment.status, payment.refunded_cents, payment.gateway_reference)
    assert shown == (Status.PARTIALLY_REFUNDED, 300, None)
    till.check_books()


async def test_what_a_person_gave_back_stays_given_back(till: Till) -> None:
    """A gateway that itemises its refunds does not know of it. What the customer contests is shown all the same, until
    it is over."""
    odd = Report(Outcome.PAID, "paid", Money(1251, Currency.USD), till.reference, till.intent)
    await till.absorb(odd)
    await decide(till, Status.REFUNDED)
    look = Settlement(complete=True)
    await till.absorb(Report(Outcome.PAID, "paid", odd.amount, till.reference, till.intent, settlement=look))
    assert till.now == ("refunded", 1250)
    await till.absorb(settled(disputes=[dispute(1250, DisputeState.OPEN)]))
    assert till.now == ("disputed", 1250)
    with pytest.raises(WrongState, match="All of this payment is refunded already"):
        await give_back(till.world.context, till.client_id, till.payment_id, RefundWish("torn"), actor="thandi")
    await till.absorb(settled(disputes=[dispute(1250, DisputeState.WON)]))
    assert till.now == ("refunded", 1250)
    till.check_books()


async def test_a_person_may_know_of_money_that_no_gateway_told_of(till: Till) -> None:
    await till.absorb(Report(Outcome.UNCLEAR, "HELD"))
    payment = await decide(till, Status.PAID)
    assert (payment.status, payment.refunded_cents, payment.gateway_reference) == (Status.PAID, 0, None)
    till.check_books()


async def test_a_dispute_over_another_payments_money_holds_nothing_up(till: Till) -> None:
    """Its end would never be told to this one."""
    await till.absorb(till.paid())
    other = Till(till.world, client_id=till.client_id, reference="INV-2")
    await other.absorb(other.paid(Settlement(disputes=(dispute(1250, DisputeState.OPEN),))))
    assert other.now == ("review", 0)
    payment = await decide(other, Status.PAID)
    assert (payment.status, payment.gateway_reference) == (Status.PAID, None)


async def test_of_two_decisions_about_one_reference_both_are_written(till: Till) -> None:
    """Another payment takes the reference while the decision is written: it is the other's, and this one is paid."""
    odd = Money(1251, Currency.USD)
    await till.absorb(Report(Outcome.PAID, "paid", odd, till.reference, till.intent))
    other = Till(till.world, client_id=till.client_id, reference="INV-2")
    async with await psycopg.AsyncConnection.connect(till.world.database) as taker:
        await taker.execute(
            "UPDATE payments SET gateway = 'stripe', gateway_reference = %s WHERE id = %s",
            (till.intent, other.payment_id),
        )
        deciding = asyncio.create_task(decide(till, Status.PAID))
        await eventually(lambda: till.world.rows(WAITING))
        await taker.commit()
    payment = await deciding
    assert (payment.status, payment.gateway_reference) == (Status.PAID, None)
    assert till.told[-1] == ("paid", 0)


async def test_a_refund_that_ends_while_a_person_decides_counts(till: Till) -> None:
    """Its news found the payment in review still, and the decision was made without it."""
    await till.absorb(till.paid(), settled(refund("re_1", 300, RefundState.PENDING)))
    await pay_again(till)
    key = f"audit:{till.client_id}"
    async with await psycopg.AsyncConnection.connect(till.world.database) as other:
        # The decision is written, but not yet committed.
        await other.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
        deciding = asyncio.create_task(decide(till, Status.PAID))
        await eventually(lambda: till.world.rows(WAITING))
        await till.absorb(settled(refund("re_1", 300)))
        assert till.now == ("review", 0)
    payment = await deciding
    assert (payment.status, payment.refunded_cents) == (Status.PARTIALLY_REFUNDED, 300)
    assert till.told[-2:] == [("paid", 0), ("partially_refunded", 300)]
    till.check_books()
