"""How much of the long proofs runs: by default a part, which finds a fault of the code as well; all of it by
`make test PROOFS=full`, for a release."""

from __future__ import annotations

import itertools
import os

FULL = os.environ.get("PROOFS") == "full"


def of(whole: int, part: int) -> int:
    """So many of something."""
    return whole if FULL else part


def ways_to_break_off() -> list[tuple[bool, bool]]:
    """How a step is cut off, as (dies, after it): the process dies, or only the answer is lost."""
    return list(itertools.product((True, False), (False, True))) if FULL else [(True, True), (False, True)]
