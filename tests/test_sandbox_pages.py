"""The Paynow simulator's remote control and pages, and how it stands beside the rest."""

from __future__ import annotations

import ast
import asyncio
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from payments_service.sandbox import phone, wire
from payments_service.sandbox.callbacks import Callbacks
from payments_service.sandbox.paynow import PaynowSandbox, build
from payments_service.sandbox.paynow_transactions import MOVES
from tests import sandbox_world
from tests.sandbox_world import PHONE, USD_KEY, Merchant, World
from tests.servers import serve

stages, world = sandbox_world.stages, sandbox_world.world  # fixtures


# --- the remote control


async def test_the_remote_control_pays_and_reads(world: World) -> None:
    await world.initiate(reference="INV-1-K7M2")
    status, paid = await world.control("pay", reference="INV-1")
    assert (status, paid["status"], paid["reference"]) == (200, "Paid", "INV-1-K7M2")
    await world.control("dispute", reference="INV-1")
    await world.control("status", reference="INV-1", status="Awaiting Delivery")
    await world.sandbox.settled()
    async with world.http.get(f"{world.url}/sandbox/transactions") as reply:
        (seen,) = await reply.json()
    assert seen["history"] == ["Created", "Paid", "Disputed", "Awaiting Delivery"]
    assert (seen["amount"], seen["currency"]) == ("10.00", "USD")
    async with world.http.get(f"{world.url}/sandbox/deliveries") as reply:
        assert [delivery["status"] for delivery in await reply.json()] == [200, 200, 200]
    async with world.http.get(f"{world.url}/sandbox/calls") as reply:
        assert await reply.json() == {"initiate": 1}


@pytest.mark.parametrize("act", ["cancel", "fail"])
async def test_the_remote_control_ends_transactions(world: World, act: str) -> None:
    await world.initiate()
    assert (await world.control(act, reference="INV-1"))[0] == 200
    assert not world.sandbox.find("INV-1").open


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("pay", {"reference": "nobody"}, 404),
        ("pay", {"reference": "INV-1", "amount": "a lot"}, 400),
        ("pay", {"referenz": "INV-1"}, 400),
        ("refund", {"reference": "INV-1"}, 409),
        ("faults", {"fault": "late"}, 400),
        ("faults", {"fault": "late", "next": True, "every": True}, 400),
        ("faults", {"fault": "hiccup", "next": True}, 400),
        ("faults", {"fault": "late", "next": True, "times": "often"}, 400),
    ],
)
async def test_the_remote_control_says_what_is_wrong(
    world: World, path: str, content: dict[str, Any], status: int
) -> None:
    await world.initiate()
    given, answer = await world.control(path, **content)
    assert (given, list(answer)) == (status, ["error"])
    assert world.sandbox.find("INV-1").status == "Created"


async def test_faults_by_remote_control(world: World) -> None:
    status, planned = await world.control("faults", fault="html", next=True, on=["initiate"], times=2)
    assert (status, planned["on"], planned["times"]) == (200, ["initiate"], 2)
    assert (await world.initiate()).raw.startswith(b"<!DOCTYPE")
    await world.control("faults", fault="never", every=True)
    async with world.http.delete(f"{world.url}/sandbox/faults?reference=INV-1") as reply:
        assert [fault["fault"] for fault in await reply.json()] == ["never"]
    async with world.http.get(f"{world.url}/sandbox/faults") as reply:
        assert len(await reply.json()) == 1


async def test_settings_by_remote_control(world: World) -> None:
    _, settings = await world.control("settings", delay_seconds=0.001, reference_in_reply=True, pace=0.5)
    assert settings == {"delay_seconds": 0.001, "reference_in_reply": True, "pace": 0.5, "code_seconds": 600.0}
    assert "paynowreference" in (await world.initiate()).keys


async def test_a_slow_gateway_holds_back_every_wire_reply(world: World) -> None:
    world.sandbox.delay_seconds = 1.5
    for call in (world.initiate(), world.trace("t1"), world.initiate(id="999")):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call, 0.2)
    assert (await world.page("/"))[0] == 200


# --- the pages


async def test_the_page_shows_the_transaction_and_says_that_it_is_a_simulator(world: World) -> None:
    await world.initiate(reference="<b>Order</b>", amount="1250", additionalinfo="<script>x</script>")
    status, page, _ = await world.page(world.pay_page("<b>Order</b>"))
    assert status == 200
    assert "no real money" in page
    assert "USD 1,250.00" in page
    assert "&lt;b&gt;Order&lt;/b&gt;" in page
    assert "<script" not in page
    assert "merchant@example.com" in page


@pytest.mark.parametrize("status", ["Created", *MOVES, "Cancelled", "Something New"])
async def test_the_page_offers_the_moves_of_the_state(world: World, status: str) -> None:
    await world.initiate()
    await world.sandbox.set_status("INV-1", status)
    _, page, _ = await world.page(world.pay_page())
    assert set(re.findall(r'name="status" value="([^"]+)"', page)) == set(MOVES.get(status, ()))


@pytest.mark.parametrize("status", ["Paid", "Awaiting Delivery", "Cancelled", "Failed"])
async def test_what_ends_the_visit_sends_the_browser_back(world: World, status: str) -> None:
    await world.initiate()
    answer, _, target = await world.page(world.pay_page(), {"status": status})
    assert (answer, target) == (303, f"{world.merchant.url}/return")
    await world.sandbox.settled()
    assert world.merchant.statuses == [status]


async def test_later_moves_stay_on_the_page(world: World) -> None:
    await world.initiate()
    await world.sandbox.pay("INV-1")
    answer, _, target = await world.page(world.pay_page(), {"status": "Refunded"})
    assert (answer, target) == (303, world.pay_page())
    answer, page, _ = await world.page(world.pay_page(), {"status": "Paid"})
    assert answer == 409
    assert "INV-1 is Refunded: it cannot become Paid" in page


async def test_the_list_links_every_transaction_and_shows_the_faults(world: World) -> None:
    assert "None yet" in (await world.page("/"))[1]
    await world.initiate()
    await world.page("/sandbox/page/faults", {"fault": "never", "number": ""})
    _, page, _ = await world.page("/")
    assert f'href="{world.pay_page()}"' in page
    assert "callback never comes" in page
    assert world.sandbox.faults[0].next
    await world.page("/sandbox/page/forget", {})
    assert world.sandbox.faults == []


async def test_a_fault_is_planned_on_the_page(world: World) -> None:
    await world.initiate()
    number = str(world.sandbox.find("INV-1").number)
    answer = await world.page("/sandbox/page/faults", {"fault": "empty", "number": number})
    assert answer[0::2] == (303, world.pay_page())
    assert (await world.poll()).raw == b""


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/Payment/ConfirmPayment/7", None),
        ("/Payment/ConfirmPayment/7", {"status": "Paid"}),
        ("/sandbox/page/faults", {"fault": "empty", "number": "7"}),
        ("/sandbox/page/faults", {"fault": "hiccup", "number": ""}),
    ],
)
async def test_what_does_not_exist_is_not_found(world: World, path: str, data: dict[str, str] | None) -> None:
    assert (await world.page(path, data))[0] == 404


# --- how it stands beside the rest


async def test_it_can_be_mounted_beside_other_simulators() -> None:
    sandbox = build("")
    app = Starlette(routes=[Mount("/paynow", routes=[*sandbox.routes(), *phone.routes([sandbox.line])])])
    async with sandbox, serve(app) as url, aiohttp.ClientSession() as http:
        sandbox.public_url = f"{url}/paynow"
        world = World(sandbox, Merchant("http://127.0.0.1:1"), http)
        reply = await world.initiate()
        assert (await world.poll())["pollurl"] == reply["pollurl"]
        _, page, _ = await world.page(world.pay_page())
        assert f'action="/paynow{world.pay_page()}"' in page
        await world.express(reference="INV-2")
        _, page, _ = await world.page(f"/phone/{PHONE}")
        assert f'action="/paynow/phone/{PHONE}"' in page


async def test_numbers_do_not_come_again_after_a_restart() -> None:
    """A service keeps Paynow's references for ever: a new simulator must not give an old one."""
    first, second = build(""), build("")
    assert abs(second._next_number - first._next_number) < 3_600_000
    assert PaynowSandbox()._next_number >= first._next_number > 1_000_000_000


async def test_callbacks_can_be_used_again_after_close() -> None:
    callbacks = Callbacks()
    await callbacks.close()
    await callbacks.close()


def test_it_shares_nothing_with_the_adapter() -> None:
    """An import of payments_service.gateways would let one mistake hide another."""
    loaded = "import payments_service.sandbox.paynow, sys; print([m for m in sys.modules if '.gateways' in m])"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_it_prints_no_integration_key() -> None:
    assert USD_KEY not in repr(build("").integrations)


def test_the_sources_never_use_float_for_money() -> None:
    for path in Path(wire.__file__).parent.glob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "float"]
