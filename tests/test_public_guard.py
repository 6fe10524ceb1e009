"""What stands before the public listener: the body cap, the deadlines, the headers, and connections that are too slow.

The clients are raw sockets: they misbehave in ways that no HTTP library does.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from payments_service.public.connections import Connection, Limits
from payments_service.public.guard import Guard
from payments_service.web import ERROR_HANDLERS, Observe
from tests.servers import serve

# Far beyond every limit of these tests, far below a slow machine's patience.
GENEROUS = 20.0
GATEWAY = "https://pay.example"
SECURITY = {
    "strict-transport-security": "max-age=31536000",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


async def echo(request: Request) -> Response:
    body = await request.body()
    return PlainTextResponse(f"{len(body)} {body[:20].decode('latin-1')}")


async def ignore(_request: Request) -> Response:
    return PlainTextResponse("not read")


async def big(_request: Request) -> Response:
    return Response(bytes(256 * 1024))


async def broken(_request: Request) -> Response:
    raise RuntimeError("postgresql://user:hunter2@db/payments")


async def careless(_request: Request) -> Response:
    return PlainTextResponse("x", headers={"Cache-Control": "public, max-age=999", "X-Frame-Options": "ALLOWALL"})


async def never(_request: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


ROUTES = [
    Route("/echo", echo, methods=["GET", "POST"]),
    Route("/ignore", ignore, methods=["POST"]),
    Route("/big", big),
    Route("/broken", broken, methods=["GET", "POST"]),
    Route("/careless", careless),
    Route("/never", never),
]


class Quick(Connection):
    """The listener's protocol with short limits."""

    limits = Limits(header_seconds=0.4, unread_seconds=0.4)


@asynccontextmanager
async def listening(*, http: type = Connection, **limits: Any) -> AsyncIterator[str]:
    """The guard over a small app, served as the public listener is."""
    app = Starlette(routes=ROUTES, exception_handlers=ERROR_HANDLERS)
    guarded = Observe(Guard(app, form_targets=[GATEWAY], **limits), "public")
    async with serve(guarded, lifespan="off", http=http, ws="none", timeout_keep_alive=1, server_header=False) as url:
        yield url


class Line:
    """One raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def drip(self, data: bytes, every: float = 0.05) -> bool:
        """Send byte by byte for ever; True when the server hung up within a generous time."""
        async with asyncio.timeout(GENEROUS):
            while not self.reader.at_eof():
                for byte in data:
                    try:
                        await self.send(bytes([byte]))
                    except ConnectionError:
                        return True
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._gone(), every)
                        return True
        return True

    async def _gone(self) -> None:
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def rest(self) -> bytes:
        """Everything that still comes until the server hangs up, within a generous time."""
        data = b""
        async with asyncio.timeout(GENEROUS):
            with suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    data += piece
        return data

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """One answer with a Content-Length; the connection may go on."""
        async with asyncio.timeout(GENEROUS):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status, headers = parse_head(head)
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    pairs = [line.split(": ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs), f"a header stands twice: {pairs}"
    return int(first.split(" ")[1]), dict(pairs)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Line]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Line(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


def check_headers(headers: Any) -> None:
    """The whole list, with a policy that lets nothing in but our own style."""
    assert {name: headers[name] for name in SECURITY} == SECURITY
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["style-src"].startswith("'sha256-")
    assert "unsafe" not in headers["content-security-policy"]
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "camera=()" in headers["permissions-policy"]
    assert "server" not in headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/echo", 200),
        ("HEAD", "/echo", 200),
        ("GET", "/absent", 404),
        ("DELETE", "/echo", 405),
        ("GET", "/broken", 500),
        ("GET", "/careless", 200),
        ("POST", "/absent", 404),
    ],
)
async def test_every_answer_has_the_security_headers(
    http: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    """Also errors, and also where the app has headers of its own; each stands once."""
    async with listening() as url, http.request(method, url + path) as answer:
        assert answer.status == status
        check_headers(answer.headers)
        assert all(len(answer.headers.getall(name)) == 1 for name in SECURITY)
        assert f"form-action 'self' {GATEWAY};" in answer.headers["content-security-policy"]


async def test_what_is_no_http_is_answered_with_the_headers_too() -> None:
    """Garbage never reaches an app; its 400 is ours all the same, and the connection ends."""
    async with listening() as url, connected(url) as line:
        await line.send(b"\x16\x03\x01 hello\r\n\r\n")
        status, headers, body = await line.answer()
        assert status == 400
        check_headers(headers)
        assert json.loads(body)["code"] == "malformed_request"
        assert await line.rest() == b""


async def test_a_body_up_to_the_cap_arrives_whole() -> None:
    """In one piece, in many, and in chunks; the connection can be used again."""
    async with listening(max_body=1000) as url, connected(url) as line:
        await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"a" * 1000)
        assert (await line.answer())[2] == b"1000 " + b"a" * 20
        await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            await line.send(b"b" * 100)
        assert (await line.answer())[2] == b"1000 " + b"b" * 20
        chunks = b"".join(b"1\r\nc\r\n" for _ in range(1000))
        await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert (await line.answer())[2] == b"1000 " + b"c" * 20


async def test_an_announced_length_over_the_cap_is_refused_at_once() -> None:
    """413 without one byte of the body, in problem details, and the connection ends."""
    async with listening(max_body=1000) as url, connected(url) as line:
        await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
        status, headers, body = await line.answer()
        assert status == 413
        check_headers(headers)
        assert headers["connection"] == "close"
        assert headers["content-type"] == "application/problem+json"
        problem = json.loads(body)
        assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", 413, "body_too_large")
        assert problem["title"]
        assert problem["detail"]
        assert problem["request_id"] == headers["x-request-id"]
        assert await line.rest() == b""


async def test_a_client_that_sends_a_megabyte_reads_its_413(http: aiohttp.ClientSession) -> None:
    """The connection is not cut under its hands while it still sends."""
    async with listening() as url:
        for _ in range(20):
            async with http.post(f"{url}/echo", data=bytes(1_000_000)) as answer:
                assert answer.status == 413
                assert (await answer.json(content_type=None))["code"] == "body_too_large"


async def test_an_app_that_reads_no_body_gets_no_oversized_one(http: aiohttp.ClientSession) -> None:
    """The cap holds for every route, also for those that do not exist."""
    async with listening() as url:
        for path in ("/ignore", "/absent"):
            async with http.post(url + path, data=bytes(70_000)) as answer:
                assert answer.status == 413


async def test_an_endless_chunked_body_is_cut_and_takes_no_memory() -> None:
    """200 MiB from ten strangers: each is cut at the cap; this process, which also plays the strangers, stays flat."""
    sizes = [resident()]
    async with listening() as url:
        sent = await asyncio.gather(*(pour(url, 20 * 1024 * 1024, sizes) for _ in range(10)))
    assert max(sizes) - sizes[0] < 64 * 1024 * 1024
    assert all(answer.startswith(b"HTTP/1.1 413 ") or not answer for _, answer in sent)
    assert all(count < 20 * 1024 * 1024 for count, _ in sent)


def resident() -> int:
    """Bytes of memory that this process has now; 0 where that cannot be read."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


async def pour(url: str, most: int, sizes: list[int]) -> tuple[int, bytes]:
    """Send chunks until the server hangs up; how many bytes went out, and what came back."""
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    count = 0
    async with connected(url) as line, asyncio.timeout(GENEROUS):
        with suppress(ConnectionError):
            await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            while count < most:
                await line.send(chunk)
                count += len(chunk)
                sizes.append(resident())
        return count, await line.rest()


async def test_a_body_that_drips_ends_with_408() -> None:
    """The deadline counts from the request's start, however regularly a byte comes."""
    async with listening(deadline=0.4) as url, connected(url) as line:
        await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        dripping = asyncio.create_task(feed(line, b"a"))
        status, headers, body = await line.answer()
        assert status == 408
        check_headers(headers)
        assert headers["connection"] == "close"
        assert json.loads(body)["code"] == "request_timeout"
        assert await line.rest() == b""
        dripping.cancel()


async def feed(line: Line, byte: bytes) -> None:
    with suppress(ConnectionError):
        while True:
            await line.send(byte)
            await asyncio.sleep(0.03)


async def test_a_body_that_never_begins_ends_with_408() -> None:
    """Only the headers come, also with `Expect: 100-continue`."""
    async with listening(deadline=0.3) as url, connected(url) as line:
        await line.send(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await line.rest()).startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 408 ")


async def test_an_app_that_does_not_answer_is_cut_off(http: aiohttp.ClientSession) -> None:
    """Our own slowness is ours: 503, to be tried again."""
    async with listening(answer_deadline=0.3) as url, http.get(f"{url}/never") as answer:
        assert answer.status == 503
        assert answer.headers["retry-after"] == "5"
        check_headers(answer.headers)


async def test_an_exception_shows_nothing_of_itself() -> None:
    """Without any handler below, the guard answers in general words and raises on, so that it is logged."""
    sent: list[Any] = []

    async def failing(_scope: Any, _receive: Any, _send: Any) -> None:
        raise RuntimeError("postgresql://user:hunter2@db/payments")

    async def collect(message: Any) -> None:
        sent.append(message)

    async def nothing() -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError):
        await Guard(failing)({"type": "http", "headers": [], "method": "GET", "path": "/"}, nothing, collect)
    assert sent[0]["status"] == 500
    assert b"hunter2" not in sent[1]["body"]
    assert json.loads(sent[1]["body"])["code"] == "internal_error"


@pytest.mark.parametrize(
    "start",
    [b"", b"GET /echo HTTP/1.1\r\nHost: x\r\nX-Slow: ", b"GET /"],
    ids=["nothing", "a header", "the path"],
)
async def test_headers_that_drip_end_the_connection(start: bytes) -> None:
    """Neither silence nor a byte now and then keeps a connection."""
    async with listening(http=Quick) as url, connected(url) as line:
        if not start:
            assert await line.rest() == b""
            return
        await line.send(start)
        assert await line.drip(b"a" * 100)


async def test_an_idle_connection_is_closed_after_an_answer() -> None:
    """uvicorn's own limit, which stray line ends do not lift."""
    async with listening(http=Quick) as url:
        for stray in (b"", b"\r\n"):
            async with connected(url) as line:
                await line.send(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await line.answer())[0] == 200
                await line.send(stray)
                assert await line.rest() == b""


async def test_a_used_connection_stays_for_the_next_request() -> None:
    """The limits are each request's own: forty together send many times what one may."""
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nX-Long: " + b"h" * 16_000 + b"\r\nContent-Length: 60000\r\n\r\n"
    async with listening() as url, connected(url) as line:
        for _ in range(40):
            await line.send(head[:500])
            await line.send(head[500:])
            await line.send(b"b" * 60_000)
            assert (await line.answer())[0] == 200


async def test_a_client_that_never_reads_is_dropped() -> None:
    """It asks for megabytes and takes none of them: our buffers are not its store."""
    async with listening(http=Quick) as url, connected(url) as line:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        request = b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n"
        async with asyncio.timeout(GENEROUS):
            with suppress(ConnectionError):
                while True:
                    await line.send(request)
                    await asyncio.sleep(0.02)
        assert line.writer.transport.is_closing()


@pytest.mark.parametrize(
    "flood",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 16384,
        b"GET /" + b"a" * 16384,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4096,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: " + b"a" * 16384,
        b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 16384,
    ],
    ids=["header value", "path", "header lines", "trailer", "chunk extension"],
)
async def test_headers_without_end_are_cut(flood: bytes) -> None:
    """What httptools keeps of a request while it is incomplete has a limit."""
    async with listening() as url, connected(url) as line:
        count = 0
        async with asyncio.timeout(GENEROUS):
            with suppress(ConnectionError):
                await line.send(flood)
                while count < 64 * 1024 * 1024:
                    await line.send(flood[-4096:])
                    count += 4096
        assert count < 64 * 1024 * 1024


async def test_a_flood_of_requests_in_one_piece_is_cut() -> None:
    """Each pipelined request costs a hundred times its size: a few are served, a flood is not."""
    request = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening() as url:
        async with connected(url) as line:
            await line.send(request * 5)
            for _ in range(5):
                assert (await line.answer())[0] == 200
        async with connected(url) as line:
            with suppress(ConnectionError):
                await line.send(request * 5000)
            assert (await line.rest()).count(b"HTTP/1.1 200 ") < 100


async def test_too_many_connections_do_not_hinder_the_first_ones() -> None:
    """The ones over the limit are closed at once; a place that becomes free is given away again."""

    class Few(Connection):
        limits = Limits(connections=3)

    get = b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\n"
    async with listening(http=Few) as url, connected(url) as first, connected(url) as second, connected(url) as third:
        for line in (first, second, third):
            await line.send(get)
            assert (await line.answer())[0] == 200
        async with connected(url) as fourth:
            with suppress(ConnectionError):
                await fourth.send(get)
            assert await fourth.rest() == b""
        await first.send(b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await first.rest()).startswith(b"HTTP/1.1 200 ")
        async with connected(url) as fifth:
            await fifth.send(get)
            assert (await fifth.answer())[0] == 200
