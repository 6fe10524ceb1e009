"""What can go wrong with an answer of the simulated Stripe, as data.

Kinds that `work` carry the request out first, then spoil the answer: the caller cannot know. The others
interfere before anything is done. An idempotency key keeps the true answer of a request that was carried
out, and a 500 as well, which the API replays like any other: https://docs.stripe.com/api/idempotent_requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from payments_service.sandbox import answers
from payments_service.sandbox.faults import Fault, known
from payments_service.sandbox.stripe_accounts import Account, Object, copy, new_id
from payments_service.sandbox.stripe_errors import ApiError
from payments_service.sandbox.stripe_requests import OPERATIONS


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to go wrong. `works`: after the request was carried out. Exactly one of the others says how.

    `error` is an answer of the API itself; `reply` makes the HTTP response; `other` means another object's.
    """

    title: str
    works: bool = True
    may: tuple[str, ...] = OPERATIONS
    seconds: float = 0.0
    error: Callable[[], ApiError] | None = None
    reply: answers.Spoil | None = None
    other: bool = False


def plan(
    name: str,
    on: Iterable[str] | None = None,
    times: int | None = None,
    seconds: float | None = None,
    account: str | None = None,
) -> Fault[Kind]:
    """A fault with its kind's defaults filled in: on every operation.

    `account` is an account id or a secret key (None: everyone's). ValueError tells what cannot be.
    """
    kind = known(KINDS, name)
    operations = tuple(on or ()) or OPERATIONS
    if wrong := set(operations) - set(OPERATIONS):
        raise ValueError(f"no operation is called {', '.join(sorted(wrong))}; there are {', '.join(OPERATIONS)}")
    wait = kind.seconds if seconds is None else seconds
    return Fault(name, kind, operations, times, wait, account or "")


# --- answers of the API itself


def _server_error() -> ApiError:
    return ApiError("An unknown error occurred", status=500, kind="api_error", stored=True)


def _rate_limited() -> ApiError:
    message = "Request rate limit exceeded. Learn more about rate limits at https://docs.stripe.com/rate-limits."
    return ApiError(message, status=429, code="rate_limit")


def in_use(key: str = "") -> ApiError:
    """Another request with the same idempotency key is under way."""
    message = (
        "There is currently another in-progress request using this Idempotent Key (that probably means you submitted "
        f"twice, and the other request is still going through): {key}. Please try again later."
    )
    return ApiError(message, status=409, code="idempotency_key_in_use")


def _unauthorized() -> ApiError:
    return ApiError("Invalid API Key provided: sk_test_****dbox", status=401)


KINDS: dict[str, Kind] = {
    "html": Kind("answer is a web page with HTTP 200", reply=answers.html),
    "empty": Kind("answer is empty with HTTP 200", reply=answers.empty),
    "truncated": Kind("answer is cut in half", reply=answers.truncated),
    "huge": Kind("answer has 50 MB", reply=answers.huge),
    "redirect": Kind("answer is a redirect", works=False, reply=answers.redirect),
    "error500": Kind("answer is api_error with HTTP 500, which its key keeps", works=False, error=_server_error),
    "error500_after_accepting": Kind("work is done, answer is api_error with HTTP 500", error=_server_error),
    "error503_html": Kind("answer is a web page with HTTP 503", works=False, reply=answers.unavailable),
    "rate_limited": Kind("answer is HTTP 429", works=False, error=_rate_limited),
    "in_use": Kind("answer is HTTP 409 idempotency_key_in_use", works=False, error=in_use),
    "timeout_after_accepting": Kind("work is done, its answer never comes", seconds=30.0, reply=answers.no_reply),
    "reset": Kind("work is done, the connection is cut without an answer", reply=answers.no_reply),
    "slow_body": Kind("headers come at once, the body drips", seconds=60.0, reply=answers.slow),
    "wrong_object": Kind("answer is another object of the same kind", other=True),
    "unauthorized": Kind("answer is HTTP 401", works=False, error=_unauthorized),
}


def another(account: Account, body: bytes) -> Object:
    """An object of the kind in this answer that is not the one in it; an invented one if there is no other."""
    shown: Object = msgspec.json.decode(body)
    if shown["object"] == "list":
        return shown | {"data": [_other_than(account, item) for item in shown["data"]]}
    return _other_than(account, shown)


def _other_than(account: Account, thing: Object) -> Object:
    for candidate in account.all(thing["object"]):
        if candidate["id"] != thing["id"]:
            return copy(candidate)
    invented = thing | {"id": new_id(thing["id"].rpartition("_")[0])}
    return invented | ({"client_reference_id": "another-reference"} if "client_reference_id" in thing else {})
