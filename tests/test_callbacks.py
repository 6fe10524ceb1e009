"""Callbacks over HTTP as strangers and Paynow send them: what is not genuine changes nothing and is told once."""

from __future__ import annotations

import asyncio
import gzip
import random
import string
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import msgspec
import pytest
from yarl import URL

from payments_service import reconcile
from payments_service.db import Database
from payments_service.public.keyring import Keyring
from payments_service.sandbox import wire
from payments_service.sandbox.wire import Pairs
from tests.house import Answer, House, eventually
from tests.support import FORM, Log, afresh, dump, open_house

OTHER_KEY = "0f0f0f0f-1111-4222-8333-944445555666"


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        house.world.sandbox.add_integration("1301", OTHER_KEY, "USD")
        yield house


@dataclass
class Scene:
    """A tenant with a pending payment at Paynow and one of ZiG, and another tenant with one of its own."""

    house: House
    other: House
    attempt: dict[str, Any]
    zig_attempt: dict[str, Any]
    other_attempt: dict[str, Any]
    log: Log

    @property
    def key(self) -> str:
        return self.house.world.sandbox.integrations["1201"].key

    def path(self, attempt: object = None, client: object = None) -> str:
        base = f"/callbacks/paynow/{client or self.house.client_id}"
        return base if attempt is None else f"{base}/{attempt}"

    def message(self, attempt: dict[str, Any] | None = None, **changes: str) -> Pairs:
        """What Paynow would say of the attempt, unsigned."""
        transaction = self.house.world.sandbox.find((attempt or self.attempt)["reference"])
        fields = {**dict(self.house.world.sandbox.message(transaction)), "status": "Paid", **changes}
        return [(name, value) for name, value in fields.items() if value != "ABSENT"]

    def signed(self, attempt: dict[str, Any] | None = None, key: str | None = None, **changes: str) -> bytes:
        return wire.encode(wire.sign(self.message(attempt, **changes), key or self.key))

    def at_other(self, **changes: str) -> tuple[bytes, str]:
        """A genuine message of the other tenant, and its address."""
        return self.signed(self.other_attempt, OTHER_KEY, **changes), self.path(None, self.other.client_id)

    async def post(self, body: bytes, path: str | None = None, **headers: str) -> Answer:
        where = self.path(self.attempt["id"]) if path is None else path
        return await self.house.get_public(where, method="POST", data=body, headers={**FORM, **headers})

    def dump(self) -> dict[str, list[str]]:
        return dump(self.house.world.database)

    def payment(self) -> dict[str, Any]:
        return self.house.world.one("SELECT * FROM payments WHERE id = %s", self.attempt["payment_id"])


def attempt_of(house: House, link: Any) -> dict[str, Any]:
    return house.world.one("SELECT * FROM attempts WHERE payment_id = %s", link["id"])


@pytest.fixture
async def scene(service: House, written_log: Path) -> Scene:
    house = afresh(service)
    house.world.sandbox.add_fault("never")
    other = replace(house, client_id=uuid4())
    await house.save_paynow()
    zig = house.world.sandbox.integrations["1202"].key
    fields = {"paynow_zig_integration_id": "1202", "paynow_zig_integration_key": zig}
    assert (await house.call("PATCH", house.path("/payment-settings"), fields)).status == 200
    await other.save_paynow(integration="1301")
    links = await house.create_link(), await house.create_link(currency="ZIG"), await other.create_link()
    owners = house, house, other
    # Nothing is due but what a callback makes due.
    house.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '1 day' WHERE next_check_at IS NOT NULL")
    attempts = [attempt_of(owner, link) for owner, link in zip(owners, links, strict=True)]
    return Scene(house, other, *attempts, Log(written_log))


# --- what is not genuine


def halved(body: bytes) -> bytes:
    return body[: len(body) // 2]


def without_hash(body: bytes) -> bytes:
    return body[: body.index(b"&hash=")]


# What is sent (and to which path, when not the attempt's own) -> words of the reason in the log.
REFUSED: dict[str, tuple[Callable[[Scene], bytes | tuple[bytes, str]], str]] = {
    "a wrong hash": (lambda s: without_hash(s.signed()) + b"&hash=" + b"A" * 128, "hash"),
    "no hash": (lambda s: without_hash(s.signed()), "hash"),
    "an empty hash": (lambda s: without_hash(s.signed()) + b"&hash=", "hash"),
    "a hash that is no ASCII": (lambda s: without_hash(s.signed()) + b"&hash=%c3%84", "hash"),
    "the hash of nothing": (lambda s: without_hash(s.signed()) + b"&hash=" + wire.digest([], s.key).encode(), "hash"),
    "another amount": (lambda s: s.signed().replace(b"amount=12.50", b"amount=0.01"), "hash"),
    "another status": (lambda s: s.signed(status="Sent").replace(b"status=Sent", b"status=Paid"), "hash"),
    "another reference": (lambda s: s.signed().replace(b"INV-1001", b"INV-1002"), "hash"),
    "a field more": (lambda s: s.signed() + b"&token=x", "hash"),
    "a tenant's own key as the hash": (lambda s: without_hash(s.signed()) + b"&hash=" + s.key.encode(), "hash"),
    "another tenant's signature": (lambda s: s.signed(key=OTHER_KEY), "hash"),
    "another tenant's whole message": (lambda s: s.signed(s.other_attempt, OTHER_KEY), "hash"),
    "another tenant's reference": (lambda s: (s.signed(s.other_attempt), s.path()), "no such attempt"),
    "another tenant's attempt": (
        lambda s: (s.signed(s.other_attempt), s.path(s.other_attempt["id"])),
        "no such attempt",
    ),
    "our message at another tenant": (lambda s: (s.signed(), s.path(s.attempt["id"], s.other.client_id)), "hash"),
    "another attempt in the address": (lambda s: (s.signed(), s.path(s.zig_attempt["id"])), "no such attempt"),
    "no attempt's id in the address": (lambda s: (s.signed(), s.path(uuid4())), "no such attempt"),
    "no id at all in the address": (lambda s: (s.signed(), s.path("x' OR 1=1 --")), "is not an id"),
    "the ZiG integration's signature": (
        lambda s: s.signed(key=s.house.world.sandbox.integrations["1202"].key),
        "no such attempt",
    ),
    "the USD integration's signature": (
        lambda s: (s.signed(s.zig_attempt), s.path(s.zig_attempt["id"])),
        "no such attempt",
    ),
    "an unknown reference": (lambda s: (s.signed(reference="INV-9-XXXXXXXX"), s.path()), "no such attempt"),
    "the tenant's own reference": (lambda s: (s.signed(reference="INV-1001"), s.path()), "no such attempt"),
    "a wildcard as the reference": (lambda s: (s.signed(reference="%"), s.path()), "no such attempt"),
    "no reference": (lambda s: s.at_other(reference="ABSENT"), "no reference"),
    "no status": (lambda s: s.at_other(status="ABSENT"), "no status"),
    "a blank status": (lambda s: s.at_other(status=" "), "no status"),
    "half of it": (lambda s: halved(s.signed()), ""),
    "no UTF-8": (lambda s: s.signed().replace(b"Paid", b"Pa%ff%fe"), "UTF-8"),
    "raw bytes": (lambda s: s.signed() + b"\xff\xfe", "UTF-8"),
    "UTF-16": (lambda s: s.signed().decode().encode("utf-16"), ""),
    "a NUL": (lambda s: s.signed(status="Paid\0"), "NUL"),
    "a field twice": (lambda s: s.signed() + b"&status=Sent", "twice"),
    "a field twice, in capitals": (lambda s: b"STATUS=Sent&" + s.signed(), "twice"),
    "the hash twice": (lambda s: s.signed() + b"&hash=x", "twice"),
    "the hash twice, in capitals": (lambda s: b"HASH=x&" + s.signed(), "twice"),
    "too many fields": (lambda s: b"&".join(b"f%d=1" % number for number in range(65)), "form"),
    "nothing": (lambda s: b"", ""),
    "blanks": (lambda s: b" \r\n ", ""),
    "words": (lambda s: b"Hello!", "form"),
    "JSON": (lambda s: msgspec.json.encode({"status": "Paid", "amount": "12.50"}), "form"),
    "XML": (lambda s: b"<?xml version='1.0'?><status>Paid</status>", ""),
    "sixty-four kilobytes": (lambda s: b"a=" + b"x" * 65_534, "hash"),
    "compressed": (lambda s: gzip.compress(s.signed()), ""),
    "no tenant in the address": (lambda s: (s.signed(), s.path(None, "acme")), "is not an id"),
    "a tenant's id and more": (lambda s: (s.signed(), s.path(None, f"{s.house.client_id}0")), "is not an id"),
    "an unknown tenant": (lambda s: (s.signed(), s.path(None, uuid4())), "no credentials"),
    "nobody": (lambda s: (s.signed(), s.path(None, UUID(int=0))), "no credentials"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_not_genuine_changes_nothing_and_is_told_once(scene: Scene, what: str) -> None:
    """200, because Paynow repeats everything else; no row of any table changes; one warning says why, and holds
    nothing of the key."""
    make, words = REFUSED[what]
    made = make(scene)
    body, path = made if isinstance(made, tuple) else (made, None)
    before, calls = scene.dump(), scene.house.world.sandbox.calls.copy()
    answer = await scene.post(body, quote(path, safe="/") if path else None)
    assert (answer.status, answer.body) == (200, b"OK")
    assert scene.dump() == before
    assert scene.house.world.sandbox.calls == calls
    (warning,) = scene.log.alarms()
    assert (warning["event"], warning["level"], warning["gateway"]) == ("callback_refused", "warning", "paynow")
    assert words in warning["detail"]
    assert warning["detail"]
    (line,) = scene.log.of("request")
    assert line["request_id"] == warning["request_id"] == answer.headers["X-Request-Id"]
    assert scene.key not in scene.log.text


@pytest.mark.parametrize("size", [65_537, 1_000_000])
async def test_a_large_body_is_refused_unread(scene: Scene, size: int) -> None:
    """413 over 64 kB, also when the message in front is genuine; nothing changes and no alarm is raised."""
    before = scene.dump()
    body = scene.signed() + b"&x=" + b"x" * size
    assert (await scene.post(body[:size])).status == 413
    assert scene.dump() == before
    assert scene.log.alarms() == []
    # Written when the rest of the body was thrown away.
    (line,) = await eventually(lambda: scene.log.of("request"))
    assert line["status"] == 413


async def test_only_post_and_only_known_addresses(scene: Scene) -> None:
    """405 and 404, never a 5xx; nothing changes."""
    before = scene.dump()
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
        for path in (scene.path(), scene.path(scene.attempt["id"])):
            answer = await scene.house.get_public(path, method=method, data=scene.signed())
            assert answer.status == 405
            assert answer.headers["Allow"] == "POST"
    for path in (
        "/callbacks",
        "/callbacks/",
        "/callbacks/paynow",
        "/callbacks/paynow/",
        scene.path("a/b"),
        "/callbacks/paypal/x",
    ):
        assert (await scene.post(scene.signed(), path)).status == 404, path
    assert scene.dump() == before
    assert scene.log.alarms() == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "multipart/form-data; boundary=x", "", "text/plain; charset=utf-16"]
)
async def test_the_type_that_is_announced_does_not_matter(scene: Scene, content_type: str) -> None:
    """Paynow's is undocumented: the bytes decide."""
    answer = await scene.post(scene.signed(), **{"Content-Type": content_type})
    assert (answer.status, answer.body) == (200, b"OK")
    assert len(scene.house.world.rows("SELECT FROM callbacks WHERE client_id = %s", scene.house.client_id)) == 1
    assert scene.log.alarms() == []


# --- what is genuine is a hint and no more


async def test_a_genuine_callback_moves_no_money_by_itself(scene: Scene) -> None:
    """Signed and right, but Paynow itself says Created when it is asked: the look-up is the proof."""
    before = scene.payment()
    for body in (
        scene.signed(),
        scene.signed(status="Refunded"),
        scene.signed(status="Cancelled"),
        scene.signed(amount="99999.00"),
    ):
        assert (await scene.post(body)).status == 200
        assert await reconcile.run_once(scene.house.world.context, "paynow") == 1
    assert scene.payment() == before
    assert scene.house.world.sandbox.calls["poll"] == 4
    assert scene.house.world.rows("SELECT FROM reviews WHERE client_id = %s", scene.house.client_id) == []


async def test_shifted_boundaries_keep_the_hash_and_move_nothing(scene: Scene) -> None:
    """`1|12.50` and `11|2.50` have the same hash: the message is kept, the truth is asked for."""
    fields = dict(wire.sign(scene.message(), scene.key))
    fields["amount"], fields["paynowreference"] = fields["amount"][1:], fields["paynowreference"] + fields["amount"][:1]
    assert (await scene.post(wire.encode(list(fields.items())))).status == 200
    assert scene.log.alarms() == []
    kept = scene.house.world.one("SELECT fields FROM callbacks WHERE client_id = %s", scene.house.client_id)
    assert kept["fields"]["amount"] == "2.50"
    assert await reconcile.run_once(scene.house.world.context, "paynow") == 1
    assert scene.payment()["status"] == "pending"


async def test_any_order_case_and_more_fields_are_taken(scene: Scene) -> None:
    """Capitals in the names, a small hash, blanks, unknown fields, the hash in front: still genuine."""
    message = [(name.upper(), f" {value} ") for name, value in reversed(scene.message())] + [("newfield", "ü €")]
    body = wire.encode([("Hash", wire.digest(message, scene.key).lower()), *message])
    assert (await scene.post(body)).status == 200
    assert scene.log.alarms() == []
    assert len(scene.house.world.rows("SELECT FROM callbacks WHERE client_id = %s", scene.house.client_id)) == 1


async def test_a_replay_adds_nothing(scene: Scene) -> None:
    """Fifty copies at once and, when the payment is settled, again: one row, one look-up, one event; then no change at
    all. An older message of the same payment does not take it back."""
    world = scene.house.world
    earlier, now = scene.signed(status="Sent"), scene.signed()
    assert (await scene.post(earlier)).status == 200
    await world.sandbox.pay(scene.attempt["reference"])
    answers = await asyncio.gather(*(scene.post(now) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert len(world.rows("SELECT FROM callbacks WHERE client_id = %s", scene.house.client_id)) == 2
    assert await reconcile.run_once(world.context, "paynow") == 1
    assert scene.payment()["status"] == "paid"
    before = scene.dump()
    for _ in range(3):
        assert (await scene.post(now)).status == 200
    assert scene.dump() == before
    assert await reconcile.run_once(world.context, "paynow") == 0
    assert (await scene.post(earlier)).status == 200
    await reconcile.run_once(world.context, "paynow")
    assert scene.payment()["status"] == "paid"
    told = world.rows("SELECT type FROM events WHERE payment_id = %s ORDER BY sequence", scene.attempt["payment_id"])
    assert [row["type"] for row in told] == ["payment.link_created", "payment.paid"]
    assert scene.log.alarms() == []


async def test_a_wrong_amount_that_the_gateway_confirms_is_for_a_person(scene: Scene) -> None:
    """One cent less, genuinely signed and confirmed by the poll: a review with the evidence, never paid."""
    world = scene.house.world
    await world.sandbox.pay(scene.attempt["reference"], "12.49")
    assert (await scene.post(scene.signed(amount="12.49"))).status == 200
    assert await reconcile.run_once(world.context, "paynow") == 1
    assert scene.payment()["status"] == "review"
    review = world.one("SELECT * FROM reviews WHERE payment_id = %s", scene.attempt["payment_id"])
    assert (review["reason"], review["evidence"]["amount_cents"]) == ("amount_mismatch", 1249)


async def test_replaced_credentials_are_read_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyring knows the old key: a callback with the new one makes it look again; one with the old key, of a
    payment that was started with it, verifies too."""
    world = scene.house.world
    assert (await scene.post(scene.signed(status="Sent"))).status == 200
    monkeypatch.setattr(Keyring, "YOUNG", 0.0)
    new = {"paynow_integration_id": "1301", "paynow_integration_key": OTHER_KEY}
    assert (await scene.house.call("PATCH", scene.house.path("/payment-settings"), new)).status == 200
    later = attempt_of(scene.house, await scene.house.create_link(reference="LATER"))
    await world.sandbox.pay(later["reference"])
    assert (await scene.post(scene.signed(later, OTHER_KEY), scene.path(later["id"]))).status == 200
    await world.sandbox.pay(scene.attempt["reference"])
    assert (await scene.post(scene.signed())).status == 200
    assert scene.log.alarms() == []
    assert await reconcile.run_once(world.context, "paynow") == 2
    states = world.rows(
        "SELECT status FROM payments WHERE id = ANY(%s)", [later["payment_id"], scene.attempt["payment_id"]]
    )
    assert {row["status"] for row in states} == {"paid"}


async def test_forgeries_do_not_make_us_read_credentials_each_time(scene: Scene) -> None:
    """A hundred forged callbacks of one tenant cost two readings at most; a genuine one among them counts."""
    readings = 0

    class Counting(Database):
        async def run(self, sql: str, values: Any, *, tenant: UUID | None = None) -> Any:
            nonlocal readings
            readings += "payment_settings" in sql
            return await super().run(sql, values, tenant=tenant)

    db = Counting(scene.house.world.database, size=2)
    await db.open()
    try:
        context = replace(scene.house.world.context, db=db)
        async with House.open(replace(scene.house.world, context=context), work=False) as house:
            forger = replace(scene, house=replace(house, client_id=scene.house.client_id))
            forged = [forger.post(scene.signed(key=str(uuid4()))) for _ in range(100)]
            answers = [await forger.post(scene.signed(status="Sent")), *await asyncio.gather(*forged)]
            answers.append(await forger.post(scene.signed()))
    finally:
        await db.close()
    assert {answer.status for answer in answers} == {200}
    assert readings <= 2
    assert len(scene.house.world.rows("SELECT FROM callbacks WHERE client_id = %s", scene.house.client_id)) == 2


async def test_without_a_database_paynow_is_answered_all_the_same(scene: Scene) -> None:
    """200 and one warning: the schedule finds later what this callback would have told."""
    context = replace(scene.house.world.context, db=Database(scene.house.world.database))  # never opened
    async with House.open(replace(scene.house.world, context=context), work=False) as house:
        away = replace(scene, house=replace(house, client_id=scene.house.client_id))
        assert (await away.post(scene.signed())).status == 200
    (warning,) = scene.log.alarms()
    assert (warning["event"], warning["reason"]) == ("callback_refused", "unavailable")


# --- garbage

_PIECES = (
    "callbacks",
    "paynow",
    "stripe",
    "whatsapp",
    "pay",
    "status",
    "livez",
    "readyz",
    "v1",
    "clients",
    "docs",
    "..",
    ".",
    "",
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "X")


def garbage(dice: random.Random, known: list[str]) -> bytes:
    text = "".join(dice.choices(string.printable + "äß漢🧾\0", k=dice.randrange(200))).encode()
    form = wire.encode([(dice.choice(known), dice.choice(known)) for _ in range(dice.randrange(12))])
    return dice.choice((b"", text, dice.randbytes(dice.randrange(300)), form, form + b"&" + text, b"[" * 5_000))


def address(dice: random.Random, known: list[str]) -> str:
    if dice.random() < 0.5:
        return dice.choice(("/callbacks/paynow/", "/callbacks/paynow/x/", "/pay/", "/pay/x/")) + quote(
            dice.choice(known), safe=""
        )
    pieces = [
        dice.choice(
            (
                dice.choice(_PIECES),
                quote(dice.choice(known), safe=""),
                quote(dice.randbytes(dice.randrange(9)), safe=""),
            )
        )
        for _ in range(dice.randrange(6))
    ]
    query = f"?returned={quote(dice.randbytes(3))}&n={dice.choice(known)}" if dice.random() < 0.2 else ""
    return "/" + "/".join(pieces) + quote(query, safe="?=&%")


async def test_five_hundred_pieces_of_garbage_change_nothing(scene: Scene) -> None:
    """Random methods, addresses, headers and bodies at the public listener, with real ids and fields among them: never
    a 5xx, never a change, never an error in the log."""
    dice = random.Random(random.randrange(2**32))
    known = [str(scene.house.client_id), str(scene.attempt["id"]), scene.attempt["reference"], "x" * 27, "A" * 200]
    known += [
        "hash",
        "status",
        "Paid",
        "reference",
        "amount",
        "-1",
        "1e9",
        "\0",
        "../../etc/passwd",
        "%00",
        "ünï",
        "\u202e",
    ]
    before = scene.dump()
    slots = asyncio.Semaphore(8)

    async def one() -> tuple[str, str, int]:
        method, path, data = dice.choice(_METHODS), address(dice, known), garbage(dice, known)
        headers = {
            "X-Request-Id": dice.choice(known[:5]),
            "Content-Type": dice.choice(("", "application/json", *FORM.values())),
        }
        url = URL(scene.house.public + path, encoded=True)
        async with (
            slots,
            scene.house.http.request(method, url, data=data, headers=headers, allow_redirects=False) as answer,
        ):
            await answer.read()
            return method, path, answer.status

    answers = await asyncio.gather(*(one() for _ in range(500)))
    assert [answer for answer in answers if answer[2] >= 500] == []
    assert scene.dump() == before
    assert {line["event"] for line in scene.log.alarms()} <= {"callback_refused"}
    assert {line["level"] for line in scene.log.alarms()} <= {"warning"}
