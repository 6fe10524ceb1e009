"""What must hold of the money's books, each rule as data: `doctor` looks for rows that break one, and so does the test
suite after every test.

A rule is a condition in SQL on one row of the table that it walks, true when the row is broken. All rules of a table
are asked in one statement, over as many rows as its caller wants: by primary key, without locks, each statement with
one view of the database, so that a change that is written in one statement is never seen half. `OFFSET 0` keeps the
planner from reading the whole of another table into a hash, where a look into its index serves.

Rows that were copied in from the system before have `sequence` 0 until they change here: of them there is no history.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from payments_service.lifecycle import MOVES, RECEIVED, Status
from payments_service.outbox import EVENT_OF, EVENT_OF_MESSAGE, LINK_CREATED
from payments_service.reconcile import WATCH
from payments_service.settlements import RETURNED


@dataclass(frozen=True, slots=True)
class Check:
    """`rule`: what holds, for people; `advice`: what to do about a row that breaks it. `broken`: the condition, on the
    row `t` of `table`. `timely`: it tells of work that is left undone, so it depends on what time it is."""

    name: str
    table: str
    rule: str
    advice: str
    broken: str
    timely: bool = False


def _texts(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in sorted(values))


_RECEIVED = _texts(RECEIVED)
_MOVES = _texts(f"{before}>{after}" for before, all_after in MOVES.items() for after in all_after)
_EVENT = " ".join(f"WHEN '{status}' THEN '{kind}'" for status, kind in EVENT_OF.items())
_EVENT_OF_STEP = f"CASE s.to_status {_EVENT} ELSE '{LINK_CREATED}' END"
_TOLD = ", ".join(f"('{state}', '{kind}')" for state, kind in EVENT_OF_MESSAGE.items())
_BY_A_PERSON = "EXISTS (SELECT FROM transitions s WHERE s.payment_id = {} AND s.cause = 'person' OFFSET 0)"
_PERSON = _BY_A_PERSON.format("t.id")
# Whose money is the payment's, as `payments.absorb` has it.
_COUNTS = "a.state = 'paid' AND a.gateway_reference IS NOT DISTINCT FROM t.gateway_reference"

_CODE = (
    "This is a fault of the service or a change by hand: keep the rows as they are, and tell the developers the ids."
)
_GATEWAY = "Compare with the gateway's own records before anything is paid out or given back, and tell the developers."
_WORKERS = "Look whether a worker runs (`payments-service serve`), and at its log."

_PAYMENTS = (
    Check(
        "history_gap",
        "payments",
        "A payment's steps are numbered from 1 to its `sequence`, without gaps.",
        _CODE,
        """(SELECT count(*) <> t.sequence OR COALESCE(max(s.sequence), 0) <> t.sequence
                   OR COALESCE(min(s.sequence), 1) <> 1
            FROM transitions s WHERE s.payment_id = t.id)""",
    ),
    Check(
        "status_without_step",
        "payments",
        "A payment's status is the one that its last step led to.",
        _CODE,
        """EXISTS (SELECT FROM transitions s
                   WHERE s.payment_id = t.id AND s.sequence = t.sequence AND s.to_status <> t.status OFFSET 0)
           OR t.sequence = 0 AND t.status NOT IN ('pending', 'failed')
              AND EXISTS (SELECT FROM attempts a WHERE a.payment_id = t.id OFFSET 0)""",
    ),
    Check(
        "step_not_allowed",
        "payments",
        "Each step of a payment begins where the one before ended, and is one that a payment may take.",
        _CODE,
        f"""EXISTS (SELECT FROM transitions s
                    LEFT JOIN transitions b ON b.payment_id = s.payment_id AND b.sequence = s.sequence - 1
                    WHERE s.payment_id = t.id
                    AND (s.from_status <> b.to_status
                         OR CASE WHEN s.from_status IS NULL THEN s.sequence <> 1 OR s.to_status <> '{Status.PENDING}'
                            ELSE s.from_status || '>' || s.to_status NOT IN ({_MOVES}) END) OFFSET 0)""",
    ),
    Check(
        "step_without_event",
        "payments",
        "Each step of a payment has its event, and each event its step.",
        "The backend was told nothing of a step, or of one that was none: let it read the payment; " + _CODE,
        f"""(SELECT count(*) FROM events e WHERE e.payment_id = t.id AND e.message_id IS NULL)
              > (SELECT count(*) FROM transitions s WHERE s.payment_id = t.id)
            OR EXISTS (SELECT FROM transitions s
                       WHERE s.payment_id = t.id AND NOT EXISTS (
                           SELECT FROM events e WHERE e.payment_id = t.id AND e.sequence = s.sequence
                           AND e.type = {_EVENT_OF_STEP}) OFFSET 0)""",
    ),
    Check(
        "paid_at_wrong",
        "payments",
        "`paid_at` is set once a step said that the money came, and only then.",
        _CODE,
        f"""t.sequence > 0 AND (t.paid_at IS NOT NULL) <> EXISTS (
                SELECT FROM transitions s WHERE s.payment_id = t.id AND s.to_status IN ({_RECEIVED}) OFFSET 0)""",
    ),
    Check(
        "paid_without_money",
        "payments",
        "Money that came was brought by an attempt, or a person has decided that it came.",
        _GATEWAY,
        f"""t.sequence > 0 AND t.status IN ({_RECEIVED}) AND NOT EXISTS (
                SELECT FROM attempts a WHERE a.payment_id = t.id AND a.state = 'paid' OFFSET 0) AND NOT {_PERSON}""",
    ),
    Check(
        "reference_of_no_attempt",
        "payments",
        "A paid payment bears the gateway's reference of the attempt that brought the money.",
        _GATEWAY,
        f"""t.sequence > 0 AND t.status IN ({_RECEIVED})
            AND EXISTS (SELECT FROM attempts a WHERE a.payment_id = t.id AND a.state = 'paid' OFFSET 0)
            AND NOT EXISTS (SELECT FROM attempts a WHERE a.payment_id = t.id AND {_COUNTS} OFFSET 0)
            AND NOT {_PERSON}""",
    ),
    Check(
        "reference_of_two_payments",
        "payments",
        "One reference of a gateway's belongs to one payment.",
        "The unique index is damaged: see REINDEX. " + _GATEWAY,
        """t.gateway_reference <> '' AND EXISTS (
               SELECT FROM payments o WHERE o.client_id = t.client_id AND o.gateway = t.gateway
               AND o.gateway_reference = t.gateway_reference AND o.gateway_reference <> ''
               AND o.id <> t.id OFFSET 0)""",
    ),
    Check(
        "refunded_and_status",
        "payments",
        "What is refunded agrees with the status: none of `paid`, a part of `partially_refunded`, all of `refunded`.",
        _GATEWAY,
        """t.sequence > 0 AND CASE t.status WHEN 'refunded' THEN t.refunded_cents <> t.amount_cents
               WHEN 'partially_refunded' THEN t.refunded_cents NOT BETWEEN 1 AND t.amount_cents - 1
               WHEN 'disputed' THEN false WHEN 'failed' THEN false WHEN 'review' THEN false
               ELSE t.refunded_cents <> 0 END""",
    ),
    Check(
        "refunded_and_refunds",
        "payments",
        "`refunded_cents` is what the refunds and lost disputes of the money add up to.",
        _GATEWAY,
        # All of it: on the gateway's word alone, where it itemises nothing, or a person's.
        f"""t.sequence > 0 AND t.status IN ({_RECEIVED}) AND t.refunded_cents <> t.amount_cents
            AND EXISTS (SELECT FROM attempts a WHERE a.payment_id = t.id AND {_COUNTS} OFFSET 0)
            AND NOT EXISTS (SELECT FROM attempts a WHERE a.payment_id = t.id AND {_COUNTS}
                            AND LEAST({RETURNED}, t.amount_cents) = t.refunded_cents OFFSET 0)
            AND NOT EXISTS (SELECT FROM attempts a JOIN refunds r ON r.attempt_id = a.id
                            WHERE a.payment_id = t.id AND r.updated_at > %(lately)s OFFSET 0)
            AND NOT EXISTS (SELECT FROM attempts a JOIN disputes d ON d.attempt_id = a.id
                            WHERE a.payment_id = t.id AND d.updated_at > %(lately)s OFFSET 0)""",
    ),
    Check(
        "review_and_status",
        "payments",
        "A payment is in review while a question about it is open, and only then.",
        "Somebody must decide (`POST …/resolve`), or the question was left open by a fault: tell the developers.",
        """t.sequence > 0 AND (t.status = 'review') <> EXISTS (
               SELECT FROM reviews r WHERE r.payment_id = t.id AND r.resolved_at IS NULL OFFSET 0)""",
    ),
    Check(
        "attempt_of_another_amount",
        "payments",
        "Every attempt asks for exactly the payment's amount and currency.",
        _GATEWAY,
        """EXISTS (SELECT FROM attempts a WHERE a.payment_id = t.id
                   AND (a.amount_cents <> t.amount_cents OR a.currency <> t.currency) OFFSET 0)""",
    ),
    Check(
        "row_of_another_tenant",
        "payments",
        "All that belongs to a payment belongs to its tenant.",
        "Somebody may have seen another's data. " + _CODE,
        " OR ".join(
            f"EXISTS (SELECT FROM {table} c WHERE c.payment_id = t.id AND c.client_id <> t.client_id OFFSET 0)"
            for table in ("attempts", "transitions", "events", "reviews", "messages")
        ),
    ),
    Check(
        "pending_after_its_end",
        "payments",
        "A link is closed soon after its time is over.",
        _WORKERS,
        # A customer whose bank is sending the money has paid in time, and a code holds the end for half an hour.
        """t.status = 'pending' AND t.expires_at < %(at)s - interval '1 hour' AND NOT EXISTS (
               SELECT FROM attempts a WHERE a.payment_id = t.id AND a.state = 'live'
               AND a.next_step ->> 'type' = 'wait' AND a.next_check_at IS NOT NULL OFFSET 0)""",
        timely=True,
    ),
)

_ATTEMPTS = (
    Check(
        "attempt_without_next_check",
        "attempts",
        "An attempt that may still bring money is looked up again, for a month.",
        "Ask for the payment (`POST …/refresh`), which looks at it at once. " + _CODE,
        f"""t.next_check_at IS NULL AND (t.state = 'starting' OR t.state IN ('live', 'replaced') AND (
                t.last_checked_at IS NULL OR t.last_checked_at - t.watched_from <= interval '{WATCH.days} days'))""",
    ),
    Check(
        "money_not_counted",
        "attempts",
        "Money that came makes its payment paid, or a person is asked about it, or has decided.",
        _GATEWAY,
        f"""t.state = 'paid' AND NOT EXISTS (
                SELECT FROM payments p WHERE p.id = t.payment_id AND p.status IN ({_RECEIVED}, 'review') OFFSET 0)
            AND NOT EXISTS (
                SELECT FROM reviews r WHERE r.payment_id = t.payment_id AND r.attempt_id = t.id OFFSET 0)
            AND NOT {_BY_A_PERSON.format("t.payment_id")}""",
    ),
    Check(
        "reference_counted_twice",
        "attempts",
        "One payment of a gateway's counts for one payment of ours, or a person was asked.",
        _GATEWAY,
        f"""t.state = 'paid' AND t.gateway_reference <> ''
            AND NOT EXISTS (SELECT FROM reviews r WHERE r.payment_id = t.payment_id AND r.attempt_id = t.id OFFSET 0)
            AND EXISTS (SELECT FROM attempts o JOIN payments p ON p.id = o.payment_id
                        WHERE o.gateway_reference = t.gateway_reference AND o.gateway = t.gateway
                        AND o.client_id = t.client_id AND o.state = 'paid' AND o.id <> t.id
                        AND p.status IN ({_RECEIVED})
                        AND NOT EXISTS (
                            SELECT FROM reviews r WHERE r.payment_id = p.id AND r.attempt_id = o.id) OFFSET 0)""",
    ),
    Check(
        "more_refunded_than_paid",
        "attempts",
        "No more goes back than came.",
        _GATEWAY,
        """t.amount_cents < (SELECT sum(r.amount_cents) FROM refunds r
                             WHERE r.attempt_id = t.id AND r.state = 'succeeded')""",
    ),
    Check(
        "check_overdue",
        "attempts",
        "A look-up that is due is made.",
        _WORKERS,
        "t.next_check_at < %(at)s - interval '15 minutes'",
        timely=True,
    ),
)

_EVENTS = (
    Check(
        "event_state",
        "events",
        "An event that is due has a next try; one that was delivered says when.",
        "Send it once more (`POST /v1/events/{id}/redeliver`). " + _CODE,
        """(t.state = 'due') <> (t.next_try_at IS NOT NULL)
           OR (t.state = 'delivered') <> (t.delivered_at IS NOT NULL)""",
    ),
    Check(
        "event_of_another_body",
        "events",
        "An event's body tells of its own payment, step, kind and tenant, and of the amount.",
        "The backend may have been told what is not so: let it read the payment. " + _CODE,
        # As msgspec writes it. Quotes inside of a text are escaped, so that no text of a person's can look like this.
        """strpos(t.body, '"type":"' || t.type || '"') = 0
           OR strpos(t.body, '"sequence":' || t.sequence || ',') = 0
           OR strpos(t.body, '"id":"' || t.payment_id || '"') = 0
           OR strpos(t.body, '"client_id":"' || t.client_id || '"') = 0
           OR strpos(t.body, '"amount_cents":'
                     || (SELECT p.amount_cents FROM payments p WHERE p.id = t.payment_id) || ',') = 0""",
    ),
    Check(
        "event_overdue",
        "events",
        "An event that is due is sent.",
        _WORKERS,
        # Where there is nobody to be told, events wait to be pulled.
        "%(telling)s AND t.next_try_at < %(at)s - interval '15 minutes'",
        timely=True,
    ),
)

_REFUNDS = (
    Check(
        "refund_of_another_payment",
        "refunds",
        "A refund belongs to the payment and tenant of its attempt.",
        _CODE,
        """NOT EXISTS (SELECT FROM attempts a WHERE a.id = t.attempt_id AND a.payment_id = t.payment_id
                       AND a.client_id = t.client_id AND a.gateway = t.gateway OFFSET 0)""",
    ),
    Check(
        "refund_without_next_check",
        "refunds",
        "A refund that is on its way is looked up again.",
        "Ask for the payment (`POST …/refresh`), which looks at it at once. " + _CODE,
        """t.state IN ('requested', 'pending') AND t.updated_at <= %(lately)s AND EXISTS (
               SELECT FROM attempts a WHERE a.id = t.attempt_id AND a.next_check_at IS NULL OFFSET 0)""",
    ),
)

_DISPUTES = (
    Check(
        "dispute_of_another_payment",
        "disputes",
        "A dispute belongs to the payment and tenant of its attempt.",
        _CODE,
        """NOT EXISTS (SELECT FROM attempts a WHERE a.id = t.attempt_id AND a.payment_id = t.payment_id
                       AND a.client_id = t.client_id AND a.gateway = t.gateway OFFSET 0)""",
    ),
    Check(
        "dispute_not_shown",
        "disputes",
        "A payment whose money is contested is `disputed`, or a person looks at it.",
        _GATEWAY,
        f"""t.state = 'open' AND t.updated_at <= %(lately)s AND EXISTS (
                SELECT FROM attempts a JOIN payments p ON p.id = a.payment_id
                WHERE a.id = t.attempt_id AND a.gateway_reference = p.gateway_reference
                AND p.status IN ('paid', 'partially_refunded', 'refunded') OFFSET 0)
            AND NOT {_BY_A_PERSON.format("t.payment_id")}""",
    ),
)

_MESSAGES = (
    Check(
        "message_without_event",
        "messages",
        "The backend is told how far a message came.",
        _CODE,
        f"""EXISTS (SELECT FROM (VALUES {_TOLD}) AS told (state, kind)
                    WHERE told.state = t.state AND NOT EXISTS (
                        SELECT FROM events e WHERE e.message_id = t.id AND e.type = told.kind OFFSET 0))""",
    ),
    Check(
        "message_overdue",
        "messages",
        "A message that is due is sent.",
        _WORKERS,
        # Until the gateway has told whether there is a link at all, it waits.
        """t.next_try_at < %(at)s - interval '15 minutes' AND NOT EXISTS (
               SELECT FROM attempts a WHERE a.payment_id = t.payment_id AND a.state = 'starting' OFFSET 0)""",
        timely=True,
    ),
)

CHECKS: tuple[Check, ...] = (*_PAYMENTS, *_ATTEMPTS, *_EVENTS, *_REFUNDS, *_DISPUTES, *_MESSAGES)
TABLES = tuple(dict.fromkeys(check.table for check in CHECKS))


def _broken(table: str, *, timely: bool) -> str:
    """The names of the rules that the row `t` breaks, as an array."""
    chosen = [check for check in CHECKS if check.table == table and (timely or not check.timely)]
    tests = ", ".join(f"CASE WHEN {check.broken} THEN '{check.name}' END" for check in chosen)
    return f"array_remove(ARRAY[{tests}], NULL)"


def batch(table: str) -> str:
    """A statement that looks at up to `limit` rows of the table by their primary key, from `after` to `until`, both
    left out: `id`, `broken` of each row that breaks a rule, and of the last one looked at, with nothing in `broken`.

    Its other parameters: `at`, the moment of looking; `lately`, since when a change may be half recorded; `telling`,
    whether events are sent anywhere.
    """
    return f"""
    WITH part AS MATERIALIZED (
        SELECT * FROM {table} WHERE id > %(after)s AND id < %(until)s ORDER BY id LIMIT %(limit)s
    )
    SELECT id, broken FROM (SELECT t.id, {_broken(table, timely=True)} AS broken FROM part t OFFSET 0) AS looked
    WHERE broken <> '{{}}'
    UNION ALL (SELECT id, '{{}}' FROM part ORDER BY id DESC LIMIT 1)"""


# All rows of all tables at once, whatever time it is: for the small databases of tests. Its one parameter is `lately`.
EVERYTHING = " UNION ALL ".join(
    f"""SELECT id::text, broken
        FROM (SELECT t.id, {_broken(table, timely=False)} AS broken FROM {table} t OFFSET 0) AS looked
        WHERE broken <> '{{}}'"""
    for table in TABLES
)
