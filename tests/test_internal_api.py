"""The internal API over HTTP: who may call it, what each request is answered, how a look at the gateway is bounded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import pytest
from multidict import CIMultiDict
from starlette.routing import Route

from payments_service import reconcile
from payments_service.db import Database
from payments_service.gateways.paynow import Paynow
from payments_service.internal import auth
from payments_service.internal import payments as endpoints
from payments_service.internal.routes import ROUTES
from payments_service.internal.schemas import MONTH, WEEK
from payments_service.money import MAX_MINOR
from tests.conftest import in_database
from tests.house import TOKEN, Answer, House, eventually, settings_for
from tests.support import Log, afresh, open_house

SECOND_TOKEN = "second-token-Hj4Nq8Wz6Tk3Vp9Rb5Xm2Lc7"
UNKNOWN = uuid4()
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres, service_tokens=f"backend:{TOKEN},reports:{SECOND_TOKEN}") as house:
        yield house


@pytest.fixture
def house(service: House) -> House:
    return afresh(service)


def operations(client_id: UUID = UNKNOWN, payment_id: object = UNKNOWN) -> list[tuple[str, str]]:
    """Every route with every method, as (method, path)."""
    made = []
    for route in ROUTES:
        assert isinstance(route, Route)
        path = route.path.replace("{client_id:uuid}", str(client_id)).replace("{payment_id:uuid}", str(payment_id))
        path = path.replace("{refund_id:uuid}", str(UNKNOWN)).replace("{event_id:uuid}", str(UNKNOWN))
        assert "{" not in path
        made += [(method, path) for method in sorted(route.methods or ())]
    return made


def is_open(path: str) -> bool:
    return path in ("/livez", "/readyz", "/metrics", "/openapi.yaml", "/docs") or path.startswith("/docs/")


def problem(answer: Answer, status: int, code: str) -> dict[str, Any]:
    """The answer's problem details, which are whole and of this status and code."""
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json"), answer.body
    body = dict(answer.json)
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code)
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == answer.headers["X-Request-Id"]
    return body


async def create(house: House, **changes: object) -> Answer:
    return await house.call("POST", house.path("/payments/create-link"), house.order(**changes))


async def watch_again(house: House) -> None:
    """As if the last look at the gateway were long ago."""
    house.world.rows_do("UPDATE attempts SET last_checked_at = NULL WHERE client_id = %s", house.client_id)


# --- who may call

REFUSED: dict[str, list[str]] = {
    "none": [],
    "an empty one": [""],
    "only the scheme": ["Bearer"],
    "the scheme and a blank": ["Bearer "],
    "a wrong one": ["Bearer " + "x" * 40],
    "one letter short": [f"Bearer {TOKEN[:-1]}"],
    "one letter more": [f"Bearer {TOKEN}x"],
    "other letters": [f"Bearer {TOKEN.swapcase()}"],
    "without the scheme": [TOKEN],
    "another scheme": [f"Basic {TOKEN}"],
    "the scheme twice": [f"Bearer Bearer {TOKEN}"],
    "with its name": [f"Bearer backend:{TOKEN}"],
    "the name": ["Bearer backend"],
    "both tokens": [f"Bearer {TOKEN},{SECOND_TOKEN}"],
    "the digest": ["Bearer " + auth._digest(TOKEN.encode()).hex()],
    "two headers": [f"Bearer {TOKEN}", f"Bearer {TOKEN}"],
    "a right and a wrong one": [f"Bearer {TOKEN}", "Bearer x"],
    "a wrong and a right one": ["Bearer x", f"Bearer {TOKEN}"],
    "no ASCII": [f"Bearer {TOKEN[:-1]}ü"],
    "wide letters": ["Bearer " + "".join(chr(ord(letter) + 0xFEE0) for letter in TOKEN[:8])],
}


@pytest.mark.parametrize("what", REFUSED)
async def test_without_a_valid_token_nothing_is_answered(house: House, what: str) -> None:
    """Every route with every method: 401 and the scheme to use, before anything else is looked at, but for the paths
    that are open."""
    headers = CIMultiDict([("Authorization", value) for value in REFUSED[what]])
    assert {path for _, path in operations() if is_open(path)} == {*auth.OPEN, "/docs/rapidoc-min.js"}
    for method, path in operations():
        if is_open(path):
            continue
        for data in (None, b"{"):
            async with house.http.request(method, house.internal + path, headers=headers, data=data) as given:
                answer = Answer(given.status, given.headers, await given.read())
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            if method == "HEAD":
                assert (answer.status, answer.body) == (401, b"")
            else:
                problem(answer, 401, "unauthorized")


async def test_a_valid_token_opens_every_route(house: House) -> None:
    """The scheme in any case, with more blanks; each service by its own token, and the audit names it."""
    for value in (f"bearer {TOKEN}", f"BEARER   {TOKEN}", f"Bearer {SECOND_TOKEN}"):
        answer = await house.call("GET", house.path("/payment-settings"), token=None, headers={"Authorization": value})
        assert answer.status == 200, value
    await house.call("PATCH", house.path("/payment-settings"), {"display_name": "x"}, token=SECOND_TOKEN)
    row = house.world.one("SELECT actor FROM audit_logs WHERE client_id = %s", house.client_id)
    assert row["actor"] == "service:reports"


async def test_only_the_probes_and_the_description_are_open(house: House) -> None:
    """They answer without a token; whatever looks like them does not."""
    for method, path in operations():
        if is_open(path):
            assert (await house.call(method, path, token=None)).status == 200, path
    for path in (
        "/",
        "/metrics/",
        "/livez/",
        "/Livez",
        "/readyz/x",
        "/docsx",
        "/docs%2f",
        "/v1",
        "//livez",
        "/openapi.yaml/",
    ):
        # There is nothing below /docs/ that needs a token: it may be told that there is nothing.
        assert (await house.call("GET", path, token=None)).status == (404 if path == "/docs%2f" else 401), path
    tricky = house.path("/payment-settings")
    for path in (f"/docs/..{tricky}", f"/docs/%2e%2e{tricky}", f"/livez/..{tricky}", f"/docs//..//{tricky}"):
        target = aiohttp.client.URL(house.internal + path, encoded=True)
        async with house.http.get(target) as answer:
            assert answer.status in (401, 404), path


# --- addresses, methods, ids


async def test_unknown_addresses_and_methods_are_problems(house: House) -> None:
    """404 for what is not there, 405 with the methods that are; never a page of the framework's."""
    paths = [
        "/",
        "/v1",
        "/v1/clients",
        house.path("/"),
        house.path("/payments/x"),
        house.path("/payment-settings/"),
        "/docs/x",
    ]
    paths += [f"/v1/clients/{bad}/payment-settings" for bad in ("x", "1", "%00", "..", f"{uuid4()}0", "%F0%9F%92%A9")]
    for path in paths:
        problem(await house.call("GET", path), 404, "not_found")
    for method, path, allowed in (
        ("POST", house.path("/payment-settings"), "GET"),
        ("GET", house.path("/payments/create-link"), "POST"),
        ("DELETE", house.path(f"/payments/{uuid4()}"), "GET"),
        ("OPTIONS", house.path(f"/payments/{uuid4()}/cancel"), "POST"),
        ("TRACE", "/livez", "GET"),
        ("GET", house.path(), "DELETE"),
        ("POST", "/openapi.yaml", "GET"),
    ):
        answer = await house.call(method, path)
        problem(answer, 405, "method_not_allowed")
        assert allowed in answer.headers["Allow"].split(", ")


async def test_allow_names_every_method_of_the_address(house: House) -> None:
    """RFC 9110, section 10.2.1: what the address takes, also where two routes share it."""
    answer = await house.call("DELETE", house.path("/payment-settings"))
    assert {"GET", "PATCH"} <= set(answer.headers["Allow"].split(", "))


async def test_an_id_in_any_spelling_is_the_same_tenant(house: House) -> None:
    """A UUID in capitals or without its dashes names the same tenant and the same payment."""
    link = await house.create_link() if (await house.save_paynow()) else None
    assert link is not None
    for client_id in (str(house.client_id).upper(), house.client_id.hex):
        for payment_id in (link["id"].upper(), UUID(link["id"]).hex):
            answer = await house.call("GET", f"/v1/clients/{client_id}/payments/{payment_id}")
            assert answer.json["id"] == link["id"]


HOSTILE_IDS = (
    "short",
    "x" * 65,
    "has blank",
    "semi;colon-1",
    'quote"-12345',
    "ünicode-123",
    "a/b/c/d/e/f",
    "<script>1",
    "",
    "%0d%0aSet-Cookie",
)


async def test_every_answer_has_a_request_id(house: House, written_log: Any) -> None:
    """The caller's own if it is a plain one, else a new one; the same in the header, the problem and the log."""
    log = Log(written_log)
    for path, token in (
        (house.path("/payment-settings"), TOKEN),
        ("/livez", None),
        ("/nowhere", None),
        ("/nowhere", TOKEN),
    ):
        for given in ("backend-7f3a.1_X", "12345678", "x" * 64):
            answer = await house.call("GET", path, token=token, headers={"X-Request-Id": given})
            assert answer.headers.getall("X-Request-Id") == [given]
            if answer.status >= 400:
                assert answer.json["request_id"] == given
        made = set()
        for given in HOSTILE_IDS:
            answer = await house.call("GET", path, token=token, headers={"X-Request-Id": given})
            (named,) = answer.headers.getall("X-Request-Id")
            assert REQUEST_ID.fullmatch(named)
            assert named != given
            if answer.status >= 400:
                assert answer.json["request_id"] == named
            made.add(named)
        assert len(made) == len(HOSTILE_IDS)
        assert len([line for line in log.of("request") if line["request_id"] in made]) == len(made)
    assert "Set-Cookie" not in log.text


# --- other tenants


async def test_a_foreign_payment_is_answered_like_an_unknown_one(house: House) -> None:
    """Byte for byte but for the request's id, on every operation, and nothing happens to the payment."""
    await house.save_paynow()
    link = await house.create_link()
    stranger = replace(house, client_id=uuid4())
    before = house.world.one("SELECT * FROM attempts WHERE payment_id = %s", link["id"])
    calls = house.world.sandbox.calls.copy()
    given = {"X-Request-Id": "the-same-id"}
    every = operations(stranger.client_id, "PAYMENT")
    of_payments = [(method, path) for method, path in every if "PAYMENT" in path and method != "HEAD"]
    assert len(of_payments) >= 4
    bodies = {
        "resolve": {"resolution": "failed", "note": "not on the statement"},
        "send": {"channel": "whatsapp", "to": "077 123 4567"},
        "refunds": {"reason": "torn"},
    }
    for method, path in of_payments:
        body = bodies.get(path.rsplit("/", 1)[1])
        answers = [
            await house.call(method, path.replace("PAYMENT", str(payment_id)), body, headers=given)
            for payment_id in (link["id"], uuid4(), UUID(int=0))
        ]
        assert {answer.status for answer in answers} == {404}
        assert len({answer.body for answer in answers}) == 1
        kept = [{name: value for name, value in answer.headers.items() if name.lower() != "date"} for answer in answers]
        assert kept[0] == kept[1] == kept[2]
    assert house.world.one("SELECT * FROM attempts WHERE payment_id = %s", link["id"]) == before
    assert house.world.sandbox.calls == calls
    assert house.world.one("SELECT status FROM payments WHERE id = %s", link["id"])["status"] == "pending"


# --- create-link: what is taken

MISSING = object()
TAKEN: list[tuple[str, object]] = [
    *[("amount_cents", value) for value in (1, 2, 99, 100, MAX_MINOR)],
    *[("currency", value) for value in ("USD", "ZIG", "ZWG")],
    *[("reference", value) for value in ("x", "x" * 100, "INV 1/2026 #7", "счёт-№1", "  padded  ", "🧾", "a\u200db")],
    *[("description", value) for value in (None, "", " ", "x" * 500, "two\nlines\r\n\tand a tab", MISSING)],
    *[("contact_id", value) for value in (str(UUID(int=0)), uuid4().hex, str(uuid4()).upper())],
    *[("invoice_id", value) for value in (None, str(uuid4()), MISSING)],
    *[("contact_email", value) for value in (
        None, "a@b.co", "x" * 242 + "@example.com", "o'brien+x@sub.example.com", "a@b.co\n"
    )],
    *[("contact_phone", value) for value in (None, "0771234567", "+263 (77) 123-45.67", "077123\n")],
    *[("expires_in", value) for value in (None, 60, WEEK, MONTH, MISSING)],
    ("send", None),
    ("gateway", None),
]  # fmt: skip
NOT_TAKEN: list[tuple[str, object]] = [
    *[("amount_cents", value) for value in (
        0, -1, MAX_MINOR + 1, 2**31 * 1000, 2**63, 2**64, 10**30, 1.0, 12.5, 1e3, "100", "", True, False, None, [1], {},
        MISSING,
    )],
    *[("currency", value) for value in ("usd", "ZWL", "EUR", "", " USD", "US", 840, None, MISSING, ["USD"])],
    *[("gateway", value) for value in ("Paynow", "paypal", "", 1, False, ["paynow"], MISSING)],
    *[("reference", value) for value in (
        "", " ", "\u00a0", "\u2003\u3000", "x" * 101, "a\nb", "a\x00b", "\x1b[0m", "a\x7f", 7, None, ["x"], MISSING
    )],
    *[("description", value) for value in ("x" * 501, "nul\x00", "esc\x1b[31m", "\x0b", "\x7f", 7, ["x"], {})],
    *[("contact_id", value) for value in ("", "x", f"{uuid4()}x", 7, None, MISSING, str(uuid4())[1:], "{x}")],
    *[("invoice_id", value) for value in ("", "INV-1", 7, [])],
    *[("contact_email", value) for value in (
        "", "a", "a@b", "@b.co", "a@.", "a b@c.co", "a@b@c.co", "a\n@b.co", "x" * 255 + "@b.co", "a@b.co\nC: x@y.z", 7,
        "a\x85@b.co", "a@\ufeffb.co",
    )],
    *[("contact_phone", value) for value in (
        "", "077", "abc", "+", "++263771234567", "٠٧٧١٢٣٤٥٦٧", "0771234567;ext=1", "1" * 33, 771234567,
    )],
    *[("expires_in", value) for value in (0, 59, -60, MONTH + 1, 2**63, 60.0, "3600", True, [])],
    *[("send", value) for value in ("sms", "", True, 1)],
    # A reminder of what is not sent.
    *[("reminders", value) for value in (True, None, 1, "true")],
    *[(name, str(uuid4())) for name in ("status", "id", "client_id", "page_token", "Amount_cents", "")],
]  # fmt: skip


def ordered(house: House, field: str, value: object) -> dict[str, Any]:
    body = {**house.order(gateway=None), field: value}
    if value is MISSING:
        del body[field]
    return body


async def test_what_may_be_ordered_is_taken_and_shown(service: House) -> None:
    """Every field at its bounds: 201, and the answer shows it; ZWG is ZIG, blanks around are gone."""
    house = afresh(service)
    for currency, number in (("", "1201"), ("_zig", "1202")):
        key = house.world.sandbox.integrations[number].key
        fields = {f"paynow{currency}_integration_id": number, f"paynow{currency}_integration_key": key}
        assert (await house.call("PATCH", house.path("/payment-settings"), fields)).status == 200
    for field, value in TAKEN:
        answer = await house.call("POST", house.path("/payments/create-link"), ordered(house, field, value))
        assert answer.status == 201, (field, value, answer.body)
        payment = answer.json
        if field in ("amount_cents", "invoice_id", "gateway") and value is not MISSING:
            assert payment[field] == value
        if field == "currency":
            assert payment["currency"] == {"ZWG": "ZIG"}.get(str(value), value)
        if field in ("reference", "description"):
            expected = value.strip() if isinstance(value, str) else None
            assert payment[field] == (expected or None)
        if field == "contact_id":
            assert payment["contact_id"] == str(UUID(str(value)))
        if field in ("contact_email", "contact_phone"):
            row = house.world.one(f"SELECT {field} AS it FROM payments WHERE id = %s", payment["id"])
            assert row["it"] == (value.strip() if isinstance(value, str) else None)
        if field == "expires_in":
            seconds = value if isinstance(value, int) else WEEK
            row = house.world.one("SELECT expires_at - created_at AS life FROM payments WHERE id = %s", payment["id"])
            assert round(row["life"].total_seconds()) == seconds
        assert {**payment, "messages": []} == await house.payment(payment)


async def test_what_may_not_be_ordered_is_refused_by_its_name(service: House) -> None:
    """Every field beyond its bounds or of another type: 422 names that field and no other, and nothing is recorded."""
    house = afresh(service)
    await house.save_paynow()
    for field, value in NOT_TAKEN:
        answer = await house.call("POST", house.path("/payments/create-link"), ordered(house, field, value))
        assert answer.status == 422, (field, value, answer.body)
        body = problem(answer, 422, "validation_failed")
        assert [fault["field"] for fault in body["errors"]] == [field], (field, value)
        assert body["errors"][0]["message"]
    assert house.world.rows("SELECT FROM payments WHERE client_id = %s", house.client_id) == []


async def test_all_faults_of_an_order_are_told_at_once(house: House) -> None:
    """Unknown, missing and wrong fields in one answer, sorted by name."""
    answer = await house.call(
        "POST", house.path("/payments/create-link"), {"amount_cents": 0, "x": 1, "reference": " "}
    )
    fields = [fault["field"] for fault in problem(answer, 422, "validation_failed")["errors"]]
    assert fields == sorted({"amount_cents", "x", "reference", "gateway", "currency", "contact_id"})


async def test_a_body_is_bounded(house: House) -> None:
    """64 kB are read, one byte more is 413, announced or chunked, whatever the bytes are."""
    path = house.path("/payments/create-link")
    assert (await house.call("POST", path, b" " * 65_536)).status == 422
    problem(await house.call("POST", path, b" " * 65_537), 413, "body_too_large")
    problem(await house.call("PATCH", house.path("/payment-settings"), b"{" * 1_000_000), 413, "body_too_large")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(80):
            yield b"x" * 1_024

    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with house.http.post(house.internal + path, data=chunks(), headers=headers) as answer:
        assert answer.status == 413
    assert (await house.call("GET", "/livez")).status == 200


# --- create-link: what the gateway says


async def test_without_credentials_the_gateway_is_not_configured(house: House) -> None:
    """422 in words that name the fields to save; no payment is recorded, none is named."""
    for changes in ({}, {"gateway": "stripe"}, {"gateway": None}):
        body = problem(await create(house, **changes), 422, "gateway_not_configured")
        assert "payment_id" not in body
    await house.save_paynow()
    body = problem(await create(house, currency="ZIG"), 422, "gateway_not_configured")
    assert "paynow_zig_integration_key" in body["detail"]
    assert house.world.rows("SELECT FROM payments WHERE client_id = %s", house.client_id) == []


async def test_a_refusal_is_told_with_the_payment_that_failed_of_it(house: House) -> None:
    """422 with Paynow's words explained; the payment is on record as failed, and no secret is told."""
    wrong = str(uuid4())
    fields = {"paynow_integration_id": "1201", "paynow_integration_key": wrong}
    await house.call("PATCH", house.path("/payment-settings"), fields)
    answer = await create(house)
    body = problem(answer, 422, "gateway_refused")
    assert "copy ID and key once more" in body["detail"]
    assert wrong not in answer.body.decode()
    assert (await house.payment({"client_id": house.client_id, "id": body["payment_id"]}))["status"] == "failed"


async def test_a_gateway_that_is_not_reached_fails_the_payment(house: House) -> None:
    """503 with a time to come back; nothing was started, so the payment is over."""
    await house.save_paynow()
    gateways: Any = house.world.context.gateways
    working = gateways["paynow"]
    gateways["paynow"] = Paynow(house.world.courier.transport, "http://127.0.0.1:1")
    try:
        answer = await create(house)
    finally:
        gateways["paynow"] = working
    body = problem(answer, 503, "gateway_unreachable")
    assert int(answer.headers["Retry-After"]) > 0
    assert (await house.payment({"client_id": house.client_id, "id": body["payment_id"]}))["status"] == "failed"


@pytest.mark.parametrize("fault", ["html", "empty", "wrong_hash"])
async def test_a_lost_answer_leaves_the_payment_pending_until_it_is_settled(house: House, fault: str) -> None:
    """504 names the payment: it is pending with no step told yet; a look-up finds it, then it is like any other."""
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    house.world.sandbox.add_fault(fault, on=["initiate"], times=1)
    body = problem(await create(house), 504, "gateway_timeout")
    known = {"client_id": house.client_id, "id": body["payment_id"]}
    payment = await house.payment(known)
    assert (payment["status"], payment["sequence"]) == ("pending", 0)
    house.world.clock.forward(seconds=6)
    settled = await house.call("POST", house.path(f"/payments/{known['id']}/refresh"))
    assert (settled.json["status"], settled.json["sequence"]) == ("pending", 1)
    await house.world.sandbox.pay(house.reference_of(known))
    await watch_again(house)
    assert (await house.payment(known))["status"] == "paid"


# --- looking at a pending payment


async def test_a_look_finds_what_no_callback_told(house: House) -> None:
    """GET and refresh ask the gateway about a pending payment; one that is settled is not asked about."""
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    seen, refreshed = await house.create_link(), await house.create_link()
    for link in (seen, refreshed):
        await house.world.sandbox.pay(house.reference_of(link))
    assert (await house.payment(seen))["status"] == "paid"
    answer = await house.call("POST", house.path(f"/payments/{refreshed['id']}/refresh"))
    assert (answer.status, answer.json["status"]) == (200, "paid")
    polls = house.world.sandbox.calls["poll"]
    assert polls == 2
    for _ in range(3):
        await house.payment(seen)
    assert house.world.sandbox.calls["poll"] == polls


async def test_who_looks_all_the_time_does_not_make_us_ask_all_the_time(house: House) -> None:
    """Within LOOK_GAP the gateway is asked once, however often somebody looks."""
    await house.save_paynow()
    link = await house.create_link()
    for _ in range(10):
        assert (await house.payment(link))["status"] == "pending"
    await house.call("POST", house.path(f"/payments/{link['id']}/refresh"))
    assert house.world.sandbox.calls["poll"] == 1


async def test_many_lookers_at_once_cause_few_questions(house: House) -> None:
    """Fifty at the same moment, while the gateway takes its time: one question answers them all, or nearly."""
    await house.save_paynow()
    link = await house.create_link()
    house.world.sandbox.delay_seconds = 0.3
    answers = await asyncio.gather(*(house.payment(link) for _ in range(50)))
    assert {answer["status"] for answer in answers} == {"pending"}
    assert house.world.sandbox.calls["poll"] <= 3


async def test_a_slow_gateway_does_not_keep_the_reader(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the patience the old state is answered; the look-up goes on and its outcome is recorded all the same."""
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    link = await house.create_link()
    await house.world.sandbox.pay(house.reference_of(link))
    house.world.sandbox.delay_seconds = 0.5
    monkeypatch.setattr(endpoints, "READ_PATIENCE", 0.05)
    assert (await house.payment(link))["status"] == "pending"
    await eventually(lambda: house.world.rows("SELECT FROM payments WHERE id = %s AND status = 'paid'", link["id"]))


async def test_a_gateway_that_never_answers_concludes_nothing(
    house: House, monkeypatch: pytest.MonkeyPatch, written_log: Any
) -> None:
    """The reader gets the old state; the look-up ends at its own deadline, warns, and the attempt stays due."""
    await house.save_paynow()
    link = await house.create_link()
    house.world.sandbox.add_fault("timeout_after_accepting", on=["poll"])
    monkeypatch.setattr(endpoints, "READ_PATIENCE", 0.05)
    monkeypatch.setattr(Paynow, "check_seconds", 0.3)
    log = Log(written_log)
    assert (await house.payment(link))["status"] == "pending"
    (warning,) = await eventually(lambda: log.of("look_up_without_answer"))
    assert (warning["level"], warning["error"]) == ("warning", "Ambiguous")
    await eventually(lambda: attempt_of(house, link)["last_checked_at"])
    assert attempt_of(house, link)["next_check_at"] is not None
    assert attempt_of(house, link)["state"] == "live"


def attempt_of(house: House, payment: Any) -> dict[str, Any]:
    return house.world.one("SELECT * FROM attempts WHERE payment_id = %s", payment["id"])


# --- cancelling


async def test_cancel_withdraws_a_pending_payment_once(house: House) -> None:
    """200 and cancelled, with the actor in the history; a second time, and for what is paid, 409 and no change."""
    await house.save_paynow()
    link = await house.create_link()
    cancel = house.path(f"/payments/{link['id']}/cancel")
    answer = await house.call("POST", cancel, headers={"X-Actor": "rudo@acme.example"})
    assert (answer.status, answer.json["status"], answer.json["sequence"]) == (200, "cancelled", 2)
    body = problem(await house.call("POST", cancel), 409, "wrong_state")
    assert "cancelled" in body["detail"]
    history = (await house.call("GET", house.path(f"/payments/{link['id']}/history"))).json["data"]
    assert [(step["from_status"], step["to_status"], step["cause"], step["actor"]) for step in history] == [
        (None, "pending", "link", None),
        ("pending", "cancelled", "tenant", "rudo@acme.example"),
    ]
    answers = await asyncio.gather(*(house.call("POST", cancel) for _ in range(10)))
    assert {answer.status for answer in answers} == {409}


async def test_ten_cancels_at_once_count_once(house: House) -> None:
    """One wins, nine are told 409; one transition, one event."""
    await house.save_paynow()
    link = await house.create_link(gateway=None)
    cancel = house.path(f"/payments/{link['id']}/cancel")
    answers = await asyncio.gather(*(house.call("POST", cancel) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    told = house.world.rows("SELECT FROM events WHERE payment_id = %s AND type = 'payment.cancelled'", link["id"])
    assert len(told) == 1


async def test_what_was_just_paid_is_not_cancelled(house: House) -> None:
    """The customer has paid and the callback is lost: the cancel asks first, answers 409, and the payment is paid."""
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    link = await house.create_link()
    await house.world.sandbox.pay(house.reference_of(link))
    answer = await house.call("POST", house.path(f"/payments/{link['id']}/cancel"))
    assert "paid" in problem(answer, 409, "wrong_state")["detail"]
    payment = await house.payment(link)
    assert (payment["status"], payment["late"]) == ("paid", False)


async def test_money_that_comes_after_a_cancel_is_late(house: House) -> None:
    """Cancelled for the backend, but the customer was on the gateway's page: found later, paid and late."""
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    link = await house.create_link()
    assert (await house.call("POST", house.path(f"/payments/{link['id']}/cancel"))).status == 200
    await house.world.sandbox.pay(house.reference_of(link))
    house.world.clock.forward(seconds=30)
    assert await reconcile.look_now(house.world.context, UUID(link["id"]))
    payment = await house.payment(link)
    assert (payment["status"], payment["late"], payment["sequence"]) == ("paid", True, 3)


# --- probes


async def test_livez_needs_no_database_and_readyz_names_what_is_missing(service: House, empty_database: str) -> None:
    """Without migrations: 503 says so. Without a database: 503, and the process still lives. Then ready again."""
    for url, words in ((empty_database, "migrations"), (in_database(empty_database, "nowhere"), "database")):
        db = Database(url, size=1, wait_seconds=0.3)
        await db.open()
        try:
            context = replace(service.world.context, db=db)
            async with House.open(replace(service.world, context=context), work=False) as house:
                answer = await house.call("GET", "/readyz")
                assert answer.status == 503
                assert answer.json["status"] == "unready"
                assert [fault.split(":")[0] for fault in answer.json["missing"]] == [words]
                assert (await house.call("GET", "/livez")).status == 200
                assert (await house.get_public("/livez")).status == 200
                assert (await house.get_public("/readyz")).status == 503
                if words == "database":
                    answer = await house.call("GET", house.path("/payment-settings"))
                    problem(answer, 503, "unavailable")
                    assert int(answer.headers["Retry-After"]) > 0
        finally:
            await db.close()
    assert (await service.call("GET", "/readyz")).json == {"status": "ok"}


def test_tokens_are_kept_as_digests() -> None:
    """What stands in memory cannot be sent as a token."""
    tokens = auth.ServiceTokens(settings_for(service_tokens=f"backend:{TOKEN}").service_tokens)
    assert TOKEN not in str(vars(tokens))
    assert tokens.caller(f"Bearer {TOKEN}".encode()) == "backend"
    assert tokens.caller(b"") is None
