"""The Stripe simulator through Stripe's own SDK: the wire, Checkout Sessions, idempotency, lists."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import stripe

from payments_service.sandbox.stripe_accounts import Account
from tests import stripe_world
from tests.stripe_world import ACCOUNT, KEY, OTHER_KEY, World, refused

stages, world = stripe_world.stages, stripe_world.world  # fixtures

CREATE = "/v1/checkout/sessions"


async def raw(world: World, method: str, path: str, *, key: str = KEY, **options: Any) -> tuple[int, Any, Any]:
    """Status, JSON and headers of a request that the SDK would not send."""
    headers = {"Authorization": f"Bearer {key}"} | options.pop("headers", {})
    async with world.http.request(method, f"{world.url}{path}", headers=headers, **options) as reply:
        return reply.status, await reply.json(), reply.headers


# --- keys and versions


async def test_a_session_is_made_and_read_back(world: World) -> None:
    made = await world.create()
    assert (made.status, made.payment_status, made.amount_total, made.currency) == ("open", "unpaid", 1250, "usd")
    assert made.id.startswith("cs_test_")
    assert made.url == f"{world.url}/c/pay/{made.id}"
    assert made.payment_intent is None
    assert made.metadata.to_dict() == {"order": "7"}
    again = await world.api.checkout.sessions.retrieve_async(made.id)
    assert again.to_dict() == made.to_dict() == world.sandbox.session("INV-1")
    assert world.sandbox.calls == {"sessions.create": 1, "sessions.retrieve": 1}
    assert made.last_response.headers["Request-Id"].startswith("req_")
    world.check_everything()


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("sk_test_51NobodyNobodyabcd", "Invalid API Key provided: sk_test_**************abcd"),
        ("nonsense", "Invalid API Key provided: nonsense****ense"),
    ],
)
async def test_an_unknown_key_is_401(world: World, key: str, told: str) -> None:
    error = await refused(world.client(key).v1.checkout.sessions.retrieve_async("cs_1"), stripe.AuthenticationError)
    assert (error.http_status, error.user_message) == (401, told)
    assert error.json_body["error"]["type"] == "invalid_request_error"
    assert world.sandbox.requests[-1].account == ""
    world.check_everything()


async def test_no_key_and_an_expired_key_are_told_apart(world: World) -> None:
    status, answer, headers = await raw(world, "GET", "/v1/account", headers={"Authorization": ""})
    assert (status, headers["WWW-Authenticate"]) == (401, 'Basic realm="Stripe"')
    assert "You did not provide an API key" in answer["error"]["message"]
    world.sandbox.expire_key(KEY)
    status, answer, _ = await raw(world, "GET", "/v1/account")
    assert (status, answer["error"]["code"]) == (401, "api_key_expired")


async def test_basic_authentication_is_the_key_as_user_name(world: World) -> None:
    code = base64.b64encode(f"{KEY}:".encode()).decode()
    _, account, _ = await raw(world, "GET", "/v1/account", headers={"Authorization": f"Basic {code}"})
    assert account["id"] == ACCOUNT
    assert (await raw(world, "GET", "/v1/account", headers={"Authorization": "Basic %%%"}))[0] == 401


async def test_accounts_do_not_see_each_other(world: World) -> None:
    made = await world.create()
    error = await refused(world.client(OTHER_KEY).v1.checkout.sessions.retrieve_async(made.id))
    assert (error.http_status, error.code, error.param) == (404, "resource_missing", "session")
    assert error.user_message == f"No such checkout.session: {made.id}"
    assert world.sandbox.requests[0].account == ACCOUNT


async def test_two_keys_of_one_account_see_the_same(world: World) -> None:
    """A tenant replaces its key: sessions, events and idempotency keys stay with the account."""
    made = await world.create()
    world.sandbox.add_account("sk_test_" + "SandboxDemoRolled", id=ACCOUNT)
    seen = await world.client("sk_test_" + "SandboxDemoRolled").v1.checkout.sessions.retrieve_async(made.id)
    assert seen.id == made.id


async def test_a_restricted_key_is_403_beyond_its_permissions(world: World) -> None:
    world.sandbox.add_account("rk_test_" + "SandboxReader", id=ACCOUNT, may=["sessions.retrieve"])
    made, client = await world.create(), world.client("rk_test_" + "SandboxReader")
    assert (await client.v1.checkout.sessions.retrieve_async(made.id)).id == made.id
    error = await refused(client.v1.refunds.create_async({"charge": "ch_1"}), stripe.PermissionError)
    assert (error.http_status, error.code) == (403, None)
    assert "Having the 'rak_refund_write' permission" in error.user_message


async def test_live_keys_make_live_objects(world: World) -> None:
    world.sandbox.add_account("sk_live_" + "SandboxLive", charges_enabled=True)
    made = await world.client("sk_live_" + "SandboxLive").v1.checkout.sessions.create_async(world.order())
    assert made.livemode
    assert made.id.startswith("cs_live_")
    world.sandbox.add_account("sk_live_" + "SandboxShut", charges_enabled=False)
    closed = world.client("sk_live_" + "SandboxShut").v1
    error = await refused(closed.checkout.sessions.create_async(world.order()))
    assert "cannot currently make live charges" in error.user_message
    assert not (await closed.accounts.retrieve_current_async()).charges_enabled
    world.check_everything()


async def test_an_unknown_version_is_refused(world: World) -> None:
    status, answer, _ = await raw(world, "GET", "/v1/account", headers={"Stripe-Version": "2019-01-01"})
    assert (status, "2019-01-01" in answer["error"]["message"]) == (400, True)
    assert (await raw(world, "GET", "/v1/account"))[0] == 200


async def test_other_addresses_and_other_content_are_refused(world: World) -> None:
    assert (await raw(world, "GET", "/v1/tokens"))[1]["error"]["message"].startswith(
        "Unrecognized request URL (GET: /v1/t"
    )
    assert (await raw(world, "POST", CREATE, json={"mode": "payment"}))[0] == 400
    assert (await raw(world, "POST", CREATE, data=b"a%ff=%ff"))[0] == 400


async def test_no_cookie_comes_back_though_one_is_set(world: World) -> None:
    _, _, headers = await raw(world, "GET", "/v1/account")
    assert headers["Set-Cookie"] == f"sandbox_account={ACCOUNT}; Path=/"
    await raw(world, "GET", "/v1/account", headers={"Cookie": "sandbox_account=acct_other"})
    assert [seen.headers.get("cookie") for seen in world.sandbox.requests] == [None, "sandbox_account=acct_other"]


# --- what a session may be


def price(**changes: Any) -> list[dict[str, Any]]:
    data = {"currency": "usd", "unit_amount": 1250, "product_data": {"name": "Cement"}} | changes
    return [{"price_data": {name: value for name, value in data.items() if value is not None}, "quantity": 1}]


PRICE = "line_items[0][price_data]"


@pytest.mark.parametrize(
    ("changes", "code", "param", "told"),
    [
        ({"payment_method_types": ["card"]}, "parameter_unknown", "payment_method_types", "Received unknown parameter"),
        ({"colour": "red"}, "parameter_unknown", "colour", "Received unknown parameter: colour"),
        ({"line_items": price(vat=1)}, "parameter_unknown", f"{PRICE}[vat]", f"parameter: {PRICE}[vat]"),
        ({"line_items": price(currency=None)}, "parameter_missing", f"{PRICE}[currency]", "Missing required param"),
        ({"line_items": price(product_data={})}, "parameter_missing", f"{PRICE}[product_data]", "Missing required"),
        (
            {"line_items": [{"price_data": price()[0]["price_data"]}]},
            "parameter_missing",
            None,
            "Quantity is required.",
        ),
        ({"line_items": None}, "parameter_missing", "line_items", "Missing required param: line_items."),
        ({"success_url": None}, "parameter_missing", "success_url", "Missing required param: success_url."),
        ({"mode": None}, "parameter_missing", "mode", "Missing required param: mode."),
        ({"line_items": price(unit_amount=49)}, "amount_too_small", "line_items", "at least $0.50 usd"),
        ({"line_items": price(unit_amount=29, currency="gbp")}, "amount_too_small", "line_items", "at least 0.30 GBP"),
        ({"line_items": price(unit_amount=100_000_000)}, "amount_too_large", "line_items", "no more than $999,999.99"),
        (
            {"line_items": price(unit_amount="12.50")},
            "parameter_invalid_integer",
            f"{PRICE}[unit_amount]",
            "Invalid integer",
        ),
        ({"line_items": price(unit_amount=-1)}, "parameter_invalid_integer", f"{PRICE}[unit_amount]", "non-negative"),
        ({"line_items": price(currency="zig")}, None, f"{PRICE}[currency]", "Invalid currency: zig. Stripe currently"),
        ({"line_items": price(currency="ZWG")}, None, f"{PRICE}[currency]", "Invalid currency: zwg."),
        ({"success_url": "shop/thanks"}, "url_invalid", "success_url", "An explicit scheme"),
        ({"success_url": "javascript:alert(1)"}, "url_invalid", "success_url", "Not a valid URL"),
        ({"success_url": ""}, "parameter_invalid_empty", "success_url", "You passed an empty string for 'success_url'"),
        ({"customer_email": "nobody"}, "email_invalid", "customer_email", "Invalid email address: nobody"),
        ({"client_reference_id": "x" * 201}, None, "client_reference_id", "must be at most 200 characters"),
        ({"locale": "sn"}, None, "locale", "Invalid locale: must be one of auto, bg"),
        ({"mode": "pay"}, None, "mode", "Invalid mode: must be one of payment, setup, or subscription"),
        ({"metadata": {f"k{n}": "v" for n in range(51)}}, None, "metadata", "at most 50 keys"),
        ({"metadata": {"k" * 41: "v"}}, None, "metadata", "up to 40 characters"),
        ({"metadata": {"k": "v" * 501}}, None, "metadata[k]", "up to 500 characters"),
        ({"metadata": "seven"}, None, "metadata", "Invalid object"),
        ({"line_items": "one"}, None, "line_items", "Invalid array"),
        ({"expires_at": 1}, None, "expires_at", "at least 30 minutes"),
        ({"expand": ["customer"]}, None, "expand[0]", "This property cannot be expanded (customer)."),
        ({"expand": ["payment_intent.amount"]}, None, "expand[0]", "cannot be expanded"),
        ({"subscription_data": {"description": "x"}}, None, "subscription_data", "does not act on subscription_data"),
    ],
)
async def test_what_a_session_may_not_be(
    world: World, changes: dict[str, Any], code: str | None, param: str | None, told: str
) -> None:
    error = await refused(world.create(**changes))
    assert (error.http_status, error.code) == (400, code)
    assert told in error.user_message
    assert param is None or error.param.startswith(param)
    assert world.sandbox.sessions() == []
    world.check_everything()


@pytest.mark.parametrize(("ahead", "fits"), [(1799, False), (1800, True), (86_400, True), (86_401, False)])
async def test_a_session_lasts_from_half_an_hour_to_a_day(world: World, ahead: int, fits: bool) -> None:
    world.sandbox.clock = lambda: 1_800_000_000.0
    made = world.create(expires_at=1_800_000_000 + ahead)
    if fits:
        assert (await made).expires_at == 1_800_000_000 + ahead
    else:
        assert (await refused(made)).param == "expires_at"


async def test_several_lines_add_up_in_any_currency(world: World) -> None:
    lines = [*price(currency="jpy", unit_amount=300), *price(currency="JPY", unit_amount=50)]
    lines[1]["quantity"] = 3
    made = await world.create(line_items=lines, expand=["line_items"])
    assert (made.amount_total, made.currency) == (450, "jpy")
    assert [line.amount_total for line in made.line_items.data] == [300, 150]


async def test_a_session_expires_by_itself_in_time(world: World) -> None:
    """By the simulator's clock, without a request that would make it so, and with its event."""
    world.sandbox.clock = lambda: 1_800_000_000.0
    made = await world.create(expires_at=1_800_003_600)
    await world.listen("checkout.session.expired")
    world.sandbox.clock = lambda: 1_800_003_599.0
    assert (await world.api.checkout.sessions.retrieve_async(made.id)).status == "open"
    world.sandbox.clock = lambda: 1_800_003_600.0
    world.sandbox.expire_due()
    await world.sandbox.settled()
    assert world.merchant.types == ["checkout.session.expired"]
    gone = await world.api.checkout.sessions.retrieve_async(made.id)
    assert (gone.status, gone.url, gone.payment_status) == ("expired", None, "unpaid")


async def test_only_an_open_session_can_be_expired(world: World) -> None:
    made = await world.create()
    assert (await world.api.checkout.sessions.expire_async(made.id)).status == "expired"
    error = await refused(world.api.checkout.sessions.expire_async(made.id))
    assert error.user_message == (
        'Only Checkout Sessions with a status in ["open"] can be expired. '
        "This Checkout Session has a status of `expired`."
    )
    await world.create("INV-2")
    paid = await world.sandbox.pay("INV-2")
    assert "status of `complete`" in (await refused(world.api.checkout.sessions.expire_async(paid["id"]))).user_message


# --- expansion


async def test_a_payment_can_be_read_in_one_request(world: World) -> None:
    made = await world.create()
    await world.sandbox.pay("INV-1")
    await world.sandbox.refund("INV-1", 250)
    whole = await world.api.checkout.sessions.retrieve_async(
        made.id, {"expand": ["payment_intent.latest_charge.refunds", "line_items"]}
    )
    charge = whole.payment_intent.latest_charge
    assert (whole.payment_intent.status, whole.payment_intent.amount_received) == ("succeeded", 1250)
    assert (charge.amount_refunded, charge.refunded, charge.disputed) == (250, False, False)
    assert [refund.amount for refund in charge.refunds.data] == [250]
    assert isinstance(world.sandbox.session("INV-1")["payment_intent"], str)
    assert whole.payment_intent.metadata.to_dict() == {"order": "7"}


async def test_what_is_null_stays_null_when_expanded(world: World) -> None:
    made = await world.create(expand=["payment_intent.latest_charge"])
    assert made.payment_intent is None


async def test_five_levels_are_too_many(world: World) -> None:
    path = "data.payment_intent.latest_charge.payment_intent.latest_charge"
    error = await refused(world.api.checkout.sessions.list_async({"expand": [path]}))
    assert "more than 4 levels" in error.user_message
    assert "(data)" in (await refused(world.api.checkout.sessions.list_async({"expand": ["data"]}))).user_message


# --- the account


async def test_what_an_account_and_its_country_may_do(world: World) -> None:
    account = await world.api.accounts.retrieve_current_async()
    assert (account.id, account.country, account.default_currency) == (ACCOUNT, "US", "usd")
    assert account.settings.dashboard.display_name == "Alpha Hardware"
    country = await world.api.country_specs.retrieve_async("US")
    assert "usd" in country.supported_payment_currencies
    assert not {"zig", "zwg"} & set(country.supported_payment_currencies)
    assert (await refused(world.api.country_specs.retrieve_async("ZW"))).http_status == 404


async def test_no_key_shows_in_what_a_test_prints(world: World) -> None:
    assert KEY not in repr(world.sandbox.accounts.values())
    assert isinstance(world.account, Account)
