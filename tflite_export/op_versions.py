"""Versions of TFLite operators, and the first release that runs each.

Phones with an old runtime and the Edge TPU compiler refuse versions that are newer
than they know, so every operator gets the smallest version that covers its use.

References: tflite/tools/versioning/{op_version,op_signature,runtime_version}.cc of
https://github.com/google-ai-edge/LiteRT. The releases for packed kernels were found by
running such files with each release for Python, on x86-64: tflite-runtime 2.11 to
2.14, TensorFlow 2.15 to 2.21, ai-edge-litert 1.0.1 to 2.3. The table there says 2.11
for INT4, which 2.11 refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .tflite_graph import TFLiteGraph, TFLiteOp

DTYPES = ("float32", "int8", "int32", "uint8")
RUNTIME_METADATA = "min_runtime_version"
_RUNTIME_BYTES = 16  # The field has this size in the files of every tool.

# Operator -> (version in float, version in int8).
_VERSIONS: dict[str, tuple[int, int]] = {
    "ADD": (1, 2),
    "AVERAGE_POOL_2D": (1, 2),
    "CONCATENATION": (1, 2),
    "CONV_2D": (1, 3),
    "DEPTHWISE_CONV_2D": (1, 3),
    "DEQUANTIZE": (1, 2),
    "FULLY_CONNECTED": (1, 4),
    "LOGISTIC": (1, 2),
    "MAXIMUM": (1, 2),
    "MAX_POOL_2D": (1, 2),
    "MEAN": (1, 2),
    "MINIMUM": (1, 2),
    "MUL": (1, 2),
    "PAD": (1, 2),
    "PRELU": (1, 1),
    "QUANTIZE": (1, 1),
    "REDUCE_MAX": (1, 2),
    "RELU": (1, 2),
    "RELU6": (1, 2),
    "RESHAPE": (1, 1),
    "RESIZE_BILINEAR": (1, 2),
    "RESIZE_NEAREST_NEIGHBOR": (1, 2),
    "SOFTMAX": (1, 2),
    "STRIDED_SLICE": (1, 2),
    "SUB": (1, 2),
    "TANH": (1, 2),
    "TRANSPOSE": (1, 2),
    "TRANSPOSE_CONV": (1, 2),
}
# The version of FULLY_CONNECTED does not tell this: older releases refuse it.
_INT4_PER_CHANNEL = "2.19.0"
# Operator -> {version: first TFLite release that runs it}.
_RELEASES: dict[str, dict[int, str]] = {
    "ADD": {1: "1.5.0", 2: "1.14.0"},
    "AVERAGE_POOL_2D": {1: "1.5.0", 2: "1.14.0"},
    "CONCATENATION": {1: "1.5.0", 2: "1.14.0"},
    "CONV_2D": {1: "1.5.0", 3: "1.14.0", 6: "2.9.0", 7: "2.12.0"},
    "DEPTHWISE_CONV_2D": {1: "1.5.0", 2: "1.12.0", 3: "1.14.0", 7: "2.12.0"},
    "DEQUANTIZE": {1: "1.13.1", 2: "1.14.0", 5: "2.7.0"},
    "FULLY_CONNECTED": {
        1: "1.5.0",
        2: "1.10.0",
        4: "1.14.0",
        5: "2.0.0",
        6: "2.1.0",
        10: "2.13.0",
        14: "2.21.0",
    },
    "LOGISTIC": {1: "1.14.0", 2: "1.14.0"},
    "MAXIMUM": {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"},
    "MAX_POOL_2D": {1: "1.5.0", 2: "1.14.0"},
    "MEAN": {1: "1.6.0", 2: "1.14.0"},
    "MINIMUM": {1: "1.14.0", 2: "1.14.0", 3: "2.3.0"},
    "MUL": {1: "1.5.0", 2: "1.14.0", 3: "1.15.0"},
    "PAD": {1: "1.5.0", 2: "1.14.0", 4: "2.6.0"},
    "PRELU": {1: "1.8.0"},
    "QUANTIZE": {1: "1.14.0", 3: "2.7.0"},
    "REDUCE_MAX": {1: "1.11.0", 2: "1.14.0"},
    "RELU": {1: "1.5.0", 2: "2.1.0"},
    "RELU6": {1: "1.5.0", 2: "1.14.0"},
    "RESHAPE": {1: "1.5.0"},
    "RESIZE_BILINEAR": {3: "2.2.0"},
    "RESIZE_NEAREST_NEIGHBOR": {3: "2.3.0"},
    "SOFTMAX": {1: "1.5.0", 2: "1.14.0"},
    "STRIDED_SLICE": {1: "1.6.0", 2: "1.14.0", 4: "2.2.0"},
    "SUB": {1: "1.6.0", 2: "1.14.0", 3: "2.3.0"},
    "TANH": {1: "1.14.0", 2: "1.14.0"},
    "TRANSPOSE": {1: "1.6.0", 2: "1.14.0", 4: "2.3.0"},
    "TRANSPOSE_CONV": {3: "2.3.0", 4: "2.13.0"},
}


_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
# Operator -> {packed type of its weights: version}, for int8 inputs.
_PACKED: dict[str, dict[str, int]] = {
    "CONV_2D": {"int4": 7},
    "DEPTHWISE_CONV_2D": {"int4": 7},
    "FULLY_CONNECTED": {"int4": 10, "int2": 14},
}


def op_version(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the smallest operator version that covers this use.

    Args:
        op: The operator.
        graph: The graph that holds its tensors.

    Raises:
        ValueError: If this library does not write the operator, or not for these
            types.
    """
    if op.version is not None:
        return op.version
    if op.code not in _VERSIONS:
        raise ValueError(
            f"Operators must be among {sorted(_VERSIONS)}. Received: {op.code}."
        )
    dtypes = [graph.tensors[name].dtype for name in op.inputs if name]
    if op.code == "TRANSPOSE_CONV":
        dtypes = dtypes[2:0:-1]  # The first input is the output's shape.
    if dtypes[0] == "int8" and dtypes[1:] and dtypes[1] in _PACKED.get(op.code, {}):
        return _PACKED[op.code][dtypes[1]]
    weighted = op.code in _WEIGHTED
    if dtypes[0] not in DTYPES or (weighted and dtypes[0] != dtypes[1]):
        raise ValueError(
            f"{op.code} must compute in one of {list(DTYPES)}, with weights of the "
            f"same type. Received: {dtypes} for {op.outputs}."
        )
    rule = _RULES.get(op.code)
    in_float, in_int8 = _VERSIONS[op.code]
    special = rule(op, graph) if rule is not None else 0
    return special or (in_int8 if dtypes[0] == "int8" else in_float)


def _conv_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version of a grouped convolution, 0 for others."""
    source, weight = (graph.tensors[name].shape for name in op.inputs[:2])
    return 6 if source and source[-1] != weight[-1] else 0


def _depthwise_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version of a dilated convolution not in int8, 0 for others."""
    dilation = {op.options.get(f"dilation_{axis}_factor", 1) for axis in "hw"}
    in_int8 = graph.tensors[op.inputs[0]].dtype == "int8"
    return 2 if dilation != {1} and not in_int8 else 0


def _dense_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version that allows no bias, more axes or shuffled weights."""
    if len(op.inputs) == 2:
        return 6
    if op.options.get("keep_num_dims"):
        return 5
    in_int8 = graph.tensors[op.inputs[0]].dtype == "int8"
    shuffled = op.options.get("weights_format", "DEFAULT") != "DEFAULT"
    return 2 if shuffled and not in_int8 else 0


def _mul_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version that may scale codes up, 0 where it does not."""
    found = [graph.tensors[name].quantization for name in (*op.inputs, *op.outputs)]
    if None in found:
        return 0
    # In float32, as the runtime computes it.
    first, second, output = (np.float32(q.scale[0]) for q in found)
    return 3 if output and first * second / output >= 1 else 0


def _transpose_conv_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version with a bias, or with a fused activation too."""
    fused = op.options.get("fused_activation_function") not in (None, "NONE")
    return 4 if fused else 3


def _resize_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version with pixel centers at the half, 0 without."""
    return 3 if op.options.get("half_pixel_centers") else 0


def _axes_rule(version: int) -> Callable[[TFLiteOp, TFLiteGraph], int]:
    """Returns the rule of operators that need `version` for more than 4 axes."""

    def rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
        return version if len(graph.tensors[op.inputs[0]].shape) > 4 else 0

    return rule


def _relu_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for uint8, 0 for other types."""
    return 2 if graph.tensors[op.inputs[0]].dtype == "uint8" else 0


def _quantize_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for one scale per channel, 0 for one per tensor."""
    found = graph.tensors[op.outputs[0]].quantization
    return 3 if found is not None and len(found.scale) > 1 else 0


def _dequantize_rule(op: TFLiteOp, graph: TFLiteGraph) -> int:
    """Returns the version for one scale per channel, 0 for one per tensor."""
    source = graph.tensors[op.inputs[0]]
    per_channel = source.quantization is not None and len(source.quantization.scale) > 1
    return 5 if per_channel and source.dtype == "int8" else 0


_RULES: dict[str, Callable[[TFLiteOp, TFLiteGraph], int]] = {
    "CONV_2D": _conv_rule,
    "DEPTHWISE_CONV_2D": _depthwise_rule,
    "DEQUANTIZE": _dequantize_rule,
    "FULLY_CONNECTED": _dense_rule,
    "MAXIMUM": _axes_rule(3),
    "MINIMUM": _axes_rule(3),
    "MUL": _mul_rule,
    "PAD": _axes_rule(4),
    "QUANTIZE": _quantize_rule,
    "RELU": _relu_rule,
    "RESIZE_BILINEAR": _resize_rule,
    "RESIZE_NEAREST_NEIGHBOR": _resize_rule,
    "STRIDED_SLICE": _axes_rule(4),
    "SUB": _axes_rule(3),
    "TRANSPOSE": _axes_rule(4),
    "TRANSPOSE_CONV": _transpose_conv_rule,
}


def min_runtime(graph: TFLiteGraph) -> str:
    """Returns the first TensorFlow release whose TFLite runs a file.

    Args:
        graph: The file's graph.
    """
    found = {first_release(op, graph) for op in graph.ops}
    return newest([*found, graph.min_runtime])


def runtime_of(graph: TFLiteGraph) -> str:
    """Returns the oldest runtimes that run a file, for people to read.

    Args:
        graph: The file's graph.
    """
    return runtime_names(min_runtime(graph))


def runtime_names(release: str) -> str:
    """Returns a TensorFlow release with the LiteRT release that is as old.

    LiteRT counts anew. Its first release has the kernels of TensorFlow 2.18, the next
    those of 2.19, and 2.1 is the first with INT2.

    Args:
        release: First TensorFlow release that runs a file.

    Example:
        >>> runtime_names("2.12.0"), runtime_names("2.21.0")
        ('TensorFlow Lite 2.12.0, LiteRT 1.0', 'TensorFlow Lite 2.21.0, LiteRT 2.1')
    """
    litert = "1.1" if is_newer(release, "2.18.1") else "1.0"
    litert = "2.1" if is_newer(release, "2.20.0") else litert
    return f"TensorFlow Lite {release}, LiteRT {litert}"


def runtime_metadata(release: str) -> bytes:
    """Returns a release as the metadata of a file holds it.

    Args:
        release: From `min_runtime`.
    """
    return release.encode().ljust(_RUNTIME_BYTES, b"\0")


def first_release(op: TFLiteOp, graph: TFLiteGraph) -> str:
    """Returns the first TFLite release that runs an operator, "" if unknown.

    Args:
        op: The operator.
        graph: The graph that holds its tensors.
    """
    release = _RELEASES.get(op.code, {}).get(op_version(op, graph), "")
    if op.code == "FULLY_CONNECTED" and len(op.inputs) > 1 and op.inputs[1]:
        weight = graph.tensors[op.inputs[1]]
        scales = weight.quantization.scale if weight.quantization else ()
        if weight.dtype == "int4" and len(scales) > 1:
            release = newest([release, _INT4_PER_CHANNEL])
    return release


def is_newer(release: str, limit: str) -> bool:
    """Returns whether a release is behind a limit; unknown releases are.

    Args:
        release: Such as "2.9.0", or "" if unknown.
        limit: Such as "2.5.0", or "" for none.

    Example:
        >>> is_newer("2.11.0", "2.5.0"), is_newer("1.14.0", "2.5.0"), is_newer("9", "")
        (True, False, False)
    """
    if not limit:
        return False
    return not release or newest([release, limit]) != limit


def newest(releases: Iterable[str]) -> str:
    """Returns the newest of some releases, "" if there are none.

    Example:
        >>> newest(["1.14.0", "", "1.9.0"])
        '1.14.0'
    """
    known = [release for release in releases if release]
    return max(known, key=lambda text: [*map(int, text.split("."))], default="")
