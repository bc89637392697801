"""Conditions of rules: functions that describe how a file breaks a rule."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, cast

from ..file import (
    LITERT,
    PACKED,
    USUAL_FORMS,
    End,
    Normalization,
    TFLiteOp,
    bytes_are_codes,
    contradiction,
    ends_of,
    faults_of,
    first_release,
    is_newer,
    litert_release,
    op_version,
    pixel_inputs,
    quantized_input,
)
from ..targets import TARGETS, takes_container
from .types import Consumer, FileFacts, Found

_IMAGE_AXES, _RGB = 4, 3


def _inputs(file: FileFacts) -> list[End]:
    """Returns the inputs of a file."""
    return ends_of(file.graph, file.graph.inputs)


def _outputs(file: FileFacts) -> list[End]:
    """Returns the outputs of a file."""
    return ends_of(file.graph, file.graph.outputs)


def listed(found: Iterable[str]) -> str:
    """Returns descriptions as one text."""
    return ", ".join(found)


# --- Ends ----------------------------------------------------------------------


def other_input_types(file: FileFacts, consumer: Consumer) -> str:
    """Finds inputs of types that a consumer does not take."""
    ends = [end for end in _inputs(file) if end.dtype not in consumer.input_types]
    return listed(f"input `{end.name}` is {end.dtype}" for end in ends)


def other_output_types(file: FileFacts, consumer: Consumer) -> str:
    """Finds outputs of types that a consumer does not take."""
    ends = [end for end in _outputs(file) if end.dtype not in consumer.output_types]
    return listed(f"output `{end.name}` is {end.dtype}" for end in ends)


def open_outputs_of(*codes: str) -> Found:
    """Returns a condition that finds outputs of operators with an open batch size.

    Args:
        *codes: The operators.
    """

    def found(file: FileFacts, consumer: Consumer) -> str:
        ends = {tensor: name for name, tensor in file.graph.outputs.items()}
        return listed(
            f"output `{ends[tensor]}` of {op.code}"
            for op in file.graph.ops
            if op.code in codes
            for tensor in op.outputs
            if tensor in ends and file.graph.tensors[tensor].dynamic_batch
        )

    return found


def mixed_outputs(file: FileFacts, consumer: Consumer) -> str:
    """Finds outputs of which some, but not all, are integers."""
    integers = [end.name for end in _outputs(file) if end.dtype != "float32"]
    if len(integers) in (0, len(file.graph.outputs)):
        return ""
    return f"{len(integers)} of {len(file.graph.outputs)} outputs are integers"


def not_one(what: Literal["inputs", "outputs"]) -> Found:
    """Returns a condition that finds several inputs or outputs, or none.

    Args:
        what: Which of them.
    """

    def found(file: FileFacts, consumer: Consumer) -> str:
        ends = {"inputs": file.graph.inputs, "outputs": file.graph.outputs}[what]
        return f"it has {len(ends)} {what}" if len(ends) != 1 else ""

    return found


def no_color_image(file: FileFacts, consumer: Consumer) -> str:
    """Finds inputs other than one image with three channels."""
    return listed(
        f"input `{end.name}` has the shape {list(end.shape)}"
        for end in _inputs(file)
        if len(end.shape) != _IMAGE_AXES
        or abs(end.shape[0]) != 1  # -1 for a batch of any size.
        or end.shape[-1] != _RGB
    )


def no_list_of_scores(axes: Collection[int] = ()) -> Found:
    """Returns a condition that finds outputs other than one score per class.

    Args:
        axes: How many axes outputs may have; (): any number.
    """

    def found(file: FileFacts, consumer: Consumer) -> str:
        return listed(
            f"output `{end.name}` has the shape {list(end.shape)}"
            for end in _outputs(file)
            if (axes and len(end.shape) not in axes) or _is_map(end)
        )

    return found


def _is_map(end: End) -> bool:
    """Returns whether an output has scores at several positions."""
    return len(end.shape) < 2 or math.prod(end.shape[1:]) != end.shape[-1]


# --- What images become ----------------------------------------------------------


def no_normalization(file: FileFacts, consumer: Consumer) -> str:
    """Finds float32 images without a normalization in the metadata."""
    known = _normalizations(file)
    return listed(
        f"input `{end.name}` is float32, and no metadata say how bytes become numbers"
        for end in _inputs(file)
        if end.dtype == "float32" and end.name not in known
    )


def other_codes(file: FileFacts, consumer: Consumer) -> str:
    """Finds images whose codes are not bytes, as the file itself says."""
    return listed([*_other_uint8_codes(file), *_contradictions(file)])


def _other_uint8_codes(file: FileFacts) -> list[str]:
    """Returns which uint8 images have codes that are not bytes."""
    return [
        f"input `{end.name}` has the scale {end.scale:.6g} and the zero point "
        f"{end.zero_point}, {why}, so its codes are not the bytes that the consumer "
        "writes there"
        for end in _byte_inputs(file)
        if (why := _why_not_bytes(file, end))
    ]


def _contradictions(file: FileFacts) -> list[str]:
    """Returns which float32 images that are pixels are normalized otherwise."""
    known = _normalizations(file)
    return [
        f"input `{end.name}` has {why}"
        for end in _inputs(file)
        if end.dtype == "float32"
        and end.name in known
        and _is_pixels(file, end)
        and (why := contradiction(file.graph, end, known[end.name]))
    ]


def unusual_codes(file: FileFacts, consumer: Consumer) -> str:
    """Finds uint8 images whose bytes may be codes: only the model's trainer knows."""
    return listed(
        f"{_takes(end)}; not known from the file whether its model was trained so"
        for end in _unsaid_inputs(file)
        if not _is_usual(end)
    )


def usual_codes(file: FileFacts, consumer: Consumer) -> str:
    """Finds uint8 images that are said to be made of bytes by their usual grid only."""
    return listed(
        f"{_takes(end)}, a usual form; the file does not say how its model was trained"
        for end in _unsaid_inputs(file)
        if _is_usual(end)
    )


def _unsaid_inputs(file: FileFacts) -> list[End]:
    """Returns the uint8 inputs of which a file does not say what bytes stand for."""
    return [
        end
        for end in _byte_inputs(file)
        if not _is_pixels(file, end)
        and end.name not in _normalizations(file)
        and not _why_not_bytes(file, end)
    ]


def _why_not_bytes(file: FileFacts, end: End) -> str:
    """Returns how a file shows that codes are not bytes, "" if it does not."""
    normalization = _normalizations(file).get(end.name)
    if _is_pixels(file, end):
        return ""
    if normalization is not None:
        same = _codes_are_bytes(end, normalization)
        return "" if same else "but another normalization in its metadata"
    if "step" not in _described(file, end):
        return ""
    return "" if _is_usual(end) else "which were learned"


def _is_usual(end: End) -> bool:
    """Returns whether bytes are the codes of a usual form of images."""
    return any(_codes_are_bytes(end, form) for form in USUAL_FORMS)


def _byte_inputs(file: FileFacts) -> list[End]:
    """Returns the uint8 inputs that have a grid."""
    return [e for e in _inputs(file) if e.dtype == "uint8" and e.scale]


def _is_pixels(file: FileFacts, end: End) -> bool:
    """Returns whether the codes of an input are bytes, as a file says."""
    return end.name in pixel_inputs(file.graph, file.described)


def _described(file: FileFacts, end: End) -> Collection[str]:
    """Returns the keys of what a file says of the quantizer of an input."""
    if file.described is None:
        return ()
    tensor = file.graph.inputs[end.name]
    names = tensor, quantized_input(file.graph, tensor)
    tensors = cast("dict[str, Any]", file.described.get("tensors", {}))
    found = next((tensors[name] for name in names if name in tensors), None)
    return cast("dict[str, Any]", found) if isinstance(found, dict) else ()


def _normalizations(file: FileFacts) -> dict[str, Normalization]:
    """Returns the normalizations of inputs that a file names."""
    return {} if file.standard is None else file.standard.normalization


def _codes_are_bytes(end: End, normalization: Normalization) -> bool:
    """Returns whether the code of each byte is the byte.

    Where the mean is on no byte, 0 is not either, and codes are off by up to one.
    """
    on_byte = all(mean % 1 == 0 for mean in normalization.mean)
    return bytes_are_codes(end, normalization, tolerance=0 if on_byte else 1)


def _takes(end: End) -> str:
    """Returns what an input takes bytes for."""
    mean, std = end.zero_point or 0, 1 / (end.scale or 1)
    text = f"(byte - {mean})" if mean else "byte"
    form = text if std == 1 else f"{text} / {std:.6g}"
    return f"`{end.name}` takes bytes as {form}"


# --- Metadata ----------------------------------------------------------------------


def unfit_metadata(file: FileFacts, consumer: Consumer) -> str:
    """Finds faults of the standard metadata that stop all readers."""
    if file.standard is None:
        return ""
    unnamed = file.standard.unnamed
    return "; ".join(one for one in file.standard.problems if one not in unnamed)


def unnamed_outputs(file: FileFacts, consumer: Consumer) -> str:
    """Finds outputs that have no name in the metadata."""
    return "" if file.standard is None else "; ".join(file.standard.unnamed)


def unfit_normalization(file: FileFacts, consumer: Consumer) -> str:
    """Finds normalizations by other than one or three means and as many stds."""
    return listed(
        f"`{name}` has {len(one.mean)} numbers as mean and {len(one.std)} as std"
        for name, one in _normalizations(file).items()
        if len(one.mean) not in (1, _RGB) or len(one.mean) != len(one.std)
    )


def gray_images(file: FileFacts, consumer: Consumer) -> str:
    """Finds images that are gray as the metadata say."""
    colors = {} if file.standard is None else file.standard.colors
    names = [f"`{name}`" for name, color in colors.items() if color == "GRAYSCALE"]
    return f"{listed(names)} is gray in the metadata" if names else ""


def no_labels(file: FileFacts, consumer: Consumer) -> str:
    """Finds outputs without labels."""
    known = {} if file.standard is None else file.standard.labels
    names = [name for name in file.graph.outputs if name not in known]
    return f"no labels: {listed(map('`{}`'.format, names))}" if names else ""


# --- Operators -----------------------------------------------------------------


def newer_operators(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators that came after the release of a consumer."""
    needed = _releases(file, consumer.product)
    found = [
        f"{what} needs {consumer.product} {release}"
        for what, release in needed.items()
        if release and is_newer(release, consumer.release)
    ]
    return listed([*found, *_faults(file, consumer, refused=True)])


def unknown_operators(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators of which it is not known which release runs them."""
    unknown = [what for what, at in _releases(file, LITERT).items() if not at]
    return f"no release is known to run {listed(unknown)}" if unknown else ""


def newer_uses(file: FileFacts, consumer: Consumer) -> str:
    """Finds uses of operators that some releases refuse, or compute wrongly."""
    found = listed(fault.name for fault in faults_of(file.graph))
    return f"not every release runs {found}" if found else ""


def faulty_operators(file: FileFacts, consumer: Consumer) -> str:
    """Finds operators that the release of a consumer computes wrongly."""
    return listed(_faults(file, consumer, refused=False))


def _faults(file: FileFacts, consumer: Consumer, *, refused: bool) -> list[str]:
    """Returns the uses that the release of a consumer refuses, or computes wrongly."""
    return [
        fault.name
        for fault in faults_of(file.graph)
        if fault.refused == refused
        if any(span.has(consumer.product, consumer.release) for span in fault.spans)
    ]


def _releases(file: FileFacts, product: str) -> dict[str, str]:
    """Returns the first release of a product that runs each operator, "" if unknown."""
    releases: dict[str, str] = {}
    for op in file.graph.ops:
        release = first_release(op, file.graph)
        if release and product == LITERT:
            release = litert_release(release)
        use = f"{op.code} {op.custom or _unusual_type(op, file)}".strip()
        releases[f"{use} v{op_version(op, file.graph)}"] = release
    return releases


def _unusual_type(op: TFLiteOp, file: FileFacts) -> str:
    """Returns a type on which the first release of an operator depends, "" for none."""
    names = [name for name in (*op.inputs, *op.outputs) if name]
    in_int16 = any(file.graph.tensors[name].dtype == "int16" for name in names)
    return _packed_container(op, file) or ("int16" if in_int16 else "")


def _packed_container(op: TFLiteOp, file: FileFacts) -> str:
    """Returns the packed container of an operator's weights, "" for others."""
    tensors = [file.graph.tensors[name] for name in op.inputs[1:2] if name]
    return next((t.dtype for t in tensors if t.dtype in PACKED), "")


def packed_weights(*codes: str) -> Found:
    """Returns a condition that finds packed weights.

    Args:
        *codes: Operators that they belong to; none: all.
    """

    def found(file: FileFacts, consumer: Consumer) -> str:
        packed = _packed(file, codes)
        return f"packed weights of {packed}" if packed else ""

    return found


def unknown_weights(file: FileFacts, consumer: Consumer) -> str:
    """Finds packed weights of which it is not known whether a consumer has them."""
    packed = _packed(file)
    return f"it may not run {packed}" if packed else ""


def _packed(file: FileFacts, codes: Collection[str] = ()) -> str:
    """Returns how many operators have packed weights, of some kinds or of all."""

    def packed(op: TFLiteOp) -> str:
        container = _packed_container(op, file)
        return f"{op.code} {container}" if container else ""

    return counted(file, lambda op: packed(op) if op.code in codes or not codes else "")


def slow_weights(file: FileFacts, consumer: Consumer) -> str:
    """Finds packed weights that XNNPACK leaves to TFLite's own kernels."""

    def slow(op: TFLiteOp) -> str:
        container = _packed_container(op, file)
        if not container:
            return ""
        channels = file.graph.tensors[op.inputs[0]].shape[-1]
        fast = takes_container(TARGETS["phone"], op.code, container, channels)
        return "" if fast else f"{op.code} {container}"

    found = counted(file, slow)
    return f"XNNPACK has no kernel for {found}" if found else ""


def counted(file: FileFacts, name: Callable[[TFLiteOp], str]) -> str:
    """Returns how many operators have each name but ""."""
    counts = collections.Counter(name(op) for op in file.graph.ops)
    return listed(f"{count} {use}" for use, count in counts.items() if use)
