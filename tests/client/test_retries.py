"""A call against servers that fail in every way: tried again where that may help, and told apart where not."""

from __future__ import annotations

import asyncio
import pickle
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conva_payments import (
    GatewayTimeout,
    GatewayUnreachable,
    InternalError,
    Invalid,
    KeyReused,
    NoAnswer,
    Patience,
    Payment,
    Payments,
    PaymentsError,
    Problem,
    StillRunning,
    Told,
    TooManyRequests,
    Unavailable,
    UnexpectedAnswer,
    Unreadable,
    WrongState,
)
from conva_payments.patience import retry_after
from tests.documented import example_of
from tests.house import TOKEN

CLIENT, PAYMENT = uuid4(), uuid4()
CANARY = "sk_live_canary"
QUICK = Patience(try_seconds=0.3, wait_seconds=0.0)
DROP, STALL = b"", b"stall"
PAID = msgspec.json.encode(example_of({"schema": {"$ref": "#/components/schemas/Payment"}}))


def http(status: int, body: bytes, kind: str = "application/json", *, length: int | None = None, **more: str) -> bytes:
    """An answer as it goes over the wire. A `length` that is too long: the rest never comes."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", f"Content-Length: {length or len(body)}"]
    lines += ["Connection: close", *(f"{name.replace('_', '-')}: {value}" for name, value in more.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(status: int, code: str, *, headers: dict[str, str] | None = None, **more: object) -> bytes:
    details = {"type": "about:blank", "title": "t", "status": status, "detail": "why", "code": code, **more}
    return http(status, msgspec.json.encode(details), "application/problem+json", **headers or {})


MADE = http(201, PAID)


@dataclass
class Moody:
    """Answers each request with the next of `moods`: bytes as they are, nothing at all, or silence."""

    moods: list[bytes]
    asked: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @asynccontextmanager
    async def serve(self, patience: Patience = QUICK) -> AsyncIterator[Payments]:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server, Payments(f"http://127.0.0.1:{port}/", TOKEN, patience=patience) as payments:
            yield payments

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        self.asked.append((headers, await reader.readexactly(int(headers.get("Content-Length", 0)))))
        mood = self.moods.pop(0)
        if mood == STALL:
            await reader.read()  # until the client gives up
        writer.write(mood if mood != STALL else b"")
        writer.close()


async def make_link(payments: Payments, **more: Any) -> Payment:
    return await payments.create_link(
        CLIENT, gateway=None, amount_cents=1250, currency="USD", reference="INV-1", contact_id=uuid4(), **more
    )


WORTH_ANOTHER = {
    "the answer is lost": DROP,
    "no answer in time": STALL,
    "half an answer": http(201, PAID[:40], length=len(PAID)),
    "database away": problem(503, "unavailable", headers={"Retry_After": "0"}),
    "too often": problem(429, "too_many_requests", headers={"Retry_After": "0"}),
    "still running": problem(409, "idempotency_in_progress", headers={"Retry_After": "0"}),
    "the gateway was not reached, nothing on record": problem(503, "gateway_unreachable"),
    "a proxy's word": http(502, b"<h1>Bad Gateway</h1>", "text/html"),
}


@pytest.mark.parametrize("mood", WORTH_ANOTHER.values(), ids=WORTH_ANOTHER)
async def test_the_same_request_is_sent_again_under_the_same_key(mood: bytes) -> None:
    """Body, idempotency key and request id are those of the first try; the caller sees the answer alone."""
    moody = Moody([mood, mood, MADE])
    async with moody.serve() as payments:
        payment = await make_link(payments)
    assert str(payment.id) == msgspec.json.decode(PAID)["id"]
    assert len(moody.asked) == 3
    ((first, body), *others) = moody.asked
    assert UUID(first["Idempotency-Key"]).version == 4
    for headers, again in others:
        assert again == body
        assert [headers[name] for name in ("Idempotency-Key", "X-Request-Id")] == [
            first[name] for name in ("Idempotency-Key", "X-Request-Id")
        ]


FINAL: dict[str, tuple[bytes, type[PaymentsError]]] = {
    "gateway_timeout": (problem(504, "gateway_timeout", payment_id=PAYMENT), GatewayTimeout),
    "gateway_unreachable": (problem(503, "gateway_unreachable", payment_id=PAYMENT), GatewayUnreachable),
    "wrong_state": (problem(409, "wrong_state"), WrongState),
    "key_reused": (problem(422, "idempotency_key_reused"), KeyReused),
    "internal_error": (problem(500, "internal_error"), InternalError),
    "unreadable": (problem(503, "credentials_unreadable", headers={"Retry_After": "0"}), Unreadable),
    "a code of tomorrow": (problem(418, "of_tomorrow"), Problem),
    "not this API": (http(404, b"<h1>nginx</h1>", "text/html"), UnexpectedAnswer),
    "another shape": (http(201, b'{"id": 1}'), UnexpectedAnswer),
    "no JSON": (http(201, b"\xff"), UnexpectedAnswer),
    "a problem that is none": (http(503, b"[]", "application/problem+json"), UnexpectedAnswer),
    "elsewhere": (http(307, b"", Location="http://127.0.0.1:1/"), UnexpectedAnswer),
}


@pytest.mark.parametrize(("mood", "kind"), FINAL.values(), ids=FINAL)
async def test_what_another_try_cannot_mend_is_told_at_once(mood: bytes, kind: type[PaymentsError]) -> None:
    """One request; the exception's class says what it is, and it carries the key and the id of the call."""
    again = kind is UnexpectedAnswer and mood.startswith(b"HTTP/1.1 503")
    moody = Moody([mood] * (QUICK.tries if again else 1))
    async with moody.serve() as payments:
        with pytest.raises(kind) as raised:
            await make_link(payments, idempotency_key="invoice-7")
    headers = moody.asked[0][0]
    error = raised.value
    assert type(error) is kind
    assert moody.moods == []
    assert (error.idempotency_key, error.request_id) == ("invoice-7", headers["X-Request-Id"])
    assert error.payment_id == (PAYMENT if b"payment_id" in mood else None)


async def test_what_is_wrong_with_a_request_is_told_field_by_field() -> None:
    faults = [{"field": "amount_cents", "message": "must be at least 1"}]
    async with Moody([problem(422, "validation_failed", errors=faults)]).serve() as payments:
        with pytest.raises(Invalid, match="amount_cents: must be at least 1") as raised:
            await make_link(payments)
    assert [(fault.field, fault.message) for fault in raised.value.errors] == [("amount_cents", "must be at least 1")]


async def test_it_gives_up_and_leaves_the_key_to_go_on_with() -> None:
    """So many tries and no more; the key in the exception is the one that was sent."""
    moody = Moody([DROP] * QUICK.tries)
    async with moody.serve() as payments:
        with pytest.raises(NoAnswer) as raised:
            await payments.refund(CLIENT, PAYMENT, reason="torn")
    assert len(moody.asked) == QUICK.tries
    assert {headers["Idempotency-Key"] for headers, _ in moody.asked} == {raised.value.idempotency_key}


async def test_a_wait_beyond_the_deadline_is_the_callers() -> None:
    """An hour is not slept through: the exception says how long."""
    moody = Moody([problem(429, "too_many_requests", headers={"Retry_After": "3600"})])
    async with moody.serve() as payments:
        with pytest.raises(TooManyRequests) as raised:
            await make_link(payments)
    assert raised.value.retry_after == 3600


async def test_reading_is_tried_again_too() -> None:
    """A GET has no key, and needs none."""
    moody = Moody([DROP, http(200, PAID)])
    async with moody.serve() as payments:
        assert (await payments.payment(CLIENT, PAYMENT)).amount_cents > 0
    assert not any("Idempotency-Key" in headers for headers, _ in moody.asked)


async def test_a_file_that_breaks_off_is_not_taken_for_the_whole() -> None:
    """What came is handed on, then NoAnswer; before the first byte it is tried again."""
    got: list[bytes] = []

    async def download(payments: Payments) -> None:
        async for chunk in payments.payments_csv(CLIENT):
            got.append(chunk)  # noqa: PERF401 - what came before it broke off is wanted

    moody = Moody([DROP, http(200, b"id,created_at\r\n", "text/csv", length=1000)])
    async with moody.serve() as payments:
        with pytest.raises(NoAnswer, match="broke off"):
            await download(payments)
    assert b"".join(got) == b"id,created_at\r\n"


@given(
    st.sampled_from([NoAnswer, StillRunning, TooManyRequests, Unavailable]),
    st.integers(1, 10),
    st.none() | st.floats(0, 100),
)
def test_waits_grow_at_random_and_never_fall_below_what_was_asked(
    kind: type[PaymentsError], tried: int, asked: float | None
) -> None:
    """Between what `Retry-After` says and that with the doubled wait on top; none after the last try."""
    patience = Patience(tries=8, wait_seconds=0.5)
    wait = patience.wait(kind(Told(code="c", detail="d", retry_after=asked)), tried)
    if tried >= 8:
        assert wait is None
    else:
        assert wait is not None
        assert (asked or 0) <= wait <= (asked or 0) + 0.5 * 2 ** (tried - 1)


def test_retry_after_reads_both_forms() -> None:
    soon = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after({"Retry-After": " 7 "}) == 7
    assert 60 < (retry_after({"Retry-After": format_datetime(soon, usegmt=True)}) or 0) <= 90
    assert retry_after({"Retry-After": "Tue, 24 Nov 2020 11:00:00 GMT"}) == 0
    for nonsense in ("", "soon", "-5", "1.5", "٣"):
        assert retry_after({"Retry-After": nonsense}) is None


@pytest.mark.parametrize("mood", [DROP, problem(401, "unauthorized"), http(200, b"{}")])
async def test_no_secret_is_in_what_is_raised(mood: bytes) -> None:
    """Neither the token nor what was sent: not in the text, nor in the whole chain's traceback, nor pickled."""
    async with Moody([mood] * QUICK.tries).serve() as payments:
        with pytest.raises(PaymentsError) as raised:
            await payments.save_settings(CLIENT, stripe_secret_key=CANARY)
        assert TOKEN not in repr(payments) + repr(vars(payments))
    error = raised.value
    assert error.__cause__ is error.__context__ is None
    copied = pickle.loads(pickle.dumps(error))
    assert (type(copied), str(copied)) == (type(error), str(error))
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(pickle.dumps(error))
    assert TOKEN not in shown
    assert CANARY not in shown


async def test_what_cannot_be_sent_is_refused_before() -> None:
    """The mistake is named, and not the secret."""
    for address in ("payments.internal:8080", "ftp://x", "http://user:pass@payments", "http://"):
        with pytest.raises(ValueError, match="address"):
            Payments(address, TOKEN)
    for token in ("", "two words", "line\r\nbreak", "schlüssel"):
        with pytest.raises(ValueError, match="token must be") as raised:
            Payments("http://payments", token)
        assert not token or token not in str(raised.value)
    with pytest.raises(RuntimeError, match="async with"):
        await Payments("http://payments", TOKEN).payment(CLIENT, PAYMENT)
    async with Payments("http://127.0.0.1:1", TOKEN) as payments:
        for key in ("", "x" * 256, "two\nlines", "schlüssel"):
            with pytest.raises(ValueError, match="idempotency key"):
                await payments.cancel(CLIENT, PAYMENT, idempotency_key=key)
