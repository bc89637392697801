"""`quantize_model`: turns a float Keras model into one that learns its steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ._compat import is_keras3_model, keras3_runs_on_tensorflow
from .graph import analyze, float_model, is_keras3_file
from .layout import build_model
from .pixel_inputs import settle_pixels
from .pixels import Pixels
from .policy import Options, Override, assign_bits
from .training import DEFAULT_STEP_CLIP, LSQModel, quantization_points


def quantize_model(
    model: Any,
    *,
    weight_bits: int = 4,
    activation_bits: int = 4,
    first_last_bits: int = 8,
    per_channel: bool = False,
    overrides: Mapping[str, Override] | None = None,
    target: str = "phone",
    step_init: str = "mse",
    asymmetric_activations: bool = False,
    step_clip: float | None = DEFAULT_STEP_CLIP,
    inputs: Pixels | Mapping[str, Pixels | None] | None = None,
    norm_form: str | Mapping[str, str] | None = None,
) -> LSQModel:
    """Returns a copy of `model` that trains with learned step sizes.

    The copy has the weights of `model`, which stays unchanged. It trains with
    plain `model.fit`; the first batch sets the activation steps.

    If a batch norm has a negative gamma, the kernel, bias, mean and gamma of that
    channel change sign together, so that the folded codes fit their bits; the
    layer's output stays the same.

    Args:
        model: A functional or sequential model of `tf_keras` or Keras 3, or the path
            of a `.keras` or `.h5` file that holds one.
        weight_bits: Bits of the kernels, 2 to 8.
        activation_bits: Bits of the inputs of layers with kernels, 2 to 8.
        first_last_bits: Bits of kernel and input of the layers that have no
            kernel before them, or none after them.
        per_channel: One step per output channel of a kernel instead of one per
            kernel (the paper's setting).
        overrides: Maps layer-name patterns (regular expressions for the whole name)
            to bits of kernel and input, to a pair `(weight_bits, activation_bits)`,
            or to "float": the layer stays in float, and the file converts before it
            and after it. If a pattern matches only layers without a kernel, such as
            sums, a number is the bits of their output. Outputs, and inputs in a pair,
            may have up to 16 bits; tensors of more than 8 are int16 in the file. The
            name of a nested model stands for all of its layers. If several patterns
            match, the last one applies.
        target: What the file will run on: "phone"; "tflm", a microcontroller with
            TFLite Micro; an Ethos-U ("ethos-u55-128", "ethos-u65-256",
            "ethos-u85-256"); "edgetpu"; or "symmetric", for accelerators that need
            zero points of 0. For "symmetric", activations
            that cannot be negative have at most 7 bits.
        step_init: First value of the steps: "mse", "lsq" (the paper's) or "max", see
            `tf_lsq.lsq.initial_step`. Outputs have "max": nothing is clipped.
        asymmetric_activations: Whether activations that can be negative learn where
            their integer range begins as well as their step (LSQ+): for swish, hard
            swish and linear bottlenecks, whose negative values are few and small. The
            offset is a whole number of steps, and becomes the zero point in the file.
        step_clip: Largest gradient of a step that the optimizer receives, relative to
            the step's first value, see `tf_lsq.prepare_optimizer`. It is saved with
            the model. None: gradients as in the paper, which the steps of small layers
            do not always survive.
        inputs: `tf_lsq.Pixels(mean, std)`: the model's only input takes
            ``(byte - mean) / std`` of the bytes of images, so that an app copies bytes
            into the file: the codes of its input are the bytes, and nothing is learned
            there. Or a mapping of input names to that; None for an input whose step is
            learned as always. An input that is missing is pixels if its type is uint8,
            or if it is an image of 1, 3 or 4 channels, or without an axis of channels,
            that the model itself normalizes as only bytes are: with `Rescaling`,
            `Normalization` or a `preprocess_input`. For "symmetric", only what is given
            here is.
        norm_form: How normalizations of layers, groups, root mean squares and norms are
            computed: "int16", within one code of float; "int8", which is faster on a
            phone; or a mapping of layer-name patterns to these. None: as is best for
            the target, see `tf_lsq.norm_forms.NORM_FORMS`.

    Returns:
        A model of the Keras of `model`, uncompiled. For a tf_keras student of a Keras 3
        model, pass `tf_lsq.from_keras3(model)`; with another backend than TensorFlow,
        the student of a Keras 3 model is one of tf_keras.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If an option is out of range, a pattern matches nothing, the model
            has layers without an exact integer form or in int8 that should have more
            bits, or `inputs` says what cannot be; the error names them all.

    Example:
        >>> import tf_keras as keras
        >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(4,))])
        >>> student = quantize_model(model, weight_bits=4, activation_bits=4)
        >>> [layer.name.split("_")[0] for layer in student.layers[1:]]
        ['quantize', 'dense', 'quantize']

    References:
        Esser et al., "Learned Step Size Quantization", ICLR 2020,
        https://arxiv.org/abs/1902.08153; Bhalgat et al., "LSQ+", CVPR Workshops 2020,
        https://arxiv.org/abs/2004.09576 (`asymmetric_activations`)
    """
    options = Options(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        first_last_bits=first_last_bits,
        per_channel=per_channel,
        overrides=overrides,
        target=target,
        step_init=step_init,
        asymmetric_activations=asymmetric_activations,
        step_clip=step_clip,
        inputs=inputs,
        norm_form=norm_form,
    )
    wants_keras3 = keras3_runs_on_tensorflow() and _is_of_keras3(model)
    model = float_model(model)
    graph = analyze(model)
    if quantization_points(model):
        raise ValueError(
            f"`model` must be a float model. Received: `{model.name}`, which is "
            "already quantized."
        )
    settle_pixels(graph, options)
    student = build_model(model, graph, assign_bits(graph, options), options)
    if not quantization_points(student):
        origins = sorted({f"`{n.origin}`" for n in graph.nodes if n.kind != "input"})
        raise ValueError(
            f"`{model.name}` must have layers to quantize. Received only layers that "
            f"compute integers or stay in float: {', '.join(origins)}. Leave fewer of "
            "them in float, or convert the model with `tf.lite.TFLiteConverter`."
        )
    return _in_keras3(student) if wants_keras3 else student


def _is_of_keras3(model: Any) -> bool:
    """Returns whether a model, or the one in a file, is of Keras 3."""
    if isinstance(model, str | os.PathLike):
        return Path(model).is_file() and is_keras3_file(model)
    return is_keras3_model(model)


def _in_keras3(student: LSQModel) -> Any:
    """Returns a student as a Keras 3 model."""
    from .keras3 import LSQModel

    return LSQModel(student)
