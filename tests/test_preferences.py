"""The fields of a tenant's settings that are in a form of their own, and the preferences among them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from payments_service import reconcile
from tests import test_accounts
from tests.house import House
from tests.test_accounts import audited, faults, patch, shown, stored

service, house = test_accounts.service, test_accounts.house  # fixtures

PREFERENCES: dict[str, dict[str, str | None]] = {
    "paynow_auth_email": {
        "till@acme.example": "till@acme.example",
        "T.Moyo+till@mail.acme.co.zw": "T.Moyo+till@mail.acme.co.zw",
        "till@acme.example\n": "till@acme.example",
        "t\u00ed@acme.example": "t\u00ed@acme.example",
        **dict.fromkeys(["till", "till@acme", "@acme.example", "till@", "a@b@c.example", "a b@acme.example"]),
        **dict.fromkeys(["a@b.c\x00", "a@b.c, d@e.f", "a@b.c\nBcc:d@e.f", f"{'x' * 251}@b.c"]),
    },
    "paynow_express_methods": {
        "none": "none",
        "ecocash": "ecocash",
        "omari,innbucks,onemoney,ecocash": "omari,innbucks,onemoney,ecocash",
        "  ecocash , onemoney\t,\tinnbucks\n": "ecocash , onemoney\t,\tinnbucks",
        " none ": "none",
        **dict.fromkeys(["all", "EcoCash", "NONE", "vmc", "zimswitch", "web", "paynow", "ecocash;omari"]),
        **dict.fromkeys(["ecocash omari", "ecocash,", ",ecocash", "none,ecocash", "ecocash,none", ","]),
        **dict.fromkeys(["ecocash,,omari", "ecocashomari", "ecocash\nvisa", "ecocash\x00", '["ecocash"]', "none,"]),
    },
    "whatsapp_number": {
        "+263771234567": "+263771234567",
        "077 123 4567": "+263771234567",
        "263771234567": "+263771234567",
        " (077) 123-4567\n": "+263771234567",
        "+27 82 123 4567": "+27821234567",
        "024 2123456": "+263242123456",
        **dict.fromkeys(["abc", "077ABCDEFG", "077123456", "07712345678", "+", "0771234567 ext 5", "112"]),
        **dict.fromkeys(["9" * 32, "7" * 33, "0771234567 or 0781234567", "\x00", "https://wa.me/263771234567"]),
    },
}  # fmt: skip
NEVER = ("", " ", "\n", "\u3000", 1, 771234567, True, [], ["ecocash"], {}, "x" * 10_000)


@pytest.mark.parametrize(("field", "examples"), PREFERENCES.items(), ids=PREFERENCES)
async def test_a_field_of_a_form_is_kept_in_it_or_refused(
    house: House, field: str, examples: dict[str, str | None]
) -> None:
    """What is not in the form is named, and what was saved before stays; null clears it, whatever it was."""
    before = None
    for given, kept in examples.items():
        answer = await patch(house, {field: given})
        if kept is None:
            assert faults(answer).keys() == {field}, given
            assert (await shown(house))[field] == before
        else:
            assert answer.status == 200, (given, answer.body)
            before = kept
            assert answer.json[field] == (await shown(house))[field] == stored(house)[field] == kept
    for wrong in NEVER:
        assert faults(await patch(house, {field: wrong})).keys() == {field}, wrong
    assert (await patch(house, {field: None})).json[field] is None
    assert (await shown(house))[field] is None


# --- what changing one does not touch


def retired(house: House) -> list[dict[str, Any]]:
    return house.world.rows("SELECT * FROM retired_settings WHERE client_id = %s ORDER BY id", house.client_id)


async def test_a_preference_neither_retires_nor_deletes_credentials(house: House) -> None:
    """Set, changed, cleared or sent along unchanged, alone as with a new key: what was replaced before stays known, and
    of preferences nothing is kept."""
    await house.save_paynow()
    preferences = {"paynow_auth_email": "till@acme.example", "paynow_express_methods": "ecocash"}
    await patch(house, preferences)
    assert retired(house) == []
    await patch(house, {"paynow_integration_key": "key-two", "paynow_express_methods": "omari"})
    (kept,) = retired(house)
    assert kept["stored"].keys() == {"paynow_integration_id", "paynow_integration_key_enc"}
    changes: list[dict[str, str | None]] = [preferences, {**preferences, "paynow_express_methods": "none"}]
    for change in [*changes, dict.fromkeys(preferences), {"whatsapp_number": "0771234567"}, {"whatsapp_number": None}]:
        assert (await patch(house, change)).status == 200
        assert retired(house) == [kept]
    assert audited(house)[-3]["detail"] == {"set": [], "cleared": sorted(preferences)}
    await patch(house, {"paynow_integration_key": None, **preferences})
    assert retired(house) == []


async def test_a_field_that_was_empty_makes_another_account(house: House) -> None:
    """What was saved beside it stays known as it was before; of a tenant who had no secret, nothing is kept."""
    await patch(house, {"ecocash_merchant_code": "8003"})
    await patch(house, {"ecocash_merchant_number": "771000000"})
    assert retired(house) == []
    await patch(house, {"ecocash_api_key": "key-one"})
    await patch(house, {"ecocash_api_key": "key-one", "ecocash_merchant_code": "8003"})
    assert retired(house) == []
    await patch(house, {"ecocash_dialect": "eip"})
    (kept,) = retired(house)
    assert kept["stored"].keys() == {"ecocash_api_key_enc", "ecocash_merchant_code", "ecocash_merchant_number"}


async def test_a_try_goes_on_under_changed_preferences(house: House) -> None:
    """A link is paid as before after its tenant chose other ways to pay, and under credentials that were replaced."""
    house.world.sandbox.add_fault("never")
    for change in ({"paynow_express_methods": "none"}, {"paynow_integration_id": "1", "paynow_integration_key": "k"}):
        await house.save_paynow()
        link = await house.create_link()
        await patch(house, {**change, "paynow_auth_email": "till@acme.example"})
        await house.world.sandbox.pay(house.reference_of(link))
        house.world.clock.forward(seconds=30)
        assert await reconcile.look_now(house.world.context, UUID(link["id"]))
        assert (await house.payment(link))["status"] == "paid"
