"""Old news told from new, so that events in any order and number end in the same state.

Events come at least once, in any order, also twice at the same moment. Each holds the whole payment, and `sequence`
counts the payment's changes without gaps. So: keep the highest sequence that was applied of each payment, and apply an
event only if its own is higher, **in the same transaction** in which its effects are written (table: CREATE_MARKS):

    async with engine.begin() as connection:                                  # SQLAlchemy; likewise sqlite3, aiosqlite
        row = (await connection.execute(text(ADVANCE), mark(event.data))).first()
        if Verdict.of(row[0] if row else None, event.data) is not Verdict.SEEN:
            ...                                                               # set the invoice from event.data

    async with pool.connection() as connection:                               # psycopg
        row = await (await connection.execute(ADVANCE_PSYCOPG, mark(event.data))).fetchone()

Nothing here is about events alone: a payment that a call answered has its sequence too, and may be passed likewise.
"""

from __future__ import annotations

from enum import Enum
from uuid import UUID

from conva_payments.answers import Payment

CREATE_MARKS = """
CREATE TABLE IF NOT EXISTS payment_marks (
    payment_id uuid PRIMARY KEY, sequence bigint NOT NULL, previous bigint NOT NULL)"""

# One statement, so that of two events at the same moment the second sees what the first wrote: it waits at the row.
# Answers the mark before, or no row when the event is not newer. PostgreSQL 9.5+, SQLite 3.35+.
_ADVANCE = """
INSERT INTO payment_marks (payment_id, sequence, previous) VALUES ({payment_id}, {sequence}, 0)
ON CONFLICT (payment_id) DO UPDATE SET previous = payment_marks.sequence, sequence = excluded.sequence
WHERE payment_marks.sequence < excluded.sequence
RETURNING previous"""
ADVANCE = _ADVANCE.format(payment_id=":payment_id", sequence=":sequence")
ADVANCE_PSYCOPG = _ADVANCE.format(payment_id="%(payment_id)s", sequence="%(sequence)s")


class Verdict(Enum):
    """What an event is beside those that were applied before it."""

    NEXT = "next"  # apply it
    # Apply it: it holds the whole state. Some between were not seen yet; they will come and be SEEN, and each step can
    # be read with `Payments.history`.
    GAP = "gap"
    SEEN = "seen"  # nothing new: do nothing, and answer 2xx

    @classmethod
    def of(cls, previous: int | None, payment: Payment) -> Verdict:
        """`previous` is what ADVANCE answered: the mark before, 0 for the first event of a payment; None for no row."""
        if previous is None or previous >= payment.sequence:
            return cls.SEEN
        return cls.NEXT if previous + 1 == payment.sequence else cls.GAP


def mark(payment: Payment) -> dict[str, str | int]:
    """The parameters of ADVANCE."""
    return {"payment_id": str(payment.id), "sequence": payment.sequence}


class Marks:
    """Marks in memory: for tests, and for what forgets with the process anyway."""

    def __init__(self) -> None:
        self._highest: dict[UUID, int] = {}

    def judge(self, payment: Payment) -> Verdict:
        """Whether this is news, keeping its sequence if it is."""
        previous = self._highest.get(payment.id, 0)
        if previous < payment.sequence:
            self._highest[payment.id] = payment.sequence
        return Verdict.of(previous, payment)
