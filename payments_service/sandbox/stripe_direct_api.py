"""The operations of StripeDirect: what each takes, and where it is found. See stripe_operations.

They are what Stripe's own CLI calls when it replays its fixtures. Faults are never planned on them.
"""

from __future__ import annotations

from payments_service.sandbox import stripe_direct_objects
from payments_service.sandbox.stripe_accounts import Object
from payments_service.sandbox.stripe_direct import StripeDirect
from payments_service.sandbox.stripe_operations import Call, Operation
from payments_service.sandbox.stripe_params import Choice, Email, Flag, Hash, Many, Metadata, Reader, Text, Whole
from payments_service.sandbox.stripe_requests import ADDRESS, PAYMENT_METHODS, PRODUCT, SHIPPING

_EXPAND: dict[str, Reader] = {"expand": Many(Text())}

PARAMETERS: dict[str, Hash] = {
    "products.create": Hash({**_EXPAND, **PRODUCT.fields}, PRODUCT.required),
    "prices.create": Hash(
        {
            **_EXPAND,
            "currency": Text(),
            "metadata": Metadata(),
            "nickname": Text(),
            "product": Text(),
            "product_data": Hash({"name": Text(), "metadata": Metadata()}, ("name",)),
            "tax_behavior": Choice(("exclusive", "inclusive", "unspecified")),
            "unit_amount": Whole(),
        },
        ("currency", "unit_amount"),
    ),
    "payment_methods.create": Hash(
        {
            **_EXPAND,
            "billing_details": Hash(
                {"address": Hash(ADDRESS), "email": Email(), "name": Text(), "phone": Text()},
            ),
            "card": Hash({"token": Text()}, ("token",)),
            "sepa_debit": Hash({"iban": Text(34)}, ("iban",)),
            "type": Choice(("card", "sepa_debit")),
        },
        ("type",),
    ),
    "payment_intents.create": Hash(
        {
            **_EXPAND,
            "allowed_payment_method_types": Many(Choice(PAYMENT_METHODS)),
            "amount": Whole(1),
            "confirm": Flag(),
            "currency": Text(),
            "description": Text(1000),
            "metadata": Metadata(),
            "payment_method": Text(),
            "receipt_email": Email(),
            "shipping": SHIPPING,
        },
        ("amount", "currency"),
    ),
    "refunds.update": Hash({**_EXPAND, "metadata": Metadata()}),
    "disputes.close": Hash(_EXPAND),
    "payment_pages.retrieve": Hash({}),
    "payment_pages.confirm": Hash({"expected_amount": Whole(), "payment_method": Text()}, ("payment_method",)),
}


def _direct(call: Call) -> StripeDirect:
    assert isinstance(call.ledger, StripeDirect)
    return call.ledger


def create_product(call: Call) -> Object:
    return _direct(call).make_product(call.account, call.params, call.cause)


def create_price(call: Call) -> Object:
    return _direct(call).make_price(call.account, call.params, call.cause)


def create_method(call: Call) -> Object:
    return _direct(call).make_method(call.account, call.params)


def create_intent(call: Call) -> Object:
    return _direct(call).make_intent(call.account, call.params, call.cause)


def update_refund(call: Call) -> Object:
    made = call.account.get("refund", call.target)
    return _direct(call).update_refund(call.account, made, call.params, call.cause)


def close_dispute(call: Call) -> Object:
    made = call.account.get("dispute", call.target)
    return _direct(call).dismiss_dispute(call.account, made, call.cause)


def retrieve_page(call: Call) -> Object:
    return stripe_direct_objects.payment_page(call.account.get("checkout.session", call.target))


def confirm_page(call: Call) -> Object:
    checkout = call.account.get("checkout.session", call.target)
    return _direct(call).confirm_page(call.account, checkout, call.params, call.cause)


OPERATIONS = (
    Operation("products.create", "POST", "/v1/products", create_product, "product"),
    Operation("prices.create", "POST", "/v1/prices", create_price, "price"),
    Operation("payment_methods.create", "POST", "/v1/payment_methods", create_method, "payment_method"),
    Operation("payment_intents.create", "POST", "/v1/payment_intents", create_intent, "payment_intent"),
    Operation("refunds.update", "POST", "/v1/refunds/{id}", update_refund, "refund"),
    Operation("disputes.close", "POST", "/v1/disputes/{id}/close", close_dispute, "dispute"),
    Operation("payment_pages.retrieve", "GET", "/v1/payment_pages/{id}", retrieve_page, "payment_page"),
    Operation("payment_pages.confirm", "POST", "/v1/payment_pages/{id}/confirm", confirm_page, "payment_page"),
)
