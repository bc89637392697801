"""Code snippets that run a file: they compute the same and are well formed."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jinja2
import numpy as np
import pytest
import tree_sitter
import tree_sitter_kotlin
import tree_sitter_swift
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export.file import (
    Additions,
    Normalization,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    rewritten,
    with_additions,
)
from tflite_export.reports import snippet_refusal, snippets_of
from tflite_export.reports.snippets import _TAKEN, _TAKEN_IN_C, LANGUAGES
from tflite_export.snippet_check import check_snippet

layers = keras.layers
ROOT = Path(__file__).resolve().parents[1]
MODULES_VARIABLE = "TF_LSQ_NODE_MODULES"
NAMES = ['a "b"', "$c\\d", "größe\t", "\x0c\u2028", "日本"]


def odd_names():
    """Two inputs and outputs with names that are not identifiers."""
    inputs = [layers.Input((4,), name=name) for name in ("class", "x$1")]
    x = layers.Dense(6, activation="relu")(layers.Concatenate()(inputs))
    outputs = [layers.Dense(3, name="1st")(x), layers.Dense(2, name="found")(x)]
    return keras.Model(inputs, outputs, name="odd")


@pytest.fixture(scope="module")
def odd():
    """A student with odd names, data, and its outputs; made once."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    student = tf_lsq.quantize_model(odd_names())
    data = [rng.normal(size=(32, 4)).astype(np.float32) for _ in range(2)]
    tf_lsq.calibrate(student, data)
    tf_lsq.round_biases(student)
    return student, data, tflite_export.integer_twin(student).predict(data, verbose=0)


def odd_graph(odd, dtype):
    return tiny.built(odd[0], input_type=dtype, output_type=dtype).graph


@functools.cache
def plain_classifier(dtype):
    rng = np.random.default_rng(0)
    student, _ = tiny.calibrated(tiny.residual, rng)
    return tiny.built(student, input_type=dtype, output_type=dtype).graph


def node():
    """The path of Node.js."""
    found = shutil.which("node")
    if found is None:
        pytest.skip("no Node.js: `apt-get install nodejs`")
    return found


def node_modules():
    """A folder with LiteRT.js from npm."""
    folder = Path(os.environ.get(MODULES_VARIABLE, ROOT / ".web/node_modules"))
    if not (folder / "@litertjs/core").is_dir():
        pytest.skip(
            f"no LiteRT.js: `npm install @litertjs/core`, and set {MODULES_VARIABLE} "
            "to its folder node_modules"
        )
    return folder


def run_javascript(code, graph, calls, folder):
    """What calls of functions of a snippet return, under Node.js."""
    (folder / "snippet.mjs").write_text(code)
    (folder / "m.tflite").write_bytes(rewritten(graph))
    harness = ROOT / "tests/harness/litert_js.mjs"
    done = subprocess.run(
        [node(), harness, node_modules(), folder],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "outputs.json").read_text())


def run_python(code, graph, folder, monkeypatch):
    """The functions of a snippet."""
    (folder / "m.tflite").write_bytes(rewritten(graph))
    monkeypatch.chdir(folder)
    scope = {}
    exec(code, scope)
    return scope


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_the_python_snippet_computes_what_the_file_does(
    dtype, odd, tmp_path, monkeypatch
):
    _, data, expected = odd
    graph = odd_graph(odd, dtype)
    code = snippets_of(graph, "m.tflite")["python"]
    scope = run_python(code, graph, tmp_path, monkeypatch)
    for one, other in zip(scope["predict"](*data), expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert "classify" not in scope


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_javascript_snippet_computes_what_the_file_does(dtype, odd, tmp_path):
    _, data, expected = odd
    graph = odd_graph(odd, dtype)
    code = snippets_of(graph, "m.tflite")["javascript"]
    calls = [
        ["predict", *(["Float32Array", one[i].tolist()] for one in data)]
        for i in range(8)
    ]
    for i, found in enumerate(run_javascript(code, graph, calls, tmp_path)):
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(np.float32(one), other[i])


def copying():
    """A file whose output has the codes of its input."""
    grid = TensorQuantization(np.float32([0.5]), 10)
    tensors = {name: TFLiteTensor(name, (1, 8), "uint8", grid) for name in "xy"}
    ops = [TFLiteOp("QUANTIZE", ["x"], ["y"])]
    return TFLiteGraph(tensors, ops, {"x": "x"}, {"y": "y"})


# In steps: halves go to the even neighbour, as in `np.rint`; the ends of the range.
STEPS = [-1.5, -2.5, 0.5, 1.5, 2.5, 2.4999, 1e6, -1e6]
ROUNDED = [-2.0, -2.0, 0.0, 2.0, 2.0, 2.0, 245.0, -10.0]


def test_python_rounds_as_the_library_does(tmp_path, monkeypatch):
    code = snippets_of(copying(), "m.tflite")["python"]
    scope = run_python(code, copying(), tmp_path, monkeypatch)
    found = scope["predict"](np.float32([STEPS]) / 2)
    np.testing.assert_array_equal(found, np.float32([ROUNDED]) / 2)


def test_javascript_rounds_as_the_library_does(tmp_path):
    code = snippets_of(copying(), "m.tflite")["javascript"]
    calls = [["predict", ["Float32Array", [one / 2 for one in STEPS]]]]
    [found] = run_javascript(code, copying(), calls, tmp_path)
    assert found == [one / 2 for one in ROUNDED]


NORMS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def classifier(dtype):
    """A graph with labels whose input is made of bytes.

    Codes of integer inputs are bytes; a float32 input is standardized by channel.
    """
    graph = copy.deepcopy(plain_classifier(dtype))
    norm = Normalization((0.0,), (255.0,))
    if dtype == "float32":
        norm = Normalization(*NORMS)
    else:
        grid = TensorQuantization(np.float32([1 / 255]), -128 if dtype == "int8" else 0)
        graph.tensors[graph.inputs["image"]].quantization = grid
    additions = Additions(labels={"scores": NAMES}, normalization={"image": norm})
    return with_additions(graph, additions)


def codes_of(graph, images):
    """The file's integers for inputs as they are in the file."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(model_content=rewritten(graph)).get_signature_runner()
    return run(image=images)["scores"]


def expected_scores(graph, images):
    """The real scores of images of bytes."""
    tensor = graph.tensors[graph.inputs["image"]]
    if tensor.dtype == "float32":
        mean, std = NORMS
        values = (images.astype(np.float32) - np.float32(mean)) / np.float32(std)
    else:
        offset = 128 if tensor.dtype == "int8" else 0
        values = (images.astype(int) - offset).astype(tensor.dtype)
    scores = codes_of(graph, values)
    grid = graph.tensors[graph.outputs["scores"]].quantization
    if grid is None:
        return scores
    return (scores.astype(np.float32) - grid.zero_point) * grid.scale[0]


def ranked(scores):
    """Labels with their scores, the largest first."""
    pairs = zip(NAMES, scores.tolist(), strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_python_takes_bytes_and_returns_labels(dtype, images, tmp_path, monkeypatch):
    graph = classifier(dtype)
    code = snippets_of(graph, "m.tflite")["python"]
    scope = run_python(code, graph, tmp_path, monkeypatch)
    expected = expected_scores(graph, images)
    np.testing.assert_array_equal(scope["predict"](images), expected)
    assert scope["classify"](images[:1]) == ranked(expected[0])
    with pytest.raises(TypeError, match=r"must be bytes, uint8. Received: float32"):
        scope["predict"](images.astype(np.float32) / 255)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_javascript_takes_bytes_and_returns_labels(dtype, images, tmp_path):
    graph = classifier(dtype)
    code = snippets_of(graph, "m.tflite")["javascript"]
    arguments = [["Uint8Array", one.ravel().tolist()] for one in images]
    calls = [["predict", one] for one in arguments] + [["classify", arguments[0]]]
    *found, pairs = run_javascript(code, graph, calls, tmp_path)
    expected = expected_scores(graph, images)
    np.testing.assert_array_equal(np.float32(found), expected)
    assert pairs == [list(pair) for pair in ranked(expected[0])]


@pytest.mark.parametrize("scale", [1 / 254, 2.0])
def test_bytes_are_no_codes_on_another_grid(scale):
    graph = classifier("uint8")
    assert "np.rint" not in snippets_of(graph, "m")["python"]
    tensor = graph.tensors[graph.inputs["image"]]
    tensor.quantization = TensorQuantization(np.float32([scale]), 0)
    for code in ("np.rint", "np.float32([255.0])"):
        assert code in snippets_of(graph, "m")["python"]


def test_int8_codes_are_bytes_less_by_128():
    snippets = snippets_of(classifier("int8"), "m")
    assert "(image ^ 128).view(np.int8)" in snippets["python"]
    assert "xor 0x80" in snippets["kotlin"]
    assert "xor 0x80" in snippets["kotlin-compiled-model"]


GRAMMARS = {"kotlin": tree_sitter_kotlin, "swift": tree_sitter_swift}
FOR_PHONES = [name for name in LANGUAGES if name.split("-")[0] in GRAMMARS]


def parser_of(language):
    grammar = GRAMMARS[language.split("-")[0]]
    return tree_sitter.Parser(tree_sitter.Language(grammar.language()))


def check_syntax(language, code):
    parser = parser_of(language)
    assert not parser.parse(code.encode()).root_node.has_error, code
    assert parser.parse(f"{code} }}{{".encode()).root_node.has_error
    assert "Only the syntax of this code was checked." in code


def for_phones(*dtypes):
    """Languages of phones with types; the library for Swift has no int8."""
    languages = "kotlin", "kotlin-compiled-model", "swift"
    pairs = itertools.product(languages, dtypes)
    return [pair for pair in pairs if pair != ("swift", "int8")]


@pytest.mark.parametrize(("language", "dtype"), for_phones("int8", "uint8", "float32"))
def test_snippets_for_phones_are_well_formed(language, dtype, odd):
    graph = odd_graph(odd, dtype)
    code = snippets_of(graph, 'a "file".tflite')[language]
    check_syntax(language, code)
    for tensor in (*graph.inputs.values(), *graph.outputs.values()):
        grid = graph.tensors[tensor].quantization
        if grid is not None:
            assert str(grid.scale[0]) in code


@pytest.mark.parametrize("language", FOR_PHONES)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_snippets_with_bytes_and_labels_are_well_formed(language, dtype):
    snippets = snippets_of(classifier(dtype), "m.tflite")
    for name in ("kotlin-mediapipe", "swift"):
        assert (name in snippets) == (dtype != "int8")
    if language in snippets:
        check_syntax(language, snippets[language])
        assert "classify" in snippets[language]


@pytest.mark.parametrize(
    ("language", "dtype"), for_phones("int32", "int64", "bool", "uint8", "int8")
)
def test_integers_without_a_grid_are_integers_in_snippets(language, dtype):
    graph = copy.deepcopy(plain_classifier("float32"))
    for ends in (graph.inputs, graph.outputs):
        for name in ends.values():
            tensor = graph.tensors[name]
            graph.tensors[name] = dataclasses.replace(tensor, dtype=dtype)
    code = snippets_of(graph, "m.tflite")[language]
    check_syntax(language, code)
    types = {"int32": "Int", "int64": "Long|Int64", "bool": "Bool"}
    assert re.search(types.get(dtype, "Byte|U?Int8"), code)
    assert not re.search(r"Float(?!32)", code)


def test_javascript_is_well_formed(odd, tmp_path):
    graphs = [odd_graph(odd, "uint8"), classifier("uint8"), classifier("float32")]
    for graph in graphs:
        path = tmp_path / "snippet.mjs"
        path.write_text(snippets_of(graph, 'a "file".tflite')["javascript"])
        subprocess.run([node(), "--check", path], check=True)
        path.write_text(f"{path.read_text()} }}{{")
        assert subprocess.run([node(), "--check", path], capture_output=True).returncode


def of_ends(inputs, outputs):
    """A graph without operators, of tensors by name: type and shape."""
    tensors = {k: TFLiteTensor(k, v[1], v[0]) for k, v in {**inputs, **outputs}.items()}
    return TFLiteGraph(tensors, [], {k: k for k in inputs}, {k: k for k in outputs})


def test_libraries_that_refuse_a_file_have_no_snippet():
    image, scores = {"image": ("uint8", (1, 8, 8, 3))}, {"scores": ("int8", (1, 5))}
    assert snippet_refusal("kotlin", of_ends(image, scores)) == ""
    for language in ("javascript", "kotlin-mediapipe", "swift"):
        message = snippet_refusal(language, of_ends(image, scores))
        assert "Received: output `scores` is int8. Export with" in message
    gray, scores = {"image": ("uint8", (1, 8, 8, 1))}, {"scores": ("uint8", (1, 5))}
    assert snippet_refusal("javascript", of_ends(gray, scores)) == ""
    message = snippet_refusal("kotlin-mediapipe", of_ends(gray, scores))
    assert "one image with three channels" in message
    two = {**image, "other": image["image"]}
    message = snippet_refusal("kotlin-mediapipe", of_ends(two, scores))
    assert "Received: it has 2 inputs." in message


# --- Names of inputs and outputs ------------------------------------------------------

TEMPLATES = Path(tflite_export.__file__).parent / "reports/templates"
# Parameters of functions of the templates that read no input or output.
PARAMETERS = {"image", "bytes"}


def words_of(template):
    """The words of a template that a variable could hide, by rules of any language."""
    marks = {"variable_begin": "\0", "block_begin": " "}
    tokens = jinja2.Environment().lex((TEMPLATES / template).read_text())
    text = "".join(
        one if kind == "data" else marks.get(kind, "") for _, kind, one in tokens
    )
    text = re.sub(r'f?"(\\.|[^"\\\n])*"', "", text)
    text = re.sub(r"(//|#).*", "", text)
    # Not members, `$0`, parts of numbers, nor names that begin or end in an expression.
    return {*re.findall(r"(?<![\w.$\0])[A-Za-z]\w*(?![\w\0])", text)}


@pytest.mark.parametrize(
    "template", ["kotlin.j2", *sorted(p.name for p in TEMPLATES.glob("snippet.*"))]
)
def test_no_variable_hides_a_word_of_a_template(template):
    words = words_of(template)
    assert words & {"def", "fun", "func", "function", "Predict"}
    taken = _TAKEN | (_TAKEN_IN_C if ".cc." in template else set())
    assert not words - taken - PARAMETERS


NAMED = [("sorted", "zip"), ("TypeError", "pair"), ("i", "label"), ("np", "run")]


def named(end, output):
    """A classifier whose input and output have other names."""
    graph = classifier("uint8")
    plain = dataclasses.replace(
        graph,
        inputs={end: graph.inputs["image"]},
        outputs={output: graph.outputs["scores"]},
        metadata={},
        files={},
    )
    norm = {end: Normalization(0, 255)}
    return with_additions(plain, Additions(labels={output: NAMES}, normalization=norm))


@pytest.mark.parametrize(("end", "output"), NAMED)
def test_python_runs_with_names_that_it_uses_itself(
    end, output, images, tmp_path, monkeypatch
):
    code = snippets_of(named(end, output), "m.tflite")["python"]
    scope = run_python(code, named(end, output), tmp_path, monkeypatch)
    expected = expected_scores(classifier("uint8"), images[:1])
    assert scope["classify"](images[:1]) == ranked(expected[0])


@pytest.mark.parametrize(("end", "output"), NAMED)
def test_javascript_runs_with_names_that_it_uses_itself(end, output, images, tmp_path):
    code = snippets_of(named(end, output), "m.tflite")["javascript"]
    calls = [["classify", ["Uint8Array", images[0].ravel().tolist()]]]
    [pairs] = run_javascript(code, named(end, output), calls, tmp_path)
    expected = expected_scores(classifier("uint8"), images[:1])
    assert pairs == [list(pair) for pair in ranked(expected[0])]


def test_a_snippet_of_one_input_and_output_is_short(exported_report):
    for language, code in exported_report[0].snippets.items():
        lines = [line for line in code.splitlines() if line.strip()]
        imports = [line for line in lines if re.match("import|from", line)]
        assert len(lines) - len(imports) <= 16, language


def test_cpp_is_for_models_of_tflite_micro(rng):
    ends = {"consumer": None, "input_type": None, "output_type": None}
    student, _ = tiny.calibrated(tiny.residual, rng, target="tflm")
    check_snippet("cpp", student, **ends)
    student, _ = tiny.calibrated(tiny.residual, rng)
    with pytest.raises(ValueError, match=r"'cpp' unless.*the target 'phone'"):
        check_snippet("cpp", student, **ends)
