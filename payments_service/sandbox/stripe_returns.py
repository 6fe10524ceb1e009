"""Refunds and disputes at the simulated Stripe, by the API, by the dashboard and by the banks."""

from __future__ import annotations

from payments_service.sandbox import stripe_reversals
from payments_service.sandbox.hands import UnknownReference, WrongMove
from payments_service.sandbox.stripe_accounts import Account, Object, new_id
from payments_service.sandbox.stripe_catalog import money
from payments_service.sandbox.stripe_errors import ApiError, missing, refused
from payments_service.sandbox.stripe_moves import StripeMoves

# Where a refund may go from each status: https://docs.stripe.com/refunds#failed-refunds.
REFUND_MOVES = {
    "pending": ("succeeded", "failed", "canceled"),
    "requires_action": ("succeeded", "failed", "canceled"),
    "succeeded": ("failed",),
}
_GONE = ("failed", "canceled")  # the money is back with the merchant
_OVER = ("won", "lost", "warning_closed", "prevented")


class StripeReturns(StripeMoves):
    """Money that goes back. See StripeMoves for how payments are named and what is raised."""

    async def refund(
        self, reference: str, amount: int | None = None, status: str = "succeeded", *, send: bool = True
    ) -> Object:
        """The merchant refunds in the dashboard, without our metadata; all that is left by default (minor units)."""
        account, charged = self._paid(reference)
        try:
            return self.make_refund(account, charged, amount, status, send=send)
        except ApiError as error:
            raise WrongMove(error.message) from error

    def make_refund(
        self,
        account: Account,
        charged: Object,
        amount: int | None,
        status: str,
        *,
        reason: str | None = None,
        metadata: Object | None = None,
        cause: Object | None = None,
        send: bool = True,
    ) -> Object:
        """A refund of this charge, or ApiError in the API's words. Pending ones count as refunded already."""
        left = self._refundable(account, charged)
        asked = left if amount is None else amount
        if asked > left:
            currency = charged["currency"]
            message = (
                f"Refund amount ({money(asked, currency)}) is greater than unrefunded amount on charge "
                f"({money(left, currency)})"
            )
            raise refused(message, None, "amount")
        made = stripe_reversals.refund(charged, asked, self.now, status, reason, metadata or {})
        account.put(made)
        self.emit(account, "refund.created", made, cause=cause, send=send)
        self._count_refunded(account, charged)
        self.emit(account, "charge.refunded", charged, cause=cause, send=send)
        if status == "failed":
            self._fail_refund(account, made, send)
        return made

    def charge_to_refund(self, account: Account, params: Object) -> Object:
        """The charge that refunds.create names by `charge` or `payment_intent`, or ApiError."""
        if "charge" in params:
            return account.get("charge", params["charge"], "charge")
        if "payment_intent" not in params:
            raise missing("payment_intent")
        intent = account.get("payment_intent", params["payment_intent"], "payment_intent")
        if intent["status"] != "succeeded":
            raise refused(f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund.")
        return account.get("charge", intent["latest_charge"])

    async def move_refund(self, refund_id: str, status: str, *, send: bool = True) -> Object:
        """A pending refund becomes succeeded, failed or canceled; a succeeded one may still fail."""
        account, made = self._named("refund", refund_id)
        if status not in REFUND_MOVES.get(made["status"], ()):
            raise WrongMove(f"{refund_id} is {made['status']}: it cannot become {status}")
        previous: Object = {"status": made["status"]}
        made.update(status=status, pending_reason=None)
        if status in _GONE:
            self._count_refunded(account, account.get("charge", made["charge"]))
        if status == "failed":
            self._fail_refund(account, made, send)
        self.emit(account, "refund.updated", made, previous=previous, send=send)
        return made

    async def dispute(
        self, reference: str, amount: int | None = None, status: str = "needs_response", *, send: bool = True
    ) -> Object:
        """The customer's bank takes the money back, or, with a `warning_…` status, only inquires."""
        account, charged = self._paid(reference)
        if self._dispute_of(account, charged) is not None:
            raise WrongMove(f"{charged['id']} is disputed already")
        asked = charged["amount"] if amount is None else amount
        return self.make_dispute(account, charged, asked, status, "fraudulent", send=send)

    def make_dispute(
        self, account: Account, charged: Object, amount: int, status: str, reason: str, *, send: bool = True
    ) -> Object:
        """A dispute over this charge, which has none."""
        made = account.put(stripe_reversals.dispute(charged, amount, self.now, status, reason))
        charged["disputed"] = True
        self.emit(account, "charge.dispute.created", made, send=send)
        if not made["is_charge_refundable"]:
            self.emit(account, "charge.dispute.funds_withdrawn", made, send=send)
        return made

    async def close_dispute(self, dispute_id_or_reference: str, outcome: str, *, send: bool = True) -> Object:
        """The dispute ends: `won` gives the money back to the merchant, `lost` does not; also `warning_closed`."""
        account, made = self._find_dispute(dispute_id_or_reference)
        if outcome not in _OVER:
            raise WrongMove(f"a dispute ends {', '.join(_OVER)}, not {outcome}")
        return self.end_dispute(account, made, outcome, send=send)

    def end_dispute(
        self, account: Account, made: Object, outcome: str, *, cause: Object | None = None, send: bool = True
    ) -> Object:
        """An open dispute ends this way."""
        previous: Object = {"status": made["status"]}
        made.update(status=outcome, is_charge_refundable=outcome != "lost")
        self.emit(account, "charge.dispute.closed", made, cause=cause, previous=previous, send=send)
        if outcome == "won":
            self.emit(account, "charge.dispute.funds_reinstated", made, send=send)
        return made

    # --- steps

    def _paid(self, reference: str) -> tuple[Account, Object]:
        account, checkout = self.find(reference)
        intent = self._intent_of(account, checkout)
        if intent is None or intent["status"] != "succeeded":
            raise WrongMove(f"{checkout['id']} is not paid")
        return account, account.get("charge", intent["latest_charge"])

    def _refundable(self, account: Account, charged: Object) -> int:
        """What is left of the charge, above 0, or ApiError."""
        if charged["status"] != "succeeded":
            raise refused(f"Charge {charged['id']} has not succeeded; cannot issue a refund.")
        if any(not one["is_charge_refundable"] for one in account.all("dispute", charge=charged["id"])):
            message = f"Charge {charged['id']} has been charged back; cannot issue a refund."
            raise refused(message, "charge_disputed")
        if charged["refunded"]:
            raise refused(f"Charge {charged['id']} has already been refunded.", "charge_already_refunded")
        return int(charged["amount"] - charged["amount_refunded"])

    def _count_refunded(self, account: Account, charged: Object) -> None:
        made = account.all("refund", charge=charged["id"])
        total = sum(one["amount"] for one in made if one["status"] not in _GONE)
        charged.update(amount_refunded=total, refunded=total >= charged["amount"])

    def _fail_refund(self, account: Account, made: Object, send: bool) -> None:
        made.update(failure_reason="expired_or_canceled_card", failure_balance_transaction=new_id("txn"))
        self.emit(account, "refund.failed", made, send=send)

    def _dispute_of(self, account: Account, charged: Object) -> Object | None:
        return next((one for one in account.all("dispute", charge=charged["id"]) if one["status"] not in _OVER), None)

    def _find_dispute(self, name: str) -> tuple[Account, Object]:
        if name.startswith("du_"):
            account, made = self._named("dispute", name)
        else:
            account, charged = self._paid(name)
            found = self._dispute_of(account, charged)
            if found is None:
                raise WrongMove(f"{name} has no open dispute")
            made = found
        if made["status"] in _OVER:
            raise WrongMove(f"{made['id']} is {made['status']}")
        return account, made

    def _named(self, kind: str, identifier: str) -> tuple[Account, Object]:
        for account in self.accounts.values():
            if identifier in account.objects.get(kind, {}):
                return account, account.get(kind, identifier)
        raise UnknownReference(f"there is no {kind} {identifier!r}")
