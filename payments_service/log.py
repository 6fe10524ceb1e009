"""Logging: structlog, JSON or console, one line per request and per outside call.

Secrets and personal data stay out by construction: only the keys in `KEYS` are written, only plain values, texts that
come from outside are scrubbed, and of an exception its type and places are written, not its message (a database
driver's message can hold a whole row). Only our own errors, whose messages are written for people, show theirs.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from datetime import datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO
from uuid import UUID

import msgspec
import structlog

from payments_service.errors import PaymentsError

# Whatever is not named here is withheld. Add a key only if its value can hold neither a secret nor a person's data.
KEYS = frozenset(
    (
        "event", "level", "timestamp", "logger", "request_id", "listener", "caller", "operation", "method", "status",
        "milliseconds", "client_id", "payment_id", "attempt_id", "event_id", "gateway", "call", "outcome", "error",
        "detail", "said", "from_status", "to_status", "sequence", "late", "reason", "type", "tries", "http_status",
        "next_try_at", "count", "before", "after", "key_id", "column", "progress", "port", "host", "pid", "version",
        "path", "worker", "exception", "settings", "signal", "step", "trace_id", "refund_id",
        "message_id", "error_code",
    )
)  # fmt: skip


# Texts that people or gateways wrote; the rest are our own words, numbers and ids.
_SCRUBBED = frozenset({"detail", "said", "error"})
_LONGEST = 600

_SECRETS = re.compile(
    r"""(?ix)
      [\w.+-]+@[\w-]+(?:\.[\w-]+)+                                   # e-mail
    | \b(?:sk|rk|pk)_(?:live|test)_\w+ | whsec_[\w+/=]+              # Stripe, Standard Webhooks
    | bearer\s+[\w.~+/=-]+
    | \bEAA\w{8,}                                                    # Meta
    | \bwamid\.[\w+/=-]+                                             # holds the customer's number
    | \b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b  # a Paynow key is a GUID
    | \b[0-9a-f]{32,}\b
    | \+?\d[\d -]{7,}\d                                              # phone, card
    | ://[^/\s:@]+:[^/\s@]+@                                         # user and password of a URL
    | /pay/[\w-]+                                                  # a pay link: who has it may see the payment
    """
)


def scrub(text: str) -> str:
    """The text without what looks like a secret or a person's address, and not too long."""
    return _SECRETS.sub("[removed]", text)[:_LONGEST]


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Set up logging for the process, including that of the libraries we use. `style` is `json` or `console`."""
    output = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    last: Any = _line_of_json if style == "json" else structlog.dev.ConsoleRenderer(colors=output.isatty())
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_what_is_known,
            last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(output)
        if style == "json"
        else structlog.PrintLoggerFactory(output),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [_Library()]
    # Libraries say at DEBUG what passes through them; SQLAlchemy says it at INFO.
    root.setLevel(max(number, logging.INFO))
    # uvicorn warns of each malformed request: a stranger could fill the log with it.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    for chatty in ("sqlalchemy", "alembic", "asyncio", "aiohttp", "stripe"):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


def _line_of_json(_logger: object, _name: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event).decode()


def _only_what_is_known(_logger: object, _name: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """The wall: unknown keys and odd values are withheld, outside texts scrubbed, exceptions reduced to places."""
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    shown = {key: _plain(key, value) if key in KEYS else "[withheld]" for key, value in event.items()}
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        shown["exception"] = describe(error)
    return shown


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, str):
        # What is no Unicode (a file's name, an environment's variable) must not make the line fail.
        text = value.encode(errors="backslashreplace").decode()
        return scrub(text) if key in _SCRUBBED else text[:_LONGEST]
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, UUID | PurePath):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    return f"[{type(value).__name__} withheld]"


def describe(error: BaseException) -> str:
    """An exception and what caused it: types and places, and the message only of our own errors."""
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None and len(parts) < 5:
        frames = traceback.extract_tb(current.__traceback__)[-6:]
        places = " < ".join(
            f"{PurePath(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames)
        )
        words = f" ({scrub(current.detail)})" if isinstance(current, PaymentsError) else ""
        parts.append(f"{type(current).__name__}{words} at {places}")
        current = current.__cause__ or current.__context__
    return " | because of ".join(parts)


class _Library(logging.Handler):
    """Sends what libraries log through the same wall."""

    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger(record.name)
        error = record.exc_info[1] if record.exc_info else None
        try:
            detail = record.getMessage()
        except Exception:  # a library's slip in its own message must not become its caller's failure
            detail = record.msg if isinstance(record.msg, str) else "[a message that cannot be shown]"
        log.log(record.levelno, "library", logger=record.name, detail=detail, exc_info=error)
