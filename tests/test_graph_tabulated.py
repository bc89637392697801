"""Elementwise functions as tables: exact in files, finite in training, registered."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze, elementwise, tabulated
from tf_lsq.graph.unary import KINDS
from tflite_export.file import from_bytes
from tflite_export.targets import TARGETS, find_violations

layers = keras.layers
EIGHT = {"weight_bits": 8, "activation_bits": 8}
EXTREME = [-1e30, -5.0, -1.0, -0.5, -0.0, 0.0, 1e-30, 0.5, 1.0, 7.0, 1e30]
# Function -> settings, where it has any.
SETTINGS = {
    "rsqrt_from": {"least": 1e-6},
    "celu": {"alpha": 0.5},
    "elu_alpha": {"alpha": 0.5},
    "exponential": {"base": 2.0},
    "hard_shrink": {"threshold": 0.5},
    "leaky_relu": {"alpha": -0.5},
    "logarithm": {"base": 10.0},
    "power": {"exponent": -0.5},
    "reciprocal": {"numerator": 1.0},
    "relu_from": {"threshold": 0.5, "slope": 0.0, "max_value": 3.0},
    "soft_shrink": {"threshold": 0.5},
    "squareplus": {"b": 4.0},
    "swish_beta": {"beta": 2.0},
    "threshold": {"threshold": 0.5, "default": 0.0},
}
# Their results for large numbers are beyond float32, like those of a user's model.
UNLIMITED = {"bessel_i0", "cosh", "expm1", "exponential", "sinh", "squareplus"}


@pytest.fixture(autouse=True)
def registered():
    """Forgets what a test registers."""
    before = dict(tabulated.TABULATED)
    yield
    tabulated.TABULATED.clear()
    tabulated.TABULATED.update(before)


def between(function, units=6):
    inputs = layers.Input((8, 8, 4))
    x = layers.Conv2D(units, 3, padding="same", name="first")(inputs)
    x = layers.Conv2D(4, 1, name="last")(function(x))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def exported(model, rng, path, **options):
    """The student, its graph in the file, and the differences from its twin."""
    student, x = tiny.student_of(model, rng, (16, 8, 8, 4), **options)
    tflite_export.export_model(student, path, verbose=False)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    different = [point.name for point in found.points if point.twin_differences]
    assert not sum(point.off_by_one for point in found.points if point.kind == "table")
    return student, from_bytes(path.read_bytes()), different


@pytest.mark.parametrize("name", tabulated.TABULATED)
def test_results_and_slopes_are_finite(name):
    row, settings = tabulated.TABULATED[name], SETTINGS.get(name, {})
    values = EXTREME[1:-1] if name in UNLIMITED else EXTREME
    x = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = row.function(x, **settings)
    slope = tape.gradient(y, x)
    assert np.isfinite(y).all() and np.isfinite(slope).all()
    double = row.function(tf.cast(x, tf.float64), **settings)
    assert double.dtype == tf.float64
    inner = slice(1, -1)
    np.testing.assert_allclose(y[inner], double[inner], 1e-4, 1e-4)
    reach = row.range_with(settings)
    above = np.array(y)[np.array(values) >= 0]
    assert {"positive": min(y) >= 0, "inputs": above.min() >= 0, "signed": True}[reach]


def test_values_without_a_result_saturate_with_one_sign():
    x = tf.constant([-0.0, 0.0])
    for name in ("reciprocal", "rsqrt"):
        row = tabulated.TABULATED[name]
        y = row.function(x, **SETTINGS.get(name, {}))
        np.testing.assert_array_equal(y, [elementwise.INFINITE] * 2)
    half = elementwise.infinite("float16")
    assert half == 65504.0


@pytest.mark.filterwarnings("ignore:These tensors use less than")
@pytest.mark.parametrize("bits", [8, 4])
def test_steps_and_kernels_around_tables_are_trained(bits, rng):
    def function(x):
        y = tf.math.log(tf.nn.relu(x)) + tf.nn.gelu(x) + tf.exp(tf.tanh(x))
        return y + tf.sqrt(tf.nn.relu(x)) + tf.math.softplus(x)

    student, x = tiny.student_of(
        between(function),
        rng,
        (16, 8, 8, 4),
        weight_bits=bits,
        activation_bits=bits,
    )
    weights = student.trainable_weights
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(student(x, training=True) ** 2)
    for weight, gradient in zip(weights, tape.gradient(loss, weights), strict=True):
        assert np.isfinite(gradient).all() and np.any(gradient), weight.name


def test_a_pole_at_a_value_of_the_first_batch_is_an_error(rng):
    model = between(lambda x: tf.math.rsqrt(tf.nn.relu(x)))
    student = tf_lsq.quantize_model(model)
    x = rng.normal(size=(16, 8, 8, 4)).astype(np.float32)
    with pytest.raises(ValueError, match=r"no finite result for 0") as error:
        tf_lsq.calibrate(student, x)
    assert "at: `tf.math.rsqrt` (and" in str(error.value)
    assert "'tf.math.rsqrt': 'float'" in str(error.value)


def test_a_table_can_stay_in_float(rng, tmp_path):
    model = between(lambda x: tf.sin(tf.math.log(tf.nn.relu(x) + 1.0)))
    overrides = {"tf.math.(sin|log)": "float"}
    student, graph, different = exported(
        model, rng, tmp_path / "m.tflite", overrides=overrides
    )
    assert not different
    codes = [op.code for op in graph.ops]
    assert "SIN" in codes and "GATHER" not in codes
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), student(x))


@pytest.mark.parametrize("summand", [0.0, 0.5])
@pytest.mark.parametrize(("bits", "code"), [(8, "LOG"), (4, "GATHER")])
def test_a_logarithm_of_zero_on_the_grid_needs_a_table(
    bits, code, summand, rng, tmp_path
):
    model = between(
        lambda x: tf.math.log(layers.Rescaling(1.0, summand)(tf.nn.relu(x)))
    )
    options = {"weight_bits": bits, "activation_bits": bits}
    _, graph, different = exported(model, rng, tmp_path / "m.tflite", **options)
    assert not different
    assert {op.code for op in graph.ops} & {"LOG", "GATHER"} == {code}


def test_arithmetic_before_a_table_is_part_of_it(rng, tmp_path):
    def function(x):
        return tf.math.log(2.0 * tf.nn.relu(x) + 0.1)

    model = between(function)
    student, graph, different = exported(model, rng, tmp_path / "m.tflite", **EIGHT)
    assert not different
    codes = [op.code for op in graph.ops]
    assert "GATHER" in codes and "DEPTHWISE_CONV_2D" not in codes
    [node] = [n for n in analyze(student).nodes if n.kind == "table"]
    np.testing.assert_allclose(node.layer(tf.zeros([1])), np.log(0.1), 1e-5)


@pytest.mark.parametrize("scale", [-1.0, 1.0])
def test_signs_after_arithmetic(scale):
    model = between(lambda x: tf.math.asinh(scale * tf.nn.relu(x)))
    [node] = [node for node in analyze(model).nodes if node.kind == "table"]
    assert node.nonnegative() is (scale > 0)


@pytest.mark.parametrize(
    ("target", "code"),
    [("phone", "GELU"), ("tflm", "GATHER"), ("ethos-u55-128", "GELU")],
)
def test_targets_without_an_operator_get_a_table(target, code, rng, tmp_path):
    model = between(tf.nn.gelu)
    _, graph, different = exported(model, rng, tmp_path / "m.tflite", target=target)
    assert not different
    assert code in [op.code for op in graph.ops]
    assert not find_violations(graph, TARGETS[target])


@pytest.mark.parametrize("function", [tf.nn.gelu, tf.math.softplus])
def test_the_edge_tpu_refuses_tables(function, rng, tmp_path):
    model = between(function)
    student, _ = tiny.student_of(model, rng, (16, 8, 8, 4), target="edgetpu")
    with pytest.raises(ValueError, match=r"(?s)refuses.*(GELU|CAST).*swish"):
        tflite_export.export_model(student, tmp_path / "m.tflite", verbose=False)
    assert not tflite_export.check_model(student).ok


# --- Registered functions -------------------------------------------------------


def bent(x):
    return (tf.sqrt(x * x + 1.0) - 1.0) / 2.0 + x


USES = {
    "activation": lambda: layers.Activation(bent, name="own"),
    "lambda": lambda: layers.Lambda(bent, name="own"),
    "argument": lambda: layers.Conv2D(6, 1, activation=bent),
}


@pytest.mark.parametrize("use", USES)
def test_a_registered_function_is_one_table(use, rng, tmp_path):
    assert tf_lsq.register_elementwise(bent) is bent
    model = between(USES[use]())
    student, graph, different = exported(model, rng, tmp_path / "m.tflite")
    assert not different
    assert [op.code for op in graph.ops].count("GATHER") == 1
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    x = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(loaded(x), student(x))
    del tabulated.TABULATED["custom>bent"]
    with pytest.raises(Exception, match="register_elementwise"):
        keras.models.load_model(tmp_path / "student.keras")


def test_a_registered_function_of_keras_3_is_one_table(rng, tmp_path):
    @tf_lsq.register_elementwise
    def wave(x):
        return keras3.ops.sin(x) * x

    inputs = keras3.Input((8, 8, 4))
    x = keras3.layers.Conv2D(6, 3, activation=wave)(inputs)
    x = keras3.layers.Activation(wave)(x)
    x = keras3.layers.Lambda(wave)(x)
    x = keras3.layers.Dense(2)(keras3.layers.Flatten()(x))
    model = tf_lsq.from_keras3(keras3.Model(inputs, x))
    _, graph, different = exported(model, rng, tmp_path / "m.tflite")
    assert not different
    assert [op.code for op in graph.ops].count("GATHER") == 3


def test_a_range_can_be_registered():
    def hump(x):
        return tf.exp(-tf.square(x))

    for nonnegative in (False, True):
        tf_lsq.register_elementwise(hump, nonnegative=nonnegative)
        nodes = analyze(between(layers.Activation(hump))).nodes
        [node] = [node for node in nodes if node.kind == "table"]
        assert node.nonnegative() is nonnegative


def centred(x):
    return x - tf.reduce_mean(x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "must have a name"),
        (centred, "compute each value"),
        (tf.reduce_mean, "compute each value"),
    ],
)
def test_what_is_no_elementwise_function_is_refused(function, message):
    with pytest.raises(ValueError, match=message):
        tf_lsq.register_elementwise(function)


def test_tables_have_no_name_of_an_operator():
    assert not set(tabulated.TABULATED) & set(KINDS)
