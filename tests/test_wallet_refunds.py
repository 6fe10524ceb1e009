"""Refunds by EcoCash, whatever it calls them: several of one payment, of a former account, by hand, and refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.house import Answer, House
from tests.support import afresh, open_house
from tests.wallets import PHONE, Asked, Content, ecocash_says, eip, look, portal, save_wallets, settle, status, tap


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
async def house(service: House) -> House:
    house = afresh(service)
    await save_wallets(house)
    return house


async def paid(house: House, dialect: str = "eip") -> Any:
    """A payment of USD 12.50 that EcoCash said is paid."""
    await house.save_ecocash(dialect=dialect, ecocash_api_key=None)
    payment = await house.create_link(gateway="ecocash")
    await tap(house, payment, "ecocash.ecocash", phone=PHONE)
    await look(house, "ecocash")
    assert await status(house, payment) == "paid"
    return payment


async def give_back(house: House, payment: Any, **wish: object) -> Answer:
    path = f"/v1/clients/{payment['client_id']}/payments/{payment['id']}/refunds"
    return await house.call("POST", path, {"reason": "It was broken", **wish})


def refunds(house: House, payment: Any) -> list[tuple[int, str, str | None]]:
    """The cents, state and gateway's name of each, oldest first."""
    rows = house.world.rows("SELECT * FROM refunds WHERE payment_id = %s ORDER BY created_at, id", payment["id"])
    return [(row["amount_cents"], row["state"], row["gateway_reference"]) for row in rows]


def word_for(asked: Asked) -> str:
    """Of a charge that is approved at once, and of refunds that are done at once."""
    return "PENDING SUBSCRIBER VALIDATION" if asked.kind == "charge" else "COMPLETED"


async def test_a_refund_that_gets_its_name_late_is_one(house: House) -> None:
    """The portal calls it T1 while it is pending, and by EcoCash's own reference once it is done: what is left of the
    payment can be given back after it."""
    sums: dict[str, float] = {}

    def says(asked: Asked) -> Content:
        if asked.kind == "refund":
            sums[asked.correlator] = asked.body["paymentAmount"]["charginginformation"]["amount"]
        if asked.correlator not in sums:
            return portal(asked, "PENDING" if asked.kind == "charge" else "SUCCESS", "MP1.1.A1")
        number = list(sums).index(asked.correlator) + 1
        done = {"ecocashReference": f"MP9.9.R{number}"} if asked.kind == "lookup" else {}
        return portal(asked, "SUCCESS" if done else "PENDING", f"T{number}", sums[asked.correlator], **done)

    async with ecocash_says(house, says):
        payment = await paid(house, "eip_portal")
        assert (await give_back(house, payment, amount_cents=400)).status == 201
        await look(house, "ecocash", minutes=61)
        assert refunds(house, payment) == [(400, "succeeded", "MP9.9.R1")]
        assert (await give_back(house, payment, amount_cents=850)).status == 201
        await look(house, "ecocash", minutes=61)
    assert refunds(house, payment) == [(400, "succeeded", "MP9.9.R1"), (850, "succeeded", "MP9.9.R2")]
    now = await house.payment(payment)
    assert (now["status"], now["refunded_cents"]) == ("refunded", 1250)


async def test_refunds_that_echo_the_payments_reference_are_several(house: House) -> None:
    """The classic gateway names the payment in each refund's answer: that is no name of the refund."""
    async with ecocash_says(house, lambda asked: eip(asked, word_for(asked), "MP1.1.A1")):
        payment = await paid(house)
        for cents in (400, 850):
            assert (await give_back(house, payment, amount_cents=cents)).status == 201
        await look(house, "ecocash", minutes=61)
    now = await house.payment(payment)
    assert (now["status"], now["refunded_cents"]) == ("refunded", 1250)
    assert [(cents, state) for cents, state, _ in refunds(house, payment)] == [(400, "succeeded"), (850, "succeeded")]


async def test_what_cannot_be_given_back_through_us_is_recorded_by_hand(house: House) -> None:
    """EcoCash named no reference of the payment, so that no refund of it can be asked for: the merchant refunds it at
    EcoCash and tells of it."""
    async with ecocash_says(house, lambda asked: eip(asked, word_for(asked))) as asked:
        payment = await paid(house)
        assert (await give_back(house, payment)).status == 422
        assert {each.kind for each in asked} == {"charge", "lookup"}
        assert (await give_back(house, payment, manual=True, evidence="slip 7")).status == 201
    assert await status(house, payment) == "refunded"


async def test_a_refund_is_asked_of_the_account_that_took_the_money(house: House) -> None:
    """The tenant is another merchant by now: the refund is still asked of the former one, as that one."""

    def says(asked: Asked) -> Content:
        return eip(asked, word_for(asked), "MP2.2.R2" if asked.kind == "refund" else "MP1.1.A1")

    async with ecocash_says(house, says) as asked:
        payment = await paid(house)
        await settle(house, ecocash_username="other", ecocash_password="p", ecocash_merchant_code="9999")
        assert (await give_back(house, payment)).status == 201
    (charge,) = (each.body for each in asked if each.kind == "charge")
    (refund,) = (each.body for each in asked if each.kind == "refund")
    assert refund["merchantCode"] == charge["merchantCode"] != "9999"
    assert await status(house, payment) == "refunded"


async def test_a_refund_that_was_refused_stands_in_nobodys_way(house: House) -> None:
    """EcoCash says for sure that it does not do it now, and later that it does."""
    refuses = [True]

    def says(asked: Asked) -> Content | tuple[int, Content]:
        if asked.kind == "refund" and refuses:
            return 409, {"statusCode": "E009", "statusMessage": "The original transaction is not completed"}
        return eip(asked, word_for(asked), "MP2.2.R2" if asked.kind == "refund" else "MP1.1.A1")

    async with ecocash_says(house, says):
        payment = await paid(house)
        assert (await give_back(house, payment)).status == 422
        assert refunds(house, payment) == [(1250, "failed", None)]
        await look(house, "ecocash", days=7)
        refuses.clear()
        assert (await give_back(house, payment)).status == 201
    assert await status(house, payment) == "refunded"
