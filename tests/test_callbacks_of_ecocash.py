"""EcoCash's callbacks over HTTP: signed by nobody, so that they only make us look, and only who knows the address may.

`open_api` calls one address for all of a key's payments, which ends in what follows from the key alone; the other two
dialects call one for each try.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import msgspec
import pytest
import pytest_asyncio

from payments_service.sandbox.ecocash_charges import Merchant
from tests.every_gateway import ECOCASH, Begun, Desk, Lane, one_clock
from tests.gateways.contract_simulators import token_of
from tests.house import Answer, House
from tests.support import Log, afresh, dump, open_house

EACH_DIALECT = pytest.mark.parametrize("lane", ECOCASH, ids=str)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        one_clock(house.world)
        yield house


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def tills(service: House) -> dict[str, Till]:
    return {lane.dialect: await Till.open(service, lane.dialect) for lane in ECOCASH}


@pytest.fixture
def free(service: House, tills: dict[str, Till]) -> dict[str, Till]:
    afresh(service)
    service.world.rows_do("UPDATE attempts SET next_check_at = now() + interval '10 years'")
    return tills


class Till:
    """A tenant, and what EcoCash knows of where to call."""

    def __init__(self, desk: Desk, merchant: Merchant) -> None:
        self.desk, self.merchant, self.dialect = desk, merchant, merchant.dialect

    @classmethod
    async def open(cls, house: House, dialect: str) -> Till:
        merchant = house.world.ecocash.add_merchant(dialect)
        till = cls(await Desk.open(house, dialect), merchant)
        fields = {"ecocash_merchant_code": merchant.code, "ecocash_merchant_number": merchant.number}
        if dialect == "open_api":
            fields["ecocash_api_key"] = merchant.api_key
        else:
            fields["ecocash_username"], fields["ecocash_password"] = merchant.username, merchant.password
            fields["ecocash_merchant_pin"] = merchant.pin
        await till.desk.settle(**fields)
        # What was saved before is another merchant's, for which nothing was begun.
        house.world.rows_do("DELETE FROM retired_settings WHERE client_id = %s", till.desk.house.client_id)
        if dialect == "open_api":
            merchant.callback_url = await till.told()
        return till

    async def told(self) -> str:
        """The address that `verify` tells the tenant to set in the portal."""
        verify = self.desk.house.path("/payment-settings/verify")
        answer = await self.desk.house.call("POST", verify, {"gateway": "ecocash"})
        (line,) = [each for each in answer.json["messages"] if "callback URL" in each]
        return str(line.rpartition(" ")[2])

    def path(self, rest: str = "") -> str:
        return f"/callbacks/ecocash/{self.desk.house.client_id}{rest}"

    def address(self, begun: Begun) -> str:
        """Where EcoCash calls about this try."""
        if self.dialect == "open_api":
            return self.path(f"/{token_of(self.merchant.api_key)}")
        return self.path(f"/{begun.attempt['id']}")

    async def post(self, path: str, body: bytes) -> Answer:
        headers = {"Content-Type": "application/json"}
        return await self.desk.house.get_public(path, method="POST", data=body, headers=headers)

    async def begin(self) -> Begun:
        """A prompt is out, and is not looked at for an hour; what became of it nobody has told yet."""
        lane = next(lane for lane in ECOCASH if lane.dialect == self.dialect)
        begun = await self.desk.begin(lane)
        begun.world.rows_do("UPDATE attempts SET next_check_at = next_check_at + interval '1 hour'")
        return begun


def message(begun: Begun, **changes: object) -> bytes:
    """As `open_api` sends it; the others' is not read at all."""
    said = {
        "transactionOperationStatus": "SUCCESS",
        "clientReference": str(begun.attempt["id"]),
        "ecocashReference": "MP251128.0900.T0000001",
    }
    return msgspec.json.encode({**said, **changes})


def is_due(begun: Begun) -> bool:
    due: datetime = begun.attempt["next_check_at"]
    return due <= begun.world.clock()


# --- what EcoCash itself sends


@EACH_DIALECT
async def test_ecocashs_own_callback_makes_us_look_at_once(free: dict[str, Till], lane: Lane) -> None:
    """From the PIN to the proved payment, by the addresses that we gave it."""
    begun = await free[lane.dialect].begin()
    await begun.world.ecocash.approve(begun.name)
    await begun.world.ecocash.settled()
    (delivery,) = [each for each in begun.world.ecocash.deliveries if UUID(each.reference) == begun.attempt["id"]]
    assert delivery.status == 200
    assert begun.row["status"] == "pending"
    await begun.desk.look()
    assert begun.row["status"] == "paid"
    assert begun.told == ["link_created", "paid"]


@EACH_DIALECT
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"<html>", b"\xff\x00", b'{"status": "FAILED"}'])
async def test_what_the_message_says_is_not_read(free: dict[str, Till], lane: Lane, body: bytes) -> None:
    """The address alone says which try it is, where each has one of its own; `open_api`'s names it in the message, and
    without a name it is about nothing."""
    till = free[lane.dialect]
    begun = await till.begin()
    assert (await till.post(till.address(begun), body)).status == 200
    assert is_due(begun) is (lane.dialect != "open_api")


@EACH_DIALECT
async def test_no_message_is_money(free: dict[str, Till], lane: Lane) -> None:
    """Whatever it claims: the look-up says that the customer has not paid."""
    till = free[lane.dialect]
    begun = await till.begin()
    assert (await till.post(till.address(begun), message(begun))).status == 200
    await begun.desk.look()
    assert (begun.row["status"], begun.told) == ("pending", ["link_created"])
    assert (await till.post(till.address(begun), message(begun, transactionOperationStatus="FAILED"))).status == 200
    await begun.desk.look()
    assert (begun.row["status"], begun.told) == ("pending", ["link_created"])


@EACH_DIALECT
async def test_fifty_copies_at_once_are_one_change(free: dict[str, Till], lane: Lane) -> None:
    """And once it is settled, copies make us ask no more often than once a minute."""
    till = free[lane.dialect]
    begun = await till.begin()
    begun.world.ecocash.add_fault("never")
    await begun.pay()

    async def copies() -> None:
        posts = (till.post(till.address(begun), message(begun)) for _ in range(50))
        answers, *_ = await asyncio.gather(asyncio.gather(*posts), begun.desk.look(), begun.desk.look())
        assert {answer.status for answer in answers} == {200}
        await begun.desk.look()

    await copies()
    assert begun.told == ["link_created", "paid"]
    calls = begun.world.ecocash.calls["lookup"]
    for seconds in (10, 20, 20):
        begun.world.clock.forward(seconds=seconds)
        await copies()
        assert begun.world.ecocash.calls["lookup"] == calls
    begun.world.clock.forward(seconds=20)
    await copies()
    assert begun.world.ecocash.calls["lookup"] == calls + 1
    assert begun.told == ["link_created", "paid"]


@EACH_DIALECT
async def test_a_failed_try_that_is_paid_late_is_found_by_its_callback(free: dict[str, Till], lane: Lane) -> None:
    """Before the next look that the schedule has for it."""
    begun = await free[lane.dialect].begin()
    begun.world.ecocash.add_fault("never", times=1)
    await begun.turn_down()
    await begun.look()
    assert begun.row["status"] == "failed"
    begun.world.clock.forward(seconds=90)
    await begun.pay_after_all()
    await begun.world.ecocash.settled()
    await begun.desk.look()
    assert (begun.row["status"], begun.row["late"]) == ("paid", True)


@pytest.mark.parametrize("cleared", [False, True])
async def test_the_address_of_the_key_before_is_good_until_it_is_cleared(service: House, cleared: bool) -> None:
    """What the portal still calls after a new key was saved; not what was let go of."""
    afresh(service)
    till = await Till.open(service, "open_api")
    begun = await till.begin()
    address = till.address(begun)
    await till.desk.settle(ecocash_api_key=service.world.ecocash.add_merchant("open_api").api_key)
    if cleared:
        await till.desk.settle(ecocash_api_key=None)
    # Another process: this one may have read the key a moment ago.
    async with House.open(replace(service.world), work=False) as fresh:
        assert (await fresh.get_public(address, method="POST", data=message(begun))).status == 200
    assert is_due(begun) is not cleared


# --- what strangers send


@pytest.fixture
async def others(free: dict[str, Till]) -> dict[str, Begun]:
    """A prompt at each tenant."""
    return {dialect: await till.begin() for dialect, till in free.items()}


def forgeries(till: Till, begun: Begun, foreign: Begun, key: str) -> dict[str, tuple[str, bytes]]:
    """What is sent where."""
    attempt, said = str(begun.attempt["id"]), message(begun)
    good = till.address(begun)
    forged = {
        "no address": (till.path(), said),
        "an empty address": (till.path("/"), said),
        "a guessed address": (till.path(f"/{token_of('another-key')}"), said),
        "the key itself": (till.path(f"/{key}"), said),
        "half of the address": (good[:-4], said),
        "the address and more": (f"{good}x", said),
        "the address in capitals, or what is none": (till.path(f"/{good.rpartition('/')[2].swapcase()}x"), said),
        "another try": (till.path(f"/{uuid4()}"), message(begun, clientReference=str(uuid4()))),
        "another tenant's try": (till.path(f"/{foreign.attempt['id']}"), message(foreign)),
        "another tenant": (good.replace(str(till.desk.house.client_id), str(foreign.desk.house.client_id)), said),
        "an unknown tenant": (good.replace(str(till.desk.house.client_id), str(uuid4())), said),
        "no tenant": (good.replace(str(till.desk.house.client_id), "acme"), said),
        "a NUL": (till.path("/%00"), said),
        "no Unicode": (till.path("/%ff%fe"), said),
    }
    if till.dialect == "open_api":
        bodies = {
            "nothing": b"",
            "null": b"null",
            "no JSON": b"{",
            "words": b"Hello",
            "no name": message(begun, clientReference=None),
            "a list of names": message(begun, clientReference=[attempt]),
            "another tenant's name": message(foreign),
        }
        forged |= {name: (good, body) for name, body in bodies.items()}
        forged |= {"an id as the address": (till.path(f"/{attempt}"), said)}
    return forged


@EACH_DIALECT
async def test_what_is_forged_changes_nothing_and_tells_nothing(
    free: dict[str, Till], others: dict[str, Begun], lane: Lane, written_log: Path
) -> None:
    """200, for whatever is sent; no row of any table changes, one warning says why, and no log line holds an address
    that is good."""
    till, begun = free[lane.dialect], others[lane.dialect]
    foreign = others["eip" if lane.dialect == "open_api" else "open_api"]
    world, log = begun.world, Log(written_log)
    key = till.merchant.api_key or till.merchant.password
    before = dump(world.database)
    for what, (path, body) in forgeries(till, begun, foreign, key).items():
        answer = await till.post(path, body)
        assert answer.status in (200, 404), what
        assert dump(world.database) == before, what
    warnings = log.alarms()
    assert {line["event"] for line in warnings} == {"callback_refused"}
    assert all(line["detail"] for line in warnings)
    assert not any(secret in log.text for secret in (token_of(till.merchant.api_key or "x"), key))


async def test_no_log_line_holds_the_address_of_a_key(free: dict[str, Till], written_log: Path) -> None:
    """Who reads the log could make us look: a request is logged without its path."""
    till, log = free["open_api"], Log(written_log)
    begun = await till.begin()
    for body in (message(begun), b"", b"x" * 70_000):
        await till.post(till.address(begun), body)
    assert {line["operation"] for line in log.of("request", method="POST", listener="public")} >= {"callback"}
    assert token_of(till.merchant.api_key) not in log.text


@EACH_DIALECT
async def test_a_large_body_is_refused(free: dict[str, Till], lane: Lane) -> None:
    """413 over 64 kB, wherever it is sent; up to that it counts."""
    till = free[lane.dialect]
    begun = await till.begin()
    padded = message(begun, padding="x" * (64 * 1024 - 400))
    answer = await till.post(till.address(begun), padded + b" " * (64 * 1024 + 1 - len(padded)))
    assert (answer.status, is_due(begun)) == (413, False)
    assert (await till.post(till.path("/x"), b"x" * 1_000_000)).status == 413
    assert (await till.post(till.address(begun), padded + b" " * (64 * 1024 - len(padded)))).status == 200
    assert is_due(begun)


async def test_nothing_that_a_stranger_sends_is_our_failure(free: dict[str, Till], written_log: Path) -> None:
    """Three hundred random addresses and bodies: no answer is a 5xx, and nothing fails within."""
    dice, log = random.Random(7), Log(written_log)
    begun = await free["open_api"].begin()

    async def post() -> int:
        till = free[dice.choice(list(free))]
        parts = [str(begun.attempt["id"]), token_of(till.merchant.api_key or "x"), "%00", "..", "é", "", "x" * 3000]
        body = dice.choice([message(begun), dice.randbytes(200), b"[" * 5000, b'{"clientReference": 1e999}'])
        return (await till.post(till.path(f"/{dice.choice(parts)}"), body)).status

    statuses = [await post() for _ in range(300)]
    assert max(statuses) < 500
    assert not log.of("callback_failed")
    assert not log.of("request_failed")
