"""Codes that a customer types into the InnBucks app: what the app asks of whoever gave them out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from payments_service.money import Money
from payments_service.sandbox.hands import UnknownReference


class NoSuchCode(UnknownReference):
    """No open payment has this code, or the payment has none; `why`: `unknown`, `used`, `expired` or `none`."""

    def __init__(self, text: str, why: str = "none") -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Bill:
    """What a code asks for, or what was paid by it; `ends_at`, Unix seconds, is the end of the code's life."""

    code: str
    merchant: str
    amount: Money
    reference: str
    status: str
    ends_at: float


class CodeSource(Protocol):
    """A gateway whose codes the app takes."""

    def bill(self, code: str) -> Bill:
        """What would be paid, or NoSuchCode: unknown, used, expired."""

    async def pay_code(self, code: str) -> object:
        """Pay it, or raise NoSuchCode."""

    def receipts(self) -> list[Bill]:
        """What was paid by code, oldest first."""
