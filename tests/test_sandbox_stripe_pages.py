"""The Stripe simulator's checkout page, dashboard and remote control, and how it stands beside Paynow's."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser
from starlette.applications import Starlette
from starlette.routing import Mount

from payments_service.sandbox import stripe as stripe_sandbox
from payments_service.sandbox.run import Simulators
from payments_service.sandbox.stripe_catalog import minor, money
from payments_service.sandbox.stripe_moves import DECLINED_CARD
from tests import stripe_world
from tests.browser import axe, phone
from tests.servers import serve
from tests.stripe_world import KEY, Merchant, PlainClient, World

stages, world = stripe_world.stages, stripe_world.world  # fixtures


async def checkout(world: World, **changes: Any) -> str:
    """The path of a new session's page."""
    return f"/c/pay/{(await world.create(**changes)).id}"


# --- the customer's page


async def test_the_page_says_who_wants_how_much_for_what(world: World) -> None:
    status, text, _ = await world.page(await checkout(world))
    assert status == 200
    for part in ("Alpha Hardware", "$12.50", "Two bags of cement", "Stripe simulator: no real money", "/basket"):
        assert part in text


async def test_paying_leads_back_to_the_merchant(world: World) -> None:
    """With the session's id in the address, as the merchant asked for it."""
    path = await checkout(world)
    answer = await world.page(path, {"method": "card", "card": "4242 4242 4242 4242"})
    session = world.sandbox.session("INV-1")
    assert answer[0::2] == (303, f"{world.merchant.url}/thanks?session={session['id']}")
    assert session["payment_status"] == "paid"
    status, text, _ = await world.page(path)
    assert (status, "completed already" in text, "<button" in text) == (200, True, False)
    assert (await world.page(path, {"method": "card", "card": "4242424242424242"}))[0] == 409


async def test_a_declined_customer_may_try_again(world: World) -> None:
    path = await checkout(world)
    for card, told in (("4000 0000 0000 0002", "Your card was declined"), ("5105105105105100", "two test cards only")):
        status, text, _ = await world.page(path, {"method": "card", "card": card})
        assert (status, told in text) == (402, True)
    assert world.sandbox.session("INV-1")["status"] == "open"
    assert (await world.page(path, {"method": "bank", "card": ""}))[0] == 303
    assert world.sandbox.session("INV-1")["payment_status"] == "unpaid"


async def test_an_expired_session_says_so(world: World) -> None:
    path = await checkout(world, cancel_url=None)
    await world.sandbox.expire("INV-1")
    status, text, _ = await world.page(path)
    assert (status, "has expired" in text, "<form" in text) == (200, True, False)


async def test_what_a_merchant_writes_is_text_on_the_page(world: World) -> None:
    data = {"currency": "usd", "unit_amount": 500, "product_data": {"name": "<script>alert(1)</script>"}}
    _, text, _ = await world.page(await checkout(world, line_items=[{"price_data": data, "quantity": 2}]))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


# --- the dashboard


async def act(world: World, name: str, **fields: str) -> int:
    path = f"/sandbox/stripe/payments/{world.sandbox.session('INV-1')['id']}"
    return (await world.page(path, {"act": name} | fields))[0]


async def test_a_payment_lives_its_life_by_buttons(world: World) -> None:
    await world.listen()
    await world.create()
    await world.sandbox.pay("INV-1")
    assert await act(world, "refund", amount="2.50") == 303
    assert await act(world, "refund_pending", amount="1") == 303
    refunds = [
        one
        for one in world.sandbox.belongings(world.account, world.sandbox.session("INV-1"))
        if one["object"] == "refund"
    ]
    assert [one["amount"] for one in refunds] == [250, 100]
    assert await act(world, "refund_failed", target=refunds[1]["id"]) == 303
    assert await act(world, "dispute") == 303
    dispute = next(world.account.all("dispute"))
    assert await act(world, "won", target=dispute["id"]) == 303
    assert await act(world, "resend") == 303
    await world.sandbox.settled()
    status, text, _ = await world.page(f"/sandbox/stripe/payments/{world.sandbox.session('INV-1')['id']}")
    assert status == 200
    for part in ("Refund of $2.50", "failed", "won", "charge.dispute.closed", "answered 200"):
        assert part in text


@pytest.mark.parametrize("end", ["settle", "bounce", "expire"])
async def test_a_session_ends_by_a_button(world: World, end: str) -> None:
    await world.create()
    if end != "expire":
        await world.sandbox.pay_later("INV-1")
    assert await act(world, end) == 303
    assert await act(world, end) == 409


@pytest.mark.parametrize(("name", "amount"), [("refund", "a lot"), ("refund", "0.005"), ("refund", "13"), ("fly", "")])
async def test_what_no_button_can_do_is_told(world: World, name: str, amount: str) -> None:
    await world.create()
    await world.sandbox.pay("INV-1")
    assert await act(world, name, amount=amount) == 409
    assert list(world.account.all("refund")) == []


async def test_the_overview_lists_payments_accounts_and_faults(world: World) -> None:
    await world.create()
    _, text, _ = await world.page("/sandbox/stripe")
    for part in ("INV-1", "$12.50", "Alpha Hardware", KEY, "None: everything works."):
        assert part in text
    assert (await world.page("/sandbox/stripe/page/faults", {"fault": "html", "operation": "sessions.create"}))[
        0
    ] == 303
    assert "web page with HTTP 200" in (await world.page("/sandbox/stripe"))[1]
    assert (await world.page("/sandbox/stripe/page/faults", {"fault": "hiccup"}))[0] == 404
    await world.page("/sandbox/stripe/page/forget", {})
    assert world.sandbox.faults == []


async def test_live_keys_are_never_shown(world: World) -> None:
    world.sandbox.add_account("sk_live_" + "SandboxLive")
    assert "sk_live_" not in (await world.page("/sandbox/stripe"))[1]


@pytest.mark.parametrize("path", ["/c/pay/cs_test_1", "/sandbox/stripe/payments/INV-1"])
async def test_what_does_not_exist_is_not_found(world: World, path: str) -> None:
    await world.create()
    assert (await world.page(path))[0] == (await world.page(path, {"act": "expire"}))[0] == 404


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_customer_pays_on_a_phone(world: World, browser: Browser, javascript: bool) -> None:
    """A small phone, with and without scripts: declined first, then paid; nobody is shut out."""
    path = await checkout(world, success_url=f"{world.url}/sandbox/stripe?paid={{CHECKOUT_SESSION_ID}}")
    async with phone(browser, width=320, javascript=javascript) as screen:
        await screen.page.goto(f"{world.url}{path}")
        await screen.page.get_by_label("Card number").fill("4000 0000 0000 0002")
        await screen.page.get_by_role("button", name="Pay $12.50").click()
        await screen.page.get_by_role("alert").wait_for()
        assert await axe(screen) == []
        await screen.page.get_by_role("button", name="Pay $12.50").click()
        await screen.page.wait_for_url("**/sandbox/stripe?paid=cs_test_*")
        assert await axe(screen) == []
        await screen.page.get_by_role("link", name="INV-1").click()
        assert await axe(screen) == []
    assert world.sandbox.session("INV-1")["payment_status"] == "paid"


# --- the remote control


async def read(world: World, path: str) -> Any:
    async with world.http.get(f"{world.url}/sandbox/stripe/{path}") as reply:
        return await reply.json()


async def test_the_remote_control_moves_and_reads(world: World) -> None:
    await world.listen("checkout.session.completed")
    await world.create("INV-1-K7M2")
    assert (await world.control("decline", reference="INV-1"))[0] == 200
    status, paid = await world.control("pay", reference="INV-1", amount=900)
    assert (status, paid["payment_status"], paid["amount_total"]) == (200, "paid", 900)
    status, refund = await world.control("refund", reference="INV-1", amount=100, status="pending")
    assert (status, refund["status"]) == (200, "pending")
    assert (await world.control("move_refund", refund=refund["id"], status="canceled"))[1]["status"] == "canceled"
    assert (await world.control("dispute", reference="INV-1"))[1]["status"] == "needs_response"
    assert (await world.control("close_dispute", dispute="INV-1", outcome="lost"))[1]["status"] == "lost"
    assert (await world.control("resend", reference="INV-1"))[1] == {"events": 12}
    await world.sandbox.settled()
    (session,) = await read(world, "sessions")
    assert [one["object"] for one in session["belongings"]] == [
        "payment_intent",
        "charge",
        "charge",
        "refund",
        "dispute",
    ]
    assert len(await read(world, "events")) == 12
    assert [one["type"] for one in await read(world, "deliveries")] == ["checkout.session.completed"] * 2
    assert await read(world, "calls") == {"webhook_endpoints.create": 1, "sessions.create": 1}


@pytest.mark.parametrize("ends", [("settle",), ("bounce",)])
async def test_the_remote_control_pays_later(world: World, ends: tuple[str]) -> None:
    await world.create()
    assert (await world.control("pay_later", reference="INV-1", send=False))[0] == 200
    assert (await world.control(ends[0], reference="INV-1"))[0] == 200
    await world.create("INV-2")
    assert (await world.control("expire", reference="INV-2"))[1]["status"] == "expired"


async def test_faults_settings_and_accounts_by_remote_control(world: World) -> None:
    status, fault = await world.control("faults", fault="html", on=["sessions.create"], times=2)
    assert (status, fault["times"], await read(world, "faults")) == (200, 2, [fault])
    async with world.http.delete(f"{world.url}/sandbox/stripe/faults") as reply:
        assert await reply.json() == []
    status, settings = await world.control("settings", refund_status="pending", drop_webhooks=True)
    assert (status, settings) == (200, {"delay_seconds": 0.0, "refund_status": "pending", "drop_webhooks": True})
    assert world.sandbox.drop_webhooks
    made = await world.control("accounts", key="sk_test_" + "SandboxThird", country="IE", may=["sessions.create"])
    assert made[1]["country"] == "IE"
    accounts = await read(world, "accounts")
    assert len(accounts) == 3
    assert not any("key" in account for account in accounts)


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("pay", {"reference": "nobody"}, 404),
        ("pay", {"reference": "INV-1", "amount": "a lot"}, 400),
        ("pay", {"referenz": "INV-1"}, 400),
        ("refund", {"reference": "INV-1"}, 409),
        ("refund", {"reference": "INV-1", "status": "lost"}, 400),
        ("close_dispute", {"dispute": "du_1", "outcome": "won"}, 404),
        ("faults", {"fault": "hiccup"}, 400),
        ("settings", {"refund_status": "lost"}, 400),
    ],
)
async def test_the_remote_control_says_what_is_wrong(
    world: World, path: str, content: dict[str, Any], status: int
) -> None:
    await world.create()
    given, answer = await world.control(path, **content)
    assert (given, list(answer)) == (status, ["error"])


# --- how it stands beside the rest


async def test_all_simulators_share_one_address() -> None:
    async with Simulators() as simulators, serve(simulators.app) as url, aiohttp.ClientSession() as http:
        simulators.public_url = url
        async with http.get(f"{url}/") as index:
            overview = await index.text()
            assert all(f'href="{path}"' in overview for path in ("/sandbox/stripe", "/sandbox/ecocash", "/phone"))
        async with http.get(f"{url}/sandbox/stripe") as dashboard:
            assert "Stripe simulator" in await dashboard.text()
        async with http.get(f"{url}/sandbox/ecocash") as dashboard:
            assert "EcoCash simulator" in await dashboard.text()
        async with http.get(f"{url}/sandbox/transactions") as transactions:
            assert await transactions.json() == []
        world = World(simulators.stripe, Merchant("http://127.0.0.1:1"), http, PlainClient(http))
        assert (await world.create()).url.startswith(f"{url}/c/pay/cs_test_")


async def test_it_can_be_mounted_below_a_path() -> None:
    sandbox = stripe_sandbox.build("")
    app = Starlette(routes=[Mount("/stripe", routes=sandbox.routes())])
    async with sandbox, serve(app) as url, aiohttp.ClientSession() as http:
        sandbox.public_url = f"{url}/stripe"
        world = World(sandbox, Merchant("http://127.0.0.1:1"), http, PlainClient(http))
        session = await world.create()
        _, page, _ = await world.page(f"/c/pay/{session.id}")
        assert f'action="/stripe/c/pay/{session.id}"' in page
        assert (await world.api.checkout.sessions.list_async()).url == "/v1/checkout/sessions"


def test_it_shares_nothing_with_the_adapter_nor_with_the_sdk() -> None:
    """An import of either would let one mistake hide another."""
    strange = "[name for name in sys.modules if '.gateways' in name or name == 'stripe']"
    loaded = f"import payments_service.sandbox.stripe, sys; print({strange})"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_no_key_stands_in_the_sources_whole() -> None:
    """Scanners of secrets look for `sk_test_` with letters and digits behind it."""
    for path in Path(stripe_sandbox.__file__).parent.glob("*.py"):
        texts = [node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)]
        assert not [
            text for text in texts if isinstance(text, str) and text.startswith(("sk_", "rk_")) and len(text) > 8
        ]


@pytest.mark.parametrize(
    ("amount", "currency", "shown"),
    [(125_000, "usd", "$1,250.00"), (5, "eur", "0.05 EUR"), (1250, "jpy", "1,250 JPY")],
)
def test_amounts_are_shown_and_read_in_their_currency(amount: int, currency: str, shown: str) -> None:
    assert money(amount, currency) == shown
    plain = shown.strip("$").partition(" ")[0].replace(",", "")
    assert minor(plain, currency) == amount
    with pytest.raises(ValueError, match="no amount"):
        minor("NaN", currency)


def test_the_declined_card_is_stripes_own() -> None:
    assert DECLINED_CARD == "4000000000000002"
