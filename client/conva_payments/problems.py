"""What can go wrong with a call, sorted by what the caller may conclude from it.

    PaymentsError                    what every call may raise
    ├── NoAnswer                     nothing came back in time: repeat it later with the same `idempotency_key`
    ├── UnexpectedAnswer             what came back is not of this API: a proxy, or a service of another version
    └── Problem                      the service said no, with a `code`; for codes that have no class of their own
        ├── Invalid                  the request has faults, field by field in `errors`
        ├── NotFound                 the tenant has no such thing
        ├── WrongState               the payment is not in a state in which this can be done
        ├── Unsettled                an earlier try may still bring the money
        ├── NotConfigured            the tenant has no credentials for this gateway and currency
        ├── ChannelNotConfigured     there is no number that messages can go out from now
        ├── GatewayRefused           the gateway said no: no money can come of it
        ├── GatewayUnreachable       the gateway was never asked: nothing was started
        ├── GatewayTimeout           asked, but the answer is lost: `payment_id` stays pending until a look-up tells
        ├── KeyReused                this idempotency key came before, with another request
        ├── StillRunning             the first request with this idempotency key has not ended yet
        ├── TooManyRequests          over the tenant's rate: see `retry_after`
        ├── Unavailable              the service's database cannot be reached now: it may be done all the same
        ├── Unreadable               the tenant's stored credentials do not open: the service's keys are wrong
        ├── Unauthorized             the token is none of SERVICE_TOKENS
        └── InternalError            a fault of the service, and it may be done; its log has the `request_id`

None of them holds the token, a body that was sent, or a header.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field; `body` stands for the whole, a header's name for a header."""

    field: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is known of a call that failed. `retry_after`: seconds; `payment_id`: on record before the gateway was
    asked; `request_id`: to be found in the service's log; `in_the_way`: what keeps a tenant from being deleted."""

    code: str
    detail: str
    status: int | None = None
    request_id: str | None = None
    idempotency_key: str | None = None
    retry_after: float | None = None
    payment_id: UUID | None = None
    errors: list[Fault] = field(default_factory=list)
    in_the_way: dict[str, int] = field(default_factory=dict)


class PaymentsError(Exception):
    """The root: a call did not succeed. `code` is stable, `detail` is for a person."""

    def __init__(self, told: Told) -> None:
        super().__init__(told)
        self.code = told.code
        self.detail = told.detail
        self.status = told.status
        self.request_id = told.request_id
        self.idempotency_key = told.idempotency_key
        self.retry_after = told.retry_after
        self.payment_id = told.payment_id
        self.errors = told.errors
        self.in_the_way = told.in_the_way

    def __str__(self) -> str:
        faults = "".join(f" {fault.field}: {fault.message};" for fault in self.errors)
        payment = f" payment {self.payment_id}" if self.payment_id else ""
        return f"{self.code}: {self.detail}{faults} [request {self.request_id}{payment}]"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class NoAnswer(PaymentsError):
    """Nothing came back in time. What was asked may have been done all the same."""


class UnexpectedAnswer(PaymentsError):
    """What came back is not of this API. What was asked may have been done all the same."""


class Problem(PaymentsError):
    """The service answered with problem details (RFC 9457)."""


class Invalid(Problem):
    """The request has faults: `errors` names them field by field."""


class NotFound(Problem):
    """The tenant has no such thing; one of another tenant's is answered the same way."""


class WrongState(Problem):
    """The payment is not in a state in which this can be done."""


class Unsettled(Problem):
    """An earlier try may still bring the money."""


class NotConfigured(Problem):
    """The tenant has no credentials for this gateway and currency."""


class ChannelNotConfigured(Problem):
    """There is no number that messages can go out from now: none is set up, or WhatsApp turned it down. Send the
    payment's `whatsapp_url` by hand."""


class GatewayRefused(Problem):
    """The gateway said no: no money can come of it."""


class GatewayUnreachable(Problem):
    """The gateway was never asked: nothing was started. With `payment_id` the link or refund is on record as failed."""


class GatewayTimeout(Problem):
    """The gateway was asked and its answer is lost. Start no other: `payment_id` is pending until a look-up tells; or,
    of a refund, is as it was, and the refund `requested`."""


class KeyReused(Problem):
    """This idempotency key came before with another request: a mistake of the caller's."""


class StillRunning(Problem):
    """The first request with this idempotency key has not ended yet: ask again later with the same."""


class TooManyRequests(Problem):
    """Over the tenant's rate: `retry_after` says when to come back."""


class Unavailable(Problem):
    """The service's database cannot be reached now. What was asked may have been done all the same: go on later under
    the same `idempotency_key`."""


class Unreadable(Problem):
    """The tenant's stored credentials do not open with the service's keys."""


class Unauthorized(Problem):
    """The token is none of the service's SERVICE_TOKENS."""


class InternalError(Problem):
    """A fault of the service: tell its people the `request_id`."""


CLASSES: dict[str, type[Problem]] = {
    "validation_failed": Invalid,
    "not_found": NotFound,
    "wrong_state": WrongState,
    "unsettled": Unsettled,
    "gateway_not_configured": NotConfigured,
    "whatsapp_not_configured": ChannelNotConfigured,
    "gateway_refused": GatewayRefused,
    "gateway_unreachable": GatewayUnreachable,
    "gateway_timeout": GatewayTimeout,
    "idempotency_key_reused": KeyReused,
    "idempotency_in_progress": StillRunning,
    "too_many_requests": TooManyRequests,
    "unavailable": Unavailable,
    "credentials_unreadable": Unreadable,
    "unauthorized": Unauthorized,
    "internal_error": InternalError,
}
