"""Stripe's objects as JSON, with every member that the real API sends for them in version 2026-10-28.endive.

Source: https://docs.stripe.com/api and the types that Stripe generates from its OpenAPI description. Amounts are
whole minor units of `currency`, times are Unix seconds, currencies are lower-case.
"""

from __future__ import annotations

from payments_service.sandbox.stripe_accounts import Account, Object, new_id
from payments_service.sandbox.stripe_catalog import words

# Members of a PaymentIntent that a one-time payment without extras leaves empty at first.
_NOT_IN_INTENTS: Object = dict.fromkeys(
    words(
        "application application_fee_amount automatic_payment_methods canceled_at cancellation_reason "
        "customer customer_account last_payment_error latest_charge next_action on_behalf_of payment_method "
        "payment_method_configuration_details processing review setup_future_usage shipping source "
        "transfer_data"
    )
)
# The same for a Charge.
_NOT_IN_CHARGES: Object = dict.fromkeys(
    words(
        "application application_fee application_fee_amount customer failure_balance_transaction "
        "on_behalf_of receipt_number receipt_url review shipping source source_transfer transfer_data"
    )
)
# The same for a Checkout Session.
_NOT_IN_SESSIONS: Object = dict.fromkeys(
    words(
        "after_expiration client_secret collected_information consent consent_collection currency_conversion "
        "customer customer_account invoice payment_link payment_method_configuration_details permissions "
        "recovered_from saved_payment_method_options setup_intent shipping_address_collection shipping_cost "
        "subscription wallet_options"
    )
)
_ADDRESS = {"city": None, "country": None, "line1": None, "line2": None, "postal_code": None, "state": None}


def session(account: Account, params: Object, now: int, url: str, line_items: list[Object]) -> Object:
    """An open Checkout Session for checked parameters; `url` is the hosted page's address without the id."""
    total = sum(item["amount_total"] for item in line_items)
    identifier = new_id(f"cs_{'live' if account.livemode else 'test'}", 29)
    return {
        "id": identifier,
        "object": "checkout.session",
        "amount_subtotal": total,
        "amount_total": total,
        "client_reference_id": params.get("client_reference_id"),
        "created": now,
        "currency": line_items[0]["currency"],
        "customer_details": None,
        "customer_email": params.get("customer_email"),
        "expires_at": params.get("expires_at", now + 24 * 3600),
        "livemode": account.livemode,
        "metadata": params.get("metadata", {}),
        "mode": "payment",
        "payment_intent": None,
        "payment_status": "unpaid",
        "status": "open",
        "success_url": params["success_url"],
        "cancel_url": params.get("cancel_url"),
        "url": f"{url}{identifier}",
        **_session_choices(account, params),
        **_session_absences(),
    }


def _session_choices(account: Account, params: Object) -> Object:
    allowed = params.get("allowed_payment_method_types")
    excluded = params.get("excluded_payment_method_types")
    methods = [name for name in allowed or ["card", "link", "us_bank_account"] if name not in (excluded or [])]
    return {
        "adaptive_pricing": {"enabled": params.get("adaptive_pricing", {}).get("enabled", False)},
        "allow_promotion_codes": params.get("allow_promotion_codes"),
        "allowed_payment_method_types": allowed,
        "billing_address_collection": params.get("billing_address_collection"),
        "branding_settings": _branding(params.get("branding_settings", {}).get("display_name", account.display_name)),
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": params.get("custom_text", {}).get("submit"),
            "terms_of_service_acceptance": None,
        },
        "customer_creation": params.get("customer_creation", "if_required"),
        "excluded_payment_method_types": excluded,
        "integration_identifier": params.get("integration_identifier"),
        "locale": params.get("locale"),
        "origin_context": params.get("origin_context"),
        "payment_method_types": methods,
        "phone_number_collection": params.get("phone_number_collection", {"enabled": False}),
        "submit_type": params.get("submit_type"),
        "ui_mode": "hosted_page",
    }


def _branding(display_name: str) -> Object:
    return {
        "background_color": "#ffffff",
        "border_style": "rounded",
        "button_color": "#0074d4",
        "display_name": display_name,
        "font_family": "default",
        "icon": None,
        "logo": None,
    }


def _session_absences() -> Object:
    """Members that a one-time payment without extras leaves empty."""
    invoice_data: Object = dict.fromkeys(
        ("account_tax_ids", "custom_fields", "description", "footer", "issuer", "rendering_options")
    )
    return {
        **_NOT_IN_SESSIONS,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "custom_fields": [],
        "discounts": [],
        "invoice_creation": {"enabled": False, "invoice_data": invoice_data | {"metadata": {}}},
        "payment_method_collection": "if_required",
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "shipping_options": [],
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    }


def line_item(account: Account, params: Object, now: int) -> Object:
    """A line of a session, made of checked `price_data` and `quantity`."""
    price = _price(account, params["price_data"], now)
    amount = price["unit_amount"] * params["quantity"]
    return {
        "id": new_id("li"),
        "object": "item",
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": params["price_data"]["product_data"]["name"],
        "metadata": params.get("metadata", {}),
        "price": price,
        "quantity": params["quantity"],
    }


def _price(account: Account, asked: Object, now: int) -> Object:
    return {
        "id": new_id("price"),
        "object": "price",
        "active": False,
        "billing_scheme": "per_unit",
        "created": now,
        "currency": asked["currency"].lower(),
        "custom_unit_amount": None,
        "livemode": account.livemode,
        "lookup_key": None,
        "metadata": {},
        "nickname": None,
        "product": new_id("prod", 7),
        "recurring": None,
        "tax_behavior": asked.get("tax_behavior", "unspecified"),
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time",
        "unit_amount": asked["unit_amount"],
        "unit_amount_decimal": str(asked["unit_amount"]),
    }


def payment_intent(checkout: Object, data: Object, now: int) -> Object:
    """The PaymentIntent that the first confirmation of a session makes; `data` is its payment_intent_data."""
    identifier = new_id("pi")
    return {
        **_NOT_IN_INTENTS,
        "id": identifier,
        "object": "payment_intent",
        "allowed_payment_method_types": checkout["allowed_payment_method_types"],
        "amount": checkout["amount_total"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "capture_method": "automatic_async",
        "client_secret": new_id(f"{identifier}_secret"),
        "confirmation_method": "automatic",
        "created": now,
        "currency": checkout["currency"],
        "description": data.get("description"),
        "excluded_payment_method_types": checkout["excluded_payment_method_types"],
        "livemode": checkout["livemode"],
        "metadata": data.get("metadata", {}),
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": checkout["payment_method_types"],
        "receipt_email": data.get("receipt_email"),
        "shipping": data.get("shipping"),
        "statement_descriptor": data.get("statement_descriptor"),
        "statement_descriptor_suffix": data.get("statement_descriptor_suffix"),
        "status": "requires_payment_method",
        "transfer_group": data.get("transfer_group"),
    }


def charge(intent: Object, checkout: Object, now: int, status: str, method: Object) -> Object:
    """A try to charge: `status` is succeeded, pending or failed; `method` is its payment_method_details."""
    succeeded = status == "succeeded"
    details = checkout["customer_details"] or {}
    return {
        **_NOT_IN_CHARGES,
        "id": new_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if succeeded else 0,
        "amount_refunded": 0,
        "balance_transaction": new_id("txn") if succeeded else None,
        "billing_details": {
            "address": _ADDRESS,
            "email": details.get("email"),
            "name": details.get("name"),
            "phone": None,
            "tax_id": None,
        },
        "calculated_statement_descriptor": intent["statement_descriptor"] or "SANDBOX",
        "captured": succeeded,
        "created": now,
        "currency": intent["currency"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": "card_declined" if status == "failed" else None,
        "failure_message": "Your card was declined." if status == "failed" else None,
        "fraud_details": {},
        "livemode": intent["livemode"],
        "metadata": intent["metadata"],
        "outcome": _outcome(status),
        "paid": status != "failed",
        "payment_intent": intent["id"],
        "payment_method": new_id("pm"),
        "payment_method_details": method,
        "radar_options": {},
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "statement_descriptor": intent["statement_descriptor"],
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": status,
        "transfer_group": intent["transfer_group"],
    }


def _outcome(status: str) -> Object:
    declined = status == "failed"
    return {
        "advice_code": "try_again_later" if declined else None,
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "declined_by_network" if declined else "approved_by_network",
        "reason": "generic_decline" if declined else None,
        "risk_level": "normal",
        "risk_score": 12,
        "seller_message": "The bank did not return any further details with this decline."
        if declined
        else "Payment complete.",
        "type": "issuer_declined" if declined else "authorized",
    }


def card_details(number: str) -> Object:
    """`payment_method_details` of a payment by card."""
    card: Object = {
        "authorization_code": None,
        "brand": "visa",
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": "pass"},
        "country": "US",
        "exp_month": 12,
        "exp_year": 2034,
        "extended_authorization": {"status": "disabled"},
        "fingerprint": "SandboxSandbox42",
        "funding": "credit",
        "incremental_authorization": {"status": "unavailable"},
        "installments": None,
        "last4": number[-4:],
        "mandate": None,
        "multicapture": {"status": "unavailable"},
        "network": "visa",
        "network_token": {"used": False},
        "network_transaction_id": "104110101041102",
        "overcapture": {"maximum_amount_capturable": 0, "status": "unavailable"},
        "regulated_status": "unregulated",
        "three_d_secure": None,
        "wallet": None,
    }
    return {"card": card, "type": "card"}


def bank_details() -> Object:
    """`payment_method_details` of a bank debit, which takes days to be confirmed."""
    bank: Object = {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "fingerprint": "SandboxSandbox67",
        "last4": "6789",
        "mandate": None,
        "payment_reference": None,
        "routing_number": "110000000",
    }
    return {"type": "us_bank_account", "us_bank_account": bank}


def payment_error(charged: Object) -> Object:
    """`last_payment_error` of an intent whose newest charge failed."""
    return {
        "advice_code": "try_again_later",
        "charge": charged["id"],
        "code": charged["failure_code"],
        "decline_code": "generic_decline",
        "doc_url": "https://docs.stripe.com/error-codes#card-declined",
        "message": charged["failure_message"],
        "network_advice_code": None,
        "network_decline_code": None,
        "payment_method_type": charged["payment_method_details"]["type"],
        "type": "card_error",
    }


def customer_details(checkout: Object, email: str) -> Object:
    return {
        "address": _ADDRESS | {"country": "US", "postal_code": "42424"},
        "business_name": None,
        "email": checkout["customer_email"] or email,
        "individual_name": None,
        "name": "Sandbox Customer",
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    }
