"""The export report: which integers are used, and how other storages differ."""

from __future__ import annotations

import json

import numpy as np
import pytest
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import verification
from tflite_export.reports import code_statistics
from tflite_export.runtimes import find_runtime
from tflite_export.twin import twin_codes

layers = keras.layers


# --- Statistics ----------------------------------------------------------------------


def test_codes_of_a_kernel_are_counted(rng):
    student, _ = tiny.calibrated(tiny.residual, rng, bits=2)
    wrapper = student.get_layer("conv2d_1")
    kernel = np.zeros(wrapper.kernel.shape, np.float32)
    kernel.flat[:6] = [-3, -2.4, -1, 0.6, 1.4, 1.6]
    wrapper.kernel.assign(kernel)
    wrapper.step_variables["unit"].assign(1.0)
    wrapper.step_variables["step"].assign(1.0)
    found = code_statistics.kernel_statistics(tiny.trained_kernel(student, "conv2d_1"))
    # By hand: codes -2, -2, -1, 1, 1, 1; beyond -2.5 and 1.5 are -3 and 1.6.
    assert (found.q_min, found.q_max, found.num_bits) == (-2, 1, 2)
    assert found.counts == [2, 1, kernel.size - 6, 3]
    assert found.clipped == 2 / kernel.size
    assert found.step == 1
    assert found.dead_levels == 0


def test_negative_values_of_an_unsigned_point_are_not_clipped(rng):
    student, _ = tiny.calibrated(tiny.residual, rng, bits=2)
    point = student.get_layer("re_lu_1")
    step = float(point.step.numpy())
    values = np.array([-5, 0, 0.4, 1, 3.4, 3.6]) * step
    found = code_statistics.activation_statistics(
        tiny.trained_point(student, point.name), np.array([0, 0, 0, 1, 3, 3]), values
    )
    assert (found.q_min, found.q_max) == (0, 3)
    assert found.counts == [3, 1, 0, 2]
    assert found.dead_levels == 1
    assert found.clipped == pytest.approx(1 / 6)


def test_the_best_step_has_the_least_error(exported_report):
    report, student, _ = exported_report
    for layer in report.layers:
        if layer.statistics is None:
            continue
        wrapper = next(x for x in student.layers if x.name == layer.name)
        kernel, bounds = wrapper.kernel.numpy(), layer.statistics

        def error(step, kernel=kernel, bounds=bounds):
            codes = np.clip(np.rint(kernel / step), bounds.q_min, bounds.q_max)
            return np.mean((codes * step - kernel) ** 2)

        best = error(bounds.mse_step)
        for factor in (0.8, 0.9, 1.1, 1.25):
            assert best <= error(bounds.mse_step * factor)


def test_every_point_is_counted_once_with_all_its_codes(exported_report):
    report, student, _ = exported_report
    counted = [p for p in report.verification.points if p.statistics]
    for point in counted:
        assert sum(point.statistics.counts) == point.num_codes
    points = [
        layer
        for layer in student.layers
        if type(layer).__name__ == "QuantizationPoint"
        and not isinstance(layer.input.node.layer, layers.InputLayer)
    ]
    assert len(counted) == len(points)


@pytest.mark.parametrize("target", ["phone", "symmetric"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_statistics_of_signed_points_describe_the_real_values(
    bits, target, rng, tmp_path
):
    inputs = layers.Input((6,), name="x")
    signed = layers.Dense(16, name="signed")(inputs)
    x = layers.Dense(8, activation="relu", name="relu")(signed)
    model = tiny.randomize(keras.Model(inputs, layers.Dense(3)(x)), rng)
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, target=target
    )
    x = rng.normal(size=(64, 6)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    point = student.get_layer("quantize_signed")
    point.step_variables["unit"].assign(point.step_variables["unit"] * 0.5)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", data=x, verbose=False
    )
    # The values before the points, in Keras.
    for name in ("signed", "relu"):
        point = student.get_layer(f"quantize_{name}")
        values = keras.Model(student.inputs, point.input).predict(x, verbose=0)
        expected = code_statistics.activation_statistics(
            tiny.trained_point(student, point.name),
            np.zeros(values.shape, np.int64),
            values,
        )
        found = {
            p.statistics.step: p.statistics
            for p in report.verification.points
            if p.statistics is not None
        }[expected.step]
        assert found.q_min == expected.q_min
        assert found.clipped == pytest.approx(expected.clipped, abs=0.01)
        assert found.mse_step == pytest.approx(expected.mse_step, rel=0.05)
        assert sum(found.counts) == values.size


def test_a_point_of_the_input_is_not_counted_after_a_pad(rng, tmp_path):
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(inputs)
    x = layers.Flatten()(layers.Conv2D(4, 3, activation="relu", name="conv")(x))
    student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(3)(x)))
    x = rng.normal(size=(16, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", data=x, verbose=False
    )
    found = {p.name: p.statistics for p in report.verification.points}
    assert found["pad"] is None and found["conv"] is not None


# --- Other storages ------------------------------------------------------------------


def test_other_storages_are_compared(exported_report, tmp_path):
    report, student, x = exported_report
    assert [other.storage for other in report.storages] == ["int8", "auto"]
    for other in report.storages:
        path = tmp_path / f"{other.storage}.tflite"
        again = tflite_export.export_model(student, path, storage=other.storage)
        assert again.file_bytes == other.file_bytes
        frozen = [tiny.built(student, s).frozen for s in ("packed", other.storage)]
        inputs = verification.input_codes(frozen[0], [x[: verification.BATCH_SIZE]])
        own, theirs = (twin_codes(one, inputs, find_runtime("arm64")) for one in frozen)
        common = own.keys() & theirs.keys()
        assert own.keys() - common == {n for n in own if n.endswith("_x15")}
        common -= {"image"}  # No operator produces it.
        different = sum(int((own[name] != theirs[name]).sum()) for name in common)
        assert other.different_codes == different
        assert other.num_codes == sum(own[name].size for name in common)


def test_storages_with_the_same_bytes_do_not_differ(rng, tmp_path):
    student, x = tiny.calibrated(tiny.residual, rng, bits=8)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", storage="packed", data=x, verbose=False
    )
    assert [other.different_codes for other in report.storages] == [0, 0]
    assert [other.top1_agreement for other in report.storages] == [1, 1]


def test_the_report_is_plain_data(exported_report):
    found = json.loads(json.dumps(exported_report[0].to_dict()))
    assert found["layers"][2]["statistics"]["num_bits"] == 4
    assert found["storages"][0]["storage"] == "int8"
    expected = {"python", "kotlin", "kotlin-compiled-model"}  # Of int8.
    assert set(found["snippets"]) == expected
