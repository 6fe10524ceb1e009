"""The InnBucks simulator's faults, each seen from outside."""

from __future__ import annotations

from typing import Any

import aiohttp
import msgspec
import pytest

from payments_service.sandbox import answers, innbucks_faults
from payments_service.sandbox.innbucks_faults import KINDS, OPERATIONS
from tests import innbucks_world
from tests.innbucks_world import World

stage, world = innbucks_world.stage, innbucks_world.world  # fixtures

GENERATE = ["generate"]


@pytest.mark.parametrize(
    ("fault", "status", "body", "done"),
    [
        ("html", 200, b"<!DOCTYPE html>", True),
        ("empty", 200, b"", True),
        ("truncated", 200, b'{"stan":"', True),
        ("redirect", 302, b"", False),
        ("error500", 500, b'{"timestamp":"', False),
        ("error500_after_accepting", 500, b'{"timestamp":"', True),
        ("unauthorized", 401, b'{"timestamp":"', False),
        ("numeric_status", 400, b'{"timestamp":"', False),
    ],
)
async def test_answers_that_are_no_answers(world: World, fault: str, status: int, body: bytes, done: bool) -> None:
    """The gateway has done the work all the same, or it has not: its kind says so."""
    world.sandbox.add_fault(fault, on=GENERATE, times=1)
    reply = await world.generate()
    assert (reply.status, reply.raw[: len(body)]) == (status, body)
    assert reply.headers["X-Trace-Id"]
    assert len(world.sandbox.codes) == int(done) == int(KINDS[fault].works)
    assert (await world.generate("INV-2"))["responseCode"] == 0


async def test_half_an_answer_is_no_json(world: World) -> None:
    world.sandbox.add_fault("truncated")
    with pytest.raises(msgspec.DecodeError):
        _ = (await world.auth()).content


@pytest.mark.parametrize("fault", ["reset", "timeout_after_accepting"])
async def test_work_may_be_done_without_an_answer(world: World, fault: str) -> None:
    seconds = 0.01 if KINDS[fault].seconds else None
    world.sandbox.add_fault(fault, on=GENERATE, times=1, seconds=seconds)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.generate()
    assert world.sandbox.find("INV-1").live


async def test_a_huge_answer_is_still_json(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "HUGE_BYTES", 1_000_000)
    world.sandbox.add_fault("huge", on=GENERATE)
    reply = await world.generate()
    assert len(reply.raw) > 1_000_000
    assert reply["responseCode"] == 0


async def test_a_slow_answer_comes_in_drips(world: World) -> None:
    world.sandbox.add_fault("slow", on=["inquiry"], seconds=0)
    code = await world.made()
    reply = await world.inquire(code.code)
    assert reply.headers["Transfer-Encoding"] == "chunked"
    assert reply["status"] == "New"


async def test_a_redirect_leads_to_a_page_that_counts(world: World) -> None:
    world.sandbox.add_fault("redirect", on=["auth"])
    target = (await world.auth()).headers["Location"]
    async with world.http.get(target) as followed:
        assert followed.status == 200
    assert world.sandbox.calls["redirected"] == 1


# --- answers with something wrong in them


async def test_the_amount_may_be_another(world: World) -> None:
    world.sandbox.add_fault("wrong_amount")
    reply = await world.generate()
    assert reply["amount"] == "1350"
    assert (await world.inquire(reply["code"]))["amount"] == "1350"


async def test_the_answer_may_be_about_another_code(world: World) -> None:
    """One that nobody made, and paid, if the merchant has no other."""
    code = await world.made()
    world.sandbox.add_fault("wrong_object")
    told = (await world.inquire(code.code)).content
    assert told["code"] != code.code
    assert (told["amount"], told["status"]) == ("1250", "Paid")
    assert (await world.generate("INV-2", amount=7)).content["code"] == code.code
    assert (await world.inquire(code.code))["amount"] == "7"


async def test_an_approval_may_come_without_a_code(world: World) -> None:
    world.sandbox.add_fault("no_code")
    told = (await world.generate()).content
    assert told["responseCode"] == 0
    assert not {"code", "qrCode"} & set(told)


@pytest.mark.parametrize(
    ("fault", "told"), [("missing_status", None), ("odd_status", "Processing"), ("numeric_status", 400)]
)
async def test_the_status_may_be_no_status(world: World, fault: str, told: object) -> None:
    world.sandbox.add_fault(fault, on=["inquiry"])
    code = await world.made()
    assert (await world.inquire(code.code)).content.get("status") == told


async def test_a_refused_token_costs_the_inquiry_nothing(world: World) -> None:
    """Whoever then asks again with a fresh token may say the same."""
    code = await world.made()
    world.sandbox.add_fault("unauthorized", times=1)
    assert (await world.inquire(code.code, reference="R-1")).status == 401
    assert (await world.inquire(code.code, reference="R-1"))["status"] == "New"


@pytest.mark.parametrize("fault", KINDS)
async def test_every_kind_works_wherever_it_may(world: World, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the gateway refuses, or speaks of a code that is over."""
    monkeypatch.setattr(answers, "HUGE_BYTES", 1)
    world.sandbox.finalised = "refused"
    code = await world.made()
    await world.sandbox.pay("INV-1")
    planned = world.sandbox.add_fault(fault, seconds=0)
    calls = {
        "auth": world.auth,
        "generate": world.generate,
        "inquiry": lambda: world.inquire(code.code),
        "statement": world.statement,
    }
    for operation in planned.on:
        try:
            assert (await calls[operation]()).status in (200, 302, 400, 401, 500 if "500" in fault else 200)
        except aiohttp.ServerDisconnectedError:
            assert fault in ("reset", "timeout_after_accepting")
    assert planned.used >= len(planned.on)  # aiohttp tries a GET again whose connection was cut


# --- planning


async def test_faults_are_for_codes_by_name(world: World) -> None:
    """A reference leads the one that was sent; what is about no code is left alone."""
    world.sandbox.add_fault("html", reference="INV-1")
    assert (await world.auth()).status == 200
    assert (await world.generate("INV-2"))["responseCode"] == 0
    assert (await world.generate("INV-1-K7M2")).raw.startswith(b"<!DOCTYPE")
    code = world.sandbox.find("INV-1")
    assert (await world.inquire(code.code)).raw.startswith(b"<!DOCTYPE")
    assert (await world.inquire("999999"))["responseCode"] == 1
    world.sandbox.clear_faults("INV-2")
    assert len(world.sandbox.faults) == 1
    world.sandbox.clear_faults("INV-1")
    assert (await world.inquire(code.code))["status"] == "New"


async def test_a_share_of_the_answers_is_lost_the_same_ones_for_one_seed(world: World) -> None:
    def struck(seed: int) -> list[bool]:
        world.sandbox.clear_faults()
        world.sandbox.add_fault("reset", share=0.2, seed=seed)
        return [world.sandbox.use_fault("inquiry", lambda _name: False) is not None for _ in range(1000)]

    first = struck(7)
    assert first == struck(7) != struck(8)
    assert 150 < sum(first) < 250


async def test_a_fault_is_used_so_many_times_in_all(world: World) -> None:
    fault = world.sandbox.add_fault("empty", times=2)
    assert fault.on == OPERATIONS
    assert [(await world.auth()).raw == b"" for _ in range(3)] == [True, True, False]
    assert fault.spent


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("hiccup", {}, "there is no fault 'hiccup'"),
        ("html", {"on": ["refund"]}, "html cannot happen on refund"),
        ("no_code", {"on": ["inquiry"]}, "only on generate"),
        ("html", {"times": 0}, "times is 1 or more"),
        ("slow", {"seconds": -1.0}, "never negative"),
        ("html", {"share": 0.0}, "share is above 0"),
        ("html", {"share": 1.5}, "share is above 0"),
    ],
)
def test_what_cannot_be_planned(name: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        innbucks_faults.plan(name, **options)
