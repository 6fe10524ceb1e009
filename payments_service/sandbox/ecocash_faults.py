"""What can go wrong at the simulated EcoCash, as data.

Kinds that `work` carry the request out first, then spoil its answer: the caller cannot know. The others interfere
before anything is done.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from starlette.responses import HTMLResponse, Response

from payments_service.sandbox import answers
from payments_service.sandbox.answers import Answer
from payments_service.sandbox.callbacks import Batch
from payments_service.sandbox.ecocash_charges import (
    EIP,
    EIP_PORTAL,
    NUMERIC,
    OPEN_API,
    USD,
    Shown,
    currency_meant,
    is_called,
)
from payments_service.sandbox.ecocash_eip import block_page

REQUESTS = ("charge", "lookup", "refund")
OPERATIONS = (*REQUESTS, "callback")
_ZIG = {OPEN_API: "ZiG", EIP: "ZWG", EIP_PORTAL: "ZWG"}


@dataclass(slots=True)
class Fault:
    """A planned fault: which, where, how often, and whose.

    `on` names operations; `times` limits the uses on each of them (None: always); `seconds` is the kind's delay; it
    strikes one time in `1 / share`, by dice of its own. `reference`: only what is called that (see `is_called`).
    """

    name: str
    on: tuple[str, ...]
    times: int | None = None
    seconds: float = 0.0
    reference: str = ""
    share: float = 1.0
    dice: random.Random = field(default_factory=random.Random, repr=False)
    used: Counter[str] = field(default_factory=Counter)

    @property
    def kind(self) -> Kind:
        return KINDS[self.name]

    @property
    def spent(self) -> bool:
        """Whether it has nothing left to do."""
        return self.times is not None and all(self.used[operation] >= self.times for operation in self.on)

    def strikes(self, operation: str, names: tuple[str, ...]) -> bool:
        """Whether it interferes now; then it counts as used once more."""
        if operation not in self.on or (self.times is not None and self.used[operation] >= self.times):
            return False
        if (self.reference and not is_called(self.reference, *names)) or self.dice.random() >= self.share:
            return False
        self.used[operation] += 1
        return True


def _no_change(shown: Shown) -> Shown:
    return shown


def _no_other_schedule(_fault: Fault, batches: list[Batch], _stale: bytes) -> list[Batch]:
    return batches


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to go wrong: where it may happen, where it does by default, whether the work is done all the same.

    `alter` changes what the answer tells, `other` lets it tell of another transaction, `nulls` of none; `refuse` is
    an error's code; `reply` makes the HTTP response; `schedule` says when callbacks go out, given an older one.
    """

    title: str
    on: tuple[str, ...] = REQUESTS
    may: tuple[str, ...] = REQUESTS
    works: bool = True
    seconds: float = 0.0
    alter: Callable[[Shown], Shown] = _no_change
    other: bool = False
    nulls: bool = False
    refuse: str = ""
    reply: answers.Spoil | None = None
    schedule: Callable[[Fault, list[Batch], bytes], list[Batch]] = _no_other_schedule


def plan(
    name: str,
    *,
    on: Iterable[str] = (),
    times: int | None = None,
    seconds: float | None = None,
    reference: str = "",
    share: float = 1.0,
    seed: int | None = None,
) -> Fault:
    """A fault with its kind's defaults filled in. ValueError tells what cannot be."""
    if name not in KINDS:
        raise ValueError(f"there is no fault {name!r}; there are {', '.join(KINDS)}")
    kind = KINDS[name]
    operations = tuple(on) or kind.on
    if wrong := set(operations) - set(kind.may):
        raise ValueError(f"{name} cannot happen on {', '.join(sorted(wrong))}; only on {', '.join(kind.may)}")
    if times is not None and times < 1:
        raise ValueError("times is 1 or more, or absent for always")
    wait = kind.seconds if seconds is None else seconds
    if wait < 0:
        raise ValueError("seconds is never negative")
    if not 0 < share <= 1:
        raise ValueError("share is above 0, and 1 at most")
    dice = random.Random(seed)  # noqa: S311 - no secret, and a seed repeats a run
    return Fault(name, operations, times, wait, reference, share, dice)


# --- what the answer tells


def _other_amount(shown: Shown) -> Shown:
    """One cent more."""
    return replace(shown, amount=shown.amount + Decimal("0.01"))


def _other_currency(shown: Shown) -> Shown:
    is_usd = currency_meant(shown.currency) == USD
    return replace(shown, currency=_ZIG[shown.record.dialect] if is_usd else USD)


def numeric(shown: Shown) -> Shown:
    """840 for USD, 924 for ZWG: the same currencies."""
    return replace(shown, currency=NUMERIC[currency_meant(shown.currency)])


# --- what becomes of the answer on the way


def _block_page(_answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return block_page().response()


def _empty(_answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return Response(b"", 200)


def _server_error(_answer: Answer, _seconds: float, _elsewhere: str) -> Response:
    return HTMLResponse("<html><body><h1>Internal Server Error</h1></body></html>", 500)


# --- when the callback is sent


def _late(fault: Fault, batches: list[Batch], _stale: bytes) -> list[Batch]:
    return [replace(batches[0], after=batches[0].after + fault.seconds), *batches[1:]] if batches else []


def _never(_fault: Fault, _batches: list[Batch], _stale: bytes) -> list[Batch]:
    return []


def _twice(_fault: Fault, batches: list[Batch], _stale: bytes) -> list[Batch]:
    return [replace(batch, bodies=batch.bodies * 2) for batch in batches]


def _old_message_last(fault: Fault, batches: list[Batch], stale: bytes) -> list[Batch]:
    return [*batches, Batch([stale], fault.seconds)]


_CALLBACK = ("callback",)
_CHARGE = ("charge",)
_LOOKUP = ("lookup",)

KINDS: dict[str, Kind] = {
    "html": Kind("answer is the firewall's page with HTTP 200", reply=_block_page),
    "empty": Kind("answer is empty with HTTP 200", reply=_empty),
    "truncated": Kind("answer is cut in half", reply=answers.truncated),
    "huge": Kind("answer has 50 MB", reply=answers.huge),
    "redirect": Kind("answer is a redirect", works=False, reply=answers.redirect),
    "error500": Kind("work is done, answer is a web page with HTTP 500", reply=_server_error),
    "timeout_after_accepting": Kind(
        "work is done, its answer never comes", _CHARGE, seconds=30.0, reply=answers.no_reply
    ),
    "reset": Kind("work is done, the connection is cut without an answer", _CHARGE, reply=answers.no_reply),
    "slow": Kind("answer drips", seconds=60.0, reply=answers.slow),
    "rate_limited": Kind("answer is HTTP 429", works=False, refuse="429"),
    "unavailable": Kind("answer is HTTP 503", works=False, refuse="E015"),
    "duplicate": Kind("a new charge is carried out, and refused as one that was there already", _CHARGE, refuse="E005"),
    "wrong_object": Kind("answer is about another correlator", _LOOKUP, other=True),
    "wrong_amount": Kind("answer tells one cent more", _LOOKUP, alter=_other_amount),
    "wrong_currency": Kind("answer tells the other currency", _LOOKUP, alter=_other_currency),
    "numeric_currency": Kind("answer tells the currency as 840 or 924", alter=numeric),
    "all_null": Kind("answer has the right shape, and every member null", _LOOKUP, nulls=True),
    "late": Kind("callback comes late", _CALLBACK, _CALLBACK, seconds=5.0, schedule=_late),
    "never": Kind("callback never comes", _CALLBACK, _CALLBACK, schedule=_never),
    "twice": Kind("callback comes twice at once", _CALLBACK, _CALLBACK, schedule=_twice),
    "out_of_order": Kind("an old callback comes last", _CALLBACK, _CALLBACK, seconds=0.1, schedule=_old_message_last),
}
