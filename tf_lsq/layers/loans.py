"""Reuses sums that other gradients already compute, in gradients of activation steps.

The gradient of an activation's step is ``scale / step * (sum(dy * y) - sum(dx * x))``,
two passes over large tensors (see `fast`). Often both sums are known elsewhere,
over tensors that are a hundred times smaller:

- If the output of a layer is linear in its input y and in its kernel W, the sum of
  gradient times value is the same for both: ``sum(dy * y)`` is the sum of
  ``sum(dW * W)`` over the kernels that read y. Each kind of layer declares whether this
  holds (`QuantizedWeight.bilinear`).
- A batch norm outputs ``x = gamma * n + beta``, where n does not depend on gamma and
  beta: ``sum(dx * x) = sum(dgamma * gamma) + sum(dbeta * beta)``.

Both equalities hold for any loss. They require knowing what reads and writes a tensor,
so they are used only inside an `LSQModel`, whose graph shows this. A layer that is
called in any other way computes its own sums.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from .._compat import keras, nodes_of
from ..lsq import fast
from .attributes import replaced_attributes
from .point import QuantizationPoint
from .wrapper import LSQWrapper

# A kernel's sum pays off if it is shorter than that of this many examples.
_EXAMPLES = 32


@dataclasses.dataclass
class Loan:
    """The layers that compute the sums of one point.

    Attributes:
        point: The point whose step gets the sums.
        kernels: The layers that compute ``sum(dy * y)``; empty: the point does.
        batch_norm: The layer that computes ``sum(dx * x)``, if any.
    """

    point: QuantizationPoint
    kernels: list[LSQWrapper]
    batch_norm: keras.layers.BatchNormalization | None

    def scale(self) -> float:
        """Returns the paper's g."""
        quantizer = self.point.quantizer
        q_max = quantizer.range_when_traced(self.point.step_variables).q_max
        return quantizer.gradient_scale(self.point.output, q_max)


def find_loans(model: keras.Model) -> list[Loan]:
    """Returns where sums are known, for the steps of a model in its current state."""
    nodes = nodes_of(model)
    calls = collections.Counter(id(node.layer) for node in nodes)
    writers: dict[int, Any] = {}
    readers: dict[int, list[Any]] = collections.defaultdict(list)
    for tensor in model.outputs:
        readers[id(tensor)].append(None)
    for node in nodes:
        # A layer that is called twice mixes the sums of its calls.
        layer = node.layer if calls[id(node.layer)] == 1 else None
        for tensor in tf.nest.flatten(node.outputs):
            writers[id(tensor)] = layer
        for tensor in node.keras_inputs:
            readers[id(tensor)].append(layer)
    loans = []
    for node in nodes:
        point = writers[id(tf.nest.flatten(node.outputs)[0])]
        if not (isinstance(point, QuantizationPoint) and _borrows(point)):
            continue
        [source], output = node.keras_inputs, node.outputs
        kernels, batch_norm = readers[id(output)], writers.get(id(source))
        if not _hold_outputs(kernels, point):
            kernels = []
        if not _holds_inputs(batch_norm) or len(readers[id(source)]) > 1:
            batch_norm = None
        if kernels or batch_norm:
            loans.append(Loan(point, kernels, batch_norm))
    return loans


@contextlib.contextmanager
def borrowed_sums(model: keras.Model) -> Iterator[None]:
    """Lets the layers of a model exchange sums while it is called.

    Several replicas do without, because they may alternate in the middle of a call; so
    do GPUs that round factors, because the gradients of kernels are sums of products.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if replicas > 1 or not fast.matmul_keeps_digits():
        yield
        return
    with contextlib.ExitStack() as stack:

        def replace(layer: keras.layers.Layer, **attributes: Any) -> None:
            stack.enter_context(replaced_attributes(layer, attributes))

        for loan in find_loans(model):
            point, norm = loan.point, loan.batch_norm
            step, scale = point.step, loan.scale()
            own_sums = fast.OwnSums(step, not loan.kernels, norm is None)
            replace(point, own_sums=own_sums)
            for layer in loan.kernels:
                replace(layer, lends_to=(step, scale))
            if norm is not None:
                names = [n for n in ("gamma", "beta") if getattr(norm, n) is not None]
                tensors = [tf.convert_to_tensor(getattr(norm, n)) for n in names]
                lent = fast.lend_sum(tensors, step, -scale)
                replace(norm, **dict(zip(names, lent, strict=True)))
        yield


def _borrows(point: QuantizationPoint) -> bool:
    """Returns whether the gradient of a point's step consists of the two sums."""
    return (
        point.fixed_step is None
        and point.trainable
        and not point.plain_op
        and not point.quantizer.asymmetric
        and point.visitor is None
        and point.is_initialised()
        and point.output.dtype == tf.float32
        and point.output.shape[1:].is_fully_defined()
    )


def _hold_outputs(layers: list[Any], point: QuantizationPoint) -> bool:
    """Returns whether `layers` have kernels whose sums equal that of the output."""
    if not layers or not all(
        isinstance(layer, LSQWrapper) and layer.is_bilinear for layer in layers
    ):
        return False
    sizes = [layer.kernel.shape.num_elements() for layer in layers]
    size = point.output.shape[1:].num_elements()
    return sum(sizes) <= _EXAMPLES * size and all(
        layer.trainable and layer.compute_dtype == "float32" for layer in layers
    )


def _holds_inputs(layer: Any) -> bool:
    """Returns whether `layer` is a batch norm whose gamma and beta give the sum."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.gamma is not None
        and layer.compute_dtype == "float32"
    )
