"""What can go wrong at a gateway, as data: each kind says at which stage of an exchange it interferes.

A message is made (`alter`), signed, perhaps damaged (`spoil`), then replied to a request (`reply`) or
scheduled as a callback (`schedule`). A kind that leaves a stage alone has nothing there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from decimal import Decimal

from starlette.responses import HTMLResponse, Response

from payments_service.sandbox import answers, faults
from payments_service.sandbox.answers import Answer
from payments_service.sandbox.callbacks import Batch, late, twice
from payments_service.sandbox.faults import known
from payments_service.sandbox.paynow_transactions import Transaction
from payments_service.sandbox.wire import Pairs

# `express` is initiate without a browser; `otp` is the end of an O'mari payment (section 3).
REQUESTS = ("initiate", "express", "poll", "trace", "otp")
OPERATIONS = (*REQUESTS, "callback")

_RESENDS = 10


@dataclass(slots=True, eq=False)
class Fault(faults.Fault["Kind"]):
    """A planned fault whose `times` count on each operation.

    `text` is the error that it tells. With `next` it waits for the next transaction to be made, and concerns that
    `transaction` only from then on.
    """

    text: str = ""
    next: bool = False
    transaction: Transaction | None = None

    def concerns(self, transaction: Transaction) -> bool:
        if self.transaction is not None:
            return self.transaction is transaction
        return not self.next and (not self.reference or transaction.is_named(self.reference))

    def is_for(self, reference: str) -> bool:
        return self.transaction.is_named(reference) if self.transaction else self.reference == reference


def _no_change(_fault: Fault, message: Pairs) -> Pairs:
    return message


def _no_other_schedule(_fault: Fault, batches: list[Batch[Pairs]]) -> list[Batch[Pairs]]:
    return batches


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to go wrong: where it may happen, where it does by default, what it does at each stage."""

    title: str
    on: tuple[str, ...]
    may: tuple[str, ...]
    seconds: float = 0.0
    alter: Callable[[Fault, Pairs], Pairs] = _no_change
    spoil: Callable[[Fault, Pairs], Pairs] = _no_change
    reply: Callable[[Fault, bytes, str], Response] | None = None
    schedule: Callable[[Fault, list[Batch[Pairs]]], list[Batch[Pairs]]] = _no_other_schedule


def plan(
    name: str,
    *,
    reference: str = "",
    next: bool = False,  # noqa: A002 - the word of the control API
    on: Iterable[str] = (),
    times: int | None = None,
    seconds: float | None = None,
    text: str = "",
) -> Fault:
    """A fault with its kind's defaults filled in. ValueError tells what cannot be.

    `reference` is a transaction's name (see `Transaction.is_named`). With neither it nor `next`: every transaction.
    """
    kind = known(KINDS, name)
    wait = kind.seconds if seconds is None else seconds
    return Fault(name, kind, tuple(on) or kind.on, times, wait, reference, each=True, text=text, next=next)


# --- the message before it is signed


def _other_amount(_fault: Fault, message: Pairs) -> Pairs:
    return [(key, f"{Decimal(value) + 1:.2f}" if key == "amount" else value) for key, value in message]


def _error(fault: Fault, _message: Pairs) -> Pairs:
    return [("status", "Error"), ("error", fault.text or "An unexpected error occurred")]


# --- the signed message


def _other_hash(_fault: Fault, message: Pairs) -> Pairs:
    """Right length and alphabet, wrong value."""
    swap = str.maketrans("0123456789ABCDEF", "123456789ABCDEF0")
    return [(key, value.translate(swap) if key == "hash" else value) for key, value in message]


# --- the reply

_BLOCK_PAGE = (
    "<!DOCTYPE html><html><head><title>Attention Required!</title></head>"
    "<body><h1>Sorry, you have been blocked</h1><p>status=Paid&amp;amount=1.00</p></body></html>"
)


def _lose(spoil: answers.Spoil) -> Callable[[Fault, bytes, str], Response]:
    """What becomes of any gateway's answer on the way. A redirect leads to a page that counts (`calls`)."""

    def reply(fault: Fault, body: bytes, public_url: str) -> Response:
        said = Answer(200, body, {"Content-Type": "text/html; charset=utf-8"})  # as Paynow says everything
        return spoil(said, fault.seconds, f"{public_url}/sandbox/redirected")

    return reply


def _html(_fault: Fault, _body: bytes, _public_url: str) -> Response:
    return HTMLResponse(_BLOCK_PAGE)


def _empty(_fault: Fault, _body: bytes, _public_url: str) -> Response:
    return Response(b"", media_type="text/html")


def _server_error(_fault: Fault, _body: bytes, _public_url: str) -> Response:
    return HTMLResponse("<h1>Server Error in '/' Application.</h1>", status_code=500)


def _huge(fault: Fault, body: bytes, public_url: str) -> Response:
    """One endless field."""
    return _lose(functools.partial(answers.huge, filler=b"x"))(fault, body + b"&padding=", public_url)


# --- when the callback is sent


def _late(fault: Fault, batches: list[Batch[Pairs]]) -> list[Batch[Pairs]]:
    return late(batches, fault.seconds)


def _never(_fault: Fault, _batches: list[Batch[Pairs]]) -> list[Batch[Pairs]]:
    return []


def _twice(_fault: Fault, batches: list[Batch[Pairs]]) -> list[Batch[Pairs]]:
    return twice(batches)


def _again_and_again(fault: Fault, batches: list[Batch[Pairs]]) -> list[Batch[Pairs]]:
    copies = [replace(batch, after=fault.seconds) for batch in batches]
    return [*batches, *copies * _RESENDS]


def _old_message_last(fault: Fault, batches: list[Batch[Pairs]]) -> list[Batch[Pairs]]:
    def earlier(message: Pairs) -> Pairs:
        return [(key, "Sent" if key == "status" else value) for key, value in message]

    stale = [Batch([earlier(message) for message in batch.messages], fault.seconds) for batch in batches]
    return [*batches, *stale]


_CALLBACK = ("callback",)
_POLL = ("poll",)
_BOTH = ("callback", "poll")
_OPENING = ("initiate", "express")
_REPLIES = (*_OPENING, "poll")

KINDS: dict[str, Kind] = {
    "late": Kind("callback comes late", _CALLBACK, _CALLBACK, 5.0, schedule=_late),
    "twice": Kind("callback comes twice at once", _CALLBACK, _CALLBACK, schedule=_twice),
    "out_of_order": Kind("an old Sent callback comes last", _CALLBACK, _CALLBACK, 0.1, schedule=_old_message_last),
    "never": Kind("callback never comes", _CALLBACK, _CALLBACK, schedule=_never),
    "ten_resends": Kind(
        "callback is resent ten times though accepted", _CALLBACK, _CALLBACK, 0.02, schedule=_again_and_again
    ),
    "wrong_amount": Kind(
        "callback and poll tell another amount", _BOTH, ("callback", "poll", "trace", "otp"), alter=_other_amount
    ),
    "wrong_hash": Kind("callback has a wrong hash", _CALLBACK, OPERATIONS, spoil=_other_hash),
    "poll_wrong_hash": Kind("poll reply has a wrong hash", _POLL, REQUESTS, spoil=_other_hash),
    "poll_error": Kind("poll is answered with status=Error", _POLL, REQUESTS, alter=_error),
    "html": Kind("reply is an HTML block page", _REPLIES, REQUESTS, reply=_html),
    "empty": Kind("reply is empty", _REPLIES, REQUESTS, reply=_empty),
    "truncated": Kind("reply is cut in half", _REPLIES, REQUESTS, reply=_lose(answers.truncated)),
    "huge": Kind("reply has 50 MB", _REPLIES, REQUESTS, reply=_huge),
    "slow": Kind("reply drips", _REPLIES, REQUESTS, 60.0, reply=_lose(answers.slow)),
    "redirect": Kind("reply is a redirect", _REPLIES, REQUESTS, reply=_lose(answers.redirect)),
    "error500": Kind("reply is HTTP 500", _REPLIES, REQUESTS, reply=_server_error),
    "timeout_after_accepting": Kind(
        "request is accepted, its reply never comes", _OPENING, REQUESTS, 30.0, reply=_lose(answers.no_reply)
    ),
}
