"""Normalizations: both integer forms compute what was trained, in all variants."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze
from tf_lsq.graph.norm_layers import RMSNormalization
from tf_lsq.layers import ChannelScaling
from tf_lsq.training import quantization_points
from tflite_export.file import from_bytes
from tflite_export.runtimes import this_machine
from tflite_export.verification import probe_codes, twin_differences

layers = keras.layers
BUILTIN = this_machine().with_kernels("builtin")
FORMS = ("int16", "int8")
LN, GN = layers.LayerNormalization, layers.GroupNormalization


def on_images(norm):
    """A model with a normalization of images, whose constants kernels take."""
    inputs = layers.Input((6, 6, 3))
    x = norm(layers.Conv2D(12, 3, padding="same", name="first")(inputs))
    x = layers.Conv2D(6, 1, activation="relu", name="reader")(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(x)))


def on_sum(norm):
    """A model with a normalization that a sum reads, so that it keeps its constants."""
    inputs = layers.Input((6, 6, 3))
    x = layers.Conv2D(12, 3, padding="same", name="first")(inputs)
    x = layers.Add(name="sum")([x, norm(x)])
    x = layers.Conv2D(6, 1, activation="relu", name="reader")(x)
    return keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(x)))


def on_vectors(norm):
    inputs = layers.Input((16,))
    x = norm(layers.Dense(24, name="first")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="last")(x))


def on_volumes(norm):
    def reshaped(x):
        x = norm(layers.Reshape((2, 3, 6, 12))(x))
        return layers.Reshape((6, 6, 12))(x)

    return on_images(reshaped)


def twice(x, axis=-1):
    norm = LN(axis, name="n")
    return norm(layers.Conv2D(12, 1, name="between")(norm(x)))


CASES = {
    "layer": lambda: on_images(LN(name="n")),
    "layer_of_sum": lambda: on_sum(LN(name="n")),
    "layer_of_vectors": lambda: on_vectors(LN(epsilon=1e-6, name="n")),
    "layer_of_volumes": lambda: on_volumes(LN(name="n")),
    "layer_over_image": lambda: on_images(LN(axis=[1, 2, 3], name="n")),
    "layer_over_height": lambda: on_images(LN(axis=1, name="n")),
    "layer_plain": lambda: on_sum(LN(center=False, scale=False, name="n")),
    "layer_twice": lambda: on_images(twice),
    "layer_over_image_twice": lambda: on_images(lambda x: twice(x, [1, 2, 3])),
    "group": lambda: on_images(GN(3, name="n")),
    "group_of_sum": lambda: on_sum(GN(3, center=False, name="n")),
    "group_of_one": lambda: on_images(GN(1, name="n")),
    "group_of_channels": lambda: on_sum(GN(-1, name="n")),
    "group_of_vectors": lambda: on_vectors(GN(4, name="n")),
    "group_of_volumes": lambda: on_volumes(GN(4, name="n")),
    "rms": lambda: on_images(RMSNormalization(name="n")),
    "rms_of_sum": lambda: on_sum(RMSNormalization(name="n")),
    "rms_of_vectors": lambda: on_vectors(RMSNormalization(name="n")),
    "unit": lambda: on_images(layers.UnitNormalization(name="n")),
    "l2": lambda: on_sum(lambda x: tf.math.l2_normalize(x, -1)),
}
# Those whose sums are not of the last axes.
OTHER_AXES = {"layer_over_height", "group_of_channels"} | {
    f"group{of}" for of in ("", "_of_sum", "_of_vectors", "_of_volumes")
}


def parameters():
    """Both forms of every case at 8 bits, one of them at 4 or 2; others are slow."""
    for number, case in enumerate(CASES):
        for form in FORMS:
            for bits in (8, 4, 2):
                low = form == FORMS[number // 2 % 2] and bits == (4, 2)[number % 2]
                marks = () if bits == 8 or low else (pytest.mark.slow,)
                yield pytest.param(case, form, bits, marks=marks)


def randomized(model, rng):
    """A model with random weights, gamma and beta included."""
    tiny.randomize(model, rng)
    for layer in model.layers:
        if isinstance(layer, (LN, GN, RMSNormalization)):
            for name, low in (("gamma", 0.5), ("beta", -0.5)):
                variable = getattr(layer, name, None)
                if variable is not None:
                    variable.assign(rng.uniform(low, low + 1, variable.shape))
    return model


def quantized(model, rng, **options):
    """A model's student with first steps, and the examples it has them from."""
    model = randomized(model, rng)
    student = tf_lsq.quantize_model(model, **options)
    x = rng.normal(0, 1, (64, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    return model, student, x


def check_file(student, x, path):
    """Exports a student; returns what was verified, and the file."""
    report = tflite_export.export_model(student, path, verbose=False)
    assert not report.float_layers
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    assert {
        p.name: p.twin_differences for p in found.points if p.twin_differences
    } == {}
    built = tiny.built(student)
    assert not [t for t in built.graph.tensors.values() if t.dtype == "float32"]
    codes = probe_codes(built.graph, built.frozen, [x], kernels="builtin")
    different = twin_differences(built.frozen, codes, BUILTIN)
    assert not any(different.values()), different
    return found, built


@pytest.mark.filterwarnings("ignore:These tensors use less")
@pytest.mark.parametrize(("case", "form", "bits"), list(parameters()))
def test_files_compute_the_trained_integers(case, form, bits, rng, tmp_path):
    model, student, x = quantized(
        CASES[case](), rng, weight_bits=bits, activation_bits=bits, norm_form=form
    )
    if bits == 8:
        found, expected = (one(x, training=False) for one in (student, model))
        assert tiny.largest_difference(found, expected) < 0.05
    found, built = check_file(student, x, tmp_path / "model.tflite")
    in_int32 = {op.code for op in built.graph.ops} & {"BATCH_MATMUL"}
    assert bool(in_int32) == (form == "int8" and case not in OTHER_AXES)


def codes_of(student):
    return [op.code for op in tiny.built(student).graph.ops]


def test_the_operators_of_both_forms(rng):
    forms = {}
    for form in FORMS:
        _, student, _ = quantized(on_vectors(LN()), rng, norm_form=form)
        forms[form] = codes_of(student)[1:-1]
    assert forms["int16"] == (
        "CAST SUM MUL SUB MUL SUM MINIMUM GATHER MUL QUANTIZE".split()
    )
    assert (
        forms["int8"]
        == "MEAN SUB RESHAPE BATCH_MATMUL QUANTIZE RESHAPE MINIMUM GATHER MUL".split()
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_stream_of_16_bits_is_read_as_it_is(form, rng, tmp_path):
    inputs = layers.Input((8, 8))
    x = layers.Dense(16, name="first")(inputs)
    x = layers.Add(name="sum")([x, layers.Dense(16)(x)])
    x = layers.Dense(6, name="reader")(LN(name="n")(x))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    _, student, x = quantized(model, rng, overrides={"sum": 16}, norm_form=form)
    _, built = check_file(student, x, tmp_path / "model.tflite")
    readers = [op for op in built.graph.ops if "sum" in op.inputs]
    assert {op.code for op in readers} == {"SUM", "SUB"}


def test_form_int16_is_within_a_code_of_float(rng):
    """All operators together, against the layer in float on the file's own inputs."""
    model, student, x = quantized(
        on_images(LN(name="n")),
        rng,
        weight_bits=8,
        activation_bits=8,
        norm_form="int16",
    )
    built = tiny.built(student)
    codes = probe_codes(built.graph, built.frozen, [x])
    nodes = built.frozen.by_name()
    values = {
        name: (codes[name].astype(np.float64) - nodes[name].grid.zero_point)
        * nodes[name].grid.scale
        for name in ("first", "quantize_n")
    }
    centered = values["first"] - values["first"].mean(-1, keepdims=True)
    variance = np.square(centered).mean(-1, keepdims=True)
    exact = centered / np.sqrt(variance + model.get_layer("n").epsilon)
    grid = nodes["quantize_n"].grid
    expected = np.clip(np.rint(exact / grid.scale) + grid.zero_point, -128, 127)
    off = np.abs(codes["quantize_n"] - expected)
    assert off.max() <= 1 and np.mean(off) < 0.01


@pytest.mark.parametrize(("form", "bits"), [("int16", 14), ("int8", 12)])
def test_sums_beyond_the_table_end_at_its_last_entry(form, bits, rng):
    """Indices outside of the table would be an error at run time."""
    _, student, x = quantized(on_vectors(LN()), rng, norm_form=form)
    built = tiny.built(student)
    codes = probe_codes(built.graph, built.frozen, [np.concatenate([100 * x, 0 * x])])
    [places] = [n for n in codes if "quantize" in n and n.endswith("squares")]
    assert codes[places].max() == 2**bits - 1 and codes[places].min() >= 0
    assert not any(twin_differences(built.frozen, codes, this_machine()).values())


def test_a_table_has_the_reciprocal_root_of_every_sum(rng):
    _, student, _ = quantized(on_vectors(LN(epsilon=0.01, name="n")), rng)
    graph = tiny.built(student).graph
    [gather] = [op for op in graph.ops if op.code == "GATHER"]
    table, places = (graph.tensors[name] for name in gather.inputs)
    assert table.data.shape == (4096,) and places.dtype == "int16"
    sums = np.arange(4096) * np.float64(places.quantization.scale[0])
    roots = 1 / np.sqrt(sums / 24 + 0.01)
    grid = table.quantization
    expected = np.rint(roots / np.float64(grid.scale[0])) + grid.zero_point
    np.testing.assert_array_equal(table.data, np.clip(expected, -128, 127))


# --- Gamma and beta ------------------------------------------------------------------


def norm_and(read):
    """A model with something that reads a normalization."""
    inputs = layers.Input((6, 6, 3))
    x = layers.Conv2D(12, 3, name="first")(inputs)
    return keras.Model(inputs, layers.Flatten()(read(LN(name="n")(x))))


READERS = {
    "dense": (True, lambda x: layers.Dense(4)(x)),
    "two": (
        True,
        lambda x: layers.Add()([layers.Dense(4)(x), layers.Conv2D(4, 1)(x)]),
    ),
    "without_bias": (True, lambda x: layers.Conv2D(4, 3, use_bias=False)(x)),
    "batch_norm": (
        True,
        lambda x: layers.BatchNormalization()(layers.Conv2D(4, 3, use_bias=False)(x)),
    ),
    "padded_1x1": (True, lambda x: layers.Conv2D(4, 1, padding="same")(x)),
    "padded": (False, lambda x: layers.Conv2D(4, 3, padding="same")(x)),
    "depthwise": (False, lambda x: layers.DepthwiseConv2D(3)(x)),
    "sum": (False, lambda x: layers.Add()([layers.Dense(12)(x), x])),
    "relu": (False, lambda x: layers.Dense(4)(layers.ReLU()(x))),
    "shared": (False, lambda x: (lambda d: d(d(x)))(layers.Dense(12))),
    "frozen": (False, lambda x: layers.Dense(4, trainable=False)(x)),
    "limited": (False, lambda x: layers.Dense(4, bias_constraint="non_neg")(x)),
}


@pytest.mark.parametrize("reader", READERS)
def test_kernels_take_gamma_and_beta_where_all_readers_can(reader, rng, tmp_path):
    folds, read = READERS[reader]
    model = norm_and(read)
    model, student, x = quantized(model, rng, weight_bits=8, activation_bits=8)
    assert any(isinstance(layer, ChannelScaling) for layer in student.layers) != folds
    found, expected = (one(x, training=False) for one in (student, model))
    assert tiny.largest_difference(found, expected) < 0.05
    check_file(student, x, tmp_path / "model.tflite")


def test_losses_read_a_normalization_with_its_gamma_and_beta(rng):
    inputs = layers.Input((16,))
    x = LN(name="n")(layers.Dense(12)(inputs))
    model = keras.Model(inputs, layers.Dense(4)(x))
    model.add_loss(tf.reduce_mean(tf.square(x)))
    model, student, x = quantized(model, rng, weight_bits=8, activation_bits=8)
    model(x), student(x)
    [found], [expected] = student.losses, model.losses
    assert float(found) == pytest.approx(float(expected), rel=0.02)


@pytest.mark.parametrize("name", ["gamma_regularizer", "beta_constraint"])
def test_losses_and_limits_of_gamma_and_beta_are_refused(name):
    given = {"gamma_regularizer": "l2", "beta_constraint": "non_neg"}
    for norm in (LN, GN):
        options = {name: given[name]} | ({"groups": 3} if norm is GN else {})
        with pytest.raises(ValueError, match=f"{name} must be None"):
            tf_lsq.quantize_model(on_images(norm(**options, name="n")))


def test_the_users_model_keeps_its_gamma_and_beta(rng):
    model = randomized(norm_and(layers.Dense(4)), rng)
    before = [weight.copy() for weight in model.get_weights()]
    tf_lsq.quantize_model(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


# --- Other tools ---------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["layer", "layer_of_sum", "group", "rms", "l2"])
def test_students_are_compared_with_their_float_models(case, form, rng):
    model, student, x = quantized(
        CASES[case](), rng, weight_bits=8, activation_bits=8, norm_form=form
    )
    compared = tf_lsq.compare(model, student, x)
    rows = {row.kind: row for row in compared.layers}
    assert rows["normalize"].own_sqnr_db > 30
    assert len(compared.layers) == len(analyze(model).nodes)


def test_a_student_of_another_normalization_is_refused(rng):
    _, student, x = quantized(CASES["layer"](), rng)
    with pytest.raises(ValueError, match="must have been quantized from"):
        tf_lsq.compare(CASES["rms"](), student, x)


def test_a_normalization_can_stay_in_float(rng, tmp_path):
    _, student, x = quantized(on_sum(LN(name="n")), rng, overrides={"n": "float"})
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert list(report.float_layers) == ["n"]
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_an_override_is_the_bits_of_the_output(rng):
    _, student, _ = quantized(on_sum(LN(name="n")), rng, overrides={"n": 16})
    bits = {point.name: point.num_bits for point in quantization_points(student)}
    assert bits["quantize_n"] == 16 and bits["quantize_n_centered"] == 8


@pytest.mark.parametrize("form", FORMS)
def test_mixed_precision_computes_normalizations_in_float32(form, rng, tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = on_images(LN(name="n"))
        _, student, x = quantized(
            model, rng, weight_bits=8, activation_bits=8, norm_form=form
        )
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert student.get_layer("n_centered").compute_dtype == "float32"
    tflite_export.export_model(student, tmp_path / "m.tflite", data=x, verbose=False)


# --- Training ------------------------------------------------------------------------


def block(x, dim, number):
    """A ConvNeXt block with normalization, GELU, layer scale and a residual sum."""
    y = layers.DepthwiseConv2D(3, padding="same", name=f"depthwise_{number}")(x)
    y = LN(epsilon=1e-6, name=f"norm_{number}")(y)
    y = layers.Dense(4 * dim, name=f"expand_{number}")(y)
    y = layers.Activation("gelu", name=f"gelu_{number}")(y)
    y = layers.Dense(dim, name=f"project_{number}")(y)
    return layers.Add(name=f"add_{number}")([x, y])


def small_convnext():
    """A patch stem, two blocks, a downsampling, and a head, each with a norm."""
    inputs = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 2, 2, name="stem")(inputs)
    x = LN(epsilon=1e-6, name="stem_norm")(x)
    x = block(x, 8, 1)
    x = LN(epsilon=1e-6, name="down_norm")(x)
    x = block(layers.Conv2D(16, 2, 2, name="down")(x), 16, 2)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = LN(epsilon=1e-6, name="head_norm")(x)
    return keras.Model(inputs, layers.Dense(4, name="scores")(x))


@pytest.mark.parametrize("form", FORMS)
def test_a_network_like_convnext_is_trained_saved_and_exported(form, rng, tmp_path):
    student = tf_lsq.quantize_model(
        small_convnext(), weight_bits=4, activation_bits=8, norm_form=form
    )
    y = np.arange(64) % 4
    x = rng.normal(size=(64, 16, 16, 3)) * 0.3 + y[:, None, None, None] / 2
    x = x.astype(np.float32)
    tf_lsq.calibrate(student, x)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(y, student(x, training=True))
    for variable, gradient in zip(
        student.trainable_variables,
        tape.gradient(value, student.trainable_variables),
        strict=True,
    ):
        assert np.isfinite(gradient).all(), variable.name
    before = {p.name: float(p.step) for p in quantization_points(student)}
    student.compile(keras.optimizers.SGD(0.05, momentum=0.9), loss)
    history = student.fit(x, y, batch_size=16, epochs=4, verbose=0).history["loss"]
    assert history[-1] < history[0]
    after = {p.name: float(p.step) for p in quantization_points(student)}
    assert not [name for name, step in before.items() if step == after[name]]
    saved = tmp_path / "student.keras"
    student.save(saved)
    loaded = keras.models.load_model(saved)
    np.testing.assert_array_equal(loaded(x), student(x))
    path = tmp_path / "model.tflite"
    tflite_export.export_model(loaded, path, verbose=False)
    found = tflite_export.verify_tflite(path, loaded, x, verbose=False)
    assert not any(point.twin_differences for point in found.points)
    types = {tensor.dtype for tensor in from_bytes(path.read_bytes()).tensors.values()}
    assert types == {"int8", "int16", "int32"} | (
        {"int64"} if form == "int16" else set()
    )
