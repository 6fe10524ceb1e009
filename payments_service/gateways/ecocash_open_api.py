"""EcoCash's dialect `open_api`: the developer portal of 2024-25, an API key in a header.

Sources: the portal's pages [A]. Misspellings are the wire's names.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

import msgspec

from payments_service.errors import Refused
from payments_service.gateways.base import RefundOrder, StartRequest
from payments_service.gateways.ecocash_credentials import OpenApiCredentials
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
from payments_service.money import Currency

CHARGE = "/api/v2/payment/instant/c2b/"
LOOK_UP = "/api/v1/transaction/c2b/status/"  # v1 [A]
REFUND = "/api/v2/refund/instant/c2b/"

_ADDRESS = b"conva-payments ecocash callback address 1"


@dataclass(frozen=True, slots=True)
class OpenApiSite:
    """Where the dialect is spoken: `mode` is `live` or `sandbox`, `refund_by` `source` (a refund names the payment by
    our id) or `ecocash` (by EcoCash's), `zig_code` how ZiG is spelt; the pages contradict each other [?]."""

    url: str
    mode: str
    refund_by: str
    zig_code: str


class _LookUp(msgspec.Struct, frozen=True, rename="camel"):
    amount: msgspec.Raw = ABSENT  # an object [A]
    currency: msgspec.Raw = ABSENT
    reference: msgspec.Raw = ABSENT
    ecocash_reference: msgspec.Raw = ABSENT
    transaction_id: msgspec.Raw = ABSENT
    server_reference_code: msgspec.Raw = ABSENT
    status: msgspec.Raw = ABSENT


class _Refund(msgspec.Struct, frozen=True, rename="camel"):
    """`sourceReference` is the payment's, `ecocashReference` only echoes the refund's correlator [A]."""

    amount: msgspec.Raw = ABSENT
    currency: msgspec.Raw = ABSENT
    ecocash_reference: msgspec.Raw = ABSENT
    destination_ecocash_reference: msgspec.Raw = ABSENT
    transaction_status: msgspec.Raw = ABSENT
    response_message: msgspec.Raw = ABSENT


@dataclass(frozen=True, slots=True)
class OpenApi:
    """One key's words. See `ecocash_wire.Dialect`."""

    site: OpenApiSite
    credentials: OpenApiCredentials

    paid: ClassVar[str] = "SUCCESS"
    refunded: ClassVar[str] = "COMPLETED"
    fields: ClassVar[str] = "ecocash_api_key (one for sandbox or live, as this service is set up)"
    # "200 OK" is all that is documented: a prompt was sent, and the body may be empty or no JSON [A].
    accepts_silence: ClassVar[bool] = True

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.credentials.api_key,)

    @property
    def mode(self) -> str:
        return "live" if self.site.mode == "live" else "test"

    @property
    def account(self) -> str | None:
        return self.credentials.merchant_code

    @property
    def merchant(self) -> str:
        """A new key of the same merchant's knows the same payments."""
        return f"open_api {self.credentials.merchant_code or ''}".strip()

    def correlator(self, our_id: UUID) -> str:
        """A UUID, as a charge must have [A]."""
        return str(our_id)

    def charge(self, request: StartRequest, msisdn: str) -> Call:
        body = {
            "customerMsisdn": msisdn,
            "amount": number(request.amount),
            "reason": plain(request.description, 80) or request.reference,
            "currency": self._code(request.amount.currency),
            "sourceReference": self.correlator(request.attempt_id),
        }
        return self._post(CHARGE, body)

    def look_up(self, correlator: str, msisdn: str) -> Call:
        return self._post(LOOK_UP, {"sourceMobileNumber": msisdn, "sourceReference": correlator})

    def refund(self, order: RefundOrder, msisdn: str) -> Call:
        by_ecocash = self.site.refund_by == "ecocash"
        if by_ecocash and not order.gateway_reference:
            raise Refused("EcoCash's own reference of this payment is not known: refund it at EcoCash.")
        original = order.gateway_reference if by_ecocash else self.correlator(order.attempt_id)
        body = {
            "origionalEcocashTransactionReference": original,
            "refundCorelator": self.correlator(order.refund_id),
            "sourceMobileNumber": msisdn,
            "amount": number(order.amount),
            "clientName": self.credentials.name,
            "currency": self._code(order.amount.currency),
            "reasonForRefund": plain(order.reason, 80) or "Refund",
        }
        return self._post(REFUND, body)

    def read(self, body: bytes) -> Answer | None:
        said = fields_of(body, _LookUp)
        if said is None:
            return None
        amount = money_of(said.amount, said.currency)
        return answer_of(
            whose=said.reference,
            how=(said.status,),
            lasting=(said.ecocash_reference, said.transaction_id),
            passing=(said.server_reference_code,),
            amount=amount,
            charged=amount,
        )

    def read_refund(self, body: bytes) -> Answer | None:
        said = fields_of(body, _Refund)
        if said is None:
            return None
        amount = money_of(said.amount, said.currency)
        return answer_of(
            whose=said.ecocash_reference,
            how=(said.transaction_status, said.response_message),
            lasting=(said.destination_ecocash_reference,),
            passing=(),
            amount=amount,
            charged=amount,
        )

    def callback_path(self) -> str:
        """One address for all of a key's callbacks is set in the portal. Whoever has not seen it cannot guess it; it
        changes with the key, and the key does not follow from it."""
        made = hmac.new(self.credentials.api_key.encode(), _ADDRESS, hashlib.sha256).digest()
        return urlsafe_b64encode(made).rstrip(b"=").decode()

    def _code(self, currency: Currency) -> str:
        return self.site.zig_code if currency is Currency.ZIG else currency.value

    def _post(self, path: str, body: Mapping[str, object]) -> Call:
        headers = {
            "X-API-KEY": self.credentials.api_key,
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        return Call("POST", f"{self.site.url}{path}{self.site.mode}", headers, msgspec.json.encode(body))
