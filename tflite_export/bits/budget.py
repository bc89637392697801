"""From a Pareto front of bits to a real file under a budget of bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import BudgetError
from .knapsack import Front
from .mixed_bits import FileSize, MixedBits

# Layer -> bits of its kernel -> bytes, or sensitivity.
Table = dict[str, dict[int, Any]]
# Exports beyond the best point found first.
_MORE_FILES = 8
# Exports at most, one change after the other, where no other file fits.
_MORE_CHANGES = 40


class Made(NamedTuple):
    """A file that was made, to be measured.

    Attributes:
        bits: Layer -> bits of its kernel.
        size: What it takes.
    """

    bits: dict[str, int]
    size: FileSize


class Walk:
    """Makes files along the front, towards the last point that fits a budget.

    What a file holds beside its kernels depends a little on their bits: where tensors
    change their bits, or low-bit codes are widened, it has another operator. So the
    smallest kernels do not always make the smallest file; where nothing on the front
    fits, files beside it are made, too.

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
        self._uniform = list(made)
        self._made = {self._key(found.bits): found for found in made}
        # Least bytes that a file holds beside the kernels.
        self._least_rest = min(
            size.file_bytes - sum(size.layer_bytes[layer] for layer in options)
            for _, size in made
        )

    def files(self) -> Iterator[Made]:
        """Yields every file on the way."""
        yield from self._towards_budget()
        if not any(map(self._fits, self._made.values())):
            yield from self._small_files()

    def _towards_budget(self) -> Iterator[Made]:
        """Yields points of the front.

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
            if self._fits(made):
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
            if self._fits(made):
                return

    def _small_files(self) -> Iterator[Made]:
        """Yields small files until one fits, in an order that no budget changes."""
        powers = [0, *(2**power for power in range(_MORE_FILES))]
        points = [self._make(point) for point in powers if point < len(self._front)]
        yield from points
        smallest = min([*self._uniform, *points], key=_file_bytes)
        yield from itertools.islice(self._descent(smallest), _MORE_CHANGES)

    def _descent(self, smallest: Made) -> Iterator[Made]:
        """Yields files with other bits in one layer, and goes on from smaller ones."""
        improved = True
        while improved and not self._fits(smallest):
            improved = False
            for bits in self._changes(smallest):
                made = self._measure(bits)
                yield made
                if made.size.file_bytes < smallest.size.file_bytes:
                    smallest, improved = made, True
                    break

    def _changes(self, made: Made) -> list[dict[str, int]]:
        """Returns the bits with those of one layer changed, cheap kernels first."""
        found = [
            (num_bytes - made.size.layer_bytes[layer], {**made.bits, layer: bits})
            for layer, own in self._options.items()
            for bits, num_bytes in own.items()
            if bits != made.bits[layer]
        ]
        return [bits for _, bits in sorted(found, key=lambda change: change[0])]

    def _fits(self, made: Made) -> bool:
        """Returns whether a file is within the budget."""
        return made.size.file_bytes <= self._budget_bytes

    def _within(self, rest: int) -> int:
        """Returns the last point that fits if a file holds so much beside kernels."""
        return self._front.within(self._budget_bytes - rest)

    def _make(self, point: int) -> Made:
        """Returns the bits of a point, and the file that they make."""
        chosen = zip(self._options.items(), self._front.choices[point], strict=True)
        bits = {layer: [*own][option] for (layer, own), option in chosen}
        return self._measure(bits)

    def _measure(self, bits: dict[str, int]) -> Made:
        """Returns the file that bits make; each is made once."""
        key = self._key(bits)
        if key not in self._made:
            self._made[key] = Made(bits, self._mixed.size(bits))
        return self._made[key]

    def _key(self, bits: dict[str, int]) -> tuple[int, ...]:
        """Returns bits in the order of layers."""
        return tuple(bits[layer] for layer in self._options)


def _file_bytes(made: Made) -> int:
    """Returns the size of a file."""
    return made.size.file_bytes


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
        smallest = min(map(_file_bytes, made))
        raise BudgetError(
            f"`budget_bytes` must be larger: the smallest file found has {smallest} "
            f"bytes. Received: {budget_bytes}. Allow kernels fewer bits with "
            "`candidates`, or make the model smaller.",
            smallest,
        )

    def loss(found: Made) -> tuple[float, int]:
        total = sum(own[found.bits[layer]] for layer, own in losses.items())
        return total, found.size.file_bytes

    return min(fitting, key=loss)
