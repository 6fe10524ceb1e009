"""What the simulated Paynow knows and does, without HTTP: integrations, transactions, moves, faults, callbacks."""

from __future__ import annotations

import time
from collections import Counter
from urllib.parse import quote

from payments_service.money import Currency, parse_major
from payments_service.sandbox import paynow_faults, wire
from payments_service.sandbox.callbacks import Batch, Callbacks, Delivery
from payments_service.sandbox.faults import Faults
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.lifetime import Lifetime
from payments_service.sandbox.paynow_faults import Fault
from payments_service.sandbox.paynow_transactions import (
    Integration,
    Refusal,
    Transaction,
    check_owner_email,
    draft,
)
from payments_service.sandbox.wire import Pairs

_TRACE_LENGTH = 32
# paynowreference counts up from the clock, so that a restarted simulator never gives a number again.
_EPOCH_MS = 1_735_689_600_000  # 2025-01-01


class Ledger(Lifetime):
    """The state of one simulated Paynow and everything that a test or a person may do to it.

    `public_url` is the base of browserurl and pollurl, such as `http://127.0.0.1:8082`; it may be set once
    the port is known. `add_fault` plans one (see `paynow_faults.plan`), `clear_faults` forgets them. Actions need a
    running loop, for callbacks are posted in its background. Close it, or use it as `async with`.
    """

    def __init__(self, public_url: str = "", *, callbacks: Callbacks | None = None) -> None:
        self.public_url = public_url
        self.callbacks = callbacks or Callbacks()
        self.integrations: dict[str, Integration] = {}
        self.faults = Faults(paynow_faults.plan)
        self.add_fault, self.clear_faults = self.faults.add, self.faults.forget
        self.calls: Counter[str] = Counter()
        # Switches: what the page leaves open, and what a benchmark needs.
        self.delay_seconds = 0.0
        self.reference_in_reply = False
        self.extra_fields: Pairs = []
        self.neighbours: list[tuple[str, str]] = []  # other simulators on this port: title, path of the overview
        self._by_number: dict[int, Transaction] = {}
        self._by_guid: dict[str, Transaction] = {}
        self._by_reference: dict[tuple[str, str], Transaction] = {}
        self._by_trace: dict[tuple[str, str], Transaction] = {}
        self._next_number = time.time_ns() // 1_000_000 - _EPOCH_MS

    async def close(self) -> None:
        """Drop the callbacks and the test numbers' answers that are under way, and the connections."""
        await self.callbacks.close()

    async def settled(self) -> None:
        """Wait until no callback is under way, resends included, and every test number has answered."""
        await self.callbacks.settled()

    # --- integrations

    def add_integration(
        self,
        id: str,  # noqa: A002 - the protocol's word
        key: str,
        currency: str = "USD",
        test_mode: bool = False,
        owner_email: str = "merchant@example.com",
    ) -> Integration:
        """Make an integration known, or replace it. Its `active`, `test_mode` and `methods` may change later."""
        integration = Integration(id, key, Currency(currency), test_mode, owner_email)
        self.integrations[id] = integration
        return integration

    # --- transactions

    @property
    def transactions(self) -> list[Transaction]:
        """Every transaction, oldest first."""
        return list(self._by_number.values())

    @property
    def deliveries(self) -> list[Delivery]:
        """Every try of a callback, oldest first."""
        return list(self.callbacks.deliveries)

    def find(self, reference: str) -> Transaction:
        """The newest transaction with this reference, else the newest whose reference goes on after it with `-`.

        Raises UnknownReference.
        """
        exact = [
            self._by_reference[key] for owner in self.integrations if (key := (owner, reference)) in self._by_reference
        ]
        if exact:
            return max(exact, key=lambda transaction: transaction.number)
        for transaction in reversed(self._by_number.values()):
            if transaction.is_named(reference):
                return transaction
        raise UnknownReference(f"no transaction has the reference {reference!r}, nor one led by it and a '-'")

    def by_number(self, number: int) -> Transaction | None:
        return self._by_number.get(number)

    def by_guid(self, guid: str) -> Transaction | None:
        return self._by_guid.get(guid.lower())

    def by_trace(self, integration: Integration, merchanttrace: str) -> Transaction | None:
        return self._by_trace.get((integration.id, merchanttrace))

    def create(self, integration: Integration, fields: dict[str, str]) -> Transaction:
        """Accept an initiate request whose hash is right, or raise Refusal (section 2)."""
        check_owner_email(integration, fields)
        transaction = self._draft(integration, fields)
        self._remember(transaction)
        return transaction

    def _draft(self, integration: Integration, fields: dict[str, str]) -> Transaction:
        self._check_trace(integration, fields.get("merchanttrace", ""))
        return draft(self._next_number, integration, fields)

    def _check_trace(self, integration: Integration, trace: str) -> None:
        if len(trace) > _TRACE_LENGTH:
            raise Refusal(f"Invalid merchanttrace field: at most {_TRACE_LENGTH} characters")
        if trace and self.by_trace(integration, trace):
            raise Refusal("Duplicate merchanttrace")

    def _remember(self, transaction: Transaction) -> None:
        self._next_number += 1
        self._by_number[transaction.number] = transaction
        self._by_guid[transaction.guid] = transaction
        self._by_reference[transaction.integration.id, transaction.reference] = transaction
        if transaction.merchanttrace:
            self._by_trace[transaction.integration.id, transaction.merchanttrace] = transaction
        for fault in self.faults:
            if fault.next:
                fault.next, fault.transaction = False, transaction

    # --- moves

    async def pay(self, reference: str, amount: str | None = None) -> Transaction:
        """The customer pays; with `amount`, such as "4.00", another amount than asked, which all messages then tell.

        This and its siblings raise UnknownReference, and WrongMove when the status does not lead there.
        """
        transaction = self.find(reference)
        paid = transaction.amount if amount is None else parse_major(amount, transaction.amount.currency)
        self.check_move(transaction, "Paid")
        transaction.amount = paid
        return self.move(transaction, "Paid")

    async def cancel(self, reference: str) -> Transaction:
        return self.move(self.find(reference), "Cancelled")

    async def fail(self, reference: str) -> Transaction:
        return self.move(self.find(reference), "Failed")

    async def dispute(self, reference: str) -> Transaction:
        return self.move(self.find(reference), "Disputed")

    async def refund(self, reference: str) -> Transaction:
        return self.move(self.find(reference), "Refunded")

    async def set_status(self, reference: str, status: str) -> Transaction:
        """Put any status, also one that no move leads to or that the protocol does not know, and announce it."""
        return self._enter(self.find(reference), status)

    def check_move(self, transaction: Transaction, status: str) -> None:
        if status not in transaction.moves:
            raise WrongMove(f"{transaction.shown_reference} is {transaction.status}: it cannot become {status}")

    def move(self, transaction: Transaction, status: str) -> Transaction:
        self.check_move(transaction, status)
        return self._enter(transaction, status)

    def _enter(self, transaction: Transaction, status: str) -> Transaction:
        transaction.status = status
        transaction.history.append(status)
        self._announce(transaction)
        return transaction

    # --- messages

    def opening(self, transaction: Transaction) -> Pairs:
        """The reply to initiate (section 2), unsigned."""
        prefill = f"/{quote(transaction.authemail, safe='@+')}//" if transaction.authemail else ""
        page = f"{self.public_url}/Payment/ConfirmPayment/{transaction.number}{prefill}"
        message = [("status", "Ok"), ("browserurl", page), ("pollurl", self.pollurl(transaction))]
        return [*message, ("paynowreference", str(transaction.number))] if self.reference_in_reply else message

    def message(self, transaction: Transaction) -> Pairs:
        """The status message (section 4), unsigned, in the order that Paynow really sends."""
        return [
            ("reference", transaction.reference.strip()),
            ("paynowreference", str(transaction.number)),
            ("amount", transaction.amount.major()),
            ("status", transaction.status),
            ("pollurl", self.pollurl(transaction)),
            *self.extra_fields,
        ]

    def pollurl(self, transaction: Transaction) -> str:
        return f"{self.public_url}/Interface/CheckPayment/?guid={transaction.guid}"

    def _announce(self, transaction: Transaction) -> None:
        planned = self.use_faults(transaction, "callback")
        batches = [Batch([self.message(transaction)])]
        for fault in planned:
            batches = fault.kind.schedule(fault, batches)
        key = transaction.integration.key
        sealed = [Batch([seal(message, key, planned) for message in one.messages], one.after) for one in batches]
        if sealed:
            self.callbacks.start(transaction.reference, transaction.resulturl, sealed)

    # --- faults

    def faults_of(self, transaction: Transaction) -> list[Fault]:
        """The faults that concern the transaction and are not used up."""
        return [fault for fault in self.faults.unspent if fault.concerns(transaction)]

    def use_faults(self, transaction: Transaction, operation: str) -> list[Fault]:
        """The faults that interfere with this operation now, each counted as used once."""
        return [fault for fault in self.faults_of(transaction) if fault.strikes(operation, transaction.is_named)]


def seal(message: Pairs, key: str, planned: list[Fault]) -> bytes:
    """The message altered, signed, spoilt and encoded."""
    for fault in planned:
        message = fault.kind.alter(fault, message)
    message = wire.sign(message, key)
    for fault in planned:
        message = fault.kind.spoil(fault, message)
    return wire.encode(message)
