"""What may be sent along: the fields of settings, the filters of lists."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypedDict
from uuid import UUID

from conva_payments.words import CurrencyName, EventStateName, GatewayName, StatusName

Id = UUID | str


class SettingsChanges(TypedDict, total=False):
    """A field that is left out stays as it is; None clears it."""

    paynow_integration_id: str | None
    paynow_integration_key: str | None
    paynow_zig_integration_id: str | None
    paynow_zig_integration_key: str | None
    paynow_auth_email: str | None
    paynow_express_methods: str | None
    stripe_publishable_key: str | None
    stripe_secret_key: str | None
    stripe_webhook_secret: str | None
    ecocash_merchant_code: str | None
    ecocash_api_key: str | None
    ecocash_dialect: Literal["open_api", "eip", "eip_portal"] | None
    ecocash_username: str | None
    ecocash_password: str | None
    ecocash_merchant_pin: str | None
    ecocash_merchant_number: str | None
    ecocash_currencies: str | None
    innbucks_username: str | None
    innbucks_password: str | None
    innbucks_api_key: str | None
    display_name: str | None
    whatsapp_phone_number_id: str | None
    whatsapp_access_token: str | None
    whatsapp_template: str | None
    whatsapp_template_language: str | None
    whatsapp_text: str | None
    whatsapp_number: str | None


class PaymentFilters(TypedDict, total=False):
    """Which payments. `created_from` is in, `created_to` out; both need a time zone."""

    status: StatusName
    gateway: GatewayName
    currency: CurrencyName
    reference: str
    contact_id: Id
    invoice_id: Id
    created_from: datetime
    created_to: datetime


class EventFilters(TypedDict, total=False):
    """Which events, such as `type="payment.paid"`."""

    type: str
    state: EventStateName
    client_id: Id
