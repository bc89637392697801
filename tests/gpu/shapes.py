"""Files of one operator with a window, in the shapes that GPUs have kernels for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from harness.graph_files import write_graph

from tflite_export.file import TensorQuantization, TFLiteGraph, TFLiteOp, TFLiteTensor

# What LiteRT 2.3.0 computes wrongly, without an error. `make gpu` fails when that
# changes.
WRONG = {
    "CONV_2D 1x1, strides",
    "CONV_2D, groups",
    "DEPTHWISE_CONV_2D 1x1, multiplier",
    "FULLY_CONNECTED, flattening",
    "FULLY_CONNECTED, joined axes",
}
_SIZE, _CHANNELS, _STEP = 8, 4, 0.05
_KERNELS = ((1, 1), (1, 3), (2, 2), (3, 3))
_STRIDES = ((1, 1), (2, 2), (1, 2), (3, 3))
_ZERO_POINT = 3
# Shapes of the input of a dense layer -> of its output, the batch included.
_DENSE = {
    (1, 32): (1, 5),
    (1, 1, 1, 32): (1, 5),
    (1, 8, 4): (1, 8, 5),
    (1, 4, 4, 4): (1, 4, 4, 5),
    (1, 4, 8): (1, 5),
    (1, 2, 4, 8): (1, 5),
    (1, 1, 8, 4): (1, 5),
    (1, 6, 4): (6, 5),
    (1, 3, 4, 4): (12, 5),
}


def write_files(folder: Path, examples: int) -> int:
    """Writes the files, their inputs, and the codes of LiteRT on this machine.

    Args:
        folder: Gets what `cases.write_case` also writes.
        examples: How many examples the files have.

    Returns:
        How many files were written.
    """
    rng = np.random.default_rng(0)
    count = 0
    for label, graph in _graphs(rng):
        shape = (examples, *graph.tensors["x"].shape[1:])
        stem = folder / f"shape_{count:03}"
        write_graph(stem, graph, {"x": rng.integers(-128, 128, shape)}, label)
        count += 1
    return count


def _graphs(rng: np.random.Generator) -> Iterator[tuple[str, TFLiteGraph]]:
    """Yields the label and the graph of each file."""
    for kernel, strides, padding in itertools.product(
        _KERNELS, _STRIDES, ("SAME", "VALID")
    ):
        window = {"kernel": kernel, "strides": strides, "padding": padding}
        yield _convolution(rng, **window)
        for multiplier in (1, 2):
            yield _convolution(rng, **window, multiplier=multiplier)
        for code in ("MAX_POOL_2D", "AVERAGE_POOL_2D"):
            yield _pool(code, **window)
    for kernel in ((1, 1), (3, 3)):
        yield _convolution(rng, kernel=kernel, groups=2)
    yield _convolution(rng, kernel=(3, 3), dilation=2)
    yield _convolution(rng, kernel=(3, 3), dilation=2, multiplier=1)
    for source, output in _DENSE.items():
        yield _dense(rng, source, output)


def _label(code: str, kernel: tuple[int, int], traits: dict[str, bool]) -> str:
    """Returns the operator and what is special about it."""
    size = " 1x1" if kernel == (1, 1) else ""
    return ", ".join([code + size, *(name for name, is_so in traits.items() if is_so)])


def _convolution(
    rng: np.random.Generator,
    kernel: tuple[int, int],
    strides: tuple[int, int] = (1, 1),
    padding: str = "SAME",
    groups: int = 1,
    dilation: int = 1,
    multiplier: int = 0,
) -> tuple[str, TFLiteGraph]:
    """Returns a convolution; with a multiplier, a depthwise one."""
    depthwise = multiplier > 0
    code = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
    channels = _CHANNELS * multiplier if depthwise else _CHANNELS
    depth = _CHANNELS // groups
    shape = (1, *kernel, channels) if depthwise else (channels, *kernel, depth)
    terms = kernel[0] * kernel[1] * (1 if depthwise else depth)
    scale = np.full(channels, 0.01, np.float32)
    weight = _tensor("weight", shape, scale, 3 if depthwise else 0)
    weight.data = rng.integers(-127, 128, shape).astype(np.int8)
    bias = _tensor("bias", (channels,), scale * np.float32(_STEP), 0, "int32")
    bias.data = rng.integers(-500, 500, channels).astype(np.int32)
    options = _window(strides, padding) | {
        "dilation_h_factor": dilation,
        "dilation_w_factor": dilation,
    }
    if depthwise:
        options["depth_multiplier"] = multiplier
    op = TFLiteOp(code, ["x", "weight", "bias"], ["y"], options)
    step = np.array([_STEP * 0.03 * np.sqrt(terms)], np.float32)
    sizes = _sizes(kernel, strides, padding)
    traits = {
        "strides": max(strides) > 1 and multiplier < 2,
        "multiplier": multiplier > 1,
        "groups": groups > 1,
        "dilation": dilation > 1,
    }
    label_kernel = (0, 0) if groups > 1 else kernel
    output = _tensor("y", (1, *sizes, channels), step, zero_point=_ZERO_POINT)
    graph = _graph(op, [weight, bias, output])
    return _label(code, label_kernel, traits), graph


def _pool(
    code: str, kernel: tuple[int, int], strides: tuple[int, int], padding: str
) -> tuple[str, TFLiteGraph]:
    """Returns a pooling."""
    window = _window(strides, padding)
    window |= {"filter_height": kernel[0], "filter_width": kernel[1]}
    sizes = _sizes(kernel, strides, padding)
    output = _tensor("y", (1, *sizes, _CHANNELS), np.array([_STEP], np.float32))
    graph = _graph(TFLiteOp(code, ["x"], ["y"], window), [output])
    return _label(code, kernel, {"strides": max(strides) > 1}), graph


def _dense(
    rng: np.random.Generator, source: tuple[int, ...], output: tuple[int, ...]
) -> tuple[str, TFLiteGraph]:
    """Returns a dense layer, which may flatten its input, or join its axes."""
    depth = math.prod(source) * output[-1] // math.prod(output)
    scale = np.full(output[-1], 0.01, np.float32)
    weight = _tensor("weight", (output[-1], depth), scale)
    weight.data = rng.integers(-127, 128, weight.shape).astype(np.int8)
    step = np.array([_STEP * 0.03 * np.sqrt(depth)], np.float32)
    op = TFLiteOp("FULLY_CONNECTED", ["x", "weight", ""], ["y"])
    op.options["keep_num_dims"] = len(source) == len(output) > 2
    graph = _graph(op, [weight, _tensor("y", output, step)], source)
    traits = {
        "flattening": depth != source[-1],
        "joined axes": len(output) < len(source) and output[0] > 1,
        "several axes": len(output) > 2,
    }
    return _label(op.code, (0, 0), traits), graph


def _window(strides: tuple[int, int], padding: str) -> dict[str, object]:
    """Returns the options that convolutions and poolings share."""
    return {
        "padding": padding,
        "stride_h": strides[0],
        "stride_w": strides[1],
        "fused_activation_function": "NONE",
    }


def _sizes(
    kernel: tuple[int, int], strides: tuple[int, int], padding: str
) -> list[int]:
    """Returns height and width of the output of an undilated or padded window."""
    lost = [0, 0] if padding == "SAME" else [size - 1 for size in kernel]
    return [
        -(-(_SIZE - less) // stride) for less, stride in zip(lost, strides, strict=True)
    ]


def _tensor(
    name: str,
    shape: tuple[int, ...],
    scale: np.ndarray,
    axis: int = 0,
    dtype: str = "int8",
    zero_point: int = 0,
) -> TFLiteTensor:
    """Returns a tensor."""
    return TFLiteTensor(name, shape, dtype, TensorQuantization(scale, zero_point, axis))


def _graph(
    op: TFLiteOp,
    tensors: list[TFLiteTensor],
    shape: tuple[int, ...] = (1, _SIZE, _SIZE, _CHANNELS),
) -> TFLiteGraph:
    """Returns the graph of one operator; `shape` is that of its input."""
    x = _tensor("x", shape, np.array([_STEP], np.float32))
    named = {tensor.name: tensor for tensor in [x, *tensors]}
    return TFLiteGraph(named, [op], {"x": "x"}, {"y": "y"})
