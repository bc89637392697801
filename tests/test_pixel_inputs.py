"""Which inputs are pixels, and what follows them in student and file."""

from __future__ import annotations

import warnings

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
from harness import tiny
from harness.app import scores_of

import tf_lsq
import tflite_export
from tf_lsq import Pixels
from tf_lsq._compat import keras, tfmot
from tf_lsq.layers import PixelPoint
from tf_lsq.training import pixel_points, quantization_points
from tflite_export.build import build_file
from tflite_export.file import from_bytes
from tflite_export.freezing import read_model

layers = keras.layers
MEANS, VARIANCES = [123.7, 116.3, 103.5], [3410.0, 3263.0, 3292.0]


def network(front=lambda x: x, shape=(8, 8, 3), dtype="float32", library=keras):
    """A convolutional network with something before its first convolution."""
    inputs = library.Input(shape, dtype=dtype, name="image")
    x = library.layers.Conv2D(4, 3, padding="same", name="conv")(front(inputs))
    x = library.layers.GlobalAveragePooling2D()(library.layers.ReLU()(x))
    return library.Model(inputs, library.layers.Dense(5, name="head")(x))


def dense():
    """A network of vectors."""
    inputs = keras.Input((12,), name="image")
    return keras.Model(inputs, layers.Dense(5, name="head")(inputs))


def images(rng, shape=(64, 8, 8, 3)):
    return rng.integers(0, 256, shape).astype(np.uint8)


def operators(student):
    return [op.code for op in build_file(read_model(student)).graph.ops]


def input_end(student):
    """Scale and zero point of the int8 input."""
    graph = build_file(read_model(student)).graph
    end = graph.tensors[graph.inputs["image"]].quantization
    return float(end.scale[0]), end.zero_point


def exported(student, path, x, **options):
    options = {"input_type": "uint8", "output_type": "float32", **options}
    return tflite_export.export_model(student, path, data=x, verbose=False, **options)


# --- By itself: what the constants say ----------------------------------------------

APPLICATIONS = {"tf": "mobilenet", "torch": "densenet", "caffe": "resnet50"}


def preprocessed(mode, library=keras):
    return getattr(library.applications, APPLICATIONS[mode]).preprocess_input


# Front of the model -> (scale, zero point) of the input, operators before the first
# convolution.
NORMALISED = {
    "Rescaling to 0..1": (lambda: layers.Rescaling(1 / 255), (1 / 255, -128), []),
    "by 256": (lambda: layers.Rescaling(1 / 256), (1 / 256, -128), []),
    "by 128": (lambda: layers.Rescaling(1 / 128, -1), (1 / 128, 0), []),
    "to -1..1": (
        lambda: layers.Rescaling(1 / 127.5, -1), (1, -128), ["DEPTHWISE_CONV_2D"]
    ),
    "to -0.5..0.5": (
        lambda: layers.Rescaling(1 / 255, -0.5), (1, -128), ["DEPTHWISE_CONV_2D"]
    ),
    "inverted": (
        lambda: layers.Rescaling(-1 / 255, 1), (1, -128), ["DEPTHWISE_CONV_2D"]
    ),
    "Normalization": (
        lambda: layers.Normalization(mean=MEANS, variance=VARIANCES),
        (1, -128), ["DEPTHWISE_CONV_2D"],
    ),
    "two layers": (
        lambda: keras.Sequential([
            layers.Rescaling(1 / 255),
            layers.Normalization(mean=[0.5] * 3, variance=[0.0625] * 3),
        ]),
        (1, -128), ["DEPTHWISE_CONV_2D"],
    ),
    "EfficientNet-Lite": (
        lambda: lambda x: (x - 127.0) / 128.0, (1 / 128, -1), []
    ),
    "tf": (lambda: preprocessed("tf"), (1, -128), ["DEPTHWISE_CONV_2D"]),
    "torch": (lambda: preprocessed("torch"), (1, -128), ["DEPTHWISE_CONV_2D"]),
    "caffe": (
        lambda: preprocessed("caffe"), (1, -128), ["REVERSE_V2", "DEPTHWISE_CONV_2D"]
    ),
    "moved first": (
        lambda: lambda x: layers.Rescaling(1 / 127.5, -1)(tf.reverse(x, [2])),
        (1, -128), ["REVERSE_V2", "DEPTHWISE_CONV_2D"],
    ),
    "padded after": (
        lambda: lambda x: layers.ZeroPadding2D(1)(layers.Rescaling(1 / 128, -1)(x)),
        (1 / 128, 0), ["PAD"],
    ),
    "augmented first": (
        lambda: lambda x: layers.Rescaling(1 / 127.5, -1)(layers.RandomFlip()(x)),
        (1, -128), ["DEPTHWISE_CONV_2D"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMALISED)
def test_a_model_that_normalizes_bytes_takes_bytes(name, rng, tmp_path):
    front, end, before = NORMALISED[name]
    student, pixels = tf_lsq.quantize_model(network(front())), images(rng)
    [point] = pixel_points(student).values()
    assert point.pixel_grid.pixels == Pixels(0, 1)
    x = pixels.astype(np.float32)
    tf_lsq.calibrate(student, x)
    scale, zero_point = input_end(student)
    assert scale == pytest.approx(end[0], rel=1e-6) and zero_point == end[1]
    found = operators(student)
    assert found[: found.index("CONV_2D")] == before
    path = tmp_path / "model.tflite"
    report = exported(student, path, x)
    assert report.pixels == ["image: byte, where the model takes byte"]
    expected = student(x, training=False)
    np.testing.assert_array_equal(scores_of(path, pixels), expected)


@pytest.mark.parametrize("mode", APPLICATIONS)
@pytest.mark.parametrize("as_layer", [True, False])
def test_preprocessing_of_keras3_is_recognised(mode, as_layer, rng, tmp_path):
    front = preprocessed(mode, keras3)
    front = keras3.layers.Lambda(front) if as_layer else front
    student = tf_lsq.quantize_model(network(front, library=keras3))
    pixels, path = images(rng), tmp_path / "model.tflite"
    tf_lsq.calibrate(student, pixels.astype(np.float32))
    exported(student, path, pixels.astype(np.float32))
    expected = student.predict(pixels.astype(np.float32), verbose=0)
    np.testing.assert_array_equal(scores_of(path, pixels), expected)


def test_the_student_computes_what_the_float_model_does_with_bytes(rng):
    for name in ("by 128", "torch", "caffe", "inverted"):
        model = network(NORMALISED[name][0]())
        student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
        x = images(rng).astype(np.float32)
        tf_lsq.calibrate(student, x)
        assert tiny.largest_difference(student(x), model(x)) < 0.05


# Front of the model -> shape and type of the input.
NOT_PIXELS = {
    "no scaling": (lambda x: x, (8, 8, 3), "float32"),
    "a factor that bytes do not have": (layers.Rescaling(0.5, -1.0), (8, 8, 3), None),
    "decibels": (
        lambda x: layers.Normalization(mean=[-40.0], variance=[225.0])(x), (8, 8, 1),
        None,
    ),
    "amplitudes": (
        lambda x: layers.Normalization(mean=[0.1], variance=[0.04])(x), (8, 8, 1), None
    ),
    "one channel standardized": (
        lambda x: layers.Normalization(mean=[40.0], variance=[2500.0])(x), (8, 8, 1),
        None,
    ),
    "three small sensors": (
        lambda x: layers.Normalization(mean=[0, 0.1, 9.8], variance=[1, 1, 1])(x),
        (8, 8, 3), None,
    ),
    "many channels": (layers.Rescaling(1 / 255), (8, 8, 6), None),
    "a batch norm": (layers.BatchNormalization(), (8, 8, 3), None),
    "scaled after a convolution": (
        lambda x: layers.Rescaling(1 / 255)(layers.Conv2D(3, 1)(x)), (8, 8, 3), None
    ),
    "a series of three sensors": (
        lambda x: layers.Reshape((32, 3, 1))(layers.Rescaling(1 / 255)(x)), (32, 3),
        None,
    ),
    "8-bit waves": (layers.Rescaling(1 / 255, 3.0), (8, 8, 1), None),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_PIXELS)
def test_other_inputs_learn_their_step(name):
    front, shape, dtype = NOT_PIXELS[name]
    student = tf_lsq.quantize_model(network(front, shape, dtype or "float32"))
    assert not pixel_points(student)
    assert not any(isinstance(p, PixelPoint) for p in quantization_points(student))


@pytest.mark.parametrize("front", ["flattened", "reshaped", "scaled first"])
def test_gray_images_need_no_axis_of_channels(front, rng, tmp_path):
    inputs, scale = layers.Input((16, 20), name="image"), layers.Rescaling(1 / 255)
    if front == "flattened":
        x = layers.Dense(8, activation="relu")(layers.Flatten()(scale(inputs)))
    else:
        to_image = layers.Reshape((16, 20, 1))
        first, then = (to_image, scale) if front == "reshaped" else (scale, to_image)
        x = layers.Conv2D(4, 3, activation="relu")(then(first(inputs)))
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    student, image = tf_lsq.quantize_model(model), images(rng, (64, 16, 20))
    x = image.astype(np.float32)
    tf_lsq.calibrate(student, x)
    assert input_end(student)[1] == -128
    assert ("DEPTHWISE_CONV_2D" in operators(student)) == (front == "reshaped")
    path = tmp_path / "model.tflite"
    exported(student, path, x)
    np.testing.assert_array_equal(scores_of(path, image), student(x))


def test_tabular_features_are_not_pixels():
    inputs = layers.Input((12,), name="features")
    model = keras.Model(inputs, layers.Dense(3)(layers.Rescaling(1 / 255)(inputs)))
    assert not pixel_points(tf_lsq.quantize_model(model))
    student = tf_lsq.quantize_model(model, inputs=Pixels(0, 1))
    assert list(pixel_points(student)) == ["features"]


def test_uint8_inputs_are_pixels_unless_they_are_ids(rng, tmp_path):
    model = network(lambda x: tf.cast(x, tf.float32) / 255.0, dtype="uint8")
    student, pixels = tf_lsq.quantize_model(model), images(rng)
    tf_lsq.calibrate(student, pixels)
    assert input_end(student) == (float(np.float32(1 / 255)), -128)
    assert "DEPTHWISE_CONV_2D" not in operators(student)
    path = tmp_path / "model.tflite"
    exported(student, path, pixels)
    np.testing.assert_array_equal(scores_of(path, pixels), student(pixels))
    ids = layers.Input((4,), dtype="uint8", name="ids")
    x = layers.Flatten()(layers.Embedding(256, 4)(ids))
    words = keras.Model(ids, layers.Dense(2)(x))
    student = tf_lsq.quantize_model(words, overrides={"embedding.*": "float"})
    assert not pixel_points(student)


def test_none_turns_it_off():
    model = network(layers.Rescaling(1 / 255))
    student = tf_lsq.quantize_model(model, inputs={"image": None})
    assert not pixel_points(student)
    assert student.get_layer("rescaling")


# --- What the user says -------------------------------------------------------------


def two_inputs(library=keras):
    """An image and a depth map; names are not in the order of inputs."""
    image = library.Input((8, 8, 3), name="picture")
    depth = library.Input((8, 8, 1), name="depth")
    conv = library.layers.Conv2D
    x = library.layers.Add()([conv(4, 3, padding="same")(i) for i in (image, depth)])
    x = library.layers.GlobalAveragePooling2D()(library.layers.ReLU()(x))
    return library.Model([image, depth], library.layers.Dense(5, name="dense")(x))


@pytest.mark.parametrize("library", [keras, keras3], ids=["tf_keras", "keras3"])
def test_several_inputs_are_named(library, rng, tmp_path):
    said = {"picture": Pixels(128, 64), "depth": Pixels(127.5, 127.5)}
    student = tf_lsq.quantize_model(two_inputs(library), inputs=said)
    picture, depth = images(rng), images(rng, (64, 8, 8, 1))
    x = [said["picture"].encode(picture), said["depth"].encode(depth)]
    tf_lsq.calibrate(student, (x, None) if library is keras3 else x)
    path = tmp_path / "model.tflite"
    tflite_export.export_model(
        student, path, input_type="uint8", output_type="float32", verbose=False
    )
    found = scores_of(path, {"picture": picture, "depth": depth})
    twin = tflite_export.integer_twin(student, runtime="x86-64")
    np.testing.assert_array_equal(twin.predict(x, verbose=0), found)
    expected, step = student.predict(x, verbose=0), tf_lsq.steps(student)
    assert np.abs(found - expected).max() <= 1.01 * step["quantize_dense"]
    assert (found == expected).mean() > 0.99


def test_an_input_that_is_missing_learns_its_step():
    student = tf_lsq.quantize_model(two_inputs(), inputs={"depth": Pixels()})
    assert list(pixel_points(student)) == ["depth"]


IDS = layers.Input((4,), dtype="int32", name="image")
REFUSED = {
    "several inputs": (two_inputs, Pixels(), "must map names.*'picture', 'depth'"),
    "names": (
        two_inputs, {"a": Pixels(), "b": None, "depth": Pixels((1, 2, 3))},
        "'a' is no input; 'b' is no input; 'depth': numbers for 3 channels.*size 1",
    ),
    "channels": (network, Pixels((1, 2, 3, 4), 5), "numbers for 4 channels.*size 3"),
    "order": (
        lambda: network(shape=(8, 8, 1)), Pixels(order="bgr"), "needs 3 channels.* 1"
    ),
    "type": (
        lambda: network(layers.Rescaling(1.0), dtype="uint8"), Pixels(),
        r"type uint8.*Pixels\(0, 1\)",
    ),
    "other things": (network, {"image": 255}, r"Received: \[255\]"),
    "not a mapping": (network, 255, r"Received: \[255\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_by_name(name):
    model, inputs, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        tf_lsq.quantize_model(model(), inputs=inputs)


def test_ids_are_refused():
    ids = layers.Input((4,), dtype="int32", name="ids")
    x = layers.Flatten()(layers.Embedding(9, 4)(ids))
    model = keras.Model(ids, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="'ids': the model reads it as whole numbers"):
        tf_lsq.quantize_model(
            model, overrides={"embedding.*": "float"}, inputs=Pixels()
        )


# --- What follows -------------------------------------------------------------------


def test_a_scaling_in_the_model_and_one_of_the_data_become_one(rng):
    """Data in [0, 1], which the model maps to [-1, 1) around byte 128."""
    front = layers.Rescaling(255 / 128, -1)
    student = tf_lsq.quantize_model(network(front), inputs=Pixels())
    tf_lsq.calibrate(student, Pixels().encode(images(rng)))
    assert input_end(student) == (1 / 128, 0)
    assert operators(student)[0] == "CONV_2D"


def test_zero_of_padding_is_exact(rng, tmp_path):
    """A network that only sees padding: a kernel that reads beyond the edge."""
    inputs = layers.Input((2, 2, 3), name="image")
    x = layers.Conv2D(4, 5, padding="same", activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    pixels = Pixels(MEANS, np.sqrt(VARIANCES))
    student, image = (
        tf_lsq.quantize_model(model, inputs=pixels),
        images(rng, (64, 2, 2, 3)),
    )
    x = pixels.encode(image)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    report = exported(student, path, x)
    assert max(p.off_by_one for p in report.verification.points) == 0
    np.testing.assert_array_equal(scores_of(path, image), student(x))


def test_fewer_bits_of_the_first_layer_leave_the_bytes(rng):
    model = network()
    student = tf_lsq.quantize_model(model, first_last_bits=4, inputs=Pixels())
    names = [p.name for p in quantization_points(student)]
    assert names[:2] == ["quantize_image", "quantize_image_to_4_bits"]
    tf_lsq.calibrate(student, Pixels().encode(images(rng)))
    assert input_end(student) == (float(np.float32(1 / 255)), -128)


@pytest.mark.parametrize("kind", ["average pool", "joined", "two readers", "resized"])
def test_other_readers_of_an_input(kind, rng, tmp_path):
    inputs = layers.Input((8, 8, 3), name="image")
    if kind == "average pool":
        x = layers.AveragePooling2D(2)(inputs)
    elif kind == "resized":
        x = layers.Resizing(5, 5)(inputs)
    elif kind == "joined":
        x = layers.Concatenate()([inputs, layers.Conv2D(2, 3, padding="same")(inputs)])
    else:
        x = layers.Add()([inputs, layers.Conv2D(3, 3, padding="same")(inputs)])
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Conv2D(4, 3)(x)))
    model = keras.Model(inputs, layers.Dense(5)(x))
    for pixels in (Pixels(), Pixels(100, 50), Pixels(MEANS, 60, "bgr")):
        student, image = tf_lsq.quantize_model(model, inputs=pixels), images(rng)
        x = pixels.encode(image)
        tf_lsq.calibrate(student, x)
        path = tmp_path / "model.tflite"
        report = exported(student, path, x)
        assert not report.float_layers
        difference = np.abs(scores_of(path, image) - student(x)).max()
        assert difference <= 1.01 * tf_lsq.steps(student)["quantize_dense"]
        keras.backend.clear_session()


def test_the_first_layers_may_stay_in_float(rng, tmp_path):
    """Then the normalization is computed in float, too."""
    pixels = Pixels(127.5, 127.5)
    student = tf_lsq.quantize_model(
        network(), inputs=pixels, overrides={"conv": "float"}
    )
    image, path = images(rng), tmp_path / "model.tflite"
    x = pixels.encode(image)
    tf_lsq.calibrate(student, x)
    report = exported(student, path, x)
    assert report.float_layers == ["image_normalized", "conv"]
    np.testing.assert_allclose(scores_of(path, image), student(x), atol=0.02)


def test_a_scaling_that_is_left_in_float_stays(rng):
    model = network(layers.Rescaling(1 / 255))
    student = tf_lsq.quantize_model(model, overrides={"rescaling": "float"})
    assert student.get_layer("rescaling")
    assert pixel_points(student)["image"].pixel_grid.divisor == 1
    tf_lsq.calibrate(student, images(rng).astype(np.float32))
    assert operators(student)[0] == "DEQUANTIZE"


@pytest.mark.parametrize("target", ["edgetpu", "tflm", "ethos-u55-128", "phone"])
@pytest.mark.parametrize("pixels", [Pixels(), Pixels(MEANS, 60)], ids=["one", "three"])
def test_targets_take_bytes(target, pixels, rng, tmp_path):
    student = tf_lsq.quantize_model(
        network(), target=target, inputs=pixels, asymmetric_activations=True
    )
    x = pixels.encode(images(rng))
    tf_lsq.calibrate(student, x)
    report = exported(student, tmp_path / "model.tflite", x, input_type="int8")
    assert report.pixels


def test_a_symmetric_target_has_zero_points_of_0(rng, tmp_path):
    target = {"target": "symmetric"}
    assert not pixel_points(
        tf_lsq.quantize_model(network(layers.Rescaling(1 / 255)), **target)
    )
    for number, (pixels, before) in enumerate(
        [(Pixels(128, 128), []), (Pixels(), ["DEPTHWISE_CONV_2D"]),
         (Pixels(MEANS, 60), ["DEPTHWISE_CONV_2D"])]
    ):  # fmt: skip
        student = tf_lsq.quantize_model(network(), inputs=pixels, **target)
        image = images(rng)
        x = pixels.encode(image)
        tf_lsq.calibrate(student, x)
        path = tmp_path / f"{number}.tflite"
        exported(student, path, x, input_type="int8")
        graph = from_bytes(path.read_bytes())
        quantized = [t.quantization for t in graph.tensors.values()]
        assert {q.zero_point for q in quantized if q is not None} == {0}
        found = operators(student)
        assert found[: found.index("CONV_2D")] == before
        run = tflite_export.runtimes.Runner(graph)
        [codes] = run.run(
            {"image": (image.astype(np.int16) - 128).astype(np.int8)}
        ).values()
        np.testing.assert_allclose(codes, student(x), atol=1e-6)


# --- The rest of the library ---------------------------------------------------------


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("library", [keras, keras3], ids=["tf_keras", "keras3"])
def test_students_are_saved_and_loaded(suffix, library, rng, tmp_path):
    if library is keras3 and suffix == ".h5":
        pytest.skip("Keras 3 students are saved as .keras")
    pixels = Pixels(MEANS, 60, "bgr")
    student = tf_lsq.quantize_model(network(library=library), inputs=pixels)
    x = pixels.encode(images(rng))
    tf_lsq.calibrate(student, x)
    path = tmp_path / f"student{suffix}"
    student.save(path)
    loaded = library.models.load_model(path)
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), student.predict(x, verbose=0)
    )
    files = [tmp_path / "one.tflite", tmp_path / "other.tflite"]
    for one, file in zip((student, loaded), files, strict=True):
        tflite_export.export_model(one, file, verbose=False)
    assert files[0].read_bytes() == files[1].read_bytes()
    tflite_export.verify_tflite(files[0], loaded, x, verbose=False)


def test_the_scheme_of_tfmot_takes_pixels(rng):
    model = keras.Sequential(
        [layers.Conv2D(4, 3, input_shape=(8, 8, 3)), layers.Flatten(), layers.Dense(2)]
    )
    name = model.input_names[0]
    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    scheme = tf_lsq.LSQQuantizeScheme(inputs={name: Pixels(127.5, 127.5)})
    student = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    assert list(pixel_points(student)) == [name]
    tf_lsq.calibrate(student, Pixels(127.5, 127.5).encode(images(rng)))
    assert operators(student)[0] == "DEPTHWISE_CONV_2D"


def test_layers_that_tfmot_does_not_annotate_stay_in_float(rng):
    annotate = tfmot.quantization.keras.quantize_annotate_layer
    model = keras.Sequential(
        [
            layers.Rescaling(1 / 255, input_shape=(8, 8, 3)),
            annotate(layers.Conv2D(4, 3)),
            layers.Flatten(),
            annotate(layers.Dense(2)),
        ]
    )
    student = tfmot.quantization.keras.quantize_apply(model, tf_lsq.LSQQuantizeScheme())
    [point] = pixel_points(student).values()
    assert point.pixel_grid.divisor == 1


@pytest.mark.parametrize("quantize", [True, False])
@pytest.mark.parametrize("pixels", [Pixels(), Pixels(MEANS, 60, "bgr")])
def test_a_float_model_of_a_student_takes_the_same_values(quantize, pixels, rng):
    student = tf_lsq.quantize_model(network(), inputs=pixels)
    x = pixels.encode(images(rng))
    tf_lsq.calibrate(student, x)
    plain = tf_lsq.to_float(student, quantize_activations=quantize)
    limit = 1e-5 if quantize else 0.2
    assert tiny.largest_difference(plain(x), student(x)) < limit


def test_training_moves_weights_and_no_grid(rng):
    pixels = Pixels(127.5, 127.5)
    student = tf_lsq.quantize_model(network(), inputs=pixels)
    x, y = pixels.encode(images(rng)), rng.integers(0, 5, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.01), loss)
    before = student.get_layer("conv").get_weights()[0]
    student.fit(x, y, verbose=0, epochs=2)
    assert (student.get_layer("conv").get_weights()[0] != before).any()
    for name in ("quantize_image", "quantize_image_normalized"):
        assert not student.get_layer(name).weights
    assert input_end(student) == (1, -128)


def test_a_teacher_reads_the_same_values(rng):
    pixels, model = Pixels(127.5, 127.5), network()
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(model, inputs=pixels), model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(keras.optimizers.SGD(1e-9), loss)
    distiller.fit(pixels.encode(images(rng)), rng.integers(0, 5, 64), verbose=0)
    assert input_end(distiller.student) == (1, -128)


def test_nested_models_and_cut_students(rng, tmp_path):
    inner = network(layers.Rescaling(1 / 128, -1))
    inputs = layers.Input((8, 8, 3), name="image")
    student = tf_lsq.quantize_model(keras.Model(inputs, inner(inputs)))
    x = images(rng).astype(np.float32)
    tf_lsq.calibrate(student, x)
    assert input_end(student) == (1 / 128, 0)
    [end] = [p for p in quantization_points(student) if "re_lu" in p.name]
    cut = keras.Model(student.input, end.output)
    assert exported(cut, tmp_path / "cut.tflite", x).pixels


def test_sizes_of_none_are_kept(rng, tmp_path):
    pixels = Pixels(MEANS, 60, "bgr")
    with pytest.warns(UserWarning, match="A file has inputs of one size"):
        student = tf_lsq.quantize_model(network(shape=(None, None, 3)), inputs=pixels)
    image, path = images(rng), tmp_path / "model.tflite"
    x = pixels.encode(image)
    tf_lsq.calibrate(student, x)
    exported(student, path, x, input_shapes=(8, 8, 3))
    np.testing.assert_array_equal(scores_of(path, image), student(x))


def test_bits_are_suggested_and_models_checked_for_pixels(rng):
    pixels = Pixels(127.5, 127.5)
    x = pixels.encode(images(rng))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report = tflite_export.check_model(network(), inputs=pixels)
        assert report.ok and report.operators[0].code == "DEPTHWISE_CONV_2D"
        assert tflite_export.check_model(
            network(layers.Rescaling(1 / 255), dtype="uint8")
        ).ok
        found = tflite_export.suggest_bits(
            network(), x, budget_bytes=10_000, inputs=pixels, verbose=False
        )
    assert set(found.overrides)


def test_metadata_and_inspection_name_the_pixels(rng, tmp_path):
    pixels, path = Pixels(MEANS, 60, "bgr"), tmp_path / "model.tflite"
    student = tf_lsq.quantize_model(network(), inputs=pixels)
    tf_lsq.calibrate(student, pixels.encode(images(rng)))
    report = exported(student, path, None)
    line = f"image: byte, where the model takes {pixels}"
    assert report.pixels == [line] and line in str(report)
    found = tflite_export.inspect_tflite(path)
    [entry] = [e for e in found.described["tensors"].values() if "pixels" in e]
    assert Pixels(**entry["pixels"]) == pixels and entry["smallest"] == 0
    assert (
        "pixels, trained on (byte - [123.7, 116.3, 103.5]) / 60.0, channels rev"
        in str(found)
    )
    # A file of another normalization is another file.
    other = tf_lsq.quantize_model(network(), inputs=Pixels(MEANS, 60))
    tf_lsq.calibrate(other, pixels.encode(images(rng)))
    with pytest.raises(tflite_export.VerificationError):
        tflite_export.verify_tflite(path, other, verbose=False)


FRONTS = {
    "absorbed": (
        layers.Rescaling(1 / 128, -1, name="front"), None, ["front", "image"]
    ),
    "cast and absorbed": (
        lambda x: layers.Rescaling(1 / 128, -1)(tf.cast(x, tf.float32)), Pixels(0, 1),
        ["tf.cast", "image"],
    ),
    "kept": (
        layers.Rescaling(1 / 127.5, -1, name="front"), None, ["front", "image"]
    ),
    "inserted": (lambda x: x, Pixels(MEANS, 60, "bgr"), ["image"]),
    "reversed": (lambda x: x, Pixels(128, 60, "bgr"), ["image"]),
    "merged": (layers.Rescaling([1.0, 2.0, 3.0]), Pixels(127.5, 60), ["image"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FRONTS)
def test_students_of_pixels_are_compared_with_their_model(name, rng):
    front, inputs, compared = FRONTS[name]
    model = network(front)
    student = tf_lsq.quantize_model(
        model, weight_bits=8, activation_bits=8, inputs=inputs
    )
    x = (inputs or Pixels(0, 1)).encode(images(rng))
    tf_lsq.calibrate(student, x)
    rows = {row.name: row for row in tf_lsq.compare(model, student, x).layers}
    assert set(compared) <= set(rows)
    assert min(row.own_sqnr_db for row in rows.values()) > 30


def test_a_scaling_is_merged_into_the_normalization_of_the_input(rng):
    front, inputs, _ = FRONTS["merged"]
    for target in ("phone", "symmetric"):
        student = tf_lsq.quantize_model(network(front), inputs=inputs, target=target)
        tf_lsq.calibrate(student, inputs.encode(images(rng)))
        assert operators(student)[:2] == ["DEPTHWISE_CONV_2D", "CONV_2D"]


CODE = [
    (network, Pixels(), (8, 8, 3)),
    (network, Pixels(127.5, 60), (8, 8, 3)),
    (network, Pixels(MEANS, 60, "bgr"), (8, 8, 3)),
    (dense, Pixels(127.5, 127.5), (12,)),
]  # fmt: skip


@pytest.mark.parametrize("ends", ["int8", "uint8", "float32"])
@pytest.mark.parametrize(("build", "pixels", "shape"), CODE)
def test_code_that_runs_a_file_takes_bytes(
    build, pixels, shape, ends, rng, tmp_path, monkeypatch
):
    x = images(rng, (8, *shape))
    student = tf_lsq.quantize_model(build(), inputs=pixels)
    tf_lsq.calibrate(student, pixels.encode(x))
    report = exported(student, tmp_path / "model.tflite", None, input_type=ends)
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(report.snippets["python"], scope)
    found = np.concatenate([scope["predict"](one[None]) for one in x])
    twin = tflite_export.integer_twin(student)
    np.testing.assert_array_equal(found, twin.predict(pixels.encode(x), verbose=0))
    with pytest.raises(TypeError, match="uint8"):
        scope["predict"](pixels.encode(x[:1]))
    # Images say so themselves, for code that is written later.
    standard = tflite_export.read_metadata(tmp_path / "model.tflite").standard
    assert bool(standard and standard.normalization) == (len(shape) == 3)


@pytest.mark.parametrize(
    ("pixels", "ends", "expected"),
    [
        (Pixels(), "int8", "static_cast<int8_t>(image[i] - 128)"),
        (Pixels(), "uint8", "static_cast<uint8_t>(image[i])"),
        (Pixels(128, 64), "float32", "mean[] = {128.0f}, deviation[] = {64.0f};"),
    ],
)
def test_code_for_microcontrollers_takes_bytes(pixels, ends, expected, rng, tmp_path):
    student = tf_lsq.quantize_model(network(), inputs=pixels, target="tflm")
    tf_lsq.calibrate(student, pixels.encode(images(rng)))
    report = exported(student, tmp_path / "model.tflite", None, input_type=ends)
    assert "const uint8_t* image" in report.snippets["cpp"]
    assert expected in report.snippets["cpp"]
