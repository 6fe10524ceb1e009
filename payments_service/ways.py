"""The ways to pay that a tenant's customers are offered, over all the gateways that the tenant has.

Where two gateways lead to the same wallet, customers see it once: through the gateway that the registry names first,
which is the wallet's own. The other one stands in for it when it cannot be reached or takes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from payments_service import accounts
from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Because, GatewayError, NotConfigured, Refused, Unreachable, Unreadable
from payments_service.gateways.base import Kind, Method
from payments_service.money import Money
from payments_service.records import money_of

log = structlog.get_logger(__name__)

_ORDER = {kind: place for place, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True)
class Way:
    """A way to pay that a customer can choose. `key` stands for it in the page's form; `instead` is the same wallet
    through another gateway."""

    gateway: str
    method: Method
    instead: Way | None = None

    @property
    def key(self) -> str:
        return f"{self.gateway}.{self.method.name}"

    @property
    def wallet(self) -> str:
        """The same for each gateway that leads to the same wallet."""
        return self.method.name

    def stand_in(self, error: GatewayError, *, phone: str | None) -> Way | None:
        """What may be started at once instead of this one, which has surely not been started; of another kind of
        failure, or where something is still to be asked of the customer, nothing."""
        gave_up = isinstance(error, Unreachable) or (
            isinstance(error, Refused) and error.because in (Because.METHOD, Because.OTHER)
        )
        if not gave_up or self.instead is None or (self.instead.method.needs_phone and phone is None):
            return None
        return self.instead


async def ways_to_pay(
    context: Context,
    client_id: UUID,
    amount: Money,
    *,
    gateway: str | None = None,
    email: str | None = None,
    tenant: UUID | None = None,
) -> list[Way]:
    """What the tenant has configured for such an amount: wallets, then cards, then pages, each in the registry's order;
    of one gateway only, if one is named.

    `email` is the customer's, where it is known: some ways need one. Raises Unreadable when there is no way because
    stored credentials do not open.
    """
    found: list[Way] = []
    unreadable = None
    for name, adapter in context.gateways.items():
        if amount.currency not in adapter.currencies or gateway not in (None, name):
            continue
        try:
            credentials = await accounts.credentials(context, client_id, name, amount.currency, tenant=tenant)
        except NotConfigured:
            continue
        except Unreadable as error:
            # The others can take the payment all the same.
            log.error("credentials_unreadable", gateway=name, client_id=client_id, detail=error.detail)
            unreadable = error
            continue
        found += [Way(name, method) for method in adapter.offered(credentials, email, amount)]
    if unreadable and not found:
        raise unreadable
    return sorted(_each_wallet_once(found), key=lambda way: _ORDER[way.method.kind])


def _each_wallet_once(found: list[Way]) -> list[Way]:
    shown: dict[str, Way] = {}
    # From behind, so that each stands in for the one before it.
    for way in reversed(found):
        shown[way.wallet] = replace(way, instead=shown.get(way.wallet))
    return [shown[wallet] for wallet in dict.fromkeys(way.wallet for way in found)]


def way_called(ways: list[Way], key: str) -> Way | None:
    """The way of this key, also one that only stands in for another."""
    for way in ways:
        candidate: Way | None = way
        while candidate is not None:
            if candidate.key == key:
                return candidate
            candidate = candidate.instead
    return None


def wallet_in(key: str) -> str:
    """The wallet that a key names."""
    return key.partition(".")[2]


def not_configured(currency: str) -> NotConfigured:
    """The error of a tenant that has no way to pay in this currency."""
    return NotConfigured(f"No gateway is set up for {currency}: save the credentials of one in payment-settings first.")


async def ways_of(context: Context, row: Row) -> list[Way]:
    """The ways to pay the payment of a row of `checkout.read`."""
    email = row["contact_email"]
    return await ways_to_pay(context, row["client_id"], money_of(row), gateway=row["gateway"], email=email)
