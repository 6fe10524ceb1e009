"""The one pool of connections, and the two ways through it.

`Database.run` sends one hot statement straight through psycopg (autocommit, prepared). `as_tenant` and `as_worker` give
a SQLAlchemy connection inside a transaction for the ordinary queries. Both draw from the same psycopg pool: it queues
fairly, and eight connections serve two cores best.

Tenants are kept apart twice: every query names its `client_id`, and what runs for the internal API runs as a role that
owns nothing and sees, by row-level security, the rows of one tenant only. Callbacks and workers, which serve all
tenants, run as the login role.
"""

from __future__ import annotations

from asyncio import timeout
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import sqlalchemy.exc
from psycopg.rows import DictRow, TupleRow, dict_row
from psycopg.types.json import set_json_dumps
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from payments_service.errors import Unavailable

TENANT_ROLE = "conva_payments_tenant"
WORKER_ROLE = "conva_payments_worker"

# A statement that takes longer is a fault, not a load: fail cleanly and let the caller come back.
_SESSION = (
    "-c timezone=UTC -c statement_timeout=10000 -c lock_timeout=5000 "
    "-c idle_in_transaction_session_timeout=15000 -c application_name=conva-payments "
    # To compile a statement costs more than any of ours takes.
    "-c jit=off"
)
# The server itself gives up after that time and says so. When not even this comes (its host or the way to it is gone),
# we give up; psycopg then tries to cancel for ten seconds more. Both cover the wait for a connection.
STATEMENT_SECONDS = 16.0
TRANSACTION_SECONDS = 40.0
_SCOPE = "SELECT set_config('role', %(role)s, true), set_config('conva.client_id', %(client_id)s, true)"

# The standard library's encoder costs a callback a twentieth of its time.
set_json_dumps(msgspec.json.encode)

# What says nothing of the statement. A server that was demoted in a fail-over answers that it is read-only.
_UNABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    PoolTimeout,
    PoolClosed,
    TimeoutError,
)

Row = DictRow


class Connection(psycopg.AsyncConnection[TupleRow]):
    """A connection of the pool; SQLAlchemy reads plain tuples.

    Whoever took it from the pool gives it back: `close` does nothing meanwhile. SQLAlchemy closes what it drops, and
    of a broken connection psycopg's own `close` would not tell the pool, whose place for it stayed taken for ever.
    """

    async def close(self) -> None:
        if getattr(self, "_pool", None) is None:
            await super().close()


# The connection for the SQLAlchemy transaction that is just beginning.
_lent: ContextVar[Connection] = ContextVar("lent")


@asynccontextmanager
async def _plain_errors() -> AsyncIterator[None]:
    """Turn what only says that the database cannot serve us now into Unavailable; constraint violations pass."""
    # Of a connection that broke nobody knows whether the last word of it arrived.
    sorry = (
        "The database cannot be reached or is too busy: try again. What was asked for may be done already; under the "
        "same Idempotency-Key it is done once."
    )
    try:
        yield
    except _UNABLE as error:
        raise Unavailable(sorry) from error
    except sqlalchemy.exc.DBAPIError as error:
        if not isinstance(error.orig, _UNABLE):
            raise
        raise Unavailable(sorry) from error


async def _autocommit(connection: Connection) -> None:
    await connection.set_autocommit(True)


class Database:
    """Connections to PostgreSQL 15 or newer. `url` is a libpq URL; several hosts are allowed."""

    def __init__(
        self,
        url: str,
        *,
        size: int = 8,
        wait_seconds: float = 5.0,
        statement_seconds: float = STATEMENT_SECONDS,
        transaction_seconds: float = TRANSACTION_SECONDS,
    ) -> None:
        self._statement_seconds = statement_seconds
        self._transaction_seconds = transaction_seconds
        self.pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            connection_class=Connection,
            kwargs={"options": _SESSION, "autocommit": True, "connect_timeout": 5},
            min_size=min(2, size),
            max_size=size,
            timeout=wait_seconds,
            max_waiting=1000,
            reset=_autocommit,
            # The pool waits longer and longer between its tries; giving up soon lets the next caller try afresh.
            reconnect_timeout=4,
            open=False,
            name="payments",
        )
        self._engine = self._make_engine()

    def _make_engine(self) -> AsyncEngine:
        # The URL only names the dialect. SQLAlchemy begins transactions by the driver's own default, so autocommit
        # is turned off for its use; the pool turns it on again.
        async def connect() -> Connection:
            connection = _lent.get()
            await connection.set_autocommit(False)
            return connection

        return create_async_engine(
            "postgresql+psycopg://", async_creator=connect, poolclass=NullPool, use_native_hstore=False
        )

    async def open(self) -> None:
        """Start filling the pool; a database that is down does not hinder the start."""
        await self.pool.open(wait=False)

    async def close(self) -> None:
        await self._engine.dispose()
        await self.pool.close()

    async def run(self, sql: str, values: Mapping[str, Any], *, tenant: UUID | None = None) -> list[Row]:
        """One statement, whole or not at all; its rows. With `tenant`, as the tenant role and for its rows only."""
        async with _plain_errors(), timeout(self._statement_seconds), self.pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            if tenant is None:
                await cursor.execute(sql, values, prepare=True)
            else:
                async with connection.pipeline(), connection.transaction():
                    await connection.execute(_SCOPE, {"role": TENANT_ROLE, "client_id": str(tenant)}, prepare=True)
                    await cursor.execute(sql, values, prepare=True)
            return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[AsyncConnection]:
        async with _plain_errors(), timeout(self._transaction_seconds), self.pool.connection() as connection:
            before = _lent.set(connection)
            async with self._engine.begin() as transaction:
                _lent.reset(before)
                yield transaction

    @asynccontextmanager
    async def as_tenant(self, client_id: UUID) -> AsyncIterator[AsyncConnection]:
        """A transaction of the tenant role that sees this tenant's rows only."""
        async with self._begin() as connection:
            await connection.exec_driver_sql(_SCOPE, {"role": TENANT_ROLE, "client_id": str(client_id)})
            yield connection

    @asynccontextmanager
    async def as_worker(self) -> AsyncIterator[AsyncConnection]:
        """A transaction of the login role, for what serves all tenants."""
        async with self._begin() as connection:
            yield connection
