"""Asking Stripe for the messages that it could not deliver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from payments_service import proofs, sweeps
from payments_service.context import Context
from payments_service.errors import Unavailable
from payments_service.gateways import stripe_sweep
from payments_service.gateways.base import Callback
from tests.house import House
from tests.stripe_shop import Shop, open_service
from tests.support import Log


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture
async def shop(service: House) -> Shop:
    """A tenant whose turn to be swept has just been, the only one who has turns."""
    shop = await Shop.open(service)
    shop.world.rows_do("DELETE FROM sweeps")
    shop.world.rows_do("DELETE FROM payment_settings WHERE client_id <> %s", shop.client_id)
    for account in shop.stripe.accounts.values():
        if account is not shop.account:
            account.endpoints.clear()
    await sweeps.enlist(shop.world.context)
    await swept(shop)
    shop.stripe.calls.clear()
    return shop


async def swept(shop: Shop) -> int:
    """As a worker does it: every turn that is due, and those that come of it; how many messages were ours."""
    found = 0
    for _ in range(200):
        turns = await sweeps.claim(shop.world.context, 8)
        if not turns:
            return found
        found += sum([await sweeps.sweep(shop.world.context, turn) for turn in turns])
    raise AssertionError("the turns have no end")


def turn(shop: Shop) -> dict[str, Any]:
    return shop.world.one("SELECT * FROM sweeps WHERE client_id = %s", shop.client_id)


def past(shop: Shop, event: dict[str, Any], when: datetime) -> None:
    """Let the event have happened at that time."""
    shop.account.events[event["id"]].object["created"] = int(when.timestamp())


async def test_a_refund_in_the_dashboard_that_nobody_told_of(shop: Shop) -> None:
    """Months after the payment, no longer watched, its webhook lost: found at the next turn, as if it had come."""
    payment = await shop.paid()
    shop.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    shop.forward(days=60)
    await swept(shop)
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    shop.forward(minutes=16)
    assert await swept(shop) == 2  # refund.created and charge.refunded
    assert shop.now(payment) == ("partially_refunded", 250)
    assert shop.told(payment) == ["link_created", "paid", "partially_refunded"]
    # What overlaps the next turn is known by then.
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.told(payment) == ["link_created", "paid", "partially_refunded"]


async def test_all_events_where_there_is_no_endpoint(service: House) -> None:
    """A tenant without a webhook is told of payments by sweeps too."""
    shop = await Shop.open(service, webhook=False)
    payment = await shop.link()
    await shop.stripe.pay(shop.reference(payment))
    await sweeps.enlist(shop.world.context)
    shop.world.rows_do("UPDATE sweeps SET swept_to = swept_to - interval '1 hour' WHERE client_id = %s", shop.client_id)
    shop.forward(seconds=5)
    await swept(shop)
    assert shop.now(payment) == ("paid", 0)


async def test_what_was_delivered_is_not_asked_for(shop: Shop) -> None:
    """Only undelivered events come over the wire."""
    await shop.paid()
    await shop.settled()
    shop.forward(minutes=16)
    assert await swept(shop) == 0
    listed = [seen.params for seen in shop.stripe.requests if seen.operation == "events.list"]
    assert listed[-1]["delivery_success"] == "false"


async def test_a_long_absence_is_caught_up_in_spans(shop: Shop) -> None:
    """Six hours at once, one after the other without a pause, until now; beyond what Stripe remembers there is nothing
    to ask for."""
    payment = await shop.paid()
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    event = shop.event(payment, "refund.created")
    shop.forward(days=1)
    past(shop, event, shop.world.clock() - timedelta(hours=15))
    assert await swept(shop) >= 1
    assert shop.now(payment) == ("partially_refunded", 250)
    assert shop.stripe.calls["events.list"] in (4, 5)
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(seconds=10)
    shop.world.rows_do("UPDATE sweeps SET swept_to = now() - interval '400 days', next_at = now()")
    (claimed,) = await sweeps.claim(shop.world.context, 1)
    await sweeps.sweep(shop.world.context, claimed)
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(days=29)


async def test_a_sweep_without_an_answer_asks_again(shop: Shop) -> None:
    """Nothing is passed over: the same time is asked about at the next turn."""
    before = turn(shop)["swept_to"]
    payment = await shop.paid()
    await shop.stripe.refund(shop.reference(payment), send=False)
    for fault in ("error500", "html", "unauthorized"):
        shop.forward(minutes=16)
        shop.stripe.add_fault(fault, on=["events.list"])
        assert await swept(shop) == 0
        shop.stripe.clear_faults()
        assert turn(shop)["swept_to"] == before, fault
        assert shop.now(payment) == ("paid", 0)
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.now(payment) == ("refunded", 1250)
    assert turn(shop)["swept_to"] > before


async def test_an_event_that_cannot_be_read_holds_up_nothing(shop: Shop) -> None:
    """It is told in the log; what happened before and after it is absorbed, and not asked for again."""
    payment = await shop.paid()
    for cents in (100, 200, 300):
        await shop.stripe.refund(shop.reference(payment), cents, send=False)
    odd = [event for event in shop.account.events.values() if event.object["type"] == "refund.created"][1]
    odd.object["data"]["object"] = {**odd.object["data"]["object"], "amount": "two dollars"}
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.now(payment) == ("partially_refunded", 600)
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(seconds=10)


async def test_two_workers_share_the_turns(shop: Shop) -> None:
    """Each turn is one worker's; nobody is asked for twice."""
    ids = [uuid4() for _ in range(12)]
    for client_id in ids:
        shop.world.rows_do(
            "INSERT INTO sweeps (client_id, gateway, swept_to, next_at) VALUES (%s, 'stripe', now(), now())", client_id
        )
    shop.forward(seconds=1)
    taken = await asyncio.gather(*(sweeps.claim(shop.world.context, 4) for _ in range(5)))
    claimed = [row["client_id"] for rows in taken for row in rows]
    assert sorted(claimed) == sorted(ids)
    assert await sweeps.claim(shop.world.context, 8) == []


async def test_a_key_that_was_cleared_and_saved_again(shop: Shop) -> None:
    """Meanwhile nobody is asked; then it goes on from where it was: what happened in between is found."""
    payment = await shop.paid()
    await shop.settled()
    await swept(shop)
    shop.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    before, path = turn(shop)["swept_to"], shop.house.path("/payment-settings")
    for field in ("stripe_secret_key", "stripe_webhook_secret"):
        await shop.house.call("PATCH", path, {field: None})
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    shop.stripe.calls.clear()
    for _ in range(2):
        shop.forward(hours=5)
        await sweeps.enlist(shop.world.context)
        assert await swept(shop) == 0
    assert not shop.stripe.calls
    assert turn(shop)["swept_to"] == before
    await shop.house.call("PATCH", path, {"stripe_secret_key": shop.account.key})
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.now(payment) == ("partially_refunded", 250)
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(seconds=10)


async def test_a_tenant_who_never_had_credentials_has_no_turns(service: House) -> None:
    shop = await Shop.open(service)
    await shop.house.call("PATCH", shop.house.path("/payment-settings"), {"stripe_secret_key": None})
    await sweeps.enlist(shop.world.context)
    assert shop.world.rows("SELECT FROM sweeps WHERE client_id = %s", shop.client_id) == []


async def test_an_endpoint_that_was_deleted_in_the_dashboard(shop: Shop) -> None:
    """Its secret is still saved, and to Stripe nothing is undelivered: all events are asked for."""
    payment = await shop.paid()
    await shop.settled()
    shop.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    shop.account.endpoints.clear()
    await shop.stripe.refund(shop.reference(payment), 250)
    await shop.settled()
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.now(payment) == ("partially_refunded", 250)


# --- too many, too large, not to be absorbed


async def declines(shop: Shop, payment: Any, count: int, since: timedelta, every: timedelta) -> None:
    """So many events of declined cards, lost, of these moments before now."""
    at = shop.world.clock() - since
    for number in range(count):
        await shop.stripe.decline(shop.reference(payment), send=False)
        past(shop, shop.event(payment, "payment_intent.payment_failed"), at + number * every)


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe answers three events at once, and no more than that is read."""
    monkeypatch.setattr(stripe_sweep, "AT_ONCE", (3, 1))
    monkeypatch.setattr(stripe_sweep, "PAGES", 1)


@pytest.mark.usefixtures("little")
async def test_of_too_many_a_shorter_time_is_asked_for(shop: Shop) -> None:
    """All are told, part by part, and nothing is asked for ever again."""
    payment = await shop.link()
    shop.forward(hours=6)
    await declines(shop, payment, 20, timedelta(hours=5), timedelta(minutes=10))
    assert await swept(shop) >= 20
    kept = shop.world.rows("SELECT FROM callbacks WHERE client_id = %s", shop.client_id)
    assert len(kept) == 20
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(minutes=15)


@pytest.mark.usefixtures("little")
@pytest.mark.parametrize("seconds", [0, 5, 50], ids=lambda each: f"every {each} s")
async def test_more_than_can_ever_be_read_hold_up_nothing(shop: Shop, written_log: Path, seconds: int) -> None:
    """However dense a time is: what cannot be read of it is passed over, and told; what comes after it is found."""
    log, payment = Log(written_log), await shop.paid()
    await shop.settled()
    shop.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    other = await shop.link()
    shop.forward(hours=2)
    await declines(shop, other, 12, timedelta(hours=1), timedelta(seconds=seconds))
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    for _ in range(60):
        at = turn(shop)["swept_to"]
        await swept(shop)
        assert turn(shop)["swept_to"] > at
        if shop.now(payment)[1]:
            break
        shop.forward(minutes=16)
    assert shop.now(payment) == ("partially_refunded", 250)
    assert bool(log.of("sweep_skipped")) is (seconds < 20)


async def test_one_event_that_cannot_be_absorbed_holds_up_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, written_log: Path
) -> None:
    """It is told in the log; those before and after it are absorbed, and the time counts as swept."""
    log, payment = Log(written_log), await shop.paid()
    for cents in (100, 200, 300):
        await shop.stripe.refund(shop.reference(payment), cents, send=False)
    bad = [name for name, one in shop.account.events.items() if one.object["type"] == "refund.created"][1]

    async def take(context: Context, client_id: UUID, gateway: str, callback: Callback) -> bool:
        if callback.key == bad:
            raise ValueError("a fault of our own")
        return await proofs.take(context, client_id, gateway, callback)

    monkeypatch.setattr(sweeps, "take", take)
    shop.forward(minutes=16)
    assert await swept(shop) >= 5
    assert shop.now(payment) == ("partially_refunded", 600)
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(seconds=10)
    assert len(log.of("sweep_failed_for_one")) == 1


async def test_a_sweep_that_our_own_database_breaks_off_is_done_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then nothing is passed over."""
    payment, before = await shop.paid(), turn(shop)["swept_to"]
    await shop.stripe.refund(shop.reference(payment), 250, send=False)

    async def away(*_: object) -> bool:
        raise Unavailable("The database cannot be reached.")

    shop.forward(minutes=16)
    with monkeypatch.context() as patched:
        patched.setattr(sweeps, "take", away)
        with pytest.raises(Unavailable):
            await swept(shop)
    assert turn(shop)["swept_to"] == before
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.now(payment) == ("partially_refunded", 250)


async def test_a_dispute_about_nothing_holds_up_nothing(shop: Shop) -> None:
    """An amount of 0 fits no row of ours."""
    payment = await shop.paid()
    await shop.settled()
    await shop.stripe.dispute(shop.reference(payment), 1250, send=False)
    for event in shop.account.events.values():
        if event.object["type"] == "charge.dispute.created":
            event.object["data"]["object"]["amount"] = 0
    shop.forward(minutes=16)
    await swept(shop)
    assert shop.world.clock() - turn(shop)["swept_to"] < timedelta(seconds=10)
    assert shop.now(payment) == ("paid", 0)


async def test_settings_that_were_copied_in_get_their_turn(shop: Shop) -> None:
    """Whoever wrote the row, it is found; tenants of other gateways are not asked about; nobody gets a second turn."""
    copied, other = uuid4(), uuid4()
    shop.world.rows_do(
        "INSERT INTO payment_settings (client_id, stripe_secret_key_enc) "
        "SELECT %s, stripe_secret_key_enc FROM payment_settings WHERE client_id = %s",
        *(copied, shop.client_id),
    )
    shop.world.rows_do("INSERT INTO payment_settings (client_id, paynow_integration_id) VALUES (%s, '1')", other)
    for _ in range(2):
        await sweeps.enlist(shop.world.context)
    found = {row["client_id"] for row in shop.world.rows("SELECT client_id FROM sweeps")}
    assert found == {copied, shop.client_id}
    assert len(shop.world.rows("SELECT FROM sweeps")) == 2
    # Its key was sealed for another tenant: it does not open, which is told, and asked again.
    await swept(shop)
    assert len(shop.world.rows("SELECT FROM sweeps")) == 2
