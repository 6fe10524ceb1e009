"""A merchant's credentials at EcoCash, of one of its three dialects, as a tenant has saved them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from payments_service.errors import NotConfigured
from payments_service.gateways.ecocash_wire import plain
from payments_service.money import CURRENCY_ALIASES, Currency

# What each dialect cannot do without.
NEEDED = {
    "open_api": ("ecocash_api_key",),
    "eip": ("ecocash_username", "ecocash_password", "ecocash_merchant_pin", "ecocash_merchant_code"),
    "eip_portal": ("ecocash_username", "ecocash_password", "ecocash_merchant_pin", "ecocash_merchant_code"),
}

_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_BY_NAME = {**{currency.value: currency for currency in Currency}, **CURRENCY_ALIASES}


@dataclass(frozen=True, slots=True)
class OpenApiCredentials:
    """A key of the developer portal's. `name` is the merchant's, for people; `takes` what it may be asked for."""

    currency: Currency
    name: str
    api_key: str = field(repr=False)
    merchant_code: str | None = None
    takes: frozenset[Currency] = frozenset(Currency)


@dataclass(frozen=True, slots=True)
class EipCredentials:
    """A merchant's. `portal`: of the dialect `eip_portal`; `name` is the merchant's, for people; `takes` what it may be
    asked for."""

    currency: Currency
    name: str
    portal: bool
    username: str
    password: str = field(repr=False)
    merchant_code: str
    merchant_pin: str = field(repr=False)
    merchant_number: str | None = None
    takes: frozenset[Currency] = frozenset(Currency)


EcocashCredentials = OpenApiCredentials | EipCredentials


def credentials_of(values: Mapping[str, str | None], currency: Currency) -> EcocashCredentials:
    """Those of the tenant's dialect. Raises NotConfigured, in words that name what is missing or odd.

    A currency that the merchant does not take any more is no fault of theirs: what was begun in it is looked up.
    """
    dialect = values.get("ecocash_dialect") or _dialect_of(values)
    _check(values, dialect)
    takes = _currencies(values.get("ecocash_currencies"))
    code = values.get("ecocash_merchant_code") or None
    name = plain(values.get("display_name") or "", 50) or plain(code or "", 50) or "Merchant"
    if dialect == "open_api":
        return OpenApiCredentials(currency, name, values["ecocash_api_key"] or "", code, takes)
    return EipCredentials(
        currency,
        name,
        portal=dialect == "eip_portal",
        username=values["ecocash_username"] or "",
        password=values["ecocash_password"] or "",
        merchant_code=code or "",
        merchant_pin=values["ecocash_merchant_pin"] or "",
        merchant_number=values.get("ecocash_merchant_number") or None,
        takes=takes,
    )


def _dialect_of(values: Mapping[str, str | None]) -> str:
    """The dialect that what is saved belongs to, where none is named: with a key it is `open_api`, whatever else is
    there; `eip_portal` is only taken by its name."""
    eip = {field: values.get(field) for field in NEEDED["eip"]}
    if values.get("ecocash_api_key"):
        return "open_api"
    if all(eip.values()):
        return "eip"
    missing = ", ".join(field for field, value in eip.items() if not value)
    raise NotConfigured(
        f"EcoCash is not set up: save ecocash_api_key, or {missing}, in payment-settings, as EcoCash gave them to the "
        "merchant."
    )


def _check(values: Mapping[str, str | None], dialect: str) -> None:
    if dialect not in NEEDED:
        raise NotConfigured(f"EcoCash is not set up: ecocash_dialect is none of {', '.join(NEEDED)}.")
    if missing := [field for field in NEEDED[dialect] if not values.get(field)]:
        raise NotConfigured(
            f"EcoCash is not set up: save {', '.join(missing)} in payment-settings (ecocash_dialect is {dialect})."
        )
    # They go into headers, as they are.
    if dialect == "open_api" and _UNPRINTABLE.search(values["ecocash_api_key"] or ""):
        raise NotConfigured("EcoCash is not set up: the saved ecocash_api_key is no key of EcoCash's.")
    if dialect != "open_api" and ":" in (values["ecocash_username"] or ""):
        raise NotConfigured("EcoCash is not set up: the saved ecocash_username has a colon in it.")


def _currencies(chosen: str | None) -> frozenset[Currency]:
    """Those that the merchant's account takes: both, where nothing is chosen."""
    names = [each.strip().upper() for each in (chosen or "").split(",")]
    return frozenset(_BY_NAME[name] for name in names if name in _BY_NAME) or frozenset(Currency)
