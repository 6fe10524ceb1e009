"""`/openapi.yaml` and `/docs`: open to whoever reaches the internal listener, and without anything from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest

from payments_service.app import internal_app
from payments_service.metrics import Metrics
from tests.house import settings_for
from tests.servers import serve

# rapidoc@9.3.8 of the npm registry, dist/rapidoc-min.js.
PUBLISHED = "affbd173a65e870e18f392cca963113bcdafb6e50e88cd2f6a834a65b22db94d"
SCRIPT = "/docs/rapidoc-min.js"


@pytest.fixture
async def listener() -> AsyncIterator[str]:
    """The internal listener, without a database: the documents need none."""
    async with serve(
        internal_app(cast("Any", SimpleNamespace(metrics=Metrics())), settings_for()), lifespan="off"
    ) as url:
        yield url


class Page(HTMLParser):
    """What a page loads and runs."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.written: dict[str, str] = {}
        self._tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.written[self._tag] = self.written.get(self._tag, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""

    def of(self, name: str) -> dict[str, str]:
        return {tag: value for tag, each, value in self.attributes if each == name}


async def test_the_documents_need_no_token_and_what_stands_beside_them_does(
    listener: str, http: aiohttp.ClientSession
) -> None:
    """The description, the page and its script are open; no other address becomes open by looking like them."""
    for path in ("/openapi.yaml", "/docs", SCRIPT):
        async with http.get(listener + path) as answer:
            assert answer.status == 200, path
    for path in ("/openapi.yaml/", "/docsx", "/doc", "/v1/docs", "/"):
        async with http.get(listener + path) as answer:
            assert answer.status == 401, path
    for path in ("/docs/", "/docs/index.html", "/docs/../v1/clients", "/docs/%2e%2e/docs.py"):
        async with http.get(listener + path) as answer:
            assert answer.status in (401, 404), path


async def test_the_description_is_the_file(listener: str, http: aiohttp.ClientSession) -> None:
    """`/openapi.yaml` is openapi.yaml, byte for byte, as YAML."""
    async with http.get(f"{listener}/openapi.yaml") as answer:
        assert answer.content_type == "application/yaml"
        assert await answer.read() == (Path(__file__).parent.parent / "openapi.yaml").read_bytes()


async def test_the_page_may_load_from_its_own_listener_only(listener: str, http: aiohttp.ClientSession) -> None:
    """The policy closes everything and opens the page's own origin; no script but files of ours may run."""
    async with http.get(f"{listener}/docs") as answer:
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    closed = {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert {name for name, sources in policy.items() if sources == "'none'"} == closed
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    allowed = {source for sources in policy.values() for source in sources.split()}
    assert allowed == {"'none'", "'self'", "'unsafe-inline'", "data:"}
    assert [name for name, sources in policy.items() if "'unsafe-inline'" in sources] == ["style-src"]


async def test_the_page_names_nothing_elsewhere(listener: str, http: aiohttp.ClientSession) -> None:
    """All that the page names is served by this listener; it has no inline script, which the policy would stop; the
    viewer, which knows a font server, is told not to load fonts."""
    async with http.get(f"{listener}/docs") as answer:
        text = await answer.text()
    assert not re.search(r"(?i)https?:|//|@import|url\(", text)
    page = Page(text)
    named = {**page.of("src"), **page.of("href"), **page.of("spec-url")}
    assert named.pop("link") == "data:,"  # no icon, and no request for one
    assert named == {"script": SCRIPT, "a": "/openapi.yaml", "rapi-doc": "/openapi.yaml"}
    for path in named.values():
        async with http.get(listener + path) as answer:
            assert answer.status == 200, path
    assert "script" not in page.written
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.of("load-fonts") == {"rapi-doc": "false"}


async def test_the_script_is_the_published_one(listener: str, http: aiohttp.ClientSession) -> None:
    """The script travels compressed and unpacks to RapiDoc as its authors published it; its licence lies beside it."""
    async with http.get(listener + SCRIPT, auto_decompress=False) as answer:
        assert answer.content_type == "text/javascript"
        assert answer.headers["Content-Encoding"] == "gzip"
        packed = await answer.read()
        assert answer.headers["Content-Length"] == str(len(packed))
    script = gzip.decompress(packed)
    assert script.startswith(b"/*! RapiDoc 9.3.8 ")
    assert hashlib.sha256(script).hexdigest() == PUBLISHED
    async with http.get(listener + SCRIPT) as answer:
        assert await answer.read() == script
    viewer = Path(__file__).parent.parent / "payments_service" / "internal" / "viewer"
    assert "RapiDoc 9.3.8" in (viewer / "LICENSE.rapidoc.txt").read_text()
