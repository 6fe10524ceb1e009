"""openapi.yaml is valid, says of the code what is true and nothing else, and the running service answers as it says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from msgspec import inspect as kinds
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from payments_service import __version__, config, errors, provisioning, refunds, tables, web
from payments_service.accounts import COLUMNS, CONFIGURED_BY, SECRETS
from payments_service.checkout import TRIES
from payments_service.errors import WrongState
from payments_service.gateways.base import Endpoint
from payments_service.gateways.paynow import Paynow
from payments_service.gateways.stripe import Stripe
from payments_service.gateways.stripe_events import callback_of
from payments_service.gateways.stripe_wire import Event, read
from payments_service.internal import accounts, auth, schemas
from payments_service.internal.docs import description
from payments_service.internal.routes import ROUTES as INTERNAL_ROUTES
from payments_service.outbox import EVENT_OF, LINK_CREATED
from payments_service.public import guard, pay
from payments_service.public.assets import PREVIEW
from payments_service.public.routes import ROUTES as PUBLIC_ROUTES
from payments_service.records import Payment
from tests.house import STRIPE_KEY, Answer, House, World, eventually
from tests.servers import serve

Schema = dict[str, Any]

DOCUMENT: Schema = yaml.safe_load(description())
SCHEMAS: Schema = DOCUMENT["components"]["schemas"]
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


# --- the document by itself


def test_the_document_is_valid_openapi() -> None:
    """OpenAPI 3.1 by an independent validator; each operation has an id of its own; every component is used."""
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == __version__
    ids = [node["operationId"] for node in nodes(DOCUMENT) if "operationId" in node]
    assert len(ids) == len(set(ids))
    used = {node["$ref"] for node in nodes(DOCUMENT) if "$ref" in node}
    kept = {
        f"#/components/{kind}/{name}"
        for kind, group in DOCUMENT["components"].items()
        if kind != "securitySchemes"
        for name in group
    }
    assert used == kept
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    assert tags == {tag for node in nodes(DOCUMENT) if "operationId" in node for tag in node["tags"]}


def examples() -> Iterator[tuple[Schema, Any]]:
    for node in nodes(DOCUMENT):
        if isinstance(schema := node.get("schema"), dict):
            if "example" in node:
                yield schema, node["example"]
            for example in node.get("examples", {}).values():
                yield schema, follow(example)["value"]


def test_every_example_is_as_its_schema_says() -> None:
    """Examples of bodies, parameters and headers are valid, and have nothing that their schema does not name."""
    assert {"date-time", "uuid"} <= FORMATS.checkers.keys()
    shown = list(examples())
    assert {schema.get("$ref") for schema, _ in shown} >= {
        f"#/components/schemas/{name}"
        for name in (
            *("CreateLink", "SettingsPatch", "Payment", "History", "Event"),
            *(
                "CreateRefund",
                "RefundMade",
                "Refunds",
                "VerifySettings",
                "Verification",
                "WebhookEndpoint",
                "StripeEvent",
            ),
        )
    }
    for schema, example in shown:
        check(schema, example)


def test_the_code_takes_and_makes_what_the_examples_show() -> None:
    """Requests decode into orders, payments are payments, problems have the words and the status of their code."""
    problems = 0
    for schema, example in examples():
        match schema.get("$ref", "").removeprefix("#/components/schemas/"):
            case "CreateLink":
                web.decode(msgspec.json.encode(example), schemas.CreateLink).order(datetime.now(UTC))
            case "SettingsPatch":
                assert web.decode(msgspec.json.encode(example), schemas.SettingsPatch).changes() == example
            case "CreateRefund":
                web.decode(msgspec.json.encode(example), schemas.CreateRefund).wish()
            case "VerifySettings":
                web.decode(msgspec.json.encode(example), schemas.VerifySettings)
            case "Payment":
                assert msgspec.to_builtins(msgspec.convert(example, Payment)) == example
            case "Verification":
                assert msgspec.to_builtins(msgspec.convert(example, provisioning.Verified)) == example
            case "Refunds":
                assert [
                    msgspec.to_builtins(msgspec.convert(each, refunds.Refund)) for each in example["data"]
                ] == example["data"]
            case "StripeEvent":
                callback = callback_of(read(msgspec.json.encode(example), Event), live=True)
                assert callback is not None
                assert callback.report is not None
    statuses = {follow(answer)["description"]: status for op in operations() for status, answer in op_answers(op)}
    for node in nodes(DOCUMENT):
        for example in node.get("content", {}).get(web.PROBLEM_JSON, {}).get("examples", {}).values():
            value = follow(example)["value"]
            assert value["title"] == web.TITLES[value["code"]]
            assert str(value["status"]) == statuses[node["description"]]
            problems += 1
    assert problems > 5


def op_answers(operation: Operation) -> Iterator[tuple[str, Schema]]:
    yield from operation.about["responses"].items()


# --- the document and the code


@pytest.mark.parametrize(("listener", "routes"), [("internal", INTERNAL_ROUTES), ("public", PUBLIC_ROUTES)])
def test_the_paths_are_the_routes(listener: str, routes: list[Route]) -> None:
    """Each listener serves what is documented for it, nothing more and nothing less; `HEAD` comes with `GET`."""
    served = {
        (method, re.sub(r":\w+}", "}", route.path)): {
            name for name, convertor in route.param_convertors.items() if convertor.regex != "[^/]+"
        }
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
    }
    documented = {
        operation.key: {each["name"] for each in operation.parameters if each["schema"].get("format") == "uuid"}
        for operation in operations()
        if operation.listener == listener
    }
    assert documented == served


def test_a_token_is_needed_where_the_code_asks_for_one() -> None:
    """The internal listener asks for a token but for its open paths; the public one asks for none."""
    for operation in operations():
        opened = operation.path in auth.OPEN or operation.path.startswith("/docs/")
        needs = operation.about.get("security", DOCUMENT["security"]) != []
        assert needs == (operation.listener == "internal" and not opened), operation.key
        assert ("401" in operation.about["responses"]) == needs, operation.key


def test_the_headers_are_taken_in_the_form_of_the_code() -> None:
    """`X-Actor` is documented where the code records an actor, `X-Request-Id` on the whole API, each in its form."""
    parameters = DOCUMENT["components"]["parameters"]
    assert parameters["Actor"]["schema"]["pattern"] == f"^{accounts._ACTOR.pattern}$"
    assert parameters["RequestId"]["schema"]["pattern"] == f"^{web._REQUEST_ID.pattern}$"
    recorded = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in INTERNAL_ROUTES
        for method in (route.methods or set()) - {"HEAD"}
        if "actor_of(" in inspect.getsource(route.endpoint)
    }
    named = {operation.key: {each["name"] for each in operation.parameters} for operation in operations()}
    assert recorded == {key for key, names in named.items() if "X-Actor" in names} != set()
    assert all(("X-Request-Id" in names) == path.startswith("/v1/") for (_, path), names in named.items())


_WORDS = {kinds.StrType: "string", kinds.UUIDType: "string", kinds.DateTimeType: "string", kinds.BoolType: "boolean"}
_FORMATS = {kinds.UUIDType: "uuid", kinds.DateTimeType: "date-time"}


def of_code(kind: Any) -> Schema:
    """What a type of msgspec's allows, in JSON Schema's words: types and enum as sets."""
    if isinstance(kind, kinds.UnionType):
        (other,) = [each for each in kind.types if not isinstance(each, kinds.NoneType)]
        told = of_code(other)
        null = {"type": told["type"] | {"null"}}
        return told | null | ({"enum": told["enum"] | {None}} if "enum" in told else {})
    if isinstance(kind, kinds.LiteralType):
        return {"type": {"string"}, "enum": set(kind.values)}
    if isinstance(kind, kinds.EnumType):
        return {"type": {"string"}, "enum": {member.value for member in kind.cls}}
    if isinstance(kind, kinds.ListType):
        return {"type": {"array"}, "items": of_code(kind.item_type)}
    if isinstance(kind, kinds.IntType):
        limits = {"minimum": kind.ge, "maximum": kind.le}
        return {"type": {"integer"}, **{key: value for key, value in limits.items() if value is not None}}
    told = {"type": {_WORDS[type(kind)]}}
    if isinstance(kind, kinds.StrType):
        limits = {"minLength": kind.min_length, "maxLength": kind.max_length, "pattern": kind.pattern}
        told |= {key: value for key, value in limits.items() if value is not None}
    return told | ({"format": _FORMATS[type(kind)]} if type(kind) in _FORMATS else {})


def of_document(schema: Schema) -> Schema:
    """The same of a schema of the document."""
    told = {key: value for key, value in follow(schema).items() if key not in ("description", "writeOnly", "default")}
    told["type"] = {told["type"]} if isinstance(told["type"], str) else set(told["type"])
    if "items" in told:
        told["items"] = of_document(told["items"])
    return told | ({"enum": set(told["enum"])} if "enum" in told else {})


def struct_of(kind: type[msgspec.Struct]) -> dict[str, Schema]:
    told = kinds.type_info(kind)
    assert isinstance(told, kinds.StructType)
    return {each.name: of_code(each.type) for each in told.fields}


_DEFAULTS = {"CreateLink": {"expires_in": schemas.WEEK}, "CreateRefund": {"manual": False}}


@pytest.mark.parametrize(
    "kind", [schemas.CreateLink, schemas.SettingsPatch, schemas.CreateRefund, schemas.VerifySettings]
)
def test_a_request_has_the_fields_and_limits_of_its_struct(kind: type[msgspec.Struct]) -> None:
    """The same fields, required ones, types, lengths, patterns, bounds and values; no others are taken."""
    schema = SCHEMAS[kind.__name__]
    assert {name: of_document(each) for name, each in schema["properties"].items()} == struct_of(kind)
    assert set(schema.get("required", ())) == {each.name for each in msgspec.structs.fields(kind) if each.required}
    assert schema["additionalProperties"] is False
    defaults = {name: each["default"] for name, each in schema["properties"].items() if "default" in each}
    assert defaults == _DEFAULTS.get(kind.__name__, {})


def test_a_payment_has_the_fields_of_its_struct() -> None:
    """The same fields and types, all always there."""
    written = {name: of_document(each) for name, each in SCHEMAS["Payment"]["properties"].items()}
    assert set(SCHEMAS["Payment"]["required"]) == written.keys()
    expected = struct_of(Payment)
    # The document promises a little more than the struct: what the database holds, and what `payment_from` fills in.
    expected["gateway"]["enum"] = {*tables.GATEWAYS, None}
    expected["payment_url"]["type"] = {"string"}
    for name in ("payment_url", "page_url", "whatsapp_url"):
        expected[name]["format"] = "uri"
    expected["amount_cents"]["minimum"] = 1
    expected["refunded_cents"]["minimum"] = expected["sequence"]["minimum"] = 0
    assert written == expected


def test_a_refund_has_the_fields_of_its_struct() -> None:
    """The same fields and types, all always there."""
    written = {name: of_document(each) for name, each in SCHEMAS["Refund"]["properties"].items()}
    assert set(SCHEMAS["Refund"]["required"]) == written.keys()
    expected = struct_of(refunds.Refund)
    # What the database holds.
    expected["gateway"]["enum"] = set(tables.GATEWAYS)
    expected["amount_cents"]["minimum"] = 1
    assert written == expected


@pytest.mark.parametrize(
    ("name", "kind"), [("Verification", provisioning.Verified), ("WebhookEndpoint", provisioning.Provisioned)]
)
def test_what_is_said_of_an_account_has_the_fields_of_its_struct(name: str, kind: type[msgspec.Struct]) -> None:
    """The same fields and types, all always there."""
    written = {key: of_document(each) for key, each in SCHEMAS[name]["properties"].items()}
    assert set(SCHEMAS[name]["required"]) == written.keys()
    # The document promises a little more than the struct.
    more: Schema = {
        "Verification": {"gateway": {"enum": set(tables.GATEWAYS)}, "mode": {"enum": {"live", "test", None}}},
        "WebhookEndpoint": {"gateway": {"const": "stripe"}, "url": {"format": "uri"}},
    }[name]
    assert written == {key: each | more.get(key, {}) for key, each in struct_of(kind).items()}


def test_the_pay_form_has_the_fields_of_the_code() -> None:
    """The fields that are read, their length, the numbers that are understood, and every way that a gateway knows."""
    fields = SCHEMAS["PayForm"]["properties"]
    assert fields.keys() == pay._FIELDS
    assert "required" not in SCHEMAS["PayForm"]
    assert {each["maxLength"] for each in fields.values() if "maxLength" in each} == {pay._MAX_FIELD}
    assert pay._count(str(fields["after"]["maximum"])) == fields["after"]["maximum"] == fields["tries"]["maximum"]
    assert pay._count(str(fields["after"]["maximum"] + 1)) is None
    assert fields["way"]["enum"] == [
        f"{gateway.name}.{method.name}" for gateway in (Paynow, Stripe) for method in gateway.methods
    ]


def test_settings_are_shown_without_the_secrets() -> None:
    """What is shown is every column that is no secret and every flag; what is secret is marked so in the request."""
    shown = {name: of_document(each) for name, each in SCHEMAS["PaymentSettings"]["properties"].items()}
    taken = {name: of_document(each) for name, each in SCHEMAS["SettingsPatch"]["properties"].items()}
    plain = {name: {"type": {"string", "null"}} for name in COLUMNS.keys() - SECRETS}
    assert shown == {
        **plain,
        "ecocash_dialect": taken["ecocash_dialect"],
        **{flag: {"type": {"boolean"}} for flag in CONFIGURED_BY},
    }
    assert set(SCHEMAS["PaymentSettings"]["required"]) == shown.keys()
    assert taken.keys() == COLUMNS.keys()
    marked = {name for name, each in SCHEMAS["SettingsPatch"]["properties"].items() if each.get("writeOnly")}
    assert marked == SECRETS


def test_the_problem_codes_are_those_of_the_code() -> None:
    """All that `web` has a title for and the guard answers by itself; of each error the code and status agree."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(guard))) if isinstance(node, ast.Call)]
    named = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "_problem"]
    guarded = {code.value for call in named if isinstance(code := call.args[2], ast.Constant)}
    assert len(named) >= len(guarded) > 1
    assert set(SCHEMAS["ProblemCode"]["enum"]) == web.TITLES.keys() | guarded
    kept = {(str(status), kind.code) for kind, status in web.STATUS_OF.items()}
    others = {
        ("400", "callback_refused"),
        ("401", "unauthorized"),
        ("408", "request_timeout"),
        ("500", "internal_error"),
    }
    promised = set()
    for operation in operations():
        for status, answer in op_answers(operation):
            for node in nodes(follow(answer).get("content", {}).get(web.PROBLEM_JSON, {}).get("schema", {})):
                code = node.get("properties", {}).get("code", {})
                promised |= {(status, each) for each in code.get("enum", [code["const"]] if "const" in code else [])}
    assert promised | {("422", "validation_failed")} <= kept | others
    final = [kind for kind in web.STATUS_OF if not kind.__subclasses__() and issubclass(kind, errors.PaymentsError)]
    # Only a customer can meet these, and is told on the page, as HTML: no answer to a program carries them.
    on_page = {errors.NotAccepted.code, errors.TooMany.code, "unsettled"}
    told = {code for _, code in promised}
    assert told >= {kind.code for kind in final} - {"validation_failed"} - on_page
    assert told.isdisjoint(on_page)


def test_the_event_types_are_those_of_the_code() -> None:
    """One for the link, one for the arrival in each status."""
    assert set(SCHEMAS["EventType"]["enum"]) == {LINK_CREATED, *EVENT_OF.values()}
    assert DOCUMENT["webhooks"].keys() == {"payment-event"}


# --- the document and the running service


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
                check(media["schema"], answer.json if kind.endswith("json") else answer.body.decode(), what)
        else:
            assert answer.body == b"", what
        self.seen.add(what)


_CLIENT = "/v1/clients/{client_id}"
SETTINGS = f"{_CLIENT}/payment-settings"
CREATE = f"{_CLIENT}/payments/create-link"
PAYMENT = f"{_CLIENT}/payments/{{payment_id}}"
PAGE = "/pay/{token}"
RECEIPT = f"{PAGE}/receipt"
VERIFY, WEBHOOK = f"{SETTINGS}/verify", f"{SETTINGS}/stripe-webhook"
REFUNDS = f"{PAYMENT}/refunds"
CALLBACKS = ("/callbacks/paynow/{client_id}", "/callbacks/paynow/{client_id}/{attempt}")
STRIPE_CALLBACKS = ("/callbacks/stripe/{client_id}", "/callbacks/stripe")
PLATFORM_SECRET = "whsec_of-the-platform-worth-nothing"
READS = [
    ("GET", SETTINGS),
    ("GET", PAYMENT),
    ("GET", f"{PAYMENT}/history"),
    ("GET", REFUNDS),
    ("POST", f"{PAYMENT}/refresh"),
]
OF_PAGE = [("GET", PAGE), ("POST", PAGE), ("GET", f"{PAGE}/status"), ("GET", RECEIPT)]


async def test_every_documented_answer_is_really_given(world: World) -> None:
    """Each answer that an operation may give, by the document, is provoked and is as documented: status, type of the
    content, headers, body; and no call is answered in a way that the document does not know."""
    world.context = replace(world.context, stripe_webhook_secrets=(PLATFORM_SECRET,))
    async with House.open(world) as house:
        talk = Conversation(house)
        await what_works(talk)
        await what_a_customer_does(talk)
        await what_is_refused(talk)
        card = await what_stripe_takes_and_gives_back(talk)
        await what_the_gateway_spoils(talk)
        await what_stripe_spoils(talk)
        await what_a_sick_database_gives(talk, card)
        await what_the_guard_answers(talk)
    documented = {(*operation.key, int(status)) for operation in operations() for status, _ in op_answers(operation)}
    assert talk.seen == documented


async def what_works(talk: Conversation) -> None:
    house = talk.house
    await talk.say("GET", SETTINGS)
    key = house.world.sandbox.integrations["1201"].key
    fields = {"paynow_integration_id": "1201", "paynow_integration_key": key, "display_name": "Mbare Hardware"}
    await talk.say("PATCH", SETTINGS, fields, headers={"X-Actor": "rudo@mbarehardware.example"})
    payment = (await talk.say("POST", CREATE, house.order(contact_phone="+263 77 000 0000"))).json
    talk.known = {
        "payment_id": payment["id"],
        "token": payment["page_url"].rsplit("/", 1)[1],
        "attempt": str(house.world.one("SELECT id FROM attempts")["id"]),
    }
    for method, path in (*READS, *OF_PAGE):
        await talk.say(method, path)
    await talk.say("GET", PAGE, params={"returned": "1", "n": "3"})
    await talk.say("GET", "/preview.png")
    for path in CALLBACKS:
        await talk.say("POST", path, b"reference=INV-1001&status=Paid&hash=0")
    for listener in ("internal", "public"):
        await talk.say("GET", "/livez", on=listener)
        await talk.say("GET", "/readyz", on=listener)
    for path in ("/openapi.yaml", "/docs", "/docs/rapidoc-min.js"):
        await talk.say("GET", path, token=None)
    other = (await talk.say("POST", CREATE, house.order(gateway=None))).json["id"]
    await talk.say("POST", f"{PAYMENT}/cancel", values={"payment_id": other})
    await talk.say("POST", f"{PAYMENT}/cancel", values={"payment_id": other})  # a second time is a wrong state


async def what_a_customer_does(talk: Conversation) -> None:
    """Every way to pay, by the fields of the form, each on a link of its own; and the receipt."""
    house, sandbox = talk.house, talk.house.world.sandbox
    saved = {"paynow_auth_email": "pay@mbarehardware.example", "whatsapp_number": "077 000 0000"}
    assert (await talk.say("PATCH", SETTINGS, saved)).json["whatsapp_number"] == "+263770000000"
    link: Any = {}

    async def form(**fields: str | int) -> Answer:
        check(SCHEMAS["PayForm"], fields)
        return await talk.say("POST", PAGE, {name: str(value) for name, value in fields.items()}, values=of(link))

    def of(payment: Any) -> dict[str, str]:
        return {"token": payment["page_url"].rsplit("/", 1)[1]}

    async def shown(text: str, **params: str) -> None:
        answer = await talk.say("GET", PAGE, params=params, values=of(link))
        assert text in answer.body.decode()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert (await talk.say("GET", f"{PAGE}/status", values=of(link))).json["version"]

    link = await house.create_link(gateway=None)
    assert (await talk.say("GET", RECEIPT, values=of(link))).status == 303
    assert (await form(way="paynow.ecocash", phone="12")).status == 422
    assert (await form(way="paynow.ecocash", phone="077 123 4567", after=0)).headers["Location"] == of(link)["token"]
    await shown("Look at your phone")
    await shown("Another way to pay", choose="1")
    await sandbox.approve(house.reference_of(link))
    await eventually(lambda: paid(house, link))
    await shown("receipt")
    kept = await talk.say("GET", RECEIPT, values=of(link))
    assert (kept.status, kept.headers["Content-Encoding"]) == (200, "gzip")

    link = await house.create_link(gateway=None)
    assert (await form(way="paynow.innbucks", phone="077 123 4567", after=0)).status == 303
    await shown("Pay with this code")

    link = await house.create_link(gateway=None)
    assert (await form(way="paynow.omari", phone="077 123 4567", after=0)).status == 303
    await shown("Type the code from your SMS")
    right = sandbox.otp_of(house.reference_of(link))
    assert (await form(otp="000000" if right != "000000" else "111111", tries=0)).status == 422
    assert (await form(otp=right, tries=1)).status == 303
    await eventually(lambda: paid(house, link))

    link = await house.create_link(gateway=None)
    answers = [
        (await form(way="paynow.onemoney", phone=f"07112345{tries}0", after=tries)).status for tries in range(TRIES + 1)
    ]
    assert answers == [303] * TRIES + [429]


async def paid(house: House, payment: Any) -> bool:
    return bool((await house.payment(payment))["status"] == "paid")


@dataclass
class Card:
    """A paid Stripe payment, and its event as Stripe posts it to the tenant's address and to the platform's."""

    house: House
    event: Any
    secret: str

    async def reported(self, talk: Conversation) -> list[Answer]:
        answers = []
        for path, secret in zip(STRIPE_CALLBACKS, (self.secret, PLATFORM_SECRET), strict=True):
            body, signature = self.house.world.stripe.signed(self.event, secret)
            answers.append(await talk.say("POST", path, body, headers={"Stripe-Signature": signature}))
        return answers


async def what_stripe_takes_and_gives_back(talk: Conversation) -> Card:
    """An account is verified and its webhook set up; a card pays, and gets its money back in parts."""
    house, stripe = talk.house, talk.house.world.stripe
    assert (await talk.say("POST", VERIFY, {"gateway": "stripe"})).json["code"] == "gateway_not_configured"
    assert (await talk.say("POST", WEBHOOK)).json["code"] == "gateway_not_configured"
    await talk.say("PATCH", SETTINGS, {"stripe_secret_key": "pk_test_wrong"})
    assert not (await talk.say("POST", VERIFY, {"gateway": "stripe"})).json["ok"]
    assert (await talk.say("POST", WEBHOOK)).json["code"] == "gateway_refused"
    await talk.say("PATCH", SETTINGS, {"stripe_secret_key": STRIPE_KEY})
    made = (await talk.say("POST", WEBHOOK, headers={"X-Actor": "rudo@mbarehardware.example"})).json
    assert made["replaced"] == []
    assert [(await talk.say("POST", VERIFY, {"gateway": name})).json["ok"] for name in ("paynow", "stripe")] == [
        True
    ] * 2
    payment = (await talk.say("POST", CREATE, house.order(gateway="stripe"))).json
    talk.known["payment_id"] = payment["id"]
    assert (await talk.say("POST", REFUNDS, {"reason": "nothing came yet"})).json["code"] == "wrong_state"
    reference = house.reference_of(payment)
    await stripe.pay(reference)
    await eventually(lambda: paid(house, payment))
    given = (await talk.say("POST", REFUNDS, {"reason": "One bag was torn", "amount_cents": 250})).json
    assert (given["status"], given["payment"]["refunded_cents"]) == ("succeeded", 250)
    told = (await talk.say("POST", REFUNDS, {"reason": "Both were", "amount_cents": 1001})).json
    assert [fault["field"] for fault in told["errors"]] == ["amount_cents"]
    assert len((await talk.say("GET", REFUNDS)).json["data"]) == 1
    card = Card(
        house,
        stripe.event_for(reference, "checkout.session.completed"),
        stripe.accounts[STRIPE_KEY].endpoints[made["endpoint_id"]].secret,
    )
    assert {answer.status for answer in await card.reported(talk)} == {200}
    for path in STRIPE_CALLBACKS:
        assert (await talk.say("POST", path, b"{}")).json["code"] == "callback_refused"
        await talk.say("POST", path, b" " * 65_537)
    told = (await talk.say("POST", CREATE, house.order(gateway="stripe", currency="ZIG"))).json
    assert [fault["field"] for fault in told["errors"]] == ["currency"]
    return card


async def what_stripe_spoils(talk: Conversation) -> None:
    world, wish = talk.house.world, {"reason": "One bag was torn", "amount_cents": 100}

    async def codes() -> list[str]:
        calls: list[tuple[str, Any]] = [(VERIFY, {"gateway": "stripe"}), (WEBHOOK, None), (REFUNDS, wish)]
        return [(await talk.say("POST", path, body)).json["code"] for path, body in calls]

    for operation in ("account.retrieve", "webhook_endpoints.create", "refunds.create"):
        world.stripe.add_fault("html", on=[operation], times=1)
    assert await codes() == ["gateway_timeout"] * 3
    gateways: Any = world.context.gateways
    working = gateways["stripe"]
    gateways["stripe"] = Stripe(world.courier.transport, "http://127.0.0.1:1")
    assert await codes() == ["gateway_unreachable"] * 3
    gateways["stripe"] = Outrun(world.courier.transport, world.stripe.public_url)
    assert (await talk.say("POST", WEBHOOK)).json["code"] == "wrong_state"
    gateways["stripe"] = working
    sealed = world.one("SELECT stripe_secret_key_enc AS it FROM payment_settings")["it"]
    world.rows_do("UPDATE payment_settings SET stripe_secret_key_enc = 'v1.000000000000.AAAA'")
    assert await codes() == ["credentials_unreadable"] * 3
    world.rows_do("UPDATE payment_settings SET stripe_secret_key_enc = %s", sealed)
    made = (await talk.say("GET", REFUNDS)).json["data"]
    # Of the one whose answer was lost, Stripe's event may have told by now.
    assert [each["status"] for each in made[:1] + made[2:]] == ["succeeded", "failed", "failed"]


class Outrun(Stripe):
    """Somebody else is always faster."""

    async def provision(self, credentials: Any, url: str) -> Endpoint:
        raise WrongState("Somebody else set the webhook up at the same time.")


async def what_is_refused(talk: Conversation) -> None:
    guarded = [operation.key for operation in operations() if "401" in operation.about["responses"]]
    assert (await asyncio.gather(*(talk.say(*key, token=None) for key in guarded)))[0].status == 401
    for method, path in guarded:
        await talk.say(method, path, values={"client_id": "not-a-uuid"})
        if "payment_id" in path:
            await talk.say(method, path, values={"payment_id": str(uuid4())})
    for method, path in OF_PAGE:
        await talk.say(method, path, values={"token": "x" * 27})
    await talk.say("POST", REFUNDS, {"reason": "not ours"}, values={"payment_id": str(uuid4())})
    for method, path in (("PATCH", SETTINGS), ("POST", CREATE), ("POST", VERIFY), ("POST", REFUNDS)):
        for body in (b"{", b"[]", {"no_such_field": 1}, {"display_name": "", "amount_cents": 0}):
            assert (await talk.say(method, path, body)).json["code"] == "validation_failed"
        await talk.say(method, path, b" " * 65_537)
    await talk.say("POST", WEBHOOK, b" " * 65_537)
    for method, path in (("PATCH", SETTINGS), ("POST", f"{PAYMENT}/cancel"), ("POST", WEBHOOK)):
        assert (await talk.say(method, path, {}, headers={"X-Actor": "x" * 101})).status == 422
    assert (await talk.say("POST", CREATE, talk.house.order(send="whatsapp"))).json["code"] == "validation_failed"
    for method, path in (("POST", PAGE), *(("POST", path) for path in CALLBACKS)):
        await talk.say(method, path, b" " * 65_537)
    await talk.say("POST", PAGE, b" " * (pay._MAX_FORM + 1))
    told = (await talk.say("PATCH", SETTINGS, {"paynow_auth_email": "nobody", "paynow_express_methods": "visa"})).json
    assert [fault["field"] for fault in told["errors"]] == ["paynow_auth_email", "paynow_express_methods"]
    told = (await talk.say("PATCH", SETTINGS, {"whatsapp_number": "12"})).json
    assert [fault["field"] for fault in told["errors"]] == ["whatsapp_number"]


async def what_the_gateway_spoils(talk: Conversation) -> None:
    house, world = talk.house, talk.house.world

    async def code(**changes: object) -> str:
        return str((await talk.say("POST", CREATE, house.order(**changes))).json["code"])

    assert await code(currency="ZIG") == await code(gateway="ecocash") == "gateway_not_configured"
    world.sandbox.add_fault("empty", on=["initiate"], times=1)
    assert await code() == "gateway_timeout"
    open_link = (await talk.say("POST", CREATE, house.order(gateway=None))).json
    await talk.say("PATCH", SETTINGS, {"paynow_integration_key": "00000000-0000-0000-0000-000000000000"})
    assert await code() == "gateway_refused"
    await talk.say("POST", PAGE, values={"token": open_link["page_url"].rsplit("/", 1)[1]})
    gateways: Any = world.context.gateways
    working = gateways["paynow"]
    gateways["paynow"] = Paynow(world.courier.transport, "http://127.0.0.1:1")
    assert await code() == "gateway_unreachable"
    gateways["paynow"] = working
    sealed = world.one("SELECT paynow_integration_key_enc AS it FROM payment_settings")["it"]
    world.rows_do("UPDATE payment_settings SET paynow_integration_key_enc = 'v1.000000000000.AAAA'")
    assert await code() == "credentials_unreadable"
    world.rows_do("UPDATE payment_settings SET paynow_integration_key_enc = %s", sealed)


async def what_a_sick_database_gives(talk: Conversation, card: Card) -> None:
    house = talk.house
    changes = [
        (SETTINGS, "PATCH"),
        *((path, "POST") for path in (CREATE, f"{PAYMENT}/cancel", REFUNDS, VERIFY, WEBHOOK)),
    ]
    calls = [*READS, *OF_PAGE, *((method, path) for path, method in changes)]
    bodies = {
        SETTINGS: {"display_name": "Mbare Hardware"},
        CREATE: house.order(),
        REFUNDS: {"reason": "One bag was torn"},
        VERIFY: {"gateway": "stripe"},
    }
    card.event["id"] += "again"  # another message about the same session
    talk.house.world.rows_do("ALTER TABLE payments RENAME TO elsewhere")
    talk.house.world.rows_do("ALTER TABLE payment_settings RENAME TO elsewhere_too")
    for method, path in calls:
        assert (await talk.say(method, path, bodies.get(path) if method != "GET" else None)).status == 500
    assert {answer.status for answer in await card.reported(talk)} == {500}
    await house.world.context.db.close()
    for method, path in calls:
        assert (await talk.say(method, path, bodies.get(path) if method != "GET" else None)).status == 503
    assert {answer.status for answer in await card.reported(talk)} == {503}
    for listener in ("internal", "public"):
        assert (await talk.say("GET", "/readyz", on=listener)).json["status"] == "unready"
    for path in CALLBACKS:
        assert (await talk.say("POST", path, b"reference=1&status=Paid&hash=0")).status == 200


async def what_the_guard_answers(talk: Conversation) -> None:
    """The guard with less patience than usual; the listener behind it is never reached, or too slow."""

    async def sleepy(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(30)

    impatient = web.Observe(guard.Guard(sleepy, deadline=0.1, answer_deadline=0.2), "public")
    posts = [each for each in operations() if each.listener == "public" and each.method == "POST"]

    async def stalled(answered: asyncio.Event) -> AsyncIterator[bytes]:
        yield b"a"
        await answered.wait()

    async with serve(impatient, lifespan="off") as url, aiohttp.ClientSession() as http:
        for operation in posts:
            answered = asyncio.Event()
            async with http.post(url, data=stalled(answered)) as answer:
                talk.hold(operation, Answer(answer.status, answer.headers, await answer.read()))
                answered.set()
        async with http.post(url) as answer:
            assert answer.status == 503
            (operation,) = (each for each in posts if each.path == PAGE)
            talk.hold(operation, Answer(answer.status, answer.headers, await answer.read()))


async def test_every_event_and_every_step_of_history_is_as_documented(world: World) -> None:
    """A payment is led to each status, and by Stripe through most of them: the posts to the backend, headers and body,
    and the history are as documented, and the document knows no cause that does not occur."""
    hook = DOCUMENT["webhooks"]["payment-event"]["post"]
    told: dict[str, list[Any]] = {}

    async def receive(request: Request) -> PlainTextResponse:
        for parameter in hook["parameters"]:
            check(parameter["schema"], request.headers[parameter["name"]], parameter["name"])
        event = msgspec.json.decode(await request.body())
        told.setdefault(event["data"]["id"], []).append(event)
        return PlainTextResponse("")

    async with serve(Starlette(routes=[Route("/", receive, methods=["POST"])])) as url:
        world.courier = replace(world.courier, url=url)
        async with House.open(world) as house:
            await every_status(house, told)
            talk = Conversation(house)
            causes = set()
            for payment_id in told:
                history = (await talk.say("GET", f"{PAYMENT}/history", values={"payment_id": payment_id})).json["data"]
                causes |= {step["cause"] for step in history}
    for event in (event for events in told.values() for event in events):
        check(hook["requestBody"]["content"]["application/json"]["schema"], event, event["type"])
    assert causes == set(SCHEMAS["HistoryEntry"]["properties"]["cause"]["enum"])
    types = {event["type"] for events in told.values() for event in events}
    assert types == set(SCHEMAS["EventType"]["enum"])


async def every_status(house: House, told: dict[str, list[Any]]) -> None:
    await house.save_paynow()
    house.world.sandbox.add_fault("never")
    words = {"Paid": "paid", "Cancelled": "failed", "Disputed": "disputed", "Refunded": "refunded"}
    wanted = []
    for word, status in words.items():
        link = await house.create_link(reference=word)
        await house.world.sandbox.set_status(house.reference_of(link), word)
        wanted.append((link["id"], status))
    wrong = await house.create_link()
    await house.world.sandbox.pay(house.reference_of(wrong), "4.00")
    short, off = await house.create_link(gateway=None, expires_in=60), await house.create_link(gateway=None)
    await house.call("POST", house.path(f"/payments/{off['id']}/cancel"))
    house.world.clock.forward(seconds=90)
    wanted += [(wrong["id"], "review"), (short["id"], "expired"), (off["id"], "cancelled")]
    for payment_id, status in wanted:
        await eventually(
            lambda payment_id=payment_id, status=status: any(
                event["data"]["status"] == status for event in told.get(payment_id, ())
            )
        )
    await there_and_back(house, told)


async def there_and_back(house: House, told: dict[str, list[Any]]) -> None:
    """A card payment whose refunds and dispute lead to nearly every status and back, each told with the one before."""
    stripe = house.world.stripe
    await house.save_stripe()
    link = await house.create_link(gateway="stripe")
    reference = house.reference_of(link)
    await eventually(lambda: link["id"] in told)
    await stripe.pay(reference)

    async def arrived(*step: str | int) -> None:
        def shown() -> bool:
            newest = max((event["data"] for event in told.get(link["id"], ())), key=lambda data: data["sequence"])
            return (newest["previous_status"], newest["status"], newest["refunded_cents"]) == step

        await eventually(shown)

    await arrived("pending", "paid", 0)
    wish = {"reason": "One bag was torn", "amount_cents": 250}
    answer = await house.call("POST", house.path(f"/payments/{link['id']}/refunds"), wish)
    assert answer.status == 201, answer.body
    await arrived("paid", "partially_refunded", 250)
    made = await stripe.refund(reference, 500)
    await arrived("partially_refunded", "partially_refunded", 750)
    await stripe.move_refund(made["id"], "failed")
    await arrived("partially_refunded", "partially_refunded", 250)
    await stripe.move_refund(answer.json["gateway_reference"], "failed")
    await arrived("partially_refunded", "paid", 0)
    await stripe.dispute(reference)
    await arrived("paid", "disputed", 0)
    await stripe.close_dispute(reference, "won")
    await arrived("disputed", "paid", 0)
    await stripe.dispute(reference)
    await arrived("paid", "disputed", 0)
    await stripe.close_dispute(reference, "lost")
    await arrived("disputed", "refunded", 1250)
