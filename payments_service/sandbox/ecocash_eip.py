"""The dialects `eip` and `eip_portal` of the simulated EcoCash (sections 2 and 3): one request, two kinds of answer."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from payments_service.sandbox import wire
from payments_service.sandbox.answers import Answer
from payments_service.sandbox.ecocash_charges import (
    EIP,
    EIP_PORTAL,
    Charge,
    Ending,
    Merchant,
    Order,
    Refund,
    Refused,
    Shown,
)
from payments_service.sandbox.ecocash_dialect import Body, Sent, Switches, same_secret, told, written

_CORRELATOR = re.compile(r"[A-Za-z0-9]{8,64}", re.ASCII)
_MERCHANT_FIELDS = ("merchantCode", "merchantPin", "merchantNumber")
_PLACE_FIELDS = ("terminalID", "location", "superMerchantName", "merchantName")

# The members of an envelope, in the order of a sample from the specification of 2025.
_ENVELOPE = (
    "id",
    "version",
    "clientCorrelator",
    "endTime",
    "startTime",
    "notifyUrl",
    "referenceCode",
    "endUserId",
    "serverReferenceCode",
    "transactionOperationStatus",
    "paymentAmount",
    "ecocashReference",
    "merchantCode",
    "merchantPin",
    "merchantNumber",
    "originalEcocashReference",
    "countryCode",
    "currencyCode",
    "tranType",
    "responseCode",
    "remarks",
)
_NUMBER_BEHIND_CODE = "202000000000070010"  # what the specification's own sample shows for a merchantCode

# The firewall's page is HTTP 200, and the shape of eip's own errors comes from one integrator [C].
_STATUS = {"E005": 409, "E006": 401, "E007": 403, "E008": 404, "E009": 409, "E014": 500, "E015": 503, "429": 429}
_PORTAL_STATUS = _STATUS | {"E005": 400, **dict.fromkeys(("E010", "E011", "E012", "E013"), 422)}

_WHY = {
    Ending.NO_FUNDS: ("E010", "Insufficient funds"),
    Ending.LIMIT: ("E013", "Transaction limit exceeded"),
}


class Eip:
    """The classic gateway."""

    name = EIP

    def __init__(self, switches: Switches) -> None:
        self._switches = switches

    # --- requests

    def who(self, sent: Sent, merchant: Callable[[str], Merchant | None]) -> Merchant:
        username, _, password = _basic(sent.headers.get("authorization", "")).partition(":")
        found = merchant(username)
        if found is None or not same_secret(password, found.password):
            raise Refused("E006", "Authentication failed")
        if not found.active:
            raise Refused("E007", "Access denied")
        return found

    def read_charge(self, merchant: Merchant, sent: Sent) -> Order:
        body = Body.of(sent.body)
        body.must_be("tranType", "MER")
        body.must_be("transactionOperationStatus", "Charged")
        notify_url = body.text("notifyUrl")
        if not wire.is_web_address(notify_url):
            raise Refused("E001", "notifyUrl is invalid")
        return _order(merchant, body, notify_url=notify_url)

    def read_lookup(self, _merchant: Merchant, sent: Sent) -> Order:
        """By one integrator's account the number in the path does not matter [C]; here it must be the charge's own."""
        return Order(correlator=sent.path["correlator"], msisdn=sent.path["msisdn"])

    def read_refund(self, merchant: Merchant, sent: Sent) -> Order:
        """The original is named by EcoCash's reference only."""
        body = Body.of(sent.body)
        body.must_be("tranType", self._switches.refund_type)
        return _order(merchant, body, original=body.text("originalEcocashReference"))

    # --- answers

    def tell_charge(self, shown: Shown) -> Answer:
        """The country code is cut off the customer's number."""
        return told(_envelope(shown) | {"endUserId": shown.record.msisdn.removeprefix("263")})

    def tell_lookup(self, shown: Shown) -> Answer:
        return told(_swapped(shown))

    def tell_refund(self, shown: Shown) -> Answer:
        return self.tell_charge(shown)

    def tell_unknown(self) -> Answer:
        """HTTP 200, and every member null."""
        return self.tell_nulls()

    def tell_nulls(self) -> Answer:
        return told(dict.fromkeys(_ENVELOPE))

    def tell_refusal(self, refused: Refused) -> Answer:
        if refused.code == "E003":
            return block_page()
        status = _STATUS.get(refused.code, 400)
        return told({"status": status, "exception": "ProcessingException", "message": str(refused)}, status)

    def callback(self, shown: Shown) -> bytes:
        return written(_swapped(shown))


class Portal(Eip):
    """The portal's sandbox."""

    name = EIP_PORTAL

    def tell_charge(self, shown: Shown) -> Answer:
        return told(self._message(shown))

    def tell_lookup(self, shown: Shown) -> Answer:
        return self.tell_charge(shown)

    def tell_unknown(self) -> Answer:
        return self.tell_refusal(Refused("E008", "Transaction not found"))

    def tell_nulls(self) -> Answer:
        names = ("transactionId", "clientCorrelator", "status", "statusCode", "statusMessage", "amount", "currency")
        return told(dict.fromkeys((*names, "endUserId", "merchantCode", "timestamp")))

    def tell_refusal(self, refused: Refused) -> Answer:
        status = _PORTAL_STATUS.get(refused.code, 400)
        return told({"statusCode": refused.code, "statusMessage": str(refused)}, status)

    def callback(self, shown: Shown) -> bytes:
        return written(self._message(shown))

    def _message(self, shown: Shown) -> dict[str, Any]:
        """`statusMessage` says "Successful" even while pending, and of a failed one too; a transactionId is there
        from the beginning. Which codes tell why a charge failed is unpublished [?]."""
        record = shown.record
        ending = record.ending if isinstance(record, Charge) else None
        code, message = _WHY.get(ending, _TAKEN) if ending else _TAKEN
        return {
            self._switches.portal_reference: record.ecocash_reference,
            "clientCorrelator": shown.correlator,
            self._switches.portal_status: shown.status,
            "statusCode": code,
            "statusMessage": message,
            "amount": _shortest(shown.amount),
            "currency": shown.currency,
            "endUserId": record.msisdn,
            "merchantCode": record.merchant.code,
            "timestamp": f"{datetime.fromtimestamp(record.at, UTC):%Y-%m-%dT%H:%M:%SZ}",
        }


_TAKEN = ("200", "Transaction Successful")


def block_page() -> Answer:
    """What the firewall in front of eip says, with HTTP 200, of whatever it does not like."""
    number = secrets.randbelow(10**19)
    page = (
        "<html><head><title>Request Rejected</title></head><body>The requested URL was rejected. Please consult with "
        f"your administrator.<br><br>Your support ID is: {number}<br></body></html>"
    )
    return Answer(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})


def _order(merchant: Merchant, body: Body, *, notify_url: str = "", original: str = "") -> Order:
    """What charge and refund have in common; every spelling matters."""
    _check_merchant(merchant, body)
    payment = body.part("paymentAmount")
    charging, meta = payment.part("charginginformation"), payment.part("chargeMetaData")
    for name in ("channel", "purchaseCategoryCode", "onBeHalfOf"):
        meta.text(name)
    charging.text("description")
    body.must_be("countryCode", "ZW")
    body.must_be("currencyCode", charging.text("currency"))
    return Order(
        correlator=body.matching("clientCorrelator", _CORRELATOR),
        msisdn=body.msisdn("endUserId"),
        amount=charging.amount("amount"),
        currency=charging.text("currency"),
        original=original,
        reference_code=body.text("referenceCode"),
        remarks=body.text("remarks", optional=True),
        notify_url=notify_url,
    )


def _check_merchant(merchant: Merchant, body: Body) -> None:
    for name in _PLACE_FIELDS:
        body.text(name)
    given = [body.text(name) for name in _MERCHANT_FIELDS]
    if not all(map(same_secret, given, (merchant.code, merchant.pin, merchant.number))):
        raise Refused("E007", "The merchant's code, number or PIN is wrong")


def _envelope(shown: Shown) -> dict[str, Any]:
    """With the merchant's PIN, which is echoed. Until it is paid there is no reference, only one of the server's."""
    record = shown.record
    refund = record if isinstance(record, Refund) else None
    values = {
        "id": record.id,
        "version": 0,
        "clientCorrelator": shown.correlator,
        "startTime": 0,
        "notifyUrl": record.notify_url if isinstance(record, Charge) else None,
        "referenceCode": record.reference_code,
        "endUserId": record.msisdn,
        "serverReferenceCode": shown.reference or f"TEST_{record.id}",
        "transactionOperationStatus": shown.status,
        "paymentAmount": _payment(shown),
        "ecocashReference": shown.reference or None,
        "merchantCode": record.merchant.code,
        "merchantPin": record.merchant.pin,
        "merchantNumber": record.merchant.number,
        "originalEcocashReference": refund.charge.ecocash_reference if refund else None,
        "countryCode": "ZW",
        "currencyCode": shown.currency,
        "tranType": "REF" if refund else "MER",
        "remarks": record.remarks,
    }
    return {name: values.get(name) for name in _ENVELOPE}


def _payment(shown: Shown) -> Mapping[str, object]:
    amount = _double(shown.amount)
    return {
        "totalAmountCharged": amount if shown.paid else _double(Decimal(0)),
        "charginginformation": {
            "amount": amount,
            "cashbackAmount": None,
            "currency": shown.currency,
            "description": shown.record.remarks,
        },
    }


def _swapped(shown: Shown) -> dict[str, Any]:
    """A look-up's envelope: the customer stands where the merchant should, and the other way round."""
    record = shown.record
    return _envelope(shown) | {
        "endUserId": record.merchant.code,
        "merchantCode": _NUMBER_BEHIND_CODE,
        "merchantNumber": record.msisdn,
    }


def _double(amount: Decimal) -> Decimal:
    """As Java writes a double: 3.0, 10.5, 12.25."""
    shortest = _shortest(amount)
    return shortest if "." in str(shortest) else shortest.quantize(Decimal("0.1"))


def _shortest(amount: Decimal) -> Decimal:
    """Without zeros at the end: 2, 10.5, 100."""
    return Decimal(f"{amount.normalize():f}")


def _basic(header: str) -> str:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
