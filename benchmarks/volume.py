"""10. What the same work costs with ten million payments on record, beside ten thousand.

Two databases of one cluster, the same in shape (see volume_rows.py), are asked the same in turns: by one caller,
through the service's own functions or applications, in this process. What each statement takes in PostgreSQL, and how
many pages it touches, is told beside it: pages do not depend on how busy the machine is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from benchmarks import volume_csv, volume_rows
from benchmarks.report import Figure, Section
from benchmarks.stage import Stage, run
from benchmarks.volume_sides import Found, compare
from benchmarks.volume_steps import STEPS
from payments_service import migrations

FEW, MANY, QUICK = 10_000, 10_000_000, 300_000
ROUNDS = 12
AIM = 1.3

# Nothing of a load that breaks off is kept, so it need not be durable.
LOADING = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "autovacuum": "off",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "1h",
    "shared_buffers": "1GB",
    "maintenance_work_mem": "1GB",
    "max_parallel_maintenance_workers": "0",
    "max_parallel_workers_per_gather": "0",
}
# A tenth of the big database. Everything else as it comes, so durable; only that nothing begins by itself meanwhile.
MEASURING = {"shared_buffers": "2GB", "autovacuum": "off"}


def measure(stage: Stage) -> Section:
    """Fill both, ask both in turns, then take the big tenant's payments as CSV."""
    many = stage.payments or (QUICK if stage.quick else MANY)
    folder = stage.keep or stage.folder / "volume"
    prepare(stage, folder, (FEW, many))
    with stage.beside(folder) as own:
        few, big = own.url(_name(FEW)), own.url(_name(many))
        found = run(compare((few, big), (FEW, many), STEPS, rounds=stage.amount(ROUNDS)))
        downloads = volume_csv.measure(own, big, many)
    title = f"10. With {many:,} payments on record, beside {FEW:,}: milliseconds, one caller"
    return Section(title, [*map(_figure, found), *downloads], _notes(found))


def prepare(stage: Stage, folder: Path, sizes: tuple[int, ...]) -> None:
    """Fill what is not there from a run before."""
    with stage.beside(folder) as own:
        missing = [size for size in sizes if not own.has(_name(size))]
        own.configure(**(LOADING if missing else MEASURING))
        for size in set(sizes) - set(missing):
            migrations.migrate(own.url(_name(size)))
    if missing:
        _fill(stage, folder, missing)


def _fill(stage: Stage, folder: Path, sizes: Sequence[int]) -> None:
    now = datetime.now(UTC)
    with stage.beside(folder) as own:
        for size in sizes:
            # Made under another name: a load that breaks off leaves nothing half-made.
            volume_rows.fill(own.database("filling"), size, now)
            own.rename("filling", _name(size))
        own.configure(**MEASURING)
    os.sync()


def _name(size: int) -> str:
    return f"volume_{size}"


def _figure(found: Found) -> Figure:
    ratio = found.many.median / found.few.median
    inside = found.many.inside / found.few.inside
    return Figure(
        found.name,
        found.many.median,
        "ms",
        {f"{found.few.median:.2f} ms": ratio},
        more=f"in PostgreSQL {found.few.inside:.2f} -> {found.many.inside:.2f} ms ({inside:.2f}),"
        f" pages {found.few.pages} -> {found.many.pages}",
        aim=f"<= {AIM * 100:.0f} %",
        met=ratio <= AIM,
    )


def _notes(found: list[Found]) -> list[str]:
    first = ", ".join(f"{each.name} {median(each.many.first):.1f}" for each in found)
    return [
        "shared_buffers 2 GB; every key had been asked for once before, so that its pages are in memory",
        f"the first time in the big database, ms at p50 (pages from the disk or the system's cache): {first}",
    ]
