"""Convolutions with groups: written as one operator, or as one per group."""

from __future__ import annotations

import collections
import dataclasses

import keras as keras3
import numpy as np
import pytest
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tflite_export import verification
from tflite_export.bits.mixed_bits import MixedBits
from tflite_export.build import FileSettings, settings_of
from tflite_export.file import QuantizedTensor, from_bytes, to_bytes
from tflite_export.freezing import KernelWeight, Storage, containers, read_model
from tflite_export.operators import kernels as kernel_operators
from tflite_export.reports.latency import measure_latency
from tflite_export.runtimes import KERNELS, RUNTIMES, rounding, this_machine

layers = keras.layers


def norm_relu(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


def resnext_block():
    """Two residual blocks with 4 groups, the second one with strides."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = tiny.conv_bn_relu(inputs, 16)
    for filters, strides in ((16, 1), (32, 2)):
        y = tiny.conv_bn_relu(x, filters, 1)
        y = tiny.conv_bn_relu(y, filters, strides=strides, groups=4)
        y = layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(y))
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides, use_bias=False)(x)
            x = layers.BatchNormalization()(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="resnext")


def regnet_block():
    """A block of RegNetY: groups of 8 channels, squeeze and excitation."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = tiny.conv_bn_relu(inputs, 24)
    y = tiny.conv_bn_relu(x, 24, 1)
    y = tiny.conv_bn_relu(y, 24, groups=3)
    z = layers.GlobalAveragePooling2D(keepdims=True)(y)
    z = layers.Conv2D(16, 1, activation="relu")(z)
    y = layers.Multiply()([y, layers.Conv2D(24, 1, activation="sigmoid")(z)])
    y = layers.BatchNormalization()(layers.Conv2D(24, 1, use_bias=False)(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="regnet")


def shufflenet_block():
    """Grouped 1x1 convolutions and a channel shuffle."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = tiny.conv_bn_relu(inputs, 12)
    y = norm_relu(layers.Conv2D(12, 1, groups=3, use_bias=False)(x))
    y = layers.Reshape((8, 8, 3, 4))(y)
    y = layers.Reshape((8, 8, 12))(layers.Permute((1, 2, 4, 3))(y))
    y = layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(y))
    y = layers.BatchNormalization()(layers.Conv2D(12, 1, groups=3)(y))
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="shufflenet")


def one_dimensional():
    """Causal and dilated, on sequences, called twice."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv1D(8, 3, activation="relu")(layers.Reshape((64, 3))(inputs))
    shared = layers.Conv1D(
        8, 3, padding="causal", dilation_rate=2, groups=2, activation="relu"
    )
    x = layers.GlobalAveragePooling1D()(shared(shared(x)))
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="sequence")


# How many convolutions with groups a network has.
COUNTS = {resnext_block: 2, regnet_block: 1, shufflenet_block: 2, one_dimensional: 2}


@pytest.fixture
def split_whatever_it_costs(monkeypatch):
    """Packs the kernels of tiny networks, whose operators take more bytes."""
    monkeypatch.setattr(containers, "BYTES_OF_GROUP", 0)


def codes_of(graph):
    """How often each operator is in a file."""
    return collections.Counter(op.code for op in graph.ops)


def grouped(graph):
    """The convolutions of a file with groups."""
    shapes = {name: tensor.shape for name, tensor in graph.tensors.items()}
    return [
        op
        for op in graph.ops
        if op.code == "CONV_2D" and shapes[op.inputs[0]][-1] != shapes[op.inputs[1]][-1]
    ]


@pytest.mark.parametrize(
    ("build", "bits", "options"),
    [
        (resnext_block, 8, {}),
        (resnext_block, 4, {"per_channel": True}),
        (regnet_block, 4, {}),
        (shufflenet_block, 2, {}),
        (shufflenet_block, 4, {"per_channel": True}),
        (one_dimensional, 2, {}),
    ],
)
@pytest.mark.usefixtures("split_whatever_it_costs")
@pytest.mark.filterwarnings("ignore:These tensors use less than")
def test_both_forms_compute_what_the_twin_does(build, bits, options, rng):
    student, x = tiny.calibrated(build, rng, bits, **options)
    for storage in ("int8", "packed"):
        codes = {}
        for form in ("conv", "split"):
            built = tiny.built(student, storage, grouped=form)
            for kernels in KERNELS:
                found = verification.probe_codes(
                    built.graph, built.frozen, [x], kernels
                )
                runtime = this_machine().with_kernels(kernels)
                differ = verification.twin_differences(built.frozen, found, runtime)
                assert differ and not any(differ.values()), (storage, form, kernels)
                codes[form, kernels] = found
            if form == "split" or (storage == "packed" and bits < 8):
                assert not grouped(built.graph)
                assert codes_of(built.graph)["SPLIT"] == COUNTS[build]
            else:
                assert len(grouped(built.graph)) == COUNTS[build]
                assert "SPLIT" not in codes_of(built.graph)
        conv, split = codes["conv", "xnnpack"], codes["split", "xnnpack"]
        assert conv.keys() == split.keys()
        for name, wanted in conv.items():
            np.testing.assert_array_equal(split[name], wanted)


def test_tflites_own_kernel_of_groups_rounds_in_its_own_way(rng, monkeypatch):
    """As matrix kernels, the twin would not equal TFLite's own."""

    def build():
        inputs = layers.Input((8, 8, 3))
        x = layers.Conv2D(8, 3)(inputs)
        x = layers.Flatten()(layers.Conv2D(16, 3, groups=2)(x))
        return keras.Model(inputs, layers.Dense(3)(x))

    student, x = tiny.calibrated(build, rng, 8)
    built = tiny.built(student)
    codes = verification.probe_codes(built.graph, built.frozen, [x], "builtin")
    runtime = this_machine().with_kernels("builtin")
    monkeypatch.setattr(rounding, "SCALAR_KINDS", ())
    monkeypatch.setattr(rounding, "MATRIX_KINDS", ("grouped_conv",))
    differ = verification.twin_differences(built.frozen, codes, runtime)
    nodes = built.frozen.by_name()
    assert [name for name, n in differ.items() if n and nodes[name].groups > 1]


def test_it_rounds_alike_on_all_processors():
    for runtime in RUNTIMES.values():
        assert runtime.rounds_twice("grouped_conv", (3, 3, 4, 16), 1)
        assert not runtime.half_up("grouped_conv", 16).any()


@pytest.mark.parametrize(
    ("target", "storage", "splits"),
    [
        ("phone", "int8", 0),
        ("phone", "auto", 0),
        ("phone", "packed", 2),
        ("symmetric", "int8", 0),
        ("edgetpu", "int8", 2),
        ("tflm", "int8", 0),
        ("tflm", "packed", 0),
        ("ethos-u55-128", "int8", 0),
    ],
)
@pytest.mark.usefixtures("split_whatever_it_costs")
def test_the_target_and_the_container_choose_the_form(target, storage, splits, rng):
    bits = 8 if target == "edgetpu" else 4
    student, _ = tiny.calibrated(resnext_block, rng, bits, target=target)
    graph = tiny.built(student, storage).graph
    assert codes_of(graph)["SPLIT"] == codes_of(graph)["CONCATENATION"] == splits
    assert len(grouped(graph)) == 2 - splits
    found = {t.dtype for n, t in graph.tensors.items() if "group_0/weight" in n}
    wanted = {"packed": {"int4"}, "int8": {"int8"}}.get(storage)
    assert found == (wanted if splits else set())


def test_an_edge_tpu_runs_every_operator(rng, tmp_path):
    student, x = tiny.calibrated(resnext_block, rng, 8, target="edgetpu")
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, verbose=False)
    assert report.operators["SPLIT"] == 2
    assert {op.runs_on for op in tflite_export.check_model(student).operators} == {
        "Edge TPU"
    }
    tflite_export.verify_tflite(path, student, x, verbose=False)


def test_a_gpu_gets_one_convolution_per_group(rng, tmp_path):
    student, x = tiny.calibrated(resnext_block, rng, 8)
    path, verdicts = tmp_path / "model.tflite", {}
    for consumer in (None, "gpu"):
        report = tflite_export.export_model(
            student, path, consumer=consumer, verbose=False
        )
        [verdicts[consumer]] = [
            one.verdict for one in report.consumers if one.consumer == "gpu"
        ]
    assert verdicts == {None: "wrong", "gpu": "runs"}
    assert not grouped(from_bytes(path.read_bytes()))
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert not any(point.twin_differences for point in found.points)


def test_small_kernels_are_not_split_to_save_bytes(rng, tmp_path):
    student, _ = tiny.calibrated(resnext_block, rng)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, storage="packed", verbose=False)
    remarks = {layer.remark: layer.container for layer in report.layers}
    assert remarks["one CONV_2D per group would take more bytes than int8"] == "int8"
    assert "SPLIT" not in report.operators


def test_large_kernels_are_split_and_the_file_is_smaller(rng):
    def build():
        inputs = layers.Input((8, 8, 3))
        x = layers.Conv2D(64, 1, activation="relu")(inputs)
        x = layers.Conv2D(64, 3, groups=2, activation="relu", name="grouped")(x)
        return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))

    student, _ = tiny.calibrated(build, rng)
    packed = tiny.built(student, "packed")
    names = [name for name in packed.graph.tensors if "grouped/group" in name]
    assert sum(name.endswith("/weight") for name in names) == 2
    inside = tiny.built(student, "int8", grouped="split").content
    one = tiny.built(student, "int8").content
    needed = (len(inside) - len(one)) / 2
    assert 0.8 < needed / containers.BYTES_OF_GROUP < 1.1
    assert len(packed.content) < len(one) - 64 * 3 * 3 * 32 / 2 + 3 * needed


@pytest.mark.parametrize("contents", ["full", "hash", "none"])
def test_the_form_is_read_from_the_file(contents, rng):
    student, _ = tiny.calibrated(resnext_block, rng)
    for form in ("conv", "split"):
        built = tiny.built(student, metadata=contents, grouped=form)
        storage = "int8" if contents == "none" else None
        found = settings_of(from_bytes(built.content), "file", storage)
        assert found == built.settings


@pytest.mark.usefixtures("split_whatever_it_costs")
def test_packed_groups_are_no_other_form(rng):
    student, _ = tiny.calibrated(resnext_block, rng)
    built = tiny.built(student, "packed")
    assert codes_of(built.graph)["SPLIT"] == 2
    assert settings_of(from_bytes(built.content), "file") == built.settings


def test_a_wrong_code_of_a_group_is_rejected(rng, tmp_path):
    student, _ = tiny.calibrated(resnext_block, rng, 8)
    graph = from_bytes(tiny.built(student, grouped="split").content)
    [name, *_] = [n for n in graph.tensors if n.endswith("group_2/weight")]
    codes = graph.tensors[name].data.copy()
    codes.flat[5] ^= 1
    graph.tensors[name].data = codes
    path = tmp_path / "model.tflite"
    path.write_bytes(to_bytes(graph))
    with pytest.raises(tflite_export.VerificationError, match=r"group_2/weight.*1 of"):
        tflite_export.verify_tflite(path, student)


def test_groups_in_another_order_are_rejected(rng, tmp_path):
    student, _ = tiny.calibrated(resnext_block, rng, 8)
    graph = from_bytes(tiny.built(student, grouped="split").content)
    split = next(op for op in graph.ops if op.code == "SPLIT")
    split.outputs.reverse()
    path = tmp_path / "model.tflite"
    path.write_bytes(to_bytes(graph))
    with pytest.raises(tflite_export.VerificationError, match="SPLIT reads"):
        tflite_export.verify_tflite(path, student)


@pytest.mark.parametrize(("target", "form"), [("phone", "split"), ("edgetpu", "conv")])
def test_float_groups_are_split_where_others_are(target, form, rng, tmp_path):
    names = [
        layer.name
        for layer in resnext_block().layers
        if isinstance(layer, layers.Conv2D) and layer.groups > 1
    ]
    keras.backend.clear_session()  # The names are the same again.
    options = {"overrides": {names[0]: "float"}, "target": target}
    student, x = tiny.calibrated(resnext_block, rng, 8, **options)
    built = tiny.built(student, grouped=form)
    assert not grouped(built.graph) and codes_of(built.graph)["SPLIT"] == 2
    path = tmp_path / "model.tflite"
    path.write_bytes(built.content)
    tflite_export.verify_tflite(path, student, x, verbose=False)
    if target == "phone":
        assert len(grouped(tiny.built(student).graph)) == 2


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="`grouped` must be one of"):
        dataclasses.replace(FileSettings(), grouped="depthwise")


# --- What else counts operators and codes --------------------------------------------


def test_reports_and_sizes_add_up_the_groups(rng, tmp_path):
    student, x = tiny.calibrated(resnext_block, rng, 8, target="edgetpu")
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, verbose=False)
    kernels = {
        node.kernel.layer: node.kernel.values
        for node in read_model(student).nodes
        if node.groups > 1
    }
    assert len(kernels) == 2
    rows = {layer.name: layer for layer in report.layers if layer.name in kernels}
    for name, values in kernels.items():
        filters = values.shape[-1]
        assert rows[name].num_codes == values.size
        assert rows[name].num_channels == filters
        assert rows[name].num_bytes == values.size + 4 * filters
    keras.backend.clear_session()  # The names are the same again.
    model = resnext_block()
    mixed = MixedBits(
        model, x, 8, activation_bits=None, fixed={}, storage=Storage(), target="edgetpu"
    )
    sizes = mixed.size(dict.fromkeys(mixed.layers, 8)).layer_bytes
    for name, values in kernels.items():
        assert sizes[name] >= values.size + 4 * values.shape[-1]


@pytest.mark.usefixtures("split_whatever_it_costs")
def test_latency_is_that_of_all_groups(rng):
    student, _ = tiny.calibrated(shufflenet_block, rng)
    own, int8 = (tiny.built(student, storage) for storage in ("packed", "int8"))
    names = [node.name for node in own.frozen.nodes if node.split]
    assert len(names) == 2
    _, by_layer = measure_latency(own.graph, int8.graph, own.frozen, verbose=False)
    assert all(by_layer[name].own > 0 for name in names)


def test_parts_of_a_kernel_are_its_channels():
    weight = tiny_weight(np.arange(8).reshape(1, 1, 1, 8), scales=8)
    part = kernel_operators._channels(weight, slice(2, 4))
    assert part.codes.codes.ravel().tolist() == part.bias.codes.tolist() == [2, 3]
    assert part.codes.scale.tolist() == part.bias.scale.tolist() == [3, 4]
    assert part.sign.tolist() == [1, 1]


def tiny_weight(codes, scales):
    """A kernel whose biases are its codes."""
    scale = np.arange(1, scales + 1, dtype=np.float32)
    return KernelWeight(
        codes=QuantizedTensor(codes, scale, codes.ndim - 1),
        sign=np.ones(codes.shape[-1]),
        num_bits=8,
        bias=QuantizedTensor(codes.reshape(-1), scale),
    )


# --- From training to the file -------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("build", COUNTS)
@pytest.mark.filterwarnings("ignore:These tensors use less than")
def test_networks_are_trained_saved_and_exported(build, bits, rng, tmp_path):
    student, x = tiny.calibrated(build, rng, bits)
    y = rng.integers(0, 5, len(x))
    before = {v.name: v.numpy() for v in student.trainable_variables}
    tiny.compiled(student, "adam").fit(x, y, batch_size=20, epochs=1, verbose=0)
    for variable in student.trainable_variables:
        assert np.isfinite(variable.numpy()).all()
        if "_step" in variable.name:
            assert (variable.numpy() != before[variable.name]).any(), variable.name
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    for storage in ("int8", "packed"):
        path = tmp_path / f"{storage}.tflite"
        report = tflite_export.export_model(
            loaded, path, storage=storage, verbose=False
        )
        assert not report.float_layers
        found = tflite_export.verify_tflite(path, student, x, verbose=False)
        assert found.equal_codes == found.weight_codes > 0
        assert not any(point.twin_differences for point in found.points)
    restored = tf_lsq.to_float(student)
    assert {getattr(one, "groups", 1) for one in restored.layers} > {1}


def test_a_keras_3_model_is_trained_and_exported(rng, tmp_path):
    inputs = keras3.Input((8, 8, 3), name="image")
    x = keras3.layers.Conv2D(8, 3, activation="relu")(inputs)
    x = keras3.layers.Conv2D(8, 3, groups=2, use_bias=False)(x)
    x = keras3.layers.ReLU()(keras3.layers.BatchNormalization()(x))
    x = keras3.layers.GlobalAveragePooling2D()(x)
    model = keras3.Model(inputs, keras3.layers.Dense(3, name="scores")(x))
    student = tf_lsq.quantize_model(model, weight_bits=4, activation_bits=4)
    x = rng.uniform(-1, 1, (32, 8, 8, 3)).astype(np.float32)
    tiny.compiled(student, "adam").fit(x, rng.integers(0, 3, 32), verbose=0)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, verbose=False)
    assert not report.float_layers
    assert len(grouped(from_bytes(path.read_bytes()))) == 1
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes > 0
    assert not any(point.twin_differences for point in found.points)
