"""The errors that callers see: each has its code, its title and its HTTP status."""

from __future__ import annotations

import importlib
import pkgutil

import payments_service
from payments_service import web
from payments_service.errors import PaymentsError


def _own_errors() -> list[type[PaymentsError]]:
    for module in pkgutil.walk_packages(payments_service.__path__, "payments_service."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: list[type[PaymentsError]] = [PaymentsError]
    for kind in found:
        found.extend(each for each in kind.__subclasses__() if each.__module__.startswith("payments_service."))
    return found


def test_every_error_has_a_code_a_title_and_an_http_status() -> None:
    """Errors of every module: a stable code with a title; a status of its own or of its nearest named ancestor."""
    kinds = _own_errors()
    assert len(kinds) > 10
    for kind in kinds:
        assert kind.code in web.TITLES, kind
        (status, *_) = [web.STATUS_OF[ancestor] for ancestor in kind.__mro__ if ancestor in web.STATUS_OF]
        assert 400 <= status < 600, kind
        # 500 says "our fault, nobody foresaw it": of a foreseen error only the roots may be that.
        assert (status == 500) is not any(each in web.STATUS_OF for each in kind.__mro__[:-4]), kind


def test_errors_of_a_gateway_let_the_caller_conclude_what_is_true() -> None:
    """A sure no is the caller's fault, never reached may be tried again, everything else is no answer."""
    codes = {kind.__name__: (kind.code, web.STATUS_OF.get(kind)) for kind in _own_errors()}
    assert codes["Refused"] == ("gateway_refused", 422)
    assert codes["Unreachable"] == ("gateway_unreachable", 503)
    assert codes["Ambiguous"] == codes["Untrusted"] == ("gateway_timeout", 504)
