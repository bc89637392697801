"""The networks: their sizes, and that narrow ones can be quantized."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from harness import tiny

import tf_lsq
import tflite_export
from tf_lsq import models
from tf_lsq._compat import keras


def num_parameters(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_weights)


# Published numbers of trainable parameters. The residual networks and SqueezeNext:
# https://github.com/osmr/imgclsmob (PreResNet-18 .. -152, 2.0-SqNxt-23). VGG-16 with
# batch norm: torchvision's vgg16_bn. MobileViT-XXS: timm's mobilevit_xxs. ConvNeXt-Atto
# and -Pico: 3,708,400 and 9,066,280 of timm's second versions, less two per hidden unit
# of their response normalization. By hand, from the layers: DS-CNN of MLPerf Tiny,
# 64 (40 + 1) + 4 * 64 (9 + 1 + 64 + 1) + 9 * 2 * 64 + 12 (64 + 1); KWT-1, 64 (40 + 1)
# + 64 * 99 + 12 (4 * 64 * 64 + 2 * 64 * 256 + 256 + 64 + 4 * 64) + 2 * 64
# + 12 (64 + 1).
PUBLISHED = {
    "preact_resnet18": 11_687_848,
    "preact_resnet34": 21_796_008,
    "preact_resnet50": 25_549_480,
    "preact_resnet101": 44_541_608,
    "preact_resnet152": 60_185_256,
    "vgg16_bn": 138_365_992,
    "squeezenext23_2x": 2_583_752,
    "ds_cnn": 23_756,
    "kwt1": 606_604,
    "mobilevit_xxs": 1_272_024,
    "convnext_atto": 3_708_400 - 8 * (2 * 40 + 2 * 80 + 6 * 160 + 2 * 320),
    "convnext_pico": 9_066_280 - 8 * (2 * 64 + 2 * 128 + 6 * 256 + 2 * 512),
}


def deep(*names):
    """Test parameters for these names, marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


DEEP = ["preact_resnet101", "preact_resnet152"]


@pytest.mark.parametrize(
    "name", [*(name for name in PUBLISHED if name not in DEEP), *deep(*DEEP)]
)
def test_parameter_counts_are_the_published_ones(name):
    # Only shapes are needed, so nothing is allocated.
    with tf.Graph().as_default():
        assert num_parameters(getattr(models, name)()) == PUBLISHED[name]


@pytest.mark.parametrize(
    "name", ["preact_resnet50", "ds_cnn", *deep("squeezenext23_2x")]
)
def test_narrow_networks_are_exported_exactly(name, rng, tmp_path):
    build = getattr(models, name)
    model = tiny.randomize(build((32, 32, 3), classes=5, width=0.0625), rng)
    student = tf_lsq.quantize_model(model)
    x = rng.uniform(0, 1, (16, 32, 32, 3)).astype(np.float32)
    tf_lsq.calibrate(student, x)
    path = tmp_path / "model.tflite"
    assert not tflite_export.export_model(student, path).float_layers
    found = tflite_export.verify_tflite(
        path, student, x, point_examples=4, verbose=False
    )
    assert found.equal_codes == found.weight_codes


SLOW = {*DEEP, "preact_resnet34", "squeezenext23_2x"}


@pytest.mark.parametrize(
    "name", [*(name for name in PUBLISHED if name not in SLOW), *deep(*sorted(SLOW))]
)
def test_calibrated_students_are_the_networks_on_a_grid(name, rng):
    shape, width = ((32, 32), 0.25) if name == "kwt1" else ((32, 32, 3), 0.0625)
    build = getattr(models, name)
    model = tiny.randomize(build(shape, classes=5, width=width), rng)
    x = rng.uniform(0, 1, (16, *shape)).astype(np.float32)
    student = tf_lsq.quantize_model(model, weight_bits=8, activation_bits=8)
    tf_lsq.calibrate(student, x)
    found = student.predict_on_batch(x)
    assert tiny.largest_difference(found, model.predict_on_batch(x)) < 0.05


def test_width_and_classes_can_be_chosen():
    model = models.preact_resnet18((16, 16, 1), classes=7, width=0.25)
    assert model.input_shape == (None, 16, 16, 1) and model.output_shape == (None, 7)
    assert model.get_layer("stage4_block2_conv2").filters == 128
    assert isinstance(model, keras.Model)


def test_invalid_depths_and_widths_are_refused():
    with pytest.raises(ValueError, match="`depth` must be one of"):
        models.preact_resnet(20)
    with pytest.raises(ValueError, match="`width` positive"):
        models.vgg16_bn(width=0)
