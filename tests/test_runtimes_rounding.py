"""Rounding of TFLite's own kernels, and biases that compensate for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflite_export.runtimes import arithmetic, rounding


def rounded_twice(acc, ratio, half_up):
    return arithmetic.fixed_requantize(
        np.asarray(acc, np.int64), *rounding.fixed_point(ratio), half_up=half_up
    ).numpy()


def weighted(codes, low, high):
    """Codes on an axis on which the steps between small codes are larger."""
    steps = np.exp(-8 * np.abs(np.arange(low, high) + 0.5) / (high - low))
    return np.append(0, np.cumsum(steps))[codes.astype(int) - low]


@given(
    # Avoids ratios that give exact ties.
    ratio=st.floats(0.001, 0.9).map(lambda ratio: ratio * 2**-0.5),
    bias=st.floats(-300, 300),
    spacing=st.sampled_from([1, 4, 15, 60]),
    low=st.sampled_from([-128, 0]),
    half_up=st.booleans(),
)
def test_compensated_biases_are_at_least_as_good_as_rounded_ones(
    ratio, bias, spacing, low, half_up
):
    codes, high = (low, 127), 127
    [found] = rounding.compensate(
        np.array([bias]), np.array([ratio]), spacing, codes, np.array([half_up])
    )
    assert abs(found - bias) < 3
    reach = int((max(-low, high) / ratio + abs(bias)) / spacing) + 2
    sums = spacing * np.arange(-reach, reach)
    # The reference: rounded once, half to even, in float64.
    exact = np.clip(np.rint((sums + bias) * ratio), low, high)

    def wrong(code):
        twice = np.clip(rounded_twice(sums + code, ratio, half_up), low, high)
        return np.abs(weighted(twice, low, high) - weighted(exact, low, high)).sum()

    assert wrong(found) <= wrong(int(np.rint(bias))) + 1e-9


def test_one_unit_of_bias_compensates_a_ratio_of_a_quarter():
    # By hand: 0.25 is 0.5 * 2**-1, so every threshold is one unit too early.
    sums = np.arange(0, 400)
    exact = np.rint(sums * 0.25)
    [code] = rounding.compensate(
        np.zeros(1), np.array([0.25]), 1, (0, 100), np.array([True])
    )
    assert code == -1
    wrong = (rounded_twice(sums, 0.25, True) != exact).mean()
    mended = (rounded_twice(sums + code, 0.25, True) != exact).mean()
    assert wrong == pytest.approx(0.375) and mended == pytest.approx(0.125)


def test_widely_spaced_sums_are_mostly_exact():
    rng = np.random.default_rng(0)
    ratios, biases = rng.uniform(0.002, 0.004, 50), rng.uniform(-400, 400, 50)
    codes = rounding.compensate(biases, ratios, 15, (0, 15), np.ones(50, bool))
    sums = 15 * np.arange(-500, 1000)
    wrong = {"rounded": 0, "compensated": 0}
    for ratio, bias, code in zip(ratios, biases, codes, strict=True):
        exact = np.clip(np.rint((sums + bias) * ratio), 0, 15)
        for name, own in (("rounded", int(np.rint(bias))), ("compensated", code)):
            twice = np.clip(rounded_twice(sums + own, ratio, True), 0, 15)
            wrong[name] += np.abs(weighted(twice, 0, 15) - weighted(exact, 0, 15)).sum()
    assert 4 * wrong["compensated"] < wrong["rounded"]
