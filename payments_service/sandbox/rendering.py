"""What the simulator's pages have in common: templates, security headers, forms, addresses under a mount."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from payments_service.sandbox import wire
from payments_service.sandbox.phone_line import Tone

_TONES: dict[str, Tone] = {
    "Paid": "good",
    "Delivered": "good",
    "Awaiting Delivery": "good",
    "Cancelled": "bad",
    "Failed": "bad",
    "Disputed": "bad",
    "Refunded": "bad",
    # InnBucks'
    "Claimed": "good",
    "Expired": "bad",
    "Timed Out": "bad",
    "TimedOut": "bad",
    # Stripe's: of sessions, refunds and disputes
    "paid": "good",
    "succeeded": "good",
    "won": "good",
    "expired": "bad",
    "failed": "bad",
    "canceled": "bad",
    "lost": "bad",
    # EcoCash's
    "SUCCESS": "good",
    "COMPLETED": "good",
    "FAILED": "bad",
    "EXPIRED": "bad",
    "REJECTED": "bad",
    # WhatsApp's
    "delivered": "good",
    "read": "good",
}
_POLICY = "Content-Security-Policy"
_HEADERS = {
    # No form-action here: after paying, the browser is sent on to the merchant's own address.
    _POLICY: "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_WITH_PICTURES = {**_HEADERS, _POLICY: f"{_HEADERS[_POLICY]}; img-src data:"}

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def tone(status: str) -> Tone:
    """How a status is coloured; one that nobody knows like one that is open."""
    return _TONES.get(status, "warn")


_templates.globals["tone"] = tone


def page(request: Request, template: str, status: int = 200, **values: object) -> Response:
    """The template with these values and `root`, see below."""
    return HTMLResponse(_render(request, template, values), status, _HEADERS)


def picture_page(request: Request, template: str, **values: object) -> Response:
    """The same for one that may hold pictures, inside itself."""
    return HTMLResponse(_render(request, template, values), 200, _WITH_PICTURES)


def _render(request: Request, template: str, values: Mapping[str, object]) -> str:
    return _templates.get_template(template).render(root=root(request), **values)


def missing() -> Response:
    return HTMLResponse("<p>There is no such thing in this simulator.</p>", 404, _HEADERS)


def go(address: str) -> Response:
    """After a POST: the browser gets this page next."""
    return RedirectResponse(address, 303, _HEADERS)


def root(request: Request) -> str:
    """The path under which the simulator is mounted, empty when it has a port of its own."""
    return str(request.scope.get("root_path", ""))


async def form(request: Request) -> dict[str, str]:
    return dict(wire.decode(await request.body()))
