"""What the simulated Stripe knows, without HTTP: accounts, Checkout Sessions, events, faults, switches."""

from __future__ import annotations

import heapq
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from payments_service.sandbox import stripe_faults, stripe_objects, stripe_profiles
from payments_service.sandbox.faults import Fault, Faults
from payments_service.sandbox.hands import UnknownReference
from payments_service.sandbox.lifetime import Lifetime
from payments_service.sandbox.outbound import KEPT
from payments_service.sandbox.stripe_accounts import Account, Endpoint, Event, Object, new_id
from payments_service.sandbox.stripe_checks import check_session
from payments_service.sandbox.stripe_faults import Kind
from payments_service.sandbox.stripe_webhooks import Delivery, Webhooks, encode, signature
from payments_service.sandbox.ticker import Ticker

SECRET_OVERLAP_SECONDS = 24 * 3600  # how long a rolled secret goes on signing


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came: `params` nested, every value still text; `headers` are those of interest only."""

    operation: str
    account: str
    key: str = field(repr=False)
    method: str
    path: str
    params: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)


class StripeLedger(Lifetime):
    """The state of one simulated Stripe.

    `public_url` is where browsers find the hosted page, such as `http://127.0.0.1:8082`; it may be set once the
    port is known. `clock` gives Unix seconds; sessions expire by it. `delay_seconds` holds every answer back.
    `refund_status` is what refunds made by the API become: succeeded, pending or failed. `add_fault` plans one (see
    `stripe_faults.plan`), `clear_faults` forgets them. Actions need a running loop, for webhooks are posted in its
    background. Close it, or use it as `async with`.
    """

    def __init__(self, public_url: str = "", *, webhooks: Webhooks | None = None) -> None:
        self.public_url = public_url
        self.accounts: dict[str, Account] = {}
        self.expired_keys: set[str] = set()
        self.clock: Callable[[], float] = time.time
        self.webhooks = webhooks or Webhooks()
        self.webhooks.clock = lambda: self.clock()
        self.faults = Faults(stripe_faults.plan)
        self.add_fault, self.clear_faults = self.faults.add, self.faults.forget
        self.calls: Counter[str] = Counter()
        self.requests: deque[Seen] = deque(maxlen=KEPT)
        self.delay_seconds = 0.0
        self.refund_status = "succeeded"
        self._owners: dict[str, Account] = {}
        self._by_reference: dict[str, str] = {}
        self._intent_data: dict[str, Object] = {}
        self._due: list[tuple[int, str]] = []
        self._ticker = Ticker(self.expire_due)

    def start(self) -> None:
        """From now on sessions expire in time even while nobody asks for them."""
        self._ticker.start()

    async def close(self) -> None:
        """Drop the deliveries that are under way, and the connections."""
        await self._ticker.stop()
        await self.webhooks.close()

    async def settled(self) -> None:
        """Wait until no webhook is under way, resends included."""
        await self.webhooks.settled()

    @property
    def deliveries(self) -> deque[Delivery]:
        """Every try of a webhook, oldest first."""
        return self.webhooks.deliveries

    @property
    def drop_webhooks(self) -> bool:
        """Whether webhooks are swallowed; they count as failed then."""
        return self.webhooks.drop

    @drop_webhooks.setter
    def drop_webhooks(self, drop: bool) -> None:
        self.webhooks.drop = drop

    @property
    def now(self) -> int:
        """Unix seconds by `clock`."""
        return int(self.clock())

    # --- accounts

    def add_account(
        self,
        key: str,
        *,
        id: str | None = None,  # noqa: A002 - the protocol's word
        country: str = "US",
        charges_enabled: bool = True,
        may: Iterable[str] | None = None,
        display_name: str = "Sandbox",
    ) -> Account:
        """Make an account known by its secret key. `may`: the operations of a restricted key.

        Another key for an `id` that is known already, in the same mode, opens the same account: all objects,
        events, endpoints and idempotency keys are shared.
        """
        allowed = None if may is None else frozenset(may)
        account = Account(
            key, id or new_id("acct", 8), country, display_name, charges_enabled, allowed, created=self.now
        )
        for other in self.accounts.values():
            if (other.id, other.livemode) == (account.id, account.livemode):
                account = replace(other, key=key, may=allowed, charges_enabled=charges_enabled)
        self.accounts[key] = account
        self.expired_keys.discard(key)
        return account

    def expire_key(self, key: str) -> None:
        """The owner rolled the key: requests with it are answered 401 api_key_expired from now on."""
        self.accounts.pop(key)
        self.expired_keys.add(key)

    def add_endpoint(self, account: Account, url: str, enabled_events: Iterable[str] = ("*",)) -> Endpoint:
        """A webhook endpoint as by the dashboard; its `secret` signs."""
        params: Object = {"url": url, "enabled_events": list(enabled_events)}
        return self.make_endpoint(account, params)

    def make_endpoint(self, account: Account, params: Object) -> Endpoint:
        endpoint = Endpoint(
            stripe_profiles.webhook_endpoint(account, params, self.now), [(new_id("whsec", 16), math.inf)]
        )
        account.endpoints[endpoint.id] = endpoint
        return endpoint

    def roll_secret(self, endpoint: Endpoint) -> str:
        """A new signing secret; for another 24 hours the old ones sign too, one `v1` each."""
        end = self.clock() + SECRET_OVERLAP_SECONDS
        kept = [(secret, min(until, end)) for secret, until in endpoint.secrets]
        endpoint.secrets = [(new_id("whsec", 16), math.inf), *kept]
        return endpoint.secret

    # --- Checkout Sessions

    def create_session(self, account: Account, params: Object) -> Object:
        """An open session for checked parameters; ApiError tells what amount, currency or time cannot be."""
        check_session(account, params, self.now)
        lines = [stripe_objects.line_item(account, item, self.now) for item in params["line_items"]]
        checkout = stripe_objects.session(account, params, self.now, f"{self.public_url}/c/pay/", lines)
        account.put(checkout)
        account.line_items[checkout["id"]] = lines
        self._owners[checkout["id"]] = account
        self._intent_data[checkout["id"]] = params.get("payment_intent_data", {})
        if checkout["client_reference_id"]:
            self._by_reference[checkout["client_reference_id"]] = checkout["id"]
        heapq.heappush(self._due, (checkout["expires_at"], checkout["id"]))
        return checkout

    def session(self, reference: str) -> Object:
        """The session itself: see `find`."""
        return self.find(reference)[1]

    def find(self, reference: str) -> tuple[Account, Object]:
        """The session with this id; else the newest with this client_reference_id, or one led by it and a `-`.

        Raises UnknownReference.
        """
        self.expire_due()
        identifier = reference if reference in self._owners else self._by_reference.get(reference)
        if identifier is None:
            led = (own for name, own in reversed(self._by_reference.items()) if name.startswith(f"{reference}-"))
            identifier = next(led, None)
        if identifier is None:
            raise UnknownReference(f"no session has the reference or id {reference!r}, nor one led by it and a '-'")
        account = self._owners[identifier]
        return account, account.objects["checkout.session"][identifier]

    def sessions(self) -> list[tuple[Account, Object]]:
        """Every session with its account, oldest first."""
        self.expire_due()
        return [(owner, owner.objects["checkout.session"][own]) for own, owner in self._owners.items()]

    def expire_due(self) -> None:
        """Let the sessions expire whose `expires_at` has come. Every request and every action does so first."""
        while self._due and self._due[0][0] <= self.clock():
            _, identifier = heapq.heappop(self._due)
            account = self._owners[identifier]
            checkout = account.objects["checkout.session"][identifier]
            if checkout["status"] == "open":
                self.end_session(account, checkout)

    def end_session(
        self, account: Account, checkout: Object, cause: Object | None = None, *, send: bool = True
    ) -> None:
        """An open session expires, and the intent of a try that was declined is cancelled with it."""
        checkout.update(status="expired", url=None)
        if checkout["payment_intent"]:
            intent = account.get("payment_intent", checkout["payment_intent"])
            intent.update(status="canceled", canceled_at=self.now, cancellation_reason="automatic")
            self.emit(account, "payment_intent.canceled", intent, cause=cause, send=send)
        self.emit(account, "checkout.session.expired", checkout, cause=cause, send=send)

    # --- events

    def emit(
        self,
        account: Account,
        kind: str,
        thing: Object,
        *,
        cause: Object | None = None,
        previous: Object | None = None,
        send: bool = True,
    ) -> Event:
        """Record that this happened to `thing`, and tell the endpoints; without `send` they are left owed."""
        event = Event(stripe_profiles.event(account, kind, thing, self.now, cause, previous))
        account.events[event.object["id"]] = event
        self.webhooks.announce(account, event, send=send)
        return event

    def event_for(self, reference: str, kind: str) -> Object:
        """The newest event of this type about the payment; if there is none, one about its present state.

        Such a made-up event is on no record of the account. UnknownReference: nothing there to tell of.
        """
        account, checkout = self.find(reference)
        things = [checkout, *self.belongings(account, checkout)]
        names = {thing["id"] for thing in things}
        for event in reversed(account.events.values()):
            if event.object["type"] == kind and event.object["data"]["object"]["id"] in names:
                return event.shown()
        about = stripe_profiles.subject(kind)
        for thing in reversed(things):
            if thing["object"] == about:
                return stripe_profiles.event(account, kind, thing, self.now, None, None)
        raise UnknownReference(f"{reference} has no {about} that {kind} could tell of")

    def belongings(self, account: Account, checkout: Object) -> list[Object]:
        """The payment's intent, charges, refunds and disputes, oldest first within each kind."""
        intent_id = checkout["payment_intent"]
        if intent_id is None:
            return []
        found = [account.get("payment_intent", intent_id)]
        for kind in ("charge", "refund", "dispute"):
            found += reversed(list(account.all(kind, payment_intent=intent_id)))
        return found

    def signed(self, event: Object, secret: str, t: int | None = None) -> tuple[bytes, str]:
        """The body and the `Stripe-Signature` of a webhook with this event; `t` is Unix seconds, now by default."""
        body = encode(event)
        return body, signature(body, [secret], self.now if t is None else t)

    def use_fault(self, account: Account, operation: str) -> Fault[Kind] | None:
        """The first planned fault that wants this request, counted as used once more."""
        return next(self.faults.striking(operation, lambda name: name in (account.id, account.key)), None)
