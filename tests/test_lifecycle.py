"""The life of a payment: every combination of what we know and what a gateway may report, one by one."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from payments_service.lifecycle import (
    OVER_UNPAID,
    Outcome,
    RefundReport,
    RefundState,
    Report,
    ReviewReason,
    Settlement,
    Standing,
    Status,
    Verdict,
    allowed,
    next_status,
)
from payments_service.money import Currency, Money

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
NO_MONEY = (Outcome.FAILED, Outcome.NEVER_STARTED, Outcome.LAPSED)
MONEY = (Outcome.PAID, Outcome.DISPUTED, Outcome.REFUNDED)
MONEY_STATUSES = (Status.PAID, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.DISPUTED)
REVIEWED = (
    frozenset[ReviewReason](),
    *(frozenset({reason}) for reason in ReviewReason),
    frozenset(ReviewReason),
)

BOTH = (False, True)


def _cases() -> Iterator[tuple[Standing, Report]]:
    """Whose money it is, and whether it fits."""
    for status, live, linked, elsewhere, reused, reviewed in itertools.product(
        Status, BOTH, BOTH, BOTH, BOTH, REVIEWED
    ):
        now = Standing(status, ASKED, OURS, live, linked, elsewhere, reused, reviewed)
        for outcome, amount, reference in itertools.product(Outcome, AMOUNTS.values(), REFERENCES.values()):
            yield now, Report(outcome, "said", amount, reference, "1082")


# What became of it, in minor units: as the payment says so far, and as its refunds and lost disputes say by now.
REFUNDED = (0, 250, 1250)
RETURNED = (0, 250, 1250, 1500)
SETTLEMENTS = (
    None,
    Settlement(),
    Settlement((RefundReport("re_1", Money(250, Currency.USD), RefundState.SUCCEEDED),), complete=True),
    Settlement((RefundReport("re_1", Money(250, Currency.ZIG), RefundState.SUCCEEDED),)),
)


def _cases_of_money() -> Iterator[tuple[Standing, Report]]:
    """What became of the money."""
    for status, refunded, returned, contested, counts in itertools.product(Status, REFUNDED, RETURNED, BOTH, BOTH):
        now = Standing(
            status, ASKED, OURS, live=True, refunded=refunded, returned=returned, contested=contested, counts=counts
        )
        for outcome, settlement, amount in itertools.product(Outcome, SETTLEMENTS, (ASKED, None)):
            yield now, Report(outcome, "said", amount, OURS, "pi_1", settlement=settlement)


@functools.cache
def product() -> list[tuple[Standing, Report, Verdict | None]]:
    """Every combination with its verdict."""
    cases = itertools.chain(_cases(), _cases_of_money())
    return [(now, report, next_status(now, report)) for now, report in cases]


def fits(now: Standing, report: Report) -> bool:
    """Whether the money that is reported can be taken as this payment's without asking a person."""
    items = report.settlement.amounts() if report.settlement else []
    return (
        report.amount == now.expected
        and all(amount.currency is now.expected.currency for amount in items)
        and report.reference in (None, now.reference)
        and not now.reference_reused
        and not now.paid_elsewhere
    )


def verdicts(*outcomes: Outcome) -> Iterator[tuple[Standing, Report, Verdict | None]]:
    return (case for case in product() if not outcomes or case[1].outcome in outcomes)


# --- every combination


def test_the_product_is_complete() -> None:
    """Every status, outcome, kind of amount and reference, what became of the money, and every combination of what else
    we know."""
    whose = 9 * len(Outcome) * 2**4 * len(REVIEWED) * len(AMOUNTS) * len(REFERENCES)
    what = 9 * len(Outcome) * 2**2 * len(REFUNDED) * len(RETURNED) * len(SETTLEMENTS) * 2
    assert len(product()) == whose + what


def test_no_report_makes_a_move_outside_the_table() -> None:
    """A verdict either moves along MOVES, or stays in review with more to look at."""
    for now, report, verdict in verdicts():
        if verdict is None:
            continue
        stays = verdict.status is now.status is Status.REVIEW and verdict.review is not None
        assert stays or allowed(now.status, verdict.status), (now, report, verdict)


def judged(now: Standing) -> bool:
    """Whether a person was asked about this attempt's money before, and it counts now."""
    return bool(now.reviewed) and now.status in MONEY_STATUSES and now.counts


def test_money_that_does_not_fit_is_never_taken() -> None:
    """Wrong amount, currency or reference, a used gateway reference, a second payment: a review or nothing, unless a
    person has said that it counts."""
    for now, report, verdict in verdicts(*MONEY):
        if verdict is not None and not fits(now, report) and not judged(now):
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
    """What a person was asked before changes no verdict but the very same question; once they have said that the money
    counts, what becomes of it is as if it fitted."""
    for now, report, verdict in verdicts(*MONEY):
        fresh = next_status(replace(now, reviewed=frozenset()), report)
        if fresh is None or fresh.review not in now.reviewed:
            assert verdict == fresh, (now, report, verdict, fresh)
        elif not judged(now):
            assert verdict is None, (now, report, verdict)
        else:
            known = replace(now, reviewed=frozenset(), reference_reused=False, paid_elsewhere=False)
            fitting = replace(report, amount=now.expected, reference=now.reference)
            if not (
                report.settlement and any(a.currency is not now.expected.currency for a in report.settlement.amounts())
            ):
                assert verdict == next_status(known, fitting), (now, report, verdict)


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
    """In review a report can add a reason to look, and nothing else; but for what money answers by itself, below."""
    for now, report, verdict in verdicts():
        if now.status is Status.REVIEW and verdict is not None:
            assert verdict == Verdict(Status.REVIEW, late=False, review=verdict.review), (now, report, verdict)
            assert verdict.review is not None, (now, report, verdict)


def test_money_leads_out_of_a_review_that_asked_for_nothing_else() -> None:
    """Where a person was asked about a word that nobody knows and about nothing more: to what became of it by then, if
    it fits, and late, for a word is only asked about when the link is over. All else is as in any other review."""
    for now, report, verdict in verdicts():
        if now.status is not Status.REVIEW:
            continue
        told = next_status(replace(now, unclear=True), report)
        if not (report.outcome in MONEY and fits(now, report)):
            assert told == verdict, (now, report, told)
            continue
        assert verdict is None, (now, report, told)
        refunded = ASKED.minor if report.outcome is Outcome.REFUNDED else min(now.returned, ASKED.minor)
        whole = Status.REFUNDED if refunded == ASKED.minor else Status.PARTIALLY_REFUNDED if refunded else Status.PAID
        # The gateway's own "disputed" is of all that is not given back.
        contested = now.contested or (report.outcome is Outcome.DISPUTED and whole is not Status.REFUNDED)
        expected = Verdict(Status.DISPUTED if contested else whole, late=True, refunded=refunded)
        assert told == expected, (now, report, told)


def test_no_report_leads_to_what_only_we_decide() -> None:
    """Expiry is the clock's, cancelling the tenant's; and nothing becomes pending again."""
    ours = {Status.PENDING, Status.EXPIRED, Status.CANCELLED}
    for now, report, verdict in verdicts():
        assert verdict is None or verdict.status not in ours, (now, report, verdict)


def test_a_no_ends_only_the_pending_payment_of_the_open_attempt() -> None:
    """A gateway's no never touches money that was proved, a review, or a payment that another attempt may pay."""
    for now, report, verdict in verdicts(*NO_MONEY):
        open_one = now.status is Status.PENDING and now.live
        ends = open_one and (report.outcome is Outcome.FAILED or not now.linked)
        assert verdict == (Verdict(Status.FAILED) if ends else None), (now, report, verdict)


def test_a_word_that_nobody_knows_is_for_a_person() -> None:
    """Of a payment that is unpaid and not withdrawn, once; whatever amount or reference stand beside the word."""
    for now, report, verdict in verdicts(Outcome.UNCLEAR):
        asks = now.status in (Status.PENDING, Status.EXPIRED) and ReviewReason.UNKNOWN_STATUS not in now.reviewed
        expected = Verdict(Status.REVIEW, review=ReviewReason.UNKNOWN_STATUS) if asks else None
        assert verdict == expected, (now, report, verdict)


def test_failed_comes_from_a_no_only() -> None:
    for now, report, verdict in verdicts(*MONEY, *SILENT, Outcome.SETTLED, Outcome.UNCLEAR):
        assert verdict is None or verdict.status is not Status.FAILED, (now, report, verdict)


def test_money_that_fits_is_never_lost() -> None:
    """Reported paid: from every unpaid status the payment becomes paid, or what became of that money since."""
    for now, report, verdict in verdicts(Outcome.PAID):
        if fits(now, report) and now.status in (Status.PENDING, *OVER_UNPAID):
            assert verdict is not None, (now, report)
            given = Status.REFUNDED if now.returned >= 1250 else Status.PARTIALLY_REFUNDED if now.returned else None
            expected = Status.DISPUTED if now.contested else given or Status.PAID
            assert (verdict.status, verdict.review) == (expected, None), (now, report, verdict)


def test_the_same_report_again_changes_nothing() -> None:
    """After its verdict is recorded, a repeated report has none: fifty copies are one transition."""
    for now, report, verdict in verdicts():
        if verdict is None:
            continue
        reviewed = now.reviewed | ({verdict.review} if verdict.review else frozenset())
        refunded = now.refunded if verdict.refunded is None else verdict.refunded
        after = replace(now, status=verdict.status, reviewed=reviewed, refunded=refunded)
        assert next_status(after, report) is None, (now, report, verdict)


def test_what_only_people_read_decides_nothing() -> None:
    """The gateway's own word, its reference and the poll URL are no part of the decision."""
    for now, report, verdict in verdicts():
        if not now.reviewed:
            other = replace(report, said="", gateway_reference=None, poll_url="https://www.paynow.co.zw/x")
            assert next_status(now, other) == verdict, (now, report)


# --- the cases in words

PAID_IN_TIME, PAID_LATE = Verdict(Status.PAID, refunded=0), Verdict(Status.PAID, late=True, refunded=0)
DISPUTED, REFUNDED_WHOLE = Verdict(Status.DISPUTED, refunded=0), Verdict(Status.REFUNDED, refunded=1250)
UNCLEAR = Verdict(Status.REVIEW, review=ReviewReason.UNKNOWN_STATUS)
FITTING: dict[Status, dict[Outcome, Verdict]] = {
    Status.PENDING: {
        Outcome.UNCLEAR: UNCLEAR,
        Outcome.PAID: PAID_IN_TIME,
        Outcome.FAILED: Verdict(Status.FAILED),
        Outcome.DISPUTED: DISPUTED,
        Outcome.REFUNDED: REFUNDED_WHOLE,
    },
    Status.PAID: {Outcome.DISPUTED: DISPUTED, Outcome.REFUNDED: REFUNDED_WHOLE},
    Status.PARTIALLY_REFUNDED: {
        Outcome.DISPUTED: DISPUTED,
        Outcome.REFUNDED: REFUNDED_WHOLE,
    },
    Status.DISPUTED: {
        Outcome.PAID: PAID_IN_TIME,
        Outcome.REFUNDED: REFUNDED_WHOLE,
        Outcome.SETTLED: PAID_IN_TIME,
    },
    Status.REFUNDED: {},
    Status.REVIEW: {},
    **{
        over: {
            Outcome.PAID: PAID_LATE,
            Outcome.DISPUTED: replace(DISPUTED, late=True),
            Outcome.REFUNDED: replace(REFUNDED_WHOLE, late=True),
            **({Outcome.UNCLEAR: UNCLEAR} if over is Status.EXPIRED else {}),
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


def test_every_outcome_is_one_of_five_kinds() -> None:
    """A new outcome must be put into one of them here, and is then held to the laws above."""
    assert sorted((*SILENT, *NO_MONEY, *MONEY, Outcome.SETTLED, Outcome.UNCLEAR)) == sorted(Outcome)


def test_every_review_reason_can_arise() -> None:
    reasons = {verdict.review for _, _, verdict in verdicts(*MONEY, Outcome.UNCLEAR) if verdict}
    assert reasons - {None} == set(ReviewReason)


def test_values_of_the_core_cannot_be_changed() -> None:
    """What was decided on stays as it was decided on."""
    for value in (Report(Outcome.PAID, ""), Standing(Status.PAID, ASKED, OURS, live=True), Verdict(Status.PAID)):
        for name in (each.name for each in dataclasses.fields(value)):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, name, None)
