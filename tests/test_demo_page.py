"""The page of a demo: well formed, complete, and safe whatever labels contain."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from harness import tiny
from test_demo_litertjs import folder as folder

import tflite_export
from tf_lsq._compat import keras
from tflite_export import demo
from tflite_export.demo import conversion
from tflite_export.file import as_int8, as_uint8, from_bytes, labels, rewritten
from tflite_export.runtimes import Runner

ATTACK = "</script><script>alert(1)</script>"
HOSTILE = [ATTACK, "<!--", "a & b", '"quoted"', "x\u2028y"]
PIXELS = {"mean": 0, "std": 255}


class Page(HTMLParser):
    """Checks that elements are closed; collects ids, attributes and scripts."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.data = [], [], [], {}
        self.labelled, self.buttons, self.tags, self.comments = set(), [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.references += [
            attributes[name] for name in ("src", "href") if name in attributes
        ]
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in self.VOID:
            self.open.append((tag, attributes))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        for tag, attributes in self.open[-1:]:
            key = attributes.get("id") or attributes.get("type") or tag
            self.data[key] = self.data.get(key, "") + data

    def handle_comment(self, data):
        self.comments.append(data)


@pytest.fixture
def file(rng, tmp_path):
    """A classifier of five classes, with int8 ends."""
    student, _ = tiny.calibrated(tiny.residual, rng)
    path = tmp_path / "some net.tflite"
    path.write_bytes(tiny.built(student).content)
    return path


SPECTROGRAM = tflite_export.Spectrogram(
    sample_rate=8000, frame_length=64, frame_step=32, full_scale=1.0, kind="power"
)


@pytest.fixture
def file_of_sounds(rng, tmp_path):
    """A classifier of 12 frames of 33 frequencies, with int8 ends."""
    model = tiny.residual(shape=(12, 33, 1))
    student, _ = tiny.student_of(model, rng, (64, 12, 33, 1))
    path = tmp_path / "sounds.tflite"
    path.write_bytes(tiny.built(student).content)
    return path


def page_of(file, **options):
    output = file.with_suffix(".html")
    found = tflite_export.write_demo(file, output, **PIXELS | options)
    assert found == output
    return Page(output.read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_carries_what_it_needs(file):
    page = page_of(file, labels=["a", "b", "c", "d", "e"], title="Animals")
    assert len(page.ids) == len(set(page.ids))
    script = page.data["module"]
    for name in ("answer", "bars", "choose", "clear", "frame", "invert", "overlay"):
        assert name in page.ids and f'byId("{name}")' in script
    used = set(script.split('byId("')[1:])
    assert {part.partition('"')[0] for part in used} - {"threshold", "least"} <= {
        *page.ids,
        "loader",
        "binary",
    }
    assert page.data["title"] == "Animals" == page.data["h1"]
    about = json.loads(page.data["demo"])
    assert about["labels"] == ["a", "b", "c", "d", "e"]
    assert about["outputs"]["task"] == "classes"
    assert about["outputs"]["scores"]["scale"] == pytest.approx(1 / 256)
    assert np.array(about["picture"]["table"]).shape == (3, 256)
    assert set(json.loads(page.data["importmap"])["imports"]) == set(demo.MODULES)
    assert page.references == ["data:,"]  # The icon: nothing else is loaded.


def test_the_file_in_the_page_computes_the_same_integers(file, rng):
    packed = page_of(file).data["model"].strip()
    content = gzip.decompress(base64.b64decode(packed))
    own, found = (from_bytes(c) for c in (file.read_bytes(), content))
    codes = rng.integers(-128, 128, (3, 8, 8, 3)).astype(np.int8)
    [wanted] = Runner(own).run({"image": codes}).values()
    moved = as_uint8(codes)
    [shown] = Runner(found, content=content).run({"image": moved}).values()
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(as_int8(shown), wanted)


def test_a_file_without_int8_ends_is_not_changed(rng, tmp_path):
    student, _ = tiny.calibrated(tiny.residual, rng)
    content = tiny.built(student, input_type="uint8", output_type="float32").content
    assert conversion.for_the_web(content)[1] is content


def test_a_change_that_is_not_exact_is_refused(file, monkeypatch):
    def damaged(graph):
        grid = graph.tensors["scores_softmax/uint8_output"].quantization
        object.__setattr__(grid, "zero_point", grid.zero_point + 1)
        return rewritten(graph)

    monkeypatch.setattr(conversion, "rewritten", damaged)
    with pytest.raises(ValueError, match=r"would change: \['scores'\].*'uint8'"):
        page_of(file)
    assert not file.with_suffix(".html").exists()


def test_a_page_of_sounds_knows_how_features_are_computed(file_of_sounds):
    page = page_of(file_of_sounds, mean=None, std=None, spectrogram=SPECTROGRAM)
    sound = json.loads(page.data["demo"])["sound"]
    assert (sound["num_samples"], sound["shape"]) == (11 * 32 + 64, [1, 12, 33, 1])
    assert sound["spectrogram"]["fft_length"] == 64
    assert sound["dtype"] == "uint8" and sound["scale"] > 0
    assert len(page.ids) == len(set(page.ids))
    assert "createImageBitmap" not in page.data["module"]
    assert page.references == ["data:,"]


def test_a_page_of_pictures_has_no_code_of_sounds(file):
    assert "Spectrogram" not in page_of(file).data["module"]


def test_options_of_pictures_are_refused_with_a_spectrogram(file_of_sounds, file):
    options = {"spectrogram": SPECTROGRAM}
    with pytest.raises(
        ValueError, match=r"left out with `spectrogram`.*mean=0, std=255"
    ):
        page_of(file_of_sounds, **options)
    with pytest.raises(
        ValueError, match=r"\[1, frames, 33\] .* Received 'image': uint8"
    ):
        page_of(file, **options)
    with pytest.raises(TypeError, match="must be a `Spectrogram`"):
        page_of(file_of_sounds, mean=None, std=None, spectrogram={"kind": "power"})
    assert not file_of_sounds.with_suffix(".html").exists()


def test_masks_over_sounds_are_refused(rng, tmp_path):
    inputs = keras.layers.Input((12, 33, 1), name="sound")
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3)(inputs))
    student, _ = tiny.student_of(model, rng, (64, 12, 33, 1))
    path = tmp_path / "mask.tflite"
    path.write_bytes(tiny.built(student).content)
    with pytest.raises(ValueError, match=r"scores of classes.*10, 31, 3\]"):
        page_of(path, mean=None, std=None, spectrogram=SPECTROGRAM)


def test_labels_and_titles_cannot_end_a_script(file):
    page = page_of(file, labels=HOSTILE, title=ATTACK)
    assert json.loads(page.data["demo"])["labels"] == HOSTILE
    plain = page_of(file)
    assert page.tags == plain.tags and page.comments == plain.comments == []
    assert page.data["title"] == ATTACK


def test_labels_may_be_a_text_file(file, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeffa\r\nb\r\nc\nd\né\n".encode())
    page = page_of(file, labels=path)
    assert json.loads(page.data["demo"])["labels"] == ["a", "b", "c", "d", "é"]
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="must be text in UTF-8"):
        page_of(file, labels=str(path))


def test_labels_of_another_output_are_refused(file):
    with pytest.raises(ValueError, match=r"of the output 'scores'.*of \['nope'\]"):
        page_of(file, labels={"nope": list("abcde")})


def test_without_labels_classes_have_numbers(file):
    page = page_of(file)
    assert json.loads(page.data["demo"])["labels"] == list("01234")
    assert page.data["title"] == "some net"


@pytest.mark.parametrize("labels", [["a"], list("abcdef"), ["a", "b", "c", "d", ""]])
def test_wrong_labels_are_refused_before_anything_is_written(file, labels):
    with pytest.raises(
        ValueError, match=r"`labels` must be one text.*5 classes.*scores"
    ):
        page_of(file, labels=labels)
    assert not file.with_suffix(".html").exists()


def test_labels_and_names_come_from_the_metadata(file):
    info = tflite_export.ModelInfo(name="Five things")
    tflite_export.write_metadata(file, labels=list("vwxyz"), info=info)
    page = page_of(file)
    assert json.loads(page.data["demo"])["labels"] == list("vwxyz")
    assert page.data["title"] == "Five things"
    page = page_of(file, labels=["same"] * 5, title="Mine")
    assert json.loads(page.data["demo"])["labels"] == ["same"] * 5
    assert page.data["title"] == "Mine"


def test_labels_of_the_file_that_do_not_fit_are_refused(file, monkeypatch):
    tflite_export.write_metadata(file, labels=list("vwxyz"))
    monkeypatch.setattr(labels, "from_text", lambda text: ("v", "w"))
    with pytest.raises(ValueError, match=r"The labels in the file.*`scores`: 2 labels"):
        page_of(file)


def test_an_offline_page_contains_litertjs(file, folder):
    page = page_of(file, offline=folder)
    assert json.loads(page.data["demo"])["address"] == ""
    packed = page.data["binary"].strip()
    assert gzip.decompress(base64.b64decode(packed)).startswith(b"content of")
    assert "Apache License 2.0" in page.comments[0]
    assert "https://cdn" not in file.with_suffix(".html").read_text()


def test_the_same_arguments_give_the_same_page(file):
    first = page_of(file) and file.with_suffix(".html").read_bytes()
    page_of(file)
    assert file.with_suffix(".html").read_bytes() == first


def test_a_page_cannot_be_written_into_a_missing_folder(file, tmp_path):
    with pytest.raises(FileNotFoundError):
        tflite_export.write_demo(file, tmp_path / "no/page.html", **PIXELS)


def test_a_file_that_is_no_tflite_file_is_refused(tmp_path):
    path = tmp_path / "x.tflite"
    path.write_bytes(b"no file")
    with pytest.raises(ValueError, match="not a readable"):
        page_of(path)
