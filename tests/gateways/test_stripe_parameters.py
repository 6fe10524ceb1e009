"""What the adapter sends, held against two lists that were not written here: Stripe's CLI's and Stripe's SDK's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from stripe import params
from stripe.params import checkout

from payments_service.gateways.base import RefundOrder
from payments_service.gateways.stripe import Stripe
from payments_service.ids import new_id
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import CREDENTIALS, HOOK, begin, opened
from tests.stripe_cli import unlisted
from tests.stripe_types import check_params

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, quick = stripe_stage.stripe, stripe_stage.quick

# Our operation, as the CLI calls it, and the SDK's type of its parameters.
KNOWN: dict[str, tuple[str, Any]] = {
    "sessions.create": ("checkout sessions create", checkout.SessionCreateParams),
    "sessions.retrieve": ("checkout sessions retrieve", checkout.SessionRetrieveParams),
    "sessions.expire": ("checkout sessions expire", checkout.SessionExpireParams),
    "sessions.list": ("checkout sessions list", checkout.SessionListParams),
    "refunds.create": ("refunds create", params.RefundCreateParams),
    "events.list": ("events list", params.EventListParams),
    "account.retrieve": ("accounts retrieve", params.AccountRetrieveCurrentParams),
    "country_specs.retrieve": ("country_specs retrieve", params.CountrySpecRetrieveParams),
    "webhook_endpoints.create": ("webhook_endpoints create", params.WebhookEndpointCreateParams),
    "webhook_endpoints.list": ("webhook_endpoints list", params.WebhookEndpointListParams),
    "webhook_endpoints.delete": ("webhook_endpoints delete", params.WebhookEndpointDeleteParams),
}


@pytest.mark.usefixtures("stripe_program")
async def test_every_parameter_is_stripes(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Of every kind of call that the adapter makes."""
    attempt = await begin(stripe, payer_email="tmoyo@example.com")
    await stripe.check(CREDENTIALS, opened(None))
    intent = (await sandbox.pay(attempt.reference))["payment_intent"]
    await stripe.refund(
        CREDENTIALS, RefundOrder(new_id(), intent, Money(100, Currency.USD), "one bag was torn", new_id())
    )
    await stripe.withdraw(CREDENTIALS, attempt)
    await stripe.missed(CREDENTIALS, HOOK, attempt.started_at - timedelta(hours=1), attempt.started_at)
    await stripe.verify(CREDENTIALS, HOOK)
    made = [await stripe.provision(CREDENTIALS, HOOK) for _ in range(2)]
    await stripe.retire(CREDENTIALS, made[-1].former)
    seen = {each.operation: each.params for each in sandbox.requests}
    assert seen.keys() == KNOWN.keys()
    for operation, (command, kind) in KNOWN.items():
        assert unlisted(command, seen[operation]) == set(), operation
        check_params(kind, seen[operation])
