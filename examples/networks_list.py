"""The networks of `networks.py`: those of `tf_lsq.models` and of `keras.applications`.

Of every family of `keras.applications`, in either Keras, the smallest network and one
of its middle are taken through all stages; larger ones are only exported.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import keras as keras3
import tf_keras

import tf_lsq

CLASSES = 10
OWN = "tf_lsq.models"
PACKAGES = {"tf_keras": tf_keras, "Keras 3": keras3}
Bits = tuple[int, int]  # Of weights and of activations.


@dataclasses.dataclass(frozen=True)
class Network:
    """One network.

    Attributes:
        name: Its name, unique among the networks.
        package: The package that builds it.
        build: Returns the float model for a shape of the input.
        shape: Shape of an input, without the batch.
        range: Smallest and largest input value.
        logits: Whether the outputs are logits, not probabilities.
        bits: The widths at which it is checked.
        trained: Whether it is also trained for one step, saved and loaded.
    """

    name: str
    package: str
    build: Callable[[tuple[int, ...]], Any]
    shape: tuple[int, ...]
    range: tuple[float, float]
    logits: bool
    bits: tuple[Bits, ...]
    trained: bool


@dataclasses.dataclass(frozen=True)
class Family:
    """A family of `keras.applications`.

    Attributes:
        members: Names of its networks, from the smallest.
        middle: The one that is trained besides the smallest; "": none.
        size: Height and width of the images.
        pixels: Whether a network takes bytes of pixels and normalizes them itself, not
            values from -1 to 1.
        packages: Those that have it.
    """

    members: tuple[str, ...]
    middle: str = ""
    size: int = 64
    pixels: bool = False
    packages: tuple[str, ...] = tuple(PACKAGES)


def _members(name: str, variants: str) -> tuple[str, ...]:
    """Returns the names of a family whose variants are separated by spaces."""
    return tuple(name.format(variant) for variant in variants.split())


_REGNET = "002 004 006 008 016 032 040 064 080 120 160 320"
_RESNET = "50 101 152"
# Sizes of images are 64, or the smallest that the networks take.
FAMILIES = {
    "MobileNet": Family(("MobileNet",)),
    "MobileNetV2": Family(("MobileNetV2",)),
    "MobileNetV3": Family(
        _members("MobileNetV3{}", "Small Large"), "MobileNetV3Large", pixels=True
    ),
    "NASNet": Family(_members("NASNet{}", "Mobile Large")),
    "EfficientNet": Family(
        _members("EfficientNetB{}", "0 1 2 3 4 5 6 7"), "EfficientNetB3", pixels=True
    ),
    "EfficientNetV2": Family(
        _members("EfficientNetV2{}", "B0 B1 B2 B3 S M L"),
        "EfficientNetV2B3",
        pixels=True,
    ),
    "RegNetX": Family(
        _members("RegNetX{}", _REGNET),
        "RegNetX032",
        pixels=True,
        packages=("tf_keras",),
    ),
    "RegNetY": Family(
        _members("RegNetY{}", _REGNET),
        "RegNetY032",
        pixels=True,
        packages=("tf_keras",),
    ),
    "DenseNet": Family(_members("DenseNet{}", "121 169 201"), "DenseNet169"),
    "Xception": Family(("Xception",), size=71),
    "InceptionV3": Family(("InceptionV3",), size=75),
    "ResNet": Family(_members("ResNet{}", _RESNET), "ResNet101"),
    "ResNetV2": Family(_members("ResNet{}V2", _RESNET), "ResNet101V2"),
    "ResNetRS": Family(
        _members("ResNetRS{}", "50 101 152 200 270 350 420"),
        "ResNetRS152",
        pixels=True,
        packages=("tf_keras",),
    ),
    "VGG": Family(_members("VGG{}", "16 19"), "VGG19"),
    "ConvNeXt": Family(
        _members("ConvNeXt{}", "Tiny Small Base Large XLarge"),
        "ConvNeXtSmall",
        pixels=True,
    ),
    "InceptionResNetV2": Family(("InceptionResNetV2",), size=75),
}


def bits_name(bits: Bits) -> str:
    """Returns how a table names a width: bits of weights and of activations."""
    return "/".join(map(str, bits))


def application_names(package: str) -> set[str]:
    """Returns the names of all functions that build a network of applications."""
    found = inspect.getmembers(PACKAGES[package].applications, inspect.isfunction)
    return {name for name, _ in found}


def _own(name: str, shape: tuple[int, ...], width: float = 1.0) -> Network:
    """Returns a network of `tf_lsq.models`."""
    build = getattr(tf_lsq.models, name)
    return Network(
        name=name,
        package=OWN,
        build=lambda shape: build(shape, CLASSES, width),
        shape=shape,
        range=(-1.0, 1.0),
        logits=True,
        bits=((8, 8), (4, 4)),
        trained=True,
    )


def _application(family: Family, name: str, package: str) -> Network:
    """Returns a network of `keras.applications`."""
    build = getattr(PACKAGES[package].applications, name)
    shape = (family.size, family.size, 3)
    trained = name in (family.members[0], family.middle)
    return Network(
        name=f"{name} ({package})",
        package=package,
        build=lambda shape: build(input_shape=shape, weights=None, classes=CLASSES),
        shape=shape,
        range=(0.0, 255.0) if family.pixels else (-1.0, 1.0),
        logits=False,
        bits=((8, 8), (4, 8)) if trained else ((8, 8),),
        trained=trained,
    )


def _applications(chosen: Callable[[Family, str], bool]) -> list[Network]:
    """Returns those networks of all families and packages that are chosen."""
    return [
        _application(family, name, package)
        for family in FAMILIES.values()
        for name in family.members
        if chosen(family, name)
        for package in family.packages
    ]


_IMAGE = (64, 64, 3)
_NETWORKS = [
    _own("ds_cnn", (49, 10, 1)),
    _own("kwt1", (98, 40)),
    _own("convnext_atto", _IMAGE),
    # Attention over one token, as with 64 pixels, has no gradient.
    _own("mobilevit_xxs", (128, 128, 3)),
    _own("preact_resnet18", _IMAGE),
    _own("convnext_pico", _IMAGE),
    _own("vgg16_bn", _IMAGE, width=0.5),
    _own("squeezenext23_2x", _IMAGE),
    _own("preact_resnet34", _IMAGE),
    _own("preact_resnet50", _IMAGE),
    _own("preact_resnet101", _IMAGE),
    _own("preact_resnet152", _IMAGE),
    *_applications(lambda family, name: name == family.members[0]),
    *_applications(lambda family, name: name == family.middle),
    *_applications(lambda family, name: name not in (family.members[0], family.middle)),
]
# In the order in which they are run: the smallest of all families come first.
NETWORKS = {network.name: network for network in _NETWORKS}
