"""Gives a model that takes inputs of several sizes one size, as a file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from tf_lsq._compat import deep_recursion, keras, name_outputs
from tf_lsq.graph import Layer, copied
from tf_lsq.training import LSQModel

Shape: TypeAlias = Sequence[int]
# The shape of the only input; or of each, in order or by name.
InputShapes: TypeAlias = Shape | Sequence[Shape] | Mapping[str, Shape]
_Sizes: TypeAlias = tuple[int | None, ...]


def at_shapes(model: keras.Model, input_shapes: InputShapes | None) -> keras.Model:
    """Returns a model whose input sizes are static, with the weights of `model`.

    Args:
        model: A quantized model.
        input_shapes: Shape of the input without the batch; for several inputs, shapes
            in their order or by name. None: as the model was built.

    Returns:
        `model` itself if its shapes are these.

    Raises:
        ValueError: If an input has a size of None and no shape is given for it, or a
            shape does not fit.
    """
    built = _built_shapes(model)
    wanted = {**built, **_by_name(list(built), input_shapes)}
    _check(built, wanted)
    return model if wanted == built else _resized(model, wanted)


def _built_shapes(model: keras.Model) -> dict[str, _Sizes]:
    """Returns the shape of every input without the batch, by name."""
    pairs = zip(model.input_names, model.inputs, strict=True)
    return {name: tuple(tensor.shape[1:]) for name, tensor in pairs}


def _by_name(
    names: list[str], input_shapes: InputShapes | None
) -> Mapping[str, _Sizes]:
    """Returns given shapes by the name of the input."""
    if input_shapes is None:
        return {}
    if isinstance(input_shapes, Mapping):
        shapes = {name: tuple(shape) for name, shape in input_shapes.items()}
    else:
        listed: list[Any] = list(input_shapes)
        if all(size is None or isinstance(size, int) for size in listed):
            listed = [listed]
        shapes = dict(zip(names, map(tuple, listed), strict=False))
        if len(listed) != len(names):
            shapes["?"] = ()
    if not set(shapes) <= set(names):
        raise ValueError(
            f"`input_shapes` must have a shape for each of {names}, in this order or "
            f"by name. Received: {input_shapes}."
        )
    return shapes


def _check(built: dict[str, _Sizes], wanted: dict[str, _Sizes]) -> None:
    """Refuses shapes that are not static, or do not fit."""
    dynamic = {name: shape for name, shape in wanted.items() if None in shape}
    if dynamic:
        raise ValueError(
            "Every input size except the batch must be static. Received inputs: "
            f"{dynamic}. Give them, such as `input_shapes={_example(dynamic)}`, or "
            "build the model with `keras.Input(shape=...)` of full shape."
        )
    wrong = [
        f"`{name}`: {wanted[name]} for {shape}"
        for name, shape in built.items()
        if len(shape) != len(wanted[name])
        or any(s not in (None, w) for s, w in zip(shape, wanted[name], strict=True))
    ]
    if wrong:
        raise ValueError(
            "`input_shapes` must fit the shapes that the model was built with, without "
            f"the batch. Received: {', '.join(wrong)}."
        )


def _example(dynamic: dict[str, _Sizes]) -> dict[str, _Sizes]:
    """Returns static shapes like the given ones."""
    return {
        name: tuple(224 if size is None else size for size in shape)
        for name, shape in dynamic.items()
    }


def _resized(model: keras.Model, shapes: Mapping[str, _Sizes]) -> keras.Model:
    """Returns a copy of a model with other input shapes."""
    inputs = []
    for tensor, (name, shape) in zip(model.inputs, shapes.items(), strict=True):
        batch_shape = (tensor.shape[0], *shape)
        inputs.append(
            keras.Input(batch_shape=batch_shape, dtype=tensor.dtype, name=name)
        )
    copies: list[tuple[Layer, Layer]] = []

    def copy(layer: Layer) -> Layer:
        new = copied(layer)
        copies.append((layer, new))
        return new

    with deep_recursion():
        resized = keras.models.clone_model(model, inputs, copy)
    for old, new in copies:
        new.set_weights(old.get_weights())
    if isinstance(model, LSQModel):
        name_outputs(resized, model.output_names)
    return resized
