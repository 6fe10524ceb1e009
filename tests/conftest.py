"""A real PostgreSQL, the simulators as real servers, and the service over HTTP: what the tests stand on."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import psycopg
import pytest
from playwright.async_api import Browser

from payments_service import embedded, log, migrations
from payments_service.app import parts
from payments_service.sandbox.ecocash import DEMO_MERCHANTS as ECOCASH_MERCHANTS
from payments_service.sandbox.innbucks import DEMO_MERCHANTS as INNBUCKS_MERCHANTS
from payments_service.sandbox.paynow import DEMO_INTEGRATIONS, PaynowSandbox
from payments_service.sandbox.run import Simulators
from payments_service.sandbox.stripe import DEMO_ACCOUNTS
from payments_service.sandbox.whatsapp import DEMO_APP_SECRET, DEMO_VERIFY_TOKEN
from payments_service.sandbox.whatsapp import DEMO_SENDERS as WHATSAPP_SENDERS
from tests import browser as chromium
from tests import databases, nodejs, stripe_cli
from tests.browser import PAGE_COST
from tests.house import ENCRYPTION_SECRET, EVENTS_SECRET, TOKEN, Backend, House, World, settings_for
from tests.servers import serve

_numbers = itertools.count(1)
_used: list[str] = []
_kept: dict[str, databases.Kept] = {}

# What passes through the service in nearly every test and must never come out in a log.
CANARIES = (
    ENCRYPTION_SECRET,
    EVENTS_SECRET,
    TOKEN,
    *(key for _, key, _ in DEMO_INTEGRATIONS),
    *(key for key, *_ in DEMO_ACCOUNTS),
    *(secret for one in ECOCASH_MERCHANTS.values() for secret in (one.api_key, one.password) if secret),
    *(secret for _, *secrets, _, _ in INNBUCKS_MERCHANTS for secret in secrets),
    *(token for _, token, *_ in WHATSAPP_SENDERS),
    DEMO_APP_SECRET,
    DEMO_VERIFY_TOKEN,
)


def pytest_asyncio_loop_factories(config: pytest.Config) -> dict[str, object]:
    """The service's own event loop."""
    import uvloop

    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that is no coroutine takes nothing asynchronous: pytest-asyncio would end what its file shares."""
    for item in items:
        if isinstance(item, pytest.Function) and not inspect.iscoroutinefunction(item.function):
            for name, definitions in item._fixtureinfo.name2fixturedefs.items():
                if name != "no_task_is_left_behind" and inspect.isasyncgenfunction(definitions[-1].func):
                    raise pytest.UsageError(f"{item.nodeid} takes {name}, which is asynchronous: make it async as well")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the pages cost their visitors, whichever process measured it."""
    reports = terminalreporter.stats.get("passed", [])
    told = {value for report in reports for name, value in report.user_properties if name == PAGE_COST}
    for value in sorted(told):
        terminalreporter.write_line(value)


@pytest.fixture(scope="session", autouse=True)
def written_log() -> Iterator[Path]:
    """Everything is logged, at DEBUG, to a file that is searched for secrets when all tests are over."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.jsonl"
        with path.open("w", buffering=1) as stream:
            log.configure("debug", "json", stream)
            yield path
        written = path.read_text()
        for secret in CANARIES:
            assert secret not in written, f"a secret of the tests was logged: {secret[:4]}…"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a cluster of its own for this run, with a migrated template database.

    TEST_POSTGRES names another server to use, such as one of an older version; its databases are made anew.
    """
    if given := os.environ.get("TEST_POSTGRES"):
        with psycopg.connect(given, autocommit=True) as connection:
            connection.execute("DROP DATABASE IF EXISTS template_payments WITH (FORCE)")
        create_database(given, "template_payments")
        migrations.migrate(in_database(given, "template_payments"))
        yield given
        _let_go()
        return
    with tempfile.TemporaryDirectory() as folder, embedded.start(Path(folder) / "cluster", durable=False) as server:
        create_database(server.url, "template_payments")
        migrations.migrate(in_database(server.url, "template_payments"))
        yield server.url
        _let_go()


def _let_go() -> None:
    while _kept:
        _kept.popitem()[1].close()


def in_database(url: str, name: str) -> str:
    """The same server, another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def create_database(url: str, name: str, template: str = "template0") -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


def drop_database(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def empty_database(postgres: str) -> Iterator[str]:
    """The URL of a database without any table."""
    name = f"empty_{next(_numbers)}"
    create_database(postgres, name)
    yield in_database(postgres, name)
    drop_database(postgres, name)


@pytest.fixture
def database(postgres: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a migrated database of the test's own: one that a test before left as it was, emptied, else a new one.

    Making one costs a tenth of a second, emptying it a hundredth. What the test leaves in it must be whole, unless the
    test is marked as `damaged`, with the reason.
    """
    name = _used.pop() if _used else f"test_{next(_numbers)}"
    if name not in _kept:
        create_database(postgres, name, "template_payments")
        _kept[name] = databases.Kept(in_database(postgres, name))
    yield in_database(postgres, name)
    broken: list[str] = []
    if _kept[name].emptied(broken):
        _used.append(name)
    else:
        _kept.pop(name).close()
        drop_database(postgres, name)
    assert not broken or request.node.get_closest_marker("damaged"), broken


@pytest.fixture
async def simulators() -> AsyncIterator[Simulators]:
    """The gateways' simulators, being served; `simulators.public_url` is where."""
    async with Simulators() as all_of_them, serve(all_of_them.app) as url:
        all_of_them.public_url = url
        yield all_of_them


@pytest.fixture
def sandbox(simulators: Simulators) -> PaynowSandbox:
    """Paynow's simulator that is being served; `sandbox.public_url` is where."""
    return simulators.paynow


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    """A stand-in for the main backend: receives the events and verifies them."""
    receiver = Backend()
    async with serve(receiver.app) as url:
        receiver.url = f"{url}/events"
        yield receiver


@pytest.fixture
async def world(database: str, simulators: Simulators, backend: Backend) -> AsyncIterator[World]:
    """The service's parts over a real database and the simulators; no listener, no worker, a clock to be moved."""
    settings = settings_for(**simulators.settings(), events_url=backend.url)
    async with parts(settings, database) as built:
        world = World.of(built, settings, simulators, backend, database)
        yield world
        world.close()


@pytest.fixture
async def house(world: World) -> AsyncIterator[House]:
    """The whole service: both listeners and the workers, called over HTTP."""
    async with House.open(world) as service:
        yield service


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The npm packages of the tests: Paynow's SDK, Stripe's CLI and axe-core."""
    return nodejs.install(nodejs.PACKAGES)


@pytest.fixture(scope="session")
def stripe_program() -> Path:
    """Stripe's CLI: asked for by every test that starts it."""
    try:
        return stripe_cli.program()
    except stripe_cli.NoCli as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
async def browser(node_modules: Path) -> AsyncIterator[Browser]:
    """One Chromium for all tests; each takes a phone of its own, see tests/browser.py."""
    try:
        program = await asyncio.to_thread(chromium.find)
    except chromium.NoChromium as error:
        must = os.environ.get("CI") and os.geteuid() == 0  # there, .ci/run installs one
        (pytest.fail if must else pytest.skip)(str(error))
    async with chromium.launched(program) as running:
        yield running


@pytest.fixture(autouse=True)
def invariants_hold(request: pytest.FixtureRequest) -> Iterator[None]:
    """What tests leave in a database that they share is whole after each of them; `database` sees to those of their
    own. Tests that plant damage are marked as `damaged`, with the reason."""
    yield
    broken = [fault for shared in databases.SHARED for fault in shared.new_faults()]
    assert not broken or request.node.get_closest_marker("damaged"), broken


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncIterator[None]:
    """Whatever a test starts ends with it."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=5)
    assert not {task for task in left if not task.done()}
