"""What the simulated EcoCash knows, without HTTP: merchants, charges, refunds, callbacks, faults."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from payments_service.sandbox import ecocash_faults
from payments_service.sandbox.callbacks import Batch, Callbacks, Delivery
from payments_service.sandbox.ecocash_charges import (
    EIP,
    EIP_PORTAL,
    OPEN_API,
    USD,
    WORDS,
    ZWG,
    Charge,
    Ending,
    Merchant,
    Order,
    Record,
    Refund,
    Refused,
    Shown,
    currency_meant,
    is_called,
    mp_reference,
    plain,
)
from payments_service.sandbox.ecocash_dialect import Dialect, Switches
from payments_service.sandbox.ecocash_eip import Eip, Portal
from payments_service.sandbox.ecocash_faults import Kind
from payments_service.sandbox.ecocash_open_api import OpenApi
from payments_service.sandbox.faults import Fault, Faults
from payments_service.sandbox.hands import UnknownReference
from payments_service.sandbox.lifetime import Lifetime
from payments_service.sandbox.outbound import KEPT
from payments_service.sandbox.ticker import Ticker

_EPOCH_MS = 1_735_689_600_000  # 2025-01-01: ids count up from the clock, so that a restart never gives one again
_LINGERING = WORDS[EIP].pending[1:]
_CURRENCIES = (USD, ZWG)


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came; `merchant` is who it proved to be, if anybody."""

    operation: str
    dialect: str
    path: str
    body: bytes = field(repr=False)
    merchant: Merchant | None = None


class EcocashLedger(Switches, Lifetime):
    """The state of one simulated EcoCash.

    `public_url` is where its addresses begin, such as `http://127.0.0.1:8082`; it may be set once the port is known.
    `clock` gives epoch seconds, or a datetime; prompts end by it, `prompt_seconds` after they came (the real ones'
    life is unpublished [?]). `auto_approve_after`: so many seconds later every prompt is answered with a right PIN.
    `delay_seconds` holds every answer back. `refund_outcome` is what refunds become: `paid`, `pending` or `failed`.
    `barred` numbers cannot pay. `prompts` counts what each number was asked. `add_fault` plans one (see
    `ecocash_faults.plan`), `clear_faults` forgets them. Actions need a running loop, for callbacks are posted in its
    background. Close it, or use it as `async with`.
    """

    def __init__(self, public_url: str = "", *, callbacks: Callbacks | None = None) -> None:
        super().__init__()
        self.public_url = public_url
        self.clock: Callable[[], float | datetime] = time.time
        # Whether a callback that is refused comes again is unpublished [?]: the worse case is that it does not.
        self.callbacks = callbacks or Callbacks(resend_after=(), content_type="application/json")
        self.dialects: dict[str, Dialect] = {OPEN_API: OpenApi(self), EIP: Eip(self), EIP_PORTAL: Portal(self)}
        self.merchants: list[Merchant] = []
        self.faults = Faults(ecocash_faults.plan)
        self.add_fault, self.clear_faults = self.faults.add, self.faults.forget
        self.calls: Counter[str] = Counter()
        self.requests: deque[Seen] = deque(maxlen=KEPT)
        self.prompts: Counter[str] = Counter()
        self.barred: set[str] = set()
        self.prompt_seconds = 60.0
        self.auto_approve_after: float | None = None
        self.delay_seconds = 0.0
        self.refund_outcome = "paid"
        self._charges: dict[int, Charge] = {}
        self._records: dict[tuple[str, str, str], Record] = {}
        self._prompting: dict[int, Charge] = {}
        self._next_id = time.time_ns() // 1_000_000 - _EPOCH_MS
        self._ticker = Ticker(self.expire_due)

    def start(self) -> None:
        """From now on prompts end in time even while nobody asks for them."""
        self._ticker.start()

    async def close(self) -> None:
        """Drop the callbacks that are under way, and the connections."""
        await self._ticker.stop()
        await self.callbacks.close()

    async def settled(self) -> None:
        """Wait until no callback is under way, and every prompt that answers by itself has answered."""
        await self.callbacks.settled()

    @property
    def now(self) -> float:
        """Epoch seconds by `clock`."""
        moment = self.clock()
        return moment.timestamp() if isinstance(moment, datetime) else moment

    @property
    def deliveries(self) -> list[Delivery]:
        """Every try of a callback, oldest first; `reference` is the correlator."""
        return list(self.callbacks.deliveries)

    # --- merchants

    def add_merchant(
        self,
        dialect: str,
        *,
        name: str = "Merchant",
        code: str = "",
        api_key: str = "",
        username: str = "",
        password: str = "",
        pin: str = "",
        number: str = "",
        currencies: Iterable[str] = _CURRENCIES,
        callback_url: str = "",
    ) -> Merchant:
        """Make a merchant known, or replace the one with this login; what is left out is made up."""
        if dialect not in self.dialects:
            raise ValueError(f"there is no dialect {dialect!r}; there are {', '.join(self.dialects)}")
        merchant = Merchant(
            dialect=dialect,
            name=name,
            code=code or str(secrets.randbelow(900_000) + 100_000),
            number=number or f"7{secrets.randbelow(10**8):08d}",
            currencies=frozenset(map(currency_meant, currencies)),
            callback_url=callback_url,
        )
        if dialect == OPEN_API:
            merchant.api_key = api_key or secrets.token_urlsafe(24)
        else:
            merchant.username = username or f"merchant-{secrets.token_hex(4)}"
            merchant.password = password or secrets.token_urlsafe(12)
            merchant.pin = pin or f"{secrets.randbelow(10_000):04d}"
        self.merchants = [one for one in self.merchants if (one.dialect, one.login) != (dialect, merchant.login)]
        self.merchants.append(merchant)
        return merchant

    def merchant(self, dialect: str, login: str) -> Merchant | None:
        """The merchant with this API key or user name."""
        return next((one for one in self.merchants if (one.dialect, one.login) == (dialect, login)), None)

    # --- what the API does

    def charge(self, merchant: Merchant, order: Order) -> Charge:
        """Ask the phone for the PIN, or raise Refused. Needs a running loop."""
        self._check_order(merchant, order)
        if order.msisdn in self.barred:
            raise Refused("E011", "The subscriber is barred")
        words = WORDS[merchant.dialect]
        charge = Charge(
            **self._made(merchant, order),
            status=words.pending[0],
            notify_url=order.notify_url,
            history=[words.pending[0]],
        )
        self._remember(charge)
        self._charges[charge.id] = self._prompting[charge.id] = charge
        self.prompts[charge.msisdn] += 1
        if self.auto_approve_after is not None:
            self.callbacks.background(self._approve_by_itself(charge, self.auto_approve_after))
        return charge

    def look_up(self, merchant: Merchant, order: Order) -> Record | None:
        """The merchant's own charge or refund with this correlator, of this number; refunds so, too [?]."""
        found = self._records.get((merchant.dialect, merchant.login, plain(order.correlator)))
        if found is None or (found.msisdn, found.mode) != (order.msisdn, order.mode):
            return None
        return found

    def lookup_shown(self, record: Record) -> Shown:
        """What a look-up tells of it: perhaps not yet what has become of it."""
        shown = record.shown()
        if isinstance(record, Charge) and record.lagging:
            return replace(shown, status=record.lagging.pop(0), reference="")
        return shown

    def refund(self, merchant: Merchant, order: Order) -> Refund:
        """Give back a part of a charge that is paid, or all of it; else Refused."""
        self._check_order(merchant, order)
        charge = self._refundable(merchant, order)
        words = WORDS[merchant.dialect]
        status = {"paid": words.paid, "pending": words.pending[0], "failed": words.failed}[self.refund_outcome]
        refund = Refund(**self._made(merchant, order), status=status, charge=charge)
        self._remember(refund)
        charge.refunds.append(refund)
        return refund

    def _check_order(self, merchant: Merchant, order: Order) -> None:
        if (merchant.dialect, merchant.login, plain(order.correlator)) in self._records:
            raise Refused("E005", "Duplicate clientCorrelator")
        if self.spellings[merchant.dialect].get(order.currency) not in merchant.currencies:
            raise Refused("E003", f"Unsupported currency {order.currency}")

    def _refundable(self, merchant: Merchant, order: Order) -> Charge:
        """The charge that a refund names, if it may be refunded by so much."""
        charges = (one for one in reversed(self._charges.values()) if one.dialect == merchant.dialect)
        charge = next((one for one in charges if self._is_original(one, merchant, order)), None)
        if charge is None:
            raise Refused("E008", "The original transaction was not found")
        if not charge.paid:
            raise Refused("E009", "The original transaction is not completed")
        if currency_meant(charge.currency) != currency_meant(order.currency):
            raise Refused("E001", "currency is not the original transaction's")
        if charge.refunded + order.amount > charge.amount:
            raise Refused("E012", "The refund exceeds the original amount")
        return charge

    def _is_original(self, charge: Charge, merchant: Merchant, order: Order) -> bool:
        by_correlator = merchant.dialect == OPEN_API and plain(charge.correlator) == plain(order.original)
        ours = (charge.merchant.login, charge.msisdn, charge.mode) == (merchant.login, order.msisdn, order.mode)
        return ours and (by_correlator or charge.ecocash_reference == order.original)

    def _made(self, merchant: Merchant, order: Order) -> dict[str, Any]:
        """What a charge and a refund have in common."""
        self._next_id += 1
        return {
            "id": self._next_id,
            "merchant": merchant,
            "correlator": order.correlator,
            "msisdn": order.msisdn,
            "amount": order.amount,
            "currency": order.currency,
            "ecocash_reference": mp_reference(self.now, self._next_id),
            "at": self.now,
            "reference_code": order.reference_code,
            "remarks": order.remarks,
            "mode": order.mode,
        }

    def _remember(self, record: Record) -> None:
        self._records[record.dialect, record.merchant.login, plain(record.correlator)] = record

    # --- what there is

    @property
    def charges(self) -> list[Charge]:
        """Every charge, oldest first."""
        return list(self._charges.values())

    def by_id(self, number: int) -> Charge | None:
        return self._charges.get(number)

    def find(self, name: str) -> Charge:
        """The newest charge that this is the correlator, the reference or EcoCash's reference of; else the newest in
        whose reference or reason it stands (see `is_called`). Raises UnknownReference."""
        self.expire_due()
        for charge in reversed(self._charges.values()):
            whole = (charge.ecocash_reference, charge.reference_code)
            if plain(name) == plain(charge.correlator) or (name and name in whole):
                return charge
        for charge in reversed(self._charges.values()):
            if is_called(name, *charge.names):
                return charge
        raise UnknownReference(f"no charge is called {name!r}: by correlator, EcoCash's reference, reference or reason")

    def other_than(self, record: Record) -> Record:
        """Another charge of the merchant, the newest; an invented one if there is none."""
        for charge in reversed(self._charges.values()):
            if charge.merchant is record.merchant and charge is not record:
                return charge
        return replace(record, correlator=record.correlator[:-4] + secrets.token_hex(2))

    # --- how a charge ends

    def expire_due(self) -> None:
        """End the prompts whose time has come. Every request and every action does so first."""
        for charge in list(self._prompting.values()):
            if not charge.prompting or charge.held:
                del self._prompting[charge.id]
            elif self.now >= charge.at + self.prompt_seconds:
                self.end(charge, Ending.TIMED_OUT)

    def end(self, charge: Charge, ending: Ending) -> Charge:
        """It is over now, and whoever waits for it is told."""
        if ending is Ending.PAID and self.lingers and charge.dialect == EIP:
            charge.lagging = list(_LINGERING)
        return self.enter(charge, self._word(charge, ending), ending)

    def enter(self, charge: Charge, status: str, ending: Ending | None) -> Charge:
        charge.status, charge.ending = status, ending
        charge.history.append(status)
        self._announce(charge)
        return charge

    def _word(self, charge: Charge, ending: Ending) -> str:
        if ending is Ending.PAID:
            return charge.words.paid
        if charge.dialect == OPEN_API and ending is Ending.TIMED_OUT:
            return self.open_api_expired
        if charge.dialect == OPEN_API and ending is Ending.DECLINED:
            return self.open_api_declined
        return charge.words.failed

    async def _approve_by_itself(self, charge: Charge, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.expire_due()
        if charge.prompting:  # nobody was faster
            self.end(charge, Ending.PAID)

    def _announce(self, charge: Charge) -> None:
        """To the merchant's own address in open_api, else to the charge's notifyUrl."""
        url = charge.merchant.callback_url if charge.dialect == OPEN_API else charge.notify_url
        if not url:
            return
        write, shown = self.dialects[charge.dialect].callback, charge.shown()
        stale = write(replace(shown, status=charge.words.pending[0], reference=""))
        batches = [Batch([write(shown)])]
        for fault in self.use_faults("callback", charge.names):
            batches = fault.kind.schedule(fault, batches, stale)
        if batches:
            self.callbacks.start(charge.correlator, url, batches)

    def use_faults(self, operation: str, names: tuple[str, ...]) -> list[Fault[Kind]]:
        """The faults that interfere now, each counted as used once."""
        return list(self.faults.striking(operation, lambda name: is_called(name, *names)))
