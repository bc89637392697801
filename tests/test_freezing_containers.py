"""Packed containers: their bytes, their files, and the integers these compute."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from harness import tiny
from hypothesis import given
from hypothesis import strategies as st
from test_file_flatbuffer import fully_connected, quantization

import tf_lsq
import tflite_export
from tf_lsq._compat import keras
from tf_lsq.graph import code_multiplier
from tflite_export import verification
from tflite_export.file import flatbuffer, packing
from tflite_export.freezing import Grid, containers, grids, weights
from tflite_export.runtimes import Runner

layers = keras.layers


@pytest.mark.parametrize("container", packing.PACKED)
def test_every_byte_survives_packing(container):
    room = packing.CONTAINERS[container]
    count = 8 // room.num_bits
    for codes in itertools.product(range(room.low, room.high + 1), repeat=count):
        data = packing.pack(np.array(codes), container)
        assert len(data) == 1
        assert tuple(packing.unpack(data, count, container)) == codes


@given(
    codes=st.lists(st.integers(-2, 1), max_size=40),
    container=st.sampled_from(packing.PACKED),
)
def test_any_number_of_codes_survives_packing(codes, container):
    data = packing.pack(np.array(codes, np.int8), container)
    assert len(data) == packing.num_packed_bytes(len(codes), container)
    assert packing.unpack(data, len(codes), container).tolist() == codes


def test_the_first_code_is_in_the_lowest_bits():
    assert packing.pack(np.array([1, 2, -1, -8]), "int4") == bytes([0x21, 0x8F])
    assert packing.pack(np.array([1, 0, -1, -2]), "int2") == bytes([0b10110001])


def test_codes_and_bytes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"int4 must be from -8 to 7.*to 8"):
        packing.pack(np.array([8]), "int4")
    with pytest.raises(ValueError, match=r"must have 2 bytes\. Received: 1"):
        packing.unpack(b"\0", 3, "int4")
    with pytest.raises(ValueError, match="padded with zeros"):
        packing.unpack(b"\0\x10", 3, "int4")


@pytest.mark.parametrize(("container", "version"), [("int4", 10), ("int2", 14)])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_packed_dense_layers_run(container, version, channels, rng):
    graph = fully_connected()
    room = packing.CONTAINERS[container]
    weight = graph.tensors["w"]
    weight.dtype, weight.shape = container, (2, channels)
    weight.data = rng.integers(room.low, room.high + 1, weight.shape).astype(np.int8)
    graph.tensors["x"].shape = (1, channels)
    graph.tensors["y"].quantization = quantization(0.125, -128)
    content = flatbuffer.to_bytes(graph)
    found = flatbuffer.from_bytes(content)
    assert found.tensors["w"].dtype == container
    np.testing.assert_array_equal(found.tensors["w"].data, weight.data)
    assert found.ops[0].version == version
    x = rng.integers(-20, 20, (5, channels)).astype(np.int8)
    [y] = Runner(graph).run({"in": x}).values()
    acc = (x.astype(int) + 1) @ weight.data.T.astype(int) + graph.tensors["b"].data
    np.testing.assert_array_equal(y, np.clip(acc, 0, 255) - 128)


# --- Storages ----------------------------------------------------------------------


def network(shape=(8, 8, 3)):
    """Every kind of kernel that can be packed."""
    inputs = layers.Input(shape, name="image")
    x = tiny.conv_bn_relu(inputs, 6)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Flatten()(layers.MaxPooling2D()(layers.Conv2D(5, 3, name="conv")(x)))
    x = layers.Dense(6, activation="relu", name="dense")(x)
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="network")


def student_of(rng, bits, **options):
    model = tiny.randomize(network(), rng)
    options = {"activation_bits": bits, **options}
    student = tf_lsq.quantize_model(model, weight_bits=bits, **options)
    x = rng.uniform(-1, 1, (64, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    return student, x


@pytest.mark.parametrize("storage", ["packed", "auto"])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
@pytest.mark.parametrize("activation_bits", [8, 5, 3])
def test_biases_on_the_grid_of_a_storage_are_exact_in_its_file(
    bits, activation_bits, storage, rng, tmp_path
):
    student, x = student_of(rng, bits, activation_bits=activation_bits)
    # If gamma changes its sign in training, the flipped codes leave less room.
    norm = student.get_layer("batch_normalization")
    norm.gamma.assign(-norm.gamma)
    tflite_export.round_biases(student, storage)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, storage=storage)
    # The bias grids of the 8-bit first and last layers are not divided.
    trained = [layer for layer in report.layers if layer.num_bits == bits]
    assert max(layer.bias_error for layer in trained) < 1e-3
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.equal_codes == found.weight_codes
    assert found.twin_differences == 0
    assert not any(point.twin_differences for point in found.points)
    stored = {layer.name: layer.container for layer in report.layers}
    conv = "int4" if storage == "packed" and bits <= 4 else "int8"
    assert (stored["conv"], stored["depthwise"]) == (conv, "int8")
    # This layer has 20 inputs, a multiple of 4, so neither container is slower.
    assert stored["dense"] == {2: "int2", 3: "int4", 4: "int4", 8: "int8"}[bits]


def test_auto_packs_layers_that_do_not_get_slower(rng, tmp_path):
    inputs = layers.Input((8,), name="x")
    x = layers.Dense(8, activation="relu", name="even")(inputs)
    x = layers.Dense(7, activation="relu", name="four")(x)
    outputs = layers.Dense(3, name="odd")(x)
    student = tf_lsq.quantize_model(
        keras.Model(inputs, outputs), weight_bits=4, first_last_bits=4
    )
    tf_lsq.calibrate(student, rng.normal(size=(32, 8)).astype(np.float32))
    tflite_export.round_biases(student, "packed")
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, storage="auto")
    assert [layer.container for layer in report.layers] == ["int4", "int4", "int8"]


@pytest.mark.parametrize(("positions", "container"), [(1, "int4"), (3, "int8")])
def test_auto_packs_no_operator_with_several_positions(
    positions, container, rng, tmp_path
):
    inputs = layers.Input((positions, positions, 8), name="x")
    x = layers.Conv2D(8, 1, activation="relu")(inputs)
    x = layers.Dense(8, activation="relu", name="dense")(x)
    x = layers.Conv2D(8, 1, activation="relu", name="conv")(x)
    outputs = layers.Dense(3, name="scores")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    student = tf_lsq.quantize_model(model, weight_bits=4, activation_bits=4)
    data = rng.normal(size=(32, positions, positions, 8)).astype(np.float32)
    tf_lsq.calibrate(student, data)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, storage="auto")
    found = {layer.name: layer.container for layer in report.layers}
    assert (found["dense"], found["conv"]) == (container, container)


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_one_bias_grid_makes_all_storages_equal(bits, rng, tmp_path):
    student, x = student_of(rng, bits)
    outputs, sizes, graphs = [], [], []
    for storage in ("int8", "packed", "auto"):
        path = tmp_path / f"{storage}.tflite"
        report = tflite_export.export_model(
            student, path, storage=storage, bias_grid="packed"
        )
        built = tiny.built(student, storage, "packed")
        assert path.read_bytes() == built.content
        graph, frozen = built.graph, built.frozen
        outputs.append(verification.probe_codes(graph, frozen, [x], "builtin"))
        graphs.append(graph)
        sizes.append(sum(layer.num_bytes for layer in report.layers))
    assert sizes[1] < sizes[0]
    for codes in outputs[1:]:
        assert codes.keys() == outputs[0].keys()
        for name, expected in outputs[0].items():
            np.testing.assert_array_equal(codes[name], expected)
    # Not a coincidence: all numbers are the same in every container.
    for graph in graphs[1:]:
        for name, tensor in graphs[0].tensors.items():
            found = graph.tensors[name]
            assert found.quantization == tensor.quantization
            if tensor.data is not None:
                np.testing.assert_array_equal(found.data.ravel(), tensor.data.ravel())


def kernel_of(codes, bias, num_bits):
    codes = np.array(codes)
    scale = np.full(codes.shape[-1], 0.5)
    return weights.FoldedKernel("dense", codes, scale, np.array(bias), num_bits)


FULL = Grid(0.5, 0)  # An 8-bit tensor has no room for widening.


def test_a_shared_bias_grid_costs_int8_files_nothing(rng, tmp_path):
    student, x = student_of(rng, 4)
    tflite_export.round_biases(student, "packed")
    path = tmp_path / "model.tflite"
    for bias_grid in ("own", "packed"):
        tflite_export.export_model(student, path, bias_grid=bias_grid)
        found = tflite_export.verify_tflite(path, student, x, verbose=False)
        assert found.off_by_one < 1e-4, bias_grid


def test_names_of_the_model_do_not_depend_on_the_storage(rng, tmp_path):
    inputs = layers.Input((8, 8, 3), name="image")
    x = tiny.conv_bn_relu(inputs, 6)
    x = layers.Conv2D(6, 3, activation="relu", name="r")(x)
    x = layers.Conv2D(6, 3, activation="relu", name="r_x15")(x)
    x = layers.Conv2D(6, 3, activation="relu", name="last")(x)
    model = keras.Model(inputs, layers.Dense(3, name="scores")(layers.Flatten()(x)))
    student = tf_lsq.quantize_model(tiny.randomize(model, rng))
    x = rng.uniform(-1, 1, (16, 8, 8, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    report = tflite_export.export_model(
        student, tmp_path / "model.tflite", storage="packed", data=x, benchmark=True,
        verbose=False,
    )  # fmt: skip
    names = [layer.name for layer in report.layers]
    assert names[1:] == ["r", "r_x15", "last", "scores"]
    assert "r_x15_2" in [point.name for point in report.verification.points]


def test_a_container_too_coarse_for_the_bias_is_replaced_by_the_next():
    kernel = kernel_of([[1, -2], [1, 1]], [0.11, 0.3], 2)
    allowed = containers.AllowedContainers("dense", "int2", "int2")
    found = weights._integer_weight(kernel, FULL, Grid(0.1, 0), allowed)
    # By hand: bias units are 0.25 in INT2 and 0.0625 in INT4; an output code is 0.1.
    assert found.remark == "in int2 its bias would move an output by 1.1"
    assert (found.container, found.multiplier, found.widening) == ("int4", 4, 1)
    np.testing.assert_array_equal(found.codes.codes, [[4, -8], [4, 4]])
    np.testing.assert_array_equal(found.bias.codes, [2, 5])
    assert found.bias_error == pytest.approx(0.15)


# (kernel bits, input bits) -> (container, multiplier, widening).
SCALINGS = {
    (4, 8): ("int4", 1, 1),
    (4, 4): ("int4", 1, 15),
    (4, 3): ("int4", 1, 30),
    (3, 4): ("int4", 2, 15),
    (2, 4): ("int2", 1, 15),
    (2, 2): ("int2", 1, 60),
    (4, 5): ("int4", 1, 5),
}


@pytest.mark.parametrize("bits", SCALINGS)
def test_inputs_are_widened_where_a_container_has_no_room(bits):
    container, multiplier, widening = SCALINGS[bits]
    q_max = 2 ** bits[1] - 1
    source = Grid(0.5, 127 - q_max, 127 - q_max, 127)
    low, high = -(2 ** (bits[0] - 1)), 2 ** (bits[0] - 1) - 1
    kernel = kernel_of([[low, high], [high, low]], [0.0, 0.0], bits[0])
    allowed = containers.AllowedContainers(
        "conv", container, container, builtin=(container,), builtin_rounds_twice=True
    )
    found = weights._integer_weight(kernel, source, Grid(100.0, 0), allowed)
    assert (found.container, found.multiplier, found.widening) == (
        container, multiplier, widening,
    )  # fmt: skip
    wide = grids.widened(source, widening, symmetric=False)
    assert (wide.low, wide.zero_point) == ((-128, -128) if widening > 1 else
                                           (source.low, source.zero_point))  # fmt: skip
    assert wide.high <= 127
    assert wide.scale * widening == pytest.approx(source.scale, rel=1e-6)


# Bias in units of input scale times kernel scale -> widening of its input.
@pytest.mark.parametrize(("bias", "widening"), [(3, 1), (1 / 3, 3), (0.3, 15)])
def test_inputs_are_widened_no_further_than_biases_need_where_kernels_round_once(
    bias, widening
):
    source = Grid(0.5, 112, 112, 127)
    kernel = kernel_of([[1, -8], [7, 7]], [bias * 0.5 * 0.5, 0.0], 4)
    allowed = containers.AllowedContainers("conv", "int4", "int4", builtin=("int4",))
    found = weights._integer_weight(kernel, source, Grid(1.0, 0), allowed)
    assert (found.container, found.multiplier) == ("int4", 1)
    assert found.widening == widening
    assert found.bias.codes[0] == round(bias * widening)


def test_a_symmetric_target_widens_around_zero():
    source = Grid(0.5, 0, -8, 7)
    assert grids.most_widening(source, symmetric=True) == 15
    wide = grids.widened(source, 15, symmetric=True)
    assert (wide.zero_point, wide.low, wide.high) == (0, -120, 105)


def test_a_flipped_kernel_that_int4_cannot_hold_keeps_int8(rng, tmp_path):
    student, x = student_of(rng, 4, first_last_bits=4)
    norm = student.get_layer("batch_normalization")
    # Set after quantize_model, as training might: no channel is flipped any longer.
    norm.gamma.assign(-norm.gamma)
    kernel = student.get_layer("conv2d").kernel
    kernel.assign(kernel - 0.2)  # So that the code -8 is in use.
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, storage="packed")
    assert "cannot hold its codes" in report.layers[0].remark
    assert report.layers[0].container == "int8"
    tflite_export.verify_tflite(path, student, x, verbose=False)


@pytest.mark.parametrize(
    ("bits", "container", "expected"),
    [(4, "int4", 0), (3, "int4", 1), (2, "int4", 3), (2, "int2", 0), (4, "int8", 15)],
)
def test_the_multiplier_leaves_room_for_flipped_codes(bits, container, expected):
    codes = np.array([2 ** (bits - 1), -1])
    assert containers.multiplier_of(codes, bits, container) == expected


def test_the_int8_grid_contains_the_int4_grid():
    for bits in (4, 3, 2):
        assert code_multiplier(bits) % code_multiplier(bits, 4) == 0


def test_packed_pointwise_convolutions_become_fully_connected(rng, tmp_path):
    inputs = layers.Input((8, 8, 4), name="image")
    x = layers.Conv2D(8, 3, activation="relu")(inputs)
    x = tiny.conv_bn_relu(x, 8, 1)
    x = layers.Conv2D(8, 1, strides=2, activation="relu", name="strided")(x)
    x = layers.Conv2D(6, 1, name="logits")(x)
    model = tiny.randomize(keras.Model(inputs, layers.Flatten()(x)), rng)
    student = tf_lsq.quantize_model(model, weight_bits=2, activation_bits=2)
    x = rng.uniform(-1, 1, (32, 8, 8, 4)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    tf_lsq.round_biases(student)
    kinds = {}
    for storage in ("int8", "packed", "auto"):
        path = tmp_path / f"{storage}.tflite"
        report = tflite_export.export_model(student, path, storage=storage)
        kinds[storage] = [(layer.kind, layer.container) for layer in report.layers]
        found = tflite_export.verify_tflite(path, student, x, verbose=False)
        assert found.twin_differences == 0
        assert found.equal_codes == found.weight_codes
    assert kinds["packed"][1:3] == [("pointwise", "int2"), ("conv", "int4")]
    assert kinds["int8"] == kinds["auto"] == [("conv", "int8")] * 4


@pytest.mark.parametrize("storage", ["packed", "auto"])
@pytest.mark.parametrize("bits", [4, 2])
def test_packed_symmetric_files_have_no_zero_points(bits, storage, rng, tmp_path):
    student, x = student_of(rng, bits, target="symmetric")
    tf_lsq.round_biases(student)
    path = tmp_path / "model.tflite"
    report = tflite_export.export_model(student, path, storage=storage)
    assert any(layer.container != "int8" for layer in report.layers)
    graph = flatbuffer.from_bytes(path.read_bytes())
    grids = [tensor.quantization for tensor in graph.tensors.values()]
    assert {grid.zero_point for grid in grids if grid is not None} == {0}
    found = tflite_export.verify_tflite(path, student, x, verbose=False)
    assert found.twin_differences == 0
    assert found.off_by_one < 1e-3


def test_packed_files_are_nearly_as_exact_as_int8_ones(rng, tmp_path):
    student, x = student_of(rng, 4)
    tf_lsq.round_biases(student)
    shares = {}
    for storage in ("int8", "packed"):
        path = tmp_path / f"{storage}.tflite"
        tflite_export.export_model(student, path, storage=storage)
        found = tflite_export.verify_tflite(path, student, x, verbose=False)
        shares[storage] = found.off_by_one
    # TFLite's own kernels round twice: without widened inputs and compensated biases,
    # a tenth of all codes would be off by one.
    assert shares["int8"] < 1e-3 and shares["packed"] < 5e-3
