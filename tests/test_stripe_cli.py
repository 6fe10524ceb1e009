"""Stripe's official CLI against the simulator: its own fixtures and commands, and its list of parameters.

Both sides of the CLI are an oracle: the simulator must take what Stripe's fixtures send and answer so that they
run to their end, and a parameter that the CLI does not list is none of Stripe's. It lists those of an API
version that is one release older; where a fixture sends what that release removed, the tests say so.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import pytest
import stripe
from stripe import params
from stripe.params import checkout

from payments_service.sandbox.stripe_catalog import API_VERSION
from payments_service.sandbox.stripe_direct_api import PARAMETERS
from tests import stripe_cli, stripe_world
from tests.stripe_cli import NoCli, StripeCli, cli_parameters, unlisted
from tests.stripe_types import check_answer, check_params, own_fields
from tests.stripe_world import ACCOUNT, KEY, OTHER_KEY, Merchant, World
from tests.test_stripe_types import compare

pytestmark = pytest.mark.usefixtures("stripe_program")
stages, world = stripe_world.stages, stripe_world.world  # fixtures

# "endive" has no `payment_method_types` any more, which all fixtures with a PaymentIntent of their own send.
ENDIVE = (
    *("--api-version", API_VERSION),
    *("--remove", "payment_intent:payment_method_types"),
    *("--add", "payment_intent:allowed_payment_method_types[0]=card"),
)

# The SDK's type of the parameters of what only the CLI calls; `payment_pages` are on no list of Stripe's API.
SDK_PARAMS: dict[str, Any] = {
    "products.create": params.ProductCreateParams,
    "prices.create": params.PriceCreateParams,
    "payment_methods.create": params.PaymentMethodCreateParams,
    "payment_intents.create": params.PaymentIntentCreateParams,
    "refunds.update": params.RefundUpdateParams,
    "disputes.close": params.DisputeCloseParams,
}


@pytest.fixture
def cli(world: World) -> StripeCli:
    return StripeCli(world.url, KEY)


def verified(merchant: Merchant, secret: str) -> dict[str, Any]:
    """The newest event of each type that reached the merchant, all of them well signed and as the SDK's types say."""
    for body, signature in merchant.posts:
        stripe.WebhookSignature.verify_header(body.decode(), signature, secret, 300)
    for event in merchant.events:
        check_answer(event)
    return {event["type"]: event["data"]["object"] for event in merchant.events}


async def triggered(world: World, cli: StripeCli, event: str, *arguments: str) -> dict[str, Any]:
    """What the merchant is told when the CLI's fixture of this event has run."""
    endpoint = await world.listen()
    await cli.trigger(event, *arguments)
    await world.sandbox.settled()
    for seen in world.sandbox.requests:
        assert seen.operation.startswith("webhook_endpoints") or "stripe-cli" in seen.headers["user-agent"]
        if sdk_params := SDK_PARAMS.get(seen.operation):
            check_params(sdk_params, seen.params)
    told = verified(world.merchant, endpoint["secret"])
    assert event in told
    return told


# --- Stripe's own fixtures


async def test_a_paid_checkout_session(world: World, cli: StripeCli) -> None:
    """Unchanged: product, price, session, and the hosted page's own calls."""
    ours = ("--add", "checkout_session:client_reference_id=INV-9", "--add", "checkout_session:metadata[order]=7")
    told = await triggered(world, cli, "checkout.session.completed", *ours)
    session = told["checkout.session.completed"]
    assert (session["payment_status"], session["status"], session["mode"]) == ("paid", "complete", "payment")
    assert (session["amount_total"], session["currency"]) == (2 * 1500, "usd")
    assert (session["client_reference_id"], session["metadata"]) == ("INV-9", {"order": "7"})
    intent = told["payment_intent.succeeded"]
    assert (intent["id"], intent["amount_received"]) == (session["payment_intent"], 3000)
    assert intent["shipping"]["address"]["line1"] == "510 Townsend St"
    assert told["charge.succeeded"]["payment_intent"] == intent["id"]
    lines = world.account.line_items[session["id"]]
    assert [line["price"]["id"] for line in lines] == [told["price.created"]["id"]]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        ("checkout.session.async_payment_succeeded", "paid"),
        ("checkout.session.async_payment_failed", "unpaid"),
    ],
)
async def test_money_from_a_bank_account_comes_later_or_not(
    world: World, cli: StripeCli, event: str, status: str
) -> None:
    told = await triggered(
        *(world, cli, event, "--api-version", API_VERSION),
        *("--remove", "checkout_session:payment_method_types"),
        *("--remove", "checkout_session:payment_intent_data.setup_future_usage"),
        *("--add", "checkout_session:allowed_payment_method_types[0]=sepa_debit"),
    )
    before, after = told["checkout.session.completed"], told[event]
    assert (before["status"], before["payment_status"]) == ("complete", "unpaid")
    assert (after["id"], after["payment_status"], after["currency"]) == (before["id"], status, "eur")


async def test_an_expired_checkout_session(world: World, cli: StripeCli) -> None:
    """Unchanged."""
    told = await triggered(world, cli, "checkout.session.expired")
    assert told["checkout.session.expired"]["status"] == "expired"
    assert world.sandbox.calls["sessions.expire"] == 1


async def test_a_declined_card(world: World, cli: StripeCli) -> None:
    """The fixture wants an error of the type card_error, and no other."""
    told = await triggered(world, cli, "payment_intent.payment_failed", *ENDIVE)
    intent = told["payment_intent.payment_failed"]
    assert (intent["status"], intent["amount"]) == ("requires_payment_method", 2000)
    assert intent["last_payment_error"]["code"] == "card_declined"
    assert told["charge.failed"]["id"] == intent["latest_charge"]
    assert "payment_intent.succeeded" not in told


async def test_a_refund(world: World, cli: StripeCli) -> None:
    told = await triggered(world, cli, "charge.refunded", *ENDIVE)
    charge, refund = told["charge.refunded"], told["refund.created"]
    assert (charge["refunded"], charge["amount_refunded"], charge["amount"]) == (True, 100, 100)
    assert (refund["charge"], refund["amount"], refund["status"]) == (charge["id"], 100, "succeeded")


async def test_an_updated_refund(world: World, cli: StripeCli) -> None:
    told = await triggered(world, cli, "charge.refund.updated", *ENDIVE)
    assert told["refund.updated"] == told["charge.refund.updated"]
    assert told["refund.updated"]["metadata"] == {"order_id": "6735"}


async def test_a_dispute_that_the_merchant_gives_up(world: World, cli: StripeCli) -> None:
    """The fixture of charge.dispute.closed begins as the one of charge.dispute.created."""
    told = await triggered(world, cli, "charge.dispute.closed", *ENDIVE)
    created, closed = told["charge.dispute.created"], told["charge.dispute.closed"]
    assert (created["id"], created["status"]) == (closed["id"], "warning_needs_response")
    assert closed["status"] == "warning_closed"
    assert created["charge"] == told["charge.succeeded"]["id"]


async def test_a_dispute_over_money(world: World, cli: StripeCli) -> None:
    """The fixture's card makes an inquiry; another of Stripe's test cards a real dispute."""
    fraud = ("--override", "payment_intent:payment_method=pm_card_createDispute")
    told = await triggered(world, cli, "charge.dispute.created", *ENDIVE, *fraud)
    dispute = told["charge.dispute.created"]
    assert (dispute["status"], dispute["reason"], dispute["amount"]) == ("needs_response", "fraudulent", 100)
    assert "charge.dispute.funds_withdrawn" in told


async def test_a_fixture_that_is_refused_fails(world: World, cli: StripeCli) -> None:
    """The oracle itself: endive refuses what it has removed, and the CLI sees it."""
    ran = await cli("trigger", "charge.refunded", "--api-version", API_VERSION)
    assert ran.code == 1
    assert "Received unknown parameter: payment_method_types" in ran.err
    assert world.sandbox.calls == {"payment_intents.create": 1}


# --- commands


async def test_a_session_from_its_creation_to_its_refund(world: World, cli: StripeCli) -> None:
    """As somebody would try the simulator out by hand; every answer is as the SDK's types say."""
    price = "line_items[0][price_data]"
    created = await cli(
        *("checkout", "sessions", "create", "--mode=payment", "--client-reference-id=INV-1", "-v", API_VERSION),
        *("--success-url", f"{world.merchant.url}/thanks", "-d", "metadata[order no]=7 & 8", "-i", "attempt-1"),
        *("-d", f"{price}[currency]=usd", "-d", f"{price}[unit_amount]=1250", "-d", "line_items[0][quantity]=2"),
        *("-d", f"{price}[product_data][name]=Größe & 50% = more"),
    )
    session = created.json
    assert (session["amount_total"], session["metadata"]) == (2500, {"order no": "7 & 8"})
    seen = world.sandbox.requests[-1]
    assert seen.headers["idempotency-key"] == "attempt-1"
    check_params(checkout.SessionCreateParams, seen.params)
    assert seen.params["line_items"][0]["price_data"]["product_data"]["name"] == "Größe & 50% = more"

    await world.sandbox.pay("INV-1")
    expand = ("-e", "payment_intent.latest_charge")
    paid = (await cli("checkout", "sessions", "retrieve", session["id"], *expand)).json
    assert (paid["payment_status"], paid["payment_intent"]["latest_charge"]["paid"]) == ("paid", True)
    refund = (await cli("refunds", "create", "--payment-intent", paid["payment_intent"]["id"], "--amount=500")).json
    assert (refund["amount"], refund["status"]) == (500, "succeeded")
    for answer in (session, paid, refund):
        check_answer(answer)


async def test_an_expired_session_cannot_be_expired_again(world: World, cli: StripeCli) -> None:
    session = await world.create()
    assert (await cli("checkout", "sessions", "expire", session.id)).json["status"] == "expired"
    assert (await cli("post", f"/v1/checkout/sessions/{session.id}/expire")).json["error"]["type"] == (
        "invalid_request_error"
    )


async def test_an_endpoint_and_its_lost_events(world: World, cli: StripeCli) -> None:
    types = ("checkout.session.completed", "charge.refunded")
    endpoint = (
        await cli(
            *("webhook_endpoints", "create", "--url", f"{world.merchant.url}/hook", "--api-version", API_VERSION),
            *(part for kind in types for part in ("--enabled-events", kind)),
        )
    ).json
    assert endpoint["secret"].startswith("whsec_")
    assert endpoint["enabled_events"] == list(types)
    await world.create()
    await world.sandbox.pay("INV-1", send=False)
    lost = (await cli("events", "list", "--delivery-success=false", "--limit=5", "--types", types[0])).json
    assert [event["type"] for event in lost["data"]] == [types[0]]
    assert (await cli("events", "retrieve", lost["data"][0]["id"])).json == lost["data"][0]
    assert (await cli("get", "/v1/events", "-d", "limit=1")).json["has_more"]
    check_answer(lost)


async def test_another_key_is_another_account(world: World, cli: StripeCli) -> None:
    session = await world.create()
    assert (await cli("get", "/v1/account")).json["id"] == ACCOUNT
    theirs = await StripeCli(world.url, OTHER_KEY)("checkout", "sessions", "retrieve", session.id)
    assert theirs.json["error"]["code"] == "resource_missing"
    refused = await StripeCli(world.url, KEY + "0")("get", "/v1/account")
    assert (refused.code, refused.out) == (1, "")
    assert "Invalid API Key provided" in refused.err


# --- the parameters of the API


@pytest.mark.parametrize("operation", SDK_PARAMS)
def test_the_simulator_takes_only_parameters_that_the_sdk_knows(operation: str) -> None:
    compare(PARAMETERS[operation], SDK_PARAMS[operation], operation)


@pytest.mark.parametrize(
    ("command", "some"),
    [
        ("checkout sessions create", {"mode", "expires_at", "payment_intent_data.description"}),
        ("refunds create", {"amount", "payment_intent", "reason"}),
        ("webhook_endpoints create", {"url", "enabled_events", "api_version"}),
        ("events list", {"types", "delivery_success", "created", "starting_after"}),
    ],
)
def test_the_cli_lists_the_parameters_of_a_command(command: str, some: set[str]) -> None:
    listed = cli_parameters(command)
    assert some <= listed
    assert not listed & {"api_key", "confirm", "dry_run", "stripe_version"}, "the CLI's own flags are none"


def test_of_checkout_sessions_endive_has_renamed_one_parameter() -> None:
    """What the CLI and the SDK list differs by that, and by what the CLI never lists."""
    listed = {name.partition(".")[0] for name in cli_parameters("checkout sessions create")}
    known = own_fields(checkout.SessionCreateParams).keys()
    lists = {"custom_fields", "discounts", "line_items", "optional_items", "shipping_options"}
    assert listed - known == {"payment_method_types"}
    assert known - listed == {"allowed_payment_method_types", "expand", "metadata", *lists}


def test_what_the_api_does_not_have_is_told() -> None:
    assert unlisted("events list", {"types": ["a.b"], "delivery_success": False, "created": {"gte": 1}}) == set()
    assert unlisted("events list", {"typs": ["a.b"], "created": {"gte": 1}, "limit": 3}) == {"typs"}
    session = {
        "mode": "payment",
        "line_items": [{"quantity": 1}],
        "metadata": {"any": "name"},
        "payment_intent_data": {"metadata": {"any": "name"}, "description": "", "descriptor": ""},
        "allowed_payment_method_types": ["card"],
        "expand": ["payment_intent"],
        "expires_in": 1800,
    }
    assert unlisted("checkout sessions create", session) == {"expires_in", "payment_intent_data.descriptor"}


# --- where it comes from


@pytest.mark.parametrize("version", ["", ".1"])
def test_elsewhere_the_cli_of_the_machine_is_used_if_it_is_the_pinned_one(
    version: str, stripe_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "stripe"
    own.write_text(f'#!/bin/sh\nprintf "%s{version}" "$({stripe_program} "$@")"\n')
    own.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    if version:
        with pytest.raises(NoCli, match=r"put `stripe` [0-9.]+ into the PATH"):
            stripe_cli.program.__wrapped__()
    else:
        assert stripe_cli.program.__wrapped__() == own
