"""What the run stood on: without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import statistics
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("starlette", "uvicorn", "uvloop", "psycopg", "aiohttp", "sqlalchemy", "stripe")


def facts(folder: Path, postgres: str) -> dict[str, str]:
    """The machine, the versions and how busy it was before the run. The database lives in `folder`."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, {_processor()}, {platform.system()} {platform.release()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
        "disk": f"one fdatasync of 8 kB takes {_fdatasync(folder):.2f} ms (median of 50)",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in _LIBRARIES),
        "PostgreSQL": f"{postgres}, embedded, durable (fsync and synchronous_commit on), socket; service as plain role",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fdatasync(folder: Path) -> float:
    """Milliseconds: what each commit waits for."""
    took = []
    with (folder / "fdatasync").open("wb", buffering=0) as file:
        for _ in range(50):
            begun = time.perf_counter()
            file.write(bytes(8192))
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - begun)
    return statistics.median(took) * 1000


def show(known: dict[str, str]) -> None:
    """Print the facts."""
    for name, value in known.items():
        print(f"{name + ':':<13}{value}")
