"""The InnBucks simulator on the wire: tokens, codes, their lives, and the traps of the protocol page."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from typing import Any

import pytest

from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.innbucks import DEMO_MERCHANTS, build
from payments_service.sandbox.innbucks_codes import NEW
from payments_service.sandbox.pay_codes import NoSuchCode
from tests import innbucks_world
from tests.innbucks_world import Reply, World

stage, world = innbucks_world.stage, innbucks_world.world  # fixtures

PATHS = {"auth": "/auth/third-party", "generate": "/api/code/generate", "inquiry": "/api/code/inquiry"}


def is_error(reply: Reply, status: int) -> bool:
    """An error of the server itself: JSON whose `status` is a number."""
    return (reply.status, reply["status"]) == (status, status)


# --- auth


async def test_auth_gives_a_token_and_a_response_code_that_is_a_text(world: World) -> None:
    reply = await world.auth()
    assert reply.status == 200
    token = reply["accessToken"]
    assert token
    assert reply.content == {"accessToken": token, "responseCode": "00", "responseDescription": "Auth successful"}


@pytest.mark.parametrize("changes", [{"password": "guessed"}, {"username": "nobody"}])
async def test_wrong_credentials_are_no_merchants(world: World, changes: dict[str, str]) -> None:
    assert is_error(await world.auth(**changes), 401)


async def test_credentials_belong_to_their_own_api_key(world: World) -> None:
    body = {"username": world.merchant.username, "password": world.merchant.password}
    assert is_error(await world.send(PATHS["auth"], body, X_Api_Key=world.other.api_key), 401)


@pytest.mark.parametrize("path", [*PATHS.values(), "/api/code/7/miniStatement"])
@pytest.mark.parametrize("key", ["", "guessed"])
async def test_without_a_known_key_nothing_is_answered(world: World, path: str, key: str) -> None:
    token = (await world.auth())["accessToken"]
    method = "GET" if path.endswith("miniStatement") else "POST"
    reply = await world.send(path, {}, method=method, X_Api_Key=key, Authorization=f"Bearer {token}")
    assert is_error(reply, 401)
    assert reply["error"] == "Unauthorized"


async def test_a_token_lives_for_fifteen_minutes(world: World) -> None:
    await world.made()
    world.now += 899
    assert (await world.statement()).status == 200
    world.now += 1
    assert is_error(await world.statement(), 401)
    world.tokens.clear()
    assert (await world.statement()).status == 200


async def test_tokens_can_be_ended_one_merchants_or_all(world: World) -> None:
    for merchant in (world.merchant, world.other):
        assert (await world.generate(by=merchant)).status == 200
    world.sandbox.expire_tokens(world.merchant.username)
    assert is_error(await world.generate(), 401)
    assert (await world.generate(by=world.other)).status == 200
    world.sandbox.expire_tokens()
    assert is_error(await world.generate(by=world.other), 401)


async def test_a_token_belongs_to_its_merchants_key(world: World) -> None:
    """A cache that several tenants share would show by this."""
    assert is_error(await world.call(PATHS["generate"], {}, X_Api_Key=world.other.api_key), 401)
    assert is_error(await world.call(PATHS["generate"], {}, Authorization="Bearer made-up"), 401)
    assert is_error(await world.call(PATHS["generate"], {}, Authorization="Basic abc"), 401)


# --- generate


async def test_a_code_is_made_for_cents_and_told_as_text(world: World) -> None:
    world.sandbox.plan_code("0123456")
    reply = await world.generate()
    assert reply.status == 200
    told = reply.content
    assert base64.b64decode(told.pop("qrCode"), validate=True).startswith(b"\x89PNG\r\n")
    assert (len(told.pop("stan")), len(told.pop("authNumber"))) == (6, 7)
    assert told == {
        "processedDateTime": "2026-12-11 12:00:00.000",
        "responseCode": 0,
        "responseMsg": "Approved or completed successfully",
        "code": "0123456",
        "amount": "1250",
        "description": "Two bags of cement",
    }


async def test_codes_have_six_to_nine_digits_and_differ(world: World) -> None:
    made = [world.sandbox.mint(world.merchant, "INV-1", "", 1).code for _ in range(400)]
    assert len(set(made)) == 400
    assert {len(code) for code in made} == {6, 7, 8, 9}
    assert any(code.startswith("0") for code in made)
    assert all(code.isascii() and code.isdecimal() for code in made)


async def test_the_same_request_again_makes_a_second_live_code(world: World) -> None:
    first, second = await world.made(), await world.made()
    assert first.code != second.code
    assert first.live
    assert second.live
    assert world.sandbox.find("INV-1") is second


async def test_planned_digits_are_not_given_twice_while_they_live(world: World) -> None:
    for _ in range(2):
        world.sandbox.plan_code("123456")
    first, second = await world.made(), await world.made()
    assert first.code == "123456" != second.code
    world.now += 600
    world.sandbox.plan_code("123456")
    assert (await world.made()).code == "123456"
    with pytest.raises(ValueError, match="6 to 9 digits"):
        world.sandbox.plan_code("12345")


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"reference": ""}, ["Reference is required"]),
        ({"narration": "", "amount": None}, ["Narration is required", "Amount is required"]),
        ({"amount": 0}, ["Amount must be greater than 0"]),
        ({"amount": -5}, ["Amount must be greater than 0"]),
        ({"amount": "1250"}, ["Malformed request: Expected `int | null`, got `str` - at `$.amount`"]),
        ({"amount": 12.5}, ["Malformed request: Expected `int | null`, got `float` - at `$.amount`"]),
        ({"type": "GIFT"}, ["Type is not supported"]),
    ],
)
async def test_a_validation_error_has_a_numeric_status(
    world: World, changes: dict[str, Any], errors: list[str]
) -> None:
    reply = await world.generate(**changes)
    assert reply.status == 400
    assert reply.content == {"timestamp": "2026-12-11T10:00:00.000+00:00", "status": 400, "errors": errors}
    assert world.sandbox.codes == []


async def test_a_body_that_is_no_json_is_refused(world: World) -> None:
    assert is_error(await world.call(PATHS["generate"], b"{"), 400)
    assert is_error(await world.call(PATHS["generate"], b"\xff"), 400)
    assert is_error(await world.call(PATHS["generate"], b"a=1", Content_Type="application/x-www-form-urlencoded"), 415)


# --- inquiry


async def test_a_new_code_tells_how_long_it_lives(world: World) -> None:
    code = await world.made()
    world.now += 24.5
    assert (await world.inquire(code.code)).content == {
        "responseCode": 0,
        "responseMsg": "Approved or completed successfully",
        "code": code.code,
        "amount": "1250",
        "status": "New",
        "timeToLive": "575sec",
    }


async def test_a_code_expires_by_the_clock(world: World) -> None:
    code = await world.made()
    world.now += 599.9
    assert code.status == NEW
    world.now += 0.1
    reply = await world.inquire(code.code)
    assert (reply["responseCode"], reply["status"], reply["timeToLive"]) == (0, "Expired", "0sec")


async def test_the_life_of_new_codes_can_be_set(world: World) -> None:
    world.sandbox.code_seconds = 30
    code = await world.made()
    assert (await world.inquire(code.code))["timeToLive"] == "30sec"


@pytest.mark.parametrize("status", ["Paid", "Claimed", "Expired", "Timed Out", "TimedOut", "Reversed"])
async def test_every_status_is_told(world: World, status: str) -> None:
    code = await world.made()
    await world.sandbox.set_status("INV-1", status)
    reply = await world.inquire(code.code)
    assert (reply.status, reply["responseCode"], reply["status"]) == (200, 0, status)


@pytest.mark.parametrize(("mode", "http"), [("refused", 200), ("http400", 400)])
async def test_a_code_that_is_over_may_be_told_as_a_refusal(world: World, mode: Any, http: int) -> None:
    world.sandbox.finalised = mode
    code = await world.made()
    assert (await world.inquire(code.code))["responseCode"] == 0
    await world.sandbox.claim("INV-1")
    reply = await world.inquire(code.code)
    told = {"responseCode": 1, "responseMsg": "2D Code Expired/Claimed", "status": "Claimed"}
    assert (reply.status, reply.content) == (http, told)


async def test_an_inquiry_needs_a_reference_of_its_own(world: World) -> None:
    """That of an earlier inquiry is used up, and so is the one under which a code was made."""
    code = await world.made()
    assert (await world.inquire(code.code, reference="R-1"))["status"] == "New"
    for used in ("R-1", "INV-1"):
        assert (await world.inquire(code.code, reference=used)).content == {
            "responseCode": 94,
            "responseMsg": "Duplicate transmission",
        }
    theirs = await world.made("INV-2", by=world.other)
    assert (await world.inquire(theirs.code, by=world.other, reference="R-1"))["status"] == "New"


async def test_an_inquiry_without_a_code_is_a_validation_error(world: World) -> None:
    reply = await world.inquire("", reference="")
    assert (reply.status, reply["status"]) == (400, 400)
    assert reply["errors"] == ["Reference is required", "Code is required"]


async def test_of_another_merchants_code_nothing_is_told(world: World) -> None:
    code = await world.made(by=world.other)
    replies = [await world.inquire(code.code), await world.inquire("999999")]
    assert [reply.content for reply in replies] == [{"responseCode": 1, "responseMsg": "2D Code not found"}] * 2


@pytest.mark.parametrize("status", [404, 405])
async def test_only_one_of_the_two_inquiry_addresses_exists(world: World, status: Any) -> None:
    code = await world.made()
    world.sandbox.absent_status = status
    assert is_error(await world.inquire(code.code, path="query"), status)
    world.sandbox.inquiry_path = "/api/code/query"
    assert is_error(await world.inquire(code.code), status)
    assert (await world.inquire(code.code, path="query"))["status"] == "New"
    assert world.sandbox.calls == {"auth": 1, "generate": 1, "inquiry": 1, "absent": 2}


async def test_what_there_is_not_is_told_in_json(world: World) -> None:
    for path, method in (("/api/code/refund", "POST"), ("/api/code/generate", "GET")):
        reply = await world.call(path, method=method)
        assert is_error(reply, 404)
        assert reply["path"] == path


async def test_every_reply_can_be_traced(world: World) -> None:
    code = await world.made()
    replies = [await world.auth(password="x"), await world.inquire(code.code), await world.call("/elsewhere")]
    traces = {reply.headers["X-Trace-Id"] for reply in replies}
    assert len(traces) == 3


async def test_every_reply_can_be_held_back(world: World) -> None:
    world.sandbox.delay_seconds = 0.02
    begun = time.perf_counter()
    assert is_error(await world.auth(password="x"), 401)
    await world.auth()
    assert time.perf_counter() - begun >= 0.04


# --- statement


async def test_a_statement_has_the_newest_codes_first_in_words_of_its_own(world: World) -> None:
    first, second, third = [await world.made(f"INV-{number}", amount=number) for number in (1, 2, 3)]
    await world.made("INV-4", by=world.other)
    world.now += 90
    await world.sandbox.pay("INV-2")
    await world.sandbox.expire("INV-1")
    reply = await world.statement()
    made, closed = "2026-12-11 12:00:00", "2026-12-11 12:01:30"
    assert reply.content == {
        "responseCode": 0,
        "code": [
            {"amount": "3", "code": third.code, "createDate": made, "closedDate": None, "state": "Pending"},
            {"amount": "2", "code": second.code, "createDate": made, "closedDate": closed, "state": "Claimed"},
            {"amount": "1", "code": first.code, "createDate": made, "closedDate": closed, "state": "Expired"},
        ],
    }


async def test_a_statement_is_short_and_ones_own(world: World) -> None:
    world.sandbox.statement_rows = 2
    for _ in range(3):
        await world.made()
    assert len((await world.statement())["code"]) == 2
    reply = await world.statement(world.other.account_id)
    assert reply.content == {"responseCode": 1, "responseMsg": "Account not found"}


# --- the customer


async def test_a_code_is_paid_once(world: World) -> None:
    code = await world.made()
    assert (await world.sandbox.pay_code(code.code)).status == "Paid"
    assert (await world.inquire(code.code))["status"] == "Paid"
    with pytest.raises(NoSuchCode, match="used up: it is Paid") as caught:
        await world.sandbox.pay_code(code.code)
    assert caught.value.why == "used"


async def test_an_expired_or_unknown_code_is_not_paid(world: World) -> None:
    code = await world.made()
    world.now += 600
    with pytest.raises(NoSuchCode) as caught:
        await world.sandbox.pay_code(code.code)
    assert caught.value.why == "expired"
    with pytest.raises(NoSuchCode) as caught:
        await world.sandbox.pay_code("999999")
    assert caught.value.why == "unknown"


async def test_another_amount_than_asked_may_be_paid(world: World) -> None:
    code = await world.made()
    await world.sandbox.pay_code(code.code, 1249)
    assert (await world.inquire(code.code))["amount"] == "1249"
    assert (code.amount, code.paid_amount) == (1250, 1249)
    await world.made("INV-2")
    with pytest.raises(ValueError, match="whole cents"):
        await world.sandbox.pay("INV-2", 0)


async def test_an_expired_code_may_be_paid_all_the_same(world: World) -> None:
    code = await world.made()
    with pytest.raises(WrongMove, match="is New, not Expired"):
        await world.sandbox.pay_late("INV-1")
    world.now += 4000
    with pytest.raises(WrongMove, match="is Expired, not New"):
        await world.sandbox.pay("INV-1")
    await world.sandbox.pay_late("INV-1")
    world.tokens.clear()
    assert (await world.inquire(code.code))["status"] == "Paid"


async def test_a_paid_code_is_claimed_later(world: World) -> None:
    await world.made()
    await world.sandbox.pay("INV-1", 7)
    code = await world.sandbox.claim("INV-1")
    assert (code.status, code.paid_amount) == ("Claimed", 7)
    with pytest.raises(WrongMove):
        await world.sandbox.claim("INV-1")
    with pytest.raises(WrongMove):
        await world.sandbox.expire("INV-1")


async def test_a_code_is_found_by_digits_reference_or_the_leading_part_of_it(world: World) -> None:
    exact, led = await world.made("INV-1"), await world.made("INV-1-K7M2")
    find = world.sandbox.find
    assert find("INV-1") is exact
    assert find("INV-1-K7M2") is find(led.code) is led
    assert find("INV") is led
    with pytest.raises(UnknownReference, match="IN'"):
        find("IN")
    with pytest.raises(ValueError, match="at least one character"):
        await world.sandbox.set_status("INV-1", "")


# --- how it stands beside the rest


async def test_a_merchant_that_changes_its_password_keeps_its_codes(world: World) -> None:
    code = await world.made()
    _, _, key, account, name = DEMO_MERCHANTS[0]
    world.sandbox.add_merchant(world.merchant.username, "changed", key, account, name)
    assert is_error(await world.inquire(code.code), 401)
    world.tokens.clear()
    assert (await world.inquire(code.code))["status"] == "New"


def test_it_shares_nothing_with_the_adapter() -> None:
    """An import of payments_service.gateways would let one mistake hide another."""
    loaded = "import payments_service.sandbox.innbucks, sys; print([m for m in sys.modules if '.gateways' in m])"
    out = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_it_prints_no_secret() -> None:
    shown = repr(build("").merchants)
    assert not [secret for _, *secrets, _, _ in DEMO_MERCHANTS for secret in secrets if secret in shown]


async def test_nothing_is_ever_under_way(world: World) -> None:
    """The gateway posts nothing: it has what the other simulators have to wait for it and to end it."""
    await world.made()
    await world.sandbox.settled()
    await world.sandbox.close()
