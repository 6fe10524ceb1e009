"""The Paynow simulator's express checkout, over HTTP and by hand: section 3 of gateways/paynow.md."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from payments_service.sandbox import wire
from payments_service.sandbox.hands import UnknownReference, WrongMove, WrongPin
from payments_service.sandbox.local import HARARE
from payments_service.sandbox.pay_codes import NoSuchCode
from payments_service.sandbox.paynow_express import wire_time
from payments_service.sandbox.paynow_transactions import METHODS
from tests import sandbox_world
from tests.sandbox_world import PHONE, USD_KEY, ZIG_KEY, World, signed

stages, world = sandbox_world.stages, sandbox_world.world  # fixtures

HEAD = ["status", "instructions", "paynowreference", "pollurl"]


# --- remotetransaction (section 3)


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("ecocash", []),
        ("onemoney", []),
        ("innbucks", ["authorizationcode", "authorizationexpires"]),
        ("omari", ["otpreference", "remoteotpurl"]),
    ],
)
async def test_each_method_answers_its_own_signed_fields_in_order(world: World, method: str, more: list[str]) -> None:
    reply = await world.express(method)
    assert (reply.status, reply["status"]) == (200, "Ok")
    assert reply.keys == [*HEAD, *more, "hash"]
    assert signed(reply.pairs)
    transaction = world.sandbox.find("INV-1")
    assert reply["paynowreference"] == str(transaction.number)
    assert (transaction.method, transaction.phone) == (method, PHONE)
    assert world.sandbox.calls == {"express": 1}


async def test_it_stands_at_sent_for_poll_and_trace_and_announces_nothing(world: World) -> None:
    opened = await world.express(merchanttrace="t1")
    polled = await world.poll()
    assert (polled["status"], polled["pollurl"]) == ("Sent", opened["pollurl"])
    assert (await world.trace("t1")).pairs == polled.pairs
    assert world.sandbox.find("INV-1").history == ["Created", "Sent"]
    await world.sandbox.settled()
    assert world.merchant.bodies == []


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"method": "vmc"}, "Invalid method"),
        ({"method": "EcoCash"}, "Invalid method"),
        ({"method": None}, "Invalid method"),
        ({"phone": None}, "Invalid phone field"),
        ({"phone": "771234567"}, "Invalid phone field"),
        ({"phone": "+263771234567"}, "Invalid phone field"),
        ({"phone": "07712345678"}, "Invalid phone field"),
        ({"phone": "0242123456"}, "Invalid phone field"),
        ({"phone": "٠٧٧١٢٣٤٥٦٧"}, "Invalid phone field"),
        ({"method": "onemoney", "phone": ""}, "Invalid phone field"),
        ({"method": "omari", "phone": ""}, "Invalid phone field"),
        ({"authemail": ""}, "Invalid authemail field"),
        ({"authemail": None}, "Invalid authemail field"),
        ({"method": "innbucks", "authemail": "+"}, "Invalid authemail field"),
        ({"amount": "0"}, "Invalid amount field"),
        ({"returnurl": None}, "Enter valid return url"),
        ({"resulturl": "shop"}, "Enter valid result url"),
        ({"reference": ""}, "Invalid reference field"),
        ({"id": "999"}, "Invalid id."),
        ({"status": "Ok"}, "Invalid status field"),
    ],
)
async def test_what_cannot_be_accepted_is_an_error_and_prompts_nobody(
    world: World, changes: dict[str, str | None], error: str
) -> None:
    reply = await world.express(**changes)
    assert (reply.status, reply.pairs) == (200, [("status", "Error"), ("error", error)])
    assert (world.sandbox.transactions, world.sandbox.prompts) == ([], {})


@pytest.mark.parametrize("path", ["/Interface/RemoteTransaction", "/INTERFACE/REMOTETRANSACTION/"])
async def test_the_addresses_are_known_on_any_spelling(world: World, path: str) -> None:
    fields = world.request(method="omari", phone=PHONE, authemail="customer@example.com")
    assert (await world.send(path, wire.sign(fields, USD_KEY)))["status"] == "Ok"
    otp = [("id", "1201"), ("otp", world.sandbox.otp_of("INV-1")), ("status", "Message")]
    address = f"{path.lower().replace('transaction', 'otp')}?guid={world.sandbox.find('INV-1').guid}"
    assert (await world.send(address, wire.sign(otp, USD_KEY)))["status"] == "Paid"


async def test_a_wrong_hash_is_refused_as_for_initiate(world: World) -> None:
    assert (await world.express(key=ZIG_KEY))["error"].startswith("Invalid Hash.  Hash should start with: ")


@pytest.mark.parametrize("method", METHODS)
async def test_a_method_that_is_not_active_is_refused_others_work(world: World, method: str) -> None:
    world.sandbox.integrations["1201"].methods.discard(method)
    assert (await world.express(method))["error"] == f"no ACTIVE {method} payment method"
    assert (await world.express(next(one for one in METHODS if one != method)))["status"] == "Ok"
    assert (await world.express(method, ZIG_KEY, id="1202"))["status"] == "Ok"


async def test_innbucks_needs_no_phone(world: World) -> None:
    assert (await world.express("innbucks", phone=None))["status"] == "Ok"
    assert world.sandbox.prompts == {}


async def test_a_merchanttrace_is_used_once_by_either_kind_of_request(world: World) -> None:
    await world.express(merchanttrace="t1")
    assert (await world.express(merchanttrace="t1"))["error"] == "Duplicate merchanttrace"
    assert (await world.initiate(merchanttrace="t1"))["error"] == "Duplicate merchanttrace"
    assert world.sandbox.prompts == {PHONE: 1}


async def test_prompts_are_counted_per_phone(world: World) -> None:
    """A PIN prompt and an OTP by SMS count; a code that is shown at the merchant reaches no phone."""
    for number, method in enumerate(["ecocash", "onemoney", "omari", "innbucks"]):
        await world.express(method, reference=f"INV-{number}")
    await world.express(phone="0719999999")
    assert world.sandbox.prompts == {PHONE: 3, "0719999999": 1}


# --- the PIN prompt


@pytest.mark.parametrize("method", ["ecocash", "onemoney"])
async def test_the_right_pin_pays_and_is_announced(world: World, method: str) -> None:
    await world.express(method)
    assert (await world.sandbox.approve("INV-1")).status == "Paid"
    await world.sandbox.settled()
    assert world.merchant.statuses == ["Paid"]
    assert (await world.poll())["status"] == "Paid"


async def test_the_third_wrong_pin_fails_the_transaction(world: World) -> None:
    await world.express()
    for pin, words in (("0000", "2 more"), ("123", "1 more"), ("0000", "the payment failed")):
        with pytest.raises(WrongPin, match=words):
            await world.sandbox.approve("INV-1", pin)
    assert world.sandbox.find("INV-1").history == ["Created", "Sent", "Failed"]
    await world.sandbox.settled()
    assert world.merchant.statuses == ["Failed"]


async def test_a_right_pin_after_wrong_ones_pays(world: World) -> None:
    await world.express()
    with pytest.raises(WrongPin):
        await world.sandbox.approve("INV-1", "0000")
    assert (await world.sandbox.approve("INV-1", "0001")).status == "Paid"


@pytest.mark.parametrize("method", METHODS)
async def test_declining_cancels(world: World, method: str) -> None:
    await world.express(method)
    assert (await world.sandbox.decline("INV-1")).status == "Cancelled"
    await world.sandbox.settled()
    assert world.merchant.statuses == ["Cancelled"]


@pytest.mark.parametrize("act", ["approve", "decline"])
async def test_a_prompt_is_answered_once(world: World, act: str) -> None:
    await world.express()
    await world.sandbox.approve("INV-1")
    with pytest.raises(WrongMove, match=r"INV-1 is Paid: no (PIN|answer) is asked for any more"):
        await getattr(world.sandbox, act)("INV-1")


async def test_who_was_not_prompted_cannot_answer(world: World) -> None:
    await world.initiate()
    await world.express("omari", reference="INV-2")
    for reference, kind in (("INV-1", "web"), ("INV-2", "O'mari")):
        with pytest.raises(WrongMove, match=f"{reference} is paid by {kind}: no PIN is asked for"):
            await world.sandbox.approve(reference)
    with pytest.raises(WrongMove, match="INV-1 is paid by web"):
        await world.sandbox.decline("INV-1")
    with pytest.raises(UnknownReference):
        await world.sandbox.approve("INV-3")


@pytest.mark.parametrize(("act", "status"), [("pay", "Paid"), ("cancel", "Cancelled"), ("fail", "Failed")])
@pytest.mark.parametrize("method", METHODS)
async def test_the_moves_of_web_transactions_work_too(world: World, method: str, act: str, status: str) -> None:
    await world.express(method)
    await getattr(world.sandbox, act)("INV-1")
    assert (await world.poll())["status"] == status


# --- O'mari's OTP


async def test_the_right_otp_pays_and_is_answered_by_a_status_message(world: World) -> None:
    """It is posted to the remoteotpurl of the reply."""
    opened = await world.express("omari")
    otp = world.sandbox.otp_of("INV-1")
    assert re.fullmatch("[0-9]{6}", otp)
    assert opened["otpreference"] == world.sandbox.find("INV-1").otp_reference
    path = opened["remoteotpurl"].removeprefix(world.url)
    fields = [("id", "1201"), ("otp", otp), ("status", "Message")]
    reply = await world.send(path, wire.sign(fields, USD_KEY))
    assert reply.pairs == (await world.poll()).pairs
    assert (reply["status"], signed(reply.pairs)) == ("Paid", True)
    await world.sandbox.settled()
    assert world.merchant.statuses == ["Paid"]
    assert world.sandbox.calls["otp"] == 1


def wrong(otp: str) -> str:
    return otp[:-1] + str((int(otp[-1]) + 1) % 10)


async def test_the_fifth_wrong_otp_cancels(world: World) -> None:
    await world.express("omari")
    otp = world.sandbox.otp_of("INV-1")
    for tries in range(1, 6):
        assert world.sandbox.find("INV-1").status == "Sent"
        assert (await world.otp(wrong(otp))).raw == b"status=Error&error=Invalid+OTP"
        assert world.sandbox.find("INV-1").otp_failures == tries
    await world.sandbox.settled()
    assert world.merchant.statuses == ["Cancelled"]
    assert (await world.otp(otp))["error"] == "INV-1 is Cancelled: no OTP is asked for any more"


async def test_four_wrong_otps_leave_the_right_one_its_chance(world: World) -> None:
    await world.express("omari")
    for _ in range(4):
        await world.otp("")
    assert (await world.otp(world.sandbox.otp_of("INV-1")))["status"] == "Paid"


async def test_otps_differ(world: World) -> None:
    for number in range(8):
        await world.express("omari", reference=f"INV-{number}")
    assert len({transaction.otp for transaction in world.sandbox.transactions}) > 1


async def test_an_otp_is_taken_from_the_merchant_for_its_omari_transactions_only(world: World) -> None:
    await world.express("omari")
    await world.express(reference="INV-2")
    otp = world.sandbox.otp_of("INV-1")
    assert (await world.otp(otp, key=ZIG_KEY, id="1202"))["error"] == "Transaction not found"
    assert (await world.otp(otp, key=ZIG_KEY))["error"].startswith("Invalid Hash.")
    assert (await world.otp("", "INV-2"))["error"] == "INV-2 is paid by EcoCash: no OTP is asked for"
    unknown = await world.send(
        "/interface/remoteotp?guid=x",
        wire.sign([("id", "1201"), ("otp", otp), ("status", "Message")], USD_KEY),
    )
    assert unknown["error"] == "Transaction not found"
    assert world.sandbox.find("INV-1").otp_failures == 0
    with pytest.raises(NoSuchCode, match="INV-2 has no OTP"):
        world.sandbox.otp_of("INV-2")


# --- InnBucks' code


async def test_the_code_pays_once(world: World) -> None:
    reply = await world.express("innbucks")
    code = world.sandbox.code_of("INV-1")
    assert (reply["authorizationcode"], code.isdecimal()) == (code, True)
    assert (await world.sandbox.pay_code(code)).status == "Paid"
    await world.sandbox.settled()
    assert world.merchant.statuses == ["Paid"]
    with pytest.raises(NoSuchCode, match="used up: its payment is Paid"):
        await world.sandbox.pay_code(code)


async def test_a_code_has_its_life(world: World) -> None:
    world.sandbox.code_seconds = 0
    await world.express("innbucks")
    with pytest.raises(NoSuchCode, match="has expired"):
        await world.sandbox.pay_code(world.sandbox.code_of("INV-1"))
    assert world.sandbox.find("INV-1").status == "Sent"


async def test_an_unknown_code_pays_nothing(world: World) -> None:
    await world.express()
    with pytest.raises(NoSuchCode, match="no payment has the code 12345"):
        await world.sandbox.pay_code("12345")
    with pytest.raises(LookupError, match="INV-1 has no code"):
        world.sandbox.code_of("INV-1")


async def test_the_expiry_is_told_in_hararean_time(world: World) -> None:
    """Ten minutes from now, to the minute."""
    told = (await world.express("innbucks"))["authorizationexpires"]
    expires = world.sandbox.find("INV-1").code_expires
    assert expires is not None
    assert told == wire_time(expires)
    assert timedelta() < expires - datetime.now(UTC) <= timedelta(minutes=10)


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        (datetime(2026, 11, 28, 12, 5, 59, tzinfo=UTC), "28-Nov-2026 14:05"),
        (datetime(2026, 12, 31, 22, 0, tzinfo=UTC), "1-Jan-2027 00:00"),
        (datetime(2026, 7, 1, 0, 0, tzinfo=HARARE), "1-Jul-2026 00:00"),
    ],
)
def test_the_expiry_has_no_leading_zero_and_no_summer_time(moment: datetime, told: str) -> None:
    assert wire_time(moment) == told


def test_the_expiry_names_months_in_english() -> None:
    """Not by strftime, which follows the machine's language."""
    told = [wire_time(datetime(2026, month, 9, tzinfo=HARARE)) for month in range(1, 13)]
    assert " ".join(text[2:5] for text in told) == "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec"
