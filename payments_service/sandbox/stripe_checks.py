"""What the API checks about a Checkout Session beyond each parameter's own shape."""

from __future__ import annotations

from payments_service.sandbox.stripe_accounts import Account, Object
from payments_service.sandbox.stripe_catalog import CURRENCIES, MAXIMUM_CHARGE, MINIMUM_CHARGES, money
from payments_service.sandbox.stripe_errors import invalid, missing, refused

_SHORTEST, _LONGEST = 30 * 60, 24 * 3600


def check_session(account: Account, params: Object, now: int) -> None:
    """ApiError in the API's words, for checked parameters of sessions.create at this Unix time."""
    if params["mode"] != "payment":
        raise invalid("This simulator knows the mode `payment` only.", "mode")
    if params.get("ui_mode", "hosted_page") != "hosted_page":
        raise invalid("This simulator knows the ui_mode `hosted_page` only.", "ui_mode")
    if account.livemode and not account.charges_enabled:
        raise refused("Your account cannot currently make live charges.")
    _check_time(params, now)
    _check_lines(params["line_items"])


def _check_time(params: Object, now: int) -> None:
    ahead = params.get("expires_at", now + _LONGEST) - now
    if ahead < _SHORTEST:
        message = "The `expires_at` timestamp must be at least 30 minutes from Checkout Session creation."
        raise invalid(message, "expires_at")
    if ahead > _LONGEST:
        message = "The `expires_at` timestamp must be less than 24 hours from Checkout Session creation."
        raise invalid(message, "expires_at")


def _check_lines(lines: list[Object]) -> None:
    if not lines:
        raise missing("line_items")
    for index, line in enumerate(lines):
        if not line.get("quantity"):
            message = f"Quantity is required. Add `quantity` to `line_items[{index}]`"
            raise invalid(message, f"line_items[{index}][quantity]", "parameter_missing")
        check_currency(line["price_data"]["currency"], f"line_items[{index}][price_data][currency]")
    currencies = {line["price_data"]["currency"].lower() for line in lines}
    if len(currencies) > 1:
        raise invalid("All line items of a Checkout Session must have the same currency.", "line_items")
    total = sum(line["price_data"]["unit_amount"] * line["quantity"] for line in lines)
    _check_total(total, currencies.pop())


def check_currency(currency: str, param: str) -> None:
    if currency.lower() not in CURRENCIES:
        listed = ", ".join(CURRENCIES)
        message = f"Invalid currency: {currency.lower()}. Stripe currently supports these currencies: {listed}"
        raise invalid(message, param)


def _check_total(total: int, currency: str) -> None:
    least = MINIMUM_CHARGES.get(currency, 50)
    if total < least:
        message = f"The Checkout Session's total amount due must add up to at least {money(least, currency)} {currency}"
        raise invalid(message, "line_items", "amount_too_small")
    if total > MAXIMUM_CHARGE:
        most = money(MAXIMUM_CHARGE, currency)
        message = f"The Checkout Session's total amount due must be no more than {most} {currency}"
        raise invalid(message, "line_items", "amount_too_large")
