"""Sweeps of Stripe's events: what an endpoint was not told of, all of it, however much it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from stripe.params import EventListParams

from payments_service.gateways import stripe_sweep
from payments_service.gateways.base import Opened, TooMuch
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.stripe_events import TYPES
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import (
    ATTEMPT,
    CREDENTIALS,
    HOOK,
    REFERENCE,
    SESSION,
    WHSEC,
    Liar,
    account_of,
    asked_for,
    begin,
    event_of,
    listen,
    session,
)
from tests.stripe_types import check_params

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, liar, quick = stripe_stage.stripe, stripe_stage.liar, stripe_stage.quick


async def paid(stripe: Stripe, sandbox: StripeSandbox) -> Opened:
    attempt = await begin(stripe)
    await sandbox.pay(attempt.reference)
    return attempt


# Without a saved secret nobody took anything for us.
UNTOLD = replace(CREDENTIALS, webhook_secrets=())


def window() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(minutes=5), now + timedelta(minutes=5)


async def test_with_an_endpoint_only_undelivered_events_are_swept(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """What was taken is not told twice; without a saved secret nobody took anything for us, so that all are told."""
    listen(sandbox)
    taken = await paid(stripe, sandbox)
    await sandbox.settled()
    for event in account_of(sandbox).events.values():
        event.waiting.clear()
    lost = await paid(stripe, sandbox)
    await sandbox.settled()
    found = await stripe.missed(CREDENTIALS, HOOK, *window())
    assert [each.reference for each in found] == [lost.reference]
    found = await stripe.missed(UNTOLD, HOOK, *window())
    assert [each.reference for each in found] == [taken.reference, lost.reference]
    with_secret, without = asked_for(sandbox, "events.list")
    assert with_secret.params["delivery_success"] == "false"
    assert "delivery_success" not in without.params
    for seen in (with_secret, without):
        check_params(EventListParams, seen.params)
        assert seen.params["types"] == list(TYPES)
        assert len(TYPES) <= 20, "Stripe takes no more at once"


@pytest.mark.parametrize("wrong", ["none", "disabled", "elsewhere", "not told of all", "unseen"])
async def test_all_events_are_swept_where_no_endpoint_takes_them(
    stripe: Stripe, sandbox: StripeSandbox, wrong: str
) -> None:
    """A saved secret alone does not say that somebody is told: an endpoint must be there, enabled, ours, and for all
    that is read here; also where this key may not look at endpoints."""
    key, may = "rk_test_Sweeper", ["events.list", *(["webhook_endpoints.list"] if wrong != "unseen" else [])]
    sandbox.add_account(key, id=account_of(sandbox).id, may=may)
    credentials = StripeCredentials(key, (WHSEC,))
    if wrong != "none":
        url = f"{HOOK}y" if wrong == "elsewhere" else HOOK
        endpoint = sandbox.add_endpoint(account_of(sandbox), url, TYPES[1:] if wrong == "not told of all" else TYPES)
        endpoint.object["status"] = "disabled" if wrong == "disabled" else "enabled"
    attempt = await paid(stripe, sandbox)
    await sandbox.settled()
    for event in account_of(sandbox).events.values():
        event.waiting.clear()
    found = await stripe.missed(credentials, HOOK, *window())
    assert [each.reference for each in found] == [attempt.reference]


async def test_several_endpoints_take_all_together(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """As verify says of them."""
    for types in (TYPES[:5], TYPES[5:]):
        listen(sandbox, *types)
    await stripe.missed(CREDENTIALS, HOOK, *window())
    (seen,) = asked_for(sandbox, "events.list")
    assert seen.params["delivery_success"] == "false"


async def test_a_sweep_goes_through_all_pages_and_tells_the_oldest_first(
    stripe: Stripe, sandbox: StripeSandbox
) -> None:
    attempt = await begin(stripe)
    thing = await sandbox.pay(attempt.reference)
    account = account_of(sandbox)
    made = [sandbox.emit(account, "checkout.session.completed", thing).object["id"] for _ in range(249)]
    found = await stripe.missed(UNTOLD, HOOK, *window())
    assert [each.key for each in found][1:] == made
    assert len(asked_for(sandbox, "events.list")) == 3


async def test_an_event_that_cannot_be_read_does_not_hide_the_others(stripe: Stripe, liar: Liar) -> None:
    """An account has other things in it than ours, in any shape: the sweep goes on."""
    good = event_of("checkout.session.completed", session(status="complete", payment_status="paid"))
    odd = [event_of("refund.created", {"id": 7}), event_of("checkout.session.expired", [])]
    foreign = event_of("checkout.session.completed", session(client_reference_id=None, metadata={}))
    liar.says({"object": "list", "has_more": False, "data": [odd[0], good, foreign, odd[1]]})
    found = await stripe.missed(UNTOLD, HOOK, *window())
    assert [(each.reference, each.attempt_id) for each in found] == [(REFERENCE, ATTEMPT)]
    assert found[0].report
    assert found[0].report.poll_url == SESSION


async def test_more_events_than_can_be_read_are_too_many(stripe: Stripe, liar: Liar) -> None:
    """A shorter time must be asked about: what was read so far is the newest, and would hide the older."""
    event = event_of("checkout.session.completed", session(status="complete", payment_status="paid"))
    liar.says({"object": "list", "has_more": True, "data": [event]})
    with pytest.raises(TooMuch):
        await stripe.missed(UNTOLD, HOOK, *window())
    assert len(liar.paths) == stripe_sweep.PAGES


async def test_events_too_large_for_one_answer_are_asked_for_a_few_at_once(
    stripe: Stripe, sandbox: StripeSandbox
) -> None:
    """Evidence of disputes can make a page larger than what is read of an answer: none of it is missing."""
    for _ in range(8):
        await sandbox.dispute((await paid(stripe, sandbox)).reference)
    for event in account_of(sandbox).events.values():
        if event.object["type"] == "charge.dispute.created":
            event.object["data"]["object"]["evidence"] = {"uncategorized_text": "x" * 140_000}
    found = await stripe.missed(UNTOLD, HOOK, *window())
    assert [each.said for each in found] == ["checkout.session.completed", "charge.dispute.created"] * 8
    limits = [int(seen.params["limit"]) for seen in asked_for(sandbox, "events.list")]
    assert limits == [100, 5, 5, 5, 5]
