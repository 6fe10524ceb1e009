"""A payment in the database, by Stripe or another, told of by reports alone: for tests of what becomes of money that
came."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec

from payments_service.lifecycle import (
    DisputeReport,
    DisputeState,
    Outcome,
    RefundReport,
    RefundState,
    Report,
    Settlement,
)
from payments_service.money import Currency, Money
from payments_service.payments import absorb
from tests.house import World

ASKED = Money(1250, Currency.USD)


def refund(name: str, cents: int, state: RefundState = RefundState.SUCCEEDED, ours: UUID | None = None) -> RefundReport:
    return RefundReport(name, Money(cents, Currency.USD), state, ours)


def dispute(cents: int, state: DisputeState, name: str = "du_1") -> DisputeReport:
    return DisputeReport(name, Money(cents, Currency.USD), state)


def settled(*refunds: RefundReport, disputes: Sequence[DisputeReport] = (), total: int | None = None) -> Report:
    """What an event says: some refunds or disputes, or the sum of all refunds so far."""
    return Report(Outcome.SETTLED, "", settlement=Settlement(refunds, tuple(disputes), refunded_total=total))


@dataclass
class Till:
    """A payment of USD 12.50 with its link, and the attempt that is open. `intent` is how the gateway calls it."""

    world: World
    client_id: UUID = field(default_factory=uuid4)
    reference: str = "INV-1-K7M2P4XZ"
    intent: str = "pi_1"
    gateway: str = "stripe"
    payment_id: UUID = field(default_factory=uuid4)
    attempt_id: UUID = field(default_factory=uuid4)

    def __post_init__(self) -> None:
        self.world.rows_do(
            "INSERT INTO payments (id, client_id, gateway, reference, amount_cents, sequence) "
            "VALUES (%s, %s, %s, %s, 1250, 1)",
            self.payment_id,
            self.client_id,
            self.gateway,
            self.reference,
        )
        self.world.rows_do(
            "INSERT INTO transitions (payment_id, client_id, sequence, to_status, cause) "
            "VALUES (%s, %s, 1, 'pending', 'link')",
            self.payment_id,
            self.client_id,
        )
        self.world.rows_do(
            "INSERT INTO events (id, client_id, payment_id, type, sequence, body, state, delivered_at) "
            "VALUES (gen_random_uuid(), %s, %s, 'payment.link_created', 1, %s, 'delivered', now())",
            self.client_id,
            self.payment_id,
            f'{{"type":"payment.link_created","data":{{"id":"{self.payment_id}","client_id":"{self.client_id}",'
            '"amount_cents":1250,"status":"pending","refunded_cents":0,"sequence":1,"previous_status":null}}',
        )
        self.add_attempt(self.attempt_id, self.reference)

    def add_attempt(self, attempt_id: UUID, reference: str) -> None:
        """Another try, in the place of the one before."""
        self.world.rows_do(
            "UPDATE attempts SET state = 'replaced' WHERE payment_id = %s AND state = 'live'", self.payment_id
        )
        self.world.rows_do(
            "INSERT INTO attempts (id, payment_id, client_id, gateway, method, reference, amount_cents, currency, "
            "state, next_check_at) VALUES (%s, %s, %s, %s, 'card', %s, 1250, 'USD', 'live', "
            "now() + interval '10 years')",
            attempt_id,
            self.payment_id,
            self.client_id,
            self.gateway,
            reference,
        )

    async def absorb(self, *reports: Report, attempt_id: UUID | None = None) -> None:
        for report in reports:
            await absorb(self.world.context, attempt_id or self.attempt_id, report, next_check_at=self.much_later)

    @property
    def much_later(self) -> datetime:
        """Nobody looks the attempt up meanwhile."""
        return self.world.clock() + timedelta(days=3650)

    def paid(self, settlement: Settlement | None = None, **changes: str) -> Report:
        """What a look-up or a completed session says."""
        names = {"reference": self.reference, "gateway_reference": self.intent, **changes}
        return Report(Outcome.PAID, "complete, paid", ASKED, settlement=settlement, **names)

    @property
    def row(self) -> dict[str, Any]:
        return self.world.one("SELECT * FROM payments WHERE id = %s", self.payment_id)

    @property
    def now(self) -> tuple[str, int]:
        """The status and the refunded sum."""
        return self.row["status"], self.row["refunded_cents"]

    @property
    def told(self) -> list[tuple[str, int]]:
        """What the events told since the link: each status with its refunded sum."""
        return [(event["type"].removeprefix("payment."), event["data"]["refunded_cents"]) for event in self.events]

    @property
    def events(self) -> list[dict[str, Any]]:
        rows = self.world.rows(
            "SELECT body FROM events WHERE payment_id = %s AND sequence > 1 ORDER BY sequence", self.payment_id
        )
        return [msgspec.json.decode(row["body"]) for row in rows]

    def refunds(self) -> list[dict[str, Any]]:
        return self.world.rows("SELECT * FROM refunds WHERE payment_id = %s ORDER BY created_at, id", self.payment_id)

    def check_books(self) -> None:
        """Events and transitions follow each other without gaps, and the last event says what the row says."""
        check_books(self.world, self.payment_id)


def check_books(world: World, payment_id: object) -> None:
    """Every step has one transition and one event, in a row from 1; each begins where the last one ended."""
    row = world.one("SELECT status, sequence, refunded_cents FROM payments WHERE id = %s", payment_id)
    steps = world.rows("SELECT * FROM transitions WHERE payment_id = %s ORDER BY sequence", payment_id)
    bodies = world.rows("SELECT sequence, body FROM events WHERE payment_id = %s ORDER BY sequence", payment_id)
    numbers = list(range(1, row["sequence"] + 1))
    assert [step["sequence"] for step in steps] == numbers
    assert [body["sequence"] for body in bodies] == numbers
    for before, after in itertools.pairwise(steps):
        assert after["from_status"] == before["to_status"]
    data = [msgspec.json.decode(body["body"])["data"] for body in bodies]
    assert [each["status"] for each in data] == [step["to_status"] for step in steps]
    if data:
        last = data[-1]["status"], data[-1]["refunded_cents"]
        assert last == (row["status"], row["refunded_cents"])
