"""How kernels for int16 round, compared with whole numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tflite_export.file import (
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
)
from tflite_export.runtimes import Runner, arithmetic, fixed_point, this_machine

INT48 = st.integers(-(2**47), 2**47 - 1)
RATIO = st.floats(1e-9, 100.0)
SCALES = np.float32([3.1e-4, 1.7e-4, 4.4e-4])


def half_up(value):
    """A fraction rounded half up."""
    return (value + Fraction(1, 2)).__floor__()


@settings(max_examples=300, deadline=None)
@given(acc=INT48, ratio=RATIO)
def test_wide_accumulators_are_rounded_once(acc, ratio):
    multiplier, exponent = (int(part) for part in fixed_point(ratio))
    exact = Fraction(acc) * multiplier * Fraction(2) ** (exponent - 31)
    found = arithmetic.round_wide(tf.constant(acc, tf.int64), multiplier, exponent)
    assert int(found) == half_up(exact)
    if abs(acc) < 2**31 and ratio < 1:
        once = arithmetic.round_once(tf.constant(acc, tf.int64), multiplier, exponent)
        assert int(once) == int(found)


@settings(max_examples=300, deadline=None)
@given(acc=INT48, ratio=st.floats(1e-9, 1.0))
def test_a_ratio_of_16_bits_moves_int16_codes_by_one_at_most(acc, ratio):
    multiplier, exponent = (int(part) for part in fixed_point(ratio))
    found = arithmetic.round_reduced(tf.constant(acc, tf.int64), multiplier, exponent)
    exact = acc * ratio
    if abs(exact) < 2**15 - 1:
        assert abs(int(found) - half_up(Fraction(exact))) <= 1


def sums(code, shape, other, batch, rng):
    """Codes of two tensors, and what LiteRT computes of them."""
    tensors = {
        name: TFLiteTensor(
            name,
            (1, *sizes),
            "int16",
            TensorQuantization(SCALES[number : number + 1], 0),
            dynamic_batch=True,
        )
        for number, (name, sizes) in enumerate(
            {"first": shape, "second": other, "sum": shape}.items()
        )
    }
    options = {"pot_scale_int16": False, "fused_activation_function": "NONE"}
    op = TFLiteOp(code, ["first", "second"], ["sum"], options)
    ends = {"first": "first", "second": "second"}
    graph = TFLiteGraph(tensors, [op], ends, {"sum": "sum"})
    codes = {
        "first": rng.integers(-(2**15), 2**15, (batch, *shape)).astype(np.int16),
        "second": rng.integers(-(2**15), 2**15, (batch, *other)).astype(np.int16),
    }
    return codes, Runner(graph).run(codes)["sum"]


@pytest.mark.parametrize("code", ["ADD", "SUB"])
@pytest.mark.parametrize("shape", [(40,), (7, 9), (8, 16)])
@pytest.mark.parametrize("broadcast", [False, True])
@pytest.mark.parametrize("batch", [1, 100])
def test_sums_are_what_litert_computes(code, shape, broadcast, batch, rng):
    other = (1,) * len(shape) if broadcast else shape
    codes, found = sums(code, shape, other, batch, rng)
    first, second = (tf.constant(codes[n].astype(np.int64)) for n in codes)
    sign = 1 if code == "ADD" else -1
    vector = this_machine().int16_sum_vector if code == "ADD" else 0
    total = arithmetic.int16_sum(first, second, SCALES, sign, vector=vector)
    expected = np.clip(total, -(2**15), 2**15 - 1)
    assert np.array_equal(found, expected)


def test_only_whole_vectors_of_equal_shapes_are_folded(rng):
    first, second = (tf.constant(rng.integers(-9999, 9999, (50, 40))) for _ in "ab")
    parts = {
        vector: arithmetic.int16_sum(first, second, SCALES, vector=vector).numpy()
        for vector in (0, 16)
    }
    different = parts[0] != parts[16]
    assert 0 < different.mean() < 0.01
    one = arithmetic.int16_sum(first, second, SCALES, vector=16, one_at_a_time=True)
    assert not (one.numpy() != parts[0])[:, 32:].any()
    alone = [
        arithmetic.int16_sum(a[None], b[None], SCALES, vector=16)
        for a, b in zip(first, second, strict=True)
    ]
    assert np.array_equal(one, np.concatenate(alone))


def reduced(codes, scales):
    """What LiteRT computes as the sum of the last axis."""
    tensors = {
        name: TFLiteTensor(
            name,
            (1, size),
            "int16",
            TensorQuantization(scales[number : number + 1], 0),
            dynamic_batch=True,
        )
        for number, (name, size) in enumerate({"x": codes.shape[1], "sum": 1}.items())
    }
    axes = np.array([1], np.int32)
    tensors["axes"] = TFLiteTensor("axes", axes.shape, "int32", data=axes)
    op = TFLiteOp("SUM", ["x", "axes"], ["sum"], {"keep_dims": True})
    graph = TFLiteGraph(tensors, [op], {"x": "x"}, {"sum": "sum"})
    return Runner(graph).run({"x": codes})["sum"]


@pytest.mark.parametrize("count", [40, 700])
def test_sums_of_an_axis_are_multiplied_in_float32(count, rng):
    """A product of fixed point, rounded once, would differ in some of them."""
    differs = 0
    for _ in range(20):
        size = rng.uniform(100, 9000)
        codes = rng.normal(size / 2, size, (500, count)).clip(-(2**15), 2**15 - 1)
        codes = codes.astype(np.int16)
        total = codes.sum(axis=1, keepdims=True, dtype=np.int64)
        source = np.float32(rng.uniform(1e-4, 1))
        output = np.float32(source * np.abs(total).max() / 2**15)
        found = reduced(codes, np.array([source, output]))
        acc = tf.constant(total)
        expected = arithmetic.away_sum(acc, count, source / output, 0)
        np.testing.assert_array_equal(
            found, np.clip(expected, -(2**15), 2**15 - 1).astype(np.int16)
        )
        ratio = fixed_point(np.float64(source) / np.float64(output))
        once = np.clip(arithmetic.round_wide(acc, *ratio), -(2**15), 2**15 - 1)
        differs += int((found != once).sum())
    assert differs
