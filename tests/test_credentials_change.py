"""A tenant changes the account while customers pay: what was begun with the one before is proved by the one before.

An account that does not know a try says nothing about it: such a try is neither failed nor called never started.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from payments_service.sandbox.ecocash_charges import EIP, EIP_PORTAL, OPEN_API, Merchant
from tests.every_gateway import DIALECTS, ECOCASH, INNBUCKS, Begun, Desk, Lane, one_clock, without_callbacks
from tests.house import House
from tests.support import afresh, open_house

OTHER = {OPEN_API: EIP, EIP: EIP_PORTAL, EIP_PORTAL: OPEN_API}
EACH_DIALECT = pytest.mark.parametrize("lane", ECOCASH, ids=str)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        one_clock(house.world)
        yield house


class Shop:
    """A tenant with a merchant of its own at EcoCash."""

    def __init__(self, desk: Desk, merchant: Merchant) -> None:
        self.desk, self.merchant = desk, merchant

    @classmethod
    async def open(cls, house: House, dialect: str) -> Shop:
        desk = await Desk.open(house, dialect)
        shop = cls(desk, new_merchant(house, dialect))
        await shop.save()
        desk.world.rows_do("DELETE FROM retired_settings WHERE client_id = %s", desk.house.client_id)
        return shop

    async def save(self, other: Merchant | None = None) -> None:
        """Its own credentials, or those of another merchant, over those of now."""
        merchant = other or self.merchant
        fields = {
            "ecocash_dialect": merchant.dialect,
            "ecocash_merchant_code": merchant.code,
            "ecocash_merchant_number": merchant.number,
        }
        if merchant.dialect == OPEN_API:
            fields["ecocash_api_key"] = merchant.api_key
        else:
            fields["ecocash_username"] = merchant.username
            fields["ecocash_password"] = merchant.password
            fields["ecocash_merchant_pin"] = merchant.pin
        await self.desk.settle(**fields)


def new_merchant(house: House, dialect: str, **fields: str) -> Merchant:
    return house.world.ecocash.add_merchant(dialect, **fields)


@pytest.fixture
def house(service: House) -> House:
    afresh(service)
    without_callbacks(service.world)
    service.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years' WHERE state <> 'starting'")
    return service


async def begun_at(shop: Shop, lane: Lane, *, lost: bool = False) -> Begun:
    """A prompt is out; with `lost`, EcoCash's answer never came."""
    if lost:
        shop.desk.world.ecocash.add_fault("reset", times=1)
    begun = await shop.desk.begin(lane)
    await begun.hang()
    assert begun.attempt["state"] == ("starting" if lost else "live")
    return begun


def changed(house: House, merchant: Merchant, kind: str) -> Merchant:
    """The merchant whose credentials are saved instead."""
    if kind == "another dialect":
        return new_merchant(house, OTHER[merchant.dialect])
    if kind == "another merchant":
        return new_merchant(house, merchant.dialect)
    if merchant.dialect == OPEN_API:
        # Its key does not know what was charged with the one before: the stricter case.
        return new_merchant(house, OPEN_API, code=merchant.code, number=merchant.number)
    merchant.password = uuid4().hex
    return merchant


KINDS = ("the same merchant", "another merchant", "another dialect")


@EACH_DIALECT
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
async def test_what_was_begun_before_is_proved_by_the_account_before(
    house: House, lane: Lane, kind: str, lost: bool
) -> None:
    """Long after the change, and again and again: open as long as it is open, and paid once it is paid."""
    shop = await Shop.open(house, lane.dialect)
    begun = await begun_at(shop, lane, lost=lost)
    await shop.save(changed(house, shop.merchant, kind))
    for _ in range(3):
        await begun.look(minutes=8)
        assert (begun.attempt["state"], begun.row["status"]) == ("live", "pending")
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"
    assert begun.told == ["link_created", "paid"]


@EACH_DIALECT
@pytest.mark.parametrize("kind", ["another merchant", "another dialect"])
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "answer lost"])
async def test_while_the_account_before_does_not_answer_nothing_is_concluded(
    house: House, lane: Lane, kind: str, lost: bool
) -> None:
    """The new account knows of no such try, which is no word about it; the customer has paid meanwhile."""
    shop = await Shop.open(house, lane.dialect)
    begun = await begun_at(shop, lane, lost=lost)
    await shop.save(changed(house, shop.merchant, kind))
    await begun.pay()
    shop.merchant.active = False
    for _ in range(3):
        await begun.look(minutes=8)
        assert (begun.attempt["state"], begun.row["status"]) == ("starting" if lost else "live", "pending")
    shop.merchant.active = True
    await begun.look()
    assert begun.row["status"] == "paid"
    assert begun.told == ["link_created", "paid"]


@EACH_DIALECT
@pytest.mark.parametrize("kind", ["another merchant", "another dialect"])
async def test_what_never_got_there_is_over_whoever_is_asked(house: House, lane: Lane, kind: str) -> None:
    """Both accounts say that they know of none: then it never began."""
    shop = await Shop.open(house, lane.dialect)
    house.world.ecocash.add_fault("unavailable", on=["charge"])
    begun = await shop.desk.begin(lane)
    await shop.save(changed(house, shop.merchant, kind))
    await begun.look(minutes=1)
    assert begun.attempt["state"] == "starting"
    await begun.look(minutes=8)
    assert (begun.attempt["state"], begun.row["status"]) == ("failed", "pending")


@EACH_DIALECT
async def test_an_account_that_was_left_before_the_start_is_not_waited_for(house: House, lane: Lane) -> None:
    """It cannot have been asked: that it answers no more holds up nothing."""
    shop = await Shop.open(house, lane.dialect)
    await shop.save(new_merchant(house, lane.dialect))
    shop.merchant.active = False
    house.world.clock.forward(hours=1)
    house.world.ecocash.add_fault("unavailable", on=["charge"])
    begun = await shop.desk.begin(lane)
    await begun.look(minutes=8)
    assert (begun.attempt["state"], begun.row["status"]) == ("failed", "pending")


async def test_a_currency_that_is_taken_no_more(house: House) -> None:
    """Nothing more is begun in it; what was begun is still asked about."""
    desk = await Desk.open(house)
    begun = await desk.begin(ECOCASH[0], currency="ZIG")
    await desk.settle(ecocash_currencies="USD")
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"


async def test_a_dialect_that_was_never_named(house: House) -> None:
    """An API key alone is of `open_api`; later the classic gateway's fields are saved beside it, and its name."""
    desk = await Desk.open(house)
    await desk.settle(ecocash_dialect=None, ecocash_merchant_code=None, ecocash_merchant_number=None)
    begun = await desk.begin(ECOCASH[0])
    await Shop(desk, new_merchant(house, EIP)).save()
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"


async def test_a_dialect_whose_credentials_are_not_there_yet(house: House) -> None:
    """The new ones are saved in two steps: in between the former prove what they began."""
    desk = await Desk.open(house)
    begun = await desk.begin(ECOCASH[0])
    await desk.settle(ecocash_dialect="eip")
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"


async def test_a_field_that_is_cleared_and_never_was_there(house: House) -> None:
    """A form sends null for what it leaves empty: nothing is let go of for that."""
    shop = await Shop.open(house, EIP)
    await shop.desk.settle(ecocash_api_key=None)
    begun = await begun_at(shop, ECOCASH[1])
    other = new_merchant(house, EIP)
    await shop.desk.settle(
        ecocash_merchant_code=other.code,
        ecocash_merchant_number=other.number,
        ecocash_username=other.username,
        ecocash_password=other.password,
        ecocash_merchant_pin=other.pin,
        ecocash_api_key=None,
    )
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"


@pytest.mark.parametrize("kind", ["the same merchant", "another merchant"])
async def test_a_code_of_the_account_before(house: House, kind: str) -> None:
    """InnBucks tells nobody of another account's codes; a new password knows them."""
    desk = await Desk.open(house)
    innbucks, name = house.world.innbucks, f"shop-{uuid4().hex[:8]}"
    innbucks.add_merchant(name, "first-password", f"key-{name}", "500100200399", "Shop")
    fields = {"innbucks_username": name, "innbucks_password": "first-password", "innbucks_api_key": f"key-{name}"}
    await desk.settle(**fields)
    begun = await desk.begin(INNBUCKS)
    if kind == "the same merchant":
        innbucks.add_merchant(name, "second-password", f"key-{name}", "500100200399", "Shop")
        await desk.settle(innbucks_password="second-password")
    else:
        innbucks.add_merchant(f"{name}-2", "third-password", f"key-{name}-2", "500100200400", "Shop")
        await desk.settle(
            innbucks_username=f"{name}-2",
            innbucks_password="third-password",
            innbucks_api_key=f"key-{name}-2",
        )
    await begun.look(minutes=1)
    assert (begun.attempt["state"], begun.row["status"]) == ("live", "pending")
    await begun.pay()
    await begun.look()
    assert begun.row["status"] == "paid"
    assert begun.told == ["link_created", "paid"]


@EACH_DIALECT
async def test_a_refund_is_asked_of_the_account_that_took_the_money(house: House, lane: Lane) -> None:
    """Not of the present one, which may not even know of it and would give back its own."""
    shop = await Shop.open(house, lane.dialect)
    begun = await begun_at(shop, lane)
    await begun.pay()
    await begun.look()
    await shop.save(changed(house, shop.merchant, "another merchant"))
    path = shop.desk.house.path(f"/payments/{begun.id}/refunds")
    answer = await shop.desk.house.call("POST", path, {"reason": "torn"})
    assert (answer.status, answer.json["status"]) == (201, "succeeded"), answer.body
    assert begun.row["status"] == "refunded"
    charge = house.world.ecocash.find(begun.name)
    assert [refund.merchant for refund in charge.refunds] == [charge.merchant]


def test_every_dialect_has_another_one() -> None:
    assert set(OTHER) == set(OTHER.values()) == set(DIALECTS)
