"""Project rules: import direction, public names, version."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

import tf_lsq
import tflite_export
from tf_lsq import policy
from tflite_export import build, cli, demo, freezing, runtimes
from tflite_export.file import metadata
from tflite_export.reports import snippets
from tflite_export.targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
# Rooms (subpackages) and modules in order: each imports only from those before it.
TRAINING = [
    "_compat3",
    "_compat",
    "data",
    "pixels",
    "lsq.ranges",
    "lsq.plain",
    "lsq.first_steps",
    "lsq.lsq_plus",
    "lsq.fast",
    "lsq",
    "layers.quantizers",
    "layers.constants",
    "layers.quantize_configs",
    "layers.attributes",
    "layers.grouped",
    "layers.wrapper",
    "layers.point",
    "layers.pixel_point",
    "layers.masked_point",
    "layers.loans",
    "layers",
    "graph.functions",
    "graph.keras3",
    "graph.kinds",
    "graph.elementwise",
    "graph.tabulated",
    "graph.unary",
    "graph.nodes",
    "graph.float_layers",
    "graph.copying",
    "graph.moving_layers",
    "graph.product_layers",
    "graph.limiting",
    "graph.keras3.arguments",
    "graph.keras3.layer",
    "graph.lowering",
    "graph.activations",
    "graph.convolutions",
    "graph.integers",
    "graph.functions.recorded",
    "graph.norm_layers",
    "graph.rewriting",
    "graph.normalizing",
    "graph.scalings",
    "graph.norm_folding",
    "graph.norm_expanding",
    "graph.python_functions",
    "graph.shape_values",
    "graph.masks",
    "graph.functions.values",
    "graph.moving",
    "graph.products",
    "graph.functions.activations",
    "graph.functions.reductions",
    "graph.functions.kernels",
    "graph.functions.shapes",
    "graph.functions.joining",
    "graph.functions.slicing",
    "graph.functions.selecting",
    "graph.functions.images",
    "graph.functions.indices",
    "graph.functions.resizing",
    "graph.functions.pooling",
    "graph.functions.table",
    "graph.projections",
    "graph.attention",
    "graph.layer_checks",
    "graph.layer_table",
    "graph.expansions",
    "graph.reader",
    "graph.float_part",
    "graph.fusing",
    "graph.folding",
    "graph.pairing",
    "graph.evaluation",
    "graph.keras3.graph",
    "graph.keras3.recorder",
    "graph.keras3.values",
    "graph.keras3.reductions",
    "graph.keras3.shapes",
    "graph.keras3.products",
    "graph.keras3.images",
    "graph.keras3.functions",
    "graph.keras3.settings",
    "graph.keras3.twins",
    "graph.keras3.translation",
    "graph.keras3.differences",
    "graph.keras3.comparison",
    "graph.keras3.models",
    "graph",
    "training.distribution",
    "training.learned_steps",
    "training.biases",
    "training.arrivals",
    "training.narrow_ranges",
    "training.lost_values",
    "training.pixel_ranges",
    "training.first_batch",
    "training.range_watch",
    "training.losses",
    "training.other_keras",
    "training.optimizers",
    "training.recipes",
    "training.model",
    "training.calibration",
    "training.batch_norm",
    "training.distillation",
    "training.oscillation",
    "training.plots",
    "training.probe",
    "training.diagnostics",
    "training",
    "overrides",
    "norm_forms",
    "policy",
    "pixel_inputs",
    "plan",
    "gamma",
    "layout",
    "keras3.views",
    "keras3.losses",
    "keras3.optimizers",
    "keras3.objects",
    "keras3.model",
    "keras3.distillation",
    "keras3",
    "quantize",
    "to_float",
    "comparison",
    "scheme",
    "models.parts",
    "models.convolutional",
    "models.convnext",
    "models.keyword_transformer",
    "models.mobilevit",
    "models",
    "",
]
EXPORT = [
    "atomic_file",
    "cpp",
    "errors",
    "pictures",
    "quiet",
    "file.checked_bytes",
    "file.attached_files",
    "library_messages",
    "file.packing",
    "file.quantized_tensor",
    "file.releases",
    "file.tflite_graph",
    "file.ends",
    "file.tflite_operators",
    "file.faults",
    "file.guard_conditions",
    "file.guards",
    "file.flatbuffer",
    "file.metadata",
    "file.rewriting",
    "file.labels",
    "file.metadata_schema",
    "file.metadata_format",
    "file.standard_metadata",
    "file.pixel_codes",
    "file.score_types",
    "file.metadata_additions",
    "file",
    "targets.tool",
    "targets.types",
    "targets.conditions",
    "targets.phone",
    "targets.image_conditions",
    "targets.edgetpu",
    "targets.ethos_u",
    "targets.symmetric",
    "targets.tflm",
    "targets.queries",
    "targets.edgetpu_compiler",
    "targets.tflm_arena",
    "targets.vela",
    "targets",
    "consumers.types",
    "consumers.conditions",
    "consumers.gpu_conditions",
    "consumers.rules",
    "consumers.image_apps",
    "consumers.runtimes",
    "consumers.gpu",
    "consumers.web",
    "consumers.queries",
    "consumers.choices",
    "consumers",
    "inspection",
    "runtimes.rounding",
    "runtimes.arithmetic",
    "runtimes.softmax",
    "runtimes.tables",
    "runtimes.runtime",
    "runtimes.litert",
    "runtimes.compiled",
    "runtimes",
    "freezing.grids",
    "freezing.trained",
    "freezing.sizes",
    "freezing.reader",
    "freezing.containers",
    "freezing.weights",
    "freezing.freeze",
    "freezing.biases",
    "freezing",
    "operators.builder",
    "operators.limits",
    "operators.base",
    "operators.kernels",
    "operators.elementwise",
    "operators.activations",
    "operators.pooling",
    "operators.products",
    "operators.resizing",
    "operators.moving",
    "operators.regridding",
    "operators.indexing",
    "operators.normalizing",
    "operators.foreign",
    "operators",
    "build",
    "twin",
    "reports.verification_report",
    "reports.export_report",
    "reports.code_statistics",
    "reports.templating",
    "reports.snippets",
    "reports.float_graph",
    "reports.latency",
    "reports",
    "reports.html_report",
    "verification.values",
    "verification.structure",
    "verification.weights",
    "verification.points",
    "verification.compiled",
    "verification.end_to_end",
    "verification.verify",
    "verification",
    "storages",
    "layer_reports",
    "target_tools",
    "c_source",
    "metadata_files",
    "check",
    "pipeline",
    "snippet_check",
    "bits.knapsack",
    "bits.suggestion",
    "bits.compiled",
    "bits.mixed_bits",
    "bits.budget",
    "bits.sensitivity",
    "bits.search",
    "bits",
    "loading",
    "demo.conversion",
    "demo.litertjs",
    "demo.outputs",
    "demo.pixels",
    "demo.spectrogram",
    "demo.sound",
    "demo.page",
    "demo.server",
    "demo",
    "",
    "cli",
    "command",
]
# A room is imported through its `__init__`, except for these modules.
OPEN = {"tf_lsq.lsq.fast", "tf_lsq.lsq.lsq_plus", "tf_lsq.training.plots"}
OPEN |= {"tflite_export.file.metadata", "tflite_export.file.standard_metadata"}
OPEN |= {"tflite_export.runtimes.arithmetic"}
OPEN |= {"tflite_export.runtimes.softmax", "tflite_export.runtimes.tables"}
# Needs matplotlib.
OPEN |= {"tflite_export.reports.html_report"}
# What the exporter may import from the training library, besides its public names,
# `data`, `pixels` and Keras itself.
KNOWN_TO_EXPORT = {
    "bits.mixed_bits": {"graph", "policy"},
    "bits.search": {"graph", "policy"},
    "bits.sensitivity": {"graph", "layers", "lsq.lsq_plus"},
    "bits.suggestion": {"training.plots"},
    "check": {"graph", "layers", "training"},
    "freezing": {"training"},
    "freezing.containers": {"graph"},
    "freezing.sizes": {"graph", "training"},
    "freezing.reader": {"graph", "layers", "training"},
    "loading": {"graph"},
    "pipeline": {"training"},
    "reports.html_report": {"training.plots"},
    "twin": {"keras3"},
}
FREE_FOR_EXPORT = {"", "_compat", "data", "lsq", "pixels"}


def name_of(path):
    """The dotted name of a module's file; an `__init__` has the name of its room."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def modules(package):
    """Name -> file of every module of a package."""
    files = sorted((ROOT / package).rglob("*.py"))
    return {name_of(path): path for path in files}


MODULES = {**modules("tf_lsq"), **modules("tflite_export")}


def imports(path):
    """Dotted names of the modules, rooms and packages that a file imports."""
    name = name_of(path)
    base = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = base.split(".")[: len(base.split(".")) - max(node.level - 1, 0)]
            source = [*parts, *([node.module] if node.module else [])]
            source = ".".join(source) if node.level else node.module
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in MODULES else source


def short(name):
    """The name of a module in its package."""
    return name.partition(".")[2]


@pytest.mark.parametrize(
    ("package", "order"), [("tf_lsq", TRAINING), ("tflite_export", EXPORT)]
)
def test_imports_go_one_way(package, order):
    assert {short(name) for name in modules(package)} == set(order)
    assert len(order) == len(set(order))
    for name, path in modules(package).items():
        if name == "tflite_export":  # It loads its names lazily.
            continue
        for source in imports(path):
            if source.split(".")[0] == package and source != name:
                assert order.index(short(source)) < order.index(short(name)), (
                    f"{name} must not import {source}, which comes after it"
                )


def test_rooms_are_imported_through_their_init():
    for name, path in MODULES.items():
        for source in imports(path):
            room = source.rpartition(".")[0]
            inside = name == room or name.startswith(f"{room}.")
            if source in MODULES and room.count(".") == 1 and source not in OPEN:
                assert inside, f"{name} must import from {room}, not from {source}"


def test_the_exporter_imports_little_from_training():
    for name, path in modules("tflite_export").items():
        found = {short(s) for s in imports(path) if s.split(".")[0] == "tf_lsq"}
        allowed = KNOWN_TO_EXPORT.get(short(name), set()) | FREE_FOR_EXPORT
        assert found <= allowed, f"{name} must not import {sorted(found - allowed)}"


def test_training_imports_nothing_from_export():
    for path in modules("tf_lsq").values():
        assert "tflite_export" not in {s.split(".")[0] for s in imports(path)}


def test_only_compat_imports_tfmot_and_keras():
    for name, path in MODULES.items():
        used = {source.split(".")[0] for source in imports(path)}
        if name != "tf_lsq._compat":
            assert not used & {"tensorflow_model_optimization", "tf_keras", "keras"}


def strict():
    """The modules whose types are checked strictly; none of them needs TensorFlow."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pyright"]
    listed = [ROOT / path for path in settings["strict"]]
    files = [f for p in listed for f in (sorted(p.rglob("*.py")) or [p])]
    return {name_of(path) for path in files}


@pytest.mark.parametrize("module", sorted(strict()))
def test_the_exact_part_of_export_needs_no_tensorflow(module):
    used = {s.split(".")[0] for s in imports(MODULES[module])}
    assert not used & {"tensorflow", "tf_lsq"}


def test_every_module_without_untyped_imports_is_checked_strictly():
    untyped = {"tensorflow", "tf_keras", "keras", "tensorflow_model_optimization"}
    untyped |= {"tf_lsq", "matplotlib", "jinja2", "ai_edge_litert", "lazy_loader"}
    untyped |= {"tflite_export.loading"}  # Loads Keras models.
    while True:
        reached = {
            name
            for name, path in MODULES.items()
            if name not in untyped
            and any(s in untyped or s.split(".")[0] in untyped for s in imports(path))
        }
        if not reached:
            break
        untyped |= reached
    missing = set(MODULES) - untyped - strict()
    assert not missing, f"{sorted(missing)} must be in `strict` of pyproject.toml"


def test_lists_repeated_without_tensorflow_equal_the_originals():
    assert set(policy.TARGETS) == set(TARGETS)
    symmetric = {name for name, target in TARGETS.items() if target.symmetric}
    assert set(policy.SYMMETRIC_TARGETS) == symmetric
    assert (cli.MIN_NUM_BITS, cli.MAX_NUM_BITS) == (
        tf_lsq.lsq.MIN_NUM_BITS,
        tf_lsq.lsq.MAX_NUM_BITS,
    )
    assert cli.END_TYPES == build.IO_TYPES
    assert cli.ACCELERATORS == runtimes.ACCELERATORS
    assert cli.BIAS_GRIDS == freezing.BIAS_GRIDS
    assert list(cli.LANGUAGES) == [*snippets.LANGUAGES, "cpp"]
    assert cli.BOXES == demo.BOXES
    assert cli.METADATA == metadata.CONTENTS


def test_modules_after_freeze_use_the_word_scale_not_step():
    for name in ("operators.builder", "file.flatbuffer", "file.tflite_graph"):
        text = MODULES[f"tflite_export.{name}"].read_text()
        assert not re.search(r"\bstep\b", text), name


@pytest.mark.parametrize("package", [tf_lsq, tflite_export])
def test_public_names_are_sorted_and_exist(package):
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__doc__


def test_the_promised_public_names_exist():
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


def test_the_version_matches_the_changelog():
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(r"## \[(.+?)\]", text)[1] == tf_lsq.__version__
