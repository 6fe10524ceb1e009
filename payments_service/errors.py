"""What can go wrong, sorted by what the caller may conclude from it.

    PaymentsError
    ├── Invalid          the request cannot be accepted as it is (field by field)
    ├── NotFound         no such thing for this tenant (a foreign one is answered the same way)
    ├── WrongState       the payment is not in a state in which this can be done
    │   └── MoneyOnItsWay  the tenant cannot be deleted yet
    ├── Unsettled        an earlier try may still bring the money, and the gateway does not say: start no other
    ├── NotConfigured    the tenant has no credentials for this gateway and currency
    ├── ChannelNotConfigured  no number that messages can go out from now
    ├── Unreadable       the tenant's stored credentials do not open with the keys we have
    ├── TooLarge         the body is over the limit
    ├── TooMany          asked too often: later it is answered again
    ├── KeyReused        the idempotency key belongs to another request
    ├── KeyBusy          the call with this idempotency key is being done just now
    ├── Unavailable      our own database cannot be reached now: what was asked for may be done, and can be repeated
    └── GatewayError
        ├── Refused      the gateway said no: nothing was started, no money can come from it
        ├── Unreachable  the call never left: nothing was started
        ├── Ambiguous    sent, but the answer is lost: only a look-up can tell
        ├── Untrusted    an answer came that does not prove itself: conclude nothing
        └── NotAccepted  the gateway did not take the customer's one-time password: the attempt stands as it was

Messages are written for the person who reads them and hold no secret, so they may be logged and answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from uuid import UUID


class PaymentsError(Exception):
    """The root. `code` is stable: programs branch on it; `detail` says what happened and what to do."""

    code = "internal_error"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Invalid(PaymentsError):
    """The request has faults; `faults` is a list of (field, message)."""

    code = "validation_failed"

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in faults))
        self.faults = faults


class NotFound(PaymentsError):
    code = "not_found"


class WrongState(PaymentsError):
    code = "wrong_state"


class MoneyOnItsWay(WrongState):
    """`in_the_way`: how many there are of each kind of what holds the deletion up."""

    def __init__(self, detail: str, in_the_way: dict[str, int]) -> None:
        super().__init__(detail)
        self.in_the_way = in_the_way


class Unsettled(PaymentsError):
    code = "unsettled"


class NotConfigured(PaymentsError):
    code = "gateway_not_configured"


class ChannelNotConfigured(PaymentsError):
    code = "whatsapp_not_configured"


class Unreadable(PaymentsError):
    """A stored credential does not open with the keys of this deployment."""

    code = "credentials_unreadable"


class TooLarge(PaymentsError):
    code = "body_too_large"


class TooMany(PaymentsError):
    """`retry_after`: in how many seconds it is worth trying again; `fields`: what HTTP tells of the limit beside."""

    code = "too_many_requests"

    def __init__(self, detail: str, retry_after: int, fields: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
        self.fields = fields or {}


class KeyReused(PaymentsError):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key came before with another request. Send a key of its own with each new request."
        )


class KeyBusy(PaymentsError):
    code = "idempotency_in_progress"
    retry_after = 1

    def __init__(self) -> None:
        super().__init__(
            "The request with this Idempotency-Key is being worked on. Send it again in a moment, with the same key."
        )


class Unavailable(PaymentsError):
    code = "unavailable"


class GatewayError(PaymentsError):
    """Never raised itself. `payment_id` names the payment that was on record before the gateway was asked, if any."""

    payment_id: UUID | None = None


class Because(StrEnum):
    """Why a gateway refused, as far as the customer can do something about it."""

    FUNDS = "funds"  # there is not enough money in the wallet
    METHOD = "method"  # this way to pay is not open to the tenant
    PHONE = "phone"  # not a number that can pay in this way
    OTHER = "other"


class Refused(GatewayError):
    code = "gateway_refused"

    def __init__(self, detail: str, because: Because = Because.OTHER) -> None:
        super().__init__(detail)
        self.because = because


class Unreachable(GatewayError):
    code = "gateway_unreachable"


class Ambiguous(GatewayError):
    code = "gateway_timeout"


class Untrusted(GatewayError):
    # To the backend it is the same as no answer: the payment stays pending until a look-up settles it.
    code = "gateway_timeout"


class NotAccepted(GatewayError):
    code = "otp_not_accepted"
