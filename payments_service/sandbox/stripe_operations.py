"""The operations of the simulated API: what each does for an account with checked parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from payments_service.sandbox import stripe_profiles
from payments_service.sandbox.stripe_accounts import Account, Endpoint, Event, Object
from payments_service.sandbox.stripe_catalog import COUNTRIES
from payments_service.sandbox.stripe_errors import ApiError, invalid, no_such, refused
from payments_service.sandbox.stripe_params import within
from payments_service.sandbox.stripe_returns import StripeReturns

_MOST_ENDPOINTS = 16
_EVENT_SECONDS = 30 * 86_400  # https://docs.stripe.com/api/events: kept for 30 days


@dataclass(frozen=True, slots=True)
class Call:
    """One request to carry out: whose, the id from its path, its checked parameters, what caused events name."""

    ledger: StripeReturns
    account: Account
    target: str
    params: Object
    cause: Object


# --- Checkout Sessions


def create_session(call: Call) -> Object:
    return call.ledger.create_session(call.account, call.params)


def retrieve_session(call: Call) -> Object:
    return call.account.get("checkout.session", call.target)


def list_sessions(call: Call) -> Object:
    return _page(call, call.account.all("checkout.session", **_members(call, "payment_intent", "status")))


def expire_session(call: Call) -> Object:
    checkout = call.account.get("checkout.session", call.target)
    if checkout["status"] != "open":
        raise refused(
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a status of '
            f"`{checkout['status']}`."
        )
    call.ledger.end_session(call.account, checkout, call.cause)
    return checkout


# --- payments and money that goes back


def retrieve_intent(call: Call) -> Object:
    return call.account.get("payment_intent", call.target)


def retrieve_charge(call: Call) -> Object:
    return call.account.get("charge", call.target)


def create_refund(call: Call) -> Object:
    charged = call.ledger.charge_to_refund(call.account, call.params)
    return call.ledger.make_refund(
        call.account,
        charged,
        call.params.get("amount"),
        call.ledger.refund_status,
        reason=call.params.get("reason"),
        metadata=call.params.get("metadata"),
        cause=call.cause,
    )


def retrieve_refund(call: Call) -> Object:
    return call.account.get("refund", call.target)


def list_refunds(call: Call) -> Object:
    return _page(call, call.account.all("refund", **_members(call, "payment_intent", "charge")))


def retrieve_dispute(call: Call) -> Object:
    return call.account.get("dispute", call.target)


def list_disputes(call: Call) -> Object:
    return _page(call, call.account.all("dispute", **_members(call, "payment_intent", "charge")))


# --- events


def retrieve_event(call: Call) -> Object:
    event = call.account.events.get(call.target)
    if event is None or _forgotten(call, event):
        raise no_such("event", call.target, "id")
    return event.shown()


def list_events(call: Call) -> Object:
    if "type" in call.params and "types" in call.params:
        raise invalid("You may only specify one of these parameters: type, types.", "type")
    wanted = (event.shown() for event in reversed(call.account.events.values()) if _wanted(call, event))
    return _page(call, wanted)


def _wanted(call: Call, event: Event) -> bool:
    kind, params = event.object["type"], call.params
    if not fnmatch.fnmatchcase(kind, params.get("type", "*")) or kind not in params.get("types", (kind,)):
        return False
    if "delivery_success" in params and params["delivery_success"] != (not event.waiting):
        return False
    return not _forgotten(call, event)


def _forgotten(call: Call, event: Event) -> bool:
    return bool(event.object["created"] < call.ledger.now - _EVENT_SECONDS)


# --- the account


def retrieve_account(call: Call) -> Object:
    return stripe_profiles.account(call.account)


def retrieve_country(call: Call) -> Object:
    if call.target not in COUNTRIES:
        message = (
            f"Country '{call.target}' is unknown. Try using a 2-character alphanumeric country code instead, such as "
            "'US', 'EG', or 'GB'. A full list of supported country codes is available at https://stripe.com/global"
        )
        raise ApiError(message, status=404, code="resource_missing", param="country")
    return stripe_profiles.country_spec(call.target)


# --- webhook endpoints


def create_endpoint(call: Call) -> Object:
    if len(call.account.endpoints) >= _MOST_ENDPOINTS:
        mode = "live" if call.account.livemode else "test"
        raise refused(f"You have reached the maximum of {_MOST_ENDPOINTS} {mode} webhook endpoints.")
    _check_events(call)
    made = call.ledger.make_endpoint(call.account, call.params)
    return made.object | {"secret": made.secret}


def retrieve_endpoint(call: Call) -> Object:
    return _endpoint(call).object


def list_endpoints(call: Call) -> Object:
    return _page(call, (one.object for one in reversed(call.account.endpoints.values())))


def update_endpoint(call: Call) -> Object:
    shown = _endpoint(call).object
    changes = dict(call.params)
    changes.pop("expand", None)
    _check_events(call)
    if "disabled" in changes:
        changes["status"] = "disabled" if changes.pop("disabled") else "enabled"
    if "metadata" in changes:
        changes["metadata"] = shown["metadata"] | changes["metadata"]
    shown.update(changes)
    return shown


def delete_endpoint(call: Call) -> Object:
    gone = _endpoint(call)
    del call.account.endpoints[gone.id]
    return {"id": gone.id, "object": "webhook_endpoint", "deleted": True}


def _endpoint(call: Call) -> Endpoint:
    found = call.account.endpoints.get(call.target)
    if found is None:
        raise no_such("webhook endpoint", call.target, "webhook_endpoint")
    return found


def _check_events(call: Call) -> None:
    if call.params.get("enabled_events") == []:
        raise invalid("You must specify at least one enabled event.", "enabled_events", "parameter_invalid_empty")


# --- lists


def _members(call: Call, *names: str) -> Object:
    return {name: call.params[name] for name in names if name in call.params}


def _page(call: Call, found: Iterable[Object]) -> Object:
    """`limit` objects, newest first, after or before the one that a cursor names."""
    created = call.params.get("created", {})
    things = [thing for thing in found if within(thing.get("created", 0), created)]
    limit = call.params.get("limit", 10)
    start, end = 0, len(things)
    if "starting_after" in call.params:
        start = _position(things, call.params["starting_after"], "starting_after") + 1
    if "ending_before" in call.params:
        end = _position(things, call.params["ending_before"], "ending_before")
        start = max(start, end - limit)
        return {"object": "list", "data": things[start:end], "has_more": start > 0}
    return {"object": "list", "data": things[start : start + limit], "has_more": end > start + limit}


def _position(things: list[Object], identifier: str, param: str) -> int:
    for index, thing in enumerate(things):
        if thing["id"] == identifier:
            return index
    raise ApiError(f"No such object: '{identifier}'", code="resource_missing", param=param)


@dataclass(frozen=True, slots=True)
class Operation:
    """Where it is found (`{id}` stands for the target), what it does, and the kind of object it answers with."""

    name: str
    method: str
    path: str
    work: Callable[[Call], Object]
    kind: str


OPERATIONS = (
    Operation("sessions.create", "POST", "/v1/checkout/sessions", create_session, "checkout.session"),
    Operation("sessions.list", "GET", "/v1/checkout/sessions", list_sessions, "list of checkout.session"),
    Operation("sessions.retrieve", "GET", "/v1/checkout/sessions/{id}", retrieve_session, "checkout.session"),
    Operation("sessions.expire", "POST", "/v1/checkout/sessions/{id}/expire", expire_session, "checkout.session"),
    Operation("payment_intents.retrieve", "GET", "/v1/payment_intents/{id}", retrieve_intent, "payment_intent"),
    Operation("charges.retrieve", "GET", "/v1/charges/{id}", retrieve_charge, "charge"),
    Operation("refunds.create", "POST", "/v1/refunds", create_refund, "refund"),
    Operation("refunds.list", "GET", "/v1/refunds", list_refunds, "list of refund"),
    Operation("refunds.retrieve", "GET", "/v1/refunds/{id}", retrieve_refund, "refund"),
    Operation("disputes.list", "GET", "/v1/disputes", list_disputes, "list of dispute"),
    Operation("disputes.retrieve", "GET", "/v1/disputes/{id}", retrieve_dispute, "dispute"),
    Operation("events.list", "GET", "/v1/events", list_events, "list of event"),
    Operation("events.retrieve", "GET", "/v1/events/{id}", retrieve_event, "event"),
    Operation("account.retrieve", "GET", "/v1/account", retrieve_account, "account"),
    Operation("country_specs.retrieve", "GET", "/v1/country_specs/{id}", retrieve_country, "country_spec"),
    Operation("webhook_endpoints.create", "POST", "/v1/webhook_endpoints", create_endpoint, "webhook_endpoint"),
    Operation("webhook_endpoints.list", "GET", "/v1/webhook_endpoints", list_endpoints, "list of webhook_endpoint"),
    Operation("webhook_endpoints.retrieve", "GET", "/v1/webhook_endpoints/{id}", retrieve_endpoint, "webhook_endpoint"),
    Operation("webhook_endpoints.update", "POST", "/v1/webhook_endpoints/{id}", update_endpoint, "webhook_endpoint"),
    Operation("webhook_endpoints.delete", "DELETE", "/v1/webhook_endpoints/{id}", delete_endpoint, "webhook_endpoint"),
)
