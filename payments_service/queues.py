"""How long the queues are, and how old what waits in them is: read from the database when somebody asks for it.

The figures are the database's, so each replica tells the same. They are bounded: more than MOST is told as MOST.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime

import psycopg
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from payments_service.context import Context
from payments_service.db import Row
from payments_service.errors import Unavailable

log = structlog.get_logger(__name__)

# Whoever asks more often gets the same figures.
KEPT_SECONDS = 5.0
# Those who ask have little patience of their own (Prometheus ten seconds).
PATIENCE = 3.0
MOST = 10_000

# Each by its own index, but open reviews: they are few.
_QUEUES = """
SELECT 'checks' AS queue, g.name AS gateway,
    (SELECT count(*) FROM (SELECT FROM attempts a WHERE a.gateway = g.name AND a.next_check_at <= %(at)s
                           LIMIT %(most)s) AS due) AS waiting,
    (SELECT min(a.next_check_at) FROM attempts a WHERE a.gateway = g.name AND a.next_check_at <= %(at)s) AS oldest
FROM unnest(%(gateways)s::text[]) AS g (name)
UNION ALL
SELECT 'events', NULL,
    (SELECT count(*) FROM (SELECT FROM events e WHERE e.next_try_at <= %(at)s LIMIT %(most)s) AS due),
    (SELECT min(e.next_try_at) FROM events e WHERE e.next_try_at <= %(at)s)
UNION ALL
SELECT 'messages', NULL,
    (SELECT count(*) FROM (SELECT FROM messages m WHERE m.next_try_at <= %(at)s LIMIT %(most)s) AS due),
    (SELECT min(m.next_try_at) FROM messages m WHERE m.next_try_at <= %(at)s)
UNION ALL
SELECT 'failed', NULL,
    (SELECT count(*) FROM (SELECT FROM events e WHERE e.state = 'failed' LIMIT %(most)s) AS failed), NULL
UNION ALL
SELECT 'reviews', NULL,
    (SELECT count(*) FROM (SELECT FROM reviews r WHERE r.resolved_at IS NULL LIMIT %(most)s) AS open), NULL"""


class Queues(Collector):
    """The figures as they were read last, for a registry of their own."""

    def __init__(self, context: Context) -> None:
        self._context = context
        # With when it was read.
        self._last: tuple[list[Row], datetime] | None = None
        self._read_at = float("-inf")
        self._one_at_a_time = asyncio.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    async def read(self) -> None:
        """Look into the database, unless somebody has just done so. One that does not answer is told as down."""
        async with self._one_at_a_time:
            if time.monotonic() - self._read_at < KEPT_SECONDS:
                return
            look = asyncio.create_task(self._look())
            # Without waiting for its end: a database that has fallen silent is not even quick to cancel at.
            done, _ = await asyncio.wait({look}, timeout=PATIENCE)
            if not done:
                look.cancel()
            self._last = look.result() if done else None
            self._read_at = time.monotonic()

    async def _look(self) -> tuple[list[Row], datetime] | None:
        at = self._context.clock()
        values = {"at": at, "gateways": list(self._context.gateways), "most": MOST}
        try:
            return await self._context.db.run(_QUEUES, values), at
        except Unavailable as error:
            log.warning("queues_unread", detail=error.detail)
        except psycopg.errors.UndefinedTable:
            # Not migrated yet: what is counted here is told all the same.
            log.warning("queues_unread", reason="database_outdated")
        return None

    def collect(self) -> Iterator[Metric]:
        yield _gauge("payments_database_up", "Whether the database answers.", float(self._last is not None))
        if self._last is not None:
            yield from _of_rows(*self._last)
        stats = self._context.db.pool.get_stats()
        pool = GaugeMetricFamily("payments_pool_connections", "Connections to the database.", labels=["state"])
        free = stats.get("pool_available", 0)
        pool.add_metric(["idle"], free)
        pool.add_metric(["busy"], stats.get("pool_size", 0) - free)
        yield pool
        yield _gauge(
            "payments_pool_waiting", "Who waits for a connection just now.", float(stats.get("requests_waiting", 0))
        )


def _of_rows(rows: list[Row], at: datetime) -> Iterator[Metric]:
    due = GaugeMetricFamily("payments_checks_due", "Look-ups that wait to be made.", labels=["gateway"])
    oldest = GaugeMetricFamily("payments_checks_oldest_seconds", "How long one waits already.", labels=["gateway"])
    for row in rows:
        match row["queue"]:
            case "checks":
                due.add_metric([row["gateway"]], row["waiting"])
                oldest.add_metric([row["gateway"]], _age(row, at))
            case "events":
                yield _gauge("payments_events_due", "Events that wait to be sent.", row["waiting"])
                yield _gauge("payments_events_oldest_seconds", "How long one waits already.", _age(row, at))
            case "messages":
                yield _gauge("payments_messages_due", "Messages that wait to be sent.", row["waiting"])
                yield _gauge("payments_messages_oldest_seconds", "How long one waits already.", _age(row, at))
            case "failed":
                yield _gauge("payments_events_failed", "Events that are not tried any more.", row["waiting"])
            case "reviews":
                yield _gauge("payments_reviews_open", "Questions that wait for a person.", row["waiting"])
    yield due
    yield oldest


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _age(row: Row, at: datetime) -> float:
    return (at - row["oldest"]).total_seconds() if row["oldest"] else 0.0
