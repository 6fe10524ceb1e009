"""A tenant is deleted: what holds that up, what is left, and what happens at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
import pytest_asyncio
from psycopg import errors

from payments_service import idempotency, leaving, links, proofs, reconcile
from payments_service.audit import verify_chain
from payments_service.db import TENANT_ROLE
from payments_service.errors import KeyBusy, MoneyOnItsWay, NotFound, WrongState
from payments_service.gateways.base import Callback
from payments_service.internal.schemas import CreateLink
from payments_service.lifecycle import Outcome, Report
from payments_service.payments import absorb
from payments_service.tables import APPEND_ONLY_TABLES, TENANT_TABLES
from tests.house import Answer, House, World, eventually
from tests.support import afresh, open_house, plant
from tests.till import Till

UNKNOWN_TOKEN = "x" * 27

pytestmark = pytest.mark.damaged("what may be in the way is set by hand")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
def house(service: House) -> House:
    return afresh(service)


async def leave(house: House, **params: str) -> Answer:
    return await house.call("DELETE", house.path(), params=params, headers={"X-Actor": "thandi"})


def gone(answer: Answer) -> bool:
    """Whether it is deleted; else the answer says what is in the way."""
    if answer.status == 204:
        assert answer.body == b""
        return True
    assert (answer.status, answer.json["code"]) == (409, "wrong_state"), answer.body
    assert any(answer.json["in_the_way"].values())
    return False


def in_the_way(answer: Answer) -> dict[str, int]:
    assert not gone(answer)
    return {name: count for name, count in answer.json["in_the_way"].items() if count}


def rows_of(world: World, client_id: UUID) -> dict[str, list[str]]:
    """Every row of the tenant, as text, of the tables that have any."""
    found = {
        table: [row["it"] for row in world.rows(f"SELECT t::text AS it FROM {table} t WHERE client_id = %s", client_id)]
        for table in TENANT_TABLES
    }
    return {table: sorted(rows) for table, rows in found.items() if rows}


def all_told(house: House) -> None:
    """As if every event had been delivered."""
    house.world.rows_do(
        "UPDATE events SET state = 'delivered', next_try_at = NULL WHERE client_id = %s", house.client_id
    )


def at_rest(house: House) -> dict[str, Any]:
    """A tenant with a row in every table, whose money is all where it should be."""
    ids = plant(house.world.behind, house.client_id)
    for sql in (
        "payments SET status = 'paid', paid_at = now(), sequence = 1",
        "attempts SET state = 'paid', next_check_at = now() + interval '1 day'",
        "disputes SET state = 'won'",
        "reviews SET resolved_at = now(), resolution = 'paid'",
    ):
        house.world.rows_do(f"UPDATE {sql} WHERE client_id = %s", house.client_id)
    all_told(house)
    return ids


# --- what goes and what stays


async def test_of_a_tenant_one_audit_row_stays(house: House) -> None:
    """In no other table is there anything; a neighbour has every row as before. It names the person and what went."""
    at_rest(house)
    neighbour = uuid4()
    plant(house.world.behind, neighbour)
    before = rows_of(house.world, neighbour)
    assert before.keys() == rows_of(house.world, house.client_id).keys() == set(TENANT_TABLES)
    assert gone(await leave(house))
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}
    row = house.world.one("SELECT * FROM audit_logs WHERE client_id = %s", house.client_id)
    assert (row["position"], row["previous_hash"], row["actor"]) == (2, b"h", "thandi")
    assert row["action"] == "tenant.deleted"
    removed = {"payments": 1, "paid_payments": 1, "audit_rows": 1}
    assert row["detail"] == {"removed": removed, "late_money_given_up": 0}
    assert rows_of(house.world, neighbour) == before


async def test_nobody_is_deleted_twice(house: House) -> None:
    """The second time, and for a tenant never seen: 404, and nothing is written."""
    at_rest(house)
    assert gone(await leave(house))
    left = rows_of(house.world, house.client_id)
    for each in (house, afresh(house)):
        answer = await leave(each)
        assert (answer.status, answer.json["code"]) == (404, "not_found")
    assert rows_of(house.world, house.client_id) == left


async def test_settings_alone_go_too(house: House) -> None:
    await house.save_paynow()
    assert gone(await leave(house))
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}
    shown = (await house.call("GET", house.path("/payment-settings"))).json
    assert not any(shown.values())


async def test_a_tenant_may_come_back_and_leave_again(house: House) -> None:
    """The chain goes on behind the row that stayed, whole at each step, and ends as one row once more."""
    await house.save_paynow()
    await house.save_paynow()
    assert gone(await leave(house))
    assert (await verify_chain(house.world.context.db, house.client_id)).rows == 1
    await house.save_paynow()
    link = await house.create_link(gateway="paynow")
    assert (await house.payment(link))["status"] == "pending"
    verdict = await verify_chain(house.world.context.db, house.client_id)
    assert (verdict.whole, verdict.rows) == (True, 2)
    house.world.rows_do("UPDATE payments SET status = 'paid' WHERE id = %s", link["id"])
    house.world.rows_do("UPDATE attempts SET state = 'paid' WHERE payment_id = %s", link["id"])
    all_told(house)
    assert gone(await leave(house))
    row = house.world.one("SELECT position, action FROM audit_logs WHERE client_id = %s", house.client_id)
    assert row == {"position": 5, "action": "tenant.deleted"}
    verdict = await verify_chain(house.world.context.db, house.client_id)
    assert (verdict.whole, verdict.rows) == (True, 1)


async def test_many_payments_go_in_batches(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they lie on the batches' edges, also with the same moment of creation."""
    monkeypatch.setattr(leaving, "BATCH", 3)
    await house.save_paynow()
    for number in range(7):
        house.world.rows_do(
            "INSERT INTO payments (client_id, reference, amount_cents, status, created_at) "
            "VALUES (%s, 'R', 1, 'expired', '2026-01-01'::timestamptz + %s * interval '1 day')",
            house.client_id,
            number // 3,
        )
    assert gone(await leave(house))
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}
    row = house.world.one("SELECT detail FROM audit_logs WHERE client_id = %s", house.client_id)
    assert row["detail"]["removed"]["payments"] == 7


async def test_who_was_cut_off_goes_on(house: House) -> None:
    """The settings went and the service was killed: the second call removes the rest, with no other audit row."""
    at_rest(house)
    await leaving._close(house.world.context, house.client_id, "thandi", False)
    assert rows_of(house.world, house.client_id).keys() >= {"payments", "transitions", "events"}
    assert gone(await leave(house))
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}


async def test_the_actor_and_the_wish_are_checked(house: House) -> None:
    at_rest(house)
    for more in ({"headers": {"X-Actor": "x" * 101}}, {"params": {"force": "true"}}):
        assert (await house.call("DELETE", house.path(), **more)).status == 422
    assert rows_of(house.world, house.client_id).keys() == set(TENANT_TABLES)


# --- what holds it up

LONG_AGO = "now() - interval '1 day'"
OVER = "UPDATE payments SET status = 'expired'", f"UPDATE attempts SET watched_from = {LONG_AGO}, next_check_at = now()"
IN_THE_WAY: dict[str, tuple[str, tuple[str, ...]]] = {
    "a link that can be paid": ("pending_payments", ("UPDATE payments SET status = 'pending'",)),
    "a try that began just now": (
        "tries_under_way",
        ("UPDATE payments SET status = 'failed'", "UPDATE attempts SET state = 'live', next_check_at = now()"),
    ),
    "a try of which nobody knows whether it began": (
        "tries_under_way",
        (*OVER, "UPDATE attempts SET state = 'starting'"),
    ),
    "a bank that is sending the money": (
        "tries_under_way",
        (*OVER, "UPDATE attempts SET state = 'live', next_step = '{\"type\": \"wait\"}'"),
    ),
    "a try that another took the place of": (
        "late_money_watched",
        (OVER[1], "UPDATE attempts SET state = 'replaced'"),
    ),
    "a page that can still be open": ("late_money_watched", (*OVER, "UPDATE attempts SET state = 'live'")),
    "a failed try that is looked at once more": (
        "late_money_watched",
        (*OVER, "UPDATE attempts SET state = 'failed'"),
    ),
    "a refund without an answer": ("refunds_under_way", ("UPDATE refunds SET state = 'requested'",)),
    "a refund that the gateway took": ("refunds_under_way", ("UPDATE refunds SET state = 'pending'",)),
    "a review": ("open_reviews", ("UPDATE payments SET status = 'review'",)),
    "a dispute": ("open_disputes", ("UPDATE disputes SET state = 'open'",)),
    "a dispute of which only the word is known": (
        "open_disputes",
        ("DELETE FROM disputes", "UPDATE payments SET status = 'disputed'"),
    ),
    "an event that is still to be delivered": (
        "events_not_told",
        ("UPDATE events SET state = 'due', next_try_at = now() + interval '1 day', position = 7",),
    ),
    "an event that could not be delivered": ("events_not_told", ("UPDATE events SET state = 'failed'",)),
}


def change(house: House, *statements: str) -> None:
    for sql in statements:
        house.world.rows_do(f"{sql} WHERE client_id = %s", house.client_id)


@pytest.mark.parametrize("what", IN_THE_WAY)
async def test_money_on_its_way_holds_it_up(house: House, what: str) -> None:
    """409 with the kind, the number and words; nothing is changed. Once it is over, the tenant goes."""
    name, statements = IN_THE_WAY[what]
    at_rest(house)
    change(house, *statements)
    before = rows_of(house.world, house.client_id)
    answer = await leave(house)
    assert in_the_way(answer) == {name: 1}
    assert "1 " in answer.json["detail"]
    assert rows_of(house.world, house.client_id) == before
    if name == "late_money_watched":
        assert gone(await leave(house, give_up_late_money="true"))
        row = house.world.one("SELECT detail FROM audit_logs WHERE client_id = %s", house.client_id)
        assert row["detail"]["late_money_given_up"] == 1
    else:
        assert in_the_way(await leave(house, give_up_late_money="true")) == {name: 1}


NOT_IN_THE_WAY: dict[str, tuple[str, ...]] = {
    "a paid try that is looked at for disputes": (),
    "a failed payment that could be tried again": (
        "UPDATE payments SET status = 'failed'",
        "UPDATE attempts SET state = 'failed', next_check_at = NULL",
    ),
    "a try that is watched no more": (OVER[0], "UPDATE attempts SET state = 'live', next_check_at = NULL"),
    "a try without credentials that is never answered": (
        OVER[0],
        "UPDATE attempts SET state = 'starting', next_check_at = now(), watched_from = now() - interval '40 days'",
    ),
    "a failed event that was pulled": ("UPDATE events SET state = 'failed', position = 8",),
    "a dispute that nobody tells of any more": (
        "DELETE FROM disputes",
        "UPDATE payments SET status = 'disputed'",
        "UPDATE attempts SET next_check_at = NULL",
    ),
}


@pytest.mark.parametrize("what", NOT_IN_THE_WAY)
async def test_what_brings_no_money_holds_nothing_up(house: House, what: str) -> None:
    at_rest(house)
    change(house, *NOT_IN_THE_WAY[what])
    assert gone(await leave(house))


async def test_a_backend_that_pulls_has_heard_what_it_pulled(house: House) -> None:
    """Where events are not posted they stay due for ever: what counts is that they were asked for."""
    at_rest(house)
    change(house, "UPDATE events SET state = 'due', next_try_at = now()")
    context = replace(house.world.context, pushes_events=False)
    with pytest.raises(MoneyOnItsWay) as caught:
        await leaving.delete_tenant(context, house.client_id, actor="thandi")
    assert caught.value.in_the_way["events_not_told"] == 1
    change(house, "UPDATE events SET position = 9")
    await leaving.delete_tenant(context, house.client_id, actor="thandi")
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}


async def test_the_way_of_a_real_link(house: House) -> None:
    """Pending: cancel it; watched: give it up, once nobody is at the gateway's page any more; and heard of."""
    await house.save_paynow()
    link = await house.create_link()
    assert in_the_way(await leave(house)).keys() == {"pending_payments", "events_not_told"}
    assert (await house.call("POST", house.path(f"/payments/{link['id']}/cancel"))).status == 200
    all_told(house)
    assert in_the_way(await leave(house)) == {"tries_under_way": 1}
    house.world.clock.forward(hours=1)
    assert in_the_way(await leave(house)) == {"late_money_watched": 1}
    assert gone(await leave(house, give_up_late_money="true"))


# --- at the same moment


async def waiting(house: House, count: int = 1) -> None:
    """Until so many of the service's statements wait for a lock."""
    sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    await eventually(lambda: len(house.world.rows(sql)) >= count)


async def test_a_link_that_is_just_being_made_holds_it_up(house: House) -> None:
    """Its payment is not to be seen yet: the deletion waits for it, and finds it."""
    await house.save_paynow()
    with psycopg.connect(house.world.database) as maker:
        maker.execute("SELECT FROM payment_settings WHERE client_id = %s FOR KEY SHARE", [house.client_id])
        maker.execute(
            "INSERT INTO payments (client_id, reference, amount_cents) VALUES (%s, 'R', 1)", [house.client_id]
        )
        deletion = asyncio.create_task(leave(house))
        await waiting(house)
        maker.commit()
    assert in_the_way(await deletion) == {"pending_payments": 1}
    assert "payment_settings" in rows_of(house.world, house.client_id)


@pytest.mark.parametrize("gateway", ["paynow", None])
async def test_no_link_is_made_for_a_tenant_that_is_just_going(house: House, gateway: str | None) -> None:
    """It had read the credentials: it waits, finds the settings gone, and asks no gateway."""
    await house.save_paynow()
    with psycopg.connect(house.world.database) as goer:
        goer.execute("DELETE FROM payment_settings WHERE client_id = %s", [house.client_id])
        path = house.path("/payments/create-link")
        making = asyncio.create_task(house.call("POST", path, house.order(gateway=gateway)))
        await waiting(house)
        goer.commit()
    answer = await making
    assert (answer.status, answer.json["code"]) == (422, "gateway_not_configured")
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}
    assert not house.world.sandbox.calls


async def test_a_call_under_a_key_and_a_deletion_do_not_wait_for_each_other(house: House) -> None:
    """Both lock the settings, then the key's row."""
    await house.save_paynow()
    context, body = house.world.context, msgspec.convert(house.order(gateway=None), CreateLink)
    call = idempotency.Call(house.client_id, "backend", "POST here", "key", b"digest")
    claim = await idempotency.claim(context, call)
    assert isinstance(claim, idempotency.Claim)
    with psycopg.connect(house.world.database) as goer:
        goer.execute("SELECT FROM payment_settings WHERE client_id = %s FOR UPDATE", [house.client_id])
        order = body.order(house.world.clock())
        making = asyncio.create_task(links.create_link(context, house.client_id, order, claim))
        await waiting(house)
        goer.execute("DELETE FROM idempotency_keys WHERE client_id = %s", [house.client_id])
        goer.execute("DELETE FROM payment_settings WHERE client_id = %s", [house.client_id])
        goer.commit()
    with pytest.raises(KeyBusy):
        await making
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}


async def test_no_try_begins_for_a_tenant_that_is_just_going(house: House) -> None:
    """A failed payment can be tried again on its page, and holds nothing up."""
    await house.save_paynow()
    link = await house.create_link(gateway=None)
    change(house, "UPDATE payments SET status = 'failed'")
    with psycopg.connect(house.world.database) as goer:
        goer.execute("DELETE FROM payment_settings WHERE client_id = %s", [house.client_id])
        paying = asyncio.create_task(house.get_public(f"/pay/{token(link)}", method="POST", data={"way": "paynow.web"}))
        await waiting(house)
        goer.commit()
    assert (await paying).status < 500
    assert "attempts" not in rows_of(house.world, house.client_id)
    assert not house.world.sandbox.calls


def token(link: Any) -> str:
    return str(link["page_url"].rpartition("/")[2])


async def test_links_and_deletions_beside_each_other(house: House) -> None:
    """Whoever was first: a link that was made is there, and a tenant that went left nothing."""
    ends = set()
    for _ in range(6):
        await house.save_paynow()
        link, deletion = await asyncio.gather(
            house.call("POST", house.path("/payments/create-link"), house.order(gateway=None)), leave(house)
        )
        left = rows_of(house.world, house.client_id)
        ends.add((link.status, deletion.status))
        if deletion.status == 204:
            assert link.status == 422
            assert left.keys() == {"audit_logs"}
        else:
            assert (link.status, deletion.status) == (201, 409)
            change(house, "UPDATE payments SET status = 'cancelled'")
            all_told(house)
            assert gone(await leave(house))
    assert ends <= {(201, 409), (422, 204)}


async def test_money_that_is_proved_at_the_last_moment_is_told_first(house: House) -> None:
    """A report was just being written as the deletion looked: the payment stays, paid, until its event is told."""
    await house.save_paynow()
    till = Till(house.world, house.client_id)
    change(
        house, "UPDATE payments SET status = 'expired'", "UPDATE attempts SET watched_from = now() - interval '40 d'"
    )
    other = uuid4()
    house.world.rows_do(
        "INSERT INTO payments (id, client_id, reference, amount_cents, status) VALUES (%s, %s, 'R', 1, 'failed')",
        other,
        house.client_id,
    )
    with psycopg.connect(house.world.database) as hand:
        hand.execute("SELECT FROM payments WHERE id = %s FOR UPDATE", [till.payment_id])
        absorbing = asyncio.create_task(till.absorb(till.paid()))
        await waiting(house)
        deletion = asyncio.create_task(leave(house))
        await waiting(house, 2)
        hand.commit()
    await absorbing
    answer = await deletion
    assert in_the_way(answer) == {"events_not_told": 1}
    assert (till.now, till.row["late"]) == (("paid", 0), True)
    assert house.world.rows("SELECT FROM payments WHERE id = %s", other) == []
    all_told(house)
    assert gone(await leave(house))
    assert rows_of(house.world, house.client_id).keys() == {"audit_logs"}


async def test_news_of_what_is_just_going_changes_nothing(house: House) -> None:
    """It had read the attempt before that went: no error that anybody would look into, and no row is left."""
    till = Till(house.world, house.client_id)
    change(house, "UPDATE payments SET status = 'review'")
    wrong = Report(Outcome.PAID, "Paid", None, till.reference)
    told = Callback(till.reference, "Paid", {}, attempt_id=till.attempt_id, key="evt_1", report=wrong)
    context = house.world.context
    with psycopg.connect(house.world.database) as goer:
        goer.execute("SET LOCAL session_replication_role = replica")  # without a deletion, no door is open
        for table in ("events", "transitions", "attempts"):
            goer.execute(f"DELETE FROM {table} WHERE payment_id = %s", [till.payment_id])
        goer.execute("DELETE FROM payments WHERE id = %s", [till.payment_id])
        taking = asyncio.create_task(proofs.take(context, house.client_id, "stripe", told))
        await waiting(house)
        goer.commit()
    assert await taking is False
    assert rows_of(house.world, house.client_id) == {}
    with pytest.raises(NotFound):
        await absorb(context, till.attempt_id, wrong, next_check_at=None)


async def test_settings_saved_meanwhile_keep_what_is_left(house: House) -> None:
    """Who comes back while the payments are being removed keeps those that are still there."""
    at_rest(house)
    context = house.world.context
    await leaving._close(context, house.client_id, "thandi", False)
    await house.save_paynow()
    assert await leaving._purge(context, house.client_id) == 0
    with pytest.raises(WrongState, match="it has come back"):
        await leaving._finish(context, house.client_id)
    assert "payments" in rows_of(house.world, house.client_id)


async def test_two_deletions_at_once_leave_one_row(house: House) -> None:
    at_rest(house)
    statuses = sorted(answer.status for answer in await asyncio.gather(*(leave(house) for _ in range(4))))
    assert statuses[0] == 204
    assert set(statuses) <= {204, 404}
    assert len(rows_of(house.world, house.client_id)["audit_logs"]) == 1


# --- afterwards


async def test_nothing_answers_for_the_tenant_any_more(house: House) -> None:
    """Gateways that still report are answered as for an unknown tenant; the pay page as for an unknown token; and a
    look-up that was under way ends in peace."""
    world = house.world
    await house.save_paynow()
    secret = await house.save_stripe()
    await house.save_ecocash()
    link = await house.create_link()
    reference = house.reference_of(link)
    await world.sandbox.pay(reference)
    world.clock.forward(seconds=10)
    await world.look_up("paynow")
    assert (await house.payment(link))["status"] == "paid"
    await eventually(lambda: any(each.status == 200 for each in world.sandbox.deliveries))
    world.clock.forward(days=2)
    (claimed,) = await reconcile.claim(world.context, "paynow", 1)
    all_told(house)
    assert gone(await leave(house))
    await reconcile.check(world.context, claimed)
    before = len(world.sandbox.deliveries)
    await world.sandbox.set_status(reference, "Paid")
    await world.sandbox.settled()
    assert {each.status for each in world.sandbox.deliveries[before:]} == {200}
    assert (await house.get_public(f"/callbacks/ecocash/{house.client_id}", method="POST", data=b"{}")).status == 200
    stripe = await house.get_public(f"/callbacks/stripe/{house.client_id}", method="POST", data=b"{}")
    unknown = await house.get_public(f"/callbacks/stripe/{uuid4()}", method="POST", data=b"{}")
    assert (stripe.status, unknown.status, bool(secret)) == (400, 400, True)
    for rest in ("", "/status", "/receipt"):
        given = {"X-Request-Id": "the-same-id"}
        page = await house.get_public(f"/pay/{token(link)}{rest}", headers=given)
        other = await house.get_public(f"/pay/{UNKNOWN_TOKEN}{rest}", headers=given)
        assert (page.status, page.body) == (other.status, other.body)
        assert page.status == 404
    assert rows_of(world, house.client_id).keys() == {"audit_logs"}


# --- the door in the database


def as_if_leaving(house: House, sql: str, *, word: UUID | None = None, role: str | None = None) -> None:
    """The statement in a transaction that says of itself what a deletion says."""
    with house.world.behind.transaction():
        house.world.rows_do("SELECT set_config('conva.leaving', %s, true)", str(word or house.client_id))
        if role:
            house.world.rows_do("SELECT set_config('conva.client_id', %s, true)", str(house.client_id))
            house.world.rows_do("SELECT set_config('role', %s, true)", role)
        house.world.rows_do(f"{sql} WHERE client_id = %s", house.client_id)


async def test_what_was_written_of_a_living_tenant_stays(house: House) -> None:
    """Whatever the transaction says of itself; and the tenant role cannot even try."""
    at_rest(house)
    for table in APPEND_ONLY_TABLES:
        for sql in (f"DELETE FROM {table}", f"UPDATE {table} SET at = at"):
            with pytest.raises(errors.RestrictViolation):
                as_if_leaving(house, sql)
            with pytest.raises(errors.InsufficientPrivilege):
                as_if_leaving(house, sql, role=TENANT_ROLE)


async def test_the_row_that_stayed_stays(house: House) -> None:
    """Also in a transaction that says the right word; so does the history of whoever has come back."""
    await house.save_paynow()
    assert gone(await leave(house))
    with pytest.raises(errors.RestrictViolation):
        as_if_leaving(house, "DELETE FROM audit_logs")
    await house.save_paynow()
    await house.create_link(gateway=None)
    for table in APPEND_ONLY_TABLES:
        for word in (house.client_id, uuid4()):
            with pytest.raises(errors.RestrictViolation):
                as_if_leaving(house, f"DELETE FROM {table}", word=word)


async def test_the_error_tells_programs_too(house: House) -> None:
    at_rest(house)
    change(house, "UPDATE refunds SET state = 'pending'")
    with pytest.raises(MoneyOnItsWay, match="1 refund is on its way") as caught:
        await leaving.delete_tenant(house.world.context, house.client_id, actor="thandi")
    assert caught.value.in_the_way["refunds_under_way"] == 1
