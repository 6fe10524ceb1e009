"""The WhatsApp simulator's webhooks: verified, signed, batched, resent."""

from __future__ import annotations

import pytest

from payments_service.sandbox.hands import WrongMove
from tests import whatsapp_world
from tests.whatsapp_world import CUSTOMER, World

stages, world = whatsapp_world.stages, whatsapp_world.world  # fixtures


async def test_a_status_is_told_as_meta_tells_it(world: World) -> None:
    message = await world.sent()
    sent, delivered = world.business.bodies
    (entry,) = sent["entry"]
    (change,) = entry["changes"]
    assert (sent["object"], entry["id"], change["field"]) == (
        "whatsapp_business_account",
        world.sender.account,
        "messages",
    )
    assert change["value"] == {
        "messaging_product": "whatsapp",
        "metadata": {
            "display_phone_number": world.sender.phone[1:],
            "phone_number_id": world.sender.phone_number_id,
        },
        "statuses": [
            {
                "id": message.id,
                "status": "sent",
                "timestamp": str(int(world.now)),
                "recipient_id": CUSTOMER[1:],
                "biz_opaque_callback_data": "msg-1",
                "pricing": {"billable": True, "pricing_model": "PMP", "category": "utility", "type": "regular"},
            }
        ],
    }
    assert delivered["entry"][0]["changes"][0]["value"]["statuses"][0]["status"] == "delivered"


async def test_it_is_signed_over_the_bytes_that_travel(world: World) -> None:
    """With escapes that nobody gets who encodes the body anew."""
    await world.sent("é/1")
    body, headers = world.business.posts[0]
    assert world.business.signed() == [True, True]
    assert b'"\\u00e9\\/1"' in body
    assert headers["content-type"] == "application/json"


async def test_nothing_is_posted_before_somebody_subscribed(world: World) -> None:
    world.sandbox.webhooks.url = ""
    await world.sent()
    assert world.business.posts == []


@pytest.mark.parametrize("path", ["/elsewhere", "/pay/1"])
async def test_only_who_answers_the_challenge_subscribes(world: World, path: str) -> None:
    with pytest.raises(WrongMove, match="couldn't be validated"):
        await world.sandbox.subscribe(world.business.url + path)
    world.sandbox.webhooks.verify_token = "another"
    with pytest.raises(WrongMove):
        await world.sandbox.subscribe(world.business.hook)
    assert world.sandbox.webhooks.url == world.business.hook


async def test_no_other_machine_can_subscribe(world: World) -> None:
    with pytest.raises(WrongMove, match="loopback hosts only"):
        await world.sandbox.subscribe("http://192.0.2.1/hook")


async def test_all_but_200_is_resent_for_a_while(world: World) -> None:
    world.business.answers = [500, 302, 200, 204, 401, 404]
    await world.sent()
    assert world.business.words == ["sent", "sent", "sent", "delivered", "delivered", "delivered"]
    assert [one.accepted for one in world.sandbox.webhooks.deliveries] == [False, False, True, False, False, False]


async def test_what_is_held_comes_in_batches(world: World) -> None:
    """Of several messages and several business accounts in one body."""
    world.sandbox.webhooks.hold, world.sandbox.webhooks.batch_size = True, 5
    await world.sent("msg-1")
    await world.sent("msg-2")
    world.sandbox.write(CUSTOMER, world.other.phone_number_id, "Hello")
    assert world.business.posts == []
    world.sandbox.webhooks.release()
    await world.sandbox.settled()
    (body,) = world.business.bodies
    ours, theirs = body["entry"]
    assert (ours["id"], theirs["id"]) == (world.sender.account, world.other.account)
    assert [one["status"] for one in ours["changes"][0]["value"]["statuses"]] == ["sent", "delivered"] * 2
    assert theirs["changes"][0]["value"]["messages"][0]["text"] == {"body": "Hello"}


async def test_what_is_held_can_be_shuffled(world: World) -> None:
    async def order(seed: int) -> list[tuple[str, str]]:
        world.business.posts.clear()
        world.sandbox.webhooks.hold = True
        for number in range(5):
            await world.sent(f"msg-{number}")
        world.sandbox.webhooks.release(seed)
        await world.sandbox.settled()
        return [(one["biz_opaque_callback_data"], one["status"]) for one in world.business.statuses]

    first = await order(7)
    assert len(first) == 10
    assert first == await order(7) != await order(8)


async def test_what_a_customer_writes_is_told(world: World) -> None:
    written = world.sandbox.write("0771234567", world.sender.phone_number_id, " Hello ")
    await world.sandbox.settled()
    (value,) = world.business.values
    assert value["contacts"] == [{"profile": {"name": "Customer"}, "wa_id": CUSTOMER[1:]}]
    assert value["messages"] == [
        {
            "from": CUSTOMER[1:],
            "id": written.id,
            "timestamp": str(int(world.now)),
            "type": "text",
            "text": {"body": "Hello"},
        }
    ]


async def test_other_fields_come_to_the_same_address(world: World) -> None:
    world.sandbox.announce("account_update", {"event": "VERIFIED_ACCOUNT"}, world.sender.phone_number_id)
    await world.sandbox.settled()
    (body,) = world.business.bodies
    assert body["entry"][0]["changes"] == [{"value": {"event": "VERIFIED_ACCOUNT"}, "field": "account_update"}]
    assert world.business.signed() == [True]


async def test_without_receipts_reading_is_never_told(world: World) -> None:
    world.sandbox.receipts = False
    message = await world.sent()
    world.sandbox.read("msg-1")
    await world.sandbox.settled()
    assert (message.status, world.business.words) == ("read", ["sent", "delivered"])


async def test_a_status_can_be_told_again(world: World) -> None:
    await world.sent()
    world.sandbox.repeat("msg-1")
    await world.sandbox.settled()
    assert world.business.words == ["sent", "delivered", "delivered"]


async def test_a_message_can_fail_after_it_was_sent(world: World) -> None:
    world.sandbox.delivers = False
    await world.sent()
    world.sandbox.fail("msg-1", 131049)
    await world.sandbox.settled()
    (error,) = world.business.statuses[-1]["errors"]
    assert (error["code"], set(error)) == (131049, {"code", "title", "message", "error_data", "href"})
