"""What WhatsApp's errors ask for, numbers that it turns down, and what belongs to every message besides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from payments_service import idempotency, message_news, sending, workers
from payments_service.errors import KeyBusy
from payments_service.idempotency import Call, Claim
from payments_service.messages import send as send_message
from tests.house import House, eventually
from tests.messaging import (
    OWN_TOKEN,
    PHONE,
    another_tenant,
    copies,
    due_in,
    link,
    message_of,
    messages,
    open_messages,
    order_of,
    own_number,
    planted,
    quiet,
    send,
    told,
    work,
    work_after,
    written,
)
from tests.support import Log, gather_limited

DAY, WEEK = 86_400, 604_800


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_messages(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = await quiet(service)
    await house.save_paynow()
    return house


# --- what the codes ask for


@pytest.mark.parametrize("code", [4, 80007, 130429, 131016, 2])
async def test_too_much_at_once_waits_longer_and_longer(house: House, code: int) -> None:
    house.world.whatsapp.add_fault(f"error_{code}", on=["send"], times=3)
    payment = await link(house)
    waits = []
    for _ in range(3):
        await work(house)
        message = message_of(house, payment)
        assert (message["state"], message["code"], told(house, message["id"])) == ("queued", code, [])
        waits.append(due_in(house, message["id"]))
        house.world.clock.forward(seconds=waits[-1])
    for wait, usual in zip(waits, (10, 20, 40), strict=True):
        assert usual * 0.4 < wait <= usual * 1.5
    await work(house)
    assert message_of(house, payment)["state"] == "delivered"


async def test_what_never_gets_better_ends(house: House) -> None:
    """After a dozen tries; told once."""
    house.world.whatsapp.add_fault("error_130429", on=["send"])
    payment = await link(house)
    for _ in range(14):
        await work_after(house, 901)
    message = message_of(house, payment)
    assert (message["state"], message["code"], message["tries"]) == ("failed", 130429, 12)
    assert (told(house, message["id"]), house.world.whatsapp.calls["send"]) == (["failed"], 12)


async def test_too_soon_to_one_customer_waits_a_few_seconds(house: House) -> None:
    """131056: two links to one number at once; WhatsApp takes one in six seconds."""
    house.world.whatsapp.pair_seconds = 6
    first, second = await link(house), await link(house)
    await work(house)
    states = sorted(message_of(house, each)["state"] for each in (first, second))
    assert states == ["delivered", "queued"]
    await work_after(house, 15)
    assert {message_of(house, each)["state"] for each in (first, second)} == {"delivered"}


@pytest.mark.parametrize("code", [131026, 131021, 131050, 132015, 100])
@pytest.mark.parametrize("on", ["send", "outcome"])
async def test_what_cannot_be_reached_fails_at_once(house: House, code: int, on: str) -> None:
    whatsapp = house.world.whatsapp
    if code == 100:
        if on == "outcome":
            return
        await own_number(house, whatsapp_phone_number_id="999")
    else:
        whatsapp.add_fault(f"error_{code}", on=[on])
    payment = await link(house)
    await work(house)
    message = message_of(house, payment)
    assert (message["state"], message["code"]) == ("failed", code)
    assert message["detail"]
    assert told(house, message["id"]) == ["failed"]
    assert await work_after(house, 2 * DAY) == 0
    assert whatsapp.calls["send"] == 1


@pytest.mark.parametrize("code", [131048, 131049])
@pytest.mark.parametrize("on", ["send", "outcome"])
async def test_a_pause_is_a_day_long(house: House, code: int, on: str) -> None:
    house.world.whatsapp.add_fault(f"error_{code}", on=[on], times=1)
    payment, short = await link(house), None
    await work(house)
    message = message_of(house, payment)
    assert message["state"] == "queued"
    assert DAY - 60 < due_in(house, message["id"]) <= DAY
    house.world.whatsapp.add_fault(f"error_{code}", on=[on], times=1)
    short = await link(house, expires_in=DAY)
    await work(house)
    assert message_of(house, short)["state"] == "failed"
    await work_after(house, DAY + 1)
    assert message_of(house, payment)["state"] == "delivered"


@pytest.mark.parametrize("code", [1, 131000])
async def test_something_went_wrong_is_no_refusal(house: House, code: int) -> None:
    """It may have been taken: a word of it is waited for, and then it is sent once more, at most."""
    whatsapp = house.world.whatsapp
    whatsapp.add_fault(f"error_{code}", on=["send"])
    payment = await link(house)
    await work(house)
    assert (message_of(house, payment)["state"], message_of(house, payment)["code"]) == ("unknown", code)
    assert await work_after(house, 50) == 0
    for _ in range(4):
        await work_after(house, 660)
    message = message_of(house, payment)
    assert (message["state"], message["code"], whatsapp.calls["send"]) == ("failed", code, 2)


@pytest.mark.parametrize("code", [1, 131000, 130429])
async def test_what_failed_for_a_passing_reason_is_sent_again(house: House, code: int) -> None:
    """As a status of what was accepted: that one did not arrive, so the next is no second one."""
    house.world.whatsapp.add_fault(f"error_{code}", on=["outcome"], times=2)
    payment = await link(house)
    await work(house)
    for _ in range(3):
        await work_after(house, 60)
    message = message_of(house, payment)
    assert (message["state"], message["resent"], len(message["dead"])) == ("delivered", False, 2)
    assert [each.status for each in copies(house, message["id"])] == ["failed", "failed", "delivered"]


async def test_whatsapp_out_of_reach_for_days_is_waited_for(house: House) -> None:
    """Nothing left, so nothing can come twice; a thousand tries and more are no trouble; over with the link."""
    payment = await link(house)
    message = message_of(house, payment)["id"]
    house.world.rows_do("UPDATE messages SET tries = 4000 WHERE id = %s", message)
    context = house.world.context
    away = replace(context, cloud=replace(context.cloud, url="http://127.0.0.1:1"))
    for each in await sending.claim(away, 10):
        await sending.deliver(away, each)
    assert message_of(house, payment)["state"] == "queued"
    assert 290 < due_in(house, message) <= 900
    await work_after(house, 900)
    assert message_of(house, payment)["state"] == "delivered"


# --- a number that is turned down


@pytest.mark.parametrize("on", ["send", "outcome"])
async def test_a_broken_token_stops_that_tenants_channel_only_and_says_so(
    house: House, on: str, written_log: Path
) -> None:
    """In the log for the operator, in the answer for the tenant; its settings saved anew open it again."""
    whatsapp, log = house.world.whatsapp, Log(written_log)
    await own_number(house, token="EAAJexpiredtokenexpired" if on == "send" else OWN_TOKEN)
    if on == "outcome":
        whatsapp.add_fault("error_131042", on=[on])
    first = await link(house)
    await work(house)
    message = message_of(house, first)
    code = 190 if on == "send" else 131042
    assert (message["state"], message["code"], told(house, message["id"])) == ("failed", code, ["failed"])
    (line,) = log.of("channel_stopped")
    assert (line["client_id"], line["error_code"], line["level"]) == (str(house.client_id), code, "error")
    whatsapp.clear_faults()

    house.world.clock.forward(minutes=2)
    answer = await send(house, first)
    assert (answer.status, answer.json["code"]) == (422, "whatsapp_not_configured")
    assert "turns this number down" in answer.json["detail"]
    order = house.order(send="whatsapp", contact_phone=PHONE)
    before = written(house)
    answer = await house.call("POST", house.path("/payments/create-link"), order)
    assert (answer.status, written(house)) == (422, before)
    calls = whatsapp.calls["send"]

    stranger = await another_tenant(house)
    other = await stranger.create_link(gateway=None, send="whatsapp", contact_phone=PHONE)
    await work(house)
    assert message_of(house, other)["state"] == "delivered"
    assert whatsapp.calls["send"] == calls + 1

    await own_number(house)
    assert (await send(house, first)).status == 202
    await work(house)
    assert message_of(house, first)["state"] == "delivered"


async def test_what_waited_when_the_number_was_turned_down_is_not_sent(house: House) -> None:
    """One call tells it; the others fail with the reason, without one."""
    await own_number(house, token="EAAJexpiredtokenexpired")
    several = [await link(house) for _ in range(5)]
    await work(house, at_once=1)
    assert house.world.whatsapp.calls["send"] == 1
    rows = [message_of(house, payment) for payment in several]
    assert {each["state"] for each in rows} == {"failed"}
    assert sorted(str(each["code"]) for each in rows) == ["190", *["None"] * 4]
    assert sum("turns this number down" in each["detail"] for each in rows) == 4


async def test_a_number_that_was_turned_down_is_tried_again_after_an_hour(house: House) -> None:
    """What was wrong may have been put right at Meta's: the token itself is a good one."""
    await own_number(house)
    house.world.whatsapp.add_fault("error_131031", on=["send"], times=1)
    first = await link(house)
    await work(house)
    assert message_of(house, first)["state"] == "failed"
    house.world.clock.forward(minutes=59)
    assert (await send(house, first)).status == 422
    house.world.clock.forward(minutes=2)
    assert (await send(house, first)).status == 202
    await work(house)
    assert message_of(house, first)["state"] == "delivered"


async def test_the_platforms_number_stops_for_all_who_use_it(house: House) -> None:
    """And for nobody else. One tenant is told nothing of another's customer."""
    whatsapp = house.world.whatsapp
    whatsapp.add_fault("error_368", on=["send"], times=1)
    await link(house)
    await work(house)
    stranger = await another_tenant(house)
    answer = await stranger.call("POST", stranger.path("/payments/create-link"), order_of(stranger))
    assert (answer.status, answer.json["code"]) == (422, "whatsapp_not_configured")
    await own_number(stranger)
    payment = await stranger.create_link(gateway=None, send="whatsapp", contact_phone=PHONE)
    await work(stranger)
    assert message_of(stranger, payment)["state"] == "delivered"


async def test_what_is_said_of_one_number_does_not_stop_another(house: House) -> None:
    """The failure tells of the platform's number; by then the tenant has its own. And the other way round."""
    whatsapp = house.world.whatsapp
    whatsapp.webhooks.hold = True
    whatsapp.add_fault("error_131042", on=["outcome"], times=1)
    first = await link(house)
    await work(house)
    await own_number(house)
    whatsapp.webhooks.release()
    await whatsapp.settled()
    assert message_of(house, first)["state"] == "failed"
    whatsapp.webhooks.hold = True
    whatsapp.add_fault("error_131042", on=["outcome"], times=1)
    second = await link(house)
    await work(house)
    cleared = {"whatsapp_phone_number_id": None, "whatsapp_access_token": None}
    await house.call("PATCH", house.path("/payment-settings"), cleared)
    whatsapp.webhooks.release()
    await whatsapp.settled()
    assert message_of(house, second)["state"] == "failed"
    assert house.world.rows("SELECT * FROM stopped_senders") == []
    third = await link(house)
    await work(house)
    assert message_of(house, third)["state"] == "delivered"


async def test_without_any_whatsapp_settings_the_link_is_sent_by_hand(postgres: str) -> None:
    """422 with the way out in words; every payment carries its ready text."""
    async with open_messages(postgres, whatsapp_phone_number_id="", whatsapp_access_token="") as house:
        await house.save_paynow()
        answer = await house.call("POST", house.path("/payments/create-link"), order_of(house))
        assert (answer.status, answer.json["code"]) == (422, "whatsapp_not_configured")
        assert "whatsapp_url" in answer.json["detail"]
        assert written(house) == []
        payment = await house.create_link(gateway=None, contact_phone=PHONE)
        assert payment["whatsapp_url"].startswith("https://wa.me/263771234567?text=Acme%20Hardware")
        assert (await send(house, payment)).status == 422
        nobody = await house.create_link(gateway=None)
        assert nobody["whatsapp_url"].startswith("https://wa.me/?text=")


# --- besides


async def test_a_message_and_a_deletion_do_not_wait_for_each_other(house: House) -> None:
    """Both have the key's row before the audit log."""
    payment = await house.create_link(gateway=None, contact_phone=PHONE)
    names = [house.client_id]
    with psycopg.connect(house.world.database) as goer:
        context, call = house.world.context, Call(house.client_id, "backend", "POST send", "key", b"digest")
        claim = await idempotency.claim(context, call)
        assert isinstance(claim, Claim)
        goer.execute("DELETE FROM idempotency_keys WHERE client_id = %s", names)
        asked = asyncio.create_task(
            send_message(context, house.client_id, UUID(payment["id"]), None, "template", actor="ann", claim=claim)
        )
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await eventually(lambda: bool(house.world.rows(waiting)))
        goer.execute("SELECT pg_advisory_xact_lock(hashtextextended('audit:' || %s, 0))", names)
        goer.commit()
    with pytest.raises(KeyBusy):
        await asked
    assert await messages(house, payment) == []


async def test_a_tenant_with_messages_can_leave(house: House) -> None:
    """The messages go with the payments, and the numbers that were turned down with the settings."""
    await own_number(house, token="EAAJexpiredtokenexpired")
    payment = await link(house, reminders=True)
    await work(house)
    await house.call("POST", house.path(f"/payments/{payment['id']}/cancel"))
    house.world.rows_do("UPDATE events SET state = 'delivered', next_try_at = NULL, delivered_at = now()")
    answer = await house.call("DELETE", house.path())
    assert answer.status == 204, answer.body
    for table in ("messages", "stopped_senders", "events", "payments"):
        assert house.world.rows(f"SELECT * FROM {table} WHERE client_id = %s", house.client_id) == []


async def test_a_message_whose_tenant_left_in_the_middle_ends_in_peace(house: House) -> None:
    """It was being sent: there is nothing to record its end in, and what is told of it is about nothing of ours."""
    context = house.world.context
    (message,) = planted(house, 1)
    (claimed,) = await sending.claim(context, 5)
    house.world.rows_do("UPDATE payments SET status = 'cancelled' WHERE client_id = %s", house.client_id)
    assert (await house.call("DELETE", house.path())).status == 204
    await sending.deliver(context, claimed)
    await house.world.whatsapp.settled()
    assert len(copies(house, message)) == 1
    for table in ("messages", "events", "stopped_senders"):
        assert house.world.rows(f"SELECT * FROM {table} WHERE client_id = %s", house.client_id) == []


async def test_the_workers_send_what_is_asked_for(house: House) -> None:
    """They are woken by the call itself."""
    stop = asyncio.Event()
    working = asyncio.create_task(workers.run(house.world.context, None, stop))
    try:
        payment = await link(house)
        await eventually(lambda: message_of(house, payment)["state"] == "delivered")
    finally:
        stop.set()
        await working


async def test_claims_go_by_the_index_of_what_is_due(house: House) -> None:
    """Among a hundred thousand messages that are over, whatever the planner knows of them."""
    with psycopg.connect(house.world.database) as connection:
        connection.execute(
            "INSERT INTO payments (id, client_id, reference, amount_cents, page_token) "
            "SELECT gen_random_uuid(), %s, 'R', 1, gen_random_uuid()::text FROM generate_series(1, 20000) AS n",
            [house.client_id],
        )
        connection.execute(
            "INSERT INTO messages (id, client_id, payment_id, recipient, state, wamid) "
            "SELECT gen_random_uuid(), client_id, id, '+1', 'read', page_token FROM payments WHERE client_id = %s",
            [house.client_id],
        )
        connection.execute("ANALYZE messages, payments, attempts, transitions")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        moment = "timestamptz"
        statements = {
            sending._CLAIM: {"at": moment, "lease": moment, "lately": moment, "limit": "bigint"},
            sending._LAPSED: {"at": moment, "heard_by": moment},
            message_news._BY_WAMID: {"wamid": "text"},
            message_news._BY_ID: {"message_id": "uuid"},
        }
        for sql, kinds in statements.items():
            names = {name: f"${number}" for number, name in enumerate(kinds, 1)}
            connection.execute(f"PREPARE planned ({', '.join(kinds.values())}) AS {sql % names}".replace("%%", "%"))
            plan = connection.execute(f"EXPLAIN EXECUTE planned ({', '.join(['NULL'] * len(kinds))})").fetchall()
            connection.execute("DEALLOCATE planned")
            text = "\n".join(line for (line,) in plan)
            assert "Seq Scan on messages" not in text, text
            assert "Seq Scan on payments" not in text, text
        connection.rollback()


async def test_nothing_that_is_logged_tells_a_number_or_a_token(house: House, written_log: Path) -> None:
    """Nor a wamid, which holds the number in base64; the lines tell which message it was, and why it failed."""
    log = Log(written_log)
    await own_number(house)
    whatsapp = house.world.whatsapp
    for fault in ("error_131026", "html", "reset"):
        whatsapp.add_fault(fault, times=1)
    links = [await link(house, gateway="paynow") for _ in range(6)]
    await work(house)
    await work_after(house, 120)
    await own_number(house, token="EAAJexpiredtokenexpired")
    await link(house)
    await work(house)
    assert (await send(house, links[0])).status == 422
    wamids = [each.id for each in whatsapp.messages]
    text = log.text
    assert len(wamids) >= 5
    for secret in (*wamids, *(each[20:40] for each in wamids), OWN_TOKEN, "EAAJexpired", PHONE, PHONE[1:], "771234567"):
        assert secret not in text
    tried = log.of("message_tried")
    assert {line["outcome"] for line in tried} >= {"accepted", "unknown", "failed"}
    for line in tried:
        assert line["message_id"].count("-") == 4
    assert {line["error_code"] for line in tried} >= {None, 190}
    assert "[withheld]" not in "".join(str(line) for line in log.lines if "message" in line["event"])


async def test_what_is_due_is_claimed_once_by_many_at_once(house: House) -> None:
    ids = planted(house, 60)
    claimed = await gather_limited([sending.claim(house.world.context, 7) for _ in range(12)], 12)
    found = [each["message_id"] for rows in claimed for each in rows]
    assert sorted(found) == sorted(ids)


async def test_a_number_as_people_write_it_is_in_the_ready_link(house: House) -> None:
    """`wa.me` takes the country code only: a local number gets it, what is no number leaves the choice to WhatsApp."""
    local = await house.create_link(gateway=None, contact_phone="077 123 4567")
    assert local["whatsapp_url"].startswith("https://wa.me/263771234567?text=")
    odd = await house.create_link(gateway=None, contact_phone="12345")
    assert odd["whatsapp_url"].startswith("https://wa.me/?text=")
