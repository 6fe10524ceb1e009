"""The credentials by which callbacks are verified, per tenant, read a moment ago."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from payments_service import accounts
from payments_service.context import Context
from payments_service.errors import NotConfigured, PaymentsError, Untrusted
from payments_service.gateways.base import Callback, CallsBack, Message
from payments_service.money import Currency

# What proves is signed with the secret of now; what was on its way when that was replaced is still taken for so long.
# Where a secret leaked, clearing it first takes the one before within seconds.
PROOF_LIFE = timedelta(hours=1)


@dataclass(frozen=True, slots=True, repr=False)
class _Keys:
    """A tenant's credentials of one gateway, each with its currency, as read a moment ago."""

    known: list[tuple[Currency, object]]
    read_at: float


class Keyring:
    """Credentials for verifying callbacks, kept for a minute so that a callback costs one statement.

    A key that was just replaced or cleared may verify that much longer. Where a callback is only a hint that is
    harmless: the look-up that follows reads the credentials anew. Those that prove are kept for seconds only.
    """

    LIFE = 60.0
    LIFE_OF_PROOFS = 5.0
    # A callback that does not verify may be signed with a newer key: read again, but not for every forgery.
    YOUNG = 2.0
    MOST = 10_000

    def __init__(self, context: Context, gateway: str) -> None:
        self._context = context
        self._gateway = gateway
        self._life = self.LIFE_OF_PROOFS if self._adapter.callback_is_proof else self.LIFE
        self._kept: OrderedDict[UUID, _Keys] = OrderedDict()

    async def verify(self, client_id: UUID, message: Message) -> tuple[Callback | None, Currency]:
        """The callback, if it is about something of ours, and the currency whose credentials it was signed with.
        Raises Untrusted, NotConfigured."""
        age = time.monotonic() - kept.read_at if (kept := self._kept.get(client_id)) else self._life
        if kept is None or age >= self._life:
            return self._verified(await self._read(client_id), message)
        try:
            return self._verified(kept, message)
        except (Untrusted, NotConfigured):
            if age < self.YOUNG:
                raise
            return self._verified(await self._read(client_id), message)

    @property
    def _adapter(self) -> CallsBack:
        adapter = self._context.gateways[self._gateway]
        assert isinstance(adapter, CallsBack), "only made for gateways that call back"
        return adapter

    def _verified(self, keys: _Keys, message: Message) -> tuple[Callback | None, Currency]:
        adapter = self._adapter
        refusal: PaymentsError = NotConfigured("this tenant has no credentials for the gateway")
        for currency, credentials in keys.known:
            try:
                return adapter.read_callback(credentials, message), currency
            except Untrusted as error:
                refusal = error
        raise refusal

    async def _read(self, client_id: UUID) -> _Keys:
        life = PROOF_LIFE if self._adapter.callback_is_proof else accounts.RETIRED_LIFE
        since = self._context.clock() - life
        found = await accounts.known_credentials(self._context, client_id, self._gateway, since=since)
        keys = _Keys(found, time.monotonic())
        self._kept[client_id] = keys
        self._kept.move_to_end(client_id)
        if len(self._kept) > self.MOST:
            self._kept.popitem(last=False)
        return keys
