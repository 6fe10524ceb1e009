"""The simulated EcoCash's wire: the addresses of three dialects, and what becomes of a request at each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.answers import Answer
from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, Merchant, Order, Record, Refused, Shown
from payments_service.sandbox.ecocash_dialect import Dialect, Sent
from payments_service.sandbox.ecocash_faults import Kind, numeric
from payments_service.sandbox.ecocash_ledger import EcocashLedger, Seen
from payments_service.sandbox.faults import Fault

BASES = {OPEN_API: "/ecocash/open-api", EIP: "/ecocash/eip", EIP_PORTAL: "/ecocash/portal"}

_LOOKUP = "/{msisdn}/transactions/amount/{correlator}"

# dialect, method, path behind its base, operation: slashes exactly as in sections 1 to 3.
_ADDRESSES = (
    (OPEN_API, "POST", "/api/v2/payment/instant/c2b/{mode}", "charge"),
    (OPEN_API, "POST", "/api/v1/transaction/c2b/status/{mode}", "lookup"),
    (OPEN_API, "POST", "/api/v2/refund/instant/c2b/{mode}", "refund"),
    (EIP, "POST", "/transactions/amount", "charge"),
    (EIP, "GET", _LOOKUP, "lookup"),
    (EIP, "POST", "/transactions/refund", "refund"),
    (EIP_PORTAL, "POST", "/transactions/amount/", "charge"),
    (EIP_PORTAL, "GET", _LOOKUP, "lookup"),
    (EIP_PORTAL, "POST", "/transactions/refund/", "refund"),
)


def routes(ledger: EcocashLedger) -> list[BaseRoute]:
    """Every address, behind a prefix per dialect, and JSON for what there is not."""
    return [
        *(
            Route(BASES[dialect] + path, _endpoint(ledger, ledger.dialects[dialect], operation), methods=[method])
            for dialect, method, path, operation in _ADDRESSES
        ),
        *(
            Route(f"{base}/{{rest:path}}", _missing(ledger.dialects[dialect]), methods=["GET", "POST", "PUT", "DELETE"])
            for dialect, base in BASES.items()
        ),
    ]


def _endpoint(ledger: EcocashLedger, dialect: Dialect, operation: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        sent = Sent(request.path_params, dict(request.headers), await request.body())
        response = Exchange(ledger, dialect, operation, sent, request.url.path).response()
        await asyncio.sleep(ledger.delay_seconds)
        return response

    return endpoint


def _missing(dialect: Dialect) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(_request: Request) -> Response:
        return dialect.tell_refusal(Refused("E008", "There is no such resource")).response()

    return endpoint


class Exchange:
    """One request and what becomes of it."""

    def __init__(self, ledger: EcocashLedger, dialect: Dialect, operation: str, sent: Sent, path: str) -> None:
        self._ledger = ledger
        self._dialect = dialect
        self._operation = operation
        self._sent = sent
        self._path = path

    def response(self) -> Response:
        ledger = self._ledger
        ledger.calls[self._operation] += 1
        ledger.expire_due()
        merchant = None
        try:
            merchant = self._dialect.who(self._sent, self._merchant)
            order = self._read(merchant)
        except Refused as refused:
            return self._dialect.tell_refusal(refused).response()  # no fault is for what is no request
        finally:
            ledger.requests.append(Seen(self._operation, self._dialect.name, self._path, self._sent.body, merchant))
        return self._faulty(merchant, order)

    def _merchant(self, login: str) -> Merchant | None:
        return self._ledger.merchant(self._dialect.name, login)

    def _read(self, merchant: Merchant) -> Order:
        read = {
            "charge": self._dialect.read_charge,
            "lookup": self._dialect.read_lookup,
            "refund": self._dialect.read_refund,
        }
        return read[self._operation](merchant, self._sent)

    def _faulty(self, merchant: Merchant, order: Order) -> Response:
        faults = self._ledger.use_faults(self._operation, self._names(merchant, order))
        before = next((fault for fault in faults if not fault.kind.works), None)
        if before is not None:
            return self._spoilt([before], Answer(200, b"", {}))
        return self._spoilt(faults, self._answer(merchant, order, faults))

    def _names(self, merchant: Merchant, order: Order) -> tuple[str, ...]:
        """What the request's subject may be called by: of a look-up the record's own names, too."""
        known = self._ledger.look_up(merchant, order) if self._operation == "lookup" else None
        return known.names if known else (*order.names, order.original)

    def _spoilt(self, faults: list[Fault[Kind]], answer: Answer) -> Response:
        for fault in faults:
            if fault.kind.refuse:
                answer = self._dialect.tell_refusal(Refused(fault.kind.refuse, fault.kind.title))
        for fault in faults:
            if fault.kind.reply is not None:
                elsewhere = f"{self._ledger.public_url}/sandbox/ecocash/redirected"
                return fault.kind.reply(answer, fault.seconds, elsewhere)
        return answer.response()

    def _answer(self, merchant: Merchant, order: Order, faults: list[Fault[Kind]]) -> Answer:
        """Do the work, and tell of it."""
        try:
            record = self._worked(merchant, order)
        except Refused as refused:
            return self._dialect.tell_refusal(refused)
        if any(fault.kind.nulls for fault in faults):
            return self._dialect.tell_nulls()
        if record is None:
            return self._dialect.tell_unknown()
        tell = {
            "charge": self._dialect.tell_charge,
            "lookup": self._dialect.tell_lookup,
            "refund": self._dialect.tell_refund,
        }
        return tell[self._operation](self._shown(record, faults))

    def _worked(self, merchant: Merchant, order: Order) -> Record | None:
        if self._operation == "charge":
            return self._ledger.charge(merchant, order)
        if self._operation == "refund":
            return self._ledger.refund(merchant, order)
        return self._ledger.look_up(merchant, order)

    def _shown(self, record: Record, faults: list[Fault[Kind]]) -> Shown:
        if any(fault.kind.other for fault in faults):
            record = self._ledger.other_than(record)
        shown = self._ledger.lookup_shown(record) if self._operation == "lookup" else record.shown()
        for fault in faults:
            shown = fault.kind.alter(shown)
        return numeric(shown) if self._ledger.numeric_currency else shown
