"""Networks whose files run elsewhere, and what the integer twin computes of them."""

from __future__ import annotations

import dataclasses
import json
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import test_conformance
import test_graph_functions
from harness import random_graphs, tiny
from hypothesis import HealthCheck, Phase, given, seed, settings

import tf_lsq
from tf_lsq._compat import keras
from tflite_export.file import to_bytes
from tflite_export.runtimes import KERNELS, Runtime
from tflite_export.twin import twin_codes
from tflite_export.verification.values import file_inputs, input_codes

EXAMPLES = 32
BITS = (8, 4, 2)
STORAGES = {8: ("int8",), 4: ("int8", "packed"), 2: ("int8", "packed")}
FIRST_SEED = 20260000


@dataclasses.dataclass(frozen=True)
class Case:
    """A network that is exported.

    Attributes:
        name: Its name, unique.
        make: Returns a quantized model and its inputs.
        storages: How its kernels are stored: a file for each.
    """

    name: str
    make: Callable[[], tuple[keras.Model, np.ndarray]]
    storages: tuple[str, ...]


def conformance_cases() -> Iterator[Case]:
    """Yields every layer and function of the conformance tests, at all bits."""
    for name, (_, build) in test_conformance.CASES.items():
        yield from _at_all_bits(f"layer_{name}", build)
    for name, (functions, rank) in test_graph_functions.MODELS.items():

        def build(functions: Any = functions, rank: Any = rank) -> keras.Model:
            return test_graph_functions.model_of(*functions, rank=rank)

        options = {"step_init": "max"} if name in test_graph_functions.SQUARES else {}
        yield from _at_all_bits(f"function_{name}", build, **options)


def random_cases(count: int, first_seed: int = FIRST_SEED) -> Iterator[Case]:
    """Yields random networks, one per seed."""
    for number in range(first_seed, first_seed + count):
        recipe = _drawn(number)
        bits = dict(
            zip(
                ("weight_bits", "activation_bits", "first_last_bits"),
                recipe.bits,
                strict=True,
            )
        )

        def build(recipe: Any = recipe) -> keras.Model:
            return random_graphs.build(recipe)

        make = _student(
            f"random_{number}", build, **bits, per_channel=recipe.per_channel
        )
        yield Case(f"random_{number}", make, (recipe.storage,))


def network_cases() -> Iterator[Case]:
    """Yields ResNet-8 and MobileNetV2, at all bits."""
    from benchmarks.contestants import resnet8

    yield from _at_all_bits("net_resnet8", resnet8)
    yield from _at_all_bits("net_mobilenet_v2", _mobilenet_v2)


def _mobilenet_v2() -> keras.Model:
    """Returns MobileNetV2 0.35 for small images, with random weights."""
    return keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), alpha=0.35, weights=None, classes=10
    )


def _at_all_bits(name: str, build: Any, **options: Any) -> Iterator[Case]:
    """Yields a network at 8, 4 and 2 bits."""
    for bits in BITS:
        both = {"weight_bits": bits, "activation_bits": bits, **options}
        make = _student(f"{name}_{bits}", build, **both)
        yield Case(f"{name}_{bits}", make, STORAGES[bits])


def _student(name: str, build: Any, **options: Any) -> Callable[[], Any]:
    """Returns what makes a quantized model with random weights, and its inputs."""

    def make() -> tuple[keras.Model, np.ndarray]:
        keras.backend.clear_session()  # Names begin again.
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        model = tiny.randomize(build(), rng)
        student = tf_lsq.quantize_model(model, **options)
        x = rng.normal(0, 1, (64, *model.input_shape[1:])).astype(np.float32)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "These tensors use less than")
            tf_lsq.calibrate(student, x)
        tf_lsq.round_biases(student)
        return student, x[:EXAMPLES]

    return make


def _drawn(number: int) -> random_graphs.Recipe:
    """Returns the random network of a seed."""
    found: list[random_graphs.Recipe] = []

    @seed(number)
    @settings(
        max_examples=5,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(recipe=random_graphs.recipes())
    def draw(recipe: random_graphs.Recipe) -> None:
        found.append(recipe)

    draw()
    return found[-1]  # The first ones are the simplest.


def write_case(case: Case, folder: Path, runtime: Runtime) -> int:
    """Writes the files of a case, their inputs and the twin's codes of every tensor.

    Args:
        case: The case.
        folder: Gets NAME.tflite, NAME.npz and NAME.expected.npz for each file.
        runtime: What the twin reproduces.

    Returns:
        How many files were written; those with layers in float are left out.
    """
    written = 0
    student, x = case.make()
    for storage in case.storages:
        built = tiny.built(student, storage)
        if any(node.is_float for node in built.frozen.nodes):
            continue
        stem = folder / f"{case.name}_{storage}"
        nodes = [n.name for n in built.frozen.nodes if n.grid is not None]
        probe = built.graph.with_outputs(nodes)
        inputs = file_inputs(built.graph, built.frozen, [x])
        codes_of_inputs = input_codes(built.frozen, [x])
        expected = {}
        for kernels in KERNELS:
            codes = twin_codes(
                built.frozen, codes_of_inputs, runtime.with_kernels(kernels)
            )
            for name, tensor in probe.outputs.items():
                expected[f"{kernels}/{name}"] = codes[tensor]
        kinds = {n.name: _kind(n) for n in built.frozen.nodes}
        described = {name: kinds[tensor] for name, tensor in probe.outputs.items()}
        np.savez_compressed(stem.with_suffix(".npz"), **inputs)
        with stem.with_suffix(".expected").open("wb") as file:
            np.savez_compressed(file, **expected)
        stem.with_suffix(".json").write_text(json.dumps(described))
        stem.with_suffix(".tflite").write_bytes(to_bytes(probe))
        written += 1
    return written


def _kind(node: Any) -> str:
    """Returns what the table of results calls an operator."""
    container = getattr(node.weight, "container", "int8")
    return node.kind if container == "int8" else f"{node.kind}, {container}"
