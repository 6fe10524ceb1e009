"""How many links a tenant may make: CREATE_LINK_RATE in any window, exact over all replicas.

The moments of the links of the last window stand in one row per tenant, which a link changes or is refused by in one
guarded statement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from payments_service.context import Context
from payments_service.errors import TooMany
from payments_service.parsers import Rate


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a rate: `remaining` calls now, and one more in `seconds` at the latest."""

    rate: Rate
    remaining: int
    seconds: int

    @property
    def headers(self) -> dict[str, str]:
        """The RateLimit fields of the IETF's draft 10 (draft-ietf-httpapi-ratelimit-headers)."""
        return {
            "RateLimit-Policy": f'"create-link";q={self.rate.count};w={self.rate.seconds}',
            "RateLimit": f'"create-link";r={self.remaining};t={self.seconds}',
        }


# A tenant without settings has nothing to make links with: nothing is counted, and nothing is left of one that is just
# being deleted.
_TAKE = """
WITH here AS (SELECT client_id FROM payment_settings WHERE client_id = %(client_id)s FOR KEY SHARE)
INSERT INTO link_rates AS r (client_id, moments) SELECT client_id, ARRAY[%(at)s::timestamptz] FROM here
ON CONFLICT (client_id) DO UPDATE
SET moments = ARRAY(SELECT m FROM unnest(r.moments) AS m WHERE m > %(since)s ORDER BY m) || %(at)s::timestamptz
WHERE r.client_id = %(client_id)s AND (SELECT count(*) FROM unnest(r.moments) AS m WHERE m > %(since)s) < %(most)s
RETURNING cardinality(moments) AS used, moments[1] AS first"""
# The one that must leave the window before there is room again; null when others' links have made room since.
_FIRST = """
SELECT (SELECT m FROM link_rates r, unnest(r.moments) AS m WHERE r.client_id = %(client_id)s AND m > %(since)s
        ORDER BY m DESC OFFSET %(most)s - 1 LIMIT 1) AS moment
FROM payment_settings WHERE client_id = %(client_id)s"""


async def take(context: Context, client_id: UUID) -> Allowance:
    """Count one link of the tenant. Raises TooMany, and counts nothing, when the rate is used up."""
    rate, at = context.link_rate, context.clock()
    window = timedelta(seconds=rate.seconds)
    values = {"client_id": client_id, "at": at, "since": at - window, "most": rate.count}
    if taken := await context.db.run(_TAKE, values, tenant=client_id):
        return Allowance(rate, rate.count - taken[0]["used"], _until(taken[0]["first"] + window, at))
    found = await context.db.run(_FIRST, values, tenant=client_id)
    if not found:
        return Allowance(rate, rate.count, 1)
    first = found[0]["moment"]
    wait = _until(first + window, at) if first else 1
    raise TooMany(
        f"{rate.count} links were asked for within {rate.seconds} seconds, which is the limit: "
        f"try again in {wait} seconds.",
        wait,
        Allowance(rate, 0, wait).headers,
    )


def _until(moment: datetime, at: datetime) -> int:
    return max(1, ceil((moment - at).total_seconds()))
