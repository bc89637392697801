"""The LSQ operator beside ReLU and TF-MOT's fake quantization, and its precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lsq import fast_lsq, lsq

from .timing import side_by_side

BITS = 4


def measure(repeats: int) -> list[dict[str, Any]]:
    """Returns a row per form: forward and backward time, as a ratio to ReLU's."""
    rng = np.random.default_rng(0)
    activation = tf.constant(rng.normal(size=(32, 32, 32, 64)), tf.float32)
    kernel = tf.constant(rng.normal(size=(3, 3, 256, 256)), tf.float32)
    per_channel = tf.constant(rng.uniform(0.2, 0.4, (1, 1, 1, 256)), tf.float32)
    step = tf.constant(0.3)
    unsigned = lsq.activation_range(BITS, signed=False)
    signed = lsq.weight_range(BITS)
    cases = {
        "activation, 2.1 M": (activation, step, unsigned, False),
        "kernel 3x3x256x256": (kernel, step, signed, False),
        "kernel 3x3x256x256, per channel": (kernel, per_channel, signed, True),
    }
    rows = []
    for case, (x, steps, integer_range, channels) in cases.items():
        forms = {
            "ReLU": tf.nn.relu,
            "fake quant": _fake_quant(channels),
            "fast form": _bound(fast_lsq.fake_quantize, steps, integer_range),
            "plain form": _bound(lsq.fake_quantize, steps, integer_range),
        }
        upstream = tf.constant(rng.normal(size=x.shape), tf.float32)
        calls = {
            name: _forward_and_backward(form, x, steps, upstream)
            for name, form in forms.items()
        }
        found = side_by_side(calls, repeats)
        for name, times in found.items():
            rows.append({"case": case, "form": name, **times})
    return rows


def _bound(
    fake_quantize: Callable[..., tf.Tensor],
    step: tf.Tensor,
    integer_range: lsq.IntegerRange,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a form of the operator as a function of the values alone."""
    return lambda x: fake_quantize(x, step, integer_range)


def _fake_quant(per_channel: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns what TF-MOT calls on activations and on kernels."""
    if not per_channel:
        return lambda x: tf.quantization.fake_quant_with_min_max_vars(
            x, -2.0, 2.0, num_bits=BITS
        )
    bound = tf.fill([256], 2.0)
    return lambda x: tf.quantization.fake_quant_with_min_max_vars_per_channel(
        x, -bound, bound, num_bits=BITS
    )


def _forward_and_backward(
    form: Callable[[tf.Tensor], tf.Tensor],
    x: tf.Tensor,
    step: tf.Tensor,
    upstream: tf.Tensor,
) -> Callable[[], Any]:
    """Returns a compiled call of a form and of its gradients."""

    @tf.function
    def call() -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, step])
            y = form(x)
        return tape.gradient(y, [x, step], output_gradients=upstream)

    return lambda: call()[0][(0,) * len(x.shape)].numpy()
