"""EcoCash's adapter: what it says of itself, a tenant's credentials, and charges, against a server that lies."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import nullcontext
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from payments_service import attempts
from payments_service.accounts import COLUMNS, SECRETS
from payments_service.errors import Ambiguous, Because, NotConfigured, Refused, Unreachable, Untrusted
from payments_service.gateways import registry
from payments_service.gateways.base import ApproveOnPhone, CallsBack, Refunds, TracesRefunds
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.ecocash_credentials import EipCredentials, OpenApiCredentials, credentials_of
from payments_service.gateways.transport import Transport
from payments_service.money import MAX_MINOR, Currency, Money
from tests.gateways import ecocash_stage
from tests.gateways.ecocash_stage import (
    API_KEY,
    ATTEMPT,
    DIALECTS,
    EIPS,
    HOOK,
    MSISDN,
    PASSWORD,
    PENDING,
    PHONE,
    PIN,
    REFERENCE,
    VALUES,
    Hasty,
    Liar,
    adapter,
    body_of,
    correlator,
    credentials,
    opened,
    request,
    transaction,
    without_secrets,
    words,
)
from tests.gateways.ecocash_stage import SECRETS as PLANTED
from tests.house import settings_for
from tests.servers import Stage, listen

stage, transport = ecocash_stage.stage, ecocash_stage.transport  # fixtures
ecocash, liar = ecocash_stage.ecocash, ecocash_stage.liar


# --- what it says of itself


async def test_it_is_the_first_of_the_registry_over_the_settings(transport: Transport) -> None:
    """Where Paynow leads to the same wallet, this is offered; both call the wallet the same."""
    gateways = registry.build(transport, settings_for(ecocash_mode="sandbox", ecocash_zig_code="ZWG"))
    assert next(iter(gateways)) == "ecocash"
    (method,) = gateways["ecocash"].methods
    assert method.name in [each.name for each in gateways["paynow"].methods]
    assert method.needs_phone
    assert method.step is ApproveOnPhone
    assert isinstance(gateways["ecocash"], CallsBack)
    assert isinstance(gateways["ecocash"], Refunds)
    assert isinstance(gateways["ecocash"], TracesRefunds)
    assert gateways["ecocash"].page_origins() == ()


def test_its_fields_can_be_saved_and_make_it_configured() -> None:
    assert {*Ecocash.settings, *Ecocash.preferences} <= set(COLUMNS)
    assert {"ecocash_api_key", "ecocash_password", "ecocash_merchant_pin"} <= SECRETS
    for needed in Ecocash.configured_by["ecocash_configured"]:
        assert credentials_of(dict.fromkeys(needed, "x"), Currency.USD)


def test_it_asks_as_the_protocol_notes_say() -> None:
    """First after 3 s, every 3 to 5 s for 90 s, then 20 s, 60 s, ever more seldom; a start is over before it counts as
    lost."""
    schedule = Ecocash.schedule
    assert schedule[0] == 3
    assert list(schedule) == sorted(schedule)
    assert 85 <= sum(delay for delay in schedule if delay <= 5) <= 95
    assert 580 <= sum(delay for delay in schedule if delay <= 20) <= 620
    assert schedule[-1] == 43200
    assert Ecocash.start_seconds < attempts.START_GRACE.total_seconds()


# --- credentials


def test_the_dialect_is_what_is_named_or_what_the_credentials_belong_to() -> None:
    for dialect in DIALECTS:
        found = credentials(dialect)
        assert isinstance(found, OpenApiCredentials if dialect == "open_api" else EipCredentials)
        assert getattr(found, "portal", False) is (dialect == "eip_portal")
    assert isinstance(credentials("open_api", ecocash_dialect=None), OpenApiCredentials)
    unnamed = credentials("eip_portal", ecocash_dialect=None)
    assert isinstance(unnamed, EipCredentials)
    assert not unnamed.portal, "the portal's is only taken by its name"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_missing_is_named_in_plain_words(dialect: str) -> None:
    needed = ("ecocash_api_key",) if dialect == "open_api" else Ecocash.configured_by["ecocash_configured"][1]
    for missing in needed:
        for nothing_there in (None, ""):
            with pytest.raises(NotConfigured, match=missing) as raised:
                credentials(dialect, **{missing: nothing_there})
            assert "EcoCash" in raised.value.detail
            assert not any(secret in raised.value.detail for secret in PLANTED)
    assert credentials(dialect, ecocash_merchant_number=None)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({}, ["ecocash_api_key", "ecocash_username"]),
        ({"ecocash_username": "acme", "ecocash_password": PASSWORD}, ["ecocash_merchant_pin", "ecocash_merchant_code"]),
        ({**VALUES["eip"], "ecocash_dialect": "soap"}, ["ecocash_dialect"]),
        ({**VALUES["open_api"], "ecocash_api_key": "key\r\nX: y"}, ["ecocash_api_key"]),
        ({**VALUES["open_api"], "ecocash_api_key": "k\u00e9y"}, ["ecocash_api_key"]),
        ({**VALUES["eip"], "ecocash_username": "ac:me"}, ["ecocash_username"]),
    ],
)
def test_credentials_that_cannot_be_right_are_told(values: Mapping[str, str], named: list[str]) -> None:
    """None at all, half of them, what no header can carry."""
    with pytest.raises(NotConfigured) as raised:
        credentials_of(values, Currency.USD)
    assert all(field in raised.value.detail for field in named)
    assert not any(secret in raised.value.detail for secret in PLANTED)


@pytest.mark.parametrize(
    ("chosen", "taken"),
    [
        (None, {"USD", "ZIG"}), ("", {"USD", "ZIG"}), ("USD", {"USD"}), ("ZIG", {"ZIG"}), ("ZWG", {"ZIG"}),
        ("ZIG, USD", {"USD", "ZIG"}), (" zwg ,usd", {"USD", "ZIG"}),
    ],
)  # fmt: skip
async def test_the_merchants_currencies_narrow_what_is_offered(
    ecocash: Ecocash, chosen: str | None, taken: set[str]
) -> None:
    """And nothing else: what was begun in another currency before is looked up and given back as ever."""
    for currency in Currency:
        known = credentials("eip", currency, ecocash_currencies=chosen)
        assert known.currency is currency
        assert bool(ecocash.offered(known, None, Money(1250, currency))) is (currency.value in taken)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_neither_credentials_nor_calls_print_a_secret(dialect: str) -> None:
    kept = credentials(dialect)
    speech = words(dialect)
    texts = [repr(kept), str([kept]), repr(speech)]
    texts += [repr(speech.charge(request(), MSISDN)), repr(speech.look_up("x", MSISDN))]
    for secret in (*PLANTED, base64.b64encode(f"acme:{PASSWORD}".encode()).decode(), MSISDN):
        assert not any(secret in text for text in texts)


# --- a charge as it travels


async def test_a_charge_of_open_api(ecocash: Ecocash, liar: Liar) -> None:
    """The wire's names, a UUID, a number, the key in its header; nothing else."""
    await ecocash.start(credentials("open_api"), request())
    (asked,) = liar.asked
    assert (asked.method, asked.path) == ("POST", "/open/api/v2/payment/instant/c2b/live")
    assert asked.headers["x-api-key"] == API_KEY
    assert asked.headers["content-type"] == "application/json"
    assert asked.fields == {
        "customerMsisdn": "263774222475",
        "amount": 12.5,
        "reason": "Two bags of cement",
        "currency": "USD",
        "sourceReference": str(ATTEMPT),
    }
    assert b'"amount":12.50,' in asked.body


async def test_the_mode_and_how_zig_is_spelt_are_settings(transport: Transport, liar: Liar) -> None:
    own = adapter(transport, liar.url, mode="sandbox", zig_code="ZWG")
    await own.start(credentials("open_api", Currency.ZIG), request(amount=Money(1, Currency.ZIG)))
    assert liar.asked[0].path.endswith("/c2b/sandbox")
    assert (liar.asked[0].fields["currency"], liar.asked[0].fields["amount"]) == ("ZWG", 0.01)
    usual = adapter(transport, liar.url)
    await usual.start(credentials("open_api", Currency.ZIG), request(amount=Money(1, Currency.ZIG)))
    assert liar.asked[1].fields["currency"] == "ZiG"


@pytest.mark.parametrize("dialect", EIPS)
async def test_a_charge_of_eip(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    """Exactly the published names and slashes; Basic authentication; the address that names the attempt."""
    path = {"eip": "/eip/transactions/amount", "eip_portal": "/portal/transactions/amount/"}[dialect]
    liar.says(transaction(dialect, PENDING[dialect]))
    await ecocash.start(credentials(dialect, display_name="Tendai's Hardware & Söns"), request())
    (asked,) = liar.asked
    assert (asked.method, asked.path) == ("POST", path)
    assert asked.headers["authorization"] == "Basic " + base64.b64encode(f"acme:{PASSWORD}".encode()).decode()
    assert asked.fields == {
        "clientCorrelator": ATTEMPT.hex,
        "notifyUrl": HOOK,
        "referenceCode": REFERENCE,
        "tranType": "MER",
        "endUserId": "263774222475",
        "remarks": "Two bags of cement",
        "transactionOperationStatus": "Charged",
        "paymentAmount": {
            "charginginformation": {"amount": 12.5, "currency": "USD", "description": "Two bags of cement"},
            "chargeMetaData": {
                "channel": "WEB",
                "purchaseCategoryCode": "Online Payment",
                "onBeHalfOf": "Tendais Hardware and Sons",
            },
        },
        "merchantCode": "8003",
        "merchantPin": PIN,
        "merchantNumber": "789111401",
        "currencyCode": "USD",
        "countryCode": "ZW",
        "terminalID": "WEB",
        "location": "Harare",
        "superMerchantName": "Tendais Hardware and Sons",
        "merchantName": "Tendais Hardware and Sons",
    }
    assert b'"amount":12.50,' in asked.body


@pytest.mark.parametrize("dialect", EIPS)
async def test_eip_is_sent_zwg(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    liar.says(transaction(dialect, PENDING[dialect]))
    await ecocash.start(credentials(dialect, Currency.ZIG), request(amount=Money(99, Currency.ZIG)))
    sent = liar.asked[0].fields
    assert (sent["currencyCode"], sent["paymentAmount"]["charginginformation"]["currency"]) == ("ZWG", "ZWG")
    assert "merchantNumber" not in body_of(words(dialect, ecocash_merchant_number=None).charge(request(), MSISDN))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_price_travels_exactly(dialect: str) -> None:
    """All 10,000 to 100.00, and the largest: the digits themselves, as one JSON number, and read back as they were."""
    speech = words(dialect)
    for minor in (*range(1, 10_001), MAX_MINOR):
        price = Money(minor, Currency.USD)
        body = speech.charge(request(amount=price), MSISDN).body
        assert body
        assert body.count(b'"amount":%d.%02d,' % divmod(minor, 100)) == 1
        answer = speech.read(msgspec.json.encode(transaction(dialect, "x", amount=price.major())))
        assert answer
        assert answer.amount == answer.charged == price
    assert body
    sent = json.loads(body, parse_float=Decimal)
    amount = sent.get("amount") or sent["paymentAmount"]["charginginformation"]["amount"]
    assert amount == Decimal("999999999.99")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("description", "sent"),
    [
        ("<b>Bricks</b> & mortar\r\n'; DROP TABLE", "b Bricks /b and mortar DROP TABLE"),
        ("Zvimedu \u2013 caf\u00e9 \U0001f9f1", "Zvimedu cafe"),
        ("\u8336" * 10, None),
        ("x" * 500, "x" * 50),
    ],
)
def test_words_are_plain_and_short(dialect: str, description: str, sent: str | None) -> None:
    """No character that a firewall takes for an attack: its page would leave the outcome unknown."""
    fields = body_of(words(dialect).charge(request(description=description), MSISDN))
    told = fields.get("reason") or fields["remarks"]
    assert told.startswith(sent) if sent else told in (REFERENCE, "Payment")
    assert len(told) <= 80
    assert not set(told) & set("<>'\";\r\n&%")


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_without_a_mobile_number_nothing_is_sent(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    for phone in (None, "", "0774222475", "+27821234567", "+263242700000", "+2637742224750", f"{PHONE}\n"):
        with pytest.raises(Refused) as raised:
            await ecocash.start(credentials(dialect), request(payer_phone=phone))
        assert raised.value.because is Because.PHONE
    assert liar.asked == []


# --- the network


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_redirect_and_a_flood_are_not_believed(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    liar.status, liar.headers = 302, {"location": f"{liar.url}/elsewhere"}
    with pytest.raises(Untrusted):
        await ecocash.start(credentials(dialect), request())
    assert len(liar.asked) == 1, "the secrets went nowhere else"
    liar.status, liar.headers, liar.body = 200, {}, b" " * 1_100_000
    with pytest.raises(Untrusted):
        await ecocash.start(credentials(dialect), request())


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_connection_and_no_answer_are_told_apart(
    transport: Transport, stage: tuple[Stage, str], dialect: str
) -> None:
    stand, url = stage

    async def silent(_scope: Any, receive: Any, _send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    stand.app = silent
    with pytest.raises(Ambiguous) as lost:
        await adapter(transport, url, Hasty).start(credentials(dialect), request())
    listener = listen()
    nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    with pytest.raises(Unreachable) as unreached:
        await adapter(transport, nobody).start(credentials(dialect), request())
    assert without_secrets(lost.value)
    assert without_secrets(unreached.value)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_neither_secrets_nor_the_customer_are_logged(ecocash: Ecocash, liar: Liar, dialect: str) -> None:
    """The classic gateway echoes the merchant's PIN; and a look-up has the phone number in its path."""
    liar.says(transaction(dialect, "FAILED", merchantPin=PIN, remarks=PIN))
    with capture_logs() as logs:
        with pytest.raises(Untrusted) if dialect != "open_api" else nullcontext():
            await ecocash.start(credentials(dialect), request())
        await ecocash.check(credentials(dialect), opened())
    assert logs
    for secret in (*PLANTED, MSISDN, correlator(dialect)):
        assert secret not in str(logs)
