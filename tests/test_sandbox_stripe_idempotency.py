"""The Stripe simulator's idempotency keys and lists, through Stripe's own SDK."""

from __future__ import annotations

import asyncio
from typing import Any

import stripe

from tests import stripe_world
from tests.stripe_world import OTHER_KEY, World, refused

stages, world = stripe_world.stages, stripe_world.world  # fixtures


# --- idempotency


async def create(world: World, key: str, reference: str = "INV-1", **changes: Any) -> Any:
    return await world.api.checkout.sessions.create_async(world.order(reference, **changes), {"idempotency_key": key})


async def test_the_same_request_with_the_same_key_is_answered_alike(world: World) -> None:
    first, second = await create(world, "k1"), await create(world, "k1")
    assert first.to_dict() == second.to_dict()
    assert len(world.sandbox.sessions()) == 1
    assert "Idempotent-Replayed" not in first.last_response.headers
    assert second.last_response.headers["Idempotent-Replayed"] == "true"
    assert second.last_response.headers["Original-Request"] == first.last_response.headers["Request-Id"]
    assert (await create(world, "k2")).id != first.id


async def test_a_key_is_for_one_request_only(world: World) -> None:
    made = await create(world, "k1")
    error = await refused(create(world, "k1", amount=1300), stripe.IdempotencyError)
    assert error.user_message.startswith("Keys for idempotent requests can only be used with the same parameters")
    expire = world.api.checkout.sessions.expire_async(made.id, {}, {"idempotency_key": "k1"})
    assert "for the same endpoint" in (await refused(expire, stripe.IdempotencyError)).user_message
    world.check_everything()


async def test_keys_belong_to_an_account(world: World) -> None:
    first = await create(world, "k1")
    other = world.client(OTHER_KEY).v1.checkout.sessions
    second = await other.create_async(world.order(amount=999), {"idempotency_key": "k1"})
    assert second.id != first.id


async def test_a_key_in_use_is_409(world: World) -> None:
    world.sandbox.delay_seconds = 0.05
    first = asyncio.create_task(create(world, "k1"))
    while not world.account.keys_used:  # noqa: ASYNC110 - the simulator sets no event for tests
        await asyncio.sleep(0)
    error = await refused(create(world, "k1"), stripe.APIError)
    assert (error.http_status, error.code) == (409, None)
    assert error.json_body["error"]["code"] == "idempotency_key_in_use"
    assert (await first).status == "open"


async def test_the_sdk_retries_a_key_in_use(world: World) -> None:
    world.sandbox.add_fault("in_use", ["sessions.create"], times=2)
    api: Any = world.client(retries=2).v1
    assert (await api.checkout.sessions.create_async(world.order())).status == "open"
    assert world.sandbox.calls["sessions.create"] == 3


async def test_what_was_never_carried_out_is_not_kept(world: World) -> None:
    """A request that fails validation may be corrected under the same key."""
    await refused(create(world, "k1", amount=10))
    await refused(create(world, "k1", payment_method_types=["card"]))
    assert (await create(world, "k1")).status == "open"


async def test_what_was_carried_out_is_kept_though_it_failed(world: World) -> None:
    """A refusal, and a 500 too, is replayed for the same key: https://docs.stripe.com/api/idempotent_requests."""
    made = await create(world, "k0")
    expire = world.api.checkout.sessions.expire_async
    await expire(made.id)
    first = await refused(expire(made.id, {}, {"idempotency_key": "k1"}))
    second = await refused(expire(made.id, {}, {"idempotency_key": "k1"}))
    assert first.user_message == second.user_message
    assert second.headers["Idempotent-Replayed"] == "true"
    world.sandbox.add_fault("error500", ["sessions.create"], times=1)
    for _ in range(2):
        assert (await refused(create(world, "k2"), stripe.APIError)).http_status == 500
    assert world.sandbox.calls["sessions.create"] == 3
    assert len(world.sandbox.sessions()) == 1


async def test_keys_are_forgotten_after_a_day(world: World) -> None:
    world.sandbox.clock = lambda: 1_800_000_000.0
    first = await create(world, "k1")
    world.sandbox.clock = lambda: 1_800_086_401.0
    assert (await create(world, "k1")).id != first.id


async def test_a_key_of_256_characters_is_refused(world: World) -> None:
    await create(world, "k" * 255)
    assert "255" in (await refused(create(world, "k" * 256))).user_message


# --- lists


async def test_sessions_are_listed_newest_first_in_pages(world: World) -> None:
    ids = [(await world.create(f"INV-{number}")).id for number in range(5)][::-1]
    page = await world.api.checkout.sessions.list_async({"limit": 2})
    assert ([one.id for one in page.data], page.has_more, page.url) == (ids[:2], True, "/v1/checkout/sessions")
    assert [one.id async for one in page.auto_paging_iter()] == ids
    back = await world.api.checkout.sessions.list_async({"limit": 2, "ending_before": ids[3]})
    assert ([one.id for one in back.data], back.has_more) == (ids[1:3], True)
    assert len((await world.api.checkout.sessions.list_async()).data) == 5
    wrong = world.api.checkout.sessions.list_async({"starting_after": "cs_test_nobody"})
    assert (await refused(wrong)).param == "starting_after"
    assert (await refused(world.api.checkout.sessions.list_async({"limit": 101}))).param == "limit"


async def test_sessions_are_found_by_time_state_and_intent(world: World) -> None:
    for second in range(4):
        world.sandbox.clock = lambda second=second: 1_800_000_000.0 + second
        await world.create(f"INV-{second}")
    paid = await world.sandbox.pay("INV-2")

    async def found(**params: Any) -> list[str]:
        return [one.client_reference_id for one in (await world.api.checkout.sessions.list_async(params)).data]

    assert await found(status="complete") == ["INV-2"]
    assert await found(payment_intent=paid["payment_intent"]) == ["INV-2"]
    assert await found(created={"gte": 1_800_000_002}) == ["INV-3", "INV-2"]
    assert await found(created={"gt": 1_800_000_000, "lt": 1_800_000_003}) == ["INV-2", "INV-1"]
    assert await found(created={"lte": 1_800_000_000}) == ["INV-0"]
    assert await found(created=1_800_000_001) == ["INV-1"]
