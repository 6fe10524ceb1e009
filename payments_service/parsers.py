"""What a setting's text may be, and what becomes of it: parsers, each from a text that is not empty to a value.

A parser raises Faulty with the end of a sentence that begins with the variable's name. No message quotes any value.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from payments_service.strength import MIN_SECRET

_MAX_DELAY = 31 * 86_400  # seconds: nothing is tried for longer than a month
# Each is remembered until the time is over. More than that within an hour can be said per minute.
_MOST_LINKS = 1_000
_RATE_UNITS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_GENERATE = "make one with: openssl rand -base64 48"


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


class Faulty(Exception):
    """A value has faults: the ends of sentences that begin with the variable's name.

    `readable` is what could be read all the same, so that its other faults are found in the same run.
    """

    def __init__(self, *sentences: str, readable: object = None) -> None:
        super().__init__(*sentences)
        self.readable = readable


def address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def like(pattern: str, wanted: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise Faulty(f"must be {wanted}")
        return text

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise Faulty(f"must be one of: {', '.join(choices)}")
        return choices[choices.index(text.lower())]  # the member itself where the choices are an enum's

    return parse


plain = like(r"[!-~]+", "printable ASCII without blanks")
path = like(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", "a path such as /api/code/inquiry")
app_link = like(r"[A-Za-z][A-Za-z0-9+.-]*:[!-~]*\{code\}[!-~]*", "an address of an app, with {code} in it")
letters = like(r"[A-Za-z]{3,10}", "3 to 10 letters")
dial = like(r"[*#0-9]{2,20}", "a USSD number such as *569#")
api_version = like(r"v[0-9]{1,3}\.[0-9]{1,2}", "a version such as v26.0")
# Only the shape: which hosts and options there may be is libpq's business.
database_url = like(r"postgres(ql)?://[!-~]+", "postgresql://user:password@host[,host]/name, without blanks")
# Taken exactly as it is, blanks included: the old backend did, and its rows must open.
long = like(rf"(?s).{{{MIN_SECRET},}}", f"{MIN_SECRET} characters or more; {_GENERATE}")
_HOST = r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9][A-Za-z0-9._-]*))"


def url(text: str) -> str:
    """An http or https URL, host and path only, without its trailing slash."""
    match = re.fullmatch(rf"https?://{_HOST}(?::([1-9][0-9]{{0,4}}))?(?:/[!-~]*)?", text, re.IGNORECASE)
    if not match or not _is_place(match) or re.search(r"[@?#\\]", text):
        raise Faulty("must be https://host[:port][/path], without a user name, a query or a fragment")
    return text.rstrip("/")


def bind(text: str) -> Bind:
    match = re.fullmatch(rf"{_HOST}:([0-9]{{1,5}})", text)
    if not match or not _is_place(match):
        raise Faulty("must be host:port, such as 127.0.0.1:8080 or [::1]:8080")
    return Bind(match[1] or match[2], int(match[3]))


def _is_place(match: re.Match[str]) -> bool:
    """Whether what `_HOST` and a third group found are an address and a port."""
    return int(match[3] or 0) <= 65_535 and (not match[1] or isinstance(address(match[1]), ipaddress.IPv6Address))


def rate(text: str) -> Rate:
    match = re.fullmatch(rf"([0-9]{{1,6}}) ?/ ?({'|'.join(_RATE_UNITS)})", text)
    if not match or not 0 < int(match[1]) <= _MOST_LINKS:
        raise Faulty(f"must be 1 to {_MOST_LINKS} per second, minute, hour or day, such as 10/minute")
    return Rate(int(match[1]), _RATE_UNITS[match[2]])


def schedule(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,7}", part) and 1 <= int(part) <= _MAX_DELAY for part in parts):
        raise Faulty(f"must be whole seconds from 1 to {_MAX_DELAY} (31 days), comma-separated, such as 5,300,1800")
    return tuple(int(part) for part in parts)


def previous(text: str) -> tuple[str, ...]:
    # Neither length nor strength is asked for: it must be possible to rotate away from a poor secret.
    parts = text.split(",")
    if any(not part.strip() or part != part.strip(" ") for part in parts):
        raise Faulty("must be secrets separated by single commas, with no blanks around them")
    return tuple(part.replace("%2C", ",") for part in parts)


def plain_ones(text: str) -> tuple[str, ...]:
    return tuple(plain(part.strip()) for part in text.split(","))


def service_tokens(text: str) -> tuple[ServiceToken, ...]:
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
        raise Faulty(*faults, readable=tuple(tokens))
    return tuple(tokens)


def events_secrets(text: str) -> tuple[str, ...]:
    entries = [entry.strip() for entry in text.split(",")]
    secrets = tuple(entry for entry in entries if _is_webhook_secret(entry))
    if len(secrets) < len(entries):
        raise Faulty("must be whsec_ and the base64 of 24 to 64 random bytes, each", readable=secrets)
    return secrets


def _is_webhook_secret(text: str) -> bool:
    """Standard Webhooks 1.0, "Signature scheme": a key of 24 to 64 bytes in base64 after `whsec_`."""
    try:
        key = base64.b64decode(text.removeprefix("whsec_").encode(), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith("whsec_") and 24 <= len(key) <= 64
