"""What Stripe sends, as large as it is: a session and an event of our simulator's, with the names of planted payments
filled in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from functools import cache

from benchmarks import seeds
from benchmarks.stage import STRIPE_SECRET, TENANT
from payments_service.sandbox.stripe import DEMO_ACCOUNTS, build
from payments_service.sandbox.stripe_requests import PARAMETERS
from payments_service.sandbox.stripe_webhooks import encode, signature

_HOME = "https://checkout.stripe.com"
_REFERENCE, _ATTEMPT = "its-reference", "its-attempt"


@cache
def _models() -> tuple[bytes, bytes]:
    """An open session, and the event that it was paid."""
    return asyncio.run(_made())


async def _made() -> tuple[bytes, bytes]:
    names = {"client_id": str(TENANT), "attempt_id": _ATTEMPT, "reference": _REFERENCE}
    product = {"currency": "usd", "unit_amount": str(seeds.CENTS), "product_data": {"name": "Two bags of cement"}}
    order = {
        "mode": "payment",
        "line_items": [{"quantity": "1", "price_data": product}],
        "client_reference_id": _REFERENCE,
        "metadata": names,
        "payment_intent_data": {"metadata": names},
        "success_url": "https://payments.conva.example/pay/x",
        "cancel_url": "https://payments.conva.example/pay/x",
    }
    async with build(_HOME) as sandbox:
        account = sandbox.accounts[DEMO_ACCOUNTS[0][0]]
        made = encode(sandbox.create_session(account, PARAMETERS["sessions.create"].read(order)))
        await sandbox.pay(_REFERENCE)
        event = sandbox.event_for(_REFERENCE, "checkout.session.completed")
        checkout = event["data"]["object"]
        names_of = {event["id"]: "its-event", checkout["id"]: "its-session", checkout["payment_intent"]: "its-intent"}
        told = encode(event)
        for name, placeholder in names_of.items():
            told = told.replace(name.encode(), placeholder.encode())
        return made, told


def session(reference: str) -> bytes:
    """An open session of this reference, as Stripe answers when it was made."""
    return _models()[0].replace(_REFERENCE.encode(), reference.encode())


def event(number: int) -> bytes:
    """`checkout.session.completed` of a planted payment: paid."""
    told = _models()[1]
    for placeholder, name in (
        ("its-event", f"evt_{number:024x}"),
        ("its-session", f"cs_test_{number:024x}"),
        ("its-intent", f"pi_{number:024x}"),
        (_REFERENCE, f"INV-{number}"),
        (_ATTEMPT, str(seeds.attempt_id(number))),
    ):
        told = told.replace(placeholder.encode(), name.encode())
    return told


def signed(body: bytes) -> str:
    """The `Stripe-Signature` of this moment."""
    return signature(body, [STRIPE_SECRET], int(time.time()))


def webhooks(numbers: Iterable[int]) -> list[bytes]:
    """The events of planted payments as HTTP requests, to be sent within five minutes."""
    path = f"/callbacks/stripe/{TENANT}"
    bodies = (event(number) for number in numbers)
    return [
        seeds.request("POST", path, body, f"Stripe-Signature: {signed(body)}", kind="application/json")
        for body in bodies
    ]
