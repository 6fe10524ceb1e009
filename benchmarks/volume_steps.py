"""What is asked of the two databases of `volume`."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg

from benchmarks import seeds
from benchmarks.asgi import ask
from benchmarks.stage import TENANT, TOKEN
from benchmarks.volume_sides import KEYS, Call, Side, Step
from payments_service import accounts, endings, idempotency, listing, payments, reconcile, replay, sweeps
from payments_service.app import internal_app, public_app
from payments_service.context import Context
from payments_service.db import Row
from payments_service.delivery import claim as claim_events
from payments_service.lifecycle import Status
from payments_service.listing import Filters
from payments_service.replay import Wanted

SHOP = UUID("c0000000-0000-4000-8000-000000000002")
DAY, MONTH = timedelta(days=1), timedelta(days=31)
CLAIMED, DUE = 16, 64

# Where in the planted payments each step's own begin.
_CALLBACKS, _REPORTS, _DUE = 0, 500, 1000


def _page(client_id: UUID, filters: Callable[[Row], Filters], *, deep: bool = False) -> Callable[[Side], Call]:
    """A page of the list; with filters that hold for the payment of the turn, or going on after it."""

    def make(side: Side) -> Call:
        async def call(turn: int) -> None:
            row = side.keys[turn % KEYS]
            cursor = listing._cursor(row) if deep else None
            found, _ = await listing.page(side.context, client_id, filters(row), cursor=cursor)
            assert found or deep

        return call

    return make


def _summary(client_id: UUID, span: Callable[[Side], timedelta]) -> Callable[[Side], Call]:
    """The sums of some time, another in each turn."""

    def make(side: Side) -> Call:
        async def call(turn: int) -> None:
            length = span(side)
            # Until the moment of filling, the two years before it; never beyond either end.
            back = (timedelta(days=730) - length) * (turn % KEYS / KEYS)
            until = side.moment - back
            await listing.summary(side.context, client_id, Filters(created_from=until - length, created_to=until))

        return call

    return make


def _thousand(side: Side) -> timedelta:
    """In this time the big tenant has a thousand payments."""
    return timedelta(days=730) * 10_000 / side.size


def _callback(side: Side) -> Call:
    app = public_app(side.context)

    async def call(turn: int) -> None:
        number = side.planted[_CALLBACKS + turn]
        attempt = seeds.attempt_id(number)
        body = seeds.callback_body(f"INV-{number}", 30_000_000 + number)
        headers = {"content-type": "application/x-www-form-urlencoded", "content-length": str(len(body))}
        await ask(app, "POST", f"/callbacks/paynow/{TENANT}/{attempt}", body, headers, expect=200)

    return call


def _absorb(side: Side) -> Call:
    async def call(turn: int) -> None:
        number = side.planted[_REPORTS + turn]
        later = side.moment + DAY
        await payments.absorb(side.context, seeds.attempt_id(number), seeds.report(number), next_check_at=later)

    return call


def _attempts_due(side: Side) -> None:
    ids = [seeds.attempt_id(number) for number in side.planted[_DUE : _DUE + DUE]]
    side.aside("UPDATE attempts SET next_check_at = %(at)s WHERE id = ANY(%(ids)s)", at=side.moment, ids=ids)


def _claim_attempts(side: Side) -> Call:
    async def call(_turn: int) -> None:
        assert len(await reconcile.claim(side.context, "paynow", CLAIMED)) == CLAIMED

    return call


# Earlier than what the other steps leave to be told.
_EVENTS_DUE = """
INSERT INTO events (id, client_id, payment_id, type, sequence, body, created_at, next_try_at)
SELECT ('e' || substr(id::text, 2))::uuid, client_id, id, 'payment.link_created', 1, '{"data": {}}', %(at)s,
    %(at)s - interval '1 minute'
FROM payments WHERE id = ANY(%(ids)s)
ON CONFLICT (id) DO UPDATE SET next_try_at = excluded.next_try_at"""


def _events_due(side: Side) -> None:
    ids = [seeds.payment_id(number) for number in side.planted[_DUE : _DUE + DUE]]
    side.aside(_EVENTS_DUE, at=side.moment, ids=ids)


def _claim_events(side: Side) -> Call:
    async def call(_turn: int) -> None:
        assert len(await claim_events(side.context, CLAIMED)) == CLAIMED

    return call


def _pull(wanted: Wanted, after: Callable[[Row], int]) -> Callable[[Side], Call]:
    def make(side: Side) -> Call:
        async def call(turn: int) -> None:
            await replay.pull(side.context, wanted, after=str(after(side.keys[turn % KEYS])))

        return call

    return make


def _create_link(side: Side) -> Call:
    """By the internal application, under a key; each six seconds after the one before, as the rate allows."""
    turns = [0]
    context = replace(side.context, clock=lambda: side.moment + timedelta(seconds=6 * turns[0]))
    app = internal_app(context, side.settings)
    path = f"/v1/clients/{TENANT}/payments/create-link"

    async def call(turn: int) -> None:
        turns[0] = turn
        number = side.planted[turn]
        order = {
            "gateway": None,
            "amount_cents": 1250,
            "currency": "USD",
            "reference": f"NEW-{number}",
            "contact_id": str(SHOP),
        }
        body = json.dumps(order).encode()
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "content-type": "application/json",
            "content-length": str(len(body)),
            "idempotency-key": f"key-{number}",
        }
        await ask(app, "POST", path, body, headers, expect=201)

    return call


def _get(side: Side) -> Call:
    async def call(turn: int) -> None:
        await payments.get(side.context, TENANT, side.keys[turn % KEYS]["id"])

    return call


def _housekeeping(work: Callable[[Context], Awaitable[object]]) -> Callable[[Side], Call]:
    def make(side: Side) -> Call:
        return lambda _turn: work(side.context)

    return make


# The planted ones end a week after now, these before.
_ENDS = """
SELECT max(expires_at) FROM (
    SELECT expires_at FROM payments WHERE status = 'pending' AND id < %(planted)s ORDER BY expires_at LIMIT 16
) AS ends"""


def _over(side: Side) -> Call:
    """The look for links whose time is over, when it is so for 16. What is done with them is as for any report."""
    with psycopg.connect(side.url) as connection:
        row = connection.execute(_ENDS, {"planted": seeds.payment_id(0)}).fetchone()
    assert row is not None
    grace, prompt, code = endings.EXPIRY_GRACE, endings.PROMPT_LIFE, endings.CODE_LIFE
    values = {"at": row[0], "grace": grace, "prompt_life": prompt, "code_life": code, "limit": 200}

    async def call(_turn: int) -> None:
        await side.context.db.run(endings.EXPIRED, values)

    return call


STEPS = (
    Step("list, first page", _page(TENANT, lambda _: Filters())),
    Step("list, first page, the shop", _page(SHOP, lambda _: Filters())),
    Step("list by status, first page", _page(TENANT, lambda _: Filters(status=Status.FAILED))),
    Step("list by gateway, first page", _page(TENANT, lambda _: Filters(gateway="stripe"))),
    Step("list, deep page by cursor", _page(TENANT, lambda _: Filters(), deep=True), first=KEYS),
    Step("filter by reference", _page(TENANT, lambda row: Filters(reference=row["reference"])), first=KEYS),
    Step("filter by contact_id", _page(TENANT, lambda row: Filters(contact_id=row["contact_id"])), first=KEYS),
    Step("one payment by its id", _get, first=KEYS),
    Step("summary of a day, the shop (3 payments)", _summary(SHOP, lambda _: DAY), first=KEYS),
    Step("summary of 31 days, the shop (85)", _summary(SHOP, lambda _: MONTH), first=KEYS),
    Step("summary of 1,000 payments", _summary(TENANT, _thousand), first=KEYS),
    Step("callback, through the public application", _callback),
    Step("report of a payment absorbed", _absorb),
    Step("claim of 16 due attempts", _claim_attempts, _attempts_due, each=4, first=4),
    Step("claim of 16 due events", _claim_events, _events_due, each=4, first=4),
    Step("events pulled, 100 after a cursor", _pull(Wanted(), lambda row: 3 * int(row["number"])), first=KEYS),
    Step("events pulled, nothing new", _pull(Wanted(), lambda _: 10**17)),
    Step("failed events, first page", _pull(Wanted(state="failed"), lambda _: 0), each=3, first=3),
    Step("events of the shop, first page", _pull(Wanted(client_id=SHOP), lambda _: 0), each=3, first=3),
    Step("create-link under a key, internal application", _create_link),
    Step("expire_due, nothing due", _housekeeping(payments.expire_due)),
    Step("the look for expired links, 16 due", _over),
    Step("forget_retired, nothing old", _housekeeping(accounts.forget_retired)),
    Step("forget_old keys, nothing old", _housekeeping(idempotency.forget_old)),
    Step("sweeps.enlist, nobody new (1,000 tenants)", _housekeeping(sweeps.enlist)),
)
