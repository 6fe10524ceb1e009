"""The customer's WhatsApp as pages, the simulator's overview and its remote control."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from payments_service.sandbox import whatsapp
from payments_service.sandbox.run import Simulators
from payments_service.sandbox.whatsapp import DEMO_SENDERS
from tests import whatsapp_world
from tests.servers import Stage, serve
from tests.whatsapp_world import CUSTOMER, PICTURE, Business, World

stages, world = whatsapp_world.stages, whatsapp_world.world  # fixtures

OVERVIEW = "/sandbox/whatsapp"
CHATS = "/phone/0771234567/whatsapp"
CHAT = f"{CHATS}/{DEMO_SENDERS[0][0]}"


async def shown(world: World, path: str) -> str:
    """The page as text with single blanks."""
    status, page, _ = await world.page(path)
    assert status == 200
    return " ".join(unescape(page).split())


# --- the chat


async def test_the_phone_tells_of_a_new_message_and_leads_to_it(world: World) -> None:
    assert "nothing new" in await shown(world, "/phone/0771234567")
    await world.sent()
    assert 'href="/phone/0771234567"' in await shown(world, "/phone")
    page = await shown(world, "/phone/0771234567")
    assert "1 new" in page
    assert f'href="{CHATS}"' in page
    page = await shown(world, CHATS)
    assert "1 new" in page
    assert "Acme asks you to pay USD 12.50" in page
    assert f'href="{CHAT}"' in page


async def test_the_chat_shows_the_message_its_button_and_its_preview(world: World) -> None:
    await world.sent()
    page = await shown(world, CHAT)
    assert "<h1>Conva</h1>" in page
    assert "Acme asks you to pay USD 12.50 for Order 1001. Tap the button to see all ways to pay." in page
    assert re.search(rf'<a class="tap" href="{world.business.url}/pay/AbC123".*Pay now</a>', page)
    assert '<span class="name">Pay USD 12.50 to Acme</span><span>For Order 1001</span>' in page
    assert f'<img src="data:image/png;base64,{base64.b64encode(PICTURE).decode()}" alt="">' in page
    assert "12:00" in page
    assert "Today" in page


async def test_opening_the_chat_reads_what_is_in_it(world: World) -> None:
    await world.sent()
    assert 'aria-label="read"' in await shown(world, CHAT)
    await world.sandbox.settled()
    assert world.business.words == ["sent", "delivered", "read"]
    await shown(world, CHAT)
    await world.sandbox.settled()
    assert len(world.business.words) == 3
    assert "new</span>" not in await shown(world, CHATS)


async def test_the_preview_is_looked_at_once_as_whatsapp_looks(world: World) -> None:
    await world.sent()
    await shown(world, CHAT)
    await shown(world, CHAT)
    (headers,) = world.business.looked
    assert headers["user-agent"].startswith("WhatsApp/")


@pytest.mark.parametrize(
    ("page", "picture", "drawn"),
    [
        ("<title> Only\n a title </title>", PICTURE, ["Only a title"]),
        ("<p>nothing</p>", PICTURE, []),
        ('<meta property="og:title" content="<b>x</b>">', PICTURE, ["<b>x</b>"]),
        (
            '<meta property="og:title" content="a"><meta property="og:image" content="http://192.0.2.1/x">',
            PICTURE,
            ["a"],
        ),
        (
            '<meta property="og:title" content="a"><meta property="og:image" content="/picture.png">',
            b"x" * 300_001,
            ["a"],
        ),
        ('<meta property="og:title" content="a"><meta property="og:image" content="http://[">', PICTURE, ["a"]),
        ('<meta property="og:title">', PICTURE, []),
        ("x" * 300_000 + "<title>too far down</title>", PICTURE, []),
    ],
)
async def test_the_preview_is_what_the_page_tells_within_bounds(
    world: World, page: str, picture: bytes, drawn: list[str]
) -> None:
    world.business.page, world.business.picture = page, picture
    await world.sent()
    _, raw, _ = await world.page(CHAT)
    assert [unescape(one) for one in re.findall(r'<span class="name">(.*?)</span>', raw)] == drawn
    assert "<img" not in raw


@pytest.mark.parametrize("base", ["http://192.0.2.1/{{1}}", "http://127.0.0.1:1/{{1}}", "https://127.0.0.1/{{1}}"])
async def test_a_link_to_elsewhere_or_nowhere_has_no_preview(world: World, base: str) -> None:
    world.sandbox.button_url = base
    await world.sent()
    assert 'class="preview"' not in await shown(world, CHAT)


async def test_the_customer_writes_and_opens_the_window(world: World) -> None:
    assert 'href="?write=1"' in await shown(world, CHAT)
    page = await shown(world, f"{CHAT}?write=1")
    assert 'name="text"' in page
    assert "refresh" not in page.partition("<body")[0]
    status, _, target = await world.page(CHAT, {"text": "Hello <b>you</b>"})
    assert (status, target) == (303, CHAT)
    assert "Hello <b>you</b>" in await shown(world, CHAT)
    await world.sandbox.settled()
    assert world.business.values[0]["messages"][0]["text"] == {"body": "Hello <b>you</b>"}
    world.now += 24 * 3600
    world.sandbox.window_refusal = "http"
    assert "Yesterday" in await shown(world, CHAT)
    assert (await world.text()).code == 131047


async def test_links_in_a_text_can_be_tapped(world: World) -> None:
    """Its card is drawn if the business asked for one."""
    world.sandbox.write(CUSTOMER, world.sender.phone_number_id, "Hello")
    link = f"{world.business.url}/pay/9"
    await world.text(f"Pay: {link} now", text={"preview_url": True, "body": f"Pay: {link} now"})
    await world.text(f"Or: {link}?2")
    page = await shown(world, CHAT)
    assert f'Pay: <a href="{link}" rel="noreferrer">{link}</a> now' in page
    assert page.count('class="preview"') == 1


async def test_what_never_arrived_is_not_in_the_chat(world: World) -> None:
    world.sandbox.delivers = False
    await world.sent("msg-1")
    world.sandbox.add_fault("error_131026")
    await world.sent("msg-2")
    assert "asks you to pay" not in await shown(world, CHAT)


async def test_foreign_numbers_have_chats_too(world: World) -> None:
    await world.sent(to="+14155552671")
    assert "asks you to pay" in await shown(world, f"/phone/14155552671/whatsapp/{DEMO_SENDERS[0][0]}")
    assert "14155552671" not in await shown(world, "/phone")
    assert 'href="/phone/14155552671/whatsapp/' in await shown(world, OVERVIEW)


@pytest.mark.parametrize(
    "path", ["/phone/12/whatsapp", "/phone/x/whatsapp", f"{CHATS}/7", f"/phone/12/whatsapp/{DEMO_SENDERS[0][0]}"]
)
async def test_what_does_not_exist_is_not_found(world: World, path: str) -> None:
    assert (await world.page(path))[0] == 404
    if path.count("/") == 4:
        assert (await world.page(path, {"text": "Hello"}))[0] == 404


@pytest.mark.parametrize("path", [CHAT, CHATS, OVERVIEW])
async def test_no_page_has_script_and_each_says_what_it_is(world: World, path: str) -> None:
    world.sandbox.write(CUSTOMER, world.sender.phone_number_id, "<script>x</script>")
    await world.text("<img src=x>")
    await world.sent("<script>")
    status, page, _ = await world.page(path)
    assert status == 200
    assert "no real money moves here" in page
    assert not re.search("<script|<img src=x", page)


# --- the overview


async def test_the_overview_shows_what_the_business_sees(world: World) -> None:
    world.sandbox.webhooks.url = ""
    assert "None yet" in await shown(world, OVERVIEW)
    assert "none is subscribed yet" in await shown(world, OVERVIEW)
    world.sandbox.delivers = False
    await world.sent("msg-7")
    world.sandbox.add_fault("error_131026")
    await world.sent("msg-8")
    page = await shown(world, OVERVIEW)
    assert page.index("msg-8") < page.index("msg-7")
    assert "131026: Message undeliverable" in page
    assert f'href="{CHAT}"' in page
    assert DEMO_SENDERS[1][1] in page


async def test_the_buttons_of_the_overview_move_messages(world: World) -> None:
    world.sandbox.delivers = False
    message = await world.sent()
    for act, status in (("deliver", "delivered"), ("read", "read"), ("repeat", "read")):
        assert f'value="{act}"' in await shown(world, OVERVIEW)
        http, _, target = await world.page(OVERVIEW, {"message": message.id, "act": act})
        assert (http, target, message.status) == (303, OVERVIEW, status)
    http, page, _ = await world.page(OVERVIEW, {"message": message.id, "act": "fail"})
    assert (http, "the message is read" in page) == (409, True)
    assert (await world.page(OVERVIEW, {"message": "1", "act": "fail"}))[0] == 404
    assert (await world.page(OVERVIEW, {"message": message.id, "act": "steal"}))[0] == 404


async def test_a_webhook_is_subscribed_on_the_overview(world: World) -> None:
    world.sandbox.webhooks.url = ""
    path = f"{OVERVIEW}/page/subscribe"
    assert (await world.page(path, {"url": world.business.hook}))[0] == 303
    assert world.sandbox.webhooks.url == world.business.hook
    await world.sent()
    assert 'delivered msg-1</strong>: <span class="good">answered 200' in await shown(world, OVERVIEW)
    for url in (f"{world.business.url}/elsewhere", "http://192.0.2.1/", "http://["):
        http, page, _ = await world.page(path, {"url": url})
        assert (http, 'role="alert"' in page) == (409, True)


async def test_a_fault_is_planned_and_forgotten_on_the_overview(world: World) -> None:
    http, _, target = await world.page(f"{OVERVIEW}/page/faults", {"fault": "error_130429", "operation": "send"})
    assert (http, target) == (303, OVERVIEW)
    assert 'Rate limit hit <span class="soft">on send, 1 more time</span>' in await shown(world, OVERVIEW)
    http, page, _ = await world.page(f"{OVERVIEW}/page/faults", {"fault": "html", "operation": "status"})
    assert (http, "only on send" in page) == (400, True)
    await world.page(f"{OVERVIEW}/page/forget", {})
    assert world.sandbox.faults == []


# --- the remote control


async def test_the_remote_control_tells_of_messages(world: World) -> None:
    message = await world.sent()
    assert await world.told("messages") == [
        {
            "id": message.id,
            "phone_number_id": world.sender.phone_number_id,
            "to": CUSTOMER,
            "type": "template",
            "text": message.draft.text,
            "link": f"{world.business.url}/pay/AbC123",
            "template": "payment_request",
            "language": "en",
            "callback_data": "msg-1",
            "status": "delivered",
            "error": None,
            "at": world.now,
        }
    ]
    await world.template(to="1")
    assert await world.told("calls") == {"send": 2, "refusals": {"131009": 1}}
    assert [one["status"] for one in await world.told("deliveries")] == [200, 200]
    assert [one["name"] for one in await world.told("senders")] == ["Conva", "Alpha Hardware"]


async def test_the_remote_control_moves_messages_and_writes(world: World) -> None:
    world.sandbox.delivers = False
    await world.sent()
    for move, status in (("deliver", "delivered"), ("read", "read"), ("repeat", "read")):
        http, told = await world.control(move, name="msg-1")
        assert (http, told["status"]) == (200, status)
    await world.sent("msg-2")
    assert (await world.control("fail", name="msg-2", code=131049))[1]["error"] == 131049
    identifier = world.sender.phone_number_id
    http, told = await world.control("write", number="0771234567", text="Hello", phone_number_id=identifier)
    assert (http, told["from"], await world.told("written")) == (200, CUSTOMER, [told])
    assert (await world.control("announce", field="account_update", phone_number_id=identifier))[0] == 200


async def test_the_remote_control_sets_the_stage(world: World) -> None:
    status, settings = await world.control("settings", button_url="http://127.0.0.1:1/{{1}}", receipts=False)
    assert (status, settings["button_url"], settings["receipts"]) == (200, "http://127.0.0.1:1/{{1}}", False)
    assert await world.control("webhooks", hold=True, batch_size=3) == (200, {"hold": True, "batch_size": 3})
    await world.sent()
    assert (await world.control("release", seed=1))[0] == 200
    await world.sandbox.settled()
    assert len(world.business.posts) == 1
    assert await world.control("subscribe", url=world.business.hook) == (200, {"url": world.business.hook})
    new = {"phone_number_id": "7", "token": "t", "phone": "+263780000107", "account": "8", "name": "Carol's"}
    assert [one["name"] for one in (await world.control("senders", **new))[1]["templates"]] == ["payment_request"] * 2
    added = {"phone_number_id": "7", "name": "thanks", "language": "en", "body": "Thanks"}
    assert len((await world.control("templates", **added))[1]["templates"]) == 3
    assert (await world.post(whatsapp_world.template(), "v26.0/7/messages", "t")).status == 200


async def test_the_remote_control_plans_faults_and_forgets_them(world: World) -> None:
    status, fault = await world.control("faults", fault="html", times=1, share=1.0, seed=3)
    told = {"fault": "html", "on": ["send"], "times": 1, "seconds": 0.0, "to": "", "share": 1.0, "used": 0}
    assert (status, fault) == (200, told)
    await world.control("faults", fault="empty", to="msg-1")
    async with world.http.delete(f"{world.url}{OVERVIEW}/faults?to=msg-1") as reply:
        assert await reply.json() == [told]
    assert await world.told("faults") == [told]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("read", {"name": "nobody"}, 404),
        ("read", {"nome": "msg-1"}, 400),
        ("deliver", {"name": "msg-1"}, 409),
        ("fail", {"name": "msg-1", "code": 7}, 400),
        ("write", {"number": "0771234567", "text": " ", "phone_number_id": DEMO_SENDERS[0][0]}, 400),
        ("write", {"number": "0771234567", "text": "x", "phone_number_id": "7"}, 404),
        ("subscribe", {"url": "http://192.0.2.1/"}, 409),
        ("subscribe", {"url": "http://["}, 400),
        ("faults", {"fault": "hiccup"}, 400),
        ("settings", {"window_refusal": "sometimes"}, 400),
        ("webhooks", {"batch_size": 0}, 400),
    ],
)
async def test_the_remote_control_says_what_is_wrong(
    world: World, path: str, content: dict[str, Any], status: int
) -> None:
    await world.sent()
    given, answer = await world.control(path, **content)
    assert (given, list(answer)) == (status, ["error"])


# --- how it stands beside the rest


@pytest.fixture
async def beside(stages: tuple[Stage, str, Stage, str]) -> AsyncIterator[World]:
    """It among the other simulators."""
    simulator, url, _, _ = stages
    async with Simulators(url) as simulators, aiohttp.ClientSession() as http:
        simulator.app = simulators.app
        yield World(simulators.whatsapp, Business(), http)


async def test_the_simulators_share_one_address_and_the_phones(beside: World) -> None:
    assert f'href="{OVERVIEW}"' in await shown(beside, "/")
    assert (await beside.template()).status == 200
    assert f'href="{CHATS}"' in await shown(beside, "/phone/0771234567")
    assert "asks you to pay" in await shown(beside, CHAT)
    assert "InnBucks app" in await shown(beside, "/phone/innbucks")


async def test_it_can_be_mounted_below_a_path() -> None:
    sandbox = whatsapp.build("")
    app = Starlette(routes=[Mount("/there", routes=sandbox.app.routes)])
    async with sandbox, serve(app) as url, aiohttp.ClientSession() as http:
        sandbox.public_url = f"{url}/there"
        world = World(sandbox, Business(), http)
        assert (await world.template()).status == 200
        assert f'href="/there{CHAT}"' in (await world.page(CHATS))[1]
        assert 'action="/there/sandbox/whatsapp"' in (await world.page(OVERVIEW))[1]
