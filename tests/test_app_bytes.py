"""An app copies bytes into a file, and gets the classes of Keras on float images."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness.app import scores_of
from harness.app_models import APP_MODELS, CLASSES, SIZE

import tf_lsq
import tflite_export
from tf_lsq.training import pixel_points

TRAINED = 12_800  # Images, each seen once by the float model and once by the student.


def bytes_of(app, images):
    """What the app has, uint8: the images, and at half the size for two inputs."""
    images = images if app.channels == 3 else images[..., :1]
    return {"image": images, "small": images[:, ::2, ::2]}


def values_of(app, pixels):
    """What Keras takes for bytes."""
    encode = app.pixels.encode
    values = {name: encode(image) for name, image in pixels.items()}
    if isinstance(app.inputs, dict):
        return [values["image"], values["small"]]
    return pixels["image"] if app.dtype == "uint8" else values["image"]


def copied_into(app, path, pixels):
    """Outputs of a file for bytes."""
    names = ("image", "small") if isinstance(app.inputs, dict) else ("image",)
    if len(names) == 1:
        return scores_of(path, pixels["image"])
    return scores_of(path, {name: pixels[name] for name in names})


def compared(app, student, images, path):
    """Scores of the file and of the student, after checking twin and file."""
    ends = {"input_type": "uint8", "output_type": "float32"}
    tflite_export.export_model(student, path, verbose=False, **ends)
    pixels = bytes_of(app, images)
    found = copied_into(app, path, pixels)
    x = values_of(app, pixels)
    twin = tflite_export.integer_twin(student, runtime="x86-64")
    np.testing.assert_array_equal(found, twin.predict(x, verbose=0))
    return found, student.predict(x, verbose=0)


# Untrained, deep networks give every image nearly the same scores.
SHALLOW = [name for name in APP_MODELS if not name.startswith("MobileNet")]


@pytest.mark.parametrize("name", SHALLOW)
def test_the_classes_of_bytes_are_those_of_keras(name, rng, tmp_path):
    app = APP_MODELS[name]
    images = rng.integers(0, 256, (64, SIZE, SIZE, 3)).astype(np.uint8)
    student = tf_lsq.quantize_model(
        app.model(), weight_bits=4, activation_bits=4, inputs=app.inputs
    )
    assert len(pixel_points(student)) == (2 if name == "two inputs" else 1)
    tf_lsq.calibrate(student, (values_of(app, bytes_of(app, images)), None))
    tf_lsq.round_biases(student)
    found, expected = compared(app, student, images, tmp_path / "model.tflite")
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.slow
@pytest.mark.parametrize("name", APP_MODELS)
def test_accuracy_on_photographs_is_that_of_keras(name, real_data, tmp_path, capsys):
    tfds = pytest.importorskip("tensorflow_datasets")
    app = APP_MODELS[name]
    folder = real_data / "tfds"
    data_set = "cifar10" if app.channels == 3 else "fashion_mnist"
    if not (folder / data_set).is_dir():
        pytest.skip(f"no {data_set} in {folder}")
    loaded = [
        tfds.as_numpy(tfds.load(
            data_set, split=split, batch_size=-1, data_dir=folder, download=False
        ))
        for split in (f"train[:{TRAINED}]", "test")
    ]  # fmt: skip
    (images, labels), (test, wanted) = (
        (tf.image.resize_with_crop_or_pad(d["image"], SIZE, SIZE).numpy(), d["label"])
        for d in loaded
    )
    x = values_of(app, bytes_of(app, images))
    model = app.model()
    layers = app.library.losses, app.library.optimizers
    loss = layers[0].SparseCategoricalCrossentropy(from_logits=True)
    model.compile(layers[1].Adam(3e-3), loss)
    model.fit(x, labels, batch_size=64, verbose=0)
    student = tf_lsq.quantize_model(
        model, weight_bits=4, activation_bits=4, inputs=app.inputs
    )
    student.compile(layers[1].Adam(1e-4), loss)
    student.fit(x, labels, batch_size=64, verbose=0)
    found, expected = compared(app, student, test, tmp_path / "model.tflite")
    assert found.shape == (len(wanted), CLASSES)
    classes, keras_classes = found.argmax(axis=1), expected.argmax(axis=1)
    accuracy = (classes == wanted).mean()
    with capsys.disabled():
        print(
            f"\n{name}: {accuracy:.2%} with bytes, "
            f"{(keras_classes == wanted).mean():.2%} with float images in Keras, "
            f"{(classes != keras_classes).sum()} of {len(wanted)} classes differ"
        )
    # The file is its twin to the code. Keras sums in float32, so a code of a layer
    # in between may round the other way, as in files whose input is no pixels.
    assert (classes != keras_classes).sum() <= 5
    assert accuracy > 0.15  # MobileNet needs more than one epoch.
