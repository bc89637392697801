"""Errors that callers can catch separately; nothing here needs TensorFlow."""

from __future__ import annotations

_MAX_NAMED = 8


class VerificationError(RuntimeError):
    """Raised if a file does not compute what the model was trained to compute.

    Attributes:
        mismatches: One sentence per difference.
    """

    def __init__(self, what: str, mismatches: list[str]) -> None:
        self.mismatches = mismatches
        named = "\n  ".join(mismatches[:_MAX_NAMED])
        more = len(mismatches) - _MAX_NAMED
        if more > 0:
            named += f"\n  ... and {more} more"
        super().__init__(f"{what} does not equal the trained model:\n  {named}")


class BudgetError(ValueError):
    """Raised if no file is small enough.

    Attributes:
        smallest_bytes: Size of the smallest file found.
    """

    def __init__(self, message: str, smallest_bytes: int) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes
