"""EcoCash and InnBucks by themselves, from their credentials to money given back, as openapi.yaml says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.house import House, World, eventually
from tests.openapi import CREATE, PAGE, PAYMENT, REFUNDS, SETTINGS, VERIFY, Conversation

OPEN_API = {"ecocash_dialect": "open_api", "ecocash_api_key": "worth-nothing-open-api-key"}
EIP = {
    "ecocash_username": "mbare-hardware",
    "ecocash_password": "worth-nothing-password",
    "ecocash_merchant_pin": "4713",
    "ecocash_merchant_number": "789111499",
}
INNBUCKS = {
    "innbucks_username": "mbare-hardware",
    "innbucks_password": "worth-nothing-password",
    "innbucks_api_key": "worth-nothing-innbucks-key",
}
CODE = "03052"


async def simulator(house: House, path: str, **content: object) -> Any:
    """A word with the simulators, as an operator has it."""
    async with house.http.post(f"{house.world.sandbox.public_url}/sandbox/{path}", json=content) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def known_to_ecocash(house: House, dialect: str) -> dict[str, str]:
    """A merchant of this dialect; its credentials as a tenant saves them."""
    saved = OPEN_API if dialect == "open_api" else {"ecocash_dialect": dialect, **EIP}
    theirs = {name.removeprefix("ecocash_").removeprefix("merchant_"): value for name, value in saved.items()}
    await simulator(house, "ecocash/merchants", code=CODE, **theirs)
    return {**saved, "ecocash_merchant_code": CODE}


@pytest.mark.parametrize("dialect", ["open_api", "eip", "eip_portal"])
async def test_ecocash_takes_and_gives_back_as_documented(world: World, dialect: str) -> None:
    """Verified, linked without asking EcoCash, paid by a prompt in its own currency only, given back in parts by API;
    callbacks are believed at the address that is sent along, or that `verify` tells."""
    async with House.open(world) as house:
        talk = Conversation(house)
        fields = {**await known_to_ecocash(house, dialect), "ecocash_currencies": "USD"}
        shown = (await talk.say("PATCH", SETTINGS, fields)).json
        assert (shown["ecocash_currencies"], shown["ecocash_configured"]) == ("USD", True)
        said = (await talk.say("POST", VERIFY, {"gateway": "ecocash"})).json
        assert (said["ok"], said["currencies"]) == (True, ["USD"])
        await told_where_to_report(house, dialect, said["messages"])
        order = house.order(gateway="ecocash", currency="ZIG")
        assert (await talk.say("POST", CREATE, order)).json["code"] == "gateway_not_configured"

        payment = await linked(talk, "ecocash")
        form = {"way": "ecocash.ecocash", "phone": "077 123 4567", "after": "0"}
        assert (await talk.say("POST", PAGE, form)).status == 303
        assert "Look at your phone" in (await talk.say("GET", PAGE)).body.decode()
        charge = house.world.one("SELECT id FROM attempts")["id"]
        name = str(charge) if dialect == "open_api" else charge.hex
        await simulator(house, "ecocash/approve", reference=name, pin="1234")
        await paid(talk, payment)
        await eventually(lambda: world.rows("SELECT FROM callbacks"))

        made = (await talk.say("POST", REFUNDS, {"reason": "One bag was torn", "amount_cents": 250})).json
        assert (made["gateway"], made["status"], made["payment"]["refunded_cents"]) == ("ecocash", "succeeded", 250)


async def told_where_to_report(house: House, dialect: str, messages: list[str]) -> None:
    """Tell EcoCash's portal the address that the messages name, if they do, and see that it is a secret one."""
    found = re.search(rf"\S+/callbacks/ecocash/{house.client_id}/([\w-]{{22,}})", " ".join(messages))
    assert (found is not None) == (dialect == "open_api")
    if found:
        await simulator(house, "ecocash/callback_url", merchant=CODE, url=found[0])


async def test_innbucks_takes_as_documented_and_gives_nothing_back(world: World) -> None:
    """Verified, linked without asking InnBucks, paid with a code in US dollars only, given back by hand alone."""
    async with House.open(world) as house:
        talk = Conversation(house)
        theirs = {name.removeprefix("innbucks_"): value for name, value in INNBUCKS.items()}
        await simulator(house, "innbucks/merchants", **theirs, account_id="500100200399", name="Mbare Hardware")
        assert (await talk.say("PATCH", SETTINGS, INNBUCKS)).json["innbucks_configured"]
        said = (await talk.say("POST", VERIFY, {"gateway": "innbucks"})).json
        assert (said["ok"], said["currencies"]) == (True, ["USD"])
        order = house.order(gateway="innbucks", currency="ZIG")
        assert fields_of(await talk.say("POST", CREATE, order)) == ["currency"]

        payment = await linked(talk, "innbucks")
        assert (await talk.say("POST", PAGE, {"way": "innbucks.innbucks", "after": "0"})).status == 303
        assert "Pay with this code" in (await talk.say("GET", PAGE)).body.decode()
        await simulator(house, "innbucks/pay", reference=house.reference_of(payment))
        await paid(talk, payment)

        assert fields_of(await talk.say("POST", REFUNDS, {"reason": "One bag was torn"})) == ["manual"]
        by_hand = {"reason": "One bag was torn", "manual": True, "evidence": "Cash, receipt 118"}
        made = (await talk.say("POST", REFUNDS, by_hand)).json
        assert (made["status"], made["payment"]["status"]) == ("succeeded", "refunded")


async def linked(talk: Conversation, gateway: str) -> Any:
    """A link for the gateway that is the hosted page, and nothing that was started."""
    payment = (await talk.say("POST", CREATE, talk.house.order(gateway=gateway))).json
    assert (payment["payment_url"], payment["sequence"]) == (payment["page_url"], 1)
    assert not talk.house.world.rows("SELECT FROM attempts")
    talk.known = {"payment_id": payment["id"], "token": payment["page_url"].rsplit("/", 1)[1]}
    return payment


async def paid(talk: Conversation, payment: Any) -> None:
    async def found() -> bool:
        return bool((await talk.say("POST", f"{PAYMENT}/refresh")).json["status"] == "paid")

    await eventually(found)
    assert (await talk.house.payment(payment))["gateway_reference"]


def fields_of(answer: Any) -> list[str]:
    """The fields that were found at fault."""
    return [fault["field"] for fault in answer.json["errors"]]
