"""InnBucks' adapter: one token for each set of credentials, however many calls want it and whatever becomes of them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from payments_service.errors import GatewayError, Refused, Unreachable, Untrusted
from payments_service.gateways import innbucks_session
from payments_service.gateways.base import ShowCode, Started
from payments_service.gateways.innbucks import Innbucks
from payments_service.gateways.innbucks_session import InnbucksCredentials
from payments_service.lifecycle import Outcome
from tests.gateways import innbucks_stage
from tests.gateways.innbucks_stage import (
    AUTH,
    CREDENTIALS,
    GENERATE,
    INQUIRY,
    OTHERS,
    Clock,
    Liar,
    Said,
    opened,
    request,
)
from tests.house import eventually

stage, transport, liar = innbucks_stage.stage, innbucks_stage.transport, innbucks_stage.liar  # fixtures
innbucks, hasty, clock = innbucks_stage.innbucks, innbucks_stage.hasty, innbucks_stage.clock

CROWD = 100
REFUSED = Said({"responseCode": "05", "responseDescription": "Bad credentials"}, 401)
NOT_TAKEN = Said({"status": 401, "error": "Unauthorized"}, 401)


def looks(innbucks: Innbucks, count: int, credentials: InnbucksCredentials = CREDENTIALS) -> list[asyncio.Task[Any]]:
    return [asyncio.create_task(innbucks.check(credentials, opened())) for _ in range(count)]


async def ends_of(tasks: list[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


async def is_asked(liar: Liar, path: str, times: int = 1) -> None:
    await eventually(lambda: len(liar.asked(path)) == times, every=0.002)


# --- one sign-in for all


async def test_one_token_serves_all_calls(innbucks: Innbucks, liar: Liar) -> None:
    """The other tenant's calls have the other's, and each the key of its own."""
    for credentials in (CREDENTIALS, OTHERS) * 3:
        await innbucks.start(credentials, request())
        await innbucks.check(credentials, opened())
    assert len(liar.asked(AUTH)) == 2
    owners = {seen.headers["x-api-key"]: set[str]() for seen in liar.seen}
    for seen in liar.asked(GENERATE) + liar.asked(INQUIRY):
        owners[seen.headers["x-api-key"]].add(seen.token)
    assert owners == {
        CREDENTIALS.api_key: {f"Bearer {liar.tokens[0]}"},
        OTHERS.api_key: {f"Bearer {liar.tokens[1]}"},
    }


async def test_a_crowd_without_a_token_signs_in_once(innbucks: Innbucks, liar: Liar) -> None:
    ends = await ends_of(looks(innbucks, CROWD))
    assert [end.outcome for end in ends] == [Outcome.PENDING] * CROWD
    assert len(liar.asked(AUTH)) == 1


async def test_a_crowd_whose_token_ended_signs_in_once_more(innbucks: Innbucks, liar: Liar) -> None:
    """Each call is answered 401, each is made again, and whoever comes late does not throw the new token away."""
    await innbucks.check(CREDENTIALS, opened())
    liar.forget_tokens()
    ends = await ends_of(looks(innbucks, CROWD))
    assert [end.outcome for end in ends] == [Outcome.PENDING] * CROWD
    assert len(liar.asked(AUTH)) == 2


async def test_a_sign_in_that_fails_fails_for_all_that_wait_and_for_no_other(
    innbucks: Innbucks, liar: Liar, clock: Clock
) -> None:
    """Each with an error of its own, for it will carry the payment's id. With refused credentials nobody asks again for
    half a minute: many open attempts must not lock the account."""
    liar.once[AUTH] = [REFUSED]
    ends = await ends_of([asyncio.create_task(innbucks.start(CREDENTIALS, request())) for _ in range(CROWD)])
    assert {type(end) for end in ends} == {Refused}
    assert len({id(end) for end in ends}) == CROWD
    assert len({str(end) for end in ends}) == 1
    ends[0].payment_id = uuid4()
    assert ends[1].payment_id is None
    with pytest.raises(Refused) as refused:
        await innbucks.start(CREDENTIALS, request())
    assert refused.value.payment_id is None
    assert (await innbucks.check(OTHERS, opened())).outcome is Outcome.PENDING
    assert len(liar.asked(AUTH)) == 2
    clock.seconds += innbucks_session.REFUSED_LIFE
    assert isinstance(await innbucks.start(CREDENTIALS, request()), Started)
    assert len(liar.asked(AUTH)) == 3


async def test_verify_asks_again_whatever_was_said_before(innbucks: Innbucks, liar: Liar) -> None:
    """Somebody has just set the account right, and wants to know; then all goes on at once."""
    liar.once[AUTH] = [REFUSED]
    with pytest.raises(Refused):
        await innbucks.start(CREDENTIALS, request())
    assert (await innbucks.verify(CREDENTIALS, "")).ok
    assert isinstance(await innbucks.start(CREDENTIALS, request()), Started)


async def test_one_tenants_slow_sign_in_holds_up_no_other(innbucks: Innbucks, liar: Liar) -> None:
    held = liar.hold(AUTH)
    waiting = looks(innbucks, 3)
    await is_asked(liar, AUTH)
    del liar.held[AUTH]
    assert (await innbucks.check(OTHERS, opened())).outcome is Outcome.PENDING
    assert not any(look.done() for look in waiting)
    held.set()
    assert [end.outcome for end in await ends_of(waiting)] == [Outcome.PENDING] * 3


# --- cancelled


async def test_who_began_the_sign_in_may_go_without_ending_it_for_the_others(innbucks: Innbucks, liar: Liar) -> None:
    held = liar.hold(AUTH)
    first, *others = looks(innbucks, 5)
    await is_asked(liar, AUTH)
    first.cancel()
    await asyncio.wait([first])
    held.set()
    ends = await ends_of([first, *others])
    assert isinstance(ends[0], asyncio.CancelledError)
    assert [end.outcome for end in ends[1:]] == [Outcome.PENDING] * 4
    assert len(liar.asked(AUTH)) == 1


@pytest.mark.parametrize("said", [None, REFUSED, Said(b"", 500)], ids=repr)
async def test_when_all_have_gone_the_sign_in_ends_by_itself(
    innbucks: Innbucks, liar: Liar, clock: Clock, said: Said | None
) -> None:
    """What it brought is used; what it failed with is nobody's any more, and warns of nothing."""
    if said:
        liar.once[AUTH] = [said]
    held = liar.hold(AUTH)
    gone = looks(innbucks, 3)
    await is_asked(liar, AUTH)
    for look in gone:
        look.cancel()
    assert {type(end) for end in await ends_of(gone)} == {asyncio.CancelledError}
    joined = looks(innbucks, 1)
    held.set()
    (end,) = await ends_of(joined)
    if said:
        assert isinstance(end, GatewayError)
        clock.seconds += innbucks_session.REFUSED_LIFE
        assert (await innbucks.check(CREDENTIALS, opened())).outcome is Outcome.PENDING
    else:
        assert end.outcome is Outcome.PENDING
    assert len(liar.asked(AUTH)) == (2 if said else 1)


async def test_who_has_waited_long_enough_goes_and_the_next_finds_the_token(hasty: Innbucks, liar: Liar) -> None:
    """The sign-in itself ends in time as well."""
    held = liar.hold(AUTH)
    ends = await ends_of(looks(hasty, 3))
    assert {type(end) for end in ends} == {Unreachable}
    held.set()
    await eventually(lambda: not hasty._api._tokens._coming, every=0.002)
    assert (await hasty.check(CREDENTIALS, opened())).outcome is Outcome.PENDING


# --- for how long


async def test_a_token_is_used_for_fourteen_minutes(innbucks: Innbucks, liar: Liar, clock: Clock) -> None:
    """A minute less than it lives, however often it was used."""
    await innbucks.check(CREDENTIALS, opened())
    for seconds, sign_ins in ((839, 1), (0.9, 1), (0.1, 2), (839, 2), (1, 3)):
        clock.seconds += seconds
        await innbucks.check(CREDENTIALS, opened())
        assert len(liar.asked(AUTH)) == sign_ins
    assert liar.seen[-1].token == f"Bearer {liar.tokens[-1]}"


async def test_a_tokens_time_begins_before_it_was_asked_for(innbucks: Innbucks, liar: Liar, clock: Clock) -> None:
    """However slow the sign-in: none is sent that may have ended."""
    held = liar.hold(AUTH)
    (look,) = looks(innbucks, 1)
    await is_asked(liar, AUTH)
    clock.seconds += 60
    held.set()
    await look
    clock.seconds += 780
    await innbucks.check(CREDENTIALS, opened())
    assert len(liar.asked(AUTH)) == 2


async def test_only_so_many_are_kept_and_the_least_used_goes_first(
    innbucks: Innbucks, liar: Liar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(innbucks_session, "MOST_TOKENS", 2)
    first, second, third = (InnbucksCredentials(name, "p", "k") for name in ("first", "second", "third"))
    for credentials in (first, second, first, third, first):
        await innbucks.check(credentials, opened())
    assert [seen.body["username"] for seen in liar.asked(AUTH)] == ["first", "second", "third"]
    await innbucks.check(second, opened())
    assert len(liar.asked(AUTH)) == 4
    assert len(innbucks._api._tokens._kept) == 2


async def test_what_is_too_old_is_not_kept_either(innbucks: Innbucks, liar: Liar, clock: Clock) -> None:
    """Dropped at the next sign-in of anybody; no password is kept at all."""
    await innbucks.check(CREDENTIALS, opened())
    clock.seconds += 840
    await innbucks.check(OTHERS, opened())
    tokens = innbucks._api._tokens
    assert [kept.value for kept in tokens._kept.values()] == [liar.tokens[1]]
    assert not tokens._coming
    assert CREDENTIALS.password not in repr(vars(tokens))
    assert not any(token in repr(vars(tokens)) for token in liar.tokens)


@pytest.mark.parametrize("field", ["username", "password", "api_key"])
async def test_changed_credentials_have_a_token_of_their_own(innbucks: Innbucks, liar: Liar, field: str) -> None:
    values = {name: getattr(CREDENTIALS, name) for name in ("username", "password", "api_key")}
    await innbucks.check(CREDENTIALS, opened())
    await innbucks.check(InnbucksCredentials(**{**values, field: "changed"}), opened())
    assert len(liar.asked(AUTH)) == 2


# --- a token that is not taken


async def test_a_code_is_asked_for_again_after_a_401(innbucks: Innbucks, liar: Liar) -> None:
    """A sure no: nothing was made by the first. Once, with a new token, and the same reference."""
    await innbucks.check(CREDENTIALS, opened())
    liar.forget_tokens()
    started = await innbucks.start(CREDENTIALS, request())
    assert isinstance(started.next_step, ShowCode)
    first, second = liar.asked(GENERATE)
    assert first.body == second.body
    assert [first.token, second.token] == [f"Bearer {token}" for token in liar.tokens]
    assert len(liar.asked(AUTH)) == 2


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"status":"Claimed"}'])
async def test_a_second_401_is_the_last(innbucks: Innbucks, liar: Liar, body: bytes) -> None:
    """Whatever stands in it. Nothing was made, and nothing is proved; then the next call tries all anew."""
    liar.says[GENERATE] = liar.says[INQUIRY] = Said(body, 401)
    with pytest.raises(Refused, match="innbucks_api_key"):
        await innbucks.start(CREDENTIALS, request())
    assert (len(liar.asked(AUTH)), len(liar.asked(GENERATE))) == (2, 2)
    with pytest.raises(Untrusted):
        await innbucks.check(CREDENTIALS, opened())
    assert len(liar.asked(INQUIRY)) == 2
    del liar.says[GENERATE], liar.says[INQUIRY]
    assert isinstance(await innbucks.start(CREDENTIALS, request()), Started)


@pytest.mark.parametrize(("said", "kind"), [(REFUSED, Refused), (Said(b"", 500), Unreachable)], ids=repr)
async def test_no_new_token_after_a_401_means_that_nothing_was_begun(
    innbucks: Innbucks, liar: Liar, said: Said, kind: type[GatewayError]
) -> None:
    await innbucks.check(CREDENTIALS, opened())
    liar.forget_tokens()
    liar.says[AUTH] = said
    with pytest.raises(kind):
        await innbucks.start(CREDENTIALS, request())
    assert len(liar.asked(GENERATE)) == 1


async def test_a_late_401_does_not_throw_the_new_token_away(innbucks: Innbucks, liar: Liar) -> None:
    """Two calls with the same old token: one is told at once, the other only after a new one was fetched."""
    await innbucks.check(CREDENTIALS, opened())
    held = liar.hold(GENERATE)
    slow = asyncio.create_task(innbucks.start(CREDENTIALS, request()))
    await is_asked(liar, GENERATE)
    liar.forget_tokens()
    await innbucks.check(CREDENTIALS, opened())
    held.set()
    assert isinstance(await slow, Started)
    assert len(liar.asked(AUTH)) == 2


async def test_no_time_is_left_for_another_try_after_a_slow_401(hasty: Innbucks, liar: Liar) -> None:
    """All together end in time: a start that takes too long is taken for cut off."""
    await hasty.check(CREDENTIALS, opened())
    liar.forget_tokens()
    held = liar.hold(AUTH)
    with pytest.raises(Unreachable):
        await hasty.start(CREDENTIALS, request())
    held.set()
    assert len(liar.asked(GENERATE)) == 1


def test_a_start_is_through_before_it_is_taken_for_cut_off() -> None:
    """START_GRACE is half a minute."""
    longest = innbucks_session.SIGN_IN_SECONDS + Innbucks.start_seconds + Innbucks.life_seconds
    assert longest < 28


async def test_verify_signs_in_afresh(innbucks: Innbucks, liar: Liar) -> None:
    """Whether they are good now, not whether they were; the new token serves the calls after it."""
    await innbucks.check(CREDENTIALS, opened())
    assert (await innbucks.verify(CREDENTIALS, "")).ok
    await innbucks.check(CREDENTIALS, opened())
    assert len(liar.asked(AUTH)) == 2
    assert liar.asked(INQUIRY)[-1].token == f"Bearer {liar.tokens[1]}"
    liar.says[AUTH] = REFUSED
    assert not (await innbucks.verify(CREDENTIALS, "")).ok
