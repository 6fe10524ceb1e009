"""The client is a distribution of its own: small, typed, and without the service."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import conva_payments
import payments_service

ROOT = Path(__file__).parent.parent.parent
CLIENT = ROOT / "client"
ALONE = """
import sys
sys.path.insert(0, sys.argv[1])
import conva_payments
assert conva_payments.__file__.startswith(sys.argv[1])
loaded = {name.partition(".")[0] for name in sys.modules}
print(sorted(loaded & {"payments_service", "stripe", "psycopg", "sqlalchemy", "cryptography"}))
"""


def test_the_version_is_the_services() -> None:
    assert conva_payments.__version__ == payments_service.__version__


def test_the_wheel_is_whole_and_stands_alone(tmp_path: Path) -> None:
    """Built as `pip install ./client` builds it: all modules and the types' marker; imported from the wheel, far from
    this folder, it brings nothing of the service."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=CLIENT,
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob(f"conva_payments_client-{conva_payments.__version__}-py3-none-any.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("conva_payments/")}
    written = {path.relative_to(CLIENT).as_posix() for path in (CLIENT / "conva_payments").glob("*.*")}
    assert packed == written
    assert "conva_payments/py.typed" in packed
    alone = [sys.executable, "-I", "-c", ALONE, str(wheel)]
    assert subprocess.run(alone, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_it_asks_for_two_packages_that_the_service_has_as_well() -> None:
    """The same lower bounds: what is tested here is what is installed there."""
    asked = {
        name: tomllib.loads((folder / "pyproject.toml").read_text())["project"]["dependencies"]
        for name, folder in (("client", CLIENT), ("service", ROOT))
    }
    bounds = [each.split(",")[0] for each in asked["client"]]
    assert [bound.split(">=")[0] for bound in bounds] == ["aiohttp", "msgspec"]
    assert set(bounds) <= set(asked["service"])


def test_all_that_is_exported_is_there() -> None:
    assert all(hasattr(conva_payments, name) for name in conva_payments.__all__)


def test_every_file_that_its_readmes_link_to_exists() -> None:
    """No dead link in the client's and the example's README."""
    for readme in (CLIENT / "README.md", ROOT / "examples" / "backend" / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)\)", readme.read_text()):
            assert (readme.parent / target).exists(), target
