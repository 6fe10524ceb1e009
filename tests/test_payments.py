"""The story of a payment, step by step: what each report, race and lost answer leads to."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from payments_service import accounts, checkout, delivery, endings, links, payments, reconcile
from payments_service.errors import Ambiguous, NotConfigured, NotFound, Refused, Unreachable, Untrusted, WrongState
from payments_service.lifecycle import Status
from payments_service.links import LinkOrder
from payments_service.money import Currency, Money
from payments_service.records import Payment
from tests.house import World, eventually

CLIENT = UUID("3f6c1c9e-6f0a-4f0e-9f5e-1f2b3c4d5e6f")


async def save(world: World, client_id: UUID = CLIENT, currency: Currency = Currency.USD) -> None:
    prefix, number = ("paynow", "1201") if currency is Currency.USD else ("paynow_zig", "1202")
    key = world.sandbox.integrations[number].key
    fields = {f"{prefix}_integration_id": number, f"{prefix}_integration_key": key}
    await accounts.save(world.context, client_id, fields, actor="test")


def order(world: World, **changes: Any) -> LinkOrder:
    values: dict[str, Any] = {
        "gateway": "paynow",
        "amount": Money(1250, Currency.USD),
        "reference": "INV-1",
        "contact_id": uuid4(),
        "expires_at": world.clock() + reconcile.WATCH / 4,
        **changes,
    }
    return LinkOrder(**values)


async def link(world: World, **changes: Any) -> Payment:
    await save(world)
    return await links.create_link(world.context, CLIENT, order(world, **changes))


def attempt(world: World, payment_id: object) -> dict[str, Any]:
    return world.rows("SELECT * FROM attempts WHERE payment_id = %s ORDER BY started_at DESC", payment_id)[0]


def the_payment(world: World) -> dict[str, Any]:
    return world.one("SELECT * FROM payments")


def told(world: World, payment_id: object) -> list[tuple[int, str]]:
    rows = world.rows("SELECT sequence, type FROM events WHERE payment_id = %s ORDER BY sequence", payment_id)
    return [(row["sequence"], row["type"].removeprefix("payment.")) for row in rows]


async def look(world: World, payment_id: UUID) -> None:
    """One look-up, long enough after the one before."""
    world.clock.forward(seconds=30)
    assert await reconcile.look_now(world.context, payment_id)


async def look_settled(world: World) -> None:
    """Whatever is due by a slow schedule."""
    world.clock.forward(days=1, minutes=1)
    await reconcile.run_once(world.context, "paynow")


async def test_every_status_of_paynow_leads_where_the_protocol_says(world: World) -> None:
    """Money received is paid, no money is failed, and a word that nobody knows changes nothing."""
    expected = {
        "Created": "pending",
        "Sent": "pending",
        "Paid": "paid",
        "Awaiting Delivery": "paid",
        "Delivered": "paid",
        "Cancelled": "failed",
        "Failed": "failed",
        "Disputed": "disputed",
        "Refunded": "refunded",
        "Something New": "pending",
    }
    world.sandbox.add_fault("never")
    for word, status in expected.items():
        payment = await link(world, reference=word)
        await world.sandbox.set_status(attempt(world, payment.id)["reference"], word)
        await look(world, payment.id)
        assert (await payments.get(world.context, CLIENT, payment.id)).status == status, word


@pytest.mark.parametrize("over", ["expired", "cancelled", "failed"])
async def test_money_after_the_end_is_paid_and_late(world: World, over: str) -> None:
    """Paid after expiry, cancel or failure is recorded as paid and marked late, and the backend is told."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    reference = attempt(world, payment.id)["reference"]
    if over == "cancelled":
        await payments.cancel(world.context, CLIENT, payment.id, actor="test")
    elif over == "failed":
        await world.sandbox.set_status(reference, "Cancelled")
        await look(world, payment.id)
    else:
        world.clock.forward(days=8)
        await reconcile.run_once(world.context, "paynow")
        assert await payments.expire_due(world.context) == 1
    assert the_payment(world)["status"] == over
    await world.sandbox.set_status(reference, "Paid")
    if over == "failed":
        # Nothing asks about a failed attempt any more; a callback does.
        world.rows_do("UPDATE attempts SET next_check_at = now()")
        await reconcile.run_once(world.context, "paynow")
    else:
        await look(world, payment.id)
    row = the_payment(world)
    assert (row["status"], row["late"]) == ("paid", True)
    assert told(world, payment.id) == [(1, "link_created"), (2, over), (3, "paid")]


@pytest.mark.parametrize("amount", ["12.49", "12.51", "0.01", "1250.00"])
async def test_another_amount_opens_a_review(world: World, amount: str) -> None:
    """One minor unit off is no payment: the evidence is kept and a person must look."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    await world.sandbox.pay(attempt(world, payment.id)["reference"], amount)
    await look(world, payment.id)
    assert the_payment(world)["status"] == "review"
    review = world.one("SELECT * FROM reviews")
    assert review["reason"] == "amount_mismatch"
    assert review["evidence"]["expected_cents"] == 1250
    assert review["evidence"]["amount_cents"] == round(float(amount) * 100)
    assert told(world, payment.id) == [(1, "link_created"), (2, "review")]
    # Asked again, it opens nothing more.
    await look_settled(world)
    assert len(world.rows("SELECT FROM reviews")) == 1
    assert the_payment(world)["sequence"] == 2


async def test_a_second_payment_of_one_link_opens_a_review(world: World) -> None:
    """Two attempts of one link are both paid: the first counts, the second is for a person."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    first = attempt(world, payment.id)["reference"]
    await world.sandbox.set_status(first, "Cancelled")
    await look(world, payment.id)
    token = the_payment(world)["page_token"]
    assert await checkout.pay(world.context, token) is not None
    second = attempt(world, payment.id)["reference"]
    assert second != first
    await world.sandbox.pay(second)
    await look(world, payment.id)
    assert the_payment(world)["status"] == "paid"
    await world.sandbox.set_status(first, "Paid")
    world.rows_do("UPDATE attempts SET next_check_at = now() WHERE reference = %s", first)
    await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["status"] == "review"
    assert world.one("SELECT reason FROM reviews")["reason"] == "second_payment"
    assert told(world, payment.id) == [(1, "link_created"), (2, "failed"), (3, "paid"), (4, "review")]


async def test_one_gateway_reference_belongs_to_one_payment(world: World) -> None:
    """A second payment that claims a gateway reference that is taken goes to review, under the lock or before it."""
    world.sandbox.add_fault("never")
    one, other = await link(world, reference="A"), await link(world, reference="B")
    transactions = [world.sandbox.find(attempt(world, payment.id)["reference"]) for payment in (one, other)]
    transactions[1].number = transactions[0].number
    for transaction in transactions:
        await world.sandbox.pay(transaction.reference)
    world.clock.forward(seconds=30)
    await asyncio.gather(*(reconcile.look_now(world.context, payment.id) for payment in (one, other)))
    found = {row["status"] for row in world.rows("SELECT status FROM payments")}
    assert found == {"paid", "review"}
    assert world.one("SELECT reason FROM reviews")["reason"] == "gateway_reference_reused"


async def test_disputes_and_refunds_follow_a_payment(world: World) -> None:
    """Disputed, settled again, refunded: each is told, and the refunded sum is exact."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    reference = attempt(world, payment.id)["reference"]
    for word in ("Paid", "Disputed", "Paid", "Refunded"):
        await world.sandbox.set_status(reference, word)
        world.clock.forward(days=1, hours=1) if word != "Paid" else world.clock.forward(days=5)
        world.rows_do("UPDATE attempts SET next_check_at = now()")
        await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["refunded_cents"] == 1250
    assert [kind for _, kind in told(world, payment.id)] == ["link_created", "paid", "disputed", "paid", "refunded"]
    assert attempt(world, payment.id)["next_check_at"] is None


async def test_a_refund_is_noticed_although_its_callback_was_lost(world: World) -> None:
    """A paid attempt is asked about now and then for a month."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    reference = attempt(world, payment.id)["reference"]
    await world.sandbox.pay(reference)
    await look(world, payment.id)
    await world.sandbox.set_status(reference, "Refunded")
    await look_settled(world)
    assert the_payment(world)["status"] == "refunded"


async def test_a_refusal_fails_the_payment_in_plain_words(world: World) -> None:
    """A wrong key is refused by Paynow: nothing can come of it, and the words say what to do."""
    wrong = {"paynow_integration_id": "1201", "paynow_integration_key": str(uuid4())}
    await accounts.save(world.context, CLIENT, wrong, actor="test")
    with pytest.raises(Refused, match="does not accept the integration key") as caught:
        await links.create_link(world.context, CLIENT, order(world))
    payment = await payments.get(world.context, CLIENT, caught.value.payment_id)
    assert payment.status is Status.FAILED
    assert told(world, payment.id) == [(1, "failed")]


async def test_an_unreachable_gateway_fails_the_payment(world: World) -> None:
    """The call never left, so nothing was started."""
    await save(world)
    world.context.gateways["paynow"]._base = "http://127.0.0.1:1"
    with pytest.raises(Unreachable) as caught:
        await links.create_link(world.context, CLIENT, order(world))
    assert (await payments.get(world.context, CLIENT, caught.value.payment_id)).status is Status.FAILED


@pytest.mark.parametrize("fault", ["html", "empty", "truncated", "error500", "redirect", "wrong_hash"])
async def test_an_odd_answer_to_the_start_is_settled_by_a_trace(world: World, fault: str) -> None:
    """The transaction exists although its answer was lost: it stays pending, a trace finds it, it is paid."""
    await save(world)
    world.sandbox.add_fault("never")
    world.sandbox.add_fault(fault, on=["initiate"], times=1)
    with pytest.raises((Ambiguous, Untrusted)) as caught:
        await links.create_link(world.context, CLIENT, order(world))
    payment_id = caught.value.payment_id
    assert payment_id is not None
    assert the_payment(world)["status"] == "pending"
    world.clock.forward(seconds=6)
    assert await reconcile.run_once(world.context, "paynow") == 1
    assert world.sandbox.calls["trace"] == 1
    assert attempt(world, payment_id)["poll_url"]
    assert told(world, payment_id) == [(1, "link_created")]
    await world.sandbox.pay(attempt(world, payment_id)["reference"])
    await look(world, payment_id)
    assert told(world, payment_id) == [(1, "link_created"), (2, "paid")]


async def test_a_start_that_never_reached_the_gateway_fails_after_a_grace(world: World) -> None:
    """A crash before the call: the trace finds nothing, twice, and only then the payment is over."""
    await save(world)
    world.sandbox.add_fault("error500", on=["initiate"], times=1)
    with pytest.raises(Ambiguous) as caught:
        await links.create_link(world.context, CLIENT, order(world))
    world.sandbox._by_trace.clear()  # as if the call had never arrived
    world.clock.forward(seconds=6)
    await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["status"] == "pending"
    world.clock.forward(minutes=3)
    await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["status"] == "failed"
    assert told(world, caught.value.payment_id) == [(1, "failed")]


@pytest.mark.parametrize(
    "fault", ["html", "empty", "truncated", "error500", "redirect", "poll_wrong_hash", "poll_error", "huge"]
)
async def test_an_odd_answer_to_a_look_up_concludes_nothing(world: World, fault: str) -> None:
    """Never paid, never failed: the payment stays pending and is asked about again."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    await world.sandbox.pay(attempt(world, payment.id)["reference"])
    planned = world.sandbox.add_fault(fault, on=["poll"])
    await look(world, payment.id)
    assert the_payment(world)["status"] == "pending"
    assert attempt(world, payment.id)["next_check_at"] is not None
    assert attempt(world, payment.id)["answered_at"] is None
    world.sandbox.faults.remove(planned)
    await look(world, payment.id)
    assert the_payment(world)["status"] == "paid"


async def test_news_that_is_faster_than_our_own_start_ends_right(world: World) -> None:
    """The customer has paid and the look-up has told it before our create call got its answer."""
    await save(world)
    world.sandbox.add_fault("never")
    world.sandbox.add_fault("slow", on=["initiate"], times=1, seconds=0.5)
    making = asyncio.create_task(links.create_link(world.context, CLIENT, order(world)))
    await eventually(lambda: world.sandbox.transactions, every=0.01)
    await world.sandbox.pay("INV-1")
    world.rows_do("UPDATE attempts SET next_check_at = now()")
    assert await reconcile.run_once(world.context, "paynow") == 1
    assert the_payment(world)["status"] == "paid"
    payment = await making
    assert payment.status is Status.PAID
    assert payment.payment_url.startswith(world.sandbox.public_url)
    assert attempt(world, payment.id)["state"] == "paid"
    assert attempt(world, payment.id)["poll_url"]
    assert told(world, payment.id) == [(1, "paid")]


async def test_only_a_pending_payment_is_cancelled(world: World) -> None:
    """Cancelling twice, or what is paid, is refused and changes nothing."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    assert (await payments.cancel(world.context, CLIENT, payment.id, actor="ann")).status is Status.CANCELLED
    with pytest.raises(WrongState, match="only a pending one"):
        await payments.cancel(world.context, CLIENT, payment.id, actor="ann")
    entries = await payments.history(world.context, CLIENT, payment.id)
    assert [(entry["from_status"], entry["to_status"], entry["actor"]) for entry in entries] == [
        (None, "pending", None),
        ("pending", "cancelled", "ann"),
    ]


async def test_a_foreign_payment_is_as_absent_as_an_unknown_one(world: World) -> None:
    """Another tenant gets the same answer for a payment of ours and for one that does not exist."""
    payment = await link(world)
    words = set()
    for payment_id in (payment.id, uuid4()):
        with pytest.raises(NotFound) as caught:
            await payments.get(world.context, uuid4(), payment_id)
        words.add(caught.value.detail)
    assert len(words) == 1


async def test_before_it_expires_a_link_is_looked_up_once_more(world: World) -> None:
    """Paid in the last minute with the callback lost: found by the last question, so it neither expires nor is late."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    world.rows_do("UPDATE attempts SET checks = 200, next_check_at = now() + interval '9 days'")
    await world.sandbox.pay(attempt(world, payment.id)["reference"])
    world.clock.ahead += payment.expires_at - world.clock()
    world.clock.forward(seconds=1)
    assert await payments.expire_due(world.context) == 0
    assert await reconcile.run_once(world.context, "paynow") == 1
    row = the_payment(world)
    assert (row["status"], row["late"]) == ("paid", False)


async def test_a_link_expires_even_when_the_gateway_stays_silent(world: World) -> None:
    """Without an answer the link waits a grace, then expires; the attempt stays watched for late money."""
    payment = await link(world)
    world.sandbox.add_fault("error500", on=["poll"])
    world.clock.ahead += payment.expires_at - world.clock()
    world.clock.forward(seconds=1)
    assert await payments.expire_due(world.context) == 0
    await reconcile.run_once(world.context, "paynow")
    assert await payments.expire_due(world.context) == 0
    world.clock.ahead += endings.EXPIRY_GRACE
    assert await payments.expire_due(world.context) == 1
    assert attempt(world, payment.id)["next_check_at"] is not None


async def test_many_taps_start_one_attempt(world: World) -> None:
    """Twenty taps at once on a link without a gateway: one attempt, one call of the gateway."""
    await save(world)
    payment = await links.create_link(world.context, CLIENT, order(world, gateway=None))
    assert payment.gateway is None
    assert payment.payment_url == payment.page_url
    token = the_payment(world)["page_token"]
    steps = await asyncio.gather(*(checkout.pay(world.context, token) for _ in range(20)))
    assert world.sandbox.calls["initiate"] == 1
    assert len({step.url for step in steps if step}) == 1
    again = await checkout.pay(world.context, token)
    assert again is not None
    assert world.sandbox.calls["initiate"] == 1


async def test_an_attempt_found_by_trace_is_replaced_when_the_customer_wants_to_pay(world: World) -> None:
    """Its page address was lost with the answer; money by either attempt still counts."""
    await save(world)
    world.sandbox.add_fault("never")
    world.sandbox.add_fault("html", on=["initiate"], times=1)
    with pytest.raises((Ambiguous, Untrusted)) as caught:
        await links.create_link(world.context, CLIENT, order(world))
    world.clock.forward(seconds=6)
    await reconcile.run_once(world.context, "paynow")
    old = attempt(world, caught.value.payment_id)
    step = await checkout.pay(world.context, the_payment(world)["page_token"])
    assert step is not None
    states = {row["state"] for row in world.rows("SELECT state FROM attempts")}
    assert states == {"replaced", "live"}
    await world.sandbox.pay(old["reference"])
    world.clock.forward(minutes=5)
    await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["status"] == "paid"


async def test_without_credentials_nothing_is_recorded(world: World) -> None:
    """A tenant that is not set up gets plain words, and no payment is left behind."""
    for gateway in ("paynow", "stripe", None):
        with pytest.raises(NotConfigured):
            await links.create_link(world.context, CLIENT, order(world, gateway=gateway))
    assert world.rows("SELECT FROM payments") == []


async def test_each_currency_has_its_own_integration(world: World) -> None:
    """ZiG goes through the ZiG integration, and only when that one is configured."""
    await save(world)
    zig = Money(5000, Currency.ZIG)
    with pytest.raises(NotConfigured, match="paynow_zig_integration_id"):
        await links.create_link(world.context, CLIENT, order(world, amount=zig))
    await save(world, currency=Currency.ZIG)
    await links.create_link(world.context, CLIENT, order(world, amount=zig))
    assert [transaction.integration.id for transaction in world.sandbox.transactions] == ["1202"]


async def test_a_lease_keeps_two_workers_apart_and_a_hint_survives_it(world: World) -> None:
    """What one worker claimed nobody else gets; a callback in the meantime makes it due again after the look-up."""
    payment = await link(world)
    world.clock.forward(seconds=30)
    (claimed,) = await reconcile.claim(world.context, "paynow", 10)
    assert await reconcile.claim(world.context, "paynow", 10) == []
    world.rows_do("UPDATE attempts SET next_check_at = now()")
    await reconcile.check(world.context, claimed)
    assert len(await reconcile.claim(world.context, "paynow", 10)) == 1
    assert attempt(world, payment.id)["checks"] == 1


async def test_watching_ends_after_a_month(world: World) -> None:
    """An attempt that never gets paid is asked about for 31 days, then no more."""
    payment = await link(world)
    for _ in range(400):
        row = attempt(world, payment.id)
        if row["next_check_at"] is None:
            break
        world.clock.ahead += max(row["next_check_at"] - world.clock(), reconcile.LEASE / 60)
        await reconcile.run_once(world.context, "paynow")
    row = attempt(world, payment.id)
    assert row["next_check_at"] is None
    assert (row["last_checked_at"] - row["started_at"]).days >= 31


async def test_every_change_has_its_transition_and_its_event(world: World) -> None:
    """Sequences count without gaps, in transitions and events alike."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    await world.sandbox.pay(attempt(world, payment.id)["reference"])
    await look(world, payment.id)
    steps = world.rows("SELECT sequence, to_status FROM transitions ORDER BY sequence")
    assert [row["sequence"] for row in steps] == [1, 2]
    assert [row["to_status"] for row in steps] == ["pending", "paid"]
    assert await delivery.run_once(world.context, world.courier) == 2
    assert [event["data"]["sequence"] for event in world.backend.of(payment.id)] == [1, 2]


async def test_what_was_started_with_replaced_credentials_is_still_proved(world: World) -> None:
    """The tenant changes to another integration while a link is open: its payment is found with the former key."""
    world.sandbox.add_fault("never")
    payment = await link(world)
    reference = attempt(world, payment.id)["reference"]
    other = world.sandbox.add_integration("1299", str(uuid4()))
    fields = {"paynow_integration_id": "1299", "paynow_integration_key": other.key}
    await accounts.save(world.context, CLIENT, fields, actor="test")
    await accounts.save(world.context, CLIENT, fields, actor="test")
    assert len(world.rows("SELECT FROM retired_settings")) == 1
    await world.sandbox.pay(reference)
    await look(world, payment.id)
    assert the_payment(world)["status"] == "paid"
    world.clock.ahead += accounts.RETIRED_LIFE
    await accounts.forget_retired(world.context)
    assert world.rows("SELECT FROM retired_settings") == []


async def test_cleared_credentials_are_gone(world: World) -> None:
    """Null means removed: nothing of them is kept."""
    await save(world)
    other = {"paynow_integration_id": "1299", "paynow_integration_key": str(uuid4())}
    await accounts.save(world.context, CLIENT, other, actor="test")
    nothing = {"paynow_integration_id": None, "paynow_integration_key": None}
    await accounts.save(world.context, CLIENT, nothing, actor="test")
    assert world.rows("SELECT FROM retired_settings") == []
    assert world.one("SELECT paynow_integration_key_enc AS key FROM payment_settings")["key"] is None
