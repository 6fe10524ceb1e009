"""The hosted pay page as a customer's browser meets it: every state, and that looking at it does nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import itertools
import json
import re
import string
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from payments_service.app import public_app
from payments_service.checkout import STUCK
from payments_service.db import Database
from payments_service.endings import PROMPT_LIFE
from payments_service.gateways.base import ApproveOnPhone, EnterOtp, NextStep, Redirect, ShowCode
from payments_service.lifecycle import Status
from payments_service.public.states import CHOICES, RECEIPTS, REFRESHES, Visit, state_of, watch
from payments_service.public.texts import ENGLISH, State
from payments_service.public.view import clock_time
from tests.house import Answer, House, World, eventually
from tests.servers import serve

TOKENS_OF_NOBODY = [
    "A" * 27,
    "A" * 64,
    "short",
    "%00" * 27,
    "A" * 26 + "%00",
    "%F0%9F%92%B0" * 27,
    "%FF" * 27,
    "A" * 5000,
    "..%2F..%2Fetc%2Fpasswd-AAAAAAAAAA",
    "'%20OR%20''='" + "A" * 22,
]


@pytest.fixture
async def house(world: World) -> AsyncIterator[House]:
    """The service without workers: nothing moves but by what a test does."""
    async with House.open(world, work=False) as service:
        yield service


def token_of(payment: Any) -> str:
    return str(payment["page_url"].rsplit("/", 1)[1])


async def page_of(house: House, payment: Any, query: str = "", **more: Any) -> Answer:
    return await house.get_public(f"/pay/{token_of(payment)}{query}", **more)


def text_of(answer: Answer) -> str:
    """What a person reads of the page."""
    body = re.sub(r"<(style|title|svg)\b.*?</\1>", "", answer.body.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def dump(world: World) -> str:
    """Everything in the database that a visit could change."""
    tables = ("payments", "attempts", "transitions", "events", "callbacks", "reviews", "payment_settings")
    return str([world.rows(f"SELECT * FROM {table} ORDER BY 1") for table in tables])


def set_status(world: World, payment: Any, status: str, **more: object) -> None:
    """Put the payment into a state as the story would have, without telling the whole story."""
    changes = {"status": status, **more}
    columns = ", ".join(f"{name} = %s" for name in changes)
    world.rows_do(f"UPDATE payments SET {columns} WHERE id = %s", *changes.values(), payment["id"])


async def open_link(house: House, **changes: object) -> Any:
    """A link whose customer chooses the gateway: no attempt exists yet."""
    await house.save_paynow()
    return await house.create_link(gateway=None, **changes)


async def test_the_page_says_whom_how_much_and_what_for(house: House) -> None:
    """Payee first, amount, description, reference, deadline, and one button that works without a script."""
    await house.save_paynow()
    payment = await house.create_link(amount_cents=125_000)
    answer = await page_of(house, payment)
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    text = text_of(answer)
    for words in ("Acme Hardware", "USD 1,250.00", "Two bags of cement", "INV-1001", "Not paid yet"):
        assert words in text
    assert clock_time(datetime.fromisoformat(payment["expires_at"])) in text
    body = answer.body.decode()
    assert '<html lang="en">' in body
    assert f'<form method="post" action="{token_of(payment)}" class="ways">' in body
    assert "<button>Pay with Paynow</button>" in body
    assert 'aria-live="polite"' in body
    assert "http-equiv" not in body
    assert text.index("Acme Hardware") < text.index("USD")


async def test_the_page_is_small_and_brings_nothing_foreign(house: House) -> None:
    """One request, far below 15 kB also where nothing is packed, no address but its own (and that of the picture for
    chats, which no browser loads); its style and script are those that the policy allows."""
    payment = await open_link(house)
    answer = await page_of(house, payment, headers={"Accept-Encoding": "identity"})
    body = answer.body.decode()
    assert len(answer.body) < 12_000
    shown = re.sub(r"<meta property=.*?>", "", body)
    assert not re.search(r"https?:|//|<link|<img|url\(|@import|style=|<script .|onclick", shown)
    policy = answer.headers["content-security-policy"]
    for kind in ("style", "script"):
        (content,) = re.findall(rf"<{kind}>(.*?)</{kind}>", body, flags=re.DOTALL)
        allowed = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{allowed}'" in policy
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    assert f"form-action 'self' {house.world.sandbox.public_url}" in policy
    assert answer.headers["cache-control"] == "no-store"


async def test_the_page_shows_no_personal_data(house: House) -> None:
    """Whoever is sent the link on sees no address or id of the customer; their number only where it has to be typed,
    and not in what a chat shows."""
    person = {"contact_email": "tendai@example.com", "contact_phone": "+263778899001", "contact_id": str(uuid4())}
    payment = await open_link(house, **person)
    for query in ("", "?returned=1", "?choose=1"):
        body = (await page_of(house, payment, query)).body.decode()
        for value in (person["contact_email"], person["contact_id"], str(payment["client_id"])):
            assert value not in body
        assert body.count("9001") == body.count('name="phone"') == body.count('value="077 889 9001"') == 1
        assert "889" not in "".join(re.findall(r"<meta property=.*?>", body))


async def test_what_the_tenant_writes_is_text_and_never_markup(house: House) -> None:
    """Name, description and reference are escaped, also in the title."""
    await house.save_paynow()
    nasty = "<script>alert(1)</script>\"'&"
    saved = await house.call("PATCH", house.path("/payment-settings"), {"display_name": nasty})
    assert saved.status == 200
    payment = await house.create_link(gateway=None, description=nasty, reference="{{ 7*7 }}<b>")
    answer = await page_of(house, payment)
    body = answer.body.decode()
    assert "<script>alert" not in body
    assert "<b>{{" not in body
    assert "{{ 7*7 }}" in body
    assert nasty in text_of(answer)


async def test_a_tenant_without_a_name_has_a_neutral_page(house: House) -> None:
    """No name is made up."""
    await house.save_paynow()
    await house.call("PATCH", house.path("/payment-settings"), {"display_name": None})
    payment = await house.create_link(gateway=None, description=None)
    text = text_of(await page_of(house, payment))
    assert text.startswith("Payment request Amount: USD 12.50 Not paid yet")
    assert "None" not in text


async def test_looking_changes_nothing(house: House) -> None:
    """Chat previews fetch the page: no attempt, no gateway call, no change, however often and by whatever method."""
    links = [await open_link(house, reference=f"INV-{number}") for number in range(5)]
    links.append(await house.create_link())
    before, calls = dump(house.world), dict(house.world.sandbox.calls)
    agents = ("WhatsApp/2.23.20.0", "facebookexternalhit/1.1", "TelegramBot (like TwitterBot)", "curl/8", "")
    for link in links:
        for agent in agents:
            for method in ("GET", "HEAD"):
                answer = await page_of(house, link, method=method, headers={"User-Agent": agent})
                assert answer.status == 200
        for query in ("?status=paid", "?paid=1&n=3", "?returned=2", "?returned=", "?n=999"):
            assert "Not paid yet" in text_of(await page_of(house, link, query))
        await page_of(house, link, "?returned=1", method="HEAD")
        await page_of(house, link, "/status", method="HEAD")
    assert dump(house.world) == before
    assert dict(house.world.sandbox.calls) == calls


async def test_the_button_goes_on_to_the_gateway(house: House) -> None:
    """POST answers 303 to the gateway's own page; a second press goes on with the same attempt."""
    payment = await open_link(house)
    first = await page_of(house, payment, method="POST")
    assert first.status == 303
    assert first.headers["location"].startswith(house.world.sandbox.public_url + "/")
    again = await page_of(house, payment, method="POST", data=b"status=paid&amount=1")
    assert again.headers["location"] == first.headers["location"]
    assert len(house.world.rows("SELECT FROM attempts")) == 1
    assert house.world.one("SELECT status FROM payments")["status"] == "pending"


async def test_twenty_taps_at_once_start_one_attempt(house: House) -> None:
    """Each tap lands at the gateway or back on the page; the gateway is asked once."""
    payment = await open_link(house)
    answers = await asyncio.gather(*(page_of(house, payment, method="POST") for _ in range(20)))
    assert {answer.status for answer in answers} == {303}
    page, gateway = token_of(payment), house.world.sandbox.public_url
    assert all(to == page or to.startswith(gateway) for to in (answer.headers["location"] for answer in answers))
    assert len(house.world.rows("SELECT FROM attempts")) == 1
    assert house.world.sandbox.calls["initiate"] == 1


async def test_coming_back_waits_for_the_proof(house: House) -> None:
    """`returned=1` asks the gateway soon and shows that we wait; nothing in the address makes it paid."""
    await house.save_paynow()
    payment = await house.create_link()
    due = "SELECT next_check_at FROM attempts"
    house.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '1 hour'")
    await page_of(house, payment)
    assert house.world.one(due)["next_check_at"] > datetime.now(UTC)
    answer = await page_of(house, payment, "?returned=1&status=paid")
    assert house.world.one(due)["next_check_at"] <= datetime.now(UTC)
    body = answer.body.decode()
    assert "Waiting for confirmation" in body
    assert f'<meta http-equiv="refresh" content="5;url={token_of(payment)}?returned=1&amp;n=1">' in body
    assert "Not paid yet? Go on to Paynow" in text_of(answer)
    assert house.world.one("SELECT status FROM payments")["status"] == "pending"


async def test_the_page_stops_refreshing_itself(house: House) -> None:
    """The counter goes up to its limit and no further; then the customer asks by a link."""
    await house.save_paynow()
    payment = await house.create_link()
    near = (await page_of(house, payment, f"?returned=1&n={REFRESHES - 1}")).body.decode()
    assert f"n={REFRESHES}" in near
    for turn in (REFRESHES, 999):
        answer = await page_of(house, payment, f"?returned=1&n={turn}")
        assert b"http-equiv" not in answer.body
        assert "Not confirmed yet" in text_of(answer)
        assert f'<a href="{token_of(payment)}?returned=1">Check again</a>' in answer.body.decode()
    for nonsense in ("-1", "x", "%00", "1e9", "9" * 5000, "%D9%A3"):
        assert b"n=1" in (await page_of(house, payment, f"?returned=1&n={nonsense}")).body


async def test_the_receipt_shows_what_was_paid(world: World) -> None:
    """From the link to the receipt, with the workers at work: the page that waits becomes the receipt."""
    async with House.open(world) as house:
        await house.save_paynow()
        payment = await house.create_link()
        world.sandbox.add_fault("never")
        await page_of(house, payment, method="POST")
        await world.sandbox.pay(house.reference_of(payment))

        async def paid() -> Answer | None:
            answer = await page_of(house, payment, "?returned=1")
            return answer if b"This is your receipt" in answer.body else None

        answer = await eventually(paid)
    row = world.one("SELECT * FROM payments")
    text = text_of(answer)
    for words in ("Paid to Acme Hardware", "USD 12.50", "INV-1001", "Paynow", row["gateway_reference"], str(row["id"])):
        assert words in text
    assert clock_time(row["paid_at"]) in text
    assert b"<form" not in answer.body
    assert b"http-equiv" not in answer.body


def test_times_are_those_of_harare() -> None:
    """Two hours ahead of UTC, over midnight too, with the offset written out."""
    assert clock_time(datetime(2026, 11, 24, 12, 5, tzinfo=UTC)) == "24 November 2026, 14:05 (Harare, UTC+2)"
    assert clock_time(datetime(2026, 12, 31, 22, 30, tzinfo=UTC)) == "1 January 2027, 00:30 (Harare, UTC+2)"


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_every_status_has_its_page(house: House) -> None:
    """Plain words for each, a button only where paying is possible, and the same in JSON."""
    payment = await open_link(house)
    for status in Status:
        await check_page_of(house, payment, status)


async def check_page_of(house: House, payment: Any, status: Status) -> None:
    received = status in (Status.PAID, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.DISPUTED)
    paid_at = datetime.now(UTC) if received else None
    refunded = {Status.PARTIALLY_REFUNDED: 250, Status.REFUNDED: 1250}.get(status, 0)
    set_status(house.world, payment, status, paid_at=paid_at, refunded_cents=refunded)
    answer = await page_of(house, payment)
    assert answer.status == 200
    state = State.READY if status is Status.PENDING else State(status.value)
    assert ENGLISH.states[state].title in text_of(answer)
    assert (b"<form" in answer.body) is (status in (Status.PENDING, Status.FAILED))
    assert ("Payment number" in text_of(answer)) is received
    assert ("Refunded USD" in text_of(answer)) is (refunded > 0)
    told = await page_of(house, payment, "/status")
    assert told.json == {
        "status": status,
        "paid": status in (Status.PAID, Status.PARTIALLY_REFUNDED),
        "final": status is not Status.PENDING,
        "version": f"{state}.0.0.0",
    }


def test_every_text_can_be_said() -> None:
    """Every state has words, and no text names what the page cannot fill in."""
    known = {"payee", "gateway", "account", "amount", "refunded", "expires", "phone", "day", "month", "year", "time"}
    known |= {"reference", "left", "what", "method", "dial"}
    assert set(ENGLISH.states) == set(State)
    texts = [text for words in ENGLISH.states.values() for text in (words.title, words.meaning)]
    for text in (*texts, *ENGLISH.labels.values()):
        assert {name for _, name, _, _ in string.Formatter().parse(text) if name} <= known
    assert len(ENGLISH.months) == 12
    for state in (State.NOT_FOUND, State.UNAVAILABLE):
        assert "{" not in ENGLISH.states[state].title


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_a_failed_payment_can_be_tried_again(house: House) -> None:
    """The same link, a new attempt."""
    await house.save_paynow()
    payment = await house.create_link()
    house.world.rows_do("UPDATE attempts SET state = 'failed', next_check_at = NULL")
    set_status(house.world, payment, "failed")
    answer = await page_of(house, payment)
    assert "The payment did not go through" in text_of(answer)
    assert b"Try again with Paynow</button>" in answer.body
    again = await page_of(house, payment, method="POST")
    assert again.headers["location"].startswith(house.world.sandbox.public_url)
    assert len(house.world.rows("SELECT FROM attempts")) == 2


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_what_is_over_cannot_be_paid(house: House) -> None:
    """A POST only leads back to the page."""
    payment = await open_link(house)
    for status in set(Status) - {Status.PENDING, Status.FAILED}:
        set_status(house.world, payment, status)
        before = dump(house.world)
        answer = await page_of(house, payment, method="POST")
        assert (answer.status, answer.headers["location"]) == (303, token_of(payment)), status
        assert dump(house.world) == before, status


async def test_a_link_whose_time_is_over_cannot_be_paid(house: House) -> None:
    """Also before the worker has closed it; who has just paid is still told what became of it."""
    await house.save_paynow()
    payment = await house.create_link()
    set_status(house.world, payment, "pending", expires_at=datetime.now(UTC))
    answer = await page_of(house, payment)
    assert "This link has expired" in text_of(answer)
    assert b"<button" not in answer.body
    assert b"?returned=1" in answer.body
    back = await page_of(house, payment, "?returned=1")
    assert "Waiting for confirmation" in text_of(back)
    assert b"<button" not in back.body
    posted = await page_of(house, payment, method="POST")
    assert (posted.status, posted.headers["location"]) == (303, token_of(payment))


async def test_without_a_gateway_the_customer_is_told_so(house: House) -> None:
    """The credentials were taken away after the link was made."""
    payment = await open_link(house)
    await house.call("PATCH", house.path("/payment-settings"), {"paynow_integration_key": None})
    answer = await page_of(house, payment, method="POST")
    assert answer.status == 409
    assert "Please tell Acme Hardware: the way to pay has to be set up again." in text_of(answer)
    assert b"<button" not in answer.body
    assert house.world.rows("SELECT FROM attempts") == []


async def test_a_refusal_says_that_nothing_was_charged(house: House) -> None:
    """The gateway said no: an honest page, without the gateway's words for the tenant, and another try."""
    payment = await open_link(house)
    await house.call("PATCH", house.path("/payment-settings"), {"paynow_integration_key": str(uuid4())})
    answer = await page_of(house, payment, method="POST")
    assert answer.status == 409
    text = text_of(answer)
    assert "The payment could not be started" in text
    assert "You have not been charged" in text
    assert "integration" not in text
    assert "Not paid yet" in text_of(await page_of(house, payment))
    await house.save_paynow()
    assert (await page_of(house, payment, method="POST")).headers["location"].startswith("http")


async def test_a_gateway_out_of_reach_says_that_nothing_was_charged(house: House) -> None:
    """The call never left: wait and try again."""
    payment = await open_link(house)
    paynow: Any = house.world.context.gateways["paynow"]
    paynow._base = "http://127.0.0.1:1"
    answer = await page_of(house, payment, method="POST")
    assert answer.status == 409
    assert "Paynow cannot be reached right now" in text_of(answer)
    assert "You have not been charged" in text_of(answer)
    assert b"Try again with Paynow</button>" in answer.body


@pytest.mark.parametrize("fault", ["html", "error500", "wrong_hash", "redirect"])
async def test_a_lost_answer_promises_nothing(house: House, fault: str) -> None:
    """It may have started: the page says that we are asking, looks again by itself, and starts nothing more."""
    payment = await open_link(house)
    house.world.sandbox.add_fault(fault, on=["initiate"], times=1)
    answer = await page_of(house, payment, method="POST")
    assert (answer.status, answer.headers["location"]) == (303, token_of(payment))
    shown = await page_of(house, payment)
    text = text_of(shown)
    assert "We are asking Paynow" in text
    assert "charged" not in text
    assert b'http-equiv="refresh"' in shown.body
    assert b"<button" not in shown.body
    again = await page_of(house, payment, method="POST")
    assert (again.status, again.headers["location"]) == (303, token_of(payment))
    assert house.world.sandbox.calls["initiate"] == 1


async def test_an_unknown_link_is_answered_alike_everywhere(house: House) -> None:
    """Never made, purged, or no token at all: the same page, the same JSON, and never a 5xx."""
    gone = await open_link(house)
    house.world.rows_do("DELETE FROM events")
    house.world.rows_do("ALTER TABLE transitions DISABLE TRIGGER USER")
    house.world.rows_do("DELETE FROM transitions")
    house.world.rows_do("DELETE FROM payments")
    expected = await house.get_public(f"/pay/{token_of(gone)}")
    assert expected.status == 404
    assert "There is no payment at this address" in text_of(expected)
    assert "Acme" not in text_of(expected)
    for token in TOKENS_OF_NOBODY:
        for method in ("GET", "POST"):
            answer = await house.get_public(f"/pay/{token}", method=method)
            # A slash within makes it another address, which is as absent.
            assert answer.status == 404, token
            if "%2F" not in token:
                assert answer.body == expected.body, token
        told = await house.get_public(f"/pay/{token}/status")
        assert told.status == 404, token
        assert told.headers["content-type"] == "application/problem+json"


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_the_status_asks_the_gateway_while_somebody_waits(house: House) -> None:
    """Pending with an open attempt: looked up soon. Without one, or settled: not."""
    await house.save_paynow()
    payment = await house.create_link()
    house.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '1 hour'")
    answer = await page_of(house, payment, "/status")
    assert answer.json == {"status": "pending", "paid": False, "final": False, "version": "waiting.1.0.0"}
    assert house.world.one("SELECT next_check_at FROM attempts")["next_check_at"] <= datetime.now(UTC)
    house.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '1 hour'")
    set_status(house.world, payment, "paid")
    assert (await page_of(house, payment, "/status")).json["paid"] is True
    assert house.world.one("SELECT next_check_at FROM attempts")["next_check_at"] > datetime.now(UTC)


async def test_without_the_database_the_page_says_so(world: World) -> None:
    """503 with Retry-After in plain words: the one fault that is ours. Unknown tokens need no database at all."""
    away = Database("postgresql://postgres@127.0.0.1:1/nothing", wait_seconds=0.3)
    await away.open()
    try:
        async with (
            serve(public_app(replace(world.context, db=away)), lifespan="off") as url,
            House.open(world, work=False) as house,
        ):
            house.public = url
            for method in ("GET", "POST"):
                answer = await house.get_public(f"/pay/{'A' * 27}", method=method)
                assert answer.status == 503
                assert answer.headers["retry-after"]
                assert "We cannot show this payment right now" in text_of(answer)
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            told = await house.get_public(f"/pay/{'A' * 27}/status")
            assert told.status == 503
            assert json.loads(told.body)["code"] == "unavailable"
            assert (await house.get_public("/pay/x")).status == 404
    finally:
        await away.close()


STEPS: tuple[NextStep | None, ...] = (
    None,
    Redirect("https://gateway.example/pay"),
    ApproveOnPhone(),
    ShowCode("701285660"),
    ShowCode("701285660", datetime(2026, 11, 23, tzinfo=UTC)),
    EnterOtp("https://gateway.example/otp"),
    EnterOtp("https://gateway.example/otp", tries=5),
    EnterOtp("https://gateway.example/otp", tries=5, awaiting_since=datetime(2026, 11, 23, tzinfo=UTC)),
)


def test_only_a_proved_payment_looks_paid() -> None:
    """The whole product of what the page stands on: paid is shown for paid, and a wait always ends."""
    both = (False, True)
    for status, turn, returned, choosing, expired, old, attempt, step in itertools.product(
        Status, (0, REFRESHES), both, both, both, both, (None, "starting", "live", "failed"), STEPS
    ):
        visit = Visit("t", returned=returned, choosing=choosing, turn=turn)
        check_state(status, visit, expired, old, attempt, step)


def check_state(
    status: Status, visit: Visit, expired: bool, old: bool, attempt: str | None, step: NextStep | None
) -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    row: Any = {
        "status": status.value,
        "attempt_state": attempt,
        "attempt_started_at": now - (2 * STUCK if old else PROMPT_LIFE / 2),
        "attempt_answered_at": now - PROMPT_LIFE,
        "attempt_next_step": msgspec.to_builtins(step),
        "expires_at": datetime(2026, 11, 23 if expired else 25, tzinfo=UTC),
    }
    # A try that is not live has no next step (`attempts.step_of`).
    state = state_of(row, step if attempt == "live" else None, now, visit)
    if status not in (Status.PENDING, Status.FAILED):
        assert state == status.value
    else:
        assert state not in RECEIPTS
        # What can no longer be paid asks for nothing that would start a payment.
        assert not (expired and state in CHOICES | {State.STARTING, State.OTP})
        assert not (old and state is State.STARTING), "no link is blocked for long"
        assert not (old and isinstance(step, ApproveOnPhone) and state is State.PROMPTED)
    if visit.refresh(state):
        assert visit.turn < REFRESHES
        assert attempt is not None
        assert state not in CHOICES, "somebody may be typing"
    lapsed = attempt == "failed" and isinstance(step, ShowCode) and status is Status.PENDING and not expired
    assert (state is State.CODE_LAPSED) is lapsed
    if state in (State.WAITING, State.PROMPTED, State.CODE, State.OTP, State.STARTING):
        assert watch(state)
