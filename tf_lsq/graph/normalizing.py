"""Normalizations: each is several operators, in a form that the target computes.

The analysis of a float model keeps one operator of kind "normalize" for each:

    c = x - mean(x)             unless it only divides
    v = sum(c ** 2)
    r = 1 / sqrt(v / n + epsilon)
    y = gamma * (c * r) + beta

`norm_folding` moves gamma and beta into the kernels that read it. `norm_expanding` puts
these operators in its place, once the form is known. Each has a quantization point, so
training computes what the file computes. The reciprocal root is a table with a value
for every code of `v`, epsilon included.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .._compat import keras
from .functions.recorded import Unsupported
from .lowering import Call
from .nodes import Node
from .norm_layers import L2Normalization

layers = keras.layers
NORMALIZE = "normalize"
_EPSILON_OF_UNIT = 1e-12  # Of the squared norm, in Keras' `UnitNormalization`.


@dataclasses.dataclass(frozen=True, eq=False)
class Norm:
    """What a normalization computes.

    Attributes:
        axes: Axes over which it normalizes, counted from the batch axis 0; with groups,
            those of ``[batch, positions, groups, channels of a group]``.
        centered: Whether the mean is subtracted.
        averaged: Whether it divides by the root of a mean square; else of a sum.
        epsilon: Added to that; without an average, its smallest value.
        gamma: Trained factors, None without.
        beta: Trained summands, None without.
        constant_axes: Axes of gamma and beta.
        groups: How many groups the channels have that are normalized separately; 1: no
            axis is split.
    """

    axes: tuple[int, ...]
    centered: bool
    averaged: bool
    epsilon: float
    gamma: Any = None
    beta: Any = None
    constant_axes: tuple[int, ...] = ()
    groups: int = 1


def layer_norm(call: Call) -> Node:
    """Lowers a `LayerNormalization`."""
    layer, axes = call.layer, _axes(call, call.layer.axis)
    return _norm(
        call,
        Norm(
            axes,
            centered=True,
            averaged=True,
            epsilon=float(layer.epsilon),
            gamma=layer.gamma if layer.scale else None,
            beta=layer.beta if layer.center else None,
            constant_axes=axes,
        ),
    )


def rms_norm(call: Call) -> Node:
    """Lowers an `RMSNormalization`."""
    layer, axes = call.layer, _axes(call, call.layer.axis)
    return _norm(
        call,
        Norm(
            axes,
            centered=False,
            averaged=True,
            epsilon=float(layer.epsilon),
            gamma=layer.gamma,
            constant_axes=axes,
        ),
    )


def group_norm(call: Call) -> Node:
    """Lowers a `GroupNormalization`."""
    layer, rank = call.layer, len(call.shape)
    [axis] = _axes(call, layer.axis)
    if axis != rank - 1:
        raise Unsupported(f"axis must be the last one, received {layer.axis}")
    channels, groups, positions = call.shape[-1], layer.groups, tuple(range(1, axis))
    split = 1 < groups < channels
    axes = (1, 3) if split else positions + (axis,) * (groups == 1)
    return _norm(
        call,
        Norm(
            axes,
            centered=True,
            averaged=True,
            epsilon=float(layer.epsilon),
            gamma=layer.gamma if layer.scale else None,
            beta=layer.beta if layer.center else None,
            constant_axes=(axis,),
            groups=groups if split else 1,
        ),
    )


def unit_norm(call: Call) -> Node:
    """Lowers a `UnitNormalization`."""
    return _unit(call, call.layer.axis, _EPSILON_OF_UNIT)


def l2_norm(call: Call) -> Node:
    """Lowers an `L2Normalization`."""
    return _unit(call, call.layer.axes, call.layer.epsilon)


def l2_normalize(call: Call, x: Node, axes: Any, epsilon: float) -> Node:
    """Adds `tf.math.l2_normalize`.

    Args:
        call: The call it belongs to.
        x: Its input.
        axes: Its axes.
        epsilon: Smallest square of the norm.

    Raises:
        Unsupported: If its axes include the batch.
    """
    layer = L2Normalization(_axes(call, axes), epsilon, name=call.name)
    return l2_norm(call.part(layer, call.name, [x]))


def _unit(call: Call, axes: Any, epsilon: float) -> Node:
    """Adds a division by the Euclidean norm."""
    axes = _axes(call, axes)
    return _norm(call, Norm(axes, centered=False, averaged=False, epsilon=epsilon))


def _axes(call: Call, axes: Any) -> tuple[int, ...]:
    """Returns axes in order, counted from the batch axis 0.

    Raises:
        Unsupported: If they include the batch axis.
    """
    rank = len(call.shape)
    if axes is None or np.asarray(axes).dtype == object:
        raise Unsupported("axis must be given, excluding the batch, received None")
    numbers = sorted({int(axis) % rank for axis in np.ravel(np.asarray(axes))})
    if 0 in numbers:
        raise Unsupported("axis must not be the batch axis, received 0")
    return tuple(numbers)


def _norm(call: Call, norm: Norm) -> Node:
    """Adds the operator that stands for a normalization.

    Raises:
        Unsupported: If the number of values is unknown.
    """
    shape, rank = call.shape, len(call.shape)
    sizes = shape[1:] if norm.groups > 1 else [shape[axis] for axis in norm.axes]
    if None in sizes:
        raise Unsupported(
            "the sizes of the axes that it normalizes must be known, received "
            f"{shape}; build the model with a full `keras.Input(shape=...)`"
        )
    if not norm.axes or rank < 2:
        raise Unsupported(f"there must be an axis to normalize, received {shape}")
    return call.add(NORMALIZE, norm=norm)
