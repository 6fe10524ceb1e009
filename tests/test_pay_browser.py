"""Every way to pay in a real browser, from the link to the receipt; and what the page's script does."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from payments_service.public.states import REFRESHES
from payments_service.sandbox.ecocash_phone import local_number
from tests.browser import phone
from tests.house import House, eventually
from tests.paying import ACCOUNTS, PAGES, PATIENCE, STEPS, Visit, offer_all, offer_paynow
from tests.scale import FULL
from tests.support import afresh, open_house

_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    """The whole service with its workers, for all tests of this file."""
    async with open_house(postgres, work=True) as house:
        yield house


@pytest.fixture(autouse=True)
def no_task_is_left_behind() -> None:
    """Not here: the workers of the file's service pause in tasks that outlive a test."""


@pytest.fixture
async def house(service: House) -> House:
    """The service for a new tenant, who can be paid in every way."""
    house = afresh(service)
    await offer_all(house)
    return house


def next_number() -> str:
    """A phone that no other test has."""
    return f"07712{next(_numbers):05}"


async def from_link_to_receipt(
    house: House, browser: Browser, title: str, account: str, *, width: int, javascript: bool
) -> None:
    """Choose, pay, and get the receipt of this gateway, whole and open to everybody at every step."""
    step, act = STEPS[title]
    payment = await house.create_link(gateway=None)
    async with phone(browser, width=width, javascript=javascript, moving=False) as screen:
        visit = Visit(house, screen, payment, next_number())
        await visit.open()
        await visit.says("Not paid yet")
        assert await screen.sideways() == 0
        await visit.begin(title)
        if step:
            await visit.says(step)
            await visit.is_faultless()
        if account == "InnBucks":
            await has_the_code(visit, javascript=javascript)
        await act(visit)
        if account == "InnBucks" and not javascript:
            # By itself it would come at the next of InnBucks' look-ups, and the page's refresh after that.
            await visit.page.get_by_role("link", name="Look again now").tap()
        await visit.says("Paid")
        await visit.is_faultless()
        await has_the_receipt(visit, title, account)


async def has_the_code(visit: Visit, *, javascript: bool) -> None:
    """To type, to open the app with, to dial and to scan; with the time that is left, which runs down by a script."""
    main, code = visit.page.locator("main"), code_of(visit)
    await expect(main.locator(".code b")).to_have_text(re.compile(r"\s?".join(code)))
    opens = main.get_by_role("link", name="Open InnBucks")
    await expect(opens).to_have_attribute("href", f"com.innbucks.customer://purchase?paymentToken={code}")
    await expect(main).to_contain_text("No app? Dial *569# and pay by code there.")
    await expect(main.get_by_role("img", name="The same code as a QR code")).to_be_visible()
    left = r"Valid for [89]:[0-5]\d" if javascript else r"Valid until \d\d:\d\d \(Harare time\)"
    await expect(main.get_by_role("timer")).to_have_text(re.compile(left))


def code_of(visit: Visit) -> str:
    """The code that InnBucks made for the payment."""
    return visit.house.world.innbucks.find(visit.house.reference_of(visit.payment)).code


async def known_as(visit: Visit, account: str) -> str:
    """How this gateway calls the payment."""
    reference, world = visit.house.reference_of(visit.payment), visit.house.world
    match account:
        case "EcoCash":
            charges = world.ecocash.charges
            return next(one.ecocash_reference for one in charges if local_number(one.msisdn) == visit.number)
        case "InnBucks":
            # By its code, and the number of the approval, which the simulator does not keep.
            told = str((await visit.house.payment(visit.payment))["gateway_reference"])
            assert told.startswith(f"{code_of(visit)}-")
            return told
        case "Stripe":
            return str(world.stripe.session(reference)["payment_intent"])
        case _:
            return str(world.sandbox.find(reference).number)


async def has_the_receipt(visit: Visit, title: str, account: str) -> None:
    """Payee, amount, how it was paid, the gateway's reference, the payment's number; nothing left to pay."""
    through = account if title in (*PAGES, account) else f"{title} (by {account})"
    main = visit.page.locator("main")
    await expect(main.locator("header")).to_contain_text("Paid to Acme Hardware", use_inner_text=True)
    await expect(main.locator(".amount")).to_have_text("Amount: USD 12.50")
    facts = dict(
        zip(await main.locator("dt").all_inner_texts(), await main.locator("dd").all_inner_texts(), strict=True)
    )
    assert facts["For"] == "Two bags of cement"
    assert facts["Reference"] == "INV-1001"
    assert facts["Paid through"] == through
    assert facts[f"{account} reference"] == await known_as(visit, account)
    await expect(main).to_contain_text(f"Payment number {visit.payment['id']}")
    assert await main.locator("form").count() == 0
    assert await visit.page.title() == "Paid · USD 12.50 · Acme Hardware"


@pytest.mark.parametrize(
    ("javascript", "dialect", "width"),
    [(True, "open_api", 390), (False, "eip_portal", 320)],
    ids=["scripts", "no-scripts"],
)
async def test_every_way_to_pay_leads_from_the_link_to_the_receipt(
    service: House, browser: Browser, javascript: bool, dialect: str, width: int
) -> None:
    """All at the same time, whole on both sizes of phone: by itself where scripts run, else by the page's refresh."""
    house = afresh(service)
    await offer_all(house, dialect=dialect)
    async with asyncio.TaskGroup() as customers:
        for (title, account), wide in itertools.product(ACCOUNTS.items(), (320, 390) if FULL else (width,)):
            journey = from_link_to_receipt(house, browser, title, account, width=wide, javascript=javascript)
            customers.create_task(journey)


async def test_paynow_takes_the_wallets_whose_own_gateways_the_tenant_has_not(service: House, browser: Browser) -> None:
    """EcoCash on the smaller phone, without scripts; InnBucks, whose code needs a number there."""
    house = afresh(service)
    await offer_paynow(house)
    async with asyncio.TaskGroup() as customers:
        for title, width, javascript in (("EcoCash", 320, False), ("InnBucks", 390, True)):
            journey = from_link_to_receipt(house, browser, title, "Paynow", width=width, javascript=javascript)
            customers.create_task(journey)


async def test_the_link_to_look_again_shows_what_has_become_of_the_payment(house: House, browser: Browser) -> None:
    """Without a script, on a page that has refreshed itself for long enough."""
    async with phone(browser, javascript=False) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None), next_number())
        await visit.begin("EcoCash")
        await visit.says("Look at your phone")
        await visit.open(f"?n={REFRESHES}")
        await visit.approve()
        await eventually(visit.is_paid)
        await visit.page.get_by_role("link", name="Look again now").tap()
        await visit.says("Paid")


# --- the script, its timer in the test's hand

HELD = """
window.planned = null;
window.setTimeout = (run) => { window.planned = run; return 1; };
window.clearTimeout = () => { window.planned = null; };
"""
IS_PLANNED = "window.planned !== null"
TIME_IS_UP = "{ const run = window.planned; window.planned = null; run(); }"
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@asynccontextmanager
async def waiting(house: House, browser: Browser, title: str) -> AsyncIterator[Visit]:
    """A customer who has begun to pay, on a page whose timer stands still."""
    async with phone(browser) as screen:
        await screen.page.add_init_script(HELD)
        visit = Visit(house, screen, await house.create_link(gateway=None), next_number())
        await visit.begin(title)
        await visit.says(STEPS[title][0])
        yield visit


def looks(visit: Visit) -> int:
    """How often the script asked for the state."""
    return sum(exchange.url == visit.status_url for exchange in visit.screen.exchanges)


async def looks_once_more(visit: Visit, script: str) -> None:
    """This makes the page ask for the state, once, and plan to ask again unless that is all."""
    before = looks(visit)
    async with visit.page.expect_response(visit.status_url, timeout=PATIENCE):
        await visit.page.evaluate(script)
    await eventually(lambda: looks(visit) == before + 1)


async def plans_to_look(visit: Visit) -> None:
    await visit.page.wait_for_function(IS_PLANNED, timeout=PATIENCE)


async def test_the_page_becomes_the_receipt_and_says_so(house: House, browser: Browser) -> None:
    """In place: the title changes, and what is read aloud are the new words, once."""
    async with waiting(house, browser, "EcoCash") as visit:
        await visit.page.evaluate("window.stays = true")
        assert await visit.page.locator("#live").inner_text() == ""
        await visit.approve()
        await eventually(visit.is_paid)
        await looks_once_more(visit, TIME_IS_UP)
        await visit.says("Paid")
        assert (await visit.page.locator("#live").inner_text()).strip().startswith("Paid Thank you. Acme Hardware")
        assert await visit.page.title() == "Paid · USD 12.50 · Acme Hardware"
        assert await visit.page.evaluate("window.stays")


async def test_a_second_tap_sends_nothing(house: House, browser: Browser) -> None:
    """While the gateway is slow, the button is tapped again: one POST."""
    house.world.sandbox.delay_seconds = 1.0
    async with phone(browser) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None), next_number())
        await visit.open()
        await visit.page.get_by_label("Mobile number of the wallet").fill(visit.number)
        button = visit.page.get_by_role("button", name="Pay USD 12.50")
        await button.scroll_into_view_if_needed()
        box = await button.bounding_box()
        assert box is not None
        async with visit.page.expect_request(lambda request: request.method == "POST"):
            await visit.page.touchscreen.tap(box["x"] + 30, box["y"] + 20)
        await visit.page.touchscreen.tap(box["x"] + 30, box["y"] + 20)
        await visit.says("Look at your phone")
    assert [exchange.method for exchange in screen.exchanges].count("POST") == 1


async def test_coming_back_to_the_tab_looks_at_once(house: House, browser: Browser) -> None:
    """While it is hidden nobody asks, though the timer runs out."""
    async with waiting(house, browser, "EcoCash") as visit:
        await visit.approve()
        await eventually(visit.is_paid)
        await visit.page.evaluate(HIDE, True)
        await visit.page.evaluate(TIME_IS_UP)
        assert looks(visit) == 0
        await visit.page.evaluate(HIDE, False)
        await visit.says("Paid")
        assert looks(visit) == 1


async def test_it_asks_until_the_money_has_come_and_no_longer(house: House, browser: Browser) -> None:
    """Each look plans the next one; the receipt plans none."""
    async with waiting(house, browser, "EcoCash") as visit:
        for _ in range(2):
            await plans_to_look(visit)
            await looks_once_more(visit, TIME_IS_UP)
        await plans_to_look(visit)
        await visit.approve()
        await eventually(visit.is_paid)
        await looks_once_more(visit, TIME_IS_UP)
        await visit.says("Paid")
        assert not await visit.page.evaluate(IS_PLANNED)


async def test_who_types_a_code_is_not_disturbed(house: House, browser: Browser) -> None:
    """The script looks; as long as nothing has changed, field, text and focus stay."""
    async with waiting(house, browser, "O'mari") as visit:
        field = visit.page.get_by_label("Code from the SMS")
        await field.tap()
        await field.press_sequentially("12")
        for _ in range(2):
            await looks_once_more(visit, TIME_IS_UP)
            await plans_to_look(visit)
        await field.press_sequentially("34")
        await expect(field).to_have_value("1234")
        await expect(field).to_be_focused()


async def test_back_from_paynow_the_button_works_again(house: House, browser: Browser) -> None:
    """Who goes back before paying can go on to Paynow; who goes back afterwards sees the receipt."""
    async with phone(browser) as screen:
        visit = Visit(house, screen, await house.create_link(gateway=None))
        await visit.begin("Paynow")
        await visit.has_begun("Paynow")
        await screen.page.go_back()
        await visit.says("Not paid yet")
        await visit.choose("Paynow")
        await visit.press()
        await visit.has_begun("Paynow")
        await visit.pay_at_gateway()
        await visit.says("Paid")
        await screen.page.go_back()
        await screen.page.go_back()
        await visit.says("Paid")


async def test_a_page_that_the_browser_had_put_away_wakes_up(house: House, browser: Browser) -> None:
    """Restored from the browser's memory, it looks at once and its button is free again."""
    async with waiting(house, browser, "O'mari") as visit:
        await visit.page.evaluate("document.forms[0].addEventListener('submit', (event) => event.preventDefault())")
        await visit.page.get_by_label("Code from the SMS").fill("1234")
        await visit.press("Confirm")
        main = visit.page.locator("main")
        await expect(main).to_have_attribute("aria-busy", "true")
        restored = "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
        await looks_once_more(visit, restored)
        await expect(main).not_to_have_attribute("aria-busy", "true")
        assert await visit.page.evaluate("document.forms[0].sent") is False
