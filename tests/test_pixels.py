"""`Pixels`, and the codes of all bytes for every normalization in use."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from harness.app import scores_of

import tf_lsq
import tflite_export
from tf_lsq import Pixels
from tf_lsq._compat import keras
from tf_lsq.pixels import PixelGrid
from tflite_export.file import from_bytes
from tflite_export.verification import input_codes

layers = keras.layers

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def of_unit(mean, std):
    """Pixels of ``(byte / 255 - mean) / std``."""
    return Pixels(255 * np.array(mean), 255 * np.array(std))


# In use by `keras.applications`, torchvision, TensorFlow Hub and tutorials.
IN_USE = {
    "bytes": Pixels(0, 1),
    "0 to 1": Pixels(),
    "0 to 1 by 256": Pixels(0, 256),
    "-1 to 1": Pixels(127.5, 127.5),
    "-1 to 1 by 128": Pixels(128, 128),
    "-1 to 1 by 127": Pixels(127, 127),
    "-0.5 to 0.5": Pixels(127.5, 255),
    "int8": Pixels(128, 1),
    "EfficientNet-Lite": Pixels(127, 128),
    "ImageNet": of_unit(*IMAGENET),
    "ImageNet, integers": Pixels((124, 116, 104), (58, 57, 57)),
    "ImageNet, one number": Pixels(117, 58.8),
    "ImageNet, means": Pixels((123.68, 116.779, 103.939), 1),
    "caffe": Pixels((103.939, 116.779, 123.68), 1, "bgr"),
    "reversed": Pixels(order="bgr"),
    "CIFAR-10": of_unit(*CIFAR10),
    "MNIST": of_unit(0.1307, 0.3081),
}
ALL_BYTES = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(1, 16, 16, 3)
# Of all channels another one, so that their order matters.
ALL_BYTES = (ALL_BYTES + np.array([0, 85, 170], np.uint8)).astype(np.uint8)


def reference(pixels, image):
    """What a model takes for bytes, float64, written from the definition."""
    if pixels.order == "bgr":
        image = image[..., [2, 1, 0]]
    return (image.astype(np.float64) - pixels.mean) / pixels.std


def student_of(pixels):
    """A calibrated student that takes all bytes."""
    inputs = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    outputs = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    student = tf_lsq.quantize_model(model, inputs=pixels)
    tf_lsq.calibrate(student, np.float32(reference(pixels, ALL_BYTES)))
    return student


# --- All bytes, exhaustively --------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("pixels", IN_USE.values(), ids=IN_USE.keys())
def test_values_of_bytes_are_turned_into_these_bytes(pixels, dtype):
    values = reference(pixels, ALL_BYTES)
    np.testing.assert_array_equal(pixels.bytes_of(values.astype(dtype)), ALL_BYTES)
    encoded = pixels.encode(ALL_BYTES)
    np.testing.assert_array_equal(encoded, values.astype(np.float32))
    assert encoded.dtype == np.float32


@pytest.mark.parametrize("pixels", IN_USE.values(), ids=IN_USE.keys())
def test_codes_of_all_bytes_are_the_bytes(pixels, tmp_path):
    student, path = student_of(pixels), tmp_path / "model.tflite"
    x = np.float32(reference(pixels, ALL_BYTES))
    report = tflite_export.export_model(
        student, path, input_type="uint8", output_type="float32", data=x, verbose=False
    )
    points = {point.name: point for point in report.verification.points}
    if "image_normalized" in points:
        assert points["image_normalized"].num_codes == ALL_BYTES.size
        assert points["image_normalized"].off_by_one == 0
    graph = from_bytes(path.read_bytes())
    end = graph.tensors[graph.inputs["image"]].quantization
    if pixels.single is not None and float(pixels.single[0]).is_integer():
        mean, std = pixels.single
        np.testing.assert_array_equal(end.scale, np.float32([1 / std]))
        assert end.zero_point == mean
        assert "DEPTHWISE_CONV_2D" not in {op.code for op in graph.ops}
    else:
        assert (end.scale, end.zero_point) == (1, 0)
        assert [op.code for op in graph.ops].count("DEPTHWISE_CONV_2D") == 1
    np.testing.assert_array_equal(scores_of(path, ALL_BYTES), student(x))


@pytest.mark.parametrize("name", [n for n, p in IN_USE.items() if p.order == "rgb"])
def test_the_first_convolution_reads_the_values_of_float64_for_all_bytes(name):
    pixels = IN_USE[name]
    student, values = student_of(pixels), reference(pixels, ALL_BYTES)
    [conv] = [layer for layer in student.layers if layer.name.startswith("conv2d")]
    read = keras.Model(student.input, conv.input)(np.float32(values)).numpy()
    points = [p.name for p in tf_lsq.training.quantization_points(student)]
    if "quantize_image_normalized" in points:
        step = tf_lsq.steps(student)["quantize_image_normalized"]
        # The mean is rounded to what a bias holds, then the value to its grid.
        allowed = step / 2 + 1 / np.min(pixels.std) / 254
        assert len(np.unique(read[..., 0])) > 224  # Nearly all bytes stay apart.
    else:
        allowed = 1e-6 * np.abs(values).max()
    assert np.abs(read - values).max() <= allowed + 1e-6


def test_twin_and_file_have_the_same_codes_for_values_between_bytes(rng, tmp_path):
    pixels = IN_USE["ImageNet"]
    student, path = student_of(pixels), tmp_path / "model.tflite"
    x = pixels.encode(rng.uniform(-3, 258, (64, 16, 16, 3)))
    report = tflite_export.export_model(student, path, data=x, verbose=False)
    [output] = report.verification.outputs.values()
    assert output.twin_differences == 0
    frozen = tflite_export.build.build_file(
        tflite_export.freezing.read_model(student)
    ).frozen
    codes = input_codes(frozen, [x])["image"]
    assert codes.min() == -128 and codes.max() == 127
    inner = keras.Model(student.input, student.get_layer("quantize_image").output)
    np.testing.assert_array_equal(inner(x).numpy(), codes.astype(np.float32) + 128)


@pytest.mark.parametrize("name", ["-1 to 1", "-1 to 1 by 128", "caffe"])
def test_float32_ends_take_the_values_of_the_grid(name, tmp_path):
    pixels = IN_USE[name]
    student, path = student_of(pixels), tmp_path / "model.tflite"
    x = np.float32(reference(pixels, ALL_BYTES))
    ends = {"input_type": "float32", "output_type": "float32"}
    report = tflite_export.export_model(student, path, data=x, verbose=False, **ends)
    taken = ALL_BYTES.astype(np.float32)
    if name == "-1 to 1 by 128":
        taken = (taken - 128) / 128
    run = Interpreter(str(path)).get_signature_runner("serving_default")
    [found] = run(image=taken).values()
    np.testing.assert_array_equal(found, student(x))
    takes = "(byte - 128) / 128" if name == "-1 to 1 by 128" else "byte"
    assert report.pixels == [f"image: {takes}, where the model takes {pixels}"]


# --- Gradients ------------------------------------------------------------------------


def test_the_gradient_of_values_is_one_inside_the_bytes_and_zero_outside():
    for pixels, grid in (
        (Pixels(), (0, 255.0)),
        (Pixels(128, 64), (128, 64.0)),
        (Pixels(order="bgr"), (0, 255.0)),
    ):
        point = tf_lsq.layers.PixelPoint(PixelGrid(pixels, *grid))
        x = tf.constant(pixels.encode(np.array([[-20, 0, 13], [255, 270, 90.4]])))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = point(x)
        gradient = tape.gradient(y, x).numpy()
        expected = np.array([[0, 1, 1], [1, 0, 1]])
        if pixels.order == "bgr":
            expected = expected[:, ::-1]
        np.testing.assert_allclose(gradient, expected, rtol=1e-6)


# --- The class ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mean": "0"}, "mean='0'"),
        ({"mean": True}, "mean=True"),
        ({"mean": None}, "mean=None"),
        ({"mean": float("nan")}, "mean=nan"),
        ({"mean": []}, r"mean=\[\]"),
        ({"mean": [[1.0]]}, r"mean=\[\[1.0\]\]"),
        ({"mean": [[1], [1, 2]]}, "mean="),
        ({"std": 0}, "std=0, which must be positive"),
        ({"std": [1, -1, 1]}, "std=.*must be positive"),
        ({"order": "RGB"}, "order='RGB'"),
        ({"mean": (1, 2, 3), "std": (1, 2)}, "different lengths"),
        ({"mean": "a", "std": -1, "order": 0}, "mean='a'; std=-1, .*; order=0"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Pixels(**arguments)


def test_pixels_are_plain_numbers():
    pixels = Pixels(np.array([1, 2, 3]), np.float32(2))
    assert pixels == Pixels((1.0, 2.0, 3.0), 2.0)
    assert hash(pixels) == hash(Pixels((1.0, 2.0, 3.0), 2.0))
    assert pixels.num_channels == 3 and pixels.single is None
    assert Pixels((5, 5, 5), 2).single == (5.0, 2.0)
    assert Pixels(**pixels.to_dict()) == pixels
    grid = PixelGrid(pixels, 3, 2.0)
    assert PixelGrid.from_dict(grid.to_dict()) == grid


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (Pixels(), "byte / 255"),
        (Pixels(0, 1), "byte"),
        (Pixels(127.5, 127.5), "(byte - 127.5) / 127.5"),
        (Pixels((1, 2, 3), 2, "bgr"), "(byte - [1, 2, 3]) / 2, channels reversed"),
    ],
)
def test_the_formula_is_readable(pixels, text):
    assert str(pixels) == text
