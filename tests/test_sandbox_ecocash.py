"""The EcoCash simulator's wire, by the protocol page: addresses, secrets, requests, shapes, traps."""

from __future__ import annotations

import re
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, mp_reference
from tests import ecocash_world
from tests.ecocash_world import (
    CHARGE,
    DIALECTS,
    MSISDN,
    PAID,
    PENDING,
    ZIG,
    Reply,
    World,
    amount_of,
    charge_body,
    new_correlator,
    status_of,
)

stages, world = ecocash_world.stages, ecocash_world.world  # fixtures
UUID = "581af738-f459-4629-a72e-8388e0acdb5e"


def error_of(dialect: str, reply: Reply) -> str:
    """The error's code where the dialect has codes, else its HTTP status."""
    answer = reply.json
    assert reply.kind == "application/json"
    if dialect == EIP_PORTAL:
        assert list(answer) == ["statusCode", "statusMessage"]
        return str(answer["statusCode"])
    assert answer["status"] == reply.status
    assert answer["message"]
    return str(reply.status)


# --- the answers


async def test_open_api_answers_a_charge_with_nothing(world: World) -> None:
    """200 without a body: a prompt was sent, nothing else is known."""
    reply = await world.charge(OPEN_API, UUID)
    assert (reply.status, reply.raw) == (200, b"")
    assert world.sandbox.prompts[MSISDN] == 1


@pytest.mark.parametrize(
    ("answer", "kind", "raw"),
    [("text", "text/plain", b"OK"), ("json", "application/json", b'{"sourceReference":"%b"' % UUID.encode())],
)
async def test_open_api_may_answer_a_charge_otherwise(world: World, answer: str, kind: str, raw: bytes) -> None:
    world.sandbox.open_api_answer = answer
    reply = await world.charge(OPEN_API, UUID)
    assert (reply.status, reply.kind) == (200, kind)
    assert reply.raw.startswith(raw)


async def test_open_api_looks_up(world: World) -> None:
    """`amount` is an object; the time is Harare's."""
    charge = await world.charged(OPEN_API, sourceReference=UUID)
    pending = (await world.lookup(OPEN_API, UUID)).json
    assert (pending["status"], pending["ecocashReference"]) == ("PENDING_VALIDATION", None)
    await world.sandbox.approve(UUID)
    reply = await world.lookup(OPEN_API, UUID)
    assert reply.json == {
        "amount": {"amount": 12.5, "currency": "USD"},
        "customerMsisdn": MSISDN,
        "reference": UUID,
        "ecocashReference": charge.ecocash_reference,
        "status": "SUCCESS",
        "transactionDateTime": "2026-11-28 11:00:00",
    }
    assert b'"amount":12.50,' in reply.raw


async def test_eip_answers_a_charge(world: World) -> None:
    """Pending, with the PIN echoed, the customer's number cut, and no reference yet but one of the server's."""
    charge = await world.charged(EIP, clientCorrelator="1763385010123456")
    answer = (await world.charge(EIP, "1763385010123457")).json
    assert answer["clientCorrelator"] == "1763385010123457"
    assert answer["transactionOperationStatus"] == "PENDING SUBSCRIBER VALIDATION"
    assert answer["merchantPin"] == "4711"
    assert answer["endUserId"] == MSISDN[3:]
    assert answer["ecocashReference"] is None
    assert answer["serverReferenceCode"].startswith("TEST_")
    assert answer["paymentAmount"]["totalAmountCharged"] == 0
    assert answer["paymentAmount"]["charginginformation"]["amount"] == 12.5
    assert answer["id"] != charge.id


async def test_eip_looks_up(world: World) -> None:
    """Customer and merchant stand in each other's places, and the PIN is there again."""
    charge = await world.paid(EIP, amount=3)
    reply = await world.lookup(EIP, charge.correlator)
    answer = reply.json
    assert answer["transactionOperationStatus"] == "COMPLETED"
    assert answer["ecocashReference"] == answer["serverReferenceCode"] == charge.ecocash_reference
    assert (answer["endUserId"], answer["merchantNumber"]) == ("8003", MSISDN)
    assert answer["merchantCode"] not in ("8003", None)
    assert answer["merchantPin"] == "4711"
    assert b'"totalAmountCharged":3.0,' in reply.raw


async def test_eip_says_every_member_null_of_what_it_does_not_know(world: World) -> None:
    charge = await world.charged(EIP)
    for correlator, msisdn in (("12345678", MSISDN), (charge.correlator, "263770000000")):
        reply = await world.lookup(EIP, correlator, msisdn)
        assert reply.status == 200
        assert set(reply.json.values()) == {None}
        assert set(reply.json) == set((await world.lookup(EIP, charge.correlator)).json)


async def test_the_portal_says_successful_while_pending(world: World) -> None:
    """A charge and a look-up have one shape; only `status` tells, and a transactionId is there from the beginning."""
    reply = await world.charge(EIP_PORTAL, "charge0001", amount=2)
    charge = world.sandbox.find("charge0001")
    expected = {
        "transactionId": charge.ecocash_reference,
        "clientCorrelator": "charge0001",
        "status": "PENDING",
        "statusCode": "200",
        "statusMessage": "Transaction Successful",
        "amount": 2,
        "currency": "USD",
        "endUserId": MSISDN,
        "merchantCode": "030528",
        "timestamp": "2026-11-28T09:00:00Z",
    }
    assert reply.json == expected
    assert b'"amount":2,' in reply.raw
    await world.sandbox.approve("charge0001")
    assert (await world.lookup(EIP_PORTAL, "charge0001")).json == expected | {"status": "SUCCESS"}


async def test_the_portal_may_name_its_fields_otherwise(world: World) -> None:
    world.sandbox.portal_status, world.sandbox.portal_reference = "transactionStatus", "ecocashReference"
    answer = (await world.charge(EIP_PORTAL)).json
    assert answer["transactionStatus"] == "PENDING"
    assert answer["ecocashReference"].startswith("MP261128.1100.T")
    assert not {"status", "transactionId"} & set(answer)


async def test_references_are_unique_and_look_like_the_real_ones(world: World) -> None:
    references = {(await world.charged(dialect)).ecocash_reference for dialect in DIALECTS * 2}
    assert len(references) == 6
    assert all(re.fullmatch(r"MP261128\.1100\.T\d{7}", reference) for reference in references)
    assert mp_reference(0, 123_456_789) == "MP700101.0200.T3456789"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_zig_has_its_spelling_and_may_come_back_as_a_number(world: World, dialect: str) -> None:
    charge = await world.charged(dialect, currency=ZIG[dialect])
    assert amount_of(dialect, (await world.lookup(dialect, charge.correlator)).json) == (Decimal("12.5"), ZIG[dialect])
    assert charge.shown_amount == "ZIG 12.50"
    world.sandbox.numeric_currency = True
    assert amount_of(dialect, (await world.lookup(dialect, charge.correlator)).json)[1] == "924"


async def test_open_api_may_spell_zig_otherwise(world: World) -> None:
    world.sandbox.spellings[OPEN_API] = {"ZWG": "ZWG"}
    assert (await world.charge(OPEN_API, currency="ZWG")).status == 200
    assert (await world.charge(OPEN_API, currency="ZiG")).status == 400


# --- who may ask


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_nothing_is_told_without_the_right_secret(world: World, dialect: str) -> None:
    charge = await world.charged(dialect)
    merchant = world.merchant(dialect)
    wrong = {"X_API_KEY": "x"} if dialect == OPEN_API else {"Authorization": "Basic bm9ib2R5Om5vdGhpbmc="}
    none = dict.fromkeys(wrong, "")
    body = charge_body(merchant, new_correlator(dialect), world.shop.url)
    for secret in (wrong, none):
        for reply in (
            await world.lookup(dialect, charge.correlator, **secret),
            await world.send(merchant, "POST", CHARGE[dialect], body, **secret),
        ):
            assert reply.status == 401
            assert error_of(dialect, reply) == ("E006" if dialect == EIP_PORTAL else "401")
    assert len(world.sandbox.charges) == 1


@pytest.mark.parametrize("header", ["Basic ???", "Basic ww==", "Bearer x", "Basic"])
async def test_odd_credentials_are_wrong_ones(world: World, header: str) -> None:
    assert (await world.lookup(EIP, "12345678", Authorization=header)).status == 401


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_merchant_that_may_not_is_forbidden(world: World, dialect: str) -> None:
    world.merchant(dialect).active = False
    reply = await world.charge(dialect)
    assert (reply.status, error_of(dialect, reply)) == (403, "E007" if dialect == EIP_PORTAL else "403")


@pytest.mark.parametrize("dialect", [EIP, EIP_PORTAL])
@pytest.mark.parametrize("field", ["merchantCode", "merchantPin", "merchantNumber"])
async def test_the_body_must_prove_the_merchant_too(world: World, dialect: str, field: str) -> None:
    reply = await world.charge(dialect, **{field: "9999"})
    assert (reply.status, world.sandbox.charges) == (403, [])


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_merchant_sees_only_its_own(world: World, dialect: str) -> None:
    """Two merchants may use one correlator, and do not meet."""
    other = world.sandbox.add_merchant(dialect, name="Other")
    charge = await world.paid(dialect)
    unknown = await world.lookup(other, charge.correlator)
    assert charge.ecocash_reference not in unknown.raw.decode()
    assert unknown.status == (200 if dialect == EIP else 404)
    assert (await world.charge(other, charge.correlator)).status == 200
    assert status_of(dialect, (await world.lookup(other, charge.correlator)).json) == PENDING[dialect]
    assert status_of(dialect, (await world.lookup(dialect, charge.correlator)).json) == PAID[dialect]


async def test_sandbox_and_live_are_two_worlds(world: World) -> None:
    merchant = world.merchant(OPEN_API)
    path = CHARGE[OPEN_API].replace("sandbox", "live")
    assert (await world.send(merchant, "POST", path, charge_body(merchant, UUID, ""))).status == 200
    assert (await world.lookup(OPEN_API, UUID)).status == 404
    strange = path.replace("live", "test")
    assert (await world.send(merchant, "POST", strange, charge_body(merchant, UUID, ""))).status == 404


# --- what is refused

_FIELDS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    OPEN_API: [
        ("400", {"sourceReference": "INV-1"}),
        ("400", {"sourceReference": UUID.replace("-", "")}),
        ("400", {"sourceReference": None}),
        ("400", {"reason": None}),
        ("400", {"customerMsisdn": f"+{MSISDN}"}),
        ("400", {"customerMsisdn": "0771234567"}),
        ("400", {"amount": "12.50"}),
        ("400", {"amount": 0}),
        ("400", {"amount": 12.505}),
        ("400", {"amount": True}),
        ("400", {"currency": "EUR"}),
        ("400", {"currency": "usd"}),
    ],
    EIP: [
        ("400", {"clientCorrelator": "1234567"}),
        ("400", {"clientCorrelator": UUID}),
        ("400", {"endUserId": "771234567"}),
        ("400", {"amount": "12.50"}),
        ("400", {"amount": -1}),
        ("400", {"tranType": "REF"}),
        ("400", {"transactionOperationStatus": "CHARGED"}),
        ("400", {"notifyUrl": "shop.example/told"}),
        ("400", {"countryCode": "ZA"}),
        ("400", {"currencyCode": "ZWG"}),
        ("400", {"charginginformation": None}),
        ("400", {"chargeMetaData": None}),
        ("400", {"onBeHalfOf": None, "onBehalfOf": "x"}),
        ("400", {"terminalID": None, "terminalId": "x"}),
        ("400", {"notifyUrl": None, "notifyURL": "https://shop.example"}),
    ],
    EIP_PORTAL: [
        ("E001", {"clientCorrelator": "1234567"}),
        ("E001", {"referenceCode": None}),
        ("E002", {"endUserId": "26377123456"}),
        ("E003", {"currency": "ZiG"}),
        ("E003", {"currency": "840"}),
        ("E004", {"amount": "2"}),
        ("E004", {"amount": 0.001}),
    ],
}


@pytest.mark.parametrize(
    ("dialect", "code", "changes"),
    [(dialect, code, changes) for dialect, cases in _FIELDS.items() for code, changes in cases],
)
async def test_a_wrong_field_is_refused(world: World, dialect: str, code: str, changes: dict[str, Any]) -> None:
    """And nobody's phone prompts."""
    reply = await world.charge(dialect, **changes)
    assert (reply.status, error_of(dialect, reply)) == (400, code)
    assert not world.sandbox.prompts


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"amount": NaN}', b"\xff"])
async def test_what_is_no_json_object_is_refused(world: World, dialect: str, raw: bytes) -> None:
    reply = await world.send(world.merchant(dialect), "POST", CHARGE[dialect], raw=raw)
    assert (reply.status, error_of(dialect, reply)) == (400, "E001" if dialect == EIP_PORTAL else "400")


@pytest.mark.parametrize(("dialect", "status"), [(OPEN_API, 409), (EIP, 409), (EIP_PORTAL, 400)])
async def test_a_correlator_is_used_once(world: World, dialect: str, status: int) -> None:
    """Whatever the second request asks for."""
    charge = await world.charged(dialect)
    reply = await world.charge(dialect, charge.correlator, amount=99)
    assert (reply.status, error_of(dialect, reply)) == (status, "E005" if dialect == EIP_PORTAL else "409")
    assert world.sandbox.prompts[MSISDN] == 1
    assert amount_of(dialect, (await world.lookup(dialect, charge.correlator)).json)[0] == Decimal("12.5")


@pytest.mark.parametrize(("dialect", "status"), [(OPEN_API, 402), (EIP, 400), (EIP_PORTAL, 422)])
async def test_a_barred_number_is_refused(world: World, dialect: str, status: int) -> None:
    world.sandbox.barred.add(MSISDN)
    reply = await world.charge(dialect)
    assert (reply.status, error_of(dialect, reply)) == (status, "E011" if dialect == EIP_PORTAL else str(status))


async def test_an_unsupported_currency_gives_the_firewalls_page(world: World) -> None:
    """HTTP 200 and HTML, so that nothing can be told from it; here nothing was charged."""
    merchant = world.sandbox.add_merchant(EIP, currencies=["USD"])
    for currency in ("ZWG", "EUR"):
        reply = await world.charge(merchant, currency=currency)
        assert (reply.status, reply.kind) == (200, "text/html")
        assert b"Your support ID is: " in reply.raw
    assert world.sandbox.charges == []
    assert (await world.charge(merchant)).kind == "application/json"


@pytest.mark.parametrize(("dialect", "code"), [(OPEN_API, "400"), (EIP_PORTAL, "E003")])
async def test_the_others_say_that_they_do_not_have_the_currency(world: World, dialect: str, code: str) -> None:
    merchant = world.sandbox.add_merchant(dialect, currencies=["ZiG"])
    reply = await world.charge(merchant)
    assert (reply.status, error_of(dialect, reply)) == (400, code)
    assert (await world.charge(merchant, currency=ZIG[dialect])).status == 200


@pytest.mark.parametrize(
    ("dialect", "method", "path"),
    [
        (EIP, "POST", "/transactions/amount/"),
        (EIP, "POST", "/transactions/refund/"),
        (EIP_PORTAL, "POST", "/transactions/amount"),
        (EIP_PORTAL, "POST", "/transactions/refund"),
        (EIP_PORTAL, "GET", f"/{MSISDN}/transactions/amount/12345678/"),
        (EIP, "GET", "/transactions/amount"),
        (OPEN_API, "POST", "/api/v2/transaction/c2b/status/sandbox"),
        (OPEN_API, "POST", "/api/v2/payment/instant/c2b"),
        (OPEN_API, "GET", "/api/v1/transaction/c2b/status/sandbox"),
    ],
)
async def test_addresses_are_exact(world: World, dialect: str, method: str, path: str) -> None:
    """No slash is added or taken away, and nobody is redirected."""
    reply = await world.send(world.merchant(dialect), method, path, {})
    assert (reply.status, error_of(dialect, reply)) == (404, "E008" if dialect == EIP_PORTAL else "404")


# --- what a test can see


async def test_requests_are_counted_and_kept(world: World) -> None:
    charge = await world.charged(EIP)
    await world.lookup(EIP, charge.correlator, Authorization="")
    await world.refund(charge)
    assert world.sandbox.calls == {"charge": 1, "lookup": 1, "refund": 1}
    assert [(seen.operation, seen.merchant) for seen in world.sandbox.requests] == [
        ("charge", charge.merchant),
        ("lookup", None),
        ("refund", charge.merchant),
    ]
    assert msgspec.json.decode(world.sandbox.requests[0].body)["merchantPin"] == "4711"
    assert "4711" not in repr(world.sandbox.requests) + repr(world.sandbox.merchants)


async def test_every_answer_can_be_held_back(world: World) -> None:
    world.sandbox.delay_seconds = 0.03
    begun = time.perf_counter()
    await world.charge(EIP)
    await world.lookup(OPEN_API, UUID, X_API_KEY="x")
    assert time.perf_counter() - begun >= 0.06


async def test_ids_do_not_come_again_after_a_restart(world: World) -> None:
    charge = await world.charged(EIP)
    again = ecocash_world.build("")
    assert abs(again._next_id - charge.id) < 3_600_000


async def test_a_merchant_is_replaced_by_login(world: World) -> None:
    sandbox = world.sandbox
    sandbox.add_merchant(EIP, username="demo-books", password="new", code="1")
    assert [one.code for one in sandbox.merchants if one.dialect == EIP] == ["1"]
    with pytest.raises(ValueError, match="no dialect 'soap'"):
        sandbox.add_merchant("soap")
    assert sandbox.add_merchant(OPEN_API).api_key != sandbox.add_merchant(OPEN_API).api_key
