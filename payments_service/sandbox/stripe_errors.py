"""Stripe's errors as the API words them: https://docs.stripe.com/api/errors and /error-codes."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than success: HTTP `status`, and the members of the error envelope.

    `stored`: whether the request had begun to be carried out, so that its idempotency key keeps this answer.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        stored: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.stored = stored

    def envelope(self, request_id: str, *, livemode: bool = False) -> dict[str, Any]:
        """`{error: {type, message, code?, param?, doc_url?, request_log_url}}`."""
        mode = "" if livemode else "test/"
        error: dict[str, Any] = {
            "message": self.message,
            "request_log_url": f"https://dashboard.stripe.com/{mode}logs/{request_id}",
            "type": self.kind,
        }
        if self.code is not None:
            error["code"] = self.code
            error["doc_url"] = f"https://docs.stripe.com/error-codes#{self.code.replace('_', '-')}"
        if self.param is not None:
            error["param"] = self.param
        return {"error": dict(sorted(error.items()))}


def refused(message: str, code: str | None = None, param: str | None = None) -> ApiError:
    """What the API says once it carries a request out and the state of things forbids it."""
    return ApiError(message, code=code, param=param, stored=True)


def invalid(message: str, param: str, code: str | None = None) -> ApiError:
    """A parameter that cannot be, found before anything is carried out."""
    return ApiError(message, code=code, param=param)


def unknown(names: list[str]) -> ApiError:
    plural = "s" if len(names) > 1 else ""
    return invalid(f"Received unknown parameter{plural}: {', '.join(names)}", names[0], "parameter_unknown")


def missing(param: str) -> ApiError:
    return invalid(f"Missing required param: {param}.", param, "parameter_missing")


def no_such(kind: str, identifier: str, param: str) -> ApiError:
    """HTTP 404; a Checkout Session's id stands without quotes, every other within them."""
    shown = identifier if kind == "checkout.session" else f"'{identifier}'"
    return ApiError(f"No such {kind}: {shown}", status=404, code="resource_missing", param=param, stored=True)
