"""When a link's time is over: what is asked once more, what may be closed, and what is waited for."""

from __future__ import annotations

from datetime import timedelta

from payments_service.records import PAYMENT_COLUMNS

# An expired link whose gateway gives no answer is closed after this; money that comes later is recorded as late.
EXPIRY_GRACE = timedelta(minutes=10)
# How long a prompt on a phone is waited for before it is called unanswered. Networks publish no figure; theirs end
# within two minutes.
PROMPT_LIFE = timedelta(minutes=2)
# No code of a gateway holds the end of a link for longer, whatever its clock says.
CODE_LIFE = timedelta(minutes=30)

# Only links that no attempt can be hiding money of: it was asked about since the end, or no answer came for long.
# OFFSET 0 has the attempts of each looked up: PostgreSQL takes nearly all pending links for expired, and would read all
# open attempts instead.
EXPIRED = f"""
SELECT {PAYMENT_COLUMNS} FROM payments p
WHERE p.status = 'pending' AND p.expires_at <= %(at)s AND (
    p.expires_at <= %(at)s - %(grace)s OR NOT EXISTS (
        SELECT FROM attempts a WHERE a.payment_id = p.id AND a.next_check_at IS NOT NULL
        AND (a.answered_at IS NULL OR a.answered_at < p.expires_at)))
  -- A customer whose bank is sending the money has paid in time.
  AND NOT EXISTS (
    SELECT FROM attempts a WHERE a.payment_id = p.id AND a.state = 'live' AND a.next_step ->> 'type' = 'wait'
    AND a.next_check_at IS NOT NULL OFFSET 0)
  -- A customer who has just been asked to pay is not told meanwhile that it is too late.
  AND NOT EXISTS (
    SELECT FROM attempts a WHERE a.payment_id = p.id AND a.state = 'live'
    AND (a.phone IS NOT NULL OR a.next_step ->> 'type' = 'show_code')
    AND (a.started_at > %(at)s - %(prompt_life)s::interval
         OR a.started_at > %(at)s - %(code_life)s::interval
            AND (a.next_step ->> 'expires_at')::timestamptz > %(at)s) OFFSET 0)
ORDER BY p.expires_at LIMIT %(limit)s"""

# The last question before the end: look at the open attempts of links whose time is just over.
ASK_BEFORE_EXPIRY = """
UPDATE attempts a SET next_check_at = %(at)s
FROM payments p
WHERE p.id = a.payment_id AND p.status = 'pending' AND p.expires_at <= %(at)s
  AND p.expires_at > %(at)s - %(grace)s::interval AND a.next_check_at > %(at)s + interval '1 minute'
  AND (a.answered_at IS NULL OR a.answered_at < p.expires_at)
RETURNING 1"""
