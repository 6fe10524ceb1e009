"""Stripe's objects around an account: itself, countries, webhook endpoints, events. See stripe_objects."""

from __future__ import annotations

from payments_service.sandbox.stripe_accounts import Account, Object, copy, new_id
from payments_service.sandbox.stripe_catalog import COUNTRIES, CURRENCIES


def account(owner: Account) -> Object:
    """The account as `GET /v1/account` shows it to its own key."""
    return {
        "id": owner.id,
        "object": "account",
        "business_profile": {
            "mcc": "5734",
            "name": owner.display_name,
            "product_description": None,
            "support_address": None,
            "support_email": None,
            "support_phone": None,
            "support_url": None,
            "url": None,
        },
        "business_type": "company",
        "capabilities": {
            "card_payments": "active" if owner.charges_enabled else "inactive",
            "transfers": "active" if owner.charges_enabled else "inactive",
        },
        "charges_enabled": owner.charges_enabled,
        "controller": {"type": "account"},
        "country": owner.country,
        "created": owner.created,
        "default_currency": owner.currency,
        "details_submitted": owner.charges_enabled,
        "email": "owner@example.com",
        "metadata": {},
        "payouts_enabled": owner.charges_enabled,
        "settings": _settings(owner),
        "type": "standard",
    }


def _settings(owner: Account) -> Object:
    return {
        "branding": {"icon": None, "logo": None, "primary_color": None, "secondary_color": None},
        "card_payments": {
            "decline_on": {"avs_failure": False, "cvc_failure": False},
            "statement_descriptor_prefix": "SANDBOX",
            "statement_descriptor_prefix_kana": None,
            "statement_descriptor_prefix_kanji": None,
        },
        "dashboard": {"display_name": owner.display_name, "timezone": "Etc/UTC"},
        "payments": {
            "statement_descriptor": "SANDBOX",
            "statement_descriptor_kana": None,
            "statement_descriptor_kanji": None,
        },
        "payouts": {
            "debit_negative_balances": True,
            "schedule": {"delay_days": 2, "interval": "daily"},
            "statement_descriptor": None,
        },
    }


def country_spec(country: str) -> Object:
    """What an account of this country (two capital letters, one of COUNTRIES) may take."""
    fields: Object = {"additional": [], "minimum": ["business_profile.url", "external_account", "tos_acceptance.date"]}
    return {
        "id": country,
        "object": "country_spec",
        "default_currency": COUNTRIES[country],
        "supported_bank_account_currencies": {COUNTRIES[country]: [country]},
        "supported_payment_currencies": list(CURRENCIES),
        "supported_payment_methods": ["ach", "card", "stripe"] if country == "US" else ["card", "stripe"],
        "supported_transfer_countries": sorted(COUNTRIES),
        "verification_fields": {"company": fields, "individual": fields},
    }


def webhook_endpoint(owner: Account, params: Object, now: int) -> Object:
    """An enabled endpoint for checked parameters, without its secret."""
    return {
        "id": new_id("we"),
        "object": "webhook_endpoint",
        "api_version": params.get("api_version"),
        "application": None,
        "created": now,
        "description": params.get("description") or None,
        "enabled_events": params["enabled_events"],
        "livemode": owner.livemode,
        "metadata": params.get("metadata", {}),
        "status": "enabled",
        "url": params["url"],
    }


def event(owner: Account, kind: str, thing: Object, now: int, cause: Object | None, previous: Object | None) -> Object:
    """What happened to a copy of `thing`. `cause`: the API request behind it, `{id, idempotency_key}`."""
    data: Object = {"object": copy(thing)}
    if previous is not None:
        data["previous_attributes"] = previous
    return {
        "id": new_id("evt"),
        "object": "event",
        "api_version": owner.api_version,
        "created": now,
        "data": data,
        "livemode": owner.livemode,
        "pending_webhooks": 0,
        "request": cause or {"id": None, "idempotency_key": None},
        "type": kind,
    }


def subject(event_type: str) -> str:
    """The kind of object that an event of this type is about: `charge.dispute.created` tells of a dispute."""
    if event_type.startswith("charge.dispute."):
        return "dispute"
    if event_type.startswith(("charge.refund.", "refund.")):
        return "refund"
    return event_type.rpartition(".")[0] if event_type.startswith("checkout.") else event_type.partition(".")[0]
