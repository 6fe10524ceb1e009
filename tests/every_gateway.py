"""Every way to pay, at the simulator behind it: for tests that go over all the gateways with the same few steps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from payments_service.sandbox.hands import WrongPin
from tests.house import Answer, Clock, House, World
from tests.till import check_books

DIALECTS = ("open_api", "eip", "eip_portal")


@dataclass(frozen=True, slots=True)
class Lane:
    """A way to pay by its key on the page; the tenant has EcoCash in this dialect."""

    way: str
    dialect: str = "open_api"

    @property
    def gateway(self) -> str:
        return self.way.partition(".")[0]

    def __str__(self) -> str:
        return f"ecocash {self.dialect}" if self.gateway == "ecocash" else self.way


ECOCASH = [Lane("ecocash.ecocash", dialect) for dialect in DIALECTS]
INNBUCKS, WEB, ONEMONEY, CARD = (
    Lane("innbucks.innbucks"),
    Lane("paynow.web"),
    Lane("paynow.onemoney"),
    Lane("stripe.card"),
)
LANES = [*ECOCASH, INNBUCKS, WEB, ONEMONEY, CARD]


@dataclass
class Still(Clock):
    """A clock that stands still until it is moved: what is measured by it does not depend on the machine."""

    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.since + self.ahead


def one_clock(world: World) -> None:
    """The simulators go by the service's clock."""
    world.ecocash.clock = world.clock
    world.innbucks.clock = world.stripe.clock = lambda: world.clock().timestamp()


def without_callbacks(world: World) -> None:
    """No gateway's message arrives."""
    world.sandbox.add_fault("never")
    world.ecocash.add_fault("never")
    world.stripe.drop_webhooks = True


@dataclass
class Desk:
    """A tenant who has every gateway, EcoCash in one dialect."""

    house: House
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @classmethod
    async def open(cls, house: House, dialect: str = "open_api") -> Desk:
        desk = cls(replace(house, client_id=uuid4()))
        await desk.house.save_paynow()
        await desk.house.save_stripe(webhook=False)
        await desk.house.save_ecocash(dialect=dialect)
        await desk.house.save_innbucks()
        await desk.settle(paynow_auth_email="till@acme.example")
        return desk

    @property
    def world(self) -> World:
        return self.house.world

    async def settle(self, **fields: str | None) -> None:
        answer = await self.house.call("PATCH", self.house.path("/payment-settings"), fields)
        assert answer.status == 200, answer.body

    # --- the customer on the page

    async def link(self, **changes: object) -> Any:
        return await self.house.create_link(**{"gateway": None, "reference": f"INV-{next(self.numbers)}", **changes})

    async def tap(self, payment: Any, way: str, **fields: str) -> Answer:
        """The form of the page, sent."""
        path = f"/pay/{payment['page_url'].rpartition('/')[2]}"
        return await self.house.get_public(path, method="POST", data={"way": way, **fields})

    async def begin(self, lane: Lane, **changes: object) -> Begun:
        """A payment that its customer has begun to pay, each from a phone of its own."""
        phone = f"07731{next(_phones):05d}"
        if lane in (WEB, CARD):
            # Such a link leads to the gateway's own page, which is open from the start.
            return Begun(self, lane, await self.link(gateway=lane.gateway, **changes), phone)
        # Paynow's would open its page first.
        gateway = lane.gateway if lane.gateway != "paynow" else None
        payment = await self.link(**{"gateway": gateway, **changes})
        answer = await self.tap(payment, lane.way, phone=phone)
        assert answer.status == 303, answer.body
        return Begun(self, lane, payment, phone)

    async def look(self) -> None:
        """Look-ups of all that is due by now, at every gateway."""
        await self.world.look_up()


_phones = itertools.count(1)


@dataclass
class Begun:
    """A payment and the try that its customer begun last; `pay` and the others are what the customer does."""

    desk: Desk
    lane: Lane
    payment: Any
    phone: str

    @property
    def world(self) -> World:
        return self.desk.world

    @property
    def id(self) -> UUID:
        return UUID(self.payment["id"])

    # --- our own books

    @property
    def row(self) -> dict[str, Any]:
        return self.world.one("SELECT * FROM payments WHERE id = %s", self.id)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        return self.world.rows("SELECT * FROM attempts WHERE payment_id = %s ORDER BY number", self.id)

    @property
    def attempt(self) -> dict[str, Any]:
        """The newest by this very way."""
        return [row for row in self.attempts if f"{row['gateway']}.{row['method']}" == self.lane.way][-1]

    @property
    def told(self) -> list[str]:
        """The events of the payment; the books are checked by the way."""
        check_books(self.world, self.id)
        rows = self.world.rows("SELECT type FROM events WHERE payment_id = %s ORDER BY sequence", self.id)
        return [row["type"].removeprefix("payment.") for row in rows]

    @property
    def reviews(self) -> list[dict[str, Any]]:
        return self.world.rows("SELECT * FROM reviews WHERE payment_id = %s ORDER BY opened_at, id", self.id)

    async def look(self, *, times: int = 1, **later: float) -> None:
        """So much later the payment is looked at, as the schedule does it."""
        for _ in range(times):
            self.world.clock.forward(**later or {"seconds": 31})
            due = "UPDATE attempts SET next_check_at = %s WHERE payment_id = %s AND next_check_at IS NOT NULL"
            self.world.rows_do(due, self.world.clock(), self.id)
            await self.desk.look()

    # --- the customer's hands

    @property
    def name(self) -> str:
        """How the gateway's simulator knows the try."""
        return str(self.attempt["id"]) if self.lane.gateway == "ecocash" else str(self.attempt["reference"])

    async def pay(self, cents: int | None = None, currency: str | None = None) -> None:
        """At once and in full, or so much, or in that currency, where the gateway lets them."""
        world, name = self.world, self.name
        major = None if cents is None else f"{Decimal(cents) / 100:.2f}"
        match self.lane.gateway:
            case "ecocash":
                await world.ecocash.pay(name, major, currency)
            case "innbucks":
                await world.innbucks.pay(name, cents)
            case "paynow":
                await world.sandbox.pay(name, major)
            case _:
                await world.stripe.pay(name, cents, currency)

    async def turn_down(self) -> None:
        """The customer does not want to; a card is declined, a code left alone until its end."""
        world, name = self.world, self.name
        match self.lane.gateway:
            case "ecocash":
                await world.ecocash.decline(name)
            case "innbucks":
                await world.innbucks.expire(name)
            case "paynow":
                await (world.sandbox.cancel if self.lane == WEB else world.sandbox.decline)(name)
            case _:
                await world.stripe.decline(name)

    async def mistype(self) -> None:
        """A wrong PIN, three times."""
        approve = self.world.ecocash.approve if self.lane.gateway == "ecocash" else self.world.sandbox.approve
        pin = "2222" if self.lane.gateway == "ecocash" else "0000"
        for _ in range(3):
            try:
                await approve(self.name, pin)
            except WrongPin:
                continue
            raise AssertionError("a wrong PIN was taken")

    async def pay_after_all(self) -> None:
        """What had ended unpaid is paid."""
        match self.lane.gateway:
            case "ecocash":
                await self.world.ecocash.complete_late(self.name)
            case "innbucks":
                await self.world.innbucks.pay_late(self.name)
            case "paynow":
                await self.world.sandbox.set_status(self.name, "Paid")
            case _:
                raise AssertionError("an ended session cannot be paid")

    async def say(self, word: str) -> None:
        """The gateway says this word of it from now on."""
        match self.lane.gateway:
            case "ecocash":
                await self.world.ecocash.set_status(self.name, word)
            case "innbucks":
                await self.world.innbucks.set_status(self.name, word)
            case _:
                await self.world.sandbox.set_status(self.name, word)

    async def hang(self) -> None:
        """The prompt never comes to an end."""
        if self.lane.gateway == "ecocash":
            await self.say(self.world.ecocash.find(self.name).words.pending[-1])


def money_at(world: World) -> dict[str, int]:
    """What the gateways have received: minor units by how each knows the try."""
    ecocash = {one.correlator: int(one.amount * 100) for one in world.ecocash.charges if one.paid}
    innbucks = {one.reference: one.paid_amount for one in world.innbucks.codes if one.paid_amount is not None}
    paynow = {one.reference: one.amount.minor for one in world.sandbox.transactions if one.status == "Paid"}
    stripe = {
        session["client_reference_id"]: session["amount_total"]
        for _, session in world.stripe.sessions()
        if session["payment_status"] == "paid"
    }
    by_uuid = {str(UUID(name)): cents for name, cents in ecocash.items()}
    return {**by_uuid, **innbucks, **paynow, **stripe}


def known_at(world: World) -> list[str]:
    """Every charge, code, transaction and session that there is, by how each gateway knows the try."""
    return [
        *(str(UUID(one.correlator)) for one in world.ecocash.charges),
        *(one.reference for one in world.innbucks.codes),
        *(one.reference for one in world.sandbox.transactions),
        *(session["client_reference_id"] for _, session in world.stripe.sessions()),
    ]
