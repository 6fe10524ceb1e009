"""`doctor`: whether the books are whole, the credentials open and the audit chains unbroken.

It only reads, takes no locks, and goes through the tables in small statements by primary key, so that it may run beside
a busy service: no long transaction holds vacuum up, and little is in memory at once. It costs about a third of a
millisecond a payment on two slow cores, of one connection: most of an hour for ten million.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from payments_service.accounts import COLUMNS, SECRETS
from payments_service.audit import break_at
from payments_service.context import Context
from payments_service.db import Row
from payments_service.ids import first_id
from payments_service.invariants import CHECKS, TABLES, batch
from payments_service.migrations import outdated
from payments_service.vault import CannotOpen

BATCH = 2000
# So many ids are shown of what breaks a rule.
SHOWN = 10
# Between a refund's own row and what it makes of its payment there are two statements, or a crash and another look.
HALF_RECORDED = timedelta(minutes=2)
# What the worker looks at, again and again: whatever is wrong with the code shows there first.
LATELY = timedelta(hours=1)
RECENT_ROWS = 20_000

_STATEMENTS = {table: batch(table) for table in TABLES}
# Of these the newest have the highest ids (`ids.new_id`).
_IN_ORDER = ("payments", "attempts", "events", "messages")
_BIGINT = ("disputes",)
_UUIDS = (UUID(int=0), UUID(int=2**128 - 1))
_NUMBERS = (0, 2**63 - 1)
_SEALED = sorted(COLUMNS[secret] for secret in SECRETS)


class Finding(msgspec.Struct):
    """What became of one check: how many rows break the rule, and the ids of the first of them. None: not looked."""

    name: str
    rule: str
    advice: str
    faults: int | None = None
    ids: list[str] = msgspec.field(default_factory=list)

    def add(self, row_id: object) -> None:
        self.faults = (self.faults or 0) + 1
        if len(self.ids) < SHOWN:
            self.ids.append(str(row_id))


def _beside() -> list[Finding]:
    """What is no rule for one row."""
    return [
        Finding(
            "database_outdated",
            "The database has the tables that this version needs.",
            "Run `payments-service migrate` with this version; nothing else was looked at.",
        ),
        Finding(
            "audit_chain_broken",
            "Each row of a tenant's audit log follows the one before, and is as it was written. (ids: tenant/position)",
            "Somebody has changed or removed audit rows in the database: keep it and its backups, and find out who.",
        ),
        Finding(
            "credential_unreadable",
            "Every stored credential opens with a key that is configured. (ids: tenant/column)",
            "Put the missing secret into ENCRYPTION_SECRET_PREVIOUS, or save the tenant's credentials anew.",
        ),
    ]


@dataclass(slots=True)
class Examination:
    """What was found so far, by name."""

    found: dict[str, Finding] = field(
        default_factory=lambda: {
            finding.name: finding
            for finding in (*_beside(), *(Finding(check.name, check.rule, check.advice) for check in CHECKS))
        }
    )

    @property
    def whole(self) -> bool:
        return not any(finding.faults for finding in self.found.values())

    def looked(self, names: Iterable[str]) -> None:
        for name in names:
            self.found[name].faults = self.found[name].faults or 0


async def examine(context: Context, *, telling: bool) -> Examination:
    """Look at everything. `telling`: events are sent somewhere. Raises Unavailable."""
    result = Examination()
    result.looked(["database_outdated"])
    if not await _is_up_to_date(context):
        result.found["database_outdated"].add("alembic_version")
        return result
    result.looked(result.found)
    for table in TABLES:
        async for row_id, names in _walked(context, table, telling=telling):
            for name in names:
                result.found[name].add(row_id)
    async for where in _broken_chains(context):
        result.found["audit_chain_broken"].add(where)
    async for where in _unreadable(context):
        result.found["credential_unreadable"].add(where)
    return result


async def look_at_newest(context: Context, *, telling: bool) -> dict[str, int]:
    """How many of the newest rows break a rule, by its name. Raises Unavailable."""
    counts = {check.name: 0 for check in CHECKS}
    for table in _IN_ORDER:
        async for _, names in _walked(context, table, telling=telling, since=context.clock() - LATELY):
            for name in names:
                counts[name] += 1
    return {check.name: counts[check.name] for check in CHECKS if check.table in _IN_ORDER}


async def _is_up_to_date(context: Context) -> bool:
    known = await context.db.run("SELECT to_regclass('alembic_version') IS NOT NULL AS there", {})
    rows = await context.db.run("SELECT version_num FROM alembic_version", {}) if known[0]["there"] else []
    return bool(rows) and rows[0]["version_num"] not in outdated()


async def _walked(
    context: Context, table: str, *, telling: bool, since: datetime | None = None
) -> AsyncIterator[tuple[object, list[str]]]:
    """The rows of the table that break rules, with the names of these; `since`: only of those made since then, and not
    of more than RECENT_ROWS."""
    after, until = _NUMBERS if table in _BIGINT else _UUIDS
    if since is not None:
        # Ids of rows that were copied in are random: most are beyond.
        after, until = first_id(since), first_id(context.clock() + timedelta(days=1))
    at, left = context.clock(), RECENT_ROWS if since else None
    while left is None or left > 0:
        values = {"at": at, "lately": at - HALF_RECORDED, "telling": telling}
        rows = await context.db.run(_STATEMENTS[table], {**values, "after": after, "until": until, "limit": BATCH})
        for row in rows:
            if row["broken"]:
                yield row["id"], row["broken"]
        last = [row["id"] for row in rows if not row["broken"]]
        if not last:
            return
        after, left = last[0], None if left is None else left - BATCH


# --- the audit chains

_AUDIT = """
SELECT client_id, position, actor, action, detail, at, previous_hash, hash FROM audit_logs
WHERE (client_id, position) > (%(client_id)s, %(position)s) ORDER BY client_id, position LIMIT %(limit)s"""


async def _broken_chains(context: Context) -> AsyncIterator[str]:
    """`tenant/position` of the rows that do not follow the one before, or are not as they were hashed."""
    before: Row | None = None
    start = {"client_id": UUID(int=0), "position": 0}
    while rows := await context.db.run(_AUDIT, {**(before or start), "limit": BATCH}):
        for row in rows:
            ours = before is not None and before["client_id"] == row["client_id"]
            if break_at(before if ours else None, row):
                yield f"{row['client_id']}/{row['position']}"
            before = row


# --- the credentials

_STORED = ", ".join(f"'{column}', {column}" for column in _SEALED)
_NOW = f"""
SELECT client_id, client_id AS id, jsonb_build_object({_STORED}) AS stored
FROM payment_settings WHERE client_id > %(after)s ORDER BY client_id LIMIT %(limit)s"""
_RETIRED = "SELECT client_id, id, stored FROM retired_settings WHERE id > %(after)s ORDER BY id LIMIT %(limit)s"


async def _unreadable(context: Context) -> AsyncIterator[str]:
    starts: tuple[tuple[str, Any], ...] = ((_NOW, UUID(int=0)), (_RETIRED, 0))
    for sql, after in starts:
        while rows := await context.db.run(sql, {"after": after, "limit": BATCH}):
            for row in rows:
                for column in _SEALED:
                    if not _opens(context, row["client_id"], column, row["stored"].get(column)):
                        yield f"{row['client_id']}/{column}"
            after = rows[-1]["id"]


def _opens(context: Context, client_id: UUID, column: str, stored: str | None) -> bool:
    if stored is None:
        return True
    try:
        context.vault.open(stored, client_id=client_id, column=column)
    except CannotOpen:
        return False
    return True


# --- for people


def lines(result: Examination) -> Iterator[str]:
    """One line for each check, and what to do about those that found something."""
    width = max(len(name) for name in result.found)
    for finding in result.found.values():
        many = finding.faults
        state = "not looked" if many is None else "ok" if not many else "1 fault" if many == 1 else f"{many} faults"
        yield f"{state:<10}  {finding.name:<{width}}  {finding.rule}"
        if many:
            yield f"{'':<10}    {', '.join(finding.ids)}{' …' if many > len(finding.ids) else ''}"
            yield f"{'':<10}    {finding.advice}"
    yield "All is whole." if result.whole else "There is damage: see above."
