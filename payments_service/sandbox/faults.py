"""Faults that are planned at a simulator: where they strike, how often, whom. What goes wrong is each simulator's own.

A simulator has a table of its kinds, each with whatever says what it does, and a function `plan` that makes a `Fault`
of a kind. Its ledger keeps them in `Faults`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, Protocol, TypeVar


class AnyKind(Protocol):
    """What every kind tells of itself: for people, where it may happen, and its usual delay."""

    @property
    def title(self) -> str: ...

    @property
    def may(self) -> tuple[str, ...]: ...

    @property
    def seconds(self) -> float: ...


K = TypeVar("K", bound=AnyKind)


@dataclass(slots=True, eq=False)
class Fault(Generic[K]):
    """A planned fault: which, where, how often, whom. ValueError tells what cannot be.

    `on` names operations. `times` limits its uses (None: always): in all, or on `each` operation. `seconds` is the
    kind's delay. With `reference` it concerns only what is called that, which need not exist yet. Of what it concerns
    it strikes the given `share` (None: all), drawn by `dice`. `used` tells how often it did: in all, or on each.
    """

    name: str
    kind: K
    on: tuple[str, ...]
    times: int | None = None
    seconds: float = 0.0
    reference: str = ""
    share: float | None = None
    dice: random.Random = field(default_factory=random.Random, repr=False)
    each: bool = False
    uses: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if wrong := set(self.on) - set(self.kind.may):
            may = ", ".join(self.kind.may)
            raise ValueError(f"{self.name} cannot happen on {', '.join(sorted(wrong))}; only on {may}")
        if self.times is not None and self.times < 1:
            raise ValueError("times is 1 or more, or absent for always")
        if self.seconds < 0:
            raise ValueError("seconds is never negative")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError("share is above 0 and at most 1, or absent for all")

    @property
    def used(self) -> int | dict[str, int]:
        return dict(self.uses) if self.each else self.uses.total()

    @property
    def spent(self) -> bool:
        """Whether it has nothing left to do."""
        return not any(map(self._is_left, self.on))

    def is_for(self, reference: str) -> bool:
        """Whether it was planned for this very name."""
        return self.reference == reference

    def strikes(self, operation: str, is_called: Callable[[str], bool]) -> bool:
        """Whether it interferes now with what `is_called` so; then it counts as used once more."""
        if operation not in self.on or not self._is_left(operation):
            return False
        if self.reference and not is_called(self.reference):
            return False
        if self.share is not None and self.dice.random() >= self.share:
            return False
        self.uses[operation] += 1
        return True

    def _is_left(self, operation: str) -> bool:
        used = self.uses[operation] if self.each else self.uses.total()
        return self.times is None or used < self.times


P = ParamSpec("P")
F = TypeVar("F", bound="Fault[Any]")


class Faults(list[F], Generic[P, F]):
    """The faults that are planned at one simulator, in the order in which they strike; `plan` makes them."""

    def __init__(self, plan: Callable[P, F]) -> None:
        super().__init__()
        self._plan = plan

    def add(self, *args: P.args, **kwargs: P.kwargs) -> F:
        """Plan one: see the simulator's `plan`. ValueError tells what cannot be."""
        fault = self._plan(*args, **kwargs)
        self.append(fault)
        return fault

    def forget(self, reference: str = "") -> None:
        """Forget those that are planned for this reference, or all."""
        self[:] = [fault for fault in self if reference and not fault.is_for(reference)]

    @property
    def unspent(self) -> list[F]:
        return [fault for fault in self if not fault.spent]

    def striking(self, operation: str, is_called: Callable[[str], bool]) -> Iterator[F]:
        """Those that interfere now with what `is_called` so, each counted as used when it is taken."""
        return (fault for fault in self if fault.strikes(operation, is_called))


def known(kinds: Mapping[str, K], name: str) -> K:
    """The kind of this name, or ValueError."""
    if name not in kinds:
        raise ValueError(f"there is no fault {name!r}; there are {', '.join(kinds)}")
    return kinds[name]


def names(name: str, reference: str) -> bool:
    """Whether a name means this reference: it is equal, or the reference goes on after it with a `-`.

    A service may append a suffix of its own to its tenant's reference (`INV-1` is sent as `INV-1-K7M2`).
    """
    return reference == name or reference.startswith(f"{name}-")
