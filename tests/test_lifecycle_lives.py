"""Long random lives of a payment: several attempts, a gateway whose truth moves on, news late, twice and out of
order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from payments_service.lifecycle import (
    MOVES,
    OVER_UNPAID,
    Outcome,
    Report,
    ReviewReason,
    Settlement,
    Standing,
    Status,
    allowed,
    next_status,
)
from payments_service.money import Money
from tests.scale import of
from tests.test_lifecycle import AMOUNTS, ASKED, MONEY, MONEY_STATUSES, SILENT


@dataclass
class Attempt:
    """One try. `truth` is the gateway's; `state` is ours, as `payments` keeps it."""

    number: int
    truth: Outcome = Outcome.PENDING
    amount: Money = ASKED
    state: str = "live"
    returned: int = 0  # minor units that were given back by hand
    heard: list[Report] = field(default_factory=list)

    @property
    def reference(self) -> str:
        return f"INV-1-{self.number}"

    def report(self) -> Report:
        return Report(self.truth, self.truth.value, self.amount, self.reference, str(self.number))


class Lives(RuleBasedStateMachine):
    """A payment with its attempts, moved by next_status alone, as `payments.absorb` and its neighbours would."""

    STATE_OF: ClassVar[dict[Outcome, str]] = {
        Outcome.PAID: "paid",
        Outcome.DISPUTED: "paid",
        Outcome.REFUNDED: "paid",
        Outcome.FAILED: "failed",
        Outcome.NEVER_STARTED: "failed",
        Outcome.LAPSED: "failed",
    }
    LEADS_TO: ClassVar[dict[Outcome, tuple[Outcome, ...]]] = {
        Outcome.PENDING: (Outcome.PAID, Outcome.FAILED, Outcome.LAPSED),
        Outcome.PAID: (Outcome.DISPUTED, Outcome.REFUNDED),
        Outcome.DISPUTED: (Outcome.PAID, Outcome.REFUNDED),
    }

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.status = Status.PENDING
        self.late = False
        self.refunded = 0
        self.counted: Attempt | None = None  # whose money the payment's is
        self.tries: list[Attempt] = []
        self.steps: list[tuple[Status, Status]] = []
        self.asked: list[tuple[int, ReviewReason]] = []
        self.person_decided = False

    def _move(self, target: Status) -> None:
        self.steps.append((self.status, target))
        self.status = target

    @precondition(lambda self: self.status in (Status.PENDING, Status.FAILED) and len(self.tries) < 4)
    @rule(target=attempts)
    def start(self) -> Attempt:
        """The customer tries (again); an attempt that is still open is put aside, and may yet be paid."""
        for attempt in self.tries:
            if attempt.state == "live":
                attempt.state = "replaced"
        attempt = Attempt(len(self.tries))
        self.tries.append(attempt)
        return attempt

    @rule(attempt=attempts, pick=st.integers(0, 5), amount=st.sampled_from([ASKED, ASKED, *AMOUNTS.values()]))
    def gateway_moves(self, attempt: Attempt, pick: int, amount: Money | None) -> None:
        """At the gateway the attempt is paid (perhaps wrongly), refused, disputed or given back."""
        choices = self.LEADS_TO.get(attempt.truth)
        if choices:
            if attempt.truth is Outcome.PENDING and amount is not None:
                attempt.amount = amount
            attempt.truth = choices[pick % len(choices)]

    @rule(attempt=attempts)
    def look_up(self, attempt: Attempt) -> None:
        """We ask, and the gateway tells its truth."""
        self._absorb(attempt, attempt.report())

    @rule(attempt=attempts, back=st.integers(0, 5))
    def old_news(self, attempt: Attempt, back: int) -> None:
        """A report that was true once arrives again."""
        if attempt.heard:
            self._absorb(attempt, attempt.heard[-1 - back % len(attempt.heard)])

    @rule(attempt=attempts, outcome=st.sampled_from(SILENT))
    def no_news(self, attempt: Attempt, outcome: Outcome) -> None:
        before = (self.status, self.late, len(self.steps))
        self._absorb(attempt, Report(outcome, ""))
        assert (self.status, self.late, len(self.steps)) == before

    @precondition(lambda self: self.tries and allowed(self.status, Status.EXPIRED))
    @rule(target_status=st.sampled_from([Status.EXPIRED, Status.CANCELLED]))
    def link_ends(self, target_status: Status) -> None:
        """The clock or the tenant ends the link."""
        self._move(target_status)

    @precondition(lambda self: self.counted and self.status in (Status.PAID, Status.PARTIALLY_REFUNDED))
    @rule(cents=st.integers(1, ASKED.minor))
    def refund_by_hand(self, cents: int) -> None:
        """A person gives back a part, or all that is left, of money of a gateway that has no refunds."""
        assert self.counted is not None
        self.counted.returned = min(self.counted.returned + cents, ASKED.minor)
        self._absorb(self.counted, Report(Outcome.SETTLED, "", settlement=Settlement()))
        assert self.refunded == self.counted.returned

    @precondition(lambda self: self.status is Status.REVIEW)
    @rule(resolution=st.sampled_from(sorted(MOVES[Status.REVIEW])))
    def person_resolves(self, resolution: Status) -> None:
        self.person_decided = True
        self._move(resolution)

    def _absorb(self, attempt: Attempt, report: Report) -> None:
        verdict = next_status(self._standing(attempt), report)
        attempt.heard.append(report)
        attempt.state = self.STATE_OF.get(report.outcome, attempt.state)
        if verdict is None:
            return
        if verdict.review is not None:
            self.asked.append((attempt.number, verdict.review))
        if verdict.review is None or verdict.status is not self.status:
            self._move(verdict.status)
        if verdict.status in MONEY_STATUSES:
            self.counted = attempt
        self.late = self.late or verdict.late
        self.refunded = self.refunded if verdict.refunded is None else verdict.refunded

    def _standing(self, attempt: Attempt) -> Standing:
        return Standing(
            status=self.status,
            expected=ASKED,
            reference=attempt.reference,
            live=attempt.state == "live",
            paid_elsewhere=any(each.state == "paid" for each in self.tries if each is not attempt),
            reviewed=frozenset(reason for number, reason in self.asked if number == attempt.number),
            refunded=self.refunded,
            returned=attempt.returned,
            counts=attempt is self.counted,
        )

    @invariant()
    def every_step_is_in_the_table(self) -> None:
        assert all(allowed(before, after) for before, after in self.steps)

    @invariant()
    def the_steps_are_one_chain(self) -> None:
        """Each begins where the last one ended: no two writers, no step skipped."""
        assert [Status.PENDING, *(after for _, after in self.steps)] == [*(b for b, _ in self.steps), self.status]

    @invariant()
    def late_says_that_money_came_after_the_end(self) -> None:
        came_late = any(before in OVER_UNPAID and after in MONEY_STATUSES for before, after in self.steps)
        assert self.late is came_late

    @invariant()
    def the_refunded_sum_fits_the_status(self) -> None:
        """Nothing of what is paid, a part, or all."""
        assert 0 <= self.refunded <= ASKED.minor
        if self.status in (Status.PAID, Status.PARTIALLY_REFUNDED, Status.REFUNDED) and not self.person_decided:
            part = {0: Status.PAID, ASKED.minor: Status.REFUNDED}.get(self.refunded, Status.PARTIALLY_REFUNDED)
            assert self.status is part

    @invariant()
    def nobody_is_asked_twice(self) -> None:
        assert len(self.asked) == len(set(self.asked))

    @invariant()
    def paid_is_always_proved(self) -> None:
        """Paid without a person's word: exactly the amount asked for, by one attempt that was heard to be paid."""
        if self.status in MONEY_STATUSES and not self.person_decided:
            money = [each for each in self.tries if any(report.outcome in MONEY for report in each.heard)]
            assert len(money) == 1
            assert money[0].amount == ASKED

    @invariant()
    def heard_money_is_never_lost(self) -> None:
        """Once any attempt was heard to be paid, the payment is money or under review, until a person says no."""
        heard = any(report.outcome in MONEY for each in self.tries for report in each.heard)
        if heard and not self.person_decided:
            assert self.status in (*MONEY_STATUSES, Status.REVIEW)

    @invariant()
    def two_payments_are_never_taken_as_one(self) -> None:
        """Two attempts that both brought money are before a person, or were."""
        money = [each for each in self.tries if any(report.outcome in MONEY for report in each.heard)]
        assert len(money) < 2 or self.asked

    def teardown(self) -> None:
        """Everything looked up once more: what the gateways truly hold is known, and a second round finds no news."""
        for attempt in self.tries:
            self._absorb(attempt, attempt.report())
        self.heard_money_is_never_lost()
        self.nobody_is_asked_twice()
        first = (self.status, len(self.steps))
        for attempt in self.tries:
            self._absorb(attempt, attempt.report())
        settled = (self.status, len(self.steps))
        for attempt in self.tries:
            self._absorb(attempt, attempt.report())
        assert (self.status, len(self.steps)) == settled, (first, settled)


def test_long_lives_of_payments() -> None:
    """Hypothesis plays hundreds of lives with several attempts, and looks for one in which a law is broken."""
    run_state_machine_as_test(Lives, settings=settings(max_examples=of(120, 40), stateful_step_count=30, deadline=None))
