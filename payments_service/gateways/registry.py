"""Every gateway there is. A new one is its own file and one line here.

In the order in which they are offered: where two lead to the same wallet, the first is offered and the other stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from payments_service.config import Settings
from payments_service.gateways.base import Gateway
from payments_service.gateways.ecocash import Ecocash
from payments_service.gateways.innbucks import Innbucks
from payments_service.gateways.paynow import Paynow
from payments_service.gateways.stripe import Stripe
from payments_service.gateways.transport import Transport

# Each adapter has a credentials type of its own; whoever holds the registry passes them through unread.
Gateways = Mapping[str, Gateway[Any]]


def build(transport: Transport, settings: Settings) -> Gateways:
    """The adapters by name, each over its base URL of the settings."""
    adapters: tuple[Gateway[Any], ...] = (
        Ecocash(
            transport,
            settings.ecocash_url,
            settings.ecocash_mode,
            settings.ecocash_eip_url,
            settings.ecocash_portal_url,
            refund_by=settings.ecocash_refund_by,
            refund_type=settings.ecocash_refund_type,
            zig_code=settings.ecocash_zig_code,
        ),
        Innbucks(
            transport,
            settings.innbucks_url,
            settings.innbucks_inquiry_path,
            settings.innbucks_app_link,
            settings.innbucks_dial,
        ),
        Paynow(transport, settings.paynow_url, settings.innbucks_app_link),
        Stripe(transport, settings.stripe_url),
    )
    return {adapter.name: adapter for adapter in adapters}
