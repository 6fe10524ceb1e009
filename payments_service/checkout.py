"""What a customer does on the hosted page: chooses a way to pay and starts it, types a one-time password.

Every form that the page shows names the tries that it knows of, so that a double tap, a reload or an old tab starts
nothing more: it is answered by the state as it is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from psycopg.errors import UniqueViolation

from payments_service import accounts
from payments_service.attempts import INSERT_ATTEMPT, new_attempt, start, step_of
from payments_service.context import Context
from payments_service.db import Row
from payments_service.endings import CODE_LIFE, PROMPT_LIFE
from payments_service.errors import (
    Ambiguous,
    GatewayError,
    Invalid,
    NotAccepted,
    NotConfigured,
    NotFound,
    Refused,
    TooMany,
    Unreachable,
    Unreadable,
    Unsettled,
    Untrusted,
)
from payments_service.gateways.base import (
    ApproveOnPhone,
    EnterOtp,
    NextStep,
    Opened,
    Redirect,
    ShowCode,
    TakesOtp,
    Wait,
    Withdraws,
)
from payments_service.lifecycle import PAYABLE, Status
from payments_service.money import Currency
from payments_service.phones import parse_mobile
from payments_service.reconcile import look_at_left, look_soon, look_within
from payments_service.records import PAYMENT_COLUMNS, money_of
from payments_service.ways import Way, not_configured, wallet_in, way_called, ways_of

log = structlog.get_logger(__name__)

# Of one payment: enough for a person who is unlucky, too few to pester strangers' phones with prompts.
TRIES = 8
TRIES_WITHIN = timedelta(minutes=15)
TRIES_A_DAY = 24
# Gateways cancel the payment after the fifth wrong one-time password (Paynow's protocol notes, section 3).
OTP_TRIES = 5
# After a password whose answer was lost: a try that is still unpaid this long after it was not paid by it.
OTP_SETTLES = timedelta(seconds=30)
# A try of which the gateway tells nothing for this long may be replaced: whatever it started has run out.
STUCK = timedelta(minutes=10)
# So long the page warns of a request that may still be on a phone.
NOTICE_LIFE = timedelta(minutes=5)
# A gateway's page that ends so soon is not sent to any more.
PAGE_MARGIN = timedelta(minutes=2)
# No page that a gateway can end lives longer, also where its end was lost with the answer that named it.
PAGE_LIFE = timedelta(days=1)
# How long a customer waits for the last look at one way before another is started.
LOOK_PATIENCE = 8.0
# Taps within so little time share one look.
LOOK_SHARED = timedelta(seconds=0.9)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the page's form says. `way` None: the one that is open, else one that needs nothing more of the customer.
    `after`: how many tries the page knew of; None where it was not asked."""

    way: str | None = None
    phone: str | None = None
    after: int | None = None


# The payment with its open try, else its newest; of one that is paid, the try that brought the money. `prompts` are the
# requests that may still be on phones.
_READ = f"""
SELECT {PAYMENT_COLUMNS}, s.display_name, s.whatsapp_number, a.id AS attempt_id, a.gateway AS attempt_gateway,
    a.method AS attempt_method, a.phone AS attempt_phone, a.state AS attempt_state, a.reference AS attempt_reference,
    a.poll_url AS attempt_poll_url, a.redirect_url AS attempt_redirect_url, a.next_step AS attempt_next_step,
    a.started_at AS attempt_started_at, a.answered_at AS attempt_answered_at, t.*
FROM payments p
LEFT JOIN payment_settings s ON s.client_id = p.client_id
LEFT JOIN LATERAL (
    SELECT * FROM attempts WHERE payment_id = p.id
    ORDER BY state = 'paid' DESC, state IN ('starting', 'live') DESC, started_at DESC, id DESC LIMIT 1
) AS a ON true
CROSS JOIN LATERAL (
    SELECT count(*) AS tries, count(*) FILTER (WHERE started_at > %(lately)s) AS lately,
        count(*) FILTER (WHERE started_at > %(today)s) AS today,
        count(*) FILTER (WHERE started_at > %(prompted)s AND phone IS NOT NULL AND state IN ('live', 'replaced')
                         AND next_step ->> 'type' IS DISTINCT FROM 'show_code'
                         AND next_step ->> 'type' IS DISTINCT FROM 'enter_otp') AS prompts
    FROM attempts WHERE payment_id = p.id
) AS t
WHERE p.page_token = %(token)s"""


async def read(context: Context, page_token: str) -> Row:
    """The payment of a page, with its open or newest try. Raises NotFound."""
    at = context.clock()
    values = {"lately": at - TRIES_WITHIN, "today": at - timedelta(days=1), "prompted": at - NOTICE_LIFE}
    rows = await context.db.run(_READ, {"token": page_token, **values})
    if not rows:
        raise NotFound("There is no such payment page.")
    return rows[0]


def tried_key(row: Row) -> str:
    """The key of the way that was tried; of none, where nothing was."""
    return f"{row['attempt_gateway']}.{row['attempt_method']}"


def is_payable(context: Context, row: Row) -> bool:
    """Whether the customer may pay, or try again."""
    return Status(row["status"]) in PAYABLE and context.clock() < row["expires_at"]


def is_starting(row: Row, now: datetime) -> bool:
    """Whether a try is on its way to the gateway, or its answer was lost only lately."""
    return bool(row["attempt_state"] == "starting" and now - row["attempt_started_at"] < STUCK)


def is_over(row: Row, step: NextStep, now: datetime) -> bool:
    """Whether the open try's step can hardly be taken any more, so that the customer should choose again."""
    fresh = now - row["attempt_started_at"] <= PROMPT_LIFE
    match step:
        case ShowCode(expires_at=expires_at):
            # The gateway's clock may be another.
            return not fresh and expires_at is not None and now >= expires_at
        case EnterOtp(tries=tries):
            return tries >= OTP_TRIES and not is_awaiting(row, step)
        case ApproveOnPhone():
            return not fresh
        case Wait():
            return False
        case Redirect(expires_at=expires_at):
            # Who is sent there needs some time to pay.
            return expires_at is not None and now >= expires_at - PAGE_MARGIN


def is_awaiting(row: Row, step: EnterOtp) -> bool:
    """Whether a password was passed on and may yet turn out to be taken."""
    since, answered_at = step.awaiting_since, row["attempt_answered_at"]
    return since is not None and (answered_at is None or answered_at < since + OTP_SETTLES)


async def pay(context: Context, page_token: str, choice: Choice = Choice()) -> NextStep | None:
    """The customer wants to pay on the hosted page: what comes next, or None when there is nothing to start now
    (over already, another request is just starting it, or the form is older than the last try).

    A try that can still be paid in the same way is used again: a double tap or a reload starts only one. Another way
    is started once the gateway has said that the one before is not paid. Raises NotFound, Invalid for the fields `way`
    and `phone`, Unsettled, TooMany, and what `links.create_link` raises.
    """
    row = await read(context, page_token)
    if not is_payable(context, row) or is_starting(row, context.clock()):
        return None
    if step := _asked_for(context, row, choice):
        await look_soon(context, row["id"])
        return None if isinstance(step, Wait) else step
    way = _chosen(await ways_of(context, row), choice, row["currency"])
    phone = _phone(choice) if way.method.needs_phone else _phone_if_good(choice)
    if choice.after not in (None, row["tries"]):
        return None
    return await _begin(context, row, way, phone)


def _asked_for(context: Context, row: Row, choice: Choice) -> NextStep | None:
    """The open try's next step, if it can still be taken and is what the form asks for."""
    step = step_of(context, row)
    if isinstance(step, Wait):
        return step
    if step is None or is_over(row, step, context.clock()):
        return None
    if choice.way is None:
        return step
    # By whichever gateway: another may have stood in.
    if wallet_in(choice.way) != row["attempt_method"]:
        return None
    # Who was not asked for a number wants no other.
    same = row["attempt_phone"] is None or not (choice.phone or "").strip() or row["attempt_phone"] == _phone(choice)
    return step if same else None


def _chosen(ways: list[Way], choice: Choice, currency: str) -> Way:
    """The way that the form names. Without a name: the first that asks for nothing more."""
    if not ways:
        raise not_configured(currency)
    if choice.way is None:
        return next((way for way in ways if not way.method.needs_phone), ways[0])
    if way := way_called(ways, choice.way):
        return way
    raise Invalid([("way", "is not a way to pay this")])


def _phone(choice: Choice) -> str:
    if not (choice.phone or "").strip():
        raise Invalid([("phone", "is needed for this way to pay")])
    try:
        return parse_mobile(choice.phone or "")
    except ValueError as error:
        raise Invalid([("phone", str(error))]) from None


def _phone_if_good(choice: Choice) -> str | None:
    """Of a way that needs none: perhaps one that stands in for it does."""
    with suppress(Invalid):
        return _phone(choice)
    return None


async def _left_unpaid(context: Context, row: Row) -> Row | None:
    """The payment once its open try is unpaid by the gateway's own word of this moment, and ended where the gateway can
    end it; None when it was paid after all, or somebody else was faster.

    Raises Unsettled when the gateway does not say, or says that the try may still bring money and cannot be ended.
    """
    ends_it = isinstance(context.gateways.get(row["attempt_gateway"]), Withdraws)
    asked_at, ends = context.clock(), asyncio.get_running_loop().time() + LOOK_PATIENCE
    while True:
        # Not asked: somebody else asks at this very moment, another tap or a worker; their answer will do.
        asked = await look_within(context, row["id"], LOOK_PATIENCE, gap=LOOK_SHARED, withdraw=True)
        now = await read(context, row["page_token"])
        if not is_payable(context, now) or now["tries"] != row["tries"]:
            return None
        answered = now["attempt_answered_at"] is not None and now["attempt_answered_at"] >= asked_at
        if now["attempt_state"] not in ("starting", "live") or (answered and not ends_it):
            return now
        if asked or asyncio.get_running_loop().time() >= ends:
            break
        await asyncio.sleep(LOOK_SHARED.total_seconds() / 3)
    if answered or not _has_run_out(now, step_of(context, now), asked_at, ends_it=ends_it):
        raise Unsettled("The gateway does not say what became of the try before; no other is started meanwhile.")
    return now


def _has_run_out(row: Row, step: NextStep | None, at: datetime, *, ends_it: bool) -> bool:
    """Whether the open try, of which its gateway tells nothing, can bring no money any more. A page with an end of its
    own lives until then; nobody knows the address of one whose creation was not answered."""
    if isinstance(step, Redirect) and ends_it:
        return bool(at >= (step.expires_at or row["attempt_started_at"] + PAGE_LIFE) + PAGE_MARGIN)
    return bool(at - (row["attempt_answered_at"] or row["attempt_started_at"]) >= STUCK)


async def _begin(context: Context, row: Row, way: Way, phone: str | None) -> NextStep | None:
    """Start the way, once no try before it has brought the money; where it surely is not started, the same wallet
    through another gateway, after another look."""
    # Before anything that is open is ended for it.
    if row["lately"] >= TRIES or row["today"] >= TRIES_A_DAY:
        raise TooMany("This payment was tried many times already.", int(TRIES_WITHIN.total_seconds()) // 3)
    left = await _unpaid_so_far(context, row)
    if left is None:
        return None
    try:
        return await _start(context, left, way, phone if way.method.needs_phone else None)
    except (Refused, Unreachable) as error:
        stand_in = way.stand_in(error, phone=phone)
        if stand_in is None:
            raise
        log.warning("another_gateway_stands_in", payment_id=row["id"], before=way.key, after=stand_in.key)
        return await _begin(context, await read(context, row["page_token"]), stand_in, phone)


async def _unpaid_so_far(context: Context, row: Row) -> Row | None:
    """The payment once neither its open try nor those before it, as far as they may still be paid, have brought the
    money; None when one has, or somebody else was faster. Raises Unsettled."""
    if not is_payable(context, row):
        return None
    left = await _left_unpaid(context, row) if row["attempt_state"] in ("starting", "live") else row
    if left is None:
        return None
    since = context.clock() - CODE_LIFE
    await look_at_left(context, row["id"], LOOK_PATIENCE, gap=LOOK_SHARED, since=since)
    now = await read(context, row["page_token"])
    return now if is_payable(context, now) and now["tries"] == row["tries"] else None


async def _start(context: Context, row: Row, way: Way, phone: str | None) -> NextStep | None:
    """Record a new try in the place of the one before, and start it."""
    credentials = await accounts.credentials(context, row["client_id"], way.gateway, Currency(row["currency"]))
    at = context.clock()
    attempt = new_attempt(row, way.gateway, way.method, at, number=row["tries"] + 1, phone=phone)
    before = row["attempt_id"] if row["attempt_state"] in ("starting", "live") else None
    try:
        if not await context.db.run(_REPLACE, {**row, **attempt, "replaced": before}):
            return None
    except UniqueViolation:
        return None
    try:
        await start(context, row, attempt, credentials)
    except (Refused, Unreachable):
        # Nothing has taken its place after all.
        with suppress(UniqueViolation):
            await context.db.run(_RESTORE, {"id": before})
        raise
    return step_of(context, await read(context, row["page_token"]))


# Nothing is started for what was paid, withdrawn or closed in the meantime, nor for a tenant that was deleted. Of two
# requests that saw the same tries the unique number lets one through. Money may still come by the old try, so it stays
# watched.
_REPLACE = f"""
WITH payable AS (
    SELECT FROM payments p JOIN payment_settings s ON s.client_id = p.client_id
    WHERE p.id = %(id)s::uuid AND p.status IN ('pending', 'failed') AND p.expires_at > %(at)s::timestamptz
    FOR UPDATE OF p FOR KEY SHARE OF s
), old AS (
    UPDATE attempts SET state = 'replaced'
    WHERE id = %(replaced)s::uuid AND state IN ('starting', 'live') AND EXISTS (SELECT FROM payable) RETURNING 1
)
{INSERT_ATTEMPT} FROM payable WHERE %(replaced)s::uuid IS NULL OR EXISTS (SELECT FROM old)
RETURNING id"""

_RESTORE = "UPDATE attempts SET state = 'live' WHERE id = %(id)s::uuid AND state = 'replaced'"


async def enter_otp(context: Context, page_token: str, otp: str, *, tries: int) -> None:
    """The customer typed the one-time password. `tries`: how many were passed on before, as the page knew.

    Each is passed on once: a double tap finds its try used. Raises NotFound, Invalid for the field `otp`, NotAccepted
    when the gateway did not take it, Unreachable, Ambiguous, Untrusted, NotConfigured and Unreadable.
    """
    row = await read(context, page_token)
    step = step_of(context, row)
    if not is_payable(context, row) or not isinstance(step, EnterOtp):
        return
    if is_over(row, step, context.clock()) or step.tries != tries:
        return
    digits = "".join(otp.split())
    if not (digits.isascii() and digits.isdecimal() and 4 <= len(digits) <= 10):
        raise Invalid([("otp", "must be the digits of the SMS")])
    taken = {"id": row["attempt_id"], "tries": tries, "at": context.clock(), "settles": OTP_SETTLES}
    if not await context.db.run(_TAKE_TRY, taken):
        return
    await _confirm(context, row, step, digits)
    await look_within(context, row["id"], LOOK_PATIENCE, gap=timedelta())


# While an answer is awaited no other password is asked for; nor once the payment was paid, withdrawn or closed.
_TAKE_TRY = """
UPDATE attempts a
SET next_step = next_step || jsonb_build_object('tries', %(tries)s::integer + 1, 'awaiting_since', %(at)s::timestamptz)
FROM payments p
WHERE a.id = %(id)s AND a.state = 'live' AND (a.next_step ->> 'tries')::integer = %(tries)s
  AND (a.next_step ->> 'awaiting_since' IS NULL
       OR (a.next_step ->> 'awaiting_since')::timestamptz <= a.answered_at - %(settles)s::interval)
  AND p.id = a.payment_id AND p.status IN ('pending', 'failed') AND p.expires_at > %(at)s::timestamptz
RETURNING 1"""

_ASK_AGAIN = """
UPDATE attempts SET next_step = next_step || jsonb_build_object('tries', %(tries)s::integer, 'awaiting_since', NULL)
WHERE id = %(id)s"""


async def _confirm(context: Context, row: Row, step: EnterOtp, otp: str) -> None:
    """Pass the password on; after a sure no, ask for another. Of a lost answer only a look-up can tell."""
    gateway, currency = context.gateways[row["attempt_gateway"]], Currency(row["currency"])
    assert isinstance(gateway, TakesOtp), "a gateway that asks for a one-time password takes it too"
    attempt = Opened(
        attempt_id=row["attempt_id"],
        reference=row["attempt_reference"],
        amount=money_of(row),
        poll_url=row["attempt_poll_url"],
        started_at=row["attempt_started_at"],
        payer_phone=row["attempt_phone"],
    )
    try:
        credentials = await accounts.credentials(context, row["client_id"], row["attempt_gateway"], currency)
        await gateway.confirm(credentials, attempt, step.url, otp)
    except (GatewayError, NotConfigured, Unreadable) as error:
        if not isinstance(error, Ambiguous | Untrusted):
            # What never left does not count.
            used = step.tries + 1 if isinstance(error, NotAccepted) else step.tries
            await context.db.run(_ASK_AGAIN, {"id": row["attempt_id"], "tries": used})
        await look_soon(context, row["id"])
        raise
