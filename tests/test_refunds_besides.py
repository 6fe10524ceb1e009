"""Refunds that are cut off, forgotten by nobody, or of money that is disputed: the second half of test_refunds.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

import pytest
import stripe as sdk

from payments_service import reconcile, refunds
from payments_service.db import Database, Row
from payments_service.errors import Ambiguous, Unavailable
from payments_service.gateways.base import RefundOrder
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.lifecycle import RefundReport
from payments_service.reconcile import WHILE_REFUNDING, WHILE_REQUESTED
from payments_service.refunds import RefundWish
from tests.house import Answer, House, World
from tests.stripe_shop import Shop, changed, open_service


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture
async def shop(service: House, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Stripe is asked again at once."""
    monkeypatch.setattr(sdk.HTTPClient, "INITIAL_DELAY", 0)
    return await Shop.open(service)


@pytest.fixture
async def payment(shop: Shop) -> Any:
    return await shop.paid()


async def reserve(shop: Shop, payment: Any, wish: RefundWish, world: World | None = None) -> None:
    """The refund is on record; then the process dies."""
    await refunds._reserve((world or shop.world).context, shop.client_id, UUID(payment["id"]), wish, "test")


async def forgotten(shop: Shop, payment: Any) -> None:
    """Long after the last look at a payment."""
    await shop.settled()
    shop.forward(days=40)
    await shop.look()
    assert shop.attempt(payment)["next_check_at"] is None


def due_in(shop: Shop, payment: Any) -> timedelta:
    at = shop.attempt(payment)["next_check_at"]
    assert at is not None, "nobody looks any more"
    return cast(timedelta, at - shop.world.clock())


# --- never forgotten


@pytest.mark.parametrize("fault", ["rate_limited", "error500", "html", "unauthorized"])
async def test_a_pending_refund_is_watched_whatever_a_look_up_brings(shop: Shop, payment: Any, fault: str) -> None:
    """Six weeks after the payment, when it is not looked at any more: every hour, until the gateway says the end."""
    await forgotten(shop, payment)
    shop.stripe.drop_webhooks = True
    shop.stripe.refund_status = "pending"
    try:
        made = (await shop.refund(payment, 250)).json
    finally:
        shop.stripe.refund_status = "succeeded"
    shop.stripe.add_fault(fault, on=["sessions.retrieve"])
    shop.forward(seconds=20)
    for _ in range(3):
        await shop.look()
        assert timedelta() < due_in(shop, payment) <= WHILE_REFUNDING
        shop.forward(minutes=61)
    shop.stripe.clear_faults()
    await shop.look()
    assert (shop.now(payment), made["status"]) == (("paid", 0), "pending")
    await shop.stripe.move_refund(made["gateway_reference"], "succeeded", send=False)
    shop.forward(minutes=61)
    await shop.look()
    assert shop.now(payment) == ("partially_refunded", 250)


@pytest.mark.parametrize("taken", [False, True])
async def test_a_refund_without_an_answer_is_watched_whatever_a_look_up_brings(
    shop: Shop, payment: Any, taken: bool
) -> None:
    """Every minute, until a look-up says whether Stripe took it: it blocks its money no longer than that."""
    await forgotten(shop, payment)
    shop.stripe.drop_webhooks = True
    shop.stripe.add_fault("error500_after_accepting" if taken else "error500", on=["refunds.create"])
    assert (await shop.refund(payment, 1000)).status == 504
    shop.stripe.clear_faults()
    shop.stripe.add_fault("rate_limited", on=["sessions.retrieve"])
    for _ in range(4):
        shop.forward(seconds=61)
        await shop.look()
        assert timedelta() < due_in(shop, payment) <= WHILE_REQUESTED
    shop.stripe.clear_faults()
    shop.forward(seconds=61)
    await shop.look()
    assert [each["status"] for each in await shop.refunds(payment)] == ["succeeded" if taken else "failed"]
    assert (await shop.refund(payment, 251)).status == (422 if taken else 201)


@pytest.mark.parametrize("days", [0, 32])
@pytest.mark.parametrize("later", [0, 1, 29])
async def test_a_refund_that_is_asked_for_during_a_look_up(shop: Shop, payment: Any, days: int, later: int) -> None:
    """A worker has claimed the payment, so many seconds before; it does not know of the refund, and takes away no wish
    for another look: also where both would be due at the very same moment."""
    await shop.settled()
    shop.forward(days=days, seconds=20)
    start = shop.world.clock()
    world = replace(shop.world, context=replace(shop.world.context, clock=lambda: start))
    (claimed,) = await reconcile.claim(world.context, "stripe", 8)
    world.context = replace(world.context, clock=lambda: start + timedelta(seconds=later))
    await reserve(shop, payment, RefundWish("torn", 1000), world)
    await reconcile.check(world.context, claimed)
    assert due_in(shop, payment) <= refunds.GRACE
    for _ in range(4):
        shop.forward(seconds=61)
        await shop.look()
    assert [each["status"] for each in await shop.refunds(payment)] == ["failed"]


# --- cut off


@dataclass
class Away:
    """A database that goes away once Stripe was asked."""

    real: Database
    down: bool = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def run(self, sql: str, values: Mapping[str, Any], *, tenant: UUID | None = None) -> list[Row]:
        if self.down:
            raise Unavailable("The database cannot be reached. Nothing was changed; try again.")
        return await self.real.run(sql, values, tenant=tenant)


@pytest.mark.parametrize("no", [False, True], ids=["yes", "no"])
async def test_the_database_is_away_when_stripe_has_answered(shop: Shop, payment: Any, no: bool) -> None:
    """Nobody is told that nothing was changed: whoever tried again would give the money back twice. The look-up finds
    what became of it, and until then the money is held."""
    away = Away(shop.world.context.db)

    class Answered(Stripe):
        async def refund(self, credentials: StripeCredentials, order: RefundOrder) -> RefundReport:
            try:
                return await super().refund(credentials, order)
            finally:
                away.down = True

    shop.stripe.drop_webhooks = True
    if no:
        shop.stripe.add_fault("rate_limited", on=["refunds.create"])
    adapter = Answered(shop.world.courier.transport, shop.stripe.public_url)
    gateways = {**shop.world.context.gateways, "stripe": adapter}
    context = replace(shop.world.context, db=cast(Database, away), gateways=gateways)
    with pytest.raises(Ambiguous) as told:
        await refunds.refund(context, shop.client_id, UUID(payment["id"]), RefundWish("torn", 1000), actor="test")
    assert told.value.code == "gateway_timeout"
    assert told.value.payment_id == UUID(payment["id"])
    assert "othing was changed" not in told.value.detail
    shop.stripe.clear_faults()
    assert (await shop.refund(payment, 251)).status == 422
    for _ in range(4):
        shop.forward(seconds=61)
        await shop.look()
    end = ("paid", 0) if no else ("partially_refunded", 1000)
    assert (shop.now(payment), shop.given_back(payment)) == (end, end[1])


async def test_the_same_over_http(shop: Shop, payment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """504 with the payment's id, as of every answer that was lost."""

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("The database cannot be reached. Nothing was changed; try again.")

    shop.stripe.drop_webhooks = True
    with monkeypatch.context() as patched:
        patched.setattr(refunds, "absorb", away)
        answer: Answer = await shop.refund(payment, 250)
    assert (answer.status, answer.json["code"]) == (504, "gateway_timeout")
    assert answer.json["payment_id"] == payment["id"]
    assert "othing was changed" not in answer.json["detail"]


async def paid_by_paynow(shop: Shop) -> Any:
    shop.world.sandbox.add_fault("never")
    await shop.house.save_paynow()
    payment = await shop.link(gateway="paynow")
    await shop.world.sandbox.pay(shop.reference(payment))
    await shop.until_looked_up(payment, "paid")
    return payment


async def look_at_paynow(shop: Shop) -> None:
    await shop.world.look_up("paynow")


@pytest.mark.parametrize("before", [None, 250])
@pytest.mark.parametrize("cents", [None, 500])
@pytest.mark.parametrize("days", [0, 40])
@pytest.mark.parametrize("silent", [False, True])
async def test_a_manual_refund_that_was_cut_off(
    shop: Shop, before: int | None, cents: int | None, days: int, silent: bool
) -> None:
    """On record, and the payment not yet moved: the next look-up makes it good, though its gateway knows nothing of
    it or does not answer, and though nobody looked any more."""
    payment = await paid_by_paynow(shop)
    if before:
        answer = await shop.refund(payment, before, manual=True, evidence="cash, receipt 6")
        assert answer.json["payment"]["status"] == "partially_refunded"
    shop.forward(days=days)
    await look_at_paynow(shop)
    await reserve(shop, payment, RefundWish("torn", cents, True, "cash, receipt 7"))
    assert shop.now(payment) == (("partially_refunded", before) if before else ("paid", 0))
    shop.forward(seconds=31)
    if silent:
        shop.world.sandbox.add_fault("error500")
    await look_at_paynow(shop)
    total = 1250 if cents is None else cents + (before or 0)
    assert shop.now(payment) == ("refunded" if total == 1250 else "partially_refunded", total)
    assert shop.told(payment)[-1] == shop.now(payment)[0]


# --- disputed


async def test_what_is_inquired_into_can_be_given_back(shop: Shop, payment: Any) -> None:
    """That settles an inquiry: Stripe lets it, and so do we."""
    await shop.stripe.dispute(shop.reference(payment), status="warning_needs_response")
    await shop.until(payment, "disputed", 0)
    answer = await shop.refund(payment, 1000)
    assert answer.status == 201, answer.body
    assert (answer.json["payment"]["status"], answer.json["payment"]["refunded_cents"]) == ("disputed", 1000)
    await shop.stripe.close_dispute(shop.reference(payment), "warning_closed")
    await shop.until(payment, "partially_refunded", 1000)


async def test_of_a_formal_dispute_stripe_says_that_it_is_too_late(shop: Shop, payment: Any) -> None:
    """422 in Stripe's words; the refund has failed and holds no money."""
    await shop.stripe.dispute(shop.reference(payment))
    await shop.until(payment, "disputed", 0)
    answer = await shop.refund(payment)
    assert (answer.status, answer.json["code"], answer.json["payment_id"]) == (422, "gateway_refused", payment["id"])
    assert "charged back" in answer.json["detail"]
    assert [each["status"] for each in await shop.refunds(payment)] == ["failed"]
    assert shop.given_back(payment) == 0
    await shop.stripe.close_dispute(shop.reference(payment), "won")
    await shop.until(payment, "paid", 0)
    assert (await shop.refund(payment)).status == 201


@pytest.mark.parametrize("fault", ["unauthorized", "rate_limited", "error500", "html"])
async def test_disputes_that_cannot_be_read_hide_no_payment(shop: Shop, fault: str) -> None:
    """A restricted key without their permission: paid is proved all the same, and told."""
    shop.stripe.drop_webhooks = True
    payment = await shop.link()
    await shop.stripe.pay(shop.reference(payment))
    await shop.stripe.dispute(shop.reference(payment))
    shop.stripe.add_fault(fault, on=["disputes.list"])
    shop.forward(seconds=20)
    await shop.look()
    assert shop.now(payment) == ("paid", 0)
    shop.stripe.clear_faults()
    shop.forward(days=1)
    await shop.look()
    assert shop.now(payment) == ("disputed", 0)


async def test_a_dashboard_refund_that_bears_the_name_of_another_of_ours(shop: Shop, payment: Any) -> None:
    """Somebody wrote our id of a failed refund into its metadata: each stays what it is, webhooks are taken, and
    look-ups go on."""
    shop.stripe.add_fault("rate_limited", on=["refunds.create"])
    assert (await shop.refund(payment, 250)).status == 503
    shop.stripe.clear_faults()
    (ours,) = await shop.refunds(payment)
    made = await shop.stripe.refund(shop.reference(payment), 250)
    await shop.until(payment, "partially_refunded", 250)
    made["metadata"] = {"refund_id": ours["id"]}
    event = changed(shop.event(payment, "refund.created"), metadata=made["metadata"])
    assert (await shop.post(event)).status == 200
    shop.forward(seconds=20)
    await shop.look()
    shown = {each["id"]: each["status"] for each in await shop.refunds(payment)}
    assert shown.pop(ours["id"]) == "failed"
    assert list(shown.values()) == ["succeeded"]
    await shop.stripe.refund(shop.reference(payment), 100, send=False)
    shop.forward(days=1)
    await shop.look()
    assert shop.now(payment) == ("partially_refunded", 350)
