"""The pay page's forms over HTTP: what a customer sends, what strangers send, and what a chat's preview fetches."""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import aiohttp
import pytest
import pytest_asyncio

from payments_service.checkout import TRIES
from payments_service.public.texts import ENGLISH, State
from tests.house import Answer, House
from tests.support import FORM, afresh, dump, gather_limited, open_house
from tests.test_pay_page import set_status, text_of, token_of

PHONE = "077 212 3456"
AGENTS = (
    "WhatsApp/2.23.20.0 A",
    "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    "TelegramBot (like TwitterBot)",
    "Mozilla/5.0 (Linux; Android 5.1; itel A16) AppleWebKit/537.36 Chrome/39.0 Mobile Safari/537.36",
    "Opera/9.80 (J2ME/MIDP; Opera Mini/4.2.14912/870; U; id) Presto/2.4.15",
    "",
    "\xff' OR 1=1 --",
    "A" * 4000,
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    """For a tenant of the test's own that offers all of Paynow's ways; no workers."""
    house = afresh(service)
    await house.save_paynow()
    fields = {"paynow_auth_email": "shop@example.com", "whatsapp_number": "077 999 8888"}
    assert (await house.call("PATCH", house.path("/payment-settings"), fields)).status == 200
    house.world.sandbox.add_fault("never")
    return house


async def open_link(house: House, **changes: object) -> Any:
    return await house.create_link(**{"gateway": None, "contact_phone": "+263771234567", **changes})


async def get(house: House, payment: Any, query: str = "", **more: Any) -> Answer:
    return await house.get_public(f"/pay/{token_of(payment)}{query}", **more)


async def post(house: House, payment: Any, *, headers: dict[str, str] | None = None, **fields: object) -> Answer:
    data = urlencode(fields).encode()
    return await get(house, payment, method="POST", data=data, headers={**FORM, **(headers or {})})


def attempts(house: House, payment: Any) -> list[dict[str, Any]]:
    return house.world.rows("SELECT * FROM attempts WHERE payment_id = %s ORDER BY number", payment["id"])


def says(answer: Answer, state: State) -> bool:
    return re.sub(r"\{.*", "", ENGLISH.states[state].title) in text_of(answer)


# --- what the page offers


async def test_the_page_offers_every_way_and_keeps_the_number_ready(house: House) -> None:
    """All of Paynow's, the wallets first; the contact's number as people write it; one form that works by itself."""
    payment = await open_link(house)
    body = (await get(house, payment)).body.decode()
    offered = re.findall(r'<input type="radio" name="way" id="way\d" value="([^"]+)" class="(\w+)"( checked)?>', body)
    assert [(way, kind) for way, kind, _ in offered] == [
        ("paynow.ecocash", "asks"),
        ("paynow.onemoney", "asks"),
        ("paynow.innbucks", "asks"),
        ("paynow.omari", "asks"),
        ("paynow.web", "goes"),
    ]
    assert [way for way, _, checked in offered if checked] == ["paynow.ecocash"]
    assert 'value="077 123 4567"' in body
    assert '<input type="hidden" name="after" value="0">' in body
    assert "Pay USD 12.50</button>" in body
    assert body.count("<form") == 1


@pytest.mark.parametrize("known", ["+27821234567", "0242 700000", "12345"])
async def test_a_number_that_no_wallet_can_have_is_not_put_into_the_field(house: House, known: str) -> None:
    payment = await open_link(house, contact_phone=known)
    assert (
        'type="tel" inputmode="tel" autocomplete="tel" maxlength="30" value=""'
        in (await get(house, payment)).body.decode()
    )


async def test_a_link_for_a_gateway_offers_its_ways_too(house: House) -> None:
    """Its page is open already, which nobody has chosen yet; the first choice stays the first."""
    payment = await open_link(house, gateway="paynow")
    body = (await get(house, payment)).body.decode()
    assert 'value="paynow.ecocash" class="asks" checked>' in body
    assert '<input type="hidden" name="after" value="1">' in body
    went = await post(house, payment, way="paynow.web", after=1)
    assert (went.status, went.headers["location"]) == (303, payment["payment_url"])


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_the_way_that_was_tried_is_offered_first_after_it_failed(house: House) -> None:
    """With the number that was typed."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.onemoney", phone="0712 345 678", after=0)
    house.world.rows_do("UPDATE attempts SET state = 'failed', next_check_at = NULL")
    set_status(house.world, payment, "failed")
    body = (await get(house, payment)).body.decode()
    assert 'value="paynow.onemoney" class="asks" checked>' in body
    assert 'value="071 234 5678"' in body
    assert "Try again</button>" in body


# --- what is typed


@pytest.mark.parametrize(
    ("way", "state", "words"),
    [
        ("paynow.ecocash", State.PROMPTED, "We have asked EcoCash for USD 12.50 on 077 212 3456"),
        ("paynow.onemoney", State.PROMPTED, "Paynow says: A prompt was sent to 0772123456"),
        ("paynow.innbucks", State.CODE, "Open InnBucks"),
        ("paynow.omari", State.OTP, "O'mari has sent a one-time code to 077 212 3456"),
    ],
)
async def test_a_choice_leads_to_its_next_step(house: House, way: str, state: State, words: str) -> None:
    """Back to the page, which shows it, and still does when it is loaded or sent again."""
    payment = await open_link(house)
    for _ in range(2):
        answer = await post(house, payment, way=way, phone=PHONE, after=0)
        assert (answer.status, answer.headers["location"]) == (303, token_of(payment))
        shown = await get(house, payment)
        assert says(shown, state)
        assert words in text_of(shown)
        assert "Choose another way to pay" in text_of(shown)
    assert len(attempts(house, payment)) == 1
    assert house.world.sandbox.calls["express"] == 1


async def test_the_code_is_shown_to_type_to_scan_and_to_open(house: House) -> None:
    """In groups of three, as a QR code that was drawn here, with the app's own link and its end."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.innbucks", phone=PHONE)
    code = house.world.sandbox.code_of(attempts(house, payment)[0]["reference"])
    answer = await get(house, payment)
    body = answer.body.decode()
    assert f"{code[:3]} {code[3:6]} {code[6:]}" in text_of(answer)
    assert f'href="com.innbucks.customer://purchase?paymentToken={code}"' in body
    assert 'role="img" aria-label="The same code as a QR code"><svg' in body
    assert re.search(r"Valid until \d\d:\d\d \(Harare time\)", text_of(answer))


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("701285", "701 285"),
        ("7012856", "701 2856"),
        ("70128566", "7012 8566"),
        ("701285660", "701 285 660"),
        ("70128", "70128"),
        ("70128566012", "701 2856 6012"),
    ],
)
async def test_a_code_is_shown_in_groups_that_can_be_kept_in_mind(house: House, code: str, shown: str) -> None:
    """No digit is left over. Where its end is past, and it is shown all the same, nothing is said of an end."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.innbucks", phone=PHONE)
    changed = json.dumps({"code": code, "expires_at": "2026-01-01T00:00:00Z"})
    house.world.rows_do(
        "UPDATE attempts SET next_step = next_step || %s::jsonb WHERE payment_id = %s", changed, payment["id"]
    )
    answer = await get(house, payment)
    assert f"Code {shown}" in text_of(answer)
    assert b'role="timer"' not in answer.body
    assert "Valid" not in text_of(answer)


@pytest.mark.parametrize(
    ("phone", "words"),
    [
        ("", "Please type the mobile number"),
        ("  ", "Please type the mobile number"),
        ("12", "not a mobile number of Zimbabwe"),
        ("<b>077\"'&", "not a mobile number of Zimbabwe"),
        ("0772123456\0", None),
    ],
)
async def test_a_wrong_number_is_told_beside_the_field(house: House, phone: str, words: str | None) -> None:
    """422; what was typed and chosen stays, marked for readers of screens; nothing was started."""
    payment = await open_link(house)
    answer = await post(house, payment, way="paynow.omari", phone=phone, after=0)
    if words is None:
        assert answer.status == 303, "what cannot be seen is not counted"
        return
    assert answer.status == 422
    body = answer.body.decode()
    assert words in text_of(answer)
    assert f'value="{html.escape(phone, quote=True).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}"' in body
    assert 'aria-describedby="phone-fault phone-hint" aria-invalid="true" autofocus' in body
    assert 'value="paynow.omari" class="asks" checked>' in body
    assert attempts(house, payment) == []


async def test_a_way_that_is_not_offered_is_told(house: House) -> None:
    payment = await open_link(house)
    answer = await post(house, payment, way="paynow.zimswitch", phone=PHONE)
    assert answer.status == 422
    assert "Please choose one of these ways to pay." in text_of(answer)
    assert attempts(house, payment) == []


async def test_too_little_money_is_told_and_another_way_offered(house: House) -> None:
    """Not charged; the next try is one tap away."""
    payment = await open_link(house)
    answer = await post(house, payment, way="paynow.ecocash", phone="0774444444", after=0)
    assert answer.status == 409
    assert says(answer, State.NO_FUNDS)
    assert "You have not been charged" in text_of(answer)
    assert '<input type="hidden" name="after" value="1">' in answer.body.decode()
    assert (await post(house, payment, way="paynow.ecocash", phone=PHONE, after=1)).status == 303
    assert house.world.sandbox.prompts["0772123456"] == 1


async def test_a_method_that_is_switched_off_is_told_without_the_tenants_business(house: House) -> None:
    payment = await open_link(house)
    methods = house.world.sandbox.integrations["1201"].methods
    methods.discard("onemoney")
    try:
        answer = await post(house, payment, way="paynow.onemoney", phone=PHONE, after=0)
    finally:
        methods.add("onemoney")
    assert answer.status == 409
    assert "OneMoney is not possible here at the moment" in text_of(answer)
    assert "dashboard" not in text_of(answer)


async def test_too_many_tries_are_put_off(house: House) -> None:
    """429 with Retry-After, and words."""
    payment = await open_link(house)
    for number in range(TRIES):
        assert (await post(house, payment, way="paynow.ecocash", phone=f"07721234{number:02d}")).status == 303
        house.world.clock.forward(seconds=6)
    answer = await post(house, payment, way="paynow.ecocash", phone=PHONE)
    assert answer.status == 429
    assert int(answer.headers["retry-after"]) > 0
    assert says(answer, State.TOO_MANY)
    assert b"<button" not in answer.body


async def test_another_way_is_offered_with_a_word_of_care(house: House) -> None:
    """While a prompt is open: what it is, and that nothing should be paid twice. Looking changes nothing."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.ecocash", phone=PHONE)
    before = dump(house.world.database)
    answer = await get(house, payment, "?choose=1")
    assert says(answer, State.CHOOSING)
    assert "The payment with EcoCash is still open" in text_of(answer)
    assert b'name="way"' in answer.body
    assert b"http-equiv" not in answer.body, "somebody is typing"
    assert dump(house.world.database) == before


# --- the one-time password


async def otp_page(house: House) -> tuple[Any, str]:
    payment = await open_link(house)
    await post(house, payment, way="paynow.omari", phone=PHONE, after=0)
    return payment, house.world.sandbox.otp_of(attempts(house, payment)[0]["reference"])


async def test_a_wrong_password_is_told_with_what_is_left(house: House) -> None:
    """422 beside the field, down to the last; then the page waits for the gateway's word."""
    payment, otp = await otp_page(house)
    wrong = f"{(int(otp) + 1) % 1_000_000:06d}"
    for tries, words in enumerate(("4 more tries", "3 more tries", "2 more tries", "one more try")):
        answer = await post(house, payment, otp=wrong, tries=tries)
        assert answer.status == 422
        assert words in text_of(answer)
        body = answer.body.decode()
        assert f'<input type="hidden" name="tries" value="{tries + 1}">' in body
        assert 'aria-invalid="true" autofocus' in body
        assert wrong not in body
    last = await post(house, payment, otp=wrong, tries=4)
    assert (last.status, last.headers["location"]) == (303, token_of(payment))
    over = await get(house, payment)
    assert says(over, State.OTP_OVER)
    assert b'name="way"' in over.body
    assert house.world.sandbox.find(attempts(house, payment)[0]["reference"]).status == "Cancelled"


async def test_a_password_that_is_none_is_told(house: House) -> None:
    payment, _ = await otp_page(house)
    answer = await post(house, payment, otp="12", tries=0)
    assert answer.status == 422
    assert "Please type the digits of the SMS." in text_of(answer)
    assert house.world.sandbox.calls["otp"] == 0


async def test_the_right_password_leads_to_the_receipt(house: House) -> None:
    payment, otp = await otp_page(house)
    house.world.clock.forward(seconds=10)
    answer = await post(house, payment, otp=f" {otp} ", tries=0)
    assert (answer.status, answer.headers["location"]) == (303, token_of(payment))
    shown = text_of(await get(house, payment))
    assert "This is your receipt" in shown
    assert "O'mari (by Paynow)" in shown


# --- strangers


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin", "none", None])
async def test_a_form_on_another_site_starts_nothing(house: House, site: str | None) -> None:
    """The browser says where a form stands; where it says nothing, it is an old one, and the token is the key."""
    payment = await open_link(house)
    headers = {"Sec-Fetch-Site": site} if site else {}
    answer = await post(house, payment, headers=headers, way="paynow.ecocash", phone=PHONE)
    assert (answer.status, answer.headers["location"]) == (303, token_of(payment))
    assert len(attempts(house, payment)) == (0 if site == "cross-site" else 1)


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xfe\x00",
        b"way=%FF%FE&phone=%00",
        b"&".join(b"way=a" for _ in range(500)),
        b"way=" + b"A" * 7000,
        b"way=paynow.ecocash&phone=" + b"7" * 5000,
        b"after=-1&way=paynow.ecocash&phone=1",
        b"otp=123456&tries=999999999999999999999",
        b"otp=123456&tries=x&way=paynow.web",
        b"otp=" + b"9" * 3000,
        b'{"way": "paynow.ecocash"}',
        b"<xml/>",
        b"=&=&=",
        b"status=paid&amount_cents=1&gateway=stripe&client_id=x&way=paynow.ecocash",
        b"A" * 9000,
        b"A" * 70_000,
    ],
    ids=lambda body: repr(body[:24]),
)
async def test_odd_bodies_break_nothing(house: House, body: bytes) -> None:
    """Some are answered like a bare press of the button, none by a 5xx, and none pays."""
    payment = await open_link(house)
    answer = await get(house, payment, method="POST", data=body, headers=FORM)
    assert answer.status in (303, 413, 422)
    assert house.world.one("SELECT status FROM payments WHERE id = %s", payment["id"])["status"] == "pending"


async def test_nothing_in_the_address_pays(house: House) -> None:
    """Whatever a customer writes behind the link."""
    payment = await open_link(house)
    for query in ("?status=paid", "?returned=1&status=Paid&paid=true", "?choose=1&returned=1", "?n=39&returned=1"):
        answer = await get(house, payment, query)
        assert answer.status == 200
        assert "receipt" not in text_of(answer)
    assert house.world.one("SELECT status FROM payments WHERE id = %s", payment["id"])["status"] == "pending"


async def test_previews_start_and_consume_nothing(house: House) -> None:
    """500 of them, GET and HEAD, of 50 links, by whatever fetches links: no attempt, no gateway call, no change."""
    tokens = [token_of(await open_link(house, reference=f"INV-{number}")) for number in range(50)]
    before = dump(house.world.database)
    jobs = []
    for number in range(500):
        agent = AGENTS[number % len(AGENTS)].encode("latin-1").decode("latin-1")
        method = "HEAD" if number % 3 == 0 else "GET"
        path = f"/pay/{tokens[number % 50]}"
        jobs.append(house.get_public(path, method=method, headers={"User-Agent": agent, "Purpose": "prefetch"}))
    answers = await gather_limited(jobs)
    assert {answer.status for answer in answers} == {200}
    assert dump(house.world.database) == before
    assert house.world.sandbox.calls == {}


# --- what a chat shows


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_a_chat_shows_payee_and_amount(house: House) -> None:
    """Open Graph tags: what it is, of whom, how much; a picture of our own, and nothing of the customer."""
    payment = await open_link(house, contact_email="tendai@example.com", description="School fees for Tariro Moyo")
    body = (await get(house, payment)).body.decode()
    tags = {
        name: html.unescape(text) for name, text in re.findall(r'<meta property="og:([^"]+)" content="(.*?)">', body)
    }
    assert tags["title"] == "Pay USD 12.50 to Acme Hardware"
    assert tags["description"] == f"Reference {payment['reference']}. Safe payment page by Conva."
    assert not any("Tariro" in text for text in tags.values())
    assert tags["image"] == f"{house.public}/preview.png"
    assert (tags["image:width"], tags["image:height"], tags["type"]) == ("600", "315", "website")
    set_status(house.world, payment, "paid")
    assert "Paid: USD 12.50 to Acme Hardware" in (await get(house, payment)).body.decode()
    set_status(house.world, payment, "expired")
    assert 'content="USD 12.50 to Acme Hardware"' in (await get(house, payment)).body.decode()


async def test_the_picture_is_small_and_what_the_tags_say(house: House) -> None:
    answer = await house.get_public("/preview.png")
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert answer.body.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = int.from_bytes(answer.body[16:20]), int.from_bytes(answer.body[20:24])
    assert (width, height) == (600, 315)
    assert len(answer.body) < 10_000


async def test_the_chat_is_one_tap_away_where_its_number_is_known(house: House) -> None:
    payment = await open_link(house)
    assert (
        b'<a href="https://wa.me/263779998888" rel="noreferrer">Back to the chat with Acme Hardware</a>'
        in (await get(house, payment)).body
    )
    await house.call("PATCH", house.path("/payment-settings"), {"whatsapp_number": None})
    assert b"wa.me" not in (await get(house, payment)).body


# --- the receipt


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_the_receipt_can_be_kept_as_a_file(house: House) -> None:
    """Whole in itself, named after the reference, without buttons, scripts and links that lead nowhere from a file."""
    payment = await open_link(house, reference="INV/2026 #7")
    await post(house, payment, way="paynow.ecocash", phone=PHONE)
    early = await get(house, payment, "/receipt")
    assert (early.status, early.headers["location"]) == (303, f"../{token_of(payment)}")
    paid_at = house.world.clock()
    set_status(house.world, payment, "paid", gateway="paynow", gateway_reference="R-77", paid_at=paid_at)
    house.world.rows_do("UPDATE attempts SET state = 'paid' WHERE payment_id = %s", payment["id"])
    assert f'<a href="{token_of(payment)}/receipt" download>'.encode() in (await get(house, payment)).body
    kept = await get(house, payment, "/receipt")
    assert kept.status == 200
    assert kept.headers["content-disposition"] == 'attachment; filename="receipt-INV-2026-7.html"'
    text = text_of(kept)
    for words in ("Paid to Acme Hardware", "USD 12.50", "INV/2026 #7", "EcoCash (by Paynow)", "R-77", payment["id"]):
        assert words in text
    body = kept.body.decode()
    assert re.findall(r'(?:href|src|action)="(.*?)"', body) == [payment["page_url"]]
    assert not re.search(r"<script|<form|<button|og:", body)
    assert (await house.get_public(f"/pay/{'A' * 27}/receipt")).status == 404


# --- the script's side


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_the_version_changes_with_what_the_page_shows(house: House) -> None:
    """The page says its own, the status says the present one; the same until something happens."""

    async def versions() -> tuple[str, str]:
        body = (await get(house, payment)).body.decode()
        (shown,) = re.findall(r'data-version="(.*?)"', body)
        return shown, (await get(house, payment, "/status")).json["version"]

    payment = await open_link(house)
    seen = []
    for step in ("", "otp", "wrong", "paid"):
        if step == "otp":
            await post(house, payment, way="paynow.omari", phone=PHONE)
        if step == "wrong":
            otp = house.world.sandbox.otp_of(attempts(house, payment)[0]["reference"])
            await post(house, payment, otp=f"{(int(otp) + 1) % 1_000_000:06d}", tries=0)
        if step == "paid":
            set_status(house.world, payment, "paid")
        shown, told = await versions()
        assert shown == told
        assert (shown, told) == await versions()
        seen.append(shown)
    assert len(set(seen)) == 4


async def test_pages_are_packed_for_whoever_can_unpack(service: House, house: House) -> None:
    """Data is paid for by the megabyte. Who does not ask for it gets the plain page."""
    payment = await open_link(house)
    url = payment["page_url"]
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        async with http.get(url, headers={"Accept-Encoding": "gzip"}) as answer:
            packed = await answer.read()
            assert answer.headers["content-encoding"] == "gzip"
            assert "accept-encoding" in answer.headers["vary"].lower()
            assert answer.headers["cache-control"] == "no-store"
        async with http.get(url, headers={"Accept-Encoding": "identity"}) as answer:
            plain = await answer.read()
            assert "content-encoding" not in answer.headers
    assert gzip.decompress(packed) == plain
    assert len(packed) < 5_000 < len(plain)


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_a_new_try_after_a_failed_one_is_waited_for(house: House) -> None:
    """The payment has failed and is tried again: not final, and the gateway is asked while somebody waits."""
    payment = await open_link(house)
    set_status(house.world, payment, "failed")
    assert (await get(house, payment, "/status")).json["final"] is True
    await post(house, payment, way="paynow.ecocash", phone=PHONE)
    due = "SELECT next_check_at FROM attempts WHERE payment_id = %s"
    house.world.rows_do(
        "UPDATE attempts SET next_check_at = now() + interval '1 hour' WHERE payment_id = %s", payment["id"]
    )
    told = (await get(house, payment, "/status")).json
    assert (told["status"], told["final"]) == ("failed", False)
    assert house.world.one(due, payment["id"])["next_check_at"] <= house.world.clock()
    await house.world.sandbox.approve(attempts(house, payment)[0]["reference"])
    house.world.clock.forward(seconds=10)
    assert (await house.payment(payment))["status"] == "paid"


# --- what may still be on a phone

STILL_OPEN = "A request to pay this may still be on a phone."


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_a_request_on_a_phone_is_never_passed_over_in_silence(house: House) -> None:
    """Whatever became of the payment meanwhile: as long as it may be confirmed there, the page says so."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.ecocash", phone=PHONE)
    assert STILL_OPEN not in text_of(await get(house, payment)), "the state itself says it"
    for status in ("cancelled", "expired", "paid"):
        set_status(house.world, payment, status)
        assert STILL_OPEN in text_of(await get(house, payment)), status
    assert STILL_OPEN not in text_of(await get(house, payment, "/receipt"))
    house.world.clock.forward(minutes=6)
    assert STILL_OPEN not in text_of(await get(house, payment)), "it has run out"


async def test_a_refused_second_way_leads_back_to_the_first(house: House) -> None:
    """Named by the way that was refused; the request on the phone is still there, and so is its page."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.onemoney", phone="0712 345 678", after=0)
    house.world.clock.forward(seconds=10)
    answer = await post(house, payment, way="paynow.ecocash", phone="0774444444", after=1)
    assert answer.status == 409
    assert "EcoCash reported this. You have not been charged" in text_of(answer)
    assert STILL_OPEN in text_of(answer)
    assert "on 071 234 5678" in text_of(await get(house, payment))


async def test_nothing_is_said_of_charges_that_nobody_knows_of(house: House) -> None:
    """The credentials are gone, and the customer may have paid at the gateway already: no word of `not charged`."""
    payment = await open_link(house, gateway="paynow")
    await house.call("PATCH", house.path("/payment-settings"), {"paynow_integration_key": None})
    house.world.rows_do("UPDATE attempts SET redirect_url = NULL WHERE payment_id = %s", payment["id"])
    answer = await post(house, payment, way="paynow.web", after=1)
    assert answer.status == 409
    assert "not been charged" not in text_of(answer)


async def test_the_way_back_to_the_gateways_page_knows_the_tries(house: House) -> None:
    """An old tab, from before a prompt was sent: its button leads to the state, and replaces nothing."""
    payment = await open_link(house, gateway="paynow")
    old = (await get(house, payment, "?returned=1")).body.decode()
    assert '<input type="hidden" name="after" value="1">\n<input type="hidden" name="way" value="paynow.web">' in old
    assert (await post(house, payment, way="paynow.ecocash", phone=PHONE, after=1)).status == 303
    answer = await post(house, payment, way="paynow.web", after=1)
    assert (answer.status, answer.headers["location"]) == (303, token_of(payment))
    assert [row["state"] for row in attempts(house, payment)] == ["replaced", "live"]


async def test_a_gateway_that_does_not_say_is_asked_again_before_another_way_is_started(house: House) -> None:
    """409 in plain words, and the choice is there for a moment later."""
    payment = await open_link(house)
    await post(house, payment, way="paynow.ecocash", phone=PHONE)
    fault = house.world.sandbox.add_fault("error500", on=["poll"])
    answer = await post(house, payment, way="paynow.onemoney", phone=PHONE, after=1)
    assert answer.status == 409
    assert "Paynow has not told us yet what became of your last try" in text_of(answer)
    assert b'data-watch="end"' in answer.body
    house.world.sandbox.faults.remove(fault)
    house.world.clock.forward(seconds=2)
    assert (await post(house, payment, way="paynow.onemoney", phone=PHONE, after=1)).status == 303
