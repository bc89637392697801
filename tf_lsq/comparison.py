"""`compare`: where a quantized model loses most, layer by layer."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ._compat import keras
from .data import as_pair, batches, check_num_examples, inputs_as_list
from .graph import Graph, Node, Values, analyze, float_model, paired_tensors
from .training import check_calibrated, quantization_points, trained_model


@dataclasses.dataclass(frozen=True)
class LayerComparison:
    """One layer of the user's model, compared with its quantized form.

    A layer with a kernel is compared after the batch norm and the ReLU that are fused
    into it, and after the quantization point that follows.

    Attributes:
        name: Name of the user's layer.
        fused: Names of the layers that are fused into it.
        kind: Its operator.
        sqnr_db: Signal-to-quantization-noise ratio of the student's own tensor:
            ``10 log10(sum x^2 / sum (x - y)^2)``, in dB; infinite if nothing differs.
        own_sqnr_db: The same if the layer, with its quantized kernel and output,
            receives the tensors of the float model: what this layer alone loses.
        difference: Largest difference of the student's tensor, as a share of the
            range of the float tensor.
        own_difference: The same for what this layer alone loses.
        is_output: Whether it is an output of the model.
    """

    name: str
    fused: tuple[str, ...]
    kind: str
    sqnr_db: float
    own_sqnr_db: float
    difference: float
    own_difference: float
    is_output: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A quantized model compared with its float model, see `compare`.

    Attributes:
        model: Name of the model.
        num_examples: How many examples were compared.
        layers: Its layers, in the order of the model.
        outputs: Those that are its outputs, in the order of its outputs.
    """

    model: str
    num_examples: int
    layers: list[LayerComparison]
    outputs: list[LayerComparison]

    def worst(self, count: int = 10) -> list[LayerComparison]:
        """Returns the layers that lose most by themselves, the worst first.

        Args:
            count: How many layers; all if there are fewer.
        """
        return sorted(self.layers, key=lambda layer: layer.own_sqnr_db)[:count]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """Returns the table, with the layers that lose most first."""
        width = max([len(layer.name) for layer in self.layers] + [5])
        lines = [
            f"`{self.model}`: float and quantized, {self.num_examples} examples. Ratio "
            "of signal to noise, and largest difference in % of the range.",
            f"{'':<{width + 17}}  {'this layer alone':>18}  {'in the student':>18}",
            f"{'layer':<{width}}  {'operator':<15}" + 2 * f"  {'dB':>8} {'largest':>9}",
        ]
        for layer in self.worst(len(self.layers)):
            name = f"{layer.name:<{width}}  {layer.kind:<15}"
            own = _cells(layer.own_sqnr_db, layer.own_difference)
            whole = _cells(layer.sqnr_db, layer.difference)
            end = "  output" if layer.is_output else ""
            lines.append(f"{name}  {own}  {whole}{end}")
        return "\n".join(lines)


def compare(
    model: Any,
    student: keras.Model,
    data: Any,
    *,
    num_examples: int = 256,
    batch_size: int = 32,
) -> Comparison:
    """Compares a quantized model with its float model, layer by layer.

    Both compute the same examples, batch by batch, in inference mode; tensors are
    kept only until they are compared. Neither model is changed.

    Args:
        model: The float model, or the path of its file, as for `quantize_model`.
        student: The model that `quantize_model` made of it, calibrated or trained; or a
            `Distiller` that holds it. If it was trained, the differences include what
            it has learned.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`.
        num_examples: How many of the first examples are used.
        batch_size: Examples per batch for arrays.

    Returns:
        A row for every layer; it prints as a table.

    Raises:
        TypeError: If `model` is not a Keras model, or `data` is not data.
        ValueError: If `student` is not quantized, or was not made from `model`.
        RuntimeError: If `student` was never trained or calibrated.

    Example:
        >>> import numpy as np
        >>> import tf_keras as keras
        >>> from tf_lsq import calibrate, quantize_model
        >>> model = keras.Sequential([keras.layers.Dense(2, input_shape=(4,))])
        >>> student = quantize_model(model)
        >>> x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
        >>> calibrate(student, x)
        >>> len(compare(model, student, x).worst(1))
        1
    """
    check_num_examples(num_examples)
    check_num_examples(batch_size)
    model, student = float_model(model), trained_model(student)
    if not isinstance(student, keras.Model) or not quantization_points(student):
        raise ValueError(
            "`student` must be a quantized model: call `tf_lsq.quantize_model`. "
            f"Received: {getattr(student, 'name', student)!r}."
        )
    check_calibrated(student)
    data = as_pair(data, len(model.inputs))
    comparer = _Comparer(analyze(model), analyze(student))
    count = 0
    for x, _ in batches(data, min(batch_size, num_examples)):
        arrays = inputs_as_list(x, model.input_names)
        tensors = [
            tf.cast(array[: num_examples - count], tensor.dtype)
            for array, tensor in zip(arrays, model.inputs, strict=True)
        ]
        comparer.compare(tensors)
        count += len(tensors[0])
        if count >= num_examples:
            break
    rows = comparer.rows()
    outputs = [rows[node] for node in comparer.outputs if node in rows]
    return Comparison(model.name, count, list(rows.values()), outputs)


class _Error:
    """Accumulates the difference of two tensors over batches, in float64."""

    def __init__(self) -> None:
        self.num_values = 0
        self._signal = self._noise = self._largest = 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, expected: tf.Tensor, found: tf.Tensor) -> None:
        """Adds a batch."""
        if not (expected.dtype.is_floating and found.dtype.is_floating):
            return
        expected, found = (tf.cast(x, tf.float64) for x in (expected, found))
        difference = found - expected
        self.num_values += int(tf.size(expected))
        self._signal += float(tf.reduce_sum(tf.square(expected)))
        self._noise += float(tf.reduce_sum(tf.square(difference)))
        self._largest = max(self._largest, float(tf.reduce_max(tf.abs(difference))))
        self._low = min(self._low, float(tf.reduce_min(expected)))
        self._high = max(self._high, float(tf.reduce_max(expected)))

    @property
    def sqnr_db(self) -> float:
        """Signal-to-noise ratio in dB."""
        if not self._noise:
            return math.inf
        ratio = self._signal / self._noise
        return 10 * math.log10(ratio) if ratio else -math.inf

    @property
    def difference(self) -> float:
        """Largest difference, as a share of the range; of the value, if constant."""
        span = self._high - self._low or abs(self._high)
        if not self._largest:
            return 0.0
        return self._largest / span if span else math.inf


@dataclasses.dataclass(eq=False)
class _Place:
    """A tensor that is compared.

    Attributes:
        name: Name of the user's layer.
        node: The operator of the float model that produces it.
        sources: The operators whose outputs the layer receives.
        whole: Error of the student's tensor.
        own: Error of the layer alone.
    """

    name: str
    node: Node
    sources: list[Node]
    whole: _Error = dataclasses.field(default_factory=_Error)
    own: _Error = dataclasses.field(default_factory=_Error)

    def row(self) -> LayerComparison:
        """Returns the result."""
        return LayerComparison(
            name=self.name,
            fused=tuple(part.origin for part in self.node.fused),
            kind=self.node.kind,
            sqnr_db=self.whole.sqnr_db,
            own_sqnr_db=self.own.sqnr_db,
            difference=self.whole.difference,
            own_difference=self.own.difference,
            is_output=self.node.is_output,
        )


class _Comparer:
    """Compares the tensors of a float model with those of its student.

    Attributes:
        outputs: The operators that produce the model's outputs.
    """

    def __init__(self, graph: Graph, student: Graph) -> None:
        self._graph, self._student, self.outputs = graph, student, graph.outputs
        self._tensors = paired_tensors(graph, student)
        names: collections.Counter[str] = collections.Counter()
        self._calls = [self._places(group, names) for group in _layer_calls(graph)]

    def _places(
        self, group: list[Node], names: collections.Counter[str]
    ) -> list[_Place]:
        """Returns the tensors to compare of one call of a layer."""
        places = []
        for node in group:
            inside = set(node.consumers) & set(group)
            if node in self._tensors and (node.is_output or not inside):
                names[node.origin] += 1
                number = names[node.origin]
                name = node.origin + (f" ({number})" if number > 1 else "")
                places.append(_Place(name, node, _sources(node, group)))
        return places

    def compare(self, tensors: list[tf.Tensor]) -> None:
        """Adds a batch to the errors of all places.

        Args:
            tensors: The inputs of the model.
        """
        expected = Values(dict(zip(self._graph.inputs, tensors, strict=True)))
        found = Values(dict(zip(self._student.inputs, tensors, strict=True)))
        for places in self._calls:
            # First, since what the layer reads may be forgotten afterwards.
            read = {n: expected.of(n) for place in places for n in place.sources}
            for place in places:
                given = {self._tensors[n]: read[n] for n in place.sources}
                value = expected.of(place.node)
                if place.node.kind == "input":
                    number = self._graph.inputs.index(place.node)
                    given = {self._student.inputs[number]: value}
                tensor = self._tensors[place.node]
                place.own.add(value, Values(given, keep=True).of(tensor))
                place.whole.add(value, found.of(tensor))

    def rows(self) -> dict[Node, LayerComparison]:
        """Returns the results, of all tensors but integers, by operator."""
        places = [place for places in self._calls for place in places]
        return {place.node: place.row() for place in places if place.whole.num_values}


def _layer_calls(graph: Graph) -> Iterator[list[Node]]:
    """Yields the operators of a graph, those of one call of a layer together."""
    group: list[Node] = []
    for node in graph.nodes:
        same = group and node.origin == group[-1].origin
        if group and not (same and all(n.layer is not node.layer for n in group)):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _sources(node: Node, group: list[Node]) -> list[Node]:
    """Returns the operators before `node` that do not belong to its group."""
    sources: list[Node] = []
    for source in node.inputs:
        sources += _sources(source, group) if source in group else [source]
    return list(dict.fromkeys(sources))


def _cells(sqnr_db: float, difference: float) -> str:
    """Formats an error for the table."""
    ratio = "exact" if sqnr_db == math.inf else f"{sqnr_db:.1f}"
    return f"{ratio:>8} {100 * difference:>8.2f}%"
