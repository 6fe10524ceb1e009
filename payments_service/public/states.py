"""What the pay page shows of a payment: decided here, said in `texts`, drawn in `view`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request

from payments_service.checkout import is_awaiting, is_over, is_starting
from payments_service.db import Row
from payments_service.gateways.base import ApproveOnPhone, EnterOtp, NextStep, Redirect, ShowCode, Wait
from payments_service.lifecycle import PAYABLE, Status
from payments_service.public.texts import State

# A waiting page loads itself again so many times, without a script; then the customer decides.
REFRESHES = 40

# Money came, so there is a receipt to show.
RECEIPTS = frozenset({State.PAID, State.PARTIALLY_REFUNDED, State.REFUNDED, State.DISPUTED})
# The customer may choose a way to pay.
CHOICES = frozenset(
    {
        State.READY,
        State.FAILED,
        State.REFUSED,
        State.NO_FUNDS,
        State.METHOD_CLOSED,
        State.UNREACHABLE,
        State.INSTEAD,
        State.UNANSWERED,
        State.CODE_OVER,
        State.CODE_LAPSED,
        State.OTP_OVER,
        State.CHOOSING,
        State.ASKING,
    }
)
# Seconds between one look and the next, where the customer can do nothing on the page but wait. Codes live for ten
# minutes, the rest is over sooner.
_REFRESHED = {State.STARTING: 5, State.WAITING: 5, State.PROMPTED: 5, State.CODE: 15}
# Who says that it is paid waits for the receipt, not for the code.
_SOON = 5
# The script looks at these again and again; where somebody may be choosing and typing, only for the end.
_WATCHED = {
    **dict.fromkeys((*_REFRESHED, State.STILL_WAITING, State.OTP), "any"),
    **dict.fromkeys(
        (State.UNDER_WAY, State.UNANSWERED, State.CODE_OVER, State.OTP_OVER, State.CHOOSING, State.ASKING), "end"
    ),
}


@dataclass(frozen=True, slots=True)
class Refresh:
    """When and where the browser looks again by itself."""

    seconds: int
    url: str


@dataclass(frozen=True, slots=True)
class Visit:
    """How the customer came: back from the gateway or not, wanting another way to pay, and how often the page has
    refreshed itself since."""

    token: str
    returned: bool = False
    choosing: bool = False
    turn: int = 0

    @classmethod
    def of(cls, request: Request, token: str) -> Visit:
        turn = request.query_params.get("n", "")
        # Whatever else stands in the address is nobody's proof of anything.
        return cls(
            token,
            returned=request.query_params.get("returned") == "1",
            choosing=request.query_params.get("choose") == "1",
            turn=int(turn) if turn.isascii() and turn.isdecimal() and len(turn) < 4 else 0,
        )

    @property
    def tired(self) -> bool:
        return self.turn >= REFRESHES

    @property
    def here(self) -> str:
        """The page's address: relative, so that it also holds behind a proxy that serves us under a path."""
        return f"{self.token}?returned=1" if self.returned else self.token

    def refresh(self, state: State) -> Refresh | None:
        if state not in _REFRESHED or self.tired:
            return None
        came = "returned=1&" if self.returned else ""
        seconds = min(_REFRESHED[state], _SOON) if self.returned else _REFRESHED[state]
        return Refresh(seconds, f"{self.token}?{came}n={self.turn + 1}")


def watch(state: State) -> str:
    """What the script waits for on the page: `any` change, the `end` of the payment, or nothing."""
    return _WATCHED.get(state, "")


def state_of(row: Row, step: NextStep | None, now: datetime, visit: Visit) -> State:
    """What the page shows, of a row of `checkout.read` and its open try's next step, at this moment."""
    status = Status(row["status"])
    if status not in PAYABLE:
        return State(status.value)
    if isinstance(step, Wait):
        return State.UNDER_WAY
    over = now >= row["expires_at"]
    if step and visit.choosing and not over:
        return State.READY if isinstance(step, Redirect) else State.CHOOSING
    if step and (found := _of_step(row, step, now, visit, over=over)):
        return found
    if over:
        return State.EXPIRED
    if is_starting(row, now):
        return State.STILL_WAITING if visit.tired else State.STARTING
    if status is Status.FAILED:
        return State.FAILED
    return State.CODE_LAPSED if _is_lapsed_code(row) else State.READY


def _is_lapsed_code(row: Row) -> bool:
    """Whether the newest try is a code that has run out by its gateway's own word, which leaves the payment pending."""
    step = row["attempt_next_step"] or {}
    return bool(row["attempt_state"] == "failed" and step.get("type") == "show_code")


def _of_step(row: Row, step: NextStep, now: datetime, visit: Visit, *, over: bool) -> State | None:
    """What the customer has to do; None where that says nothing, since the time of link and step is up, or the
    gateway's page has not been visited."""
    waiting = State.STILL_WAITING if visit.tired else State.WAITING
    ended = is_over(row, step, now)
    match step:
        case Redirect():
            return waiting if visit.returned and not ended else None
        case ApproveOnPhone():
            return State.PROMPTED if not ended else None if over else State.UNANSWERED
        case ShowCode():
            return State.CODE if not ended else None if over else State.CODE_OVER
        case Wait():
            return State.UNDER_WAY
        case EnterOtp():
            if is_awaiting(row, step):
                return waiting
            return None if over else State.OTP_OVER if ended else State.OTP


def version_of(row: Row, step: NextStep | None, now: datetime) -> str:
    """Another text whenever the page would look different: what the script compares."""
    state = state_of(row, step, now, Visit("", returned=True))
    tries = step.tries if isinstance(step, EnterOtp) else 0
    return f"{state}.{row['tries']}.{tries}.{row['prompts']}"
