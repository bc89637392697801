"""Compares the LSQ op with ReLU and TF-MOT's fake quantization; measures precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lsq import lsq
from tf_lsq.lsq import fast

from .timing import side_by_side

BITS = 4
FORMS = {"fast form": fast.fake_quantize, "plain form": lsq.fake_quantize}


def measure(rounds: int) -> list[dict[str, Any]]:
    """Measures forward and backward passes, one row per tensor and form."""
    rng = np.random.default_rng(0)
    activation = tf.constant(rng.normal(size=(32, 32, 32, 64)), tf.float32)
    kernel = tf.constant(rng.normal(size=(3, 3, 256, 256)), tf.float32)
    per_channel = tf.constant(rng.uniform(0.2, 0.4, (1, 1, 1, 256)), tf.float32)
    step = tf.constant(0.3)
    unsigned = lsq.activation_range(BITS, signed=False)
    signed = lsq.weight_range(BITS)
    cases = {
        "activation 32x32x32x64": (activation, step, unsigned, False),
        "kernel 3x3x256x256": (kernel, step, signed, False),
        "kernel 3x3x256x256, a step per channel": (kernel, per_channel, signed, True),
    }
    rows = []
    for case, (x, steps, integer_range, channels) in cases.items():
        forms = {"ReLU": tf.nn.relu, "fake quant": _fake_quant(channels)}
        for name, form in FORMS.items():
            forms[name] = _bound(form, steps, integer_range)
        if not channels:
            forms["fast form, borrowed sums"] = _bound(
                _without_sums, steps, integer_range
            )
        upstream = tf.constant(rng.normal(size=x.shape), tf.float32)
        calls = {
            name: _forward_and_backward(form, x, steps, upstream)
            for name, form in forms.items()
        }
        measured = side_by_side(calls, rounds, warm_up=10)
        for name, times in measured.items():
            rows.append(
                {
                    "tensor": case,
                    "form": name,
                    "ms": times.milliseconds(),
                    "to ReLU": times.ratio(measured["ReLU"]),
                    "to fake quant": times.ratio(measured["fake quant"]),
                }
            )
    return rows


def measure_precision() -> list[dict[str, Any]]:
    """Measures errors of the step's gradient, one row per range and kind of gradient.

    The unit is the size of a sum of random signs: the root of the summed squares of
    its terms. Values within float32 rounding of a tie are omitted.
    """
    rows = []
    for bits in (4, 8):
        integer_range = lsq.activation_range(bits, signed=False)
        for mean in (0.0, 0.05, 1.0):
            errors: dict[str, list[float]] = {name: [] for name in FORMS}
            for seed in range(3):
                rng = np.random.default_rng(seed)
                v = rng.normal(0.3, 0.4, (32, 32, 32, 16)) * integer_range.q_max
                v = v[np.abs(v - np.floor(v) - 0.5) > 1e-3][: 32 * 32 * 32 * 15]
                x = np.float32(v * 0.3).reshape(32, -1)
                upstream = np.float32(mean + rng.normal(size=x.shape))
                terms = upstream.astype(np.float64) * _per_value(x, integer_range)
                for name, form in FORMS.items():
                    error = _step_gradient(form, x, integer_range, upstream)
                    error = abs(error - terms.sum()) / np.sqrt(np.square(terms).sum())
                    errors[name].append(error)
            rows.append(
                {
                    "levels": 2**bits,
                    "mean of dy / its deviation": mean,
                    **{f"{n}, worst of 3": f"{max(e):.0e}" for n, e in errors.items()},
                }
            )
    return rows


def _per_value(x: np.ndarray, integer_range: lsq.IntegerRange) -> np.ndarray:
    """Returns equation 3 of the paper in float64 for a step of 0.3 in float32."""
    v = x.astype(np.float64) / float(np.float32(0.3))
    inside = (v > integer_range.q_min) & (v < integer_range.q_max)
    bounds = np.clip(v, integer_range.q_min, integer_range.q_max)
    return np.where(inside, np.rint(v) - v, bounds)


def _step_gradient(
    form: Callable[..., tf.Tensor],
    x: np.ndarray,
    integer_range: lsq.IntegerRange,
    upstream: np.ndarray,
) -> float:
    """Returns the step's gradient of a form for a step of 0.3."""
    step = tf.constant(0.3)
    with tf.GradientTape() as tape:
        tape.watch(step)
        y = form(tf.constant(x), step, integer_range)
    return float(tape.gradient(y, step, output_gradients=tf.constant(upstream)))


def _without_sums(*args: Any) -> tf.Tensor:
    """Runs the fast form for layers that already compute both sums of the gradient."""
    return fast.fake_quantize(*args, own_sums=fast.OwnSums(outputs=False, inputs=False))


def _bound(
    fake_quantize: Callable[..., tf.Tensor],
    step: tf.Tensor,
    integer_range: lsq.IntegerRange,
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a form of the operator as a function of the values alone."""
    return lambda x: fake_quantize(x, step, integer_range)


def _fake_quant(per_channel: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the function that TF-MOT applies to activations or to kernels."""
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

    # The gradients are ready when the call returns, as tf.function waits for its ops.
    return call
