"""Payments that wait for money, and the messages that tell of it. Everything follows from a payment's number, in
Python and in SQL alike, so that pgbench can send the service's statements with the same values."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import psycopg

from benchmarks.processes import HOST
from benchmarks.stage import PAYNOW_KEY, SECRET, STRIPE_KEY, STRIPE_SECRET, TENANT
from payments_service.lifecycle import Outcome, Report
from payments_service.money import Currency, Money
from payments_service.sandbox import wire
from payments_service.vault import Vault

CENTS = 1250
POLL_URL = "https://www.paynow.co.zw/Interface/CheckPayment/?guid=3cb27f4b-b3ef-4d1f-9178-5e5e62a43995"

# The number `:i` as ids: version 7 ones are as ordered as these.
PAYMENT_SQL = "(('b0000000' || lpad(to_hex(:i::bigint), 24, '0'))::uuid)"
ATTEMPT_SQL = "(('a0000000' || lpad(to_hex(:i::bigint), 24, '0'))::uuid)"
EVENT_SQL = "(('e0000000' || lpad(to_hex(:i::bigint), 24, '0'))::uuid)"
REFERENCE_SQL = "('INV-' || :i::bigint)"

_PAYMENTS = f"""
INSERT INTO payments (id, client_id, gateway, reference, amount_cents, currency, contact_id, description, page_token,
                      payment_url, expires_at, sequence)
SELECT {PAYMENT_SQL}, %(tenant)s, %(gateway)s, {REFERENCE_SQL}, {CENTS}, 'USD', gen_random_uuid(), 'Two bags of cement',
       left(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 27),
       %(page)s, now() + interval '7 days', 1
FROM generate_series(%(first)s::bigint, %(last)s) AS i"""

_ATTEMPTS = f"""
INSERT INTO attempts (id, payment_id, client_id, gateway, method, reference, amount_cents, currency, state, poll_url,
                      redirect_url, next_check_at)
SELECT {ATTEMPT_SQL}, {PAYMENT_SQL}, %(tenant)s, %(gateway)s, %(method)s, {REFERENCE_SQL}, {CENTS}, 'USD', 'live',
       %(poll)s, %(page)s, now() + interval '1 day'
FROM generate_series(%(first)s::bigint, %(last)s) AS i"""


_OF_GATEWAY = {
    "paynow": {"method": "web", "page": "https://www.paynow.co.zw/Payment/ConfirmPayment/1234567", "poll": POLL_URL},
    "stripe": {
        "method": "card",
        "page": "https://checkout.stripe.com/c/pay/cs_test_1234567",
        "poll": "cs_test_1234567",
    },
}


def plant(url: str, first: int, count: int, *, gateway: str = "paynow") -> range:
    """Pending payments with a live attempt each; their numbers."""
    values = {"tenant": TENANT, "first": first, "last": first + count - 1, "gateway": gateway, **_OF_GATEWAY[gateway]}
    with psycopg.connect(url) as connection:
        for statement in (_PAYMENTS, _ATTEMPTS):
            connection.execute(statement.replace(":i::", "i::"), values)
    return range(first, first + count)


_PAID = """
WITH ended AS (UPDATE attempts SET state = 'paid', next_check_at = NULL WHERE payment_id = ANY(%(ids)s))
UPDATE payments SET status = 'paid', paid_at = now(), gateway_reference = reference, sequence = 2
WHERE id = ANY(%(ids)s)"""


def pay(url: str, numbers: range) -> None:
    """Payments that were planted, as if their money had come."""
    with psycopg.connect(url) as connection:
        connection.execute(_PAID, {"ids": [payment_id(number) for number in numbers]})


def page_tokens(url: str, numbers: range) -> list[str]:
    """The secret parts of the pay links of planted payments."""
    with psycopg.connect(url) as connection:
        ids = [payment_id(number) for number in numbers]
        return [token for (token,) in connection.execute("SELECT page_token FROM payments WHERE id = ANY(%s)", (ids,))]


def save_credentials(url: str) -> None:
    """The tenant's credentials, sealed as the service would, where no internal listener is there to take them."""
    secrets = {
        "paynow_integration_key_enc": PAYNOW_KEY,
        "stripe_secret_key_enc": STRIPE_KEY,
        "stripe_webhook_secret_enc": STRIPE_SECRET,
    }
    sealed = [Vault(SECRET).seal(value, client_id=TENANT, column=column) for column, value in secrets.items()]
    with psycopg.connect(url) as connection:
        connection.execute(
            f"INSERT INTO payment_settings (client_id, paynow_integration_id, {', '.join(secrets)}) "
            "VALUES (%s, '1201', %s, %s, %s)",
            (TENANT, *sealed),
        )


def payment_id(number: int) -> UUID:
    return UUID(f"b0000000{number:024x}")


def attempt_id(number: int) -> UUID:
    return UUID(f"a0000000{number:024x}")


def report(number: int) -> Report:
    """Paynow's proved answer that the payment is paid."""
    return Report(Outcome.PAID, "Paid", Money(CENTS, Currency.USD), f"INV-{number}", str(30_000_000 + number))


def callbacks(numbers: range, count: int, first: int) -> Iterator[bytes]:
    """`count` distinct status updates of existing attempts, in turn, as HTTP requests; `first` counts messages."""
    for message in range(first, first + count):
        number = numbers[message * 7919 % len(numbers)]
        yield callback(f"INV-{number}", attempt_id(number), 30_000_000 + message)


def callback(reference: str, attempt: UUID, paynow_reference: int) -> bytes:
    """A signed status update, as Paynow posts it."""
    return request("POST", f"/callbacks/paynow/{TENANT}/{attempt}", callback_body(reference, paynow_reference))


def callback_body(reference: str, paynow_reference: int) -> bytes:
    """What such an update says."""
    pairs = [
        ("reference", reference),
        ("paynowreference", str(paynow_reference)),
        ("amount", "12.50"),
        ("status", "Paid"),
        ("pollurl", POLL_URL),
    ]
    return wire.encode(wire.sign(pairs, PAYNOW_KEY))


def request(
    method: str, path: str, body: bytes, *headers: str, kind: str = "application/x-www-form-urlencoded"
) -> bytes:
    """An HTTP/1.1 request as bytes."""
    head = (f"{method} {path} HTTP/1.1", f"Host: {HOST}", f"Content-Type: {kind}", f"Content-Length: {len(body)}")
    return "\r\n".join((*head, *headers, "", "")).encode() + body
