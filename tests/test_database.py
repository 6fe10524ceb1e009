"""The migrations, the invariants that the database itself holds, and the rows of the system that came before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from psycopg import errors
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from payments_service import accounts, embedded, migrations, payments, tables
from payments_service.db import TENANT_ROLE, WORKER_ROLE, Database
from payments_service.errors import PaymentsError, Unavailable
from payments_service.tables import APPEND_ONLY_TABLES, metadata
from tests.conftest import in_database
from tests.house import ENCRYPTION_SECRET, TOKEN, House, World, eventually
from tests.support import as_user, encrypt_as_before, plant, rows

ROOT = Path(__file__).parent.parent

# The tables of the system that came before, word for word; those that they refer to, as far as that needs them.
SEED = """
CREATE SCHEMA old; SET search_path TO old;
CREATE TABLE clients (id UUID PRIMARY KEY);
CREATE TABLE contacts (id UUID PRIMARY KEY);
CREATE TABLE invoices (id UUID PRIMARY KEY);
CREATE TABLE payment_settings (
id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
client_id UUID NOT NULL REFERENCES clients(id) ON DELETE CASCADE UNIQUE,
paynow_integration_id TEXT,
paynow_integration_key_enc TEXT, -- AES-256-GCM encrypted
stripe_publishable_key TEXT,
stripe_secret_key_enc TEXT, -- AES-256-GCM encrypted
ecocash_merchant_code TEXT,
ecocash_api_key_enc TEXT, -- AES-256-GCM encrypted
updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE TABLE payments (
id UUID PRIMARY KEY DEFAULT gen_random_uuid(),
client_id UUID NOT NULL REFERENCES clients(id) ON DELETE CASCADE,
gateway TEXT NOT NULL, -- paynow | stripe | ecocash
reference TEXT NOT NULL,
gateway_reference TEXT,
amount_cents INTEGER NOT NULL,
currency TEXT NOT NULL DEFAULT 'USD',
status TEXT NOT NULL DEFAULT 'pending', -- pending | paid | failed | refunded
contact_id UUID REFERENCES contacts(id),
invoice_id UUID REFERENCES invoices(id),
created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
"""

CATALOG = {
    "columns": """
        SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity, identity_generation
        FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname::text, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "walls": """
        SELECT tablename, policyname, roles, cmd, qual, with_check FROM pg_policies
        WHERE schemaname = 'public' ORDER BY 1, 2""",
    "triggers": """
        SELECT tgrelid::regclass::text, tgname::text, pg_get_triggerdef(oid) FROM pg_trigger
        WHERE NOT tgisinternal ORDER BY 1, 2""",
    "functions": "SELECT proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
}
INSERT_PAYMENT = "INSERT INTO payments (client_id, reference, amount_cents) VALUES (%s, 'R', 1)"
OF_TABLES = ("columns", "constraints", "indexes")


def catalog(url: str, *kinds: str) -> dict[str, list[tuple[Any, ...]]]:
    """What stands in the database, as PostgreSQL itself tells it; alembic's own table left out."""
    with psycopg.connect(url) as connection:
        return {
            kind: [row for row in connection.execute(CATALOG[kind]) if row[0] != "alembic_version"]
            for kind in kinds or CATALOG
        }


def through_sqlalchemy(url: str) -> Iterator[Connection]:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=NullPool)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def step(url: str, move: Callable[[Config, str], None], revision: str) -> None:
    """Up or down to this revision."""
    chosen = Config()
    chosen.set_main_option("script_location", str(ROOT / "alembic"))
    for connection in through_sqlalchemy(url):
        chosen.attributes["connection"] = connection
        move(chosen, revision)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def planted(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    return plant(connection, uuid4())


# --- migrations


def test_the_migrations_make_the_tables_of_the_code(database: str, empty_database: str) -> None:
    """Alembic finds no difference, and neither does PostgreSQL's own catalog, which also knows the CHECKs."""
    for connection in through_sqlalchemy(database):
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
    for connection in through_sqlalchemy(empty_database):
        metadata.create_all(connection)
        connection.commit()
    migrated, made = catalog(database, *OF_TABLES), catalog(empty_database, *OF_TABLES)
    for kind in OF_TABLES:
        assert migrated[kind] == made[kind]


def test_up_down_and_up_again_ends_where_it_was(empty_database: str) -> None:
    """A downgrade leaves nothing behind, and the way up is open again."""
    assert migrations.migrate(empty_database)[0] is None
    first = catalog(empty_database)
    step(empty_database, command.downgrade, "base")
    assert not any(catalog(empty_database).values())
    assert migrations.migrate(empty_database)[0] is None
    assert catalog(empty_database) == first
    before, after = migrations.migrate(empty_database)
    assert before == after


EIGHT = """
import os, sys
from payments_service import migrations
def migrate(url):
    try:
        migrations.migrate(url)
        os._exit(0)
    except BaseException as error:
        print(repr(error), flush=True)
        os._exit(1)
children = []
for url in sys.argv[1:] * (8 // len(sys.argv[1:])):
    child = os.fork()
    if not child:
        migrate(url)
    children.append(child)
sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def eight_at_once(*urls: str) -> subprocess.Popen[str]:
    """Eight processes that all migrate at the same moment; exit code 0 when all succeeded."""
    arguments = [sys.executable, "-c", EIGHT, *urls]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_eight_replicas_may_migrate_one_database_at_once(empty_database: str, database: str) -> None:
    """One does the work, the others find it done; the outcome is the same as of one alone."""
    processes = eight_at_once(empty_database)
    told, _ = processes.communicate(timeout=60)
    assert processes.returncode == 0, told
    assert catalog(empty_database) == catalog(database)


async def test_databases_of_a_new_cluster_may_be_migrated_at_once_by_an_ordinary_login(tmp_path: Path) -> None:
    """Roles belong to the cluster: four first migrations meet while they are being made elsewhere. The login role may
    make roles and owns its databases, and is no superuser; afterwards it sees all rows, although the wall is forced on
    the owner too."""
    with embedded.start(tmp_path / "cluster", durable=False) as server:
        names = [f"tenant_service_{number}" for number in range(4)]
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("CREATE ROLE ordinary LOGIN CREATEROLE PASSWORD 'ordinary'")
            for name in names:
                connection.execute(f"CREATE DATABASE {name} OWNER ordinary")
        urls = [as_user(in_database(server.url, name), "ordinary", "ordinary") for name in names]
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%CREATE ROLE%%'"
        with psycopg.connect(urls[0]) as first, psycopg.connect(server.url, autocommit=True) as watcher:
            for role in (TENANT_ROLE, WORKER_ROLE):
                first.execute(f"CREATE ROLE {role} NOLOGIN NOINHERIT")
            processes = eight_at_once(*urls)
            await eventually(lambda: len(rows(watcher, waiting)) == len(urls))
        told, _ = processes.communicate(timeout=60)
        assert processes.returncode == 0, told
        for url in urls:
            with psycopg.connect(url) as connection:
                connection.execute(INSERT_PAYMENT, [uuid4()])
                assert rows(connection, "SELECT status FROM payments") == [{"status": "pending"}]


def test_the_alembic_command_works_from_the_checkout(empty_database: str, database: str) -> None:
    """With the service's settings in the environment, `alembic upgrade head` migrates and `alembic check` finds nothing
    to do."""
    settings = {"ENCRYPTION_SECRET": ENCRYPTION_SECRET, "SERVICE_TOKENS": f"backend:{TOKEN}"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "DATABASE_URL": url, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for url, arguments in ((empty_database, ["upgrade", "head"]), (database, ["check"]))
    ]
    for process in started:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 0, told
    assert catalog(empty_database) == catalog(database)


def test_a_database_of_a_newer_version_is_told_in_plain_words(empty_database: str) -> None:
    """An older version that is started beside a newer one changes nothing and says why it cannot migrate."""
    with psycopg.connect(empty_database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    with pytest.raises(PaymentsError, match="9999"):
        migrations.migrate(empty_database)
    assert catalog(empty_database)["columns"] == []


# --- what PostgreSQL itself refuses

ATTEMPT = (
    "INSERT INTO attempts (id, payment_id, client_id, gateway, method, reference, amount_cents, currency, state, "
    "next_check_at) VALUES (gen_random_uuid(), {payment}, %(client)s, {gateway}, 'web', {reference}, {cents}, "
    "{currency}, {state}, {next})"
)


def attempt(**changes: str) -> str:
    values = {
        "payment": "%(payment)s", "gateway": "'paynow'", "reference": "'R-2'", "cents": "1", "currency": "'USD'",
        "state": "'failed'", "next": "now()",
    }  # fmt: skip
    return ATTEMPT.format(**{**values, **changes})


REFUSED: dict[str, tuple[str, str]] = {
    "an unknown status": ("payments_status", "UPDATE payments SET status = 'Paid'"),
    "no status": ("", "UPDATE payments SET status = NULL"),
    "another currency": ("payments_currency", "UPDATE payments SET currency = 'ZWG'"),
    "an unknown gateway": ("payments_gateway", "UPDATE payments SET gateway = 'paypal'"),
    "nothing to pay": ("payments_amount", "UPDATE payments SET amount_cents = 0"),
    "less than nothing": ("payments_amount", "UPDATE payments SET amount_cents = -1"),
    "more back than paid": ("payments_refunded", "UPDATE payments SET refunded_cents = amount_cents + 1"),
    "less than nothing back": ("payments_refunded", "UPDATE payments SET refunded_cents = -1"),
    "counting backwards": ("payments_sequence", "UPDATE payments SET sequence = -1"),
    "a guessable page": ("payments_page_token", "UPDATE payments SET page_token = 'short'"),
    "no tenant": ("", "UPDATE payments SET client_id = NULL"),
    "a payment of nobody's": ("fk_attempts_payment_id_payments", attempt(payment="gen_random_uuid()")),
    "an attempt at an unknown gateway": ("attempts_gateway", attempt(gateway="'paypal'")),
    "an attempt in another currency": ("attempts_currency", attempt(currency="'EUR'")),
    "an attempt in an unknown state": ("attempts_state", attempt(state="'open'")),
    "an attempt for nothing": ("attempts_amount", attempt(cents="0")),
    "a start that nobody looks after": (
        "attempts_starting_is_watched",
        attempt(state="'starting'", next="NULL", payment="%(payment)s"),
    ),
    "a second live attempt": ("uq_attempts_one_live", attempt(state="'live'")),
    "a live attempt beside a starting one": ("uq_attempts_one_live", attempt(state="'starting'")),
    "an attempt's reference twice": ("uq_attempts_client_id_gateway_reference", attempt(reference="'R-1'")),
    "a step twice": (
        "uq_transitions_payment_id_sequence",
        "INSERT INTO transitions (payment_id, client_id, sequence, to_status, cause) "
        "VALUES (%(payment)s, %(client)s, 1, 'paid', 'gateway')",
    ),
    "an event twice": (
        "uq_events_step",
        "INSERT INTO events (id, client_id, payment_id, type, sequence, body, next_try_at) "
        "VALUES (gen_random_uuid(), %(client)s, %(payment)s, 't', 1, '', now())",
    ),
    "an event that is due some day": ("events_due_has_a_next_try", "UPDATE events SET next_try_at = NULL"),
    "an event that is tried after its end": ("events_due_has_a_next_try", "UPDATE events SET state = 'failed'"),
    "an event in an unknown state": ("events_state", "UPDATE events SET state = 'sent', next_try_at = NULL"),
    "a review for no known reason": ("reviews_reason", "UPDATE reviews SET reason = 'odd'"),
    "a review twice": (
        "uq_reviews_payment_id_attempt_id_reason",
        "INSERT INTO reviews (payment_id, client_id, attempt_id, reason, evidence) "
        "VALUES (%(payment)s, %(client)s, %(attempt)s, 'amount_mismatch', '{}')",
    ),
    "a callback twice": (
        "uq_callbacks_client_id_gateway_digest",
        "INSERT INTO callbacks (client_id, gateway, digest, said, fields) "
        "VALUES (%(client)s, 'paynow', 'd', 'Paid', '{}')",
    ),
    "a position in the audit log twice": (
        "uq_audit_logs_client_id_position",
        "INSERT INTO audit_logs (client_id, position, actor, action, detail, previous_hash, hash) "
        "VALUES (%(client)s, 1, 'a', 'b', '{}', 'p', 'h')",
    ),
    "a tenant's settings twice": (
        "uq_payment_settings_client_id",
        "INSERT INTO payment_settings (client_id) VALUES (%(client)s)",
    ),
    "a page for two payments": (
        "uq_payments_page_token",
        "INSERT INTO payments (client_id, reference, amount_cents, page_token) "
        "SELECT client_id, reference, amount_cents, page_token FROM payments",
    ),
}


@pytest.mark.damaged("statuses and rows are set by hand")
def test_the_database_refuses_what_must_not_be(connection: psycopg.Connection[Any], planted: dict[str, Any]) -> None:
    """Whatever a faulty program tries, these never come to stand in the tables."""
    wrong = {}
    for what, (constraint, sql) in REFUSED.items():
        try:
            connection.execute(sql, planted)
            wrong[what] = "was accepted"
        except errors.IntegrityError as error:
            if constraint not in (error.diag.constraint_name or ""):
                wrong[what] = f"refused by {error.diag.constraint_name}"
    assert wrong == {}


@pytest.mark.damaged("statuses and rows are set by hand")
def test_a_gateway_reference_belongs_to_one_payment_of_the_tenant(
    connection: psycopg.Connection[Any], planted: dict[str, Any]
) -> None:
    """Of one tenant and gateway: another tenant's or gateway's may be the same, and none or '' any number."""
    columns = "(client_id, gateway, gateway_reference, reference, amount_cents)"
    insert = f"INSERT INTO payments {columns} VALUES (%s, %s, %s, 'R', 1)"
    known: list[tuple[object, ...]] = [(planted["client"], "paynow", "17"), (planted["client"], "stripe", "17")]
    known += [(uuid4(), "paynow", "17"), *[(planted["client"], "paynow", each) for each in ("", "", None, None)]]
    for values in known:
        connection.execute(insert, values)
    with pytest.raises(errors.UniqueViolation, match="uq_payments_gateway_reference"):
        connection.execute(insert, known[0])


@pytest.mark.parametrize("table", APPEND_ONLY_TABLES)
@pytest.mark.damaged("statuses and rows are set by hand")
def test_what_was_written_stays(connection: psycopg.Connection[Any], planted: dict[str, Any], table: str) -> None:
    """UPDATE, DELETE and TRUNCATE are refused, also to the owner and the superuser, by whatever way."""
    attempts = (
        f"UPDATE {table} SET client_id = client_id",
        f"DELETE FROM {table}",
        f"TRUNCATE {table}",
        f"TRUNCATE {table} CASCADE",
        f"INSERT INTO {table} SELECT * FROM {table} ON CONFLICT (id) DO UPDATE SET client_id = excluded.client_id",
        *(["TRUNCATE payments CASCADE", "TRUNCATE attempts CASCADE"] if table == "transitions" else []),
    )
    before = rows(connection, f"SELECT * FROM {table}")
    assert before
    for sql in attempts:
        sql = sql.replace(f"{table} SELECT", f"{table} OVERRIDING SYSTEM VALUE SELECT")
        with pytest.raises(errors.RestrictViolation, match="only added"):
            connection.execute(sql)
    assert rows(connection, f"SELECT * FROM {table}") == before


def test_every_constraint_has_the_name_that_the_convention_gives_it(connection: psycopg.Connection[Any]) -> None:
    """A migration can name what it drops; and none is left to PostgreSQL's own naming."""
    found = rows(
        connection,
        """
        SELECT conrelid::regclass::text AS on, conname::text AS name, contype::text AS kind FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
        UNION ALL SELECT tablename, indexname, 'i' FROM pg_indexes WHERE schemaname = 'public'""",
    )
    prefixes = {"p": "pk", "u": "uq", "c": "ck", "f": "fk", "i": "(ix|uq|pk)"}
    odd = [
        row
        for row in found
        if row["on"] != "alembic_version" and not re.match(rf"{prefixes[row['kind']]}_{row['on']}(_|$)", row["name"])
    ]
    assert len(found) > 40
    assert odd == []
    assert all(constraint.name for table in metadata.tables.values() for constraint in table.constraints)


def test_ids_do_not_run_out_and_times_have_a_zone(connection: psycopg.Connection[Any]) -> None:
    """Every key is a bigint or a uuid, every amount a bigint, every moment a timestamptz."""
    found = rows(
        connection,
        "SELECT table_name AS t, column_name AS c, data_type AS kind FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
    )
    kinds = {(row["t"], row["c"]): row["kind"] for row in found}
    for (table, column), kind in kinds.items():
        if column == "id" or column.endswith("_id"):
            outside = ("paynow_integration_id", "paynow_zig_integration_id", "whatsapp_phone_number_id")
            assert kind in ("uuid", "bigint") or column in outside, (table, column)
        if column.endswith("_cents") or column == "position":
            assert kind == "bigint", (table, column)
        assert not kind.startswith("timestamp without"), (table, column)


# --- the session


async def test_no_statement_and_no_lock_is_waited_for_without_end(database: str) -> None:
    """Every connection has its limits, by both ways through the pool; what takes too long fails as unavailable."""
    db = Database(database, size=1)
    await db.open()
    try:
        limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        shown = ", ".join(f"current_setting('{name}') AS {name}" for name in limits)
        (row,) = await db.run(f"SELECT {shown}, current_setting('TimeZone') AS zone", {})
        assert set(row) == {*limits, "zone"}
        assert "0" not in row.values()
        assert row["zone"] == "UTC"
        async with db.as_worker() as connection:
            found = await connection.exec_driver_sql(f"SELECT {shown}")
            assert "0" not in found.one()
        await db.run("SET statement_timeout = 20", {})
        with pytest.raises(Unavailable):
            await db.run("SELECT pg_sleep(9)", {})
        assert await db.run("SELECT 1 AS one", {}) == [{"one": 1}]
    finally:
        await db.close()


async def test_a_server_that_became_a_standby_is_unavailable(database: str) -> None:
    """After a fail-over the former primary refuses to write: that is no fault of ours, and nothing was changed."""
    db = Database(database, size=1)
    await db.open()
    try:
        await db.run("SET default_transaction_read_only = on", {})
        with pytest.raises(Unavailable):
            await db.run("INSERT INTO payment_settings (client_id) VALUES (gen_random_uuid())", {})
        for scope in (db.as_worker(), db.as_tenant(uuid4())):
            with pytest.raises(Unavailable):
                async with scope as connection:
                    await connection.exec_driver_sql("UPDATE payments SET late = false")
    finally:
        await db.close()


# --- the rows of the system that came before


@pytest.fixture
def old(database: str) -> UUID:
    """The old tables with rows, and those copied in as they are, by the old tables' own columns; the tenant."""
    client, contact, invoice = uuid4(), uuid4(), uuid4()
    key = encrypt_as_before("3e9fed89-60e1-4ce5-ab6e-6b1eb2d4f977", ENCRYPTION_SECRET)
    lines: list[tuple[str, str | None, int, str, str]] = [
        ("paynow", "", 1250, "USD", "pending"),
        ("paynow", "", 1250, "USD", "paid"),
        ("paynow", "", 1, "ZIG", "failed"),
        ("paynow", None, 2_147_483_647, "USD", "pending"),
        ("paynow", "1,082", 500, "USD", "refunded"),
        ("stripe", "cs_test_1", 500, "USD", "paid"),
        ("ecocash", "", 500, "ZIG", "pending"),
    ]
    with psycopg.connect(database) as connection:
        connection.execute(SEED)
        for table, value in (("clients", client), ("contacts", contact), ("invoices", invoice)):
            connection.execute(f"INSERT INTO {table} VALUES (%s)", [value])
        connection.execute(
            "INSERT INTO payment_settings (client_id, paynow_integration_id, paynow_integration_key_enc, "
            "stripe_publishable_key, stripe_secret_key_enc) VALUES (%s, '1201', %s, 'pk_test_1', %s)",
            [client, key, encrypt_as_before("sk_test_1", ENCRYPTION_SECRET)],
        )
        for number, (gateway, reference, cents, currency, status) in enumerate(lines):
            connection.execute(
                "INSERT INTO payments (client_id, gateway, reference, gateway_reference, amount_cents, currency, "
                "status, contact_id, invoice_id, created_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, "
                "now() - interval '400 days')",
                [client, gateway, f"{client}-INV-{number}", reference, cents, currency, status, contact, invoice],
            )
        for table in ("payment_settings", "payments"):
            names = rows(
                connection,
                "SELECT column_name AS name FROM information_schema.columns "
                "WHERE table_schema = 'old' AND table_name = %s ORDER BY ordinal_position",
                table,
            )
            columns = ", ".join(row["name"] for row in names)
            connection.execute(f"INSERT INTO public.{table} ({columns}) SELECT {columns} FROM old.{table}")
    return client


async def test_old_rows_are_read_and_go_on_living(old: UUID, world: World) -> None:
    """Copied in as they are, they are shown over HTTP with all that the contract names; the old credentials still
    make a link, and what was pending expires like any other, is told of once and counts from one."""
    async with House.open(world, work=False) as house:
        found = world.rows("SELECT * FROM old.payments ORDER BY reference")
        tokens = set()
        for row in found:
            shown = await house.payment(row)
            for name in ("gateway", "reference", "gateway_reference", "amount_cents", "currency", "status"):
                assert shown[name] == row[name], name
            for name in ("contact_id", "invoice_id"):
                assert shown[name] == str(row[name])
            assert (shown["late"], shown["refunded_cents"], shown["sequence"]) == (False, 0, 0)
            assert shown["payment_url"] == shown["page_url"]
            tokens.add(shown["page_url"])
            assert (await house.get_public(shown["page_url"].removeprefix(house.public))).status == 200
            history = await house.call("GET", f"/v1/clients/{old}/payments/{row['id']}/history")
            assert history.json == {"data": [], "next_cursor": None}
        assert len(tokens) == len(found)
        settings = (await house.call("GET", house.path("/payment-settings", old))).json
        assert (settings["paynow_configured"], settings["stripe_configured"]) == (True, True)
        assert settings["ecocash_configured"] is False
        assert (await house.create_link(old))["status"] == "pending"
        assert await payments.expire_due(world.context) == 0
        world.clock.forward(days=7, hours=1)
        for _ in range(3):
            await payments.expire_due(world.context)
        pending = {row["id"] for row in found if row["status"] == "pending"}
        assert len(pending) == 3
        for row in found:
            expected = "expired" if row["id"] in pending else row["status"]
            assert (await house.payment(row))["status"] == expected
            told = world.rows("SELECT type, sequence FROM events WHERE payment_id = %s", row["id"])
            assert told == ([{"type": "payment.expired", "sequence": 1}] if row["id"] in pending else [])


async def test_an_old_payment_that_failed_is_not_made_pending_by_a_visit(old: UUID, world: World) -> None:
    """Its page may start another try; what the backend knows as failed stays so until money comes."""
    async with House.open(world, work=False) as house:
        row = world.one("SELECT * FROM payments WHERE status = 'failed'")
        world.rows_do("UPDATE payments SET currency = 'USD' WHERE id = %s", row["id"])
        answer = await house.get_public(f"/pay/{row['page_token']}", method="POST")
        assert answer.status == 303
        assert (await house.payment(row))["status"] == "failed"
        assert world.rows("SELECT FROM transitions WHERE from_status = 'failed' AND to_status = 'pending'") == []


def test_only_what_the_old_tables_had_is_needed() -> None:
    """Every column that is new may be null or has a default of its own."""
    for name, text in re.findall(r"CREATE TABLE (payment\w+) \((.*?)\n\);", SEED, re.DOTALL):
        seeds = {line.split()[0] for line in text.strip().splitlines()}
        table = metadata.tables[name]
        assert seeds <= set(table.columns.keys())
        for column in table.columns:
            assert column.name in seeds or column.nullable or column.server_default is not None, column
    assert accounts.COLUMNS.keys() >= {"paynow_integration_key", "stripe_secret_key", "ecocash_api_key"}
    assert tables.payments.c.client_id.foreign_keys == set()
