"""Stripe's adapter looking a session up: what is proved of the payment, and what became of its money since."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from payments_service.errors import Ambiguous, Untrusted
from payments_service.gateways.base import Opened, RefundOrder
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.stripe_wire import DISPUTE_STATES, REFUND_STATES, Refund, dispute_reports, refund_reports
from payments_service.ids import new_id
from payments_service.lifecycle import DisputeReport, DisputeState, Outcome, RefundState, Report, Settlement
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import (
    CREDENTIALS,
    KEY,
    OTHERS,
    REFERENCE,
    SESSION,
    Liar,
    account_of,
    asked_for,
    begin,
    concluded,
    opened,
    session,
)
from tests.stripe_types import class_of, literals_in

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, liar, quick = stripe_stage.stripe, stripe_stage.liar, stripe_stage.quick

USD = Currency.USD


def without(attempt: Opened) -> Opened:
    return replace(attempt, poll_url=None)


# --- the payment


async def test_an_open_session_is_pending(stripe: Stripe, sandbox: StripeSandbox) -> None:
    attempt = await begin(stripe)
    report = await stripe.check(CREDENTIALS, attempt)
    assert report == Report(Outcome.PENDING, "open, unpaid", Money(1250, USD), attempt.reference)


async def test_a_declined_card_leaves_it_pending(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The customer tries another card: only then there is an end."""
    attempt = await begin(stripe)
    await sandbox.decline(attempt.reference)
    assert (await stripe.check(CREDENTIALS, attempt)).outcome is Outcome.PENDING
    await sandbox.pay(attempt.reference)
    assert (await stripe.check(CREDENTIALS, attempt)).outcome is Outcome.PAID


async def test_a_paid_session_is_proved_with_all_that_became_of_its_money(
    stripe: Stripe, sandbox: StripeSandbox
) -> None:
    attempt = await begin(stripe)
    intent = (await sandbox.pay(attempt.reference))["payment_intent"]
    report = await stripe.check(CREDENTIALS, attempt)
    settled = Settlement(complete=True)
    assert report == Report(
        Outcome.PAID, "complete, paid", Money(1250, USD), attempt.reference, intent, settlement=settled
    )


async def test_an_expired_session_has_lapsed(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The page is over, not the link."""
    attempt = await begin(stripe)
    await sandbox.expire(attempt.reference)
    assert (await stripe.check(CREDENTIALS, attempt)).outcome is Outcome.LAPSED


async def test_a_bank_payment_is_pending_until_the_money_comes(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Complete is not paid."""
    attempt, other = await begin(stripe), await begin(stripe)
    for each in (attempt, other):
        await sandbox.pay_later(each.reference)
        report = await stripe.check(CREDENTIALS, each)
        assert (report.outcome, report.said) == (Outcome.PENDING, "complete, unpaid")
    await sandbox.settle(attempt.reference)
    await sandbox.bounce(other.reference)
    assert (await stripe.check(CREDENTIALS, attempt)).outcome is Outcome.PAID
    assert (await stripe.check(CREDENTIALS, other)).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("paid", "amount"),
    [
        ({"amount": 1249}, Money(1249, USD)),
        ({"amount": 0}, Money(0, USD)),
        ({"currency": "EUR"}, None),
        ({"currency": "ZWL", "amount": 1250}, None),
    ],
    ids=str,
)
async def test_another_sum_or_currency_shows_in_the_report(
    stripe: Stripe, sandbox: StripeSandbox, paid: dict[str, Any], amount: Money | None
) -> None:
    """Paid it is, and a person must look: the amount is what came, or none of ours, with Stripe's words for it."""
    attempt = await begin(stripe)
    await sandbox.pay(attempt.reference, **paid)
    report = await stripe.check(CREDENTIALS, attempt)
    assert (report.outcome, report.amount) == (Outcome.PAID, amount)
    if amount is None:
        assert paid["currency"].lower() in report.said


async def test_money_under_another_reference_is_evidence_and_nothing_else_is(stripe: Stripe, liar: Liar) -> None:
    """Paid under a reference that is not ours goes on as such; any other state of another's session is untrusted."""
    for reference in ("INV-2", None):
        liar.session(client_reference_id=reference, status="complete", payment_status="paid", payment_intent="pi_1")
        report = await stripe.check(CREDENTIALS, opened())
        assert (report.outcome, report.reference) == (Outcome.PAID, reference or "")
        for status in ("open", "expired", "complete"):
            liar.session(client_reference_id=reference, status=status)
            assert await concluded(stripe.check(CREDENTIALS, opened())) is Untrusted


@pytest.mark.parametrize("status", ["complete", "open", "expired"])
async def test_a_session_of_the_other_mode_is_untrusted(stripe: Stripe, liar: Liar, status: str) -> None:
    """No money moves in test mode, so it proves nothing to a live key."""
    for payment_status in ("paid", "unpaid"):
        liar.session(status=status, payment_status=payment_status, livemode=True, payment_intent="pi_1")
        assert await concluded(stripe.check(CREDENTIALS, opened())) is Untrusted
        liar.session(status=status, payment_status=payment_status, livemode=False, payment_intent="pi_1")
        assert await concluded(stripe.check(StripeCredentials("sk_live_1"), opened())) is Untrusted


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "new"},
        {"status": None},
        {"payment_status": "half"},
        {"id": "cs_test_other"},
        {"payment_status": "paid", "id": "cs_test_other"},
        {"payment_status": None},
        {"payment_status": "paid", "amount_total": "1250"},
        {"payment_status": "paid", "payment_intent": 7},
    ],
    ids=str,
)
async def test_words_that_are_not_known_conclude_nothing(
    stripe: Stripe, liar: Liar, changes: dict[str, object]
) -> None:
    liar.session(**changes)
    outcome = await concluded(stripe.check(CREDENTIALS, opened()))
    kind = outcome.outcome if isinstance(outcome, Report) else outcome
    assert kind in (Outcome.UNKNOWN, Outcome.PENDING, Untrusted)


async def test_a_payment_without_money_is_paid(stripe: Stripe, liar: Liar) -> None:
    """`no_payment_required`: nothing remained to be paid."""
    liar.session(status="complete", payment_status="no_payment_required", amount_total=0)
    report = await stripe.check(CREDENTIALS, opened())
    assert (report.outcome, report.amount, report.settlement) == (Outcome.PAID, Money(0, USD), None)


# --- keys that cannot see it


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_key_that_cannot_see_the_session_says_nothing_of_it(stripe: Stripe, liar: Liar, status: int) -> None:
    """The tenant may have changed the account since: its former key is tried then."""
    liar.says({"error": {"type": "invalid_request_error", "message": "No such checkout.session"}}, status)
    assert await concluded(stripe.check(CREDENTIALS, opened())) is Untrusted
    assert await concluded(stripe.withdraw(CREDENTIALS, opened())) is Untrusted


async def test_another_account_cannot_see_the_session(stripe: Stripe, sandbox: StripeSandbox) -> None:
    attempt = await begin(stripe)
    await sandbox.pay(attempt.reference)
    assert await concluded(stripe.check(OTHERS, attempt)) is Untrusted
    assert await concluded(stripe.withdraw(OTHERS, attempt)) is Untrusted
    report = await stripe.check(OTHERS, without(attempt))
    assert report.outcome is Outcome.NOT_FOUND


@pytest.mark.parametrize("name", ["", "pi_1", "cs_1/expire", "cs_1?x", "cs_", "https://evil.example/", "cs_é"])
async def test_a_stored_name_that_is_no_sessions_is_never_asked_about(stripe: Stripe, liar: Liar, name: str) -> None:
    assert await concluded(stripe.check(CREDENTIALS, opened(name))) is Untrusted
    assert liar.paths == []


# --- what became of the money


async def test_refunds_are_itemised(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Ours by our id, the dashboard's without one, each with its state."""
    attempt = await begin(stripe)
    intent = (await sandbox.pay(attempt.reference))["payment_intent"]
    refund_id = new_id()
    ours = await stripe.refund(CREDENTIALS, RefundOrder(refund_id, intent, Money(100, USD), "torn", new_id()))
    theirs = [await sandbox.refund(attempt.reference, 200, status) for status in ("succeeded", "pending", "failed")]
    report = await stripe.check(CREDENTIALS, attempt)
    assert report.settlement
    assert report.settlement.complete
    assert report.settlement.refunded_total is None
    assert ours.refund_id == refund_id
    found = {
        each.gateway_reference: (each.amount.minor, each.state, each.refund_id) for each in report.settlement.refunds
    }
    states = (RefundState.SUCCEEDED, RefundState.PENDING, RefundState.FAILED)
    expected = {made["id"]: (200, state, None) for made, state in zip(theirs, states, strict=True)}
    assert found == expected | {ours.gateway_reference: (100, RefundState.SUCCEEDED, refund_id)}
    seen = asked_for(sandbox, "refunds.create")[0]
    assert seen.params == {
        "payment_intent": intent,
        "amount": "100",
        "metadata": {"refund_id": str(refund_id), "reason": "torn"},
    }
    assert seen.headers["idempotency-key"] == str(refund_id)


@pytest.mark.parametrize(
    "changes", [{"amount": 99}, {"currency": "eur"}, {"metadata": {}}, {"metadata": None}, {"status": "new"}], ids=str
)
async def test_an_answer_about_another_refund_is_untrusted(
    stripe: Stripe, liar: Liar, changes: dict[str, object]
) -> None:
    order = RefundOrder(new_id(), "pi_1", Money(100, USD), "torn", new_id())
    refund = {"id": "re_1", "amount": 100, "currency": "usd", "status": "pending"}
    names = {"metadata": {"refund_id": str(order.refund_id)}}
    liar.says(refund | names)
    assert (await stripe.refund(CREDENTIALS, order)).state is RefundState.PENDING
    liar.says(refund | names | changes)
    with pytest.raises(Untrusted):
        await stripe.refund(CREDENTIALS, order)


@pytest.mark.parametrize(("count", "complete"), [(10, True), (11, True), (100, True), (101, False)])
async def test_more_refunds_than_the_session_shows_are_asked_for(
    stripe: Stripe, sandbox: StripeSandbox, count: int, complete: bool
) -> None:
    """The session's answer holds ten; of more than a hundred at least the sum is known."""
    attempt = await begin(stripe)
    await sandbox.pay(attempt.reference)
    for _ in range(count):
        await sandbox.refund(attempt.reference, 2)
    report = await stripe.check(CREDENTIALS, attempt)
    assert report.settlement
    assert report.settlement.complete is complete
    assert len({each.gateway_reference for each in report.settlement.refunds}) == min(count, 100)
    assert report.settlement.refunded_total == (None if complete else 2 * count)
    assert len(asked_for(sandbox, "refunds.list")) == (count > 10)


async def test_disputes_are_told_with_their_state(stripe: Stripe, sandbox: StripeSandbox) -> None:
    attempt = await begin(stripe)
    await sandbox.pay(attempt.reference)
    await sandbox.refund(attempt.reference, 250)
    made = await sandbox.dispute(attempt.reference, 1000)
    for outcome, state in ((None, DisputeState.OPEN), ("won", DisputeState.WON)):
        if outcome:
            await sandbox.close_dispute(made["id"], outcome)
        report = await stripe.check(CREDENTIALS, attempt)
        assert report.outcome is Outcome.PAID
        assert report.settlement
        assert report.settlement.disputes == (DisputeReport(made["id"], Money(1000, USD), state),)
        assert [each.amount.minor for each in report.settlement.refunds] == [250]
        assert report.settlement.complete


async def test_an_intent_that_was_not_expanded_says_nothing_of_the_money(stripe: Stripe, liar: Liar) -> None:
    """No settlement, which is not the same as one without refunds."""
    paid = {"status": "complete", "payment_status": "paid"}
    for intent in ("pi_1", {"id": "pi_1", "status": "succeeded"}, {"id": "pi_1", "status": "x", "latest_charge": "ch"}):
        liar.session(**paid, payment_intent=intent)
        report = await stripe.check(CREDENTIALS, opened())
        assert (report.outcome, report.gateway_reference, report.settlement) == (Outcome.PAID, "pi_1", None)
    charge = {"id": "ch_1", "amount_refunded": 300, "currency": "usd"}
    liar.session(**paid, payment_intent={"id": "pi_1", "status": "succeeded", "latest_charge": charge})
    report = await stripe.check(CREDENTIALS, opened())
    assert report.settlement == Settlement(refunded_total=300)


def test_every_state_of_a_refund_and_a_dispute_is_known() -> None:
    """Those that the SDK's types name; `prevented` alone is nobody's to say."""
    assert set(literals_in(class_of("dispute"), "status")) - {"prevented"} == set(DISPUTE_STATES)
    assert {"pending", "requires_action", "succeeded", "failed", "canceled"} == set(REFUND_STATES)
    odd = [Refund("re_1", 1, "usd", status) for status in (None, "new")]
    assert refund_reports([*odd, Refund("re_1", 1, "eur", "succeeded")]) == ()
    assert dispute_reports([]) == ()


# --- without the session's name


async def test_a_session_is_found_by_our_reference(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Among others of its time, in any state, with its name and, while it is open, its page."""
    await begin(stripe)
    attempt = await begin(stripe)
    await begin(stripe)
    found = await stripe.check(CREDENTIALS, without(attempt))
    page = sandbox.session(attempt.reference)["url"]
    assert (found.outcome, found.poll_url, found.page_url) == (Outcome.PENDING, attempt.poll_url, page)
    await sandbox.pay(attempt.reference)
    found = await stripe.check(CREDENTIALS, without(attempt))
    assert (found.outcome, found.poll_url, found.page_url) == (Outcome.PAID, attempt.poll_url, None)
    assert found.settlement


async def test_a_reference_that_no_session_has_is_not_found(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Nor one that only begins like it, nor one of another time."""
    attempt = await begin(stripe)
    assert (await stripe.check(CREDENTIALS, opened(None))).outcome is Outcome.NOT_FOUND
    shorter = replace(without(attempt), reference=attempt.reference[:-1])
    assert (await stripe.check(CREDENTIALS, shorter)).outcome is Outcome.NOT_FOUND
    for hours in (-1, 1):
        then = replace(without(attempt), started_at=datetime.now(UTC) + timedelta(hours=hours))
        assert (await stripe.check(CREDENTIALS, then)).outcome is Outcome.NOT_FOUND


async def test_a_session_is_searched_for_through_all_pages(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The oldest of 250, a hundred a page; what is not there is looked for as far."""
    attempt = await begin(stripe)
    account, one = account_of(sandbox), sandbox.session(attempt.reference)
    for number in range(249):
        account.put({**one, "id": f"cs_test_{number}", "client_reference_id": f"other-{number}"})
    assert (await stripe.check(CREDENTIALS, without(attempt))).poll_url == attempt.poll_url
    assert len(asked_for(sandbox, "sessions.list")) == 3
    assert (await stripe.check(CREDENTIALS, opened(None))).outcome is Outcome.NOT_FOUND
    assert len(asked_for(sandbox, "sessions.list")) == 6


async def test_a_search_without_an_end_concludes_nothing(stripe: Stripe, liar: Liar) -> None:
    """More pages than are worth reading, or a list that never moves on: not the same as not found."""
    liar.says({"object": "list", "has_more": True, "data": [session(client_reference_id="other")]})
    assert await concluded(stripe.check(CREDENTIALS, opened(None))) is Untrusted
    assert len(liar.paths) == 10
    starts = [re.search(r"starting_after=([^&]+)", path) for path in liar.paths[1:]]
    assert all(start and start[1] == SESSION for start in starts)


@pytest.mark.parametrize("status", [500, 503, 409])
async def test_a_look_up_that_fails_says_nothing(stripe: Stripe, liar: Liar, status: int) -> None:
    liar.says({"error": {"type": "api_error"}}, status)
    for attempt in (opened(), opened(None)):
        assert await concluded(stripe.check(CREDENTIALS, attempt)) is Ambiguous


async def test_the_search_and_the_look_up_ask_for_exactly_this(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Reading is idempotent by itself: no key; the version is pinned there too."""
    attempt = await begin(stripe)
    await stripe.check(CREDENTIALS, without(attempt))
    (listed,), (seen,) = asked_for(sandbox, "sessions.list"), asked_for(sandbox, "sessions.retrieve")
    begun = attempt.started_at.timestamp()
    assert listed.params["limit"] == "100"
    assert abs(int(listed.params["created"]["gte"]) - (begun - 300)) <= 1
    assert abs(int(listed.params["created"]["lte"]) - (begun + 300)) <= 1
    assert seen.params == {"expand": ["payment_intent.latest_charge.refunds"]}
    assert "idempotency-key" not in seen.headers
    assert seen.headers["stripe-version"] == listed.headers["stripe-version"] == "2026-10-28.endive"
    assert seen.key == KEY
    assert REFERENCE not in seen.path
