"""What a customer does on the pay page, step by step: ways to pay, prompts, codes, one-time passwords, second thoughts.

The promise in all of it: one tap is one try, and whatever was lost on the way is found again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from payments_service import accounts, checkout, links, payments, reconcile, ways
from payments_service.checkout import OTP_SETTLES, OTP_TRIES, STUCK, TRIES, TRIES_A_DAY, Choice
from payments_service.endings import CODE_LIFE, PROMPT_LIFE
from payments_service.errors import (
    Ambiguous,
    Because,
    Invalid,
    NotAccepted,
    NotConfigured,
    NotFound,
    Refused,
    TooMany,
    Unreachable,
    Unsettled,
    Untrusted,
)
from payments_service.gateways.base import ApproveOnPhone, EnterOtp, Method, NextStep, Redirect, ShowCode
from payments_service.money import Currency, Money
from tests.house import World
from tests.test_payments import CLIENT, attempt, look, order, save, the_payment, told

PHONE = "077 212 3456"
LOCAL = "0772123456"
EXPRESS = ("ecocash", "onemoney", "innbucks", "omari")
STEP = {"ecocash": ApproveOnPhone, "onemoney": ApproveOnPhone, "innbucks": ShowCode, "omari": EnterOtp, "web": Redirect}


async def open_link(world: World, **changes: Any) -> str:
    """A link whose customer chooses among all of Paynow's ways; its token."""
    await save(world)
    await accounts.save(world.context, CLIENT, {"paynow_auth_email": "shop@example.com"}, actor="test")
    world.sandbox.add_fault("never")
    await links.create_link(world.context, CLIENT, order(world, gateway=None, **changes))
    return str(the_payment(world)["page_token"])


async def tap(world: World, token: str, method: str, phone: str = PHONE, after: int | None = None) -> NextStep | None:
    return await checkout.pay(world.context, token, Choice(f"paynow.{method}", phone, after))


def newest(world: World) -> dict[str, Any]:
    return attempt(world, the_payment(world)["id"])


def states(world: World) -> list[tuple[str, str]]:
    return [(row["method"], row["state"]) for row in world.rows("SELECT method, state FROM attempts ORDER BY number")]


# --- the ways


async def test_the_ways_are_those_that_the_tenant_and_the_customer_can_use(world: World) -> None:
    """Express needs an e-mail, the customer's or the tenant's; the tenant may leave methods out; the page remains."""

    async def offered(**more: Any) -> list[str]:
        found = await ways.ways_to_pay(world.context, CLIENT, Money(1250, Currency.USD), **more)
        assert all(way.gateway == "paynow" for way in found)
        return [way.method.name for way in found]

    assert await offered() == []
    await save(world)
    assert await offered() == ["web"]
    assert await offered(email="tendai@example.com") == [*EXPRESS, "web"]
    assert await offered(email="tendai@example.com", gateway="stripe") == []
    await accounts.save(world.context, CLIENT, {"paynow_auth_email": "shop@example.com"}, actor="test")
    assert await offered() == [*EXPRESS, "web"]
    await accounts.save(world.context, CLIENT, {"paynow_express_methods": "omari, ecocash"}, actor="test")
    assert await offered() == ["ecocash", "omari", "web"]
    await accounts.save(world.context, CLIENT, {"paynow_express_methods": "none"}, actor="test")
    assert await offered() == ["web"]
    assert await ways.ways_to_pay(world.context, CLIENT, Money(1250, Currency.ZIG)) == []


@pytest.mark.parametrize("method", [*EXPRESS, "web"])
async def test_each_way_leads_from_the_choice_to_the_money(world: World, method: str) -> None:
    """The step that belongs to it, one call of the gateway, and proof by the look-up alone."""
    token = await open_link(world)
    step = await tap(world, token, method)
    assert isinstance(step, STEP[method])
    row = newest(world)
    assert (row["method"], row["state"], row["number"]) == (method, "live", 1)
    assert row["phone"] == (None if method == "web" else "+263772123456")
    assert row["poll_url"]
    assert sum(world.sandbox.calls.values()) == 1
    await world.sandbox.pay(row["reference"])
    await look(world, the_payment(world)["id"])
    paid = the_payment(world)
    assert (paid["status"], paid["gateway"], paid["late"]) == ("paid", "paynow", False)
    assert told(world, paid["id"]) == [(1, "link_created"), (2, "paid")]


async def test_what_comes_next_is_kept_for_whoever_loads_the_page_again(world: World) -> None:
    """Code, expiry and app link, the OTP's reference: the same from the database as from the gateway's answer."""
    token = await open_link(world)
    code = await tap(world, token, "innbucks")
    assert isinstance(code, ShowCode)
    assert code.code == world.sandbox.code_of(newest(world)["reference"])
    assert code.app_url == f"com.innbucks.customer://purchase?paymentToken={code.code}"
    assert code.expires_at is not None
    assert await tap(world, token, "innbucks") == code
    row = await checkout.read(world.context, token)
    assert checkout.is_over(row, code, code.expires_at)
    assert not checkout.is_over(row, code, world.clock())


async def test_without_a_choice_the_page_of_the_gateway_opens(world: World) -> None:
    """A bare POST, as of a link that offers one way: nothing has to be typed."""
    token = await open_link(world)
    assert isinstance(await checkout.pay(world.context, token), Redirect)
    again = await checkout.pay(world.context, token)
    assert isinstance(again, Redirect)
    assert world.sandbox.calls["initiate"] == 1


async def test_a_bare_post_goes_on_with_what_is_open(world: World) -> None:
    """A prompt is open: it is not replaced by whatever comes first."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    assert isinstance(await checkout.pay(world.context, token), ApproveOnPhone)
    assert states(world) == [("ecocash", "live")]


@pytest.mark.parametrize("phone", [None, "", "  ", "12", "+27821234567", "0242700000", "abc", "0772123456789"])
async def test_a_wrong_number_starts_nothing(world: World, phone: str | None) -> None:
    """The field is named, and neither the gateway nor the database hears of it."""
    token = await open_link(world)
    for method in EXPRESS:
        with pytest.raises(Invalid) as wrong:
            await checkout.pay(world.context, token, Choice(f"paynow.{method}", phone))
        assert [field for field, _ in wrong.value.faults] == ["phone"]
    assert (states(world), world.sandbox.calls) == ([], {})


@pytest.mark.parametrize("way", ["paynow.zimswitch", "stripe.web", "ecocash", "paynow.", ".", "paynow.web\0"])
async def test_a_way_that_is_not_offered_starts_nothing(world: World, way: str) -> None:
    token = await open_link(world)
    with pytest.raises(Invalid) as wrong:
        await checkout.pay(world.context, token, Choice(way, PHONE))
    assert [field for field, _ in wrong.value.faults] == ["way"]
    assert (states(world), world.sandbox.calls) == ([], {})


async def test_a_method_that_the_tenant_left_out_cannot_be_forced(world: World) -> None:
    token = await open_link(world)
    await accounts.save(world.context, CLIENT, {"paynow_express_methods": "omari"}, actor="test")
    with pytest.raises(Invalid):
        await tap(world, token, "ecocash")
    await accounts.save(world.context, CLIENT, {"paynow_integration_key": None}, actor="test")
    with pytest.raises(NotConfigured):
        await tap(world, token, "omari")
    assert states(world) == []


async def test_an_unknown_page_is_not_found(world: World) -> None:
    with pytest.raises(NotFound):
        await checkout.pay(world.context, "A" * 27)
    with pytest.raises(NotFound):
        await checkout.enter_otp(world.context, "A" * 27, "123456", tries=0)


# --- one tap, one try


@pytest.mark.parametrize("method", [*EXPRESS, "web"])
@pytest.mark.parametrize("after", [None, 0])
async def test_many_taps_at_once_start_one_attempt(world: World, method: str, after: int | None) -> None:
    """Twenty taps at once: one attempt, one call, one prompt; whatever else answers leads to that one."""
    token = await open_link(world)
    steps = await asyncio.gather(*(tap(world, token, method, after=after) for _ in range(20)))
    assert world.sandbox.calls["initiate"] + world.sandbox.calls["express"] == 1
    assert len(states(world)) == 1
    assert len({str(step) for step in steps if step}) == 1
    assert world.sandbox.prompts[LOCAL] == (0 if method in ("web", "innbucks") else 1)


async def test_many_taps_on_another_way_start_one_more(world: World) -> None:
    """The web page is open already, as of a link that was made for the gateway."""
    token = await open_link(world)
    await tap(world, token, "web")
    world.clock.forward(seconds=10)
    await asyncio.gather(*(tap(world, token, "ecocash", after=1) for _ in range(20)))
    assert states(world) == [("web", "replaced"), ("ecocash", "live")]
    assert world.sandbox.prompts[LOCAL] == 1


async def test_taps_on_a_start_that_is_refused_at_once_ask_once(world: World) -> None:
    """The first is over before the others are looked at: they know of fewer tries than there were, and start none."""
    token = await open_link(world)

    async def broke() -> object:
        return await tap(world, token, "ecocash", "0774444444", after=0)

    outcomes = await asyncio.gather(*(broke() for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 1
    assert all(outcome is None or isinstance(outcome, Refused) for outcome in outcomes)
    assert world.sandbox.calls["express"] == 1
    assert states(world) == [("ecocash", "failed")]


async def test_a_form_that_is_sent_again_after_a_refusal_on_the_phone_prompts_nobody(world: World) -> None:
    """The browser offers to send the form once more; that is no wish to pay again. A fresh form is."""
    token = await open_link(world)
    await tap(world, token, "ecocash", after=0)
    await world.sandbox.decline(newest(world)["reference"])
    await look(world, the_payment(world)["id"])
    assert the_payment(world)["status"] == "failed"
    assert await tap(world, token, "ecocash", after=0) is None
    assert world.sandbox.prompts[LOCAL] == 1
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)
    assert world.sandbox.prompts[LOCAL] == 2
    assert states(world) == [("ecocash", "failed"), ("ecocash", "live")]


async def test_the_same_way_with_the_same_number_in_other_words_is_the_same(world: World) -> None:
    token = await open_link(world)
    for phone in (PHONE, LOCAL, "+263 77 212 3456", "263772123456", " 0772 123 456 "):
        assert await tap(world, token, "ecocash", phone) is not None
    assert world.sandbox.prompts[LOCAL] == 1


async def test_strangers_phones_are_not_pestered_without_end(world: World) -> None:
    """So many tries within so many minutes and no more; later it goes on."""
    token = await open_link(world)
    for number in range(TRIES):
        world.clock.forward(seconds=6)
        await tap(world, token, "ecocash", f"07721234{number:02d}")
    with pytest.raises(TooMany) as stopped:
        await tap(world, token, "ecocash", "0772999999")
    assert stopped.value.retry_after > 0
    assert len(states(world)) == TRIES
    assert world.sandbox.prompts["0772999999"] == 0
    world.clock.forward(minutes=15)
    assert isinstance(await tap(world, token, "ecocash", "0772999999"), ApproveOnPhone)
    for number in range(TRIES + 1, TRIES_A_DAY):
        world.clock.forward(minutes=16)
        await tap(world, token, "ecocash", f"07731234{number:02d}")
    world.clock.forward(minutes=16)
    with pytest.raises(TooMany):
        await tap(world, token, "ecocash", "0773999999")
    world.clock.forward(days=1)
    assert isinstance(await tap(world, token, "ecocash", "0773999999"), ApproveOnPhone)


# --- second thoughts


async def test_another_way_is_started_after_a_last_look_at_the_one_before(world: World) -> None:
    """The old one stays watched: money that comes by it all the same counts."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    old = newest(world)["reference"]
    world.clock.forward(seconds=10)
    polls = world.sandbox.calls["poll"]
    assert isinstance(await tap(world, token, "innbucks", after=1), ShowCode)
    assert world.sandbox.calls["poll"] == polls + 1
    assert states(world) == [("ecocash", "replaced"), ("innbucks", "live")]
    await world.sandbox.approve(old)
    world.rows_do("UPDATE attempts SET next_check_at = now() WHERE reference = %s", old)
    await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["status"] == "paid"


async def test_money_that_came_just_before_the_change_of_mind_is_found(world: World) -> None:
    """The last look finds it paid: no second way is opened."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    await world.sandbox.approve(newest(world)["reference"])
    world.clock.forward(seconds=10)
    assert await tap(world, token, "onemoney", after=1) is None
    assert the_payment(world)["status"] == "paid"
    assert states(world) == [("ecocash", "paid")]
    assert world.sandbox.calls["express"] == 1


async def test_both_ways_paid_open_a_review(world: World) -> None:
    """The customer approves both prompts: the first counts, a person decides about the second."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    first = newest(world)["reference"]
    world.clock.forward(seconds=10)
    await tap(world, token, "onemoney", after=1)
    second = newest(world)["reference"]
    for reference in (first, second):
        await world.sandbox.approve(reference)
        world.rows_do("UPDATE attempts SET next_check_at = now() WHERE reference = %s", reference)
        world.clock.forward(seconds=1)
        await reconcile.run_once(world.context, "paynow")
    assert the_payment(world)["status"] == "review"
    assert world.one("SELECT reason FROM reviews")["reason"] == "second_payment"


async def test_a_number_that_was_mistyped_can_be_put_right(world: World) -> None:
    """The same way on another phone is another try; the former owner of the prompt may still pay it, too."""
    token = await open_link(world)
    await tap(world, token, "ecocash", "0772000001")
    world.clock.forward(seconds=10)
    await tap(world, token, "ecocash", "0772000002", after=1)
    assert [row["phone"] for row in world.rows("SELECT phone FROM attempts ORDER BY number")] == [
        "+263772000001",
        "+263772000002",
    ]
    assert states(world) == [("ecocash", "replaced"), ("ecocash", "live")]


async def test_a_prompt_that_has_run_out_is_sent_again_after_a_look(world: World) -> None:
    """Until then the same tap leads to the same prompt."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    assert await tap(world, token, "ecocash", after=1) is not None
    assert world.sandbox.prompts[LOCAL] == 1
    world.clock.ahead += PROMPT_LIFE * 1.1
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)
    assert world.sandbox.prompts[LOCAL] == 2
    assert states(world) == [("ecocash", "replaced"), ("ecocash", "live")]


async def test_a_code_that_has_run_out_is_made_anew(world: World) -> None:
    token = await open_link(world)
    first = await tap(world, token, "innbucks")
    world.clock.forward(minutes=11)
    second = await tap(world, token, "innbucks", after=1)
    assert isinstance(first, ShowCode)
    assert isinstance(second, ShowCode)
    assert first.code != second.code


async def test_no_other_way_is_started_while_the_gateway_does_not_say(world: World) -> None:
    """Asked within the last second or not: only its word of this moment counts, and for minutes nothing else does."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    assert await reconcile.look_now(world.context, the_payment(world)["id"])
    await world.sandbox.approve(newest(world)["reference"])
    world.sandbox.add_fault("error500", on=["poll"])
    for _ in range(2):
        with pytest.raises(Unsettled):
            await tap(world, token, "onemoney", after=1)
        world.clock.forward(seconds=1)
    world.sandbox.clear_faults()
    assert await tap(world, token, "onemoney", after=1) is None
    assert the_payment(world)["status"] == "paid"
    assert sum(world.sandbox.prompts.values()) == 1


async def test_a_try_of_which_nothing_is_heard_is_replaced_at_last(world: World) -> None:
    """Neither a look-up that keeps failing nor a start whose trace does blocks the link until it expires."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    world.sandbox.add_fault("error500", on=["poll", "trace"])
    world.clock.ahead += STUCK * 1.1
    assert isinstance(await tap(world, token, "innbucks", after=1), ShowCode)
    world.rows_do("UPDATE attempts SET state = 'starting' WHERE number = 2")
    assert await tap(world, token, "omari", after=2) is None
    world.clock.ahead += STUCK * 1.1
    assert isinstance(await tap(world, token, "omari", after=2), EnterOtp)
    assert states(world) == [("ecocash", "replaced"), ("innbucks", "replaced"), ("omari", "live")]
    watched = world.rows("SELECT FROM attempts WHERE next_check_at IS NOT NULL")
    assert len(watched) == 3


@pytest.mark.parametrize("first", ["ecocash", "innbucks", "omari"])
async def test_a_second_way_that_does_not_start_leaves_the_first_as_it_was(world: World, first: str) -> None:
    """Refused or not reached: prompt, code or password can still be used, and are looked at before a third."""
    token = await open_link(world)
    step = await tap(world, token, first)
    with pytest.raises(Refused):
        await tap(world, token, "ecocash", "0774444444", after=1)
    assert states(world) == [(first, "live"), ("ecocash", "failed")]
    assert await tap(world, token, first, after=2) == step
    gateway: Any = world.context.gateways["paynow"]
    start = gateway.start

    async def unreachable(*_: object) -> object:
        raise Unreachable("the line is down")

    gateway.start = unreachable
    with pytest.raises(Unreachable):
        await tap(world, token, "onemoney", after=2)
    gateway.start = start
    assert states(world)[0] == (first, "live")
    await world.sandbox.pay(world.rows("SELECT reference FROM attempts WHERE number = 1")[0]["reference"])
    assert await tap(world, token, "onemoney", after=3) is None
    assert the_payment(world)["status"] == "paid"


@pytest.mark.parametrize("meanwhile", ["cancelled", "paid", "expired"])
async def test_what_ends_while_a_try_is_prepared_is_not_prompted_for(world: World, meanwhile: str) -> None:
    """Withdrawn, paid or closed between the reading and the writing: the statement itself looks once more."""
    token = await open_link(world)
    await tap(world, token, "web")
    row = await checkout.read(world.context, token)
    (way, *_) = await checkout.ways_of(world.context, row)
    if meanwhile == "cancelled":
        await payments.cancel(world.context, CLIENT, row["id"], actor="test")
    if meanwhile == "paid":
        await world.sandbox.pay(newest(world)["reference"])
        await look(world, row["id"])
    if meanwhile == "expired":
        world.clock.forward(days=8)
    assert await checkout._begin(world.context, row, way, "+263772123456") is None
    assert world.sandbox.calls["express"] == 0
    assert len(states(world)) == 1


async def test_an_open_prompt_holds_the_end_of_the_link(world: World) -> None:
    """Who has just been asked to pay is not told meanwhile that it is too late; two minutes later it is."""
    expires_at = world.clock() + PROMPT_LIFE / 4
    token = await open_link(world, expires_at=expires_at)
    await tap(world, token, "ecocash")
    world.clock.ahead += PROMPT_LIFE / 2
    await reconcile.run_once(world.context, "paynow")
    assert await payments.expire_due(world.context) == 0
    world.clock.ahead += PROMPT_LIFE
    await reconcile.run_once(world.context, "paynow")
    assert await payments.expire_due(world.context) == 1
    assert the_payment(world)["status"] == "expired"


@pytest.mark.parametrize(("minutes", "ends"), [(5, 0), (11, 1)])
@pytest.mark.damaged("statuses and rows are set by hand")
async def test_an_open_code_holds_the_end_of_the_link(world: World, minutes: int, ends: int) -> None:
    """As long as it can be used; one that a gateway's clock makes last for years does not hold it for ever."""
    token = await open_link(world, expires_at=world.clock() + PROMPT_LIFE / 4)
    await tap(world, token, "innbucks")
    world.clock.forward(minutes=minutes)
    await reconcile.run_once(world.context, "paynow")
    assert await payments.expire_due(world.context) == ends
    world.rows_do("""UPDATE attempts SET next_step = next_step || '{"expires_at": "2999-01-01T00:00:00Z"}'""")
    world.rows_do("UPDATE payments SET status = 'pending'")
    assert await payments.expire_due(world.context) == 0
    world.clock.ahead += CODE_LIFE
    await reconcile.run_once(world.context, "paynow")
    assert await payments.expire_due(world.context) == 1


@pytest.mark.parametrize("status", ["paid", "cancelled", "expired", "refunded", "review", "disputed"])
@pytest.mark.damaged("statuses and rows are set by hand")
async def test_what_is_over_starts_nothing(world: World, status: str) -> None:
    token = await open_link(world)
    world.rows_do("UPDATE payments SET status = %s", status)
    assert await tap(world, token, "ecocash") is None
    assert await checkout.enter_otp(world.context, token, "123456", tries=0) is None
    assert states(world) == []


async def test_a_link_whose_time_is_over_starts_nothing(world: World) -> None:
    token = await open_link(world)
    world.clock.forward(days=8)
    assert await tap(world, token, "ecocash") is None
    assert states(world) == []


# --- lost answers


@pytest.mark.parametrize("method", EXPRESS)
async def test_a_lost_answer_is_found_by_its_trace(world: World, method: str) -> None:
    """Accepted, and the reply never came: nobody is asked a second time for it, and the money is found."""
    token = await open_link(world)
    world.sandbox.add_fault("html", on=["express"], times=1)
    with pytest.raises((Ambiguous, Untrusted)):
        await tap(world, token, method, after=0)
    assert await tap(world, token, method, after=0) is None
    assert await tap(world, token, "web", after=1) is None, "while it is not known, nothing else is started"
    reference = newest(world)["reference"]
    await world.sandbox.pay(reference)
    world.clock.forward(seconds=6)
    assert await reconcile.run_once(world.context, "paynow") == 1
    assert the_payment(world)["status"] == "paid"
    assert world.sandbox.calls["express"] == 1


async def test_a_lost_prompt_is_waited_for_and_a_lost_code_is_replaced(world: World) -> None:
    """The prompt is on the phone whether its answer came or not. A code that nobody knows cannot be paid with."""
    token = await open_link(world)
    for method, again in (("ecocash", False), ("innbucks", True), ("omari", True)):
        world.rows_do("DELETE FROM attempts")
        world.sandbox.calls.clear()
        world.sandbox.add_fault("html", on=["express"], times=1)
        with pytest.raises((Ambiguous, Untrusted)):
            await tap(world, token, method)
        world.clock.forward(seconds=6)
        await reconcile.run_once(world.context, "paynow")
        assert newest(world)["state"] == "live"
        assert isinstance(await tap(world, token, method), STEP[method])
        assert world.sandbox.calls["express"] == 1 + again, method


async def test_a_start_that_never_left_leaves_the_link_payable(world: World) -> None:
    token = await open_link(world)
    gateway: Any = world.context.gateways["paynow"]
    base, gateway._base = gateway._base, "http://127.0.0.1:1"
    with pytest.raises(Unreachable):
        await tap(world, token, "ecocash")
    gateway._base = base
    assert the_payment(world)["status"] == "pending"
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)


@pytest.mark.parametrize(
    ("phone", "method", "because"),
    [("0774444444", "ecocash", Because.FUNDS), (PHONE, "onemoney", Because.METHOD)],
)
async def test_a_refusal_says_why_and_leaves_the_link_payable(
    world: World, phone: str, method: str, because: Because
) -> None:
    """Not enough money, a method that is not switched on: the customer may do something about it."""
    token = await open_link(world)
    world.sandbox.integrations["1201"].methods.discard("onemoney")
    with pytest.raises(Refused) as refused:
        await tap(world, token, method, phone)
    assert refused.value.because is because
    assert the_payment(world)["status"] == "pending"
    assert told(world, the_payment(world)["id"]) == [(1, "link_created")]
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)


async def test_a_late_success_is_recorded_after_the_customer_gave_up(world: World) -> None:
    """The prompt is confirmed after the link has expired: paid, and late."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    world.clock.forward(days=8)
    assert await payments.expire_due(world.context) == 1
    await world.sandbox.approve(newest(world)["reference"])
    await look(world, the_payment(world)["id"])
    assert (the_payment(world)["status"], the_payment(world)["late"]) == ("paid", True)


async def test_a_failed_try_leaves_the_choice_of_the_gateway_open(world: World) -> None:
    """Only money decides by which gateway a link without one is paid."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    await world.sandbox.decline(newest(world)["reference"])
    await look(world, the_payment(world)["id"])
    assert (the_payment(world)["status"], the_payment(world)["gateway"]) == ("failed", None)


# --- one-time passwords


async def otp_link(world: World) -> tuple[str, str]:
    """A link whose customer has been sent a one-time password: its token, and the attempt's reference."""
    token = await open_link(world)
    assert isinstance(await tap(world, token, "omari"), EnterOtp)
    world.clock.forward(seconds=10)
    return token, newest(world)["reference"]


def wrong(otp: str) -> str:
    return f"{(int(otp) + 1) % 1_000_000:06d}"


async def test_the_right_password_pays(world: World) -> None:
    """With blanks as people type them. The look-up is the proof, not the gateway's thanks."""
    token, reference = await otp_link(world)
    otp = world.sandbox.otp_of(reference)
    await checkout.enter_otp(world.context, token, f" {otp[:3]} {otp[3:]}", tries=0)
    assert the_payment(world)["status"] == "paid"
    assert world.sandbox.calls["otp"] == 1
    assert world.sandbox.calls["poll"] == 1


async def test_five_wrong_passwords_end_the_try(world: World) -> None:
    """Each is told and counted; after the fifth none is passed on any more, and the gateway says that it is over."""
    token, reference = await otp_link(world)
    for tries in range(OTP_TRIES):
        with pytest.raises(NotAccepted):
            await checkout.enter_otp(world.context, token, wrong(world.sandbox.otp_of(reference)), tries=tries)
        assert newest(world)["next_step"]["tries"] == tries + 1
    await checkout.enter_otp(world.context, token, world.sandbox.otp_of(reference), tries=OTP_TRIES)
    assert world.sandbox.calls["otp"] == OTP_TRIES
    await look(world, the_payment(world)["id"])
    assert the_payment(world)["status"] == "failed"
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)


@pytest.mark.parametrize("right", [True, False])
async def test_many_taps_pass_one_password_on(world: World, right: bool) -> None:
    token, reference = await otp_link(world)
    otp = world.sandbox.otp_of(reference)
    given = otp if right else wrong(otp)
    await asyncio.gather(
        *(checkout.enter_otp(world.context, token, given, tries=0) for _ in range(20)), return_exceptions=True
    )
    assert world.sandbox.calls["otp"] == 1
    assert world.sandbox.find(reference).otp_failures == (0 if right else 1)


@pytest.mark.parametrize("otp", ["", "  ", "123", "12345678901", "abcdef", "12 34x6", "١٢٣٤٥٦", "123456&status=Paid"])
async def test_what_is_no_password_is_not_passed_on(world: World, otp: str) -> None:
    token, _ = await otp_link(world)
    with pytest.raises(Invalid) as faulty:
        await checkout.enter_otp(world.context, token, otp, tries=0)
    assert [field for field, _ in faulty.value.faults] == ["otp"]
    assert world.sandbox.calls["otp"] == 0
    assert newest(world)["next_step"]["tries"] == 0


async def test_a_password_whose_answer_is_lost_is_waited_for(world: World) -> None:
    """It was right, and the gateway's answer never came: no other is asked for, and the look-up finds the money."""
    token, reference = await otp_link(world)
    world.sandbox.add_fault("error500", on=["otp"], times=1)
    with pytest.raises(Ambiguous):
        await checkout.enter_otp(world.context, token, world.sandbox.otp_of(reference), tries=0)
    assert newest(world)["next_step"]["awaiting_since"]
    await checkout.enter_otp(world.context, token, world.sandbox.otp_of(reference), tries=1)
    assert world.sandbox.calls["otp"] == 1
    await look(world, the_payment(world)["id"])
    assert the_payment(world)["status"] == "paid"


async def test_a_password_that_never_left_does_not_count(world: World) -> None:
    token, reference = await otp_link(world)
    world.rows_do(
        "UPDATE attempts SET next_step = jsonb_set(next_step, '{url}', %s::jsonb)", '"http://127.0.0.1:1/otp"'
    )
    gateway: Any = world.context.gateways["paynow"]
    base, gateway._base = gateway._base, "http://127.0.0.1:1"
    with pytest.raises(Unreachable):
        await checkout.enter_otp(world.context, token, world.sandbox.otp_of(reference), tries=0)
    gateway._base = base
    step = newest(world)["next_step"]
    assert (step["tries"], step["awaiting_since"]) == (0, None)


@pytest.mark.parametrize("end", ["cancelled", "expired"])
async def test_a_password_is_not_passed_on_once_the_link_is_over(world: World, end: str) -> None:
    """An old page: what was withdrawn or has expired is not charged by us."""
    token, reference = await otp_link(world)
    if end == "cancelled":
        await payments.cancel(world.context, CLIENT, the_payment(world)["id"], actor="test")
    else:
        world.clock.forward(days=8)
    await checkout.enter_otp(world.context, token, world.sandbox.otp_of(reference), tries=0)
    assert world.sandbox.calls["otp"] == 0
    assert world.sandbox.find(reference).open


async def test_after_a_lost_answer_another_password_is_asked_for_once_the_first_is_settled(world: World) -> None:
    """It was wrong: the gateway says so by saying, long after, that the payment is still open."""
    token, reference = await otp_link(world)
    world.sandbox.add_fault("error500", on=["otp"], times=1)
    otp = world.sandbox.otp_of(reference)
    with pytest.raises(Ambiguous):
        await checkout.enter_otp(world.context, token, wrong(otp), tries=0)
    world.clock.ahead += OTP_SETTLES * 1.5
    await checkout.enter_otp(world.context, token, otp, tries=1)
    assert world.sandbox.calls["otp"] == 1, "nothing was heard yet"
    await look(world, the_payment(world)["id"])
    await checkout.enter_otp(world.context, token, otp, tries=1)
    assert world.sandbox.calls["otp"] == 2
    assert the_payment(world)["status"] == "paid"


async def test_a_password_for_another_step_is_left_alone(world: World) -> None:
    """A form of an old tab: the customer has gone on to a prompt meanwhile."""
    token, _ = await otp_link(world)
    await tap(world, token, "ecocash", after=1)
    await checkout.enter_otp(world.context, token, "123456", tries=0)
    assert world.sandbox.calls["otp"] == 0


# --- rows of before


async def test_an_attempt_of_the_version_before_is_gone_on_with(world: World) -> None:
    """Written without number, phone and step by a replica that is still to be replaced: used, counted, replaced."""
    token = await open_link(world)
    await tap(world, token, "web")
    world.rows_do("UPDATE attempts SET number = NULL")
    step = await tap(world, token, "web")
    assert isinstance(step, Redirect)
    world.clock.forward(seconds=10)
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)
    assert [row["number"] for row in world.rows("SELECT number FROM attempts ORDER BY started_at")] == [None, 2]


async def test_a_step_of_a_later_version_can_be_replaced(world: World) -> None:
    """After a step back: what cannot be read is not shown, and nothing breaks."""
    token = await open_link(world)
    await tap(world, token, "innbucks")
    world.rows_do("""UPDATE attempts SET next_step = '{"type": "look_into_the_camera"}'""")
    assert isinstance(await tap(world, token, "innbucks", after=1), ShowCode)
    assert len(states(world)) == 2


async def test_a_method_that_is_not_known_any_more_can_be_replaced(world: World) -> None:
    """Its step cannot be told: the customer chooses again."""
    token = await open_link(world)
    await tap(world, token, "ecocash")
    world.rows_do("UPDATE attempts SET method = 'smoke_signals', next_step = NULL")
    world.clock.forward(seconds=10)
    assert isinstance(await tap(world, token, "ecocash", after=1), ApproveOnPhone)
    assert world.sandbox.prompts[LOCAL] == 2


def test_a_way_is_named_by_gateway_and_method() -> None:
    """What stands in the form."""
    assert checkout.Way("paynow", Method("ecocash", "EcoCash", ApproveOnPhone)).key == "paynow.ecocash"
