"""The hosted pay page: whom, how much, what for; a button that goes on to the gateway; the state; the receipt.

GET and HEAD show and nothing else: chat previews fetch them. POST starts an attempt, or goes on with the open one.

What POST answers: 303 to the gateway; 303 back to the page when there is nothing to start now (over already, another
tap is just starting it) and when the gateway's answer was lost (the page then says that we are asking); 409 with the
page when nothing was started (refused, gateway not reached, not set up); 404 for an unknown link; 503 only when our own
database is away.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import jinja2
import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from payments_service import checkout
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import (
    Ambiguous,
    GatewayError,
    NotConfigured,
    NotFound,
    Refused,
    Unavailable,
    Unreachable,
    Unreadable,
    Untrusted,
)
from payments_service.lifecycle import OVER_UNPAID, Status
from payments_service.money import Currency, Money
from payments_service.public.style import PAGES, STYLE
from payments_service.public.texts import ENGLISH, State, Words
from payments_service.reconcile import look_soon
from payments_service.records import money_of
from payments_service.web import json_response

log = structlog.get_logger(__name__)

# A waiting page loads itself again, without a script; then the customer decides.
REFRESH_SECONDS = 5
REFRESHES = 40

# Africa/Harare has been two hours ahead of UTC since 1903 and keeps no summer time; a container may lack zone files.
HARARE = timezone(timedelta(hours=2))

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}", re.ASCII)
_RETRY = {"Retry-After": "10"}

_PAID = frozenset({Status.PAID, Status.PARTIALLY_REFUNDED})
# Money came, so there is a receipt to show.
_RECEIPTS = frozenset({State.PAID, State.PARTIALLY_REFUNDED, State.REFUNDED, State.DISPUTED})
_PAYABLE = frozenset({State.READY, State.FAILED, State.REFUSED, State.UNREACHABLE})
_BUSY = frozenset({State.STARTING, State.WAITING})
# Money may still be on its way from a gateway's page that was left open.
_CHECKABLE = frozenset({State.READY, State.EXPIRED, State.CANCELLED, State.STILL_WAITING})

_FAILED_START: dict[type[Exception], State] = {
    Refused: State.REFUSED,
    Unreachable: State.UNREACHABLE,
    NotConfigured: State.NOT_SET_UP,
    Unreadable: State.NOT_SET_UP,
}

_SELECT = """
SELECT p.id, p.gateway, p.amount_cents, p.currency, p.status, p.reference, p.gateway_reference, p.description,
       p.refunded_cents, p.expires_at, p.paid_at, s.display_name, a.state AS attempt_state, a.gateway AS attempt_gateway
FROM payments p
LEFT JOIN payment_settings s ON s.client_id = p.client_id
LEFT JOIN attempts a ON a.payment_id = p.id AND a.state IN ('starting', 'live')
WHERE p.page_token = %(token)s"""

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(PAGES),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.globals["style"] = STYLE
_PAGE = _templates.get_template("pay.html")
_MESSAGE = _templates.get_template("message.html")

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Refresh:
    """When and where the browser looks again by itself."""

    seconds: int
    url: str


@dataclass(frozen=True, slots=True)
class Visit:
    """How the customer came: back from the gateway or not, and how often the page has refreshed itself since."""

    token: str
    returned: bool = False
    turn: int = 0

    @classmethod
    def of(cls, request: Request, token: str) -> Visit:
        turn = request.query_params.get("n", "")
        # Whatever else stands in the address is nobody's proof of anything.
        return cls(
            token,
            returned=request.query_params.get("returned") == "1",
            turn=int(turn) if turn.isascii() and turn.isdecimal() and len(turn) < 4 else 0,
        )

    def refresh(self, state: State) -> Refresh | None:
        if state not in _BUSY:
            return None
        # Relative, so that it also holds behind a proxy that serves us under a path.
        came = "returned=1&" if self.returned else ""
        return Refresh(REFRESH_SECONDS, f"{self.token}?{came}n={self.turn + 1}")


async def page(request: Request) -> Response:
    """`GET /pay/{token}`: the payment as it stands. Back from the gateway, one look-up is scheduled as well."""
    context: Context = request.app.state.context
    try:
        token, row = await _read(context, request)
        visit = Visit.of(request, token)
        if visit.returned and request.method == "GET" and Status(row["status"]) in {Status.PENDING, *OVER_UNPAID}:
            await look_soon(context, row["id"])
    except NotFound:
        return _message(State.NOT_FOUND, 404)
    except Unavailable:
        return _message(State.UNAVAILABLE, 503, _RETRY)
    return HTMLResponse(_rendered(context, row, visit, state_of(row, context.clock(), visit)))


async def pay(request: Request) -> Response:
    """`POST /pay/{token}`: go on to the gateway. The body is not used."""
    context: Context = request.app.state.context
    try:
        token, row = await _read(context, request)
        try:
            step = await checkout.pay(context, token)
        except (GatewayError, NotConfigured, Unreadable) as error:
            return _not_started(context, row, Visit(token), error)
    except NotFound:
        return _message(State.NOT_FOUND, 404)
    except Unavailable:
        return _message(State.UNAVAILABLE, 503, _RETRY)
    return RedirectResponse(token if step is None else step.url, 303)


async def status(request: Request) -> Response:
    """`GET /pay/{token}/status`: `status` of the payment, `paid`, and `final`: waiting here changes nothing more.

    Raises NotFound and Unavailable.
    """
    context: Context = request.app.state.context
    _, row = await _read(context, request)
    now = Status(row["status"])
    if now is Status.PENDING and row["attempt_state"] and request.method == "GET":
        await look_soon(context, row["id"])
    return json_response({"status": now, "paid": now in _PAID, "final": now is not Status.PENDING})


ROUTES = [
    Route("/pay/{token}", page, methods=["GET"]),
    Route("/pay/{token}", pay, methods=["POST"]),
    Route("/pay/{token}/status", status, methods=["GET"]),
]


async def _read(context: Context, request: Request) -> tuple[str, Row]:
    """The token and its payment. Raises NotFound, the same for a token that never was and one that is gone."""
    token = request.path_params["token"]
    # What cannot be a token is not carried to the database, which refuses some texts.
    rows = await context.db.run(_SELECT, {"token": token}) if _TOKEN.fullmatch(token) else []
    if not rows:
        raise NotFound("There is no such payment page.")
    return token, rows[0]


def state_of(row: Row, now: datetime, visit: Visit) -> State:
    """What the page shows of the payment at this moment."""
    status = Status(row["status"])
    if status not in (Status.PENDING, Status.FAILED):
        return State(status.value)
    tired = visit.turn >= REFRESHES
    if row["attempt_state"] == "live" and visit.returned:
        return State.STILL_WAITING if tired else State.WAITING
    if now >= row["expires_at"]:
        return State.EXPIRED
    if row["attempt_state"] == "starting":
        return State.STILL_WAITING if tired else State.STARTING
    return State.FAILED if status is Status.FAILED else State.READY


def _not_started(
    context: Context, row: Row, visit: Visit, error: GatewayError | NotConfigured | Unreadable
) -> Response:
    """Tell the customer why the payment did not start, and what that means for the money."""
    log.warning("pay_page_start_failed", payment_id=row["id"], error=type(error).__name__, detail=error.detail)
    if isinstance(error, Ambiguous | Untrusted):
        # It may have started: the page shows that we are asking, and stays safe to load again.
        return RedirectResponse(visit.token, 303)
    state = next(_FAILED_START[kind] for kind in type(error).__mro__ if kind in _FAILED_START)
    return HTMLResponse(_rendered(context, row, visit, state), 409)


def _rendered(context: Context, row: Row, visit: Visit, state: State) -> str:
    names = _names(context, row)
    words = _words(state, names)
    money = money_of(row)
    currency, _, figure = money.shown().partition(" ")
    payee = row["display_name"]
    return _PAGE.render(
        language=ENGLISH,
        labels=ENGLISH.labels,
        title=f"{words.title} · {money.shown()}" + (f" · {payee}" if payee else ""),
        refresh=visit.refresh(state),
        here=visit.token,
        payee=payee,
        currency=currency,
        figure=figure,
        words=words,
        receipt=state in _RECEIPTS,
        number=row["id"],
        facts=_facts(row, names, receipt=state in _RECEIPTS),
        next_step=ENGLISH.labels["next_step"].format(**names),
        **_actions(row, visit, state, names, now=context.clock()),
    )


def _names(context: Context, row: Row) -> Mapping[str, str]:
    """What the texts' braces stand for."""
    labels = ENGLISH.labels
    # Where the customer may choose and there is one way only, it is known before the choice.
    only = next(iter(context.gateways)) if len(context.gateways) == 1 else ""
    gateway = context.gateways.get(row["gateway"] or row["attempt_gateway"] or only)
    return {
        "payee": row["display_name"] or labels["the_payee"],
        "gateway": gateway.title if gateway else labels["the_gateway"],
        "amount": money_of(row).shown(),
        "refunded": Money(row["refunded_cents"], Currency(row["currency"])).shown(),
        "expires": clock_time(row["expires_at"]),
    }


def _words(state: State, names: Mapping[str, str]) -> Words:
    words = ENGLISH.states[state]
    title, meaning = words.title.format(**names), words.meaning.format(**names)
    return Words(words.tone, title[:1].upper() + title[1:], meaning[:1].upper() + meaning[1:])


def _facts(row: Row, names: Mapping[str, str], *, receipt: bool) -> Facts:
    """The lines below the amount: what it is for, and of a receipt how it was paid."""
    labels = ENGLISH.labels
    facts: Facts = [(labels["reference"], row["reference"])]
    if row["description"]:
        facts.insert(0, (labels["description"], row["description"]))
    if not receipt:
        return facts
    if row["paid_at"]:
        facts.append((labels["paid_at"], clock_time(row["paid_at"])))
    if row["gateway"]:
        facts.append((labels["paid_through"], names["gateway"]))
    if row["gateway_reference"]:
        facts.append((labels["gateway_reference"].format(**names), row["gateway_reference"]))
    if row["refunded_cents"]:
        facts.append((labels["refunded"], names["refunded"]))
    return facts


def _actions(row: Row, visit: Visit, state: State, names: Mapping[str, str], now: datetime) -> dict[str, object]:
    """The button, whether it is the lesser way, and the link that asks the gateway again."""
    labels = ENGLISH.labels
    known = "_with" if names["gateway"] != labels["the_gateway"] else "_now"
    button = check = None
    if state in _PAYABLE:
        button = labels[("pay" if state is State.READY else "try") + known]
    elif state in (State.WAITING, State.STILL_WAITING) and row["attempt_state"] == "live" and now < row["expires_at"]:
        button = labels["go_back_to" if known == "_with" else "go_back"]
    if state in _BUSY:
        check = labels["look_again"]
    elif state in _CHECKABLE and row["attempt_state"]:
        check = labels["check_again" if state is State.STILL_WAITING else "already_paid"]
    return {"button": button.format(**names) if button else None, "quiet": state not in _PAYABLE, "check": check}


def clock_time(moment: datetime) -> str:
    """A moment for people in Zimbabwe: `24 November 2026, 14:05 (Harare, UTC+2)`."""
    local = moment.astimezone(HARARE)
    return ENGLISH.labels["clock"].format(
        day=local.day, month=ENGLISH.months[local.month - 1], year=local.year, time=f"{local:%H:%M}"
    )


def _message(state: State, status_code: int, headers: Mapping[str, str] | None = None) -> Response:
    """A page without a payment on it."""
    labels = ENGLISH.labels
    words = _words(state, {"payee": labels["the_payee"], "gateway": labels["the_gateway"]})
    text = _MESSAGE.render(language=ENGLISH, labels=labels, title=words.title, refresh=None, words=words)
    return HTMLResponse(text, status_code, headers)
