"""Paynow's express checkout: the adapter against its simulator, and against a server that lies (section 3)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from payments_service.errors import Ambiguous, Because, NotAccepted, Refused, Unreachable, Untrusted
from payments_service.gateways.base import (
    ApproveOnPhone,
    EnterOtp,
    NextStep,
    Redirect,
    ShowCode,
    Started,
)
from payments_service.gateways.paynow import WEB, Paynow
from payments_service.gateways.transport import Transport
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money
from payments_service.sandbox import wire
from payments_service.sandbox.hands import WrongPin
from payments_service.sandbox.paynow import PaynowSandbox
from tests.gateways import paynow_stage
from tests.gateways.paynow_stage import (
    EMAIL,
    LOCAL,
    METHODS,
    ODD,
    OWNER,
    PHONE,
    TRUSTING,
    USD,
    USD_ID,
    USD_KEY,
    ZIG,
    ZIG_KEY,
    Hasty,
    Liar,
    accept,
    ask,
    attempt_of,
    concluded,
    open_by,
    open_otp,
)
from tests.gateways.test_paynow import FOREIGN, UNREADABLE, on
from tests.house import eventually
from tests.servers import Stage, listen
from tests.support import Log

AMOUNT = Money(1250, Currency.USD)

stage, sandbox, transport = paynow_stage.stage, paynow_stage.sandbox, paynow_stage.transport  # fixtures
paynow, liar = paynow_stage.paynow, paynow_stage.liar

# --- what is offered


@pytest.mark.parametrize(
    ("theirs", "ours", "chosen", "expected"),
    [
        (None, None, METHODS, []),
        ("", None, METHODS, []),
        (EMAIL, None, METHODS, METHODS),
        (None, OWNER, METHODS, METHODS),
        (EMAIL, OWNER, ["omari", "ecocash"], ["ecocash", "omari"]),
        (EMAIL, OWNER, ["innbucks"], ["innbucks"]),
        (EMAIL, OWNER, ["none"], []),
        (EMAIL, OWNER, ["vmc", "web", ""], []),
        (EMAIL, OWNER, [], []),
    ],
)
def test_express_is_offered_with_an_email_and_as_the_tenant_chose(
    theirs: str | None, ours: str | None, chosen: list[str], expected: list[str]
) -> None:
    """The customer's or the tenant's e-mail will do; in the gateway's own order; Paynow's page is always there."""
    credentials = replace(USD, auth_email=ours, express=frozenset(chosen))
    offered = Paynow(None, "https://x").offered(credentials, theirs, AMOUNT)  # type: ignore[arg-type]
    assert [method.name for method in offered] == [*expected, "web"]


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, METHODS),
        ("", METHODS),
        ("none", []),
        ("ecocash", ["ecocash"]),
        ("omari,ecocash", ["ecocash", "omari"]),
        (" innbucks ,\tonemoney ", ["onemoney", "innbucks"]),
    ],
)
async def test_the_saved_text_chooses_the_methods(paynow: Paynow, saved: str | None, expected: list[str]) -> None:
    """Nothing saved: all of them; blanks around the commas do not matter."""
    values = {"paynow_integration_id": USD_ID, "paynow_integration_key": USD_KEY, "paynow_express_methods": saved}
    credentials = paynow.credentials({**values, "paynow_auth_email": OWNER}, Currency.USD)
    assert [method.name for method in paynow.offered(credentials, None, AMOUNT)] == [*expected, "web"]
    assert paynow.offered(paynow.credentials({**values, "paynow_auth_email": ""}, Currency.USD), None, AMOUNT) == (WEB,)


# --- what is sent


@pytest.mark.parametrize("method", METHODS)
async def test_the_express_request_on_the_wire(paynow: Paynow, liar: Liar, method: str) -> None:
    """The web request's fields in their order, then method and the phone in local form, the hash last; sent once."""
    accept(liar, method)
    asked = ask(method, description=" Zvinhu é ", amount=Money(5, Currency.USD))
    await paynow.start(TRUSTING, asked)
    assert liar.paths == ["POST /interface/remotetransaction?"]
    expected = [
        ("id", USD_ID),
        ("reference", asked.reference),
        ("amount", "0.05"),
        ("additionalinfo", "Zvinhu é"),
        ("returnurl", asked.return_url),
        ("resulturl", asked.callback_url),
        ("authemail", EMAIL),
        ("merchanttrace", asked.attempt_id.hex),
        ("status", "Message"),
        ("method", method),
        ("phone", LOCAL),
    ]
    pairs = parse_qsl(liar.requests[0].decode("ascii"), strict_parsing=True)
    assert pairs == [*expected, ("hash", wire.digest(expected, USD_KEY))]
    assert len(asked.attempt_id.hex) == 32


@pytest.mark.parametrize(
    ("method", "theirs", "sent"),
    [
        ("ecocash", EMAIL, [EMAIL]),
        ("ecocash", None, [OWNER]),
        ("ecocash", "", [OWNER]),
        ("web", EMAIL, [EMAIL]),
        ("web", None, []),
        ("web", "", []),
    ],
)
async def test_the_email_is_the_customers_and_only_for_express_else_the_tenants(
    paynow: Paynow, liar: Liar, method: str, theirs: str | None, sent: list[str]
) -> None:
    """On Paynow's page the tenant's own would log its customers in as the tenant."""
    accept(liar, browserurl=f"{liar.url}/Payment/ConfirmPayment/9")
    await paynow.start(TRUSTING, ask(method, payer_email=theirs))
    pairs = parse_qsl(liar.requests[0].decode("ascii"), keep_blank_values=True)
    assert [value for name, value in pairs if name == "authemail"] == sent


@pytest.mark.parametrize("missing", [{"payer_email": None}, {"payer_phone": None}, {"payer_email": ""}], ids=str)
@pytest.mark.parametrize("method", METHODS)
async def test_without_an_email_or_a_phone_nothing_is_sent(
    paynow: Paynow, liar: Liar, method: str, missing: dict[str, str | None]
) -> None:
    with pytest.raises(Refused) as raised:
        await paynow.start(USD, ask(method, **missing))
    assert raised.value.because is Because.METHOD
    assert liar.requests == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("credentials", "currency"), [(USD, Currency.USD), (ZIG, Currency.ZIG)])
async def test_a_start_prompts_its_customer_once(
    paynow: Paynow, sandbox: PaynowSandbox, method: str, credentials: Any, currency: Currency
) -> None:
    """Every field arrives under the integration of its currency, by one call, and nobody else's phone rings."""
    asked = ask(method, amount=Money(1250, currency))
    started = await paynow.start(credentials, asked)
    (transaction,) = sandbox.transactions
    assert (transaction.integration.id, transaction.amount) == (credentials.integration_id, asked.amount)
    assert (transaction.method, transaction.phone, transaction.authemail) == (method, LOCAL, EMAIL)
    assert transaction.merchanttrace == asked.attempt_id.hex
    assert (started.poll_url, started.gateway_reference) == (sandbox.pollurl(transaction), str(transaction.number))
    assert sandbox.calls == {"express": 1}
    assert sandbox.prompts == ({} if method == "innbucks" else {LOCAL: 1})


# --- the next step


@pytest.mark.parametrize("method", ["ecocash", "onemoney"])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Dial *151# and enter your PIN", "Dial *151# and enter your PIN"),
        ("  two\r\nlines \t and\u00a0blanks ", "two lines and blanks"),
        ("", ""),
        (" \r\n", ""),
        ("x" * 5000, "x" * 500),
        ("<b>Isa PIN yako é</b>", "<b>Isa PIN yako é</b>"),
    ],
)
async def test_a_prompt_is_to_be_approved_on_the_phone(
    paynow: Paynow, liar: Liar, method: str, said: str, shown: str
) -> None:
    """Paynow's own words come along: on one line, trimmed and cut."""
    accept(liar, method, instructions=said)
    assert (await paynow.start(USD, ask(method))).next_step == ApproveOnPhone(shown)


async def test_a_prompt_needs_no_instructions(paynow: Paynow, liar: Liar) -> None:
    liar.signed(status="Ok", pollurl=f"{liar.url}/p")
    started = await paynow.start(USD, ask())
    assert started == Started(ApproveOnPhone(), f"{liar.url}/p", None)


async def test_an_innbucks_code_is_shown_until_it_ends(
    transport: Transport, sandbox: PaynowSandbox, stage: tuple[Stage, str]
) -> None:
    """The simulator's own code, its end as a moment in UTC, and a link that opens the app with it."""
    gateway = Paynow(transport, stage[1], "com.innbucks.customer://purchase?paymentToken={code}")
    attempt, started = await open_by(gateway, "innbucks")
    transaction = sandbox.find(attempt.reference)
    assert transaction.code_expires is not None
    ends = transaction.code_expires.replace(second=0, microsecond=0)
    link = f"com.innbucks.customer://purchase?paymentToken={transaction.code}"
    assert started.next_step == ShowCode(transaction.code, ends, link)
    assert isinstance(started.next_step, ShowCode)
    assert started.next_step.expires_at is not None
    assert started.next_step.expires_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        ("28-Nov-2026 14:05", datetime(2026, 11, 28, 12, 5, tzinfo=UTC)),
        ("01-Jan-2027 00:30", datetime(2026, 12, 31, 22, 30, tzinfo=UTC)),
        (" 1-jan-2027 0:30 ", datetime(2026, 12, 31, 22, 30, tzinfo=UTC)),
        (None, None),
        ("", None),
        ("soon", None),
        ("2026-11-28T14:05:00Z", None),
        ("31-Feb-2026 14:05", None),
        ("1-Jan-0001 00:00", None),
    ],
)
async def test_a_code_without_a_readable_end_is_still_a_code(
    paynow: Paynow, liar: Liar, expires: str | None, moment: datetime | None
) -> None:
    """Harare's clock is two hours ahead; what cannot be read is no end, and without a link of ours there is none."""
    accept(liar, "innbucks", **({} if expires is None else {"authorizationexpires": expires}))
    if expires is None:
        liar.signed(status="Ok", pollurl=f"{liar.url}/p", authorizationcode="123456789")
    assert (await paynow.start(USD, ask("innbucks"))).next_step == ShowCode("123456789", moment, None)


@pytest.mark.parametrize(
    ("code", "kept"),
    [("7012", "7012"), ("701256", "701256"), (" 123456789\r\n", "123456789"), ("0" * 20, "0" * 20)],
)
async def test_a_code_of_digits_is_taken_as_it_is(paynow: Paynow, liar: Liar, code: str, kept: str) -> None:
    accept(liar, "innbucks", authorizationcode=code)
    step = (await paynow.start(USD, ask("innbucks"))).next_step
    assert isinstance(step, ShowCode)
    assert step.code == kept


@pytest.mark.parametrize(
    "code",
    [
        "",
        " ",
        "123",
        "1" * 21,
        "12 34 56",
        "12345a",
        "-12345",
        "12.345",
        "1e9999",
        "\u0661\u0662\u0663\u0664",
        "\uff11\uff12\uff13\uff14",
        "<b>1234</b>",
    ],
)
async def test_an_innbucks_answer_without_a_code_is_not_believed(paynow: Paynow, liar: Liar, code: str) -> None:
    """There is nothing to show; whether money can come, only a look-up tells."""
    accept(liar, "innbucks", authorizationcode=code)
    with pytest.raises(Untrusted, match="no InnBucks code"):
        await paynow.start(USD, ask("innbucks"))
    accept(liar, "ecocash")
    with pytest.raises(Untrusted, match="no InnBucks code"):
        await paynow.start(USD, ask("innbucks"))


async def test_an_otp_is_asked_for_with_its_reference(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    attempt, started = await open_by(paynow, "omari")
    transaction = sandbox.find(attempt.reference)
    url = f"{sandbox.public_url}/Interface/RemoteOtp/?guid={transaction.guid}"
    assert started.next_step == EnterOtp(url, transaction.otp_reference)


@pytest.mark.parametrize(("said", "shown"), [(" A1\r\n", "A1"), ("", ""), ("x" * 500, "x" * 100)])
async def test_the_otps_reference_is_trimmed_and_cut(paynow: Paynow, liar: Liar, said: str, shown: str) -> None:
    accept(liar, "omari", otpreference=said)
    step = (await paynow.start(USD, ask("omari"))).next_step
    assert step == EnterOtp(f"{liar.url}/Interface/RemoteOtp/?guid=1", shown)


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
async def test_no_express_answer_leads_elsewhere(paynow: Paynow, liar: Liar, attack: str) -> None:
    """Signed by Paynow itself: neither poll nor one-time password goes to another scheme, host or port."""
    url = on(liar.url, attack)
    for method, name in [*((method, "pollurl") for method in METHODS), ("omari", "remoteotpurl")]:
        accept(liar, method, **{name: url})
        with pytest.raises(Untrusted, match="Paynow's own host") as raised:
            await paynow.start(USD, ask(method))
        assert "evil" not in str(raised.value)
    assert {path.partition("?")[0] for path in liar.paths} == {"POST /interface/remotetransaction"}


@pytest.mark.parametrize("status", ["Sent", "Paid", "Okay", "Cancelled", ""])
@pytest.mark.parametrize("method", METHODS)
async def test_only_ok_is_an_acceptance(paynow: Paynow, liar: Liar, method: str, status: str) -> None:
    """A status message in its place is neither accepted nor refused."""
    accept(liar, method, status=status)
    with pytest.raises(Untrusted):
        await paynow.start(USD, ask(method))


# --- lost and odd answers


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fault", ODD)
async def test_a_start_with_an_odd_answer_is_settled_by_its_trace(
    paynow: Paynow, sandbox: PaynowSandbox, fault: str, method: str
) -> None:
    """Accepted, but no believable answer came: not refused; found by its trace as pending, then as paid; one prompt."""
    sandbox.add_fault(fault, on=["express"], seconds=0.0)
    asked = ask(method)
    with pytest.raises(ODD[fault]):
        await paynow.start(USD, asked)
    assert sandbox.calls == {"express": 1}, "sent once, no redirect followed"
    (transaction,) = sandbox.transactions
    found = await paynow.check(USD, attempt_of(asked, None))
    poll_url = sandbox.pollurl(transaction)
    assert found == Report(Outcome.PENDING, "Sent", asked.amount, asked.reference, str(transaction.number), poll_url)
    await sandbox.pay(asked.reference)
    for where in (None, poll_url):
        paid = await paynow.check(USD, attempt_of(asked, where))
        assert (paid.outcome, paid.amount, paid.reference) == (Outcome.PAID, asked.amount, asked.reference)
    assert sandbox.prompts[LOCAL] == (method != "innbucks")


async def test_an_answer_that_drips_too_long_is_ambiguous(transport: Transport, sandbox: PaynowSandbox) -> None:
    """The customer is not kept waiting, is prompted once, and the try is found."""
    sandbox.add_fault("slow", on=["express"])
    asked = ask()
    with pytest.raises(Ambiguous):
        await Hasty(transport, sandbox.public_url).start(USD, asked)
    assert sandbox.prompts == {LOCAL: 1}
    assert (await concluded(Paynow(transport, sandbox.public_url).check(USD, attempt_of(asked, None)))).outcome is (
        Outcome.PENDING
    )


@pytest.mark.parametrize("method", METHODS)
async def test_an_answer_of_another_key_is_not_believed(paynow: Paynow, liar: Liar, method: str) -> None:
    """Signed by the tenant's other integration, or not at all."""
    accept(liar, method)
    pairs = [pair for pair in wire.decode(liar.body) if pair[0] != "hash"]
    for body in (wire.encode(wire.sign(pairs, ZIG_KEY)), wire.encode(pairs)):
        liar.body = body
        with pytest.raises(Untrusted, match="hash"):
            await paynow.start(USD, ask(method))


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_no_unreadable_answer_is_a_refusal(paynow: Paynow, liar: Liar, body: bytes) -> None:
    """The prompt may be on its way: neither a start nor a one-time password is called refused."""
    liar.body = body
    with pytest.raises(Untrusted):
        await paynow.start(USD, ask())
    with pytest.raises(Untrusted):
        await paynow.confirm(USD, attempt_of(ask(), None), f"{liar.url}/otp", "123456")


async def test_a_refused_connection_is_unreachable(transport: Transport) -> None:
    """Nothing was sent: nobody was prompted, no password was used up."""
    listener = listen()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    down = Paynow(transport, url)
    with pytest.raises(Unreachable):
        await down.start(USD, ask())
    with pytest.raises(Unreachable):
        await down.confirm(USD, attempt_of(ask(), None), f"{url}/otp", "123456")


async def test_many_starts_at_once_stay_apart(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Forty customers of two integrations and four methods: each phone is prompted once, for its own amount."""
    asked = [
        ask(
            METHODS[number % 4],
            payer_phone=f"+2637712345{number:02d}",
            amount=Money(100 + number, list(Currency)[number // 4 % 2]),
        )
        for number in range(40)
    ]
    by_currency = {Currency.USD: USD, Currency.ZIG: ZIG}
    started = await asyncio.gather(*(paynow.start(by_currency[one.amount.currency], one) for one in asked))
    for one, answer in zip(asked, started, strict=True):
        transaction = sandbox.find(one.reference)
        assert (transaction.amount, transaction.method) == (one.amount, one.method)
        assert sandbox.pollurl(transaction) == answer.poll_url
        assert sandbox.prompts[transaction.phone] == (one.method != "innbucks")


# --- the gateway says no


@pytest.mark.parametrize(
    ("change", "method", "because", "theirs"),
    [
        ("no money", "ecocash", Because.FUNDS, "Insufficient balance"),
        ("no money", "onemoney", Because.FUNDS, "Insufficient balance"),
        *(("switched off", method, Because.METHOD, f"no ACTIVE {method} payment method") for method in METHODS),
        ("test mode", "innbucks", Because.METHOD, "not permitted for remote InnBucks"),
        ("test mode", "ecocash", Because.OTHER, "currently in test mode"),
        *(("not local", method, Because.PHONE, "Invalid phone field") for method in METHODS if method != "innbucks"),
        ("no email", "ecocash", Because.OTHER, "Invalid authemail field"),
        ("wrong key", "ecocash", Because.OTHER, "Invalid Hash"),
    ],
)
async def test_a_refusal_tells_the_customer_what_it_can(
    paynow: Paynow, sandbox: PaynowSandbox, change: str, method: str, because: Because, theirs: str
) -> None:
    """Refused, with Paynow's own text behind the advice, without anybody's number or key, and nobody was prompted."""
    credentials, asked = USD, ask(method)
    match change:
        case "no money":
            asked = ask(method, payer_phone="+263774444444")
        case "switched off":
            sandbox.integrations[USD_ID].methods.discard(method)
        case "test mode":
            sandbox.integrations[USD_ID].test_mode = True
        case "not local":
            asked = ask(method, payer_phone="+263242123456")
        case "no email":
            asked = ask(method, payer_email=" ")
        case "wrong key":
            credentials = replace(USD, integration_key=ZIG_KEY)
    with pytest.raises(Refused) as raised:
        await paynow.start(credentials, asked)
    assert raised.value.because is because
    assert theirs in str(raised.value).partition("(Paynow says: ")[2]
    for private in (USD_KEY, ZIG_KEY, EMAIL, "771234567", "774444444"):
        assert private not in str(raised.value)
    assert (sandbox.transactions, sandbox.prompts) == ([], {})


@pytest.mark.parametrize(
    ("phone", "outcome"), [("+263771111111", Outcome.PAID), ("+263773333333", Outcome.FAILED)], ids=["pays", "declines"]
)
@pytest.mark.parametrize("test_mode", [True, False])
async def test_the_published_test_numbers_act_by_themselves(
    paynow: Paynow, sandbox: PaynowSandbox, phone: str, outcome: Outcome, test_mode: bool
) -> None:
    """Pending first, then what section 6 says of the number."""
    sandbox.pace, sandbox.integrations[USD_ID].test_mode = 0.02, test_mode
    attempt, _ = await open_by(paynow, payer_phone=phone)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.PENDING

    async def settled() -> Outcome | None:
        report = await paynow.check(USD, attempt)
        return None if report.outcome is Outcome.PENDING else report.outcome

    assert await eventually(settled) is outcome


@pytest.mark.parametrize("method", ["ecocash", "onemoney"])
async def test_a_declined_prompt_and_a_third_wrong_pin_have_failed(
    paynow: Paynow, sandbox: PaynowSandbox, method: str
) -> None:
    """Nothing was paid, so the customer may choose another way."""
    declined, _ = await open_by(paynow, method)
    await sandbox.decline(declined.reference)
    wrong, _ = await open_by(paynow, method)
    for _ in range(3):
        with pytest.raises(WrongPin):
            await sandbox.approve(wrong.reference, "0000")
    for attempt in (declined, wrong):
        assert (await paynow.check(USD, attempt)).outcome is Outcome.FAILED


# --- the page


async def test_a_web_start_is_as_it_was(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """The page's method takes the other address and prompts nobody, phone or not."""
    _, started = await open_by(paynow, "web")
    step: NextStep = started.next_step
    assert isinstance(step, Redirect)
    assert sandbox.calls == {"initiate": 1}
    assert sandbox.prompts == {}
    assert sandbox.transactions[0].method == ""


# --- nothing private is told


def test_neither_key_nor_email_nor_phone_is_printed() -> None:
    """Of credentials and requests, in whatever way Python shows them."""
    for shown in (TRUSTING, [TRUSTING], ask(), {"asked": ask()}):
        for text in (repr(shown), str(shown), f"{shown}"):
            for private in (USD_KEY, OWNER, EMAIL, PHONE, LOCAL, "771234567"):
                assert private not in text


async def test_neither_the_log_nor_an_error_tells_whose_payment_it_is(
    paynow: Paynow, sandbox: PaynowSandbox, written_log: Path
) -> None:
    """A start, a password, odd answers and refusals: their lines name the call and how it ended, nothing more."""
    log, told = Log(written_log), []
    attempt, url, otp = await open_otp(paynow, sandbox)
    for fault in ("html", "error500", "timeout_after_accepting", "poll_error"):
        sandbox.clear_faults()
        sandbox.add_fault(fault, on=["express", "otp"], seconds=0.0)
        told.append(await failure(paynow.start(TRUSTING, ask("onemoney", payer_email=None))))
        told.append(await failure(paynow.confirm(TRUSTING, attempt, url, "000000")))
    sandbox.clear_faults()
    await paynow.confirm(TRUSTING, attempt, url, otp)
    assert {line["call"] for line in log.of("outside_call")} == {"paynow.express", "paynow.otp"}
    for private in (USD_KEY, OWNER, EMAIL, "771234567", otp, "000000"):
        assert private not in log.text + "".join(told)


async def failure(call: Any) -> str:
    """How the call's error reads, with its cause and its context."""
    try:
        await call
    except (Refused, Ambiguous, Untrusted, NotAccepted) as error:
        return f"{error!r} {error} {error.__cause__!r} {error.__context__!r}"
    raise AssertionError("it went well")
