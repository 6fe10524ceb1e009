"""`make demo`: the whole service on one machine, with a real database, the gateways' simulators, a tenant, a pay link.

The link goes to the customer by WhatsApp. It can be paid from a phone (EcoCash), by a code (InnBucks), on Paynow's
page, and by card on Stripe's page; `--auto` does all four, each with a link of its own, and gives a part of the last
one back. Nothing here is used in production. A small stand-in for the main backend verifies each event with an
implementation that is not ours, and prints it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import time
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psycopg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service import config, embedded, log, migrations
from payments_service.config import Settings
from payments_service.demo_customers import HOST, PHONE, WAYS, call, chat_url, connect_whatsapp, pay_by_card
from payments_service.errors import PaymentsError
from payments_service.money import Currency, Money
from payments_service.parsers import Bind
from payments_service.sandbox import ecocash, innbucks
from payments_service.sandbox import run as sandbox
from payments_service.sandbox.paynow import DEMO_INTEGRATIONS
from payments_service.sandbox.stripe import DEMO_ACCOUNTS
from payments_service.serve import listen, serve, serve_app, stop_on_signals

PORTS = {"internal": 8080, "public": 8081, "sandbox": 8082, "backend": 8083}
AUTO_SECONDS = 60.0


def main(folder: Path, *, auto: bool, run: Callable[[Coroutine[Any, Any, int]], Any]) -> int:
    """Start everything, print what happens, and end on Ctrl-C, or with `auto` after the events of four payments."""
    log.configure("warning", "console")
    steps = Steps()
    known = _remembered(folder)
    ports = {name: _port(port) for name, port in PORTS.items()}
    settings = config.load(_environment(known, ports, _events_url(ports, auto=auto)))
    with embedded.start(folder / "postgres") as database:
        steps.done("PostgreSQL is running")
        migrations.migrate(database.url)
        _forget(database.url)
        steps.done("the database is up to date")
        return int(run(_run(settings, database.url, known, ports, steps, auto=auto)))


def _forget(database_url: str) -> None:
    """Nothing more is asked about the payments of the last time, and none of their links sent: the simulators do not
    know them any more."""
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE attempts SET state = 'failed', next_check_at = NULL WHERE state <> 'paid'")
        connection.execute("UPDATE attempts SET next_check_at = NULL WHERE state = 'paid'")
        connection.execute("UPDATE messages SET state = 'withdrawn', next_try_at = NULL WHERE next_try_at IS NOT NULL")


@dataclass
class Steps:
    """How long each step took."""

    last: float = field(default_factory=time.perf_counter)

    def done(self, what: str) -> None:
        now = time.perf_counter()
        say(f"  {now - self.last:6.2f} s  {what}")
        self.last = now


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _remembered(folder: Path) -> dict[str, str]:
    """The demo's own secrets, made once and kept beside its data, which they open."""
    folder.mkdir(exist_ok=True)
    path = folder / "demo.json"
    if not path.exists():
        made = {
            "encryption_secret": secrets.token_urlsafe(36),
            "token": secrets.token_urlsafe(36),
            "events_secret": "whsec_" + b64encode(secrets.token_bytes(32)).decode(),
            "client_id": str(uuid4()),
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(made))
    known: dict[str, str] = json.loads(path.read_text())
    return known


def _port(wished: int) -> int:
    """The wished port, or a free one when something else has it."""
    for port in (wished, 0):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise PaymentsError("There is no free port on this machine.")


def _events_url(ports: dict[str, int], *, auto: bool) -> str:
    """Our own stand-in's, or that of another backend beside this one, such as examples/backend. With `auto` only our
    own can tell that the events came."""
    named = None if auto else config.given("EVENTS_URL")
    return named or f"http://{HOST}:{ports['backend']}/events"


def _environment(known: dict[str, str], ports: dict[str, int], events_url: str) -> dict[str, str]:
    return {
        "ENCRYPTION_SECRET": known["encryption_secret"],
        "SERVICE_TOKENS": f"demo:{known['token']}",
        "EVENTS_URL": events_url,
        "EVENTS_SECRET": known["events_secret"],
        "INTERNAL_BIND": f"{HOST}:{ports['internal']}",
        "PUBLIC_BIND": f"{HOST}:{ports['public']}",
        "PUBLIC_URL": f"http://{HOST}:{ports['public']}",
        **sandbox.settings(f"http://{HOST}:{ports['sandbox']}"),
    }


async def _run(
    settings: Settings, database_url: str, known: dict[str, str], ports: dict[str, int], steps: Steps, *, auto: bool
) -> int:
    stop = asyncio.Event()
    stop_on_signals(stop)
    backend = Backend(known["events_secret"])
    jobs = [
        asyncio.create_task(sandbox.serve(Bind(HOST, ports["sandbox"]), stop)),
        asyncio.create_task(serve_app(backend.app, listen("backend", Bind(HOST, ports["backend"])), stop)),
        asyncio.create_task(serve(settings, database_url, stop=stop)),
    ]
    story = asyncio.create_task(_tell(settings, known, ports, backend, steps, auto=auto))
    await asyncio.wait([story, *jobs], return_when=asyncio.FIRST_COMPLETED)
    if auto or any(job.done() for job in jobs) or (story.done() and story.exception()):
        stop.set()
    await asyncio.gather(*jobs)
    if not story.done():
        story.cancel()
        return 0
    return story.result()


async def _tell(
    settings: Settings, known: dict[str, str], ports: dict[str, int], backend: Backend, steps: Steps, *, auto: bool
) -> int:
    """What a backend does, over HTTP: save credentials, make a link; with `auto`, what customers do too."""
    base = f"http://{settings.internal_bind}/v1/clients/{known['client_id']}"
    headers = {"Authorization": f"Bearer {known['token']}", "X-Actor": "demo"}
    async with aiohttp.ClientSession(headers=headers) as http, aiohttp.ClientSession() as customer:
        await _until_ready(customer, f"http://{settings.internal_bind}/readyz")
        steps.done("listeners, worker and simulators are up")
        await call(http, "PATCH", f"{base}/payment-settings", _shop())
        await call(http, "POST", f"{base}/payment-settings/stripe-webhook", {})
        steps.done("a tenant's credentials of four gateways are saved, its Stripe webhook is set up")
        await connect_whatsapp(customer, ports, settings.public_url)
        steps.done("WhatsApp's webhook leads here")
        payment = await call(http, "POST", f"{base}/payments/create-link", _order(send="whatsapp"))
        steps.done("a payment link is made, to be sent by WhatsApp")
        _show(settings, known, ports, payment)
        if auto:
            await _arrived(backend, steps, payment)
            await _pay_in_every_way(http, customer, base, ports, backend, steps, payment)
        return 0


async def _pay_in_every_way(
    http: aiohttp.ClientSession,
    customer: aiohttp.ClientSession,
    base: str,
    ports: dict[str, int],
    backend: Backend,
    steps: Steps,
    payment: dict[str, Any],
) -> None:
    """What customers do, each with a link of its own; then what a shop does that gives something back."""
    taken = []
    for name, pay in WAYS:
        seconds = await _told(backend, steps, payment, pay(customer, ports, payment))
        taken.append(f"{seconds:.2f} s by {name}")
        if pay is not pay_by_card:
            payment = await call(http, "POST", f"{base}/payments/create-link", _order())
            steps.done("another link is made")
    wish = {"amount_cents": 250, "reason": "one bag was torn"}
    await call(http, "POST", f"{base}/payments/{payment['id']}/refunds", wish)
    steps.done("2.50 of the card payment was given back")
    async with asyncio.timeout(AUTO_SECONDS):
        await backend.refunded[payment["id"]].wait()
    steps.done("the backend was told: payment.partially_refunded, signature verified")
    say(f"  From choice to event: {', '.join(taken)}")


def _shop() -> dict[str, str]:
    identifier, key, _ = DEMO_INTEGRATIONS[0]
    merchant = ecocash.DEMO_MERCHANTS["eip"]
    username, password, api_key, *_ = innbucks.DEMO_MERCHANTS[0]
    return {
        "paynow_integration_id": identifier,
        "paynow_integration_key": key,
        "paynow_auth_email": "shop@example.com",
        "stripe_secret_key": DEMO_ACCOUNTS[0][0],
        "ecocash_dialect": "eip",
        "ecocash_merchant_code": merchant.code,
        "ecocash_username": merchant.username,
        "ecocash_password": merchant.password,
        "ecocash_merchant_pin": merchant.pin,
        "ecocash_merchant_number": merchant.number,
        "innbucks_username": username,
        "innbucks_password": password,
        "innbucks_api_key": api_key,
        "display_name": "Demo Hardware",
    }


def _order(**more: str) -> dict[str, Any]:
    """A link on which the customer chooses the way to pay."""
    return {
        "gateway": None,
        "amount_cents": 1250,
        "currency": "USD",
        "reference": f"INV-{secrets.randbelow(9000) + 1000}",
        "contact_id": str(uuid4()),
        "description": "Two bags of cement",
        "contact_phone": PHONE,
        **more,
    }


def _show(settings: Settings, known: dict[str, str], ports: dict[str, int], payment: dict[str, Any]) -> None:
    say("")
    say(f"  Pay link      {payment['page_url']}")
    say(f"  WhatsApp      {chat_url(ports)}")
    say(f"  Phone         http://{HOST}:{ports['sandbox']}/phone")
    say(f"  Simulators    http://{HOST}:{ports['sandbox']}, …/sandbox/stripe, …/ecocash, …/innbucks and …/whatsapp")
    say(f"  API and docs  http://{settings.internal_bind}/docs")
    say(f"  Try           curl -H 'Authorization: Bearer {known['token']}' \\")
    say(f"                  http://{settings.internal_bind}/v1/clients/{known['client_id']}/payments/{payment['id']}")
    say("")
    say("  The link has gone to the customer by WhatsApp: tap it there, or open the pay link.")
    say(f"  Choose EcoCash with any number such as {PHONE}, and type the PIN 1234 at the phone.")
    say(f"  Or choose InnBucks, and type the code at http://{HOST}:{ports['sandbox']}/phone/innbucks.")
    say("  Or choose Card or Paynow, and pay at the simulator. Ctrl-C ends the demo.")
    say("")
    if config.given("EVENTS_URL") == settings.events_url:
        say(f"  Events go to {settings.events_url}. What that backend needs, in its terminal:")
        say(f"  export PAYMENTS_URL=http://{settings.internal_bind} PAYMENTS_TOKEN={known['token']} \\")
        say(f"         EVENTS_SECRET={known['events_secret']} TENANT={known['client_id']}")
    else:
        say("  Events arrive here:")
    say("")


async def _arrived(backend: Backend, steps: Steps, payment: dict[str, Any]) -> None:
    async with asyncio.timeout(AUTO_SECONDS):
        await backend.delivered[payment["id"]].wait()
    steps.done("the customer's phone has the link: message.delivered, signature verified")


async def _told(backend: Backend, steps: Steps, payment: dict[str, Any], paying: Coroutine[Any, Any, str]) -> float:
    """Pay, and wait until the backend knows; how many seconds both took."""
    begun = time.perf_counter()
    steps.done(await paying)
    async with asyncio.timeout(AUTO_SECONDS):
        await backend.paid[payment["id"]].wait()
    steps.done("the backend was told: payment.paid, signature verified")
    return time.perf_counter() - begun


async def _until_ready(http: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(AUTO_SECONDS):
        while True:
            with suppress(aiohttp.ClientError):
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)


class Backend:
    """The stand-in for the main backend: verifies each event after Standard Webhooks, and prints it."""

    def __init__(self, secret: str) -> None:
        try:
            from standardwebhooks import Webhook
        except ModuleNotFoundError:
            raise PaymentsError("The demo needs its extra: pip install 'conva-payments[demo]'.") from None
        self._verifier = Webhook(secret)
        # By the payment's id.
        self.paid: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.refunded: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.delivered: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.app = Starlette(routes=[Route("/events", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> Response:
        try:
            event = self._verifier.verify(await request.body(), dict(request.headers))
        except Exception:
            say("  event with a wrong signature: refused")
            return Response(status_code=401)
        data = event["data"]
        amount = Money(data["amount_cents"], Currency(data["currency"])).shown()
        # A message is no step of its payment: it has no number of its own.
        news = f"by {data['message']['channel']}" if "message" in data else f"{data['status']}  #{data['sequence']}"
        say(f"  event         {event['type']}  {data['reference']}  {amount}  {news}")
        marks = {
            "payment.paid": self.paid,
            "payment.partially_refunded": self.refunded,
            "message.delivered": self.delivered,
        }
        if event["type"] in marks:
            marks[event["type"]][data["id"]].set()
        return Response(status_code=204)
