"""The Cloud API's errors: as the answer to a request, and inside a `failed` status.

Titles and HTTP statuses are those of Meta's list, developers.facebook.com/documentation/business-messaging/whatsapp/
support/error-codes, as far as it could be read; where it could not, with the mark [?]. A client is to branch on the
code alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from payments_service.sandbox.answers import Answer

Object = dict[str, Any]

_LIST = "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/"


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error: `details` says what is wrong in this very case; `subcode` is Graph's own, 0 for none."""

    code: int
    title: str
    http: int = 400
    details: str = ""
    subcode: int = 0
    kind: str = "OAuthException"
    headers: Mapping[str, str] = field(default_factory=dict)

    def answer(self) -> Answer:
        """As the answer to the request."""
        told: Object = {"message": self.message, "type": self.kind, "code": self.code}
        if self.subcode:
            told["error_subcode"] = self.subcode
        if self.details:
            told["error_data"] = {"messaging_product": "whatsapp", "details": self.details}
        told["fbtrace_id"] = f"A{secrets.token_urlsafe(16)}"
        return Answer(self.http, msgspec.json.encode({"error": told}), {**_JSON, **self.headers})

    def in_status(self) -> Object:
        """As one of the `errors` of a `failed` status."""
        details = self.details or self.title
        told: Object = {"code": self.code, "title": self.title, "message": self.title}
        return told | {"error_data": {"details": details}, "href": _LIST}

    @property
    def message(self) -> str:
        """Errors of the Graph API itself do not begin with their number."""
        return self.title if self.code == 190 or self.subcode else f"(#{self.code}) {self.title}"


class Refusal(Exception):
    """The request is answered with this error, and nothing is done."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.title)
        self.trouble = trouble


_JSON = {"Content-Type": "application/json; charset=UTF-8"}
_TOO_MANY_TO_ONE = (
    "Message failed to send because there were too many messages sent from this phone number to the same phone number "
    "in a short period of time."
)
_TOO_LATE = (
    "Message failed to send because more than 24 hours have passed since the customer last replied to this number."
)
_UNHEALTHY = "This message was not delivered to maintain healthy ecosystem engagement."
_BAD_TOKEN = "Invalid OAuth access token - Cannot parse access token"  # noqa: S105 - the words of an error


def unknown_token() -> Trouble:
    proof = f'OAuth "Facebook Platform" "invalid_token" "{_BAD_TOKEN}"'
    return Trouble(190, _BAD_TOKEN, 401, headers={"WWW-Authenticate": proof})


def unknown_object(identifier: str) -> Trouble:
    """Also for what belongs to another's token."""
    title = (
        f"Unsupported post request. Object with ID '{identifier}' does not exist, cannot be loaded due to missing "
        "permissions, or does not support this operation. Please read the Graph API documentation at "
        "https://developers.facebook.com/docs/graph-api"
    )
    return Trouble(100, title, subcode=33, kind="GraphMethodException")


def unknown_path(path: str) -> Trouble:
    return Trouble(2500, f"Unknown path components: {path}", 404)


def invalid(title: str) -> Trouble:
    """The request is not of the shape that the API takes."""
    return Trouble(100, title)


def missing(details: str) -> Trouble:
    return Trouble(131008, "Required parameter is missing", details=details)


def wrong_value(details: str) -> Trouble:
    return Trouble(131009, "Parameter value is not valid", details=details)


def wrong_count(part: str, given: int, expected: int) -> Trouble:
    details = (
        f"{part}: number of localizable_params ({given}) does not match the expected number of params ({expected})"
    )
    return Trouble(132000, "Number of parameters does not match the expected number of params", details=details)


def unknown_template(name: str, language: str) -> Trouble:
    details = f"template name ({name}) does not exist in {language}"
    return Trouble(132001, "Template name does not exist in the translation", 404, details)


def too_long(details: str) -> Trouble:
    return Trouble(132005, "Translated text too long", details=details)


def wrong_format(details: str) -> Trouble:
    return Trouble(132012, "Parameter format does not match format in the created template", details=details)


def forbidden_characters() -> Trouble:
    """Seen in many reports, such as https://github.com/schemalabz/opencouncil/pull/780."""
    details = "Param text cannot have new-line/tab characters or more than 4 consecutive spaces"
    return Trouble(132018, "There's an issue with the parameters in your template", details=details)


def too_fast() -> Trouble:
    return Trouble(131056, "(Business Account, Consumer Account) pair rate limit hit", details=_TOO_MANY_TO_ONE)


def outside_window() -> Trouble:
    return Trouble(131047, "Re-engagement message", details=_TOO_LATE)


# Every code of the protocol page that names one, to be told on demand.
ERRORS: dict[int, Trouble] = {
    one.code: one
    for one in (
        Trouble(1, "API Unknown"),
        Trouble(2, "API Service", 503),
        Trouble(3, "API Method", 500),
        Trouble(4, "Application request limit reached"),
        Trouble(10, "Permission denied", 403),
        unknown_token(),
        Trouble(200, "API Permission", 403),
        Trouble(368, "Temporarily blocked for policies violations", 403),
        Trouble(80007, "Rate limit issues"),
        Trouble(130429, "Rate limit hit", details="Cloud API message throughput has been reached."),
        Trouble(131000, "Something went wrong", 500),
        Trouble(131016, "Service unavailable", 500),
        Trouble(131021, "Recipient cannot be sender"),
        Trouble(131026, "Message undeliverable", details="Message Undeliverable."),
        Trouble(131031, "Business Account locked", 403),
        Trouble(131042, "Business eligibility payment issue"),
        outside_window(),
        Trouble(131048, "Spam rate limit hit"),
        Trouble(131049, _UNHEALTHY, details=_UNHEALTHY),
        Trouble(131050, "User has stopped receiving messages from this business"),  # [?] the words
        too_fast(),
        wrong_count("body", 2, 3),
        unknown_template("payment_request", "en"),
        too_long("body: the translated text is too long"),
        Trouble(132007, "Template format character policy violated"),
        wrong_format("body: component of type body has a parameter of the wrong format"),
        Trouble(132015, "Template is Paused"),
        Trouble(132016, "Template is Disabled"),
        Trouble(133010, "Phone number Not Registered"),
    )
}
