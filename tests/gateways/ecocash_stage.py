"""What the tests of EcoCash's adapter stand on: one server for a module, on it a liar that speaks any dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from starlette.requests import Request
from starlette.responses import Response

from payments_service.errors import GatewayError
from payments_service.gateways.base import Message, Opened, RefundOrder, StartRequest
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.ecocash_credentials import EcocashCredentials, OpenApiCredentials, credentials_of
from payments_service.gateways.ecocash_eip import Eip, EipPortal
from payments_service.gateways.ecocash_open_api import OpenApi, OpenApiSite
from payments_service.gateways.ecocash_wire import Call, Dialect
from payments_service.gateways.transport import Reply, Transport
from payments_service.money import Currency, Money
from tests.servers import Stage, serve

DIALECTS = ("open_api", "eip", "eip_portal")
EIPS = ("eip", "eip_portal")
PAID = {"open_api": "SUCCESS", "eip": "COMPLETED", "eip_portal": "SUCCESS"}
PENDING = {"open_api": "PENDING_VALIDATION", "eip": "PENDING SUBSCRIBER VALIDATION", "eip_portal": "PENDING"}

API_KEY, PASSWORD, PIN = "1wddI46HBW3pK7pH32wgr3st9wIM7E4w", "mobiquity-secret", "7391"
SECRETS = (API_KEY, PASSWORD, PIN)
_EIP = {
    "ecocash_username": "acme",
    "ecocash_password": PASSWORD,
    "ecocash_merchant_pin": PIN,
    "ecocash_merchant_number": "789111401",
}
VALUES: dict[str, dict[str, str | None]] = {
    "open_api": {"ecocash_dialect": "open_api", "ecocash_api_key": API_KEY, "ecocash_merchant_code": "8003"},
    "eip": {"ecocash_dialect": "eip", "ecocash_merchant_code": "8003", **_EIP},
    "eip_portal": {"ecocash_dialect": "eip_portal", "ecocash_merchant_code": "8003", **_EIP},
}

PHONE, MSISDN = "+263774222475", "263774222475"
ATTEMPT = UUID("019ac0de-0000-7000-8000-00000000abcd")
OTHER = UUID("019ac0de-0000-7000-8000-00000000dcba")
REFUND = UUID("019ac0de-0000-7000-8000-0000000000ef")
REFERENCE = "INV-1-BCDFGHJK"
HOOK = f"https://pay.example/callbacks/ecocash/x/{ATTEMPT}"
MP = "MP251117.0952.T0527795"
PRICE = Money(1250, Currency.USD)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage() -> AsyncIterator[tuple[Stage, str]]:
    stand = Stage()
    async with serve(stand, lifespan="off") as url:
        yield stand, url


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport() as opened_one:
        yield opened_one


def adapter(transport: Transport, url: str, kind: type[Ecocash] = Ecocash, **options: Any) -> Ecocash:
    mode = options.pop("mode", "live")
    return kind(transport, f"{url}/open", mode, f"{url}/eip", f"{url}/portal", **options)


class Hasty(Ecocash):
    """Waits only as long as a test does for an answer that never comes."""

    start_seconds = check_seconds = 0.3


@pytest.fixture
def ecocash(transport: Transport, stage: tuple[Stage, str]) -> Ecocash:
    return adapter(transport, stage[1])


@dataclass
class Asked:
    """One request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def fields(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass
class Liar:
    """Answers every call with `body`, and keeps what it was asked."""

    url: str
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    asked: list[Asked] = field(default_factory=list)

    def says(self, content: object, status: int = 200) -> None:
        self.body, self.status = msgspec.json.encode(content), status

    def page(self, status: int = 200) -> None:
        """What a firewall shows instead of an answer."""
        self.body, self.status = b"<html><body>Request Rejected</body></html>", status
        self.headers = {"content-type": "text/html"}


@pytest.fixture
def liar(stage: tuple[Stage, str]) -> Liar:
    stand, url = stage
    told = Liar(url)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode()
        told.asked.append(Asked(request.method, path, dict(request.headers), await request.body()))
        await Response(told.body, told.status, told.headers)(scope, receive, send)

    stand.app = answer
    return told


def credentials(dialect: str, currency: Currency = Currency.USD, **changes: Any) -> EcocashCredentials:
    return credentials_of({**VALUES[dialect], **changes}, currency)


def words(dialect: str, currency: Currency = Currency.USD, **changes: Any) -> Dialect:
    """The dialect itself, for what needs no network."""
    refund_by = changes.pop("refund_by", "source")
    kept = credentials(dialect, currency, **changes)
    if isinstance(kept, OpenApiCredentials):
        return OpenApi(OpenApiSite("http://open.example", "live", refund_by, "ZiG"), kept)
    return (EipPortal if kept.portal else Eip)("http://eip.example", kept, "REF")


def body_of(call: Call) -> Any:
    """What a call sends."""
    assert call.body is not None
    return msgspec.json.decode(call.body)


def correlator(dialect: str, our_id: UUID = ATTEMPT) -> str:
    return str(our_id) if dialect == "open_api" else our_id.hex


def raw(amount: str) -> msgspec.Raw:
    """A JSON number exactly as it is written."""
    return msgspec.Raw(amount.encode())


def transaction(
    dialect: str, status: object, /, *, amount: str = "12.50", currency: object = "USD", **changes: Any
) -> dict[str, Any]:
    """The answer to a look-up, and of the two EIP dialects to a charge, about `opened()`; with changes."""
    number, whose = raw(amount), correlator(dialect)
    answers: dict[str, dict[str, Any]] = {
        "open_api": {
            "amount": {"amount": number, "currency": currency},
            "customerMsisdn": MSISDN,
            "reference": whose,
            "ecocashReference": MP,
            "status": status,
            "transactionDateTime": "2026-11-03 10:54:41",
        },
        "eip": {
            "id": 1,
            "clientCorrelator": whose,
            "endUserId": "8003",  # swapped, as the gateway does
            "serverReferenceCode": "1103202610544100012345678",
            "transactionOperationStatus": status,
            "paymentAmount": {
                "totalAmountCharged": number,
                "charginginformation": {"amount": number, "currency": currency, "description": "x"},
            },
            "ecocashReference": MP,
            "merchantCode": "26377",
            "merchantPin": PIN,
            "remarks": "x",
            "responseCode": None,
        },
        "eip_portal": {
            "transactionId": MP,
            "clientCorrelator": whose,
            "status": status,
            "statusCode": "200",
            "statusMessage": "Transaction Successful",
            "amount": number,
            "currency": currency,
            "endUserId": MSISDN,
            "merchantCode": "8003",
            "timestamp": "2026-11-03T11:45:30Z",
        },
    }
    return {**answers[dialect], **changes}


def refund_answer(dialect: str, status: object, /, **changes: Any) -> dict[str, Any]:
    """The answer to a refund about `order()`; with changes."""
    if dialect == "open_api":
        answer = {
            "sourceReference": str(ATTEMPT),
            "sourceMobileNumber": MSISDN,
            "transactionStatus": status,
            "responseMessage": status,
            "amount": raw("3.00"),
            "currency": "USD",
            "destinationEcocashReference": "MP240213.1412.A01664",
            "ecocashReference": str(REFUND),
        }
        return {**answer, **changes}
    names = {"clientCorrelator": REFUND.hex, "ecocashReference": "MP240213.1412.A01664"}
    return {**transaction(dialect, status, amount="3.00"), **names, **changes}


def traced_answer(dialect: str, status: object, /, **changes: Any) -> dict[str, Any]:
    """The answer to a look-up of the refund of `order()`; with changes."""
    whose = "reference" if dialect == "open_api" else "clientCorrelator"
    names = {whose: correlator(dialect, REFUND), "ecocashReference": "MP240213.1412.A01664"}
    return {**transaction(dialect, status, amount="3.00"), **names, **changes}


def nothing(dialect: str) -> dict[str, Any]:
    """The envelope of an unknown correlator."""
    return dict.fromkeys(transaction(dialect, None))


def encoded(content: object) -> bytes:
    return msgspec.json.encode(content)


def reply(content: object, status: int = 200) -> Reply:
    body = content if isinstance(content, bytes) else encoded(content)
    return Reply(status, body, {})


def request(**changes: Any) -> StartRequest:
    fields = {
        "attempt_id": ATTEMPT,
        "method": "ecocash",
        "reference": REFERENCE,
        "amount": PRICE,
        "description": "Two bags of cement",
        "return_url": "https://pay.example/pay/token?returned=1",
        "callback_url": HOOK,
        "payer_phone": PHONE,
    }
    return StartRequest(**{**fields, **changes})


def opened(**changes: Any) -> Opened:
    fields = {
        "attempt_id": ATTEMPT,
        "reference": REFERENCE,
        "amount": PRICE,
        "poll_url": None,
        "started_at": datetime(2026, 11, 3, tzinfo=UTC),
        "payer_phone": PHONE,
    }
    return Opened(**{**fields, **changes})


def order(**changes: Any) -> RefundOrder:
    fields = {
        "refund_id": REFUND,
        "gateway_reference": MP,
        "amount": Money(300, Currency.USD),
        "reason": "one bag was torn",
        "attempt_id": ATTEMPT,
        "payer_phone": PHONE,
    }
    return RefundOrder(**{**fields, **changes})


def posted(address: str, body: bytes = b"") -> Message:
    return Message(body, {"content-type": "application/json"}, datetime.now(UTC), address)


def without_secrets(error: GatewayError) -> bool:
    """Whether neither the error nor what caused it tells a secret."""
    texts = [error.detail, str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
    return not any(secret in text for secret in SECRETS for text in texts)
