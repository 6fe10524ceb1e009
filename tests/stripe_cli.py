"""Stripe's official CLI: it replays Stripe's own fixtures, and it lists the parameters of Stripe's API.

Its description of the API is that of 2026-08-26.dahlia, one release before the one the service speaks.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import nodejs

# Of a start, which takes a quarter of a second. A CLI that hangs is killed.
TIMEOUT = 30

_PACKAGE = "@stripe/cli-linux-x64"

# What "endive" renamed after the CLI's release: it does not list it.
NEWER = {"checkout sessions create": {"allowed_payment_method_types"}}


class NoCli(Exception):
    """This machine has no Stripe CLI, and the registry none to install."""


@functools.cache
def program() -> Path:
    """Where the CLI is: as the lock file pins it, elsewhere the machine's own if it is of the same version.

    Locked by its hash is the package for Linux on x86-64 alone: not every registry has the others.
    """
    if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        found = nodejs.install(nodejs.PACKAGES) / _PACKAGE / "bin" / "stripe"
        assert found.exists(), f"npm installed no {found}"
        return found
    version = json.loads((nodejs.PACKAGES / "package.json").read_text())["optionalDependencies"][_PACKAGE]
    if on_path := shutil.which("stripe"):
        told = _output(Path(on_path), "--version")
        if told.split()[-1:] == [version]:
            return Path(on_path)
    raise NoCli(f"Stripe's CLI is pinned for Linux on x86-64; elsewhere put `stripe` {version} into the PATH")


@functools.cache
def _home() -> str:
    """A home directory for the CLI that goes with this process: nothing of the user's own is read or written."""
    folder = tempfile.TemporaryDirectory(prefix="stripe-cli-")
    atexit.register(folder.cleanup)
    return folder.name


def environment() -> dict[str, str]:
    """No account, no telemetry, and no way out of the machine: Go sends nothing for loopback to a proxy."""
    home = _home()
    nowhere = "http://127.0.0.1:1"
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "XDG_CONFIG_HOME": home,
        "STRIPE_CLI_TELEMETRY_OPTOUT": "1",
        "HTTPS_PROXY": nowhere,
        "HTTP_PROXY": nowhere,
    }


def _output(cli: Path, *arguments: str) -> str:
    command = [str(cli), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
        env=environment(),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclass(frozen=True)
class Ran:
    """How one start of the CLI ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The API's reply, which the CLI prints as it came, errors (but 401) included."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(frozen=True)
class StripeCli:
    """The CLI as the account `key` at the API `url`."""

    url: str
    key: str

    async def __call__(self, *arguments: str) -> Ran:
        process = await asyncio.create_subprocess_exec(
            str(program()),
            *arguments,
            *("--api-base", self.url, "--api-key", self.key),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        try:
            async with asyncio.timeout(TIMEOUT):
                out, err = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    async def trigger(self, event: str, *arguments: str) -> Ran:
        """Replay the fixture that makes this event happen: every call of it must be answered as Stripe does."""
        ran = await self("trigger", event, *arguments)
        assert ran.code == 0, f"{ran.out}\n{ran.err}"
        return ran


@functools.cache
def cli_parameters(command: str) -> frozenset[str]:
    """The parameters of a command such as `checkout sessions create`: `mode`, `payment_intent_data.description`.

    The CLI has no flags for arrays of objects (`line_items`), maps (`metadata`) and `expand`.
    """
    shown = _output(program(), "help", *command.split())
    _, heading, told = shown.partition("\nRequest Parameters:\n")
    assert heading, f"no parameters in the help of {command}: {shown}"
    flags = re.findall(r"^ +--([a-z0-9.-]+)", told.partition("\nFlags:\n")[0], re.MULTILINE)
    return frozenset(flag.replace("-", "_") for flag in flags)


def unlisted(command: str, params: Mapping[str, Any]) -> set[str]:
    """The parameters that Stripe's API does not have for this command, as far as the CLI can list them.

    Of `created[gte]` it lists `created`; see `cli_parameters` for what it never lists: that is passed over.
    """
    listed = cli_parameters(command) | NEWER.get(command, set())
    return {name for name in _names(params) if name not in listed and name.rpartition(".")[0] not in listed}


def _names(params: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in params.items():
        if name == "metadata" or (name == "expand" and not prefix):
            continue
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")
        elif not (isinstance(value, (list, tuple)) and value and isinstance(value[0], Mapping)):
            yield prefix + name
