"""Every gateway's own simulator behind the same few handles, for the registry-wide suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from payments_service.gateways import stripe_events
from payments_service.gateways.base import Message, Opened, StartRequest
from payments_service.gateways.ecocash_credentials import OpenApiCredentials
from payments_service.gateways.ecocash_open_api import OpenApi, OpenApiSite
from payments_service.lifecycle import Outcome
from payments_service.money import Currency
from payments_service.sandbox import ecocash as ecocash_sandbox
from payments_service.sandbox import innbucks as innbucks_sandbox
from payments_service.sandbox import paynow as paynow_sandbox
from payments_service.sandbox import stripe as stripe_sandbox
from tests.servers import Stage

EVERY_EXPRESS = "ecocash, onemoney, innbucks, omari"
# Nobody listens there, and the simulators post to this machine only: what they would post is on their record.
HOOK = "https://pay.example/callbacks/x/y"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@dataclass
class Simulator:
    """A gateway's simulator behind the few handles that the suite needs.

    `places` are the gateway's base URLs in the settings, each with where it is below the simulator's; `values` are a
    tenant's saved fields for every currency; `foreign` are such as the gateway never gave to this tenant; `preferences`
    open every method. `pay`, `approve`, `cancel` and `refund` act as the customer (on the gateway's page, at a prompt)
    and the merchant, and raise ValueError for what cannot be done any more; `unpaid` is what a look-up says after
    `cancel`; `refund` is None where look-ups tell of none. `pay_code` types a code in the wallet's app; `otp` is what
    the customer got by SMS. `callback` gives what was posted last; None where the gateway posts nothing. `fault` spoils
    every answer of the named kind from now on, and says whether the gateway does the work all the same; `heal` ends
    that. `known` counts the gateway's payments, `kept` is all that it keeps.

    `name` is how these handles know an attempt: by our reference, unless the gateway has another name of ours. `signs`:
    who posted a callback can be told from what it says. `traces`: an attempt whose start was not answered can be found,
    and is `lost` otherwise. `echoes`: answers name our reference. `start_yes`: faults that leave a start's yes a yes.
    """

    places: Mapping[str, str]
    values: Mapping[str, str]
    foreign: Mapping[str, str]
    preferences: Mapping[str, str]
    pay: Callable[[str], Awaitable[Any]]
    approve: Callable[[str], Awaitable[Any]]
    pay_code: Callable[[str], Awaitable[Any]]
    otp: Callable[[str], str]
    cancel: Callable[[str], Awaitable[Any]]
    unpaid: Outcome
    refund: Callable[[str], Awaitable[Any]] | None
    callback: Callable[[str], Awaitable[Message]] | None
    fault: Callable[[str, str], bool]
    heal: Callable[[], Any]
    known: Callable[[], int]
    kept: Callable[[], str]
    name: Callable[[Opened | StartRequest], str] = lambda attempt: attempt.reference
    signs: bool = True
    traces: bool = True
    lost: Outcome = Outcome.NOT_FOUND
    echoes: bool = True
    start_yes: tuple[str, ...] = ()


async def nobody(_name: str) -> None:
    """For a step that the gateway does not have."""
    raise AssertionError("the gateway has no such step")


def no_otp(_name: str) -> str:
    raise AssertionError("the gateway sends no password")


@asynccontextmanager
async def paynow(stage: Stage, url: str) -> AsyncIterator[Simulator]:
    async with paynow_sandbox.build(url) as sandbox:
        stage.app = sandbox.app
        (usd_id, usd_key, _), (zig_id, zig_key, _) = paynow_sandbox.DEMO_INTEGRATIONS

        async def callback(reference: str) -> Message:
            await sandbox.settled()
            body = [each.body for each in sandbox.deliveries if each.reference == reference][-1]
            return Message(body, FORM, datetime.now(UTC))

        operations = {
            "start": ["initiate", "express"],
            "check": ["poll", "trace"],
            "confirm": ["otp"],
        }

        def fault(name: str, on: str) -> bool:
            sandbox.add_fault(name, on=operations[on], seconds=0.0)
            return True

        names = ("paynow_integration_id", "paynow_integration_key")
        zig_names = ("paynow_zig_integration_id", "paynow_zig_integration_key")
        yield Simulator(
            places={"paynow_url": ""},
            values=dict(zip((*names, *zig_names), (usd_id, usd_key, zig_id, zig_key), strict=True)),
            foreign=dict.fromkeys((*names, *zig_names), "5f0c1d2e-3b4a-4c5d-8e9f-0a1b2c3d4e5f"),
            preferences={"paynow_auth_email": "till@acme.example", "paynow_express_methods": EVERY_EXPRESS},
            pay=sandbox.pay,
            approve=sandbox.approve,
            pay_code=sandbox.pay_code,
            otp=sandbox.otp_of,
            cancel=sandbox.cancel,
            unpaid=Outcome.FAILED,
            refund=sandbox.refund,
            callback=callback,
            fault=fault,
            heal=sandbox.clear_faults,
            known=lambda: len(sandbox.transactions),
            kept=lambda: repr(sandbox.transactions),
        )


# What the suite calls a fault, where Stripe's simulator has another name for it.
_STRIPE_FAULTS = {"wrong_hash": "wrong_object", "error500": "error500_after_accepting"}
# A search without the thing itself is a true answer of Stripe's, which signs nothing: only looking at it can be spoilt.
_STRIPE_OPERATIONS = {
    "start": ("sessions.create",),
    "check": ("sessions.retrieve", "sessions.list"),
    "withdraw": ("sessions.expire",),
    "refund": ("refunds.create",),
    "sweep": ("events.list",),
    "provision": ("webhook_endpoints.create",),
}


@asynccontextmanager
async def stripe(stage: Stage, url: str) -> AsyncIterator[Simulator]:
    async with stripe_sandbox.build(url) as sandbox:
        stage.app = sandbox.app
        key = stripe_sandbox.DEMO_ACCOUNTS[0][0]
        account = sandbox.accounts[key]
        endpoint = sandbox.add_endpoint(account, HOOK, stripe_events.TYPES)

        async def callback(reference: str) -> Message:
            await sandbox.settled()
            for each in reversed(sandbox.deliveries):
                event = msgspec.json.decode(each.body)
                if event["data"]["object"].get("client_reference_id") == reference:
                    headers = {name.lower(): value for name, value in each.headers.items()}
                    return Message(each.body, headers, datetime.now(UTC))
            raise AssertionError("nothing was posted for the reference")

        def fault(name: str, on: str) -> bool:
            operations = [each for each in _STRIPE_OPERATIONS[on] if name != "wrong_hash" or each != "sessions.list"]
            own = _STRIPE_FAULTS.get(name, name)
            return sandbox.add_fault(own, on=operations, seconds=0.0).kind.works

        def kept() -> str:
            return repr([account.objects, [each.object for each in account.endpoints.values()]])

        yield Simulator(
            places={"stripe_url": ""},
            values={"stripe_secret_key": key, "stripe_webhook_secret": endpoint.secret},
            foreign={"stripe_secret_key": "sk_test_OfNobodyAtAll", "stripe_webhook_secret": "whsec_of_nobody_at_all"},
            preferences={},
            pay=sandbox.pay,
            approve=nobody,
            pay_code=nobody,
            otp=no_otp,
            cancel=sandbox.expire,
            unpaid=Outcome.LAPSED,
            refund=sandbox.refund,
            callback=callback,
            fault=fault,
            heal=sandbox.clear_faults,
            known=lambda: len(sandbox.sessions()),
            kept=kept,
        )


_ECOCASH_OPERATIONS = {"start": ("charge",), "check": ("lookup",), "refund": ("refund",)}


def _ecocash_values(dialect: str) -> dict[str, str]:
    """Every field that EcoCash has, those of the dialect being good."""
    key = ecocash_sandbox.DEMO_MERCHANTS["open_api"].api_key
    one = ecocash_sandbox.DEMO_MERCHANTS["eip" if dialect == "open_api" else dialect]
    return {
        "ecocash_dialect": dialect,
        "ecocash_merchant_code": ecocash_sandbox.DEMO_MERCHANTS[dialect].code,
        "ecocash_api_key": key,
        "ecocash_username": one.username,
        "ecocash_password": one.password,
        "ecocash_merchant_pin": one.pin,
        "ecocash_merchant_number": one.number,
    }


def ecocash(dialect: str) -> Callable[[Stage, str], AbstractAsyncContextManager[Simulator]]:
    """EcoCash's simulator in one of its dialects."""

    @asynccontextmanager
    async def simulator(stage: Stage, url: str) -> AsyncIterator[Simulator]:
        async with ecocash_sandbox.build(url) as sandbox:
            stage.app = sandbox.app
            values = _ecocash_values(dialect)
            token = token_of(values["ecocash_api_key"])
            merchant = sandbox.merchant(dialect, ecocash_sandbox.DEMO_MERCHANTS[dialect].login)
            assert merchant
            if dialect == "open_api":
                merchant.callback_url = f"{HOOK}/{token}"

            async def callback(name: str) -> Message:
                await sandbox.settled()
                charge = sandbox.find(name)
                last = [each for each in sandbox.deliveries if charge.correlator.encode() in each.body][-1]
                headers = {"content-type": "application/json"}
                return Message(last.body, headers, datetime.now(UTC), last.url.rpartition("/")[2])

            def fault(name: str, on: str) -> bool:
                own = {"wrong_hash": "wrong_object"}.get(name, name)
                return sandbox.add_fault(own, on=_ECOCASH_OPERATIONS[on], seconds=0.0).kind.works

            yield Simulator(
                places={
                    name.lower(): place.removeprefix(url)
                    for name, place in sandbox.settings().items()
                    if name.endswith("_URL")
                },
                values=values,
                foreign={
                    **values,
                    "ecocash_api_key": "key-of-nobody",
                    "ecocash_username": "nobody",
                    "ecocash_password": "password-of-nobody",
                    "ecocash_merchant_pin": "98761",
                },
                preferences={"ecocash_currencies": "USD, ZWG", "display_name": "Acme Hardware"},
                pay=sandbox.pay,
                approve=sandbox.approve,
                pay_code=nobody,
                otp=no_otp,
                cancel=sandbox.decline,
                unpaid=Outcome.FAILED,
                refund=None,
                callback=callback,
                fault=fault,
                heal=sandbox.clear_faults,
                known=lambda: len(sandbox.charges),
                kept=lambda: repr(sandbox.charges),
                name=lambda attempt: str(attempt.attempt_id),
                signs=False,
                # 200 says that the prompt was sent, whatever else the answer holds.
                start_yes=("empty", "truncated", "wrong_hash") if dialect == "open_api" else (),
            )

    return simulator


def token_of(api_key: str) -> str:
    """The last part of the callback address that is set in EcoCash's portal."""
    return OpenApi(
        OpenApiSite("", "live", "source", "ZiG"), OpenApiCredentials(Currency.USD, "", api_key)
    ).callback_path()


@asynccontextmanager
async def innbucks(stage: Stage, url: str) -> AsyncIterator[Simulator]:
    async with innbucks_sandbox.build(url) as sandbox:
        stage.app = sandbox.app
        username, password, api_key, *_ = innbucks_sandbox.DEMO_MERCHANTS[0]
        operations = {"start": ("generate",), "check": ("inquiry",)}

        def fault(name: str, on: str) -> bool:
            wrong = "wrong_amount" if on == "start" else "wrong_object"
            own = {"wrong_hash": wrong}.get(name, name)
            return sandbox.add_fault(own, on=operations[on], seconds=0.0).kind.works

        yield Simulator(
            places={"innbucks_url": sandbox.url.removeprefix(url)},
            values={
                "innbucks_username": username,
                "innbucks_password": password,
                "innbucks_api_key": api_key,
            },
            foreign=dict.fromkeys(("innbucks_username", "innbucks_password", "innbucks_api_key"), "nobody-at-all"),
            preferences={},
            pay=sandbox.pay,
            approve=nobody,
            pay_code=sandbox.pay_code,
            otp=no_otp,
            cancel=sandbox.expire,
            unpaid=Outcome.LAPSED,
            refund=None,
            callback=None,
            fault=fault,
            heal=sandbox.clear_faults,
            known=lambda: len(sandbox.codes),
            kept=lambda: repr(sandbox.codes),
            # The code was in the answer: nobody was shown it.
            traces=False,
            lost=Outcome.NEVER_STARTED,
        )
