"""WhatsApp's wire, without a database: what is sent, what answers and webhooks mean, whatever they look like."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from payments_service.errors import Ambiguous, GatewayError, Unreachable, Untrusted
from payments_service.gateways.transport import Reply, Transport
from payments_service.sandbox import whatsapp_checks
from payments_service.sandbox.whatsapp import TEMPLATES
from payments_service.sandbox.whatsapp_errors import ERRORS
from payments_service.sandbox.whatsapp_messages import Sender as Number
from payments_service.sandbox.whatsapp_webhooks import signed
from payments_service.whatsapp import Act, Cloud, Form, Letter, Rejected, Sender, act_on, is_signed, news_in
from tests.servers import Stage, serve

TOKEN = "EAAJZB7x4kQwBAexampleexample"
SENDER = Sender("106540352242922", TOKEN, "payment_request")
WAMID = "wamid.HBgMMjYzNzcxMjM0NTY3FQIAERgSQjRGMkE5"
OURS = UUID("0193a3f0-0000-7000-8000-000000000001")


def letter(**changes: Any) -> Letter:
    usual = {
        "id": OURS,
        "to": "+263771234567",
        "payee": "Acme",
        "amount": "USD 12.50",
        "reference": "Order 1001",
        "page_token": "AbC123",
        "text": "Pay USD 12.50 for order 1001: https://pay.example.com/pay/AbC123",
    }
    return Letter(**{**usual, **changes})


# --- what is sent and what is answered: a little server that answers as it is told


class Graph:
    """Gives one answer, and keeps what was asked."""

    def __init__(self, body: object, status: int = 200, headers: Any = ()) -> None:
        self.status, self.headers = status, headers
        self.body = body if isinstance(body, bytes) else msgspec.json.encode(body)
        self.asked: list[tuple[str, dict[bytes, bytes], Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while (part := await receive()) and (body := body + part["body"]) and part.get("more_body"):
            pass
        self.asked.append((f"{scope['method']} {scope['path']}", dict(scope["headers"]), msgspec.json.decode(body)))
        await send({"type": "http.response.start", "status": self.status, "headers": list(self.headers)})
        await send({"type": "http.response.body", "body": self.body})


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def meta() -> AsyncIterator[tuple[Stage, Cloud]]:
    stage = Stage()
    async with serve(stage, lifespan="off") as url, Transport() as transport:
        yield stage, Cloud(transport, url, "v26.0")


async def sent(meta: tuple[Stage, Cloud], graph: Graph, form: Form = "template") -> str:
    stage, cloud = meta
    stage.app = graph
    return await cloud.send(SENDER, letter(), form)


def taken(wamid: object = WAMID, **more: object) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "contacts": [], "messages": [{"id": wamid}], **more}


def error(code: object, **more: object) -> dict[str, Any]:
    return {"error": {"message": "No", "type": "OAuthException", "code": code, "fbtrace_id": "A1", **more}}


async def test_the_template_is_the_protocols_own_example(meta: tuple[Stage, Cloud]) -> None:
    """To the letter: parameters, button, callback data, token, address."""
    graph = Graph(taken())
    assert await sent(meta, graph) == WAMID
    ((line, headers, body),) = graph.asked
    assert line == "POST /v26.0/106540352242922/messages"
    assert headers[b"authorization"] == f"Bearer {TOKEN}".encode()
    assert headers[b"content-type"] == b"application/json"
    words = [{"type": "text", "text": each} for each in ("Acme", "USD 12.50", "Order 1001")]
    button = {"type": "button", "sub_type": "url", "index": "0", "parameters": [{"type": "text", "text": "AbC123"}]}
    assert body == {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "+263771234567",
        "type": "template",
        "template": {
            "name": "payment_request",
            "language": {"code": "en"},
            "components": [{"type": "body", "parameters": words}, button],
        },
        "biz_opaque_callback_data": str(OURS),
    }


async def test_the_text_is_the_protocols_own_example(meta: tuple[Stage, Cloud]) -> None:
    graph = Graph(taken())
    assert await sent(meta, graph, "text") == WAMID
    body = graph.asked[0][2]
    assert (body["type"], body["text"]["body"]) == ("text", letter().text)
    assert body["biz_opaque_callback_data"] == str(OURS)
    assert "template" not in body


class Wire:
    """A transport that ends here."""

    body = b""

    async def post(self, _what: str, _url: str, body: bytes, **_more: Any) -> Reply:
        self.body = body
        return Reply(200, msgspec.json.encode(taken()), {})


@given(st.text(max_size=120), st.text(max_size=120))
async def test_whatever_payee_and_reference_are_the_template_takes_them(payee: str, reference: str) -> None:
    """No line break, no tab, no five blanks, never empty: read by the simulator as strictly as by Meta."""
    wire = Wire()
    await Cloud(cast(Transport, wire), "", "v26.0").send(SENDER, letter(payee=payee, reference=reference), "template")
    number = Number("1", "t", "+263780000101", "2", "Conva")
    for template in TEMPLATES:
        number.add_template(template)
    draft = whatsapp_checks.read(wire.body, number, "https://pay.example.com/p/{{1}}")
    assert draft.link == "https://pay.example.com/p/AbC123"


UNCLEAR: dict[str, Graph] = {
    "empty": Graph(b""),
    "a page": Graph(b"<html>Sign in</html>"),
    "a page with 503": Graph(b"<html>Later</html>", 503),
    "a page with 404": Graph(b"<html>Who?</html>", 404),
    "cut": Graph(msgspec.json.encode(taken())[:-9]),
    "a list": Graph([]),
    "no message": Graph({"messaging_product": "whatsapp", "messages": []}),
    "a message without an id": Graph({"messages": [{}]}),
    "an empty id": Graph(taken("")),
    "a long id": Graph(taken("w" * 513)),
    "an id that no database keeps": Graph(taken("wamid.\x00")),
    "an id that is none": Graph(taken("wamid 1")),
    "a number as id": Graph(taken(7)),
    "an error with 200": Graph(error(190)),
    "a message with 400": Graph(taken(), 400),
    "a message with 500": Graph(taken(), 500),
    "an error without a code": Graph({"error": {"message": "No"}}, 400),
    "an error with a word as code": Graph(error("190"), 400),
    "an error beyond all codes": Graph(error(2**40), 400),
    "deep": Graph(b"[" * 20_000),
    "half a character": Graph(b'{"messages":[{"id":"\\ud800"}]}'),
    "a redirect": Graph(b"", 302, [(b"location", b"https://example.com/")]),
}


@pytest.mark.parametrize("answer", UNCLEAR)
async def test_what_names_no_message_and_no_error_says_nothing(meta: tuple[Stage, Cloud], answer: str) -> None:
    """The message may have been taken: neither sent nor refused is concluded."""
    with pytest.raises((Ambiguous, Untrusted)) as raised:
        await sent(meta, UNCLEAR[answer])
    assert isinstance(raised.value, GatewayError)
    assert TOKEN not in str(raised.value)


async def test_what_never_left_is_told_apart() -> None:
    async with Transport(connect_seconds=1) as transport:
        with pytest.raises(Unreachable):
            await Cloud(transport, "http://127.0.0.1:1", "v26.0").send(SENDER, letter(), "template")


@pytest.mark.parametrize("trouble", ERRORS.values(), ids=lambda trouble: str(trouble.code))
async def test_each_error_is_known_by_its_code(meta: tuple[Stage, Cloud], trouble: Any) -> None:
    """Whatever its HTTP status."""
    with pytest.raises(Rejected) as raised:
        await sent(meta, Graph(trouble.answer().body, trouble.http))
    assert raised.value.code == trouble.code
    assert raised.value.detail


@pytest.mark.parametrize("data", ["a word", None, [1], {"details": 7}, {"details": ""}, {}])
async def test_an_error_counts_whatever_its_words_are(meta: tuple[Stage, Cloud], data: object) -> None:
    """The Graph API's other parts write `error_data` as a text."""
    with pytest.raises(Rejected) as raised:
        await sent(meta, Graph(error(130429, error_data=data, title=None), 400))
    assert (raised.value.code, raised.value.detail) == (130429, "No")


async def test_no_error_tells_the_token_on(meta: tuple[Stage, Cloud]) -> None:
    """`Malformed access token EAA…` is what the Graph API really says; NUL is what no database keeps."""
    graph = Graph({"error": {"message": f"Malformed access token {TOKEN}\x00\n!", "code": 190}}, 401)
    with pytest.raises(Rejected) as raised:
        await sent(meta, graph)
    assert raised.value.detail == "Malformed access token [removed] !"
    assert TOKEN not in str(raised.value)


def test_what_holds_secrets_prints_none() -> None:
    for each in (SENDER, letter()):
        assert TOKEN not in repr(each)
        assert "77123" not in repr(each)
    assert TOKEN.encode() not in SENDER.digest
    assert SENDER.digest != Sender(SENDER.phone_number_id, "another", SENDER.template).digest


# --- the table of errors

# The protocol page, line by line.
PAGE: dict[tuple[int, ...], set[Act]] = {
    (190, 3, 10, *range(200, 300)): {Act.STOP},
    (4, 80007, 130429): {Act.BACK_OFF},
    (131056,): {Act.PAIR},
    (131047,): {Act.TEMPLATE},
    (131026, 131021): {Act.NEVER},
    # A pause for two of them; who has opted out is not written to any more.
    (131048, 131049): {Act.DAY},
    (131050,): {Act.NEVER},
    tuple(range(132000, 132017)): {Act.FAULT},
    (131031, 131042, 368, 133010): {Act.STOP},
    # Retried all of them. "Something went wrong" may have gone wrong after the message was taken.
    (131016, 2): {Act.RETRY},
    (131000, 1): {Act.UNSURE},
}


def test_each_code_asks_for_what_the_protocol_says() -> None:
    for codes, acts in PAGE.items():
        assert {act_on(code) for code in codes} == acts
    named = {code for codes in PAGE for code in codes}
    assert set(ERRORS) <= named, "the simulator knows a code that is in no line"
    assert {act for acts in PAGE.values() for act in acts} == set(Act)


@given(st.integers(-(2**31), 2**31 - 1))
def test_a_code_that_nobody_knows_is_no_reason_to_send_again(code: int) -> None:
    if not any(code in codes for codes in PAGE):
        assert act_on(code) is Act.NEVER


# --- webhooks


def webhook(*statuses: object, **value: object) -> bytes:
    told = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": "1065"}, "statuses": list(statuses)}
    change = {"field": "messages", "value": {**told, **value}}
    entry = [{"id": "1022", "changes": [change]}]
    return msgspec.json.encode({"object": "whatsapp_business_account", "entry": entry})


def status(word: str = "delivered", **more: object) -> dict[str, Any]:
    return {"id": WAMID, "status": word, "timestamp": "1796983200", "recipient_id": "263771234567", **more}


def test_a_status_is_read() -> None:
    (news,) = news_in(webhook(status(biz_opaque_callback_data=str(OURS))))
    assert (news.wamid, news.status, news.message_id, news.rejected) == (WAMID, "delivered", OURS, None)
    assert news.phone_number_id == "1065"


def test_a_failed_status_says_why() -> None:
    trouble = ERRORS[131047].in_status()
    (news,) = news_in(webhook(status("failed", errors=[trouble, {"code": 1}])))
    assert news.rejected is not None
    assert (news.rejected.code, news.rejected.act) == (131047, Act.TEMPLATE)
    assert news.rejected.detail == trouble["error_data"]["details"]


@pytest.mark.parametrize("errors", [None, [], {}, "x", [None], [{}], [{"code": "131026"}], [{"code": 2**31}], 7])
def test_a_failure_is_one_whatever_is_said_of_it(errors: object) -> None:
    (news,) = news_in(webhook(status("failed", errors=errors)))
    assert news.rejected is not None
    assert (news.rejected.code, news.rejected.act) == (0, Act.NEVER)


@pytest.mark.parametrize("data", [None, "", "INV-1", 7, [], {}, "0193a3f0", "\x00"])
def test_callback_data_that_is_not_ours_names_no_message(data: object) -> None:
    (news,) = news_in(webhook(status(biz_opaque_callback_data=data)))
    assert news.message_id is None


def test_a_batch_is_read_in_its_order_and_what_is_odd_in_it_passed_over() -> None:
    odd = (
        None,
        7,
        "x",
        [],
        {},
        status("deleted"),
        status(id=""),
        status(id=7),
        status(id="w\x00"),
        status(id="w" * 513),
    )
    told = [status("sent"), *odd, status("delivered"), status("read")]
    body = msgspec.json.decode(webhook(*told))
    body["entry"] += [None, 7, {}, {"changes": 7}, {"changes": [None, {"value": 7}, {"value": {"statuses": {}}}]}]
    body["entry"].append(msgspec.json.decode(webhook(status("failed"), metadata=7))["entry"][0])
    found = news_in(msgspec.json.encode(body))
    assert [news.status for news in found] == ["sent", "delivered", "read", "failed"]
    assert [news.phone_number_id for news in found] == ["1065", "1065", "1065", None]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ("entry", "changes", "value", "statuses", "id", "status", "errors", "metadata", "code", "x")
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(st.one_of(st.binary(max_size=200), _JSON.map(msgspec.json.encode)))
def test_no_body_is_too_odd(body: bytes) -> None:
    for news in news_in(body):
        assert news.wamid.isascii()
        assert "\x00" not in news.wamid


@given(_JSON, _JSON, _JSON, _JSON)
def test_no_status_is_too_odd(data: object, errors: object, metadata: object, more: object) -> None:
    told = status("failed", biz_opaque_callback_data=data, errors=errors, more=more)
    (news,) = news_in(webhook(told, metadata=metadata))
    assert news.rejected is not None
    assert "\x00" not in news.rejected.detail


def test_a_body_without_end_is_passed_over() -> None:
    assert news_in(b"[" * 60_000) == []
    assert news_in(b'{"entry":' * 6_000) == []


# --- the signature


@given(st.binary(max_size=300), st.text(min_size=1, max_size=40))
def test_the_signature_is_the_simulators(body: bytes, secret: str) -> None:
    mark = signed(body, secret)
    assert mark == "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    assert is_signed(secret, body, mark)
    assert not is_signed(secret, body + b" ", mark)
    assert not is_signed(secret + "x", body, mark)


@given(st.binary(min_size=1, max_size=100), st.data())
def test_one_bit_changed_is_another_body(body: bytes, data: st.DataObject) -> None:
    at, bit = data.draw(st.integers(0, len(body) - 1)), data.draw(st.integers(0, 7))
    changed = bytes((*body[:at], body[at] ^ (1 << bit), *body[at + 1 :]))
    assert not is_signed("secret", changed, signed(body, "secret"))


@pytest.mark.parametrize(
    "mark", [None, "", "sha256=", "sha1=" + "0" * 40, "sha256=" + "0" * 64, "\xff", "sha256=\u20ac"]
)
def test_what_is_no_signature_is_none(mark: str | None) -> None:
    assert not is_signed("secret", b"{}", mark)
    good = signed(b"{}", "secret")
    assert not is_signed("secret", b"{}", good.removeprefix("sha256="))
    assert not is_signed("secret", b"{}", good[:-1])
    assert not is_signed("secret", b"{}", f"{good} ")
