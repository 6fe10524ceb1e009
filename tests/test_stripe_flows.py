"""A payment by Stripe from link to receipt and beyond, from outside: over HTTP, with workers, simulator and backend."""

from __future__ import annotations

from typing import Any

import pytest

from payments_service import payments
from tests.house import House, eventually

CARD = {"way": "stripe.card"}


@pytest.fixture
async def shop(house: House) -> House:
    await house.save_stripe()
    return house


async def status_of(house: House, payment: Any, status: str) -> Any:
    """Wait until the payment has this status; the payment then."""

    async def look() -> Any:
        now = await house.payment(payment)
        return now if now["status"] == status else None

    return await eventually(look)


def told(house: House, payment: Any) -> list[str]:
    return [event["type"] for event in house.world.backend.of(payment["id"])]


async def test_a_card_payment_from_link_to_event(shop: House) -> None:
    """The link leads to Stripe's page; what its signed event says is recorded, told once, and shown on the page."""
    payment = await shop.create_link(gateway="stripe", contact_email="buyer@example.com")
    assert payment["payment_url"].startswith(shop.world.stripe.public_url + "/c/pay/cs_")
    await shop.world.stripe.pay(shop.reference_of(payment))
    paid = await status_of(shop, payment, "paid")
    assert paid["gateway_reference"].startswith("pi_")
    assert (paid["gateway"], paid["late"], paid["refunded_cents"]) == ("stripe", False, 0)
    await eventually(lambda: told(shop, payment) == ["payment.link_created", "payment.paid"])


async def test_a_refund_by_api_and_one_in_the_dashboard(shop: House) -> None:
    payment = await shop.create_link(gateway="stripe")
    await shop.world.stripe.pay(shop.reference_of(payment))
    await status_of(shop, payment, "paid")
    path = shop.path(f"/payments/{payment['id']}/refunds")
    answer = await shop.call("POST", path, {"amount_cents": 250, "reason": "one bag was torn"})
    assert answer.status == 201, answer.body
    assert answer.json["status"] == "succeeded"
    assert answer.json["payment"]["status"] == "partially_refunded"
    assert answer.json["payment"]["refunded_cents"] == 250
    await shop.world.stripe.refund(shop.reference_of(payment))
    refunded = await status_of(shop, payment, "refunded")
    assert refunded["refunded_cents"] == 1250
    assert [each["amount_cents"] for each in (await shop.call("GET", path)).json["data"]] == [250, 1000]


async def test_a_lost_webhook(shop: House) -> None:
    shop.world.stripe.drop_webhooks = True
    payment = await shop.create_link(gateway="stripe")
    await shop.world.stripe.pay(shop.reference_of(payment))
    await status_of(shop, payment, "paid")


async def test_a_dispute_lost_and_one_won(shop: House) -> None:
    for outcome, after in (("won", "paid"), ("lost", "refunded")):
        payment = await shop.create_link(gateway="stripe")
        reference = shop.reference_of(payment)
        await shop.world.stripe.pay(reference)
        await status_of(shop, payment, "paid")
        await shop.world.stripe.dispute(reference)
        await status_of(shop, payment, "disputed")
        await shop.world.stripe.close_dispute(reference, outcome)
        await status_of(shop, payment, after)


async def test_the_page_starts_a_new_session_when_the_old_one_is_dead(shop: House) -> None:
    payment = await shop.create_link(gateway="stripe")
    first = shop.reference_of(payment)
    await shop.world.stripe.expire(first)
    page = f"/pay/{payment['page_url'].rsplit('/', 1)[1]}"

    async def again() -> Any:
        answer = await shop.get_public(page, method="POST", data=CARD)
        return answer.headers["Location"] if shop.reference_of(payment) != first else None

    where = await eventually(again)
    assert where.startswith(shop.world.stripe.public_url + "/c/pay/cs_")
    await shop.world.stripe.pay(shop.reference_of(payment))
    await status_of(shop, payment, "paid")


async def test_verify_and_webhook_set_up(shop: House) -> None:
    answer = await shop.call("POST", shop.path("/payment-settings/verify"), {"gateway": "stripe"})
    assert answer.status == 200
    assert answer.json["ok"]
    answer = await shop.call("POST", shop.path("/payment-settings/stripe-webhook"))
    assert answer.status == 201
    payment = await shop.create_link(gateway="stripe")
    await shop.world.stripe.pay(shop.reference_of(payment))
    await status_of(shop, payment, "paid")
    await shop.save_paynow()
    answer = await shop.call("POST", shop.path("/payment-settings/verify"), {"gateway": "paynow"})
    assert answer.status == 200
    assert answer.json["ok"]


@pytest.mark.parametrize("settle", [True, False], ids=["comes", "bounces"])
async def test_money_that_a_bank_sends_for_days(shop: House, settle: bool) -> None:
    """The page says so and starts nothing else; the link can neither be cancelled nor expire meanwhile."""
    payment = await shop.create_link(gateway="stripe")
    stripe, reference = shop.world.stripe, shop.reference_of(payment)
    page = f"/pay/{payment['page_url'].rsplit('/', 1)[1]}"
    await stripe.pay_later(reference)

    async def shown() -> bool:
        return b"Your bank is sending the money" in (await shop.get_public(page)).body

    await eventually(shown)
    answer = await shop.get_public(page, method="POST", data=CARD)
    assert answer.headers["Location"] == page.rsplit("/", 1)[1]
    cancelled = await shop.call("POST", shop.path(f"/payments/{payment['id']}/cancel"))
    assert (cancelled.status, cancelled.json["code"]) == (409, "wrong_state")
    shop.world.clock.forward(days=8)
    await payments.expire_due(shop.world.context)
    assert (await shop.payment(payment))["status"] == "pending"
    shop.world.clock.ahead *= 0
    await (stripe.settle if settle else stripe.bounce)(reference)
    await status_of(shop, payment, "paid" if settle else "failed")
    assert len(stripe.sessions()) == 1
