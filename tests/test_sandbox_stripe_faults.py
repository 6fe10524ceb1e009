"""The Stripe simulator's faults, each seen from outside."""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import pytest
import stripe

from payments_service.sandbox import answers, stripe_faults
from tests import stripe_world
from tests.stripe_world import ACCOUNT, OTHER_KEY, World, refused

stages, world = stripe_world.stages, stripe_world.world  # fixtures

CREATE = ["sessions.create"]


async def made(world: World) -> int:
    """How many sessions there are."""
    return len(world.sandbox.sessions())


@pytest.mark.parametrize(
    ("fault", "status", "body", "done"),
    [
        ("html", 200, b"<!DOCTYPE html>", True),
        ("empty", 200, b"", True),
        ("truncated", 200, b'{\n  "id": "cs_test_', True),
        ("error503_html", 503, b"<html>", False),
        ("redirect", 302, b"", False),
    ],
)
async def test_answers_that_are_no_answers(world: World, fault: str, status: int, body: bytes, done: bool) -> None:
    """The SDK raises APIError; where the work was done all the same, a repetition with the key tells its result."""
    world.sandbox.add_fault(fault, CREATE, times=1)
    key = {"idempotency_key": "k1"}
    await refused(world.api.checkout.sessions.create_async(world.order(), key), stripe.APIError)
    given, sent, _ = world.wire.answers[-1]
    assert (given, sent[: len(body)]) == (status, body)
    assert len(sent) < 2000
    assert await made(world) == int(done)
    again = await world.api.checkout.sessions.create_async(world.order(), key)
    assert ("Idempotent-Replayed" in again.last_response.headers) == done
    assert await made(world) == 1


async def test_a_redirect_leads_to_a_page_that_counts(world: World) -> None:
    world.sandbox.add_fault("redirect", ["account.retrieve"])
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    async with world.http.get(f"{world.url}/v1/account", headers=headers) as followed:
        assert followed.url.path == "/sandbox/stripe/redirected"
    assert world.sandbox.calls["redirected"] == 1


async def test_a_huge_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid JSON with blanks behind it: only its size is wrong."""
    assert answers.HUGE_BYTES == 50_000_000
    monkeypatch.setattr(answers, "HUGE_BYTES", 1_000_000)
    world.sandbox.add_fault("huge", CREATE)
    assert (await world.create()).status == "open"
    assert len(world.wire.answers[-1][1]) > 1_000_000


@pytest.mark.parametrize(
    ("fault", "error", "status", "code"),
    [
        ("error500", stripe.APIError, 500, None),
        ("rate_limited", stripe.RateLimitError, 429, "rate_limit"),
        ("in_use", stripe.APIError, 409, "idempotency_key_in_use"),
        ("unauthorized", stripe.AuthenticationError, 401, None),
    ],
)
async def test_errors_of_the_api_itself(
    world: World, fault: str, error: type[stripe.StripeError], status: int, code: str | None
) -> None:
    world.sandbox.add_fault(fault, CREATE, times=1)
    told = await refused(world.create(), error)
    assert (told.http_status, told.json_body["error"].get("code")) == (status, code)
    assert "Stripe-Should-Retry" not in told.headers
    assert await made(world) == 0
    assert (await world.create()).status == "open"
    world.check_everything()


async def test_a_500_may_come_though_the_work_is_done(world: World) -> None:
    """Its key keeps the 500 for ever, so that only the list of sessions knows."""
    world.sandbox.add_fault("error500_after_accepting", CREATE, times=1)
    for _ in range(2):
        call = world.api.checkout.sessions.create_async(world.order(), {"idempotency_key": "k1"})
        assert (await refused(call, stripe.APIError)).http_status == 500
    assert len((await world.api.checkout.sessions.list_async()).data) == 1


@pytest.mark.parametrize(("fault", "seconds"), [("reset", None), ("timeout_after_accepting", 0.05)])
async def test_work_may_be_done_without_an_answer(world: World, fault: str, seconds: float | None) -> None:
    world.sandbox.add_fault(fault, CREATE, times=1, seconds=seconds)
    key = {"idempotency_key": "k1"}
    begun = time.perf_counter()
    await refused(world.api.checkout.sessions.create_async(world.order(), key), stripe.APIConnectionError)
    assert time.perf_counter() - begun >= (seconds or 0)
    assert await made(world) == 1
    again = await world.api.checkout.sessions.create_async(world.order(), key)
    assert again.id == world.sandbox.session("INV-1")["id"]


async def test_the_sdk_finds_out_by_itself_what_became_of_lost_work(world: World) -> None:
    """Its own retries carry its own key."""
    world.sandbox.add_fault("reset", CREATE, times=2)
    api: Any = world.client(retries=2).v1
    session = await api.checkout.sessions.create_async(world.order())
    assert session.last_response.headers["Idempotent-Replayed"] == "true"
    assert await made(world) == 1
    assert len({seen.headers["idempotency-key"] for seen in world.sandbox.requests}) == 1


async def test_a_body_may_drip(world: World) -> None:
    """Headers at once, the end of the body much later."""
    world.sandbox.add_fault("slow_body", CREATE, seconds=0.08)
    form = {"mode": "payment"}
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    async with world.http.post(f"{world.url}/v1/checkout/sessions", data=form, headers=headers) as reply:
        begun = time.perf_counter()
        assert reply.status == 400
        assert (await reply.json())["error"]["code"] == "parameter_missing"
        assert time.perf_counter() - begun > 0.04


async def test_another_object_may_come(world: World) -> None:
    """Another of the account's sessions; if there is none, one that is not there at all."""
    first = await world.create()
    world.sandbox.add_fault("wrong_object", ["sessions.retrieve", "sessions.list"])
    retrieve = world.api.checkout.sessions.retrieve_async
    invented = await retrieve(first.id)
    assert invented.id != first.id
    assert invented.client_reference_id == "another-reference"
    second = await world.create("INV-2")
    assert (await retrieve(first.id)).id == second.id
    assert {one.id for one in (await world.api.checkout.sessions.list_async()).data} == {first.id, second.id}
    world.check_everything()


# --- planning


async def test_faults_are_for_operations_times_and_accounts(world: World) -> None:
    world.sandbox.add_fault("rate_limited", ["sessions.list"], times=2, account=ACCOUNT)
    assert (await world.create()).status == "open"
    other: Any = world.client(OTHER_KEY).v1
    assert (await other.checkout.sessions.list_async()).data == []
    for _ in range(2):
        await refused(world.api.checkout.sessions.list_async(), stripe.RateLimitError)
    assert len((await world.api.checkout.sessions.list_async()).data) == 1
    world.sandbox.add_fault("html")
    await refused(world.api.accounts.retrieve_current_async(), stripe.APIError)
    world.sandbox.clear_faults()
    assert (await world.api.accounts.retrieve_current_async()).id == ACCOUNT


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("hiccup", {}, "there is no fault 'hiccup'"),
        ("html", {"on": ["sessions.pay"]}, "no operation is called sessions.pay"),
        ("html", {"times": 0}, "times is 1 or more"),
        ("slow_body", {"seconds": -1.0}, "never negative"),
    ],
)
def test_what_cannot_be_planned(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        stripe_faults.plan(name, **options)


async def test_every_answer_can_be_held_back(world: World) -> None:
    world.sandbox.delay_seconds = 0.05
    begun = time.perf_counter()
    await world.create()
    await refused(world.create(amount=1))
    await refused(world.client("sk_test_" + "Nobody").v1.accounts.retrieve_current_async(), stripe.AuthenticationError)
    assert time.perf_counter() - begun >= 0.15


async def test_a_caller_that_hangs_up_ends_the_silence(world: World) -> None:
    world.sandbox.add_fault("timeout_after_accepting", CREATE, seconds=30)
    timeout = aiohttp.ClientTimeout(total=0.1)
    headers = {"Authorization": f"Bearer {OTHER_KEY}"}
    with pytest.raises(TimeoutError):
        await world.http.post(f"{world.url}/v1/checkout/sessions", headers=headers, timeout=timeout)
