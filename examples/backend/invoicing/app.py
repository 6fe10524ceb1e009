"""The backend over HTTP. Run it with `uvicorn --factory invoicing.app:create_app --port 9000`.

Who may call it is another story: it has neither users nor passwords.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, SecretStr

from conva_payments import (
    GatewayRefused,
    Invalid,
    NotConfigured,
    NotGenuine,
    Payments,
    PaymentsError,
    Settings,
    Webhook,
)
from invoicing.books import Books, Invoice
from invoicing.events import handle, keep_up

# A definite no, for which somebody has to change something first.
REFUSED = (Invalid, NotConfigured, GatewayRefused)


@dataclass(frozen=True, slots=True)
class Backend:
    payments: Payments
    webhook: Webhook
    books: Books


def create_app() -> FastAPI:
    """The app, set up by PAYMENTS_URL, PAYMENTS_TOKEN (one of the service's SERVICE_TOKENS), EVENTS_SECRET (the
    service's own; two with a comma between, while it is being replaced) and BOOKS (a file, `books.sqlite`)."""
    webhook = Webhook(*os.environ["EVENTS_SECRET"].split(","))
    payments = Payments(os.environ["PAYMENTS_URL"], os.environ["PAYMENTS_TOKEN"])
    books = Books(Path(os.environ.get("BOOKS", "books.sqlite")))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with payments:  # one for the whole process: it holds the connections
            app.state.backend = Backend(payments, webhook, books)
            keeping_up = asyncio.create_task(keep_up(payments, books))
            yield
            keeping_up.cancel()
            with suppress(asyncio.CancelledError):
                await keeping_up

    app = FastAPI(title="Invoicing", lifespan=lifespan)
    app.include_router(router)
    app.add_exception_handler(PaymentsError, on_payments_error)
    app.add_exception_handler(RequestValidationError, on_faulty_request)
    return app


def backend_of(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


Here = Annotated[Backend, Depends(backend_of)]
router = APIRouter()


class PaynowAccount(BaseModel):
    integration_id: str
    integration_key: SecretStr


class NewInvoice(BaseModel):
    contact_id: UUID
    number: str = Field(min_length=1, max_length=100)
    amount_cents: int = Field(ge=1)
    currency: Literal["USD", "ZIG"] = "USD"


@router.put("/tenants/{client_id}/paynow")
async def save_paynow(
    client_id: UUID, account: PaynowAccount, here: Here, x_user: Annotated[str | None, Header()] = None
) -> Settings:
    """The keys go to the payments service and are not kept here; nobody can read them again."""
    return await here.payments.save_settings(
        client_id,
        actor=x_user,
        paynow_integration_id=account.integration_id,
        paynow_integration_key=account.integration_key.get_secret_value(),
    )


@router.post("/tenants/{client_id}/invoices", status_code=201)
async def add_invoice(client_id: UUID, new: NewInvoice, here: Here) -> Invoice:
    return await asyncio.to_thread(
        here.books.add, client_id, new.contact_id, new.number, new.amount_cents, new.currency
    )


@router.get("/tenants/{client_id}/invoices")
async def list_invoices(client_id: UUID, here: Here) -> list[Invoice]:
    return await asyncio.to_thread(here.books.invoices, client_id)


@router.post("/tenants/{client_id}/invoices/{invoice_id}/link")
async def make_link(client_id: UUID, invoice_id: UUID, here: Here) -> Invoice:
    """The invoice with its `page_url`, to be sent to the customer. Asked for twice it is the same one."""
    invoice = await _invoice(here, client_id, invoice_id)
    if invoice.is_paid:
        raise HTTPException(409, "The invoice is paid.")
    if invoice.page_url is None:
        try:
            payment = await here.payments.create_link(
                client_id,
                gateway=None,  # the customer chooses on the page
                amount_cents=invoice.amount_cents - invoice.paid_cents,
                currency=invoice.currency,
                reference=invoice.number,
                contact_id=invoice.contact_id,
                invoice_id=invoice.id,
                idempotency_key=invoice.link_key,
            )
        except REFUSED:
            await asyncio.to_thread(here.books.renew_key, invoice)
            raise
        await asyncio.to_thread(here.books.keep_link, invoice, payment)
    return await _invoice(here, client_id, invoice_id)


@router.post("/payments-events", status_code=204)
async def receive_event(request: Request, here: Here) -> None:
    """The service's EVENTS_URL. Believed with its signature only; answered with 2xx once it is in the books."""
    try:
        event = here.webhook.verify(request.headers, await request.body())
    except NotGenuine as error:
        raise HTTPException(401, f"Not genuine: {error}") from None
    await handle(here.books, event)


async def _invoice(here: Backend, client_id: UUID, invoice_id: UUID) -> Invoice:
    invoice = await asyncio.to_thread(here.books.invoice, client_id, invoice_id)
    if invoice is None:
        raise HTTPException(404, "There is no such invoice.")
    return invoice


async def on_payments_error(_request: Request, error: Exception) -> JSONResponse:
    """What a person can change is told in the service's words; anything else is not theirs: try again later."""
    assert isinstance(error, PaymentsError)
    return JSONResponse({"detail": error.detail, "code": error.code}, 422 if isinstance(error, REFUSED) else 503)


async def on_faulty_request(_request: Request, error: Exception) -> JSONResponse:
    """What is wrong, without what was sent: FastAPI's own answer repeats it, keys and all."""
    assert isinstance(error, RequestValidationError)
    faults = [{"loc": fault["loc"], "msg": fault["msg"]} for fault in error.errors()]
    return JSONResponse({"detail": faults}, 422)
