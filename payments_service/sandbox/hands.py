"""What can be wrong with an action that somebody takes at a simulator: by hand, by a test, by remote control."""

from __future__ import annotations


class UnknownReference(LookupError):
    """Nothing is called that."""


class WrongMove(ValueError):
    """The state of the payment does not lead there."""


class WrongPin(ValueError):
    """The customer typed a wrong PIN; the text says what became of the payment."""
