"""The search for bits per layer under a budget: knapsack, sensitivities, files."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from hypothesis import given
from hypothesis import strategies as st

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.training import quantization_points, wrapped_layers
from tflite_export.bits.budget import MeasuredFile, Walk, best_file
from tflite_export.bits.knapsack import pareto_front
from tflite_export.bits.mixed_bits import FileSize
from tflite_export.bits.sensitivity import Trial, measure_sensitivities

layers = keras.layers
suggest_bits = tflite_export.suggest_bits


# --- The knapsack --------------------------------------------------------------------

options = st.lists(
    st.tuples(st.integers(0, 20), st.integers(-5, 20)), min_size=1, max_size=4
)


@given(items=st.lists(options, min_size=1, max_size=5), budget=st.integers(0, 100))
def test_the_pareto_front_matches_brute_force(items, budget):
    costs = [[cost for cost, _ in item] for item in items]
    losses = [[float(loss) for _, loss in item] for item in items]
    front = pareto_front(costs, losses)
    every = [
        (sum(c for c, _ in choice), sum(x for _, x in choice))
        for choice in itertools.product(*items)
    ]
    unbeaten = {
        one
        for one in every
        if not any(o != one and o[0] <= one[0] and o[1] <= one[1] for o in every)
    }
    found = list(zip(front.costs.tolist(), front.losses.tolist(), strict=True))
    assert found == sorted(unbeaten)
    for point, chosen in zip(found, front.choices, strict=True):
        assert point[0] == sum(own[i] for own, i in zip(costs, chosen, strict=True))
        assert point[1] == sum(own[i] for own, i in zip(losses, chosen, strict=True))
    affordable = [loss for cost, loss in every if cost <= budget]
    point = front.within(budget)
    assert (point == -1) == (not affordable)
    if affordable:
        assert front.losses[point] == min(affordable)


# --- Sensitivities -------------------------------------------------------------------


def side_by_side():
    """Two parallel layers; the first has a tenth of the second's effect."""
    inputs = layers.Input((64,), name="x")
    x, y = (layers.Dense(64, name=name)(inputs) for name in ("one", "two"))
    x = layers.Add()([layers.Rescaling(0.1)(x), y])
    return keras.Model(inputs, layers.Dense(4, name="head")(x))


def test_sensitivities_match_the_errors_of_quantized_models(rng):
    model = side_by_side()
    x = rng.normal(size=(80, 64)).astype(np.float32)
    found = suggest_bits(
        model, x, budget_bytes=10**6, activation_bits=8, verbose=False
    ).sensitivities
    expected = model(x).numpy().astype(np.float64)
    whole = {"one": 8, "two": 8, "head": 8}

    grids = tf_lsq.quantize_model(model, overrides=whole)
    tf_lsq.calibrate(grids, x)

    def error(overrides):
        student = tf_lsq.quantize_model(model, overrides=overrides)
        for own, other in zip(
            quantization_points(student), quantization_points(grids), strict=True
        ):
            own.set_weights(other.get_weights())
        squares = (student(x).numpy().astype(np.float64) - expected) ** 2
        return squares.mean() / expected.var()

    base = error(whole)
    for layer, bits in itertools.product(whole, (2, 3, 4)):
        wanted = error({**whole, layer: (bits, 8)}) - base
        assert found[layer][bits] == pytest.approx(wanted, rel=1e-3)
    assert 10 * found["one"][2] < found["two"][2]
    for own in found.values():
        assert own[2] > own[3] > own[4] > own[8] == 0


def test_inputs_lose_bits_with_their_kernel(rng):
    model = tiny.randomize(tiny.residual(), rng)
    x = rng.uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    student = tf_lsq.quantize_model(model, overrides={".*": 8})
    tf_lsq.calibrate(student, x)
    names = {w.layer.name: w.layer.name for w in wrapped_layers(student)}
    trials = [Trial("conv2d_1", 8, bits) for bits in (8, 4, 3, 2)]
    before = student.get_weights()
    found = measure_sensitivities(
        model, student, names, trials, [x], "kl", verbose=False
    )
    eight, four, three, two = found.values()
    assert eight == 0 < four < three < two
    changed = tf_lsq.quantize_model(model, overrides={".*": 8, "conv2d_1": (8, 2)})
    tf_lsq.calibrate(changed, x)
    p, *others = (m(x).numpy() for m in (model, student, changed))
    kl = [(p * np.log(p / q)).sum(axis=-1).mean() for q in others]
    assert two == pytest.approx(kl[1] - kl[0], rel=0.2)
    for one, other in zip(before, student.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def two_convolutions(policy):
    """A network that computes in 16 bits, except for its head; the seed is fixed."""
    keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, dtype=policy)(inputs)
    x = layers.ReLU(dtype=policy)(layers.BatchNormalization(dtype=policy)(x))
    x = layers.Conv2D(8, 3, activation="relu", dtype=policy)(x)
    x = layers.DepthwiseConv2D(3, dtype=policy)(x)
    x = layers.Flatten(dtype=policy)(x)
    return keras.Model(inputs, layers.Dense(4, dtype="float32")(x))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_gives_the_sensitivities_of_float32(policy, rng):
    x = rng.uniform(-1, 1, (32, 8, 8, 3)).astype(np.float32)
    found, expected = (
        suggest_bits(
            two_convolutions(name), x, budget_bytes=10**6, candidates=(2, 8),
            verbose=False,
        ).sensitivities
        for name in (policy, "float32")
    )  # fmt: skip
    for one, other in zip(found.values(), expected.values(), strict=True):
        assert one[2] == pytest.approx(other[2], rel=0.05)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (None, "mse"),
        (np.arange(8) % 4, "kl"),
        (np.arange(8), "mse"),
        (np.ones((8, 4)), "mse"),
    ],
)
def test_the_divergence_is_inferred_from_the_labels(labels, expected, rng):
    x = rng.normal(size=(8, 64)).astype(np.float32)
    data = x if labels is None else (x, labels)
    options = {"candidates": (2, 8), "budget_bytes": 10**6, "verbose": False}
    found = suggest_bits(side_by_side(), data, **options)
    assert found.divergence == expected


# --- Files ---------------------------------------------------------------------------


def pointwise(rng):
    """1x1 convolutions, and a nested model with a layer name that occurs twice."""
    inner_input = layers.Input((4, 4, 64))
    inner = keras.Model(
        inner_input, layers.Conv2D(64, 1, activation="relu", name="conv")(inner_input),
        name="inner",
    )  # fmt: skip
    inputs = layers.Input((4, 4, 8), name="x")
    x = layers.Conv2D(64, 1, activation="relu", name="conv")(inputs)
    x = layers.Flatten()(layers.SeparableConv2D(16, 3, name="both.of")(inner(x)))
    x = layers.Dense(96, activation="relu", name="wide")(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax", name="last")(x))
    return model, rng.uniform(-1, 1, (48, 4, 4, 8)).astype(np.float32)


def file_bytes(model, x, overrides, path, **options):
    """The size of the file that these overrides give, and the quantized model."""
    student = tf_lsq.quantize_model(model, overrides=overrides, **options)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    report = tflite_export.export_model(student, path, storage="packed")
    assert path.stat().st_size == report.file_bytes
    return report.file_bytes, student


@pytest.mark.parametrize("activation_bits", [None, 8])
def test_suggested_files_fit(activation_bits, rng, tmp_path):
    model = tiny.randomize(tiny.pre_activation(), rng)
    x = rng.uniform(-1, 1, (32, 8, 8, 3)).astype(np.float32)
    found = suggest_bits(
        model, x, budget_bytes=14_300, activation_bits=activation_bits, verbose=False
    )
    assert len({layer.weight_bits for layer in found.layers}) > 1
    size, student = file_bytes(model, x, found.overrides, tmp_path / "model.tflite")
    assert size == found.file_bytes <= 14_300
    bits = {w.layer.name: w.quantizer.num_bits for w in wrapped_layers(student)}
    assert bits == {layer.layer: layer.weight_bits for layer in found.layers}
    assert found.sensitivity < found.uniform[4].sensitivity
    suggested = min(found.curve, key=lambda point: abs(point.file_bytes - size))
    assert suggested.file_bytes == size
    assert suggested.sensitivity == pytest.approx(found.sensitivity)


def test_the_search_uses_asymmetric_activations(rng, tmp_path):
    inputs = layers.Input((8, 8, 3), name="image")
    x = inputs
    for number in range(3):
        x = layers.Conv2D(16, 3, activation="swish", name=f"conv{number}")(x)
    model = keras.Model(inputs, layers.Dense(4, name="last")(layers.Flatten()(x)))
    x = rng.uniform(-1, 1, (32, 8, 8, 3)).astype(np.float32)
    options = {"asymmetric_activations": True}
    plain, found = (
        suggest_bits(
            model, x, budget_bytes=10**6, candidates=(3, 8), verbose=False, **own
        )
        for own in ({}, options)
    )
    size, _ = file_bytes(
        model, x, found.overrides, tmp_path / "model.tflite", **options
    )
    assert size == found.file_bytes
    for layer in ("conv1", "conv2"):
        assert found.sensitivities[layer][3] < plain.sensitivities[layer][3]
    whole = dict.fromkeys(found.sensitivities, 8)
    expected = model(x).numpy()

    def error(overrides):
        student = tf_lsq.quantize_model(model, overrides=overrides, **options)
        tf_lsq.calibrate(student, x)
        return ((student(x).numpy() - expected) ** 2).mean() / expected.var()

    wanted = error({**whole, "conv1": 3}) - error(whole)
    assert found.sensitivities["conv1"][3] == pytest.approx(wanted, rel=0.05)


def test_larger_budgets_never_increase_the_sensitivity(rng, tmp_path):
    model, x = pointwise(rng)
    before, containers = np.inf, set()
    for budget in (15_000, 18_500, 23_000):
        found = suggest_bits(
            model, x, budget_bytes=budget, activation_bits=8, verbose=False
        )
        path = tmp_path / f"{budget}.tflite"
        size, _ = file_bytes(model, x, found.overrides, path)
        assert size == found.file_bytes <= budget
        assert found.sensitivity <= before
        before = found.sensitivity
        containers |= set(tflite_export.inspect_tflite(path).kernel_bytes)
    assert before == 0 and containers == {"int2", "int4", "int8"}


def test_suggestions_name_inner_layers_and_keep_fixed_ones(rng):
    model, x = pointwise(rng)
    fixed = {"wide": (4, 8), "last": "float"}
    found = suggest_bits(
        model, x, budget_bytes=26_000, overrides=fixed, per_channel=True, verbose=False
    )
    assert [layer.layer for layer in found.layers] == ["conv", "inner/conv", "both.of"]
    assert next(iter(found.overrides)) == "conv" and "both\\.of" in found.overrides
    assert dict(list(found.overrides.items())[-2:]) == fixed
    student = tf_lsq.quantize_model(model, overrides=found.overrides, per_channel=True)
    bits = [w.quantizer.num_bits for w in wrapped_layers(student)]
    own = [layer.weight_bits for layer in found.layers]
    assert bits == [own[0], own[1], own[2], own[2], 4]


def test_the_report_of_a_search_is_readable_and_plain_data(rng, tmp_path):
    model, x = pointwise(rng)
    found = suggest_bits(
        model, x, budget_bytes=19_000, candidates=(4, 2, 8), verbose=False
    )
    text = str(found)
    assert f"{found.file_bytes} of 19000 bytes for phone with packed storage" in text
    for expected in (
        "inner/conv",
        "kl at 2",
        "kl at 8",
        "all kernels 8 bits",
        "too large",
    ):
        assert expected in text
    described = found.to_dict()
    assert described["sensitivity"] == found.sensitivity
    assert described["layers"][0]["layer"] == "conv"
    assert list(found.uniform) == [2, 4, 8]
    costs = [point.file_bytes for point in found.curve]
    sums = [point.sensitivity for point in found.curve]
    assert costs == sorted(costs) and sums == sorted(sums, reverse=True)
    for suffix, start in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        found.plot(tmp_path / f"plot{suffix}")
        assert (tmp_path / f"plot{suffix}").read_bytes().startswith(start)
    with pytest.raises(ValueError, match=r"must end with one of.*plot\.txt"):
        found.plot(tmp_path / "plot.txt")
    with pytest.raises(FileNotFoundError):
        found.plot(tmp_path / "none" / "plot.png")


# --- Errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "expected"),
    [
        ({"budget_bytes": 0}, ValueError, "must be positive. Received: 0"),
        ({"budget_bytes": 9e3}, TypeError, "must be an integer. Received: 9000.0"),
        ({"budget_bytes": True}, TypeError, "must be an integer. Received: True"),
        ({"budget_bytes": np.True_}, TypeError, "must be an integer. Received: .*True"),
        ({"candidates": (4, 4)}, ValueError, r"two numbers of bits.*\[4\]"),
        ({"candidates": (1, 4)}, ValueError, "from 2 to 8"),
        ({"activation_bits": 9}, ValueError, "`activation_bits` must be"),
        ({"divergence": "l1"}, ValueError, r"\['kl', 'mse'\] or None"),
        ({"storage": "zip"}, ValueError, "`storage` must be one of"),
        (
            {"target": "symmetric", "asymmetric_activations": True},
            ValueError,
            "needs zero points of 0",
        ),
        ({"target": "toaster"}, ValueError, "`target` must be one of"),
        ({"num_examples": 0}, ValueError, "`num_examples` must be at least 1"),
        ({"storage": "int8"}, ValueError, "storage='int8'.*take the same bytes"),
        ({"overrides": {".*": 4}}, ValueError, "must leave at least one layer"),
    ],
)
def test_wrong_options_are_named(options, error, expected, rng):
    model, x = side_by_side(), np.eye(4, 64, dtype=np.float32)
    with pytest.raises(error, match=expected):
        suggest_bits(model, x, **{"budget_bytes": 9_000, "verbose": False, **options})


def test_a_budget_may_be_a_numpy_integer(rng):
    x, budget = rng.normal(size=(4, 64)).astype(np.float32), np.int64(10**5)
    options = {"candidates": (4, 8), "verbose": False}
    found = suggest_bits(side_by_side(), x, budget_bytes=budget, **options)
    assert type(found.budget_bytes) is int and found.budget_bytes == budget


def test_wrong_models_and_data_are_refused(rng):
    model, x = side_by_side(), np.eye(4, 64, dtype=np.float32)
    with pytest.raises(TypeError, match="`data` must be an array"):
        suggest_bits(model, None, budget_bytes=9_000)
    rows = tf.data.Dataset.from_tensor_slices(x).batch(2)
    for empty in (rows.take(0), rows.take(1).map(lambda batch: batch[:0])):
        with pytest.raises(ValueError, match=r"at least one example\. Received: none"):
            suggest_bits(model, empty, budget_bytes=9_000, verbose=False)
    with pytest.raises(TypeError, match="Received: int"):
        suggest_bits(3, x, budget_bytes=9_000)
    student = tf_lsq.quantize_model(model)
    with pytest.raises(ValueError, match="already quantized"):
        suggest_bits(student, x, budget_bytes=9_000, verbose=False)


COSTS = {"one": {4: 10, 8: 20}, "two": {4: 10, 8: 21}, "three": {4: 10, 8: 20}}


class CountedSizes:
    """Counts the queries; files have the least overhead with bits (4, 8, 4)."""

    def __init__(self):
        self.count = 0

    def size(self, bits):
        self.count += 1
        kernels = {layer: COSTS[layer][own] for layer, own in bits.items()}
        rest = 900 if tuple(bits.values()) == (4, 8, 4) else 1000
        return FileSize(rest + sum(kernels.values()), kernels, dict(bits))


def test_the_smallest_file_need_not_be_on_the_front():
    losses = {name: {4: 1.0 if name == "two" else 5.0, 8: 0.0} for name in COSTS}
    tables = ([[*own.values()] for own in table.values()] for table in (COSTS, losses))
    front = pareto_front(*tables)
    assert [0, 1, 0] not in front.choices.tolist()

    def search(budget):
        mixed = CountedSizes()
        uniform = [dict.fromkeys(COSTS, bits) for bits in (4, 8)]
        made = [MeasuredFile(bits, mixed.size(bits)) for bits in uniform]
        made += Walk(mixed, front, COSTS, made, budget).files()
        assert mixed.count <= 8  # No combination is measured twice.
        return best_file(made, losses, budget)

    assert list(search(950).bits.values()) == [4, 8, 4]
    with pytest.raises(tflite_export.BudgetError, match="file found has 941") as error:
        search(940)
    assert search(error.value.smallest_bytes).size.file_bytes == 941
    assert search(2000).size.file_bytes == 1061


def test_a_budget_below_the_smallest_file_names_its_size(rng, tmp_path):
    model, x = side_by_side(), rng.normal(size=(32, 64)).astype(np.float32)
    with pytest.raises(tflite_export.BudgetError, match="smallest file") as error:
        suggest_bits(model, x, budget_bytes=2_000, verbose=False)
    smallest = error.value.smallest_bytes
    found = suggest_bits(model, x, budget_bytes=smallest, verbose=False)
    assert found.file_bytes == smallest


def test_16_bit_points_stay_in_a_suggestion(rng):
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(16, 3, padding="same", name="first")(inputs)
    y = layers.Conv2D(16, 3, padding="same", name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    x = layers.Conv2D(16, 3, name="wide")(x)
    model = keras.Model(inputs, layers.Dense(3, name="last")(layers.Flatten()(x)))
    x = rng.normal(size=(32, 8, 8, 3)).astype(np.float32)
    chosen = {"sum": 16, "wide": (8, 16)}
    found = tflite_export.suggest_bits(
        model, x, budget_bytes=20_000, overrides=chosen, verbose=False
    )
    assert found.overrides.items() >= chosen.items()
    assert {layer.layer for layer in found.layers} == {"first", "branch", "last"}
    student = tf_lsq.quantize_model(model, overrides=found.overrides)
    assert student.get_layer("quantize_sum").num_bits == 16
