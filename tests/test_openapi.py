"""openapi.yaml is valid, and says of the code what is true and nothing else."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, cast, get_args, get_type_hints

import msgspec
import pytest
from msgspec import inspect as kinds
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from payments_service import (
    __version__,
    audit,
    errors,
    event_tables,
    leaving,
    listing,
    message_tables,
    provisioning,
    refunds,
    replay,
    reviews,
    tables,
    web,
)
from payments_service.accounts import COLUMNS, SECRETS, configured_by
from payments_service.gateways import registry
from payments_service.gateways.base import CallsBack
from payments_service.gateways.stripe_events import callback_of
from payments_service.gateways.stripe_wire import Event, read
from payments_service.internal import accounts, auth, once, schemas, tenants
from payments_service.internal import events as internal_events
from payments_service.internal import listing as internal_listing
from payments_service.internal.routes import ROUTES as INTERNAL_ROUTES
from payments_service.lifecycle import ReviewReason
from payments_service.messages import Message
from payments_service.outbox import KINDS
from payments_service.public import guard, pay
from payments_service.public.routes import routes as public_routes
from payments_service.records import Payment
from payments_service.whatsapp import News, news_in
from tests.house import settings_for
from tests.openapi import (
    AUDIT,
    CSV,
    DOCUMENT,
    EVENTS,
    FORMATS,
    LIST,
    REDELIVER_ALL,
    SCHEMAS,
    SUMMARY,
    TENANT,
    Schema,
    check,
    follow,
    is_guarded,
    nodes,
    op_answers,
    operations,
)

ADAPTERS = registry.build(cast("Any", None), settings_for())

# --- the document by itself


def test_the_document_is_valid_openapi() -> None:
    """OpenAPI 3.1 by an independent validator; each operation has an id of its own; every component is used."""
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["info"]["version"] == __version__
    described = [node for node in nodes(DOCUMENT) if "operationId" in node and "responses" in node]
    ids = [node["operationId"] for node in described]
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
    assert tags == {tag for node in described for tag in node["tags"]}
    assert {node["operationId"] for node in nodes(DOCUMENT) if "operationId" in node} == set(ids), (
        "links lead somewhere"
    )


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
            *("SendLink", "PaymentWithMessages", "WhatsappStatuses"),
            *("Payments", "Summary", "ResolveReview", "SettleRefund", "Reviews", "Events", "EventTold", "Redelivered"),
            *("AuditLogs", "ChainVerdict", "TenantProblem"),
        )
    }
    for schema, example in shown:
        check(schema, example)


_ITEMS = {"Payments": Payment, "Summary": listing.Total, "Reviews": reviews.Review, "Events": replay.Told}
_ITEMS["AuditLogs"] = audit.Entry


def as_made(kind: type[msgspec.Struct], data: Any) -> Any:
    """The examples as the service would write them."""
    made = msgspec.json.decode(msgspec.json.encode(data), type=list[kind])  # type: ignore[valid-type]
    return msgspec.json.decode(msgspec.json.encode(made))


def test_the_code_takes_and_makes_what_the_examples_show() -> None:
    """Requests decode into orders, payments are payments, problems have the words and the status of their code."""
    problems = 0
    for schema, example in examples():
        match schema.get("$ref", "").removeprefix("#/components/schemas/"):
            case "CreateLink":
                web.decode(msgspec.json.encode(example), schemas.CreateLink).order(datetime.now(UTC))
            case "SettingsPatch":
                assert web.decode(msgspec.json.encode(example), schemas.SettingsPatch).changes() == example
            case "SendLink":
                web.decode(msgspec.json.encode(example), schemas.SendLink)
            case "PaymentWithMessages":
                payment = {name: value for name, value in example.items() if name != "messages"}
                assert msgspec.to_builtins(msgspec.convert(payment, Payment)) == payment
                assert as_made(Message, example["messages"]) == example["messages"]
            case "WhatsappStatuses":
                (news,) = news_in(msgspec.json.encode(example))
                assert (news.status, news.message_id is None) == ("delivered", False)
            case "CreateRefund":
                web.decode(msgspec.json.encode(example), schemas.CreateRefund).wish()
            case "VerifySettings":
                web.decode(msgspec.json.encode(example), schemas.VerifySettings)
            case "ResolveReview":
                web.decode(msgspec.json.encode(example), schemas.ResolveReview).resolved()
            case "SettleRefund":
                assert web.decode(msgspec.json.encode(example), schemas.SettleRefund).words() == example["note"]
            case "Payments" | "Summary" | "Reviews" | "Events" | "AuditLogs" as several:
                assert as_made(_ITEMS[several], example["data"]) == example["data"]
            case "EventTold":
                assert as_made(replay.Told, [example]) == [example]
            case "Payment":
                assert msgspec.to_builtins(msgspec.convert(example, Payment)) == example
            case "Verification":
                assert msgspec.to_builtins(msgspec.convert(example, provisioning.Verified)) == example
            case "ChainVerdict":
                assert msgspec.to_builtins(msgspec.convert(example, audit.Verdict)) == example
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


# --- the document and the code


@pytest.mark.parametrize(("listener", "routes"), [("internal", INTERNAL_ROUTES), ("public", public_routes(ADAPTERS))])
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
        operation.key: {
            each["name"]
            for each in operation.parameters
            if each["in"] == "path" and each["schema"].get("format") == "uuid"
        }
        for operation in operations()
        if operation.listener == listener
    }
    assert documented == served


def test_every_gateway_that_calls_back_has_an_address() -> None:
    """And no other has: of those whose messages prove something it is an address of its own kind."""
    addresses = [route.path.split("/") for route in public_routes(ADAPTERS) if route.path.startswith("/callbacks/")]
    calling = {name for name, adapter in ADAPTERS.items() if isinstance(adapter, CallsBack)}
    assert {gateway for _, _, gateway, *_ in addresses} - {"whatsapp"} == calling


def test_a_token_is_needed_where_the_code_asks_for_one() -> None:
    """The internal listener asks for a token but for its open paths; the public one asks for none."""
    for operation in operations():
        opened = operation.path in auth.OPEN or operation.path.startswith("/docs/")
        needs = is_guarded(operation)
        assert needs == (operation.listener == "internal" and not opened), operation.key
        refusal = follow(operation.about["responses"].get("401", {}))
        assert ("WWW-Authenticate" in refusal.get("headers", {})) == needs, operation.key


def test_the_headers_are_taken_in_the_form_of_the_code() -> None:
    """`X-Actor` is documented where the code records an actor, `X-Request-Id` on the whole API, each in its form."""
    parameters = DOCUMENT["components"]["parameters"]
    assert parameters["IdempotencyKey"]["schema"]["pattern"] == f"^{once._KEY.pattern}$"
    assert parameters["Actor"]["schema"]["pattern"] == f"^{accounts._ACTOR.pattern}$"
    assert "pattern" not in parameters["RequestId"]["schema"], "one of another form is taken, and replaced"
    assert DOCUMENT["components"]["headers"]["RequestId"]["schema"]["pattern"] == f"^{web._REQUEST_ID.pattern}$"
    recorded = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in INTERNAL_ROUTES
        for method in (route.methods or set()) - {"HEAD"}
        if "actor_of(" in inspect.getsource(route.endpoint)
    }
    named = {operation.key: {each["name"] for each in operation.parameters} for operation in operations()}
    assert recorded == {key for key, names in named.items() if "X-Actor" in names} != set()
    assert all(("X-Request-Id" in names) == path.startswith("/v1/") for (_, path), names in named.items())
    for (method, path), names in named.items():
        assert ("Idempotency-Key" in names) == (method == "POST" and path.startswith("/v1/")), path


_WORDS = {kinds.StrType: "string", kinds.UUIDType: "string", kinds.DateTimeType: "string", kinds.BoolType: "boolean"}
_FORMATS = {kinds.UUIDType: "uuid", kinds.DateTimeType: "date-time"}


def of_code(kind: Any) -> Schema:
    """What a type of msgspec's allows, in JSON Schema's words: types and enum as sets."""
    if isinstance(kind, kinds.UnionType):
        (other,) = [each for each in kind.types if not isinstance(each, kinds.NoneType)]
        told = of_code(other)
        null = {"type": told["type"] | {"null"}}
        return told | null | ({"enum": told["enum"] | {None}} if "enum" in told else {})
    if isinstance(kind, kinds.Metadata):
        return of_code(kind.type) | (kind.extra_json_schema or {})
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


_DEFAULTS: dict[str, Schema] = {
    "CreateLink": {"expires_in": schemas.WEEK, "reminders": False},
    "SendLink": {"form": "template"},
    "CreateRefund": {"manual": False},
}


@pytest.mark.parametrize(
    "kind",
    [
        *(schemas.CreateLink, schemas.SettingsPatch, schemas.CreateRefund, schemas.VerifySettings),
        *(schemas.ResolveReview, schemas.SettleRefund, schemas.SendLink),
    ],
)
def test_a_request_has_the_fields_and_limits_of_its_struct(kind: type[msgspec.Struct]) -> None:
    """The same fields, required ones, types, lengths, patterns, bounds and values; no others are taken."""
    schema = SCHEMAS[kind.__name__]
    assert {name: of_document(each) for name, each in schema["properties"].items()} == struct_of(kind)
    assert set(schema.get("required", ())) == {each.name for each in msgspec.structs.fields(kind) if each.required}
    assert schema["additionalProperties"] is False
    defaults = {name: each["default"] for name, each in schema["properties"].items() if "default" in each}
    assert defaults == _DEFAULTS.get(kind.__name__, {})


_QUERIES = {
    LIST: internal_listing.PageQuery,
    CSV: internal_listing.ListQuery,
    SUMMARY: internal_listing.SummaryQuery,
    EVENTS: internal_events.EventsQuery,
    REDELIVER_ALL: internal_events.ReplayQuery,
    AUDIT: tenants.AuditQuery,
    TENANT: tenants.DeleteQuery,
}


@pytest.mark.parametrize("path", [operation.path for operation in operations() if operation.listener == "internal"])
def test_a_query_has_the_parameters_of_its_struct(path: str) -> None:
    """The same names, required ones, types, bounds, values and defaults; where there is no struct, there are none."""
    about = [each for operation in operations() if operation.path == path for each in operation.parameters]
    written = {each["name"]: each for each in about if each["in"] == "query"}
    fields = msgspec.structs.fields(_QUERIES[path]) if path in _QUERIES else ()
    assert written.keys() == {each.encode_name for each in fields}
    for each in fields:
        told, taken = written[each.encode_name], of_code(kinds.type_info(each.type))
        taken["type"] = taken["type"] - {"null"}
        if "enum" in taken:
            taken["enum"] = taken["enum"] - {None}
        if each.name == "type":  # the code says which there are
            taken = {"type": {"string"}, "enum": set(KINDS)}
        shown = of_document(told["schema"])
        if each.name in ("cursor", "after"):
            shown.pop("pattern", None)  # the code says more than that
        assert (shown, told.get("required", False)) == (taken, each.required), each.name
        default = None if each.default is msgspec.NODEFAULT else each.default
        assert told["schema"].get("default") == default, each.name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("Total", listing.Total), ("Review", reviews.Review), ("EventTold", replay.Told), ("EventTry", replay.Try)),
        *(("AuditEntry", audit.Entry), ("ChainVerdict", audit.Verdict), ("Message", Message)),
    ],
)
def test_what_is_found_has_the_fields_of_its_struct(name: str, kind: type[msgspec.Struct]) -> None:
    """The same fields, all always there; the same types where the struct tells them."""
    written = SCHEMAS[name]["properties"]
    assert set(SCHEMAS[name]["required"]) == written.keys() == {each.name for each in msgspec.structs.fields(kind)}
    for each in msgspec.structs.fields(kind):
        if each.name not in ("evidence", "data", "tries") and (name, each.name) != ("AuditEntry", "detail"):
            shown, made = of_document(written[each.name]), of_code(kinds.type_info(each.type))
            assert (shown["type"], shown.get("format")) == (made["type"], made.get("format")), each.name
    if name == "Review":
        assert set(written["reason"]["enum"]) == set(ReviewReason)
    if name == "EventTold":
        assert set(SCHEMAS["EventState"]["enum"]) == set(event_tables.EVENT_STATES)
    if name == "Message":
        assert SCHEMAS["MessageState"]["enum"] == list(message_tables.MESSAGE_STATES)
        assert SCHEMAS["MessageKind"]["enum"] == list(message_tables.MESSAGE_KINDS)
        assert SCHEMAS["MessageForm"]["enum"] == list(message_tables.MESSAGE_FORMS)


def test_an_event_tells_of_a_message_without_its_number() -> None:
    """What the payment's `messages` tell but for the number and the times; statuses are those that are read."""
    told = SCHEMAS["MessageNews"]
    assert set(told["required"]) == told["properties"].keys()
    assert told["properties"].keys() == SCHEMAS["Message"]["properties"].keys() - {"to", "created_at", "updated_at"}
    statuses = get_args(get_type_hints(News)["status"])
    assert SCHEMAS["WhatsappStatus"]["properties"]["status"]["enum"] == list(statuses)


def test_what_holds_a_deletion_up_is_what_the_code_counts() -> None:
    """The same kinds; only the one that can be given up may be missing."""
    written = SCHEMAS["TenantProblem"]["allOf"][1]["properties"]["in_the_way"]
    assert list(written["properties"]) == [each.name for each in leaving.OBSTACLES]
    assert written["properties"].keys() - set(written["required"]) == {"late_money_watched"}


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
        f"{name}.{method.name}" for name, gateway in ADAPTERS.items() for method in gateway.methods
    ]


def test_settings_are_shown_without_the_secrets() -> None:
    """What is shown is every column that is no secret and every flag; what is secret is marked so in the request."""
    shown = {name: of_document(each) for name, each in SCHEMAS["PaymentSettings"]["properties"].items()}
    taken = {name: of_document(each) for name, each in SCHEMAS["SettingsPatch"]["properties"].items()}
    plain = {name: {"type": {"string", "null"}} for name in COLUMNS.keys() - SECRETS}
    assert shown == {
        **plain,
        "ecocash_dialect": taken["ecocash_dialect"],
        **{flag: {"type": {"boolean"}} for flag in configured_by(ADAPTERS)},
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
        ("401", "callback_refused"),
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
    on_page = {errors.NotAccepted.code, "unsettled"}
    told = {code for _, code in promised}
    schemas_of_their_own = {errors.Invalid.code, errors.KeyReused.code}
    assert told >= {kind.code for kind in final} - schemas_of_their_own - on_page
    assert told.isdisjoint(on_page)


def test_the_event_types_are_those_of_the_code() -> None:
    """One for the link, one for the arrival in each status, and how far messages come."""
    assert SCHEMAS["EventType"]["enum"] == list(KINDS)
    assert DOCUMENT["webhooks"].keys() == {"payment-event"}
