"""The numbers that messages go out from: a tenant's own, else the platform's, and those that WhatsApp turned down."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import structlog

from payments_service import accounts
from payments_service.context import Context
from payments_service.errors import ChannelNotConfigured
from payments_service.idempotency import NOBODY
from payments_service.log import scrub
from payments_service.whatsapp import LANGUAGE, TEMPLATE, Rejected, Sender

log = structlog.get_logger(__name__)

# Then it is tried again, by the next message: what was wrong may have been put right at Meta's.
STOPPED_FOR = timedelta(hours=1)

_SETTINGS = """
SELECT whatsapp_phone_number_id, whatsapp_access_token_enc, whatsapp_template, whatsapp_template_language
FROM payment_settings WHERE client_id = %(client_id)s"""


async def sender_of(context: Context, client_id: UUID) -> Sender:
    """The number that the tenant's messages go out from.

    Raises ChannelNotConfigured when there is none, or WhatsApp has turned it down; Unreadable.
    """
    sender = await _own(context, client_id) or context.platform_sender
    if sender is None:
        raise ChannelNotConfigured(
            "WhatsApp is not set up: save whatsapp_phone_number_id and whatsapp_access_token in payment-settings, "
            "or send the payment's whatsapp_url by hand."
        )
    if detail := await _stopped(context, client_id, sender):
        raise ChannelNotConfigured(_words(sender, detail))
    return sender


async def _own(context: Context, client_id: UUID) -> Sender | None:
    rows = await context.db.run(_SETTINGS, {"client_id": client_id}, tenant=client_id)
    if not rows or not (rows[0]["whatsapp_phone_number_id"] and rows[0]["whatsapp_access_token_enc"]):
        return None
    row, column = rows[0], "whatsapp_access_token_enc"
    return Sender(
        phone_number_id=row["whatsapp_phone_number_id"],
        access_token=accounts.opened(context, client_id, column, row[column]) or "",
        template=row["whatsapp_template"] or TEMPLATE,
        language=row["whatsapp_template_language"] or LANGUAGE,
    )


_STOPPED = """
SELECT detail FROM stopped_senders WHERE client_id = %(client_id)s AND digest = %(digest)s AND at > %(since)s"""
_STOP = """
INSERT INTO stopped_senders (client_id, digest, code, detail, at)
VALUES (%(client_id)s, %(digest)s, %(code)s, %(detail)s, %(at)s)
ON CONFLICT (client_id, digest) DO UPDATE SET code = excluded.code, detail = excluded.detail, at = excluded.at"""


async def _stopped(context: Context, client_id: UUID, sender: Sender) -> str | None:
    """Why nothing leaves this number now; None: it may."""
    values = {"client_id": _owner(sender, client_id), "digest": sender.digest, "since": context.clock() - STOPPED_FOR}
    rows = await context.db.run(_STOPPED, values)
    return rows[0]["detail"] if rows else None


async def stop(context: Context, client_id: UUID, sender: Sender, error: Rejected) -> None:
    """Nothing more leaves this number until its settings are saved anew, or an hour has passed; it says so to whoever
    asks for a message. Of the platform's number that holds for every tenant without an own one."""
    # The platform's number is many tenants': what is said of one's customer is nothing for the others.
    detail = scrub(error.detail)
    values = {"client_id": _owner(sender, client_id), "digest": sender.digest, "code": error.code, "detail": detail}
    await context.db.run(_STOP, {**values, "at": context.clock()})
    whose = "the tenant's own number" if sender.own else "the platform's number"
    log.error("channel_stopped", client_id=client_id, error_code=error.code, detail=detail, reason=whose)


def _owner(sender: Sender, client_id: UUID) -> UUID:
    return client_id if sender.own else NOBODY


def _words(sender: Sender, detail: str) -> str:
    todo = (
        "Put it right at Meta's, and save whatsapp_access_token in payment-settings anew"
        if sender.own
        else "The platform's own number is meant: its operator must put that right"
    )
    said = detail.rstrip(".")
    return f"WhatsApp turns this number down: {said}. {todo}. Until then send the payment's whatsapp_url by hand."
