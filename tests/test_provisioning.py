"""Setting the webhook endpoint up, at once or cut off: the saved secret is always that of an endpoint that is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from payments_service import accounts, provisioning
from payments_service.context import Context
from payments_service.errors import Refused, Unavailable, Unreachable, WrongState
from payments_service.gateways.base import Endpoint
from payments_service.gateways.stripe import Stripe, StripeCredentials
from payments_service.money import Currency
from payments_service.provisioning import Provisioned
from tests.house import Answer, House
from tests.stripe_shop import Shop, open_service


@pytest.fixture(scope="module")
async def service(postgres: str) -> AsyncIterator[House]:
    async with open_service(postgres) as house:
        yield house


@pytest.fixture(params=[True, False], ids=["renewed", "first"])
async def shop(service: House, request: pytest.FixtureRequest) -> Shop:
    """With an endpoint that is to be replaced, and without one."""
    return await Shop.open(service, webhook=request.param)


async def post(shop: Shop) -> Answer:
    return await shop.house.call("POST", shop.house.path("/payment-settings/stripe-webhook"))


async def saved(shop: Shop) -> str:
    """The saved secret."""
    found: StripeCredentials = await accounts.credentials(shop.world.context, shop.client_id, "stripe", Currency.USD)
    return found.webhook_secrets[0] if found.webhook_secrets else ""


def secrets(shop: Shop) -> list[str]:
    """Those of the endpoints that are there."""
    return [endpoint.secret for endpoint in shop.account.endpoints.values()]


class Staged(Stripe):
    """Stripe's adapter, with what a test wants to happen after an endpoint was made and before any is removed."""

    made: Callable[[], Awaitable[None]]
    removing: Callable[[], Awaitable[None]]

    async def provision(self, credentials: StripeCredentials, url: str) -> Endpoint:
        endpoint = await super().provision(credentials, url)
        await self.made()
        return endpoint

    async def retire(self, credentials: StripeCredentials, endpoint_ids: Sequence[str]) -> None:
        await self.removing()
        await super().retire(credentials, endpoint_ids)


async def nothing() -> None:
    """Happens."""


def staged(
    shop: Shop, made: Callable[[], Awaitable[None]] = nothing, removing: Callable[[], Awaitable[None]] = nothing
) -> Context:
    adapter = Staged(shop.world.courier.transport, shop.stripe.public_url)
    adapter.made, adapter.removing = made, removing
    return replace(shop.world.context, gateways={**shop.world.context.gateways, "stripe": adapter})


async def set_up(shop: Shop, context: Context) -> Provisioned:
    return await provisioning.set_up_webhook(context, shop.client_id, "stripe", actor="test")


async def unreachable() -> None:
    raise Unreachable("Stripe takes no more requests.")


async def test_of_many_at_once_one_wins(shop: Shop) -> None:
    """The others are told so, 409; one endpoint stays, its secret is the saved one, and its events are believed."""
    for _ in range(3):
        answers = await asyncio.gather(*(post(shop) for _ in range(4)))
        assert {answer.status for answer in answers} <= {201, 409}
        assert {answer.json["code"] for answer in answers if answer.status == 409} <= {"wrong_state"}
        assert 201 in {answer.status for answer in answers}
        assert secrets(shop) == [await saved(shop)]
    payment = await shop.link()
    await shop.stripe.pay(shop.reference(payment))
    await shop.until(payment, "paid")


@pytest.mark.parametrize("reachable", [True, False])
async def test_who_was_slower_removes_his_own_and_no_other(shop: Shop, reachable: bool) -> None:
    """Also when that cannot be done: the endpoint of the one who was faster stays, with its secret."""
    won: list[Provisioned] = []

    async def faster() -> None:
        won.append(await set_up(shop, shop.world.context))

    context = staged(shop, faster, nothing if reachable else unreachable)
    with pytest.raises(WrongState if reachable else Unreachable):
        await set_up(shop, context)
    assert await saved(shop) == shop.account.endpoints[won[0].endpoint_id].secret
    # He had listed what he found: the slower one's was there already.
    assert secrets(shop) == [await saved(shop)]


async def test_the_former_one_that_cannot_be_removed(shop: Shop) -> None:
    """The new one reports, which is what counts; the next set-up takes the rest away."""
    with pytest.raises(Unreachable):
        await set_up(shop, staged(shop, removing=unreachable))
    assert await saved(shop) in secrets(shop)
    answer = await post(shop)
    assert answer.status == 201, answer.body
    assert secrets(shop) == [await saved(shop)]


async def test_two_of_which_each_is_cut_off_at_the_worst_moment(shop: Shop) -> None:
    """The slower made his while the faster had not yet removed what he found, and neither can remove anything."""

    async def faster() -> None:
        with pytest.raises(Unreachable):
            await set_up(shop, staged(shop, removing=unreachable))

    with pytest.raises(Unreachable):
        await set_up(shop, staged(shop, faster, unreachable))
    assert await saved(shop) in secrets(shop)
    assert (await post(shop)).status == 201
    assert secrets(shop) == [await saved(shop)]


async def test_a_secret_that_was_saved_by_hand_meanwhile_stays(shop: Shop) -> None:
    """Somebody made an endpoint in the dashboard: it is not removed, but that which is not needed any more."""
    url = f"{shop.house.public}/callbacks/stripe/{shop.client_id}"
    by_hand = shop.stripe.add_endpoint(shop.account, url).secret

    async def save() -> None:
        fields = {"stripe_webhook_secret": by_hand}
        assert (await shop.house.call("PATCH", shop.house.path("/payment-settings"), fields)).status == 200

    before = secrets(shop)
    with pytest.raises(WrongState):
        await set_up(shop, staged(shop, save))
    assert await saved(shop) == by_hand
    assert secrets(shop) == before


async def test_a_secret_that_could_not_be_saved(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our database is away: what reported before still does."""
    before, known = await saved(shop), secrets(shop)

    async def away(*_: Any, **__: Any) -> None:
        raise Unavailable("The database cannot be reached.")

    with monkeypatch.context() as patched:
        patched.setattr(accounts, "save", away)
        assert (await post(shop)).status == 503
    assert await saved(shop) == before
    assert set(known) <= set(secrets(shop))
    assert (await post(shop)).status == 201
    assert secrets(shop) == [await saved(shop)]


async def test_a_refusal_leaves_everything_as_it_was(shop: Shop) -> None:
    """Of Stripe to make one, for the account is full: nothing is saved, nothing removed."""
    for number in range(16 - len(shop.account.endpoints)):
        shop.stripe.add_endpoint(shop.account, f"https://other.example/{number}")
    before, known = await saved(shop), secrets(shop)
    with pytest.raises(Refused, match="16"):
        await set_up(shop, shop.world.context)
    assert (await saved(shop), secrets(shop)) == (before, known)
