"""The main job end to end, over HTTP and a real database: save settings, make a link, get paid, tell the backend."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

from payments_service.sandbox.paynow_ledger import seal
from tests.house import House, eventually


async def test_saved_credentials_are_masked_and_sealed(house: House) -> None:
    """What is saved comes back as a mask only, stands sealed in the database, and is audited without its value."""
    answer = await house.save_paynow()
    shown = answer.json
    assert shown["paynow_configured"] is True
    assert shown["paynow_zig_configured"] is False
    assert shown["paynow_integration_id"] == "1201"
    assert "paynow_integration_key" not in shown
    key = house.world.sandbox.integrations["1201"].key
    assert key not in json.dumps(shown)
    row = house.world.one("SELECT * FROM payment_settings WHERE client_id = %s", house.client_id)
    assert row["paynow_integration_key_enc"].startswith("v1.")
    assert key not in str(row)
    audit = house.world.one("SELECT * FROM audit_logs WHERE client_id = %s", house.client_id)
    assert "paynow_integration_key" in audit["detail"]["set"]
    assert key not in str(audit)


async def test_a_callback_leads_to_a_proved_payment_and_one_event(house: House) -> None:
    """The customer pays, Paynow calls back, the poll proves it, the backend is told once."""
    await house.save_paynow()
    link = await house.create_link()
    assert link["status"] == "pending"
    assert link["payment_url"].startswith(house.world.sandbox.public_url)
    assert link["page_url"].startswith(house.public + "/pay/")
    await house.world.sandbox.pay(house.reference_of(link))
    (paid,) = await eventually(lambda: house.world.backend.of(link["id"], "payment.paid"))
    assert paid["data"]["status"] == "paid"
    assert paid["data"]["previous_status"] == "pending"
    assert paid["data"]["amount_cents"] == 1250
    assert paid["data"]["late"] is False
    payment = await house.payment(link)
    assert payment["status"] == "paid"
    assert payment["sequence"] == paid["data"]["sequence"] == 2
    assert payment["gateway_reference"]
    kept = house.world.one("SELECT * FROM callbacks WHERE client_id = %s", house.client_id)
    assert kept["said"] == "Paid"


async def test_without_any_callback_the_payment_is_found_all_the_same(house: House) -> None:
    """The callback never comes: the schedule asks, and the payment is recorded."""
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    link = await house.create_link()
    await house.world.sandbox.pay(house.reference_of(link))
    await eventually(lambda: house.world.backend.of(link["id"], "payment.paid"), seconds=30)
    assert house.world.rows("SELECT FROM callbacks") == []


async def test_the_link_itself_is_told_first(house: House) -> None:
    """`payment.link_created` has sequence 1 and no previous status."""
    await house.save_paynow()
    link = await house.create_link(invoice_id=str(uuid4()))
    (created,) = await eventually(lambda: house.world.backend.of(link["id"]))
    assert created["type"] == "payment.link_created"
    assert created["data"]["sequence"] == 1
    assert created["data"]["previous_status"] is None
    assert {**created["data"]} == {**link, "previous_status": None}


async def test_two_hundred_reports_of_twenty_payments_count_once_each(house: House) -> None:
    """200 concurrent callbacks on 20 payments: 20 transitions to paid, 20 events."""
    await house.save_paynow()
    links = [await house.create_link(reference=f"INV-{number}") for number in range(20)]
    transactions = [house.world.sandbox.find(house.reference_of(link)) for link in links]
    house.world.sandbox.add_fault("never", times=20)
    for transaction in transactions:
        await house.world.sandbox.pay(transaction.reference)
    bodies = [seal(house.world.sandbox.message(paid), paid.integration.key, []) for paid in transactions]

    async def report(number: int) -> int:
        attempt = house.world.one("SELECT id FROM attempts WHERE reference = %s", transactions[number].reference)
        path = f"/callbacks/paynow/{house.client_id}/{attempt['id']}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return (await house.get_public(path, method="POST", data=bodies[number], headers=headers)).status

    statuses = await asyncio.gather(*(report(number % 20) for number in range(200)))
    assert set(statuses) == {200}
    await eventually(lambda: all(house.world.backend.of(link["id"], "payment.paid") for link in links))
    assert len(house.world.rows("SELECT FROM transitions WHERE to_status = 'paid'")) == 20
    assert len(house.world.rows("SELECT FROM events WHERE type = 'payment.paid'")) == 20
