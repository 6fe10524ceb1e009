"""Processes of the run: started, watched through /proc, ended. Only those that were started here are ever ended."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
HOST = "127.0.0.1"
ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def child(module: str, *words: object, env: Mapping[str, str] | None = None, log: Path) -> Iterator[subprocess.Popen]:
    """`python -m module words…` while the block runs; what it says goes to the file `log`."""
    command = [sys.executable, "-m", module, *map(str, words)]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=dict(env or os.environ), cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen, port: int, path: str, log: Path, seconds: float = 30) -> None:
    """Wait until a GET of `path` answers 200. RuntimeError, with the end of its log, when the process ends first."""
    deadline = time.monotonic() + seconds
    while not _answers(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args} does not get ready:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.005)


def _answers(port: int, path: str) -> bool:
    request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection((HOST, port), timeout=5) as line:
            line.sendall(request)
            return line.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time that the processes and their children have used until now, ended children included."""
    return sum(_cpu(pid) for pid in pids) + sum(_cpu(pid) for parent in pids for pid in _children(parent))


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS


def _children(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def memory(pid: int) -> tuple[float, float]:
    """Resident memory of one process now and at its peak, in MB of a million bytes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    now, peak = (int(lines[name].split()[0]) * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    return now, peak
