"""The wall between tenants, proved at the database itself: what the tenant role sees, writes and can never do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import event, text

from payments_service import accounts, migrations, payments, reconcile
from payments_service.db import TENANT_ROLE, WORKER_ROLE, Database
from payments_service.tables import APPEND_ONLY_TABLES, TENANT_TABLES
from tests.conftest import create_database, drop_database, in_database
from tests.house import House, World
from tests.scale import of
from tests.support import afresh, as_user, dump, gather_limited, open_house, plant, rows

SCOPE = "SELECT set_config('role', %s, true), set_config('conva.client_id', %s, true)"
# What the tenant role may do beside reading, by table; nothing else.
MAY = {
    "payment_settings": {"INSERT", "UPDATE"},
    "retired_settings": {"INSERT", "DELETE"},
    "payments": {"INSERT", "UPDATE"},
    "attempts": {"INSERT", "UPDATE"},
    "refunds": {"INSERT", "UPDATE"},
    "disputes": set(),
    "sweeps": set(),
    "transitions": {"INSERT"},
    "reviews": {"INSERT", "UPDATE"},
    "callbacks": set(),
    "events": {"INSERT", "UPDATE"},
    "event_tries": set(),
    "audit_logs": {"INSERT"},
    "idempotency_keys": {"INSERT", "UPDATE", "DELETE"},
    "link_rates": {"INSERT", "UPDATE"},
    "messages": {"INSERT"},
    "stopped_senders": {"DELETE"},
}


class Stage:
    """A database with a row of each of two tenants in every table."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection
        self.ours, self.theirs = uuid4(), uuid4()
        for client_id in (self.ours, self.theirs):
            plant(connection, client_id)

    @contextlib.contextmanager
    def scope(self, client_id: object) -> Iterator[psycopg.Connection[Any]]:
        """A transaction as the service makes one for a tenant; undone at its end."""
        with self.connection.transaction(force_rollback=True):
            self.connection.execute(SCOPE, [TENANT_ROLE, str(client_id)])
            yield self.connection

    @contextlib.contextmanager
    def refused(self, *kinds: type[psycopg.Error]) -> Iterator[None]:
        with pytest.raises(kinds or errors.InsufficientPrivilege), self.connection.transaction():
            yield

    def columns(self, table: str) -> list[str]:
        found = rows(
            self.connection,
            "SELECT column_name AS name FROM information_schema.columns "
            "WHERE table_schema = 'public' AND table_name = %s",
            table,
        )
        return [row["name"] for row in found]


@pytest.fixture(scope="module")
def stage(postgres: str) -> Iterator[Stage]:
    """One for all tests of this file: none of them leaves anything behind."""
    name = f"stage_{uuid4().hex}"
    create_database(postgres, name, "template_payments")
    url = in_database(postgres, name)
    with psycopg.connect(url, autocommit=True) as connection:
        stage = Stage(connection)
        before = dump(url)
        assert before.keys() == {*TENANT_TABLES, "alembic_version"}
        yield stage
        assert dump(url) == before
    drop_database(postgres, name)


# --- the wall is complete


def test_every_table_of_a_tenant_stands_behind_the_wall(stage: Stage) -> None:
    """Whatever has a client_id is in TENANT_TABLES, and has row-level security, forced, with both policies; no policy
    is there for anybody else."""
    with_tenant = rows(
        stage.connection,
        "SELECT table_name AS name FROM information_schema.columns "
        "WHERE table_schema = 'public' AND column_name = 'client_id' AND is_nullable = 'NO'",
    )
    others = rows(
        stage.connection,
        "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
    )
    assert {row["name"] for row in with_tenant} == {row["name"] for row in others} == set(TENANT_TABLES)
    walls = rows(
        stage.connection,
        "SELECT relname AS name FROM pg_class WHERE relrowsecurity AND relforcerowsecurity AND relkind = 'r'",
    )
    assert {row["name"] for row in walls} == set(TENANT_TABLES)
    policies = rows(stage.connection, "SELECT tablename, roles, cmd, permissive, qual, with_check FROM pg_policies")
    found = {(row["tablename"], *row["roles"]): row for row in policies}
    assert len(found) == len(policies) == 2 * len(TENANT_TABLES)
    for table in TENANT_TABLES:
        ours, all_of_them = found[table, TENANT_ROLE], found[table, WORKER_ROLE]
        assert ours["cmd"] == all_of_them["cmd"] == "ALL"
        assert ours["qual"] == ours["with_check"]
        assert re.match(r"\(client_id = .*current_setting\('conva.client_id'", ours["qual"])
        assert all_of_them["qual"] == all_of_them["with_check"] == "true"


def test_the_roles_own_nothing_and_can_do_nothing_else(stage: Stage) -> None:
    """Neither can log in, make anything, or act as another role; the tenant role's rights are exactly those listed."""
    attributes = "rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls"
    for role in (TENANT_ROLE, WORKER_ROLE):
        (row,) = rows(stage.connection, f"SELECT {attributes} FROM pg_roles WHERE rolname = %s", role)
        assert not any(row.values())
        owned = "SELECT relname FROM pg_class WHERE relowner = %(role)s::regrole UNION ALL "
        owned += "SELECT proname FROM pg_proc WHERE proowner = %(role)s::regrole UNION ALL "
        owned += "SELECT nspname FROM pg_namespace WHERE nspowner = %(role)s::regrole UNION ALL "
        owned += "SELECT datname FROM pg_database WHERE datdba = %(role)s::regrole"
        assert stage.connection.execute(owned, {"role": role}).fetchall() == []
        member = "SELECT FROM pg_auth_members WHERE member = %s::regrole"
        assert stage.connection.execute(member, [role]).fetchall() == []
    grants = rows(
        stage.connection,
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants WHERE grantee = %s",
        TENANT_ROLE,
    )
    given: dict[str, set[str]] = {table: set() for table in TENANT_TABLES}
    for row in grants:
        given[row["table_name"]].add(row["privilege_type"])
    assert given == {table: {"SELECT", *MAY[table]} for table in TENANT_TABLES}


# --- what a tenant sees and writes


@pytest.mark.parametrize("table", TENANT_TABLES)
def test_a_tenant_sees_and_changes_its_own_rows_only(stage: Stage, table: str) -> None:
    """Reading, updating, inserting and locking reach one tenant's rows, whatever the statement asks for."""
    with stage.scope(stage.ours) as connection:
        assert {row["client_id"] for row in rows(connection, f"SELECT client_id FROM {table}")} == {stage.ours}
        assert rows(connection, f"SELECT * FROM {table} WHERE client_id = %s", stage.theirs) == []
        if "UPDATE" in MAY[table]:
            assert connection.execute(f"UPDATE {table} SET client_id = client_id").rowcount == 1
            assert connection.execute(f"SELECT FROM {table} FOR UPDATE").rowcount == 1
            with stage.refused():
                connection.execute(f"UPDATE {table} SET client_id = %s", [stage.theirs])
        else:
            with stage.refused():
                connection.execute(f"UPDATE {table} SET client_id = client_id")
        if "DELETE" in MAY[table]:
            assert connection.execute(f"DELETE FROM {table}").rowcount == 1
        else:
            with stage.refused():
                connection.execute(f"DELETE FROM {table}")
    with stage.scope(stage.ours) as connection, stage.refused():
        columns = stage.columns(table)
        chosen = ", ".join("%(theirs)s" if column == "client_id" else column for column in columns)
        insert = f"INSERT INTO {table} ({', '.join(columns)}) OVERRIDING SYSTEM VALUE SELECT {chosen} FROM {table}"
        connection.execute(insert, {"theirs": stage.theirs})


def test_a_row_of_another_tenant_is_not_taken_over(stage: Stage) -> None:
    """An upsert that meets a foreign row is refused, and tells nothing of it."""
    with stage.scope(stage.ours) as connection, stage.refused():
        connection.execute(
            "INSERT INTO payment_settings (client_id, display_name) VALUES (%s, 'mine') "
            "ON CONFLICT (client_id) DO UPDATE SET display_name = 'mine'",
            [stage.theirs],
        )


@pytest.mark.parametrize("setting", ["", None, "00000000-0000-0000-0000-000000000000"])
def test_without_a_tenant_nothing_is_seen(stage: Stage, setting: str | None) -> None:
    """No setting, an empty one (which is what a former transaction leaves behind) or nobody's: no row at all."""
    with stage.connection.transaction(force_rollback=True):
        stage.connection.execute("SELECT set_config('role', %s, true)", [TENANT_ROLE])
        if setting is not None:
            stage.connection.execute("SELECT set_config('conva.client_id', %s, true)", [setting])
        for table in TENANT_TABLES:
            assert rows(stage.connection, f"SELECT * FROM {table}") == [], table
        with stage.refused():
            stage.connection.execute("INSERT INTO payment_settings (client_id) VALUES (%s)", [uuid4()])


def test_a_setting_that_is_no_id_is_an_error(stage: Stage) -> None:
    """A text that no tenant has ends the statement instead of widening it."""
    with stage.scope("' OR true --") as connection, stage.refused(errors.InvalidTextRepresentation):
        connection.execute("SELECT * FROM payments")


def test_nothing_is_left_when_the_transaction_is_over(stage: Stage) -> None:
    """Committed or rolled back: the connection has its own role again and no tenant."""
    before = stage.connection.execute("SELECT current_user").fetchone()
    for force in (False, True):
        with stage.connection.transaction(force_rollback=force):
            stage.connection.execute(SCOPE, [TENANT_ROLE, str(stage.ours)])
            assert stage.connection.execute("SELECT current_user").fetchone() == (TENANT_ROLE,)
        after = stage.connection.execute("SELECT current_user, current_setting('conva.client_id', true)").fetchone()
        assert after is not None
        assert (after[0],) == before
        assert not after[1]


def test_the_tenant_role_makes_and_removes_nothing(stage: Stage) -> None:
    """No table, schema, function or role is made, changed, emptied or dropped by it; nor is anything else read."""
    with stage.scope(stage.ours) as connection:
        for table in TENANT_TABLES:
            for sql in ("TRUNCATE {}", "DROP TABLE {}", "ALTER TABLE {} DISABLE ROW LEVEL SECURITY"):
                with stage.refused():
                    connection.execute(sql.format(table))
            with stage.refused():
                connection.execute(f"DROP POLICY tenant ON {table}")
            with stage.refused():
                connection.execute(f"CREATE POLICY mine ON {table} USING (true)")
        for sql in (
            "CREATE TABLE mine (x int)",
            "CREATE SCHEMA mine",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE ROLE mine",
            f"ALTER ROLE {TENANT_ROLE} BYPASSRLS",
            f"GRANT {WORKER_ROLE} TO {TENANT_ROLE}",
            "SELECT * FROM alembic_version",
            "SELECT rolpassword FROM pg_authid",
            "ALTER TABLE transitions DISABLE TRIGGER ALL",
            "COPY payments TO PROGRAM 'cat'",
            "SET session_replication_role = replica",
        ):
            with stage.refused():
                connection.execute(sql)
        # Row-level security cannot be switched off: one who tries gets an error instead of rows.
        connection.execute("SET LOCAL row_security = off")
        with stage.refused():
            connection.execute("SELECT * FROM payments")


# --- through the pool


@pytest.mark.damaged("statuses and rows are set by hand")
async def test_mixed_requests_of_twenty_tenants_see_no_foreign_row(database: str) -> None:
    """Both ways through the pool, with failures and hang-ups in between: whoever comes next sees its own rows only,
    and what serves all tenants is back in its own role."""
    clients = [uuid4() for _ in range(20)]
    with psycopg.connect(database) as connection:
        for client_id in clients:
            plant(connection, client_id)
        login = connection.execute("SELECT current_user").fetchone()
        assert login is not None
    db = Database(database, size=6)
    await db.open()
    done: Counter[str] = Counter()
    dice = random.Random()

    async def statement(client_id: UUID) -> None:
        sql = "SELECT client_id FROM payments UNION ALL SELECT client_id FROM audit_logs"
        assert await db.run(sql, {}, tenant=client_id) == [{"client_id": client_id}] * 2

    async def transaction(client_id: UUID) -> None:
        async with db.as_tenant(client_id) as connection:
            for table in ("payments", "audit_logs", "event_tries"):
                found = await connection.execute(text(f"SELECT client_id FROM {table}"))
                assert [row[0] for row in found] == [client_id]

    async def failing_statement(client_id: UUID) -> None:
        with contextlib.suppress(errors.DivisionByZero):
            await db.run("SELECT 1 / (count(*) - 1) FROM payments", {}, tenant=client_id)

    async def failing_transaction(client_id: UUID) -> None:
        with contextlib.suppress(ZeroDivisionError):
            async with db.as_tenant(client_id):
                raise ZeroDivisionError

    async def hang_up(client_id: UUID) -> None:
        task = asyncio.create_task(dice.choice((statement, transaction))(client_id))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def worker(_client_id: UUID) -> None:
        sql = "SELECT current_user::text AS who, current_setting('conva.client_id', true) AS tenant"
        (row,) = await db.run(sql, {})
        assert (row["who"], row["tenant"] or None) == (*login, None)

    async def worker_transaction(_client_id: UUID) -> None:
        async with db.as_worker() as connection:
            found = await connection.execute(text("SELECT count(DISTINCT client_id) FROM payments"))
            assert found.scalar() == len(clients)

    kinds = (statement, transaction, failing_statement, failing_transaction, hang_up, worker, worker_transaction)
    weights = (30, 20, 6, 6, 2, 20, 10)

    async def one(client_id: UUID) -> None:
        (kind,) = dice.choices(kinds, weights)
        await kind(client_id)
        done[kind.__name__] += 1

    try:
        await gather_limited((one(client_id) for client_id in clients * of(100, 25)), at_once=24)
    finally:
        await db.close()
    assert done.total() == of(2000, 500)
    assert done.keys() == {kind.__name__ for kind in kinds}


# --- an ordinary login role, as production should have one


@pytest.fixture
def ordinary(postgres: str) -> Iterator[str]:
    """The URL of a database that was migrated by its owner, who is no superuser and was given both roles before."""
    name = f"ordinary_{uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'ordinary' NOSUPERUSER NOCREATEROLE")
        connection.execute(f"GRANT {TENANT_ROLE}, {WORKER_ROLE} TO {name}")
        create_database(postgres, name)
        connection.execute(f"ALTER DATABASE {name} OWNER TO {name}")
        url = as_user(in_database(postgres, name), name, "ordinary")
        migrations.migrate(url)
        yield url
        drop_database(postgres, name)
        connection.execute(f"DROP ROLE {name}")


async def test_an_ordinary_login_role_serves_the_whole_story(ordinary: str, postgres: str) -> None:
    """Settings, link, callback, look-up, events, expiry, review and clean-up, with the owner behind the wall too."""
    async with open_house(postgres, database=ordinary) as house:
        world, context = house.world, house.world.context
        await house.save_paynow()
        await house.save_paynow()
        link, wrong, other = [await house.create_link(reference=f"INV-{number}") for number in range(3)]
        open_link = await house.create_link(gateway=None)
        await world.sandbox.pay(house.reference_of(link))
        await world.sandbox.pay(house.reference_of(wrong), "1.00")
        await world.sandbox.settled()
        assert {each.status for each in world.sandbox.deliveries} == {200}
        assert len(world.rows("SELECT FROM callbacks")) == 2
        world.clock.forward(seconds=10)
        await world.look_up("paynow")
        assert (await house.payment(link))["status"] == "paid"
        assert (await house.payment(wrong))["status"] == "review"
        cancelled = await house.call("POST", house.path(f"/payments/{other['id']}/cancel"))
        assert cancelled.json["status"] == "cancelled"
        world.clock.forward(days=8)
        await payments.expire_due(context)
        assert (await house.payment(open_link))["status"] == "expired"
        await accounts.save(context, house.client_id, {"paynow_integration_key": str(uuid4())}, actor="test")
        world.clock.forward(days=80)
        await accounts.forget_retired(context)
        assert world.rows("SELECT FROM retired_settings") == []
        await world.deliver()
        assert len(world.backend.received) == len(world.rows("SELECT FROM events")) == 8
        for path in ("/readyz", "/livez"):
            assert (await house.call("GET", path)).status == 200
        # The owner is refused what nobody may do.
        for table in APPEND_ONLY_TABLES:
            for sql in (f"UPDATE {table} SET client_id = client_id", f"DELETE FROM {table}", f"TRUNCATE {table}"):
                with pytest.raises(errors.RestrictViolation):
                    world.rows_do(sql)
        # And another tenant sees nothing of all this.
        stranger = afresh(house)
        assert (await stranger.call("GET", stranger.path(f"/payments/{link['id']}"))).status == 404
        assert not any((await stranger.call("GET", stranger.path("/payment-settings"))).json.values())


# --- the first wall: every statement names its tenant

_TOUCHES = re.compile(rf"\b(?:FROM|JOIN|INTO|UPDATE)\s+({'|'.join(TENANT_TABLES)})\b")
_NAMES = re.compile(r"client_id\s*=\s*%\(\w+\)s|INSERT INTO \w+ \([^)]*client_id")
# These reach a row by the id of a payment or an attempt that was found to be the tenant's a moment before, or was made
# by the request itself. The first four are the look-up at the gateway, which any worker does, and run as the worker.
BY_ID = (
    reconcile._CLAIM_OF_PAYMENT,
    payments._STANDING,
    payments.SET_ATTEMPT,
    f"{payments.SET_ATTEMPT} AND state = 'starting'",
)


async def test_the_internal_api_names_the_tenant_in_every_statement(world: World) -> None:
    """Not left to row-level security alone: each statement on a tenant's table has its client_id. What runs outside the
    tenant's scope is the look-up at the gateway, which any worker could do."""
    said: list[tuple[str, bool]] = []

    class Watched(Database):
        async def run(self, sql: str, values: Any, *, tenant: UUID | None = None) -> Any:
            said.append((sql, tenant is not None))
            return await super().run(sql, values, tenant=tenant)

    db = Watched(world.database)
    event.listen(
        db._engine.sync_engine,
        "before_cursor_execute",
        lambda _connection, _cursor, sql, *_rest: said.append((sql, True)),
    )
    await db.open()
    world.context = replace(world.context, db=db)
    try:
        async with House.open(world, work=False) as house:
            await drive(house)
    finally:
        await db.close()
    touching = [(" ".join(sql.split()), scoped) for sql, scoped in said if _TOUCHES.search(sql)]
    assert len({sql for sql, _ in touching}) > 10
    by_id = {" ".join(sql.split()) for sql in BY_ID}
    outside = {sql for sql, scoped in touching if not scoped}
    assert {sql for sql in outside if not _NAMES.search(sql)} == by_id
    # Beside those, only the credentials for that look-up.
    assert {match[1] for sql in outside - by_id for match in _TOUCHES.finditer(sql)} == {"payment_settings"}
    assert {sql for sql, scoped in touching if scoped and not _NAMES.search(sql)} == set()
    assert len({sql for sql, scoped in touching if scoped}) > 10


async def drive(house: House) -> None:
    """Every operation of the internal API on a tenant's rows, as they succeed and as they fail."""
    house.world.sandbox.add_fault("never")
    await house.save_paynow()
    assert (await house.call("PATCH", house.path("/payment-settings"), {"paynow_integration_key": "x"})).status == 200
    await house.save_paynow()
    for rest in ("/payment-settings", "/audit-logs", "/audit-logs/verify"):
        await house.call("GET", house.path(rest))
    link, other = await house.create_link(), await house.create_link(gateway=None)
    house.world.sandbox.add_fault("empty", on=["initiate"], times=1)
    await house.call("POST", house.path("/payments/create-link"), house.order())
    for payment_id in (link["id"], other["id"], uuid4()):
        for method, rest in (("GET", ""), ("GET", "/history"), ("POST", "/refresh"), ("POST", "/cancel")):
            await house.call(method, house.path(f"/payments/{payment_id}{rest}"))
        await house.call("GET", house.path(f"/payments/{payment_id}/refunds"))
        await house.call("POST", house.path(f"/payments/{payment_id}/refunds"), {"reason": "torn"})
