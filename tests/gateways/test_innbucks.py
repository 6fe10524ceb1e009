"""InnBucks' adapter: what it says of itself, credentials, secrets, and whatever may stand in an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payments_service.config import VARIABLES
from payments_service.errors import (
    Ambiguous,
    GatewayError,
    NotConfigured,
    Refused,
    Unreachable,
    Untrusted,
)
from payments_service.gateways import registry
from payments_service.gateways.base import (
    CallsBack,
    Method,
    Refunds,
    ShowCode,
    Started,
    Sweeps,
    Verification,
    Withdraws,
)
from payments_service.gateways.innbucks import INQUIRY, Innbucks
from payments_service.gateways.innbucks_session import Call, InnbucksCredentials
from payments_service.gateways.innbucks_wire import STATUSES, read
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import Outcome, Report, Standing, Status, next_status
from payments_service.money import Currency, Money
from tests.gateways import innbucks_stage
from tests.gateways.innbucks_stage import (
    API_KEY,
    APP_LINK,
    AUTH,
    CODE,
    CREDENTIALS,
    DIAL,
    GENERATE,
    PASSWORD,
    QUERY,
    REFERENCE,
    VALUES,
    Liar,
    Said,
    generated,
    inquiry,
    opened,
    request,
)
from tests.house import settings_for
from tests.servers import Stage
from tests.support import Log

stage, transport, liar = innbucks_stage.stage, innbucks_stage.transport, innbucks_stage.liar  # fixtures
innbucks, hasty, clock = innbucks_stage.innbucks, innbucks_stage.hasty, innbucks_stage.clock

AMOUNT = Money(1250, Currency.USD)


def adapter(url: str | None = "https://staging.innbucks.co.zw") -> Innbucks:
    """One that asks nobody."""
    return Innbucks(None, url, INQUIRY, APP_LINK, DIAL)  # type: ignore[arg-type]


# --- what it says of itself


def test_it_offers_one_way_that_needs_no_phone() -> None:
    assert Innbucks.methods == (Method("innbucks", "InnBucks", ShowCode),)
    assert adapter().offered(CREDENTIALS, None, AMOUNT) == Innbucks.methods
    assert adapter().page_origins() == ()


def test_it_does_nothing_that_innbucks_cannot() -> None:
    """No callbacks, no refunds, no code that can be taken back, no record of what was missed."""
    for ability in (CallsBack, Refunds, Withdraws, Sweeps):
        assert not isinstance(adapter(), ability)


def test_a_code_is_asked_about_while_it_lives_and_long_after() -> None:
    """Every 20 s for ten minutes, every minute to the hour; after its end at growing ages."""
    schedule = Innbucks.schedule
    assert (schedule[:30], sum(schedule[:30])) == ((20,) * 30, 600)
    assert sum(schedule[:80]) == 3600
    assert schedule[-1] == 43200
    assert list(schedule) == sorted(schedule)
    assert list(Innbucks.looks_after_end) == sorted(Innbucks.looks_after_end)


async def test_the_registry_builds_it_over_the_settings(transport: Transport) -> None:
    known = {variable.field for variable in VARIABLES}
    changes = {"innbucks_url": "https://x.example", "innbucks_inquiry_path": QUERY, "innbucks_dial": "*1#"}
    assert changes.keys() <= known
    built = registry.build(transport, settings_for(**changes))["innbucks"]
    assert isinstance(built, Innbucks)
    assert built._inquiry_paths == (QUERY, INQUIRY)
    assert built.credentials(VALUES, Currency.USD) == CREDENTIALS


# --- credentials


def test_what_is_missing_is_named() -> None:
    for missing in VALUES:
        for nothing in ({}, {missing: None}, {missing: ""}):
            given_values = {name: value for name, value in VALUES.items() if name != missing} | nothing
            with pytest.raises(NotConfigured) as told:
                adapter().credentials(given_values, Currency.USD)
            assert "InnBucks" in str(told.value)
            assert [name for name in VALUES if name in str(told.value)] == [missing]
    with pytest.raises(NotConfigured, match="innbucks_username, innbucks_password, innbucks_api_key"):
        adapter().credentials({}, Currency.USD)


@pytest.mark.parametrize("url", [None, ""])
def test_a_service_without_the_address_says_so(url: str | None) -> None:
    """It names the setting: nothing that the tenant saves would help."""
    with pytest.raises(NotConfigured, match=r"InnBucks.*INNBUCKS_URL"):
        adapter(url).credentials(VALUES, Currency.USD)


def test_it_takes_dollars_only() -> None:
    with pytest.raises(NotConfigured, match="InnBucks takes USD"):
        adapter().credentials(VALUES, Currency.ZIG)


@pytest.mark.parametrize("key", ["a\nb", "a b", " ", "☃", "\x00"], ids=repr)
def test_a_key_that_no_header_can_hold_is_no_key(key: str) -> None:
    with pytest.raises(NotConfigured, match=r"InnBucks.*innbucks_api_key"):
        adapter().credentials({**VALUES, "innbucks_api_key": key}, Currency.USD)


# --- what InnBucks says of them


async def test_good_credentials_are_verified_by_signing_in_alone(innbucks: Innbucks, liar: Liar) -> None:
    found = await innbucks.verify(CREDENTIALS, "https://pay.example/callbacks/innbucks/x")
    assert (found.ok, found.mode, found.currencies, found.account) == (True, None, [Currency.USD], "acme")
    assert "acme" in found.messages[0]
    assert [seen.path for seen in liar.seen] == [AUTH]


@pytest.mark.parametrize(("address", "mode"), [("", None), ("/STAGING", "test"), ("/sandbox/innbucks", "test")])
async def test_the_mode_shows_in_the_address(
    transport: Transport, stage: tuple[Stage, str], liar: Liar, address: str, mode: str | None
) -> None:
    told = Said({"accessToken": "t", "responseCode": "00"})
    for said, ok in ((told, True), (Said({}, 401), False)):
        liar.says[f"{address}{AUTH}"] = said
        found = await Innbucks(transport, stage[1] + address, INQUIRY, APP_LINK, DIAL).verify(CREDENTIALS, "")
        assert (found.ok, found.mode) == (ok, mode)


async def test_bad_credentials_are_an_answer_in_words(innbucks: Innbucks, liar: Liar) -> None:
    liar.says[AUTH] = Said({"responseCode": "05", "responseDescription": "Account locked"})
    found = await innbucks.verify(CREDENTIALS, "")
    assert (found.ok, found.currencies) == (False, [])
    assert "innbucks_password" in found.messages[0]
    assert "InnBucks says: Account locked" in found.messages[0]


@pytest.mark.parametrize("said", [Said(b"<html>"), Said({}), Said(b"", 500), Said({"error": "x"}, 404)], ids=repr)
async def test_odd_answers_verify_nothing(innbucks: Innbucks, liar: Liar, said: Said) -> None:
    liar.says[AUTH] = said
    with pytest.raises(Unreachable):
        await innbucks.verify(CREDENTIALS, "")


# --- secrets and the log


async def test_no_secret_shows_in_texts_errors_or_the_log(innbucks: Innbucks, liar: Liar, written_log: Path) -> None:
    """Through all calls, as they succeed and as they fail, with InnBucks repeating whatever it was sent."""
    log = Log(written_log)
    texts = [repr(CREDENTIALS), f"{CREDENTIALS}", repr(Call("auth", AUTH, {"password": PASSWORD}, 1.0))]

    async def through() -> None:
        calls: list[Any] = [
            innbucks.start(CREDENTIALS, request()),
            innbucks.check(CREDENTIALS, opened()),
            innbucks.verify(CREDENTIALS, ""),
        ]
        for call in calls:
            try:
                texts.append(repr(await call))
            except GatewayError as error:
                told: BaseException | None = error
                while told is not None:
                    texts.append(f"{told!r} {told}")
                    told = told.__cause__ or told.__context__

    await through()
    for echo in (PASSWORD, API_KEY, "%token%"):
        said = {"responseCode": 5, "responseMsg": echo, "responseDescription": echo, "status": echo, "errors": [echo]}
        for content in (said, {**said, "code": echo, "amount": echo}, echo.encode()):
            for status in (200, 400, 401, 404, 500):
                for path in (AUTH, GENERATE, INQUIRY, QUERY):
                    liar.says = {path: Said(content, status, {"X-Trace-Id": echo.replace(" ", "")})}
                    await through()
    written = log.text
    assert "innbucks.generate" in written
    for secret in (PASSWORD, API_KEY, *liar.tokens):
        assert not [text for text in texts if secret in text]
        assert secret not in written


async def test_innbucks_trace_id_is_logged_with_each_call(innbucks: Innbucks, liar: Liar, written_log: Path) -> None:
    """What its support asks for; nothing that could forge a line."""
    log = Log(written_log)
    for trace_id in ("5f2b9c0a-1111-4222-8333-444455556666", "a b", "x" * 101, ""):
        liar.says[INQUIRY] = Said(inquiry(), 200, {"X-Trace-Id": trace_id})
        await innbucks.check(CREDENTIALS, opened())
    (line,) = log.of("gateway_trace", call="innbucks.inquiry")
    assert line["trace_id"] == "5f2b9c0a-1111-4222-8333-444455556666"
    assert line["gateway"] == "innbucks"


# --- whatever stands in an answer

PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9)
)
JSON = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner), max_leaves=6
)
FIELDS = (
    "responseCode",
    "responseMsg",
    "code",
    "amount",
    "status",
    "timeToLive",
    "authNumber",
    "stan",
    "errors",
    "accessToken",
)
_NEARLY = [None, 0, 1, "0", "00", "01", CODE, int(CODE), "701285661", "1250", 1250, "1251", "", "30sec"]
NEARLY = st.sampled_from([*_NEARLY, "Paid", "Claimed", "New", "Expired", "paid "])
CHANGES = st.dictionaries(st.sampled_from(FIELDS), NEARLY | JSON, max_size=4)
STATUS = st.sampled_from([200, 200, 200, 201, 400, 401, 403, 404, 405, 408, 429, 500, 503])
NAMES = {"innbucks.auth": 0, "innbucks.generate": 1, "innbucks.inquiry": 2}
GOOD = {"accessToken": "token-1", "responseCode": "00"}
GENUINE = (GOOD, generated(1250), inquiry())


class Says(Transport):
    """Answers at once, whichever call it is, with these bytes."""

    def __init__(self, *replies: Reply) -> None:
        self.replies = replies

    async def post(self, what: str, *_arguments: Any, **_more: Any) -> Reply:
        return self.replies[NAMES[what]]


def told_by(*replies: Reply) -> Innbucks:
    return Innbucks(Says(*replies), "https://innbucks.test", INQUIRY, APP_LINK, DIAL)


def reply(status: int, content: object) -> Reply:
    return Reply(status, content if isinstance(content, bytes) else msgspec.json.encode(content), {})


ANY_REPLY = st.builds(reply, STATUS, JSON | st.binary(max_size=60))


def nearly(genuine: dict[str, object]) -> st.SearchStrategy[Reply]:
    """What is said there, with some fields changed, or anything at all."""
    return st.builds(lambda status, changes: reply(status, {**genuine, **changes}), STATUS, CHANGES) | ANY_REPLY


REPLIES = tuple(st.just(reply(200, genuine)) | nearly(genuine) for genuine in GENUINE)


@settings(max_examples=150, deadline=None)
@given(st.tuples(*REPLIES))
async def test_whatever_is_answered_a_code_is_shown_only_where_it_is_approved_for_our_amount(
    replies: tuple[Reply, ...],
) -> None:
    """Else one of our own errors, and no other."""
    try:
        started = await told_by(*replies).start(CREDENTIALS, request())
    except (Refused, Unreachable, Ambiguous, Untrusted):
        return
    assert isinstance(started, Started)
    assert isinstance(started.next_step, ShowCode)
    answer = msgspec.json.decode(replies[1].body)
    assert replies[1].status in (200, 201)
    assert answer["responseCode"] in (0, "0", "00")
    assert answer["code"].strip() == started.next_step.code
    assert int(answer["amount"]) == 1250


@settings(max_examples=150, deadline=None)
@given(st.tuples(*REPLIES))
async def test_whatever_is_answered_paid_is_what_says_so_exactly(replies: tuple[Reply, ...]) -> None:
    """A report that the core would take as our money names our code or none, our amount or none, and the word."""
    try:
        report = await told_by(*replies).check(CREDENTIALS, opened())
    except (Unreachable, Ambiguous, Untrusted):
        return
    assert isinstance(report, Report)
    assert report.said.isprintable()
    assert report.amount is None or report.amount.minor < 2**63
    assert report.outcome in {*STATUSES.values(), Outcome.UNKNOWN}
    verdict = next_status(Standing(Status.PENDING, AMOUNT, REFERENCE, live=True), report)
    if verdict and verdict.status is Status.PAID:
        answer = msgspec.json.decode(replies[2].body)
        assert answer["status"].strip().lower() in ("paid", "claimed")
        assert answer.get("code") in (None, "", CODE, int(CODE))
        assert answer.get("amount") in (None, "1250", 1250)
        assert replies[2].status < 500


@settings(max_examples=80, deadline=None)
@given(REPLIES[0])
async def test_whatever_is_answered_verify_has_words_or_an_error_of_ours(said: Reply) -> None:
    try:
        found = await told_by(said).verify(CREDENTIALS, "")
    except Unreachable:
        return
    assert isinstance(found, Verification)
    assert found.messages
    assert found.ok is (found.currencies == [Currency.USD])


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | JSON.map(msgspec.json.encode))
def test_any_bytes_are_an_answer_or_none(body: bytes) -> None:
    """Its texts are fit for a line of the log and for the database; it prints nothing of itself."""
    answer = read(body)
    if answer is None:
        return
    for text in (answer.words(()), answer.said(()), answer.code_told or "", answer.mark or ""):
        assert text.isprintable()
        text.encode()
    assert repr(answer) == "Answer()"
    assert InnbucksCredentials("u", "p", "k").password not in repr(answer)
