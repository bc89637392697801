"""The writer refuses what LiteRT computes wrongly, which is measured here."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest
from harness import crashes, guard_cases, run_files
from harness.guard_cases import CASES, ENDS, REFUSES, WRONG

from tflite_export.demo.conversion import for_the_web
from tflite_export.file import (
    ModelInfo,
    TensorQuantization,
    flatbuffer,
    guards,
    rewritten,
    to_bytes,
)
from tflite_export.metadata_files import write_metadata

NAMES = [case.name for case in CASES]
BY_NAME = dict(zip(NAMES, CASES, strict=True))


def inputs_of(case, graph):
    """Codes for the inputs of a file, the same for both of a case."""
    rng, codes = np.random.default_rng(0), {}
    for name in graph.inputs.values():
        one = graph.tensors[name]
        if name not in case.codes:
            codes[name] = guard_cases.random_codes(one, rng)
            continue
        given = case.codes[name][tuple(slice(size) for size in one.shape)]
        codes[name] = given.astype(one.dtype)
    return codes


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What LiteRT computes, by file and kernels; a text where it computes nothing."""
    folder, output = (tmp_path_factory.mktemp(name) for name in ("files", "codes"))
    for case in CASES:
        for kind in ("wrong", "right"):
            graph, stem = getattr(case, kind), folder / f"{case.name}.{kind}"
            content = case.finish(rewritten(graph))
            stem.with_name(f"{stem.name}.tflite").write_bytes(content)
            np.savez(stem.with_name(f"{stem.name}.npz"), **inputs_of(case, graph))
    crashes.run_past([sys.executable, run_files.__file__, folder, output], output)
    found = {}
    for path in output.iterdir():
        name, kind, kernels, suffix = path.name.split(".")
        if suffix == "error":
            found[name, kind, kernels] = path.read_text()
        else:
            with np.load(path) as arrays:
                found[name, kind, kernels] = arrays["output"]
    return found


def differences(case, graph, codes):
    """By how much codes are off; None if they are not of the output's type."""
    values = case.value(guard_cases.values_of(graph, inputs_of(case, graph)))
    output = graph.tensors["output"]
    if codes.dtype != np.dtype(output.dtype) or codes.shape != output.shape:
        return None
    return np.abs(codes - guard_cases.expected_codes(graph, values))


def test_there_is_a_case_for_every_guard_and_operator():
    assert {case.guard for case in CASES} == {guard.name for guard in guards.GUARDS}
    for guard in guards.GUARDS:
        codes = {c.wrong.ops[0].code for c in CASES if c.guard == guard.name}
        assert codes >= {*guard.ops} - {"LSTM"}, guard.name
    assert len(NAMES) == len({*NAMES})
    assert len({guard.name for guard in guards.GUARDS}) == len(guards.GUARDS)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_refused(name):
    case = BY_NAME[name]
    [guard] = [guard for guard in guards.GUARDS if guard.name == case.guard]
    assert case.effect in guard.otherwise or case.effect == REFUSES
    op = case.wrong.ops[0]
    with pytest.raises(ValueError, match="operators that LiteRT computes right") as e:
        to_bytes(case.wrong)
    lines = [line for line in str(e.value).splitlines() if guard.expected in line]
    assert lines, str(e.value)
    start = f"  {op.code} to `{op.outputs[0]}`"
    assert all(line.startswith(start) and guard.remedy in line for line in lines)
    assert all("Received: " in line for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_the_nearest_right_file_is_written_and_right(name, results):
    case = BY_NAME[name]
    to_bytes(case.right)
    for kernels in run_files.RESOLVERS:
        codes = results[name, "right", kernels]
        assert not isinstance(codes, str), codes
        off = differences(case, case.right, codes)
        assert off is not None and off.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_litert_does_not_compute_the_refused_file(name, results):
    case = BY_NAME[name]
    found = [results[name, "wrong", kernels] for kernels in run_files.RESOLVERS]
    messages = [codes for codes in found if isinstance(codes, str)]
    computed = [codes for codes in found if not isinstance(codes, str)]
    if case.effect == ENDS:
        assert any(text.startswith(run_files.CRASHED) for text in messages)
    elif case.effect == REFUSES:
        assert len(messages) == len(found)
        assert not any(text.startswith(run_files.CRASHED) for text in messages)
    else:
        assert case.effect == WRONG
        off = [differences(case, case.wrong, codes) for codes in computed]
        assert any(one is None or one.max() > 1 for one in off)


def test_all_operators_are_named_at_once():
    graph = BY_NAME["moved_by_SLICE"].wrong
    [op], other = graph.ops, dataclasses.replace(graph.tensors["output"], name="other")
    tensors = {**graph.tensors, "other": other}
    ops = [op, dataclasses.replace(op, outputs=["other"])]
    with pytest.raises(ValueError) as error:
        to_bytes(dataclasses.replace(graph, tensors=tensors, ops=ops))
    found = [line.split(":")[0] for line in str(error.value).splitlines()[1:]]
    assert found == ["  SLICE to `output`", "  SLICE to `other`"]


@pytest.mark.parametrize("name", ["moved_by_GATHER", "scale_of_bias_of_CONV_2D"])
def test_files_of_other_tools_are_rewritten_whatever_they_compute(name, tmp_path):
    content = rewritten(BY_NAME[name].wrong)
    assert rewritten(flatbuffer.from_bytes(content)) == content
    path = tmp_path / "other.tflite"
    path.write_bytes(content)
    write_metadata(path, info=ModelInfo("Other"))
    found = flatbuffer.from_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="operators that LiteRT computes right"):
        to_bytes(found)
    tensors = flatbuffer.from_bytes(content).tensors
    assert found.tensors.keys() == tensors.keys()
    for one in tensors.values():
        assert found.tensors[one.name].quantization == one.quantization
    for_the_web(content)


def test_operators_that_name_no_tensor_are_named_first():
    graph = BY_NAME["moved_by_GATHER"].wrong
    ops = [dataclasses.replace(graph.ops[0], outputs=["missing"])]
    with pytest.raises(ValueError, match="must name tensors of the graph"):
        to_bytes(dataclasses.replace(graph, ops=ops))


@pytest.mark.parametrize("code", ["ADD", "SUB"])
@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_scales_of_sums_have_an_exact_limit(code, dtype):
    graph = BY_NAME[f"steep_{code}_in_{dtype}"].wrong
    limit = np.float32(2.0**-20 if (code, dtype) == ("SUB", "int8") else 2.0**-15)
    for scale, refused in ((limit, True), (np.nextafter(limit, np.float32(1)), False)):
        grid = TensorQuantization(np.array([scale]), 0)
        output = dataclasses.replace(graph.tensors["output"], quantization=grid)
        tensors = {**graph.tensors, "output": output}
        found = guards.violations(dataclasses.replace(graph, tensors=tensors))
        assert bool(found) == refused
