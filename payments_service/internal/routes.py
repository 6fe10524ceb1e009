"""The internal API on one screen."""

from __future__ import annotations

from starlette.routing import Route

from payments_service.health import livez, readyz
from payments_service.internal import (
    accounts,
    docs,
    events,
    listing,
    messages,
    metrics,
    payments,
    refunds,
    reviews,
    tenants,
)
from payments_service.internal.once import post

_CLIENT = "/v1/clients/{client_id:uuid}"
_PAYMENT = _CLIENT + "/payments/{payment_id:uuid}"

# How this process is: told by the internal listener, and by one of its own to those who run without that.
WATCHED = [
    Route("/livez", livez, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics.metrics, methods=["GET"]),
]

ROUTES = [
    Route(_CLIENT + "/payment-settings", accounts.show_settings, methods=["GET"]),
    Route(_CLIENT + "/payment-settings", accounts.save_settings, methods=["PATCH"]),
    post(_CLIENT + "/payment-settings/verify", accounts.verify_settings),
    post(_CLIENT + "/payment-settings/stripe-webhook", accounts.set_up_stripe_webhook),
    post(_CLIENT + "/payments/create-link", payments.create_link, payments.recall_link),
    Route(_CLIENT + "/payments", listing.list_payments, methods=["GET"]),
    Route(_CLIENT + "/payments.csv", listing.payments_csv, methods=["GET"]),
    Route(_CLIENT + "/payments/summary", listing.summary, methods=["GET"]),
    Route(_PAYMENT, payments.show_payment, methods=["GET"]),
    Route(_PAYMENT + "/history", payments.history, methods=["GET"]),
    post(_PAYMENT + "/cancel", payments.cancel, payments.recall_cancel),
    post(_PAYMENT + "/refresh", payments.refresh),
    post(_PAYMENT + "/send", messages.send_link, messages.recall_send),
    post(_PAYMENT + "/refunds", refunds.create_refund, refunds.recall_refund),
    Route(_PAYMENT + "/refunds", refunds.list_refunds, methods=["GET"]),
    post(_PAYMENT + "/refunds/{refund_id:uuid}/resolve", reviews.settle_refund, reviews.recall_settled),
    post(_PAYMENT + "/resolve", reviews.resolve_review, reviews.recall_resolved),
    Route(_PAYMENT + "/reviews", reviews.list_reviews, methods=["GET"]),
    Route(_CLIENT + "/audit-logs", tenants.list_audit_logs, methods=["GET"]),
    Route(_CLIENT + "/audit-logs/verify", tenants.verify_audit_logs, methods=["GET"]),
    Route(_CLIENT, tenants.delete_tenant, methods=["DELETE"]),
    Route("/v1/events", events.list_events, methods=["GET"]),
    post("/v1/events/redeliver", events.redeliver_events),
    post("/v1/events/{event_id:uuid}/redeliver", events.redeliver_event),
    *WATCHED,
    Route("/openapi.yaml", docs.openapi_yaml, methods=["GET"]),
    Route("/docs", docs.viewer, methods=["GET"]),
    Route("/docs/rapidoc-min.js", docs.viewer_script, methods=["GET"]),
]
