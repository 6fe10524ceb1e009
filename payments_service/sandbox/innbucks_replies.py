"""What the simulated InnBucks says, as the protocol page shows it; where the page is silent, with a mark."""

from __future__ import annotations

import base64
import io
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

import msgspec
import segno

from payments_service.sandbox.answers import Answer
from payments_service.sandbox.innbucks_codes import NEW, PAID, Code, wire_time

Object = dict[str, Any]

# How the inquiry speaks of a code that is over: like of any other, or refused with its status, in one of two ways.
Finalised = Literal["ok", "refused", "http400"]

_APPROVED: Object = {"responseCode": 0, "responseMsg": "Approved or completed successfully"}
_REFUSED_CODE = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP status and a JSON object."""

    content: Object
    status: int = 200

    def with_content(self, content: Object) -> Reply:
        return replace(self, content=content)

    def answer(self) -> Answer:
        return Answer(self.status, msgspec.json.encode(self.content), {"Content-Type": "application/json"})


class Refusal(Exception):
    """The request is answered like this, and nothing is done."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


def signed_in(token: str) -> Reply:
    """On auth the response code is a text."""
    return Reply({"accessToken": token, "responseCode": "00", "responseDescription": "Auth successful"})


def minted(code: Code) -> Reply:
    return Reply(
        {
            "stan": _digits(6),
            "authNumber": _digits(7),
            "processedDateTime": wire_time(code.made_at, "milliseconds"),
            **_APPROVED,
            "code": code.code,
            "qrCode": _drawn(code.code),
            "amount": str(code.amount),
            "description": code.narration,  # [C]: the page shows the member, not what it holds
        }
    )


def looked_up(code: Code, finalised: Finalised) -> Reply:
    if code.final and finalised != "ok":
        told = {"responseCode": _REFUSED_CODE, "responseMsg": "2D Code Expired/Claimed", "status": code.status}
        return Reply(told, 400 if finalised == "http400" else 200)
    told = {"code": code.code, "amount": str(code.told_amount), "status": code.status}
    return Reply({**_APPROVED, **told, "timeToLive": f"{code.seconds_left}sec"})


def statement(codes: Iterable[Code]) -> Reply:
    return Reply({"responseCode": 0, "code": [_row(code) for code in codes]})


def _row(code: Code) -> Object:
    """Statements have words of their own, `Pending` and `Claimed`; the others are likely to be the inquiry's [C]."""
    words = {NEW: "Pending"} | dict.fromkeys(PAID, "Claimed")
    return {
        "amount": str(code.told_amount),
        "code": code.code,
        "createDate": wire_time(code.made_at),
        "closedDate": None if code.ended_at is None else wire_time(code.ended_at),
        "state": words.get(code.status, code.status),
    }


# --- refusals


def unknown_code() -> Reply:
    """Also for a code of another merchant. The words are a guess [C]."""
    return Reply({"responseCode": _REFUSED_CODE, "responseMsg": "2D Code not found"})


def unknown_account() -> Reply:
    """Also for the account of another merchant. The words are a guess [C]."""
    return Reply({"responseCode": _REFUSED_CODE, "responseMsg": "Account not found"})


def repeated_reference() -> Reply:
    """A guess [C]: the gateway's other words are those of ISO 8583, which has this code and text for it."""
    return Reply({"responseCode": 94, "responseMsg": "Duplicate transmission"})


def invalid(errors: list[str], now: float) -> Reply:
    """A validation error: its `status` is a number, and none of a code."""
    return Reply({"timestamp": _timestamp(now), "status": 400, "errors": errors}, 400)


def plain_error(status: int, path: str, now: float) -> Reply:
    """An error of the server itself, in Spring Boot's usual shape, like the validation error of the page [C]."""
    words = HTTPStatus(status).phrase
    return Reply({"timestamp": _timestamp(now), "status": status, "error": words, "path": path}, status)


def _timestamp(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")


def _digits(count: int) -> str:
    return f"{secrets.randbelow(10**count):0{count}d}"


def _drawn(code: str) -> str:
    """The code as a QR code: a PNG in base64."""
    picture = io.BytesIO()
    segno.make_qr(code).save(picture, kind="png", scale=4)
    return base64.b64encode(picture.getvalue()).decode("ascii")
