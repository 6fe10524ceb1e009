"""Sessions of which Stripe tells nothing, of a former account, beside other tries: more of test_stripe_sessions.py."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import stripe as sdk

from payments_service import payments, reconcile
from payments_service.checkout import PAGE_MARGIN
from payments_service.gateways import stripe
from tests import test_stripe_sessions
from tests.house import House
from tests.stripe_shop import CARD, Shop, new_key, open_service
from tests.test_stripe_sessions import ECOCASH, PAYNOW, cancel, chosen, counts, ends_soon, sessions, tap, tries

shop = test_stripe_sessions.shop  # fixture


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripe is asked again at once."""
    monkeypatch.setattr(sdk.HTTPClient, "INITIAL_DELAY", 0)


# --- while Stripe is silent


@pytest.mark.parametrize("form", [CARD, PAYNOW], ids=["card", "Paynow"])
@pytest.mark.parametrize("age", [timedelta(minutes=11), timedelta(hours=23, minutes=57)], ids=str)
async def test_no_other_try_however_old_the_session_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, form: dict[str, str], age: timedelta
) -> None:
    """Stripe has told of it until a moment ago, and tells nothing now: a session can be paid until its own end. After
    that it can no more, whatever Stripe says."""
    clock = SimpleNamespace(now=lambda _zone: shop.world.clock(), fromtimestamp=datetime.fromtimestamp)
    monkeypatch.setattr(stripe, "datetime", clock)  # by which a session's end is reckoned
    shop.stripe.drop_webhooks = True
    payment = await chosen(shop, CARD)
    (first,) = sessions(shop, "open")
    shop.forward(seconds=age.total_seconds())
    await shop.look()
    shop.stripe.add_fault("rate_limited", on=["sessions.retrieve"])
    ends = datetime.fromtimestamp(first["expires_at"], UTC)
    if form is not CARD or age > timedelta(hours=1):  # a young session is simply shown again
        assert (await tap(shop, payment, form)).status == 409
        shop.forward(seconds=(ends - shop.world.clock() - timedelta(seconds=3)).total_seconds())
        assert (await tap(shop, payment, form)).status == 409
    assert tries(shop, payment) == [("stripe", "live")]
    assert counts(shop) == (1, 1)
    shop.forward(seconds=(ends + PAGE_MARGIN - shop.world.clock()).total_seconds())
    assert (await tap(shop, payment, form)).status == 303
    assert first["status"] == "expired"
    assert tries(shop, payment) == [("stripe", "replaced"), ("stripe" if form is CARD else "paynow", "live")]
    assert counts(shop) == ((1, 2) if form is CARD else (0, 1))


async def test_a_session_whose_end_is_not_known_is_held_for_one_that_lives(shop: Shop) -> None:
    """As after a lost answer that a look-up made good: silence of Stripe does not end it, however long."""
    payment = await chosen(shop, CARD)
    shop.world.rows_do("UPDATE attempts SET next_step = NULL WHERE payment_id = %s", payment["id"])
    shop.forward(hours=2)
    shop.stripe.add_fault("rate_limited", on=["sessions.retrieve"])
    assert (await tap(shop, payment, PAYNOW)).status == 409
    assert tries(shop, payment) == [("stripe", "live")]


async def test_a_session_that_is_about_to_end_waits_for_stripe(shop: Shop) -> None:
    """As long as it is not known to be over, no second one is made that could be paid besides."""
    payment = await chosen(shop, CARD)
    shop.forward(minutes=11)
    await shop.look()
    ends_soon(shop, payment)
    shop.stripe.add_fault("rate_limited", on=["sessions.retrieve"])
    assert (await tap(shop, payment, CARD)).status == 409
    assert counts(shop) == (1, 1)
    shop.stripe.clear_faults()
    assert (await tap(shop, payment, CARD)).status == 303
    assert counts(shop) == (1, 2)


# --- the link is over, or paid another way


async def test_an_old_message_is_no_answer_to_the_last_question(shop: Shop) -> None:
    """That a bank payment was under way, redelivered after the link's end, says nothing of today: the link is not
    closed before the look-up, which finds the money."""
    shop.stripe.drop_webhooks = True
    payment = await shop.link(expires_in=120)
    reference = shop.reference(payment)
    await shop.stripe.pay_later(reference)
    event = shop.event(payment, "checkout.session.completed")
    await shop.stripe.settle(reference)
    later = shop.world.clock() + timedelta(hours=1)
    shop.world.rows_do("UPDATE attempts SET next_check_at = %s WHERE payment_id = %s", later, payment["id"])
    shop.forward(seconds=121)
    assert (await shop.post(event)).status == 200
    attempt = shop.attempt(payment)
    assert (attempt["answered_at"], attempt["last_checked_at"]) == (None, None)
    await payments.expire_due(shop.world.context)
    assert shop.now(payment) == ("pending", 0)
    shop.forward(seconds=11)
    await shop.look()
    assert shop.told(payment) == ["link_created", "paid"]


@pytest.mark.parametrize("how", ["cancelled", "another way"])
async def test_a_session_in_an_account_that_was_changed_since(shop: Shop, how: str) -> None:
    """It is ended with the former account's key."""
    payment = await chosen(shop, CARD)
    other = shop.stripe.add_account(new_key())
    await shop.house.save_stripe(key=other.key)
    if how == "cancelled":
        await cancel(shop, payment)
        await shop.look()
    else:
        assert (await tap(shop, payment, ECOCASH)).status == 303
    assert counts(shop) == (0, 1)
    assert tries(shop, payment)[0] == ("stripe", "failed")


async def test_what_was_paid_another_way_ends_the_session_at_once(shop: Shop) -> None:
    """Two tries that are both open, the first of which brings the money after all: nobody waits for the next usual
    look at the other."""
    payment = await chosen(shop, PAYNOW)
    first = shop.reference(payment)
    assert (await tap(shop, payment, CARD)).status == 303
    shop.forward(minutes=1)
    for gateway, wait in (("stripe", timedelta(hours=1)), ("paynow", timedelta())):
        due = shop.world.clock() + wait
        shop.world.rows_do(
            "UPDATE attempts SET next_check_at = %s WHERE payment_id = %s AND gateway = %s", due, payment["id"], gateway
        )
    await shop.world.sandbox.pay(first)
    assert await reconcile.run_once(shop.world.context, "paynow") == 1
    assert shop.now(payment) == ("paid", 0)
    assert counts(shop) == (1, 1)
    await shop.look()
    assert counts(shop) == (0, 1)
    assert shop.told(payment) == ["link_created", "paid"]
