"""How bytes become the input of a file: never by a guess."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from harness import tiny

import tf_lsq
import tflite_export
from tflite_export.demo.pixels import read_picture
from tflite_export.file import (
    Additions,
    Normalization,
    TensorQuantization,
    TFLiteGraph,
    TFLiteOp,
    TFLiteTensor,
    from_bytes,
    standard_metadata,
    with_additions,
    with_uint8_ends,
)
from tflite_export.verification.values import file_inputs


def graph_of(shape=(1, 4, 6, 3), dtype="uint8", scale=0.02, zero_point=7):
    """A file that only has an input."""
    grid = TensorQuantization(np.array([scale], np.float32), zero_point)
    grid = grid if dtype != "float32" else None
    tensors = {"image": TFLiteTensor("image", shape, dtype, grid)}
    return TFLiteGraph(tensors, [], {"image": "image"}, {"image": "image"})


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(1.0, 0), (1 / 255, 0), (1 / 128, 128)]
)
def test_where_the_grid_is_that_of_bytes_they_are_copied(scale, zero_point):
    picture = read_picture(graph_of(scale=scale, zero_point=zero_point), None, None)
    assert picture.table == [list(range(256))] * 3
    assert (picture.height, picture.width, picture.channels) == (4, 6, 3)


def test_numbers_that_contradict_the_file_are_refused():
    graph = graph_of(scale=1 / 255, zero_point=0)
    table = read_picture(graph, 0, 255).table
    assert table == [list(range(256))] * 3
    with pytest.raises(ValueError, match=r"left out.*'image' takes \(byte - 0\) / 255"):
        read_picture(graph, 0, 1)


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(0.0041, 0), (1 / 255, 1), (1, 128), (1 / 127.5, 128)]
)
def test_another_grid_needs_mean_and_std(scale, zero_point):
    graph = graph_of(scale=scale, zero_point=zero_point)
    with pytest.raises(ValueError, match=r"`mean` and `std` must be given.*'image'"):
        read_picture(graph, None, None)


def test_floats_need_mean_and_std():
    with pytest.raises(ValueError, match="with no scale, and neither number"):
        read_picture(graph_of(dtype="float32"), None, None)


def numbers(one):
    """One number, or one per channel, as a tuple."""
    return tuple(map(float, np.atleast_1d(one)))


def saying(graph, mean, std):
    """A file whose standard metadata say how bytes become its input."""
    one = Normalization(numbers(mean), numbers(std))
    return with_additions(graph, Additions(normalization={"image": one}))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float32"])
def test_a_file_that_was_exported_as_pixels_says_so(dtype, rng, tmp_path):
    student, _ = tiny.calibrated(
        tiny.residual, rng, inputs=tf_lsq.Pixels(mean=128, std=127)
    )
    path = tmp_path / "net.tflite"
    tflite_export.export_model(student, path, input_type=dtype, verbose=False)
    graph = with_uint8_ends(from_bytes(path.read_bytes()))
    picture = read_picture(graph, None, None)
    table = np.array(picture.table)
    if dtype == "float32":
        # The QUANTIZE of the file makes the byte of each value.
        grid = graph.tensors["image"].quantization
        table = np.rint(np.float32(table) / grid.scale) + grid.zero_point + 128
    np.testing.assert_array_equal(table, [np.arange(256)] * 3)


def test_the_metadata_say_what_the_model_was_trained_on():
    mean, std = (90.0, 100.0, 120.5), (50.0, 60.0, 70.0)
    graph = graph_of(dtype="float32")
    wanted = read_picture(graph, mean, std)
    said = saying(graph, mean, std)
    assert read_picture(said, None, None) == wanted == read_picture(said, mean, std)
    with pytest.raises(ValueError, match=r"takes \(byte - \[90, 100, 120.5\]\) / \[50"):
        read_picture(said, mean, 60)


def test_metadata_for_other_channels_are_refused(monkeypatch):
    of_two = standard_metadata.StandardMetadata(
        normalization={"image": Normalization((1, 2), 1)}
    )
    monkeypatch.setattr(standard_metadata, "read", lambda graph: of_two)
    with pytest.raises(ValueError, match=r"metadata of 'image' do not fit.*one finite"):
        read_picture(graph_of(), None, None)


def test_bytes_become_the_codes_of_the_exporter(rng):
    student, _ = tiny.calibrated(tiny.residual, rng)
    for dtype in ("uint8", "float32"):
        built = tiny.built(student, input_type=dtype)
        mean, std = (90.0, 100.0, 120.5), (50.0, 60.0, 70.0)
        pixels = np.broadcast_to(np.arange(256)[:, None, None, None], (256, 8, 8, 3))
        values = (pixels.astype(np.float32) - np.float32(mean)) / np.float32(std)
        [wanted] = file_inputs(built.graph, built.frozen, [values]).values()
        table = np.array(read_picture(built.graph, mean, std).table, wanted.dtype)
        np.testing.assert_array_equal(table.T, wanted[:, 0, 0])


def test_codes_outside_the_type_are_limited():
    table = read_picture(graph_of(scale=0.5, zero_point=0), 100, 1).table
    assert table[0][0] == 0 and table[0][255] == 255


@pytest.mark.parametrize(
    ("mean", "std"),
    [(0, None), (None, 1), (0, 0), (0, -1), (np.nan, 1), ((1, 2), 1), (0, (1, 2))],
)
def test_unfit_numbers_are_refused(mean, std):
    with pytest.raises(ValueError, match="must both be one finite number"):
        read_picture(graph_of(), mean, std)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((1, 12), "uint8"), ((1, 4, 4, 4), "uint8"), ((2, 4, 4, 3), "uint8"),
     ((1, 4, 4, 3), "int32")],
)  # fmt: skip
def test_an_input_that_is_no_picture_is_refused_by_name(shape, dtype):
    with pytest.raises(ValueError, match=r"one input, a picture.*'image'"):
        read_picture(graph_of(shape, dtype), 0, 255)


def test_a_file_with_two_inputs_is_refused():
    graph = graph_of()
    two = dataclasses.replace(graph, inputs={"a": "image", "b": "image"})
    with pytest.raises(ValueError, match=r"'a': uint8.*'b': uint8"):
        read_picture(two, 0, 255)


def test_a_float_input_that_others_read_shows_no_grid():
    graph = graph_of(dtype="float32")
    graph = dataclasses.replace(graph, ops=[TFLiteOp("ABS", ["image"], ["y"])])
    with pytest.raises(ValueError, match="no scale"):
        read_picture(graph, None, None)
