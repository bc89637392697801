"""The networks of the LSQ paper, and small ones of today, as Keras models.

Every function takes `input_shape`, `classes` and `width`, a multiplier of the number
of channels, and returns an untrained float model that outputs logits: compile it with
``from_logits=True``.
"""

from .convnext import convnext_atto, convnext_pico
from .convolutional import (
    ds_cnn,
    preact_resnet,
    preact_resnet18,
    preact_resnet34,
    preact_resnet50,
    preact_resnet101,
    preact_resnet152,
    squeezenext23_2x,
    vgg16_bn,
)
from .keyword_transformer import kwt1
from .mobilevit import mobilevit_xxs

__all__ = [
    "convnext_atto",
    "convnext_pico",
    "ds_cnn",
    "kwt1",
    "mobilevit_xxs",
    "preact_resnet",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "preact_resnet101",
    "preact_resnet152",
    "squeezenext23_2x",
    "vgg16_bn",
]
