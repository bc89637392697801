"""Compares a file that is given bytes with its twin, and with Keras on float images."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from harness.app import scores_of

import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import tf_keras_model
from tf_lsq.training import quantization_points
from tflite_export.build import BuiltFile, build_file
from tflite_export.freezing import FrozenNode, read_model
from tflite_export.operators import exact_output
from tflite_export.runtimes import this_machine
from tflite_export.verification.points import probe_codes

from .models import AppModel

PREDICTED = 32  # Images that Keras predicts at once.
# Of sums in float32, relative to the largest of them: a few of its last bits.
_SUM_ERROR = 4 * 2.0**-23


@dataclasses.dataclass(frozen=True)
class Difference:
    """An image that Keras gives another class, and the first code that differs.

    Its operator has the same codes as inputs in both.

    Attributes:
        image: Number of the image.
        classes: Those of file and Keras.
        tensor: The first tensor with such a code, "" if Keras computed the codes of
            the file when it was asked for them.
        codes: How many codes of this tensor differ.
        found: The code of the file at the one that rounding explains least, minus its
            zero point.
        keras_code: That of Keras.
        exact: What the operator computes there in steps, float64.
        keras_value: The same in Keras, float32.
        largest: The largest that it computes anywhere for the image.
    """

    image: int
    classes: tuple[int, int]
    tensor: str = ""
    codes: int = 0
    found: int = 0
    keras_code: int = 0
    exact: float = math.nan
    keras_value: float = math.nan
    largest: float = math.nan

    @property
    def is_rounding(self) -> bool:
        """Whether float32 explains the first code that differs.

        The codes then differ by one, the exact value lies next to the middle between
        them, and that of Keras next to the exact one, as near as sums in float32 are.
        """
        if not self.tensor:
            return True
        middle = (self.found + self.keras_code) / 2
        near = _SUM_ERROR * self.largest
        return (
            abs(self.found - self.keras_code) == 1
            and abs(self.exact - middle) <= near
            and abs(self.keras_value - self.exact) <= near
        )


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a file computes of the bytes of images, and Keras of their values.

    Attributes:
        name: Of the model.
        images: How many there are.
        correct: How many the file classifies correctly.
        keras_correct: How many Keras does.
        unlike_twin: How many have other outputs in the file than in its twin.
        differences: Those of which Keras has another class.
    """

    name: str
    images: int
    correct: int
    keras_correct: int
    unlike_twin: int
    differences: tuple[Difference, ...]


def compare(
    name: str, app: AppModel, student: Any, images: np.ndarray, classes: np.ndarray,
    path: Path,
) -> Comparison:  # fmt: skip
    """Writes the file of a student, and runs it on bytes.

    Args:
        name: Of the model.
        app: The model.
        student: Its student.
        images: uint8.
        classes: Their class numbers.
        path: The file to write; it takes bytes and gives real scores.
    """
    ends = {"input_type": "uint8", "output_type": "float32"}
    tflite_export.export_model(student, path, verbose=False, **ends)
    given = app.bytes_of(images)
    found = scores_of(path, given if len(given) > 1 else images)
    x = app.values_of(images)
    twin = tflite_export.integer_twin(student, runtime=this_machine().name)
    expected = student.predict(x, batch_size=PREDICTED, verbose=0)
    ours, theirs = found.argmax(axis=1), expected.argmax(axis=1)
    differ = [int(image) for image in np.flatnonzero(ours != theirs)]
    tracing = Tracing(student)
    return Comparison(
        name,
        len(images),
        int((ours == classes).sum()),
        int((theirs == classes).sum()),
        int((found != twin.predict(x, verbose=0)).any(axis=1).sum()),
        tuple(
            Difference(image, (int(ours[image]), int(theirs[image])), **first)
            for image in differ
            for first in [tracing.first_code(x, image)]
        ),
    )


class Tracing:
    """Finds where the codes of Keras and of the file begin to differ.

    Args:
        student: The student.
    """

    def __init__(self, student: Any) -> None:
        self._model = tf_keras_model(student)
        self._built: BuiltFile = build_file(read_model(self._model))
        points = {point.name: point for point in quantization_points(self._model)}
        # The first operator with the integers of a point; others move them.
        nodes: dict[str, FrozenNode] = {}
        for node in self._built.frozen.nodes:
            if node.is_final and node.own_point.layer in points:
                nodes.setdefault(node.own_point.layer, node)
        self._nodes = {p: node for p, node in nodes.items() if node.kind != "input"}
        ends = [e for p in self._nodes for e in (points[p].input, points[p].output)]
        self._probe = keras.Model(self._model.inputs, ends)

    def first_code(self, x: Any, image: int) -> dict[str, Any]:
        """Returns the attributes of a `Difference` from `tensor` on, {} if none.

        Args:
            x: Values of all images, per input if there are several.
            image: Number of the image.
        """
        begin = image // PREDICTED * PREDICTED
        arrays = x if isinstance(x, list) else [x]
        batch = [array[begin : begin + PREDICTED] for array in arrays]
        row = image - begin
        ends = self._probe.predict(batch, batch_size=PREDICTED, verbose=0)
        graph, frozen = self._built.graph, self._built.frozen
        codes = probe_codes(graph, frozen, [one[row : row + 1] for one in batch])
        for node, value, result in zip(
            self._nodes.values(), ends[::2], ends[1::2], strict=True
        ):
            step, zero_point = node.own_point.step, node.integer_grid.zero_point
            ours = codes[node.name][0].astype(np.int64) - zero_point
            theirs = np.rint(result[row] / np.float64(step)).reshape(ours.shape)
            if (ours == theirs).all():
                continue
            exact = self._exact(node, codes) / step
            steps, middles = np.abs(ours - theirs), (ours + theirs) / 2
            # The largest difference, and of these the furthest from a tie.
            at = max(
                map(tuple, np.argwhere(ours != theirs)),
                key=lambda i: (steps[i], abs(exact[i] - middles[i])),
            )
            return {
                "tensor": node.name,
                "codes": int((ours != theirs).sum()),
                "found": int(ours[at]),
                "keras_code": int(theirs[at]),
                "exact": float(exact[at]),
                "keras_value": float(value[row].reshape(ours.shape)[at]) / step,
                "largest": float(np.abs(exact).max()),
            }
        return {}

    def _exact(self, node: FrozenNode, codes: dict[str, np.ndarray]) -> np.ndarray:
        """Returns the exact output of an operator, from the codes of its inputs."""
        nodes, values = self._built.frozen.by_name(), []
        for name in node.inputs:
            grid = nodes[name].integer_grid
            real = (codes[name].astype(np.float64) - grid.zero_point) * grid.scale
            values.append(tf.constant(real * node.trained.input_factor))
        return exact_output(node, values).numpy()[0]
