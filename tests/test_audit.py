"""The audit log by API, and the verification of its chain: each kind of damage is found, as far as a chain can tell."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from psycopg.types.json import Jsonb

from payments_service import audit
from payments_service.audit import FIRST_HASH, chain_hash
from payments_service.tables import TENANT_DELETED
from tests.house import Answer, House
from tests.support import afresh, open_house

AT = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_house(postgres) as house:
        yield house


@pytest.fixture
def house(service: House) -> House:
    return afresh(service)


async def logs(house: House, **params: str) -> Answer:
    return await house.call("GET", house.path("/audit-logs"), params=params)


async def verified(house: House) -> dict[str, Any]:
    answer = await house.call("GET", house.path("/audit-logs/verify"))
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def written(house: House, count: int = 7) -> None:
    """So many rows in the tenant's chain."""
    for number in range(1, count + 1):
        async with house.world.context.db.as_tenant(house.client_id) as connection:
            said = {"detail": {"number": number, "words": "é"}, "at": AT + timedelta(minutes=number)}
            await audit.record(connection, house.client_id, actor="thandi", action="tried", **said)


def tamper(house: House, *statements: str) -> None:
    """Change rows as only a superuser can, past the triggers."""
    with house.world.behind.transaction():
        house.world.rows_do("SET LOCAL session_replication_role = replica")
        for sql in statements:
            house.world.rows_do(sql.format(client=house.client_id))


# --- the list


async def test_the_newest_row_comes_first(house: House) -> None:
    """Who did what and when, with its place in the chain."""
    await house.call(
        "PATCH", house.path("/payment-settings"), {"display_name": "Acme"}, headers={"X-Actor": "rudo@acme.example"}
    )
    await house.call("PATCH", house.path("/payment-settings"), {"display_name": None})
    answer = await logs(house)
    newest, oldest = answer.json["data"]
    assert answer.json["next_cursor"] is None
    assert (oldest["position"], oldest["actor"]) == (1, "rudo@acme.example")
    assert (newest["position"], newest["actor"]) == (2, "service:backend")
    assert newest["action"] == "payment_settings.saved"
    assert newest["detail"] == {"set": [], "cleared": ["display_name"]}
    assert newest["previous_hash"] == oldest["hash"]
    assert bytes.fromhex(oldest["previous_hash"]) == FIRST_HASH
    stored = house.world.one("SELECT * FROM audit_logs WHERE client_id = %s AND position = 2", house.client_id)
    assert (newest["hash"], datetime.fromisoformat(newest["at"])) == (stored["hash"].hex(), stored["at"])


async def test_pages_go_on_where_the_one_before_ended(house: House) -> None:
    """Nothing twice and nothing missing, also while rows are added."""
    await written(house, 5)
    seen, cursor = [], ""
    while cursor is not None:
        answer = (await logs(house, limit="2", **({"cursor": cursor} if cursor else {}))).json
        seen += [row["position"] for row in answer["data"]]
        cursor = answer["next_cursor"]
        await written(house, 1)
    assert seen == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "params", [{"limit": "0"}, {"limit": "201"}, {"cursor": "x"}, {"cursor": "-1"}, {"after": "1"}]
)
async def test_what_is_no_page_is_told(house: House, params: dict[str, str]) -> None:
    answer = await logs(house, **params)
    (name,) = params
    assert (answer.status, answer.json["errors"][0]["field"]) == (422, name)


async def test_a_tenant_sees_its_own_rows_only(house: House) -> None:
    await written(house, 2)
    stranger = afresh(house)
    assert (await logs(stranger)).json == {"data": [], "next_cursor": None}
    assert await verified(stranger) == {"whole": True, "rows": 0, "first_bad": None, "reason": None}


# --- the chain


async def test_a_chain_is_whole_across_batches(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_BATCH", 3)
    for count in (6, 7):  # an even number of batches, and one more
        await written(house, count)
    assert await verified(house) == {"whole": True, "rows": 13, "first_bad": None, "reason": None}


ROW = "WHERE client_id = '{client}' AND position = "
DAMAGE: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "another detail": (4, "contents", ("UPDATE audit_logs SET detail = '{{}}' " + ROW + "4",)),
    "another actor": (4, "contents", ("UPDATE audit_logs SET actor = 'rudo' " + ROW + "4",)),
    "another action": (4, "contents", ("UPDATE audit_logs SET action = 'x' " + ROW + "4",)),
    "another moment": (4, "contents", ("UPDATE audit_logs SET at = at + interval '1 microsecond' " + ROW + "4",)),
    "another hash": (4, "contents", ("UPDATE audit_logs SET hash = sha256('x') " + ROW + "4",)),
    "another hash before": (4, "hash of the row before", ("UPDATE audit_logs SET previous_hash = 'x' " + ROW + "4",)),
    "a row in the middle gone": (5, "missing", ("DELETE FROM audit_logs " + ROW + "4",)),
    "the first row gone": (2, "missing", ("DELETE FROM audit_logs " + ROW + "1",)),
    "another first hash": (1, "first row", ("UPDATE audit_logs SET previous_hash = 'x' " + ROW + "1",)),
    "two rows swapped": (
        3,
        "swapped",
        (
            "UPDATE audit_logs SET position = 99 " + ROW + "3",
            "UPDATE audit_logs SET position = 3 " + ROW + "4",
            "UPDATE audit_logs SET position = 4 " + ROW + "99",
        ),
    ),
    "a row before the first": (
        0,
        "missing",
        (
            "INSERT INTO audit_logs (client_id, position, actor, action, detail, previous_hash, hash) "
            "VALUES ('{client}', 0, 'a', 'b', '{{}}', 'p', 'h')",
        ),
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
async def test_damage_is_found_where_it_is(house: House, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first position at which the chain breaks, how many rows were good before it, and why, in words."""
    monkeypatch.setattr(audit, "_BATCH", 3)
    await written(house)
    position, reason, statements = DAMAGE[what]
    tamper(house, *statements)
    verdict = await verified(house)
    assert (verdict["whole"], verdict["first_bad"]) == (False, position)
    assert reason in verdict["reason"]
    good = house.world.one(
        "SELECT count(*) AS it FROM audit_logs WHERE client_id = %s AND position < %s", house.client_id, position
    )
    assert verdict["rows"] == good["it"]


async def test_a_row_of_another_tenant_does_not_fit(house: House) -> None:
    """The tenant is part of what the hash is made of."""
    await written(house, 3)
    stranger = afresh(house)
    tamper(house, f"UPDATE audit_logs SET client_id = '{stranger.client_id}' " + ROW + "1")
    assert "contents" in (await verified(stranger))["reason"]


async def test_removed_last_rows_are_seen_by_the_newest_hash_alone(house: House) -> None:
    """A chain cannot tell: whoever kept the newest hash elsewhere can."""
    await written(house, 5)
    kept = (await logs(house, limit="1")).json["data"][0]["hash"]
    tamper(house, "DELETE FROM audit_logs " + ROW + "5")
    assert (await verified(house))["whole"]
    assert (await logs(house, limit="1")).json["data"][0]["hash"] != kept


async def test_a_chain_may_begin_with_a_deletion(house: House) -> None:
    """As that leaves it; the same row with other contents is no beginning."""
    row = {
        "client_id": house.client_id,
        "position": 12,
        "actor": "thandi",
        "action": TENANT_DELETED,
        "detail": {},
        "at": AT,
    }
    previous = uuid4().bytes * 2
    house.world.rows_do(
        "INSERT INTO audit_logs (client_id, position, actor, action, detail, at, previous_hash, hash) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        *(Jsonb(value) if name == "detail" else value for name, value in row.items()),
        previous,
        chain_hash(previous, row),
    )
    await written(house, 2)
    assert await verified(house) == {"whole": True, "rows": 3, "first_bad": None, "reason": None}
    tamper(house, "UPDATE audit_logs SET actor = 'rudo' " + ROW + "12")
    assert (await verified(house))["first_bad"] == 12


async def test_a_deletion_in_the_middle_of_a_verification_is_no_damage(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was gone through is there no more: the chain is gone through anew."""
    monkeypatch.setattr(audit, "_BATCH", 2)
    await house.save_paynow()
    await written(house, 4)
    db = house.world.context.db
    went = False

    class Meanwhile:
        async def run(self, *args: Any, **more: Any) -> Any:
            nonlocal went
            rows = await db.run(*args, **more)
            if len(rows) == 2 and not went:
                went = True
                assert (await house.call("DELETE", house.path())).status == 204
            return rows

    verdict = await audit.verify_chain(Meanwhile(), house.client_id)  # type: ignore[arg-type]
    assert went
    assert (verdict.whole, verdict.rows) == (True, 1)
