"""The Paynow simulator's express checkout: test numbers and test mode (section 6), faults, the remote control."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from payments_service.sandbox.paynow_transactions import METHODS
from tests import sandbox_world
from tests.sandbox_world import PHONE, World

stages, world = sandbox_world.stages, sandbox_world.world  # fixtures

SUCCESS, DELAYED, CANCELLED, POOR = "0771111111", "0772222222", "0773333333", "0774444444"


# --- test numbers and test mode (section 6)


@pytest.mark.parametrize("test_mode", [False, True])
@pytest.mark.parametrize("method", ["ecocash", "onemoney"])
@pytest.mark.parametrize(("phone", "status"), [(SUCCESS, "Paid"), (DELAYED, "Paid"), (CANCELLED, "Cancelled")])
async def test_test_numbers_act_by_themselves(
    world: World, phone: str, status: str, method: str, test_mode: bool
) -> None:
    world.sandbox.integrations["1201"].test_mode = test_mode
    world.sandbox.pace = 0.0001
    reply = await world.express(method, phone=phone)
    assert reply["instructions"].startswith("This is a test transaction. Test Case: ")
    await world.sandbox.settled()
    assert world.sandbox.find("INV-1").history == ["Created", "Sent", status]
    assert world.merchant.statuses == [status]
    assert world.sandbox.prompts == {phone: 1}


async def test_the_live_samples_instructions(world: World) -> None:
    assert (await world.express(phone=SUCCESS))["instructions"] == "This is a test transaction. Test Case: Success"


@pytest.mark.parametrize("method", ["ecocash", "onemoney"])
async def test_the_poor_test_number_is_an_error_at_once(world: World, method: str) -> None:
    assert (await world.express(method, phone=POOR)).raw == b"status=Error&error=Insufficient+balance"
    assert world.sandbox.transactions == []


async def test_before_its_time_a_test_number_has_done_nothing_and_close_ends_it(world: World) -> None:
    world.sandbox.pace = 3600
    await world.express(phone=SUCCESS)
    assert (await world.poll())["status"] == "Sent"
    await world.sandbox.close()
    await asyncio.wait_for(world.sandbox.settled(), 60)
    assert world.sandbox.find("INV-1").status == "Sent"


async def test_who_is_faster_than_a_test_number_decides(world: World) -> None:
    world.sandbox.pace = 0.01
    await world.express(phone=SUCCESS)
    await world.sandbox.cancel("INV-1")
    await world.sandbox.settled()
    assert world.sandbox.find("INV-1").history == ["Created", "Sent", "Cancelled"]


@pytest.mark.parametrize("method", ["ecocash", "onemoney", "omari"])
async def test_test_mode_refuses_other_numbers(world: World, method: str) -> None:
    world.sandbox.integrations["1201"].test_mode = True
    assert "currently in test mode" in (await world.express(method))["error"]
    assert world.sandbox.transactions == []


async def test_test_mode_refuses_innbucks_in_paynows_words(world: World) -> None:
    world.sandbox.integrations["1201"].test_mode = True
    assert (await world.express("innbucks", phone=SUCCESS))["error"] == (
        "The ID specified is currently in test mode. This is not permitted for remote InnBucks transactions"
    )


# --- faults


async def test_a_fault_of_replies_meets_express_as_it_meets_initiate(world: World) -> None:
    fault = world.sandbox.add_fault("empty", next=True)
    assert fault.on == ("initiate", "express", "poll")
    assert (await world.express()).raw == b""
    assert (await world.poll()).raw == b""


async def test_an_express_request_may_be_accepted_without_a_reply(world: World) -> None:
    """Trace finds it, and the customer has been prompted once."""
    world.sandbox.add_fault("timeout_after_accepting", next=True, seconds=0)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.express(merchanttrace="t1")
    assert (await world.trace("t1"))["status"] == "Sent"
    assert world.sandbox.prompts == {PHONE: 1}


async def test_an_otp_may_be_accepted_without_a_reply(world: World) -> None:
    world.sandbox.add_fault("timeout_after_accepting", reference="INV-1", on=["otp"], seconds=0)
    await world.express("omari")
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await world.otp(world.sandbox.otp_of("INV-1"))
    assert (await world.poll())["status"] == "Paid"


@pytest.mark.parametrize(("fault", "options"), [("wrong_hash", {}), ("wrong_amount", {}), ("html", {})])
async def test_the_answer_to_an_otp_may_go_wrong(world: World, fault: str, options: dict[str, Any]) -> None:
    await world.express("omari")
    world.sandbox.add_fault(fault, reference="INV-1", on=["otp"], **options)
    spoilt = await world.otp(world.sandbox.otp_of("INV-1"))
    polled = await world.poll()
    assert polled["status"] == "Paid"
    assert spoilt.raw != polled.raw


# --- the remote control


async def test_the_remote_control_has_the_customers_hands(world: World) -> None:
    for number, method in enumerate(METHODS):
        await world.express(method, reference=f"INV-{number}")
    assert (await world.control("approve", reference="INV-0", pin="0000"))[0] == 403
    assert (await world.control("approve", reference="INV-0"))[1]["status"] == "Paid"
    assert (await world.control("decline", reference="INV-1"))[1]["status"] == "Cancelled"
    code = world.sandbox.code_of("INV-2")
    assert (await world.control("pay-code", code=code))[1]["reference"] == "INV-2"
    async with world.http.get(f"{world.url}/sandbox/transactions") as reply:
        seen = await reply.json()
    assert [one["method"] for one in seen] == list(METHODS)
    assert {one["phone"] for one in seen} == {PHONE}
    assert [one["code"] for one in seen] == ["", "", code, ""]
    assert [one["otp"] for one in seen] == ["", "", "", world.sandbox.otp_of("INV-3")]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("approve", {"reference": "nobody"}, 404),
        ("approve", {"reference": "INV-1", "pin": 1234}, 400),
        ("decline", {"reference": "INV-2"}, 409),
        ("pay-code", {"code": "1"}, 404),
    ],
)
async def test_the_remote_control_says_what_is_wrong(
    world: World, path: str, content: dict[str, Any], status: int
) -> None:
    await world.express()
    await world.initiate(reference="INV-2")
    given, answer = await world.control(path, **content)
    assert (given, list(answer)) == (status, ["error"])


async def test_pace_and_the_life_of_codes_are_settings(world: World) -> None:
    await world.control("settings", pace=0.0001, code_seconds=0)
    await world.express(phone=DELAYED)
    await world.express("innbucks", reference="INV-2")
    await world.sandbox.settled()
    assert world.sandbox.find("INV-1").status == "Paid"
    assert (await world.control("pay-code", code=world.sandbox.code_of("INV-2")))[0] == 404
