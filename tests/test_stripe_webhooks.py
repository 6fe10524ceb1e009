"""Stripe's webhooks over HTTP: who is believed, and what the events of a session lead to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from payments_service.app import public_app
from payments_service.context import Context
from payments_service.db import Database
from payments_service.sandbox.stripe_webhooks import signature
from tests.house import Answer, House, eventually
from tests.servers import serve
from tests.stripe_shop import CARD, Shop, changed, new_key, open_service
from tests.support import Log, dump

PLATFORM = ("whsec_platform_new_0123456789", "whsec_platform_old_0123456789")
COMPLETED = "checkout.session.completed"


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres, stripe_webhook_secret=",".join(PLATFORM)) as house:
        yield house


@pytest.fixture
async def shop(service: House) -> Shop:
    return await Shop.open(service)


@pytest.fixture
async def payment(shop: Shop) -> Any:
    """Paid at Stripe; nobody has told us."""
    payment = await shop.link()
    await shop.stripe.pay(shop.reference(payment), send=False)
    return payment


async def post_to(context: Context, shop: Shop, event: object, path: str, secret: str) -> Answer:
    """Post to a process of its own, which has read nothing yet."""
    async with serve(public_app(context), lifespan="off") as url:
        return await replace(shop, house=replace(shop.house, public=url)).post(event, path=path, secret=secret)


# --- who is believed


async def test_whatever_does_not_verify_is_refused_in_the_same_words(
    shop: Shop, service: House, payment: Any, written_log: Path
) -> None:
    """400 with one body for all of it; nothing changes, nothing secret is logged; then the genuine one is taken."""
    other, bare = await Shop.open(service), await Shop.open(service, webhook=False)
    event, now = shop.event(payment, COMPLETED), shop.stripe.now
    body, header = shop.stripe.signed(event, shop.secret)
    before, log = dump(shop.world.database), Log(written_log)
    answers = [
        await shop.post(event, secret="whsec_wrong"),
        await shop.post(event, secret=other.secret),
        await shop.post(event, t=now - 302),
        await shop.post(event, t=now + 302),
        await shop.post_raw(body, None),
        await shop.post_raw(body, ""),
        await shop.post_raw(body, header.replace("v1=", "v0=")),
        await shop.post_raw(body, f"t={now},v1=é".encode().decode("latin-1")),
        await shop.post_raw(body + b" ", header),
        await shop.post_raw(b"", header),
        await shop.post(event, path=f"/callbacks/stripe/{other.client_id}"),
        await shop.post(event, path=f"/callbacks/stripe/{bare.client_id}"),
        await shop.post(event, path=f"/callbacks/stripe/{uuid4()}"),
        await shop.post(event, path="/callbacks/stripe/not-an-id"),
        await shop.post(event, path="/callbacks/stripe"),
        *[await shop.post(content) for content in ([], "text", {"id": "evt_1"}, None)],
        *[await shop.post(changed(event, **field)) for field in ({"payment_status": 5}, {"metadata": ["x"]})],
    ]
    assert [answer.status for answer in answers] == [400] * len(answers)
    assert {answer.json["code"] for answer in answers} == {"callback_refused"}
    assert len({answer.json["detail"] for answer in answers}) == 1
    assert dump(shop.world.database) == before
    assert (await shop.post(event)).status == 200
    assert shop.now(payment) == ("paid", 0)
    for secret in (shop.secret, shop.account.key, other.secret, header, *PLATFORM):
        assert secret not in log.text


async def test_a_signature_is_good_for_five_minutes_both_ways(shop: Shop, payment: Any) -> None:
    event, now = shop.event(payment, COMPLETED), shop.stripe.now
    assert (await shop.post(event, t=now - 295)).status == 200
    assert (await shop.post(event, t=now + 295)).status == 200
    assert shop.told(payment) == ["link_created", "paid"]


async def test_a_body_of_more_than_64_kb_is_not_read(shop: Shop, payment: Any) -> None:
    """413, signed or not."""
    event = changed(shop.event(payment, COMPLETED), metadata={"x": "y" * 70_000})
    assert (await shop.post(event)).status == 413
    assert shop.now(payment) == ("pending", 0)


async def test_a_secret_that_was_replaced_is_believed_for_an_hour(shop: Shop, payment: Any) -> None:
    """Events that were on their way when the endpoint was renewed are taken; afterwards only the new secret's are."""
    event, path = shop.event(payment, COMPLETED), f"/callbacks/stripe/{shop.client_id}"
    settings = {"stripe_webhook_secret": "whsec_new_endpoint"}
    assert (await shop.house.call("PATCH", shop.house.path("/payment-settings"), settings)).status == 200
    shop.forward(minutes=59)
    answer = await post_to(shop.world.context, shop, changed(event, amount_total=1), path, shop.secret)
    assert answer.status == 200
    shop.forward(minutes=2)
    assert (await post_to(shop.world.context, shop, event, path, shop.secret)).status == 400
    assert (await post_to(shop.world.context, shop, event, path, "whsec_new_endpoint")).status == 200


async def test_a_secret_that_was_cleared_is_believed_no_more(shop: Shop, payment: Any) -> None:
    """Also the one before it, and without any secret nobody is believed."""
    event, path = shop.event(payment, COMPLETED), f"/callbacks/stripe/{shop.client_id}"
    for value in ("whsec_second", None):
        settings = {"stripe_webhook_secret": value}
        assert (await shop.house.call("PATCH", shop.house.path("/payment-settings"), settings)).status == 200
    for secret in (shop.secret, "whsec_second", ""):
        assert (await post_to(shop.world.context, shop, event, path, secret)).status == 400
    assert shop.now(payment) == ("pending", 0)


async def test_two_secrets_while_the_endpoint_is_rolled(shop: Shop, payment: Any) -> None:
    """Saved together, both are believed; Stripe signs with each of its own for a day."""
    settings = {"stripe_webhook_secret": f"whsec_rolled, {shop.secret}"}
    assert (await shop.house.call("PATCH", shop.house.path("/payment-settings"), settings)).status == 200
    event, path = shop.event(payment, COMPLETED), f"/callbacks/stripe/{shop.client_id}"
    for secret in ("whsec_rolled", shop.secret):
        assert (await post_to(shop.world.context, shop, event, path, secret)).status == 200
    assert shop.told(payment) == ["link_created", "paid"]


# --- what is not ours, and what does not fit


async def test_ids_longer_than_stripes_are_none(shop: Shop, payment: Any) -> None:
    """No index holds them, and no text of a database a lone surrogate: 400, nothing changes, and what follows is
    taken."""
    assert (await shop.post(shop.event(payment, COMPLETED))).status == 200
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    await shop.stripe.dispute(shop.reference(payment), 1000, send=False)
    completed, refund, dispute = (
        shop.event(payment, kind) for kind in (COMPLETED, "refund.created", "charge.dispute.created")
    )
    long = secrets.token_hex(10_000)
    odd = [
        changed(refund, id=f"re_{long}"),
        changed(refund, payment_intent=f"pi_{long}"),
        changed(dispute, id=f"du_{long}"),
        changed(completed, payment_intent=f"pi_{long}"),
        changed(completed, id=f"cs_{long}"),
        {**changed(refund), "id": f"evt_{long}"},
        *[changed(refund, id=name) for name in ("", "re_ 1", "re_\n", "re_é")],
    ]
    before = dump(shop.world.database)
    assert [(await shop.post(event)).status for event in odd] == [400] * len(odd)
    body, _ = shop.stripe.signed(changed(refund, id="re_SURROGATE"), shop.secret)
    body = body.replace(b"SURROGATE", b"\\ud800")
    assert (await shop.post_raw(body, signature(body, [shop.secret], shop.stripe.now))).status == 400
    assert dump(shop.world.database) == before
    for event in (refund, dispute):
        assert (await shop.post(event)).status == 200
    assert shop.now(payment) == ("disputed", 250)


@pytest.mark.parametrize("kind", ["refund.created", "charge.refunded", "charge.dispute.created"])
async def test_an_amount_of_nothing_changes_nothing(shop: Shop, payment: Any, kind: str) -> None:
    """200, and look-ups, which tell the same, go on."""
    assert (await shop.post(shop.event(payment, COMPLETED))).status == 200
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    await shop.stripe.dispute(shop.reference(payment), 1000, send=False)
    odd = changed(shop.event(payment, kind), **{"amount_refunded" if kind == "charge.refunded" else "amount": 0})
    assert (await shop.post(odd)).status == 200
    assert shop.now(payment) == ("paid", 0)
    for thing in (*shop.account.all("refund"), *shop.account.all("dispute")):
        thing["amount"] = 0
    for days in (1, 2):
        shop.forward(days=days)
        await shop.look()
        attempt = shop.attempt(payment)
        assert attempt["next_check_at"] > attempt["answered_at"] > shop.world.clock() - timedelta(minutes=1)
    assert (await shop.post(shop.event(payment, "charge.dispute.created"))).status == 200


async def test_genuine_events_about_nothing_of_ours(shop: Shop, payment: Any) -> None:
    """200, or Stripe would send them for days; nothing is kept of them."""
    event = shop.event(payment, COMPLETED)
    intent = {**shop.event(payment, "payment_intent.succeeded"), "type": "payment_intent.payment_failed"}
    before = dump(shop.world.database)
    for foreign in (
        changed(event, client_reference_id=None, metadata={}),
        changed(event, client_reference_id="cart-77", metadata={}, payment_intent="pi_unknown"),
        changed(event, client_reference_id="x" * 200, metadata={"attempt_id": str(uuid4())}, payment_intent=None),
        changed(intent, metadata={}),
        {**changed(event), "type": "customer.created"},
        {**changed(event), "type": "something.new"},
    ):
        answer = await shop.post(foreign)
        assert (answer.status, answer.json) == (200, {"received": True}), foreign
    assert dump(shop.world.database) == before


async def test_an_event_of_the_other_mode_changes_nothing(shop: Shop, payment: Any) -> None:
    """A live endpoint is sent test events too: 200, and a test card pays nothing."""
    event = {**changed(shop.event(payment, COMPLETED)), "livemode": True}
    assert (await shop.post(event)).status == 200
    assert shop.now(payment) == ("pending", 0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"amount_total": 1249}, "amount_mismatch"),
        ({"amount_total": 1251}, "amount_mismatch"),
        ({"amount_total": None}, "amount_mismatch"),
        ({"currency": "eur"}, "amount_mismatch"),
        ({"client_reference_id": "INV-another"}, "reference_mismatch"),
        ({"client_reference_id": None}, "reference_mismatch"),
    ],
    ids=str,
)
async def test_money_that_does_not_fit_goes_to_a_person(
    shop: Shop, payment: Any, wrong: dict[str, object], reason: str
) -> None:
    """One cent off, another currency, another reference: a review with what was said beside what was asked for."""
    assert (await shop.post(changed(shop.event(payment, COMPLETED), **wrong))).status == 200
    assert shop.told(payment) == ["link_created", "review"]
    review = shop.world.one("SELECT * FROM reviews WHERE payment_id = %s", payment["id"])
    assert review["reason"] == reason
    assert (review["evidence"]["expected_cents"], review["evidence"]["expected_currency"]) == (1250, "USD")
    if "currency" in wrong:
        assert "1250 eur" in review["evidence"]["said"]


# --- the events of a session


async def test_an_event_that_is_faster_than_our_own_call(shop: Shop) -> None:
    """Stripe's answer to our call drips while the customer pays: paid, once, and the session's id is kept."""
    shop.stripe.add_fault("slow_body", on=["sessions.create"], times=1, seconds=0.8)
    creating = asyncio.create_task(shop.link())
    session = await eventually(lambda: next(iter(shop.account.all("checkout.session")), None), every=0.01)
    await shop.stripe.pay(session["id"])
    await shop.settled()
    assert not creating.done()
    payment = await creating
    assert payment["status"] == "paid"
    attempt = shop.attempt(payment)
    assert (attempt["state"], attempt["poll_url"]) == ("paid", session["id"])
    assert shop.told(payment) == ["paid"]


async def test_an_event_keeps_the_session_of_a_lost_answer(shop: Shop) -> None:
    """No answer to our call ever comes: the event itself names the session, so that look-ups need no search."""
    shop.stripe.add_fault("reset", on=["sessions.create"])
    answer = await shop.house.call("POST", shop.house.path("/payments/create-link"), shop.house.order(gateway="stripe"))
    assert answer.status == 504
    (session,) = shop.account.all("checkout.session")
    await shop.stripe.pay(session["id"])
    payment = {"id": answer.json["payment_id"], "client_id": str(shop.client_id)}
    await shop.until(payment, "paid")
    assert shop.attempt(payment)["poll_url"] == session["id"]


@pytest.mark.parametrize(("arrives", "end"), [(True, "paid"), (False, "failed")])
async def test_money_from_a_bank_takes_days(shop: Shop, arrives: bool, end: str) -> None:
    """Completed and unpaid is no payment; it is paid or failed when the bank says so, and a failed one can be tried
    again."""
    payment = await shop.link()
    reference = shop.reference(payment)
    await shop.stripe.pay_later(reference)
    await shop.settled()
    assert shop.now(payment) == ("pending", 0)
    shop.forward(seconds=15)
    await shop.look()
    assert shop.now(payment) == ("pending", 0)
    await (shop.stripe.settle if arrives else shop.stripe.bounce)(reference)
    await shop.until(payment, end)
    await shop.settled()
    assert shop.told(payment) == ["link_created", end]
    if not arrives:
        page = f"/pay/{payment['page_url'].rsplit('/', 1)[1]}"
        assert "/c/pay/cs_" in (await shop.house.get_public(page, method="POST", data=CARD)).headers["Location"]
        await shop.stripe.pay(shop.reference(payment))
        await shop.until(payment, "paid")


async def test_an_expired_session_leaves_the_link_payable(shop: Shop) -> None:
    """Nothing is told; the page starts another session, by which it is paid."""
    payment = await shop.link()
    first = shop.reference(payment)
    await shop.stripe.expire(first)
    await shop.settled()
    assert shop.attempt(payment)["state"] == "failed"
    assert shop.now(payment) == ("pending", 0)
    page = f"/pay/{payment['page_url'].rsplit('/', 1)[1]}"
    answer = await shop.house.get_public(page, method="POST", data=CARD)
    assert (answer.status, "/c/pay/cs_" in answer.headers["Location"]) == (303, True)
    assert shop.reference(payment) != first
    await shop.stripe.pay(shop.reference(payment))
    await shop.until(payment, "paid")
    assert shop.told(payment) == ["link_created", "paid"]


async def test_a_declined_card_is_not_the_end(shop: Shop) -> None:
    """The session stays open; the next card pays. The decline is kept as evidence."""
    payment = await shop.link()
    await shop.stripe.decline(shop.reference(payment))
    await shop.settled()
    assert (shop.now(payment), shop.attempt(payment)["state"]) == (("pending", 0), "live")
    await shop.stripe.pay(shop.reference(payment))
    await shop.until(payment, "paid")
    await shop.settled()
    kept = shop.world.rows("SELECT said, fields FROM callbacks WHERE client_id = %s ORDER BY id", shop.client_id)
    assert [row["said"] for row in kept] == ["payment_intent.payment_failed", COMPLETED]
    assert kept[0]["fields"]["code"] == "card_declined"


async def test_a_payment_after_the_link_was_cancelled_is_late(shop: Shop) -> None:
    """The customer was faster than our withdrawal: the money is recorded, and late."""
    payment = await shop.link()
    answer = await shop.house.call("POST", shop.house.path(f"/payments/{payment['id']}/cancel"))
    assert answer.status == 200, answer.body
    await shop.stripe.pay(shop.reference(payment))
    assert (await shop.until(payment, "paid"))["late"]


async def test_our_own_database_is_away(shop: Shop, payment: Any) -> None:
    """503, so that Stripe sends it again; then it is absorbed."""
    event, path = shop.event(payment, COMPLETED), f"/callbacks/stripe/{shop.client_id}"
    away = Database("postgresql://postgres@127.0.0.1:1/nothing", wait_seconds=0.2)
    await away.open()
    counted = shop.world.context.metrics.registry.get_sample_value
    failed = ("payments_callbacks_total", {"gateway": "stripe", "verdict": "failed"})
    before = counted(*failed) or 0
    try:
        for where, secret in ((path, shop.secret), ("/callbacks/stripe", PLATFORM[0])):
            answer = await post_to(replace(shop.world.context, db=away), shop, event, where, secret)
            assert (answer.status, answer.json["code"]) == (503, "unavailable")
        assert counted(*failed) == before + 2
    finally:
        await away.close()
    assert (await shop.post(event)).status == 200
    assert shop.now(payment) == ("paid", 0)


async def test_an_event_names_attempts_of_its_own_tenant_only(shop: Shop, service: House, payment: Any) -> None:
    """A tenant that signs events with our ids of another's payment moves nothing."""
    thief = await Shop.open(service)
    event = shop.event(payment, COMPLETED)
    assert (await thief.post(event)).status == 200
    assert shop.now(payment) == ("pending", 0)
    await shop.stripe.refund(shop.reference(payment), 250, send=False)
    assert (await shop.post(event)).status == 200
    assert (await thief.post(shop.event(payment, "refund.created"))).status == 200
    assert shop.now(payment) == ("paid", 0)


async def test_a_live_key_reads_live_events(service: House) -> None:
    """The mode is the key's."""
    shop = await Shop.open(service)
    account = shop.stripe.add_account(new_key("live"))
    shop = replace(shop, account=account, secret=await shop.house.save_stripe(key=account.key))
    payment = await shop.link()
    await shop.stripe.pay(shop.reference(payment), send=False)
    event = shop.event(payment, COMPLETED)
    assert event["livemode"]
    assert (await shop.post({**changed(event), "livemode": False})).status == 200
    assert shop.now(payment) == ("pending", 0)
    assert (await shop.post(event)).status == 200
    assert shop.now(payment) == ("paid", 0)
