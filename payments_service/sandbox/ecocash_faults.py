"""What can go wrong at the simulated EcoCash, as data.

Kinds that `work` carry the request out first, then spoil its answer: the caller cannot know. The others interfere
before anything is done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from starlette.responses import HTMLResponse, Response

from payments_service.sandbox import answers
from payments_service.sandbox.answers import Answer
from payments_service.sandbox.callbacks import Batch, late, twice
from payments_service.sandbox.ecocash_charges import (
    EIP,
    EIP_PORTAL,
    NUMERIC,
    OPEN_API,
    USD,
    Shown,
    currency_meant,
)
from payments_service.sandbox.ecocash_eip import block_page
from payments_service.sandbox.faults import Fault, known

REQUESTS = ("charge", "lookup", "refund")
OPERATIONS = (*REQUESTS, "callback")
_ZIG = {OPEN_API: "ZiG", EIP: "ZWG", EIP_PORTAL: "ZWG"}


def _no_change(shown: Shown) -> Shown:
    return shown


def _no_other_schedule(_fault: object, batches: list[Batch[bytes]], _stale: bytes) -> list[Batch[bytes]]:
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
    schedule: Callable[[Fault[Kind], list[Batch[bytes]], bytes], list[Batch[bytes]]] = _no_other_schedule


def plan(
    name: str,
    on: Iterable[str] = (),
    times: int | None = None,
    seconds: float | None = None,
    reference: str = "",
    share: float = 1.0,
    seed: int | None = None,
) -> Fault[Kind]:
    """A fault with its kind's defaults filled in; `times` counts on each operation, `seed` loads its dice.

    `reference` is what a charge is called (see `is_called`). ValueError tells what cannot be.
    """
    kind = known(KINDS, name)
    if not 0 < share <= 1:
        raise ValueError("share is above 0, and 1 at most")
    wait = kind.seconds if seconds is None else seconds
    dice = random.Random(seed)  # noqa: S311 - no secret, and a seed repeats a run
    return Fault(name, kind, tuple(on) or kind.on, times, wait, reference, share, dice, each=True)


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


def _late(fault: Fault[Kind], batches: list[Batch[bytes]], _stale: bytes) -> list[Batch[bytes]]:
    return late(batches, fault.seconds)


def _never(_fault: Fault[Kind], _batches: list[Batch[bytes]], _stale: bytes) -> list[Batch[bytes]]:
    return []


def _twice(_fault: Fault[Kind], batches: list[Batch[bytes]], _stale: bytes) -> list[Batch[bytes]]:
    return twice(batches)


def _old_message_last(fault: Fault[Kind], batches: list[Batch[bytes]], stale: bytes) -> list[Batch[bytes]]:
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
