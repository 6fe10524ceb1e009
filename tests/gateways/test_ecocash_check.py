"""EcoCash's look-ups, in every dialect: what is paid, what is not, and what is left open."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from payments_service.errors import Ambiguous, Untrusted
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.ecocash_answers import report_of
from payments_service.gateways.transport import Reply
from payments_service.lifecycle import Outcome, Report, Standing, Status, next_status
from payments_service.money import Currency, Money
from tests.gateways import ecocash_stage
from tests.gateways.ecocash_stage import (
    API_KEY,
    ATTEMPT,
    DIALECTS,
    EIPS,
    MP,
    MSISDN,
    OTHER,
    PAID,
    PASSWORD,
    PENDING,
    PIN,
    PRICE,
    REFERENCE,
    Liar,
    correlator,
    credentials,
    encoded,
    nothing,
    opened,
    raw,
    reply,
    transaction,
    without_secrets,
    words,
)

stage, transport = ecocash_stage.stage, ecocash_stage.transport  # fixtures
ecocash, liar = ecocash_stage.ecocash, ecocash_stage.liar

SPEECH = {dialect: words(dialect) for dialect in DIALECTS}
NAME = {"open_api": "reference", "eip": "clientCorrelator", "eip_portal": "clientCorrelator"}
STATUS = {"open_api": "status", "eip": "transactionOperationStatus", "eip_portal": "status"}


def report(dialect: str, content: object, status: int = 200, amount: Money = PRICE) -> Report:
    return report_of(SPEECH[dialect], opened(amount=amount), reply(content, status))


def becomes(found: Report, amount: Money = PRICE) -> Status | None:
    """What the report makes of a pending payment."""
    verdict = next_status(Standing(Status.PENDING, amount, REFERENCE, live=True), found)
    return verdict.status if verdict else None


# --- asked


async def test_open_api_is_asked_in_version_1(ecocash: Ecocash, liar: Liar) -> None:
    """By the customer's number and our own id, with the key."""
    liar.says(transaction("open_api", "SUCCESS"))
    assert (await ecocash.check(credentials("open_api"), opened())).outcome is Outcome.PAID
    (asked,) = liar.asked
    assert (asked.method, asked.path) == ("POST", "/open/api/v1/transaction/c2b/status/live")
    assert asked.headers["x-api-key"] == API_KEY
    assert asked.fields == {"sourceMobileNumber": MSISDN, "sourceReference": str(ATTEMPT)}


@pytest.mark.parametrize(
    ("merchant", "asks"),
    [
        (None, True), ("eip 8003", True), ("eip 8004", False), ("open_api 8003", False), ("eip_portal 8003", False),
    ],
)  # fmt: skip
async def test_another_merchants_account_is_not_asked(
    ecocash: Ecocash, liar: Liar, merchant: str | None, asks: bool
) -> None:
    """It would know nothing of the attempt, which must not look as if it had never been."""
    liar.says(transaction("eip", "COMPLETED"))
    attempt = replace(opened(), poll_url=merchant)
    if asks:
        assert (await ecocash.check(credentials("eip"), attempt)).outcome is Outcome.PAID
        return
    with pytest.raises(Untrusted, match="another merchant"):
        await ecocash.check(credentials("eip"), attempt)
    assert liar.asked == []


async def test_a_merchants_code_may_be_saved_later(ecocash: Ecocash, liar: Liar) -> None:
    """`open_api` needs none: the attempts from before go on being looked up."""
    liar.says(transaction("open_api", "SUCCESS"))
    for merchant in ("open_api", "open_api 8003"):
        found = await ecocash.check(credentials("open_api"), replace(opened(), poll_url=merchant))
        assert found.outcome is Outcome.PAID


@pytest.mark.parametrize(("dialect", "base"), [("eip", "/eip"), ("eip_portal", "/portal")])
async def test_eip_is_asked_by_its_address(ecocash: Ecocash, liar: Liar, dialect: str, base: str) -> None:
    liar.says(transaction(dialect, PAID[dialect]))
    assert (await ecocash.check(credentials(dialect), opened())).outcome is Outcome.PAID
    (asked,) = liar.asked
    assert (asked.method, asked.path) == ("GET", f"{base}/{MSISDN}/transactions/amount/{ATTEMPT.hex}")
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"acme:{PASSWORD}".encode()).decode()
    assert asked.body == b""


async def test_without_a_number_nothing_can_be_asked(ecocash: Ecocash, liar: Liar) -> None:
    for dialect in DIALECTS:
        with pytest.raises(Untrusted):
            await ecocash.check(credentials(dialect), opened(payer_phone=None))
    assert liar.asked == []


# --- paid, and nothing else


@pytest.mark.parametrize("dialect", DIALECTS)
def test_paid_is_exactly_the_paid_value(dialect: str) -> None:
    """With our amount and reference, as the core compares them, and EcoCash's own reference."""
    found = report(dialect, transaction(dialect, PAID[dialect]))
    assert found == Report(Outcome.PAID, PAID[dialect], PRICE, REFERENCE, MP)
    assert becomes(found) is Status.PAID


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "word",
    [
        "SUCCESS", "COMPLETED", "success", "Success", "completed", " SUCCESS", "COMPLETED ", "SUCCESSFUL", "PAID", "OK",
        "SUCCESS\u0000", "COMPLETE", "\u0405UCCESS", "Charged", "CHARGED", "Processing Charge", "200", 200, True, 1,
        ["SUCCESS"], {"status": "SUCCESS"}, "Transaction Successful",
    ],
)  # fmt: skip
def test_no_other_word_is_paid(dialect: str, word: object) -> None:
    """Not in other letters, not another dialect's; and none of these is a failure."""
    if word != PAID[dialect]:
        found = report(dialect, transaction(dialect, word))
        assert found.outcome in (Outcome.PENDING, Outcome.UNKNOWN)
        assert found.gateway_reference is None
        assert becomes(found) is None


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("PENDING", Outcome.PENDING), ("PENDING_VALIDATION", Outcome.PENDING),
        ("PENDING SUBSCRIBER VALIDATION", Outcome.PENDING), ("pending  subscriber\tvalidation", Outcome.PENDING),
        ("PENDING_SOMETHING_NEW", Outcome.PENDING), ("Processing Charge", Outcome.PENDING),
        ("Charged", Outcome.PENDING), ("CHARGED", Outcome.PENDING),
        ("FAILED", Outcome.FAILED), ("failed ", Outcome.FAILED), ("Rejected", Outcome.FAILED),
        ("CANCELLED", Outcome.FAILED), ("CANCELED", Outcome.FAILED), ("EXPIRED", Outcome.FAILED),
        ("REVERSED", Outcome.UNKNOWN), ("UNFAILED", Outcome.UNKNOWN), ("FAILED_OVER", Outcome.UNKNOWN),
    ],
)  # fmt: skip
def test_each_word_has_its_meaning(dialect: str, word: str, outcome: Outcome) -> None:
    """The request's constant `Charged` is pending; a word that we do not know is told, and never failed."""
    found = report(dialect, transaction(dialect, word))
    assert found.outcome is outcome
    assert found.said == " ".join(word.split())
    assert found.reference == REFERENCE


def test_the_portal_is_read_by_its_status_only() -> None:
    """`statusMessage` says "Successful" even while pending; the names of its samples stand in where `status` is
    missing, in their order."""
    assert report("eip_portal", transaction("eip_portal", "PENDING")).outcome is Outcome.PENDING
    more = {"transactionStatus": "SUCCESS", "transactionOperationStatus": "SUCCESS"}
    assert report("eip_portal", transaction("eip_portal", "PENDING", **more)).outcome is Outcome.PENDING
    assert report("eip_portal", transaction("eip_portal", None, **more)).outcome is Outcome.PAID
    more["transactionStatus"] = "FAILED"
    assert report("eip_portal", transaction("eip_portal", None, **more)).outcome is Outcome.FAILED
    assert report("eip_portal", transaction("eip_portal", "SUCCESS", **more)).outcome is Outcome.PAID


@pytest.mark.parametrize("dialect", ["open_api", "eip"])
def test_the_others_have_one_status(dialect: str) -> None:
    """What the portal calls it is nothing to them."""
    others = {"status", "transactionStatus", "transactionOperationStatus"} - {STATUS[dialect]}
    content = transaction(dialect, "PENDING", **dict.fromkeys(others, PAID[dialect]))
    assert report(dialect, content).outcome is Outcome.PENDING
    del content[STATUS[dialect]]
    assert report(dialect, content).outcome is Outcome.UNKNOWN


# --- whose it is


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("name", [None, "", " ", REFERENCE, 7, [], "x\u0000y", "9" * 500])
def test_money_of_another_correlator_is_for_a_person(dialect: str, name: object) -> None:
    """Neither paid nor lost. Our own reference for people is no correlator."""
    for whose in (name, correlator(dialect, OTHER)):
        found = report(dialect, transaction(dialect, PAID[dialect], **{NAME[dialect]: whose}))
        assert found.outcome is Outcome.PAID
        assert found.reference != REFERENCE
        assert becomes(found) is Status.REVIEW


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("word", ["FAILED", "PENDING", "REVERSED", None])
def test_nothing_else_is_concluded_of_another_correlator(dialect: str, word: object) -> None:
    for whose in (correlator(dialect, OTHER), REFERENCE, "", 7):
        with pytest.raises(Untrusted):
            report(dialect, transaction(dialect, word, **{NAME[dialect]: whose}))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_who_paid_whom_is_not_compared(dialect: str) -> None:
    """Identity fields come back swapped and cut."""
    swapped = {"endUserId": "8003", "customerMsisdn": "26377", "merchantCode": MSISDN, "merchantNumber": None}
    found = report(dialect, transaction(dialect, PAID[dialect], **swapped))
    assert becomes(found) is Status.PAID
    upper = {NAME[dialect]: f" {correlator(dialect).upper()} "}
    assert becomes(report(dialect, transaction(dialect, PAID[dialect], **upper))) is Status.PAID


# --- how much


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("12.5", 1250), ("12.50", 1250), ("12.500000000", 1250), ("1.25E1", 1250), ("1250e-2", 1250), ('"12.50"', 1250),
        ("3", 300), ("3.0", 300), ("0.01", 1), ("1.2345678E7", 1_234_567_800), ("999999999.99", 99_999_999_999),
    ],
)  # fmt: skip
def test_amounts_are_read_exactly(dialect: str, written: str, price: int) -> None:
    """As Java and others write numbers."""
    amount = Money(price, Currency.USD)
    found = report(dialect, transaction(dialect, PAID[dialect], amount=written), amount=amount)
    assert found.amount == amount
    assert becomes(found, amount) is Status.PAID


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "written",
    [
        "12.49", "12.51", "12.5000000001", "12.505", "1250", "125", "0", "-12.50", "1e999", "1e-999", "null", '""',
        '"12,50"', '"USD 12.50"', "true", "[12.50]", "{}", '{"amount":12.50}', "1000000000.00", "12500000000000000",
        '"\u0661\u0662.50"',
    ],
)  # fmt: skip
def test_another_amount_is_for_a_person(dialect: str, written: str) -> None:
    """A cent off, missing, odd, or with a fraction of a cent: never paid, never failed, never rounded."""
    found = report(dialect, transaction(dialect, PAID[dialect], amount=written))
    assert found.outcome is Outcome.PAID
    assert found.amount != PRICE
    assert becomes(found) is Status.REVIEW


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("code", "currency"),
    [
        ("USD", Currency.USD), ("840", Currency.USD), (840, Currency.USD), ("usd", Currency.USD),
        ("ZWG", Currency.ZIG), ("ZiG", Currency.ZIG), ("ZIG", Currency.ZIG), ("924", Currency.ZIG), (924, Currency.ZIG),
    ],
)  # fmt: skip
def test_currencies_have_many_spellings(dialect: str, code: object, currency: Currency) -> None:
    """Letters are sent, numbers may be answered; and one is never taken for the other."""
    found = report(dialect, transaction(dialect, PAID[dialect], currency=code))
    assert found.amount == Money(1250, currency)
    assert becomes(found) is (Status.PAID if currency is Currency.USD else Status.REVIEW)
    assert becomes(found, Money(1250, Currency.ZIG)) is (Status.PAID if currency is Currency.ZIG else Status.REVIEW)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("code", [None, "", "ZWL", "932", "RTGS", "US", 84, [], "USD,ZWG"])
def test_a_currency_that_we_do_not_know_is_for_a_person(dialect: str, code: object) -> None:
    found = report(dialect, transaction(dialect, PAID[dialect], currency=code))
    assert found.amount is None
    assert becomes(found) is Status.REVIEW


@pytest.mark.parametrize(
    ("charging", "total", "reported", "status"),
    [
        ("12.50", "12.50", 1250, Status.PAID), ("12.50", "12.5", 1250, Status.PAID),
        ("12.50", "null", 1250, Status.PAID), ("12.50", "12.49", 1249, Status.REVIEW),
        ("12.50", "0", 0, Status.REVIEW), ("12.50", '"x"', None, Status.REVIEW),
        ("12.49", "12.50", 1249, Status.REVIEW), ("null", "12.50", None, Status.REVIEW),
    ],
)  # fmt: skip
def test_the_total_must_agree_with_what_was_asked_for(
    charging: str, total: str, reported: int | None, status: Status
) -> None:
    """Where they differ, the report names the one that is not ours."""
    amounts = {
        "totalAmountCharged": raw(total),
        "charginginformation": {"amount": raw(charging), "currency": "USD"},
    }
    found = report("eip", transaction("eip", "COMPLETED", paymentAmount=amounts))
    assert found.amount == (None if reported is None else Money(reported, Currency.USD))
    assert becomes(found) is status
    del amounts["totalAmountCharged"]
    if charging == "12.50":
        assert becomes(report("eip", transaction("eip", "COMPLETED", paymentAmount=amounts))) is Status.PAID


# --- EcoCash's own reference


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_reference_is_the_first_of_three(dialect: str) -> None:
    names: dict[str, str | None] = {"ecocashReference": " MP1 ", "transactionId": "MP2", "serverReferenceCode": "3"}
    for name, expected in zip(names, ("MP1", "MP2", "3"), strict=True):
        found = report(dialect, transaction(dialect, PAID[dialect], **names))
        assert found.gateway_reference == expected
        names = {**names, name: None}
    assert report(dialect, transaction(dialect, PAID[dialect], **names)).gateway_reference is None


@pytest.mark.parametrize("dialect", EIPS)
def test_while_it_is_pending_its_name_is_not_kept(dialect: str) -> None:
    """It may get another one: the payment is known by the one under which the money came."""
    assert report(dialect, transaction(dialect, PENDING[dialect])).gateway_reference is None


@pytest.mark.parametrize("dialect", EIPS)
def test_what_is_reported_can_be_kept(dialect: str) -> None:
    """No control characters, no endless texts, and never the merchant's PIN, wherever it was put."""
    odd = {"ecocashReference": PIN, "transactionId": PIN, "serverReferenceCode": PIN}
    found = report(dialect, transaction(dialect, PAID[dialect], **odd))
    assert found.gateway_reference is None
    found = report(dialect, transaction(dialect, f"x{PASSWORD}\u0000\ud7ff {PIN} " + "y" * 500))
    assert PIN not in found.said
    assert PASSWORD not in found.said
    assert found.said.isprintable()
    assert len(found.said) <= 100
    found = report(dialect, transaction(dialect, PAID[dialect], ecocashReference="M\u0000P" * 200))
    assert found.gateway_reference
    assert found.gateway_reference.isprintable()
    assert len(found.gateway_reference) == 200


# --- nothing there


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_envelope_of_nothing_is_an_unknown_correlator(dialect: str) -> None:
    """With HTTP 200 [B]. Whether it was early is the core's to decide."""
    assert report(dialect, nothing(dialect)) == Report(Outcome.NOT_FOUND, "not found")
    assert report(dialect, {**nothing(dialect), "responseCode": None, "x": 1}).outcome is Outcome.NOT_FOUND


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "content",
    [
        {"message": "Transaction not found"}, {"statusCode": "E008", "statusMessage": "x"},
        {"error": "No such payment"}, {"message": "The requested resource doesn't exist."},
    ],
)  # fmt: skip
def test_an_explicit_404_is_not_found(dialect: str, content: object) -> None:
    assert report(dialect, content, 404).outcome is Outcome.NOT_FOUND


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "content",
    [
        b"", b"<html>Not Found</html>", {}, [], {"message": "no Route matched with those values"},
        {"statusCode": 404, "message": "Resource not found"}, {"message": "No handler found for GET /x"},
        {"error": "Not Found"}, {"message": "Not Found"}, {"detail": "Not found."}, {"message": "Cannot GET /x"},
        {"timestamp": "x", "status": 404, "error": "Not Found", "path": "/api/v1/transaction"},
    ],
)  # fmt: skip
def test_a_404_of_the_road_says_nothing_of_the_payment(dialect: str, content: object) -> None:
    """A look-up that was moved elsewhere must not end what customers have paid."""
    with pytest.raises(Ambiguous):
        report(dialect, content, 404)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_part_of_an_envelope_is_not_nothing(dialect: str) -> None:
    """An answer that does not even have our field, or whose status is a number, is odd and not empty."""
    status, name = STATUS[dialect], NAME[dialect]
    for content in ({status: None}, {status: 500, "error": "x"}, {status: 500, name: None}):
        with pytest.raises((Ambiguous, Untrusted)):
            report(dialect, content)
    with pytest.raises(Untrusted):
        report(dialect, {**nothing(dialect), "statusCode": "E014"})
    assert report(dialect, {**nothing(dialect), NAME[dialect]: correlator(dialect)}).outcome is Outcome.UNKNOWN


# --- no answer


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "body", [b"", b" ", b"null", b"[]", b"1", b'"SUCCESS"', b"{", b"{}", b"OK", b"<html>", b"\xff", b"[" * 50_000]
)
def test_what_is_no_transaction_is_no_answer(dialect: str, body: bytes) -> None:
    """The firewall's page comes with 200."""
    with pytest.raises(Ambiguous):
        report(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [400, 402, 405, 409, 422, 429, 500, 502, 503, 504])
def test_an_error_is_no_answer_whatever_it_says(dialect: str, status: int) -> None:
    """Also when a whole transaction stands in it."""
    for content in (b"", {"statusCode": "E010", "statusMessage": "x"}, transaction(dialect, PAID[dialect])):
        with pytest.raises(Ambiguous):
            report(dialect, content, status)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "content"), [(401, b""), (403, b"<html>"), (401, {"statusCode": "E006"}), (200, {"statusCode": "E007"})]
)
def test_credentials_that_are_not_accepted_are_told(dialect: str, status: int, content: object) -> None:
    """Which settings to look at; and former credentials are asked instead, as of any answer that is not trusted."""
    with pytest.raises(Untrusted, match="ecocash_api_key" if dialect == "open_api" else "ecocash_password") as raised:
        report(dialect, content, status)
    assert without_secrets(raised.value)


# --- anything at all

KEYS = st.sampled_from(
    [
        "status", "transactionStatus", "transactionOperationStatus", "reference", "clientCorrelator", "amount",
        "currency", "paymentAmount", "charginginformation", "totalAmountCharged", "ecocashReference", "transactionId",
        "serverReferenceCode", "statusCode", "message", "error", "merchantPin", "x",
    ]
)  # fmt: skip
LEAF = st.one_of(
    st.sampled_from(
        [None, True, "SUCCESS", "COMPLETED", "FAILED", "PENDING", "USD", "ZWG", 840, 12, 12.5, "12.50", MP, PIN, "E008"]
    ),
    st.sampled_from([str(ATTEMPT), ATTEMPT.hex, REFERENCE, ""]),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
)
OBJECT = st.dictionaries(KEYS, LEAF | st.dictionaries(KEYS, LEAF, max_size=3), max_size=3)
VALUE = LEAF | OBJECT | st.lists(LEAF, max_size=2)
ANYTHING = st.dictionaries(KEYS, VALUE, max_size=6) | VALUE
# Near the truth: a real answer of which some fields are something else.
NEARLY = st.builds(
    lambda dialect, status, changes: {**transaction(dialect, status), **changes},
    st.sampled_from(DIALECTS),
    st.sampled_from(["SUCCESS", "COMPLETED", "FAILED", "PENDING"]),
    st.dictionaries(KEYS, VALUE, max_size=2),
)


BODY = NEARLY.map(encoded) | ANYTHING.map(encoded) | st.binary(max_size=100)


def concluded(dialect: str, body: bytes, status: int) -> Report | None:
    """The report; None where one of the errors was raised that allow no conclusion."""
    try:
        return report_of(SPEECH[dialect], opened(), Reply(status, body, {}))
    except (Ambiguous, Untrusted) as error:
        raised = error
    assert without_secrets(raised)
    return None


def is_paid(dialect: str, body: bytes) -> bool:
    """The same, written down anew with Python's own reader."""
    found = json.loads(body, parse_float=Decimal)
    amount: Any = found.get("amount")
    code: Any = found.get("currency")
    if dialect == "eip":
        paid = found["paymentAmount"]
        amount, code = paid["charginginformation"]["amount"], paid["charginginformation"]["currency"]
        assert paid.get("totalAmountCharged") is None or Decimal(paid["totalAmountCharged"]) == Decimal("12.50")
    elif isinstance(amount, dict):
        amount, code = amount["amount"], amount["currency"]
    names = [STATUS[dialect]]
    if dialect == "eip_portal":
        names += ["transactionStatus", "transactionOperationStatus"]
    said = [found.get(name) for name in names]
    return (
        PAID[dialect] in said
        and str(found[NAME[dialect]]).strip().lower() == correlator(dialect)
        and Decimal(amount) == Decimal("12.50")
        and str(code).strip().upper() in ("USD", "840")
    )


@given(st.sampled_from(DIALECTS), BODY, st.sampled_from([200, 201, 404, 500]))
@settings(max_examples=300, deadline=None)
@example("eip", encoded(transaction("eip", "COMPLETED")), 200)
@example("open_api", encoded(transaction("open_api", "SUCCESS")), 201)
@example("eip", b'{"clientCorrelator":"\xff","transactionOperationStatus":"\\ud800"}', 200)
@example("eip_portal", b'{"clientCorrelator":null,"status":"\xff\xfe"}', 200)
@example("open_api", b'{"reference":' + b"[" * 20_000 + b"]" * 20_000 + b"}", 200)
@example("open_api", b'{"amount":{"amount":' + b"9" * 5_000 + b',"currency":"USD"},"status":"SUCCESS"}', 200)
@example("eip_portal", encoded(transaction("eip_portal", "SUCCESS")).replace(b"12.50", b"1e99999999999999999999"), 200)
def test_nothing_but_the_truth_is_paid(dialect: str, body: bytes, status: int) -> None:
    """Any JSON and any bytes: a report or no conclusion, and paid only where another reader finds exactly that."""
    found = concluded(dialect, body, status)
    if found is None:
        return
    assert found.outcome in (Outcome.PAID, Outcome.FAILED, Outcome.PENDING, Outcome.UNKNOWN, Outcome.NOT_FOUND)
    for text in (found.said, found.reference or "", found.gateway_reference or ""):
        assert "\0" not in text
        assert len(text) <= 200
        text.encode()
    if becomes(found) is Status.PAID:
        assert status in (200, 201)
        assert is_paid(dialect, body)
    if found.outcome is Outcome.FAILED:
        assert msgspec.json.decode(body)[NAME[dialect]]
