"""`/openapi.yaml` and `/docs`: the description of both listeners, and a viewer that needs no network."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

_INSTALLED = Path(__file__).parent.parent / "_openapi.yaml"
_CHECKOUT = Path(__file__).parent.parent.parent / "openapi.yaml"
_VIEWER = Path(__file__).parent / "viewer"

# The viewer is our own copy of a published one; it may style itself, but loads and sends nothing elsewhere.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@cache
def description() -> str:
    """openapi.yaml as text."""
    return (_INSTALLED if _INSTALLED.is_file() else _CHECKOUT).read_text("utf-8")


async def openapi_yaml(_request: Request) -> Response:
    return Response(description(), media_type="application/yaml")


async def viewer(_request: Request) -> Response:
    page = (_VIEWER / "index.html").read_text("utf-8")
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": _POLICY})


async def viewer_script(_request: Request) -> Response:
    """RapiDoc 9.3.8 (MIT), as published, compressed: every browser of the last twenty years unpacks it."""
    packed = (_VIEWER / "rapidoc-min.js.gz").read_bytes()
    headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=86400"}
    return Response(packed, media_type="text/javascript", headers=headers)
