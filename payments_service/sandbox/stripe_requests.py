"""Which parameters each operation of the simulated API takes: `PARAMETERS`, by operation name.

The names are those of API version 2026-10-28.endive. Checkout Sessions take what a one-time payment on the
hosted page needs; `BEYOND` lists the rest of the real parameters, which are refused with words of their own.
"""

from __future__ import annotations

from payments_service.sandbox.stripe_catalog import API_VERSIONS, EVENT_TYPES, words
from payments_service.sandbox.stripe_params import (
    Choice,
    Email,
    Flag,
    Hash,
    Link,
    Many,
    Metadata,
    Moments,
    Reader,
    Text,
    Whole,
)

_EXPAND: dict[str, Reader] = {"expand": Many(Text())}
_PAGE: dict[str, Reader] = {**_EXPAND, "limit": Whole(1, 100), "starting_after": Text(), "ending_before": Text()}
_DATED: dict[str, Reader] = {**_PAGE, "created": Moments()}

_LOCALES = words(
    "auto bg cs da de el en en-GB es es-419 et fi fil fr fr-CA hi-IN hr hu id it ja ko lt lv ms mt nb nl pl pt pt-BR "
    "ro ru sk sl sv th tr vi zh zh-HK zh-TW"
)
PAYMENT_METHODS = (
    "alipay",
    "amazon_pay",
    "bancontact",
    "card",
    "cashapp",
    "eps",
    "klarna",
    "link",
    "paypal",
    "sepa_debit",
    "us_bank_account",
    "wechat_pay",
)
_METHODS = Many(Choice(PAYMENT_METHODS))
_EXCLUDED = Many(Choice(tuple(name for name in PAYMENT_METHODS if name != "link")))  # Link is a wallet here

PRODUCT = Hash(
    {"name": Text(), "description": Text(), "images": Many(Text(2048), 8), "metadata": Metadata(), "tax_code": Text()},
    ("name",),
)
_PRICE = Hash(
    {
        "currency": Text(),
        "unit_amount": Whole(),
        "product_data": PRODUCT,
        "tax_behavior": Choice(("exclusive", "inclusive", "unspecified")),
    },
    ("currency", "unit_amount", "product_data"),
)
_LINE_ITEM = Hash({"price": Text(), "price_data": _PRICE, "quantity": Whole(), "metadata": Metadata()})
ADDRESS: dict[str, Reader] = {name: Text() for name in ("city", "country", "line1", "line2", "postal_code", "state")}
SHIPPING = Hash(
    {
        "address": Hash(ADDRESS, ("line1",)),
        "carrier": Text(),
        "name": Text(),
        "phone": Text(),
        "tracking_number": Text(),
    },
    ("address", "name"),
)
_INTENT_DATA = Hash(
    {
        "description": Text(1000),
        "metadata": Metadata(),
        "receipt_email": Email(),
        "shipping": SHIPPING,
        "statement_descriptor": Text(22),
        "statement_descriptor_suffix": Text(22),
        "transfer_group": Text(),
    }
)
_SUBMIT_TEXT = Hash({"submit": Hash({"message": Text(1200)}, ("message",))})

# `payment_method_types` is not here: endive removed it, so that it is as unknown as a typing error.
BEYOND = frozenset(
    words(
        "after_expiration automatic_tax consent_collection custom_fields customer customer_account customer_update "
        "discounts invoice_creation managed_payments name_collection optional_items payment_method_collection "
        "payment_method_configuration payment_method_data payment_method_options permissions redirect_on_completion "
        "return_url saved_payment_method_options setup_intent_data shipping_address_collection shipping_options "
        "subscription_data tax_id_collection wallet_options"
    )
)
_SESSION = Hash(
    {
        **_EXPAND,
        "adaptive_pricing": Hash({"enabled": Flag()}),
        "allow_promotion_codes": Flag(),
        "allowed_payment_method_types": _METHODS,
        "billing_address_collection": Choice(("auto", "required")),
        "branding_settings": Hash({"display_name": Text()}),
        "cancel_url": Link(),
        "client_reference_id": Text(200),
        "currency": Text(),
        "custom_text": _SUBMIT_TEXT,
        "customer_creation": Choice(("always", "if_required")),
        "customer_email": Email(),
        "excluded_payment_method_types": _EXCLUDED,
        "expires_at": Whole(),
        "integration_identifier": Text(200),
        "line_items": Many(_LINE_ITEM),
        "locale": Choice(_LOCALES),
        "metadata": Metadata(),
        "mode": Choice(("payment", "setup", "subscription")),
        "origin_context": Choice(("mobile_app", "web")),
        "payment_intent_data": _INTENT_DATA,
        "phone_number_collection": Hash({"enabled": Flag()}, ("enabled",)),
        "submit_type": Choice(("auto", "book", "donate", "pay", "subscribe")),
        "success_url": Link(),
        "ui_mode": Choice(("elements", "embedded_page", "form", "hosted_page")),
    },
    ("mode", "success_url", "line_items"),
    BEYOND,
)
_REFUND = Hash(
    {
        **_EXPAND,
        "amount": Whole(1),
        "charge": Text(),
        "metadata": Metadata(),
        "payment_intent": Text(),
        "reason": Choice(("duplicate", "fraudulent", "requested_by_customer")),
    },
    beyond=frozenset(
        words("currency customer instructions_email origin refund_application_fee reverse_transfer"),
    ),
)
_EVENTS = Many(Choice(("*", *EVENT_TYPES)))
_ENDPOINT: dict[str, Reader] = {
    **_EXPAND,
    "description": Text(unset=True),
    "enabled_events": _EVENTS,
    "metadata": Metadata(),
    "url": Link(),
}
_ONE = Hash(_EXPAND)
_OF_CHARGE = Hash({**_DATED, "charge": Text(), "payment_intent": Text()})

PARAMETERS: dict[str, Hash] = {
    "sessions.create": _SESSION,
    "sessions.retrieve": _ONE,
    "sessions.list": Hash(
        {**_DATED, "payment_intent": Text(), "status": Choice(("complete", "expired", "open"))},
        beyond=frozenset(("customer", "customer_account", "customer_details", "payment_link", "subscription")),
    ),
    "sessions.expire": _ONE,
    "payment_intents.retrieve": Hash({**_EXPAND, "client_secret": Text()}),
    "charges.retrieve": _ONE,
    "refunds.create": _REFUND,
    "refunds.retrieve": _ONE,
    "refunds.list": _OF_CHARGE,
    "disputes.retrieve": _ONE,
    "disputes.list": _OF_CHARGE,
    "events.retrieve": _ONE,
    "events.list": Hash({**_DATED, "delivery_success": Flag(), "type": Text(), "types": Many(Text(), 20)}),
    "account.retrieve": _ONE,
    "country_specs.retrieve": _ONE,
    "webhook_endpoints.create": Hash(
        {**_ENDPOINT, "api_version": Choice(API_VERSIONS)},
        ("enabled_events", "url"),
        beyond=frozenset(("connect",)),
    ),
    "webhook_endpoints.retrieve": _ONE,
    "webhook_endpoints.update": Hash({**_ENDPOINT, "disabled": Flag()}),
    "webhook_endpoints.delete": Hash({}),
    "webhook_endpoints.list": Hash(_PAGE),
}
OPERATIONS = tuple(PARAMETERS)
