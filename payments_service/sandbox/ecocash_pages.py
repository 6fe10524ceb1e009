"""The EcoCash simulator's pages for who tries things out: what was charged, and what shall become of it."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from payments_service.sandbox.ecocash_charges import Charge
from payments_service.sandbox.ecocash_customers import EcocashCustomers
from payments_service.sandbox.ecocash_faults import KINDS, OPERATIONS
from payments_service.sandbox.ecocash_phone import local_number
from payments_service.sandbox.hands import WrongMove
from payments_service.sandbox.overviews import fault_routes, newest
from payments_service.sandbox.rendering import form, go, missing, page, root

_SHOWN_DELIVERIES = 20
_BASE = "/sandbox/ecocash"

# What a button does, and when it is there: while the phone prompts, while the charge is open, once it ended unpaid.
_PROMPTING = (
    ("approve", "The customer pays"),
    ("decline", "The customer declines"),
    ("ignore", "The prompt times out"),
)
_OPEN = (("fail", "It fails"),)
_UNPAID = (("complete_late", "It is paid after all"),)


def routes(ledger: EcocashCustomers) -> list[BaseRoute]:
    """The overview at `/sandbox/ecocash`, a page per charge, and the forms that stand on them."""
    return [*_charge_routes(ledger), *fault_routes(_BASE, ledger.faults)]


def _charge_routes(ledger: EcocashCustomers) -> list[BaseRoute]:
    async def overview(request: Request) -> Response:
        ledger.expire_due()
        return page(
            request,
            "ecocash_list.html",
            **newest(ledger.charges),
            merchants=ledger.merchants,
            faults=ledger.faults.unspent,
            kinds=KINDS,
            operations=OPERATIONS,
        )

    async def show(request: Request) -> Response:
        ledger.expire_due()
        charge = ledger.by_id(request.path_params["id"])
        return missing() if charge is None else _charge_page(request, ledger, charge)

    async def act(request: Request) -> Response:
        charge = ledger.by_id(request.path_params["id"])
        move = (await form(request)).get("act", "")
        if charge is None or move not in dict((*_PROMPTING, *_OPEN, *_UNPAID)):
            return missing()
        try:
            await getattr(ledger, move)(charge.ecocash_reference)
        except WrongMove as problem:
            return _charge_page(request, ledger, charge, str(problem), 409)
        return go(f"{root(request)}{_BASE}/charges/{charge.id}")

    return [
        Route(_BASE, overview),
        Route(f"{_BASE}/charges/{{id:int}}", show, methods=["GET"]),
        Route(f"{_BASE}/charges/{{id:int}}", act, methods=["POST"]),
    ]


def _charge_page(
    request: Request, ledger: EcocashCustomers, charge: Charge, problem: str = "", status: int = 200
) -> Response:
    unpaid = not charge.open and not charge.paid
    deliveries = [one for one in reversed(ledger.deliveries) if one.reference == charge.correlator]
    return page(
        request,
        "ecocash_charge.html",
        status,
        charge=charge,
        phone=local_number(charge.msisdn),
        buttons=[
            *(_PROMPTING if charge.prompting else ()),
            *(_OPEN if charge.open else ()),
            *(_UNPAID if unpaid else ()),
        ],
        deliveries=deliveries[:_SHOWN_DELIVERIES],
        problem=problem,
    )
