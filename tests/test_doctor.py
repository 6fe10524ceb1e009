"""`payments-service doctor`: each kind of damage is found by its own check, and nothing else is."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio

from payments_service import doctor, invariants
from payments_service.__main__ import main
from payments_service.app import parts
from payments_service.db import Database
from payments_service.errors import Unavailable
from payments_service.lifecycle import DisputeState, Outcome, Report
from payments_service.money import Currency, Money
from tests.conftest import create_database, drop_database, in_database
from tests.house import World, settings_for
from tests.support import open_house
from tests.test_command_line import command
from tests.till import Till, dispute, refund, settled

# One of each: a link, money of which a part was given back, money that is contested, money that does not fit.
PENDING, PARTLY, DISPUTED, REVIEW = (
    f"(SELECT id FROM payments WHERE status = '{status}')"
    for status in ("pending", "partially_refunded", "disputed", "review")
)
STRANGER = "'00000000-0000-4000-8000-000000000001'"
LONG_AGO = "now() - interval '3 hours'"

_MESSAGE = (
    "INSERT INTO messages (id, client_id, payment_id, recipient, state, next_try_at) "
    f"SELECT gen_random_uuid(), client_id, id, '+263771234567', {{}} FROM payments WHERE id = {PENDING}"
)

# Check -> what does the damage, with triggers and foreign keys off.
DAMAGE = {
    "history_gap": f"UPDATE payments SET sequence = sequence + 1 WHERE id = {REVIEW}",
    "status_without_step": f"UPDATE payments SET status = 'cancelled' WHERE id = {PENDING}",
    "step_not_allowed": f"UPDATE transitions SET from_status = 'expired' WHERE payment_id = {PARTLY} AND sequence = 2",
    "step_without_event": f"DELETE FROM events WHERE payment_id = {PARTLY} AND sequence = 2",
    "paid_at_wrong": f"UPDATE payments SET paid_at = NULL WHERE id = {PARTLY}",
    "paid_without_money": f"UPDATE attempts SET state = 'failed' WHERE payment_id = {DISPUTED}",
    "reference_of_no_attempt": f"UPDATE payments SET gateway_reference = 'pi_9' WHERE id = {PARTLY}",
    "reference_of_two_payments": "DROP INDEX uq_payments_gateway_reference; "
    f"UPDATE payments SET gateway = 'stripe', gateway_reference = 'pi_1' WHERE id = {PENDING}",
    "refunded_and_status": f"UPDATE payments SET refunded_cents = amount_cents WHERE id = {PARTLY}",
    "refunded_and_refunds": f"UPDATE refunds SET amount_cents = 300, updated_at = {LONG_AGO}",
    "review_and_status": "UPDATE reviews SET resolved_at = now()",
    "attempt_of_another_amount": f"UPDATE attempts SET amount_cents = 1251 WHERE payment_id = {PENDING}",
    "row_of_another_tenant": f"UPDATE transitions SET client_id = {STRANGER} WHERE payment_id = {PENDING}",
    "pending_after_its_end": f"UPDATE payments SET expires_at = {LONG_AGO} WHERE id = {PENDING}",
    "attempt_without_next_check": f"UPDATE attempts SET next_check_at = NULL WHERE payment_id = {PENDING}",
    "money_not_counted": f"UPDATE attempts SET state = 'paid' WHERE payment_id = {PENDING}",
    "reference_counted_twice": "INSERT INTO attempts (id, payment_id, client_id, gateway, method, reference, "
    "amount_cents, currency, state, gateway_reference) SELECT gen_random_uuid(), payment_id, client_id, gateway, "
    f"method, 'x', amount_cents, currency, 'paid', 'pi_1' FROM attempts WHERE payment_id = {DISPUTED}",
    "more_refunded_than_paid": "UPDATE refunds SET amount_cents = 1251, updated_at = now()",
    "check_overdue": f"UPDATE attempts SET next_check_at = {LONG_AGO} WHERE payment_id = {PENDING}",
    "event_state": f"UPDATE events SET state = 'delivered', next_try_at = NULL WHERE payment_id = {REVIEW}"
    " AND sequence = 2",
    "event_of_another_body": """UPDATE events SET body = replace(body, '"amount_cents":1250', '"amount_cents":12500')"""
    f" WHERE payment_id = {REVIEW} AND sequence = 2",
    "event_overdue": f"UPDATE events SET next_try_at = {LONG_AGO} WHERE payment_id = {REVIEW} AND sequence = 2",
    "refund_of_another_payment": f"UPDATE refunds SET payment_id = {DISPUTED}",
    "refund_without_next_check": f"UPDATE attempts SET next_check_at = NULL WHERE payment_id = {PARTLY}; "
    "INSERT INTO refunds (payment_id, client_id, attempt_id, gateway, amount_cents, state, updated_at) "
    f"SELECT payment_id, client_id, attempt_id, gateway, 1, 'pending', {LONG_AGO} FROM refunds",
    "dispute_of_another_payment": f"UPDATE disputes SET client_id = {STRANGER}",
    "dispute_not_shown": "INSERT INTO disputes (payment_id, client_id, attempt_id, gateway, gateway_reference, "
    "amount_cents, state, updated_at) SELECT payment_id, client_id, attempt_id, gateway, 'du_9', 1, 'open', "
    f"{LONG_AGO} FROM refunds",
    "message_without_event": _MESSAGE.format("'failed', NULL"),
    "message_overdue": _MESSAGE.format(f"'queued', {LONG_AGO}"),
    "database_outdated": "UPDATE alembic_version SET version_num = '0001'",
    "audit_chain_broken": "UPDATE audit_logs SET actor = 'somebody else' WHERE position = 1",
    "credential_unreadable": "UPDATE payment_settings SET paynow_integration_key_enc = stripe_secret_key_enc",
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def healthy(postgres: str) -> AsyncIterator[str]:
    """The name of a database in which all is whole, to be copied."""
    name = f"healthy_{uuid4().hex}"
    create_database(postgres, name, "template_payments")
    async with open_house(postgres, database=in_database(postgres, name)) as house:
        await house.save_paynow()
        await house.save_stripe(webhook=False)
        await house.create_link()
        partly, disputed, odd = (
            Till(house.world, house.client_id, f"INV-{number}", f"pi_{number}") for number in (1, 2, 3)
        )
        await partly.absorb(partly.paid(), settled(refund("re_1", 250)))
        await disputed.absorb(disputed.paid(), settled(disputes=[dispute(1250, DisputeState.OPEN)]))
        await odd.absorb(Report(Outcome.PAID, "Paid", Money(1251, Currency.USD), "INV-3", "pi_3"))
    yield name
    drop_database(postgres, name)


@pytest.fixture
def copy(postgres: str, healthy: str) -> Iterator[str]:
    """The URL of a copy of it."""
    name = f"copy_{uuid4().hex}"
    create_database(postgres, name, healthy)
    yield in_database(postgres, name)
    drop_database(postgres, name)


def damaged(url: str, sql: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(sql)


async def examined(url: str) -> doctor.Examination:
    settings = settings_for(events_url="http://127.0.0.1:1/")
    async with parts(settings, url) as built:
        return await doctor.examine(built.context, telling=True)


def test_each_check_has_its_damage() -> None:
    """None is left out, and no two have one name."""
    assert DAMAGE.keys() == doctor.Examination().found.keys()
    names = [check.name for check in invariants.CHECKS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", DAMAGE)
async def test_each_kind_of_damage_is_found_by_its_check_alone(copy: str, name: str) -> None:
    """With the ids of what is broken, and what to do."""
    damaged(copy, DAMAGE[name])
    result = await examined(copy)
    assert [each.name for each in result.found.values() if each.faults] == [name]
    found = result.found[name]
    assert found.ids
    assert len(found.ids) == found.faults
    text = "\n".join(doctor.lines(result))
    for words in (found.rule, found.advice, *found.ids, "There is damage"):
        assert words in text


async def test_what_is_whole_is_told_so(copy: str) -> None:
    """The command, as people and programs run it: 0 and `ok` for each check; nothing of the tenant's is shown."""
    outcome = command("doctor", DATABASE_URL=copy)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    *checks, last = outcome.stdout.splitlines()
    assert {tuple(line.split()[:2]) for line in checks} == {("ok", name) for name in DAMAGE}
    assert last == "All is whole."


async def test_damage_is_told_to_programs(copy: str) -> None:
    """1, and each check with its count; only ids are shown of the rows."""
    damaged(copy, DAMAGE["paid_at_wrong"])
    outcome = command("doctor", "--json", DATABASE_URL=copy)
    assert outcome.returncode == 1, outcome.stderr
    told = json.loads(outcome.stdout)
    assert told["whole"] is False
    assert {check["name"]: check["faults"] for check in told["checks"] if check["faults"]} == {"paid_at_wrong": 1}
    assert [set(check) for check in told["checks"]] == [{"name", "rule", "advice", "faults", "ids"}] * len(DAMAGE)


async def test_what_cannot_be_found_out_is_no_damage(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database that is away, settings that are wrong: 2, in plain words."""
    away = Database("postgresql://postgres@127.0.0.1:1/nothing", wait_seconds=0.3)
    await away.open()
    with pytest.raises(Unavailable):
        await doctor.examine(replace(world.context, db=away), telling=True)
    await away.close()
    monkeypatch.setenv("ENCRYPTION_SECRET", "short")
    assert main(["doctor"]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("payments-service: ")
    assert told.out == ""


async def test_large_tables_are_looked_at_in_small_steps(copy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row at a time finds the same, each once."""
    damaged(copy, "UPDATE payments SET paid_at = now()")
    whole = await examined(copy)
    monkeypatch.setattr(doctor, "BATCH", 1)
    in_steps = await examined(copy)
    assert in_steps.found == whole.found
    assert whole.found["paid_at_wrong"].faults == 2


async def test_the_newest_rows_are_looked_at_by_themselves(copy: str) -> None:
    """Those of the last hour, whatever their number, by the checks of payments, attempts and events."""
    damaged(copy, DAMAGE["money_not_counted"])
    async with parts(settings_for(), copy) as built:
        counts = await doctor.look_at_newest(built.context, telling=False)
    assert {name for name, count in counts.items() if count} == {"money_not_counted"}
    damaged(
        copy,
        "UPDATE attempts SET id = '00000000-0000-7000-8000-000000000000' WHERE state = 'paid' AND "
        f"payment_id = {PENDING}",
    )
    async with parts(settings_for(), copy) as built:
        counts = await doctor.look_at_newest(built.context, telling=False)
    assert not any(counts.values())
