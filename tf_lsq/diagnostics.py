"""What quantizers do during a training: steps, update ratios, clipping, codes.

The update ratio is the paper's ``R = (d_step / step) / (|d_w| / |w|)``: how much
training changes a step beside how much it changes the weights, each relative to its
size. The gradient scale g is there to bring it near 1.

Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020, Section 2.2,
https://arxiv.org/abs/1902.08153
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from . import lsq
from ._compat import keras, model_structure, random_layers
from .data import batches
from .folding import point_of
from .graph import analyze
from .layers import LSQWrapper, QuantizationPoint, replaced_attributes
from .model import (
    is_calibrated,
    quantization_points,
    steps,
    student_of,
    wrapped_layers,
)
from .plots import write_plots

Quantizer = LSQWrapper | QuantizationPoint
# Quantity -> layer name -> value.
Measurement = dict[str, dict[str, Any]]
_SCALARS = ("step", "ratio", "unscaled_ratio", "clipped")


class Diagnostics(keras.callbacks.Callback):
    """Records what every quantizer does during `fit`.

    A record is made before the first batch (if the steps have their first values by
    then), at every `frequency`, and after the last batch. `history` holds, of the last
    `fit`:

        batch                   how many batches had been trained, per record
        step[layer]             learned steps, see `steps`, per record
        clipped[layer]          share of the values beyond the range, per record
        counts[layer]           how often each integer is used, per record
        ratio[layer]            the paper's R, with the gradient scale g as trained
        unscaled_ratio[layer]   R without it (g = 1)

    `codes[layer]` are the integers that were counted. Kernels are measured as they
    are, quantization points on `data`: without it their `clipped` and `counts` are
    missing, and without labels the ratios.

    A ratio is that of magnitudes. Several steps of a kernel count as one vector. The
    step of a kernel is compared with that kernel, the step of an activation with the
    kernels that read it; a point that no kernel reads has no ratio. Where the loss has
    no gradient, it is NaN. Values within half a step of the range do not count as
    clipped, nor do those that the ReLU of an unsigned point removes.

    Measuring leaves the training as it is. The batch flows through the model as in
    training, batch norms with the statistics of the batch, but layers that draw random
    numbers (dropout) act as in inference. The LSQ operator is the plain form, see
    `LSQModel.use_plain_op`.

    Args:
        log_dir: Folder for TensorBoard: scalars `step/<layer>` (mean over channels),
            `ratio/<layer>`, `unscaled_ratio/<layer>`, `clipped/<layer>` and histograms
            `codes/<layer>`, by number of batches. None: nothing is written.
        data: An ndarray, `(x, y)`, or a dataset of x or `(x, y)`. Its first batch is
            used; a dataset is read when the callback is made. A dataset that shuffles
            would go on in another order in `fit`: give one of its own.
        batch_size: Examples of the batch for arrays.
        frequency: "epoch", or a number of batches.
        loss: A Keras loss for the ratios, of a model with one output. None: the loss
            that the model is compiled with, regularisers included. A model that holds
            the quantized one as `student` is asked for its own loss of the student's
            outputs.

    Raises:
        ValueError: If `frequency` or `batch_size` is less than 1, or `data` has no
            batch; in `fit`, if the model has no quantized layers.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((64, 8, 8, 3), np.float32), np.zeros(64, np.int32)
        >>> diagnostics = Diagnostics("logs", data=(x, y), frequency=100)

    References:
        Esser et al., Section 2.2, https://arxiv.org/abs/1902.08153
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        *,
        data: Any = None,
        batch_size: int = 32,
        frequency: str | int = "epoch",
        loss: Any = None,
    ) -> None:
        super().__init__()
        _check_numbers(batch_size, frequency)
        self._log_dir = log_dir
        self._x, self._y = _first_batch(data, batch_size)
        self._frequency = frequency
        self._loss = None if loss is None else keras.losses.get(loss)
        self._probe: _Probe | None = None
        self._writer: Any = None
        self.history: dict[str, Any] = {}
        self.codes: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Forgets an earlier training, and records the first steps."""
        student = student_of(self.model)
        self._probe = _Probe(student, self._x, self._y, self._loss_of)
        self._batches = self._epoch_start = 0
        self.history = {"batch": []}
        self.codes = {}
        if self._log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))
        if is_calibrated(student):
            self._record()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Remembers where the epoch starts."""
        self._epoch_start = self._batches

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
        """Records where a multiple of `frequency` is reached."""
        before, self._batches = self._batches, self._epoch_start + batch + 1
        every = self._frequency
        if isinstance(every, int) and self._batches // every > before // every:
            self._record()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records at the end of an epoch."""
        if self._frequency == "epoch":
            self._record()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Records the last batch, unless that has been done."""
        if self.history["batch"][-1:] != [self._batches]:
            self._record()
        if self._writer is not None:
            self._writer.close()

    def plot(self, folder: str | Path) -> list[Path]:
        """Writes plots of `history` as SVG files, and returns their paths.

        `steps.svg`: steps beside their first value, over the training. `ratios.svg`: R
        of each layer, the geometric mean over the records and the range, with g and
        without. `clipped.svg`: clipped shares over the training. `codes.svg`: how
        often each integer is used, in the first and the last record.

        Args:
            folder: Where to; it is made if it does not exist.

        Raises:
            RuntimeError: If nothing has been recorded.
        """
        if not self.history.get("batch"):
            raise RuntimeError(
                "`plot` needs records. Received: none. Give the callback to `fit`."
            )
        kernels = {layer.name for layer in self._probe.wrappers}
        return write_plots(self.history, self.codes, kernels, Path(folder))

    def _record(self) -> None:
        """Appends a record to `history`, and writes it for TensorBoard."""
        # Asking the compiled loss updates the mean that is shown as "loss".
        metrics = [variable for m in self.model.metrics for variable in m.variables]
        with _kept(metrics):
            found = self._probe.measure()
        self.codes = self._probe.codes
        self.history["batch"].append(self._batches)
        for quantity, values in found.items():
            record = self.history.setdefault(quantity, {})
            for name, value in values.items():
                record.setdefault(name, []).append(value)
        if self._writer is not None:
            with self._writer.as_default(self._batches):
                _write_summaries(found, self.codes)
            self._writer.flush()

    def _loss_of(self, x: Any, y: Any, outputs: Any) -> tf.Tensor:
        """Returns the loss of a batch, a scalar."""
        if self._loss is not None:
            return tf.reduce_mean(self._loss(y, outputs))
        return self.model.compute_loss(x=x, y=y, y_pred=outputs)


class _Probe:
    """Measures the quantizers of a model on one batch.

    Args:
        student: A quantized model.
        x: A batch of inputs, or None.
        y: Its labels, or None.
        loss: Of x, y and the outputs.
    """

    def __init__(
        self,
        student: keras.Model,
        x: Any,
        y: Any,
        loss: Callable[[Any, Any, Any], tf.Tensor],
    ) -> None:
        self._student, self._x, self._y, self._loss = student, x, y, loss
        self.wrappers = wrapped_layers(student)
        self._points = [] if x is None else quantization_points(student)
        if x is not None:
            inputs, outputs = model_structure(student)
            arriving = {point.name: point.input for point in self._points}
            self._model = keras.Model(inputs, [outputs, arriving], name="probe")
        self._compared = _compared_kernels(student)
        self._traced = tf.function(self._measure)

    @property
    def codes(self) -> dict[str, np.ndarray]:
        """The integers of every quantizer that is measured."""
        ranges = {layer.name: _range(layer) for layer in self._layers}
        return {name: np.arange(r.q_min, r.q_max + 1) for name, r in ranges.items()}

    @property
    def _layers(self) -> list[Quantizer]:
        """The layers that are measured."""
        return [*self.wrappers, *self._points]

    def measure(self) -> Measurement:
        """Returns what `Diagnostics` describes, in NumPy; the model stays as it is."""
        with _kept(self._student.non_trainable_variables):
            found = tf.nest.map_structure(lambda t: t.numpy(), self._traced())
        for quantity in set(found) - {"counts"}:
            found[quantity] = {n: float(value) for n, value in found[quantity].items()}
        return {"step": steps(self._student), **found}

    def _measure(self) -> Measurement:
        """Returns the measurement as tensors."""
        found: Measurement = {}
        values = {wrapper.name: wrapper.kernel for wrapper in self.wrappers}
        with _as_measured(self._student), tf.GradientTape() as tape:
            if self._x is not None:
                outputs, arriving = self._model(self._x, training=True)
                values.update(arriving)
            if self._y is not None:
                loss = self._loss(self._x, self._y, outputs)
        if self._y is not None:
            found.update(self._ratios(tape, loss, values))
        used = {layer.name: _use(layer, values[layer.name]) for layer in self._layers}
        for number, quantity in enumerate(("clipped", "counts")):
            found[quantity] = {name: pair[number] for name, pair in used.items()}
        return found

    def _ratios(
        self, tape: tf.GradientTape, loss: tf.Tensor, values: dict[str, Any]
    ) -> Measurement:
        """Returns R of every step that has kernels to compare with."""
        kernels = {wrapper.name: wrapper.kernel for wrapper in self.wrappers}
        layers = [layer for layer in self._layers if self._compared.get(layer.name)]
        factors = {layer.name: layer.step_variables["step"] for layer in layers}
        d_kernels, d_factors = tape.gradient(
            loss, (kernels, factors), unconnected_gradients="zero"
        )
        found: Measurement = {"ratio": {}, "unscaled_ratio": {}}
        for layer in layers:
            name, compared = layer.name, self._compared[layer.name]
            # The gradient of the factor is that of the step / unit.
            d_step = d_factors[name] * layer.step_variables["unit"]
            of_step = _norm([d_step]) / _norm([layer.step])
            of_kernels = _norm([d_kernels[n] for n in compared]) / _norm(
                [kernels[n] for n in compared]
            )
            scale = layer.quantizer.gradient_scale(values[name], _range(layer).q_max)
            found["ratio"][name] = of_step / of_kernels
            found["unscaled_ratio"][name] = of_step / of_kernels / scale
        return found


def _check_numbers(batch_size: int, frequency: Any) -> None:
    """Raises unless both can be used."""
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}.")
    if frequency != "epoch" and not (isinstance(frequency, int) and frequency >= 1):
        raise ValueError(
            '`frequency` must be "epoch" or a number of batches, at least 1. '
            f"Received: {frequency!r}."
        )


def _first_batch(data: Any, batch_size: int) -> tuple[Any, Any]:
    """Returns x and y of the first batch as tensors, None where there is none."""
    if data is None:
        return None, None
    first = next(batches(data, batch_size), None)
    if first is None:
        raise ValueError("`data` must have at least one batch. Received: none.")
    x, y = first
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    return x, None if y is None else tf.nest.map_structure(tf.convert_to_tensor, y)


def _compared_kernels(student: keras.Model) -> dict[str, list[str]]:
    """Returns, for every learned step, the kernels to compare it with.

    Layer with a step -> layers with the kernels: itself, or those that read the point.
    """
    compared = {wrapper.name: [wrapper.name] for wrapper in wrapped_layers(student)}
    for node in analyze(student).nodes:
        if not (node.properties.matmul and isinstance(node.model_layer, LSQWrapper)):
            continue
        point = point_of(node.inputs[0])
        if point is not None and point.layer.fixed_step is None:
            readers = compared.setdefault(point.layer.name, [])
            if node.model_layer.name not in readers:
                readers.append(node.model_layer.name)
    return compared


@contextlib.contextmanager
def _as_measured(student: keras.Model) -> Iterator[None]:
    """Uses the plain form of the operator, and no random numbers."""
    with contextlib.ExitStack() as stack:
        for layer in (*wrapped_layers(student), *quantization_points(student)):
            stack.enter_context(replaced_attributes(layer, {"plain_op": True}))
        for layer in random_layers(student):
            stack.enter_context(_as_in_inference(layer))
        yield


@contextlib.contextmanager
def _as_in_inference(layer: keras.layers.Layer) -> Iterator[None]:
    """Has a layer compute as in inference, whatever it is told."""

    def call(inputs: Any, training: Any = None, **kwargs: Any) -> Any:
        return type(layer).call(layer, inputs, training=False, **kwargs)

    vars(layer)["call"] = call
    try:
        yield
    finally:
        del vars(layer)["call"]


@contextlib.contextmanager
def _kept(variables: list[tf.Variable]) -> Iterator[None]:
    """Puts the values of variables back."""
    kept = [(variable, tf.identity(variable)) for variable in variables]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _range(layer: Quantizer) -> lsq.IntegerRange:
    """Returns the integers of a layer whose step has its first value."""
    if isinstance(layer, LSQWrapper):
        return layer.quantizer.integer_range(layer.step_variables)
    if layer.fixed_step is not None:
        return layer.integer_range
    return layer.quantizer.range_when_traced(layer.step_variables)


def _use(layer: Quantizer, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the clipped share of `values`, and how often each integer is used."""
    integers, values = _range(layer), tf.cast(values, tf.float32)
    if getattr(layer.quantizer, "max_value", None) is not None:
        values = tf.minimum(values, layer.quantizer.max_value)
    quotients = values / layer.step
    beyond = quotients > integers.q_max + 0.5
    if integers.q_min < 0:
        beyond |= quotients < integers.q_min - 0.5
    number = tf.cast(tf.size(beyond), tf.float64)
    share = tf.cast(tf.math.count_nonzero(beyond), tf.float64) / number
    codes = tf.cast(lsq.quantize(values, layer.step, integers), tf.int32)
    length = integers.q_max - integers.q_min + 1
    counts = tf.math.bincount(
        tf.reshape(codes - integers.q_min, [-1]), minlength=length, maxlength=length
    )
    return share, counts


def _norm(tensors: list[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean norm of tensors taken together, float64."""
    squares = [tf.reduce_sum(tf.square(tf.cast(t, tf.float64))) for t in tensors]
    return tf.sqrt(tf.add_n(squares))


def _write_summaries(found: Measurement, codes: dict[str, np.ndarray]) -> None:
    """Writes one record with the default writer, at its default step."""
    for quantity in _SCALARS:
        for name, value in found.get(quantity, {}).items():
            mean = tf.constant(np.mean(value), tf.float32)
            _write_summary("scalars", f"{quantity}/{name}", mean)
    for name, counts in found["counts"].items():
        # A bucket per integer: left, right, count.
        buckets = np.stack([codes[name] - 0.5, codes[name] + 0.5, counts], axis=1)
        buckets = tf.constant(buckets, tf.float64)
        _write_summary("histograms", f"codes/{name}", buckets)


def _write_summary(plugin: str, tag: str, value: tf.Tensor) -> None:
    """Writes what a plugin of TensorBoard reads; TensorBoard itself is not needed."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    tf.summary.write(tag, value, metadata=metadata)
