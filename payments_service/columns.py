"""The vocabulary of `tables`: names of constraints, and columns that many tables share."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import BigInteger, Column, DateTime, ForeignKey, Identity, MetaData, Uuid, text

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def one_of(column: str, values: Iterable[str]) -> str:
    """The text of a CHECK."""
    quoted = ", ".join(f"'{value}'" for value in values)
    return f"{column} IN ({quoted})"


def moment(name: str, *, nullable: bool = False, default: str | None = "now()") -> Column[object]:
    """A point in time; without a value it is now, unless it may be null."""
    return Column(
        name,
        DateTime(timezone=True),
        nullable=nullable,
        server_default=text(default) if default and not nullable else None,
    )


def row_id() -> Column[int]:
    """A number that the database gives."""
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def of_attempt() -> list[Column[object]]:
    """What tells of one attempt's money names its payment, its tenant and itself."""
    return [
        Column("payment_id", Uuid, ForeignKey("payments.id"), nullable=False),
        Column("client_id", Uuid, nullable=False),
        Column("attempt_id", Uuid, ForeignKey("attempts.id"), nullable=False),
    ]
