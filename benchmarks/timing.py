"""Side by side timing: all contestants in every round, medians, wall and CPU."""

from __future__ import annotations

import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ai_edge_litert
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras

import tf_lsq


def side_by_side(
    calls: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 3
) -> dict[str, dict[str, float]]:
    """Returns the time of every call, measured in turn, each round in another order.

    Args:
        calls: Name -> what is measured.
        repeats: How often each is called.
        warm_up: Calls before these that do not count.

    Returns:
        Name -> median seconds of wall ("wall") and CPU ("cpu") time, and the
        quartiles of wall time ("low", "high").
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    for index in range(warm_up + repeats):
        for name, call in order.sample(list(calls.items()), len(calls)):
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            call()
            if index >= warm_up:
                wall[name].append(time.perf_counter() - wall_start)
                cpu[name].append(time.process_time() - cpu_start)
    found = {}
    for name, seconds in wall.items():
        low, middle, high = statistics.quantiles(seconds, n=4)
        found[name] = {
            "wall": middle,
            "cpu": statistics.median(cpu[name]),
            "low": low,
            "high": high,
        }
    return found


def ratio(
    found: dict[str, dict[str, float]], name: str, to: str, which: str = "wall"
) -> float:
    """Returns the ratio of two medians."""
    return found[name][which] / found[to][which]


def machine() -> dict[str, str]:
    """Returns versions and machine."""
    return {
        "Python": platform.python_version(),
        "TensorFlow": tf.__version__,
        "tf_keras": keras.__version__,
        "TF-MOT": tfmot.__version__,
        "ai-edge-litert": ai_edge_litert.__version__,
        "tf_lsq": tf_lsq.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_processor()}",
    }


def _processor() -> str:
    """Returns the name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x for x in lines if "model name" in x).split(":")[1].strip()
    except (OSError, StopIteration):
        return platform.processor()
