"""Random networks: quantized, exported and verified, each with its integer twin."""

from __future__ import annotations

import secrets
import warnings

import numpy as np
import pytest
from harness import random_graphs, tiny
from harness.random_graphs import Recipe
from hypothesis import HealthCheck, Phase, given, settings

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import verification
from tflite_export.runtimes import this_machine

NUM_EXAMPLES = 16
BUILTIN = this_machine().with_kernels("builtin")


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
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "These tensors use less than")
        # A ReLU may let nothing through; the network is exported exactly all the same.
        warnings.filterwarnings("ignore", "These quantization points have received")
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
    built = tiny.built(student, recipe.storage)
    assert path.read_bytes() == built.content
    codes = verification.probe_codes(built.graph, built.frozen, [x], "builtin")
    builtin = verification.twin_differences(built.frozen, codes, BUILTIN)
    assert not {name: count for name, count in builtin.items() if count}


# Networks that failed once.
FOUND = {
    "a_tie_of_float32_in_a_table": Recipe(
        shape=(11, 4, 2),
        steps=(
            ("average_pool", 3, 3, "same", 1),
            ("join", 0, 2, "concat", True),
            ("up", 1, "nearest"),
            ("up", 2, "bilinear"),
            ("join", 3, 2, "multiply", False),
            ("separable", 2, 2, 3, "tanh"),
            ("norm", 0, "tanh"),
            ("separable", 0, 1, 2, "sigmoid"),
        ),
        head=("max", 4, "softmax"),
        bits=(5, 2, 3),
        per_channel=True,
        storage="packed",
        seed=142,
    ),
    "depthwise_channels_beyond_a_vector": Recipe(
        shape=(4, 4, 3),
        steps=(("separable", 0, 1, 1, None),),
        head=("mean", 6, None),
        bits=(2, 2, 2),
        per_channel=False,
        storage="packed",
        seed=0,
    ),
    "a_tie_of_float32_in_a_softmax": Recipe(
        shape=(11, 5, 1),
        steps=(("average_pool", 2, 1, "same", 1),),
        head=("mean", 4, "softmax"),
        bits=(2, 4, 3),
        per_channel=True,
        storage="int8",
        seed=285,
    ),
    "a_mean_whose_channels_two_threads_share": Recipe(
        shape=(7, 9, 4),
        steps=(
            ("conv", 1, 9, 3, "same", 2, False, "relu6"),
            ("depthwise", 1, 2, 2, "same", 2, False, "tanh"),
            ("transposed", 1, 1, 2, "valid", 2),
            ("separable", 2, 7, 2, "swish"),
            ("gate", 2, "sigmoid"),
            ("transposed", 0, 8, 2, "same", 1),
            ("depthwise", 0, 2, 3, "same", 2, False, "relu"),
            ("gate", 0, "sigmoid"),
        ),
        head=("max", 5, None),
        bits=(5, 5, 4),
        per_channel=False,
        storage="auto",
        seed=193,
    ),
    "a_tie_of_float32_in_a_sigmoid": Recipe(
        shape=(7, 10, 3),
        steps=(
            ("max_pool", 0, 3, "same", 2),
            ("gate", 2, "hard_sigmoid"),
            ("leaky", 0, True),
            ("join", 2, 1, "add", True),
            ("pad", 0, 1, 2),
            ("separable", 0, 7, 3, None),
            ("separable", 0, 6, 2, "swish"),
            ("gate", 0, "sigmoid"),
        ),
        head=("max", 5, None),
        bits=(3, 4, 4),
        per_channel=False,
        storage="auto",
        seed=999,
    ),
    "transposed_convolution_smaller_than_its_stride": Recipe(
        shape=(10, 8, 3),
        steps=(("transposed", 0, 1, 1, "same", 2),),
        head=("mean", 2, "softmax"),
        bits=(2, 4, 8),
        per_channel=True,
        storage="int8",
        seed=2,
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_networks_that_failed_once_are_exact(name, tmp_path):
    prove(FOUND[name], tmp_path / "model.tflite")


LIMITS = {
    # Without shrinking: a network that fails is small enough to read.
    "phases": (Phase.explicit, Phase.reuse, Phase.generate),
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
}


@settings(max_examples=12, **LIMITS)
@given(recipe=random_graphs.recipes())
def test_a_dozen_random_networks_are_exact(recipe, tmp_path_factory):
    prove(recipe, tmp_path_factory.mktemp("random") / "model.tflite")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_a_thousand_new_random_networks_are_exact(part, tmp_path):
    first = secrets.randbelow(2**31)
    print(f"seeds {first} to {first + 49}")
    for number in range(first, first + 50):
        keras.backend.clear_session()
        recipe = random_graphs.drawn(number)
        try:
            prove(recipe, tmp_path / "model.tflite")
        except Exception as error:
            raise AssertionError(f"seed {number}: {recipe}") from error
