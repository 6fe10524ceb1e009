"""What people use of the EcoCash simulator: remote control, overview, phones; and how it stands beside the others."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from typing import Any

import aiohttp
import pytest

from payments_service import config
from payments_service.sandbox import ecocash, run
from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API
from payments_service.sandbox.ecocash_faults import KINDS
from payments_service.sandbox.run import Simulators
from tests import ecocash_world, sandbox_world
from tests.ecocash_world import DIALECTS, MSISDN, PHONE, START, Shop, World
from tests.servers import serve

stages, world = ecocash_world.stages, ecocash_world.world  # fixtures

PAGE = f"/phone/{PHONE}"
OVERVIEW = "/sandbox/ecocash"


async def shown(world: World, path: str = PAGE) -> str:
    """The page as text with single blanks."""
    status, page, _ = await world.page(path)
    assert status == 200
    return " ".join(unescape(page).split())


# --- remote control


async def seen(world: World, path: str) -> Any:
    async with world.http.get(f"{world.url}{OVERVIEW}/{path}") as reply:
        return await reply.json()


async def test_charges_are_moved_by_remote_control(world: World) -> None:
    await world.charged(EIP)
    assert (await world.control("approve", reference="INV-1", pin="2222"))[0] == 403
    status, paid = await world.control("approve", reference="INV-1")
    assert (status, paid["status"], paid["ending"]) == (200, "COMPLETED", "paid")
    await world.refund(world.sandbox.charges[0], 2.5)
    ((charge,), calls) = await seen(world, "charges"), await seen(world, "calls")
    assert charge["refunds"][0]["amount"] == 2.5
    assert charge["refunds"][0]["at"] == START
    assert {name: charge[name] for name in ("dialect", "merchant", "msisdn", "amount", "currency")} == {
        "dialect": EIP,
        "merchant": "8003",
        "msisdn": MSISDN,
        "amount": 12.5,
        "currency": "USD",
    }
    assert calls == {"charge": 1, "refund": 1}


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        ("pay", {}, "SUCCESS"),
        ("pay", {"amount": "12.49", "currency": "ZWG"}, "SUCCESS"),
        ("decline", {}, "REJECTED"),
        ("ignore", {}, "EXPIRED"),
        ("fail", {}, "FAILED"),
        ("status", {"status": "REVERSED"}, "REVERSED"),
    ],
)
async def test_each_move_by_remote_control(world: World, path: str, more: dict[str, Any], status: str) -> None:
    await world.charged(OPEN_API)
    given, charge = await world.control(path, reference="INV-1", **more)
    assert (given, charge["status"]) == (200, status)
    assert charge["amount"] == float(more.get("amount", 12.5))


async def test_the_rest_by_remote_control(world: World) -> None:
    """Late money, a reference used twice, the portal's address, a merchant."""
    first, second = await world.paid(EIP), await world.charged(OPEN_API)
    _, reused = await world.control("reuse_reference", reference=second.correlator, other=first.correlator)
    assert reused["ecocash_reference"] == first.ecocash_reference
    await world.control("fail", reference=second.correlator)
    await world.control("callback_url", merchant="850236", url=f"{world.shop.url}/portal")
    await world.control("complete_late", reference=second.correlator)
    await world.sandbox.settled()
    assert [one["url"] for one in await seen(world, "deliveries")][-1] == f"{world.shop.url}/portal"
    _, made = await world.control("merchants", dialect=EIP, name="New", username="new", currencies=["ZiG"])
    assert (made["name"], made["currencies"]) == ("New", ["ZWG"])
    assert (await seen(world, "merchants"))[-1] == made
    assert "password" not in made


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("pay", {"reference": "INV-2"}, 404),
        ("pay", {"reference": "INV-1", "amount": "a lot"}, 400),
        ("pay", {"reference": "INV-1", "currency": "EUR"}, 400),
        ("pay", {"referenz": "INV-1"}, 400),
        ("complete_late", {"reference": "INV-1"}, 409),
        ("callback_url", {"merchant": "8003", "url": "http://127.0.0.1"}, 404),
        ("merchants", {"dialect": "soap"}, 400),
        ("merchants", {"dialect": "eip", "currencies": ["EUR"]}, 400),
        ("faults", {"fault": "hiccup"}, 400),
        ("faults", {"fault": "html", "on": ["callback"]}, 400),
        ("settings", {"open_api_answer": "xml"}, 400),
        ("settings", {"refund_outcome": "lost"}, 400),
    ],
)
async def test_the_remote_control_says_what_is_wrong(
    world: World, path: str, content: dict[str, Any], status: int
) -> None:
    charge = await world.charged(EIP)
    given, answer = await world.control(path, **content)
    assert (given, list(answer)) == (status, ["error"])
    assert charge.open


async def test_faults_and_settings_by_remote_control(world: World) -> None:
    _, planned = await world.control("faults", fault="empty", on=["charge"], times=2, share=0.5, seed=1)
    assert (planned["on"], planned["times"], planned["share"]) == (["charge"], 2, 0.5)
    assert await seen(world, "faults") == [planned]
    async with world.http.delete(f"{world.url}{OVERVIEW}/faults") as reply:
        assert await reply.json() == []
    _, settings = await world.control("settings", open_api_answer="text", prompt_seconds=5.0)
    assert (settings["open_api_answer"], settings["delay_seconds"]) == ("text", 0)
    assert (await world.charge(OPEN_API)).raw == b"OK"


# --- the pages


async def test_the_overview_has_charges_merchants_and_faults(world: World) -> None:
    assert "None yet" in await shown(world, OVERVIEW)
    await world.charged(EIP, amount=1250, referenceCode="<b>INV</b>")
    _, raw, _ = await world.page(OVERVIEW)
    assert "&lt;b&gt;INV&lt;/b&gt;, Demo Books" in raw
    page = await shown(world, OVERVIEW)
    assert "USD 1,250.00" in page
    for secret in ("sandbox-demo-open-api-key", "sandbox-demo-eip", "sandbox-demo-portal"):
        assert secret in page
    assert "no real money moves here" in page


async def test_a_fault_is_planned_and_forgotten_by_hand(world: World) -> None:
    for fault, kind in KINDS.items():
        assert (await world.page(f"{OVERVIEW}/page/faults", {"fault": fault, "operation": ""}))[0] == 303
        assert f"<li>{kind.title}" in await shown(world, OVERVIEW)
    await world.page(f"{OVERVIEW}/page/faults", {"fault": "html", "operation": "refund"})
    assert world.sandbox.faults[-1].on == ("refund",)
    assert (await world.page(f"{OVERVIEW}/page/forget", {}))[2] == OVERVIEW
    assert world.sandbox.faults == []


async def test_a_charges_page_offers_what_its_state_allows(world: World) -> None:
    charge = await world.charged(EIP_PORTAL)
    path = f"{OVERVIEW}/charges/{charge.id}"

    async def buttons() -> list[str]:
        return re.findall(r'name="act" value="(\w+)"', await shown(world, path))

    assert await buttons() == ["approve", "decline", "ignore", "fail"]
    assert (await world.page(path, {"act": "ignore"}))[2] == path
    assert await buttons() == ["complete_late"]
    assert (await world.page(path, {"act": "approve"}))[0] == 409
    await world.page(path, {"act": "complete_late"})
    await world.refund(charge, 2.5)
    await world.sandbox.settled()
    page = await shown(world, path)
    assert await buttons() == []
    assert "only a refund can follow" in page
    assert "<h2>Refunds</h2>" in page
    assert page.count("answered 200") == 2
    assert f'href="{PAGE}"' in page


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (f"{OVERVIEW}/charges/7", None),
        (f"{OVERVIEW}/charges/7", {"act": "approve"}),
        (f"{OVERVIEW}/page/faults", {"fault": "hiccup"}),
        (PAGE, {"prompt": "ecocash-7", "answer": "approve", "pin": "1234"}),
    ],
)
async def test_what_does_not_exist_is_not_found(world: World, path: str, data: dict[str, str] | None) -> None:
    assert (await world.page(path, data))[0] == 404


async def test_no_button_does_what_is_none(world: World) -> None:
    charge = await world.charged(EIP)
    assert (await world.page(f"{OVERVIEW}/charges/{charge.id}", {"act": "close"}))[0] == 404


# --- the phone


async def answer(world: World, number: int = 0, **fields: str) -> None:
    prompt = f"ecocash-{world.sandbox.charges[number].id}"
    status, _, target = await world.page(PAGE, {"prompt": prompt} | fields)
    assert (status, target) == (303, PAGE)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_the_prompt_says_who_asks_for_what(world: World, dialect: str) -> None:
    charge = await world.charged(dialect)
    page = await shown(world)
    assert f"{charge.merchant.name} asks for <strong>USD 12.50</strong>" in page
    assert "INV-1-K7M2" in page
    assert re.search(r'<label for="(pin-[\w-]+)">Enter PIN.*<input id="\1" name="pin" type="password"', page)
    assert "http-equiv" not in page
    await answer(world, answer="approve", pin="1234")
    page = await shown(world)
    assert f"You paid USD 12.50 to {charge.merchant.name}." in page
    assert ("http-equiv" in page, "Enter PIN" in page) == (True, False)


@pytest.mark.parametrize(
    ("pin", "words"),
    [("1111", "There is not enough money in your wallet to pay USD 12.50"), ("9999", "above your wallet's limit")],
)
async def test_the_phone_says_why_nothing_was_paid(world: World, pin: str, words: str) -> None:
    await world.charged(EIP)
    await answer(world, answer="approve", pin=pin)
    page = await shown(world)
    assert words in page
    assert "No money was taken." in page


async def test_wrong_pins_are_said_and_never_shown(world: World) -> None:
    await world.charged(EIP)
    for words in ("Wrong PIN. 2 tries left.", "Wrong PIN. 1 try left."):
        await answer(world, answer="approve", pin="7391")
        page = await shown(world)
        assert words in page
        assert "7391" not in page
    await answer(world, answer="approve", pin="7391")
    assert "Wrong PIN, three times. The payment of USD 12.50 to Demo Books failed." in await shown(world)


async def test_declining_and_doing_nothing_are_told(world: World) -> None:
    await world.charged(EIP)
    await answer(world, answer="decline", pin="")
    assert "You declined to pay USD 12.50 to Demo Books." in await shown(world)
    await world.charged(OPEN_API)
    world.time += 60
    page = await shown(world)
    assert "Demo Hardware asked for USD 12.50, and you did not answer in time." in page
    await answer(world, 1, answer="approve", pin="1234")
    assert world.sandbox.charges[1].status == "EXPIRED"


async def test_a_refund_is_told(world: World) -> None:
    charge = await world.paid(EIP)
    await world.refund(charge, 2.5)
    page = await shown(world)
    assert "Demo Books gave you USD 2.50 back." in page
    assert "You paid USD 12.50" in page


async def test_a_phone_answers_its_own_prompts_only(world: World) -> None:
    charge = await world.charged(EIP)
    prompt = {"prompt": f"ecocash-{charge.id}", "answer": "decline"}
    assert (await world.page("/phone/0719999999", prompt))[0] == 404
    assert charge.open


async def test_one_phone_has_the_prompts_of_all_gateways_newest_first() -> None:
    """Each is answered at the gateway that asks."""
    async with Simulators() as simulators, serve(simulators.app) as url, aiohttp.ClientSession() as http:
        simulators.public_url = url
        direct = World(simulators.ecocash, Shop("http://127.0.0.1:1"), http)
        express = sandbox_world.World(simulators.paynow, sandbox_world.Merchant("http://127.0.0.1:1"), http)
        await express.express(phone=PHONE, reference="INV-1")
        charge = await direct.charged(EIP)
        await express.express("onemoney", phone=PHONE, reference="INV-2", amount="7")
        page = await shown(direct)
        assert re.findall(r"<h2>(\w+)</h2>", page) == ["OneMoney", "EcoCash", "EcoCash"]
        assert re.findall(r"<p class=\"ask\">(\S+)", page)[1] == "Demo"
        await answer(direct, answer="approve", pin="0000")
        assert (charge.paid, simulators.paynow.find("INV-1").open) == (True, True)
        prompt = f"paynow-{simulators.paynow.find('INV-2').number}"
        await direct.page(PAGE, {"prompt": prompt, "answer": "decline"})
        assert simulators.paynow.find("INV-2").status == "Cancelled"
        page = await shown(direct)
        assert page.index("Enter PIN") < page.index("The payment of USD 7.00") < page.index("You paid USD 12.50")
        await direct.charged(OPEN_API, customerMsisdn="263780000000")
        assert re.findall(r'href="/phone/(\w+)"', await shown(direct, "/phone")) == ["0780000000", PHONE, "innbucks"]


@pytest.mark.parametrize("path", ["/phone", PAGE, OVERVIEW, f"{OVERVIEW}/charges/{{id}}"])
async def test_no_page_has_script_or_foreign_content(world: World, path: str) -> None:
    charge = await world.charged(OPEN_API, reason="<script>x</script>")
    await world.charged(EIP, referenceCode="<img src=x>", remarks="<img src=x>")
    _, page, _ = await world.page(path.format(id=charge.id))
    assert "no real money moves here" in page
    assert not re.search("<script|<img", page)


# --- how it stands beside the rest


def test_the_settings_point_the_service_at_the_simulators() -> None:
    """Each of them is a setting that there is, and holds a URL that the service takes."""
    simulators = Simulators("http://127.0.0.1:8082")
    given = simulators.settings()
    assert given == run.settings("http://127.0.0.1:8082")
    assert set(given) <= {variable.name for variable in config.VARIABLES}
    assert given["ECOCASH_URL"] == "http://127.0.0.1:8082/ecocash/open-api"
    assert given["ECOCASH_EIP_URL"] == "http://127.0.0.1:8082/ecocash/eip"
    assert given["ECOCASH_PORTAL_URL"] == "http://127.0.0.1:8082/ecocash/portal"


def test_it_shares_nothing_with_the_adapter() -> None:
    """An import of payments_service.gateways would let one mistake hide another."""
    loaded = "import payments_service.sandbox.ecocash, sys; print([m for m in sys.modules if '.gateways' in m])"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_two_simulators_share_no_merchant() -> None:
    one, other = ecocash.build(""), ecocash.build("")
    one.merchants[0].callback_url = "http://127.0.0.1/"
    assert not other.merchants[0].callback_url
    assert not ecocash.DEMO_MERCHANTS[OPEN_API].callback_url
