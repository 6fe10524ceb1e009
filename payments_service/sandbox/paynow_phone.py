"""How the simulated Paynow reaches a phone: express checkout's prompts, O'mari's SMS, the test numbers."""

from __future__ import annotations

from collections.abc import Iterator

from payments_service.sandbox.paynow_express import MOBILE, PROMPTED, ExpressLedger, pin_tries_left, rehearsal_of
from payments_service.sandbox.paynow_transactions import Transaction
from payments_service.sandbox.phone_line import Call, Note, Notice, Prompt, answer_prompt
from payments_service.sandbox.rendering import tone

# What the customer is told of a payment that is over: `{0}` is the amount, `{1}` the merchant.
_OUTCOMES = {
    "Paid": "You paid {0} to {1}.",
    "Awaiting Delivery": "You paid {0} to {1}. The money is held until delivery.",
    "Delivered": "You paid {0} to {1}. It was delivered.",
    "Cancelled": "The payment of {0} to {1} was cancelled. No money was taken.",
    "Failed": "The payment of {0} to {1} failed. No money was taken.",
    "Disputed": "Your payment of {0} to {1} is disputed.",
    "Refunded": "{1} gave you {0} back.",
}


class PaynowLine:
    """The phones of one ledger."""

    def __init__(self, ledger: ExpressLedger) -> None:
        self._ledger = ledger

    def calls(self) -> Iterator[Call]:
        for one in self._ledger.transactions:
            if one.method in MOBILE:
                yield Call(one.phone, one.open, one.created_at)

    def prompts(self, number: str) -> Iterator[Prompt]:
        for one in self._waiting(number):
            if one.method in PROMPTED and not rehearsal_of(one.method, number):
                yield Prompt(
                    id=_prompt_id(one),
                    wallet=one.shown_method,
                    asker=one.integration.owner_email,
                    amount=one.amount.shown(),
                    reference=one.shown_reference,
                    hint="four digits; 0000 is wrong",
                    at=one.created_at,
                    was_wrong=one.pin_failures > 0,
                    tries_left=pin_tries_left(one),
                )

    def notices(self, number: str) -> Iterator[Notice]:
        for one in self._waiting(number):
            asker, amount, at = one.integration.owner_email, one.amount.shown(), one.created_at
            if one.method == "omari":
                text, detail = "Your OTP, to be typed at the merchant:", f"OTP reference {one.otp_reference}"
                yield Notice(f"SMS from {one.shown_method}", asker, amount, text, at, one.otp, detail)
            elif rehearsal_of(one.method, number):
                text = "This number answers by itself, after some seconds."
                yield Notice(f"{one.shown_method} test number", asker, amount, text, at)

    def notes(self, number: str) -> Iterator[Note]:
        for one in self._of(number):
            if not one.open:
                yield Note(one.shown_method, told(one), tone(one.status), one.shown_reference, one.created_at)

    def answer(self, number: str, prompt: str, pin: str | None) -> bool:
        asked = (one for one in self._of(number) if one.method in PROMPTED)
        transaction = next((one for one in asked if _prompt_id(one) == prompt), None)
        return answer_prompt(self._ledger, transaction, pin)

    def _of(self, number: str) -> Iterator[Transaction]:
        return (one for one in self._ledger.transactions if one.phone == number and one.method in MOBILE)

    def _waiting(self, number: str) -> Iterator[Transaction]:
        return (one for one in self._of(number) if one.open)


def told(transaction: Transaction) -> str:
    """What the customer is told of a payment that is over."""
    amount, merchant = transaction.amount.shown(), transaction.integration.owner_email
    if transaction.status not in _OUTCOMES:
        return f"The payment of {amount} to {merchant} is {transaction.status} now."
    text = _OUTCOMES[transaction.status].format(amount, merchant)
    return text if pin_tries_left(transaction) else f"Wrong PIN, three times. {text}"


def _prompt_id(transaction: Transaction) -> str:
    return f"paynow-{transaction.number}"
