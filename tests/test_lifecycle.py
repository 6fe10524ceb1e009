"""The life of a payment: every combination of what we know and what a gateway may report, and long random lives."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import itertools
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import payments_service
from payments_service import web
from payments_service.errors import PaymentsError
from payments_service.lifecycle import (
    MOVES,
    OVER_UNPAID,
    Outcome,
    Report,
    ReviewReason,
    Standing,
    Status,
    Verdict,
    allowed,
    next_status,
)
from payments_service.money import Currency, Money
from payments_service.outbox import EVENT_OF

ASKED = Money(1250, Currency.USD)
OURS = "INV-1001-K7M2P4XZ"

AMOUNTS: dict[str, Money | None] = {
    "the same": ASKED,
    "one cent more": Money(1251, Currency.USD),
    "one cent less": Money(1249, Currency.USD),
    "other currency": Money(1250, Currency.ZIG),
    "missing": None,
}
REFERENCES = {"ours": OURS, "another": "INV-1001-K7M2P4XY", "missing": None}
SILENT = (Outcome.PENDING, Outcome.NOT_FOUND, Outcome.UNKNOWN)
NO_MONEY = (Outcome.FAILED, Outcome.NEVER_STARTED)
MONEY = (Outcome.PAID, Outcome.DISPUTED, Outcome.REFUNDED)
MONEY_STATUSES = (Status.PAID, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.DISPUTED)
REVIEWED = (
    frozenset[ReviewReason](),
    *(frozenset({reason}) for reason in ReviewReason),
    frozenset(ReviewReason),
)

BOTH = (False, True)


def _cases() -> Iterator[tuple[Standing, Report]]:
    for status, live, linked, elsewhere, reused, reviewed in itertools.product(
        Status, BOTH, BOTH, BOTH, BOTH, REVIEWED
    ):
        now = Standing(status, ASKED, OURS, live, linked, elsewhere, reused, reviewed)
        for outcome, amount, reference in itertools.product(Outcome, AMOUNTS.values(), REFERENCES.values()):
            yield now, Report(outcome, "said", amount, reference, "1082")


@functools.cache
def product() -> list[tuple[Standing, Report, Verdict | None]]:
    """Every combination with its verdict."""
    return [(now, report, next_status(now, report)) for now, report in _cases()]


def fits(now: Standing, report: Report) -> bool:
    """Whether the money that is reported can be taken as this payment's without asking a person."""
    return (
        report.amount == now.expected
        and report.reference in (None, now.reference)
        and not now.reference_reused
        and not now.paid_elsewhere
    )


def verdicts(*outcomes: Outcome) -> Iterator[tuple[Standing, Report, Verdict | None]]:
    return (case for case in product() if not outcomes or case[1].outcome in outcomes)


# --- every combination


def test_the_product_is_complete() -> None:
    """Every status, outcome, kind of amount and reference, and every combination of what else we know."""
    assert len(set(product())) == 9 * 8 * 2**4 * len(REVIEWED) * len(AMOUNTS) * len(REFERENCES)


def test_no_report_makes_a_move_outside_the_table() -> None:
    """A verdict either moves along MOVES, or stays in review with more to look at."""
    for now, report, verdict in verdicts():
        if verdict is None:
            continue
        stays = verdict.status is now.status is Status.REVIEW and verdict.review is not None
        assert stays or allowed(now.status, verdict.status), (now, report, verdict)


def test_money_that_does_not_fit_is_never_taken() -> None:
    """Wrong amount, currency or reference, a used gateway reference, a second payment: a review or nothing."""
    for now, report, verdict in verdicts(*MONEY):
        if verdict is not None and not fits(now, report):
            assert verdict.status is Status.REVIEW, (now, report, verdict)
            assert verdict.review is not None, (now, report, verdict)


def test_money_that_does_not_fit_is_never_passed_over() -> None:
    """From every status a person is asked, unless this was asked before of the same attempt."""
    for now, report, verdict in verdicts(*MONEY):
        if not fits(now, report) and not now.reviewed:
            assert verdict is not None, (now, report)
            assert verdict.status is Status.REVIEW, (now, report, verdict)


def test_nobody_is_asked_twice_for_the_same_reason() -> None:
    for now, report, verdict in verdicts():
        if verdict is not None and verdict.review is not None:
            assert verdict.review not in now.reviewed, (now, report, verdict)


def test_a_review_asked_before_hides_no_other_reason() -> None:
    """What a person was asked before changes no verdict but the very same question."""
    for now, report, verdict in verdicts(*MONEY):
        fresh = next_status(replace(now, reviewed=frozenset()), report)
        if fresh is None or fresh.review not in now.reviewed:
            assert verdict == fresh, (now, report, verdict, fresh)
        else:
            assert verdict is None, (now, report, verdict)


def test_money_is_late_exactly_when_the_customer_was_told_it_is_over() -> None:
    """Late: recorded as money after failed, expired or cancelled. Never for a review, which is not money yet."""
    for now, report, verdict in verdicts():
        if verdict is not None:
            expected = now.status in OVER_UNPAID and verdict.status in MONEY_STATUSES
            assert verdict.late is expected, (now, report, verdict)


def test_an_answer_that_settles_nothing_changes_nothing() -> None:
    """Pending, not found and unknown, whatever else they say and whatever we know."""
    for now, report, verdict in verdicts(*SILENT):
        assert verdict is None, (now, report, verdict)


def test_only_a_person_leads_out_of_a_review() -> None:
    """In review a report can add a reason to look, and nothing else."""
    for now, report, verdict in verdicts():
        if now.status is Status.REVIEW and verdict is not None:
            assert verdict == Verdict(Status.REVIEW, late=False, review=verdict.review), (now, report, verdict)
            assert verdict.review is not None, (now, report, verdict)


def test_no_report_leads_to_what_only_we_decide() -> None:
    """Expiry is the clock's, cancelling the tenant's, a part refund ours; and nothing becomes pending again."""
    ours = {Status.PENDING, Status.EXPIRED, Status.CANCELLED, Status.PARTIALLY_REFUNDED}
    for now, report, verdict in verdicts():
        assert verdict is None or verdict.status not in ours, (now, report, verdict)


def test_a_no_ends_only_the_pending_payment_of_the_open_attempt() -> None:
    """A gateway's no never touches money that was proved, a review, or a payment that another attempt may pay."""
    for now, report, verdict in verdicts(*NO_MONEY):
        open_one = now.status is Status.PENDING and now.live
        ends = open_one and (report.outcome is Outcome.FAILED or not now.linked)
        assert verdict == (Verdict(Status.FAILED) if ends else None), (now, report, verdict)


def test_failed_comes_from_a_no_only() -> None:
    for now, report, verdict in verdicts(*MONEY, *SILENT):
        assert verdict is None or verdict.status is not Status.FAILED, (now, report, verdict)


def test_money_that_fits_is_never_lost() -> None:
    """Reported paid: from every unpaid status the payment becomes paid, live attempt or not, told before or not."""
    for now, report, verdict in verdicts(Outcome.PAID):
        if fits(now, report) and now.status in (Status.PENDING, *OVER_UNPAID):
            assert verdict is not None, (now, report)
            assert (verdict.status, verdict.review) == (Status.PAID, None), (now, report, verdict)


def test_the_same_report_again_changes_nothing() -> None:
    """After its verdict is recorded, a repeated report has none: fifty copies are one transition."""
    for now, report, verdict in verdicts():
        if verdict is None:
            continue
        reviewed = now.reviewed | ({verdict.review} if verdict.review else frozenset())
        after = replace(now, status=verdict.status, reviewed=reviewed)
        assert next_status(after, report) is None, (now, report, verdict)


def test_what_only_people_read_decides_nothing() -> None:
    """The gateway's own word, its reference and the poll URL are no part of the decision."""
    for now, report, verdict in verdicts():
        if not now.reviewed:
            other = replace(report, said="", gateway_reference=None, poll_url="https://www.paynow.co.zw/x")
            assert next_status(now, other) == verdict, (now, report)


# --- the cases in words

PAID_IN_TIME, PAID_LATE = Verdict(Status.PAID), Verdict(Status.PAID, late=True)
FITTING: dict[Status, dict[Outcome, Verdict]] = {
    Status.PENDING: {
        Outcome.PAID: PAID_IN_TIME,
        Outcome.FAILED: Verdict(Status.FAILED),
        Outcome.DISPUTED: Verdict(Status.DISPUTED),
        Outcome.REFUNDED: Verdict(Status.REFUNDED),
    },
    Status.PAID: {Outcome.DISPUTED: Verdict(Status.DISPUTED), Outcome.REFUNDED: Verdict(Status.REFUNDED)},
    Status.PARTIALLY_REFUNDED: {
        Outcome.DISPUTED: Verdict(Status.DISPUTED),
        Outcome.REFUNDED: Verdict(Status.REFUNDED),
    },
    Status.DISPUTED: {Outcome.PAID: PAID_IN_TIME, Outcome.REFUNDED: Verdict(Status.REFUNDED)},
    Status.REFUNDED: {},
    Status.REVIEW: {},
    **{
        over: {
            Outcome.PAID: PAID_LATE,
            Outcome.DISPUTED: Verdict(Status.DISPUTED, late=True),
            Outcome.REFUNDED: Verdict(Status.REFUNDED, late=True),
        }
        for over in (Status.FAILED, Status.EXPIRED, Status.CANCELLED)
    },
}


@pytest.mark.parametrize(("status", "outcome"), list(itertools.product(Status, Outcome)))
def test_a_report_that_fits(status: Status, outcome: Outcome) -> None:
    """The whole table of a fitting report on the open attempt of a linked payment; what is absent changes nothing."""
    now = Standing(status, ASKED, OURS, live=True)
    report = Report(outcome, "said", ASKED, OURS)
    assert next_status(now, report) == FITTING[status].get(outcome)


@pytest.mark.parametrize("outcome", MONEY)
@pytest.mark.parametrize(
    ("report", "known", "reason"),
    [
        ({"amount": Money(1251, Currency.USD)}, {}, ReviewReason.AMOUNT_MISMATCH),
        ({"amount": Money(1249, Currency.USD)}, {}, ReviewReason.AMOUNT_MISMATCH),
        ({"amount": Money(125_000, Currency.USD)}, {}, ReviewReason.AMOUNT_MISMATCH),
        ({"amount": Money(0, Currency.USD)}, {}, ReviewReason.AMOUNT_MISMATCH),
        ({"amount": None}, {}, ReviewReason.AMOUNT_MISMATCH),
        ({"amount": Money(1250, Currency.ZIG)}, {}, ReviewReason.CURRENCY_MISMATCH),
        ({"reference": "INV-1002"}, {}, ReviewReason.REFERENCE_MISMATCH),
        ({"reference": OURS.lower()}, {}, ReviewReason.REFERENCE_MISMATCH),
        ({"reference": f" {OURS}"}, {}, ReviewReason.REFERENCE_MISMATCH),
        ({"reference": ""}, {}, ReviewReason.REFERENCE_MISMATCH),
        ({}, {"reference_reused": True}, ReviewReason.REFERENCE_REUSED),
        ({}, {"paid_elsewhere": True}, ReviewReason.SECOND_PAYMENT),
        # Several at once: what says most about whose money it is comes first.
        ({"reference": "INV-1002", "amount": None}, {"paid_elsewhere": True}, ReviewReason.REFERENCE_MISMATCH),
        ({"amount": Money(1, Currency.ZIG)}, {"reference_reused": True}, ReviewReason.AMOUNT_MISMATCH),
        ({}, {"reference_reused": True, "paid_elsewhere": True}, ReviewReason.REFERENCE_REUSED),
    ],
    ids=str,
)
@pytest.mark.parametrize("status", Status)
def test_why_a_person_must_look(
    outcome: Outcome, report: dict[str, object], known: dict[str, bool], reason: ReviewReason, status: Status
) -> None:
    """Each way in which money does not fit has its own reason, whatever the payment's status."""
    now = replace(Standing(status, ASKED, OURS, live=True), **known)
    told = replace(Report(outcome, "said", ASKED, OURS), **report)  # type: ignore[arg-type]
    assert next_status(now, told) == Verdict(Status.REVIEW, review=reason)


def test_a_gateway_that_names_no_reference_at_all_is_believed() -> None:
    """Some gateways echo none; an adapter whose gateway should, reports an empty one instead."""
    report = Report(Outcome.PAID, "Paid", ASKED, reference=None)
    assert next_status(Standing(Status.PENDING, ASKED, OURS, live=True), report) == PAID_IN_TIME


# --- completeness


def test_every_status_has_its_moves() -> None:
    """Also none: each status stands in the table, with statuses only, and never leads to itself."""
    assert set(MOVES) == set(Status)
    for status, targets in MOVES.items():
        assert targets <= set(Status)
        assert status not in targets


def test_nothing_leads_to_pending() -> None:
    assert all(Status.PENDING not in targets for targets in MOVES.values())


def test_every_status_can_be_reached_from_pending() -> None:
    reached = {Status.PENDING}
    while new := set().union(*(MOVES[status] for status in reached)) - reached:
        reached |= new
    assert reached == set(Status)


def test_every_status_leads_to_review_so_that_odd_evidence_is_never_stuck() -> None:
    assert all(Status.REVIEW in targets for status, targets in MOVES.items() if status is not Status.REVIEW)


def test_money_never_becomes_no_money_without_a_person() -> None:
    """From what was paid, nothing leads back to an unpaid status; only a person may find that none came."""
    for status in MONEY_STATUSES:
        assert not MOVES[status] & {Status.PENDING, *OVER_UNPAID}
    assert MOVES[Status.REVIEW] == {Status.PAID, Status.FAILED, Status.REFUNDED}


def test_the_statuses_that_are_over_unpaid_can_still_be_paid() -> None:
    assert {Status.FAILED, Status.EXPIRED, Status.CANCELLED} == OVER_UNPAID
    assert all(Status.PAID in MOVES[status] for status in OVER_UNPAID)


@pytest.mark.parametrize("current", Status)
@pytest.mark.parametrize("target", Status)
def test_allowed_is_what_the_table_says(current: Status, target: Status) -> None:
    assert allowed(current, target) is (target in MOVES[current])


def test_every_status_but_pending_has_an_event() -> None:
    """Named as the contract names them: the backend matches on these words."""
    assert EVENT_OF == {
        Status.PAID: "payment.paid",
        Status.FAILED: "payment.failed",
        Status.EXPIRED: "payment.expired",
        Status.CANCELLED: "payment.cancelled",
        Status.PARTIALLY_REFUNDED: "payment.partially_refunded",
        Status.REFUNDED: "payment.refunded",
        Status.DISPUTED: "payment.disputed",
        Status.REVIEW: "payment.review",
    }
    assert set(EVENT_OF) == set(Status) - {Status.PENDING}


def test_every_outcome_is_one_of_three_kinds() -> None:
    """A new outcome must be put into one of them here, and is then held to the laws above."""
    assert sorted((*SILENT, *NO_MONEY, *MONEY)) == sorted(Outcome)


def test_every_review_reason_can_arise() -> None:
    reasons = {verdict.review for _, _, verdict in verdicts(*MONEY) if verdict}
    assert reasons - {None} == set(ReviewReason)


def _own_errors() -> list[type[PaymentsError]]:
    for module in pkgutil.walk_packages(payments_service.__path__, "payments_service."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[PaymentsError]] = [PaymentsError]
    for kind in found:
        found.extend(each for each in kind.__subclasses__() if each.__module__.startswith("payments_service."))
    return found


def test_every_error_has_a_code_a_title_and_an_http_status() -> None:
    """Errors of every module: a stable code with a title; a status of its own or of its nearest named ancestor."""
    kinds = _own_errors()
    assert len(kinds) > 10
    for kind in kinds:
        assert kind.code in web.TITLES, kind
        (status, *_) = [web.STATUS_OF[ancestor] for ancestor in kind.__mro__ if ancestor in web.STATUS_OF]
        assert 400 <= status < 600, kind
        # 500 says "our fault, nobody foresaw it": of a foreseen error only the roots may be that.
        assert (status == 500) is not any(each in web.STATUS_OF for each in kind.__mro__[:-4]), kind


def test_errors_of_a_gateway_let_the_caller_conclude_what_is_true() -> None:
    """A sure no is the caller's fault, never reached may be tried again, everything else is no answer."""
    codes = {kind.__name__: (kind.code, web.STATUS_OF.get(kind)) for kind in _own_errors()}
    assert codes["Refused"] == ("gateway_refused", 422)
    assert codes["Unreachable"] == ("gateway_unreachable", 503)
    assert codes["Ambiguous"] == codes["Untrusted"] == ("gateway_timeout", 504)


def test_values_of_the_core_cannot_be_changed() -> None:
    """What was decided on stays as it was decided on."""
    for value in (Report(Outcome.PAID, ""), Standing(Status.PAID, ASKED, OURS, live=True), Verdict(Status.PAID)):
        for name in (each.name for each in dataclasses.fields(value)):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, name, None)


# --- long lives: several attempts, a gateway whose truth moves on, news that come late, twice and out of order


@dataclass
class Attempt:
    """One try. `truth` is the gateway's; `state` is ours, as `payments` keeps it."""

    number: int
    truth: Outcome = Outcome.PENDING
    amount: Money = ASKED
    state: str = "live"
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
    }
    LEADS_TO: ClassVar[dict[Outcome, tuple[Outcome, ...]]] = {
        Outcome.PENDING: (Outcome.PAID, Outcome.FAILED),
        Outcome.PAID: (Outcome.DISPUTED, Outcome.REFUNDED),
        Outcome.DISPUTED: (Outcome.PAID, Outcome.REFUNDED),
    }

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.status = Status.PENDING
        self.late = False
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

    @rule(attempt=attempts, pick=st.integers(0, 1), amount=st.sampled_from([ASKED, ASKED, *AMOUNTS.values()]))
    def gateway_moves(self, attempt: Attempt, pick: int, amount: Money | None) -> None:
        """At the gateway the attempt is paid (perhaps wrongly), refused, disputed or given back."""
        choices = self.LEADS_TO.get(attempt.truth)
        if choices:
            if attempt.truth is Outcome.PENDING and amount is not None:
                attempt.amount = amount
            attempt.truth = choices[pick]

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

    @precondition(lambda self: allowed(self.status, Status.PARTIALLY_REFUNDED))
    @rule()
    def refund_a_part(self) -> None:
        self._move(Status.PARTIALLY_REFUNDED)

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
        if verdict.status is not self.status:
            self._move(verdict.status)
        self.late = self.late or verdict.late

    def _standing(self, attempt: Attempt) -> Standing:
        return Standing(
            status=self.status,
            expected=ASKED,
            reference=attempt.reference,
            live=attempt.state == "live",
            paid_elsewhere=any(each.state == "paid" for each in self.tries if each is not attempt),
            reviewed=frozenset(reason for number, reason in self.asked if number == attempt.number),
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
    run_state_machine_as_test(Lives, settings=settings(max_examples=200, stateful_step_count=30, deadline=None))
