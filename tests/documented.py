"""A little server made of openapi.yaml alone: it holds what it is asked against the document, and answers with the
document's own examples."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from tests.openapi import DOCUMENT, Operation, check, follow, nodes, operations

OPERATIONS = [each for each in operations() if each.listener == "internal" and each.path.startswith("/v1/")]


@dataclass
class Asked:
    """A request, as the document names its parts."""

    operation: Operation
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class Documented:
    """The internal API as an ASGI app. `asked` is everything that was asked, in order."""

    asked: list[Asked] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        asked = _read(request, await request.body())
        self.asked.append(asked)
        await _answer(asked.operation)(scope, receive, send)


def _read(request: Request, body: bytes) -> Asked:
    operation = _operation(request.method, request.url.path)
    documented = {each["name"]: each for each in operation.parameters if each["in"] == "query"}
    query = dict(request.query_params)
    assert query.keys() <= documented.keys(), (operation.key, query)
    for name, value in query.items():
        schema = documented[name]["schema"]
        # Numbers and truths are written as in JSON.
        plain = schema.get("type") in ("integer", "boolean")
        check(schema, msgspec.json.decode(value) if plain else value, (operation.key, name))
    value = msgspec.json.decode(body) if body else None
    if asks := operation.about.get("requestBody"):
        check(asks["content"]["application/json"]["schema"], value, operation.key)
    else:
        assert value is None, operation.key
    return Asked(operation, query, dict(request.headers), value)


def _operation(method: str, path: str) -> Operation:
    """The one with the fewest blanks in its path, where several fit."""
    fitting = [each for each in OPERATIONS if each.method == method and _fits(each.path, path)]
    return min(fitting, key=lambda each: each.path.count("{"))


def _fits(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) is not None


def _answer(operation: Operation) -> Response:
    status, answer = next(
        (status, follow(each)) for status, each in operation.about["responses"].items() if status[0] == "2"
    )
    if "content" not in answer:
        return Response(status_code=int(status))
    ((kind, media),) = answer["content"].items()
    example = media["example"] if "example" in media else example_of(media)
    body = example.encode() if isinstance(example, str) else msgspec.json.encode(example)
    return Response(body, int(status), media_type=kind)


def example_of(media: Any) -> Any:
    """Its first example; where it has none, that of another place with the same schema."""
    if "examples" not in media:
        media = next(each for each in nodes(DOCUMENT) if each.get("schema") == media["schema"] and "examples" in each)
    return follow(next(iter(media["examples"].values())))["value"]
