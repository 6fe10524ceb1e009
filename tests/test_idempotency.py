"""`Idempotency-Key`: a call that is sent again is done once and answered as before, whatever was lost in between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from multidict import CIMultiDict
from starlette.routing import Route

from payments_service import idempotency, links, payments, refunds
from payments_service.app import internal_app, parts
from payments_service.errors import KeyBusy, Unavailable
from payments_service.idempotency import KEPT_FOR, LEASE, Call, Claim
from payments_service.internal.payments import recall_cancel
from payments_service.internal.routes import ROUTES
from payments_service.internal.schemas import CreateLink
from tests.house import TOKEN, Answer, House, World
from tests.scale import of, ways_to_break_off
from tests.servers import serve
from tests.stripe_shop import Shop, open_service
from tests.support import afresh, open_house
from tests.test_crash_points import MOST_STEPS, Crash, Steps, faulty, recover
from tests.test_payments import CLIENT, save

OTHER_TOKEN = "second-token-Hj4Nq8Wz6Tk3Vp9Rb5Xm2Lc7"
CREATE = "/payments/create-link"
STORMS = of(50, 6)
KEY = {"Idempotency-Key": "key-1"}


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres, service_tokens=f"backend:{TOKEN},reports:{OTHER_TOKEN}") as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    return house


async def create(house: House, body: object, headers: Any = KEY, **more: Any) -> Answer:
    return await house.call("POST", house.path(CREATE), body, headers=headers, **more)


def made(house: House) -> list[dict[str, Any]]:
    return house.world.rows("SELECT * FROM payments WHERE client_id = %s ORDER BY created_at", house.client_id)


def started(house: House) -> int:
    """How often the gateway was asked to begin."""
    return house.world.sandbox.calls["initiate"]


def same(first: Answer, again: Answer) -> bool:
    """The answer of before, byte for byte, and marked as such."""
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Content-Type"] == first.headers["Content-Type"]
    return (first.status, first.body) == (again.status, again.body)


# --- the same call


async def test_a_call_that_is_sent_again_is_answered_as_before(house: House) -> None:
    """Byte for byte, also when the payment has moved on: one payment, one call of the gateway, one event."""
    body = house.order()
    first = await create(house, body)
    assert first.status == 201, first.body
    await house.call("POST", house.path(f"/payments/{first.json['id']}/cancel"))
    for _ in range(3):
        assert same(first, await create(house, body))
    assert len(made(house)) == started(house) == 1
    told = house.world.rows("SELECT type FROM events WHERE client_id = %s ORDER BY sequence", house.client_id)
    assert [each["type"] for each in told] == ["payment.link_created", "payment.cancelled"]


async def test_without_a_key_each_call_counts(house: House) -> None:
    body = house.order()
    answers = [await create(house, body, headers={}) for _ in range(2)]
    assert answers[0].json["id"] != answers[1].json["id"]
    assert house.world.rows("SELECT 1 FROM idempotency_keys WHERE client_id = %s", house.client_id) == []


async def test_how_a_body_is_written_says_nothing(house: House) -> None:
    """The order of its fields and the blanks between them may differ."""
    body = house.order()
    first = await create(house, body)
    turned = msgspec.json.format(msgspec.json.encode(dict(reversed(body.items()))), indent=4)
    assert same(first, await create(house, turned))


CHANGED: dict[str, object] = {
    "gateway": None,
    "amount_cents": 1251,
    "currency": "ZIG",
    "reference": "INV-1002",
    "contact_id": str(uuid4()),
    "description": "Three bags of cement",
    "invoice_id": str(uuid4()),
    "contact_email": "b@example.com",
    "contact_phone": "+263771234568",
    "expires_in": 3601,
    "send": None,
    "reminders": True,
}
WHOLE = {
    "invoice_id": str(uuid4()),
    "contact_email": "a@example.com",
    "contact_phone": "+263771234567",
    "expires_in": 3600,
}


@pytest.mark.parametrize("field", CreateLink.__struct_fields__)
async def test_another_request_under_the_same_key_is_refused(house: House, field: str) -> None:
    """Whichever field differs: 422, nothing is made, and the first answer stands."""
    body = house.order(**WHOLE)
    first = await create(house, body)
    assert first.status == 201, first.body
    assert CHANGED[field] != body.get(field, "absent")
    answer = await create(house, {**body, field: CHANGED[field]})
    assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    if field in WHOLE or field == "description":
        answer = await create(house, {name: value for name, value in body.items() if name != field})
        assert (answer.status, answer.json["code"]) == (422, "idempotency_key_reused")
    assert len(made(house)) == started(house) == 1
    assert same(first, await create(house, body))


async def test_a_key_belongs_to_its_tenant_caller_and_operation(house: House) -> None:
    """The same text elsewhere is another key; within an operation it belongs to one payment."""
    body = house.order(gateway=None)
    ids = {(await create(house, body)).json["id"], (await create(house, body, token=OTHER_TOKEN)).json["id"]}
    stranger = afresh(house)
    await stranger.save_paynow()
    ids.add((await create(stranger, body)).json["id"])
    assert len(ids) == 3
    first, second = (each["id"] for each in made(house))
    withdrawn = await house.call("POST", house.path(f"/payments/{first}/cancel"), headers=KEY)
    assert (withdrawn.status, withdrawn.json["status"]) == (200, "cancelled")
    other = await house.call("POST", house.path(f"/payments/{second}/cancel"), headers=KEY)
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")


def test_every_call_that_changes_something_can_be_repeated() -> None:
    """All POSTs of the internal API take a key; what puts money on its way can be recalled."""
    posts = [route for route in ROUTES if isinstance(route, Route) and "POST" in (route.methods or ())]
    assert len(posts) > 9
    for route in posts:
        assert hasattr(route.endpoint, "__wrapped__"), route.path


async def test_every_kind_of_call_is_answered_as_before(house: House) -> None:
    """With and without a body, of a tenant and of none."""
    payment = (await create(house, house.order(), headers={})).json
    event = house.world.one("SELECT id FROM events WHERE client_id = %s", house.client_id)["id"]
    own = house.path(f"/payments/{payment['id']}")
    span = "from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z"
    for path, body, status in (
        (house.path("/payment-settings/verify"), {"gateway": "paynow"}, 200),
        (f"{own}/refresh", None, 200),
        (f"{own}/cancel", None, 200),
        (f"/v1/events/{event}/redeliver", None, 202),
        (f"/v1/events/redeliver?{span}", None, 202),
    ):
        key = {"Idempotency-Key": str(uuid4())}
        first = await house.call("POST", path, body, headers=key)
        assert first.status == status, (path, first.body)
        assert same(first, await house.call("POST", path, body, headers=key))
    assert house.world.one("SELECT replays FROM events WHERE id = %s", event)["replays"] == 1
    other = "from=2020-01-01T00:00:00Z&to=2020-01-03T00:00:00Z"
    answer = await house.call("POST", f"/v1/events/redeliver?{other}", None, headers=key)
    assert answer.json["code"] == "idempotency_key_reused"


# --- the key itself


@pytest.mark.parametrize("keys", [[""], ["x" * 256], ["ключ"], ["a\tb"], ["a", "b"], ["a", "a"]])
async def test_a_key_is_one_short_text(house: House, keys: list[str]) -> None:
    """Empty, too long, twice, or not printable: 422 names the header, and nothing is made."""
    headers = CIMultiDict([("Authorization", f"Bearer {TOKEN}"), *(("Idempotency-Key", key) for key in keys)])
    body = msgspec.json.encode(house.order())
    async with house.http.post(house.internal + house.path(CREATE), data=body, headers=headers) as given:
        answer = Answer(given.status, given.headers, await given.read())
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert made(house) == []


async def test_the_longest_key_is_taken(house: House) -> None:
    key, body = {"Idempotency-Key": "~" * 255}, house.order(gateway=None)
    assert same(await create(house, body, key), await create(house, body, key))


async def test_a_key_is_kept_for_31_days(house: House) -> None:
    """Until then it is answered as before; then it is a new one, and the worker removes what is older."""
    body = house.order(gateway=None, expires_in=60)
    first = await create(house, body)
    house.world.clock.forward(seconds=KEPT_FOR.total_seconds() - 60)
    assert same(first, await create(house, body))
    house.world.clock.forward(seconds=120)
    again = await create(house, {**body, "reference": "INV-2"})
    assert (again.status, "Idempotent-Replayed" in again.headers) == (201, False)
    assert same(again, await create(house, {**body, "reference": "INV-2"}))
    house.world.clock.forward(seconds=KEPT_FOR.total_seconds())
    await idempotency.forget_old(house.world.context)
    assert house.world.rows("SELECT 1 FROM idempotency_keys WHERE client_id = %s", house.client_id) == []


# --- what is kept of a call that failed


async def test_a_fault_is_not_kept(house: House) -> None:
    """What is refused before anything is on record can be mended under the same key, with another body too."""
    nobody = afresh(house)
    faults = [b"{", b"\xff", b"[]", {**house.order(), "amount_cents": 0}, {**house.order(), "gateway": "stripe"}]
    for body in faults:
        answer = await create(nobody, body)
        assert (answer.status, "Idempotent-Replayed" in answer.headers) == (422, False)
    await nobody.save_paynow()
    assert (await create(nobody, house.order())).status == 201
    missing = await house.call("POST", house.path(f"/payments/{uuid4()}/cancel"), headers=KEY)
    assert missing.status == 404
    payment = (await create(house, house.order(gateway=None))).json
    assert (await house.call("POST", house.path(f"/payments/{payment['id']}/cancel"), headers=KEY)).status == 200


async def test_a_refusal_is_kept(house: House) -> None:
    """The gateway said no to a payment that is on record: the same answer, and no second try."""
    await house.call("PATCH", house.path("/payment-settings"), {"paynow_integration_key": str(uuid4())})
    body = house.order()
    first = await create(house, body)
    assert first.json["code"] == "gateway_refused"
    await house.save_paynow()
    assert same(first, await create(house, body))
    assert len(made(house)) == 1


async def test_a_gateway_that_was_not_reached_is_tried_anew(house: House) -> None:
    """Nothing was started, so the same key may start it: that is what a caller who repeats a 503 wants."""
    body, gateways = house.order(), house.world.context.gateways
    working = gateways["paynow"]
    gateways["paynow"] = type(working)(house.world.courier.transport, "http://127.0.0.1:1")  # type: ignore[index, call-arg]
    try:
        assert (await create(house, body)).json["code"] == "gateway_unreachable"
    finally:
        gateways["paynow"] = working  # type: ignore[index]
    again = await create(house, body)
    assert (again.status, "Idempotent-Replayed" in again.headers) == (201, False)
    assert [each["status"] for each in made(house)] == ["failed", "pending"]
    assert same(again, await create(house, body))


async def test_a_lost_answer_is_never_kept_as_a_failure(house: House) -> None:
    """504 as long as nobody knows, without asking the gateway to begin again; then the link, and that is kept."""
    house.world.sandbox.add_fault("html", on=["initiate"], times=1)
    body = house.order()
    lost = await create(house, body)
    assert (lost.status, lost.json["code"]) == (504, "gateway_timeout")
    again = await create(house, body)
    assert (again.status, again.json["code"]) == (504, "gateway_timeout")
    assert again.json["payment_id"] == lost.json["payment_id"]
    house.world.clock.forward(seconds=6)
    await house.call("POST", house.path(f"/payments/{lost.json['payment_id']}/refresh"))
    found = await create(house, body)
    assert (found.status, found.json["id"], found.json["status"]) == (201, lost.json["payment_id"], "pending")
    repeated = await create(house, body)
    assert (repeated.status, repeated.body) == (201, found.body)
    assert len(made(house)) == started(house) == 1


async def test_what_never_began_begins_under_the_same_key(house: House) -> None:
    """The call was lost on its way: once the gateway surely does not know it, the key makes the link."""
    claim = await claimed(house, body := house.order())
    with suppress(Crash):
        await cut_off_before_the_gateway(house.world, house.client_id, body, claim)
    await idempotency.leave(house.world.context, house.client_id, claim)
    assert (await create(house, body)).status == 504
    await recover(house.world)
    answer = await create(house, body)
    assert (answer.status, answer.json["status"]) == (201, "pending")
    assert [each["status"] for each in made(house)] == ["failed", "pending"]
    assert started(house) == 1


@pytest.mark.parametrize("try_", ["failed", "starting"])
async def test_a_link_on_which_the_customer_tried_is_still_the_link(house: House, try_: str) -> None:
    """The answer was lost and not kept; by the time that the call is sent again, a first try to pay has come and gone,
    or its end is unknown."""
    body = house.order(gateway=None)
    first = await create(house, body)
    if try_ == "failed":
        await house.call("PATCH", house.path("/payment-settings"), {"paynow_integration_key": str(uuid4())})
    else:
        house.world.sandbox.add_fault("html", on=["initiate"], times=1)
    token = first.json["page_url"].rpartition("/")[2]
    await house.get_public(f"/pay/{token}", method="POST", data={"way": "paynow.web"})
    tried = house.world.one("SELECT state FROM attempts WHERE client_id = %s", house.client_id)
    assert tried["state"] == try_
    house.world.rows_do(
        "UPDATE idempotency_keys SET status = NULL, body = NULL, lease = now() - interval '1 day' WHERE client_id = %s",
        house.client_id,
    )
    again = await create(house, body)
    assert (again.status, again.json["id"]) == (201, first.json["id"])
    assert len(made(house)) == 1


@pytest.mark.parametrize("step", range(1, 6))
@pytest.mark.parametrize(("after", "dies"), list(itertools.product((False, True), repeat=2)))
async def test_a_link_is_cancelled_once_wherever_it_was_cut_off(
    house: House, step: int, after: bool, dies: bool
) -> None:
    """Sent again, the call is answered as it would have been, not by 409."""
    own = (await create(house, house.order())).json
    call = Call(house.client_id, "backend", "POST cancel", "key", b"digest")
    claim = await idempotency.claim(house.world.context, call)
    assert isinstance(claim, Claim)
    context, _ = faulty(house.world, Steps(at=step, after=after, dies=dies))
    cancelled = None
    with suppress(Crash, Unavailable):
        cancelled = await payments.cancel(context, house.client_id, UUID(own["id"]), actor="ann", claim=claim)
    if step == 5 and not dies:
        assert cancelled, "what is done is answered, also when the last look cannot be asked for"
        return
    house.world.clock.forward(minutes=2)
    left = await idempotency.claim(house.world.context, call)
    if isinstance(left, idempotency.Left):
        if answer := await recall_cancel(house.world.context, house.client_id, left.made):
            assert msgspec.json.decode(bytes(answer.body))["status"] == "cancelled"
            return
        left = await idempotency.take_over(house.world.context, house.client_id, left)
    assert isinstance(left, Claim)
    ended = await payments.cancel(house.world.context, house.client_id, UUID(own["id"]), actor="ann", claim=left)
    assert ended.status == "cancelled"


async def cut_off_before_the_gateway(world: World, client_id: UUID, body: dict[str, Any], claim: Claim) -> None:
    context, _ = faulty(world, Steps(at=4, after=False, dies=True))
    values = msgspec.convert(body, CreateLink).order(world.clock())
    await links.create_link(context, client_id, values, claim)


# --- at the same time


async def claimed(house: House, body: dict[str, Any], key: str = "key-1") -> Claim:
    """The key as a process holds it that is at work on this call."""
    digests: list[Call] = []
    real = idempotency.claim

    async def seen(_context: object, call: Call) -> Claim:
        digests.append(call)
        raise KeyBusy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idempotency, "claim", seen)
        assert (await create(house, body, {"Idempotency-Key": key})).status == 409
    found = await real(house.world.context, digests[0])
    assert isinstance(found, Claim)
    return found


async def test_while_the_first_is_at_work_the_second_waits(house: House) -> None:
    """409 with a time to come back; when the first was cut off, the lease ends and the second does it."""
    body = house.order()
    claim = await claimed(house, body)
    answer = await create(house, body)
    assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (409, "idempotency_in_progress", "1")
    assert (await create(house, {**body, "amount_cents": 9})).json["code"] == "idempotency_key_reused"
    house.world.clock.forward(seconds=LEASE.total_seconds() + 1)
    assert (await create(house, body)).status == 201
    stale = msgspec.convert(body, CreateLink).order(house.world.clock())
    for gateway in ("paynow", None):
        with pytest.raises(KeyBusy):
            await links.create_link(house.world.context, house.client_id, replace(stale, gateway=gateway), claim)
    assert len(made(house)) == started(house) == 1


async def test_of_many_at_once_over_two_replicas_one_is_done(house: House) -> None:
    """100 calls under each key, half of them at another replica: one payment and one call of the gateway per key; all
    that are not told to wait are told the same."""
    async with parts(house.world.settings, house.world.database) as built:
        context = built.context
        async with serve(internal_app(context, house.world.settings), lifespan="off") as url:
            twin = House(house.world, house.http, url, house.public, house.client_id)
            for number in range(STORMS):
                body, key = house.order(reference=f"S-{number}"), {"Idempotency-Key": f"storm-{number}"}
                answers = await asyncio.gather(*(create(which, body, key) for which in (house, twin) * 50))
                assert {each.status for each in answers} <= {201, 409}
                answers.append(await create(twin, body, key))
                assert len({each.body for each in answers if each.status == 201}) == 1
    assert len(made(house)) == started(house) == STORMS


# --- refunds


@pytest.fixture(scope="module")
async def stripe(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture
async def shop(stripe: House) -> Shop:
    return await Shop.open(stripe)


async def give_back(shop: Shop, payment: Any, cents: int = 250, **more: Any) -> Answer:
    body = {"reason": "one bag was torn", "amount_cents": cents}
    return await shop.house.call("POST", shop.refunds_path(payment), body, headers=KEY, **more)


async def test_a_refund_that_is_asked_for_again_is_given_once(shop: Shop) -> None:
    """However often, and at the same time; another sum under the key is refused."""
    payment = await shop.paid()
    answers = await asyncio.gather(*(give_back(shop, payment) for _ in range(20)))
    (body,) = {each.body for each in answers if each.status == 201}
    assert {each.status for each in answers} <= {201, 409}
    assert (await give_back(shop, payment)).body == body
    assert (await give_back(shop, payment, 251)).json["code"] == "idempotency_key_reused"
    assert (shop.given_back(payment), len(await shop.refunds(payment))) == (250, 1)


async def test_a_refund_whose_answer_was_lost_is_not_given_again(shop: Shop) -> None:
    """504 until a look-up has told; then what became of it, for good."""
    payment = await shop.paid()
    shop.stripe.drop_webhooks = True
    shop.stripe.add_fault("html", on=["refunds.create"], times=1)
    lost = await give_back(shop, payment)
    assert (lost.status, lost.json["code"]) == (504, "gateway_timeout")
    again = await give_back(shop, payment)
    assert (again.status, again.json["payment_id"]) == (504, payment["id"])
    shop.forward(seconds=40)
    await shop.look()
    found = await give_back(shop, payment)
    assert (found.status, found.json["status"]) == (201, "succeeded")
    assert (await give_back(shop, payment)).body == found.body
    assert shop.given_back(payment) == 250


async def test_a_refund_is_not_recorded_once_the_key_is_lost(shop: Shop) -> None:
    payment = await shop.paid()
    gone = Claim(0, shop.world.clock() - timedelta(minutes=5))
    wish = refunds.RefundWish("torn", 100)
    with pytest.raises(KeyBusy):
        await refunds.refund(shop.world.context, shop.client_id, UUID(payment["id"]), wish, actor="test", claim=gone)
    assert await shop.refunds(payment) == []
    assert shop.given_back(payment) == 0


# --- cut off


async def called(app: Any, path: str, body: bytes, key: str) -> int:
    """The HTTP status of a POST to an ASGI app in this very task: a crash comes through to here."""
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    headers = [(b"authorization", f"Bearer {TOKEN}".encode()), (b"idempotency-key", key.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b""}
    await app(
        {**scope, "headers": headers, "http_version": "1.1", "scheme": "http", "server": ("here", 80), "state": {}},
        receive,
        send,
    )
    return statuses[0]


@pytest.mark.parametrize("gateway", ["paynow", None])
async def test_whatever_step_is_cut_off_the_key_leads_to_one_link(world: World, gateway: str | None) -> None:
    """A crash or a lost answer before and after every statement and call: sent again, the call has one link in the end,
    and the gateway one transaction."""
    await save(world)
    world.sandbox.add_fault("never")
    numbers = itertools.count(1)
    path = f"/v1/clients/{CLIENT}{CREATE}"
    for way in ways_to_break_off():
        for at in range(1, MOST_STEPS):
            steps, reference = Steps.cut(at, way), f"INV-{next(numbers)}"
            body = {"gateway": gateway, "amount_cents": 1250, "currency": "USD", "contact_id": str(uuid4())}
            sent = msgspec.json.encode({**body, "reference": reference})
            context, _ = faulty(world, steps)
            with suppress(Crash):
                await called(internal_app(context, world.settings), path, sent, reference)
            await recover(world)
            assert await called(internal_app(world.context, world.settings), path, sent, reference) == 201, steps
            found = world.rows("SELECT status, sequence FROM payments WHERE reference = %s", reference)
            assert [each["status"] for each in found if each["status"] != "failed"] == ["pending"], (str(steps), found)
            asked = [one for one in world.sandbox.transactions if one.reference.startswith(f"{reference}-")]
            assert len(asked) <= 1, str(steps)
            if steps.passed:
                break
        else:
            pytest.fail("the call never passed through")
