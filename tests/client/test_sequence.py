"""Events in any order and number end in the state that they would have led to one after another."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID, uuid4

import msgspec
import psycopg
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from conva_payments import ADVANCE, ADVANCE_PSYCOPG, CREATE_MARKS, Marks, Payment, Status, Verdict, mark
from tests.documented import example_of

LIKE = msgspec.convert(example_of({"schema": {"$ref": "#/components/schemas/Payment"}}), Payment)
STATUSES = list(Status)


def life(payment_id: UUID, length: int) -> list[Payment]:
    """A payment after each of its changes, of which no two leave the same."""
    return [
        replace(LIKE, id=payment_id, sequence=n, status=STATUSES[n % len(STATUSES)], refunded_cents=n)
        for n in range(1, length + 1)
    ]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[list[Payment]], list[Payment]]:
    """The lives of some payments, and all their events shuffled, with repeats."""
    lives = [life(uuid4(), draw(st.integers(1, 6))) for _ in range(draw(st.integers(1, 3)))]
    events = [event for one in lives for event in one]
    repeats = draw(st.lists(st.sampled_from(events), max_size=8))
    return lives, draw(st.permutations(events + repeats))


def settle(events: list[Payment], judge: Callable[[Payment], Verdict]) -> dict[UUID, Payment]:
    """What a backend has after these events."""
    state: dict[UUID, Payment] = {}
    for event in events:
        if judge(event) is not Verdict.SEEN:
            state[event.id] = event
    return state


@given(deliveries())
def test_any_shuffle_with_repeats_ends_as_in_order(made: tuple[list[list[Payment]], list[Payment]]) -> None:
    """In memory."""
    lives, shuffled = made
    expected = {one[-1].id: one[-1] for one in lives}
    assert settle(shuffled, Marks().judge) == settle([e for one in lives for e in one], Marks().judge) == expected


@given(deliveries())
def test_the_statement_judges_as_the_memory_does(made: tuple[list[list[Payment]], list[Payment]]) -> None:
    """ADVANCE in SQLite, event by event."""
    memory = Marks()
    with sqlite3.connect(":memory:") as database:
        database.execute(CREATE_MARKS)
        for event in made[1]:
            row = database.execute(ADVANCE, mark(event)).fetchone()
            assert Verdict.of(row[0] if row else None, event) is memory.judge(event)
    database.close()


def test_gaps_are_told_apart_and_close_by_themselves() -> None:
    """The later event counts; what was between comes late and changes nothing; then it goes on without a gap."""
    one, two, three, four = life(uuid4(), 4)
    marks = Marks()
    assert [marks.judge(each) for each in (one, three, two, three, four)] == [
        Verdict.NEXT,
        Verdict.GAP,
        Verdict.SEEN,
        Verdict.SEEN,
        Verdict.NEXT,
    ]
    assert Marks().judge(two) is Verdict.GAP
    # A payment that was read stands in for an event: it is the newest state there is.
    assert marks.judge(replace(four, sequence=9)) is Verdict.GAP


async def test_in_postgresql_events_at_the_same_moment_are_applied_in_order(empty_database: str) -> None:
    """Eight connections of psycopg get all events of some payments, shuffled and repeated; each applies in the mark's
    transaction. Each payment ends in its last state, and nothing older was written over something newer."""
    lives = [life(uuid4(), 6) for _ in range(5)]
    events = [event for one in lives for event in one] * 3
    random.Random(7).shuffle(events)
    with psycopg.connect(empty_database, autocommit=True) as connection:
        connection.execute(CREATE_MARKS)
        connection.execute("CREATE TABLE invoices (payment_id uuid PRIMARY KEY, cents int, applied int[])")

    async def consume() -> None:
        async with await psycopg.AsyncConnection.connect(empty_database, autocommit=True) as connection:
            while events:
                event = events.pop()
                async with connection.transaction():
                    row = await (await connection.execute(ADVANCE_PSYCOPG, mark(event))).fetchone()
                    await asyncio.sleep(0)
                    if Verdict.of(row[0] if row else None, event) is not Verdict.SEEN:
                        await connection.execute(
                            "INSERT INTO invoices VALUES (%(id)s, %(cents)s, ARRAY[%(cents)s::int]) "
                            "ON CONFLICT (payment_id) DO UPDATE SET cents = excluded.cents, "
                            "applied = invoices.applied || excluded.cents",
                            {"id": event.id, "cents": event.refunded_cents},
                        )

    await asyncio.gather(*(consume() for _ in range(8)))
    with psycopg.connect(empty_database) as connection:
        rows = connection.execute("SELECT payment_id, cents, applied FROM invoices").fetchall()
    assert {(payment_id, cents) for payment_id, cents, _ in rows} == {(one[-1].id, 6) for one in lives}
    assert all(applied == sorted(set(applied)) for _, _, applied in rows)


async def test_the_statement_is_one_for_sqlalchemy_too(empty_database: str) -> None:
    """As `text(ADVANCE)`."""
    engine = create_async_engine(empty_database.replace("postgresql", "postgresql+psycopg", 1))
    one, two, three = life(uuid4(), 3)
    found = []
    async with engine.begin() as connection:
        await connection.execute(text(CREATE_MARKS))
        for event in (one, three, two):
            row = (await connection.execute(text(ADVANCE), mark(event))).first()
            found.append(Verdict.of(row[0] if row else None, event))
    await engine.dispose()
    assert found == [Verdict.NEXT, Verdict.GAP, Verdict.SEEN]
