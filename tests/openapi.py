"""openapi.yaml as the tests read it, and a conversation with the running service that is held against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml
from jsonschema import Draft202012Validator

from payments_service import config
from payments_service.internal.docs import description
from payments_service.public.assets import PREVIEW
from tests.house import Answer, House

Schema = dict[str, Any]

DOCUMENT: Schema = yaml.safe_load(description())
SCHEMAS: Schema = DOCUMENT["components"]["schemas"]
# What a body is by its media type's second half; others are text.
READ: dict[str, Callable[[bytes], Any]] = {
    "json": msgspec.json.decode,
    "problem+json": msgspec.json.decode,
    "yaml": yaml.safe_load,
}
METHODS = ("get", "put", "post", "patch", "delete")
# A relative server is the one that serves the document.
LISTENERS = {"/": "internal", next(v.default for v in config.VARIABLES if v.name == "PUBLIC_URL"): "public"}


def follow(node: Any) -> Any:
    """What a reference stands for."""
    while "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def nodes(node: Any) -> Iterator[Schema]:
    """Every mapping of the document, references left as they are."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


@dataclass(frozen=True)
class Operation:
    listener: str
    method: str
    path: str
    about: Schema
    parameters: list[Schema]

    @property
    def key(self) -> tuple[str, str]:
        return self.method, self.path


def operations() -> Iterator[Operation]:
    for path, item in DOCUMENT["paths"].items():
        for method in METHODS:
            if about := item.get(method):
                parameters = [follow(each) for each in (*item.get("parameters", ()), *about.get("parameters", ()))]
                for server in about.get("servers", item.get("servers", DOCUMENT["servers"])):
                    yield Operation(LISTENERS[server["url"]], method.upper(), path, about, parameters)


def is_guarded(operation: Operation) -> bool:
    """Whether a service token is needed."""
    return bool(operation.about.get("security", DOCUMENT["security"]))


def closed(schema: Schema, *, part: bool = False) -> Schema:
    """The schema without room for what it does not name. `part`: of an `allOf`, which as a whole is closed."""
    made = dict(schema)
    for key in ("oneOf", "allOf"):
        if key in schema:
            made[key] = [closed(each, part=key == "allOf") for each in schema[key]]
    if "properties" in schema:
        made["properties"] = {name: closed(each) for name, each in schema["properties"].items()}
    if "items" in schema:
        made["items"] = closed(schema["items"])
    if not part and not made.keys().isdisjoint(("properties", "allOf", "$ref")):
        made["unevaluatedProperties"] = False
    return made


CLOSED = {"schemas": {name: closed(schema, part=True) for name, schema in SCHEMAS.items()}}
FORMATS = Draft202012Validator.FORMAT_CHECKER


def check(schema: Schema, value: Any, what: object = "") -> None:
    """The value is as the schema says, and has nothing that the schema does not name."""
    validator = Draft202012Validator({**closed(schema), "components": CLOSED}, format_checker=FORMATS)
    assert not [f"{fault.json_path}: {fault.message}" for fault in validator.iter_errors(value)], (what, value)


def op_answers(operation: Operation) -> Iterator[tuple[str, Schema]]:
    yield from operation.about["responses"].items()


# --- the document and the running service

_CLIENT = "/v1/clients/{client_id}"
SETTINGS = f"{_CLIENT}/payment-settings"
CREATE = f"{_CLIENT}/payments/create-link"
PAYMENT = f"{_CLIENT}/payments/{{payment_id}}"
PAGE = "/pay/{token}"
RECEIPT = f"{PAGE}/receipt"
VERIFY, WEBHOOK = f"{SETTINGS}/verify", f"{SETTINGS}/stripe-webhook"
SEND = f"{PAYMENT}/send"
REFUNDS = f"{PAYMENT}/refunds"
SETTLE = f"{REFUNDS}/{{refund_id}}/resolve"
RESOLVE = f"{PAYMENT}/resolve"
LIST, CSV, SUMMARY = f"{_CLIENT}/payments", f"{_CLIENT}/payments.csv", f"{_CLIENT}/payments/summary"
TENANT, AUDIT, CHAIN = _CLIENT, f"{_CLIENT}/audit-logs", f"{_CLIENT}/audit-logs/verify"
EVENTS = "/v1/events"
REDELIVER, REDELIVER_ALL = f"{EVENTS}/{{event_id}}/redeliver", f"{EVENTS}/redeliver"
CALLBACKS = tuple(
    f"/callbacks/{gateway}/{{client_id}}{rest}" for gateway in ("paynow", "ecocash") for rest in ("", "/{attempt}")
)
WHATSAPP_CALLBACK = "/callbacks/whatsapp"
STRIPE_CALLBACKS = ("/callbacks/stripe/{client_id}", "/callbacks/stripe")
READS = [
    ("GET", SETTINGS),
    ("GET", PAYMENT),
    ("GET", f"{PAYMENT}/history"),
    ("GET", REFUNDS),
    ("GET", f"{PAYMENT}/reviews"),
    ("POST", f"{PAYMENT}/refresh"),
    *(("GET", path) for path in (LIST, CSV, SUMMARY, EVENTS, AUDIT, CHAIN)),
]
OF_PAGE = [("GET", PAGE), ("POST", PAGE), ("GET", f"{PAGE}/status"), ("GET", RECEIPT)]


def check_headers(documented: Schema, headers: Any, what: object) -> None:
    for name, each in documented.items():
        header = follow(each)
        assert name in headers or not header.get("required"), (what, name)
        if name in headers:
            check(header["schema"], headers[name], (what, name))


@dataclass
class Conversation:
    """Calls the service by the document's paths, and holds each answer against the document."""

    house: House
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    known: dict[str, str] = field(default_factory=dict)

    async def say(self, method: str, path: str, body: object = None, *, on: str = "", **given: Any) -> Answer:
        values = {"client_id": str(self.house.client_id), **self.known, **given.pop("values", {})}
        address = path.format(**values)
        operation = next(each for each in operations() if each.key == (method, path) and on in (each.listener, ""))
        if operation.listener == "internal":
            answer = await self.house.call(method, address, body, **given)
        else:
            answer = await self.house.get_public(address, method=method, data=body, **given)
        self.hold(operation, answer)
        return answer

    def hold(self, operation: Operation, answer: Answer) -> None:
        what = (*operation.key, answer.status)
        assert str(answer.status) in operation.about["responses"], (what, answer.body)
        response = follow(operation.about["responses"][str(answer.status)])
        check_headers(response.get("headers", {}), answer.headers, what)
        kind = answer.headers.get("Content-Type", "").split(";")[0]
        assert kind in response.get("content", {"": None}), (what, kind)
        if kind:
            media = response["content"][kind]
            if kind.startswith("image/"):  # bytes: a schema has nothing to say of them
                assert (media, answer.body) == ({}, PREVIEW), what
            else:
                check(media["schema"], READ.get(kind.rpartition("/")[2], bytes.decode)(answer.body), what)
        else:
            assert answer.body == b"", what
        self.seen.add(what)
