"""Payments that the merchant's own code makes at the simulated Stripe, and those of the hosted page's own calls.

Stripe's test cards and test bank accounts decide what becomes of them: https://docs.stripe.com/testing.
"""

from __future__ import annotations

from typing import Any

from payments_service.sandbox import stripe_direct_objects, stripe_objects
from payments_service.sandbox.stripe_accounts import Account, Object, copy
from payments_service.sandbox.stripe_catalog import MAXIMUM_CHARGE, MINIMUM_CHARGES, money
from payments_service.sandbox.stripe_checks import check_currency
from payments_service.sandbox.stripe_errors import ApiError, invalid, missing, refused
from payments_service.sandbox.stripe_returns import StripeReturns

# As `pm_card_…` and `tok_…`; the names with `visa_` are the ones of today.
TEST_CARDS = {
    "visa": "4242424242424242",
    "chargeDeclined": "4000000000000002",
    "visa_chargeDeclined": "4000000000000002",
    "createDispute": "4000000000000259",
    "createDisputeInquiry": "4000000000001976",
    "createDisputeProductNotReceived": "4000000000002685",
}
# By the last four digits. A dispute: its status and its reason.
_DECLINED = ("0002",)
_DISPUTED = {
    "0259": ("needs_response", "fraudulent"),
    "1976": ("warning_needs_response", "fraudulent"),
    "2685": ("needs_response", "product_not_received"),
}
_BOUNCING = ("3202", "3456")


class CardDeclined(ApiError):
    """HTTP 402: the bank declined the charge, which is on record nevertheless."""

    def __init__(self, charged: Object, intent: Object) -> None:
        super().__init__(charged["failure_message"], status=402, kind="card_error", code="card_declined", stored=True)
        self._more = stripe_objects.payment_error(charged) | {"payment_intent": copy(intent)}

    def envelope(self, request_id: str, *, livemode: bool = False) -> dict[str, Any]:
        """The usual one, with the payment as it is now."""
        return {"error": self._more | super().envelope(request_id, livemode=livemode)["error"]}


class StripeDirect(StripeReturns):
    """What stripe_direct_api offers, by checked parameters; each call may raise ApiError."""

    # --- what is for sale

    def make_product(self, account: Account, params: Object, cause: Object) -> Object:
        made = account.put(stripe_direct_objects.product(account, params, self.now))
        self.emit(account, "product.created", made, cause=cause)
        return made

    def make_price(self, account: Account, params: Object, cause: Object) -> Object:
        """The price of a product that there is, or that comes with it."""
        check_currency(params["currency"], "currency")
        if "product" in params and "product_data" in params:
            raise invalid("You may only specify one of these parameters: product, product_data.", "product")
        if "product_data" in params:
            product = self.make_product(account, params["product_data"], cause)
        elif "product" in params:
            product = account.get("product", params["product"], "product")
        else:
            raise missing("product")
        made = account.put(stripe_direct_objects.price(account, params | {"product": product["id"]}, self.now))
        self.emit(account, "price.created", made, cause=cause)
        return made

    def create_session(self, account: Account, params: Object) -> Object:
        """As ever, also for lines that name a price of `make_price`."""
        lines = [self._priced(account, line, f"line_items[{at}]") for at, line in enumerate(params["line_items"])]
        data: Object = dict(params.get("payment_intent_data", {}))
        if "shipping" in data:
            data["shipping"] = stripe_direct_objects.shipping(data["shipping"])
        checkout = super().create_session(account, params | {"line_items": lines, "payment_intent_data": data})
        for made, asked in zip(account.line_items[checkout["id"]], params["line_items"], strict=True):
            if "price" in asked:
                made["price"] = copy(account.get("price", asked["price"], "price"))
        return checkout

    def _priced(self, account: Account, line: Object, param: str) -> Object:
        if "price" not in line:
            if "price_data" not in line:
                raise missing(f"{param}[price_data]")
            return line
        if "price_data" in line:
            raise invalid("You may only specify one of these parameters: price, price_data.", f"{param}[price]")
        price = account.get("price", line["price"], f"{param}[price]")
        name = account.get("product", price["product"], "product")["name"]
        data = {"currency": price["currency"], "unit_amount": price["unit_amount"], "product_data": {"name": name}}
        return line | {"price_data": data}

    # --- ways to pay

    def make_method(self, account: Account, params: Object) -> Object:
        """A card by one of Stripe's test tokens, or a bank account."""
        kind = params["type"]
        if kind not in params:
            raise missing(kind)
        if kind == "card":
            token = params["card"]["token"]
            if token.removeprefix("tok_") not in TEST_CARDS:
                raise invalid(f"No such token: '{token}'", "card[token]", "resource_missing")
            details = stripe_direct_objects.card_method(TEST_CARDS[token.removeprefix("tok_")])
        else:
            details = stripe_direct_objects.bank_method(params["sepa_debit"]["iban"])
        billing = params.get("billing_details", {})
        return account.put(stripe_direct_objects.payment_method(account, kind, details, billing, self.now))

    def _method(self, account: Account, name: str) -> Object:
        """The account's own, or a new one of a test card such as `pm_card_visa`."""
        if (card := name.removeprefix("pm_card_")) in TEST_CARDS and card != name:
            return self.make_method(account, {"type": "card", "card": {"token": f"tok_{card}"}})
        return account.get("payment_method", name, "payment_method")

    # --- payments

    def make_intent(self, account: Account, params: Object, cause: Object) -> Object:
        """A PaymentIntent of the merchant's own, which `confirm` charges at once; by card only."""
        check_currency(params["currency"], "currency")
        asked = self._asked(account, params)
        if params.get("confirm") and "payment_method" not in params:
            raise missing("payment_method")
        method = self._method(account, params["payment_method"]) if "payment_method" in params else None
        if method and method["type"] != "card":
            raise invalid("This simulator charges cards only, outside Checkout.", "payment_method")
        data: Object = dict(params)
        if "shipping" in data:
            data["shipping"] = stripe_direct_objects.shipping(data["shipping"])
        intent = account.put(stripe_objects.payment_intent(asked, data, self.now))
        if method:
            intent.update(status="requires_confirmation", payment_method=method["id"])
        self.emit(account, "payment_intent.created", intent, cause=cause)
        if method and params.get("confirm"):
            self._charge_card(account, intent, asked, method, cause)
        return intent

    def _asked(self, account: Account, params: Object) -> Object:
        """The members of a Checkout Session that an intent is made of."""
        amount, currency = params["amount"], params["currency"].lower()
        least = MINIMUM_CHARGES.get(currency, 50)
        if amount < least:
            message = f"Amount must be at least {money(least, currency)} {currency}"
            raise invalid(message, "amount", "amount_too_small")
        if amount > MAXIMUM_CHARGE:
            message = f"Amount must be no more than {money(MAXIMUM_CHARGE, currency)} {currency}"
            raise invalid(message, "amount", "amount_too_large")
        allowed = params.get("allowed_payment_method_types")
        return {
            "allowed_payment_method_types": allowed,
            "amount_total": amount,
            "currency": currency,
            "customer_details": None,
            "excluded_payment_method_types": None,
            "livemode": account.livemode,
            "payment_method_types": allowed or ["card", "link"],
        }

    def _charge_card(self, account: Account, intent: Object, asked: Object, method: Object, cause: Object) -> None:
        last4 = method["card"]["last4"]
        status = "failed" if last4 in _DECLINED else "succeeded"
        charged = self._charge(account, intent, asked, status, stripe_objects.card_details(last4))
        charged["payment_method"] = method["id"]
        if status == "failed":
            self._fail(account, intent, charged, send=True, cause=cause)
            raise CardDeclined(charged, intent)
        self._succeed(account, intent, charged, send=True, cause=cause)
        if last4 in _DISPUTED:
            status, reason = _DISPUTED[last4]
            self.make_dispute(account, charged, charged["amount"], status, reason)

    # --- the hosted page's own calls

    def confirm_page(self, account: Account, checkout: Object, params: Object, cause: Object) -> Object:
        """The customer pays on the page; money from a bank account comes, or does not, right afterwards."""
        if checkout["status"] != "open":
            raise refused(f"This Checkout Session has a status of `{checkout['status']}`: it cannot be paid any more.")
        total = checkout["amount_total"]
        if params.get("expected_amount", total) != total:
            raise refused(f"The amount of this Checkout Session is {total}.", None, "expected_amount")
        method = self._method(account, params["payment_method"])
        if method["type"] not in checkout["payment_method_types"]:
            raise refused(f"This Checkout Session takes no {method['type']}.", None, "payment_method")
        if method["type"] == "card":
            self._complete_details(checkout)
            intent = self._confirm(account, checkout, send=True)
            self._charge_card(account, intent, checkout, method, cause)
            checkout.update(status="complete", payment_status="paid", url=None)
            self.emit(account, "checkout.session.completed", checkout, cause=cause)
        else:
            self.await_bank(account, checkout, stripe_direct_objects.bank_details(method), send=True)
            bounces = method["sepa_debit"]["last4"] in _BOUNCING
            self.webhooks.background(self._hear_from_bank(checkout["id"], bounces=bounces))
        return stripe_direct_objects.payment_page(checkout)

    async def _hear_from_bank(self, session_id: str, *, bounces: bool) -> None:
        await (self.bounce(session_id) if bounces else self.settle(session_id))

    # --- money that goes back

    def update_refund(self, account: Account, made: Object, params: Object, cause: Object) -> Object:
        """Only its metadata can be changed."""
        previous: Object = {"metadata": made["metadata"]}
        made["metadata"] = made["metadata"] | params.get("metadata", {})
        for kind in ("charge.refund.updated", "refund.updated"):
            self.emit(account, kind, made, cause=cause, previous=previous)
        return made

    def dismiss_dispute(self, account: Account, made: Object, cause: Object) -> Object:
        """The merchant has no evidence to send: the money is lost; a mere inquiry is closed."""
        if made["status"] not in ("needs_response", "warning_needs_response"):
            raise refused("This dispute is already closed")
        inquiry = made["status"] == "warning_needs_response"
        return self.end_dispute(account, made, "warning_closed" if inquiry else "lost", send=True, cause=cause)
