"""LiteRT's GPU accelerator."""

from __future__ import annotations

from ..file import LITERT
from . import gpu_conditions
from .conditions import packed_weights
from .rules import NOT_PHONES, OPERATOR_RULES
from .runtimes import BUFFER_RULES, BUFFER_TYPES
from .types import Consumer, Rule

_SOURCE = "measured by `make gpu` with software Vulkan, see docs/gpu.md"
_WRONG = f"{_SOURCE} and docs/upstream/gpu_wrong_convolutions.py"

_REFUSED = (
    Rule(
        "int4_convolutions",
        "refuses",
        "Kernels of convolutions must be int8; the CPU runs others",
        packed_weights("CONV_2D", "DEPTHWISE_CONV_2D"),
        remedy='Export with storage="int8".',
    ),
    Rule(
        "int16_tensors",
        "refuses",
        "Tensors must not be in int16; the CPU runs operators with others",
        gpu_conditions.int16_tensors,
        remedy="Give every point at most 8 bits.",
        source=_SOURCE,
    ),
    Rule(
        "versions",
        "refuses",
        "Transposed convolutions must have no fused activation",
        gpu_conditions.newer_versions,
        remedy="Replace the layer by UpSampling2D and Conv2D.",
    ),
    Rule(
        "many_joined_rows",
        "refuses",
        "Dense layers must keep the axes before the last one",
        gpu_conditions.many_joined_rows,
        remedy="Put a Reshape layer in front of the layer.",
    ),
    Rule(
        "axes",
        "refuses",
        "Tensors must have at most four axes",
        gpu_conditions.many_axes,
        remedy="Join axes by a Reshape layer, or replace the layer.",
    ),
    Rule(
        "padded_axes",
        "refuses",
        "Padded tensors must have three or four axes",
        gpu_conditions.unfit_paddings,
        remedy="Add axes of one element by a Reshape layer before the padding.",
    ),
    Rule(
        "symmetric_paddings",
        "refuses",
        "Paddings must be constants, or mirror without the border",
        gpu_conditions.symmetric_paddings,
        remedy='Pad by tf.pad(..., mode="REFLECT"), or by a constant.',
    ),
    Rule(
        "reversed_slices",
        "refuses",
        "Slices must have positive strides",
        gpu_conditions.reversed_slices,
        remedy="Reverse by tf.reverse.",
    ),
    Rule(
        "indices",
        "refuses",
        "Indices must have one axis: tables and embeddings have more",
        gpu_conditions.indices_of_several_axes,
        remedy="Replace the layer; GELU, EXP and LOG are operators of their own.",
        source=_SOURCE,
    ),
    Rule(
        "scaled_softmaxes",
        "refuses",
        "Softmaxes must have no factor",
        gpu_conditions.scaled_softmaxes,
        remedy="Multiply the queries by the factor, not the scores.",
        source=_SOURCE,
    ),
    Rule(
        "squares",
        "refuses",
        "Products of matrices must have two factors: it ends the process",
        gpu_conditions.squares,
        remedy="Give queries and keys layers of their own.",
        source=_SOURCE,
    ),
    Rule(
        "uint8_dense",
        "refuses",
        "Dense layers must compute in int8",
        gpu_conditions.uint8_dense,
        remedy="Convert the model with a newer tool, which writes int8.",
    ),
    Rule(
        "dropped_axes",
        "refuses",
        "Slices must keep all axes",
        gpu_conditions.dropped_axes,
        remedy="Slice one element, as x[:, 0:1], and drop the axis by a Reshape layer.",
    ),
)
_COMPUTED_WRONGLY = (
    Rule(
        "broadcast_products",
        "is wrong",
        "Factors of a product must have the same axes before their matrices",
        gpu_conditions.broadcast_products,
        remedy="Repeat the smaller factor by tf.tile or a Concatenate layer.",
        source=_SOURCE,
    ),
    Rule(
        "strided_1x1",
        "is wrong",
        "1x1 convolutions must have no strides, which it ignores",
        gpu_conditions.strided_1x1,
        remedy='Export with consumer="gpu", which picks the pixels first.',
        source=_WRONG,
    ),
    Rule(
        "groups",
        "is wrong",
        "Convolutions must have no groups",
        gpu_conditions.grouped,
        remedy='Export with consumer="gpu", which writes one per group.',
        source=_WRONG,
    ),
    Rule(
        "depthwise_1x1",
        "is wrong",
        "Depthwise 1x1 convolutions must have one output for each input",
        gpu_conditions.multiplied_1x1,
        remedy="Replace the layer by an ordinary 1x1 convolution.",
        source=_WRONG,
    ),
    Rule(
        "joined_axes",
        "is wrong",
        "Dense layers must keep the axes before the last one: it computes the first "
        "row only",
        gpu_conditions.joined_axes,
        remedy="Put a Reshape layer in front of the layer.",
        source=_SOURCE,
    ),
    Rule(
        "flattening",
        "is wrong",
        "Dense layers must not flatten their input by themselves",
        gpu_conditions.flattening,
        remedy="Put a Flatten or Reshape layer in front of the layer.",
        source=f"{_SOURCE} and docs/upstream/gpu_flattening_dense.py",
    ),
)

GPU = Consumer(
    "gpu",
    title="LiteRT's CompiledModel on a GPU by WebGPU",
    version="2.3.0",
    rules=(
        *BUFFER_RULES,
        *OPERATOR_RULES,
        *_REFUSED,
        *_COMPUTED_WRONGLY,
        Rule(
            "unmeasured_operators",
            "unknown",
            "Operators must have been measured on a GPU in int8",
            gpu_conditions.unmeasured_operators,
            remedy="",
        ),
        Rule(
            "rounding",
            "note",
            "A GPU computes in floats, and rounds to the codes of the CPU or next ones",
            gpu_conditions.other_rounding,
            remedy="",
        ),
    ),
    source=_SOURCE,
    input_types=BUFFER_TYPES,
    output_types=BUFFER_TYPES,
    product=LITERT,
    release="2.3.0",
    strided_1x1="pick",
    grouped="split",
    excluded_targets=NOT_PHONES,
)
