"""A tenant's settings over HTTP: what is saved, what is shown, what is audited, and how keys are replaced."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg.types.json import Jsonb

from payments_service import reconcile
from payments_service.accounts import COLUMNS, SECRETS, configured_by
from payments_service.audit import FIRST_HASH, chain_hash, record
from payments_service.gateways import registry
from payments_service.vault import Vault
from tests.house import ENCRYPTION_SECRET, Answer, House, settings_for
from tests.support import Log, afresh, encrypt_as_before, gather_limited, open_house
from tests.test_command_line import ROOT, command, environment

NEW_SECRET = "a-new-secret-Yk3Vn8Qw5Tz2Rx7Lc4Mp"
SETTINGS = "/payment-settings"
CONFIGURED_BY = configured_by(registry.build(cast("Any", None), settings_for()))


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
def house(service: House) -> House:
    return afresh(service)


async def patch(house: House, body: object, **more: Any) -> Answer:
    return await house.call("PATCH", house.path(SETTINGS), body, **more)


async def shown(house: House) -> dict[str, Any]:
    answer = await house.call("GET", house.path(SETTINGS))
    assert answer.status == 200
    return dict(answer.json)


def stored(house: House) -> dict[str, Any]:
    return house.world.one("SELECT * FROM payment_settings WHERE client_id = %s", house.client_id)


def opened(house: House, field: str, vault: Vault | None = None) -> str:
    """What the stored secret really is."""
    column = COLUMNS[field]
    sealed = stored(house)[column]
    return (vault or house.world.context.vault).open(sealed, client_id=house.client_id, column=column)


def audited(house: House) -> list[dict[str, Any]]:
    return house.world.rows("SELECT * FROM audit_logs WHERE client_id = %s ORDER BY position", house.client_id)


def faults(answer: Answer) -> dict[str, str]:
    assert answer.status == 422, answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["code"] == "validation_failed"
    return {fault["field"]: fault["message"] for fault in answer.json["errors"]}


# --- what a PATCH means


async def test_absent_is_unchanged_and_null_is_cleared(house: House) -> None:
    """Each field by itself, secret or not; the answer is what a GET then shows."""
    first = {
        "display_name": "Acme",
        "paynow_integration_id": "1",
        "paynow_integration_key": "key-one",
        "ecocash_api_key": "e",
    }
    assert (await patch(house, first)).json["paynow_configured"] is True
    answer = await patch(house, {"display_name": None, "paynow_integration_key": "key-two"})
    assert answer.json == await shown(house)
    assert answer.json["display_name"] is None
    assert answer.json["paynow_integration_id"] == "1"
    assert opened(house, "paynow_integration_key") == "key-two"
    assert opened(house, "ecocash_api_key") == "e"
    answer = await patch(house, {"paynow_integration_key": None, "ecocash_api_key": None, "stripe_secret_key": None})
    assert not any(answer.json[flag] for flag in CONFIGURED_BY)
    assert stored(house)["paynow_integration_key_enc"] is None
    before = stored(house)
    assert (await patch(house, {})).json == answer.json
    assert stored(house) == before


# The fields that are not just any text.
OF_A_FORM = {
    "ecocash_dialect": "eip_portal",
    "ecocash_currencies": "USD, ZWG",
    "paynow_auth_email": "till@acme.example",
    "paynow_express_methods": "ecocash, omari",
    "whatsapp_number": "+263771234567",
    "whatsapp_text": "{payee} asks for {amount}: {link}",
}


async def test_every_field_is_saved_and_comes_back_if_it_is_no_secret(house: House) -> None:
    """All fields of the contract at once, then all cleared at once."""
    values = {field: f"value of {field}" for field in COLUMNS} | OF_A_FORM
    answer = await patch(house, values)
    flags = dict.fromkeys(CONFIGURED_BY, True)
    assert answer.json == {field: value for field, value in values.items() if field not in SECRETS} | flags
    for field in SECRETS:
        assert opened(house, field) == values[field]
    answer = await patch(house, dict.fromkeys(COLUMNS))
    assert not any(answer.json.values())


async def test_a_tenant_never_seen_has_nothing(house: House) -> None:
    """All fields null, all flags false, and no row is made by looking."""
    found = await shown(house)
    assert set(found) == {field for field in COLUMNS if field not in SECRETS} | CONFIGURED_BY.keys()
    assert [value for value in found.values() if value is not None] == [False] * len(CONFIGURED_BY)
    assert (await patch(house, {})).json == found
    assert house.world.rows("SELECT FROM payment_settings WHERE client_id = %s", house.client_id) == []
    assert audited(house) == []


async def test_all_faults_are_told_together_and_nothing_is_saved(house: House) -> None:
    """Unknown, wrong, too long and empty in one request: every one is named, none of the rest is saved."""
    body = {
        "display_name": "x" * 81,
        "paynow_integration_id": "",
        "paynow_integration_key": 17,
        "ecocash_dialect": "EIP",
        "ecocash_currencies": "USD, ZAR",
        "paynow_auth_email": "till at acme",
        "paynow_express_methods": "ecocash, visa",
        "stripe_secret_key": "fine",
        "no_such_field": 1,
        "id": "mine",
        "client_id": str(uuid4()),
        "paynow_integration_key_enc": "v1.x.y",
        "updated_at": "2026-01-01T00:00:00Z",
    }
    assert faults(await patch(house, body)).keys() == body.keys() - {"stripe_secret_key"}
    assert house.world.rows("SELECT FROM payment_settings WHERE client_id = %s", house.client_id) == []
    assert audited(house) == []


GOOD = {
    "  padded  ": "padded",
    "\ttab": None,
    "pasted\n": "pasted",
    "\u00a0wide\u2003": "wide",
    "Müller & Söhne 🛠": "",
    "x" * 500: "",
}
BAD = (
    "", " ", "\n", "\t \n", "\u00a0", "\u3000\u2028", "\x85", "a\x00b", "\x00", "a\nb", "\r\nx", "\x1b[31m", "a\x7fb",
    "x" * 501, " " * 501, 1, 1.5, True, False, [], ["x"], {}, {"x": 1},
)  # fmt: skip


@pytest.mark.parametrize("field", ["paynow_integration_key", "paynow_integration_id"])
async def test_values_are_trimmed_or_refused(house: House, field: str) -> None:
    """Blanks around a value are removed, of whatever alphabet; what is blank, no text, too long or holds control
    characters is refused."""
    for given, kept in GOOD.items():
        answer = await patch(house, {field: given})
        if kept is None:
            assert faults(answer).keys() == {field}
        else:
            assert answer.status == 200, (given, answer.body)
            value = opened(house, field) if field in SECRETS else answer.json[field]
            assert value == (kept or given)
    rows = len(audited(house))
    for wrong in BAD:
        answer = await patch(house, {field: wrong})
        assert answer.status == 422, wrong
        assert faults(answer).keys() == {field}
    assert len(audited(house)) == rows


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b"  \n",
    "no JSON": b"display_name=Acme",
    "half": b'{"display_name": "Ac',
    "two": b"{} {}",
    "an array": b'[{"display_name": "Acme"}]',
    "null": b"null",
    "a text": b'"display_name"',
    "a number": b"17",
    "a lone surrogate": b'{"display_name": "\\ud800"}',
    "a lone surrogate as a name": b'{"\\udc00": "x"}',
    "surrogates in UTF-8": b'{"display_name": "\xed\xa0\x80"}',
    "no UTF-8": b'{"display_name": "\xff\xfe"}',
    "UTF-16": '{"display_name": "Acme"}'.encode("utf-16"),
    "a mark before it": b'\xef\xbb\xbf{"display_name": "Acme"}',
    "not a number": b'{"display_name": NaN}',
    "a huge number": b'{"display_name": 1e999}',
    "a very long number": b'{"display_name": ' + b"9" * 60_000 + b"}",
    "very deep": b"[" * 60_000,
    "very deep inside": b'{"display_name":' * 4_000,
    "a comment": b'{"display_name": "Acme" /* x */}',
    "a raw control character": b'{"display_name": "Ac\x01me"}',
}


async def test_what_is_no_json_object_is_refused(house: House) -> None:
    """422 with the body named, whatever it is; nothing is saved and nothing fails."""
    for what, body in BODIES.items():
        answer = await patch(house, body)
        assert answer.status == 422, (what, answer.status)
        assert faults(answer).keys() <= {"body", "display_name"}, what
    assert house.world.rows("SELECT FROM payment_settings WHERE client_id = %s", house.client_id) == []


async def test_of_a_field_named_twice_the_last_counts(house: House) -> None:
    """As JSON's readers do; what is stored is what was audited and shown."""
    answer = await patch(house, b'{"display_name": "first", "display_name": "second"}')
    assert answer.json["display_name"] == "second"
    answer = await patch(house, b'{"display_name": "third", "display_name": null}')
    assert answer.json["display_name"] is None
    assert audited(house)[-1]["detail"] == {"set": [], "cleared": ["display_name"]}


# --- what is shown


async def test_no_part_of_a_secret_is_ever_answered(house: House) -> None:
    """Canaries in every secret field: neither they nor eight characters of one are in any answer, good or bad, nor in
    the audit log, nor in plain in the row."""
    canaries = {field: secrets.token_hex(16) for field in SECRETS}
    bad = {field: f"{value}\x01" for field, value in canaries.items()}
    long = {field: value * 20 for field, value in canaries.items()}
    misplaced = dict.fromkeys(("ecocash_dialect", "no_such_field"), canaries["stripe_secret_key"])
    plain = {"paynow_integration_id": "1201", "innbucks_username": "u", "ecocash_username": "u"}
    answers = [
        await patch(house, {**canaries, **plain}),
        await house.call("GET", house.path(SETTINGS)),
        *[await patch(house, body) for body in (bad, long, misplaced, {**canaries, "x": 1})],
        await patch(house, msgspec.json.encode(canaries)[:-1]),
        await house.call("POST", house.path("/payments/create-link"), house.order()),
        await house.call("POST", house.path("/payments/create-link"), house.order(currency="ZIG")),
        await patch(house, dict.fromkeys(SECRETS)),
    ]
    assert {answer.status for answer in answers} == {200, 422}
    told = "\n".join(f"{answer.body.decode()} {dict(answer.headers)}" for answer in answers)
    told += str(audited(house)) + str(stored(house))
    parts = {value[start : start + 8] for value in canaries.values() for start in range(len(value) - 7)}
    assert [part for part in parts if part in told] == []


CHOICES = [(flag, fields) for flag, choices in CONFIGURED_BY.items() for fields in choices]


@pytest.mark.parametrize(("flag", "fields"), CHOICES, ids=lambda value: value if isinstance(value, str) else "")
async def test_configured_needs_all_of_a_set(service: House, flag: str, fields: tuple[str, ...]) -> None:
    """Each flag is true with one whole set of fields, and false when any of them is missing or was cleared."""
    house = afresh(service)
    for left_out in fields:
        some = {field: "x" for field in fields if field != left_out}
        assert (await patch(house, {**dict.fromkeys(fields), **some})).json[flag] is False, left_out
    answer = await patch(house, dict.fromkeys(fields, "x"))
    assert [name for name in CONFIGURED_BY if answer.json[name]] == [flag]
    assert (await patch(house, {fields[-1]: None})).json[flag] is False


# --- the audit log


async def test_the_audit_row_names_the_person_and_the_fields(house: House) -> None:
    """X-Actor names the person, else the service; set and cleared fields are listed; no value is."""
    await patch(
        house, {"display_name": "Acme", "stripe_secret_key": "sk_live_x"}, headers={"X-Actor": "rudo@acme.example"}
    )
    await patch(house, {"stripe_secret_key": None})
    await patch(house, {"display_name": "Acme"}, headers={"X-Actor": "Tendai Müller"})
    first, second, third = audited(house)
    assert (first["actor"], second["actor"], third["actor"]) == (
        "rudo@acme.example",
        "service:backend",
        "Tendai Müller",
    )
    assert first["action"] == "payment_settings.saved"
    assert first["detail"] == {"set": ["display_name", "stripe_secret_key"], "cleared": []}
    assert second["detail"] == {"set": [], "cleared": ["stripe_secret_key"]}
    for wrong in ("", " ", "x" * 101):
        answer = await patch(house, {"display_name": "Other"}, headers={"X-Actor": wrong})
        assert faults(answer).keys() == {"X-Actor"}
    assert len(audited(house)) == 3
    assert (await shown(house))["display_name"] == "Acme"


def check_chain(entries: list[dict[str, Any]]) -> None:
    previous = FIRST_HASH
    for position, entry in enumerate(entries, 1):
        assert entry["position"] == position
        assert entry["previous_hash"] == previous
        assert entry["hash"] == chain_hash(previous, entry)
        previous = entry["hash"]


async def test_fifty_saves_at_once_make_one_unbroken_chain(house: House) -> None:
    """Of one tenant, among others' saves: each has its row, positions have no gap, every hash covers the one before."""
    others = [replace(house, client_id=uuid4()) for _ in range(5)]
    saves = [patch(house, {"display_name": f"name {number}", "ecocash_api_key": "k"}) for number in range(50)]
    saves += [patch(other, {"display_name": "x"}) for other in others * 4]
    assert {answer.status for answer in await asyncio.gather(*saves)} == {200}
    entries = audited(house)
    assert len(entries) == 50
    check_chain(entries)
    for other in others:
        assert len(audited(other)) == 4
        check_chain(audited(other))
    for name, value in (
        ("actor", "somebody else"),
        ("detail", {"set": [], "cleared": []}),
        ("action", "x"),
        ("position", 9),
    ):
        assert chain_hash(entries[7]["previous_hash"], {**entries[7], name: value}) != entries[7]["hash"]


async def test_audit_rows_of_any_cause_join_the_chain(house: House) -> None:
    """Not every audited action locks the tenant's settings: thirty at once, each in a transaction of its own."""
    context = house.world.context

    async def act(number: int) -> None:
        async with context.db.as_tenant(house.client_id) as connection:
            detail = {"number": number}
            await record(connection, house.client_id, actor="a", action="tried", detail=detail, at=context.clock())

    await asyncio.gather(*(act(number) for number in range(30)))
    entries = audited(house)
    assert sorted(entry["detail"]["number"] for entry in entries) == list(range(30))
    check_chain(entries)


async def test_a_tenant_whose_save_hangs_holds_up_nobody_else(house: House) -> None:
    """While one tenant's chain and row are locked, another's settings are saved; the first goes on when it is free."""
    other, context = replace(house, client_id=uuid4()), house.world.context
    assert (await patch(house, {"display_name": "before"})).status == 200
    async with context.db.as_tenant(house.client_id) as connection:
        await connection.exec_driver_sql("SELECT FROM payment_settings FOR UPDATE")
        await record(connection, house.client_id, actor="a", action="hung", detail={}, at=context.clock())
        waiting = asyncio.create_task(patch(house, {"display_name": "after"}))
        assert (await patch(other, {"display_name": "other"})).json["display_name"] == "other"
        assert (await shown(house))["display_name"] == "before"
        assert not waiting.done()
    assert (await waiting).json["display_name"] == "after"
    check_chain(audited(house))


# --- stored credentials that do not open


async def test_a_sealed_text_that_was_moved_does_not_open(house: House, written_log: Path) -> None:
    """Copied to another tenant or another column it is refused in plain words: 503, not 500, and nothing is recorded;
    a payment under way concludes nothing from it; saving again mends it."""
    house.world.sandbox.add_fault("never")
    other = replace(house, client_id=uuid4())
    await house.save_paynow()
    await other.save_paynow()
    link = await house.create_link()
    good = stored(house)["paynow_integration_key_enc"]
    change = "UPDATE payment_settings SET paynow_integration_key_enc = %s WHERE client_id = %s"
    house.world.rows_do(change, stored(other)["paynow_integration_key_enc"], house.client_id)
    log = Log(written_log)
    answer = await house.call("POST", house.path("/payments/create-link"), house.order())
    assert answer.status == 503
    assert answer.json["code"] == "credentials_unreadable"
    assert "paynow_integration_key" in answer.json["detail"]
    assert "Save it again" in answer.json["detail"]
    assert (await house.call("POST", house.path("/payments/create-link"), house.order(gateway=None))).status == 503
    assert log.of("request_failed") == []
    assert len(house.world.rows("SELECT FROM payments WHERE client_id = %s", house.client_id)) == 1
    await house.world.sandbox.pay(house.reference_of(link))
    assert (await house.payment(link))["status"] == "pending"
    house.world.rows_do(
        "UPDATE payment_settings SET paynow_zig_integration_id = '1202', paynow_zig_integration_key_enc = %s "
        "WHERE client_id = %s",
        good,
        house.client_id,
    )
    answer = await house.call("POST", house.path("/payments/create-link"), house.order(currency="ZIG"))
    assert answer.json["code"] == "credentials_unreadable"
    assert (await patch(house, {"paynow_zig_integration_key": None})).status == 200
    await house.save_paynow()
    house.world.clock.forward(seconds=30)
    assert await reconcile.look_now(house.world.context, UUID(link["id"]))
    assert (await house.payment(link))["status"] == "paid"


async def test_rows_of_the_system_before_work_and_are_renewed(house: House) -> None:
    """A key that the old backend sealed makes a link; the next save of anything brings it into the present form, and
    so does the save of a new value."""
    key = house.world.sandbox.integrations["1201"].key
    old = encrypt_as_before(key, ENCRYPTION_SECRET)
    house.world.rows_do(
        "INSERT INTO payment_settings (client_id, paynow_integration_id, paynow_integration_key_enc, "
        "stripe_secret_key_enc, ecocash_api_key_enc) VALUES (%s, '1201', %s, %s, 'no longer readable')",
        house.client_id,
        old,
        encrypt_as_before("sk_live_old", ENCRYPTION_SECRET),
    )
    assert (await shown(house))["paynow_configured"] is True
    assert (await house.create_link())["status"] == "pending"
    assert stored(house)["paynow_integration_key_enc"] == old
    await patch(house, {"display_name": "Acme", "stripe_secret_key": "sk_live_new"})
    for field, value in (("paynow_integration_key", key), ("stripe_secret_key", "sk_live_new")):
        assert house.world.context.vault.is_current(stored(house)[COLUMNS[field]])
        assert opened(house, field) == value
    assert stored(house)["ecocash_api_key_enc"] == "no longer readable"
    assert audited(house)[-1]["detail"]["set"] == ["display_name", "stripe_secret_key"]
    assert (await house.create_link())["status"] == "pending"


# --- replacing the key

_SEALED = ("paynow_integration_key_enc", "innbucks_api_key_enc")


def plant_sealed(url: str, vault: Vault, count: int) -> dict[UUID, str]:
    """Tenants with two secrets each and a third that was replaced, every fifth in the old form; their plaintexts."""
    tenants = {uuid4() if number else UUID(int=0): f"plain-{number}" for number in range(count)}

    def seal(client_id: UUID, number: int, column: str) -> str:
        if number % 5 == 0:
            return encrypt_as_before(tenants[client_id], ENCRYPTION_SECRET)
        return vault.seal(tenants[client_id], client_id=client_id, column=column)

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO payment_settings (client_id, {', '.join(_SEALED)}) VALUES (%s, %s, %s)",
            [(each, *[seal(each, number, column) for column in _SEALED]) for number, each in enumerate(tenants)],
        )
        cursor.executemany(
            "INSERT INTO retired_settings (client_id, gateway, stored) VALUES (%s, 'paynow', %s)",
            [
                (each, Jsonb({_SEALED[0]: seal(each, number, _SEALED[0]), "paynow_integration_id": "7"}))
                for number, each in enumerate(tenants)
            ],
        )
    return tenants


def key_ids(house: House) -> dict[str | None, int]:
    """How many sealed texts there are of each key; None: of the old form."""
    found: dict[str | None, int] = {}
    texts = [row[column] for row in house.world.rows("SELECT * FROM payment_settings") for column in _SEALED]
    kept = [row["stored"].items() for row in house.world.rows("SELECT * FROM retired_settings")]
    texts += [text for fields in kept for column, text in fields if column.endswith("_enc")]
    for text in filter(None, texts):
        key_id = Vault(NEW_SECRET).key_id_of(text)
        found[key_id] = found.get(key_id, 0) + 1
    return found


async def rotation(url: str) -> asyncio.subprocess.Process:
    """`rotate-keys` as it is run by hand, with the new secret and the one before."""
    changes = {"ENCRYPTION_SECRET": NEW_SECRET, "ENCRYPTION_SECRET_PREVIOUS": ENCRYPTION_SECRET, "DATABASE_URL": url}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-u", "-m", "payments_service", "rotate-keys"),
        cwd=ROOT,
        env=environment(**changes),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_keys_are_replaced_while_the_service_runs(database: str, postgres: str) -> None:
    """`rotate-keys` is killed half-way and started again, while tenants save: in the end everything is under the new
    key, opens to what was last saved, and the old secret is not needed any more."""
    before, after = Vault(ENCRYPTION_SECRET), Vault(NEW_SECRET)
    tenants = plant_sealed(database, before, 900)
    secrets_now = {"encryption_secret": NEW_SECRET, "encryption_secret_previous": ENCRYPTION_SECRET}
    async with open_house(postgres, database=database, **secrets_now) as house:
        # A row that somebody else holds keeps the rotation from coming to its end before it is killed.
        middle = sorted(tenants)[700]
        with psycopg.connect(database) as holder:
            holder.execute("SELECT FROM payment_settings WHERE client_id = %s FOR UPDATE", [middle])
            process = await rotation(database)
            assert process.stdout is not None
            for _ in range(3):
                assert b"tenants" in await process.stdout.readline()
            process.kill()
            await process.communicate()
        ids = key_ids(house)
        assert {after.current_key_id, before.current_key_id, None} == ids.keys()
        process = await rotation(database)
        ended = asyncio.create_task(process.communicate())
        saved = 0
        waiting = sorted(tenants, reverse=True)
        while not ended.done() and saved < len(waiting):
            some = {each: f"saved-{number}" for number, each in enumerate(waiting[saved : saved + 8])}
            bodies = [
                house.call("PATCH", house.path(SETTINGS, each), {"innbucks_api_key": new}) for each, new in some.items()
            ]
            assert {answer.status for answer in await gather_limited(bodies, 4)} == {200}
            tenants |= {each: f"{tenants[each]} {new}" for each, new in some.items()}
            saved += len(some)
        told, errors = await ended
        assert process.returncode == 0, errors
        assert b"Everything is under the current key" in told
        assert saved > 0
        assert key_ids(house).keys() == {after.current_key_id}
        for row in house.world.rows("SELECT * FROM payment_settings"):
            first, _, changed = tenants[row["client_id"]].partition(" ")
            texts = [after.open(row[column], client_id=row["client_id"], column=column) for column in _SEALED]
            assert texts == [first, changed or first]
        for row in house.world.rows("SELECT * FROM retired_settings WHERE stored ? 'paynow_integration_id'"):
            sealed = row["stored"][_SEALED[0]]
            opened_now = after.open(sealed, client_id=row["client_id"], column=_SEALED[0])
            assert opened_now == tenants[row["client_id"]].partition(" ")[0]
            assert row["stored"]["paynow_integration_id"] == "7"


async def test_what_cannot_be_opened_is_told_and_the_rest_is_replaced(house: House, database: str) -> None:
    """Exit code 1 and a count in plain words; the log names tenant and column; nothing readable is left behind."""
    tenants = plant_sealed(database, Vault(ENCRYPTION_SECRET), 6)
    lost = Vault("quite-another-secret-that-is-gone-4711").seal("x", client_id=UUID(int=0), column=_SEALED[0])
    with psycopg.connect(database) as connection:
        connection.execute(
            "UPDATE payment_settings SET paynow_integration_key_enc = %s WHERE client_id = %s", [lost, UUID(int=0)]
        )
        connection.execute(
            "UPDATE payment_settings SET stripe_secret_key_enc = 'garbage' WHERE client_id = %s", [UUID(int=0)]
        )
    changes = {"ENCRYPTION_SECRET": NEW_SECRET, "ENCRYPTION_SECRET_PREVIOUS": ENCRYPTION_SECRET}
    outcome = await asyncio.to_thread(command, "rotate-keys", DATABASE_URL=database, LOG_FORMAT="json", **changes)
    assert outcome.returncode == 1
    assert "2 credentials cannot be opened" in outcome.stdout
    assert "Traceback" not in outcome.stderr
    lines = [msgspec.json.decode(line) for line in outcome.stderr.splitlines()]
    named = {(line["client_id"], line["column"]) for line in lines if line["event"] == "credential_unreadable"}
    assert named == {(str(UUID(int=0)), "stripe_secret_key_enc"), (str(UUID(int=0)), _SEALED[0])}
    world = replace(house.world, database=database)
    ids = key_ids(replace(house, world=world))
    assert ids == {Vault(NEW_SECRET).current_key_id: 3 * len(tenants) - 1, Vault(NEW_SECRET).key_id_of(lost): 1}


async def test_a_process_without_a_needed_key_is_not_ready(house: House) -> None:
    """503 names the key, not the secret; on the public listener not even that. With the secret among the previous ones
    all is well; a replaced credential needs its key too."""
    await house.save_paynow()
    await patch(house, {"paynow_integration_key": str(uuid4())})
    old_id = house.world.context.vault.current_key_id
    context = replace(house.world.context, vault=Vault(NEW_SECRET))
    async with House.open(replace(house.world, context=context), work=False) as other:
        answer = await other.call("GET", "/readyz")
        assert answer.status == 503
        (missing,) = answer.json["missing"]
        assert missing.startswith("keys:")
        assert old_id in missing
        outside = await other.get_public("/readyz")
        assert (outside.status, outside.json) == (503, {"status": "unready"})
        answer = await other.call("POST", house.path("/payments/create-link"), house.order())
        assert (answer.status, answer.json["code"]) == (503, "credentials_unreadable")
        assert old_id in answer.json["detail"]
        assert ENCRYPTION_SECRET not in answer.body.decode()
        await patch(replace(other, client_id=house.client_id), {"paynow_integration_key": "new"})
        house.world.rows_do("DELETE FROM payment_settings WHERE client_id <> %s", house.client_id)
        assert (await other.call("GET", "/readyz")).status == 503
        house.world.rows_do("DELETE FROM retired_settings")
        assert (await other.call("GET", "/readyz")).status == 200
    both = replace(house.world.context, vault=Vault(ENCRYPTION_SECRET, (NEW_SECRET,)))
    async with House.open(replace(house.world, context=both), work=False) as other:
        assert (await other.call("GET", "/readyz")).status == 200
