"""WhatsApp's webhook from outside: only Meta's own word counts, once, in whatever order, and never for a payment."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from yarl import URL

from payments_service import message_news
from payments_service.sandbox.whatsapp import DEMO_APP_SECRET, DEMO_VERIFY_TOKEN
from payments_service.sandbox.whatsapp_webhooks import signed
from tests.house import Answer, House
from tests.messaging import (
    HOOK,
    PHONE,
    link,
    message_of,
    open_messages,
    planted,
    post,
    quiet,
    row,
    status,
    told,
    webhook,
    work,
)
from tests.support import Log, dump, open_house

encode = msgspec.json.encode


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_messages(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    return await quiet(service)


async def accepted(house: House) -> tuple[UUID, str]:
    """A message that WhatsApp has taken and told nothing of yet, and its wamid."""
    (message,) = planted(house, 1)
    house.world.whatsapp.add_fault("dropped", to=str(message), times=1)
    await work(house)
    now = row(house, message)
    assert now["state"] == "accepted"
    return message, now["wamid"]


# --- the subscription


async def ask(house: House, **changes: str | None) -> Answer:
    usual = {"hub.mode": "subscribe", "hub.verify_token": DEMO_VERIFY_TOKEN, "hub.challenge": "1158201444"}
    query = {name: value for name, value in {**usual, **changes}.items() if value is not None}
    return await house.get_public(str(URL(HOOK).with_query(query)))


async def test_the_challenge_is_said_back_as_text(house: House) -> None:
    answer = await ask(house)
    assert (answer.status, answer.body) == (200, b"1158201444")
    assert answer.headers["Content-Type"].startswith("text/plain")


WRONG: list[dict[str, str | None]] = [
    {"hub.verify_token": "another"},
    {"hub.verify_token": DEMO_VERIFY_TOKEN[:-1]},
    {"hub.verify_token": DEMO_VERIFY_TOKEN.upper()},
    {"hub.verify_token": "\u20ac"},
    {"hub.verify_token": ""},
    {"hub.verify_token": None},
    {"hub.mode": "unsubscribe"},
    {"hub.mode": None},
    {"hub.challenge": None},
    {"hub.challenge": "<script>"},
    {"hub.challenge": "1" * 201},
    {"hub.challenge": "1\n"},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
async def test_nobody_else_may_subscribe(house: House, changes: dict[str, str | None]) -> None:
    answer = await ask(house, **changes)
    assert (answer.status, answer.json["code"]) == (401, "callback_refused")
    assert DEMO_VERIFY_TOKEN.encode() not in answer.body


@pytest.mark.parametrize("missing", ["whatsapp_app_secret", "whatsapp_verify_token"])
async def test_without_its_settings_it_is_closed(postgres: str, missing: str) -> None:
    """An empty secret opens nothing: not even to whoever signs with it."""
    async with open_house(postgres, **{missing: ""}) as house:
        if missing == "whatsapp_verify_token":
            assert (await ask(house)).status == 401
            assert (await ask(house, **{"hub.verify_token": ""})).status == 401
        else:
            body = encode(webhook(status("wamid.A", "sent")))
            for secret in ("", "None", DEMO_APP_SECRET):
                assert (await post(house, body, signed(body, secret))).status == 401
            assert (await post(house, body, None)).status == 401


# --- the signature


async def test_what_is_forged_changes_nothing(house: House) -> None:
    """Unsigned, signed with another secret, for another body, or in another form: 401, and every row is as it was."""
    message, wamid = await accepted(house)
    errors = [{"code": 131042, "title": "x"}]
    body = encode(webhook(status(wamid, "failed", message, errors=errors), status(wamid, "delivered", message)))
    mark = signed(body, DEMO_APP_SECRET)
    before = dump(house.world.database)
    forged: list[tuple[bytes, str | None]] = [
        (body, None),
        (body, signed(body, "another secret")),
        (body, signed(body, "")),
        (body, mark.removeprefix("sha256=")),
        (body, mark.upper()),
        (body, mark[:-1]),
        (body, f"{mark}0"),
        (body, "sha256="),
        (body, "sha1=" + "0" * 40),
        (body[:-1] + b" ", mark),
        (body + b" ", mark),
        (body.replace(b"131042", b"131043"), mark),
        (b"", mark),
        (b"\x00" * 100, mark),
        (msgspec.json.format(body), mark),
    ]
    for content, signature in forged:
        answer = await post(house, content, signature)
        assert (answer.status, answer.json["code"]) == (401, "callback_refused"), (content, signature)
    for at in random.Random(3).sample(range(len(body)), 25):
        changed = bytes((*body[:at], body[at] ^ 1, *body[at + 1 :]))
        assert (await post(house, changed, mark)).status == 401
    assert dump(house.world.database) == before
    assert (await post(house, body)).status == 200
    assert row(house, message)["state"] != "accepted"


async def test_a_forged_one_is_told_to_the_operator(house: House, written_log: Path) -> None:
    log = Log(written_log)
    body = encode(webhook(status("wamid.HBgMMjYzNzcxMjM0NTY3", "sent", recipient_id=PHONE)))
    await post(house, body, None)
    (line,) = log.of("callback_refused")
    assert line["gateway"] == "whatsapp"
    assert PHONE[1:] not in log.text
    assert "wamid" not in log.text


async def test_too_much_is_not_read(house: House) -> None:
    """64 kB are taken, whoever sends them; more is 413."""
    body = b" " * (64 * 1024 - 2) + b"{}"
    assert (await post(house, body)).status == 200
    answer = await post(house, body + b" ")
    assert answer.status == 413


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_no_other_method_is_known(house: House, method: str) -> None:
    assert (await house.get_public(HOOK, method=method)).status == 405


# --- what it tells


async def test_what_is_genuine_and_not_ours_is_acknowledged(house: House) -> None:
    """Other events on the same address, statuses of others' messages, of unknown ids, and whatever Meta thinks of
    next: 200, or it comes again for days; nothing changes."""
    message, wamid = await accepted(house)
    before = dump(house.world.database)
    written = {"from": "263771234567", "id": "wamid.X", "type": "text", "text": {"body": "Hi"}}
    value = {"messaging_product": "whatsapp", "messages": [written], "contacts": [{"wa_id": "263771234567"}]}
    others: list[Any] = [
        {"entry": [{"changes": [{"field": "messages", "value": value}]}]},
        {"entry": [{"changes": [{"field": "account_update", "value": {"event": "VERIFIED_ACCOUNT"}}]}]},
        {"entry": [{"changes": [{"field": "message_template_status_update", "value": {"event": "PAUSED"}}]}]},
        webhook(status("wamid.of-somebody-else", "delivered")),
        webhook(status("wamid.of-somebody-else", "delivered", uuid4())),
        webhook(status("wamid.of-somebody-else", "failed", "INV-1", errors=[{"code": 190}])),
        webhook(status(wamid, "deleted", message)),
        webhook({"id": wamid}),
        webhook(),
        {},
        [],
        None,
        "x",
        {"entry": {"changes": []}},
    ]
    for content in others:
        answer = await post(house, encode(content))
        assert (answer.status, answer.json) == (200, {"received": True})
    for raw in (b"", b"{", b"\xff\xfe", b"[" * 50_000, b'{"entry":' * 5_000):
        assert (await post(house, raw)).status == 200
    assert dump(house.world.database) == before


async def test_a_status_finds_its_message_by_its_wamid_alone(house: House) -> None:
    """Where our own data did not come back; the number it went to may be missing as well."""
    message, wamid = await accepted(house)
    assert (await post(house, encode(webhook(status(wamid, "sent"))))).status == 200
    assert row(house, message)["state"] == "sent"
    errors = [{"code": 131026, "title": "x"}]
    assert (await post(house, encode(webhook(status(wamid, "failed", errors=errors))))).status == 200
    assert (row(house, message)["state"], row(house, message)["code"]) == ("failed", 131026)


async def test_one_batch_tells_of_many(house: House) -> None:
    """Each by itself; what is odd among them holds nobody up."""
    several = [await accepted(house) for _ in range(4)]
    words = [("sent", "delivered"), ("sent", "delivered", "read"), ("sent",), ()]
    told_of: list[Any] = [None, {"id": 7}, status("wamid.unknown", "read", uuid4())]
    for (message, wamid), said in zip(several, words, strict=True):
        told_of += [status(wamid, word, message) for word in said]
    assert (await post(house, encode(webhook(*told_of)))).status == 200
    assert [row(house, message)["state"] for message, _ in several] == ["delivered", "read", "sent", "accepted"]


@pytest.mark.parametrize("order", [*itertools.permutations(("sent", "delivered", "read"))], ids=" ".join)
async def test_in_whatever_order_and_however_often_it_comes(house: House, order: tuple[str, ...]) -> None:
    """As far as it came; each event once, whose body says how far that was."""
    message, wamid = await accepted(house)
    for word in (*order, *order, *order[::-1]):
        assert (await post(house, encode(webhook(status(wamid, word, message))))).status == 200
    assert row(house, message)["state"] == "read"
    assert sorted(told(house, message)) in (["delivered"], ["delivered", "sent"])
    assert ("sent" in told(house, message)) == (order[0] == "sent")


@pytest.mark.parametrize("order", [*itertools.permutations(("sent", "failed"))], ids=" ".join)
async def test_a_failure_stays_one(house: House, order: tuple[str, ...]) -> None:
    message, wamid = await accepted(house)
    for word in (*order, *order):
        more = {"errors": [{"code": 131026, "title": "x"}]} if word == "failed" else {}
        assert (await post(house, encode(webhook(status(wamid, word, message, **more))))).status == 200
    assert row(house, message)["state"] == "failed"
    assert told(house, message).count("failed") == 1


async def test_fifty_copies_at_once_are_one(house: House) -> None:
    """Shuffled with the other words of the same message."""
    message, wamid = await accepted(house)
    bodies = [encode(webhook(status(wamid, word, message))) for word in ("sent", "delivered", "read")] * 16
    random.Random(5).shuffle(bodies)
    answers = await asyncio.gather(*(post(house, body) for body in bodies))
    # One that lost every race is told again by Meta.
    assert {answer.status for answer in answers} <= {200, 503}
    assert {answer.status for answer in await asyncio.gather(*(post(house, body) for body in bodies[:6]))} == {200}
    assert row(house, message)["state"] == "read"
    kinds = told(house, message)
    assert "delivered" in kinds
    assert len(kinds) == len(set(kinds))


async def test_fifty_copies_of_a_failure_are_one_retry(house: House) -> None:
    message, wamid = await accepted(house)
    body = encode(webhook(status(wamid, "failed", message, errors=[{"code": 131000, "title": "x"}])))
    await asyncio.gather(*(post(house, body) for _ in range(50)))
    now = row(house, message)
    assert (now["state"], now["dead"], now["wamid"]) == ("queued", [wamid], None)


def refused_for_now(house: House) -> float:
    """How many messages of WhatsApp's could not be taken, as `/metrics` tells."""
    labels = {"gateway": "whatsapp", "verdict": "failed"}
    return house.world.context.metrics.registry.get_sample_value("payments_callbacks_total", labels) or 0


async def test_in_the_middle_of_the_sending_it_is_to_be_told_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503, so that Meta repeats it: a failure that comes before our own answer is of this copy, or of another."""
    monkeypatch.setattr(message_news, "_PAUSE", 0)
    (message,) = planted(house, 1)
    house.world.rows_do(
        "UPDATE messages SET state = 'sending', next_try_at = now() + interval '1 day' WHERE id = %s", message
    )
    body = encode(webhook(status("wamid.A", "failed", message, errors=[{"code": 131026}])))
    before = refused_for_now(house)
    assert (await post(house, body)).status == 503
    assert refused_for_now(house) == before + 1
    assert (await post(house, encode(webhook(status("wamid.A", "sent", message))))).status == 200
    assert (await post(house, body)).status == 200
    assert row(house, message)["state"] == "failed"


async def test_the_words_of_an_error_may_be_anything(house: House) -> None:
    """What no database would keep, and codes beyond all numbers."""
    for error in ({"code": 131026, "title": "a\x00b\n\u2028"}, {"code": 2**70}, {"code": -1, "title": "x" * 5_000}):
        message, wamid = await accepted(house)
        body = encode(webhook(status(wamid, "failed", message))).replace(
            b'"status":"failed"', b'"status":"failed","errors":[' + json.dumps(error).encode() + b"]"
        )
        assert (await post(house, body)).status == 200
        now = row(house, message)
        assert now["state"] == "failed"
        assert len(now["detail"]) <= 300


async def test_no_word_of_whatsapps_moves_a_payment(house: House) -> None:
    """Whatever is told of the message: the payment's row, steps and events stay."""
    await house.save_paynow()
    payment = await link(house)
    await work(house)
    message = message_of(house, payment)
    steps = "SELECT count(*) FROM transitions t WHERE t.payment_id = p.id"
    sql = f"SELECT to_jsonb(p) AS row, ({steps}) AS steps FROM payments p WHERE id = %s"
    before = house.world.one(sql, payment["id"])
    for word in ("read", "failed", "sent", "delivered"):
        paid = {"payment": {"reference_id": "INV-1001"}, "transaction": {"status": "success"}, "type": "payment"}
        await post(house, encode(webhook(status(message["wamid"], word, message["id"], **paid))))
    await post(house, encode(webhook(status(message["wamid"], "captured", message["id"], type="payment"))))
    assert house.world.one(sql, payment["id"]) == before


async def test_what_is_told_reaches_the_backend_once(house: House) -> None:
    """Signed like every event, with the message's state, in its order."""
    await house.save_paynow()
    payment = await link(house)
    await work(house)
    await house.world.deliver()
    events = house.world.backend.of(payment["id"])
    assert [each["type"] for each in events] == ["payment.link_created", "message.sent", "message.delivered"]
    assert [each["data"].get("message", {}).get("state") for each in events] == [None, "sent", "delivered"]
    assert house.world.backend.refused == 0
    pulled = (await house.call("GET", "/v1/events?type=message.delivered")).json["data"]
    assert payment["id"] in [each["data"]["id"] for each in pulled]
    history = (await house.call("GET", house.path(f"/payments/{payment['id']}/history"))).json["data"]
    assert len(history) == 1
