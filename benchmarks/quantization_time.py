"""Time of `quantize_model` over depth, beside TF-MOT's on the same networks.

Pre-activation ResNets, ImageNet's size. Every round builds a float network anew,
untimed, and hands it to both libraries in turn. TF-MOT refuses these networks (their
batch norms stand by themselves) after most of its work; its time until then is shown.
Its `quantize_apply` with `tf_lsq.LSQQuantizeScheme` is the same quantization as
`tf_lsq.quantize_model`, after two clones of the model by TF-MOT.
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
    """Returns a row per depth and contestant.

    Args:
        depths: Of the networks.
        size: Height and width of the images.
        rounds: How often each is quantized.
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
        for name, found in times.items():
            taken = found.milliseconds()
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
    """Quantizes with this library's scheme in TF-MOT's functions."""
    quantization = tfmot.quantization.keras
    annotated = quantization.quantize_annotate_model(model)
    return quantization.quantize_apply(annotated, tf_lsq.LSQQuantizeScheme())
