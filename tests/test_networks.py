"""Common networks, from quantization to a verified file, and the page about them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import limited
import networks
import networks_check
import networks_steps
from networks_list import FAMILIES, NETWORKS, OWN, PACKAGES, application_names
from networks_page import page
from random_networks import images

layers = keras.layers
# MobileNetV3Small is in test_reported_models.py.
REPRESENTATIVE = ["preact_resnet18", "MobileNetV2 (tf_keras)", "MobileNet (Keras 3)"]
LIMITS = {"seconds": 2, "gigabytes": 1.0}
ROW = {"network": "small", "bits": "8/8", "package": "ours", "versions": "Python 3"}
PASSED = {
    **ROW,
    "outcome": "passed",
    "trained": True,
    "layers": 3,
    "weight_codes": 1200,
    "equal_codes": 1200,
    "quantize_seconds": 1.25,
    "operators": 5,
    "int16_operators": 1,
    "float_layers": [],
    "float_tensors": 0,
    "file_bytes": 3456,
    "off_by_one": 0.00125,
    "worst": "pool",
    "worst_share": 0.25,
    "worst_kind": "mean",
    "twin_differences": 0,
    "worst_layer": "conv",
    "worst_layer_db": 38.44,
    "copy_difference": 0.0,
    "peak_bytes": 1_234_000_000,
}
REFUSED = {
    **ROW,
    "network": "odd",
    "outcome": "refused",
    "trained": True,
    "stage": "quantize",
    "reasons": {"LSTM": 1},
    "error": "ValueError",
    "message": "No form:\n  `a` (LSTM): no | form",
}
CRASHED = {
    **ROW,
    "network": "large",
    "outcome": "failed",
    "trained": False,
    "stage": "",
    "reasons": {},
    "error": "exit code -9",
    "message": "exit code -9",
    "where": "unknown",
}


def key(row):
    return row["network"], row["bits"]


# --- Networks --------------------------------------------------------------------


@pytest.mark.parametrize("package", PACKAGES)
def test_every_network_of_the_applications_is_in_a_family(package):
    listed = [
        name
        for family in FAMILIES.values()
        if package in family.packages
        for name in family.members
    ]
    assert sorted(listed) == sorted(application_names(package))


def test_the_smallest_and_a_middle_network_of_every_family_are_trained():
    for family in FAMILIES.values():
        assert family.middle in ("", *family.members[1:])
        wanted = {name for name in (family.members[0], family.middle) if name}
        for package in family.packages:
            names = {name: f"{name} ({package})" for name in family.members}
            trained = {name for name in names if NETWORKS[names[name]].trained}
            assert trained == wanted
    own = {name for name, network in NETWORKS.items() if network.package == OWN}
    assert own == set(tf_lsq.models.__all__) - {"preact_resnet"}
    assert all(NETWORKS[name].trained for name in own)


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_representative_networks_are_exact(name):
    found = networks_check.check(name, (4, 4), size=32)
    assert found["outcome"] == "passed", found
    assert found["off_by_one"] < 0.01 and found["weight_codes"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in NETWORKS if NETWORKS[n].trained])
def test_every_network_is_exact(name):
    found = networks_check.check(name, NETWORKS[name].bits[0])
    assert found["outcome"] == "passed", found
    assert found["off_by_one"] < 0.01


# --- What a row must not pass ----------------------------------------------------


def calibrated_student(**options):
    model = tiny.randomize(tiny.residual(), np.random.default_rng(0))
    student = tf_lsq.quantize_model(model, **options)
    x = images(np.random.default_rng(0), 8, model.input_shape[1:], (-1.0, 1.0))
    tf_lsq.calibrate(student, x)
    return student, x


def test_steps_that_do_not_move_are_found(monkeypatch):
    student, x = calibrated_student()
    monkeypatch.setattr(networks_steps, "RATE", 0.0)
    with pytest.raises(AssertionError, match=r"did not move: \['conv2d"):
        networks_steps.train_a_step(student, x, np.zeros(8), logits=False)


def test_variables_without_a_gradient_are_found():
    inputs = layers.Input((4,))
    x = tf.stop_gradient(layers.Dense(3, name="hidden")(inputs))
    student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(2)(x)))
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    with pytest.raises(AssertionError, match=r"No finite gradient for.*hidden/kernel"):
        networks_steps.train_a_step(student, x, np.zeros(8), logits=True)


def test_float_tensors_inside_a_file_are_counted(tmp_path):
    path = tmp_path / "model.tflite"
    for overrides, wanted in ((None, False), ({"scores": "float"}, True)):
        student, _ = calibrated_student(overrides=overrides)
        tflite_export.export_model(student, path, verbose=False)
        assert bool(networks_check.float_tensors(path)) is wanted


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"float_tensors": 2}, "2 float_tensors"),
        ({"float_layers": ["a"]}, r"\['a'\] float_layers"),
        ({"twin_differences": 3}, "3 twin_differences"),
        ({"equal_codes": 1199}, "1 other weight codes"),
    ],
)
def test_files_that_differ_are_refused(wrong, message):
    networks_check.check_file(PASSED)
    with pytest.raises(AssertionError, match=message):
        networks_check.check_file({**PASSED, **wrong})


# --- Processes, results and the page ---------------------------------------------


def ended(code, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"import sys\nfrom pathlib import Path\n{code}\n")
    return limited.run(script, "a", **LIMITS)


def test_a_process_ends_with_its_row_or_with_how_it_ended(tmp_path):
    row = 'Path(sys.argv[2]).write_text(\'{"name": "%s"}\' % sys.argv[1])'
    assert ended(row, tmp_path) == {"name": "a"}
    failed = ended("sys.exit(3)", tmp_path)
    assert (failed["outcome"], failed["error"]) == ("failed", "exit code 3")
    assert ended("while True: pass", tmp_path)["error"] == "passed the limit of time"
    assert "MemoryError" in ended("bytearray(2 ** 31)", tmp_path)["stderr"]


def test_results_keep_the_last_line_of_a_row(tmp_path):
    path = tmp_path / "results.jsonl"
    assert networks.read(path) == {}
    lines = [
        '{"network": "a", "bits": "8/8", "n": 1}',
        '{"network": "a", "bits": "4/8", "n": 2}',
        '{"network": "a", "bits": "8/8", "n": 3}',
    ]
    path.write_text("\n".join(lines))
    found = networks.read(path)
    assert {key: row["n"] for key, row in found.items()} == {
        ("a", "8/8"): 3,
        ("a", "4/8"): 2,
    }


def test_rows_are_run_once_and_again_if_asked(tmp_path, monkeypatch):
    asked = []

    def run(key, **limits):
        asked.append(key)
        return {**CRASHED, "network": key[0], "bits": key[1]}

    monkeypatch.setattr(networks, "run", run)
    results, written = tmp_path / "folder/results.jsonl", tmp_path / "page.md"
    arguments = ["networks", "--results", str(results), "--markdown", str(written)]
    arguments += ["--networks", "kwt1"]
    for more in (["--bits", "4/4"], [], [], ["--again"]):
        monkeypatch.setattr(sys, "argv", [*arguments, *more])
        networks.main()
        assert "| kwt1 | 4/4 | **failed**" in written.read_text()
    four, eight = ("kwt1", "4/4"), ("kwt1", "8/8")
    assert asked == [four, eight, eight, four]


def test_the_page_shows_what_passed_and_what_did_not():
    exported = {**PASSED, "network": "big", "trained": False}
    rows = {key(row): row for row in (PASSED, exported, REFUSED, CRASHED)}
    text = page([*rows, ("later", "4/8")], rows)
    assert "2 of 4 rows pass, 1\nare refused by name, 1 fail; 1 have not been" in text
    line = "| 8/8 | 3 | 1,200 | 1.2 | 5 | 1 | 0 | 3,456 | 0.1250 % | 25.00 % `pool` "
    assert f"| small {line}(mean) | 0 | 38.4 `conv` | 0.0e+00 | 1,234 |" in text
    assert f"| big {line}(mean) | 0 | 1,234 |" in text
    refused = "No form: `a` (LSTM): no \\| form"
    assert f"| odd | 8/8 | refused | quantize | LSTM (1) | {refused} |" in text
    assert "| large | 8/8 | **failed**: exit code -9 at unknown |" in text
    assert text.endswith("## Not run\n\nlater 4/8.\n")
    assert "{" not in text


def test_the_page_is_that_of_the_results():
    root = Path(__file__).resolve().parents[1]
    found = networks.read(networks.RESULTS)
    wanted = page(networks.keys([*NETWORKS]), found)
    assert (root / "docs/networks.md").read_text() == wanted
    failed = {key for key, row in found.items() if row["outcome"] == "failed"}
    assert not failed
