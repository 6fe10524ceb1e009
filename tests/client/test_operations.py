"""The client is whole: every operation of openapi.yaml has a method, with all that can be sent and all that comes."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, is_typeddict
from uuid import UUID, uuid4

import pytest

import conva_payments
from conva_payments import Payments, PaymentsError, answers, events, problems, requests, words
from payments_service.internal import auth
from tests.documented import OPERATIONS, Documented
from tests.house import TOKEN
from tests.openapi import DOCUMENT, SCHEMAS, Schema, follow, operations
from tests.servers import serve

CLIENT, PAYMENT, OTHER = uuid4(), uuid4(), str(uuid4())
SINCE = datetime(2026, 11, 1, tzinfo=UTC)
UNTIL = SINCE + timedelta(days=7)
FILTERS: requests.PaymentFilters = {
    "status": "paid",
    "gateway": "paynow",
    "currency": "USD",
    "reference": "INV-1 & co",
    "contact_id": uuid4(),
    "invoice_id": str(uuid4()),
    "created_from": SINCE,
    "created_to": UNTIL,
}
EVENTS: requests.EventFilters = {"type": "payment.paid", "state": "failed", "client_id": CLIENT}
SETTINGS: dict[str, Any] = {
    **dict.fromkeys(SCHEMAS["SettingsPatch"]["properties"], "x"),
    "paynow_auth_email": "till@acme.example",
    "whatsapp_text": "Pay here: {link}",
    "paynow_express_methods": "ecocash",
    "ecocash_dialect": "eip",
    "ecocash_currencies": "USD, ZIG",
    "display_name": None,
}
LINK: dict[str, Any] = {
    "gateway": "paynow",
    "amount_cents": 1250,
    "currency": "USD",
    "reference": "INV-1",
    "contact_id": uuid4(),
    "description": "Two bags",
    "invoice_id": OTHER,
    "contact_email": "ann@acme.example",
    "contact_phone": "+263771234567",
    "expires_in": 3600,
    "send": "whatsapp",
    "reminders": True,
}
DECIDED: dict[str, Any] = {"note": "seen in their books", "actor": "ann@acme"}

# Each method with all that it takes, by the operation that it calls.
CALLS: dict[str, Callable[[Payments], Any]] = {
    "getPaymentSettings": lambda it: it.settings(CLIENT),
    "savePaymentSettings": lambda it: it.save_settings(CLIENT, actor="ann@acme", **SETTINGS),
    "verifyPaymentSettings": lambda it: it.verify_settings(CLIENT, "stripe"),
    "setUpStripeWebhook": lambda it: it.set_up_stripe_webhook(CLIENT, actor="ann@acme"),
    "createLink": lambda it: it.create_link(CLIENT, **LINK),
    "listPayments": lambda it: it.payments_page(CLIENT, limit=200, cursor="abc", **FILTERS),
    "exportPayments": lambda it: whole(it.payments_csv(CLIENT, **FILTERS)),
    "summarizePayments": lambda it: it.summary(CLIENT, since=SINCE, until=UNTIL),
    "sendLink": lambda it: it.send_link(CLIENT, PAYMENT, to="+263771234567", form="text", actor="ann@acme"),
    "getPayment": lambda it: it.payment(CLIENT, PAYMENT),
    "getPaymentHistory": lambda it: it.history(CLIENT, str(PAYMENT)),
    "cancelPayment": lambda it: it.cancel(CLIENT, PAYMENT, actor="ann@acme"),
    "refreshPayment": lambda it: it.refresh(CLIENT, PAYMENT),
    "createRefund": lambda it: it.refund(
        CLIENT, PAYMENT, reason="torn", amount_cents=250, manual=True, evidence="receipt 118", actor="ann@acme"
    ),
    "listRefunds": lambda it: it.refunds(CLIENT, PAYMENT),
    "settleRefund": lambda it: it.settle_refund(CLIENT, PAYMENT, OTHER, resolution="failed", **DECIDED),
    "resolveReview": lambda it: it.resolve_review(CLIENT, PAYMENT, resolution="refunded", **DECIDED),
    "listReviews": lambda it: it.reviews(CLIENT, PAYMENT),
    "listAuditLogs": lambda it: it.audit_logs_page(CLIENT, limit=200, cursor="7"),
    "verifyAuditLogs": lambda it: it.verify_audit_logs(CLIENT),
    "deleteTenant": lambda it: it.delete_tenant(CLIENT, actor="ann@acme", give_up_late_money=True),
    "listEvents": lambda it: it.events_page(after="17", limit=500, **EVENTS),
    "redeliverEvent": lambda it: it.redeliver_event(OTHER),
    "redeliverEvents": lambda it: it.redeliver_events(SINCE, UNTIL, **EVENTS),
}


async def whole(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def test_every_operation_has_a_method() -> None:
    """A new route fails this until the client has it too. What needs no token is for probes and people."""
    assert {each.about["operationId"] for each in OPERATIONS} == CALLS.keys()
    others = [each for each in operations() if each.listener == "internal" and each not in OPERATIONS]
    assert all(each.path in auth.OPEN or each.path.startswith(("/docs/", "/metrics")) for each in others)


@pytest.mark.parametrize("name", CALLS)
async def test_a_method_sends_all_that_can_be_sent_and_reads_the_answer(name: str) -> None:
    """Every parameter, field and header that the document has, in its form; the documented answer becomes its type."""
    documented = Documented()
    async with serve(documented, lifespan="off") as url, Payments(url, TOKEN) as payments:
        answer = await CALLS[name](payments)
    (asked,) = documented.asked
    about, parameters = asked.operation.about, asked.operation.parameters
    assert about["operationId"] == name
    assert asked.query.keys() == {each["name"] for each in parameters if each["in"] == "query"}
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    headers = {each["name"].lower() for each in parameters if each["in"] == "header"}
    assert headers <= asked.headers.keys(), name
    assert len(asked.headers.get("idempotency-key", "")) == (36 if asked.operation.method == "POST" else 0)
    if "requestBody" in about:
        schema = follow(about["requestBody"]["content"]["application/json"]["schema"])
        assert asked.body.keys() == schema["properties"].keys()
    told = type(answer[0]) if isinstance(answer, list) else type(answer)
    assert told in (bytes, int, type(None)) or told.__module__.startswith("conva_payments.")


# --- the types are the document's

SHAPES: dict[type, str] = {
    answers.Payment: "Payment",
    answers.PaymentWithMessages: "PaymentWithMessages",
    answers.PaymentChange: "EventData",
    answers.Message: "Message",
    answers.MessageNews: "MessageNews",
    answers.HistoryEntry: "HistoryEntry",
    answers.Evidence: "Evidence",
    answers.RefundEvidence: "RefundEvidence",
    answers.DisputeEvidence: "DisputeEvidence",
    answers.Refund: "Refund",
    answers.RefundMade: "RefundMade",
    answers.Review: "Review",
    answers.Total: "Total",
    answers.Settings: "PaymentSettings",
    answers.Verification: "Verification",
    answers.WebhookEndpoint: "WebhookEndpoint",
    answers.AuditEntry: "AuditEntry",
    answers.ChainVerdict: "ChainVerdict",
    events.PulledEvent: "EventTold",
    events.Try: "EventTry",
    requests.SettingsChanges: "SettingsPatch",
}
OPEN_WORDS: dict[type[words.Word], str] = {
    words.Status: "Status",
    words.Gateway: "GatewayName",
    words.Currency: "Currency",
    words.RefundStatus: "RefundStatus",
    words.EventType: "EventType",
    words.EventState: "EventState",
    words.MessageState: "MessageState",
}


def properties(schema: Schema) -> Schema:
    """With those of all parts."""
    found = dict(follow(schema).get("properties", {}))
    for part in follow(schema).get("allOf", ()):
        found |= properties(part)
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_a_type_has_the_fields_of_its_schema(shape: type) -> None:
    """A new field fails this until the client knows it; an event has its `webhook_id` besides. What an event tells of
    a message stands in `MessageEvent`, not in a payment's change."""
    if is_typeddict(shape):
        names = set(shape.__annotations__)
    else:
        names = {each.name for each in dataclasses.fields(shape)} - {"webhook_id"}
    told = properties(SCHEMAS[SHAPES[shape]]).keys()
    assert names == told - ({"message"} if shape is answers.PaymentChange else set())


def test_an_event_of_a_message_has_what_is_pulled_but_for_the_payment() -> None:
    """So nobody applies its payment by mistake: no `data`, no `sequence`."""
    names = {each.name for each in dataclasses.fields(events.PulledMessageEvent)} - {"webhook_id"}
    more = {"invoice_id", "message"}
    assert names == (properties(SCHEMAS["EventTold"]).keys() - {"data", "sequence"}) | more


@pytest.mark.parametrize("kind", OPEN_WORDS)
def test_the_words_are_the_documents(kind: type[words.Word]) -> None:
    assert {word.value for word in kind} == set(SCHEMAS[OPEN_WORDS[kind]]["enum"])


def test_what_may_be_sent_is_the_documents() -> None:
    parameters = DOCUMENT["components"]["parameters"]
    assert set(get_args(words.StatusName)) == set(SCHEMAS["Status"]["enum"])
    assert set(get_args(words.GatewayName)) == set(SCHEMAS["GatewayName"]["enum"])
    assert set(get_args(words.CurrencyName)) == set(parameters["WithCurrency"]["schema"]["enum"])
    assert set(get_args(words.EventStateName)) == set(SCHEMAS["EventState"]["enum"])
    assert list(get_args(words.MessageForm)) == SCHEMAS["SendLink"]["properties"]["form"]["enum"]


# Customers and gateways are told these; or they can only be a mistake of the client's own.
NEVER_TOLD = {"otp_not_accepted", "callback_refused", "request_timeout", "method_not_allowed", "body_too_large"}


def test_every_code_that_a_caller_may_be_told_has_a_class() -> None:
    """All classes are drawn in the tree and exported."""
    coded = set(SCHEMAS["ProblemCode"]["enum"]) - NEVER_TOLD
    assert coded - problems.CLASSES.keys() == set()
    for kind in problems.CLASSES.values():
        assert f"─ {kind.__name__} " in (problems.__doc__ or "")
        assert getattr(conva_payments, kind.__name__) is kind
        assert issubclass(kind, PaymentsError)


def test_a_word_that_is_new_is_kept() -> None:
    """It equals its text, and is of the type."""
    assert words.Status("paid") is words.Status.PAID
    new = words.Status("on_hold")
    assert (new, type(new), str(new)) == ("on_hold", words.Status, "on_hold")
    assert new not in list(words.Status)


async def test_only_ids_get_into_an_address() -> None:
    """A text that is no UUID is refused before anything is sent."""
    async with Payments("http://127.0.0.1:1", TOKEN) as payments:
        for crooked in ("../../v1/events", "", "x/cancel"):
            with pytest.raises(ValueError, match="UUID"):
                await payments.payment(CLIENT, crooked)
        assert isinstance(PAYMENT, UUID)
