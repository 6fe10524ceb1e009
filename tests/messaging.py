"""What the tests of messages stand on: a house that WhatsApp tells what becomes of them, and looks past the service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from payments_service import sending
from payments_service.ids import new_id
from payments_service.sandbox.whatsapp import DEMO_SENDERS
from payments_service.sandbox.whatsapp_messages import Message
from payments_service.sandbox.whatsapp_webhooks import signed
from tests.house import Answer, House
from tests.support import afresh, gather_limited, open_house

PHONE = "+263771234567"
PLATFORM_ID, PLATFORM_TOKEN, *_ = DEMO_SENDERS[0]
OWN_ID, OWN_TOKEN, *_ = DEMO_SENDERS[1]
HOOK = "/callbacks/whatsapp"
# Longer than a lease, or the wait for a word.
PAST = 61


@asynccontextmanager
async def open_messages(postgres: str, **settings: str) -> AsyncIterator[House]:
    """The service without workers, known to WhatsApp; see `quiet`."""
    async with open_house(postgres, **settings) as house:
        whatsapp = house.world.whatsapp
        whatsapp.button_url = f"{house.public}/pay/{{{{1}}}}"
        await whatsapp.subscribe(f"{house.public}{HOOK}")
        yield house


async def quiet(service: House) -> House:
    """The same house for a new tenant, with nothing under way of those before."""
    house = afresh(service)
    whatsapp, world = house.world.whatsapp, house.world
    await whatsapp.settled()
    whatsapp.webhooks.hold, whatsapp.webhooks.held = False, []
    whatsapp.webhooks.batch_size = 1
    whatsapp.webhooks.deliveries.clear()
    whatsapp.messages.clear()
    whatsapp.refusals.clear()
    whatsapp.pair_seconds = 0.0
    whatsapp.delivers, whatsapp.window_refusal = True, "status"
    # By clocks that were ahead.
    whatsapp._last_sent.clear()
    whatsapp._last_written.clear()
    whatsapp.clock = lambda: world.clock().timestamp()
    world.rows_do("UPDATE messages SET state = 'withdrawn', next_try_at = NULL WHERE next_try_at IS NOT NULL")
    world.rows_do("DELETE FROM stopped_senders")
    return house


# --- asking for messages


async def link(house: House, **more: object) -> Any:
    """A payment whose link is to go out by WhatsApp; the customer chooses how to pay."""
    return await house.create_link(**{"gateway": None, "send": "whatsapp", "contact_phone": PHONE, **more})


async def send(house: House, payment: Any, **body: object) -> Answer:
    path = house.path(f"/payments/{payment['id']}/send")
    headers = body.pop("headers", {})
    return await house.call("POST", path, {"channel": "whatsapp", **body}, headers=headers)


async def own_number(house: House, token: str = OWN_TOKEN, **more: object) -> None:
    """The tenant's own number, the simulator's second."""
    await house.save_paynow()
    fields = {"whatsapp_phone_number_id": OWN_ID, "whatsapp_access_token": token, **more}
    answer = await house.call("PATCH", house.path("/payment-settings"), fields)
    assert answer.status == 200, answer.body


def planted(house: House, count: int, *, client_id: UUID | None = None, form: str = "template") -> list[UUID]:
    """So many payments with a message each that is due, to so many customers, written past the service; the messages.

    The payments are as if copied in from the system before: without a history.
    """
    owner = client_id or house.client_id
    payments, messages = [new_id() for _ in range(count)], [new_id() for _ in range(count)]
    at = house.world.clock() - timedelta(seconds=5)
    first = int.from_bytes(uuid4().bytes[:3], "big") % 8_000_000
    house.world.rows_do(
        "INSERT INTO payments (id, client_id, reference, amount_cents, page_token, created_at, expires_at) "
        "SELECT id, %s, 'R', 100, id::text, %s, %s FROM unnest(%s::uuid[]) AS id",
        *(owner, at, at + timedelta(days=40), payments),
    )
    house.world.rows_do(
        "INSERT INTO messages (id, client_id, payment_id, form, recipient, created_at, next_try_at) "
        "SELECT m.id, %s, m.payment_id, %s, '+26377' || (%s + m.n)::text, %s, %s "
        "FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS m(id, payment_id, n)",
        *(owner, form, 1_000_000 + first, at + timedelta(seconds=1), at, messages, payments),
    )
    return messages


def written(house: House) -> list[dict[str, Any]]:
    """The tenant's payments and messages."""
    world, client_id = house.world, house.client_id
    return [
        row
        for table in ("payments", "messages")
        for row in world.rows(f"SELECT id FROM {table} WHERE client_id = %s", client_id)
    ]


async def another_tenant(house: House) -> House:
    other = replace(house, client_id=uuid4())
    await other.save_paynow()
    return other


def order_of(house: House) -> dict[str, Any]:
    return house.order(gateway=None, send="whatsapp", contact_phone=PHONE)


# --- what became of them


async def messages(house: House, payment: Any) -> list[Any]:
    """As the internal API shows them."""
    answer = await house.call("GET", house.path(f"/payments/{payment['id']}"))
    found: list[Any] = answer.json["messages"]
    return found


def row(house: House, message: object) -> dict[str, Any]:
    return house.world.one("SELECT * FROM messages WHERE id = %s", message)


def message_of(house: House, payment: Any) -> dict[str, Any]:
    """The payment's newest message, as it stands in the database."""
    sql = "SELECT * FROM messages WHERE payment_id = %s ORDER BY created_at DESC, id DESC LIMIT 1"
    return house.world.one(sql, payment["id"])


def told(house: House, message: object) -> list[str]:
    """What the backend is told of it, in order."""
    sql = "SELECT type FROM events WHERE message_id = %s ORDER BY created_at, id"
    return [each["type"].removeprefix("message.") for each in house.world.rows(sql, message)]


def copies(house: House, message: object) -> list[Message]:
    """The messages that WhatsApp took under this id."""
    return [each for each in house.world.whatsapp.messages if each.draft.callback_data == str(message)]


def due_in(house: House, message: object) -> float:
    """Seconds until it is looked at again."""
    due: datetime = row(house, message)["next_try_at"]
    return (due - house.world.clock()).total_seconds()


# --- letting things happen


async def work(house: House, *, at_once: int = 16) -> int:
    """Everything that is due now, and all that WhatsApp tells of it at once; how many were claimed."""
    claimed = 0
    while due := await sending.claim(house.world.context, 100):
        claimed += len(due)
        await gather_limited((sending.deliver(house.world.context, each) for each in due), at_once)
    await house.world.whatsapp.settled()
    return claimed


async def work_after(house: House, seconds: float) -> int:
    house.world.clock.forward(seconds=seconds)
    return await work(house)


def status(wamid: str, word: str, message: object = None, **more: object) -> dict[str, Any]:
    told: dict[str, Any] = {"id": wamid, "status": word, "timestamp": "1796983200", **more}
    return told if message is None else {**told, "biz_opaque_callback_data": str(message)}


def webhook(*statuses: object, number: str = PLATFORM_ID) -> dict[str, Any]:
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": number}, "statuses": list(statuses)}
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "1022", "changes": [{"field": "messages", "value": value}]}],
    }


async def post(house: House, body: bytes, mark: str | None = "") -> Answer:
    """A webhook, signed as it should be unless another `mark` is given; None: without one."""
    right = signed(body, house.world.whatsapp.webhooks.secret)
    headers = {"Content-Type": "application/json"}
    if mark is not None:
        headers["X-Hub-Signature-256"] = mark or right
    return await house.get_public(HOOK, method="POST", data=body, headers=headers)
