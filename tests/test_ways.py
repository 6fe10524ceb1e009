"""The ways to pay over all gateways: each wallet once, its own gateway first, another one standing in."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.house import House
from tests.support import afresh, open_house
from tests.wallets import PHONE, down, events, look, offered, page, save_wallets, settle, tap, token, tries

ALL = [
    "ecocash.ecocash",
    "innbucks.innbucks",
    "paynow.onemoney",
    "paynow.omari",
    "stripe.card",
    "paynow.web",
]
# Those of gateways of their own.
OWN = ("ecocash.ecocash", "innbucks.innbucks")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    """The service for a tenant who has every gateway, EcoCash and InnBucks also through Paynow."""
    house = afresh(service)
    await save_wallets(house)
    await house.save_stripe()
    return house


# --- what is offered


async def test_each_wallet_is_offered_once_through_its_own_gateway(house: House) -> None:
    """Wallets first, then the card, then the page that may offer anything; under two headings."""
    html = await page(house, await house.create_link(gateway=None))
    assert offered(html) == ALL
    assert re.findall(r'<p class="kind soft">([^<]*)</p>', html) == ["Mobile money", "Other ways"]


async def test_without_its_own_gateway_a_wallet_is_offered_through_paynow(house: House) -> None:
    await settle(house, ecocash_api_key=None, innbucks_password=None)
    ways = offered(await page(house, await house.create_link(gateway=None)))
    assert ways == ["paynow.ecocash", "paynow.onemoney", "paynow.innbucks", "paynow.omari", "stripe.card", "paynow.web"]


@pytest.mark.parametrize(
    ("gateway", "ways"),
    [
        ("ecocash", ["ecocash.ecocash"]),
        ("innbucks", ["innbucks.innbucks"]),
        ("paynow", ["paynow.ecocash", "paynow.onemoney", "paynow.innbucks", "paynow.omari", "paynow.web"]),
        ("stripe", ["stripe.card"]),
    ],
)
async def test_a_link_for_one_gateway_offers_its_ways_only(house: House, gateway: str, ways: list[str]) -> None:
    """Of few ways nobody needs headings. A link to a gateway without a page of its own leads to ours."""
    payment = await house.create_link(gateway=gateway)
    html = await page(house, payment)
    assert offered(html) == ways
    assert 'class="kind' not in html or len(ways) > 3
    assert (payment["payment_url"] == payment["page_url"]) is (gateway in ("ecocash", "innbucks"))
    assert ("You go on to the secure page of" in html) is (gateway == "stripe")
    assert ("Get a code to pay with</p>" in html) is (gateway == "innbucks")
    assert payment["gateway"] == gateway


async def test_what_takes_no_zig_is_not_offered_for_it(house: House) -> None:
    """InnBucks and Stripe take US dollars; EcoCash what the tenant's account takes."""
    for currencies, ways in ((None, ["ecocash.ecocash"]), ("USD, ZWG", ["ecocash.ecocash"]), ("USD", [])):
        await settle(house, ecocash_currencies=currencies)
        if not ways:
            answer = await house.call(
                "POST", house.path("/payments/create-link"), house.order(gateway=None, currency="ZIG")
            )
            assert (answer.status, answer.json["code"]) == (422, "gateway_not_configured")
            continue
        assert offered(await page(house, await house.create_link(gateway=None, currency="ZIG"))) == ways
    answer = await house.call(
        "POST", house.path("/payments/create-link"), house.order(gateway="innbucks", currency="ZIG")
    )
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "currency")


async def test_credentials_that_do_not_open_close_no_other_way(house: House) -> None:
    """Of one gateway: the others are offered. Of all: the page says that it is not possible now."""
    payment = await house.create_link(gateway=None)
    house.world.rows_do(
        "UPDATE payment_settings SET ecocash_api_key_enc = 'v1.x.y' WHERE client_id = %s", house.client_id
    )
    assert offered(await page(house, payment)) == [
        "innbucks.innbucks", "paynow.ecocash", "paynow.onemoney", "paynow.omari", "stripe.card", "paynow.web",
    ]  # fmt: skip
    house.world.rows_do(
        "UPDATE payment_settings SET innbucks_password_enc = 'v1.x.y', paynow_integration_key_enc = 'v1.x.y', "
        "stripe_secret_key_enc = 'v1.x.y' WHERE client_id = %s",
        house.client_id,
    )
    assert "not possible here" in await page(house, payment)


# --- standing in


async def test_paynow_stands_in_for_an_ecocash_that_is_down(house: House) -> None:
    """The customer sees a prompt, whoever sent it; EcoCash's try is on record as never started; who taps again, or
    wants EcoCash, has it already."""
    payment = await house.create_link(gateway=None)
    async with down(house, "ecocash"):
        answer = await tap(house, payment, "ecocash.ecocash", phone=PHONE, after="0")
        assert answer.status == 303
        assert tries(house, payment) == [("ecocash", "ecocash", "failed"), ("paynow", "ecocash", "live")]
        assert "Look at your phone" in await page(house, payment)
        for after in ({"after": "0"}, {}, {"after": "2"}):
            assert (await tap(house, payment, "ecocash.ecocash", phone=PHONE, **after)).status == 303
    assert len(tries(house, payment)) == 2
    await house.world.sandbox.approve("INV-1001")
    await look(house, "paynow", seconds=10)
    paid = await house.payment(payment)
    assert (paid["status"], paid["gateway"]) == ("paid", "paynow")


async def test_paynow_stands_in_where_ecocash_takes_nothing_from_the_tenant(house: House) -> None:
    await settle(house, ecocash_api_key="a-key-of-nobody")
    payment = await house.create_link(gateway=None)
    assert (await tap(house, payment, "ecocash.ecocash", phone=PHONE)).status == 303
    assert tries(house, payment) == [("ecocash", "ecocash", "failed"), ("paynow", "ecocash", "live")]


async def test_nobody_stands_in_while_it_is_not_known_what_became_of_the_first(house: House) -> None:
    """A prompt may be on the phone: a second one could be paid too."""
    house.world.ecocash.add_fault("timeout_after_accepting", on=["charge"], seconds=0.0)
    payment = await house.create_link(gateway=None)
    assert (await tap(house, payment, "ecocash.ecocash", phone=PHONE)).status == 303
    assert tries(house, payment) == [("ecocash", "ecocash", "starting")]
    assert not house.world.sandbox.calls
    assert (await tap(house, payment, "paynow.web")).status == 303
    assert len(tries(house, payment)) == 1


async def test_what_needs_something_more_is_offered_next(house: House) -> None:
    """InnBucks itself asks for no number, Paynow's does: the page says why nothing has begun, and asks. Once both were
    tried it says that."""
    payment = await house.create_link(gateway=None)
    async with down(house, "innbucks"):
        answer = await tap(house, payment, "innbucks.innbucks")
        html = answer.body.decode()
        assert answer.status == 409
        assert "Your mobile number is needed" in html
        assert "It did not work with InnBucks directly, and you have not been charged." in html
        assert offered(html) == ["ecocash.ecocash", "paynow.innbucks", *ALL[2:]]
        assert re.search(r'value="paynow.innbucks"[^>]* checked', html)
        assert tries(house, payment) == [("innbucks", "innbucks", "failed")]
        house.world.sandbox.add_fault("poll_error", on=["express"], text="Something else", times=1)
        both = await tap(house, payment, "innbucks.innbucks", phone=PHONE)
        assert (both.status, b"could not be started" in both.body) == (409, True)
        # Who had typed a number for something else before need not be asked.
        assert (await tap(house, payment, "innbucks.innbucks", phone=PHONE)).status == 303
    assert tries(house, payment)[3:] == [("innbucks", "innbucks", "failed"), ("paynow", "innbucks", "live")]
    assert "Pay with this code" in await page(house, payment)


async def test_where_all_are_down_the_last_word_is_told(house: House) -> None:
    """Two gateways were tried, and the payment can be tried again."""
    house.world.sandbox.add_fault("redirect", on=["express"])
    payment = await house.create_link(gateway="ecocash")
    async with down(house, "ecocash"):
        answer = await tap(house, payment, "ecocash.ecocash", phone=PHONE)
    assert answer.status == 409
    assert "EcoCash cannot be reached right now" in answer.body.decode()
    assert tries(house, payment) == [("ecocash", "ecocash", "failed")], "a link for one gateway stays with it"
    assert (await house.payment(payment))["status"] == "pending"


async def test_a_way_that_stands_in_can_be_named_by_an_old_tab(house: House) -> None:
    """The page was drawn before the tenant had EcoCash itself."""
    payment = await house.create_link(gateway=None)
    assert (await tap(house, payment, "paynow.ecocash", phone=PHONE)).status == 303
    assert tries(house, payment) == [("paynow", "ecocash", "live")]


# --- a code that has run out


@pytest.mark.parametrize("failed", [False, True])
async def test_a_code_that_innbucks_lets_run_out_is_told_as_that(house: House, failed: bool) -> None:
    """By InnBucks' own word, before our clock says so; the payment stays as it was, a new code is a tap away. Where a
    try before had failed, that is what the payment says."""
    payment = await house.create_link(gateway=None)
    if failed:
        await tap(house, payment, "ecocash.ecocash", phone=PHONE)
        await house.world.ecocash.decline(house.world.ecocash.charges[-1].correlator)
        await look(house, "ecocash", seconds=10)
    await tap(house, payment, "innbucks.innbucks")
    await house.world.innbucks.expire(house.world.innbucks.codes[-1].code)
    await look(house, "innbucks", seconds=30)
    html = await page(house, payment)
    title = "The payment did not go through" if failed else "This code has run out"
    assert title in html
    assert failed or "InnBucks says that it was not paid." in html
    assert re.search(r'value="innbucks.innbucks"[^>]* checked', html)
    assert (await tap(house, payment, "innbucks.innbucks")).status == 303
    assert "Pay with this code" in await page(house, payment)


# --- one live prompt


@pytest.mark.parametrize(
    ("first", "second"), [("ecocash.ecocash", "innbucks.innbucks"), ("innbucks.innbucks", "ecocash.ecocash")]
)
async def test_another_way_is_begun_only_after_a_look_at_the_first(house: House, first: str, second: str) -> None:
    """The page says that the first is still open; what was paid meanwhile is found, and nothing else is begun."""
    payment = await house.create_link(gateway=None)
    await tap(house, payment, first, phone=PHONE)
    choosing = (await house.get_public(f"/pay/{token(payment)}?choose=1")).body.decode()
    assert "is still open" in choosing
    assert offered(choosing) == ALL
    name = first.partition(".")[0]
    if name == "ecocash":
        await house.world.ecocash.pay(house.world.ecocash.charges[-1].correlator)
    else:
        await house.world.innbucks.pay(house.world.innbucks.codes[-1].code)
    assert (await tap(house, payment, second, phone=PHONE, after="1")).status == 303
    assert tries(house, payment) == [(name, name, "paid")]
    assert "Paid" in await page(house, payment)


@pytest.mark.parametrize(
    ("first", "second"), [("ecocash.ecocash", "innbucks.innbucks"), ("innbucks.innbucks", "ecocash.ecocash")]
)
async def test_money_by_both_is_for_a_person(house: House, first: str, second: str) -> None:
    """The first was asked about and was unpaid; then both are paid: the first counts, the other opens a review."""
    world = house.world
    payment = await house.create_link(gateway=None)
    await tap(house, payment, first, phone=PHONE)
    await tap(house, payment, second, phone=PHONE, after="1")
    names = [way.partition(".")[0] for way in (first, second)]
    assert tries(house, payment) == [(names[0], names[0], "replaced"), (names[1], names[1], "live")]
    await world.ecocash.pay(world.ecocash.charges[-1].correlator)
    await world.innbucks.pay(world.innbucks.codes[-1].code)
    await look(house, *reversed(names))
    now = await house.payment(payment)
    # Who has the money that counts: that of the second was found first.
    assert (now["status"], now["gateway"]) == ("review", names[1])
    assert events(house, payment) == ["payment.link_created", "payment.paid", "payment.review"]
    (review,) = world.rows("SELECT reason, evidence FROM reviews WHERE payment_id = %s", payment["id"])
    assert review["reason"] == "second_payment"
    assert review["evidence"]["gateway"] == names[0]
    assert review["evidence"]["amount_cents"] == 1250


async def test_a_stand_in_is_refused_its_own_turn(house: House) -> None:
    """Too many tries end both: the limit counts what stood in as well."""
    payment = await house.create_link(gateway=None)
    async with down(house, "ecocash"):
        for _ in range(4):
            house.world.sandbox.add_fault("poll_error", on=["express"], text="Insufficient balance", times=1)
            await tap(house, payment, "ecocash.ecocash", phone=PHONE)
        answer = await tap(house, payment, "ecocash.ecocash", phone=PHONE)
    assert answer.status == 429
    assert len(tries(house, payment)) == 8
