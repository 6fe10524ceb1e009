"""The one style sheet and the one script: they stand inside each page, and only their hashes may in the policy. And
the picture that a chat shows beside a link."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from markupsafe import Markup

PAGES = Path(__file__).parent / "pages"


def _small(text: str) -> str:
    """A style sheet or script without comments and needless blanks: it is sent with every page, on data paid by the
    megabyte. Of a script, whole lines only: it is written so that each line can be followed by any other."""
    without_comments = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", without_comments)).replace(";}", "}").strip()


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_CSS = _small((PAGES / "style.css").read_text(encoding="utf-8"))
_JS = _small((PAGES / "script.js").read_text(encoding="utf-8"))

# Ours and constant, so they go into the page as they are; escaping would change their hashes.
STYLE = Markup(_CSS)  # noqa: S704 - a file of our own, nothing from outside
SCRIPT = Markup(_JS)  # noqa: S704 - the same
# As sources of the Content-Security-Policy.
STYLE_SOURCE = _source(_CSS)
SCRIPT_SOURCE = _source(_JS)

PREVIEW = (PAGES / "preview.png").read_bytes()
# What the picture measures, for the tags that announce it.
PREVIEW_SIZE = (600, 315)
