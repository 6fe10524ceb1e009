"""The embedded PostgreSQL as people treat it: stopped, interrupted, killed, started twice, started by root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from payments_service import embedded
from payments_service.errors import Unavailable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and modes of POSIX")
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can try it")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = """
import signal, sys, threading
from pathlib import Path
import psycopg
from payments_service import embedded

asked = threading.Event()
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: asked.set())
with embedded.start(Path(sys.argv[1]), durable=False) as server:
    print(server.url, flush=True)
    while not asked.wait(0.05):
        pass
    with psycopg.connect(server.url) as connection:
        connection.execute("INSERT INTO kept VALUES ('drained')")
"""
START_TO_SERVE = 60.0  # seconds, for a noisy machine


@pytest.fixture
def launch() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start a process that serves the folder until SIGTERM or SIGINT, in a process group of its own."""
    started = []

    def launch(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", LAUNCHER, str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder and the URL of a running server that several tests look at."""
    folder = tmp_path_factory.mktemp("served") / "pg"
    with embedded.start(folder, durable=False) as server:
        yield folder, server.url


def until(happened: Callable[[], object]) -> None:
    """Wait for it."""
    deadline = time.monotonic() + START_TO_SERVE
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def url_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split("\n")[0])


def is_down(folder: Path) -> bool:
    """postgres removes the file as the last thing that it does."""
    return not (folder / "data" / "postmaster.pid").exists()


def keep(url: str, word: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (word text PRIMARY KEY)")
        connection.execute("INSERT INTO kept VALUES (%s)", [word])


def kept(url: str) -> list[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        return [row[0] for row in connection.execute("SELECT word FROM kept ORDER BY word")]


def setting(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
        assert row is not None
        return str(row[0])


def modes(path: Path) -> list[tuple[int, int, int]]:
    return [(each.stat().st_mode, each.stat().st_uid, each.stat().st_gid) for each in path.parents]


# ── What it gives ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keeps_its_data_over_a_stop_and_a_start(tmp_path: Path) -> None:
    """By default durable; the second stop of a stopped server does nothing."""
    with embedded.start(tmp_path / "pg") as server:
        keep(server.url, "first")
        assert setting(server.url, "fsync") == "on"
    server.stop()
    assert is_down(tmp_path / "pg")
    with embedded.start(tmp_path / "pg") as server:
        assert kept(server.url) == ["first"]


def test_is_utf8_and_sorts_the_same_everywhere(served: tuple[Path, str]) -> None:
    _, url = served
    assert setting(url, "server_encoding") == "UTF8"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT current_database(), 'a' < 'B'").fetchone() == ("payments", False)


def test_is_closed_to_others(served: tuple[Path, str]) -> None:
    """No TCP, a private socket, and a password even so."""
    folder, url = served
    assert stat.S_IMODE((folder / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "password").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    if "127.0.0.1" not in url:
        assert setting(url, "listen_addresses") == ""
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url, password="guessed")


def test_a_path_too_long_for_a_socket_gets_a_port_with_a_password(tmp_path: Path) -> None:
    with embedded.start(tmp_path / ("long" * 30), durable=False) as server:
        assert "host=127.0.0.1" in server.url
        assert setting(server.url, "listen_addresses") == "127.0.0.1"
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(server.url, password="guessed")


def test_what_a_failed_statement_held_stays_out_of_the_log(served: tuple[Path, str]) -> None:
    folder, url = served
    keep(url, "canary-7f3a")
    with pytest.raises(psycopg.errors.UniqueViolation):
        keep(url, "canary-7f3a")
    with pytest.raises(psycopg.errors.InvalidTextRepresentation), psycopg.connect(url) as connection:
        connection.execute("SELECT 1 FROM kept WHERE word = 'canary-7f3a' AND '{'::json IS NULL")
    until(lambda: "duplicate key" in (folder / "postgres.log").read_text())
    assert "canary" not in (folder / "postgres.log").read_text()


def test_the_log_does_not_grow_for_ever(tmp_path: Path) -> None:
    embedded.start(tmp_path / "pg", durable=False).stop()
    with (tmp_path / "pg" / "postgres.log").open("a") as log:
        log.write("x" * (embedded.LOG_LIMIT + 1))
    embedded.start(tmp_path / "pg", durable=False).stop()
    assert (tmp_path / "pg" / "postgres.log").stat().st_size < 100_000


# ── How it ends, and comes back ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_a_launcher_that_may_drain_first(
    tmp_path: Path, launch: Callable[[Path], subprocess.Popen[str]], how: signal.Signals
) -> None:
    """The signal goes to the whole process group, as a terminal's Ctrl-C does: postgres still serves the draining."""
    launcher = launch(tmp_path / "pg")
    keep(url_of(launcher), "before")
    os.killpg(launcher.pid, how)
    assert launcher.wait(START_TO_SERVE) == 0
    assert is_down(tmp_path / "pg")
    with embedded.start(tmp_path / "pg", durable=False) as server:
        assert kept(server.url) == ["before", "drained"]


def test_a_launcher_killed_with_9_leaves_no_postgres(
    tmp_path: Path, launch: Callable[[Path], subprocess.Popen[str]]
) -> None:
    launcher = launch(tmp_path / "pg")
    keep(url_of(launcher), "committed")
    os.killpg(launcher.pid, signal.SIGKILL)
    until(lambda: is_down(tmp_path / "pg"))
    with embedded.start(tmp_path / "pg", durable=False) as server:
        assert kept(server.url) == ["committed"]


@on_linux
def test_a_postgres_left_behind_all_the_same_is_ended_by_the_next_start(
    tmp_path: Path, launch: Callable[[Path], subprocess.Popen[str]]
) -> None:
    """With the launcher dies the guard that would have ended it: postgres runs on, holding the data."""
    launcher = launch(tmp_path / "pg")
    url = url_of(launcher)
    keep(url, "committed")
    left = postmaster(tmp_path / "pg")
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for pid in {int(child) for child in children} - {left}:
        os.kill(pid, signal.SIGKILL)
    launcher.kill()
    launcher.wait()
    assert kept(url) == ["committed"]
    with embedded.start(tmp_path / "pg", durable=False) as server:
        assert postmaster(tmp_path / "pg") != left
        assert kept(server.url) == ["committed"]


def test_comes_back_after_its_postgres_was_killed_with_9(tmp_path: Path) -> None:
    """Killed amid an open transaction: what was committed is there, what was not is not."""
    with embedded.start(tmp_path / "pg") as server:
        keep(server.url, "committed")
        with contextlib.closing(psycopg.connect(server.url)) as unfinished:
            unfinished.execute("INSERT INTO kept VALUES ('not committed')")
            os.kill(postmaster(tmp_path / "pg"), signal.SIGKILL)
            until(lambda: not answers(server.url))
    with embedded.start(tmp_path / "pg") as server:
        assert kept(server.url) == ["committed"]


def answers(url: str) -> bool:
    with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url):
        return True
    return False


def test_a_stale_pid_that_is_now_somebody_elses_neither_hinders_nor_hurts(tmp_path: Path) -> None:
    """After kill -9 of postgres its number may have gone to another process of the same user."""
    with embedded.start(tmp_path / "pg") as server:
        keep(server.url, "committed")
        os.kill(postmaster(tmp_path / "pg"), signal.SIGKILL)
    owner = (tmp_path / "pg" / "data").stat()
    user = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else (None, None)
    with subprocess.Popen(["sleep", "600"], user=user[0], group=user[1], cwd="/") as stranger:
        try:
            file = tmp_path / "pg" / "data" / "postmaster.pid"
            file.write_text("\n".join([str(stranger.pid), *file.read_text().split("\n")[1:]]))
            with embedded.start(tmp_path / "pg") as server:
                assert kept(server.url) == ["committed"]
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_first_start_that_dies_half_way_leaves_nothing_half_made(
    tmp_path: Path, launch: Callable[[Path], subprocess.Popen[str]]
) -> None:
    launcher = launch(tmp_path / "pg")
    until(lambda: list((tmp_path / "pg").glob("new-*/PG_VERSION")))
    launcher.kill()
    launcher.wait()
    with embedded.start(tmp_path / "pg", durable=False) as server:
        keep(server.url, "committed")


# ── What it refuses ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_second_start_on_the_same_folder_is_refused_in_plain_words(served: tuple[Path, str]) -> None:
    folder, url = served
    with pytest.raises(Unavailable, match=r"in use by another running process.*DATABASE_URL"):
        embedded.start(folder, durable=False)
    assert answers(url)


def test_a_server_that_does_not_start_says_why_and_frees_the_folder(tmp_path: Path) -> None:
    embedded.start(tmp_path / "pg", durable=False).stop()
    faulty = tmp_path / "pg" / "data" / "postgresql.auto.conf"
    faulty.write_text("max_connections = many\n")
    with pytest.raises(Unavailable, match='invalid value for parameter "max_connections"'):
        embedded.start(tmp_path / "pg", durable=False)
    faulty.write_text("")
    embedded.start(tmp_path / "pg", durable=False).stop()


def test_without_any_postgresql_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_the_wheel(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(embedded, "SYSTEM", ())
    monkeypatch.setattr(embedded, "HOMEBREW", ())
    with pytest.raises(Unavailable, match=r"conva-payments\[demo\].*DATABASE_URL"):
        embedded.start(tmp_path / "pg", durable=False)


def hide_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


def test_without_the_wheel_an_installed_postgresql_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = importlib.util.find_spec(embedded.WHEEL)
    hide_the_wheel(monkeypatch)
    if wheel and not any(programs.exists() for programs in embedded._installations()):
        pytest.skip("no PostgreSQL is installed here beside the wheel's")
    with embedded.start(tmp_path / "pg", durable=False) as server:
        keep(server.url, "kept")


# ── As root ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@as_root
def test_root_may_keep_everything_where_nobody_can_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data and programs below a folder of mode 0700: it works, no mode changes, and the programs' copy goes away."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    site = closed / "site"
    site.mkdir()
    wheel = importlib.util.find_spec(embedded.WHEEL)
    if wheel is None or not wheel.submodule_search_locations:
        pytest.skip("the wheel is not installed")
    package = Path(wheel.submodule_search_locations[0])
    for part in (package, package.with_name(f"{package.name}.libs")):
        (site / part.name).symlink_to(part)
    monkeypatch.syspath_prepend(site)
    before = modes(closed / "pg")
    with embedded.start(closed / "pg", durable=False) as server:
        keep(server.url, "kept")
        data, link = closed / "pg" / "data", closed / "pg" / "programs"
        assert data.owner() == "nobody"
        copy = link.readlink()
        assert copy.exists()
    assert modes(closed / "pg") == before
    assert not copy.exists()
    assert not link.is_symlink()


@as_root
def test_root_leaves_the_data_to_the_owner_of_the_folder_even_to_one_without_a_name(tmp_path: Path) -> None:
    """A container's arbitrary user is not in /etc/passwd, which initdb insists on."""
    (tmp_path / "pg").mkdir()
    os.chown(tmp_path / "pg", 54321, 54321)
    for _ in range(2):
        with embedded.start(tmp_path / "pg", durable=False) as server:
            assert answers(server.url)
    assert (tmp_path / "pg" / "data").stat().st_uid == 54321
