"""What Stripe says of a tenant's account, and our webhook endpoint in it: looked at, set up, replaced."""

from __future__ import annotations

from typing import Any

import pytest
from stripe.params import WebhookEndpointCreateParams

from payments_service.errors import Ambiguous, Refused, Unreachable, Untrusted
from payments_service.gateways.base import Endpoint, Verification
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.stripe_client import API_VERSION
from payments_service.gateways.stripe_events import TYPES
from payments_service.money import Currency
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import CREDENTIALS, HOOK, KEY, OTHERS, WHSEC, Liar, account_of, asked_for, concluded
from tests.stripe_types import check_params

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, liar, quick = stripe_stage.stripe, stripe_stage.liar, stripe_stage.quick

LIVE = "sk_live_AccountOfTheTests0001"


def said(found: Verification) -> str:
    return " ".join(found.messages)


def hooks(sandbox: StripeSandbox, key: str = KEY) -> dict[str, str]:
    """The account's endpoints: id and address."""
    return {name: one.object["url"] for name, one in account_of(sandbox, key).endpoints.items()}


# --- verify


async def test_a_good_test_account_is_told_as_such(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Account, mode, currencies of ours that its country takes, and that a webhook leads here; nothing but reading."""
    sandbox.add_endpoint(account_of(sandbox), HOOK, TYPES)
    found = await stripe.verify(CREDENTIALS, HOOK)
    assert (found.ok, found.mode, found.currencies, found.account) == (
        True,
        "test",
        [Currency.USD],
        account_of(sandbox).id,
    )
    assert "Test mode: no real money moves." in said(found)
    assert found.messages[-1] == "A webhook endpoint of this account leads here."
    assert {seen.method for seen in sandbox.requests} == {"GET"}


async def test_a_live_account_is_told_as_such(stripe: Stripe, sandbox: StripeSandbox) -> None:
    sandbox.add_account(LIVE)
    found = await stripe.verify(StripeCredentials(LIVE), HOOK)
    assert (found.ok, found.mode) == (True, "live")
    assert "Live mode: real money moves." in said(found)


async def test_an_account_that_cannot_take_payments_is_not_ok(stripe: Stripe, sandbox: StripeSandbox) -> None:
    sandbox.add_account(LIVE, charges_enabled=False)
    found = await stripe.verify(StripeCredentials(LIVE), HOOK)
    assert not found.ok
    assert "cannot take payments yet" in said(found)
    assert "does not pay out" in said(found)


@pytest.mark.parametrize("key", ["pk_test_123", "pk_live_123"])
async def test_a_publishable_key_is_told_from_a_secret_one(stripe: Stripe, sandbox: StripeSandbox, key: str) -> None:
    """Without asking: it is the field beside the right one in the dashboard."""
    found = await stripe.verify(StripeCredentials(key), HOOK)
    assert not found.ok
    assert "publishable key" in said(found)
    assert found.mode == ("live" if "live" in key else "test")
    assert not sandbox.requests


async def test_a_restricted_key_is_told_what_it_lacks(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Without the account's permission nothing can be said; without the others', what remains."""
    account, nothing, little = account_of(sandbox), "rk_test_Nothing", "rk_test_Little"
    sandbox.add_account(nothing, id=account.id, may=["sessions.create"])
    sandbox.add_account(little, id=account.id, may=["account.retrieve"])
    found = await stripe.verify(StripeCredentials(nothing), HOOK)
    assert not found.ok
    assert "permission" in said(found)
    found = await stripe.verify(StripeCredentials(little, (WHSEC,)), HOOK)
    assert found.ok
    assert found.currencies == [Currency.USD]
    assert "could not be seen with this key" in said(found)


async def test_a_key_that_stripe_does_not_know_is_not_ok(stripe: Stripe, sandbox: StripeSandbox) -> None:
    sandbox.expire_key(KEY)
    found = await stripe.verify(CREDENTIALS, HOOK)
    assert (found.ok, found.mode, found.currencies, found.account) == (False, "test", [], None)
    assert "stripe_secret_key" in said(found)


@pytest.mark.parametrize(
    ("url", "events", "secrets", "words"),
    [
        (HOOK, TYPES, (), "No webhook secret is saved"),
        (None, TYPES, (WHSEC,), "No active webhook endpoint of this account leads to"),
        (f"{HOOK}/other", TYPES, (WHSEC,), "No active webhook endpoint of this account leads to"),
        (HOOK, ("checkout.session.completed",), (WHSEC,), "is not told of: charge.dispute.closed"),
        (HOOK, ("*",), (WHSEC,), "A webhook endpoint of this account leads here."),
    ],
)
async def test_what_is_missing_for_webhooks_is_told(
    stripe: Stripe,
    sandbox: StripeSandbox,
    url: str | None,
    events: tuple[str, ...],
    secrets: tuple[str, ...],
    words: str,
) -> None:
    """Payments can be taken all the same: it is a message, no fault."""
    if url:
        sandbox.add_endpoint(account_of(sandbox), url, events)
    found = await stripe.verify(StripeCredentials(KEY, secrets), HOOK)
    assert found.ok
    assert words in found.messages[-1]
    assert ("stripe-webhook" in found.messages[-1]) is ("leads here." not in words)


async def test_a_disabled_endpoint_is_none(stripe: Stripe, sandbox: StripeSandbox) -> None:
    endpoint = sandbox.add_endpoint(account_of(sandbox), HOOK, TYPES)
    endpoint.object["status"] = "disabled"
    assert "No active webhook endpoint" in said(await stripe.verify(CREDENTIALS, HOOK))
    sandbox.add_endpoint(account_of(sandbox), HOOK, TYPES[:5])
    sandbox.add_endpoint(account_of(sandbox), HOOK, TYPES[5:])
    assert "leads here." in said(await stripe.verify(CREDENTIALS, HOOK)), "two tell all that one would"


async def test_a_country_without_dollars_is_not_ok(stripe: Stripe, liar: Liar) -> None:
    liar.says(
        {"id": "acct_1", "country": "US", "charges_enabled": True, "supported_payment_currencies": ["eur"]}
        | {"data": []}
    )
    found = await stripe.verify(StripeCredentials(KEY), HOOK)
    assert (found.ok, found.currencies) == (False, [])
    assert "does not take USD" in said(found)


@pytest.mark.parametrize("country", [None, "", "../account", "ÄÖ", "U S"])
async def test_an_odd_country_goes_into_no_address(stripe: Stripe, liar: Liar, country: str | None) -> None:
    liar.says({"id": "acct_1", "country": country, "charges_enabled": True, "data": []})
    found = await stripe.verify(StripeCredentials(KEY), HOOK)
    assert (found.ok, found.currencies) == (True, [Currency.USD])
    assert not [path for path in liar.paths if "country_specs" in path]


@pytest.mark.parametrize(
    ("name", "kind"), [("rate_limited", Unreachable), ("error500", Ambiguous), ("html", Untrusted)]
)
async def test_without_an_answer_nothing_is_said_of_the_account(
    stripe: Stripe, sandbox: StripeSandbox, name: str, kind: type[Exception]
) -> None:
    sandbox.add_fault(name, on=["account.retrieve"])
    assert await concluded(stripe.verify(CREDENTIALS, HOOK)) is kind


# --- the webhook endpoint


async def test_an_endpoint_is_made_for_what_is_read_here(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The events of the table in the version that they are read by; the secret comes in this one answer."""
    endpoint = await stripe.provision(CREDENTIALS, HOOK)
    (seen,) = asked_for(sandbox, "webhook_endpoints.create")
    check_params(WebhookEndpointCreateParams, seen.params)
    assert seen.params["url"] == HOOK
    assert seen.params["api_version"] == API_VERSION
    assert seen.params["enabled_events"] == list(TYPES)
    made = account_of(sandbox).endpoints[endpoint.id]
    assert endpoint == Endpoint(made.id, HOOK, API_VERSION, list(TYPES), made.secret)
    assert endpoint.secret not in f"{endpoint!r} {endpoint}"
    assert hooks(sandbox, OTHERS.secret_key) == {}


async def test_a_lost_secret_is_replaced_without_a_gap(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The former one reports until the new one's secret is saved; then it goes, and those of other addresses stay."""
    account = account_of(sandbox)
    former, other = sandbox.add_endpoint(account, HOOK), sandbox.add_endpoint(account, f"{HOOK}y")
    endpoint = await stripe.provision(CREDENTIALS, HOOK)
    assert hooks(sandbox) == {former.id: HOOK, other.id: f"{HOOK}y", endpoint.id: HOOK}
    assert endpoint.former == [former.id]
    await stripe.retire(CREDENTIALS, endpoint.former)
    assert hooks(sandbox) == {other.id: f"{HOOK}y", endpoint.id: HOOK}


async def test_a_full_account_is_told_as_such(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Sixteen are the most; the words are Stripe's, and nothing is retired."""
    for number in range(16):
        sandbox.add_endpoint(account_of(sandbox), f"{HOOK}/{number}")
    with pytest.raises(Refused, match="maximum of 16"):
        await stripe.provision(CREDENTIALS, HOOK)
    assert len(hooks(sandbox)) == 16


async def test_a_restricted_key_cannot_set_it_up(stripe: Stripe, sandbox: StripeSandbox) -> None:
    key = "rk_test_NoWebhooks"
    sandbox.add_account(key, id=account_of(sandbox).id, may=["account.retrieve", "sessions.create"])
    with pytest.raises(Refused, match="list_endpoints"):
        await stripe.provision(StripeCredentials(key), HOOK)


async def test_a_lost_answer_leaves_one_endpoint_at_the_most(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """It is sent again with the same key, and the answer with the secret comes by that."""
    sandbox.add_fault("reset", on=["webhook_endpoints.create"], times=2)
    endpoint = await stripe.provision(CREDENTIALS, HOOK)
    assert hooks(sandbox) == {endpoint.id: HOOK}


@pytest.mark.parametrize("changes", [{"secret": None}, {"secret": ""}, {"url": "https://evil.example/"}, {"id": None}])
async def test_an_answer_without_a_secret_or_about_another_is_untrusted(
    stripe: Stripe, liar: Liar, changes: dict[str, Any]
) -> None:
    liar.says({"id": "we_1", "url": HOOK, "enabled_events": ["*"], "secret": "whsec_1", **changes})
    assert await concluded(stripe.provision(CREDENTIALS, HOOK)) is Untrusted


async def test_one_that_is_gone_already_is_no_fault(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Somebody removed it between our look and our request; the others go all the same."""
    gone, other = [sandbox.add_endpoint(account_of(sandbox), HOOK) for _ in range(2)]
    endpoint = await stripe.provision(CREDENTIALS, HOOK)
    assert set(endpoint.former) == {gone.id, other.id}
    del account_of(sandbox).endpoints[gone.id]
    await stripe.retire(CREDENTIALS, endpoint.former)
    assert hooks(sandbox) == {endpoint.id: HOOK}


async def test_a_refusal_to_remove_one_is_told(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Who may only make endpoints is not told that the former are gone."""
    former = sandbox.add_endpoint(account_of(sandbox), HOOK)
    key = "rk_test_MakesOnly"
    may = ["webhook_endpoints.create", "webhook_endpoints.list"]
    sandbox.add_account(key, id=account_of(sandbox).id, may=may)
    endpoint = await stripe.provision(StripeCredentials(key), HOOK)
    with pytest.raises(Refused, match="delete_endpoint"):
        await stripe.retire(StripeCredentials(key), endpoint.former)
    assert former.id in hooks(sandbox)
