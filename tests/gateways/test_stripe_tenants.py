"""Many tenants over one transport: nobody's key with another's call, no slot lost, no secret told."""

from __future__ import annotations

import ast
import asyncio
import os
import random
import subprocess
import sys
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import stripe as sdk

from payments_service import accounts
from payments_service.errors import Ambiguous, GatewayError
from payments_service.gateways.base import RefundOrder
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.transport import Transport
from payments_service.ids import new_id
from payments_service.lifecycle import Outcome
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import CREDENTIALS, HOOK, Hasty, begin, opened, posted, request
from tests.house import World, eventually
from tests.scale import of
from tests.support import Log

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, quick = stripe_stage.stripe, stripe_stage.quick

ROOT = Path(__file__).parents[2]
TENANTS, CALLS = 50, of(1000, 300)


# --- keys


async def test_a_thousand_concurrent_calls_of_fifty_tenants_each_go_out_with_their_own_key(
    world: World, transport: Transport
) -> None:
    """Credentials from the database, awaits before the call, one shared transport: every request's key and idempotency
    key are those of its attempt's tenant; no cookie comes back, no telemetry goes along."""
    # A jar keeps no cookie of a bare address: by name, a shared one would show.
    url = world.stripe.public_url = world.stripe.public_url.replace("127.0.0.1", "localhost")
    stripe = Stripe(transport, url)
    context = replace(world.context, gateways={"stripe": stripe})
    keys = {uuid4(): f"sk_test_Tenant{number:04}" for number in range(TENANTS)}
    for client_id, key in keys.items():
        world.stripe.add_account(key)
        await accounts.save(context, client_id, {"stripe_secret_key": key}, actor="test")
    dice = random.Random()
    # The pool lets nobody wait for long, and this machine may be busy.
    loads = asyncio.Semaphore(100)
    owner: dict[str, UUID] = {}

    async def call(client_id: UUID) -> None:
        async with loads:
            found = await accounts.credentials(context, client_id, "stripe", Currency.USD, tenant=client_id)
        for _ in range(dice.randrange(5)):
            await asyncio.sleep(0)
        asked = request(client_id=client_id)
        owner[str(asked.attempt_id)] = client_id
        started = await stripe.start(found, asked)
        assert world.stripe.find(asked.reference)[0].key == keys[client_id]
        assert world.stripe.session(asked.reference)["id"] == started.poll_url

    calls = [call(client_id) for client_id in keys for _ in range(CALLS // TENANTS)]
    dice.shuffle(calls)
    await asyncio.gather(*calls)
    seen = list(world.stripe.requests)
    assert len(seen) >= CALLS
    assert len(world.stripe.sessions()) == CALLS
    for each in seen:
        client_id = owner[each.headers["idempotency-key"]]
        assert each.key == keys[client_id]
        assert each.params["metadata"]["client_id"] == str(client_id)
        assert "cookie" not in each.headers
        assert "x-stripe-client-telemetry" not in each.headers
    assert Counter(each.key for each in seen).keys() == set(keys.values())
    assert sdk.enable_telemetry is False


# --- the pool


@pytest.mark.parametrize("end", ["cancelled", "timed out"])
async def test_four_slow_bodies_do_not_exhaust_the_pool(sandbox: StripeSandbox, end: str) -> None:
    """Four connections, four answers that drip: given up or out of time they are free again at once."""
    async with Transport(connections_per_host=4) as transport:
        adapter = Hasty(transport, sandbox.public_url)
        attempt = await begin(Stripe(transport, sandbox.public_url))
        sandbox.add_fault("slow_body", on=["sessions.retrieve"], times=4, seconds=60)
        patient = adapter if end == "timed out" else Stripe(transport, sandbox.public_url)
        looks = [asyncio.create_task(patient.check(CREDENTIALS, attempt)) for _ in range(4)]
        if end == "cancelled":
            await eventually(lambda: sandbox.calls["sessions.retrieve"] == 4, every=0.005)
            await asyncio.sleep(0.05)
            for look in looks:
                look.cancel()
        ends = await asyncio.gather(*looks, return_exceptions=True)
        kind = asyncio.CancelledError if end == "cancelled" else Ambiguous
        assert [type(each) for each in ends] == [kind] * 4
        async with asyncio.timeout(2):
            reports = await asyncio.gather(*(patient.check(CREDENTIALS, attempt) for _ in range(8)))
        assert {report.outcome for report in reports} == {Outcome.PENDING}


# --- secrets


def test_the_sdk_prints_nothing_by_itself() -> None:
    """It would print requests and answers to whoever runs the service with STRIPE_LOG."""
    program = (
        "from payments_service.gateways import stripe; from stripe import _util; print(_util._console_log_level())"
    )
    run = [sys.executable, "-c", program]
    done = subprocess.run(
        run, cwd=ROOT, env={**os.environ, "STRIPE_LOG": "debug"}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "None\n"


async def test_no_secret_shows_in_texts_errors_or_the_log(
    stripe: Stripe, sandbox: StripeSandbox, written_log: Path
) -> None:
    """Through all calls, as they succeed and as they fail, with everything logged at DEBUG."""
    log = Log(written_log)
    key = "sk_test_TheCanaryKeyOfThisTest0042"
    sandbox.add_account(key)
    endpoint = await stripe.provision(StripeCredentials(key), HOOK)
    credentials = StripeCredentials(key, (endpoint.secret,))
    attempt = await begin(stripe, credentials, payer_email="canary@example.com")
    intent = (await sandbox.pay(attempt.reference))["payment_intent"]
    order = RefundOrder(new_id(), intent, Money(100, Currency.USD), "canary reason", new_id())
    texts = [repr(credentials), str(credentials), f"{credentials}", repr(endpoint)]
    now = attempt.started_at

    async def through() -> None:
        calls: list[Any] = [
            stripe.start(credentials, request(payer_email="canary@example.com")),
            stripe.start(credentials, request(amount=Money(1, Currency.USD))),
            stripe.check(credentials, attempt),
            stripe.check(credentials, opened(None)),
            stripe.withdraw(credentials, attempt),
            stripe.refund(credentials, order),
            stripe.verify(credentials, HOOK),
            stripe.missed(credentials, HOOK, now, now),
            stripe.provision(credentials, HOOK),
            stripe.retire(credentials, ["we_1"]),
        ]
        for call in calls:
            try:
                texts.append(repr(await call))
            except GatewayError as error:
                told: BaseException | None = error
                while told is not None:
                    texts.append(f"{told!r} {told}")
                    told = told.__cause__ or told.__context__

    for name in (None, "html", "error500", "unauthorized", "rate_limited", "reset", "in_use"):
        sandbox.clear_faults()
        if name:
            sandbox.add_fault(name)
        await through()
    sandbox.clear_faults()
    sandbox.expire_key(key)
    await through()
    for secret in (endpoint.secret, "whsec_other"):
        try:
            stripe.read_callback(credentials, posted({"canary": 1}, secret))
        except GatewayError as error:
            texts.append(repr(error))
    written = log.text
    assert "stripe.create_session" in written
    for secret in (key, endpoint.secret):
        assert not [text for text in texts if secret in text]
        assert secret not in written
    for personal in ("canary@example.com", "canary reason"):
        assert personal not in written


# --- the rules that keep it so


@pytest.mark.parametrize(
    "line",
    [
        "stripe.api_key = key",
        "stripe.checkout.Session.create(mode='payment')",
        "stripe.Refund.create(amount=1)",
        "stripe.default_http_client = None",
    ],
)
def test_a_global_key_does_not_pass_the_projects_own_linter(line: str) -> None:
    """TID251, in any module of the service."""
    snippet = f'"""A module."""\n\nimport stripe\n\nkey = input()\n{line}\n'
    command = [str(Path(sys.executable).with_name("ruff")), "check", "--no-cache", "--output-format", "concise"]
    command += ["--stdin-filename", "payments_service/gateways/careless.py", "-"]
    done = subprocess.run(command, input=snippet, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert "TID251" in done.stdout


def test_one_module_alone_calls_the_sdk() -> None:
    """An import contract says so, and at run time nothing else imports it."""
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = [each for each in configured["contracts"] if each.get("forbidden_modules") == ["stripe"]]
    assert contract["type"] == "forbidden"
    assert contract["source_modules"] == ["payments_service"]
    importing = set()
    for path in (ROOT / "payments_service").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == "stripe" for name in names):
                importing.add(path.name)
    assert importing == {"stripe_client.py"}
