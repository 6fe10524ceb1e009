"""The dialect `open_api` of the simulated EcoCash (section 1): X-API-KEY, UUIDs, an empty 200."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

from payments_service.sandbox.answers import Answer
from payments_service.sandbox.ecocash_charges import OPEN_API, Merchant, Order, Refund, Refused, Shown
from payments_service.sandbox.ecocash_dialect import Body, Sent, Switches, told, written
from payments_service.sandbox.local import HARARE

_CENT = Decimal("0.01")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)
# Of a refund's own correlator there is one sample only, `012345l61975`, which is no UUID [?].
_CORRELATOR = re.compile(r"[A-Za-z0-9-]{1,64}", re.ASCII)

# Section 1 lists the HTTP statuses; the shape of an error's body is unpublished [?]. 402: valid, but failed.
_STATUS = {"E005": 409, "E006": 401, "E007": 403, "E008": 404, "E009": 402, "E014": 500, "E015": 503, "429": 429}
_FAILED = ("E010", "E011", "E012", "E013")
_REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Request Failed",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Server Errors",
    503: "Server Errors",
}


class OpenApi:
    name = OPEN_API

    def __init__(self, switches: Switches) -> None:
        self._switches = switches

    # --- requests

    def who(self, sent: Sent, merchant: Callable[[str], Merchant | None]) -> Merchant:
        found = merchant(sent.headers.get("x-api-key", ""))
        if found is None:
            raise Refused("E006", "No valid API key provided")
        if not found.active:
            raise Refused("E007", "The API key doesn't have permissions to perform the request")
        return found

    def read_charge(self, _merchant: Merchant, sent: Sent) -> Order:
        body = Body.of(sent.body)
        return Order(
            correlator=body.matching("sourceReference", _UUID),
            msisdn=body.msisdn("customerMsisdn"),
            amount=body.amount("amount"),
            currency=body.text("currency"),
            remarks=body.text("reason"),
            mode=_mode(sent),
        )

    def read_lookup(self, _merchant: Merchant, sent: Sent) -> Order:
        """A refund is looked up by its refundCorelator [?]."""
        body = Body.of(sent.body)
        return Order(
            correlator=body.matching("sourceReference", _CORRELATOR),
            msisdn=body.msisdn("sourceMobileNumber"),
            mode=_mode(sent),
        )

    def read_refund(self, _merchant: Merchant, sent: Sent) -> Order:
        """The original is named by our sourceReference, as the note says, or by EcoCash's `MP…`, as a sample [?]."""
        body = Body.of(sent.body)
        body.text("clientName")
        return Order(
            correlator=body.matching("refundCorelator", _CORRELATOR),
            original=body.text("origionalEcocashTransactionReference"),
            msisdn=body.msisdn("sourceMobileNumber"),
            amount=body.amount("amount"),
            currency=body.text("currency"),
            remarks=body.text("reasonForRefund"),
            mode=_mode(sent),
        )

    # --- answers

    def tell_charge(self, shown: Shown) -> Answer:
        """Documented as 200 OK without a body; integrators met others too."""
        if self._switches.open_api_answer == "text":
            return Answer(200, b"OK", {"Content-Type": "text/plain"})
        if self._switches.open_api_answer == "json":
            return told({"sourceReference": shown.correlator, "status": shown.status})
        return Answer(200, b"", {})

    def tell_lookup(self, shown: Shown) -> Answer:
        return told(
            {
                "amount": {"amount": shown.amount.quantize(_CENT), "currency": shown.currency},
                "customerMsisdn": shown.record.msisdn,
                "reference": shown.correlator,
                "ecocashReference": shown.reference or None,
                "status": shown.status,
                "transactionDateTime": f"{_local(shown):%Y-%m-%d %H:%M:%S}",
            }
        )

    def tell_refund(self, shown: Shown) -> Answer:
        """The word for done is eip's, not this dialect's own. `ecocashReference` only echoes refundCorelator."""
        record, at = shown.record, _local(shown)
        status = "COMPLETED" if shown.paid else shown.status
        return told(
            {
                "sourceReference": record.charge.correlator if isinstance(record, Refund) else record.correlator,
                "transactionEndTime": f"{at:%d-%m-%Y}",
                "callbackUrl": "",
                "destinationReferenceCode": shown.reference,
                "sourceMobileNumber": record.msisdn,
                "transactionStatus": status,
                "amount": shown.amount.quantize(_CENT),
                "destinationEcocashReference": shown.reference,
                "clientMerchantCode": record.merchant.code,
                "clientMerchantNumber": record.merchant.number,
                "clienttransactionDate": f"{at:%d-%m-%Y}",
                "description": record.remarks,
                "responseMessage": status,
                "currency": shown.currency,
                "paymentAmount": shown.amount.quantize(_CENT),
                "ecocashReference": shown.correlator,
                "transactionstartTime": f"{at:%H:%M}",
            }
        )

    def tell_unknown(self) -> Answer:
        return self.tell_refusal(Refused("E008", "The requested resource doesn't exist"))

    def tell_nulls(self) -> Answer:
        names = ("amount", "customerMsisdn", "reference", "ecocashReference", "status", "transactionDateTime")
        return told(dict.fromkeys(names))

    def tell_refusal(self, refused: Refused) -> Answer:
        status = 402 if refused.code in _FAILED else _STATUS.get(refused.code, 400)
        return told({"status": status, "error": _REASONS[status], "message": str(refused)}, status)

    def callback(self, shown: Shown) -> bytes:
        """No signature and no amount."""
        return written(
            {
                "transactionOperationStatus": shown.status,
                "clientReference": shown.correlator,
                "ecocashReference": shown.reference,
            }
        )


def _mode(sent: Sent) -> str:
    mode = sent.path["mode"]
    if mode not in ("sandbox", "live"):
        raise Refused("E008", "The requested resource doesn't exist")
    return mode


def _local(shown: Shown) -> datetime:
    return datetime.fromtimestamp(shown.record.at, UTC).astimezone(HARARE)
