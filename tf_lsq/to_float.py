"""`to_float`: a plain Keras model with the numbers of a quantized one, for serving."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ._compat import (
    deep_recursion,
    is_keras3_model,
    keras,
    model_structure,
    name_outputs,
    nodes_of,
)
from .graph import ForeignCall, Layer, ScoreMask, copied, tensors_of
from .layers import LSQWrapper, MaskedPoint, PixelPoint, QuantizationPoint
from .pixels import LARGEST_BYTE
from .training import check_calibrated, quantization_points, trained_model


def to_float(model: Any, *, quantize_activations: bool = True) -> Any:
    """Returns a float model that computes what a quantized model computes.

    Its kernels are the step times the code. It has no learned steps: it is for serving,
    `model.export` (SavedModel) and converters to other formats, such as ONNX. For
    phones, `tflite_export.export_model` writes a full-integer file, which
    `TFLiteConverter` would not make of this model.

    Args:
        model: A quantized model of either Keras, trained or calibrated, or a
            `Distiller` that holds one.
        quantize_activations: Whether activations are rounded to their grid, with a
            division, a rounding and a clipping; without them only kernels are
            quantized.

    Returns:
        An uncompiled model of the Keras of `model`, with its inputs and outputs. Its
        variables are its own.

    Raises:
        ValueError: If `model` is not quantized.
        RuntimeError: If it was never trained or calibrated.

    Example:
        >>> import numpy as np
        >>> import tf_keras as keras
        >>> from tf_lsq import calibrate, quantize_model
        >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(4,))])
        >>> student = quantize_model(model)
        >>> x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
        >>> calibrate(student, x)
        >>> bool(np.allclose(to_float(student)(x), student(x), atol=1e-6))
        True
    """
    student = trained_model(model)
    if not isinstance(student, keras.Model) or not quantization_points(student):
        raise ValueError(
            "`model` must be a quantized model: call `tf_lsq.quantize_model`. "
            f"Received: {getattr(model, 'name', model)!r}."
        )
    check_calibrated(student)
    plain = _plain(student, quantize_activations=quantize_activations)
    if not is_keras3_model(model):
        return plain
    from .keras3 import ModelView  # Needs the backend TensorFlow.

    return ModelView(plain)


def _plain(student: keras.Model, *, quantize_activations: bool) -> keras.Model:
    """Returns the float model of a tf_keras student."""
    tensors: dict[int, Any] = {}
    copies: dict[int, tuple[Layer, Layer]] = {}
    for node in nodes_of(student):
        layer, outputs = node.layer, tensors_of(node.outputs)
        read = [tensors[id(tensor)] for tensor in node.keras_inputs]
        if isinstance(layer, keras.layers.InputLayer):
            shape, dtype = tuple(outputs[0].shape), outputs[0].dtype
            made = [keras.Input(batch_shape=shape, dtype=dtype, name=layer.name)]
        elif isinstance(layer, QuantizationPoint):
            made = [_rounded(read[0], layer, quantize=quantize_activations)]
        else:
            if id(layer) not in copies:
                inner = layer.layer if isinstance(layer, LSQWrapper) else layer
                copies[id(layer)] = layer, copied(inner, name=layer.name)
            made = ForeignCall.of(node).outputs(copies[id(layer)][1], read)
        for old, new in zip(outputs, made, strict=True):
            tensors[id(old)] = new
    for layer, copy in copies.values():
        copy.set_weights(_values(layer))
    inputs, outputs = (
        tf.nest.map_structure(lambda tensor: tensors[id(tensor)], structure)
        for structure in model_structure(student)
    )
    with deep_recursion():
        plain = keras.Model(inputs, outputs, name=student.name)
    name_outputs(plain, student.output_names)
    return plain


def _rounded(x: Any, point: QuantizationPoint, *, quantize: bool) -> Any:
    """Returns a tensor on the grid of a point, or what its ReLU leaves of it."""
    if isinstance(point, PixelPoint):
        return _pixels(x, point, quantize=quantize)
    dtype = x.dtype
    if quantize:
        step, integers = float(point.step), point.integer_range
        codes = tf.round(tf.cast(x, tf.float32) / step)
        codes = tf.clip_by_value(codes, float(integers.q_min), float(integers.q_max))
        x = tf.cast(codes * step, dtype)
    else:
        x = point.quantizer.clipped(x)
    if not isinstance(point, MaskedPoint):
        return x
    masked = ScoreMask(point.mask, name=point.name, dtype=dtype.name)(x)
    return tf.maximum(masked, float(point.excluded)) if quantize else masked


def _pixels(x: Any, point: PixelPoint, *, quantize: bool) -> Any:
    """Returns what the bytes of an input stand for; not rounded, what values do."""
    grid = point.pixel_grid
    decoded = grid.pixels.decode(tf.cast(x, tf.float32))
    if quantize:
        decoded = tf.clip_by_value(tf.round(decoded), 0.0, float(LARGEST_BYTE))
    values = grid.represented(decoded)
    return tf.cast(values, x.dtype) if x.dtype.is_floating else values


def _values(layer: Layer) -> list[Any]:
    """Returns the weights of a layer, with a quantized kernel."""
    if not isinstance(layer, LSQWrapper):
        return layer.get_weights()
    kernel = layer.quantized_kernel()
    return [
        kernel.numpy() if variable is layer.kernel else variable.numpy()
        for variable in layer.layer.weights
    ]
