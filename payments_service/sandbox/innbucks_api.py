"""The simulated merchant API on the wire: addresses, keys, tokens, what a request must hold, faults."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import innbucks_replies as replies
from payments_service.sandbox.answers import spoilt
from payments_service.sandbox.faults import Fault, names
from payments_service.sandbox.innbucks_codes import Merchant
from payments_service.sandbox.innbucks_faults import Kind
from payments_service.sandbox.innbucks_ledger import InnbucksLedger
from payments_service.sandbox.innbucks_replies import Refusal, Reply

MOUNT = "/innbucks"
_INQUIRY_PATHS = ("/api/code/inquiry", "/api/code/query")
_EVERY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]


class _SignIn(msgspec.Struct):
    username: str = ""
    password: str = ""


class _Generate(msgspec.Struct):
    reference: str = ""
    narration: str = ""
    amount: int | None = None
    type: str = ""


class _Inquiry(msgspec.Struct):
    reference: str = ""
    code: str = ""


_Body = TypeVar("_Body", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it came."""

    ledger: InnbucksLedger
    request: Request
    body: bytes

    @property
    def path(self) -> str:
        """Below the gateway's base URL."""
        return self.request.url.path.partition(MOUNT)[2]

    @property
    def api_key(self) -> str:
        return self.request.headers.get("x-api-key", "")

    def caller(self) -> Merchant:
        """The merchant whose key and token came, or Refusal."""
        scheme, _, token = self.request.headers.get("authorization", "").partition(" ")
        merchant = self.ledger.holder(self.api_key, token.strip())
        if scheme.lower() != "bearer" or merchant is None:
            raise self.refusal(401)
        return merchant

    def read(self, shape: type[_Body]) -> _Body:
        """The JSON in the body, or Refusal. Members that are not asked for are passed over."""
        if self.request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise self.refusal(415)
        try:
            return msgspec.json.decode(self.body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.invalid([f"Malformed request: {error}"]) from None

    def refusal(self, status: int) -> Refusal:
        return Refusal(replies.plain_error(status, self.path, self.ledger.clock()))

    def invalid(self, errors: list[str]) -> Refusal:
        return Refusal(replies.invalid(errors, self.ledger.clock()))


def _nothing(_name: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Task:
    """A request that may be carried out: whose, what makes its reply, and which names of codes it is about."""

    merchant: Merchant
    work: Callable[[], Reply]
    is_named: Callable[[str], bool] = _nothing


_Check = Callable[[Asked], Task]


def routes(ledger: InnbucksLedger) -> list[BaseRoute]:
    """The merchant API below `/innbucks`, and JSON for what there is not."""

    async def absent(request: Request) -> Response:
        ledger.calls["absent"] += 1
        return _traced(_absent(Asked(ledger, request, b"")).answer().response())

    return [
        _route(ledger, "auth", "POST", "/auth/third-party", _sign_in),
        _route(ledger, "generate", "POST", "/api/code/generate", _generate),
        *(_route(ledger, "inquiry", "POST", path, _inquire) for path in _INQUIRY_PATHS),
        _route(ledger, "statement", "GET", "/api/code/{account_id}/miniStatement", _statement),
        Route(f"{MOUNT}/{{rest:path}}", absent, methods=_EVERY_METHOD),
    ]


def _route(ledger: InnbucksLedger, operation: str, method: str, path: str, check: _Check) -> Route:
    async def endpoint(request: Request) -> Response:
        asked = Asked(ledger, request, await request.body())
        there = path not in _INQUIRY_PATHS or path == ledger.inquiry_path
        ledger.calls[operation if there else "absent"] += 1
        response = _respond(asked, operation, check) if there else _absent(asked).answer().response()
        await asyncio.sleep(ledger.delay_seconds)
        return _traced(response)

    return Route(f"{MOUNT}{path}", endpoint, methods=[method])


def _traced(response: Response) -> Response:
    response.headers["X-Trace-Id"] = secrets.token_hex(8)
    return response


def _absent(asked: Asked) -> Reply:
    return asked.refusal(asked.ledger.absent_status).reply


def _respond(asked: Asked, operation: str, check: _Check) -> Response:
    try:
        task = check(asked)
    except Refusal as refusal:
        return refusal.reply.answer().response()
    fault = asked.ledger.use_fault(operation, task.is_named)
    if fault is None:
        return task.work().answer().response()
    answer = _faulty(asked, task, fault).answer()
    return spoilt(answer, fault.kind.lose, fault.seconds, f"{asked.ledger.public_url}/sandbox/innbucks/redirected")


def _faulty(asked: Asked, task: Task, fault: Fault[Kind]) -> Reply:
    """What the gateway says under this fault, before it is lost on the way."""
    kind, ledger = fault.kind, asked.ledger
    reply = task.work() if kind.works else Reply({})
    if kind.refuse:
        return kind.refuse(asked.path, ledger.clock())
    if kind.alter:
        other = ledger.another(task.merchant, str(reply.content.get("code", "")))
        return reply.with_content(kind.alter(reply.content, other))
    return reply


# --- the operations: each checks its request and gives the task, or raises Refusal


def _sign_in(asked: Asked) -> Task:
    ledger = asked.ledger
    if not ledger.has_key(asked.api_key):
        raise asked.refusal(401)
    sent = asked.read(_SignIn)
    if errors := _missing(Username=sent.username, Password=sent.password):
        raise asked.invalid(errors)
    merchant = ledger.identify(asked.api_key, sent.username, sent.password)
    if merchant is None:
        raise asked.refusal(401)
    return Task(merchant, lambda: replies.signed_in(ledger.sign_in(merchant)))


def _generate(asked: Asked) -> Task:
    merchant, sent, ledger = asked.caller(), asked.read(_Generate), asked.ledger
    errors = _missing(Reference=sent.reference, Narration=sent.narration, Amount=sent.amount, Type=sent.type)
    if sent.amount is not None and sent.amount < 1:
        errors.append("Amount must be greater than 0")
    if sent.type not in ("", "PAYMENT"):
        errors.append("Type is not supported")
    if errors or sent.amount is None:
        raise asked.invalid(errors)
    cents = sent.amount

    def work() -> Reply:
        return replies.minted(ledger.mint(merchant, sent.reference, sent.narration, cents))

    return Task(merchant, work, lambda name: names(name, sent.reference))


def _inquire(asked: Asked) -> Task:
    merchant, sent, ledger = asked.caller(), asked.read(_Inquiry), asked.ledger
    if errors := _missing(Reference=sent.reference, Code=sent.code):
        raise asked.invalid(errors)
    code = ledger.code_of(merchant, sent.code)

    def work() -> Reply:
        if not ledger.use_reference(merchant, sent.reference):
            return replies.repeated_reference()
        return replies.looked_up(code, ledger.finalised) if code else replies.unknown_code()

    return Task(merchant, work, code.is_named if code else _nothing)


def _statement(asked: Asked) -> Task:
    merchant, ledger = asked.caller(), asked.ledger
    if asked.request.path_params["account_id"] != merchant.account_id:
        raise Refusal(replies.unknown_account())
    return Task(merchant, lambda: replies.statement(ledger.codes_of(merchant)[: ledger.statement_rows]))


def _missing(**members: object) -> list[str]:
    """In the words of the page: `Code is required`."""
    return [f"{name} is required" for name, value in members.items() if value in ("", None)]
