"""PostgreSQL's own benchmark client on the service's own statements: what the database alone can do here."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from payments_service.embedded import WHEEL

CLIENTS = 16
_PARAMETER = re.compile(r"%\((\w+)\)s")


def program() -> Path:
    """The wheel's pgbench, the newest one; else the system's."""
    wheel = find_spec(WHEEL)
    found = [
        path
        for root in (wheel and wheel.submodule_search_locations) or ()
        for path in Path(root).glob("pginstall*/bin/pgbench")
    ]
    if found:
        return max(found, key=lambda path: int("0" + re.sub(r"\D", "", path.parents[1].name)))
    return Path(shutil.which("pgbench") or "pgbench")


def statement(sql: str, values: Mapping[str, str]) -> str:
    """A statement of psycopg's with each parameter replaced by an SQL expression over pgbench's variables."""
    return _PARAMETER.sub(lambda match: f"({values[match[1]]})", sql).replace("%%", "%").strip().rstrip(";") + ";\n"


def per_second(
    url: str, script: str, constants: Mapping[str, str], *, seconds: float = 0, each: int = 0, repeat: int = 1
) -> float:
    """Times per second that 16 clients ran the script with prepared statements, for a time or `each` client so often.

    `repeat` is the number of times that one run of the script counts.
    """
    length = [f"--transactions={each}"] if each else [f"--time={max(1, round(seconds))}"]
    defined = [f"--define={name}={value}" for name, value in constants.items()]
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(script)
        file.flush()
        said = _run(
            [program(), "--no-vacuum", "--protocol=prepared", f"--client={CLIENTS}", "--jobs=2", *length, *defined,
             f"--file={file.name}", url]
        )  # fmt: skip
    failed = re.search(r"number of failed transactions: (\d+)", said)
    rate = re.search(r"tps = ([\d.]+)", said)
    if rate is None or (failed and int(failed[1])):
        raise RuntimeError(f"pgbench failed:\n{said}")
    return float(rate[1]) * repeat


def _run(command: Sequence[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"pgbench failed:\n{done.stderr[:2000]}")
    return done.stdout
