"""Giving money back over HTTP: by Stripe, by hand, many at once, and when answers get lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from payments_service import refunds
from payments_service.refunds import RefundWish
from tests.house import House, eventually
from tests.stripe_shop import Shop, open_service


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture
async def shop(service: House) -> Shop:
    return await Shop.open(service)


@pytest.fixture
async def payment(shop: Shop) -> Any:
    return await shop.paid()


# --- whole and in parts


async def test_the_whole_is_refunded_without_an_amount(shop: Shop, payment: Any) -> None:
    """One event with the exact sum; the refund and the payment are in the answer."""
    answer = await shop.refund(payment)
    assert answer.status == 201, answer.body
    made = answer.json
    assert (made["amount_cents"], made["currency"], made["status"], made["manual"]) == (1250, "USD", "succeeded", False)
    assert made["gateway_reference"].startswith("re_")
    assert (made["payment"]["status"], made["payment"]["refunded_cents"]) == ("refunded", 1250)
    await shop.settled()
    assert shop.told(payment) == ["link_created", "paid", "refunded"]
    assert shop.given_back(payment) == 1250


async def test_parts_until_nothing_is_left(shop: Shop, payment: Any) -> None:
    """Each part adds up; without an amount the rest goes; then there is nothing more to give back."""
    for cents, status, by_now in ((250, "partially_refunded", 250), (999, "partially_refunded", 1249)):
        answer = await shop.refund(payment, cents)
        assert (answer.json["payment"]["status"], answer.json["payment"]["refunded_cents"]) == (status, by_now)
    answer = await shop.refund(payment)
    assert (answer.json["amount_cents"], answer.json["payment"]["status"]) == (1, "refunded")
    await shop.settled()
    assert shop.told(payment)[2:] == ["partially_refunded", "partially_refunded", "refunded"]
    assert (await shop.refund(payment, 1)).status == 409
    assert [each["amount_cents"] for each in await shop.refunds(payment)] == [250, 999, 1]


async def test_what_is_told_of_a_refund(shop: Shop, payment: Any) -> None:
    """GET shows every refund with its state and reason, those made in the dashboard without one; oldest first."""
    assert await shop.refunds(payment) == []
    await shop.refund(payment, 250)
    await shop.stripe.refund(shop.reference(payment), 300)
    await shop.until(payment, "partially_refunded", 550)
    shown = await shop.refunds(payment)
    told = [(each["amount_cents"], each["reason"], each["status"], each["manual"]) for each in shown]
    assert told == [(250, "one bag was torn", "succeeded", False), (300, None, "succeeded", False)]
    assert all(each["payment_id"] == payment["id"] and each["gateway"] == "stripe" for each in shown)


async def test_the_audit_tells_who_asked_for_what(shop: Shop, payment: Any) -> None:
    """A row in the tenant's chain, written with the refund; a request that is refused leaves none."""
    answer = await shop.house.call(
        "POST", shop.refunds_path(payment), {"reason": "torn", "amount_cents": 250}, headers={"X-Actor": "Tendai"}
    )
    assert (await shop.refund(payment, 1001)).status == 422
    rows = shop.world.rows(
        "SELECT actor, detail FROM audit_logs WHERE client_id = %s AND action = 'refund.requested'", shop.client_id
    )
    detail = {"payment_id": payment["id"], "refund_id": answer.json["id"], "amount_cents": 250, "reason": "torn"}
    assert rows == [{"actor": "Tendai", "detail": {**detail, "manual": False}}]


# --- pending ones


async def test_a_pending_refund_is_refunded_once_it_succeeds(shop: Shop, payment: Any) -> None:
    """The payment stays paid until the webhook tells."""
    shop.stripe.refund_status = "pending"
    try:
        answer = await shop.refund(payment, 250)
    finally:
        shop.stripe.refund_status = "succeeded"
    assert (answer.json["status"], answer.json["payment"]["status"]) == ("pending", "paid")
    await shop.settled()
    assert shop.now(payment) == ("paid", 0)
    await shop.stripe.move_refund(answer.json["gateway_reference"], "succeeded")
    await shop.until(payment, "partially_refunded", 250)
    assert shop.told(payment) == ["link_created", "paid", "partially_refunded"]


@pytest.mark.parametrize("lost", [False, True], ids=["webhook", "look-up"])
@pytest.mark.parametrize("before", ["pending", "succeeded"])
async def test_a_refund_that_fails(shop: Shop, payment: Any, before: str, lost: bool) -> None:
    """The payment is paid again and can be refunded anew, told by webhook, or by look-up within the hour where that is
    lost; what had succeeded is found by the look-up of the next day."""
    shop.stripe.refund_status = before
    try:
        made = (await shop.refund(payment)).json
    finally:
        shop.stripe.refund_status = "succeeded"
    await shop.settled()
    if before == "pending" and not lost:
        assert (await shop.refund(payment, 1)).status == 409
    shop.forward(seconds=20)
    await shop.look()
    await shop.stripe.move_refund(made["gateway_reference"], "failed", send=not lost)
    await shop.settled()
    if lost:
        shop.forward(**({"minutes": 61} if before == "pending" else {"days": 1}))
        await shop.look()
    assert shop.now(payment) == ("paid", 0)
    (shown,) = await shop.refunds(payment)
    assert shown["status"] == "failed"
    back = ["refunded", "paid"] if before == "succeeded" else []
    assert shop.told(payment) == ["link_created", "paid", *back]
    assert (await shop.refund(payment)).json["payment"]["status"] == "refunded"


async def test_a_pending_refund_holds_its_money(shop: Shop, payment: Any) -> None:
    """While one is on its way, no other goes above what is left."""
    shop.stripe.refund_status = "pending"
    try:
        assert (await shop.refund(payment, 1000)).json["status"] == "pending"
    finally:
        shop.stripe.refund_status = "succeeded"
    answer = await shop.refund(payment, 251)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "amount_cents")
    assert "250" in answer.json["errors"][0]["message"]
    assert (await shop.refund(payment)).json["amount_cents"] == 250
    assert shop.given_back(payment) == 1250


# --- lost answers


@pytest.mark.parametrize("fault", ["timeout_after_accepting", "reset"])
async def test_an_answer_lost_once_is_asked_for_again(shop: Shop, payment: Any, fault: str) -> None:
    """The same idempotency key: one refund, and its answer."""
    shop.stripe.add_fault(fault, on=["refunds.create"], times=1, seconds=0.1)
    answer = await shop.refund(payment, 250)
    assert (answer.status, answer.json["status"]) == (201, "succeeded")
    assert shop.stripe.calls["refunds.create"] == 2
    assert shop.given_back(payment) == 250


@pytest.mark.parametrize(("fault", "lost"), [("reset", False), ("error500_after_accepting", True)])
async def test_an_answer_that_never_comes(shop: Shop, payment: Any, fault: str, lost: bool) -> None:
    """504 with the payment's id; the refund is `requested`, holds its money, and is settled by the webhook, or by the
    look-up half a minute later where that is lost: one refund."""
    shop.stripe.drop_webhooks = lost
    shop.stripe.add_fault(fault, on=["refunds.create"])
    answer = await shop.refund(payment, 1000)
    assert (answer.status, answer.json["payment_id"]) == (504, payment["id"])
    await shop.settled()
    if lost:
        assert [each["status"] for each in await shop.refunds(payment)] == ["requested"]
        assert (await shop.refund(payment, 251)).status == 422
        shop.forward(seconds=31)
        await shop.look()
    assert shop.now(payment) == ("partially_refunded", 1000)
    assert [each["status"] for each in await shop.refunds(payment)] == ["succeeded"]
    assert shop.given_back(payment) == 1000
    assert shop.told(payment) == ["link_created", "paid", "partially_refunded"]


@pytest.mark.parametrize("lost", ["reset", "error500_after_accepting"])
async def test_a_no_after_a_lost_answer_proves_nothing(shop: Shop, payment: Any, lost: str) -> None:
    """The first try was taken; that the next one was turned away at the door, for its key had just been rolled, is no
    reason to say that none was."""
    shop.stripe.drop_webhooks = True
    shop.stripe.add_fault(lost, on=["refunds.create"], times=1)
    asking = asyncio.create_task(shop.refund(payment, 600))
    await eventually(lambda: shop.given_back(payment), every=0.01)
    shop.stripe.expire_key(shop.account.key)
    assert (await asking).status == 504
    shop.stripe.accounts[shop.account.key] = shop.account
    shop.stripe.expired_keys.clear()
    assert [each["status"] for each in await shop.refunds(payment)] == ["requested"]
    assert (await shop.refund(payment, 651)).status == 422
    shop.forward(seconds=31)
    await shop.look()
    assert (shop.now(payment), shop.given_back(payment)) == (("partially_refunded", 600), 600)


async def asked_in_vain(shop: Shop, payment: Any) -> None:
    """The look-ups that follow a refund which Stripe never made: it is closed after two minutes, not before."""
    for seconds, state in ((31, "requested"), (61, "requested"), (61, "failed")):
        shop.forward(seconds=seconds)
        await shop.look()
        assert [each["status"] for each in await shop.refunds(payment)] == [state], seconds
    assert shop.now(payment) == ("paid", 0)
    assert (await shop.refund(payment)).status == 201


async def test_a_refund_whose_every_try_failed_at_stripe(shop: Shop, payment: Any) -> None:
    """HTTP 500 is no answer: 504, and when look-ups do not find it, it has failed, and can be asked for anew."""
    shop.stripe.add_fault("error500", on=["refunds.create"])
    answer = await shop.refund(payment, 1000)
    assert (answer.status, answer.json["payment_id"]) == (504, payment["id"])
    shop.stripe.clear_faults()
    await asked_in_vain(shop, payment)


async def test_a_crash_before_stripe_was_asked(shop: Shop, payment: Any) -> None:
    """The refund is on record before the call; nobody made it, and it ends as failed by itself."""
    wish = RefundWish("one bag was torn", 1000)
    await refunds._reserve(shop.world.context, shop.client_id, UUID(payment["id"]), wish, "test")
    assert (await shop.refund(payment, 251)).status == 422
    await asked_in_vain(shop, payment)


async def test_a_stripe_that_cannot_be_asked(shop: Shop, payment: Any) -> None:
    """Sure not to have been made: 503 with the payment's id, failed at once, and free to be asked for again."""
    shop.stripe.add_fault("rate_limited", on=["refunds.create"])
    answer = await shop.refund(payment)
    assert (answer.status, answer.json["payment_id"]) == (503, payment["id"])
    (shown,) = await shop.refunds(payment)
    assert (shown["status"], "no more requests" in shown["detail"]) == ("failed", True)
    shop.stripe.clear_faults()
    assert (await shop.refund(payment)).status == 201


async def test_a_key_that_does_not_open(shop: Shop, payment: Any) -> None:
    """A refund that cannot leave has failed at once, and holds no money."""
    kept = shop.world.one("SELECT stripe_secret_key_enc FROM payment_settings WHERE client_id = %s", shop.client_id)
    set_key = "UPDATE payment_settings SET stripe_secret_key_enc = %s WHERE client_id = %s"
    shop.world.rows_do(set_key, "bm90IHNlYWxlZA==", shop.client_id)
    answer = await shop.refund(payment)
    assert answer.json["code"] == "credentials_unreadable"
    assert [each["status"] for each in await shop.refunds(payment)] == ["failed"]
    shop.world.rows_do(set_key, kept["stripe_secret_key_enc"], shop.client_id)
    assert (await shop.refund(payment)).status == 201


async def test_an_answer_about_another_refund_is_none(shop: Shop, payment: Any) -> None:
    """504: nothing is concluded, and the look-up finds the truth."""
    assert (await shop.refund(payment, 100)).status == 201
    shop.stripe.drop_webhooks = True
    shop.stripe.add_fault("wrong_object", on=["refunds.create"])
    assert (await shop.refund(payment, 250)).status == 504
    shop.forward(seconds=31)
    await shop.look()
    assert shop.now(payment) == ("partially_refunded", 350)


# --- refused


async def test_more_than_is_left_is_refused(shop: Shop, payment: Any) -> None:
    """422 for the field, before anything is recorded or Stripe hears of it."""
    answer = await shop.refund(payment, 1251)
    assert (answer.status, answer.json["code"]) == (422, "validation_failed")
    assert answer.json["errors"] == [
        {"field": "amount_cents", "message": "is more than what is left to refund, which is 1250"}
    ]
    assert await shop.refunds(payment) == []
    assert shop.stripe.calls["refunds.create"] == 0


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_only_what_is_paid_can_be_refunded(shop: Shop, payment: Any) -> None:
    """409 names the status; nothing is recorded."""
    for status in ("pending", "failed", "expired", "cancelled", "review", "refunded"):
        shop.world.rows_do("UPDATE payments SET status = %s WHERE id = %s", status, payment["id"])
        answer = await shop.refund(payment)
        assert (answer.status, answer.json["code"]) == (409, "wrong_state")
        assert status in answer.json["detail"]
    assert await shop.refunds(payment) == []


NONSENSE: list[tuple[dict[str, object], str]] = [
    ({}, "reason"),
    ({"reason": "   "}, "reason"),
    ({"reason": "r", "amount_cents": 0}, "amount_cents"),
    ({"reason": "r", "amount_cents": -5}, "amount_cents"),
    ({"reason": "r", "amount_cents": 2.5}, "amount_cents"),
    ({"reason": "r", "manual": True}, "evidence"),
    ({"reason": "r", "evidence": "receipt 7"}, "evidence"),
    ({"reason": "r", "manual": True, "evidence": "receipt 7"}, "manual"),
]


async def test_a_body_that_makes_no_sense(shop: Shop, payment: Any) -> None:
    """422 names the field; and by Stripe nothing can be given back by hand."""
    for body, field in NONSENSE:
        answer = await shop.house.call("POST", shop.refunds_path(payment), body)
        assert answer.status == 422, (body, answer.body)
        assert field in str(answer.json["errors"]), body
    assert await shop.refunds(payment) == []


async def test_another_tenants_payment_is_not_there(shop: Shop, payment: Any) -> None:
    """404 in the same words as for one that never was, for POST and GET."""
    answers = [
        await shop.house.call(method, path, body)
        for path in (shop.refunds_path(payment, uuid4()), shop.refunds_path({"id": uuid4()}))
        for method, body in (("POST", {"reason": "r"}), ("GET", None))
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({answer.json["detail"] for answer in answers}) == 1
    assert shop.given_back(payment) == 0


async def test_stripe_refuses_what_the_dashboard_gave_back_already(shop: Shop, payment: Any) -> None:
    """A refund in the dashboard whose webhook we have not seen: Stripe's no is ours, 422 in its words."""
    await shop.stripe.refund(shop.reference(payment), 1000, send=False)
    answer = await shop.refund(payment, 300)
    assert (answer.status, answer.json["code"], answer.json["payment_id"]) == (422, "gateway_refused", payment["id"])
    assert "greater than unrefunded amount" in answer.json["detail"]
    assert (await shop.refund(payment, 250)).status == 201
    shop.forward(seconds=20)
    await shop.look()
    assert shop.now(payment) == ("refunded", 1250)


# --- many at once


async def test_fifty_at_once_never_give_back_more_than_was_paid(shop: Shop) -> None:
    """130 % asked for in fifty parts: what was taken is exact here and at Stripe, and every other one is told why."""
    payment = await shop.paid(amount_cents=5000)
    answers = await asyncio.gather(*(shop.refund(payment, 130) for _ in range(50)))
    await shop.settled()
    made = [answer for answer in answers if answer.status == 201]
    assert len(made) == 5000 // 130
    for answer in answers:
        assert answer.status in (201, 422), answer.body
        assert answer.status == 201 or "what is left" in answer.json["errors"][0]["message"]
    assert shop.given_back(payment) == 130 * len(made)
    assert shop.now(payment) == ("partially_refunded", 130 * len(made))
    told = shop.told(payment)
    assert set(told[2:]) == {"partially_refunded"}
    assert len(told[2:]) <= len(made)


async def test_refunds_here_and_in_the_dashboard_at_once(shop: Shop, payment: Any) -> None:
    """Whoever is first: never more than was paid, and in the end we know all that was given back."""

    async def by_dashboard() -> None:
        for _ in range(4):
            await asyncio.sleep(0.005)
            await shop.stripe.refund(shop.reference(payment), 150)

    answers, _ = await asyncio.gather(asyncio.gather(*(shop.refund(payment, 150) for _ in range(6))), by_dashboard())
    await shop.settled()
    shop.forward(seconds=40)
    await shop.look()
    assert {answer.status for answer in answers} <= {201, 409, 422}
    status, refunded = shop.now(payment)
    assert (status, refunded) == ("partially_refunded", shop.given_back(payment))
    assert refunded <= 1250
    assert refunded == sum(
        each["amount_cents"] for each in await shop.refunds(payment) if each["status"] == "succeeded"
    )


# --- by hand


async def test_paynow_needs_a_person_and_the_evidence(shop: Shop) -> None:
    """A gateway without refunds: 422 says what to send; then the money that a person gave back is recorded as such."""
    shop.world.sandbox.add_fault("never")
    await shop.house.save_paynow()
    payment = await shop.link(gateway="paynow")
    await shop.world.sandbox.pay(shop.reference(payment))
    await shop.until_looked_up(payment, "paid")
    answer = await shop.refund(payment, 250)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "manual")
    assert "by hand" in answer.json["errors"][0]["message"]
    answer = await shop.refund(payment, 250, manual=True, evidence="EcoCash MP241128.1432")
    assert answer.status == 201, answer.body
    made = answer.json
    assert (made["status"], made["manual"], made["evidence"]) == ("succeeded", True, "EcoCash MP241128.1432")
    assert (made["payment"]["status"], made["payment"]["refunded_cents"]) == ("partially_refunded", 250)
    assert (await shop.refund(payment, 1001, manual=True, evidence="x")).status == 422
    answer = await shop.refund(payment, manual=True, evidence="cash, receipt 7")
    assert (answer.json["amount_cents"], answer.json["payment"]["status"]) == (1000, "refunded")
    assert shop.told(payment) == ["link_created", "paid", "partially_refunded", "refunded"]
