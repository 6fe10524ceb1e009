"""What the measurements stand on: a durable embedded PostgreSQL, fresh databases, the service and its neighbours.

The service connects as an ordinary role that owns the database and, as in production, is held by row-level security
itself: a superuser would pass it by and look faster.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import subprocess
import tempfile
import urllib.request
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import psycopg
import uvloop

from benchmarks.processes import HOST, child, free_port, wait_until_ready
from payments_service import config, embedded, migrations
from payments_service.config import Settings
from payments_service.sandbox.paynow import DEMO_INTEGRATIONS
from payments_service.sandbox.stripe import DEMO_ACCOUNTS

T = TypeVar("T")

TENANT = UUID("c0000000-0000-4000-8000-000000000001")
TOKEN = "bench-token-hW3vQ9pLr7TzX2mN8bYc4HsD6fGj"
SECRET = "Zm7zR4xW9kTn2vLp8sYd5hFc3jGb6aEu"
EVENTS_SECRET = "whsec_" + base64.b64encode(b"benchmarks only, worth nothing..").decode()
PAYNOW_ID, PAYNOW_KEY, _ = DEMO_INTEGRATIONS[0]
STRIPE_KEY = DEMO_ACCOUNTS[0][0]
STRIPE_SECRET = "whsec_benchmarks-only-worth-nothing"
_ROLE, _PASSWORD = "bench", "bench"
_TEMPLATE = "template_bench"


@dataclass
class Stage:
    folder: Path
    server: str  # the superuser's URL
    postmaster: int
    quick: bool
    # Of the part `volume`: where its databases stay, and how many payments the big one has.
    keep: Path | None = None
    payments: int | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, quick: bool, keep: Path | None = None, payments: int | None = None) -> Iterator[Stage]:
        """Start PostgreSQL with its durable defaults in a folder of its own, which goes with it."""
        with tempfile.TemporaryDirectory(prefix="conva-bench-") as name, cls._at(Path(name), quick=quick) as stage:
            stage.keep, stage.payments = keep, payments
            yield stage

    @contextlib.contextmanager
    def beside(self, folder: Path) -> Iterator[Stage]:
        """A stage in another folder, which stays, with what is there from before."""
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._at(folder, quick=self.quick) as stage:
            yield stage

    @classmethod
    @contextlib.contextmanager
    def _at(cls, folder: Path, *, quick: bool) -> Iterator[Stage]:
        with embedded.start(folder / "pg") as server:
            pid = int((folder / "pg" / "data" / "postmaster.pid").read_text().split("\n")[0])
            stage = cls(folder, server.url, pid, quick)
            stage._prepare()
            yield stage

    def seconds(self, whole: float) -> float:
        """How long a measurement runs."""
        return whole * 0.2 if self.quick else whole

    def amount(self, whole: int) -> int:
        """How many of something a measurement takes."""
        return whole // 4 if self.quick else whole

    def _prepare(self) -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (_ROLE,)).fetchall():
                connection.execute(f"CREATE ROLE {_ROLE} LOGIN PASSWORD '{_PASSWORD}' CREATEROLE CREATEDB")
        if not self.has(_TEMPLATE):
            self._create(_TEMPLATE)
        migrations.migrate(self.url(_TEMPLATE))

    def has(self, name: str) -> bool:
        """Whether there is a database of this name."""
        with psycopg.connect(self.server) as connection:
            return bool(connection.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchall())

    def rename(self, name: str, other: str) -> None:
        """Give a database another name."""
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} RENAME TO {other}")

    def configure(self, **settings: str) -> None:
        """Settings of the server from its next start on, instead of those that were given here before."""
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM RESET ALL")
            for name, value in settings.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")

    def _create(self, name: str, template: str = "template0") -> None:
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name}")
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {_ROLE}")
            connection.execute("CHECKPOINT")

    def url(self, name: str) -> str:
        """The URL of a database, as the ordinary role."""
        parts = urlsplit(self.server)
        return parts._replace(netloc=f"{_ROLE}:{_PASSWORD}@", path=f"/{name}").geturl()

    def database(self, name: str | None = None) -> str:
        """The URL of a fresh, migrated database."""
        name = name or f"bench_{next(self._numbers)}"
        self._create(name, _TEMPLATE)
        return self.url(name)

    def settle(self, url: str) -> None:
        """After rows were seeded: what PostgreSQL would do for them later, it does now."""
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def version(self) -> str:
        with psycopg.connect(self.server) as connection:
            return str(connection.info.parameter_status("server_version"))

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}-{next(self._numbers)}.log"

    @contextlib.contextmanager
    def neighbour(self, kind: str) -> Iterator[Neighbour]:
        """One of `benchmarks.servers`."""
        port, log = free_port(), self._log(kind)
        with child("benchmarks.servers", kind, port, log=log) as process:
            wait_until_ready(process, port, "/ready", log)
            yield Neighbour(process, port)

    @contextlib.contextmanager
    def simulator(self) -> Iterator[Neighbour]:
        """Paynow's simulator, in a process of its own."""
        port, log = free_port(), self._log("simulator")
        with child("payments_service", "sandbox", "--port", port, log=log) as process:
            wait_until_ready(process, port, "/sandbox/calls", log)
            yield Neighbour(process, port)

    @contextlib.contextmanager
    def service(
        self, database: str, *, only: str | None = None, paynow: int = 9, backend: int | None = None
    ) -> Iterator[Service]:
        """The service as it is run in production: `python -m payments_service serve`, its log written to a file."""
        internal, public, log = free_port(), free_port(), self._log("service")
        env = {**os.environ, **environment(database, internal, public, paynow, backend)}
        words = ["serve", *(["--only", only] if only else [])]
        with child("payments_service", *words, env=env, log=log) as process:
            wait_until_ready(process, public if only == "public" else internal, "/readyz", log)
            yield Service(process, internal, public)


def environment(
    database: str, internal: int = 8080, public: int = 8081, paynow: int = 9, backend: int | None = None
) -> dict[str, str]:
    """The service's variables. Look-ups come from callbacks alone: the schedule's own would blur the figures."""
    return {
        "DATABASE_URL": database,
        "ENCRYPTION_SECRET": SECRET,
        "SERVICE_TOKENS": f"bench:{TOKEN}",
        "EVENTS_SECRET": EVENTS_SECRET,
        "INTERNAL_BIND": f"{HOST}:{internal}",
        "PUBLIC_BIND": f"{HOST}:{public}",
        "PUBLIC_URL": f"http://{HOST}:{public}",
        "PAYNOW_URL": f"http://{HOST}:{paynow}",
        "CHECK_SCHEDULE": "86400",
        "CREATE_LINK_RATE": "1000/second",
        "LOG_LEVEL": "info",
        "LOG_FORMAT": "json",
        **({"EVENTS_URL": f"http://{HOST}:{backend}/events"} if backend else {}),
    }


def settings(database: str) -> Settings:
    """The same, for what is measured inside this process."""
    return config.load(environment(database))


def run(work: Coroutine[Any, Any, T]) -> T:
    """On the service's own kind of loop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


@dataclass(frozen=True, slots=True)
class Neighbour:
    process: subprocess.Popen[bytes]
    port: int

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return _send("POST", self.port, path, body)


@dataclass(frozen=True, slots=True)
class Service:
    process: subprocess.Popen[bytes]
    internal: int
    public: int

    def save_paynow(self, **more: str) -> None:
        """Store the tenant's credentials and other settings, as the backend does."""
        fields = {"paynow_integration_id": PAYNOW_ID, "paynow_integration_key": PAYNOW_KEY, **more}
        _send("PATCH", self.internal, f"/v1/clients/{TENANT}/payment-settings", fields)


def _send(method: str, port: int, path: str, body: dict[str, Any]) -> Any:
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    data = json.dumps(body).encode()
    request = urllib.request.Request(f"http://{HOST}:{port}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)
