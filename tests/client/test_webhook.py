"""Events are believed with a genuine signature only, and nobody's but the service's own is."""

from __future__ import annotations

import re
import secrets
import time
from base64 import b64encode
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Independent
from starlette.datastructures import Headers

from conva_payments import (
    Event,
    EventType,
    MessageEvent,
    MessageState,
    NotGenuine,
    PaymentEvent,
    Status,
    Webhook,
)
from payments_service.delivery import sign
from tests.openapi import DOCUMENT, follow

EVENTS_SECRET = "whsec_dGVzdHMtb25seS1zZWNyZXQtMDEyMzQ1Njc4OWFi"
OTHER_SECRET = "whsec_b3RoZXItdGVzdHMtb25seS0wMTIzNDU2Nzg5YWJjZGVm"
_POSTED = DOCUMENT["webhooks"]["payment-event"]["post"]["requestBody"]["content"]["application/json"]
EXAMPLE = follow(next(iter(_POSTED["examples"].values())))["value"]
BODY = msgspec.json.encode(EXAMPLE)
NOW = int(time.time())


def signed(body: bytes = BODY, *with_secrets: str, webhook_id: str = "event-1", at: int = NOW) -> dict[str, str]:
    """The headers that the service itself sends."""
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(webhook_id, at, body, with_secrets or (EVENTS_SECRET,)),
    }


def test_an_event_of_the_service_is_a_typed_event() -> None:
    """Whatever the case of the headers; starlette's own are taken as they are."""
    for headers in (signed(), {name.title(): value for name, value in signed().items()}, Headers(signed())):
        event = Webhook(EVENTS_SECRET).verify(headers, BODY, now=NOW)
        assert isinstance(event, PaymentEvent)
        assert (event.type, event.webhook_id) == (EXAMPLE["type"], "event-1")
        assert event.data.status is Status(EXAMPLE["data"]["status"])
        assert event.data.sequence == EXAMPLE["data"]["sequence"]
        assert str(event.data.id) == EXAMPLE["data"]["id"]
        assert event.data.created_at.tzinfo is not None


@given(st.uuids(), st.integers(0, 3))
def test_what_an_independent_library_signs_is_genuine(event_id: object, replay: int) -> None:
    """Standard Webhooks' own signer; a replay's id leads to its event's."""
    webhook_id = f"{event_id}.{replay}" if replay else str(event_id)
    at = datetime.fromtimestamp(NOW, UTC)
    signature = Independent(EVENTS_SECRET).sign(webhook_id, at, BODY.decode())
    headers = {"webhook-id": webhook_id, "webhook-timestamp": str(NOW), "webhook-signature": signature}
    event = Webhook(EVENTS_SECRET).verify(headers, BODY, now=NOW)
    assert (event.webhook_id, event.event_id) == (webhook_id, str(event_id))


def test_while_a_secret_is_replaced_either_side_may_be_first() -> None:
    """The service signs with both, or the backend knows both."""
    for theirs, ours in (
        ((EVENTS_SECRET, OTHER_SECRET), (OTHER_SECRET,)),
        ((EVENTS_SECRET,), (OTHER_SECRET, EVENTS_SECRET)),
    ):
        assert Webhook(*ours).verify(signed(BODY, *theirs), BODY, now=NOW)
    headers = signed()
    headers["webhook-signature"] = f"v1a,asymmetric {headers['webhook-signature']}"
    assert Webhook(EVENTS_SECRET).verify(headers, BODY, now=NOW)


FORGED = {
    "another secret": (signed(BODY, OTHER_SECRET), BODY),
    "another body": (signed(), BODY.replace(b"USD", b"ZIG")),
    "written anew": (signed(), msgspec.json.format(BODY)),
    "another id": ({**signed(), "webhook-id": "event-2"}, BODY),
    "another time": ({**signed(), "webhook-timestamp": str(NOW + 1)}, BODY),
    "another version": ({**signed(), "webhook-signature": signed()["webhook-signature"].replace("v1,", "v2,")}, BODY),
    "cut": ({**signed(), "webhook-signature": signed()["webhook-signature"][:-4]}, BODY),
    "nothing": ({**signed(), "webhook-signature": ""}, BODY),
    "no ASCII": ({**signed(), "webhook-signature": "v1,ü"}, BODY),
    "a byte that is no text": ({**signed(), "webhook-signature": "v1,\udcff"}, BODY),
    "an id that is no text": ({**signed(), "webhook-id": "\udcff"}, BODY),
    "too old": (signed(at=NOW - 301), BODY),
    "of the future": (signed(at=NOW + 301), BODY),
    **{f"no {name}": ({other: signed()[other] for other in signed() if other != name}, BODY) for name in signed()},
    **{f"time {text}": ({**signed(), "webhook-timestamp": text}, BODY) for text in ("", "soon", "1e9", "٣", "9" * 40)},
    "signed, but no event": (signed(b"[]"), b"[]"),
    "signed, but no JSON": (signed(b"\xff"), b"\xff"),
}


@pytest.mark.parametrize(("headers", "body"), FORGED.values(), ids=FORGED)
def test_everything_else_is_refused(headers: dict[str, str], body: bytes) -> None:
    """By one exception, which says why and shows neither secret nor signature."""
    with pytest.raises(NotGenuine) as raised:
        Webhook(EVENTS_SECRET).verify(headers, body, now=NOW)
    assert EVENTS_SECRET not in str(raised.value)
    assert not re.search(r"[A-Za-z0-9+/]{40}", str(raised.value))


@pytest.mark.parametrize("seconds", [-300, 0, 300])
def test_five_minutes_to_both_sides_are_fresh(seconds: int) -> None:
    assert Webhook(EVENTS_SECRET).verify(signed(at=NOW + seconds), BODY, now=NOW)


def test_an_event_of_a_message_is_no_event_of_a_payment() -> None:
    """It tells the message and whose it is; its payment, which it did not change, is not handed on."""
    example = _POSTED["examples"]["delivered"]["value"]
    body = msgspec.json.encode(example)
    event = Webhook(EVENTS_SECRET).verify(signed(body), body, now=NOW)
    assert isinstance(event, MessageEvent)
    assert (event.type, event.message.state) == (EventType.MESSAGE_DELIVERED, MessageState.DELIVERED)
    assert (str(event.message.id), str(event.payment_id)) == (example["data"]["message"]["id"], example["data"]["id"])
    assert not hasattr(event, "data")
    newer = {**example, "type": "message.answered"}
    newer["data"] = {**example["data"], "message": {**example["data"]["message"], "state": "answered", "more": 1}}
    body = msgspec.json.encode(newer)
    event = Webhook(EVENTS_SECRET).verify(signed(body), body, now=NOW)
    assert isinstance(event, MessageEvent)
    assert (event.type, event.message.state) == ("message.answered", "answered")


def test_an_event_of_tomorrow_is_passed_by() -> None:
    """Another kind, a new word, a new field: genuine all the same, and nothing to fail for."""
    payout = b'{"type":"payout.made","timestamp":"2026-11-24T08:00:00Z","data":{"to":"somebody"}}'
    event = Webhook(EVENTS_SECRET).verify(signed(payout), payout, now=NOW)
    assert type(event) is Event
    assert event.type == "payout.made"
    newer = msgspec.json.encode(
        {**EXAMPLE, "type": "payment.on_hold", "data": {**EXAMPLE["data"], "status": "on_hold", "more": 1}}
    )
    held = Webhook(EVENTS_SECRET).verify(signed(newer), newer, now=NOW)
    assert isinstance(held, PaymentEvent)
    assert held.data.status == "on_hold"


def test_without_a_good_secret_there_is_no_verifier() -> None:
    """None, an empty one, another form, a short one: refused at the start, without being shown."""
    short = "whsec_" + b64encode(secrets.token_bytes(23)).decode()
    with pytest.raises(ValueError, match="needed"):
        Webhook()
    for bad in ("", "whsec_", "whsec_%%%", EVENTS_SECRET.removeprefix("whsec_"), short, "whsec_" + "A" * 400):
        with pytest.raises(ValueError, match="secret is whsec_") as raised:
            Webhook(EVENTS_SECRET, bad)
        assert len(bad) < 10 or bad not in str(raised.value)
    assert EVENTS_SECRET[6:] not in repr(Webhook(EVENTS_SECRET)) + repr(vars(Webhook(EVENTS_SECRET)))
