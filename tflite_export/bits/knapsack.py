"""Solves the multiple-choice knapsack: one option per item, least loss for a cost.

NumPy only. Items are added one after the other, keeping the sums that no other sum
beats in both cost and loss (Nemhauser and Ullmann, "Discrete Dynamic Programming and
Capital Allocation", Management Science 15(9), 1969). This is exact; for the layers of a
network, it keeps some thousands of sums.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Front:
    """The choices that no other choice beats in both cost and loss.

    Attributes:
        costs: Sums of costs, ascending, `[points]`.
        losses: Sums of losses, descending, `[points]`.
        choices: Index of the option of each item, `[points, items]`.
    """

    costs: np.ndarray
    losses: np.ndarray
    choices: np.ndarray

    def __len__(self) -> int:
        """Returns the number of points."""
        return len(self.costs)

    def within(self, budget: int) -> int:
        """Returns the last point that costs at most `budget`, -1 if none does.

        Args:
            budget: In the unit of the costs.
        """
        return int(np.searchsorted(self.costs, budget, side="right")) - 1


def pareto_front(
    costs: Sequence[Sequence[int]], losses: Sequence[Sequence[float]]
) -> Front:
    """Returns every choice of one option per item that no other choice beats.

    Args:
        costs: Cost of every option of every item, at most 256 options per item.
        losses: Loss of every option of every item.

    Example:
        >>> front = pareto_front([[1, 2], [1, 3]], [[5.0, 0.0], [1.0, 0.0]])
        >>> front.costs.tolist(), front.losses.tolist()
        ([2, 3, 5], [6.0, 1.0, 0.0])
        >>> front.choices[front.within(4)].tolist()
        [1, 0]
    """
    front = Front(
        np.zeros(1, np.int64), np.zeros(1), np.zeros((1, len(costs)), np.uint8)
    )
    for item, (own_costs, own_losses) in enumerate(zip(costs, losses, strict=True)):
        sums = np.add.outer(front.costs, np.asarray(own_costs, np.int64)).ravel()
        lost = np.add.outer(front.losses, np.asarray(own_losses, np.float64)).ravel()
        kept = _unbeaten(sums, lost)
        parents, options = np.divmod(kept, len(own_costs))
        choices = front.choices[parents]
        choices[:, item] = options
        front = Front(sums[kept], lost[kept], choices)
    return front


def _unbeaten(costs: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Returns the points that no other beats, by cost; the first of equal ones."""
    order = np.lexsort((losses, costs))
    best = np.minimum.accumulate(losses[order])
    return order[np.append(True, losses[order][1:] < best[:-1])]
