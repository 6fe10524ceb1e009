"""Money: every price exact, nothing odd accepted, no float anywhere."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from payments_service.money import CURRENCY_ALIASES, MAX_MINOR, Currency, Money, parse_major

MINORS = st.integers(0, MAX_MINOR)
CURRENCIES = st.sampled_from(Currency)


def test_all_prices_up_to_100_are_exact_both_ways() -> None:
    """All 10,000 prices from 0.01 to 100.00: one text, one number of cents, and back."""
    for minor in range(1, 10_001):
        text = f"{minor // 100}.{minor % 100:02d}"
        money = parse_major(text, Currency.USD)
        assert (type(money.minor), money.minor, money.major()) == (int, minor, text)


@given(MINORS, CURRENCIES)
def test_any_amount_survives_the_way_out_and_back(minor: int, currency: Currency) -> None:
    """`major` then `parse_major` gives the same amount, and a decimal reader sees the same value."""
    money = Money(minor, currency)
    assert parse_major(money.major(), currency) == money
    assert Fraction(money.major()) == Fraction(minor, 100)


@given(MINORS, CURRENCIES, st.integers(0, 7), st.sampled_from(["", " ", "\t", "\r\n", "\u00a0"]))
def test_blanks_around_and_zeros_behind_change_nothing(minor: int, currency: Currency, zeros: int, blank: str) -> None:
    text = f"{blank}{minor // 100}.{minor % 100:02d}{'0' * zeros}{blank}"
    assert parse_major(text, currency) == Money(minor, currency)


@given(st.integers(0, 10**15 - 1), st.integers(0, 10**9 - 1), st.integers(1, 9))
def test_an_amount_is_read_exactly_or_not_at_all(whole: int, fraction: int, digits: int) -> None:
    """Up to 15 digits before the point and 9 after it: the value itself, or a refusal; never a rounded one."""
    text = f"{whole}.{fraction % 10**digits:0{digits}d}"
    exact = Fraction(text) * 100
    if exact.denominator == 1:
        assert parse_major(text, Currency.USD).minor == exact
    else:
        with pytest.raises(ValueError, match="fraction of a minor unit"):
            parse_major(text, Currency.USD)


@given(st.text(max_size=25))
@settings(max_examples=500)
def test_whatever_is_accepted_is_plain_ascii_digits(text: str) -> None:
    """Of any text at all: a refusal with ValueError, or the amount that a decimal reader sees too."""
    try:
        money = parse_major(text, Currency.ZIG)
    except ValueError:
        return
    assert set(text.strip()) <= set("0123456789.")
    assert Decimal(text.strip()) == Decimal(money.minor).scaleb(-2)


@given(st.text(alphabet="0123456789.,-+eE_ \u0660\uff11", max_size=22))
@settings(max_examples=500)
def test_what_looks_nearly_like_a_number_is_read_right_or_refused(text: str) -> None:
    try:
        money = parse_major(text, Currency.USD)
    except ValueError:
        return
    assert Fraction(text.strip()) == Fraction(money.minor, 100)


REFUSED = {
    "empty": "",
    "blank": " \t\n",
    "not a number": "NaN",
    "signalling": "sNaN",
    "infinity": "Infinity",
    "inf": "inf",
    "minus infinity": "-inf",
    "exponent": "1e2",
    "exponent, capital": "1E2",
    "exponent, negative": "100e-2",
    "a huge exponent": "1e999999999",
    "minus": "-1.00",
    "minus zero": "-0.00",
    "plus": "+1.00",
    "typographic minus": "\u22121.00",
    "thousands": "1,000.00",
    "decimal comma": "1,00",
    "apostrophe": "1'000.00",
    "underscore": "1_000.00",
    "inner blank": "1 000.00",
    "no-break blank inside": "1\u00a0000.00",
    "line inside": "1\n2",
    "two points": "1.0.0",
    "point only": ".",
    "nothing before the point": ".50",
    "nothing after the point": "1.",
    "symbol": "$1.00",
    "currency before": "USD 1.00",
    "currency behind": "1.00USD",
    "arabic-indic digits": "\u0661\u0662.\u0663\u0664",
    "full-width digits": "\uff11\uff12.\uff13\uff14",
    "full-width point": "1\uff0e00",
    "superscript": "1\u00b2",
    "roman numeral": "\u2163",
    "bold digits": "\U0001d7cf.00",
    "hexadecimal": "0x10",
    "octal": "0o10",
    "fraction": "1/2",
    "percent": "5%",
    "true": "True",
    "null": "None",
    "NUL behind": "1.00\x00",
    "zero-width blank": "1.\u200b00",
    "right-to-left mark": "\u200f1.00",
    "byte order mark": "\ufeff1.00",
    "half a cent": "0.005",
    "a tenth of a cent more": "10.001",
    "just under": "9.999",
    "a billionth": "0.000000001",
    "rounds up in a float": "1.115",
    "ten places": "1.0000000000",
    "sixteen digits": "1000000000000000",
    "sixteen zeros": "0000000000000001",
    "a very long number": "9" * 10_000,
    "a very long fraction": "1." + "0" * 10_000,
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_is_refused(text: str) -> None:
    """Nothing but plain digits with an optional fraction, down to the minor unit, is an amount."""
    with pytest.raises(ValueError, match=r"not a plain decimal amount|fraction of a minor unit"):
        parse_major(text, Currency.USD)


@pytest.mark.parametrize(
    ("text", "minor"),
    [
        ("0", 0),
        ("0.00", 0),
        ("15", 1500),
        ("5.9", 590),
        ("10.0", 1000),
        ("0012.50", 1250),
        ("1.150000000", 115),
        ("999999999.99", MAX_MINOR),
        ("999999999999999.99", 99_999_999_999_999_999),
        # Not representable in a float: 0.29 * 100 is 28.999999999999996, 64.1 * 100 is 6409.999999999999.
        ("0.29", 29),
        ("64.1", 6410),
        ("90071992547409.93", 9_007_199_254_740_993),
    ],
)
def test_is_read_as(text: str, minor: int) -> None:
    """Forms that gateways and merchants send, and values on which floats fail, up to the most digits accepted."""
    assert parse_major(text, Currency.USD) == Money(minor, Currency.USD)


def test_the_largest_amount_stays_exact_in_every_json_reader() -> None:
    """Numbers above 2^53 are rounded by JavaScript; the largest amount of a link is far below."""
    assert MAX_MINOR < 2**53
    assert Money(MAX_MINOR, Currency.USD).major() == "999999999.99"


@pytest.mark.parametrize(
    "minor", [1.0, 0.1, 12.5, float("nan"), float("inf"), Decimal(1), Fraction(1), True, "1", None]
)
def test_minor_units_are_a_whole_number(minor: Any) -> None:
    """A float never becomes an amount of money, not even one without a fraction; nor does anything else."""
    with pytest.raises(TypeError, match="whole number"):
        Money(minor, Currency.USD)


@pytest.mark.parametrize("minor", [-1, -100, -(10**20)])
def test_money_is_never_negative(minor: int) -> None:
    with pytest.raises(ValueError, match="never negative"):
        Money(minor, Currency.USD)


@pytest.mark.parametrize(
    ("minor", "major", "shown"),
    [
        (0, "0.00", "USD 0.00"),
        (5, "0.05", "USD 0.05"),
        (99, "0.99", "USD 0.99"),
        (100, "1.00", "USD 1.00"),
        (99_999, "999.99", "USD 999.99"),
        (100_000, "1000.00", "USD 1,000.00"),
        (125_000_050, "1250000.50", "USD 1,250,000.50"),
    ],
)
def test_is_written_as(minor: int, major: str, shown: str) -> None:
    """Gateways get two decimals and no grouping; people get the currency and grouped thousands."""
    money = Money(minor, Currency.USD)
    assert (money.major(), money.shown(), str(money)) == (major, shown, f"USD {major}")


def test_the_same_number_of_another_currency_is_other_money() -> None:
    assert Money(1250, Currency.USD) != Money(1250, Currency.ZIG)
    assert len({Money(1250, Currency.USD), Money(1250, Currency.ZIG), Money(1250, Currency.USD)}) == 2


def test_money_cannot_be_changed() -> None:
    money = Money(1250, Currency.USD)
    with pytest.raises(AttributeError):
        money.minor = 1  # type: ignore[misc]


def test_the_iso_code_of_zig_is_an_alias_and_no_currency_of_its_own() -> None:
    assert CURRENCY_ALIASES == {"ZWG": Currency.ZIG}
    with pytest.raises(ValueError, match="ZWG"):
        Currency("ZWG")
