"""A Keras 3 student seen layer by layer: names, freezing, cutting, nesting."""

from __future__ import annotations

import keras as keras3
import numpy as np
import pytest
from harness.keras3 import check_export, compiled, examples, network, student

import tf_lsq
import tflite_export

layers = keras3.layers
X, Y = examples()


def test_layers_have_the_names_of_the_float_model():
    model = student()
    names = [layer.name for layer in model.layers]
    assert {layer.name for layer in network().layers} <= set(names)
    assert names == [layer.name for layer in model.student.layers]
    assert list(model.output_names) == list(network().output_names)
    assert model.get_layer("conv_1").output.shape == (None, 8, 8, 8)
    lines = []
    model.summary(print_fn=lambda text, **_: lines.append(text))
    assert "conv_1" in "".join(lines)


def test_variables_share_their_storage():
    model = student()
    model.get_layer("scores").set_weights(
        [np.ones(v.shape, v.dtype) for v in model.get_layer("scores").weights]
    )
    inner = model.student.get_layer("scores")
    assert (inner.kernel.numpy() == 1).all()
    inner.kernel.assign(inner.kernel * 3)
    [kernel] = [v for v in model.get_layer("scores").weights if v.name == "kernel"]
    assert (kernel.numpy() == 3).all()
    assert kernel.path == "scores/kernel"
    assert len(model.trainable_variables) == len(model.student.trainable_variables)
    model.set_weights(model.get_weights())


@pytest.mark.parametrize("after_compile", [False, True])
def test_frozen_layers_do_not_train(after_compile):
    model = student()
    tf_lsq.calibrate(model, X)
    if after_compile:
        compiled(model)
    model.get_layer("conv_1").trainable = False
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = False
    compiled(model)
    model.rounds_biases = False
    names = ("conv_1", "norm")
    before = [np.concatenate([w.ravel() for w in weights_of(model, n)]) for n in names]
    free = weights_of(model, "conv_2")
    model.fit(X, Y, batch_size=24, verbose=0)
    for name, values in zip(names, before, strict=True):
        after = np.concatenate([w.ravel() for w in weights_of(model, name)])
        np.testing.assert_array_equal(after, values)
    changed = zip(free, weights_of(model, "conv_2"), strict=True)
    assert any(np.any(one != other) for one, other in changed)
    model.get_layer("conv_1").trainable = True
    assert model.student.get_layer("conv_1").trainable_weights
    model.trainable = False
    assert not model.trainable_weights
    assert not model.student.trainable_weights


def weights_of(model, name):
    return model.get_layer(name).get_weights()


def test_a_student_cut_at_a_point_exports(tmp_path):
    model = student()
    tf_lsq.calibrate(model, X)
    cut = keras3.Model(model.input, model.get_layer("quantize_pool").output)
    assert cut.predict(X, verbose=0).shape == (len(X), 8)
    check_export(cut, tmp_path / "model.tflite", X)


def test_a_new_head_is_refused_with_the_remedy(tmp_path):
    model = student()
    tf_lsq.calibrate(model, X)
    head = layers.Dense(3, name="new")(model.get_layer("quantize_pool").output)
    extended = keras3.Model(model.input, head)
    extended.compile("sgd", "sparse_categorical_crossentropy")
    extended.fit(X, Y % 3, verbose=0)
    with pytest.raises(ValueError, match=r"added unquantized: .*`new`.*quantize that"):
        tflite_export.export_model(extended, tmp_path / "model.tflite")


def test_it_is_a_layer_of_other_models(tmp_path):
    model = student()
    inputs = keras3.Input(X.shape[1:])
    outer = keras3.Model(inputs, model(inputs))
    outer.compile(tf_lsq.prepare_optimizer(keras3.optimizers.SGD(0.01)), "mse")
    outer.fit(X, np.eye(4)[Y], batch_size=24, verbose=0)
    assert all((step > 0).all() for step in tf_lsq.steps(model).values())
    stacked = keras3.Sequential([keras3.Input(X.shape[1:]), model])
    np.testing.assert_allclose(
        stacked.predict(X, verbose=0), model.predict(X, verbose=0), atol=1e-5
    )
    tf_lsq.round_biases(model)
    check_export(model, tmp_path / "model.tflite", X)
    with pytest.raises(ValueError, match=r"has `network` as a layer: export that"):
        tflite_export.export_model(stacked, tmp_path / "stacked.tflite")


def test_a_single_layer_is_not_copied():
    model = student()
    with pytest.raises(ValueError, match="cannot be copied by itself"):
        keras3.models.clone_model(model)
    tf_lsq.calibrate(model, X)
    copy = type(model).from_config(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(
        copy.predict(X, verbose=0), model.predict(X, verbose=0)
    )
    kernel = copy.student.get_layer("conv_1").kernel
    kernel.assign(kernel + 1)
    assert np.all(kernel != model.student.get_layer("conv_1").kernel)


def test_from_keras3_returns_the_tf_keras_student():
    model = student()
    assert tf_lsq.from_keras3(model) is model.student
    assert model.step_clip == model.student.step_clip
    model.step_clip, model.rounds_biases = 0.5, False
    assert (model.student.step_clip, model.student.rounds_biases) == (0.5, False)
    model.use_plain_op()
    assert model.student.get_layer("conv_1").plain_op


def test_settings_are_those_of_the_tf_keras_layers():
    inputs = keras3.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.BatchNormalization(momentum=0.5, epsilon=0.01, name="norm")(x)
    x = layers.Flatten()(layers.Dropout(0.5, name="drop")(x))
    model = tf_lsq.quantize_model(keras3.Model(inputs, layers.Dense(2)(x)))
    norm = model.get_layer("norm")
    assert (norm.momentum, norm.epsilon) == (0.5, 0.01)
    model.get_layer("drop").rate = 0.0
    norm.momentum = 0.9
    assert model.student.get_layer("drop").rate == 0.0
    assert model.student.get_layer("norm").momentum == 0.9


def test_variables_frozen_inside_a_layer_stay_frozen():
    inputs = keras3.Input((4, 3))
    pair = layers.Bidirectional(layers.LSTM(4, unroll=True), name="pair")
    x = pair(layers.Conv1D(4, 1)(inputs))
    pair.forward_layer.trainable = False
    model = keras3.Model(inputs, layers.Dense(2)(x))
    model = tf_lsq.quantize_model(model, overrides={"pair": "float"})
    trained = {variable.path for variable in model.trainable_variables}
    assert len(trained) == len(model.student.trainable_variables)
    assert not any("forward" in path for path in trained)


def test_models_around_it_have_its_losses():
    regularized = network(kernel_regularizer=keras3.regularizers.L2(0.1))
    model = tf_lsq.quantize_model(regularized)
    stacked = keras3.Sequential([keras3.Input(X.shape[1:]), model])
    assert len(stacked.losses) == len(model.losses) == len(model.student.losses) == 1


def test_summaries_name_the_classes_of_layers():
    model = student()
    names = {layer.name: type(layer).__name__ for layer in model.layers}
    assert names["conv_1"] == "LSQWrapper"
    assert names["norm"] == "BatchNormalization"
    assert names["quantize_image"] == names["relu_1"] == "QuantizationPoint"
    lines: list[str] = []
    model.summary(print_fn=lambda text, **_: lines.append(text))
    assert "LayerView" not in "".join(lines)
