"""From a Pareto front of bits to a real file under a budget of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .knapsack import Front
from .mixed_bits import FileSize, MixedBits

# Layer -> bits of its kernel -> bytes, or sensitivity.
Table = dict[str, dict[int, Any]]
# Exports beyond the best point found first.
_MORE_FILES = 8


class Made(NamedTuple):
    """A file that was made, to be measured.

    Attributes:
        bits: Layer -> bits of its kernel.
        size: What it takes.
    """

    bits: dict[str, int]
    size: FileSize


class BudgetError(ValueError):
    """No choice of bits makes a file that is small enough.

    Attributes:
        smallest_bytes: Size of the smallest file.
    """

    def __init__(self, message: str, smallest_bytes: int) -> None:
        super().__init__(message)
        self.smallest_bytes = smallest_bytes


class Walk:
    """Makes files along the front, towards the last point that fits a budget.

    What a file holds beside its kernels depends a little on their bits: where tensors
    change their bits, or low-bit codes are widened, it has another operator.

    Args:
        mixed: Makes the files.
        front: The choices to choose from.
        options: Layers and bits that the numbers in `front` stand for.
        made: Files that were made already.
        budget_bytes: What a file may have.
    """

    def __init__(
        self,
        mixed: MixedBits,
        front: Front,
        options: Table,
        made: Sequence[Made],
        budget_bytes: int,
    ) -> None:
        self._mixed, self._front, self._options = mixed, front, options
        self._budget_bytes = budget_bytes
        # Least bytes that a file holds beside the kernels.
        self._least_rest = min(
            size.file_bytes - sum(size.layer_bytes[layer] for layer in options)
            for _, size in made
        )

    def files(self) -> Iterator[Made]:
        """Yields every file on the way.

        Each says where to look next, between the best point that fits and the cheapest
        that does not. Then points beyond that one are tried, the best first: there may
        be one that holds less beside its kernels.
        """
        fits, too_large = -1, len(self._front)
        tried = set()
        point = max(self._within(self._least_rest), 0)
        while point > fits:
            tried.add(point)
            made = self._make(point)
            yield made
            rest = made.size.file_bytes - int(self._front.costs[point])
            self._least_rest = min(self._least_rest, rest)
            if made.size.file_bytes <= self._budget_bytes:
                fits = point
            else:
                too_large = point
            point = min(max(self._within(rest), 0), too_large - 1)
        beyond = self._within(self._least_rest)
        count = min(_MORE_FILES, beyond - fits)
        for point in np.linspace(beyond, fits + 1, max(count, 0), dtype=int).tolist():
            if point in tried:
                continue
            made = self._make(point)
            yield made
            if made.size.file_bytes <= self._budget_bytes:
                return

    def _within(self, rest: int) -> int:
        """Returns the last point that fits if a file holds so much beside kernels."""
        return self._front.within(self._budget_bytes - rest)

    def _make(self, point: int) -> Made:
        """Returns the bits of a point, and the file that they make."""
        chosen = zip(self._options.items(), self._front.choices[point], strict=True)
        bits = {layer: [*own][option] for (layer, own), option in chosen}
        return Made(bits, self._mixed.size(bits))


def best_file(made: Sequence[Made], losses: Table, budget_bytes: int) -> Made:
    """Returns the file with the least loss that fits, of equal ones the smallest.

    Args:
        made: The files to choose from.
        losses: Sensitivities.
        budget_bytes: What the file may have.

    Raises:
        BudgetError: If all are too large.
    """
    fitting = [found for found in made if found.size.file_bytes <= budget_bytes]
    if not fitting:
        smallest = min(size.file_bytes for _, size in made)
        raise BudgetError(
            f"`budget_bytes` must be at least {smallest}, the bytes of the smallest "
            f"file. Received: {budget_bytes}. Allow kernels fewer bits with "
            "`candidates`, or make the model smaller.",
            smallest,
        )

    def loss(found: Made) -> tuple[float, int]:
        total = sum(own[found.bits[layer]] for layer, own in losses.items())
        return total, found.size.file_bytes

    return min(fitting, key=loss)
