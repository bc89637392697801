"""The house rules: import direction, public names, version."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import tf_lsq
import tflite_export

ROOT = Path(__file__).resolve().parents[1]
# Module -> modules of its package it may import, in the order of the house.
TRAINING = [
    "_compat",
    "lsq",
    "lsq_plus",
    "fast",
    "data",
    "quantizers",
    "quantize_configs",
    "layers",
    "optimizers",
    "operators",
    "float_layers",
    "lowering",
    "tensor_functions",
    "layer_table",
    "reader",
    "graph",
    "folding",
    "borrowed_sums",
    "losses",
    "distribution",
    "step_values",
    "range_watch",
    "model",
    "policy",
    "layout",
    "scheme",
    "keras3",
    "quantize",
    "calibration",
    "models",
    "batch_norm",
    "recipes",
    "distillation",
    "plots",
    "probe",
    "diagnostics",
    "oscillation",
    "__init__",
]
EXPORT = [
    "packing",
    "quantized_tensor",
    "rounding",
    "tflite_graph",
    "atomic_file",
    "templating",
    "report",
    "export_report",
    "snippets",
    "op_versions",
    "targets",
    "edgetpu_compiler",
    "flatbuffer",
    "convert",
    "grids",
    "trained_kernel",
    "containers",
    "weights",
    "freeze",
    "code_statistics",
    "float_graph",
    "latency",
    "metadata",
    "biases",
    "expectation",
    "arithmetic",
    "integerize",
    "check",
    "twin",
    "verify",
    "storages",
    "pipeline",
    "html_report",
    "bit_suggestion",
    "knapsack",
    "mixed_bits",
    "budget",
    "sensitivity",
    "bit_search",
    "inspect",
    "loading",
    "__init__",
    "cli",
]


def imports(path):
    """(package or "", module) of every import of one file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            if node.module:
                yield path.parent.name, node.module
            else:
                yield from ((path.parent.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package, _, module = node.module.partition(".")
            yield package, module
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], ""


@pytest.mark.parametrize(
    ("package", "order"), [("tf_lsq", TRAINING), ("tflite_export", EXPORT)]
)
def test_imports_go_one_way(package, order):
    found = {path.stem for path in (ROOT / package).glob("*.py")}
    assert found == set(order)
    for module in order:
        for source, name in imports(ROOT / package / f"{module}.py"):
            if source == package and name:
                assert order.index(name) < order.index(module), f"{module} <- {name}"


def test_training_knows_nothing_of_export():
    for path in (ROOT / "tf_lsq").glob("*.py"):
        assert "tflite_export" not in {package for package, _ in imports(path)}


def test_only_compat_touches_tfmot_and_chooses_keras():
    for package in ("tf_lsq", "tflite_export"):
        for path in (ROOT / package).glob("*.py"):
            used = {name for name, _ in imports(path)}
            if path.stem != "_compat":
                assert not used & {"tensorflow_model_optimization", "tf_keras", "keras"}


def test_the_exact_part_of_export_runs_without_tensorflow():
    for module in (
        "packing",
        "quantized_tensor",
        "rounding",
        "tflite_graph",
        "report",
        "export_report",
        "snippets",
        "targets",
        "op_versions",
        "knapsack",
    ):
        used = {n for n, _ in imports(ROOT / "tflite_export" / f"{module}.py")}
        assert not used & {"tensorflow", "tf_lsq", "ai_edge_litert"}


def test_the_word_scale_begins_at_freeze():
    for module in ("integerize", "flatbuffer", "tflite_graph", "quantized_tensor"):
        text = (ROOT / "tflite_export" / f"{module}.py").read_text()
        assert not re.search(r"\bstep\b", text), module


@pytest.mark.parametrize("package", [tf_lsq, tflite_export])
def test_public_names_are_sorted_and_exist(package):
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__doc__


def test_public_names_are_the_promised_ones():
    assert {
        "LSQActivationQuantizer",
        "LSQQuantizeConfig",
        "LSQQuantizeScheme",
        "LSQWeightQuantizer",
        "calibrate",
        "lsq",
        "quantize_model",
    } <= set(tf_lsq.__all__)
    assert {"VerificationError", "export_model", "verify_tflite"} <= set(
        tflite_export.__all__
    )


def test_version_is_the_changelogs():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"## \[(.+?)\]", text)[1] == tf_lsq.__version__
