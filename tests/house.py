"""The service put together for a test: its parts, its clock, its callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import psycopg
from psycopg.rows import dict_row
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service import config, delivery, reconcile, workers
from payments_service.app import Parts, internal_app, public_app
from payments_service.config import Settings
from payments_service.context import Context
from payments_service.delivery import Courier
from payments_service.gateways import stripe_events
from payments_service.sandbox.ecocash import DEMO_MERCHANTS as ECOCASH_MERCHANTS
from payments_service.sandbox.ecocash import EcocashSandbox
from payments_service.sandbox.innbucks import DEMO_MERCHANTS as INNBUCKS_MERCHANTS
from payments_service.sandbox.innbucks import InnbucksSandbox
from payments_service.sandbox.paynow import PaynowSandbox
from payments_service.sandbox.run import Simulators
from payments_service.sandbox.stripe import DEMO_ACCOUNTS, StripeSandbox
from payments_service.sandbox.whatsapp import WhatsappSandbox
from tests.servers import serve

TOKEN = "test-token-kX3vQ9pLr7TzW2mN8bYc4HsD6fGj"
EVENTS_SECRET = "whsec_dGVzdHMtb25seS1zZWNyZXQtMDEyMzQ1Njc4OWFi"
ENCRYPTION_SECRET = "Qm7zR4xW9kTn2vLp8sYd5hFc3jGb6aEu"
PAYNOW_ID = "1201"
STRIPE_KEY = DEMO_ACCOUNTS[0][0]


def settings_for(**changes: str) -> Settings:
    """Settings for a test; names in either case, the last one counts; values as they would stand in the environment."""
    environ = {
        "ENCRYPTION_SECRET": ENCRYPTION_SECRET,
        "SERVICE_TOKENS": f"backend:{TOKEN}",
        "EVENTS_SECRET": EVENTS_SECRET,
        "CREATE_LINK_RATE": "1000/second",
        **{name.upper(): value for name, value in changes.items()},
    }
    return config.load(environ)


@dataclass
class Clock:
    """The present moment, moved forward as a test needs it."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def forward(self, **by: float) -> None:
        self.ahead += timedelta(**by)


@dataclass
class Backend:
    """Receives events, verifies each with an implementation that is not ours, and answers as it is told."""

    url: str = ""
    received: list[dict[str, Any]] = field(default_factory=list)
    bodies: dict[str, set[bytes]] = field(default_factory=dict)
    answers: list[Response] = field(default_factory=list)
    refused: int = 0
    secret: str = EVENTS_SECRET
    clock: Clock = field(default_factory=Clock)

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/events", self._receive, methods=["POST"])])

    async def _receive(self, request: Request) -> Response:
        body = await request.body()
        if not self._is_genuine(request, body):
            self.refused += 1
            return Response(status_code=401)
        event_id = request.headers["webhook-id"]
        self.bodies.setdefault(event_id, set()).add(body)
        self.received.append({"id": event_id, **msgspec.json.decode(body)})
        return self.answers.pop(0) if self.answers else Response(status_code=204)

    def _is_genuine(self, request: Request, body: bytes) -> bool:
        """As Standard Webhooks' own verifier does it, by the test's clock instead of the machine's."""
        at = datetime.fromtimestamp(int(request.headers["webhook-timestamp"]), UTC)
        expected = Webhook(self.secret).sign(request.headers["webhook-id"], at, body.decode())
        fresh = abs(at - self.clock()) < timedelta(minutes=5)
        return fresh and expected in request.headers["webhook-signature"].split(" ")

    def of(self, payment_id: object, kind: str | None = None) -> list[dict[str, Any]]:
        """What was told of one payment, in the order it came."""
        return [
            event for event in self.received if event["data"]["id"] == str(payment_id) and kind in (None, event["type"])
        ]


@dataclass
class World:
    """The parts without listeners and workers: a test drives each step by hand."""

    context: Context
    courier: Courier
    settings: Settings
    sandbox: PaynowSandbox
    stripe: StripeSandbox
    ecocash: EcocashSandbox
    innbucks: InnbucksSandbox
    whatsapp: WhatsappSandbox
    backend: Backend
    database: str
    clock: Clock
    _behind: dict[str, psycopg.Connection[dict[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(cls, built: Parts, settings: Settings, simulators: Simulators, backend: Backend, database: str) -> World:
        clock = backend.clock
        assert built.courier is not None
        context = replace(built.context, clock=clock)
        ours = (simulators.paynow, simulators.stripe, simulators.ecocash, simulators.innbucks, simulators.whatsapp)
        return cls(context, built.courier, settings, *ours, backend, database, clock)

    @property
    def behind(self) -> psycopg.Connection[dict[str, Any]]:
        """A connection past the service, kept: a new one for each look would cost more than the look."""
        known = self._behind.get(self.database)
        if known is None or known.closed:
            known = self._behind[self.database] = psycopg.connect(self.database, autocommit=True, row_factory=dict_row)
        return known

    def close(self) -> None:
        for connection in self._behind.values():
            connection.close()

    def rows(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """What really stands in the database, read past the service."""
        return self.behind.execute(sql, values).fetchall()

    def rows_do(self, sql: str, *values: object) -> None:
        """Change the database past the service, as a test's stage needs it."""
        self.behind.execute(sql, values)

    def one(self, sql: str, *values: object) -> dict[str, Any]:
        (row,) = self.rows(sql, *values)
        return row

    async def look_up(self, *gateways: str) -> None:
        """Ask these gateways, by default all, about everything that is due.

        What a callback that comes at this moment holds locked is passed over by a worker, who comes again at once: so
        do we.
        """
        for gateway in gateways or self.context.gateways:
            async with asyncio.timeout(120):
                while await reconcile.run_once(self.context, gateway) or self._is_due(gateway):
                    pass

    def _is_due(self, gateway: str) -> bool:
        due = "SELECT FROM attempts WHERE gateway = %s AND next_check_at <= %s LIMIT 1"
        return bool(self.rows(due, gateway, self.clock()))

    async def deliver(self) -> None:
        """Give the backend all events that are due."""
        while await delivery.run_once(self.context, self.courier):
            pass


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class House:
    """The running service, as its callers see it."""

    world: World
    http: aiohttp.ClientSession
    internal: str
    public: str
    client_id: UUID = field(default_factory=uuid4)

    @classmethod
    @asynccontextmanager
    async def open(cls, world: World, *, work: bool = True) -> AsyncIterator[House]:
        stop = asyncio.Event()
        holder: dict[str, Any] = {}

        async def public(scope: Any, receive: Any, send: Any) -> None:
            await holder["app"](scope, receive, send)

        async with serve(public, lifespan="off") as public_url:
            # The callbacks' URL is only known once the listener listens.
            world.context = replace(world.context, public_url=public_url)
            holder["app"] = public_app(world.context)
            async with (
                serve(internal_app(world.context, world.settings), lifespan="off") as internal_url,
                aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http,
            ):
                job = asyncio.create_task(workers.run(world.context, world.courier, stop) if work else stop.wait())
                try:
                    yield cls(world, http, internal_url, public_url)
                finally:
                    stop.set()
                    await job

    async def call(
        self, method: str, path: str, body: object = None, *, token: str | None = TOKEN, **more: Any
    ) -> Answer:
        """A call of the internal API."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        data = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        async with self.http.request(method, self.internal + path, data=data, headers=headers, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def get_public(self, path: str, *, method: str = "GET", data: Any = None, **more: Any) -> Answer:
        """A call of the public listener, without following redirects."""
        async with self.http.request(method, self.public + path, data=data, allow_redirects=False, **more) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    def path(self, rest: str = "", client_id: UUID | None = None) -> str:
        return f"/v1/clients/{client_id or self.client_id}{rest}"

    async def save_paynow(self, client_id: UUID | None = None, integration: str = PAYNOW_ID) -> Answer:
        """Save the simulator's credentials for the tenant."""
        key = self.world.sandbox.integrations[integration].key
        return await self._save(client_id, {"paynow_integration_id": integration, "paynow_integration_key": key}, {})

    async def save_stripe(
        self, client_id: UUID | None = None, key: str = STRIPE_KEY, *, webhook: bool = True, **more: str
    ) -> str:
        """Save an account of the simulator's for the tenant, with a webhook endpoint in it; the endpoint's secret."""
        client_id = client_id or self.client_id
        fields = {"stripe_secret_key": key}
        secret = ""
        if webhook:
            stripe = self.world.stripe
            url = f"{self.public}/callbacks/stripe/{client_id}"
            secret = stripe.add_endpoint(stripe.accounts[key], url, stripe_events.TYPES).secret
            fields["stripe_webhook_secret"] = secret
        await self._save(client_id, fields, more)
        return secret

    async def save_ecocash(self, client_id: UUID | None = None, dialect: str = "open_api", **more: object) -> Answer:
        """Save the credentials of the simulator's merchant of this dialect for the tenant."""
        merchant = ECOCASH_MERCHANTS[dialect]
        fields = {
            "ecocash_dialect": dialect,
            "ecocash_merchant_code": merchant.code,
            "ecocash_merchant_number": merchant.number,
        }
        if dialect == "open_api":
            fields |= {"ecocash_api_key": merchant.api_key}
        else:
            fields |= {
                "ecocash_username": merchant.username,
                "ecocash_password": merchant.password,
                "ecocash_merchant_pin": merchant.pin,
            }
        return await self._save(client_id, fields, more)

    async def save_innbucks(self, client_id: UUID | None = None, **more: object) -> Answer:
        """Save the credentials of the simulator's first merchant for the tenant."""
        username, password, api_key, *_ = INNBUCKS_MERCHANTS[0]
        fields = {"innbucks_username": username, "innbucks_password": password, "innbucks_api_key": api_key}
        return await self._save(client_id, fields, more)

    async def _save(self, client_id: UUID | None, fields: Mapping[str, object], more: Mapping[str, object]) -> Answer:
        named = {"display_name": "Acme Hardware", **fields, **more}
        answer = await self.call("PATCH", self.path("/payment-settings", client_id), named)
        assert answer.status == 200, answer.body
        return answer

    def order(self, **changes: object) -> dict[str, Any]:
        return {
            "gateway": "paynow",
            "amount_cents": 1250,
            "currency": "USD",
            "reference": "INV-1001",
            "contact_id": str(uuid4()),
            "description": "Two bags of cement",
            **changes,
        }

    async def create_link(self, client_id: UUID | None = None, **changes: object) -> Any:
        """A payment with its link, as the internal API answers it."""
        answer = await self.call("POST", self.path("/payments/create-link", client_id), self.order(**changes))
        assert answer.status == 201, answer.body
        return answer.json

    async def payment(self, payment: Any) -> Any:
        """The payment as the internal API shows it now."""
        answer = await self.call("GET", f"/v1/clients/{payment['client_id']}/payments/{payment['id']}")
        assert answer.status == 200, answer.body
        return answer.json

    def reference_of(self, payment: Any) -> str:
        """The newest attempt's reference: how the gateway knows the payment."""
        rows = self.world.rows(
            "SELECT reference FROM attempts WHERE payment_id = %s ORDER BY started_at DESC LIMIT 1", payment["id"]
        )
        return str(rows[0]["reference"])


async def eventually(
    condition: Callable[[], Awaitable[object] | object], *, seconds: float = 20, every: float = 0.05
) -> Any:
    """Wait until the condition holds and give back what it gave; fail when it does not within a generous time."""
    end = time.monotonic() + seconds
    while True:
        outcome = condition()
        value = await outcome if isinstance(outcome, Awaitable) else outcome
        if value:
            return value
        assert time.monotonic() < end, "waited in vain"
        await asyncio.sleep(every)
