"""What is written to the log, and what never is."""

from __future__ import annotations

import ast
import io
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
import pytest
import structlog

import payments_service
from payments_service import log
from payments_service.errors import Refused
from payments_service.lifecycle import Status
from payments_service.money import Currency, Money
from tests.house import TOKEN, House
from tests.support import FORM, Log, afresh, open_house

PACKAGE = Path(payments_service.__file__).parent
GUID = "3e9fed89-60e1-4ce5-ab6e-6b1eb2d4f977"


@pytest.fixture
def restored() -> Iterator[None]:
    """Logging as it was, whatever the test sets up."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**config)
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def written(restored: None) -> io.StringIO:
    stream = io.StringIO()
    log.configure("debug", "json", stream)
    return stream


def line(stream: io.StringIO) -> dict[str, Any]:
    """The one line that was written."""
    (text,) = stream.getvalue().splitlines()
    stream.seek(0)
    stream.truncate()
    return dict(msgspec.json.decode(text))


# --- the wall

VALUES: list[tuple[object, object]] = [
    ("plain", "plain"),
    (17, 17),
    (1.5, 1.5),
    (True, True),
    (None, None),
    (Status.PAID, "paid"),
    (UUID(GUID), GUID),
    (datetime(2026, 11, 24, 12, 0, tzinfo=UTC), "2026-11-24T12:00:00+00:00"),
    (PurePath("/tmp/x"), "/tmp/x"),
    ("x" * 5_000, "x" * 600),
    ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
    (b"bytes", "[bytes withheld]"),
    ({"key": "value"}, "[dict withheld]"),
    (["x"], "[list withheld]"),
    (("x",), "[tuple withheld]"),
    (ValueError("x"), "[ValueError withheld]"),
    (Money(1, Currency.USD), "[Money withheld]"),
    (object, "[type withheld]"),
]


@pytest.mark.parametrize(("value", "shown"), VALUES, ids=repr)
def test_only_plain_values_of_known_keys_are_written(written: io.StringIO, value: object, shown: object) -> None:
    """A known key shows plain values; whatever is made of parts shows its type; an unknown key shows nothing."""
    logger = structlog.get_logger()
    logger.info("tried", outcome=value)
    assert line(written)["outcome"] == shown
    logger.info("tried", no_such_key=value, integration_key=value)
    told = line(written)
    assert told["no_such_key"] == told["integration_key"] == "[withheld]"


def test_what_is_bound_passes_the_same_wall(written: io.StringIO) -> None:
    """To a logger or to the request: unknown keys are withheld there too."""
    structlog.contextvars.bind_contextvars(request_id="abc", authorization="Bearer x")
    try:
        structlog.get_logger().bind(password="x", caller="backend").warning("tried")
    finally:
        structlog.contextvars.clear_contextvars()
    told = line(written)
    assert told["request_id"] == "abc"
    assert told["caller"] == "backend"
    assert told["authorization"] == told["password"] == "[withheld]"
    assert (told["event"], told["level"]) == ("tried", "warning")
    assert datetime.fromisoformat(told["timestamp"]).tzinfo is not None


REMOVED = (
    "rudo@acme.example",
    "first.last+tag@mail.acme.co.zw",
    "sk_live_51HxYzAbCdEf",
    "rk_test_abc123",
    "whsec_dGVzdHMtb25seS1zZWNyZXQ=",
    "Bearer abc.def-ghi_jkl",
    GUID,
    GUID.upper(),
    "0123456789abcdef0123456789abcdef",
    "+263 77 123 4567",
    "0771234567",
    "4111-1111-1111-1111",
    "/pay/k9_-3Jd8fKz0qLm2Vx5Yt7Bw1Nc",
)
KEPT = ("Paynow does not know this integration ID", "INV-1001", "HTTP 502", "12.50", "is over 65536 bytes", "a@b")


@pytest.mark.parametrize("key", ["detail", "said", "error"])
def test_texts_from_outside_are_scrubbed(written: io.StringIO, key: str) -> None:
    """What looks like a secret, an address, a phone or a pay link is removed from the middle of a sentence; the rest
    of the sentence stays."""
    logger = structlog.get_logger()
    for text in REMOVED:
        logger.info("tried", **{key: f"It said <{text}>, then stopped."})
        shown = line(written)[key]
        assert text not in shown
        assert shown.startswith("It said <")
        assert shown.endswith(", then stopped.")
    logger.info("tried", **{key: "postgresql://ann:hunter2@db/payments failed"})
    assert "hunter2" not in line(written)[key]
    for text in KEPT:
        logger.info("tried", **{key: text})
        assert line(written)[key] == text
    logger.info("tried", **{key: "x" * 10_000})
    assert len(line(written)[key]) == 600


def explode(secret: str) -> None:
    raise KeyError(secret)


def caught(secret: str) -> BaseException:
    """An error of ours, because of one that holds the secret in its message."""
    try:
        try:
            explode(secret)
        except KeyError as error:
            raise Refused(f"It was refused for {secret}@acme.example.") from error
    except Refused as error:
        return error


@pytest.mark.parametrize("way", ["exception", "tuple", "true", "method"])
def test_of_an_exception_the_type_and_place_are_written(written: io.StringIO, way: str) -> None:
    """Not its message, which can hold a row, nor that of what caused it; only our own errors' words, scrubbed."""
    secret = secrets.token_hex(6)
    logger = structlog.get_logger()
    error = caught(secret)
    try:
        raise error
    except Refused:
        if way == "exception":
            logger.error("failed", exc_info=error)
        elif way == "tuple":
            logger.error("failed", exc_info=(type(error), error, error.__traceback__))
        elif way == "true":
            logger.error("failed", exc_info=True)
        else:
            logger.exception("failed")
    told = line(written)
    assert secret not in str(told)
    assert "Refused (It was refused for [removed].) at test_logs.py:" in told["exception"]
    assert "because of KeyError at test_logs.py:" in told["exception"]
    assert "explode" in told["exception"]


def test_an_error_that_explains_itself_in_circles_ends(written: io.StringIO) -> None:
    """A long chain of causes is cut; a loop of contexts does not hang the logger."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    structlog.get_logger().error("failed", exc_info=first)
    assert line(written)["exception"].count("ValueError") == 5


def test_what_libraries_log_passes_the_same_wall(written: io.StringIO) -> None:
    """Their message is scrubbed, their exceptions are reduced, their extras are dropped; debug is not taken."""
    library = logging.getLogger("some.library")
    library.warning("cannot reach %s at %s", "rudo@acme.example", "10.0.0.7", extra={"password": "x"})
    told = line(written)
    assert (told["event"], told["logger"], told["level"]) == ("library", "some.library", "warning")
    assert told["detail"] == "cannot reach [removed] at 10.0.0.7"
    assert "password" not in told
    try:
        explode("hunter2")
    except KeyError:
        library.exception("it failed")
    told = line(written)
    assert "hunter2" not in str(told)
    assert told["exception"].startswith("KeyError at ")
    library.debug("SELECT * FROM payment_settings")
    logging.getLogger("sqlalchemy.engine.Engine").info("INSERT INTO payment_settings VALUES ('x')")
    logging.getLogger("asyncio").debug("Using selector")
    assert written.getvalue() == ""


def test_a_library_that_logs_badly_does_no_harm(written: io.StringIO) -> None:
    """Wrong arguments, no Unicode, an object that cannot be shown: a line is written, nothing is raised."""

    class Odd:
        def __str__(self) -> str:
            raise RuntimeError("hunter2")

    library = logging.getLogger("some.library")
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if isinstance(handler, log._Library)]  # without pytest's own
    for message, arguments in (
        ("%s and %s", ("one",)),
        ("bad \udcff name", ()),
        ("%s", (Odd(),)),
        ("%(x)s", ("y",)),
        (Odd(), ()),
    ):
        library.warning(message, *arguments)
        assert line(written)["level"] == "warning"


@pytest.mark.parametrize("style", ["json", "console"])
def test_each_event_is_one_line(restored: None, style: str) -> None:
    """Whatever stands in it: line breaks and control characters are written as escapes, so that no line is forged."""
    stream = io.StringIO()
    log.configure("info", style, stream)
    structlog.get_logger().warning("tried", detail='one\ntwo\r\n{"event":"forged"}\x1b[2J', reason="x\u2028y")
    structlog.get_logger().debug("not wanted")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert "\x1b" not in text
    assert "not wanted" not in text


def test_every_line_of_the_code_has_known_keys_and_a_constant_event() -> None:
    """No call puts a value into the event's text, where nothing would scrub it, or uses a key that is withheld."""
    calls = 0
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if "log = structlog.get_logger(" in text else ():
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
                continue
            target = node.func.value if isinstance(node.func, ast.Attribute) else node.func
            if not (isinstance(target, ast.Name) and target.id in ("log", "say")):
                continue
            if isinstance(node.func, ast.Attribute) and node.func.attr in ("configure", "log", "scrub"):
                continue
            calls += 1
            where = f"{path.name}:{node.lineno}"
            assert len(node.args) == 1, where
            assert isinstance(node.args[0], ast.Constant), where
            keys = {keyword.arg for keyword in node.keywords} - {"exc_info", None}
            assert keys <= log.KEYS, where
    assert calls > 15


# --- the running service


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
def house(service: House) -> House:
    return afresh(service)


async def test_each_request_and_each_call_outside_is_one_line(house: House, written_log: Path) -> None:
    """With ids, operation, status and duration; both of one request carry its id, and the next request's do not."""
    await house.save_paynow()
    started = Log(written_log)
    answer = await house.call("POST", house.path("/payments/create-link"), house.order())
    (request,) = started.of("request")
    (outside,) = started.of("outside_call")
    assert request["request_id"] == outside["request_id"] == answer.headers["X-Request-Id"]
    assert (request["listener"], request["method"], request["operation"]) == ("internal", "POST", "create_link")
    assert (request["status"], request["client_id"], request["caller"]) == (201, str(house.client_id), "backend")
    assert request["milliseconds"] > 0
    assert (outside["call"], outside["outcome"]) == ("paynow.initiate", "200")
    for path, status, operation, token in (
        (house.path(f"/payments/{answer.json['id']}"), 200, "show_payment", TOKEN),
        (house.path(f"/payments/{uuid4()}"), 404, "show_payment", TOKEN),
        (house.path("/payment-settings"), 401, "none", None),
        ("/nowhere", 404, "none", TOKEN),
    ):
        log_of_this = Log(written_log)
        answered = await house.call("GET", path, token=token)
        (request,) = log_of_this.of("request")
        assert (request["status"], request["operation"]) == (status, operation)
        assert request["request_id"] == answered.headers["X-Request-Id"]
        assert len(log_of_this.of("outside_call")) == (1 if status == 200 else 0)
    probes = Log(written_log)
    await house.call("GET", "/readyz")
    await house.get_public("/readyz")
    await house.get_public("/livez")
    assert {line["level"] for line in probes.lines} == {"debug"}


async def test_what_one_request_binds_the_next_does_not_see(house: House, written_log: Path) -> None:
    """On one connection: a callback's tenant is not in the line of the request after it."""
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(house.public, connector=connector) as http:
        first = Log(written_log)
        async with http.post(f"/callbacks/paynow/{house.client_id}", data=b"x=1", headers=FORM) as answer:
            assert await answer.read() == b"OK"
        assert first.of("callback_refused")[0]["client_id"] == str(house.client_id)
        second = Log(written_log)
        async with http.get("/nowhere") as answer:
            assert answer.status == 404
        (line,) = second.lines
        assert "client_id" not in line


async def test_no_pay_token_is_ever_logged(house: House, written_log: Path) -> None:
    """Not in paths, not in what a gateway repeats of our own addresses, not when a payment moves."""
    written = Log(written_log)
    await house.save_paynow()
    sandbox = house.world.sandbox
    link, open_link = await house.create_link(), await house.create_link(gateway=None)
    tokens = [payment["page_url"].rpartition("/")[2] for payment in (link, open_link)]
    for token in tokens:
        for method, rest in (
            ("GET", ""),
            ("HEAD", ""),
            ("GET", "?returned=1&n=3"),
            ("GET", "/status"),
            ("PUT", ""),
            ("GET", "/x"),
        ):
            await house.get_public(f"/pay/{token}{rest}", method=method)
    sandbox.add_fault(
        "poll_error", on=["initiate"], times=1, text=f"Enter valid return url {open_link['page_url']}?returned=1"
    )
    answer = await house.get_public(f"/pay/{tokens[1]}", method="POST")
    assert answer.status == 409
    (failed,) = written.of("pay_page_start_failed")
    assert "valid return url" in failed["detail"].lower()
    sandbox.add_fault("poll_error", on=["poll"], times=1, text=f"Cannot come back to {link['page_url']}")
    await house.payment(link)
    (unanswered,) = written.of("look_up_without_answer")
    assert "Cannot come back" in unanswered["detail"]
    await sandbox.pay(house.reference_of(link))
    await sandbox.settled()
    house.world.clock.forward(seconds=30)
    await house.world.look_up("paynow")
    assert written.of("payment_moved", payment_id=link["id"], to_status="paid")
    house.world.rows_do("ALTER TABLE payments RENAME COLUMN late TO later")
    try:
        for token in tokens:
            for method in ("GET", "POST"):
                assert (await house.get_public(f"/pay/{token}", method=method)).status in (200, 500)
        assert (await house.call("GET", house.path(f"/payments/{link['id']}"))).status == 500
    finally:
        house.world.rows_do("ALTER TABLE payments RENAME COLUMN later TO late")
    assert written.of("request_failed")
    assert [token for token in tokens if token in written.text] == []
