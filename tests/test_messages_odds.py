"""What goes wrong while links are sent: no customer gets a link twice but for the one allowed resend, nothing is stuck,
and in the end the books say what WhatsApp says."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest

from payments_service import message_news, sending
from payments_service.app import parts
from payments_service.context import Context
from payments_service.db import Database
from payments_service.errors import PaymentsError, Unavailable
from payments_service.gateways.transport import Transport
from payments_service.sandbox.whatsapp_ledger import WhatsappLedger
from payments_service.whatsapp import News, Rejected
from tests.house import House
from tests.messaging import (
    PAST,
    PLATFORM_ID,
    copies,
    due_in,
    open_messages,
    own_number,
    planted,
    post,
    quiet,
    row,
    send,
    status,
    told,
    webhook,
    work,
    work_after,
)
from tests.scale import of, ways_to_break_off
from tests.support import gather_limited
from tests.test_crash_points import MOST_STEPS, Crash, FaultyDatabase, FaultyTransport, Steps

DAY = 86_400


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_messages(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    return await quiet(service)


def alive(house: House, message: object) -> int:
    """How many copies the customer may have got."""
    return sum(each.status != "failed" for each in copies(house, message))


def check(house: House, *messages: UUID) -> None:
    """The state is the truth, and told as such; the customer got the link once, or twice where an answer was lost."""
    truth, kinds = defaultdict(list), defaultdict(list)
    for each in house.world.whatsapp.messages:
        truth[each.draft.callback_data].append(each.status)
    sql = "SELECT message_id, type FROM events WHERE message_id = ANY(%s)"
    for event in house.world.rows(sql, list(messages)):
        kinds[event["message_id"]].append(event["type"].removeprefix("message."))
    for now in house.world.rows("SELECT * FROM messages WHERE id = ANY(%s)", list(messages)):
        known, heard = truth[str(now["id"])], kinds[now["id"]]
        expected = "delivered" if "delivered" in known else "failed"
        assert now["state"] == expected, (now, known)
        assert len(known) - known.count("failed") <= 1 + now["resent"], (now, known)
        assert len(heard) == len(set(heard)), heard
        assert expected in heard, (now, heard)
        assert now["next_try_at"] is None


# --- the proof of the issue

COUNT = of(1_000, 400)
SHARES: dict[str, tuple[list[str], float, float]] = {
    # fault: where, of how many, seconds
    "error_130429": (["send"], 0.08, 0),
    "error_131056": (["send"], 0.06, 0),
    "error_131016": (["send"], 0.03, 0),
    "timeout_after_accepting": (["send"], 0.05, 0),
    "timeout_before": (["send"], 0.03, 0),
    "reset": (["send"], 0.02, 0),
    "truncated": (["send"], 0.02, 0),
    "error503_html": (["send"], 0.02, 0),
    "error500_after_accepting": (["send"], 0.03, 0),
    "error_131026": (["outcome"], 0.05, 0),
    "error_131047": (["outcome"], 0.04, 0),
    "error_131000": (["outcome"], 0.03, 0),
    "duplicated": (["status"], 0.25, 0),
    "shuffled": (["status"], 0.1, 0),
    "dropped": (["status"], 0.06, 0),
    "no_phone": (["status"], 0.05, 0),
    "delivered_skipped": (["status"], 0.02, 0),
}


def spoil(whatsapp: WhatsappLedger) -> None:
    for seed, (name, (on, share, seconds)) in enumerate(SHARES.items()):
        whatsapp.add_fault(name, on=on, share=share, seconds=seconds, seed=seed)


async def send_everything(house: House) -> None:
    """Until nothing is due any more; what WhatsApp tells comes late, shuffled, in batches, and several at once."""
    webhooks, chance = house.world.whatsapp.webhooks, random.Random(1)
    webhooks.batch_size = 40
    for turn in itertools.count():
        webhooks.hold = True
        await work(house)
        webhooks.hold, events, webhooks.held = False, webhooks.held, []
        chance.shuffle(events)
        for start in range(8):
            webhooks.tell(events[start::8])
        await house.world.whatsapp.settled()
        if not house.world.rows("SELECT FROM messages WHERE next_try_at IS NOT NULL LIMIT 1"):
            return
        house.world.clock.forward(seconds=45 if turn < 20 else 600)


async def test_a_thousand_links_through_all_that_goes_wrong(house: House) -> None:
    """1,000 sends (400 by default) with too many at once, too soon, not on WhatsApp, no window, a broken token,
    time-outs, lost answers, and statuses that come twice, in the wrong order or never: none arrives twice but for the
    single allowed resend, the final states are WhatsApp's own, and the broken token stops its own tenant's channel
    only."""
    whatsapp = house.world.whatsapp
    broken, stranger = replace(house, client_id=uuid4()), replace(house, client_id=uuid4())
    await own_number(stranger)
    await own_number(broken, token="EAAJexpiredtokenexpired")
    sound = planted(house, COUNT * 6 // 10) + planted(house, COUNT // 10, form="text")
    sound += planted(stranger, COUNT // 5)
    lost = planted(broken, COUNT // 10)
    for message in sound[:5]:  # whatever chance brings: taken, and nothing is heard of it
        whatsapp.add_fault("reset", to=str(message), times=1)
        whatsapp.add_fault("dropped", to=str(message))
    spoil(whatsapp)
    await send_everything(house)
    whatsapp.clear_faults()
    living = Counter(each.draft.callback_data for each in whatsapp.messages if each.status != "failed")
    assert max(living.values()) <= 2
    # What was not told, or not all of it, is told in the end, and what was, once more.
    whatsapp.webhooks.hold = True
    for each in whatsapp.messages:
        whatsapp.repeat(each.id)
    await send_everything(house)

    check(house, *sound)
    rows = {each["id"]: each for each in house.world.rows("SELECT * FROM messages WHERE id = ANY(%s)", sound)}
    states = Counter(each["state"] for each in rows.values())
    twice = [message for message in sound if living[str(message)] == 2]
    assert states["delivered"] > COUNT * 0.7
    assert states["failed"] > COUNT * 0.03
    assert 0 < len(twice) < COUNT * 0.1
    assert all(rows[message]["resent"] for message in twice)
    assert any(each["form"] == "template" and len(each["dead"]) == 1 for each in rows.values())
    assert whatsapp.refusals.keys() >= {190, 130429, 131056, 131016, 1}

    stopped = house.world.rows("SELECT state, code FROM messages WHERE id = ANY(%s)", lost)
    assert {(each["state"], each["code"]) for each in stopped} == {("failed", 190), ("failed", None)}
    assert whatsapp.refusals[190] <= 16, "those that were under way as the first was told"
    payment = {"id": row(house, lost[0])["payment_id"]}
    answer = await send(broken, payment, to="0771234567")
    assert (answer.status, answer.json["code"]) == (422, "whatsapp_not_configured")
    assert "turns this number down" in answer.json["detail"]
    assert [each["client_id"] for each in house.world.rows("SELECT * FROM stopped_senders")] == [broken.client_id]


# --- two workers


async def test_two_workers_send_nothing_twice(house: House) -> None:
    """Over one database, from the same moment on."""
    ids = planted(house, 80)
    async with parts(house.world.settings, house.world.database) as other:
        contexts = [house.world.context, replace(other.context, clock=house.world.clock)]

        async def worker(context: Context) -> None:
            while rows := await sending.claim(context, 5):
                await gather_limited((sending.deliver(context, each) for each in rows), 5)

        await asyncio.gather(*(worker(context) for context in contexts * 3))
    await house.world.whatsapp.settled()
    assert Counter(each.draft.callback_data for each in house.world.whatsapp.messages) == Counter(map(str, ids))
    check(house, *ids)
    assert house.world.one("SELECT max(tries) AS most FROM messages WHERE id = ANY(%s)", ids) == {"most": 1}


async def test_who_was_held_up_does_not_send(house: House) -> None:
    """Its lease is nearly over: a call might outlast it. The message is given back, as good as new."""
    (message,) = planted(house, 1)
    (claimed,) = await sending.claim(house.world.context, 5)
    house.world.clock.forward(seconds=50)
    await sending.deliver(house.world.context, claimed)
    assert (house.world.whatsapp.calls["send"], row(house, message)["state"]) == (0, "queued")
    await work(house)
    check(house, message)
    assert not row(house, message)["resent"]


async def test_who_wakes_up_after_others_took_over_does_not_send(house: House) -> None:
    (message,) = planted(house, 1)
    (claimed,) = await sending.claim(house.world.context, 5)
    await work_after(house, PAST)
    assert row(house, message)["state"] == "unknown"
    await work_after(house, PAST)
    check(house, message)
    before = row(house, message)
    await sending.deliver(house.world.context, claimed)
    await house.world.whatsapp.settled()
    assert (house.world.whatsapp.calls["send"], row(house, message)) == (1, before)


# --- a worker that dies

Act = Callable[[House, Context, UUID], Awaitable[object]]


def faulty(house: House, steps: Steps) -> Context:
    context = house.world.context
    transport = cast(Transport, FaultyTransport(context.cloud.transport, steps))
    database = cast(Database, FaultyDatabase(context.db, steps))
    return replace(context, db=database, cloud=replace(context.cloud, transport=transport))


async def deliver(_house: House, context: Context, _message: UUID) -> None:
    await sending.run_once(context)


async def take_failure(house: House, context: Context, message: UUID) -> None:
    """Accepted, and then its failure comes."""
    (sent,) = copies(house, message)
    news = News(sent.id, "failed", message, Rejected(131042, "No money"), PLATFORM_ID)
    await message_news.take(context, news)


async def accepted(house: House) -> UUID:
    (message,) = planted(house, 1)
    house.world.whatsapp.add_fault("error_131042", on=["outcome"], to=str(message), times=1)
    house.world.whatsapp.webhooks.hold = True
    await work(house)
    house.world.whatsapp.webhooks.hold, house.world.whatsapp.webhooks.held = False, []
    return message


async def plain(house: House) -> UUID:
    return planted(house, 1)[0]


async def text(house: House) -> UUID:
    house.world.whatsapp.window_refusal = "http"
    return planted(house, 1, form="text")[0]


async def without_news(house: House) -> UUID:
    (message,) = planted(house, 1)
    house.world.whatsapp.add_fault("dropped", to=str(message))
    return message


async def too_many(house: House) -> UUID:
    (message,) = planted(house, 1)
    house.world.whatsapp.add_fault("error_130429", to=str(message), times=1)
    return message


async def turned_down(house: House) -> UUID:
    (message,) = planted(house, 1)
    house.world.whatsapp.add_fault("error_131031", to=str(message))
    return message


FLOWS: dict[str, tuple[Callable[[House], Awaitable[UUID]], Act]] = {
    "sent": (plain, deliver),
    "sent, and never heard of": (without_news, deliver),
    "a text that becomes the template": (text, deliver),
    "too many at once": (too_many, deliver),
    "turned down": (turned_down, deliver),
    "a failure is told": (accepted, take_failure),
}


@pytest.mark.parametrize("flow", FLOWS)
async def test_whatever_step_of_sending_is_cut_off_the_rest_follows(house: House, flow: str) -> None:
    """Before and after each statement and each call, by a crash or a lost answer."""
    for way in ways_to_break_off():
        for at in range(1, MOST_STEPS):
            steps = Steps.cut(at, way)
            try:
                await cut_off(house, flow, steps)
            except AssertionError as error:
                error.add_note(f"{flow}: {steps}")
                raise
            if steps.passed:
                break


async def cut_off(house: House, flow: str, steps: Steps) -> None:
    prepare, act = FLOWS[flow]
    message = await prepare(house)
    with suppress(Crash, PaymentsError):
        await act(house, faulty(house, steps), message)
    await house.world.whatsapp.settled()
    house.world.whatsapp.window_refusal = "status"
    for seconds in (0, PAST, PAST, 601, 601):
        await work_after(house, seconds)
    assert alive(house, message) <= 1 + row(house, message)["resent"]
    for each in copies(house, message):
        house.world.whatsapp.clear_faults(str(message))
        house.world.whatsapp.repeat(each.id)
    await house.world.whatsapp.settled()
    await work(house)
    check(house, message)
    stopped = house.world.rows("SELECT code FROM stopped_senders")
    assert bool(stopped) == (flow in ("turned down", "a failure is told"))
    house.world.rows_do("DELETE FROM stopped_senders")
    house.world.whatsapp.messages.clear()


async def died_after_the_post(house: House) -> UUID:
    """WhatsApp has it; nothing here says so."""
    (message,) = planted(house, 1)
    (claimed,) = await sending.claim(house.world.context, 5)
    steps = Steps(3, after=True, dies=True)
    with suppress(Crash):
        await sending.deliver(faulty(house, steps), claimed)
    assert steps.taken[-1] == "whatsapp.send", steps.taken
    assert row(house, message)["state"] == "sending"
    return message


@pytest.mark.parametrize("when", ["at once", "after the lease", "after the wait"])
async def test_a_word_of_what_a_dead_worker_sent_keeps_it_from_being_sent_again(house: House, when: str) -> None:
    whatsapp = house.world.whatsapp
    whatsapp.webhooks.hold = True
    message = await died_after_the_post(house)
    if when != "at once":
        await work_after(house, PAST)
        assert row(house, message)["state"] == "unknown"
    if when == "after the wait":
        house.world.clock.forward(seconds=PAST)
    whatsapp.webhooks.release()
    await whatsapp.settled()
    for _ in range(3):
        await work_after(house, 601)
    check(house, message)
    assert (whatsapp.calls["send"], row(house, message)["resent"]) == (1, False)


async def test_without_a_word_it_is_sent_once_more_and_no_more(house: House) -> None:
    """After a minute; whatever becomes of that one, there is no third."""
    whatsapp = house.world.whatsapp
    whatsapp.add_fault("dropped")
    whatsapp.add_fault("reset")
    (message,) = planted(house, 1)
    await work(house)
    assert 50 < due_in(house, message) <= 60
    for _ in range(5):
        await work_after(house, 601)
    now = row(house, message)
    assert (now["state"], alive(house, message), told(house, message)) == ("failed", 2, ["failed"])
    assert "twice" in now["detail"]
    # It had arrived all the same, and is told in the end.
    whatsapp.clear_faults()
    whatsapp.repeat(copies(house, message)[0].id)
    await whatsapp.settled()
    check(house, message)


async def test_a_failure_that_is_faster_than_the_answer_counts(house: House) -> None:
    """The status is there before our own call has been answered."""
    whatsapp = house.world.whatsapp
    whatsapp.delay_seconds = 0.1
    whatsapp.add_fault("error_131026", on=["outcome"])
    (message,) = planted(house, 1)
    await work(house)
    check(house, message)
    assert row(house, message)["code"] == 131026


async def test_a_failure_of_what_nobody_is_sending_any_more_is_to_be_told_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 as long as the dead worker's lease runs: whether it is this one that failed, nobody knows yet."""
    monkeypatch.setattr(message_news, "_PAUSE", 0)
    (message,) = planted(house, 1)
    await sending.claim(house.world.context, 5)
    news = News("wamid.A", "failed", message, Rejected(131026, "No"))
    with pytest.raises(Unavailable):
        await message_news.take(house.world.context, news)
    await work_after(house, PAST)
    assert await message_news.take(house.world.context, news)
    assert row(house, message)["state"] == "failed"


# --- two copies of one message


async def test_whatever_is_told_of_two_copies_in_whatever_order_the_end_is_right(house: House) -> None:
    """One was sent and its answer lost, then the other. Delivered if one of them is; failed if both are."""
    context, chance = house.world.context, random.Random(7)
    lives = [["sent"], ["sent", "delivered"], ["sent", "delivered", "read"], ["sent", "failed"], ["failed"]]
    cases = list(itertools.product(lives, lives, (None, "B")))
    ids = planted(house, len(cases))
    for message, (first, second, wamid) in zip(ids, cases, strict=True):
        a, b = f"wamid.A{message}", f"wamid.B{message}"
        house.world.rows_do(
            "UPDATE messages SET state = %s, wamid = %s, resent = true, tries = 2, next_try_at = NULL WHERE id = %s",
            *("accepted" if wamid else "unknown", b if wamid else None, message),
        )
        news = [(a, word) for word in first] + [(b, word) for word in second]
        chance.shuffle(news)
        for one, word in [*news, *chance.sample(news, len(news))]:
            rejected = Rejected(131026, "Not there") if word == "failed" else None
            await message_news.take(context, News(one, cast(Any, word), message, rejected))
        told_of = {word for _, word in news}
        now = row(house, message)["state"]
        if "read" in told_of or "delivered" in told_of:
            assert now == ("read" if "read" in told_of else "delivered"), news
        elif first[-1] == second[-1] == "failed":
            assert now == "failed", news
        else:
            assert now in ("sent", "failed"), news


async def test_a_late_word_of_what_failed_and_was_sent_again_says_nothing(house: House) -> None:
    """131000, sent again: the first one's `sent`, and its failure once more, come after that."""
    whatsapp = house.world.whatsapp
    whatsapp.add_fault("error_131000", on=["outcome"], times=1)
    (message,) = planted(house, 1)
    await work(house)
    (first,) = copies(house, message)
    errors = [{"code": 131000, "title": "x"}]
    whatsapp.delivers = False
    await work_after(house, 60)
    for late in (status(first.id, "sent", message), status(first.id, "failed", message, errors=errors)):
        assert (await post(house, msgspec.json.encode(webhook(late)))).status == 200
    now = row(house, message)
    assert (now["state"], now["dead"], now["tries"]) == ("sent", [first.id], 2)
    assert await work_after(house, DAY) == 0
    assert whatsapp.calls["send"] == 2


async def test_a_message_given_up_with_its_link_is_delivered_after_all(house: House) -> None:
    """The answer was lost, and the link was over before it could be sent again: nobody knew, until it was told."""
    whatsapp = house.world.whatsapp
    whatsapp.webhooks.hold = True
    whatsapp.add_fault("reset", times=1)
    (message,) = planted(house, 1)
    await work(house)
    house.world.rows_do("UPDATE payments SET status = 'cancelled' WHERE id = %s", row(house, message)["payment_id"])
    await work_after(house, PAST)
    now = row(house, message)
    assert (now["state"], now["next_try_at"], told(house, message)) == ("unknown", None, [])
    whatsapp.webhooks.release()
    await whatsapp.settled()
    check(house, message)
    assert whatsapp.calls["send"] == 1
