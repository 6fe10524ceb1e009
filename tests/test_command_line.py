"""The commands, run as people run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from payments_service import __version__, migrations
from tests.house import ENCRYPTION_SECRET, TOKEN
from tests.servers import listen

ROOT = Path(__file__).parent.parent


def environment(**changes: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "ENCRYPTION_SECRET": ENCRYPTION_SECRET,
        "SERVICE_TOKENS": f"backend:{TOKEN}",
        "CREATE_LINK_RATE": "1000/second",
        **changes,
    }


def command(*arguments: str, cwd: Path = ROOT, timeout: float = 60, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "payments_service", *arguments],
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def free_ports(count: int) -> list[int]:
    listeners = [listen(0) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@contextmanager
def running(*arguments: str, cwd: Path = ROOT, **changes: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "payments_service", *arguments],
        cwd=cwd,
        env=environment(**changes),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until_ready(process: subprocess.Popen[str], url: str) -> None:
    for _ in range(600):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            pass
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    pytest.fail("the service did not become ready")


def test_every_fault_of_the_settings_is_told_at_once() -> None:
    """Exit code 1, one line per fault, no traceback."""
    outcome = command("serve", ENCRYPTION_SECRET="short", SERVICE_TOKENS="", INTERNAL_BIND="nowhere")
    assert outcome.returncode == 1
    for name in ("ENCRYPTION_SECRET", "SERVICE_TOKENS", "INTERNAL_BIND"):
        assert name in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_migrate_brings_an_empty_database_up_to_date(empty_database: str) -> None:
    """And says so; a second time there is nothing to do."""
    first = command("migrate", DATABASE_URL=empty_database)
    second = command("migrate", DATABASE_URL=empty_database)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "was empty" in first.stdout
    assert "was" not in second.stdout


def test_serve_answers_on_both_listeners_and_drains_on_sigterm(database: str) -> None:
    """Ready, then SIGTERM: exit code 0."""
    internal, public = free_ports(2)
    binds = {"INTERNAL_BIND": f"127.0.0.1:{internal}", "PUBLIC_BIND": f"127.0.0.1:{public}"}
    with running("serve", DATABASE_URL=database, **binds) as process:
        until_ready(process, f"http://127.0.0.1:{internal}/readyz")
        until_ready(process, f"http://127.0.0.1:{public}/readyz")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.parametrize("only", ["internal", "public", "worker"])
def test_one_part_alone(database: str, only: str) -> None:
    """`--only` opens that listener's port and no other. METRICS_BIND says of each how it is, and nothing of the API."""
    ports = dict(zip(("internal", "public", "metrics"), free_ports(3), strict=True))
    binds = {f"{name.upper()}_BIND": f"127.0.0.1:{port}" for name, port in ports.items()}
    with running("serve", "--only", only, DATABASE_URL=database, **binds) as process:
        watched = f"http://127.0.0.1:{ports['metrics']}"
        until_ready(process, f"{watched}/readyz")
        with urllib.request.urlopen(f"{watched}/metrics", timeout=10) as answer:
            assert b"payments_database_up 1.0" in answer.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{watched}/v1/events", timeout=10)
        for listener in ("internal", "public"):
            url = f"http://127.0.0.1:{ports[listener]}/livez"
            if listener == only:
                until_ready(process, url)
                continue
            with pytest.raises(urllib.error.URLError):
                urllib.request.urlopen(url, timeout=2)


def test_a_port_that_is_taken_is_named(database: str) -> None:
    """Exit code 1 and plain words instead of a traceback."""
    with listen(0) as taken:
        port = taken.getsockname()[1]
        outcome = command("serve", DATABASE_URL=database, INTERNAL_BIND=f"127.0.0.1:{port}", PUBLIC_BIND="127.0.0.1:0")
    assert outcome.returncode == 1
    assert "INTERNAL_BIND" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_database_that_cannot_be_reached_is_told_in_plain_words() -> None:
    """`migrate` without a database: exit code 1, no traceback, no password."""
    outcome = command("migrate", DATABASE_URL="postgresql://ann:hunter2hunter2@127.0.0.1:1/payments")
    assert outcome.returncode == 1
    assert "database" in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert "hunter2" not in outcome.stderr


def test_openapi_prints_the_description() -> None:
    """The same bytes as the file."""
    assert command("openapi").stdout == (ROOT / "openapi.yaml").read_text()


def test_the_demo_pays_by_itself(tmp_path: Path) -> None:
    """`demo --auto`: a link sent by WhatsApp, links paid by EcoCash, InnBucks, on Paynow's page and by card, a part
    given back, a verified event of each, how long each took, exit code 0; its data and secrets stay for the next time.
    """
    for _ in range(2):
        outcome = command("demo", "--auto", cwd=tmp_path, timeout=120)
        assert outcome.returncode == 0, outcome.stderr
        assert len(re.findall(r"event +payment\.paid ", outcome.stdout)) == 4
        assert len(re.findall(r"event +payment\.partially_refunded ", outcome.stdout)) == 1
        assert re.search(r"\d s by EcoCash, \S+ s by InnBucks, \S+ s by Paynow's page, \S+ s by card\n", outcome.stdout)
        assert re.search(r"WhatsApp +http://127\.0\.0\.1:\d+/phone/0771234567/whatsapp/\d+\n", outcome.stdout)
        assert len(re.findall(r"event +message\.delivered .* by whatsapp\n", outcome.stdout)) == 1
        assert re.search(r"Phone +http://127\.0\.0\.1:\d+/phone\n", outcome.stdout)
    known: dict[str, Any] = json.loads((tmp_path / ".data" / "demo.json").read_text())
    assert (tmp_path / ".data" / "demo.json").stat().st_mode & 0o077 == 0
    assert known["encryption_secret"] not in outcome.stdout + outcome.stderr


def test_the_wheel_carries_all_that_it_needs(tmp_path: Path) -> None:
    """What `pip install .` installs has the migrations, the description, the pages and the viewer, and no tests."""
    import zipfile

    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert __version__ in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "payments_service/_migrations/env.py",
        "payments_service/_migrations/versions/0001_first_tables.py",
        "payments_service/_openapi.yaml",
        "payments_service/public/pages/pay.html",
        "payments_service/public/pages/style.css",
        "payments_service/internal/viewer/rapidoc-min.js.gz",
        "payments_service/sandbox/templates",
    ):
        assert any(name.startswith(needed) for name in names), needed
    assert not any(name.startswith("tests/") for name in names)


def test_an_installed_package_finds_its_own_migrations(tmp_path: Path, empty_database: str) -> None:
    """Unpacked elsewhere, without the checkout beside it, `migrate` and `openapi` work."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    changes = {"DATABASE_URL": empty_database, "PYTHONPATH": str(tmp_path / "site")}
    outcome = command("migrate", cwd=tmp_path, **changes)
    assert outcome.returncode == 0, outcome.stderr
    assert migrations.migrate(empty_database)[0] is not None
    assert command("openapi", cwd=tmp_path, **changes).stdout.startswith("openapi:")
