"""EcoCash's dialects `eip` (the classic gateway) and `eip_portal` (the developer portal of 2026): the same requests
with a user name and a password, answered in two ways.

Sources: the EIP specifications (version 5 of 2022, V3 of 2025) and the portal's pages [A], what integrators measured
[B]. Exact spellings matter. The merchant's PIN stands in every request, and is echoed in answers.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

import msgspec

from payments_service.errors import Refused
from payments_service.gateways.base import RefundOrder, StartRequest
from payments_service.gateways.ecocash_credentials import EipCredentials
from payments_service.gateways.ecocash_wire import (
    ABSENT,
    Answer,
    Call,
    answer_of,
    fields_of,
    money_of,
    number,
    plain,
)
from payments_service.money import Currency, Money

_CODES = {Currency.USD: "USD", Currency.ZIG: "ZWG"}


class _Charging(msgspec.Struct, frozen=True):
    amount: msgspec.Raw = ABSENT
    currency: msgspec.Raw = ABSENT


class _PaymentAmount(msgspec.Struct, frozen=True, rename="camel"):
    charginginformation: msgspec.Raw = ABSENT
    total_amount_charged: msgspec.Raw = ABSENT


class _Transaction(msgspec.Struct, frozen=True, rename="camel"):
    """What both dialects' answers have. `endUserId` and the merchant's fields come back swapped or cut [B]."""

    client_correlator: msgspec.Raw = ABSENT
    ecocash_reference: msgspec.Raw = ABSENT
    transaction_id: msgspec.Raw = ABSENT
    server_reference_code: msgspec.Raw = ABSENT
    transaction_operation_status: msgspec.Raw = ABSENT
    transaction_status: msgspec.Raw = ABSENT
    status: msgspec.Raw = ABSENT
    payment_amount: msgspec.Raw = ABSENT
    amount: msgspec.Raw = ABSENT
    currency: msgspec.Raw = ABSENT


@dataclass(frozen=True, slots=True)
class Eip:
    """One merchant's words. See `ecocash_wire.Dialect`. `refund_type` is the `tranType` of refunds [?]."""

    url: str
    credentials: EipCredentials
    refund_type: str

    paid: ClassVar[str] = "COMPLETED"
    refunded: ClassVar[str] = "COMPLETED"
    fields: ClassVar[str] = (
        "ecocash_username, ecocash_password, ecocash_merchant_code, ecocash_merchant_pin and ecocash_merchant_number"
    )
    accepts_silence: ClassVar[bool] = False
    _name: ClassVar[str] = "eip"
    _slash: ClassVar[str] = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._basic(), self.credentials.password, self.credentials.merchant_pin)

    @property
    def mode(self) -> str:
        return "test" if any(word in self.url.lower() for word in ("preprod", "sandbox")) else "live"

    @property
    def account(self) -> str:
        return self.credentials.merchant_code

    @property
    def merchant(self) -> str:
        return f"{self._name} {self.credentials.merchant_code}"

    def correlator(self, our_id: UUID) -> str:
        """Letters and digits, 8 to 64 of them [B]."""
        return our_id.hex

    def charge(self, request: StartRequest, msisdn: str) -> Call:
        body = {
            **self._body(request.attempt_id, request.amount, msisdn, request.description or request.reference),
            "notifyUrl": request.callback_url,
            "referenceCode": request.reference,
            "tranType": "MER",
        }
        return self._call("POST", f"/transactions/amount{self._slash}", body)

    def look_up(self, correlator: str, msisdn: str) -> Call:
        return self._call("GET", f"/{msisdn}/transactions/amount/{correlator}")

    def refund(self, order: RefundOrder, msisdn: str) -> Call:
        """A charge's body with a correlator of its own. No callback is asked for: a refund's are not read."""
        if not order.gateway_reference:
            raise Refused("EcoCash's own reference of this payment is not known: refund it at EcoCash.")
        body = {
            **self._body(order.refund_id, order.amount, msisdn, order.reason),
            "referenceCode": self.correlator(order.refund_id),
            "tranType": self.refund_type,
            "originalEcocashReference": order.gateway_reference,
        }
        return self._call("POST", f"/transactions/refund{self._slash}", body)

    def read(self, body: bytes) -> Answer | None:
        said = fields_of(body, _Transaction)
        if said is None:
            return None
        asked, charged = self._amounts(said)
        return answer_of(
            whose=said.client_correlator,
            how=self._status(said),
            lasting=(said.ecocash_reference, said.transaction_id),
            passing=(said.server_reference_code,),
            amount=asked,
            charged=charged,
        )

    def read_refund(self, body: bytes) -> Answer | None:
        return self.read(body)

    def callback_path(self) -> None:
        return None

    def _status(self, said: _Transaction) -> tuple[msgspec.Raw, ...]:
        return (said.transaction_operation_status,)

    def _amounts(self, said: _Transaction) -> tuple[Money | None, Money | None]:
        """What was asked for, and what was charged in all, which an answer need not have."""
        paid = fields_of(bytes(said.payment_amount), _PaymentAmount)
        charging = fields_of(bytes(paid.charginginformation), _Charging) if paid else None
        if paid is None or charging is None:
            return None, None
        asked = money_of(charging.amount, charging.currency)
        if bytes(paid.total_amount_charged) in (b"", b"null"):
            return asked, asked
        return asked, money_of(paid.total_amount_charged, charging.currency)

    def _body(self, our_id: UUID, amount: Money, msisdn: str, words: str) -> dict[str, object]:
        """What a charge and a refund have in common [A]. The PIN is in it."""
        merchant, code = self.credentials, _CODES[amount.currency]
        remarks = plain(words, 50) or "Payment"
        body: dict[str, object] = {
            "clientCorrelator": self.correlator(our_id),
            "endUserId": msisdn,
            "remarks": remarks,
            "transactionOperationStatus": "Charged",
            "paymentAmount": {
                "charginginformation": {"amount": number(amount), "currency": code, "description": remarks},
                "chargeMetaData": {
                    "channel": "WEB",
                    "purchaseCategoryCode": "Online Payment",
                    "onBeHalfOf": merchant.name,
                },
            },
            "merchantCode": merchant.merchant_code,
            "merchantPin": merchant.merchant_pin,
            "currencyCode": code,
            "countryCode": "ZW",
            "terminalID": "WEB",
            "location": "Harare",
            "superMerchantName": merchant.name,
            "merchantName": merchant.name,
        }
        return body | ({"merchantNumber": merchant.merchant_number} if merchant.merchant_number else {})

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Call:
        headers = {"Authorization": f"Basic {self._basic()}", "Accept": "application/json"}
        if body is None:
            return Call(method, self.url + path, headers)
        headers["Content-Type"] = "application/json"
        return Call(method, self.url + path, headers, msgspec.json.encode(body))

    def _basic(self) -> str:
        return b64encode(f"{self.credentials.username}:{self.credentials.password}".encode()).decode()


@dataclass(frozen=True, slots=True)
class EipPortal(Eip):
    """The portal's: slashes exactly so, and a flat answer, whose `statusMessage` says "Successful" even while it is
    pending [A]."""

    paid: ClassVar[str] = "SUCCESS"
    refunded: ClassVar[str] = "SUCCESS"
    _name: ClassVar[str] = "eip_portal"
    _slash: ClassVar[str] = "/"

    def _status(self, said: _Transaction) -> tuple[msgspec.Raw, ...]:
        return (said.status, said.transaction_status, said.transaction_operation_status)

    def _amounts(self, said: _Transaction) -> tuple[Money | None, Money | None]:
        amount = money_of(said.amount, said.currency)
        return amount, amount
