"""TFLite's standard metadata in graphs: written, merged, read, checked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tflite_export.file import (
    Additions,
    ModelInfo,
    Normalization,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    additions_missing,
    from_bytes,
    metadata_format,
    standard_metadata,
    to_bytes,
    with_additions,
)

NAME = standard_metadata.METADATA_NAME
NAMES = ["cat", "dog", "hen"]
INFO = ModelInfo("Animals", "What it is.", "v2", "Anna", "MIT")


def classifier(last="SOFTMAX", dtype="int8", channels=3, num_outputs=1):
    """Images -> scores of three classes, by operators that need not compute that."""
    grid = TensorQuantization(np.float32([0.5]), 1)
    probabilities = TensorQuantization(np.float32([1 / 256]), -128)
    scored = probabilities if last == "SOFTMAX" else grid
    outer = grid if dtype != "float32" else None
    tensors = [TFLiteTensor("image", (1, 4, 4, channels), dtype, outer)]
    ops, outputs = [], {}
    for i in range(num_outputs):
        inner, scores = f"inner_{i}", f"scores{i or ''}"
        tensors += [
            TFLiteTensor(inner, (1, 3), "int8", scored),
            TFLiteTensor(scores, (1, 3), dtype, outer),
        ]
        ops += [TFLiteOp(last, ["image"], [inner])]
        ops += [TFLiteOp("DEQUANTIZE", [inner], [scores])]
        outputs[scores] = scores
    by_name = {tensor.name: tensor for tensor in tensors}
    return TFLiteGraph(by_name, ops, {"image": "image"}, outputs)


def entries(graph, what):
    tree = metadata_format.decode(graph.metadata[NAME])
    return standard_metadata.entries_of(tree, what)


def changed(graph, change):
    """A graph whose metadata were changed as plain data."""
    tree = metadata_format.decode(graph.metadata[NAME])
    change(tree["subgraph_metadata"][0])
    metadata = {**graph.metadata, NAME: metadata_format.encode(tree)}
    return dataclasses.replace(graph, metadata=metadata)


def test_everything_is_read_back_from_the_bytes():
    norm = Normalization((123.675, 116.28, 103.53), (58.4,))
    additions = Additions(INFO, {"scores": NAMES}, {"image": norm})
    graph = from_bytes(to_bytes(with_additions(classifier(), additions)))
    assert standard_metadata.read(graph) == standard_metadata.StandardMetadata(
        info=INFO,
        min_parser_version="1.0.0",
        labels={"scores": tuple(NAMES)},
        score_types={"scores": "probabilities"},
        normalization={"image": norm.stored()},
        colors={"image": "RGB"},
        files=["labels.txt"],
        problems=[],
    )
    assert graph.files == {"labels.txt": b"cat\ndog\nhen"}
    assert additions_missing(graph, additions) == []


def test_the_label_file_is_named_as_readers_look_for_it():
    graph = with_additions(classifier(), Additions(labels={"scores": NAMES}))
    [entry] = entries(graph, "outputs")
    assert entry["name"] == "scores"
    [file] = entry["associated_files"]
    assert (file["name"], file["type"]) == ("labels.txt", "TENSOR_AXIS_LABELS")
    assert entry["content"] == {"content_properties": ("FeatureProperties", {})}


@pytest.mark.parametrize(
    ("last", "dtype", "stats", "kind"),
    [
        ("SOFTMAX", "float32", {"max": [1.0], "min": [0.0]}, "probabilities"),
        ("LOGISTIC", "int8", {"max": [1.0], "min": [0.0]}, "probabilities"),
        ("FULLY_CONNECTED", "int8", {"max": [63.0], "min": [-64.5]}, "logits"),
        ("FULLY_CONNECTED", "float32", {"max": [63.0], "min": [-64.5]}, "logits"),
    ],
)
def test_scores_are_what_the_last_operator_computes(last, dtype, stats, kind):
    labels = Additions(labels={"scores": NAMES})
    graph = with_additions(classifier(last, dtype), labels)
    assert entries(graph, "outputs")[0]["stats"] == stats
    assert standard_metadata.read(graph).score_types == {"scores": kind}


def moved(code, parts):
    """A classifier of an image whose output an operator moves, by its code."""
    graph = classifier("SOFTMAX", num_outputs=len(parts))
    for op, part in zip(graph.ops[::2], parts, strict=True):
        op.code = part
    graph.tensors["y"] = TFLiteTensor("y", (1, 3), "float32")
    graph.ops += [TFLiteOp(code, [*graph.outputs.values()], ["y"])]
    return dataclasses.replace(graph, outputs={"y": "y"})


@pytest.mark.parametrize(
    ("code", "parts", "kind"),
    [
        ("TRANSPOSE", ["SOFTMAX"], "probabilities"),
        ("RESIZE_BILINEAR", ["LOGISTIC"], "probabilities"),
        ("RESHAPE", ["SOFTMAX", "SHAPE"], "probabilities"),
        ("CONCATENATION", ["LOGISTIC", "LOGISTIC"], "probabilities"),
        ("CONCATENATION", ["LOGISTIC", "FULLY_CONNECTED"], "logits"),
        ("ADD", ["SOFTMAX", "SOFTMAX"], "logits"),
    ],
)
def test_operators_that_move_probabilities_keep_them(code, parts, kind):
    labels = Additions(labels={"y": NAMES})
    graph = with_additions(moved(code, parts), labels)
    assert standard_metadata.read(graph).score_types == {"y": kind}


def test_scores_of_unknown_range_are_logits_without_numbers():
    graph = classifier("ADD", "float32")
    graph.tensors["inner_0"].quantization = None
    found = with_additions(graph, Additions(labels={"scores": NAMES}))
    assert standard_metadata.read(found).score_types == {"scores": "logits"}
    assert entries(found, "outputs")[0]["stats"] == {}


def test_operators_that_read_themselves_end_the_search():
    graph = classifier()
    graph.ops = [TFLiteOp("QUANTIZE", ["scores"], ["scores"])]
    found = with_additions(graph, Additions(labels={"scores": NAMES}))
    assert standard_metadata.read(found).score_types == {"scores": "logits"}


@pytest.mark.parametrize(
    ("channels", "norm", "color"),
    [(3, None, "RGB"), (1, None, ""), (1, Normalization((0,), (255,)), "GRAYSCALE")],
)
def test_an_input_is_an_image_where_that_is_sure(channels, norm, color):
    norms = {} if norm is None else {"image": norm}
    graph = classifier(channels=channels)
    found = standard_metadata.read(
        with_additions(graph, Additions(INFO, normalization=norms))
    )
    assert found.colors == ({"image": color} if color else {})


def test_a_normalization_gives_the_range_of_the_input():
    norm = Normalization((127.5, 0.0, 255.0), (127.5, 1.0, 255.0))
    graph = with_additions(classifier(), Additions(normalization={"image": norm}))
    assert entries(graph, "inputs")[0]["stats"] == {
        "max": [1.0, 255.0, 0.0],
        "min": [-1.0, 0.0, -1.0],
    }


def test_files_of_several_outputs_have_names_of_their_own():
    graph = classifier(num_outputs=3)
    graph.outputs = {"a b": "scores", "a/b": "scores1", "c": "scores2"}
    labels = {"a b": NAMES, "a/b": [*reversed(NAMES)]}
    found = with_additions(graph, Additions(labels=labels))
    assert [*found.files] == ["labels_a_b.txt", "labels_a_b_2.txt"]
    read = standard_metadata.read(found)
    assert read.labels == {name: tuple(one) for name, one in labels.items()}
    assert all(entry["name"] for entry in entries(found, "outputs"))


def test_what_is_not_given_stays():
    graph = with_additions(classifier(), Additions(INFO, {"scores": NAMES}))
    vocabulary = {"name": "v.txt", "type": "VOCABULARY"}

    def foreign(subgraph):
        subgraph["custom_metadata"] = [{"name": "odd", "data": b"123"}]
        [entry] = subgraph["output_tensor_metadata"]
        entry["description"], entry["dimension_names"] = "mine", ["n", "class"]
        german = {"name": "de.txt", "type": "TENSOR_AXIS_LABELS", "locale": "de"}
        entry["associated_files"] = [german, vocabulary, *entry["associated_files"]]

    graph = changed(graph, foreign)
    graph.files |= {"v.txt": b"a", "de.txt": b"Katze\nHund\nHuhn", "more.txt": b"b"}
    assert standard_metadata.read(graph).labels == {"scores": tuple(NAMES)}
    other = Additions(ModelInfo(author="Ben", license=""), {"scores": ["x", "y", "z"]})
    found = with_additions(graph, other)
    read = standard_metadata.read(found)
    assert read.info == dataclasses.replace(INFO, author="Ben", license=None)
    assert read.labels == {"scores": ("x", "y", "z")} and read.problems == []
    assert read.min_parser_version == "1.5.0"
    [entry] = entries(found, "outputs")
    assert entry["description"] == "mine" and vocabulary in entry["associated_files"]
    # Labels in other languages would not fit the new ones.
    assert found.files == {"v.txt": b"a", "more.txt": b"b", "labels.txt": b"x\ny\nz"}


def test_a_single_std_is_written_for_every_channel():
    """MediaPipe takes no other number of them than of means."""
    norm = Normalization((1.0, 2.0, 3.0), 58.4)
    additions = Additions(normalization={"image": norm})
    graph = from_bytes(to_bytes(with_additions(classifier(), additions)))
    [unit] = entries(graph, "inputs")[0]["process_units"]
    assert unit["options"][1]["std"] == [np.float32(58.4)] * 3
    assert additions_missing(graph, additions) == []
    assert str(norm) == str(norm.per_channel()) == "(byte - [1, 2, 3]) / 58.4"


def test_normalizations_take_plain_numbers():
    assert Normalization(127.5, 255) == Normalization((127.5,), (255.0,))
    per_channel = Normalization(np.float32([1, 2, 3]), [4, 5, 6])
    assert per_channel == Normalization((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ("0", -1, ["mean='0'", "std=-1, which must be positive"]),
        ((), np.nan, ["mean=()", "std=nan"]),
        ((1, 2), (1, 2, 3), ["of different lengths"]),
        (1e39, 1e-50, ["mean=1e+39", "std=1e-50, which must be positive"]),
        ([[1], [1, 2]], (1, 0), ["mean=[[1], [1, 2]]", "std=(1, 0), which must be"]),
    ],
)
def test_unfit_numbers_of_normalizations_are_all_named(mean, std, expected):
    with pytest.raises(ValueError, match="a positive `std`") as e:
        Normalization(mean, std)
    assert all(one in str(e.value) for one in expected)


def unfit_normalization(subgraph):
    options = {"mean": [0.0], "std": [-1.0]}
    units = [{"options": ("NormalizationOptions", options)}]
    subgraph["input_tensor_metadata"][0]["process_units"] = units


def test_an_unfit_normalization_can_be_replaced():
    graph = changed(with_additions(classifier(), Additions(INFO)), unfit_normalization)
    one = Normalization(0, 255)
    graph = with_additions(graph, Additions(normalization={"image": one}))
    assert standard_metadata.problems(graph) == []
    assert standard_metadata.read(graph).normalization == {"image": one}


def test_a_new_normalization_replaces_the_old_one_only():
    graph = with_additions(classifier(), Additions(INFO))
    units = [
        {"options": ("ScoreThresholdingOptions", {"global_score_threshold": 0.5})},
        {"options": ("NormalizationOptions", {"mean": [1.0], "std": [2.0]})},
    ]
    graph = changed(
        graph, lambda s: s["input_tensor_metadata"][0].update(process_units=units)
    )
    norm = Normalization((0.0,), (255.0,))
    found = with_additions(graph, Additions(normalization={"image": norm}))
    kinds = [u["options"][0] for u in entries(found, "inputs")[0]["process_units"]]
    assert kinds == ["ScoreThresholdingOptions", "NormalizationOptions"]
    assert standard_metadata.read(found).normalization == {"image": norm}


def test_every_cause_is_named_before_anything_is_written():
    additions = Additions(
        labels={"scores": ["a", "a"], "other": NAMES},
        normalization={
            "image": Normalization((1, 2), (1.0,)),
            "x": Normalization(0, 1),
        },
        score_types={"scores": "logits", "y": "odds"},
    )
    graph = classifier()
    with pytest.raises(ValueError) as e:
        with_additions(graph, additions)
    for expected in (
        "labels for ['other'], but the file has ['scores']",
        "normalization for ['x']",
        "score types for ['y']",
        "2 labels for the shape",
        "2 numbers as mean, expected 1 or 3",
        "'logits', but it ends in a softmax or sigmoid",
    ):
        assert expected in str(e.value)
    assert not graph.metadata and not graph.files


@pytest.mark.parametrize(
    ("additions", "message"),
    [
        (Additions(score_types={"scores": "logits"}), "but it has no labels"),
        (Additions(score_types={"scores": "odd"}), "'odd', expected one of"),
    ],
)
def test_score_types_must_be_of_labels(additions, message):
    with pytest.raises(ValueError, match=message):
        with_additions(classifier("ADD"), additions)


def test_only_images_have_a_normalization():
    graph = classifier(channels=4)
    one = {"image": Normalization((0.0,), (1.0,))}
    with pytest.raises(
        ValueError, match=r"\[1, 4, 4, 4\], which is not that of images"
    ):
        with_additions(graph, Additions(normalization=one))


def test_types_are_checked():
    with pytest.raises(TypeError, match=r"must hold texts. Received: {'version': 2}"):
        ModelInfo(version=2)
    with pytest.raises(TypeError, match="`info` must be a `ModelInfo`"):
        Additions(info="Animals")
    with pytest.raises(TypeError, match=r"be a `Normalization.*'a': \(0.0, 1.0\)"):
        Additions(normalization={"a": (0.0, 1.0), "b": Normalization(0, 1)})


def no_name(subgraph):
    del subgraph["output_tensor_metadata"][0]["name"]


def another_name(subgraph):
    subgraph["output_tensor_metadata"][0]["associated_files"][0]["name"] = "l.txt"


def one_more_input(subgraph):
    subgraph["input_tensor_metadata"].append({"name": "x"})


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (no_name, "entry of `scores` has no name"),
        (another_name, "['l.txt'] are named but not attached"),
        (one_more_input, "describes 2 inputs, but the file has 1"),
        (unfit_normalization, "normalization of `image`: `Normalization` must have"),
    ],
)
def test_problems_of_metadata_are_reported(change, problem):
    graph = with_additions(classifier(), Additions(labels={"scores": NAMES}))
    assert standard_metadata.problems(graph) == []
    [found] = standard_metadata.problems(changed(graph, change))
    assert problem in found


@pytest.mark.parametrize("text", [b"cat\ndog", b"cat\n\nhen"])
def test_labels_that_do_not_fit_are_reported(text):
    graph = with_additions(classifier(), Additions(labels={"scores": NAMES}))
    graph.files = {"labels.txt": text}
    assert "scores" in standard_metadata.problems(graph)[0]


def test_unreadable_metadata_are_a_problem_and_are_not_written_over():
    graph = classifier()
    graph.metadata = {NAME: b"\0" * 40}
    [problem] = standard_metadata.problems(graph)
    assert "standard metadata of the file must be readable" in problem
    with pytest.raises(ValueError, match="must be readable"):
        with_additions(graph, Additions(INFO))


def test_metadata_of_other_ends_are_not_merged():
    graph = changed(with_additions(classifier(), Additions(INFO)), one_more_input)
    with pytest.raises(ValueError, match=r"describe its 1 inputs. Received .* 2"):
        with_additions(graph, Additions(INFO))


def test_what_is_missing_is_found():
    asked = Additions(INFO, {"scores": NAMES}, {"image": Normalization((0,), (1,))})
    graph = with_additions(classifier(), asked)
    assert additions_missing(graph, asked) == []
    graph.files = {"labels.txt": b"hen\ndog\ncat"}
    [missing] = additions_missing(graph, asked)
    assert "('hen', 'dog', 'cat') for the labels of `scores`, expected" in missing
    assert len(additions_missing(classifier(), asked)) == 1
    removed = Additions(ModelInfo(license=""))
    [missing] = additions_missing(graph, removed)
    assert "have 'MIT' for the license, expected None" in missing
    assert additions_missing(with_additions(graph, removed), removed) == []


def test_the_lines_show_the_first_labels():
    labels = [f"class {i}" for i in range(9)]
    graph = classifier()
    graph.tensors["scores"].shape = (1, 9)
    text = str(
        standard_metadata.read(
            with_additions(graph, Additions(INFO, {"scores": labels}))
        )
    )
    assert "output scores: probabilities of 9 labels, 'class 0', 'class 1'," in text
    assert "'class 4', ..." in text and "license: MIT" in text
