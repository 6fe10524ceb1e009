"""Every state of the pay page as a customer sees it: light and dark, small, enlarged, printed, by keyboard."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, expect

from payments_service import checkout
from payments_service.public.states import REFRESHES
from payments_service.public.texts import ENGLISH, State
from tests.browser import PAGE_COST, phone
from tests.house import House
from tests.paying import NUMBERED, TITLES, Visit, offer_all, settle
from tests.support import afresh, open_house

Patch = pytest.MonkeyPatch


pytestmark = pytest.mark.damaged("what the page shows is set by hand")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    """The service without workers, for all tests of this file: nothing moves but by what a test does."""
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    """The service for a new tenant, who can be paid in every way."""
    house = afresh(service)
    await offer_all(house)
    return house


# --- how a payment comes into each state


def change(visit: Visit, table: str, changes: str) -> None:
    """Put the payment, or its attempt, where the story would have it, without telling the whole story."""
    column = "id" if table == "payments" else "payment_id"
    visit.house.world.rows_do(f"UPDATE {table} SET {changes} WHERE {column} = %s", visit.payment["id"])


def told(title: str, *, query: str = "", payment: str = "", attempt: str = "") -> Any:
    """A customer who began to pay in this way, after which payment and attempt were changed."""

    async def stage(visit: Visit, _patch: Patch) -> None:
        if title:
            await visit.begin_unseen(title)
        if payment:
            change(visit, "payments", payment)
        if attempt:
            change(visit, "attempts", attempt)
        await visit.open(query)

    return stage


def refused(text: str) -> Any:
    """A customer whose try Paynow refuses in these words."""

    async def stage(visit: Visit, _patch: Patch) -> None:
        visit.house.world.sandbox.add_fault("poll_error", on=["express"], text=text)
        await visit.begin("OneMoney")

    return stage


def typed(number: str) -> Any:
    """A customer who types this as the wallet's number."""

    async def stage(visit: Visit, _patch: Patch) -> None:
        await replace(visit, number=number).begin("EcoCash")

    return stage


def out_of_reach(name: str, title: str) -> Any:
    """A customer who chooses this while nobody listens where the gateway should be."""

    async def stage(visit: Visit, patch: Patch) -> None:
        gateway: Any = visit.house.world.context.gateways[name]
        patch.setattr(getattr(gateway, "_api", gateway), "_base", "http://127.0.0.1:1")
        await visit.begin(title)

    return stage


def one_way(**without: None) -> Any:
    """A customer of a tenant who has one way to pay only."""

    async def stage(visit: Visit, _patch: Patch) -> None:
        await settle(visit.house, **without)
        await visit.open()

    return stage


async def wrong_otp(visit: Visit, _patch: Patch) -> None:
    await visit.begin("O'mari")
    await visit.page.get_by_label("Code from the SMS").fill("1234")
    await visit.press("Confirm")


async def unsettled(visit: Visit, _patch: Patch) -> None:
    """A customer who wants another way while EcoCash does not tell what became of the first."""
    await visit.begin("EcoCash")
    await visit.has_begun("EcoCash")
    visit.house.world.ecocash.add_fault("error500", on=["lookup"])
    await visit.open("?choose=1")
    await visit.choose("OneMoney")
    await visit.number_field.fill(visit.number)
    await visit.press()


async def too_many(visit: Visit, patch: Patch) -> None:
    patch.setattr(checkout, "TRIES", 0)
    await visit.begin("EcoCash")


async def not_set_up(visit: Visit, _patch: Patch) -> None:
    await settle(visit.house, **NO_WALLETS, paynow_integration_key=None, stripe_secret_key=None)
    await visit.open()


async def not_found(visit: Visit, _patch: Patch) -> None:
    await visit.page.goto(f"{visit.house.public}/pay/{'A' * 27}")


async def kept(visit: Visit, patch: Patch) -> None:
    """The receipt as a file, opened where there is no service."""
    await told("EcoCash", payment=MONEY, attempt=ENDED)(visit, patch)
    text = await visit.page.evaluate("fetch(location.href + '/receipt').then((it) => it.text())")
    await visit.page.goto("about:blank")
    await visit.page.set_content(text)


NO_WALLETS: dict[str, None] = {"ecocash_api_key": None, "innbucks_password": None}
MONEY = "status = 'paid', gateway = 'ecocash', gateway_reference = 'MP261128.1430.A00412', paid_at = now()"
ENDED = "state = 'paid'"
SOONER = "started_at = started_at - interval '10 minutes'"

STAGES: dict[str, tuple[State, Callable[[Visit, Patch], Awaitable[None]]]] = {
    "ready": (State.READY, told("")),
    "ready with a page": (State.READY, one_way(paynow_auth_email=None, stripe_secret_key=None, **NO_WALLETS)),
    "ready with a wallet": (
        State.READY,
        one_way(innbucks_password=None, paynow_integration_key=None, stripe_secret_key=None),
    ),
    "starting": (State.STARTING, told("EcoCash", attempt="state = 'starting', next_step = NULL")),
    "waiting": (State.WAITING, told("Paynow", query="?returned=1")),
    "still waiting": (State.STILL_WAITING, told("Paynow", query=f"?returned=1&n={REFRESHES}")),
    "under way": (State.UNDER_WAY, told("Card", attempt="""next_step = '{"type": "wait"}'""")),
    "prompted": (State.PROMPTED, told("EcoCash")),
    "unanswered": (State.UNANSWERED, told("OneMoney", attempt=SOONER)),
    "code": (State.CODE, told("InnBucks")),
    "code over": (
        State.CODE_OVER,
        told("InnBucks", attempt=f"""{SOONER}, next_step = next_step || '{{"expires_at": "2026-01-01T00:00:00Z"}}'"""),
    ),
    "code lapsed": (State.CODE_LAPSED, told("InnBucks", attempt="state = 'failed'")),
    "otp": (State.OTP, told("O'mari")),
    "otp wrong": (State.OTP, wrong_otp),
    "otp over": (State.OTP_OVER, told("O'mari", attempt="""next_step = next_step || '{"tries": 5}'""")),
    "asking": (State.ASKING, unsettled),
    "choosing": (State.CHOOSING, told("EcoCash", query="?choose=1")),
    "paid": (State.PAID, told("EcoCash", payment=MONEY, attempt=ENDED)),
    "failed": (State.FAILED, told("EcoCash", payment="status = 'failed'", attempt="state = 'failed'")),
    "expired": (State.EXPIRED, told("", payment="status = 'expired'")),
    "cancelled": (State.CANCELLED, told("", payment="status = 'cancelled'")),
    "partly refunded": (
        State.PARTIALLY_REFUNDED,
        told(
            "EcoCash", payment=f"{MONEY}, refunded_cents = 500".replace("'paid'", "'partially_refunded'"), attempt=ENDED
        ),
    ),
    "refunded": (
        State.REFUNDED,
        told("EcoCash", payment=f"{MONEY}, refunded_cents = 1250".replace("'paid'", "'refunded'"), attempt=ENDED),
    ),
    "disputed": (State.DISPUTED, told("EcoCash", payment=MONEY.replace("'paid'", "'disputed'"), attempt=ENDED)),
    "review": (State.REVIEW, told("EcoCash", payment="status = 'review'")),
    "refused": (State.REFUSED, refused("Something else")),
    "no funds": (State.NO_FUNDS, refused("Insufficient balance")),
    "method closed": (State.METHOD_CLOSED, refused("no ACTIVE ecocash payment method")),
    "too many": (State.TOO_MANY, too_many),
    "unreachable": (State.UNREACHABLE, out_of_reach("paynow", "OneMoney")),
    "instead": (State.INSTEAD, out_of_reach("innbucks", "InnBucks")),
    "not set up": (State.NOT_SET_UP, not_set_up),
    "phone wrong": (State.READY, typed("077 12")),
    "not found": (State.NOT_FOUND, not_found),
    "kept": (State.PAID, kept),
}


def title_of(state: State) -> str:
    return ENGLISH.states[state].title.replace("{gateway}", "OneMoney")


# Texts, fields and icons that lie on each other or reach over the page's edge. Lines of one text stand close.
CLASHES = """() => {
  const boxes = [], found = [];
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest('.sr');
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    if (!text.data.trim() || !shown(text.parentElement)) continue;
    const range = document.createRange();
    range.selectNodeContents(text);
    for (const rect of range.getClientRects()) boxes.push([text.data.trim().slice(0, 30), rect, text.parentElement]);
  }
  for (const element of document.querySelectorAll('input:not([type=hidden]), svg')) {
    if (shown(element)) boxes.push([element.id || element.tagName, element.getBoundingClientRect(), element]);
  }
  for (const [name, a, element] of boxes) {
    if (a.left < -1 || a.right > document.documentElement.clientWidth + 1) found.push(`${name}: over the edge`);
    for (const [other, b, another] of boxes) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (element !== another && wide > 1 && high > 0.3 * Math.min(a.height, b.height)) {
        found.push(`${name} on ${other}`);
      }
    }
  }
  for (const element of document.querySelectorAll('main *')) {
    const cut = getComputedStyle(element).overflow !== 'visible' && !element.closest('svg, .sr, input');
    if (cut && element.scrollWidth > element.clientWidth + 1) found.push(`${element.tagName}: cut off`);
  }
  return found;
}"""
TWICE_AS_LARGE = "document.documentElement.style.fontSize = '200%'"
MOVING = "document.getAnimations().length"


@pytest.mark.parametrize("name", STAGES)
async def test_every_state_is_fit_to_be_seen(house: House, browser: Browser, monkeypatch: Patch, name: str) -> None:
    """Open to everybody in light and dark; nothing too wide, cut off or covered, also at twice the size; at rest for
    those who want no motion."""
    state, stage = STAGES[name]
    async with phone(browser, width=320, moving=False) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await stage(visit, monkeypatch)
        await visit.says(title_of(state))
        await visit.is_faultless()
        await screen.page.emulate_media(color_scheme="dark")
        await visit.is_faultless(only="color-contrast")
        assert await screen.page.evaluate(MOVING) == 0
        assert await screen.page.evaluate(CLASHES) == []
        await screen.page.set_viewport_size({"width": 195, "height": 390})
        assert await screen.sideways() == 0
        assert await screen.page.evaluate(CLASHES) == []
        await screen.page.set_viewport_size({"width": 320, "height": 780})
        await screen.page.evaluate(TWICE_AS_LARGE)
        assert await screen.sideways() == 0
        assert await screen.page.evaluate(CLASHES) == []


@pytest.mark.parametrize("one_on_the_other", [True, False], ids=["covered", "over-the-edge"])
async def test_what_is_covered_or_cut_off_is_noticed(browser: Browser, one_on_the_other: bool) -> None:
    """A text on another, and one that reaches over the edge without making the page any wider."""
    style = "position:absolute;top:1em;left:1em;margin:0" if one_on_the_other else "margin-left:-2em"
    async with phone(browser) as screen:
        await screen.page.set_content(f'<main><p>One</p><p style="{style}">Other</p></main>')
        assert bool(await screen.page.evaluate(CLASHES))


async def test_the_clock_turns_for_those_who_do_not_mind(house: House, browser: Browser) -> None:
    """While something is under way; the reduced-motion setting stops it."""
    async with phone(browser) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await visit.begin("EcoCash")
        await visit.has_begun("EcoCash")
        assert await screen.page.evaluate(MOVING) == 1
        await screen.page.emulate_media(reduced_motion="reduce")
        assert await screen.page.evaluate(MOVING) == 0


# --- what the customer needs no finger and no script for


FOCUSED = """() => {
  const it = document.activeElement, seen = it.type === 'radio' ? it.nextElementSibling : it;
  const style = getComputedStyle(seen);
  return [it.id || it.tagName, style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2];
}"""


async def focused_after(visit: Visit, key: str) -> str:
    """What has the focus after this key; it can be seen to have it."""
    await visit.page.keyboard.press(key)
    name, is_seen = await visit.page.evaluate(FOCUSED)
    assert is_seen, name
    return str(name)


@pytest.mark.parametrize("javascript", [True, False], ids=["scripts", "no-scripts"])
async def test_the_keyboard_goes_through_the_form_as_it_is_read(
    house: House, browser: Browser, javascript: bool
) -> None:
    """The chosen way, the number, the button; the arrows change the way; a field that is not needed is left out."""
    async with phone(browser, javascript=javascript) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await visit.open()
        assert [await focused_after(visit, "Tab") for _ in range(3)] == ["way1", "phone", "BUTTON"]
        assert [await focused_after(visit, "Shift+Tab") for _ in range(2)] == ["phone", "way1"]
        assert [await focused_after(visit, "ArrowDown") for _ in TITLES[1:]] == ["way2", "way3", "way4", "way5", "way6"]
        assert await focused_after(visit, "Tab") == "BUTTON"
        await screen.page.keyboard.press("Enter")
        await visit.has_begun("Paynow")


@pytest.mark.parametrize("javascript", [True, False], ids=["scripts", "no-scripts"])
async def test_the_number_is_asked_for_only_where_one_is_needed(
    house: House, browser: Browser, javascript: bool
) -> None:
    """The field comes and goes with the choice. Paynow wants one for InnBucks too."""
    async with phone(browser, javascript=javascript) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await visit.open()
        for title in (*TITLES, *TITLES):
            await visit.choose(title)
            assert await visit.number_field.is_visible() == (title in NUMBERED)
        await settle(house, innbucks_password=None)
        await visit.open()
        await visit.choose("InnBucks")
        assert await visit.number_field.is_visible()


@pytest.mark.parametrize("name", ["paid", "kept"])
async def test_the_receipt_is_printed_without_buttons_and_links(
    house: House, browser: Browser, monkeypatch: Patch, name: str
) -> None:
    """What was paid stays; of the kept one also the address that shows its present state."""
    async with phone(browser) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await STAGES[name][1](visit, monkeypatch)
        await visit.says("Paid")
        shown = screen.page.locator("button, a, footer").filter(visible=True)
        assert await shown.count() > 1
        await screen.page.emulate_media(media="print")
        assert await shown.all_inner_texts() == ([visit.payment["page_url"]] if name == "kept" else [])
        for words in ("Acme Hardware", "12.50", "Two bags of cement", "EcoCash", "MP261128.1430.A00412"):
            assert await screen.page.get_by_text(words).first.is_visible()


# --- the time of a code


async def test_the_time_of_a_code_runs_down_until_the_page_says_that_it_is_up(house: House, browser: Browser) -> None:
    """To the eye: nobody is read the seconds aloud, only that the code has run out."""
    async with phone(browser, moving=False) as screen:
        await screen.page.clock.install()
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await visit.begin("InnBucks")
        timer, aloud = screen.page.get_by_role("timer"), screen.page.locator("#live")
        before = await seconds_left(timer)
        assert 580 < before <= 600
        await screen.page.clock.fast_forward("05:00")
        assert 200 < await seconds_left(timer) <= before - 300
        assert await timer.evaluate("(it) => it.closest('[aria-live], [role=status], [role=alert]')") is None
        assert await aloud.inner_text() == ""
        house.world.clock.forward(seconds=600)
        await screen.page.clock.fast_forward("05:00")
        await visit.says("This code has run out")
        await expect(aloud).to_contain_text("This code has run out If you did pay with it, please wait")


async def seconds_left(timer: Locator) -> int:
    """What the countdown says."""
    await expect(timer).to_have_text(re.compile(r"Valid for \d+:\d\d"))
    minutes, _, seconds = (await timer.inner_text()).removeprefix("Valid for ").partition(":")
    return int(minutes) * 60 + int(seconds)


async def test_a_code_of_a_short_life_is_over_on_time(house: House, browser: Browser) -> None:
    """Also within the two minutes in which the gateway's clock is doubted: the digits stay, for it may be wrong."""
    async with phone(browser, moving=False) as screen:
        await screen.page.clock.install()
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await visit.begin("InnBucks")
        await visit.has_begun("InnBucks")
        soon = (house.world.clock() + timedelta(seconds=50)).isoformat()
        change(visit, "attempts", f"""next_step = next_step || '{{"expires_at": "{soon}"}}'""")
        await visit.open()
        timer = screen.page.get_by_role("timer")
        assert await seconds_left(timer) <= 50
        await screen.page.clock.fast_forward(51_000)
        await expect(timer).to_have_text("This code has run out")
        await visit.says("Pay with this code")


# --- what the page costs


@pytest.mark.parametrize("code", [False, True], ids=["ways", "code"])
async def test_the_page_is_small(
    house: House, browser: Browser, record_property: Callable[[str, object], None], code: bool
) -> None:
    """With every way to pay on it, and with a code and its picture: packed, below 15,000 bytes in all, in at most three
    requests, none of them to anybody else."""
    payment = await house.create_link(gateway=None)
    token = payment["page_url"].rpartition("/")[2]
    if code:
        started = await house.get_public(f"/pay/{token}", method="POST", data={"way": "innbucks.innbucks"})
        assert started.status == 303
    async with phone(browser) as screen:
        answer = await screen.page.goto(payment["page_url"], wait_until="networkidle")
        assert answer is not None
        assert answer.headers["content-encoding"] == "gzip"
        assert await screen.page.locator("[name=way]").count() == (0 if code else len(TITLES))
        assert await screen.page.locator(".qr svg").count() == int(code)
        assert len(screen.exchanges) <= 3
        assert {exchange.url.startswith(f"{house.public}/") for exchange in screen.exchanges} == {True}
        size = await screen.size()
        assert 1_000 < size < 15_000
        what = "a code to pay with" if code else "all ways to pay"
        record_property(PAGE_COST, f"{len(screen.exchanges)} request with {what}, {size} bytes")


def test_every_state_is_looked_at() -> None:
    """All that the page can say but that our own database is away, which `test_pay_page` shows."""
    assert {state for state, _ in STAGES.values()} == set(State) - {State.UNAVAILABLE}
