"""Stripe's adapter: what is asked for when a payment starts, and what of the answer is believed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from stripe.params.checkout import SessionCreateParams

from payments_service.errors import NotConfigured, Untrusted
from payments_service.gateways.base import Redirect
from payments_service.gateways.stripe import Stripe
from payments_service.gateways.stripe_client import API_VERSION
from payments_service.money import Currency, Money
from payments_service.sandbox.stripe import StripeSandbox
from tests.gateways import stripe_stage
from tests.gateways.stripe_stage import CREDENTIALS, KEY, Liar, asked_for, request
from tests.stripe_types import check_params

stage, sandbox, transport = stripe_stage.stage, stripe_stage.sandbox, stripe_stage.transport  # fixtures
stripe, liar, quick = stripe_stage.stripe, stripe_stage.liar, stripe_stage.quick

HALF_AN_HOUR, A_DAY = 30 * 60, 24 * 3600


async def sent(stripe: Stripe, sandbox: StripeSandbox, **changes: Any) -> dict[str, Any]:
    """The parameters of a start as Stripe got them, every value text; they are such as the SDK's types allow."""
    await stripe.start(CREDENTIALS, request(**changes))
    params = asked_for(sandbox, "sessions.create")[-1].params
    check_params(SessionCreateParams, params)
    return params


# --- what is sent


async def test_a_session_asks_for_exactly_this(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """Every parameter and no other; our names stand on the session and on the intent, for they are not copied."""
    asked = request(payer_email="tmoyo@example.com")
    started = await stripe.start(CREDENTIALS, asked)
    (seen,) = asked_for(sandbox, "sessions.create")
    check_params(SessionCreateParams, seen.params)
    assert asked.expires_at
    names = {
        "client_id": str(asked.client_id),
        "payment_id": str(asked.payment_id),
        "attempt_id": str(asked.attempt_id),
        "reference": asked.reference,
    }
    price = {"currency": "usd", "unit_amount": "1250", "product_data": {"name": "Two bags of cement"}}
    assert seen.params == {
        "mode": "payment",
        "line_items": [{"quantity": "1", "price_data": price}],
        "client_reference_id": asked.reference,
        "metadata": names,
        "payment_intent_data": {"metadata": names, "description": f"{asked.reference} Two bags of cement"},
        "success_url": "https://pay.example/pay/token?returned=1",
        "cancel_url": "https://pay.example/pay/token",
        "expires_at": str(int(asked.expires_at.timestamp())),
        "locale": "auto",
        "adaptive_pricing": {"enabled": "false"},
        "customer_email": "tmoyo@example.com",
    }
    assert (seen.key, seen.method, seen.path) == (KEY, "POST", "/v1/checkout/sessions")
    assert seen.headers["stripe-version"] == API_VERSION
    assert seen.headers["idempotency-key"] == str(asked.attempt_id)
    assert "x-stripe-client-telemetry" not in seen.headers
    assert "cookie" not in seen.headers
    assert isinstance(started.next_step, Redirect)
    assert started.poll_url
    assert started.next_step.url.endswith(f"/c/pay/{started.poll_url}")
    assert started.next_step.expires_at == asked.expires_at.replace(microsecond=0)


async def test_an_e_mail_that_stripe_does_not_take_is_left_out(stripe: Stripe, sandbox: StripeSandbox) -> None:
    """The customer pays without: one session, asked for with a key of its own."""
    asked = request(payer_email="nobody@nowhere@example.com")
    await stripe.start(CREDENTIALS, asked)
    assert sandbox.session(asked.reference)["customer_email"] is None
    keys = [each.headers["idempotency-key"] for each in sandbox.requests]
    assert keys == [str(asked.attempt_id), f"{asked.attempt_id}-without-email"]
    assert len(sandbox.sessions()) == 1


async def test_the_e_mail_is_only_sent_when_it_is_known(stripe: Stripe, sandbox: StripeSandbox) -> None:
    for unknown in (None, ""):
        assert "customer_email" not in await sent(stripe, sandbox, payer_email=unknown)


@pytest.mark.parametrize(
    ("link", "ends"),
    [
        (timedelta(days=30), A_DAY),
        (timedelta(hours=24), A_DAY),
        (timedelta(minutes=29), HALF_AN_HOUR),
        (timedelta(seconds=1), HALF_AN_HOUR),
        (timedelta(days=-1), HALF_AN_HOUR),
        (timedelta(hours=5), 5 * 3600),
        (None, A_DAY),
    ],
    ids=str,
)
async def test_a_session_ends_with_its_link_as_far_as_stripe_allows(
    stripe: Stripe, sandbox: StripeSandbox, link: timedelta | None, ends: int
) -> None:
    """Half an hour to a day, some minutes away from either end: our clocks differ."""
    now = datetime.now(UTC)
    params = await sent(stripe, sandbox, expires_at=now + link if link is not None else None)
    ahead = int(params["expires_at"]) - now.timestamp()
    assert abs(ahead - ends) < 130
    assert HALF_AN_HOUR + 50 < ahead < A_DAY - 100


@pytest.mark.parametrize("cents", [50, 51, 1250, 99_999_999])
async def test_an_amount_is_sent_in_cents(stripe: Stripe, sandbox: StripeSandbox, cents: int) -> None:
    params = await sent(stripe, sandbox, amount=Money(cents, Currency.USD))
    assert params["line_items"][0]["price_data"]["unit_amount"] == str(cents)


@pytest.mark.parametrize("text", ["x" * 500, "Zoë ☃ & = % + [0] ' \" <b>", "a\nb", "😀" * 250], ids=lambda t: t[:9])
async def test_a_description_arrives_as_it_is_written(stripe: Stripe, sandbox: StripeSandbox, text: str) -> None:
    """Cut where Stripe's fields end, and nowhere else."""
    params = await sent(stripe, sandbox, description=text)
    assert params["line_items"][0]["price_data"]["product_data"]["name"] == text[:250]
    assert text[:200] in params["payment_intent_data"]["description"]
    assert len(params["payment_intent_data"]["description"]) <= 500


def test_what_stripe_does_not_take_is_refused_before_the_network() -> None:
    """ZiG: in words that name both currencies."""
    with pytest.raises(NotConfigured, match=r"Stripe takes USD, not ZIG\."):
        Stripe(None, "http://127.0.0.1:9").credentials({"stripe_secret_key": KEY}, Currency.ZIG)  # type: ignore[arg-type]


def test_webhook_secrets_are_one_or_several() -> None:
    """With commas or blanks between them, none of them printed."""
    adapter = Stripe(None, "http://127.0.0.1:9")  # type: ignore[arg-type]
    for saved, secrets in (
        ("whsec_a", ("whsec_a",)),
        (" whsec_a,whsec_b ", ("whsec_a", "whsec_b")),
        ("whsec_a\nwhsec_b,, ", ("whsec_a", "whsec_b")),
        ("", ()),
        (None, ()),
    ):
        values = {"stripe_secret_key": KEY, "stripe_webhook_secret": saved}
        found = adapter.credentials(values, Currency.USD)
        assert found.webhook_secrets == secrets
        assert "whsec" not in repr(found)
        assert "sk_" not in repr(found)


@pytest.mark.parametrize(
    ("key", "live"), [("sk_live_1", True), ("rk_live_1", True), ("sk_test_1", False), ("rk_test_1", False)]
)
def test_the_key_says_which_mode_it_is_for(key: str, live: bool) -> None:
    assert stripe_stage.StripeCredentials(key).live is live


# --- what is believed of the answer


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/c/pay/1",
        "https://checkout.stripe.com.evil.example/c/pay/1",
        "https://checkout.stripe.com@evil.example/c/pay/1",
        "https://user:pass@checkout.stripe.com/c/pay/1",
        "https://checkout.stripe.com:8443/c/pay/1",
        "http://checkout.stripe.com/c/pay/1",
        "https://checkout.stripe.com\\@evil.example/c/pay/1",
        "https://checkout.stripe.com/\\evil.example",
        "https://checkout.stripe.com/c pay/1",
        "https://checkout.stripe.com/c/pay/\u00e9",
        "https://checkout.stripe.com/c/pay/1\n",
        " https://checkout.stripe.com/c/pay/1",
        "//checkout.stripe.com/c/pay/1",
        "https:checkout.stripe.com/c/pay/1",
        "javascript:alert(1)//https://checkout.stripe.com/",
        "https://checkout.stripe.com",
        "",
        None,
    ],
)
async def test_a_page_that_is_not_stripes_own_is_untrusted(stripe: Stripe, liar: Liar, url: str | None) -> None:
    liar.session(url=url)
    with pytest.raises(Untrusted, match="own host"):
        await stripe.start(CREDENTIALS, request(reference=stripe_stage.REFERENCE))


@pytest.mark.parametrize("url", ["https://checkout.stripe.com/c/pay/cs_1#fid", "HTTPS://Checkout.Stripe.com/c/pay/1"])
async def test_stripes_own_page_is_believed(stripe: Stripe, liar: Liar, url: str) -> None:
    liar.session(url=url)
    started = await stripe.start(CREDENTIALS, request(reference=stripe_stage.REFERENCE))
    assert started.next_step == Redirect(url, datetime.fromtimestamp(1_900_000_000, UTC))
    assert started.poll_url == stripe_stage.SESSION


@pytest.mark.parametrize(
    "changes",
    [
        {"client_reference_id": "INV-2"},
        {"client_reference_id": ""},
        {"id": ""},
        {"id": "pi_1"},
        {"id": "cs_test_1/../../refunds"},
        {"id": "cs_test_1?x=1"},
        {"id": "cs_" + "a" * 300},
        {"livemode": True},
        {"amount_total": -1},
        {"amount_total": 10**40},
        {"expires_at": 10**18},
        {"expires_at": -(10**18)},
        {"expires_at": 1.5},
        {"expires_at": "soon"},
        {"metadata": []},
        {"payment_status": None},
    ],
    ids=str,
)
async def test_an_answer_about_something_else_is_untrusted(
    stripe: Stripe, liar: Liar, changes: dict[str, object]
) -> None:
    """Another session or mode, or what no session says: the customer is not sent there, a look-up tells."""
    liar.session(**changes)
    with pytest.raises(Untrusted):
        await stripe.start(CREDENTIALS, request(reference=stripe_stage.REFERENCE))


@pytest.mark.parametrize(
    ("base", "origins"),
    [
        ("https://api.stripe.com", ("https://checkout.stripe.com",)),
        ("https://API.Stripe.com/", ("https://checkout.stripe.com",)),
        ("http://127.0.0.1:8082", ("https://checkout.stripe.com", "http://127.0.0.1:8082")),
        ("http://gateway:8082/stripe/", ("https://checkout.stripe.com", "http://gateway:8082")),
    ],
)
def test_the_page_origins_are_stripes_and_the_stand_ins(base: str, origins: tuple[str, ...]) -> None:
    assert Stripe(None, base).page_origins() == origins  # type: ignore[arg-type]
