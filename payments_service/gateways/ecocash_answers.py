"""What EcoCash's answers and callbacks allow to conclude, whatever the dialect. Values in, values out.

Nothing but a look-up that says exactly the dialect's paid value, about our correlator, is money; and what names no
transaction of ours fails none.
"""

from __future__ import annotations

import hmac
import re
from uuid import UUID

import msgspec

from payments_service.errors import Ambiguous, Untrusted
from payments_service.gateways.base import Opened, RefundOrder
from payments_service.gateways.ecocash_errors import (
    CODE,
    denied,
    failure_of,
    is_denied,
    is_unknown,
    problem_of,
    refusal,
)
from payments_service.gateways.ecocash_wire import ABSENT, Answer, Dialect, fields_of, outcome_of, shown, text_of
from payments_service.gateways.transport import Reply
from payments_service.lifecycle import Outcome, RefundReport, RefundState, Report

_ID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)

_REFUND_STATES = {
    Outcome.PAID: RefundState.SUCCEEDED,
    Outcome.PENDING: RefundState.PENDING,
    Outcome.FAILED: RefundState.FAILED,
}


class _Named(msgspec.Struct, frozen=True, rename="camel"):
    """What a callback may call the attempt."""

    client_reference: msgspec.Raw = ABSENT
    client_correlator: msgspec.Raw = ABSENT
    source_reference: msgspec.Raw = ABSENT


# --- charges


def taken(dialect: Dialect, attempt_id: UUID, reply: Reply) -> None:
    """Returns where the charge is under way; also where the answer says that it is paid: only a look-up proves that.

    Raises Refused, Ambiguous and Untrusted.
    """
    if not _succeeded(reply):
        raise failure_of("charge", reply, dialect)
    if dialect.accepts_silence:
        if _is_page(reply):
            raise Ambiguous("ecocash.charge: answered with a page, such as a firewall's")
        return
    answer = dialect.read(reply.body)
    if answer is None:
        raise Ambiguous("ecocash.charge: answered with nothing that tells of the charge")
    if not _is_called(answer, dialect.correlator(attempt_id)):
        raise Untrusted("ecocash.charge: the answer is about another charge, or about none")
    if outcome_of(answer.status, dialect.paid) in (Outcome.FAILED, Outcome.UNKNOWN):
        # Whether a prompt was out by then it does not say: only an explicit error is a sure no.
        raise Untrusted("ecocash.charge: taken, and over or in a state that is not known")


# --- look-ups


def looked_up(what: str, dialect: Dialect, reply: Reply) -> Answer | None:
    """The transaction that a look-up found; None where EcoCash says that it knows none. Raises Ambiguous, Untrusted."""
    problem = problem_of(reply.body)
    answer = dialect.read(reply.body) if _succeeded(reply) else None
    if answer and answer.status is not None:
        return answer
    if is_denied(reply, problem):
        raise Untrusted(denied(dialect, reply.status))
    if is_unknown(reply, problem):
        return None
    if answer is None:
        raise Ambiguous(f"ecocash.{what}: answered with HTTP {reply.status}, and not with a transaction")
    if not answer.known and problem and CODE.fullmatch(problem.code):
        raise Untrusted(f"ecocash.{what}: answered with {problem.code}")
    return answer if answer.known else None


def report_of(dialect: Dialect, attempt: Opened, reply: Reply) -> Report:
    """What a look-up says, if it speaks of this attempt. Money under another correlator goes on, as evidence for a
    person; nothing else is concluded from it. Raises Ambiguous and Untrusted."""
    answer = looked_up("look_up", dialect, reply)
    if answer is None:
        return Report(Outcome.NOT_FOUND, "not found")
    outcome = outcome_of(answer.status, dialect.paid)
    ours = _is_called(answer, dialect.correlator(attempt.attempt_id))
    if not ours and outcome is not Outcome.PAID:
        raise Untrusted("ecocash.look_up: the answer is about another transaction")
    return Report(
        outcome=outcome,
        said=shown(answer.status or "", dialect.secrets, 100),
        # Of two that should be one, the one that is not ours.
        amount=answer.amount if answer.amount != attempt.amount else answer.charged,
        reference=attempt.reference if ours else _foreign(dialect, attempt, answer),
        gateway_reference=_name(dialect, answer.reference) if outcome is Outcome.PAID else None,
    )


def accepted(dialect: Dialect, reply: Reply) -> bool:
    """Whether a look-up of what never was shows that these credentials may ask. Raises Ambiguous."""
    problem = problem_of(reply.body)
    if is_denied(reply, problem):
        return False
    # An error that is about the made-up payment, and not about who asks.
    about_payment = problem is not None and not problem.of_path and reply.status in (400, 404, 422)
    odd = is_unknown(reply, problem) or about_payment
    if odd or (_succeeded(reply) and dialect.read(reply.body) is not None):
        return True
    raise Ambiguous(f"ecocash.verify: answered with HTTP {reply.status}, and not to the question")


# --- refunds


def refunded(dialect: Dialect, order: RefundOrder, reply: Reply) -> RefundReport:
    """What the answer to a refund says. Raises Refused, Ambiguous and Untrusted."""
    if not _succeeded(reply):
        raise failure_of("refund", reply, dialect)
    answer = dialect.read_refund(reply.body)
    if answer is None:
        raise Ambiguous("ecocash.refund: answered with nothing that tells of the refund")
    if not _is_called(answer, dialect.correlator(order.refund_id)):
        raise Untrusted("ecocash.refund: the answer is about another refund, or about none")
    report = _refund_report(dialect, order, answer, dialect.refunded)
    if report is None:
        raise Untrusted("ecocash.refund: the answer does not say what became of it")
    if report.state is RefundState.FAILED:
        raise refusal(problem_of(reply.body), dialect.secrets)
    if not _is_of(order, answer):
        raise Untrusted("ecocash.refund: the answer is about another amount, or about none")
    if report.state is RefundState.PENDING and answer.lasting is None:
        # The name that it has now is not the one that it will have.
        raise Ambiguous("ecocash.refund: taken, and not yet done")
    return report


def traced(dialect: Dialect, order: RefundOrder, reply: Reply) -> RefundReport | None:
    """The end of a refund that was looked up; None where nothing follows. Raises Ambiguous and Untrusted."""
    answer = looked_up("trace_refund", dialect, reply)
    if answer is None or not _is_called(answer, dialect.correlator(order.refund_id)):
        return None
    report = _refund_report(dialect, order, answer, dialect.paid)
    if report is None or report.state is RefundState.PENDING:
        return None
    return report if report.state is RefundState.FAILED or _is_of(order, answer) else None


def _refund_report(dialect: Dialect, order: RefundOrder, answer: Answer, done: str) -> RefundReport | None:
    """How far the refund is; None where the word is none that we know."""
    state = _REFUND_STATES.get(outcome_of(answer.status, done))
    if state is None:
        return None
    name = _name(dialect, answer.reference)
    # The payment's own reference names no refund: there may be several of it.
    name = name if name and name != order.gateway_reference else dialect.correlator(order.refund_id)
    return RefundReport(name, order.amount, state, order.refund_id)


def _is_of(order: RefundOrder, answer: Answer) -> bool:
    return answer.amount == answer.charged == order.amount


# --- callbacks


def attempt_called(dialect: Dialect, address: str, body: bytes) -> UUID:
    """The attempt that a callback is about. Nothing else in it is read. Raises Untrusted."""
    path = dialect.callback_path()
    if path is None:
        if not _ID.fullmatch(address):
            raise Untrusted("the address names no attempt")
        return UUID(address)
    if not hmac.compare_digest(address.encode("utf-8", "surrogatepass"), path.encode()):
        raise Untrusted("the address is not the one that belongs to the tenant's API key")
    named = fields_of(body, _Named)
    for raw in (named.client_reference, named.client_correlator, named.source_reference) if named else ():
        name = (text_of(raw) or "").strip()
        if _ID.fullmatch(name):
            return UUID(name)
    raise Untrusted("the message names no attempt")


# --- what they have in common


def _succeeded(reply: Reply) -> bool:
    return 200 <= reply.status < 300


def _is_page(reply: Reply) -> bool:
    """Whether a firewall or a proxy answered, in the name of EcoCash."""
    return "html" in reply.headers.get("Content-Type", "").lower() or reply.body.lstrip().startswith(b"<")


def _is_called(answer: Answer, correlator: str) -> bool:
    return (answer.correlator or "").strip().lower() == correlator


def _foreign(dialect: Dialect, attempt: Opened, answer: Answer) -> str:
    """Whose it is instead; never what the attempt is called in our own books, which is no correlator."""
    name = _name(dialect, answer.correlator)
    return name if name and name != attempt.reference else ""


def _name(dialect: Dialect, reference: str | None) -> str | None:
    """A name of EcoCash's, if it is one."""
    name = shown(reference or "", (), 200)
    return name if name and name not in dialect.secrets else None
