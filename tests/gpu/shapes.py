"""Files of one operator, in the shapes that GPUs have kernels for."""

from __future__ import annotations

import dataclasses
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
    "BATCH_MATMUL, broadcast",
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
# Before and after each axis, without the batch.
_PADDINGS = {
    (1, _SIZE, _SIZE, _CHANNELS): ((2, 1), (1, 2), (0, 0)),
    (1, _SIZE, _CHANNELS): ((2, 1), (0, 0)),
}
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
# Shapes of the factors of a product, the batch included.
_FACTORS = (
    ((1, 4, 8), (1, 8, 5)),
    ((1, 2, 4, 8), (1, 2, 8, 5)),
    ((1, 2, 4, 8), (1, 1, 8, 5)),
)


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
        shapes = {name: graph.tensors[name].shape[1:] for name in graph.inputs}
        inputs = {
            name: rng.integers(-128, 128, (examples, *shape))
            for name, shape in shapes.items()
        }
        stem = folder / f"shape_{count:03}"
        write_graph(stem, graph, inputs, label)
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
        label, graph = _convolution(rng, kernel=kernel, groups=2)
        yield label, graph
        yield f"{label}, split", _split(graph, groups=2)
    yield _convolution(rng, kernel=(3, 3), dilation=2)
    yield _convolution(rng, kernel=(3, 3), dilation=2, multiplier=1)
    for source, output in _DENSE.items():
        yield _dense(rng, source, output)
    for code, shape in itertools.product(("MIRROR_PAD", "PADV2"), _PADDINGS):
        yield code, _padding(code, shape)
    for factors, transposed in itertools.product(_FACTORS, (False, True)):
        yield _product(*factors, transposed)


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


def _split(graph: TFLiteGraph, groups: int) -> TFLiteGraph:
    """Returns a convolution with groups as a SPLIT and one per group."""
    [whole] = graph.ops
    tensors = dict(graph.tensors)
    axis = TFLiteTensor("axis", (1,), "int32", data=np.array([3], np.int32))
    tensors["axis"] = axis
    parts = {name: _parts(tensors, name, groups, -1) for name in ("x", "y")}
    constants = {n: _parts(tensors, n, groups, 0) for n in ("weight", "bias")}
    convolutions = [
        dataclasses.replace(whole, inputs=list(inputs), outputs=[output])
        for *inputs, output in zip(
            parts["x"], *constants.values(), parts["y"], strict=True
        )
    ]
    joined = {"axis": 3, "fused_activation_function": "NONE"}
    ops = [
        TFLiteOp("SPLIT", ["axis", "x"], parts["x"], {"num_splits": groups}),
        *convolutions,
        TFLiteOp("CONCATENATION", parts["y"], ["y"], joined),
    ]
    return dataclasses.replace(graph, tensors=tensors, ops=ops)


def _parts(
    tensors: dict[str, TFLiteTensor], name: str, count: int, axis: int
) -> list[str]:
    """Adds equal parts of a tensor along an axis; returns their names."""
    whole = tensors[name]
    shape = list(whole.shape)
    shape[axis] //= count
    names = [f"{name}_{number}" for number in range(count)]
    for number, part in enumerate(names):
        chosen = slice(number * shape[axis], (number + 1) * shape[axis])
        grid, data = whole.quantization, whole.data
        if data is not None:
            data = np.take(data, np.arange(chosen.start, chosen.stop), axis)
            grid = dataclasses.replace(grid, scale=grid.scale[chosen])
        tensors[part] = dataclasses.replace(
            whole, name=part, shape=tuple(shape), quantization=grid, data=data
        )
    return names


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


def _padding(code: str, shape: tuple[int, ...]) -> TFLiteGraph:
    """Returns a padding: MIRROR_PAD reflects, PADV2 repeats one code."""
    pads = np.array([(0, 0), *_PADDINGS[shape]], np.int32)
    amounts = TFLiteTensor("pads", pads.shape, "int32", data=pads)
    value = _tensor("value", (), np.array([_STEP], np.float32))
    value.data = np.array(-7, np.int8)
    sizes = tuple(int(size) for size in np.add(shape, pads.sum(1)))
    output = _tensor("y", sizes, np.array([_STEP], np.float32))
    op = TFLiteOp(code, ["x", "pads"], ["y"])
    if code == "MIRROR_PAD":
        op.options["mode"] = "REFLECT"
        return _graph(op, [amounts, output], shape)
    op.inputs.append("value")
    return _graph(op, [amounts, value, output], shape)


def _product(
    first: tuple[int, ...], second: tuple[int, ...], transposed: bool
) -> tuple[str, TFLiteGraph]:
    """Returns a product of two inputs, the second of which may be transposed."""
    step = np.array([_STEP], np.float32)
    turned = (*second[:-2], second[-1], second[-2]) if transposed else second
    output = (*first[:-1], second[-1])
    op = TFLiteOp("BATCH_MATMUL", ["x", "z"], ["y"], {"adj_y": transposed})
    tensors = [_tensor("z", turned, step), _tensor("y", output, 10 * step)]
    graph = _graph(op, tensors, first)
    graph.inputs["z"] = "z"
    return _label(op.code, (0, 0), {"broadcast": first[:-2] != second[:-2]}), graph


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
