"""The npm packages of the tests."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import browser, nodejs


@pytest.mark.parametrize("folder", [nodejs.PACKAGES, browser.PACKAGED])
def test_the_lock_file_names_no_registry(folder: Path) -> None:
    """Every machine installs from the registry it is set up for; the hashes say what it must get."""
    lock = json.loads((folder / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert not [name for name, package in packages.items() if "resolved" in package]
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
