"""Tracks weights that flip back and forth between two codes, and can freeze them.

With few bits, a weight near the midpoint between two codes may change its code every
other batch, until the end of a training. A change of code is an *oscillation* if the
last change of the same weight went in the opposite direction.

Reference: M. Nagel et al., "Overcoming Oscillations in Quantization-Aware Training",
ICML 2022, https://arxiv.org/abs/2203.11086
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from .. import lsq
from .._compat import keras, steps_per_execution
from ..layers import LSQWrapper
from .learned_steps import student_of, wrapped_layers


class OscillationTracking(keras.callbacks.Callback):
    """Measures how often weights oscillate, and optionally freezes those that do.

    The model that `fit` trains is a quantized one, or holds it as `student`. After
    every batch the codes of a kernel are compared with those before it. The
    frequency of a weight is the moving average of its oscillations:
    ``f = momentum * o + (1 - momentum) * f``, where o is 1 if the weight has
    oscillated, else 0. For the last `fit`, `history` holds:

        epoch                number of the epoch, per epoch
        oscillating[layer]   share of the kernel's weights above `threshold`, per epoch
        frozen[layer]        share that is frozen, per epoch; only with `freeze_above`

    The shares among all tracked weights appear in the logs of an epoch as `oscillating`
    and `frozen`: `fit`'s own history includes them, and callbacks that come later in
    the list (TensorBoard, CSVLogger) see them.

    Freezing follows the paper: a weight whose frequency exceeds `freeze_above` gets the
    rounded moving average of its codes, and keeps that code to the end of `fit`. Its
    value then changes only with the step of the layer. A second `fit` starts over, and
    so does one that `BackupAndRestore` resumes: frozen weights may move again.

    Args:
        momentum: Momentum of both moving averages.
        threshold: A weight counts as oscillating above this frequency.
        freeze_above: A frequency; or a pair, the first and the last frequency, between
            which it falls along a cosine over the epochs of `fit`, as in the paper. One
            oscillation gives a frequency of `momentum`: below that, weights freeze at
            their first oscillation. None: nothing is frozen.
        max_bits: Kernels with more bits are not tracked. Their codes are so close that
            they change without oscillating for long.
        log_kernels: Whether the logs also hold the shares of each kernel, as
            `oscillating/<layer>` and `frozen/<layer>`.

    Raises:
        ValueError: If a number is out of range; in `fit`, if no kernel has `max_bits`
            or less, if `steps_per_execution` is not 1, or if the number of batches is
            unknown while `freeze_above` falls.

    Example:
        >>> callbacks = [OscillationTracking(freeze_above=(0.1, 0.011))]

    References:
        Nagel et al., Section 3 and Algorithm 1, https://arxiv.org/abs/2203.11086
    """

    def __init__(
        self,
        *,
        momentum: float = 0.01,
        threshold: float = 0.005,
        freeze_above: float | tuple[float, float] | None = None,
        max_bits: int = 4,
        log_kernels: bool = False,
    ) -> None:
        super().__init__()
        self._momentum = _share("momentum", momentum)
        self._threshold = _share("threshold", threshold)
        self._freeze_above = _first_and_last(freeze_above)
        self._max_bits = lsq.check_num_bits(max_bits, "max_bits")
        self._log_kernels = log_kernels
        self._trackers: dict[str, CodeTracker] = {}
        self.history: dict[str, Any] = {}

    def frequencies(self) -> dict[str, np.ndarray]:
        """Returns the frequency of every weight: layer name -> shape of the kernel."""
        return {name: t.frequency.numpy() for name, t in self._trackers.items()}

    def frozen(self) -> dict[str, np.ndarray]:
        """Returns which weights are frozen: layer name -> shape of the kernel."""
        return {name: t.frozen.numpy() for name, t in self._trackers.items()}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Clears the records of an earlier training."""
        self._tracked_layers()
        self._check_training()
        self._trackers = {}
        self.history = {"epoch": [], "oscillating": {}}
        if self._freeze_above is not None:
            self.history["frozen"] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Starts from the current codes: a backup has been restored by now."""
        self._epoch = epoch
        if not self._trackers:
            wrappers = self._tracked_layers()
            self._trackers = {
                wrapper.name: CodeTracker(wrapper.codes(), self._momentum)
                for wrapper in wrappers
            }
            self._update = tf.function(self._updates(wrappers))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None):
        """Compares codes, and resets frozen weights to their codes."""
        self._update(tf.constant(self._limit(batch), tf.float32))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Resets frozen weights once more: Keras may have averaged weights."""
        if self._freeze_above is not None and self._trackers:
            self._put_back()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds the shares to `history` and to the logs."""
        logs = {} if logs is None else logs
        self.history["epoch"].append(epoch)
        chosen = {"oscillating": {}, "frozen": self.frozen()}
        for name, frequency in self.frequencies().items():
            chosen["oscillating"][name] = frequency > self._threshold
        for quantity in chosen.keys() & self.history.keys():
            every = [np.ravel(weights) for weights in chosen[quantity].values()]
            logs[quantity] = float(np.concatenate(every).mean())
            for name, weights in chosen[quantity].items():
                share = float(weights.mean())
                self.history[quantity].setdefault(name, []).append(share)
                if self._log_kernels:
                    logs[f"{quantity}/{name}"] = share

    def _tracked_layers(self) -> list[LSQWrapper]:
        """Returns the layers whose kernels are tracked."""
        student = student_of(self.model)
        wrappers = wrapped_layers(student)
        tracked = [w for w in wrappers if w.quantizer.num_bits <= self._max_bits]
        if not tracked:
            bits = {wrapper.name: wrapper.quantizer.num_bits for wrapper in wrappers}
            raise ValueError(
                f"`{student.name}` must have a kernel of at most {self._max_bits} bits "
                f"(`max_bits`). Received kernels of these bits: {bits}."
            )
        return tracked

    def _check_training(self) -> None:
        """Raises unless oscillations can be tracked in this training."""
        batches_at_once = steps_per_execution(self.model)
        if batches_at_once != 1:
            raise ValueError(
                "Codes must be compared after every batch: compile the model with "
                f"`steps_per_execution=1`. Received: {batches_at_once or 'auto'}."
            )
        first, last = self._freeze_above or (0.0, 0.0)
        if first != last and not self.params.get("steps"):
            raise ValueError(
                "A falling `freeze_above` needs a known number of batches. "
                f"Received: freeze_above={self._freeze_above}, and data of unknown "
                "length. Pass `steps_per_epoch` to `fit`."
            )

    def _limit(self, batch: int) -> float:
        """Returns the frequency limit for freezing after a batch of the epoch."""
        if self._freeze_above is None:
            return math.inf
        first, last = self._freeze_above
        if first == last:
            return last
        trained = self._epoch + (batch + 1) / self.params["steps"]
        phase = math.pi * trained / self.params["epochs"]
        return last + (first - last) * (1.0 + math.cos(phase)) / 2.0

    def _updates(self, wrappers: list[LSQWrapper]) -> Any:
        """Returns the update after a batch, as a function of the limit."""

        def update(limit: tf.Tensor) -> None:
            for wrapper in wrappers:
                self._trackers[wrapper.name].update(wrapper.codes(), limit)
            if self._freeze_above is not None:
                self._put_back()

        return update

    def _put_back(self) -> None:
        """Resets frozen weights to their codes."""
        for wrapper in self._tracked_layers():
            tracker = self._trackers[wrapper.name]
            held = tf.cast(tracker.codes, tf.float32) * wrapper.step
            kernel = tf.convert_to_tensor(wrapper.kernel)
            held = tf.cast(held, kernel.dtype)
            wrapper.kernel.assign(tf.where(tracker.frozen, held, kernel))


class CodeTracker:
    """Follows the codes of one kernel through a training.

    Attributes:
        codes: The codes after the last batch, int8; frozen weights keep theirs.
        direction: -1 or 1, the direction of the last change; 0 before the first, int8.
        frequency: Moving average of oscillations, float32.
        average: Moving average of the codes, float32.
        frozen: Which weights keep their code.

    Args:
        codes: Whole numbers, -128 to 127: the codes before the first batch.
        momentum: Momentum of both moving averages.

    References:
        Nagel et al., Section 3 and Algorithm 1
    """

    def __init__(self, codes: tf.Tensor, momentum: float) -> None:
        codes = tf.cast(codes, tf.int8)
        self._momentum = momentum

        def variable(value: tf.Tensor) -> tf.Variable:
            return tf.Variable(value, trainable=False)

        self.codes = variable(codes)
        self.direction = variable(tf.zeros_like(codes))
        self.frequency = variable(tf.zeros(codes.shape))
        self.average = variable(tf.cast(codes, tf.float32))
        self.frozen = variable(tf.zeros(codes.shape, tf.bool))

    def update(self, codes: tf.Tensor, limit: tf.Tensor) -> None:
        """Takes the codes after one more batch.

        Args:
            codes: Whole numbers, shape of the kernel. Those of frozen weights do not
                count.
            limit: Weights above this frequency freeze, at the average of their codes
                before these.
        """
        before = tf.convert_to_tensor(self.codes)
        codes = tf.where(self.frozen, before, tf.cast(codes, tf.int8))
        # A difference of codes may be too large for int8.
        change = tf.cast(codes > before, tf.int8) - tf.cast(codes < before, tf.int8)
        oscillates = tf.cast(change * self.direction < 0, tf.float32)
        self.frequency.assign(self._moved(self.frequency, oscillates))
        self.direction.assign(tf.where(change != 0, change, self.direction))
        freezes = (self.frequency > limit) & tf.logical_not(self.frozen)
        average = tf.cast(tf.round(self.average), tf.int8)
        self.codes.assign(tf.where(freezes, average, codes))
        self.frozen.assign(self.frozen | freezes)
        self.average.assign(self._moved(self.average, tf.cast(self.codes, tf.float32)))

    def _moved(self, average: tf.Variable, value: tf.Tensor) -> tf.Tensor:
        """Returns a moving average one batch later."""
        return self._momentum * value + (1.0 - self._momentum) * average


def _share(name: str, value: float) -> float:
    """Returns a number if it is between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"`{name}` must be between 0 and 1. Received: {value!r}.")
    return value


def _first_and_last(freeze_above: Any) -> tuple[float, float] | None:
    """Returns the limits of a training's first and last batch."""
    if freeze_above is None:
        return None
    one = isinstance(freeze_above, int | float)
    pair = (freeze_above, freeze_above) if one else tuple(freeze_above)
    if len(pair) != 2 or not 0.0 < pair[1] <= pair[0] < 1.0:
        raise ValueError(
            "`freeze_above` must be a frequency between 0 and 1, or two frequencies "
            f"of which the first is larger. Received: {freeze_above!r}."
        )
    return pair
