"""The Stripe simulator against the official SDK's generated types: what it sends, and what it takes."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import pytest
import stripe
from stripe import params
from stripe.params import checkout

from payments_service.sandbox.stripe_catalog import API_VERSION, API_VERSIONS, EVENT_TYPES
from payments_service.sandbox.stripe_params import Choice, Hash, Many, Moments, Reader
from payments_service.sandbox.stripe_requests import BEYOND, OPERATIONS, PARAMETERS
from tests import stripe_world
from tests.stripe_types import (
    Misfit,
    check_answer,
    check_object,
    check_params,
    literals_of,
    nested_params,
    own_fields,
)
from tests.stripe_world import World

stages, world = stripe_world.stages, stripe_world.world  # fixtures

# The SDK's type of each operation's parameters.
SDK_PARAMS: dict[str, Any] = {
    "sessions.create": checkout.SessionCreateParams,
    "sessions.retrieve": checkout.SessionRetrieveParams,
    "sessions.list": checkout.SessionListParams,
    "sessions.expire": checkout.SessionExpireParams,
    "payment_intents.retrieve": params.PaymentIntentRetrieveParams,
    "charges.retrieve": params.ChargeRetrieveParams,
    "refunds.create": params.RefundCreateParams,
    "refunds.retrieve": params.RefundRetrieveParams,
    "refunds.list": params.RefundListParams,
    "disputes.retrieve": params.DisputeRetrieveParams,
    "disputes.list": params.DisputeListParams,
    "events.retrieve": params.EventRetrieveParams,
    "events.list": params.EventListParams,
    "account.retrieve": params.AccountRetrieveCurrentParams,
    "country_specs.retrieve": params.CountrySpecRetrieveParams,
    "webhook_endpoints.create": params.WebhookEndpointCreateParams,
    "webhook_endpoints.retrieve": params.WebhookEndpointRetrieveParams,
    "webhook_endpoints.update": params.WebhookEndpointUpdateParams,
    "webhook_endpoints.delete": params.WebhookEndpointDeleteParams,
    "webhook_endpoints.list": params.WebhookEndpointListParams,
}


# --- what the simulator takes


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_simulator_takes_only_parameters_that_the_sdk_knows(operation: str) -> None:
    """Names at every depth, values of enumerations; what the SDK requires is required here too."""
    compare(PARAMETERS[operation], SDK_PARAMS[operation], operation)


def compare(ours: Hash, theirs: Any, at: str) -> None:
    known = dict(nested_params(theirs))
    assert ours.fields.keys() <= known.keys(), f"{at}: {ours.fields.keys() - known.keys()}"
    assert ours.beyond <= known.keys(), f"{at}: {ours.beyond - known.keys()}"
    assert theirs.__required_keys__ <= set(ours.required), at
    for name, reader in ours.fields.items():
        where = f"{at}[{name}]"
        inner = _within(reader)
        if isinstance(inner, Choice):
            assert set(inner.names) <= set(literals_of(theirs, name)), where
        elif isinstance(inner, Hash):
            assert known[name] is not None, where
            compare(inner, known[name], where)


def _within(reader: Reader) -> Reader:
    if isinstance(reader, Many):
        return reader.item
    return reader.bounds if isinstance(reader, Moments) else reader


@pytest.mark.parametrize("operation", ["sessions.create", "refunds.create", "sessions.list"])
def test_of_the_rest_the_simulator_says_that_it_does_not_act_on_it(operation: str) -> None:
    """What the SDK knows is either supported or named as beyond: nothing real is called unknown."""
    ours = PARAMETERS[operation]
    assert ours.fields.keys() | ours.beyond == own_fields(SDK_PARAMS[operation]).keys()
    assert not ours.fields.keys() & ours.beyond


def test_the_removed_parameter_is_neither_known_nor_beyond() -> None:
    assert "payment_method_types" not in BEYOND | PARAMETERS["sessions.create"].fields.keys()
    assert "payment_method_types" not in own_fields(checkout.SessionCreateParams)


def test_the_simulator_speaks_the_versions_of_the_sdk() -> None:
    assert stripe.api_version == API_VERSION
    assert set(API_VERSIONS) <= set(literals_of(params.WebhookEndpointCreateParams, "api_version"))
    assert set(EVENT_TYPES) <= set(literals_of(params.WebhookEndpointCreateParams, "enabled_events"))


# --- what the simulator sends


async def test_every_object_of_a_whole_life_is_one_that_the_sdk_declares(world: World) -> None:
    """Sessions in all states, intents, charges, refunds, disputes, events, endpoints, account, country."""
    await world.listen()
    sandbox = world.sandbox
    for number in range(6):
        await world.create(f"INV-{number}", expand=["line_items"])
    await sandbox.decline("INV-0")
    await sandbox.pay("INV-0")
    await sandbox.pay_later("INV-1")
    await sandbox.settle("INV-1")
    await sandbox.pay_later("INV-2")
    await sandbox.bounce("INV-2")
    await sandbox.decline("INV-3")
    await sandbox.expire("INV-3")
    await sandbox.pay("INV-4")
    pending = await sandbox.refund("INV-0", 100, "pending")
    await sandbox.move_refund(pending["id"], "failed")
    await sandbox.refund("INV-0", 100)
    dispute = await sandbox.dispute("INV-4")
    await sandbox.close_dispute("INV-4", "lost")
    await sandbox.settled()
    await read_everything(world, pending["id"], dispute["id"])
    world.check_everything()


async def read_everything(world: World, refund: str, dispute: str) -> None:
    api, expand = world.api, {"expand": ["data.payment_intent.latest_charge.refunds"]}
    sessions = await api.checkout.sessions.list_async({"expand": [*expand["expand"], "data.line_items"], "limit": 5})
    for session in sessions.data:
        await api.checkout.sessions.retrieve_async(session.id, {"expand": ["payment_intent.latest_charge"]})
    intent = (await api.refunds.retrieve_async(refund)).payment_intent
    charge = (await api.payment_intents.retrieve_async(intent)).latest_charge
    await api.charges.retrieve_async(charge, {"expand": ["refunds", "payment_intent"]})
    await api.refunds.list_async({"payment_intent": intent, "expand": ["data.charge"]})
    await api.disputes.retrieve_async(dispute)
    await api.disputes.list_async({"charge": (await api.disputes.retrieve_async(dispute)).charge})
    events = await api.events.list_async({"limit": 100})
    await api.events.retrieve_async(events.data[0].id)
    await api.accounts.retrieve_current_async()
    await api.country_specs.retrieve_async("US")
    (endpoint,) = (await api.webhook_endpoints.list_async()).data
    await api.webhook_endpoints.retrieve_async(endpoint.id)
    await api.webhook_endpoints.update_async(endpoint.id, {"disabled": True})
    await api.webhook_endpoints.delete_async(endpoint.id)


async def test_what_the_sdk_sends_is_received_as_the_sdk_meant_it(world: World) -> None:
    """The nested parameters on record are those of the call, and fit the SDK's own type of them."""
    await world.create(expires_at=int(world.sandbox.clock()) + 3600, expand=["payment_intent"])
    seen = world.sandbox.requests[-1]
    check_params(SDK_PARAMS[seen.operation], seen.params)
    assert seen.params["line_items"][0]["price_data"]["product_data"] == {"name": "Two bags of cement"}
    assert seen.params["expand"] == ["payment_intent"]
    assert seen.headers["stripe-version"] == API_VERSION
    assert "x-stripe-client-telemetry" not in seen.headers


# --- the oracle itself


@pytest.mark.parametrize(
    ("operation", "sent", "told"),
    [
        ("sessions.create", {"payment_method_types": ["card"]}, "payment_method_types is no parameter"),
        ("sessions.create", {"mode": "pay"}, "mode is 'pay'"),
        (
            "sessions.create",
            {"line_items": [{"price_data": {"unit_amount": "1"}}]},
            r"line_items\[0\]\[price_data\] lacks",
        ),
        ("sessions.create", {"line_items": [{"quantity": "one"}]}, r"line_items\[0\]\[quantity\] is 'one'"),
        ("sessions.create", {"line_items": "none"}, "not a list"),
        ("sessions.create", {"metadata": {"order": ["7"]}}, "dict of texts"),
        ("sessions.create", {"locale": "sn"}, "locale is 'sn'"),
        ("refunds.create", {"reason": "whim"}, "reason is 'whim'"),
        ("webhook_endpoints.create", {"url": "http://x"}, "lacks enabled_events"),
        ("events.list", {"created": {"gte": "now"}}, r"created\[gte\] is 'now'"),
        ("events.list", {"delivery_success": "no"}, "delivery_success is 'no'"),
    ],
)
def test_the_oracle_sees_what_is_wrong_with_parameters(operation: str, sent: dict[str, Any], told: str) -> None:
    with pytest.raises(Misfit, match=told):
        check_params(SDK_PARAMS[operation], sent)


async def test_the_oracle_sees_what_is_wrong_with_objects(world: World) -> None:
    await world.create()
    await world.sandbox.pay("INV-1")
    await world.sandbox.refund("INV-1")
    right = {event.object["type"]: event.shown() for event in world.account.events.values()}
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("refund.created", {"colour": "red"}, "has colour"),
        ("refund.created", {"amount": "1250"}, "amount is '1250', not int"),
        ("refund.created", {"amount": True}, "amount is True, not int"),
        ("refund.created", {"reason": "whim"}, "reason is 'whim'"),
        ("refund.created", {"payment_intent": {"id": "pi_1"}}, "payment_intent lacks"),
        ("refund.created", {"metadata": {"a": 1}}, "metadata.a is 1, not str"),
        ("checkout.session.completed", {"status": None}, ""),
        ("checkout.session.completed", {"expires_at": None}, "expires_at is None"),
        ("checkout.session.completed", {"custom_fields": [{}]}, r"custom_fields\[0\] lacks"),
        ("charge.succeeded", {"refunds": {"object": "list"}}, "refunds has"),
    ]
    for kind, change, told in wrong:
        event = msgspec.json.decode(msgspec.json.encode(right[kind]))
        event["data"]["object"] |= change
        if told:
            with pytest.raises(AssertionError, match=told):
                check_answer(event)
        else:
            check_answer(event)
    short = right["refund.created"]["data"]["object"].copy()
    del short["currency"]
    with pytest.raises(Misfit, match="lacks currency"):
        check_object(cast(Any, stripe.Refund), short)
