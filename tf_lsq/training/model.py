"""`LSQModel`: a Keras model whose first batch sets its activation steps."""

from __future__ import annotations

import contextlib
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from .._compat import (
    DeepNetwork,
    in_tflite_converter,
    infers_shapes_only,
    is_keras3_model,
    is_keras3_object,
    keras,
    name_outputs,
    register_for_h5,
    reset_slots,
    steps_per_execution,
)
from ..data import as_pair, batches, is_sequence
from ..layers import borrowed_sums
from .biases import restore_biases, round_biases, rounded_biases, set_rounded_biases
from .distribution import has_several_workers
from .first_batch import (
    initialise_shared_points,
    initialise_steps,
    missing_shared_points,
    warn_of_zeros,
)
from .learned_steps import (
    check_calibrated,
    check_steps,
    is_calibrated,
    quantization_points,
    trained_variables,
    wrapped_layers,
)
from .losses import resolve
from .narrow_ranges import warn_of_narrow_ranges
from .optimizers import DEFAULT_STEP_CLIP, chosen_step_clip, prepare_optimizer
from .other_keras import as_tf_keras, check_callbacks, check_tensorboard
from .pixel_ranges import warn_of_pixels
from .range_watch import MANY, RangeWatch

NO_EXPORT = (
    "`{}` is a quantized model, of which TFLiteConverter would make another one. Call "
    "`tflite_export.export_model(student, path)` for the file that runs on a phone; "
    "`tf_lsq.to_float(student)` is a plain model for serving."
)
# A step beyond these factors of its first value is worth a warning.
_SMALL, _LARGE = 0.1, 10.0
_DEFAULT_BATCH_SIZE = 32
_SUFFIXES = (".keras", ".h5", ".hdf5")
_SETTINGS = ("step_clip", "rounds_biases")  # Of an `LSQModel`.
_ROUNDED, _OUTPUTS = "rounded_biases", "output_names"


# A type checker sees the methods of Keras; at run time the classes that are trained add
# them.
_Trained: Any = keras.Model if TYPE_CHECKING else object


class StepTraining(_Trained):
    """Training beyond what Keras provides, for `LSQModel` and `Distiller`.

    Before the first compiled training step it runs the first batch once, to give
    every activation step its first value, and then restores the batch norm statistics.
    Steps that a training from random weights outgrows are set again, see `range_watch`.
    Optimizers update steps separately from weights, see `prepare_optimizer`. At its
    end, `fit` rounds biases to the grid of the file's int32 biases, see `round_biases`;
    the next `fit` starts from their values before rounding.
    """

    _traced_signs: list[float] | None = None
    _watched: Any = None  # The training function that checks ranges, if created.

    @property
    def quantized(self) -> LSQModel:
        """The quantized model that is trained."""
        raise NotImplementedError

    def in_own_keras(self, value: Any) -> Any:
        """Returns arguments of `compile`, with objects of the other Keras replaced.

        Raises:
            ValueError: If an object has no equal in the Keras of this model.
        """
        return as_tf_keras(value)

    def in_own_data(self, x: Any) -> Any:
        """Returns data for `fit`, with a sequence of the other Keras replaced."""
        x = as_pair(x, 2) if isinstance(x, list) else x
        if is_sequence(x) and is_keras3_object(x):
            return _AsSequence(x)
        return x

    def compile(
        self, optimizer: Any = "rmsprop", loss: Any = None, *args: Any, **kwargs: Any
    ) -> None:
        """Compiles the model; the optimizer updates steps separately from weights.

        XLA (`jit_compile=True`, TPUs) gets the plain implementation of the LSQ
        operator. A `CrossEntropy` infers here whether outputs are logits.
        """
        own = self.in_own_keras
        loss = resolve(loss, self.quantized)
        kwargs = {name: own(value) for name, value in kwargs.items()}
        if is_keras3_model(self) and kwargs.get("jit_compile", "auto") == "auto":
            kwargs["jit_compile"] = False  # XLA would get the slower form.
        super().compile(own(optimizer), own(loss), *map(own, args), **kwargs)
        self._choose_op()
        student = self.quantized
        for one in tf.nest.flatten(self.optimizer):
            student.step_clip = chosen_step_clip(one, student.step_clip)
            prepare_optimizer(one, student.step_clip)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compiles a loaded model, and builds its optimizer for its state.

        Keras leaves this to classes with a custom `compile`.
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
        validation_split: float = 0.0,
        validation_data: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Trains the model; see `keras.Model.fit`.

        Raises:
            ValueError: If the first batch, which sets the steps, is degenerate.
            RuntimeError: If a step has become NaN, at the latest at the end of the
                epoch; the error names the layers.
        """
        x, y = self.in_own_data(x), as_pair(y, 2)
        if isinstance(validation_data, list | tuple):
            validation_data = tuple(as_pair(one, 2) for one in validation_data)
        else:
            validation_data = self.in_own_data(validation_data)
        if not is_calibrated(self.quantized):
            first, x = _peek(x, batch_size or _DEFAULT_BATCH_SIZE)
            self._take_first_batch(first)
        self._begin()
        callbacks = self._with_guard(callbacks)
        try:
            with _divergence_named(self.quantized):
                return super().fit(
                    x,
                    y,
                    batch_size,
                    epochs,
                    verbose,
                    callbacks,
                    validation_split,
                    validation_data,
                    *args,
                    **kwargs,
                )
        finally:
            if self.quantized.rounds_biases:
                round_biases(self.quantized)

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch; see `keras.Model.train_on_batch`.

        Biases are not rounded: end such a loop with `round_biases`.
        """
        if not is_calibrated(self.quantized):
            warn_of_zeros(self._take_first_batch(x))
        self._begin()
        with _divergence_named(self.quantized):
            return super().train_on_batch(x, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the model; see `keras.Model`.

        Raises:
            ValueError: If `TFLiteConverter` calls it.
        """
        if not tf.executing_eagerly() and in_tflite_converter():
            raise ValueError(NO_EXPORT.format(self.quantized.name))
        return super().__call__(*args, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model; see `keras.Model.evaluate`."""
        x, y = self.in_own_data(x), as_pair(y, 2)
        check_calibrated(self.quantized)
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts; see `keras.Model.predict`."""
        x = self.in_own_data(x)
        check_calibrated(self.quantized)
        self._follow_signs()
        with _divergence_named(self.quantized):
            return super().predict(x, *args, **kwargs)

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
            ValueError: If the format would be TensorFlow's SavedModel, which cannot
                hold the layers of a quantized model, or if a layer has no
                configuration that can be saved.
        """
        is_path = isinstance(filepath, str | os.PathLike)
        named = not is_path or Path(filepath).suffix in _SUFFIXES
        if save_format == "tf" or (save_format is None and not named):
            raise ValueError(
                "A quantized model must be saved as one of "
                f"{list(_SUFFIXES)}. Received: {str(filepath)!r}, "
                f"save_format={save_format!r}. For the file that runs on a phone, call "
                "`tflite_export.export_model`."
            )
        self.get_config()  # Raises an error before anything is written.
        super().save(filepath, overwrite, save_format, **kwargs)

    def export(self, *args: Any, **kwargs: Any) -> None:
        """Refuses to write a SavedModel, from which converters make another model.

        Raises:
            ValueError: Always.
        """
        raise ValueError(NO_EXPORT.format(self.quantized.name))

    def make_train_function(self, force: bool = False) -> Any:
        """Returns the training function, which also checks ranges now and then."""
        super().make_train_function(force)
        function: Any = self.train_function
        if function is not self._watched:
            updates = steps_per_execution(self) or 1

            def train(iterator: Any) -> Any:
                logs = function(iterator)
                watch = self.quantized.range_watch
                if watch is not None and watch.count(updates):
                    self.follow_ranges()
                return logs

            self.train_function = self._watched = train
        return self.train_function

    def _with_guard(self, callbacks: Any) -> Any:
        """Returns the callbacks of a `fit` with a `StepGuard` after them."""
        if not isinstance(callbacks, list | tuple) and hasattr(callbacks, "append"):
            guard = StepGuard()
            guard.set_model(callbacks.model)
            guard.set_params(getattr(callbacks, "params", None) or {})
            callbacks.append(guard)
            return callbacks
        listed = tf.nest.flatten(callbacks or [])
        check_callbacks(listed, of_keras3=is_keras3_model(self))
        check_tensorboard(listed)
        return [*listed, StepGuard()]

    def _take_first_batch(self, x: Any) -> list[str]:
        """Sets the steps from a batch; returns the points that received only zeros."""
        found = initialise_steps(self.quantized, x, training=True)
        warn_of_narrow_ranges(found.narrow)
        warn_of_pixels(found.pixels)
        self.quantized.watch_ranges(x, found.empty)
        return found.empty

    def _begin(self) -> None:
        """Prepares a training call."""
        restore_biases(self.quantized)
        self._build_optimizer()
        self._follow_signs()

    def follow_ranges(self, optimizer: Any = None) -> None:
        """Sets new steps for tensors that have outgrown their range.

        `fit` and `train_on_batch` do this automatically; in a custom training loop,
        call it now and then, after `tf_lsq.calibrate`.

        Args:
            optimizer: The optimizer of a custom loop, whose slots for those steps are
                reset. None: the one that the model was compiled with, if any.

        Raises:
            RuntimeError: If there is no batch to measure with: it comes from
                `calibrate`, or is the first one of `fit`, in this process and on one
                worker.
        """
        watch = self.quantized.range_watch
        if watch is None:
            raise RuntimeError(
                f"`{self.quantized.name}` has no batch to measure ranges with. Call "
                "`tf_lsq.calibrate(model, data)` first."
            )
        changed = watch.follow()
        if changed:
            compiled = getattr(self, "optimizer", None)
            for one in tf.nest.flatten(optimizer or compiled or []):
                reset_slots(one, trained_variables(changed))
            self._follow_signs()

    def _choose_op(self) -> None:
        """Sets the implementation that every layer uses; functions are traced again."""
        xla = getattr(self, "jit_compile", False) or isinstance(
            self.distribute_strategy, tf.distribute.TPUStrategy
        )
        model = self.quantized
        plain = model.wants_plain_op or bool(xla)
        for layer in (*wrapped_layers(model), *quantization_points(model)):
            layer.plain_op = plain
        self.train_function = self.test_function = self.predict_function = None

    def _follow_signs(self) -> None:
        """Traces everything again if the sign of an input has changed.

        A traced function holds the sign from the first batch as a constant; `calibrate`
        and loaded weights may change it.
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

        If the first training step created them, it would be traced twice.
        """
        if hasattr(self.optimizer, "build"):
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)


@register_for_h5
@keras.utils.register_keras_serializable(package="tf_lsq")
class LSQModel(StepTraining, DeepNetwork, keras.Model):
    """A functional Keras model with learned quantization steps.

    `quantize_model` and `quantize_apply` create it. It is trained, saved and loaded
    like any Keras model; see `StepTraining` for what else its `fit` does.

    Attributes:
        step_clip: Bound on the relative gradients of steps, None for no bound; read
            when the model is compiled, and saved with it. An optimizer with its own
            `step_clip` (`tf_lsq.recipe`) sets it.
        rounds_biases: Whether `fit` ends with `round_biases`. Without it Keras computes
            with biases that the file cannot hold, and some codes differ by one; the
            file is the same either way. Saved with the model.
    """

    wants_plain_op = False
    step_clip: float | None = DEFAULT_STEP_CLIP
    rounds_biases = True
    range_watch: RangeWatch | None = None  # For the batch that set the steps.

    @property
    def quantized(self) -> LSQModel:
        """The model itself."""
        return self

    def get_config(self) -> dict[str, Any]:
        """Returns the layers and the settings."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return {
            **super().get_config(),
            **settings,
            _ROUNDED: rounded_biases(self),
            _OUTPUTS: list(self.output_names),
        }

    def watch_ranges(self, x: Any, empty: Iterable[str]) -> None:
        """Begins to watch the ranges of a training whose steps a batch has set.

        Args:
            x: The batch. If several workers train, each has a different one, so none
                is kept and ranges are not watched.
            empty: Names of the points that received only zeros from it.
        """
        alone = not has_several_workers(self.distribute_strategy)
        self.range_watch = RangeWatch(self, x, set(empty)) if alone else None
        self.warned_layers.clear()

    @property
    def warned_layers(self) -> dict[str, set[str]]:
        """The layers that warnings of this training have named, by kind."""
        return self.__dict__.setdefault("_warned_layers", {})  # Hidden from Keras.

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
        """Rebuilds the model; settings that old versions did not save get defaults."""
        if "student" in config:
            raise ValueError(
                "A student of Keras 3 must be loaded by Keras 3: call "
                "`keras.saving.load_model`. Received: its file in tf_keras."
            )
        config = dict(config)
        settings = {name: config.pop(name) for name in _SETTINGS if name in config}
        rounded, names = config.pop(_ROUNDED, []), config.pop(_OUTPUTS, None)
        model = super().from_config(config, custom_objects)
        if names is None:  # The point after an output had a prefix.
            names = [name.removeprefix("quantize_") for name in model.output_names]
        name_outputs(model, names)
        set_rounded_biases(model, rounded)
        for name, value in settings.items():
            setattr(model, name, value)
        return model

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """Calls the layers; see `keras.Model.call`."""
        if isinstance(training, bool | int) and training:
            self._initialise_shared_points(inputs, mask)
        with borrowed_sums(self):
            return super().call(inputs, training, mask)

    def _initialise_shared_points(self, inputs: Any, mask: Any) -> None:
        """Takes the first batch of a custom training loop."""
        points = missing_shared_points(self)
        visited = any(point.visitor is not None for point in points)
        known = visited or tf.distribute.has_strategy()
        if not points or known or infers_shapes_only():
            return

        def initialise() -> tf.Tensor:
            call: Any = super(LSQModel, self).call  # type: ignore[misc]
            initialise_shared_points(self, lambda: call(inputs, True, mask))
            return tf.constant(True)

        if tf.executing_eagerly():
            initialise()
            return
        units = [point.step_variables["unit"] for point in points]
        missing = tf.reduce_any(tf.stack(units) <= 0.0)
        tf.cond(missing, initialise, lambda: tf.constant(False))

    def use_plain_op(self, plain: bool = True) -> None:
        """Chooses the plain implementation of the LSQ operator, `lsq.fake_quantize`.

        It is slower than the default one. Its gradients of steps are within a relative
        1e-5 of float64, instead of 1e-3; and XLA supports all of it, for a custom
        `tf.function(jit_compile=True)`. The choice is not saved with the model.

        Args:
            plain: False: the fast implementation again, except where XLA compiles the
                model.
        """
        self.wants_plain_op = plain
        self._choose_op()


class _AsSequence(keras.utils.Sequence):
    """A `PyDataset` of Keras 3 as a `Sequence`."""

    def __init__(self, batches: Any) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> Any:
        return self._batches[index]

    def on_epoch_end(self) -> None:
        """Passes on the end of an epoch."""
        self._batches.on_epoch_end()


class StepGuard(keras.callbacks.Callback):
    """Checks the steps in every `fit` of a quantized model.

    Warnings name a layer once per training; `calibrate` begins a new training.
    """

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Checks ranges between epochs; a backup has been restored by now."""
        watch = self.model.quantized.range_watch
        if watch is None:
            return
        [optimizer, *_] = tf.nest.flatten(self.model.optimizer)
        updates = int(optimizer.iterations.numpy())
        if watch.begin_epoch(updates, self.params.get("steps")):
            self.model.follow_ranges()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stops a training with NaN; warns about ranges that do not fit.

        Raises:
            RuntimeError: If a step is NaN.
        """
        if self.model.stop_training:  # `TerminateOnNaN` also ends a training.
            return
        student = self.model.quantized
        check_steps(student)
        self._warn("moved", _moved_steps(student), _MOVED)
        if student.range_watch is not None:
            shares = student.range_watch.clipped_shares
            many = {n: f"{100 * s:.0f} %" for n, s in shares.items() if s > MANY}
            self._warn("clipped", many, _CLIPPED)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Warns about tensors that stayed all zeros to the end."""
        student = self.model.quantized
        warned = student.warned_layers.setdefault("zeros", set())
        if student.range_watch is not None:
            zeros = [n for n in student.range_watch.empty_points if n not in warned]
            warned.update(zeros)
            warn_of_zeros(zeros)

    def _warn(self, kind: str, found: dict[str, str], message: str) -> None:
        """Warns about layers that have not been named in this training."""
        warned = self.model.quantized.warned_layers.setdefault(kind, set())
        new = {name: value for name, value in found.items() if name not in warned}
        warned.update(new)
        if new:
            listed = ", ".join(f"`{name}` ({value})" for name, value in new.items())
            warnings.warn(message.format(listed), stacklevel=2)


_MOVED = (
    "Learned steps have left the range from 1/10 to 10 times their first value: {}. "
    "A training seldom recovers from that. Lower the learning rate, use "
    "`tf_lsq.recipe`, or lower the bound on the gradients of steps, "
    "`student.step_clip`, before `compile`."
)
_CLIPPED = (
    "More than 20 % of the values are clipped at these layers: {}. Clipped values have "
    "no gradient. Call `tf_lsq.calibrate(model, data)` between epochs, train more "
    "slowly, or give these layers more bits with `overrides`."
)


def _moved_steps(student: keras.Model) -> dict[str, str]:
    """Returns the factors of steps that are far from their first value, by layer."""
    moved = {}
    for layer in (*wrapped_layers(student), *quantization_points(student)):
        if "step" not in layer.step_variables:
            continue
        factors = layer.step_variables["step"].numpy()
        extreme = factors.flat[np.abs(np.log(factors)).argmax()]
        if not _SMALL <= extreme <= _LARGE:
            moved[layer.name] = f"{extreme:.3g} times"
    return moved


@contextlib.contextmanager
def _divergence_named(model: keras.Model) -> Iterator[None]:
    """Names the layers whose step is NaN when a TensorFlow op fails."""
    try:
        yield
    except tf.errors.InvalidArgumentError:
        check_steps(model)
        raise


def _peek(x: Any, batch_size: int) -> tuple[Any, Any]:
    """Returns the first batch of inputs, and what `fit` must read instead of x."""
    if isinstance(x, keras.utils.experimental.DatasetCreator):
        raise RuntimeError(
            "`model` must be calibrated before it trains on a `DatasetCreator`. "
            "Call `tf_lsq.calibrate(model, data)` first."
        )
    if is_sequence(x):
        return _inputs_of(x[0]), x
    if isinstance(x, Iterator):
        first = _first(x)
        return _inputs_of(first), (one for one in itertools.chain([first], x))
    if hasattr(x, "element_spec") and not isinstance(x, tf.data.Dataset):
        raise RuntimeError(
            "`model` must be calibrated before it trains on a distributed dataset. "
            "Call `tf_lsq.calibrate(model, data)` first."
        )
    # Here a list holds one array per input, or numbers.
    inputs = as_pair(list(x) if isinstance(x, tuple) else x, 2)
    return _first(batches(inputs, batch_size))[0], x


def _inputs_of(element: Any) -> Any:
    """Returns x of an element that a generator yields."""
    return element[0] if isinstance(element, tuple | list) else element


def _first(elements: Iterator[Any]) -> Any:
    """Returns the first batch.

    Raises:
        ValueError: If there is none.
    """
    first = next(elements, None)
    if first is None:
        raise ValueError(
            "The training data must have at least one batch. Received: none."
        )
    return first
