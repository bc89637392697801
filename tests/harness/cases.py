"""Networks whose files run elsewhere, and what the integer twin computes of them."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import test_conformance
import test_conformance_int16
import test_graph_functions
import test_graph_normalizing

import tf_lsq
from harness import random_graphs, tiny
from tf_lsq._compat import keras
from tf_lsq.norm_forms import NORM_FORMS
from tflite_export.build import BuiltFile
from tflite_export.file import FAULTS, TFLiteGraph, to_bytes
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


def conformance_cases(**options: Any) -> Iterator[Case]:
    """Yields every layer and function of the conformance tests, at all bits.

    Args:
        **options: Of `quantize_model`.
    """
    for name, (_, build) in test_conformance.CASES.items():
        yield from _at_all_bits(f"layer_{name}", build, **options)
    for name, (functions, rank) in test_graph_functions.MODELS.items():

        def build(functions: Any = functions, rank: Any = rank) -> keras.Model:
            return test_graph_functions.model_of(*functions, rank=rank)

        first = {"step_init": "max"} if name in test_graph_functions.SQUARES else {}
        yield from _at_all_bits(f"function_{name}", build, **first, **options)
    for name, function in test_conformance_int16.CASES.items():
        build = test_conformance_int16.after_sum(function)
        yield from _at_all_bits(
            f"int16_{name}", build, test_conformance_int16.overrides_of, **options
        )
    yield from _normalizations(**options)


def _normalizations(**options: Any) -> Iterator[Case]:
    """Yields normalizations in the forms of the target, at 8 bits."""
    bits = BITS[0]
    both = {"weight_bits": bits, "activation_bits": bits, **options}
    for name, build in test_graph_normalizing.CASES.items():
        for form in NORM_FORMS[options.get("target", "phone")]:
            title = f"norm_{name}_in_{form.name}_{bits}"
            make = _student(title, build, norm_form=form.name, **both)
            yield Case(title, make, STORAGES[bits])


def random_cases(
    count: int, first_seed: int = FIRST_SEED, **options: Any
) -> Iterator[Case]:
    """Yields random networks, one per seed.

    Args:
        count: How many.
        first_seed: The first seed.
        **options: Of `quantize_model`.
    """
    for number in range(first_seed, first_seed + count):
        recipe = random_graphs.drawn(number)
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
            f"random_{number}",
            build,
            **bits,
            per_channel=recipe.per_channel,
            **options,
        )
        yield Case(f"random_{number}", make, (recipe.storage,))


def network_cases(**options: Any) -> Iterator[Case]:
    """Yields ResNet-8, MobileNetV2, two transformers and a ConvNeXt, at all bits.

    Args:
        **options: Of `quantize_model`.
    """
    from benchmarks.contestants import resnet8

    yield from _at_all_bits("net_resnet8", resnet8, **options)
    yield from _at_all_bits("net_mobilenet_v2", _mobilenet_v2, **options)
    # More than 32 tokens, so that their probabilities have 16 bits on phones.
    yield from _at_all_bits("net_kwt1", _keyword_transformer, **options)
    yield from _at_all_bits("net_mobilevit", _mobilevit, **options)
    convnext = test_graph_normalizing.small_convnext
    yield from _at_all_bits("net_convnext", convnext, **options)


def _mobilenet_v2() -> keras.Model:
    """Returns MobileNetV2 0.35 for small images, with random weights."""
    return keras.applications.MobileNetV2(
        input_shape=(64, 64, 3), alpha=0.35, weights=None, classes=10
    )


def _keyword_transformer() -> keras.Model:
    """Returns a keyword transformer of 2 blocks for 40 time steps."""
    return tf_lsq.models.kwt1((40, 16), 10, width=0.25, blocks=2)


def _mobilevit() -> keras.Model:
    """Returns a narrow MobileViT-XXS for small images."""
    return tf_lsq.models.mobilevit_xxs((32, 32, 3), 10, width=0.25)


def _at_all_bits(
    name: str, build: Any, overrides_of: Any = None, **options: Any
) -> Iterator[Case]:
    """Yields a network at 8, 4 and 2 bits."""
    for bits in BITS:
        both = {"weight_bits": bits, "activation_bits": bits, **options}
        if overrides_of is not None:
            both["overrides"] = functools.partial(overrides_of, bits=bits)
        make = _student(f"{name}_{bits}", build, **both)
        yield Case(f"{name}_{bits}", make, STORAGES[bits])


def _student(
    name: str, build: Any, overrides: Any = None, **options: Any
) -> Callable[[], Any]:
    """Returns what makes a quantized model with random weights, and its inputs.

    Args:
        name: Its name.
        build: Builds the float model.
        overrides: Returns the overrides for that model; None: none.
        **options: Of `quantize_model`.
    """

    def make() -> tuple[keras.Model, np.ndarray]:
        keras.backend.clear_session()  # Names begin again.
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        model = tiny.randomize(build(), rng)
        chosen = {"overrides": overrides(model)} if overrides is not None else {}
        student = tf_lsq.quantize_model(model, **options, **chosen)
        x = tiny.random_inputs(model, rng)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "These tensors use less than")
            tf_lsq.calibrate(student, x)
        tf_lsq.round_biases(student)
        return student, x[:EXAMPLES]

    return make


def add_arguments(
    parser: argparse.ArgumentParser, *, random: int, examples: int
) -> None:
    """Adds the arguments that choose cases.

    Args:
        parser: Gets `--share`, `--seed`, `--random` and `--examples`.
        random: How many random networks there are, unless an argument says it.
        examples: The same for how many examples each file has.
    """
    parser.add_argument("--share", type=int, default=1, help="run one case in so many")
    parser.add_argument("--seed", type=int, default=0, help="which of the cases")
    parser.add_argument("--random", type=int, default=random, help="random networks")
    parser.add_argument("--examples", type=int, default=examples)


def drawn_cases(share: int, seed: int, random: int) -> list[Case]:
    """Returns a share of all cases.

    Args:
        share: One case in so many.
        seed: Draws the random networks, and the cases.
        random: How many random networks there are.
    """
    chosen = [
        *conformance_cases(),
        *random_cases(random, FIRST_SEED + seed),
        *network_cases(),
    ]
    order = np.random.default_rng(seed).permutation(len(chosen))
    return [chosen[place] for place in order[::share]]


def write_case(
    case: Case,
    folder: Path,
    runtime: Runtime,
    examples: int,
    whole: Iterable[str] = (),
) -> int:
    """Writes the files of a case, their inputs and the twin's codes of every tensor.

    Args:
        case: The case.
        folder: Gets NAME.tflite, NAME.npz, NAME.expected and NAME.json, which describes
            the tensors, for each file.
        runtime: What the twin reproduces.
        examples: How many examples the files have.
        whole: Also writes each file as an app gets it, in which only its outputs can
            be read: once for each of these types of inputs and outputs.

    Returns:
        How many files were written; those with layers in float are left out.
    """
    written = 0
    student, x = case.make()
    x = x[:examples]
    for storage in case.storages:
        built = tiny.built(student, storage)
        if any(node.is_float for node in built.frozen.nodes):
            continue
        nodes = [n.name for n in built.frozen.nodes if n.grid is not None]
        probe = built.graph.with_outputs(nodes)
        inputs = file_inputs(built.graph, built.frozen, [x])
        starting = input_codes(built.frozen, [x])
        codes = {
            kernels: twin_codes(built.frozen, starting, runtime.with_kernels(kernels))
            for kernels in KERNELS
        }
        name = f"{case.name}_{storage}"
        write_file(folder / name, probe, inputs, codes, described(built, probe))
        written += 1
        for dtype in whole:
            app = tiny.built(student, storage, input_type=dtype, output_type=dtype)
            suffix = "whole" if dtype == "int8" else f"whole_{dtype}"
            _write_whole(folder / f"{name}_{suffix}", app, x, codes)
            written += 1
    return written


def write_case_once(
    case: Case,
    folder: Path,
    runtime: Runtime,
    examples: int,
    whole: Iterable[str] = (),
) -> int:
    """Writes the files of a case as `write_case` does, if they are not there yet."""
    done = folder / f"{case.name}.done"
    if not done.exists():
        done.write_text(str(write_case(case, folder, runtime, examples, whole)))
    return int(done.read_text())


def _write_whole(
    stem: Path, built: BuiltFile, x: np.ndarray, codes: dict[str, dict[str, np.ndarray]]
) -> None:
    """Writes a file in which only its outputs can be read."""
    graph, frozen = built.graph, built.frozen
    ends = {
        kernels: {graph.outputs[end]: tensors[t] for end, t in frozen.outputs.items()}
        for kernels, tensors in codes.items()
    }
    kinds = {end: Described() for end in graph.outputs}
    write_file(stem, graph, file_inputs(graph, frozen, [x]), ends, kinds)


@dataclasses.dataclass(frozen=True)
class Described:
    """What computes an output of a file.

    Attributes:
        kind: What the table of results calls it, by the kind of its operator.
        operators: The same by TFLite's operators.
        inputs: The outputs of the file that it is computed from.
    """

    kind: str = "whole file"
    operators: str = "whole file"
    inputs: list[str] = dataclasses.field(default_factory=list)


def write_file(
    stem: Path,
    graph: TFLiteGraph,
    inputs: dict[str, np.ndarray],
    codes: dict[str, dict[str, np.ndarray]],
    described: dict[str, Described],
) -> None:
    """Writes a file, its inputs, what it should compute, and what computes it.

    Args:
        stem: Path of the files, without a suffix.
        graph: The file.
        inputs: Its inputs by signature name.
        codes: Kernels -> tensor -> codes.
        described: Output -> what computes it.
    """
    expected = {
        f"{kernels}/{end}": tensors[tensor]
        for kernels, tensors in codes.items()
        for end, tensor in graph.outputs.items()
    }
    np.savez_compressed(stem.with_suffix(".npz"), **inputs)
    with stem.with_suffix(".expected").open("wb") as file:
        np.savez_compressed(file, **expected)
    plain = {end: dataclasses.asdict(one) for end, one in described.items()}
    stem.with_suffix(".json").write_text(json.dumps(plain))
    stem.with_suffix(".tflite").write_bytes(to_bytes(graph))


def described(built: BuiltFile, probe: TFLiteGraph) -> dict[str, Described]:
    """Returns what computes each output of a file whose tensors can be read.

    Args:
        built: The file.
        probe: Its graph, with all integer tensors as outputs.
    """
    ends = {tensor: end for end, tensor in probe.outputs.items()}
    nodes = built.frozen.by_name()
    known = {*ends, *probe.inputs.values()}
    found = {}
    for tensor, end in ends.items():
        container = getattr(nodes[tensor].weight, "container", "int8")
        suffix = "" if container == "int8" else f", {container}"
        if nodes[tensor].integer_grid.in_int16:
            suffix += " in int16"
        codes, sources = _computed_by(probe, tensor, known)
        found[end] = Described(
            nodes[tensor].kind + suffix,
            _faulty(probe, tensor) or " ".join(dict.fromkeys(codes)) + suffix,
            [ends[source] for source in sources if source in ends],
        )
    return found


def _faulty(graph: TFLiteGraph, tensor: str) -> str:
    """Returns the name of the fault of the operator before a tensor, "" without one."""
    op = graph.producers().get(tensor)
    names = [
        fault.name
        for fault in FAULTS
        if op is not None and fault.code == op.code and fault.applies(op, graph)
        if not fault.refused
    ]
    return names[0] if names else ""


def _computed_by(
    graph: TFLiteGraph, tensor: str, known: set[str]
) -> tuple[list[str], list[str]]:
    """Returns the operators that compute a tensor from known ones, and these."""
    producers = graph.producers()
    if tensor not in producers:
        return ["input"], []
    op = producers[tensor]
    codes, sources = [], []
    for name in op.inputs:
        if name in known:
            sources.append(name)
        elif name in producers:
            more_codes, more_sources = _computed_by(graph, name, known)
            codes += more_codes
            sources += more_sources
    return [*codes, op.code], sources
