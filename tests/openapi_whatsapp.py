"""The link goes by WhatsApp, and what Meta tells of it: provokes each answer that test_openapi_service holds."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import msgspec

from payments_service.sandbox.whatsapp import DEMO_APP_SECRET, DEMO_SENDERS, DEMO_VERIFY_TOKEN
from tests.house import Answer, House, eventually
from tests.openapi import CREATE, PAYMENT, SEND, SETTINGS, WHATSAPP_CALLBACK, Conversation

TO_SEND = {"channel": "whatsapp"}
ASKED = {"hub.mode": "subscribe", "hub.verify_token": DEMO_VERIFY_TOKEN, "hub.challenge": "1158201444"}


async def what_is_sent_by_whatsapp(talk: Conversation) -> None:
    """With the link and once more, told of by Meta; within limits, to numbers that exist, while it can be paid."""
    house = talk.house
    await subscribed(talk)
    wish = house.order(gateway=None, contact_phone="077 123 4567", send="whatsapp", reminders=True)
    payment = (await talk.say("POST", CREATE, wish)).json
    values = {"payment_id": payment["id"]}

    async def states() -> list[str]:
        told = (await talk.say("GET", PAYMENT, values=values)).json["messages"]
        return [each["state"] for each in told]

    async def are(*expected: str) -> bool:
        return await states() == [*expected]

    await eventually(lambda: are("delivered", "queued"))
    assert (await talk.say("POST", SEND, TO_SEND, values=values)).json["code"] == "too_many_requests"
    age(house)
    sent = (await talk.say("POST", SEND, {**TO_SEND, "to": "+44 7400 123456", "form": "text"}, values=values)).json
    assert [each["kind"] for each in sent["messages"]] == ["link", "reminder", "link"]
    # The customer never wrote: WhatsApp wants the template, and gets it.
    await eventually(lambda: are("delivered", "queued", "delivered"))
    told = (await talk.say("POST", SEND, {**TO_SEND, "to": "12"}, values=values)).json
    assert [fault["field"] for fault in told["errors"]] == ["to"]
    other = {"payment_id": (await talk.say("POST", CREATE, house.order(gateway=None))).json["id"]}
    await talk.say("POST", f"{PAYMENT}/cancel", values=other)
    assert (await talk.say("POST", SEND, TO_SEND, values=other)).json["code"] == "wrong_state"
    assert (await of_meta(talk, sent["messages"][0]["id"], "read")).status == 200
    assert await states() == ["read", "queued", "delivered"]
    await what_whatsapp_turns_down(talk, values)


async def subscribed(talk: Conversation) -> None:
    """Meta's question is answered to Meta alone, and so is what is not signed."""
    whatsapp = talk.house.world.whatsapp
    whatsapp.pair_seconds = 0
    assert (await talk.say("GET", WHATSAPP_CALLBACK, params=ASKED)).body == b"1158201444"
    wrong = {**ASKED, "hub.verify_token": "of somebody else"}
    assert (await talk.say("GET", WHATSAPP_CALLBACK, params=wrong)).json["code"] == "callback_refused"
    assert (await talk.say("POST", WHATSAPP_CALLBACK, b"{}")).json["code"] == "callback_refused"
    assert (await talk.say("POST", WHATSAPP_CALLBACK, b" " * 65_537)).status == 413
    await whatsapp.subscribe(f"{talk.house.public}{WHATSAPP_CALLBACK}")


async def what_whatsapp_turns_down(talk: Conversation, values: dict[str, str]) -> None:
    """A token that is good no more stops that number, and one that cannot be opened sends nothing."""
    house = talk.house
    number = {"whatsapp_phone_number_id": DEMO_SENDERS[1][0], "whatsapp_access_token": "of-yesterday"}
    await talk.say("PATCH", SETTINGS, number)
    age(house)
    assert (await talk.say("POST", SEND, TO_SEND, values=values)).status == 202

    async def failed() -> bool:
        newest = (await talk.say("GET", PAYMENT, values=values)).json["messages"][-1]
        return (newest["state"], newest["code"]) == ("failed", 190)

    await eventually(failed)
    wish = house.order(gateway=None, contact_phone="077 123 4567", send="whatsapp")
    for answer in (await talk.say("POST", SEND, TO_SEND, values=values), await talk.say("POST", CREATE, wish)):
        assert answer.json["code"] == "whatsapp_not_configured"
    house.world.rows_do("UPDATE payment_settings SET whatsapp_access_token_enc = 'v1.000000000000.AAAA'")
    for answer in (await talk.say("POST", SEND, TO_SEND, values=values), await talk.say("POST", CREATE, wish)):
        assert answer.json["code"] == "credentials_unreadable"
    await talk.say("PATCH", SETTINGS, dict.fromkeys(number))


def age(house: House) -> None:
    """As if everything had been sent an hour ago."""
    house.world.rows_do("UPDATE messages SET created_at = created_at - interval '1 hour'")


async def of_meta(talk: Conversation, message_id: str, status: str) -> Answer:
    """A status as Meta posts it, signed."""
    told: Any = {"id": "wamid.of-a-test", "status": status, "biz_opaque_callback_data": message_id}
    body = msgspec.json.encode({"entry": [{"changes": [{"field": "messages", "value": {"statuses": [told]}}]}]})
    signature = "sha256=" + hmac.digest(DEMO_APP_SECRET.encode(), body, hashlib.sha256).hex()
    return await talk.say("POST", WHATSAPP_CALLBACK, body, headers={"X-Hub-Signature-256": signature})
