"""What is kept of a report for a person to judge by, and what is only said."""

from __future__ import annotations

from typing import Any

import structlog

from payments_service.db import Row
from payments_service.lifecycle import DisputeReport, Outcome, RefundReport, Report, Settlement

log = structlog.get_logger(__name__)


def evidence_of(row: Row, report: Report) -> dict[str, Any]:
    """What was reported beside what was asked for: enough for a person to decide, no secret."""
    return {
        "gateway": row["attempt_gateway"],
        "said": report.said,
        "amount_cents": report.amount.minor if report.amount else None,
        "currency": report.amount.currency if report.amount else None,
        "reference": report.reference,
        "gateway_reference": report.gateway_reference,
        "expected_cents": row["attempt_cents"],
        "expected_currency": row["attempt_currency"],
        "expected_reference": row["attempt_reference"],
        **(_items(report.settlement) if report.settlement else {}),
    }


def _items(settlement: Settlement) -> dict[str, Any]:
    """The refunds and disputes that the report names."""
    shown = {
        "refunds": [_item(refund) for refund in settlement.refunds],
        "disputes": [_item(dispute) for dispute in settlement.disputes],
        "refunded_total": settlement.refunded_total,
    }
    return {name: value for name, value in shown.items() if value}


def _item(item: RefundReport | DisputeReport) -> dict[str, Any]:
    return {"gateway_reference": item.gateway_reference, "amount_cents": item.amount.minor, "state": item.state}


def warn_of_contradiction(row: Row, report: Report) -> None:
    """A gateway that takes its word back, or says one that we do not know: nothing is changed, a person is told."""
    if report.outcome is Outcome.UNKNOWN and report.said:
        log.warning("gateway_status_unknown", payment_id=row["id"], gateway=row["attempt_gateway"], said=report.said)
    if report.outcome in (Outcome.DISPUTED, Outcome.REFUNDED) and row["status"] != report.outcome.value:
        # Of money that a person has judged already, say: its state is theirs to change.
        log.warning("gateway_report_unused", payment_id=row["id"], gateway=row["attempt_gateway"], said=report.said)
    if report.outcome is Outcome.FAILED and row["attempt_state"] == "paid":
        log.warning(
            "gateway_contradicts_itself", payment_id=row["id"], gateway=row["attempt_gateway"], said=report.said
        )
