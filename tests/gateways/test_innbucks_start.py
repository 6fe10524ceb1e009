"""InnBucks' adapter: what is asked for when a code is made, what of the answer is believed, and what is concluded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from payments_service.errors import Ambiguous, Because, GatewayError, Refused, Unreachable, Untrusted
from payments_service.gateways.base import NextStep, ShowCode, Started
from payments_service.gateways.innbucks import Innbucks
from payments_service.gateways.innbucks_wire import narration
from payments_service.lifecycle import Outcome
from payments_service.money import Currency, Money
from tests.gateways import innbucks_stage
from tests.gateways.innbucks_stage import (
    API_KEY,
    AUTH,
    CODE,
    CREDENTIALS,
    GATEWAY_REFERENCE,
    GENERATE,
    INQUIRY,
    PASSWORD,
    QUERY,
    Liar,
    Said,
    concluded,
    opened,
    request,
)

stage, transport, liar = innbucks_stage.stage, innbucks_stage.transport, innbucks_stage.liar  # fixtures
innbucks, hasty, clock = innbucks_stage.innbucks, innbucks_stage.hasty, innbucks_stage.clock


async def refusal_of(innbucks: Innbucks) -> Refused:
    with pytest.raises(Refused) as refused:
        await innbucks.start(CREDENTIALS, request())
    return refused.value


# --- what is sent


async def test_a_code_is_asked_for_with_exactly_this(innbucks: Innbucks, liar: Liar) -> None:
    """A sign-in, one generate in whole cents, one look at the new code; the key on each, the token on all but the
    first."""
    asked = request()
    await innbucks.start(CREDENTIALS, asked)
    signing_in, making, looking = liar.seen
    assert (signing_in.path, signing_in.body) == (AUTH, {"username": "acme", "password": PASSWORD})
    assert making.path == GENERATE
    assert making.body == {
        "reference": asked.reference,
        "narration": "Two bags of cement",
        "amount": 1250,
        "type": "PAYMENT",
    }
    assert (looking.path, looking.body["code"]) == (INQUIRY, CODE)
    assert [seen.headers["x-api-key"] for seen in liar.seen] == [API_KEY] * 3
    assert [seen.headers["content-type"] for seen in liar.seen] == ["application/json"] * 3
    assert [seen.token for seen in liar.seen] == ["", *[f"Bearer {liar.tokens[0]}"] * 2]


@pytest.mark.parametrize(
    ("description", "told"),
    [
        ("Two bags of cement", "Two bags of cement"),
        (" Two\n\tbags\x00 of\x1b cement ", "Two bags of cement"),
        ("Caf\u00e9 \u2013 3 \u00d7 5 \u2603", "Cafe 3 5"),
        ("😀😀", "INV-1"),
        ("", "INV-1"),
        ("x" * 5000, "x" * 100),
        ("x" * 99 + " and more", "x" * 99),
    ],
)
def test_a_narration_is_a_short_line_of_plain_text(description: str, told: str) -> None:
    """Our reference where nothing is left of it."""
    assert narration(description, "INV-1") == told


# --- what comes out


async def test_the_code_is_shown_with_its_end_its_link_and_its_number(innbucks: Innbucks, liar: Liar) -> None:
    """The end is InnBucks' `timeToLive` from now; what is stored names the code, the approval and our reference."""
    asked, before = request(), datetime.now(UTC)
    started = await innbucks.start(CREDENTIALS, asked)
    step = started.next_step
    assert isinstance(step, ShowCode)
    assert (step.code, step.dial) == (CODE, "*569#")
    assert step.app_url == f"com.innbucks.customer://purchase?paymentToken={CODE}"
    assert step.expires_at
    assert before <= step.expires_at - timedelta(seconds=576) <= datetime.now(UTC)
    assert started.gateway_reference == GATEWAY_REFERENCE
    assert started.poll_url == f"{GATEWAY_REFERENCE} {asked.reference}"
    assert msgspec.json.decode(msgspec.json.encode(step), type=NextStep) == step


@pytest.mark.parametrize(
    ("changes", "reference"),
    [
        ({"authNumber": 1616800}, GATEWAY_REFERENCE),
        ({"authNumber": None}, f"{CODE}-414107"),
        ({"authNumber": "", "stan": 414107}, f"{CODE}-414107"),
        ({"authNumber": "a b", "stan": "1" * 21}, rf"{CODE}-20[0-9]{{6}}"),
        ({"authNumber": None, "stan": None}, rf"{CODE}-20[0-9]{{6}}"),
    ],
)
async def test_the_gateway_reference_is_the_code_and_what_tells_it_from_its_reuse(
    innbucks: Innbucks, liar: Liar, changes: Mapping[str, object], reference: str
) -> None:
    """InnBucks' number of the approval, else its trace number, else the day; the same at the start and at each look."""
    liar.generate(**changes)
    asked = request()
    started = await innbucks.start(CREDENTIALS, asked)
    assert re.fullmatch(reference, started.gateway_reference or "")
    report = await innbucks.check(CREDENTIALS, opened(started.poll_url, reference=asked.reference))
    assert report.gateway_reference == started.gateway_reference


@pytest.mark.parametrize("approval", [0, "0", "00", "000", " 00 "])
async def test_an_approval_comes_in_these_shapes(innbucks: Innbucks, liar: Liar, approval: object) -> None:
    """A number or a text of zeros, cents as either; the code with its leading zeros."""
    codes, amounts = ["0012", "701285", CODE, "012345678901"], ["1250", 1250, "000000001250", " 1250 "]
    for code, amount in zip(codes, amounts, strict=True):
        liar.generate(responseCode=approval, amount=amount, code=code)
        liar.inquiry(code=code)
        started = await innbucks.start(CREDENTIALS, request())
        assert isinstance(started.next_step, ShowCode)
        assert started.next_step.code == code


# --- how long it can be paid


@pytest.mark.parametrize(
    ("told", "seconds"),
    [("576sec", 576), ("30 secs", 30), ("599", 599), (480, 480), ("0sec", 0), ("86400s", 86400)]
    + [(odd, 600) for odd in (None, "", "soon", "-5sec", -5, 5.5, "9min", True, ["5"], "86401sec", "9" * 400)],
)
async def test_the_end_is_what_innbucks_says_or_ten_minutes(
    innbucks: Innbucks, liar: Liar, told: object, seconds: int
) -> None:
    liar.inquiry(timeToLive=told)
    before = datetime.now(UTC)
    started = await innbucks.start(CREDENTIALS, request())
    assert isinstance(started.next_step, ShowCode)
    assert started.next_step.expires_at
    assert before <= started.next_step.expires_at - timedelta(seconds=seconds) <= datetime.now(UTC)


@pytest.mark.parametrize(
    "said",
    [
        Said(b"<html>"),
        Said(b""),
        Said([]),
        Said({"status": 400, "errors": ["Code is required"]}, 400),
        Said({"status": "New", "timeToLive": "5sec"}, 500),
        Said({"status": "New", "timeToLive": "5sec", "code": "999999999"}),
        Said(b"", 302, {"Location": "/"}),
        Said(b"x" * 1_100_000),
    ],
    ids=repr,
)
async def test_whatever_goes_wrong_with_the_look_at_the_new_code_is_passed_over(
    innbucks: Innbucks, liar: Liar, said: Said
) -> None:
    """It is shown, with the usual life; asked once."""
    liar.says[INQUIRY] = said
    before = datetime.now(UTC)
    started = await innbucks.start(CREDENTIALS, request())
    assert isinstance(started.next_step, ShowCode)
    assert started.next_step.expires_at
    assert before <= started.next_step.expires_at - timedelta(minutes=10) <= datetime.now(UTC)
    assert len(liar.asked(GENERATE)) == len(liar.asked(INQUIRY)) == 1


async def test_a_look_that_is_never_answered_does_not_hold_the_code_up(hasty: Innbucks, liar: Liar) -> None:
    held = liar.hold(INQUIRY)
    started = await hasty.start(CREDENTIALS, request())
    held.set()
    assert isinstance(started.next_step, ShowCode)


@pytest.mark.parametrize("shape", [{"code": CODE, "amount": "1250"}, {}])
async def test_a_new_code_that_is_paid_already_is_never_shown(
    innbucks: Innbucks, liar: Liar, shape: Mapping[str, object]
) -> None:
    """It is an old one come round again: its payment would be taken for this one's."""
    liar.says[INQUIRY] = Said({"responseCode": 1, "status": "Claimed", **shape})
    with pytest.raises(Untrusted, match="paid already"):
        await innbucks.start(CREDENTIALS, request())


# --- a sure no


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (Said({"responseCode": 13, "responseMsg": "Invalid amount"}), "InnBucks says: Invalid amount"),
        (Said({"responseCode": "57", "responseMsg": "Not  permitted\n"}), "InnBucks says: Not permitted"),
        (Said({"status": 400, "errors": ["Amount is required", "Type is required"]}, 400), "Amount is required; Type"),
        (Said({"status": 403, "error": "Forbidden"}, 403), "InnBucks says: Forbidden"),
        (Said({"code": "E77", "message": "no such merchant"}, 404), "no such merchant"),
        (Said({}, 422), "HTTP 422"),
        (Said({"responseCode": 1, "responseMsg": "x" * 5000}), "x" * 200),
    ],
    ids=repr,
)
async def test_a_no_of_innbucks_own_is_a_refusal_in_its_words(
    innbucks: Innbucks, liar: Liar, said: Said, words: str
) -> None:
    """Asked once, and the code is not looked at: there is none."""
    liar.says[GENERATE] = said
    error = await refusal_of(innbucks)
    assert words in error.detail
    assert len(error.detail) < 300
    assert error.because is Because.OTHER
    assert len(liar.asked(GENERATE)) == 1
    assert not liar.asked(INQUIRY)


async def test_words_that_repeat_a_secret_are_left_out(innbucks: Innbucks, liar: Liar) -> None:
    """The password, the key or the token, in whichever case."""
    for secret in (PASSWORD.upper(), API_KEY, "%token%"):
        liar.says[GENERATE] = Said({"responseCode": 5, "responseMsg": f"what is {secret}?"})
        with pytest.raises(GatewayError) as told:
            await innbucks.start(CREDENTIALS, request())
        assert "what is" not in told.value.detail


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_not_accepted_are_told_with_the_fields_to_compare(
    innbucks: Innbucks, liar: Liar, status: int
) -> None:
    """This way to pay is not open to the tenant: nothing was asked for."""
    liar.says[AUTH] = Said({"responseCode": "05", "responseDescription": "Bad credentials"}, status)
    error = await refusal_of(innbucks)
    assert error.because is Because.METHOD
    for field in ("innbucks_username", "innbucks_password", "innbucks_api_key", "Bad credentials"):
        assert field in error.detail
    assert not liar.asked(GENERATE)


@pytest.mark.parametrize(
    "said",
    [
        Said({"responseCode": "05", "responseDescription": "x"}),
        Said({"responseCode": 5, "accessToken": "t"}),
        Said({"error": "invalid"}, 400),
        Said(b"", 401),
        Said(b"<html>", 403),
    ],
    ids=repr,
)
async def test_every_no_to_a_sign_in_is_a_refusal(innbucks: Innbucks, liar: Liar, said: Said) -> None:
    liar.says[AUTH] = said
    assert (await refusal_of(innbucks)).because is Because.METHOD


# --- not a sure no


@pytest.mark.parametrize(
    "said",
    [
        Said(b"<html>"),
        Said(b""),
        Said([]),
        Said({}),
        Said({"accessToken": "t"}),
        Said({"responseCode": "00"}),
        Said({"responseCode": "00", "accessToken": ""}),
        Said({"responseCode": "00", "accessToken": "a\r\nX-Evil: 1"}),
        Said({"responseCode": "00", "accessToken": "snow ☃"}),
        Said({"responseCode": "00", "accessToken": 5}),
        Said({"responseCode": False, "accessToken": "t"}),
        Said({"error": "x"}, 404),
        Said({"error": "x"}, 429),
        Said(b"<html>", 400),
        Said(b"", 500),
        Said({"responseCode": "05"}, 503),
        Said(b"", 302, {"Location": "/"}),
        Said(b"x" * 1_100_000),
    ],
    ids=repr,
)
async def test_a_sign_in_that_brings_no_token_began_nothing(innbucks: Innbucks, liar: Liar, said: Said) -> None:
    """Unreachable, whatever it was: no code was asked for."""
    liar.says[AUTH] = said
    with pytest.raises(Unreachable):
        await innbucks.start(CREDENTIALS, request())
    assert [seen.path for seen in liar.seen] == [AUTH]


async def test_a_sign_in_that_is_never_answered_began_nothing(hasty: Innbucks, liar: Liar) -> None:
    held = liar.hold(AUTH)
    with pytest.raises(Unreachable):
        await hasty.start(CREDENTIALS, request())
    held.set()


async def test_too_many_requests_began_nothing(innbucks: Innbucks, liar: Liar) -> None:
    liar.says[GENERATE] = Said({"message": "slow down"}, 429)
    with pytest.raises(Unreachable):
        await innbucks.start(CREDENTIALS, request())
    assert len(liar.asked(GENERATE)) == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Said(b"<html>"), Untrusted),
        (Said(b""), Untrusted),
        (Said(b"\xff\xfe"), Untrusted),
        (Said(b'{"responseCode":0,"code":"7012'), Untrusted),
        (Said(b"[" * 100_000), Untrusted),
        (Said([]), Untrusted),
        (Said({}), Untrusted),
        (Said({"responseCode": 5}), Untrusted),
        (Said({"responseMsg": "Approved or completed successfully"}), Untrusted),
        (Said({"responseCode": 5, "responseMsg": "no", "code": CODE}), Untrusted),
        (Said(b"", 302, {"Location": "/"}), Untrusted),
        (Said(b"x" * 1_100_000), Untrusted),
        (Said({"responseCode": 0, "code": CODE, "amount": "1250"}, 400), Ambiguous),
        (Said(b"<html>", 400), Ambiguous),
        (Said(b"", 404), Ambiguous),
        (Said({"error": "x"}, 408), Ambiguous),
        (Said(b"", 500), Ambiguous),
        (Said({"responseCode": 13, "responseMsg": "Invalid amount"}, 500), Ambiguous),
        (Said(b"<html>", 503), Ambiguous),
    ],
    ids=repr,
)
async def test_an_odd_answer_is_neither_refused_nor_started_nor_asked_for_again(
    innbucks: Innbucks, liar: Liar, said: Said, kind: type[Exception]
) -> None:
    """A code may be there, which nobody was shown; another try could make a second one."""
    liar.says[GENERATE] = said
    with pytest.raises(kind):
        await innbucks.start(CREDENTIALS, request())
    assert len(liar.asked(GENERATE)) == 1


async def test_a_lost_answer_is_ambiguous_and_not_asked_for_again(hasty: Innbucks, liar: Liar) -> None:
    """The code that it may have brought was shown to nobody: a look-up says so without asking."""
    held = liar.hold(GENERATE)
    with pytest.raises(Ambiguous):
        await hasty.start(CREDENTIALS, request())
    held.set()
    assert len(liar.asked(GENERATE)) == 1
    before = len(liar.seen)
    report = await hasty.check(CREDENTIALS, opened(None))
    assert (report.outcome, report.said) == (Outcome.NEVER_STARTED, "no code was shown")
    assert len(liar.seen) == before


@pytest.mark.parametrize(
    "changes",
    [{"code": code} for code in (None, "", 701285660, "123", "1234567890123", "70 1285", "abc123", "٧٠١٢٨٥", ["1234"])]
    + [{"responseCode": code} for code in (None, False, 0.0, "", "0x0", [], "OK")],
    ids=repr,
)
async def test_what_is_no_approval_with_a_code_is_not_shown(
    innbucks: Innbucks, liar: Liar, changes: Mapping[str, object]
) -> None:
    """A code that came as a number may have lost its leading zeros."""
    liar.generate(**changes)
    assert await concluded(innbucks.start(CREDENTIALS, request())) in (Untrusted, Refused)
    assert not liar.asked(INQUIRY)


@pytest.mark.parametrize(
    "amount", [None, "", "1251", "1249", 125, 1250.0, "12.50", "1250.00", "-1250", "١٢٥٠", True, [1250], "USD 1250"]
)
async def test_a_code_for_another_amount_is_not_shown(innbucks: Innbucks, liar: Liar, amount: Any) -> None:
    """Nor one whose amount is not told, or in a way that nobody agreed on."""
    liar.generate(amount=amount)
    with pytest.raises(Untrusted, match="amount"):
        await innbucks.start(CREDENTIALS, request())


@pytest.mark.parametrize("cents", [1, 99, 100, 99_999_999_999])
async def test_every_cent_arrives_and_comes_back(innbucks: Innbucks, liar: Liar, cents: int) -> None:
    started = await innbucks.start(CREDENTIALS, request(amount=Money(cents, Currency.USD)))
    assert isinstance(started, Started)
    assert liar.asked(GENERATE)[0].body["amount"] == cents


async def test_the_other_path_is_learnt_at_the_first_code(innbucks: Innbucks, liar: Liar) -> None:
    """Where look-ups are at the older path, the end is known all the same."""
    liar.says[INQUIRY] = Said(b"<html>", 404)
    liar.inquiry(200, QUERY, timeToLive="30sec")
    for _ in range(2):
        started = await innbucks.start(CREDENTIALS, request())
        assert isinstance(started.next_step, ShowCode)
        assert started.next_step.expires_at
        assert started.next_step.expires_at < datetime.now(UTC) + timedelta(minutes=1)
    assert (len(liar.asked(INQUIRY)), len(liar.asked(QUERY))) == (1, 2)
