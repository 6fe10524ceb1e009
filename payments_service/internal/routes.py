"""The internal API on one screen."""

from __future__ import annotations

from starlette.routing import Route

from payments_service.health import livez, readyz
from payments_service.internal import accounts, docs, events, listing, payments, refunds, reviews

_CLIENT = "/v1/clients/{client_id:uuid}"
_PAYMENT = _CLIENT + "/payments/{payment_id:uuid}"

ROUTES = [
    Route(_CLIENT + "/payment-settings", accounts.show_settings, methods=["GET"]),
    Route(_CLIENT + "/payment-settings", accounts.save_settings, methods=["PATCH"]),
    Route(_CLIENT + "/payment-settings/verify", accounts.verify_settings, methods=["POST"]),
    Route(_CLIENT + "/payment-settings/stripe-webhook", accounts.set_up_stripe_webhook, methods=["POST"]),
    Route(_CLIENT + "/payments/create-link", payments.create_link, methods=["POST"]),
    Route(_CLIENT + "/payments", listing.list_payments, methods=["GET"]),
    Route(_CLIENT + "/payments.csv", listing.payments_csv, methods=["GET"]),
    Route(_CLIENT + "/payments/summary", listing.summary, methods=["GET"]),
    Route(_PAYMENT, payments.show_payment, methods=["GET"]),
    Route(_PAYMENT + "/history", payments.history, methods=["GET"]),
    Route(_PAYMENT + "/cancel", payments.cancel, methods=["POST"]),
    Route(_PAYMENT + "/refresh", payments.refresh, methods=["POST"]),
    Route(_PAYMENT + "/refunds", refunds.create_refund, methods=["POST"]),
    Route(_PAYMENT + "/refunds", refunds.list_refunds, methods=["GET"]),
    Route(_PAYMENT + "/refunds/{refund_id:uuid}/resolve", reviews.settle_refund, methods=["POST"]),
    Route(_PAYMENT + "/resolve", reviews.resolve_review, methods=["POST"]),
    Route(_PAYMENT + "/reviews", reviews.list_reviews, methods=["GET"]),
    Route("/v1/events", events.list_events, methods=["GET"]),
    Route("/v1/events/redeliver", events.redeliver_events, methods=["POST"]),
    Route("/v1/events/{event_id:uuid}/redeliver", events.redeliver_event, methods=["POST"]),
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/openapi.yaml", docs.openapi_yaml, methods=["GET"]),
    Route("/docs", docs.viewer, methods=["GET"]),
    Route("/docs/rapidoc-min.js", docs.viewer_script, methods=["GET"]),
]
