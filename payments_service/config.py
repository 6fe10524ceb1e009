"""Every setting: read from the environment here and nowhere else, once, all faults reported together.

`Settings` is the whole list, one row per variable, and `VARIABLES` the same list for the README's table and the tests.
No message quotes any value: a secret pasted into the wrong variable must not end up in a log.
"""

# ruff: noqa: RUF009  # `_is` and `_secret` make a fresh field at each call, as `field` itself does

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from payments_service import parsers
from payments_service.parsers import Bind, Rate, ServiceToken
from payments_service.strength import weakness_of


class ConfigError(Exception):
    """The settings cannot be used. `faults` holds one sentence per fault, led by the variable's name."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("The settings cannot be used:\n" + "\n".join(f"- {fault}" for fault in faults))
        self.faults = faults


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


EcocashMode = Literal["sandbox", "live"]
EcocashRefundBy = Literal["source", "ecocash"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["json", "console"]


def from_environment() -> Settings:
    """The settings of this process. Raises ConfigError."""
    return load(os.environ)


def given(name: str) -> str | None:
    """What stands in the environment under this name, as it is: for the demo, which makes its own settings else."""
    return os.environ.get(name)


def load(environ: Mapping[str, str]) -> Settings:
    """The settings; an empty variable is not set, an unknown one ignored. Raises ConfigError with all faults."""
    values, faults = _read(environ)
    faults += _conflicts(values)
    # A misspelt ENVIRONMENT is held to the strict rules: it was hardly written for development.
    if values.get("environment") is not Environment.DEVELOPMENT:
        faults += _production_faults(values)
    if faults:
        raise ConfigError(faults)
    return Settings(**values)


def _read(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Every variable by itself: field -> value as far as it can be read, and the faults."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for variable in VARIABLES:
        text = environ.get(variable.name, "")
        if not text.strip():
            if variable.required:
                faults.append(f"{variable.name} is required: {variable.meaning}")
            developing = values.get("environment") is Environment.DEVELOPMENT
            text = (developing and variable.in_development) or variable.default
        try:
            values[variable.field] = variable.read(text) if text else variable.unset
        except parsers.Faulty as fault:
            faults += [f"{variable.name} {sentence}" for sentence in fault.args]
            if fault.readable:
                values[variable.field] = fault.readable
    return values, faults


def _conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between variables, whatever the environment."""
    binds = [(name, values.get(name)) for name in ("internal_bind", "public_bind", "metrics_bind")]
    for (first, taken), (second, bind) in itertools.combinations(binds, 2):
        if taken and bind and bind.collides(taken):
            yield f"{second.upper()} takes the port of {first.upper()}: give each listener its own port"
    if values.get("events_url") and values.get("events_secrets") == ():
        yield "EVENTS_SECRET is required with EVENTS_URL: without it no event can be signed"
    # A faulty one counts as set: its own fault is enough.
    sender = [values.get(name, "faulty") for name in ("whatsapp_phone_number_id", "whatsapp_access_token")]
    if sender.count(None) == 1:
        yield "WHATSAPP_PHONE_NUMBER_ID and WHATSAPP_ACCESS_TOKEN belong together: set both or neither"


def _production_faults(values: Mapping[str, Any]) -> Iterator[str]:
    """What only production refuses: the embedded database, plain http, a loopback address, weak secrets."""
    if values.get("database_url", "faulty") is None:
        yield "DATABASE_URL is required in production: postgresql://user:password@host/name"
    for variable in VARIABLES:
        value = values.get(variable.field)
        if value and variable.parse is parsers.url and not value.lower().startswith("https://"):
            yield f"{variable.name} is a plain http URL, which production refuses: use https"
        if value and variable.strong:
            entries = value if isinstance(value, tuple) else (value,)
            weaknesses = {weakness_of(str(getattr(entry, "token", entry))) for entry in entries}
            for weakness in sorted(filter(None, weaknesses)):
                yield f"{variable.name} holds a secret that {weakness}, which production refuses: use a random one"
    if _is_loopback(values.get("public_url", "")):
        yield "PUBLIC_URL is this machine itself: give the address at which gateways and customers reach it"


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    address = parsers.address(host)
    if address is None:
        return f".{host}".endswith(".localhost")
    return address.is_loopback or address.is_unspecified


# --- the list ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Variable:
    """One setting: how it is called, read and explained."""

    field: str  # of Settings
    parse: Callable[[str], Any]
    meaning: str
    default: str = ""  # the text that counts when it is not set
    in_development: str = ""
    unset: object = None  # the value when it is not set and has no default
    required: bool = False
    secret: bool = False  # never shown
    strong: bool = False  # production refuses a weak one
    exact: bool = False  # blanks at the ends belong to it
    called: str = ""  # when its name is not the field's in capitals

    @property
    def name(self) -> str:
        return self.called or self.field.upper()

    def read(self, text: str) -> Any:
        if re.search("[\ud800-\udfff]", text):  # how os.environ shows the bytes that it cannot decode
            raise parsers.Faulty("is not valid UTF-8")
        return self.parse(text if self.exact else text.strip())


def _is(parse: Callable[[str], Any], meaning: str, default: str = "", **more: Any) -> Any:
    """A row of Settings with what its Variable says."""
    return field(metadata={"parse": parse, "meaning": meaning, "default": default, **more})


def _secret(parse: Callable[[str], Any], meaning: str, **more: Any) -> Any:
    return _is(parse, meaning, secret=True, strong=True, **more)


_ECONET = "https://payonline.econet.co.zw/ecocashGateway/payment/v1"
_ECOCASH = "https://developers.ecocash.co.zw"
_TRIES = "5,300,1800,7200,18000,36000,50400,72000,86400"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings:
    """All settings, parsed. URLs have no trailing slash; schedules are seconds; None and () are: not set."""

    environment: Environment = _is(parsers.one_of(*Environment), "`production` refuses weak values", "development")
    database_url: str | None = _is(parsers.database_url, "`postgresql://…`; several hosts allowed", secret=True)
    internal_bind: Bind = _is(parsers.bind, "where the internal API listens", "127.0.0.1:8080")
    public_bind: Bind = _is(parsers.bind, "where the public listener listens", "127.0.0.1:8081")
    metrics_bind: Bind | None = _is(parsers.bind, "where `/metrics`, `/livez` and `/readyz` stand besides")
    public_url: str = _is(parsers.url, "how gateways and customers reach the public listener", "http://127.0.0.1:8081")
    app_url: str | None = _is(parsers.url, "Conva's dashboard")
    encryption_secret: str = _secret(parsers.long, "current key, 32+ random characters", required=True, exact=True)
    encryption_secret_previous: tuple[str, ...] = _is(
        parsers.previous,
        "comma-separated, open old rows (`%2C`: a comma inside one)",
        unset=(),
        secret=True,
        exact=True,
    )
    service_tokens: tuple[ServiceToken, ...] = _secret(
        parsers.service_tokens, "`name:token,name:token`, tokens of 32+ characters, for the internal API", required=True
    )
    events_url: str | None = _is(parsers.url, "where events go")
    events_secrets: tuple[str, ...] = _secret(  # each as given, with its `whsec_`
        parsers.events_secrets, "`whsec_…` (two, comma-separated, while rotating)", called="EVENTS_SECRET", unset=()
    )
    stripe_webhook_secrets: tuple[str, ...] = _secret(
        parsers.plain_ones,
        "the platform's own Stripe endpoint (`/callbacks/stripe`); two, comma-separated, while rolling",
        called="STRIPE_WEBHOOK_SECRET",
        unset=(),
    )
    paynow_url: str = _is(parsers.url, "base URL, so that a sandbox can stand in", "https://www.paynow.co.zw")
    ecocash_url: str = _is(parsers.url, "base URL, dialect `open_api`", f"{_ECOCASH}/api/ecocash_pay")
    ecocash_mode: EcocashMode = _is(parsers.one_of(*get_args(EcocashMode)), "`live` or `sandbox`, `open_api`", "live")
    ecocash_refund_by: EcocashRefundBy = _is(
        parsers.one_of(*get_args(EcocashRefundBy)),
        "what a refund names the payment by, `open_api`: our id or EcoCash's",
        "source",
    )
    ecocash_zig_code: str = _is(parsers.letters, "how `open_api` spells ZiG", "ZiG")
    ecocash_eip_url: str = _is(parsers.url, "base URL, dialect `eip`", _ECONET)
    ecocash_portal_url: str = _is(parsers.url, "base URL, dialect `eip_portal`", f"{_ECOCASH}/sandbox/payment/v1")
    ecocash_refund_type: str = _is(parsers.letters, "`tranType` of a refund, `eip` and `eip_portal`", "REF")
    innbucks_url: str | None = _is(parsers.url, "base URL, issued by InnBucks")
    innbucks_inquiry_path: str = _is(parsers.path, "where InnBucks looks a code up", "/api/code/inquiry")
    innbucks_app_link: str = _is(
        parsers.app_link, "opens InnBucks' app with `{code}`", "com.innbucks.customer://purchase?paymentToken={code}"
    )
    innbucks_dial: str = _is(parsers.dial, "where InnBucks takes codes by USSD", "*569#")
    stripe_url: str = _is(parsers.url, "base URL", "https://api.stripe.com")
    whatsapp_url: str = _is(parsers.url, "base URL", "https://graph.facebook.com")
    whatsapp_app_secret: str | None = _secret(parsers.plain, "verifies WhatsApp's webhook")
    whatsapp_verify_token: str | None = _secret(parsers.plain, "answers WhatsApp's subscription")
    whatsapp_phone_number_id: str | None = _is(parsers.plain, "the platform's own number")
    whatsapp_access_token: str | None = _secret(parsers.plain, "sends from that number")
    whatsapp_template: str | None = _is(parsers.plain, "the approved template that carries a pay link")
    whatsapp_api_version: str = _is(parsers.api_version, "of Meta's Graph API", "v26.0")
    create_link_rate: Rate = _is(parsers.rate, "links per tenant", "10/minute")
    check_schedule: tuple[int, ...] | None = _is(parsers.schedule, "seconds, comma-separated; not set: per gateway")
    events_schedule: tuple[int, ...] = _is(parsers.schedule, "seconds, comma-separated", _TRIES)
    log_level: LogLevel = _is(parsers.one_of(*get_args(LogLevel)), ", ".join(get_args(LogLevel)), "info")
    log_format: LogFormat = _is(parsers.one_of(*get_args(LogFormat)), "of the log", "json", in_development="console")

    def __repr__(self) -> str:
        values = ((variable, getattr(self, variable.field)) for variable in VARIABLES)
        shown = (f"{v.field}={'<hidden>' if v.secret and value else repr(value)}" for v, value in values)
        return f"Settings({', '.join(shown)})"


VARIABLES: tuple[Variable, ...] = tuple(Variable(row.name, **row.metadata) for row in fields(Settings))
