"""The words that carry a pay link to the customer in a chat: short, with payee, amount, reference and link."""

from __future__ import annotations

import re

from payments_service.money import Money

LONGEST = 500
_PLACES = ("payee", "amount", "reference", "link")
_OF_A_PAYEE = "{payee} asks you to pay {amount} for {reference}: {link}"
_OF_NOBODY = "Please pay {amount} for {reference}: {link}"
# Of a tenant who has no name yet, where the words need one.
SOMEBODY = "The seller"

_PLACE = rf"\{{({'|'.join(_PLACES)})\}}"
_PART = rf"([^{{}}\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|{_PLACE})*"
# What `fault_of` lets pass, for the description of the API.
PATTERN = rf"^{_PART}\{{link\}}{_PART}$"


def fault_of(text: str) -> str | None:
    """What is wrong with a tenant's own text, in words for the person who wrote it; None: nothing."""
    named = re.findall(r"\{([^{}]*)\}", text)
    known = f"knows {', '.join(f'{{{place}}}' for place in _PLACES)} only"
    if unknown := [name for name in named if name not in _PLACES]:
        return f"{known}, not {{{unknown[0][:20]}}}"
    if re.search("[{}]", re.sub(r"\{[^{}]*\}", "", text)):
        return f"{known}, and has a brace that belongs to none of them"
    if "link" not in named:
        return "must contain {link}, where the pay link is put"
    return None


def link_text(own: str | None, payee: str | None, amount: Money, reference: str, link: str) -> str:
    """The tenant's own text, else ours, with its places filled in."""
    text = own or (_OF_A_PAYEE if payee else _OF_NOBODY)
    values = {"payee": payee or SOMEBODY, "amount": amount.shown(), "reference": reference, "link": link}
    # In one pass: what a reference says is not taken for a place.
    return re.sub(_PLACE, lambda place: values[place[1]], text).strip()
