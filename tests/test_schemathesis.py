"""schemathesis asks of both listeners whatever openapi.yaml allows, and what it does not: no answer contradicts it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import pytest_asyncio

from tests.house import TOKEN
from tests.openapi import DOCUMENT, METHODS, Schema, operations
from tests.scale import FULL
from tests.schemathesis.known import Stage, Values
from tests.support import open_house

ROOT = Path(__file__).parent.parent
SETUP = ROOT / "tests/schemathesis/settings.toml"
PLATFORM_SECRET = "whsec_of-the-platform-worth-nothing"

# How many cases are made up for each operation, besides those that the coverage phase counts out. FUZZ multiplies them,
# and makes them others in each run; without it a run is like the one before. See `make fuzz`.
EXAMPLES = 3
TIMES = int(os.environ.get("FUZZ", "0"))


# Processor time that the suite does without.
SHORTER = """
[phases.coverage]
unexpected-methods = ["TRACE"]
# Valid requests are made up anyhow; combining all that may be absent or null proves little for its number.
generation.mode = "negative"
# They take the filters of listPayments and listEvents.
[[operations]]
include-operation-id = ["exportPayments", "redeliverEvents"]
phases.coverage.enabled = false
"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stage(postgres: str) -> AsyncIterator[Stage]:
    async with open_house(postgres, stripe_webhook_secret=PLATFORM_SECRET) as house:
        yield await Stage.of(house)


@pytest.mark.parametrize("listener", ["internal", "public"])
async def test_no_answer_contradicts_the_document(stage: Stage, listener: str, tmp_path: Path) -> None:
    """All checks, in all phases: examples, coverage of the schemas, made-up requests, and chains of them by links."""
    described = document(listener, stage)
    (tmp_path / "openapi.json").write_text(json.dumps(described))
    (tmp_path / "schemathesis.toml").write_text(SETUP.read_text() + dictionaries(listener, stage))
    url = stage.house.internal if listener == "internal" else stage.house.public
    secret = await stage.house.save_stripe()  # anew: the other listener's run may have set another webhook up
    code, told = await run(tmp_path, url, STRIPE_SECRET=secret, TENANT=str(stage.house.client_id))
    asked = sum(len(item.keys() & set(METHODS)) for item in described["paths"].values())
    assert code == 0, told
    assert f"Tested: {asked}\n" in told, told


async def run(folder: Path, url: str, **environ: str) -> tuple[int | None, str]:
    """The exit code of schemathesis, and its report. A process of its own: the service answers in this one."""
    often = [f"--max-examples={EXAMPLES * (TIMES or 1)}", *(() if TIMES else ("--generation-deterministic",))]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", "openapi.json", "--url", url, "--no-color", *often),
        cwd=folder,
        # Nothing else: whoever calls with `requests` goes through all of it each time, for proxies.
        env={
            "PYTHONPATH": str(ROOT),
            "HYPOTHESIS_STORAGE_DIRECTORY": str(ROOT / ".hypothesis"),  # tables that take two seconds to make
            "SERVICE_TOKEN": TOKEN,
            "PLATFORM_SECRET": PLATFORM_SECRET,
            **environ,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await program.communicate()
    return program.returncode, told.decode()


def document(listener: str, stage: Stage) -> Schema:
    """openapi.yaml of one listener alone, its parameters with examples that lead somewhere."""
    mine = {each.key for each in operations() if each.listener == listener}
    made: Schema = {**deepcopy(DOCUMENT), "servers": [{"url": "/"}], "paths": {}}
    for path, item in deepcopy(DOCUMENT["paths"]).items():
        kept = {name: each for name, each in item.items() if name not in METHODS or (name.upper(), path) in mine}
        if not kept.keys().isdisjoint(METHODS):
            made["paths"][path] = {name: each for name, each in kept.items() if name != "servers"}
    for group in groups(made):
        group[:] = [with_examples(each, stage.values) for each in group]
    components = made["components"]["parameters"]
    made["components"]["parameters"] = {name: with_examples(each, stage.values) for name, each in components.items()}
    return made


def groups(described: Schema) -> Iterator[list[Schema]]:
    """Each list of parameters."""
    for item in described["paths"].values():
        for each in (item, *(item[method] for method in METHODS if method in item)):
            each.pop("servers", None)
            yield each.get("parameters", [])


def with_examples(parameter: Schema, values: Values) -> Schema:
    """The parameter with two known values as examples; without any of its own where each call must bring another."""
    name = parameter.get("name")
    if name == "Idempotency-Key":
        return {key: each for key, each in parameter.items() if key != "example"}
    if name not in values:
        return parameter
    examples = {f"known {number}": {"value": value} for number, value in enumerate(values[name][:2])}
    return {**{key: each for key, each in parameter.items() if key != "example"}, "examples": examples}


def dictionaries(listener: str, stage: Stage) -> str:
    """The known values for made-up requests, as the end of the settings."""
    lines = [f"[dictionaries.{name}]\nvalues = {json.dumps(each)}" for name, each in stage.values.items()]
    lines += ["[parameters]", *(f'"{name}" = {{ dictionary = "{name}", probability = 0.8 }}' for name in stage.values)]
    if not (TIMES or FULL):
        lines.append(SHORTER)
    if listener == "public":
        # There its guesses at links are not valid: they take a tenant from an address that has none.
        lines += ["[phases.stateful.inference]", "algorithms = []"]
    return "\n".join(lines)
