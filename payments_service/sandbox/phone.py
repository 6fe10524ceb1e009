"""The simulators' phones: pages on which the prompts of any gateway appear, and SMS arrive."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.local import HARARE, is_local_number
from payments_service.sandbox.phone_line import PhoneApp, PhoneLine
from payments_service.sandbox.rendering import form, go, missing, page, root

_SHOWN = 8  # of a phone's past payments
_newest_first = attrgetter("at")


def routes(lines: Sequence[PhoneLine], apps: Sequence[PhoneApp] = ()) -> list[BaseRoute]:
    """`/phone` and `/phone/<07XXXXXXXX>`, with the forms that stand on it: one phone for all the lines and apps."""

    async def index(request: Request) -> Response:
        callers: list[PhoneLine | PhoneApp] = [*lines, *apps]
        calls = sorted((call for one in callers for call in one.calls()), key=_newest_first, reverse=True)
        waiting = dict.fromkeys((call.number for call in calls), 0)
        for call in calls:
            waiting[call.number] += call.waits
        return _screen(request, "phones.html", refresh=True, waiting=waiting)

    async def show(request: Request) -> Response:
        number = request.path_params["number"]
        return _phone_page(request, lines, apps, number) if is_local_number(number) else missing()

    async def answer(request: Request) -> Response:
        number, fields = request.path_params["number"], await form(request)
        pin = None if fields.get("answer") == "decline" else fields.get("pin", "").strip()
        if not any(line.answer(number, fields.get("prompt", ""), pin) for line in lines):
            return missing()
        return go(f"{root(request)}/phone/{number}")

    return [
        Route("/phone", index),
        Route("/phone/{number}", show, methods=["GET"]),
        Route("/phone/{number}", answer, methods=["POST"]),
    ]


def _phone_page(request: Request, lines: Sequence[PhoneLine], apps: Sequence[PhoneApp], number: str) -> Response:
    prompts = sorted((one for line in lines for one in line.prompts(number)), key=_newest_first, reverse=True)
    notices = sorted((one for line in lines for one in line.notices(number)), key=_newest_first, reverse=True)
    notes = sorted((one for line in lines for one in line.notes(number)), key=_newest_first, reverse=True)
    return _screen(
        request,
        "phone.html",
        refresh=not prompts,  # a refresh would wipe out the PIN that is being typed
        number=number,
        apps=[(app.title, app.path(number), app.unread(number)) for app in apps],
        prompts=prompts,
        notices=notices,
        notes=notes[:_SHOWN],
    )


def _screen(request: Request, template: str, *, refresh: bool = False, **values: object) -> Response:
    return page(request, template, 200, clock=f"{datetime.now(HARARE):%H:%M}", refresh=refresh, **values)
