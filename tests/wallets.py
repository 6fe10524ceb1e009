"""A tenant who takes wallets through gateways of their own and through Paynow, a customer at the page, and an EcoCash
that answers as a test tells it to."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from payments_service.gateways.base import Gateway
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.innbucks import Innbucks
from payments_service.gateways.transport import Transport
from tests.house import Answer, House
from tests.servers import listen, serve

PHONE = "077 123 4567"
GATEWAYS = ("ecocash", "innbucks", "paynow")


# --- the tenant


async def save_wallets(house: House) -> None:
    """The credentials of every gateway that takes wallets; EcoCash and InnBucks are also to be had through Paynow."""
    await house.save_paynow()
    await house.save_ecocash()
    await house.save_innbucks()
    await settle(house, paynow_auth_email="till@acme.example")


async def settle(house: House, **fields: str | None) -> None:
    answer = await house.call("PATCH", house.path("/payment-settings"), fields)
    assert answer.status == 200, answer.body


# --- the customer


async def page(house: House, payment: Any) -> str:
    answer = await house.get_public(f"/pay/{token(payment)}")
    assert answer.status == 200
    return answer.body.decode()


def token(payment: Any) -> str:
    return str(payment["page_url"].rpartition("/")[2])


def offered(html: str) -> list[str]:
    """The ways that a page offers, in their order."""
    return re.findall(r'name="way"[^>]* value="([^"]*)"', html)


async def tap(house: House, payment: Any, way: str, **fields: str) -> Answer:
    return await house.get_public(f"/pay/{token(payment)}", method="POST", data={"way": way, **fields})


# --- what came of it


def tries(house: House, payment: Any) -> list[tuple[str, str, str]]:
    """The gateway, method and state of each try, oldest first."""
    rows = house.world.rows(
        "SELECT gateway, method, state FROM attempts WHERE payment_id = %s ORDER BY number", payment["id"]
    )
    return [(row["gateway"], row["method"], row["state"]) for row in rows]


def events(house: House, payment: Any) -> list[str]:
    """What the backend is told of the payment, in order."""
    rows = house.world.rows("SELECT type FROM events WHERE payment_id = %s ORDER BY sequence", payment["id"])
    return [row["type"] for row in rows]


async def status(house: House, payment: Any) -> str:
    return str((await house.payment(payment))["status"])


async def look(house: House, *names: str, **by: float) -> None:
    """So much later, by default a minute, ask these gateways, by default all, about everything that is due."""
    house.world.clock.forward(**(by or {"minutes": 1}))
    await house.world.look_up(*names)


# --- gateways of other kinds


@asynccontextmanager
async def instead(house: House, **others: Gateway[Any]) -> AsyncIterator[None]:
    """The same service with other gateways under these names."""
    gateways = house.world.context.gateways
    # In place: the listeners have the context that they were made with.
    assert isinstance(gateways, dict)
    kept = {name: gateways[name] for name in others}
    try:
        gateways.update(others)
        yield
    finally:
        gateways.update(kept)


def ecocash_at(transport: Transport, url: str) -> Ecocash:
    return Ecocash(transport, url, "live", url, url)


def innbucks_at(transport: Transport, url: str) -> Innbucks:
    return Innbucks(transport, url, "/api/code/inquiry", "x:{code}", "*1#")


@asynccontextmanager
async def down(house: House, *names: str) -> AsyncIterator[None]:
    """The same service, where nobody listens at these gateways."""
    listener = listen()
    nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    async with Transport() as transport:
        dead: dict[str, Gateway[Any]] = {
            "ecocash": ecocash_at(transport, nowhere),
            "innbucks": innbucks_at(transport, nowhere),
        }
        async with instead(house, **{name: dead[name] for name in names}):
            yield


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that EcoCash got. `kind`: charge, refund or lookup; `body` is empty for a look-up."""

    kind: str
    correlator: str
    body: dict[str, Any]


Content = dict[str, Any]
# What EcoCash says, with the HTTP status where it is not 200.
Says = Callable[[Asked], Content | tuple[int, Content]]


def _asked(request: Request, body: dict[str, Any]) -> Asked:
    if request.method == "GET":
        return Asked("lookup", request.url.path.rstrip("/").rpartition("/")[2], body)
    return Asked("refund" if "refund" in request.url.path else "charge", body["clientCorrelator"], body)


@asynccontextmanager
async def ecocash_says(house: House, says: Says) -> AsyncIterator[list[Asked]]:
    """The same service with an EcoCash, of a merchant's dialects, that answers so; what it was asked."""
    asked: list[Asked] = []

    async def answer(request: Request) -> JSONResponse:
        body = msgspec.json.decode(await request.body()) if request.method == "POST" else {}
        asked.append(_asked(request, body))
        said = says(asked[-1])
        code, content = said if isinstance(said, tuple) else (200, said)
        return JSONResponse(content, code)

    app = Starlette(routes=[Route("/{rest:path}", answer, methods=["GET", "POST"])])
    async with serve(app) as url, Transport() as transport, instead(house, ecocash=ecocash_at(transport, url)):
        yield asked


def eip(asked: Asked, word: str, reference: str | None = None) -> Content:
    """A transaction of the classic gateway; of the amount that was asked for, a look-up's of USD 12.50."""
    amount = asked.body.get("paymentAmount", {}).get("charginginformation", {}).get("amount", 12.5)
    return {
        "clientCorrelator": asked.correlator,
        "transactionOperationStatus": word,
        "ecocashReference": reference,
        "paymentAmount": {
            "totalAmountCharged": amount,
            "charginginformation": {"amount": amount, "currency": "USD"},
        },
    }


def portal(asked: Asked, word: str, transaction: str, amount: float = 12.5, **more: str) -> Content:
    """A transaction of the developer portal's gateway."""
    return {
        "transactionId": transaction,
        "clientCorrelator": asked.correlator,
        "status": word,
        "statusCode": "200",
        "amount": amount,
        "currency": "USD",
        **more,
    }
