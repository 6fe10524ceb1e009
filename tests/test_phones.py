"""Phone numbers as people type them: the right one in E.164, or a refusal; never a stranger's."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from payments_service.phones import local, parse_mobile, parse_phone

ECONET = "+263771234567"

SAME = [
    "0771234567",
    "771234567",
    "263771234567",
    "+263771234567",
    "00263771234567",
    "2630771234567",
    "+2630771234567",
    "+263 (0)77 123 4567",
    "077 123 4567",
    "0771 234 567",
    "077-123-4567",
    "077\u2013123\u20134567",
    "077.123.4567",
    "077/123/4567",
    "(077) 123-4567",
    "+263-77-123-4567",
    "+263 77 123 4567",
    "0 7 7 1 2 3 4 5 6 7",
    "  0771234567\r\n",
    "\u00a0077\u00a0123\u00a04567",
    "\u202a+263771234567\u202c",  # copied out of an address book, with its marks for the direction
    "077\u200b1234567",
    "\uff10\uff17\uff17\uff11\uff12\uff13\uff14\uff15\uff16\uff17",
    "\u0660\u0667\u0667\u0661\u0662\u0663\u0664\u0665\u0666\u0667",
    "+\u0968\u096c\u0969771234567",
]


@pytest.mark.parametrize("text", SAME, ids=ascii)
def test_one_number_in_every_form_that_people_type(text: str) -> None:
    """With or without the country and the nought, with blanks, dashes and brackets, in digits of any script."""
    assert parse_phone(text) == parse_mobile(text) == ECONET


@pytest.mark.parametrize("text", ["0711234567", "0731234567", "0771234567", "0781234567", "0774444444"])
def test_the_networks_of_zimbabwe_have_mobile_numbers(text: str) -> None:
    """NetOne, Telecel and Econet, and the numbers that Paynow publishes for tests."""
    assert parse_mobile(text) == f"+263{text[1:]}"


ELSEWHERE = {
    "South Africa": ("+27 82 123 4567", "+27821234567"),
    "Great Britain, dialled": ("0044 7911 123456", "+447911123456"),
    "Zambia": ("+260 97 1234567", "+260971234567"),
    "a landline in Harare": ("024 2123456", "+263242123456"),
    "a landline with its country": ("+263242123456", "+263242123456"),
}


@pytest.mark.parametrize(("text", "phone"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_number_without_a_wallet_is_a_phone_and_no_mobile(text: str, phone: str) -> None:
    """Fit for a chat with a merchant; a wallet's prompt cannot go there."""
    assert parse_phone(text) == phone
    with pytest.raises(ValueError, match="not a mobile number of Zimbabwe"):
        parse_mobile(text)


NONE = [
    "", " ", "\r\n", "+", "0", "077", "08080", "112", "*151#", "077123456", "07712345678", "+26377123456",
    "+2637712345678", "0861234567", "0791234567890", "+999771234567", "0000000000", "0771234567#5",
    "9" * 10_000, "0771234567" * 1000,
    "0771234567" + " " * 10_000, "\x00", "077123\x004567", "+263+771234567", "0771234567 0772345678",
    "0771234567/0772345678", "0771234567, 0772345678", "\u2460\u2461\u2462",
]  # fmt: skip


@pytest.mark.parametrize("text", NONE, ids=lambda text: ascii(text[:30]))
def test_what_is_no_number_is_refused_in_words(text: str) -> None:
    """Too short, too long, two in one, or of no network; what is told does not repeat what was typed."""
    for read in (parse_phone, parse_mobile):
        with pytest.raises(ValueError, match=r"^is not a phone number( that exists)?$"):
            read(text)


LETTERS = [
    "077ABCDEFG", "077 FLOWERS", "0800FLOWERS", "O771234567", "077I234567", "Tendai 0771234567", "0771234567 Tendai",
    "0771234567 ext 5", "0771234567x5", "0771234567;ext=5", "tel:+263771234567",
    "\u0660\u0667\u0667abc", "tel:0771234567;phone-context=+27", "javascript:0771234567", "0771234567 or 0772345678",
    "NaN", "1e9", "xxxxxxxxxx",
]  # fmt: skip


@pytest.mark.parametrize("text", LETTERS, ids=ascii)
def test_no_letter_becomes_a_digit(text: str) -> None:
    """A keypad's letters would make up the number of a stranger, whose phone would ring; extensions have no wallet."""
    for read in (parse_phone, parse_mobile):
        with pytest.raises(ValueError, match=r"^is not a phone number$"):
            read(text)


@pytest.mark.parametrize(
    ("phone", "shown"),
    [(ECONET, "077 123 4567"), ("+263711234567", "071 123 4567"), ("+263242123456", "(024) 2123456")],
)
def test_a_number_is_shown_as_people_write_it(phone: str, shown: str) -> None:
    assert local(phone) == shown
    assert parse_phone(shown) == phone


DIGITS = st.text(st.sampled_from("0123456789 +-()./"), max_size=25)
MOBILES = st.from_regex(r"(\+263|00263|263|0|)7([178][0-9]|3[1-9])[0-9]{6}", fullmatch=True)


@given(MOBILES, st.sampled_from(["", " ", "-", "\u00a0", "."]))
def test_a_mobile_number_is_read_whatever_stands_between_its_digits(text: str, between: str) -> None:
    """And it is stable: shown to its owner and typed again, it is the same."""
    spread = between.join(re.findall(r"\+?[0-9]{1,3}", text))
    phone = parse_mobile(spread)
    assert phone == f"+263{text[-9:]}"
    assert parse_mobile(local(phone)) == parse_mobile(phone) == phone


@given(st.text(max_size=40) | DIGITS | st.text(st.characters(categories=["Nd", "P", "Zs", "Cc", "Cf"]), max_size=30))
@example("+" * 200)
@example("tel:0771234567;phone-context=" + "9" * 200)
def test_whatever_is_typed_is_a_number_or_a_value_error(text: str) -> None:
    """Nothing else ever comes out; a number is plain E.164, and one of a wallet stays what it is when typed again."""
    for read in (parse_phone, parse_mobile):
        try:
            phone = read(text)
        except ValueError:
            continue
        assert re.fullmatch(r"\+[1-9][0-9]{6,14}", phone, re.ASCII)
        assert read(phone) == phone
        if read is parse_mobile:
            assert read(local(phone)) == phone
