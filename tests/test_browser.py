"""The browser's tests notice what they are there to notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from tests import browser as chromium
from tests.browser import axe, phone
from tests.house import House
from tests.servers import serve

ONE_PAGE = """<!doctype html><html lang="en"><head><meta name="viewport" content="width=device-width">
<title>A page</title></head><body><main><h1>A page</h1>{}</main></body></html>"""
STRICT = {"Content-Security-Policy": "default-src 'none'"}


def site(inside: str, **more: Any) -> Starlette:
    """A page with this inside, at `/`; at `/away` a redirect to it."""

    async def page(request: Request) -> Response:
        return HTMLResponse(ONE_PAGE.format(inside), **more)

    async def away(request: Request) -> Response:
        return RedirectResponse("/", headers={"X-Filling": "x" * 500})

    return Starlette(routes=[Route("/", page), Route("/away", away)])


async def test_an_unknown_link_may_be_answered_with_404(house: House, browser: Browser) -> None:
    """The console speaks of the page's own status too, which is no fault of the page."""
    async with phone(browser) as screen:
        answer = await screen.page.goto(f"{house.public}/pay/{'A' * 27}")
        assert answer is not None
        assert answer.status == 404
        assert await axe(screen) == []


@pytest.mark.parametrize("javascript", [True, False])
async def test_an_input_without_a_label_is_noticed(browser: Browser, javascript: bool) -> None:
    """Through the strictest policy, with scripts or without."""
    async with serve(site('<input name="phone">', headers=STRICT)) as url, phone(browser, javascript=javascript) as it:
        await it.page.goto(url)
        (violation,) = await axe(it)
    assert violation == 'label: Form elements must have labels: <input name="phone">'


async def test_axe_sees_what_stands_in_for_scripts_and_leaves_them_off(browser: Browser) -> None:
    """The page without scripts is the one that is looked at; the next one has none either."""
    inside = '<noscript><input name="phone"></noscript><script>document.title = "Changed"</script>'
    async with serve(site(inside)) as url, phone(browser, javascript=False) as screen:
        for _ in range(2):
            await screen.page.goto(url)
            assert [line.split(":")[0] for line in await axe(screen)] == ["label"]
            assert await screen.page.title() == "A page"


async def test_what_is_too_small_for_a_finger_is_noticed(browser: Browser) -> None:
    """Two buttons of a few pixels beside each other."""
    inside = "".join(f'<button style="width:9px;height:9px;padding:0">{word}</button>' for word in "ab")
    async with serve(site(inside)) as url, phone(browser) as screen:
        await screen.page.goto(url)
        assert {line.split(":")[0] for line in await axe(screen)} == {"target-size"}


async def test_a_page_wider_than_the_screen_is_noticed(browser: Browser) -> None:
    """By how much, too."""
    wide = site('<div style="width:500px;margin-left:-8px">wide</div>')
    async with serve(wide) as url, phone(browser, width=320) as screen:
        await screen.page.goto(url)
        assert await screen.sideways() == 180


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_request_to_another_host_is_noticed(browser: Browser, javascript: bool) -> None:
    """Even of a page whose policy allows it; it never leaves the machine."""
    with pytest.raises(AssertionError, match=r"asked another host: GET https://example\.com/pixel\.gif"):
        async with (
            serve(site('<img alt="" src="https://example.com/pixel.gif">')) as url,
            phone(browser, javascript=javascript) as screen,
        ):
            await screen.page.goto(url)


@pytest.mark.parametrize("javascript", [True, False])
async def test_what_the_policy_stops_is_noticed(browser: Browser, javascript: bool) -> None:
    """An image and a style that the policy does not name."""
    inside = '<img alt="" src="/picture.png"><p style="color:red">red</p>'
    with pytest.raises(AssertionError, match="Content Security Policy") as noticed:
        async with (
            serve(site(inside, headers=STRICT)) as url,
            phone(browser, javascript=javascript) as screen,
        ):
            await screen.page.goto(url)
    assert len(str(noticed.value).splitlines()) == 2


async def test_errors_are_noticed(browser: Browser) -> None:
    """One that a script throws, one that it writes, one picture that is not there."""
    inside = '<img alt="" src="/none.png"><script>console.error("written"); throw new Error("thrown")</script>'
    with pytest.raises(AssertionError) as noticed:
        async with serve(site(inside)) as url, phone(browser) as screen:
            await screen.page.goto(url)
    for words in ("console: written", "uncaught: thrown", "404"):
        assert words in str(noticed.value)


async def test_bytes_are_counted_over_redirects(browser: Browser) -> None:
    """Each hop is a request of its own, headers counted."""
    async with serve(site("x" * 3000)) as url, phone(browser) as screen:
        await screen.page.goto(f"{url}/away")
        size = await screen.size()
        first, second = screen.exchanges[:2]
        assert (first.url, second.url) == (f"{url}/away", f"{url}/")
        assert 500 < first.size < 1000
        assert 3000 < second.size < 4000
        assert size == sum(each.size for each in screen.exchanges)


def test_a_machine_without_chromium_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that does not start is none."""
    stub = tmp_path / "chromium-browser"
    stub.write_text("#!/bin/sh\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(chromium, "PACKAGED", tmp_path)
    with pytest.raises(chromium.NoChromium, match="apt-get install chromium"):
        chromium.find()
