"""The hosted pay page: whom, how much, what for; the ways to pay; what to do next; the state; the receipt.

GET and HEAD show and nothing else: chat previews fetch them. POST starts an attempt, or goes on with the open one, or
passes a one-time password on. It needs no cookie and knows nobody by one, so that no other site can use a customer's
browser for what it could not do itself; a form that a browser says comes from elsewhere starts nothing all the same.

What POST answers: 303 to the gateway; 303 back to the page when the next step is there, when there is nothing to start
now (over already, another tap is just starting it) and when the gateway's answer was lost (the page then says that we
are asking); 422 with the page when a field is wrong; 429 with the page after too many tries; 409 with the page when
nothing was started (refused, gateway not reached, not set up, an earlier try not settled); 404 for an unknown link; 503
only when our own database is away.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from urllib.parse import parse_qsl

import structlog
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from payments_service import checkout
from payments_service.attempts import step_of
from payments_service.checkout import OTP_TRIES, Choice
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import (
    Ambiguous,
    Because,
    GatewayError,
    Invalid,
    NotAccepted,
    NotConfigured,
    NotFound,
    PaymentsError,
    Refused,
    TooMany,
    Unavailable,
    Unreachable,
    Unreadable,
    Unsettled,
    Untrusted,
)
from payments_service.gateways.base import EnterOtp, NextStep, Redirect
from payments_service.lifecycle import OVER_UNPAID, PAYABLE, Status
from payments_service.phones import is_mobile
from payments_service.public.assets import PREVIEW
from payments_service.public.states import CHOICES, RECEIPTS, Visit, state_of, version_of
from payments_service.public.texts import ENGLISH, State
from payments_service.public.view import Scene, draw, draw_message
from payments_service.reconcile import LOOK_GAP, look_soon
from payments_service.ways import way_called, ways_of
from payments_service.web import json_response, read_body

log = structlog.get_logger(__name__)

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}", re.ASCII)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_RETRY = {"Retry-After": "10"}
_MAX_FORM = 8 * 1024
_MAX_FIELD = 100
_FIELDS = frozenset({"way", "phone", "after", "otp", "tries"})

_PAID = frozenset({Status.PAID, Status.PARTIALLY_REFUNDED})

_FAILED_START: dict[type[Exception], State] = {
    Unreachable: State.UNREACHABLE,
    NotConfigured: State.NOT_SET_UP,
    Unreadable: State.NOT_SET_UP,
    TooMany: State.TOO_MANY,
    Unsettled: State.ASKING,
}
_REFUSED = {
    Because.FUNDS: State.NO_FUNDS,
    Because.METHOD: State.METHOD_CLOSED,
    Because.PHONE: State.READY,
    Because.OTHER: State.REFUSED,
}

Endpoint = Callable[[Request], Awaitable[Response]]


def _told_as_a_page(endpoint: Endpoint) -> Endpoint:
    """For people: what is not there, and that our own database is away, as pages instead of problems."""

    @wraps(endpoint)
    async def told(request: Request) -> Response:
        try:
            return await endpoint(request)
        except NotFound:
            return HTMLResponse(draw_message(State.NOT_FOUND), 404)
        except Unavailable:
            return HTMLResponse(draw_message(State.UNAVAILABLE), 503, _RETRY)

    return told


@_told_as_a_page
async def page(request: Request) -> Response:
    """`GET /pay/{token}`: the payment as it stands. Back from the gateway, one look-up is scheduled as well."""
    context: Context = request.app.state.context
    token, row = await _read(context, request)
    visit = Visit.of(request, token)
    if visit.returned and request.method == "GET" and Status(row["status"]) in {Status.PENDING, *OVER_UNPAID}:
        await look_soon(context, row["id"])
    return HTMLResponse(draw(context, await _scene(context, row, visit)))


@_told_as_a_page
async def pay(request: Request) -> Response:
    """`POST /pay/{token}`: start to pay in the way that the form names, or pass on a one-time password."""
    context: Context = request.app.state.context
    token, row = await _read(context, request)
    if request.headers.get("sec-fetch-site") == "cross-site":
        return RedirectResponse(token, 303)
    form = _form(await read_body(request, _MAX_FORM))
    try:
        step = await _act(context, token, form)
    except (GatewayError, NotConfigured, Unreadable, Unsettled, Invalid, TooMany) as error:
        return await _not_done(context, token, form, error)
    log.info("pay_page_step", payment_id=row["id"], step=type(step).__name__)
    return RedirectResponse(step.url if isinstance(step, Redirect) else token, 303)


async def status(request: Request) -> Response:
    """`GET /pay/{token}/status`: `status` of the payment, `paid`, `final` (it is not pending, and no try is open that
    could change it) and `version`, which changes whenever the page does.

    Raises NotFound and Unavailable.
    """
    context: Context = request.app.state.context
    _, row = await _read(context, request)
    now = Status(row["status"])
    trying = now in PAYABLE and row["attempt_state"] in ("starting", "live")
    if trying and request.method == "GET":
        # The page asks by itself: no more often than the gateway wants to be asked.
        rhythm = timedelta(seconds=context.schedule(row["attempt_gateway"])[0])
        await look_soon(context, row["id"], gap=max(rhythm, LOOK_GAP))
    version = version_of(row, step_of(context, row), context.clock())
    return json_response(
        {"status": now, "paid": now in _PAID, "final": now is not Status.PENDING and not trying, "version": version}
    )


@_told_as_a_page
async def receipt(request: Request) -> Response:
    """`GET /pay/{token}/receipt`: the receipt as a file to keep, whole in itself; back to the page while unpaid."""
    context: Context = request.app.state.context
    token, row = await _read(context, request)
    scene = await _scene(context, row, Visit(token))
    if scene.state not in RECEIPTS:
        return RedirectResponse(f"../{token}", 303)
    name = _UNSAFE.sub("-", row["reference"]).strip("-.")[:60] or "payment"
    kept = {"Content-Disposition": f'attachment; filename="receipt-{name}.html"'}
    return HTMLResponse(draw(context, replace(scene, kept=True)), headers=kept)


async def preview(_request: Request) -> Response:
    """`GET /preview.png`: the picture that a chat shows beside a link, the same for every payment."""
    return Response(PREVIEW, media_type="image/png")


ROUTES = [
    Route("/pay/{token}", page, methods=["GET"]),
    Route("/pay/{token}", pay, methods=["POST"]),
    Route("/pay/{token}/status", status, methods=["GET"]),
    Route("/pay/{token}/receipt", receipt, methods=["GET"]),
    Route("/preview.png", preview, methods=["GET"]),
]


async def _read(context: Context, request: Request) -> tuple[str, Row]:
    """The token and its payment. Raises NotFound, the same for a token that never was and one that is gone."""
    token = request.path_params["token"]
    # What cannot be a token is not carried to the database, which refuses some texts.
    if not _TOKEN.fullmatch(token):
        raise NotFound("There is no such payment page.")
    return token, await checkout.read(context, token)


def _form(body: bytes) -> Mapping[str, str]:
    """The fields that the page's forms have, each cut to a sensible length. Without any it is a bare press of a button,
    whatever else was sent."""
    try:
        pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    # No database and no gateway takes a NUL.
    return {name: value[:_MAX_FIELD].replace("\0", "") for name, value in pairs if name in _FIELDS}


def _count(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 5 else None


async def _act(context: Context, token: str, form: Mapping[str, str]) -> NextStep | None:
    if "otp" in form:
        await checkout.enter_otp(context, token, form["otp"], tries=_count(form.get("tries")) or 0)
        return None
    choice = Choice(form.get("way") or None, form.get("phone"), _count(form.get("after")))
    return await checkout.pay(context, token, choice)


async def _scene(context: Context, row: Row, visit: Visit) -> Scene:
    step = step_of(context, row)
    return await _with_ways(context, Scene(row, visit, state_of(row, step, context.clock(), visit), step))


async def _with_ways(context: Context, scene: Scene) -> Scene:
    if scene.state not in CHOICES or not checkout.is_payable(context, scene.row):
        return scene
    try:
        ways = await ways_of(context, scene.row)
    except Unreadable:
        ways = []
    return replace(scene, ways=ways, state=scene.state if ways or scene.step else State.NOT_SET_UP)


async def _not_done(context: Context, token: str, form: Mapping[str, str], error: PaymentsError) -> Response:
    """Tell the customer why nothing was started, and what that means for the money."""
    row = await checkout.read(context, token)
    log.warning("pay_page_start_failed", payment_id=row["id"], error=type(error).__name__, detail=error.detail)
    scene = await _scene(context, row, Visit(token, choosing="way" in form))
    fault = _fault(context, scene, form, error)
    if not fault and isinstance(error, Ambiguous | Untrusted | NotAccepted):
        # It may have started, or is over: the page shows that we are asking, and stays safe to load again.
        return RedirectResponse(token, 303)
    if not fault and checkout.is_payable(context, row):
        scene = await _with_ways(context, replace(scene, state=_state_after(error)))
    tried = _title(context, scene, form)
    scene = _with_stand_in(replace(scene, posted=form, fault=fault, tried=tried), error)
    status_code = 422 if fault else 429 if isinstance(error, TooMany) else 409
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, TooMany) else None
    return HTMLResponse(draw(context, scene), status_code, headers)


def _with_stand_in(scene: Scene, error: PaymentsError) -> Scene:
    """What stands in for the way that could not be started is offered in its place. Where it has not been tried for
    want of a number, the page says so."""
    key, typed = scene.posted.get("way"), scene.posted.get("phone", "")
    if not isinstance(error, GatewayError):
        return scene
    instead = {way.key: way.stand_in(error, phone=typed) for way in scene.ways if way.key == key}
    ways = [instead.get(way.key) or way for way in scene.ways]
    asks = any(way and way.method.needs_phone and not is_mobile(typed) for way in instead.values())
    return replace(scene, ways=ways, state=State.INSTEAD if asks else scene.state)


def _state_after(error: PaymentsError) -> State:
    if isinstance(error, Refused):
        return _REFUSED[error.because]
    return next((_FAILED_START[kind] for kind in type(error).__mro__ if kind in _FAILED_START), State.REFUSED)


def _fault(context: Context, scene: Scene, form: Mapping[str, str], error: PaymentsError) -> Mapping[str, str]:
    """The field that is wrong, and what the customer can do about it; empty when no field is."""
    labels = ENGLISH.labels
    if isinstance(error, NotAccepted) and isinstance(scene.step, EnterOtp):
        left = OTP_TRIES - scene.step.tries
        return {"otp": labels["otp_wrong_last" if left == 1 else "otp_wrong"].format(left=left)} if left > 0 else {}
    if isinstance(error, Refused) and error.because is Because.PHONE:
        return {"phone": labels["phone_refused"].format(gateway=_title(context, scene, form) or labels["the_gateway"])}
    if isinstance(error, Unreachable) and scene.state is State.OTP:
        return {"otp": labels["otp_unsent"]}
    if not isinstance(error, Invalid):
        return {}
    (field, _), *_ = error.faults
    if field == "otp":
        return {"otp": labels["otp_malformed"]}
    if field == "phone":
        return {"phone": labels["phone_wrong" if form.get("phone", "").strip() else "phone_missing"]}
    return {"way": labels["way_unknown"]}


def _title(context: Context, scene: Scene, form: Mapping[str, str]) -> str | None:
    """Who was asked for the payment, as customers know him: the wallet, or the gateway with a page of its own."""
    way = way_called(list(scene.ways), form.get("way", ""))
    if way is None:
        return None
    return context.gateways[way.gateway].title if way.method.step is Redirect else way.method.title
