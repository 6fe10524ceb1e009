"""A tenant's Stripe account as it says itself, and our webhook endpoint in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from payments_service.errors import Unreachable, Untrusted
from payments_service.gateways.base import Endpoint, Verification
from payments_service.gateways.stripe_client import API_VERSION, Call, StripeApi, StripeRefused
from payments_service.gateways.stripe_events import TYPES
from payments_service.money import Currency

if TYPE_CHECKING:
    from stripe.params import WebhookEndpointCreateParams

SECONDS = 10.0
ENDPOINTS = "/v1/webhook_endpoints"


class _Account(msgspec.Struct, frozen=True):
    id: str
    country: str | None = None
    charges_enabled: bool = False
    payouts_enabled: bool = False
    details_submitted: bool = False


class _Country(msgspec.Struct, frozen=True):
    supported_payment_currencies: tuple[str, ...]


class _Endpoint(msgspec.Struct, frozen=True):
    id: str
    url: str
    enabled_events: tuple[str, ...]
    status: str = "enabled"
    api_version: str | None = None
    secret: str | None = None


class _Endpoints(msgspec.Struct, frozen=True):
    data: tuple[_Endpoint, ...]


class _Deleted(msgspec.Struct, frozen=True):
    deleted: bool


async def verify(api: StripeApi, key: str, secrets: Sequence[str], url: str) -> Verification:
    """What the account says. Raises Unreachable, Ambiguous or Untrusted; a refusal is an answer."""
    mode = next((mode for mode in ("test", "live") if f"_{mode}_" in key), None)
    if not key.startswith(("sk_", "rk_")):
        kind = "This is a publishable key" if key.startswith("pk_") else "This is no secret key of Stripe's"
        return Verification(False, mode, [], [f"{kind}: that begins with sk_ or rk_. Save it as stripe_secret_key."])
    try:
        account = await api.send(key, Call("account", "get", "/v1/account", SECONDS, {}), _Account)
    except StripeRefused as error:
        return Verification(False, mode, [], [error.detail])
    currencies = await _currencies(api, key, account.country)
    messages = [*_of_account(account, mode, currencies), *await _of_webhook(api, key, secrets, url)]
    return Verification(account.charges_enabled and bool(currencies), mode, currencies, messages, account.id)


def _of_account(account: _Account, mode: str | None, currencies: list[Currency]) -> list[str]:
    kind = "Test mode: no real money moves." if mode == "test" else "Live mode: real money moves."
    messages = [f"The key belongs to the account {account.id}. {kind}"]
    if not account.charges_enabled:
        messages.append("The account cannot take payments yet: finish its activation in Stripe's dashboard.")
    if not account.payouts_enabled:
        messages.append("Stripe does not pay out to this account yet.")
    if not currencies:
        messages.append("The account's country does not take USD.")
    return messages


async def _currencies(api: StripeApi, key: str, country: str | None) -> list[Currency]:
    """Ours, that the account's country can be paid in; USD when Stripe does not say."""
    if not (country and country.isascii() and country.isalpha()):
        return [Currency.USD]
    try:
        call = Call("country", "get", f"/v1/country_specs/{country}", SECONDS, {})
        spec = await api.send(key, call, _Country)
    except StripeRefused:
        return [Currency.USD]
    return [currency for currency in Currency if currency.lower() in spec.supported_payment_currencies]


async def _of_webhook(api: StripeApi, key: str, secrets: Sequence[str], url: str) -> list[str]:
    """How payments come to be known: by webhooks, if an endpoint of this account leads here."""
    advice = "POST …/payment-settings/stripe-webhook sets it up."
    try:
        ours = await _endpoints(api, key, url)
    except (StripeRefused, Unreachable):
        return ["Whether a webhook endpoint leads here could not be seen with this key."]
    active = [endpoint for endpoint in ours if endpoint.status == "enabled"]
    if not secrets:
        return [f"No webhook secret is saved: payments are found by look-ups only. {advice}"]
    if odd := [secret for secret in secrets if not secret.startswith("whsec_")]:
        return [f"{len(odd)} of the saved webhook secrets is none of Stripe's, which begin with whsec_. {advice}"]
    if not active:
        return [f"No active webhook endpoint of this account leads to {url}. {advice}"]
    if missing := sorted(_untold(active)):
        return [f"The webhook endpoint is not told of: {', '.join(missing)}. {advice}"]
    return ["A webhook endpoint of this account leads here."]


def _untold(endpoints: Sequence[_Endpoint]) -> set[str]:
    """The events that none of the endpoints is told of."""
    told = {event for endpoint in endpoints for event in endpoint.enabled_events}
    return set() if "*" in told else {event for event in TYPES if event not in told}


async def is_told(api: StripeApi, key: str, url: str) -> bool:
    """Whether endpoints of this account that lead here are told of all that is read here; False where that cannot be
    seen with this key."""
    try:
        active = [endpoint for endpoint in await _endpoints(api, key, url) if endpoint.status == "enabled"]
    except StripeRefused:
        return False
    return bool(active) and not _untold(active)


async def create_endpoint(api: StripeApi, key: str, url: str) -> Endpoint:
    """A new endpoint; the secret is told in this one answer only. Raises StripeRefused and the others."""
    params: WebhookEndpointCreateParams = {
        "url": url,
        "enabled_events": list(TYPES),
        "api_version": API_VERSION,
        "description": "Conva Payments",
    }
    former = [endpoint.id for endpoint in await _endpoints(api, key, url)]
    made = await api.send(key, Call("create_endpoint", "post", ENDPOINTS, SECONDS, params), _Endpoint)
    if not made.secret or made.url != url:
        raise Untrusted("stripe.create_endpoint: the answer has no secret, or is about another endpoint")
    return Endpoint(made.id, made.url, made.api_version, list(made.enabled_events), made.secret, former)


async def delete_endpoints(api: StripeApi, key: str, endpoint_ids: Sequence[str]) -> None:
    """Remove these; one that is gone already is as good."""
    for endpoint_id in endpoint_ids:
        try:
            await api.send(key, Call("delete_endpoint", "delete", f"{ENDPOINTS}/{endpoint_id}", SECONDS, {}), _Deleted)
        except StripeRefused as error:
            if error.status != 404:
                raise


async def _endpoints(api: StripeApi, key: str, url: str) -> list[_Endpoint]:
    """Those that lead to the URL. An account has at most 16, so one page is all."""
    call = Call("list_endpoints", "get", ENDPOINTS, SECONDS, {"limit": 100})
    return [endpoint for endpoint in (await api.send(key, call, _Endpoints)).data if endpoint.url == url]
