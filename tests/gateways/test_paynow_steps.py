"""What Paynow's express customers do next: type a one-time password, show a code before its end (section 3)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from payments_service.errors import NotAccepted, Untrusted
from payments_service.gateways.base import (
    ShowCode,
)
from payments_service.gateways.paynow import Paynow
from payments_service.gateways.paynow_wire import parse_moment
from payments_service.lifecycle import Outcome
from payments_service.sandbox import wire
from payments_service.sandbox.paynow import PaynowSandbox
from payments_service.sandbox.paynow_express import wire_time
from tests.gateways import paynow_stage
from tests.gateways.paynow_stage import (
    LOCAL,
    ODD,
    USD,
    USD_ID,
    USD_KEY,
    ZIG_KEY,
    Liar,
    open_by,
    open_otp,
    opened,
)
from tests.gateways.test_paynow import FOREIGN, on

stage, sandbox, transport = paynow_stage.stage, paynow_stage.sandbox, paynow_stage.transport  # fixtures
paynow, liar = paynow_stage.paynow, paynow_stage.liar

# --- the one-time password


async def test_the_otp_on_the_wire(paynow: Paynow, liar: Liar) -> None:
    """To the address of the step, once: id, password, the literal `Message`, and a hash over them."""
    liar.message(status="Paid")
    await paynow.confirm(USD, opened(), f"{liar.url}/Interface/RemoteOtp/?guid=C7ED", "012345")
    assert liar.paths == ["POST /Interface/RemoteOtp/?guid=C7ED"]
    expected = [("id", USD_ID), ("otp", "012345"), ("status", "Message")]
    pairs = parse_qsl(liar.requests[0].decode("ascii"), strict_parsing=True)
    assert pairs == [*expected, ("hash", wire.digest(expected, USD_KEY))]


async def test_the_right_otp_is_taken_and_only_a_look_up_proves_the_money(
    paynow: Paynow, sandbox: PaynowSandbox
) -> None:
    attempt, url, otp = await open_otp(paynow, sandbox)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.PENDING
    assert await paynow.confirm(USD, attempt, url, otp) is None  # type: ignore[func-returns-value]
    assert sandbox.calls == {"express": 1, "poll": 1, "otp": 1}
    report = await paynow.check(USD, attempt)
    assert (report.outcome, report.amount, report.reference) == (Outcome.PAID, attempt.amount, attempt.reference)


async def test_a_wrong_otp_is_not_accepted_and_the_fifth_ends_the_try(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """After four the right one would still do; after five the try has failed and the right one comes too late."""
    attempt, url, otp = await open_otp(paynow, sandbox)
    wrong = "1" * 6 if otp != "1" * 6 else "2" * 6
    for _ in range(4):
        with pytest.raises(NotAccepted, match="Invalid OTP"):
            await paynow.confirm(USD, attempt, url, wrong)
        assert (await paynow.check(USD, attempt)).outcome is Outcome.PENDING
    with pytest.raises(NotAccepted):
        await paynow.confirm(USD, attempt, url, wrong)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.FAILED
    with pytest.raises(NotAccepted):
        await paynow.confirm(USD, attempt, url, otp)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.FAILED
    assert sandbox.prompts == {LOCAL: 1}


@pytest.mark.parametrize("fault", ODD)
async def test_an_otp_whose_answer_is_odd_was_neither_taken_nor_refused(
    paynow: Paynow, sandbox: PaynowSandbox, fault: str
) -> None:
    """It went through: a customer who was told otherwise would pay twice. Sent once; a look-up tells."""
    attempt, url, otp = await open_otp(paynow, sandbox)
    sandbox.add_fault(fault, on=["otp"], seconds=0.0)
    with pytest.raises(ODD[fault]):
        await paynow.confirm(USD, attempt, url, otp)
    assert sandbox.calls == {"express": 1, "otp": 1}
    assert (await paynow.check(USD, attempt)).outcome is Outcome.PAID


@pytest.mark.parametrize("reference", ["INV-2", "", "inv-1", "INV-1-2"])
async def test_an_otp_answered_about_another_transaction_is_not_taken(
    paynow: Paynow, liar: Liar, reference: str
) -> None:
    liar.message(reference=reference)
    with pytest.raises(Untrusted, match="another transaction"):
        await paynow.confirm(USD, opened(), f"{liar.url}/otp", "123456")


async def test_an_otps_answer_of_another_key_is_not_believed(paynow: Paynow, liar: Liar) -> None:
    """Signed by the tenant's other integration, or not at all."""
    fields = [("reference", "INV-1"), ("status", "Paid")]
    for body in (wire.encode(wire.sign(fields, ZIG_KEY)), wire.encode(fields)):
        liar.body = body
        with pytest.raises(Untrusted, match="hash"):
            await paynow.confirm(USD, opened(), f"{liar.url}/otp", "123456")


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
async def test_no_otp_is_sent_elsewhere(paynow: Paynow, liar: Liar, attack: str) -> None:
    """Even if another address got into our database: the password stays here, no connection is made."""
    with pytest.raises(Untrusted, match="Paynow's own host") as raised:
        await paynow.confirm(USD, opened(), on(liar.url, attack), "123456")
    assert "123456" not in str(raised.value)
    assert liar.requests == []


# --- a code


async def test_an_innbucks_code_that_is_paid_or_has_ended(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Typed in the app it pays; one that has ended leaves its try pending, for only Paynow can call it failed."""
    attempt, started = await open_by(paynow, "innbucks")
    assert isinstance(started.next_step, ShowCode)
    await sandbox.pay_code(started.next_step.code)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.PAID
    sandbox.code_seconds = -3600.0
    attempt, started = await open_by(paynow, "innbucks")
    assert isinstance(started.next_step, ShowCode)
    assert started.next_step.expires_at is not None
    assert started.next_step.expires_at < datetime.now(UTC) - timedelta(minutes=59)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.PENDING


# --- the end of a code

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 29), timezones=st.just(UTC))  # noqa: DTZ001


@given(MOMENTS, st.sampled_from([str, str.lower, str.upper, str.swapcase]), st.sampled_from(["", " ", "\r\n"]))
def test_a_moment_survives_the_wire_to_the_minute(moment: datetime, case: Callable[[str], str], blank: str) -> None:
    """The simulator writes it, on Harare's clock; read back it is the same moment in UTC without its seconds."""
    written = f"{blank}{case(wire_time(moment))}{blank}"
    read = parse_moment(written)
    assert read == moment.replace(second=0, microsecond=0)
    assert read.tzinfo is UTC


@pytest.mark.parametrize(("number", "month"), list(enumerate(MONTHS, 1)))
def test_months_are_english_whatever_the_machines_language(number: int, month: str) -> None:
    assert parse_moment(f"7-{month}-2026 09:05") == datetime(2026, number, 7, 7, 5, tzinfo=UTC)
    assert parse_moment(f"07-{month}-2026 9:05:59") == datetime(2026, number, 7, 7, 5, tzinfo=UTC)


NUMBERS = st.integers(-1, 99).map(str) | st.integers(0, 99).map("{:02d}".format)
NEARLY = st.builds(
    "{}-{}-{} {}:{}".format,
    NUMBERS,
    st.sampled_from([*MONTHS, "Okt", "Zvi", "Ma\u0131"]),
    st.integers(0, 10_000).map("{:04d}".format),
    NUMBERS,
    NUMBERS,
)


@given(NEARLY | st.text(max_size=40))
@settings(max_examples=500)
@example("1-Jan-0001 00:00")
@example("1-Jan-0001 01:59")
@example("31-Dec-9999 23:59")
@example("29-Feb-2027 10:00")
@example("\u0661-Jan-2026 10:00")
def test_no_text_breaks_the_reading_of_a_moment(text: str) -> None:
    """Either the moment that the text says, or None; never an exception."""
    moment = parse_moment(text)
    if moment is not None:
        day, month, year, clock = text.strip().replace(" ", "-").split("-")
        hour, minute = clock.split(":")[:2]
        said = datetime(int(year), MONTHS.index(month.title()) + 1, int(day), int(hour), int(minute), tzinfo=UTC)
        assert moment + timedelta(hours=2) == said


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "soon", "28-Nov-26 14:05", "28-11-2026 14:05", "28 Nov 2026 14:05", "28-Nov-2026",
        "28-Nov-2026 2:05 PM", "28-Nov-2026T14:05", "28-November-2026 14:05", "0-Nov-2026 14:05", "31-Nov-2026 14:05",
        "28-Nov-2026 24:00", "28-Nov-2026 14:60", "28-Nov-0000 14:05", "28-Nov-2026 14:05 28-Nov-2026 14:05",
        "28-Nov-2026 14:05:", "9" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_moment_is_none(text: str) -> None:
    assert parse_moment(text) is None
