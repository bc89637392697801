"""Products of two tensors: exact under both sets of kernels, in int8 and int16."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import analyze
from tflite_export import verification
from tflite_export.file import runtime_of
from tflite_export.runtimes import this_machine

layers = keras.layers
BUILTIN = this_machine().with_kernels("builtin")


def of_two(*cases):
    """A model with an output for each function of two tensors.

    A case is the function, and the shapes of its tensors without the batch.
    """
    inputs = layers.Input((8, 4))
    outputs = []
    for function, *shapes in cases:
        sides = [layers.Dense(int(np.prod(shape)) // 8)(inputs) for shape in shapes]
        pairs = zip(shapes, sides, strict=True)
        x, y = (layers.Reshape(shape)(side) for shape, side in pairs)
        outputs.append(layers.Dense(3)(layers.Flatten()(function(x, y))))
    return keras.Model(inputs, outputs)


def of_sum(function):
    """A model with a function of a sum of 16 bits, and of a tensor of 8 bits."""
    inputs = layers.Input((8, 4))
    x, y = (layers.Dense(6)(inputs) for _ in range(2))
    outputs = function(layers.Add(name="sum")([x, y]), y)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(outputs)))


MATRIX = (8, 6)
CASES = {
    "transposed_first": (
        lambda x, y: tf.matmul(x, y, transpose_a=True),
        MATRIX,
        MATRIX,
    ),
    "transposed_second": (lambda x, y: tf.matmul(x, y, adjoint_b=True), MATRIX, MATRIX),
    "transposed_both": (
        lambda x, y: tf.matmul(x, y, transpose_a=True, transpose_b=True),
        (6, 8),
        (4, 6),
    ),
    "operator": (lambda x, y: x @ y, (2, 4, 6), (2, 6, 4)),
    "broadcast": (lambda x, y: x @ y, (2, 4, 6), (1, 6, 8)),
    "broadcast_first": (lambda x, y: x @ y, (1, 8, 6), (2, 6, 4)),
    "five_axes": (lambda x, y: x @ y, (2, 2, 4, 3), (2, 2, 3, 4)),
    "scores": (
        lambda x, y: tf.einsum("bqhd,bkhd->bhqk", x, y),
        (4, 2, 6),
        (8, 2, 6),
    ),
    "exchanged": (
        lambda x, y: tf.einsum("bkhd,bqhd->bhqk", x, y),
        (4, 2, 6),
        (8, 2, 6),
    ),
    "weighted": (
        lambda x, y: tf.einsum("bhqk,bkhd->bqhd", x, y),
        (2, 4, 6),
        (6, 2, 4),
    ),
    "outer": (lambda x, y: tf.einsum("bi,bj->bij", x, y), (48,), (8,)),
    "ellipsis": (
        lambda x, y: tf.einsum("...id,...jd->...ji", x, y),
        (2, 4, 6),
        (2, 4, 6),
    ),
    "sum_of_two_axes": (
        lambda x, y: tf.einsum("bihd,bjdh->bij", x, y),
        (4, 2, 6),
        (8, 6, 2),
    ),
    "seven_axes": (
        lambda x, y: tf.einsum("bxyzid,bxyzjd->bxyzij", x, y),
        (2, 2, 2, 2, 3),
        (2, 2, 2, 2, 3),
    ),
    "dot_of_vectors": (lambda x, y: layers.Dot(1)([x, y]), (16,), (16,)),
    "dot_of_matrices": (lambda x, y: layers.Dot((2, 1))([x, y]), (4, 6), (6, 4)),
    "dot_of_both": (lambda x, y: layers.Dot(1)([x, y]), (8, 6), (8,)),
    "dot_of_images": (lambda x, y: layers.Dot((3, 1))([x, y]), (2, 4, 6), (6, 4)),
    "batch_dot": (
        lambda x, y: keras.backend.batch_dot(x, y, axes=(2, 2)),
        MATRIX,
        MATRIX,
    ),
    "with_itself": (lambda x, y: x @ tf.transpose(x, [0, 2, 1]), MATRIX, MATRIX),
    "positive": (
        lambda x, y: tf.matmul(tf.nn.relu(x), tf.nn.relu(y), transpose_b=True),
        MATRIX,
        MATRIX,
    ),
    "positive_read_twice": (
        lambda x, y: (
            tf.matmul(x, tf.nn.relu(y), transpose_b=True) * tf.nn.relu(y)[:, :, :1]
        ),
        MATRIX,
        MATRIX,
    ),
}
BRANCHES = 8  # How many of these functions a model has.
IN_INT16 = {
    "first": lambda s, y: tf.matmul(s, y, transpose_b=True),
    "second": lambda s, y: tf.matmul(y, s, transpose_b=True),
    "both": lambda s, y: tf.matmul(s, s, transpose_b=True),
    "output": lambda s, y: layers.Concatenate(name="wide")(
        [tf.matmul(y, y, transpose_b=True), s]
    ),
}


def exact(model, rng, path, bits=8, **options):
    """Exports a student; returns its graph after checking every code."""
    student = tf_lsq.quantize_model(
        tiny.randomize(model, rng), weight_bits=bits, activation_bits=bits, **options
    )
    x = rng.normal(0, 1, (8, *model.input_shape[1:])).astype(np.float32)
    tf_lsq.calibrate(student, x)
    found, expected = (one(x, training=False) for one in (student, model))
    assert tiny.largest_difference(found, expected) < 0.06
    assert not tflite_export.export_model(student, path).float_layers
    verified = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not [p.name for p in verified.points if p.twin_differences]
    built = tiny.built(student)
    codes = verification.probe_codes(built.graph, built.frozen, [x], "builtin")
    differences = verification.twin_differences(built.frozen, codes, BUILTIN)
    assert not any(differences.values()), differences
    return built.graph


def products_of(graph):
    """Types of the tensors of every product; the second has a zero point of 0."""
    ops = [op for op in graph.ops if op.code == "BATCH_MATMUL"]
    tensors = [[graph.tensors[n] for n in (*op.inputs, *op.outputs)] for op in ops]
    assert not any(row[1].quantization.zero_point for row in tensors)
    return [tuple(tensor.dtype for tensor in row) for row in tensors]


@pytest.mark.parametrize("first", range(0, len(CASES), BRANCHES))
def test_products_of_two_tensors_are_exact(first, rng, tmp_path):
    cases = list(CASES.values())[first:][:BRANCHES]
    graph = exact(of_two(*cases), rng, tmp_path / "model.tflite")
    assert products_of(graph) == [("int8", "int8", "int8")] * len(cases)


@pytest.mark.filterwarnings("ignore:These tensors use less")
@pytest.mark.parametrize(
    ("case", "types"),
    [
        ("first", [("int16", "int8", "int16")]),
        ("second", [("int16", "int16", "int16")]),
        ("both", [("int16", "int16", "int16")]),
        ("output", [("int16", "int8", "int16")]),
    ],
)
def test_products_in_int16_are_exact(case, types, rng, tmp_path):
    overrides = {"sum": 16} | ({"wide": 16} if case == "output" else {})
    model = of_sum(IN_INT16[case])
    graph = exact(model, rng, tmp_path / "model.tflite", overrides=overrides)
    assert products_of(graph) == types


def test_the_second_factor_of_a_product_of_int16_is_int16_in_micro(rng):
    model = of_sum(IN_INT16["first"])
    student = tf_lsq.quantize_model(model, overrides={"sum": 16}, target="tflm")
    tf_lsq.calibrate(student, rng.normal(0, 1, (4, 8, 4)).astype(np.float32))
    assert products_of(tiny.built(student).graph) == [("int16", "int16", "int16")]


def test_a_product_of_two_types_needs_a_release_that_has_it(rng):
    model = of_sum(IN_INT16["first"])
    student, _ = tiny.student_of(model, rng, (4, 8, 4), overrides={"sum": 16})
    assert "LiteRT 2.1.4 or newer" in runtime_of(tiny.built(student).graph)


def test_products_are_trained_and_saved(rng, tmp_path):
    model = of_two(CASES["scores"])
    student, x = tiny.student_of(model, rng, (8, 8, 4), weight_bits=4)
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(student(x, training=True) ** 2)
    gradients = tape.gradient(loss, student.trainable_weights)
    assert all(g is not None and np.isfinite(g).all() for g in gradients)
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded(x), student(x))


@pytest.mark.parametrize(
    ("factor", "beta"), [(0.25, 0.25), (-0.25, 1.0)], ids=["positive", "negative"]
)
def test_a_positive_factor_becomes_part_of_a_softmax(factor, beta):
    inputs = layers.Input((8,))
    scores = layers.Dense(6)(inputs)
    model = keras.Model(inputs, layers.Dense(3)(tf.nn.softmax(scores * factor + 1.0)))
    [softmax] = [node for node in analyze(model).nodes if node.kind == "softmax"]
    assert softmax.options.get("beta", 1.0) == beta
