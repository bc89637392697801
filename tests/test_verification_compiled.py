"""A file is rejected if `CompiledModel` computes otherwise than the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from harness import tiny

import tflite_export
from tflite_export import runtimes, verification
from tflite_export.runtimes import CompiledRunner
from tflite_export.verification.compiled import compare_compiled

RUN = CompiledRunner.run


def change(monkeypatch, by):
    """Makes `CompiledModel` change the last value of every output."""

    def run(self, inputs):
        outputs = RUN(self, inputs)
        for array in outputs.values():
            value = array.flat[-1]
            array.flat[-1] = value - by if value > 0 else value + by
        return outputs

    monkeypatch.setattr(CompiledRunner, "run", run)


def test_the_report_counts_the_codes(exported, tmp_path):
    student, path, x = exported
    report = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert report.compiled_codes == 5 * min(len(x), verification.BATCH_SIZE)
    assert f"the same {report.compiled_codes} output codes" in str(report)
    assert tflite_export.verify_tflite(path, student).compiled_codes is None


@pytest.mark.parametrize("ends", ["int8", "uint8", "float32"])
def test_another_code_is_rejected_before_the_file_is_written(
    ends, exported, tmp_path, monkeypatch
):
    student, _, x = exported
    change(monkeypatch, 1 / 256 if ends == "float32" else 1)
    path = tmp_path / "new.tflite"
    with pytest.raises(
        tflite_export.VerificationError,
        match=r"by CompiledModel \(cpu\) does not.*\n.*`scores`: 1 of 320 values",
    ):
        tflite_export.export_model(
            student, path, data=x, input_type=ends, output_type=ends, verbose=False
        )
    assert not path.exists()


@pytest.mark.parametrize(("by", "wrong"), [(1, False), (2, True)])
def test_a_gpu_may_differ_by_one(by, wrong, exported, monkeypatch):
    """Shown on the CPU, by its codes."""
    student, _, x = exported
    built = tiny.built(student)
    codes = verification.probe_codes(built.graph, built.frozen, [x])
    start = CompiledRunner._start
    monkeypatch.setattr(
        CompiledRunner, "_start", lambda self, content, _: start(self, content, "cpu")
    )
    change(monkeypatch, by)
    if wrong:
        with pytest.raises(tflite_export.VerificationError, match="1 of 320 values"):
            compare_compiled(built, codes, [x], "file", "gpu")
    else:
        assert (
            compare_compiled(built, codes, [x], "file", "gpu").num_codes
            == codes["scores"].size
        )


@pytest.mark.parametrize("kind", ["shape", "type"])
def test_outputs_of_another_form_are_rejected(kind, exported, monkeypatch):
    student, _, x = exported
    built = tiny.built(student)
    codes = verification.probe_codes(built.graph, built.frozen, [x])
    changed = {"shape": lambda a: a[:-1], "type": lambda a: a.astype(np.int32)}[kind]
    monkeypatch.setattr(
        CompiledRunner,
        "run",
        lambda self, inputs: {k: changed(v) for k, v in RUN(self, inputs).items()},
    )
    with pytest.raises(tflite_export.VerificationError, match="320 of 320 values"):
        compare_compiled(built, codes, [x], "file")


def test_outputs_that_cannot_be_read_are_not_compared(exported, monkeypatch):
    student, path, x = exported
    monkeypatch.setattr(runtimes.compiled, "_TYPES", ("float32",))
    report = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert report.compiled_codes is None and "CompiledModel" not in str(report)
    with pytest.raises(RuntimeError, match=r"Inputs and outputs must be of \['float32"):
        tflite_export.verify_tflite(path, student, x, accelerator="gpu")


def test_files_with_layers_in_float_may_differ_by_one(rng, monkeypatch):
    model = tiny.randomize(tiny.residual(), rng)
    student, x = tiny.student_of(model, rng, overrides={"conv2d_1": "float"})
    built = tiny.built(student)
    codes = verification.probe_codes(built.graph, built.frozen, [x])
    change(monkeypatch, 1)
    assert compare_compiled(built, codes, [x], "file").num_codes == 320
    change(monkeypatch, 2)
    with pytest.raises(tflite_export.VerificationError, match="1 of 320 values"):
        compare_compiled(built, codes, [x], "file")
