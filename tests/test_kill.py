"""kill -9 at any moment, again and again, while money is under way: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import aiohttp
import msgspec
import psycopg
import pytest

from payments_service.sandbox.paynow import PaynowSandbox
from payments_service.sandbox.paynow_ledger import Transaction
from tests.house import EVENTS_SECRET, PAYNOW_ID, TOKEN, Answer, Backend, eventually
from tests.scale import of
from tests.test_command_line import ROOT, environment
from tests.test_crash_points import MONEY, Books

# Longer than every lease and grace of the service.
DOWNTIME = "3 minutes"
KILLS_OF_ALL_IN_ONE = of(52, 10)
KILLS_OF_EACH_PART = of(16, 4)  # of three
# Two customers begin with each life.
PAYMENTS = 2 * (KILLS_OF_ALL_IN_ONE + 3 * KILLS_OF_EACH_PART)

# Four fifths of a start are Python's imports. The nursery does them once; each child is then a process of its own that
# runs the command's own `main`, and is killed and waited for by its parent, so that its number is never another's.
NURSERY = """
import os, signal, sys, traceback
from payments_service.__main__ import main

children = set()
sys.stdout.write("ready\\n")
sys.stdout.flush()
try:
    for line in sys.stdin:
        word, *arguments = line.split()
        if word == "start":
            number = os.fork()
            if not number:
                nothing = os.open(os.devnull, os.O_RDWR)
                os.dup2(nothing, 0)
                os.dup2(2, 1)
                try:
                    os._exit(main(arguments))
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(70)
            children.add(number)
            answer = number
        else:
            number = int(arguments[0])
            os.kill(number, signal.SIGKILL)
            answer = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
            children.discard(number)
        sys.stdout.write(f"{answer}\\n")
        sys.stdout.flush()
finally:
    for number in children:
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
"""


# --- processes


def quiet_ports(count: int) -> list[int]:
    """Ports below those that the system gives to outgoing connections: while the service is down nothing takes them."""
    ports: list[int] = []
    with contextlib.ExitStack() as taken:
        while len(ports) < count:
            probe = taken.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", random.SystemRandom().randrange(12_000, 32_000)))
                ports.append(probe.getsockname()[1])
    return ports


@dataclass
class Plan:
    """Where a service under test listens and what its environment is."""

    internal: str
    public: str
    settings: dict[str, str]

    @classmethod
    def of(cls, database: str, sandbox: PaynowSandbox, backend: Backend, **more: str) -> Plan:
        internal, public = (f"127.0.0.1:{port}" for port in quiet_ports(2))
        settings = {
            "DATABASE_URL": database,
            "INTERNAL_BIND": internal,
            "PUBLIC_BIND": public,
            "PUBLIC_URL": f"http://{public}",
            "PAYNOW_URL": sandbox.public_url,
            "EVENTS_URL": backend.url,
            "EVENTS_SECRET": EVENTS_SECRET,
            "EVENTS_SCHEDULE": "1,1,1,1,1,2,2,2,2,2,2,2,2,2,2,2,2",
            "CHECK_SCHEDULE": "1,1,2",
            "LOG_FORMAT": "json",
            **more,
        }
        return cls(f"http://{internal}", f"http://{public}", environment(**settings))


async def answers(url: str, status: int = 200) -> bool:
    """Whether the address answers with this status just now."""
    try:
        async with aiohttp.request("GET", url, timeout=aiohttp.ClientTimeout(total=10)) as answer:
            return answer.status == status
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


@contextlib.asynccontextmanager
async def running(plan: Plan, written: Path, *arguments: str) -> AsyncIterator[Process]:
    """The service as people start it, ready; what it writes goes to `written`. Killed if it still runs at the end."""
    with written.open("ab") as output:
        command = (sys.executable, "-m", "payments_service", "serve", *arguments)
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, env=plan.settings, stdout=output, stderr=output
        )
    try:
        await eventually(lambda: process.returncode is not None or answers(f"{plan.internal}/readyz"), seconds=60)
        assert process.returncode is None, f"it ended by itself: see {written}"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Nursery:
    """Starts services in a moment and kills them."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._turn = asyncio.Lock()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, plan: Plan, written: Path) -> AsyncIterator[Nursery]:
        with written.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", NURSERY, cwd=ROOT, env=plan.settings, stdin=PIPE, stdout=PIPE, stderr=output
            )
        assert process.stdin
        assert process.stdout
        try:
            assert await process.stdout.readline() == b"ready\n"
            yield cls(process)
        finally:
            process.stdin.close()  # it ends, and its children with it
            await process.wait()

    async def start(self, *arguments: str) -> int:
        """A new process of the service; its number."""
        return await self._ask("start", *arguments)

    async def kill(self, number: int) -> int:
        """Kill it and wait for it; its exit code: -9, unless it had ended by itself."""
        return await self._ask("kill", str(number))

    async def _ask(self, *words: str) -> int:
        assert self._process.stdin
        assert self._process.stdout
        async with self._turn:
            self._process.stdin.write(" ".join(words).encode() + b"\n")
            return int(await self._process.stdout.readline())


# --- who uses the service


@dataclass
class Caller:
    """The backend and its customers: without idempotency keys, they repeat what broke."""

    plan: Plan
    http: aiohttp.ClientSession
    sandbox: PaynowSandbox
    client_id: UUID = field(default_factory=uuid4)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    odd: list[bytes] = field(default_factory=list)

    async def call(self, method: str, url: str, body: object = None) -> Answer | None:
        """One call; None when the connection broke or could not be made."""
        headers = {"Authorization": f"Bearer {TOKEN}"} if url.startswith(self.plan.internal) else {}
        return await self._send(method, url, None if body is None else msgspec.json.encode(body), headers)

    async def post(self, url: str, form: bytes) -> Answer | None:
        """A form, as Paynow posts it."""
        return await self._send("POST", url, form, {"Content-Type": "application/x-www-form-urlencoded"})

    async def _send(self, method: str, url: str, data: bytes | None, headers: dict[str, str]) -> Answer | None:
        try:
            async with self.http.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
                got = Answer(answer.status, answer.headers, await answer.read())
        except aiohttp.ClientConnectorError:
            return None
        except (aiohttp.ClientError, OSError):
            self.broken += 1
            return None
        self.statuses[got.status] += 1
        if got.status >= 500:
            self.odd.append(got.body)
        return got

    def path(self, rest: str) -> str:
        return f"{self.plan.internal}/v1/clients/{self.client_id}{rest}"

    async def until(self, status: int, method: str, url: str, body: object = None) -> Answer:
        """Call again and again until it is answered so; every other answer than that one is `unavailable`."""

        async def tried() -> Answer | None:
            answer = await self.call(method, url, body)
            assert answer is None or answer.status in (status, 503), answer
            return answer if answer and answer.status == status else None

        return await eventually(tried, seconds=90, every=0.02)

    async def save_paynow(self) -> None:
        key = self.sandbox.integrations[PAYNOW_ID].key
        fields = {"paynow_integration_id": PAYNOW_ID, "paynow_integration_key": key, "display_name": "Acme Hardware"}
        await self.until(200, "PATCH", self.path("/payment-settings"), fields)

    async def order_once(self, reference: str, gateway: str | None = "paynow") -> Answer | None:
        """One call for a link."""
        return await self.call("POST", self.path("/payments/create-link"), _order(reference, gateway))

    async def order(self, reference: str, gateway: str | None = "paynow") -> Any:
        """A payment with its link, after as many calls as it takes."""
        url = self.path("/payments/create-link")
        return (await self.until(201, "POST", url, _order(reference, gateway))).json

    async def pay(self, link: Any) -> Transaction:
        """The customer goes to the gateway, by the page if the link leads there, and pays."""
        address = link["payment_url"]
        if address == link["page_url"]:
            address = await eventually(lambda: self._press(link["page_url"]), seconds=90, every=0.1)
        transaction = self.sandbox.by_number(int(urlsplit(address).path.split("/")[3]))
        assert transaction
        return await self.sandbox.pay(transaction.reference)

    async def _press(self, page_url: str) -> str | None:
        """Press the page's button; where it leads, when that is the gateway."""
        answer = await self.call("POST", page_url)
        assert answer is None or answer.status in (303, 503), answer
        location = answer.headers.get("Location", "") if answer else ""
        return location if location.startswith(self.sandbox.public_url) else None


def _order(reference: str, gateway: str | None) -> dict[str, object]:
    order = {"amount_cents": 1250, "currency": "USD", "reference": reference, "contact_id": str(uuid4())}
    return {**order, "gateway": gateway}


def complaints(written: Path) -> list[str]:
    """What the service logged as an error, but that it could not reach its database."""
    return [line for line in written.read_text().splitlines() if _is_complaint(line)]


def _is_complaint(line: str) -> bool:
    entry = msgspec.json.decode(line) if line.startswith("{") else {"level": "error", "exception": line}
    return entry["level"] == "error" and not str(entry.get("exception")).startswith("Unavailable")


def shift(database: str, by: str) -> None:
    """As if the service had been down for so long: all moments of what is open are moved back."""
    moved = {
        "attempts": ("started_at", "watched_from", "last_checked_at", "answered_at", "next_check_at"),
        "events": ("created_at", "next_try_at"),
        "payments": ("created_at", "expires_at"),
    }
    with psycopg.connect(database) as connection:
        for table, columns in moved.items():
            changes = ", ".join(f"{column} = {column} - interval '{by}'" for column in columns)
            connection.execute(f"UPDATE {table} SET {changes}")


# A link whose customer has not chosen a gateway yet has no attempt: it waits for its customer until it expires.
_UNDONE = """
SELECT (SELECT count(*) FROM attempts WHERE state IN ('starting', 'live'))
     + (SELECT count(*) FROM events WHERE state <> 'delivered')"""


def undone(database: str, sql: str = _UNDONE) -> int:
    """How many payments, starts and events are not at their end yet."""
    with psycopg.connect(database) as connection:
        row = connection.execute(sql).fetchone()
    assert row
    return int(row[0])


# --- the test


@pytest.fixture
def seed() -> int:
    """Printed, and taken from KILL_SEED, so that a run can be had again, as far as processes allow."""
    number = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(2**32))
    print(f"KILL_SEED={number}")  # noqa: T201 - pytest shows it with a failure
    return number


async def test_killed_again_and_again_nothing_is_lost(
    database: str, sandbox: PaynowSandbox, backend: Backend, seed: int, tmp_path: Path
) -> None:
    """200 payments and 100 kills with PROOFS=full, else a third: all that the gateway has is paid here once and told,
    nothing is stuck, no event has two bodies. A create-link call that broke may leave a second payment; that one is
    watched and ends as well."""
    chance = random.Random(seed)
    plan = Plan.of(database, sandbox, backend)
    written = tmp_path / "service.log"
    sandbox.delay_seconds = 0.02  # a gateway takes its time, so that kills hit calls under way
    turn = asyncio.Semaphore(0)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
        caller = Caller(plan, http, sandbox)
        async with Nursery.open(plan, written) as nursery, asyncio.TaskGroup() as group:
            number = await nursery.start("serve")
            await caller.save_paynow()
            assert await nursery.kill(number) == -9
            customers = [
                group.create_task(one_customer(caller, turn, random.Random(chance.random()), index))
                for index in range(PAYMENTS)
            ]
            for _ in range(KILLS_OF_ALL_IN_ONE):
                await one_life(nursery, chance, f"{plan.internal}/livez")
                turn.release()
                turn.release()
            parts = {"internal": f"{plan.internal}/livez", "public": f"{plan.public}/livez", "worker": None}
            lives = [
                group.create_task(many_lives(nursery, chance, url, turn, "--only", part)) for part, url in parts.items()
            ]
            await asyncio.wait(lives)
            shift(database, DOWNTIME)
            async with running(plan, written) as process:
                await asyncio.wait(customers, timeout=90)
                await the_rest_ends(database, sandbox)
                process.terminate()
                assert await process.wait() == 0
    assert not complaints(written)
    assert not [body for body in caller.odd if b'"unavailable"' not in body]
    books = Books.read(database)
    books.check()
    books.check_settled()
    books.check_against(sandbox.transactions)
    books.check_told(backend)
    paid = {event["data"]["reference"] for event in backend.received if event["type"] == "payment.paid"}
    assert paid >= {f"KILL-{index}" for index in range(PAYMENTS)}
    unpaid = {payment["gateway"] for payment in books.payments if payment["status"] == "pending"}
    assert unpaid <= {None}
    # Else the kills hit nothing, and the test proves nothing.
    assert caller.broken > 0


async def one_life(nursery: Nursery, chance: random.Random, url: str | None, *arguments: str) -> None:
    """Start a service, and kill it at a random moment after it answers."""
    number = await nursery.start("serve", *arguments)
    if url:
        await eventually(lambda: answers(url), every=0.01)
    await asyncio.sleep(chance.uniform(0.02, 0.3) if url else chance.uniform(0.1, 0.6))
    assert await nursery.kill(number) == -9


async def many_lives(
    nursery: Nursery, chance: random.Random, url: str | None, turn: asyncio.Semaphore, *arguments: str
) -> None:
    for _ in range(KILLS_OF_EACH_PART):
        await one_life(nursery, chance, url, *arguments)
        turn.release()
        turn.release()


async def one_customer(caller: Caller, turn: asyncio.Semaphore, chance: random.Random, index: int) -> None:
    """A link is ordered, the customer pays after a while, Paynow calls back: late, twice, never or as it should."""
    reference = f"KILL-{index}"
    fault = chance.choice(("never", "late", "twice", None, None))
    if fault:
        caller.sandbox.add_fault(fault, reference=reference, seconds=chance.uniform(0.1, 1.5))
    await turn.acquire()
    link = await caller.order(reference, chance.choice(("paynow", "paynow", "paynow", None)))
    await asyncio.sleep(chance.uniform(0, 0.3))
    await caller.pay(link)
    await caller.call("GET", f"{link['page_url']}?returned=1")
    await caller.call("GET", caller.path(f"/payments/{link['id']}"))


async def the_rest_ends(database: str, sandbox: PaynowSandbox) -> None:
    """What broken calls left is found by the service; half of it is paid, the rest is cancelled at the gateway."""
    starting = "SELECT count(*) FROM attempts WHERE state = 'starting'"
    await eventually(lambda: undone(database, starting) == 0, seconds=60)
    owner = {one["reference"]: one["payment_id"] for one in Books.read(database).attempts}
    settled = {owner[one.reference] for one in sandbox.transactions if one.status in MONEY}
    for index, one in enumerate(sandbox.transactions):
        if one.open and owner[one.reference] not in settled and index % 2:
            settled.add(owner[one.reference])
            await sandbox.pay(one.reference)
        elif one.open:
            await sandbox.cancel(one.reference)
    await eventually(lambda: undone(database) == 0, seconds=60, every=0.2)
