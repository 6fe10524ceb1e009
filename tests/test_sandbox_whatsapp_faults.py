"""The WhatsApp simulator's faults, each seen from outside."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from payments_service.sandbox import answers, whatsapp_faults
from payments_service.sandbox.whatsapp_errors import ERRORS
from payments_service.sandbox.whatsapp_faults import KINDS, OPERATIONS
from tests import whatsapp_world
from tests.whatsapp_world import World

stages, world = whatsapp_world.stages, whatsapp_world.world  # fixtures


@pytest.mark.parametrize("code", ERRORS)
async def test_every_code_may_be_the_answer(world: World, code: int) -> None:
    """Then nothing is sent."""
    world.sandbox.add_fault(f"error_{code}", on=["send"], times=1)
    reply = await world.template()
    assert (reply.status, reply.code) == (ERRORS[code].http, code)
    assert world.sandbox.messages == []
    assert (await world.template()).status == 200


@pytest.mark.parametrize("code", ERRORS)
async def test_every_code_may_be_the_end_of_what_was_accepted(world: World, code: int) -> None:
    world.sandbox.add_fault(f"error_{code}", on=["outcome"], times=1)
    message = await world.sent()
    (status,) = world.business.statuses
    assert (status["id"], status["status"], status["errors"][0]["code"]) == (message.id, "failed", code)


async def test_what_meta_tells_late_comes_late_by_itself(world: World) -> None:
    assert world.sandbox.add_fault("error_131026").on == ("outcome",)
    assert world.sandbox.add_fault("error_130429").on == ("send",)


@pytest.mark.parametrize(
    ("fault", "status", "body", "done"),
    [
        ("html", 200, b"<!DOCTYPE html>", True),
        ("empty", 200, b"", True),
        ("truncated", 200, b'{"messaging', True),
        ("redirect", 302, b"", False),
        ("error500", 500, b'{"error":', False),
        ("error500_after_accepting", 500, b'{"error":', True),
        ("error503_html", 503, b"<html>", False),
    ],
)
async def test_answers_that_are_no_answers(world: World, fault: str, status: int, body: bytes, done: bool) -> None:
    """The message went out all the same, or it did not: its kind says so."""
    world.sandbox.add_fault(fault, times=1)
    reply = await world.template()
    assert (reply.status, reply.raw[: len(body)]) == (status, body)
    assert len(world.sandbox.messages) == int(done) == int(KINDS[fault].works)
    await world.sandbox.settled()
    assert world.business.words == ["sent", "delivered"] * done


@pytest.mark.parametrize("fault", ["reset", "timeout_after_accepting", "timeout_before"])
async def test_no_answer_may_come_at_all(world: World, fault: str) -> None:
    world.sandbox.add_fault(fault, times=1, seconds=0.01 if KINDS[fault].seconds else None)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.template()
    assert len(world.sandbox.messages) == (fault != "timeout_before")


async def test_a_huge_answer_is_still_json(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "HUGE_BYTES", 1_000_000)
    world.sandbox.add_fault("huge")
    reply = await world.template()
    assert len(reply.raw) > 1_000_000
    assert reply.id


async def test_a_slow_answer_comes_in_drips(world: World) -> None:
    world.sandbox.add_fault("slow", seconds=0)
    reply = await world.template()
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply.id


async def test_a_redirect_leads_to_a_page_that_counts(world: World) -> None:
    world.sandbox.add_fault("redirect")
    async with world.http.get((await world.template()).headers["Location"]) as followed:
        assert followed.status == 200
    assert world.sandbox.calls["redirected"] == 1


async def test_a_refusal_may_be_lost_too(world: World) -> None:
    world.sandbox.pair_seconds = 6.0
    await world.template()
    world.sandbox.add_fault("truncated")
    assert (await world.template()).status == 400


# --- webhooks


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("duplicated", ["sent", "sent", "delivered", "delivered"]),
        ("shuffled", ["delivered", "sent"]),
        ("dropped", []),
        ("delayed", ["sent", "delivered"]),
        ("delivered_skipped", ["sent"]),
    ],
)
async def test_statuses_come_as_they_like(world: World, fault: str, words: list[str]) -> None:
    world.sandbox.add_fault(fault, seconds=0.001)
    await world.sent()
    assert world.business.words == words
    assert world.business.signed() == [True] * len(words)


@pytest.mark.parametrize(
    ("fault", "member"), [("no_phone", "recipient_id"), ("no_callback_data", "biz_opaque_callback_data")]
)
async def test_a_status_may_lack_what_is_optional(world: World, fault: str, member: str) -> None:
    world.sandbox.add_fault(fault)
    await world.sent()
    assert [member in status for status in world.business.statuses] == [False, False]


@pytest.mark.parametrize(("fault", "marked"), [("wrong_signature", True), ("unsigned", False)])
async def test_a_status_may_be_forged(world: World, fault: str, marked: bool) -> None:
    world.sandbox.add_fault(fault)
    await world.sent()
    assert world.business.signed() == [False, False]
    assert ["x-hub-signature-256" in headers for _, headers in world.business.posts] == [marked, marked]


# --- planning


async def test_faults_are_for_messages_by_name(world: World) -> None:
    """By callback data, exact or leading, or by the customer's number."""
    world.sandbox.add_fault("error_130429", to="pay-1")
    world.sandbox.add_fault("error_131000", to="0771234568")
    assert (await world.template("pay-12")).status == 200
    assert (await world.template("pay-1-a")).code == 130429
    assert (await world.template("pay-2", to="+263771234568")).code == 131000
    world.sandbox.clear_faults("pay-1")
    assert (await world.template("pay-1-a")).status == 200
    world.sandbox.clear_faults()
    assert world.sandbox.faults == []


async def test_a_share_of_the_messages_is_struck_the_same_ones_for_one_seed(world: World) -> None:
    await world.sent()
    draft = world.sandbox.messages[0].draft

    def struck(seed: int) -> list[bool]:
        world.sandbox.clear_faults()
        world.sandbox.add_fault("reset", share=0.2, seed=seed)
        return [world.sandbox.use_fault("send", draft) is not None for _ in range(1000)]

    first = struck(7)
    assert first == struck(7) != struck(8)
    assert 150 < sum(first) < 250


@pytest.mark.parametrize("fault", KINDS)
def test_every_kind_says_where_it_may_happen(fault: str) -> None:
    kind = KINDS[fault]
    assert kind.title
    assert set(kind.may) <= set(OPERATIONS)
    assert whatsapp_faults.plan(fault).on == kind.may[:1]


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("hiccup", {}, "there is no fault 'hiccup'"),
        ("html", {"on": ["status"]}, "html cannot happen on status"),
        ("duplicated", {"on": ["send"]}, "only on status"),
        ("html", {"times": 0}, "times is 1 or more"),
        ("slow", {"seconds": -1.0}, "never negative"),
        ("html", {"share": 0.0}, "share is above 0"),
    ],
)
def test_what_cannot_be_planned(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        whatsapp_faults.plan(name, **options)
