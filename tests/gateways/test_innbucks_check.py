"""InnBucks' adapter: what a look-up of a code proves, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from payments_service.errors import Ambiguous, GatewayError, Unreachable, Untrusted
from payments_service.gateways.innbucks import Innbucks
from payments_service.gateways.innbucks_session import InnbucksCredentials
from payments_service.gateways.transport import Transport
from payments_service.lifecycle import Outcome, Report, ReviewReason, Standing, Status, next_status
from payments_service.money import Currency, Money
from tests.gateways import innbucks_stage
from tests.gateways.innbucks_stage import (
    APP_LINK,
    AUTH,
    CODE,
    CREDENTIALS,
    DIAL,
    GATEWAY_REFERENCE,
    INQUIRY,
    KEPT,
    PASSWORD,
    QUERY,
    REFERENCE,
    Liar,
    Said,
    concluded,
    opened,
)
from tests.servers import Stage, listen

stage, transport, liar = innbucks_stage.stage, innbucks_stage.transport, innbucks_stage.liar  # fixtures
innbucks, hasty, clock = innbucks_stage.innbucks, innbucks_stage.hasty, innbucks_stage.clock

AMOUNT = Money(1250, Currency.USD)
CUSTOM = "/merchant/v2/lookup"


def review_of(report: Report) -> ReviewReason | None:
    """What the core asks a person about it, of a pending payment of this attempt."""
    verdict = next_status(Standing(Status.PENDING, AMOUNT, REFERENCE, live=True), report)
    return verdict.review if verdict else None


# --- the words


async def test_a_look_up_asks_for_the_code_under_a_name_of_its_own(innbucks: Innbucks, liar: Liar) -> None:
    """`reference` is another for each call."""
    for _ in range(3):
        await innbucks.check(CREDENTIALS, opened())
    asked = liar.asked(INQUIRY)
    assert [seen.body["code"] for seen in asked] == [CODE] * 3
    assert len({seen.body["reference"] for seen in asked}) == 3
    assert all(seen.body.keys() == {"reference", "code"} for seen in asked)


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("New", Outcome.PENDING),
        ("Pending", Outcome.PENDING),
        ("Paid", Outcome.PAID),
        ("Claimed", Outcome.PAID),
        (" CLAIMED ", Outcome.PAID),
        ("Expired", Outcome.LAPSED),
        ("Timed Out", Outcome.LAPSED),
        ("TimedOut", Outcome.LAPSED),
        ("timed out", Outcome.LAPSED),
    ],
)
async def test_each_known_word_has_its_meaning(innbucks: Innbucks, liar: Liar, word: str, outcome: Outcome) -> None:
    """With the amount of the code and the reference of the start."""
    liar.inquiry(status=word)
    report = await innbucks.check(CREDENTIALS, opened())
    assert report == Report(outcome, word.strip(), AMOUNT, gateway_reference=GATEWAY_REFERENCE)


@pytest.mark.parametrize(
    "word",
    ["Reversed", "Failed", "Paid out", "Not Paid", "P aid", "Pa\u0000id", "Claimed?", "Expired/Claimed", "pa\u0131d"],
)
async def test_any_other_word_is_unknown_and_told(innbucks: Innbucks, liar: Liar, word: str) -> None:
    """Never failed by itself, never paid; as text that can be kept."""
    liar.inquiry(status=word)
    report = await innbucks.check(CREDENTIALS, opened())
    assert (report.outcome, report.said) == (Outcome.UNKNOWN, word.replace("\x00", ""))


async def test_a_long_word_is_cut(innbucks: Innbucks, liar: Liar) -> None:
    liar.inquiry(status="x\n" * 5000)
    assert len((await innbucks.check(CREDENTIALS, opened())).said) == 100


@pytest.mark.parametrize("status", [None, "", 200, 0, True, [], {"status": "Paid"}, 1.5])
async def test_without_a_word_nothing_is_known(innbucks: Innbucks, liar: Liar, status: object) -> None:
    """Only texts count."""
    liar.inquiry(status=status)
    report = await innbucks.check(CREDENTIALS, opened())
    assert (report.outcome, report.said) == (Outcome.UNKNOWN, "")


# --- odd shapes of what is over


@pytest.mark.parametrize("http", [200, 400, 404, 405, 409, 410, 422])
@pytest.mark.parametrize(("word", "outcome"), [("Claimed", Outcome.PAID), ("Expired", Outcome.LAPSED)])
async def test_a_known_word_counts_whatever_stands_around_it(
    innbucks: Innbucks, liar: Liar, http: int, word: str, outcome: Outcome
) -> None:
    """Codes that are over come back with other response codes and with HTTP 4xx."""
    for response_code in (0, 1, "01", 96, None):
        liar.inquiry(http, responseCode=response_code, responseMsg="2D Code Expired/Claimed", status=word)
        report = await innbucks.check(CREDENTIALS, opened())
        assert (report.outcome, report.said, report.amount) == (outcome, word, AMOUNT)
    assert not liar.asked(QUERY)


@pytest.mark.parametrize("http", [200, 400])
async def test_a_claimed_code_without_its_amount_was_paid_with_the_amount_it_was_made_for(
    innbucks: Innbucks, liar: Liar, http: int
) -> None:
    """Measured: neither code nor amount comes back with it. What it was made for was proved before it was shown."""
    liar.says[INQUIRY] = Said({"responseCode": 1, "responseMsg": "2D Code Expired/Claimed", "status": "Claimed"}, http)
    report = await innbucks.check(CREDENTIALS, opened())
    assert report == Report(Outcome.PAID, "Claimed", AMOUNT, gateway_reference=GATEWAY_REFERENCE)
    assert review_of(report) is None


@pytest.mark.parametrize("amount", ["1251", 1249, "0", "", "12.50", 1250.0, "x", -1250, True, [1250], {"cents": 1250}])
async def test_an_amount_that_is_told_must_be_ours(innbucks: Innbucks, liar: Liar, amount: object) -> None:
    """Another, or one that cannot be read, is for a person to see."""
    liar.inquiry(status="Paid", amount=amount)
    report = await innbucks.check(CREDENTIALS, opened())
    assert report.outcome is Outcome.PAID
    assert report.amount != AMOUNT
    assert review_of(report) is ReviewReason.AMOUNT_MISMATCH


@pytest.mark.parametrize("code", [None, "", CODE, 701285660, f" {CODE} "])
async def test_the_code_is_ours_or_not_told(innbucks: Innbucks, liar: Liar, code: object) -> None:
    liar.inquiry(status="Paid", code=code)
    report = await innbucks.check(CREDENTIALS, opened())
    assert (report.outcome, report.reference) == (Outcome.PAID, None)
    assert review_of(report) is None


@pytest.mark.parametrize(
    ("code", "reference"),
    [("701285661", "701285661"), (701285661, "701285661"), ("0701285660", "0701285660")]
    + [(odd, "") for odd in (True, 1.5, [CODE], "another", "7" * 30)],
)
async def test_money_of_another_code_is_for_a_person_to_see(
    innbucks: Innbucks, liar: Liar, code: object, reference: str
) -> None:
    """It is not taken as this attempt's, whose own gateway reference stays as it is."""
    liar.inquiry(status="Paid", code=code)
    report = await innbucks.check(CREDENTIALS, opened())
    assert (report.outcome, report.gateway_reference) == (Outcome.PAID, None)
    assert review_of(report) is ReviewReason.REFERENCE_MISMATCH
    if isinstance(code, str):
        assert report.reference == reference


@pytest.mark.parametrize("word", ["New", "Expired", "Reversed"])
async def test_the_fate_of_another_code_is_not_this_ones(innbucks: Innbucks, liar: Liar, word: str) -> None:
    liar.inquiry(status=word, code="701285661")
    with pytest.raises(Untrusted, match="another code"):
        await innbucks.check(CREDENTIALS, opened())


async def test_a_code_with_leading_zeros_is_not_the_number_without_them(innbucks: Innbucks, liar: Liar) -> None:
    liar.inquiry(status="Paid", code=12345678)
    report = await innbucks.check(CREDENTIALS, opened("0012345678-1 INV-1"))
    assert review_of(report) is ReviewReason.REFERENCE_MISMATCH


# --- what tells nothing


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Said({"timestamp": "…", "status": 400, "errors": ["Code is required"]}, 400), Untrusted),
        (Said({"timestamp": "…", "status": 400, "errors": ["Code is required"]}), Outcome.UNKNOWN),
        (Said({"responseCode": 14, "responseMsg": "No such code"}), Untrusted),
        (Said({"responseCode": 1, "responseMsg": "2D Code Expired/Claimed"}, 400), Untrusted),
        (Said({"status": "error"}, 403), Untrusted),
        (Said({"responseCode": 0}), Outcome.UNKNOWN),
        (Said({}), Outcome.UNKNOWN),
        (Said([]), Untrusted),
        (Said(b"<html>"), Untrusted),
        (Said(b""), Untrusted),
        (Said(b'{"status":"Paid"'), Untrusted),
        (Said(b'{"status":"Paid","amount":1e999999999999999999999}'), Untrusted),
        (Said(b"x" * 1_100_000), Untrusted),
        (Said(b"", 302, {"Location": "/"}), Untrusted),
        (Said({"status": "Paid"}, 500), Ambiguous),
        (Said({"status": "Expired"}, 503), Ambiguous),
        (Said({"status": "Expired"}, 408), Ambiguous),
        (Said({"message": "slow down"}, 429), Ambiguous),
    ],
    ids=repr,
)
async def test_an_odd_answer_concludes_nothing(
    innbucks: Innbucks, liar: Liar, said: Said, kind: type[GatewayError] | Outcome
) -> None:
    """A plain no is not trusted: it may be another account's code, and then the tenant's former account is asked."""
    liar.says[INQUIRY] = said
    found = await concluded(innbucks.check(CREDENTIALS, opened()))
    assert (found.outcome if isinstance(found, Report) else found) is kind


async def test_an_answer_that_never_comes_concludes_nothing(hasty: Innbucks, liar: Liar) -> None:
    held = liar.hold(INQUIRY)
    with pytest.raises(Ambiguous):
        await hasty.check(CREDENTIALS, opened())
    held.set()


async def test_a_gateway_that_is_down_concludes_nothing(transport: Transport) -> None:
    listener = listen()
    port = listener.getsockname()[1]
    listener.close()
    adapter = Innbucks(transport, f"http://127.0.0.1:{port}", INQUIRY, APP_LINK, DIAL)
    with pytest.raises(Unreachable):
        await adapter.check(CREDENTIALS, opened())
    with pytest.raises(Unreachable):
        await adapter.verify(CREDENTIALS, "")


@pytest.mark.parametrize("status", [401, 403])
async def test_credentials_that_are_not_accepted_prove_nothing(innbucks: Innbucks, liar: Liar, status: int) -> None:
    """Untrusted, so that those which were replaced are asked with; in words without the secrets."""
    liar.says[AUTH] = Said({"responseDescription": f"{PASSWORD} is wrong"}, status)
    with pytest.raises(Untrusted, match="innbucks_password") as told:
        await innbucks.check(CREDENTIALS, opened())
    assert PASSWORD not in told.value.detail


async def test_an_odd_word_that_is_a_secret_is_not_told(innbucks: Innbucks, liar: Liar) -> None:
    for secret in (PASSWORD, "x %token%"):
        liar.inquiry(status=secret)
        assert (await innbucks.check(CREDENTIALS, opened())).said == ""


async def test_a_password_that_is_a_known_word_hides_no_status(innbucks: Innbucks, liar: Liar) -> None:
    """Weak ones are not ours to judge; money is not to be lost over them."""
    liar.inquiry(status="Paid")
    report = await innbucks.check(InnbucksCredentials("acme", "paid", "k"), opened())
    assert (report.outcome, report.said) == (Outcome.PAID, "Paid")


@pytest.mark.parametrize(
    "kept",
    ["", CODE, f"{CODE}-1616800", f"{CODE}-1616800 INV-2", f"{CODE} INV-1", "https://innbucks.example/x", "1-1 INV-1"],
)
async def test_a_stored_code_that_is_not_the_attempts_is_not_asked_about(
    innbucks: Innbucks, liar: Liar, kept: str
) -> None:
    """InnBucks repeats no reference of ours: what is stored says itself whose code it is."""
    with pytest.raises(Untrusted):
        await innbucks.check(CREDENTIALS, opened(kept))
    assert not liar.seen


# --- where look-ups are


@pytest.mark.parametrize("status", [404, 405])
@pytest.mark.parametrize(("path", "other"), [(INQUIRY, QUERY), (QUERY, INQUIRY), (CUSTOM, INQUIRY)])
async def test_the_other_path_is_tried_once_and_remembered(
    transport: Transport, stage: tuple[Stage, str], liar: Liar, status: int, path: str, other: str
) -> None:
    """Newer documents name one, older ones the other."""
    adapter = Innbucks(transport, stage[1], path, APP_LINK, DIAL)
    liar.says[path] = Said(b"<html>", status)
    liar.inquiry(200, other, status="Paid")
    for _ in range(3):
        assert (await adapter.check(CREDENTIALS, opened())).outcome is Outcome.PAID
    assert (len(liar.asked(path)), len(liar.asked(other))) == (1, 3)
    liar.says[other] = Said(b"<html>", status)
    liar.inquiry(200, path)
    assert (await adapter.check(CREDENTIALS, opened())).outcome is Outcome.PENDING


async def test_a_status_at_the_right_path_is_not_looked_for_elsewhere(innbucks: Innbucks, liar: Liar) -> None:
    """A code that is over may come with a 404."""
    liar.inquiry(404, status="Expired")
    assert (await innbucks.check(CREDENTIALS, opened())).outcome is Outcome.LAPSED
    assert not liar.asked(QUERY)


@pytest.mark.parametrize(
    ("second", "kind"),
    [
        (Said(b"", 404), Untrusted),
        (Said(b"", 405), Untrusted),
        (Said(b"<html>"), Untrusted),
        (Said(b"", 500), Ambiguous),
        (Said(b"", 401), Untrusted),
    ],
    ids=repr,
)
async def test_neither_path_concludes_nothing_and_nothing_is_remembered(
    innbucks: Innbucks, liar: Liar, second: Said, kind: type[GatewayError]
) -> None:
    liar.says[INQUIRY] = Said({"responseMsg": "No such code"}, 404)
    liar.says[QUERY] = second
    for count in (1, 2):
        assert await concluded(innbucks.check(CREDENTIALS, opened())) is kind
        assert len(liar.asked(INQUIRY)) == count


async def test_the_first_no_is_told_where_both_say_no(innbucks: Innbucks, liar: Liar) -> None:
    liar.says[INQUIRY] = Said({"responseMsg": "No such code"}, 404)
    with pytest.raises(Untrusted, match="No such code"):
        await innbucks.check(CREDENTIALS, opened())


# --- never paid by accident


@pytest.mark.parametrize("http", [200, 201, 400, 404, 500])
@pytest.mark.parametrize(
    "changes",
    [
        {"status": None, "responseMsg": "Paid"},
        {"status": None, "state": "Claimed"},
        {"status": ["Paid"]},
        {"status": {"Paid": True}},
        {"Status": "Paid", "status": "New"},
        {"status": "New", "responseMsg": "Claimed"},
        {"status": 200, "description": "Paid"},
    ],
    ids=repr,
)
async def test_paid_stands_in_the_status_or_nowhere(
    innbucks: Innbucks, liar: Liar, http: int, changes: Mapping[str, Any]
) -> None:
    liar.inquiry(http, **changes)
    liar.says[QUERY] = liar.says[INQUIRY]
    found = await concluded(innbucks.check(CREDENTIALS, opened()))
    assert not isinstance(found, Report) or found.outcome is not Outcome.PAID


async def test_each_look_up_says_the_same(innbucks: Innbucks, liar: Liar) -> None:
    liar.inquiry(status="Paid")
    reports = [await innbucks.check(CREDENTIALS, opened(KEPT)) for _ in range(3)]
    assert reports == [reports[0]] * 3


async def test_an_attempt_without_a_code_was_never_started(innbucks: Innbucks, liar: Liar) -> None:
    """Whoever was shown nothing pays nothing: known without asking."""
    report = await innbucks.check(CREDENTIALS, opened(None))
    assert report == Report(Outcome.NEVER_STARTED, "no code was shown")
    assert not liar.seen
