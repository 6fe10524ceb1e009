"""The Stripe simulator's products, prices, ways to pay and payments without Checkout, called by the official SDK."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from payments_service.sandbox.stripe_direct import TEST_CARDS
from tests import stripe_world
from tests.stripe_world import World

stages, world = stripe_world.stages, stripe_world.world  # fixtures

CARD: dict[str, Any] = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
PRICE: dict[str, Any] = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Sand"}}
ADDRESS = {"line1": "1 Samora Machel Avenue", "city": "Harare", "country": "ZW"}


async def method(world: World, **fields: Any) -> str:
    made = await world.api.payment_methods.create_async(fields)
    return str(made.id)


async def test_a_session_of_a_price_that_there_is(world: World) -> None:
    product = await world.api.products.create_async({"name": "Cement", "images": ["https://example.com/bag.png"]})
    price = await world.api.prices.create_async({"product": product.id, "currency": "GBP", "unit_amount": 1250})
    session = await world.create(line_items=[{"price": price.id, "quantity": 3}], expand=["line_items"])
    assert (session.amount_total, session.currency) == (3750, "gbp")
    (line,) = session.line_items.data
    assert (line.price.id, line.price.product, line.description) == (price.id, product.id, "Cement")
    world.check_everything()


async def test_a_price_may_bring_its_product(world: World) -> None:
    price = await world.api.prices.create_async(PRICE)
    assert world.account.get("product", price.product)["name"] == "Sand"
    world.check_everything()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"quantity": 1}, "line_items[0][price_data]"),
        ({"price": "price_none", "quantity": 1}, "line_items[0][price]"),
        ({"price": "price_none", "price_data": PRICE, "quantity": 1}, "line_items[0][price]"),
    ],
)
async def test_lines_without_a_price_are_refused(world: World, line: dict[str, Any], told: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await world.create(line_items=[line])
    assert refused.value.param == told


async def test_prices_are_checked(world: World) -> None:
    for terms, told in (
        (PRICE | {"currency": "zwg"}, "currency"),
        ({"currency": "usd", "unit_amount": 1}, "product"),
        (PRICE | {"product": "prod_none"}, "product"),
        ({"currency": "usd", "unit_amount": 1, "product": "prod_none"}, "product"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await world.api.prices.create_async(terms)
        assert refused.value.param == told


async def test_a_card_is_charged_at_once(world: World) -> None:
    shipping = {"name": "Tariro", "address": ADDRESS}
    intent = await world.api.payment_intents.create_async(
        CARD | {"shipping": shipping, "metadata": {"order": "7"}, "allowed_payment_method_types": ["card"]},
        {"idempotency_key": "attempt-1"},
    )
    assert (intent.status, intent.amount_received, intent.shipping.address.city) == ("succeeded", 2000, "Harare")
    events = [event.object for event in world.account.events.values()]
    assert [event["type"] for event in events] == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    assert {event["request"]["idempotency_key"] for event in events} == {"attempt-1"}
    charge = await world.api.charges.retrieve_async(intent.latest_charge)
    assert (charge.payment_method, charge.payment_method_details.card.last4) == (intent.payment_method, "4242")
    world.check_everything()


async def test_a_payment_waits_for_its_confirmation(world: World) -> None:
    first = await world.api.payment_intents.create_async({"amount": 2000, "currency": "usd"})
    second = await world.api.payment_intents.create_async(CARD | {"confirm": False})
    assert (first.status, second.status) == ("requires_payment_method", "requires_confirmation")
    assert "charge" not in world.account.objects
    world.check_everything()


@pytest.mark.parametrize("card", ["chargeDeclined", "visa_chargeDeclined"])
async def test_a_declined_card_is_an_error_with_the_payment(world: World, card: str) -> None:
    declined = await method(world, type="card", card={"token": f"tok_{card}"})
    with pytest.raises(stripe.CardError) as refused:
        await world.api.payment_intents.create_async(CARD | {"payment_method": declined}, {"idempotency_key": "k"})
    assert (refused.value.http_status, refused.value.code) == (402, "card_declined")
    told: Any = refused.value.json_body
    intent = await world.api.payment_intents.retrieve_async(told["error"]["payment_intent"]["id"])
    assert (intent.status, intent.last_payment_error.decline_code) == ("requires_payment_method", "generic_decline")
    with pytest.raises(stripe.CardError):
        await world.api.payment_intents.create_async(CARD | {"payment_method": declined}, {"idempotency_key": "k"})
    assert len(world.account.objects["payment_intent"]) == 1
    world.check_everything()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"amount": 49}, "amount"),
        ({"amount": 100_000_000}, "amount"),
        ({"currency": "zig"}, "currency"),
        ({"payment_method": "pm_card_unheard"}, "payment_method"),
        ({"payment_method": "visa"}, "payment_method"),
        ({"payment_method": None}, "payment_method"),
        ({"payment_method_types": ["card"]}, "payment_method_types"),
    ],
)
async def test_payments_that_cannot_be(world: World, fields: dict[str, Any], told: str) -> None:
    asked = {name: value for name, value in (CARD | fields).items() if value is not None}
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await world.api.payment_intents.create_async(asked)
    assert refused.value.param == told
    assert "payment_intent" not in world.account.objects


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"type": "card"}, "card"),
        ({"type": "card", "card": {"token": "tok_unheard"}}, "card[token]"),
        ({"type": "sepa_debit", "card": {"token": "tok_visa"}}, "sepa_debit"),
        ({"type": "pix"}, "type"),
    ],
)
async def test_ways_to_pay_that_cannot_be(world: World, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await method(world, **fields)
    assert refused.value.param == told


@pytest.mark.parametrize("card", [card for card in TEST_CARDS if card.startswith("createDispute")])
async def test_a_disputed_payment_is_given_up_once(world: World, card: str) -> None:
    intent = await world.api.payment_intents.create_async(CARD | {"payment_method": f"pm_card_{card}"})
    (dispute,) = (await world.api.disputes.list_async({"payment_intent": intent.id})).data
    inquiry = dispute.status == "warning_needs_response"
    closed = await world.api.disputes.close_async(dispute.id)
    assert closed.status == ("warning_closed" if inquiry else "lost")
    with pytest.raises(stripe.InvalidRequestError, match="already closed"):
        await world.api.disputes.close_async(dispute.id)
    assert (closed.amount, inquiry) == (2000, card == "createDisputeInquiry")
    world.check_everything()


async def test_a_refund_keeps_what_is_added_to_its_metadata(world: World) -> None:
    intent = await world.api.payment_intents.create_async(CARD)
    refund = await world.api.refunds.create_async({"payment_intent": intent.id, "metadata": {"order": "7"}})
    changed = await world.api.refunds.update_async(refund.id, {"metadata": {"why": "broken"}})
    assert changed.metadata.to_dict() == {"order": "7", "why": "broken"}
    newest = list(world.account.events.values())[-1].object
    assert newest["data"]["previous_attributes"] == {"metadata": {"order": "7"}}
    world.check_everything()


# --- the hosted page's own calls, which the SDK does not have


async def confirm(world: World, session: str, **fields: Any) -> dict[str, Any]:
    path = f"/v1/payment_pages/{session}/confirm"
    reply = await world.client().raw_request_async("post", path, **fields)
    return dict(reply.data)


async def test_the_page_takes_a_card(world: World) -> None:
    session = await world.create()
    page = await confirm(world, session.id, payment_method="pm_card_visa", expected_amount=1250)
    assert (page["session_id"], page["status"], page["payment_status"]) == (session.id, "complete", "paid")
    assert page["amount_total"] == 1250


async def test_after_a_declined_card_the_page_takes_another(world: World) -> None:
    session = await world.create()
    with pytest.raises(stripe.CardError):
        await confirm(world, session.id, payment_method="pm_card_visa_chargeDeclined")
    assert (await world.api.checkout.sessions.retrieve_async(session.id)).status == "open"
    assert (await confirm(world, session.id, payment_method="pm_card_visa"))["payment_status"] == "paid"
    with pytest.raises(stripe.InvalidRequestError, match="`complete`"):
        await confirm(world, session.id, payment_method="pm_card_visa")
    assert len(world.account.objects["payment_intent"]) == 1


async def test_the_page_knows_its_amount_and_its_ways_to_pay(world: World) -> None:
    session = await world.create()
    bank = await method(world, type="sepa_debit", sepa_debit={"iban": "AT611904300234573201"})
    for fields, told in (
        ({"payment_method": "pm_card_visa", "expected_amount": 1}, "expected_amount"),
        ({"payment_method": bank}, "payment_method"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await confirm(world, session.id, **fields)
        assert refused.value.param == told


@pytest.mark.parametrize(("iban", "status"), [("AT611904300234573201", "paid"), ("AT861904300235473202", "unpaid")])
async def test_the_page_takes_money_from_a_bank_account(world: World, iban: str, status: str) -> None:
    session = await world.create(allowed_payment_method_types=["sepa_debit"])
    bank = await method(world, type="sepa_debit", sepa_debit={"iban": iban}, billing_details={"address": ADDRESS})
    page = await confirm(world, session.id, payment_method=bank)
    assert (page["status"], page["payment_status"]) == ("complete", "unpaid")
    await world.sandbox.settled()
    assert (await world.api.checkout.sessions.retrieve_async(session.id)).payment_status == status
    intent = world.sandbox.session(session.id)["payment_intent"]
    await world.api.payment_intents.retrieve_async(intent, {"expand": ["latest_charge"]})
