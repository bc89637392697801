"""Twins of single layers, operations and functions of Keras 3.

Each is called with the arguments of the call in Keras 3, with tensors of TensorFlow or
tf_keras in place of those of Keras 3, and returns the outputs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

from ..._compat import import_keras3, keras, nodes_of, rename_layer
from ..nodes import ForeignCall
from .arguments import is_tensor, pack_arguments
from .functions import read_function
from .graph import Call
from .images import IMAGE_ROWS
from .layer import Keras3Layer, check_backend
from .products import PRODUCT_ROWS
from .recorder import NoTwin, Recorder, Row, dtype_of
from .reductions import REDUCTION_ROWS
from .settings import activation_twin, make_layer, set_weights
from .shapes import SHAPE_ROWS
from .values import VALUE_ROWS

ROWS: dict[str, Row] = {
    **VALUE_ROWS,
    **REDUCTION_ROWS,
    **SHAPE_ROWS,
    **PRODUCT_ROWS,
    **IMAGE_ROWS,
}


class Names:
    """Names of the layers of one model, each used once."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)

    def unique(self, name: str) -> str:
        """Returns a name that is not taken: `name`, or the same with a number."""
        chosen, number = name, 2
        while chosen in self._taken:
            chosen, number = f"{name}_{number}", number + 1
        self._taken.add(chosen)
        return chosen


def operation_twin(operation: Any, outputs: list[Any], names: Names) -> Call:
    """Returns the recorded TensorFlow functions that compute an operation.

    Args:
        operation: An operation of Keras 3 that is not a layer.
        outputs: Its symbolic outputs in Keras 3.
        names: Names of the model that it is in.

    Raises:
        NoTwin: If there are none; for some arguments, the first call raises it.
    """
    row = ROWS.get(type(operation).__name__)
    if row is None or not type(operation).__module__.startswith("keras."):
        raise NoTwin("no TensorFlow function of this library computes it")
    signature = inspect.signature(operation.call)
    record = Recorder(operation, names.unique)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        types = _types(outputs, tf.nest.flatten((args, kwargs)))
        record.dtype = types[0]
        found = tf.nest.flatten(row(record, *bound.args, **bound.kwargs))
        return [
            value
            if dtype_of(value) == dtype
            else record.part(f"output_{number}", tf.cast, value, dtype)
            for number, (value, dtype) in enumerate(zip(found, types, strict=True))
        ]

    return call


def _types(outputs: list[Any], arguments: list[Any]) -> list[str]:
    """Returns the types of the outputs of an operation.

    A constant of NumPy makes Keras 3 compute in float64; the twin does not.
    """
    double = any(is_tensor(x) and dtype_of(x) == "float64" for x in arguments)
    types = [str(tensor.dtype) for tensor in outputs]
    return types if double else ["float32" if t == "float64" else t for t in types]


def model_twin(model: keras.Model) -> Call:
    """Returns the calls of a nested model."""
    return lambda *args, **kwargs: model(*args, **_inference_mode(kwargs))


def view_twin(layer: Any) -> Call:
    """Returns the calls of the tf_keras layer behind a layer of a Keras 3 student."""

    def call(inputs: Any, structure: ForeignCall | None = None, **_: Any) -> Any:
        if structure is None:
            return layer(inputs)
        outputs = structure.outputs(layer, inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    return call


def layer_twin(
    layer: Any, translate: Callable[[Any], Any], activate: Callable[[Any, Any], Call]
) -> Call:
    """Returns the tf_keras layer of a layer; its first call sets its weights.

    Args:
        layer: A layer of Keras 3.
        translate: Returns the twin of a layer inside it.
        activate: Returns the twin of an activation function without an equal one in
            tf_keras, given the function and a tensor; it is called after the layer.

    Raises:
        NoTwin: If there is none; the first call raises it for weights that differ.
    """
    activation = getattr(layer, "activation", None)
    is_split = (
        activation is not None
        and not hasattr(layer, "cell")  # It calls the function itself.
        and activation_twin(activation) is None
    )
    changes = {"activation": "linear"} if is_split else {}
    twin = make_layer(layer, translate, **changes)
    after: list[Call] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        is_first = not twin.built
        kwargs = _inference_mode(kwargs)
        if not twin._expects_training_arg:
            kwargs.pop("training", None)
        output = twin(*args, **kwargs)
        if is_first and layer.weights:
            set_weights(twin, layer)
        if not is_split:
            return output
        if not after:
            after.append(activate(activation, output))
        return after[0](output)

    return call


def function_twin(
    function: Call, name: str, tensors: list[Any], translate: Callable[[Any], Any]
) -> Call:
    """Returns what a Python function computes, as layers.

    One recorded function has the name `name`; several are a model of that name.

    Args:
        function: A function of tensors of Keras 3.
        name: Name of the twin.
        tensors: Keras tensors with the shapes and types of its arguments.
        translate: Returns the twin of a functional Keras 3 model.

    Raises:
        NoTwin: If it cannot be read.
    """
    model = read_function(function, tensors)
    if model is None:
        raise NoTwin("its function cannot be read")
    if isinstance(model, keras.Model):
        return _recorded_functions(model, name)
    return translate(model)


def _recorded_functions(model: keras.Model, name: str) -> Call:
    """Returns the TensorFlow functions that a Python function calls."""
    nodes = [node for node in nodes_of(model) if not node.is_input]
    outputs = [id(tensor) for tensor in model.outputs]
    if len(nodes) != 1 or outputs != [id(t) for t in tf.nest.flatten(nodes[0].outputs)]:
        model = keras.Model(model.inputs, model.outputs, name=name)
        return lambda *xs: model(xs[0] if len(xs) == 1 else list(xs))
    [node] = nodes
    layer = node.layer
    rename_layer(layer, name)
    numbers = {id(tensor): number for number, tensor in enumerate(model.inputs)}

    def call(*xs: Any) -> Any:
        args, kwargs = tf.nest.map_structure(
            lambda value: xs[numbers[id(value)]] if id(value) in numbers else value,
            (node.call_args, node.call_kwargs),
        )
        return layer(*args, **kwargs)

    return call


def keras3_twin(operation: Any, reason: str) -> Call:
    """Returns the layer that runs a Keras 3 layer or operation itself.

    Args:
        operation: The layer or operation.
        reason: Why it has no other twin.

    Raises:
        NoTwin: If Keras 3 does not run on TensorFlow.
    """
    try:
        check_backend()
    except ValueError as error:
        raise NoTwin(f"{reason}. {error}") from error
    layer = Keras3Layer(operation, reason)

    def call(*args: Any, **kwargs: Any) -> Any:
        inputs, arguments = pack_arguments(args, _inference_mode(kwargs))
        options = {} if arguments is None else {"arguments": arguments}
        return layer(inputs, **options)

    return call


def activation_layer(activation: Any, name: str) -> Any:
    """Returns a layer of Keras 3 that calls an activation function."""
    return import_keras3().layers.Activation(activation, name=name)


def _inference_mode(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Returns keyword arguments without `training`, unless it is False.

    Keras 3 records ``training=True`` as the default of its random layers, although
    `fit` and `predict` decide.
    """
    training = {} if kwargs.get("training") is not False else {"training": False}
    return {k: v for k, v in kwargs.items() if k != "training"} | training
