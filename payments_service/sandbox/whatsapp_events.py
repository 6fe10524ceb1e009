"""What the simulated WhatsApp tells in its webhooks, as Meta's reference shows it.

developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages and …/messages/status.
"""

from __future__ import annotations

from payments_service.sandbox.whatsapp_errors import Object
from payments_service.sandbox.whatsapp_messages import Message, Status, Written
from payments_service.sandbox.whatsapp_webhooks import Event


def status_event(message: Message, status: Status, now: float) -> Event:
    """What became of a message. Whether a `failed` one carries our data, the reference does not say [?]."""
    content: Object = {
        "id": message.id,
        "status": status,
        "timestamp": str(int(now)),
        "recipient_id": message.wa_id,
    }
    if message.draft.callback_data:
        content["biz_opaque_callback_data"] = message.draft.callback_data
    if status == "failed" and message.trouble:
        content["errors"] = [message.trouble.in_status()]
    elif status in ("sent", "delivered"):
        content["pricing"] = _pricing(message)
    return Event(message.sender, "statuses", content, f"{status} {message.draft.callback_data or message.draft.to}")


def _pricing(message: Message) -> Object:
    free = message.draft.kind == "text"
    return {
        "billable": not free,
        "pricing_model": "PMP",
        "category": message.draft.category,
        "type": "free_customer_service" if free else "regular",
    }


def written_event(written: Written) -> Event:
    """A text of a customer."""
    content: Object = {
        "from": written.wa_id,
        "id": written.id,
        "timestamp": str(int(written.at)),
        "type": "text",
        "text": {"body": written.text},
    }
    contact: Object = {"profile": {"name": "Customer"}, "wa_id": written.wa_id}
    return Event(written.sender, "messages", content, f"message of +{written.wa_id}", contacts=(contact,))
