"""The simulated API's wire: keys, versions, idempotency, errors, faults. Source: https://docs.stripe.com/api."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox import stripe_direct_api, stripe_expansion, stripe_faults, stripe_params
from payments_service.sandbox.answers import Answer, spoilt
from payments_service.sandbox.faults import Fault
from payments_service.sandbox.stripe_accounts import Account, Object, Stored, copy, new_id
from payments_service.sandbox.stripe_catalog import API_VERSION
from payments_service.sandbox.stripe_errors import ApiError
from payments_service.sandbox.stripe_faults import Kind
from payments_service.sandbox.stripe_ledger import Seen
from payments_service.sandbox.stripe_operations import OPERATIONS, Call, Operation
from payments_service.sandbox.stripe_requests import PARAMETERS
from payments_service.sandbox.stripe_returns import StripeReturns
from payments_service.sandbox.stripe_webhooks import encode

_HEADERS_KEPT = ("stripe-version", "idempotency-key", "user-agent", "x-stripe-client-telemetry", "cookie")
_PARAMETERS = PARAMETERS | stripe_direct_api.PARAMETERS
_FORM = "application/x-www-form-urlencoded"
_LONGEST_KEY = 255
_KEY_SECONDS = 24 * 3600  # https://docs.stripe.com/api/idempotent_requests: keys may go after 24 hours


def routes(ledger: StripeReturns) -> list[BaseRoute]:
    """`/v1/…`: every operation of stripe_operations, and JSON for what there is not."""

    async def unknown(request: Request) -> Response:
        message = (
            f"Unrecognized request URL ({request.method}: {request.url.path}). Please see https://stripe.com/docs or "
            "we can help at https://support.stripe.com/."
        )
        return _respond(_failure(ApiError(message, status=404), new_id("req", 7), livemode=False))

    return [
        *(
            Route(one.path, _endpoint(ledger, one), methods=[one.method])
            for one in (*OPERATIONS, *stripe_direct_api.OPERATIONS)
        ),
        Route("/v1/{rest:path}", unknown, methods=["GET", "POST", "DELETE", "PUT", "PATCH"]),
    ]


def _endpoint(ledger: StripeReturns, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        exchange = Exchange(ledger, operation, request, await request.body())
        response = await exchange.response()
        # No client of an API needs it: a jar that several tenants share would show by sending it back.
        response.headers.append("Set-Cookie", f"sandbox_account={exchange.account_id or 'nobody'}; Path=/")
        return response

    return endpoint


class Exchange:
    """One request and what becomes of it."""

    def __init__(self, ledger: StripeReturns, operation: Operation, request: Request, body: bytes) -> None:
        self._ledger = ledger
        self._operation = operation
        self._request = request
        self._body = body
        self._id = new_id("req", 7)
        self._key = _secret_key(request)
        self._account = ledger.accounts.get(self._key)
        self._fault: Fault[Kind] | None = None

    @property
    def account_id(self) -> str:
        return self._account.id if self._account else ""

    async def response(self) -> Response:
        ledger, name = self._ledger, self._operation.name
        ledger.calls[name] += 1
        ledger.expire_due()
        try:
            raw = self._body if self._request.method == "POST" else str(self._request.url.query).encode()
            params = stripe_params.decode(raw)
        except ApiError as error:
            self._record({})
            return _respond(self._failure(error))
        self._record(params)
        try:
            account = self._authenticated()
            self._fault = ledger.use_fault(account, name)
            self._check_headers(account)
        except ApiError as error:
            await asyncio.sleep(ledger.delay_seconds)
            return _respond(self._failure(error))
        return await self._faulty(account, params)

    async def _faulty(self, account: Account, params: Object) -> Response:
        fault = self._fault
        if fault and fault.kind.reply and not fault.kind.works:
            return self._spoilt(fault, Answer(200, b"", {}))
        answer = await self._answer(account, params)
        if fault and fault.kind.other and answer.status == 200:
            answer = self._other(account, answer)
        return self._spoilt(fault, answer) if fault else _respond(answer)

    def _spoilt(self, fault: Fault[Kind], answer: Answer) -> Response:
        return spoilt(answer, fault.kind.reply, fault.seconds, f"{self._ledger.public_url}/sandbox/stripe/redirected")

    # --- who asks

    def _record(self, params: Object) -> None:
        request = self._request
        kept = {name: request.headers[name] for name in _HEADERS_KEPT if name in request.headers}
        seen = Seen(self._operation.name, self.account_id, self._key, request.method, request.url.path, params, kept)
        self._ledger.requests.append(seen)

    def _authenticated(self) -> Account:
        """The key's account, if the key may do this."""
        if not self._key:
            raise ApiError(
                "You did not provide an API key. You need to provide your API key in the Authorization header, using "
                "Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#"
                "authentication for details, or we can help at https://support.stripe.com/.",
                status=401,
            )
        if self._key in self._ledger.expired_keys:
            raise ApiError(f"Expired API Key provided: {_masked(self._key)}", status=401, code="api_key_expired")
        if self._account is None:
            raise ApiError(f"Invalid API Key provided: {_masked(self._key)}", status=401)
        if self._account.may is not None and self._operation.name not in self._account.may:
            raise ApiError(
                f"The provided key '{_masked(self._key)}' does not have the required permissions for this endpoint on "
                f"account '{self._account.id}'. Having the '{_permission(self._operation)}' permission would allow "
                "this request to continue.",
                status=403,
            )
        return self._account

    def _check_headers(self, account: Account) -> None:
        version = self._request.headers.get("stripe-version", account.api_version)
        if version != API_VERSION:
            raise ApiError(f"Invalid Stripe API version: {version}. This simulator knows {API_VERSION} only.")
        kind = self._request.headers.get("content-type", _FORM).partition(";")[0].strip()
        if self._body and kind != _FORM:
            raise ApiError(f"Invalid request (check that your POST content type is {_FORM}).")
        if len(self._idempotency_key) > _LONGEST_KEY:
            raise ApiError(f"Idempotency keys may be at most {_LONGEST_KEY} characters long.")

    @property
    def _idempotency_key(self) -> str:
        """Only POST has one: what reads or deletes is idempotent by itself."""
        return self._request.headers.get("idempotency-key", "") if self._request.method == "POST" else ""

    # --- what is done

    async def _answer(self, account: Account, params: Object) -> Answer:
        try:
            if stored := self._stored(account, params):
                return _replayed(stored, self._idempotency_key, self._id)
            if self._fault and self._fault.kind.error and not self._fault.kind.works:
                raise self._fault.kind.error()
            spec = _PARAMETERS[self._operation.name]
            checked = spec.read(params)
            stripe_expansion.check(self._operation.kind, checked.get("expand", ()))
        except ApiError as error:
            await asyncio.sleep(self._ledger.delay_seconds)
            answer = self._failure(error)
            if error.stored and self._idempotency_key:
                self._begin(account, params)
                self._keep(account, answer)
            return answer
        return await self._carried_out(account, params, checked)

    async def _carried_out(self, account: Account, params: Object, checked: Object) -> Answer:
        self._begin(account, params)
        await asyncio.sleep(self._ledger.delay_seconds)
        stored = True
        try:
            answer = self._success(self._perform(account, checked))
            if self._fault and self._fault.kind.error:
                raise self._fault.kind.error()
        except ApiError as error:
            answer, stored = self._failure(error), error.stored
        if stored:
            self._keep(account, answer)
        else:
            account.keys_used.pop(self._idempotency_key, None)
        return answer

    def _perform(self, account: Account, checked: Object) -> Object:
        cause: Object = {"id": self._id, "idempotency_key": self._idempotency_key or None}
        target = self._request.path_params.get("id", "")
        result = self._operation.work(Call(self._ledger, account, target, checked, cause))
        if result["object"] == "list":
            result["url"] = self._operation.path
        return stripe_expansion.expand(account, result, checked.get("expand", ()))

    def _other(self, account: Account, answer: Answer) -> Answer:
        """The same kind of object, but not the one that was asked for."""
        shown: Object = stripe_faults.another(account, answer.body)
        return Answer(answer.status, encode(shown), answer.headers)

    # --- idempotency keys

    def _stored(self, account: Account, params: Object) -> Stored | None:
        """What the key keeps, None for a fresh one; ApiError when it was used for something else or is in use."""
        key, path = self._idempotency_key, self._request.url.path
        stored = account.keys_used.get(key)
        if not key or stored is None or self._ledger.clock() - stored.created > _KEY_SECONDS:
            return None
        if stored.path != path:
            raise ApiError(
                f"Keys for idempotent requests can only be used for the same endpoint they were first used for "
                f"('{stored.path}' vs '{path}'). Try using a key other than '{key}' if you meant to execute a "
                "different request.",
                kind="idempotency_error",
            )
        if stored.params != params:
            raise ApiError(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        if stored.running:
            raise stripe_faults.in_use(key)
        return stored

    def _begin(self, account: Account, params: Object) -> None:
        if key := self._idempotency_key:
            now = self._ledger.clock()
            account.keys_used[key] = Stored(self._request.method, self._request.url.path, copy(params), self._id, now)

    def _keep(self, account: Account, answer: Answer) -> None:
        if stored := account.keys_used.get(self._idempotency_key):
            stored.status, stored.body = answer.status, answer.body

    # --- answers

    def _success(self, result: Object) -> Answer:
        return Answer(200, encode(result), self._headers())

    def _failure(self, error: ApiError) -> Answer:
        return _failure(error, self._id, livemode=self._account is not None and self._account.livemode)

    def _headers(self) -> dict[str, str]:
        return _headers(self._id, self._idempotency_key)


def _headers(request_id: str, idempotency_key: str = "") -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Request-Id": request_id, "Stripe-Version": API_VERSION}
    if idempotency_key:
        headers |= {"Idempotency-Key": idempotency_key, "Original-Request": request_id}
    return headers


def _failure(error: ApiError, request_id: str, *, livemode: bool) -> Answer:
    headers = _headers(request_id)
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Stripe"'
    return Answer(error.status, encode(error.envelope(request_id, livemode=livemode)), headers)


def _replayed(stored: Stored, idempotency_key: str, request_id: str) -> Answer:
    headers = _headers(request_id, idempotency_key)
    headers |= {"Original-Request": stored.request_id, "Idempotent-Replayed": "true"}
    return Answer(stored.status, stored.body, headers)


def _respond(answer: Answer) -> Response:
    return answer.response()


def _secret_key(request: Request) -> str:
    """The key of Basic (as the user name) or Bearer authentication, empty if there is none."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[0]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def _masked(key: str) -> str:
    """`sk_test_********abcd`."""
    return f"{key[:8]}{'*' * max(4, len(key) - 12)}{key[-4:]}"


_RESOURCES = {"sessions": "checkout_session", "webhook_endpoints": "webhook", "account": "accounts_kyc_basic"}


def _permission(operation: Operation) -> str:
    resource = operation.name.partition(".")[0]
    access = "read" if operation.method == "GET" else "write"
    return f"rak_{_RESOURCES.get(resource, resource.removesuffix('s'))}_{access}"
