"""The WhatsApp simulator on the wire: what may be sent, what is answered, and the traps of the protocol page."""

from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any

import pytest

from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.whatsapp import DEMO_SENDERS, build
from payments_service.sandbox.whatsapp_messages import Template
from tests import whatsapp_world
from tests.whatsapp_world import CUSTOMER, World, components, parameters, template, text

stages, world = whatsapp_world.stages, whatsapp_world.world  # fixtures


# --- the address and the token


async def test_a_template_is_accepted_and_filled_in(world: World) -> None:
    """The answer is the protocol page's; accepted is not delivered."""
    reply = await world.template()
    told = reply.content
    assert reply.status == 200
    assert told["messaging_product"] == "whatsapp"
    assert told["contacts"] == [{"input": CUSTOMER, "wa_id": CUSTOMER[1:]}]
    assert told["messages"] == [{"id": reply.id, "message_status": "accepted"}]
    (message,) = world.sandbox.messages
    assert message.id == reply.id
    assert message.draft.text == "Acme asks you to pay USD 12.50 for Order 1001. Tap the button to see all ways to pay."
    assert message.draft.link == f"{world.business.url}/pay/AbC123"
    assert message.draft.callback_data == "msg-1"


async def test_the_id_of_a_message_has_the_number_in_it(world: World) -> None:
    """As the real ones have: who logs them, logs the customer's number."""
    kind, _, inside = (await world.template()).id.partition(".")
    assert kind == "wamid"
    assert CUSTOMER[1:].encode() in base64.b64decode(inside)


@pytest.mark.parametrize("token", ["guessed", " "])
async def test_an_unknown_token_sends_nothing(world: World, token: str) -> None:
    reply = await world.post(template(), token=token)
    assert (reply.status, reply.code) == (401, 190)
    assert reply.content["error"]["type"] == "OAuthException"
    assert "invalid_token" in reply.headers["WWW-Authenticate"]
    assert world.sandbox.messages == []


@pytest.mark.parametrize("identifier", ["1", DEMO_SENDERS[1][0]])
async def test_a_token_sends_from_its_own_number_only(world: World, identifier: str) -> None:
    reply = await world.post(template(), f"v26.0/{identifier}/messages")
    assert (reply.status, reply.code, reply.content["error"]["error_subcode"]) == (400, 100, 33)
    assert identifier in reply.content["error"]["message"]


@pytest.mark.parametrize("path", ["26.0/{}/messages", "v26/{}/messages", "v26.0/{}/message", ""])
async def test_what_there_is_not_has_an_error_of_its_own(world: World, path: str) -> None:
    reply = await world.post(template(), path.format(DEMO_SENDERS[0][0]) or "v26.0")
    assert (reply.status, reply.code) == (404, 2500)


async def test_an_error_says_its_number_and_details(world: World) -> None:
    error = (await world.template(to="0771234567")).content["error"]
    assert error["message"] == "(#131009) Parameter value is not valid"
    assert error["error_data"]["messaging_product"] == "whatsapp"
    assert "E.164" in error["error_data"]["details"]
    assert error["fbtrace_id"]


# --- the shape of the request


def changed(**changes: Any) -> dict[str, Any]:
    filled: dict[str, Any] = template()["template"]
    return template(template=filled | changes)


FULL = components("Acme", "USD 12.50", "Order 1001")
BODY, BUTTON = FULL


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 100),
        (b"[]", 100),
        (b"\xff", 100),
        (template(messaging_product="sms"), 100),
        (template(messaging_product=None), 131008),
        (template(recipient_type="group"), 100),
        (template(to=None), 131008),
        (template(type="image"), 100),
        (template(type=None), 100),  # then it is a text
        (template(template=None), 131008),
        (template(text={"body": "both"}), 100),
        (template(surprise=1), 100),
        (template(biz_opaque_callback_data="x" * 513), 100),
        (template(biz_opaque_callback_data=7), 100),
        *(
            (template(to=to), 131009)
            for to in ("263771234567", "+0771234567", "+263 77 123 4567", "+26377", "", "+٢٦٣")
        ),
        (changed(name="other"), 132001),
        (changed(language={"code": "sn"}), 132001),
        (changed(language="en"), 100),
        (changed(language={}), 131008),
        (changed(components=[BUTTON]), 132000),
        (changed(components=components("Acme", "USD 12.50")), 132000),
        (changed(components=components("Acme", "USD 12.50", "Order", "more")), 132000),
        (changed(components=[BODY, BODY, BUTTON]), 132000),
        (changed(components=[BODY]), 131008),
        (changed(components=[BODY, BUTTON | {"parameters": []}]), 131008),
        (changed(components=[BODY, BUTTON | {"parameters": parameters("a", "b")}]), 132000),
        (changed(components=[BODY, BUTTON, BUTTON]), 132012),
        (changed(components=[BODY, BUTTON | {"index": "1"}]), 132012),
        (changed(components=[BODY, BUTTON | {"index": 0}]), 100),
        (changed(components=[BODY, BUTTON | {"sub_type": "quick_reply"}]), 132012),
        (changed(components=[{"type": "header"}, BODY, BUTTON]), 132000),
        (changed(components=[BODY | {"parameters": [{"type": "currency"}] * 3}, BUTTON]), 132012),
        (changed(components=components("", "USD 12.50", "Order")), 131008),
        *(
            (changed(components=components("Acme", "USD 12.50", bad)), 132018)
            for bad in ("two\nlines", "a\ttab", "five     blanks", "a\rreturn")
        ),
        (changed(components=[BODY, BUTTON | {"parameters": parameters("a\nb")}]), 132018),
        (changed(components=components("Acme", "USD 12.50", "x" * 1000)), 132005),
        (changed(components=[BODY, BUTTON | {"parameters": parameters("x" * 2000)}]), 132005),
        (text(""), 100),
        (text(" \n"), 100),
        (text("x" * 4097), 100),
        (text(text={"body": "x", "preview_url": "no"}), 100),
        (text(text={"preview_url": False}), 131008),
    ],
)
async def test_what_meta_would_not_take_is_refused(world: World, body: Any, code: int) -> None:
    reply = await world.post(body)
    assert (reply.status, reply.code) == (404 if code == 132001 else 400, code)
    assert world.sandbox.messages == []
    assert world.sandbox.refusals == {code: 1}


@pytest.mark.parametrize(
    "body",
    [
        changed(components=components("Acme", "USD 12.50", "four    blanks, and élan")),
        changed(language={"code": "en_GB", "policy": "deterministic"}),
        template(biz_opaque_callback_data="x" * 512),
        template(recipient_type=None),
        template(to="+14155552671"),
    ],
)
async def test_what_meta_takes_is_taken(world: World, body: Any) -> None:
    assert (await world.post(body)).status == 200


async def test_a_template_may_have_no_button_and_a_url_of_its_own(world: World) -> None:
    world.sender.add_template(Template("plain", "en", "Thank you, {{1}}."))
    world.sender.add_template(Template("own", "en", "Hello", "Look", "https://example.com/{{1}}"))
    plain = {"name": "plain", "language": {"code": "en"}, "components": components("Tariro")[:1]}
    assert (await world.post(template(template=plain))).status == 200
    own = {"name": "own", "language": {"code": "en"}, "components": [BUTTON]}
    assert (await world.post(template(template=own))).status == 200
    assert [one.draft.link for one in world.sandbox.messages] == ["", "https://example.com/AbC123"]
    plain["components"] = [*components("Tariro")]
    assert (await world.post(template(template=plain))).code == 132012


# --- texts and their window


async def test_a_text_outside_the_window_is_accepted_and_then_fails(world: World) -> None:
    assert (await world.text()).status == 200
    await world.sandbox.settled()
    (status,) = world.business.statuses
    assert (status["status"], status["errors"][0]["code"]) == ("failed", 131047)
    assert status["biz_opaque_callback_data"] == "msg-1"


async def test_a_text_outside_the_window_may_be_refused_at_once(world: World) -> None:
    world.sandbox.window_refusal = "http"
    reply = await world.text()
    assert (reply.status, reply.code) == (400, 131047)
    assert world.sandbox.messages == []


async def test_the_window_is_open_for_24_hours_after_the_customer_wrote(world: World) -> None:
    """To this number of the business, and to no other."""
    world.sandbox.window_refusal = "http"
    world.sandbox.write(CUSTOMER, world.other.phone_number_id, "Hello")
    assert (await world.text()).code == 131047
    world.sandbox.write("0771234567", world.sender.phone_number_id, "Hello")
    world.now += 24 * 3600 - 1
    assert (await world.text("Pay: https://example.com/pay/1 now")).status == 200
    assert world.sandbox.find("msg-1").draft.link == "https://example.com/pay/1"
    world.now += 1
    assert (await world.text()).code == 131047


async def test_templates_need_no_window(world: World) -> None:
    assert (await world.sent()).status == "delivered"


# --- the pace


async def test_one_customer_gets_one_message_in_six_seconds(world: World) -> None:
    """From one number; what was refused does not count."""
    world.sandbox.pair_seconds = 6.0
    assert (await world.template("msg-1")).status == 200
    world.now += 5.9
    reply = await world.template("msg-2")
    assert (reply.status, reply.code) == (400, 131056)
    assert (await world.template("msg-3", to="+263771234568")).status == 200
    world.now += 0.1
    assert (await world.template("msg-2")).status == 200


async def test_nobody_sends_to_himself(world: World) -> None:
    message = await world.sent(to=world.sender.phone)
    assert message.trouble
    assert message.trouble.code == 131021


# --- the ledger


async def test_the_ledger_proves_that_nothing_was_sent_twice(world: World) -> None:
    await world.template("msg-1")
    await world.template("msg-2")
    await world.template("msg-1")
    assert world.sandbox.counts() == {(CUSTOMER, "msg-1"): 2, (CUSTOMER, "msg-2"): 1}
    assert world.sandbox.calls["send"] == 3


async def test_messages_are_found_by_any_name(world: World) -> None:
    message = await world.sent("pay-7-K2")
    for name in (message.id, "pay-7-K2", "pay-7", CUSTOMER, CUSTOMER[1:], "0771234567"):
        assert world.sandbox.find(name) is message
    with pytest.raises(UnknownReference):
        world.sandbox.find("pay-8")


async def test_a_status_leads_on_only(world: World) -> None:
    world.sandbox.delivers = False
    message = await world.sent()
    assert message.status == "sent"
    world.sandbox.deliver("msg-1")
    world.sandbox.read("msg-1")
    for move in (world.sandbox.deliver, world.sandbox.read, world.sandbox.fail):
        with pytest.raises(WrongMove):
            move("msg-1")
    await world.sandbox.settled()
    assert world.business.words == ["sent", "delivered", "read"]
    with pytest.raises(ValueError, match="there is no error 7"):
        world.sandbox.fail("msg-1", 7)


# --- how it stands beside the rest


def test_it_shares_nothing_with_the_services_client() -> None:
    """An import of it would let one mistake hide another."""
    loaded = (
        "import payments_service.sandbox.whatsapp, sys; "
        "print([m for m in sys.modules if '.gateways' in m or m == 'payments_service.whatsapp'])"
    )
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_its_settings_are_those_of_the_platforms_own_number() -> None:
    given = build("http://127.0.0.1:8082").settings()
    assert given["WHATSAPP_URL"] == "http://127.0.0.1:8082/whatsapp"
    assert (given["WHATSAPP_PHONE_NUMBER_ID"], given["WHATSAPP_ACCESS_TOKEN"]) == DEMO_SENDERS[0][:2]
    assert set(given) == {
        f"WHATSAPP_{name}"
        for name in ("URL", "PHONE_NUMBER_ID", "ACCESS_TOKEN", "TEMPLATE", "APP_SECRET", "VERIFY_TOKEN")
    }
