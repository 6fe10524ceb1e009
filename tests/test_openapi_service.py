"""The running service answers as openapi.yaml says: every answer that is documented is provoked, and no other comes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from payments_service import web
from payments_service.checkout import TRIES
from payments_service.errors import WrongState
from payments_service.gateways.base import Endpoint
from payments_service.gateways.paynow import Paynow
from payments_service.gateways.stripe import Stripe
from payments_service.internal.routes import ROUTES as INTERNAL_ROUTES
from payments_service.public import guard, pay
from tests.house import STRIPE_KEY, Answer, House, World, eventually
from tests.openapi import (
    AUDIT,
    CALLBACKS,
    CREATE,
    CSV,
    DOCUMENT,
    EVENTS,
    LIST,
    OF_PAGE,
    PAGE,
    PAYMENT,
    READS,
    RECEIPT,
    REDELIVER,
    REDELIVER_ALL,
    REFUNDS,
    RESOLVE,
    SCHEMAS,
    SEND,
    SETTINGS,
    SETTLE,
    STRIPE_CALLBACKS,
    SUMMARY,
    TENANT,
    VERIFY,
    WEBHOOK,
    Conversation,
    check,
    is_guarded,
    op_answers,
    operations,
)
from tests.openapi_whatsapp import TO_SEND, of_meta, what_is_sent_by_whatsapp
from tests.servers import serve

PLATFORM_SECRET = "whsec_of-the-platform-worth-nothing"


async def test_every_documented_answer_is_really_given(world: World) -> None:
    """Each answer that an operation may give, by the document, is provoked and is as documented: status, type of the
    content, headers, body; and no call is answered in a way that the document does not know."""
    world.context = replace(world.context, stripe_webhook_secrets=(PLATFORM_SECRET,))
    async with House.open(world) as house:
        talk = Conversation(house)
        await what_works(talk)
        await what_is_found_and_told_again(talk)
        await what_is_sent_by_whatsapp(talk)
        await what_a_customer_does(talk)
        await what_is_refused(talk)
        await what_is_sent_again(talk)
        await what_ends_a_tenant(talk)
        card = await what_stripe_takes_and_gives_back(talk)
        await what_a_person_decides(talk)
        await what_the_gateway_spoils(talk)
        await what_stripe_spoils(talk)
        await what_a_person_settles(talk)
        await what_a_sick_database_gives(talk, card)
        await what_the_guard_answers(talk)
    documented = {(*operation.key, int(status)) for operation in operations() for status, _ in op_answers(operation)}
    assert talk.seen == documented


async def what_works(talk: Conversation) -> None:
    house = talk.house
    await talk.say("GET", SETTINGS)
    key = house.world.sandbox.integrations["1201"].key
    fields = {"paynow_integration_id": "1201", "paynow_integration_key": key, "display_name": "Mbare Hardware"}
    await talk.say("PATCH", SETTINGS, fields, headers={"X-Actor": "rudo@mbarehardware.example"})
    payment = (await talk.say("POST", CREATE, house.order(contact_phone="+263 77 000 0000"))).json
    talk.known = {
        "payment_id": payment["id"],
        "token": payment["page_url"].rsplit("/", 1)[1],
        "attempt": str(house.world.one("SELECT id FROM attempts")["id"]),
        "refund_id": str(uuid4()),
        "event_id": str(uuid4()),
    }
    for method, path in (*READS, *OF_PAGE):
        await talk.say(method, path)
    await talk.say("GET", PAGE, params={"returned": "1", "n": "3"})
    await talk.say("GET", "/preview.png")
    for path in CALLBACKS:
        await talk.say("POST", path, b"reference=INV-1001&status=Paid&hash=0")
    for listener in ("internal", "public"):
        await talk.say("GET", "/livez", on=listener)
        await talk.say("GET", "/readyz", on=listener)
    for path in ("/metrics", "/openapi.yaml", "/docs", "/docs/rapidoc-min.js"):
        await talk.say("GET", path, token=None)
    other = (await talk.say("POST", CREATE, house.order(gateway=None))).json["id"]
    await talk.say("POST", f"{PAYMENT}/cancel", values={"payment_id": other})
    await talk.say("POST", f"{PAYMENT}/cancel", values={"payment_id": other})  # a second time is a wrong state


TODAY = {"from": "2026-01-01T00:00:00Z", "to": "2126-01-01T00:00:00Z"}
REVIEWED = {"resolution": "paid", "note": "USD 12.51 on the statement"}
SETTLED = {"resolution": "failed", "note": "not on the statement"}


async def what_is_found_and_told_again(talk: Conversation) -> None:
    """Lists with every filter, page by page; events pulled, and sent once more."""
    found = (await talk.say("GET", LIST, params={"limit": "1"})).json
    rest = (await talk.say("GET", LIST, params={"limit": "200", "cursor": found["next_cursor"]})).json
    assert talk.known["payment_id"] in {each["id"] for each in found["data"] + rest["data"]}
    (newest,) = found["data"]
    filters = {name: newest[name] for name in ("status", "currency", "reference", "contact_id") if newest[name]}
    filters |= {"created_from": TODAY["from"], "created_to": TODAY["to"]}
    for path in (LIST, CSV):
        assert newest["id"] in (await talk.say("GET", path, params=filters)).body.decode()
    assert (await talk.say("GET", SUMMARY, params=TODAY)).json["data"]
    events = (await talk.say("GET", EVENTS, params={"type": "payment.link_created"})).json
    assert (await talk.say("GET", EVENTS, params={"after": events["next_cursor"], "state": "failed"})).json[
        "data"
    ] == []
    talk.known["event_id"] = events["data"][0]["id"]
    assert (await talk.say("POST", REDELIVER)).json["replays"] == 1
    assert (await talk.say("POST", REDELIVER_ALL, params=TODAY)).json["redelivered"] > 1


async def what_a_person_decides(talk: Conversation) -> None:
    """A review is resolved, once."""
    world = talk.house.world
    payment = await talk.house.create_link()
    await world.sandbox.pay(talk.house.reference_of(payment), "12.51")
    values = {"payment_id": payment["id"]}

    async def reviewed() -> bool:
        return bool((await talk.say("GET", f"{PAYMENT}/reviews", values=values)).json["data"])

    await eventually(reviewed)
    answers = [await talk.say("POST", RESOLVE, REVIEWED, values=values) for _ in range(2)]
    assert [answer.status for answer in answers] == [200, 409]
    (review,) = (await talk.say("GET", f"{PAYMENT}/reviews", values=values)).json["data"]
    assert (review["resolution"], review["note"]) == ("paid", REVIEWED["note"])


async def what_a_person_settles(talk: Conversation) -> None:
    """Only a refund whose answer was lost a while ago, at a gateway that does not tell: the last one, as if it were."""
    *_, newest = (await talk.say("GET", REFUNDS)).json["data"]
    talk.known["refund_id"] = newest["id"]
    assert (await talk.say("POST", SETTLE, SETTLED)).json["code"] == "wrong_state"
    lost = (
        "UPDATE refunds SET gateway = 'ecocash', state = 'requested', created_at = created_at - interval '1 hour' "
        "WHERE id = %s"
    )
    talk.house.world.rows_do(lost, newest["id"])
    settled = (await talk.say("POST", SETTLE, SETTLED)).json
    assert (settled["status"], settled["detail"]) == ("failed", SETTLED["note"])


async def what_ends_a_tenant(talk: Conversation) -> None:
    """Not while it has a pending payment, and only once."""
    assert (await talk.say("DELETE", TENANT)).json["in_the_way"]["pending_payments"]
    other = {"client_id": str(uuid4())}
    await talk.say("PATCH", SETTINGS, {"display_name": "Mbare Bakery"}, values=other)
    assert [(await talk.say("DELETE", TENANT, values=other)).status for _ in range(2)] == [204, 404]
    (stays,) = (await talk.say("GET", AUDIT, values=other, params={"limit": "1"})).json["data"]
    assert stays["action"] == "tenant.deleted"


async def what_a_customer_does(talk: Conversation) -> None:
    """Every way to pay, by the fields of the form, each on a link of its own; and the receipt."""
    house, sandbox = talk.house, talk.house.world.sandbox
    saved = {"paynow_auth_email": "pay@mbarehardware.example", "whatsapp_number": "077 000 0000"}
    assert (await talk.say("PATCH", SETTINGS, saved)).json["whatsapp_number"] == "+263770000000"
    link: Any = {}

    async def form(**fields: str | int) -> Answer:
        check(SCHEMAS["PayForm"], fields)
        return await talk.say("POST", PAGE, {name: str(value) for name, value in fields.items()}, values=of(link))

    def of(payment: Any) -> dict[str, str]:
        return {"token": payment["page_url"].rsplit("/", 1)[1]}

    async def shown(text: str, **params: str) -> None:
        answer = await talk.say("GET", PAGE, params=params, values=of(link))
        assert text in answer.body.decode()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert (await talk.say("GET", f"{PAGE}/status", values=of(link))).json["version"]

    link = await house.create_link(gateway=None)
    assert (await talk.say("GET", RECEIPT, values=of(link))).status == 303
    assert (await form(way="paynow.ecocash", phone="12")).status == 422
    assert (await form(way="paynow.ecocash", phone="077 123 4567", after=0)).headers["Location"] == of(link)["token"]
    await shown("Look at your phone")
    await shown("Another way to pay", choose="1")
    await sandbox.approve(house.reference_of(link))
    await eventually(lambda: paid(house, link))
    await shown("receipt")
    kept = await talk.say("GET", RECEIPT, values=of(link))
    assert (kept.status, kept.headers["Content-Encoding"]) == (200, "gzip")

    link = await house.create_link(gateway=None)
    assert (await form(way="paynow.innbucks", phone="077 123 4567", after=0)).status == 303
    await shown("Pay with this code")

    link = await house.create_link(gateway=None)
    assert (await form(way="paynow.omari", phone="077 123 4567", after=0)).status == 303
    await shown("Type the code from your SMS")
    right = sandbox.otp_of(house.reference_of(link))
    assert (await form(otp="000000" if right != "000000" else "111111", tries=0)).status == 422
    assert (await form(otp=right, tries=1)).status == 303
    await eventually(lambda: paid(house, link))

    link = await house.create_link(gateway=None)
    answers = [
        (await form(way="paynow.onemoney", phone=f"07112345{tries}0", after=tries)).status for tries in range(TRIES + 1)
    ]
    assert answers == [303] * TRIES + [429]


async def paid(house: House, payment: Any) -> bool:
    return bool((await house.payment(payment))["status"] == "paid")


@dataclass
class Card:
    """A paid Stripe payment, and its event as Stripe posts it to the tenant's address and to the platform's."""

    house: House
    event: Any
    secret: str

    async def reported(self, talk: Conversation) -> list[Answer]:
        answers = []
        for path, secret in zip(STRIPE_CALLBACKS, (self.secret, PLATFORM_SECRET), strict=True):
            body, signature = self.house.world.stripe.signed(self.event, secret)
            answers.append(await talk.say("POST", path, body, headers={"Stripe-Signature": signature}))
        return answers


async def what_stripe_takes_and_gives_back(talk: Conversation) -> Card:
    """An account is verified and its webhook set up; a card pays, and gets its money back in parts."""
    house, stripe = talk.house, talk.house.world.stripe
    assert (await talk.say("POST", VERIFY, {"gateway": "stripe"})).json["code"] == "gateway_not_configured"
    assert (await talk.say("POST", WEBHOOK)).json["code"] == "gateway_not_configured"
    await talk.say("PATCH", SETTINGS, {"stripe_secret_key": "pk_test_wrong"})
    assert not (await talk.say("POST", VERIFY, {"gateway": "stripe"})).json["ok"]
    assert (await talk.say("POST", WEBHOOK)).json["code"] == "gateway_refused"
    await talk.say("PATCH", SETTINGS, {"stripe_secret_key": STRIPE_KEY})
    made = (await talk.say("POST", WEBHOOK, headers={"X-Actor": "rudo@mbarehardware.example"})).json
    assert made["replaced"] == []
    assert [(await talk.say("POST", VERIFY, {"gateway": name})).json["ok"] for name in ("paynow", "stripe")] == [
        True
    ] * 2
    payment = (await talk.say("POST", CREATE, house.order(gateway="stripe"))).json
    talk.known["payment_id"] = payment["id"]
    assert (await talk.say("POST", REFUNDS, {"reason": "nothing came yet"})).json["code"] == "wrong_state"
    reference = house.reference_of(payment)
    await stripe.pay(reference)
    await eventually(lambda: paid(house, payment))
    given = (await talk.say("POST", REFUNDS, {"reason": "One bag was torn", "amount_cents": 250})).json
    assert (given["status"], given["payment"]["refunded_cents"]) == ("succeeded", 250)
    told = (await talk.say("POST", REFUNDS, {"reason": "Both were", "amount_cents": 1001})).json
    assert [fault["field"] for fault in told["errors"]] == ["amount_cents"]
    assert len((await talk.say("GET", REFUNDS)).json["data"]) == 1
    card = Card(
        house,
        stripe.event_for(reference, "checkout.session.completed"),
        stripe.accounts[STRIPE_KEY].endpoints[made["endpoint_id"]].secret,
    )
    assert {answer.status for answer in await card.reported(talk)} == {200}
    for path in STRIPE_CALLBACKS:
        assert (await talk.say("POST", path, b"{}")).json["code"] == "callback_refused"
        await talk.say("POST", path, b" " * 65_537)
    told = (await talk.say("POST", CREATE, house.order(gateway="stripe", currency="ZIG"))).json
    assert [fault["field"] for fault in told["errors"]] == ["currency"]
    return card


async def what_stripe_spoils(talk: Conversation) -> None:
    world, wish = talk.house.world, {"reason": "One bag was torn", "amount_cents": 100}

    async def codes() -> list[str]:
        calls: list[tuple[str, Any]] = [(VERIFY, {"gateway": "stripe"}), (WEBHOOK, None), (REFUNDS, wish)]
        return [(await talk.say("POST", path, body)).json["code"] for path, body in calls]

    for operation in ("account.retrieve", "webhook_endpoints.create", "refunds.create"):
        world.stripe.add_fault("html", on=[operation], times=1)
    assert await codes() == ["gateway_timeout"] * 3
    gateways: Any = world.context.gateways
    working = gateways["stripe"]
    gateways["stripe"] = Stripe(world.courier.transport, "http://127.0.0.1:1")
    assert await codes() == ["gateway_unreachable"] * 3
    gateways["stripe"] = Outrun(world.courier.transport, world.stripe.public_url)
    assert (await talk.say("POST", WEBHOOK)).json["code"] == "wrong_state"
    gateways["stripe"] = working
    sealed = world.one("SELECT stripe_secret_key_enc AS it FROM payment_settings")["it"]
    world.rows_do("UPDATE payment_settings SET stripe_secret_key_enc = 'v1.000000000000.AAAA'")
    assert await codes() == ["credentials_unreadable"] * 3
    world.rows_do("UPDATE payment_settings SET stripe_secret_key_enc = %s", sealed)
    made = (await talk.say("GET", REFUNDS)).json["data"]
    # Of the one whose answer was lost, Stripe's event may have told by now.
    assert [each["status"] for each in made[:1] + made[2:]] == ["succeeded", "failed", "failed"]


class Outrun(Stripe):
    """Somebody else is always faster."""

    async def provision(self, credentials: Any, url: str) -> Endpoint:
        raise WrongState("Somebody else set the webhook up at the same time.")


async def what_is_refused(talk: Conversation) -> None:
    guarded = [operation.key for operation in operations() if is_guarded(operation)]
    assert (await asyncio.gather(*(talk.say(*key, token=None) for key in guarded)))[0].status == 401
    for method, path in guarded:
        await talk.say(method, path, values={"client_id": "not-a-uuid"})
        if "payment_id" in path:
            await talk.say(method, path, values={"payment_id": str(uuid4())})
    for method, path in OF_PAGE:
        await talk.say(method, path, values={"token": "x" * 27})
    bodies = ((REFUNDS, {"reason": "not ours"}), (RESOLVE, REVIEWED), (SETTLE, SETTLED), (SEND, TO_SEND))
    for path, body in bodies:
        assert (await talk.say("POST", path, body, values={"payment_id": str(uuid4())})).status == 404
    assert (await talk.say("POST", REDELIVER, values={"event_id": str(uuid4())})).status == 404
    assert (await talk.say("DELETE", TENANT, params={"no_such_parameter": "1"})).json["code"] == "validation_failed"
    for path in (LIST, CSV, SUMMARY, EVENTS, AUDIT):
        assert (await talk.say("GET", path, params={"no_such_parameter": "1"})).json["code"] == "validation_failed"
    assert (await talk.say("POST", REDELIVER_ALL)).json["code"] == "validation_failed"
    for path in (RESOLVE, SETTLE):
        assert (await talk.say("POST", path, {"resolution": "lost"})).json["code"] == "validation_failed"
    for path in (RESOLVE, SETTLE, REDELIVER, REDELIVER_ALL):
        await talk.say("POST", path, b" " * 65_537)
    for method, path in (("PATCH", SETTINGS), ("POST", CREATE), ("POST", VERIFY), ("POST", REFUNDS)):
        for body in (b"{", b"[]", {"no_such_field": 1}, {"display_name": "", "amount_cents": 0}):
            assert (await talk.say(method, path, body)).json["code"] == "validation_failed"
        await talk.say(method, path, b" " * 65_537)
    await talk.say("POST", WEBHOOK, b" " * 65_537)
    for method, path in (("PATCH", SETTINGS), ("POST", f"{PAYMENT}/cancel"), ("POST", WEBHOOK), ("DELETE", TENANT)):
        assert (await talk.say(method, path, {}, headers={"X-Actor": "x" * 101})).status == 422
    assert (await talk.say("POST", CREATE, talk.house.order(send="whatsapp"))).json["code"] == "validation_failed"
    for method, path in (("POST", PAGE), *(("POST", path) for path in CALLBACKS)):
        await talk.say(method, path, b" " * 65_537)
    await talk.say("POST", PAGE, b" " * (pay._MAX_FORM + 1))
    told = (await talk.say("PATCH", SETTINGS, {"paynow_auth_email": "nobody", "paynow_express_methods": "visa"})).json
    assert [fault["field"] for fault in told["errors"]] == ["paynow_auth_email", "paynow_express_methods"]
    told = (await talk.say("PATCH", SETTINGS, {"whatsapp_number": "12"})).json
    assert [fault["field"] for fault in told["errors"]] == ["whatsapp_number"]


async def what_is_sent_again(talk: Conversation) -> None:
    """Under a key: another request, while the first is at work, and too large a body; and too many links."""
    world, headers = talk.house.world, {"Idempotency-Key": "key-1"}
    posts = [route.path for route in INTERNAL_ROUTES if route.methods == {"POST"}]
    for route in posts:
        path = route.replace(":uuid", "")
        address = path.format(client_id=talk.house.client_id, **talk.known)
        client_id = talk.house.client_id if "client_id" in path else UUID(int=0)
        values = (client_id, f"POST {route}", hashlib.sha256(f"{address}?\n".encode()).digest())
        world.rows_do(
            "INSERT INTO idempotency_keys (client_id, caller, operation, key, digest, lease) "
            "VALUES (%s, 'backend', %s, 'key-1', %s, now() + interval '1 hour')",
            *values,
        )
        assert (await talk.say("POST", path, headers=headers)).json["code"] == "idempotency_in_progress"
        assert (await talk.say("POST", path, {}, headers=headers)).json["code"] == "idempotency_key_reused"
        assert (await talk.say("POST", path, b" " * 65_537, headers=headers)).status == 413
    assert len(posts) > 9
    first = await talk.say("POST", CREATE, order := talk.house.order(gateway=None), headers={"Idempotency-Key": "2"})
    again = await talk.say("POST", CREATE, order, headers={"Idempotency-Key": "2"})
    assert (again.body, again.headers["Idempotent-Replayed"]) == (first.body, "true")
    world.rows_do("UPDATE link_rates SET moments = array_fill(now() + interval '1 minute', ARRAY[1000])")
    assert (await talk.say("POST", CREATE, order)).json["code"] == "too_many_requests"
    world.rows_do("DELETE FROM link_rates")


async def what_the_gateway_spoils(talk: Conversation) -> None:
    house, world = talk.house, talk.house.world

    async def code(**changes: object) -> str:
        return str((await talk.say("POST", CREATE, house.order(**changes))).json["code"])

    assert await code(currency="ZIG") == await code(gateway="ecocash") == "gateway_not_configured"
    world.sandbox.add_fault("empty", on=["initiate"], times=1)
    assert await code() == "gateway_timeout"
    open_link = (await talk.say("POST", CREATE, house.order(gateway=None))).json
    await talk.say("PATCH", SETTINGS, {"paynow_integration_key": "00000000-0000-0000-0000-000000000000"})
    assert await code() == "gateway_refused"
    await talk.say("POST", PAGE, {"way": "paynow.web"}, values={"token": open_link["page_url"].rsplit("/", 1)[1]})
    gateways: Any = world.context.gateways
    working = gateways["paynow"]
    gateways["paynow"] = Paynow(world.courier.transport, "http://127.0.0.1:1")
    assert await code() == "gateway_unreachable"
    gateways["paynow"] = working
    sealed = world.one("SELECT paynow_integration_key_enc AS it FROM payment_settings")["it"]
    world.rows_do("UPDATE payment_settings SET paynow_integration_key_enc = 'v1.000000000000.AAAA'")
    assert await code() == "credentials_unreadable"
    world.rows_do("UPDATE payment_settings SET paynow_integration_key_enc = %s", sealed)


async def what_a_sick_database_gives(talk: Conversation, card: Card) -> None:
    house = talk.house
    changes = [
        (SETTINGS, "PATCH"),
        (TENANT, "DELETE"),
        *((path, "POST") for path in (CREATE, f"{PAYMENT}/cancel", REFUNDS, VERIFY, WEBHOOK)),
        *((path, "POST") for path in (RESOLVE, SETTLE, SEND, REDELIVER, REDELIVER_ALL)),
    ]
    calls = [*READS, *OF_PAGE, *((method, path) for path, method in changes)]
    bodies = {
        SETTINGS: {"display_name": "Mbare Hardware"},
        CREATE: house.order(),
        REFUNDS: {"reason": "One bag was torn"},
        VERIFY: {"gateway": "stripe"},
        RESOLVE: REVIEWED,
        SETTLE: SETTLED,
        SEND: TO_SEND,
    }
    ranges: Any = {REDELIVER_ALL: TODAY}

    async def sick(method: str, path: str) -> Answer:
        return await talk.say(method, path, bodies.get(path) if method != "GET" else None, params=ranges.get(path))

    card.event["id"] += "again"  # another message about the same session
    talk.house.world.rows_do("ALTER TABLE payments RENAME TO elsewhere")
    talk.house.world.rows_do("ALTER TABLE payment_settings RENAME TO elsewhere_too")
    talk.house.world.rows_do("ALTER TABLE events RENAME TO elsewhere_as_well")
    talk.house.world.rows_do("ALTER TABLE audit_logs RENAME TO elsewhere_with_them")
    for method, path in calls:
        assert (await sick(method, path)).status == 500
    assert {answer.status for answer in await card.reported(talk)} == {500}
    assert (await of_meta(talk, str(uuid4()), "read")).status == 500
    await house.world.context.db.close()
    for method, path in calls:
        assert (await sick(method, path)).status == 503
    assert {answer.status for answer in await card.reported(talk)} == {503}
    assert (await of_meta(talk, str(uuid4()), "read")).status == 503
    for listener in ("internal", "public"):
        assert (await talk.say("GET", "/readyz", on=listener)).json["status"] == "unready"
    for path in CALLBACKS:
        assert (await talk.say("POST", path, b"reference=1&status=Paid&hash=0")).status == 200


async def what_the_guard_answers(talk: Conversation) -> None:
    """The guard with less patience than usual; the listener behind it is never reached, or too slow."""

    async def sleepy(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    impatient = web.Observe(guard.Guard(sleepy, deadline=0.1, answer_deadline=0.2), "public")
    posts = [each for each in operations() if each.listener == "public" and each.method == "POST"]

    async def stalled(answered: asyncio.Event) -> AsyncIterator[bytes]:
        yield b"a"
        await answered.wait()

    async with serve(impatient, lifespan="off") as url, aiohttp.ClientSession() as http:
        for operation in posts:
            answered = asyncio.Event()
            async with http.post(url, data=stalled(answered)) as answer:
                talk.hold(operation, Answer(answer.status, answer.headers, await answer.read()))
                answered.set()
        async with http.post(url) as answer:
            assert answer.status == 503
            (operation,) = (each for each in posts if each.path == PAGE)
            talk.hold(operation, Answer(answer.status, answer.headers, await answer.read()))


async def test_every_event_and_every_step_of_history_is_as_documented(world: World) -> None:
    """A payment is led to each status, and by Stripe through most of them: the posts to the backend, headers and body,
    and the history are as documented, and the document knows no cause that does not occur."""
    hook = DOCUMENT["webhooks"]["payment-event"]["post"]
    told: dict[str, list[Any]] = {}

    async def receive(request: Request) -> PlainTextResponse:
        for parameter in hook["parameters"]:
            check(parameter["schema"], request.headers[parameter["name"]], parameter["name"])
        event = msgspec.json.decode(await request.body())
        told.setdefault(event["data"]["id"], []).append(event)
        return PlainTextResponse("")

    async with serve(Starlette(routes=[Route("/", receive, methods=["POST"])])) as url:
        world.courier = replace(world.courier, url=url)
        async with House.open(world) as house:
            await every_status(house, told)
            talk = Conversation(house)
            causes = set()
            for payment_id in told:
                history = (await talk.say("GET", f"{PAYMENT}/history", values={"payment_id": payment_id})).json["data"]
                causes |= {step["cause"] for step in history}
    for event in (event for events in told.values() for event in events):
        check(hook["requestBody"]["content"]["application/json"]["schema"], event, event["type"])
    assert causes == set(SCHEMAS["HistoryEntry"]["properties"]["cause"]["enum"])
    types = {event["type"] for events in told.values() for event in events}
    assert types == set(SCHEMAS["EventType"]["enum"])


async def every_status(house: House, told: dict[str, list[Any]]) -> None:
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    words = {"Paid": "paid", "Cancelled": "failed", "Disputed": "disputed", "Refunded": "refunded"}
    wanted = []
    for word, status in words.items():
        link = await house.create_link(reference=word)
        await house.world.sandbox.set_status(house.reference_of(link), word)
        wanted.append((link["id"], status))
    wrong = await house.create_link()
    await house.world.sandbox.pay(house.reference_of(wrong), "4.00")
    short, off = await house.create_link(gateway=None, expires_in=60), await house.create_link(gateway=None)
    await house.call("POST", house.path(f"/payments/{off['id']}/cancel"))
    house.world.clock.forward(seconds=90)
    wanted += [(wrong["id"], "review"), (short["id"], "expired"), (off["id"], "cancelled")]
    for payment_id, status in wanted:
        await eventually(
            lambda payment_id=payment_id, status=status: any(
                event["data"]["status"] == status for event in told.get(payment_id, ())
            )
        )
    answer = await house.call("POST", house.path(f"/payments/{wrong['id']}/resolve"), REVIEWED)
    assert answer.status == 200, answer.body
    await there_and_back(house, told)
    await to_the_customer(house, told)


async def to_the_customer(house: House, told: dict[str, list[Any]]) -> None:
    """A link that WhatsApp delivers, and one that it does not; neither is a step of the payment."""
    whatsapp = house.world.whatsapp
    await whatsapp.subscribe(f"{house.public}/callbacks/whatsapp")
    whatsapp.add_fault("error_131026", to="+263772222222")
    for phone, states in (("077 123 4567", ["delivered", "sent"]), ("077 222 2222", ["failed"])):
        link = await house.create_link(gateway=None, contact_phone=phone, send="whatsapp")

        def news(link: Any = link) -> list[Any]:
            return [event["data"] for event in told.get(link["id"], ()) if event["type"].startswith("message.")]

        await eventually(lambda news=news, states=states: sorted(one["message"]["state"] for one in news()) == states)
        assert {(one["sequence"], one["status"], one["previous_status"]) for one in news()} == {
            (1, "pending", "pending")
        }


async def there_and_back(house: House, told: dict[str, list[Any]]) -> None:
    """A card payment whose refunds and dispute lead to nearly every status and back, each told with the one before."""
    stripe = house.world.stripe
    await house.save_stripe()
    link = await house.create_link(gateway="stripe")
    reference = house.reference_of(link)
    await eventually(lambda: link["id"] in told)
    await stripe.pay(reference)

    async def arrived(*step: str | int) -> None:
        def shown() -> bool:
            newest = max((event["data"] for event in told.get(link["id"], ())), key=lambda data: data["sequence"])
            return (newest["previous_status"], newest["status"], newest["refunded_cents"]) == step

        await eventually(shown)

    await arrived("pending", "paid", 0)
    wish = {"reason": "One bag was torn", "amount_cents": 250}
    answer = await house.call("POST", house.path(f"/payments/{link['id']}/refunds"), wish)
    assert answer.status == 201, answer.body
    await arrived("paid", "partially_refunded", 250)
    made = await stripe.refund(reference, 500)
    await arrived("partially_refunded", "partially_refunded", 750)
    await stripe.move_refund(made["id"], "failed")
    await arrived("partially_refunded", "partially_refunded", 250)
    await stripe.move_refund(answer.json["gateway_reference"], "failed")
    await arrived("partially_refunded", "paid", 0)
    await stripe.dispute(reference)
    await arrived("paid", "disputed", 0)
    await stripe.close_dispute(reference, "won")
    await arrived("disputed", "paid", 0)
    await stripe.dispute(reference)
    await arrived("paid", "disputed", 0)
    await stripe.close_dispute(reference, "lost")
    await arrived("disputed", "refunded", 1250)
