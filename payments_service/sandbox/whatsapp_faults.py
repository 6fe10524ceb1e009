"""What can go wrong with a message of the simulated WhatsApp, as data.

A fault strikes the request (`send`), what becomes of an accepted message (`outcome`), or the webhooks that tell of it
(`status`). Every error code may be the answer to the request, or the end of a message that was accepted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from payments_service.sandbox import answers
from payments_service.sandbox.faults import Fault, known
from payments_service.sandbox.whatsapp_errors import ERRORS, Trouble
from payments_service.sandbox.whatsapp_webhooks import Event, Sign, badly_signed, signed, unsigned

SEND, OUTCOME, STATUS = OPERATIONS = ("send", "outcome", "status")

# What Meta mostly tells after it has answered 200, says the protocol page; the others are answers.
_LATE_CODES = (131026, 131047, 131048, 131049, 131050)


def _no_change(events: list[Event]) -> list[Event]:
    return events


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to go wrong, on the operations where it `may`, usually the first of them.

    `works`: the message is accepted all the same. `trouble` is the error that is told; `lose` makes the HTTP response
    that comes instead of the answer; `arrange` changes the statuses that are told at once, `sign` their signature.
    """

    title: str
    works: bool = True
    may: tuple[str, ...] = (SEND,)
    seconds: float = 0.0
    trouble: Trouble | None = None
    lose: answers.Spoil | None = None
    arrange: Callable[[list[Event]], list[Event]] = _no_change
    sign: Sign = signed


def plan(
    name: str,
    *,
    on: Iterable[str] = (),
    times: int | None = None,
    seconds: float | None = None,
    to: str = "",
    share: float | None = None,
    seed: int = 0,
) -> Fault[Kind]:
    """A fault with its kind's defaults filled in: on the first operation where it may happen, drawn from the `seed`.

    `to` is a message's name (see `Draft.is_named`). ValueError tells what cannot be.
    """
    kind = known(KINDS, name)
    wait = kind.seconds if seconds is None else seconds
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    return Fault(name, kind, tuple(on) or kind.may[:1], times, wait, to, share, dice)


# --- the statuses that are told at once


def _twice(events: list[Event]) -> list[Event]:
    return [event for event in events for _ in range(2)]


def _backwards(events: list[Event]) -> list[Event]:
    return events[::-1]


def _none(_events: list[Event]) -> list[Event]:
    return []


def _not_delivered(events: list[Event]) -> list[Event]:
    return [event for event in events if event.content["status"] != "delivered"]


def _without(member: str) -> Callable[[list[Event]], list[Event]]:
    def arrange(events: list[Event]) -> list[Event]:
        return [_reduced(event, member) for event in events]

    return arrange


def _reduced(event: Event, member: str) -> Event:
    content = {name: value for name, value in event.content.items() if name != member}
    return Event(event.sender, event.part, content, event.said)


def _code_kinds() -> dict[str, Kind]:
    return {
        f"error_{code}": Kind(
            f"error {code}: {trouble.title}",
            works=False,
            may=(OUTCOME, SEND) if code in _LATE_CODES else (SEND, OUTCOME),
            trouble=trouble,
        )
        for code, trouble in ERRORS.items()
    }


_UNKNOWN = Trouble(1, "An unknown error has occurred.", 500)
_STATUS = (STATUS,)

KINDS: dict[str, Kind] = {
    "timeout_after_accepting": Kind("message is sent, the answer never comes", seconds=30.0, lose=answers.no_reply),
    "timeout_before": Kind("nothing is sent, no answer comes", works=False, seconds=30.0, lose=answers.no_reply),
    "reset": Kind("message is sent, the connection is cut without an answer", lose=answers.no_reply),
    "html": Kind("message is sent, answer is a web page with HTTP 200", lose=answers.html),
    "empty": Kind("message is sent, answer is empty with HTTP 200", lose=answers.empty),
    "truncated": Kind("message is sent, answer is cut in half", lose=answers.truncated),
    "huge": Kind("message is sent, answer has 50 MB", lose=answers.huge),
    "slow": Kind("message is sent, the answer drips", seconds=60.0, lose=answers.slow),
    "redirect": Kind("answer is a redirect", works=False, lose=answers.redirect),
    "error500": Kind("answer is HTTP 500", works=False, trouble=_UNKNOWN),
    "error500_after_accepting": Kind("message is sent, answer is HTTP 500", trouble=_UNKNOWN),
    "error503_html": Kind("answer is a web page with HTTP 503", works=False, lose=answers.unavailable),
    **_code_kinds(),
    "duplicated": Kind("each status comes twice", may=_STATUS, arrange=_twice),
    "shuffled": Kind("statuses come in the wrong order", may=_STATUS, arrange=_backwards),
    "dropped": Kind("no status comes", may=_STATUS, arrange=_none),
    "delayed": Kind("statuses come late", may=_STATUS, seconds=5.0),
    "delivered_skipped": Kind("delivered is never told", may=_STATUS, arrange=_not_delivered),
    "no_phone": Kind("statuses tell no number", may=_STATUS, arrange=_without("recipient_id")),
    "no_callback_data": Kind("statuses lack our data", may=_STATUS, arrange=_without("biz_opaque_callback_data")),
    "wrong_signature": Kind("statuses have a wrong signature", may=_STATUS, sign=badly_signed),
    "unsigned": Kind("statuses have no signature", may=_STATUS, sign=unsigned),
}
