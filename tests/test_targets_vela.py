"""Vela: what it reports, and how its errors are passed on."""

from __future__ import annotations

import os

import pytest
from harness import tiny
from test_targets_queries import one_op

import tf_lsq
import tflite_export
from benchmarks.contestants import resnet8
from tf_lsq._compat import keras
from tflite_export import targets
from tflite_export.file import rewritten
from tflite_export.targets import tool, vela

U55 = "ethos-u55-128"
# Columns of a summary of Vela 5.2 that are read, and one that is not.
SUMMARY = """\
experiment,sram_memory_used,on_chip_flash_memory_used,off_chip_flash_memory_used,\
total_npu_encoded_weights,cycles_total
default,50.78125,0.0,80.96875,79440,204490
"""
COMPILED = one_op("SOFTMAX", [(1, 10)], {"beta": 1.0}, output=(1, 10))


@pytest.fixture
def fake_vela(tmp_path, monkeypatch):
    """Puts a fake `vela` on PATH that writes a compiled file and a summary."""

    def install(*, summary=SUMMARY, commands="echo compiled"):
        results, folder = tmp_path / "results", tmp_path / "bin"
        results.mkdir()
        (results / "model_vela.tflite").write_bytes(rewritten(COMPILED))
        if summary:
            (results / "model_summary_System.csv").write_text(summary)
        folder.mkdir()
        program = folder / "vela"
        program.write_text(
            "#!/bin/sh\n"
            'for last; do :; done; [ "$last" = --version ] && echo 9.8.7 && exit\n'
            f'cp {results}/* "$last"\n{commands}\n'
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    return install


def test_results_are_read(fake_vela):
    fake_vela()
    found = targets.compile_with_vela(b"", U55)
    assert found == targets.CompiledFile(
        version="9.8.7",
        settings=vela.VELA_SETTINGS[U55],
        file_bytes=len(rewritten(COMPILED)),
        weight_bytes=79_440,
        flash_bytes=82_912,
        sram_bytes=52_000,
        cycles=204_490,
        on_cpu={"output": "SOFTMAX"},
    )


def test_a_refusal_has_velas_own_words(fake_vela, rng, tmp_path):
    fake_vela(commands="echo 'Error: Invalid tflite file'; exit 3")
    student, _ = tiny.student_of(tiny.residual(), rng, target=U55)
    path = tmp_path / "model.tflite"
    with pytest.raises(RuntimeError, match=r"(?s)exit code 3:.*Error: Invalid tflite"):
        tflite_export.export_model(student, path)
    assert not path.exists()


def test_a_crash_is_an_error(fake_vela):
    fake_vela(commands="kill -FPE $$")
    with pytest.raises(RuntimeError, match="Received exit code -8"):
        targets.compile_with_vela(b"", U55)


def test_a_timeout_is_an_error(fake_vela, monkeypatch):
    fake_vela(commands="exec sleep 60")
    monkeypatch.setattr(tool, "TIMEOUT", 0.2)
    with pytest.raises(RuntimeError, match=r"within 0.2 seconds.*a timeout"):
        targets.compile_with_vela(b"", U55)


@pytest.mark.parametrize("summary", ["", "cycles_total\n12\n", "cycles_total\n"])
def test_unreadable_results_are_errors(summary, fake_vela):
    fake_vela(summary=summary)
    with pytest.raises(RuntimeError, match=r"(?s)one summary. Received: .*compiled"):
        targets.compile_with_vela(b"", U55)


def test_without_vela_the_report_says_so(monkeypatch, rng, tmp_path):
    monkeypatch.setattr(vela, "find_vela", lambda: None)
    student, _ = tiny.student_of(tiny.residual(), rng, target=U55)
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    assert report.compiler == [targets.VELA_MISSING] and report.compiled is None
    assert "only the documented rules" in str(report)


def test_vela_is_found_beside_python(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(vela.sys, "executable", str(tmp_path / "bin" / "python"))
    assert vela.find_vela() is None
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "vela"
    program.write_text("")
    program.chmod(0o755)
    assert vela.find_vela() == str(program)


def test_other_operators_on_the_cpu_than_predicted_are_named(fake_vela, rng, tmp_path):
    fake_vela()
    student, _ = tiny.student_of(tiny.residual(), rng, target=U55)
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    expected = "leaves to the CPU `output` (SOFTMAX); the rules predict nothing."
    assert expected in str(report)
    found = targets.compile_with_vela(b"", U55)
    assert len(found.lines(["output"])) == 2
    assert "predict `a`, `b`." in found.lines(["a", "b"])[-1]


# --- Vela itself -------------------------------------------------------------------


def test_vela_is_installed_with_the_extra_for_development():
    assert vela.find_vela() is not None


@pytest.mark.parametrize("target", tf_lsq.policy.ETHOS_U_TARGETS)
def test_reports_show_what_vela_made_of_a_file(target, rng, tmp_path):
    student, _ = tiny.student_of(tiny.residual(), rng, target=target)
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    found = report.compiled
    assert found.settings.accelerator == target and not found.on_cpu
    assert 0 < found.weight_bytes <= found.flash_bytes < found.file_bytes
    assert found.cycles > 0 and found.sram_bytes > 0
    settings = vela.VELA_SETTINGS[target]
    for text in (
        f"vela {found.version}", f"{found.file_bytes} bytes compiled", str(settings),
        f"{found.sram_bytes} bytes of SRAM", "0 operators on the CPU",
    ):  # fmt: skip
        assert text in str(report)
    assert report.to_dict()["compiled"]["cycles"] == found.cycles
    page = tmp_path / "report.html"
    tflite_export.write_html_report(report, page)
    for text in (f"{found.cycles:,}", "bytes compiled by Vela", settings.system):
        assert text in page.read_text()


def test_two_bits_take_less_than_half_of_the_flash_of_eight(rng, tmp_path):
    keras.utils.set_random_seed(0)
    sizes, cycles = {}, {}
    for bits in (8, 2):
        student, _ = tiny.student_of(
            resnet8(), rng, (16, 32, 32, 3), target=U55, weight_bits=bits,
            activation_bits=bits,
        )  # fmt: skip
        report = tflite_export.export_model(student, tmp_path / "model.tflite")
        sizes[bits] = report.compiled.file_bytes
        cycles[bits] = report.compiled.cycles
    assert sizes[2] <= 0.45 * sizes[8] and cycles[2] <= cycles[8]
