"""`CompiledModel` on the CPU, and on a GPU where `make gpu` has set up a driver."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu import vulkan
from harness import tiny
from harness.installed import is_installed

import tflite_export
from tflite_export.library_messages import collected_messages
from tflite_export.runtimes import CompiledRunner, Runner
from tflite_export.runtimes.compiled import _reason

ROOT = Path(__file__).parents[1]
DRIVER = ROOT / ".vulkan"
_SCRIPT = """
import json, sys
import test_runtimes_compiled as test
print(json.dumps(test.verified_on_the_gpu(sys.argv[1])))
"""


def codes_of(built, rng):
    """Random input codes of a file with one input."""
    [(end, tensor)] = built.graph.inputs.items()
    shape = (5, *built.graph.tensors[tensor].shape[1:])
    return {end: rng.integers(-128, 128, shape).astype(np.int8)}


@pytest.mark.parametrize("storage", ["int8", "packed"])
def test_it_computes_the_codes_of_the_interpreter(storage, rng):
    student, _ = tiny.calibrated(tiny.pre_activation, rng)
    built = tiny.built(student, storage)
    inputs = codes_of(built, rng)
    wanted = Runner(built.graph, content=built.content).run(inputs)
    with CompiledRunner(built.graph, "cpu", built.content) as runner:
        found = runner.run(inputs)
        assert runner.device == ""
    assert found.keys() == wanted.keys()
    for name, codes in wanted.items():
        np.testing.assert_array_equal(found[name], codes)


def test_it_prints_nothing(rng, capfd):
    built = tiny.built(tiny.calibrated(tiny.residual, rng)[0])
    with CompiledRunner(built.graph, "cpu") as runner:
        runner.run(codes_of(built, rng))
    assert capfd.readouterr() == ("", "")


def test_unknown_accelerators_are_refused(exported):
    student, path, x = exported
    graph = tiny.built(student).graph
    with pytest.raises(ValueError, match=r"`accelerator` must be .*cpu.*gpu.* 'npu'"):
        CompiledRunner(graph, "npu")
    with pytest.raises(ValueError, match=r"`accelerator` must be .* 'npu'"):
        tflite_export.verify_tflite(path, student, x, accelerator="npu")
    with pytest.raises(ValueError, match="`data` must be given"):
        tflite_export.verify_tflite(path, student, accelerator="gpu")


def test_a_machine_without_a_gpu_is_an_error(exported, monkeypatch):
    student, path, x = exported
    for name in ("VK_ICD_FILENAMES", "VK_DRIVER_FILES"):
        monkeypatch.setenv(name, "missing.json")
    with pytest.raises(RuntimeError, match=r'"gpu" needs a GPU that LiteRT can use'):
        tflite_export.verify_tflite(path, student, x, accelerator="gpu")


def test_operators_that_the_gpu_does_not_run_are_named():
    messages = [
        "INFO: [gpu_environment.h:155] Created LiteRT GpuEnvironment.",
        "ERROR: Following operations are not supported by GPU delegate:",
        "CONV_2D: Max version supported: 6. Requested version 7.",
        "TRANSPOSE_CONV: Max version supported: 3. Requested version 4.",
        "4 operations will run on the GPU, and the remaining 6 operations will run on "
        "the CPU.",
    ]
    found = _reason("gpu", messages, "Some ops are not accelerated.")
    assert "version 7. TRANSPOSE_CONV: Max version supported: 3" in found
    assert "remaining" not in found and "INFO" not in found


def test_other_messages_are_handed_on():
    assert _reason("cpu", [], "no memory").endswith("Received: no memory")
    messages = [
        "WARNING: [npu_registry.cc:34] NPU accelerator could not be loaded.",
        "INFO: [environment.cc:47] Adding options",
        "WARNING: Logging before InitGoogle() is written to STDERR",
        "ERROR: Encountered unresolved custom op: Betainc.",
        "ERROR: Node number 2 (Betainc) failed to prepare.",
    ]
    assert _reason("gpu", messages, "Failed to modify graph.").endswith(
        "Received: Failed to modify graph. Encountered unresolved custom op: Betainc. "
        "Node number 2 (Betainc) failed to prepare."
    )


def test_messages_are_collected_from_the_descriptor_only_inside(capfd):
    with pytest.raises(KeyError), collected_messages() as lines:
        os.write(2, b"first\nsecond\n")
        raise KeyError
    os.write(2, b"after\n")
    assert lines == ["first", "second"]
    assert capfd.readouterr().err == "after\n"


def verified_on_the_gpu(folder):
    """What `verify_tflite` finds on the GPU: of files by their form, or its error."""
    found = {}
    for form, storage in (("conv", "int8"), ("pick", "int8"), ("pick", "packed")):
        student, x = tiny.calibrated(tiny.pre_activation, np.random.default_rng(0))
        path = Path(folder, f"{form}_{storage}.tflite")
        path.write_bytes(tiny.built(student, storage, strided_1x1=form).content)
        try:
            report = tflite_export.verify_tflite(
                path, student, x, accelerator="gpu", verbose=False
            )
            found[f"{form}, {storage}"] = report.to_dict()
        except (RuntimeError, tflite_export.VerificationError) as error:
            found[f"{form}, {storage}"] = str(error)
    return found


@pytest.mark.skipif(
    not is_installed(DRIVER),
    reason="`make gpu` has not set up the software Vulkan here",
)
def test_a_gpu_that_ignores_strides_is_rejected_and_picked_pixels_are_right(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, tmp_path],
        env=vulkan.environment(DRIVER) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert "conv_int8.tflite on the GPU` does not equal" in found["conv, int8"]
    assert "(conv): a code differs by" in found["conv, int8"]
    report = found["pick, int8"]
    assert report["runtime"] == "gpu, SwiftShader Device (Subzero)"
    assert report["top1_agreement"] == 1.0 and report["prediction"] is None
    assert report["compiled_codes"] is None
    assert "CONV_2D: Max version supported: 6" in found["pick, packed"]
