"""The card that WhatsApp draws of a link: made from the page's Open Graph tags, read as its scraper reads them.

Only loopback hosts are asked, nothing is followed, size and time are bounded, and what fails just gives no card.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urljoin

from yarl import URL

from payments_service.sandbox.outbound import Outbound

USER_AGENT = "WhatsApp/2.23.20.0 A"  # as tests and scanners know it
_PAGE_BYTES = 300_000  # in practice WhatsApp reads no more of a page, nor of a picture
_PICTURES = ("image/png", "image/jpeg", "image/webp")
_LONGEST = 200  # characters of a title or description


@dataclass(frozen=True, slots=True)
class Card:
    """`picture` is a data URI, or empty."""

    title: str
    text: str
    host: str
    picture: str = field(default="", repr=False)


async def look(outbound: Outbound, link: str) -> Card | None:
    """The card of this link, or None: there is no such page, it tells no title, or it is not on this machine."""
    page = await outbound.fetch(link, {"User-Agent": USER_AGENT, "Accept": "text/html"}, _PAGE_BYTES)
    if page is None or page.content_type != "text/html":
        return None
    tags = _tags(page.body.decode("utf-8", "replace"))
    title = tags.get("og:title") or tags.get("title", "")
    if not title:
        return None
    picture = await _picture(outbound, link, tags.get("og:image", ""))
    text = tags.get("og:description", "")
    return Card(title[:_LONGEST], text[:_LONGEST], URL(link).authority, picture)


async def _picture(outbound: Outbound, link: str, image: str) -> str:
    """As a data URI, or empty: the chat's page loads nothing from elsewhere."""
    try:
        address = urljoin(link, image)
    except ValueError:
        return ""
    if not image:
        return ""
    found = await outbound.fetch(address, {"User-Agent": USER_AGENT, "Accept": "image/*"}, _PAGE_BYTES)
    if found is None or found.cut or found.content_type not in _PICTURES:
        return ""
    return f"data:{found.content_type};base64,{base64.b64encode(found.body).decode()}"


def _tags(text: str) -> dict[str, str]:
    reader = _Head()
    reader.feed(text)
    return reader.tags


class _Head(HTMLParser):
    """Collects the Open Graph tags and the title; of several tags with one name the first counts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: dict[str, str] = {}
        self._in_title = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_title = tag == "title"
        given = dict(attrs)
        name = given.get("property") or ""
        if tag == "meta" and name.startswith("og:"):
            self.tags.setdefault(name, " ".join((given.get("content") or "").split()))

    def handle_endtag(self, tag: str) -> None:
        self._in_title = False

    def handle_data(self, data: str) -> None:
        if self._in_title and data.strip():
            self.tags.setdefault("title", " ".join(data.split()))
