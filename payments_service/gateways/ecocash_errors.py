"""EcoCash's explicit errors: where they stand in an answer, what they mean, and what may be concluded from them.

Sources: `open_api` documents HTTP codes only, `eip_portal` codes E001 to E015 [A], `eip` nothing [?]: the names of the
fields are those of the portal, of the usual API gateways and frameworks, and of OneAPI, which the classic gateway's
requests come from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from payments_service.errors import Ambiguous, Because, GatewayError, Refused
from payments_service.gateways.ecocash_wire import ABSENT, Dialect, fields_of, first_of, shown, text_of
from payments_service.gateways.transport import Reply


class _Problem(msgspec.Struct, frozen=True, rename="camel"):
    """Every name that is known for a code and for words, and the objects that hold them in turn."""

    status_code: msgspec.Raw = ABSENT
    error_code: msgspec.Raw = ABSENT
    response_code: msgspec.Raw = ABSENT
    code: msgspec.Raw = ABSENT
    message_id: msgspec.Raw = ABSENT
    status_message: msgspec.Raw = ABSENT
    response_message: msgspec.Raw = ABSENT
    error_message: msgspec.Raw = ABSENT
    message: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    detail: msgspec.Raw = ABSENT
    description: msgspec.Raw = ABSENT
    title: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT
    fault: msgspec.Raw = ABSENT
    path: msgspec.Raw = ABSENT
    request_error: msgspec.Raw = ABSENT
    service_exception: msgspec.Raw = ABSENT
    policy_exception: msgspec.Raw = ABSENT


@dataclass(frozen=True, slots=True)
class Problem:
    """An explicit JSON error: `code` such as E010, `text` in EcoCash's words; one of them may be missing.
    `of_path`: it is about the URL's path, as a web framework tells of one that it does not know."""

    code: str
    text: str
    of_path: bool = False


def problem_of(body: bytes, depth: int = 3) -> Problem | None:
    """The error that the body tells of; None where it is no JSON object with a code or words."""
    said = fields_of(body, _Problem)
    if said is None:
        return None
    code = first_of(said.status_code, said.error_code, said.response_code, said.code, said.message_id)
    text = first_of(
        said.status_message,
        said.response_message,
        said.error_message,
        said.message,
        said.text,
        said.detail,
        said.description,
        said.title,
        said.error,
    )
    if code or text:
        return Problem((code or "").strip().upper(), text or "", text_of(said.path) is not None)
    inner = (said.error, said.fault, said.request_error, said.service_exception, said.policy_exception)
    found = (problem_of(bytes(each), depth - 1) for each in inner if bytes(each)[:1] == b"{" and depth)
    return next((each for each in found if each), None)


CODE = re.compile(r"E[0-9]{3}", re.ASCII)
NOT_FOUND = "E008"
_DENIED = frozenset({"E006", "E007"})
_DUPLICATE = {"charge": frozenset({"E005", "E009"}), "refund": frozenset({"E005"})}
_LATER = frozenset({"E014", "E015"})
# What the codes mean to the person who set EcoCash up, and what the customer may make of it [A: eip_portal].
ADVICE: dict[str, tuple[str, Because]] = {
    "E001": ("EcoCash does not accept a field of the request.", Because.OTHER),
    "E002": ("EcoCash does not accept this phone number.", Because.PHONE),
    "E003": (
        "EcoCash does not take this currency from this merchant: leave it out of ecocash_currencies.",
        Because.METHOD,
    ),
    "E004": ("EcoCash does not accept this amount.", Because.OTHER),
    "E008": ("EcoCash does not know what this is about.", Because.OTHER),
    "E010": ("There is not enough money in the wallet.", Because.FUNDS),
    "E011": ("The wallet of this phone number is barred at EcoCash.", Because.PHONE),
    "E012": ("This is more than what can be given back of the payment.", Because.OTHER),
    "E013": ("This is above a limit of the wallet.", Because.OTHER),
}
# The same of texts without a code we know, the first that fits.
_SPOKEN = (
    (re.compile(r"(?:insufficient|not enough).{0,20}(?:fund|balance|money)", re.IGNORECASE), "E010"),
    (
        re.compile(r"refund.{0,40}(?:exceed|more than|greater than|above).{0,30}(?:original|amount)", re.IGNORECASE),
        "E012",
    ),
    (re.compile(r"(?:invalid|unknown|unregistered)\b.{0,30}(?:msisdn|subscriber|phone|mobile)", re.IGNORECASE), "E002"),
    (
        re.compile(
            r"(?:msisdn|subscriber|phone|mobile)\b.{0,30}(?:invalid|unknown|must|not (?:valid|found|registered))",
            re.IGNORECASE,
        ),
        "E002",
    ),
)
_OF_SUCCESS = re.compile(r"success", re.IGNORECASE)
_OF_DUPLICATE = re.compile(r"duplicat|already (?:been )?(?:used|exist|process)", re.IGNORECASE)
# A 404 may be about the road instead of the transaction: of a look-up that was moved elsewhere nothing follows for the
# payment. So it must say what is not there, or in open_api's own words [A] that it is not.
_OF_TRANSACTION = re.compile(
    r"transaction|payment|reference|correlator|charge|refund|requested resource do(?:esn.t|es not) exist",
    re.IGNORECASE,
)


def is_denied(reply: Reply, problem: Problem | None) -> bool:
    """Whether the credentials are what EcoCash does not accept."""
    return reply.status in (401, 403) or (problem is not None and problem.code in _DENIED)


def is_unknown(reply: Reply, problem: Problem | None) -> bool:
    """Whether EcoCash says explicitly that it knows no such transaction."""
    if problem is None:
        return False
    if problem.code == NOT_FOUND:
        return True
    return reply.status == 404 and not problem.of_path and bool(_OF_TRANSACTION.search(problem.text))


def denied(dialect: Dialect, status: int) -> str:
    return f"EcoCash does not accept these credentials (HTTP {status}): check {dialect.fields} in payment-settings."


def failure_of(what: str, reply: Reply, dialect: Dialect) -> GatewayError:
    """What an answer outside of 2xx to a charge or refund allows to conclude: Refused where it is a sure no, else
    Ambiguous. That our correlator is known already says that an earlier try arrived."""
    problem = problem_of(reply.body)
    lost = Ambiguous(f"ecocash.{what}: answered with HTTP {reply.status}")
    conflict = reply.status == 409 and (what == "charge" or problem is None or problem.code != "E009")
    if reply.status >= 500 or reply.status in (408, 425) or conflict:
        return lost
    if reply.status == 429:
        return Refused("EcoCash takes no more requests at the moment: try again in a minute.")
    # Who may not even ask has started nothing, however that is worded; a page with a 403 is a firewall's.
    if reply.status == 401 or (problem and is_denied(reply, problem)):
        return Refused(denied(dialect, reply.status), Because.METHOD)
    if problem is None:
        return lost
    if problem.code in _DUPLICATE[what] or _OF_DUPLICATE.search(problem.text):
        return Ambiguous(f"ecocash.{what}: EcoCash knows this correlator already")
    # "Valid but failed" alone may be said of one that is on the phone.
    if problem.code in _LATER or (reply.status == 402 and _code(problem) is None):
        return lost
    return refusal(problem, dialect.secrets)


def _code(problem: Problem) -> str | None:
    """The code that says what is wrong, of the problem's own or of its words."""
    if problem.code in ADVICE:
        return problem.code
    return next((code for pattern, code in _SPOKEN if pattern.search(problem.text)), None)


def refusal(problem: Problem | None, secrets: Sequence[str]) -> Refused:
    """EcoCash's no in words for the person who set it up, with EcoCash's own after them."""
    if problem is None:
        return Refused("EcoCash refused it without a reason.")
    words, because = ADVICE.get(_code(problem) or "", ("EcoCash refused it.", Because.OTHER))
    # A failure may be worded "200 Transaction Successful" [B].
    code = problem.code if CODE.fullmatch(problem.code) else ""
    text = "" if _OF_SUCCESS.search(problem.text) else problem.text
    said = shown(f"{code} {text}", secrets, 200)
    return Refused(f"{words} (EcoCash says: {said})" if said else words, because)
