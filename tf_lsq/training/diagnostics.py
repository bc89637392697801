"""Records what quantizers do in a training: steps, update ratios, clipping, codes.

The update ratio is the paper's ``R = (d_step / step) / (|d_w| / |w|)``: how much
training changes a step compared with how much it changes the weights, each relative to
its size. The purpose of the gradient scale g is to bring it near 1.

Reference: Esser et al., "Learned Step Size Quantization", ICLR 2020, Section 2.2,
https://arxiv.org/abs/1902.08153
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from .._compat import keras
from ..data import batches
from .learned_steps import is_calibrated, student_of
from .losses import resolve
from .probe import Measurement, Probe

_SCALARS = ("step", "ratio", "unscaled_ratio", "clipped")


class Diagnostics(keras.callbacks.Callback):
    """Records what every quantizer does during `fit`.

    It records before the first batch (if the steps have their first values by then), at
    every `frequency`, and after the last batch. For the last `fit`, `history` holds:

        batch                   the optimizer's `iterations`, which continue in a second
                                `fit` and when a training is resumed, per record
        step[layer]             learned steps, see `steps`, per record
        clipped[layer]          share of the values beyond the range, per record
        counts[layer]           how often each integer is used, per record; beyond 8
                                bits, neighbouring integers are counted together
        ratio[layer]            the paper's R, with the gradient scale g as trained
        unscaled_ratio[layer]   R without it (g = 1)

    `codes[layer]` are the integers that were counted; those of a point with a learned
    zero point are numbered from 0, because the zero point moves. Kernels are measured
    directly, quantization points on `data`: without it their `clipped` and `counts` are
    missing, and without labels the ratios are missing.

    A ratio compares magnitudes. Several steps of a kernel count as one vector. The
    step of a kernel is compared with that kernel, the step of an activation with the
    kernels that read it; a point that no kernel reads has no ratio. If the kernels have
    no gradient, the ratio is infinite or NaN. Values within half a step of the range do
    not count as clipped, nor do those that the ReLU of an unsigned point removes.

    Measuring does not change the training. The batch flows through the model as in
    training, batch norms use the statistics of the batch, but layers that draw random
    numbers (dropout) act as in inference. The LSQ operator uses its plain
    implementation, see `LSQModel.use_plain_op`.

    Args:
        log_dir: Folder for TensorBoard: scalars `step/<layer>` (mean over channels),
            `ratio/<layer>`, `unscaled_ratio/<layer>`, `clipped/<layer>` and histograms
            `codes/<layer>`, by the optimizer's `iterations`. None: nothing is written.
        data: An ndarray, `(x, y)`, or batches of either, see `tf_lsq.data`. Its
            first batch is used; a dataset is read when the callback is created. A
            shuffling dataset would continue in a different order in `fit`: pass a
            separate one.
        batch_size: Examples of the batch for arrays.
        frequency: "epoch", or a number of batches.
        loss: A Keras loss for the ratios, for a model with one output. None: the loss
            that the model is compiled with, including regularisers. A model that holds
            the quantized one as `student` computes its own loss (`compute_loss`) from
            the student's outputs.

    Raises:
        ValueError: If `frequency` or `batch_size` is less than 1, or `data` has no
            batch; in `fit`, if the model has no quantized layers, or `data` is given
            under `tf.distribute`.

    Example:
        >>> import numpy as np
        >>> x, y = np.zeros((64, 8, 8, 3), np.float32), np.zeros(64, np.int32)
        >>> callbacks = [Diagnostics("logs", data=(x, y), frequency=100)]

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
        self._probe: Probe | None = None
        self._writer: Any = None
        self.history: dict[str, Any] = {}
        self.codes: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Clears the records of an earlier training."""
        student = student_of(self.model)
        if self._x is not None and tf.distribute.has_strategy():
            raise ValueError(
                "`Diagnostics` can measure `data` only without `tf.distribute`. "
                f"Received: {type(self.model.distribute_strategy).__name__}. Leave "
                "`data` out."
            )
        self._student_loss = resolve(self._loss, student)
        self._probe = Probe(student, self._x, self._y, self._loss_of)
        self._batches = self._iterations()
        self.history = {"batch": []}
        self.codes = {}
        if self._log_dir is not None:
            self._writer = tf.summary.create_file_writer(str(self._log_dir))

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records the first steps: a backup has been restored by now."""
        if not self.history["batch"] and is_calibrated(student_of(self.model)):
            self._batches = self._iterations()
            self._record()
            self.model.reset_metrics()  # As they are at the beginning of an epoch.

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
        """Records whenever a multiple of `frequency` is reached."""
        before, self._batches = self._batches, self._iterations()
        every = self._frequency
        if isinstance(every, int) and self._batches // every > before // every:
            self._record()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records at the end of an epoch."""
        if self._frequency == "epoch":
            self._record()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Records after the last batch, unless that is already recorded."""
        if self.history["batch"][-1:] != [self._batches]:
            self._record()
        if self._writer is not None:
            self._writer.close()

    def plot(self, folder: str | Path) -> list[Path]:
        """Writes plots of `history` as SVG files, and returns their paths.

        `steps.svg`: steps relative to their first value, over the training.
        `ratios.svg`: R of each layer, geometric mean and range over the records, with
        and without g. `clipped.svg`: clipped shares over the training. `codes.svg`: how
        often each integer is used, in the first and the last record.

        Args:
            folder: Output folder; it is created if it does not exist.

        Raises:
            RuntimeError: If nothing has been recorded.
        """
        if not self.history.get("batch"):
            raise RuntimeError(
                "`plot` needs records. Received: none. Pass the callback to `fit`."
            )
        kernels = {layer.name for layer in self._present_probe.wrappers}
        from .plots import write_plots  # Loads matplotlib.

        return write_plots(self.history, self.codes, kernels, Path(folder))

    @property
    def _present_probe(self) -> Probe:
        """The probe of the training that runs, or of the last one."""
        if self._probe is None:
            raise RuntimeError("`Diagnostics` must be a callback of a `fit`.")
        return self._probe

    def _iterations(self) -> int:
        """Returns how many batches have been trained."""
        return int(self.model.optimizer.iterations.numpy())

    def _record(self) -> None:
        """Appends a record to `history`, and writes it for TensorBoard."""
        # Computing the compiled loss updates the mean that is shown as "loss".
        metrics = [variable for m in self.model.metrics for variable in m.variables]
        probe = self._present_probe
        measurement = probe.measure(keep=metrics)
        self.codes = probe.codes
        self.history["batch"].append(self._batches)
        for quantity, values in measurement.items():
            record = self.history.setdefault(quantity, {})
            for name, value in values.items():
                record.setdefault(name, []).append(value)
        if self._writer is not None:
            with self._writer.as_default(self._batches):
                _write_summaries(measurement, self.codes)
            self._writer.flush()

    def _loss_of(self, x: Any, y: Any, outputs: Any) -> tf.Tensor:
        """Returns the loss of a batch, a scalar."""
        if self._student_loss is not None:
            loss = tf.reduce_mean(self._student_loss(y, outputs))
        else:
            loss = self.model.compute_loss(x=x, y=y, y_pred=outputs)
        # Scaled as in training: float16 would lose small gradients; R has no unit.
        scaled = getattr(self.model.optimizer, "get_scaled_loss", lambda loss: loss)
        return scaled(loss)


def _check_numbers(batch_size: int, frequency: Any) -> None:
    """Raises unless both are valid."""
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}.")
    if frequency != "epoch" and not (isinstance(frequency, int) and frequency >= 1):
        raise ValueError(
            '`frequency` must be "epoch" or a number of batches, at least 1. '
            f"Received: {frequency!r}."
        )


def _first_batch(data: Any, batch_size: int) -> tuple[Any, Any]:
    """Returns x and y of the first batch as tensors, None if there is none."""
    if data is None:
        return None, None
    first = next(batches(data, batch_size), None)
    if first is None:
        raise ValueError("`data` must have at least one batch. Received: none.")
    x, y = first
    x = tf.nest.map_structure(tf.convert_to_tensor, x)
    return x, None if y is None else tf.nest.map_structure(tf.convert_to_tensor, y)


def _write_summaries(found: Measurement, codes: dict[str, np.ndarray]) -> None:
    """Writes one record with the default writer, at its default step."""
    for quantity in _SCALARS:
        for name, value in found.get(quantity, {}).items():
            mean = tf.constant(np.mean(value), tf.float32)
            _write_summary("scalars", f"{quantity}/{name}", mean)
    for name, counts in found["counts"].items():
        # A bucket per count: left, right, count.
        left = codes[name] - 0.5
        buckets = np.stack([left, left + left[1] - left[0], counts], axis=1)
        buckets = tf.constant(buckets, tf.float64)
        _write_summary("histograms", f"codes/{name}", buckets)


def _write_summary(plugin: str, tag: str, value: tf.Tensor) -> None:
    """Writes data for a TensorBoard plugin; TensorBoard itself is not needed."""
    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = plugin
    tf.summary.write(tag, value, metadata=metadata)
