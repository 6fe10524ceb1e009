"""What the service needs goes away and comes back: the database, the backend, the service itself, one of two replicas.

Callers get clean answers meanwhile, and afterwards everything that happened is recorded and told, without a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from payments_service import delivery, embedded, migrations
from payments_service.db import Database
from payments_service.embedded import EmbeddedPostgres
from payments_service.errors import Unavailable
from payments_service.sandbox.paynow import PaynowSandbox
from payments_service.sandbox.paynow_ledger import seal
from tests.house import Answer, Backend, eventually
from tests.servers import serve
from tests.test_crash_points import Books
from tests.test_kill import (
    DOWNTIME,
    Caller,
    Plan,
    answers,
    complaints,
    quiet_ports,
    running,
    shift,
    the_rest_ends,
    undone,
)

# Nobody waits longer than this for any answer: five seconds for a connection, ten for a statement, two for a look-up.
PATIENCE = aiohttp.ClientTimeout(total=30)


@dataclass
class Cluster:
    """A PostgreSQL of the test's own, which it stops and starts. Its address stays."""

    folder: Path
    server: EmbeddedPostgres
    url: str

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Cluster]:
        # Not pytest's folder: with a path that is too long for a socket, the port would change with each start.
        with tempfile.TemporaryDirectory() as folder:
            server = await asyncio.to_thread(embedded.start, Path(folder) / "cluster", durable=False)
            cluster = cls(Path(folder) / "cluster", server, server.url)
            try:
                await asyncio.to_thread(migrations.migrate, server.url)
                yield cluster
            finally:
                await cluster.stop()

    async def stop(self) -> None:
        """A fast shutdown: every connection is cut."""
        await asyncio.to_thread(self.server.stop)

    async def start(self) -> None:
        self.server = await asyncio.to_thread(embedded.start, self.folder, durable=False)
        assert self.server.url == self.url


def check_books(database: str, sandbox: PaynowSandbox, backend: Backend) -> Books:
    books = Books.read(database)
    books.check()
    books.check_settled()
    books.check_against(sandbox.transactions)
    books.check_told(backend)
    return books


# --- the database

KINDS = ("create", "settings", "save", "show", "page", "status", "callback", "livez")
ALLOWED = {"create": (201, 503), "callback": (200,), "livez": (200,)}


@dataclass
class Load:
    """Callers of every kind, one call after another, until they are told to stop. `seen` has the answers of this
    `phase`: to calls that began in it."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    phase: int = 0
    seen: dict[str, list[Answer]] = field(default_factory=dict)

    def next_phase(self) -> None:
        self.phase += 1
        self.seen.clear()

    async def keep(self, kind: str, call: Callable[[], Awaitable[Answer | None]]) -> None:
        """Call until the stop; whatever happens, callbacks are thanked for and others served or put off."""
        while not self.stop.is_set():
            phase = self.phase
            answer = await call()
            assert answer, f"{kind}: no answer at all"
            assert answer.status in ALLOWED.get(kind, (200, 503)), (kind, answer)
            if phase == self.phase:
                self.seen.setdefault(kind, []).append(answer)
            await asyncio.sleep(0.05)

    def served(self, kind: str) -> int:
        """How many answers of this phase were a yes."""
        return sum(answer.status < 300 for answer in self.seen.get(kind, []))

    def put_off(self, kind: str) -> list[Answer]:
        return [answer for answer in self.seen.get(kind, []) if answer.status == 503]


async def test_a_database_that_comes_back_is_used_again_without_a_restart(
    sandbox: PaynowSandbox, backend: Backend, tmp_path: Path
) -> None:
    """Stopped under load: callbacks still get 200, callers 503 that say when to come back, the page its own 503; the
    process lives on and is not ready. Started again: it is ready, and what was paid meanwhile is recorded."""
    written = tmp_path / "service.log"
    async with Cluster.open() as cluster, aiohttp.ClientSession(timeout=PATIENCE) as http:
        plan = Plan.of(cluster.url, sandbox, backend)
        caller = Caller(plan, http, sandbox)
        async with running(plan, written):
            await caller.save_paynow()
            links = await asyncio.gather(*(caller.order(f"EARLY-{number}") for number in range(20)))
            load = Load()
            async with asyncio.TaskGroup() as group:
                for kind, call in calls_of_all_kinds(caller, links[0]).items():
                    group.create_task(load.keep(kind, call))
                await eventually(lambda: all(load.served(kind) for kind in KINDS))
                await cluster.stop()
                load.next_phase()
                await eventually(lambda: answers(f"{plan.internal}/readyz", 503), seconds=5)
                await eventually(lambda: answers(f"{plan.public}/readyz", 503), seconds=5)
                for link in links:
                    await caller.pay(link)
                away = [kind for kind in KINDS if 503 in ALLOWED.get(kind, (503,))]
                await eventually(lambda: all(len(load.put_off(kind)) > 1 for kind in away), seconds=60)
                await eventually(lambda: load.served("callback") > 1, seconds=60)
                for kind in away:
                    assert not load.served(kind)
                    for answer in load.put_off(kind):
                        check_refusal(kind, answer)
                await cluster.start()
                await eventually(lambda: answers(f"{plan.internal}/readyz"))
                await eventually(lambda: answers(f"{plan.public}/readyz"))
                load.next_phase()
                await eventually(lambda: all(load.served(kind) > 1 for kind in KINDS), seconds=60)
                load.stop.set()
            shift(cluster.url, DOWNTIME)
            await the_rest_ends(cluster.url, sandbox)
        books = check_books(cluster.url, sandbox, backend)
    early = {payment["status"] for payment in books.payments if payment["reference"].startswith("EARLY-")}
    assert early == {"paid"}
    assert not complaints(written)


def calls_of_all_kinds(caller: Caller, link: Any) -> dict[str, Callable[[], Awaitable[Answer | None]]]:
    """What the backend, customers, Paynow and the orchestrator do. `link` is a payment that is pending for now."""
    internal, public = caller.plan.internal, caller.plan.public
    transaction = caller.sandbox.find(link["reference"])
    message = seal(caller.sandbox.message(transaction), transaction.integration.key, [])

    async def livez() -> Answer | None:
        for url in (internal, public):
            answer = await caller.call("GET", f"{url}/livez")
            assert answer
            assert answer.status == 200
        return answer

    return {
        "create": lambda: caller.order_once("LOAD"),
        "settings": lambda: caller.call("GET", caller.path("/payment-settings")),
        "save": lambda: caller.call("PATCH", caller.path("/payment-settings"), {"display_name": "Acme"}),
        "show": lambda: caller.call("GET", caller.path(f"/payments/{link['id']}")),
        "page": lambda: caller.call("GET", link["page_url"]),
        "status": lambda: caller.call("GET", f"{link['page_url']}/status"),
        "callback": lambda: caller.post(f"{public}/callbacks/paynow/{caller.client_id}", message),
        "livez": livez,
    }


def check_refusal(kind: str, answer: Answer) -> None:
    """A 503 that a program or a person can act on, without internals."""
    assert int(answer.headers["Retry-After"]) > 0
    if kind == "page":
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"postgres" not in answer.body
        return
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] == "unavailable"
    assert "postgres" not in answer.json["detail"]


USES: dict[str, Callable[[Database, float], Awaitable[object]]] = {
    "run": lambda db, seconds: db.run("SELECT pg_sleep(%(seconds)s)", {"seconds": seconds}),
    "run for a tenant": lambda db, seconds: db.run("SELECT pg_sleep(%(s)s)", {"s": seconds}, tenant=uuid4()),
    "as_tenant": lambda db, seconds: _sleep(db.as_tenant(uuid4()), seconds),
    "as_worker": lambda db, seconds: _sleep(db.as_worker(), seconds),
}


async def _sleep(transaction: contextlib.AbstractAsyncContextManager[AsyncConnection], seconds: float) -> None:
    async with transaction as connection:
        await connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


SIZE = 4
OUTCOME = {"idle": Unavailable, "busy": Unavailable, "given up": asyncio.CancelledError}


@pytest.mark.parametrize("cut", OUTCOME)
@pytest.mark.parametrize("use", USES)
async def test_every_connection_that_is_cut_is_replaced(database: str, use: str, cut: str) -> None:
    """However it was used, and whether the server cut it or the caller gave up waiting: the pool gets its place back,
    or a process that lost its database often enough would have none left."""
    db = Database(database, size=SIZE)
    await db.open()
    try:
        await eventually(lambda: all_at_once(db, USES[use], database))
        calls = [asyncio.create_task(USES[use](db, 0 if cut == "idle" else 30)) for _ in range(SIZE)]
        if cut == "idle":
            cut_connections(database)  # the calls have not begun yet
        else:
            await eventually(lambda: busy_connections(database) == SIZE)
        if cut == "busy":
            await asyncio.to_thread(cut_connections, database)
        if cut == "given up":
            for call in calls:
                call.cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(one) for one in outcomes if isinstance(one, BaseException)} == {OUTCOME[cut]}
        await eventually(lambda: all_at_once(db, USES[use], database))
    finally:
        await db.close()


async def all_at_once(db: Database, use: Callable[[Database, float], Awaitable[object]], database: str) -> bool:
    """Whether as many as the pool has connections can use the database at the same time."""
    calls = [asyncio.create_task(use(db, 0.5)) for _ in range(SIZE)]
    try:
        await eventually(lambda: busy_connections(database) == SIZE or all(call.done() for call in calls), every=0.01)
        together = not any(call.done() for call in calls)
    finally:
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    return together and not any(isinstance(outcome, Exception) for outcome in outcomes)


_OURS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'conva-payments'"


def cut_connections(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {_OURS}")  # waits until they are gone


def busy_connections(database: str) -> int:
    return undone(database, f"SELECT count(*) {_OURS} AND state = 'active'")


@dataclass
class Line:
    """The way to a PostgreSQL by TCP, which can fall silent: connections stand, and no byte passes."""

    host: str
    port: int
    url: str = ""
    speaks: asyncio.Event = field(default_factory=asyncio.Event)
    calls: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, database: str) -> AsyncIterator[Line]:
        known = conninfo_to_dict(database)
        line = cls(str(known["host"]), int(known.get("port") or 5432))
        line.speaks.set()
        server = await asyncio.start_server(line.connected, "127.0.0.1", 0)
        user, _, _ = urlsplit(database).netloc.rpartition("@")
        here = f"{user}@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        line.url = urlsplit(database)._replace(netloc=here, query="").geturl()
        try:
            yield line
        finally:
            server.close()
            for call in line.calls:
                call.cancel()
            await asyncio.gather(*line.calls, return_exceptions=True)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call
        self.calls.add(call)
        if self.host.startswith("/"):
            far_reader, far_writer = await asyncio.open_unix_connection(f"{self.host}/.s.PGSQL.{self.port}")
        else:
            far_reader, far_writer = await asyncio.open_connection(self.host, self.port)
        try:
            await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        finally:
            writer.close()
            far_writer.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                await self.speaks.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


async def test_a_database_that_falls_silent_holds_nobody_for_long(
    database: str, sandbox: PaynowSandbox, backend: Backend, tmp_path: Path
) -> None:
    """Its host is gone without a word: whoever asks is told so after a while, the process is not ready, and goes on
    when the database speaks again."""
    written = tmp_path / "service.log"
    async with Line.open(database) as line, aiohttp.ClientSession(timeout=PATIENCE) as http:
        plan = Plan.of(line.url, sandbox, backend)
        caller = Caller(plan, http, sandbox)
        db = Database(line.url, size=SIZE, statement_seconds=1, transaction_seconds=1)
        await db.open()
        try:
            async with running(plan, written):
                await caller.save_paynow()
                link = await caller.order("SILENT")
                untold = "SELECT count(*) FROM events WHERE state <> 'delivered'"
                await eventually(lambda: undone(database, untold) == 0)
                assert await asyncio.gather(*(use(db, 0.1) for use in USES.values()))
                line.speaks.clear()
                calls = [asyncio.create_task(use(db, 0)) for use in USES.values()]
                await eventually(lambda: answers(f"{plan.internal}/readyz", 503), seconds=5)
                await eventually(lambda: answers(f"{plan.public}/readyz", 503), seconds=5)
                assert await answers(f"{plan.internal}/livez")
                done, waiting = await asyncio.wait(calls, timeout=PATIENCE.total)
                assert not waiting
                assert {type(call.exception()) for call in done} == {Unavailable}
                line.speaks.set()
                await eventually(lambda: answers(f"{plan.internal}/readyz"))
                await eventually(lambda: answers(f"{plan.public}/readyz"))
                await caller.pay(link)
                shift(database, DOWNTIME)
                await eventually(lambda: undone(database) == 0, seconds=60)
        finally:
            await db.close()
    check_books(database, sandbox, backend)
    assert not complaints(written)


# --- the service


async def test_sigterm_answers_what_was_begun(
    database: str, sandbox: PaynowSandbox, backend: Backend, tmp_path: Path
) -> None:
    """Calls under way get their answers, a delivery under way is recorded, the exit code is 0, and the next process
    tells what this one did not."""
    written = tmp_path / "service.log"
    plan = Plan.of(database, sandbox, backend)
    gate = asyncio.Event()
    async with aiohttp.ClientSession(timeout=PATIENCE) as http:
        caller = Caller(plan, http, sandbox)
        async with running(plan, written) as process:
            await caller.save_paynow()
            backend.answers = [Held(gate)]
            early = await caller.order("EARLY", None)
            await eventually(lambda: backend.of(early["id"]))
            sandbox.delay_seconds = 1.0
            begun = [asyncio.create_task(caller.order_once(f"BEGUN-{number}")) for number in range(10)]
            pressed = asyncio.create_task(caller.call("POST", early["page_url"]))
            await eventually(lambda: sandbox.calls["initiate"] == 11)
            process.terminate()
            made = await asyncio.gather(*begun)
            assert [answer.status for answer in made if answer] == [201] * 10
            gate.set()
            page = await pressed
            assert page
            assert page.headers["Location"].startswith(sandbox.public_url)
            assert await asyncio.wait_for(process.wait(), 30) == 0
        assert not await answers(f"{plan.internal}/livez")
        sandbox.delay_seconds = 0
        for link in (*(answer.json for answer in made if answer), {**early, "payment_url": page.headers["Location"]}):
            await caller.pay(link)
        async with running(plan, written):
            await eventually(lambda: undone(database) == 0, seconds=60, every=0.2)
    books = check_books(database, sandbox, backend)
    assert [payment["status"] for payment in books.payments] == ["paid"] * 11
    # The delivery that was under way was waited for and recorded: nothing was sent twice.
    assert len(backend.received) == len(books.events) == 22
    assert not complaints(written)


class Held(Response):
    """Answers when the gate opens."""

    def __init__(self, gate: asyncio.Event) -> None:
        super().__init__(status_code=204)
        self._gate = gate

    async def __call__(self, *arguments: Any) -> None:
        await self._gate.wait()
        await super().__call__(*arguments)


async def test_two_replicas_share_the_work(
    database: str, sandbox: PaynowSandbox, backend: Backend, tmp_path: Path
) -> None:
    """100 payments through two complete processes, each called back twice: one transition and one delivery each."""
    plans = [Plan.of(database, sandbox, backend) for _ in range(2)]
    written = [tmp_path / f"service-{number}.log" for number in range(2)]
    sandbox.add_fault("twice")
    slots = asyncio.Semaphore(16)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=PATIENCE))
        for plan, file in zip(plans, written, strict=True):
            await stack.enter_async_context(running(plan, file))
        callers = [Caller(plan, http, sandbox) for plan in plans]
        callers[1].client_id = callers[0].client_id
        await callers[0].save_paynow()

        async def bought(number: int) -> None:
            async with slots:
                caller = callers[number % 2]
                await caller.pay(await caller.order(f"INV-{number}", None if number % 5 == 0 else "paynow"))

        await asyncio.gather(*(bought(number) for number in range(100)))
        await sandbox.settled()
        await eventually(lambda: undone(database) == 0, seconds=60, every=0.2)
    books = check_books(database, sandbox, backend)
    assert [payment["status"] for payment in books.payments] == ["paid"] * 100
    assert len(backend.received) == len(books.events) == 200
    for file in written:
        assert '"event_tried"' in file.read_text()
        assert not complaints(file)


# --- the backend


async def test_a_backend_that_was_away_gets_every_event(database: str, sandbox: PaynowSandbox, tmp_path: Path) -> None:
    """Down, then failing, then one answer that hangs: payments go on, the other events are not held up, and in the
    end all have arrived."""
    written = tmp_path / "service.log"
    backend = Backend()
    (port,) = quiet_ports(1)
    backend.url = f"http://127.0.0.1:{port}/events"
    plan = Plan.of(database, sandbox, backend)
    gate = asyncio.Event()
    untried = "SELECT count(*) FROM events WHERE tries = 0"
    async with aiohttp.ClientSession(timeout=PATIENCE) as http, running(plan, written):
        caller = Caller(plan, http, sandbox)
        await caller.save_paynow()
        for number in range(10):
            await caller.pay(await caller.order(f"DOWN-{number}"))
        paid = "SELECT 10 - count(*) FROM payments WHERE status = 'paid'"
        await eventually(lambda: undone(database, paid) == 0)
        await eventually(lambda: undone(database, untried) == 0)
        assert backend.received == []
        backend.answers = [Response("out of order", 500) for _ in range(20)]
        async with serve(backend.app, port=port):
            await eventually(lambda: not backend.answers)
            backend.answers = [Held(gate)]
            await eventually(lambda: not backend.answers)
            for number in range(10):
                await caller.pay(await caller.order(f"HELD-{number}"))
            held = "SELECT count(*) - 1 FROM events WHERE state <> 'delivered'"
            # Sooner than the try that hangs is given up: nobody waits for it.
            await eventually(lambda: undone(database, held) <= 0, seconds=delivery.TRY_SECONDS - 3)
            gate.set()
            await eventually(lambda: undone(database) == 0)
    books = check_books(database, sandbox, backend)
    assert [payment["status"] for payment in books.payments] == ["paid"] * 20
    assert not complaints(written)
