"""The HTML page of a report: well formed, self-contained and safe."""

from __future__ import annotations

import dataclasses
from html.parser import HTMLParser

import pytest
from harness import tiny

import tflite_export


class _Page(HTMLParser):
    """Checks that elements are closed, and collects the references of a page."""

    VOID = ("meta", "br", "img", "link")

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.references, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.references += [
            value
            for name, value in attrs
            if name in ("src", "href", "xlink:href") and not value.startswith("#")
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def page_of(report, path):
    tflite_export.write_html_report(report, path)
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page, " ".join(page.text)


def test_the_page_is_well_formed_and_self_contained(exported_report, tmp_path):
    report, _, _ = exported_report
    page, text = page_of(report, tmp_path / "report.html")
    assert page.references == []
    assert "script" not in page.seen
    counted = [p for p in report.verification.points if p.statistics]
    trained = [layer for layer in report.layers if layer.statistics]
    plots = 4
    assert page.seen.count("svg") == len(counted) + len(trained) + plots
    for layer in report.layers:
        assert layer.name in text
    expected = f"{report.file_bytes:,}", "int4", "Latency", "import org.tensorflow"
    for part in expected:
        assert part in text


def test_the_page_of_a_report_without_data_lists_what_is_missing(rng, tmp_path):
    student, _ = tiny.calibrated(tiny.residual, rng)
    report = tflite_export.export_model(student, tmp_path / "model.tflite")
    page, text = page_of(report, tmp_path / "report.html")
    assert "Exported without data" in text and "Latency was not measured" in text
    assert page.seen.count("svg") == 1


def test_names_cannot_break_the_page(exported_report, tmp_path):
    report, _, _ = exported_report
    name = "<script>alert(1)</script>"
    renamed = dataclasses.replace(report.layers[0], name=name, remark="<b>")
    changed = dataclasses.replace(report, layers=[renamed, *report.layers[1:]])
    page, text = page_of(changed, tmp_path / "report.html")
    assert "script" not in page.seen and "b" not in page.seen[-40:]
    assert name in text


def test_the_page_is_not_written_to_a_missing_directory(exported_report, tmp_path):
    with pytest.raises(FileNotFoundError, match="directory of `path` must exist"):
        tflite_export.write_html_report(
            exported_report[0], tmp_path / "none" / "report.html"
        )


def test_unusual_layers_get_a_note(exported_report, tmp_path):
    report, _, _ = exported_report
    layer = dataclasses.replace(
        report.layers[0], remark="why", constant_channels=2, bias_error=0.15
    )
    notes = "why; 2 constant channels; its bias moves outputs by up to 0.15 codes"
    assert layer.notes == notes
    assert dataclasses.replace(report.layers[0], bias_error=0.01).notes == ""
    changed = dataclasses.replace(report, layers=[layer])
    _, text = page_of(changed, tmp_path / "report.html")
    assert notes in text and notes in str(changed)
