"""The Paynow simulator's faults, each seen from outside."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest

from payments_service.sandbox import paynow_faults as faults
from payments_service.sandbox import wire
from payments_service.sandbox.paynow import PaynowSandbox
from tests import sandbox_world
from tests.sandbox_world import World, signed

stages, world = sandbox_world.stages, sandbox_world.world  # fixtures


# --- faults of callbacks


async def paid_with(world: World, fault: str, **options: Any) -> None:
    world.sandbox.add_fault(fault, reference="INV-1", **options)
    await world.initiate()
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()


async def late(world: World) -> None:
    """It waits its seconds, while others go ahead."""
    world.sandbox.add_fault("late", next=True, seconds=3600)
    await world.initiate()
    await world.initiate(reference="INV-2")
    await world.sandbox.pay("INV-1")
    await world.sandbox.pay("INV-2")
    while not world.merchant.bodies:  # noqa: ASYNC110 - nothing tells when it came
        await asyncio.sleep(0.01)
    assert [message["reference"] for message in world.merchant.messages] == ["INV-2"]


async def late_but_sent(world: World) -> None:
    await paid_with(world, "late", seconds=0.01)
    assert world.merchant.statuses == ["Paid"]


async def twice(world: World) -> None:
    await paid_with(world, "twice")
    assert len(world.merchant.bodies) == 2
    assert len(set(world.merchant.bodies)) == 1


async def out_of_order(world: World) -> None:
    await paid_with(world, "out_of_order", seconds=0)
    assert world.merchant.statuses == ["Paid", "Sent"]
    assert all(signed(wire.decode(body)) for body in world.merchant.bodies)


async def never(world: World) -> None:
    await paid_with(world, "never")
    assert world.merchant.bodies == []
    assert (await world.poll())["status"] == "Paid"


async def ten_resends(world: World) -> None:
    await paid_with(world, "ten_resends", seconds=0)
    assert len(world.merchant.bodies) == 11
    assert {delivery.status for delivery in world.sandbox.deliveries} == {200}


async def wrong_amount(world: World) -> None:
    await paid_with(world, "wrong_amount")
    reply = await world.poll()
    assert world.merchant.messages[0]["amount"] == reply["amount"] == "11.00"
    assert signed(reply.pairs)
    assert signed(wire.decode(world.merchant.bodies[0]))


async def wrong_hash(world: World) -> None:
    await paid_with(world, "wrong_hash")
    pairs = wire.decode(world.merchant.bodies[0])
    assert re.fullmatch("[0-9A-F]{128}", dict(pairs)["hash"])
    assert not signed(pairs)
    assert signed((await world.poll()).pairs)


# --- faults of replies


async def poll_wrong_hash(world: World) -> None:
    await paid_with(world, "poll_wrong_hash")
    assert not signed((await world.poll()).pairs)
    assert signed(wire.decode(world.merchant.bodies[0]))


async def poll_error(world: World) -> None:
    await paid_with(world, "poll_error", text="Trace failed")
    assert (await world.poll()).pairs == [("status", "Error"), ("error", "Trace failed")]


async def html(world: World) -> None:
    await paid_with(world, "html")
    reply = await world.poll()
    assert (reply.status, reply.content_type) == (200, "text/html")
    assert reply.raw.startswith(b"<!DOCTYPE html>")


async def empty(world: World) -> None:
    await paid_with(world, "empty")
    assert (await world.poll()).raw == b""


async def truncated(world: World) -> None:
    await paid_with(world, "truncated", on=["poll"], times=1)
    half, whole = await world.poll(), await world.poll()
    assert whole.raw.startswith(half.raw)
    assert 0 < len(half.raw) < len(whole.raw)


async def huge(world: World) -> None:
    await paid_with(world, "huge", on=["poll"])
    async with world.http.post(world.sandbox.pollurl(world.sandbox.find("INV-1"))) as reply:
        size = sum([len(chunk) async for chunk in reply.content.iter_any()])
    assert size > 50_000_000


async def slow(world: World) -> None:
    await paid_with(world, "slow", on=["poll"], seconds=3600)
    async with world.http.post(world.sandbox.pollurl(world.sandbox.find("INV-1"))) as reply:
        first = await reply.content.readany()
    assert 0 < len(first) < 40


async def slow_to_the_end(world: World) -> None:
    await paid_with(world, "slow", on=["poll"], seconds=0)
    assert signed((await world.poll()).pairs)


async def redirect(world: World) -> None:
    """Whoever follows is counted."""
    await paid_with(world, "redirect", on=["poll"])
    assert (await world.poll()).status == 302
    assert world.sandbox.calls["redirected"] == 0
    async with world.http.post(world.sandbox.pollurl(world.sandbox.find("INV-1"))) as followed:
        assert followed.status == 200
    assert world.sandbox.calls["redirected"] == 1


async def error500(world: World) -> None:
    await paid_with(world, "error500")
    assert (await world.poll()).status == 500


async def timeout_after_accepting(world: World) -> None:
    """The transaction exists, the connection ends without a byte; trace finds it."""
    world.sandbox.add_fault("timeout_after_accepting", next=True, seconds=0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.initiate(merchanttrace="t1")
    assert (await world.trace("t1"))["reference"] == "INV-1"


SHOWN = (
    late,
    late_but_sent,
    twice,
    out_of_order,
    never,
    ten_resends,
    wrong_amount,
    wrong_hash,
    poll_wrong_hash,
    poll_error,
    html,
    empty,
    truncated,
    huge,
    slow,
    slow_to_the_end,
    redirect,
    error500,
    timeout_after_accepting,
)


@pytest.mark.parametrize("show", SHOWN, ids=lambda show: show.__name__)
async def test_fault(world: World, show: Any) -> None:
    await show(world)


def test_every_fault_is_shown() -> None:
    assert {show.__name__ for show in SHOWN} - {"late_but_sent", "slow_to_the_end"} == set(faults.KINDS)


async def test_a_caller_who_hangs_up_is_not_held(world: World) -> None:
    world.sandbox.add_fault("timeout_after_accepting", next=True, seconds=3600)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(world.initiate(), 0.3)
    assert world.sandbox.find("INV-1").status == "Created"


# --- whose fault, where, how often


async def test_a_fault_of_the_next_transaction_stays_with_it(world: World) -> None:
    world.sandbox.add_fault("empty", next=True, on=["initiate", "poll"])
    assert (await world.initiate(reference="A")).raw == b""
    assert (await world.initiate(reference="B"))["status"] == "Ok"
    assert (await world.poll("A")).raw == b""
    assert (await world.poll("B"))["status"] == "Created"


async def test_times_counts_for_each_operation(world: World) -> None:
    fault = world.sandbox.add_fault("empty", reference="INV-1", on=["initiate", "poll"], times=1)
    replies = [await world.initiate(), await world.poll(), await world.poll()]
    assert [bool(reply.raw) for reply in replies] == [False, False, True]
    assert fault.spent


async def test_a_fault_without_a_name_is_everybodys(world: World) -> None:
    world.sandbox.add_fault("empty", on=["poll"])
    await world.initiate(reference="A")
    await world.initiate(reference="B")
    assert [(await world.poll(name)).raw for name in ("A", "B")] == [b"", b""]
    world.sandbox.clear_faults()
    assert (await world.poll("A"))["status"] == "Created"


async def test_faults_add_up(world: World) -> None:
    world.sandbox.add_fault("twice", reference="INV-1")
    world.sandbox.add_fault("wrong_hash", reference="INV-1")
    await world.initiate()
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()
    assert [signed(wire.decode(body)) for body in world.merchant.bodies] == [False, False]


async def test_clearing_by_reference_leaves_the_others(world: World) -> None:
    world.sandbox.add_fault("empty", next=True)
    kept = world.sandbox.add_fault("never", reference="INV-2")
    await world.initiate()
    world.sandbox.add_fault("never", reference="INV-1")
    world.sandbox.clear_faults("INV-1")
    assert world.sandbox.faults == [kept]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hiccup", {}, "there is no fault 'hiccup'"),
        ("late", {"on": ["poll"]}, "late cannot happen on poll; only on callback"),
        ("html", {"on": ["poll", "callback"]}, "html cannot happen on callback"),
        ("html", {"times": 0}, "times is 1 or more"),
        ("late", {"seconds": -1}, "never negative"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaynowSandbox().add_fault(name, **options)
