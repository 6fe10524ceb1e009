"""Zimbabwe's own: its time, and its mobile numbers as people write them."""

from __future__ import annotations

import re
from datetime import timedelta, timezone

HARARE = timezone(timedelta(hours=2), "Africa/Harare")  # no summer time

_LOCAL_NUMBER = re.compile(r"07[0-9]{8}", re.ASCII)


def is_local_number(phone: str) -> bool:
    """Whether this is a mobile number as people write it: `07XXXXXXXX`."""
    return bool(_LOCAL_NUMBER.fullmatch(phone))
