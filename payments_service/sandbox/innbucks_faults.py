"""What can go wrong with an answer of the simulated InnBucks, as data.

Kinds that `work` carry the request out first, then change or lose the answer: the caller cannot know. The others
interfere before anything is done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from payments_service.sandbox import answers, innbucks_replies
from payments_service.sandbox.faults import Fault, known
from payments_service.sandbox.innbucks_codes import Code
from payments_service.sandbox.innbucks_replies import Object, Reply

OPERATIONS = ("auth", "generate", "inquiry", "statement")


@dataclass(frozen=True, slots=True)
class Kind:
    """One way to go wrong, on the operations where it `may`. `works`: after the request was carried out.

    `refuse` makes the gateway's own answer, of the path and the time; `alter` changes the true content, and knows
    another code of the merchant; `lose` makes the HTTP response that comes instead. Each kind has one of them.
    """

    title: str
    works: bool = True
    may: tuple[str, ...] = OPERATIONS
    seconds: float = 0.0
    refuse: Callable[[str, float], Reply] | None = None
    alter: Callable[[Object, Code], Object] | None = None
    lose: answers.Spoil | None = None


def plan(
    name: str,
    *,
    on: Iterable[str] = (),
    times: int | None = None,
    seconds: float | None = None,
    reference: str = "",
    share: float | None = None,
    seed: int = 0,
) -> Fault[Kind]:
    """A fault with its kind's defaults filled in: on every operation where it may happen, drawn from the `seed`.

    `reference` is a code's name (see `Code.is_named`): a request that is about no code has none. ValueError tells what
    cannot be.
    """
    kind = known(KINDS, name)
    wait = kind.seconds if seconds is None else seconds
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    return Fault(name, kind, tuple(on) or kind.may, times, wait, reference, share, dice)


# --- answers of the gateway itself


def _server_error(path: str, now: float) -> Reply:
    return innbucks_replies.plain_error(500, path, now)


def _unauthorized(path: str, now: float) -> Reply:
    return innbucks_replies.plain_error(401, path, now)


def _validation_error(_path: str, now: float) -> Reply:
    return innbucks_replies.invalid(["Code is required"], now)


# --- the true content, changed


def _other_amount(content: Object, _other: Code) -> Object:
    return content | {"amount": str(int(content["amount"]) + 100)} if "amount" in content else content


def _other_code(content: Object, other: Code) -> Object:
    status = {"status": other.status} if "status" in content else {}
    return content | {"code": other.code, "amount": str(other.told_amount)} | status


def _no_code(content: Object, _other: Code) -> Object:
    return {name: value for name, value in content.items() if name not in ("code", "qrCode")}


def _no_status(content: Object, _other: Code) -> Object:
    return {name: value for name, value in content.items() if name != "status"}


def _odd_status(content: Object, _other: Code) -> Object:
    return content | {"status": "Processing"}


_BY_CODE = ("generate", "inquiry")
_GENERATE = ("generate",)
_INQUIRY = ("inquiry",)

KINDS: dict[str, Kind] = {
    "html": Kind("answer is a web page with HTTP 200", lose=answers.html),
    "empty": Kind("answer is empty with HTTP 200", lose=answers.empty),
    "truncated": Kind("answer is cut in half", lose=answers.truncated),
    "huge": Kind("answer has 50 MB", lose=answers.huge),
    "slow": Kind("headers come at once, the body drips", seconds=60.0, lose=answers.slow),
    "redirect": Kind("answer is a redirect", works=False, lose=answers.redirect),
    "error500": Kind("answer is HTTP 500", works=False, refuse=_server_error),
    "error500_after_accepting": Kind("work is done, answer is HTTP 500", refuse=_server_error),
    "timeout_after_accepting": Kind("work is done, its answer never comes", seconds=30.0, lose=answers.no_reply),
    "reset": Kind("work is done, the connection is cut without an answer", lose=answers.no_reply),
    "unauthorized": Kind("answer is HTTP 401", works=False, refuse=_unauthorized),
    "wrong_amount": Kind("answer tells another amount", may=_BY_CODE, alter=_other_amount),
    "wrong_object": Kind("answer is about another code", may=_BY_CODE, alter=_other_code),
    "no_code": Kind("a code is made, the approval does not tell it", may=_GENERATE, alter=_no_code),
    "numeric_status": Kind(
        "answer is a validation error, whose status is a number", works=False, may=_BY_CODE, refuse=_validation_error
    ),
    "missing_status": Kind("answer has no status", may=_INQUIRY, alter=_no_status),
    "odd_status": Kind("answer has a status that nobody knows", may=_INQUIRY, alter=_odd_status),
}
