"""A link and its sessions at Stripe: one at most can be paid; none once the link is over or another way is taken."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from payments_service import checkout, payments
from payments_service.checkout import PAGE_MARGIN
from payments_service.sandbox.hands import WrongMove
from tests.house import PAYNOW_ID, Answer, House
from tests.stripe_shop import CARD, Shop, open_service

ECOCASH = {"way": "paynow.ecocash", "phone": "0771200000"}
PAYNOW = {"way": "paynow.web"}


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture
async def shop(service: House) -> Shop:
    """A tenant with Stripe and Paynow. Paynow's callbacks get lost, its look-ups do not."""
    shop = await Shop.open(service)
    shop.world.sandbox.add_fault("never")
    fields = {
        "paynow_integration_id": PAYNOW_ID,
        "paynow_integration_key": shop.world.sandbox.integrations[PAYNOW_ID].key,
        "paynow_auth_email": "till@acme.example",
    }
    assert (await shop.house.call("PATCH", shop.house.path("/payment-settings"), fields)).status == 200
    return shop


async def tap(shop: Shop, payment: Any, form: dict[str, str]) -> Answer:
    """The customer presses the button on the page, a moment after whatever was before."""
    shop.forward(seconds=2)
    page = f"/pay/{payment['page_url'].rsplit('/', 1)[1]}"
    return await shop.house.get_public(page, method="POST", data=form)


def sessions(shop: Shop, status: str) -> list[dict[str, Any]]:
    return list(shop.account.all("checkout.session", status=status))


def counts(shop: Shop) -> tuple[int, int]:
    """How many sessions can be paid, and how many there were ever."""
    return len(sessions(shop, "open")), len(list(shop.account.all("checkout.session")))


def tries(shop: Shop, payment: Any) -> list[tuple[str, str]]:
    rows = shop.world.rows("SELECT gateway, state FROM attempts WHERE payment_id = %s ORDER BY number", payment["id"])
    return [(row["gateway"], row["state"]) for row in rows]


async def chosen(shop: Shop, form: dict[str, str]) -> Any:
    """A link without a gateway, on whose page this way was chosen."""
    payment = await shop.link(gateway=None)
    assert (await tap(shop, payment, form)).status == 303
    return payment


def ends_soon(shop: Shop, payment: Any) -> None:
    """As far as we know, the session's end is near."""
    shop.world.rows_do(
        "UPDATE attempts SET next_step = jsonb_set(next_step, '{expires_at}', to_jsonb(%s::text)) "
        "WHERE payment_id = %s",
        *((shop.world.clock() + PAGE_MARGIN).isoformat(), payment["id"]),
    )


# --- the link is over


async def cancel(shop: Shop, payment: Any) -> None:
    answer = await shop.house.call("POST", shop.house.path(f"/payments/{payment['id']}/cancel"))
    assert answer.status == 200, answer.body


async def test_a_cancelled_link_can_be_paid_no_more(shop: Shop) -> None:
    """The session is expired by the look-up that follows at once; nothing more is asked, nothing more is told."""
    payment = await shop.link()
    await cancel(shop, payment)
    await shop.look()
    assert counts(shop) == (0, 1)
    with pytest.raises(WrongMove):
        await shop.stripe.pay(shop.reference(payment))
    await shop.settled()
    attempt = shop.attempt(payment)
    assert (attempt["state"], attempt["next_check_at"]) == ("failed", None)
    assert shop.told(payment) == ["link_created", "cancelled"]


async def test_an_expired_link_can_be_paid_no_more(shop: Shop) -> None:
    """A session may not be as short as a link: the last question before the end expires it."""
    payment = await shop.link(expires_in=60)
    shop.forward(seconds=61)
    await payments.expire_due(shop.world.context)
    assert shop.now(payment) == ("pending", 0)
    await shop.look()
    assert counts(shop) == (0, 1)
    await payments.expire_due(shop.world.context)
    assert shop.told(payment) == ["link_created", "expired"]


async def test_a_customer_who_was_faster_than_the_end(shop: Shop) -> None:
    """Paid after the tenant withdrew the link, before its session was expired: late money, by the look-up alone."""
    shop.stripe.drop_webhooks = True
    payment = await shop.link()
    await cancel(shop, payment)
    await shop.stripe.pay(shop.reference(payment))
    await shop.look()
    assert shop.told(payment) == ["link_created", "cancelled", "paid"]
    assert shop.world.one("SELECT late FROM payments WHERE id = %s", payment["id"])["late"]


async def test_a_customer_who_pays_while_the_session_is_being_expired(shop: Shop) -> None:
    """Stripe refuses to expire what was just paid: the money is found by the same look-up."""
    shop.stripe.drop_webhooks = True
    payment = await shop.link()
    await cancel(shop, payment)
    shop.stripe.add_fault("slow_body", on=["sessions.retrieve"], times=1, seconds=0.4)
    looking = asyncio.create_task(shop.look())
    await asyncio.sleep(0.2)
    await shop.stripe.pay(shop.reference(payment))
    await looking
    assert shop.stripe.calls["sessions.expire"] == 1
    assert shop.now(payment) == ("paid", 0)


async def test_a_withdrawal_that_got_no_answer_is_tried_again(shop: Shop) -> None:
    """The attempt stays watched until its session is over."""
    payment = await shop.link()
    await cancel(shop, payment)
    shop.stripe.add_fault("error503_html", on=["sessions.expire"])
    await shop.look()
    assert counts(shop) == (1, 1)
    shop.stripe.clear_faults()
    shop.forward(minutes=1)
    await shop.look()
    assert counts(shop) == (0, 1)


# --- another way, or the same way again


async def test_after_too_many_tries_the_session_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that is open is ended for a try that is not let through."""
    payment = await chosen(shop, CARD)
    monkeypatch.setattr(checkout, "TRIES", 1)
    assert (await tap(shop, payment, ECOCASH)).status == 429
    assert counts(shop) == (1, 1)
    assert tries(shop, payment) == [("stripe", "live")]


@pytest.mark.parametrize("other", [ECOCASH, PAYNOW], ids=["EcoCash", "Paynow"])
async def test_another_way_ends_the_session_first(shop: Shop, other: dict[str, str]) -> None:
    """From card to EcoCash on the page: the card can be charged no more by the time the phone rings."""
    payment = await chosen(shop, CARD)
    assert (await tap(shop, payment, other)).status == 303
    assert counts(shop) == (0, 1)
    assert tries(shop, payment) == [("stripe", "failed"), ("paynow", "live")]
    assert shop.now(payment) == ("pending", 0)


@pytest.mark.parametrize("silent", [["sessions.retrieve", "sessions.expire"], ["sessions.expire"]], ids=str)
async def test_no_other_way_while_stripe_does_not_answer(shop: Shop, silent: list[str]) -> None:
    """409: it is not sure that the session is over, so nothing else is started; once Stripe answers it is."""
    payment = await chosen(shop, CARD)
    shop.stripe.add_fault("rate_limited", on=silent)
    answer = await tap(shop, payment, ECOCASH)
    assert answer.status == 409
    assert tries(shop, payment) == [("stripe", "live")]
    assert counts(shop) == (1, 1)
    shop.stripe.clear_faults()
    assert (await tap(shop, payment, ECOCASH)).status == 303
    assert counts(shop) == (0, 1)
    assert tries(shop, payment)[-1] == ("paynow", "live")


async def test_no_other_way_for_what_was_just_paid_by_card(shop: Shop) -> None:
    """Its webhook was lost; the look before the switch finds the money, and no phone rings."""
    shop.stripe.drop_webhooks = True
    payment = await chosen(shop, CARD)
    await shop.stripe.pay(shop.reference(payment))
    assert (await tap(shop, payment, ECOCASH)).status == 303
    assert shop.now(payment) == ("paid", 0)
    assert tries(shop, payment) == [("stripe", "paid")]


async def test_no_other_way_while_a_bank_sends_the_money(shop: Shop) -> None:
    """The session is complete and cannot be ended: nothing else starts until the bank has said yes or no."""
    payment = await chosen(shop, CARD)
    reference = shop.reference(payment)
    await shop.stripe.pay_later(reference)
    await shop.settled()
    assert (await tap(shop, payment, ECOCASH)).headers["Location"] in payment["page_url"]
    assert tries(shop, payment) == [("stripe", "live")]
    await shop.stripe.bounce(reference)
    await shop.until(payment, "failed")
    assert (await tap(shop, payment, ECOCASH)).status == 303
    assert tries(shop, payment) == [("stripe", "failed"), ("paynow", "live")]


async def test_the_same_way_again_is_the_same_session(shop: Shop) -> None:
    """A double tap, a reload, a second tab: all are sent to the one session."""
    payment = await chosen(shop, CARD)
    answers = await asyncio.gather(*(tap(shop, payment, CARD) for _ in range(4)))
    assert {answer.headers["Location"] for answer in answers} == {sessions(shop, "open")[0]["url"]}
    assert counts(shop) == (1, 1)


async def test_two_taps_make_one_new_session(shop: Shop) -> None:
    """The old session is dead; of taps at the same moment one starts the new session."""
    payment = await chosen(shop, CARD)
    await shop.stripe.expire(shop.reference(payment))
    answers = await asyncio.gather(*(tap(shop, payment, CARD) for _ in range(3)))
    assert {answer.status for answer in answers} <= {303, 409}
    await shop.settled()
    await tap(shop, payment, CARD)
    assert counts(shop) == (1, 2)


async def test_a_session_that_is_about_to_end_is_replaced(shop: Shop) -> None:
    """Nobody is sent to a page that ends while he types; the old one is expired before the new one begins."""
    payment = await chosen(shop, CARD)
    (first,) = sessions(shop, "open")
    ends_soon(shop, payment)
    answer = await tap(shop, payment, CARD)
    assert (answer.status, answer.headers["Location"]) == (303, sessions(shop, "open")[0]["url"])
    assert first["status"] == "expired"
    assert counts(shop) == (1, 2)


# --- any of this in any order


async def walk(shop: Shop, seed: int) -> list[str]:
    """A customer who taps, pays, gives up and comes back, and a tenant and a clock that end things."""
    chance = random.Random(seed)
    payment = await shop.link(gateway=None)
    done: list[str] = []

    async def at_stripe(what: str) -> None:
        for session in sessions(shop, "open"):
            await getattr(shop.stripe, what)(session["id"], **({"send": False} if what == "pay" else {}))

    moves: dict[str, tuple[int, Any]] = {
        "card": (4, lambda: tap(shop, payment, CARD)),
        "two taps": (2, lambda: asyncio.gather(tap(shop, payment, CARD), tap(shop, payment, CARD))),
        "two ways": (2, lambda: asyncio.gather(tap(shop, payment, CARD), tap(shop, payment, PAYNOW))),
        "Paynow": (2, lambda: tap(shop, payment, PAYNOW)),
        "decline": (1, lambda: at_stripe("decline")),
        "expire": (2, lambda: at_stripe("expire")),
        "pay": (1, lambda: at_stripe("pay")),
        "look": (1, shop.look),
    }
    for _ in range(10):
        (name,) = chance.choices(list(moves), [weight for weight, _ in moves.values()])
        done.append(name)
        # Of the minutes that anything would be waited for below.
        async with asyncio.timeout(60):
            await moves[name][1]()
        assert len(sessions(shop, "open")) <= 1, (seed, done)
        assert len(sessions(shop, "complete")) <= 1, (seed, done)
    # Refused where it turns out to be paid.
    await shop.house.call("POST", shop.house.path(f"/payments/{payment['id']}/cancel"))
    await shop.settled()
    shop.forward(seconds=40)
    await shop.look()
    # What cannot be paid any more is over at Stripe too, and what was paid is known.
    assert sessions(shop, "open") == [], (seed, done)
    paid = len(sessions(shop, "complete"))
    assert (shop.now(payment)[0] == "paid") is (paid == 1), (seed, done)
    assert shop.told(payment)
    return done


async def test_two_sessions_can_never_be_paid(service: House, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random walks of customer, tenant and time: never two open sessions, never two payments by card, and nobody waits
    for an answer that has been there all the time."""
    monkeypatch.setattr(checkout, "LOOK_PATIENCE", 240.0)
    begin = random.randrange(10_000)
    seen: set[str] = set()
    for seed in range(begin, begin + 8):
        fresh = await Shop.open(service)
        fresh.world.sandbox.add_fault("never")
        await fresh.house.save_paynow()
        seen |= set(await walk(fresh, seed))
    assert len(seen) >= 4
