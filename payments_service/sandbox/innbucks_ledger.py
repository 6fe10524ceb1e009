"""What the simulated InnBucks knows and does, without HTTP: merchants, tokens, codes, their customers, faults."""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Literal

from payments_service.money import Currency, Money
from payments_service.sandbox import innbucks_faults
from payments_service.sandbox.faults import Fault, Faults
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.innbucks_codes import ENDED, NEW, PAID, Code, Merchant
from payments_service.sandbox.innbucks_faults import Kind
from payments_service.sandbox.innbucks_replies import Finalised
from payments_service.sandbox.lifetime import Lifetime
from payments_service.sandbox.pay_codes import Bill, NoSuchCode

_CODE = re.compile(r"[0-9]{6,9}", re.ASCII)

InquiryPath = Literal["/api/code/inquiry", "/api/code/query"]


class InnbucksLedger(Lifetime):
    """The state of one simulated InnBucks and everything that a test or a person may do to it.

    `public_url` is the address of the server, such as `http://127.0.0.1:8082`; it may be set once the port is known.
    `clock` gives Unix seconds: tokens and codes end by it. `calls` counts the requests per operation (`auth`,
    `generate`, `inquiry`, `statement`), `absent` those to addresses that there are not, and `redirected` whoever
    followed the redirect fault. `add_fault` plans one (see `innbucks_faults.plan`), `clear_faults` forgets them.
    """

    def __init__(self, public_url: str = "") -> None:
        self.public_url = public_url
        self.clock: Callable[[], float] = time.time
        self.merchants: dict[str, Merchant] = {}
        self.codes: list[Code] = []
        self.faults = Faults(innbucks_faults.plan)
        self.add_fault, self.clear_faults = self.faults.add, self.faults.forget
        self.calls: Counter[str] = Counter()
        # Switches: what the page leaves open, and what a benchmark needs.
        self.delay_seconds = 0.0
        self.code_seconds = 600.0
        self.token_seconds = 900.0
        self.inquiry_path: InquiryPath = "/api/code/inquiry"
        self.absent_status: Literal[404, 405] = 404
        self.finalised: Finalised = "ok"
        self.statement_rows = 10
        self._planned: deque[str] = deque()
        self._by_digits: dict[str, Code] = {}
        self._by_reference: dict[str, Code] = {}
        self._tokens: dict[str, tuple[Merchant, float]] = {}
        self._references: set[tuple[str, str]] = set()

    async def settled(self) -> None:
        """Nothing is ever under way: there are no callbacks."""

    @property
    def url(self) -> str:
        """The gateway's base URL: what `INNBUCKS_URL` is set to."""
        return f"{self.public_url}/innbucks"

    # --- merchants and their tokens

    def add_merchant(self, username: str, password: str, api_key: str, account_id: str, name: str) -> Merchant:
        """Make a merchant known, or replace it; tokens that were given to the old one open nothing then."""
        merchant = Merchant(username, password, api_key, account_id, name)
        self.expire_tokens(username)
        self.merchants[username] = merchant
        return merchant

    def has_key(self, api_key: str) -> bool:
        return any(merchant.api_key == api_key for merchant in self.merchants.values())

    def identify(self, api_key: str, username: str, password: str) -> Merchant | None:
        """The merchant to whom all three belong."""
        merchant = self.merchants.get(username)
        if merchant is None or (merchant.api_key, merchant.password) != (api_key, password):
            return None
        return merchant

    def sign_in(self, merchant: Merchant) -> str:
        """A fresh token; the earlier ones stay good."""
        token = secrets.token_urlsafe(24)
        self._tokens[token] = (merchant, self.clock() + self.token_seconds)
        return token

    def holder(self, api_key: str, token: str) -> Merchant | None:
        """Whose token this is, if it is still good and came with its owner's API key."""
        merchant, end = self._tokens.get(token, (None, 0.0))
        if merchant is None or merchant.api_key != api_key or self.clock() >= end:
            return None
        return merchant

    def expire_tokens(self, username: str = "") -> None:
        """End the tokens of this merchant, or all."""
        kept = self._tokens.items() if username else ()
        self._tokens = {token: own for token, own in kept if own[0].username != username}

    # --- codes

    def mint(self, merchant: Merchant, reference: str, narration: str, amount: int) -> Code:
        """A new code for so many cents. The same reference again makes another one: nothing is idempotent here."""
        now = self.clock()
        digits = self._new_digits()
        ends_at = now + self.code_seconds
        code = Code(merchant, reference, narration, amount, digits, now, ends_at, lambda: self.clock())
        self.codes.append(code)
        self._by_digits[digits] = self._by_reference[reference] = code
        self._references.add((merchant.username, reference))
        return code

    def plan_code(self, digits: str) -> None:
        """The next code has these 6 to 9 digits, unless they are a live one's by then. ValueError: other digits."""
        if not _CODE.fullmatch(digits):
            raise ValueError(f"{digits!r} cannot be a code: it has 6 to 9 digits")
        self._planned.append(digits)

    def _new_digits(self) -> str:
        """What was planned, else fresh digits: live codes are all different."""
        while self._planned:
            known = self._by_digits.get(digits := self._planned.popleft())
            if known is None or not known.live:
                return digits
        return self._unused_digits()

    def _unused_digits(self) -> str:
        """6 to 9 digits, the first of which may be a zero."""
        while True:
            length = 6 + secrets.randbelow(4)
            digits = f"{secrets.randbelow(10**length):0{length}d}"
            if digits not in self._by_digits:
                return digits

    def code_of(self, merchant: Merchant, digits: str) -> Code | None:
        """The merchant's own code: of others it learns nothing."""
        code = self._by_digits.get(digits)
        return code if code and code.merchant.username == merchant.username else None

    def codes_of(self, merchant: Merchant) -> list[Code]:
        """The merchant's codes, newest first."""
        return [code for code in reversed(self.codes) if code.merchant.username == merchant.username]

    def another(self, merchant: Merchant, digits: str) -> Code:
        """The merchant's newest code but this one; if there is no other, one that is invented, and paid."""
        for code in self.codes_of(merchant):
            if code.code != digits:
                return code
        now, this = self.clock(), self._by_digits.get(digits)
        amount = this.amount if this else 100
        return Code(merchant, "", "", amount, self._unused_digits(), now, now, self.clock, PAID[0], now)

    def use_reference(self, merchant: Merchant, reference: str) -> bool:
        """Note the reference of a call. Whether it is the first with it: one under which a code was made counts too."""
        used = (merchant.username, reference) in self._references
        self._references.add((merchant.username, reference))
        return not used

    def find(self, reference: str) -> Code:
        """The code with these digits; else the newest made under this reference, or one led by it and a `-`.

        Raises UnknownReference.
        """
        for known in (self._by_digits, self._by_reference):
            if reference in known:
                return known[reference]
        found = next((code for code in reversed(self.codes) if code.is_named(reference)), None)
        if found is None:
            raise UnknownReference(
                f"no code has the digits or the reference {reference!r}, nor one led by it and a '-'"
            )
        return found

    # --- the customer

    async def pay_code(self, code: str, amount: int | None = None) -> Code:
        """The customer types the code in the app; with `amount` another sum than was asked, in cents.

        Raises NoSuchCode: unknown, used, or expired.
        """
        return _pay(self._payable(code), amount)

    async def pay(self, reference: str, amount: int | None = None) -> Code:
        """`pay_code` by any name. It and its siblings raise UnknownReference, and WrongMove when it is too late."""
        return _pay(self._at(reference, NEW), amount)

    async def claim(self, reference: str) -> Code:
        """The code is paid with the other word for it."""
        code = self._at(reference, NEW, PAID[0])
        return _close(code, PAID[1], code.told_amount)

    async def expire(self, reference: str) -> Code:
        """The code's life ends now."""
        return _close(self._at(reference, NEW), ENDED[0])

    async def pay_late(self, reference: str, amount: int | None = None) -> Code:
        """A code that has ended is paid all the same."""
        return _pay(self._at(reference, *ENDED), amount)

    async def set_status(self, reference: str, status: str) -> Code:
        """Put any status, also one that the page does not know. ValueError: there is no empty one."""
        if not status:
            raise ValueError("a status has at least one character")
        code = self.find(reference)
        return _close(code, status, code.told_amount if status in PAID else None)

    def _at(self, reference: str, *statuses: str) -> Code:
        code = self.find(reference)
        if code.status not in statuses:
            raise WrongMove(f"the code {code.code} of {code.reference} is {code.status}, not {' or '.join(statuses)}")
        return code

    # --- the customer's app

    def bill(self, code: str) -> Bill:
        """What the app shows before it pays, or NoSuchCode: see `pay_code`."""
        return _bill(self._payable(code))

    def receipts(self) -> list[Bill]:
        """What was paid, oldest first."""
        return [_bill(code) for code in self.codes if code.paid_amount is not None]

    def _payable(self, digits: str) -> Code:
        code = self._by_digits.get(digits)
        if code is None:
            raise NoSuchCode(f"no payment has the code {digits}", "unknown")
        if code.status in ENDED:
            raise NoSuchCode(f"the code {digits} has expired", "expired")
        if not code.live:
            raise NoSuchCode(f"the code {digits} is used up: it is {code.status}", "used")
        return code

    def use_fault(self, operation: str, is_named: Callable[[str], bool]) -> Fault[Kind] | None:
        """The first planned fault that strikes this request, counted as used once more."""
        return next(self.faults.striking(operation, is_named), None)


def _pay(code: Code, amount: int | None) -> Code:
    if amount is not None and amount < 1:
        raise ValueError("amount is in whole cents, 1 or more")
    return _close(code, PAID[0], code.amount if amount is None else amount)


def _close(code: Code, status: str, paid_amount: int | None = None) -> Code:
    code.put, code.closed_at = status, code.clock()
    if paid_amount is not None:
        code.paid_amount = paid_amount
    return code


def _bill(code: Code) -> Bill:
    amount = Money(code.told_amount, Currency.USD)  # in practice: an account's currency is told nowhere
    return Bill(code.code, code.merchant.name, amount, code.reference, code.status, code.ends_at)
