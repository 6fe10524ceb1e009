"""What Stripe publishes as lists: API versions, currencies with their minimum charges, countries, event types."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation


def words(text: str) -> tuple[str, ...]:
    """The blank-separated words of a long list."""
    return tuple(text.split())


API_VERSION = "2026-10-28.endive"

# An endpoint may be pinned to another version than the client's. Objects look alike here in all of them.
API_VERSIONS = (API_VERSION, "2025-09-30.clover", "2024-06-20", "2020-08-27")

# https://docs.stripe.com/currencies: presentment currencies. Neither ZWG nor ZIG (nor ZWL) is among them.
CURRENCIES = words(
    "usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bif bmd bnd bob brl bsd bwp byn bzd cad cdf chf clp "
    "cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr "
    "isk jmd jpy kes kgs khr kmf krw kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn "
    "nad ngn nio nok npr nzd pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std "
    "szl thb tjs top try ttd twd tzs uah ugx uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar zmw"
)
ZERO_DECIMAL = frozenset(words("bif clp djf gnf jpy kmf krw mga pyg rwf ugx vnd vuv xaf xof xpf"))

# https://docs.stripe.com/currencies#minimum-and-maximum-charge-amounts, minor units. Others have no published one.
MINIMUM_CHARGES = {
    name: int(minimum)
    for name, minimum in (
        pair.split(":")
        for pair in words(
            "usd:50 aed:200 aud:50 bgn:100 brl:50 cad:50 chf:50 czk:1500 dkk:250 eur:50 gbp:30 hkd:400 huf:17500 "
            "inr:50 jpy:50 mxn:1000 myr:200 nok:300 nzd:50 pln:200 ron:200 sek:300 sgd:50 thb:1000"
        )
    )
}
MAXIMUM_CHARGE = 99_999_999  # eight digits

# Countries in which a business can have an account, with the default currency. Zimbabwe is not one of them.
COUNTRIES: dict[str, str] = dict(
    pair.split(":")
    for pair in words(
        "AE:aed AT:eur AU:aud BE:eur BR:brl CA:cad CH:chf CY:eur CZ:czk DE:eur DK:dkk EE:eur ES:eur FI:eur FR:eur "
        "GB:gbp GR:eur HK:hkd HU:huf IE:eur IT:eur JP:jpy LT:eur LU:eur LV:eur MT:eur MX:mxn MY:myr NL:eur NO:nok "
        "NZ:nzd PL:pln PT:eur RO:ron SE:sek SG:sgd SI:eur SK:eur TH:thb US:usd"
    )
)

# https://docs.stripe.com/api/events/types, as far as they concern what this simulator does, and their neighbours.
EVENT_TYPES = (
    "account.updated",
    "balance.available",
    "charge.captured",
    "charge.dispute.closed",
    "charge.dispute.created",
    "charge.dispute.funds_reinstated",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.updated",
    "charge.expired",
    "charge.failed",
    "charge.pending",
    "charge.refund.updated",
    "charge.refunded",
    "charge.succeeded",
    "charge.updated",
    "checkout.session.async_payment_failed",
    "checkout.session.async_payment_succeeded",
    "checkout.session.completed",
    "checkout.session.expired",
    "payment_intent.amount_capturable_updated",
    "payment_intent.canceled",
    "payment_intent.created",
    "payment_intent.partially_funded",
    "payment_intent.payment_failed",
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payout.canceled",
    "payout.created",
    "payout.failed",
    "payout.paid",
    "payout.updated",
    "price.created",
    "product.created",
    "radar.early_fraud_warning.created",
    "radar.early_fraud_warning.updated",
    "refund.created",
    "refund.failed",
    "refund.updated",
    "review.closed",
    "review.opened",
)


def minor(text: str, currency: str) -> int:
    """An amount as a person types it, `12.50`, in minor units; ValueError for what is no such amount above 0."""
    try:
        amount = Decimal(text.strip())
        scaled = amount if currency in ZERO_DECIMAL else amount.scaleb(2)
        if not 0 < scaled <= MAXIMUM_CHARGE or scaled != scaled.to_integral_value():
            raise ValueError(f"{text} is no amount of {currency.upper()}")
    except InvalidOperation:
        raise ValueError(f"{text!r} is no amount of money") from None
    return int(scaled)


def money(amount: int, currency: str) -> str:
    """An amount in minor units as Stripe's messages show it: `$1,250.00`, or `1,250.00 EUR`."""
    shown = f"{amount:,}" if currency in ZERO_DECIMAL else f"{amount // 100:,}.{amount % 100:02d}"
    return f"${shown}" if currency == "usd" else f"{shown} {currency.upper()}"
