"""Secrets of every kind are driven through the whole service, and then searched for in all that it wrote and said."""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import msgspec
import pytest
import structlog
from starlette.responses import Response

from payments_service import config, delivery
from payments_service.accounts import SECRETS
from payments_service.db import Database
from payments_service.gateways.paynow import Paynow
from payments_service.internal import schemas
from payments_service.money import Currency
from payments_service.sandbox import wire
from tests.house import Answer, House
from tests.support import FORM, Log, dump, open_house


def canary() -> str:
    """Letters only, so that no pattern of the scrubber removes it by luck: it must not be written at all."""
    return "".join(secrets.choice(string.ascii_letters) for _ in range(40))


@dataclass
class Canaries:
    """What is secret, what is personal, and the capability of a pay link, each unlike anything else."""

    credentials: dict[str, str] = field(default_factory=lambda: {name: canary() for name in sorted(SECRETS)})
    encryption: str = field(default_factory=canary)
    bearer: str = field(default_factory=canary)
    wrong_bearer: str = field(default_factory=canary)
    events: str = field(default_factory=lambda: "whsec_" + base64.b64encode(canary().encode()).decode())
    callback_token: str = field(default_factory=canary)
    email: str = field(default_factory=lambda: f"{canary()}@customer.example")
    phone: str = field(default_factory=lambda: "+26377" + "".join(secrets.choice(string.digits) for _ in range(9)))
    tokens: set[str] = field(default_factory=set)

    def secret(self) -> Iterator[str]:
        """Every secret, and the spellings in which it might slip through."""
        for value in (
            *self.credentials.values(), self.encryption, self.bearer, self.wrong_bearer, self.events,
            self.callback_token,
        ):  # fmt: skip
            yield value
            yield value.removeprefix("whsec_")
            yield quote(value, safe="")
            yield base64.b64encode(value.encode()).decode().rstrip("=")
            yield value.encode().hex()
            yield repr(value.encode())[2:-1]


@dataclass
class Talk:
    """Calls the service and keeps every answer, by the listener that gave it."""

    house: House
    canaries: Canaries
    inside: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    async def call(self, method: str, rest: str, body: object = None, **more: Any) -> Answer:
        more.setdefault("token", self.canaries.bearer)
        answer = await self.house.call(method, self.house.path(rest), body, **more)
        self.inside.append(f"{answer.status} {dict(answer.headers)} {answer.body.decode()}")
        return answer

    async def visit(self, path: str, method: str = "GET", data: Any = None, **more: Any) -> Answer:
        answer = await self.house.get_public(path, method=method, data=data, **more)
        # Where a customer is sent on is the gateway's own address, with what it put there.
        headers = {name: value for name, value in answer.headers.items() if name.lower() != "location"}
        self.outside.append(f"{answer.status} {headers} {answer.body.decode()}")
        return answer

    async def link(self, **changes: object) -> Any:
        person = {"contact_email": self.canaries.email, "contact_phone": self.canaries.phone}
        answer = await self.call("POST", "/payments/create-link", self.house.order(**{**person, **changes}))
        payment = answer.json
        if answer.status == 201:
            self.canaries.tokens.add(payment["page_url"].rpartition("/")[2])
        return payment

    def attempt(self, payment: Any) -> dict[str, Any]:
        return self.house.world.one("SELECT * FROM attempts WHERE payment_id = %s", payment["id"])


async def test_no_secret_comes_out_anywhere(
    postgres: str, written_log: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Success, refusals, lost answers, forgeries, failing statements, no database: whatever happens, no secret stands
    in the log, in an answer, on the screen or in plain in the database; of a customer's address, phone and pay link
    the log knows nothing, and the public pages nothing of address and phone."""
    canaries, log = Canaries(), Log(written_log)
    settings = {
        "encryption_secret": canaries.encryption,
        "service_tokens": f"backend:{canaries.bearer}",
        "events_secret": canaries.events,
    }
    monkeypatch.setattr(Paynow, "check_seconds", 1.0)
    async with open_house(postgres, **settings) as house:
        house.world.backend.secret = canaries.events
        house.world.sandbox.add_integration("1201", canaries.credentials["paynow_integration_key"])
        house.world.sandbox.extra_fields = [
            ("token", canaries.callback_token),
            ("paymentinstrument", canaries.phone),
            ("paymentinstrumentname", "VISA"),
        ]
        talk = Talk(house, canaries)
        await settings_come_and_go(talk)
        paid = await what_succeeds(talk)
        await what_the_gateway_spoils(talk)
        await what_strangers_send(talk, paid)
        await what_the_backend_spoils(talk)
        what_prints(talk)
        written = dump(house.world.database)
        await what_the_database_spoils(talk)
        search(talk, log, written, capfd.readouterr())
    assert len(log.lines) > 150
    assert {"debug", "info", "warning", "error"} <= {line["level"] for line in log.lines}


async def settings_come_and_go(talk: Talk) -> None:
    credentials = talk.canaries.credentials
    plain = {"paynow_integration_id": "1201", "display_name": "Acme Hardware"}
    answer = await talk.call("PATCH", "/payment-settings", {**credentials, **plain})
    assert answer.status == 200
    bodies: list[object] = [
        {name: f"{value}\0" for name, value in credentials.items()},
        {name: value * 20 for name, value in credentials.items()},
        {name: [value] for name, value in credentials.items()},
        {"ecocash_dialect": credentials["stripe_secret_key"]},
        {"paynow_integration_id": {"key": credentials["paynow_integration_key"]}},
        msgspec.json.encode(credentials)[:-1],
        msgspec.json.encode(list(credentials.values())),
        b"[" * 30_000 + credentials["stripe_secret_key"].encode(),
    ]
    for body in bodies:
        assert (await talk.call("PATCH", "/payment-settings", body)).status == 422
    wrong = talk.canaries.wrong_bearer
    for headers in (
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": f"Basic {talk.canaries.bearer}"},
        {"X-Api-Key": wrong, "Cookie": f"session={wrong}"},
    ):
        assert (await talk.call("GET", "/payment-settings", token=None, headers=headers)).status == 401
    for rest in (f"/payment-settings?token={wrong}", f"/{wrong}", f"/payments/{wrong}"):
        for token in (None, talk.canaries.bearer):
            await talk.call("GET", rest, token=token)
    await talk.call("GET", "/payment-settings", headers={"X-Request-Id": f"Bearer {talk.canaries.bearer}"})
    assert (await talk.call("GET", "/payment-settings")).json["paynow_configured"] is True


async def what_succeeds(talk: Talk) -> Any:
    """One is paid by callback, one by its page; all events are delivered."""
    world = talk.house.world
    first, second = await talk.link(), await talk.link(gateway=None)
    page = "/pay/" + second["page_url"].rpartition("/")[2]
    for path in (page, f"{page}?returned=1", f"{page}/status", "/readyz", "/livez"):
        assert (await talk.visit(path)).status == 200
    assert (await talk.visit(page, "POST", {"way": "paynow.web"})).status == 303
    for payment in (first, second):
        await world.sandbox.pay(talk.attempt(payment)["reference"])
    await world.sandbox.settled()
    assert {each.status for each in world.sandbox.deliveries} == {200}
    assert len(world.rows("SELECT FROM callbacks")) == 2
    await world.look_up("paynow")
    assert (await talk.visit(page)).status == 200
    for payment in (first, second):
        answer = await talk.call("GET", f"/payments/{payment['id']}")
        assert answer.json["status"] == "paid"
        await talk.call("GET", f"/payments/{payment['id']}/history")
        await talk.call("POST", f"/payments/{payment['id']}/cancel", headers={"X-Actor": "rudo"})
    await world.deliver()
    assert world.backend.refused == 0
    assert len(world.backend.received) == 4
    return first


async def what_the_gateway_spoils(talk: Talk) -> None:
    world, sandbox = talk.house.world, talk.house.world.sandbox
    echo = f"Bad request for {talk.canaries.email} {talk.canaries.phone}"
    for fault, text in (
        ("html", ""), ("empty", ""), ("truncated", ""), ("error500", ""), ("redirect", ""), ("wrong_hash", ""),
        ("poll_error", echo), ("huge", ""),
    ):  # fmt: skip
        sandbox.add_fault(fault, on=["initiate"], times=1, text=text)
        assert (await talk.link())["status"] in (422, 504)
    payment = await talk.link()
    for fault in ("html", "empty", "truncated", "error500", "redirect", "poll_wrong_hash", "poll_error"):
        planned = sandbox.add_fault(fault, on=["poll"], text=echo)
        world.clock.forward(seconds=6)
        await talk.call("POST", f"/payments/{payment['id']}/refresh")
        sandbox.faults.remove(planned)
    gateways: Any = world.context.gateways
    working = gateways["paynow"]
    gateways["paynow"] = Paynow(world.courier.transport, "http://127.0.0.1:1")
    assert (await talk.link())["code"] == "gateway_unreachable"
    gateways["paynow"] = working
    # Our own address comes back in a refusal.
    open_link = await talk.link(gateway=None)
    sandbox.add_fault("poll_error", on=["initiate"], times=1, text=f"Enter valid return url {open_link['page_url']}")
    assert (await talk.visit("/pay/" + open_link["page_url"].rpartition("/")[2], "POST")).status == 409
    # A key that is not the gateway's, and one that does not open.
    other = replace(talk.house, client_id=uuid4())
    talk = replace(talk, house=other)
    fields = {"paynow_integration_id": "1201", "paynow_integration_key": talk.canaries.credentials["innbucks_api_key"]}
    assert (await talk.call("PATCH", "/payment-settings", fields)).status == 200
    assert (await talk.link())["code"] == "gateway_refused"
    open_link = await talk.link(gateway=None)
    page = "/pay/" + open_link["page_url"].rpartition("/")[2]
    assert (await talk.visit(page, "POST")).status == 409
    world.rows_do(
        "UPDATE payment_settings SET paynow_integration_key_enc = (SELECT paynow_integration_key_enc "
        "FROM payment_settings WHERE client_id <> %s LIMIT 1) WHERE client_id = %s",
        other.client_id,
        other.client_id,
    )
    assert (await talk.link())["code"] == "credentials_unreadable"
    assert (await talk.visit(page, "POST")).status == 409


async def what_strangers_send(talk: Talk, paid: Any) -> None:
    """Forged callbacks that carry secrets and personal data, to right and wrong addresses."""
    house, canaries = talk.house, talk.canaries
    transaction = house.world.sandbox.find(talk.attempt(paid)["reference"])
    message = house.world.sandbox.message(transaction)
    genuine = wire.encode(wire.sign(message, canaries.credentials["paynow_integration_key"]))
    bodies = [
        genuine,
        genuine.replace(b"Paid", b"Sent"),
        genuine[:-9],
        genuine + b"&token=again",
        wire.encode([*message, ("hash", canaries.credentials["paynow_integration_key"])]),
        canaries.wrong_bearer.encode(),
        genuine + b"\xff",
        genuine + b"x" * 70_000,
    ]
    for body in bodies:
        for rest in (
            f"{house.client_id}",
            f"{house.client_id}/{canaries.wrong_bearer}",
            str(uuid4()),
            canaries.wrong_bearer,
        ):
            answer = await talk.visit(f"/callbacks/paynow/{rest}", "POST", body, headers=FORM)
            assert answer.status in (200, 413)
    for path in (f"/pay/{canaries.wrong_bearer}", f"/{canaries.wrong_bearer}", f"/pay/x?card={canaries.wrong_bearer}"):
        for method in ("GET", "POST", "DELETE"):
            await talk.visit(path, method, headers={"Cookie": canaries.wrong_bearer, "Referer": canaries.wrong_bearer})


async def what_the_backend_spoils(talk: Talk) -> None:
    """It repeats what it got, redirects, is not there."""
    world = talk.house.world
    await talk.link()
    echo = " ".join((*talk.canaries.tokens, talk.canaries.email, talk.canaries.phone))
    world.backend.answers = [Response(echo, 500), Response(status_code=302, headers={"Location": f"/{echo}"})]
    courier = world.courier
    for url in (courier.url, courier.url, f"http://user:{talk.canaries.wrong_bearer}@127.0.0.1:1/events"):
        await delivery.run_once(world.context, replace(courier, url=url))
        world.clock.forward(hours=1)


def what_prints(talk: Talk) -> None:
    """Whatever has a repr ends up in a log one day."""
    world, canaries = talk.house.world, talk.canaries
    values = {name.upper(): canary for name, canary in canaries.credentials.items()}
    faulty = {
        "ENCRYPTION_SECRET": canaries.bearer[:9],
        "SERVICE_TOKENS": canaries.bearer,
        "EVENTS_URL": canaries.events,
    }
    try:
        config.load(faulty | values)
    except config.ConfigError as error:
        structlog.get_logger().error("failed", exc_info=error, detail=str(error))
    parts = (
        world.settings,
        world.context,
        world.context.vault,
        world.courier,
        world.context.db.pool,
        world.context.gateways,
    )
    patch = schemas.SettingsPatch(**canaries.credentials)
    credentials = world.context.gateways["paynow"].credentials(
        {"paynow_integration_id": "1", "paynow_integration_key": canaries.credentials["paynow_integration_key"]},
        Currency.USD,
    )
    for each in (*parts, patch, credentials):
        structlog.get_logger().info("tried", detail=repr(each), outcome=each)
        talk.inside.append(f"{each} {each!r}")


async def what_the_database_spoils(talk: Talk) -> None:
    """Statements that fail with a whole row in their error, and no database at all."""
    world, credentials = talk.house.world, talk.canaries.credentials
    world.rows_do("ALTER TABLE payment_settings ADD CONSTRAINT odd CHECK (display_name <> 'odd')")
    answer = await talk.call("PATCH", "/payment-settings", {**credentials, "display_name": "odd"})
    assert (answer.status, answer.json["code"]) == (500, "internal_error")
    # The worker's errors hold the whole row: it is not behind the wall, which would keep PostgreSQL from showing it.
    world.rows_do("ALTER TABLE payments ADD CONSTRAINT unpaid CHECK (status <> 'paid') NOT VALID")
    payment = await talk.link()
    await world.sandbox.pay(talk.attempt(payment)["reference"])
    assert (await talk.call("GET", f"/payments/{payment['id']}")).json["status"] == "pending"
    world.rows_do("ALTER TABLE payments ADD CONSTRAINT odd CHECK (description <> 'odd')")
    for gateway in ("paynow", None):
        assert (await talk.link(description="odd", gateway=gateway))["status"] == 500
    world.rows_do("ALTER TABLE payments RENAME COLUMN late TO later")
    for token in talk.canaries.tokens:
        for method in ("GET", "POST"):
            await talk.visit(f"/pay/{token}", method)
    context = replace(world.context, db=Database(world.database))  # never opened
    async with House.open(replace(world, context=context), work=False) as house:
        away = replace(talk, house=replace(house, client_id=talk.house.client_id))
        assert (await away.call("PATCH", "/payment-settings", credentials)).status == 503
        assert (await away.link())["status"] == 503
        for token in talk.canaries.tokens:
            assert (await away.visit(f"/pay/{token}")).status == 503


def search(talk: Talk, log: Log, written: dict[str, list[str]], screen: Any) -> None:
    canaries = talk.canaries
    database = "\n".join(row for rows in written.values() for row in rows)
    inside, outside = "\n".join(talk.inside), "\n".join(talk.outside)
    password = urlsplit(talk.house.world.database).password or ""
    # The server of TEST_POSTGRES may have none, or a word that stands everywhere.
    passwords = [password] if len(password) > 16 else []
    assert len(canaries.tokens) > 3
    for secret in (*canaries.secret(), *passwords):
        for where, text in (
            ("the log", log.text), ("the internal answers", inside), ("the public answers", outside),
            ("the database", database), ("stdout", screen.out), ("stderr", screen.err),
        ):  # fmt: skip
            assert secret not in text, f"{where} holds a secret: {secret[:6]}…"
    person = (canaries.email, canaries.email.partition("@")[0], canaries.phone, canaries.phone[1:], *canaries.tokens)
    for personal in person:
        assert personal not in log.text, f"the log holds what is a person's: {personal[:6]}…"
        assert personal not in screen.out + screen.err
    for personal in person[:4]:
        assert personal not in outside, "a public page shows a customer's address or phone"
    # The database keeps what is the payment's own, where it belongs and in the events that tell of it.
    known = {"payments", "attempts", "events", "event_tries"}
    for table in written.keys() - known:
        assert not any(personal in row for personal in person for row in written[table]), table
