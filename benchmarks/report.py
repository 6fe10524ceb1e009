"""What a run found: figures in sections, as a readable table and as JSON."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_WHAT, _VALUE = 52, 10


@dataclass(frozen=True, slots=True)
class Figure:
    """One line. `of` holds ratios to other figures of the same run; `met` is None where there is no aim."""

    what: str
    value: float
    unit: str
    of: dict[str, float] = field(default_factory=dict)
    more: str = ""
    aim: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    figures: Sequence[Figure]
    notes: Sequence[str] = ()


def show(section: Section, took: float) -> None:
    """Print the section's table, and how many seconds it took."""
    print(f"\n{section.title}  [{took:.0f} s]")
    for figure in section.figures:
        print(_line(figure))
    for note in section.notes:
        print(f"    {note}")
    sys.stdout.flush()


def _line(figure: Figure) -> str:
    ratios = " · ".join(f"{_percent(ratio)} of {name}" for name, ratio in figure.of.items())
    verdict = "" if figure.met is None else f"aim {figure.aim}: {'met' if figure.met else 'MISSED'}"
    rest = "   ".join(part for part in (ratios, figure.more, verdict) if part)
    line = f"  {figure.what:<{_WHAT}} {_number(figure.value):>{_VALUE}} {figure.unit:<4} {rest}"
    return line.rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _percent(ratio: float) -> str:
    return f"{ratio * 100:.0f} %"


def as_json(facts: dict[str, Any], sections: Sequence[Section]) -> dict[str, Any]:
    """The run as plain values."""
    return {"machine": facts, "sections": [asdict(section) for section in sections]}


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that `percent` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
