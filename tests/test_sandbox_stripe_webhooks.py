"""The Stripe simulator's events and webhooks: signatures, endpoints, retries, what is owed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import stripe

from payments_service.sandbox import stripe_webhooks
from payments_service.sandbox.hands import UnknownReference
from tests import stripe_world
from tests.stripe_types import check_answer
from tests.stripe_world import KEY, OTHER_KEY, World, refused

stages, world = stripe_world.stages, stripe_world.world  # fixtures

VECTORS = json.loads((Path(__file__).parent / "vectors" / "stripe_signature.json").read_text())["vectors"]
PAID = ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded", "checkout.session.completed"]


async def paid(world: World, reference: str = "INV-1") -> dict[str, Any]:
    """A session that is paid, its webhooks delivered."""
    await world.create(reference)
    checkout = await world.sandbox.pay(reference)
    await world.sandbox.settled()
    return checkout


async def events(world: World, **params: Any) -> list[str]:
    return [event.type for event in (await world.api.events.list_async(params)).data]


# --- signatures


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_signatures_are_those_that_stripes_code_makes(vector: dict[str, Any]) -> None:
    made = stripe_webhooks.signature(vector["payload"].encode(), [vector["secret"]], vector["t"])
    assert made == vector["header"]


async def test_the_sdk_accepts_a_webhook_as_it_comes(world: World) -> None:
    endpoint = await world.listen("checkout.session.completed")
    checkout = await paid(world)
    ((body, header),) = world.merchant.posts
    event = stripe.Webhook.construct_event(body, header, endpoint.secret)
    assert (event.type, event.api_version) == ("checkout.session.completed", stripe.api_version)
    assert event.data.object.to_dict() == checkout
    assert event.pending_webhooks == 1
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, header, "whsec_other")


async def test_a_rolled_secret_signs_for_another_day(world: World) -> None:
    """One `v1` per secret, newest first."""
    world.sandbox.clock = lambda: 1_800_000_000.0
    made = await world.listen()
    endpoint = world.account.endpoints[made.id]
    new = world.sandbox.roll_secret(endpoint)
    assert new == endpoint.secret != made.secret
    await paid(world)
    body, header = world.merchant.posts[0]
    assert header.count("v1=") == 2
    for secret in (made.secret, new):
        assert stripe.WebhookSignature.verify_header(body.decode(), header, secret, tolerance=None)
    world.sandbox.clock = lambda: 1_800_086_400.0
    await world.sandbox.refund("INV-1")
    await world.sandbox.settled()
    assert world.merchant.posts[-1][1].count("v1=") == 1


async def test_a_test_can_post_an_event_itself(world: World) -> None:
    """The newest of its type, or one that was never sent, about what there is; signed for any time."""
    await world.create()
    made_up = world.sandbox.event_for("INV-1", "checkout.session.completed")
    assert made_up["data"]["object"]["status"] == "open"
    assert made_up["id"] not in world.account.events
    with pytest.raises(UnknownReference):
        world.sandbox.event_for("INV-1", "charge.refunded")
    await world.sandbox.pay("INV-1")
    event = world.sandbox.event_for("INV-1", "checkout.session.completed")
    assert event["id"] in world.account.events
    body, header = world.sandbox.signed(event, "whsec_mine", t=1_700_000_000)
    assert header.startswith("t=1700000000,v1=")
    assert stripe.WebhookSignature.verify_header(body.decode(), header, "whsec_mine", tolerance=None)
    for kind in ("charge.refunded", "payment_intent.canceled", "checkout.session.expired"):
        check_answer(world.sandbox.event_for("INV-1", kind))


# --- who is told what


async def test_only_those_endpoints_are_told_that_asked(world: World) -> None:
    await world.listen("checkout.session.completed", "charge.refunded")
    other: Any = world.client(OTHER_KEY).v1
    await other.webhook_endpoints.create_async({"url": f"{world.merchant.url}/other", "enabled_events": ["*"]})
    await paid(world)
    assert world.merchant.types == ["checkout.session.completed"]
    await world.listen()
    await world.sandbox.refund("INV-1")
    await world.sandbox.settled()
    assert sorted(world.merchant.types[1:]) == ["charge.refunded", "charge.refunded", "refund.created"]
    assert {delivery.url for delivery in world.sandbox.deliveries} == {f"{world.merchant.url}/hook"}


async def test_an_endpoint_may_be_pinned_to_another_version(world: World) -> None:
    """Else the account's default counts, whatever the client's version is."""
    hook = {"url": f"{world.merchant.url}/hook", "enabled_events": ["refund.created"]}
    await world.api.webhook_endpoints.create_async(hook | {"api_version": "2024-06-20"})
    await paid(world)
    await world.sandbox.refund("INV-1", 100)
    await world.sandbox.settled()
    world.account.api_version = "2020-08-27"
    await world.api.webhook_endpoints.create_async(hook)
    await world.sandbox.refund("INV-1", 100)
    await world.sandbox.settled()
    assert sorted(event["api_version"] for event in world.merchant.events) == ["2020-08-27", "2024-06-20", "2024-06-20"]
    assert (await world.api.accounts.retrieve_current_async()).id == world.account.id


async def test_only_this_machine_is_ever_told(world: World) -> None:
    """Neither another host nor a name: `settled` does not wait for what is never tried again."""
    endpoint = world.sandbox.add_endpoint(world.account, "https://shop.example.com/hook")
    await paid(world)
    assert len(world.sandbox.deliveries) == len(PAID)
    assert all(one.status is None and "loopback hosts only" in one.error for one in world.sandbox.deliveries)
    assert endpoint.secret.startswith("whsec_")


async def test_what_is_refused_comes_again_newly_signed(world: World) -> None:
    """Anything but 2xx is refusal, a redirect too; the event keeps its id."""
    times = iter(range(1_800_000_000, 1_800_000_100))
    await world.listen("checkout.session.completed")
    world.sandbox.webhooks.clock = lambda: float(next(times))
    world.merchant.answers = [500, 302, 404]
    await paid(world)
    assert [delivery.status for delivery in world.sandbox.deliveries] == [500, 302, 404, 200]
    assert len({event["id"] for event in world.merchant.events}) == 1
    assert len({header for _, header in world.merchant.posts}) == 4


async def test_what_nobody_takes_stays_owed(world: World) -> None:
    await world.listen("checkout.session.completed")
    world.merchant.answers = [500] * 5
    await paid(world)
    assert len(world.merchant.posts) == 5
    (owed,) = (await world.api.events.list_async({"delivery_success": False})).data
    assert (owed.type, owed.pending_webhooks) == ("checkout.session.completed", 1)
    assert await events(world, delivery_success=True) == PAID[-2::-1]
    assert await world.sandbox.resend_events("INV-1") == 4
    await world.sandbox.settled()
    assert await events(world, delivery_success=False) == []


@pytest.mark.parametrize("how", ["dropped", "not sent"])
async def test_webhooks_can_get_lost(world: World, how: str) -> None:
    """They are owed, and none is tried again."""
    await world.listen("checkout.session.completed")
    world.sandbox.drop_webhooks = how == "dropped"
    await world.create()
    await world.sandbox.pay("INV-1", send=how == "dropped")
    await world.sandbox.settled()
    assert world.merchant.posts == []
    assert await events(world, delivery_success=False) == ["checkout.session.completed"]
    assert len(world.sandbox.deliveries) == (1 if how == "dropped" else 0)


async def test_an_endpoint_that_is_gone_gets_nothing_more(world: World) -> None:
    endpoint = await world.listen()
    await world.api.webhook_endpoints.update_async(endpoint.id, {"disabled": True})
    await paid(world)
    await world.api.webhook_endpoints.update_async(endpoint.id, {"disabled": False})
    world.merchant.answers = [500]
    await world.sandbox.refund("INV-1", 100)
    gone = await world.api.webhook_endpoints.delete_async(endpoint.id)
    await world.sandbox.settled()
    assert gone.deleted
    assert len(world.merchant.posts) <= 2


# --- the list of events


async def test_events_are_listed_newest_first_and_by_type(world: World) -> None:
    await paid(world)
    assert await events(world) == PAID[::-1]
    assert await events(world, type="charge.*") == ["charge.succeeded"]
    assert await events(world, types=["charge.succeeded", "checkout.session.completed"]) == PAID[3:0:-2]
    assert await events(world, limit=1) == PAID[3:]
    first = (await world.api.events.list_async({"limit": 1})).data[0]
    assert await events(world, starting_after=first.id) == PAID[2::-1]
    assert (await world.api.events.retrieve_async(first.id)).type == PAID[3]
    assert (await refused(world.api.events.list_async({"type": "a", "types": ["b"]}))).param == "type"
    assert (await refused(world.api.events.retrieve_async("evt_nobody"))).code == "resource_missing"


async def test_events_are_forgotten_after_thirty_days(world: World) -> None:
    world.sandbox.clock = lambda: 1_800_000_000.0
    await paid(world)
    world.sandbox.clock = lambda: 1_800_000_000.0 + 30 * 86_400
    assert await events(world, created={"gte": 1_800_000_000}) == PAID[::-1]
    world.sandbox.clock = lambda: 1_800_000_001.0 + 30 * 86_400
    assert await events(world) == []


# --- endpoints


async def test_a_secret_is_told_once(world: World) -> None:
    made = await world.listen("charge.refunded")
    assert made.secret == world.account.endpoints[made.id].secret
    api = world.api.webhook_endpoints
    for seen in (
        await api.retrieve_async(made.id),
        (await api.list_async()).data[0],
        await api.update_async(made.id, {"description": "ours", "metadata": {"a": "b"}, "enabled_events": ["*"]}),
    ):
        assert "secret" not in seen.to_dict()
    assert (seen.description, seen.metadata.to_dict(), seen.enabled_events) == ("ours", {"a": "b"}, ["*"])


async def test_a_repeated_creation_tells_the_secret_again(world: World) -> None:
    """The idempotency key keeps the whole answer: a lost reply loses no secret."""
    params = {"url": f"{world.merchant.url}/hook", "enabled_events": ["*"]}
    first, second = [
        await world.api.webhook_endpoints.create_async(params, {"idempotency_key": "e1"}) for _ in range(2)
    ]
    assert (first.id, first.secret) == (second.id, second.secret)
    assert len(world.account.endpoints) == 1


async def test_there_are_sixteen_endpoints_at_most(world: World) -> None:
    for _ in range(16):
        await world.listen()
    assert "maximum of 16 test" in (await refused(world.listen())).user_message


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"url": "ftp://x/y"}, "url"),
        ({"url": "hook"}, "url"),
        ({"enabled_events": ["charge.stolen"]}, "enabled_events[0]"),
        ({"enabled_events": None}, "enabled_events"),
        ({"api_version": "1999-01-01"}, "api_version"),
        ({"connect": True}, "connect"),
        ({"secret": "whsec_x"}, "secret"),
    ],
)
async def test_what_an_endpoint_may_not_be(world: World, changes: dict[str, Any], param: str) -> None:
    params = {"url": f"{world.merchant.url}/hook", "enabled_events": ["*"]} | changes
    sent = {name: value for name, value in params.items() if value is not None}
    assert (await refused(world.api.webhook_endpoints.create_async(sent))).param == param


async def test_an_endpoint_that_is_not_there(world: World) -> None:
    api = world.api.webhook_endpoints
    for call in (api.retrieve_async("we_1"), api.update_async("we_1", {}), api.delete_async("we_1")):
        assert (await refused(call)).code == "resource_missing"
    assert KEY in world.sandbox.accounts
