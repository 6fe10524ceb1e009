"""How a gateway reaches a phone: what its line tells the phone's page, and takes from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar, runtime_checkable

from payments_service.sandbox.hands import WrongMove, WrongPin

T = TypeVar("T", contravariant=True)
Tone = Literal["good", "bad", "warn"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A wallet asks the phone's owner for the PIN. `id` is the prompt's own among all lines; `hint` tells which PINs
    do what; `tries_left` counts while `was_wrong`; `at` is epoch seconds."""

    id: str
    wallet: str
    asker: str
    amount: str
    reference: str
    hint: str
    at: float
    was_wrong: bool = False
    tries_left: int = 0


@dataclass(frozen=True, slots=True)
class Notice:
    """What has only to be read: an SMS with its one-time password, a number that answers by itself."""

    title: str
    asker: str
    amount: str
    text: str
    at: float
    otp: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """What became of a payment, in the words of the wallet to its owner."""

    wallet: str
    text: str
    tone: Tone
    reference: str
    at: float


@dataclass(frozen=True, slots=True)
class Call:
    """A phone was reached: by a payment that still `waits` for its owner, or does not."""

    number: str
    waits: bool
    at: float


class PhoneLine(Protocol):
    """A gateway as a phone knows it. Numbers are local: `07XXXXXXXX`. Orders do not matter: the phone sorts."""

    def calls(self) -> Iterable[Call]: ...

    def prompts(self, number: str) -> Iterable[Prompt]: ...

    def notices(self, number: str) -> Iterable[Notice]: ...

    def notes(self, number: str) -> Iterable[Note]: ...

    def answer(self, number: str, prompt: str, pin: str | None) -> bool:
        """The owner types the PIN, or with None declines; False when this line never asked that of this number.

        A PIN that is wrong, or an answer that comes too late, is no error: prompts and notes tell.
        """
        ...


class AsksForPins(Protocol[T]):
    """A ledger whose payments wait for their payer's PIN."""

    def enter_pin(self, payment: T, pin: str, /) -> object:
        """Raises WrongPin, or WrongMove when it comes too late."""

    def turn_down(self, payment: T, /) -> object:
        """Raises WrongMove when it comes too late."""


def answer_prompt(ledger: AsksForPins[T], payment: T | None, pin: str | None) -> bool:
    """What a line's `answer` does, once it has found whose prompt that is."""
    if payment is None:
        return False
    with contextlib.suppress(WrongPin, WrongMove):  # the page tells what it has come to, also after a reload
        if pin is None:
            ledger.turn_down(payment)
        else:
            ledger.enter_pin(payment, pin)
    return True


class PhoneApp(Protocol):
    """An app on every phone, with pages of its own: it only shows that there is something new."""

    title: str

    def path(self, number: str) -> str:
        """Of its page for this phone."""
        ...

    def unread(self, number: str) -> int: ...

    def calls(self) -> Iterable[Call]: ...


@runtime_checkable
class HasApp(Protocol):
    """A simulator that has an app on the phones."""

    @property
    def handset(self) -> PhoneApp: ...


@runtime_checkable
class RingsPhones(Protocol):
    """A simulator whose prompts or messages reach phones."""

    @property
    def line(self) -> PhoneLine: ...
