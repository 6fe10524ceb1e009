"""Identifiers: ordered by time where rows want that, unguessable where they are a capability."""

from __future__ import annotations

import itertools
import math
import re
import string
import time
import uuid
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments_service.ids import new_attempt_reference, new_id, new_page_token

ALPHABET = "23456789BCDFGHJKMNPQRSTVWXZ"
SUFFIX = re.compile(rf"-[{ALPHABET}]{{8}}")


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


def test_an_id_is_a_version_7_uuid() -> None:
    """RFC 9562: version and variant bits as its section 5.7 lays them out, for a thousand ids."""
    for made in (new_id() for _ in range(1000)):
        assert made.version == 7
        assert made.variant == uuid.RFC_4122
        assert made.int >> 62 & 0b11 == 0b10
        assert str(made)[14] == "7"
        assert str(made)[19] in "89ab"
        assert uuid.UUID(str(made)) == made


def test_an_id_begins_with_its_moment_in_milliseconds() -> None:
    before = milliseconds()
    made = [new_id() for _ in range(1000)]
    after = milliseconds()
    assert all(before <= one.int >> 80 <= after for one in made)


def test_ids_sort_by_time() -> None:
    """As numbers, as bytes (PostgreSQL) and as text, an id of a later millisecond comes after."""
    made = [new_id()]
    while made[-1].int >> 80 < (made[0].int >> 80) + 5:
        made.append(new_id())
    for earlier, later in itertools.pairwise(made):
        if earlier.int >> 80 < later.int >> 80:
            assert earlier < later
            assert earlier.bytes < later.bytes
            assert str(earlier) < str(later)


def test_ids_of_one_moment_differ() -> None:
    made = [new_id() for _ in range(50_000)]
    assert len(set(made)) == len(made)


def test_all_74_random_bits_of_an_id_vary() -> None:
    """No bit beside the time, the version and the variant stands still."""
    made = [new_id().int for _ in range(400)]
    fixed = {*range(80, 128), *range(76, 80), *range(62, 64)}
    for bit in set(range(128)) - fixed:
        assert {one >> bit & 1 for one in made} == {0, 1}, bit


def test_a_page_token_is_a_capability() -> None:
    """At least 128 random bits, written in characters that a URL carries unchanged."""
    tokens = [new_page_token() for _ in range(5000)]
    assert len(set(tokens)) == len(tokens)
    for token in tokens:
        assert token == quote(token, safe="")
        assert len(token) * math.log2(64) >= 128
        assert len(token) >= 22  # the database's own check
    for place in range(26):  # the last character carries fewer bits
        assert len({token[place] for token in tokens}) == 64


ODD_REFERENCES = {
    "plain": "INV-1001",
    "all that is kept": "AZaz09._/-x",
    "empty": "",
    "blank": "   ",
    "hash sign": "#",
    "order number": "Order #100",
    "punctuation only": "!?&=+%",
    "dashes only": "-----",
    "100 characters": "R" * 100,
    "100 odd characters": "é" * 100,
    "odd around plain": "##INV 1##",
    "accents": "Facture nº 7 été",
    "shona": "Mari yemba",
    "greek look-alikes": "ΑΒΓ",
    "arabic": "فاتورة",
    "emoji": "🧾🧾",
    "full-width": "ＩＮＶ１",  # noqa: RUF001
    "tab and line": "a\tb\r\nc",
    "NUL": "a\x00b",
    "markup": "<script>alert(1)</script>",
    "query": "a&amount=0.01#x?y",
    "quote": "a' OR '1'='1",
    "lone surrogate": "a\ud800b",
    "right to left": "\u202e1-VNI",
    "cut inside the dashes": "x" * 39 + "#y",
}


@pytest.mark.parametrize("reference", ODD_REFERENCES.values(), ids=ODD_REFERENCES)
def test_an_attempt_reference_is_short_plain_ascii(reference: str) -> None:
    """Whatever the tenant calls the sale: at most 49 characters that no gateway, URL or form changes."""
    made = new_attempt_reference(reference)
    assert len(made) <= 49
    assert set(made) <= set(string.ascii_letters + string.digits + "._/-")
    assert not made.startswith("-")
    assert SUFFIX.fullmatch(made[-9:])
    assert made[:-9]


@given(st.text(max_size=150))
def test_any_reference_becomes_a_short_plain_one(reference: str) -> None:
    made = new_attempt_reference(reference)
    assert re.fullmatch(rf"[A-Za-z0-9._/][A-Za-z0-9._/-]{{0,39}}-[{ALPHABET}]{{8}}", made)
    assert made == made.strip()
    assert made.isascii()


@pytest.mark.parametrize(
    ("reference", "readable"),
    [
        ("INV-1001", "INV-1001"),
        ("2026/11.b_7", "2026/11.b_7"),
        ("Order #100 for Mrs Moyo", "Order-100-for-Mrs-Moyo"),
        ("  padded  ", "padded"),
        ("é", "payment"),
        ("#", "payment"),
        ("", "payment"),
        ("A" * 100, "A" * 40),
    ],
)
def test_people_recognise_their_own_reference(reference: str, readable: str) -> None:
    assert new_attempt_reference(reference)[:-9] == readable


@pytest.mark.parametrize("reference", ["INV-1", "", "é", "x" * 100])
def test_no_two_attempts_share_a_reference(reference: str) -> None:
    """Also of references that look the same once made plain."""
    made = {new_attempt_reference(reference) for _ in range(5000)}
    assert len(made) == 5000


def test_the_made_up_part_has_no_vowels_and_no_look_alikes() -> None:
    """It is read aloud and typed: no words, no 0/O, no 1/I/L; and every character of the alphabet is used."""
    seen = {character for _ in range(1000) for character in new_attempt_reference("x")[-8:]}
    assert seen == set(ALPHABET)
    assert not seen & set("01AEIOULY")
