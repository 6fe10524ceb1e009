"""A crash, or a lost answer, between every two durable steps: whatever had happened by then, the rest follows.

A durable step is a statement to the database or a call to the outside. Each flow runs again and again, interrupted
before and after its first step, its second and so on, until it passes through. Then another process recovers: what is
due is looked up and delivered with the clock moved on. The books must balance each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec
import psycopg
import pytest
from psycopg.rows import dict_row

from payments_service import checkout, delivery, links, payments, reconcile
from payments_service.app import public_app
from payments_service.checkout import Choice
from payments_service.context import Context
from payments_service.db import Database
from payments_service.delivery import Courier
from payments_service.errors import Ambiguous, PaymentsError, Unavailable, Unreachable
from payments_service.gateways import registry
from payments_service.gateways.transport import Reply, Transport
from payments_service.sandbox.paynow_ledger import Transaction, seal
from tests.house import Backend, World
from tests.scale import Way, ways_to_break_off
from tests.test_payments import CLIENT, attempt, order, save

T = TypeVar("T")

# More than any flow has.
MOST_STEPS = 40
# Paynow's words for money that came, and what a payment is then.
MONEY = {"Paid": "paid", "Disputed": "disputed", "Refunded": "refunded"}


# --- the books


@dataclass(frozen=True)
class Books:
    """All that stands in the database, read past the service."""

    payments: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    transitions: list[dict[str, Any]]
    events: list[dict[str, Any]]
    reviews: list[dict[str, Any]]

    @classmethod
    def read(cls, database: str) -> Books:
        with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
            return cls.of(connection)

    @classmethod
    def of(cls, connection: psycopg.Connection[dict[str, Any]]) -> Books:
        """As they stand at one moment."""
        with connection.transaction():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            tables = ("payments", "attempts", "transitions", "events", "reviews")
            return cls(*(connection.execute(f"SELECT * FROM {table}").fetchall() for table in tables))

    def check(self) -> None:
        """What must hold at every moment, also in the middle of a crash: no step without its event, no gaps."""
        for payment in self.payments:
            steps = self._of(payment, self.transitions)
            events = self._of(payment, self.events)
            numbers = list(range(1, payment["sequence"] + 1))
            assert [step["sequence"] for step in steps] == numbers, payment
            assert [event["sequence"] for event in events] == numbers, payment
            for step, event in zip(steps, events, strict=True):
                _check_event(step, event)
            for before, after in itertools.pairwise(steps):
                assert after["from_status"] == before["to_status"], steps
            assert payment["status"] == (steps[-1]["to_status"] if steps else "pending"), payment
            counted = [step["to_status"] for step in steps]
            # Only a dispute that was settled leads to paid a second time.
            assert counted.count("paid") <= 1 + counted.count("disputed"), counted
        for one in self.attempts:
            assert one["state"] != "starting" or one["next_check_at"] is not None, one
        begun = {one["payment_id"] for one in self.attempts if one["state"] == "starting"}
        for payment in self.payments:
            assert payment["sequence"] > 0 or payment["id"] in begun, "a payment that nobody watches or knows of"

    def check_against(self, transactions: list[Transaction]) -> None:
        """The gateway's truth: the money that it has is counted here, once, and no other money is."""
        by_reference = {one["reference"]: one for one in self.attempts}
        by_id = {payment["id"]: payment for payment in self.payments}
        with_money = [one for one in transactions if one.status in MONEY]
        for transaction in with_money:
            payment = by_id[by_reference[transaction.reference]["payment_id"]]
            reviewed = any(review["payment_id"] == payment["id"] for review in self.reviews)
            assert payment["status"] == ("review" if reviewed else MONEY[transaction.status]), (transaction, payment)
        proved = {by_reference[one.reference]["payment_id"]: one.amount.minor for one in with_money}
        for payment in self.payments:
            if payment["status"] not in MONEY.values():
                continue
            assert proved.get(payment["id"]) == payment["amount_cents"], payment

    def check_told(self, backend: Backend) -> None:
        """The backend got every event at least once, each with one body only, and that is the stored one."""
        assert backend.refused == 0
        assert {event["state"] for event in self.events} <= {"delivered"}
        stored = {str(event["id"]): {event["body"].encode()} for event in self.events}
        assert backend.bodies == stored

    def check_settled(self) -> None:
        """Nothing is stuck: every start has its answer, and what is pending is watched or waits for the customer."""
        for one in self.attempts:
            assert one["state"] != "starting", one
            assert one["state"] != "live" or one["next_check_at"] is not None, one

    def _of(self, payment: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return sorted((row for row in rows if row["payment_id"] == payment["id"]), key=lambda row: row["sequence"])


def _check_event(step: dict[str, Any], event: dict[str, Any]) -> None:
    body = msgspec.json.decode(event["body"])
    kind = "link_created" if step["to_status"] == "pending" else step["to_status"]
    assert event["type"] == body["type"] == f"payment.{kind}"
    assert body["data"]["id"] == str(event["payment_id"])
    assert body["data"]["sequence"] == step["sequence"]
    assert body["data"]["status"] == step["to_status"]
    assert body["data"]["previous_status"] == step["from_status"]


# --- the interruption


class Crash(BaseException):
    """The process ends here: nothing of ours catches it."""


@dataclass
class Steps:
    """Counts the durable steps and interrupts one: the process dies, or only the step's answer is lost."""

    at: int
    after: bool
    dies: bool
    taken: list[str] = field(default_factory=list)
    dead: bool = False

    @classmethod
    def cut(cls, at: int, way: Way) -> Steps:
        dies, after = way(at)
        return cls(at, after, dies)

    async def take(self, what: str, step: Callable[[], Awaitable[T]], lost: PaymentsError) -> T:
        if self.dead:
            raise Crash
        self.taken.append(what)
        if len(self.taken) != self.at:
            return await step()
        if self.after:
            await step()
        if self.dies:
            self.dead = True
            raise Crash
        raise lost

    @property
    def passed(self) -> bool:
        return len(self.taken) < self.at

    def __str__(self) -> str:
        how = "a crash" if self.dies else "a lost answer"
        where = "after" if self.after else "before"
        return f"{how} {where} step {self.at} of {[' '.join(step.split())[:60] for step in self.taken]}"


@dataclass
class FaultyDatabase:
    real: Database
    steps: Steps

    async def run(self, sql: str, values: Any, *, tenant: UUID | None = None) -> list[Any]:
        return await self.steps.take(
            sql, lambda: self.real.run(sql, values, tenant=tenant), Unavailable("the connection broke")
        )


@dataclass
class FaultyTransport:
    real: Transport
    steps: Steps

    async def post(self, what: str, *arguments: Any, **more: Any) -> Reply:
        lost = Ambiguous("no answer came") if self.steps.after else Unreachable("it never left")
        return await self.steps.take(what, lambda: self.real.post(what, *arguments, **more), lost)


def faulty(world: World, steps: Steps) -> tuple[Context, Courier]:
    """The service's parts as the world has them, with every durable step counted."""
    transport = cast(Transport, FaultyTransport(world.courier.transport, steps))
    database = cast(Database, FaultyDatabase(world.context.db, steps))
    context = replace(world.context, db=database, gateways=registry.build(transport, world.settings))
    return context, replace(world.courier, transport=transport)


# --- the recovery


async def recover(world: World) -> None:
    """Another process takes over, at once, after the leases and after the graces: look-ups, expiry, deliveries."""
    for seconds in (0, 31, 125):
        world.clock.forward(seconds=seconds)
        for _ in range(MOST_STEPS):
            if not await reconcile.run_once(world.context, "paynow"):
                break
        await payments.expire_due(world.context)
        for _ in range(MOST_STEPS):
            if not await delivery.run_once(world.context, world.courier):
                break


async def pay_what_is_open(world: World) -> int:
    """Each customer pays, once: money may come by any attempt that the gateway knows. How many paid."""
    paid = 0
    owner = {row["reference"]: row["payment_id"] for row in world.rows("SELECT reference, payment_id FROM attempts")}
    settled = {owner[one.reference] for one in world.sandbox.transactions if one.status in MONEY}
    for transaction in reversed(world.sandbox.transactions):
        payment_id = owner[transaction.reference]
        if transaction.open and payment_id not in settled:
            settled.add(payment_id)
            await world.sandbox.pay(transaction.reference)
            paid += 1
    return paid


def check(world: World) -> None:
    books = Books.of(world.behind)
    books.check()
    books.check_settled()
    books.check_against(world.sandbox.transactions)
    books.check_told(world.backend)


# --- the flows: what stands before, and what is interrupted

Prepare = Callable[[World, int], Awaitable[Any]]
Act = Callable[[World, Context, Courier, Any], Awaitable[object]]


async def nothing(_world: World, number: int) -> int:
    return number


async def make_link(world: World, context: Context, _courier: Courier, number: int) -> None:
    await links.create_link(context, CLIENT, order(world, reference=f"INV-{number}"))


async def make_open_link(world: World, context: Context, _courier: Courier, number: int) -> None:
    await links.create_link(context, CLIENT, order(world, reference=f"INV-{number}", gateway=None))


async def odd_answer(world: World, number: int) -> int:
    world.sandbox.add_fault("html", reference=f"INV-{number}", on=["initiate"])
    return number


async def inactive(world: World, number: int) -> int:
    world.sandbox.integrations["1201"].active = False
    return number


async def make_refused_link(world: World, context: Context, courier: Courier, number: int) -> None:
    try:
        await make_link(world, context, courier, number)
    finally:
        world.sandbox.integrations["1201"].active = True


async def open_link(world: World, number: int) -> str:
    email = "tendai@example.com"  # opens the ways that need one
    values = order(world, reference=f"INV-{number}", gateway=None, contact_email=email)
    payment = await links.create_link(world.context, CLIENT, values)
    return str(world.one("SELECT page_token FROM payments WHERE id = %s", payment.id)["page_token"])


async def traced_link(world: World, number: int) -> str:
    """Its address was lost with the answer: the customer's tap replaces the attempt."""
    await odd_answer(world, number)
    with suppress(PaymentsError):
        await links.create_link(world.context, CLIENT, order(world, reference=f"INV-{number}"))
    world.sandbox.clear_faults(f"INV-{number}")
    world.clock.forward(seconds=10)
    assert await reconcile.run_once(world.context, "paynow")
    world.clock.forward(seconds=2)
    payment = world.one("SELECT page_token, sequence FROM payments WHERE reference = %s", f"INV-{number}")
    assert payment["sequence"] == 1
    return str(payment["page_token"])


async def press_pay(_world: World, context: Context, _courier: Courier, token: str) -> None:
    await checkout.pay(context, token)


def tap(method: str) -> Act:
    async def act(_world: World, context: Context, _courier: Courier, token: str) -> None:
        await checkout.pay(context, token, Choice(f"paynow.{method}", "077 212 3456"))

    return act


async def prompted_link(world: World, number: int) -> str:
    """A prompt is on the customer's phone."""
    token = await open_link(world, number)
    await checkout.pay(world.context, token, Choice("paynow.ecocash", "077 212 3456"))
    world.clock.forward(seconds=10)
    return token


async def otp_link(world: World, number: int) -> str:
    token = await open_link(world, number)
    await checkout.pay(world.context, token, Choice("paynow.omari", "077 212 3456"))
    world.clock.forward(seconds=10)
    return token


async def type_otp(world: World, context: Context, _courier: Courier, token: str) -> None:
    row = await checkout.read(world.context, token)
    await checkout.enter_otp(context, token, world.sandbox.otp_of(row["attempt_reference"]), tries=0)


async def link_of(world: World, number: int) -> UUID:
    payment = await links.create_link(world.context, CLIENT, order(world, reference=f"INV-{number}"))
    world.clock.forward(seconds=10)
    return payment.id


def said(word: str) -> Prepare:
    async def prepare(world: World, number: int) -> UUID:
        payment_id = await link_of(world, number)
        await world.sandbox.set_status(attempt(world, payment_id)["reference"], word)
        return payment_id

    return prepare


async def another_amount(world: World, number: int) -> UUID:
    payment_id = await link_of(world, number)
    await world.sandbox.pay(attempt(world, payment_id)["reference"], "12.49")
    return payment_id


def after_paid(word: str) -> Prepare:
    async def prepare(world: World, number: int) -> UUID:
        payment_id = await said("Paid")(world, number)
        assert await reconcile.look_now(world.context, payment_id)
        await world.sandbox.set_status(attempt(world, payment_id)["reference"], word)
        world.rows_do("UPDATE attempts SET next_check_at = now() WHERE payment_id = %s", payment_id)
        return payment_id

    return prepare


async def paid_after_cancel(world: World, number: int) -> UUID:
    payment_id = await link_of(world, number)
    await payments.cancel(world.context, CLIENT, payment_id, actor="test")
    await world.sandbox.pay(attempt(world, payment_id)["reference"])
    return payment_id


async def paid_twice(world: World, number: int) -> UUID:
    """The first attempt failed, the second was paid, and now the first is paid as well."""
    payment_id = await said("Cancelled")(world, number)
    assert await reconcile.look_now(world.context, payment_id)
    first = attempt(world, payment_id)["reference"]
    token = world.one("SELECT page_token FROM payments WHERE id = %s", payment_id)["page_token"]
    assert await checkout.pay(world.context, token)
    await world.sandbox.pay(attempt(world, payment_id)["reference"])
    world.clock.forward(seconds=10)
    assert await reconcile.look_now(world.context, payment_id)
    await world.sandbox.set_status(first, "Paid")
    world.rows_do("UPDATE attempts SET next_check_at = now() WHERE reference = %s", first)
    return payment_id


async def look_up(_world: World, context: Context, _courier: Courier, _payment_id: UUID) -> None:
    await reconcile.run_once(context, "paynow")


async def look_because_somebody_waits(_world: World, context: Context, _courier: Courier, payment_id: UUID) -> None:
    await reconcile.look_soon(context, payment_id)
    await reconcile.look_now(context, payment_id)


async def call_back(world: World, context: Context, _courier: Courier, payment_id: UUID) -> None:
    """Paynow's message, through the public listener's whole application."""
    transaction = world.sandbox.find(attempt(world, payment_id)["reference"])
    body = seal(world.sandbox.message(transaction), transaction.integration.key, [])
    assert await posted(public_app(context), f"/callbacks/paynow/{CLIENT}", body) == 200


async def posted(app: Any, path: str, body: bytes) -> int:
    """The HTTP status of a POST to an ASGI app in this very task: a crash comes through to here."""
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    await app({**scope, "headers": headers, "http_version": "1.1", "scheme": "http", "state": {}}, receive, send)
    return int(statuses[0])


async def withdraw(_world: World, context: Context, _courier: Courier, payment_id: UUID) -> None:
    await payments.cancel(context, CLIENT, payment_id, actor="test")


async def over(world: World, number: int) -> UUID:
    """The link's time is over and the gateway's last word came after that."""
    expires_at = world.clock() + reconcile.LEASE
    values = order(world, reference=f"INV-{number}", expires_at=expires_at)
    payment = await links.create_link(world.context, CLIENT, values)
    world.clock.forward(seconds=35)
    await reconcile.run_once(world.context, "paynow")
    return payment.id


async def expire(_world: World, context: Context, _courier: Courier, _payment_id: UUID) -> None:
    await payments.expire_due(context)


async def deliver(_world: World, context: Context, courier: Courier, _payment_id: UUID) -> None:
    await delivery.run_once(context, courier)


FLOWS: dict[str, tuple[Prepare, Act]] = {
    "create_link": (nothing, make_link),
    "create_link, odd answer": (odd_answer, make_link),
    "create_link, refused": (inactive, make_refused_link),
    "create_link, gateway open": (nothing, make_open_link),
    "pay page, first attempt": (open_link, press_pay),
    "pay page, attempt replaced": (traced_link, press_pay),
    "pay page, prompt": (open_link, tap("ecocash")),
    "pay page, code": (open_link, tap("innbucks")),
    "pay page, another way": (prompted_link, tap("onemoney")),
    "pay page, one-time password": (otp_link, type_otp),
    "look-up, pending": (link_of, look_up),
    "look-up, paid": (said("Paid"), look_up),
    "look-up, failed": (said("Cancelled"), look_up),
    "look-up, another amount": (another_amount, look_up),
    "look-up, second payment": (paid_twice, look_up),
    "look-up, disputed": (after_paid("Disputed"), look_up),
    "look-up, refunded": (after_paid("Refunded"), look_up),
    "look-up, late": (paid_after_cancel, look_up),
    "look-up, somebody waits": (said("Paid"), look_because_somebody_waits),
    "callback": (said("Paid"), call_back),
    "cancel": (link_of, withdraw),
    "cancel, paid already": (said("Paid"), withdraw),
    "expiry": (over, expire),
    "delivery": (said("Paid"), deliver),
}


@pytest.mark.parametrize("flow", FLOWS)
async def test_whatever_step_is_cut_off_the_rest_follows(world: World, flow: str) -> None:
    """No money is lost, none is counted twice, every change has its one event, and nothing is stuck."""
    await save(world)
    world.sandbox.add_fault("never")
    numbers = itertools.count(1)
    for way in ways_to_break_off():
        for at in range(1, MOST_STEPS):
            steps = Steps.cut(at, way)
            try:
                await cut_off(world, flow, steps, next(numbers))
            except AssertionError as error:
                error.add_note(f"{flow}: {steps}")
                raise
            if steps.passed:
                break
        else:
            pytest.fail("the flow never passed through")


async def cut_off(world: World, flow: str, steps: Steps, number: int) -> None:
    prepare, act = FLOWS[flow]
    stage = await prepare(world, number)
    context, courier = faulty(world, steps)
    with suppress(Crash, PaymentsError):
        await act(world, context, courier, stage)
    Books.of(world.behind).check()
    await recover(world)
    check(world)
    if await pay_what_is_open(world):
        await recover(world)
        check(world)
    # What holds by now need not be looked up again and again by every later round.
    world.rows_do("UPDATE attempts SET next_check_at = now() + interval '9 years' WHERE next_check_at IS NOT NULL")
