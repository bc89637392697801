"""Decides which inputs of a model are pixels, and makes their codes bytes.

The grid of such an input is prescribed, not learned, see `PixelGrid`. If 0 falls on a
byte and all channels have the same numbers, the codes of the grid are the normalized
values. Otherwise the codes are plain bytes, and the normalization follows as an
operator. The grid of its output is prescribed as well: it has 0, so that padding is
exact, and covers what the 256 bytes give in 254 steps. (In 255, as many as bytes are
apart, all values of [-1, 1] would lie halfway between two codes.)

A model that normalizes bytes itself, with `Rescaling`, `Normalization` or a
`preprocess_input` at its front, takes bytes. That is recognised by the constants.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ._compat import keras
from .graph import (
    LARGEST_INT8,
    Graph,
    Node,
    bypass,
    insert_reversal,
    insert_scaling,
    is_scaling,
    replace_scaling,
    scaling_numbers,
    takes_as_is,
    unique_name,
)
from .overrides import chosen_overrides
from .pixels import LARGEST_BYTE, PixelGrid, Pixels
from .policy import SYMMETRIC_TARGETS, Options, stays_float

BYTES = Pixels(0.0, 1.0)
# A mean that is off a whole number by less than float32 leaves of constants is whole.
_WHOLE = 1e-4
# They only move values.
_MOVES = ("slice", "gather", "reshape", "transpose")
# The byte in the middle, which codes of zero point 0 leave at 0.
_MIDDLE = 128

# --- What only a normalization of bytes does ------------------------------------------
_CHANNELS = (1, 3, 4)
_RGB = 3
# Height and width of images without an axis of channels; else it may be a series.
_SMALLEST = 16
# It maps 0..255 to an interval of this length: [0, 1], [-1, 1], [-0.5, 0.5].
_SPANS = (1.0, 2.0)
_SPAN_TOLERANCE = 0.01  # Some divide by 256 or 128.
# Or it subtracts the means of the channels of photographs, and may divide by their
# standard deviations: 123.7 and 58.4 for the red of ImageNet, 125.3 and 63.0 for that
# of CIFAR-10. `preprocess_input` of ResNet and VGG only subtracts.
_MEANS = (1.0, 254.0)
_DEVIATIONS = (20.0, 128.0)
_MEANS_ALONE = (64.0, 192.0)


def settle_pixels(
    graph: Graph, options: Options, configs: Mapping[str, Any] | None = None
) -> None:
    """Finds the inputs that are pixels, and changes the graph after them.

    They, and the normalizations after them, get their `PixelGrid` as the option
    "pixel_grid". Operators that are inserted have the option "of_input".

    Args:
        graph: The fused graph of a float model, which changes.
        options: Checked options; see `tf_lsq.quantize_model` for `inputs`.
        configs: As for `assign_bits`.

    Raises:
        ValueError: If `options.inputs` names an input that the model does not have, or
            says what cannot be; the error names them all.
    """
    chosen = _chosen(graph, options)
    for node in graph.inputs:
        pixels = chosen.get(node.name, BYTES if _has_bytes(node, options) else None)
        if pixels is not None:
            _Rewriting(graph, node, options, configs).apply(pixels)


# --- What the user says ---------------------------------------------------------------


def _chosen(graph: Graph, options: Options) -> dict[str, Pixels | None]:
    """Returns what the user says about inputs, by name."""
    names = [node.name for node in graph.inputs]
    given = options.inputs
    if given is None:
        return {}
    if isinstance(given, Pixels):
        if len(names) > 1:
            raise ValueError(
                "`inputs` must map names to `Pixels` for a model with several inputs. "
                f"Received: inputs={given!r}. Inputs: {names}."
            )
        given = {names[0]: given}
    unknown = [repr(name) for name in given if name not in names]
    problems = [f"{name} is no input" for name in unknown]
    for node in graph.inputs:
        pixels = given.get(node.name)
        if pixels is not None:
            problems += [f"{node.name!r}: {p}" for p in _problems(node, pixels)]
    if problems:
        raise ValueError(
            "`inputs` must say how the values of inputs encode bytes. Received: "
            f"{'; '.join(problems)}. Inputs: {names}."
        )
    return dict(given)


def _problems(node: Node, pixels: Pixels) -> list[str]:
    """Returns why an input cannot be these pixels."""
    problems, channels = [], node.shape[-1] if len(node.shape) > 1 else None
    wanted = pixels.num_channels
    if wanted is not None and wanted != channels:
        problems.append(
            f"numbers for {wanted} channels, but its last axis has size {channels}"
        )
    if pixels.order == "bgr" and channels != _RGB:
        problems.append(f'order="bgr" needs 3 channels, its last axis has {channels}')
    if any(takes_as_is(reader, node) for reader in node.consumers):
        problems.append("the model reads it as whole numbers, such as ids")
    elif node.is_integer and pixels.single != BYTES.single:
        problems.append(
            f"it is of type {node.dtype.name}, so its values are bytes, Pixels(0, 1)"
        )
    if node.is_output:
        problems.append("it is also an output of the model")
    return problems


# --- What the constants say -----------------------------------------------------------


def _has_bytes(node: Node, options: Options) -> bool:
    """Returns whether the model shows that an input holds bytes.

    It does if the type is uint8 and it is read as values; or if it is an image that is
    normalized as only bytes are.
    """
    if options.target in SYMMETRIC_TARGETS or node.is_output or not node.consumers:
        return False  # On zero points of 0, not without being asked.
    if any(takes_as_is(reader, node) for reader in node.consumers):
        return False
    if node.is_integer:
        return node.dtype.name == "uint8"
    if not _is_image(node.shape):
        return False
    return any(
        _normalizes_bytes(*scaling_numbers(scaling), scaling.shape[-1])
        for scaling in _front_scalings(node)
    )


def _is_image(shape: tuple[int | None, ...]) -> bool:
    """Returns whether a shape is that of images, with or without channels."""
    if len(shape) == 3:
        return all(size is None or size >= _SMALLEST for size in shape[1:])
    return len(shape) == 4 and shape[-1] in _CHANNELS


def _front_scalings(node: Node) -> list[Node]:
    """Returns the scalings that read an input, or its values moved."""
    found, waiting = [], list(node.consumers)
    while waiting:
        reader = waiting.pop()
        if is_scaling(reader):
            found.append(reader)
        elif reader.properties.keeps_codes or reader.properties.keeps_grid:
            waiting += reader.consumers
    return found


def _normalizes_bytes(
    scale: np.ndarray, offset: np.ndarray, channels: int | None
) -> bool:
    """Returns whether a scaling is one that only bytes have.

    Args:
        scale: One number, or one per channel.
        offset: The same.
        channels: How many channels the image has.
    """
    if not scale.all():
        return False
    scale, offset = np.broadcast_arrays(np.atleast_1d(scale), np.atleast_1d(offset))
    mean, deviation = -offset / scale, 1 / np.abs(scale)
    spans = LARGEST_BYTE * np.abs(scale)
    tolerance = _SPAN_TOLERANCE * LARGEST_BYTE
    has_zero = _within(mean, (-tolerance, LARGEST_BYTE + tolerance))
    near = [np.abs(spans / span - 1).max() <= _SPAN_TOLERANCE for span in _SPANS]
    if has_zero and any(near):
        return True
    if channels != _RGB:
        return False
    if (scale == 1).all():
        return _within(mean, _MEANS_ALONE)
    return _within(mean, _MEANS) and _within(deviation, _DEVIATIONS)


def _within(values: np.ndarray, ends: tuple[float, float]) -> bool:
    """Returns whether all values lie between two ends."""
    return bool((values >= ends[0]).all() and (values <= ends[1]).all())


# --- The graph ------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Scaling:
    """What is computed from bytes: ``scale * byte + offset``, `[]` or `[channels]`."""

    scale: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(cls, pixels: Pixels) -> _Scaling:
        """Returns how values encode bytes."""
        mean, std = (np.asarray(n, np.float64) for n in (pixels.mean, pixels.std))
        return cls(1 / std, -mean / std)

    def then(self, scale: np.ndarray, offset: np.ndarray) -> _Scaling:
        """Returns this scaling and another one after it."""
        return _Scaling(self.scale * scale, self.offset * scale + offset)

    def grid(self, target: str) -> tuple[int, float] | None:
        """Returns zero and divisor of the grid that has these values, or None."""
        scale, offset = np.unique(self.scale), np.unique(self.offset)
        if len(scale) > 1 or len(offset) > 1 or scale[0] <= 0.0:
            return None
        mean = -offset[0] / scale[0]
        zero = round(mean)
        whole = abs(mean - zero) < _WHOLE and 0 <= zero < LARGEST_BYTE
        if not whole or (target in SYMMETRIC_TARGETS and zero != _MIDDLE):
            return None
        return zero, float(f"{1 / scale[0]:.12g}")  # Without the rounding of 1 / std.


class _Rewriting:
    """Gives one input the grid of bytes.

    Args:
        graph: The fused graph.
        node: The input.
        options: Checked options.
        configs: As for `assign_bits`.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        options: Options,
        configs: Mapping[str, Any] | None,
    ) -> None:
        self._graph, self._node = graph, node
        self._options, self._configs = options, configs
        self._chosen = chosen_overrides(graph, options.overrides)

    def apply(self, pixels: Pixels) -> None:
        """Chooses the grid, and removes or inserts operators after the input."""
        values, target = _Scaling.of(pixels), self._options.target
        front, inserted = self._front(), None
        total = values.then(*scaling_numbers(front[-1])) if front else values
        grid = total.grid(target)
        if grid is None and (grid := values.grid(target)) is not None:
            front = []  # It stays, and reads these values.
        if grid is None:
            grid, inserted = (_MIDDLE if target in SYMMETRIC_TARGETS else 0, 1.0), total
        for node in front:
            bypass(self._graph, node)
        grid = self._node.options["pixel_grid"] = PixelGrid(pixels, *grid)
        last = self._node
        if pixels.order == "bgr":
            last = insert_reversal(
                self._graph, last, self._name("reversed"), of_input=True
            )
        if inserted is not None:
            # The grid has bytes minus `zero`.
            offset = inserted.scale * grid.zero + inserted.offset
            name = self._name("normalized")
            insert_scaling(
                self._graph, last, inserted.scale, offset, name, of_input=True
            )
        for scaling in _front_scalings(self._node):
            self._settle_scaling(scaling, grid)

    def _name(self, what: str) -> str:
        """Returns a name for an operator after the input."""
        return unique_name(self._graph, f"{self._node.name}_{what}")

    def _settle_scaling(self, scaling: Node, source: PixelGrid) -> None:
        """Rounds the offset of a scaling of bytes, and prescribes its grid.

        The offset becomes one that the bias of its operator holds. That moves it by a
        254th of a byte at most; the student then computes with the file's numbers.
        """
        if scaling.kind != "affine" or scaling.shared:
            return
        if stays_float(scaling, self._chosen, self._configs):
            return
        scale, offset = scaling_numbers(scaling)
        unit = np.abs(scale) * source.step / LARGEST_INT8
        if not unit.all():
            return
        offset = np.rint(offset / unit) * unit
        replace_scaling(scaling, scale, offset)
        if self._options.target not in SYMMETRIC_TARGETS and _only_moved(scaling):
            ends = [source.represented(byte) for byte in (0, LARGEST_BYTE)]
            values = np.array([end * scale + offset for end in ends])
            scaling.options["pixel_grid"] = _grid_of(values.min(), values.max())

    def _front(self) -> list[Node]:
        """Returns the scaling that alone reads the input, after the casts before it.

        Empty if there is none, or it must stay.
        """
        front = [self._node]
        while len(front[-1].consumers) == 1 and not front[-1].is_output:
            [node] = front[-1].consumers
            front.append(node)
            if is_scaling(node):
                stays = stays_float(node, self._chosen, self._configs)
                return [] if node.is_output or stays else front[1:]
            if not _casts(node):
                break
        return []


def _casts(node: Node) -> bool:
    """Returns whether an operator only changes the type of a tensor."""
    return node.kind == "identity" and isinstance(node.layer, keras.layers.Activation)


def _only_moved(scaling: Node) -> bool:
    """Returns whether a scaling reads nothing but the values of an input, moved."""
    [node] = scaling.inputs
    while node.kind in _MOVES or _casts(node):
        [node] = node.inputs
    return node.kind == "input"


def _grid_of(low: float, high: float) -> PixelGrid:
    """Returns the grid that covers values in 254 steps, and has 0."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    divisor = (LARGEST_BYTE - 1) / (high - low)
    # Up to the rounding of an end that is on the grid.
    zero = math.ceil(-low * divisor - _WHOLE)
    return PixelGrid(Pixels(zero, divisor), zero, divisor)
