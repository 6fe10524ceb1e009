"""Refunds at EcoCash, in every dialect: sent once, taken at their word only where that is whole, and traced."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payments_service.errors import Ambiguous, Because, GatewayError, Refused, Untrusted
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.ecocash_answers import refunded, traced
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import RefundReport, RefundState
from payments_service.money import Currency, Money
from tests.gateways import ecocash_stage
from tests.gateways.ecocash_stage import (
    API_KEY,
    ATTEMPT,
    DIALECTS,
    EIPS,
    MP,
    MSISDN,
    PAID,
    PASSWORD,
    PENDING,
    PIN,
    REFUND,
    Liar,
    adapter,
    body_of,
    correlator,
    credentials,
    encoded,
    nothing,
    order,
    raw,
    refund_answer,
    reply,
    traced_answer,
    without_secrets,
    words,
)

stage, transport = ecocash_stage.stage, ecocash_stage.transport  # fixtures
ecocash, liar = ecocash_stage.ecocash, ecocash_stage.liar

DONE = {"open_api": "COMPLETED", "eip": "COMPLETED", "eip_portal": "SUCCESS"}
NAMED = {"open_api": "ecocashReference", "eip": "clientCorrelator", "eip_portal": "clientCorrelator"}
NAME = "MP240213.1412.A01664"
SUCCEEDED = RefundReport(NAME, Money(300, Currency.USD), RefundState.SUCCEEDED, REFUND)


def told(dialect: str, content: object, status: int = 200) -> RefundReport:
    return refunded(words(dialect), order(), reply(content, status))


# --- asked


async def test_a_refund_of_open_api(ecocash: Ecocash, liar: Liar) -> None:
    """The misspellings are the wire's names; the payment is named by our own id, which is a UUID."""
    liar.says(refund_answer("open_api", "COMPLETED"))
    assert await ecocash.refund(credentials("open_api", display_name="Acme"), order()) == SUCCEEDED
    (asked,) = liar.asked
    assert (asked.method, asked.path) == ("POST", "/open/api/v2/refund/instant/c2b/live")
    assert asked.headers["x-api-key"] == API_KEY
    assert asked.fields == {
        "origionalEcocashTransactionReference": str(ATTEMPT),
        "refundCorelator": str(REFUND),
        "sourceMobileNumber": MSISDN,
        "amount": 3.0,
        "clientName": "Acme",
        "currency": "USD",
        "reasonForRefund": "one bag was torn",
    }
    assert b'"amount":3.00,' in asked.body


async def test_what_open_api_names_the_payment_by_is_a_setting(transport: Transport, liar: Liar) -> None:
    """The pages contradict each other. Without EcoCash's reference nothing is sent that would need it."""
    own = adapter(transport, liar.url, refund_by="ecocash")
    liar.says(refund_answer("open_api", "COMPLETED"))
    await own.refund(credentials("open_api"), order())
    assert liar.asked[0].fields["origionalEcocashTransactionReference"] == MP
    with pytest.raises(Refused):
        await own.refund(credentials("open_api"), order(gateway_reference=""))
    assert len(liar.asked) == 1


def test_whose_refund_it_is_and_in_what() -> None:
    """The shop's name, else the merchant's code, else any; ZiG as it is spelt there."""
    for changes, name in (({}, "8003"), ({"ecocash_merchant_code": None}, "Merchant"), ({"display_name": "É"}, "E")):
        zig = words("open_api", Currency.ZIG, **changes)
        sent = body_of(zig.refund(order(amount=Money(300, Currency.ZIG), reason="<>"), MSISDN))
        assert (sent["clientName"], sent["currency"], sent["reasonForRefund"]) == (name, "ZiG", "Refund")


@pytest.mark.parametrize("dialect", EIPS)
async def test_a_refund_of_eip(transport: Transport, liar: Liar, dialect: str) -> None:
    """The charge's body with a correlator of its own, and EcoCash's reference of the payment."""
    path = {"eip": "/eip/transactions/refund", "eip_portal": "/portal/transactions/refund/"}[dialect]
    liar.says(refund_answer(dialect, DONE[dialect]))
    own = adapter(transport, liar.url, refund_type="RVL")
    assert await own.refund(credentials(dialect), order()) == SUCCEEDED
    (asked,) = liar.asked
    assert (asked.method, asked.path) == ("POST", path)
    assert asked.fields == {
        "clientCorrelator": REFUND.hex,
        "referenceCode": REFUND.hex,
        "originalEcocashReference": MP,
        "tranType": "RVL",
        "endUserId": MSISDN,
        "remarks": "one bag was torn",
        "transactionOperationStatus": "Charged",
        "paymentAmount": {
            "charginginformation": {"amount": 3.0, "currency": "USD", "description": "one bag was torn"},
            "chargeMetaData": {"channel": "WEB", "purchaseCategoryCode": "Online Payment", "onBeHalfOf": "8003"},
        },
        "merchantCode": "8003",
        "merchantPin": PIN,
        "merchantNumber": "789111401",
        "currencyCode": "USD",
        "countryCode": "ZW",
        "terminalID": "WEB",
        "location": "Harare",
        "superMerchantName": "8003",
        "merchantName": "8003",
    }
    assert b'"amount":3.00,' in asked.body
    with pytest.raises(Refused):
        await own.refund(credentials(dialect), order(gateway_reference=""))
    assert len(liar.asked) == 1


async def test_without_a_number_nothing_is_sent(ecocash: Ecocash, liar: Liar) -> None:
    for dialect in DIALECTS:
        with pytest.raises(Refused):
            await ecocash.refund(credentials(dialect), order(payer_phone=None))
        assert await ecocash.trace_refund(credentials(dialect), order(payer_phone=None)) is None
    assert liar.asked == []


# --- what a refund's answer means


@pytest.mark.parametrize("dialect", DIALECTS)
def test_done_is_exactly_what_the_dialect_calls_it(dialect: str) -> None:
    """Under EcoCash's own name, or else under our correlator; never under what only echoes that."""
    assert told(dialect, refund_answer(dialect, DONE[dialect])) == SUCCEEDED
    nameless = {"destinationEcocashReference": None, "transactionId": None, "serverReferenceCode": None}
    if dialect != "open_api":
        nameless["ecocashReference"] = None
    found = told(dialect, refund_answer(dialect, DONE[dialect], **nameless))
    assert found.gateway_reference == correlator(dialect, REFUND)


def test_open_apis_other_field_tells_it_too() -> None:
    """Either of them, the status first."""
    answer = refund_answer("open_api", "COMPLETED", transactionStatus=None)
    assert told("open_api", answer) == SUCCEEDED
    with pytest.raises(Refused):
        told("open_api", refund_answer("open_api", "COMPLETED", transactionStatus="FAILED"))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("word", ["COMPLETED", "SUCCESS", "completed", "Refunded", "OK", "200", "", None, 7, True])
def test_no_other_word_is_done(dialect: str, word: object) -> None:
    if word != DONE[dialect]:
        with pytest.raises(Untrusted):
            told(dialect, refund_answer(dialect, word))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_one_that_is_on_its_way_has_a_name_that_lasts(dialect: str) -> None:
    """Else it is looked up later: under another name it would be counted twice."""
    found = told(dialect, refund_answer(dialect, PENDING[dialect]))
    assert found == RefundReport(NAME, Money(300, Currency.USD), RefundState.PENDING, REFUND)
    nameless = {"destinationEcocashReference": None, "transactionId": None, "serverReferenceCode": "42"}
    if dialect != "open_api":
        nameless["ecocashReference"] = None
    with pytest.raises(Ambiguous):
        told(dialect, refund_answer(dialect, PENDING[dialect], **nameless))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("word", ["FAILED", "rejected", "CANCELLED", "EXPIRED "])
def test_a_failure_is_a_sure_no(dialect: str, word: str) -> None:
    with pytest.raises(Refused) as raised:
        told(dialect, refund_answer(dialect, word))
    assert without_secrets(raised.value)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("word", ["DONE", "PENDING", "FAILED"])
@pytest.mark.parametrize("name", [str(ATTEMPT), ATTEMPT.hex, NAME, "", None, 7])
def test_an_answer_about_another_refund_is_not_believed(dialect: str, word: str, name: object) -> None:
    """Nor one about the payment itself."""
    answer = refund_answer(dialect, DONE[dialect] if word == "DONE" else word, **{NAMED[dialect]: name})
    with pytest.raises(Untrusted):
        told(dialect, answer)


def amount_as(dialect: str, written: str, currency: object) -> dict[str, Any]:
    number = raw(written)
    if dialect == "eip":
        return {"paymentAmount": {"charginginformation": {"amount": number, "currency": currency}}}
    return {"amount": number, "currency": currency}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("written", "currency"),
    [("3.01", "USD"), ("2.99", "USD"), ("12.50", "USD"), ("3.00", "ZWG"), ("3.00", None), ("null", "USD")],
)
def test_another_amount_is_not_our_refund(dialect: str, written: str, currency: object) -> None:
    """Neither done nor on its way as far as we know; and a look-up concludes nothing from it either."""
    changes = amount_as(dialect, written, currency)
    for word in (DONE[dialect], PENDING[dialect]):
        with pytest.raises(Untrusted):
            told(dialect, refund_answer(dialect, word, **changes))
    looked_up = traced_answer(dialect, PAID[dialect], **changes)
    assert traced(words(dialect), order(), reply(looked_up)) is None


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"{}", b"<html>", b'{"message":"ok"}', b"COMPLETED"])
def test_an_answer_without_a_refund_leaves_it_open(dialect: str, body: bytes) -> None:
    """Also of `open_api`: silence is only documented for charges."""
    with pytest.raises(Ambiguous):
        told(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "content", "because"),
    [
        (401, b"", Because.METHOD), (403, {"message": "Forbidden"}, Because.METHOD), (429, b"", Because.OTHER),
        (422, {"statusCode": "E012", "statusMessage": "Refund above original"}, Because.OTHER),
        (404, {"message": "Unknown transaction"}, Because.OTHER), (400, {"error": "Bad Request"}, Because.OTHER),
    ],
)  # fmt: skip
def test_a_refund_that_is_refused_in_words_was_not_done(
    dialect: str, status: int, content: object, because: Because
) -> None:
    with pytest.raises(Refused) as raised:
        told(dialect, content, status)
    assert raised.value.because is because


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (409, {"message": "x"}), (400, {"statusCode": "E005"}), (400, {"message": "duplicate refundCorelator"}),
        (402, {"message": "Request failed"}), (403, b"<html>"), (400, b""), (408, b""), (500, {"message": "x"}),
        (503, b""),
    ],
)  # fmt: skip
def test_what_may_have_been_done_is_never_refused(dialect: str, status: int, content: object) -> None:
    with pytest.raises(Ambiguous):
        told(dialect, content, status)


# --- traced


async def test_a_refund_is_looked_up_by_its_own_id(ecocash: Ecocash, liar: Liar) -> None:
    for dialect in DIALECTS:
        liar.says(traced_answer(dialect, PAID[dialect]))
        assert await ecocash.trace_refund(credentials(dialect), order()) == SUCCEEDED
    by_api, by_eip, by_portal = liar.asked
    assert by_api.path == "/open/api/v1/transaction/c2b/status/live"
    assert by_api.fields == {"sourceMobileNumber": MSISDN, "sourceReference": str(REFUND)}
    assert (by_eip.method, by_eip.path) == ("GET", f"/eip/{MSISDN}/transactions/amount/{REFUND.hex}")
    assert (by_portal.method, by_portal.path) == ("GET", f"/portal/{MSISDN}/transactions/amount/{REFUND.hex}")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_trace_tells_ends_and_nothing_else(dialect: str) -> None:
    """Failed; not what is pending, unknown, somebody else's or not there: that may have been done all the same."""

    def trace(content: object, status: int = 200) -> RefundReport | None:
        return traced(words(dialect), order(), reply(content, status))

    failed = trace(traced_answer(dialect, "FAILED"))
    assert failed
    assert (failed.state, failed.refund_id, failed.gateway_reference) == (RefundState.FAILED, REFUND, NAME)
    for word in (PENDING[dialect], "Charged", "REVERSED", "completed", "success", None, 7):
        assert trace(traced_answer(dialect, word)) is None
    whose = "reference" if dialect == "open_api" else "clientCorrelator"
    for name in (correlator(dialect, ATTEMPT), None, "", 7):
        for word in (PAID[dialect], "FAILED"):
            assert trace(traced_answer(dialect, word, **{whose: name})) is None
    assert trace(nothing(dialect)) is None
    assert trace({"statusCode": "E008"}, 404) is None
    for content, status in ((b"", 200), (b"<html>", 200), (b"", 500), ({"message": "x"}, 429)):
        with pytest.raises(Ambiguous):
            trace(content, status)
    with pytest.raises(Untrusted) as raised:
        trace(b"", 401)
    assert without_secrets(raised.value)


# --- anything at all

_PARTS = st.sampled_from(
    ["COMPLETED", "SUCCESS", "FAILED", "PENDING", None, 7, 3, "3.00", "USD", str(REFUND), PASSWORD]
)
_KEYS = st.sampled_from(
    [
        "transactionStatus", "responseMessage", "status", "transactionOperationStatus", "amount", "currency",
        "reference", "paymentAmount", "ecocashReference", "destinationEcocashReference", "clientCorrelator",
        "transactionId",
    ]
)  # fmt: skip


@given(st.sampled_from(DIALECTS), st.booleans(), st.dictionaries(_KEYS, _PARTS, max_size=3), st.binary(max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_answer_makes_money_go_back_that_did_not(
    dialect: str, tracing: bool, changes: dict[str, object], junk: bytes
) -> None:
    """A real answer of which some fields are something else, and junk: done only with our amount and correlator."""
    answer = traced_answer(dialect, PAID[dialect]) if tracing else refund_answer(dialect, DONE[dialect])
    speech = words(dialect)
    for body in (encoded({**answer, **changes}), junk):
        raised: GatewayError | None = None
        made = None
        try:
            made = (traced if tracing else refunded)(speech, order(), Reply(200, body, {}))
        except (Refused, Ambiguous, Untrusted) as error:
            raised = error
        # A word of the answer is passed on; of secrets, those of this dialect are known.
        assert raised is None or dialect == "open_api" or without_secrets(raised)
        if made and made.state is RefundState.SUCCEEDED:
            assert body != junk
            assert dialect == "eip" or changes.get("amount", 3) in (3, "3.00")
            assert made.gateway_reference != PASSWORD or dialect == "open_api"
            assert (made.amount, made.refund_id) == (Money(300, Currency.USD), REFUND)
