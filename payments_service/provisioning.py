"""A tenant's gateway account looked at and set up from here: are the credentials good, does it report to us."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from payments_service import accounts
from payments_service.context import Context
from payments_service.errors import NotConfigured, WrongState
from payments_service.gateways.base import Provisions, Verification
from payments_service.money import Currency


class Verified(msgspec.Struct, frozen=True):
    """What a gateway says of a tenant's credentials. `ok`: payments can be taken in each of `currencies`."""

    gateway: str
    ok: bool
    mode: str | None
    account: str | None
    currencies: list[Currency]
    messages: list[str]


class Provisioned(msgspec.Struct, frozen=True):
    """The webhook endpoint in the tenant's account; its secret is saved, and never shown."""

    gateway: str
    endpoint_id: str
    url: str
    api_version: str | None
    enabled_events: list[str]
    replaced: list[str]


async def verify(context: Context, client_id: UUID, gateway: str) -> Verified:
    """Ask the gateway about every account that the tenant has there.

    Raises NotConfigured, Unreadable, Unreachable, Ambiguous and Untrusted.
    """
    adapter, found, refusal = context.gateways.get(gateway), [], None
    for currency in sorted(adapter.currencies) if adapter else [Currency.USD]:
        try:
            credentials = await accounts.credentials(context, client_id, gateway, currency, tenant=client_id)
        except NotConfigured as error:
            refusal = refusal or error
            continue
        found.append(await context.gateways[gateway].verify(credentials, context.callback_url(gateway, client_id)))
    if refusal and not found:
        flags = await accounts.masked(context, client_id)
        if not adapter or not any(flags[name] for name in adapter.configured_by):
            raise refusal
        # Something is saved, but not what it should be.
        return Verified(gateway, ok=False, mode=None, account=None, currencies=[], messages=[refusal.detail])
    return _together(gateway, found)


def _together(gateway: str, found: list[Verification]) -> Verified:
    return Verified(
        gateway=gateway,
        ok=all(each.ok for each in found),
        mode=next((each.mode for each in found if each.mode), None),
        account=", ".join(dict.fromkeys(each.account for each in found if each.account)) or None,
        currencies=[currency for each in found for currency in each.currencies],
        # Each account may say the same of the gateway itself.
        messages=list(dict.fromkeys(message for each in found for message in each.messages)),
    )


async def set_up_webhook(context: Context, client_id: UUID, gateway: str, *, actor: str) -> Provisioned:
    """Make a webhook endpoint in the tenant's account, save its secret, then remove those that led here before.

    Until the new secret is saved the former endpoint reports, afterwards both do for a moment; what was on its way then
    is looked up. Of several at the same time the first to save wins: nobody removes an endpoint that is younger than
    his own. Raises NotConfigured, Refused, Unreachable, Ambiguous, Untrusted, and WrongState for the others.
    """
    adapter = context.gateways[gateway]
    assert isinstance(adapter, Provisions), "only asked for where it can be done"
    (currency,) = adapter.currencies
    before = await accounts.stored(context, client_id, adapter.secret_field)
    credentials = await accounts.credentials(context, client_id, gateway, currency, tenant=client_id)
    endpoint = await adapter.provision(credentials, context.callback_url(gateway, client_id))
    secret = {adapter.secret_field: endpoint.secret}
    try:
        await accounts.save(context, client_id, secret, actor=actor, instead_of=before)
    except WrongState:
        await adapter.retire(credentials, [endpoint.id])
        raise
    await adapter.retire(credentials, endpoint.former)
    await _look_at_what_was_on_its_way(context, client_id, gateway)
    return Provisioned(
        gateway, endpoint.id, endpoint.url, endpoint.api_version, endpoint.events, replaced=endpoint.former
    )


_LOOK = """
WITH attempts_due AS (
    UPDATE attempts SET next_check_at = %(at)s
    WHERE client_id = %(client_id)s AND gateway = %(gateway)s AND state = 'live' AND next_check_at > %(at)s
)
UPDATE sweeps SET next_at = %(at)s WHERE client_id = %(client_id)s AND gateway = %(gateway)s"""


async def _look_at_what_was_on_its_way(context: Context, client_id: UUID, gateway: str) -> None:
    values: dict[str, Any] = {"client_id": client_id, "gateway": gateway, "at": context.clock()}
    await context.db.run(_LOOK, values)
    context.checks_due.ring()
