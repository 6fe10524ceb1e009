"""InnBucks (Zimbabwe): a code that the customer pays in InnBucks' app or by USSD, and look-ups of it.

Sources: InnBucks' merchant API documents [A], what integrations of it have seen [B], [C] weak, [?] contradictory.
Statuses: `innbucks_wire.STATUSES`. InnBucks reports nothing by itself: a look-up is the only confirmation. It gives
nothing back by itself either: a refund is done by hand.

A code is proof of one payment because of how it begins: it is stored, and shown, only after InnBucks' own answer had
named it together with exactly our amount, and nobody can pay a code who was not shown it. An attempt without a code was
therefore never payable.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import uuid4

from payments_service.errors import (
    Ambiguous,
    GatewayError,
    NotConfigured,
    Refused,
    Unreachable,
    Untrusted,
)
from payments_service.gateways.base import FieldSets, Method, Opened, ShowCode, Started, StartRequest, Verification
from payments_service.gateways.innbucks_session import Answered, Call, InnbucksApi, InnbucksCredentials, not_accepted
from payments_service.gateways.innbucks_wire import Answer, narration
from payments_service.gateways.transport import Transport
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money

GENERATE = "/api/code/generate"
# Newer documents say the first, older ones the second [?].
INQUIRY = "/api/code/inquiry"
QUERY = "/api/code/query"
# About so long a code lives where its `timeToLive` is not known [B].
CODE_LIFE = timedelta(minutes=10)

INNBUCKS = Method("innbucks", "InnBucks", ShowCode)

_FIELDS = ("innbucks_username", "innbucks_password", "innbucks_api_key")
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
# Code, InnBucks' number of the approval, our reference.
_KEPT = re.compile(r"(([0-9]{4,12})-[0-9]{1,20}) (.+)", re.ASCII)


class Innbucks:
    """The adapter. Holds the base URL, the transport and tenants' tokens, for minutes, and nothing else of theirs."""

    name: ClassVar[str] = "innbucks"
    title: ClassVar[str] = "InnBucks"
    settings: ClassVar[tuple[str, ...]] = _FIELDS
    preferences: ClassVar[tuple[str, ...]] = ()
    configured_by: ClassVar[Mapping[str, FieldSets]] = {"innbucks_configured": (_FIELDS,)}
    methods: ClassVar[tuple[Method, ...]] = (INNBUCKS,)
    currencies: ClassVar[frozenset[Currency]] = frozenset({Currency.USD})
    # Every 20 s while the code lives, as InnBucks asks for [B], every minute to the hour, then as at Paynow.
    schedule: ClassVar[tuple[int, ...]] = (
        *(20,) * 30,
        *(60,) * 50,
        *(300,) * 60,
        *(1800,) * 36,
        *(10800,) * 48,
        43200,
    )
    settles: ClassVar[timedelta] = timedelta(seconds=30)
    # The digits of a code come round again.
    recognises: ClassVar[timedelta | None] = timedelta(hours=2)
    # A code that we saw expire and that was paid all the same must not vanish.
    looks_after_end: ClassVar[tuple[timedelta, ...]] = (
        timedelta(minutes=12),
        timedelta(minutes=20),
        timedelta(hours=1),
    )

    # Signing in (4 s) comes on top of the first two. A start stays below 28 s: one that takes 30 is taken for cut off.
    start_seconds: ClassVar[float] = 20.0
    check_seconds: ClassVar[float] = 10.0
    life_seconds: ClassVar[float] = 3.0

    def __init__(
        self,
        transport: Transport,
        base_url: str | None,
        inquiry_path: str,
        app_link: str,
        dial: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base = base_url
        self._api = InnbucksApi(transport, base_url or "", monotonic)
        # The one that is asked first, and the one that is tried where there is nothing at the first.
        self._inquiry_paths = (inquiry_path, QUERY if inquiry_path == INQUIRY else INQUIRY)
        self._app_link = app_link
        self._dial = dial

    def credentials(self, values: Mapping[str, str | None], currency: Currency) -> InnbucksCredentials:
        """The account's; NotConfigured names what is missing."""
        if currency not in self.currencies:
            raise NotConfigured(f"InnBucks takes USD, not {currency}.")
        if missing := [name for name in _FIELDS if not values.get(name)]:
            raise NotConfigured(f"InnBucks is not set up: save {', '.join(missing)} in payment-settings.")
        username, password, api_key = (values.get(name) or "" for name in _FIELDS)
        if _UNPRINTABLE.search(api_key):
            raise NotConfigured("InnBucks is not set up: the saved innbucks_api_key is no key of InnBucks'.")
        if not self._base:
            raise NotConfigured(
                "InnBucks is not set up in this service: INNBUCKS_URL is not set to the address that InnBucks issued."
            )
        return InnbucksCredentials(username, password, api_key)

    def page_origins(self) -> tuple[str, ...]:
        """None: the customer stays on our own page."""
        return ()

    def offered(self, credentials: InnbucksCredentials, payer_email: str | None, amount: Money) -> tuple[Method, ...]:
        return self.methods

    async def start(self, credentials: InnbucksCredentials, request: StartRequest) -> Started:
        """Have a code made. Sent once: another try could make a second live one. (After a 401, a sure no, it is sent
        once more.)"""
        body: dict[str, str | int] = {
            "reference": request.reference,
            "narration": narration(request.description, request.reference),
            "amount": request.amount.minor,
            "type": "PAYMENT",
        }
        answer = _approved(await self._api.send(credentials, Call("generate", GENERATE, body, self.start_seconds)))
        code = answer.new_code
        if code is None:
            raise Untrusted("innbucks.generate: approved, but without a code that can be shown")
        if answer.cents != request.amount.minor:
            raise Untrusted("innbucks.generate: the code is for another amount, or the answer does not say for which")
        made = datetime.now(UTC)
        reference = f"{code}-{answer.mark or f'{made:%Y%m%d}'}"
        ends = made + await self._life(credentials, code)
        step = ShowCode(code, ends, self._app_link.replace("{code}", code), self._dial)
        return Started(step, f"{reference} {request.reference}", reference)

    async def _life(self, credentials: InnbucksCredentials, code: str) -> timedelta:
        """How long the new code can be paid. Asked once and shortly: a customer waits, and the usual life will do.

        A code that was paid before anybody saw it is an old one come round again: Untrusted, for its payment would be
        taken for this one's.
        """
        try:
            async with asyncio.timeout(self.life_seconds):
                answer = _told(await self._inquire(credentials, code, self.life_seconds))
        except (GatewayError, TimeoutError):
            return CODE_LIFE
        if answer.code_told not in (None, code):
            return CODE_LIFE
        if answer.outcome is Outcome.PAID:
            raise Untrusted("innbucks.generate: the new code is paid already, so it is none")
        return CODE_LIFE if answer.life is None else answer.life

    async def check(self, credentials: InnbucksCredentials, attempt: Opened) -> Report:
        """Look the code up. Without one (InnBucks' answer was lost) nobody was shown any: no money can come of it."""
        if attempt.poll_url is None:
            return Report(Outcome.NEVER_STARTED, "no code was shown")
        reference, code = _kept(attempt)
        try:
            answered = await self._inquire(credentials, code, self.check_seconds)
        except Refused as error:
            raise Untrusted(f"innbucks.inquiry: {error.detail}") from error
        return _report(attempt, reference, code, answered.said, _told(answered))

    async def _inquire(self, credentials: InnbucksCredentials, code: str, seconds: float) -> Answered:
        """Ask for the code where look-ups are. Where there is nothing, the other path is tried once; the one that knew
        the code is asked first from then on."""
        path, other = self._inquiry_paths
        first = await self._ask(credentials, path, code, seconds)
        if not _is_elsewhere(first):
            return first
        second = await self._ask(credentials, other, code, seconds)
        if second.outcome:
            self._inquiry_paths = (other, path)
        return first if _is_elsewhere(second) else second

    async def _ask(self, credentials: InnbucksCredentials, path: str, code: str, seconds: float) -> Answered:
        body = {"reference": uuid4().hex, "code": code}
        return await self._api.send(credentials, Call("inquiry", path, body, seconds))

    async def verify(self, credentials: InnbucksCredentials, callback_url: str) -> Verification:
        """Sign in, which changes nothing. `callback_url` is not used: InnBucks reports nothing by itself."""
        mode = "test" if re.search("staging|sandbox", self._base or "", re.IGNORECASE) else None
        try:
            await self._api.sign_in(credentials)
        except Refused as error:
            return Verification(False, mode, [], [error.detail])
        messages = [
            f"InnBucks accepts the username {credentials.username} with its password and API key.",
            "InnBucks gives nothing back by itself: a refund is made by hand and then recorded here.",
        ]
        return Verification(True, mode, [Currency.USD], messages, credentials.username)


def _kept(attempt: Opened) -> tuple[str, str]:
    """The gateway reference and the code of an attempt, of its `poll_url`.

    InnBucks repeats no reference of ours, so what is stored says itself whose code it is. The gateway reference leads
    with the code, which is what InnBucks' statements list. As codes come round again over the years, it goes on with
    InnBucks' number of the approval: one approval that comes back for two payments is told by the same reference.
    """
    found = _KEPT.fullmatch(attempt.poll_url or "")
    if found is None or found[3] != attempt.reference:
        raise Untrusted("innbucks: the code that is stored is not this attempt's")
    return found[1], found[2]


def _approved(answered: Answered) -> Answer:
    """The answer of a code that was made. Refused only where InnBucks itself says no: what is odd may have made one."""
    status, answer = answered.status, answered.answer
    if status == 401:
        raise not_accepted(answered)
    if status == 429:
        raise Unreachable("InnBucks takes no more requests at the moment; try again in a few seconds.")
    if status >= 400:
        if status >= 500 or status == 408 or answer is None or answer.new_code:
            raise Ambiguous(f"innbucks.generate: answered with HTTP {status}")
        raise Refused(f"InnBucks says: {answered.words or f'HTTP {status}'}")
    if answer and answer.approves:
        return answer
    if answer is None or answer.new_code or not (answer.declines and answered.words):
        raise Untrusted("innbucks.generate: the answer is not what InnBucks answers")
    raise Refused(f"InnBucks says: {answered.words}")


def _is_elsewhere(answered: Answered) -> bool:
    """Whether look-ups seem to have another path."""
    return answered.status in (404, 405) and answered.outcome is None


def _told(answered: Answered) -> Answer:
    """The answer of a look-up, if it tells of a code.

    A code that is over is often told with another response code, or with an HTTP 4xx: a status that we know counts all
    the same [B]. A no without one is another account's code, or a question that was not understood: not trusted, so
    that the account before is asked, where the tenant has changed it.
    """
    status, answer = answered.status, answered.answer
    if status >= 500 or status in (408, 429):
        raise Ambiguous(f"innbucks.inquiry: answered with HTTP {status}")
    if answer is None or status == 401:
        raise Untrusted(f"innbucks.inquiry: answered with HTTP {status}, and nothing that InnBucks answers")
    if not answer.outcome and (status >= 400 or (answer.declines and not answered.said)):
        raise Untrusted(f"innbucks.inquiry: nothing is told of this code ({answered.words or f'HTTP {status}'})")
    return answer


def _report(attempt: Opened, reference: str, code: str, said: str, answer: Answer) -> Report:
    """What the answer says of the attempt.

    Answers about a code that is over may leave its amount out [B]. Then it is the one that it was made for: InnBucks
    named it when it made the code, and a code cannot be paid with another. An amount that is there must be ours.
    """
    outcome, told = answer.outcome or Outcome.UNKNOWN, answer.code_told
    amount = None if answer.cents is None else Money(answer.cents, Currency.USD)
    if told not in (None, code):
        if outcome is Outcome.PAID:
            # Money, though not this attempt's: for a person to see.
            return Report(outcome, said, amount, reference=answer.new_code or "")
        raise Untrusted("innbucks.inquiry: the answer is about another code")
    if outcome is Outcome.PAID and answer.amount is None:
        amount = attempt.amount
    return Report(outcome, said, amount, gateway_reference=reference)
