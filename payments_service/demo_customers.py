"""What the demo's customers do over HTTP: pay in every way, and look at their WhatsApp. A part of `demo`."""

from __future__ import annotations

from typing import Any

import aiohttp

from payments_service.errors import PaymentsError
from payments_service.sandbox.whatsapp import DEMO_SENDERS

HOST = "127.0.0.1"
PHONE = "0771234567"


async def call(http: aiohttp.ClientSession, method: str, url: str, body: dict[str, Any]) -> dict[str, Any]:
    async with http.request(method, url, json=body) as answer:
        if answer.status >= 400:
            raise PaymentsError(f"{method} {url} answered {answer.status}: {await answer.text()}")
        found: dict[str, Any] = await answer.json()
        return found


def chat_url(ports: dict[str, int]) -> str:
    """The customer's chat with the platform's number, on the simulated phone."""
    return f"http://{HOST}:{ports['sandbox']}/phone/{PHONE}/whatsapp/{DEMO_SENDERS[0][0]}"


async def connect_whatsapp(customer: aiohttp.ClientSession, ports: dict[str, int], public_url: str) -> None:
    """What is done once at Meta: the template's button leads to the pay page, the webhook to the service."""
    base = f"http://{HOST}:{ports['sandbox']}/sandbox/whatsapp"
    await call(customer, "POST", f"{base}/settings", {"button_url": f"{public_url}/pay/{{{{1}}}}"})
    await call(customer, "POST", f"{base}/subscribe", {"url": f"{public_url}/callbacks/whatsapp"})


async def pay_on_page(customer: aiohttp.ClientSession, ports: dict[str, int], payment: dict[str, Any]) -> str:
    """Choose Paynow on the pay page, follow it to the simulator, and pay there; what was done, in words."""
    await _choose(customer, payment, {"way": "paynow.web"})
    await call(customer, "POST", f"http://{HOST}:{ports['sandbox']}/sandbox/pay", {"reference": payment["reference"]})
    return "a customer chose Paynow on the pay page, and paid at the simulator"


async def pay_by_phone(customer: aiohttp.ClientSession, ports: dict[str, int], payment: dict[str, Any]) -> str:
    """Choose EcoCash on the pay page, and type the PIN at the phone; what was done, in words."""
    await _choose(customer, payment, {"way": "ecocash.ecocash", "phone": PHONE})
    pin = {"reference": payment["reference"], "pin": "1234"}
    await call(customer, "POST", f"http://{HOST}:{ports['sandbox']}/sandbox/ecocash/approve", pin)
    return "a customer chose EcoCash on the pay page, and typed the PIN at the phone"


async def pay_by_code(customer: aiohttp.ClientSession, ports: dict[str, int], payment: dict[str, Any]) -> str:
    """Choose InnBucks on the pay page, pay its code in the app, and say so on the page; what was done, in words."""
    await _choose(customer, payment, {"way": "innbucks.innbucks"})
    code = {"reference": payment["reference"]}
    await call(customer, "POST", f"http://{HOST}:{ports['sandbox']}/sandbox/innbucks/pay", code)
    # InnBucks reports nothing by itself, and is asked every 20 s: not to wait so long, the customer looks again.
    async with customer.get(f"{payment['page_url']}?returned=1") as answer:
        answer.raise_for_status()
    return "a customer chose InnBucks on the pay page, and paid the code in the app"


async def pay_by_card(customer: aiohttp.ClientSession, ports: dict[str, int], payment: dict[str, Any]) -> str:
    """Choose the card on the pay page, and pay on the simulated page of Stripe; what was done, in words."""
    await _choose(customer, payment, {"way": "stripe.card"})
    sandbox = f"http://{HOST}:{ports['sandbox']}/sandbox/stripe"
    await call(customer, "POST", f"{sandbox}/pay", {"reference": payment["reference"]})
    return "a customer chose the card on the pay page, and paid on Stripe's simulated page"


async def _choose(customer: aiohttp.ClientSession, payment: dict[str, Any], form: dict[str, str]) -> None:
    async with customer.post(payment["page_url"], data=form, allow_redirects=False) as answer:
        if answer.status != 303:
            raise PaymentsError(f"The pay page answered {answer.status} instead of starting the payment.")


# The last one is the payment of which a part is given back.
WAYS = (
    ("EcoCash", pay_by_phone),
    ("InnBucks", pay_by_code),
    ("Paynow's page", pay_on_page),
    ("card", pay_by_card),
)
