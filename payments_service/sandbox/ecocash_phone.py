"""How the simulated EcoCash reaches a phone: the prompts of all three dialects, and what became of them."""

from __future__ import annotations

from collections.abc import Iterator

from payments_service.sandbox.ecocash_charges import Charge, Ending
from payments_service.sandbox.ecocash_customers import EcocashCustomers, tries_left
from payments_service.sandbox.phone_line import Call, Note, Notice, Prompt, answer_prompt

_WALLET = "EcoCash"
_HINT = "1234 or 0000 pays; 1111: too little money; 9999: above a limit"

# What the customer is told of a payment that is over: `{0}` is the amount, `{1}` the merchant.
_OUTCOMES = {
    Ending.PAID: "You paid {0} to {1}.",
    Ending.DECLINED: "You declined to pay {0} to {1}. No money was taken.",
    Ending.TIMED_OUT: "{1} asked for {0}, and you did not answer in time. No money was taken.",
    Ending.NO_FUNDS: "There is not enough money in your wallet to pay {0} to {1}. No money was taken.",
    Ending.WRONG_PIN: "Wrong PIN, three times. The payment of {0} to {1} failed. No money was taken.",
    Ending.LIMIT: "The payment of {0} to {1} is above your wallet's limit. No money was taken.",
    Ending.FAILED: "The payment of {0} to {1} failed. No money was taken.",
}


class EcocashLine:
    """The phones of one ledger."""

    def __init__(self, ledger: EcocashCustomers) -> None:
        self._ledger = ledger

    def calls(self) -> Iterator[Call]:
        self._ledger.expire_due()
        for charge in self._ledger.charges:
            yield Call(local_number(charge.msisdn), charge.prompting, charge.at)

    def prompts(self, number: str) -> Iterator[Prompt]:
        for charge in self._of(number):
            if charge.prompting:
                yield Prompt(
                    id=_prompt_id(charge),
                    wallet=_WALLET,
                    asker=charge.merchant.name,
                    amount=charge.shown_amount,
                    reference=charge.reference_code or charge.remarks,
                    hint=_HINT,
                    at=charge.at,
                    was_wrong=charge.pin_failures > 0,
                    tries_left=tries_left(charge),
                )

    def notices(self, _number: str) -> Iterator[Notice]:
        return iter(())

    def notes(self, number: str) -> Iterator[Note]:
        for charge in self._of(number):
            reference, merchant = charge.reference_code or charge.remarks, charge.merchant.name
            if charge.ending:
                text = _OUTCOMES[charge.ending].format(charge.shown_amount, merchant)
                yield Note(_WALLET, text, "good" if charge.paid else "bad", reference, charge.at)
            for refund in charge.refunds:
                if refund.paid:
                    yield Note(
                        _WALLET, f"{merchant} gave you {refund.shown_amount} back.", "good", reference, refund.at
                    )

    def answer(self, number: str, prompt: str, pin: str | None) -> bool:
        charge = next((one for one in self._of(number) if _prompt_id(one) == prompt), None)
        return answer_prompt(self._ledger, charge, pin)

    def _of(self, number: str) -> Iterator[Charge]:
        self._ledger.expire_due()
        return (one for one in self._ledger.charges if local_number(one.msisdn) == number)


def local_number(msisdn: str) -> str:
    """`263771234567` as people write it: `0771234567`."""
    return f"0{msisdn.removeprefix('263')}"


def _prompt_id(charge: Charge) -> str:
    return f"ecocash-{charge.id}"
