"""Attention as primitive operators: what it becomes, masks, a trained transformer."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze
from tf_lsq.layers import FixedPoint, MaskedPoint
from tf_lsq.policy import MOST_IN_INT8
from tflite_export import verification
from tflite_export.file import runtime_of
from tflite_export.runtimes import this_machine
from tflite_export.targets import TARGETS, find_violations

layers = keras.layers
BUILTIN = this_machine().with_kernels("builtin")


def attention(tokens=8, *, api=layers, name="attention", **call):
    """A model of one attention with two heads."""
    inputs = api.Input((tokens, 6))
    x = api.Dense(8, name="tokens")(inputs)
    y = api.MultiHeadAttention(2, 4, name=name)(x, x, **call)
    x = api.Flatten()(api.Add()([x, y]))
    return type_of_model(api)(inputs, api.Dense(3)(x))


def type_of_model(api):
    return keras3.Model if api is keras3.layers else keras.Model


def keyword_transformer(api=layers, tokens=16, blocks=2, **call):
    """A small transformer of spectrogram rows, without normalization."""
    inputs = api.Input((tokens, 10))
    x = api.Dense(8, name="patches")(inputs)
    for number in range(blocks):
        y = api.MultiHeadAttention(2, 4, dropout=0.1, name=f"mha_{number}")(
            x, x, **call
        )
        x = api.Add()([x, y])
        y = api.Dense(16, activation="gelu")(x)
        x = api.Add()([x, api.Dense(8)(y)])
    x = api.GlobalAveragePooling1D()(x)
    return type_of_model(api)(inputs, api.Dense(4, name="scores")(x))


def kinds_of(model):
    return [node.kind for node in analyze(model).nodes]


def student_of(model, rng, count=8, **options):
    shape = (count, *model.inputs[0].shape[1:])
    return tiny.student_of(model, rng, shape, **options)


def test_attention_is_projections_products_and_a_softmax():
    nodes = analyze(attention()).nodes
    own = [node for node in nodes if node.origin == "attention"]
    computing = sorted(n.kind for n in own if not n.properties.keeps_codes)
    assert computing == [*["dense"] * 4, *["matmul"] * 2, "softmax"]
    [softmax] = [node for node in own if node.kind == "softmax"]
    assert softmax.options["beta"] == pytest.approx(0.5)


def test_an_attention_that_is_called_twice_is_trained_once(rng):
    inputs = layers.Input((8, 6))
    x = layers.Dense(8)(inputs)
    attend = layers.MultiHeadAttention(2, 4)
    y = attend(x, x)
    model = keras.Model(inputs, layers.Dense(3)(attend(y, x)))
    student, x = student_of(model, rng)
    kernels = [w for w in student.trainable_weights if "kernel:" in w.name]
    assert len(kernels) == 2 + 4
    assert tiny.largest_difference(student(x), model(x)) < 0.2
    verification_of(student, x)


def test_parts_of_attention_have_names_of_their_own(rng, tmp_path):
    inputs = layers.Input((8, 8))
    x = inputs
    for name in ("attention_query", "attention_scores", "attention_softmax"):
        x = layers.Dense(8, name=name)(x)
    attend = layers.MultiHeadAttention(2, 4, name="attention", dropout=0.1)
    x = layers.Dense(8, name="attention_mask")(attend(x, x, use_causal_mask=True))
    student, x = student_of(keras.Model(inputs, attend(x, x)), rng)
    student.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), student(x))
    verification_of(student, x)


def test_a_frozen_attention_stays_frozen(rng):
    model = attention()
    model.get_layer("attention").trainable = False
    student, _ = student_of(model, rng)
    trained = [w.name for w in student.trainable_weights if "attention" in w.name]
    assert not [name for name in trained if "kernel:" in name or "bias" in name]


def verification_of(student, x):
    """Differences of the twin from both sets of kernels, which must be none."""
    built = tiny.built(student)
    for kernels in ("xnnpack", "builtin"):
        codes = verification.probe_codes(built.graph, built.frozen, [x], kernels)
        runtime = this_machine().with_kernels(kernels)
        differences = verification.twin_differences(built.frozen, codes, runtime)
        assert not any(differences.values()), differences
    return built


# --- Probabilities -------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "bits"), [(MOST_IN_INT8, 8), (MOST_IN_INT8 + 1, 16)]
)
def test_probabilities_of_many_tokens_have_16_bits(tokens, bits, rng):
    student, x = student_of(attention(tokens), rng, 2)
    [point] = [la for la in student.layers if isinstance(la, FixedPoint)]
    assert point.num_bits == bits
    assert point.fixed_step == {8: 2.0**-8, 16: 2.0**-15}[bits]
    built = verification_of(student, x)
    [op] = [op for op in built.graph.ops if op.code == "SOFTMAX"]
    assert built.graph.tensors[op.outputs[0]].dtype == f"int{bits}"


@pytest.mark.parametrize("bits", [8, 16])
def test_the_user_chooses_the_bits_of_probabilities(bits, rng):
    inputs = layers.Input((8, 6))
    x = layers.Dense(8)(inputs)
    scores = tf.matmul(x, x, transpose_b=True)
    probabilities = layers.Softmax(name="soft")(scores)
    outputs = layers.Dense(3)(layers.Flatten()(tf.matmul(probabilities, x)))
    model = keras.Model(inputs, outputs)
    student, x = student_of(model, rng, overrides={"soft": bits})
    [point] = [la for la in student.layers if isinstance(la, FixedPoint)]
    assert point.num_bits == bits
    verification_of(student, x)
    with pytest.raises(ValueError, match=r"`soft` \(softmax\) has 8 or 16 bits"):
        tf_lsq.quantize_model(model, overrides={"soft": 12})
    with pytest.raises(ValueError, match=r"target 'tflm'.*`soft`"):
        tf_lsq.quantize_model(model, overrides={"soft": 16}, target="tflm")


@pytest.mark.parametrize("target", ["tflm", "edgetpu", "ethos-u55-128"])
def test_targets_without_wide_probabilities_have_narrow_ones(target, rng):
    student, _ = student_of(attention(100), rng, 2, target=target)
    [point] = [la for la in student.layers if isinstance(la, FixedPoint)]
    assert point.num_bits == 8


def test_a_symmetric_target_has_wide_probabilities(rng):
    student, x = student_of(attention(), rng, target="symmetric")
    graph = verification_of(student, x).graph
    assert not find_violations(graph, TARGETS["symmetric"])


def test_a_symmetric_target_refuses_masks():
    with pytest.raises(ValueError, match=r"zero points of 0.*`attention` \(mask\)"):
        tf_lsq.quantize_model(attention(use_causal_mask=True), target="symmetric")


def test_wide_probabilities_need_a_newer_release(rng):
    texts = [
        runtime_of(tiny.built(student_of(attention(tokens), rng, 2)[0]).graph)
        for tokens in (8, 100)
    ]
    assert texts[0] == "TensorFlow Lite 2.3.0, LiteRT 1.0 or newer"
    assert texts[1].startswith("LiteRT 2.1.4 or newer")


# --- Masks ---------------------------------------------------------------------


def test_masked_scores_get_no_probability(rng):
    """Neither in training nor in the file, however small the learned step is."""
    model = attention(70, use_causal_mask=True)
    student, x = student_of(model, rng, 2)
    [point] = [la for la in student.layers if isinstance(la, MaskedPoint)]
    for factor in (1.0, 1e-3):
        point.step_variables["step"].assign(factor)
        built = tiny.built(student)
        codes = verification.probe_codes(built.graph, built.frozen, [x])
        [softmax] = [node for node in built.frozen.nodes if node.kind == "softmax"]
        probabilities = codes[softmax.name]
        later = np.triu(np.ones((70, 70), bool), 1)
        assert not probabilities[..., later].any()
        assert probabilities[..., ~later].any(axis=-1).all()
        verification_of(student, x)
    keras_sum = probabilities.astype(np.float64).sum(axis=-1) / 2**15
    np.testing.assert_allclose(keras_sum, 1.0, atol=70 / 2**16)


def test_a_masked_point_is_trained_as_it_is_exported(rng):
    student, _ = student_of(attention(use_causal_mask=True), rng)
    [point] = [la for la in student.layers if isinstance(la, MaskedPoint)]
    scores = rng.normal(0, 3, (2, 2, 8, 8)).astype(np.float32)
    found = point(scores, training=False).numpy()
    later = np.triu(np.ones((8, 8), bool), 1)
    step = float(point.step)
    assert set(np.unique(found[..., later] / step)) == {-192.0}
    assert (np.abs(found[..., ~later] / step) <= 64).all()
    with tf.GradientTape() as tape:
        tape.watch(values := tf.constant(scores))
        total = tf.reduce_sum(point(values, training=True) * scores)
    gradient = tape.gradient(total, values).numpy()
    assert not gradient[..., later].any() and gradient[..., ~later].any()


def test_the_step_of_masked_scores_is_kept_large_enough(rng):
    student, _ = student_of(attention(use_causal_mask=True), rng)
    [point] = [la for la in student.layers if isinstance(la, MaskedPoint)]
    smallest = np.log(2.0**16) / (128 * 0.5)
    assert float(point.step) >= smallest * (1 - 1e-6)
    factor = point.step_variables["step"]
    factor.assign(1e-6)
    assert float(point.step) == pytest.approx(smallest)
    factor.assign(factor.constraint(factor))  # What optimizers do.
    assert float(factor * point.step_variables["unit"]) == pytest.approx(smallest)


def test_constant_masks_of_all_shapes(rng):
    masks = {
        "two_axes": np.tri(8) > 0,
        "batch": np.tri(8)[None] > 0,
        "heads": np.tri(8)[None, None] > 0,
        "equal_examples": np.tile(np.tri(8)[None] > 0, (4, 1, 1)),
        "of_keys": np.arange(8)[None, None] < 5,
    }
    for name, mask in masks.items():
        model = attention(attention_mask=tf.constant(mask))
        assert "mask" in kinds_of(model), name
        student, x = student_of(model, rng, 4)
        assert tiny.largest_difference(student(x), model(x)) < 0.05, name
        verification_of(student, x)


def test_a_mask_that_keeps_everything_is_left_out():
    assert "mask" not in kinds_of(attention(attention_mask=np.ones((1, 8, 8), bool)))


def test_a_mask_can_stay_in_float(rng, tmp_path):
    inputs = layers.Input((8, 6))
    x = layers.Dense(8)(inputs)
    scores = tf.matmul(x, x, transpose_b=True)
    x = tf.nn.softmax(scores + np.where(np.tri(8) > 0, 0.0, -1e9)) @ x
    overrides = {r"tf\.__operators__\.add": "float"}
    student, x = student_of(keras.Model(inputs, x), rng, overrides=overrides)
    verification_of(student, x)


def test_a_mask_of_tokens_along_two_axes(rng):
    mask = (np.arange(36).reshape(1, 2, 3, 2, 3) % 5) > 0
    inputs = layers.Input((2, 3, 6))
    x = layers.Dense(8)(inputs)
    y = layers.MultiHeadAttention(2, 4, name="attention")(
        x, x, attention_mask=tf.constant(mask)
    )
    model = keras.Model(inputs, layers.Dense(3)(y))
    student, x = student_of(model, rng, weight_bits=8, activation_bits=8)
    assert tiny.largest_difference(student(x), model(x)) < 0.05
    verification_of(student, x)


@pytest.mark.parametrize("excluded", [-100.0, -1e9, -np.inf])
def test_numbers_that_are_added_to_scores_are_a_mask(excluded, rng):
    windows = np.where(np.eye(2).repeat(4, 0).repeat(4, 1) > 0, 0.0, excluded)
    inputs = layers.Input((8, 6))
    x = layers.Dense(8)(inputs)
    scores = tf.matmul(x, layers.Dense(8)(inputs), transpose_b=True)
    x = tf.nn.softmax(scores + windows.astype(np.float32)) @ x
    model = keras.Model(inputs, layers.Dense(3)(x))
    assert "mask" in kinds_of(model)
    student, x = student_of(model, rng, weight_bits=8, activation_bits=8)
    assert tiny.largest_difference(student(x), model(x)) < 0.05
    verification_of(student, x)


def test_numbers_that_no_softmax_reads_are_summands(rng):
    inputs = layers.Input((4,))
    x = layers.Dense(4)(inputs) + np.float32([[0, -1500, 0, 0]])
    model = keras.Model(inputs, layers.Dense(3)(x))
    assert "mask" not in kinds_of(model)
    student, x = student_of(model, rng, weight_bits=8, activation_bits=8)
    verification_of(student, x)


def test_numbers_that_exclude_too_little_are_summands(rng):
    inputs = layers.Input((4,))
    x = layers.Dense(4)(inputs) + np.float32([[0, -100, 0, 0]])
    x = tf.nn.softmax(0.1 * x)
    assert "mask" not in kinds_of(keras.Model(inputs, layers.Dense(3)(x)))


def test_biases_and_a_mask_in_one_constant_are_refused():
    distances = np.float32(np.abs(np.subtract.outer(np.arange(8), np.arange(8))))
    both = np.where(np.tri(8) > 0, -0.5 * distances, -1e9).astype(np.float32)
    inputs = layers.Input((8, 6))
    scores = tf.matmul(inputs, inputs, transpose_b=True)
    x = tf.nn.softmax(scores + both) @ inputs
    with pytest.raises(ValueError, match="add the biases first"):
        tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(3)(x)))


def test_biases_and_then_a_mask_are_added(rng):
    distances = np.float32(np.abs(np.subtract.outer(np.arange(8), np.arange(8))))
    inputs = layers.Input((8, 6))
    x = layers.Dense(8)(inputs)
    scores = tf.matmul(x, layers.Dense(8)(inputs), transpose_b=True)
    scores = scores - 0.5 * distances + np.where(np.tri(8) > 0, np.float32(0), -1e9)
    x = tf.nn.softmax(scores) @ x
    model = keras.Model(inputs, layers.Dense(3)(x))
    assert "mask" in kinds_of(model)
    student, x = student_of(model, rng, weight_bits=8, activation_bits=8)
    assert tiny.largest_difference(student(x), model(x)) < 0.05
    verification_of(student, x)


def test_numbers_that_keep_nothing_are_no_mask(rng):
    inputs = layers.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(4)(inputs) - 2000.0))
    assert "mask" not in kinds_of(model)


@pytest.mark.parametrize("axes", ["b", "d", "bd"])
def test_biases_of_products_are_added_along_their_axes(axes, rng):
    inputs = layers.Input((4, 6))  # As many tokens as channels.
    dense = layers.EinsumDense(
        "abc,cd->abd", (4, 4), bias_axes=axes, bias_initializer="random_normal"
    )
    model = keras.Model(inputs, dense(inputs))
    dense.bias.assign(10.0 * dense.bias)
    student, x = student_of(model, rng, weight_bits=8, activation_bits=8)
    assert tiny.largest_difference(student(x), model(x)) < 0.05
    verification_of(student, x)


def padded(api=layers):
    """Attention to the ids that are not 0."""
    ids = api.Input((8,), dtype="int32")
    x = api.Embedding(20, 8, mask_zero=True)(ids)
    y = api.MultiHeadAttention(2, 4, name="attention")(x, x)
    return type_of_model(api)(ids, api.Dense(3)(y))


def with_mask_input(api=layers):
    """Attention with a mask that is an input."""
    inputs, mask = api.Input((8, 6)), api.Input((8, 8), dtype="bool")
    y = api.MultiHeadAttention(2, 4, name="attention")(
        inputs, inputs, attention_mask=mask
    )
    return type_of_model(api)([inputs, mask], api.Dense(3)(y))


@pytest.mark.parametrize("api", [layers, keras3.layers], ids=["keras2", "keras3"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (padded, "Keras mask of its input.*leave out `mask_zero=True`"),
        (with_mask_input, "a mask that the model reads.*give a constant mask"),
    ],
)
def test_padding_masks_are_refused_by_name(make, message, api):
    with pytest.raises(ValueError, match=rf"`attention` \(MultiHead.*{message}"):
        tf_lsq.quantize_model(make(api))


REFUSED = {
    "a mask must keep a score of every row": lambda x: layers.MultiHeadAttention(2, 4)(
        x, x, attention_mask=np.tri(8, k=-1)[None]
    ),
    "a mask must have the shape of the scores": lambda x: tf.nn.softmax(
        tf.matmul(*[tf.reshape(x, [-1, 1, 8, 6])] * 2, transpose_b=True)
        + np.where(np.stack([np.tri(8), np.tri(8).T])[None] > 0, 0.0, -1e9)
    ),
    "must be the same for every example": lambda x: layers.MultiHeadAttention(2, 4)(
        x, x, attention_mask=np.stack([np.tri(8), np.tri(8).T])
    ),
    "attention_axes must be the last axis": lambda x: layers.MultiHeadAttention(
        2, 4, attention_axes=1
    )(*[tf.reshape(x, [-1, 2, 4, 6])] * 2),
    r"or None, received \(2,\) for 3 axes": lambda x: layers.MultiHeadAttention(
        2, 4, attention_axes=-2
    )(x, x),
    "score_mode must be 'dot'": lambda x: layers.Attention(score_mode="concat")([x, x]),
    "every axis of the kernel must be summed or new": lambda x: layers.EinsumDense(
        "abc,bcd->abd", (8, 5)
    )(x),
    "kernel_constraint must be None": lambda x: layers.MultiHeadAttention(
        2, 4, kernel_constraint="max_norm"
    )(x, x),
    "kernel_regularizer must be L1 or L2": lambda x: layers.EinsumDense(
        "abc,cd->abd", (8, 5), kernel_regularizer="orthogonal_regularizer"
    )(x),
    "bias_regularizer must be None": lambda x: layers.EinsumDense(
        "abc,cd->abd", (8, 5), bias_axes="bd", bias_regularizer="l2"
    )(x),
    "the batch must be the first axis": lambda x: tf.reshape(
        tf.einsum("bi,bi->", *[tf.reshape(x, [-1, 48])] * 2), [-1, 1]
    ),
    "normalize must be False": lambda x: layers.Dot(2, normalize=True)([x, x]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_calls_without_an_integer_form_are_named(message):
    inputs = layers.Input((8, 6))
    outputs = REFUSED[message](layers.Dense(6)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(outputs)))
    with pytest.raises(ValueError, match=message):
        tf_lsq.quantize_model(model)


def test_attention_in_float_is_a_part_of_the_file(rng, tmp_path):
    model = attention(use_causal_mask=True)
    student, x = student_of(model, rng, overrides={"attention": "float"})
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path)
    assert report.float_layers and report.operators["BATCH_MATMUL"] == 2
    tflite_export.verify_tflite(path, student, x, verbose=False)


# --- A keyword transformer -------------------------------------------------------


@pytest.mark.parametrize("api", [layers, keras3.layers], ids=["keras2", "keras3"])
@pytest.mark.parametrize("causal", [False, True])
def test_a_transformer_is_trained_saved_and_exported(api, causal, rng, tmp_path):
    model = keyword_transformer(api, use_causal_mask=causal)
    student = tf_lsq.quantize_model(model, weight_bits=4, activation_bits=8)
    x = rng.normal(0, 1, (32, 16, 10)).astype(np.float32)
    y = rng.integers(0, 4, 32)
    own = keras3 if api is keras3.layers else keras
    loss = own.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile("adam", loss)
    tf_lsq.calibrate(student, x)
    before = [np.asarray(w) + 0 for w in student.trainable_weights]
    history = student.fit(x, y, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]
    after = [np.asarray(w) for w in student.trainable_weights]
    moved = zip(student.trainable_weights, before, after, strict=True)
    still = [w.name for w, one, other in moved if np.array_equal(one, other)]
    # Steps of masked scores are kept above the smallest.
    names = [name for name in still if "mask" not in name]
    assert not [name for name in names if "step" in name or "kernel" in name]
    saved = tmp_path / "student.keras"
    student.save(saved)
    loaded = own.models.load_model(saved)
    np.testing.assert_array_equal(*(np.asarray(one(x)) for one in (loaded, student)))
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(loaded, path, data=x, verbose=False)
    assert not report.float_layers
    assert not any(p.twin_differences for p in report.verification.points)
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0


def test_a_transformer_is_exported_for_microcontrollers(rng):
    student, x = student_of(keyword_transformer(), rng, target="tflm")
    built = verification_of(student, x)
    assert not find_violations(built.graph, TARGETS["tflm"])


def test_npus_run_products_of_tensors_where_they_have_them(rng):
    for target, on_npu in (("edgetpu", False), ("ethos-u55-128", True)):
        student, _ = student_of(attention(), rng, target=target)
        found = find_violations(tiny.built(student).graph, TARGETS[target])
        named = {violation.code for violation in found}
        assert ("BATCH_MATMUL" not in named) == on_npu
        assert not [v for v in found if v.rule.refused]
