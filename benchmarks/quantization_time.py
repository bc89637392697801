"""Measures `quantize_model` over depth, and TF-MOT's on the same networks.

The networks are pre-activation ResNets for images of ImageNet's size. Every round
builds a new float network, untimed, for each library in turn. TF-MOT refuses these
networks (some batch norms do not follow a kernel) after most of its work; the table
shows its time until then. Its `quantize_apply` with `tf_lsq.LSQQuantizeScheme` is the
same quantization as `tf_lsq.quantize_model`, after two clones of the model by TF-MOT.
"""

from __future__ import annotations

import gc
import time
from typing import Any

import tf_keras as keras

import tf_lsq
from tf_lsq._compat import tfmot

from .timing import Times


def measure(depths: tuple[int, ...], size: int, rounds: int) -> list[dict[str, Any]]:
    """Measures the time of quantization, one row per depth and contestant.

    Args:
        depths: Depths of the networks.
        size: Height and width of the images.
        rounds: How often to quantize each network.
    """
    contestants = {
        "tf_lsq": tf_lsq.quantize_model,
        "TF-MOT": tfmot.quantization.keras.quantize_model,
        "TF-MOT with tf_lsq's scheme": _through_quantize_apply,
    }
    rows = []
    for depth in depths:
        times = {name: Times() for name in contestants}
        ends = dict.fromkeys(contestants, "")
        num_layers = 0
        for _ in range(rounds):
            for name, quantize in contestants.items():
                keras.backend.clear_session()
                model = tf_lsq.models.preact_resnet(depth, (size, size, 3))
                num_layers = len(model.layers)
                gc.collect()
                start = time.perf_counter()
                try:
                    quantize(model)
                except (RuntimeError, ValueError) as error:
                    ends[name] = type(error).__name__
                times[name].wall.append(time.perf_counter() - start)
        for name, own_times in times.items():
            taken = own_times.milliseconds()
            rows.append(
                {
                    "network": f"preact_resnet{depth}",
                    "layers": num_layers,
                    "contestant": name,
                    "ms": taken,
                    "ms per layer": round(taken.middle / num_layers, 1),
                    "ends with": ends[name],
                }
            )
    return rows


def _through_quantize_apply(model: keras.Model) -> keras.Model:
    """Quantizes with TF-MOT's functions and this library's scheme."""
    quantization = tfmot.quantization.keras
    annotated = quantization.quantize_annotate_model(model)
    return quantization.quantize_apply(annotated, tf_lsq.LSQQuantizeScheme())
