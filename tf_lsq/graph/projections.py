"""Lowers layers that multiply by a kernel of several axes: `EinsumDense`."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .._compat import keras
from ..layers import AddConstant
from .activations import FUSED, activate, activation_name, with_activation
from .copying import with_weights
from .functions.recorded import Unsupported
from .lowering import Call
from .moving import add_reshape, add_transpose
from .nodes import Layer, Node
from .products import terms_of
from .shape_values import sizes

layers = keras.layers
_SOFTMAX = "softmax"  # The only activation along an axis.


@dataclasses.dataclass(frozen=True)
class _Projection:
    """The axes of an `EinsumDense`, by the letters of its equation.

    Attributes:
        source: Axes of the input.
        kernel: Axes of the kernel.
        result: Axes of the output.
        kept: Axes of input and output.
        summed: Axes of input and kernel, in the order of the kernel.
        new: Axes of kernel and output, in the order of the output.
    """

    source: str
    kernel: str
    result: str
    kept: str
    summed: str
    new: str

    @classmethod
    def of(cls, layer: Layer, rank: int) -> _Projection:
        """Returns the axes of a layer for an input with so many axes.

        Raises:
            Unsupported: If it is more than one product with a matrix per token.
        """
        ranks = rank, len(layer.kernel.shape)
        source, kernel, result = terms_of(layer.equation, ranks)
        kept = "".join(x for x in source if x in result)
        summed = "".join(x for x in kernel if x in source and x not in result)
        new = "".join(x for x in result if x in kernel and x not in source)
        whole = set(source) == {*kept, *summed} and set(kernel) == {*summed, *new}
        if not (whole and summed and kept[:1] == source[0] == result[0]):
            raise Unsupported(
                "the equation must keep the batch axis first, and every axis of the "
                "kernel must be summed or new, such as 'abc,cde->abde', received "
                f"{layer.equation!r}"
            )
        return cls(source, kernel, result, kept, summed, new)

    @property
    def found(self) -> str:
        """Axes of the product, before they are in the order of the output."""
        return self.kept + self.new


def einsum_dense(call: Call) -> Node:
    """Lowers an `EinsumDense`."""
    [x] = call.sources
    return add_projection(call, x, call.layer, "", call.name)


def add_projection(
    call: Call, x: Node, dense: Layer, label: str, name: str, *, flat: bool = False
) -> Node:
    """Adds the product of a tensor with the kernel of an `EinsumDense`.

    Args:
        call: The call it belongs to.
        x: The tensor.
        dense: The layer, built.
        label: Which layer of the call it is; "": the call's own.
        name: Name of the product.
        flat: Whether the new axes stay one, without an activation or other bias.
    """
    _check_settings(dense)
    axes = _Projection.of(dense, len(x.shape))
    known = dict(zip(axes.source, sizes(x.shape, 1), strict=True))
    known |= dict(zip(axes.kernel, dense.kernel.shape, strict=True))
    x = _as_vectors(call, x, axes, known, name)
    activation = activation_name(dense.activation)
    own_bias = _holds_bias(dense, axes, known)
    inside = own_bias and activation != _SOFTMAX
    product = call.replacement(
        f"projection {label}",
        lambda: _dense(call, dense, label, axes, own_bias, inside),
    )
    y = with_activation("dense")(call.part(product, name, [x]))
    if flat:
        return y
    shape = (x.shape[0], *(known[letter] for letter in axes.found[1:]))
    if len(axes.new) != 1:
        y = add_reshape(call, y, shape, f"{name}_axes")
    if axes.found != axes.result:
        perm = [axes.found.index(letter) for letter in axes.result]
        y = add_transpose(call, y, perm, f"{name}_transposed")
    return y if inside else _finished(call, y, dense, own_bias, name)


def _check_settings(dense: Layer) -> None:
    """Refuses settings that another shape of the kernel would change.

    Raises:
        Unsupported: If there are any.
    """
    sums = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    for name in ("kernel_constraint", "bias_constraint"):
        if getattr(dense, name, None) is not None:
            raise Unsupported(f"{name} must be None: its kernel becomes a matrix")
    regularizer = dense.kernel_regularizer
    if regularizer is not None and not isinstance(regularizer, sums):
        raise Unsupported(
            "kernel_regularizer must be L1 or L2, because its kernel becomes a matrix, "
            f"received {type(regularizer).__name__}"
        )


def _as_vectors(
    call: Call, x: Node, axes: _Projection, known: dict[str, int], name: str
) -> Node:
    """Returns a tensor with its summed axes as the last one."""
    wanted = axes.kept + axes.summed
    if axes.source != wanted:
        perm = [axes.source.index(letter) for letter in wanted]
        x = add_transpose(call, x, perm, f"{name}_input_transposed")
    if len(axes.summed) > 1:
        depth = math.prod(known[letter] for letter in axes.summed)
        shape = (*x.shape[: len(axes.kept)], depth)
        x = add_reshape(call, x, shape, f"{name}_input_vectors")
    return x


def _holds_bias(dense: Layer, axes: _Projection, known: dict[str, int]) -> bool:
    """Returns whether a bias has one number for each column of the kernel."""
    if dense.bias is None:
        return True
    shape = dense.bias.shape
    last = axes.result[-len(shape) :]
    own = {letter for letter, size in zip(last, shape, strict=True) if size > 1}
    columns = {letter for letter in axes.new if known[letter] > 1}
    return own == columns and axes.result.endswith(axes.new)


def _dense(
    call: Call,
    dense: Layer,
    label: str,
    axes: _Projection,
    own_bias: bool,
    inside: bool,
) -> Layer:
    """Returns a `Dense` with the kernel of an `EinsumDense`."""
    perm = [axes.kernel.index(letter) for letter in axes.summed + axes.new]
    kernel = np.transpose(dense.kernel.numpy(), perm)
    rows = math.prod(kernel.shape[: len(axes.summed)])
    values = [kernel.reshape(rows, -1)]
    has_bias = dense.bias is not None and own_bias
    values += [np.ravel(np.asarray(dense.bias))] if has_bias else []
    name = f"{call.layer_name}_{label}" if label else call.layer_name
    layer = layers.Dense(
        values[0].shape[-1],
        activation=dense.activation if inside else None,
        use_bias=has_bias,
        kernel_regularizer=dense.kernel_regularizer,
        bias_regularizer=dense.bias_regularizer if has_bias else None,
        trainable=call.layer.trainable and dense.trainable,
        dtype=dense.dtype_policy,
        name=name,
    )
    return with_weights(layer, (None, rows), values)


def _finished(call: Call, y: Node, dense: Layer, own_bias: bool, name: str) -> Node:
    """Adds a bias of several axes, and an activation."""
    if not own_bias:
        if dense.bias_regularizer is not None:
            raise Unsupported(
                "bias_regularizer must be None where the bias has several axes, "
                f"received {type(dense.bias_regularizer).__name__}"
            )
        layer = call.trained_constant(AddConstant, "bias", dense.bias, y)
        y = call.add("add_constant", [y], layer=layer, constant=False)
        y.name = f"{name}_bias"
    if activation_name(dense.activation) == FUSED[0]:
        return y
    return activate(call, y, dense.activation, f"{name}_activation")
