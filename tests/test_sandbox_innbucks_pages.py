"""The InnBucks simulator's remote control and overview, and the customer's app, which takes Paynow's codes too."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from payments_service.sandbox import innbucks
from payments_service.sandbox.run import Simulators
from tests import innbucks_world, sandbox_world
from tests.innbucks_world import World
from tests.sandbox_world import Merchant
from tests.servers import Stage, serve

stage, world = innbucks_world.stage, innbucks_world.world  # fixtures

APP = "/phone/innbucks"
OVERVIEW = "/sandbox/innbucks"


async def shown(world: World, path: str) -> str:
    """The page as text with single blanks."""
    status, page, _ = await world.page(path)
    assert status == 200
    return " ".join(unescape(page).split())


# --- the remote control


async def test_the_remote_control_pays_and_reads(world: World) -> None:
    code = await world.made("INV-1-K7M2")
    status, paid = await world.control("pay", reference="INV-1", amount=1249)
    assert status == 200
    assert paid == {
        "merchant": world.merchant.username,
        "reference": "INV-1-K7M2",
        "narration": "Two bags of cement",
        "amount": 1250,
        "paid_amount": 1249,
        "code": code.code,
        "status": "Paid",
        "seconds_left": 0,
        "made_at": world.now,
        "ends_at": world.now + 600,
    }
    for path, told in (("codes", [paid]), ("calls", {"auth": 1, "generate": 1}), ("faults", [])):
        async with world.http.get(f"{world.url}{OVERVIEW}/{path}") as reply:
            assert await reply.json() == told


@pytest.mark.parametrize(
    ("moves", "status"),
    [
        ([("claim", {})], "Claimed"),
        ([("expire", {}), ("pay_late", {})], "Paid"),
        ([("expire", {})], "Expired"),
        ([("status", {"status": "Timed Out"})], "Timed Out"),
    ],
)
async def test_the_remote_control_moves_codes(world: World, moves: list[tuple[str, Any]], status: str) -> None:
    await world.made()
    for path, more in moves:
        http, told = await world.control(path, reference="INV-1", **more)
        assert http == 200
    assert told["status"] == status


async def test_the_remote_control_types_a_code_that_it_planned(world: World) -> None:
    assert (await world.control("plan_code", code="012345"))[0] == 200
    await world.made()
    assert (await world.control("pay_code", code="012345"))[1]["status"] == "Paid"


async def test_the_remote_control_plans_faults_and_forgets_them(world: World) -> None:
    status, fault = await world.control("faults", fault="html", on=["auth"], times=1, share=1.0, seed=3)
    assert status == 200
    told = {"fault": "html", "on": ["auth"], "times": 1, "seconds": 0.0, "reference": "", "share": 1.0, "used": 0}
    assert fault == told
    await world.control("faults", fault="empty", reference="INV-1")
    async with world.http.delete(f"{world.url}{OVERVIEW}/faults?reference=INV-1") as reply:
        assert await reply.json() == [told]
    async with world.http.delete(f"{world.url}{OVERVIEW}/faults") as reply:
        assert await reply.json() == []


async def test_the_remote_control_sets_what_the_page_leaves_open(world: World) -> None:
    changed = {"inquiry_path": "/api/code/query", "absent_status": 405, "finalised": "http400", "code_seconds": 30.0}
    status, settings = await world.control("settings", **changed)
    assert status == 200
    assert settings == changed | {"delay_seconds": 0.0, "token_seconds": 900.0, "statement_rows": 10}


async def test_the_remote_control_adds_merchants_and_ends_tokens(world: World) -> None:
    new = {"username": "carol", "password": "p", "api_key": "k", "account_id": "7", "name": "Carol's"}
    assert await world.control("merchants", **new) == (200, {"username": "carol", "account_id": "7", "name": "Carol's"})
    carol = world.sandbox.merchants["carol"]
    assert (await world.generate(by=carol)).status == 200
    await world.control("expire_tokens", username="carol")
    assert (await world.generate(by=carol)).status == 401
    async with world.http.get(f"{world.url}{OVERVIEW}/merchants") as reply:
        assert [one["username"] for one in await reply.json()] == [*list(world.sandbox.merchants)]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("pay", {"reference": "nobody"}, 404),
        ("pay_code", {"code": "1"}, 404),
        ("pay", {"referenz": "INV-1"}, 400),
        ("pay", {"reference": "INV-1", "amount": 0}, 400),
        ("pay", {"reference": "INV-1", "amount": "12.50"}, 400),
        ("pay_late", {"reference": "INV-1"}, 409),
        ("status", {"reference": "INV-1", "status": ""}, 400),
        ("plan_code", {"code": "1"}, 400),
        ("faults", {"fault": "hiccup"}, 400),
        ("settings", {"finalised": "sometimes"}, 400),
        ("settings", {"inquiry_path": "/elsewhere"}, 400),
    ],
)
async def test_the_remote_control_says_what_is_wrong(
    world: World, path: str, content: dict[str, Any], status: int
) -> None:
    await world.made()
    given, answer = await world.control(path, **content)
    assert (given, list(answer)) == (status, ["error"])


# --- the overview


async def test_the_overview_shows_codes_and_what_may_become_of_them(world: World) -> None:
    assert "None yet" in await shown(world, OVERVIEW)
    await world.made("INV-1")
    await world.made("INV-2", amount=123_456)
    page = await shown(world, OVERVIEW)
    assert page.index("USD 1,234.56") < page.index("USD 12.50")
    assert "INV-1, Alpha Hardware, 600 s left" in page
    assert 'href="/phone/innbucks"' in page
    assert 'href="/"' in page
    assert "InnBucks simulator: no real money moves here" in page


@pytest.mark.parametrize(("acts", "status"), [(["pay", "claim"], "Claimed"), (["expire", "pay_late"], "Paid")])
async def test_the_buttons_of_the_overview_move_codes(world: World, acts: list[str], status: str) -> None:
    code = await world.made()
    for act in acts:
        assert f'value="{act}"' in await shown(world, OVERVIEW)
        http, _, target = await world.page(OVERVIEW, {"code": code.code, "act": act})
        assert (http, target) == (303, OVERVIEW)
    assert code.status == status


async def test_the_overview_says_what_cannot_be(world: World) -> None:
    code = await world.made()
    http, page, _ = await world.page(OVERVIEW, {"code": code.code, "act": "pay_late"})
    assert (http, "is New, not Expired" in page) == (409, True)
    assert (await world.page(OVERVIEW, {"code": "1", "act": "pay"}))[0] == 404
    assert (await world.page(OVERVIEW, {"code": code.code, "act": "steal"}))[0] == 404


async def test_a_fault_is_planned_and_forgotten_on_the_overview(world: World) -> None:
    http, _, target = await world.page(f"{OVERVIEW}/page/faults", {"fault": "no_code", "operation": "generate"})
    assert (http, target) == (303, OVERVIEW)
    assert 'does not tell it <span class="soft">on generate, 1 more time</span>' in await shown(world, OVERVIEW)
    http, page, _ = await world.page(f"{OVERVIEW}/page/faults", {"fault": "no_code", "operation": "auth"})
    assert (http, "only on generate" in page) == (400, True)
    await world.page(f"{OVERVIEW}/page/forget", {})
    assert world.sandbox.faults == []


async def test_the_overview_has_no_script_and_no_foreign_content(world: World) -> None:
    await world.made("<script>x</script>", narration="<img src=x>")
    _, page, _ = await world.page(OVERVIEW)
    assert not re.search("<script|<img|https?://", page)


async def test_it_can_be_mounted_below_a_path() -> None:
    sandbox = innbucks.build("")
    app = Starlette(routes=[Mount("/there", routes=sandbox.routes())])
    async with sandbox, serve(app) as url, aiohttp.ClientSession() as http:
        sandbox.public_url = f"{url}/there"
        world = World(sandbox, http)
        code = await world.made()
        assert (await world.inquire(code.code, path="query"))["path"] == "/api/code/query"
        assert 'action="/there/sandbox/innbucks"' in (await world.page(OVERVIEW))[1]


# --- the customer's app, with both sources of codes


@pytest.fixture
async def both(stage: tuple[Stage, str]) -> AsyncIterator[tuple[World, sandbox_world.World]]:
    """The simulators side by side, as merchants of each see them."""
    simulator, url = stage
    async with Simulators(url) as simulators, aiohttp.ClientSession() as http:
        simulator.app = simulators.app
        paynow = sandbox_world.World(simulators.paynow, Merchant("http://127.0.0.1:1"), http)
        yield World(simulators.innbucks, http), paynow


async def test_the_app_takes_a_code_of_either_and_asks_before_it_pays(both: tuple[World, sandbox_world.World]) -> None:
    world, paynow = both
    ours = await world.made()
    await paynow.express("innbucks", reference="INV-2", amount="7")
    theirs = paynow.sandbox.code_of("INV-2")
    asked = {ours.code: "USD 12.50</strong> to Alpha Hardware?", theirs: "USD 7.00</strong> to merchant@example.com?"}
    for code, asks in asked.items():
        page = await shown(world, f"{APP}/confirm?code={code[:3]}+{code[3:]}")
        assert asks in page
        assert f'name="code" value="{code}"' in page
    assert (ours.live, paynow.sandbox.find("INV-2").open) == (True, True)
    for code in asked:
        http, _, target = await world.page(APP, {"code": code})
        assert (http, target) == (303, APP)
    page = await shown(world, APP)
    assert "You paid USD 12.50 to Alpha Hardware." in page
    assert "You paid USD 7.00 to merchant@example.com." in page
    assert (ours.status, paynow.sandbox.find("INV-2").status) == ("Paid", "Paid")


async def test_a_link_fills_the_code_in(both: tuple[World, sandbox_world.World]) -> None:
    world, _ = both
    assert 'value="0123456"' in await shown(world, f"{APP}?code=0123456")
    assert 'value=""' in await shown(world, APP)
    page = await shown(world, f"{APP}?code=%22%3E%3Cscript%3E")
    assert "<script" not in page.replace('value=""><script>"', "")


@pytest.mark.parametrize(
    ("status", "told"), [("Paid", "is used up"), ("Expired", "has expired"), ("Reversed", "is used up")]
)
async def test_the_app_says_why_a_code_does_not_pay(
    both: tuple[World, sandbox_world.World], status: str, told: str
) -> None:
    """Before it asks, and when the code ended between the question and the answer."""
    world, _ = both
    code = await world.made()
    await world.sandbox.set_status(code.code, status)
    for path, data in ((f"{APP}/confirm?code={code.code}", None), (APP, {"code": code.code})):
        http, _, target = await world.page(path, data)
        assert http == 303
        page = await shown(world, target)
        assert told in page
        assert f'value="{code.code}" aria-invalid="true" aria-describedby="problem"' in page


async def test_a_code_that_nobody_gave_out_is_unknown(both: tuple[World, sandbox_world.World]) -> None:
    world, _ = both
    _, _, target = await world.page(f"{APP}/confirm?code=%3Cb%3E1")
    assert target == f"{APP}?wrong=unknown&code=1"
    assert "No payment has this code" in await shown(world, target)


async def test_the_simulators_share_one_address(both: tuple[World, sandbox_world.World]) -> None:
    world, _ = both
    assert f'href="{OVERVIEW}"' in await shown(world, "/")
    assert f'href="{APP}"' in await shown(world, "/phone")
    assert world.sandbox.url == f"{world.url}/innbucks"
