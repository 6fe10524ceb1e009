"""`…/payment-settings`: a tenant's gateway credentials go in, only masks come out; what the gateways say of them."""

from __future__ import annotations

import re
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from payments_service import accounts, provisioning
from payments_service.context import Context
from payments_service.errors import Invalid
from payments_service.internal.schemas import SettingsPatch, VerifySettings
from payments_service.web import decode, json_response, read_body

MAX_BODY = 64 * 1024
_ACTOR = re.compile(r"[^\x00-\x1f\x7f]{1,100}")


def actor_of(request: Request) -> str:
    """The person behind the call, by `X-Actor`; else the calling service's name."""
    given = [value for name, value in request.scope["headers"] if name == b"x-actor"]
    if not given:
        return f"service:{request.scope['state']['caller']}"
    try:
        actor = str(given[0], "utf-8").strip()
    except UnicodeDecodeError:
        actor = ""
    if len(given) > 1 or not _ACTOR.fullmatch(actor):
        raise Invalid([("X-Actor", "must be one name of 1 to 100 printable characters in UTF-8")])
    return actor


async def save_settings(request: Request) -> Response:
    context: Context = request.app.state.context
    client_id: UUID = request.path_params["client_id"]
    patch = decode(await read_body(request, MAX_BODY), SettingsPatch)
    return json_response(await accounts.save(context, client_id, patch.changes(), actor=actor_of(request)))


async def show_settings(request: Request) -> Response:
    context: Context = request.app.state.context
    return json_response(await accounts.masked(context, request.path_params["client_id"]))


async def verify_settings(request: Request) -> Response:
    context: Context = request.app.state.context
    wanted = decode(await read_body(request, MAX_BODY), VerifySettings)
    return json_response(await provisioning.verify(context, request.path_params["client_id"], wanted.gateway))


async def set_up_stripe_webhook(request: Request) -> Response:
    context: Context = request.app.state.context
    client_id: UUID = request.path_params["client_id"]
    # Nothing is asked for: what is sent along is read no further than its end.
    await read_body(request, MAX_BODY)
    made = await provisioning.set_up_webhook(context, client_id, "stripe", actor=actor_of(request))
    return json_response(made, 201)
