"""What a customer and the banks may do to a simulated Checkout Session, with the events that tell of it."""

from __future__ import annotations

from payments_service.sandbox import stripe_objects
from payments_service.sandbox.hands import WrongMove
from payments_service.sandbox.stripe_accounts import Account, Object, new_id
from payments_service.sandbox.stripe_ledger import StripeLedger

CARD, DECLINED_CARD = "4242424242424242", "4000000000000002"
_VISITOR = "visitor@example.com"


class StripeMoves(StripeLedger):
    """Moves by our client_reference_id or the session's id; each raises UnknownReference, or WrongMove.

    With `send=False` the events happen but are never posted, as if every webhook got lost: the account's list of
    undelivered events has them.
    """

    async def pay(
        self,
        reference: str,
        amount: int | None = None,
        currency: str | None = None,
        *,
        send: bool = True,
        card: str = CARD,
    ) -> Object:
        """The customer pays by card; `amount` (minor units) and `currency` override what the session asked."""
        account, checkout = self._open(reference)
        if amount is not None:
            checkout.update(amount_total=amount, amount_subtotal=amount)
        if currency is not None:
            checkout["currency"] = currency.lower()
        self._complete_details(checkout)
        intent = self._confirm(account, checkout, send)
        self._succeed(account, intent, self._charge(account, intent, checkout, "succeeded", _card(card)), send)
        checkout.update(status="complete", payment_status="paid", url=None)
        self.emit(account, "checkout.session.completed", checkout, send=send)
        return checkout

    async def decline(self, reference: str, *, send: bool = True, card: str = DECLINED_CARD) -> Object:
        """The bank declines the customer's card; the session stays open for another try."""
        account, checkout = self._open(reference)
        intent = self._confirm(account, checkout, send)
        self._fail(account, intent, self._charge(account, intent, checkout, "failed", _card(card)), send)
        return checkout

    async def pay_later(self, reference: str, *, send: bool = True) -> Object:
        """The customer pays from a bank account: the session is complete, its money takes days (`settle`, `bounce`)."""
        account, checkout = self._open(reference)
        return self.await_bank(account, checkout, stripe_objects.bank_details(), send=send)

    def await_bank(self, account: Account, checkout: Object, details: Object, *, send: bool) -> Object:
        """An open session is complete; `details` are the `payment_method_details` of the bank account."""
        self._complete_details(checkout)
        intent = self._confirm(account, checkout, send)
        charged = self._charge(account, intent, checkout, "pending", details)
        intent.update(status="processing", latest_charge=charged["id"], payment_method=charged["payment_method"])
        checkout.update(status="complete", url=None)
        self.emit(account, "charge.pending", charged, send=send)
        self.emit(account, "payment_intent.processing", intent, send=send)
        self.emit(account, "checkout.session.completed", checkout, send=send)
        return checkout

    async def settle(self, reference: str, *, send: bool = True) -> Object:
        """The bank's money of `pay_later` has come."""
        account, checkout, intent, charged = self._awaited(reference)
        charged.update(status="succeeded", paid=True, captured=True, amount_captured=charged["amount"])
        charged["balance_transaction"] = new_id("txn")
        self._succeed(account, intent, charged, send)
        checkout["payment_status"] = "paid"
        self.emit(account, "checkout.session.async_payment_succeeded", checkout, send=send)
        return checkout

    async def bounce(self, reference: str, *, send: bool = True) -> Object:
        """The bank's money of `pay_later` never comes."""
        account, checkout, intent, charged = self._awaited(reference)
        message = "The customer's account has insufficient funds to cover this payment."
        charged.update(status="failed", paid=False, failure_code="payment_method_provider_decline")
        charged["failure_message"] = message
        self._fail(account, intent, charged, send)
        self.emit(account, "checkout.session.async_payment_failed", checkout, send=send)
        return checkout

    async def expire(self, reference: str, *, send: bool = True) -> Object:
        """The session's time is over."""
        account, checkout = self._open(reference)
        self.end_session(account, checkout, send=send)
        return checkout

    async def resend_events(self, reference: str) -> int:
        """Post every event about the payment once more, as by the dashboard's button; how many there are."""
        account, checkout = self.find(reference)
        names = {thing["id"] for thing in (checkout, *self.belongings(account, checkout))}
        events = [one for one in account.events.values() if one.object["data"]["object"]["id"] in names]
        for event in events:
            self.webhooks.resend(account, event)
        return len(events)

    # --- steps

    def _open(self, reference: str) -> tuple[Account, Object]:
        account, checkout = self.find(reference)
        if checkout["status"] != "open":
            raise WrongMove(f"{checkout['id']} is {checkout['status']}, no longer open")
        return account, checkout

    def _awaited(self, reference: str) -> tuple[Account, Object, Object, Object]:
        account, checkout = self.find(reference)
        intent = self._intent_of(account, checkout)
        if intent is None or intent["status"] != "processing":
            raise WrongMove(f"{checkout['id']} awaits no money from a bank")
        return account, checkout, intent, account.get("charge", intent["latest_charge"])

    def _intent_of(self, account: Account, checkout: Object) -> Object | None:
        identifier = checkout["payment_intent"]
        return None if identifier is None else account.get("payment_intent", identifier)

    def _complete_details(self, checkout: Object) -> None:
        checkout["customer_details"] = stripe_objects.customer_details(checkout, _VISITOR)

    def _confirm(self, account: Account, checkout: Object, send: bool) -> Object:
        """The session's intent, made by the first try; it asks for what the session asks for now."""
        intent = self._intent_of(account, checkout)
        if intent is None:
            data = self._intent_data[checkout["id"]]
            intent = account.put(stripe_objects.payment_intent(checkout, data, self.now))
            checkout["payment_intent"] = intent["id"]
            self.emit(account, "payment_intent.created", intent, send=send)
        intent.update(amount=checkout["amount_total"], currency=checkout["currency"])
        return intent

    def _charge(self, account: Account, intent: Object, checkout: Object, status: str, method: Object) -> Object:
        return account.put(stripe_objects.charge(intent, checkout, self.now, status, method))

    def _succeed(
        self, account: Account, intent: Object, charged: Object, send: bool, cause: Object | None = None
    ) -> None:
        intent.update(
            status="succeeded",
            amount_received=charged["amount"],
            last_payment_error=None,
            latest_charge=charged["id"],
            payment_method=charged["payment_method"],
        )
        self.emit(account, "charge.succeeded", charged, cause=cause, send=send)
        self.emit(account, "payment_intent.succeeded", intent, cause=cause, send=send)

    def _fail(self, account: Account, intent: Object, charged: Object, send: bool, cause: Object | None = None) -> None:
        intent.update(
            status="requires_payment_method",
            last_payment_error=stripe_objects.payment_error(charged),
            latest_charge=charged["id"],
            payment_method=None,
        )
        self.emit(account, "charge.failed", charged, cause=cause, send=send)
        self.emit(account, "payment_intent.payment_failed", intent, cause=cause, send=send)


def _card(number: str) -> Object:
    return stripe_objects.card_details(number)
