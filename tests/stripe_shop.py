"""A tenant with a Stripe account of its own at the simulator, in a service without workers: for tests over HTTP."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec

from payments_service import reconcile
from payments_service.sandbox.stripe import StripeSandbox
from payments_service.sandbox.stripe_accounts import Account
from tests.house import Answer, House, World, eventually
from tests.support import afresh, open_house
from tests.till import check_books

CARD = {"way": "stripe.card"}
_numbers = itertools.count(1)


@asynccontextmanager
async def open_service(postgres: str, **settings: str) -> AsyncIterator[House]:
    """The service, its clock and Stripe's being one."""
    async with open_house(postgres, **settings) as house:
        house.world.stripe.clock = lambda: house.world.clock().timestamp()
        yield house


def new_key(mode: str = "test") -> str:
    """A secret key that no account has yet."""
    return f"sk_{mode}_{next(_numbers):04}{uuid4().hex}"


@dataclass
class Shop:
    """The tenant. `secret` signs the events of its endpoint."""

    house: House
    account: Account
    secret: str

    @classmethod
    async def open(cls, service: House, *, webhook: bool = True) -> Shop:
        """A tenant that the service has never seen; what others left behind is not looked at any more."""
        house = afresh(service)
        house.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
        account = house.world.stripe.add_account(new_key())
        return cls(house, account, await house.save_stripe(key=account.key, webhook=webhook))

    @property
    def world(self) -> World:
        return self.house.world

    @property
    def stripe(self) -> StripeSandbox:
        return self.world.stripe

    @property
    def client_id(self) -> UUID:
        return self.house.client_id

    def forward(self, **by: float) -> None:
        self.world.clock.forward(**by)

    # --- payments

    async def link(self, **changes: object) -> Any:
        return await self.house.create_link(**{"gateway": "stripe", **changes})

    async def paid(self, **changes: object) -> Any:
        """A payment that a card has paid, as its webhook has told."""
        payment = await self.link(**changes)
        await self.stripe.pay(self.reference(payment))
        return await self.until(payment, "paid")

    def reference(self, payment: Any) -> str:
        return self.house.reference_of(payment)

    def attempt(self, payment: Any) -> dict[str, Any]:
        """The newest."""
        return self.world.rows(
            "SELECT * FROM attempts WHERE payment_id = %s ORDER BY started_at DESC LIMIT 1", payment["id"]
        )[0]

    async def until(self, payment: Any, status: str, refunded: int | None = None) -> Any:
        """Wait until the payment has this status and sum, without asking for a look-up; the payment then."""

        def reached() -> bool:
            now = self.now(payment)
            return now[0] == status and refunded in (None, now[1])

        await eventually(reached, every=0.01)
        return await self.house.payment(payment)

    def now(self, payment: Any) -> tuple[str, int]:
        """The status and the refunded sum as they stand in the database: who asks the API also asks Stripe."""
        row = self.world.one("SELECT status, refunded_cents FROM payments WHERE id = %s", payment["id"])
        return row["status"], row["refunded_cents"]

    def told(self, payment: Any) -> list[str]:
        """The events of the payment; the books are checked by the way."""
        check_books(self.world, payment["id"])
        rows = self.world.rows("SELECT type FROM events WHERE payment_id = %s ORDER BY sequence", payment["id"])
        return [row["type"].removeprefix("payment.") for row in rows]

    async def look(self) -> None:
        """Look-ups of all that is due by now."""
        await self.world.look_up("stripe")

    async def until_looked_up(self, payment: Any, status: str) -> None:
        """Look the payment up until it has this status, whatever its gateway."""
        for _ in range(5):
            self.forward(seconds=30)
            await reconcile.look_now(self.world.context, UUID(payment["id"]))
            if self.now(payment)[0] == status:
                return
        raise AssertionError(f"never {status}")

    async def settled(self) -> None:
        """Every webhook under way has arrived."""
        await self.stripe.settled()

    # --- refunds

    def refunds_path(self, payment: Any, client_id: UUID | None = None) -> str:
        return self.house.path(f"/payments/{payment['id']}/refunds", client_id)

    async def refund(self, payment: Any, cents: int | None = None, **more: object) -> Answer:
        body = {"reason": "one bag was torn", **({} if cents is None else {"amount_cents": cents}), **more}
        return await self.house.call("POST", self.refunds_path(payment), body)

    async def refunds(self, payment: Any) -> list[Any]:
        answer = await self.house.call("GET", self.refunds_path(payment))
        assert answer.status == 200, answer.body
        data: list[Any] = answer.json["data"]
        return data

    def given_back(self, payment: Any) -> int:
        """What truly went back at Stripe, or is on its way."""
        _, session = self.stripe.find(self.reference(payment))
        made = self.account.all("refund", payment_intent=session["payment_intent"])
        return sum(one["amount"] for one in made if one["status"] not in ("failed", "canceled"))

    # --- webhooks by hand

    def event(self, payment: Any, kind: str) -> dict[str, Any]:
        """The newest event of this type, or one of the present state, as Stripe would send it."""
        return dict(self.stripe.event_for(self.reference(payment), kind))

    async def post(
        self, event: object, *, secret: str | None = None, t: int | None = None, path: str | None = None
    ) -> Answer:
        """Post the event as Stripe does, signed with the tenant's secret."""
        body, header = self.stripe.signed(event, secret or self.secret, t)  # type: ignore[arg-type]
        return await self.post_raw(body, header, path)

    async def post_raw(self, body: bytes, header: str | None, path: str | None = None) -> Answer:
        where = f"/callbacks/stripe/{self.client_id}" if path is None else path
        headers = {"Content-Type": "application/json", **({"Stripe-Signature": header} if header is not None else {})}
        return await self.house.get_public(where, method="POST", data=body, headers=headers)


def changed(event: dict[str, Any], **fields: object) -> dict[str, Any]:
    """A copy of the event under another id, its object with these fields."""
    copy: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(event))
    copy["id"] = f"evt_{uuid4().hex}"
    copy["data"]["object"].update(fields)
    return copy
