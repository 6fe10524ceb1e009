"""Request parameters of Stripe's API: form bodies with nested brackets, and the readers that check them.

A reader takes what was received (text, list or dict) and the parameter's full name, such as
`line_items[0][price_data][currency]`; it gives the value, or raises ApiError in the API's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl

from yarl import URL

from payments_service.sandbox.stripe_errors import ApiError, invalid, missing, unknown

Params = dict[str, Any]

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_DEEPEST = 8
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def decode(raw: bytes) -> Params:
    """`a[b][0][c]=v` as nested dicts; keys 0, 1, 2… (or none at all: `a[]=v`) make a list. Values stay text."""
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise ApiError("Invalid UTF-8 in the request's parameters.") from None
    tree: Params = {}
    for name, value in pairs:
        _put(tree, _path(name), name, value)
    return {key: _listed(value) for key, value in tree.items()}


def _path(name: str) -> list[str]:
    found = _NAME.fullmatch(name)
    if found is None:
        raise unknown([name])
    path = [found[1], *re.findall(r"\[([^\[\]]*)\]", found[2])]
    if len(path) > _DEEPEST:
        raise unknown([name])
    return path


def _put(tree: Params, path: list[str], name: str, value: str) -> None:
    place = tree
    for key in path[:-1]:
        place = place.setdefault(key or str(len(place)), {})
        if not isinstance(place, dict):
            raise invalid("Invalid object", name)
    last = path[-1] or str(len(place))
    if isinstance(place.get(last), dict):
        raise invalid("Invalid object", name)
    place[last] = value


def _listed(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if all(key.isdecimal() for key in value):
        return [_listed(value[key]) for key in sorted(value, key=int)]
    return {key: _listed(inner) for key, inner in value.items()}


class Reader(Protocol):
    """See the top of this module."""

    def read(self, value: Any, param: str) -> Any: ...


def _text(value: Any, param: str) -> str:
    if not isinstance(value, str):
        raise invalid("Invalid string", param)
    return value


def _filled(value: Any, param: str) -> str:
    if not _text(value, param):
        raise invalid(
            f"You passed an empty string for '{param}'. We assume empty values are an attempt to unset a parameter; "
            f"however '{param}' cannot be unset. You should remove '{param}' from your request or supply a "
            "non-empty value.",
            param,
            "parameter_invalid_empty",
        )
    return str(value)


@dataclass(frozen=True, slots=True)
class Text:
    """At most so many characters; `unset`: an empty text is allowed and means none."""

    most: int = 5000
    unset: bool = False

    def read(self, value: Any, param: str) -> str:
        text = _text(value, param) if self.unset else _filled(value, param)
        if len(text) > self.most:
            shown = f"{text[:30]}...{text[-30:]}"
            raise invalid(f"Invalid string: {shown}; must be at most {self.most} characters", param)
        return text


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within limits."""

    least: int = 0
    most: int = 99_999_999_999

    def read(self, value: Any, param: str) -> int:
        text = _filled(value, param)
        if not _INTEGER.fullmatch(text):
            raise invalid(f"Invalid integer: {text}", param, "parameter_invalid_integer")
        number = int(text)
        if number < self.least:
            named = {0: "Invalid non-negative integer", 1: "This value must be greater than or equal to 1."}
            message = named.get(self.least, f"This value must be greater than or equal to {self.least}.")
            raise invalid(message, param, "parameter_invalid_integer")
        if number > self.most:
            raise invalid(f"Invalid integer: must be at most {self.most}", param, "parameter_invalid_integer")
        return number


@dataclass(frozen=True, slots=True)
class Flag:
    """`true` or `false`."""

    def read(self, value: Any, param: str) -> bool:
        if value not in ("true", "false"):
            raise invalid(f"Invalid boolean: {value}", param)
        return bool(value == "true")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these names."""

    names: tuple[str, ...]

    def read(self, value: Any, param: str) -> str:
        if value not in self.names:
            *most, last = self.names
            listed = f"{', '.join(most)}, or {last}" if len(most) > 1 else " or ".join(self.names)
            raise invalid(f"Invalid {param}: must be one of {listed}", param)
        return str(value)


@dataclass(frozen=True, slots=True)
class Link:
    """An absolute http or https address."""

    def read(self, value: Any, param: str) -> str:
        text = Text().read(value, param)
        try:
            url = URL(text)
        except ValueError:
            raise invalid("Not a valid URL", param, "url_invalid") from None
        if not url.scheme:
            raise invalid("Invalid URL: An explicit scheme (such as https) must be provided.", param, "url_invalid")
        if url.scheme not in ("http", "https") or not url.host:
            raise invalid("Not a valid URL", param, "url_invalid")
        return text


@dataclass(frozen=True, slots=True)
class Email:
    """Something with an @ and a domain."""

    def read(self, value: Any, param: str) -> str:
        text = Text(800).read(value, param)
        if not _EMAIL.fullmatch(text):
            raise invalid(f"Invalid email address: {text}", param, "email_invalid")
        return text


@dataclass(frozen=True, slots=True)
class Metadata:
    """At most 50 keys of 40 characters with values of 500: https://docs.stripe.com/api/metadata."""

    def read(self, value: Any, param: str) -> dict[str, str]:
        if value == "":
            return {}
        if not isinstance(value, dict):
            raise invalid("Invalid object", param)
        if len(value) > 50:
            raise invalid(f"Metadata can have at most 50 keys, but you passed in {len(value)}.", param)
        for key, text in value.items():
            self._check(key, text, param)
        return {key: text for key, text in value.items() if text}

    def _check(self, key: str, text: Any, param: str) -> None:
        if len(key) > 40:
            raise invalid(
                f"Metadata keys can have up to 40 characters, but you passed in a key that is {len(key)} characters. "
                f"Invalid key: {key}",
                param,
            )
        if len(_text(text, f"{param}[{key}]")) > 500:
            raise invalid(
                "Metadata values can have up to 500 characters, but you passed in a value that is "
                f"{len(text)} characters. Invalid value: {text}",
                f"{param}[{key}]",
            )


@dataclass(frozen=True, slots=True)
class Many:
    """A list, each item read alike."""

    item: Reader
    most: int = 100

    def read(self, value: Any, param: str) -> list[Any]:
        if not isinstance(value, list):
            raise invalid("Invalid array", param)
        if len(value) > self.most:
            raise invalid(f"Array {param} exceeded maximum {self.most} allowed elements.", param)
        return [self.item.read(inner, f"{param}[{index}]") for index, inner in enumerate(value)]


@dataclass(frozen=True, slots=True)
class Hash:
    """Named parameters. `beyond` are names that the real API knows and this simulator does not act on."""

    fields: Mapping[str, Reader]
    required: tuple[str, ...] = ()
    beyond: frozenset[str] = field(default=frozenset())

    def read(self, value: Any, param: str = "") -> Params:
        if not isinstance(value, dict):
            raise invalid("Invalid object", param)
        if strange := [name for name in value if name not in self.fields and name not in self.beyond]:
            raise unknown([_full(param, name) for name in strange])
        if untaken := [name for name in value if name in self.beyond]:
            name = _full(param, untaken[0])
            raise invalid(f"This simulator does not act on {name}, which the real API knows.", name)
        for name in self.required:
            if name not in value:
                raise missing(_full(param, name))
        return {name: self.fields[name].read(inner, _full(param, name)) for name, inner in value.items()}


def _full(param: str, name: str) -> str:
    return f"{param}[{name}]" if param else name


_BOUNDS = Hash({name: Whole() for name in ("gt", "gte", "lt", "lte")})


@dataclass(frozen=True, slots=True)
class Moments:
    """`created`: one Unix time in seconds, or bounds; read as bounds either way."""

    bounds: Hash = _BOUNDS

    def read(self, value: Any, param: str) -> dict[str, int]:
        if isinstance(value, str):
            moment = Whole().read(value, param)
            return {"gte": moment, "lte": moment}
        return self.bounds.read(value, param)


def within(moment: int, bounds: Mapping[str, int]) -> bool:
    """Whether the Unix time lies between the bounds that Moments read."""
    return (
        bounds.get("gt", -1) < moment
        and bounds.get("gte", 0) <= moment
        and moment < bounds.get("lt", moment + 1)
        and moment <= bounds.get("lte", moment)
    )
