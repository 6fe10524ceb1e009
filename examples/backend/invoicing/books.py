"""The backend's own books, in SQLite: invoices, what was paid on them, and how far the events were read.

Every method is one transaction. They block for a moment: call them with `asyncio.to_thread`, or write them for the
async driver of your own database; the statements stay as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid4

from conva_payments import ADVANCE, CREATE_MARKS, Payment, PaymentChange, Status, Verdict, mark

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS invoices (
        id text PRIMARY KEY, client_id text NOT NULL, contact_id text NOT NULL, number text NOT NULL,
        amount_cents integer NOT NULL, currency text NOT NULL, paid_cents integer NOT NULL DEFAULT 0,
        payment_id text, page_url text, link_key text NOT NULL)""",
    """
    CREATE TABLE IF NOT EXISTS payments (
        id text PRIMARY KEY, invoice_id text NOT NULL, status text NOT NULL, currency text NOT NULL,
        net_cents integer NOT NULL)""",
    "CREATE TABLE IF NOT EXISTS event_cursor (only_one integer PRIMARY KEY CHECK (only_one = 1), cursor text NOT NULL)",
    CREATE_MARKS,
)

# Nobody can pay by the link any more: what is still owed needs another. A `failed` one can be tried again on its page.
# All are named that lead on from such a state, too: the event of `paid` may come after that of `refunded`, and be old.
OVER = (
    Status.PAID,
    Status.PARTIALLY_REFUNDED,
    Status.REFUNDED,
    Status.DISPUTED,
    Status.EXPIRED,
    Status.CANCELLED,
)


@dataclass(frozen=True, slots=True)
class Invoice:
    """What a customer owes a business. `page_url` and `payment_id` are those of its link, as long as that can be paid;
    `link_key` is the idempotency key under which the next one is made."""

    id: UUID
    client_id: UUID
    contact_id: UUID
    number: str
    amount_cents: int
    currency: Literal["USD", "ZIG"]
    paid_cents: int
    payment_id: UUID | None
    page_url: str | None
    link_key: str

    @property
    def is_paid(self) -> bool:
        return self.paid_cents >= self.amount_cents


class Books:
    def __init__(self, path: Path) -> None:
        self._path = path
        with self._transaction() as db:
            for table in _TABLES:
                db.execute(table)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._path)) as db, db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN IMMEDIATE")
            yield db

    def add(
        self, client_id: UUID, contact_id: UUID, number: str, amount_cents: int, currency: Literal["USD", "ZIG"]
    ) -> Invoice:
        """A new invoice. The key of its link is there before the link: a crash in between makes no second one."""
        invoice = Invoice(uuid4(), client_id, contact_id, number, amount_cents, currency, 0, None, None, str(uuid4()))
        with self._transaction() as db:
            db.execute(
                "INSERT INTO invoices (id, client_id, contact_id, number, amount_cents, currency, link_key) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (str(invoice.id), str(client_id), str(contact_id), number, amount_cents, currency, invoice.link_key),
            )
        return invoice

    def invoice(self, client_id: UUID, invoice_id: UUID) -> Invoice | None:
        with self._transaction() as db:
            found = db.execute(
                "SELECT * FROM invoices WHERE id = ? AND client_id = ?", (str(invoice_id), str(client_id))
            )
            return next(map(_invoice, found), None)

    def invoices(self, client_id: UUID) -> list[Invoice]:
        with self._transaction() as db:
            found = db.execute("SELECT * FROM invoices WHERE client_id = ? ORDER BY number", (str(client_id),))
            return [_invoice(row) for row in found]

    def keep_link(self, invoice: Invoice, payment: Payment) -> None:
        """Unless another key has taken its place meanwhile, or an event has told already that the link is over: the
        answer may be an old one. Then the next wish is a new one."""
        with self._transaction() as db:
            told = db.execute("SELECT status FROM payments WHERE id = ?", (str(payment.id),)).fetchone()
            over = told is not None and told["status"] in OVER
            kept = (None, None, str(uuid4())) if over else (str(payment.id), payment.page_url, invoice.link_key)
            db.execute(
                "UPDATE invoices SET payment_id = ?, page_url = ?, link_key = ? WHERE id = ? AND link_key = ?",
                (*kept, str(invoice.id), invoice.link_key),
            )

    def renew_key(self, invoice: Invoice) -> None:
        """What the service refused under the old key it would refuse again; the next wish is a new one."""
        with self._transaction() as db:
            db.execute(
                "UPDATE invoices SET link_key = ? WHERE id = ? AND link_key = ?",
                (str(uuid4()), str(invoice.id), invoice.link_key),
            )

    def apply(self, payment: PaymentChange) -> Verdict:
        """What an event told, if it is news: the mark and all that follows from it in one transaction."""
        with self._transaction() as db:
            row = db.execute(ADVANCE, mark(payment)).fetchone()
            verdict = Verdict.of(row["previous"] if row else None, payment)
            if verdict is not Verdict.SEEN and payment.invoice_id:
                _settle(db, payment)
            return verdict

    def cursor(self) -> str | None:
        """How far the events were pulled; None: never."""
        with self._transaction() as db:
            row = db.execute("SELECT cursor FROM event_cursor").fetchone()
            return row["cursor"] if row else None

    def keep_cursor(self, cursor: str | None) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO event_cursor (only_one, cursor) VALUES (1, ?)", (cursor,))


def _settle(db: sqlite3.Connection, payment: PaymentChange) -> None:
    """Keep the payment, and set its invoice to the sum of what all its payments brought and left there. So a refund,
    a second payment of the same invoice and a refund that failed after all come out right by themselves."""
    names = {
        "id": str(payment.id),
        "client_id": str(payment.client_id),
        "invoice_id": str(payment.invoice_id),
        "status": payment.status,
        "currency": payment.currency,
        "net_cents": payment.net_cents,
        "new_key": str(uuid4()),
    }
    db.execute(
        "INSERT OR REPLACE INTO payments (id, invoice_id, status, currency, net_cents) "
        "VALUES (:id, :invoice_id, :status, :currency, :net_cents)",
        names,
    )
    db.execute(
        "UPDATE invoices SET paid_cents = (SELECT sum(p.net_cents) FROM payments p "
        "WHERE p.invoice_id = invoices.id AND p.currency = invoices.currency) "
        "WHERE id = :invoice_id AND client_id = :client_id",
        names,
    )
    if payment.status in OVER:
        db.execute(
            "UPDATE invoices SET payment_id = NULL, page_url = NULL, link_key = :new_key "
            "WHERE id = :invoice_id AND client_id = :client_id AND payment_id = :id",
            names,
        )


def _invoice(row: sqlite3.Row) -> Invoice:
    ids = {name: UUID(row[name]) for name in ("id", "client_id", "contact_id", "payment_id") if row[name]}
    return Invoice(**{**dict(row), **ids})
