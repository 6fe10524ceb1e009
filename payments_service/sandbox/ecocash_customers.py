"""The customers of the simulated EcoCash, and who else moves a charge: by hand, by a test, by remote control."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from payments_service.sandbox.ecocash_charges import Charge, Ending, Refund, currency_meant, is_called
from payments_service.sandbox.ecocash_dialect import MOST
from payments_service.sandbox.ecocash_ledger import EcocashLedger
from payments_service.sandbox.hands import WrongMove, WrongPin

PIN_TRIES = 3

# The portal has 0000, 1111, 2222 and 9999; open_api 0000, 1234 and 9999, without saying what each does. Here all
# dialects understand all of them, the portal's way.
RIGHT_PINS = ("0000", "1234")
POOR_PIN, WRONG_PIN, LIMIT_PIN = "1111", "2222", "9999"


class EcocashCustomers(EcocashLedger):
    """The ledger with the hands of its customers. `name` is whatever `find` understands.

    Raises UnknownReference: nothing is called that; WrongMove: the charge's state does not lead there.
    """

    async def approve(self, name: str, pin: str = "1234") -> Charge:
        """The customer types a PIN at the prompt, in every dialect: `0000` and `1234` pay, `1111` has not enough
        money, `9999` is above a limit, both of which end the charge; `2222` and all others are wrong.

        Raises WrongPin as well, and the third time the charge has failed.
        """
        return self.enter_pin(self.find(name), pin)

    def enter_pin(self, charge: Charge, pin: str) -> Charge:
        """`approve` for a charge at hand."""
        self._check_prompting(charge)
        if pin in RIGHT_PINS:
            return self.end(charge, Ending.PAID)
        if pin == POOR_PIN:
            return self.end(charge, Ending.NO_FUNDS)
        if pin == LIMIT_PIN:
            return self.end(charge, Ending.LIMIT)
        charge.pin_failures += 1
        if charge.pin_failures < PIN_TRIES:
            raise WrongPin(f"wrong PIN for {charge.correlator}: {PIN_TRIES - charge.pin_failures} more may be tried")
        self.end(charge, Ending.WRONG_PIN)
        raise WrongPin(f"wrong PIN for {charge.correlator} for the third time: the charge failed")

    async def decline(self, name: str) -> Charge:
        """The customer declines on the phone."""
        return self.turn_down(self.find(name))

    def turn_down(self, charge: Charge) -> Charge:
        """`decline` for a charge at hand."""
        self._check_prompting(charge)
        return self.end(charge, Ending.DECLINED)

    async def ignore(self, name: str) -> Charge:
        """The customer does nothing, until the prompt has timed out: that is now."""
        charge = self.find(name)
        self._check_prompting(charge)
        return self.end(charge, Ending.TIMED_OUT)

    async def fail(self, name: str) -> Charge:
        """The charge fails, for whatever reason."""
        charge = self.find(name)
        self._check_open(charge)
        return self.end(charge, Ending.FAILED)

    async def pay(self, name: str, amount: Decimal | str | None = None, currency: str | None = None) -> Charge:
        """The charge is paid; with `amount` (major units) or `currency`, in others than asked, which all answers then
        tell."""
        charge = self.find(name)
        self._check_open(charge)
        paid = charge.amount if amount is None else _amount(amount)
        if currency is not None:
            currency_meant(currency)
            charge.currency = currency
        charge.amount = paid
        return self.end(charge, Ending.PAID)

    async def complete_late(self, name: str) -> Charge:
        """A charge that ended unpaid is paid after all."""
        charge = self.find(name)
        if charge.open or charge.paid:
            raise WrongMove(f"{charge.correlator} is {charge.status}: only what ended unpaid is completed late")
        return self.end(charge, Ending.PAID)

    async def set_status(self, name: str, word: str) -> Charge | Refund:
        """Put any status, also one that the protocol does not know, on a charge or, by its correlator, a refund.

        Whoever waits for the charge is told. A pending word opens it again, for as long as it is left so.
        """
        if refund := self._refund(name):
            refund.status = word
            return refund
        charge = self.find(name)
        charge.held, charge.lagging = True, []
        if word in charge.words.pending:
            return self.enter(charge, word, None)
        return self.enter(charge, word, Ending.PAID if word == charge.words.paid else Ending.FAILED)

    async def reuse_reference(self, name: str, other: str) -> Charge:
        """EcoCash's reference of the charge becomes that of another one. Nobody is told."""
        charge = self.find(name)
        charge.ecocash_reference = self.find(other).ecocash_reference
        return charge

    def _refund(self, name: str) -> Refund | None:
        refunds = (refund for charge in self.charges for refund in charge.refunds)
        return next((one for one in refunds if is_called(name, one.correlator)), None)

    def _check_prompting(self, charge: Charge) -> None:
        if not charge.prompting:
            raise WrongMove(f"{charge.correlator} is {charge.status}: no PIN is asked for any more")

    def _check_open(self, charge: Charge) -> None:
        if not charge.open:
            raise WrongMove(f"{charge.correlator} is {charge.status} already")


def tries_left(charge: Charge) -> int:
    return max(0, PIN_TRIES - charge.pin_failures)


def _amount(value: Decimal | str) -> Decimal:
    try:
        amount = Decimal(value)
        if 0 < amount <= MOST:
            return amount
    except InvalidOperation:  # no number; NaN cannot be compared
        pass
    raise ValueError(f"{value!r} is no amount above 0")
