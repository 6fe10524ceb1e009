"""The Paynow simulator's phones: the pages on which a prompt is answered, an OTP read, a code typed."""

from __future__ import annotations

import re
from html import unescape

import pytest

from payments_service.sandbox.paynow_transactions import MOVES
from tests import sandbox_world
from tests.sandbox_world import PHONE, World

stages, world = sandbox_world.stages, sandbox_world.world  # fixtures

PAGE = f"/phone/{PHONE}"
APP = "/phone/innbucks"
REFRESH = '<meta http-equiv="refresh" content="2">'


async def shown(world: World, path: str = PAGE) -> str:
    """The page as text with single blanks."""
    status, page, _ = await world.page(path)
    assert status == 200
    return " ".join(unescape(page).split())


async def answer(world: World, reference: str = "INV-1", path: str = PAGE, **fields: str) -> None:
    prompt = f"paynow-{world.sandbox.find(reference).number}"
    status, _, target = await world.page(path, {"prompt": prompt} | fields)
    assert (status, target) == (303, path)


# --- the prompt


async def test_a_prompt_asks_for_the_pin_and_stands_still(world: World) -> None:
    """A refresh would wipe out what is being typed."""
    await world.express(amount="1250")
    page = await shown(world)
    assert "merchant@example.com asks for <strong>USD 1,250.00</strong>" in page
    assert re.search(r'<label for="(pin-[\w-]+)">Enter PIN.*<input id="\1" name="pin" type="password"', page)
    assert re.findall(r'name="answer" value="(\w+)"', page) == ["approve", "decline"]
    assert REFRESH not in page


async def test_a_prompt_appears_by_itself(world: World) -> None:
    page = await shown(world)
    assert REFRESH in page
    assert "Nothing yet" in page


async def test_approving_with_the_right_pin_pays(world: World) -> None:
    await world.express()
    await answer(world, answer="approve", pin="1234")
    assert world.sandbox.find("INV-1").status == "Paid"
    page = await shown(world)
    assert "You paid USD 10.00 to merchant@example.com." in page
    assert "Enter PIN" not in page
    assert REFRESH in page


async def test_a_wrong_pin_is_said_and_the_third_one_fails(world: World) -> None:
    await world.express()
    for words in ("Wrong PIN. 2 tries left.", "Wrong PIN. 1 try left."):
        await answer(world, answer="approve", pin="0000")
        page = await shown(world)
        assert words in page
        assert re.search(r'aria-describedby="(wrong-[\w-]+)".* id="\1"', page)
    await answer(world, answer="approve", pin="0000")
    assert "Wrong PIN, three times. The payment of USD 10.00 to merchant@example.com failed." in await shown(world)
    assert world.sandbox.find("INV-1").status == "Failed"


async def test_declining_needs_no_pin_and_cancels(world: World) -> None:
    await world.express()
    assert 'value="decline" formnovalidate' in await shown(world)
    await answer(world, answer="decline", pin="")
    assert world.sandbox.find("INV-1").status == "Cancelled"
    assert "was cancelled. No money was taken." in await shown(world)


async def test_an_answer_that_comes_too_late_shows_what_has_become_of_it(world: World) -> None:
    await world.express()
    await world.sandbox.cancel("INV-1")
    await answer(world, answer="approve", pin="1234")
    assert world.sandbox.find("INV-1").status == "Cancelled"
    assert "was cancelled" in await shown(world)


async def test_of_two_prompts_the_answered_one_goes(world: World) -> None:
    await world.express()
    await world.express("onemoney", reference="INV-2", amount="7")
    page = await shown(world)
    assert page.index("USD 7.00") < page.index("USD 10.00")
    await answer(world, "INV-2", answer="approve", pin="1234")
    assert [world.sandbox.find(name).open for name in ("INV-1", "INV-2")] == [True, False]
    assert (await shown(world)).count("Enter PIN") == 1


@pytest.mark.parametrize("status", [*MOVES, "Cancelled", "Failed", "Refunded", "Something {New}"])
async def test_every_status_is_told_in_words(world: World, status: str) -> None:
    await world.express()
    await world.sandbox.set_status("INV-1", status)
    assert "USD 10.00" in await shown(world)


async def test_a_test_number_says_that_it_answers_by_itself(world: World) -> None:
    world.sandbox.pace = 3600
    await world.express(phone="0772222222")
    page = await shown(world, "/phone/0772222222")
    assert "This number answers by itself" in page
    assert "Enter PIN" not in page
    assert REFRESH in page


# --- SMS, app, list


async def test_an_sms_brings_the_otp_until_it_is_used(world: World) -> None:
    await world.express("omari")
    otp, reference = world.sandbox.otp_of("INV-1"), world.sandbox.find("INV-1").otp_reference
    page = await shown(world)
    assert f'<p class="otp">{otp}</p>' in page
    assert f"OTP reference {reference}" in page
    await world.otp(otp)
    page = await shown(world)
    assert otp not in page
    assert "You paid USD 10.00" in page


async def test_the_app_pays_by_code_typed_in_groups(world: World) -> None:
    await world.express("innbucks")
    assert '<label for="code">' in await shown(world, APP)
    code = world.sandbox.code_of("INV-1")
    status, _, target = await world.page(APP, {"code": f" {code[:3]} {code[3:]} "})
    assert (status, target) == (303, APP)
    assert world.sandbox.find("INV-1").status == "Paid"
    assert "You paid USD 10.00 to merchant@example.com." in await shown(world, APP)


async def wrong_code(world: World, code: str) -> str:
    status, _, target = await world.page(APP, {"code": code})
    assert status == 303
    return await shown(world, target)


async def test_the_app_says_why_a_code_does_not_pay(world: World) -> None:
    world.sandbox.code_seconds = 0
    await world.express("innbucks")
    code = world.sandbox.code_of("INV-1")
    assert "This code has expired" in await wrong_code(world, code)
    await world.sandbox.cancel("INV-1")
    assert "This code is used up" in await wrong_code(world, code)
    assert "No payment has this code" in await wrong_code(world, "<b>1</b>")
    assert REFRESH not in await shown(world, APP)


async def test_the_list_has_every_phone_newest_first_and_the_app(world: World) -> None:
    await world.initiate(reference="INV-0")
    await world.express(phone="0711111111")
    await world.express("omari", reference="INV-2", phone="0722222222")
    await world.express("innbucks", reference="INV-3", phone="0733333333")
    await world.sandbox.pay("INV-2")
    page = await shown(world, "/phone")
    assert re.findall(r'href="/phone/(\w+)"', page) == ["0722222222", "0711111111", "innbucks"]
    assert page.count("1 waiting") == 1
    assert REFRESH in page


async def test_the_other_pages_lead_to_the_phones(world: World) -> None:
    await world.express()
    await world.express("innbucks", reference="INV-2")
    await world.express("omari", reference="INV-3")
    assert 'href="/phone"' in await shown(world, "/")
    page = await shown(world, world.pay_page())
    assert f'<dd>EcoCash</dd><dt>Phone</dt><dd><a href="{PAGE}">{PHONE}</a></dd>' in page.replace("> <", "><")
    assert f'<a href="{APP}">{world.sandbox.code_of("INV-2")}</a>' in await shown(world, world.pay_page("INV-2"))
    assert f"<dd>{world.sandbox.otp_of('INV-3')}</dd>" in await shown(world, world.pay_page("INV-3"))


async def test_after_a_move_of_an_express_transaction_the_browser_stays(world: World) -> None:
    """Nobody was sent there by a merchant."""
    await world.express()
    status, _, target = await world.page(world.pay_page(), {"status": "Paid"})
    assert (status, target) == (303, world.pay_page())


@pytest.mark.parametrize("path", ["/phone", PAGE, APP])
async def test_no_page_has_script_or_foreign_content_and_each_says_what_it_is(world: World, path: str) -> None:
    await world.express(reference="<script>x</script>")
    await world.express("omari", reference="<img src=x>")
    _, page, _ = await world.page(path)
    assert "no real money moves here" in page
    assert not re.search("<script|<img|https?://", page)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/phone/12", None),
        ("/phone/07712345678", None),
        (PAGE, {"prompt": "paynow-7", "answer": "approve", "pin": "1234"}),
        (PAGE, {"answer": "decline"}),
    ],
)
async def test_what_does_not_exist_is_not_found(world: World, path: str, data: dict[str, str] | None) -> None:
    assert (await world.page(path, data))[0] == 404


async def test_a_phone_answers_its_own_prompts_only(world: World) -> None:
    await world.express()
    await world.express("omari", reference="INV-2")
    for reference, path in (("INV-1", "/phone/0719999999"), ("INV-2", PAGE)):
        prompt = f"paynow-{world.sandbox.find(reference).number}"
        assert (await world.page(path, {"prompt": prompt, "answer": "decline"}))[0] == 404
        assert world.sandbox.find(reference).open
