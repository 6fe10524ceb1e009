"""Express checkout (section 3) at the simulated Paynow, without HTTP: PIN prompts, codes, OTPs, test numbers."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote_plus

from payments_service.sandbox.callbacks import Callbacks
from payments_service.sandbox.hands import WrongMove, WrongPin
from payments_service.sandbox.local import HARARE, is_local_number
from payments_service.sandbox.pay_codes import Bill, NoSuchCode
from payments_service.sandbox.paynow_ledger import Ledger
from payments_service.sandbox.paynow_transactions import METHODS, Integration, Refusal, Transaction
from payments_service.sandbox.wire import Pairs

PROMPTED = ("ecocash", "onemoney")  # the phone asks for a PIN
MOBILE = (*PROMPTED, "omari")  # a phone number is required

_PIN = re.compile(r"[0-9]{4}", re.ASCII)
_WRONG_PIN = "0000"
_PIN_TRIES = 3
_OTP_TRIES = 5
# strftime's %b follows the machine's language; the wire does not.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TAKEN = ("Paid", "Awaiting Delivery", "Delivered", "Disputed", "Refunded")  # the customer's money, at some time
_TEST_MODE = "The ID specified is currently in test mode. "


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a test number of section 6 does by itself: `status` after `seconds`, or the Error `refusal` at once."""

    title: str
    seconds: float = 0.0
    status: str = ""
    refusal: str = ""


# Of the titles only "Success" is documented; the others follow it.
REHEARSALS = {
    "0771111111": Rehearsal("Success", 5.0, "Paid"),
    "0772222222": Rehearsal("Delayed Success", 30.0, "Paid"),
    "0773333333": Rehearsal("User Cancelled", 30.0, "Cancelled"),
    "0774444444": Rehearsal("Insufficient Balance", refusal="Insufficient balance"),
}


class ExpressLedger(Ledger):
    """The ledger with express transactions and the hands of their customers.

    `pace` stretches the waits of the test numbers (0.01: a hundred times faster), `code_seconds` is the life
    of a new InnBucks code, `prompts` counts what was sent to each phone number: PIN prompts and OTP messages.
    """

    def __init__(self, public_url: str = "", *, callbacks: Callbacks | None = None) -> None:
        super().__init__(public_url, callbacks=callbacks)
        self.pace = 1.0
        self.code_seconds = 600.0
        self.prompts: Counter[str] = Counter()
        self._by_code: dict[str, Transaction] = {}

    # --- the request

    def create_express(self, integration: Integration, fields: dict[str, str]) -> Transaction:
        """Accept a remotetransaction request whose hash is right, or raise Refusal (sections 3 and 6).

        The transaction stands at `Sent`, and its customer has the prompt or the OTP. Needs a running loop.
        """
        method, phone = _check_method(integration, fields)
        transaction = self._draft(integration, fields)
        rehearsal = rehearsal_of(method, phone)
        if rehearsal and rehearsal.refusal:
            raise Refusal(rehearsal.refusal)
        transaction.method, transaction.phone, transaction.status = method, phone, "Sent"
        transaction.history.append("Sent")
        self._remember(transaction)
        self._ask_customer(transaction)
        if rehearsal:
            self.callbacks.background(self._act_out(transaction, rehearsal))
        return transaction

    def _ask_customer(self, transaction: Transaction) -> None:
        if transaction.method in MOBILE:
            self.prompts[transaction.phone] += 1
        if transaction.method == "omari":
            transaction.otp = f"{secrets.randbelow(1_000_000):06d}"
            transaction.otp_reference = secrets.token_hex(3).upper()
        if transaction.method == "innbucks":
            transaction.code = self._new_code()
            transaction.code_expires = datetime.now(UTC) + timedelta(seconds=self.code_seconds)
            self._by_code[transaction.code] = transaction

    def _new_code(self) -> str:
        while (code := str(secrets.randbelow(900_000_000) + 100_000_000)) in self._by_code:
            pass
        return code

    async def _act_out(self, transaction: Transaction, rehearsal: Rehearsal) -> None:
        await asyncio.sleep(rehearsal.seconds * self.pace)
        if transaction.open:  # nobody was faster
            self.move(transaction, rehearsal.status)

    def express_opening(self, transaction: Transaction) -> Pairs:
        """The reply to remotetransaction (section 3), unsigned."""
        message = [
            ("status", "Ok"),
            ("instructions", _instructions(transaction)),
            ("paynowreference", str(transaction.number)),
            ("pollurl", self.pollurl(transaction)),
        ]
        if transaction.code_expires:
            message.append(("authorizationcode", transaction.code))
            message.append(("authorizationexpires", wire_time(transaction.code_expires)))
        if transaction.otp:
            message.append(("otpreference", transaction.otp_reference))
            message.append(("remoteotpurl", f"{self.public_url}/Interface/RemoteOtp/?guid={transaction.guid}"))
        return message

    # --- the customer

    async def approve(self, reference: str, pin: str = "1234") -> Transaction:
        """The customer types a PIN at the EcoCash or OneMoney prompt: four digits pay, except `0000`.

        Raises UnknownReference; WrongMove when no prompt is open; WrongPin, and the third time the payment fails.
        """
        return self.enter_pin(self.find(reference), pin)

    def enter_pin(self, transaction: Transaction, pin: str) -> Transaction:
        """`approve` for a transaction at hand."""
        self._check_asked(transaction, PROMPTED, "PIN")
        if _PIN.fullmatch(pin) and pin != _WRONG_PIN:
            return self.move(transaction, "Paid")
        transaction.pin_failures += 1
        left = pin_tries_left(transaction)
        if not left:
            self.move(transaction, "Failed")
            raise WrongPin(f"wrong PIN for {transaction.shown_reference} for the third time: the payment failed")
        raise WrongPin(f"wrong PIN for {transaction.shown_reference}: {left} more may be tried")

    async def decline(self, reference: str) -> Transaction:
        """The customer declines on the phone. Raises UnknownReference, or WrongMove when nothing is asked of them."""
        return self.turn_down(self.find(reference))

    def turn_down(self, transaction: Transaction) -> Transaction:
        """`decline` for a transaction at hand."""
        self._check_asked(transaction, METHODS, "answer")
        return self.move(transaction, "Cancelled")

    def otp_of(self, reference: str) -> str:
        """The six digits that the O'mari customer got by SMS. Raises UnknownReference, NoSuchCode."""
        transaction = self.find(reference)
        if not transaction.otp:
            raise NoSuchCode(f"{transaction.shown_reference} has no OTP: it is not paid by O'mari")
        return transaction.otp

    def enter_otp(self, transaction: Transaction, otp: str) -> bool:
        """Whether this was the right OTP, which pays; the fifth wrong one cancels (section 3). Raises WrongMove."""
        self._check_asked(transaction, ("omari",), "OTP")
        if otp == transaction.otp:
            self.move(transaction, "Paid")
            return True
        transaction.otp_failures += 1
        if transaction.otp_failures >= _OTP_TRIES:
            self.move(transaction, "Cancelled")
        return False

    def code_of(self, reference: str) -> str:
        """The digits that the InnBucks customer types in the app. Raises UnknownReference, NoSuchCode."""
        transaction = self.find(reference)
        if not transaction.code:
            raise NoSuchCode(f"{transaction.shown_reference} has no code: it is not paid by InnBucks")
        return transaction.code

    async def pay_code(self, code: str) -> Transaction:
        """The customer types the code in the InnBucks app. Raises NoSuchCode: unknown, used, or too late."""
        return self.move(self._payable(code), "Paid")

    def bill(self, code: str) -> Bill:
        """What the app shows before it pays. Raises NoSuchCode like `pay_code`."""
        return _bill(self._payable(code))

    def receipts(self) -> list[Bill]:
        """What was paid by code, oldest first."""
        return [_bill(one) for one in self.transactions if one.method == "innbucks" and one.status in _TAKEN]

    def _payable(self, code: str) -> Transaction:
        transaction = self._by_code.get(code)
        if transaction is None:
            raise NoSuchCode(f"no payment has the code {code}", "unknown")
        if not transaction.open:
            raise NoSuchCode(f"the code {code} is used up: its payment is {transaction.status}", "used")
        if transaction.code_expires is None or transaction.code_expires <= datetime.now(UTC):
            raise NoSuchCode(f"the code {code} has expired", "expired")
        return transaction

    def _check_asked(self, transaction: Transaction, methods: tuple[str, ...] | dict[str, str], what: str) -> None:
        if transaction.method not in methods:
            kind = transaction.shown_method or "web"
            raise WrongMove(f"{transaction.shown_reference} is paid by {kind}: no {what} is asked for")
        if not transaction.open:
            raise WrongMove(f"{transaction.shown_reference} is {transaction.status}: no {what} is asked for any more")


def rehearsal_of(method: str, phone: str) -> Rehearsal | None:
    """What the phone does by itself, in test mode and out of it; None: a person acts (section 6)."""
    return REHEARSALS.get(phone) if method in PROMPTED else None


def pin_tries_left(transaction: Transaction) -> int:
    return max(0, _PIN_TRIES - transaction.pin_failures)


def wire_time(moment: datetime) -> str:
    """`28-Nov-2026 14:05`, in Harare's time whatever the moment's own (section 3)."""
    local = moment.astimezone(HARARE)
    return f"{local.day}-{_MONTHS[local.month - 1]}-{local.year} {local:%H:%M}"


def _check_method(integration: Integration, fields: dict[str, str]) -> tuple[str, str]:
    """The method and the phone number, or Refusal."""
    method, phone = fields.get("method", ""), fields.get("phone", "")
    if method not in METHODS:
        raise Refusal("Invalid method")
    if method not in integration.methods:
        raise Refusal(f"no ACTIVE {method} payment method")
    if method in MOBILE and not is_local_number(phone):
        raise Refusal("Invalid phone field")
    if not unquote_plus(fields.get("authemail", "")).strip():
        raise Refusal("Invalid authemail field")
    if integration.test_mode:
        _check_test_mode(method, phone)
    return method, phone


def _check_test_mode(method: str, phone: str) -> None:
    if method == "innbucks":
        raise Refusal(f"{_TEST_MODE}This is not permitted for remote InnBucks transactions")
    if phone not in REHEARSALS:
        raise Refusal(f"{_TEST_MODE}Only its test phone numbers can be used")


def _bill(transaction: Transaction) -> Bill:
    ends_at = transaction.code_expires.timestamp() if transaction.code_expires else 0.0
    merchant, reference = transaction.integration.owner_email, transaction.shown_reference
    return Bill(transaction.code, merchant, transaction.amount, reference, transaction.status, ends_at)


def _instructions(transaction: Transaction) -> str:
    """For the customer. Of these texts only the first is documented, from a live sample (section 6)."""
    if rehearsal := rehearsal_of(transaction.method, transaction.phone):
        return f"This is a test transaction. Test Case: {rehearsal.title}"
    if transaction.method == "innbucks":
        return "Open your InnBucks app, choose to pay by code and enter the code before it expires."
    if transaction.method == "omari":
        return f"An OTP was sent by SMS to {transaction.phone}. Enter it to pay from your O'mari wallet."
    return f"A prompt was sent to {transaction.phone}. Enter your {transaction.shown_method} PIN on the phone to pay."
