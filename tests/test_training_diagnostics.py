"""The callback that records steps, update ratios, clipping and codes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from harness import reference, tiny
from tensorflow.core.util.event_pb2 import Event

import tf_lsq
from tf_lsq._compat import keras
from tf_lsq.training import quantization_points, wrapped_layers

layers = keras.layers


def network():
    """Batch norm, dropout, and a ReLU6 that is replaced by a point."""
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Dropout(0.5, seed=1)(tiny.conv_bn_relu(inputs, 4))
    x = layers.Conv2D(4, 3, padding="same", name="middle")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU(6.0, name="relu6")(x))
    return keras.Model(inputs, layers.Dense(5, name="scores")(x), name="network")


def trainable(**options):
    keras.utils.set_random_seed(0)
    student = tf_lsq.quantize_model(
        network(), weight_bits=2, activation_bits=3, **options
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    student.compile(keras.optimizers.SGD(0.02, momentum=0.9), loss, ["accuracy"])
    return student


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (48, 8, 8, 3)).astype(np.float32)
    return x, rng.integers(0, 5, 48)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A trained model, its callback, and the folder for TensorBoard."""
    student, logs = trainable(), tmp_path_factory.mktemp("logs")
    callback = tf_lsq.Diagnostics(logs, data=data, frequency=2)
    student.fit(*data, batch_size=16, verbose=0, callbacks=[callback])
    return student, callback, logs


def begun(student, **arguments):
    """A callback with the single record that is made before the first batch."""
    callback = tf_lsq.Diagnostics(**arguments)
    callback.set_model(student)
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    return callback


# --- The paper's ratio ---------------------------------------------------------------


def expected_ratios(student, x, target):
    """R of a dense layer before a mean squared error, in float64, with g = 1.

    Follows equations 3 and 5 of the paper and the definition of R.
    """
    found = {}
    point, output = quantization_points(student)
    [wrapper] = wrapped_layers(student)
    steps = {k: np.float64(v) for k, v in tf_lsq.steps(student).items()}
    kernel = wrapper.kernel.numpy().astype(np.float64)
    x_codes, _, d_x_step = reference.lsq(x, steps[point.name], -128, 127)
    w_codes, inside_w, d_w_step = reference.lsq(kernel, steps[wrapper.name], -127, 127)
    x_hat, w_hat = x_codes * steps[point.name], w_codes * steps[wrapper.name]
    codes, inside_y, _ = reference.lsq(x_hat @ w_hat, steps[output.name], -128, 127)
    y = codes * steps[output.name]
    dy = 2 * (y - target) / target.size * inside_y
    d_w_hat, d_x_hat = x_hat.T @ dy, dy @ w_hat.T
    weights = np.linalg.norm(d_w_hat * inside_w) / np.linalg.norm(kernel)
    axes = tuple(a for a, n in enumerate(wrapper.step.shape) if n == 1) or None
    d_step = np.sum(d_w_hat * d_w_step, axis=axes)
    found[wrapper.name] = np.linalg.norm(d_step) / np.linalg.norm(steps[wrapper.name])
    found[point.name] = np.abs(np.sum(d_x_hat * d_x_step)) / steps[point.name]
    return {name: update / weights for name, update in found.items()}


@pytest.mark.parametrize("per_channel", [False, True])
def test_the_ratio_is_that_of_the_paper(per_channel, rng):
    layer = layers.Dense(6, use_bias=False, name="dense")
    model = keras.Sequential([layers.Input((10,), name="x"), layer])
    student = tf_lsq.quantize_model(model, per_channel=per_channel)
    student.compile("sgd", "mse")
    x = rng.normal(size=(20, 10)).astype(np.float32)
    target = rng.normal(size=(20, 6)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    point, _ = quantization_points(student)
    [wrapper] = wrapped_layers(student)
    # As in the middle of training: steps have left their initial values, and clip.
    point.step_variables["step"].assign(0.6)
    factors = rng.uniform(0.4, 0.8, wrapper.step.shape)
    wrapper.step_variables["step"].assign(factors)
    callback = begun(student, data=(x, target))
    expected = expected_ratios(student, x.astype(np.float64), target)
    sharing = 10 if per_channel else 60
    scales = {wrapper.name: (sharing * 127) ** -0.5, point.name: (10 * 127) ** -0.5}
    assert set(callback.history["ratio"]) == set(expected) == set(scales)
    for name, ratio in expected.items():
        [unscaled] = callback.history["unscaled_ratio"][name]
        [scaled] = callback.history["ratio"][name]
        assert unscaled == pytest.approx(ratio, rel=1e-5)
        assert scaled == pytest.approx(scales[name] * ratio, rel=1e-5)


def test_an_activation_is_compared_with_the_kernels_that_read_it(rng):
    inputs = layers.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
    branches = [layers.Conv2D(4, 1, name=name)(x) for name in ("left", "right")]
    x = layers.Flatten()(layers.Add(name="add")(branches))
    model = keras.Model(inputs, layers.Dense(2, name="scores")(x))
    student = tf_lsq.quantize_model(model)
    student.compile("sgd", "mse")
    x, y = rng.uniform(size=(4, 8, 8, 3)).astype(np.float32), rng.normal(size=(4, 2))
    tf_lsq.calibrate(student, x)
    callback = begun(student, data=(x, y))
    names = {layer.name for layer in quantization_points(student)}
    assert names - set(callback.history["ratio"]) == {
        "quantize_left",
        "quantize_right",
        "quantize_scores",
    }
    kernels = [student.get_layer(f"{n}").kernel for n in ("left", "right")]
    step = student.get_layer("quantize_stem").step_variables["step"]
    student.use_plain_op()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(student(x, training=True) - y))
    d_kernels, d_step = tape.gradient(loss, [kernels, step])

    def norm(tensors):
        return np.linalg.norm(np.concatenate([np.ravel(t) for t in tensors]))

    [ratio] = callback.history["ratio"]["quantize_stem"]
    expected = abs(float(d_step)) / (norm(d_kernels) / norm(kernels))
    assert ratio == pytest.approx(expected, rel=1e-4)


def test_a_custom_loss_replaces_the_compiled_one(rng):
    inputs = layers.Input((4,), name="features")
    student = tf_lsq.quantize_model(keras.Model(inputs, layers.Dense(3)(inputs)))
    student.compile("sgd", "mae")
    x, y = (rng.normal(size=(8, n)).astype(np.float32) for n in (4, 3))
    tf_lsq.calibrate(student, x)
    losses = (None, "mae", keras.losses.MeanAbsoluteError(), "mse")
    found = [
        begun(student, data=(x, y), loss=loss).history["ratio"]["dense"]
        for loss in losses
    ]
    assert found[0] == found[1] == found[2]
    assert found[0] != pytest.approx(found[3], rel=1e-2)


# --- What is recorded ----------------------------------------------------------------


def test_records_are_made_at_the_beginning_at_the_frequency_and_at_the_end(trained):
    student, callback, _ = trained
    assert callback.history["batch"] == [0, 2, 3]
    assert set(callback.history) == {
        "batch",
        "step",
        "ratio",
        "unscaled_ratio",
        "clipped",
        "counts",
    }
    for quantity, found in callback.history.items():
        if quantity != "batch":
            assert all(len(values) == 3 for values in found.values())
    for name, step in tf_lsq.steps(student).items():
        assert callback.history["step"][name][-1] == step
        assert callback.history["step"][name][0] != step


def test_the_default_frequency_is_an_epoch_and_a_second_fit_continues(data):
    student = trainable()
    callback = tf_lsq.Diagnostics()
    student.fit(*data, verbose=0, callbacks=[callback])
    assert callback.history["batch"] == [0, 2]
    student.fit(*data, epochs=2, verbose=0, callbacks=[callback])
    assert callback.history["batch"] == [2, 4, 6]


@pytest.mark.parametrize("first", [False, True])
def test_a_resumed_run_continues_the_batch_count(first, data, tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path, delete_checkpoint=False)

    stopped = trainable()
    stopped.fit(*data, epochs=2, verbose=0, callbacks=[backup()])
    student, callback = trainable(), tf_lsq.Diagnostics(frequency=1)
    callbacks = [callback, backup()] if first else [backup(), callback]
    student.fit(*data, epochs=3, verbose=0, callbacks=callbacks)
    assert callback.history["batch"] == [4, 5, 6]
    found = [steps[0] for steps in callback.history["step"].values()]
    assert found == list(tf_lsq.steps(stopped).values())


def test_codes_and_clipping_match_the_data(data):
    student = trainable()
    tf_lsq.calibrate(student, data[0])
    for layer in (*wrapped_layers(student), *quantization_points(student)):
        layer.step_variables["step"].assign(
            0.4 * tf.ones_like(layer.step_variables["step"])
        )
    callback = begun(student, data=data, batch_size=8)
    for wrapper in wrapped_layers(student):
        check_use(callback, wrapper, wrapper.kernel.numpy())
    # Batch norms use the statistics of the batch, dropout does nothing.
    for layer in student.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    for point in quantization_points(student):
        arriving = keras.Model(student.inputs, point.input)
        check_use(callback, point, arriving(data[0][:8], training=True).numpy())


def check_use(callback, layer, values):
    """Compares with counts in NumPy."""
    integers = callback.codes[layer.name]
    step = layer.step.numpy()
    low, high = integers[0], integers[-1]
    assert high - low == 2**layer.quantizer.num_bits - (2 if low == -127 else 1)
    if layer.name == "quantize_relu6":
        values = np.minimum(values, 6.0)
    codes = np.clip(np.rint(values / step), low, high)
    counts = [np.sum(codes == q) for q in integers]
    beyond = values / step > high + 0.5
    if low < 0:
        beyond |= values / step < low - 0.5
    [found], [clipped] = (
        callback.history[k][layer.name] for k in ("counts", "clipped")
    )
    # A tie or two may round the other way.
    assert np.abs(found - counts).sum() <= 4
    assert found.sum() == values.size
    assert clipped == pytest.approx(beyond.mean(), abs=2 / values.size)


def test_without_data_only_kernels_are_recorded_and_without_labels_no_ratios(data):
    student = trainable()
    tf_lsq.calibrate(student, data[0])
    found = {}
    for name, given in {"none": None, "inputs": data[0]}.items():
        callback = begun(student, data=given)
        assert "ratio" not in callback.history
        assert set(callback.history["step"]) == set(tf_lsq.steps(student))
        found[name] = set(callback.history["clipped"])
    assert found["none"] == {wrapper.name for wrapper in wrapped_layers(student)}
    assert found["inputs"] == set(tf_lsq.steps(student))


# --- Training is unaffected ----------------------------------------------------------


def test_training_is_the_same_with_the_callback(data):
    weights, logs = [], []
    for callbacks in ([], [tf_lsq.Diagnostics(data=data, frequency=2)]):
        student = trainable()
        history = student.fit(
            *data,
            batch_size=16,
            epochs=2,
            verbose=0,
            validation_data=data,
            callbacks=callbacks,
        )
        weights.append([*student.get_weights(), *student.optimizer.variables])
        logs.append(history.history)
    assert logs[0] == logs[1]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_custom_cross_entropy_infers_the_kind_of_outputs(data):
    student = trainable()
    student.compile("sgd", tf_lsq.CrossEntropy())
    own = tf_lsq.Diagnostics(data=data, loss=tf_lsq.CrossEntropy())
    compiled = tf_lsq.Diagnostics(data=data)
    student.fit(*data, verbose=0, callbacks=[own, compiled])
    for name, ratios in compiled.history["ratio"].items():
        assert own.history["ratio"][name] == pytest.approx(ratios, rel=1e-5)


def test_a_model_that_holds_the_student_can_be_trained(data):
    student = trainable()
    tf_lsq.calibrate(student, data[0])
    holder = tiny.Holder(student)
    holder.compile("sgd", student.loss)
    callback = tf_lsq.Diagnostics(data=data)
    holder.fit(*data, verbose=0, callbacks=[callback])
    assert callback.history["batch"] == [0, 2]
    assert set(callback.history["step"]) == set(tf_lsq.steps(student))
    assert all(math.isfinite(r) for r in callback.history["ratio"]["middle"])


def test_negative_values_below_a_learned_range_count_as_clipped(rng):
    inputs = layers.Input((6,), name="features")
    x = layers.Dense(8, activation="swish", name="inner")(inputs)
    student = tf_lsq.quantize_model(
        keras.Model(inputs, layers.Dense(2)(x)), asymmetric_activations=True
    )
    student.compile("sgd", "mse")
    x = rng.normal(size=(64, 6)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    points = quantization_points(student)
    [point] = [p for p in points if p.name == "quantize_inner"]
    point.step_variables["offset"].assign(0.0)
    values = keras.Model(student.inputs, point.input)(x).numpy()
    step = float(point.step)
    beyond = (values < -0.5 * step) | (values > 255.5 * step)
    found = begun(student, data=x, batch_size=64).history["clipped"][point.name]
    assert found == [pytest.approx(beyond.mean())]
    assert beyond.mean() > 0.1


def test_codes_of_a_learned_range_are_counted_from_zero(rng):
    inputs = layers.Input((6,), name="features")
    x = layers.Dense(8, activation="swish", name="inner")(inputs)
    student = tf_lsq.quantize_model(
        keras.Model(inputs, layers.Dense(2)(x)),
        activation_bits=3,
        first_last_bits=3,
        asymmetric_activations=True,
    )
    student.compile("sgd", "mse")
    x = rng.normal(size=(64, 6)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    [point] = [
        p for p in quantization_points(student) if p.name == "quantize_inner_swish"
    ]
    integers = np.rint(keras.Model(student.inputs, point.output)(x) / point.step)
    callback = begun(student, data=x, batch_size=64)
    np.testing.assert_array_equal(callback.codes[point.name], range(8))
    low = int(point.integer_range.q_min)
    assert low < 0
    [counts] = callback.history["counts"][point.name]
    np.testing.assert_array_equal(
        counts, [(integers == low + q).sum() for q in range(8)]
    )


def test_gradients_too_small_for_float16_are_scaled_as_in_training(data):
    """Ratios are dimensionless, so a smaller loss does not change them.

    R of one layer is a small difference of large sums, so float16 rounding leaves few
    correct digits. A factor that is a power of two does not change the rounding unless
    values underflow, which they do without the loss scale.
    """

    def ratios(factor, scaled=True):
        student = trainable()
        tf_lsq.calibrate(student, data[0])
        if not scaled:
            student.optimizer = student.optimizer.inner_optimizer
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        callback = begun(student, data=data, loss=lambda y, p: factor * loss(y, p))
        return np.array([ratio for [ratio] in callback.history["ratio"].values()])

    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        expected, found = ratios(1.0), ratios(2.0**-10)
        lost = ratios(2.0**-10, scaled=False)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert np.abs(lost / expected - 1).max() > 0.1


# --- What is written -----------------------------------------------------------------


def test_tensorboard_reads_scalars_and_histograms(trained):
    _, callback, logs = trained
    [path] = logs.iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(path)):
        event = Event.FromString(record.numpy())
        for value in event.summary.value:
            plugin = value.metadata.plugin_data.plugin_name
            found[value.tag, event.step] = plugin, tf.make_ndarray(value.tensor)
    history = callback.history
    for number, batch in enumerate(history["batch"]):
        for quantity in ("step", "ratio", "unscaled_ratio", "clipped"):
            for name, values in history[quantity].items():
                plugin, value = found.pop((f"{quantity}/{name}", batch))
                assert plugin == "scalars"
                np.testing.assert_allclose(value, np.mean(values[number]), rtol=1e-6)
        for name, counts in history["counts"].items():
            plugin, buckets = found.pop((f"codes/{name}", batch))
            assert plugin == "histograms"
            np.testing.assert_array_equal(buckets[:, 2], counts[number])
            np.testing.assert_array_equal(
                buckets[:, :2].mean(axis=1), callback.codes[name]
            )
    assert not found


def test_plots_name_every_layer(trained, tmp_path):
    student, callback, _ = trained
    paths = callback.plot(tmp_path / "new" / "plots")
    assert {path.name for path in paths} == {
        "steps.svg",
        "ratios.svg",
        "clipped.svg",
        "codes.svg",
    }
    for path in paths:
        text = path.read_text()
        names = tf_lsq.steps(student)
        if path.name == "ratios.svg":
            names = callback.history["ratio"]
        assert all(f">{name}<" in text for name in names), path.name


def test_without_data_only_kernels_are_plotted(trained, tmp_path):
    paths = begun(trained[0]).plot(tmp_path)
    assert {path.stem for path in paths} == {"steps", "clipped", "codes"}


def test_diagnostics_refuse_what_they_cannot_use(data, tmp_path):
    with pytest.raises(ValueError, match=r"`frequency`.*Received: 0"):
        tf_lsq.Diagnostics(frequency=0)
    with pytest.raises(ValueError, match=r"`frequency`.*Received: 'batch'"):
        tf_lsq.Diagnostics(frequency="batch")
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        tf_lsq.Diagnostics(data=data, batch_size=0)
    with pytest.raises(ValueError, match="at least one batch"):
        tf_lsq.Diagnostics(data=tf.data.Dataset.range(0).batch(1))
    with pytest.raises(RuntimeError, match="needs records"):
        tf_lsq.Diagnostics().plot(tmp_path)
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        student = trainable()
    with pytest.raises(ValueError, match=r"Received: MirroredStrategy.*`data` out"):
        student.fit(*data, verbose=0, callbacks=[tf_lsq.Diagnostics(data=data)])
    model = network()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="`network`, which has no quantized layers"):
        model.fit(*data, verbose=0, callbacks=[tf_lsq.Diagnostics()])


def test_integers_of_16_bits_are_counted_together(rng):
    inputs = keras.layers.Input((6,))
    x = keras.layers.Dense(8, name="a")(inputs)
    x = keras.layers.Add(name="sum")([x, keras.layers.Dense(8, name="b")(x)])
    model = keras.Model(inputs, keras.layers.Dense(3, name="last")(x))
    student = tf_lsq.quantize_model(model, overrides={"sum": 16})
    x = rng.normal(size=(64, 6)).astype(np.float32)
    y = rng.integers(0, 3, 64)
    student.compile("sgd", tf_lsq.CrossEntropy(from_logits=True))
    diagnostics = tf_lsq.Diagnostics(data=(x, y))
    student.fit(x, y, epochs=2, verbose=0, callbacks=[diagnostics])
    codes, counts = diagnostics.codes, diagnostics.history["counts"]
    assert codes["quantize_sum"].tolist() == list(range(-(2**15), 2**15, 256))
    assert {record.sum() for record in counts["quantize_sum"]} == {32 * 8}
    assert len(codes["quantize_a"]) == 256
