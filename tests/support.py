"""What several test files share: a service for a whole file, planted rows, dumps of the database, the written log."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID, uuid4

import msgspec
import psycopg
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from psycopg.rows import dict_row

from payments_service.app import parts
from payments_service.sandbox.run import Simulators
from payments_service.tables import TENANT_TABLES
from tests import databases
from tests.conftest import create_database, drop_database, in_database
from tests.house import Backend, House, World, settings_for
from tests.servers import serve

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@asynccontextmanager
async def open_house(
    postgres: str, *, work: bool = False, database: str | None = None, **settings: str
) -> AsyncIterator[House]:
    """The whole service over HTTP, without workers, for as long as the block runs: for all tests of a file.

    `database` is the URL of one that is migrated already; else one is made and dropped again.
    """
    name = f"house_{uuid4().hex}"
    if database is None:
        create_database(postgres, name, "template_payments")
    receiver = Backend()
    try:
        async with (
            Simulators() as simulators,
            serve(simulators.app) as simulator_url,
            serve(receiver.app) as backend_url,
        ):
            simulators.public_url, receiver.url = simulator_url, f"{backend_url}/events"
            ours = {**simulators.settings(), "events_url": receiver.url}
            chosen = settings_for(**{**ours, **settings})
            url = database or in_database(postgres, name)
            async with parts(chosen, url) as built:
                world = World.of(built, chosen, simulators, receiver, url)
                async with House.open(world, work=work) as house:
                    with nullcontext() if database else databases.shared(url):
                        yield house
                world.close()
    finally:
        if database is None:
            drop_database(postgres, name)


def afresh(house: House) -> House:
    """The same service for a tenant that it has never seen, without any fault planned."""
    sandbox = house.world.sandbox
    sandbox.clear_faults()
    sandbox.calls.clear()
    sandbox.prompts.clear()
    sandbox.delay_seconds = 0.0
    stripe = house.world.stripe
    stripe.clear_faults()
    stripe.calls.clear()
    stripe.requests.clear()
    stripe.delay_seconds = 0.0
    stripe.drop_webhooks = False
    ecocash = house.world.ecocash
    ecocash.clear_faults()
    ecocash.calls.clear()
    ecocash.requests.clear()
    ecocash.prompts.clear()
    ecocash.delay_seconds = 0.0
    innbucks = house.world.innbucks
    innbucks.clear_faults()
    innbucks.calls.clear()
    innbucks.delay_seconds = 0.0
    whatsapp = house.world.whatsapp
    whatsapp.clear_faults()
    whatsapp.calls.clear()
    whatsapp.messages.clear()
    whatsapp.delay_seconds = 0.0
    house.world.clock.ahead *= 0
    return replace(house, client_id=uuid4())


async def gather_limited(jobs: Iterable[Any], at_once: int = 16) -> list[Any]:
    """The results of all, so many at once."""
    slots = asyncio.Semaphore(at_once)

    async def one(job: Any) -> Any:
        async with slots:
            return await job

    return await asyncio.gather(*(one(job) for job in jobs))


# --- the database, read and changed past the service


def as_user(url: str, user: str, password: str) -> str:
    """The same database, another login role."""
    split = urlsplit(url)
    host = split.netloc.rpartition("@")[2]
    return split._replace(netloc=f"{quote(user)}:{quote(password)}@{host}").geturl()


def dump(url: str) -> dict[str, list[str]]:
    """Every row of every table as text."""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        return {
            name: sorted(str(row) for (row,) in connection.execute(f'SELECT t::text FROM "{name}" t'))
            for (name,) in names
        }


def plant(connection: psycopg.Connection[Any], client_id: UUID) -> dict[str, Any]:
    """One row of the tenant in each of its tables; the ids of the payment, the attempt and the event."""
    ids = {"client": client_id, "payment": uuid4(), "attempt": uuid4(), "event": uuid4(), "message": uuid4()}
    statements = {
        "payment_settings": "(client_id, display_name) VALUES (%(client)s, 'x')",
        "retired_settings": "(client_id, gateway, stored) VALUES (%(client)s, 'paynow', '{}')",
        "payments": "(id, client_id, reference, amount_cents) VALUES (%(payment)s, %(client)s, 'R', 100)",
        "attempts": "(id, payment_id, client_id, gateway, method, reference, amount_cents, currency, state) "
        "VALUES (%(attempt)s, %(payment)s, %(client)s, 'paynow', 'web', 'R-1', 100, 'USD', 'live')",
        "refunds": "(payment_id, client_id, attempt_id, gateway, amount_cents, state) "
        "VALUES (%(payment)s, %(client)s, %(attempt)s, 'paynow', 10, 'succeeded')",
        "disputes": "(payment_id, client_id, attempt_id, gateway, gateway_reference, amount_cents, state) "
        "VALUES (%(payment)s, %(client)s, %(attempt)s, 'paynow', 'd-1', 10, 'open')",
        "sweeps": "(client_id, gateway) VALUES (%(client)s, 'stripe')",
        "transitions": "(payment_id, client_id, sequence, to_status, cause) "
        "VALUES (%(payment)s, %(client)s, 1, 'pending', 'link')",
        "reviews": "(payment_id, client_id, attempt_id, reason, evidence) "
        "VALUES (%(payment)s, %(client)s, %(attempt)s, 'amount_mismatch', '{}')",
        "callbacks": "(client_id, gateway, digest, said, fields) VALUES (%(client)s, 'paynow', 'd', 'Paid', '{}')",
        "messages": "(id, client_id, payment_id, recipient, state) "
        "VALUES (%(message)s, %(client)s, %(payment)s, '+263771234567', 'failed')",
        "stopped_senders": "(client_id, digest, code, detail) VALUES (%(client)s, 'd', 190, 'x')",
        "events": "(id, client_id, payment_id, type, sequence, body, next_try_at) "
        "VALUES (%(event)s, %(client)s, %(payment)s, 't', 1, '{}', now())",
        "event_tries": "(event_id, client_id, milliseconds) VALUES (%(event)s, %(client)s, 1)",
        "audit_logs": "(client_id, position, actor, action, detail, previous_hash, hash) "
        "VALUES (%(client)s, 1, 'a', 'b', '{}', 'p', 'h')",
        "idempotency_keys": "(client_id, caller, operation, key, digest, lease) "
        "VALUES (%(client)s, 'backend', 'POST /x', 'k', 'd', now())",
        "link_rates": "(client_id, moments) VALUES (%(client)s, '{now}')",
    }
    assert statements.keys() == set(TENANT_TABLES), "plant a row of the new table here too"
    for table in TENANT_TABLES:
        connection.execute(f"INSERT INTO {table} {statements[table]}", ids)
    return ids


def rows(connection: psycopg.Connection[Any], sql: str, *values: object) -> list[dict[str, Any]]:
    """What a query finds, by column."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(sql, values).fetchall()


def encrypt_as_before(plaintext: str, secret: str) -> str:
    """The `encrypt` of the backend that came before: base64(nonce + ciphertext + tag) under SHA-256(secret)."""
    nonce = os.urandom(12)
    sealed = AESGCM(hashlib.sha256(secret.encode()).digest()).encrypt(nonce, plaintext.encode(), None)
    return base64.b64encode(nonce + sealed).decode()


# --- the log


class Log:
    """What was written to the log since this was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._start = path.stat().st_size

    @property
    def text(self) -> str:
        with self._path.open("rb") as stream:
            stream.seek(self._start)
            return stream.read().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.text.splitlines()]

    def of(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """The lines of this event that have these fields."""
        return [line for line in self.lines if line["event"] == event and fields.items() <= line.items()]

    def alarms(self) -> list[dict[str, Any]]:
        """Warnings and worse."""
        return [line for line in self.lines if line["level"] not in ("debug", "info")]
