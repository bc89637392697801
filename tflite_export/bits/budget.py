"""Finds the best real file within a budget of bytes, along a Pareto front of bits."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import BudgetError
from .knapsack import Front
from .mixed_bits import FileSize, MixedBits

# Layer -> bits of its kernel -> bytes or sensitivity.
Table = dict[str, dict[int, Any]]
# Additional exports beyond the first best point.
_MORE_FILES = 8
# Most exports, one change after another, if no other file fits.
_MORE_CHANGES = 40


class MeasuredFile(NamedTuple):
    """A file that was exported to measure its size.

    Attributes:
        bits: Layer -> bits of its kernel.
        size: Its sizes in bytes.
    """

    bits: dict[str, int]
    size: FileSize


class Walk:
    """Exports files along the front, towards the last point that fits a budget.

    The bytes of a file outside its kernels depend slightly on the bits of the kernels:
    where tensors change their bits, or low-bit codes are widened, the file has another
    operator. So the smallest kernels do not always give the smallest file. If nothing
    on the front fits, files next to it are also exported.

    Args:
        mixed: Exports the files.
        front: The choices to choose from.
        options: Layers and bits that the numbers in `front` stand for.
        measured: Files that were already exported.
        budget_bytes: Largest size of a file.
    """

    def __init__(
        self,
        mixed: MixedBits,
        front: Front,
        options: Table,
        measured: Sequence[MeasuredFile],
        budget_bytes: int,
    ) -> None:
        self._mixed, self._front, self._options = mixed, front, options
        self._budget_bytes = budget_bytes
        self._uniform = list(measured)
        self._measured = {self._key(file.bits): file for file in measured}
        # Fewest bytes that a file has outside the kernels.
        self._least_rest = min(
            size.file_bytes - sum(size.layer_bytes[layer] for layer in options)
            for _, size in measured
        )

    def files(self) -> Iterator[MeasuredFile]:
        """Yields every file of the search."""
        yield from self._towards_budget()
        if not any(map(self._fits, self._measured.values())):
            yield from self._small_files()

    def _towards_budget(self) -> Iterator[MeasuredFile]:
        """Yields points of the front.

        Each determines where to look next, between the best point that fits and the
        cheapest that does not. Then points beyond that one are tried, the best first:
        one of them may have fewer bytes outside its kernels.
        """
        fits, too_large = -1, len(self._front)
        tried = set()
        point = max(self._within(self._least_rest), 0)
        while point > fits:
            tried.add(point)
            file = self._make(point)
            yield file
            rest = file.size.file_bytes - int(self._front.costs[point])
            self._least_rest = min(self._least_rest, rest)
            if self._fits(file):
                fits = point
            else:
                too_large = point
            point = min(max(self._within(rest), 0), too_large - 1)
        beyond = self._within(self._least_rest)
        count = min(_MORE_FILES, beyond - fits)
        for point in np.linspace(beyond, fits + 1, max(count, 0), dtype=int).tolist():
            if point in tried:
                continue
            file = self._make(point)
            yield file
            if self._fits(file):
                return

    def _small_files(self) -> Iterator[MeasuredFile]:
        """Yields small files until one fits, in the same order for every budget."""
        powers = [0, *(2**power for power in range(_MORE_FILES))]
        points = [self._make(point) for point in powers if point < len(self._front)]
        yield from points
        smallest = min([*self._uniform, *points], key=_file_bytes)
        yield from itertools.islice(self._descent(smallest), _MORE_CHANGES)

    def _descent(self, smallest: MeasuredFile) -> Iterator[MeasuredFile]:
        """Yields files with other bits in one layer, continuing from smaller files."""
        improved = True
        while improved and not self._fits(smallest):
            improved = False
            for bits in self._changes(smallest):
                file = self._measure(bits)
                yield file
                if file.size.file_bytes < smallest.size.file_bytes:
                    smallest, improved = file, True
                    break

    def _changes(self, measured: MeasuredFile) -> list[dict[str, int]]:
        """Returns copies of the bits with one layer changed, small kernels first."""
        changes = [
            (
                num_bytes - measured.size.layer_bytes[layer],
                {**measured.bits, layer: bits},
            )
            for layer, own in self._options.items()
            for bits, num_bytes in own.items()
            if bits != measured.bits[layer]
        ]
        return [bits for _, bits in sorted(changes, key=lambda change: change[0])]

    def _fits(self, measured: MeasuredFile) -> bool:
        """Returns whether a file is within the budget."""
        return measured.size.file_bytes <= self._budget_bytes

    def _within(self, rest: int) -> int:
        """Returns the last point that fits if `rest` bytes are outside the kernels."""
        return self._front.within(self._budget_bytes - rest)

    def _make(self, point: int) -> MeasuredFile:
        """Exports the file of a point."""
        chosen = zip(self._options.items(), self._front.choices[point], strict=True)
        bits = {layer: [*own][option] for (layer, own), option in chosen}
        return self._measure(bits)

    def _measure(self, bits: dict[str, int]) -> MeasuredFile:
        """Returns the file with these bits, which is exported only once."""
        key = self._key(bits)
        if key not in self._measured:
            self._measured[key] = MeasuredFile(bits, self._mixed.size(bits))
        return self._measured[key]

    def _key(self, bits: dict[str, int]) -> tuple[int, ...]:
        """Returns the bits in the order of the layers."""
        return tuple(bits[layer] for layer in self._options)


def _file_bytes(measured: MeasuredFile) -> int:
    """Returns the size of a file."""
    return measured.size.file_bytes


def best_file(
    measured: Sequence[MeasuredFile], losses: Table, budget_bytes: int
) -> MeasuredFile:
    """Returns the fitting file with the least loss, the smallest of equal ones.

    Args:
        measured: The files to choose from.
        losses: Sensitivities.
        budget_bytes: Largest size of the file.

    Raises:
        BudgetError: If all are too large.
    """
    fitting = [file for file in measured if file.size.file_bytes <= budget_bytes]
    if not fitting:
        smallest = min(map(_file_bytes, measured))
        raise BudgetError(
            f"`budget_bytes` must be larger: the smallest file found has {smallest} "
            f"bytes. Received: {budget_bytes}. Allow kernels fewer bits with "
            "`candidates`, or make the model smaller.",
            smallest,
        )

    def loss(file: MeasuredFile) -> tuple[float, int]:
        total = sum(own[file.bits[layer]] for layer, own in losses.items())
        return total, file.size.file_bytes

    return min(fitting, key=loss)
