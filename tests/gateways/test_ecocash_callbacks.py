"""EcoCash's callbacks, which nobody signs, and what EcoCash says of credentials."""

from __future__ import annotations

from contextlib import suppress
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_service.errors import Ambiguous, Untrusted
from payments_service.gateways.base import Callback
from payments_service.gateways.ecocash import NOBODY, Ecocash
from payments_service.gateways.ecocash_answers import attempt_called
from payments_service.gateways.transport import Transport
from payments_service.money import Currency
from tests.gateways import ecocash_stage
from tests.gateways.ecocash_stage import (
    API_KEY,
    ATTEMPT,
    DIALECTS,
    EIPS,
    MP,
    OTHER,
    PIN,
    SECRETS,
    Liar,
    adapter,
    correlator,
    credentials,
    encoded,
    nothing,
    posted,
    transaction,
    words,
)

stage, transport = ecocash_stage.stage, ecocash_stage.transport  # fixtures
ecocash, liar = ecocash_stage.ecocash, ecocash_stage.liar

TENANT = "https://pay.example/callbacks/ecocash/019ac0de-0000-7000-8000-000000000001"
TOKEN = words("open_api").callback_path() or ""
HINT = Callback(None, "callback", {}, attempt_id=ATTEMPT)
GENUINE = encoded({"transactionOperationStatus": "SUCCESS", "clientReference": str(ATTEMPT), "ecocashReference": MP})


# --- callbacks


@pytest.mark.parametrize("dialect", EIPS)
async def test_the_address_names_the_attempt(ecocash: Ecocash, dialect: str) -> None:
    """In either spelling of its id. What the body says is not even read: it may be nothing, or about another."""
    bodies = (
        b"",
        b"\xff" * 60_000,
        encoded(transaction(dialect, "FAILED", clientCorrelator=OTHER.hex, merchantPin=PIN)),
    )
    for body in bodies:
        for address in (str(ATTEMPT), ATTEMPT.hex, str(ATTEMPT).upper()):
            assert ecocash.read_callback(credentials(dialect), posted(address, body)) == HINT


async def test_open_apis_address_is_a_secret_and_its_message_names_the_attempt(ecocash: Ecocash) -> None:
    """By any of three names; nothing is kept of it."""
    for currency in Currency:
        assert ecocash.read_callback(credentials("open_api", currency), posted(TOKEN, GENUINE)) == HINT
    for name in ("clientReference", "clientCorrelator", "sourceReference"):
        for value in (str(ATTEMPT), ATTEMPT.hex, f" {ATTEMPT}\n"):
            body = encoded({"clientReference": 7, "clientCorrelator": "", "sourceReference": None, name: value})
            assert ecocash.read_callback(credentials("open_api"), posted(TOKEN, body)) == HINT


def test_the_address_cannot_be_guessed_and_changes_with_the_key() -> None:
    """22 characters of base64url or more. It does not tell the key, and it is the same after every restart."""
    assert len(TOKEN) >= 22
    assert TOKEN == "3SkGfBQG1CDiZKOJ9z_OXQWEICkA4TUso_Mhejl24M0"
    other = words("open_api", ecocash_api_key=f"{API_KEY}x").callback_path()
    assert other
    assert other != TOKEN
    assert API_KEY not in TOKEN


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "address",
    [
        "", " ", "x", TOKEN[:-1], f"{TOKEN}=", TOKEN.swapcase(), f"{TOKEN}/", API_KEY, "\u00e9", "\ud800", "\0",
        str(ATTEMPT)[:-1], f"{ATTEMPT}0", f"{{{ATTEMPT}}}", f"urn:uuid:{ATTEMPT}", str(ATTEMPT).replace("-", "--"),
    ],
)  # fmt: skip
async def test_any_other_address_is_nobodys(ecocash: Ecocash, dialect: str, address: str) -> None:
    """Whatever the body says."""
    for body in (GENUINE, b""):
        with pytest.raises(Untrusted) as raised:
            ecocash.read_callback(credentials(dialect), posted(address, body))
        assert TOKEN not in raised.value.detail


async def test_each_dialect_has_its_own_kind_of_address(ecocash: Ecocash) -> None:
    """An attempt's id travels in every charge: where one address is for all, it proves nothing."""
    with pytest.raises(Untrusted):
        ecocash.read_callback(credentials("open_api"), posted(str(ATTEMPT), GENUINE))
    for dialect in EIPS:
        with pytest.raises(Untrusted):
            ecocash.read_callback(credentials(dialect), posted(TOKEN, GENUINE))
    former = credentials("open_api", ecocash_api_key="another-key")
    with pytest.raises(Untrusted):
        ecocash.read_callback(former, posted(TOKEN, GENUINE))


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"{", b"\xff", b"[" * 50_000, b'{"clientReference":"x"}'])
async def test_a_message_about_nothing_of_ours_is_refused(ecocash: Ecocash, body: bytes) -> None:
    with pytest.raises(Untrusted):
        ecocash.read_callback(credentials("open_api"), posted(TOKEN, body))


@given(st.sampled_from(DIALECTS), st.text(max_size=50) | st.just(TOKEN) | st.just(ATTEMPT.hex), st.binary(max_size=50))
def test_no_callback_breaks_the_reading(dialect: str, address: str, body: bytes) -> None:
    """Any address with any body: a hint about an attempt, or Untrusted."""
    with suppress(Untrusted):
        assert isinstance(attempt_called(words(dialect), address, body), UUID)


# --- verify


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_good_credentials(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    """An unknown payment is asked about, and nothing is changed; each currency has its own answer."""
    unknown: list[tuple[object, int]] = [
        (nothing(dialect), 200), (transaction(dialect, "FAILED"), 200), ({"message": "Not found"}, 404),
        ({"statusCode": "E008", "statusMessage": "x"}, 404), ({"statusCode": "E002", "statusMessage": "x"}, 400),
    ]  # fmt: skip
    for content, status in unknown:
        liar.says(content, status)
        for currency in Currency:
            found = await ecocash.verify(credentials(dialect, currency), TENANT)
            assert (found.ok, found.mode, found.currencies, found.account) == (True, "live", [currency], "8003")
            assert not any(secret in message for message in found.messages for secret in SECRETS)
    for asked in liar.asked:
        assert NOBODY in asked.path + asked.body.decode()
        assert correlator(dialect) not in asked.path + asked.body.decode()
        assert "transactions/amount/" in asked.path or "/status/" in asked.path


async def test_open_api_is_told_which_address_to_set(ecocash: Ecocash, liar: Liar) -> None:
    """Once, though it is asked for two currencies; and that losing it loses nothing."""
    liar.says(nothing("open_api"))
    one, two = [await ecocash.verify(credentials("open_api", currency), TENANT) for currency in Currency]
    assert one.messages == two.messages
    assert f"{TENANT}/{TOKEN}" in " ".join(one.messages)
    assert "nothing is lost" in " ".join(one.messages)
    for dialect in EIPS:
        liar.says(nothing(dialect))
        messages = " ".join((await ecocash.verify(credentials(dialect), TENANT)).messages)
        assert TOKEN not in messages
        assert "PIN" in messages, "which only a payment tries"


async def test_the_mode_is_that_of_the_place(transport: Transport, liar: Liar) -> None:
    for dialect in DIALECTS:
        liar.says(nothing(dialect))
        test = Ecocash(transport, liar.url, "sandbox", f"{liar.url}/ecocashGateway-preprod", f"{liar.url}/sandbox/v1")
        assert (await test.verify(credentials(dialect), TENANT)).mode == "test"
    liar.says(nothing("open_api"))
    found = await adapter(transport, liar.url).verify(credentials("open_api", ecocash_merchant_code=None), TENANT)
    assert (found.mode, found.account) == ("live", None)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_credentials_that_are_not_accepted(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    """In words that name the settings."""
    for content, status in (({}, 401), ({"message": "no"}, 403), ({"statusCode": "E006"}, 400)):
        liar.says(content, status)
        found = await ecocash.verify(credentials(dialect), TENANT)
        assert (found.ok, found.currencies) == (False, [])
        (message,) = found.messages
        assert ("ecocash_api_key" if dialect == "open_api" else "ecocash_username") in message
        assert not any(secret in message for secret in SECRETS)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_is_no_answer_verifies_nothing(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    for body, status in ((b"", 200), (b"{}", 200), (b"{", 200), (b"", 404), (b'{"message":"x"}', 500), (b"", 400)):
        liar.body, liar.status = body, status
        with pytest.raises(Ambiguous):
            await ecocash.verify(credentials(dialect), TENANT)
    liar.page()
    with pytest.raises(Ambiguous):
        await ecocash.verify(credentials(dialect), TENANT)
