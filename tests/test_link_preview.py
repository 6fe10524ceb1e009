"""From the chat to the pay page: what WhatsApp's preview shows of the link and what it learns; it does nothing."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator

import pytest_asyncio

from payments_service import sending
from payments_service.sandbox.whatsapp import DEMO_SENDERS
from tests.house import House
from tests.support import afresh, dump, open_house

TAGS = re.compile(r'<(?:meta property="og:[^"]+" content="(.*?)"|title>(.*?)<)')


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        whatsapp = house.world.whatsapp
        whatsapp.button_url = f"{house.public}/pay/{{{{1}}}}"
        await whatsapp.subscribe(f"{house.public}/callbacks/whatsapp")
        # That the customer reads the message would be told.
        whatsapp.receipts = False
        yield house


async def test_the_chat_shows_what_is_asked_for_and_leads_to_the_page(service: House) -> None:
    """The card has amount, payee and a picture; the button opens the pay page; to look changes nothing, neither here
    nor at a gateway."""
    house = afresh(service)
    await house.save_paynow()
    payment = await house.create_link(gateway=None, contact_phone="077 123 4567", send="whatsapp")
    assert await sending.run_once(house.world.context) == 1
    await house.world.whatsapp.settled()
    before = dump(house.world.database)
    chat = f"{house.world.sandbox.public_url}/phone/0771234567/whatsapp/{DEMO_SENDERS[0][0]}"
    async with house.http.get(chat) as answer:
        shown = html.unescape(await answer.text())
    assert "Acme Hardware asks you to pay USD 12.50 for INV-1001" in shown
    assert "Pay USD 12.50 to Acme Hardware" in shown.replace("\N{NO-BREAK SPACE}", " ")
    assert "data:image/png;base64," in shown
    button = re.search(r'href="([^"]*/pay/[^"]*)"', shown)
    assert button
    assert button[1] == payment["page_url"]
    async with house.http.get(button[1]) as page:
        assert page.status == 200
        assert "Acme Hardware" in await page.text()
    assert dump(house.world.database) == before
    assert house.world.sandbox.calls == {}


async def test_a_preview_learns_nothing_of_the_customer(service: House) -> None:
    """Neither number, e-mail nor ids, in whatever stands in the tags that a chat shows, and none in the address."""
    house = afresh(service)
    await house.save_paynow()
    payment = await house.create_link(
        gateway=None, description=None, contact_phone="+263 77 123 4567", contact_email="tendai@example.com"
    )
    async with house.http.get(payment["page_url"], headers={"User-Agent": "WhatsApp/2.23.20.0 A"}) as answer:
        tags = html.unescape(" ".join("".join(found) for found in TAGS.findall(await answer.text())))
    assert "USD 12.50 to Acme Hardware" in tags.replace("\N{NO-BREAK SPACE}", " ")
    for personal in ("tendai", "771234567", "77 123", payment["contact_id"], payment["id"], str(house.client_id)):
        assert personal not in tags
        assert personal not in payment["page_url"]
