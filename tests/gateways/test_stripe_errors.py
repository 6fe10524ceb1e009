"""Stripe's adapter when Stripe says no, something odd, or nothing: what that allows to conclude, how often it asks."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from payments_service.errors import Ambiguous, GatewayError, NotConfigured, Refused, Unreachable, Untrusted
from payments_service.gateways import stripe_client
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.gateways.stripe_client import StripeRefused
from payments_service.gateways.transport import Reply, Transport
from payments_service.lifecycle import Outcome
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import (
    CREDENTIALS,
    KEY,
    REFERENCE,
    Liar,
    account_of,
    asked_for,
    concluded,
    opened,
    request,
)
from tests.house import eventually
from tests.servers import listen

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, hasty, liar, quick = stripe_stage.stripe, stripe_stage.hasty, stripe_stage.liar, stripe_stage.quick

CREATE = ("sessions.create",)


def keys_of(sandbox: StripeSandbox) -> list[str]:
    """The idempotency key of every try to make a session."""
    return [seen.headers["idempotency-key"] for seen in asked_for(sandbox, "sessions.create")]


# --- Stripe's no


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"amount": Money(49, Currency.USD)}, "amount_too_small", "at least $0.50"),
        ({"amount": Money(100_000_000, Currency.USD)}, "amount_too_large", "no more than"),
        ({"return_url": "not a url"}, "url_invalid", "(field success_url)"),
        ({"reference": "x" * 201}, None, "(field client_reference_id)"),
    ],
)
async def test_a_faulty_request_is_refused_in_stripes_own_words(
    stripe: Stripe, sandbox: StripeSandbox, changes: dict[str, Any], reason: str | None, words: str
) -> None:
    """With its code for programs and the field; asked once, for the same would be said again."""
    with pytest.raises(StripeRefused) as refused:
        await stripe.start(CREDENTIALS, request(**changes))
    assert refused.value.reason == reason or reason is None
    assert refused.value.status == 400
    assert refused.value.detail.startswith("Stripe: ")
    assert words in refused.value.detail
    assert len(keys_of(sandbox)) == 1
    assert sandbox.sessions() == []


async def test_a_key_that_is_not_accepted_is_told_with_the_field_to_save(
    stripe: Stripe, sandbox: StripeSandbox
) -> None:
    """Unknown, or rolled by its owner; no part of it is shown."""
    sandbox.expire_key(KEY)
    for key in (KEY, "sk_test_OfNobodyAtAll1234"):
        with pytest.raises(StripeRefused) as refused:
            await stripe.start(StripeCredentials(key), request())
        assert refused.value.status == 401
        assert "stripe_secret_key" in refused.value.detail
        assert key[-4:] not in refused.value.detail


async def test_a_restricted_key_is_told_what_it_may_not(stripe: Stripe, sandbox: StripeSandbox) -> None:
    key = "rk_test_ReadsOnly1234"
    sandbox.add_account(key, id=account_of(sandbox).id, may=["sessions.retrieve"])
    with pytest.raises(StripeRefused) as refused:
        await stripe.start(StripeCredentials(key), request())
    assert refused.value.status == 403
    assert "create_session" in refused.value.detail
    assert "1234" not in refused.value.detail


async def test_a_declined_request_is_refused(stripe: Stripe, liar: Liar) -> None:
    """402 is a card's no."""
    error = {"type": "card_error", "code": "card_declined", "message": "Your card was declined.", "param": ""}
    liar.says({"error": error}, 402)
    with pytest.raises(StripeRefused, match="Stripe: Your card was declined") as refused:
        await stripe.start(CREDENTIALS, request())
    assert (refused.value.reason, refused.value.status) == ("card_declined", 402)


async def test_long_and_wild_words_are_cut_and_flattened(stripe: Stripe, liar: Liar) -> None:
    error = {"type": "invalid_request_error", "message": "a\n\n b " + "x" * 5000, "param": "p" * 5000}
    liar.says({"error": error}, 400)
    with pytest.raises(Refused) as refused:
        await stripe.start(CREDENTIALS, request())
    assert refused.value.detail.startswith("Stripe: a b x")
    assert len(refused.value.detail) <= 400
    assert "\n" not in refused.value.detail


# --- not now


async def test_too_many_requests_are_not_sent_again(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Nothing was begun: the customer tries again in a moment."""
    sandbox.add_fault("rate_limited", on=CREATE)
    with pytest.raises(Unreachable):
        await stripe.start(CREDENTIALS, request())
    assert len(keys_of(sandbox)) == 1
    assert sandbox.sessions() == []


async def test_a_key_in_use_is_tried_again_then_left_to_a_look_up(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Another request of ours is under way with it; when it is through its answer is ours."""
    sandbox.add_fault("in_use", on=CREATE)
    with pytest.raises(Ambiguous):
        await stripe.start(CREDENTIALS, request())
    assert len(keys_of(sandbox)) == 3
    sandbox.clear_faults()
    sandbox.add_fault("in_use", on=CREATE, times=2)
    assert (await stripe.start(CREDENTIALS, request())).poll_url
    assert len(sandbox.sessions()) == 1


@pytest.mark.parametrize("name", ["error503_html", "reset", "error500"])
async def test_a_passing_failure_is_tried_again_with_the_same_key(
    stripe: Stripe, sandbox: StripeSandbox, name: str
) -> None:
    """Twice spoilt, or for good where Stripe keeps the answer: three tries, one key, one session at the most."""
    sandbox.add_fault(name, on=CREATE, times=2)
    asked = request()
    if name == "error500":
        with pytest.raises(Ambiguous):
            await stripe.start(CREDENTIALS, asked)
    else:
        started = await stripe.start(CREDENTIALS, asked)
        assert sandbox.session(asked.reference)["id"] == started.poll_url
    assert keys_of(sandbox) == [str(asked.attempt_id)] * 3
    assert len(sandbox.sessions()) == (0 if name == "error500" else 1)


@pytest.mark.parametrize("name", ["reset", "timeout_after_accepting", "error500_after_accepting"])
async def test_what_was_accepted_without_an_answer_is_one_session(
    stripe: Stripe, sandbox: StripeSandbox, name: str
) -> None:
    """However often it is sent; a look-up finds it by our reference."""
    sandbox.add_fault(name, on=CREATE, seconds=0.0)
    asked = request()
    with pytest.raises(Ambiguous):
        await stripe.start(CREDENTIALS, asked)
    assert keys_of(sandbox) == [str(asked.attempt_id)] * 3
    assert len(sandbox.sessions()) == 1
    report = await stripe.check(CREDENTIALS, opened(None, reference=asked.reference))
    assert report.outcome is Outcome.PENDING
    assert report.poll_url == sandbox.session(asked.reference)["id"]
    assert report.page_url == sandbox.session(asked.reference)["url"]


async def test_all_tries_together_take_no_longer_than_the_deadline(
    hasty: Stripe, sandbox: StripeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A customer waits for the link: silence is not waited out three times, nor once to the end of a try."""
    monkeypatch.setattr(stripe_client, "TRY_SECONDS", 30.0)
    sandbox.add_fault("timeout_after_accepting", on=CREATE, seconds=30)
    async with asyncio.timeout(25):
        with pytest.raises(Ambiguous):
            await hasty.start(CREDENTIALS, request())
    assert len(sandbox.sessions()) == 1


async def test_a_try_without_an_answer_in_time_is_sent_again_and_answered_from_the_first(
    stripe: Stripe, sandbox: StripeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One silent try is not the end: the key brings the first one's session."""
    monkeypatch.setattr(stripe_client, "TRY_SECONDS", 0.5)
    sandbox.add_fault("timeout_after_accepting", on=CREATE, times=1, seconds=30)
    started = await stripe.start(CREDENTIALS, request())
    assert [thing["id"] for _, thing in sandbox.sessions()] == [started.poll_url]
    first, *again = keys_of(sandbox)
    assert set(again) == {first}


async def test_a_try_that_overtakes_a_slow_one_makes_no_second_session(
    stripe: Stripe, sandbox: StripeSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stripe is still at the first when the next comes: the key is in use, and a look-up tells."""
    monkeypatch.setattr(stripe_client, "TRY_SECONDS", 0.1)
    sandbox.delay_seconds = 1.0
    asked = request()
    with pytest.raises(Ambiguous):
        await stripe.start(CREDENTIALS, asked)
    sandbox.delay_seconds = 0.0
    monkeypatch.undo()
    assert len(set(keys_of(sandbox))) == 1
    await eventually(lambda: len(sandbox.sessions()) == 1, every=0.01)
    assert (await stripe.check(CREDENTIALS, opened(None, reference=asked.reference))).outcome is Outcome.PENDING


# --- what several tries allow to conclude


class Scripted(Transport):
    """Says what the test wrote down for each try, without a network."""

    def __init__(self, *says: GatewayError | int) -> None:
        self.says = list(says)

    async def request(self, *_arguments: Any, **_more: Any) -> Any:
        said = self.says.pop(0)
        if isinstance(said, GatewayError):
            raise type(said)(said.detail)
        error = {"error": {"type": "invalid_request_error", "message": "no"}}
        return reply(said, error)


def reply(status: int, content: object) -> Reply:
    return Reply(status, msgspec.json.encode(content), {})


LOST, DOWN, ODD = Ambiguous("lost"), Unreachable("down"), Untrusted("odd")


@pytest.mark.parametrize(
    ("tries", "kind"),
    [
        ((DOWN, DOWN, DOWN), Unreachable),
        ((DOWN, 429), Unreachable),
        ((DOWN, 400), Refused),
        ((DOWN, 401), Refused),
        ((LOST, DOWN, DOWN), Ambiguous),
        ((DOWN, LOST, DOWN), Ambiguous),
        ((LOST, 429), Ambiguous),
        ((LOST, 401), Ambiguous),
        ((LOST, 403), Ambiguous),
        ((LOST, 400), Refused),
        ((500, DOWN, DOWN), Ambiguous),
        ((409, DOWN, DOWN), Ambiguous),
        ((503, 429), Ambiguous),
        ((409, 401), Ambiguous),
        ((500, 500, 500), Ambiguous),
        ((LOST, ODD), Ambiguous),
        ((ODD,), Untrusted),
        ((503, ODD), Ambiguous),
    ],
    ids=lambda each: "-".join(str(one) for one in each) if isinstance(each, tuple) else each.__name__,
)
async def test_once_a_try_may_have_arrived_only_an_answer_can_tell(
    quick: None, tries: tuple[GatewayError | int, ...], kind: type[GatewayError]
) -> None:
    """A later try that never left, or was turned away at the door, says nothing of the one before. What Stripe says of
    the request itself does: its idempotency key would have brought the first one's answer."""
    adapter = Stripe(Scripted(*tries), "http://stripe.test")
    outcome = await concluded(adapter.start(CREDENTIALS, request()))
    assert isinstance(outcome, type)
    assert issubclass(outcome, kind)


async def test_nobody_listening_is_unreachable(transport: Transport, quick: None) -> None:
    listener = listen()
    port = listener.getsockname()[1]
    listener.close()
    adapter = Stripe(transport, f"http://127.0.0.1:{port}")
    with pytest.raises(Unreachable):
        await adapter.start(CREDENTIALS, request())


# --- answers that are not Stripe's

JUNK: list[tuple[int, bytes]] = [
    (200, b""),
    (200, b"<html>Sign in</html>"),
    (200, b'{"id":"cs_test_1"'),
    (200, b"{}"),
    (200, b"[]"),
    (200, b"null"),
    (200, b'"paid"'),
    (200, b"\xff\xfe"),
    (200, b"[" * 100_000),
    (200, b'{"id":' * 100_000),
    (200, b'{"error":{"message":"no"}}'),
    (200, b" " * (1024 * 1024 + 1)),
    (204, b""),
    (302, b""),
    (307, b""),
    (400, b"<html>Bad request</html>"),
    (400, b""),
    (400, b"[]"),
    (400, b'{"error":null}'),
    (400, b'{"error":[]}'),
    (400, b'{"error":7}'),
    (400, b'{"error":"invalid_request"}'),
    (400, b'{"detail":"no"}'),
    (401, b'{"error":null}'),
    (401, b"<html>Log in to the proxy</html>"),
    (403, b"<html>Forbidden by the firewall</html>"),
    (404, b"<html>Not found</html>"),
    (407, b""),
    (418, b"{}"),
    (429, b"<html>Slow down</html>"),
    (500, b"<html></html>"),
    (502, b""),
    (503, b"{}"),
    (599, b"null"),
]


@pytest.mark.parametrize(("status", "body"), JUNK, ids=lambda each: repr(each)[:24])
async def test_an_answer_that_is_not_stripes_neither_refuses_nor_starts(
    stripe: Stripe, liar: Liar, status: int, body: bytes
) -> None:
    """A proxy's or a firewall's page is not Stripe's word: neither for a start nor for a look-up."""
    liar.body, liar.status, liar.headers = body, status, {"Location": liar.url}
    with pytest.raises((Ambiguous, Untrusted)):
        await stripe.start(CREDENTIALS, request(reference=REFERENCE))
    with pytest.raises((Ambiguous, Untrusted)):
        await stripe.check(CREDENTIALS, opened())
    with pytest.raises((Ambiguous, Untrusted)):
        await stripe.check(CREDENTIALS, opened(None))
    assert not [path for path in liar.paths if path.endswith(" /?")], "a redirect was followed"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ERRORS = st.fixed_dictionaries(
    {},
    optional={
        name: st.sampled_from(["card_error", "idempotency_error", "invalid_request_error", "x"]) | ANYTHING
        for name in ("type", "code", "message", "param", "doc_url", "charge", "payment_intent")
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=st.sampled_from([200, 400, 401, 402, 403, 404, 409, 429, 500]),
    content=st.fixed_dictionaries({"error": ERRORS | ANYTHING}) | ANYTHING,
)
async def test_whatever_stands_in_an_error_only_our_own_errors_come_out(
    quick: None, status: int, content: object
) -> None:
    """None of the SDK's, none of Python's."""

    class Says(Transport):
        def __init__(self) -> None: ...

        async def request(self, *_arguments: Any, **_more: Any) -> Any:
            return reply(status, content)

    with pytest.raises(GatewayError):
        await Stripe(Says(), "http://stripe.test").start(CREDENTIALS, request())


@pytest.mark.parametrize(
    "key", ["sk_test_a\nb", "sk_test_\u2603", "sk_test_ b", " ", "sk_test_\x00", "\ud800"], ids=repr
)
def test_a_key_that_no_header_can_hold_is_no_key(key: str) -> None:
    """Pasted with something behind it: told in plain words before it is sent, without showing it."""
    adapter = Stripe(None, "http://stripe.test")  # type: ignore[arg-type]
    with pytest.raises(NotConfigured, match="stripe_secret_key") as told:
        adapter.credentials({"stripe_secret_key": key}, Currency.USD)
    assert "sk_test_" not in told.value.detail
