"""The example of a main backend, as it is, beside the whole service: from a tenant's keys to a paid invoice."""

from __future__ import annotations

import asyncio
import random
import shlex
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import msgspec
import pytest

from conva_payments import PaymentChange, Payments
from invoicing.app import create_app
from invoicing.books import Books
from payments_service import config, demo, workers
from payments_service.delivery import sign
from tests.house import ENCRYPTION_SECRET, EVENTS_SECRET, PAYNOW_ID, TOKEN, House, World, eventually
from tests.servers import serve


@pytest.fixture
async def service(world: World) -> AsyncIterator[House]:
    """Both listeners, no worker: each test says where its backend is."""
    async with House.open(world, work=False) as house:
        yield house


@dataclass
class Example:
    """The running example, as its own users call it."""

    house: House
    http: aiohttp.ClientSession
    url: str

    async def call(self, method: str, path: str, body: object = None, **more: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json", **more}
        async with self.http.request(method, self.url + path, data=data, headers=headers) as answer:
            return answer.status, msgspec.json.decode(await answer.read() or b"null")

    @property
    def tenant(self) -> str:
        return f"/tenants/{self.house.client_id}"

    async def save_paynow(self) -> Any:
        key = self.house.world.sandbox.integrations[PAYNOW_ID].key
        account = {"integration_id": PAYNOW_ID, "integration_key": key}
        return await self.call("PUT", f"{self.tenant}/paynow", account, **{"X-User": "ann@acme"})

    async def invoice_with_link(self, number: str = "INV-7") -> Any:
        """A new invoice, and its link asked for."""
        new = {"contact_id": uuid4(), "number": number, "amount_cents": 1250}
        status, invoice = await self.call("POST", f"{self.tenant}/invoices", new)
        assert status == 201, invoice
        return await self.call("POST", f"{self.tenant}/invoices/{invoice['id']}/link")

    async def invoices(self) -> list[Any]:
        status, found = await self.call("GET", f"{self.tenant}/invoices")
        assert status == 200
        return list(found)

    async def paid(self) -> list[int]:
        return [invoice["paid_cents"] for invoice in await self.invoices()]


@asynccontextmanager
async def example(
    house: House, http: aiohttp.ClientSession, books: Path, monkeypatch: pytest.MonkeyPatch, token: str = TOKEN
) -> AsyncIterator[Example]:
    """The example as a real server, with these books; the service tells it of events by its own worker."""
    for name, value in {
        "PAYMENTS_URL": house.internal,
        "PAYMENTS_TOKEN": token,
        "EVENTS_SECRET": EVENTS_SECRET,
        "BOOKS": str(books),
    }.items():
        monkeypatch.setenv(name, value)
    async with serve(create_app()) as url:
        yield Example(house, http, url)


@asynccontextmanager
async def delivering(house: House, url: str) -> AsyncIterator[None]:
    """The service's workers, with this EVENTS_URL."""
    stop = asyncio.Event()
    courier = replace(house.world.courier, url=f"{url}/payments-events")
    job = asyncio.create_task(workers.run(house.world.context, courier, stop))
    try:
        yield
    finally:
        stop.set()
        await job


async def pay(house: House, page_url: str, payment_id: str) -> None:
    """The customer chooses Paynow on the page and pays there, and the service knows it."""
    answer = await house.get_public(urlsplit(page_url).path, method="POST", data={"way": "paynow.web"})
    assert answer.status == 303, answer.body
    await house.world.sandbox.pay(house.reference_of({"id": payment_id}))
    payment = {"id": payment_id, "client_id": house.client_id}

    async def proved() -> bool:
        return bool((await house.payment(payment))["status"] == "paid")

    await eventually(proved)


async def test_an_invoice_is_paid(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys saved, link made once, customer pays, event comes, invoice is paid; a part is given back, and it is not."""
    async with example(service, http, tmp_path / "books", monkeypatch) as backend, delivering(service, backend.url):
        status, settings = await backend.save_paynow()
        assert (status, settings["paynow_configured"]) == (200, True)
        assert service.world.one("SELECT actor FROM audit_logs")["actor"] == "ann@acme"
        status, invoice = await backend.invoice_with_link()
        assert (status, invoice["paid_cents"]) == (200, 0)
        again = await backend.call("POST", f"{backend.tenant}/invoices/{invoice['id']}/link")
        assert again == (200, invoice)
        await pay(service, invoice["page_url"], invoice["payment_id"])
        await eventually(lambda: _is(backend, [1250]))
        assert (await backend.call("POST", f"{backend.tenant}/invoices/{invoice['id']}/link"))[0] == 409
        async with Payments(service.internal, TOKEN) as payments:
            back = {"amount_cents": 250, "reason": "torn", "manual": True, "evidence": "receipt 118"}
            made = await payments.refund(service.client_id, invoice["payment_id"], **back)
            assert (made.amount_cents, made.payment.net_cents) == (250, 1000)
            found = [each async for each in payments.payments(service.client_id, invoice_id=invoice["id"])]
            assert found == [made.payment]
            assert [entry.to_status for entry in await payments.history(service.client_id, made.payment_id)] == [
                "pending",
                "paid",
                "partially_refunded",
            ]
        await eventually(lambda: _is(backend, [1000]))


async def _is(backend: Example, paid: list[int]) -> bool:
    return await backend.paid() == paid


async def test_a_backend_that_was_down_catches_up(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is told to it: at its next start it asks, from where it stopped, and the invoice is paid."""
    books = tmp_path / "books"
    async with example(service, http, books, monkeypatch) as backend:
        await backend.save_paynow()
        _, first = await backend.invoice_with_link("INV-1")
        _, second = await backend.invoice_with_link("INV-2")
    await pay(service, first["page_url"], first["payment_id"])
    async with example(service, http, books, monkeypatch) as backend:
        await eventually(lambda: _is(backend, [1250, 0]))
    kept = await asyncio.to_thread(Books(books).cursor)
    assert kept is not None
    await pay(service, second["page_url"], second["payment_id"])
    async with example(service, http, books, monkeypatch) as backend:
        await eventually(lambda: _is(backend, [1250, 1250]))
    assert int(await asyncio.to_thread(Books(books).cursor) or 0) > int(kept)


async def test_shuffled_and_repeated_events_end_in_the_same_books(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bodies that the service wrote, posted eight at a time in any order, each three times: the books are those of
    one who was told everything once, in order."""
    async with example(service, http, tmp_path / "books", monkeypatch) as backend:
        await backend.save_paynow()
        made = [(await backend.invoice_with_link(f"INV-{number}"))[1] for number in range(3)]
        for invoice in made[:2]:
            await pay(service, invoice["page_url"], invoice["payment_id"])
        async with Payments(service.internal, TOKEN) as payments:
            for cents in (250, 1000):
                back = {"amount_cents": cents, "reason": "torn", "manual": True, "evidence": "receipt"}
                await payments.refund(service.client_id, made[0]["payment_id"], **back)
            await payments.cancel(service.client_id, made[2]["payment_id"])
        rows = service.world.rows("SELECT id, body FROM events ORDER BY created_at")
        assert len(rows) == 8
        events = [(str(row["id"]), row["body"].encode()) for row in rows]
        in_order = _copy(tmp_path / "books", tmp_path / "ordered")
        for _, body in events:
            in_order.apply(msgspec.convert(msgspec.json.decode(body)["data"], PaymentChange))
        shuffled = events * 3
        random.Random(3).shuffle(shuffled)
        slots = asyncio.Semaphore(8)

        async def post(event_id: str, body: bytes) -> int:
            async with slots:
                return (await backend.call("POST", "/payments-events", body, **headers_of(event_id, body)))[0]

        assert set(await asyncio.gather(*(post(*event) for event in shuffled))) == {204}
        assert await backend.paid() == [0, 1250, 0]
        ours, theirs = await backend.invoices(), in_order.invoices(service.client_id)
        assert [invoice["paid_cents"] for invoice in ours] == [invoice.paid_cents for invoice in theirs]
        assert [invoice["page_url"] for invoice in ours] == [invoice.page_url for invoice in theirs] == [None] * 3


async def test_a_message_that_arrived_pays_no_invoice_and_hides_no_payment(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event has the payment's own number: told before the payment's event with that number, it takes nothing of it.
    Whatever it says, the invoice is as it was; then the payment's event counts."""
    async with example(service, http, tmp_path / "books", monkeypatch) as backend:
        await backend.save_paynow()
        await backend.invoice_with_link()
        event = msgspec.json.decode(service.world.one("SELECT body FROM events")["body"])
        paid = {**event["data"], "status": "paid", "paid_at": event["timestamp"], "sequence": 2}
        message = dict.fromkeys(("code", "detail")) | {"id": str(uuid4()), "channel": "whatsapp", "state": "read"}
        message |= {"kind": "link", "form": "template"}
        told = {"message.delivered": {**paid, "message": message}, "payment.paid": paid}
        sums = []
        for kind, data in told.items():
            body = msgspec.json.encode({**event, "type": kind, "data": data})
            assert (await backend.call("POST", "/payments-events", body, **headers_of(kind, body)))[0] == 204
            sums += await backend.paid()
        assert sums == [0, 1250]


async def test_an_answer_of_long_ago_gives_no_dead_link(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link's answer was lost, and meanwhile an event told that it is over: what the key gives is not kept, and the
    next wish brings another link."""
    async with example(service, http, tmp_path / "books", monkeypatch) as backend:
        await backend.save_paynow()
        _, first = await backend.invoice_with_link()
        own = Books(tmp_path / "books")
        with own._transaction() as db:
            db.execute("UPDATE invoices SET payment_id = NULL, page_url = NULL")
        event = msgspec.json.decode(service.world.one("SELECT body FROM events")["body"])
        body = msgspec.json.encode(
            {**event, "type": "payment.expired", "data": {**event["data"], "status": "expired", "sequence": 2}}
        )
        assert (await backend.call("POST", "/payments-events", body, **headers_of("e-1", body)))[0] == 204
        wish = f"{backend.tenant}/invoices/{first['id']}/link"
        status, again = await backend.call("POST", wish)
        assert (status, again["page_url"]) == (200, None)
        status, fresh = await backend.call("POST", wish)
        assert status == 200
        assert fresh["page_url"] not in (None, first["page_url"])


def _copy(books: Path, to: Path) -> Books:
    to.write_bytes(books.read_bytes())
    return Books(to)


def headers_of(event_id: str, body: bytes, secret: str = EVENTS_SECRET) -> dict[str, str]:
    at = int(time.time())
    signature = sign(event_id, at, body, (secret,))
    return {"webhook-id": event_id, "webhook-timestamp": str(at), "webhook-signature": signature}


async def test_a_forged_event_changes_nothing(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed with another secret, or not at all: 401, and the invoice is as it was."""
    async with example(service, http, tmp_path / "books", monkeypatch) as backend:
        await backend.save_paynow()
        _, invoice = await backend.invoice_with_link()
        event = msgspec.json.decode(service.world.one("SELECT body FROM events")["body"])
        data = {**event["data"], "status": "paid", "paid_at": event["timestamp"], "sequence": 2}
        body = msgspec.json.encode({**event, "type": "payment.paid", "data": data})
        forged = headers_of("e-1", body, "whsec_b3RoZXItdGVzdHMtb25seS0wMTIzNDU2Nzg5YWJjZGVm")
        for headers in (forged, {}):
            status, said = await backend.call("POST", "/payments-events", body, **headers)
            assert status == 401
            assert "Not genuine" in said["detail"]
        assert await backend.paid() == [0]
        genuine = await backend.call("POST", "/payments-events", body, **headers_of("e-1", body))
        assert (genuine, await backend.paid()) == ((204, None), [1250])
        assert invoice["paid_cents"] == 0


async def test_what_the_service_refuses_is_told_and_can_be_mended(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A faulty request is told without the key in it. No credentials yet: told in the service's words. Once they are
    saved the same invoice gets its link, under a new key."""
    async with example(service, http, tmp_path / "books", monkeypatch) as backend:
        status, said = await backend.call("PUT", f"{backend.tenant}/paynow", {"integration_key": "key-canary"})
        assert (status, said["detail"][0]["loc"]) == (422, ["body", "integration_id"])
        assert "key-canary" not in str(said)
        status, refused = await backend.invoice_with_link()
        assert (status, refused["code"]) == (422, "gateway_not_configured")
        (before,) = await backend.invoices()
        await backend.save_paynow()
        status, invoice = await backend.call("POST", f"{backend.tenant}/invoices/{before['id']}/link")
        assert status == 200
        assert invoice["page_url"].startswith(service.public)
        assert (await backend.call("POST", f"{backend.tenant}/invoices/{uuid4()}/link"))[0] == 404


async def test_what_nobody_here_can_mend_is_for_later(
    service: House, http: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is no longer good: it starts all the same, lists its invoices, and answers 503 with the code."""
    async with example(service, http, tmp_path / "books", monkeypatch, token="of-yesterday-0123456789") as backend:
        status, said = await backend.invoice_with_link()
        assert (status, said["code"]) == (503, "unauthorized")
        assert await backend.paid() == [0]


def test_the_demo_prints_what_the_example_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With EVENTS_URL the demo tells that backend, and prints a line to export for it; by itself it takes its own."""
    monkeypatch.setenv("EVENTS_URL", "http://127.0.0.1:9000/payments-events")
    ports = demo.PORTS
    assert demo._events_url(ports, auto=True) == "http://127.0.0.1:8083/events"
    known = {"token": TOKEN, "events_secret": EVENTS_SECRET, "client_id": "c", "encryption_secret": ENCRYPTION_SECRET}
    settings = config.load(demo._environment(known, ports, demo._events_url(ports, auto=False)))
    assert settings.events_url == "http://127.0.0.1:9000/payments-events"
    demo._show(settings, known, ports, {"id": "p", "page_url": "u"})
    words = shlex.split(capsys.readouterr().out.partition("export ")[2].replace("\\\n", ""))
    assert dict(word.split("=", 1) for word in words) == {
        "PAYMENTS_URL": "http://127.0.0.1:8080",
        "PAYMENTS_TOKEN": TOKEN,
        "EVENTS_SECRET": EVENTS_SECRET,
        "TENANT": "c",
    }
