"""What became of money that came, through the real tables: refunds, disputes and sums as a gateway tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from hypothesis import Phase, given, settings

from payments_service import payments
from payments_service.db import Database
from payments_service.errors import Unavailable
from payments_service.lifecycle import DisputeState, Outcome, RefundReport, RefundState, Report, Settlement, Status
from payments_service.money import Currency, Money
from tests.house import House
from tests.support import open_house
from tests.test_lifecycle import OURS
from tests.test_lifecycle_money import Facts, deliveries
from tests.till import Till, dispute, refund, settled

PENDING, FAILED = RefundState.PENDING, RefundState.FAILED


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
def till(service: House) -> Till:
    return Till(service.world)


@pytest.fixture
async def paid(till: Till) -> Till:
    await till.absorb(till.paid())
    assert till.now == ("paid", 0)
    return till


# --- any order


def examples(count: int) -> list[tuple[Facts, list[Report]]]:
    """So many random stories with the order in which their news come."""
    found = []

    @settings(max_examples=count, deadline=None, database=None, phases=[Phase.generate])
    @given(deliveries())
    def collect(told: tuple[Facts, list[Report]]) -> None:
        found.append(told)

    collect()
    return found


async def absorbed(till: Till, report: Report) -> None:
    """As the gateway sends it: again, until it is taken."""
    for _ in range(20):
        try:
            return await till.absorb(report)
        except Unavailable:
            await asyncio.sleep(0.02)
    raise AssertionError("never taken")


@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "all at once"])
async def test_the_order_of_the_news_does_not_matter(service: House, at_once: bool) -> None:
    """Random stories of refunds and disputes, told in any order and many times over, end as they truly ended; and every
    step has its one transition and its one event."""
    for happened, reports in examples(40):
        till = Till(service.world, reference=OURS)
        if at_once:
            await asyncio.gather(*(absorbed(till, report) for report in reports))
        else:
            await till.absorb(*reports)
        assert till.now == happened.end, reports
        till.check_books()


@dataclass
class Interrupted:
    """A database at which, just before a payment is first written, other news are absorbed."""

    till: Till
    news: Report
    over: bool = False

    async def run(self, sql: str, values: Any, *, tenant: UUID | None = None) -> Any:
        if "UPDATE payments" in sql and not self.over:
            self.over = True
            await self.till.absorb(self.news)
        return await self.till.world.context.db.run(sql, values, tenant=tenant)


@pytest.mark.parametrize("first", ["refund", "payment"])
async def test_news_between_our_look_and_our_write(till: Till, first: str) -> None:
    """They saw the payment as it was before, and no reason to move it; what they kept counts all the same."""
    if first == "refund":
        await till.absorb(till.paid())
        report, news, after = settled(refund("re_1", 414)), settled(refund("re_1", 414, FAILED)), ("paid", 0)
    else:
        report, news, after = till.paid(), settled(refund("re_1", 250)), ("partially_refunded", 250)
    context = replace(till.world.context, db=cast(Database, Interrupted(till, news)))
    await payments.absorb(context, till.attempt_id, report, next_check_at=till.much_later)
    assert till.now == after
    till.check_books()


# --- sums


async def test_a_sum_alone_says_what_was_given_back(paid: Till) -> None:
    """charge.refunded without any refund's own event: a part, then all."""
    await paid.absorb(settled(total=500), settled(total=500), settled(total=1250))
    assert paid.told == [("paid", 0), ("partially_refunded", 500), ("refunded", 1250)]
    paid.check_books()


@pytest.mark.parametrize("sum_first", [False, True])
async def test_a_refund_is_not_counted_twice(paid: Till, sum_first: bool) -> None:
    """The sum and the refund that is in it, in either order, are one change."""
    news = [settled(refund("re_1", 500)), settled(total=500)]
    await paid.absorb(*(reversed(news) if sum_first else news))
    assert paid.told == [("paid", 0), ("partially_refunded", 500)]


async def test_sums_in_the_wrong_order_never_lead_back(paid: Till) -> None:
    """An older sum that comes late says nothing new."""
    first, second = refund("re_1", 300), refund("re_2", 200)
    await paid.absorb(settled(total=500), settled(total=300), settled(second), settled(first))
    assert paid.told == [("paid", 0), ("partially_refunded", 500)]


async def test_a_pending_refund_in_the_sum_is_not_given_back_yet(paid: Till) -> None:
    """Stripe's sum holds pending refunds too: known ones are taken out of it until they succeed."""
    await paid.absorb(settled(refund("re_1", 500, PENDING)), settled(total=500))
    assert paid.now == ("paid", 0)
    await paid.absorb(settled(refund("re_1", 500)))
    assert paid.told == [("paid", 0), ("partially_refunded", 500)]


async def test_a_sum_with_a_refund_that_we_asked_for_waits_for_its_answer(paid: Till) -> None:
    """The sum is told before our call returned: whether the refund is pending only its own news say."""
    ours = ask(paid, 500)
    await paid.absorb(settled(total=500), settled(refund("re_1", 500, PENDING, ours)))
    assert paid.told == [("paid", 0)]
    await paid.absorb(settled(refund("re_1", 500, ours=ours)), settled(total=700))
    assert paid.told == [("paid", 0), ("partially_refunded", 500), ("partially_refunded", 700)]


async def test_a_sum_that_came_before_its_pending_refund_is_taken_back(paid: Till) -> None:
    """Of a sum alone nobody can tell that its refund is pending; the refund's own event corrects it."""
    await paid.absorb(settled(total=500), settled(refund("re_1", 500, PENDING)))
    assert paid.told == [("paid", 0), ("partially_refunded", 500), ("paid", 0)]


async def test_a_sum_from_before_a_refund_failed_is_old_news(paid: Till) -> None:
    await paid.absorb(settled(refund("re_1", 500)), settled(total=500), settled(refund("re_1", 500, FAILED)))
    assert paid.now == ("paid", 0)
    await paid.absorb(settled(total=500), settled(refund("re_1", 500)), settled(refund("re_1", 500, PENDING)))
    assert paid.now == ("paid", 0)


async def test_a_complete_look_up_ends_the_sum(paid: Till) -> None:
    """All refunds are known then, so that a sum which a failed refund has made wrong counts no more."""
    await paid.absorb(settled(total=500))
    failed, other = refund("re_1", 500, FAILED), refund("re_2", 200)
    await paid.absorb(paid.paid(Settlement((failed, other), complete=True)))
    assert paid.told == [("paid", 0), ("partially_refunded", 500), ("partially_refunded", 200)]
    await paid.absorb(settled(total=500), paid.paid(Settlement((failed, other), complete=True)))
    assert paid.now == ("partially_refunded", 200)


async def test_a_look_up_that_is_older_than_a_sum_takes_nothing_back(paid: Till) -> None:
    """Its answer was under way when the refund was made."""
    await paid.absorb(settled(total=500), paid.paid(Settlement(complete=True)), settled(refund("re_1", 500)))
    assert paid.told == [("paid", 0), ("partially_refunded", 500)]


# --- refunds


async def test_two_parts_are_two_events(paid: Till) -> None:
    """Each part that is given back is told, with the exact sum by then."""
    await paid.absorb(settled(refund("re_1", 250)), settled(refund("re_2", 251)))
    assert paid.told == [("paid", 0), ("partially_refunded", 250), ("partially_refunded", 501)]
    assert [event["data"]["previous_status"] for event in paid.events][-1] == "partially_refunded"
    paid.check_books()


async def test_a_refund_that_fails_after_it_succeeded(paid: Till) -> None:
    """The payment is paid again: told as payment.paid, with `refunded` as the status before; paid_at stays."""
    paid_at = paid.row["paid_at"]
    await paid.absorb(settled(refund("re_1", 1250)), settled(refund("re_1", 1250, FAILED)))
    assert paid.told == [("paid", 0), ("refunded", 1250), ("paid", 0)]
    assert paid.events[-1]["data"]["previous_status"] == "refunded"
    assert (paid.row["paid_at"], paid.row["late"]) == (paid_at, False)
    # A late copy of the completed session is no news.
    await paid.absorb(paid.paid())
    paid.check_books()
    assert paid.row["sequence"] == 4


async def test_a_refund_known_before_the_payment(till: Till) -> None:
    """News of refunds alone are no proof of money; once it is proved, it is partially refunded directly, and paid_at
    is set."""
    await till.absorb(settled(refund("re_1", 250)), settled(total=250))
    assert till.now == ("pending", 0)
    await till.absorb(till.paid())
    assert till.told == [("partially_refunded", 250)]
    assert till.events[0]["data"]["previous_status"] == "pending"
    assert till.events[0]["data"]["paid_at"] is not None
    assert till.row["paid_at"] is not None


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_a_late_payment_that_was_refunded_already(till: Till) -> None:
    """Money after the end that went back at once is late, and refunded."""
    till.world.rows_do("UPDATE payments SET status = 'expired' WHERE id = %s", till.payment_id)
    await till.absorb(settled(refund("re_1", 1250)), till.paid())
    assert till.told == [("refunded", 1250)]
    assert till.row["late"]


async def test_more_given_back_than_was_paid_counts_as_all(paid: Till) -> None:
    """A lost dispute on top of refunds: the sum stops at the amount."""
    await paid.absorb(settled(refund("re_1", 1000)), settled(disputes=[dispute(1250, DisputeState.LOST)]))
    assert paid.now == ("refunded", 1250)


async def test_a_refund_in_another_currency_goes_to_a_person(paid: Till) -> None:
    """It cannot be counted: a review with the evidence, asked once; no row is kept of it."""
    odd = RefundReport("re_1", Money(250, Currency.ZIG), RefundState.SUCCEEDED)
    await paid.absorb(settled(odd), settled(odd))
    assert paid.told == [("paid", 0), ("review", 0)]
    review = paid.world.one("SELECT * FROM reviews WHERE payment_id = %s", paid.payment_id)
    assert review["reason"] == "currency_mismatch"
    assert review["evidence"]["refunds"] == [{"gateway_reference": "re_1", "amount_cents": 250, "state": "succeeded"}]
    assert paid.refunds() == []


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_a_refund_of_the_second_payment_leaves_the_first(paid: Till) -> None:
    """Two attempts were paid and a person kept the first: giving back the second changes nothing, the first does."""
    second = uuid4()
    paid.add_attempt(second, "INV-1-SECOND22")
    await paid.absorb(paid.paid(reference="INV-1-SECOND22", gateway_reference="pi_2"), attempt_id=second)
    assert paid.now == ("review", 0)
    paid.world.rows_do("UPDATE payments SET status = 'paid' WHERE id = %s", paid.payment_id)
    await paid.absorb(settled(refund("re_2", 1250)), attempt_id=second)
    assert paid.now == ("paid", 0)
    await paid.absorb(settled(refund("re_1", 250)))
    assert paid.now == ("partially_refunded", 250)


async def test_a_review_keeps_news_of_refunds_for_later(paid: Till) -> None:
    """What a person must judge no refund moves, but it is on record when it is judged."""
    paid.world.rows_do("UPDATE payments SET status = 'review' WHERE id = %s", paid.payment_id)
    await paid.absorb(settled(refund("re_1", 250)))
    assert paid.now == ("review", 0)
    paid.world.rows_do("UPDATE payments SET status = 'paid' WHERE id = %s", paid.payment_id)
    await paid.absorb(paid.paid(Settlement((refund("re_1", 250),), complete=True)))
    assert paid.now == ("partially_refunded", 250)


# --- whose refund it is


def ask(till: Till, cents: int, **changes: object) -> UUID:
    """A refund as the backend asked for it, its answer not yet known."""
    refund_id = uuid4()
    fields = {"state": "requested", "created_at": till.world.clock(), "evidence": None, **changes}
    till.world.rows_do(
        "INSERT INTO refunds (id, payment_id, client_id, attempt_id, gateway, amount_cents, state, created_at, "
        "evidence) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        *(refund_id, till.payment_id, till.client_id, till.attempt_id, till.gateway, cents),
        *(fields["state"], fields["created_at"], fields["evidence"]),
    )
    return refund_id


async def test_our_refund_is_known_by_our_id(paid: Till) -> None:
    """The event that comes before the answer names our row instead of adding one."""
    ours = ask(paid, 250)
    await paid.absorb(settled(refund("re_1", 250, ours=ours)), settled(refund("re_1", 250, ours=ours)))
    (row,) = paid.refunds()
    assert (row["id"], row["gateway_reference"], row["state"]) == (ours, "re_1", "succeeded")


async def test_a_refund_id_of_another_tenant_is_no_name(service: House, paid: Till) -> None:
    """Metadata is the account owner's to write: it never reaches into another tenant's refunds, or another
    payment's."""
    for other in (Till(service.world), Till(service.world, client_id=paid.client_id, reference="INV-2", intent="pi_9")):
        await other.absorb(other.paid())
        theirs = ask(other, 250)
        name = f"re_{other.intent}_{other.payment_id}"
        await paid.absorb(settled(refund(name, 250, ours=theirs)))
        (row,) = other.refunds()
        assert (row["gateway_reference"], row["state"]) == (None, "requested")
        assert other.now == ("paid", 0)
    assert paid.now == ("partially_refunded", 500)


async def test_another_amount_is_another_refund(paid: Till) -> None:
    """A refund with our id and not our amount is recorded for what it is, beside ours."""
    ours = ask(paid, 250)
    await paid.absorb(settled(refund("re_1", 300, ours=ours)))
    found = sorted((row["amount_cents"], row["state"]) for row in paid.refunds())
    assert found == [(250, "requested"), (300, "succeeded")]


async def test_a_refund_that_never_left_ends_as_failed(paid: Till) -> None:
    """Two minutes after it was asked for, a complete look-up that does not name it closes it; not before."""
    ask(paid, 250)
    await paid.absorb(paid.paid(Settlement(complete=True)))
    assert [row["state"] for row in paid.refunds()] == ["requested"]
    paid.world.rows_do("UPDATE refunds SET created_at = created_at - interval '121 s'")
    await paid.absorb(paid.paid(Settlement()))
    assert [row["state"] for row in paid.refunds()] == ["requested"]
    await paid.absorb(paid.paid(Settlement(complete=True)))
    (row,) = paid.refunds()
    assert (row["state"], row["detail"]) == ("failed", "The gateway never received it.")


async def test_a_refund_given_up_that_was_made_after_all(paid: Till) -> None:
    """The gateway's word is worth more than our conclusion from its silence."""
    ours = ask(paid, 250, state="failed")
    await paid.absorb(settled(refund("re_1", 250, ours=ours)))
    (row,) = paid.refunds()
    assert (row["id"], row["state"], row["detail"]) == (ours, "succeeded", None)
    assert paid.now == ("partially_refunded", 250)


# --- disputes


@pytest.mark.parametrize(
    ("end", "cents", "after"),
    [
        (DisputeState.WON, 1250, ("paid", 0)),
        (DisputeState.LOST, 1250, ("refunded", 1250)),
        (DisputeState.LOST, 400, ("partially_refunded", 400)),
        (DisputeState.OPEN, 400, ("disputed", 0)),
    ],
)
async def test_the_end_of_a_dispute(paid: Till, end: DisputeState, cents: int, after: tuple[str, int]) -> None:
    """Open: disputed. Won, or an inquiry that was closed: as before. Lost: that much is gone."""
    await paid.absorb(settled(disputes=[dispute(cents, DisputeState.OPEN)]))
    assert paid.now == ("disputed", 0)
    await paid.absorb(
        *[settled(disputes=[dispute(cents, end)])] * 2, settled(disputes=[dispute(cents, DisputeState.OPEN)])
    )
    assert paid.now == after
    paid.check_books()


@pytest.mark.parametrize(
    ("end", "after"), [(DisputeState.WON, ("partially_refunded", 250)), (DisputeState.LOST, ("refunded", 1250))]
)
async def test_a_dispute_after_a_part_was_refunded(paid: Till, end: DisputeState, after: tuple[str, int]) -> None:
    """While it is open the refunded part stays told; its end adds what it took."""
    await paid.absorb(settled(refund("re_1", 250)), settled(disputes=[dispute(1000, DisputeState.OPEN)]))
    assert paid.now == ("disputed", 250)
    await paid.absorb(settled(disputes=[dispute(1000, end)]))
    assert paid.now == after


async def test_a_refund_while_a_dispute_is_open(paid: Till) -> None:
    """An inquiry lets the merchant refund: disputed still, with the new sum, an event of its own; then what is left."""
    await paid.absorb(settled(disputes=[dispute(1250, DisputeState.OPEN)]), settled(refund("re_1", 1250)))
    assert paid.now == ("disputed", 1250)
    await paid.absorb(settled(disputes=[dispute(1250, DisputeState.WON)]))
    assert paid.told == [("paid", 0), ("disputed", 0), ("disputed", 1250), ("refunded", 1250)]


async def test_a_dispute_after_all_was_refunded(paid: Till) -> None:
    """Refunded and then disputed: a person at the tenant must answer it."""
    await paid.absorb(settled(refund("re_1", 1250)), settled(disputes=[dispute(1250, DisputeState.OPEN)]))
    assert paid.now == ("disputed", 1250)


async def test_one_of_two_disputes_ends(paid: Till) -> None:
    """Disputed as long as any dispute is open."""
    one, other = dispute(400, DisputeState.OPEN, "du_1"), dispute(500, DisputeState.OPEN, "du_2")
    await paid.absorb(settled(disputes=[one, other]), settled(disputes=[dispute(400, DisputeState.LOST, "du_1")]))
    assert paid.now == ("disputed", 400)
    await paid.absorb(settled(disputes=[dispute(500, DisputeState.WON, "du_2")]))
    assert paid.now == ("partially_refunded", 400)


async def test_a_no_after_the_money_changes_nothing(paid: Till) -> None:
    """Neither failed nor lapsed takes back what was proved."""
    await paid.absorb(Report(Outcome.FAILED, "failed"), Report(Outcome.LAPSED, "expired"))
    assert paid.now == (Status.PAID, 0)


async def test_a_second_name_of_the_same_money_is_not_taken(paid: Till) -> None:
    """What the gateway called it first is what its refunds are known by: payment and attempt keep that name."""
    news = Settlement((refund("re_1", 250),))
    await paid.absorb(paid.paid(news, gateway_reference="pi_other"))
    assert paid.now == ("partially_refunded", 250)
    assert paid.row["gateway_reference"] == paid.intent
    await paid.absorb(settled(refund("re_2", 1000)))
    assert paid.now == ("refunded", 1250)


async def test_money_that_is_named_later_is_known_by_that_name(till: Till) -> None:
    """A gateway says paid, and only later what it calls the payment: its refunds are the payment's all the same."""
    await till.absorb(replace(till.paid(), gateway_reference=None))
    assert (till.now, till.row["gateway_reference"]) == (("paid", 0), None)
    await till.absorb(till.paid())
    assert (till.row["gateway_reference"], till.row["sequence"]) == (till.intent, 2)
    await till.absorb(settled(refund("re_1", 1250)))
    assert till.now == ("refunded", 1250)
