"""Paynow's adapter against its simulator, and against a server that lies in every way that HTTP allows."""

from __future__ import annotations

import asyncio
import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from payments_service.errors import Ambiguous, Because, GatewayError, NotConfigured, Refused, Unreachable, Untrusted
from payments_service.gateways.base import Redirect
from payments_service.gateways.paynow import STATUSES, Paynow, PaynowCredentials
from payments_service.gateways.paynow_wire import ADVICE, digest, hash_is_valid, parse_message, refusal
from payments_service.gateways.transport import Transport
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money
from payments_service.sandbox import wire
from payments_service.sandbox.paynow import PaynowSandbox
from payments_service.sandbox.wire import Pairs
from tests.gateways import paynow_stage
from tests.gateways.paynow_stage import (
    REAL,
    USD,
    USD_ID,
    USD_KEY,
    ZIG,
    ZIG_ID,
    ZIG_KEY,
    Hasty,
    Liar,
    attempt_of,
    begin,
    concluded,
    opened,
    posted,
    request,
)
from tests.servers import Stage, listen

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "paynow_hash.json").read_text(encoding="utf-8")
)["vectors"]
READABLE = [vector for vector in VECTORS if "body" in vector]

stage, sandbox, transport = paynow_stage.stage, paynow_stage.sandbox, paynow_stage.transport  # fixtures
paynow, liar = paynow_stage.paynow, paynow_stage.liar


# --- the hash


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_published_hashes_are_made(vector: dict[str, Any]) -> None:
    """Every vector: the digest of its trimmed values in their order, or of its hash input where no body is known."""
    key = vector["integration_key"]
    whole = vector["hash_input"].removesuffix(key.lower())
    fields = vector.get("fields_in_order") or [("item", whole)]
    assert digest([(name, value.strip()) for name, value in fields], key) == vector["expected_hash"]


def with_hash(vector: dict[str, Any]) -> bytes:
    body = str(vector["body"])
    return (body if "hash=" in body else f"{body}&hash={vector['expected_hash']}").encode()


@pytest.mark.parametrize("vector", READABLE, ids=lambda vector: vector["name"])
def test_published_messages_verify(vector: dict[str, Any]) -> None:
    """Read from the body as it travelled, once decoded and in order; and with another key they do not verify."""
    fields = parse_message(with_hash(vector))
    assert [list(each) for each in fields if each[0] != "hash"] == vector["fields_in_order"]
    assert hash_is_valid(fields, vector["integration_key"])
    assert hash_is_valid(fields, vector["integration_key"].upper())
    assert not hash_is_valid(fields, vector["integration_key"][:-1])
    assert not hash_is_valid(fields, "")


@pytest.mark.parametrize("vector", READABLE, ids=lambda vector: vector["name"])
def test_a_published_message_with_any_value_changed_does_not_verify(vector: dict[str, Any]) -> None:
    """One character more, one less, another one, two values swapped, one left out: each is noticed."""
    fields, key = list(parse_message(with_hash(vector))), vector["integration_key"]
    for place, (name, value) in enumerate(fields):
        for other in (f"{value}0", f"0{value}", value[:-1], value[1:], value.swapcase() if name != "hash" else ""):
            if other.strip() != value.strip():
                assert not hash_is_valid([*fields[:place], (name, other), *fields[place + 1 :]], key), (name, other)
        if value:
            assert not hash_is_valid([*fields[:place], *fields[place + 1 :]], key), name
    values = [each for each in fields if each[0] != "hash"]
    swapped = [values[1], values[0], *values[2:], fields[-1]]
    assert not hash_is_valid(swapped, key), "the order of the values is part of the hash"


MESSAGE: Pairs = [("reference", "INV-1"), ("amount", "12.50"), ("status", "Paid")]
HASH = wire.digest(MESSAGE, USD_KEY)


@pytest.mark.parametrize(
    "fields",
    [
        [*MESSAGE, ("hash", HASH)],
        [*MESSAGE, ("hash", HASH.lower())],
        [*MESSAGE, ("hash", f" {HASH}\r\n")],
        [*MESSAGE, ("HASH", HASH)],
        [*MESSAGE, ("Hash", HASH.swapcase())],
        [("hash", HASH), *MESSAGE],
        [MESSAGE[0], ("hash", HASH), *MESSAGE[1:]],
        [*MESSAGE, ("empty", ""), ("hash", HASH)],
        [(name, f"  {value}\t") for name, value in [*MESSAGE, ("hash", HASH)]],
        [(name.upper(), value) for name, value in [*MESSAGE, ("hash", HASH)]],
    ],
)
def test_a_hash_is_accepted(fields: Pairs) -> None:
    """In either case, wherever it stands, whatever its name's case; over the values as they came or trimmed."""
    assert hash_is_valid(fields, USD_KEY)


def test_a_hash_over_untrimmed_values_is_accepted_too() -> None:
    """Whether Paynow trims is known from one published vector only."""
    blank = [("reference", " INV-1 "), ("status", "Paid")]
    assert hash_is_valid([*blank, ("hash", digest(blank, USD_KEY))], USD_KEY)
    assert hash_is_valid([*blank, ("hash", wire.digest(blank, USD_KEY))], USD_KEY)


@pytest.mark.parametrize(
    "claimed",
    [
        [],
        [("hash", "")],
        [("hash", " ")],
        [("hash", HASH[:-1])],
        [("hash", HASH + "0")],
        [("hash", HASH[:64])],
        [("hash", "0" * 128)],
        [("hash", "é" * 128)],
        [("hash", HASH[:-1] + "\uff10")],  # a full-width digit
        [("hash", "\x00" + HASH)],
        [("hash", HASH), ("hash", HASH)],
        [("hash", HASH), ("HASH", "0" * 128)],
        [("hash ", HASH)],
        [("hash", wire.digest(MESSAGE, ZIG_KEY))],
        [("hash", wire.digest(MESSAGE, ""))],
    ],
)
def test_a_hash_is_refused(claimed: Pairs) -> None:
    """Missing, empty, cut, long, not ASCII, twice, or of another key: false, and never an exception."""
    assert not hash_is_valid([*MESSAGE, *claimed], USD_KEY)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=30)
NAMES = st.text(st.sampled_from(string.ascii_letters), min_size=1, max_size=12).filter(lambda n: n.lower() != "hash")
PAIRS = st.lists(st.tuples(NAMES, TEXT), max_size=12, unique_by=lambda pair: pair[0].lower())


@given(PAIRS, st.booleans())
def test_what_an_independent_writer_signs_is_read_exactly_and_verifies(pairs: Pairs, lower_case: bool) -> None:
    """The simulator's encoder and hash, written apart from the adapter: same fields, same order, same digest."""
    signed = [*pairs, ("hash", wire.digest(pairs, USD_KEY))]
    body = wire.encode(signed)
    fields = parse_message(body.lower() if lower_case and all(v == v.lower() for _, v in pairs) else body)
    assert [value for _, value in fields][:-1] == [value for _, value in pairs]
    assert hash_is_valid(fields, USD_KEY)
    assert not hash_is_valid(fields, ZIG_KEY)


@given(PAIRS, st.data())
def test_a_changed_value_never_verifies(pairs: Pairs, data: st.DataObject) -> None:
    assume(pairs)
    place = data.draw(st.integers(0, len(pairs) - 1))
    name, value = pairs[place]
    other = data.draw(TEXT.filter(lambda text: text.strip() != value.strip()))
    changed = [*pairs[:place], (name, other), *pairs[place + 1 :]]
    same_text = "".join(v.strip() for _, v in changed) == "".join(v.strip() for _, v in pairs)
    assert hash_is_valid([*changed, ("hash", wire.digest(pairs, USD_KEY))], USD_KEY) is same_text


def test_the_hash_binds_no_field_boundaries_which_is_why_a_callback_is_only_a_hint() -> None:
    """A weakness of the protocol: `901|5.00` and `90|15.00` hash the same. So the poll must prove it."""
    one = [("paynowreference", "901"), ("amount", "5.00")]
    other = [("paynowreference", "90"), ("amount", "15.00")]
    assert digest(one, USD_KEY) == digest(other, USD_KEY)
    assert Paynow.callback_is_proof is False


# --- messages


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", []),
        (b"\r\n", []),
        (b"a=1&b=2", [("a", "1"), ("b", "2")]),
        (b"b=2&a=1\r\n", [("b", "2"), ("a", "1")]),
        (b"a=&b=", [("a", ""), ("b", "")]),
        (b"a=1=2", [("a", "1=2")]),
        (b"a=x+y%20z", [("a", "x y z")]),
        (b"a=https%3a%2F%2fh", [("a", "https://h")]),
        (b"a=%C3%A9%c3%a9", [("a", "éé")]),
        ("a=é".encode(), [("a", "é")]),
        (b"a=Order%2B%2523100", [("a", "Order+%23100")]),  # encoded twice by a client: decoded once, as it was hashed
        (b"a=%zz%", [("a", "%zz%")]),
        (b"a=1;b=2", [("a", "1;b=2")]),
        (b"Status=Ok", [("Status", "Ok")]),
        (b"&".join(b"f%d=1" % number for number in range(64)), [(f"f{number}", "1") for number in range(64)]),
    ],
)
def test_a_message_is_read(body: bytes, fields: Pairs) -> None:
    """Decoded once, empty values kept, in the order that travelled."""
    assert parse_message(body) == fields


UNREADABLE: dict[str, bytes] = {
    "not a form": b"hello",
    "HTML": b"<!DOCTYPE html><html><body>Paid</body></html>",
    "JSON": b'{"status": "Paid"}',
    "not UTF-8": b"status=Pa\xefd",
    "not UTF-8 once decoded": b"status=Pa%efd",
    "UTF-16": "status=Paid".encode("utf-16"),
    "half a character": b"status=%C3",
    "over-long slash": b"status=%c0%af",
    "encoded surrogate": b"status=%ed%a0%80",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "NUL in a value": b"status=Pa%00id",
    "NUL in a name": b"sta%00tus=Paid",
    "raw NUL": b"status=Pa\x00id",
    "a field twice": b"status=Paid&status=Sent",
    "a field twice, the same": b"status=Paid&status=Paid",
    "a field twice in another case": b"status=Paid&STATUS=Sent",
    "a field twice, one escaped": b"status=Paid&%73tatus=Sent",
    "hash twice": b"status=Paid&hash=A&Hash=A",
    "empty name twice": b"=1&=2",
    "no equals sign": b"status=Paid&amount",
    "an empty field": b"status=Paid&&amount=1",
    "an ampersand behind": b"status=Paid&",
    "65 fields": b"&".join(b"f%d=1" % number for number in range(65)),
    "100,000 fields": b"&".join(b"f%d=1" % number for number in range(100_000)),
    "1 MB of ampersands": b"&" * 1_000_000,
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
def test_a_message_is_refused(body: bytes) -> None:
    """What two readers could take in two ways, or what no database keeps, proves nothing; the words hold none of it."""
    with pytest.raises(Untrusted) as raised:
        parse_message(body)
    assert "Paid" not in str(raised.value)


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """Of any bytes: Untrusted, for a stranger has no key."""
    with pytest.raises(Untrusted):
        Paynow(None, REAL).read_callback(USD, posted(body))  # type: ignore[arg-type]


# --- credentials

SAVED = {
    "paynow_integration_id": USD_ID,
    "paynow_integration_key": USD_KEY,
    "paynow_zig_integration_id": ZIG_ID,
    "paynow_zig_integration_key": ZIG_KEY,
}


@pytest.mark.parametrize(("currency", "expected"), [(Currency.USD, USD), (Currency.ZIG, ZIG)])
async def test_the_currency_chooses_the_integration(
    paynow: Paynow, currency: Currency, expected: PaynowCredentials
) -> None:
    """An integration belongs to one currency; the one is never used for the other's money."""
    assert paynow.credentials(SAVED, currency) == expected


@pytest.mark.parametrize("currency", Currency)
@pytest.mark.parametrize("field", SAVED)
@pytest.mark.parametrize("nothing", [None, ""])
async def test_a_missing_field_is_named_in_plain_words(
    paynow: Paynow, currency: Currency, field: str, nothing: str | None
) -> None:
    """Only the two fields of the asked currency matter; the message says what is missing and where to save it."""
    values = {**SAVED, field: nothing}
    if ("zig" in field) is not (currency is Currency.ZIG):
        assert paynow.credentials(values, currency).currency is currency
        return
    with pytest.raises(NotConfigured) as raised:
        paynow.credentials(values, currency)
    words = str(raised.value)
    assert field in words
    assert str(currency) in words
    assert USD_KEY not in words
    assert ZIG_KEY not in words


def test_the_key_never_prints() -> None:
    for text in (repr(USD), str(USD), f"{USD}", repr([USD]), repr(request(payer_email="tmoyo@example.com"))):
        assert USD_KEY not in text
        assert "tmoyo" not in text


# --- start


@pytest.mark.parametrize(("credentials", "currency"), [(USD, Currency.USD), (ZIG, Currency.ZIG)])
async def test_a_start_is_accepted_by_the_simulator(
    paynow: Paynow, sandbox: PaynowSandbox, credentials: PaynowCredentials, currency: Currency
) -> None:
    """Every field arrives, under the integration of its currency; the answer's URLs are what comes back."""
    asked = request(amount=Money(1250, currency), payer_email="tmoyo@example.com")
    started = await paynow.start(credentials, asked)
    (transaction,) = sandbox.transactions
    assert transaction.integration.id == credentials.integration_id
    assert (transaction.reference, transaction.amount) == (asked.reference, asked.amount)
    assert (transaction.returnurl, transaction.resulturl) == (asked.return_url, asked.callback_url)
    assert (transaction.additionalinfo, transaction.authemail) == (asked.description, asked.payer_email)
    assert transaction.merchanttrace == asked.attempt_id.hex
    assert started.poll_url == sandbox.pollurl(transaction)
    assert started.next_step == Redirect(dict(sandbox.opening(transaction))["browserurl"])
    assert started.gateway_reference is None


async def test_the_reference_of_an_ok_reply_is_kept_if_there_is_one(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Sources disagree whether it comes; when it does, it is under the hash."""
    sandbox.reference_in_reply = True
    started = await paynow.start(USD, request())
    assert started.gateway_reference == str(sandbox.transactions[0].number)


@pytest.mark.parametrize(
    "description",
    [
        "Order #100 & more = 50% + é",
        "  blanks around  ",
        "\t\r\n",
        "🧾 Mari yemba; “quoted” <b>bold</b>",
        "a%20b%2Bc",
        "hash",
        "x" * 500,
        "",
    ],
)
async def test_no_description_breaks_the_hash(paynow: Paynow, sandbox: PaynowSandbox, description: str) -> None:
    """The simulator verifies with its own code; blanks at the ends are not sent, for Paynow trims before it hashes."""
    await paynow.start(USD, request(description=description))
    assert sandbox.transactions[0].additionalinfo == description.strip()


async def test_the_request_on_the_wire(paynow: Paynow, liar: Liar) -> None:
    """Form-encoded ASCII in a fixed order, two decimals, the literal `Message`, the hash last; sent once."""
    liar.ok()
    asked = request(description=" Zvinhu é ", amount=Money(5, Currency.USD))
    await paynow.start(USD, asked)
    assert liar.paths == ["POST /interface/initiatetransaction?"]
    pairs = parse_qsl(liar.requests[0].decode("ascii"), strict_parsing=True)
    expected = [
        ("id", "1201"),
        ("reference", asked.reference),
        ("amount", "0.05"),
        ("additionalinfo", "Zvinhu é"),
        ("returnurl", asked.return_url),
        ("resulturl", asked.callback_url),
        ("merchanttrace", asked.attempt_id.hex),
        ("status", "Message"),
    ]
    assert pairs == [*expected, ("hash", wire.digest(expected, USD_KEY))]
    assert len(asked.attempt_id.hex) == 32
    assert USD_KEY.encode() not in liar.requests[0]


async def test_many_starts_at_once_stay_apart(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Forty calls of two integrations through one transport: each with its own key, amount and poll URL."""
    asked = [request(amount=Money(100 + number, list(Currency)[number % 2])) for number in range(40)]
    by_currency = {Currency.USD: USD, Currency.ZIG: ZIG}
    started = await asyncio.gather(*(paynow.start(by_currency[one.amount.currency], one) for one in asked))
    assert len({each.poll_url for each in started}) == 40
    for one, answer in zip(asked, started, strict=True):
        transaction = sandbox.find(one.reference)
        assert transaction.amount == one.amount
        assert sandbox.pollurl(transaction) == answer.poll_url


# --- the gateway says no


@pytest.mark.parametrize(
    ("change", "words", "theirs"),
    [
        ("wrong key", "does not accept the integration key", "Invalid Hash"),
        ("other currency's key", "does not accept the integration key", "Invalid Hash"),
        ("unknown id", "does not know this integration ID", "Invalid id."),
        ("inactive", "inactive", "currently inactive"),
        ("test mode", "test mode", "currently in test mode"),
        ("amount", "refuses this amount", "Invalid amount field"),
        ("return url", "PUBLIC_URL", "Enter valid return url"),
    ],
)
async def test_a_refusal_says_in_plain_words_what_to_do(
    paynow: Paynow, sandbox: PaynowSandbox, change: str, words: str, theirs: str
) -> None:
    """Refused: nothing was started. The message is advice first, Paynow's own text behind it, and no secret."""
    credentials, asked = USD, request()
    match change:
        case "wrong key":
            credentials = PaynowCredentials(USD_ID, "9" * 8 + USD_KEY[8:], Currency.USD)
        case "other currency's key":
            credentials = PaynowCredentials(USD_ID, ZIG_KEY, Currency.USD)
        case "unknown id":
            credentials = PaynowCredentials("999", USD_KEY, Currency.USD)
        case "inactive":
            sandbox.integrations[USD_ID].active = False
        case "test mode":
            sandbox.integrations[USD_ID].test_mode = True
            asked = request(payer_email="tmoyo@example.com")
        case "amount":
            asked = request(amount=Money(0, Currency.USD))
        case "return url":
            asked = request(return_url="localhost")
    with pytest.raises(Refused) as raised:
        await paynow.start(credentials, asked)
    said = str(raised.value)
    assert words in said
    assert theirs in said.partition("(Paynow says: ")[2]
    assert credentials.integration_key not in said
    assert "tmoyo" not in said
    assert sandbox.transactions == []


async def test_in_test_mode_a_start_without_an_email_or_with_the_owners_works(
    paynow: Paynow, sandbox: PaynowSandbox
) -> None:
    """So the advice, to leave contact_email out, is right."""
    sandbox.integrations[USD_ID].test_mode = True
    await paynow.start(USD, request())
    await paynow.start(USD, request(payer_email=sandbox.integrations[USD_ID].owner_email))
    assert len(sandbox.transactions) == 2


# Texts that Paynow is known to send (protocol notes, sections 1 and 6), by the advice that each must lead to.
SAID_BY_PAYNOW: dict[str, tuple[str, ...]] = {
    "invalid hash": ("Invalid Hash.  Hash should start with: 8AB116", "INVALID HASH"),
    "invalid id": ("Invalid id.",),
    "remote innbucks": (
        "The ID specified is currently in test mode. This is not permitted for remote InnBucks transactions",
    ),
    "test mode": ("The integration is in TEST MODE",),
    "insufficient balance": ("Insufficient balance",),
    "no active": ("no ACTIVE onemoney payment method",),
    "phone": ("Invalid phone field",),
    "authemail": ("Invalid authemail", "Authemail must be the merchant's"),
    "invalid amount": ("Invalid amount field",),
    "currently inactive": ("The integration specified is currently inactive",),
    "not a site integration": ("The id specified is not a site integration",),
    "valid return url": ("Enter valid return url",),
}


def test_every_piece_of_advice_has_a_known_text() -> None:
    assert SAID_BY_PAYNOW.keys() == {part for part, _, _ in ADVICE}


@pytest.mark.parametrize(("part", "words", "because"), ADVICE, ids=lambda text: text[:20])
def test_advice_is_given_for_what_paynow_says(part: str, words: str, because: Because) -> None:
    """Found in any case and with odd blanks, not shadowed by another piece of advice, with Paynow's own words kept, and
    with what the customer may make of it."""
    for text in SAID_BY_PAYNOW[part]:
        shown = " ".join(text.split())
        refused = refusal(text)
        assert (refused.detail, refused.because) == (f"{words} (Paynow says: {shown})", because)
        assert refusal(f"  {text.upper()}\r\n".replace(" ", "  ")).detail.startswith(words)
    assert words[0].isupper()
    assert words.endswith(".")
    assert "hash" not in words.lower().split(), "no protocol words: it is read by people"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Transaction limit exceeded", "Paynow says: Transaction limit exceeded"),
        ("", "Paynow says: no reason given"),
        (" \r\n", "Paynow says: no reason given"),
        ("two\nlines\tand  blanks", "Paynow says: two lines and blanks"),
        ("x" * 5000, f"Paynow says: {'x' * 200}"),
    ],
)
def test_an_unknown_error_is_passed_on_short_and_on_one_line(text: str, shown: str) -> None:
    refused = refusal(text)
    assert (refused.detail, refused.because) == (shown, Because.OTHER)


@pytest.mark.parametrize("status", ["Error", "error", "ERROR", " Error ", "error\r\n"])
async def test_an_error_is_known_in_any_case(paynow: Paynow, liar: Liar, status: str) -> None:
    liar.body = wire.encode([("Status", status), ("Error", "Insufficient balance")])
    with pytest.raises(Refused, match="Paynow says: Insufficient balance"):
        await paynow.start(USD, request())


# --- answers that are none

JUNK: dict[str, tuple[type[GatewayError], dict[str, Any]]] = {
    "html": (Untrusted, {}),
    "empty": (Untrusted, {}),
    "truncated": (Untrusted, {}),
    "huge": (Untrusted, {}),
    "redirect": (Untrusted, {}),
    "wrong_hash": (Untrusted, {}),
    "error500": (Ambiguous, {}),
    "timeout_after_accepting": (Ambiguous, {"seconds": 0.0}),  # the connection is dropped at once
}


@pytest.mark.parametrize("fault", JUNK)
async def test_a_start_with_a_lost_answer_is_settled_by_its_trace(
    paynow: Paynow, sandbox: PaynowSandbox, fault: str
) -> None:
    """Accepted, but no believable answer came: not refused, not started; the trace finds it, with its poll URL."""
    kind, options = JUNK[fault]
    sandbox.add_fault(fault, on=["initiate"], **options)
    asked = request()
    with pytest.raises(kind):
        await paynow.start(USD, asked)
    assert sandbox.calls == {"initiate": 1}, "sent once, no redirect followed"
    report = await paynow.check(USD, attempt_of(asked, None))
    poll_url = sandbox.pollurl(sandbox.find(asked.reference))
    assert report == Report(
        Outcome.PENDING, "Created", asked.amount, asked.reference, str(sandbox.transactions[0].number), poll_url
    )
    await sandbox.pay(asked.reference)
    assert (await paynow.check(USD, attempt_of(asked, poll_url))).outcome is Outcome.PAID


@pytest.mark.parametrize("fault", ["slow", "timeout_after_accepting"])
async def test_an_answer_that_does_not_come_in_time_is_ambiguous(
    transport: Transport, sandbox: PaynowSandbox, fault: str
) -> None:
    """One that drips as one that never begins; in a start and in each look-up."""
    sandbox.add_fault(fault, on=["initiate", "poll", "trace"], times=1)
    hasty, asked = Hasty(transport, sandbox.public_url), request()
    with pytest.raises(Ambiguous):
        await hasty.start(USD, asked)
    poll_url = sandbox.pollurl(sandbox.find(asked.reference))
    for where in (poll_url, None):
        with pytest.raises(Ambiguous):
            await hasty.check(USD, attempt_of(asked, where))
        assert (await hasty.check(USD, attempt_of(asked, where))).outcome is Outcome.PENDING


async def test_a_customer_waits_at_most_so_long() -> None:
    """The deadlines in production: a start within the reconciler's grace, a look-up well within its lease."""
    assert Paynow.start_seconds < 30
    assert Paynow.check_seconds < 60


@pytest.mark.parametrize("outcome", ["pay", "cancel", "dispute", "refund"])
@pytest.mark.parametrize("fault", [*JUNK, "poll_error"])
async def test_a_look_up_without_a_believable_answer_concludes_nothing(
    paynow: Paynow, sandbox: PaynowSandbox, fault: str, outcome: str
) -> None:
    """Whatever became of the payment: neither paid nor failed, by poll as by trace; and the truth once it is heard."""
    kind, options = JUNK.get(fault, (Untrusted, {"text": "Trace failed"}))
    attempt = await begin(paynow)
    if outcome != "cancel":
        await sandbox.pay(attempt.reference)
    if outcome != "pay":
        await getattr(sandbox, outcome)(attempt.reference)
    sandbox.add_fault(fault, on=["poll", "trace"], times=1, **options)
    for where in (attempt, opened(None, attempt_id=attempt.attempt_id, reference=attempt.reference)):
        assert await concluded(paynow.check(USD, where)) is kind
    assert sandbox.calls["redirected"] == 0
    truth = {
        "pay": Outcome.PAID,
        "cancel": Outcome.FAILED,
        "dispute": Outcome.DISPUTED,
        "refund": Outcome.REFUNDED,
    }
    assert (await paynow.check(USD, attempt)).outcome is truth[outcome]


@pytest.mark.parametrize("status", [201, 204, 301, 400, 403, 404, 429, 500, 502, 503])
async def test_a_refusal_counts_only_with_http_200(paynow: Paynow, liar: Liar, status: int) -> None:
    """An error page of whatever stands before Paynow is no answer of Paynow, not even with its words."""
    liar.body, liar.status = b"status=Error&error=Insufficient+balance", status
    if 200 <= status < 300:
        liar.body = b"" if status == 204 else liar.body
        with pytest.raises(Untrusted if status == 204 else Refused):
            await paynow.start(USD, request())
        return
    with pytest.raises((Ambiguous, Untrusted)):
        await paynow.start(USD, request())


async def test_a_refused_connection_is_unreachable(transport: Transport) -> None:
    """Nothing was sent: the payment may be called failed."""
    listener = listen()
    port = listener.getsockname()[1]
    listener.close()
    down = Paynow(transport, f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable):
        await down.start(USD, request())
    for where in (None, f"http://127.0.0.1:{port}/Interface/CheckPayment/?guid=1"):
        with pytest.raises(Unreachable):
            await down.check(USD, opened(where))


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "Sent"},
        {"status": "Paid"},
        {"status": ""},
        {"status": "Okay"},
        {"status": "O k"},
        {"browserurl": ""},
        {"pollurl": ""},
    ],
    ids=str,
)
async def test_a_signed_answer_that_is_no_acceptance_starts_nothing(
    paynow: Paynow, liar: Liar, changes: dict[str, str]
) -> None:
    """Only Ok with both URLs is one. It is no refusal either: the trace must tell."""
    liar.ok(**changes)
    with pytest.raises(Untrusted):
        await paynow.start(USD, request())


@pytest.mark.parametrize("status", ["Ok", "ok", "OK", " oK "])
async def test_ok_is_known_in_any_case(paynow: Paynow, liar: Liar, status: str) -> None:
    liar.ok(status=status, paynowreference="9", newfield="x")
    started = await paynow.start(USD, request())
    assert (started.poll_url, started.gateway_reference) == (f"{liar.url}/Interface/CheckPayment/", "9")


async def test_an_ok_of_another_key_is_not_believed(paynow: Paynow, liar: Liar) -> None:
    """Signed by the tenant's own other integration, or by another tenant: it is not about this start."""
    urls = {"browserurl": f"{liar.url}/x", "pollurl": f"{liar.url}/y"}
    liar.signed(ZIG_KEY, status="Ok", **urls)
    with pytest.raises(Untrusted, match="hash"):
        await paynow.start(USD, request())


async def test_an_ok_with_capital_names_in_another_order_is_read(paynow: Paynow, liar: Liar) -> None:
    """Some documents show `Status=` and `BrowserUrl=`; the order is nowhere fixed; the hash may come first."""
    pairs = [("PollUrl", f"{liar.url}/p"), ("BrowserUrl", f"{liar.url}/b"), ("Status", "Ok")]
    liar.body = wire.encode([("Hash", wire.digest(pairs, USD_KEY).lower()), *pairs])
    started = await paynow.start(USD, request())
    assert (started.next_step.url, started.poll_url) == (f"{liar.url}/b", f"{liar.url}/p")


# --- addresses: only Paynow's own

# {o}: the origin, {s}: its scheme, {h}: its host and port, {t}: the other scheme.
FOREIGN: dict[str, str] = {
    "nothing": "",
    "blank": "  ",
    "other host": "{s}://evil.example/pay",
    "other scheme": "{t}://{h}/pay",
    "script": "javascript:alert(1)",
    "script with a host": "javascript://{h}/%0aalert(1)",
    "data": "data:text/html,<script>alert(1)</script>",
    "file": "file:///etc/passwd",
    "user info": "{s}://{h}@evil.example/",
    "user info with a password": "{s}://{h}:x@evil.example/",
    "user info with a path": "{s}://{h}%2f@evil.example/",
    "somebody at the host": "{s}://evil@{h}/",
    "host goes on": "{o}.evil.example/pay",
    "host goes on without a dot": "{o}evil.example/pay",
    "host goes on with a dash": "{o}-evil.example/pay",
    "sub-domain": "{s}://evil.{h}/pay",
    "trailing dot": "{o}./pay",
    "other port": "{o}0/pay",
    "another port": "{o}:1/pay",
    "empty port": "{o}:/pay",
    "protocol-relative": "//{h}/pay",
    "protocol-relative, other": "//evil.example/pay",
    "three slashes": "{s}:///{h}/pay",
    "one slash": "{s}:/{h}/pay",
    "no slash": "{s}:{h}/pay",
    "no scheme": "{h}/pay",
    "path only": "/Payment/ConfirmPayment/9",
    "no path": "{o}",
    "query at once": "{o}?x=/pay",
    "fragment at once": "{o}#/pay",
    "backslash after the host": "{o}\\@evil.example/",
    "backslash in the path": "{o}/\\evil.example/",
    "two backslashes": "{s}:\\\\evil.example/",
    "control character": "{o}/\x01pay",
    "line end": "{o}/pay\r\nSet-Cookie: a=b",
    "line feed in the host": "{s}://{h}\n.evil.example/",
    "tab in the scheme": "ht\ttp://{h}/pay",
    "tab in the path": "{o}/\tpay",
    "delete": "{o}/\x7f",
    "escape": "\x1b[31m{o}/pay",
    "blank inside": "{o}/a b",
    "no-break blank": "{o}/a\u00a0b",
    "look-alike host": "https://www.p\u0430ynow.co.zw/pay",
    "kelvin sign": "{o}/\u212a",
    "full-width slash": "{o}\uff0fevil.example/",
    "full-width solidus in the path": "{o}/\uff0f",
    "accent": "{o}/é",
    "right-to-left": "{o}/\u202e",
}


def on(origin: str, attack: str) -> str:
    parts = urlsplit(origin)
    other = "https" if parts.scheme == "http" else "http"
    return attack.format(o=origin, s=parts.scheme, h=parts.netloc, t=other)


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
async def test_no_stored_address_leads_elsewhere(transport: Transport, attack: str) -> None:
    """Even if one got into our database: it is refused before any connection is made."""
    with capture_logs() as lines, pytest.raises(Untrusted, match="Paynow's own host"):
        await Paynow(transport, REAL).check(USD, opened(on(REAL, attack)))
    assert lines == []


@pytest.mark.parametrize("attack", FOREIGN.values(), ids=FOREIGN)
async def test_no_answer_sends_customer_or_poll_elsewhere(paynow: Paynow, liar: Liar, attack: str) -> None:
    """Signed by Paynow itself: neither address is used unless it is on Paynow's scheme, host and port."""
    url = on(liar.url, attack)
    for name in ("browserurl", "pollurl"):
        liar.ok(**{name: url})
        with pytest.raises(Untrusted, match="Paynow's own host") as raised:
            await paynow.start(USD, request())
        assert "evil" not in str(raised.value)
    liar.message(status="Sent", pollurl=url)
    with pytest.raises(Untrusted, match="Paynow's own host"):
        await paynow.check(USD, opened())


OWN = {
    "as documented": "{o}/Interface/CheckPayment/?guid=c7ed41da-0159-46da-b428-69549f770413",
    "with an e-mail": "{o}/Payment/ConfirmPayment/2638504/tmoyo@yahoo.com//",
    "upper-case scheme": "{S}://{h}/pay",
    "upper-case host": "{s}://{H}/pay",
    "blanks around": "  {o}/pay\r\n",
    "two slashes": "{o}//pay",
    "another host in the path": "{o}/https://evil.example/",
    "another host in the query": "{o}/?next=https://evil.example/",
    "comma": "{o}/a,https://evil.example/",
    "escaped backslash": "{o}/%5cevil.example",
}


@pytest.mark.parametrize("form", OWN.values(), ids=OWN)
async def test_paynows_own_addresses_are_used(
    transport: Transport, stage: tuple[Stage, str], liar: Liar, form: str
) -> None:
    """Whatever the path, in any case of scheme and host; blanks around are Paynow's way of writing."""
    base = stage[1].replace("127.0.0.1", "localhost")
    parts = urlsplit(base)
    url = form.format(
        o=base, s=parts.scheme, h=parts.netloc, S=parts.scheme.upper(), H=f"LocalHost:{parts.port}", t="https"
    )
    paynow = Paynow(transport, base + "/")
    liar.ok(browserurl=url, pollurl=url)
    started = await paynow.start(USD, request())
    assert (started.next_step.url, started.poll_url) == (url.strip(), url.strip())
    liar.message()
    assert (await paynow.check(USD, opened(started.poll_url))).outcome is Outcome.PAID
    assert len(liar.paths) == 2


@pytest.mark.parametrize(
    ("base", "origin"),
    [
        (REAL, REAL),
        (REAL + "/", REAL),
        ("HTTPS://WWW.Paynow.co.zw", REAL),
        ("http://127.0.0.1:8082/", "http://127.0.0.1:8082"),
        ("http://gateway:8082/paynow/", "http://gateway:8082"),
    ],
)
def test_the_page_origin_is_scheme_host_and_port(base: str, origin: str) -> None:
    """It goes into the pay page's policy for form targets, so it must be exact."""
    assert Paynow(None, base).page_origins() == (origin,)  # type: ignore[arg-type]


async def test_the_poll_goes_to_the_stored_address_with_an_empty_body(paynow: Paynow, liar: Liar) -> None:
    liar.message()
    await paynow.check(USD, opened(f"{liar.url}/Interface/CheckPayment/?guid=C7ED-41da"))
    assert liar.paths == ["POST /Interface/CheckPayment/?guid=C7ED-41da"]
    assert liar.requests == [b""]


# --- statuses

# Section 5 of the protocol notes, written out once more: the table of the adapter is held against it.
SECTION_5: dict[str, Outcome] = {
    "Created": Outcome.PENDING,
    "Sent": Outcome.PENDING,
    "Awaiting Redirect": Outcome.PENDING,
    "Created but not paid": Outcome.PENDING,
    "Pending": Outcome.PENDING,
    "Pending Payment": Outcome.PENDING,
    "Paid": Outcome.PAID,
    "Awaiting Delivery": Outcome.PAID,
    "Delivered": Outcome.PAID,
    "Cancelled": Outcome.FAILED,
    "Failed": Outcome.FAILED,
    "Disputed": Outcome.DISPUTED,
    "Refunded": Outcome.REFUNDED,
}
UNKNOWN = [
    "",
    " ",
    "Ok",
    "NotFound",
    "Message",
    "Canceled",
    "Unpaid",
    "Not Paid",
    "Paid?",
    "Paid,Cancelled",
    "Awaiting  Delivery",
    "AwaitingDelivery",
    "Refund",
    "Chargeback",
    "Success",
    "true",
    "1",
    "<b>Paid</b>",
    "Pa\u200bid",
    "\uff30\uff41\uff49\uff44",
    "PA\u0130D",
    "p\u0430id",
    "x" * 5000,
]


def test_the_status_table_is_complete() -> None:
    """Every word of the protocol notes, and no other; `pending…` is matched by its beginning."""
    listed = {word.lower(): outcome for word, outcome in SECTION_5.items() if not word.startswith("Pending")}
    assert listed == STATUSES


@pytest.mark.parametrize(("word", "outcome"), SECTION_5.items())
async def test_a_status_means(paynow: Paynow, sandbox: PaynowSandbox, word: str, outcome: Outcome) -> None:
    """Polled from the simulator: in any case, with blanks around; with amount, reference and Paynow's own number."""
    attempt = await begin(paynow)
    for said in (word, word.upper(), word.lower(), word.swapcase(), f"  {word}\t", f"\r\n{word.title()}\u00a0"):
        await sandbox.set_status(attempt.reference, said)
        report = await paynow.check(USD, attempt)
        number = str(sandbox.transactions[0].number)
        assert report == Report(outcome, said.strip(), attempt.amount, attempt.reference, number)


@pytest.mark.parametrize("word", UNKNOWN)
async def test_an_unknown_status_is_unknown_and_never_failed(paynow: Paynow, sandbox: PaynowSandbox, word: str) -> None:
    """A word that is nearly Paid is as unknown as any; what is kept of it is short."""
    attempt = await begin(paynow)
    await sandbox.set_status(attempt.reference, word)
    report = await paynow.check(USD, attempt)
    assert report.outcome is Outcome.UNKNOWN
    assert report.said == word.strip()[:100]


async def test_an_error_as_the_status_of_a_payment_proves_nothing(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Errors carry no hash, so anybody could have written one."""
    attempt = await begin(paynow)
    await sandbox.set_status(attempt.reference, "Error")
    with pytest.raises(Untrusted):
        await paynow.check(USD, attempt)


# --- what a report says


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("12.50", 1250),
        ("12.5", 1250),
        ("12", 1200),
        (" 12.50 ", 1250),
        ("12.51", 1251),
        ("0.00", 0),
        ("12.505", None),
        ("1,250.00", None),
        ("12,50", None),
        ("-12.50", None),
        ("+12.50", None),
        ("1.25e1", None),
        ("NaN", None),
        ("Infinity", None),
        ("USD 12.50", None),
        ("$12.50", None),
        ("\u0661\u0662.\u0665\u0660", None),
        ("", None),
        ("9" * 400, None),
    ],
)
@pytest.mark.parametrize("credentials", [USD, ZIG], ids=["USD", "ZIG"])
async def test_the_amount_is_read_exactly_or_is_none(
    paynow: Paynow, liar: Liar, credentials: PaynowCredentials, text: str, minor: int | None
) -> None:
    """In the integration's own currency, for the protocol names none. None never equals what was asked for."""
    liar.signed(credentials.integration_key, reference="INV-1", amount=text, status="Paid")
    report = await paynow.check(credentials, opened(f"{liar.url}/poll"))
    assert report.outcome is Outcome.PAID
    assert report.amount == (None if minor is None else Money(minor, credentials.currency))


async def test_a_report_without_amount_or_reference_never_passes_as_ours(paynow: Paynow, liar: Liar) -> None:
    """Missing is as wrong as different: no amount, and an empty reference rather than an unsaid one."""
    liar.signed(status="Paid")
    report = await paynow.check(USD, opened(f"{liar.url}/poll"))
    assert report == Report(Outcome.PAID, "Paid", amount=None, reference="", gateway_reference=None)


async def test_money_of_another_transaction_is_told_with_its_reference(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """The answer names the other reference, so that a person is asked; it is not silently ours."""
    one, other = await begin(paynow), await begin(paynow)
    await sandbox.pay(other.reference)
    report = await paynow.check(USD, opened(other.poll_url, reference=one.reference))
    assert (report.outcome, report.reference) == (Outcome.PAID, other.reference)


@pytest.mark.parametrize("status", ["Sent", "Cancelled", "Failed", "Strange"])
async def test_nothing_is_concluded_from_the_fate_of_another_transaction(
    paynow: Paynow, sandbox: PaynowSandbox, status: str
) -> None:
    """That another payment failed (or waits) says nothing of this one."""
    one, other = await begin(paynow), await begin(paynow)
    await sandbox.set_status(other.reference, status)
    for where in (other.poll_url, None):
        with pytest.raises(Untrusted, match="another transaction"):
            await paynow.check(USD, opened(where, attempt_id=other.attempt_id, reference=one.reference))


async def test_a_poll_is_verified_with_the_key_of_its_currency(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """A ZiG payment is not proved by the USD key, nor the other way round."""
    attempt = await begin(paynow, ZIG, amount=Money(1250, Currency.ZIG))
    await sandbox.pay(attempt.reference)
    with pytest.raises(Untrusted, match="hash"):
        await paynow.check(USD, attempt)
    report = await paynow.check(ZIG, attempt)
    assert (report.outcome, report.amount) == (Outcome.PAID, Money(1250, Currency.ZIG))


async def test_another_amount_is_reported_as_it_is(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    attempt = await begin(paynow)
    sandbox.add_fault("wrong_amount")
    await sandbox.pay(attempt.reference)
    assert (await paynow.check(USD, attempt)).amount == Money(1350, Currency.USD)


async def test_unknown_fields_are_part_of_the_hash_and_otherwise_ignored(
    paynow: Paynow, sandbox: PaynowSandbox
) -> None:
    attempt = await begin(paynow)
    sandbox.extra_fields = [("paymentchannel", "Ecocash"), ("token", ""), ("newField", " é "), ("x", "&=%")]
    await sandbox.pay(attempt.reference)
    assert (await paynow.check(USD, attempt)).outcome is Outcome.PAID


@pytest.mark.parametrize("reference", ["1082", "1,082", "PN-é-1", "x" * 5000])
async def test_paynows_own_reference_is_opaque_and_bounded(paynow: Paynow, liar: Liar, reference: str) -> None:
    liar.message(paynowreference=f" {reference} ")
    report = await paynow.check(USD, opened(f"{liar.url}/poll"))
    assert report.gateway_reference == reference[:200]


@pytest.mark.parametrize("body", [*UNREADABLE.values(), b"", b"status=Paid", b"status=Paid&hash="])
@pytest.mark.parametrize("stored", [True, False], ids=["poll", "trace"])
async def test_no_unreadable_answer_concludes_anything(paynow: Paynow, liar: Liar, body: bytes, stored: bool) -> None:
    liar.body = body
    assert await concluded(paynow.check(USD, opened(f"{liar.url}/poll" if stored else None))) is Untrusted


# --- trace


async def test_a_trace_that_finds_nothing_says_so(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Signed NotFound: not failed yet, for the request may still be on its way."""
    report = await paynow.check(USD, opened())
    assert report == Report(Outcome.NOT_FOUND, "NotFound")
    assert sandbox.calls == {"trace": 1}


async def test_a_trace_under_the_other_integration_does_not_find_it(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Traces are unique per merchant integration: ours by attempt id, under the integration that started it."""
    attempt = await begin(paynow, ZIG, amount=Money(1250, Currency.ZIG))
    lost = opened(None, attempt_id=attempt.attempt_id, reference=attempt.reference)
    assert (await paynow.check(USD, lost)).outcome is Outcome.NOT_FOUND
    assert (await paynow.check(ZIG, lost)).outcome is Outcome.PENDING


async def test_a_paid_trace_is_proof_too(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    attempt = await begin(paynow)
    await sandbox.pay(attempt.reference)
    lost = opened(None, attempt_id=attempt.attempt_id, reference=attempt.reference)
    report = await paynow.check(USD, lost)
    assert (report.outcome, report.amount, report.poll_url) == (Outcome.PAID, attempt.amount, attempt.poll_url)


@pytest.mark.parametrize("text", ["Trace failed", "Invalid Hash.  Hash should start with: 8AB116", "Invalid id."])
async def test_an_error_of_a_trace_is_not_an_absence(paynow: Paynow, sandbox: PaynowSandbox, text: str) -> None:
    """`Trace failed` does not mean that there is no transaction; nor does any other unsigned text."""
    attempt = await begin(paynow)
    sandbox.add_fault("poll_error", on=["trace"], text=text)
    lost = opened(None, attempt_id=attempt.attempt_id, reference=attempt.reference)
    with pytest.raises(Untrusted):
        await paynow.check(USD, lost)


@pytest.mark.parametrize("body", [b"status=NotFound", b"status=NotFound&hash=" + HASH.encode()])
async def test_an_unsigned_absence_is_not_believed(paynow: Paynow, liar: Liar, body: bytes) -> None:
    liar.body = body
    with pytest.raises(Untrusted, match="hash"):
        await paynow.check(USD, opened())


async def test_not_found_of_a_poll_is_unknown(paynow: Paynow, liar: Liar) -> None:
    """A signed NotFound can be replayed for ever, and is an answer to a trace only."""
    liar.signed(reference="INV-1", status="NotFound")
    assert (await paynow.check(USD, opened(f"{liar.url}/poll"))).outcome is Outcome.UNKNOWN


# --- callbacks


async def called_back(paynow: Paynow, sandbox: PaynowSandbox, extra: Pairs | None = None) -> tuple[str, bytes]:
    """The body that the simulator posts when a payment is made, and its reference."""
    sandbox.extra_fields = extra or []
    attempt = await begin(paynow)
    await sandbox.pay(attempt.reference)
    await sandbox.settled()
    return attempt.reference, sandbox.deliveries[-1].body


async def test_a_callback_verifies_and_is_scrubbed(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """What is kept as evidence names the payment; tokens, card and phone numbers, the hash and the poll URL go."""
    private = [
        ("token", "tok-canary"),
        ("tokenexpiry", "01Jan2030"),
        ("paymentinstrument", "0771111111"),
        ("paymentinstrumentnationality", "ZW"),
        ("authphone", "0771111111"),
        ("paymentchannel", "Ecocash"),
    ]
    reference, body = await called_back(paynow, sandbox, private)
    callback = paynow.read_callback(USD, posted(body))
    assert (callback.reference, callback.said) == (reference, "Paid")
    assert callback.fields == {
        "reference": reference,
        "paynowreference": str(sandbox.transactions[0].number),
        "amount": "12.50",
        "status": "Paid",
        "paymentchannel": "Ecocash",
    }
    assert "canary" not in repr(callback)
    assert "0771111111" not in repr(callback)


async def test_a_callback_of_another_integration_is_refused(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Another tenant's key, the tenant's other currency, or none."""
    _, body = await called_back(paynow, sandbox)
    for key in (ZIG_KEY, "11111111-2222-3333-4444-555555555555", "", USD_KEY + " "):
        with pytest.raises(Untrusted) as raised:
            paynow.read_callback(PaynowCredentials(USD_ID, key, Currency.USD), posted(body))
        assert USD_KEY not in str(raised.value)


async def test_no_changed_character_of_a_value_goes_unnoticed(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """Every character of every value replaced by another: refused, each time."""
    _, body = await called_back(paynow, sandbox)
    pairs = wire.decode(body)
    assert paynow.read_callback(USD, posted(wire.encode(pairs)))
    for place, (name, value) in enumerate(pairs):
        for at, character in enumerate(value):
            changed = value[:at] + ("1" if character != "1" else "2") + value[at + 1 :]
            with pytest.raises(Untrusted):
                paynow.read_callback(USD, posted(wire.encode([*pairs[:place], (name, changed), *pairs[place + 1 :]])))


MANGLED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda body: b"",
    "truncated": lambda body: body[:-1],
    "half": lambda body: body[: len(body) // 2],
    "without hash": lambda body: body[: body.index(b"&hash=")],
    "empty hash": lambda body: body[: body.index(b"&hash=")] + b"&hash=",
    "hash not ASCII": lambda body: body[: body.index(b"&hash=")] + "&hash=é".encode(),
    "hash twice": lambda body: body + body[body.index(b"&hash=") :],
    "a second status": lambda body: body + b"&status=Paid",
    "a second status in another case": lambda body: b"Status=Paid&" + body,
    "a field more": lambda body: body + b"&amount2=1",
    "a field in front": lambda body: b"x=1&" + body,
    "not UTF-8": lambda body: body + b"&x=\xff",
    "escaped twice": lambda body: body.replace(b"%", b"%25"),
    "1 MB behind": lambda body: body + b"&x=" + b"x" * 1_000_000,
    "1 MB of fields": lambda body: body + b"&a=" * 333_333,
    "fields swapped": lambda body: b"&".join(reversed(body.split(b"&"))),
    "as JSON": lambda body: json.dumps(dict(wire.decode(body))).encode(),
}


@pytest.mark.parametrize("mangle", MANGLED.values(), ids=MANGLED)
async def test_a_mangled_callback_is_refused(
    paynow: Paynow, sandbox: PaynowSandbox, mangle: Callable[[bytes], bytes]
) -> None:
    _, body = await called_back(paynow, sandbox)
    with pytest.raises(Untrusted) as raised:
        paynow.read_callback(USD, posted(mangle(body)))
    assert len(str(raised.value)) < 100, "the log line tells why, not what was sent"


SAME: dict[str, Callable[[bytes], bytes]] = {
    "as it came": lambda body: body,
    "upper-case escapes": lambda body: body.replace(b"%3a", b"%3A").replace(b"%2f", b"%2F"),
    "lower-case hash": lambda body: body[: body.index(b"&hash=")] + body[body.index(b"&hash=") :].lower(),
    "names in capitals": lambda body: body.replace(b"status=", b"STATUS=").replace(b"reference=", b"Reference=", 1),
    "an empty field more": lambda body: body.replace(b"&hash", b"&token=&hash"),
    "hash first": lambda body: body[body.index(b"&hash=") + 1 :] + b"&" + body[: body.index(b"&hash=")],
    "a line end": lambda body: body + b"\r\n",
}


@pytest.mark.parametrize("rewrite", SAME.values(), ids=SAME)
async def test_the_same_message_in_another_spelling_is_accepted(
    paynow: Paynow, sandbox: PaynowSandbox, rewrite: Callable[[bytes], bytes]
) -> None:
    """What the protocol leaves open: escapes' case, names' case, the hash's place and case, empty fields."""
    reference, body = await called_back(paynow, sandbox)
    callback = paynow.read_callback(USD, posted(rewrite(body)))
    assert (callback.reference, callback.said) == (reference, "Paid")


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "Paid"},
        {"reference": "INV-1"},
        {"reference": "", "status": "Paid"},
        {"reference": " ", "status": "Paid"},
        {"reference": "INV-1", "status": ""},
        {"reference": "INV-1", "status": "\t"},
        {},
    ],
    ids=str,
)
async def test_a_genuine_message_that_names_no_payment_is_refused(paynow: Paynow, fields: Mapping[str, str]) -> None:
    body = wire.encode(wire.sign(list(fields.items()), USD_KEY))
    with pytest.raises(Untrusted, match="no reference or no status"):
        paynow.read_callback(USD, posted(body))


async def test_a_poll_url_in_a_callback_goes_nowhere(paynow: Paynow, sandbox: PaynowSandbox) -> None:
    """It is not even part of what the adapter gives back: only the stored one is ever polled."""
    pairs = [("reference", "INV-1"), ("status", "Paid"), ("pollurl", "https://evil.example/poll")]
    callback = paynow.read_callback(USD, posted(wire.encode(wire.sign(pairs, USD_KEY))))
    assert "evil" not in repr(callback)


# --- the schedule


def test_the_schedule_is_as_published() -> None:
    """Every 5 s while the customer waits, then ever more seldom; the last delay repeats until day 31."""
    moments = [sum(Paynow.schedule[: count + 1]) for count in range(len(Paynow.schedule))]
    assert moments[11] == 60
    assert moments[47] == 600
    assert moments[97] == 3600
    assert moments[157] == 6 * 3600
    assert moments[193] == 24 * 3600
    assert moments[241] == 7 * 24 * 3600
    assert Paynow.schedule[-1] == 12 * 3600
