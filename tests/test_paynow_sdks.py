"""Paynow's official SDKs, unchanged but for the address, take the simulator for Paynow.

They are the oracle: neither was written here. The Node SDK verifies the hash of each reply and status
update; the Python SDK only that of the initiate reply.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, quote_plus

import paynow
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from payments_service.sandbox.paynow import DEMO_INTEGRATIONS, PaynowSandbox, build
from payments_service.sandbox.paynow_express import wire_time
from payments_service.sandbox.paynow_transactions import METHODS
from tests.nodejs import PACKAGES, node_command
from tests.servers import serve

(_, KEY, _), (_, OTHER_KEY, _) = DEMO_INTEGRATIONS

# What the SDKs compute from prices, and what Paynow then tells.
AMOUNTS = [(5.9, "5.90"), (10, "10.00"), (15.5, "15.50"), (1250.05, "1250.05"), (0.01, "0.01")]
EMAIL, PHONE = "customer@example.com", "0771234567"
REFERENCES = ["INV-1", "Order #100", "Größe é, 50% off & more=less+1", "支払い 😀", "tab(1)!*'~"]


@dataclass
class World:
    """The simulator and the raw bodies that it posted to the merchant's result URL."""

    sandbox: PaynowSandbox
    url: str = ""
    result_url: str = ""
    bodies: list[str] = field(default_factory=list)

    async def pay(self, reference: str) -> str:
        """Pay the transaction; the status update that reached the merchant."""
        await self.sandbox.pay(reference)
        await self.sandbox.settled()
        return self.bodies[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world() -> AsyncIterator[World]:
    world = World(build(""))

    async def take(request: Request) -> Response:
        world.bodies.append((await request.body()).decode("ascii"))
        return Response()

    merchant = Starlette(routes=[Route("/result", take, methods=["POST"])])
    async with serve(world.sandbox.app) as world.url, serve(merchant) as merchant_url:
        world.sandbox.public_url, world.result_url = world.url, f"{merchant_url}/result"
        yield world


@pytest.fixture(autouse=True)
def straight_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both SDKs' HTTP clients read the proxy variables."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# --- Python


def python_sdk(world: World, key: str = KEY) -> paynow.Paynow:
    sdk = paynow.Paynow("1201", key, f"{world.url}/return", world.result_url)
    sdk.URL_INITIATE_TRANSACTION = f"{world.url}/interface/initiatetransaction"
    sdk.URL_INITIATE_MOBILE_TRANSACTION = f"{world.url}/interface/remotetransaction"
    return sdk


async def python_initiate(sdk: paynow.Paynow, reference: str, prices: list[float], email: str | None = None) -> Any:
    payment = sdk.create_payment(reference, email)
    for price in prices:
        payment.add("Shoes, size 42", price)
    return await asyncio.to_thread(sdk.send, payment)


@pytest.mark.parametrize(("price", "told"), AMOUNTS)
async def test_python_creates_and_polls_a_payment(world: World, price: float, told: str) -> None:
    sdk = python_sdk(world)
    opened = await python_initiate(sdk, f"python-{price}", [price], "customer@example.com")
    assert (opened.success, opened.has_redirect) == (True, True)
    assert opened.redirect_url.startswith(f"{world.url}/Payment/ConfirmPayment/")
    before = await asyncio.to_thread(sdk.check_transaction_status, opened.poll_url)
    await world.pay(f"python-{price}")
    after = await asyncio.to_thread(sdk.check_transaction_status, opened.poll_url)
    assert (before.status, before.paid) == ("created", False)
    assert (after.status, after.paid) == ("paid", True)
    assert (after.amount, after.reference) == (float(told), f"python-{price}")


@pytest.mark.parametrize("reference", REFERENCES)
async def test_python_double_encodes_its_references(world: World, reference: str) -> None:
    """The SDK hashes `Order+%23100` and encodes it once more: it is told what it hashed."""
    sdk = python_sdk(world)
    opened = await python_initiate(sdk, reference, [1])
    await world.pay(quote_plus(reference))
    polled = await asyncio.to_thread(sdk.check_transaction_status, opened.poll_url)
    assert (polled.status, polled.reference) == ("paid", quote_plus(reference))
    assert world.sandbox.find(reference).shown_reference == reference


async def test_python_verifies_the_reference_in_the_initiate_reply_too(world: World) -> None:
    world.sandbox.reference_in_reply = True
    opened = await python_initiate(python_sdk(world), "python-with-reference", [1])
    world.sandbox.reference_in_reply = False
    assert opened.data["paynowreference"] == str(world.sandbox.find("python-with-reference").number)


async def test_python_refuses_a_wrong_hash(world: World) -> None:
    world.sandbox.add_fault("wrong_hash", reference="python-wrong-hash", on=["initiate"])
    with pytest.raises(paynow.HashMismatchException):
        await python_initiate(python_sdk(world), "python-wrong-hash", [1])


async def test_python_with_a_mistyped_key_is_refused(world: World) -> None:
    refused = await python_initiate(python_sdk(world, OTHER_KEY), "python-wrong-key", [1])
    assert not refused.success
    assert refused.data["error"].startswith("Invalid Hash.  Hash should start with: ")


async def test_python_adds_prices_as_floats(world: World) -> None:
    """0.1 + 0.2 is sent as 0.30000000000000004, which is no amount of money."""
    refused = await python_initiate(python_sdk(world), "python-floats", [0.1, 0.2])
    assert refused.data == {"status": "Error", "error": "Invalid amount field"}


async def python_send_mobile(
    sdk: paynow.Paynow, reference: str, method: str, phone: str = PHONE, price: float = 10
) -> Any:
    payment = sdk.create_payment(reference, EMAIL).add("Shoes, size 42", price)
    return await asyncio.to_thread(sdk.send_mobile, payment, phone, method)


@pytest.mark.parametrize("method", METHODS)
async def test_python_verifies_the_express_reply_of_every_method(world: World, method: str) -> None:
    sdk, reference = python_sdk(world), f"python-{method}"
    opened = await python_send_mobile(sdk, reference, method)
    assert (opened.success, opened.has_redirect) == (True, False)
    assert opened.instruction
    before = await asyncio.to_thread(sdk.check_transaction_status, opened.poll_url)
    await world.pay(reference)
    after = await asyncio.to_thread(sdk.check_transaction_status, opened.poll_url)
    assert (before.status, after.status, after.paid) == ("sent", "paid", True)
    assert after.paynow_reference == opened.data["paynowreference"]


@pytest.mark.parametrize("price", [5.9, 15, 0.01])
async def test_python_express_amounts_are_understood(world: World, price: float) -> None:
    sdk = python_sdk(world)
    opened = await python_send_mobile(sdk, f"python-express-{price}", "ecocash", price=price)
    assert (await asyncio.to_thread(sdk.check_transaction_status, opened.poll_url)).amount == price


async def test_python_is_told_why_express_is_refused(world: World) -> None:
    sdk = python_sdk(world)
    poor = await python_send_mobile(sdk, "python-poor", "onemoney", "0774444444")
    assert (poor.success, poor.data["error"]) == (False, "Insufficient balance")
    no_phone = await python_send_mobile(sdk, "python-no-phone", "ecocash", "12")
    assert no_phone.data == {"status": "Error", "error": "Invalid phone field"}


async def test_python_refuses_a_wrong_hash_of_an_express_reply(world: World) -> None:
    world.sandbox.add_fault("wrong_hash", reference="python-express-hash", on=["express"])
    with pytest.raises(paynow.HashMismatchException):
        await python_send_mobile(python_sdk(world), "python-express-hash", "innbucks")


# --- Node


class NodeSdkError(Exception):
    """The SDK threw."""


async def node_sdk(world: World, call: str, *, key: str = KEY, **arguments: Any) -> Any:
    """What one call of the SDK answered, None when it swallowed its own error; NodeSdkError when it threw."""
    request = {
        "base": world.url,
        "id": "1201",
        "key": key,
        "resulturl": world.result_url,
        "returnurl": f"{world.url}/return",
        "call": call,
    } | arguments
    process = await asyncio.create_subprocess_exec(
        node_command(),
        str(PACKAGES / "sdk.js"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ.copy(),
    )
    out, err = await process.communicate(json.dumps(request).encode())
    assert process.returncode == 0, err.decode()
    answer = json.loads(out)
    if "error" in answer:
        raise NodeSdkError(answer["error"])
    return answer["answer"]


pytestmark_node = pytest.mark.usefixtures("node_modules")


@pytestmark_node
@pytest.mark.parametrize(("price", "told"), AMOUNTS)
async def test_node_initiates_polls_and_reads_the_status_update(world: World, price: float, told: str) -> None:
    """All three hashes are verified by the SDK, the last one over the raw body that the simulator posted."""
    reference = f"node-{price}"
    opened = await node_sdk(world, "initiate", reference=reference, items=[["Shoes", price]])
    assert (opened["success"], opened["hasRedirect"]) == (True, True)
    body = await world.pay(reference)
    polled = await node_sdk(world, "poll", pollurl=opened["pollUrl"])
    assert polled["status"] == "paid"
    number = str(world.sandbox.find(reference).number)
    assert await node_sdk(world, "parse", body=body) == {
        "reference": reference,
        "amount": told,
        "paynowReference": number,
        "pollUrl": opened["pollUrl"],
        "status": "Paid",
    }


@pytestmark_node
@pytest.mark.parametrize("reference", REFERENCES)
async def test_node_reads_back_its_own_references(world: World, reference: str) -> None:
    """The SDK hashes `Order%20#100` (encodeURI) and encodes it once more: it is told what it hashed."""
    email = "customer@example.com"
    items = [["Shoes & socks", 2]]
    await node_sdk(world, "initiate", reference=f"node {reference}", items=items, authemail=email)
    hashed = quote(f"node {reference}", safe="-_.!~*'();/?:@&=+$,#")
    assert world.sandbox.find(hashed).authemail == email
    parsed = await node_sdk(world, "parse", body=await world.pay(hashed))
    assert parsed["reference"] == hashed


@pytestmark_node
async def test_node_reads_optional_fields_and_the_reference_in_the_reply(world: World) -> None:
    world.sandbox.reference_in_reply = True
    world.sandbox.extra_fields = [("paymentchannel", "Visa/Mastercard"), ("paymentinstrument", "**** 4242")]
    opened = await node_sdk(world, "initiate", reference="node-extras", items=[["Shoes", 1]])
    body = await world.pay("node-extras")
    world.sandbox.reference_in_reply, world.sandbox.extra_fields = False, []
    assert opened["success"]
    assert (await node_sdk(world, "parse", body=body))["status"] == "Paid"


@pytestmark_node
async def test_node_refuses_wrong_hashes(world: World) -> None:
    """Of a poll, of a status update, of an initiate reply (which the SDK turns into no answer at all)."""
    world.sandbox.add_fault("wrong_hash", reference="node-wrong-hash", on=["callback", "poll"])
    opened = await node_sdk(world, "initiate", reference="node-wrong-hash", items=[["Shoes", 1]])
    body = await world.pay("node-wrong-hash")
    with pytest.raises(NodeSdkError, match="Hashes do not match"):
        await node_sdk(world, "poll", pollurl=opened["pollUrl"])
    with pytest.raises(NodeSdkError, match="Hashes do not match"):
        await node_sdk(world, "parse", body=body)
    world.sandbox.add_fault("wrong_hash", reference="node-wrong-hash", on=["initiate"])
    assert await node_sdk(world, "initiate", reference="node-wrong-hash", items=[["Shoes", 1]]) is None


@pytestmark_node
async def test_node_refuses_a_changed_status_update(world: World) -> None:
    await node_sdk(world, "initiate", reference="node-changed", items=[["Shoes", 1]])
    body = await world.pay("node-changed")
    assert (await node_sdk(world, "parse", body=body))["amount"] == "1.00"
    with pytest.raises(NodeSdkError, match="Hashes do not match"):
        await node_sdk(world, "parse", body=body.replace("amount=1.00", "amount=9.00"))
    with pytest.raises(NodeSdkError, match="Hashes do not match"):
        await node_sdk(world, "parse", body=body, key=OTHER_KEY)


@pytestmark_node
async def test_node_with_a_mistyped_key_is_refused(world: World) -> None:
    refused = await node_sdk(world, "initiate", reference="node-wrong-key", items=[["Shoes", 1]], key=OTHER_KEY)
    assert not refused["success"]
    assert refused["error"].startswith("Invalid Hash.  Hash should start with: ")


async def node_send_mobile(world: World, reference: str, method: str, phone: str = PHONE) -> Any:
    return await node_sdk(
        world,
        "initiateMobile",
        reference=reference,
        items=[["Shoes", 12.5]],
        authemail=EMAIL,
        phone=phone,
        method=method,
    )


@pytestmark_node
@pytest.mark.parametrize("method", ["ecocash", "omari"])
async def test_node_verifies_express_replies_polls_and_updates(world: World, method: str) -> None:
    reference = f"node-{method}"
    opened = await node_send_mobile(world, reference, method)
    assert (opened["success"], opened["hasRedirect"], opened["isInnbucks"]) == (True, False, False)
    assert PHONE in opened["instructions"]
    body = await world.pay(reference)
    assert (await node_sdk(world, "poll", pollurl=opened["pollUrl"]))["status"] == "paid"
    parsed = await node_sdk(world, "parse", body=body)
    assert (parsed["status"], parsed["amount"]) == ("Paid", "12.50")


@pytestmark_node
async def test_node_reads_the_innbucks_code_and_its_expiry(world: World) -> None:
    """What it makes deep link and QR code of."""
    opened = await node_send_mobile(world, "node-innbucks", "innbucks")
    transaction = world.sandbox.find("node-innbucks")
    assert transaction.code_expires is not None
    (told,) = opened["innbucks_info"]
    assert (opened["isInnbucks"], told["authorizationcode"]) == (True, transaction.code)
    assert told["deep_link_url"].endswith(f"={transaction.code}")
    assert told["expires_at"] == wire_time(transaction.code_expires)
    assert (await world.sandbox.pay_code(transaction.code)).status == "Paid"
    await world.sandbox.settled()


@pytestmark_node
async def test_node_is_told_why_express_is_refused_and_refuses_a_wrong_hash(world: World) -> None:
    """A wrong hash the SDK turns into no answer at all."""
    assert (await node_send_mobile(world, "node-poor", "ecocash", "0774444444"))["error"] == "Insufficient balance"
    world.sandbox.add_fault("wrong_hash", reference="node-express-hash", on=["express"])
    assert await node_send_mobile(world, "node-express-hash", "ecocash") is None
