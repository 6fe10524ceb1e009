"""Money that goes back, as Stripe's objects: refunds and disputes. See stripe_objects."""

from __future__ import annotations

from payments_service.sandbox.stripe_accounts import Object, new_id
from payments_service.sandbox.stripe_catalog import words


def refund(charged: Object, amount: int, now: int, status: str, reason: str | None, metadata: Object) -> Object:
    """A refund of a part of a charge, or of all that is left of it."""
    kind = "pending" if status == "pending" else "refund"
    card = {"reference_status": "pending", "reference_type": "acquirer_reference_number", "type": kind}
    return {
        "id": new_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": new_id("txn"),
        "charge": charged["id"],
        "created": now,
        "currency": charged["currency"],
        "destination_details": {"card": card, "type": "card"},
        "failure_reason": None,
        "metadata": metadata,
        "payment_intent": charged["payment_intent"],
        "payment_method": charged["payment_method"],
        "pending_reason": "processing" if status == "pending" else None,
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status,
        "transfer_reversal": None,
    }


def dispute(charged: Object, amount: int, now: int, status: str, reason: str) -> Object:
    """A dispute over a charge; evidence is due nine days later."""
    return {
        "id": new_id("du"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charged["id"],
        "created": now,
        "currency": charged["currency"],
        "enhanced_eligibility_types": [],
        "evidence": _evidence(),
        "evidence_details": {
            "due_by": now + 9 * 86_400,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
            "submission_method": "not_submitted",
        },
        "is_charge_refundable": status.startswith("warning_"),
        "livemode": charged["livemode"],
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": charged["payment_intent"],
        "payment_method_details": {
            "card": {"brand": "visa", "case_type": "chargeback", "network": "visa", "network_reason_code": "10.4"},
            "type": "card",
        },
        "reason": reason,
        "status": status,
    }


def _evidence() -> Object:
    empty: Object = dict.fromkeys(
        words(
            "access_activity_log billing_address cancellation_policy cancellation_policy_disclosure "
            "cancellation_rebuttal customer_communication customer_email_address customer_name customer_purchase_ip "
            "customer_signature duplicate_charge_documentation duplicate_charge_explanation duplicate_charge_id "
            "product_description receipt refund_policy refund_policy_disclosure refund_refusal_explanation "
            "service_date service_documentation shipping_address shipping_carrier shipping_date shipping_documentation "
            "shipping_tracking_number uncategorized_file uncategorized_text"
        )
    )
    return empty | {"enhanced_evidence": {}}
