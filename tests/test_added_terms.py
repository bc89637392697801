"""What `add_loss` and `add_metric` added to a float model is trained on."""

import numpy as np
import pytest
import tensorflow as tf

import tf_lsq
import tflite_export
from tf_lsq._compat import keras

layers = keras.layers


@pytest.fixture
def images(rng):
    return rng.normal(size=(64, 6, 6, 3)).astype(np.float32)


def _classifier():
    """Returns a model whose second batch norm channel is negated."""
    x = layers.Input((6, 6, 3), name="image")
    hidden = layers.Conv2D(4, 3, name="conv")(x)
    hidden = layers.BatchNormalization(name="norm")(hidden)
    hidden = layers.ReLU(name="relu")(hidden)
    hidden = layers.GlobalAveragePooling2D(name="pool")(hidden)
    model = keras.Model(x, layers.Dense(2, name="head")(hidden))
    model.get_layer("norm").gamma.assign([1.0, -1.0, 0.5, 2.0])
    return model


def _values(student, name, images):
    """Returns what a layer of a model computes."""
    output = student.get_layer(name).output
    return keras.Model(student.input, output).predict(images, verbose=0)


def _evaluated(student, images):
    """Returns the metrics of a model, with a loss of 0 on its outputs."""
    student.compile("sgd", lambda y_true, y_pred: 0.0 * tf.reduce_sum(y_pred))
    y = np.zeros((len(images), 2))
    return student.evaluate(images, y, len(images), verbose=0, return_dict=True)


@pytest.mark.parametrize(
    ("read", "computed", "sign"),
    [
        ("image", "image", 1),
        ("conv", "conv", [1, -1, 1, 1]),
        ("norm", "norm", 1),
        ("relu", "relu", 1),
        ("pool", "quantize_pool", 1),
        ("head", "quantize_head", 1),
    ],
)
def test_terms_read_what_the_student_computes(read, computed, sign, images):
    model = _classifier()
    tensor = model.get_layer(read).output
    model.add_loss(3.0 * tf.reduce_mean(tf.nn.tanh(tensor)))
    model.add_metric(tf.reduce_max(tensor), name="largest")
    model.add_metric(tf.reduce_min(tensor), name="smallest", aggregation="mean")
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, images)
    found = _evaluated(student, images)
    values = _values(student, computed, images) * np.float32(sign)
    assert found == pytest.approx(
        {
            "loss": 3 * np.mean(np.tanh(values)),
            "largest": values.max(),
            "smallest": values.min(),
        },
        rel=1e-5,
        abs=1e-6,
    )


def test_layers_of_losses_alone_are_trained_in_float(images, tmp_path):
    model = _classifier()
    auxiliary = layers.Dense(5, activation="tanh", name="auxiliary")
    guess = auxiliary(model.get_layer("pool").output)
    model.add_loss(tf.reduce_mean(tf.square(guess - 0.5)))
    student = tf_lsq.quantize_model(model)
    tf_lsq.calibrate(student, images)
    pooled = _values(student, "quantize_pool", images)
    kernel, bias = auxiliary.get_weights()
    expected = np.mean(np.square(np.tanh(pooled @ kernel + bias) - 0.5))
    assert _evaluated(student, images)["loss"] == pytest.approx(expected, rel=1e-5)
    student.compile("sgd", "mse")
    y = np.zeros((64, 2))
    student.fit(images, y, epochs=2, verbose=0)
    assert np.ptp(student.get_layer("auxiliary").kernel - kernel) > 0
    np.testing.assert_array_equal(auxiliary.kernel, kernel)
    report = tflite_export.export_model(student, tmp_path / "m.tflite", data=images)
    assert report.verification.equal_codes == report.verification.weight_codes
    student.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    expected = student.evaluate(images, y, verbose=0)
    assert loaded.evaluate(images, y, verbose=0) == expected


def test_a_layer_of_outputs_and_losses_has_one_kernel(images):
    model = _classifier()
    head = model.get_layer("head")
    again = head(layers.Dropout(0.5, seed=1)(head.input))
    model.add_loss(tf.reduce_mean(tf.square(again - head.get_output_at(0))))
    student = tf_lsq.quantize_model(model)
    kernels = [v for v in student.trainable_variables if v.name == "head/kernel:0"]
    assert len(kernels) == 1
    student.compile("sgd", "mse")
    student.fit(images, np.zeros((64, 2)), verbose=0)


def test_terms_of_nested_models_count_once_per_call(images):
    x = layers.Input((4,))
    inner = keras.Model(x, layers.Dense(4, name="inner_dense")(x), name="inner")
    inner.add_loss(tf.reduce_mean(tf.abs(inner.output)))
    x = layers.Input((4,))
    model = keras.Model(x, layers.Dense(2)(inner(inner(x))))
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    data = images.reshape(-1, 4)
    tf_lsq.calibrate(student, data)
    expected = _evaluated(model, data)["loss"]
    assert expected > 0.1
    assert _evaluated(student, data)["loss"] == pytest.approx(expected, rel=0.02)


def test_losses_of_functions_are_refused():
    model = _classifier()
    conv = model.get_layer("conv")
    conv.add_loss(lambda: tf.reduce_sum(conv.kernel))
    with pytest.raises(ValueError, match=r"of \['conv'\].*`kernel_regularizer`"):
        tf_lsq.quantize_model(model)


def test_regularizers_are_no_losses_of_functions():
    x = layers.Input((4,))
    dense = layers.Dense(2, kernel_regularizer="l2", name="dense")
    student = tf_lsq.quantize_model(keras.Model(x, dense(x)))
    kernel = student.get_layer("dense").layer.kernel
    assert float(student.losses[0]) == pytest.approx(0.01 * np.sum(np.square(kernel)))


def test_functions_that_a_layer_adds_itself_are_copied(images):
    @keras.utils.register_keras_serializable("test")
    class Scale(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight("factor", initializer="ones")
            self.add_loss(lambda: 2.0 * tf.square(self.factor))

        def call(self, inputs):
            return inputs * self.factor

    x = layers.Input((4,))
    model = keras.Model(x, layers.Dense(2)(Scale(name="scale")(layers.Dense(4)(x))))
    student = tf_lsq.quantize_model(model, overrides={"scale": "float"})
    assert float(student.losses[0]) == 2.0


def test_terms_that_cannot_be_computed_again_are_refused():
    model = _classifier()
    kernel = model.get_layer("head").kernel
    model.add_loss(tf.reduce_mean(tf.matmul(model.get_layer("pool").output, kernel)))
    with pytest.raises(ValueError, match="already a weight of `head`"):
        tf_lsq.quantize_model(model)


def test_inputs_that_only_a_loss_reads_are_refused():
    x, y = layers.Input((4,), name="x"), layers.Input((2,), name="y")
    output = layers.Dense(2)(x)
    model = keras.Model([x, y], output)
    model.add_loss(tf.reduce_mean(keras.losses.mse(y, output)))
    with pytest.raises(ValueError, match=r"`y`: no output depends.*`y` in `fit`"):
        tf_lsq.quantize_model(model)


def _compared(model, data, rel=0.03, **options):
    """Checks that the terms of a model are those of its student at 8 bits."""
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8, **options)
    tf_lsq.calibrate(student, data)
    expected = _evaluated(model, data)
    assert _evaluated(student, data) == pytest.approx(expected, rel=rel)
    return student


def test_casts_in_terms_are_carried_out(rng):
    x = layers.Input((6, 6, 3), dtype="uint8")
    pixels = tf.cast(x, tf.float32)
    hidden = layers.Conv2D(4, 3, activation="relu")(pixels / 255.0)
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(hidden)))
    model.add_loss(tf.reduce_mean(tf.square(tf.cast(x, tf.float32))))
    model.add_metric(tf.reduce_mean(tf.square(pixels)), name="squares")
    model.add_metric(tf.cast(tf.reduce_max(x), tf.float32) * 2.0, name="largest")
    _compared(model, rng.integers(0, 256, (32, 6, 6, 3)).astype(np.uint8))


def test_layers_in_float_keep_their_sign(images):
    model = _classifier()
    conv = model.get_layer("conv")
    conv.bias.assign([1.0, 2.0, 3.0, 4.0])
    model.add_metric(tf.reduce_mean(conv.output[..., 1]), name="channel")
    _compared(model, images)
    _compared(model, images, overrides={"conv": "float"})


def test_layers_inside_others_are_not_trained_twice():
    x, z = layers.Input((3, 8)), layers.Input((8,))
    dense = layers.Dense(4, name="shared")
    model = keras.Model([x, z], [layers.Dense(2)(dense(z)), x * 1.0])
    model.add_loss(tf.reduce_mean(layers.TimeDistributed(dense)(x)))
    with pytest.raises(ValueError, match="already a weight of `shared`"):
        tf_lsq.quantize_model(model)


def test_cells_of_two_layers_are_not_trained_twice():
    x = layers.Input((3, 8))
    cell = layers.GRUCell(4)
    first, second = layers.RNN(cell, name="a")(x), layers.RNN(cell, name="b")(x)
    model = keras.Model(x, layers.Dense(2)(first + second))
    with pytest.raises(ValueError, match="already a weight of `a`"):
        tf_lsq.quantize_model(model, overrides={"a": "float", "b": "float"})


def test_factors_of_terms_stay_variable(images):
    factor = tf.Variable(2.0, trainable=False)
    model = _classifier()
    hidden = model.get_layer("relu").output
    model.add_loss(tf.reduce_mean(hidden * factor))
    student = _compared(model, images)
    factor.assign(5.0)
    expected = _evaluated(model, images)
    assert _evaluated(student, images) == pytest.approx(expected, rel=0.03)


def test_terms_that_read_a_weight_of_the_model_are_refused():
    model = _classifier()
    mean = model.get_layer("norm").moving_mean
    model.add_loss(tf.reduce_mean(model.get_layer("conv").output * mean))
    with pytest.raises(ValueError, match=r"reads 'norm/moving_mean.*add_loss"):
        tf_lsq.quantize_model(model)


def test_probabilities_in_terms_have_logarithms(rng):
    x = layers.Input((16,))
    shares = layers.Activation("softmax")(layers.Dense(16)(x) * 4.0)
    model = keras.Model(x, layers.Dense(2)(x * shares))
    model.add_loss(-tf.reduce_mean(tf.reduce_sum(shares * tf.math.log(shares), -1)))
    _compared(model, rng.normal(size=(64, 16)).astype(np.float32))


def test_a_teacher_with_terms_distils(rng):
    x = layers.Input((8,))
    output = layers.Dense(8, name="scores")(layers.Dense(4, activation="relu")(x))
    model = keras.Model(x, output)
    model.add_loss(keras.losses.MeanSquaredError()(x, output))
    distiller = tf_lsq.Distiller(tf_lsq.quantize_model(model), teacher=model)
    distiller.compile("sgd", "mae")
    data = rng.normal(size=(32, 8)).astype(np.float32)
    history = distiller.fit(data, data, verbose=0).history
    assert np.isfinite(history["loss"]).all()
