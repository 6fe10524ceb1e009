"""Stripe's objects for merchants who do more than open Checkout Sessions: see stripe_objects."""

from __future__ import annotations

from payments_service.sandbox.stripe_accounts import Account, Object, new_id

_ADDRESS = ("city", "country", "line1", "line2", "postal_code", "state")


def product(account: Account, params: Object, now: int) -> Object:
    """Something to be sold, for checked parameters."""
    return {
        "id": new_id("prod", 7),
        "object": "product",
        "active": True,
        "created": now,
        "default_price": None,
        "description": params.get("description"),
        "images": params.get("images", []),
        "livemode": account.livemode,
        "marketing_features": [],
        "metadata": params.get("metadata", {}),
        "name": params["name"],
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": params.get("tax_code"),
        "type": "service",
        "unit_label": None,
        "updated": now,
        "url": None,
    }


def price(account: Account, params: Object, now: int) -> Object:
    """What a product costs, once."""
    return {
        "id": new_id("price"),
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": now,
        "currency": params["currency"].lower(),
        "custom_unit_amount": None,
        "livemode": account.livemode,
        "lookup_key": None,
        "metadata": params.get("metadata", {}),
        "nickname": params.get("nickname"),
        "product": params["product"],
        "recurring": None,
        "tax_behavior": params.get("tax_behavior", "unspecified"),
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time",
        "unit_amount": params["unit_amount"],
        "unit_amount_decimal": str(params["unit_amount"]),
    }


def payment_method(account: Account, kind: str, details: Object, billing: Object, now: int) -> Object:
    """A way to pay; `details` are those of its kind (`card_method`, `bank_method`)."""
    return {
        "id": new_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": _full(billing.get("address", {})),
            "email": billing.get("email"),
            "name": billing.get("name"),
            "phone": billing.get("phone"),
            "tax_id": None,
        },
        "created": now,
        "customer": None,
        "customer_account": None,
        "livemode": account.livemode,
        "metadata": {},
        "type": kind,
        kind: details,
    }


def card_method(number: str) -> Object:
    """`card` of a payment method with this number."""
    return {
        "brand": "visa",
        "checks": {"address_line1_check": None, "address_postal_code_check": None, "cvc_check": None},
        "country": "US",
        "display_brand": "visa",
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": "SandboxSandbox42",
        "funding": "credit",
        "generated_from": None,
        "last4": number[-4:],
        "networks": {"available": ["visa"], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def bank_method(iban: str) -> Object:
    """`sepa_debit` of a payment method with this account number."""
    return {
        "bank_code": None,
        "branch_code": None,
        "country": iban[:2],
        "fingerprint": "SandboxSandbox67",
        "generated_from": {"charge": None, "setup_attempt": None},
        "last4": iban[-4:],
    }


def bank_details(method: Object) -> Object:
    """`payment_method_details` of a charge to such a bank account."""
    kept = ("bank_code", "branch_code", "country", "fingerprint", "last4")
    bank: Object = {name: method["sepa_debit"][name] for name in kept}
    bank |= {"expected_debit_date": None, "mandate": new_id("mandate")}
    return {"type": "sepa_debit", "sepa_debit": bank}


def shipping(params: Object) -> Object:
    """Where the goods go, with every member."""
    return {
        "address": _full(params["address"]),
        "carrier": params.get("carrier"),
        "name": params["name"],
        "phone": params.get("phone"),
        "tracking_number": params.get("tracking_number"),
    }


def payment_page(checkout: Object) -> Object:
    """What the hosted page asks Stripe for. It is on no list of Stripe's API: little of it is imitated."""
    kept = ("amount_total", "currency", "livemode", "payment_status", "status")
    page: Object = {name: checkout[name] for name in kept}
    return {"id": f"ppage_{checkout['id'][8:]}", "object": "payment_page", "session_id": checkout["id"], **page}


def _full(address: Object) -> Object:
    return {name: address.get(name) for name in _ADDRESS}
