"""The official SDK's generated types as an oracle: is a request one that Stripe knows, is an object one that it sends?

`check_params` walks the TypedDicts below `stripe.params`, `check_object` the StripeObject classes. Both raise
AssertionError with the full name of what does not fit. The SDK writes open enumerations as `Literal[…] | str`;
here such a value must be among the literals, for nothing else is known to exist.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import types
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, ForwardRef, Literal, Union, get_args, get_origin

import stripe
from stripe._list_object import ListObject
from stripe._object_classes import OBJECT_CLASSES
from stripe._request_options import RequestOptions
from stripe._stripe_object import StripeObject, UntypedStripeObject

_NONE = type(None)


class Misfit(AssertionError):
    """A name or a value that the SDK's types do not have."""


# --- what annotations mean


@cache
def _namespace(module_name: str) -> dict[str, Any]:
    """What the quoted names in a module of the SDK stand for, its imports for type checkers included."""
    module = importlib.import_module(module_name)
    names: dict[str, Any] = dict(vars(module))
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module and not line.module.startswith("stripe.params"):
                    source = importlib.import_module(line.module)
                    names |= {alias.asname or alias.name: getattr(source, alias.name) for alias in line.names}
    return names


def _resolve(annotation: Any, module: str) -> Any:
    if isinstance(annotation, ForwardRef):
        return _resolve(annotation.__forward_arg__, module)
    if isinstance(annotation, str):
        return eval(annotation, _namespace(module))
    return annotation


def _choices(annotation: Any, module: str) -> list[Any]:
    """The alternatives of a union, resolved; a plain annotation is its own and only one."""
    found = _resolve(annotation, module)
    if get_origin(found) in (Union, types.UnionType):
        return [inner for one in get_args(found) for inner in _choices(one, module)]
    return [found]


def _literals(choices: list[Any]) -> tuple[Any, ...]:
    """The values of an enumeration; none for a union such as `Literal[''] | str`, which only allows unsetting."""
    values = tuple(value for one in choices if get_origin(one) is Literal for value in get_args(one))
    return () if values == ("",) and len(choices) > 1 else values


# --- requests


def own_fields(typed_dict: Any) -> dict[str, Any]:
    """The parameters of an operation, without the options that the SDK mixes in."""
    return {
        name: kind for name, kind in typed_dict.__annotations__.items() if name not in RequestOptions.__annotations__
    }


def check_params(typed_dict: Any, params: Any, at: str = "") -> None:
    """Whether the nested parameters, as received (every value text), are ones that the SDK could have sent."""
    if not isinstance(params, dict):
        raise Misfit(f"{at or typed_dict.__name__} is no dict: {params!r}")
    fields = own_fields(typed_dict)
    for name, value in params.items():
        full = f"{at}[{name}]" if at else name
        if name not in fields:
            raise Misfit(f"{full} is no parameter of {typed_dict.__name__}")
        (inner,) = (
            get_args(fields[name])
            if get_args(fields[name]) and name not in typed_dict.__required_keys__
            else (fields[name],)
        )
        _check_param(inner, value, full, typed_dict.__module__)
    if missing := typed_dict.__required_keys__ - params.keys() - RequestOptions.__annotations__.keys():
        raise Misfit(f"{at or typed_dict.__name__} lacks {', '.join(sorted(missing))}")


def _check_param(annotation: Any, value: Any, at: str, module: str) -> None:
    choices = _choices(annotation, module)
    literals = _literals(choices)
    if literals and isinstance(value, str):
        if value not in literals:
            raise Misfit(f"{at} is {value!r}, none of {', '.join(map(str, literals[:9]))}…")
        return None
    problems = []
    for choice in choices:
        try:
            return _check_one_param(choice, value, at, module)
        except Misfit as problem:
            problems.append(str(problem))
    raise Misfit("; ".join(problems))


def _check_one_param(choice: Any, value: Any, at: str, module: str) -> None:
    origin = get_origin(choice)
    if hasattr(choice, "__required_keys__"):
        check_params(choice, value, at)
    elif origin is list:
        _expect(isinstance(value, list), at, "a list", value)
        for index, item in enumerate(value):
            _check_param(get_args(choice)[0], item, f"{at}[{index}]", module)
    elif origin in (dict, UntypedStripeObject):
        texts = isinstance(value, dict) and all(isinstance(inner, str) for inner in value.values())
        _expect(texts, at, "a dict of texts", value)
    elif origin is Literal:
        _expect(value in get_args(choice), at, f"one of {get_args(choice)}", value)
    else:
        _expect(isinstance(value, str) and _TEXTS[choice](value), at, choice.__name__, value)


def _is_decimal(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


_TEXTS = {
    str: lambda text: True,
    int: lambda text: text.removeprefix("-").isdecimal(),
    bool: lambda text: text in ("true", "false"),
    float: _is_decimal,
    Decimal: _is_decimal,
}


def _expect(fits: bool, at: str, what: str, value: Any) -> None:
    if not fits:
        raise Misfit(f"{at} is {value!r}, not {what}")


# --- objects


def class_of(name: str) -> type[StripeObject]:
    """The SDK's class for objects with this member `object`, such as `checkout.session`."""
    module, class_name = OBJECT_CLASSES[name]
    found: type[StripeObject] = getattr(importlib.import_module(module), class_name)
    return found


def check_answer(content: Any) -> None:
    """Any answer of the API by its member `object`: an object, a list of them, or what is left of a deleted one."""
    if content["object"] == "list":
        _check_list(content, None, "list", "stripe")
    elif content.get("deleted"):
        assert content.keys() == {"id", "object", "deleted"}
    else:
        check_object(class_of(content["object"]), content)
        if content["object"] == "event":
            check_answer(content["data"]["object"])


def check_error(content: Any) -> None:
    """An error envelope."""
    assert content.keys() == {"error"}
    check_object(stripe.ErrorObject, content["error"])


def fields_of(cls: type[StripeObject]) -> dict[str, Any]:
    return {
        name: annotation
        for name, annotation in inspect.get_annotations(cls).items()
        if not name.startswith("_") and name != "OBJECT_NAME"
    }


def check_object(cls: type[StripeObject], content: Any, at: str = "") -> None:
    """Whether this is an object of the SDK's class: no unknown member, none missing, each of its type, all the way."""
    at = at or cls.__name__
    _expect(isinstance(content, dict), at, f"a {cls.__name__}", content)
    fields = fields_of(cls)
    if strange := content.keys() - fields.keys():
        raise Misfit(f"{at} has {', '.join(sorted(strange))}, unknown to {cls.__name__}")
    for name, annotation in fields.items():
        choices = _choices(annotation, cls.__module__)
        if name in content:
            _check_member(choices, content[name], f"{at}.{name}", cls.__module__)
        elif _NONE not in choices:
            raise Misfit(f"{at} lacks {name}")


def _check_member(choices: list[Any], value: Any, at: str, module: str) -> None:
    if value is None:
        _expect(_NONE in choices or Any in choices, at, "there", value)
        return None
    literals = _literals(choices)
    if literals and isinstance(value, str):
        _expect(value in literals, at, f"one of {', '.join(map(str, literals[:9]))}…", value)
        return None
    problems = []
    for choice in choices:
        try:
            return _check_one(choice, value, at, module)
        except Misfit as problem:
            problems.append(str(problem))
    raise Misfit("; ".join(problems))


def _check_one(choice: Any, value: Any, at: str, module: str) -> None:
    origin = get_origin(choice)
    if choice is Any:
        return
    if origin is list:
        _expect(isinstance(value, list), at, "a list", value)
        for index, item in enumerate(value):
            _check_member(_choices(get_args(choice)[0], module), item, f"{at}[{index}]", module)
    elif origin is ListObject:
        _check_list(value, get_args(choice)[0], at, module)
    elif origin in (dict, UntypedStripeObject):
        _expect(isinstance(value, dict), at, "a dict", value)
        for name, item in value.items():
            _check_member(_choices(get_args(choice)[-1], module), item, f"{at}.{name}", module)
    elif origin is Literal:
        _expect(value in get_args(choice), at, f"one of {get_args(choice)}", value)
    elif isinstance(choice, type) and issubclass(choice, StripeObject):
        check_object(choice, value, at)
    else:
        _expect(type(value) in _PLAIN[choice], at, choice.__name__, value)


# A Decimal travels as text.
_PLAIN: dict[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    float: (int, float),
    Decimal: (str,),
    _NONE: (),
}


def _check_list(content: Any, item: Any, at: str, module: str) -> None:
    _expect(isinstance(content, dict) and content.get("object") == "list", at, "a list object", content)
    assert content.keys() == {"object", "data", "has_more", "url"}, f"{at} has {', '.join(content)}"
    assert isinstance(content["has_more"], bool)
    assert isinstance(content["url"], str)
    for index, one in enumerate(content["data"]):
        if item is None:
            check_answer(one)
        else:
            _check_member(_choices(item, module), one, f"{at}.data[{index}]", module)


# --- the simulator's own lists


def nested_params(typed_dict: Any) -> Iterator[tuple[str, Any]]:
    """Each parameter with the TypedDicts that its value may be, directly or as an item of a list."""
    for name, annotation in own_fields(typed_dict).items():
        optional = name not in typed_dict.__required_keys__
        inner = get_args(annotation)[0] if optional else annotation
        found = []
        for choice in _choices(inner, typed_dict.__module__):
            items = _choices(get_args(choice)[0], typed_dict.__module__) if get_origin(choice) is list else [choice]
            found += [one for one in items if hasattr(one, "__required_keys__")]
        yield name, (found[0] if found else None)


def literals_of(typed_dict: Any, name: str) -> tuple[Any, ...]:
    """The values that the SDK knows for this parameter, or for the items of its list."""
    annotation = own_fields(typed_dict)[name]
    inner = get_args(annotation)[0] if name not in typed_dict.__required_keys__ else annotation
    choices = _choices(inner, typed_dict.__module__)
    for choice in choices:
        if get_origin(choice) is list:
            return _literals(_choices(get_args(choice)[0], typed_dict.__module__))
    return _literals(choices)


def literals_in(cls: type[StripeObject], name: str) -> tuple[Any, ...]:
    """The values that the SDK knows for this member of an object."""
    return _literals(_choices(fields_of(cls)[name], cls.__module__))


assert sys.version_info >= (3, 11)
