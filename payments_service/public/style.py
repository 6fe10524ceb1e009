"""The one style sheet: it stands inside each page, and only its hash may in the policy."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from markupsafe import Markup

PAGES = Path(__file__).parent / "pages"


def _small(css: str) -> str:
    """The style sheet without comments and line breaks: it is sent with every page, on data paid by the megabyte."""
    without_comments = re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)
    return re.sub(r"\s*([{};,])\s*", r"\1", re.sub(r"\s+", " ", without_comments)).replace(";}", "}").strip()


_CSS = _small((PAGES / "style.css").read_text(encoding="utf-8"))

# Ours and constant, so it goes into the page as it is; escaping it would change its hash.
STYLE = Markup(_CSS)  # noqa: S704 - a file of our own, nothing from outside
# As a source of the Content-Security-Policy.
STYLE_SOURCE = f"'sha256-{base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()}'"
