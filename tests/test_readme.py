"""What the README promises is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

from payments_service.config import VARIABLES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_the_code() -> None:
    """One row per variable, in the code's order, with its default and meaning."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*) \|$", README, re.MULTILINE)
    expected = []
    for variable in VARIABLES:
        default = "required" if variable.required else f"`{variable.default}`" if variable.default else ""
        if variable.in_development:
            default += f" (`{variable.in_development}` in development)"
        expected.append((variable.name, default, variable.meaning))
    assert rows == expected


def test_the_two_commands_come_first() -> None:
    """`make demo` and `make test` stand before anything else, and the Makefile has them."""
    start = README[:200]
    assert start.index("make demo") < start.index("make test")
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.MULTILINE)
    assert re.search(r"^test:", makefile, re.MULTILINE)


def test_every_file_that_the_readme_links_to_exists() -> None:
    """No dead link."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target
