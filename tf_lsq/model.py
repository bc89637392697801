"""`LSQModel`: a Keras model whose first batch sets its activation steps."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from . import lsq
from ._compat import (
    exclude_from_weight_decay,
    infers_shapes_only,
    keras,
    register_for_h5,
)
from .borrowed_sums import borrowed_sums
from .data import batches
from .folding import round_biases
from .losses import resolve
from .step_values import (
    check_calibrated,
    check_steps,
    initialise_shared_points,
    initialise_steps,
    is_calibrated,
    missing_shared_points,
    quantization_points,
    wrapped_layers,
)

# Steps and offsets, which no weight decay may touch; replicas have names of their own.
QUANTIZER_VARIABLES = r"_(step|offset)(/replica_\d+)?:0$"
_DEFAULT_BATCH_SIZE = 32
_SUFFIXES = (".keras", ".h5", ".hdf5")


class StepTraining:
    """What training needs beyond Keras' own: for `LSQModel` and for `Distiller`.

    Before the first compiled training step it runs the first batch once, to give
    every activation step its first value; batch norm statistics are put back
    afterwards. An optimizer's weight decay leaves the steps out. At its end `fit`
    moves biases onto the grid of the file's int32 biases, see `round_biases`.
    """

    _traced_signs: list[float] | None = None

    @property
    def quantized(self) -> LSQModel:
        """The quantized model that is trained."""
        raise NotImplementedError

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Compiles the model; steps are excluded from weight decay.

        XLA (`jit_compile=True`, TPUs) gets the plain form of the LSQ operator. A
        `CrossEntropy` learns here whether outputs are logits.
        """
        loss = resolve(loss, self.quantized)
        super().compile(optimizer, loss, *args, **kwargs)
        self._choose_op()
        for one in tf.nest.flatten(self.optimizer):
            exclude_from_weight_decay(one, QUANTIZER_VARIABLES)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, and builds its optimizer for its state.

        Keras leaves this to classes with a `compile` of their own.
        """
        self.compile(**keras.saving.deserialize_keras_object(config))
        self._build_optimizer()

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: Any = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Trains the model; see `keras.Model.fit`.

        Raises:
            ValueError: If the first batch, which sets the steps, is degenerate.
            RuntimeError: If a step has become NaN, at the end of the epoch at the
                latest; the layers are named.
        """
        if not is_calibrated(self.quantized):
            first, x = _peek(x, batch_size or _DEFAULT_BATCH_SIZE)
            initialise_steps(self.quantized, first, training=True)
        self._build_optimizer()
        self._follow_signs()
        callbacks = _with_guard(callbacks)
        with _divergence_named(self.quantized):
            history = super().fit(
                x, y, batch_size, epochs, verbose, callbacks, *args, **kwargs
            )
        round_biases(self.quantized)
        return history

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch; see `keras.Model.train_on_batch`."""
        if not is_calibrated(self.quantized):
            initialise_steps(self.quantized, x, training=True)
        self._build_optimizer()
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().train_on_batch(x, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model; see `keras.Model.evaluate`."""
        check_calibrated(self.quantized)
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts; see `keras.Model.predict`."""
        check_calibrated(self.quantized)
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().predict(*args, **kwargs)

    def test_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates one batch; see `keras.Model.test_on_batch`."""
        check_calibrated(self.quantized)
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().test_on_batch(*args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts one batch; see `keras.Model.predict_on_batch`."""
        check_calibrated(self.quantized)
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().predict_on_batch(x)

    def save(
        self, filepath: Any, overwrite: bool = True, save_format: Any = None, **kwargs
    ) -> None:
        """Saves the model as `.keras` or `.h5`; see `keras.Model.save`.

        Raises:
            ValueError: If the format would be TensorFlow's SavedModel, which does not
                hold the layers of a quantized model.
        """
        is_path = isinstance(filepath, str | os.PathLike)
        named = not is_path or Path(filepath).suffix in _SUFFIXES
        if save_format == "tf" or (save_format is None and not named):
            raise ValueError(
                f"A quantized model is saved as one of {list(_SUFFIXES)}. Received: "
                f"{str(filepath)!r}, save_format={save_format!r}. For a SavedModel "
                "that predicts but is not trained use `model.export(folder)`."
            )
        super().save(filepath, overwrite, save_format, **kwargs)

    def _choose_op(self) -> None:
        """Tells every layer which form to use; what was traced is traced anew."""
        xla = getattr(self, "jit_compile", False) or isinstance(
            self.distribute_strategy, tf.distribute.TPUStrategy
        )
        model = self.quantized
        plain = model.wants_plain_op or bool(xla)
        for layer in (*wrapped_layers(model), *quantization_points(model)):
            layer.plain_op = plain
        self.train_function = self.test_function = self.predict_function = None

    def _follow_signs(self) -> None:
        """Has everything traced anew if the sign of an input has changed.

        A traced function holds the sign that the first batch gave as a constant;
        `calibrate` and loaded weights may bring another.
        """
        points = quantization_points(self.quantized)
        signs = [
            float(point.step_variables["signed"].numpy())
            for point in points
            if "signed" in point.step_variables
        ]
        if signs != self._traced_signs:
            self._traced_signs = signs
            self.test_function = self.predict_function = None
            if self.train_function is not None:  # `fit` may be using it.
                self.make_train_function(force=True)

    def _build_optimizer(self) -> None:
        """Creates the optimizer's variables.

        Created in the first training step, they would have it traced twice.
        """
        if hasattr(self.optimizer, "build"):
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


@register_for_h5
@keras.utils.register_keras_serializable(package="tf_lsq")
class LSQModel(StepTraining, keras.Model):
    """A functional Keras model with learned quantization steps.

    Made by `quantize_model` and `quantize_apply`. It is trained, saved and
    loaded like any Keras model; see `StepTraining` for what its `fit` does besides.
    """

    wants_plain_op = False

    @property
    def quantized(self) -> LSQModel:
        """The model itself."""
        return self

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Calls the layers; see `keras.Model.call`."""
        if isinstance(training, bool | int) and training:
            self._initialise_shared_points(inputs, mask)
        with borrowed_sums(self):
            return super().call(inputs, training, mask)

    def _initialise_shared_points(self, inputs: Any, mask: Any) -> None:
        """Takes a first batch of a training loop of one's own."""
        points = missing_shared_points(self)
        known = any(point.passes for point in points) or tf.distribute.has_strategy()
        if not points or known or infers_shapes_only():
            return

        def initialise() -> tf.Tensor:
            call = super(LSQModel, self).call
            initialise_shared_points(self, lambda: call(inputs, True, mask))
            return tf.constant(True)

        if tf.executing_eagerly():
            initialise()
            return
        units = [point.step_variables["unit"] for point in points]
        missing = tf.reduce_any(tf.stack(units) <= 0.0)
        tf.cond(missing, initialise, lambda: tf.constant(False))

    def use_plain_op(self, plain: bool = True) -> None:
        """Chooses the plain form of the LSQ operator, `lsq.fake_quantize`.

        It is slower than the form in use otherwise. Its gradients of steps are
        within 1e-5 of float64, relative, instead of 1e-3; and XLA has kernels for
        all of it, for a `tf.function(jit_compile=True)` of your own. The choice is
        not saved with the model.

        Args:
            plain: False: the fast form again, but where XLA compiles the model.
        """
        self.wants_plain_op = plain
        self._choose_op()


def _with_guard(callbacks: Any) -> Any:
    """Returns the callbacks of a `fit` and a `StepGuard` behind them."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        guard = StepGuard()
        guard.set_model(callbacks.model)
        callbacks.append(guard)
        return callbacks
    return [*tf.nest.flatten(callbacks or []), StepGuard()]


class StepGuard(keras.callbacks.Callback):
    """Looks at the steps in every `fit` of a quantized model."""

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops a training with NaN.

        Raises:
            RuntimeError: If a step is NaN.
        """
        if not self.model.stop_training:  # `TerminateOnNaN` ends a training, too.
            check_steps(self.model.quantized)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Tells of steps that have collapsed, and not recovered."""
        model = self.model.quantized
        collapsed = [
            layer.name
            for layer in (*wrapped_layers(model), *quantization_points(model))
            if "step" in layer.step_variables
            and np.any(layer.step_variables["step"] <= lsq.MIN_STEP_FACTOR)
        ]
        if collapsed:
            warnings.warn(
                "Learned steps have shrunk to 1/1000 of their first value, the least "
                f"they may have: {collapsed}. Almost all values are clipped there. "
                "Start again with a lower learning rate, with `tf_lsq.recipe`, which "
                "bounds the updates of steps, or with the optimizer's `clipnorm`.",
                stacklevel=2,
            )


@contextlib.contextmanager
def _divergence_named(model: keras.Model) -> Iterator[None]:
    """Says which steps are no numbers any more, where TensorFlow's kernels refuse."""
    try:
        yield
    except tf.errors.InvalidArgumentError:
        check_steps(model)
        raise


def _peek(x: Any, batch_size: int) -> tuple[Any, Any]:
    """Returns the first batch of inputs, and what `fit` shall read instead of x."""
    if isinstance(x, keras.utils.experimental.DatasetCreator):
        raise RuntimeError(
            "`model` must be calibrated before it trains on a `DatasetCreator`. "
            "Call `tf_lsq.calibrate(model, data)` first."
        )
    if isinstance(x, keras.utils.Sequence):
        return _inputs_of(x[0]), x
    if isinstance(x, Iterator):
        first = next(x)
        return _inputs_of(first), itertools.chain([first], x)
    if hasattr(x, "element_spec") and not isinstance(x, tf.data.Dataset):
        raise RuntimeError(
            "`model` must be calibrated before it trains on a distributed dataset. "
            "Call `tf_lsq.calibrate(model, data)` first."
        )
    inputs = list(x) if isinstance(x, tuple) else x
    return next(batches(inputs, batch_size))[0], x


def _inputs_of(element: Any) -> Any:
    """Returns x of an element that a generator yields."""
    return element[0] if isinstance(element, tuple) else element
