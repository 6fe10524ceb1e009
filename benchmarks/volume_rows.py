"""Two years of payments, made by the database itself: as many as asked for, the same in shape whatever their number.

Everything follows from a payment's number `i` of `n`, in time order: who it belongs to, how it ended, its ids. A tenth
belongs to one big tenant and 2,000 to a shop, whatever `n` is; the rest to 997 tenants, the bigger the fewer (the
biggest of them has 3 %). In numbers of the rest of a life: 61 % paid, 25 % expired, 7 % failed, 4 % cancelled, 3 %
refunded, disputed or in review; of the last week's a quarter is pending. A twelfth took two attempts. Attempts of the
last 31 days are still watched; nothing is due. Transitions, tries of deliveries and all but each payment's last event
are there for the last tenth of the time only: what is measured adds such rows and looks none of the old ones up.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import psycopg

from benchmarks import seeds

SHOP_ROWS = 2000
BIG_SHARE = 10  # the big tenant has one of so many
TABLES = (
    "payments",
    "attempts",
    "transitions",
    "events",
    "event_tries",
    "callbacks",
    "refunds",
    "disputes",
    "reviews",
    "idempotency_keys",
    "link_rates",
)

# Those of which more than a row or two is read at once.
READ = ("payments", "attempts", "events")


def _dice(of: str, seed: int, faces: str) -> str:
    """A number below `faces` that looks thrown, always the same for the same `of`."""
    return f"((hashint8extended({of}, {seed}) & 1073741823) %% ({faces}))"


def _id(at: str, salt: str) -> str:
    """A version 7 UUID of that moment, as ids.new_id makes them."""
    milliseconds = f"lpad(to_hex((date_part('epoch', {at}) * 1000)::bigint), 12, '0')"
    noise = f"md5('{salt}' || i)"
    return f"({milliseconds} || '7' || substr({noise}, 1, 3) || 'a' || substr({noise}, 4, 15))::uuid"


def _tenant(number: str) -> str:
    return f"('c0000000-0000-4000-8000-' || lpad(to_hex({number}), 12, '0'))::uuid"


SHOP_SQL = _tenant("2")

# What the tables below are made of: one narrow row for each payment, dropped at the end.
_LIVES = f"""
CREATE UNLOGGED TABLE lives AS
SELECT i, {_id("at", "p")} AS id, {_id("at", "a")} AS attempt, tenant, {_tenant("tenant")} AS client_id, at, status,
    CASE WHEN status IN ('pending', 'expired', 'cancelled') AND {_dice("i", 4, "3")} = 0 THEN NULL
         WHEN way < 55 THEN 'paynow' WHEN way < 80 THEN 'ecocash' WHEN way < 90 THEN 'innbucks' ELSE 'stripe'
    END AS gateway,
    CASE WHEN {_dice("i", 5, "100")} < 85 THEN 'USD' ELSE 'ZIG' END AS currency,
    100 + {_dice("i", 6, "20000")} AS cents,
    LEAST(%(now)s, at + CASE WHEN status = 'expired' THEN interval '7 days'
                             ELSE interval '1 second' * (30 + {_dice("i", 7, "7200")}) END) AS ended,
    CASE WHEN status = 'pending' THEN 1
         WHEN status IN ('refunded', 'partially_refunded', 'disputed') THEN 3 ELSE 2 END AS steps,
    CASE WHEN i %% 12 = 0 AND status <> 'pending' THEN 2 ELSE 1 END AS tries
FROM (
    SELECT i, at, {_dice("i", 3, "100")} AS way,
        CASE WHEN i %% (%(n)s / {SHOP_ROWS}) = 0 THEN 2 WHEN i %% {BIG_SHARE} = 3 THEN 1
             ELSE 3 + (997 * ({_dice("i", 1, "1000000")} / 1e6::float8) ^ 2)::bigint END AS tenant,
        CASE WHEN die < 250 THEN CASE WHEN at > %(now)s - interval '7 days' THEN 'pending' ELSE 'expired' END
             WHEN die < 320 THEN 'failed' WHEN die < 360 THEN 'cancelled' WHEN die < 970 THEN 'paid'
             WHEN die < 988 THEN 'refunded' WHEN die < 996 THEN 'partially_refunded' WHEN die < 998 THEN 'disputed'
             ELSE 'review' END AS status
    FROM (
        SELECT i, {_dice("i", 2, "1000")} AS die,
            %(now)s - interval '730 days' * ((%(n)s - i)::float8 / %(n)s) AS at
        FROM generate_series(1, %(n)s) AS i OFFSET 0  -- or every expression above would be made many times over
    ) AS thrown OFFSET 0
) AS lived"""

# A customer has eight payments.
_CUSTOMERS = "CASE tenant WHEN 1 THEN %(n)s / 80 WHEN 2 THEN 250 ELSE 1 + %(n)s / 8000 END"
_RECEIVED = "status IN ('paid', 'refunded', 'partially_refunded', 'disputed')"
_LATE = "at > %(now)s - interval '73 days'"
_RECENT = "at > %(now)s - interval '31 days'"

_ROWS = {
    "payments": f"""
    (id, client_id, gateway, reference, gateway_reference, amount_cents, currency, status, contact_id, invoice_id,
     created_at, description, contact_phone, page_token, payment_url, refunded_cents, expires_at, paid_at, sequence)
    SELECT id, client_id, gateway, 'INV-' || i, CASE WHEN {_RECEIVED} THEN 'G' || (30000000 + i) END, cents, currency,
        status, md5('contact' || tenant || '-' || {_dice("i", 8, _CUSTOMERS)})::uuid,
        CASE WHEN i %% 4 = 0 THEN md5('invoice' || i)::uuid END, at, 'Two bags of cement',
        '+26377' || (1000000 + {_dice("i", 9, "9000000")}), substr(md5('page' || i), 1, 27),
        CASE gateway WHEN 'paynow' THEN 'https://www.paynow.co.zw/Payment/ConfirmPayment/' || (10000000 + i)
                     WHEN 'stripe' THEN 'https://checkout.stripe.com/c/pay/cs_live_' || md5('s' || i) END,
        CASE status WHEN 'refunded' THEN cents WHEN 'partially_refunded' THEN cents / 2 ELSE 0 END,
        at + interval '7 days', CASE WHEN {_RECEIVED} THEN ended END, steps
    FROM lives""",
    "attempts": f"""
    (id, payment_id, client_id, gateway, number, method, phone, reference, amount_cents, currency, state, poll_url,
     redirect_url, gateway_reference, said, last_checked_at, answered_at, started_at, watched_from, checks,
     next_check_at)
    SELECT CASE WHEN number = tries THEN attempt ELSE {_id("at", "b")} END, id, client_id, gateway, number,
        CASE gateway WHEN 'paynow' THEN 'web' WHEN 'stripe' THEN 'card' ELSE gateway END,
        CASE WHEN gateway = 'ecocash' THEN '+26377' || (1000000 + {_dice("i", 9, "9000000")}) END,
        'INV-' || i || '-' || upper(substr(md5('r' || number || i), 1, 8)), cents, currency,
        CASE WHEN number < tries THEN 'failed' WHEN {_RECEIVED} THEN 'paid' WHEN status = 'pending' THEN 'live'
             ELSE 'failed' END,
        CASE gateway WHEN 'paynow' THEN 'https://www.paynow.co.zw/Interface/CheckPayment/?guid=' || md5('g' || i) END,
        CASE gateway WHEN 'paynow' THEN 'https://www.paynow.co.zw/Payment/ConfirmPayment/' || (10000000 + i)
                     WHEN 'stripe' THEN 'https://checkout.stripe.com/c/pay/cs_live_' || md5('s' || i) END,
        CASE WHEN number = tries AND {_RECEIVED} THEN 'G' || (30000000 + i) END,
        CASE WHEN {_RECEIVED} THEN 'Paid' ELSE 'Cancelled' END, ended, ended, at, at, 5,
        CASE WHEN {_RECENT} THEN %(now)s + interval '1 hour' + interval '1 second' * {_dice("i", 10, "600000")} END
    FROM lives, generate_series(1, tries) AS number WHERE gateway IS NOT NULL""",
    "transitions": f"""
    (payment_id, client_id, attempt_id, sequence, from_status, to_status, cause, evidence, at)
    SELECT id, client_id, CASE WHEN gateway IS NOT NULL THEN attempt END, step,
        CASE step WHEN 2 THEN 'pending' WHEN 3 THEN 'paid' END,
        CASE WHEN step = 1 THEN 'pending' WHEN step < steps THEN 'paid' ELSE status END,
        CASE step WHEN 1 THEN 'link' ELSE 'gateway' END,
        CASE step WHEN 1 THEN '{{}}'::jsonb ELSE jsonb_build_object('said', 'Paid', 'gateway', gateway) END,
        CASE step WHEN 1 THEN at ELSE ended END
    FROM lives, generate_series(1, steps) AS step WHERE {_LATE}""",
    "events": f"""
    (id, client_id, payment_id, type, sequence, body, created_at, state, tries, delivered_at, position)
    SELECT CASE step WHEN 1 THEN {_id("at", "e")} WHEN 2 THEN {_id("ended", "f")} ELSE {_id("ended", "g")} END,
        client_id, id, 'payment.' || said, step,
        '{{"type":"payment.' || said || '","timestamp":"2026-11-28T10:00:00Z","data":{{"id":"' || id
        || '","client_id":"' || client_id || '","gateway":"' || COALESCE(gateway, '') || '","amount_cents":' || cents
        || ',"currency":"' || currency || '","status":"' || status || '","reference":"INV-' || i
        || '","page_url":"https://payments.conva.example/pay/' || substr(md5('page' || i), 1, 27)
        || '","late":false,"sequence":' || step || '}}}}',
        CASE step WHEN 1 THEN at ELSE ended END, CASE WHEN i %% 2000 = 7 THEN 'failed' ELSE 'delivered' END, 1,
        CASE WHEN i %% 2000 <> 7 THEN ended END, 3 * i + step
    FROM (
        SELECT l.*, step, CASE WHEN step = 1 THEN 'link_created' WHEN step < steps THEN 'paid' ELSE status END AS said
        FROM lives l, generate_series(1, steps) AS step WHERE step = steps OR {_LATE}
    ) AS told""",
    "event_tries": f"""
    (event_id, client_id, at, milliseconds, http_status)
    SELECT {_id("at", "e")}, client_id, at, 20, CASE WHEN i %% 2000 = 7 THEN 500 ELSE 200 END
    FROM lives WHERE {_LATE}""",
    "callbacks": f"""
    (client_id, gateway, attempt_id, digest, said, fields, received_at)
    SELECT client_id, gateway, attempt, sha256(int8send(i)), 'Paid',
        jsonb_build_object('reference', 'INV-' || i, 'status', 'Paid', 'paynowreference', 30000000 + i), ended
    FROM lives WHERE {_RECEIVED} AND gateway IN ('paynow', 'ecocash')""",
    "refunds": """
    (payment_id, client_id, attempt_id, gateway, gateway_reference, amount_cents, state, created_at)
    SELECT id, client_id, attempt, gateway, 'R' || i, GREATEST(cents / 2, 1), 'succeeded', ended
    FROM lives WHERE status IN ('refunded', 'partially_refunded')""",
    "disputes": """
    (payment_id, client_id, attempt_id, gateway, gateway_reference, amount_cents, state)
    SELECT id, client_id, attempt, gateway, 'D' || i, cents, 'open' FROM lives WHERE status = 'disputed'""",
    "reviews": """
    (payment_id, client_id, attempt_id, reason, evidence, opened_at)
    SELECT id, client_id, attempt, 'amount_mismatch', '{"said": "Paid"}', ended
    FROM lives WHERE status = 'review'""",
    "idempotency_keys": f"""
    (client_id, caller, operation, key, digest, lease, made, status, body, created_at)
    SELECT client_id, 'backend', 'POST /v1/clients/{{client_id:uuid}}/payments/create-link', md5('key' || i),
        sha256(int8send(i)), at, id, 201, convert_to(repeat('{{"id":"', 100), 'UTF8'), at
    FROM lives WHERE {_RECENT}""",
    "link_rates": """
    (client_id, moments) SELECT DISTINCT client_id, '{}'::timestamptz[] FROM lives""",
}

_CREDENTIALS = f"""
INSERT INTO payment_settings (client_id, paynow_integration_id, paynow_integration_key_enc, stripe_secret_key_enc)
SELECT {_tenant("k")}, '1201', 'sealed', 'sealed' FROM generate_series(2, 1000) AS k"""


def fill(url: str, payments: int, now: datetime) -> None:
    """Fill an empty, migrated database with that many payments (a multiple of 10,000), the last of them `now`, and
    with all that goes with them. As the role that owns the tables."""
    values = {"n": payments, "now": now}
    with psycopg.connect(url, autocommit=True) as connection:
        seeds.save_credentials(url)
        connection.execute(_CREDENTIALS)
        _run(connection, "lives", _LIVES, values)
        with _bare(connection):
            for table, rows in _ROWS.items():
                _load(connection, table, rows, values)
        connection.execute("SELECT setval('events_position', %s)", (3 * payments + 10,))
        connection.execute("DROP TABLE lives")
        for table in READ:
            _run(connection, f"vacuum {table}", f"VACUUM {table}")
        _run(connection, "analyze", "ANALYZE")


def _load(connection: psycopg.Connection, table: str, rows: str, values: dict[str, Any]) -> None:
    """With `wal_level=minimal` what goes into a table that the same transaction emptied is written once only."""
    with connection.transaction():
        connection.execute(f"TRUNCATE {table}")
        _run(connection, table, f"INSERT INTO {table} {rows}", values)


def _run(connection: psycopg.Connection, what: str, sql: str, values: dict[str, Any] | None = None) -> None:
    begun = time.monotonic()
    psycopg.ClientCursor(connection).execute(sql, values)
    if (took := time.monotonic() - begun) > 5:
        print(f"    {what}: {took:.0f} s", flush=True)


_CONSTRAINTS = """
SELECT conrelid::regclass::text, quote_ident(conname), pg_get_constraintdef(oid), contype = 'f' AS refers
FROM pg_constraint WHERE contype IN ('p', 'u', 'f') AND conrelid = ANY(%s::regclass[])
ORDER BY contype = 'f' DESC, oid"""
_INDEXES = """
SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid = ANY(%s::regclass[]) AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)"""


@contextmanager
def _bare(connection: psycopg.Connection) -> Iterator[None]:
    """The tables without indexes, keys and triggers inside the block, with all of them after it. References are put
    back without looking through what was just made by them."""
    constraints = connection.execute(_CONSTRAINTS, (list(TABLES),)).fetchall()
    indexes = connection.execute(_INDEXES, (list(TABLES),)).fetchall()
    for table, name, _, _ in constraints:
        connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    for table in TABLES:
        connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    yield
    for name, definition in indexes:
        _run(connection, name, definition)
    for table, name, definition, refers in sorted(constraints, key=lambda row: row[3]):
        unchecked = " NOT VALID" if refers else ""
        _run(connection, name, f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}{unchecked}")
    for table in TABLES:
        connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def moment(url: str) -> datetime:
    """When the last payment was made: what `now` was when the database was filled."""
    with psycopg.connect(url) as connection:
        row = connection.execute(f"SELECT max(created_at) FROM payments WHERE client_id = {SHOP_SQL}").fetchone()
    assert row is not None
    found: datetime = row[0]
    return found


def of_big_tenant(payments: int, count: int) -> list[int]:
    """Numbers of payments of the big tenant, spread over the two years."""
    step = payments // BIG_SHARE // count
    return [each * step * BIG_SHARE + 3 for each in range(count)]
