"""Times contestants side by side: all in every round, medians, wall and CPU time."""

from __future__ import annotations

import dataclasses
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import ai_edge_litert
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow.python.util import _pywrap_util_port

import tf_lsq
from tflite_export.reports import processor

_NUM_BLOCKS = 3


@dataclasses.dataclass
class Spread:
    """A figure of all rounds, and its smallest and largest in three blocks of them."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        """Returns it in the format of the tables."""
        return f"{self.middle:.2f} ({self.low:.2f}-{self.high:.2f})"


@dataclasses.dataclass
class Times:
    """Wall and CPU time of every call, in seconds."""

    wall: list[float] = dataclasses.field(default_factory=list)
    cpu: list[float] = dataclasses.field(default_factory=list)

    def milliseconds(self) -> Spread:
        """Returns the median wall time."""
        return self._spread(lambda part: 1000 * statistics.median(self.wall[part]))

    def ratio(self, base: Times, which: str = "wall") -> Spread:
        """Returns the ratio of this median to another."""
        ours, theirs = getattr(self, which), getattr(base, which)
        return self._spread(
            lambda part: statistics.median(ours[part]) / statistics.median(theirs[part])
        )

    def _spread(self, figure: Callable[[slice], float]) -> Spread:
        """Returns a figure of all rounds and its spread over blocks."""
        size = max(len(self.wall) // _NUM_BLOCKS, 1)
        parts = [
            figure(slice(start, start + size))
            for start in range(0, len(self.wall) - size + 1, size)
        ]
        return Spread(figure(slice(None)), min(parts), max(parts))


def side_by_side(
    calls: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 3
) -> dict[str, Times]:
    """Measures every call; each round runs all of them in a different order.

    Args:
        calls: Name -> function to measure.
        rounds: How often to call each.
        warm_up: Preceding rounds that do not count.
    """
    times = {name: Times() for name in calls}
    order = random.Random(0)
    for index in range(warm_up + rounds):
        for name, call in order.sample(list(calls.items()), len(calls)):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            call()
            if index >= warm_up:
                times[name].wall.append(time.perf_counter() - wall_start)
                times[name].cpu.append(time.process_time() - cpu_start)
    return times


def machine() -> dict[str, str]:
    """Returns the versions and the machine."""
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "tf_keras": keras.__version__,
        "TF-MOT": tfmot.__version__,
        "ai-edge-litert": ai_edge_litert.__version__,
        "tf_lsq": tf_lsq.__version__,
        "oneDNN": "on" if _pywrap_util_port.IsMklEnabled() else "off",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {processor()}",
    }
