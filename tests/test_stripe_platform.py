"""The platform's own webhook endpoint: whose event it is, and what of it is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from tests.house import House
from tests.stripe_shop import Shop, changed, open_service
from tests.test_stripe_webhooks import COMPLETED, PLATFORM, post_to


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres, stripe_webhook_secret=",".join(PLATFORM)) as house:
        yield house


@pytest.fixture
async def shop(service: House) -> Shop:
    return await Shop.open(service)


@pytest.fixture
async def payment(shop: Shop) -> Any:
    """Paid at Stripe; nobody has told us."""
    payment = await shop.link()
    await shop.stripe.pay(shop.reference(payment), send=False)
    return payment


async def tell(shop: Shop, event: dict[str, Any], **more: object) -> None:
    answer = await shop.post({**event, **more}, secret=PLATFORM[0], path="/callbacks/stripe")
    assert (answer.status, answer.json) == (200, {"received": True})


async def test_it_finds_the_tenant(shop: Shop, payment: Any) -> None:
    """By the metadata of a session, by Stripe's name of the payment for refunds and disputes; either secret, while one
    is rolled, signs."""
    reference, new, old = shop.reference(payment), *PLATFORM
    await shop.stripe.refund(reference, 250, send=False)
    await shop.stripe.dispute(reference, 1000, send=False)
    for kind, secret, after in (
        (COMPLETED, new, ("paid", 0)),
        ("refund.created", old, ("partially_refunded", 250)),
        ("charge.refunded", new, ("partially_refunded", 250)),
        ("charge.dispute.created", old, ("disputed", 250)),
    ):
        for _ in range(2):
            answer = await shop.post(shop.event(payment, kind), secret=secret, path="/callbacks/stripe")
            assert answer.status == 200, answer.body
        assert shop.now(payment) == after
    assert shop.told(payment) == ["link_created", "paid", "partially_refunded", "disputed"]


async def test_it_believes_its_own_secrets_only(shop: Shop, payment: Any) -> None:
    """A tenant's secret signs nothing there; where none is set, nobody is believed."""
    event = shop.event(payment, COMPLETED)
    assert (await shop.post(event, path="/callbacks/stripe")).status == 400
    none = replace(shop.world.context, stripe_webhook_secrets=())
    for secret in (*PLATFORM, ""):
        assert (await post_to(none, shop, event, "/callbacks/stripe", secret)).status == 400
    assert shop.now(payment) == ("pending", 0)


async def test_it_ignores_what_is_nobodys(shop: Shop, payment: Any) -> None:
    """200 for no tenant, a tenant without Stripe, an unknown payment, the other mode, a kind that is not read."""
    event = shop.event(payment, COMPLETED)
    for foreign in (
        changed(event, metadata={}),
        changed(event, metadata={"client_id": str(uuid4())}),
        changed(event, metadata={"client_id": "x"}),
        {**changed(event), "livemode": True},
        {**changed(event), "type": "customer.created"},
    ):
        answer = await shop.post(foreign, secret=PLATFORM[0], path="/callbacks/stripe")
        assert (answer.status, answer.json) == (200, {"received": True}), foreign
    assert shop.now(payment) == ("pending", 0)


# --- connected accounts: what their owners write is theirs


async def test_a_connected_accounts_event_is_a_hint_only(shop: Shop, service: House) -> None:
    """A merchant with an account of his own names another tenant's attempt in his metadata and pays himself: the
    look-up with the tenant's own key says what is true."""
    payment, thief = await shop.link(), await Shop.open(service)
    paid = await thief.paid()
    attempt = shop.attempt(payment)
    names = {"client_id": str(shop.client_id), "attempt_id": str(attempt["id"])}
    forged = changed(
        thief.event(paid, COMPLETED),
        client_reference_id=attempt["reference"],
        metadata=names,
        id="cs_of_the_thief",
        payment_intent="pi_of_the_thief",
    )
    await tell(shop, forged, account="acct_of_the_thief")
    attempt = shop.attempt(payment)
    assert attempt["next_check_at"] <= shop.world.clock()
    await shop.look()
    attempt = shop.attempt(payment)
    assert (shop.now(payment), attempt["state"], attempt["gateway_reference"]) == (("pending", 0), "live", None)
    assert "thief" not in attempt["poll_url"]
    assert shop.told(payment) == ["link_created"]
    await shop.stripe.pay(shop.reference(payment))
    await shop.until(payment, "paid")


async def test_a_connected_accounts_event_that_is_true(shop: Shop, payment: Any) -> None:
    """The look-up that it makes due finds the same."""
    shop.forward(seconds=2)
    await tell(shop, shop.event(payment, COMPLETED), account=shop.account.id)
    assert shop.now(payment) == ("pending", 0)
    await shop.look()
    assert shop.now(payment) == ("paid", 0)
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    await tell(shop, shop.event(payment, "refund.created"), account=shop.account.id)
    assert shop.now(payment) == ("paid", 0)
    await shop.look()
    assert shop.now(payment) == ("partially_refunded", 250)


@pytest.mark.parametrize("first", ["victim", "thief"])
async def test_money_that_two_tenants_claim_is_nobodys(shop: Shop, service: House, first: str) -> None:
    """A tenant signs an event with another's payment intent: what the platform is told of it then names neither, and
    each is told by its own account."""
    thief = await Shop.open(service)
    claims = []
    for one in (shop, thief) if first == "victim" else (thief, shop):
        claim = await one.link()
        await one.stripe.pay(one.reference(claim), send=False)
        claims.append((one, claim))
    payment = next(claim for one, claim in claims if one is shop)
    intent = shop.event(payment, COMPLETED)["data"]["object"]["payment_intent"]
    for one, claim in claims:
        assert (await one.post(changed(one.event(claim, COMPLETED), payment_intent=intent))).status == 200
        assert one.now(claim) == ("paid", 0)
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    refund = shop.event(payment, "refund.created")
    await tell(shop, refund)
    assert [one.now(claim) for one, claim in claims] == [("paid", 0)] * 2
    assert (await shop.post(refund)).status == 200
    assert {one.client_id: one.now(claim)[1] for one, claim in claims} == {shop.client_id: 250, thief.client_id: 0}


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_money_of_a_try_that_was_not_paid_names_nobody(shop: Shop, payment: Any) -> None:
    """Only of money that came it is known whose it is."""
    assert (await shop.post(shop.event(payment, COMPLETED))).status == 200
    shop.world.rows_do("UPDATE attempts SET state = 'failed' WHERE payment_id = %s", payment["id"])
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    await tell(shop, shop.event(payment, "refund.created"))
    assert shop.now(payment) == ("paid", 0)
