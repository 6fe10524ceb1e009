"""The internal API on one screen."""

from __future__ import annotations

from starlette.routing import Route

from payments_service.health import livez, readyz
from payments_service.internal import accounts, docs, payments, refunds

_CLIENT = "/v1/clients/{client_id:uuid}"
_PAYMENT = _CLIENT + "/payments/{payment_id:uuid}"

ROUTES = [
    Route(_CLIENT + "/payment-settings", accounts.show_settings, methods=["GET"]),
    Route(_CLIENT + "/payment-settings", accounts.save_settings, methods=["PATCH"]),
    Route(_CLIENT + "/payment-settings/verify", accounts.verify_settings, methods=["POST"]),
    Route(_CLIENT + "/payment-settings/stripe-webhook", accounts.set_up_stripe_webhook, methods=["POST"]),
    Route(_CLIENT + "/payments/create-link", payments.create_link, methods=["POST"]),
    Route(_PAYMENT, payments.show_payment, methods=["GET"]),
    Route(_PAYMENT + "/history", payments.history, methods=["GET"]),
    Route(_PAYMENT + "/cancel", payments.cancel, methods=["POST"]),
    Route(_PAYMENT + "/refresh", payments.refresh, methods=["POST"]),
    Route(_PAYMENT + "/refunds", refunds.create_refund, methods=["POST"]),
    Route(_PAYMENT + "/refunds", refunds.list_refunds, methods=["GET"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/openapi.yaml", docs.openapi_yaml, methods=["GET"]),
    Route("/docs", docs.viewer, methods=["GET"]),
    Route("/docs/rapidoc-min.js", docs.viewer_script, methods=["GET"]),
]
