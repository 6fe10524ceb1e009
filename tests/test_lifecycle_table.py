"""The table of moves: complete, as drawn, and with the laws that no report and no person may break."""

from __future__ import annotations

import itertools
import re

import pytest

from payments_service import lifecycle
from payments_service.lifecycle import MOVES, OVER_UNPAID, Status, allowed
from payments_service.outbox import EVENT_OF
from tests.test_lifecycle import MONEY_STATUSES


def test_every_status_has_its_moves() -> None:
    """Also none: each status stands in the table, with statuses only; to itself lead those alone whose refunded sum may
    change."""
    assert set(MOVES) == set(Status)
    for status, targets in MOVES.items():
        assert targets <= set(Status)
        assert (status in targets) is (status in (Status.PARTIALLY_REFUNDED, Status.DISPUTED))


def drawn() -> set[tuple[Status, Status]]:
    """The arrows of the drawing at the top of the module: along a line, and from the word that a corner hangs below."""
    lines = [line.split("(")[0] for line in (lifecycle.__doc__ or "").splitlines() if "─>" in line]
    arrows = set()
    for number, line in enumerate(lines):
        words = [[Status(word) for word in part.split(" | ")] for part in re.findall(r"[a-z_]+(?: \| [a-z_]+)*", line)]
        signs = re.findall(r"<──>|[─]+>", line)
        if "└" in line:
            words = [[_above(lines[:number], line.index("└"))], *words]
        for before, sign, after in zip(words[:-1], signs, words[1:], strict=True):
            pairs = set(itertools.product(before, after))
            arrows |= pairs | ({(b, a) for a, b in pairs} if sign == "<──>" else set())
    return arrows


def _above(lines: list[str], column: int) -> Status:
    for line in reversed(lines):
        for word in re.finditer(r"[a-z_]+", line):
            if word.start() <= column < word.end():
                return Status(word.group())
    raise AssertionError("a corner hangs below nothing")


def test_the_drawing_agrees_with_the_table() -> None:
    """Every arrow drawn is a move, and every move is a way along the arrows, but for those from and to a review."""
    arrows = drawn()
    assert len(arrows) > 10
    assert all(allowed(before, after) for before, after in arrows), arrows
    ways = set(arrows)
    while more := {(a, d) for a, b in ways for c, d in arrows if b is c} - ways:
        ways |= more
    moves = {(before, after) for before, targets in MOVES.items() for after in targets}
    assert {move for move in moves if Status.REVIEW not in move} <= ways


def test_nothing_leads_to_pending() -> None:
    assert all(Status.PENDING not in targets for targets in MOVES.values())


def test_every_status_can_be_reached_from_pending() -> None:
    reached = {Status.PENDING}
    while new := set().union(*(MOVES[status] for status in reached)) - reached:
        reached |= new
    assert reached == set(Status)


def test_every_status_leads_to_review_so_that_odd_evidence_is_never_stuck() -> None:
    assert all(Status.REVIEW in targets for status, targets in MOVES.items() if status is not Status.REVIEW)


def test_money_never_becomes_no_money_without_a_person() -> None:
    """From what was paid, nothing leads back to an unpaid status; only a person may find that none came."""
    for status in MONEY_STATUSES:
        assert not MOVES[status] & {Status.PENDING, *OVER_UNPAID}
    assert MOVES[Status.REVIEW] == {Status.FAILED, *MONEY_STATUSES}


def test_the_statuses_that_are_over_unpaid_can_still_be_paid() -> None:
    assert {Status.FAILED, Status.EXPIRED, Status.CANCELLED} == OVER_UNPAID
    assert all(Status.PAID in MOVES[status] for status in OVER_UNPAID)


@pytest.mark.parametrize("current", Status)
@pytest.mark.parametrize("target", Status)
def test_allowed_is_what_the_table_says(current: Status, target: Status) -> None:
    assert allowed(current, target) is (target in MOVES[current])


def test_every_status_but_pending_has_an_event() -> None:
    """Named as the contract names them: the backend matches on these words."""
    assert EVENT_OF == {
        Status.PAID: "payment.paid",
        Status.FAILED: "payment.failed",
        Status.EXPIRED: "payment.expired",
        Status.CANCELLED: "payment.cancelled",
        Status.PARTIALLY_REFUNDED: "payment.partially_refunded",
        Status.REFUNDED: "payment.refunded",
        Status.DISPUTED: "payment.disputed",
        Status.REVIEW: "payment.review",
    }
    assert set(EVENT_OF) == set(Status) - {Status.PENDING}
