"""The classifiers by name; each provokes a rule, or none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tflite_export.file import (
    Additions,
    Normalization,
    TFLiteGraph,
    standard_metadata,
    with_additions,
)
from tflite_export.file.metadata_format import encode

from .classifiers import SIZE, Spec, build

# Mean and standard deviation of bytes.
_STANDARD = (0.45 * 255, 0.22 * 255)
_SYMMETRIC = (2.5 / 127, 0)  # A learned grid of such numbers.
_RANGE = (1 / _STANDARD[1], -13)  # The smallest grid that holds them.
_I8 = "int8"
_LABELS = ("cat", "dog", "cow", "hen", "fox")


def _with(additions: Additions) -> Callable[[TFLiteGraph], TFLiteGraph]:
    """Returns a function that adds standard metadata to a graph."""
    return lambda graph: with_additions(graph, additions)


def _changed(
    change: Callable[[Any, dict[str, bytes]], object],
) -> Callable[[TFLiteGraph], TFLiteGraph]:
    """Returns a function that adds labels, and changes metadata and attached files."""

    def changed(graph: TFLiteGraph) -> TFLiteGraph:
        labelled = with_additions(graph, Additions(labels={"scores": _LABELS}))
        tree, files = standard_metadata.tree_of(labelled), dict(labelled.files)
        change(tree, files)
        name = standard_metadata.METADATA_NAME
        entries = {**labelled.metadata, name: encode(tree)}
        return dataclasses.replace(labelled, metadata=entries, files=files)

    return changed


def _entry(tree: Any, ends: str) -> dict[str, Any]:
    """Returns what metadata say of the first input or output."""
    return tree["subgraph_metadata"][0][f"{ends}_tensor_metadata"][0]


def _gray(tree: Any, files: dict[str, bytes]) -> None:
    """Says that the image is gray."""
    content = {"content_properties": ("ImageProperties", {"color_space": "GRAYSCALE"})}
    _entry(tree, "input")["content"] = content


def _empty_entry(tree: Any, files: dict[str, bytes]) -> None:
    """Says nothing of the output, not even its name."""
    _entry(tree, "output").clear()
    files.clear()


def _second_output(tree: Any, files: dict[str, bytes]) -> None:
    """Describes an output that the file does not have."""
    outputs = tree["subgraph_metadata"][0]["output_tensor_metadata"]
    outputs.append({"name": "second"})


def _two_numbers(tree: Any, files: dict[str, bytes]) -> None:
    """Normalizes three channels by two numbers."""
    options = {"mean": [0.0, 0.0], "std": [255.0, 255.0]}
    units = [{"options": ("NormalizationOptions", options)}]
    _entry(tree, "input")["process_units"] = units


def _no_file(tree: Any, files: dict[str, bytes]) -> None:
    """Removes the file of labels that the metadata name."""
    files.clear()


def _few_labels(tree: Any, files: dict[str, bytes]) -> None:
    """Leaves three labels for five classes."""
    [name] = files
    files[name] = b"cat\ndog\ncow\n"


def _in_uint8(graph: TFLiteGraph) -> TFLiteGraph:
    """Returns the graph as converters for TensorFlow 1 wrote it, all in uint8."""
    for op in graph.ops:
        for name in op.inputs[1:3] if op.inputs[2:] else ():  # Kernel and bias.
            tensor = graph.tensors[name]
            tensor.quantization = dataclasses.replace(
                tensor.quantization, scale=tensor.quantization.scale[:1], axis=0
            )
    for tensor in graph.tensors.values():
        if tensor.dtype == "int8":
            grid = tensor.quantization
            tensor.quantization = dataclasses.replace(
                grid, zero_point=grid.zero_point + 128
            )
            tensor.dtype = "uint8"
            if tensor.data is not None:
                tensor.data = (tensor.data.astype(np.int16) + 128).astype(np.uint8)
    return graph


_FLOAT_INPUT = Spec(input_type="float32")
SPECS = {
    "uint8_float32": Spec(),
    "uint8_uint8": Spec(output_type="uint8"),
    "int8_int8": Spec(input_type="int8", output_type="int8"),
    "int8_float32": Spec(input_type="int8"),
    "uint8_int8": Spec(output_type="int8"),
    "float32_float32": _FLOAT_INPUT,
    "uint8_int64": Spec(output_type="int64"),
    "gray": Spec(shape=(1, SIZE, SIZE, 1)),
    "two_channels": Spec(shape=(1, SIZE, SIZE, 2)),
    "four_channels": Spec(shape=(1, SIZE, SIZE, 4)),
    "vector": Spec(shape=(1, 12)),
    "batch_of_2": Spec(shape=(2, SIZE, SIZE, 3)),
    "dynamic_batch": Spec(dynamic=True),
    "two_images": Spec(images=2),
    "number_input": Spec(number="int64"),
    "two_outputs": Spec(second_output="float32"),
    "mixed_outputs": Spec(second_output="uint8"),
    "three_axes": Spec(output_shape=(1, 1, 5)),
    "four_axes": Spec(output_shape=(1, 1, 1, 5)),
    "map": Spec(classes=10, output_shape=(1, 2, 5)),
    "int4_convolution": Spec(containers=("int4", _I8, _I8, _I8)),
    "int4_depthwise": Spec(containers=(_I8, "int4", _I8, _I8)),
    "int4_pointwise": Spec(containers=(_I8, _I8, "int4", _I8)),
    "int4_dense": Spec(containers=(_I8, _I8, _I8, "int4")),
    "int4_dense_one_scale": Spec(containers=(_I8, _I8, _I8, "int4"), dense_scales=1),
    "int2_dense": Spec(containers=(_I8, _I8, _I8, "int2")),
    "strided_pointwise": Spec(stride=2),
    "groups": Spec(groups=2),
    "depthwise_1x1": Spec(depthwise=(1, 2)),
    "dense_of_an_image": Spec(flat=False),
    "joined_axes": Spec(front="joined_axes"),
    "joined_pixels": Spec(front="joined_pixels"),
    "five_axes": Spec(front="five_axes"),
    "padded_vector": Spec(front="padded_vector"),
    "symmetric_padding": Spec(front="symmetric_padding"),
    "reversed_slice": Spec(front="reversed_slice"),
    "dropped_axis": Spec(front="dropped_axis"),
    "in_int16": Spec(front="in_int16"),
    "sum_in_int16": Spec(front="sum_in_int16"),
    "dense_in_int16": Spec(front="dense_in_int16"),
    "narrow_attention": Spec(front="narrow_attention"),
    "wide_attention": Spec(front="wide_attention"),
    "broadcast_product": Spec(front="broadcast_product"),
    "norm_in_int8": Spec(front="norm_in_int8"),
    "norm_in_int16": Spec(front="norm_in_int16"),
    "table": Spec(front="table"),
    "gelu": Spec(front="gelu"),
    "exp": Spec(front="exp"),
    "log": Spec(front="log"),
    "split": Spec(front="split"),
    "transposed_relu": Spec(front="transposed_relu"),
    "learned_step": Spec(grid=_SYMMETRIC, trained=_STANDARD, says="learned"),
    "other_symmetric": Spec(grid=_SYMMETRIC, trained=_STANDARD),
    "other_range": Spec(grid=_RANGE, trained=_STANDARD),
    "normalized_otherwise": Spec(grid=_SYMMETRIC, trained=_STANDARD),
    "normalized_as_codes": Spec(grid=_RANGE, trained=_STANDARD),
    "bytes_as_values": Spec(grid=(1.0, -128), trained=(0.0, 1.0)),
    "newest_version": Spec(newest=True),
    "dense_zero_point": Spec(dense_scales=1, zero_point=50),
    "all_uint8": Spec(output_type="uint8"),
    "sorted": Spec(output_type="sorted", dynamic=True),
    "labels": Spec(),
    "pixels": Spec(says="pixels"),
    "normalization": _FLOAT_INPUT,
    "normalization_of_channels": _FLOAT_INPUT,
    "normalization_of_two": _FLOAT_INPUT,
    "said_to_be_gray": Spec(),
    "empty_entry": Spec(),
    "metadata_of_two_outputs": Spec(),
    "labels_not_attached": Spec(),
    "few_labels": Spec(),
}
_OF_STANDARD = Additions(
    normalization={"image": Normalization((_STANDARD[0],), (_STANDARD[1],))}
)
_CHANGES = {
    "all_uint8": _in_uint8,
    "labels": _with(Additions(labels={"scores": _LABELS})),
    "pixels": _with(Additions(labels={"scores": _LABELS})),
    "normalization": _with(
        Additions(normalization={"image": Normalization((0.0,), (255.0,))})
    ),
    "normalization_of_channels": _with(
        Additions(normalization={"image": Normalization((0.0,) * 3, (255.0,) * 3)})
    ),
    "normalized_otherwise": _with(_OF_STANDARD),
    "normalized_as_codes": _with(_OF_STANDARD),
    "normalization_of_two": _changed(_two_numbers),
    "said_to_be_gray": _changed(_gray),
    "empty_entry": _changed(_empty_entry),
    "metadata_of_two_outputs": _changed(_second_output),
    "labels_not_attached": _changed(_no_file),
    "few_labels": _changed(_few_labels),
}


def graph_of(name: str) -> TFLiteGraph:
    """Returns the graph of a classifier.

    Args:
        name: A key of `SPECS`.
    """
    graph = build(SPECS[name])
    return _CHANGES[name](graph) if name in _CHANGES else graph
