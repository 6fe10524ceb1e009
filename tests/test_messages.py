"""The pay link goes to the customer by WhatsApp: sent, told of, sent again within limits, never after it is paid."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_service import payments
from payments_service.errors import Invalid
from payments_service.messages import postings
from payments_service.money import Currency, Money
from payments_service.wording import PATTERN, fault_of, link_text
from tests.house import House
from tests.messaging import (
    OWN_ID,
    OWN_TOKEN,
    PHONE,
    PLATFORM_ID,
    copies,
    due_in,
    link,
    message_of,
    messages,
    open_messages,
    own_number,
    quiet,
    send,
    told,
    work,
    work_after,
    written,
)

DAY, WEEK = 86_400, 604_800


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_messages(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = await quiet(service)
    await house.save_paynow()
    return house


# --- with the link's creation


async def test_a_link_is_sent_with_its_creation(house: House) -> None:
    """The template with payee, amount, reference and the button's token; told as sent and delivered."""
    payment = await link(house, contact_phone="077 123 4567")
    assert [each["state"] for each in await messages(house, payment)] == ["queued"]
    assert await work(house) == 1
    (sent,) = house.world.whatsapp.messages
    assert (sent.draft.to, sent.draft.link) == (PHONE, payment["page_url"])
    for part in ("Acme Hardware", "USD 12.50", "INV-1001"):
        assert part in sent.draft.text
    (message,) = await messages(house, payment)
    assert (message["state"], message["to"], message["form"]) == ("delivered", PHONE, "template")
    assert told(house, message["id"]) == ["sent", "delivered"]
    assert await work_after(house, DAY) == 0


async def test_a_tenant_without_a_name_is_the_seller(house: House) -> None:
    """The template needs a payee: never an empty place, which reads like a fraud."""
    assert (await house.call("PATCH", house.path("/payment-settings"), {"display_name": None})).status == 200
    await link(house)
    await work(house)
    assert house.world.whatsapp.messages[-1].draft.text.startswith("The seller ")


async def test_an_event_tells_of_the_message_and_of_its_payment(house: House) -> None:
    """No step of the payment: `sequence` stays. The number it goes to is not in it, but for the payment's own link."""
    payment = await link(house, contact_phone=None, send=None)
    assert (await send(house, payment, to=PHONE)).status == 202
    await work(house)
    message = message_of(house, payment)
    events = house.world.rows("SELECT * FROM events WHERE message_id = %s ORDER BY created_at", message["id"])
    for event, kind in zip(events, ("sent", "delivered"), strict=True):
        body = msgspec.json.decode(event["body"])
        assert body["type"] == event["type"] == f"message.{kind}"
        assert body["data"]["message"] == {
            "id": str(message["id"]),
            "channel": "whatsapp",
            "kind": "link",
            "form": "template",
            "state": kind,
            "code": None,
            "detail": None,
        }
        assert (body["data"]["id"], body["data"]["sequence"], event["sequence"]) == (payment["id"], 1, 1)
        assert "771234567" not in event["body"]


@pytest.mark.parametrize(
    ("phone", "field"),
    [
        (None, "contact_phone"),
        ("12345678", "contact_phone"),
        ("0771 23", "contact_phone"),
        ("+999123456", "contact_phone"),
    ],
)
async def test_a_wrong_number_is_told_before_anything_is_written(house: House, phone: Any, field: str) -> None:
    answer = await house.call(
        "POST", house.path("/payments/create-link"), house.order(send="whatsapp", contact_phone=phone)
    )
    assert (answer.status, [each["field"] for each in answer.json["errors"]]) == (422, [field])
    assert written(house) == []
    assert not house.world.sandbox.calls


@pytest.mark.parametrize("phone", ["+27821234567", "+447911123456", "0242 700 000"])
async def test_every_number_that_exists_may_be_on_whatsapp(house: House, phone: str) -> None:
    """A customer abroad, and a shop that has WhatsApp on its landline."""
    payment = await link(house, contact_phone=phone)
    await work(house)
    assert message_of(house, payment)["state"] == "delivered"


async def test_without_send_nothing_is_sent(house: House) -> None:
    payment = await house.create_link(contact_phone=PHONE)
    assert await messages(house, payment) == []
    assert await work(house) == 0


async def test_no_link_no_message(house: House) -> None:
    """The gateway refuses, and whoever asked was told so: the customer gets no link to what the backend gave up."""
    house.world.sandbox.integrations["1201"].active = False
    try:
        order = house.order(send="whatsapp", contact_phone=PHONE, reminders=True)
        answer = await house.call("POST", house.path("/payments/create-link"), order)
    finally:
        house.world.sandbox.integrations["1201"].active = True
    assert (answer.status, answer.json["code"]) == (422, "gateway_refused")
    await work(house)
    await work_after(house, WEEK - DAY + 60)
    assert house.world.whatsapp.calls["send"] == 0
    rows = house.world.rows("SELECT state, next_try_at FROM messages WHERE client_id = %s", house.client_id)
    assert rows == [{"state": "withdrawn", "next_try_at": None}] * 2


async def test_a_refused_link_may_still_be_sent_by_hand(house: House) -> None:
    """The page still takes the other ways to pay: who asks for it gets it."""
    house.world.sandbox.integrations["1201"].active = False
    await house.call("POST", house.path("/payments/create-link"), house.order(contact_phone=PHONE))
    house.world.sandbox.integrations["1201"].active = True
    (payment,) = house.world.rows("SELECT id::text FROM payments WHERE client_id = %s", house.client_id)
    assert (await send(house, payment)).status == 202
    await work(house)
    assert message_of(house, payment)["state"] == "delivered"


async def test_a_link_that_is_not_sure_yet_waits(house: House) -> None:
    """504, the payment is pending: the message goes when a look-up has found the link, and not before."""
    world = house.world
    world.sandbox.add_fault("html", on=["initiate"], times=1)
    order = house.order(send="whatsapp", contact_phone=PHONE)
    answer = await house.call("POST", house.path("/payments/create-link"), order)
    assert answer.status == 504
    assert await work(house) == 0
    (payment,) = world.rows("SELECT id::text FROM payments WHERE client_id = %s", house.client_id)
    world.clock.forward(seconds=10)
    await world.look_up("paynow")
    assert (await house.payment({**payment, "client_id": house.client_id}))["status"] == "pending"
    await work(house)
    assert message_of(house, payment)["state"] == "delivered"


async def test_one_key_makes_one_message(house: House) -> None:
    order = house.order(gateway=None, send="whatsapp", contact_phone=PHONE)
    path, headers = house.path("/payments/create-link"), {"Idempotency-Key": "once"}
    for _ in range(3):
        assert (await house.call("POST", path, order, headers=headers)).status == 201
    await work(house)
    assert house.world.whatsapp.calls["send"] == 1


# --- sent by hand


async def test_it_is_sent_again_to_whom_it_is_wished(house: House) -> None:
    """202, with all messages of the payment; who asked stands in the audit log, the number does not."""
    payment = await link(house)
    house.world.clock.forward(minutes=2)
    answer = await send(house, payment, to="078 222 3333", headers={"X-Actor": "thandi"})
    assert answer.status == 202
    assert [each["to"] for each in answer.json["messages"]] == [PHONE, "+263782223333"]
    assert answer.json["id"] == payment["id"]
    await work(house)
    assert sorted(each.draft.to for each in house.world.whatsapp.messages) == [PHONE, "+263782223333"]
    audit = (await house.call("GET", house.path("/audit-logs"))).json["data"]
    (entry,) = [each for each in audit if each["action"] == "message.requested"]
    assert entry["actor"] == "thandi"
    assert "222" not in str({**entry, "id": "", "hash": "", "previous_hash": "", "detail": None})


@pytest.mark.parametrize(
    "body",
    [
        {"to": "12345678"},
        {"to": ""},
        {"to": "CALL-ME"},
        {"to": 771234567},
        {"to": "0" * 33},
        {"channel": "sms"},
        {"form": "image"},
        {"to": "077 123\x004567", "channel": None},
    ],
)
async def test_a_wrong_wish_is_told_before_anything_is_written(house: House, body: dict[str, object]) -> None:
    payment = await link(house, send=None)
    answer = await send(house, payment, **body)
    assert (answer.status, answer.json["code"]) == (422, "validation_failed")
    assert await messages(house, payment) == []


async def test_without_any_number_one_is_asked_for(house: House) -> None:
    payment = await link(house, send=None, contact_phone=None)
    answer = await send(house, payment)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "to")


async def test_not_twice_within_a_minute_not_six_times_a_day(house: House) -> None:
    """429 with the seconds until it goes again; the limits are the payment's, and the reminder counts for nothing."""
    payment = await link(house, reminders=True)
    world = house.world
    await work(house)
    answer = await send(house, payment)
    assert answer.status == 429
    assert 55 <= int(answer.headers["Retry-After"]) <= 61
    for _ in range(4):
        world.clock.forward(seconds=61)
        assert (await send(house, payment)).status == 202
        await work(house)
    world.clock.forward(seconds=61)
    answer = await send(house, payment)
    assert answer.status == 429
    wait = int(answer.headers["Retry-After"])
    assert DAY - 400 < wait <= DAY
    assert (await send(house, await link(house, send=None))).status == 202
    world.clock.forward(seconds=wait - 2)
    assert (await send(house, payment)).status == 429
    world.clock.forward(seconds=3)
    assert (await send(house, payment)).status == 202


async def test_not_while_the_last_one_is_on_its_way(house: House) -> None:
    """WhatsApp is out of reach: those that wait would all arrive together. Another number may have it."""
    house.world.whatsapp.add_fault("error_130429", times=1)
    payment = await link(house)
    await work(house)
    wait = due_in(house, message_of(house, payment)["id"])
    house.world.clock.forward(seconds=wait - 1)
    answer = await send(house, payment)
    assert (answer.status, int(answer.headers["Retry-After"])) == (429, 1)
    house.world.clock.forward(minutes=5)
    assert (await send(house, payment)).status == 429
    assert (await send(house, payment, to="0782223333")).status == 202
    await work(house)
    house.world.clock.forward(minutes=5)
    assert (await send(house, payment)).status == 202
    await work(house)
    assert len(house.world.whatsapp.messages) == 3


async def test_of_many_wishes_at_once_one_is_granted(house: House) -> None:
    payment = await link(house, send=None)
    answers = await asyncio.gather(*(send(house, payment) for _ in range(12)))
    assert sorted(answer.status for answer in answers) == [202] + [429] * 11
    await work(house)
    assert house.world.whatsapp.calls["send"] == 1


async def test_what_is_over_is_not_sent(house: House) -> None:
    """409 for a link that is paid, cancelled or expired."""
    world = house.world
    paid = await house.create_link(contact_phone=PHONE)
    await world.sandbox.pay(house.reference_of(paid))
    world.clock.forward(seconds=10)
    await world.look_up("paynow")
    cancelled = await link(house, send=None)
    assert (await house.call("POST", house.path(f"/payments/{cancelled['id']}/cancel"))).status == 200
    short = await link(house, send=None, expires_in=60)
    world.clock.forward(seconds=61)
    words = []
    for payment in (paid, cancelled, short):
        answer = await send(house, payment)
        assert (answer.status, answer.json["code"]) == (409, "wrong_state")
        words.append(answer.json["detail"].partition("; ")[2])
        assert await messages(house, payment) == []
    assert words == ["it is paid.", "it is cancelled.", "its link has expired."]


async def test_another_tenants_payment_is_none(house: House) -> None:
    """The same answer as for an id that there is not, whether it has a message or not."""
    payment = await link(house)
    stranger = uuid4()
    await house.save_paynow(stranger)
    answers = [
        await house.call("POST", house.path(f"/payments/{one}/send", stranger), {"channel": "whatsapp", "to": PHONE})
        for one in (payment["id"], uuid4())
    ]
    assert [answer.status for answer in answers] == [404, 404]
    first, second = (
        {k: v for k, v in answer.json.items() if k not in ("request_id", "instance")} for answer in answers
    )
    assert first == second
    assert len(await messages(house, payment)) == 1


async def test_a_wish_that_is_repeated_under_its_key_is_one(house: House) -> None:
    payment = await link(house, send=None)
    answers = [await send(house, payment, headers={"Idempotency-Key": "again"}) for _ in range(3)]
    assert [answer.status for answer in answers] == [202] * 3
    assert len({answer.body for answer in answers}) == 1
    assert answers[2].headers["Idempotent-Replayed"] == "true"
    house.world.clock.forward(minutes=2)
    other = await send(house, payment, to="0782223333", headers={"Idempotency-Key": "again"})
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    assert len(await messages(house, payment)) == 1


async def test_a_wish_whose_answer_was_lost_is_not_granted_twice(house: House) -> None:
    """The key leads to the message from the moment that there is one, also past the minute."""
    payment = await link(house, send=None)
    headers = {"Idempotency-Key": "lost"}
    assert (await send(house, payment, headers=headers)).status == 202
    house.world.rows_do("UPDATE idempotency_keys SET status = NULL, body = NULL WHERE client_id = %s", house.client_id)
    house.world.clock.forward(minutes=2)
    answer = await send(house, payment, headers=headers)
    assert (answer.status, len(answer.json["messages"])) == (202, 1)
    assert len(await messages(house, payment)) == 1


# --- the form


@pytest.mark.parametrize("told_by", ["http", "status"])
async def test_a_text_outside_the_window_becomes_the_template(house: House, told_by: Any) -> None:
    """131047, as an answer or as a status of what was accepted: the template goes instead, once."""
    house.world.whatsapp.window_refusal = told_by
    payment = await link(house, send=None)
    assert (await send(house, payment, form="text")).status == 202
    await work(house)
    await work(house)
    message = message_of(house, payment)
    assert (message["form"], message["state"]) == ("template", "delivered")
    sent = copies(house, message["id"])
    assert [(each.draft.kind, each.status) for each in sent][-1] == ("template", "delivered")
    assert [each.draft.kind for each in sent if each.arrived] == ["template"]
    assert told(house, message["id"]) == ["sent", "delivered"]
    assert house.world.whatsapp.calls["send"] == 2


@pytest.mark.parametrize("on", ["send", "outcome"])
async def test_a_template_outside_the_window_is_no_reason_to_go_on(house: House, on: str) -> None:
    house.world.whatsapp.add_fault("error_131047", on=[on])
    payment = await link(house)
    await work(house)
    assert await work_after(house, DAY) == 0
    assert (message_of(house, payment)["state"], house.world.whatsapp.calls["send"]) == ("failed", 1)


async def test_a_text_inside_the_window_goes_as_it_is(house: House) -> None:
    """The words name payee, amount, reference and link."""
    house.world.whatsapp.write(PHONE, PLATFORM_ID, "How can I pay?")
    payment = await link(house, send=None)
    await send(house, payment, form="text")
    await work(house)
    (sent,) = house.world.whatsapp.messages
    words = f"Acme Hardware asks you to pay USD 12.50 for INV-1001: {payment['page_url']}"
    assert (sent.draft.kind, sent.draft.text, sent.draft.link) == ("text", words, payment["page_url"])
    assert (message_of(house, payment)["form"], message_of(house, payment)["state"]) == ("text", "delivered")


async def test_the_tenants_own_words_are_used(house: House) -> None:
    """In the text and in whatsapp_url, at once also for links that were made before."""
    house.world.whatsapp.write(PHONE, PLATFORM_ID, "Hi")
    payment = await link(house, send=None, reference="{link} {payee}")
    text = "Mangwanani! {amount} / {reference} -> {link} {link}"
    answer = await house.call("PATCH", house.path("/payment-settings"), {"whatsapp_text": text})
    assert (answer.status, answer.json["whatsapp_text"]) == (200, text)
    url = payment["page_url"]
    words = f"Mangwanani! USD 12.50 / {{link}} {{payee}} -> {url} {url}"
    assert unquote((await house.payment(payment))["whatsapp_url"]) == f"https://wa.me/263771234567?text={words}"
    await send(house, payment, form="text")
    await work(house)
    assert house.world.whatsapp.messages[-1].draft.text == words


@pytest.mark.parametrize(
    "text",
    [
        "Pay me",
        "{link} {name}",
        "{link} {}",
        "",
        "x" * 500 + "{link}",
        "{link}\x00",
        "{LINK}",
        "{{link}}",
        "{link} {",
        "}{link}",
    ],
)
async def test_words_without_a_link_are_refused(house: House, text: str) -> None:
    answer = await house.call("PATCH", house.path("/payment-settings"), {"whatsapp_text": text})
    assert (answer.status, [each["field"] for each in answer.json["errors"]]) == (422, ["whatsapp_text"])


@given(st.lists(st.sampled_from(["{link}", "{payee}", "{name}", "{", "}", "a", " ", "\n"]), max_size=8).map("".join))
def test_the_description_lets_pass_what_the_service_takes(text: str) -> None:
    """And nothing else: its pattern says the same as the words for people."""
    assert bool(re.search(PATTERN, text)) == (fault_of(text) is None)


def test_places_are_filled_in_one_pass() -> None:
    """What a reference or a name says is not taken for a place."""
    amount = Money(1250, Currency.USD)
    assert link_text("{reference}{payee}:{link}", "{amount}", amount, "{link}", "L") == "{link}{amount}:L"
    assert link_text(None, None, amount, "R", "L") == "Please pay USD 12.50 for R: L"
    assert link_text("{payee}: {link}", None, amount, "R", "L") == "The seller: L"
    assert fault_of("{link}") is None
    assert "{link}" in str(fault_of("{amount}"))


# --- the number that it goes out from


async def test_a_tenants_own_number_is_used(house: House) -> None:
    """With the usual template, where none is named; the platform's for others."""
    await own_number(house)
    other = uuid4()
    await house.save_paynow(other)
    await link(house)
    await house.create_link(other, gateway=None, send="whatsapp", contact_phone="+263772223333")
    await work(house)
    sent = {each.draft.to: (each.sender.phone_number_id, each.draft.template) for each in house.world.whatsapp.messages}
    assert sent == {PHONE: (OWN_ID, "payment_request"), "+263772223333": (PLATFORM_ID, "payment_request")}


async def test_a_tenants_own_template_is_used(house: House) -> None:
    await own_number(house, whatsapp_template="payment_request", whatsapp_template_language="en_GB")
    await link(house)
    await work(house)
    (sent,) = house.world.whatsapp.messages
    assert (sent.draft.language, sent.status) == ("en_GB", "delivered")


async def test_a_template_that_there_is_not_fails_and_stops_nothing(house: House) -> None:
    """132001: a person must act; the next message is tried all the same."""
    await own_number(house, whatsapp_template="reminder")
    payment = await link(house)
    await work(house)
    message = message_of(house, payment)
    assert (message["state"], message["code"]) == ("failed", 132001)
    assert told(house, message["id"]) == ["failed"]
    await own_number(house, whatsapp_template=None)
    await link(house)
    await work(house)
    assert house.world.whatsapp.messages[-1].arrived


async def test_half_a_number_is_none(house: House) -> None:
    """A token without its number: the platform's number is used."""
    await house.call("PATCH", house.path("/payment-settings"), {"whatsapp_access_token": OWN_TOKEN})
    await link(house)
    await work(house)
    assert [each.sender.phone_number_id for each in house.world.whatsapp.messages] == [PLATFORM_ID]


# --- the reminder


def test_the_reminder_comes_a_day_before_the_end_or_in_the_last_quarter() -> None:
    at = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)

    def before(**life: float) -> timedelta:
        end = at + timedelta(**life)
        first, reminder = postings(at, end, reminder=True)
        assert (first.kind, first.due, reminder.kind) == ("link", at, "reminder")
        return end - reminder.due

    assert before(days=7) == before(days=30) == before(days=4) == timedelta(days=1)
    assert before(days=2) == timedelta(hours=12)
    assert before(hours=1) == timedelta(minutes=15)
    with pytest.raises(Invalid):
        postings(at, at + timedelta(minutes=59), reminder=True)
    assert [each.kind for each in postings(at, at + timedelta(minutes=1), reminder=False)] == ["link"]


async def test_one_reminder_at_its_time(house: House) -> None:
    payment = await link(house, reminders=True)
    await work(house)
    assert await work_after(house, WEEK - DAY - 60) == 0
    assert await work_after(house, 120) == 1
    assert [(each["kind"], each["state"]) for each in await messages(house, payment)] == [
        ("link", "delivered"),
        ("reminder", "delivered"),
    ]
    assert await work_after(house, DAY - 120) == 0
    assert house.world.whatsapp.calls["send"] == 2


@pytest.mark.parametrize("end", ["paid", "cancelled", "expired", "late worker"])
async def test_no_reminder_of_what_is_over(house: House, end: str) -> None:
    world = house.world
    payment = await link(house, gateway="paynow", reminders=True)
    await work(house)
    if end == "paid":
        await world.sandbox.pay(house.reference_of(payment))
        world.clock.forward(seconds=10)
        await world.look_up("paynow")
    elif end == "cancelled":
        await house.call("POST", house.path(f"/payments/{payment['id']}/cancel"))
    world.clock.forward(seconds=WEEK - DAY + 60 if end in ("paid", "cancelled") else WEEK + 60)
    if end == "expired":
        await world.look_up("paynow")
        await payments.expire_due(world.context)
    await work(house)
    assert world.whatsapp.calls["send"] == 1
    states = {each["kind"]: each["state"] for each in await messages(house, payment)}
    assert states == {"link": "delivered", "reminder": "withdrawn"}


@pytest.mark.parametrize("when", ["both due", "link waits", "sent by hand just now"])
async def test_no_reminder_for_who_is_just_getting_the_link(house: House, when: str) -> None:
    """No worker ran for days; WhatsApp did not take the link yet; somebody sent it a moment ago."""
    payment = await link(house, reminders=True)
    if when == "link waits":
        house.world.rows_do(
            "UPDATE messages SET next_try_at = %s WHERE kind = 'link' AND payment_id = %s",
            *(house.world.clock() + timedelta(days=6, minutes=30), payment["id"]),
        )
    elif when == "sent by hand just now":
        await work_after(house, WEEK - DAY - 60)
        assert (await send(house, payment)).status == 202
        await work(house)
    await work_after(house, WEEK - DAY + 60 if when != "sent by hand just now" else 120)
    await work_after(house, 3600)
    kinds = {each["kind"]: each["state"] for each in await messages(house, payment)}
    assert kinds == {"link": "delivered", "reminder": "withdrawn"}


@pytest.mark.parametrize("more", [{"expires_in": 600}, {"send": None}])
async def test_a_reminder_that_makes_no_sense_is_refused(house: House, more: dict[str, object]) -> None:
    order = house.order(**{"send": "whatsapp", "contact_phone": PHONE, "reminders": True, **more})
    answer = await house.call("POST", house.path("/payments/create-link"), order)
    assert (answer.status, [each["field"] for each in answer.json["errors"]]) == (422, ["reminders"])
    assert written(house) == []
