"""`LSQModel`: a Keras model whose first batch sets its activation steps."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ._compat import exclude_from_weight_decay, keras, register_for_h5
from .borrowed_sums import borrowed_sums
from .data import batches
from .distribution import assign_chiefs_values
from .folding import round_biases
from .layers import LSQWrapper, QuantizationPoint
from .losses import resolve

STEP_VARIABLE_PATTERN = r"_step:0$"
_DEFAULT_BATCH_SIZE = 32


class StepTraining:
    """What training needs beyond Keras' own: for `LSQModel` and for `Distiller`.

    Before the first compiled training step it runs the first batch once, to give
    every activation step its first value; batch norm statistics are put back
    afterwards. An optimizer's weight decay leaves the steps out. At its end `fit`
    moves biases onto the grid of the file's int32 biases, see `round_biases`.
    """

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
            exclude_from_weight_decay(one, STEP_VARIABLE_PATTERN)

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
        *args: Any,
        **kw: Any,
    ) -> Any:
        """Trains the model; see `keras.Model.fit`."""
        if not is_calibrated(self.quantized):
            first, x = _peek(x, batch_size or _DEFAULT_BATCH_SIZE)
            initialise_steps(self.quantized, first, training=True)
        self._build_optimizer()
        with _divergence_named(self.quantized):
            history = super().fit(x, y, batch_size, *args, **kw)
        round_biases(self.quantized)
        return history

    def train_on_batch(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Trains on one batch; see `keras.Model.train_on_batch`."""
        if not is_calibrated(self.quantized):
            initialise_steps(self.quantized, x, training=True)
        self._build_optimizer()
        with _divergence_named(self.quantized):
            return super().train_on_batch(x, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluates the model; see `keras.Model.evaluate`."""
        check_calibrated(self.quantized)
        with _divergence_named(self.quantized):
            return super().evaluate(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """Predicts; see `keras.Model.predict`."""
        check_calibrated(self.quantized)
        with _divergence_named(self.quantized):
            return super().predict(*args, **kwargs)

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
        with borrowed_sums(self):
            return super().call(inputs, training, mask)

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


def quantization_points(model: keras.Model) -> list[QuantizationPoint]:
    """Returns the quantization points of a model, in the model's order."""
    return [layer for layer in model.layers if isinstance(layer, QuantizationPoint)]


def wrapped_layers(model: keras.Model) -> list[LSQWrapper]:
    """Returns the layers with a quantized kernel, in the model's order."""
    return [layer for layer in model.layers if isinstance(layer, LSQWrapper)]


def student_of(model: keras.Model) -> keras.Model:
    """Returns the quantized model that `model.fit` trains.

    Args:
        model: A quantized model, or one that holds it as its attribute `student`.

    Raises:
        ValueError: If it has no quantized layers.
    """
    student = getattr(model, "student", model)
    if not wrapped_layers(student) and not quantization_points(student):
        raise ValueError(
            "The model that is trained must be quantized, or hold a quantized model as "
            f"`student`. Received: `{student.name}`, which has no quantized layers. "
            "Call `tf_lsq.quantize_model` first."
        )
    return student


def is_calibrated(model: keras.Model) -> bool:
    """Returns whether every step of a model has its first value."""
    return not _missing(model)


def check_calibrated(model: keras.Model) -> None:
    """Raises unless every step of a model has its first value.

    Raises:
        RuntimeError: Naming the points without a step.
    """
    missing = _missing(model)
    if missing:
        raise RuntimeError(
            f"`{model.name}` must be trained or calibrated before it is used. These "
            f"quantization points have no step yet: {missing}. Call `model.fit`, or "
            "`tf_lsq.calibrate(model, data)`."
        )


def steps(model: keras.Model) -> dict[str, Any]:
    """Returns the learned steps, in the unit of what they quantize.

    Args:
        model: A quantized model.

    Returns:
        Layer name -> NumPy array: shape `[]`, or size 1 on every axis of the
        kernel that shares a step.
    """
    layers = [*wrapped_layers(model), *quantization_points(model)]
    return {layer.name: layer.step.numpy() for layer in layers}


def initialise_steps(model: keras.Model, x: Any, *, training: bool) -> None:
    """Gives every activation step that has none its first value.

    The batch flows through the model once, eagerly; each point sets its step
    from the values that arrive, which earlier points have quantized already. Where
    several workers train, all of them call this and get the first worker's steps.

    Args:
        model: A quantized model.
        x: One batch of inputs.
        training: Whether batch norms use the batch's statistics, as in a
            training step. Their moving averages are left as they were.
    """
    with _batch_norm_statistics_kept(model), _points_initialising(model):
        model(tf.nest.map_structure(tf.convert_to_tensor, x), training=training)
    check_calibrated(model)
    first_values = [
        variable
        for point in quantization_points(model)
        for name, variable in point.step_variables.items()
        if name != "step"
    ]
    assign_chiefs_values(model.distribute_strategy, first_values)


@contextlib.contextmanager
def _divergence_named(model: keras.Model) -> Iterator[None]:
    """Says which steps are no numbers any more, where TensorFlow's kernels refuse."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        lost = [name for name, step in steps(model).items() if np.isnan(step).any()]
        if not lost:
            raise
        raise RuntimeError(
            f"The training of `{model.name}` has diverged: these layers have a learned "
            f"step that is NaN: {lost}. Start again from finite weights, with a lower "
            "learning rate or with the optimizer's `clipnorm`."
        ) from error


def _missing(model: keras.Model) -> list[str]:
    """Returns the names of the points without a first value."""
    return [p.name for p in quantization_points(model) if not p.is_initialised()]


@contextlib.contextmanager
def _points_initialising(model: keras.Model) -> Iterator[None]:
    """Lets points take what flows through as their first batch."""
    points = quantization_points(model)
    for point in points:
        point.initialising = True
    try:
        yield
    finally:
        for point in points:
            point.initialising = False


@contextlib.contextmanager
def _batch_norm_statistics_kept(model: keras.Model) -> Iterator[None]:
    """Puts the moving averages of batch norms back."""
    norms = [
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    kept = [
        (v, tf.identity(v)) for n in norms for v in (n.moving_mean, n.moving_variance)
    ]
    try:
        yield
    finally:
        for variable, value in kept:
            variable.assign(value)


def _peek(x: Any, batch_size: int) -> tuple[Any, Any]:
    """Returns the first batch of inputs, and what `fit` shall read instead of x."""
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
