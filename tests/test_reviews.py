"""What a person decides: reviews are resolved, refunds of which nobody tells are settled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio

from conva_payments import Payment as PaymentOfClient
from payments_service import payments
from payments_service import reviews as reviews_story
from payments_service.errors import Unavailable
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money
from payments_service.records import AttemptChange
from tests.house import Answer, House
from tests.support import afresh, open_house
from tests.till import Till, check_books, refund, settled


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    await house.save_paynow()
    return house


async def in_review(house: House) -> Any:
    """A payment of which one cent too much came in."""
    payment = await house.create_link()
    await house.world.sandbox.pay(house.reference_of(payment), "12.51")
    await look(house)
    now = await house.payment(payment)
    assert now["status"] == "review"
    return now


async def look(house: House, gateway: str = "paynow") -> None:
    house.world.clock.forward(minutes=5)
    await house.world.look_up(gateway)


async def tap(house: House, payment: Any, **form: str) -> None:
    """What the customer sends from the page."""
    path = f"/pay/{payment['page_url'].rpartition('/')[2]}"
    assert (await house.get_public(path, method="POST", data=form)).status == 303


async def pay_by_ecocash(house: House, payment: Any) -> None:
    await tap(house, payment, way="ecocash.ecocash", phone="077 123 4567")
    await house.world.ecocash.approve(house.world.ecocash.charges[-1].correlator)
    await look(house, "ecocash")


async def give_back(house: House, payment: Any, cents: int) -> None:
    path = f"{house.path('/payments')}/{payment['id']}/refunds"
    answer = await house.call("POST", path, {"reason": "torn", "amount_cents": cents})
    assert answer.status == 201, answer.body


async def resolve(house: House, payment: Any, **body: object) -> Answer:
    path = f"{house.path('/payments')}/{payment['id']}/resolve"
    return await house.call("POST", path, {"note": "seen on the statement", **body}, headers={"X-Actor": "thandi"})


async def reviews(house: House, payment: Any) -> list[Any]:
    answer = await house.call("GET", f"{house.path('/payments')}/{payment['id']}/reviews")
    assert answer.status == 200, answer.body
    data: list[Any] = answer.json["data"]
    return data


def told(house: House, payment: Any) -> list[str]:
    rows = house.world.rows("SELECT type FROM events WHERE payment_id = %s ORDER BY sequence", payment["id"])
    return [row["type"].removeprefix("payment.") for row in rows]


@pytest.mark.parametrize(
    ("resolution", "refunded"), [("paid", 0), ("failed", 0), ("refunded", 1250)], ids=["paid", "failed", "refunded"]
)
async def test_a_person_leads_out_of_a_review(house: House, resolution: str, refunded: int) -> None:
    """To what they have found out, with event, history, audit row, and the note on the review."""
    payment = await in_review(house)
    (review,) = await reviews(house, payment)
    assert (review["reason"], review["resolved_at"]) == ("amount_mismatch", None)
    assert (review["evidence"]["amount_cents"], review["evidence"]["expected_cents"]) == (1251, 1250)
    answer = await resolve(house, payment, resolution=resolution)
    assert answer.status == 200, answer.body
    assert (answer.json["status"], answer.json["refunded_cents"]) == (resolution, refunded)
    assert {**answer.json, "messages": []} == await house.payment(payment)
    assert told(house, payment) == ["link_created", "review", resolution]
    (review,) = await reviews(house, payment)
    assert (review["resolution"], review["note"], review["actor"]) == (resolution, "seen on the statement", "thandi")
    history = await house.call("GET", f"{house.path('/payments')}/{payment['id']}/history")
    last = history.json["data"][-1]
    assert (last["cause"], last["actor"], last["from_status"]) == ("person", "thandi", "review")
    (audited,) = house.world.rows(
        "SELECT actor, detail FROM audit_logs WHERE client_id = %s AND action = 'review.resolved'", house.client_id
    )
    assert audited["detail"] == {"payment_id": payment["id"], "resolution": resolution, "note": "seen on the statement"}
    check_books(house.world, payment["id"])


async def test_money_that_a_person_took_is_the_payments(house: House) -> None:
    """It has the gateway's reference, so that it can be refunded; the same news again opens nothing."""
    payment = await in_review(house)
    assert payment["gateway_reference"] is None
    paid = (await resolve(house, payment, resolution="paid")).json
    assert paid["gateway_reference"] == str(house.world.sandbox.find(house.reference_of(payment)).number)
    await look(house)
    assert (await house.payment(payment))["status"] == "paid"
    path = f"{house.path('/payments')}/{payment['id']}/refunds"
    back = {"reason": "one cent too much", "amount_cents": 1250, "manual": True, "evidence": "paid out in cash"}
    assert (await house.call("POST", path, back)).status == 201
    assert (await house.payment(payment))["status"] == "refunded"


@pytest.mark.parametrize("again", [False, True], ids=["before", "also meanwhile"])
async def test_what_was_given_back_counts_when_the_money_is_taken(house: House, again: bool) -> None:
    """EcoCash's money was given back in part when Paynow's came on top. The person says that the payment is paid: it is
    partially refunded at once, with the sum as it is by now."""
    await house.save_ecocash(dialect="eip")
    payment = await house.create_link(gateway=None)
    await tap(house, payment, way="paynow.web")
    second = house.reference_of(payment)
    await pay_by_ecocash(house, payment)
    await give_back(house, payment, 300)
    await house.world.sandbox.pay(second)
    await look(house)
    assert (await house.payment(payment))["status"] == "review"
    if again:
        # A second refund was told of while the person was thinking.
        house.world.rows_do(
            "INSERT INTO refunds (client_id, payment_id, attempt_id, gateway, gateway_reference, amount_cents, state,"
            " created_at, updated_at) SELECT client_id, payment_id, attempt_id, gateway, 'MP261128.2', 200,"
            " 'succeeded', now(), now() FROM refunds WHERE payment_id = %s",
            payment["id"],
        )
    answer = await resolve(house, payment, resolution="paid")
    expected = ("partially_refunded", 500 if again else 300)
    assert (answer.json["status"], answer.json["refunded_cents"]) == expected
    assert told(house, payment)[-2:] == ["review", "partially_refunded"]
    (review,) = await reviews(house, payment)
    assert review["resolution"] == "paid"
    check_books(house.world, payment["id"])
    await look(house, "ecocash")
    now = await house.payment(payment)
    assert (now["status"], now["refunded_cents"], now["gateway"]) == (*expected, "ecocash")


async def test_money_that_never_came_is_in_no_sum(house: House) -> None:
    """Paid by EcoCash, as it said, and by Paynow on top: a person finds that none came. `paid_at` stays, as history."""
    await house.save_ecocash(dialect="eip")
    payment = await house.create_link(gateway=None)
    await tap(house, payment, way="paynow.web")
    second = house.reference_of(payment)
    await pay_by_ecocash(house, payment)
    await house.world.sandbox.pay(second)
    await look(house)
    answer = await resolve(house, payment, resolution="failed")
    assert (answer.json["status"], answer.json["paid_at"] is None) == ("failed", False)
    (total,) = (await house.call("GET", house.path("/payments/summary"))).json["data"]
    assert (total["status"], total["amount_cents"], total["net_cents"]) == ("failed", 1250, 0)
    assert msgspec.convert(answer.json, PaymentOfClient).net_cents == 0


async def test_of_two_that_resolve_at_once_one_does(house: House) -> None:
    payment = await in_review(house)
    assert (await resolve(house, payment, resolution="paid")).status == 200
    again = await resolve(house, payment, resolution="failed")
    assert (again.status, again.json["code"]) == (409, "wrong_state")
    assert told(house, payment) == ["link_created", "review", "paid"]


async def test_an_answer_that_was_lost_is_given_again(house: House) -> None:
    """Under its key, also when nothing of it was kept but that it was done: not 409."""
    payment = await in_review(house)
    held, back = await lost_refund(house)
    own = house.path("/payments")
    for path in (f"{payment['id']}/resolve", f"{held['id']}/refunds/{back['id']}/resolve"):
        body = {"resolution": "failed", "note": "seen on the statement"}
        headers = {"Idempotency-Key": path}
        first = await house.call("POST", f"{own}/{path}", body, headers=headers)
        assert first.status == 200, first.body
        house.world.rows_do("UPDATE idempotency_keys SET status = NULL, body = NULL, lease = now() - interval '1 day'")
        again = await house.call("POST", f"{own}/{path}", body, headers=headers)
        assert (again.status, again.body) == (200, first.body)
        assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"resolution": "lost"}, "resolution"),
        ({"resolution": "paid", "note": " "}, "note"),
        ({"resolution": "paid", "note": "x" * 1001}, "note"),
        ({"resolution": "paid", "amount_cents": 1}, "amount_cents"),
        ({}, "resolution"),
    ],
)
async def test_what_is_no_decision_is_told(house: House, body: dict[str, Any], field: str) -> None:
    payment = await in_review(house)
    answer = await resolve(house, payment, **body)
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, field)
    assert (await house.payment(payment))["status"] == "review"


async def test_nobody_resolves_what_is_not_theirs_or_not_in_review(house: House) -> None:
    payment = await in_review(house)
    other = afresh(house)
    for method, rest in (("POST", "resolve"), ("GET", "reviews")):
        path = f"{other.path('/payments')}/{payment['id']}/{rest}"
        answer = await other.call(method, path, {"resolution": "paid", "note": "mine"})
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    pending = await house.create_link(gateway=None)
    assert (await resolve(house, pending, resolution="paid")).status == 409
    assert await reviews(house, pending) == []


# --- refunds


async def lost_refund(house: House) -> tuple[Any, Any]:
    """An EcoCash payment with a refund that never reached EcoCash, as far as anybody can tell."""
    await house.save_ecocash(dialect="eip")
    payment = await house.create_link(gateway="ecocash")
    await pay_by_ecocash(house, payment)
    house.world.ecocash.add_fault("unavailable", on=["refund"])
    path = f"{house.path('/payments')}/{payment['id']}/refunds"
    assert (await house.call("POST", path, {"reason": "torn", "amount_cents": 300})).status == 504
    house.world.ecocash.clear_faults()
    house.world.clock.forward(minutes=5)
    (refund,) = (await house.call("GET", path)).json["data"]
    assert refund["status"] == "requested"
    return payment, refund


async def settle(house: House, payment: Any, refund: Any, **body: object) -> Answer:
    path = f"{house.path('/payments')}/{payment['id']}/refunds/{refund['id']}/resolve"
    return await house.call("POST", path, {"note": "not on EcoCash's statement", **body})


async def test_a_refund_that_never_was_is_settled_by_a_person(house: House) -> None:
    """Its sum can be given back anew then; only once."""
    payment, refund = await lost_refund(house)
    answer = await settle(house, payment, refund, resolution="failed")
    assert (answer.status, answer.json["status"], answer.json["payment"]["status"]) == (200, "failed", "paid")
    assert answer.json["detail"] == "not on EcoCash's statement"
    assert (await settle(house, payment, refund, resolution="succeeded")).status == 409
    path = f"{house.path('/payments')}/{payment['id']}/refunds"
    assert (await house.call("POST", path, {"reason": "torn"})).status == 201
    assert (await house.payment(payment))["status"] == "refunded"
    check_books(house.world, payment["id"])


async def test_a_refund_that_was_is_settled_by_a_person(house: House) -> None:
    """It counts from then on; with how that can be proved."""
    payment, refund = await lost_refund(house)
    answer = await settle(house, payment, refund, resolution="succeeded", note="MP261128.1 on the statement")
    assert (answer.status, answer.json["status"]) == (200, "succeeded")
    assert answer.json["evidence"] == "MP261128.1 on the statement"
    now = await house.payment(payment)
    assert (now["status"], now["refunded_cents"]) == ("partially_refunded", 300)
    assert told(house, payment)[-1] == "partially_refunded"
    check_books(house.world, payment["id"])


async def test_a_refund_of_which_the_gateway_tells_is_not_settled_by_hand(house: House) -> None:
    """Stripe's look-ups name each refund: one that a person had settled before would count twice."""
    till = Till(house.world, client_id=house.client_id)
    await till.absorb(till.paid())
    refund_id = uuid4()
    house.world.rows_do(
        "INSERT INTO refunds (id, payment_id, client_id, attempt_id, gateway, amount_cents, state, reason, created_at) "
        "VALUES (%s, %s, %s, %s, 'stripe', 300, 'requested', 'torn', now() - interval '1 day')",
        refund_id,
        till.payment_id,
        till.client_id,
        till.attempt_id,
    )
    answer = await settle(house, {"id": till.payment_id}, {"id": refund_id}, resolution="succeeded")
    assert (answer.status, answer.json["code"]) == (409, "wrong_state")
    await till.absorb(settled(refund("re_1", 300, ours=refund_id)))
    assert till.now == ("partially_refunded", 300)
    assert [row["amount_cents"] for row in till.refunds()] == [300]


async def test_the_payment_moves_though_we_were_cut_off_after_settling(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person found out is on record before the payment has moved: the next look moves it."""
    payment, lost = await lost_refund(house)

    async def cut_off(*_given: object, **_named: object) -> None:
        raise Unavailable("cut off")

    monkeypatch.setattr(reviews_story, "absorb", cut_off)
    assert (await settle(house, payment, lost, resolution="succeeded")).status == 503
    row = house.world.one("SELECT status FROM payments WHERE id = %s", payment["id"])
    assert row["status"] == "paid"
    await look(house, "ecocash")
    row = house.world.one("SELECT status, refunded_cents FROM payments WHERE id = %s", payment["id"])
    assert (row["status"], row["refunded_cents"]) == ("partially_refunded", 300)


async def test_a_refund_that_may_still_be_answered_is_not_settled(house: House) -> None:
    payment, refund = await lost_refund(house)
    house.world.clock.ahead *= 0
    house.world.rows_do("UPDATE refunds SET created_at = now() WHERE id = %s", refund["id"])
    assert (await settle(house, payment, refund, resolution="failed")).status == 409
    assert (await settle(house, payment, {"id": uuid4()}, resolution="failed")).status == 404


async def test_evidence_that_comes_while_a_person_decides_is_read_again(house: House) -> None:
    """It adds no question to a payment that has left the review: it opens a new one, or changes nothing."""
    context = house.world.context
    payment = await in_review(house)
    (attempt,) = house.world.rows("SELECT id FROM attempts WHERE payment_id = %s", payment["id"])
    odd = Report(Outcome.PAID, "Paid", Money(1250, Currency.ZIG), house.reference_of(payment))
    values = {"attempt_id": attempt["id"], "gateway_reference": None}
    (before,) = await context.db.run(payments._STANDING, values)
    assert (await resolve(house, payment, resolution="paid")).status == 200
    change = AttemptChange(attempt["id"])
    assert await payments._record(context, before, odd, change, None) is None
    assert [review["reason"] for review in await reviews(house, payment)] == ["amount_mismatch"]
    await payments.absorb(context, attempt["id"], odd, next_check_at=context.clock())
    assert (await house.payment(payment))["status"] == "review"
    assert [bool(review["resolved_at"]) for review in await reviews(house, payment)] == [True, False]


async def test_a_gateway_that_itemises_nothing_is_asked_once_a_person_has_decided(house: House) -> None:
    """Its word that all was given back changed nothing while the payment was in review, and it was asked no more."""
    await house.save_ecocash(dialect="eip")
    payment = await house.create_link(gateway=None)
    await tap(house, payment, way="paynow.web")
    first = house.reference_of(payment)
    await tap(house, payment, way="ecocash.ecocash", phone="077 123 4567")
    await house.world.sandbox.pay(first)
    await look(house)
    assert (await house.payment(payment))["gateway"] == "paynow"
    await house.world.ecocash.approve(house.world.ecocash.charges[-1].correlator)
    await look(house, "ecocash")
    assert (await house.payment(payment))["status"] == "review"
    await house.world.sandbox.refund(first)
    house.world.clock.forward(days=2)
    await house.world.look_up("paynow")
    (due,) = house.world.rows(
        "SELECT next_check_at FROM attempts WHERE payment_id = %s AND gateway = 'paynow'", payment["id"]
    )
    assert due["next_check_at"] is None
    assert (await resolve(house, payment, resolution="paid")).json["status"] == "paid"
    await house.world.look_up("paynow")
    now = await house.payment(payment)
    assert (now["status"], now["refunded_cents"]) == ("refunded", 1250)
    check_books(house.world, payment["id"])
