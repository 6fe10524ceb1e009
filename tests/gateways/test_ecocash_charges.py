"""What the answer to a charge at EcoCash means, in every dialect: started, refused, or to be looked up."""

from __future__ import annotations

import pytest

from payments_service.errors import Ambiguous, Because, Refused, Untrusted
from payments_service.gateways.base import ApproveOnPhone, Started
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.ecocash_answers import taken
from tests.gateways import ecocash_stage
from tests.gateways.ecocash_stage import (
    API_KEY,
    ATTEMPT,
    DIALECTS,
    EIPS,
    OTHER,
    PAID,
    PASSWORD,
    PENDING,
    PIN,
    REFERENCE,
    Liar,
    credentials,
    nothing,
    reply,
    request,
    transaction,
    without_secrets,
    words,
)

stage, transport = ecocash_stage.stage, ecocash_stage.transport  # fixtures
ecocash, liar = ecocash_stage.ecocash, ecocash_stage.liar


def started(dialect: str, content: object, status: int = 200) -> bool:
    """Whether the answer says that the charge is under way; else raises."""
    taken(words(dialect), ATTEMPT, reply(content, status))
    return True


async def test_the_customer_approves_on_the_phone(ecocash: Ecocash, liar: Liar) -> None:
    """What is stored is only whose account it is: our own id and the number are enough to ask about it."""
    for dialect in DIALECTS:
        liar.says(transaction(dialect, PAID[dialect]))
        started = await ecocash.start(credentials(dialect), request())
        assert started == Started(ApproveOnPhone(), poll_url=f"{dialect} 8003")


@pytest.mark.parametrize("status", [200, 201, 202])
def test_open_api_says_200_and_perhaps_nothing_else(status: int) -> None:
    """200 means that the prompt was sent; the body may be empty or no JSON."""
    for body in (b"", b" \r\n", b"{}", b'{"message":"ok"}', b"null", b"Request accepted", b'{"cut'):
        assert started("open_api", body, status)


@pytest.mark.parametrize("dialect", EIPS)
@pytest.mark.parametrize("word", [*PENDING.values(), "PENDING", "Processing Charge", "CHARGED", "Charged", "paid"])
def test_eip_says_that_it_is_under_way(dialect: str, word: str) -> None:
    """Also where it says that it is paid: that is not taken from this answer."""
    assert started(dialect, transaction(dialect, PAID[dialect] if word == "paid" else word, ecocashReference=None))


@pytest.mark.parametrize("dialect", EIPS)
@pytest.mark.parametrize("word", ["FAILED", " failed ", "REJECTED", "CANCELLED", "Canceled", "EXPIRED"])
def test_a_charge_that_failed_at_once_is_looked_up(dialect: str, word: str) -> None:
    """A prompt may have been out by then: only an explicit error is a sure no, after which another may be sent."""
    for more in ({}, {"statusCode": "E010", "statusMessage": "Insufficient funds"}, {"clientCorrelator": OTHER.hex}):
        with pytest.raises(Untrusted) as raised:
            started(dialect, transaction(dialect, word, **more))
        assert without_secrets(raised.value)


@pytest.mark.parametrize("dialect", EIPS)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"PENDING"', b"{", b"OK", b"{}", b'{"message":"ok"}'])
def test_an_eip_answer_that_tells_of_no_charge_is_no_answer(dialect: str, body: bytes) -> None:
    """A prompt may be on the phone: only a look-up can tell."""
    with pytest.raises(Ambiguous):
        started(dialect, body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_firewalls_page_is_no_answer(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    """It comes with 200, too, and for an unsupported currency. The charge is sent once."""
    for status in (200, 403, 404, 500, 503):
        liar.page(status)
        with pytest.raises(Ambiguous):
            await ecocash.start(credentials(dialect), request())
        with pytest.raises(Ambiguous):
            started(dialect, liar.body, status)
    assert len(liar.asked) == 5


@pytest.mark.parametrize("dialect", EIPS)
@pytest.mark.parametrize("name", [OTHER.hex, None, ATTEMPT.hex[:-1], REFERENCE, "", 7, [ATTEMPT.hex]])
def test_an_answer_about_another_charge_is_not_believed(dialect: str, name: object) -> None:
    with pytest.raises(Untrusted):
        started(dialect, transaction(dialect, PENDING[dialect], clientCorrelator=name))
    with pytest.raises(Untrusted):
        started(dialect, nothing(dialect))


@pytest.mark.parametrize("dialect", EIPS)
@pytest.mark.parametrize("word", ["SHIPPED", "", None, 7, PIN])
def test_a_charge_with_a_status_of_no_meaning_is_looked_up(dialect: str, word: object) -> None:
    with pytest.raises(Untrusted) as raised:
        started(dialect, transaction(dialect, word))
    assert without_secrets(raised.value)


CODED = [
    (400, "E001", Because.OTHER), (400, "E002", Because.PHONE), (400, "E003", Because.METHOD),
    (400, "E004", Because.OTHER), (401, "E006", Because.METHOD), (403, "E007", Because.METHOD),
    (404, "E008", Because.OTHER), (422, "E010", Because.FUNDS), (422, "E011", Because.PHONE),
    (422, "E012", Because.OTHER), (422, "E013", Because.OTHER), (402, "E010", Because.FUNDS),
    (418, "E099", Because.OTHER),
]  # fmt: skip


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("status", "code", "because"), CODED)
def test_an_explicit_error_is_a_sure_no(dialect: str, status: int, code: str, because: Because) -> None:
    """In words for whoever set EcoCash up; the tenant's secrets, which may be quoted at us, are not in them."""
    content = {"statusCode": code, "statusMessage": f"No, {PIN}, {PASSWORD} and {API_KEY}\u0000!"}
    with pytest.raises(Refused) as raised:
        started(dialect, content, status)
    assert raised.value.because is because
    mine = (API_KEY,) if dialect == "open_api" else (PIN, PASSWORD)
    assert not any(secret in raised.value.detail for secret in mine)
    assert raised.value.detail.isprintable()
    if code in ("E006", "E007"):
        assert ("ecocash_api_key" if dialect == "open_api" else "ecocash_password") in raised.value.detail
    else:
        assert code in raised.value.detail


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ({"message": "Insufficient funds in wallet"}, Because.FUNDS),
        ({"message": "Insufficient parameters"}, Because.OTHER),
        ({"error": "Invalid MSISDN"}, Because.PHONE),
        ({"message": "customerMsisdn must match 2637XXXXXXXX"}, Because.PHONE),
        ({"message": "Subscriber did not answer"}, Because.OTHER),
        ({"timestamp": "x", "status": 400, "error": "Bad Request", "path": "/x"}, Because.OTHER),
        ({"fault": {"code": 900901, "message": "Quota"}}, Because.OTHER),
        ({"requestError": {"serviceException": {"messageId": "SVC0002", "text": "Invalid msisdn %1"}}}, Because.PHONE),
        ({"error": {"error": {"error": {"message": "deep"}}}}, Because.OTHER),
    ],
)
def test_an_error_may_stand_in_many_places(content: dict[str, object], because: Because) -> None:
    for dialect in DIALECTS:
        with pytest.raises(Refused) as raised:
            started(dialect, content, 400)
        assert raised.value.because is because


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("status", "content"),
    [
        (409, {}), (409, {"message": "conflict"}), (400, {"statusCode": "E005", "statusMessage": "x"}),
        (409, {"statusCode": "E009"}), (400, {"message": "Duplicate sourceReference"}),
        (422, {"error": "clientCorrelator already used"}),
    ],
)  # fmt: skip
def test_a_correlator_that_is_known_already_was_started(dialect: str, status: int, content: object) -> None:
    """An earlier send of the same arrived: never refused, looked up."""
    with pytest.raises(Ambiguous):
        started(dialect, content, status)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [400, 402, 404, 405, 408, 422, 425, 500, 502, 503, 504])
def test_an_error_without_words_concludes_nothing(dialect: str, status: int) -> None:
    for body in (b"", b"{}", b"[]", b"{", b'{"status":"FAILED"}', b'{"message":[]}'):
        with pytest.raises(Ambiguous):
            started(dialect, body, status)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("status", [402, 408, 425, 500, 503])
def test_these_are_no_sure_no_even_in_words(dialect: str, status: int) -> None:
    """Valid but failed, timed out, broken: a prompt may be out all the same."""
    for content in ({"message": "Request failed"}, {"statusCode": "E014", "statusMessage": "Sorry"}):
        with pytest.raises(Ambiguous):
            started(dialect, content, status)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(("status", "because"), [(401, Because.METHOD), (429, Because.OTHER)])
def test_who_is_turned_away_at_the_door_started_nothing(dialect: str, status: int, because: Because) -> None:
    """Whatever stands there: a wrong key, and too many requests, are told before anything is done."""
    for body in (b"", b"<html>", b'{"message":"no"}'):
        with pytest.raises(Refused) as raised:
            started(dialect, body, status)
        assert raised.value.because is because
