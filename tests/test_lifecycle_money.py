"""What became of money that came: refunds and disputes, in whatever order their news arrive."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from payments_service.lifecycle import (
    RECEIVED,
    DisputeReport,
    DisputeState,
    Outcome,
    RefundReport,
    RefundState,
    Report,
    Settlement,
    Standing,
    Status,
    Verdict,
    allowed,
    next_status,
)
from payments_service.money import Currency, Money
from tests.scale import of
from tests.test_lifecycle import ASKED, OURS, verdicts


def test_the_refunded_sum_is_never_negative_and_never_above_the_amount() -> None:
    """Each verdict about money names the sum, whatever refunds and lost disputes add up to; a review leaves it."""
    for now, report, verdict in verdicts():
        if verdict is None or verdict.status not in RECEIVED:
            assert verdict is None or verdict.refunded is None, (now, report, verdict)
        else:
            assert verdict.refunded is not None, (now, report, verdict)
            assert 0 <= verdict.refunded <= now.expected.minor, (now, report, verdict)


def test_the_status_says_what_the_refunded_sum_says() -> None:
    """Paid: nothing given back; partially refunded: a part; refunded: all; a dispute says nothing of it."""
    for now, report, verdict in verdicts():
        if verdict is not None and verdict.status in RECEIVED - {Status.DISPUTED}:
            part = {0: Status.PAID, 1250: Status.REFUNDED}.get(verdict.refunded or 0, Status.PARTIALLY_REFUNDED)
            assert verdict.status is part, (now, report, verdict)


def test_news_of_refunds_never_mark_unproved_money_as_paid() -> None:
    """Of money that is not known to have come, or is another attempt's, refunds and disputes move nothing."""
    for now, report, verdict in verdicts(Outcome.SETTLED):
        if now.status not in RECEIVED or not now.counts:
            assert verdict is None or verdict.status is Status.REVIEW, (now, report, verdict)
        assert verdict is None or not verdict.late, (now, report, verdict)


def test_a_gateway_without_items_never_leads_back_from_refunded() -> None:
    """Its late "paid" or "disputed" is a repetition; only who itemises refunds can tell that one failed. What is on our
    own record adds up whoever looks."""
    back = {Status.REFUNDED: RECEIVED, Status.PARTIALLY_REFUNDED: {Status.PAID, Status.PARTIALLY_REFUNDED}}
    for now, report, verdict in verdicts():
        if report.settlement is None and verdict is not None and (verdict.refunded or 0) <= now.refunded:
            assert verdict.status not in back.get(now.status, ()), (now, report, verdict)


def test_a_refund_that_failed_leads_back() -> None:
    """With items, what was refunded is paid again, or in part, and the sum says so."""
    for status, returned, after in (
        (Status.REFUNDED, 0, Verdict(Status.PAID, refunded=0)),
        (Status.REFUNDED, 250, Verdict(Status.PARTIALLY_REFUNDED, refunded=250)),
        (Status.PARTIALLY_REFUNDED, 0, Verdict(Status.PAID, refunded=0)),
    ):
        now = Standing(status, ASKED, OURS, live=False, refunded=750, returned=returned)
        for outcome in (Outcome.PAID, Outcome.SETTLED):
            assert next_status(now, Report(outcome, "", ASKED, OURS, settlement=Settlement())) == after


def test_another_part_given_back_is_news() -> None:
    """Partially refunded stays that, with a new sum: an event of its own."""
    now = Standing(Status.PARTIALLY_REFUNDED, ASKED, OURS, live=False, refunded=250, returned=500)
    report = Report(Outcome.SETTLED, "", settlement=Settlement())
    assert next_status(now, report) == Verdict(Status.PARTIALLY_REFUNDED, refunded=500)
    assert next_status(replace(now, refunded=500), report) is None


# --- the same facts in any order


def usd(cents: int) -> Money:
    return Money(cents, Currency.USD)


REFUND_STORIES = st.sampled_from(
    [
        [RefundState.SUCCEEDED],
        [RefundState.PENDING, RefundState.SUCCEEDED],
        [RefundState.PENDING, RefundState.FAILED],
        [RefundState.SUCCEEDED, RefundState.FAILED],
        [RefundState.PENDING, RefundState.SUCCEEDED, RefundState.FAILED],
        [RefundState.PENDING],
    ]
)
DISPUTE_STORIES = st.sampled_from(
    [
        [DisputeState.OPEN],
        [DisputeState.OPEN, DisputeState.WON],
        [DisputeState.OPEN, DisputeState.LOST],
        [DisputeState.OPEN, DisputeState.LOST, DisputeState.WON],
    ]
)


@dataclass
class Facts:
    """What happened at the gateway, as the reports that tell of it; and where that leaves the payment."""

    reports: list[Report]
    returned: int
    contested: bool

    @property
    def end(self) -> tuple[Status, int]:
        returned = min(self.returned, ASKED.minor)
        part = {0: Status.PAID, ASKED.minor: Status.REFUNDED}.get(returned, Status.PARTIALLY_REFUNDED)
        return Status.DISPUTED if self.contested else part, returned


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """A payment of USD 12.50 with up to four refunds, each told by its own events and the charge's sum so far, and
    perhaps a dispute."""
    reports, held, returned, contested = [looked_up()], 0, 0, False
    known: dict[str, RefundReport] = {}
    for number in range(draw(st.integers(0, 4))):
        if held >= ASKED.minor:
            break
        cents, story = draw(st.integers(1, ASKED.minor - held)), draw(REFUND_STORIES)
        for state in story:
            known[f"re_{number}"] = RefundReport(f"re_{number}", usd(cents), state)
            reports.append(settled(refunds=(known[f"re_{number}"],)))
            if state is story[0]:
                reports.append(settled(refunded_total=held + cents))
            if draw(st.booleans()):
                reports.append(looked_up(*known.values()))
        held += 0 if story[-1] is RefundState.FAILED else cents
        returned += cents if story[-1] is RefundState.SUCCEEDED else 0
    if draw(st.booleans()):
        cents, fates = draw(st.integers(1, ASKED.minor)), draw(DISPUTE_STORIES)
        reports += [settled(disputes=(DisputeReport("du_1", usd(cents), state),)) for state in fates]
        returned += cents if fates[-1] is DisputeState.LOST else 0
        contested = fates[-1] is DisputeState.OPEN
    return Facts(reports, returned, contested)


def looked_up(*refunds: RefundReport) -> Report:
    """What a look-up says at that moment, with all refunds by then. Its answer may take its time."""
    return Report(Outcome.PAID, "paid", ASKED, OURS, "pi_1", settlement=Settlement(refunds, complete=True))


def settled(**items: object) -> Report:
    return Report(Outcome.SETTLED, "", settlement=Settlement(**items))  # type: ignore[arg-type]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[Facts, list[Report]]:
    """The facts, and their reports as they arrive: each at least once, in any order."""
    happened = draw(facts())
    again = draw(st.lists(st.sampled_from(happened.reports), max_size=5))
    return happened, draw(st.permutations([*happened.reports, *again]))


@dataclass
class Books:
    """A payment's rows, kept as `settlements.keep` and `payments.absorb` keep them in the database."""

    status: Status = Status.PENDING
    refunded: int = 0
    paid: bool = False
    refunds: dict[str, RefundReport] = field(default_factory=dict)
    disputes: dict[str, DisputeReport] = field(default_factory=dict)
    total: int = 0

    def absorb(self, report: Report) -> None:
        news = report.settlement or Settlement()
        for refund in news.refunds:
            self._keep(self.refunds, refund, list(RefundState))
        for dispute in news.disputes:
            self._keep(self.disputes, dispute, list(DisputeState))
        self.total = max(self.total, news.refunded_total or 0)
        verdict = next_status(self._standing(), report)
        self.paid = self.paid or report.outcome is Outcome.PAID
        if verdict is not None:
            assert verdict.review is None
            assert allowed(self.status, verdict.status)
            self.status, self.refunded = verdict.status, verdict.refunded or 0
        assert 0 <= self.refunded <= ASKED.minor
        assert self.status is Status.PENDING or self.paid, "taken as money before it was proved"

    def _keep(self, known: dict[str, Any], item: Any, ranks: list[Any]) -> None:
        before = known.get(item.gateway_reference)
        if before is None or ranks.index(item.state) > ranks.index(before.state):
            known[item.gateway_reference] = item

    def _standing(self) -> Standing:
        told = sum(each.amount.minor for each in self.refunds.values())
        given = sum(each.amount.minor for each in self.refunds.values() if each.state is RefundState.SUCCEEDED)
        lost = sum(each.amount.minor for each in self.disputes.values() if each.state is DisputeState.LOST)
        return Standing(
            self.status,
            ASKED,
            OURS,
            live=not self.paid,
            refunded=self.refunded,
            returned=max(0, self.total - told) + given + lost,
            contested=any(each.state is DisputeState.OPEN for each in self.disputes.values()),
            counts=self.paid,
        )


@settings(max_examples=of(400, 100), deadline=None)
@given(deliveries())
def test_the_order_of_the_news_does_not_matter(told: tuple[Facts, list[Report]]) -> None:
    """Payment, refunds with all their states, sums and disputes, in any order and many times over: the end is the same,
    and at no moment is money taken that was not proved, or more refunded than was paid."""
    happened, reports = told
    books = Books()
    for report in reports:
        books.absorb(report)
    assert (books.status, books.refunded) == happened.end
