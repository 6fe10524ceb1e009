"""Calls to the outside against servers that misbehave: bounded, never redirected, nothing remembered, all logged."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from payments_service.errors import Ambiguous, GatewayError, Unreachable, Untrusted
from payments_service.gateways.transport import Reply, Transport
from tests.servers import listen

# Long enough for a busy machine to answer, and what a test waits for that expects no answer.
ENOUGH, SHORT = 20.0, 0.3

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as opened:
        yield opened


async def post(transport: Transport, url: str, body: bytes = b"a=1", *, deadline: float = ENOUGH) -> Reply:
    return await transport.post("test.call", url, body, headers={"X-Test": "yes"}, deadline=deadline)


# --- a server that says exactly the bytes it is told to


@dataclass
class Raw:
    """`requests` are the raw requests so far; `hung_up` is set when a client closed before it was told everything."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)


Saying = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw(say: bytes | Saying, *, tls: ssl.SSLContext | None = None, greeting: bytes = b"") -> AsyncIterator[Raw]:
    """Answers each connection's first request with these bytes, or lets `say` do it, then closes the connection."""
    listener = listen()
    scheme = "https" if tls else "http"
    server = Raw(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}")
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            writer.write(greeting)
            server.requests.append(await _request(reader))
            server.asked.set()
            if isinstance(say, bytes):
                writer.write(say)
                await writer.drain()
            else:
                await say(reader, writer)
        except OSError:
            server.hung_up.set()
        except (asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left before it asked, or the server closes
        finally:
            writer.close()

    service = await asyncio.start_server(talk, sock=listener, ssl=tls)
    try:
        yield server
    finally:
        service.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return head + await reader.readexactly(sum(lengths))


async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answers; ends when the client hangs up."""
    await reader.read()


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Drops the connection the hard way."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def dripping(start: bytes, drop: bytes) -> Saying:
    """Never silent, never done."""

    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(0.01)

    return drip


def flooding(start: bytes, piece: bytes) -> Saying:
    """Sends as fast as the client takes it, for ever."""

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()

    return flood


# --- what a good answer is


async def test_an_answer_arrives_whole(transport: Transport) -> None:
    """Status, body and headers by any spelling; any status that is no redirect is the caller's to judge."""
    answer = b"HTTP/1.1 429 Slow down\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nwait"
    async with raw(answer) as server:
        reply = await post(transport, server.url + "/path?q=1", b"x=1&y=2")
    assert (reply.status, reply.body, reply.retry_after) == (429, b"wait", "7")
    assert reply.headers["retry-after"] == reply.headers["RETRY-AFTER"] == "7"
    (request,) = server.requests
    assert request.startswith(b"POST /path?q=1 HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nx=1&y=2")
    assert b"x-test: yes" in request.lower()


@pytest.mark.parametrize("status", [200, 201, 204, 400, 401, 404, 409, 418, 500, 502, 503, 599])
async def test_no_status_but_a_redirect_is_judged_here(transport: Transport, status: int) -> None:
    async with raw(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()) as server:
        assert (await post(transport, server.url)).status == status


async def test_a_provisional_answer_is_not_the_answer(transport: Transport) -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok"
    async with raw(answer) as server:
        reply = await post(transport, server.url)
    assert (reply.status, reply.body, reply.retry_after) == (200, b"ok", None)


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
async def test_a_request_without_a_body_sends_none(transport: Transport, method: str) -> None:
    async with raw(OK + b"Content-Length: 2\r\n\r\nok") as server:
        reply = await transport.request("test.call", method, server.url + "/a?b=1", None, headers={}, deadline=ENOUGH)
    assert reply.body == b"ok"
    assert server.requests[0].startswith(f"{method} /a?b=1 HTTP/1.1\r\n".encode())
    assert server.requests[0].endswith(b"\r\n\r\n")


# --- nothing is remembered, nothing is followed


async def test_no_cookie_is_kept(transport: Transport) -> None:
    """A shared jar would send one tenant's cookie along with another tenant's key."""
    async with raw(OK + b"Set-Cookie: session=of-tenant-a; Path=/\r\nContent-Length: 2\r\n\r\nok") as server:
        for path in ("/", "/", "/other"):
            await post(transport, server.url + path)
    assert len(server.requests) == 3
    assert not [request for request in server.requests if b"cookie" in request.lower()]


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308])
@pytest.mark.parametrize("where", ["{url}/target", "/target", "{url}", ""])
async def test_no_redirect_is_followed(transport: Transport, status: int, where: str) -> None:
    """Not to another place, not to the same one, not to nowhere: the answer is not believed, and nobody calls again."""

    async def redirect(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        location = f"Location: {where.format(url=server.url)}\r\n" if where else ""
        writer.write(f"HTTP/1.1 {status} Go\r\n{location}Content-Length: 0\r\n\r\n".encode())

    async with raw(redirect) as server:
        with pytest.raises(Untrusted, match="redirect"):
            await post(transport, server.url)
        assert len(server.requests) == 1


async def test_no_proxy_and_no_password_file_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A proxy set for the machine would see credentials, and a .netrc would add some."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1\nlogin somebody\npassword secret\n")
    netrc.chmod(0o600)
    async with raw(OK + b"Content-Length: 2\r\n\r\nok") as server, raw(OK + b"Content-Length: 0\r\n\r\n") as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("NETRC", str(netrc))
        async with aiohttp.ClientSession(trust_env=True) as believer, believer.post(server.url):
            assert len(proxy.requests) == 1, "the trap works"
        async with Transport() as transport:
            assert (await post(transport, server.url)).body == b"ok"
    assert len(proxy.requests) == 1
    assert b"authorization" not in server.requests[0].lower()


# --- size


def _plain(body: bytes) -> bytes:
    return OK + f"Content-Length: {len(body)}\r\n\r\n".encode() + body


def _chunked(body: bytes) -> bytes:
    pieces = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in [*pieces, b""])


def _until_the_end(body: bytes) -> bytes:
    return OK + b"\r\n" + body


@pytest.mark.parametrize("form", [_plain, _chunked, _until_the_end])
async def test_an_answer_of_one_mebibyte_is_taken_and_a_byte_more_is_not(
    transport: Transport, form: Callable[[bytes], bytes]
) -> None:
    """Counted as it arrives, whether or not the server says beforehand how much it is."""
    most = b"x" * 1024 * 1024
    async with raw(form(most)) as server:
        assert (await post(transport, server.url)).body == most
    async with raw(form(most + b"x")) as server:
        with pytest.raises(Untrusted, match="larger than 1 MiB"):
            await post(transport, server.url)


CHUNK = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"


@pytest.mark.parametrize(
    "start", [OK + b"Transfer-Encoding: chunked\r\n\r\n", OK + b"\r\n", OK + b"Content-Length: 99999999999\r\n\r\n"]
)
async def test_an_endless_answer_is_cut_off(transport: Transport, start: bytes) -> None:
    """It is refused after one mebibyte, and the connection is closed instead of being drained."""
    async with raw(flooding(start, CHUNK)) as server:
        with pytest.raises(Untrusted, match="larger than 1 MiB"):
            await post(transport, server.url)
        async with asyncio.timeout(ENOUGH):
            await server.hung_up.wait()


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x-gzip"])
async def test_a_compressed_answer_is_not_unfolded(transport: Transport, coding: str) -> None:
    """50 MB in 50 kB: asked for or not, the bytes stay as they came; and we ask for none."""
    bomb = gzip.compress(bytes(50_000_000), 9)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    async with raw(head + bomb) as server:
        assert (await post(transport, server.url)).body == bomb
    assert b"accept-encoding: identity\r\n" in server.requests[0].lower()


# --- time


@pytest.mark.parametrize(
    "say",
    [
        silence,
        dripping(b"", b"HTTP"),
        dripping(OK, b"X: y\r\n"),
        dripping(OK + b"Content-Length: 1000000\r\n\r\n", b"x"),
        dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["nothing", "first line", "headers", "body", "chunks", "100 Continue"],
)
async def test_an_answer_that_never_ends_is_ambiguous_at_the_deadline(transport: Transport, say: Saying) -> None:
    """The deadline is for the whole answer: a server that is never silent for long cannot stretch it."""
    async with raw(say) as server:
        with pytest.raises(Ambiguous):
            await post(transport, server.url, deadline=SHORT)
        assert len(server.requests) == 1


# --- what may be concluded when no answer came


async def test_a_refused_connection_is_unreachable(transport: Transport) -> None:
    """Nothing was sent: the caller may try again."""
    listener = listen()
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(Unreachable):
        await post(transport, f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "/path",
        "http://",
        "http:///path",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[::1/",
        "http://[zz]/",
        "http://exa mple/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://" + "a" * 300 + ".example/",
        "http://a..example/",
    ],
)
async def test_an_address_that_is_none_is_unreachable(transport: Transport, url: str) -> None:
    with pytest.raises(Unreachable):
        await post(transport, url)


async def test_a_stalled_handshake_is_unreachable() -> None:
    """A connection that never gets ready has carried no request, however long the deadline is."""
    async with raw(silence) as server, Transport(connect_seconds=SHORT) as transport:
        with pytest.raises(Unreachable):
            await post(transport, server.url.replace("http:", "https:"))
    assert server.requests == []


async def test_a_server_without_tls_is_unreachable_over_https(transport: Transport) -> None:
    async with raw(b"", greeting=b"HTTP/1.1 400 Plain HTTP only\r\n\r\n") as server:
        with pytest.raises(Unreachable):
            await post(transport, server.url.replace("http:", "https:"))
    assert server.requests == []


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "server.pem"
    path.write_bytes(key.private_bytes(*form) + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_certificate_that_nobody_vouches_for_gets_no_request(transport: Transport, tmp_path: Path) -> None:
    async with raw(OK + b"Content-Length: 0\r\n\r\n", tls=_self_signed(tmp_path)) as server:
        with pytest.raises(Unreachable):
            await post(transport, server.url.replace("127.0.0.1", "localhost"))
        assert server.requests == []


BROKEN: dict[str, bytes | Saying] = {
    "nothing": b"",
    "reset": reset,
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": OK + b"Content-Length: 100\r\n\r\nstatus=Ok",
    "half the chunks": OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nstatus=Ok\r\n",
    "chunks without sizes": OK + b"Transfer-Encoding: chunked\r\n\r\nstatus=Ok\r\n\r\n",
    "a chunk of negative size": OK + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "a body only": b"status=Ok&pollurl=x",
    "noise": bytes(range(256)) * 8,
    "a status that is no number": b"HTTP/1.1 OK OK\r\n\r\n",
    "a negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a length that is no number": OK + b"Content-Length: many\r\n\r\nok",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\nok",
    "length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an endless header": OK + b"X: " + b"x" * 100_000 + b"\r\n\r\n",
    "endless headers": OK + b"X: y\r\n" * 20_000 + b"\r\n",
    "NUL in a header": OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("say", BROKEN.values(), ids=BROKEN)
async def test_a_broken_answer_is_ambiguous(transport: Transport, say: bytes | Saying) -> None:
    """The request was read, so anything may have happened: only a look-up can tell. It is sent once, never again."""
    async with raw(say) as server:
        with pytest.raises(Ambiguous):
            await post(transport, server.url)
        assert len(server.requests) == 1


async def test_a_connection_that_died_in_the_meantime_is_no_reason_to_send_twice(transport: Transport) -> None:
    """The second call reuses a connection and is dropped after it was read: ambiguous, and not repeated."""
    calls: list[bytes] = []

    async def answer_then_drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        calls.append(await _request(reader))

    async with raw(answer_then_drop) as server:
        assert (await post(transport, server.url, b"call=1")).body == b"ok"
        with pytest.raises(Ambiguous):
            await post(transport, server.url, b"call=2")
        assert [each[-6:] for each in (*server.requests, *calls)] == [b"call=1", b"call=2"]


async def test_a_server_that_hangs_holds_up_no_other_server() -> None:
    """Connections are counted per host: all of one host's are taken, another host answers."""
    async with (
        raw(silence) as slow,
        raw(OK + b"Content-Length: 2\r\n\r\nok") as healthy,
        Transport(connections_per_host=1, connect_seconds=SHORT) as transport,
    ):
        stuck = asyncio.create_task(post(transport, slow.url))
        await slow.asked.wait()
        with pytest.raises(Unreachable):  # it waited for a connection and never left
            await post(transport, slow.url)
        assert (await post(transport, healthy.url)).body == b"ok"
        assert len(slow.requests) == 1
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)


# --- the log

SECRET = "guid=7b0d-canary"


@pytest.mark.parametrize(
    ("say", "outcome"),
    [
        (OK + b"Content-Length: 0\r\n\r\n", "200"),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 302 Go\r\nLocation: /x?canary\r\nContent-Length: 0\r\n\r\n", "untrusted"),
        (b"", "ambiguous"),
        (None, "unreachable"),
    ],
)
async def test_each_call_is_one_log_line_without_its_address(
    transport: Transport, say: bytes | None, outcome: str
) -> None:
    """What was called, how it went, how long it took. Poll URLs are capabilities and bodies hold keys: neither shows,
    nor do they show in the error that people read."""
    told = ""
    with capture_logs() as lines:
        async with raw(say or b"") as server:
            url = server.url if say is not None else "http://127.0.0.1:1"
            try:
                await post(transport, f"{url}/poll?{SECRET}", b"id=1201&canary=1")
            except GatewayError as error:
                told = str(error)
    assert [(line["event"], line["call"], line["outcome"]) for line in lines] == [
        ("outside_call", "test.call", outcome)
    ]
    assert set(lines[0]) == {"event", "log_level", "call", "outcome", "milliseconds"}
    assert "canary" not in str(lines) + told
    assert "127.0.0.1" not in str(lines) + told


async def test_a_call_that_is_given_up_is_logged_too(transport: Transport) -> None:
    """The caller is cancelled (a shutdown, a customer who left): one line still says that something was sent."""
    with capture_logs() as lines:
        async with raw(silence) as server:
            call = asyncio.create_task(post(transport, server.url))
            await server.asked.wait()
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
    assert call.cancelled()
    assert [line["outcome"] for line in lines] == ["failed"]
