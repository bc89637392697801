"""The tensors that a function or layer receives in a small model.

An operand is described by its shape and its values; `Stems` creates the input and the
layers that compute it, in either Keras.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

SHAPES = {2: (8,), 3: (6, 8), 4: (6, 6, 8), 5: (2, 2, 8, 8)}
NUM_CHANNELS = 4  # Of an input.
NUM_IDS = 8
DOMAINS = ("signed", "unit", "above_one")


@dataclasses.dataclass(frozen=True)
class Operand:
    """A tensor of a model.

    Attributes:
        shape: Its shape without the batch.
        domain: Its values: "signed", "unit" (in 0..1), "above_one" (in 1..2),
            "flags" (booleans) or "ids" (integers that are an input of the model).
    """

    shape: tuple[int, ...]
    domain: str = "signed"

    @property
    def rank(self) -> int:
        """Number of axes, the batch included."""
        return len(self.shape) + 1

    def within(self, domain: str) -> Operand:
        """Returns the operand with other values."""
        return dataclasses.replace(self, domain=domain)

    def of(self, *shape: int) -> Operand:
        """Returns the operand with another shape."""
        return dataclasses.replace(self, shape=shape)


VECTOR, SEQUENCE, IMAGE, VOLUME = (Operand(SHAPES[rank]) for rank in (2, 3, 4, 5))
RGB = Operand((6, 6, 3), "unit")
IDS = Operand((6,), "ids")


class Stems:
    """The inputs of a model, and the layers that make operands of them."""

    def __init__(self, framework: Any) -> None:
        self._framework = framework
        self._inputs: dict[tuple[Any, ...], Any] = {}

    @property
    def inputs(self) -> list[Any]:
        """The inputs that were needed."""
        return list(self._inputs.values())

    def tensor(self, operand: Operand) -> Any:
        """Returns a new tensor that is as an operand describes."""
        layers = self._framework.layers
        if operand.domain == "ids":
            return self._input(operand.shape, "int32")
        sizes = operand.shape[:-1][:2]
        channels = int(np.prod(operand.shape[len(sizes) :]))
        x = self._input((*sizes, NUM_CHANNELS), "float32")
        x = _stem_layer(layers, len(sizes), channels)(x)
        if operand.domain in ("unit", "above_one"):
            x = layers.Activation("sigmoid")(x)
        if operand.domain == "above_one":
            x = layers.Rescaling(1.0, 1.0)(x)
        if operand.rank > 4:
            x = layers.Reshape(operand.shape)(x)
        return x > 0 if operand.domain == "flags" else x

    def plain(self, operand: Operand) -> Any:
        """Returns an input with the shape and type of an operand."""
        types = {"ids": "int32", "flags": "bool"}
        dtype = types.get(operand.domain, "float32")
        return self._framework.Input(operand.shape, dtype=dtype)

    def _input(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Returns an input, created on first use."""
        key = (shape, dtype)
        if key not in self._inputs:
            self._inputs[key] = self._framework.Input(
                shape, dtype=dtype, name=f"input_{len(self._inputs)}"
            )
        return self._inputs[key]


def _stem_layer(layers: Any, num_sizes: int, channels: int) -> Any:
    """Returns a layer with a small kernel for an input of 0 to 2 sizes."""
    if num_sizes == 0:
        return layers.Dense(channels)
    kind = layers.Conv1D if num_sizes == 1 else layers.Conv2D
    return kind(channels, 3, padding="same")


def head(framework: Any, x: Any, *, of_integers: bool) -> Any:
    """Returns a tensor with a layer with a kernel after it, where there is one.

    Args:
        framework: The Keras of the tensor.
        x: What the call returned.
        of_integers: Whether the call received integers only: its result becomes float,
            so that there is something to quantize.
    """
    layers = framework.layers
    if of_integers and _type_name(x) != "float32":
        cast = framework.ops.cast if hasattr(framework, "ops") else tf.cast
        x = cast(x, "float32")
    static = all(isinstance(size, int) for size in x.shape[1:])
    is_float = _type_name(x) == "float32"
    makes = {2: layers.Dense, 3: layers.Conv1D, 4: layers.Conv2D}
    if not (static and is_float) or len(x.shape) not in makes:
        return x
    options = () if len(x.shape) == 2 else (1,)
    return makes[len(x.shape)](3, *options)(x)


def randomize(model: Any, rng: np.random.Generator) -> None:
    """Gives every weight a plausible random value."""
    for weight in model.weights:
        if "float" not in _type_name(weight):
            continue
        shape = tuple(weight.shape)
        name = getattr(weight, "path", weight.name)
        if "variance" in name:
            value = rng.uniform(0.5, 2, shape)
        elif "gamma" in name:
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = rng.normal(0, 0.2, shape)
        else:
            value = rng.normal(0, 1, shape) / np.sqrt(np.prod(shape[:-1]))
        weight.assign(value.astype(np.float32))


def examples(model: Any, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Returns random values for every input of a model."""
    values = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if "int" in _type_name(tensor):
            values.append(rng.integers(0, NUM_IDS, shape).astype(np.int32))
        else:
            values.append(rng.uniform(-1, 1, shape).astype(np.float32))
    return values


def _type_name(tensor: Any) -> str:
    """Returns the name of the type of a tensor or weight, "" if it has none."""
    dtype = getattr(tensor, "dtype", "")
    return str(getattr(dtype, "name", dtype))
