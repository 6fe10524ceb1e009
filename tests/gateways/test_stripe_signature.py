"""Stripe's signatures: as Stripe's own code makes and reads them, and nothing but Untrusted for what is not genuine."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stripe import SignatureVerificationError, WebhookSignature

from payments_service.errors import Untrusted
from payments_service.gateways.base import Callback, Message
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.stripe_events import TYPES
from payments_service.gateways.stripe_wire import verify
from tests.gateways.stripe_stage import CREDENTIALS, WHSEC, event_of, posted, session

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "stripe_signature.json").read_text(encoding="utf-8")
)["vectors"]
OLD = "whsec_TheOneBefore0123456789"
NOW = datetime(2026, 11, 3, 9, 30, tzinfo=UTC)
PAID = event_of("checkout.session.completed", session(status="complete", payment_status="paid", payment_intent="pi_1"))
BODY = msgspec.json.encode(PAID)
ADAPTER = Stripe(None, "https://api.stripe.com")  # type: ignore[arg-type]
FUZZ = settings(max_examples=150, deadline=None)


def mark(body: bytes, secret: str, t: object) -> str:
    return hmac.new(secret.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest()


def holds(body: bytes, header: str | None, secrets: tuple[str, ...] = (WHSEC,), at: datetime = NOW) -> bool:
    """Whether it verifies; anything but Untrusted goes through as the test's failure."""
    try:
        verify(body, header, secrets, at)
    except Untrusted:
        return False
    return True


def sdk_holds(body: bytes, header: str, secret: str) -> bool:
    """What the SDK says without a tolerance; where it stumbles it says no."""
    try:
        return bool(WebhookSignature.verify_header(body, header, secret, tolerance=None))
    except (SignatureVerificationError, TypeError, UnicodeDecodeError, ValueError):
        return False


# --- against Stripe's own


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_signatures_of_stripes_own_code_verify(vector: dict[str, Any]) -> None:
    """With the newest secret or the one before, in a header with one signature or two; not with another secret."""
    body, secret, at = vector["payload"].encode(), vector["secret"], datetime.fromtimestamp(vector["t"], UTC)
    assert mark(body, secret, vector["t"]) == vector["v1"]
    assert holds(body, vector["header"], (secret,), at)
    assert holds(body, vector["header"], (OLD, secret), at)
    assert not holds(body, vector["header"], (OLD,), at)
    both = f"t={vector['t']},v1={vector['v1_with_old_secret']},v1={vector['v1']}"
    assert holds(body, both, (secret,), at)
    assert not holds(body + b" ", vector["header"], (secret,), at)


@FUZZ
@given(body=st.text().map(str.encode), secret=st.text(min_size=1, max_size=80))
def test_what_the_sdk_would_sign_verifies(body: bytes, secret: str) -> None:
    """Over any text and with any secret, keyed with the whole of it."""
    t = int(NOW.timestamp())
    v1 = WebhookSignature._compute_signature(f"{t}.{body.decode()}", secret)
    assert holds(body, f"t={t},v1={v1}", (secret,))


T = int(NOW.timestamp())
GENUINE = mark(BODY, WHSEC, T)
PIECES = st.sampled_from(
    [f"t={T}", f"v1={GENUINE}", f"v1={mark(BODY, OLD, T)}", f"v0={GENUINE}", "v1=", "v1", "t=", "t", "x=1", "=", ""]
) | st.text(st.characters(max_codepoint=255), max_size=6)


@FUZZ
@given(st.lists(PIECES, max_size=6), st.sampled_from([",", ", ", " ,", ";", ",,"]))
def test_what_verifies_here_verifies_in_the_sdk(pieces: list[str], separator: str) -> None:
    """No header is taken that the SDK refuses, but for blanks around the parts, and parts that it stumbles over."""
    header = separator.join(pieces)
    if holds(BODY, header):
        parts = [part.strip() for part in header.split(",") if "=" in part and part.isascii()]
        assert sdk_holds(BODY, ",".join(parts), WHSEC)


@FUZZ
@given(st.permutations([f"t={T}", f"v1={GENUINE}", f"v1={mark(BODY, OLD, T)}", f"v0={GENUINE}"]))
def test_the_order_of_the_parts_does_not_matter(pieces: list[str]) -> None:
    header = ",".join(pieces)
    assert sdk_holds(BODY, header, WHSEC)
    assert holds(BODY, header)


# --- time


@pytest.mark.parametrize(("seconds", "good"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
def test_the_time_may_be_five_minutes_off_to_both_sides(seconds: int, good: bool) -> None:
    """The SDK would take any from the future."""
    t = T + seconds
    header = f"t={t},v1={mark(BODY, WHSEC, t)}"
    assert holds(BODY, header) is good
    assert not holds(BODY, header, at=NOW + timedelta(seconds=602))
    later = NOW + timedelta(milliseconds=1)
    assert holds(BODY, header, at=later) is (good and seconds != -300)


def test_a_captured_message_under_a_new_time_is_refused() -> None:
    """The time is signed too."""
    assert not holds(BODY, f"t={T + 1},v1={GENUINE}")


# --- several


def test_any_of_the_secrets_and_any_of_the_signatures_will_do() -> None:
    """While a secret is rolled Stripe signs with both, and a tenant has saved one of them or both."""
    new, old = f"v1={GENUINE}", f"v1={mark(BODY, OLD, T)}"
    for header in (f"t={T},{new}", f"t={T},{old},{new}", f"t={T},{new},{old}", f"t={T},v1=00,v0=1,{new}"):
        assert holds(BODY, header, (WHSEC,))
        assert holds(BODY, header, (OLD, WHSEC))
        assert holds(BODY, header, (WHSEC, OLD))
        assert not holds(BODY, header, ("whsec_neither",))
    assert holds(BODY, f"t={T},{old}", (WHSEC, OLD))
    assert not holds(BODY, f"t={T},{old}", (WHSEC,))


HEADERS = {
    "none": None,
    "empty": "",
    "no time": f"v1={GENUINE}",
    "no signature": f"t={T}",
    "two times": f"t={T},t={T},v1={GENUINE}",
    "two different times": f"t={T},t={T + 1},v1={GENUINE}",
    "time not a number": f"t=now,v1={GENUINE}",
    "time empty": f"t=,v1={GENUINE}",
    "time negative": f"t=-{T},v1={GENUINE}",
    "time with a sign": f"t=+{T},v1={GENUINE}",
    "time with a fraction": f"t={T}.0,v1={GENUINE}",
    "time with an underscore": f"t=1_{T},v1={GENUINE}",
    "time in other digits": f"t={str(T).translate(str.maketrans('0123456789', '٠١٢٣٤٥٦٧٨٩'))},v1={GENUINE}",
    "time of a thousand digits": f"t={'9' * 1000},v1={GENUINE}",
    "time of ten thousand digits": f"t={'9' * 10_000},v1={GENUINE}",
    "signature empty": f"t={T},v1=",
    "signature not ASCII": f"t={T},v1=é{GENUINE}",
    "signature beyond latin-1": f"t={T},v1=☃",
    "signature with a surrogate": f"t={T},v1=\udcff",
    "signature cut": f"t={T},v1={GENUINE[:-1]}",
    "signature longer": f"t={T},v1={GENUINE}0",
    "signature in capitals": f"t={T},v1={GENUINE.upper()}",
    "signature of another scheme": f"t={T},v0={GENUINE}",
    "scheme in capitals": f"t={T},V1={GENUINE}",
    "semicolons": f"t={T};v1={GENUINE}",
    "ten thousand wrong signatures": f"t={T}" + f",v1={'0' * 64}" * 10_000,
    "ten thousand, then the right one": f"t={T}" + f",v1={'0' * 64}" * 10_000 + f",v1={GENUINE}",
    "30 kB of commas": "," * 30_000,
    "30 kB of noise": "x" * 30_000,
    "30 kB in front": "x" * 30_000 + f",t={T},v1=",
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_not_stripes_is_untrusted(header: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And costs next to nothing: of many signatures few are looked at."""
    compared: list[bytes] = []
    genuine = hmac.compare_digest

    def counted(expected: bytes, signature: bytes) -> bool:
        compared.append(signature)
        return genuine(expected, signature)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    message = Message(BODY, {} if header is None else {"stripe-signature": header}, NOW)
    with pytest.raises(Untrusted):
        ADAPTER.read_callback(CREDENTIALS, message)
    assert len(compared) <= 20


@FUZZ
@given(header=st.text(max_size=200), body=st.binary(max_size=50), secrets=st.lists(st.text(max_size=9), max_size=3))
def test_any_header_is_refused_with_one_error(header: str, body: bytes, secrets: list[str]) -> None:
    assert not holds(body, header, tuple(secrets))


def test_without_a_saved_secret_nothing_is_believed() -> None:
    """Not even what is signed with an empty one."""
    for secret in ("", WHSEC):
        header = f"t={T},v1={mark(BODY, secret, T)}"
        message = Message(BODY, {"stripe-signature": header}, NOW)
        with pytest.raises(Untrusted):
            ADAPTER.read_callback(StripeCredentials(CREDENTIALS.secret_key), message)


def test_the_reason_holds_no_secret() -> None:
    for header in (None, f"t={T},v1={GENUINE[:-1]}0", f"t={T - 900},v1={GENUINE}"):
        with pytest.raises(Untrusted) as raised:
            verify(BODY, header, (WHSEC, OLD), NOW)
        assert "whsec" not in str(raised.value)
        assert GENUINE not in str(raised.value)


# --- signed, and odd all the same


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{}", b"7", b'"event"', b"\xff\xfe", b"\x00", b"[" * 100_000, b'{"a":' * 100_000,
        BODY[:-1], BODY + b"}", b"\xef\xbb\xbf" + BODY, BODY.replace(b"paid", b"\xff"),
        msgspec.json.encode({**PAID, "data": {}}),
        msgspec.json.encode({**PAID, "data": {"object": None}}),
        msgspec.json.encode({**PAID, "data": {"object": []}}),
        msgspec.json.encode({**PAID, "data": {"object": "cs_1"}}),
        msgspec.json.encode({**PAID, "data": None}),
        msgspec.json.encode({**PAID, "livemode": "false"}),
        msgspec.json.encode({**PAID, "type": 7}),
        msgspec.json.encode({**PAID, "id": None}),
        msgspec.json.encode(PAID).replace(b"1250", b"1" * 5000),
        msgspec.json.encode(PAID).replace(b"1250", b"1e400"),
        msgspec.json.encode(PAID).replace(b"1250", b"12.5"),
        msgspec.json.encode(PAID).replace(b"1250", b"-1"),
        msgspec.json.encode(PAID).replace(b'"metadata":{', b'"metadata":{"deep":' + b"[" * 9999),
    ],
    ids=lambda body: repr(body[:12]) + str(len(body)),
)  # fmt: skip
def test_a_signed_body_that_is_no_event_is_untrusted(body: bytes) -> None:
    """Whoever has the secret can make no other exception either."""
    with pytest.raises(Untrusted):
        ADAPTER.read_callback(CREDENTIALS, posted(body))


@pytest.mark.parametrize("member", ["id", "status", "client_reference_id", "payment_intent", "currency"])
def test_a_signed_nul_is_untrusted_wherever_it_stands(member: str) -> None:
    """No database takes one; a text that only speaks of one is a text."""
    thing = {**PAID["data"]["object"], member: "cs_\x00"}
    with pytest.raises(Untrusted):
        ADAPTER.read_callback(CREDENTIALS, posted({**PAID, "data": {"object": thing}}))
    with pytest.raises(Untrusted):
        ADAPTER.read_callback(CREDENTIALS, posted({**PAID, "id": "\x00"}))
    found = ADAPTER.read_callback(CREDENTIALS, posted({**PAID, "id": r"\u0000", "x": "\\"}))
    assert found
    assert found.key == r"\u0000"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**18, 10**40) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = (
    "id", "status", "payment_status", "amount_total", "currency", "client_reference_id", "metadata", "payment_intent",
    "url", "expires_at", "livemode", "amount", "amount_refunded", "refunds", "disputed", "charge", "latest_charge",
    "last_payment_error", "object",
)  # fmt: skip
METADATA = {"attempt_id": "019ac0de-0000-7000-8000-00000000abcd", "refund_id": "no id"}
THINGS = {
    "checkout": session(status="complete", payment_status="paid", payment_intent="pi_1"),
    "payment_intent": {"id": "pi_1", "status": "requires_payment_method", "metadata": METADATA},
    "refund": {"id": "re_1", "amount": 5, "currency": "usd", "status": "pending", "payment_intent": "pi_1"},
    "charge": {"id": "ch_1", "amount_refunded": 5, "currency": "usd", "payment_intent": "pi_1", "metadata": METADATA},
    "dispute": {"id": "du_1", "amount": 5, "currency": "usd", "status": "won", "payment_intent": {"id": "pi_1"}},
}


def thing_of(kind: str) -> dict[str, Any]:
    return THINGS["dispute" if "dispute" in kind else kind.partition(".")[0]]


@settings(max_examples=300, deadline=None)
@given(
    kind=st.sampled_from(TYPES),
    changes=st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=3),
    around=st.dictionaries(st.sampled_from(["id", "livemode", "data", "api_version", "x"]), JSON, max_size=1),
)
def test_a_mutated_genuine_event_is_a_callback_nothing_or_untrusted(
    kind: str, changes: dict[str, Any], around: dict[str, Any]
) -> None:
    """Of every type, with any member of any value; what comes out is fit to be kept."""
    event = {**event_of(kind, {**thing_of(kind), **changes}), **around}
    try:
        found = ADAPTER.read_callback(CREDENTIALS, posted(event))
    except Untrusted:
        return
    if found is not None:
        assert isinstance(found, Callback)
        assert all("\x00" not in value for value in found.fields.values())
        assert found.reference is not None or found.attempt_id or found.gateway_reference
        amounts = [found.report.amount] if found.report else []
        settlement = found.report.settlement if found.report else None
        amounts += settlement.amounts() if settlement else []
        assert all(amount is None or amount.minor < 2**63 for amount in amounts)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode) | JSON.map(msgspec.json.encode))
def test_any_signed_bytes_are_nothing_or_untrusted(body: bytes) -> None:
    try:
        assert ADAPTER.read_callback(CREDENTIALS, posted(body)) is None
    except Untrusted:
        return
