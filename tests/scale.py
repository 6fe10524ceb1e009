"""How much of the long proofs runs: by default a part, which finds a fault of the code as well; all of it by
`make test PROOFS=full`, for a release."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable

FULL = os.environ.get("PROOFS") == "full"

# Says of the first, second, … step how it is cut off, as (dies, after it): the process dies, or its answer is lost.
Way = Callable[[int], tuple[bool, bool]]


def of(whole: int, part: int) -> int:
    """So many of something."""
    return whole if FULL else part


def ways_to_break_off() -> list[Way]:
    """All steps are to be cut off in each of these ways: by a crash after it and by a lost answer in turn, beginning
    with either, as the run's seed has it; whole, each step in all four ways."""
    if FULL:
        return [_always(dies, after) for dies, after in itertools.product((True, False), (False, True))]
    first = random.getrandbits(1)
    return [lambda step: ((step + first) % 2 == 0, True)]


def _always(dies: bool, after: bool) -> Way:
    return lambda _step: (dies, after)
