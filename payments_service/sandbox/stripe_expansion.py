"""`expand[]`: ids replaced by the objects they name, and lists that an object shows only when asked.

See https://docs.stripe.com/api/expanding_objects. What is listed here is what this simulator expands.
"""

from __future__ import annotations

from collections.abc import Iterable

from payments_service.sandbox.stripe_accounts import Account, Object, copy
from payments_service.sandbox.stripe_errors import invalid

_DEEPEST = 4
_KINDS = {"payment_intent": "payment_intent", "charge": "charge"}
# By kind of object: the members that expand, and what they become.
_EXPANDABLE: dict[str, dict[str, str]] = {
    "checkout.session": {"payment_intent": "payment_intent", "line_items": "list of item"},
    "payment_intent": {"latest_charge": "charge"},
    "charge": {"payment_intent": "payment_intent", "refunds": "list of refund"},
    "refund": _KINDS,
    "dispute": _KINDS,
}


def check(kind: str, paths: Iterable[str]) -> None:
    """ApiError for the first path that an object of this kind (or `list of` one) cannot be expanded by."""
    for index, path in enumerate(paths):
        param = f"expand[{index}]"
        segments = path.split(".")
        if len(segments) > _DEEPEST:
            raise invalid(f"You cannot expand more than {_DEEPEST} levels of a property. Property: {path}", param)
        at = kind
        for depth, name in enumerate(segments):
            inner = _inner(at, name)
            if inner is None or (depth == len(segments) - 1 and at.startswith("list of ")):
                raise invalid(f"This property cannot be expanded ({path}).", param)
            at = inner


def _inner(kind: str, name: str) -> str | None:
    if kind.startswith("list of "):
        return kind.removeprefix("list of ") if name == "data" else None
    return _EXPANDABLE.get(kind, {}).get(name)


def expand(account: Account, thing: Object, paths: Iterable[str]) -> Object:
    """A copy of the object with these paths expanded, which `check` has let pass."""
    shown = copy(thing)
    for path in paths:
        _expand(account, shown, path.split("."))
    return shown


def _expand(account: Account, thing: Object, path: list[str]) -> None:
    name, *rest = path
    if thing["object"] == "list":
        for item in thing["data"]:
            _expand(account, item, rest)
        return
    inner = _EXPANDABLE[thing["object"]][name]
    if inner.startswith("list of "):
        thing.setdefault(name, _listing(account, thing, name))
    elif isinstance(thing[name], str):
        thing[name] = copy(account.get(inner, thing[name]))
    if rest and thing[name] is not None:
        _expand(account, thing[name], rest)


def _listing(account: Account, thing: Object, name: str) -> Object:
    """At most ten, newest first, as the API does."""
    if name == "line_items":
        items = account.line_items[thing["id"]]
        url = f"/v1/checkout/sessions/{thing['id']}/line_items"
    else:
        items = list(account.all("refund", charge=thing["id"]))
        url = f"/v1/charges/{thing['id']}/refunds"
    return {"object": "list", "data": [copy(item) for item in items[:10]], "has_more": len(items) > 10, "url": url}
