"""The Keras layers and quantizers that hold learned steps."""

from .attributes import replaced_attributes
from .constants import AddConstant, ChannelScaling, MultiplyConstant
from .loans import borrowed_sums
from .masked_point import MaskedPoint
from .pixel_point import PixelPoint
from .point import FixedPoint, QuantizationPoint
from .quantize_configs import QUANTIZED_WEIGHTS, LSQQuantizeConfig
from .quantizers import LSQActivationQuantizer, LSQWeightQuantizer
from .wrapper import LSQWrapper

__all__ = [
    "QUANTIZED_WEIGHTS",
    "AddConstant",
    "ChannelScaling",
    "FixedPoint",
    "LSQActivationQuantizer",
    "LSQQuantizeConfig",
    "LSQWeightQuantizer",
    "LSQWrapper",
    "MaskedPoint",
    "MultiplyConstant",
    "PixelPoint",
    "QuantizationPoint",
    "borrowed_sums",
    "replaced_attributes",
]
