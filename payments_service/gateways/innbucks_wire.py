"""InnBucks' messages: JSON, of which every field is looked at by itself, for the same one comes in several types.

Sources: InnBucks' merchant API documents, and what integrations of it have seen. Amounts are whole cents, integers in
requests and texts in answers; there is no currency field: it is the account's, US dollars in practice.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import msgspec

from payments_service.lifecycle import Outcome

# Of a code, compared trimmed and in lower case. Anything else is unknown, never failed.
STATUSES: dict[str, Outcome] = {
    "new": Outcome.PENDING,
    "pending": Outcome.PENDING,
    "paid": Outcome.PAID,
    "claimed": Outcome.PAID,
    "expired": Outcome.LAPSED,
    "timed out": Outcome.LAPSED,
    "timedout": Outcome.LAPSED,
}

_ZEROS = re.compile(r"0{1,6}", re.ASCII)
# Six to nine digits are seen; what is far from that is none.
_CODE = re.compile(r"[0-9]{4,12}", re.ASCII)
_CENTS = re.compile(r"[0-9]{1,15}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_LIFE = re.compile(r"([0-9]{1,5})\s*(?:s|secs?|seconds?)?", re.ASCII | re.IGNORECASE)
# It becomes a header.
_TOKEN = re.compile(r"[!-~]{1,8192}", re.ASCII)
_NARRATION = 100
_WORD, _WORDS = 100, 200


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """Any answer, as far as it is read here. It never prints: it may hold a token."""

    access_token: object = None
    response_code: object = None
    response_msg: object = None
    response_description: object = None
    message: object = None
    error: object = None
    errors: object = None
    code: object = None
    amount: object = None
    status: object = None
    time_to_live: object = None
    auth_number: object = None
    stan: object = None

    def __repr__(self) -> str:
        return "Answer()"

    @property
    def approves(self) -> bool:
        """The number 0 at the code endpoints, the text `00` at the sign-in [A]."""
        code = self.response_code
        return (type(code) is int and code == 0) or (isinstance(code, str) and bool(_ZEROS.fullmatch(code.strip())))

    @property
    def declines(self) -> bool:
        """An answer with any other response code; without one it says neither."""
        return not self.approves and (type(self.response_code) is int or bool(_line(self.response_code)))

    @property
    def token(self) -> str | None:
        token = self.access_token
        return token if isinstance(token, str) and _TOKEN.fullmatch(token) else None

    @property
    def new_code(self) -> str | None:
        """A code that can be shown. As a number it would have lost its leading zeros."""
        code = _line(self.code)
        return code if _CODE.fullmatch(code) else None

    @property
    def code_told(self) -> str | None:
        """Which code it is about; None where it does not say, empty where nobody can read it."""
        return None if self.code in (None, "") else _digits(self.code)

    @property
    def cents(self) -> int | None:
        """The amount; None as well for one that is no whole number of cents. What is missing is `amount` None."""
        if type(self.amount) is int:
            return self.amount if 0 <= self.amount < 10**15 else None
        if isinstance(self.amount, str) and _CENTS.fullmatch(self.amount.strip()):
            return int(self.amount)
        return None

    @property
    def outcome(self) -> Outcome | None:
        """What became of the code; None for a word that is not known, and for none. A number as the status is the HTTP
        status of a refused request [B]."""
        return STATUSES.get(self.status.strip().lower()) if isinstance(self.status, str) else None

    def said(self, secrets: Sequence[str]) -> str:
        """The code's status in InnBucks' word."""
        word = _line(self.status)
        # A word that is known is printed even where it is somebody's password.
        return (word if self.outcome else _without(secrets, word))[:_WORD]

    @property
    def life(self) -> timedelta | None:
        """How long the code can still be paid: `576sec`."""
        found = _LIFE.fullmatch(_digits(self.time_to_live))
        return timedelta(seconds=int(found[1])) if found and int(found[1]) <= 86_400 else None

    @property
    def mark(self) -> str | None:
        """InnBucks' own number of the approval, which the answer to no later question repeats."""
        numbers = (_digits(number) for number in (self.auth_number, self.stan))
        return next((number for number in numbers if _NUMBER.fullmatch(number)), None)

    def words(self, secrets: Sequence[str]) -> str:
        """What it says for people, cut and flattened; nothing when it repeats one of the secrets."""
        return _without(secrets, "; ".join(self._lines()))[:_WORDS]

    def _lines(self) -> list[str]:
        """The first field that says something; a refused request lists all its faults in one."""
        errors = self.errors[:5] if isinstance(self.errors, list) else [self.errors]
        for texts in ([self.response_msg], [self.response_description], errors, [self.message], [self.error]):
            if lines := [line for line in map(_line, texts) if line]:
                return lines
        return []


_DECODER = msgspec.json.Decoder(Answer, float_hook=Decimal)


def read(body: bytes) -> Answer | None:
    """The answer; None for what is no JSON object."""
    try:
        return _DECODER.decode(body)
    except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
        return None


def _line(value: object) -> str:
    """A text as one line that any database keeps; empty for what is no text."""
    if not isinstance(value, str):
        return ""
    return "".join(each for each in " ".join(value.split()) if each.isprintable())


def _digits(value: object) -> str:
    """A number or text as text."""
    return str(value) if type(value) is int else _line(value)


def _without(secrets: Sequence[str], text: str) -> str:
    told = text.lower()
    return "" if any(line in told for line in (_line(secret).lower() for secret in secrets) if line) else text


def narration(description: str, reference: str) -> str:
    """What the customer reads in the wallet. InnBucks publishes no limits: a line of 100 characters of plain ASCII goes
    through any of the systems behind it [?]."""
    plain = unicodedata.normalize("NFKD", description).encode("ascii", "ignore").decode()
    return _line(plain)[:_NARRATION].strip() or reference
