"""Strided 1x1 convolutions: written as one operator, or as a pick of pixels and one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import verification
from tflite_export.build import FileSettings, build_file, settings_of
from tflite_export.file import from_bytes, to_bytes
from tflite_export.freezing import Storage, read_model
from tflite_export.operators import PICKED
from tflite_export.runtimes import KERNELS, this_machine

layers = keras.layers


def one_dimensional():
    inputs = layers.Input((9, 4))
    x = layers.Conv1D(8, 1, strides=2, activation="relu")(inputs)
    x = layers.Conv1D(8, 3, padding="same")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(x))


def two_strides():
    """Strides that differ, and sizes that they do not divide."""
    inputs = layers.Input((7, 8, 3))
    x = tiny.conv_bn_relu(inputs)
    x = layers.Conv2D(8, 1, strides=(2, 3), activation="relu6")(x)
    return keras.Model(inputs, layers.Flatten()(tiny.conv_bn_relu(x, filters=4)))


NETWORKS = {
    tiny.pre_activation: (8, 8, 3),
    one_dimensional: (9, 4),
    two_strides: (7, 8, 3),
}


def student_of(build, rng, **options):
    """A quantized network with strided 1x1 convolutions, and data."""
    model = tiny.randomize(build(), rng)
    x = rng.uniform(-1, 1, (32, *NETWORKS[build])).astype(np.float32)
    student = tf_lsq.quantize_model(model, **options)
    tf_lsq.calibrate(student, x)
    return student, x


def strided_1x1(graph):
    """The 1x1 convolutions of a file with strides."""
    return [
        op
        for op in graph.ops
        if op.code == "CONV_2D"
        and max(op.options["stride_h"], op.options["stride_w"]) > 1
        and graph.tensors[op.inputs[1]].shape[1:3] == (1, 1)
    ]


@pytest.mark.parametrize(
    ("build", "bits", "storage"),
    [
        (tiny.pre_activation, 8, "int8"),
        (tiny.pre_activation, 4, "packed"),
        (one_dimensional, 2, "packed"),
        (two_strides, 4, "int8"),
        (two_strides, 2, "packed"),
    ],
)
@pytest.mark.filterwarnings("ignore:These tensors use less than")
def test_picked_pixels_give_the_same_integers(build, bits, storage, rng):
    student, x = student_of(build, rng, weight_bits=bits, activation_bits=bits)
    forms = {
        form: tiny.built(student, storage, strided_1x1=form)
        for form in ("conv", "pick")
    }
    for kernels in KERNELS:
        codes = {
            form: verification.probe_codes(one.graph, one.frozen, [x], kernels)
            for form, one in forms.items()
        }
        assert codes["conv"].keys() == codes["pick"].keys()
        for name, wanted in codes["conv"].items():
            np.testing.assert_array_equal(codes["pick"][name], wanted)
        frozen, runtime = forms["pick"].frozen, this_machine().with_kernels(kernels)
        found = verification.twin_differences(frozen, codes["pick"], runtime)
        assert found and not any(found.values())
    assert strided_1x1(forms["conv"].graph) and not strided_1x1(forms["pick"].graph)
    tensors = forms["pick"].graph.tensors
    picked = {name for name in tensors if name.endswith(PICKED)}
    assert picked
    for op in forms["pick"].graph.ops:
        if op.inputs[0] in picked:
            sizes = tensors[op.inputs[0]].shape[1:3]
            assert sizes == tensors[op.outputs[0]].shape[1:3]


def test_a_file_with_picked_pixels_is_verified(rng, tmp_path):
    student, x = student_of(tiny.pre_activation, rng)
    path = tmp_path / "model.tflite"
    path.write_bytes(tiny.built(student, "packed", strided_1x1="pick").content)
    report = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert report.twin_differences == 0 and report.top1_agreement == 1.0


@pytest.mark.parametrize("contents", ["full", "hash", "none"])
def test_the_form_is_read_from_the_file(contents, rng):
    student, _ = student_of(tiny.pre_activation, rng)
    for form in ("conv", "pick"):
        built = tiny.built(student, metadata=contents, strided_1x1=form)
        storage = "int8" if contents == "none" else None
        found = settings_of(from_bytes(built.content), "file", storage)
        assert found == built.settings


def test_a_pick_that_takes_other_pixels_is_rejected(rng, tmp_path):
    student, _ = student_of(tiny.pre_activation, rng)
    graph = from_bytes(tiny.built(student, strided_1x1="pick").content)
    pick = next(op for op in graph.ops if op.code == "MAX_POOL_2D")
    pick.options["filter_width"] = 2
    path = tmp_path / "model.tflite"
    path.write_bytes(to_bytes(graph))
    with pytest.raises(tflite_export.VerificationError, match="its operators are"):
        tflite_export.verify_tflite(path, student)


def test_networks_without_such_convolutions_have_one_file(exported):
    student, _, _ = exported
    picked = tiny.built(student, strided_1x1="pick")
    assert picked.content == tiny.built(student).content


def test_float_convolutions_keep_their_strides(rng):
    [name] = [
        layer.name
        for layer in two_strides().layers
        if isinstance(layer, layers.Conv2D) and layer.kernel_size == (1, 1)
    ]
    keras.backend.clear_session()  # The name is the same again.
    student, _ = student_of(two_strides, rng, overrides={name: "float"})
    graph = tiny.built(student, strided_1x1="pick").graph
    assert len(strided_1x1(graph)) == 1


@pytest.mark.parametrize("target", ["edgetpu", "ethos-u55-128", "tflm"])
def test_other_targets_keep_the_strides(target, rng):
    bits = 8 if target == "edgetpu" else 4
    student, _ = student_of(
        tiny.pre_activation, rng, weight_bits=bits, activation_bits=bits, target=target
    )
    codes = [op.code for op in tiny.built(student).graph.ops]
    assert "MAX_POOL_2D" not in codes
    with pytest.raises(ValueError, match=f"`strided_1x1` must be .* '{target}'"):
        tiny.built(student, strided_1x1="pick")


def test_unknown_forms_are_refused(exported):
    settings = FileSettings(Storage(), strided_1x1="pick")
    assert build_file(read_model(exported[0]), settings).settings == settings
    with pytest.raises(ValueError, match="`strided_1x1` must be one of"):
        dataclasses.replace(settings, strided_1x1="slice")
