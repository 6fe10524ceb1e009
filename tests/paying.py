"""A customer at the pay page in a real browser: what they tap and type, here and on the simulator's phones."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from playwright.async_api import Error, Locator, Page, expect

from tests.browser import Phone, axe
from tests.house import House

PATIENCE = 30_000  # milliseconds, for what another process does

# The ways to pay of a tenant who has every gateway, as the page offers them, and the gateway behind each.
ACCOUNTS = {
    "EcoCash": "EcoCash",
    "InnBucks": "InnBucks",
    "OneMoney": "Paynow",
    "O'mari": "Paynow",
    "Card": "Stripe",
    "Paynow": "Paynow",
}
TITLES = tuple(ACCOUNTS)
# What the page's form says of each.
WAYS = {
    "EcoCash": "ecocash.ecocash",
    "InnBucks": "innbucks.innbucks",
    "OneMoney": "paynow.onemoney",
    "O'mari": "paynow.omari",
    "Card": "stripe.card",
    "Paynow": "paynow.web",
}
# Those that lead to a page of the gateway's own.
PAGES = ("Card", "Paynow")
# Those that ask for a number. A gateway that stands in for another may ask for one more.
NUMBERED = ("EcoCash", "OneMoney", "O'mari")


@dataclass(frozen=True, slots=True)
class Visit:
    """One customer with one payment on one phone."""

    house: House
    screen: Phone
    payment: Any
    number: str = "0771200000"

    @property
    def page(self) -> Page:
        return self.screen.page

    @property
    def words(self) -> Locator:
        """What the page says about the payment, first its title."""
        return self.page.locator(".state")

    @property
    def number_field(self) -> Locator:
        """There for those ways only that ask for a number."""
        return self.page.get_by_label("Mobile number of the wallet")

    @property
    def status_url(self) -> str:
        return f"{self.payment['page_url']}/status"

    async def open(self, query: str = "") -> None:
        await self.page.goto(self.payment["page_url"] + query)

    async def says(self, title: str) -> None:
        """Wait until the page says this."""
        await expect(self.words.locator("h1, h2")).to_have_text(title, timeout=PATIENCE)

    async def is_paid(self) -> bool:
        """Whether the service has recorded the money."""
        return bool((await self.house.payment(self.payment))["status"] == "paid")

    async def choose(self, title: str) -> None:
        """Tap the card of a way to pay."""
        await self.page.locator("label", has=self.page.get_by_text(title, exact=True)).tap()

    async def press(self, name: str = "Pay USD 12.50") -> None:
        await self.page.get_by_role("button", name=name, exact=True).tap()

    async def begin(self, title: str) -> None:
        """Open the link, choose a way to pay, type the number where one is asked for, press the button."""
        await self.open()
        await self.choose(title)
        if await self.number_field.is_visible():
            await self.number_field.fill(self.number)
        await self.press()

    async def begin_unseen(self, title: str) -> None:
        """What `begin` comes to, without the browser: for what is looked at after it."""
        path = f"/pay/{self.payment['page_url'].rpartition('/')[2]}"
        answer = await self.house.get_public(path, method="POST", data={"way": WAYS[title], "phone": self.number})
        assert answer.status == 303, answer.body

    async def has_begun(self, title: str) -> None:
        """Wait until the next step of this way to pay is there."""
        if words := STEPS[title][0]:
            await self.says(words)
        else:
            await self.page.wait_for_url(f"{self.house.world.sandbox.public_url}/**")

    @asynccontextmanager
    async def tab(self, path: str) -> AsyncIterator[Page]:
        """Another tab, at a page of the simulator."""
        page = await self.page.context.new_page()
        await page.goto(self.house.world.sandbox.public_url + path)
        yield page
        await page.close()

    async def approve(self, pin: str = "1234") -> None:
        """Type the PIN at the prompt on the phone."""
        async with self.tab(f"/phone/{self.number}") as phone:
            await phone.get_by_label("Enter PIN").fill(pin)
            await phone.get_by_role("button", name="Approve").tap()
            await expect(phone.locator("main")).to_contain_text("You paid USD 12.50", timeout=PATIENCE)

    async def type_code(self) -> None:
        """Type the code that the page shows into the InnBucks app."""
        code = await self.page.locator(".code b").inner_text()
        async with self.tab("/phone/innbucks") as app:
            await app.get_by_label("Code that the merchant shows").fill(code)
            await app.get_by_role("button", name="Continue").tap()
            await app.get_by_role("button", name="Pay USD 12.50").tap()
            await expect(app.locator("main")).to_contain_text("You paid USD 12.50", timeout=PATIENCE)

    async def type_otp(self) -> None:
        """Read the SMS on the phone and type its code into the page."""
        async with self.tab(f"/phone/{self.number}") as phone:
            otp = await phone.locator(".otp").inner_text()
        await self.page.get_by_label("Code from the SMS").fill(otp)
        await self.press("Confirm")

    async def pay_at_gateway(self) -> None:
        """Press the button on the gateway's page, which sends the browser back."""
        await self.page.wait_for_url(f"{self.house.world.sandbox.public_url}/**")
        assert await self.screen.sideways() == 0
        await self.page.get_by_role("button", name=re.compile("^Pay ")).tap()

    async def is_faultless(self, *, only: str = "") -> None:
        """Nothing to scroll sideways, and nobody shut out; by one of axe's rules, if it is named."""
        wider = await self.screen.sideways()
        assert wider == 0, f"{wider} pixels wider than the screen"
        # A page that cannot ask without it refreshes itself; nobody is typing on those.
        found = [line for line in await still_axe(self.screen, only) if not line.startswith("meta-refresh:")]
        assert not found, "\n".join(found)


# The steps of each way to pay: what the page says once it has begun, if it stays; and what the customer does then.
STEPS: dict[str, tuple[str, Callable[[Visit], Awaitable[None]]]] = {
    "EcoCash": ("Look at your phone", Visit.approve),
    "OneMoney": ("Look at your phone", Visit.approve),
    "InnBucks": ("Pay with this code", Visit.type_code),
    "O'mari": ("Type the code from your SMS", Visit.type_otp),
    "Paynow": ("", Visit.pay_at_gateway),
    "Card": ("", Visit.pay_at_gateway),
}


async def offer_all(house: House, *, dialect: str = "open_api") -> None:
    """The tenant can be paid in every way that there is: EcoCash, in this dialect, and InnBucks of their own gateways,
    for which Paynow stands in."""
    await offer_paynow(house)
    await house.save_stripe()
    await house.save_ecocash(dialect=dialect)
    await house.save_innbucks()


async def offer_paynow(house: House) -> None:
    """The tenant has Paynow only, with all its wallets."""
    await house.save_paynow()
    await settle(house, paynow_auth_email="till@acme.example")


async def settle(house: House, **fields: str | None) -> None:
    """Change the tenant's settings."""
    answer = await house.call("PATCH", house.path("/payment-settings"), fields)
    assert answer.status == 200, answer.body


async def still_axe(screen: Phone, only: str = "") -> list[str]:
    """`axe`, once more where the page has refreshed itself meanwhile."""
    for _ in range(4):
        with contextlib.suppress(Error):
            return await axe(screen, only=only)
        await screen.page.wait_for_load_state()
    return await axe(screen, only=only)
