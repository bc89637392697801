"""Codes of pixels: what an input gets for each byte."""

from __future__ import annotations

import numpy as np
import pytest

from tflite_export.file import (
    USUAL_FORMS,
    End,
    Normalization,
    bytes_are_codes,
    codes_of_bytes,
    values_of_bytes,
)

BYTES = np.arange(256)[:, np.newaxis]
UNIT = Normalization((0.0,), (255.0,))
CENTERED = Normalization((127.5,), (127.5,))


def end(dtype="uint8", scale=1 / 255, zero_point=0):
    """An image input."""
    return End("image", dtype, (1, 8, 8, 3), scale, zero_point)


def test_values_are_those_of_training_per_channel():
    one = Normalization((1.0, 2.0, 3.0), (4.0,))
    values = values_of_bytes(one)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, (BYTES - [1, 2, 3]) / 4)


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_codes_of_the_grid_of_bytes_are_bytes(dtype, zero_point):
    one = end(dtype, zero_point=zero_point)
    np.testing.assert_array_equal(codes_of_bytes(one, UNIT), BYTES + zero_point)
    assert bytes_are_codes(one, UNIT)
    assert not bytes_are_codes(one, CENTERED, tolerance=1)


@pytest.mark.parametrize("form", USUAL_FORMS, ids=str)
def test_bytes_are_codes_in_the_usual_forms(form):
    """A grid has whole zero points, so that of -1 to 1 is off by up to one."""
    [mean], [std] = form.mean, form.std
    grid = end(scale=float(np.float32(1 / std)), zero_point=int(mean))
    assert bytes_are_codes(grid, form) == (mean % 1 == 0)
    assert bytes_are_codes(grid, form, tolerance=1)


def test_codes_are_limited_to_the_type():
    codes = codes_of_bytes(end(scale=0.001, zero_point=-9), UNIT)
    assert (codes.min(), codes.max()) == (0, 255)


def test_a_mean_on_no_byte_needs_a_tolerance():
    grid = end(scale=float(np.float32(1 / 127.5)), zero_point=128)
    assert not bytes_are_codes(grid, CENTERED)
    assert bytes_are_codes(grid, CENTERED, tolerance=1)


@pytest.mark.parametrize(
    "one", [end(scale=None, zero_point=None), end("float32"), end("int16")]
)
def test_inputs_without_a_grid_of_8_bits_have_no_codes(one):
    assert codes_of_bytes(one, UNIT) is None
    assert not bytes_are_codes(one, UNIT)
