"""Phone numbers as people write them, and as networks want them."""

from __future__ import annotations

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType

HOME = "ZW"

_MOBILE = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE_OR_MOBILE)


def parse_phone(text: str) -> str:
    """`077 123 4567`, `263771234567` or `+263 77 123 4567` as E.164: `+263771234567`. Without a country: Zimbabwe's.

    Raises ValueError, in words for the person who typed it.
    """
    # The library would read letters as a keypad's digits, and so make up a stranger's number.
    if any(character.isalpha() for character in text):
        raise ValueError("is not a phone number")
    try:
        number = phonenumbers.parse(text, HOME)
    except phonenumbers.NumberParseException:
        raise ValueError("is not a phone number") from None
    if number.extension or not phonenumbers.is_valid_number(number):
        raise ValueError("is not a phone number that exists")
    return phonenumbers.format_number(number, PhoneNumberFormat.E164)


def parse_mobile(text: str) -> str:
    """The same for a mobile number of Zimbabwe: where the wallets live. Raises ValueError."""
    phone = parse_phone(text)
    number = phonenumbers.parse(phone)
    if phonenumbers.region_code_for_number(number) != HOME or phonenumbers.number_type(number) not in _MOBILE:
        raise ValueError("is not a mobile number of Zimbabwe")
    return phone


def is_mobile(text: str) -> bool:
    """Whether `parse_mobile` takes it."""
    try:
        parse_mobile(text)
    except ValueError:
        return False
    return True


def local(phone: str) -> str:
    """`+263771234567` as people in Zimbabwe write it: `077 123 4567`."""
    return phonenumbers.format_number(phonenumbers.parse(phone, HOME), PhoneNumberFormat.NATIONAL)
