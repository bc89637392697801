"""`compare`: the losses of each layer, and which tensors are compared."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
from tf_lsq._compat import import_keras3, keras

layers = keras.layers
keras3 = import_keras3()


def network(keras=keras):
    """A network with everything that makes tensors hard to find."""
    layers = keras.layers
    inputs = layers.Input((8, 8, 3), name="image")
    encoder = keras.Sequential(
        [
            layers.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
        ],
        name="encoder",
    )
    x = encoder(inputs)
    shared = layers.Conv2D(6, 3, padding="same", name="twice")
    y = layers.MaxPooling2D(1, name="pool")(shared(shared(x)))
    y = layers.ReLU(name="after_pool")(y)  # A point replaces it.
    z = layers.SeparableConv2D(6, 3, padding="same", activation="swish", name="sep")(x)
    x = layers.Concatenate(name="joined")([x, y, z])
    x = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    heads = [layers.Dense(2, name="box")(x)]
    heads.append(layers.Dense(3, activation="softmax", name="scores")(x))
    return keras.Model(inputs, heads, name="network")


NAMES = ["image", "encoder/conv", "twice", "twice (2)", "pool", "after_pool", "sep"]
NAMES += ["joined", "gate", "mean", "box", "scores"]


@pytest.fixture
def x(rng):
    return rng.uniform(-1, 1, (40, 8, 8, 3)).astype(np.float32)


def student_of(model, x, bits=8, **options):
    student = tf_lsq.quantize_model(
        model, weight_bits=bits, activation_bits=bits, **options
    )
    tf_lsq.calibrate(student, x)
    return student


@pytest.mark.parametrize("kind", [keras, keras3])
def test_every_layer_of_the_user_is_compared(kind, x, rng):
    model = network(kind)
    found = tf_lsq.compare(model, student_of(model, x), x)
    assert sorted(layer.name for layer in found.layers) == sorted(NAMES)
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["encoder/conv"].fused == ("encoder/norm", "encoder/relu")
    assert [layer.name for layer in found.outputs] == ["box", "scores"]
    for layer in found.layers:
        # A tensor of another layer would be as different as noise.
        assert layer.sqnr_db > 20 and layer.own_sqnr_db > 20
        assert 0 <= layer.own_difference < 0.1 and 0 <= layer.difference < 0.1
    assert by_name["pool"].own_sqnr_db == math.inf
    assert by_name["after_pool"].own_sqnr_db < math.inf


def test_differences_are_those_of_the_outputs(x, rng):
    model = tiny.randomize(network(), rng)
    student = student_of(model, x, bits=4)
    found = tf_lsq.compare(model, student, x, batch_size=16)
    assert found.num_examples == len(x)
    outputs = zip(model.predict(x), student.predict(x), found.outputs, strict=True)
    for expected, output, layer in outputs:
        noise = np.square(output - expected, dtype=np.float64).sum()
        signal = np.square(expected, dtype=np.float64).sum()
        ratio = 10 * np.log10(signal / noise)
        assert layer.sqnr_db == pytest.approx(ratio, abs=1e-2)
        difference = np.abs(output - expected).max() / np.ptp(expected)
        assert layer.difference == pytest.approx(difference, rel=1e-3)


def test_the_layer_that_loses_most_comes_first(x, rng):
    model = tiny.randomize(network(), rng)
    student = student_of(model, x, overrides={"gate": (2, 8)})
    found = tf_lsq.compare(model, student, (x, np.zeros(len(x))))
    assert [layer.name for layer in found.worst(1)] == ["gate"]
    by_name = {layer.name: layer for layer in found.layers}
    # What comes after it has lost as much, but not by itself.
    assert by_name["mean"].own_sqnr_db > by_name["gate"].own_sqnr_db + 10
    assert by_name["mean"].sqnr_db < by_name["mean"].own_sqnr_db - 5
    lines = str(found).splitlines()
    assert lines[3].startswith("gate ") and len(lines) == 3 + len(NAMES)
    assert "exact" in lines[-1]
    json.dumps(found.to_dict())


def test_data_come_in_any_form_and_are_limited(x, rng):
    inputs = {name: layers.Input((4,), name=name) for name in ("b", "a")}
    outputs = layers.Subtract()([layers.Dense(3)(inputs["a"]), inputs["b"][:, :3]])
    model = keras.Model(inputs, outputs)
    data = {name: rng.normal(size=(50, 4)).astype(np.float32) for name in ("a", "b")}
    student = student_of(model, data)
    found = tf_lsq.compare(model, student, data, num_examples=30, batch_size=20)
    assert found.num_examples == 30
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(20)
    assert tf_lsq.compare(model, student, dataset, num_examples=30) == found
    assert found.outputs[0].difference < 0.05


def test_paths_and_distillers_are_taken(x, rng, tmp_path):
    model = tiny.randomize(tiny.residual(), rng)
    student = student_of(model, x)
    model.save(tmp_path / "float.keras")
    distiller = tf_lsq.Distiller(student, teacher=model)
    found = tf_lsq.compare(tmp_path / "float.keras", distiller, x)
    assert found == tf_lsq.compare(model, student, x)


def test_models_that_do_not_belong_together_are_refused(x, rng):
    model, other = tiny.residual(), tiny.pre_activation()
    student = student_of(model, x)
    with pytest.raises(ValueError, match=r"quantized from `pre_activation`.*Pass the"):
        tf_lsq.compare(other, student, x)
    with pytest.raises(ValueError, match="2 outputs"):
        two = keras.Model(model.input, [model.output, model.layers[2].output])
        tf_lsq.compare(model, student_of(two, x), x)
    with pytest.raises(ValueError, match="`student` must be a quantized model"):
        tf_lsq.compare(model, model, x)
    with pytest.raises(RuntimeError, match="calibrate"):
        tf_lsq.compare(model, tf_lsq.quantize_model(model), x)
    with pytest.raises(ValueError, match="num_examples"):
        tf_lsq.compare(model, student, x, num_examples=0)


def test_tensors_are_forgotten_once_they_are_compared(x, rng, monkeypatch):
    """The models' tensors would fill the memory if all were kept to the end."""
    model = tiny.randomize(tiny.residual(), rng)
    student = student_of(model, x)
    held = []
    compute = tf_lsq.graph.Values._compute

    def counted(self, node):
        compute(self, node)
        if not self._keep:
            held.append(len(self._values))

    monkeypatch.setattr(tf_lsq.graph.Values, "_compute", counted)
    tf_lsq.compare(model, student, x)
    assert max(held) <= 4
