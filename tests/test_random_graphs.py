"""Random networks: quantized, exported and verified, each with its integer twin."""

from __future__ import annotations

import numpy as np
import pytest
import random_graphs
from hypothesis import HealthCheck, given, settings

import tf_lsq
import tflite_export

NUM_EXAMPLES = 16


def prove(recipe, path):
    """Takes a network all the way to a verified file."""
    model = random_graphs.build(recipe)
    weight_bits, activation_bits, first_last_bits = recipe.bits
    student = tf_lsq.quantize_model(
        model,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        first_last_bits=first_last_bits,
        per_channel=recipe.per_channel,
    )
    rng = np.random.default_rng(recipe.seed)
    x = rng.uniform(-1, 1, (NUM_EXAMPLES, *recipe.shape)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    report = tflite_export.export_model(student, path, storage=recipe.storage)
    assert not report.float_layers
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    different = {
        point.name: (point.kind, point.twin_differences)
        for point in found.points
        if point.twin_differences
    }
    assert not different
    assert found.twin_differences == 0


LIMITS = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


@settings(max_examples=12, **LIMITS)
@given(recipe=random_graphs.recipes())
def test_a_dozen_random_networks(recipe, tmp_path_factory):
    prove(recipe, tmp_path_factory.mktemp("random") / "model.tflite")


@pytest.mark.slow
@settings(max_examples=400, **LIMITS | {"derandomize": False})
@given(recipe=random_graphs.recipes())
def test_hundreds_of_random_networks(recipe, tmp_path_factory):
    prove(recipe, tmp_path_factory.mktemp("random") / "model.tflite")
