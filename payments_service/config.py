"""Every setting: read from the environment here and nowhere else, once, all faults reported together.

`Settings` is the whole list, one row per variable, and `VARIABLES` the same list for the README's table and the tests.
No message quotes any value: a secret pasted into the wrong variable must not end up in a log.
"""

# ruff: noqa: RUF009  # `_is` and `_secret` make a fresh field at each call, as `field` itself does

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from payments_service.strength import MIN_SECRET, weakness_of

_MAX_DELAY = 31 * 86_400  # seconds: nothing is tried for longer than a month
_RATE_UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_GENERATE = "make one with: openssl rand -base64 48"


class ConfigError(Exception):
    """The settings cannot be used. `faults` holds one sentence per fault, led by the variable's name."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("The settings cannot be used:\n" + "\n".join(f"- {fault}" for fault in faults))
        self.faults = faults


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


EcocashMode = Literal["sandbox", "live"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]
LogFormat = Literal["json", "console"]


@dataclass(frozen=True, slots=True)
class Bind:
    """Where a listener listens. Port 0 asks the system for a free one; an IPv6 host has no brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def collides(self, other: Bind) -> bool:
        """Whether the two cannot listen at once."""
        anywhere = {"0.0.0.0", "::"}  # noqa: S104  # compared with, not bound to
        same_host = self.host == other.host or bool({self.host, other.host} & anywhere)
        return same_host and self.port == other.port != 0


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` calls in any `seconds`."""

    count: int
    seconds: int


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A caller of the internal API: its name for the logs and the bearer token that proves it."""

    name: str
    token: str = field(repr=False)


def from_environment() -> Settings:
    """The settings of this process. Raises ConfigError."""
    return load(os.environ)


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


class _Faulty(Exception):
    """A value has faults: the ends of sentences that begin with the variable's name.

    `readable` is what could be read all the same, so that its other faults are found in the same run.
    """

    def __init__(self, *sentences: str, readable: object = None) -> None:
        super().__init__(*sentences)
        self.readable = readable


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
        except _Faulty as fault:
            faults += [f"{variable.name} {sentence}" for sentence in fault.args]
            if fault.readable:
                values[variable.field] = fault.readable
    return values, faults


def _conflicts(values: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong between variables, whatever the environment."""
    internal, public = values.get("internal_bind"), values.get("public_bind")
    if internal and public and public.collides(internal):
        yield "PUBLIC_BIND takes the port of INTERNAL_BIND: give each listener its own port"
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
        if value and variable.parse is _url and not value.lower().startswith("https://"):
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
    address = _address(host)
    if address is None:
        return f".{host}".endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


# --- parsers: text that is not empty -> value, or _Faulty with the end of a sentence -------------------------------


def _like(pattern: str, wanted: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise _Faulty(f"must be {wanted}")
        return text

    return parse


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise _Faulty(f"must be one of: {', '.join(choices)}")
        return choices[choices.index(text.lower())]  # the member itself where the choices are an enum's

    return parse


_plain = _like(r"[!-~]+", "printable ASCII without blanks")
_path = _like(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", "a path such as /api/code/inquiry")
_app_link = _like(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]*\{code\}[!-~]*", "an address of an app, with {code} in it")
_api_version = _like(r"v[0-9]{1,3}\.[0-9]{1,2}", "a version such as v26.0")
# Only the shape: which hosts and options there may be is libpq's business.
_database_url = _like(r"postgres(ql)?://[!-~]+", "postgresql://user:password@host[,host]/name, without blanks")
# Taken exactly as it is, blanks included: the old backend did, and its rows must open.
_long = _like(rf"(?s).{{{MIN_SECRET},}}", f"{MIN_SECRET} characters or more; {_GENERATE}")
_HOST = r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][A-Za-z0-9._-]*))"


def _url(text: str) -> str:
    """An http or https URL, host and path only, without its trailing slash."""
    match = re.fullmatch(rf"https?://{_HOST}(?::([1-9][0-9]{{0,4}}))?(?:/[!-~]*)?", text, re.IGNORECASE)
    if not match or not _is_place(match) or re.search(r"[@?#\\]", text):
        raise _Faulty("must be https://host[:port][/path], without a user name, a query or a fragment")
    return text.rstrip("/")


def _bind(text: str) -> Bind:
    match = re.fullmatch(rf"{_HOST}:([0-9]{{1,5}})", text)
    if not match or not _is_place(match):
        raise _Faulty("must be host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return Bind(match[1] or match[2], int(match[3]))


def _is_place(match: re.Match[str]) -> bool:
    """Whether what `_HOST` and a third group found are an address and a port."""
    return int(match[3] or 0) <= 65_535 and (not match[1] or isinstance(_address(match[1]), ipaddress.IPv6Address))


def _rate(text: str) -> Rate:
    match = re.fullmatch(rf"([0-9]{{1,6}}) ?/ ?({'|'.join(_RATE_UNITS)})", text)
    if not match or int(match[1]) == 0:
        raise _Faulty("must be a whole number per second, minute, hour or day, such as 10/minute")
    return Rate(int(match[1]), _RATE_UNITS[match[2]])


def _schedule(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,7}", part) and 1 <= int(part) <= _MAX_DELAY for part in parts):
        raise _Faulty(f"must be whole seconds from 1 to {_MAX_DELAY} (31 days), comma-separated, such as 5,300,1800")
    return tuple(int(part) for part in parts)


def _previous(text: str) -> tuple[str, ...]:
    # Neither length nor strength is asked for: it must be possible to rotate away from a poor secret.
    parts = text.split(",")
    if any(not part.strip() or part != part.strip(" ") for part in parts):
        raise _Faulty("must be secrets separated by single commas, with no blanks around them")
    return tuple(part.replace("%2C", ",") for part in parts)


def _plain_ones(text: str) -> tuple[str, ...]:
    return tuple(_plain(part.strip()) for part in text.split(","))


def _service_tokens(text: str) -> tuple[ServiceToken, ...]:
    tokens: list[ServiceToken] = []
    faults: list[str] = []
    for number, entry in enumerate(text.split(","), 1):
        # RFC 6750, section 2.1: what a bearer token may consist of.
        match = re.fullmatch(r"([A-Za-z0-9._-]{1,64}):([A-Za-z0-9._~+/-]+=*)", entry.strip())
        if not match:
            faults.append(f"entry {number} must be name:token, of letters, digits and . _ - (the token also ~ + / =)")
        elif len(match[2]) < MIN_SECRET:
            faults.append(f"entry {number} has a token shorter than {MIN_SECRET} characters; {_GENERATE}")
        else:
            tokens.append(ServiceToken(match[1], match[2]))
    if len({token.name for token in tokens}) < len(tokens):
        faults.append("names one caller twice: give each its own name")
    if len({token.token for token in tokens}) < len(tokens):
        faults.append("gives one token to two callers: make one for each")
    if faults:
        raise _Faulty(*faults, readable=tuple(tokens))
    return tuple(tokens)


def _events_secrets(text: str) -> tuple[str, ...]:
    entries = [entry.strip() for entry in text.split(",")]
    secrets = tuple(entry for entry in entries if _is_webhook_secret(entry))
    if len(secrets) < len(entries):
        raise _Faulty("must be whsec_ and the base64 of 24 to 64 random bytes, each", readable=secrets)
    return secrets


def _is_webhook_secret(text: str) -> bool:
    """Standard Webhooks 1.0, "Signature scheme": a key of 24 to 64 bytes in base64 after `whsec_`."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_").encode(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith("whsec_") and 24 <= len(key) <= 64


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
            raise _Faulty("is not valid UTF-8")
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

    environment: Environment = _is(_one_of(*Environment), "`production` refuses weak values", "development")
    database_url: str | None = _is(_database_url, "`postgresql://…`; several hosts allowed", secret=True)
    internal_bind: Bind = _is(_bind, "where the internal API listens", "127.0.0.1:8080")
    public_bind: Bind = _is(_bind, "where the public listener listens", "127.0.0.1:8081")
    public_url: str = _is(_url, "how gateways and customers reach the public listener", "http://127.0.0.1:8081")
    app_url: str | None = _is(_url, "Conva's dashboard")
    encryption_secret: str = _secret(_long, "current key, 32+ random characters", required=True, exact=True)
    encryption_secret_previous: tuple[str, ...] = _is(
        _previous, "comma-separated, open old rows (`%2C`: a comma inside one)", unset=(), secret=True, exact=True
    )
    service_tokens: tuple[ServiceToken, ...] = _secret(
        _service_tokens, "`name:token,name:token`, tokens of 32+ characters, for the internal API", required=True
    )
    events_url: str | None = _is(_url, "where events go")
    events_secrets: tuple[str, ...] = _secret(  # each as given, with its `whsec_`
        _events_secrets, "`whsec_…` (two, comma-separated, while rotating)", called="EVENTS_SECRET", unset=()
    )
    stripe_webhook_secrets: tuple[str, ...] = _secret(
        _plain_ones,
        "the platform's own Stripe endpoint (`/callbacks/stripe`); two, comma-separated, while rolling",
        called="STRIPE_WEBHOOK_SECRET",
        unset=(),
    )
    paynow_url: str = _is(_url, "base URL, so that a sandbox can stand in", "https://www.paynow.co.zw")
    ecocash_url: str = _is(_url, "base URL, dialect `open_api`", f"{_ECOCASH}/api/ecocash_pay")
    ecocash_mode: EcocashMode = _is(_one_of(*get_args(EcocashMode)), "`live` or `sandbox`, `open_api`", "live")
    ecocash_eip_url: str = _is(_url, "base URL, dialect `eip`", _ECONET)
    ecocash_portal_url: str = _is(_url, "base URL, dialect `eip_portal`", f"{_ECOCASH}/sandbox/payment/v1")
    innbucks_url: str | None = _is(_url, "base URL, issued by InnBucks")
    innbucks_inquiry_path: str = _is(_path, "where InnBucks looks a code up", "/api/code/inquiry")
    innbucks_app_link: str = _is(
        _app_link, "opens InnBucks' app with `{code}`", "com.innbucks.customer://purchase?paymentToken={code}"
    )
    stripe_url: str = _is(_url, "base URL", "https://api.stripe.com")
    whatsapp_url: str = _is(_url, "base URL", "https://graph.facebook.com")
    whatsapp_app_secret: str | None = _secret(_plain, "verifies WhatsApp's webhook")
    whatsapp_verify_token: str | None = _secret(_plain, "answers WhatsApp's subscription")
    whatsapp_phone_number_id: str | None = _is(_plain, "the platform's own number")
    whatsapp_access_token: str | None = _secret(_plain, "sends from that number")
    whatsapp_template: str | None = _is(_plain, "the approved template that carries a pay link")
    whatsapp_api_version: str = _is(_api_version, "of Meta's Graph API", "v26.0")
    create_link_rate: Rate = _is(_rate, "links per tenant", "10/minute")
    check_schedule: tuple[int, ...] | None = _is(_schedule, "seconds, comma-separated; not set: per gateway")
    events_schedule: tuple[int, ...] = _is(_schedule, "seconds, comma-separated", _TRIES)
    log_level: LogLevel = _is(_one_of(*get_args(LogLevel)), ", ".join(get_args(LogLevel)), "info")
    log_format: LogFormat = _is(_one_of(*get_args(LogFormat)), "of the log", "json", in_development="console")

    def __repr__(self) -> str:
        values = ((variable, getattr(self, variable.field)) for variable in VARIABLES)
        shown = (f"{v.field}={'<hidden>' if v.secret and value else repr(value)}" for v, value in values)
        return f"Settings({', '.join(shown)})"


VARIABLES: tuple[Variable, ...] = tuple(Variable(row.name, **row.metadata) for row in fields(Settings))
