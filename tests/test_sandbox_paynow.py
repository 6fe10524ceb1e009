"""The Paynow simulator seen from outside, over HTTP: the rules of gateways/paynow.md."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from payments_service.sandbox import wire
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.paynow_transactions import MOVES
from tests import sandbox_world
from tests.sandbox_world import USD_KEY, ZIG_KEY, World, signed

stages, world = sandbox_world.stages, sandbox_world.world  # fixtures

VECTORS = json.loads((Path(__file__).parent / "vectors" / "paynow_hash.json").read_text())["vectors"]


# --- the encoding and the hash


@pytest.mark.parametrize("vector", [v for v in VECTORS if "body" in v], ids=lambda vector: vector["name"])
def test_published_hashes_are_reproduced(vector: dict[str, Any]) -> None:
    """From the raw body as it travelled: decoded, trimmed, in the order transmitted."""
    pairs = wire.decode(vector["body"].encode())
    assert wire.digest(pairs, vector["integration_key"]) == vector["expected_hash"]


@pytest.mark.parametrize(
    "vector", [v for v in VECTORS if v.get("direction") == "paynow->merchant"], ids=lambda vector: vector["name"]
)
def test_published_replies_are_reproduced_byte_for_byte(vector: dict[str, Any]) -> None:
    pairs = wire.decode(vector["body"].encode())
    assert wire.encode(pairs).decode() == vector["body"]


def test_the_key_is_hashed_in_lower_case() -> None:
    pairs = [("status", "Ok")]
    assert wire.digest(pairs, USD_KEY.upper()) == wire.digest(pairs, USD_KEY)


def test_values_are_escaped_as_dot_net_does() -> None:
    assert wire.escape("a B/c:@*-_.!()~'é") == "a+B%2fc%3a%40*-_.!()%7e%27%c3%a9"


# --- initiate (section 2)


async def test_initiate_answers_a_signed_form(world: World) -> None:
    """HTTP 200, lower-case keys in Paynow's order, a hash over them, URLs on the simulator's own base."""
    reply = await world.initiate()
    assert (reply.status, reply["status"]) == (200, "Ok")
    assert reply.keys == ["status", "browserurl", "pollurl", "hash"]
    assert signed(reply.pairs)
    number = world.sandbox.find("INV-1").number
    assert reply["browserurl"] == f"{world.url}/Payment/ConfirmPayment/{number}"
    assert re.fullmatch(re.escape(world.url) + r"/Interface/CheckPayment/\?guid=[0-9a-f-]{36}", reply["pollurl"])
    assert b"%3a%2f%2f" in reply.raw
    assert world.sandbox.calls == {"initiate": 1}


async def test_the_paynow_reference_in_the_reply_is_a_switch(world: World) -> None:
    world.sandbox.reference_in_reply = True
    reply = await world.initiate()
    assert reply.keys == ["status", "browserurl", "pollurl", "paynowreference", "hash"]
    assert signed(reply.pairs)


async def test_an_authemail_appears_in_the_browserurl_and_that_page_opens(world: World) -> None:
    reply = await world.initiate(authemail="tmoyo@example.com")
    assert reply["browserurl"].endswith("/tmoyo@example.com//")
    async with world.http.get(URL(reply["browserurl"], encoded=True)) as page:
        assert page.status == 200


async def test_the_integration_decides_the_currency(world: World) -> None:
    """There is no currency field: 1202 belongs to ZiG, and its replies are signed with its own key."""
    reply = await world.initiate(ZIG_KEY, id="1202")
    assert signed(reply.pairs, ZIG_KEY)
    assert not signed(reply.pairs, USD_KEY)
    assert str(world.sandbox.find("INV-1").amount) == "ZIG 10.00"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"id": "999"}, "Invalid id."),
        ({"id": None}, "Invalid id."),
        ({"amount": "ten"}, "Invalid amount field"),
        ({"amount": "0.00"}, "Invalid amount field"),
        ({"amount": "-5"}, "Invalid amount field"),
        ({"amount": "1,000.00"}, "Invalid amount field"),
        ({"amount": "0.001"}, "Invalid amount field"),
        ({"amount": "1000000000.00"}, "Invalid amount field"),
        ({"amount": None}, "Invalid amount field"),
        ({"returnurl": "shop/return"}, "Enter valid return url"),
        ({"returnurl": "javascript:alert(1)"}, "Enter valid return url"),
        ({"resulturl": None}, "Enter valid result url"),
        ({"reference": None}, "Invalid reference field"),
        ({"status": "Ok"}, "Invalid status field"),
        ({"merchanttrace": "x" * 33}, "Invalid merchanttrace field: at most 32 characters"),
    ],
)
async def test_what_cannot_be_accepted_is_an_error_with_http_200(
    world: World, changes: dict[str, str | None], error: str
) -> None:
    """An error carries no hash, and no transaction comes of it."""
    reply = await world.initiate(**changes)
    assert (reply.status, reply.pairs) == (200, [("status", "Error"), ("error", error)])
    assert world.sandbox.transactions == []


async def test_a_wrong_hash_is_answered_with_the_start_of_the_right_one(world: World) -> None:
    """The published text, two blanks included, for a wrong key as for no hash at all."""
    right = wire.digest(world.request(), USD_KEY)[:6]
    error = f"status=Error&error=Invalid+Hash.++Hash+should+start+with%3a+{right}"
    assert (await world.initiate(ZIG_KEY)).raw.decode() == error
    assert (await world.send("/interface/initiatetransaction", world.request())).raw.decode() == error


async def test_an_inactive_integration_is_refused(world: World) -> None:
    world.sandbox.integrations["1201"].active = False
    assert "currently inactive" in (await world.initiate())["error"]


@pytest.mark.parametrize("email", ["", "merchant@example.com", "MERCHANT%40example.com", None])
async def test_test_mode_accepts_the_owner_or_no_authemail(world: World, email: str | None) -> None:
    world.sandbox.integrations["1201"].test_mode = True
    assert (await world.initiate(authemail=email))["status"] == "Ok"


async def test_test_mode_refuses_another_authemail(world: World) -> None:
    world.sandbox.integrations["1201"].test_mode = True
    assert "test mode" in (await world.initiate(authemail="customer@example.com"))["error"]


async def test_a_merchanttrace_is_used_once_per_merchant(world: World) -> None:
    assert (await world.initiate(merchanttrace="t1"))["status"] == "Ok"
    assert (await world.initiate(merchanttrace="t1", reference="INV-2"))["error"] == "Duplicate merchanttrace"
    assert (await world.initiate(ZIG_KEY, id="1202", merchanttrace="t1"))["status"] == "Ok"


# --- what the official SDKs send (section 8)


async def test_fields_come_in_any_order_and_the_hash_anywhere(world: World) -> None:
    pairs = wire.sign(world.request()[::-1], USD_KEY)
    reply = await world.send("/interface/initiatetransaction", [pairs[-1], *pairs[:-1]])
    assert reply["status"] == "Ok"


@pytest.mark.parametrize(("sent", "told"), [("5.9", "5.90"), ("10.0", "10.00"), ("15", "15.00")])
async def test_amounts_as_the_sdks_write_them(world: World, sent: str, told: str) -> None:
    await world.initiate(amount=sent)
    assert (await world.poll())["amount"] == told


async def test_double_encoded_values_come_back_as_they_were_hashed(world: World) -> None:
    """The transmitted value is `Order+%23100`: it is echoed so, shown as `Order #100`, and found by both."""
    await world.initiate(reference="Order+%23100", authemail="a%40example.com", additionalinfo="A%2C+B")
    assert (await world.poll("Order #100"))["reference"] == "Order+%23100"
    assert world.sandbox.find("Order+%23100") is world.sandbox.find("Order #100")
    _, page, _ = await world.page(world.pay_page("Order #100"))
    assert "Order #100" in page
    assert "A, B" in page


async def test_values_are_trimmed_before_they_are_hashed(world: World) -> None:
    reply = await world.initiate(reference="  INV-1 ", returnurl=f" {world.merchant.url}/return")
    assert reply["status"] == "Ok"
    assert (await world.poll("INV-1"))["reference"] == "INV-1"


@pytest.mark.parametrize("path", ["/Interface/CheckPayment/", "/interface/checkpayment", "/INTERFACE/CHECKPAYMENT/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_poll_is_a_get_or_an_empty_post_on_any_spelling(world: World, method: str, path: str) -> None:
    await world.initiate()
    guid = world.sandbox.find("INV-1").guid
    async with world.http.request(method, f"{world.url}{path}?guid={guid}") as reply:
        assert signed(wire.decode(await reply.read()))


# --- poll and trace (sections 3 and 4)


async def test_a_poll_tells_the_six_fields_in_order(world: World) -> None:
    opened = await world.initiate(amount="5.9")
    reply = await world.poll()
    assert reply.keys == ["reference", "paynowreference", "amount", "status", "pollurl", "hash"]
    assert signed(reply.pairs)
    assert (reply["amount"], reply["status"], reply["pollurl"]) == ("5.90", "Created", opened["pollurl"])


async def test_polling_an_unknown_guid_is_an_error(world: World) -> None:
    async with world.http.post(f"{world.url}/Interface/CheckPayment/?guid=nothing") as reply:
        assert (reply.status, await reply.text()) == (200, "status=Error&error=Transaction+not+found")


async def test_extra_fields_are_inside_the_hash(world: World) -> None:
    """Section 4: optional fields appear when they like, and are hashed."""
    world.sandbox.extra_fields = [("paymentchannel", "Ecocash"), ("paymentchannelreference", "MP1234.5")]
    await world.initiate()
    reply = await world.poll()
    assert reply.keys[-3:] == ["paymentchannel", "paymentchannelreference", "hash"]
    assert signed(reply.pairs)


async def test_trace_finds_a_transaction_whose_reply_was_lost(world: World) -> None:
    await world.initiate(merchanttrace="t1")
    reply = await world.trace("t1")
    assert signed(reply.pairs)
    assert reply.pairs == (await world.poll()).pairs


async def test_trace_says_not_found_with_a_hash(world: World) -> None:
    await world.initiate(merchanttrace="t1")
    reply = await world.trace("t2")
    assert reply.keys == ["status", "hash"]
    assert reply["status"] == "NotFound"
    assert signed(reply.pairs)
    assert (await world.trace("t1", ZIG_KEY, id="1202"))["status"] == "NotFound"
    assert (await world.trace("t1", ZIG_KEY))["error"].startswith("Invalid Hash.  Hash should start with: ")


# --- status updates (section 4)


async def test_paying_posts_a_signed_update_to_the_resulturl(world: World) -> None:
    await world.initiate()
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()
    (body,) = world.merchant.bodies
    pairs = wire.decode(body)
    assert [key for key, _ in pairs] == ["reference", "paynowreference", "amount", "status", "pollurl", "hash"]
    assert signed(pairs)
    assert world.merchant.paths == ["/result"]
    assert pairs == (await world.poll()).pairs
    assert [delivery.status for delivery in world.sandbox.deliveries] == [200]


async def test_every_change_is_announced(world: World) -> None:
    await world.initiate()
    await world.sandbox.set_status("INV-1", "Sent")
    for act in (world.sandbox.pay, world.sandbox.dispute, world.sandbox.refund):
        await act("INV-1")
        await world.sandbox.settled()
    assert sorted(world.merchant.statuses) == ["Disputed", "Paid", "Refunded", "Sent"]
    assert world.sandbox.find("INV-1").history == ["Created", "Sent", "Paid", "Disputed", "Refunded"]


async def test_an_http_error_is_resent_until_it_is_accepted(world: World) -> None:
    world.merchant.answers = [500, 503, 404]
    await world.initiate()
    await world.sandbox.cancel("INV-1")
    await world.sandbox.settled()
    assert [delivery.status for delivery in world.sandbox.deliveries] == [500, 503, 404, 200]
    assert len(set(world.merchant.bodies)) == 1


async def test_it_gives_up_after_ten_resends(world: World) -> None:
    world.merchant.answers = [500] * 50
    await world.initiate()
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()
    assert len(world.merchant.bodies) == 11


async def test_no_connection_is_resent_too(world: World) -> None:
    await world.initiate(resulturl="http://127.0.0.1:1/result")
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()
    assert {delivery.status for delivery in world.sandbox.deliveries} == {None}
    assert len(world.sandbox.deliveries) == 11


async def test_redirects_are_not_followed_and_not_resent(world: World) -> None:
    world.merchant.answers = [302, 307]
    await world.initiate()
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()
    assert world.merchant.paths == ["/result"]


async def test_only_this_machine_is_called_back(world: World) -> None:
    """A simulator must never reach the internet; it says so on the page and in its record, and does not try again."""
    await world.initiate(resulturl="https://pay.example.com/result")
    await world.sandbox.pay("INV-1")
    await world.sandbox.settled()
    (delivery,) = world.sandbox.deliveries
    assert delivery.error == "refused: this simulator posts to loopback hosts only, never to pay.example.com"
    assert delivery.error in (await world.page(world.pay_page()))[1]


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://127.0.0.1:9/x", True),
        ("http://127.8.9.10/x", True),
        ("http://localhost:9/x", True),
        ("http://LOCALHOST/x", True),
        ("http://[::1]:9/x", True),
        ("http://127.0.0.1.example.com/x", False),
        ("http://127.0.0.1@example.com/x", False),
        ("http://localhost.example.com/x", False),
        ("http://10.0.0.1/x", False),
        ("http://0.0.0.0/x", False),
        ("http://127.1/x", False),
    ],
)
def test_what_counts_as_this_machine(url: str, allowed: bool) -> None:
    assert wire.is_loopback(URL(url)) is allowed


async def test_close_ends_what_is_under_way(world: World) -> None:
    world.sandbox.add_fault("late", seconds=3600)
    await world.initiate()
    await world.sandbox.pay("INV-1")
    await world.sandbox.close()
    await asyncio.wait_for(world.sandbox.settled(), 60)
    assert world.merchant.bodies == []


# --- moves


async def test_paying_another_amount_is_told_by_callback_and_poll(world: World) -> None:
    await world.initiate()
    await world.sandbox.pay("INV-1", "9.99")
    await world.sandbox.settled()
    assert (await world.poll())["amount"] == world.merchant.messages[0]["amount"] == "9.99"


@pytest.mark.parametrize("name", ["INV-1-K7M2", "INV-1"])
async def test_a_transaction_is_found_by_its_reference_or_what_leads_it(world: World, name: str) -> None:
    """A service may append a suffix to its tenant's reference; `INV-1` does not mean `INV-10-X`."""
    await world.initiate(reference="INV-1-K7M2")
    await world.initiate(reference="INV-10-X")
    assert world.sandbox.find(name).reference == "INV-1-K7M2"
    with pytest.raises(UnknownReference, match="INV-"):
        world.sandbox.find("INV-2")


async def test_the_newest_of_several_is_meant(world: World) -> None:
    await world.initiate(reference="INV-1-A")
    await world.initiate(reference="INV-1-B")
    assert world.sandbox.find("INV-1").reference == "INV-1-B"
    assert [transaction.reference for transaction in world.sandbox.transactions] == ["INV-1-A", "INV-1-B"]


async def test_a_final_status_is_not_left_unless_it_is_forced(world: World) -> None:
    await world.initiate()
    await world.sandbox.cancel("INV-1")
    with pytest.raises(WrongMove, match="INV-1 is Cancelled: it cannot become Paid"):
        await world.sandbox.pay("INV-1")
    await world.sandbox.set_status("INV-1", "Paid")
    await world.sandbox.set_status("INV-1", "Something New")
    assert (await world.poll())["status"] == "Something New"


def test_every_status_that_is_not_final_has_moves() -> None:
    reached = {status for moves in MOVES.values() for status in moves} | {"Created", "Sent"}
    assert reached - set(MOVES) == {"Cancelled", "Failed", "Refunded"}
