"""What schemathesis must know about this service beyond openapi.yaml. It loads this module: see settings.toml."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any
from uuid import NAMESPACE_URL, uuid4, uuid5

import schemathesis
from requests import PreparedRequest
from schemathesis import Case, GenerationMode, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.openapi.checks import RejectedPositiveData

from payments_service.gateways.stripe_events import TYPES

# 422 also says that the request does not fit what is on record, which no schema can tell.
OF_STATE = frozenset({"idempotency_key_reused", "gateway_not_configured", "gateway_refused", "whatsapp_not_configured"})

# Faults of single fields that no schema tells: the field, and how our words about it begin.
BEYOND_SCHEMAS = tuple(
    (field, re.compile(words))
    for field, words in (
        # What only we can have made.
        ("cursor", "is not one that this service gave"),
        # One moment before another; JSON Schema cannot compare two values.
        ("created_to|to", "must be later than the beginning"),
        # What there is depends on what was paid, and by which gateway.
        ("amount_cents", "is more than what is left to refund"),
        ("manual", ".* (gives money back by itself|has no refunds)"),
        ("currency", ".* does not take Z"),
        # To JSON Schema 3068.0 is an integer; our rule for every request is that it is written without a point.
        ("[a-z_]+", "expected int.*, got float"),
        # One field asks for another, or forbids it.
        ("evidence", "belongs to manual refunds only|is needed with manual"),
        ("reminders", "needs "),
        # Blanks of Unicode that patterns do not know; a number of a phone that cannot be.
        ("note|reason|reference|display_name|[a-z_]+", "holds nothing but blanks"),
        ("whatsapp_number|contact_phone|to", "is not a phone number|is needed: no number of the customer"),
    )
)


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """Whether this is a failure."""
    if isinstance(failure, AcceptedNegativeData) and "idempotent-replayed" in response.headers:
        return False  # nothing was done: this is the answer of an earlier, valid request under the same key
    if not isinstance(failure, RejectedPositiveData):
        return True
    if case.operation.path in STRIPE_SECRETS and response.status_code == 400:
        return not (isinstance(case.body, dict) and case.body["type"] in TYPES)  # what it is about is Stripe's to say
    # A valid request may be refused for what no schema can say.
    if response.status_code != 422:
        return True
    if "problem+json" not in response.headers.get("content-type", [""])[0]:
        return True
    problem = json.loads(response.content)
    if problem["code"] in OF_STATE:
        return False
    return not all(beyond_schemas(**fault) for fault in problem["errors"])


def beyond_schemas(field: str, message: str) -> bool:
    return any(re.fullmatch(name, field) and words.match(message) for name, words in BEYOND_SCHEMAS)


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Make valid requests useful ones, and keep what other requests need."""
    if case.operation.path in RISKY and case.path_parameters.get("client_id") == os.environ["TENANT"]:
        case.path_parameters["client_id"] = str(uuid5(NAMESPACE_URL, case.id))
    if case.meta and case.meta.generation.mode is GenerationMode.POSITIVE:
        put_right(case)
        if secret := STRIPE_SECRETS.get(case.operation.path):
            kwargs["auth"] = signer(secret)
            if case.path_parameters:
                case.path_parameters["client_id"] = os.environ["TENANT"]  # whose secret it is


# What would leave the tenant without its credentials: done to others.
RISKY = frozenset({"/v1/clients/{client_id}", "/v1/clients/{client_id}/payment-settings"})
STRIPE_SECRETS = {
    "/callbacks/stripe": os.environ["PLATFORM_SECRET"],
    "/callbacks/stripe/{client_id}": os.environ["STRIPE_SECRET"],
}


def put_right(case: Case) -> None:
    """A new key for each request, as long as the old one where that is long enough; time that does not stand still."""
    if key := (case.headers or {}).get("Idempotency-Key"):
        case.headers["Idempotency-Key"] = uuid4().hex + key[32:]
    for since, until in (("created_from", "created_to"), ("from", "to")):
        if since in (case.query or {}) and case.query.get(until) == case.query[since]:
            case.query[until] = "9999-12-31T23:59:59Z"


def signer(secret: str) -> Callable[[PreparedRequest], PreparedRequest]:
    """Stripe's scheme, v1: https://docs.stripe.com/webhooks#verify-manually"""

    def sign(request: PreparedRequest) -> PreparedRequest:
        body, now = request.body or b"", int(time.time())
        signed = f"{now}.".encode() + (body if isinstance(body, bytes) else body.encode())
        digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
        request.headers["Stripe-Signature"] = f"t={now},v1={digest}"
        return request

    return sign
